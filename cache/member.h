/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * member: the nodes and devices of the volume as rows, so that commits and snapshots carry
 * them: whoever recovers from a node that an old kit knows finds the others.
 */
#ifndef HOLDFAST_CACHE_MEMBER_H
#define HOLDFAST_CACHE_MEMBER_H

#include "cache/store.h"
#include "net/record.h"

/* What differs from the rows is written and goes out with the next cut.  0 or -EIO. */
int member_put(struct store *st, const struct node_spec *node, size_t node_cnt,
	       const struct rec_device *device, size_t device_cnt);

/* The address of a node as a row has it; *url is malloc'ed.  0, -ENOENT, -ENOMEM, -EIO. */
int member_url(struct store *st, uint16_t number, char **url);

/* One device, if its row differs; chg is its epoch.  meta held. */
int member_device_locked(struct store *st, const struct rec_device *d, uint64_t chg);

#endif
