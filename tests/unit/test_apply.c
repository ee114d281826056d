/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#include "drive_util.h"

/* Records by hand, without nodes. */
struct hand {
	char dir[64];
	struct store *st;
	struct apply *a;
	struct buf rec;
	struct rec_stamp stamp;
};

static void hand_open(struct hand *h)
{
	struct store_opts o = {.dir = h->dir};

	*h = (struct hand){.stamp = {.lamport = 1, .device = 1}};
	strcpy(h->dir, "/tmp/hf-test-apply-XXXXXX");
	assert_non_null(mkdtemp(h->dir));
	o.dir = h->dir;
	assert_int_equal(store_open(&h->st, &o), 0);
	pthread_mutex_lock(&h->st->meta);
	assert_int_equal(store_set_device(h->st, 1), 0);
	pthread_mutex_unlock(&h->st->meta);
	assert_int_equal(apply_new(&h->a, h->st, NULL, NULL), 0);
}

static void hand_close(struct hand *h)
{
	apply_free(h->a);
	buf_release(&h->rec);
	assert_int_equal(store_close(h->st), 0);
	fx_rm_tree(h->dir);
}

#define DEV1(n) ((uint64_t)1 << DEVICE_SHIFT | (n))

static void put_inode(struct hand *h, uint64_t ino, uint32_t mode, uint64_t size)
{
	struct rec_inode r = {.ino = ino,
			      .mode = mode,
			      .nlink = S_ISDIR(mode) ? 2 : 1,
			      .size = size,
			      .parent = S_ISDIR(mode) && ino != 1 ? 1 : 0};

	if (S_ISLNK(mode)) {
		r.target = (const uint8_t *)"there";
		r.target_len = 5;
	}
	rec_put_inode(&h->rec, h->stamp, &r);
}

static void put_link(struct hand *h, bool un, uint64_t lid, uint64_t parent, const char *name,
		     uint64_t ino, uint32_t mode)
{
	struct rec_link l = {.lid = lid,
			     .parent = parent,
			     .ino = ino,
			     .mode = mode & S_IFMT,
			     .name = (const uint8_t *)name,
			     .name_len = (uint8_t)strlen(name)};

	if (un)
		rec_put_unlink(&h->rec, h->stamp, &l);
	else
		rec_put_link(&h->rec, h->stamp, &l);
}

/* What was put is one object of the history. */
static int feed(struct hand *h)
{
	struct hist_head head = {.device = 1};
	struct rd r = rd_over(h->rec.p, h->rec.len);
	int err;

	assert_int_equal(h->rec.err, 0);
	assert_int_equal(apply_cb.begin(h->a, &head), 0);
	err = apply_cb.records(h->a, &r);
	if (!err)
		err = apply_cb.end(h->a, &head);
	buf_reset(&h->rec);
	h->stamp.lamport++;
	return err;
}

static int finish(struct hand *h)
{
	struct hist_state hs = {.lamport = 77, .time_ns = 5};

	return apply_finish(h->a, &hs);
}

static uint64_t ino_of(struct store *st, uint64_t dir, const char *name)
{
	struct inode *in;

	if (meta_lookup(st, dir, name, strlen(name), &in))
		return 0;
	uint64_t ino = in->ino;

	inode_put(st, in);
	return ino;
}

static void test_names(void **state)
{
	struct hand h;

	(void)state;
	hand_open(&h);
	put_inode(&h, 1, S_IFDIR | 0755, 0);
	put_inode(&h, DEV1(2), S_IFDIR | 0700, 0);
	put_inode(&h, DEV1(3), S_IFREG | 0600, 0);
	put_inode(&h, DEV1(4), S_IFREG | 0600, 0);
	put_inode(&h, DEV1(5), S_IFREG | 0600, 0); /* has no name */
	put_inode(&h, DEV1(6), S_IFLNK | 0777, 5);
	/* A name before its directory's record, and an inode with two names. */
	put_link(&h, false, DEV1(10), DEV1(2), "x", DEV1(3), S_IFREG);
	put_link(&h, false, DEV1(11), 1, "dir", DEV1(2), S_IFDIR);
	put_link(&h, false, DEV1(12), 1, "y", DEV1(4), S_IFREG);
	put_link(&h, false, DEV1(13), 1, "hard", DEV1(4), S_IFREG);
	put_link(&h, false, DEV1(14), 1, "ln", DEV1(6), S_IFLNK);
	assert_int_equal(feed(&h), 0);
	/* A rename: the old creation goes, a new one comes. */
	put_link(&h, false, DEV1(15), 1, "moved", DEV1(3), S_IFREG);
	put_link(&h, true, DEV1(10), DEV1(2), "x", DEV1(3), S_IFREG);
	assert_int_equal(feed(&h), 0);
	assert_int_equal(finish(&h), 0);
	assert_int_equal(ino_of(h.st, 1, "moved"), DEV1(3));
	assert_int_equal(ino_of(h.st, DEV1(2), "x"), 0);
	assert_int_equal(ino_of(h.st, 1, "hard"), DEV1(4));
	assert_int_equal(meta_files(h.st), 5);

	struct inode *in;

	assert_int_equal(inode_get(h.st, DEV1(4), &in), 0);
	assert_int_equal(in->nlink, 2);
	inode_put(h.st, in);
	assert_int_equal(inode_get(h.st, 1, &in), 0);
	assert_int_equal(in->nlink, 3);
	inode_put(h.st, in);
	assert_int_equal(inode_get(h.st, DEV1(5), &in), -ENOENT);
	/* New numbers begin above all that were seen. */
	struct meta_new n = {.mode = S_IFREG | 0600};

	assert_int_equal(meta_create(h.st, 1, "new", 3, &n, &in), 0);
	assert_true(in->ino > DEV1(6));
	assert_true(in->chg > h.st->published);
	inode_put(h.st, in);
	assert_int_equal(dv_check(h.st, false), 0);
	hand_close(&h);
}

/* Older commits replayed over a newer snapshot: the later creation of a name stays. */
static void test_replay(void **state)
{
	for (int twice = 0; twice < 2; twice++) {
		struct hand h;

		(void)state;
		hand_open(&h);
		h.stamp.lamport = 9;
		put_inode(&h, 1, S_IFDIR | 0755, 0);
		put_inode(&h, DEV1(7), S_IFREG | 0600, 0);
		put_link(&h, false, DEV1(20), 1, "a", DEV1(7), S_IFREG);
		assert_int_equal(feed(&h), 0);
		for (int i = 0; i <= twice; i++) {
			h.stamp.lamport = 5;
			put_inode(&h, DEV1(3), S_IFREG | 0600, 0);
			put_link(&h, false, DEV1(10), 1, "a", DEV1(3), S_IFREG);
			assert_int_equal(feed(&h), 0);
			h.stamp.lamport = 9;
			put_link(&h, true, DEV1(10), 1, "a", DEV1(3), S_IFREG);
			rec_put_gone(&h.rec, h.stamp, DEV1(3));
			put_inode(&h, DEV1(7), S_IFREG | 0600, 0);
			put_link(&h, false, DEV1(20), 1, "a", DEV1(7), S_IFREG);
			assert_int_equal(feed(&h), 0);
		}
		assert_int_equal(finish(&h), 0);
		assert_int_equal(ino_of(h.st, 1, "a"), DEV1(7));
		assert_int_equal(meta_files(h.st), 2);
		assert_int_equal(dv_check(h.st, false), 0);
		hand_close(&h);
	}
}

/* Two devices made one name: the later stamp wins, the other has no name any more. */
static void test_collision(void **state)
{
	struct hand h;

	(void)state;
	hand_open(&h);
	put_inode(&h, 1, S_IFDIR | 0755, 0);
	put_inode(&h, DEV1(3), S_IFREG | 0600, 0);
	put_link(&h, false, DEV1(10), 1, "a", DEV1(3), S_IFREG);
	assert_int_equal(feed(&h), 0);
	put_inode(&h, DEV1(4), S_IFREG | 0600, 0);
	put_link(&h, false, DEV1(9), 1, "a", DEV1(4), S_IFREG);
	assert_int_equal(feed(&h), 0);
	assert_int_equal(finish(&h), 0);
	assert_int_equal(ino_of(h.st, 1, "a"), DEV1(4));
	assert_int_equal(meta_files(h.st), 2);
	hand_close(&h);
}

static void test_contents(void **state)
{
	struct hand h;
	uint8_t bytes[1000], got[100001];
	struct inode *in;

	(void)state;
	hand_open(&h);
	fx_fill(bytes, sizeof bytes, 1);
	put_inode(&h, 1, S_IFDIR | 0755, 0);
	put_inode(&h, DEV1(2), S_IFREG | 0600, 500);
	put_inode(&h, DEV1(3), S_IFREG | 0600, 100000);
	put_link(&h, false, DEV1(10), 1, "s", DEV1(2), S_IFREG);
	put_link(&h, false, DEV1(11), 1, "l", DEV1(3), S_IFREG);
	struct rec_inline inl = {.id = {{1}}, .data = bytes, .len = sizeof bytes};
	struct rec_extent e[2] = {{.off = 0, .len = 500, .seg = 0, .seg_off = 100}};
	struct rec_range all = {0, UINT64_MAX};

	rec_put_inline(&h.rec, h.stamp, &inl);
	rec_put_content(&h.rec, h.stamp, DEV1(2), 500, &all, 1, e, 1);
	e[0] = (struct rec_extent){.off = 10, .len = 1000, .seg = 0, .seg_off = 0};
	rec_put_content(&h.rec, h.stamp, DEV1(3), 100000, &all, 1, e, 1);
	assert_int_equal(feed(&h), 0);
	/* Dropped and overwritten in part; the segment is introduced again. */
	struct rec_range part = {500, 100};

	rec_put_inline(&h.rec, h.stamp, &inl);
	e[0] = (struct rec_extent){.off = 200, .len = 50, .seg = 0, .seg_off = 900};
	rec_put_content(&h.rec, h.stamp, DEV1(3), 100000, &part, 1, e, 1);
	assert_int_equal(feed(&h), 0);
	assert_int_equal(finish(&h), 0);
	assert_int_equal(dv_number(h.st, "SELECT count(*) FROM segment"), 1);
	in = dv_file(h.st, 1, "s");
	assert_int_equal(data_read(h.st, in, got, sizeof got, 0), 500);
	assert_memory_equal(got, bytes + 100, 500);
	inode_put(h.st, in);
	in = dv_file(h.st, 1, "l");
	assert_int_equal(data_read(h.st, in, got, sizeof got, 0), 100000);
	assert_int_equal(got[5], 0);
	assert_memory_equal(got + 10, bytes, 190);
	assert_memory_equal(got + 200, bytes + 900, 50);
	assert_memory_equal(got + 250, bytes + 240, 250);
	assert_int_equal(got[550], 0);
	assert_memory_equal(got + 600, bytes + 590, 410);
	inode_put(h.st, in);
	hand_close(&h);
}

static void test_refused(void **state)
{
	struct hand h;

	(void)state;
	/* An extent of a segment that was not introduced, or beyond its end. */
	for (int i = 0; i < 2; i++) {
		struct rec_extent e = {.len = 50, .seg = i ? 0 : 1, .seg_off = 10};
		struct rec_inline inl = {.id = {{1}}, .data = (const uint8_t *)"abc", .len = 3};

		hand_open(&h);
		put_inode(&h, 1, S_IFDIR | 0755, 0);
		rec_put_inline(&h.rec, h.stamp, &inl);
		rec_put_content(&h.rec, h.stamp, DEV1(3), 50, NULL, 0, &e, 1);
		assert_int_equal(feed(&h), -EBADMSG);
		hand_close(&h);
	}
	/* A name without an inode; no root; a directory that is its own ancestor. */
	for (int i = 0; i < 3; i++) {
		hand_open(&h);
		if (i != 1)
			put_inode(&h, 1, S_IFDIR | 0755, 0);
		if (i == 0)
			put_link(&h, false, DEV1(10), 1, "a", DEV1(3), S_IFREG);
		put_inode(&h, DEV1(4), S_IFDIR | 0755, 0);
		put_inode(&h, DEV1(5), S_IFDIR | 0755, 0);
		if (i == 2) {
			put_link(&h, false, DEV1(10), DEV1(4), "a", DEV1(5), S_IFDIR);
			put_link(&h, false, DEV1(11), DEV1(5), "a", DEV1(4), S_IFDIR);
		}
		assert_int_equal(feed(&h), 0);
		assert_int_equal(finish(&h), -EBADMSG);
		hand_close(&h);
	}
	/* A store that has a tree. */
	struct drive d;
	struct apply *a;

	dv_open(&d);
	assert_int_equal(apply_new(&a, d.st, NULL, NULL), -EEXIST);
	dv_close(&d);
}

/* Recovered, changed by the new device, recovered again by a third. */
static void test_second_device(void **state)
{
	struct drive d;
	struct hist_state hs = {0};
	struct store *st;
	struct apply *a;
	char dir[96];

	(void)state;
	dv_open(&d);
	dv_start(&d);
	dv_write(d.st, 1, "one", 0, 200000, 1);
	dv_write(d.st, 1, "two", 0, 2000, 2);
	assert_int_equal(dv_publish(&d), 0);
	dv_stop(&d);
	char *want = dv_dump(d.st);

	snprintf(dir, sizeof dir, "%s/second", d.x.base);
	assert_int_equal(dv_recover(&d, dir, &st), 0);
	free(want);
	(void)hs;
	(void)a;
	/* What is recovered counts as published. */
	assert_int_equal(dv_number(st, "SELECT count(*) FROM inode WHERE chg>1"), 0);
	struct store_figures f;

	assert_int_equal(store_figures(st, &f), 0);
	assert_int_equal(f.unpublished_bytes, 0);
	assert_int_equal(f.unpublished_files, 0);
	dv_write(st, 1, "two", 100, 50, 3);
	struct inode *in = dv_file(st, 1, "three");

	assert_int_equal(in->ino >> DEVICE_SHIFT, 2);
	inode_put(st, in);
	assert_int_equal(dv_check(st, true), 0);
	dv_drop(st, dir);
	dv_close(&d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_names),	  cmocka_unit_test(test_replay),
		cmocka_unit_test(test_collision), cmocka_unit_test(test_contents),
		cmocka_unit_test(test_refused),	  cmocka_unit_test(test_second_device),
	};

	if (keys_global_init())
		return 1;
	log_set_quiet(true);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
