/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "net/rows.h"

#include <stdlib.h>

/* A byte rate below which a long read counts as late: 32 KiB in a millisecond. */
#define SLOWEST_BYTES_MS (32u << 10)

static unsigned bits(uint32_t mask)
{
	return (unsigned)__builtin_popcount(mask);
}

void fetch_init(struct fetch *f, struct volume *v, const struct seg_place *place,
		const struct seg_reader *r, int64_t deadline_ms)
{
	*f = (struct fetch){.v = v, .place = place, .r = r, .deadline_ms = deadline_ms};
	node_wait_init(&f->wait);
}

void window_drop(struct window *w, unsigned shard)
{
	w->data[shard] = NULL;
	if (window_has(w, shard)) {
		node_io_unref(w->io[shard]);
		w->io[shard] = NULL;
	}
}

void fetch_release(struct fetch *f)
{
	for (size_t i = 0; i < f->cnt; i++) {
		for (unsigned s = 0; s < EC_MAX; s++)
			window_drop(&f->win[i], s);
		free(f->win[i].own);
	}
	node_wait_release(&f->wait);
	free(f->win);
}

int fetch_add(struct fetch *f, uint32_t row0, uint32_t rows, uint32_t want)
{
	if (f->cnt == f->cap) {
		size_t cap = f->cap ? f->cap * 2 : 4;
		struct window *w = realloc(f->win, cap * sizeof *w);
		if (!w)
			return -ENOMEM;
		f->win = w;
		f->cap = cap;
	}
	f->win[f->cnt++] = (struct window){.row0 = row0, .rows = rows, .want = want};
	return 0;
}

int fetch_add_cells(struct fetch *f, uint32_t first, uint32_t last, uint32_t max_rows)
{
	uint32_t cps = f->r->g.cps, r0 = first % cps, r1 = last % cps + 1;
	unsigned s0 = first / cps, s1 = last / cps;
	/* The rows at which the set of wanted shards changes. */
	uint32_t edge[4] = {0, HF_MIN(r0, r1), HF_MAX(r0, r1), cps};
	int err = 0;

	for (unsigned e = 0; e < 3 && !err; e++) {
		uint32_t want = 0;
		for (unsigned s = s0; s <= s1; s++) {
			uint32_t lo = s == s0 ? r0 : 0, hi = s == s1 ? r1 : cps;
			if (lo <= edge[e] && edge[e + 1] <= hi)
				want |= 1u << s;
		}
		uint32_t step = max_rows ? max_rows : cps;
		for (uint32_t at = edge[e]; want && at < edge[e + 1] && !err; at += step)
			err = fetch_add(f, at, HF_MIN(step, edge[e + 1] - at), want);
	}
	return err;
}

const uint8_t *fetch_cell(const struct fetch *f, uint32_t cell)
{
	uint32_t row = cell % f->r->g.cps;
	unsigned shard = cell / f->r->g.cps;

	for (size_t i = 0; i < f->cnt; i++) {
		const struct window *w = &f->win[i];
		if (row >= w->row0 && row - w->row0 < w->rows && w->data[shard])
			return w->data[shard] + (row - w->row0) * seg_stride(&f->r->g);
	}
	return NULL;
}

static void blob_name(const struct fetch *f, unsigned shard, char name[BLOB_NAME_CAP])
{
	keys_shard_name(f->v->keys, &f->r->g.id, shard, f->place->node[shard], name);
}

static int ask(struct fetch *f, struct window *w, unsigned shard, struct node *n)
{
	const struct seg_geom *g = &f->r->g;
	size_t len = w->rows * seg_stride(g);
	char name[BLOB_NAME_CAP];

	blob_name(f, shard, name);
	struct node_io *io = node_io_new(NODE_GET, name);
	if (!io)
		return -ENOMEM;
	io->off = SHARD_HEADER + (uint64_t)w->row0 * seg_stride(g);
	/* One byte past the end of the shard is asked for, so that a longer one is noticed. */
	io->len = len + (w->row0 + w->rows == g->cps);
	io->deadline_ms = f->deadline_ms;
	io->tag = (unsigned)(w - f->win) * EC_MAX + shard;
	w->asked |= 1u << shard;
	w->io[shard] = io;
	w->due_ms[shard] = now_ms() + node_hedge_ms(n) + (int64_t)(len / SLOWEST_BYTES_MS);
	node_wait_submit(&f->wait, n, io);
	return 0;
}

/* Whether shard i may be asked for: its node, or NULL. */
static struct node *source(struct fetch *f, const struct window *w, unsigned i, bool slow_too)
{
	struct node *n;

	if (((w->asked | w->failed | f->avoid) >> i & 1) || f->place->node[i] == NODE_NONE)
		return NULL;
	n = volume_node(f->v, f->place->node[i]);
	if (!n || !node_readable(n) || (!slow_too && node_state(n) == NODE_SLOW))
		return NULL;
	return n;
}

/*
 * Asks as many more as are needed for all that is wanted, or K, to be here or on the way in
 * time.  -ENODATA when nothing more can be expected.
 */
static int ask_more(struct fetch *f, struct window *w)
{
	const struct seg_geom *g = &f->r->g;
	unsigned n = g->k + g->m;
	uint32_t coming = (w->asked & ~w->failed & ~w->late) | w->good;

	/* Where one is late another may be: one more than needed is asked then. */
	unsigned enough = g->k + (w->late & ~w->good ? 1 : 0);
	if (!(w->want & ~coming) || bits(coming) >= enough)
		return 0;
	for (int slow_too = 0; slow_too <= 1; slow_too++) {
		for (unsigned i = 0; i < n && bits(coming) < enough; i++) {
			/* Begin elsewhere each time: the extra load is shared. */
			unsigned s = (i + w->row0) % n;
			struct node *node = source(f, w, s, slow_too);
			if (!node)
				continue;
			int err = ask(f, w, s, node);
			if (err)
				return err;
			coming |= 1u << s;
		}
	}
	/* Late ones may still come: they count for hope, not for haste. */
	uint32_t hope = w->asked & ~w->failed;
	return !(w->want & ~hope) || bits(hope) >= g->k ? 0 : -ENODATA;
}

static int start(struct fetch *f, struct window *w)
{
	w->started = true;
	f->active++;
	for (unsigned i = 0; i < EC_MAX; i++) {
		struct node *n = w->want >> i & 1 ? source(f, w, i, false) : NULL;
		int err = n ? ask(f, w, i, n) : 0;
		if (err)
			return err;
	}
	return ask_more(f, w);
}

static int rebuild(struct fetch *f, struct window *w)
{
	const struct seg_geom *g = &f->r->g;
	size_t len = w->rows * seg_stride(g);
	uint32_t missing = w->want & ~w->good;
	uint8_t *stored[EC_MAX] = {NULL};
	bool have[EC_MAX] = {false};
	unsigned at = 0;

	w->own = malloc(bits(missing) * len);
	if (!w->own)
		return -ENOMEM;
	for (unsigned i = 0; i < g->k + g->m; i++) {
		have[i] = window_has(w, i);
		if (have[i])
			stored[i] = w->data[i];
		else if (missing >> i & 1)
			stored[i] = w->own + len * at++;
	}
	int err = seg_rebuild(f->r, w->row0, w->rows, stored, have);
	if (err)
		return err;
	for (unsigned i = 0; i < g->k + g->m; i++) {
		if (!(missing >> i & 1))
			continue;
		/* From here on it is as if it had come, but w->own holds the bytes. */
		w->data[i] = stored[i];
	}
	return 0;
}

/* Everything wanted is here: the losers are cancelled, and who was late is told so. */
static void finish(struct fetch *f, struct window *w)
{
	for (unsigned i = 0; i < EC_MAX; i++) {
		uint32_t bit = 1u << i;
		if (!(w->asked & bit) || (w->good & bit) || (w->failed & bit))
			continue;
		struct node *n = w->io[i]->node;
		if (w->late & bit)
			node_late(n);
		node_cancel(w->io[i]);
		w->io[i] = NULL;
	}
	w->good |= w->want;
	w->done = true;
	f->active--;
}

/* Checks what came for shard i: 0, or why it is of no use. */
static int judge(struct fetch *f, const struct window *w, unsigned i, const struct node_io *io)
{
	const struct seg_geom *g = &f->r->g;
	size_t stride = seg_stride(g);
	int err = io->err;

	if (!err && io->got != w->rows * stride)
		err = -EBADMSG;
	for (uint32_t r = 0; r < w->rows && !err; r++)
		err = seg_check(f->r, i, w->row0 + r, io->buf + r * stride);
	if (err == -EBADMSG)
		node_lied(io->node, io->name);
	else if (err == -ENOENT)
		node_lacks(io->node, io->name);
	return err;
}

static int arrived(struct fetch *f, struct node_io *io)
{
	struct window *w = &f->win[io->tag / EC_MAX];
	unsigned i = io->tag % EC_MAX;
	int err = 0;

	if (w->done) {
		node_io_unref(io);
		return 0;
	}
	if (judge(f, w, i, io) != 0) {
		w->failed |= 1u << i;
		w->io[i] = NULL;
		node_io_unref(io);
		return ask_more(f, w);
	}
	w->good |= 1u << i;
	w->data[i] = io->buf;
	if (w->want & ~w->good) {
		if (bits(w->good) < f->r->g.k)
			return 0;
		err = rebuild(f, w);
	}
	if (!err)
		finish(f, w);
	return err;
}

/* Starts what may start; *next = when something becomes late.  0 or an error. */
static int tend(struct fetch *f, int64_t *next)
{
	int64_t now = now_ms();
	int err = 0;

	*next = f->deadline_ms;
	while (f->started < f->cnt && (!f->active_max || f->active < f->active_max) && !err)
		err = start(f, &f->win[f->started++]);
	for (size_t j = 0; j < f->started && !err; j++) {
		struct window *w = &f->win[j];
		uint32_t before = w->late;
		for (unsigned i = 0; i < EC_MAX && !w->done; i++)
			if (((w->asked & ~w->good & ~w->failed & ~w->late) >> i & 1) &&
			    w->due_ms[i] <= now)
				w->late |= 1u << i;
		if (w->late != before)
			err = ask_more(f, w);
		for (unsigned i = 0; i < EC_MAX && !w->done; i++)
			if ((w->asked & ~w->good & ~w->failed & ~w->late) >> i & 1)
				*next = HF_MIN(*next, w->due_ms[i]);
	}
	return err;
}

int fetch_step(struct fetch *f)
{
	int64_t next;
	int err = tend(f, &next);

	if (!err) {
		struct node_io *io = node_wait_next(&f->wait, next);
		if (io)
			err = arrived(f, io);
		else if (now_ms() >= f->deadline_ms)
			err = -ETIMEDOUT;
	}
	/* The requests have the same deadline, and may say so first. */
	if (err == -ENODATA && now_ms() >= f->deadline_ms)
		err = -ETIMEDOUT;
	f->failed = err != 0;
	return err;
}

int fetch_run(struct fetch *f)
{
	int err = 0;

	for (size_t i = 0; i < f->cnt && !err;) {
		if (f->win[i].done)
			i++;
		else
			err = fetch_step(f);
	}
	return err;
}
