/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * place: which node holds which shard.  Weighted rendezvous hashing (Thaler and
 * Ravishankar 1998; weights by -w/ln(h)), with at most `m` shards on one failure domain.
 * A pure function of its input.
 */
#ifndef HOLDFAST_NET_PLACE_H
#define HOLDFAST_NET_PLACE_H

#include "net/keys.h"

#define NODE_NONE 0xffffu

struct place_node {
	uint16_t node;	 /* number, never reused */
	uint32_t weight; /* > 0 */
	uint32_t domain; /* equal numbers fail together */
	bool usable;	 /* may take new shards now */
};

/*
 * Chooses a node for each of n = k + m shards.  out[i] = node number or NODE_NONE where no
 * usable node is left for that shard (it goes to the repair list).  The choice for a node
 * does not depend on whether the others are usable, so a returning node gets its own back.
 * Where there are exactly n nodes, shard i's node varies by segment.
 * Returns the number of shards placed, or -EINVAL.
 */
int place_shards(const struct seg_id *seg, const struct place_node *nodes, size_t node_cnt,
		 unsigned k, unsigned m, uint16_t out[]);

/* The largest m-tolerant layout the nodes allow: 0, or -EINVAL with a log line saying why. */
int place_check(const struct place_node *nodes, size_t node_cnt, unsigned k, unsigned m);

#endif
