/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What a commit says of contents becomes true here after files of it changed, and after a crash. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#include <linux/falloc.h>
#include "drive_util.h"

#define MORE_LEN  300000u
#define MORE_PART 100000u

struct given;
struct step {
	const char *stage;
	void (*what)(struct given *g); /* NULL: the power goes */
};

/* A file of a cut loses a part, says so with fsync, and gets bytes there that nobody synced. */
struct given {
	struct drive *d;
	const struct step *step; /* until .stage is NULL */
	bool copy;		 /* the part becomes bytes of another file, else a hole */
	char dir[sizeof((struct drive *)0)->dir];
	uint8_t want[MORE_LEN], fresh[1000];
};

static struct inode *given_file(struct given *g)
{
	return dv_file(g->d->st, INO_ROOT, "file");
}

static void give_up(struct given *g)
{
	struct store *st = g->d->st;
	struct inode *in = given_file(g);

	if (g->copy) {
		struct inode *from = dv_file(st, INO_ROOT, "from");

		assert_int_equal(data_copy(st, from, MORE_PART, in, MORE_PART,
					   MORE_LEN - MORE_PART, false),
				 MORE_LEN - MORE_PART);
		fx_fill(g->want, MORE_LEN, 2);
		inode_put(st, from);
	} else {
		assert_int_equal(data_truncate(st, in, MORE_PART, false), 0);
		assert_int_equal(data_truncate(st, in, MORE_LEN, false), 0);
		memset(g->want, 0, MORE_LEN);
	}
	fx_fill(g->want, MORE_PART, 1);
	assert_int_equal(data_sync(st, in, false), 0);
	inode_put(st, in);
}

static void write_unsynced(struct given *g)
{
	struct inode *in = given_file(g);

	assert_int_equal(
		data_write(g->d->st, in, g->fresh, sizeof g->fresh, 2 * MORE_PART, false), 0);
	inode_put(g->d->st, in);
}

static void grow(struct given *g)
{
	struct inode *in = given_file(g);

	assert_int_equal(data_truncate(g->d->st, in, MORE_LEN, false), 0);
	inode_put(g->d->st, in);
}

static int given_stage(void *arg, const char *name)
{
	struct given *g = arg;

	for (; g->step->stage && !strcmp(g->step->stage, name); g->step++) {
		if (!g->step->what) {
			dv_copy(g->d->dir, g->dir);
			return 1;
		}
		g->step->what(g);
	}
	return 0;
}

static void given_start(struct given *g, const struct step *step)
{
	g->step = step;
	assert_int_equal(publish_prepare(&g->d->p, g->d->st, &g->d->po), 0);
	g->d->p->stage = given_stage;
	g->d->p->stage_arg = g;
	assert_int_equal(publish_run(g->d->p), 0);
}

/* The power goes; the drive is what was left by then. */
static void given_crash(struct given *g, const char *name)
{
	struct drive *d = g->d;

	snprintf(g->dir, sizeof g->dir, "%s/%s", d->x.base, name);
	assert_int_equal(publish_wait(d->p, false, now_ms() + 20000), -ECANCELED);
	dv_stop(d);
	assert_int_equal(store_close(d->st), 0);
	memcpy(d->dir, g->dir, sizeof d->dir);
	d->st = dv_store(d, d->dir);
}

/* What was fsynced, and over it the bytes that were not, or not. */
static void given_look(struct given *g)
{
	static uint8_t got[MORE_LEN];
	struct inode *in = given_file(g);

	assert_int_equal(data_read(g->d->st, in, got, MORE_LEN, 0), MORE_LEN);
	inode_put(g->d->st, in);
	if (!memcmp(got + 2 * MORE_PART, g->fresh, sizeof g->fresh))
		memcpy(got + 2 * MORE_PART, g->want + 2 * MORE_PART, sizeof g->fresh);
	assert_memory_equal(got, g->want, MORE_LEN);
}

static struct given *given_open(struct drive *d, bool copy)
{
	static const struct step none[] = {{0}};
	struct given *g = calloc(1, sizeof *g);

	*g = (struct given){.d = d, .copy = copy};
	fx_fill(g->fresh, sizeof g->fresh, 3);
	dv_open(d);
	dv_write(d->st, INO_ROOT, "from", 0, MORE_LEN, 2);
	given_start(g, none);
	assert_int_equal(dv_publish(d), 0);
	dv_stop(d);
	dv_write(d->st, INO_ROOT, "file", 0, MORE_LEN, 1);
	return g;
}

static void given_close(struct given *g)
{
	static const struct step none[] = {{0}};

	given_look(g);
	given_start(g, none);
	dv_check_published(g->d);
	given_look(g);
	dv_close(g->d);
	free(g);
}

/*
 * The extents of a cut are none of a range that was given up since, and written to again: not
 * before its row says so.
 */
static void test_given_up(void **state)
{
	/* After the cut, before the file is synced for it; after that. */
	static const struct step steps[] = {
		{"cut", give_up}, {"packed", write_unsynced}, {"applied", NULL}, {0}};
	struct drive d;

	(void)state;
	for (int copy = 0; copy < 2; copy++) {
		struct given *g = given_open(&d, copy);

		given_start(g, steps);
		given_crash(g, "one");
		given_close(g);
	}
}

/* The same between a crash and the end of the commit that was under way then. */
static void test_given_up_again(void **state)
{
	static const struct step pending[] = {{"pending", NULL}, {0}};
	static const struct step due[] = {{"due", NULL}, {0}};
	struct drive d;

	(void)state;
	for (int copy = 0; copy < 2; copy++) {
		struct given *g = given_open(&d, copy);

		given_start(g, pending);
		given_crash(g, "one");
		give_up(g);
		write_unsynced(g);
		given_start(g, due);
		given_crash(g, "two");
		given_close(g);
	}
}

/* What was cut off before that end is a hole when the file grows after it. */
static void test_grown_again(void **state)
{
	static const struct step pending[] = {{"pending", NULL}, {0}};
	static const struct step due[] = {{"due", grow}, {0}};
	struct drive d;
	struct given *g = given_open(&d, false);

	(void)state;
	given_start(g, pending);
	given_crash(g, "one");
	struct inode *in = given_file(g);
	assert_int_equal(data_truncate(d.st, in, MORE_PART, false), 0);
	inode_put(d.st, in);
	fx_fill(g->want, MORE_PART, 1);
	given_start(g, due);
	assert_int_equal(dv_publish(&d), 0);
	dv_stop(&d);
	given_close(g);
}

static void enlarge(struct given *g)
{
	dv_write(g->d->st, INO_ROOT, "small", 0, MORE_LEN, 5);
}

static void enlarge_beside(struct given *g)
{
	struct inode *in = dv_file(g->d->st, INO_ROOT, "small");

	enlarge(g);
	assert_int_equal(data_fallocate(g->d->st, in,
					FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 70000,
					false),
			 0);
	inode_put(g->d->st, in);
}

/*
 * A file that was a smaller one in the cut becomes larger, which is not synced, and the power
 * goes: it is published once more, for what the cut stored of it is garbage by now.
 */
static void test_enlarged(void **state)
{
	static const struct step steps[][3] = {
		{{"packed", enlarge}, {"applied", NULL}, {0}},
		{{"packed", enlarge_beside}, {"applied", NULL}, {0}},
	};
	struct drive d;

	(void)state;
	for (int i = 0; i < 2; i++) {
		struct given *g = given_open(&d, false);
		char sql[80];

		fx_fill(g->want, MORE_LEN, 1);
		dv_write(d.st, INO_ROOT, "small", 0, 60000, 4);
		given_start(g, steps[i]);
		given_crash(g, "one");
		struct inode *in = dv_file(d.st, INO_ROOT, "small");
		uint64_t ino = in->ino;
		assert_int_equal(in->size, 60000);
		inode_put(d.st, in);
		dv_start(&d);
		assert_int_equal(dv_publish(&d), 0);
		dv_stop(&d);
		snprintf(sql, sizeof sql, "SELECT sum(len) FROM extent WHERE ino=%llu",
			 (unsigned long long)ino);
		assert_int_equal(dv_number(d.st, sql), 60000);
		given_close(g);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_given_up),
		cmocka_unit_test(test_given_up_again),
		cmocka_unit_test(test_grown_again),
		cmocka_unit_test(test_enlarged),
	};

	return dv_init() ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
