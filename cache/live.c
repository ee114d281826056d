/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * segment.live: how many bytes of a segment extents name.  Whoever inserts or deletes a row of
 * `extent` says so; what was said is added up in memory and written right before the COMMIT
 * of the same transaction, one row a segment, so that unlinking ten thousand neighbours costs
 * one update.  Bytes that several extents name count several times: 0 means that none does,
 * and a segment is never taken for emptier than it is.
 */
#include "cache/data.h"

static size_t slot_of(uint64_t seg)
{
	return (size_t)(seg * 0x9e3779b97f4a7c15u >> 40) & (LIVE_SLOTS - 1);
}

int live_flush_locked(struct store *st)
{
	for (size_t i = 0; st->live_cnt && i < LIVE_SLOTS; i++) {
		struct live_delta *d = &st->live[i];

		if (!d->seg)
			continue;
		if (d->delta) {
			sqlite3_stmt *q = store_stmt(
				st, "UPDATE segment SET live=max(live+?2,0) WHERE seg=?1");
			if (!q)
				return -EIO;
			sqlite3_bind_int64(q, 1, (int64_t)d->seg);
			sqlite3_bind_int64(q, 2, d->delta);
			int r = store_run(st, q);
			if (r)
				return r;
		}
		*d = (struct live_delta){0};
		st->live_cnt--;
	}
	return 0;
}

int live_add_locked(struct store *st, uint64_t seg, int64_t delta)
{
	size_t i = slot_of(seg);

	st->live_bytes += delta;
	while (st->live[i].seg && st->live[i].seg != seg)
		i = (i + 1) & (LIVE_SLOTS - 1);
	if (!st->live[i].seg) {
		if (2 * st->live_cnt >= LIVE_SLOTS) {
			int r = live_flush_locked(st);
			if (r)
				return r;
			i = slot_of(seg);
		}
		st->live[i].seg = seg;
		st->live_cnt++;
	}
	st->live[i].delta += delta;
	return 0;
}

int live_sub_locked(struct store *st, sqlite3_stmt *s)
{
	int more, r = 0;

	while (!r && (more = store_step(st, s)) == 1)
		r = live_add_locked(st, (uint64_t)sqlite3_column_int64(s, 0),
				    -sqlite3_column_int64(s, 1));
	sqlite3_reset(s);
	return r ? r : more;
}

int live_sum_locked(struct store *st)
{
	int r = live_flush_locked(st);
	sqlite3_stmt *q =
		r ? NULL : store_stmt(st, "SELECT coalesce(sum(live),0) FROM segment");

	if (!q)
		return r ? r : -EIO;
	r = store_step(st, q);
	if (r == 1)
		st->live_bytes = sqlite3_column_int64(q, 0);
	sqlite3_reset(q);
	return r < 0 ? r : 0;
}

int live_recount_locked(struct store *st)
{
	int r = live_flush_locked(st);
	sqlite3_stmt *q =
		r ? NULL
		  : store_stmt(st, "UPDATE segment SET live=0 WHERE live<>0 AND seg NOT "
				   "IN (SELECT seg FROM extent)");

	if (!r)
		r = q ? store_run(st, q) : -EIO;
	q = r ? NULL
	      : store_stmt(st,
			   "UPDATE segment SET live=x.n FROM (SELECT seg,sum(len) AS n FROM "
			   "extent GROUP BY seg) x WHERE x.seg=segment.seg AND live<>x.n");
	if (!r)
		r = q ? store_run(st, q) : -EIO;
	return r ? r : live_sum_locked(st);
}
