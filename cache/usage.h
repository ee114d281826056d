/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * usage: what the database says is where: shards and bytes of every node, segments that
 * lack shards, and how many more nodes may be lost.  Reads a batch of rows at a time, so
 * that nobody waits for it.
 */
#ifndef HOLDFAST_CACHE_USAGE_H
#define HOLDFAST_CACHE_USAGE_H

#include "cache/store.h"

struct usage_node {
	uint16_t number;
	bool lost; /* in: nothing on it counts */
	uint64_t shards, bytes;
};
/*
 * usage_read(st, k, m, node, node_cnt, below_target, survives): fills shards and bytes of
 * each node[]; *survives is how many of the nodes that are not lost may be lost as well so
 * that every segment keeps k shards, at most m.  Takes st->meta.  0 or -EIO.
 */
int usage_read(struct store *st, unsigned k, unsigned m, struct usage_node *node,
	       size_t node_cnt, uint64_t *below_target, unsigned *survives);

#endif
