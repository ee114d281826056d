/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * A disk that gets full (L6): on small file systems in memory, programs write until there is
 * no space and then go on trying.  What was said to be written must be readable, committed by
 * an fsync and there after a crash; the database must never meet the end of the disk; removing
 * makes room again.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "cache/data.h"
#include "cache/meta.h"

#define FILES 20000

static unsigned seed;
static char dir[64];

static unsigned rnd(unsigned n)
{
	return (unsigned)rand_r(&seed) % n;
}

/* What file i holds: bytes of a sequence of its own. */
static struct {
	uint32_t size, have; /* have: accepted from the beginning on */
	bool exists;
} model[FILES];

static uint8_t byte(unsigned i, uint32_t at)
{
	return (uint8_t)(1 + (i * 31 + at / 7 + at) % 255);
}

static struct store *open_store(void)
{
	struct store_opts o = {.dir = dir, .commit_ms = 100};
	struct store *st;

	assert_int_equal(store_open(&st, &o), 0);
	assert_int_equal(store_init_root(st, 0, 0, 0755), 0);
	assert_int_equal(store_start(st), 0);
	assert_int_equal(data_start(st), 0);
	return st;
}

static void check_all(struct store *st)
{
	static uint8_t b[1 << 20];

	for (unsigned i = 0; i < FILES; i++) {
		struct inode *in;
		char name[64];

		if (!model[i].exists)
			continue;
		int len = snprintf(name, sizeof name, "a file with quite a long name %u", i);
		assert_int_equal(meta_lookup(st, INO_ROOT, name, (size_t)len, &in), 0);
		int64_t n = data_read(st, in, b, sizeof b, 0);
		if (n < model[i].have)
			fail_msg("file %u: %lld bytes of %u", i, (long long)n, model[i].have);
		for (uint32_t at = 0; at < model[i].have; at++)
			if (b[at] != byte(i, at))
				fail_msg("file %u at %u of %u: %02x, not %02x", i, at, model[i].have, b[at], byte(i, at));
		inode_put(st, in);
	}
}

enum kind { TINY, SMALL, LARGE, MIXED, KINDS };

/* One file of a kind; -ENOSPC, or 0. */
static int make(struct store *st, unsigned i, enum kind kind)
{
	static uint8_t b[300000];
	struct meta_new n = {.mode = S_IFREG | 0644};
	struct inode *in;
	char name[64];
	uint32_t size = kind == TINY	? rnd(100)
			: kind == SMALL ? 1 + rnd(60000)
			: kind == LARGE ? 70000 + rnd(200000)
			: rnd(2)	? rnd(5000)
					: rnd(290000);
	int len = snprintf(name, sizeof name, "a file with quite a long name %u", i);

	int err = meta_create(st, INO_ROOT, name, (size_t)len, &n, &in);
	if (err)
		return err;
	model[i].exists = true;
	model[i].have = 0;
	for (uint32_t at = 0; at < size; at++)
		b[at] = byte(i, at);
	for (uint32_t at = 0; at < size && !err;) {
		uint32_t part = 1 + rnd(131072);

		part = HF_MIN(size - at, part);
		err = data_write(st, in, b + at, part, at, false);
		if (!err)
			model[i].have = at += part;
	}
	if (!err && rnd(20) == 0)
		assert_int_equal(data_sync(st, in, false), 0);
	inode_put(st, in);
	return err;
}

static void drop(struct store *st, unsigned i)
{
	char name[64];
	uint64_t ino;
	int len = snprintf(name, sizeof name, "a file with quite a long name %u", i);

	if (!model[i].exists)
		return;
	assert_int_equal(meta_unlink(st, INO_ROOT, name, (size_t)len, false, &ino), 0);
	meta_reap(st, ino);
	model[i].exists = false;
}

static void fill(unsigned mib, enum kind kind)
{
	char size[64];
	unsigned made = 0, refused = 0, i;

	snprintf(size, sizeof size, "size=%uM", mib);
	if (mount("none", dir, "tmpfs", 0, size)) {
		print_message("no tmpfs can be mounted here\n");
		skip();
	}
	memset(model, 0, sizeof model);
	struct store *st = open_store();
	int64_t until = now_ms() + 1500;
	for (i = 0; i < FILES && now_ms() < until; i++) {
		int err = make(st, i, kind);
		if (err && err != -ENOSPC)
			fail_msg("%u MiB, kind %d: %d (%s)", mib, kind, err, st->fail_msg);
		made += !err;
		refused += !!err;
		assert_int_equal(st->failed, 0);
		if (refused > 2000)
			break;
	}
	assert_int_equal(store_commit_all(st), 0);
	check_all(st);
	assert_int_equal(st->failed, 0);
	struct statvfs v;
	statvfs(dir, &v);
	print_message("%u MiB, kind %d: %u made, %u refused, %llu KiB left\n", mib, kind, made,
		      refused, (unsigned long long)v.f_bavail * v.f_frsize / 1024);
	/* Room again. */
	for (unsigned k = 0; k < i; k += 2)
		drop(st, k);
	assert_int_equal(store_commit_all(st), 0);
	assert_int_equal(st->failed, 0);
	for (int64_t end = now_ms() + 60000; refused && make(st, FILES - 1, TINY);) {
		assert_true(now_ms() < end);
		/* Its name may have had room when its contents had none. */
		drop(st, FILES - 1);
		usleep(20000);
	}
	check_all(st);
	data_stop(st);
	assert_int_equal(store_close(st), 0);
	st = open_store();
	assert_false(st->unclean);
	check_all(st);
	data_stop(st);
	assert_int_equal(store_close(st), 0);
	assert_int_equal(umount(dir), 0);
}

static void full(void **state)
{
	(void)state;
	for (unsigned k = 0; k < KINDS; k++)
		fill(24, (enum kind)k);
	fill(80, SMALL);
	fill(80, MIXED);
}

static int setup(void **state)
{
	(void)state;
	strcpy(dir, "/tmp/hf-test-space-XXXXXX");
	return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	umount2(dir, MNT_DETACH);
	return rmdir(dir);
}

int main(void)
{
	const char *s = getenv("SEED");
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(full, setup, teardown),
	};

	log_set_level(LOG_LVL_WARN);
	seed = s ? (unsigned)strtoul(s, NULL, 0) : (unsigned)time(NULL);
	print_message("SEED=%u\n", seed);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
