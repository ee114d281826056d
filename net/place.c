/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "net/place.h"

#include <math.h>
#include <stdlib.h>
#include "net/ec.h"

struct rank {
	double score;
	uint64_t draw; /* a random number of (segment, node) */
	const struct place_node *node;
};

static unsigned domain_cap(unsigned m)
{
	/* Without parity nothing may fail, so a node each is all that can be asked. */
	return HF_MAX(m, 1u);
}

/* Higher first; a tie, which needs equal hashes, by number. */
static int rank_cmp(const void *a, const void *b)
{
	const struct rank *x = a, *y = b;

	if (x->score != y->score)
		return x->score > y->score ? -1 : 1;
	return (x->node->node > y->node->node) - (x->node->node < y->node->node);
}

static void rank_set(struct rank *r, const struct seg_id *seg, const struct place_node *node)
{
	uint8_t in[SEG_LEN + 2], h[HASH_LEN];

	memcpy(in, seg->b, SEG_LEN);
	put_le16(in + SEG_LEN, node->node);
	hash_tag("place", in, sizeof in, h);
	/* 53 bits, in the middle of their interval: never 0 and never 1. */
	double u = ((double)(get_le64(h) >> 11) + 0.5) * 0x1p-53;
	r->score = -(double)node->weight / log(u);
	r->draw = get_le64(h + 8);
	r->node = node;
}

/* How much a node likes a shard number: splitmix64's finaliser. */
static uint64_t affinity(uint64_t draw, unsigned shard)
{
	uint64_t z = draw + (shard + 1) * 0x9e3779b97f4a7c15u;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

/* Of the ranks chosen so far, how many are in this domain. */
static unsigned in_domain(const struct rank *const at[], unsigned n, uint32_t domain)
{
	unsigned cnt = 0;

	for (unsigned i = 0; i < n; i++)
		cnt += at[i] && at[i]->node->domain == domain;
	return cnt;
}

/*
 * Gives the set's nodes shard numbers: the pair with the highest affinity first.  A node more
 * or less in the set so moves few of the others, which numbers by rank would not do.
 */
static void assign(const struct rank *const set[], unsigned set_cnt, unsigned n,
		   const struct rank *at[])
{
	bool used[EC_MAX] = {false};

	for (unsigned i = 0; i < n; i++)
		at[i] = NULL;
	for (unsigned round = 0; round < set_cnt; round++) {
		unsigned best_i = n, best_j = 0;
		uint64_t best = 0;

		for (unsigned j = 0; j < set_cnt; j++) {
			for (unsigned i = 0; i < n && !used[j]; i++) {
				uint64_t a = affinity(set[j]->draw, i);
				if (at[i] || (best_i < n && a <= best))
					continue;
				best = a;
				best_i = i;
				best_j = j;
			}
		}
		at[best_i] = set[best_j];
		used[best_j] = true;
	}
}

static bool holds(const struct rank *const at[], unsigned n, const struct rank *r)
{
	for (unsigned i = 0; i < n; i++)
		if (at[i] == r)
			return true;
	return false;
}

int place_shards(const struct seg_id *seg, const struct place_node *nodes, size_t node_cnt,
		 unsigned k, unsigned m, uint16_t out[])
{
	const struct rank *set[EC_MAX], *at[EC_MAX], *home[EC_MAX];
	unsigned n = k + m, set_cnt = 0;
	int placed = 0;

	if (k < 1 || k > EC_MAX || m > EC_MAX - k || node_cnt > NODE_NONE)
		return -EINVAL;
	for (size_t i = 0; i < node_cnt; i++)
		if (nodes[i].weight == 0 || nodes[i].node == NODE_NONE)
			return -EINVAL;
	struct rank *rank = calloc(HF_MAX(node_cnt, (size_t)1), sizeof *rank);
	if (!rank)
		return -ENOMEM;
	for (size_t i = 0; i < node_cnt; i++)
		rank_set(&rank[i], seg, &nodes[i]);
	qsort(rank, node_cnt, sizeof *rank, rank_cmp);

	/* Each shard's home is chosen as if every node were usable. */
	for (size_t i = 0; i < node_cnt && set_cnt < n; i++)
		if (in_domain(set, set_cnt, rank[i].node->domain) < domain_cap(m))
			set[set_cnt++] = &rank[i];
	assign(set, set_cnt, n, home);
	for (unsigned i = 0; i < n; i++)
		at[i] = home[i] && home[i]->node->usable ? home[i] : NULL;

	/* The best of the others stands in, where the home is not usable. */
	for (unsigned i = 0; i < n; i++) {
		for (size_t j = 0; j < node_cnt && !at[i]; j++) {
			const struct place_node *p = rank[j].node;
			if (p->usable && !holds(at, n, &rank[j]) &&
			    in_domain(at, n, p->domain) < domain_cap(m))
				at[i] = &rank[j];
		}
		out[i] = at[i] ? at[i]->node->node : (uint16_t)NODE_NONE;
		placed += at[i] != NULL;
	}
	free(rank);
	return placed;
}

static int domain_cmp(const void *a, const void *b)
{
	const uint32_t *x = a, *y = b;
	return (*x > *y) - (*x < *y);
}

int place_check(const struct place_node *nodes, size_t node_cnt, unsigned k, unsigned m)
{
	size_t room = 0, same = 0;

	if (k < 1 || k > EC_MAX || m > EC_MAX - k)
		return log_fail(-EINVAL, "%u + %u shards: need 1 to %u in all", k, m, EC_MAX);
	if (node_cnt < k + m)
		return log_fail(-EINVAL, "%u + %u shards need %u nodes, there are %zu", k, m,
				k + m, node_cnt);
	uint32_t *domain = calloc(node_cnt, sizeof *domain);
	if (!domain)
		return -ENOMEM;
	for (size_t i = 0; i < node_cnt; i++)
		domain[i] = nodes[i].domain;
	qsort(domain, node_cnt, sizeof *domain, domain_cmp);
	for (size_t i = 0; i < node_cnt; i++) {
		same = i && domain[i] == domain[i - 1] ? same + 1 : 1;
		room += same <= domain_cap(m);
	}
	free(domain);
	for (size_t i = 0; i < node_cnt; i++)
		if (nodes[i].weight == 0 || nodes[i].node == NODE_NONE)
			return log_fail(-EINVAL, "node %u: not a valid number or weight",
					nodes[i].node);
	if (room < k + m)
		return log_fail(
			-EINVAL,
			"%u + %u shards with at most %u on nodes that fail together: the "
			"%zu nodes have room for %zu",
			k, m, domain_cap(m), node_cnt, room);
	return 0;
}
