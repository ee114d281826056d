/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What repair_limit and scrub_limit promise: never faster than that.  Only lower bounds are
 * tested; without the limits each of these takes a small part of the time.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <poll.h>
#include "drive_util.h"

#define FILES	6
#define LEN	(1u << 20)
#define WAIT_MS 60000

static void away(struct drive *d, unsigned node, bool back)
{
	char here[128], there[128];

	snprintf(here, sizeof here, "%s/%u", d->x.base, node);
	snprintf(there, sizeof there, "%s/away-%u", d->x.base, node);
	assert_int_equal(rename(back ? there : here, back ? here : there), 0);
	volume_verify(d->x.v, now_ms() + 10000);
}

/* A segment each. */
static void files(struct drive *d)
{
	for (unsigned i = 0; i < FILES; i++) {
		char name[16];

		snprintf(name, sizeof name, "f%u", i);
		dv_write(d->st, INO_ROOT, name, 0, LEN, i + 1);
		assert_int_equal(dv_publish(d), 0);
	}
	assert_true(dv_number(d->st, "SELECT count(*) FROM segment WHERE kind=1") >= FILES);
}

/* K shards are read for the one that is rebuilt: a file's length at least. */
static void test_repair(void **state)
{
	struct drive d;

	(void)state;
	dv_open(&d);
	away(&d, 3, false);
	dv_start(&d);
	files(&d);
	dv_stop(&d);
	assert_true(dv_number(d.st, "SELECT count(*) FROM segment WHERE missing>0") >= FILES);
	d.po.repair_limit = 2 * LEN;
	dv_start(&d);
	int64_t begin = now_ms();
	away(&d, 3, true);
	publish_poke(d.p);
	assert_int_equal(publish_wait(d.p, true, now_ms() + WAIT_MS), 0);
	assert_true(now_ms() - begin >= (FILES - 1) * 1000 / 2);
	assert_int_equal(dv_number(d.st, "SELECT count(*) FROM segment WHERE missing>0"), 0);
	assert_int_equal(dv_check(d.st, true), 0);
	dv_close(&d);
}

/* While it waits for the limit it does the rest of its work: a snapshot, say, comes first. */
static void test_others_go_on(void **state)
{
	struct drive d;

	(void)state;
	dv_open(&d);
	away(&d, 3, false);
	dv_start(&d);
	files(&d);
	dv_stop(&d);
	/* The second segment is due in some ten minutes. */
	d.po.repair_limit = LEN / 600;
	d.po.snapshot_every = 2;
	dv_start(&d);
	away(&d, 3, true);
	publish_poke(d.p);
	int64_t until = now_ms() + WAIT_MS;

	while (dv_number(d.st, "SELECT count(*) FROM segment WHERE missing>0") >= FILES &&
	       now_ms() < until)
		poll(NULL, 0, 20);
	unsigned before = dv_blobs(&d, 1, "l");

	for (unsigned i = 0; i < 8; i++) {
		dv_write(d.st, INO_ROOT, "small", 0, 1000, i);
		assert_int_equal(dv_publish(&d), 0);
	}
	/* Commits that a snapshot holds are trimmed. */
	until = now_ms() + WAIT_MS;
	while (dv_blobs(&d, 1, "l") >= before + 8 && now_ms() < until)
		poll(NULL, 0, 20);
	assert_true(dv_blobs(&d, 1, "l") < before + 8);
	assert_true(dv_number(d.st, "SELECT count(*) FROM segment WHERE missing>0") > 0);
	dv_close(&d);
}

static void test_scrub(void **state)
{
	char path[256];
	struct seg_place place;
	struct drive d;

	(void)state;
	dv_open(&d);
	dv_start(&d);
	files(&d);
	dv_stop(&d);
	/* The last of the pass is damaged. */
	sqlite3_stmt *q;

	pthread_mutex_lock(&d.st->meta);
	assert_int_equal(sqlite3_prepare_v2(d.st->db,
					    "SELECT " SEGMENT_COLS " FROM segment WHERE kind=1 "
					    "ORDER BY seg DESC LIMIT 1",
					    -1, &q, NULL),
			 SQLITE_OK);
	assert_int_equal(sqlite3_step(q), SQLITE_ROW);
	assert_int_equal(segment_columns(q, 0, &place), 0);
	sqlite3_finalize(q);
	assert_int_equal(store_put_u64(d.st, "audit_start",
				       (uint64_t)(realtime_ns() / 1000000000) + 999999999),
			 0);
	/* A pass of its own, whatever the first start looked at. */
	assert_int_equal(store_put_u64(d.st, "scrub_total", 0), 0);
	pthread_mutex_unlock(&d.st->meta);
	fx_shard_path(&d.x, &place, 0, path);
	int fd = open(path, O_WRONLY);

	assert_int_equal(pwrite(fd, "damage", 6, 9000), 6);
	close(fd);
	d.po.pace.audit_s = 1000000000;
	d.po.pace.scrub_s = 1;
	d.po.pace.scrub_limit = 3 * LEN; /* 1.5 are stored for each */
	int64_t begin = now_ms(), until = begin + WAIT_MS;

	dv_start(&d);
	assert_int_equal(dv_publish(&d), 0);
	while (node_state(volume_node(d.x.v, place.node[0])) != NODE_LYING && now_ms() < until)
		poll(NULL, 0, 20);
	assert_int_equal(node_state(volume_node(d.x.v, place.node[0])), NODE_LYING);
	/* A clock of milliseconds is up to two off each time. */
	assert_true(now_ms() - begin >= (FILES - 1) * (1000 / 2 - 2));
	dv_close(&d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_repair),
		cmocka_unit_test(test_others_go_on),
		cmocka_unit_test(test_scrub),
	};

	return dv_init() ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
