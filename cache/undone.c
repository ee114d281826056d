/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * When SQLite cannot write, it takes the whole transaction back, so that the rows are as old as
 * the last COMMIT, while inodes in memory are as new as the last call; or it takes back the one
 * statement, and the rows are as half a change left them.  A file's extents of then, or half of
 * them, under its ranges of now would be bytes that were never there together.  So the numbers of
 * the inodes, and of the names, whose rows the open transaction has changed are kept: should that
 * happen, nothing is read any more from rows of theirs; what is in memory and in cache files is,
 * as is all of the others.
 */
#include <stdlib.h>
#include "cache/db.h"

#define CAP_MIN	 1024u
#define CAP_KEEP 65536u /* larger tables are given back with the COMMIT */
#define CAP_MAX	 (1u << 20) /* of one that is never full: a recovery is one transaction */

static uint64_t *slot_of(const struct touched *t, uint64_t what)
{
	size_t i = (size_t)(what * 0x9e3779b97f4a7c15u >> 32) & (t->cap - 1);

	while (t->slot[i] && t->slot[i] != what)
		i = (i + 1) & (t->cap - 1);
	return &t->slot[i];
}

static bool grow(struct touched *t)
{
	struct touched now = {.cap = t->cap ? 2 * t->cap : CAP_MIN, .cnt = t->cnt};

	now.slot = now.cap <= CAP_MAX ? calloc(now.cap, sizeof *now.slot) : NULL;
	if (!now.slot)
		return false;
	for (size_t i = 0; i < t->cap; i++)
		if (t->slot[i])
			*slot_of(&now, t->slot[i]) = t->slot[i];
	free(t->slot);
	*t = now;
	return true;
}

void store_touch_locked(struct store *st, uint64_t what)
{
	struct touched *t = &st->touched;

	if (t->last == what || t->all)
		return;
	if (2 * t->cnt >= t->cap && !grow(t)) {
		t->all = true;
		return;
	}
	uint64_t *at = slot_of(t, what);
	t->cnt += !*at;
	*at = t->last = what;
}

bool store_undone_locked(const struct store *st, uint64_t what)
{
	const struct touched *t = &st->touched;

	if (!st->failed || !st->db || st->opts.skip_undone)
		return false;
	if (st->whole && !sqlite3_get_autocommit(st->db))
		return false;
	return t->all || (t->cnt && *slot_of(t, what));
}

void touched_clear(struct store *st)
{
	struct touched *t = &st->touched;

	if (t->cap > CAP_KEEP) {
		touched_release(st);
		return;
	}
	if (t->cnt)
		memset(t->slot, 0, t->cap * sizeof *t->slot);
	t->cnt = 0;
	t->last = 0;
	t->all = false;
}

void touched_release(struct store *st)
{
	free(st->touched.slot);
	st->touched = (struct touched){0};
}
