/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#include "drive_util.h"

static char said[8192];

static void note(void *arg, const char *what)
{
	(void)arg;
	strncat(said, what, sizeof said - strlen(said) - 2);
	strcat(said, "\n");
}

static int64_t check(struct store *st, bool nodes, bool repair)
{
	struct check_opts o = {.nodes = nodes, .deep = nodes, .repair = repair, .found = note};

	said[0] = 0;
	return check_store(st, &o);
}

static void sql(struct store *st, const char *text)
{
	char *err = NULL;

	pthread_mutex_lock(&st->meta);
	if (sqlite3_exec(st->db, text, NULL, NULL, &err) != SQLITE_OK)
		fail_msg("%s: %s", text, err);
	pthread_mutex_unlock(&st->meta);
}

static void make(struct drive *d)
{
	dv_open(d);
	dv_start(d);
	uint64_t a = dv_mkdir(d->st, 1, "a");

	dv_mkdir(d->st, a, "b");
	dv_write(d->st, a, "small", 0, 3000, 1);
	dv_write(d->st, a, "large", 0, 300000, 1);
	assert_int_equal(dv_publish(d), 0);
	dv_stop(d);
	assert_int_equal(check(d->st, true, false), 0);
	assert_string_equal(said, "");
}

/* Every kind of damage is said, and a sound drive gives none. */
static void test_tables(void **state)
{
	static const struct {
		const char *damage, *words;
	} kinds[] = {
		{"UPDATE inode SET nlink=nlink+1 WHERE (mode&61440)=32768 AND size=3000",
		 "says it has 2 names and has 1"},
		{"UPDATE inode SET nlink=9 WHERE ino=1", "says it has 9 names"},
		{"DELETE FROM inode WHERE size=3000", "is not there"},
		{"UPDATE dirent SET mode=16384 WHERE name=CAST('small' AS BLOB)",
		 "another type"},
		{"UPDATE inode SET parent=77 WHERE parent=1", "says its parent is 77"},
		{"UPDATE dirent SET parent=(SELECT ino FROM dirent WHERE name=CAST('b' AS "
		 "BLOB)) "
		 "WHERE name=CAST('a' AS BLOB)",
		 "cannot be reached"},
		{"UPDATE extent SET seg=99999", "does not lie within a segment"},
		{"UPDATE extent SET seg_off=16000000", "does not lie within a segment"},
		{"INSERT INTO extent SELECT ino,off+1,len,seg,seg_off FROM extent",
		 "runs into the next"},
		{"DELETE FROM small", "are not"},
		{"UPDATE small SET bytes=x'00'", "other length"},
		{"UPDATE span SET map=x'ff00'", "is damaged"},
		{"UPDATE segment SET missing=1", "its row says 1"},
		{"UPDATE segment SET cps=0 WHERE kind=1", "not possible"},
		{"INSERT INTO xattr VALUES(4711,x'61',x'62')", "an xattr row of inode 4711"},
		{"INSERT INTO pending VALUES(9,1,x'',x'')", "is pending after"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
		struct drive d;
		char dir[96];

		make(&d);
		assert_int_equal(store_close(d.st), 0);
		snprintf(dir, sizeof dir, "%s/copy", d.x.base);
		dv_copy(d.dir, dir);
		d.st = dv_store(&d, dir);
		sql(d.st, kinds[i].damage);
		check(d.st, false, false);
		if (!strstr(said, kinds[i].words))
			fail_msg("%s: said %s", kinds[i].damage, said);
		store_close(d.st); /* may have failed by what it met */
		d.st = NULL;
		dv_close(&d);
	}
}

static void test_cache_file(void **state)
{
	struct drive d;
	char path[256], cmd[64];

	(void)state;
	make(&d);
	uint64_t ino = dv_number(d.st, "SELECT ino FROM inode WHERE size=300000");

	cfile_name(ino, CF_MAIN, cmd);
	snprintf(path, sizeof path, "%s/data/%s", d.dir, cmd);
	struct inode *in;
	uint8_t *want = malloc(300000), *got = malloc(300000);

	assert_int_equal(inode_get(d.st, ino, &in), 0);
	assert_int_equal(data_read(d.st, in, want, 300000, 0), 300000);
	assert_int_equal(truncate(path, 100000), 0);
	assert_int_equal(check(d.st, false, false), 1);
	assert_non_null(strstr(said, "bytes 100000 to 300000 are not in its cache file"));
	assert_int_equal(check(d.st, false, true), 1);
	assert_int_equal(check(d.st, false, false), 0);
	/* They are fetched again. */
	assert_int_equal(data_read(d.st, in, got, 300000, 0), 300000);
	assert_memory_equal(got, want, 300000);
	inode_put(d.st, in);
	free(want);
	free(got);
	dv_close(&d);
}

static void test_nodes(void **state)
{
	struct drive d;
	struct seg_place place;
	bool is_inline;
	struct buf none = {0};
	char path[256];

	(void)state;
	make(&d);
	uint64_t seg = dv_number(d.st, "SELECT seg FROM segment WHERE kind=1");

	pthread_mutex_lock(&d.st->meta);
	assert_int_equal(segment_place_locked(d.st, seg, &place, &none, &is_inline), 0);
	pthread_mutex_unlock(&d.st->meta);
	fx_shard_path(&d.x, &place, 1, path);
	assert_int_equal(unlink(path), 0);
	fx_shard_path(&d.x, &place, 4, path);

	int fd = open(path, O_RDWR);
	uint8_t b;

	assert_true(fd >= 0);
	assert_int_equal(pread(fd, &b, 1, 500), 1);
	b ^= 1;
	assert_int_equal(pwrite(fd, &b, 1, 500), 1);
	close(fd);
	assert_int_equal(check(d.st, true, false), 2);
	assert_non_null(strstr(said, "shard 1 is not on node"));
	assert_non_null(strstr(said, "shard 4 on node"));
	check(d.st, true, true);
	/* What is rebuilt is whole; a damaged blob is never overwritten, so it may stay bad. */
	assert_true(check(d.st, true, false) <= 1);
	assert_null(strstr(said, "shard 1 "));
	dv_close(&d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_tables),
		cmocka_unit_test(test_cache_file),
		cmocka_unit_test(test_nodes),
	};

	if (keys_global_init())
		return 1;
	log_set_quiet(true);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
