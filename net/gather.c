/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "net/gather.h"

#include <stdlib.h>
#include "net/cells.h"
#include "net/rows.h"

#define CELLS_BYTES   (8u << 20)
#define BATCH	      64	 /* cells that one gather_read works on at a time */
#define PIECE	      (1u << 20) /* of one shard, in gather_stream */
#define AHEAD	      (8u << 20) /* bytes asked for and not yet here, in gather_stream */

struct gather {
	struct cells *cells;
};

int gather_new(struct gather **out, struct volume *v)
{
	(void)v;
	*out = calloc(1, sizeof **out);
	if (!*out)
		return -ENOMEM;
	int err = cells_new(&(*out)->cells, CELLS_BYTES);
	if (err) {
		free(*out);
		*out = NULL;
	}
	return err;
}

void gather_free(struct gather *g)
{
	if (!g)
		return;
	cells_free(g->cells);
	free(g);
}

static int check_range(const struct volume *v, const struct seg_place *place, uint32_t off,
		       uint32_t len)
{
	(void)v;
	if (seg_geom_check(&place->geom) != 0)
		return log_fail(-EBADMSG, "a segment with an impossible geometry was asked for");
	if (off > place->geom.len || len > place->geom.len - off)
		return -EINVAL;
	return 0;
}

/* --- a range, through the cells --- */

struct batch {
	struct volume *v;
	const struct seg_place *place;
	const struct seg_reader *r;
	int64_t deadline_ms;
	uint32_t first;
	unsigned cnt;
	struct cell *cell[BATCH];
	bool mine[BATCH]; /* claimed here and neither filled nor failed yet */
};

/* Fetches the cells [from, to) of the batch, all of them ours, and fills what came. */
static int fill(struct batch *b, unsigned from, unsigned to)
{
	struct cells *cells = b->v->gather->cells;
	struct fetch f;

	fetch_init(&f, b->v, b->place, b->r, b->deadline_ms);
	int err = fetch_add_cells(&f, b->first + from, b->first + to - 1, 0);
	if (!err)
		err = fetch_run(&f);
	/* Even when some could not be had, others may have come. */
	for (unsigned i = from; i < to; i++) {
		const uint8_t *stored = fetch_cell(&f, b->first + i);
		if (!stored)
			continue;
		uint8_t *plain = malloc(seg_cell(&b->place->geom));
		int e = plain ? seg_open(b->r, b->first + i, stored, plain) : -ENOMEM;
		if (e) {
			free(plain);
			err = e;
			continue;
		}
		cells_fill(cells, b->cell[i], plain, seg_cell(&b->place->geom));
		b->mine[i] = false;
	}
	fetch_release(&f);
	return err;
}

static int fill_all(struct batch *b)
{
	int err = 0;

	for (unsigned i = 0, to; i < b->cnt && !err; i = to) {
		to = i + 1;
		if (!b->mine[i])
			continue;
		while (to < b->cnt && b->mine[to])
			to++;
		err = fill(b, i, to);
		/* Different rows may be bad on different nodes: each alone may still be had. */
		for (unsigned j = i; err == -ENODATA && to - i > 1 && j < to; j++) {
			int e = b->mine[j] ? fill(b, j, j + 1) : 0;
			if (e) {
				err = e == -ENODATA ? -EIO : e;
				break;
			}
			if (j == to - 1)
				err = 0;
		}
	}
	return err == -EIO ? -ENODATA : err;
}

/* One pass over a batch: claim, fetch ours, wait for the others' and copy out. */
static int read_batch(struct batch *b, uint32_t off, uint32_t len, uint8_t *out, bool *again)
{
	struct cells *cells = b->v->gather->cells;
	size_t size = seg_cell(&b->place->geom);
	bool claimed[BATCH] = {false};
	unsigned got = 0;
	int err = 0;

	*again = false;
	for (; got < b->cnt && !err; got++) {
		err = cells_claim(cells, &b->place->geom.id, b->first + got, &b->cell[got],
				  &b->mine[got]);
		if (err)
			break;
		claimed[got] = b->mine[got];
	}
	if (!err)
		err = fill_all(b);
	for (unsigned i = 0; i < got; i++)
		if (b->mine[i])
			cells_fail(cells, b->cell[i], err ? err : -EIO);
	for (unsigned i = 0; i < got; i++) {
		int e = err ? 0 : cells_wait(cells, b->cell[i], b->deadline_ms);
		uint64_t at = (uint64_t)(b->first + i) * size;
		if (e && !claimed[i] && now_ms() < b->deadline_ms) {
			/* Who fetched it had less time, or less luck: our turn. */
			*again = true;
		} else if (e) {
			err = e;
		} else if (!err && !*again) {
			uint64_t lo = HF_MAX(at, (uint64_t)off);
			uint64_t hi = HF_MIN(at + size, (uint64_t)off + len);
			memcpy(out + (lo - off), cell_bytes(b->cell[i]) + (lo - at), hi - lo);
		}
		cells_put(cells, b->cell[i]);
	}
	return err;
}

int gather_read(struct volume *v, const struct seg_place *place, uint32_t off, uint32_t len,
		uint8_t *out, int64_t deadline_ms)
{
	struct seg_reader r;
	int err = check_range(v, place, off, len);

	if (err || !len)
		return err;
	err = seg_reader_init(&r, v->keys, &place->geom);
	if (err)
		return err;
	uint32_t size = (uint32_t)seg_cell(&place->geom);
	uint32_t cell = off / size, last = (off + len - 1) / size;
	while (cell <= last && !err) {
		struct batch b = {.v = v, .place = place, .r = &r, .first = cell,
				  .deadline_ms = deadline_ms,
				  .cnt = HF_MIN(last - cell + 1, (uint32_t)BATCH)};
		uint32_t lo = HF_MAX(off, cell * size);
		uint32_t hi = HF_MIN(off + len, (cell + b.cnt) * size);
		bool again;
		err = read_batch(&b, lo, hi - lo, out + (lo - off), &again);
		if (!err && !again)
			cell += b.cnt;
	}
	seg_reader_release(&r);
	return err;
}

/* --- a stream, past the cells --- */

struct stream {
	struct volume *v;
	const struct seg_place *place;
	const struct seg_reader *r;
	struct fetch f;
	uint32_t off, end; /* what is wanted; off moves as it is given */
	int (*sink)(void *arg, uint32_t off, const uint8_t *p, uint32_t len);
	void *arg;
	uint8_t *plain; /* PIECE bytes, at least a cell */
};

/* The window that has (shard, row), or NULL. */
static struct window *window_of(struct fetch *f, unsigned shard, uint32_t row)
{
	for (size_t i = 0; i < f->cnt; i++) {
		struct window *w = &f->win[i];
		if ((w->want >> shard & 1) && row >= w->row0 && row - w->row0 < w->rows)
			return w;
	}
	return NULL;
}

/* Opens and gives what window w has of the shard, from s->off on. */
static int give(struct stream *s, struct window *w, unsigned shard)
{
	const struct seg_geom *g = &s->place->geom;
	uint32_t size = (uint32_t)seg_cell(g);
	uint32_t first = s->off / size;
	uint32_t past = HF_MIN(shard * g->cps + w->row0 + w->rows, (s->end - 1) / size + 1);

	for (uint32_t c = first; c < past; c++) {
		const uint8_t *stored = w->data[shard] +
					(c % g->cps - w->row0) * seg_stride(g);
		int err = seg_open(s->r, c, stored, s->plain + (size_t)(c - first) * size);
		if (err)
			return log_fail(err, "a cell with a right tag cannot be opened");
	}
	uint32_t skip = s->off - first * size;
	uint32_t len = HF_MIN(past * size, s->end) - s->off;
	uint32_t at = s->off;
	s->off += len;
	window_drop(w, shard);
	return s->sink(s->arg, at, s->plain + skip, len);
}

static int stream_run(struct stream *s)
{
	const struct seg_geom *g = &s->place->geom;
	int err = 0;

	while (s->off < s->end && !err) {
		uint32_t cell = s->off / (uint32_t)seg_cell(g);
		unsigned shard = cell / g->cps;
		struct window *w = window_of(&s->f, shard, cell % g->cps);
		if (!w)
			return -EIO;
		if (w->data[shard] && window_has(w, shard))
			err = give(s, w, shard);
		else
			err = fetch_step(&s->f);
	}
	return err;
}

/* What the windows could not give, cell by cell: other rows of the same nodes may be good. */
static int stream_slowly(struct stream *s, int64_t deadline_ms)
{
	uint32_t size = (uint32_t)seg_cell(&s->place->geom);
	int err = 0;

	while (s->off < s->end && !err) {
		uint32_t len = HF_MIN(size - s->off % size, s->end - s->off);
		err = gather_read(s->v, s->place, s->off, len, s->plain, deadline_ms);
		if (!err)
			err = s->sink(s->arg, s->off, s->plain, len);
		s->off += len;
	}
	return err;
}

int gather_stream(struct volume *v, const struct seg_place *place, uint32_t off, uint32_t len,
		  int (*sink)(void *arg, uint32_t off, const uint8_t *p, uint32_t len), void *arg,
		  int64_t deadline_ms)
{
	const struct seg_geom *g = &place->geom;
	struct seg_reader r;
	int err = check_range(v, place, off, len);

	if (err || !len)
		return err;
	err = seg_reader_init(&r, v->keys, g);
	if (err)
		return err;
	uint32_t size = (uint32_t)seg_cell(g);
	struct stream s = {.v = v, .place = place, .r = &r, .off = off, .end = off + len,
			   .sink = sink, .arg = arg, .plain = malloc(PIECE)};
	bool slowly = false;
	fetch_init(&s.f, v, place, &r, deadline_ms);
	s.f.active_max = HF_MAX(AHEAD / (PIECE * g->k), 2u);
	err = s.plain ? fetch_add_cells(&s.f, off / size, (off + len - 1) / size, PIECE / size)
		      : -ENOMEM;
	if (!err) {
		err = stream_run(&s);
		/* A sink may return anything: only a window that failed leaves bytes to get. */
		slowly = err == -ENODATA && s.f.failed;
	}
	fetch_release(&s.f);
	if (slowly)
		err = stream_slowly(&s, deadline_ms);
	free(s.plain);
	seg_reader_release(&r);
	return err;
}
