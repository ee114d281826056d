/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "net/node.h"

static const uint8_t vol_a[VOL_LEN] = {1}, vol_b[VOL_LEN] = {2};
static char base[64];

static int rm_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	(void)st;
	(void)flag;
	(void)ftw;
	return remove(path);
}

static void rm_tree(const char *path)
{
	nftw(path, rm_one, 16, FTW_DEPTH | FTW_PHYS);
}

static int setup(void **state)
{
	(void)state;
	strcpy(base, "/tmp/hf-test-dir-XXXXXX");
	return mkdtemp(base) ? 0 : -1;
}

static int teardown(void **state)
{
	char small[80];

	(void)state;
	/* Only where a test that mounts it failed. */
	snprintf(small, sizeof small, "%s/small", base);
	umount2(small, MNT_DETACH);
	rm_tree(base);
	return 0;
}

static int64_t soon(void)
{
	return now_ms() + 10000;
}

static struct node *open_at(const char *name, uint16_t number)
{
	char url[256];
	struct node *n;

	snprintf(url, sizeof url, "dir:%s/%s", base, name);
	assert_int_equal(node_open(&n, number, url, NULL), 0);
	return n;
}

static struct node *fresh(const char *name)
{
	struct node *n = open_at(name, 1);

	assert_int_equal(node_init(n, vol_a, soon()), 0);
	assert_int_equal(node_state(n), NODE_UP);
	return n;
}

/* One request, waited for. */
static struct node_io *run(struct node *n, struct node_io *io)
{
	struct node_wait w;

	node_wait_init(&w);
	if (!io->deadline_ms)
		io->deadline_ms = soon();
	node_wait_submit(&w, n, io);
	assert_ptr_equal(node_wait_next(&w, now_ms() + 30000), io);
	node_wait_release(&w);
	return io;
}

static int put(struct node *n, const char *name, const void *p, size_t len)
{
	struct node_io *io = node_io_new(NODE_PUT, name);

	/* In two parts, as shards are. */
	io->iov[0] = (struct iovec){(void *)p, len / 3};
	io->iov[1] = (struct iovec){(uint8_t *)p + len / 3, len - len / 3};
	io->iov_cnt = 2;
	int err = run(n, io)->err;
	node_io_unref(io);
	return err;
}

static int64_t get(struct node *n, const char *name, uint64_t off, size_t len, void *out)
{
	struct node_io *io = node_io_new(NODE_GET, name);

	io->off = off;
	io->len = len;
	run(n, io);
	int64_t rc = io->err ? io->err : (int64_t)io->got;
	if (rc > 0)
		memcpy(out, io->buf, (size_t)rc);
	node_io_unref(io);
	return rc;
}

static unsigned list(struct node *n, const char *prefix, const char *must)
{
	struct node_io *io = node_io_new(NODE_LIST, prefix);
	unsigned cnt = 0, seen = 0;

	run(n, io);
	assert_int_equal(io->err, 0);
	for (size_t at = 0; at < io->list.len; cnt++) {
		const char *name = (char *)io->list.p + at;
		seen += !strcmp(name, must);
		at += strlen(name) + 1;
	}
	node_io_unref(io);
	assert_int_equal(seen, cnt ? 1 : 0);
	return cnt;
}

static char *path_of(const char *rest)
{
	static char path[2][256];
	static unsigned turn;
	char *p = path[turn++ % 2];

	snprintf(p, sizeof path[0], "%s/%s", base, rest);
	return p;
}

static void write_at(const char *rest, const void *p, size_t len)
{
	assert_int_equal(file_write_atomic(path_of(rest), p, len, 0600), 0);
}

static void test_url(void **state)
{
	static const char *const bad[] = {
		"", "dir:", "dir:rel/path", "dir:/", "dir:///.", "/plain/path", "ftp://x/y",
		"dir:/a\nb", "dir:/a\x7f", "dir:/a/../b",
		"dir:/a?x=1", "dir:/a?domain=", "dir:/a?domain=a b", "dir:/a?domain=a&x=1",
	};
	char canon[NODE_URL_CAP], *longest = malloc(NODE_URL_CAP + 1);

	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
		assert_int_equal(node_check_url(bad[i], canon), -EINVAL);
	assert_non_null(strstr(log_last(), "domain"));
	memset(longest, 'a', NODE_URL_CAP);
	longest[NODE_URL_CAP] = 0;
	memcpy(longest, "dir:/", 5);
	assert_int_equal(node_check_url(longest, canon), -EINVAL);
	longest[NODE_URL_CAP - 1] = 0;
	assert_int_equal(node_check_url(longest, canon), 0);
	assert_string_equal(canon, longest);
	free(longest);
	assert_int_equal(node_check_url("dir://a//b/./c/?domain=nas.1-x", canon), 0);
	assert_string_equal(canon, "dir:/a/b/c?domain=nas.1-x");

	struct node *n[3];
	assert_int_equal(node_open(&n[0], 1, "dir:/x?domain=q", NULL), 0);
	assert_int_equal(node_open(&n[1], 2, "dir:/y?domain=q", NULL), 0);
	assert_int_equal(node_open(&n[2], 3, "dir:/z", NULL), 0);
	assert_int_equal(node_domain(n[0]), node_domain(n[1]));
	assert_int_not_equal(node_domain(n[0]), node_domain(n[2]));
	for (int i = 0; i < 3; i++)
		node_close(n[i]);
}

static void test_put_get(void **state)
{
	static uint8_t big[700001], back[sizeof big + 10];
	struct node *n = fresh("n");
	struct stat st;

	(void)state;
	for (size_t i = 0; i < sizeof big; i++)
		big[i] = (uint8_t)(i * 7 + i / 251);
	assert_int_equal(get(n, "s/abcdef", 0, 10, back), -ENOENT);
	assert_int_equal(put(n, "s/abcdef", big, sizeof big), 0);
	assert_int_equal(stat(path_of("n/s/ab/abcdef"), &st), 0);
	assert_int_equal(get(n, "s/abcdef", 0, sizeof back, back), sizeof big);
	assert_memory_equal(big, back, sizeof big);
	assert_int_equal(get(n, "s/abcdef", 5000, 1000, back), 1000);
	assert_memory_equal(big + 5000, back, 1000);
	assert_int_equal(get(n, "s/abcdef", sizeof big - 1, 2, back), 1);
	assert_int_equal(get(n, "s/abcdef", sizeof big + 1, 2, back), 0);
	assert_int_equal(put(n, "l/cx", "", 0), 0);
	assert_int_equal(put(n, "l/cy", "1", 1), 0);
	assert_int_equal(put(n, "l/sz", "1", 1), 0);
	assert_int_equal(get(n, "l/cx", 0, 10, back), 0);

	/* The same again does not write: the file stays the very same one. */
	ino_t ino = st.st_ino;
	assert_int_equal(put(n, "s/abcdef", big, sizeof big), 0);
	stat(path_of("n/s/ab/abcdef"), &st);
	assert_int_equal(st.st_ino, ino);
	/* A damaged file of the right length, a short one, a FIFO: replaced by genuine bytes. */
	big[650000] ^= 1;
	write_at("n/s/ab/abcdef", big, sizeof big);
	big[650000] ^= 1;
	for (int i = 0; i < 3; i++) {
		assert_int_equal(put(n, "s/abcdef", big, sizeof big), 0);
		assert_int_equal(get(n, "s/abcdef", 0, sizeof back, back), sizeof big);
		assert_memory_equal(big, back, sizeof big);
		unlink(path_of("n/s/ab/abcdef"));
		if (i == 0)
			write_at("n/s/ab/abcdef", big, 100);
		else
			assert_int_equal(mkfifo(path_of("n/s/ab/abcdef"), 0600), 0);
	}
	unlink(path_of("n/s/ab/abcdef"));

	/* Names that could lead elsewhere are refused. */
	assert_int_equal(put(n, "s/../x", "1", 1), -EINVAL);
	assert_int_equal(put(n, "x", "1", 1), -EINVAL);
	assert_int_equal(put(n, "/etc/x", "1", 1), -EINVAL);
	assert_int_equal(put(n, "s/.tmp-1", "1", 1), -EINVAL);
	assert_int_equal(get(n, "v/../x", 0, 1, back), -EINVAL);
	assert_null(node_io_new(NODE_GET, "s/0123456789012345678901234567890123456789012345678"));

	/* Lists show blobs and nothing else. */
	assert_int_equal(put(n, "s/zz11", "1", 1), 0);
	assert_int_equal(put(n, "s/zy22", "1", 1), 0);
	write_at("n/s/zz/.tmp-5", "x", 1);
	write_at("n/l/README.txt", "x", 1);
	assert_int_equal(list(n, "s/", "s/zz11"), 2);
	assert_int_equal(list(n, "s/zz", "s/zz11"), 1);
	assert_int_equal(list(n, "l/c", "l/cx"), 2);
	assert_int_equal(list(n, "l/", "l/sz"), 3);
	assert_int_equal(list(n, "q/", ""), 0);

	struct node_io *io = run(n, node_io_new(NODE_DEL, "l/cx"));
	assert_int_equal(io->err, 0);
	node_io_unref(io);
	assert_int_equal(get(n, "l/cx", 0, 10, back), -ENOENT);
	io = run(n, node_io_new(NODE_DEL, "l/cx"));
	assert_int_equal(io->err, 0);
	node_io_unref(io);

	struct node_info info;
	node_get_info(n, &info);
	assert_int_equal(info.state, NODE_UP);
	assert_true(info.total_bytes > 0 && info.free_bytes <= info.total_bytes);
	assert_string_equal(info.kind, "dir");
	node_close(n);
}

static void test_marker(void **state)
{
	uint8_t back[100];

	(void)state;
	/* The directory above is not made. */
	struct node *n = open_at("no/n", 1);
	assert_int_equal(node_init(n, vol_a, soon()), -ENODEV);
	node_close(n);
	n = fresh("n");
	assert_int_equal(put(n, "l/c1", "1", 1), 0);
	/* Again is no error, another volume or number is. */
	assert_int_equal(node_init(n, vol_a, soon()), 0);
	assert_int_equal(node_init(n, vol_b, soon()), -EEXIST);
	assert_int_equal(node_verify(n, vol_b, soon()), -EBADMSG);
	assert_int_equal(node_state(n), NODE_WRONG);
	assert_false(node_usable(n) || node_readable(n));
	/* And then nothing goes there. */
	assert_int_equal(put(n, "l/c2", "1", 1), -ENODEV);
	assert_int_equal(access(path_of("n/l/c2"), F_OK), -1);
	assert_int_equal(node_verify(n, vol_a, soon()), 0);
	assert_int_equal(node_state(n), NODE_UP);
	node_close(n);
	n = open_at("n", 2);
	assert_int_equal(node_init(n, vol_a, soon()), -EEXIST);
	assert_int_equal(node_verify(n, vol_a, soon()), -EBADMSG);
	node_close(n);

	/* Not verified: not touched. */
	n = open_at("n", 1);
	assert_int_equal(node_state(n), NODE_DOWN);
	assert_int_equal(put(n, "l/c2", "1", 1), -ENODEV);
	assert_int_equal(get(n, "l/c1", 0, 1, back), -ENODEV);
	/* A missing marker, a longer one. */
	assert_int_equal(rename(path_of("n/v/node"), path_of("keep")), 0);
	assert_int_equal(node_verify(n, vol_a, soon()), -ENOENT);
	assert_int_equal(node_state(n), NODE_WRONG);
	assert_int_equal(node_init(n, vol_a, soon()), -ENOTEMPTY);
	struct buf b = {0};
	assert_int_equal(file_read(path_of("keep"), 1000, &b), 0);
	buf_u8(&b, 0);
	write_at("n/v/node", b.p, b.len);
	assert_int_equal(node_verify(n, vol_a, soon()), -EBADMSG);
	write_at("n/v/node", b.p, b.len - 1);
	assert_int_equal(node_verify(n, vol_a, soon()), 0);
	buf_release(&b);
	node_close(n);
}

static void test_vanish(void **state)
{
	struct node *n = fresh("n");
	uint8_t back[10];

	(void)state;
	assert_int_equal(put(n, "l/c1", "1", 1), 0);
	/* Moved away, as an unmounted disk: an empty directory in its place gets nothing. */
	assert_int_equal(rename(path_of("n"), path_of("away")), 0);
	assert_int_equal(node_verify(n, vol_a, soon()), -ENODEV);
	assert_int_equal(node_state(n), NODE_DOWN);
	assert_int_equal(put(n, "l/c2", "1", 1), -ENODEV);
	assert_int_equal(mkdir(path_of("n"), 0700), 0);
	assert_int_equal(node_verify(n, vol_a, soon()), -ENOENT);
	assert_int_equal(node_state(n), NODE_WRONG);
	assert_int_equal(put(n, "l/c2", "1", 1), -ENODEV);
	assert_int_equal(rmdir(path_of("n")), 0);
	assert_int_equal(rename(path_of("away"), path_of("n")), 0);
	assert_int_equal(node_verify(n, vol_a, soon()), 0);
	assert_int_equal(get(n, "l/c1", 0, 10, back), 1);
	/* Deleted, and noticed by a request before any verification. */
	rm_tree(path_of("n"));
	assert_int_equal(get(n, "l/c1", 0, 10, back), -ENODEV);
	assert_int_equal(node_state(n), NODE_DOWN);
	assert_int_equal(put(n, "l/c1", "1", 1), -ENODEV);
	struct node_info info;
	node_get_info(n, &info);
	assert_true(info.error[0]);
	node_close(n);
}

static _Atomic int released;

static void on_release(struct node_io *io)
{
	assert_true(io->fired);
	atomic_fetch_add(&released, 1);
}

static void test_hang(void **state)
{
	static uint8_t bytes[100];
	uint8_t back[10];
	struct node *n = fresh("n");
	struct node_wait w;

	(void)state;
	assert_int_equal(put(n, "l/c1", "1", 1), 0);
	assert_int_equal(mkfifo(path_of("n/l/hang"), 0600), 0);
	/* More hanging requests than threads: each ends in time, others go on between. */
	int64_t start = now_ms();
	node_wait_init(&w);
	for (int i = 0; i < 10; i++) {
		struct node_io *io = node_io_new(NODE_GET, "l/hang");
		io->len = 10;
		io->deadline_ms = now_ms() + 100 + i * 10;
		node_wait_submit(&w, n, io);
	}
	for (int i = 0; i < 10; i++) {
		struct node_io *io = node_wait_next(&w, now_ms() + 30000);
		assert_non_null(io);
		assert_int_equal(io->err, -ETIMEDOUT);
		node_io_unref(io);
	}
	assert_in_range(now_ms() - start, 90, 30000);
	assert_null(node_wait_next(&w, now_ms() + 10));
	assert_int_equal(get(n, "l/c1", 0, 10, back), 1);

	/* A PUT behind them that is given up lets its memory go at once, exactly once. */
	for (int i = 0; i < 20; i++) {
		struct node_io *io = node_io_new(NODE_GET, "l/hang");
		io->len = 10;
		io->deadline_ms = now_ms() + 60000;
		node_wait_submit(&w, n, io);
	}
	struct node_io *io = node_io_new(NODE_PUT, "l/c9");
	io->iov[0] = (struct iovec){bytes, sizeof bytes};
	io->iov_cnt = 1;
	io->release = on_release;
	io->deadline_ms = now_ms() + 100;
	node_wait_submit(&w, n, io);
	io = node_wait_next(&w, now_ms() + 30000);
	assert_non_null(io);
	assert_int_equal(io->op, NODE_PUT);
	assert_int_equal(io->err, -ETIMEDOUT);
	node_io_unref(io);
	for (int i = 0; i < 3000 && !released; i++)
		usleep(10000);
	assert_int_equal(released, 1);

	/* Neither release nor close waits for what hangs. */
	start = now_ms();
	node_wait_release(&w);
	node_close(n);
	/* They have a minute. */
	assert_in_range(now_ms() - start, 0, 30000);
	assert_int_equal(released, 1);
	/* Those who hang are freed by a writer, and end without harm. */
	for (int i = 0; i < 40; i++) {
		int fd = open(path_of("n/l/hang"), O_RDWR | O_NONBLOCK);
		usleep(2000);
		close(fd);
	}
}

static _Atomic int done_cnt;

static void on_done(struct node_io *io)
{
	(void)io;
	atomic_fetch_add(&done_cnt, 1);
}

struct hammer {
	struct node *n;
	unsigned seed;
};

static void *hammer(void *arg)
{
	struct hammer *h = arg;
	static uint8_t bytes[3000];

	for (int i = 0; i < 150; i++) {
		char name[32];
		bool write = rand_r(&h->seed) % 2;
		snprintf(name, sizeof name, "s/%c%c%u", 'a' + rand_r(&h->seed) % 3, 'a',
			 rand_r(&h->seed) % 4);
		struct node_io *io = node_io_new(write ? NODE_PUT : NODE_GET, name);
		io->iov[0] = (struct iovec){bytes, sizeof bytes};
		io->iov_cnt = 1;
		io->len = sizeof bytes;
		io->done = on_done;
		io->release = on_release;
		io->deadline_ms = now_ms() + rand_r(&h->seed) % 8;
		node_submit(h->n, io);
		if (rand_r(&h->seed) % 3 == 0)
			node_cancel(io);
		node_io_unref(io);
	}
	return NULL;
}

/* Deadlines, cancellations and answers race; each request ends once, is released once. */
static void test_races(void **state)
{
	struct node *n = fresh("n");
	struct hammer h[4];
	pthread_t t[4];

	(void)state;
	done_cnt = released = 0;
	for (unsigned i = 0; i < 4; i++) {
		h[i] = (struct hammer){n, i + 1};
		assert_int_equal(pthread_create(&t[i], NULL, hammer, &h[i]), 0);
	}
	for (int i = 0; i < 4; i++)
		pthread_join(t[i], NULL);
	node_close(n);
	assert_int_equal(done_cnt, 600);
	assert_int_equal(released, 600);
}

static void test_full(void **state)
{
	static uint8_t big[4800000];
	uint8_t back[10];

	(void)state;
	assert_int_equal(mkdir(path_of("small"), 0700), 0);
	if (geteuid() != 0 || mount("tmpfs", path_of("small"), "tmpfs", 0, "size=8m") < 0) {
		print_message("no tmpfs can be mounted here: skipped\n");
		skip();
	}
	struct node *n = open_at("small/n", 1);
	assert_int_equal(node_init(n, vol_a, soon()), 0);
	assert_int_equal(put(n, "s/aa1", big, sizeof big), 0);
	assert_int_equal(put(n, "s/aa2", big, sizeof big), -ENOSPC);
	assert_int_equal(node_state(n), NODE_FULL);
	assert_true(node_readable(n) && !node_usable(n));
	/* Nothing half-written is left, and reads go on. */
	assert_int_equal(list(n, "s/", "s/aa1"), 1);
	assert_int_equal(get(n, "s/aa1", 0, 10, back), 10);
	struct node_io *io = run(n, node_io_new(NODE_DEL, "s/aa1"));
	node_io_unref(io);
	assert_int_equal(node_verify(n, vol_a, soon()), 0);
	assert_int_equal(node_state(n), NODE_UP);
	assert_int_equal(put(n, "s/aa2", big, sizeof big), 0);
	/* Read-only: refused, and said so. */
	assert_int_equal(mount("", path_of("small"), "", MS_REMOUNT | MS_RDONLY, ""), 0);
	assert_int_equal(put(n, "s/aa3", big, 10), -EROFS);
	assert_int_equal(node_state(n), NODE_REFUSING);
	assert_int_equal(node_verify(n, vol_a, soon()), -EROFS);
	assert_int_equal(node_state(n), NODE_REFUSING);
	assert_int_equal(get(n, "s/aa2", 0, 10, back), 10);
	assert_int_equal(mount("", path_of("small"), "", MS_REMOUNT, ""), 0);
	assert_int_equal(node_verify(n, vol_a, soon()), 0);
	assert_int_equal(node_state(n), NODE_UP);
	node_close(n);
	assert_int_equal(umount(path_of("small")), 0);
}

static void test_stale_tmp(void **state)
{
	struct node *n = fresh("n");
	struct timespec old[2] = {{.tv_sec = 1000}, {.tv_sec = 1000}};

	(void)state;
	assert_int_equal(put(n, "s/abcd", "1", 1), 0);
	node_close(n);
	write_at("n/s/ab/.tmp-old", "x", 1);
	assert_int_equal(utimensat(AT_FDCWD, path_of("n/s/ab/.tmp-old"), old, 0), 0);
	write_at("n/s/ab/.tmp-new", "x", 1);
	n = open_at("n", 1);
	assert_int_equal(node_verify(n, vol_a, soon()), 0);
	/* The sweep comes after the first probe that finds the marker known to be right. */
	assert_int_equal(node_verify(n, vol_a, soon()), 0);
	node_close(n);
	assert_int_equal(access(path_of("n/s/ab/.tmp-old"), F_OK), -1);
	assert_int_equal(access(path_of("n/s/ab/.tmp-new"), F_OK), 0);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_url),  T(test_put_get), T(test_marker), T(test_vanish),
		T(test_hang), T(test_races),   T(test_full),   T(test_stale_tmp),
	};

	log_set_quiet(true);
	log_set_level(LOG_LVL_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
