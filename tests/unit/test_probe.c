/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Directory nodes behind a layer that does one thing wrong, as servers do.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <ftw.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "net/node_impl.h"
#include "net/probe.h"

enum fault {
	NONE,
	NO_RANGE,    /* the whole blob where a part was asked */
	WRONG_RANGE, /* bytes of elsewhere */
	NO_LIST,
	BLIND_LIST, /* never shows anything */
	LATE_LIST,  /* shows it at the second time */
	NO_PUT,
	ONCE,	/* no second PUT of a name */
	NO_BIG, /* small blobs alone */
	NO_DEL,
	KEEPS, /* says that it deleted */
	FORBIDDEN_ABSENT,
	ANY_ABSENT, /* 200 for everything */
	CORRUPT,
	HANGS,
	HANGS_LIST,
};

static enum fault fault[3];
static unsigned asked[3];
static char base[64];
static const uint8_t vol[VOL_LEN] = {9};
static struct node *node[3];

static void answer(struct node_io *io, int err, size_t got)
{
	node_io_finish(io, err, got, NULL);
	node_io_ended(io);
}

static void start(struct node *n, struct node_io *io)
{
	unsigned i = n->number - 1u;
	bool get = io->op == NODE_GET, part = get && io->off;
	char small[BLOB_NAME_CAP], big[BLOB_NAME_CAP];
	struct buf none = {0};

	asked[i]++;
	probe_names(vol, n->number, small, big);
	bool known = !strcmp(io->name, small) || !strcmp(io->name, big);
	switch (fault[i]) {
	case NO_RANGE:
		if (part)
			io->off = 0;
		break;
	case WRONG_RANGE:
		if (part)
			io->off -= 1;
		break;
	case NO_LIST:
		if (io->op == NODE_LIST) {
			answer(io, -EACCES, 0);
			return;
		}
		break;
	case LATE_LIST:
		if (io->op == NODE_LIST)
			fault[i] = NONE;
		/* fall through */
	case BLIND_LIST:
		if (io->op == NODE_LIST) {
			node_io_finish(io, 0, 0, &none);
			node_io_ended(io);
			return;
		}
		break;
	case NO_PUT:
		if (io->op == NODE_PUT) {
			answer(io, -EACCES, 0);
			return;
		}
		break;
	case ONCE:
		if (io->op == NODE_PUT) {
			static unsigned cnt;

			if (cnt++) {
				answer(io, -EIO, 0);
				return;
			}
		}
		break;
	case NO_BIG:
		if (io->op == NODE_PUT && io->iov[0].iov_len > PROBE_SMALL) {
			answer(io, -EIO, 0);
			return;
		}
		break;
	case NO_DEL:
	case KEEPS:
		if (io->op == NODE_DEL) {
			answer(io, fault[i] == KEEPS ? 0 : -EACCES, 0);
			return;
		}
		break;
	case FORBIDDEN_ABSENT:
	case ANY_ABSENT:
		if (get && !known) {
			answer(io, fault[i] == ANY_ABSENT ? 0 : -EACCES, 0);
			return;
		}
		break;
	case CORRUPT:
		if (get) {
			memset(io->buf, 7, io->len);
			answer(io, 0, HF_MIN(io->len, (size_t)PROBE_SMALL));
			return;
		}
		break;
	case HANGS:
		return;
	case HANGS_LIST:
		if (io->op == NODE_LIST)
			return;
		break;
	case NONE:
		break;
	}
	node_dir_kind.start(n, io);
}

/* What hangs is given up here; the directory never heard of it. */
static void give_up(struct node *n, struct node_io *io)
{
	enum fault f = fault[n->number - 1u];

	if (f == HANGS || (f == HANGS_LIST && io->op == NODE_LIST))
		node_io_ended(io);
	else
		node_dir_kind.give_up(n, io);
}

static struct node_kind faulty;

static int rm_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	(void)st;
	(void)flag;
	(void)ftw;
	return remove(path);
}

static void open_nodes(unsigned cnt, bool one_place)
{
	strcpy(base, "/tmp/hf-test-probe-XXXXXX");
	assert_non_null(mkdtemp(base));
	faulty = node_dir_kind;
	faulty.start = start;
	faulty.give_up = give_up;
	for (unsigned i = 0; i < cnt; i++) {
		char url[128];

		snprintf(url, sizeof url, "dir:%s/%u", base, one_place ? 1 : i + 1);
		assert_int_equal(node_open(&node[i], (uint16_t)(i + 1), url, NULL), 0);
		node[i]->kind = &faulty;
		asked[i] = 0;
		fault[i] = NONE;
	}
}

static void close_nodes(unsigned cnt)
{
	for (unsigned i = 0; i < cnt; i++)
		node_close(node[i]);
	nftw(base, rm_one, 16, FTW_DEPTH | FTW_PHYS);
}

static unsigned blobs_left;
static int count_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	(void)path;
	(void)st;
	(void)ftw;
	blobs_left += flag == FTW_F;
	return 0;
}

static unsigned left(void)
{
	blobs_left = 0;
	nftw(base, count_one, 16, FTW_PHYS);
	return blobs_left;
}

static int run(unsigned cnt, int64_t ms, struct probe_result *r)
{
	return probe_run(node, cnt, vol, now_ms() + ms, NULL, NULL, r);
}

static void well(void **state)
{
	struct probe_result r[3];

	(void)state;
	open_nodes(3, false);
	assert_int_equal(run(3, 60000, r), 0);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(r[i].err, 0);
		assert_string_equal(r[i].why, "");
		assert_string_equal(r[i].warn, "");
		assert_true(r[i].wrote);
		assert_true(r[i].up_rate && r[i].down_rate);
		assert_true(r[i].free_bytes && r[i].total_bytes >= r[i].free_bytes);
		assert_true(r[i].same == SIZE_MAX);
		assert_true(asked[i] <= 16);
	}
	assert_int_equal(left(), 0);
	/* Now they can be marked, and a node of this volume may be tried again. */
	for (int i = 0; i < 3; i++)
		assert_int_equal(node_init(node[i], vol, now_ms() + 10000), 0);
	assert_int_equal(run(3, 60000, r), 0);
	assert_int_equal(left(), 3);
	/* But not one of another. */
	static const uint8_t other[VOL_LEN] = {10};
	assert_int_equal(probe_run(node, 1, other, now_ms() + 10000, NULL, NULL, r), 1);
	assert_int_equal(r[0].err, -EEXIST);
	assert_false(r[0].wrote);
	assert_int_equal(left(), 3);
	close_nodes(3);
}

/* One node of three is faulty: that one alone is named, and nothing is left. */
static void faults(void **state)
{
	static const struct {
		enum fault f;
		const char *why;
	} bad[] = {
		{NO_RANGE, "part of a blob"},
		{WRONG_RANGE, "part of a blob"},
		{NO_LIST, "cannot be listed"},
		{BLIND_LIST, "does not show"},
		{NO_PUT, "cannot be written"},
		{ONCE, "written there again"},
		{NO_BIG, "1 MiB"},
		{FORBIDDEN_ABSENT, "s3:ListBucket"},
		{ANY_ABSENT, "not there"},
		{CORRUPT, "other bytes"},
	};
	struct probe_result r[3];

	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		open_nodes(3, false);
		fault[1] = bad[i].f;
		assert_int_equal(run(3, bad[i].f == BLIND_LIST ? 3000 : 60000, r), 1);
		assert_int_equal(r[0].err, 0);
		assert_int_equal(r[2].err, 0);
		assert_true(r[1].err < 0);
		if (!strstr(r[1].why, bad[i].why))
			fail_msg("fault %d: %s", bad[i].f, r[1].why);
		assert_int_equal(left(), 0);
		close_nodes(3);
	}
}

static void warnings(void **state)
{
	static const struct {
		enum fault f;
		const char *warn;
		unsigned left;
	} odd[] = {
		{LATE_LIST, "after a while", 0},
		{NO_DEL, "nothing can be deleted", 2},
		{KEEPS, "can still be read", 2},
	};
	struct probe_result r[1];

	(void)state;
	for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
		open_nodes(1, false);
		fault[0] = odd[i].f;
		assert_int_equal(run(1, 60000, r), 0);
		if (!strstr(r[0].warn, odd[i].warn))
			fail_msg("fault %d: %s", odd[i].f, r[0].warn);
		assert_int_equal(left(), odd[i].left);
		/* What is left of a trial does not make the place another volume's. */
		fault[0] = NONE;
		assert_int_equal(node_init(node[0], vol, now_ms() + 10000), 0);
		close_nodes(1);
	}
}

/* The others do not wait for ever for one that hangs. */
static void hanging(void **state)
{
	static const enum fault f[] = {HANGS, HANGS_LIST};
	struct probe_result r[3];

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		open_nodes(3, false);
		fault[2] = f[i];
		assert_int_equal(run(3, 6000, r), 1);
		assert_int_equal(r[2].err, -ETIMEDOUT);
		close_nodes(3);
	}
}

static void same_place(void **state)
{
	struct probe_result r[3];

	(void)state;
	open_nodes(3, true);
	assert_int_equal(run(3, 60000, r), 2);
	assert_true(r[0].same == SIZE_MAX);
	if (r[1].same != 0)
		fail_msg("%s; %s; %s", r[0].why, r[1].why, r[2].why);
	assert_int_equal(r[2].err, -EEXIST);
	assert_int_equal(left(), 0);
	close_nodes(3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(well),	   cmocka_unit_test(faults),
		cmocka_unit_test(warnings), cmocka_unit_test(hanging),
		cmocka_unit_test(same_place),
	};

	log_set_quiet(true);
	log_set_level(LOG_LVL_ERROR);
	if (keys_global_init())
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
