/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * apply: records of commits and snapshots into an empty database (recovery, rebuild).
 * Records are states, so applying one twice changes nothing.
 */
#ifndef HOLDFAST_CACHE_APPLY_H
#define HOLDFAST_CACHE_APPLY_H

#include "cache/store.h"
#include "net/history.h"

struct apply;
/* The store must hold no tree yet (-EEXIST).  progress may be NULL. */
int apply_new(struct apply **out, struct store *st,
	      void (*progress)(void *arg, uint64_t records, uint64_t files), void *arg);
void apply_free(struct apply *a);
/* For history_load. */
extern const struct hist_cb apply_cb;
/*
 * All streams are in: checks that the tree is whole (every link has its inode, every extent
 * its segment), drops inodes without a name, sets counters, epochs and chain ends from *hs,
 * commits.  -EBADMSG with a log line when the tree is not whole.
 */
int apply_finish(struct apply *a, const struct hist_state *hs);

#endif
