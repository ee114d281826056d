/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * fsync of a larger file by one sync instead of two: when little was written since the last
 * fdatasync, the bytes go into rows of `redo`, in the transaction that has the inode's row,
 * and the cache file, which has them too, is synced later, in the background.  After a crash
 * the rows are written into the cache files before anything else is read.
 *
 *   What has rows     all bytes of the file that no fdatasync covers, in the order in which
 *                     they were written: so the file, whatever part of them reached the disk,
 *                     is as of the last row when they were written once more.  They are kept
 *                     in memory from the write on (`fresh`); where that was not done
 *                     (fresh_lost) only an fdatasync will do.
 *   When rows go      with an fdatasync that began after their bytes were written, at once
 *                     (data_fsync_file): whatever relies on it is committed with their end,
 *                     or later.  So no row is ever written over newer bytes that count.
 *   Where they go to  Ranges that are not HAVE any more hold nothing: what a row leaves there
 *                     is not read.  A file is HAVE in any other way than by a write only with
 *                     an fdatasync before its row.
 *   The name          of the cache file is on the disk before the first row is made.
 *   Errors            The rows are true whatever becomes of the cache file.  If that cannot
 *                     be synced the store has failed, and the next start writes them again.
 *
 * An inode with rows is pinned (in->redo), and its descriptor stays, so that the kernel does
 * not forget an error.
 */
#include "cache/datafile.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#define FRESH_ALL      ((uint64_t)4 << 20) /* kept in memory, of all files */
#define REDO_FILE      ((uint64_t)1 << 20) /* in rows, of one file; */
#define REDO_FILE_ROWS 2048
#define REDO_ALL       ((uint64_t)8 << 20) /* of all */
#define REDO_IDLE_MS   1000 /* not written for so long, or for so long in rows: synced */
#define REDO_MAX_MS    5000

/* --- what was written --- */

static void fresh_clear(struct store *st, struct datafile *f)
{
	st->data->fresh_bytes -= f->fresh_len;
	free(f->fresh);
	f->fresh = NULL;
	f->fresh_len = f->fresh_cap = 0;
	f->fresh_cnt = 0;
}

static bool fresh_room(struct store *st, struct datafile *f, size_t len)
{
	if (len > REDO_MAX - f->fresh_len || st->data->fresh_bytes + len > FRESH_ALL)
		return false;
	if (f->fresh_len + len <= f->fresh_cap)
		return true;
	size_t cap = HF_MAX((size_t)1024, f->fresh_cap);
	while (cap < f->fresh_len + len)
		cap *= 2;
	uint8_t *p = realloc(f->fresh, cap);
	if (!p)
		return false;
	f->fresh = p;
	f->fresh_cap = cap;
	return true;
}

void redo_note_locked(struct store *st, struct inode *in, const void *buf, size_t len,
		      uint64_t off)
{
	struct datafile *f = in->file;
	struct fresh *last = f->fresh_cnt ? &f->piece[f->fresh_cnt - 1] : NULL;
	bool on = last && last->off + last->len == off;

	if (!buf || f->fresh_lost > f->synced_gen || (!on && f->fresh_cnt == FRESH_PIECES) ||
	    !fresh_room(st, f, len)) {
		f->fresh_lost = f->gen;
		fresh_clear(st, f);
		return;
	}
	memcpy(f->fresh + f->fresh_len, buf, len);
	f->fresh_len += len;
	st->data->fresh_bytes += len;
	if (on)
		last->len += len;
	else
		f->piece[f->fresh_cnt++] = (struct fresh){off, len};
	f->fresh_gen = f->gen;
}

/* --- rows --- */

static int run_ino(struct store *st, sqlite3_stmt *s, uint64_t ino)
{
	if (!s)
		return -EIO;
	sqlite3_bind_int64(s, 1, (sqlite3_int64)ino);
	return store_run(st, s);
}

static void list_add(struct data *d, struct datafile *f)
{
	f->redo_prev = NULL;
	f->redo_next = d->redo_head;
	if (f->redo_next)
		f->redo_next->redo_prev = f;
	d->redo_head = f;
}

void redo_release_locked(struct store *st, struct inode *in)
{
	struct datafile *f = in->file;
	struct data *d = st->data;

	if (f)
		fresh_clear(st, f);
	if (!in->redo)
		return;
	if (f->redo_prev)
		f->redo_prev->redo_next = f->redo_next;
	else
		d->redo_head = f->redo_next;
	if (f->redo_next)
		f->redo_next->redo_prev = f->redo_prev;
	d->redo_bytes -= f->redo_bytes;
	f->redo_bytes = f->redo_rows = 0;
	in->redo = false;
	in->pin--;
	st->redo_cnt--;
}

int redo_drop_locked(struct store *st, struct inode *in)
{
	int err = run_ino(st, store_stmt(st, "DELETE FROM redo WHERE ino = ?"), in->ino);

	if (!err)
		redo_release_locked(st, in);
	return err;
}

int redo_synced_locked(struct store *st, struct inode *in, uint64_t gen, uint64_t seq)
{
	struct datafile *f = in->file;

	if (f->fresh_cnt && f->fresh_gen <= gen)
		fresh_clear(st, f);
	if (!in->redo)
		return 0;
	/* Rows that were made while it went on stay, and so do all: they are in order. */
	if (f->redo_seq != seq)
		return 0;
	return redo_drop_locked(st, in);
}

static bool may_locked(const struct store *st, const struct inode *in)
{
	const struct datafile *f = in->file;

	return !st->failed && in->dirty && !in->gone && in->flags & INODE_LARGE && in->spans &&
	       in->unsynced && f && f->fresh_cnt && f->fresh_lost <= f->synced_gen &&
	       !f->created && !f->fsyncing && !f->sync_err && !st->opts.skip_sync &&
	       f->redo_bytes + f->fresh_len <= REDO_FILE &&
	       f->redo_rows + f->fresh_cnt <= REDO_FILE_ROWS &&
	       st->data->redo_bytes + f->fresh_len <= REDO_ALL;
}

static int put_rows_locked(struct store *st, struct inode *in)
{
	struct datafile *f = in->file;
	const uint8_t *p = f->fresh;
	int err = 0;

	for (unsigned i = 0; i < f->fresh_cnt && !err; i++) {
		sqlite3_stmt *s = store_stmt(st, "INSERT INTO redo(ino, seq, off, bytes) "
						 "VALUES(?, ?, ?, ?)");
		if (!s)
			return -EIO;
		sqlite3_bind_int64(s, 1, (sqlite3_int64)in->ino);
		sqlite3_bind_int64(s, 2, (sqlite3_int64)++st->data->redo_seq);
		sqlite3_bind_int64(s, 3, (sqlite3_int64)f->piece[i].off);
		sqlite3_bind_blob64(s, 4, p, f->piece[i].len, SQLITE_STATIC);
		err = store_run(st, s);
		p += f->piece[i].len;
	}
	return err;
}

int redo_sync(struct store *st, struct inode *in)
{
	pthread_mutex_lock(&st->meta);
	bool may = may_locked(st, in);
	uint64_t bytes = may ? in->file->fresh_len : 0;
	pthread_mutex_unlock(&st->meta);
	/* Without room for rows: the bytes themselves have their room already. */
	if (!may || store_space_rows(st, bytes))
		return 0;
	pthread_mutex_lock(&st->meta);
	struct datafile *f = in->file;
	int err = 0;
	/* More than there was room for: written meanwhile. */
	may = may_locked(st, in) && f->fresh_len <= bytes;
	if (may)
		err = put_rows_locked(st, in);
	if (may && !err) {
		if (!in->redo) {
			in->redo = true;
			in->pin++;
			st->redo_cnt++;
			list_add(st->data, f);
			f->redo_ms = now_ms();
		}
		f->redo_seq = st->data->redo_seq;
		f->redo_rows += f->fresh_cnt;
		f->redo_bytes += f->fresh_len;
		st->data->redo_bytes += f->fresh_len;
		fresh_clear(st, f);
		in->unsynced = false;
		err = store_flush_inode_locked(st, in);
	}
	pthread_mutex_unlock(&st->meta);
	return err ? err : may;
}

/* --- in the background --- */

static bool due(const struct datafile *f, int64_t now)
{
	return now - f->in->written_ms >= REDO_IDLE_MS || now - f->redo_ms >= REDO_MAX_MS;
}

int data_redo_settle(struct store *st, bool all)
{
	struct buf list = {0};
	int64_t now = now_ms();
	int err = 0;

	pthread_mutex_lock(&st->meta);
	for (struct datafile *f = st->redo_cnt ? st->data->redo_head : NULL; f;
	     f = f->redo_next) {
		size_t before = list.len;

		if (!all && !due(f, now))
			continue;
		buf_put(&list, &f->in, sizeof f->in);
		if (list.len > before)
			f->in->pin++;
	}
	pthread_mutex_unlock(&st->meta);
	for (size_t i = 0; i < list.len; i += sizeof(struct inode *)) {
		struct inode *in;

		memcpy(&in, list.p + i, sizeof in);
		int e = err ? 0 : data_fsync_file(st, in);
		pthread_mutex_lock(&st->meta);
		if (e) {
			err = e;
			data_sync_failed_locked(st, in);
		}
		inode_put_locked(st, in);
		pthread_mutex_unlock(&st->meta);
	}
	if (!err)
		err = list.err;
	buf_release(&list);
	return err;
}

/* --- after a crash --- */

/* The rows of one inode into its cache file, and that to the disk. */
static int replay_file(struct store *st, uint64_t ino, int fd)
{
	sqlite3_stmt *s =
		store_stmt(st, "SELECT off, bytes FROM redo WHERE ino = ? ORDER BY seq");
	int err = 0, got = 0;

	if (!s)
		return -EIO;
	sqlite3_bind_int64(s, 1, (sqlite3_int64)ino);
	while (!err && (got = store_step(st, s)) == 1) {
		uint64_t off = (uint64_t)sqlite3_column_int64(s, 0);
		const void *p = sqlite3_column_blob(s, 1);
		size_t len = (size_t)sqlite3_column_bytes(s, 1);

		if (!p || !len || off > DATA_MAX || len > DATA_MAX - off)
			err = store_fail_locked(st, -EIO, "a row of `redo` is damaged");
		else
			err = cfile_write(fd, p, len, off, NULL);
	}
	sqlite3_reset(s);
	if (!err && got < 0)
		err = got;
	if (!err && fdatasync(fd) < 0)
		err = -errno;
	return err;
}

static int replay(struct store *st, uint64_t ino)
{
	char name[48];
	int err = 0;

	sqlite3_stmt *s = store_stmt(st, "SELECT 1 FROM inode WHERE ino = ? AND flags & 1");
	if (!s)
		return -EIO;
	sqlite3_bind_int64(s, 1, (sqlite3_int64)ino);
	int got = store_step(st, s);
	sqlite3_reset(s);
	if (got < 0)
		return got;
	if (got && !st->opts.skip_redo) {
		cfile_name(ino, CF_MAIN, name);
		int fd = openat(st->data->dir_fd, name, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
		err = fd < 0 ? -errno : replay_file(st, ino, fd);
		if (fd >= 0)
			close(fd);
		if (err == -ENOENT) {
			/* Without the rest of it the file cannot be read anyway. */
			log_warn("%s/data/%s is gone: what was not published of inode %llx "
				 "is lost",
				 st->dir, name, (unsigned long long)ino);
			err = 0;
		}
		if (err)
			return log_fail(err, "writing %s/data/%s after a crash: %s", st->dir,
					name, strerror(-err));
	}
	return run_ino(st, store_stmt(st, "DELETE FROM redo WHERE ino = ?"), ino);
}

int redo_replay_locked(struct store *st)
{
	for (;;) {
		sqlite3_stmt *s = store_stmt(st, "SELECT ino FROM redo LIMIT 1");
		uint64_t ino = 0;

		if (!s)
			return -EIO;
		int got = store_step(st, s);
		if (got == 1)
			ino = (uint64_t)sqlite3_column_int64(s, 0);
		sqlite3_reset(s);
		if (got != 1)
			return got;
		int err = replay(st, ino);
		if (err)
			return err;
	}
}
