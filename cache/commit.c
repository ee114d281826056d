/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What becomes durable when: rows are flushed into the open transaction, cache files are
 * synced before the rows that name their bytes, callers share COMMITs.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
#include "cache/data.h"
#include "cache/db.h"
#include "cache/meta.h"
#include "net/cond.h"

#define SYNC_ROUNDS    3
#define SYNC_FEW       16 /* synced at a time where memory for a list is short */
#define QUIET_MS	100 /* without a write: a WAL of more than so many pages is emptied */
#define QUIET_WAL_PAGES 256
#define FLUSH_SMALL    ((uint64_t)4 << 20)
#define FLUSH_INODES   4096
#define WRITE_COST     4096 /* of the WAL, for a statement */

/* --- flush --- */

static bool unsynced(const struct store *st, const struct inode *in)
{
	return in->flags & INODE_LARGE && (in->unsynced || in->syncing) && !st->opts.skip_sync;
}

int store_flush_inode_locked(struct store *st, struct inode *in)
{
	int err = 0;

	if (st->failed)
		return -EIO;
	if (!in->dirty || in->gone)
		return 0;
	if (S_ISREG(in->mode))
		err = data_flush_inode_locked(st, in);
	if (!err)
		err = inode_write_locked(st, in, true);
	if (err)
		return store_fail_locked(st, err, "writing an inode");
	in->sync_soon = false;
	in->withheld_ms = 0;
	inode_clean_locked(st, in);
	return 0;
}

int store_flush_locked(struct store *st, bool all)
{
	size_t left = 0;
	int err = 0;

	if (st->failed)
		return -EIO;
	for (struct inode *in = st->dirty_head, *next; in && !err; in = next) {
		/* The next one is dirty, hence pinned: it outlives this one's last put. */
		next = in->dirty_next;
		if (all || !unsynced(st, in)) {
			err = store_flush_inode_locked(st, in);
			continue;
		}
		left++;
		if (!in->withheld_ms)
			in->withheld_ms = now_ms();
		err = inode_write_locked(st, in, false);
		if (err)
			store_fail_locked(st, err, "writing an inode");
	}
	st->dirty_left = left;
	return err;
}

/* --- syncing of larger files --- */

/* One fdatasync and, unless a write came between, the row.  1: a write came between. */
static int sync_once(struct store *st, struct inode *in)
{
	int err = 0;

	pthread_mutex_lock(&st->meta);
	if (!in->dirty || in->gone || !unsynced(st, in)) {
		err = store_flush_inode_locked(st, in);
		pthread_mutex_unlock(&st->meta);
		return err;
	}
	if (st->failed) {
		pthread_mutex_unlock(&st->meta);
		return -EIO;
	}
	in->sync_gen += in->unsynced;
	in->unsynced = false;
	in->syncing++;
	unsigned gen = in->sync_gen;
	pthread_mutex_unlock(&st->meta);
	err = data_fsync_file(st, in);
	pthread_mutex_lock(&st->meta);
	in->syncing--;
	if (err) {
		/* The kernel may have dropped the pages: a second fdatasync would lie. */
		in->unsynced = true;
		data_sync_failed_locked(st, in);
	} else if (in->unsynced || in->sync_gen != gen) {
		/* Written since; a later fdatasync that covers it may still be under way. */
		err = 1;
	} else {
		err = store_flush_inode_locked(st, in);
	}
	pthread_mutex_unlock(&st->meta);
	return err;
}

int store_sync_inode(struct store *st, struct inode *in, bool wait)
{
	int err = 1;

	/* Without the lock first: the long part then delays nobody. */
	for (int i = 0; i < SYNC_ROUNDS && err > 0; i++)
		err = sync_once(st, in);
	if (err <= 0)
		return err;
	err = wait ? iolock_write(&in->io) : iolock_try_write(&in->io) ? 0 : -EAGAIN;
	if (err)
		return err;
	do {
		err = sync_once(st, in);
	} while (wait && err > 0);
	iolock_unlock(&in->io);
	return err > 0 ? -EAGAIN : err;
}

static bool must_sync(const struct store *st, const struct inode *in, enum store_sync which,
		      int64_t now)
{
	if (!unsynced(st, in))
		return false;
	if (which == SYNC_ALL || in->sync_soon)
		return true;
	if (which == SYNC_SOON)
		return false;
	return now - in->written_ms >= 1000 ||
	       (in->withheld_ms && now - in->withheld_ms >= WITHHELD_MAX_MS);
}

static struct inode *nth(struct inode *const few[SYNC_FEW], const struct buf *list, size_t i)
{
	struct inode *in;

	if (i < SYNC_FEW)
		return few[i];
	memcpy(&in, list->p + (i - SYNC_FEW) * sizeof in, sizeof in);
	return in;
}

int store_sync(struct store *st, enum store_sync which)
{
	struct buf list = {0};
	struct inode *few[SYNC_FEW];
	size_t cnt = 0;
	int64_t now = now_ms();
	bool all = true;
	int err = 0;

	pthread_mutex_lock(&st->meta);
	for (struct inode *in = st->dirty_head; in && all; in = in->dirty_next) {
		if (!must_sync(st, in, which, now))
			continue;
		if (cnt < SYNC_FEW)
			few[cnt] = in;
		else
			buf_put(&list, &in, sizeof in);
		all = !list.err;
		cnt += all;
		in->pin += all;
	}
	pthread_mutex_unlock(&st->meta);
	/* The first fdatasync then writes the file system's journal for all. */
	for (size_t i = 0; i < cnt && cnt > 1; i++)
		data_write_back(st, nth(few, &list, i));
	for (size_t i = 0; i < cnt; i++) {
		struct inode *in = nth(few, &list, i);
		int e = err ? 0 : store_sync_inode(st, in, which == SYNC_ALL);
		if (e && e != -EAGAIN)
			err = e;
		inode_put(st, in);
	}
	buf_release(&list);
	if (!err && which != SYNC_SOON)
		err = data_redo_settle(st, which == SYNC_ALL);
	return err ? err : all ? 0 : -ENOMEM;
}

/* --- group commit --- */

static bool any_soon(const struct store *st)
{
	for (const struct inode *in = st->dirty_head; in; in = in->dirty_next)
		if (must_sync(st, in, SYNC_SOON, 0))
			return true;
	return false;
}

/*
 * Contents follow their new names to the disk: those are in the transaction already.  Where
 * more is renamed and written meanwhile than can be synced, that waits in the last rounds:
 * there is more than one where memory is too short to list all at once.
 */
static void sync_renamed(struct store *st)
{
	int err = 0;

	for (int i = 1; !err && !st->failed && any_soon(st); i++) {
		st->sealed = i >= SYNC_ROUNDS;
		pthread_mutex_unlock(&st->meta);
		err = store_sync(st, SYNC_SOON);
		if (err == -ENOMEM)
			err = 0;
		pthread_mutex_lock(&st->meta);
	}
	/* Nobody goes on before meta is given back, and that is after the COMMIT. */
	st->sealed = false;
	if (err)
		store_fail_locked(st, err, "syncing what was renamed");
}

bool store_seal_locked(struct store *st, const struct inode *in, bool name)
{
	bool waited = false;

	while (st->sealed && !st->failed && (name ? unsynced(st, in) : in->sync_soon)) {
		pthread_cond_wait(&st->commit_cond, &st->meta);
		waited = true;
	}
	return waited;
}

static void commit_lead(struct store *st, enum db_checkpoint ckpt)
{
	sync_renamed(st);
	/* From here to the COMMIT meta is held: all who drew a ticket by now are covered. */
	uint64_t target = st->commit_seq;
	if (store_flush_locked(st, false))
		return;
	if (st->txn_dirty && db_commit_locked(st, ckpt))
		return;
	st->commit_done = target;
}

static int commit_group(struct store *st, uint64_t ticket, enum db_checkpoint ckpt)
{
	while (st->commit_done < ticket && !st->failed) {
		if (st->committing) {
			pthread_cond_wait(&st->commit_cond, &st->meta);
			continue;
		}
		st->committing = true;
		commit_lead(st, ckpt);
		st->committing = false;
		pthread_cond_broadcast(&st->commit_cond);
	}
	return st->failed ? -EIO : 0;
}

static bool wal_large(const struct store *st, int factor)
{
	return st->dbx->wal_pages > st->dbx->wal_limit * factor;
}

static bool wal_long(const struct store *st)
{
	return st->dbx->wal_pages > QUIET_WAL_PAGES;
}

int store_commit(struct store *st)
{
	uint64_t ticket = atomic_fetch_add(&st->commit_seq, 1) + 1;

	pthread_mutex_lock(&st->meta);
	/* The checkpoint is the commit thread's, unless there is none or it cannot follow. */
	bool own = wal_large(st, st->running && !st->space_short ? 4 : 1), was = wal_long(st);
	int err = commit_group(st, ticket, own ? DB_CKPT_PASSIVE : DB_CKPT_NONE);
	if (wal_large(st, 1) || (!was && wal_long(st)))
		pthread_cond_signal(&st->thread_cond);
	pthread_mutex_unlock(&st->meta);
	return err;
}

void store_pressure_locked(struct store *st)
{
	if (st->small_bytes > FLUSH_SMALL || st->dirty_cnt > st->dirty_left + FLUSH_INODES)
		store_flush_locked(st, false);
	/*
	 * Near the end of the disk a transaction must fit into the reserve, whatever it does.
	 * And who draws the last number commits without what was renamed.
	 */
	if ((st->space_short && st->dbx->writes > st->space_reserve / WRITE_COST / 4) ||
	    store_numbers_low_locked(st))
		commit_group(st, atomic_fetch_add(&st->commit_seq, 1) + 1, DB_CKPT_PASSIVE);
}

void store_pressure(struct store *st)
{
	pthread_mutex_lock(&st->meta);
	store_pressure_locked(st);
	pthread_mutex_unlock(&st->meta);
}

int store_commit_all(struct store *st)
{
	int err = store_sync(st, SYNC_ALL);
	int err2 = store_commit(st);

	return err ? err : err2;
}

int store_settle(struct store *st)
{
	uint64_t ticket = atomic_fetch_add(&st->commit_seq, 1) + 1;

	pthread_mutex_lock(&st->meta);
	/* Also when there is nothing new: the WAL gives back what it took. */
	st->txn_dirty = true;
	int err = commit_group(st, ticket, DB_CKPT_TRUNCATE);
	pthread_mutex_unlock(&st->meta);
	return err;
}

void store_commit_soon(struct store *st)
{
	pthread_mutex_lock(&st->meta);
	st->commit_now = true;
	pthread_cond_signal(&st->thread_cond);
	pthread_mutex_unlock(&st->meta);
}

static bool commit_wanted(const struct store *st)
{
	return !st->failed && (st->txn_dirty || st->dirty_cnt || st->redo_cnt);
}

/* Nothing is dirty: waits until something is; empties a WAL that nobody uses meanwhile. */
static void commit_idle(struct store *st)
{
	int64_t until = now_ms() + QUIET_MS;
	int rc = 0;

	st->commit_idle = true;
	if (st->failed || !wal_long(st))
		pthread_cond_wait(&st->thread_cond, &st->meta);
	else
		while (!rc && !st->stopping && !commit_wanted(st))
			rc = cond_until(&st->thread_cond, &st->meta, until);
	st->commit_idle = false;
	if (rc == ETIMEDOUT && !commit_wanted(st) && !st->committing && !st->failed)
		db_commit_locked(st, st->space_short ? DB_CKPT_TRUNCATE : DB_CKPT_PASSIVE);
}

/*
 * Waits until the next commit is due.  True when the WAL is long and nothing was written for a
 * moment: it is emptied now, rather than when somebody waits for an fsync.
 */
static bool commit_wait(struct store *st)
{
	int64_t until = now_ms() + st->opts.commit_ms;

	while (!st->stopping && !st->commit_now && commit_wanted(st) && !wal_large(st, 1)) {
		uint64_t seq = st->commit_seq, writes = st->dbx->writes;
		int64_t end = wal_long(st) ? HF_MIN(until, now_ms() + QUIET_MS) : until;

		if (!cond_until(&st->thread_cond, &st->meta, end))
			continue;
		if (end == until)
			return false;
		if (st->commit_seq == seq && st->dbx->writes == writes)
			return true;
	}
	return false;
}

/*
 * An fdatasync of a file that grows is two writes of the disk, not one: so the WAL is as long
 * from the start as it will get, but near the end of the disk.  By a descriptor of its own, so
 * that SQLite's sees every error.
 */
static void wal_ahead(struct store *st)
{
	bool more = true;

	if (store_space_for(st, 0) || st->space_short)
		return;
	while (more) {
		pthread_mutex_lock(&st->meta);
		more = !st->stopping && db_wal_extend_locked(st);
		pthread_mutex_unlock(&st->meta);
	}
	int fd = openat(st->dir_fd, "meta.db-wal", O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd >= 0) {
		(void)fdatasync(fd);
		close(fd);
	}
}

void *commit_main(void *arg)
{
	struct store *st = arg;

	pthread_setname_np(pthread_self(), "commit");
	if (st->opts.wal_ahead)
		wal_ahead(st);
	pthread_mutex_lock(&st->meta);
	while (!st->stopping) {
		if (!commit_wanted(st)) {
			st->commit_now = false;
			commit_idle(st);
			continue;
		}
		bool quiet = commit_wait(st);
		if (st->stopping || !commit_wanted(st))
			continue;
		st->commit_now = false;
		pthread_mutex_unlock(&st->meta);
		store_sync(st, SYNC_DUE);
		uint64_t ticket = atomic_fetch_add(&st->commit_seq, 1) + 1;
		pthread_mutex_lock(&st->meta);
		commit_group(st, ticket,
			     quiet || wal_large(st, 1) ? DB_CKPT_PASSIVE : DB_CKPT_NONE);
	}
	pthread_mutex_unlock(&st->meta);
	return NULL;
}
