/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * world: contents of three files against a model, and a publisher that cuts, packs and publishes
 * into inline segments (so no node is needed); and crashes: a copy of the state directory as it
 * is, or as a power cut may leave it, opened.  What the publisher says must be the model at the
 * cut; after a crash what is clean must be what is published (L5), a file that was synced and not
 * changed since must be as it was (L2), and in a world where nobody writes zeros no byte that
 * is here may be one (L1).
 */
#ifndef HOLDFAST_TESTS_WORLD_UTIL_H
#define HOLDFAST_TESTS_WORLD_UTIL_H

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

static inline uint64_t rnd(uint64_t n)
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

static inline void image_trim(struct image *m, uint64_t base)
{
	uint64_t keep = m->size > base ? m->size - base : 0;

	if (keep < CAP)
		memset(m->b + keep, 0, CAP - keep);
}

static inline void check_read(struct world *w, struct store *st, struct inode *in, int f, uint64_t off,
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

static inline void check_all(struct world *w)
{
	for (int f = 0; f < FILES; f++) {
		uint64_t from = w->base[f] > 100000 ? w->base[f] - 100000 : 0;
		assert_true(w->in[f]->size == w->now[f].size);
		check_read(w, w->st, w->in[f], f, from, CAP + 100000, &w->now[f]);
	}
}

static inline void check_seek(struct world *w, int f)
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

static inline void world_open(struct world *w)
{
	struct store_opts o = w->plan.o;

	o.dir = w->dir;
	o.cache_size = 1ull << 40;
	assert_int_equal(store_open(&w->st, &o), 0);
	for (int f = 0; f < FILES; f++)
		if (w->ino[f])
			assert_int_equal(inode_get(w->st, w->ino[f], &w->in[f]), 0);
}

static inline struct world *world_new(const struct plan_of *plan)
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

static inline void world_close(struct world *w)
{
	for (int f = 0; f < FILES; f++)
		inode_put(w->st, w->in[f]);
	assert_int_equal(store_close(w->st), 0);
}

/* Nothing more is committed; what was written stays. */
static inline void world_die(struct world *w)
{
	pthread_mutex_lock(&w->st->meta);
	store_fail_locked(w->st, -EIO, "the end of this life");
	pthread_mutex_unlock(&w->st->meta);
	for (int f = 0; f < FILES; f++)
		inode_put(w->st, w->in[f]);
	assert_int_equal(store_close(w->st), -EIO);
}

static inline void world_free(struct world *w)
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

static inline int add_live(void *arg, const struct extent *e)
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
static inline void cut_begin(struct world *w)
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

static inline void pack_one(struct world *w)
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

static inline void publish_extents(struct world *w, struct piece *p, uint64_t seg, uint32_t seg_off)
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

static inline void cut_end(struct world *w, bool ok, const struct image *at_cut)
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
static inline void publish(struct world *w)
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
static inline void crash_read(struct world *w, struct store *st, struct inode *in, int f, uint64_t off,
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
static inline void crash_solid(struct world *w, struct store *st, struct inode *in, int f)
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

static inline void crash_check(struct world *w, enum pc_mode mode)
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


/* --- steps --- */

static inline void op_write_at(struct world *w, int f, uint64_t off, size_t len)
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

static inline void op_sync(struct world *w, int f)
{
	assert_int_equal(data_sync(w->st, w->in[f], false), 0);
	w->synced[f] = true;
	in_rows += w->in[f]->redo;
}

/* What a program does that keeps a log or a database: some small writes, then fsync. */
static inline void fill(struct world *w, int f, int byte, size_t len)
{
	static uint8_t buf[CAP];

	memset(buf, byte, len);
	assert_int_equal(data_write(w->st, w->in[f], buf, len, 0, false), 0);
	memcpy(w->now[f].b, buf, len);
	w->now[f].size = HF_MAX(w->now[f].size, (uint64_t)len);
}

/* At the start of main: SEED of the environment repeats a run. */
static inline int world_init(void)
{
	const char *s = getenv("SEED");

	if (sodium_init() < 0)
		return 1;
	log_set_level(LOG_LVL_WARN);
	log_set_quiet(true);
	seed = s ? strtoull(s, NULL, 0) : (uint64_t)time(NULL) * 2654435761u | 1;
	print_message("SEED=%llu\n", (unsigned long long)seed);
	return 0;
}

#endif
