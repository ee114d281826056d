/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * From a packed cut to a published one, and what that means locally.
 *
 * What `staged` says becomes the extents of a range only where the range is still as the
 * cut took it:
 *
 *   smaller file   dchg <= the cut's epoch.  Otherwise it was written since; it is dirty,
 *                  its next CONTENT record drops everything first, so whatever its extents
 *                  are until then does not matter.
 *   larger file    where the spans say CUT (not changed since) or DIRTY (written since: the
 *                  new bytes are here and are published next, the extents below them are
 *                  never read).  A range that was punched, cut off or shared since is META:
 *                  there the live extents are newer than the cut, they stay, and META makes
 *                  the next cut publish "drop the range, then these extents".  Also where it
 *                  was written again: its row may not say so yet, and have a hole there, or
 *                  the extents of a copy.  What is not META has been HAVE ever since the
 *                  cut, hence in its row, too, which was synced after that.
 *                  So after any number of cuts the published extents of a range are those of
 *                  the last cut in which it was dirty or META, which is what replaying the
 *                  commits gives.
 *   moved          where the extents still are those that were moved (staged.was), piece by
 *                  piece, whatever has become of the others: those are META or dirty, or
 *                  the file was cut off.  So what the commit says and what is here differ
 *                  only where the next cut has its own say.
 *
 * After a restart the difference between CUT and DIRTY is lost, and bytes that a crash left
 * in a dirty range need not be those that were published.  So nothing larger becomes clean:
 * every larger inode of the cut is marked as changed, with its dirty ranges as they are, and
 * staged ranges that are not dirty here (the crash took their row back) are made META, so
 * that the next commit says of the inode what is true on this disk.  What was given up since
 * the start, or since an attempt failed, need not be META.  So each file is synced for it, and
 * its row written with its extents, while nobody can change it.  Smaller files are rows,
 * contents and epoch in one transaction, so for them nothing is lost.  Rows that changed
 * after the cut have a later epoch than the pending one, so `published` may become that.
 */
#include <stdlib.h>
#include "cache/cut.h"
#include "cache/datafile.h"

#define SLICE 256

struct staged_row {
	uint64_t ino, off, len, seg, was;
	uint32_t seg_off, was_off;
};

struct settle {
	struct publisher *p;
	struct store *st;
	uint64_t epoch;
	bool restart;
};

static int put_extent(struct store *st, uint64_t ino, uint64_t off, uint64_t len, uint64_t seg,
		      uint32_t seg_off)
{
	int r = extent_drop_locked(st, ino, off, off + len);

	return r ? r
		 : extent_put_locked(
			   st, ino,
			   &(struct extent){
				   .off = off, .len = len, .seg = seg, .seg_off = seg_off});
}

struct moved {
	struct store *st;
	const struct staged_row *w;
	int err;
};

static int moved_piece(void *arg, const struct extent *e)
{
	struct moved *m = arg;
	const struct staged_row *w = m->w;
	uint32_t skip = (uint32_t)(e->off - w->off);

	if (e->seg == w->was && e->seg_off == w->was_off + skip)
		m->err = put_extent(m->st, w->ino, e->off, e->len, w->seg, w->seg_off + skip);
	return m->err != 0;
}

static int settle_moved(struct settle *s, const struct staged_row *w)
{
	struct moved m = {s->st, w, 0};
	int r = extent_each_locked(s->st, w->ino, w->off, w->off + w->len, moved_piece, &m);

	return m.err ? m.err : r < 0 ? r : 0;
}

/* Of a commit that a version before staged.was left pending: the inline extent, whole. */
static int settle_inlined(struct settle *s, const struct staged_row *w, bool *done)
{
	struct extent e;
	int r = extent_at_locked(s->st, w->ino, w->off, &e);

	*done = r == 1 && e.off == w->off && e.len == w->len && e.seg >= SEG_INLINE_BASE;
	if (r < 0 || !*done)
		return r < 0 ? r : 0;
	return put_extent(s->st, w->ino, w->off, w->len, w->seg, w->seg_off);
}

static int settle_small(struct settle *s, struct inode *in, const struct staged_row *w)
{
	bool done;

	if (in->dchg > s->epoch)
		return 0;
	if (!(in->flags & INODE_SMALL_DIRTY))
		return settle_inlined(s, w, &done);
	if (w->off || w->len != in->size)
		return 0; /* it was a larger one: see settle_lost */
	int r = extent_drop_locked(s->st, in->ino, 0, UINT64_MAX);

	if (!r && w->len)
		r = extent_put_locked(
			s->st, in->ino,
			&(struct extent){.len = w->len, .seg = w->seg, .seg_off = w->seg_off});
	if (r)
		return r;
	uint64_t was = s->st->cut_epoch;

	s->st->cut_epoch = s->epoch; /* after a restart no cut is in flight */
	r = data_cut_done_locked(s->st, in, true);
	s->st->cut_epoch = was;
	return r;
}

/*
 * The inode has changes that are not in its row: those of a file that is being written are
 * withheld (store.h), for as long as it takes.  Its row as it is must not count as published
 * meanwhile, or a crash would leave dirty bytes that no cut finds.
 */
static int row_unpublished(struct store *st, struct inode *in)
{
	sqlite3_stmt *q = store_stmt(st, "UPDATE inode SET chg=?2,dchg=?2 WHERE ino=?1");

	if (!q)
		return -EIO;
	sqlite3_bind_int64(q, 1, (int64_t)in->ino);
	sqlite3_bind_int64(q, 2, (int64_t)st->epoch);
	in->chg_dirty = true;
	return store_run(st, q);
}

static int settle_large(struct settle *s, struct inode *in, const struct staged_row *w)
{
	uint64_t pos = w->off, to = w->off + w->len, start, end, covered = 0;
	unsigned flags;
	bool done;
	int r = 0;

	if (w->off == STAGED_MARK) {
		if (!s->restart)
			return 0;
		inode_mark_locked(s->st, in, REC_CH_CONTENT);
		return row_unpublished(s->st, in);
	}
	r = datafile_load_locked(s->st, in);
	if (r)
		return r;
	while (pos < to && (r = ranges_next(in->spans, pos, to, RG_CUT | RG_DIRTY, &start, &end,
					    &flags)) == 1) {
		pos = end = HF_MIN(end, to);
		/* After a restart the row is as the spans are: settle_again. */
		if (flags & RG_META && !s->restart)
			continue;
		r = put_extent(s->st, in->ino, start, end - start, w->seg,
			       w->seg_off + (uint32_t)(start - w->off));
		if (r)
			return r;
		covered += end - start;
	}
	/*
	 * Its row, which may be that of the smaller file it was in the cut, must find a cut that
	 * takes it: what the commit says of it is said here by nothing, and goes as garbage.
	 */
	if (r >= 0 && covered != w->len)
		r = row_unpublished(s->st, in);
	if (r < 0 || !s->restart)
		return r < 0 ? r : 0;
	r = ranges_next(in->spans, w->off, to, RG_CUT | RG_DIRTY | RG_META, &start, &end,
			&flags);
	if (!r) {
		r = settle_inlined(s, w, &done);
		if (r || done)
			return r;
	}
	for (pos = w->off; pos < to; pos = end) {
		r = ranges_at(in->spans, pos, to, &flags, &end);
		/* Beyond the end, too: the file may grow again before the next cut. */
		if (!r && !(flags & (RG_CUT | RG_DIRTY)))
			r = ranges_set(in->spans, pos, end - pos, RG_META, 0);
		if (r)
			return r;
	}
	inode_mark_locked(s->st, in, REC_CH_CONTENT);
	return 0;
}

/*
 * After a restart: it was a larger file in the cut, and the crash left the row it had before
 * it was one.  What is here is what the drive shows, so that is published next: its bytes,
 * or, where they are only on the nodes, the extents it has.
 */
static int settle_lost(struct settle *s, struct inode *in)
{
	struct account before = account_of(in);
	int r = 0;

	if (!s->restart || in->dchg > s->epoch)
		return 0;
	if (in->flags & INODE_SMALL_HAVE) {
		in->flags |= INODE_SMALL_DIRTY;
	} else {
		in->flags |= INODE_LARGE;
		r = datafile_load_locked(s->st, in);
		if (!r)
			r = ranges_set(in->spans, 0, DATA_MAX, RG_META, 0);
	}
	inode_mark_locked(s->st, in, REC_CH_CONTENT);
	account_settle_locked(s->st, in, before);
	return r;
}

static int settle_row(struct settle *s, const struct staged_row *w)
{
	struct inode *in;
	int r = inode_get_locked(s->st, w->ino, &in);

	if (r == -ENOENT || r == -ESTALE)
		return 0;
	if (r)
		return r;
	r = w->was			? settle_moved(s, w)
	    : in->flags & INODE_LARGE	? settle_large(s, in, w)
	    : w->off == STAGED_MARK ? settle_lost(s, in)
				    : settle_small(s, in, w);
	inode_put_locked(s->st, in);
	return r;
}

/* One slice of `staged` after (ino, off), up to inode `last`: how many; all under one hold. */
static int settle_slice(struct settle *s, uint64_t *ino, uint64_t *off, uint64_t last)
{
	struct staged_row row[SLICE];
	int cnt = 0, more = 0, r = 0;
	sqlite3_stmt *q = store_stmt(s->st, "SELECT ino,off,len,seg,seg_off,was,was_off FROM "
					    "staged WHERE (ino,off)>(?1,?2) AND ino<=?3 ORDER "
					    "BY ino,off LIMIT 256");

	if (!q)
		return -EIO;
	sqlite3_bind_int64(q, 1, (int64_t)*ino);
	sqlite3_bind_int64(q, 2, (int64_t)*off);
	sqlite3_bind_int64(q, 3, (int64_t)last);
	while (cnt < SLICE && (more = store_step(s->st, q)) == 1)
		row[cnt++] = (struct staged_row){
			.ino = (uint64_t)sqlite3_column_int64(q, 0),
			.off = (uint64_t)sqlite3_column_int64(q, 1),
			.len = (uint64_t)sqlite3_column_int64(q, 2),
			.seg = (uint64_t)sqlite3_column_int64(q, 3),
			.seg_off = (uint32_t)sqlite3_column_int64(q, 4),
			.was = (uint64_t)sqlite3_column_int64(q, 5),
			.was_off = (uint32_t)sqlite3_column_int64(q, 6),
		};
	sqlite3_reset(q);
	if (more < 0)
		return more;
	for (int i = 0; !r && i < cnt; i++)
		r = settle_row(s, &row[i]);
	if (cnt) {
		*ino = row[cnt - 1].ino;
		*off = row[cnt - 1].off;
	}
	return r ? r : cnt;
}

static int settle_slices(struct settle *s, uint64_t ino, uint64_t off, uint64_t last)
{
	int r;

	do {
		pthread_mutex_lock(&s->st->meta);
		r = settle_slice(s, &ino, &off, last);
		pthread_mutex_unlock(&s->st->meta);
	} while (r > 0);
	return r;
}

static int write_row(struct store *st, struct inode *in)
{
	pthread_mutex_lock(&st->meta);
	int r = store_flush_inode_locked(st, in);

	pthread_mutex_unlock(&st->meta);
	return r;
}

/* All of one inode, whose contents nobody changes meanwhile: its row is as they are. */
static int settle_again(struct settle *s, uint64_t ino)
{
	struct store *st = s->st;
	struct inode *in;
	int r = inode_get(st, ino, &in);

	if (r)
		return r == -ENOENT || r == -ESTALE ? 0 : r;
	r = iolock_write(&in->io);
	if (!r) {
		r = datafile_sync_io(st, in);
		if (!r)
			r = write_row(st, in);
		if (!r)
			r = settle_slices(s, ino - 1, INT64_MAX, ino);
		/* META: a later row, which may be withheld for long, is not what has it first. */
		if (!r)
			r = write_row(st, in);
		iolock_unlock(&in->io);
	}
	inode_put(st, in);
	return r;
}

/* The next inode that has rows: 1; 0 none. */
static int next_staged(struct store *st, uint64_t *ino)
{
	pthread_mutex_lock(&st->meta);
	sqlite3_stmt *q =
		store_stmt(st, "SELECT ino FROM staged WHERE ino>?1 ORDER BY ino LIMIT 1");
	int r = -EIO;

	if (q) {
		sqlite3_bind_int64(q, 1, (int64_t)*ino);
		r = store_step(st, q);
		if (r == 1)
			*ino = (uint64_t)sqlite3_column_int64(q, 0);
		sqlite3_reset(q);
	}
	pthread_mutex_unlock(&st->meta);
	return r;
}

static int settle_staged(struct settle *s)
{
	uint64_t ino = 0;
	int r;

	if (!s->restart)
		return settle_slices(s, 0, 0, INT64_MAX);
	while ((r = next_staged(s->st, &ino)) == 1) {
		r = publish_stopping(s->p) ? -ECANCELED : settle_again(s, ino);
		if (r)
			return r;
	}
	return r;
}

int settle_forget_locked(struct store *st, bool pending)
{
	int r = store_run(st, store_stmt(st, "DELETE FROM staged"));

	if (!r)
		r = store_run(st, store_stmt(st, "DELETE FROM capture"));
	if (!r && pending)
		r = store_run(st, store_stmt(st, "DELETE FROM pending"));
	return r;
}

/* The last step: from now on the cut counts as published here. */
static int settle_end_locked(struct settle *s, const struct pending *pd)
{
	const struct hist_head *h = &pd->head;
	struct store *st = s->st;
	uint8_t hash[HASH_LEN];
	int r;

	history_hash(&pd->obj, hash);
	r = store_put_u64(st, "log_seq", h->seq);
	if (!r)
		r = store_put_blob(st, "log_hash", hash, sizeof hash);
	if (!r)
		r = store_put_u64(st, "log_lamport", h->lamport);
	if (!r)
		r = store_put_u64(st, "log_time", (uint64_t)h->time_ns);
	if (!r)
		r = store_put_u64(st, "published", s->epoch);
	if (!r && s->p->rate)
		r = store_put_u64(st, "publish_rate", s->p->rate);
	if (!r)
		r = store_run(st, store_stmt(st, "UPDATE segment SET kind=1 WHERE kind=5 AND seg IN "
					   "(SELECT seg FROM staged)"));
	if (!r)
		r = settle_forget_locked(st, true);
	if (!r) {
		st->published = HF_MAX(st->published, s->epoch);
		st->cut_epoch = 0;
		st->cut_pos = 0;
		pthread_mutex_lock(&s->p->lock);
		s->p->status.seq = h->seq;
		s->p->status.time_ns = h->time_ns;
		pthread_mutex_unlock(&s->p->lock);
	}
	return r;
}

int settle_tidy(struct publisher *p, uint64_t epoch)
{
	struct store *st = p->st;
	bool more = true;
	int r = 0;

	while (!r && more) {
		pthread_mutex_lock(&st->meta);
		sqlite3_stmt *q = store_stmt(
			st, "DELETE FROM newlink WHERE id IN (SELECT id FROM newlink WHERE "
			    "epoch<=?1 ORDER BY id LIMIT 1000)");
		int links = 0;

		if (q) {
			sqlite3_bind_int64(q, 1, (int64_t)epoch);
			r = store_run(st, q);
			links = sqlite3_changes(st->db);
		}
		q = store_stmt(st,
			       "DELETE FROM tomb WHERE (kind,id) IN (SELECT kind,id FROM tomb "
			       "WHERE epoch<=?1 LIMIT 1000)");
		if (q && !r) {
			sqlite3_bind_int64(q, 1, (int64_t)epoch);
			r = store_run(st, q);
			links += sqlite3_changes(st->db);
		} else if (!q) {
			r = -EIO;
		}
		pthread_mutex_unlock(&st->meta);
		more = links > 0;
	}
	if (r)
		return r;
	/* Whoever read a name of these rows reads it from the new place now. */
	pthread_mutex_lock(&st->meta);
	r = store_run(st,
		store_stmt(st, "DELETE FROM segment WHERE seg>=1099511627776 AND NOT EXISTS "
			       "(SELECT 1 FROM extent WHERE extent.seg>=1099511627776 AND "
			       "extent.seg=segment.seg)"));
	pthread_mutex_unlock(&st->meta);
	return r;
}

void settle_abandon(struct cut *c)
{
	struct store *st = c->st;

	pthread_mutex_lock(&st->meta);
	for (size_t i = 0; i < c->file_cnt; i++)
		data_cut_done_locked(st, c->file[i].in, false);
	st->cut_epoch = 0;
	st->cut_pos = 0;
	if (!c->committed && !st->failed) {
		sqlite3_stmt *q =
			store_stmt(st, "DELETE FROM segment WHERE kind=3 AND seg>=?1");
		sqlite3_stmt *dead = store_stmt(
			st, "UPDATE segment SET kind=4,missing=0,chg=0,seq=0,since=?3 WHERE "
			    "kind=1 AND seg>=?1 AND seq>?2");

		settle_forget_locked(st, false);
		if (q) {
			sqlite3_bind_int64(q, 1, (int64_t)c->first_inline);
			store_run(st, q);
		}
		/* What it stored is on nodes: no commit names it, so it goes as garbage does. */
		if (dead) {
			sqlite3_bind_int64(dead, 1, (int64_t)c->first_seg);
			sqlite3_bind_int64(dead, 2, (int64_t)c->seq - 1);
			sqlite3_bind_int64(dead, 3, realtime_ns() / 1000000);
			store_run(st, dead);
		}
	}
	pthread_mutex_unlock(&st->meta);
	publish_touch(c->p);
}

/*
 * L1, L4: the bytes of the cut's larger files, and so their rows, before the commit says so.
 * A file that is written all the time keeps its older row; settle_lost is for that.
 */
static int sync_files(struct cut *c)
{
	for (size_t i = 0; i < c->file_cnt; i++) {
		struct inode *in = c->file[i].in;

		if (publish_stopping(c->p))
			return -ECANCELED;
		/* What cannot be synced stays dirty; the store is failed then. */
		c->file[i].failed = store_sync_inode(c->st, in, true) != 0;
	}
	return 0;
}

int settle_commit(struct cut *c)
{
	struct publisher *p = c->p;
	struct store *st = c->st;
	struct settle s = {.p = p, .st = st, .epoch = c->epoch};
	struct pending pd = {0};
	int r = sync_files(c);

	if (!r)
		r = publish_stage(p, "packed");
	if (!r)
		r = pending_build(c, &pd);
	if (!r)
		r = publish_stage(p, "built");
	if (!r)
		r = pending_write(c, &pd);
	if (!r)
		r = publish_stage(p, "pending");
	if (!r)
		r = pending_put(p, &pd);
	if (!r)
		r = publish_stage(p, "put");
	if (!r)
		r = settle_staged(&s);
	if (!r)
		r = publish_stage(p, "staged");
	if (!r) {
		pthread_mutex_lock(&st->meta);
		for (size_t i = 0; !r && i < c->file_cnt; i++) {
			struct inode *in = c->file[i].in;

			r = data_cut_done_locked(st, in, !c->file[i].failed);
			if (!r && c->file[i].failed)
				inode_mark_locked(st, in, REC_CH_CONTENT);
			if (!r && (in->unsynced || in->chg > c->epoch))
				r = row_unpublished(st, in);
		}
		if (!r)
			r = settle_end_locked(&s, &pd);
		pthread_mutex_unlock(&st->meta);
	}
	if (!r)
		r = store_commit(st);
	if (!r)
		r = publish_stage(p, "applied");
	if (!r)
		r = settle_tidy(p, c->epoch);
	pending_release(&pd);
	return r;
}

int settle_resume(struct publisher *p)
{
	struct settle s = {.p = p, .st = p->st, .restart = true};
	struct pending pd = {0};
	int r = pending_read(p->st, &pd);

	if (r == 1) {
		log_info(
			"sending commit %llu again, which was under way when the drive stopped",
			(unsigned long long)pd.head.seq);
		s.epoch = pd.epoch;
		r = pending_put(p, &pd);
		if (!r)
			r = settle_staged(&s);
		if (!r) {
			pthread_mutex_lock(&p->st->meta);
			r = settle_end_locked(&s, &pd);
			pthread_mutex_unlock(&p->st->meta);
		}
		if (!r)
			r = store_commit(p->st);
		if (!r)
			r = settle_tidy(p, s.epoch);
	}
	pending_release(&pd);
	return r;
}

int settle_clean(struct publisher *p)
{
	struct store *st = p->st;
	uint64_t seq = 0;

	pthread_mutex_lock(&st->meta);
	sqlite3_stmt *q = store_stmt(st, "SELECT count(*) FROM pending");
	int r = q ? store_step(st, q) : -EIO, pending = 0;

	if (r == 1)
		pending = sqlite3_column_int(q, 0);
	if (q)
		sqlite3_reset(q);
	if (r == 1 && !pending) {
		store_get_u64(st, "log_seq", &seq);
		q = store_stmt(st, "DELETE FROM segment WHERE seq>?1 AND kind=3");
		r = q ? 0 : -EIO;
		if (!r) {
			sqlite3_bind_int64(q, 1, (int64_t)seq);
			r = store_run(st, q);
		}
		/* No commit names them and none ever will. */
		q = r ? NULL
		      : store_stmt(st, "UPDATE segment SET kind=4,missing=0,chg=0,seq=0,since=?2 "
				       "WHERE seq>?1 AND kind<3");
		if (!r && !q)
			r = -EIO;
		if (!r) {
			sqlite3_bind_int64(q, 1, (int64_t)seq);
			sqlite3_bind_int64(q, 2, realtime_ns() / 1000000);
			r = store_run(st, q);
		}
		if (!r)
			r = settle_forget_locked(st, false);
	}
	pthread_mutex_unlock(&st->meta);
	return r < 0 ? r : 0;
}
