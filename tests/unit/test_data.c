/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Contents against a model: random writes, truncates, holes and copies, publication, eviction,
 * reopening and crashes; contents that are on nodes; threads.
 */
#include "world_util.h"

/* --- operations --- */

static uint64_t pick_off(struct world *w, int f)
{
	uint64_t at = rnd(3) ? rnd(CAP) : rnd(70000);

	if (rnd(3) == 0)
		at = at / 4096 * 4096;
	if (rnd(2) && w->now[f].size > w->base[f])
		at = rnd(w->now[f].size - w->base[f] + 1);
	return w->base[f] + HF_MIN(at, CAP - 1);
}

static void op_write(struct world *w, int f)
{
	op_write_at(w, f, pick_off(w, f), 1 + rnd(rnd(10) ? 9000 : 300000));
}

static void op_record(struct world *w, int f)
{
	for (uint64_t rounds = 1 + rnd(4); rounds; rounds--) {
		uint64_t off = rnd(3) ? w->now[f].size : pick_off(w, f);

		off = HF_MIN(HF_MAX(off, w->base[f]), w->base[f] + CAP - 1);
		for (uint64_t i = 1 + rnd(rnd(5) ? 3 : 12); i; i--) {
			uint64_t len = 1 + rnd(rnd(4) ? 3000 : 12000);

			len = HF_MIN(len, w->base[f] + CAP - off);
			op_write_at(w, f, off, len);
			off = rnd(3) ? off + len : pick_off(w, f);
			off = HF_MIN(off, w->base[f] + CAP - 1);
		}
		op_sync(w, f);
		/* In the background it comes at any time. */
		if (!rnd(6))
			assert_int_equal(data_redo_settle(w->st, true), 0);
	}
}

static void op_truncate(struct world *w, int f)
{
	uint64_t size = rnd(4) ? pick_off(w, f) : 0;

	if (w->plan.solid)
		size = HF_MAX(size, w->base[f] + SMALL_MAX + 1);
	w->synced[f] = false;
	assert_int_equal(data_truncate(w->st, w->in[f], size, false), 0);
	w->now[f].size = size;
	image_trim(&w->now[f], w->base[f]);
}

static void op_punch(struct world *w, int f)
{
	static const int modes[] = {FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				    FALLOC_FL_ZERO_RANGE, 0,
				    FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE};
	uint64_t off = pick_off(w, f), at = off - w->base[f];
	uint64_t len = 1 + rnd(200000);
	int mode = modes[rnd(4)];

	len = HF_MIN(len, CAP - at);
	w->synced[f] = false;
	assert_int_equal(data_fallocate(w->st, w->in[f], mode, off, len, false), 0);
	if (mode)
		memset(w->now[f].b + at, 0, len);
	if (!(mode & FALLOC_FL_KEEP_SIZE))
		w->now[f].size = HF_MAX(w->now[f].size, off + len);
}

static void op_copy(struct world *w)
{
	int a = (int)rnd(FILES), b = (int)rnd(FILES);
	uint64_t from = pick_off(w, a), to = pick_off(w, b);
	uint64_t len = 1 + rnd(400000);

	len = HF_MIN(len, CAP - (from - w->base[a]));
	len = HF_MIN(len, CAP - (to - w->base[b]));
	if (a == b && from < to + len && to < from + len) {
		assert_int_equal(data_copy(w->st, w->in[a], from, w->in[b], to, len, false),
				 -EINVAL);
		return;
	}
	uint64_t want = from < w->now[a].size ? HF_MIN(len, w->now[a].size - from) : 0;
	w->synced[b] = false;
	int64_t n = data_copy(w->st, w->in[a], from, w->in[b], to, len, false);
	assert_true(n >= 0 && (uint64_t)n <= want && (n || !want));
	if (!n)
		return;
	memmove(w->now[b].b + (to - w->base[b]), w->now[a].b + (from - w->base[a]), (size_t)n);
	w->now[b].size = HF_MAX(w->now[b].size, to + (uint64_t)n);
}

/* In a solid world a file is large from the beginning. */
static void solidify(struct world *w)
{
	static uint8_t buf[SMALL_MAX + 1];

	memset(buf, 7, sizeof buf);
	for (int f = 0; f < FILES; f++) {
		assert_int_equal(
			data_write(w->st, w->in[f], buf, sizeof buf, w->base[f], false), 0);
		memcpy(w->now[f].b, buf, sizeof buf);
		w->now[f].size = w->base[f] + sizeof buf;
	}
}

static void run_world(const struct plan_of *plan, int ops)
{
	struct world *w = world_new(plan);
	struct image *at_cut = malloc(sizeof w->now);

	assert_non_null(at_cut);
	if (plan->solid)
		solidify(w);
	for (int i = 0; i < ops; i++) {
		int f = (int)rnd(FILES);
		uint64_t what = rnd(100);

		if (what < 35)
			op_write(w, f);
		else if (what < 45)
			op_record(w, f);
		else if (what < 53)
			op_truncate(w, f);
		else if (what < 62)
			op_punch(w, f);
		else if (what < 68 && !plan->solid)
			op_copy(w);
		else if (what < 74)
			check_read(w, w->st, w->in[f], f, pick_off(w, f), 1 + rnd(300000),
				   &w->now[f]);
		else if (what < 76)
			check_seek(w, f);
		else if (what < 79)
			assert_int_equal(data_evict(w->st, 0), 0);
		else if (what < 82) {
			op_sync(w, f);
			if (plan->crashes && rnd(2))
				crash_check(w, PC_LOSE);
		} else if (what < 84)
			assert_int_equal(store_commit(w->st), 0);
		else if (what < 88 && plan->crashes)
			crash_check(w, (enum pc_mode)rnd(3));
		else if (what < 89 && !w->cutting) {
			world_close(w);
			world_open(w);
		} else if (!w->cutting) {
			memcpy(at_cut, w->now, sizeof w->now);
			cut_begin(w);
		} else if (w->packed < w->pieces && what < 97) {
			pack_one(w);
		} else {
			cut_end(w, rnd(5) != 0, at_cut);
		}
		if (i % 50 == 0)
			check_all(w);
	}
	check_all(w);
	if (w->cutting)
		cut_end(w, true, at_cut);
	/* All is published: what was not, is; and nothing but that is needed to read it. */
	publish(w);
	assert_int_equal(w->st->unpublished_bytes, 0);
	assert_int_equal(data_evict(w->st, 0), 0);
	assert_int_equal(w->st->cached_bytes, 0);
	check_all(w);
	for (int f = 0; f < FILES; f++)
		assert_memory_equal(&w->remote[f], &w->now[f], sizeof w->now[f]);
	world_close(w);
	world_free(w);
	free(at_cut);
}

static void model(void **state)
{
	(void)state;
	mismatches = lies = in_rows = 0;
	for (int i = 0; i < 6; i++)
		run_world(&(struct plan_of){.crashes = true, .solid = i % 2}, 250);
	assert_int_equal(mismatches, 0);
	assert_int_equal(lies, 0);
	assert_true(in_rows > 50);
}

/* Negative controls: without one of the mechanisms a crash tells. */
static void controls(void **state)
{
	static const struct plan_of plans[] = {
		{{.skip_sync = true}, true, true},
		{{.skip_intent = true}, true, false},
		{{.skip_settle = true}, true, true},
		{{.skip_redo = true}, true, false},
	};

	(void)state;
	for (size_t i = 0; i < sizeof plans / sizeof plans[0]; i++) {
		lies = 0;
		for (int round = 0; round < 20 && !lies; round++)
			run_world(&plans[i], 200);
		if (!lies)
			fail_msg("mechanism %zu is not missed", i);
	}
	lies = 0;
}

/* Negative control: without captures the published state is not an instant of the drive. */
static void no_capture(void **state)
{
	uint64_t keep = seed;

	(void)state;
	mismatches = 0;
	struct world *w = world_new(&(struct plan_of){.o.skip_capture = true});
	struct image *at_cut = malloc(sizeof w->now);
	uint8_t buf[100000];

	assert_non_null(at_cut);
	memset(buf, 1, sizeof buf);
	assert_int_equal(data_write(w->st, w->in[0], buf, sizeof buf, 0, false), 0);
	memcpy(w->now[0].b, buf, sizeof buf);
	w->now[0].size = sizeof buf;
	memcpy(at_cut, w->now, sizeof w->now);
	cut_begin(w);
	memset(buf, 2, sizeof buf);
	assert_int_equal(data_write(w->st, w->in[0], buf, 5000, 300, false), 0);
	cut_end(w, true, at_cut);
	assert_true(mismatches > 0);
	world_close(w);
	world_free(w);
	free(at_cut);
	seed = keep;
}

/* Small files are evicted whenever nobody holds st->meta, also between two steps of ours. */
static void evicted_meanwhile(void **state)
{
	struct world *w = world_new(NULL);
	struct store *st = w->st;

	(void)state;
	mismatches = 0;
	fill(w, 0, 6, 50000);
	publish(w);
	assert_int_equal(mismatches, 0);
	/* As if data_write had found the bytes here just before. */
	assert_int_equal(data_evict(st, 0), 0);
	assert_false(w->in[0]->flags & INODE_SMALL_HAVE);
	assert_int_equal(iolock_write(&w->in[0]->io), 0);
	assert_int_equal(data_make_large(st, w->in[0]), -EAGAIN);
	iolock_unlock(&w->in[0]->io);
	check_all(w);
	assert_int_equal(data_evict(st, 0), 0);
	uint8_t b[40000];
	memset(b, 9, sizeof b);
	assert_int_equal(data_write(st, w->in[0], b, sizeof b, 40000, false), 0);
	memcpy(w->now[0].b + 40000, b, sizeof b);
	w->now[0].size = 80000;
	check_all(w);
	world_close(w);
	world_free(w);
}

/* Whose program is to end waits for nobody who reads from far; nothing has changed then. */
static void told_to_go(void **state)
{
	struct world *w = world_new(NULL);
	struct inode *in = w->in[0], *other = w->in[1];
	struct store *st = w->st;
	uint8_t b[100] = {0};
	struct giveup g;

	(void)state;
	fill(w, 0, 1, CAP);
	fill(w, 1, 2, 50000);
	giveup_init(&g, NULL);
	giveup_now(&g, -EINTR);
	/* Somebody reads both. */
	assert_int_equal(iolock_read(&in->io), 0);
	assert_int_equal(iolock_read(&other->io), 0);
	giveup_set(&g);
	assert_int_equal(data_write(st, in, b, sizeof b, 0, false), -EINTR);
	assert_int_equal(data_write(st, other, b, sizeof b, 0, false), -EINTR);
	assert_int_equal(data_truncate(st, in, 10, false), -EINTR);
	assert_int_equal(data_fallocate(st, other, FALLOC_FL_ZERO_RANGE, 0, 10, false), -EINTR);
	assert_int_equal(data_copy(st, in, 0, in, 50000, 100, false), -EINTR);
	assert_int_equal(data_copy(st, in, 0, other, 0, 100, false), -EINTR);
	assert_int_equal(data_copy(st, other, 0, in, 0, 100, false), -EINTR);
	/* Who only reads does not wait. */
	assert_int_equal(data_read(st, in, b, sizeof b, 0), sizeof b);
	iolock_unlock(&in->io);
	iolock_unlock(&other->io);
	/* Somebody changes one of them. */
	assert_true(iolock_try_write(&in->io));
	assert_int_equal(data_read(st, in, b, sizeof b, 0), -EINTR);
	assert_int_equal(data_seek(st, in, 0, SEEK_DATA), -EINTR);
	assert_int_equal(data_copy(st, in, 0, other, 0, 100, false), -EINTR);
	iolock_unlock(&in->io);
	giveup_set(NULL);
	giveup_release(&g);
	/* Neither is held any more. */
	assert_true(iolock_try_write(&in->io) && iolock_try_write(&other->io));
	iolock_unlock(&in->io);
	iolock_unlock(&other->io);
	check_all(w);
	world_close(w);
	world_free(w);
}

/* What the user gives up is given back to the disk, also when the drive is stopped at once. */
static void given_back(void **state)
{
	struct world *w = world_new(NULL);
	char path[160], name[48];
	struct stat sb;

	(void)state;
	fill(w, 0, 8, CAP);
	assert_int_equal(data_start(w->st), 0);
	assert_int_equal(data_sync(w->st, w->in[0], false), 0);
	assert_int_equal(data_truncate(w->st, w->in[0], 70000, false), 0);
	data_stop(w->st);
	cfile_name(w->ino[0], CF_MAIN, name);
	snprintf(path, sizeof path, "%s/data/%s", w->dir, name);
	assert_int_equal(stat(path, &sb), 0);
	assert_true(sb.st_size <= 70000);
	/* A cache file that lost its bytes is an error, not zeros. */
	assert_int_equal(truncate(path, 1000), 0);
	assert_int_equal(data_read(w->st, w->in[0], name, 10, 60000), -EIO);
	assert_int_equal(data_read(w->st, w->in[0], name, 10, 500), 10);
	world_close(w);
	assert_int_equal(unlink(path), 0);
	world_open(w);
	assert_int_equal(data_read(w->st, w->in[0], name, 10, 500), -EIO);
	assert_int_equal(data_write(w->st, w->in[0], "x", 1, 0, false), -EIO);
	world_close(w);
	world_free(w);
}

/* 4 TiB with a few bytes: few rows, no time, exact holes, few blocks. */
static void sparse(void **state)
{
	struct world *w = world_new(NULL);
	struct inode *in = w->in[0];
	struct store *st = w->st;

	(void)state;
	assert_int_equal(data_truncate(st, in, 4ull << 40, false), 0);
	assert_int_equal(data_seek(st, in, 0, SEEK_DATA), -ENXIO);
	for (uint64_t i = 1; i < 4; i++)
		assert_int_equal(data_write(st, in, "abc", 3, i << 40, false), 0);
	assert_true(data_seek(st, in, 0, SEEK_DATA) == 1ll << 40);
	assert_true(data_seek(st, in, 1ull << 40, SEEK_HOLE) == (1ll << 40) + 3);
	assert_true(data_seek(st, in, (3ull << 40) + 3, SEEK_HOLE) == (3ll << 40) + 3);
	assert_int_equal(data_seek(st, in, (3ull << 40) + 3, SEEK_DATA), -ENXIO);
	assert_int_equal(data_fallocate(st, in, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 5,
					4ull << 40, false),
			 0);
	assert_int_equal(data_seek(st, in, 0, SEEK_DATA), -ENXIO);
	assert_int_equal(data_write(st, in, "abc", 3, 2ull << 40, false), 0);
	assert_int_equal(data_sync(st, in, false), 0);
	pthread_mutex_lock(&st->meta);
	assert_int_equal(data_allocated_locked(st, in), 3);
	sqlite3_stmt *s = store_stmt(st, "SELECT count(*) FROM span");
	assert_int_equal(store_step(st, s), 1);
	assert_true(sqlite3_column_int(s, 0) <= 3);
	sqlite3_reset(s);
	pthread_mutex_unlock(&st->meta);
	assert_int_equal(data_write(st, in, "x", 1, (1ull << 62), false), -EFBIG);
	assert_int_equal(data_truncate(st, in, (1ull << 62) + 1, false), -EFBIG);
	world_close(w);
	world_free(w);
}

/* --- nodes --- */

#define SEGS	 3
#define PART_LEN (5u << 20)

static void segment_row(struct store *st, uint64_t seg, const struct seg_place *p)
{
	sqlite3_stmt *s =
		store_stmt(st, "INSERT INTO segment VALUES(?,?,1,?,?,?,?,?,?,0,0,0,NULL,0,0)");
	uint8_t nodes[2 * EC_MAX];
	int n = p->geom.k + p->geom.m;

	assert_non_null(s);
	for (int i = 0; i < n; i++)
		put_le16(nodes + 2 * i, p->node[i]);
	sqlite3_bind_int64(s, 1, (sqlite3_int64)seg);
	sqlite3_bind_blob(s, 2, &p->geom.id, sizeof p->geom.id, SQLITE_STATIC);
	sqlite3_bind_int(s, 3, p->geom.k);
	sqlite3_bind_int(s, 4, p->geom.m);
	sqlite3_bind_int(s, 5, p->geom.cell_log2);
	sqlite3_bind_int64(s, 6, p->geom.cps);
	sqlite3_bind_int64(s, 7, p->geom.len);
	sqlite3_bind_blob(s, 8, nodes, 2 * n, SQLITE_STATIC);
	assert_int_equal(store_run(st, s), 0);
}

static void compare(struct store *st, struct inode *in, const uint8_t *all, uint64_t off,
		    size_t len)
{
	static uint8_t got[1 << 20];

	assert_int_equal(data_read(st, in, got, len, off), len);
	assert_memory_equal(got, all + off, len);
}

/* A file that is on six nodes only: at random, in sequence (read-ahead), again, and gone. */
static void nodes(void **state)
{
	struct world *w = world_new(NULL);
	struct store *st = w->st;
	struct inode *in = w->in[0], *copy = w->in[1];
	const size_t size = (size_t)SEGS * PART_LEN;
	uint8_t *all = malloc(size), got[10];
	struct fixture x;
	struct stat sb;
	int64_t btime;

	(void)state;
	assert_non_null(all);
	fx_fill(all, size, 3);
	fx_open(&x, 6, 4, 2);
	st->vol = x.v;
	assert_int_equal(data_truncate(st, in, size, false), 0);
	for (unsigned i = 0; i < SEGS; i++) {
		struct extent e = {(uint64_t)i * PART_LEN, PART_LEN, i + 1, 0};
		struct seg_place p;

		assert_int_equal(fx_store(&x, all + (size_t)i * PART_LEN, PART_LEN, &p), 0);
		pthread_mutex_lock(&st->meta);
		segment_row(st, i + 1, &p);
		assert_int_equal(extent_put_locked(st, in->ino, &e), 0);
		pthread_mutex_unlock(&st->meta);
	}
	assert_int_equal(store_start(st), 0);
	assert_int_equal(data_start(st), 0);
	inode_stat(st, in, &sb, &btime);
	assert_int_equal(sb.st_blocks, size / 512);
	for (int i = 0; i < 30; i++) {
		size_t len = 1 + rnd(70000);
		compare(st, in, all, rnd(size - len), len);
	}
	assert_true(st->cached_bytes > 0);
	for (int pass = 0; pass < 2; pass++) {
		for (size_t off = 0; off < size; off += 128 << 10)
			compare(st, in, all, off, 128 << 10);
		assert_int_equal(st->cached_bytes, size);
	}
	/* A copy has the same extents and costs nothing here. */
	assert_int_equal(data_copy(st, in, 1000, copy, 500, size - 1000, false), size - 1000);
	assert_int_equal(st->cached_bytes, size);
	assert_int_equal(data_read(st, copy, got, 10, 3000500), 10);
	assert_memory_equal(got, all + 3001000, 10);
	/* What was written stays what it is while the rest comes from the nodes again. */
	assert_int_equal(data_evict(st, 0), 0);
	assert_int_equal(st->cached_bytes, 0);
	memset(all + 1000000, 0x55, 3000);
	assert_int_equal(data_write(st, in, all + 1000000, 3000, 1000000, false), 0);
	for (size_t off = 0; off < size; off += 512 << 10)
		compare(st, in, all, off, 512 << 10);
	assert_int_equal(data_evict(st, 0), 0);
	assert_int_equal(st->cached_bytes, 3000);
	compare(st, in, all, 1000000, 3000);
	data_stop(st);
	fx_close(&x);
	st->vol = NULL;
	assert_int_equal(data_read(st, in, got, 10, 0), -ENODATA);
	compare(st, in, all, 1000100, 2000);
	world_close(w);
	world_free(w);
	free(all);
}

/* --- threads --- */

struct crew {
	struct world *w;
	_Atomic bool stop;
	_Atomic unsigned torn;
};

#define BLOCK  4096u
#define BLOCKS 512u

static void *writes(void *arg)
{
	struct crew *c = arg;
	uint8_t b[BLOCK];

	for (unsigned i = 1; !c->stop; i++) {
		memset(b, (int)(i % 255 + 1), sizeof b);
		data_write(c->w->st, c->w->in[0], b, sizeof b, (i * 7919u % BLOCKS) * BLOCK,
			   false);
		if (i % 1000 == 0)
			data_truncate(c->w->st, c->w->in[0], i % 3000 ? BLOCK * 100 : 0, false);
		if (i % 700 == 0)
			data_sync(c->w->st, c->w->in[0], false);
	}
	return NULL;
}

static bool uniform(const uint8_t *b, size_t len)
{
	return !len || (b[0] == b[len - 1] && !memcmp(b, b + 1, len - 1));
}

static void *reads(void *arg)
{
	struct crew *c = arg;
	uint8_t b[BLOCK];

	for (unsigned i = 0; !c->stop; i++) {
		int64_t n = data_read(c->w->st, c->w->in[0], b, sizeof b,
				      (i * 104729u % BLOCKS) * BLOCK);
		if (n < 0 || !uniform(b, (size_t)n))
			c->torn++;
		struct stat sb;
		int64_t btime;
		inode_stat(c->w->st, c->w->in[0], &sb, &btime);
	}
	return NULL;
}

static void threads(void **state)
{
	struct crew c = {.w = world_new(NULL)};
	struct store *st = c.w->st;
	struct inode *in = c.w->in[0];
	pthread_t t[2];
	uint8_t b[BLOCK];

	(void)state;
	assert_int_equal(store_start(st), 0);
	assert_int_equal(data_start(st), 0);
	pthread_create(&t[0], NULL, writes, &c);
	pthread_create(&t[1], NULL, reads, &c);
	for (int round = 0; round < 60; round++) {
		struct {
			uint64_t off, end;
		} list[BLOCKS];
		unsigned cnt = 0;
		uint64_t pos = 0, start, end;
		unsigned flags;

		data_gate_close(st);
		pthread_mutex_lock(&st->meta);
		bool large = in->flags & INODE_LARGE;
		if (large) {
			assert_int_equal(data_cut_locked(st, in), 0);
			while (ranges_next(in->spans, pos, in->size, RG_CUT, &start, &end,
					   &flags) == 1) {
				list[cnt].off = start;
				list[cnt++].end = end;
				pos = end;
			}
		}
		st->cut_epoch = st->epoch++;
		st->cut_pos = 0;
		pthread_mutex_unlock(&st->meta);
		data_gate_open(st);
		for (unsigned i = 0; i < cnt; i++) {
			for (pos = list[i].off; pos < list[i].end; pos += BLOCK) {
				if (data_cut_read(st, in, pos, b, BLOCK) || !uniform(b, BLOCK))
					c.torn++;
				data_cut_packed(st, in, pos, BLOCK);
			}
		}
		pthread_mutex_lock(&st->meta);
		if (large)
			data_cut_done_locked(st, in, false);
		st->cut_epoch = 0;
		sqlite3_stmt *s = store_stmt(st, "DELETE FROM capture");
		store_run(st, s);
		pthread_mutex_unlock(&st->meta);
		data_evict(st, 0);
	}
	c.stop = true;
	pthread_join(t[0], NULL);
	pthread_join(t[1], NULL);
	assert_int_equal(c.torn, 0);
	data_stop(st);
	world_close(c.w);
	world_free(c.w);
}

/* Figures for people: no assertion but that it works. */
static void speed(void **state)
{
	struct world *w = world_new(NULL);
	static uint8_t buf[1 << 20];
	const unsigned mib = 128, small = 60000;
	int64_t t = now_ms();

	(void)state;
	for (unsigned i = 0; i < mib; i++)
		assert_int_equal(
			data_write(w->st, w->in[0], buf, sizeof buf, (uint64_t)i << 20, false),
			0);
	int64_t seq = now_ms() - t;
	t = now_ms();
	for (unsigned i = 0; i < small; i++)
		assert_int_equal(
			data_write(w->st, w->in[0], buf, 4096, rnd(mib << 8) << 12, false), 0);
	int64_t random = now_ms() - t;
	print_message("sequential %.0f MB/s, random 4 KiB %.0f/s\n",
		      mib * 1048.576 / (double)HF_MAX(seq, 1),
		      small * 1e3 / (double)HF_MAX(random, 1));
	world_close(w);
	world_free(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sparse),
		cmocka_unit_test(no_capture),
		cmocka_unit_test(model),
		cmocka_unit_test(controls),
		cmocka_unit_test(evicted_meanwhile),
		cmocka_unit_test(told_to_go),
		cmocka_unit_test(given_back),
		cmocka_unit_test(nodes),
		cmocka_unit_test(threads),
		cmocka_unit_test(speed),
	};

	return world_init() ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
