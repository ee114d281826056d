/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * older: a node that was restored from an older copy of itself has its marker and old blobs,
 * and lacks new ones of which the database says that it has them.  To see that without
 * listing it, this device keeps a small blob on every node, "v/e...", whose name follows
 * from the device, the node and the time it was written; a new one is written when a mount
 * first sees the node and once a day, and only then the one before the last is deleted.  The
 * time of the last one that the node acknowledged is in the database (kv `epoch_N`).  Where a
 * node comes back without that blob an older copy is back.
 *
 * What was stored between the blob and the copy's making is not noticed by this: listings
 * and scrubbing find that.  The mend thread alone calls these.
 */
#ifndef HOLDFAST_CACHE_OLDER_H
#define HOLDFAST_CACHE_OLDER_H

#include "cache/cut.h"

/* As older_check, and nobody is asked whether it is to be skipped. */
int older_ask(struct store *st, struct node *n);
/* 1: an older copy is back, said in the log and as the node's error; 0 not; -errno unknown. */
int older_check(struct publisher *p, struct node *n);
/* Writes the next blob, when the last is a day old or `always`; 0 or -errno. */
int older_mark(struct publisher *p, struct node *n, bool always);

#endif
