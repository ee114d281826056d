/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "cache/datafile.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include "net/cond.h"
#include "net/giveup.h"

#define CACHE_MIN ((uint64_t)1 << 30)
#define FD_MAX	  512u
#define PLAN_MAX  32
#define ROW_CHEAP 4096u /* bytes of a small file that fsync writes as a row however often */

/* --- reading --- */

struct plan {
	struct {
		uint64_t end;
		bool have; /* in the cache file, else a hole */
	} piece[PLAN_MAX];
	unsigned cnt;
	uint64_t end; /* of the pieces */
	bool fetch;   /* what follows is on the nodes: */
	uint64_t fetch_end;
	struct extent e;
};

/* What [off, end) is made of, up to and with the first part that is on the nodes. */
static int plan_locked(struct store *st, struct inode *in, uint64_t off, uint64_t end,
		       struct plan *pl)
{
	pl->cnt = 0;
	pl->fetch = false;
	pl->end = off;
	while (off < end && pl->cnt < PLAN_MAX) {
		unsigned flags;
		uint64_t stop;

		ranges_at(in->spans, off, end, &flags, &stop);
		if (!(flags & RG_HAVE)) {
			int got = extent_at_locked(st, in->ino, off, &pl->e);
			if (got < 0)
				return got;
			if (got && pl->e.off <= off) {
				pl->fetch = true;
				pl->fetch_end = HF_MIN(stop, pl->e.off + pl->e.len);
				return 0;
			}
			if (got)
				stop = HF_MIN(stop, pl->e.off);
		}
		pl->piece[pl->cnt].have = flags & RG_HAVE;
		pl->piece[pl->cnt++].end = stop;
		pl->end = off = stop;
	}
	return 0;
}

/* What the plan found here. */
static int plan_copy(struct store *st, struct inode *in, const struct plan *pl, uint8_t *buf,
		     uint64_t off)
{
	struct cfile *c = NULL;
	int err = 0;

	for (unsigned i = 0; i < pl->cnt && !err; i++) {
		size_t n = (size_t)(pl->piece[i].end - off);

		if (!pl->piece[i].have) {
			memset(buf, 0, n);
		} else {
			if (!c)
				err = cfile_get(st, in, CF_MAIN, false, &c);
			if (!err)
				err = cfile_read(c->fd, buf, n, off);
			if (err)
				err = log_fail(-EIO, "inode %llx: reading its cache file: %s",
					       (unsigned long long)in->ino,
					       err == -ENODATA ? "it is too short"
							       : strerror(-err));
		}
		buf += n;
		off += n;
	}
	cfile_put(st, c);
	return err;
}

/* 1: it has to be fetched. */
static int read_small_locked(struct store *st, struct inode *in, void *buf, size_t len,
			     uint64_t off)
{
	sqlite3_stmt *s;

	if (in->small) {
		memcpy(buf, in->small + off, len);
		return 0;
	}
	if (!(in->flags & INODE_SMALL_HAVE))
		return 1;
	s = store_stmt(st, "SELECT bytes FROM small WHERE ino = ?");
	if (!s || store_undone_locked(st, in->ino))
		return -EIO;
	sqlite3_bind_int64(s, 1, (sqlite3_int64)in->ino);
	int got = store_step(st, s);
	if (got == 1 && (uint64_t)sqlite3_column_bytes(s, 0) >= off + len)
		memcpy(buf, (const uint8_t *)sqlite3_column_blob(s, 0) + off, len);
	else if (got >= 0)
		got = store_fail_locked(st, -EIO, "a row of `small` is not there or too short");
	sqlite3_reset(s);
	return got < 0 ? got : 0;
}

/* Waits, with no lock held but meta, while read-ahead fetches the byte at off. */
static int wait_busy_locked(struct store *st, uint64_t ino, uint64_t off, int64_t deadline_ms)
{
	struct data *d = st->data;
	uint64_t end;

	while (fetch_busy_locked(d, ino, off, &end)) {
		if (deadline_ms <= now_ms())
			return -ETIMEDOUT;
		pthread_mutex_unlock(&st->meta);
		giveup_begin(&st->meta, &d->busy_cond);
		pthread_mutex_lock(&st->meta);
		if (!giveup_over() && fetch_busy_locked(d, ino, off, &end))
			cond_until(&d->busy_cond, &st->meta, deadline_ms);
		pthread_mutex_unlock(&st->meta);
		giveup_end();
		pthread_mutex_lock(&st->meta);
		/* It may have come by now, though the rest of the range has not. */
		return giveup_over();
	}
	return 0;
}

int64_t data_read_io(struct store *st, struct inode *in, void *buf, size_t len, uint64_t off,
		     int64_t deadline_ms)
{
	struct plan pl;
	uint64_t pos = off, end;
	int err = 0;

	pthread_mutex_lock(&st->meta);
	end = off >= in->size ? off : off + HF_MIN((uint64_t)len, in->size - off);
	if (end == off)
		goto out;
	if (!(in->flags & INODE_LARGE)) {
		/* Eviction may be faster than we are. */
		while ((err = read_small_locked(st, in, buf, (size_t)(end - off), off)) > 0) {
			pthread_mutex_unlock(&st->meta);
			struct small_want want = {buf, off, (size_t)(end - off)};
			err = small_fetch(st, in, deadline_ms, &want);
			pthread_mutex_lock(&st->meta);
			if (!err && now_ms() >= deadline_ms)
				err = -ETIMEDOUT;
			if (err)
				break;
		}
		if (err == 1)
			err = 0;
		goto out;
	}
	err = datafile_load_locked(st, in);
	if (err)
		goto out;
	fetch_ahead_locked(st, in, off, end);
	datafile_touch_locked(st, in);
	while (pos < end && !err) {
		uint64_t stop;

		err = plan_locked(st, in, pos, end, &pl);
		if (err)
			break;
		if (!pl.cnt && pl.fetch && fetch_busy_locked(st->data, in->ino, pos, &stop)) {
			/* Read-ahead stores what it fetched with io held shared, as we hold it.
			 */
			fetch_more_locked(st, in);
			err = wait_busy_locked(st, in->ino, pos, deadline_ms);
			continue;
		}
		pthread_mutex_unlock(&st->meta);
		err = plan_copy(st, in, &pl, (uint8_t *)buf + (pos - off), pos);
		pos = pl.end;
		if (!err && pl.fetch && !pl.cnt) {
			err = fetch_read(st, in, &pl.e, pos, (size_t)(pl.fetch_end - pos),
					 (uint8_t *)buf + (pos - off), deadline_ms);
			if (err == -EAGAIN && now_ms() < deadline_ms)
				err = 0;
			else
				pos = pl.fetch_end;
		}
		pthread_mutex_lock(&st->meta);
	}
out:
	pthread_mutex_unlock(&st->meta);
	return err ? err : (int64_t)(end - off);
}

int64_t data_read(struct store *st, struct inode *in, void *buf, size_t len, uint64_t off)
{
	int64_t deadline = now_ms() + READ_DEADLINE_MS;

	if (off >= DATA_MAX || !len)
		return 0;
	int err = iolock_read(&in->io);
	if (err)
		return err;
	int64_t n = data_read_io(st, in, buf, len, off, deadline);
	iolock_unlock(&in->io);
	return n;
}

/* --- writing --- */

/* 0 done; 1 its bytes must be fetched first; 2 it gets too large for a row. */
static int write_small_locked(struct store *st, struct inode *in, const void *buf, size_t len,
			      uint64_t off, bool kill_priv)
{
	int err = store_writable_locked(st);

	if (err)
		return err;
	if (off + len > SMALL_MAX) {
		if (in->size && !(in->flags & INODE_SMALL_HAVE))
			return 1;
		return 2;
	}
	if (in->size && !(in->flags & INODE_SMALL_HAVE) && (off || len < in->size))
		return 1;
	err = small_capture_locked(st, in);
	if (err)
		return err;
	struct account before = account_of(in);
	uint64_t size = in->size;
	uint32_t flags = in->flags;
	if (!(in->flags & INODE_SMALL_HAVE)) {
		/* Overwritten from end to end: the old bytes are of no interest. */
		in->size = 0;
		in->flags |= INODE_SMALL_HAVE;
	}
	err = small_load_locked(st, in);
	if (!err && off + len > in->size)
		err = small_resize_locked(st, in, off + len);
	if (err) {
		if (!(flags & INODE_SMALL_HAVE)) {
			small_free_locked(st, in);
			in->size = size;
			in->flags = flags;
		}
		return err;
	}
	memcpy(in->small + off, buf, len);
	in->flags |= INODE_SMALL_HAVE | INODE_SMALL_DIRTY;
	err = data_mark_locked(st, in, kill_priv);
	account_settle_locked(st, in, before);
	return err;
}

/* The bytes [off, off+len) are in the cache file now. */
static int wrote_locked(struct store *st, struct inode *in, const void *buf, size_t len,
			uint64_t off, bool kill_priv)
{
	struct account before = account_of(in);
	/* META stays: if the bytes are punched out again, the hole still has to be published.
	 */
	int err = ranges_set(in->spans, off, len, RG_HAVE | RG_DIRTY, RG_CUT);

	/* Clean bytes have changed, and nothing says so. */
	if (err)
		store_fail_locked(st, err, "out of memory in the middle of a write");
	else
		in->size = HF_MAX(in->size, off + len);
	datafile_wrote_locked(st, in, buf, len, off);
	datafile_touch_locked(st, in);
	int err2 = data_mark_locked(st, in, kill_priv);
	account_settle_locked(st, in, before);
	return err ? err : err2;
}

/* A write broke off: what it changed of bytes that were here is dirty; nothing is claimed. */
static void broke_off_locked(struct store *st, struct inode *in, uint64_t off, uint64_t end)
{
	struct account before = account_of(in);
	uint64_t start, stop;
	unsigned flags;

	while (ranges_next(in->spans, off, end, RG_HAVE, &start, &stop, &flags) == 1) {
		int err =
			ranges_set(in->spans, start, stop - start, RG_HAVE | RG_DIRTY, RG_CUT);
		if (err) {
			store_fail_locked(st, err, "out of memory in the middle of a write");
			break;
		}
		off = stop;
	}
	datafile_wrote_locked(st, in, NULL, 0, 0);
	data_mark_locked(st, in, false);
	account_settle_locked(st, in, before);
}

static int write_large_io(struct store *st, struct inode *in, const void *buf, size_t len,
			  uint64_t off, bool kill_priv)
{
	struct cfile *c = NULL;
	size_t done = 0;
	bool prepare = false, create = true;

	pthread_rwlock_rdlock(&st->data->gate);
	pthread_mutex_lock(&st->meta);
	int err = store_writable_locked(st);
	if (!err)
		err = datafile_load_locked(st, in);
	if (!err) {
		struct account a = account_of(in);
		prepare = a.cached > a.unpublished || ranges_total(in->spans, RG_CUT) ||
			  ranges_total(in->spans, RG_AHEAD) || ranges_total(in->spans, RG_SENT);
		/* Bytes that are gone must not turn into a hole. */
		create = !a.cached;
	}
	pthread_mutex_unlock(&st->meta);
	if (!err && prepare)
		err = data_prepare_io(st, in, off, off + len);
	if (!err) {
		err = cfile_get(st, in, CF_MAIN, create, &c);
		if (err == -ENOENT)
			err = log_fail(-EIO, "inode %llx: its cache file is gone",
				       (unsigned long long)in->ino);
	}
	if (!err) {
		c->wrote = true;
		err = cfile_write(c->fd, buf, len, off, &done);
	}
	cfile_put(st, c);
	pthread_mutex_lock(&st->meta);
	store_seal_locked(st, in, false);
	if (in->file)
		in->file->wr_end = in->file->wr_off = 0;
	if (!err)
		err = wrote_locked(st, in, buf, len, off, kill_priv);
	else if (done)
		broke_off_locked(st, in, off, off + done);
	pthread_mutex_unlock(&st->meta);
	pthread_rwlock_unlock(&st->data->gate);
	return err;
}

int data_write_io(struct store *st, struct inode *in, const void *buf, size_t len, uint64_t off,
		  bool kill_priv)
{
	int64_t deadline = now_ms() + READ_DEADLINE_MS;

	for (;;) {
		int todo = 0;

		pthread_mutex_lock(&st->meta);
		bool large = in->flags & INODE_LARGE;
		if (!large)
			todo = write_small_locked(st, in, buf, len, off, kill_priv);
		pthread_mutex_unlock(&st->meta);
		if (large)
			return write_large_io(st, in, buf, len, off, kill_priv);
		if (todo <= 0)
			return todo;
		int err = todo == 1 ? small_fetch(st, in, deadline, NULL)
				    : data_make_large(st, in);
		if (err && (todo == 1 || err != -EAGAIN))
			return err;
	}
}

int data_write(struct store *st, struct inode *in, const void *buf, size_t len, uint64_t off,
	       bool kill_priv)
{
	if (!len)
		return 0;
	if (off > DATA_MAX || len > DATA_MAX - off)
		return -EFBIG;
	int err = store_space_for(st, len);
	if (err)
		return err;
	err = iolock_write(&in->io);
	if (err)
		return err;
	err = data_quota(st, in, off, len);
	if (!err)
		err = data_write_io(st, in, buf, len, off, kill_priv);
	iolock_unlock(&in->io);
	store_pressure(st);
	return err;
}

/*
 * fsync writes the row of a small file as a whole.  What is appended to and synced over and
 * over, as a log is, costs less as a cache file: there only what changed goes into rows
 * (redo.c).
 */
static void leave_row(struct store *st, struct inode *in)
{
	pthread_mutex_lock(&st->meta);
	uint64_t size = in->small && in->size > ROW_CHEAP ? in->size : 0;
	in->row_synced += (uint32_t)size;
	bool leave = size && in->row_synced > SMALL_MAX;
	pthread_mutex_unlock(&st->meta);
	if (!leave || store_space_for(st, size) || !iolock_try_write(&in->io))
		return;
	pthread_mutex_lock(&st->meta);
	leave = in->small != NULL;
	if (leave)
		in->row_synced = 0;
	pthread_mutex_unlock(&st->meta);
	/* Where that fails it is a row as before, and that is written. */
	if (leave)
		data_make_large(st, in);
	iolock_unlock(&in->io);
}

int data_sync(struct store *st, struct inode *in, bool datasync)
{
	(void)datasync; /* the row is what holds the size and where the bytes are */
	pthread_mutex_lock(&st->meta);
	bool failed = in->io_err;
	/* From now on it is published in order (order.c). */
	if (!failed && !(in->flags & INODE_FSYNCED) && !store_writable_locked(st)) {
		in->flags = (in->flags & ~INODE_UNORDERED) | INODE_FSYNCED;
		inode_mark_locked(st, in, 0);
	}
	pthread_mutex_unlock(&st->meta);
	if (failed)
		return -EIO;
	leave_row(st, in);
	int err = redo_sync(st, in);
	if (!err)
		err = store_sync_inode(st, in, true);
	else if (err > 0)
		err = 0;
	if (!err)
		err = store_commit(st);
	if (!err && st->opts.fsync_remote && st->remote_sync)
		err = st->remote_sync(st->remote_arg, in->ino);
	return err;
}

/* --- opening --- */

int data_open(struct store *st)
{
	struct data *d = calloc(1, sizeof *d);
	pthread_rwlockattr_t attr;
	struct statvfs v;
	struct rlimit rl;

	if (!d)
		return -ENOMEM;
	if (mkdirat(st->dir_fd, "data", 0700) < 0 && errno != EEXIST) {
		int err = -errno;
		free(d);
		return log_fail(err, "making %s/data: %s", st->dir, strerror(-err));
	}
	d->dir_fd = openat(st->dir_fd, "data", O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (d->dir_fd < 0 || fsync(st->dir_fd) < 0) {
		int err = -errno;
		if (d->dir_fd >= 0)
			close(d->dir_fd);
		free(d);
		return log_fail(err, "opening %s/data: %s", st->dir, strerror(-err));
	}
	pthread_mutex_init(&d->fd_lock, NULL);
	pthread_rwlockattr_init(&attr);
	/* A stream of writes must not keep the cut away. */
	pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	pthread_rwlock_init(&d->gate, &attr);
	pthread_rwlockattr_destroy(&attr);
	cond_init(&d->keeper_cond);
	cond_init(&d->job_cond);
	cond_init(&d->busy_cond);
	d->fd_max = FD_MAX;
	if (!getrlimit(RLIMIT_NOFILE, &rl) && rl.rlim_cur != RLIM_INFINITY)
		d->fd_max = (unsigned)HF_MAX(
			HF_MIN((uint64_t)FD_MAX, (uint64_t)rl.rlim_cur / 2), (uint64_t)8);
	d->fd_hard = d->fd_max * 3 / 2;
	d->limit = st->opts.cache_size;
	if (!d->limit) {
		d->limit = CACHE_MIN;
		if (!fstatvfs(d->dir_fd, &v))
			d->limit = HF_MAX(d->limit, (uint64_t)v.f_blocks * v.f_frsize / 10);
	}
	st->data = d;
	pthread_mutex_lock(&st->meta);
	int err = leftover_locked(st);
	pthread_mutex_unlock(&st->meta);
	if (err)
		data_close(st);
	return err;
}

void data_close(struct store *st)
{
	struct data *d = st->data;

	if (!d)
		return;
	data_stop(st);
	keeper_drain(st);
	pthread_mutex_lock(&st->meta);
	if (!st->failed && st->db) {
		store_put_u64(st, "cached_bytes", st->cached_bytes);
		store_put_u64(st, "unpublished_bytes", st->unpublished_bytes);
	}
	while (d->fd_head) {
		struct cfile *c = d->fd_head;
		d->fd_head = c->next;
		close(c->fd);
		free(c);
	}
	st->data = NULL;
	pthread_mutex_unlock(&st->meta);
	close(d->dir_fd);
	pthread_mutex_destroy(&d->fd_lock);
	pthread_rwlock_destroy(&d->gate);
	pthread_cond_destroy(&d->keeper_cond);
	pthread_cond_destroy(&d->job_cond);
	pthread_cond_destroy(&d->busy_cond);
	free(d->trim);
	free(d);
}

int data_start(struct store *st)
{
	struct data *d = st->data;

	d->stopping = false;
	int rc = pthread_create(&d->keeper, NULL, keeper_main, st);
	if (rc)
		return log_fail(-rc, "starting the eviction thread: %s", strerror(rc));
	pthread_mutex_lock(&st->meta);
	d->keeper_on = d->evictable = true;
	pthread_mutex_unlock(&st->meta);
	for (unsigned i = 0; i < READ_AHEAD_THREADS && st->vol; i++) {
		rc = pthread_create(&d->reader[i], NULL, fetch_main, st);
		if (rc) {
			data_stop(st);
			return log_fail(-rc, "starting a read-ahead thread: %s", strerror(rc));
		}
		pthread_mutex_lock(&st->meta);
		d->reader_cnt++;
		pthread_mutex_unlock(&st->meta);
	}
	return 0;
}

void data_stop(struct store *st)
{
	struct data *d = st->data;

	pthread_mutex_lock(&st->meta);
	d->stopping = true;
	unsigned readers = d->reader_cnt;
	d->reader_cnt = 0;
	d->job_cnt = 0;
	pthread_cond_broadcast(&d->keeper_cond);
	pthread_cond_broadcast(&d->job_cond);
	pthread_mutex_unlock(&st->meta);
	for (unsigned i = 0; i < readers; i++)
		pthread_join(d->reader[i], NULL);
	if (d->keeper_on)
		pthread_join(d->keeper, NULL);
	d->keeper_on = false;
	/* What it had still to do; without inodes in memory keeper_drain does a part of it. */
	if (st->inodes && !st->failed)
		keeper_trim(st);
}
