/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * padded: what lies under the seal of headers, rosters, commits and snapshots: a length (le32),
 * the body, zeros up to a size of Padmé, so that the nodes learn little of how long it is.
 */
#ifndef HOLDFAST_NET_PADDED_H
#define HOLDFAST_NET_PADDED_H

#include "net/base.h"

/* len padded so that it tells little: at most 12 % more (Padmé; Nikitin et al., PETS 2019). */
size_t padme(size_t len);
/* The body begins at start + 4 and is complete; the 4 bytes before it were kept free. */
int padded_end(struct buf *out, size_t start);
/* *body: over the body, within p.  -EBADMSG for another length, or anything but zeros behind. */
int padded_open(const void *p, size_t len, struct rd *body);

#endif
