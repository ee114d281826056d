/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Truncate, punch, zero; small to large and back.  Extents change only in a hold of st->meta
 * in which the inode's row is written too, so that one commit has both; before that the cache
 * file is synced, for a row names its bytes (L1).  Where clean bytes are given up the commit
 * is waited for, with io held: a later write could touch what the committed row still calls
 * clean (L5).
 */
#include "cache/datafile.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <unistd.h>

static int drop_rows(struct store *st, uint64_t ino, sqlite3_stmt *s)
{
	if (!s)
		return -EIO;
	sqlite3_bind_int64(s, 1, (sqlite3_int64)ino);
	return store_run(st, s);
}

/* --- small to large --- */

/*
 * The extents of a small file are of interest only while it is clean.  The row says that it
 * is dirty in the same commit in which they go.
 */
static int forget_extents_locked(struct store *st, struct inode *in)
{
	struct extent e;
	int got = extent_at_locked(st, in->ino, 0, &e);

	if (got <= 0)
		return got;
	struct account before = account_of(in);
	int err = small_capture_locked(st, in);
	if (err)
		return err;
	in->flags |= INODE_SMALL_DIRTY | INODE_SMALL_HAVE;
	inode_mark_locked(st, in, REC_CH_CONTENT);
	account_settle_locked(st, in, before);
	err = store_flush_inode_locked(st, in);
	return err ? err : extent_drop_locked(st, in->ino, 0, DATA_MAX);
}

static int become_large_locked(struct store *st, struct inode *in)
{
	struct account before = account_of(in);
	struct ranges *r;
	int err = small_capture_locked(st, in);

	if (err)
		return err;
	err = ranges_new(&r);
	/*
	 * Others may know older extents of it, or come to know them by a commit that is on its
	 * way: wherever it has no bytes now it has a hole.
	 */
	if (!err && in->born < st->epoch)
		err = ranges_set(r, 0, DATA_MAX, RG_META, 0);
	if (!err)
		err = ranges_set(r, 0, in->size, RG_HAVE | RG_DIRTY, 0);
	if (err) {
		ranges_free(r);
		return err;
	}
	small_free_locked(st, in);
	in->spans = r;
	in->flags = (in->flags & ~(INODE_SMALL_HAVE | INODE_SMALL_DIRTY)) | INODE_LARGE;
	in->file->small_row = true;
	datafile_wrote_locked(st, in, NULL, 0, 0);
	datafile_touch_locked(st, in);
	inode_mark_locked(st, in, REC_CH_CONTENT);
	account_settle_locked(st, in, before);
	return 0;
}

int data_make_large(struct store *st, struct inode *in)
{
	struct cfile *c = NULL;
	uint8_t *copy = malloc(SMALL_MAX);

	if (!copy)
		return -ENOMEM;
	pthread_mutex_lock(&st->meta);
	int err = store_writable_locked(st);
	/* Eviction needs no more than st->meta: what was here a moment ago may have gone. */
	if (!err && in->size && !(in->flags & INODE_SMALL_HAVE))
		err = -EAGAIN;
	if (!err)
		err = datafile_load_locked(st, in);
	if (!err)
		err = forget_extents_locked(st, in);
	if (!err && in->small)
		memcpy(copy, in->small, in->size);
	else if (!err && in->size)
		err = small_row_locked(st, in->ino, copy, in->size);
	uint64_t size = in->size;
	pthread_mutex_unlock(&st->meta);
	if (!err)
		err = cfile_get(st, in, CF_MAIN, true, &c);
	if (!err && size) {
		c->wrote = true;
		err = cfile_write(c->fd, copy, size, 0, NULL);
	}
	bool made = c;
	cfile_put(st, c);
	free(copy);
	if (!err) {
		pthread_mutex_lock(&st->meta);
		store_seal_locked(st, in, false);
		err = become_large_locked(st, in);
		pthread_mutex_unlock(&st->meta);
	}
	/* Whoever finds it later would take its name for synced. */
	if (err && made) {
		cfile_drop(st, in->file, CF_MAIN);
		cfile_unlink(st, in->ino, CF_MAIN);
	}
	return err;
}

/* --- large to small --- */

/* *clean: some of what is given up was published. */
static int become_empty_locked(struct store *st, struct inode *in, bool kill_priv, bool *clean)
{
	struct account before = account_of(in);
	struct datafile *f = in->file;
	int err = store_writable_locked(st);

	*clean = before.cached > before.unpublished || ranges_total(in->spans, RG_AHEAD);
	if (!err)
		err = sent_drop_all_locked(st, in);
	if (!err)
		err = drop_rows(st, in->ino, store_stmt(st, "DELETE FROM span WHERE ino = ?"));
	if (!err)
		err = drop_rows(st, in->ino,
				store_stmt(st, "DELETE FROM intent WHERE ino = ?"));
	if (!err)
		err = drop_rows(st, in->ino, store_stmt(st, "DELETE FROM small WHERE ino = ?"));
	if (!err)
		err = redo_drop_locked(st, in);
	if (!err)
		err = extent_drop_locked(st, in->ino, 0, DATA_MAX);
	if (!err)
		err = ranges_set(f->intended, 0, UINT64_MAX, 0, RG_ALL);
	if (err)
		return err;
	ranges_free(in->spans);
	in->spans = NULL;
	in->flags = (in->flags & ~INODE_LARGE) | INODE_SMALL_HAVE | INODE_SMALL_DIRTY;
	in->size = 0;
	in->unsynced = false;
	f->synced_gen = f->gen;
	f->small_row = false;
	f->ra_end = 0;
	err = data_mark_locked(st, in, kill_priv);
	account_settle_locked(st, in, before);
	return err ? err : store_flush_inode_locked(st, in);
}

static int empty_large_io(struct store *st, struct inode *in, bool kill_priv)
{
	bool kept = false, clean = false;

	pthread_rwlock_rdlock(&st->data->gate);
	pthread_mutex_lock(&st->meta);
	int err = store_writable_locked(st);
	if (!err)
		err = datafile_load_locked(st, in);
	pthread_mutex_unlock(&st->meta);
	if (!err)
		err = capture_whole_io(st, in, &kept);
	if (!err) {
		pthread_mutex_lock(&st->meta);
		err = become_empty_locked(st, in, kill_priv, &clean);
		if (!err && !clean && !kept)
			err = keeper_trim_locked(st, in->ino);
		pthread_mutex_unlock(&st->meta);
	}
	if (!err && (clean || kept)) {
		err = store_commit(st);
		if (!err) {
			cfile_drop(st, in->file, CF_MAIN);
			cfile_unlink(st, in->ino, CF_MAIN);
		}
	}
	pthread_rwlock_unlock(&st->data->gate);
	return err;
}

/* --- punch --- */

static int mark_meta(void *arg, const struct extent *e)
{
	struct inode *in = arg;

	return ranges_set(in->spans, e->off, e->len, RG_META, 0);
}

static int punch_locked(struct store *st, struct inode *in, const struct punch *p, bool flush)
{
	struct account before = account_of(in);
	uint64_t len = p->end - p->off;
	int err = store_writable_locked(st);

	if (!err)
		err = sent_drop_locked(st, in, p->off, p->end);
	if (!err)
		err = ranges_set(in->spans, p->off, len, 0,
				 RG_HAVE | RG_DIRTY | RG_CUT | RG_CMETA);
	/*
	 * What is or is going to be published there has to be dropped there too, whether or not
	 * extents here say so: those of a commit may have been left out (settle.c).
	 */
	if (!err && len && (in->file->cutinfo || in->born < st->epoch))
		err = ranges_set(in->spans, p->off, len, RG_META, 0);
	else if (!err && len)
		err = extent_each_locked(st, in->ino, p->off, p->end, mark_meta, in);
	if (!err && len)
		err = extent_drop_locked(st, in->ino, p->off, p->end);
	for (size_t i = 0; i < p->put_cnt && !err; i++) {
		err = extent_put_locked(st, in->ino, &p->put[i]);
		if (!err)
			err = mark_meta(in, &p->put[i]);
	}
	if (!err) {
		if (p->size_set != PUNCH_SIZE_KEEP)
			in->size = p->size_set;
		in->size = HF_MAX(in->size, p->size_min);
		in->file->ra_end = 0;
		if (flush)
			in->unsynced = false;
		err = data_mark_locked(st, in, p->kill_priv);
	}
	account_settle_locked(st, in, before);
	return !err && flush ? store_flush_inode_locked(st, in) : err;
}

/* What is given up: bytes in the cache file, among them some that a committed row says are
 * on the nodes as they are (clean, or sent ahead), extents. */
struct given_up {
	bool have, clean, extents;
};

static int given_up_locked(struct store *st, struct inode *in, const struct punch *p,
			   struct given_up *g)
{
	uint64_t off = p->off, start, stop;
	struct extent e;
	unsigned flags;

	*g = (struct given_up){0};
	while (!g->clean &&
	       ranges_next(in->spans, off, p->end, RG_HAVE, &start, &stop, &flags) == 1) {
		g->have = true;
		g->clean = !(flags & (RG_DIRTY | RG_CUT)) || flags & RG_AHEAD;
		off = stop;
	}
	int got = p->off < p->end ? extent_at_locked(st, in->ino, p->off, &e) : 0;
	g->extents = got == 1 && e.off < p->end;
	return got < 0 ? got : 0;
}

/*
 * The segments of what comes are there still: those of the source may have been repacked since
 * they were looked up.  0, -EAGAIN.
 */
static int put_check_locked(struct store *st, const struct punch *p)
{
	for (size_t i = 0; i < p->put_cnt; i++) {
		sqlite3_stmt *s = store_stmt(st, "SELECT 1 FROM segment WHERE seg = ? "
						  "AND kind <> 4");
		if (!s)
			return -EIO;
		sqlite3_bind_int64(s, 1, (sqlite3_int64)p->put[i].seg);
		int got = store_step(st, s);
		sqlite3_reset(s);
		if (got != 1)
			return got ? got : -EAGAIN;
	}
	return 0;
}

int data_punch_io(struct store *st, struct inode *in, const struct punch *p)
{
	bool flush = p->put_cnt, again = false;
	struct given_up g = {0};

	pthread_rwlock_rdlock(&st->data->gate);
	pthread_mutex_lock(&st->meta);
	int err = store_writable_locked(st);
	if (!err)
		err = datafile_load_locked(st, in);
	if (!err)
		err = given_up_locked(st, in, p, &g);
	pthread_mutex_unlock(&st->meta);
	do {
		if (!err)
			err = capture_range_io(st, in, p->off, p->end);
		flush |= !err && (g.clean || g.extents);
		if (!err && flush)
			err = datafile_sync_io(st, in);
		pthread_mutex_lock(&st->meta);
		/* What the cut holds of it may have been published meanwhile. */
		if (!err)
			err = given_up_locked(st, in, p, &g);
		again = !err && !flush && (g.clean || g.extents);
		if (!err && !again)
			err = put_check_locked(st, p);
		if (!err && !again)
			err = punch_locked(st, in, p, flush);
		if (!err && !again && g.have && !g.clean)
			err = keeper_trim_locked(st, in->ino);
		pthread_mutex_unlock(&st->meta);
	} while (again);
	if (!err && g.clean) {
		err = store_commit(st);
		if (!err)
			err = cfile_punch(st, in, p->off, p->end);
	}
	pthread_rwlock_unlock(&st->data->gate);
	return err;
}

/* --- the calls --- */

/* Zeros over [off, end) of a small file and its size; 1: its bytes must be fetched first. */
static int small_change_locked(struct store *st, struct inode *in, uint64_t off, uint64_t end,
			       uint64_t size, bool kill_priv)
{
	int err = store_writable_locked(st);

	if (err)
		return err;
	if (in->size && size && !(in->flags & INODE_SMALL_HAVE))
		return 1;
	err = small_capture_locked(st, in);
	if (err)
		return err;
	struct account before = account_of(in);
	if (!size) {
		small_free_locked(st, in);
		in->size = in->row_synced = 0;
		in->flags |= INODE_SMALL_HAVE;
	}
	err = small_load_locked(st, in);
	if (!err && size != in->size)
		err = small_resize_locked(st, in, size);
	/* Without memory for an empty file: its row goes now, not with the flush. */
	if (err == -ENOMEM && !size)
		err = small_delete_locked(st, in->ino);
	if (err)
		return err;
	in->flags |= INODE_SMALL_HAVE;
	end = HF_MIN(end, in->size);
	if (off < end)
		memset(in->small + off, 0, end - off);
	in->flags |= INODE_SMALL_DIRTY;
	err = data_mark_locked(st, in, kill_priv);
	account_settle_locked(st, in, before);
	return err;
}

/* What p says, for a file of either kind. */
static int change_io(struct store *st, struct inode *in, const struct punch *p)
{
	int64_t deadline = now_ms() + READ_DEADLINE_MS;

	for (;;) {
		int err = 2;

		pthread_mutex_lock(&st->meta);
		bool large = in->flags & INODE_LARGE;
		uint64_t size = p->size_set != PUNCH_SIZE_KEEP ? p->size_set
							       : HF_MAX(in->size, p->size_min);
		if (!large && size <= SMALL_MAX)
			err = small_change_locked(st, in, p->off, p->end, size, p->kill_priv);
		else if (!large && in->size && !(in->flags & INODE_SMALL_HAVE))
			err = 1;
		pthread_mutex_unlock(&st->meta);
		if (large)
			return size ? data_punch_io(st, in, p)
				    : empty_large_io(st, in, p->kill_priv);
		if (err <= 0)
			return err;
		bool fetch = err == 1;
		err = fetch ? small_fetch(st, in, deadline, NULL) : data_make_large(st, in);
		if (err && (fetch || err != -EAGAIN))
			return err;
	}
}

int data_truncate(struct store *st, struct inode *in, uint64_t size, bool kill_priv)
{
	if (size > DATA_MAX)
		return -EFBIG;
	struct punch p = {
		.off = size, .end = DATA_MAX, .size_set = size, .kill_priv = kill_priv};
	int err = iolock_write(&in->io);
	if (err)
		return err;
	pthread_mutex_lock(&st->meta);
	/* Growing: there is nothing behind the end. */
	if (size >= in->size)
		p.end = p.off;
	pthread_mutex_unlock(&st->meta);
	err = change_io(st, in, &p);
	iolock_unlock(&in->io);
	store_pressure(st);
	return err;
}

int data_fallocate(struct store *st, struct inode *in, int mode, uint64_t off, uint64_t len,
		   bool kill_priv)
{
	bool keep = mode & FALLOC_FL_KEEP_SIZE;
	int what = mode & ~FALLOC_FL_KEEP_SIZE;

	if (!len)
		return -EINVAL;
	if (off > DATA_MAX || len > DATA_MAX - off)
		return -EFBIG;
	if (what && what != FALLOC_FL_ZERO_RANGE && !(what == FALLOC_FL_PUNCH_HOLE && keep))
		return -EOPNOTSUPP;
	if (what != FALLOC_FL_PUNCH_HOLE) {
		int err = store_space_for(st, len);
		/* Nothing is kept for it, but what cannot be is said before. */
		if (!err && !what)
			err = data_quota(st, in, off, len);
		if (err)
			return err;
	}
	if (!what && keep)
		return 0;
	struct punch p = {.off = off,
			  .end = what ? off + len : off,
			  .size_set = PUNCH_SIZE_KEEP,
			  .size_min = keep ? 0 : off + len,
			  .kill_priv = kill_priv};
	int err = iolock_write(&in->io);
	if (err)
		return err;
	pthread_mutex_lock(&st->meta);
	bool nothing = what && keep && off >= in->size;
	pthread_mutex_unlock(&st->meta);
	err = nothing ? 0 : change_io(st, in, &p);
	iolock_unlock(&in->io);
	store_pressure(st);
	return err;
}
