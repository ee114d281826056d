/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "cache/store.h"

#include <fcntl.h>
#include <sodium.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include "cache/data.h"
#include "cache/db.h"
#include "cache/meta.h"
#include "cache/quota.h"
#include "net/cond.h"
#include "net/record.h"

#define COMMIT_MS      1000
#define BOOT_ID	       36
#define NUMBER_BLOCK   65536
#define NUMBERS_LEFT   4096 /* more than all who are between store_pressure and a draw take */
#define RESERVE_MAX    ((uint64_t)128 << 20)
#define RESERVE_MIN    ((uint64_t)16 << 20) /* unless it were more than a sixth */
#define SPACE_FRESH_MS 200
#define SETTLE_MS      50

/* --- failure --- */

int store_fail_locked(struct store *st, int err, const char *what)
{
	if (st->failed)
		return err;
	st->failed = err;
	snprintf(st->fail_msg, sizeof st->fail_msg, "%s", what);
	pthread_cond_broadcast(&st->commit_cond);
	return log_fail(err, "%s: no more changes are taken until the next mount: %s", st->dir,
			what);
}

int store_writable_locked(const struct store *st)
{
	return st->failed ? -EROFS : 0;
}

/* --- numbers --- */

/*
 * A number is given out only below a bound that is committed, so that none is given out
 * twice when a crash loses the transaction.  The bound moves long before it is reached.
 */
static uint64_t new_number(struct store *st, const char *key, uint64_t *next, uint64_t *safe,
			   uint64_t *reserved)
{
	if (*next >= (uint64_t)1 << DEVICE_SHIFT) {
		store_fail_locked(st, -ENOSPC, "all inode numbers of this device are used");
		return 0;
	}
	if (*next + NUMBER_BLOCK / 2 >= *reserved) {
		if (store_put_u64(st, key, *next + NUMBER_BLOCK))
			return 0;
		*reserved = *next + NUMBER_BLOCK;
	}
	if (*next >= *safe &&
	    (store_flush_locked(st, false) || db_commit_locked(st, DB_CKPT_NONE)))
		return 0;
	return (uint64_t)st->device << DEVICE_SHIFT | (*next)++;
}

static bool low(uint64_t next, uint64_t safe, uint64_t reserved)
{
	return reserved > safe && next + NUMBERS_LEFT > safe;
}

bool store_numbers_low_locked(const struct store *st)
{
	return low(st->next_ino, st->ino_safe, st->ino_reserved) ||
	       low(st->next_lid, st->lid_safe, st->lid_reserved);
}

uint64_t store_new_ino_locked(struct store *st)
{
	return new_number(st, "next_ino", &st->next_ino, &st->ino_safe, &st->ino_reserved);
}

uint64_t store_new_lid_locked(struct store *st)
{
	return new_number(st, "next_lid", &st->next_lid, &st->lid_safe, &st->lid_reserved);
}

int store_set_device(struct store *st, uint16_t device)
{
	/* Device 0's first number is the root's. */
	int err = device ? store_put_u64(st, "device", device) : -EINVAL;

	if (!err)
		err = store_put_u64(st, "next_ino", 1);
	if (!err)
		err = store_put_u64(st, "next_lid", 1);
	if (err)
		return err;
	st->device = device;
	st->next_ino = st->next_lid = 1;
	st->ino_safe = st->lid_safe = st->ino_reserved = st->lid_reserved = 0;
	return 0;
}

int store_init_root(struct store *st, uint32_t uid, uint32_t gid, uint32_t mode)
{
	struct inode *in;

	pthread_mutex_lock(&st->meta);
	int err = inode_get_locked(st, INO_ROOT, &in);
	if (err == -ENOENT) {
		err = 0;
		in = inode_new_locked(st, INO_ROOT);
		if (!in) {
			err = -ENOMEM;
		} else {
			in->mode = S_IFDIR | (mode & 07777);
			in->uid = uid;
			in->gid = gid;
			in->nlink = 2;
			in->parent = INO_ROOT;
			in->born = st->epoch;
			in->atime_ns = in->mtime_ns = in->ctime_ns = in->btime_ns =
				realtime_ns();
			st->files++;
			inode_mark_locked(
				st, in, REC_CH_NEW | REC_CH_MODE | REC_CH_OWNER | REC_CH_TIMES);
		}
	}
	if (!err)
		inode_put_locked(st, in);
	pthread_mutex_unlock(&st->meta);
	return err;
}

/* --- open and close --- */

static int number_or(struct store *st, const char *k, uint64_t absent, uint64_t *v)
{
	int err = store_get_u64(st, k, v);

	if (err != -ENOENT)
		return err;
	*v = absent;
	return 0;
}

/* Which run of the kernel this is; false where it does not say. */
static bool boot_id(char id[BOOT_ID])
{
	int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, id, BOOT_ID);

	if (fd >= 0)
		close(fd);
	return n == BOOT_ID;
}

/* The kernel has run on since the store was opened: all is there as it was written. */
static bool ran_on(struct store *st)
{
	struct buf was = {0};
	char id[BOOT_ID];
	bool same = !st->opts.power_cut && boot_id(id) &&
		    !store_get_blob(st, "boot", &was) && was.len == sizeof id &&
		    !memcmp(was.p, id, sizeof id);

	buf_release(&was);
	return same;
}

/* Before anything is written: was the last stop a clean one, is the database whole? */
static int open_check(struct store *st, bool fresh)
{
	uint64_t clean = 0;
	int err = number_or(st, "clean", 0, &clean);

	st->unclean = !clean && !fresh;
	if (err || !st->unclean)
		return err;
	if (ran_on(st)) {
		log_info("%s was not closed cleanly", st->dir);
		return 0;
	}
	log_info("%s was not closed before the system stopped: checking the database", st->dir);
	return db_quick_check(st);
}

/* Settings a store needs from the first moment on. */
static int open_settings(struct store *st)
{
	struct buf key = {0};
	uint64_t device = 1;
	int err = number_or(st, "device", 1, &device);

	st->device = (uint16_t)device;
	if (!err)
		err = number_or(st, "epoch", 1, &st->epoch);
	if (!err)
		err = number_or(st, "published", 0, &st->published);
	if (!err)
		err = number_or(st, "next_ino", 1, &st->next_ino);
	if (!err)
		err = number_or(st, "next_lid", 1, &st->next_lid);
	if (err)
		return err;
	err = store_get_blob(st, "name_key", &key);
	if (!err && key.len == sizeof st->name_key) {
		memcpy(st->name_key, key.p, sizeof st->name_key);
	} else if (err == -ENOENT) {
		randombytes_buf(st->name_key, sizeof st->name_key);
		err = store_put_blob(st, "name_key", st->name_key, sizeof st->name_key);
	} else if (!err) {
		err = log_fail(-EBADMSG, "%s/meta.db: the key of the names is damaged",
			       st->dir);
	}
	buf_release(&key);
	/* What was reserved before counts as used. */
	st->ino_reserved = st->next_ino + NUMBER_BLOCK;
	st->lid_reserved = st->next_lid + NUMBER_BLOCK;
	if (!err)
		err = store_put_u64(st, "next_ino", st->ino_reserved);
	if (!err)
		err = store_put_u64(st, "next_lid", st->lid_reserved);
	if (!err)
		err = store_put_u64(st, "clean", 0);
	char id[BOOT_ID];
	if (!err)
		err = store_put_blob(st, "boot", id, boot_id(id) ? sizeof id : 0);
	return err ? err : db_commit_locked(st, DB_CKPT_NONE);
}

static int count_rows(struct store *st, sqlite3_stmt *s, uint64_t *n)
{
	if (!s)
		return -EIO;
	int err = store_step(st, s);
	if (err > 0)
		*n = (uint64_t)sqlite3_column_int64(s, 0);
	sqlite3_reset(s);
	return err < 0 ? err : 0;
}

static int count_files(struct store *st)
{
	sqlite3_stmt *s = store_stmt(st, "SELECT min(ctime) FROM inode WHERE chg>?1");
	uint64_t since = 0;

	if (!s)
		return -EIO;
	sqlite3_bind_int64(s, 1, (int64_t)st->published);
	int err = count_rows(st, s, &since);
	if (!err && since) {
		st->since[0] = (struct store_since){st->epoch, (int64_t)since};
		st->since_cnt = 1;
	}
	/* Counting reads an index as large as the drive has files: a clean stop wrote it down. */
	if (!err && (st->unclean || store_get_u64(st, "files", &st->files)))
		err = count_rows(st, store_stmt(st, "SELECT count(*) FROM inode"), &st->files);
	return err;
}

/* Inodes whose last name went while somebody had them open. */
static int reap_orphans(struct store *st)
{
	sqlite3_stmt *s;
	int err;

	while ((s = store_stmt(st, "SELECT ino FROM inode WHERE nlink=0 LIMIT 1")) &&
	       (err = store_step(st, s)) > 0) {
		uint64_t ino = (uint64_t)sqlite3_column_int64(s, 0);
		struct inode *in;

		sqlite3_reset(s);
		err = inode_get_locked(st, ino, &in);
		if (err)
			return err;
		in->reap = true;
		inode_put_locked(st, in);
		if (st->failed)
			return -EIO;
	}
	return s ? err : -EIO;
}

static int lock_dir(struct store *st)
{
	char pid[32];

	int err = mkdir_all(st->dir, 0700);
	if (err)
		return log_fail(err, "%s: %s", st->dir, strerror(-err));
	st->dir_fd = open(st->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (st->dir_fd < 0)
		return log_fail(-errno, "%s: %s", st->dir, strerror(errno));
	st->lock_fd =
		openat(st->dir_fd, "lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (st->lock_fd < 0)
		return log_fail(-errno, "%s/lock: %s", st->dir, strerror(errno));
	if (flock(st->lock_fd, LOCK_EX | LOCK_NB) < 0) {
		if (errno != EWOULDBLOCK)
			return log_fail(-errno, "%s/lock: %s", st->dir, strerror(errno));
		ssize_t n = pread(st->lock_fd, pid, sizeof pid - 1, 0);
		pid[n > 0 ? n : 0] = 0;
		return log_fail(-EBUSY, "%s is in use by process %.*s", st->dir,
				(int)strcspn(pid, "\n"), n > 0 ? pid : "(unknown)");
	}
	int len = snprintf(pid, sizeof pid, "%ld\n", (long)getpid());
	if (ftruncate(st->lock_fd, 0) < 0 || pwrite(st->lock_fd, pid, (size_t)len, 0) < 0)
		log_debug("%s/lock: %s", st->dir, strerror(errno));
	return 0;
}

/* A new directory's own name, as far as we may. */
static int name_sync(struct store *st)
{
	int fd = openat(st->dir_fd, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC), err = 0;

	if (fd < 0)
		return errno == EACCES ? 0 : -errno;
	if (fsync(fd) < 0)
		err = log_fail(-errno, "%s: %s", st->dir, strerror(errno));
	close(fd);
	return err;
}

static int space_open(struct store *st)
{
	struct statvfs v;

	if (fstatvfs(st->dir_fd, &v) < 0)
		return log_fail(-errno, "%s: %s", st->dir, strerror(errno));
	/* It must hold the WAL, the page cache of the database and what is not flushed. */
	uint64_t size = (uint64_t)v.f_blocks * v.f_frsize;
	st->space_reserve = HF_MAX(HF_MIN(size / 16, RESERVE_MAX), HF_MIN(size / 6, RESERVE_MIN));
	return 0;
}

static int locks_init(struct store *st)
{
	if (pthread_mutex_init(&st->meta, NULL))
		return -ENOMEM;
	if (pthread_mutex_init(&st->space, NULL))
		goto meta;
	if (cond_init(&st->commit_cond))
		goto space;
	if (!cond_init(&st->thread_cond))
		return 0;
	pthread_cond_destroy(&st->commit_cond);
space:
	pthread_mutex_destroy(&st->space);
meta:
	pthread_mutex_destroy(&st->meta);
	return -ENOMEM;
}

/* After the database and everything above it are closed. */
static void store_free(struct store *st)
{
	if (st->lock_fd >= 0)
		close(st->lock_fd);
	if (st->dir_fd >= 0)
		close(st->dir_fd);
	pthread_cond_destroy(&st->commit_cond);
	pthread_cond_destroy(&st->thread_cond);
	pthread_mutex_destroy(&st->space);
	pthread_mutex_destroy(&st->meta);
	sodium_memzero(st->name_key, sizeof st->name_key);
	free(st->dir);
	free(st);
}

int store_open(struct store **out, const struct store_opts *o)
{
	struct store *st = calloc(1, sizeof *st);
	bool fresh = false, data = false;

	if (!st)
		return -ENOMEM;
	st->dir = strdup(o->dir);
	if (!st->dir || locks_init(st)) {
		free(st->dir);
		free(st);
		return -ENOMEM;
	}
	st->dir_fd = st->lock_fd = -1;
	st->opts = *o;
	st->opts.dir = st->dir;
	if (!st->opts.commit_ms)
		st->opts.commit_ms = COMMIT_MS;
	st->hash_mask = UINT64_MAX;
	int err = lock_dir(st);
	if (!err)
		err = space_open(st);
	pthread_mutex_lock(&st->meta);
	if (!err)
		err = db_open(st, &fresh);
	if (!err && fresh)
		err = name_sync(st);
	if (!err)
		err = open_check(st, fresh);
	if (!err)
		err = open_settings(st);
	if (!err)
		err = inode_cache_new(st);
	if (!err)
		err = count_files(st);
	pthread_mutex_unlock(&st->meta);
	if (!err) {
		err = data_open(st);
		data = !err;
	}
	pthread_mutex_lock(&st->meta);
	if (!err)
		err = reap_orphans(st);
	if (!err)
		err = quota_open_locked(st);
	if (!err)
		err = db_commit_locked(st, DB_CKPT_NONE);
	if (err) {
		int code = st->db ? sqlite3_errcode(st->db) & 0xff : 0;
		if (st->failed && (code == SQLITE_CORRUPT || code == SQLITE_NOTADB))
			err = -EBADMSG;
		else if (st->failed && code == SQLITE_FULL)
			err = -ENOSPC;
		inode_cache_free(st);
		pthread_mutex_unlock(&st->meta);
		if (data)
			data_close(st);
		pthread_mutex_lock(&st->meta);
		db_close(st);
		pthread_mutex_unlock(&st->meta);
		store_free(st);
		return err;
	}
	pthread_mutex_unlock(&st->meta);
	*out = st;
	return 0;
}

int store_start(struct store *st)
{
	int rc = pthread_create(&st->commit_thread, NULL, commit_main, st);

	if (rc)
		return log_fail(-rc, "starting the commit thread: %s", strerror(rc));
	pthread_mutex_lock(&st->meta);
	st->running = true;
	pthread_mutex_unlock(&st->meta);
	return 0;
}

int store_close(struct store *st)
{
	if (!st)
		return 0;
	pthread_mutex_lock(&st->meta);
	bool running = st->running;
	st->stopping = true;
	st->running = false;
	pthread_cond_signal(&st->thread_cond);
	pthread_mutex_unlock(&st->meta);
	if (running)
		pthread_join(st->commit_thread, NULL);
	int err = store_commit_all(st);
	pthread_mutex_lock(&st->meta);
	/* Contents are here and committed; a cache file is opened no more. */
	inode_cache_free(st);
	pthread_mutex_unlock(&st->meta);
	data_close(st);
	pthread_mutex_lock(&st->meta);
	if (!st->failed && !err)
		err = store_put_u64(st, "next_ino", st->next_ino);
	if (!st->failed && !err)
		err = store_put_u64(st, "next_lid", st->next_lid);
	if (!st->failed && !err)
		err = store_put_u64(st, "files", st->files);
	if (!st->failed && !err)
		err = store_put_u64(st, "clean", 1);
	if (!st->failed && !err)
		err = db_commit_locked(st, DB_CKPT_TRUNCATE);
	if (st->failed)
		err = -EIO;
	db_close(st);
	pthread_mutex_unlock(&st->meta);
	store_free(st);
	return err;
}

/* --- space and figures --- */

void store_space_committed(struct store *st, uint64_t grow, uint64_t unused)
{
	pthread_mutex_lock(&st->space);
	st->space_rows = 0;
	st->row_bytes = 0;
	st->space_grow = grow;
	st->space_free = unused;
	st->space_ms = 0;
	pthread_mutex_unlock(&st->space);
}

/*
 * What has been accepted, and `more`, will take space: rows in the WAL, of which a part of the
 * reserve is kept for them, and then in the database, unless it has unused pages.
 */
static uint64_t space_promised(const struct store *st, uint64_t more)
{
	uint64_t rows = st->small_bytes + st->row_bytes + st->space_rows + more;

	return rows - HF_MIN(rows, st->space_reserve / 4) +
	       (rows - HF_MIN(rows, st->space_free)) + st->space_grow;
}

static int space_try(struct store *st, uint64_t bytes, bool rows)
{
	int64_t now = now_ms();
	bool large = bytes > SMALL_MAX; /* else it may be a small file's */
	int err = 0;

	pthread_mutex_lock(&st->space);
	uint64_t promised = space_promised(st, large ? 0 : bytes);
	uint64_t weight = large ? bytes : 0;
	bool fresh = st->space_ms && now - st->space_ms < SPACE_FRESH_MS;
	if (!fresh || st->space_taken + promised + weight > st->space_margin / 8) {
		struct statvfs v;
		if (fstatvfs(st->dir_fd, &v) < 0) {
			err = -errno;
		} else {
			uint64_t avail = (uint64_t)v.f_bavail * v.f_frsize;
			st->space_margin =
				avail > st->space_reserve ? avail - st->space_reserve : 0;
			st->space_taken = 0;
			st->space_ms = now;
			st->space_short = st->space_margin < 4 * st->space_reserve;
		}
	}
	uint64_t taken = st->space_taken + promised;
	if (!err && (taken > st->space_margin || weight > st->space_margin - taken))
		err = -ENOSPC;
	if (!err && rows)
		st->space_rows += bytes;
	else if (!err)
		st->space_taken += bytes;
	pthread_mutex_unlock(&st->space);
	return err;
}

static int space_for(struct store *st, uint64_t bytes, bool rows)
{
	int err = space_try(st, bytes, rows);

	if (err != -ENOSPC)
		return err;
	/* Promises are counted with care: when they are kept there may be room. */
	pthread_mutex_lock(&st->space);
	int64_t now = now_ms();
	bool worth = now - st->space_settled_ms >= SETTLE_MS;
	if (worth)
		st->space_settled_ms = now;
	pthread_mutex_unlock(&st->space);
	return worth && !store_settle(st) ? space_try(st, bytes, rows) : err;
}

int store_space_for(struct store *st, uint64_t bytes)
{
	return space_for(st, bytes, false);
}

int store_space_rows(struct store *st, uint64_t bytes)
{
	return space_for(st, bytes, true);
}

int store_figures(struct store *st, struct store_figures *out)
{
	*out = (struct store_figures){0};
	pthread_mutex_lock(&st->meta);
	int err = st->failed ? 0 : store_flush_locked(st, false);
	sqlite3_stmt *s =
		err ? NULL : store_stmt(st, "SELECT count(*) FROM inode WHERE chg>?1");
	if (s) {
		sqlite3_bind_int64(s, 1, (int64_t)st->published);
		err = count_rows(st, s, &out->unpublished_files);
	} else {
		err = -EIO;
	}
	out->unpublished_bytes = st->unpublished_bytes;
	out->cached_bytes = st->cached_bytes;
	out->files = st->files;
	for (unsigned i = 0; i < st->since_cnt && !out->oldest_ns; i++)
		if (st->since[i].epoch > st->published)
			out->oldest_ns = st->since[i].ns;
	pthread_mutex_unlock(&st->meta);
	return err;
}
