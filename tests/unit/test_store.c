/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "store_util.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>

/* Runs f in another process, which ends without closing anything. */
static void in_crash(void (*f)(struct store *st))
{
	struct store *st;

	pid_t pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		if (open_(&st, false))
			_exit(1);
		f(st);
		_exit(0);
	}
	int status;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

/* --- opening --- */

static void opening(void **state)
{
	struct store *st, *other;
	struct buf b = {0};
	uint64_t v;

	(void)state;
	assert_int_equal(open_(&st, true), 0);
	assert_false(st->unclean);
	assert_int_equal(open_(&other, false), -EBUSY);
	assert_non_null(strstr(log_last(), "in use"));
	pthread_mutex_lock(&st->meta);
	assert_int_equal(store_get_u64(st, "x", &v), -ENOENT);
	assert_int_equal(store_put_u64(st, "x", UINT64_MAX), 0);
	assert_int_equal(store_put_blob(st, "y", "bytes", 5), 0);
	assert_int_equal(store_put_blob(st, "z", NULL, 0), 0);
	assert_int_equal(store_set_device(st, 0), -EINVAL);
	assert_int_equal(store_set_device(st, 9), 0);
	pthread_mutex_unlock(&st->meta);
	struct inode *in = create(st, "f");
	assert_int_equal(in->ino, (uint64_t)9 << DEVICE_SHIFT | 1);
	inode_put(st, in);
	assert_int_equal(store_close(st), 0);
	assert_int_equal(open_(&st, false), 0);
	assert_false(st->unclean);
	assert_int_equal(st->device, 9);
	/* Nothing is lost of the numbers by a clean stop. */
	in = create(st, "g");
	assert_int_equal(in->ino, (uint64_t)9 << DEVICE_SHIFT | 2);
	inode_put(st, in);
	pthread_mutex_lock(&st->meta);
	assert_int_equal(store_get_u64(st, "x", &v), 0);
	assert_true(v == UINT64_MAX);
	assert_int_equal(store_get_blob(st, "y", &b), 0);
	assert_int_equal(b.len, 5);
	assert_int_equal(store_get_blob(st, "z", &b), 0);
	assert_int_equal(b.len, 5);
	pthread_mutex_unlock(&st->meta);
	buf_release(&b);
	assert_int_equal(store_close(st), 0);
}

static void raw_sql(const char *sql)
{
	char path[256];
	sqlite3 *db;

	snprintf(path, sizeof path, "%s/meta.db", dir);
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
	sqlite3_close(db);
}

static void raw_bytes(off_t off, const char *bytes, size_t len)
{
	char path[256];

	snprintf(path, sizeof path, "%s/meta.db", dir);
	int fd = open(path, O_WRONLY | O_CREAT, 0600);
	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, bytes, len, off), len);
	close(fd);
}

static void foreign(void **state)
{
	struct store *st;

	(void)state;
	assert_int_equal(open_(&st, false), 0);
	assert_int_equal(store_close(st), 0);
	raw_sql("PRAGMA user_version=4");
	assert_int_equal(open_(&st, false), -ENOTSUP);
	assert_non_null(strstr(log_last(), "newer"));
	raw_sql("PRAGMA user_version=3;PRAGMA application_id=5");
	assert_int_equal(open_(&st, false), -EBADMSG);
	raw_bytes(0, "this is a text, not a database...", 33);
	assert_int_equal(open_(&st, false), -EBADMSG);
	assert_non_null(strstr(log_last(), "rebuild"));
}

static void crash_many(struct store *st)
{
	char name[32];

	for (int i = 0; i < 3000; i++) {
		snprintf(name, sizeof name, "a rather long name %d", i);
		inode_put(st, create(st, name));
	}
	store_commit(st);
	pthread_mutex_lock(&st->meta);
	sqlite3_exec(st->db, "COMMIT", NULL, NULL, NULL);
	sqlite3_wal_checkpoint_v2(st->db, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL);
}

static void damaged(void **state)
{
	struct store *st;
	char junk[4096];

	(void)state;
	in_crash(crash_many);
	/* Pages in the middle: nothing is noticed by opening, all by the check. */
	memset(junk, 0xa5, sizeof junk);
	for (off_t page = 40; page < 60; page++)
		raw_bytes(page * 4096, junk, sizeof junk);
	/* Nor is it looked for where the process died alone. */
	assert_int_equal(open_(&st, false), 0);
	assert_true(st->unclean);
	assert_int_equal(store_close(st), 0);
	raw_sql("UPDATE kv SET v=0 WHERE k='clean';UPDATE kv SET v=x'00' WHERE k='boot'");
	assert_int_equal(open_(&st, false), -EBADMSG);
	assert_non_null(strstr(log_last(), "damaged"));
}

/* --- crashes --- */

static void crash_orphans(struct store *st)
{
	struct inode *in = create(st, "open");

	inode_put(st, create(st, "kept"));
	meta_unlink(st, INO_ROOT, "open", 4, false, NULL);
	inode_put(st, create(st, "replaced"));
	store_commit(st);
	create(st, "lost");
	(void)in;
}

static void orphans(void **state)
{
	struct store *st;
	struct inode *in;

	(void)state;
	in_crash(crash_orphans);
	assert_int_equal(open_(&st, false), 0);
	assert_true(st->unclean);
	assert_int_equal(meta_files(st), 3);
	assert_int_equal(fake_query(st, "SELECT count(*) FROM inode WHERE nlink=0", 0), 0);
	assert_int_equal(meta_lookup(st, INO_ROOT, "lost", 4, &in), -ENOENT);
	assert_int_equal(meta_lookup(st, INO_ROOT, "kept", 4, &in), 0);
	inode_put(st, in);
	/* Numbers that the crash lost are not given out again. */
	in = create(st, "new");
	assert_true((in->ino & 0xffffffffff) > 4);
	inode_put(st, in);
	assert_int_equal(store_close(st), 0);
	assert_int_equal(open_(&st, false), 0);
	assert_false(st->unclean);
	assert_int_equal(store_close(st), 0);
}

static void crash_after_three(struct store *st)
{
	for (int i = 0; i < 3; i++)
		inode_put(st, create(st, (char[]){(char)('a' + i), 0}));
	store_commit(st);
}

/*
 * How many files there are is not counted at a start, which would read an index as large as
 * the drive: a clean stop wrote it down.  After any other it is counted.
 */
static void file_count(void **state)
{
	struct store *st;

	(void)state;
	assert_int_equal(open_(&st, false), 0);
	inode_put(st, create(st, "f"));
	assert_int_equal(store_close(st), 0);
	raw_sql("UPDATE kv SET v=v+1000 WHERE k='files'");
	assert_int_equal(open_(&st, false), 0);
	assert_int_equal(meta_files(st), 1002);
	assert_int_equal(store_close(st), 0);
	in_crash(crash_after_three);
	assert_int_equal(open_(&st, false), 0);
	assert_true(st->unclean);
	assert_int_equal(meta_files(st), 5);
	assert_int_equal(store_close(st), 0);
	assert_int_equal(open_(&st, false), 0);
	assert_int_equal(meta_files(st), 5);
	assert_int_equal(store_close(st), 0);
}

/* A number is durable before it is used, however many are used between two commits. */
static void numbers(void **state)
{
	struct store *st;
	uint64_t last = 0;

	(void)state;
	assert_int_equal(open_(&st, false), 0);
	pthread_mutex_lock(&st->meta);
	for (unsigned i = 0; i < 300000; i++) {
		uint64_t lid = store_new_lid_locked(st);
		assert_true(lid > last);
		assert_true((lid & 0xffffffffff) < st->lid_safe);
		last = lid;
	}
	pthread_mutex_unlock(&st->meta);
	assert_int_equal(store_close(st), 0);
}

struct shared_line {
	_Atomic uint32_t done; /* rounds that store_commit answered for */
	_Atomic uint32_t begun;
};

/*
 * Round n makes file n, renames n-1, removes n-2 (those since `base`); so the names say how
 * far it came.
 */
static void crash_round(struct store *st, uint32_t base, uint32_t n)
{
	char a[16], b[16];
	uint64_t ino;

	snprintf(a, sizeof a, "f%u", n);
	struct inode *in = create(st, a);
	if (!in)
		_exit(2);
	fake_write_small(st, in, a);
	inode_put(st, in);
	if (n > base) {
		snprintf(a, sizeof a, "f%u", n - 1);
		snprintf(b, sizeof b, "g%u", n - 1);
		if (meta_rename(st, INO_ROOT, a, strlen(a), INO_ROOT, b, strlen(b), 0, NULL))
			_exit(3);
	}
	if (n > base + 1) {
		snprintf(b, sizeof b, "g%u", n - 2);
		if (meta_unlink(st, INO_ROOT, b, strlen(b), false, &ino))
			_exit(4);
		meta_reap(st, ino);
	}
}

static bool there(struct store *st, char c, uint32_t n)
{
	struct inode *in;
	char name[16];

	snprintf(name, sizeof name, "%c%u", c, n);
	int err = meta_lookup(st, INO_ROOT, name, strlen(name), &in);
	if (err)
		return false;
	/* A commit may have come between the create and the write. */
	assert_true(!in->size || fake_query(st, "SELECT length(bytes) FROM small WHERE ino=?",
					    in->ino) == (int64_t)in->size);
	inode_put(st, in);
	return true;
}

/* What a crash left of rounds base..: all of those answered for, the next in part. */
static void check_rounds(struct store *st, uint32_t base, const struct shared_line *sh)
{
	uint32_t at = sh->begun;

	while (at > sh->done && !there(st, 'f', at - 1))
		at--;
	bool whole = at == sh->done;
	if (at > base)
		assert_true(there(st, 'f', at - 1));
	if (at > base + 1 && whole) {
		assert_true(there(st, 'g', at - 2));
		assert_false(there(st, 'f', at - 2));
	} else if (at > base + 1) {
		assert_int_not_equal(there(st, 'g', at - 2), there(st, 'f', at - 2));
	}
	if (at > base + 2 && whole)
		assert_false(there(st, 'g', at - 3));
	for (uint32_t i = base; i + 3 < at; i++)
		assert_false(there(st, 'f', i) || there(st, 'g', i));
}

static void killed(void **state)
{
	const char *env = getenv("SEED");
	unsigned seed = env ? (unsigned)strtoul(env, NULL, 0) : (unsigned)time(NULL);
	struct store *st;
	uint32_t base = 0;

	(void)state;
	print_message("seed %u\n", seed);
	struct shared_line *sh =
		mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(sh, MAP_FAILED);
	for (int crash = 0; crash < 12; crash++) {
		wal_ahead = crash % 2;
		sh->done = sh->begun = base;
		pid_t pid = fork();
		assert_true(pid >= 0);
		if (!pid) {
			if (open_(&st, true))
				_exit(1);
			for (uint32_t n = base;; n++) {
				sh->begun = n + 1;
				crash_round(st, base, n);
				if (n % 3)
					continue;
				if (store_commit(st))
					_exit(5);
				sh->done = n + 1;
			}
		}
		while (sh->begun == base && waitpid(pid, NULL, WNOHANG) == 0)
			usleep(100);
		usleep((useconds_t)(rand_r(&seed) % 60000));
		kill(pid, SIGKILL);
		int status;
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(WIFSIGNALED(status));
		assert_int_equal(open_(&st, false), 0);
		assert_true(st->unclean);
		check_rounds(st, base, sh);
		assert_int_equal(store_close(st), 0);
		base = sh->begun;
	}
	wal_ahead = false;
	munmap(sh, 4096);
}

/* --- a full database --- */

static void database_full(void **state)
{
	struct store *st;
	struct inode *in;
	char name[256];
	int i;

	(void)state;
	assert_int_equal(open_(&st, true), 0);
	inode_put(st, create(st, "before"));
	assert_int_equal(store_commit(st), 0);
	pthread_mutex_lock(&st->meta);
	sqlite3_exec(st->db, "PRAGMA max_page_count=100", NULL, NULL, NULL);
	pthread_mutex_unlock(&st->meta);
	memset(name, 'x', 250);
	int err = 0;
	for (i = 0; i < 10000 && !err; i++) {
		snprintf(name + 200, 30, "%d", i);
		err = meta_create(st, INO_ROOT, name, strlen(name), &file_new, &in);
		if (!err)
			inode_put(st, in);
	}
	assert_true(err == -EIO || err == -EROFS);
	assert_int_equal(store_commit(st), -EIO);
	assert_int_equal(meta_create(st, INO_ROOT, "a", 1, &file_new, &in), -EROFS);
	assert_int_equal(meta_lookup(st, INO_ROOT, "before", 6, &in), 0);
	inode_put(st, in);
	assert_int_equal(store_close(st), -EIO);
	assert_int_equal(open_(&st, false), 0);
	assert_int_equal(meta_lookup(st, INO_ROOT, "before", 6, &in), 0);
	inode_put(st, in);
	assert_int_equal(store_close(st), 0);
}

/* --- figures --- */

static void figures(void **state)
{
	struct store_figures f;
	struct store *st;

	(void)state;
	assert_int_equal(open_(&st, false), 0);
	int64_t before = realtime_ns();
	struct inode *in = create(st, "f");
	assert_int_equal(store_figures(st, &f), 0);
	assert_int_equal(f.files, 2);
	assert_int_equal(f.unpublished_files, 2);
	assert_true(f.oldest_ns && f.oldest_ns <= before);
	/* A cut, published; then a newer change. */
	pthread_mutex_lock(&st->meta);
	st->published = st->epoch++;
	pthread_mutex_unlock(&st->meta);
	assert_int_equal(store_figures(st, &f), 0);
	assert_int_equal(f.unpublished_files, 0);
	assert_int_equal(f.oldest_ns, 0);
	fake_write_small(st, in, "x");
	for (int i = 0; i < 20; i++) {
		/* Cuts that nobody can publish. */
		pthread_mutex_lock(&st->meta);
		st->epoch++;
		pthread_mutex_unlock(&st->meta);
		fake_write_small(st, in, "y");
	}
	assert_int_equal(store_figures(st, &f), 0);
	assert_int_equal(f.unpublished_files, 1);
	assert_true(f.oldest_ns >= before && f.oldest_ns <= realtime_ns());
	inode_put(st, in);
	assert_int_equal(store_space_for(st, 4096), 0);
	assert_int_equal(store_space_for(st, UINT64_MAX / 2), -ENOSPC);
	assert_int_equal(store_space_for(st, 4096), 0);
	assert_int_equal(store_close(st), 0);
}

/* Memory and WAL stay bounded while nobody commits, or everybody does. */
static void bounded(void **state)
{
	static char text[60001];
	char name[32], path[256];
	struct store *st;
	struct stat s;

	(void)state;
	memset(text, 'x', sizeof text - 1);
	assert_int_equal(open_(&st, true), 0);
	for (int i = 0; i < 1500; i++) {
		snprintf(name, sizeof name, "%d", i);
		struct inode *in = create(st, name);
		fake_write_small(st, in, text);
		store_pressure(st);
		inode_put(st, in);
		if (i % 20 == 0)
			assert_int_equal(store_commit(st), 0);
		pthread_mutex_lock(&st->meta);
		assert_true(st->small_bytes <= (5 << 20) && st->dirty_cnt <= 4200);
		pthread_mutex_unlock(&st->meta);
	}
	snprintf(path, sizeof path, "%s/meta.db-wal", dir);
	assert_int_equal(stat(path, &s), 0);
	assert_true(s.st_size < 72 << 20);
	assert_int_equal(store_close(st), 0);
	assert_int_equal(stat(path, &s), -1);
}

/* The WAL file has its length before it is written, and keeps it. */
static void long_wal(void **state)
{
	struct store *st;
	char path[256], name[32];
	struct stat was, s;
	bool idle = false;

	(void)state;
	snprintf(path, sizeof path, "%s/meta.db-wal", dir);
	wal_ahead = true;
	assert_int_equal(open_(&st, true), 0);
	wal_ahead = false;
	for (int i = 0; i < 3000 && !idle; i++) {
		usleep(10000);
		pthread_mutex_lock(&st->meta);
		idle = st->commit_idle;
		pthread_mutex_unlock(&st->meta);
	}
	assert_true(idle);
	assert_int_equal(stat(path, &was), 0);
	assert_true(was.st_size > (off_t)st->dbx->wal_limit * 4096);
	for (int i = 0; i < 300; i++) {
		snprintf(name, sizeof name, "%d", i);
		inode_put(st, create(st, name));
		assert_int_equal(store_commit(st), 0);
	}
	assert_int_equal(stat(path, &s), 0);
	assert_int_equal(s.st_size, was.st_size);
	assert_int_equal(store_close(st), 0);
	assert_int_equal(stat(path, &s), -1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(opening, setup, teardown),
		cmocka_unit_test_setup_teardown(foreign, setup, teardown),
		cmocka_unit_test_setup_teardown(damaged, setup, teardown),
		cmocka_unit_test_setup_teardown(orphans, setup, teardown),
		cmocka_unit_test_setup_teardown(file_count, setup, teardown),
		cmocka_unit_test_setup_teardown(numbers, setup, teardown),
		cmocka_unit_test_setup_teardown(killed, setup, teardown),
		cmocka_unit_test_setup_teardown(database_full, setup, teardown),
		cmocka_unit_test_setup_teardown(figures, setup, teardown),
		cmocka_unit_test_setup_teardown(bounded, setup, teardown),
		cmocka_unit_test_setup_teardown(long_wal, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
