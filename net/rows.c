/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "net/rows.h"

#include <stdlib.h>
#include "net/gather.h"
#include "net/giveup.h"
#include "net/paces.h"

#define AGAIN_MAX    3 /* repetitions of a request that failed, when it is needed */
#define PAUSE_MIN_MS 100
#define PAUSE_MAX_MS 1000
#define LOOK_MS	     100 /* between two looks at how bulk comes, at the least */
#define LOOK_CAP_MS  500

/* Rebuilding and checking one shard, at the least: 512 KiB in a millisecond. */
#define CODE_BYTES_MS (512u << 10)

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

static size_t window_len(const struct fetch *f, const struct window *w)
{
	return w->rows * seg_stride(&f->r->g);
}

static void unpace(struct fetch *f, struct window *w, unsigned shard, int64_t end_ms,
		   enum pace_end how)
{
	if (!(w->paced >> shard & 1))
		return;
	w->paced &= ~(1u << shard);
	paces_end(gather_paces(f->v), w->io[shard], window_len(f, w), w->ahead[shard], end_ms,
		  how);
}

void fetch_release(struct fetch *f)
{
	for (size_t i = 0; i < f->cnt; i++) {
		for (unsigned s = 0; s < EC_MAX && f->win[i].paced; s++)
			unpace(f, &f->win[i], s, now_ms(), PACE_QUIET);
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
	size_t len = window_len(f, w);
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
	w->paced |= 1u << shard;
	w->io[shard] = io;
	w->ahead[shard] =
		paces_begin(gather_paces(f->v), n, len, &w->due_ms[shard], &w->late_ms[shard]);
	if (len >= PACE_BULK)
		w->due_ms[shard] = HF_MIN(w->due_ms[shard], now_ms() + LOOK_CAP_MS);
	w->seen[shard].ms = 0;
	node_wait_submit(&f->wait, n, io);
	return 0;
}

/* What is known for a decision about this window; node[i]: who has shard i. */
static void survey(struct fetch *f, const struct window *w, struct choice *c,
		   struct node *node[EC_MAX])
{
	const struct seg_geom *g = &f->r->g;

	*c = (struct choice){.n = g->k + g->m, .k = g->k, .want = w->want, .asked = w->asked,
			     .good = w->good, .failed = w->failed, .late = w->late,
			     .turn = (unsigned)(w->row0 + g->id.b[0]) % (g->k + g->m),
			     .code_ms = (int64_t)(window_len(f, w) / CODE_BYTES_MS)};
	for (unsigned i = 0; i < c->n; i++) {
		node[i] = NULL;
		if (((w->asked | w->failed | f->avoid) >> i & 1) ||
		    f->place->node[i] == NODE_NONE)
			continue;
		struct node *n = volume_node(f->v, f->place->node[i]);
		bool trusted = n && node_readable(n);
		if (!n || (!trusted && !node_returning(n)))
			continue;
		node[i] = n;
		c->can |= 1u << i;
		if (!trusted || node_state(n) == NODE_SLOW)
			c->avoid |= 1u << i;
	}
	paces_expect(gather_paces(f->v), node, c->n, window_len(f, w), c->expect_ms);
}

static int ask_these(struct fetch *f, struct window *w, uint32_t mask,
		     struct node *const node[])
{
	for (unsigned i = 0; i < EC_MAX; i++) {
		int err = mask >> i & 1 ? ask(f, w, i, node[i]) : 0;
		if (err)
			return err;
	}
	return 0;
}

/* Asks for more where it takes more.  -ENODATA when nothing more can be expected. */
static int ask_more(struct fetch *f, struct window *w)
{
	struct node *node[EC_MAX];
	struct choice c;

	survey(f, w, &c, node);
	uint32_t more = choose_more(&c);
	int err = ask_these(f, w, more, node);
	c.asked |= more;
	return err ? err : choose_hope(&c) ? 0 : -ENODATA;
}

static int start(struct fetch *f, struct window *w)
{
	struct node *node[EC_MAX];
	struct choice c;

	w->started = true;
	f->active++;
	survey(f, w, &c, node);
	int err = ask_these(f, w, choose_start(&c), node);
	return err ? err : ask_more(f, w);
}

static int rebuild(struct fetch *f, struct window *w)
{
	const struct seg_geom *g = &f->r->g;
	size_t len = window_len(f, w);
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

/* Everything wanted is here: bulk that lost is cancelled, and who was late is told so. */
static void finish(struct fetch *f, struct window *w)
{
	size_t len = window_len(f, w);
	int64_t now = now_ms();

	for (unsigned i = 0; i < EC_MAX; i++) {
		uint32_t bit = 1u << i;
		if (!(w->asked & bit) || (w->good & bit) || (w->failed & bit))
			continue;
		/* Others may have been asked before that. */
		bool late = (w->late & bit) && (len >= PACE_BULK || now >= w->late_ms[i]);
		if (late)
			node_late(w->io[i]->node);
		if (len < PACE_BULK && (w->paced & bit) &&
		    paces_leave(gather_paces(f->v), &f->wait, w->io[i], len, w->ahead[i],
				late)) {
			w->paced &= ~bit;
		} else {
			unpace(f, w, i, now, late ? PACE_LATE : PACE_QUIET);
			node_cancel(w->io[i]);
		}
		w->io[i] = NULL;
	}
	w->good |= w->want;
	w->done = true;
	f->active--;
	f->short_ms = 0;
	/* What served for rebuilding only has done so. */
	for (unsigned i = 0; i < EC_MAX; i++)
		if (w->io[i] && !(w->want >> i & 1))
			window_drop(w, i);
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
	unpace(f, w, i, io->end_ms, io->err ? PACE_QUIET : PACE_CAME);
	w->why[i] = judge(f, w, i, io);
	if (w->why[i]) {
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

/* Whether shard i, which should be here by now, is late; else when to look again. */
static bool is_late(struct fetch *f, struct window *w, unsigned i, int64_t now)
{
	size_t len = window_len(f, w), came = atomic_load(&w->io[i]->came);
	struct node *node[EC_MAX];
	int64_t left = INT64_MAX / 4;
	struct choice c;

	if (len < PACE_BULK || (!came && now >= w->late_ms[i]))
		return true;
	if (came && (!w->seen[i].ms || came < w->seen[i].came)) {
		/* It has come to its turn: from now on it is known how fast it is. */
		w->due_ms[i] = now + LOOK_MS;
	} else {
		if (!came)
			left = paces_left(gather_paces(f->v), w->io[i]->node, len, w->ahead[i]);
		else if (came > w->seen[i].came)
			left = (int64_t)((uint64_t)(now - w->seen[i].ms) *
					 (len - HF_MIN(came, len)) / (came - w->seen[i].came));
		survey(f, w, &c, node);
		if (choose_straggler(&c, left))
			return true;
		w->due_ms[i] =
			now + HF_MIN(HF_MAX(left / 2, (int64_t)LOOK_MS), (int64_t)LOOK_CAP_MS);
		if (!came)
			w->due_ms[i] = HF_MIN(w->due_ms[i], w->late_ms[i]);
	}
	w->seen[i].came = came;
	w->seen[i].ms = came ? now : 0;
	return false;
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
			    w->due_ms[i] <= now && is_late(f, w, i, now))
				w->late |= 1u << i;
		if (w->late != before)
			err = ask_more(f, w);
		for (unsigned i = 0; i < EC_MAX && !w->done; i++)
			if ((w->asked & ~w->good & ~w->failed & ~w->late) >> i & 1)
				*next = HF_MIN(*next, w->due_ms[i]);
	}
	return err;
}

/* --- short of shards --- */

/* Whether asking once more may be answered otherwise. */
static bool worth_again(const struct window *w, unsigned i)
{
	switch (-w->why[i]) {
	case ENOENT:
	case ENOMEM:
	case EINVAL:
	case ECANCELED:
		return false;
	case EBADMSG:
		/* It may have been the way here, not the node. */
		return w->again[i] < 1;
	default:
		return w->again[i] < AGAIN_MAX;
	}
}

/* Failed requests are as if they had not been made, where asking again is worth it. */
static int ask_again(struct fetch *f, struct window *w)
{
	int err = ask_more(f, w);

	if (err != -ENODATA)
		return err;
	for (unsigned i = 0; i < EC_MAX; i++) {
		uint32_t bit = 1u << i;
		struct node *n = w->failed & bit ? volume_node(f->v, f->place->node[i]) : NULL;
		if (!n || !worth_again(w, i) || !(node_readable(n) || node_returning(n)))
			continue;
		w->again[i]++;
		w->failed &= ~bit;
		w->asked &= ~bit;
		w->late &= ~bit;
	}
	return ask_more(f, w);
}

/* May a shard that is missing be had in a moment? */
static bool soon(struct fetch *f, const struct window *w)
{
	for (unsigned i = 0; i < f->r->g.k + f->r->g.m; i++) {
		struct node *n = volume_node(f->v, f->place->node[i]);
		if (!n || (w->good >> i & 1))
			continue;
		if (node_readable(n) ? (w->failed >> i & 1) && worth_again(w, i)
				     : node_gone_since(n, now_ms() - f->v->moment_ms))
			return true;
	}
	return false;
}

/*
 * Some window is short of shards: 0 when there is hope again.  Nothing else of the fetch is
 * tended meanwhile; what comes waits.
 */
static int reconsider(struct fetch *f)
{
	bool first = !f->short_ms;

	f->waited = true;
	if (first) {
		f->short_ms = now_ms();
		f->pause_ms = PAUSE_MIN_MS;
	}
	for (;; first = false) {
		int64_t until = HF_MIN(now_ms() + f->pause_ms, f->deadline_ms);
		bool hope = false;
		int err = giveup_over();

		if (err)
			return err;
		if (!first) {
			if (!volume_pause(f->v, until))
				return -ENODATA;
			f->pause_ms = HF_MIN(2 * f->pause_ms, (int64_t)PAUSE_MAX_MS);
		}
		volume_look(f->v, f->deadline_ms);
		for (size_t j = 0; j < f->started && (!err || hope); j++) {
			struct window *w = &f->win[j];
			int e = w->done ? 0 : ask_again(f, w);
			hope = e == -ENODATA && soon(f, w);
			err = e ? e : err;
		}
		int64_t now = now_ms();
		/* The second bound is for what comes and goes all the time. */
		if (err != -ENODATA || !hope || now >= f->deadline_ms ||
		    now - f->short_ms > 2 * f->v->moment_ms)
			return err;
	}
}

void fetch_why(struct fetch *f, char *out, size_t cap)
{
	const struct window *w = NULL;
	size_t at = 0;

	*out = 0;
	for (size_t j = 0; j < f->started && !w; j++)
		if (!f->win[j].done)
			w = &f->win[j];
	for (unsigned i = 0; w && i < f->r->g.k + f->r->g.m && at < cap; i++) {
		uint16_t no = f->place->node[i];
		struct node *n = no == NODE_NONE ? NULL : volume_node(f->v, no);
		const char *what = w->good >> i & 1 ? "good"
				   : w->failed >> i & 1 ? strerrordesc_np(-w->why[i])
				   : n ? node_state_name(node_state(n)) : "on no node";

		at += (size_t)snprintf(out + at, cap - at, "%s%s%s%s", at ? ", " : "",
				       n ? node_name(n) : "a shard", n ? ": " : " ",
				       what ? what : "failed");
	}
}

int fetch_step(struct fetch *f)
{
	int64_t next;
	int err = tend(f, &next);

	if (!err) {
		struct node_io *io = node_wait_next(&f->wait, next);
		if (io)
			err = arrived(f, io);
		else if (giveup_over())
			err = giveup_over();
		else if (now_ms() >= f->deadline_ms)
			err = -ETIMEDOUT;
	}
	if (err == -ENODATA && f->patient)
		err = reconsider(f);
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
