/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Huge files: sent ahead of their commit, held back until they are whole, and nobody else. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#include "ahead_util.h"

/* Small files go their way while a new huge one is on its; then it is there, whole. */
static void test_small_go_first(void **state)
{
	struct drive d;
	struct gate g;

	(void)state;
	dv_open(&d);
	gate_init(&g, &d);
	g.allowed = 3;
	start(&d, gate_stage, &g);
	dv_write(d.st, INO_ROOT, "huge", 0, HUGE, 1);
	uint64_t dir = dv_mkdir(d.st, INO_ROOT, "dir");
	struct inode *in = dv_file(d.st, INO_ROOT, "huge");

	assert_int_equal(meta_link(d.st, in, dir, "second", 6), 0);
	inode_put(d.st, in);
	held_from_now(&d);
	gate_await(&g, 3);
	for (unsigned i = 0; i < 3; i++) {
		char name[16];

		snprintf(name, sizeof name, "small%u", i);
		dv_write(d.st, dir, name, 0, 5000, i);
		assert_int_equal(publish_now(d.p, false), 0);
		char *got = from_nodes(&d), *now = dv_dump(d.st);

		snprintf(name, sizeof name, "/dir/small%u", i);
		same_line(got, now, name);
		assert_false(has(got, "/huge"));
		assert_false(has(got, "/dir/second"));
		free(got);
		free(now);
	}
	/* Whoever wants all of it waits for the huge one too. */
	assert_int_equal(publish_wait(d.p, false, now_ms() + 300), -ETIMEDOUT);
	struct publish_status s;

	publish_get_status(d.p, &s);
	assert_int_equal(s.cut_bytes, HUGE);
	assert_true(s.cut_done >= 3 * SEG && s.cut_done < HUGE);
	gate_allow(&g, UINT32_MAX);
	all_published(&d);
	assert_true(dv_blobs(&d, 1, "s") >= HUGE / SEG - 1);
	assert_true(dv_blobs(&d, 1, "s") <= HUGE / SEG + 1);
	stop(&d, &g);
	dv_close(&d);
}

/* A file is saved by renaming a huge new one over it: the old one stays until then. */
static void save_by_rename(bool control)
{
	struct drive d;
	struct gate g;
	uint64_t ino;

	dv_open(&d);
	gate_init(&g, &d);
	d.po.skip_names = control;
	start(&d, gate_stage, &g);
	dv_write(d.st, INO_ROOT, "text", 0, 100000, 1);
	dv_write(d.st, INO_ROOT, "other", 0, 3000, 1);
	assert_int_equal(publish_wait(d.p, false, now_ms() + 20000), 0);
	char *old = from_nodes(&d);

	gate_allow(&g, 2);
	g.stored = 0;
	dv_write(d.st, INO_ROOT, "new", 0, HUGE, 2);
	held_from_now(&d);
	gate_await(&g, 2);
	assert_int_equal(meta_rename(d.st, INO_ROOT, "new", 3, INO_ROOT, "text", 4, 0, &ino),
			 0);
	meta_reap(d.st, ino);
	dv_write(d.st, INO_ROOT, "other", 0, 4000, 2);
	/* Somebody makes a new name where the huge one has been: that is free of it. */
	dv_write(d.st, INO_ROOT, "new", 0, 50, 2);
	for (unsigned i = 0; i < 2; i++) {
		dv_write(d.st, INO_ROOT, "tick", 0, 50, i);
		assert_int_equal(publish_now(d.p, false), 0);
	}
	char *got = from_nodes(&d), *now = dv_dump(d.st);

	if (control) {
		assert_false(has(got, "/text"));
	} else {
		same_line(got, old, "/text");
		same_line(got, now, "/other");
		same_line(got, now, "/new");
	}
	free(got);
	free(now);
	free(old);
	gated_close(&d, &g);
}

static void test_save_by_rename(void **state)
{
	(void)state;
	save_by_rename(false);
}

static void test_save_by_rename_control(void **state)
{
	(void)state;
	save_by_rename(true);
}

/* A published file with much that is new, and a new name: both stay back. */
static void test_changed(void **state)
{
	struct drive d;
	struct gate g;

	(void)state;
	gated_open(&d, &g);
	dv_write(d.st, INO_ROOT, "disk", 0, HUGE, 1);
	assert_int_equal(publish_wait(d.p, false, now_ms() + 20000), 0);
	char *old = from_nodes(&d);

	gate_allow(&g, 2);
	g.stored = 0;
	dv_write(d.st, INO_ROOT, "disk", HUGE / 2, HUGE, 2);
	held_from_now(&d);
	gate_await(&g, 2);
	struct inode *in = dv_file(d.st, INO_ROOT, "disk");

	assert_int_equal(data_fallocate(d.st, in, 3, 1000, 300000, false), 0);
	inode_put(d.st, in);
	assert_int_equal(meta_rename(d.st, INO_ROOT, "disk", 4, INO_ROOT, "moved", 5, 0, NULL),
			 0);
	/* This one comes where the old name is published still: it has to wait. */
	dv_write(d.st, INO_ROOT, "disk", 0, 3000, 5);
	dv_write(d.st, INO_ROOT, "small", 0, 3000, 5);
	assert_int_equal(publish_now(d.p, false), 0);
	dv_write(d.st, INO_ROOT, "small", 0, 4000, 6);
	assert_int_equal(publish_now(d.p, false), 0);
	char *got = from_nodes(&d), *now = dv_dump(d.st);

	same_line(got, old, "/disk");
	same_line(got, now, "/small");
	assert_false(has(got, "/moved"));
	free(got);
	free(now);
	free(old);
	gated_close(&d, &g);
}

/* Its directory went while it moved: both stay where they were. */
static void test_moved_out(void **state)
{
	struct drive d;
	struct gate g;

	(void)state;
	gated_open(&d, &g);
	uint64_t ino, up = dv_mkdir(d.st, INO_ROOT, "up"), dir = dv_mkdir(d.st, up, "dir");

	dv_write(d.st, dir, "disk", 0, HUGE, 1);
	dv_write(d.st, dir, "small", 0, 3000, 1);
	assert_int_equal(publish_wait(d.p, false, now_ms() + 20000), 0);
	char *was = from_nodes(&d);

	gate_allow(&g, 2);
	g.stored = 0;
	dv_write(d.st, dir, "disk", 0, HUGE, 2);
	held_from_now(&d);
	gate_await(&g, 2);
	assert_int_equal(meta_rename(d.st, dir, "disk", 4, INO_ROOT, "disk", 4, 0, NULL), 0);
	assert_int_equal(meta_rename(d.st, dir, "small", 5, INO_ROOT, "small", 5, 0, NULL), 0);
	assert_int_equal(meta_unlink(d.st, up, "dir", 3, true, &ino), 0);
	meta_reap(d.st, ino);
	assert_int_equal(meta_unlink(d.st, INO_ROOT, "up", 2, true, &ino), 0);
	meta_reap(d.st, ino);
	for (unsigned i = 0; i < 2; i++) {
		dv_write(d.st, INO_ROOT, "tick", 0, 50, i);
		assert_int_equal(publish_now(d.p, false), 0);
	}
	char *got = from_nodes(&d), *now = dv_dump(d.st);

	same_line(got, was, "/up/dir/disk");
	same_line(got, now, "/small");
	same_line(got, now, "/tick");
	assert_false(has(got, "/disk") || has(got, "/up/dir/small"));
	free(was);
	free(got);
	free(now);
	gated_close(&d, &g);
}

/* Where a directory would have to be held, the cut is a whole one. */
static void test_tangled(void **state)
{
	struct drive d;
	struct gate g;

	(void)state;
	gated_open(&d, &g);
	dv_write(d.st, INO_ROOT, "disk", 0, HUGE, 1);
	assert_int_equal(publish_wait(d.p, false, now_ms() + 20000), 0);
	gate_allow(&g, 2);
	g.stored = 0;
	dv_write(d.st, INO_ROOT, "disk", 0, HUGE, 2);
	held_from_now(&d);
	gate_await(&g, 2);
	assert_int_equal(meta_rename(d.st, INO_ROOT, "disk", 4, INO_ROOT, "old", 3, 0, NULL),
			 0);
	dv_mkdir(d.st, INO_ROOT, "disk");
	char *want = dv_dump(d.st);

	assert_int_equal(publish_now(d.p, false), 0);
	dv_recovered(&d, want);
	free(want);
	stop(&d, &g);
	dv_close(&d);
}

/* After a stop of either kind nothing that is stored goes out again. */
static void resume(bool kill)
{
	struct drive d;
	struct gate g;
	unsigned at = 11;

	dv_open(&d);
	gate_init(&g, &d);
	snprintf(g.copy, sizeof g.copy, "%s/crashed", d.x.base);
	if (kill) {
		g.crash_at = "ahead";
		g.crash_after = at - 1;
	} else {
		g.allowed = at;
	}
	start(&d, gate_stage, &g);
	dv_write(d.st, INO_ROOT, "huge", 0, HUGE, 1);
	held_from_now(&d);
	gate_await(&g, at);
	stop(&d, &g);
	unsigned before = dv_blobs(&d, 1, "s");

	assert_int_equal(store_close(d.st), 0);
	gate_init(&g, &d);
	d.st = dv_store(&d, kill ? g.copy[0] ? g.copy : d.dir : d.dir);
	if (kill) {
		char copy[96];

		store_close(d.st);
		snprintf(copy, sizeof copy, "%s/crashed", d.x.base);
		d.st = dv_store(&d, copy);
	}
	assert_int_equal(dv_number(d.st, "SELECT sum(len) FROM ahead"), at * SEG);
	start(&d, gate_stage, &g);
	all_published(&d);
	unsigned after = dv_blobs(&d, 1, "s") - before;

	printf("%u segments before, %u after\n", before, after);
	/* What was in flight goes again; the last segment is the cut's. */
	assert_true(after <= HUGE / SEG - at);
	stop(&d, &g);
	dv_close(&d);
}

static void test_resume(void **state)
{
	(void)state;
	resume(false);
	resume(true);
}

/* A crash after the commit was written down: it is sent, and the file not once more. */
static void test_resume_pending(void **state)
{
	static const char *const stages[] = {"cut",	"packed", "built",
					     "pending", "put",	  "staged"};

	(void)state;
	for (unsigned i = 0; i < sizeof stages / sizeof *stages; i++) {
		struct drive d;
		struct gate g;

		dv_open(&d);
		gate_init(&g, &d);
		snprintf(g.copy, sizeof g.copy, "%s/crashed", d.x.base);
		/* The first cut publishes the root; the second one has the file. */
		start(&d, gate_stage, &g);
		dv_write(d.st, INO_ROOT, "first", 0, 10, 1);
		assert_int_equal(publish_wait(d.p, false, now_ms() + 20000), 0);
		gate_allow(&g, HUGE / SEG - 1);
		dv_write(d.st, INO_ROOT, "huge", 0, HUGE, 1);
		held_from_now(&d);
		gate_await(&g, HUGE / SEG - 1);
		pthread_mutex_lock(&g.lock);
		g.crash_at = stages[i];
		g.crash_after = 0;
		pthread_mutex_unlock(&g.lock);
		gate_allow(&g, UINT32_MAX);
		assert_int_equal(publish_wait(d.p, false, now_ms() + 20000), -ECANCELED);
		stop(&d, &g);
		unsigned before = dv_blobs(&d, 1, "s");

		assert_int_equal(store_close(d.st), 0);
		char copy[96];

		snprintf(copy, sizeof copy, "%s/crashed", d.x.base);
		gate_init(&g, &d);
		d.st = dv_store(&d, copy);
		start(&d, gate_stage, &g);
		all_published(&d);
		printf("%s: %u segments before, %u in all\n", stages[i], before,
		       dv_blobs(&d, 1, "s"));
		assert_true(dv_blobs(&d, 1, "s") <= before + 1);
		stop(&d, &g);
		dv_close(&d);
	}
}

/* Bytes that change after they were sent are sent again, and only near there. */
static int changed_after(bool control)
{
	struct drive d;
	struct gate g;

	dv_open(&d);
	gate_init(&g, &d);
	d.st->opts.skip_forget = control;
	g.allowed = 20;
	start(&d, gate_stage, &g);
	dv_write(d.st, INO_ROOT, "huge", 0, HUGE, 1);
	held_from_now(&d);
	gate_await(&g, 20);
	dv_write(d.st, INO_ROOT, "huge", 100, 50, 9);
	dv_write(d.st, INO_ROOT, "huge", 19 * SEG - 10, 20, 9);
	struct inode *in = dv_file(d.st, INO_ROOT, "huge");

	assert_int_equal(data_fallocate(d.st, in, 3, 10 * SEG, 5000, false), 0);
	inode_put(d.st, in);
	gate_allow(&g, UINT32_MAX);
	char *want = dv_dump(d.st);

	assert_int_equal(publish_wait(d.p, false, now_ms() + 20000), 0);
	char *got = from_nodes(&d);
	int wrong = strcmp(got, want) != 0;

	free(got);
	free(want);
	if (!control)
		assert_true(dv_blobs(&d, 1, "s") <= HUGE / SEG + 12);
	stop(&d, &g);
	dv_close(&d);
	return wrong;
}

static void test_changed_after(void **state)
{
	(void)state;
	assert_int_equal(changed_after(false), 0);
	assert_int_equal(changed_after(true), 1);
}

/* A file that changes faster than it is sent is published in the end, as of some cut. */
static void test_restless(void **state)
{
	struct drive d;
	struct gate g;
	int64_t until = now_ms() + 60000;
	uint32_t seed = 1;
	bool there = false;

	(void)state;
	dv_open(&d);
	gate_init(&g, &d);
	d.po.interval_ms = 20;
	start(&d, gate_stage, &g);
	for (; !there && now_ms() < until; seed++) {
		dv_write(d.st, INO_ROOT, "restless", 0, HUGE, seed);
		if (seed % 16)
			continue;
		char *got = from_nodes(&d);

		there = has(got, "/restless");
		free(got);
	}
	printf("after %u times\n", seed);
	assert_true(there);
	all_published(&d);
	stop(&d, &g);
	dv_close(&d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_small_go_first),
		cmocka_unit_test(test_save_by_rename),
		cmocka_unit_test(test_save_by_rename_control),
		cmocka_unit_test(test_changed),
		cmocka_unit_test(test_moved_out),
		cmocka_unit_test(test_tangled),
		cmocka_unit_test(test_resume),
		cmocka_unit_test(test_resume_pending),
		cmocka_unit_test(test_changed_after),
		cmocka_unit_test(test_restless),
	};

	return dv_init() ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
