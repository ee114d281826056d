/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Huge files and fsync: what waits with them, and who waits for what. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#include "ahead_util.h"

/*
 * What was fsynced behind a huge file that was fsynced waits for it: in its part of the tree,
 * not elsewhere, and not what nobody fsynced.
 */
static void in_order(bool control)
{
	struct drive d;
	struct gate g;

	dv_open(&d);
	gate_init(&g, &d);
	d.po.skip_order = control;
	start(&d, gate_stage, &g);
	uint64_t db = dv_mkdir(d.st, INO_ROOT, "db"), base = dv_mkdir(d.st, db, "base");
	uint64_t wal = dv_mkdir(d.st, db, "wal"), old_wal = dv_mkdir(d.st, wal, "old");
	uint64_t away = dv_mkdir(d.st, INO_ROOT, "elsewhere");

	dv_write(d.st, base, "pages", 0, HUGE, 1);
	dv_write(d.st, wal, "log", 0, 2000, 1);
	dv_write(d.st, wal, "log2", 0, 2000, 1);
	dv_write(d.st, old_wal, "log", 0, 2000, 1);
	dv_write(d.st, old_wal, "free", 0, 2000, 1);
	dv_write(d.st, db, "notes", 0, 2000, 1);
	fsynced(d.st, base, "pages");
	fsynced(d.st, wal, "log");
	fsynced(d.st, wal, "log2");
	fsynced(d.st, old_wal, "log");
	assert_int_equal(publish_wait(d.p, false, now_ms() + 20000), 0);
	char *was = from_nodes(&d);

	gate_allow(&g, 2);
	g.stored = 0;
	dv_write(d.st, base, "pages", 0, HUGE, 2);
	fsynced(d.st, base, "pages");
	held_from_now(&d);
	gate_await(&g, 2);
	dv_write(d.st, wal, "log", 0, 3000, 2);
	fsynced(d.st, wal, "log");
	/* Nobody fsyncs a file that goes; but somebody had. */
	removed(d.st, wal, "log2", false);
	removed(d.st, old_wal, "log", false);
	removed(d.st, old_wal, "free", false);
	removed(d.st, wal, "old", true);
	dv_write(d.st, db, "new", 0, 500, 2);
	fsynced(d.st, db, "new");
	dv_write(d.st, db, "notes", 0, 3000, 2);
	dv_write(d.st, away, "letter", 0, 3000, 2);
	fsynced(d.st, away, "letter");
	for (unsigned i = 0; i < 2; i++) {
		dv_write(d.st, away, "tick", 0, 50, i);
		assert_int_equal(publish_now(d.p, false), 0);
		char *got = from_nodes(&d), *now = dv_dump(d.st);

		same_line(got, was, "/db/base/pages");
		same_line(got, now, "/db/notes");
		same_line(got, now, "/elsewhere/letter");
		same_line(got, now, "/elsewhere/tick");
		assert_false(has(got, "/db/wal/old/free"));
		if (control) {
			same_line(got, now, "/db/wal/log");
			assert_false(has(got, "/db/wal/log2"));
			assert_false(has(got, "/db/wal/old"));
		} else {
			same_line(got, was, "/db/wal/log");
			same_line(got, was, "/db/wal/log2");
			same_line(got, was, "/db/wal/old/log");
			assert_false(has(got, "/db/new"));
		}
		free(got);
		free(now);
	}
	free(was);
	gated_close(&d, &g);
}

static void test_in_order(void **state)
{
	(void)state;
	in_order(false);
	in_order(true);
}

/* The order survives a restart, and the drive that another machine makes of it has one. */
static void test_in_order_restart(void **state)
{
	struct drive d;
	struct gate g;
	char dir[96];

	(void)state;
	gated_open(&d, &g);
	uint64_t db = dv_mkdir(d.st, INO_ROOT, "db");

	dv_write(d.st, db, "pages", 0, HUGE, 1);
	fsynced(d.st, db, "pages");
	dv_write(d.st, db, "log", 0, 2000, 1);
	fsynced(d.st, db, "log");
	assert_int_equal(publish_wait(d.p, false, now_ms() + 20000), 0);
	gate_allow(&g, 2);
	g.stored = 0;
	dv_write(d.st, db, "pages", 0, HUGE, 2);
	fsynced(d.st, db, "pages");
	held_from_now(&d);
	gate_await(&g, 2);
	stop(&d, &g);
	assert_int_equal(store_close(d.st), 0);
	gate_init(&g, &d);
	gate_allow(&g, 2);
	d.st = dv_store(&d, d.dir);
	char *was = from_nodes(&d);

	d.so.dir = d.dir;
	/* The file is not looked up before it is written: as through an open handle of NFS. */
	start(&d, gate_stage, &g);
	dv_write(d.st, db, "log", 0, 3000, 2);
	held_from_now(&d);
	char *got = from_nodes(&d);

	same_line(got, was, "/db/pages");
	same_line(got, was, "/db/log");
	free(got);
	free(was);
	gate_allow(&g, UINT32_MAX);
	all_published(&d);
	stop(&d, &g);
	/* What another machine made of it: nobody knows there what was fsynced. */
	assert_int_equal(store_close(d.st), 0);
	d.st = NULL;
	snprintf(dir, sizeof dir, "%s/second", d.x.base);
	assert_int_equal(dv_recover(&d, dir, &d.st), 0);
	assert_int_equal(dv_number(d.st, "SELECT count(*) FROM inode WHERE (mode&61440)=32768 "
					 "AND flags&192<>0"),
			 0);
	dv_drop(d.st, dir);
	d.st = dv_store(&d, d.dir);
	dv_close(&d);
}

/*
 * A program with a log, huge pages, a journal and a control file, each in a directory of its
 * own, as databases are: every commit must be a state that one of its rules allows.
 */
struct ledger {
	struct drive *d;
	uint64_t top, base, global;
	uint32_t n;    /* of the transaction under way */
	unsigned step; /* of it */
};

static void ledger_put(struct ledger *l, uint64_t dir, const char *name, size_t len)
{
	struct inode *in = dv_file(l->d->st, dir, name);
	uint8_t head[4];

	/* The head says which transaction was here last. */
	put_le32(head, l->n);
	assert_int_equal(data_write(l->d->st, in, head, sizeof head, 0, false), 0);
	inode_put(l->d->st, in);
	if (len)
		dv_write(l->d->st, dir, name, 4, len, l->n);
}

static void ledger_step(struct ledger *l, uint32_t at)
{
	struct store *st = l->d->st;

	switch (l->step++) {
	case 0:
		l->n++;
		ledger_put(l, l->top, "log", 500);
		break;
	case 1:
		fsynced(st, l->top, "log");
		break;
	case 2:
		ledger_put(l, l->top, "journal", 500);
		fsynced(st, l->top, "journal");
		break;
	case 3:
		ledger_put(l, l->base, "pages", 0);
		dv_write(st, l->base, "pages", 4 + at, MIN + SEG, l->n);
		break;
	case 4:
		fsynced(st, l->base, "pages");
		break;
	case 5:
		ledger_put(l, l->global, "control", 100);
		fsynced(st, l->global, "control");
		break;
	default:
		removed(st, l->top, "journal", false);
		l->step = 0;
	}
}

/* The head of a file in a recovered store; -1: there is none. */
static int64_t head_of(struct store *st, const char *dir, const char *name)
{
	struct inode *in;
	uint64_t ino = INO_ROOT;
	uint8_t head[4];

	for (int i = 0; i < 2; i++) {
		const char *s = i ? dir : "db";

		if (!*s)
			continue;
		if (meta_lookup(st, ino, s, strlen(s), &in))
			return -1;
		ino = in->ino;
		inode_put(st, in);
	}
	if (meta_lookup(st, ino, name, strlen(name), &in))
		return -1;
	int64_t n = data_read(st, in, head, sizeof head, 0);

	inode_put(st, in);
	return n == 4 ? get_le32(head) : 0;
}

static bool ledger_wrong(struct drive *d)
{
	char dir[96];
	struct store *st;

	snprintf(dir, sizeof dir, "%s/recovered", d->x.base);
	assert_int_equal(dv_recover(d, dir, &st), 0);
	assert_int_equal(dv_check(st, false), 0);
	int64_t log = head_of(st, "", "log"), pages = head_of(st, "base", "pages");
	int64_t control = head_of(st, "global", "control");
	int64_t journal = head_of(st, "", "journal");
	bool wrong = pages > log || control > pages || (journal < 0 && pages != control);

	if (wrong)
		printf("log %lld pages %lld control %lld journal %lld\n", (long long)log,
		       (long long)pages, (long long)control, (long long)journal);
	dv_drop(st, dir);
	return wrong;
}

static unsigned ledger_run(uint32_t seed, bool control)
{
	struct drive d;
	struct gate g;
	struct ledger l = {.d = &d};
	unsigned wrong = 0, held = 0, was = seed;

	dv_open(&d);
	gate_init(&g, &d);
	d.po.skip_order = control;
	start(&d, gate_stage, &g);
	l.top = dv_mkdir(d.st, INO_ROOT, "db");
	l.base = dv_mkdir(d.st, l.top, "base");
	l.global = dv_mkdir(d.st, l.top, "global");
	/* All of it is there before the first commit. */
	ledger_put(&l, l.top, "log", 100);
	ledger_put(&l, l.base, "pages", HUGE);
	ledger_put(&l, l.global, "control", 100);
	assert_int_equal(publish_wait(d.p, false, now_ms() + 20000), 0);
	gate_allow(&g, 0);
	for (unsigned i = 0; i < 90 && (!wrong || !control); i++) {
		uint32_t r = seed = seed * 1664525 + 1013904223;

		ledger_step(&l, (r >> 8) % (HUGE - 2 * MIN));
		if (r >> 30)
			continue;
		/* Now and then it may send, a little or all of it. */
		pthread_mutex_lock(&g.lock);
		g.allowed = (r >> 28 & 3) ? g.stored + (r >> 24 & 7) : UINT32_MAX;
		pthread_cond_broadcast(&g.cond);
		pthread_mutex_unlock(&g.lock);
		assert_int_equal(publish_now(d.p, false), 0);
		pthread_mutex_lock(&d.p->lock);
		held += d.p->held_cnt > 0;
		pthread_mutex_unlock(&d.p->lock);
		wrong += ledger_wrong(&d);
	}
	printf("seed %u: held in %u commits, wrong in %u\n", was, held, wrong);
	if (!control) {
		assert_true(held > 0);
		gate_allow(&g, UINT32_MAX);
		all_published(&d);
	}
	stop(&d, &g);
	dv_close(&d);
	return wrong;
}

static void test_ledger(void **state)
{
	uint32_t seed = seed_of();
	unsigned wrong = 0;

	(void)state;
	assert_int_equal(ledger_run(seed, false), 0);
	/* Without the rule some seed finds it. */
	for (unsigned i = 0; i < 10 && !wrong; i++)
		wrong = ledger_run(seed + i, true);
	assert_true(wrong > 0);
}

/* --- who waits for what --- */

struct asker {
	struct drive *d;
	struct publish_ticket t;
	pthread_t thread;
	int r;
};

static void *ask_main(void *arg)
{
	struct asker *a = arg;

	a->r = publish_await(a->d->p, &a->t, now_ms() + 30000);
	return NULL;
}

/* One file's publication does not wait for the huge ones of others. */
static void test_one_file(void **state)
{
	struct drive d;
	struct gate g;
	struct publish_ticket t;

	(void)state;
	gated_open(&d, &g);
	uint64_t one = dv_mkdir(d.st, INO_ROOT, "one"), two = dv_mkdir(d.st, INO_ROOT, "two");

	gate_allow(&g, 2);
	dv_write(d.st, one, "huge", 0, HUGE, 1);
	fsynced(d.st, one, "huge");
	held_from_now(&d);
	gate_await(&g, 2);
	dv_write(d.st, two, "small", 0, 3000, 1);
	fsynced(d.st, two, "small");
	struct inode *in = dv_file(d.st, two, "small");

	publish_ticket(d.p, false, in->ino, &t);
	assert_int_equal(publish_await(d.p, &t, now_ms() + 20000), 0);
	inode_put(d.st, in);
	char *got = from_nodes(&d);

	assert_true(has(got, "/two/small"));
	assert_false(has(got, "/one/huge"));
	free(got);
	/* What is behind the huge one does, and so does whoever wants all. */
	dv_write(d.st, one, "small", 0, 3000, 1);
	fsynced(d.st, one, "small");
	in = dv_file(d.st, one, "small");
	publish_ticket(d.p, false, in->ino, &t);
	inode_put(d.st, in);
	assert_int_equal(publish_await(d.p, &t, now_ms() + 300), -ETIMEDOUT);
	assert_int_equal(publish_wait(d.p, false, now_ms() + 300), -ETIMEDOUT);
	gate_allow(&g, UINT32_MAX);
	assert_int_equal(publish_await(d.p, &t, now_ms() + 20000), 0);
	got = from_nodes(&d);
	assert_true(has(got, "/one/huge") && has(got, "/one/small"));
	free(got);
	stop(&d, &g);
	dv_close(&d);
}

static bool cut_done(struct publisher *p, uint64_t cut)
{
	pthread_mutex_lock(&p->lock);
	bool done = p->done > cut;
	pthread_mutex_unlock(&p->lock);
	return done;
}

/* A file grows faster than it is sent: what was there when somebody asked is published. */
static void test_growing(void **state)
{
	struct drive d;
	struct gate g;
	struct asker a = {.d = &d};
	uint64_t size = HUGE;
	unsigned at = 2;

	(void)state;
	gated_open(&d, &g);
	gate_allow(&g, at);
	dv_write(d.st, INO_ROOT, "log", 0, size, 1);
	held_from_now(&d);
	gate_await(&g, at);
	publish_ticket(d.p, false, 0, &a.t);
	assert_int_equal(pthread_create(&a.thread, NULL, ask_main, &a), 0);
	/* Two come for each that goes, until it is over. */
	for (bool over = false; !over; at++) {
		dv_write(d.st, INO_ROOT, "log", size, 2 * SEG, at);
		size += 2 * SEG;
		gate_allow(&g, at + 1);
		pthread_mutex_lock(&g.lock);
		while (g.stored < at + 1 && !cut_done(d.p, a.t.cut))
			cond_until(&g.cond, &g.lock, now_ms() + 1000);
		pthread_mutex_unlock(&g.lock);
		over = cut_done(d.p, a.t.cut) || at > 8 * HUGE / SEG;
	}
	gate_allow(&g, UINT32_MAX);
	pthread_join(a.thread, NULL);
	assert_int_equal(a.r, 0);
	printf("after %u segments of %u\n", at, HUGE / SEG);
	/* It was sent once, and not until it stood still. */
	assert_true(at <= 2 * HUGE / SEG);
	char *got = from_nodes(&d);

	assert_true(has(got, "/log"));
	free(got);
	all_published(&d);
	stop(&d, &g);
	dv_close(&d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_in_order), cmocka_unit_test(test_in_order_restart),
		cmocka_unit_test(test_ledger),	 cmocka_unit_test(test_one_file),
		cmocka_unit_test(test_growing),
	};

	return dv_init() ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
