/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * fake_data: the part of data.h that store and meta call, without any cache file.  Small
 * contents are rows as the real ones are; "syncing a file" calls fake_fsync.
 */
#ifndef HOLDFAST_TESTS_FAKE_DATA_H
#define HOLDFAST_TESTS_FAKE_DATA_H

#include <stdatomic.h>
#include <stdlib.h>
#include "cache/data.h"
#include "cache/meta.h"
#include "net/record.h"

static int (*fake_fsync)(struct store *st, struct inode *in);
static _Atomic int fake_fsyncs, fake_deletes;

int data_open(struct store *st)
{
	(void)st;
	return 0;
}

void data_close(struct store *st)
{
	(void)st;
}

uint64_t data_allocated_locked(struct store *st, struct inode *in)
{
	(void)st;
	return in->size;
}

int data_flush_inode_locked(struct store *st, struct inode *in)
{
	if (!in->small)
		return 0;
	sqlite3_stmt *s =
		store_stmt(st, "INSERT OR REPLACE INTO small(ino,bytes) VALUES(?1,?2)");
	if (!s)
		return -EIO;
	sqlite3_bind_int64(s, 1, (int64_t)in->ino);
	sqlite3_bind_blob(s, 2, in->small, (int)in->size, SQLITE_STATIC);
	int err = store_run(st, s);
	if (err)
		return err;
	st->small_bytes -= in->size;
	free(in->small);
	in->small = NULL;
	return 0;
}

void data_evict_inode_locked(struct store *st, struct inode *in)
{
	if (in->small)
		st->small_bytes -= in->size;
	free(in->small);
	in->small = NULL;
}

int data_delete_locked(struct store *st, struct inode *in)
{
	fake_deletes++;
	data_evict_inode_locked(st, in);
	if (!in->stored)
		return 0;
	sqlite3_stmt *s = store_stmt(st, "DELETE FROM small WHERE ino=?1");
	if (!s)
		return -EIO;
	sqlite3_bind_int64(s, 1, (int64_t)in->ino);
	return store_run(st, s);
}

int data_fsync_file(struct store *st, struct inode *in)
{
	fake_fsyncs++;
	return fake_fsync ? fake_fsync(st, in) : 0;
}

void data_write_back(struct store *st, struct inode *in)
{
	(void)st;
	(void)in;
}

void data_sync_failed_locked(struct store *st, struct inode *in)
{
	in->io_err = EIO;
	store_fail_locked(st, -EIO, "writing a file of the cache to the disk");
}

int data_redo_settle(struct store *st, bool all)
{
	(void)st;
	(void)all;
	return 0;
}

/* The first bytes of a new file. */
static inline void fake_write_small(struct store *st, struct inode *in, const char *text)
{
	pthread_mutex_lock(&st->meta);
	if (in->small)
		st->small_bytes -= in->size;
	free(in->small);
	in->small = (uint8_t *)strdup(text);
	in->size = strlen(text);
	st->small_bytes += in->size;
	inode_mark_locked(st, in, REC_CH_CONTENT | REC_CH_TIMES);
	pthread_mutex_unlock(&st->meta);
}

/* As data_write does it for a large file; size 0: one byte more. */
static inline void fake_write_large(struct store *st, struct inode *in, uint64_t size)
{
	pthread_mutex_lock(&st->meta);
	in->flags = INODE_LARGE;
	in->size = size ? size : in->size + 1;
	in->unsynced = true;
	in->written_ms = now_ms();
	inode_mark_locked(st, in, REC_CH_CONTENT | REC_CH_TIMES);
	pthread_mutex_unlock(&st->meta);
}

/* One number out of the database. */
static inline int64_t fake_query(struct store *st, const char *sql, uint64_t arg)
{
	sqlite3_stmt *s;
	int64_t v = -1;

	pthread_mutex_lock(&st->meta);
	if (sqlite3_prepare_v2(st->db, sql, -1, &s, NULL))
		abort();
	if (sqlite3_bind_parameter_count(s))
		sqlite3_bind_int64(s, 1, (int64_t)arg);
	if (sqlite3_step(s) == SQLITE_ROW)
		v = sqlite3_column_int64(s, 0);
	sqlite3_finalize(s);
	pthread_mutex_unlock(&st->meta);
	return v;
}

static inline int fake_flush(struct store *st)
{
	pthread_mutex_lock(&st->meta);
	int err = store_flush_locked(st, false);
	pthread_mutex_unlock(&st->meta);
	return err;
}

static inline char *fake_dir(void)
{
	char *dir = strdup("/tmp/holdfast-test.XXXXXX");

	if (!dir || !mkdtemp(dir))
		abort();
	return dir;
}

/* The directory holds the files of a store with these fakes, nothing else. */
static inline void fake_dir_remove(char *dir)
{
	static const char *const name[] = {"/meta.db", "/meta.db-wal", "/lock", ""};
	char path[256];

	for (size_t i = 0; i < sizeof name / sizeof name[0]; i++) {
		snprintf(path, sizeof path, "%s%s", dir, name[i]);
		remove(path);
	}
	free(dir);
}

#endif
