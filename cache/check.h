/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * check: fsck of the local side: the database against itself, cache files against the
 * database, extents against segments; and, asked for, every shard on the nodes.
 * Changes nothing unless `mark` or `repair`: then what can be set right without losing bytes is.
 */
#ifndef HOLDFAST_CACHE_CHECK_H
#define HOLDFAST_CACHE_CHECK_H

#include "cache/logs.h"

struct check_opts {
	bool nodes;  /* every shard present */
	bool deep;   /* and every cell's tag; with trust, every copy of the log as well */
	bool repair;
	bool mark;   /* shards that are found missing or damaged go to the repair list */
	bool in_use; /* a publisher runs */
	struct logs_trust trust;
	/* one finding: a sentence */
	void (*found)(void *arg, const char *what);
	void (*progress)(void *arg, const char *what, uint64_t done, uint64_t total);
	void *arg;
};
/* The number of findings, or -errno. */
int64_t check_store(struct store *st, const struct check_opts *o);

#endif
