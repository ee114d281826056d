/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "cache/usage.h"

#define BATCH 1000

static struct usage_node *find(struct usage_node *node, size_t cnt, uint16_t number)
{
	for (size_t i = 0; i < cnt; i++)
		if (node[i].number == number)
			return &node[i];
	return NULL;
}

struct tally {
	struct usage_node *node;
	size_t node_cnt;
	uint64_t below;
	unsigned spare; /* the least that any segment has above its k */
};

static int count_row(struct tally *t, sqlite3_stmt *s)
{
	struct seg_geom g = {
		.k = (uint8_t)sqlite3_column_int(s, 1),
		.m = (uint8_t)sqlite3_column_int(s, 2),
		.cell_log2 = (uint8_t)sqlite3_column_int(s, 3),
		.cps = (uint32_t)sqlite3_column_int64(s, 4),
	};
	const uint8_t *where = sqlite3_column_blob(s, 5);
	size_t len = (size_t)sqlite3_column_bytes(s, 5);
	unsigned live = 0, placed = 0;

	if (len != 2u * (g.k + g.m) || g.cell_log2 > CELL_LOG2_MAX)
		return log_fail(-EBADMSG,
				"the database has a segment of wrong shape: holdfast fsck");
	for (unsigned i = 0; i < (unsigned)g.k + g.m; i++) {
		struct usage_node *n = find(t->node, t->node_cnt, get_le16(where + 2 * i));

		if (!n)
			continue;
		placed++;
		n->shards++;
		n->bytes += seg_shard_len(&g);
		live += !n->lost;
	}
	/* What is condemned still takes space, and nobody needs it. */
	if (sqlite3_column_int(s, 6) == 4)
		return 0;
	if (placed < (unsigned)g.k + g.m)
		t->below++;
	t->spare = HF_MIN(t->spare, live > g.k ? live - g.k : 0);
	return 0;
}

int usage_read(struct store *st, unsigned k, unsigned m, struct usage_node *node,
	       size_t node_cnt, uint64_t *below_target, unsigned *survives)
{
	struct tally t = {node, node_cnt, 0, m};
	int64_t last = INT64_MIN;
	unsigned alive = 0;
	int err = 0, rows;

	for (size_t i = 0; i < node_cnt; i++) {
		node[i].shards = node[i].bytes = 0;
		alive += !node[i].lost;
	}
	do {
		rows = 0;
		pthread_mutex_lock(&st->meta);
		sqlite3_stmt *s =
			store_stmt(st, "SELECT seg, k, m, cell_log2, cps, nodes, kind FROM segment "
				       "WHERE kind <> 3 AND seg > ? ORDER BY seg LIMIT ?");
		if (!s)
			err = -EIO;
		if (s) {
			sqlite3_bind_int64(s, 1, last);
			sqlite3_bind_int(s, 2, BATCH);
		}
		while (!err && (err = store_step(st, s)) == 1) {
			last = sqlite3_column_int64(s, 0);
			rows++;
			err = count_row(&t, s);
		}
		if (s)
			sqlite3_reset(s);
		pthread_mutex_unlock(&st->meta);
	} while (!err && rows == BATCH);
	*below_target = t.below;
	/*
	 * The log's objects are whole copies, but enough nodes must be left to show the newest
	 * one: with more nodes than a stripe is wide these are more than k.
	 */
	size_t quorum = HF_MIN((size_t)volume_quorum_of(k, m), node_cnt);
	size_t need = HF_MAX((size_t)k, node_cnt - quorum + 1);
	*survives = HF_MIN(t.spare, alive > need ? (unsigned)(alive - need) : 0);
	return err;
}
