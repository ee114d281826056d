/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Before bytes change: the cut in flight gets a copy of what it has not packed yet (CF_CUT,
 * at the same offsets), and clean bytes get an intent that is on the disk (L5).
 */
#include "cache/datafile.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#define CAPTURE_BUF  ((size_t)1 << 20)
#define INTENT_AHEAD 8 /* parts that one commit covers when a file is overwritten in order */

struct piece {
	uint64_t off, end;
};

/* The parts of [off, end) that the cut still needs from the cache file itself. */
static int needed_locked(struct inode *in, uint64_t off, uint64_t end, struct buf *out)
{
	struct piece p;
	unsigned flags, info;
	uint64_t stop;

	while (ranges_next(in->spans, off, end, RG_CUT, &p.off, &stop, &flags) == 1) {
		ranges_at(in->file->cutinfo, p.off, stop, &info, &p.end);
		if (!info)
			buf_put(out, &p, sizeof p);
		off = p.end;
	}
	return out->err;
}

static int capture_copy(struct store *st, struct inode *in, struct piece p, uint8_t *tmp)
{
	struct cfile *from = NULL, *to = NULL;
	int err = cfile_get(st, in, CF_MAIN, false, &from);

	if (!err)
		err = cfile_get(st, in, CF_CUT, true, &to);
	if (to) {
		pthread_mutex_lock(&st->meta);
		in->file->side[CF_CUT] = true;
		pthread_mutex_unlock(&st->meta);
	}
	for (uint64_t at = p.off; at < p.end && !err;) {
		size_t n = (size_t)HF_MIN(p.end - at, CAPTURE_BUF);
		err = cfile_read(from->fd, tmp, n, at);
		if (!err)
			err = cfile_write(to->fd, tmp, n, at, NULL);
		at += n;
	}
	cfile_put(st, from);
	cfile_put(st, to);
	return err;
}

int capture_range_io(struct store *st, struct inode *in, uint64_t off, uint64_t end)
{
	struct buf list = {0};
	int err = 0;

	pthread_mutex_lock(&st->meta);
	if (in->file->cutinfo && ranges_total(in->spans, RG_CUT) && !st->opts.skip_capture)
		err = needed_locked(in, off, end, &list);
	pthread_mutex_unlock(&st->meta);
	if (err || !list.len) {
		buf_release(&list);
		return err;
	}
	uint8_t *tmp = malloc(CAPTURE_BUF);
	uint64_t bytes = 0;
	for (size_t i = 0; i < list.len; i += sizeof(struct piece)) {
		struct piece p;

		memcpy(&p, list.p + i, sizeof p);
		bytes += p.end - p.off;
	}
	err = tmp ? store_space_for(st, bytes) : -ENOMEM;
	for (size_t i = 0; i < list.len && !err; i += sizeof(struct piece)) {
		struct piece p;

		memcpy(&p, list.p + i, sizeof p);
		err = capture_copy(st, in, p, tmp);
		if (err)
			break;
		pthread_mutex_lock(&st->meta);
		err = ranges_set(in->file->cutinfo, p.off, p.end - p.off, CI_CAPTURED, 0);
		pthread_mutex_unlock(&st->meta);
	}
	free(tmp);
	buf_release(&list);
	return err;
}

int capture_whole_io(struct store *st, struct inode *in, bool *kept)
{
	struct buf list = {0};
	char from[48], to[48];

	*kept = false;
	pthread_mutex_lock(&st->meta);
	int err = 0;
	if (in->file->cutinfo && ranges_total(in->spans, RG_CUT) && !st->opts.skip_capture)
		err = needed_locked(in, 0, DATA_MAX, &list);
	pthread_mutex_unlock(&st->meta);
	if (!err && list.len) {
		cfile_name(in->ino, CF_MAIN, from);
		cfile_name(in->ino, CF_OLD, to);
		cfile_drop(st, in->file, CF_OLD);
		unlinkat(st->data->dir_fd, to, 0);
		if (linkat(st->data->dir_fd, from, st->data->dir_fd, to, 0) < 0) {
			/* Not every file system has second names. */
			buf_release(&list);
			return capture_range_io(st, in, 0, DATA_MAX);
		}
		*kept = true;
	}
	pthread_mutex_lock(&st->meta);
	in->file->side[CF_OLD] |= *kept;
	for (size_t i = 0; i < list.len && !err; i += sizeof(struct piece)) {
		struct piece p;

		memcpy(&p, list.p + i, sizeof p);
		err = ranges_set(in->file->cutinfo, p.off, p.end - p.off, CI_OLD, 0);
	}
	pthread_mutex_unlock(&st->meta);
	buf_release(&list);
	return err;
}

void capture_free_locked(struct store *st, struct inode *in)
{
	static const enum cfile_kind kinds[] = {CF_CUT, CF_OLD};
	struct datafile *f = in->file;

	for (unsigned i = 0; i < 2; i++) {
		cfile_drop(st, f, kinds[i]);
		if (f->side[kinds[i]])
			cfile_unlink(st, in->ino, kinds[i]);
		f->side[kinds[i]] = false;
	}
	ranges_free(f->cutinfo);
	f->cutinfo = NULL;
}

/* --- intents --- */

static int intent_put(struct store *st, uint64_t ino, uint64_t part)
{
	sqlite3_stmt *s =
		store_stmt(st, "INSERT OR IGNORE INTO intent(ino, part) VALUES(?, ?)");

	if (!s)
		return -EIO;
	sqlite3_bind_int64(s, 1, (sqlite3_int64)ino);
	sqlite3_bind_int64(s, 2, (sqlite3_int64)part);
	return store_run(st, s);
}

static bool part_clean(struct inode *in, uint64_t off, uint64_t end)
{
	uint64_t start, stop;
	unsigned flags;

	while (ranges_next(in->spans, off, end, RG_HAVE, &start, &stop, &flags) == 1) {
		if (!(flags & (RG_DIRTY | RG_CUT)))
			return true;
		off = stop;
	}
	return false;
}

/* *put: something has to be committed before the bytes may change. */
static int intents_locked(struct store *st, struct inode *in, uint64_t off, uint64_t end,
			  bool *put)
{
	struct datafile *f = in->file;
	uint64_t first = off / INTENT_PART, last = (end - 1) / INTENT_PART, stop;
	unsigned flags;
	int err = 0;

	*put = false;
	for (uint64_t part = first; part <= last && !err; part++) {
		uint64_t a = part * INTENT_PART;

		ranges_at(f->intended, a, a + INTENT_PART, &flags, &stop);
		if (flags || !part_clean(in, HF_MAX(a, off), HF_MIN(a + INTENT_PART, end)))
			continue;
		if (!*put)
			last = HF_MAX(last, part + INTENT_AHEAD - 1);
		*put = true;
		err = intent_put(st, in->ino, part);
		if (!err)
			err = ranges_set(f->intended, a, INTENT_PART, RG_HAVE, 0);
		end = HF_MAX(end, HF_MIN((last + 1) * INTENT_PART, in->size));
	}
	return err;
}

int data_prepare_io(struct store *st, struct inode *in, uint64_t off, uint64_t end)
{
	bool put = false, sent = false;
	int err = capture_range_io(st, in, off, end);

	if (err)
		return err;
	pthread_mutex_lock(&st->meta);
	in->file->wr_off = off;
	in->file->wr_end = end;
	err = sent_forget_locked(st, in, off, end, &sent);
	struct account a = account_of(in);
	if (!err && a.cached > a.unpublished && !st->opts.skip_intent)
		err = intents_locked(st, in, off, end, &put);
	pthread_mutex_unlock(&st->meta);
	if (!err && (put || sent))
		err = store_commit(st);
	return err;
}

/* Parts that hold nothing dirty any more need no intent. */
static int intents_done_locked(struct store *st, struct inode *in)
{
	struct datafile *f = in->file;
	uint64_t pos = 0, a, end, s, e;
	unsigned flags;
	int err = 0;

	while (!err &&
	       ranges_next(f->intended, pos, DATA_MAX, RG_HAVE, &a, &end, &flags) == 1) {
		pos = a + INTENT_PART;
		if (f->wr_end > a && f->wr_off < pos)
			continue;
		if (in->spans && ranges_next(in->spans, a, pos, RG_DIRTY, &s, &e, &flags) == 1)
			continue;
		sqlite3_stmt *q =
			store_stmt(st, "DELETE FROM intent WHERE ino = ? AND part = ?");
		if (!q)
			return -EIO;
		sqlite3_bind_int64(q, 1, (sqlite3_int64)in->ino);
		sqlite3_bind_int64(q, 2, (sqlite3_int64)(a / INTENT_PART));
		err = store_run(st, q);
		if (!err)
			err = ranges_set(f->intended, a, INTENT_PART, 0, RG_ALL);
	}
	return err;
}

/* --- the cut --- */

void data_gate_close(struct store *st)
{
	pthread_rwlock_wrlock(&st->data->gate);
}

void data_gate_open(struct store *st)
{
	pthread_rwlock_unlock(&st->data->gate);
}

/* Changes flags span by span: where `from` is set it goes and `to` comes. */
static int turn(struct ranges *r, unsigned from, unsigned to)
{
	uint64_t pos = 0, start, end;
	unsigned flags;
	int err = 0;

	if (!ranges_total(r, from))
		return 0;
	while (!err && ranges_next(r, pos, UINT64_MAX, from, &start, &end, &flags) == 1) {
		err = ranges_set(r, start, end - start, to, from);
		pos = end;
	}
	return err;
}

int data_cut_locked(struct store *st, struct inode *in)
{
	if (!(in->flags & INODE_LARGE))
		return 0;
	int err = datafile_load_locked(st, in);
	if (err)
		return err;
	struct datafile *f = in->file;
	if (!f->cutinfo) {
		err = ranges_new(&f->cutinfo);
		if (err)
			return err;
		/* What is captured lives in memory only, so the inode stays until it is done.
		 */
		in->pin++;
	}
	/* The cut takes what is on its way itself: see sent.c for what is stored. */
	err = turn(in->spans, RG_SENT, 0);
	if (!err)
		err = turn(in->spans, RG_DIRTY, RG_CUT);
	if (!err)
		err = turn(in->spans, RG_META, RG_CMETA);
	return err;
}

/*
 * Bytes that are being overwritten just now were CUT when the writer looked, so that it put no
 * intent down: they must not become clean in between.
 */
static int keep_written_locked(struct store *st, struct inode *in)
{
	struct datafile *f = in->file;
	uint64_t pos = f->wr_off, start, end;
	unsigned flags;
	int err = 0;

	while (!err &&
	       ranges_next(in->spans, pos, f->wr_end, RG_CUT, &start, &end, &flags) == 1) {
		err = ranges_set(in->spans, start, end - start, RG_DIRTY, RG_CUT);
		pos = end;
		inode_mark_locked(st, in, REC_CH_CONTENT);
	}
	return err;
}

int data_cut_done_locked(struct store *st, struct inode *in, bool ok)
{
	struct datafile *f = in->file;
	struct account before = account_of(in);
	int err = 0;

	if (!(in->flags & INODE_LARGE)) {
		if (ok && in->flags & INODE_SMALL_DIRTY && in->dchg <= st->cut_epoch) {
			in->flags &= ~INODE_SMALL_DIRTY;
			inode_mark_locked(st, in, 0);
		}
	} else if (in->spans) {
		if (ok && f && f->wr_end && !st->opts.skip_written)
			err = keep_written_locked(st, in);
		if (!err && ok)
			err = sent_drop_all_locked(st, in);
		if (!err)
			err = turn(in->spans, RG_CUT, ok ? 0 : RG_DIRTY);
		if (!err)
			err = turn(in->spans, RG_CMETA, ok ? 0 : RG_META);
		if (ranges_dirty(in->spans))
			inode_mark_locked(st, in, 0);
	}
	account_settle_locked(st, in, before);
	if (f && ok && !err)
		err = intents_done_locked(st, in);
	if (st->data && ok) {
		st->data->evictable = true;
		keeper_wake_locked(st);
	}
	if (f && f->cutinfo) {
		capture_free_locked(st, in);
		inode_put_locked(st, in);
	}
	return err;
}

int data_cut_read(struct store *st, struct inode *in, uint64_t off, void *buf, size_t len)
{
	uint64_t end = off + len;
	int err = iolock_read(&in->io);

	if (err)
		return err;
	while (off < end && !err) {
		unsigned info = 0;
		uint64_t stop = end;
		struct cfile *c = NULL;

		pthread_mutex_lock(&st->meta);
		if (in->file && in->file->cutinfo)
			ranges_at(in->file->cutinfo, off, end, &info, &stop);
		bool here =
			in->file && (info & (CI_CAPTURED | CI_OLD) || in->flags & INODE_LARGE);
		pthread_mutex_unlock(&st->meta);
		if (!here)
			err = log_fail(-EIO, "inode %llx: bytes of the cut are gone",
				       (unsigned long long)in->ino);
		if (!err)
			err = cfile_get(st, in,
					info & CI_CAPTURED ? CF_CUT
					: info & CI_OLD	   ? CF_OLD
							   : CF_MAIN,
					false, &c);
		if (!err)
			err = cfile_read(c->fd, buf, (size_t)(stop - off), off);
		cfile_put(st, c);
		buf = (uint8_t *)buf + (stop - off);
		off = stop;
	}
	iolock_unlock(&in->io);
	return err;
}

int data_cut_packed(struct store *st, struct inode *in, uint64_t off, uint64_t len)
{
	int err = 0;

	pthread_mutex_lock(&st->meta);
	if (in->file && in->file->cutinfo)
		err = ranges_set(in->file->cutinfo, off, len, CI_PACKED, 0);
	pthread_mutex_unlock(&st->meta);
	return err;
}
