/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>
#include "cache/datafile.h"

#define SYNC_EACH 64u /* files of the cache after a crash; then everything */

static int sum_smalls(struct store *st, struct account *a)
{
	sqlite3_stmt *s = store_stmt(st, "SELECT coalesce(sum(length(bytes)), 0) FROM small");
	if (!s)
		return -EIO;
	int got = store_step(st, s);
	if (got == 1)
		a->cached += (uint64_t)sqlite3_column_int64(s, 0);
	sqlite3_reset(s);
	if (got < 0)
		return got;
	s = store_stmt(st, "SELECT coalesce(sum(size), 0) FROM inode WHERE chg > ? "
			   "AND (flags & 5) = 4");
	if (!s)
		return -EIO;
	sqlite3_bind_int64(s, 1, (sqlite3_int64)st->published);
	got = store_step(st, s);
	if (got == 1)
		a->unpublished += (uint64_t)sqlite3_column_int64(s, 0);
	sqlite3_reset(s);
	return got < 0 ? got : 0;
}

/*
 * After a crash: what was written and not synced is shown and published all the same, so it
 * must not be lost by a later power cut (L5).  One file after the other; many of them at once.
 */
static int sync_left(struct store *st, uint64_t ino, unsigned cnt)
{
	char name[48];
	int err = 0;

	if (st->opts.skip_sync || cnt > SYNC_EACH)
		return 0;
	if (cnt == SYNC_EACH) {
		err = syncfs(st->data->dir_fd) < 0 ? -errno : 0;
		return err ? log_fail(err, "syncing %s/data after a crash: %s", st->dir,
				      strerror(-err))
			   : 0;
	}
	cfile_name(ino, CF_MAIN, name);
	int fd = openat(st->data->dir_fd, name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0 ? errno != ENOENT : fdatasync(fd) < 0)
		err = -errno;
	if (fd >= 0)
		close(fd);
	return err ? log_fail(err, "syncing %s/data/%s after a crash: %s", st->dir, name,
			      strerror(-err))
		   : 0;
}

static int sum_spans(struct store *st, struct account *a)
{
	sqlite3_stmt *s =
		store_stmt(st, "SELECT chunk, map, ino FROM span ORDER BY ino, chunk");
	uint64_t last = 0;
	unsigned cnt = 0;
	int err = 0, got = 0;

	if (!s)
		return -EIO;
	while (!err && (got = store_step(st, s)) == 1) {
		uint64_t ino = (uint64_t)sqlite3_column_int64(s, 2);
		struct ranges *r;

		err = ranges_new(&r);
		if (err)
			break;
		err = ranges_add(r, (uint64_t)sqlite3_column_int64(s, 0),
				 sqlite3_column_blob(s, 1), (size_t)sqlite3_column_bytes(s, 1));
		uint64_t dirty = ranges_total(r, RG_DIRTY);
		a->cached += ranges_total(r, RG_HAVE);
		a->unpublished += dirty;
		ranges_free(r);
		if (!err && st->unclean && dirty && ino != last) {
			last = ino;
			err = sync_left(st, ino, cnt++);
		}
	}
	sqlite3_reset(s);
	if (err == -EBADMSG)
		err = store_fail_locked(st, -EIO, "a row of `span` is damaged");
	return err ? err : got;
}

/* Clean bytes of a part that may have been overwritten are dirty from now on. */
static int intent_apply(struct store *st, struct inode *in, uint64_t part)
{
	uint64_t pos = part * INTENT_PART, end = pos + INTENT_PART, start, stop;
	unsigned flags;
	bool some = false;

	if (part >= DATA_MAX / INTENT_PART || !(in->flags & INODE_LARGE))
		return 0;
	int err = datafile_load_locked(st, in);
	while (!err && ranges_next(in->spans, pos, end, RG_HAVE, &start, &stop, &flags) == 1) {
		if (!(flags & RG_DIRTY)) {
			err = ranges_set(in->spans, start, stop - start, RG_DIRTY, 0);
			some = true;
		}
		pos = stop;
	}
	if (!err && some)
		inode_mark_locked(st, in, REC_CH_CONTENT);
	/* The row goes: clean bytes that come here later need one of their own. */
	if (!err)
		err = ranges_set(in->file->intended, part * INTENT_PART, INTENT_PART, 0,
				 RG_ALL);
	return err;
}

static int intents_apply(struct store *st)
{
	uint64_t ino = 0, part = 0;
	bool first = true;

	for (;;) {
		struct inode *in;
		sqlite3_stmt *s =
			store_stmt(st, "SELECT ino, part FROM intent WHERE (ino, part) > "
				       "(?, ?) OR ? ORDER BY ino, part LIMIT 1");
		if (!s)
			return -EIO;
		sqlite3_bind_int64(s, 1, (sqlite3_int64)ino);
		sqlite3_bind_int64(s, 2, (sqlite3_int64)part);
		sqlite3_bind_int(s, 3, first);
		int got = store_step(st, s);
		if (got == 1) {
			ino = (uint64_t)sqlite3_column_int64(s, 0);
			part = (uint64_t)sqlite3_column_int64(s, 1);
		}
		sqlite3_reset(s);
		if (got != 1)
			return got;
		first = false;
		int err = inode_get_locked(st, ino, &in);
		if (err == -ENOENT || err == -ESTALE)
			continue;
		if (err)
			return err;
		err = intent_apply(st, in, part);
		inode_put_locked(st, in);
		if (err)
			return err;
	}
}

/* Files of the cache that belong to no large inode, or to a cut that is no more. */
static int sweep_dir(struct store *st, int dfd, const char *sub)
{
	int fd = openat(dfd, sub, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *de;
	int err = 0;

	if (!dir) {
		err = -errno;
		if (fd >= 0)
			close(fd);
		return err == -ENOTDIR ? 0 : err;
	}
	while (!err && (de = readdir(dir))) {
		char *end;

		if (de->d_name[0] == '.')
			continue;
		uint64_t ino = strtoull(de->d_name, &end, 16);
		bool gone = *end == '.';
		if (!gone) {
			sqlite3_stmt *s = store_stmt(
				st, "SELECT 1 FROM inode WHERE ino = ? AND flags & 1");
			if (!s) {
				err = -EIO;
				break;
			}
			sqlite3_bind_int64(s, 1, (sqlite3_int64)ino);
			int got = store_step(st, s);
			sqlite3_reset(s);
			if (got < 0)
				err = got;
			gone = got == 0;
		}
		if (gone && !err)
			unlinkat(dirfd(dir), de->d_name, 0);
	}
	/* Names that the last run made, and no fsync of it covered, may be relied on now. */
	if (!err && fsync(dirfd(dir)) < 0)
		err = -errno;
	closedir(dir);
	return err;
}

static int sweep(struct store *st)
{
	int err = 0;

	for (unsigned i = 0; i < 256 && !err; i++) {
		char sub[3];

		snprintf(sub, sizeof sub, "%02x", i);
		err = sweep_dir(st, st->data->dir_fd, sub);
		if (err == -ENOENT)
			err = 0;
	}
	return err;
}

int leftover_locked(struct store *st)
{
	struct account a = {0};
	int err = redo_replay_locked(st);

	if (!err && st->unclean) {
		err = intents_apply(st);
		if (!err)
			err = store_flush_locked(st, true);
		if (!err)
			err = sweep(st);
	}
	/* A cut does not outlive the process; a clean stop has written down what is dirty. */
	if (!err)
		err = store_run(st, store_stmt(st, "DELETE FROM capture"));
	if (!err)
		err = store_run(st, store_stmt(st, "DELETE FROM intent"));
	if (!err && (st->unclean || store_get_u64(st, "cached_bytes", &a.cached) ||
		     store_get_u64(st, "unpublished_bytes", &a.unpublished))) {
		a = (struct account){0};
		err = sum_smalls(st, &a);
		if (!err)
			err = sum_spans(st, &a);
	}
	st->cached_bytes = a.cached;
	st->unpublished_bytes = a.unpublished;
	return err;
}
