/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "cache/data.h"
#include "cache/datafile.h"

/* SQLite's integers are signed. */
static sqlite3_int64 sql_int(uint64_t v)
{
	return v > INT64_MAX ? INT64_MAX : (sqlite3_int64)v;
}

static int extent_row(struct store *st, sqlite3_stmt *s, struct extent *e)
{
	sqlite3_int64 off = sqlite3_column_int64(s, 0), len = sqlite3_column_int64(s, 1);
	sqlite3_int64 seg_off = sqlite3_column_int64(s, 3);

	if (off < 0 || len <= 0 || len > SEG_MAX_LEN || seg_off < 0 || seg_off > SEG_MAX_LEN ||
	    (uint64_t)off > DATA_MAX)
		return store_fail_locked(st, -EIO, "an extent's row is damaged");
	e->off = (uint64_t)off;
	e->len = (uint64_t)len;
	e->seg = (uint64_t)sqlite3_column_int64(s, 2);
	e->seg_off = (uint32_t)seg_off;
	return 0;
}

int extent_at_locked(struct store *st, uint64_t ino, uint64_t off, struct extent *e)
{
	sqlite3_stmt *s =
		store_stmt(st, "SELECT off, len, seg, seg_off FROM extent "
			       "WHERE ino = ? AND off <= ? ORDER BY off DESC LIMIT 1");
	if (!s || store_undone_locked(st, ino))
		return -EIO;
	sqlite3_bind_int64(s, 1, (sqlite3_int64)ino);
	sqlite3_bind_int64(s, 2, sql_int(off));
	int got = store_step(st, s);
	if (got == 1) {
		int err = extent_row(st, s, e);
		sqlite3_reset(s);
		if (err || e->off + e->len > off)
			return err ? err : 1;
	} else if (got < 0) {
		return got;
	}
	s = store_stmt(st, "SELECT off, len, seg, seg_off FROM extent "
			   "WHERE ino = ? AND off > ? ORDER BY off LIMIT 1");
	if (!s)
		return -EIO;
	sqlite3_bind_int64(s, 1, (sqlite3_int64)ino);
	sqlite3_bind_int64(s, 2, sql_int(off));
	got = store_step(st, s);
	if (got == 1) {
		int err = extent_row(st, s, e);
		if (err)
			got = err;
	}
	sqlite3_reset(s);
	return got;
}

static void clip(struct extent *e, uint64_t off, uint64_t end)
{
	if (e->off < off) {
		uint64_t cut = off - e->off;
		e->off = off;
		e->len -= cut;
		e->seg_off += (uint32_t)cut;
	}
	if (e->off + e->len > end)
		e->len = end - e->off;
}

int extent_each_locked(struct store *st, uint64_t ino, uint64_t off, uint64_t end,
		       int (*cb)(void *arg, const struct extent *e), void *arg)
{
	uint64_t pos = off;

	/* In batches, so that cb may use the table and call this again. */
	while (pos < end) {
		struct extent e[64];
		unsigned cnt = 0;

		int got = extent_at_locked(st, ino, pos, &e[0]);
		if (got <= 0)
			return got;
		if (e[0].off >= end)
			return 0;
		cnt = 1;
		sqlite3_stmt *s =
			store_stmt(st, "SELECT off, len, seg, seg_off FROM extent WHERE "
				       "ino = ? AND off > ? AND off < ? ORDER BY off "
				       "LIMIT 63");
		if (!s)
			return -EIO;
		sqlite3_bind_int64(s, 1, (sqlite3_int64)ino);
		sqlite3_bind_int64(s, 2, sql_int(e[0].off));
		sqlite3_bind_int64(s, 3, sql_int(end));
		while ((got = store_step(st, s)) == 1 && cnt < 64) {
			int err = extent_row(st, s, &e[cnt]);
			if (err) {
				got = err;
				break;
			}
			cnt++;
		}
		sqlite3_reset(s);
		if (got < 0)
			return got;
		pos = e[cnt - 1].off + e[cnt - 1].len;
		for (unsigned i = 0; i < cnt; i++) {
			clip(&e[i], off, end);
			int stop = cb(arg, &e[i]);
			if (stop)
				return stop;
		}
		if (cnt < 64)
			return 0;
	}
	return 0;
}

static int extent_insert(struct store *st, uint64_t ino, const struct extent *e)
{
	sqlite3_stmt *s = store_stmt(st, "INSERT OR REPLACE INTO extent(ino, off, len, seg, "
					 "seg_off) VALUES(?, ?, ?, ?, ?)");
	if (!s)
		return -EIO;
	store_touch_locked(st, ino);
	sqlite3_bind_int64(s, 1, (sqlite3_int64)ino);
	sqlite3_bind_int64(s, 2, sql_int(e->off));
	sqlite3_bind_int64(s, 3, sql_int(e->len));
	sqlite3_bind_int64(s, 4, (sqlite3_int64)e->seg);
	sqlite3_bind_int64(s, 5, e->seg_off);
	int err = store_run(st, s);
	return err ? err : live_add_locked(st, e->seg, (int64_t)e->len);
}

/*
 * Rows that begin at from..last.  Two statements: DELETE with RETURNING makes two temporary
 * trees of SQLite's each time, which costs four times as much.
 */
static int delete_rows(struct store *st, uint64_t ino, sqlite3_int64 from, sqlite3_int64 last)
{
	static const char *const sql[] = {
		"SELECT seg, len FROM extent WHERE ino = ? AND off BETWEEN ? AND ?",
		"DELETE FROM extent WHERE ino = ? AND off BETWEEN ? AND ?"};
	int err = 0;

	for (int i = 0; i < 2 && !err; i++) {
		sqlite3_stmt *s = store_stmt(st, sql[i]);

		if (!s)
			return -EIO;
		sqlite3_bind_int64(s, 1, (sqlite3_int64)ino);
		sqlite3_bind_int64(s, 2, from);
		sqlite3_bind_int64(s, 3, last);
		err = i ? store_run(st, s) : live_sub_locked(st, s);
	}
	return err;
}

int extent_delete_locked(struct store *st, uint64_t ino)
{
	store_touch_locked(st, ino);
	return delete_rows(st, ino, INT64_MIN, INT64_MAX);
}

int extent_drop_locked(struct store *st, uint64_t ino, uint64_t off, uint64_t end)
{
	struct extent first, last;
	int err = 0;

	if (off >= end)
		return 0;
	int got = extent_at_locked(st, ino, off, &first);
	if (got <= 0)
		return got;
	if (first.off >= end)
		return 0;
	bool right = false;
	if (end < DATA_MAX) {
		got = extent_at_locked(st, ino, end, &last);
		if (got < 0)
			return got;
		right = got && last.off < end;
	}
	data_extents_changed_locked(st, ino);
	store_touch_locked(st, ino);
	/* Rows that begin within go; then what stuck out on either side comes back shorter. */
	err = delete_rows(st, ino, sql_int(first.off), sql_int(end - 1));
	if (!err && first.off < off) {
		struct extent e = first;
		clip(&e, 0, off);
		err = extent_insert(st, ino, &e);
	}
	if (!err && right) {
		clip(&last, end, UINT64_MAX);
		err = extent_insert(st, ino, &last);
	}
	return err;
}

int extent_put_locked(struct store *st, uint64_t ino, const struct extent *e)
{
	if (!e->len)
		return 0;
	int err = extent_drop_locked(st, ino, e->off, e->off + e->len);
	data_extents_changed_locked(st, ino);
	return err ? err : extent_insert(st, ino, e);
}

int segment_place_locked(struct store *st, uint64_t seg, struct seg_place *out,
			 struct buf *inline_data, bool *is_inline)
{
	sqlite3_stmt *s =
		store_stmt(st, "SELECT id, kind, k, m, cell_log2, cps, len, nodes, data "
			       "FROM segment WHERE seg = ?");
	if (!s)
		return -EIO;
	sqlite3_bind_int64(s, 1, (sqlite3_int64)seg);
	int got = store_step(st, s);
	if (got != 1 || sqlite3_column_int(s, 1) == 4) {
		sqlite3_reset(s);
		return got < 0 ? got : -ESTALE;
	}

	*out = (struct seg_place){0};
	const void *id = sqlite3_column_blob(s, 0);
	int id_len = sqlite3_column_bytes(s, 0), err = 0;
	sqlite3_int64 v[5];
	bool bad = !id || id_len != (int)sizeof out->geom.id;

	for (int i = 0; i < 5; i++) {
		v[i] = sqlite3_column_int64(s, 2 + i);
		bad |= v[i] < 0 || v[i] > (i == 0 || i == 1 || i == 2 ? 255 : UINT32_MAX);
	}
	*is_inline = sqlite3_column_int(s, 1) == 3;
	if (!bad) {
		memcpy(&out->geom.id, id, sizeof out->geom.id);
		out->geom.k = (uint8_t)v[0];
		out->geom.m = (uint8_t)v[1];
		out->geom.cell_log2 = (uint8_t)v[2];
		out->geom.cps = (uint32_t)v[3];
		out->geom.len = (uint32_t)v[4];
	}
	if (!bad && *is_inline) {
		const void *p = sqlite3_column_blob(s, 8);
		int len = sqlite3_column_bytes(s, 8);

		bad = (uint32_t)len != out->geom.len;
		buf_reset(inline_data);
		if (!bad)
			buf_put(inline_data, p, (size_t)len);
		err = inline_data->err;
	} else if (!bad) {
		const uint8_t *p = sqlite3_column_blob(s, 7);
		unsigned n = out->geom.k + out->geom.m;

		bad = seg_geom_check(&out->geom) || n > EC_MAX ||
		      sqlite3_column_bytes(s, 7) != (int)(2 * n);
		for (unsigned i = 0; i < n && !bad; i++)
			out->node[i] = get_le16(p + 2 * i);
		for (unsigned i = n; i < EC_MAX && !bad; i++)
			out->node[i] = NODE_NONE;
	}
	sqlite3_reset(s);
	if (bad)
		return store_fail_locked(st, -EIO, "a segment's row is damaged");
	return err;
}
