/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "net/gather.h"

#include <pthread.h>
#include <stdlib.h>
#include "net/cells.h"
#include "net/giveup.h"
#include "net/paces.h"
#include "net/rows.h"
#include "net/spread.h"

#define CELLS_BYTES   (24u << 20) /* more than a segment */
#define BATCH	      512	 /* cells that one gather_read works on at a time */
#define PIECE	      (1u << 20) /* of one shard, in gather_stream */
#define AHEAD	      (8u << 20) /* asked for and not yet here, in pieces of gather_stream */
#define NEAR_CNT      8	 /* segments of which misses are counted */
#define NEAR_MS	      2000 /* between two of them at most */
#define NEAR_DEADLINE 30000
#define SOUGHT_CNT    8	    /* segments of which is known where else their shards are */
#define SOUGHT_MS     30000 /* for so long */
#define SEEK_MS	      5000
#define COMPLAIN_MS   10000

/* Misses of small things in one segment. */
struct near {
	struct seg_id id;
	unsigned cnt;
	int64_t last_ms;
	bool asked; /* the rest is wanted, under way or here */
};

/* A segment of which too few shards could be had where they should be. */
struct sought {
	struct seg_place place; /* with what was found elsewhere */
	int found;
	int64_t ms; /* 0: this entry is free */
};

struct gather {
	struct cells *cells;
	struct paces *paces;
	struct volume *v;
	pthread_mutex_t lock; /* of all below */
	pthread_cond_t cond;
	struct near near[NEAR_CNT];
	struct seg_place rest; /* of which the thread shall fetch the rest, when wanted */
	bool wanted, stop, running;
	struct sought sought[SOUGHT_CNT];
	int64_t complained_ms;
	pthread_t thread;
};

struct paces *gather_paces(struct volume *v)
{
	return v->gather->paces;
}

int gather_new(struct gather **out, struct volume *v)
{
	*out = calloc(1, sizeof **out);
	if (!*out)
		return -ENOMEM;
	(*out)->v = v;
	pthread_mutex_init(&(*out)->lock, NULL);
	pthread_cond_init(&(*out)->cond, NULL);
	int err = cells_new(&(*out)->cells, CELLS_BYTES);
	if (!err)
		err = paces_new(&(*out)->paces);
	if (err) {
		gather_free(*out);
		*out = NULL;
	}
	return err;
}

void gather_stop(struct gather *g)
{
	pthread_mutex_lock(&g->lock);
	g->stop = true;
	bool running = g->running;
	g->running = false;
	pthread_cond_signal(&g->cond);
	pthread_mutex_unlock(&g->lock);
	if (running)
		pthread_join(g->thread, NULL);
}

void gather_free(struct gather *g)
{
	if (!g)
		return;
	gather_stop(g);
	pthread_cond_destroy(&g->cond);
	pthread_mutex_destroy(&g->lock);
	cells_free(g->cells);
	paces_free(g->paces);
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
	bool missed;	  /* some were not here */
	char why[400];	  /* what became of the shards, when too few could be had */
};

/* Opens cell no, if it came, and fills e with it: 0, -EAGAIN when it did not come. */
static int fill_one(struct cells *cells, const struct fetch *f, uint32_t no, struct cell *e)
{
	const uint8_t *stored = fetch_cell(f, no);
	size_t size = seg_cell(&f->r->g);

	if (!stored)
		return -EAGAIN;
	uint8_t *plain = malloc(size);
	int err = plain ? seg_open(f->r, no, stored, plain) : -ENOMEM;
	if (err)
		free(plain);
	else
		cells_fill(cells, e, plain, size);
	return err;
}

/*
 * Fetches the cells [from, to) of the batch, all of them ours, and fills what came.  *waited:
 * it was patient, and then successful (NULL: it is not to be patient).
 */
static int fill(struct batch *b, unsigned from, unsigned to, bool *waited)
{
	struct cells *cells = b->v->gather->cells;
	struct fetch f;

	fetch_init(&f, b->v, b->place, b->r, b->deadline_ms);
	f.patient = waited != NULL;
	int err = fetch_add_cells(&f, b->first + from, b->first + to - 1, 0);
	if (!err)
		err = fetch_run(&f);
	if (waited)
		*waited = !err && f.waited;
	if (err == -ENODATA)
		fetch_why(&f, b->why, sizeof b->why);
	/* Even when some could not be had, others may have come. */
	for (unsigned i = from; i < to; i++) {
		int e = fill_one(cells, &f, b->first + i, b->cell[i]);
		if (e == -EAGAIN)
			continue;
		if (e) {
			err = e;
			continue;
		}
		b->mine[i] = false;
	}
	fetch_release(&f);
	return err;
}

/* The same for what of [from, to) is ours. */
static int fill_ours(struct batch *b, unsigned from, unsigned to)
{
	int err = 0;

	for (unsigned i = from, end; i < to && !err; i = end) {
		bool waited = false;

		for (end = i + 1; end < to && b->mine[i] && b->mine[end]; end++)
			;
		if (!b->mine[i])
			continue;
		err = fill(b, i, end, end - i > 1 ? NULL : &waited);
		if (err != -ENODATA || end - i == 1)
			continue;
		/* Different rows may be bad on different nodes: each alone may still be had. */
		err = 0;
		for (unsigned j = i; j < end && !err && !waited; j++)
			if (b->mine[j])
				err = fill(b, j, j + 1, &waited);
		/* Nodes have come back: the rest at once again, as far as it is still missing. */
		if (waited)
			end = i + 1;
	}
	return err;
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
		b->missed |= claimed[got];
	}
	if (!err)
		err = fill_ours(b, 0, b->cnt);
	for (unsigned i = 0; i < got; i++)
		if (b->mine[i])
			cells_fail(cells, b->cell[i], err ? err : -EIO);
	for (unsigned i = 0; i < got; i++) {
		int e = err ? 0 : cells_wait(cells, b->cell[i], b->deadline_ms);
		uint64_t at = (uint64_t)(b->first + i) * size;
		if (e && !claimed[i] && now_ms() < b->deadline_ms && !giveup_over()) {
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

/* --- the rest of a segment, in the background --- */

/*
 * Claims what is not here of the segment, gets it, and fills it in as it comes.  On a failure
 * the readers who wait see for themselves, each for its own cell.
 */
static void rest_fetch(struct gather *g, const struct seg_place *place)
{
	const struct seg_geom *geom = &place->geom;
	uint32_t cnt = (uint32_t)((geom->len + seg_cell(geom) - 1) >> geom->cell_log2);
	uint32_t first = cnt, last = 0;
	struct cell **cell = calloc(HF_MAX(cnt, 1u), sizeof(struct cell *));
	struct seg_reader r;
	struct fetch f;
	size_t done = 0;

	if (!cell || seg_reader_init(&r, g->v->keys, geom)) {
		free(cell);
		return;
	}
	for (uint32_t i = 0; i < cnt; i++) {
		bool mine;
		if (cells_claim(g->cells, &geom->id, i, &cell[i], &mine))
			break;
		if (!mine) {
			cells_put(g->cells, cell[i]);
			cell[i] = NULL;
			continue;
		}
		first = HF_MIN(first, i);
		last = i;
	}
	fetch_init(&f, g->v, place, &r, now_ms() + NEAR_DEADLINE);
	/* Whole shards: a request for each, at the cost of some cells that are here. */
	uint32_t cps = geom->cps, from = first / cps * cps, to = last / cps * cps + cps - 1;
	int err = first < cnt ? fetch_add_cells(&f, from, to, 0) : 0;
	while (!err && done < f.cnt) {
		err = fetch_step(&f);
		for (; done < f.cnt && f.win[done].done; done++)
			;
		for (uint32_t i = first; done && i <= last; i++) {
			if (!cell[i] || fill_one(g->cells, &f, i, cell[i]))
				continue;
			cells_put(g->cells, cell[i]);
			cell[i] = NULL;
		}
	}
	fetch_release(&f);
	for (uint32_t i = 0; i < cnt; i++) {
		if (!cell[i])
			continue;
		cells_fail(g->cells, cell[i], err ? err : -EIO);
		cells_put(g->cells, cell[i]);
	}
	seg_reader_release(&r);
	free(cell);
}

static void *rest_main(void *arg)
{
	struct gather *g = arg;

	pthread_setname_np(pthread_self(), "hf-rest");
	pthread_mutex_lock(&g->lock);
	while (!g->stop) {
		if (!g->wanted) {
			pthread_cond_wait(&g->cond, &g->lock);
			continue;
		}
		struct seg_place place = g->rest;
		pthread_mutex_unlock(&g->lock);
		rest_fetch(g, &place);
		pthread_mutex_lock(&g->lock);
		g->wanted = false;
	}
	pthread_mutex_unlock(&g->lock);
	return NULL;
}

/* A small thing in this segment was not here. */
static void near_missed(struct gather *g, const struct seg_place *place)
{
	int64_t now = now_ms(), over_ms;
	uint64_t rate = paces_rate(g->paces, g->v->node, volume_nodes(g->v), &over_ms);
	struct near *n = &g->near[0];

	pthread_mutex_lock(&g->lock);
	for (unsigned i = 0; i < NEAR_CNT; i++) {
		if (memcmp(&g->near[i].id, &place->geom.id, SEG_LEN) == 0) {
			n = &g->near[i];
			break;
		}
		if (g->near[i].last_ms < n->last_ms)
			n = &g->near[i];
	}
	if (memcmp(&n->id, &place->geom.id, SEG_LEN) != 0 || now - n->last_ms > NEAR_MS)
		*n = (struct near){.id = place->geom.id};
	n->last_ms = now;
	n->cnt++;
	if (!g->wanted && !g->stop && !n->asked &&
	    choose_rest(n->cnt, over_ms, (int64_t)(place->geom.len / rate))) {
		n->asked = true;
		g->rest = *place;
		g->wanted = true;
		/* Without a thread each read fetches its own, as before. */
		if (!g->running)
			g->running = !pthread_create(&g->thread, NULL, rest_main, g);
		pthread_cond_signal(&g->cond);
	}
	pthread_mutex_unlock(&g->lock);
}

/* --- where else --- */

/*
 * Too few shards can be had where they should be: they may be where nobody was told of, such
 * as those whose PUT ended without an answer.  True with their places in *found.  Every node
 * is asked for each, so not for every read.
 */
static bool seek(struct volume *v, const struct seg_place *place, struct seg_place *found,
		 int64_t deadline_ms)
{
	struct gather *g = v->gather;
	struct sought *s = &g->sought[0], one = {.place = *place, .ms = now_ms()};

	pthread_mutex_lock(&g->lock);
	for (unsigned i = 0; i < SOUGHT_CNT; i++) {
		struct sought *o = &g->sought[i];
		if (o->ms && one.ms - o->ms < SOUGHT_MS &&
		    !memcmp(&o->place.geom.id, &place->geom.id, SEG_LEN)) {
			*found = o->place;
			bool any = o->found > 0;
			pthread_mutex_unlock(&g->lock);
			return any;
		}
	}
	pthread_mutex_unlock(&g->lock);
	one.found = find_shards(v, &one.place, HF_MIN(one.ms + SEEK_MS, deadline_ms));
	pthread_mutex_lock(&g->lock);
	for (unsigned i = 1; i < SOUGHT_CNT; i++)
		if (g->sought[i].ms < s->ms)
			s = &g->sought[i];
	*s = one;
	pthread_mutex_unlock(&g->lock);
	*found = one.place;
	return one.found > 0;
}

static void complain(struct volume *v, const char *why)
{
	struct gather *g = v->gather;
	int64_t now = now_ms();

	/* Who still reads when the drive stops gets no answer, and that is no fault. */
	pthread_mutex_lock(&v->lock);
	bool ends = v->stopping;
	pthread_mutex_unlock(&v->lock);
	if (ends)
		return;
	pthread_mutex_lock(&g->lock);
	bool say = !g->complained_ms || now - g->complained_ms >= COMPLAIN_MS;
	if (say)
		g->complained_ms = now;
	pthread_mutex_unlock(&g->lock);
	/* Where nodes are away that is said by who asked. */
	if (say && volume_readable(v) >= v->k)
		log_msg(LOG_LVL_ERROR, "reading: fewer than %u shards of a segment can be had: %s",
			v->k, why);
}

static int read_range(struct volume *v, const struct seg_place *place, uint32_t off,
		      uint32_t len, uint8_t *out, int64_t deadline_ms, bool near)
{
	struct seg_place found;
	struct seg_reader r;
	bool sought = false;
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
		if (near && b.missed)
			near_missed(v->gather, place);
		if (err == -ENODATA && !sought) {
			sought = true;
			if (seek(v, place, &found, deadline_ms)) {
				place = &found;
				err = 0;
				continue;
			}
		}
		if (err == -ENODATA)
			complain(v, b.why);
		if (!err && !again)
			cell += b.cnt;
	}
	seg_reader_release(&r);
	return err;
}

int gather_read(struct volume *v, const struct seg_place *place, uint32_t off, uint32_t len,
		uint8_t *out, int64_t deadline_ms)
{
	return read_range(v, place, off, len, out, deadline_ms, false);
}

int gather_read_near(struct volume *v, const struct seg_place *place, uint32_t off,
		     uint32_t len, uint8_t *out, int64_t deadline_ms)
{
	return read_range(v, place, off, len, out, deadline_ms, true);
}

uint64_t gather_reach(struct volume *v, int64_t ms)
{
	return paces_rate(v->gather->paces, v->node, volume_nodes(v), NULL) * (uint64_t)ms;
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

/* Opens and gives what window w has of the shard, from s->off on, a piece at most. */
static int give(struct stream *s, struct window *w, unsigned shard)
{
	const struct seg_geom *g = &s->place->geom;
	uint32_t size = (uint32_t)seg_cell(g);
	uint32_t first = s->off / size;
	uint32_t whole = HF_MIN(shard * g->cps + w->row0 + w->rows, (s->end - 1) / size + 1);
	uint32_t past = HF_MIN(whole, first + PIECE / size);

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
	/* What is not complete may yet be rebuilt from this. */
	if (past == whole && w->done)
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
	uint32_t size = (uint32_t)seg_cell(g), least = PIECE / size;
	/* Whole shards where they come soon: few requests.  Pieces, where a reader would wait. */
	int64_t whole_ms = (int64_t)(len / gather_reach(v, 1));
	uint32_t rows = len > SEG_MAX_LEN / 4 ? choose_rows(g->cps, least, whole_ms) : least;
	struct stream s = {.v = v, .place = place, .r = &r, .off = off, .end = off + len,
			   .sink = sink, .arg = arg, .plain = malloc(PIECE)};
	bool slowly = false;
	fetch_init(&s.f, v, place, &r, deadline_ms);
	s.f.active_max = HF_MAX(AHEAD / (PIECE * g->k), 2u);
	err = s.plain ? fetch_add_cells(&s.f, off / size, (off + len - 1) / size, rows)
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
