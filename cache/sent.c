/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Dirty ranges that are stored in segments already, ahead of the commit that will name them:
 * rows of `ahead`, in memory RG_AHEAD.  A committed row says that the bytes of its range, as
 * they are on this disk, are those in the segment, after any crash (L5).  Therefore
 *
 *   a row is made only when the file was synced after the bytes were read, and they have not
 *   changed since (RG_SENT is still set);
 *   it is taken away, and that committed, before the first of its bytes changes or is given up.
 *
 * Too few rows never hurt: what has none is sent once more.
 */
#include "cache/datafile.h"

#define AHEAD_PART  ((uint64_t)256 << 10) /* taken away at once by a write into it, */
#define AHEAD_PARTS 8			  /* and so many by one that goes on in order */

struct sent_row {
	uint64_t off, len, seg;
	uint32_t seg_off;
};

/* The first row that has something of [off, end): 1, 0. */
static int row_next(struct store *st, uint64_t ino, uint64_t off, uint64_t end,
		    struct sent_row *w)
{
	/* No row is longer than a segment, so that the index finds those that begin before. */
	sqlite3_stmt *s =
		store_stmt(st, "SELECT off,len,seg,seg_off FROM ahead WHERE ino=?1 AND off>?2 "
			       "AND off<?3 AND off+len>?4 ORDER BY off LIMIT 1");
	int got;

	if (!s)
		return -EIO;
	end = HF_MIN(end, DATA_MAX);
	sqlite3_bind_int64(s, 1, (int64_t)ino);
	sqlite3_bind_int64(s, 2, (int64_t)off - (int64_t)SEG_MAX_LEN);
	sqlite3_bind_int64(s, 3, (int64_t)end);
	sqlite3_bind_int64(s, 4, (int64_t)off);
	got = store_step(st, s);
	if (got == 1)
		*w = (struct sent_row){
			.off = (uint64_t)sqlite3_column_int64(s, 0),
			.len = (uint64_t)sqlite3_column_int64(s, 1),
			.seg = (uint64_t)sqlite3_column_int64(s, 2),
			.seg_off = (uint32_t)sqlite3_column_int64(s, 3),
		};
	sqlite3_reset(s);
	if (got == 1 && (w->off >= DATA_MAX || !w->len || w->len > SEG_MAX_LEN ||
			 w->seg_off > SEG_MAX_LEN - w->len))
		return store_fail_locked(st, -EIO, "a row of `ahead` is damaged");
	return got;
}

static int row_put(struct store *st, uint64_t ino, const struct sent_row *w)
{
	sqlite3_stmt *s = store_stmt(st, "INSERT INTO ahead(ino,off,len,seg,seg_off) "
					 "VALUES(?1,?2,?3,?4,?5)");

	if (!s)
		return -EIO;
	sqlite3_bind_int64(s, 1, (int64_t)ino);
	sqlite3_bind_int64(s, 2, (int64_t)w->off);
	sqlite3_bind_int64(s, 3, (int64_t)w->len);
	sqlite3_bind_int64(s, 4, (int64_t)w->seg);
	sqlite3_bind_int64(s, 5, w->seg_off);
	return store_run(st, s);
}

static int row_delete(struct store *st, uint64_t ino, uint64_t off)
{
	sqlite3_stmt *s = store_stmt(st, "DELETE FROM ahead WHERE ino=?1 AND off=?2");

	if (!s)
		return -EIO;
	sqlite3_bind_int64(s, 1, (int64_t)ino);
	sqlite3_bind_int64(s, 2, (int64_t)off);
	return store_run(st, s);
}

/* No row says anything of [off, end) any more; what sticks out on either side stays. */
static int rows_drop(struct store *st, uint64_t ino, uint64_t off, uint64_t end)
{
	struct sent_row w;
	int r;

	while ((r = row_next(st, ino, off, end, &w)) == 1) {
		r = row_delete(st, ino, w.off);
		if (!r && w.off < off) {
			struct sent_row left = w;

			left.len = off - w.off;
			r = row_put(st, ino, &left);
		}
		if (!r && w.off + w.len > end) {
			uint64_t cut = end - w.off;
			struct sent_row right = {.off = end,
						 .len = w.len - cut,
						 .seg = w.seg,
						 .seg_off = w.seg_off + (uint32_t)cut};
			r = row_put(st, ino, &right);
		}
		if (r)
			break;
	}
	return r;
}

int sent_load_locked(struct store *st, struct inode *in)
{
	uint64_t pos = 0, end, stop;
	struct sent_row w;
	unsigned flags;
	int r;

	while ((r = row_next(st, in->ino, pos, DATA_MAX, &w)) == 1) {
		pos = w.off;
		end = w.off + w.len;
		r = 0;
		while (!r && pos < end) {
			ranges_at(in->spans, pos, end, &flags, &stop);
			/* What is not dirty here has no use of it, and nobody would watch it.
			 */
			r = flags & RG_DIRTY
				    ? ranges_set(in->spans, pos, stop - pos, RG_AHEAD, 0)
				    : rows_drop(st, in->ino, pos, stop);
			pos = stop;
		}
		if (r)
			break;
	}
	return r;
}

static bool any_in(struct inode *in, uint64_t off, uint64_t end, unsigned flag)
{
	uint64_t start, stop;
	unsigned flags;

	return ranges_total(in->spans, flag) &&
	       ranges_next(in->spans, off, end, flag, &start, &stop, &flags) == 1;
}

/* What is on its way in [off, end) will say nothing when it arrives. */
static int recall(struct inode *in, uint64_t off, uint64_t end)
{
	if (!any_in(in, off, end, RG_SENT))
		return 0;
	in->file->sent_hit = true;
	return ranges_set(in->spans, off, end - off, 0, RG_SENT);
}

int sent_forget_locked(struct store *st, struct inode *in, uint64_t off, uint64_t end,
		       bool *put)
{
	struct datafile *f = in->file;

	if (!in->spans || st->opts.skip_forget)
		return 0;
	int r = recall(in, off, end);

	if (r || !any_in(in, off, end, RG_AHEAD))
		return r;
	uint64_t from = off / AHEAD_PART * AHEAD_PART;
	uint64_t to = (end + AHEAD_PART - 1) / AHEAD_PART * AHEAD_PART;

	/* One COMMIT for several parts when a file is overwritten in order. */
	if (from == f->forgot)
		to += (AHEAD_PARTS - 1) * AHEAD_PART;
	f->forgot = to;
	*put = true;
	r = rows_drop(st, in->ino, from, to);
	return r ? r : ranges_set(in->spans, from, to - from, 0, RG_AHEAD);
}

int sent_drop_locked(struct store *st, struct inode *in, uint64_t off, uint64_t end)
{
	if (!in->spans || off >= end)
		return 0;
	int r = recall(in, off, end);

	if (r || !any_in(in, off, end, RG_AHEAD))
		return r;
	r = rows_drop(st, in->ino, off, end);
	return r ? r : ranges_set(in->spans, off, end - off, 0, RG_AHEAD);
}

int sent_drop_all_locked(struct store *st, struct inode *in)
{
	sqlite3_stmt *s;

	if (!in->spans)
		return 0;
	int r = recall(in, 0, DATA_MAX);

	if (r || !ranges_total(in->spans, RG_AHEAD))
		return r;
	s = store_stmt(st, "DELETE FROM ahead WHERE ino=?1");
	if (!s)
		return -EIO;
	sqlite3_bind_int64(s, 1, (int64_t)in->ino);
	r = store_run(st, s);
	return r ? r : ranges_set(in->spans, 0, DATA_MAX, 0, RG_AHEAD);
}

bool sent_want_locked(struct inode *in, uint64_t *pos, uint64_t *end)
{
	uint64_t start;
	unsigned flags;

	while (ranges_next(in->spans, *pos, in->size, RG_DIRTY, &start, end, &flags) == 1) {
		*pos = start;
		if (!(flags & (RG_AHEAD | RG_SENT | RG_CUT)))
			return true;
		*pos = *end;
	}
	return false;
}

int sent_stored_locked(struct store *st, struct inode *in, uint64_t off, uint64_t len,
		       uint64_t seg, uint32_t seg_off, uint64_t *kept)
{
	uint64_t pos = off, start, end;
	unsigned flags;
	int r = 0;

	while (in->spans && !r &&
	       ranges_next(in->spans, pos, off + len, RG_SENT, &start, &end, &flags) == 1) {
		struct sent_row w = {.off = start,
				     .len = end - start,
				     .seg = seg,
				     .seg_off = seg_off + (uint32_t)(start - off)};

		pos = end;
		r = row_put(st, in->ino, &w);
		if (!r)
			r = ranges_set(in->spans, start, end - start, RG_AHEAD, RG_SENT);
		*kept += end - start;
	}
	return r;
}

uint64_t sent_left_locked(const struct inode *in)
{
	if (!in->spans)
		return 0;
	uint64_t all = ranges_total(in->spans, RG_DIRTY) + ranges_total(in->spans, RG_CUT);

	return all - HF_MIN(all, ranges_total(in->spans, RG_AHEAD));
}

int sent_each_locked(struct store *st, struct inode *in, uint64_t off, uint64_t end,
		     int (*cb)(void *arg, const struct extent *e), void *arg)
{
	struct sent_row w;
	int r = 0;

	for (uint64_t pos = off; !r && pos < end;) {
		r = row_next(st, in->ino, pos, end, &w);
		if (r != 1 || w.off > pos)
			return r < 0 ? r
				     : store_fail_locked(st, -EIO,
							 "a range said to be sent has no row");
		uint64_t skip = pos - w.off, stop = HF_MIN(w.off + w.len, end);
		struct extent e = {.off = pos,
				   .len = stop - pos,
				   .seg = w.seg,
				   .seg_off = w.seg_off + (uint32_t)skip};

		r = cb(arg, &e);
		pos = stop;
	}
	return r;
}
