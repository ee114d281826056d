/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Contents against a model: random writes, truncates, holes and copies of three files; a
 * publisher that cuts, packs and publishes into inline segments (so no node is needed) while
 * goes on; eviction; reopening; and crashes: a copy of the state directory as it is, or as a
 * power cut may leave it, opened.  What the publisher says must be the model at the cut; after
 * a crash what is clean must be what is published (L5), a file that was synced and not
 * changed since must be as it was (L2), and in a world where nobody writes zeros no byte that
 * is here may be one (L1).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <linux/falloc.h>
#include <sodium.h>
#include <time.h>
#include "cache/datafile.h"
#include "net/giveup.h"
#include "powercut.h"
#include "volume_util.h"

#define FILES  3
#define CAP    ((size_t)1536 << 10)
#define PIECES 4096

static uint64_t seed;
static unsigned mismatches; /* of the cut against the model */
static unsigned lies;	    /* of what is left after a crash */
static unsigned in_rows;    /* fsyncs that made rows of `redo` */

/* What a run of the model does. */
struct plan_of {
	struct store_opts o; /* switches */
	bool crashes, solid; /* solid: large files without copies, in which no zero is written */
};

static uint64_t rnd(uint64_t n)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (seed * 0x2545f4914f6cdd1d >> 16) % n;
}

struct image {
	uint64_t size;
	uint8_t b[CAP]; /* from base on; before it all is zero */
};

struct world {
	char dir[64];
	struct store *st;
	struct inode *in[FILES];
	uint64_t ino[FILES], base[FILES];
	struct image now[FILES], cut[FILES], remote[FILES];
	bool in_cut[FILES], cut_large[FILES];
	bool synced[FILES]; /* and not changed since */
	struct plan_of plan;
	struct piece {
		int file;
		uint64_t off, len;
	} piece[PIECES];
	unsigned pieces, packed;
	struct buf seg; /* plaintext of the cut */
	uint32_t seg_off[PIECES];
	uint64_t next_seg;
	bool cutting;
};

/* --- the model --- */

static void image_trim(struct image *m, uint64_t base)
{
	uint64_t keep = m->size > base ? m->size - base : 0;

	if (keep < CAP)
		memset(m->b + keep, 0, CAP - keep);
}

static void check_read(struct world *w, struct store *st, struct inode *in, int f, uint64_t off,
		       size_t len, const struct image *m)
{
	uint8_t *got = malloc(len);
	uint64_t base = w->base[f];

	assert_non_null(got);
	int64_t n = data_read(st, in, got, len, off);
	uint64_t want = off < m->size ? HF_MIN((uint64_t)len, m->size - off) : 0;
	assert_int_equal(n, want);
	for (uint64_t i = 0; i < want; i++) {
		uint8_t b = off + i >= base ? m->b[off + i - base] : 0;
		if (got[i] != b)
			fail_msg("file %d at %llu: %02x, not %02x", f,
				 (unsigned long long)(off + i), got[i], b);
	}
	free(got);
}

static void check_all(struct world *w)
{
	for (int f = 0; f < FILES; f++) {
		uint64_t from = w->base[f] > 100000 ? w->base[f] - 100000 : 0;
		assert_true(w->in[f]->size == w->now[f].size);
		check_read(w, w->st, w->in[f], f, from, CAP + 100000, &w->now[f]);
	}
}

static void check_seek(struct world *w, int f)
{
	const struct image *m = &w->now[f];
	uint64_t pos = 0, base = w->base[f];

	while (pos < m->size) {
		int64_t data = data_seek(w->st, w->in[f], pos, SEEK_DATA);
		uint64_t to = data == -ENXIO ? m->size : (uint64_t)data;

		assert_true(data == -ENXIO || (data >= 0 && to < m->size));
		for (uint64_t i = HF_MAX(pos, base); i < to; i++)
			assert_int_equal(m->b[i - base], 0);
		if (data < 0)
			break;
		int64_t hole = data_seek(w->st, w->in[f], to, SEEK_HOLE);
		assert_true(hole > data && (uint64_t)hole <= m->size);
		pos = (uint64_t)hole;
	}
	assert_int_equal(data_seek(w->st, w->in[f], m->size, SEEK_DATA), -ENXIO);
	assert_int_equal(data_seek(w->st, w->in[f], m->size, SEEK_HOLE), -ENXIO);
}

/* --- opening --- */

static void world_open(struct world *w)
{
	struct store_opts o = w->plan.o;

	o.dir = w->dir;
	o.cache_size = 1ull << 40;
	assert_int_equal(store_open(&w->st, &o), 0);
	for (int f = 0; f < FILES; f++)
		if (w->ino[f])
			assert_int_equal(inode_get(w->st, w->ino[f], &w->in[f]), 0);
}

static struct world *world_new(const struct plan_of *plan)
{
	struct world *w = calloc(1, sizeof *w);

	assert_non_null(w);
	if (plan)
		w->plan = *plan;
	strcpy(w->dir, "/tmp/hf-test-data-XXXXXX");
	assert_non_null(mkdtemp(w->dir));
	if (w->plan.crashes)
		pc_on(w->dir);
	world_open(w);
	assert_int_equal(store_init_root(w->st, 0, 0, 0755), 0);
	w->next_seg = 1;
	for (int f = 0; f < FILES; f++) {
		struct meta_new n = {.mode = S_IFREG | 0644};
		char name[2] = {(char)('a' + f), 0};

		assert_int_equal(meta_create(w->st, INO_ROOT, name, 1, &n, &w->in[f]), 0);
		w->ino[f] = w->in[f]->ino;
		w->base[f] = f == 2 ? RANGE_CHUNK - CAP / 2 : 0;
	}
	return w;
}

static void world_close(struct world *w)
{
	for (int f = 0; f < FILES; f++)
		inode_put(w->st, w->in[f]);
	assert_int_equal(store_close(w->st), 0);
}

/* Nothing more is committed; what was written stays. */
static void world_die(struct world *w)
{
	pthread_mutex_lock(&w->st->meta);
	store_fail_locked(w->st, -EIO, "the end of this life");
	pthread_mutex_unlock(&w->st->meta);
	for (int f = 0; f < FILES; f++)
		inode_put(w->st, w->in[f]);
	assert_int_equal(store_close(w->st), -EIO);
}

static void world_free(struct world *w)
{
	fx_rm_tree(w->dir);
	if (w->plan.crashes) {
		fx_rm_tree(pc.disk);
		pc_off();
	}
	buf_release(&w->seg);
	free(w);
}

/* --- the publisher --- */

static int add_live(void *arg, const struct extent *e)
{
	struct {
		struct world *w;
		int f;
	} *a = arg;
	struct seg_place place;
	struct buf data = {0};
	bool is_inline;

	assert_int_equal(segment_place_locked(a->w->st, e->seg, &place, &data, &is_inline), 0);
	assert_true(is_inline);
	memcpy(a->w->cut[a->f].b + (e->off - a->w->base[a->f]), data.p + e->seg_off, e->len);
	buf_release(&data);
	return 0;
}

/* Makes w->cut what the other side will know: remote, with what this cut says changed. */
static void cut_begin(struct world *w)
{
	struct store *st = w->st;

	w->pieces = w->packed = 0;
	buf_reset(&w->seg);
	data_gate_close(st);
	pthread_mutex_lock(&st->meta);
	for (int f = 0; f < FILES; f++) {
		struct inode *in = w->in[f];
		uint64_t pos = 0, start, end;
		unsigned flags;

		memcpy(&w->cut[f], &w->remote[f], sizeof w->cut[f]);
		w->in_cut[f] = in->dchg > st->published;
		w->cut_large[f] = in->flags & INODE_LARGE;
		if (!w->in_cut[f])
			continue;
		w->cut[f].size = in->size;
		image_trim(&w->cut[f], w->base[f]);
		if (!w->cut_large[f]) {
			w->piece[w->pieces++] = (struct piece){f, 0, in->size};
			continue;
		}
		assert_int_equal(data_cut_locked(st, in), 0);
		while (ranges_next(in->spans, pos, in->size, RG_CUT | RG_CMETA, &start, &end,
				   &flags) == 1) {
			pos = end;
			uint64_t at = HF_MAX(start, w->base[f]);
			if (flags & RG_CUT) {
				assert_true(w->pieces < PIECES);
				w->piece[w->pieces++] = (struct piece){f, start, end - start};
			} else if (at < end) {
				struct {
					struct world *w;
					int f;
				} a = {w, f};
				memset(w->cut[f].b + (at - w->base[f]), 0, end - at);
				assert_int_equal(
					extent_each_locked(st, in->ino, at, end, add_live, &a),
					0);
			}
		}
	}
	st->cut_epoch = st->epoch++;
	st->cut_pos = 0;
	assert_int_equal(store_put_u64(st, "epoch", st->epoch), 0);
	pthread_mutex_unlock(&st->meta);
	data_gate_open(st);
	w->cutting = true;
}

static void pack_one(struct world *w)
{
	struct piece *p = &w->piece[w->packed];
	struct inode *in = w->in[p->file];
	struct store *st = w->st;

	w->seg_off[w->packed++] = (uint32_t)w->seg.len;
	if (w->cut_large[p->file]) {
		uint8_t *to = buf_room(&w->seg, p->len);
		assert_non_null(to);
		assert_int_equal(data_cut_read(st, in, p->off, to, p->len), 0);
		w->seg.len += p->len;
		assert_int_equal(data_cut_packed(st, in, p->off, p->len), 0);
		memcpy(w->cut[p->file].b + (p->off - w->base[p->file]), to, p->len);
		return;
	}
	size_t before = w->seg.len;
	pthread_mutex_lock(&st->meta);
	int err = data_cut_small_locked(st, in->ino, &w->seg);
	st->cut_pos = in->ino;
	pthread_mutex_unlock(&st->meta);
	/* Without captures the bytes of the cut may be gone. */
	if (err || w->seg.len - before != p->len) {
		mismatches++;
		w->seg.len = before;
		assert_non_null(buf_room(&w->seg, p->len));
		memset(w->seg.p + before, 0xee, p->len);
		w->seg.len += p->len;
	}
	memset(w->cut[p->file].b, 0, CAP);
	if (p->len && w->base[p->file] == 0)
		memcpy(w->cut[p->file].b, w->seg.p + before, p->len);
}

static void publish_extents(struct world *w, struct piece *p, uint64_t seg, uint32_t seg_off)
{
	struct store *st = w->st;
	struct inode *in = w->in[p->file];
	uint64_t pos = p->off, end = p->off + p->len, start, stop;
	unsigned flags;

	if (!w->cut_large[p->file]) {
		if (in->flags & INODE_LARGE || in->dchg > st->cut_epoch)
			return;
		assert_int_equal(extent_drop_locked(st, in->ino, 0, UINT64_MAX), 0);
		struct extent e = {0, p->len, seg, seg_off};
		assert_int_equal(extent_put_locked(st, in->ino, &e), 0);
		return;
	}
	if (!(in->flags & INODE_LARGE))
		return;
	while (ranges_next(in->spans, pos, end, RG_CUT | RG_DIRTY, &start, &stop, &flags) ==
	       1) {
		struct extent e = {start, stop - start, seg,
				   seg_off + (uint32_t)(start - p->off)};
		assert_int_equal(extent_put_locked(st, in->ino, &e), 0);
		pos = stop;
	}
}

static void cut_end(struct world *w, bool ok, const struct image *at_cut)
{
	struct store *st = w->st;

	while (ok && w->packed < w->pieces)
		pack_one(w);
	assert_int_equal(store_commit_all(st), 0);
	pthread_mutex_lock(&st->meta);
	if (ok) {
		sqlite3_stmt *s =
			store_stmt(st, "INSERT INTO segment VALUES(?,?,3,4,2,12,0,?,x'',0,"
				       "0,0,?,0,0)");
		uint8_t id[16];

		assert_non_null(s);
		randombytes_buf(id, sizeof id);
		sqlite3_bind_int64(s, 1, (sqlite3_int64)w->next_seg);
		sqlite3_bind_blob(s, 2, id, sizeof id, SQLITE_STATIC);
		sqlite3_bind_int64(s, 3, (sqlite3_int64)w->seg.len);
		sqlite3_bind_blob64(s, 4, w->seg.p ? w->seg.p : id, w->seg.len, SQLITE_STATIC);
		assert_int_equal(store_run(st, s), 0);
		for (unsigned i = 0; i < w->pieces; i++)
			publish_extents(w, &w->piece[i], w->next_seg, w->seg_off[i]);
		w->next_seg++;
	}
	for (int f = 0; f < FILES; f++) {
		if (!w->in_cut[f])
			continue;
		assert_int_equal(data_cut_done_locked(st, w->in[f], ok), 0);
		if (!ok)
			continue;
		if (memcmp(&w->cut[f], &at_cut[f], sizeof w->cut[f]))
			mismatches++;
		memcpy(&w->remote[f], &w->cut[f], sizeof w->cut[f]);
	}
	if (ok) {
		st->published = st->cut_epoch;
		assert_int_equal(store_put_u64(st, "published", st->published), 0);
	}
	st->cut_epoch = 0;
	st->cut_pos = 0;
	sqlite3_stmt *s = store_stmt(st, "DELETE FROM capture");
	assert_int_equal(store_run(st, s), 0);
	pthread_mutex_unlock(&st->meta);
	assert_int_equal(store_commit(st), 0);
	w->cutting = false;
}

/* All of it, as it is now. */
static void publish(struct world *w)
{
	struct image *at_cut = malloc(sizeof w->now);

	assert_non_null(at_cut);
	memcpy(at_cut, w->now, sizeof w->now);
	cut_begin(w);
	cut_end(w, true, at_cut);
	free(at_cut);
}

/* --- a crash --- */

/* What is here must be what the image says; a wrong byte is a lie. */
static void crash_read(struct world *w, struct store *st, struct inode *in, int f, uint64_t off,
		       uint64_t end, const struct image *m)
{
	static uint8_t got[RANGE_CHUNK];
	uint64_t base = w->base[f];

	end = HF_MIN(end, HF_MIN(in->size, base + CAP));
	off = HF_MAX(off, base > 100000 ? base - 100000 : 0);
	if (off >= end)
		return;
	if (data_read(st, in, got, (size_t)(end - off), off) != (int64_t)(end - off)) {
		lies++;
		return;
	}
	for (uint64_t i = off; i < end; i++) {
		uint8_t b = i >= base && i < m->size ? m->b[i - base] : 0;
		if (got[i - off] != b) {
			lies++;
			return;
		}
	}
}

/* No byte that is here is zero. */
static void crash_solid(struct world *w, struct store *st, struct inode *in, int f)
{
	static uint8_t got[RANGE_CHUNK];
	uint64_t pos = w->base[f], start, end;
	unsigned flags;

	while (ranges_next(in->spans, pos, in->size, RG_HAVE, &start, &end, &flags) == 1) {
		pos = end;
		if (data_read(st, in, got, (size_t)(end - start), start) !=
			    (int64_t)(end - start) ||
		    memchr(got, 0, (size_t)(end - start)))
			lies++;
	}
}

static void crash_check(struct world *w, enum pc_mode mode)
{
	char dir[96];
	struct store_opts o = {
		.dir = dir, .power_cut = true, .skip_redo = w->plan.o.skip_redo};
	struct store *st;

	snprintf(dir, sizeof dir, "%s.crash", w->dir);
	pc_cut(dir, mode, rnd);
	assert_int_equal(store_open(&st, &o), 0);
	assert_true(st->unclean);
	for (int f = 0; f < FILES; f++) {
		const struct image *m = &w->remote[f];
		uint64_t base = w->base[f], pos = base, start, end;
		struct inode *in;
		unsigned flags;

		if (inode_get(st, w->ino[f], &in)) {
			lies += w->synced[f];
			continue; /* its creation was not committed yet */
		}
		assert_int_equal(in->io_err, 0);
		if (in->chg <= st->published)
			lies += in->size != m->size;
		if (w->synced[f]) {
			lies += in->size != w->now[f].size;
			crash_read(w, st, in, f, 0, in->size, &w->now[f]);
		}
		if (!(in->flags & INODE_LARGE)) {
			if (!(in->flags & INODE_SMALL_DIRTY) && in->dchg)
				crash_read(w, st, in, f, 0, SMALL_MAX, m);
			inode_put(st, in);
			continue;
		}
		pthread_mutex_lock(&st->meta);
		assert_int_equal(datafile_load_locked(st, in), 0);
		pthread_mutex_unlock(&st->meta);
		uint64_t limit = HF_MIN(HF_MIN(in->size, m->size), base + CAP);
		while (pos < limit) {
			ranges_at(in->spans, pos, limit, &flags, &end);
			start = pos;
			pos = end;
			if (!(flags & (RG_DIRTY | RG_META)))
				crash_read(w, st, in, f, start, end, m);
		}
		if (w->plan.solid)
			crash_solid(w, st, in, f);
		inode_put(st, in);
	}
	/* A clean stop of what was recovered, and everything is still consistent. */
	assert_int_equal(store_close(st), 0);
	if (lies && !w->plan.o.skip_sync && !w->plan.o.skip_intent && !w->plan.o.skip_settle &&
	    !w->plan.o.skip_redo)
		fail_msg("after a crash (%d): %u lies", mode, lies);
	fx_rm_tree(dir);
}

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

static void op_write_at(struct world *w, int f, uint64_t off, size_t len)
{
	static uint8_t buf[CAP];
	uint64_t at = off - w->base[f];

	len = HF_MIN(len, CAP - at);
	for (size_t i = 0; i < len; i++)
		buf[i] = (uint8_t)(1 + rnd(255));
	assert_int_equal(data_write(w->st, w->in[f], buf, len, off, false), 0);
	w->synced[f] = false;
	memcpy(w->now[f].b + at, buf, len);
	w->now[f].size = HF_MAX(w->now[f].size, off + len);
}

static void op_write(struct world *w, int f)
{
	op_write_at(w, f, pick_off(w, f), 1 + rnd(rnd(10) ? 9000 : 300000));
}

static void op_sync(struct world *w, int f)
{
	assert_int_equal(data_sync(w->st, w->in[f], false), 0);
	w->synced[f] = true;
	in_rows += w->in[f]->redo;
}

/* What a program does that keeps a log or a database: some small writes, then fsync. */
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

static void fill(struct world *w, int f, int byte, size_t len)
{
	static uint8_t buf[CAP];

	memset(buf, byte, len);
	assert_int_equal(data_write(w->st, w->in[f], buf, len, 0, false), 0);
	memcpy(w->now[f].b, buf, len);
	w->now[f].size = HF_MAX(w->now[f].size, (uint64_t)len);
}

/*
 * A cut is published in the middle of an overwrite of its bytes: they were CUT when the writer
 * looked for clean ones, so there is no intent; they must not become clean.
 */
static unsigned written(bool skip)
{
	struct world *w = world_new(&(struct plan_of){.o.skip_written = skip, .crashes = true});
	struct image *at_cut = malloc(sizeof w->now);
	struct inode *in = w->in[0];
	struct store *st = w->st;
	struct cfile *c;
	uint8_t b[3000];
	unsigned flags;
	uint64_t end;

	assert_non_null(at_cut);
	lies = 0;
	fill(w, 0, 1, 100000);
	assert_int_equal(data_sync(st, in, false), 0);
	memcpy(at_cut, w->now, sizeof w->now);
	cut_begin(w);
	while (w->packed < w->pieces)
		pack_one(w);
	/* What write_large_io does. */
	memset(b, 2, sizeof b);
	assert_int_equal(iolock_write(&in->io), 0);
	pthread_rwlock_rdlock(&st->data->gate);
	assert_int_equal(data_prepare_io(st, in, 5000, 8000), 0);
	assert_int_equal(cfile_get(st, in, CF_MAIN, false, &c), 0);
	assert_int_equal(cfile_write(c->fd, b, sizeof b, 5000, NULL), 0);
	cfile_put(st, c);
	cut_end(w, true, at_cut);
	w->plan.o.skip_intent = true; /* a lie is no failure */
	crash_check(w, PC_KEEP);
	pthread_rwlock_unlock(&st->data->gate);
	iolock_unlock(&in->io);
	pthread_mutex_lock(&st->meta);
	ranges_at(in->spans, 5000, 8000, &flags, &end);
	assert_int_equal(flags & RG_DIRTY, skip ? 0 : RG_DIRTY);
	assert_true(in->dchg > st->published || skip);
	in->file->wr_off = in->file->wr_end = 0;
	pthread_mutex_unlock(&st->meta);
	world_close(w);
	world_free(w);
	free(at_cut);
	return lies;
}

static void written_meanwhile(void **state)
{
	(void)state;
	assert_int_equal(written(false), 0);
	assert_true(written(true) > 0);
	lies = 0;
}

/*
 * Two crashes: the start after the first makes dirty what its intents name, and they go.  Bytes
 * of those parts that are fetched then are clean, and need intents of their own.
 */
static void crashed_twice(void **state)
{
	struct world *w = world_new(&(struct plan_of){.crashes = true});
	uint8_t b[3000];

	(void)state;
	lies = 0;
	fill(w, 0, 1, 100000);
	publish(w);
	fill(w, 0, 2, 4096);
	assert_int_equal(data_evict(w->st, 0), 0);
	check_read(w, w->st, w->in[0], 0, 90000, 10000, &w->now[0]);
	assert_int_equal(store_commit_all(w->st), 0);
	world_die(w);
	world_open(w);
	assert_true(w->st->unclean);
	check_read(w, w->st, w->in[0], 0, 0, 100000, &w->now[0]);
	assert_int_equal(store_commit_all(w->st), 0);
	memset(b, 3, sizeof b);
	assert_int_equal(data_write(w->st, w->in[0], b, sizeof b, 50000, false), 0);
	crash_check(w, PC_KEEP);
	assert_int_equal(lies, 0);
	world_close(w);
	world_free(w);
}

/* What a killed process had written and not synced is published by the next, and then on the disk. */
static void killed(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		struct world *w = world_new(&(struct plan_of){.crashes = true});

		lies = 0;
		fill(w, 0, 1, 100000);
		if (i) {
			/* Over clean bytes: they are taken for changed. */
			publish(w);
		} else {
			assert_int_equal(data_sync(w->st, w->in[0], false), 0);
		}
		fill(w, 0, 2, 3000);
		world_die(w);
		world_open(w);
		assert_true(w->st->unclean);
		check_read(w, w->st, w->in[0], 0, 0, 100000, &w->now[0]);
		publish(w);
		crash_check(w, PC_LOSE);
		assert_int_equal(lies, 0);
		world_close(w);
		world_free(w);
	}
}

/* A log that is synced line by line leaves its row while it is small; a short note does not. */
static void logged(void **state)
{
	struct world *w = world_new(&(struct plan_of){.crashes = true});

	(void)state;
	lies = in_rows = 0;
	for (unsigned i = 0; i < 120; i++) {
		op_write_at(w, 0, w->now[0].size, 300);
		op_sync(w, 0);
		op_write_at(w, 1, 0, 900);
		op_sync(w, 1);
		if (i == 60)
			publish(w);
		if (i % 8 == 0 || (i > 20 && i < 30))
			crash_check(w, PC_LOSE);
	}
	assert_true(w->in[0]->size < SMALL_MAX && w->in[0]->flags & INODE_LARGE);
	assert_false(w->in[1]->flags & INODE_LARGE);
	assert_true(in_rows > 60);
	assert_int_equal(lies, 0);
	check_all(w);
	w->synced[0] = false;
	assert_int_equal(data_truncate(w->st, w->in[0], 0, false), 0);
	w->now[0].size = 0;
	image_trim(&w->now[0], 0);
	assert_false(w->in[0]->flags & INODE_LARGE);
	crash_check(w, PC_KEEP);
	/* Where it cannot have a cache file it stays a row. */
	char dir[PATH_MAX];
	snprintf(dir, sizeof dir, "%s/data/%02x", w->dir, (unsigned)w->ino[1] & 0xff);
	int fd = creat(dir, 0600);
	assert_true(fd >= 0);
	close(fd);
	for (unsigned i = 0; i < 60; i++) {
		op_write_at(w, 1, w->now[1].size, 300);
		op_sync(w, 1);
	}
	assert_false(w->in[1]->flags & INODE_LARGE);
	assert_int_equal(unlink(dir), 0);
	crash_check(w, PC_LOSE);
	assert_int_equal(lies, 0);
	world_close(w);
	world_open(w);
	check_all(w);
	world_close(w);
	world_free(w);
}

/* A new cache file's name is synced whoever syncs first, and again after an error. */
static void new_names(void **state)
{
	struct plan_of plan = {.crashes = true};

	(void)state;
	lies = 0;
	struct world *w = world_new(&plan);
	for (int f = 0; f < 2; f++) {
		fill(w, f, 3, 100000);
		assert_int_equal(data_sync(w->st, w->in[f], false), 0);
		w->synced[f] = true;
		assert_false(w->in[f]->file->created);
		crash_check(w, PC_LOSE);
	}
	/* Emptied and filled again: it is another file of the same name. */
	w->synced[0] = false;
	assert_int_equal(data_truncate(w->st, w->in[0], 0, false), 0);
	w->now[0].size = 0;
	image_trim(&w->now[0], 0);
	fill(w, 0, 4, 80000);
	assert_int_equal(data_sync(w->st, w->in[0], false), 0);
	w->synced[0] = true;
	crash_check(w, PC_LOSE);
	/* The bytes are synced, the name is not: said, and never taken back. */
	fill(w, 2, 5, 80000);
	pc.syncs = 0;
	pc.fail = 2;
	assert_int_equal(data_sync(w->st, w->in[2], false), -EIO);
	pc.fail = 0;
	assert_true(w->in[2]->file->created);
	assert_int_equal(data_sync(w->st, w->in[2], false), -EIO);
	assert_int_equal(data_sync(w->st, w->in[0], false), -EIO);
	assert_int_equal(data_write(w->st, w->in[0], "x", 1, 0, false), -EROFS);
	assert_int_equal(data_truncate(w->st, w->in[0], 0, false), -EROFS);
	assert_int_equal(data_fallocate(w->st, w->in[0], FALLOC_FL_ZERO_RANGE, 0, 10, false),
			 -EROFS);
	check_read(w, w->st, w->in[0], 0, 0, 80000, &w->now[0]);
	assert_non_null(strstr(w->st->fail_msg, "cache"));
	crash_check(w, PC_LOSE);
	for (int f = 0; f < FILES; f++)
		inode_put(w->st, w->in[f]);
	assert_int_equal(store_close(w->st), -EIO);
	/* The next mount begins with the last commit. */
	w->ino[2] = 0;
	world_open(w);
	assert_true(w->st->unclean);
	check_read(w, w->st, w->in[0], 0, 0, 80000, &w->now[0]);
	inode_put(w->st, w->in[0]);
	inode_put(w->st, w->in[1]);
	assert_int_equal(store_close(w->st), 0);
	world_free(w);
}

static struct {
	struct world *w;
	pthread_t thread;
	_Atomic bool done;
	bool early;
} second;

static void *second_sync(void *arg)
{
	(void)arg;
	assert_int_equal(data_sync(second.w->st, second.w->in[0], false), 0);
	second.done = true;
	return NULL;
}

static void second_begin(void)
{
	assert_int_equal(pthread_create(&second.thread, NULL, second_sync, NULL), 0);
	usleep(50000);
	second.early = second.done;
}

/* Of two who sync a new file, none returns before its name is on the disk. */
static void two_syncers(void **state)
{
	struct world *w = world_new(&(struct plan_of){.crashes = true});

	(void)state;
	second.w = w;
	second.done = second.early = false;
	fill(w, 0, 3, 100000);
	pc.dir_hook = second_begin;
	assert_int_equal(data_sync(w->st, w->in[0], false), 0);
	assert_null(pc.dir_hook);
	pthread_join(second.thread, NULL);
	assert_true(second.done);
	assert_false(second.early);
	world_close(w);
	world_free(w);
}

/* Every sync of the workload fails once: whoever was told that it is safe was told the truth. */
static void sync_fails_anywhere(void **state)
{
	struct plan_of plan = {.crashes = true};

	(void)state;
	for (unsigned n = 1;; n++) {
		struct world *w = world_new(&plan);
		unsigned done = 0;

		lies = 0;
		w->plan.o.skip_intent = false;
		pc.syncs = 0;
		pc.fail = n;
		int err = 0;
		for (unsigned i = 0; i < 6 && !err; i++) {
			static uint8_t b[90000];
			int f = (int)(i % FILES);
			memset(b, (int)i + 1, sizeof b);
			err = data_write(w->st, w->in[f], b, sizeof b, w->base[f], false);
			w->synced[f] = false;
			if (!err)
				err = data_sync(w->st, w->in[f], false);
			if (err)
				break;
			memcpy(w->now[f].b, b, sizeof b);
			w->now[f].size = w->base[f] + sizeof b;
			w->synced[f] = true;
			done++;
		}
		bool hit = pc.syncs >= n;
		pc.fail = 0;
		if (hit && done < 6) {
			assert_int_equal(err, -EIO);
			assert_true(w->st->failed);
			assert_int_equal(store_commit(w->st), -EIO);
		}
		crash_check(w, PC_LOSE);
		assert_int_equal(lies, 0);
		for (int f = 0; f < FILES; f++)
			inode_put(w->st, w->in[f]);
		assert_int_equal(store_close(w->st), w->st->failed ? -EIO : 0);
		world_free(w);
		if (!hit)
			break;
		assert_true(n < 200);
	}
}

/* A byte that is read, or an error. */
static int byte_of(struct world *w, int f, uint64_t off)
{
	uint8_t b;
	int64_t n = data_read(w->st, w->in[f], &b, 1, off);

	return n == 1 ? b : (int)n;
}

/*
 * A COMMIT that fails takes back rows of a small file, extents of a large one, a name and an
 * attribute: what is in memory is told as it is, what only those rows said is an error, never
 * what was there before; all else is read on.
 */
static void taken_back(void **state)
{
	struct world *w = world_new(&(struct plan_of){.crashes = true});
	struct store *st = w->st;
	uint64_t inl = ((uint64_t)1 << 40) + 1; /* the local number of an inline segment */
	struct inode *in, *dir, *calm;
	struct buf v = {0};
	struct meta_new d = {.mode = S_IFDIR | 0755}, n = {.mode = S_IFREG | 0644};

	(void)state;
	assert_int_equal(meta_create(st, INO_ROOT, "d", 1, &d, &dir), 0);
	assert_int_equal(meta_create(st, dir->ino, "old", 3, &n, &in), 0);
	inode_put(st, in);
	assert_int_equal(meta_create(st, INO_ROOT, "calm", 4, &d, &calm), 0);
	assert_int_equal(meta_create(st, calm->ino, "old", 3, &n, &in), 0);
	inode_put(st, in);
	fill(w, 0, 1, 100);
	fill(w, 1, 2, 200);
	fill(w, 2, 3, 90000);
	assert_int_equal(meta_setxattr(st, w->in[0], "user.x", "old", 3, 0), 0);
	assert_int_equal(store_commit_all(st), 0);
	/* Names are of the directory, bytes and attributes of the file. */
	inode_put(st, dir);
	assert_int_equal(meta_create(st, dir->ino, "new", 3, &n, &in), 0);
	inode_put(st, in);
	fill(w, 0, 11, 100);
	assert_int_equal(meta_setxattr(st, w->in[0], "user.x", "new", 3, 0), 0);
	pthread_mutex_lock(&st->meta);
	assert_int_equal(store_flush_locked(st, false), 0);
	assert_null(w->in[0]->small);
	/* As if the first page of the large one had been published and given up just now. */
	assert_int_equal(sqlite3_exec(st->db, "INSERT INTO segment(seg,id,kind,k,m,cell_log2,cps,"
				      "len,nodes,missing,chg,seq,data) VALUES(1099511627777,"
				      "x'00112233445566778899aabbccddeeff',3,1,0,16,1,4096,'',0,"
				      "0,0,zeroblob(4096))", NULL, NULL, NULL), SQLITE_OK);
	struct extent e = {.off = 0, .len = 4096, .seg = inl};
	assert_int_equal(extent_put_locked(st, w->ino[2], &e), 0);
	assert_int_equal(ranges_set(w->in[2]->spans, 0, 4096, 0, RG_ALL), 0);
	pthread_mutex_unlock(&st->meta);
	assert_int_equal(byte_of(w, 0, 0), 11);
	pc.syncs = 0;
	pc.fail = 1;
	assert_int_equal(store_commit(st), -EIO);
	pc.fail = 0;
	assert_int_equal(byte_of(w, 0, 0), -EIO);
	assert_int_equal(byte_of(w, 1, 0), 2);
	assert_int_equal(byte_of(w, 2, 0), -EIO);
	assert_int_equal(byte_of(w, 2, 5000), 3);
	/* Switched off, bytes of before are told. */
	st->opts.skip_undone = true;
	assert_int_equal(byte_of(w, 0, 0), 1);
	st->opts.skip_undone = false;
	assert_int_equal(meta_getxattr(st, w->in[0], "user.x", &v), -EIO);
	assert_int_equal(meta_listxattr(st, w->in[0], &v), -EIO);
	assert_int_equal(meta_lookup(st, dir->ino, "new", 3, &in), -EIO);
	assert_int_equal(meta_lookup(st, dir->ino, "none", 4, &in), -ENOENT);
	assert_int_equal(meta_lookup(st, dir->ino, "old", 3, &in), 0);
	inode_put(st, in);
	assert_int_equal(meta_readdir(st, dir->ino, 0, false, NULL, NULL), -EIO);
	assert_int_equal(meta_lookup(st, calm->ino, "old", 3, &in), 0);
	inode_put(st, in);
	assert_int_equal(meta_lookup(st, calm->ino, "none", 4, &in), -ENOENT);
	buf_release(&v);
	inode_put(st, calm);
	world_die(w);
	/* The next mount has what was committed, or, as no power was lost, what was tried. */
	world_open(w);
	int b = byte_of(w, 0, 0);
	assert_true(b == 1 || b == 11);
	assert_int_equal(byte_of(w, 2, 0), 3);
	world_close(w);
	world_free(w);
}

/*
 * A statement in the middle of a change fails, and the transaction stays as it is: what half of
 * the change left is not told, all else is.
 */
static void half_way(void **state)
{
	struct world *w = world_new(&(struct plan_of){.crashes = true});

	(void)state;
	fill(w, 0, 1, 100000);
	fill(w, 1, 2, 100000);
	publish(w);
	assert_int_equal(data_evict(w->st, 0), 0);
	assert_int_equal(byte_of(w, 0, 10), 1);
	assert_int_equal(data_evict(w->st, 0), 0);
	assert_int_equal(sqlite3_exec(w->st->db, "CREATE TEMP TRIGGER half BEFORE INSERT ON extent "
				      "BEGIN SELECT RAISE(FAIL,'half'); END", NULL, NULL, NULL),
			 SQLITE_OK);
	assert_int_equal(data_truncate(w->st, w->in[0], 50000, false), -EIO);
	assert_true(w->st->failed && !sqlite3_get_autocommit(w->st->db));
	assert_int_equal(byte_of(w, 0, 10), -EIO);
	assert_int_equal(byte_of(w, 1, 10), 2);
	/* Switched off, a hole is told. */
	w->st->opts.skip_undone = true;
	assert_int_equal(byte_of(w, 0, 10), 0);
	w->st->opts.skip_undone = false;
	world_die(w);
	world_open(w);
	assert_int_equal(byte_of(w, 0, 10), 1);
	world_close(w);
	world_free(w);
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
	const char *s = getenv("SEED");
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sparse),	cmocka_unit_test(no_capture),
		cmocka_unit_test(model),	cmocka_unit_test(controls),
		cmocka_unit_test(written_meanwhile),
		cmocka_unit_test(crashed_twice),	cmocka_unit_test(killed),
		cmocka_unit_test(logged),
		cmocka_unit_test(new_names),	cmocka_unit_test(two_syncers),
		cmocka_unit_test(taken_back),
		cmocka_unit_test(half_way),
		cmocka_unit_test(sync_fails_anywhere),
		cmocka_unit_test(evicted_meanwhile),
		cmocka_unit_test(told_to_go),	cmocka_unit_test(given_back),
		cmocka_unit_test(nodes),	cmocka_unit_test(threads),
		cmocka_unit_test(speed),
	};

	if (sodium_init() < 0)
		return 1;
	log_set_level(LOG_LVL_WARN);
	log_set_quiet(true);
	seed = s ? strtoull(s, NULL, 0) : (uint64_t)time(NULL) * 2654435761u | 1;
	print_message("SEED=%llu\n", (unsigned long long)seed);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
