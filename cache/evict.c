/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Giving up clean bytes, in this order (L4, L5): the spans say that they are not here, that
 * is committed, then the blocks are released.  io is held exclusively from the first to the
 * last, so that nobody fills or writes the range in between.
 */
#include "cache/datafile.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "net/cond.h"

#define TRIM_DELAY_MS 500
#define TRIM_AGAIN_MS 2000 /* after a failure */
#define SMALL_BATCH   256

void keeper_wake_locked(struct store *st)
{
	struct data *d = st->data;

	if (d && d->keeper_on && d->evictable && st->cached_bytes > d->limit)
		pthread_cond_signal(&d->keeper_cond);
}

int keeper_trim_locked(struct store *st, uint64_t ino)
{
	struct data *d = st->data;

	if (d->trim_cnt && d->trim[d->trim_cnt - 1] == ino)
		return 0;
	if (d->trim_cnt == d->trim_cap) {
		size_t cap = d->trim_cap * 2 + 64;
		uint64_t *p = realloc(d->trim, cap * sizeof *p);
		if (!p)
			return -ENOMEM;
		d->trim = p;
		d->trim_cap = cap;
	}
	d->trim[d->trim_cnt++] = ino;
	if (d->trim_cnt == 1)
		pthread_cond_signal(&d->keeper_cond);
	return 0;
}

/* --- releasing blocks --- */

struct gap {
	uint64_t off, end;
};

int cfile_punch(struct store *st, struct inode *in, uint64_t off, uint64_t end)
{
	struct buf list = {0};
	struct cfile *c;
	struct stat sb;
	int err = cfile_get(st, in, CF_MAIN, false, &c);

	if (err)
		return err == -ENOENT ? 0 : err;
	if (fstat(c->fd, &sb) < 0) {
		err = -errno;
		goto out;
	}
	uint64_t size = (uint64_t)sb.st_size, pos = off;
	end = HF_MIN(end, size);
	pthread_mutex_lock(&st->meta);
	while (pos < end && in->spans) {
		struct gap g = {pos, end};
		uint64_t stop;
		unsigned flags;

		/* The gap reaches as far as no bytes are here, or to the end. */
		if (ranges_next(in->spans, pos, size, RG_HAVE, &g.end, &stop, &flags) != 1)
			g.end = stop = size;
		if (g.end > g.off)
			buf_put(&list, &g, sizeof g);
		pos = stop;
	}
	pthread_mutex_unlock(&st->meta);
	err = list.err;
	for (size_t i = 0; i < list.len && !err; i += sizeof(struct gap)) {
		struct gap g;

		memcpy(&g, list.p + i, sizeof g);
		int rc = g.end == size
				 ? ftruncate(c->fd, (off_t)g.off)
				 : fallocate(c->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
					     (off_t)g.off, (off_t)(g.end - g.off));
		if (rc < 0)
			err = -errno;
	}
	/* A file system that cannot punch holes keeps the blocks; nothing refers to them. */
	if (err == -EOPNOTSUPP)
		err = 0;
	if (err)
		log_warn("inode %llx: releasing blocks of its cache file: %s",
			 (unsigned long long)in->ino, strerror(-err));
	err = 0;
out:
	cfile_put(st, c);
	buf_release(&list);
	return err;
}

/* The row and the spans are committed as they are now; io held exclusively. */
static int settle_io(struct store *st, struct inode *in)
{
	int err = datafile_sync_io(st, in);

	if (err)
		return err;
	pthread_mutex_lock(&st->meta);
	err = store_flush_inode_locked(st, in);
	pthread_mutex_unlock(&st->meta);
	return err || st->opts.skip_settle ? err : store_commit(st);
}

static int trim_inode(struct store *st, struct inode *in)
{
	int err = iolock_write(&in->io);
	if (err)
		return err;
	err = settle_io(st, in);
	if (!err) {
		pthread_mutex_lock(&st->meta);
		bool large = in->flags & INODE_LARGE;
		if (!large && in->file)
			cfile_drop(st, in->file, CF_MAIN);
		if (large)
			err = datafile_load_locked(st, in);
		pthread_mutex_unlock(&st->meta);
		if (large && !err)
			err = cfile_punch(st, in, 0, DATA_MAX);
		else if (!large)
			err = cfile_unlink(st, in->ino, CF_MAIN);
	}
	iolock_unlock(&in->io);
	return err;
}

/*
 * Takes the queue over and works it off.  What fails, as on a full disk, keeps nobody else's
 * blocks: it is queued again, and after the last attempt the next mount looks for it.
 */
int keeper_trim(struct store *st)
{
	struct data *d = st->data;
	int failed = 0;

	pthread_mutex_lock(&st->meta);
	uint64_t *list = d->trim;
	size_t cnt = d->trim_cnt;
	d->trim = NULL;
	d->trim_cnt = d->trim_cap = 0;
	pthread_mutex_unlock(&st->meta);
	int bad = cnt ? store_commit(st) : 0;
	for (size_t i = 0; i < cnt; i++) {
		struct inode *in;
		int err, got = bad ? bad : inode_get(st, list[i], &in);

		if (!got) {
			err = trim_inode(st, in);
			inode_put(st, in);
		} else if (got == -ENOENT || got == -ESTALE) {
			err = cfile_unlink(st, list[i], CF_MAIN);
		} else {
			err = got;
		}
		if (!err)
			continue;
		failed = err;
		pthread_mutex_lock(&st->meta);
		if (!st->failed)
			keeper_trim_locked(st, list[i]);
		pthread_mutex_unlock(&st->meta);
	}
	free(list);
	return failed;
}

void keeper_drain(struct store *st)
{
	struct data *d = st->data;

	/* The inodes are not in memory any more: what the rows say is all there is. */
	if (st->failed || !d->trim_cnt || store_commit(st))
		return;
	pthread_mutex_lock(&st->meta);
	for (size_t i = 0; i < d->trim_cnt; i++) {
		sqlite3_stmt *s =
			store_stmt(st, "SELECT 1 FROM inode WHERE ino = ? AND flags & 1");
		if (!s)
			break;
		sqlite3_bind_int64(s, 1, (sqlite3_int64)d->trim[i]);
		int got = store_step(st, s);
		sqlite3_reset(s);
		if (got == 0)
			cfile_unlink(st, d->trim[i], CF_MAIN);
	}
	d->trim_cnt = 0;
	pthread_mutex_unlock(&st->meta);
}

/* --- eviction --- */

static int forget(void *arg, const struct extent *e)
{
	struct inode *in = arg;

	return ranges_set(in->spans, e->off, e->len, 0, RG_HAVE);
}

/* Clean bytes that are on the nodes are here no longer, about `want` of them. */
static int forget_locked(struct store *st, struct inode *in, uint64_t want, uint64_t *from,
			 uint64_t *to)
{
	struct account before = account_of(in);
	uint64_t pos = 0, start, end;
	unsigned flags;
	int err = 0;

	*from = *to = 0;
	while (!err && before.cached - account_of(in).cached < want &&
	       ranges_next(in->spans, pos, DATA_MAX, RG_HAVE, &start, &end, &flags) == 1) {
		pos = end;
		if (flags & (RG_DIRTY | RG_CUT))
			continue;
		if (!*to)
			*from = start;
		*to = end = HF_MIN(end, start + HF_MAX(want, (uint64_t)1 << 20));
		pos = end;
		err = extent_each_locked(st, in->ino, start, end, forget, in);
	}
	if (before.cached != account_of(in).cached)
		inode_mark_locked(st, in, 0);
	account_settle_locked(st, in, before);
	return err;
}

/* Returns the bytes given up, or -errno. */
static int64_t evict_large(struct store *st, uint64_t ino, uint64_t want, bool cold)
{
	uint64_t from, to, freed = 0;
	struct inode *in;
	bool skip;

	int err = inode_get(st, ino, &in);
	if (err)
		return err == -ENOENT || err == -ESTALE ? 0 : err;
	/* Whoever uses it now has a use for it. */
	if (!iolock_try_write(&in->io)) {
		inode_put(st, in);
		return 0;
	}
	pthread_mutex_lock(&st->meta);
	skip = in->gone || !(in->flags & INODE_LARGE) || (cold && in->file && in->file->on_lru);
	if (!skip) {
		err = datafile_load_locked(st, in);
		struct account a = {0};
		if (!err)
			a = account_of(in);
		skip = a.cached <= a.unpublished;
	}
	pthread_mutex_unlock(&st->meta);
	if (!err && !skip)
		err = datafile_sync_io(st, in);
	if (!err && !skip) {
		pthread_mutex_lock(&st->meta);
		uint64_t before = account_of(in).cached;
		err = forget_locked(st, in, want, &from, &to);
		freed = before - account_of(in).cached;
		in->file->ra_end = 0;
		if (!err && freed)
			err = store_flush_inode_locked(st, in);
		pthread_mutex_unlock(&st->meta);
		if (!err && freed && !st->opts.skip_settle)
			err = store_commit(st);
		if (!err && freed)
			err = cfile_punch(st, in, from, to);
	}
	iolock_unlock(&in->io);
	inode_put(st, in);
	return err ? err : (int64_t)freed;
}

/* The next larger file, in the order of numbers, that nobody has touched since the mount. */
static int next_cold(struct store *st, uint64_t *ino)
{
	struct data *d = st->data;

	pthread_mutex_lock(&st->meta);
	sqlite3_stmt *s =
		store_stmt(st, "SELECT ino FROM span WHERE ino > ? ORDER BY ino LIMIT 1");
	int got = s ? 0 : -EIO;
	if (s) {
		sqlite3_bind_int64(s, 1, (sqlite3_int64)d->scan_span);
		got = store_step(st, s);
		if (got == 1)
			*ino = d->scan_span = (uint64_t)sqlite3_column_int64(s, 0);
		sqlite3_reset(s);
	}
	pthread_mutex_unlock(&st->meta);
	return got;
}

/* The larger files of this session, longest unused first. */
static int warm_list(struct store *st, struct buf *out)
{
	pthread_mutex_lock(&st->meta);
	for (struct datafile *f = st->data->lru_tail; f; f = f->lru_prev) {
		if (!(f->in->flags & INODE_LARGE) || !f->in->spans)
			continue;
		struct account a = account_of(f->in);
		if (a.cached > a.unpublished)
			buf_put(out, &f->in->ino, sizeof f->in->ino);
	}
	pthread_mutex_unlock(&st->meta);
	return out->err;
}

struct small_victim {
	uint64_t ino, size;
};

static int evict_small_one(struct store *st, struct small_victim v)
{
	if (inode_peek_locked(st, v.ino)) {
		struct inode *in;
		int err = inode_get_locked(st, v.ino, &in);
		if (err)
			return err;
		if (!in->small && !in->dirty && in->dchg <= st->published &&
		    (in->flags & (INODE_LARGE | INODE_SMALL_HAVE | INODE_SMALL_DIRTY)) ==
			    INODE_SMALL_HAVE) {
			struct account before = account_of(in);
			in->flags &= ~INODE_SMALL_HAVE;
			inode_mark_locked(st, in, 0);
			account_settle_locked(st, in, before);
			err = small_delete_locked(st, v.ino);
		}
		inode_put_locked(st, in);
		return err;
	}
	sqlite3_stmt *s = store_stmt(st, "UPDATE inode SET flags = flags & ~2 WHERE ino = ?");
	if (!s)
		return -EIO;
	sqlite3_bind_int64(s, 1, (sqlite3_int64)v.ino);
	int err = store_run(st, s);
	if (!err)
		err = small_delete_locked(st, v.ino);
	st->cached_bytes -= HF_MIN(st->cached_bytes, v.size);
	return err;
}

/* Some published small files; 1 there may be more, 0 none left, -errno. */
static int evict_smalls(struct store *st, uint64_t bytes)
{
	struct small_victim v[SMALL_BATCH];
	struct data *d = st->data;
	unsigned cnt = 0;
	int err = 0, got = 0;

	pthread_mutex_lock(&st->meta);
	sqlite3_stmt *s =
		store_stmt(st, "SELECT s.ino, length(s.bytes) FROM small s "
			       "CROSS JOIN inode i ON i.ino = s.ino WHERE s.ino > ? AND "
			       "(i.flags & 7) = 2 AND i.dchg <= ? ORDER BY s.ino LIMIT 256");
	if (!s)
		err = -EIO;
	if (s) {
		sqlite3_bind_int64(s, 1, (sqlite3_int64)d->scan_small);
		sqlite3_bind_int64(s, 2, (sqlite3_int64)st->published);
		while (cnt < SMALL_BATCH && (got = store_step(st, s)) == 1) {
			v[cnt].ino = (uint64_t)sqlite3_column_int64(s, 0);
			v[cnt++].size = (uint64_t)sqlite3_column_int64(s, 1);
		}
		sqlite3_reset(s);
		if (got < 0)
			err = got;
	}
	for (unsigned i = 0; i < cnt && !err && st->cached_bytes > bytes; i++) {
		err = evict_small_one(st, v[i]);
		d->scan_small = v[i].ino;
	}
	pthread_mutex_unlock(&st->meta);
	return err ? err : cnt == SMALL_BATCH;
}

static uint64_t excess(struct store *st, uint64_t bytes)
{
	pthread_mutex_lock(&st->meta);
	uint64_t n = st->cached_bytes > bytes ? st->cached_bytes - bytes : 0;
	pthread_mutex_unlock(&st->meta);
	return n;
}

int data_evict(struct store *st, uint64_t bytes)
{
	struct buf warm = {0};
	uint64_t ino, want;
	int64_t n = 0;
	int got = 1;

	pthread_mutex_lock(&st->meta);
	st->data->scan_span = st->data->scan_small = 0;
	pthread_mutex_unlock(&st->meta);
	while (n >= 0 && (want = excess(st, bytes)) && (got = next_cold(st, &ino)) == 1)
		n = evict_large(st, ino, want, true);
	if (n >= 0 && got >= 0 && excess(st, bytes)) {
		got = warm_list(st, &warm);
		for (size_t i = 0; i < warm.len && n >= 0 && (want = excess(st, bytes));
		     i += sizeof ino) {
			memcpy(&ino, warm.p + i, sizeof ino);
			n = evict_large(st, ino, want, false);
		}
		buf_release(&warm);
	}
	got = got < 0 ? got : 1;
	while (n >= 0 && got == 1 && excess(st, bytes))
		got = evict_smalls(st, bytes);
	return n < 0 ? (int)n : HF_MIN(got, 0);
}

void *keeper_main(void *arg)
{
	struct store *st = arg;
	struct data *d = st->data;
	bool failed = false;

	pthread_setname_np(pthread_self(), "evict");
	pthread_mutex_lock(&st->meta);
	while (!d->stopping) {
		if (d->evictable && st->cached_bytes > d->limit) {
			d->evictable = false;
			pthread_mutex_unlock(&st->meta);
			/* A little more than needed, so that it need not be done all the time.
			 */
			data_evict(st, d->limit - d->limit / 16);
			pthread_mutex_lock(&st->meta);
		} else if (d->trim_cnt) {
			int64_t until = now_ms() + (failed ? TRIM_AGAIN_MS : TRIM_DELAY_MS);
			int rc = 0;

			/* Many files deleted one after the other share a commit. */
			while (!rc && !d->stopping)
				rc = cond_until(&d->keeper_cond, &st->meta, until);
			if (d->stopping)
				break;
			pthread_mutex_unlock(&st->meta);
			failed = keeper_trim(st) != 0;
			pthread_mutex_lock(&st->meta);
		} else {
			pthread_cond_wait(&d->keeper_cond, &st->meta);
		}
	}
	pthread_mutex_unlock(&st->meta);
	return NULL;
}
