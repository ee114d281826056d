/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#include <poll.h>
#include "drive_util.h"

static void some_tree(struct store *st)
{
	uint64_t a = dv_mkdir(st, INO_ROOT, "a"), b = dv_mkdir(st, a, "b");
	struct meta_new ln = {.mode = S_IFLNK | 0777, .target = "../somewhere"};
	struct inode *in;

	dv_write(st, a, "small", 0, 3000, 1);
	dv_write(st, b, "empty", 0, 0, 1);
	inode_put(st, dv_file(st, b, "void"));
	dv_write(st, b, "large", 0, 300000, 2);
	dv_write(st, b, "sparse", 5000000, 100000, 3);
	assert_int_equal(meta_create(st, a, "link", 4, &ln, &in), 0);
	inode_put(st, in);
	in = dv_file(st, a, "small");
	assert_int_equal(meta_setxattr(st, in, "user.colour", "green", 5, 0), 0);
	assert_int_equal(meta_link(st, in, b, "hard", 4), 0);
	inode_put(st, in);
	in = dv_file(st, b, "capable");
	assert_int_equal(meta_setxattr(st, in, "security.capability", "0123456789", 10, 0), 0);
	inode_put(st, in);
}

static void away(struct drive *d, unsigned node, bool gone)
{
	char a[128], b[128];

	snprintf(a, sizeof a, "%s/%u", d->x.base, node);
	snprintf(b, sizeof b, "%s/%u.away", d->x.base, node);
	assert_int_equal(gone ? rename(a, b) : rename(b, a), 0);
}

static void test_round_trip(void **state)
{
	struct drive d;
	struct publish_status s;

	(void)state;
	dv_open(&d);
	dv_start(&d);
	some_tree(d.st);
	dv_check_published(&d);
	publish_get_status(d.p, &s);
	assert_int_equal(s.seq, 1);
	assert_int_equal(s.survives, 2);
	assert_int_equal(s.below_target, 0);
	assert_int_equal(d.st->unpublished_bytes, 0);
	/* Nothing new: no commit. */
	assert_int_equal(dv_publish(&d), 0);
	publish_get_status(d.p, &s);
	assert_int_equal(s.seq, 1);

	struct inode *in;
	uint64_t a;

	assert_int_equal(meta_lookup(d.st, INO_ROOT, "a", 1, &in), 0);
	a = in->ino;
	inode_put(d.st, in);
	assert_int_equal(meta_rename(d.st, a, "small", 5, INO_ROOT, "moved", 5, 0, NULL), 0);
	assert_int_equal(meta_lookup(d.st, a, "b", 1, &in), 0);
	uint64_t b = in->ino;
	inode_put(d.st, in);
	in = dv_file(d.st, b, "large");
	assert_int_equal(data_truncate(d.st, in, 200000, false), 0);
	assert_int_equal(data_truncate(d.st, in, 250000, false), 0);
	inode_put(d.st, in);
	in = dv_file(d.st, b, "sparse");
	assert_int_equal(data_fallocate(d.st, in, 3, 5000000, 50000, false), 0);
	inode_put(d.st, in);
	uint64_t ino;
	assert_int_equal(meta_unlink(d.st, b, "void", 4, false, &ino), 0);
	meta_reap(d.st, ino);
	dv_check_published(&d);
	/* Any two nodes may be gone. */
	char *want = dv_dump(d.st);

	for (unsigned i = 1; i < 6; i += 2) {
		away(&d, i, true);
		away(&d, i + 1, true);
		volume_verify(d.x.v, now_ms() + 2000);
		dv_recovered(&d, want);
		away(&d, i, false);
		away(&d, i + 1, false);
		volume_verify(d.x.v, now_ms() + 2000);
	}
	free(want);
	dv_close(&d);
}

/* 20,000 files of 4 KiB become few objects, and each file lies in one place. */
static void test_many(void **state)
{
	struct drive d;

	(void)state;
	dv_open(&d);
	dv_start(&d);
	uint64_t dir = dv_mkdir(d.st, INO_ROOT, "many");

	for (unsigned i = 0; i < 20000; i++) {
		char name[16];

		snprintf(name, sizeof name, "f%u", i);
		dv_write(d.st, dir, name, 0, 4096, i);
	}
	int64_t t = now_ms();
	assert_int_equal(dv_publish(&d), 0);
	printf("published in %lld ms\n", (long long)(now_ms() - t));
	assert_true(dv_blobs(&d, 1, "s") <= 8);
	assert_true(dv_blobs(&d, 1, "s") >= 5);
	assert_int_equal(dv_blobs(&d, 1, "l"), 1);
	char dir2[96];
	struct store *st;

	snprintf(dir2, sizeof dir2, "%s/recovered", d.x.base);
	t = now_ms();
	assert_int_equal(dv_recover(&d, dir2, &st), 0);
	printf("recovered in %lld ms\n", (long long)(now_ms() - t));
	assert_int_equal(meta_files(st), 20002);
	dv_drop(st, dir2);
	dv_close(&d);
}

/* What comes and goes between two cuts never leaves the machine. */
static void test_short_lived(void **state)
{
	struct drive d;

	(void)state;
	dv_open(&d);
	dv_start(&d);
	dv_write(d.st, INO_ROOT, "stays", 0, 10, 1);
	assert_int_equal(dv_publish(&d), 0);
	for (unsigned i = 0; i < 10; i++) {
		uint64_t ino;

		dv_write(d.st, INO_ROOT, "goes", 0, 200000, i);
		assert_int_equal(meta_unlink(d.st, INO_ROOT, "goes", 4, false, &ino), 0);
		meta_reap(d.st, ino);
	}
	assert_int_equal(dv_publish(&d), 0);
	assert_int_equal(dv_blobs(&d, 1, "s"), 0);
	assert_int_equal(dv_number(d.st, "SELECT count(*) FROM extent"), 1);
	dv_check_published(&d);
	dv_close(&d);
}

/* Little data stays in the log until it is repacked, with nobody noticing. */
static void test_inline(void **state)
{
	struct drive d;

	(void)state;
	dv_open(&d);
	dv_start(&d);
	for (unsigned i = 0; i < 8; i++) {
		char name[16];

		snprintf(name, sizeof name, "n%u", i % 5);
		dv_write(d.st, INO_ROOT, name, 0, 3000 + i, i);
		assert_int_equal(dv_publish(&d), 0);
	}
	assert_int_equal(dv_blobs(&d, 1, "s"), 0);
	assert_true(dv_number(d.st, "SELECT count(*) FROM segment WHERE kind=3") > 0);
	dv_check_published(&d);
	assert_int_equal(publish_now(d.p, true), 0);
	assert_int_equal(dv_blobs(&d, 1, "s"), 1);
	assert_int_equal(dv_number(d.st, "SELECT count(*) FROM segment WHERE kind=3"), 0);
	dv_check_published(&d);
	dv_close(&d);
}

static void test_snapshot(void **state)
{
	struct drive d;

	(void)state;
	dv_open(&d);
	d.po.snapshot_every = 4;
	dv_start(&d);
	some_tree(d.st);
	for (unsigned i = 0; i < 14; i++) {
		char name[16];

		snprintf(name, sizeof name, "n%u", i % 3);
		dv_write(d.st, INO_ROOT, name, i * 100, i % 4 ? 3000 : 90000, i);
		assert_int_equal(dv_publish(&d), 0);
	}
	/* The mend thread takes them when it comes to it. */
	int64_t until = now_ms() + 60000;

	while (dv_number(d.st, "SELECT v FROM kv WHERE k='snap'") < 2 && now_ms() < until) {
		dv_write(d.st, INO_ROOT, "tick", 0, 10, (uint32_t)now_ms());
		assert_int_equal(dv_publish(&d), 0);
	}
	assert_true(dv_number(d.st, "SELECT v FROM kv WHERE k='snap'") >= 2);
	dv_check_published(&d);
	dv_stop(&d);
	char *want = dv_dump(d.st);

	dv_recovered(&d, want);
	free(want);
	dv_close(&d);
}

static uint64_t snapshots(struct drive *d)
{
	return dv_number(d->st, "SELECT v FROM kv WHERE k='snap'");
}

/* Small commits until there are so many snapshots. */
static void until_snapshots(struct drive *d, uint64_t want, uint32_t *seed)
{
	int64_t until = now_ms() + 60000;

	while (snapshots(d) < want && now_ms() < until) {
		char name[16];

		snprintf(name, sizeof name, "n%u", ++*seed % 7);
		dv_write(d->st, INO_ROOT, name, *seed % 3 * 1000, *seed % 5 ? 3000 : 90000,
			 *seed);
		assert_int_equal(dv_publish(d), 0);
	}
	assert_true(snapshots(d) >= want);
}

static void all_losses(struct drive *d)
{
	char *want = dv_dump(d->st);

	for (unsigned i = 1; i <= 6; i++) {
		for (unsigned j = i + 1; j <= 6; j++) {
			away(d, i, true);
			away(d, j, true);
			volume_verify(d->x.v, now_ms() + 2000);
			dv_recovered(d, want);
			away(d, i, false);
			away(d, j, false);
			volume_verify(d->x.v, now_ms() + 2000);
		}
	}
	free(want);
}

/*
 * With snapshots taken and the log trimmed, with nodes that come back as they were long ago,
 * every loss of two is survived, and what was trimmed stays trimmed.
 */
static void test_trim(void **state)
{
	struct drive d;
	uint32_t seed = 1;

	(void)state;
	dv_open(&d);
	d.po.snapshot_every = 5;
	dv_start(&d);
	uint64_t dir = dv_mkdir(d.st, INO_ROOT, "names");
	/* So many that a snapshot's records are in segments. */
	for (unsigned i = 0; i < 2500; i++) {
		uint8_t raw[100];
		char name[201];

		fx_fill(raw, sizeof raw, i * 77 + 1);
		for (unsigned j = 0; j < sizeof raw; j++)
			snprintf(name + 2 * j, 3, "%02x", raw[j]);
		inode_put(d.st, dv_file(d.st, dir, name));
	}
	until_snapshots(&d, 4, &seed);
	assert_true(dv_number(d.st, "SELECT count(*) FROM segment WHERE kind=2") > 0);
	dv_stop(&d);
	all_losses(&d);

	away(&d, 1, true);
	away(&d, 2, true);
	volume_verify(d.x.v, now_ms() + 2000);
	dv_start(&d);
	until_snapshots(&d, 8, &seed);
	away(&d, 1, false);
	away(&d, 2, false);
	volume_verify(d.x.v, now_ms() + 2000);
	publish_poke(d.p);
	assert_int_equal(publish_wait(d.p, true, now_ms() + 60000), 0);
	dv_stop(&d);
	all_losses(&d);
	unsigned most = 0;
	for (unsigned i = 1; i <= 6; i++)
		most = HF_MAX(most, dv_blobs(&d, i, "l"));
	/* Two snapshots, the commits since the older one, and those while one is made. */
	printf("%u log objects after %llu commits\n", most,
	       (unsigned long long)dv_number(d.st, "SELECT v FROM kv WHERE k='log_seq'"));
	assert_true(most <= 30);
	dv_close(&d);
}

static void test_quorum(void **state)
{
	for (int control = 0; control < 2; control++) {
		struct drive d;
		struct publish_status s;

		(void)state;
		dv_open(&d);
		d.po.skip_quorum = control;
		dv_start(&d);
		dv_write(d.st, INO_ROOT, "first", 0, 10, 1);
		assert_int_equal(dv_publish(&d), 0);
		for (unsigned i = 1; i <= 3; i++)
			away(&d, i, true);
		volume_verify(d.x.v, now_ms() + 2000);
		dv_write(d.st, INO_ROOT, "x", 0, 10, 1);
		int r = publish_wait(d.p, false, now_ms() + (control ? 60000 : 700));

		if (control) {
			/* It takes too few copies for enough: what the rule is there against.
			 */
			assert_int_equal(r, 0);
		} else {
			assert_int_equal(r, -EAGAIN);
			publish_get_status(d.p, &s);
			assert_int_equal(s.seq, 1);
			assert_true(strlen(s.reason) > 0);
			for (unsigned i = 1; i <= 3; i++)
				away(&d, i, false);
			volume_verify(d.x.v, now_ms() + 2000);
			publish_poke(d.p);
			assert_int_equal(dv_publish(&d), 0);
			dv_check_published(&d);
		}
		dv_close(&d);
	}
}

static void test_mend(void **state)
{
	struct drive d;
	struct publish_status s;

	(void)state;
	dv_open(&d);
	dv_start(&d);
	away(&d, 2, true);
	volume_verify(d.x.v, now_ms() + 2000);
	dv_write(d.st, INO_ROOT, "x", 0, 500000, 1);
	assert_int_equal(dv_publish(&d), 0);
	publish_get_status(d.p, &s);
	assert_int_equal(s.below_target, 1);
	assert_int_equal(s.survives, 1);
	assert_int_equal(publish_wait(d.p, true, now_ms() + 500), -EAGAIN);
	away(&d, 2, false);
	volume_verify(d.x.v, now_ms() + 2000);
	publish_poke(d.p);
	assert_int_equal(publish_wait(d.p, true, now_ms() + 60000), 0);
	publish_get_status(d.p, &s);
	assert_int_equal(s.below_target, 0);
	assert_int_equal(s.survives, 2);
	assert_int_equal(dv_blobs(&d, 2, "s"), 1);
	dv_check_published(&d);
	dv_close(&d);
}

/* Shards that go while the drive is not mounted are made anew at the next mount, unasked. */
static void test_mend_unmounted(void **state)
{
	struct drive d;
	char path[128];

	(void)state;
	dv_open(&d);
	dv_start(&d);
	dv_write(d.st, INO_ROOT, "x", 0, 500000, 1);
	dv_write(d.st, INO_ROOT, "y", 0, 500, 1);
	assert_int_equal(dv_publish(&d), 0);
	dv_stop(&d);
	for (unsigned i = 3; i <= 4; i++) {
		snprintf(path, sizeof path, "%s/%u/s", d.x.base, i);
		fx_rm_tree(path);
		snprintf(path, sizeof path, "%s/%u/l", d.x.base, i);
		fx_rm_tree(path);
		assert_int_equal(dv_blobs(&d, i, "s"), 0);
	}
	dv_start(&d);
	int64_t until = now_ms() + 60000;

	while (now_ms() < until && (!dv_blobs(&d, 3, "s") || !dv_blobs(&d, 4, "s") ||
				    !dv_blobs(&d, 3, "l") || !dv_blobs(&d, 4, "l")))
		poll(NULL, 0, 20);
	for (unsigned i = 3; i <= 4; i++) {
		assert_int_equal(dv_blobs(&d, i, "s"), 1);
		assert_true(dv_blobs(&d, i, "l") > 0);
	}
	dv_check_published(&d);
	dv_close(&d);
}

static void test_taken_over(void **state)
{
	struct drive d;
	struct publish_status s;

	(void)state;
	dv_open(&d);
	dv_start(&d);
	dv_write(d.st, INO_ROOT, "x", 0, 5000, 1);
	assert_int_equal(dv_publish(&d), 0);
	assert_int_equal(history_takeover(d.x.v, d.owner, 1, 2), 0);
	dv_write(d.st, INO_ROOT, "y", 0, 5000, 1);
	assert_int_equal(dv_publish(&d), -ESTALE);
	publish_get_status(d.p, &s);
	assert_true(s.stopped);
	assert_non_null(strstr(s.reason, "device 2"));
	assert_int_equal(s.seq, 1);
	dv_close(&d);
}

static void test_old_copy(void **state)
{
	struct drive d;
	char old[96];

	(void)state;
	dv_open(&d);
	dv_start(&d);
	dv_write(d.st, INO_ROOT, "x", 0, 5000, 1);
	assert_int_equal(dv_publish(&d), 0);
	snprintf(old, sizeof old, "%s/old", d.x.base);
	dv_copy(d.dir, old);
	dv_write(d.st, INO_ROOT, "y", 0, 5000, 1);
	assert_int_equal(dv_publish(&d), 0);
	dv_stop(&d);
	assert_int_equal(store_close(d.st), 0);
	d.st = dv_store(&d, old);
	dv_start(&d);
	assert_int_equal(dv_publish(&d), -ESTALE);
	dv_close(&d);
}

/* --- random work --- */

struct work {
	struct drive *d;
	uint32_t seed;
	const char *crash_at;
	char copy[96];
	char *at_cut;
	unsigned ops;
	bool quiet;
	int cuts;
	uint64_t dir;
	int64_t until;
};

static uint32_t rnd(struct work *w, uint32_t n)
{
	w->seed = w->seed * 1664525 + 1013904223;
	return (w->seed >> 8) % n;
}

static void one_op(struct work *w)
{
	struct store *st = w->d->st;
	char a[8], b[8];
	struct inode *in;
	uint64_t ino = 0;

	snprintf(a, sizeof a, "f%u", rnd(w, 12));
	snprintf(b, sizeof b, "f%u", rnd(w, 12));
	switch (rnd(w, 9)) {
	case 0:
	case 1:
		dv_write(st, w->dir, a, rnd(w, 2000), 1 + rnd(w, 5000), rnd(w, 1000000));
		break;
	case 2:
		dv_write(st, w->dir, a, rnd(w, 200000), 1 + rnd(w, 150000), rnd(w, 1000000));
		break;
	case 3:
		in = dv_file(st, w->dir, a);
		assert_int_equal(
			data_truncate(st, in, rnd(w, 2) ? rnd(w, 3000) : rnd(w, 200000), false),
			0);
		inode_put(st, in);
		break;
	case 4:
		if (!meta_rename(st, w->dir, a, strlen(a), w->dir, b, strlen(b), 0, &ino) &&
		    ino)
			meta_reap(st, ino);
		break;
	case 5:
		if (!meta_unlink(st, w->dir, a, strlen(a), false, &ino))
			meta_reap(st, ino);
		break;
	case 6:
		in = dv_file(st, w->dir, a);
		assert_int_equal(
			data_fallocate(st, in, 3, rnd(w, 100000), 1 + rnd(w, 60000), false), 0);
		inode_put(st, in);
		break;
	case 7:
		in = dv_file(st, w->dir, a);
		if (in->nlink < 3)
			meta_link(st, in, w->dir, b, strlen(b));
		inode_put(st, in);
		break;
	default: {
		struct inode *from = dv_file(st, w->dir, a);

		in = dv_file(st, w->dir, b);
		if (from != in)
			assert_true(data_copy(st, from, rnd(w, 50000), in, rnd(w, 50000),
					      1 + rnd(w, 100000), false) >= 0);
		inode_put(st, from);
		inode_put(st, in);
	}
	}
}

static int work_stage(void *arg, const char *name)
{
	struct work *w = arg;

	if (w->quiet)
		return 0;
	if (!strcmp(name, "cut")) {
		free(w->at_cut);
		w->at_cut = dv_dump(w->d->st);
		w->cuts++;
	}
	for (unsigned i = 0; i < w->ops; i++)
		one_op(w);
	if (!strcmp(name, "scan") && !w->quiet && rnd(w, 4) == 0)
		assert_int_equal(publish_wait(w->d->p, false, now_ms() + 20000), 0);
	if (w->crash_at && !strcmp(name, w->crash_at)) {
		if (rnd(w, 2))
			assert_int_equal(store_commit(w->d->st), 0);
		dv_copy(w->d->dir, w->copy);
		return 1;
	}
	return 0;
}

static void start_work(struct work *w)
{
	assert_int_equal(publish_prepare(&w->d->p, w->d->st, &w->d->po), 0);
	w->d->p->stage = work_stage;
	w->d->p->stage_arg = w;
	assert_int_equal(publish_run(w->d->p), 0);
}

/*
 * Changes go on at every stage of publishing; what each commit recovers to is what the tree
 * was at its cut.  Returns the number of commits that did not.
 */
static int random_rounds(uint32_t seed, bool skip_capture, unsigned rounds)
{
	struct drive d;
	struct work w = {.d = &d, .seed = seed, .ops = 4, .dir = INO_ROOT};
	int wrong = 0;

	dv_open(&d);
	d.st->opts.skip_capture = skip_capture;
	start_work(&w);
	d.p->slice = 3;
	for (unsigned i = 0; i < rounds; i++) {
		char dir[96];
		struct store *st;

		for (unsigned j = 0; j < 10; j++)
			one_op(&w);
		int cuts = w.cuts;

		/* The skipped capture may make packing fail, which is noticed as well. */
		if (publish_wait(d.p, false, now_ms() + (skip_capture ? 1000 : 20000))) {
			wrong++;
			break;
		}
		/* A snapshot, while changes and commits go on between its slices. */
		if (i % 3 == 2 && !skip_capture)
			assert_int_equal(snapshot_take(d.p), 0);
		if (cuts == w.cuts)
			continue;
		snprintf(dir, sizeof dir, "%s/recovered", d.x.base);
		assert_int_equal(dv_recover(&d, dir, &st), 0);
		char *got = dv_dump(st);

		wrong += skip_capture ? strcmp(got, w.at_cut) != 0 : !dv_same(got, w.at_cut);
		if (!skip_capture)
			assert_int_equal(dv_check(st, false), 0);
		free(got);
		dv_drop(st, dir);
		if (wrong)
			break;
	}
	if (!skip_capture && !wrong && rounds > 8)
		assert_true(dv_number(d.st, "SELECT v FROM kv WHERE k='snap'") >= 2);
	free(w.at_cut);
	dv_close(&d);
	return wrong;
}

static void test_instant(void **state)
{
	uint32_t seed = getenv("SEED") ? (uint32_t)atoi(getenv("SEED")) : randombytes_random();

	(void)state;
	printf("seed %u\n", seed);
	assert_int_equal(random_rounds(seed, false, 9), 0);
}

static void test_instant_control(void **state)
{
	int wrong = 0;

	(void)state;
	for (uint32_t seed = 1; seed < 10 && !wrong; seed++)
		wrong += random_rounds(seed, true, 6);
	assert_true(wrong > 0);
}

/* A crash at each stage; the copy of that moment goes on publishing. */
static void crash_at(const char *stage, uint32_t seed)
{
	struct drive d;
	struct work w = {.d = &d, .seed = seed, .ops = 3, .quiet = true, .dir = INO_ROOT};

	dv_open(&d);
	start_work(&w);
	for (unsigned j = 0; j < 30; j++)
		one_op(&w);
	assert_int_equal(dv_publish(&d), 0);
	for (unsigned j = 0; j < 15; j++)
		one_op(&w);
	dv_write(d.st, INO_ROOT, "much", 0, 200000, seed);
	w.crash_at = stage;
	snprintf(w.copy, sizeof w.copy, "%s/crashed", d.x.base);
	w.quiet = false;
	int r = publish_wait(d.p, false, now_ms() + 20000);

	assert_int_equal(r, -ECANCELED);
	dv_stop(&d);
	assert_int_equal(store_close(d.st), 0);
	w.quiet = true;
	w.crash_at = NULL;
	d.st = dv_store(&d, w.copy);
	assert_int_equal(dv_check(d.st, false) < 0, 0);
	start_work(&w);
	char *before = dv_dump(d.st);

	assert_int_equal(dv_publish(&d), 0);
	dv_recovered(&d, before);
	for (unsigned j = 0; j < 8; j++)
		one_op(&w);
	dv_check_published(&d);
	assert_int_equal(dv_check(d.st, false), 0);
	free(before);
	free(w.at_cut);
	dv_close(&d);
}

static void test_crash(void **state)
{
	static const char *const stages[] = {"cut",	"segment", "packed", "built",
					     "pending", "put",	   "staged", "applied"};
	uint32_t seed = getenv("SEED") ? (uint32_t)atoi(getenv("SEED")) : randombytes_random();

	(void)state;
	for (unsigned i = 0; i < sizeof stages / sizeof *stages; i++) {
		printf("seed %u stage %s\n", seed, stages[i]);
		crash_at(stages[i], seed);
	}
}

static void *worker(void *arg)
{
	struct work *w = arg;

	for (; now_ms() < w->until; w->ops++)
		one_op(w);
	return NULL;
}

/* Everything at once: writers, the commit thread, cuts every 50 ms, snapshots. */
static void test_busy(void **state)
{
	struct drive d;
	struct work w[3];
	pthread_t t[3];

	(void)state;
	dv_open(&d);
	d.po.interval_ms = 50;
	d.po.snapshot_every = 5;
	assert_int_equal(store_start(d.st), 0);
	assert_int_equal(data_start(d.st), 0);
	dv_start(&d);
	for (unsigned i = 0; i < 3; i++) {
		char name[8];

		snprintf(name, sizeof name, "d%u", i);
		w[i] = (struct work){.d = &d,
				     .seed = i + 1,
				     .dir = dv_mkdir(d.st, INO_ROOT, name),
				     .until = now_ms() + 1500};
		assert_int_equal(pthread_create(&t[i], NULL, worker, &w[i]), 0);
	}
	for (unsigned i = 0; i < 3; i++)
		pthread_join(t[i], NULL);
	char *want = dv_dump(d.st);

	assert_int_equal(dv_publish(&d), 0);
	assert_true(dv_number(d.st, "SELECT v FROM kv WHERE k='log_seq'") > 1);
	dv_stop(&d);
	dv_recovered(&d, want);
	assert_int_equal(dv_check(d.st, true), 0);
	free(want);
	data_stop(d.st);
	dv_close(&d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_short_lived),
		cmocka_unit_test(test_inline),
		cmocka_unit_test(test_many),
		cmocka_unit_test(test_mend),
		cmocka_unit_test(test_quorum),
		cmocka_unit_test(test_mend_unmounted),
		cmocka_unit_test(test_taken_over),
		cmocka_unit_test(test_old_copy),
		cmocka_unit_test(test_instant),
		cmocka_unit_test(test_instant_control),
		cmocka_unit_test(test_crash),
		cmocka_unit_test(test_snapshot),
		cmocka_unit_test(test_busy),
		cmocka_unit_test(test_trim),
	};

	return dv_init() ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
