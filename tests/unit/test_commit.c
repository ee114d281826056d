/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "store_util.h"

/*
 * Memory is short: what begins to grow gets none.  A sanitizer has a realloc of its own.
 */
static _Thread_local bool no_memory;
#if !defined __SANITIZE_ADDRESS__ && !defined __SANITIZE_THREAD__
#define SHORT_MEMORY 1
void *__libc_realloc(void *p, size_t len);
void *realloc(void *p, size_t len)
{
	return no_memory && !p ? NULL : __libc_realloc(p, len);
}
#endif

static void *commit_some(void *arg)
{
	struct store *st = arg;
	char name[32];

	for (int i = 0; i < 100; i++) {
		snprintf(name, sizeof name, "%lx-%d", (unsigned long)pthread_self(), i);
		struct inode *in = create(st, name);
		if (!in || store_commit(st))
			return st;
		pthread_mutex_lock(&st->meta);
		bool ok = in->stored && !in->dirty;
		pthread_mutex_unlock(&st->meta);
		inode_put(st, in);
		if (!ok)
			return st;
	}
	return NULL;
}

static void group(void **state)
{
	struct store *st;
	pthread_t t[4];
	void *bad;

	(void)state;
	assert_int_equal(open_(&st, true), 0);
	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&t[i], NULL, commit_some, st), 0);
	for (int i = 0; i < 4; i++) {
		pthread_join(t[i], &bad);
		assert_null(bad);
	}
	assert_int_equal(meta_files(st), 401);
	assert_int_equal(store_close(st), 0);
}

/* Waits until the commit thread has done something, at most 5 s. */
static bool soon(struct store *st, const char *sql, int64_t want)
{
	for (int i = 0; i < 500; i++) {
		if (fake_query(st, sql, 0) == want)
			return true;
		usleep(10000);
	}
	return false;
}

static void timed(void **state)
{
	struct store *st;

	(void)state;
	assert_int_equal(open_(&st, true), 0);
	inode_put(st, create(st, "f"));
	assert_true(soon(st, "SELECT count(*) FROM inode", 2));
	for (int i = 0; i < 500; i++) {
		pthread_mutex_lock(&st->meta);
		bool done = !st->txn_dirty && !st->dirty_cnt;
		pthread_mutex_unlock(&st->meta);
		if (done)
			break;
		assert_true(i < 499);
		usleep(10000);
	}
	store_commit_soon(st);
	assert_int_equal(store_close(st), 0);
}

/* Waits until the WAL is shorter than one page a commit of 300, at most 5 s. */
static bool emptied(struct store *st)
{
	bool is = false;

	for (int i = 0; i < 500 && !is; i++) {
		usleep(10000);
		pthread_mutex_lock(&st->meta);
		is = st->dbx->wal_pages < 300;
		pthread_mutex_unlock(&st->meta);
	}
	return is;
}

/* A long WAL is emptied when nothing is written: nothing is to be committed, or much later. */
static void quiet(void **state)
{
	struct store *st;
	char name[32];

	(void)state;
	for (int late = 0; late < 2; late++) {
		assert_int_equal(open_(&st, false), 0);
		if (late)
			st->opts.commit_ms = 600000;
		assert_int_equal(store_start(st), 0);
		for (int i = 0; i < 300; i++) {
			snprintf(name, sizeof name, "%d-%d", late, i);
			inode_put(st, create(st, name));
			assert_int_equal(store_commit(st), 0);
		}
		inode_put(st, create(st, late ? "y" : "x"));
		assert_true(emptied(st));
		assert_int_equal(store_close(st), 0);
	}
}

/* Many numbers are drawn before the next commit. */
static void last_numbers(void **state)
{
	struct store *st;

	(void)state;
	assert_int_equal(open_(&st, false), 0);
	struct inode *in = create(st, "new");
	assert_int_equal(store_commit(st), 0);
	fake_write_large(st, in, 1 << 20);
	assert_int_equal(meta_rename(st, INO_ROOT, "new", 3, INO_ROOT, "old", 3, 0, NULL), 0);
	pthread_mutex_lock(&st->meta);
	while (st->next_lid + 100 < st->lid_safe)
		assert_int_not_equal(store_new_lid_locked(st), 0);
	pthread_mutex_unlock(&st->meta);
	assert_int_equal(fake_fsyncs, 0);
	for (int i = 0; i < 200; i++) {
		char name[16];

		snprintf(name, sizeof name, "f%d", i);
		inode_put(st, create(st, name));
	}
	assert_int_equal(fake_fsyncs, 1);
	assert_int_equal(fake_query(st, "SELECT size FROM inode WHERE ino=?", in->ino),
			 1 << 20);
	inode_put(st, in);
	assert_int_equal(store_close(st), 0);
}

/* A write comes during the first two of them. */
static int busy_fsync(struct store *st, struct inode *in)
{
	if (fake_fsyncs <= 2)
		fake_write_large(st, in, in->size + 1);
	return 0;
}

static void withheld(void **state)
{
	struct store *st;

	(void)state;
	assert_int_equal(open_(&st, false), 0);
	struct inode *in = create(st, "big");
	fake_write_large(st, in, 1 << 20);
	/* The name is committed; the row is that of an empty file. */
	assert_int_equal(store_commit(st), 0);
	assert_int_equal(fake_fsyncs, 0);
	assert_int_equal(fake_query(st, "SELECT size FROM inode WHERE ino=?", in->ino), 0);
	assert_int_equal(fake_query(st, "SELECT flags FROM inode WHERE ino=?", in->ino),
			 INODE_SMALL_HAVE | INODE_SMALL_DIRTY);
	assert_true(in->dirty);
	/* Attributes are written all the same. */
	struct meta_attr a = {.set = META_SET_UID, .uid = 5};
	assert_int_equal(meta_setattr(st, in, &a), 0);
	assert_int_equal(store_commit(st), 0);
	assert_int_equal(fake_query(st, "SELECT uid FROM inode WHERE ino=?", in->ino), 5);
	assert_int_equal(fake_query(st, "SELECT size FROM inode WHERE ino=?", in->ino), 0);
	/* A rename takes the contents along. */
	assert_int_equal(meta_rename(st, INO_ROOT, "big", 3, INO_ROOT, "b2", 2, 0, NULL), 0);
	assert_int_equal(store_commit(st), 0);
	assert_int_equal(fake_fsyncs, 1);
	assert_int_equal(fake_query(st, "SELECT size FROM inode WHERE ino=?", in->ino),
			 1 << 20);
	assert_false(in->dirty);
	/* fsync: writers that come between do not keep it from an end. */
	fake_fsyncs = 0;
	fake_fsync = busy_fsync;
	fake_write_large(st, in, 2 << 20);
	assert_int_equal(store_sync_inode(st, in, true), 0);
	assert_int_equal(fake_fsyncs, 3);
	assert_int_equal(fake_query(st, "SELECT size FROM inode WHERE ino=?", in->ino),
			 (2 << 20) + 2);
	/* Unlinked while it is withheld: the link count is written. */
	fake_fsync = NULL;
	fake_write_large(st, in, 3 << 20);
	assert_int_equal(meta_unlink(st, INO_ROOT, "b2", 2, false, NULL), 0);
	assert_int_equal(store_commit(st), 0);
	assert_int_equal(fake_query(st, "SELECT nlink FROM inode WHERE ino=?", in->ino), 0);
	assert_int_equal(fake_query(st, "SELECT size FROM inode WHERE ino=?", in->ino),
			 (2 << 20) + 2);
	uint64_t ino = in->ino;
	meta_reap(st, ino);
	inode_put(st, in);
	assert_int_equal(fake_query(st, "SELECT count(*) FROM inode WHERE ino=?", ino), 0);
	/*
	 * Renamed while all of its bytes were synced, or in a row, but its size was in memory
	 * alone; then written: the name does not come without what was there.
	 */
	in = create(st, "early");
	fake_fsyncs = 0;
	assert_int_equal(meta_rename(st, INO_ROOT, "early", 5, INO_ROOT, "e2", 2, 0, NULL), 0);
	fake_write_large(st, in, 1 << 20);
	assert_int_equal(store_commit(st), 0);
	assert_int_equal(fake_fsyncs, 1);
	assert_int_equal(fake_query(st, "SELECT size FROM inode WHERE ino=?", in->ino),
			 1 << 20);
	/* Nor does it in a commit that is made because the disk is nearly full. */
	fake_write_large(st, in, 2 << 20);
	assert_int_equal(meta_rename(st, INO_ROOT, "e2", 2, INO_ROOT, "e3", 2, 0, NULL), 0);
	pthread_mutex_lock(&st->meta);
	st->space_short = true;
	st->dbx->writes += st->space_reserve;
	uint64_t commits = st->commit_done;
	pthread_mutex_unlock(&st->meta);
	store_pressure(st);
	assert_int_equal(st->commit_done, commits + 1);
	assert_int_equal(fake_fsyncs, 2);
	assert_int_equal(fake_query(st, "SELECT size FROM inode WHERE ino=?", in->ino),
			 2 << 20);
	st->space_short = false;
	inode_put(st, in);
	/* Closing syncs all. */
	in = create(st, "last");
	fake_write_large(st, in, 1 << 20);
	ino = in->ino;
	inode_put(st, in);
	assert_int_equal(store_close(st), 0);
	assert_int_equal(open_(&st, false), 0);
	assert_int_equal(fake_query(st, "SELECT size FROM inode WHERE ino=?", ino), 1 << 20);
	assert_int_equal(store_close(st), 0);
}

/*
 * While a commit syncs what was renamed, another file is written and renamed, each time: none
 * of those names is committed without its contents, and the commit comes to an end.
 */
#define RENAMED_MAX 16

static struct {
	struct inode *in[RENAMED_MAX];
	unsigned cnt;
	pthread_t late; /* has to wait; */
	uint64_t done;	/* commits when it had renamed */
	bool is_late;
} renamed;

static struct inode *renamed_one(struct store *st, char letter)
{
	struct inode *in = create(st, "tmp");

	fake_write_large(st, in, 1 << 20);
	if (meta_rename(st, INO_ROOT, "tmp", 3, INO_ROOT, &letter, 1, 0, NULL))
		abort();
	return in;
}

static void *renamed_late(void *arg)
{
	struct store *st = arg;

	inode_put(st, renamed_one(st, 'z'));
	pthread_mutex_lock(&st->meta);
	renamed.done = st->commit_done;
	pthread_mutex_unlock(&st->meta);
	return NULL;
}

static int renaming_fsync(struct store *st, struct inode *in)
{
	(void)in;
	pthread_mutex_lock(&st->meta);
	bool sealed = st->sealed;
	pthread_mutex_unlock(&st->meta);
	if (!sealed && renamed.cnt < RENAMED_MAX) {
		renamed.in[renamed.cnt] = renamed_one(st, (char)('a' + renamed.cnt));
		renamed.cnt++;
	} else if (sealed && !renamed.is_late) {
		renamed.is_late = true;
		if (pthread_create(&renamed.late, NULL, renamed_late, st))
			abort();
	}
	return 0;
}

static void renaming(void **state)
{
	struct store *st;

	(void)state;
	memset(&renamed, 0, sizeof renamed);
	assert_int_equal(open_(&st, false), 0);
	uint64_t before = st->commit_done;
	renamed.in[renamed.cnt++] = renamed_one(st, 'a');
	fake_fsync = renaming_fsync;
	assert_int_equal(store_commit(st), 0);
	fake_fsync = NULL;
	assert_true(renamed.cnt > 1);
	for (unsigned i = 0; i < renamed.cnt; i++) {
		assert_int_equal(fake_query(st, "SELECT size FROM inode WHERE ino=?",
					    renamed.in[i]->ino),
				 1 << 20);
		inode_put(st, renamed.in[i]);
	}
	if (renamed.is_late) {
		pthread_join(renamed.late, NULL);
		assert_true(renamed.done > before);
	}
	assert_int_equal(store_close(st), 0);
}

/* Many are renamed, and there is no memory to list them: the commit has them all the same. */
static void renamed_many(void **state)
{
	struct inode *in[100];
	struct store *st;

	(void)state;
#ifndef SHORT_MEMORY
	skip();
#endif
	assert_int_equal(open_(&st, false), 0);
	for (unsigned i = 0; i < 100; i++) {
		in[i] = renamed_one(st, (char)(0x80 + i));
		assert_true(in[i]->sync_soon);
	}
	no_memory = true;
	int err = store_commit(st);
	no_memory = false;
	assert_int_equal(err, 0);
	for (unsigned i = 0; i < 100; i++) {
		assert_int_equal(fake_query(st, "SELECT size FROM inode WHERE ino=?", in[i]->ino),
				 1 << 20);
		inode_put(st, in[i]);
	}
	assert_int_equal(store_close(st), 0);
}

/* Switched off, the row names bytes that are not on the disk. */
static void skip_sync(void **state)
{
	struct store_opts o = {.dir = dir, .skip_sync = true};
	struct store *st;

	(void)state;
	assert_int_equal(store_open(&st, &o), 0);
	assert_int_equal(store_init_root(st, 0, 0, 0755), 0);
	struct inode *in = create(st, "big");
	fake_write_large(st, in, 1 << 20);
	assert_int_equal(store_commit(st), 0);
	assert_int_equal(fake_fsyncs, 0);
	assert_int_equal(fake_query(st, "SELECT size FROM inode WHERE ino=?", in->ino),
			 1 << 20);
	inode_put(st, in);
	assert_int_equal(store_close(st), 0);
}

static void idle_synced(void **state)
{
	struct store *st;

	(void)state;
	assert_int_equal(open_(&st, true), 0);
	struct inode *in = create(st, "big");
	fake_write_large(st, in, 1 << 20);
	assert_true(soon(st, "SELECT count(*) FROM inode WHERE size=0 AND ino!=1", 1));
	/* As if a second had passed. */
	pthread_mutex_lock(&st->meta);
	in->written_ms -= 2000;
	pthread_mutex_unlock(&st->meta);
	assert_true(soon(st, "SELECT max(size) FROM inode", 1 << 20));
	/* And one that is written all the time, but is withheld for long. */
	fake_write_large(st, in, 2 << 20);
	pthread_mutex_lock(&st->meta);
	in->written_ms += 100000;
	in->withheld_ms = now_ms() - WITHHELD_MAX_MS;
	pthread_mutex_unlock(&st->meta);
	assert_true(soon(st, "SELECT max(size) FROM inode", 2 << 20));
	inode_put(st, in);
	assert_int_equal(store_close(st), 0);
}

/*
 * L1 under load: files grow and are renamed, synced and committed by several threads; no row
 * ever says more than an fdatasync that has returned covered.
 */
#define BUSY_FILES 4

static struct {
	struct inode *in[BUSY_FILES];
	uint64_t synced[BUSY_FILES]; /* guarded by meta */
	_Atomic bool stop;
	_Atomic unsigned bad, syncs;
} busy;

static int model_fsync(struct store *st, struct inode *in)
{
	unsigned i = 0;

	while (busy.in[i] != in)
		i++;
	pthread_mutex_lock(&st->meta);
	uint64_t size = in->size;
	pthread_mutex_unlock(&st->meta);
	usleep(300);
	pthread_mutex_lock(&st->meta);
	busy.synced[i] = HF_MAX(busy.synced[i], size);
	pthread_mutex_unlock(&st->meta);
	return 0;
}

static void *busy_writer(void *arg)
{
	struct store *st = arg;
	unsigned seed = 1;

	while (!busy.stop) {
		struct inode *in = busy.in[rand_r(&seed) % BUSY_FILES];
		iolock_read(&in->io);
		pthread_mutex_lock(&st->meta);
		store_seal_locked(st, in, false);
		pthread_mutex_unlock(&st->meta);
		fake_write_large(st, in, 0);
		/* As the intent of an overwrite does it. */
		if (rand_r(&seed) % 64 == 0)
			store_commit(st);
		iolock_unlock(&in->io);
	}
	return NULL;
}

static void *busy_syncer(void *arg)
{
	struct store *st = arg;
	unsigned seed = 2;

	while (!busy.stop) {
		unsigned i = rand_r(&seed) % BUSY_FILES;
		pthread_mutex_lock(&st->meta);
		uint64_t size = busy.in[i]->size;
		pthread_mutex_unlock(&st->meta);
		if (store_sync_inode(st, busy.in[i], true) || store_commit(st) ||
		    fake_query(st, "SELECT size FROM inode WHERE ino=?", busy.in[i]->ino) <
			    (int64_t)size)
			busy.bad++;
		busy.syncs++;
	}
	return NULL;
}

static void *busy_renamer(void *arg)
{
	struct store *st = arg;
	unsigned seed = 3;

	while (!busy.stop) {
		char a[2] = {(char)('a' + rand_r(&seed) % BUSY_FILES), 0};
		char b[2] = {(char)('a' + rand_r(&seed) % BUSY_FILES), 0};
		if (meta_rename(st, INO_ROOT, a, 1, INO_ROOT, b, 1, RENAME_EXCHANGE, NULL))
			busy.bad++;
		if (rand_r(&seed) % 4 == 0 && store_commit(st))
			busy.bad++;
	}
	return NULL;
}

static void busy_files(void **state)
{
	static void *(*const f[])(void *) = {busy_writer, busy_writer, busy_syncer, busy_syncer,
					     busy_renamer};
	pthread_t t[sizeof f / sizeof f[0]];
	struct store *st;

	(void)state;
	memset(&busy, 0, sizeof busy);
	fake_fsync = model_fsync;
	assert_int_equal(open_(&st, true), 0);
	for (unsigned i = 0; i < BUSY_FILES; i++)
		busy.in[i] = create(st, (char[]){(char)('a' + i), 0});
	for (size_t i = 0; i < sizeof f / sizeof f[0]; i++)
		assert_int_equal(pthread_create(&t[i], NULL, f[i], st), 0);
	int64_t until = now_ms() + 400;
	while (now_ms() < until) {
		usleep(500);
		pthread_mutex_lock(&st->meta);
		for (unsigned i = 0; i < BUSY_FILES; i++) {
			sqlite3_stmt *s = store_stmt(st, "SELECT size FROM inode WHERE ino=?1");
			assert_non_null(s);
			sqlite3_bind_int64(s, 1, (int64_t)busy.in[i]->ino);
			if (store_step(st, s) == 1 &&
			    (uint64_t)sqlite3_column_int64(s, 0) > busy.synced[i])
				busy.bad++;
			sqlite3_reset(s);
		}
		pthread_mutex_unlock(&st->meta);
	}
	busy.stop = true;
	for (size_t i = 0; i < sizeof f / sizeof f[0]; i++)
		pthread_join(t[i], NULL);
	print_message("%u syncs\n", busy.syncs);
	assert_int_equal(busy.bad, 0);
	assert_true(busy.syncs > 0);
	assert_int_equal(store_commit_all(st), 0);
	for (unsigned i = 0; i < BUSY_FILES; i++) {
		assert_int_equal(
			fake_query(st, "SELECT size FROM inode WHERE ino=?", busy.in[i]->ino),
			busy.in[i]->size);
		inode_put(st, busy.in[i]);
	}
	assert_int_equal(store_close(st), 0);
}

static int fail_fsync(struct store *st, struct inode *in)
{
	(void)st;
	(void)in;
	return -EIO;
}

static void fsync_fails(void **state)
{
	struct store *st;
	struct inode *in2;

	(void)state;
	assert_int_equal(open_(&st, true), 0);
	struct inode *in = create(st, "big");
	assert_int_equal(store_commit(st), 0);
	fake_write_large(st, in, 1 << 20);
	fake_fsync = fail_fsync;
	assert_int_equal(store_sync_inode(st, in, true), -EIO);
	fake_fsync = NULL;
	/* For good, and for everybody: a later one would have nothing to write. */
	assert_int_equal(in->io_err, EIO);
	assert_int_equal(store_sync_inode(st, in, true), -EIO);
	assert_int_equal(store_commit(st), -EIO);
	assert_int_equal(meta_create(st, INO_ROOT, "n", 1, &file_new, &in2), -EROFS);
	assert_int_equal(meta_unlink(st, INO_ROOT, "big", 3, false, NULL), -EROFS);
	assert_int_equal(meta_setxattr(st, in, "user.x", "1", 1, 0), -EROFS);
	assert_int_equal(meta_lookup(st, INO_ROOT, "big", 3, &in2), 0);
	inode_put(st, in2);
	inode_put(st, in);
	assert_int_equal(store_close(st), -EIO);
	/* What was committed before is what is there. */
	assert_int_equal(open_(&st, false), 0);
	assert_true(st->unclean);
	assert_int_equal(meta_lookup(st, INO_ROOT, "big", 3, &in), 0);
	assert_int_equal(in->size, 0);
	inode_put(st, in);
	assert_int_equal(store_close(st), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(group, setup, teardown),
		cmocka_unit_test_setup_teardown(timed, setup, teardown),
		cmocka_unit_test_setup_teardown(quiet, setup, teardown),
		cmocka_unit_test_setup_teardown(withheld, setup, teardown),
		cmocka_unit_test_setup_teardown(last_numbers, setup, teardown),
		cmocka_unit_test_setup_teardown(renaming, setup, teardown),
		cmocka_unit_test_setup_teardown(renamed_many, setup, teardown),
		cmocka_unit_test_setup_teardown(skip_sync, setup, teardown),
		cmocka_unit_test_setup_teardown(idle_synced, setup, teardown),
		cmocka_unit_test_setup_teardown(busy_files, setup, teardown),
		cmocka_unit_test_setup_teardown(fsync_fails, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
