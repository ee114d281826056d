/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#include <poll.h>
#include "cache/garbage.h"
#include "cache/scrub.h"
#include "drive_util.h"

#define WAIT_MS 60000

static unsigned all_shards(struct drive *d)
{
	unsigned n = 0;

	for (unsigned i = 1; i <= 6; i++)
		n += dv_blobs(d, i, "s");
	return n;
}

static void away(struct drive *d, unsigned node, bool gone)
{
	char a[128], b[128];

	snprintf(a, sizeof a, "%s/%u", d->x.base, node);
	snprintf(b, sizeof b, "%s/%u.away", d->x.base, node);
	assert_int_equal(gone ? rename(a, b) : rename(b, a), 0);
	volume_verify(d->x.v, now_ms() + 5000);
}

static void drop_file(struct store *st, uint64_t dir, const char *name)
{
	uint64_t ino;

	assert_int_equal(meta_unlink(st, dir, name, strlen(name), false, &ino), 0);
	meta_reap(st, ino);
}

/* A drive whose mend thread leaves all garbage where it is. */
static void patient(struct drive *d)
{
	dv_open(d);
	d->po.pace = (struct publish_pace){
		.grace_ms = 1000000000, .stray_ms = 1000000000, .compact_ms = 1000000000};
	dv_start(d);
}

/* What a mend thread without any patience does, in this thread; until nothing is left to do. */
struct rounds {
	struct publish_pace pace;
	bool skip_published, skip_seen;
	int (*stage)(void *arg, const char *name);
	void *arg;
};

static int rounds(struct drive *d, struct store *st, const struct rounds *o)
{
	struct publish_opts po = d->po;
	struct garbage g = {0};
	struct publisher *p;

	po.pace = o->pace;
	po.skip_published = o->skip_published;
	po.skip_seen = o->skip_seen;
	assert_int_equal(publish_prepare(&p, st, &po), 0);
	p->stage = o->stage;
	p->stage_arg = o->arg;
	int r = 0;
	int64_t next = 0, until = now_ms() + 2;

	/* What was condemned in this millisecond has to be one old. */
	do {
		next = INT64_MAX;
		r = garbage_condemn(p);
		if (!r)
			r = garbage_round(p, &g, true, &next);
		if (next != INT64_MAX && next - now_ms() < 1000 && next > now_ms())
			poll(NULL, 0, (int)(next - now_ms()) + 1);
	} while (!r && (next - now_ms() < 1000 || now_ms() < until) && now_ms() < until + 5000);
	publish_stop(p);
	return r;
}

static const struct rounds collect_now = {
	.pace = {.grace_ms = 1, .stray_ms = 1000000000, .compact_ms = 1000000000}};

static void three_files(struct drive *d)
{
	for (unsigned i = 0; i < 3; i++) {
		char name[8];

		snprintf(name, sizeof name, "f%u", i);
		dv_write(d->st, INO_ROOT, name, 0, 1000000, i);
		assert_int_equal(dv_publish(d), 0);
	}
	assert_int_equal(all_shards(d), 18);
}

/* What is unlinked goes from all nodes, once that is published. */
static void test_dead(void **state)
{
	struct drive d;

	(void)state;
	patient(&d);
	three_files(&d);
	drop_file(d.st, INO_ROOT, "f0");
	struct inode *in = dv_file(d.st, INO_ROOT, "f1");
	assert_int_equal(data_truncate(d.st, in, 0, false), 0);
	inode_put(d.st, in);
	assert_int_equal(dv_publish(&d), 0);
	dv_stop(&d);
	char *want = dv_dump(d.st);
	uint64_t segs, bytes;

	assert_int_equal(garbage_figures(d.st, &segs, &bytes), 0);
	assert_int_equal(segs, 2);
	assert_true(bytes > 2 * 1500000);
	assert_int_equal(rounds(&d, d.st, &collect_now), 0);
	assert_int_equal(all_shards(&d), 6);
	assert_int_equal(dv_number(d.st, "SELECT count(*) FROM segment WHERE kind<>3"), 1);
	assert_int_equal(garbage_figures(d.st, &segs, &bytes), 0);
	assert_int_equal(segs + bytes, 0);
	assert_int_equal(dv_check(d.st, true), 0);
	dv_recovered(&d, want);
	free(want);
	dv_close(&d);
}

/* What is only unlinked here is what a recovery brings back. */
static void test_unpublished(void **state)
{
	(void)state;
	for (int control = 0; control < 2; control++) {
		struct rounds o = collect_now;
		struct drive d;
		struct store *st;
		char dir[96];

		patient(&d);
		three_files(&d);
		char *want = dv_dump(d.st);

		dv_stop(&d);
		drop_file(d.st, INO_ROOT, "f0");
		assert_int_equal(store_commit_all(d.st), 0);
		o.skip_published = control;
		assert_int_equal(rounds(&d, d.st, &o), 0);
		snprintf(dir, sizeof dir, "%s/recovered", d.x.base);
		if (!control) {
			assert_int_equal(all_shards(&d), 18);
			dv_recovered(&d, want);
		} else {
			assert_int_equal(all_shards(&d), 12);
			assert_int_equal(dv_recover(&d, dir, &st), 0);
			char *got = dv_dump(st);
			assert_string_not_equal(got, want);
			free(got);
			dv_drop(st, dir);
		}
		/* Published, it goes. */
		dv_start(&d);
		assert_int_equal(dv_publish(&d), 0);
		dv_stop(&d);
		assert_int_equal(rounds(&d, d.st, &collect_now), 0);
		assert_int_equal(all_shards(&d), 12);
		free(want);
		dv_close(&d);
	}
}

/* --- crashes --- */

struct crash {
	struct drive *d;
	const char *at;
	unsigned skip;
	bool hit;
	char copy[96];
};

static int crash_stage(void *arg, const char *name)
{
	struct crash *c = arg;

	if (c->hit || strcmp(name, c->at) || c->skip--)
		return 0;
	c->hit = true;
	dv_copy(c->d->dir, c->copy);
	return 1;
}

/* The machine stops at any step; whoever comes back goes on, and nothing that lives is missed.
 */
static void test_crash(void **state)
{
	static const char *const at[] = {"condemned", "deleted", "dropped"};
	unsigned hits = 0;

	(void)state;
	for (unsigned a = 0; a < 3; a++) {
		for (unsigned skip = 0; skip < 2; skip++) {
			struct drive d;
			struct crash c = {.d = &d, .at = at[a], .skip = skip};
			struct rounds o = collect_now;

			patient(&d);
			/* More than one batch. */
			for (unsigned i = 0; i < 40; i++) {
				char name[16];

				snprintf(name, sizeof name, "g%u", i);
				dv_write(d.st, INO_ROOT, name, 0, 70000, i);
				assert_int_equal(dv_publish(&d), 0);
			}
			for (unsigned i = 0; i < 38; i++) {
				char name[16];

				snprintf(name, sizeof name, "g%u", i);
				drop_file(d.st, INO_ROOT, name);
			}
			assert_int_equal(dv_publish(&d), 0);
			dv_stop(&d);
			char *want = dv_dump(d.st);

			snprintf(c.copy, sizeof c.copy, "%s/crashed", d.x.base);
			o.stage = crash_stage;
			o.arg = &c;
			int r = rounds(&d, d.st, &o);
			assert_int_equal(r, c.hit ? -ECANCELED : 0);
			hits += c.hit;
			dv_recovered(&d, want);
			if (c.hit) {
				store_close(d.st);
				strcpy(d.dir, c.copy);
				d.st = dv_store(&d, d.dir);
				assert_int_equal(rounds(&d, d.st, &collect_now), 0);
			}
			assert_int_equal(all_shards(&d), 12);
			assert_int_equal(dv_check(d.st, true), 0);
			char *got = dv_dump(d.st);
			assert_string_equal(got, want);
			dv_recovered(&d, want);
			free(got);
			free(want);
			dv_close(&d);
		}
	}
	assert_int_equal(hits, 6);
}

/* --- other machines, other nodes --- */

static void test_taken_over(void **state)
{
	struct drive d;

	(void)state;
	patient(&d);
	three_files(&d);
	drop_file(d.st, INO_ROOT, "f0");
	assert_int_equal(dv_publish(&d), 0);
	dv_stop(&d);
	assert_int_equal(history_takeover(d.x.v, d.owner, 1, 2), 0);
	assert_int_equal(rounds(&d, d.st, &collect_now), -ESTALE);
	assert_int_equal(all_shards(&d), 18);
	dv_close(&d);
}

static void test_away(void **state)
{
	struct drive d;

	(void)state;
	patient(&d);
	three_files(&d);
	away(&d, 2, true);
	drop_file(d.st, INO_ROOT, "f0");
	assert_int_equal(dv_publish(&d), 0);
	dv_stop(&d);
	assert_int_equal(rounds(&d, d.st, &collect_now), 0);
	assert_int_equal(dv_blobs(&d, 1, "s"), 2);
	assert_int_equal(dv_number(d.st, "SELECT count(*) FROM segment WHERE kind=4"), 1);
	/* Nor is it missed: there is nothing to be repaired. */
	assert_int_equal(dv_number(d.st, "SELECT count(*) FROM segment WHERE missing>0"), 0);
	away(&d, 2, false);
	assert_int_equal(dv_blobs(&d, 2, "s"), 3);
	assert_int_equal(rounds(&d, d.st, &collect_now), 0);
	assert_int_equal(all_shards(&d), 12);
	assert_int_equal(dv_number(d.st, "SELECT count(*) FROM segment WHERE kind=4"), 0);
	dv_close(&d);
}

/* Whoever holds an extent that was moved meanwhile must not bring its segment back. */
static void test_no_return(void **state)
{
	struct drive d;
	struct extent e;

	(void)state;
	patient(&d);
	three_files(&d);
	struct inode *src = dv_file(d.st, INO_ROOT, "f0"), *dst = dv_file(d.st, INO_ROOT, "f1");

	pthread_mutex_lock(&d.st->meta);
	assert_int_equal(extent_at_locked(d.st, src->ino, 0, &e), 1);
	pthread_mutex_unlock(&d.st->meta);
	inode_put(d.st, src);
	drop_file(d.st, INO_ROOT, "f0");
	assert_int_equal(dv_publish(&d), 0);
	dv_stop(&d);
	struct publisher *p;
	assert_int_equal(publish_prepare(&p, d.st, &d.po), 0);
	assert_int_equal(garbage_condemn(p), 0);
	publish_stop(p);
	struct punch punch = {.off = 0,
			      .end = e.len,
			      .size_set = PUNCH_SIZE_KEEP,
			      .size_min = e.len,
			      .put = &e,
			      .put_cnt = 1};
	assert_int_equal(iolock_write(&dst->io), 0);
	assert_int_equal(data_punch_io(d.st, dst, &punch), -EAGAIN);
	iolock_unlock(&dst->io);
	inode_put(d.st, dst);
	assert_int_equal(rounds(&d, d.st, &collect_now), 0);
	assert_int_equal(all_shards(&d), 12);
	assert_int_equal(dv_check(d.st, true), 0);
	dv_close(&d);
}

/* --- strays --- */

static const struct rounds look_now = {
	.pace = {.grace_ms = 1000000000, .stray_ms = 1, .compact_ms = 1000000000}};

static void test_strays(void **state)
{
	struct drive d;
	struct seg_place place;
	uint8_t *p = malloc(300000);

	(void)state;
	patient(&d);
	three_files(&d);
	dv_stop(&d);
	char *want = dv_dump(d.st);

	fx_fill(p, 300000, 9);
	assert_int_equal(fx_store(&d.x, p, 300000, &place), 0);
	assert_int_equal(all_shards(&d), 24);
	/* A cut that began before they were seen may be storing them. */
	pthread_mutex_lock(&d.st->meta);
	d.st->cut_epoch = d.st->epoch - 1;
	pthread_mutex_unlock(&d.st->meta);
	assert_int_equal(rounds(&d, d.st, &look_now), 0);
	assert_int_equal(rounds(&d, d.st, &look_now), 0);
	assert_int_equal(all_shards(&d), 24);
	assert_int_equal(dv_number(d.st, "SELECT count(*) FROM stray"), 6);
	/* And stores them in the end: then they are known. */
	pthread_mutex_lock(&d.st->meta);
	d.st->cut_epoch = 0;
	assert_int_equal(
		segment_insert_locked(d.st, 77, &place, SEG_DATA, 1000, d.st->epoch, NULL), 0);
	pthread_mutex_unlock(&d.st->meta);
	/* (settle_clean condemns it: its commit is never to come.) */
	assert_int_equal(rounds(&d, d.st, &look_now), 0);
	assert_int_equal(all_shards(&d), 24);
	assert_int_equal(dv_number(d.st, "SELECT count(*) FROM stray"), 0);
	assert_int_equal(rounds(&d, d.st, &collect_now), 0);
	assert_int_equal(all_shards(&d), 18);
	/* One whose cut was abandoned without a trace. */
	assert_int_equal(fx_store(&d.x, p, 300000, &place), 0);
	away(&d, 4, true);
	assert_int_equal(rounds(&d, d.st, &look_now), 0);
	assert_int_equal(rounds(&d, d.st, &look_now), 0);
	away(&d, 4, false);
	assert_int_equal(all_shards(&d), 19);
	assert_int_equal(rounds(&d, d.st, &look_now), 0);
	assert_int_equal(rounds(&d, d.st, &look_now), 0);
	assert_int_equal(all_shards(&d), 18);
	assert_int_equal(dv_check(d.st, true), 0);
	dv_recovered(&d, want);
	free(want);
	free(p);
	dv_close(&d);
}

/* One that comes after the takeover may be the new machine's. */
static void test_strays_taken_over(void **state)
{
	struct rounds o = look_now;
	struct drive d;
	struct seg_place place;
	uint8_t p[5000] = {1};

	(void)state;
	patient(&d);
	three_files(&d);
	dv_stop(&d);
	assert_int_equal(fx_store(&d.x, p, sizeof p, &place), 0);
	/* Seen, and not deleted yet. */
	d.st->cut_epoch = d.st->epoch - 1;
	assert_int_equal(rounds(&d, d.st, &look_now), 0);
	assert_int_equal(dv_number(d.st, "SELECT count(*) FROM stray"), 6);
	d.st->cut_epoch = 0;
	assert_int_equal(history_takeover(d.x.v, d.owner, 1, 2), 0);
	rounds(&d, d.st, &look_now);
	assert_int_equal(all_shards(&d), 24);
	o.skip_seen = true;
	rounds(&d, d.st, &o);
	assert_int_equal(all_shards(&d), 24);
	dv_close(&d);
}

/* Without the second look an upload under way loses what it has stored. */
static void test_strays_control(void **state)
{
	struct rounds o = look_now;
	struct drive d;
	struct seg_place place;
	uint8_t p[5000] = {1};

	(void)state;
	patient(&d);
	three_files(&d);
	dv_stop(&d);
	assert_int_equal(fx_store(&d.x, p, sizeof p, &place), 0);
	o.skip_seen = true;
	assert_int_equal(rounds(&d, d.st, &o), 0);
	assert_int_equal(all_shards(&d), 18);
	dv_close(&d);
}

/* --- compaction --- */

static uint64_t hollow(struct drive *d)
{
	return dv_number(d->st, "SELECT count(*) FROM segment WHERE kind=1 AND live*2<len");
}

static uint64_t condemned(struct drive *d)
{
	return dv_number(d->st, "SELECT count(*) FROM segment WHERE kind=4");
}

static void test_compact(void **state)
{
	struct drive d;
	unsigned before;

	(void)state;
	dv_open(&d);
	d.po.pace =
		(struct publish_pace){.grace_ms = 1, .stray_ms = 1000000000, .compact_ms = 1};
	dv_start(&d);
	for (unsigned i = 0; i < 200; i++) {
		char name[16];

		snprintf(name, sizeof name, "f%u", i);
		dv_write(d.st, INO_ROOT, name, 0, i % 3 ? 40000 : 200000, i);
		if (i % 50 == 49)
			assert_int_equal(dv_publish(&d), 0);
	}
	before = all_shards(&d);
	for (unsigned i = 0; i < 200; i++) {
		char name[16];

		snprintf(name, sizeof name, "f%u", i);
		if (i % 5)
			drop_file(d.st, INO_ROOT, name);
	}
	assert_int_equal(dv_publish(&d), 0);
	int64_t until = now_ms() + WAIT_MS;

	while ((hollow(&d) || condemned(&d)) && now_ms() < until)
		poll(NULL, 0, 20);
	assert_int_equal(hollow(&d), 0);
	assert_int_equal(condemned(&d), 0);
	assert_true(all_shards(&d) < before);
	dv_stop(&d);
	char *want = dv_dump(d.st);

	assert_int_equal(data_evict(d.st, 0), 0);
	char *got = dv_dump(d.st);

	assert_true(dv_same(got, want));
	assert_int_equal(dv_check(d.st, true), 0);
	dv_recovered(&d, want);
	free(got);
	free(want);
	dv_close(&d);
}

/* Changes of all kinds while garbage is collected and moved at once: nothing that lives goes.
 */
static void step(struct drive *d, uint32_t *seed)
{
	char name[16], other[16];
	uint32_t r[6];

	for (unsigned i = 0; i < 6; i++)
		r[i] = (*seed = *seed * 1664525 + 1013904223) >> 8;
	snprintf(name, sizeof name, "f%u", r[0] % 24);
	snprintf(other, sizeof other, "f%u", r[1] % 24);
	struct inode *in = NULL, *to = NULL;

	switch (r[2] % 9) {
	case 0:
	case 1:
	case 2:
		dv_write(d->st, INO_ROOT, name, r[3] % 400000, r[4] % 3 ? r[5] % 5000 : 200000,
			 r[5]);
		return;
	case 3:
		in = dv_file(d->st, INO_ROOT, name);
		assert_int_equal(data_truncate(d->st, in, r[3] % 500000, false), 0);
		break;
	case 4:
		in = dv_file(d->st, INO_ROOT, name);
		assert_int_equal(
			data_fallocate(d->st, in, 3, r[3] % 300000, r[4] % 100000 + 1, false),
			0);
		break;
	case 5:
	case 6:
		in = dv_file(d->st, INO_ROOT, name);
		to = dv_file(d->st, INO_ROOT, other);
		assert_true(data_copy(d->st, in, r[3] % 100000, to, r[4] % 100000,
				      r[5] % 300000, false) >= 0 ||
			    in == to);
		inode_put(d->st, to);
		break;
	case 7:
		in = dv_file(d->st, INO_ROOT, name);
		inode_put(d->st, in);
		drop_file(d->st, INO_ROOT, name);
		return;
	case 8:
		assert_int_equal(dv_publish(d), 0);
		return;
	}
	inode_put(d->st, in);
}

static void test_random(void **state)
{
	const char *env = getenv("SEED");
	uint32_t seed = env ? (uint32_t)strtoul(env, NULL, 0) : (uint32_t)realtime_ns();

	(void)state;
	printf("SEED=%u\n", seed);
	for (unsigned run = 0; run < 3; run++) {
		struct drive d;

		dv_open(&d);
		d.po.pace =
			(struct publish_pace){.grace_ms = 1, .stray_ms = 20, .compact_ms = 1};
		d.po.snapshot_every = 10;
		dv_start(&d);
		for (unsigned i = 0; i < 300; i++) {
			step(&d, &seed);
			if (i % 40 == 39)
				assert_int_equal(data_evict(d.st, 0), 0);
		}
		char *want = dv_dump(d.st);

		assert_int_equal(dv_publish(&d), 0);
		assert_int_equal(publish_wait(d.p, true, now_ms() + WAIT_MS), 0);
		int64_t until = now_ms() + WAIT_MS;

		while (condemned(&d) && now_ms() < until)
			poll(NULL, 0, 20);
		assert_int_equal(condemned(&d), 0);
		dv_stop(&d);
		assert_int_equal(dv_check(d.st, true), 0);
		dv_recovered(&d, want);
		assert_int_equal(data_evict(d.st, 0), 0);
		char *got = dv_dump(d.st);

		assert_true(dv_same(got, want));
		printf("%u shards, %llu commits\n", all_shards(&d),
		       (unsigned long long)dv_number(d.st,
						     "SELECT v FROM kv WHERE k='log_seq'"));
		free(got);
		free(want);
		dv_close(&d);
	}
}

/* --- a database of the version before --- */

static void test_upgrade(void **state)
{
	struct drive d;
	sqlite3 *db;
	char path[128];

	(void)state;
	patient(&d);
	three_files(&d);
	dv_write(d.st, INO_ROOT, "small", 0, 100, 1);
	assert_int_equal(dv_publish(&d), 0);
	dv_stop(&d);
	char *want = dv_dump(d.st);

	assert_int_equal(store_close(d.st), 0);
	snprintf(path, sizeof path, "%s/meta.db", d.dir);
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	assert_int_equal(
		sqlite3_exec(db,
			     "DROP INDEX segment_hollow;DROP INDEX segment_condemned;"
			     "DROP TABLE redo;DROP TABLE stray;"
			     "DROP INDEX segment_ahead;DROP TABLE ahead;"
			     "ALTER TABLE tomb DROP COLUMN ino;ALTER TABLE tomb DROP COLUMN mode;"
			     "ALTER TABLE segment DROP COLUMN live;"
			     "ALTER TABLE segment DROP COLUMN since;"
			     "ALTER TABLE staged DROP COLUMN was;"
			     "ALTER TABLE staged DROP COLUMN was_off;PRAGMA user_version=1",
			     NULL, NULL, NULL),
		SQLITE_OK);
	sqlite3_close(db);
	d.st = dv_store(&d, d.dir);
	assert_int_equal(dv_number(d.st, "PRAGMA user_version"), 3);
	assert_int_equal(dv_check(d.st, true), 0);
	char *got = dv_dump(d.st);

	assert_string_equal(got, want);
	assert_int_equal(rounds(&d, d.st, &collect_now), 0);
	assert_int_equal(all_shards(&d), 18);
	drop_file(d.st, INO_ROOT, "f1");
	dv_start(&d);
	assert_int_equal(dv_publish(&d), 0);
	dv_stop(&d);
	assert_int_equal(rounds(&d, d.st, &collect_now), 0);
	assert_int_equal(all_shards(&d), 12);
	free(want);
	free(got);
	dv_close(&d);
}

/* --- verifying what is stored --- */

static void first_segment(struct drive *d, uint64_t *seg, struct seg_place *place)
{
	pthread_mutex_lock(&d->st->meta);
	sqlite3_stmt *q = store_stmt(d->st, "SELECT seg," SEGMENT_COLS
					    " FROM segment WHERE kind=1 ORDER BY seg LIMIT 1");
	assert_int_equal(store_step(d->st, q), 1);
	*seg = (uint64_t)sqlite3_column_int64(q, 0);
	assert_int_equal(segment_columns(q, 1, place), 0);
	sqlite3_reset(q);
	pthread_mutex_unlock(&d->st->meta);
}

static void flip(const char *path, off_t off)
{
	uint8_t b;
	int fd = open(path, O_RDWR);

	assert_true(fd >= 0);
	assert_int_equal(pread(fd, &b, 1, off), 1);
	b ^= 4;
	assert_int_equal(pwrite(fd, &b, 1, off), 1);
	close(fd);
}

static uint64_t missing(struct drive *d)
{
	return dv_number(d->st, "SELECT coalesce(sum(missing),0) FROM segment");
}

static void test_scrub(void **state)
{
	struct seg_place place;
	struct drive d;
	char path[256];
	uint64_t seg;

	(void)state;
	patient(&d);
	three_files(&d);
	dv_stop(&d);
	first_segment(&d, &seg, &place);
	assert_int_equal(scrub_segment(d.st, seg, &place), 0);
	assert_true(dv_number(d.st, "SELECT v FROM kv WHERE k='verified_3'") > 0);
	/* A bit, a shard, and one that cannot be asked for. */
	fx_shard_path(&d.x, &place, 0, path);
	flip(path, 5000);
	fx_shard_path(&d.x, &place, 1, path);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(scrub_segment(d.st, seg, &place), 2);
	assert_int_equal(node_state(volume_node(d.x.v, place.node[0])), NODE_LYING);
	assert_int_equal(missing(&d), 2);
	/* Never so many that it could not be read: each lost one bit, none is lost. */
	for (unsigned i = 2; i < 6; i++) {
		fx_shard_path(&d.x, &place, i, path);
		flip(path, 200 + i);
	}
	first_segment(&d, &seg, &place);
	assert_int_equal(scrub_segment(d.st, seg, &place), 0);
	assert_int_equal(missing(&d), 2);
	for (unsigned i = 2; i < 6; i++) {
		fx_shard_path(&d.x, &place, i, path);
		flip(path, 200 + i);
	}
	/* The repair list brings them back. */
	dv_start(&d);
	assert_int_equal(publish_wait(d.p, true, now_ms() + WAIT_MS), 0);
	dv_stop(&d);
	assert_int_equal(missing(&d), 0);
	first_segment(&d, &seg, &place);
	assert_int_equal(scrub_segment(d.st, seg, &place), 0);
	assert_int_equal(all_shards(&d), 18);
	dv_close(&d);
}

/* A node that does not answer has lost nothing. */
static void test_scrub_away(void **state)
{
	struct seg_place place;
	struct drive d;
	uint64_t seg;

	(void)state;
	patient(&d);
	three_files(&d);
	dv_stop(&d);
	first_segment(&d, &seg, &place);
	away(&d, place.node[2], true);
	assert_int_equal(scrub_segment(d.st, seg, &place), 0);
	struct scrub_cell c = {.seg = seg, .shard = 2};

	assert_int_equal(scrub_cell(d.st, &c), -EAGAIN);
	assert_int_equal(missing(&d), 0);
	away(&d, place.node[2], false);
	assert_int_equal(scrub_cell(d.st, &c), 0);
	dv_close(&d);
}

/* One shard in a hundred is lost: how many days of 300 samples find it? */
static void test_audit_chance(void **state)
{
	enum { SEGS = 500, DAYS = 400 };
	static struct scrub_cell cell[AUDIT_CELLS];
	static uint64_t hits[SEGS];
	struct drive d;
	unsigned found = 0, lost_of = 0;
	uint64_t cells = 0;

	(void)state;
	dv_open(&d);
	pthread_mutex_lock(&d.st->meta);
	for (unsigned i = 0; i < SEGS; i++) {
		struct seg_place pl = {.geom = {.k = 4,
						.m = 2,
						.cell_log2 = 16,
						.cps = 1 + i % 64,
						.len = 1000}};

		randombytes_buf(pl.geom.id.b, SEG_LEN);
		for (unsigned j = 0; j < 6; j++)
			pl.node[j] = (uint16_t)(j + 1);
		assert_int_equal(segment_insert_locked(d.st, i + 1, &pl, SEG_DATA, 0, 0, NULL),
				 0);
		cells += 6 * pl.geom.cps;
	}
	pthread_mutex_unlock(&d.st->meta);
	for (unsigned day = 0; day < DAYS; day++) {
		bool one = false;

		assert_int_equal(scrub_draw(d.st, cell, AUDIT_CELLS), AUDIT_CELLS);
		for (unsigned i = 0; i < AUDIT_CELLS; i++) {
			struct scrub_cell *c = &cell[i];

			assert_true(c->seg >= 1 && c->seg <= SEGS && c->shard < 6);
			assert_true(c->row < 1 + (c->seg - 1) % 64);
			hits[c->seg - 1]++;
			/* Every hundredth cell, counted over all of them. */
			bool lost =
				(c->seg * 7919 + c->shard * 104729 + c->row * 1299709) % 100 ==
				0;
			one = one || lost;
			lost_of += lost;
		}
		found += one;
	}
	printf("%u of %u days found it, 1 - 0.99^300 = 0.951; %u of %u samples\n", found, DAYS,
	       lost_of, DAYS * AUDIT_CELLS);
	/* Four standard deviations of 400 throws at 0.951. */
	assert_true(found >= DAYS * 951 / 1000 - 4 * 5 && found <= DAYS);
	/* As many as it has cells: the large half of the segments against the small half. */
	uint64_t large = 0, large_cells = 0;

	for (unsigned i = 0; i < SEGS; i++) {
		if (i % 64 < 32)
			continue;
		large += hits[i];
		large_cells += 6 * (1 + i % 64);
	}
	double share = (double)large / (DAYS * AUDIT_CELLS),
	       want = (double)large_cells / (double)cells;

	assert_true(share > want - 0.01 && share < want + 0.01);
	dv_close(&d);
}

/* The thread by itself: a damaged cell is found by samples, a lost shard by the pass. */
static void test_scrub_thread(void **state)
{
	(void)state;
	for (int audit = 0; audit < 2; audit++) {
		struct seg_place place;
		struct drive d;
		char path[256];
		uint64_t seg;

		patient(&d);
		three_files(&d);
		dv_stop(&d);
		first_segment(&d, &seg, &place);
		fx_shard_path(&d.x, &place, 3, path);
		if (audit)
			for (unsigned i = 0; i < 3; i++)
				flip(path,
				     SHARD_HEADER + (off_t)i * seg_stride(&place.geom) + 9);
		else
			flip(path, 9000);
		d.po.pace.audit_s = audit ? 1 : 1000000000;
		d.po.pace.scrub_s = audit ? 1000000000 : 1;
		d.po.pace.scrub_limit = 1000000000;
		/* The pass has had its turn already. */
		pthread_mutex_lock(&d.st->meta);
		if (audit)
			store_put_u64(d.st, "scrub_start",
				      (uint64_t)(realtime_ns() / 1000000000) + 999999999);
		else
			store_put_u64(d.st, "audit_start",
				      (uint64_t)(realtime_ns() / 1000000000) + 999999999);
		pthread_mutex_unlock(&d.st->meta);
		dv_start(&d);
		assert_int_equal(dv_publish(&d), 0);
		int64_t until = now_ms() + WAIT_MS;

		while (node_state(volume_node(d.x.v, place.node[3])) != NODE_LYING &&
		       now_ms() < until)
			poll(NULL, 0, 20);
		assert_int_equal(node_state(volume_node(d.x.v, place.node[3])), NODE_LYING);
		bool present[EC_MAX], bad[EC_MAX];

		while (check_segment(d.x.v, &place, true, present, bad) && now_ms() < until)
			poll(NULL, 0, 50);
		assert_int_equal(check_segment(d.x.v, &place, true, present, bad), 0);
		dv_stop(&d);
		assert_true(dv_number(d.st, audit ? "SELECT v FROM kv WHERE k='audit_start'"
						  : "SELECT v FROM kv WHERE k='scrub_start'") >
			    0);
		dv_close(&d);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_dead),	       cmocka_unit_test(test_unpublished),
		cmocka_unit_test(test_crash),	       cmocka_unit_test(test_taken_over),
		cmocka_unit_test(test_away),	       cmocka_unit_test(test_no_return),
		cmocka_unit_test(test_strays),	       cmocka_unit_test(test_strays_taken_over),
		cmocka_unit_test(test_strays_control), cmocka_unit_test(test_compact),
		cmocka_unit_test(test_random),	       cmocka_unit_test(test_upgrade),
		cmocka_unit_test(test_scrub),	       cmocka_unit_test(test_scrub_away),
		cmocka_unit_test(test_audit_chance),   cmocka_unit_test(test_scrub_thread),
	};

	return dv_init() ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
