/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * tree: the whole drive from the nodes into an empty store, for recovery and for a database
 * that is damaged.
 */
#ifndef HOLDFAST_FS_TREE_H
#define HOLDFAST_FS_TREE_H

#include "cache/store.h"
#include "net/header.h"

struct tree_load {
	const struct rec_device *device; /* certified */
	size_t device_cnt;
	const struct hist_seen *floor; /* nothing older is accepted */
	size_t floor_cnt;
	/*
	 * NULL: the store's device goes on.  Else it is a new one, and every device that may
	 * write is taken over once the drive was read: only then do the nodes change.  What
	 * came from them until that moment is read as well.
	 */
	const struct owner *owner;
	uint16_t as; /* the store's device */
};
/* Progress goes to standard error.  0 or -errno with a log line; the store is of no use then.
 */
int tree_load(struct volume *v, struct store *st, const struct tree_load *t);

#endif
