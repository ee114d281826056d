/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "cache/scrub.h"
#include "cache/datafile.h"
#include "cache/logs.h"
#include "net/cond.h"

#include <sodium.h>
#include <stdlib.h>
#include <sys/prctl.h>

#define PASS_S	  (30 * 24 * 3600)
#define DAY_S	  (24 * 3600)
#define LIMIT	  ((uint64_t)8 << 20)
#define CELL_MS	  60000
#define BUSY_S	  3600 /* how long others go first */
#define BUSY_LOOK 5000
#define SLICE	  1000

static int64_t wall_s(void)
{
	return realtime_ns() / 1000000000;
}

static uint64_t kv_locked(struct store *st, const char *k)
{
	uint64_t v = 0;

	return store_get_u64(st, k, &v) ? 0 : v;
}

/* --- what was found --- */

int scrub_well(struct store *st, const struct seg_place *place, const bool well[])
{
	uint64_t now = (uint64_t)wall_s();
	int r = 0;

	pthread_mutex_lock(&st->meta);
	for (unsigned i = 0; !r && i < (unsigned)place->geom.k + place->geom.m; i++) {
		char key[32];

		if (!well[i] || place->node[i] == NODE_NONE)
			continue;
		snprintf(key, sizeof key, "verified_%u", place->node[i]);
		if (kv_locked(st, key) != now)
			r = store_put_u64(st, key, now);
	}
	pthread_mutex_unlock(&st->meta);
	return r;
}

/* The row as it is now: 1; 0 nobody needs it any more. */
static int row_locked(struct store *st, uint64_t seg, struct seg_place *place, uint64_t *chg)
{
	sqlite3_stmt *q = store_stmt(st, "SELECT chg," SEGMENT_COLS
					 " FROM segment WHERE seg=?1 AND kind<3");

	if (!q)
		return -EIO;
	sqlite3_bind_int64(q, 1, (int64_t)seg);
	int r = store_step(st, q);

	if (r == 1) {
		*chg = (uint64_t)sqlite3_column_int64(q, 0);
		if (segment_columns(q, 1, place))
			r = -EBADMSG;
	}
	sqlite3_reset(q);
	return r;
}

int scrub_mark(struct store *st, uint64_t seg, const struct seg_place *place, const bool lost[])
{
	struct seg_place now;
	unsigned n = (unsigned)place->geom.k + place->geom.m, left = 0;
	uint64_t chg = 0;
	int marked = 0;

	pthread_mutex_lock(&st->meta);
	int r = row_locked(st, seg, &now, &chg);

	if (r != 1 || memcmp(&now.geom.id, &place->geom.id, sizeof now.geom.id) != 0) {
		pthread_mutex_unlock(&st->meta);
		return r < 0 ? r : 0;
	}
	for (unsigned i = 0; i < n; i++)
		left += now.node[i] != NODE_NONE;
	/*
	 * A shard with one bad cell has all its others: where too few would be left, the row
	 * goes on to say where they are, and they are read around cell by cell.
	 */
	for (unsigned i = 0; i < n && left > now.geom.k; i++) {
		if (!lost[i] || now.node[i] == NODE_NONE || now.node[i] != place->node[i])
			continue;
		now.node[i] = NODE_NONE;
		left--;
		marked++;
	}
	r = marked ? segment_nodes_locked(st, seg, &now, chg) : 0;
	pthread_mutex_unlock(&st->meta);
	return r ? r : marked;
}

/* --- verifying --- */

static struct node_io *get(struct store *st, const struct seg_place *place, unsigned shard,
			   uint64_t off, size_t len)
{
	struct node *n = volume_node(st->vol, place->node[shard]);
	char name[BLOB_NAME_CAP];
	struct node_wait w;

	if (!n || !node_readable(n))
		return NULL;
	keys_shard_name(st->vol->keys, &place->geom.id, shard, place->node[shard], name);
	struct node_io *io = node_io_new(NODE_GET, name);

	if (!io)
		return NULL;
	io->off = off;
	io->len = len;
	io->deadline_ms = now_ms() + CELL_MS;
	node_wait_init(&w);
	node_wait_submit(&w, n, io);
	io = node_wait_next(&w, now_ms() + CELL_MS + 1000);
	node_wait_release(&w);
	return io;
}

int scrub_segment(struct store *st, uint64_t seg, const struct seg_place *place)
{
	bool present[EC_MAX] = {0}, bad[EC_MAX] = {0}, well[EC_MAX] = {0}, lost[EC_MAX] = {0};
	bool some = false;
	int r = check_segment(st->vol, place, true, present, bad);

	if (r < 0)
		return r;
	for (unsigned i = 0; i < (unsigned)place->geom.k + place->geom.m; i++) {
		well[i] = present[i] && !bad[i];
		lost[i] = present[i] && bad[i];
		/* No answer is not the same as the answer that it is not there. */
		if (!present[i] && place->node[i] != NODE_NONE) {
			struct node_io *io = get(st, place, i, 0, 1);

			lost[i] = io && io->err == -ENOENT;
			node_io_unref(io);
		}
		some = some || lost[i];
	}
	r = scrub_well(st, place, well);
	return r || !some ? r : scrub_mark(st, seg, place, lost);
}

int scrub_cell(struct store *st, const struct scrub_cell *c)
{
	bool one[EC_MAX] = {0};
	struct seg_place place;
	struct seg_reader reader;
	uint64_t chg;

	pthread_mutex_lock(&st->meta);
	int r = row_locked(st, c->seg, &place, &chg);
	pthread_mutex_unlock(&st->meta);
	if (r != 1)
		return r < 0 ? r : -EAGAIN;
	if (seg_geom_check(&place.geom) || c->row >= place.geom.cps ||
	    c->shard >= (unsigned)place.geom.k + place.geom.m)
		return -EAGAIN;
	size_t stride = seg_stride(&place.geom);
	struct node_io *io =
		get(st, &place, c->shard, SHARD_HEADER + (uint64_t)c->row * stride, stride);

	if (!io)
		return -EAGAIN;
	/* EIO from a node that is there is a bad sector. */
	bool bad = io->err == -ENOENT || (io->err == -EIO && node_readable(io->node)) ||
		   (!io->err && io->got != stride);

	r = io->err && !bad ? -EAGAIN : 0;
	if (!r && !bad) {
		r = seg_reader_init(&reader, st->vol->keys, &place.geom);
		if (!r) {
			bad = seg_check(&reader, c->shard, c->row, io->buf) != 0;
			seg_reader_release(&reader);
		}
	}
	one[c->shard] = true;
	if (!r && !bad) {
		r = scrub_well(st, &place, one);
	} else if (!r) {
		/* Garbage collection may have come first: then it is not missed. */
		r = scrub_mark(st, c->seg, &place, one);
		pthread_mutex_lock(&st->meta);
		bool needed = row_locked(st, c->seg, &place, &chg) == 1;
		pthread_mutex_unlock(&st->meta);
		if (r >= 0 && needed && io->err == -ENOENT)
			node_lacks(io->node, io->name);
		else if (r >= 0 && needed && !io->err)
			node_lied(io->node, io->name);
		r = r < 0 ? r : needed;
	}
	node_io_unref(io);
	return r;
}

/* --- drawing --- */

/* Rows after *seg: their numbers, stored cells and bytes. */
struct size_row {
	uint64_t seg, cells, bytes;
	uint32_t cps;
};

static int size_slice(struct store *st, uint64_t *seg, struct size_row *out, int *cnt)
{
	int more = 0;

	*cnt = 0;
	pthread_mutex_lock(&st->meta);
	sqlite3_stmt *q =
		store_stmt(st, "SELECT seg,k+m,cps,cell_log2 FROM segment WHERE seg>?1 "
			       "AND kind<3 ORDER BY seg LIMIT 1000");
	int r = q ? 0 : -EIO;

	if (!r)
		sqlite3_bind_int64(q, 1, (int64_t)*seg);
	while (!r && *cnt < SLICE && (more = store_step(st, q)) == 1) {
		uint64_t n = (uint64_t)sqlite3_column_int64(q, 1);
		struct size_row *o = &out[(*cnt)++];

		*seg = o->seg = (uint64_t)sqlite3_column_int64(q, 0);
		o->cps = (uint32_t)sqlite3_column_int64(q, 2);
		o->cells = n * o->cps;
		o->bytes = n * SHARD_HEADER +
			   o->cells * (((uint64_t)1 << (sqlite3_column_int(q, 3) & 31)) +
				       CELL_OVERHEAD);
	}
	if (q)
		sqlite3_reset(q);
	pthread_mutex_unlock(&st->meta);
	return r ? r : more < 0 ? more : 0;
}

/* Of all segments after `seg`. */
static int sizes(struct store *st, uint64_t seg, uint64_t *cells, uint64_t *bytes)
{
	struct size_row *row = malloc(SLICE * sizeof *row);
	int cnt = 0, r = row ? 0 : -ENOMEM;

	*cells = *bytes = 0;
	do {
		if (!r)
			r = size_slice(st, &seg, row, &cnt);
		for (int i = 0; !r && i < cnt; i++) {
			*cells += row[i].cells;
			*bytes += row[i].bytes;
		}
	} while (!r && cnt);
	free(row);
	return r;
}

int scrub_draw(struct store *st, struct scrub_cell *out, unsigned cnt)
{
	struct size_row *row = malloc(SLICE * sizeof *row);
	uint64_t *at = calloc(HF_MAX(cnt, 1u), sizeof *at);
	uint64_t total = 0, bytes, before = 0, seg = 0;
	unsigned got = 0;
	int rows = 0, r = row && at ? sizes(st, 0, &total, &bytes) : -ENOMEM;

	if (!r && total) {
		for (unsigned i = 0; i < cnt; i++) {
			randombytes_buf(&at[i], sizeof at[i]);
			at[i] %= total;
		}
		qsort(at, cnt, sizeof *at, u64_cmp);
	}
	while (!r && total && got < cnt) {
		r = size_slice(st, &seg, row, &rows);
		if (r || !rows)
			break;
		for (int i = 0; i < rows; i++) {
			for (; got < cnt && at[got] < before + row[i].cells; got++)
				out[got] = (struct scrub_cell){
					.seg = row[i].seg,
					.shard = (unsigned)((at[got] - before) / row[i].cps),
					.row = (uint32_t)((at[got] - before) % row[i].cps),
				};
			before += row[i].cells;
		}
	}
	/* They were found in order; they are looked at in any. */
	for (unsigned i = got; i > 1; i--) {
		unsigned j = randombytes_uniform(i);
		struct scrub_cell c = out[j];

		out[j] = out[i - 1];
		out[i - 1] = c;
	}
	free(row);
	free(at);
	return r ? r : (int)got;
}

/* --- the thread --- */

struct scrub {
	struct publisher *p;
	struct store *st;
	/* The pass; total 0: not begun. */
	uint64_t start, total, seg, done;
	uint64_t log; /* when the copies of the log were verified */
	int64_t not_before_ms; /* the limit of bytes a second */
	/* The day. */
	uint64_t day, day_done;
	struct scrub_cell cell[AUDIT_CELLS];
	unsigned cell_cnt; /* drawn and not looked at */
};

static int64_t pass_s(const struct scrub *s)
{
	return s->p->opts.pace.scrub_s ? s->p->opts.pace.scrub_s : PASS_S;
}

static int64_t day_s(const struct scrub *s)
{
	return s->p->opts.pace.audit_s ? s->p->opts.pace.audit_s : DAY_S;
}

static void load(struct scrub *s)
{
	struct store *st = s->st;

	pthread_mutex_lock(&st->meta);
	s->start = kv_locked(st, "scrub_start");
	s->total = kv_locked(st, "scrub_total");
	s->seg = kv_locked(st, "scrub_seg");
	s->done = kv_locked(st, "scrub_done");
	s->log = kv_locked(st, "scrub_log");
	s->day = kv_locked(st, "audit_start");
	s->day_done = kv_locked(st, "audit_done");
	pthread_mutex_unlock(&st->meta);
}

static int save(struct scrub *s)
{
	struct store *st = s->st;

	pthread_mutex_lock(&st->meta);
	int r = store_put_u64(st, "scrub_start", s->start);
	if (!r)
		r = store_put_u64(st, "scrub_total", s->total);
	if (!r)
		r = store_put_u64(st, "scrub_seg", s->seg);
	if (!r)
		r = store_put_u64(st, "scrub_done", s->done);
	if (!r)
		r = store_put_u64(st, "scrub_log", s->log);
	if (!r)
		r = store_put_u64(st, "audit_start", s->day);
	if (!r)
		r = store_put_u64(st, "audit_done", s->day_done);
	pthread_mutex_unlock(&st->meta);
	return r;
}

/* A clock that was set back begins anew rather than wait for that time. */
static uint64_t begin_of(uint64_t said, int64_t len, uint64_t now)
{
	return said && said <= now + (uint64_t)len ? said : now;
}

/* When the next segment is due, in unix milliseconds. */
static int64_t pass_due(struct scrub *s)
{
	uint64_t now = (uint64_t)wall_s();

	s->start = begin_of(s->start, pass_s(s), now);
	/* The last is due when the pass is over, so the first not when it begins. */
	double part = s->total ? (double)HF_MIN(s->done + SEG_MAX_LEN, s->total) / (double)s->total
			       : 0;

	return (int64_t)s->start * 1000 + (int64_t)(part * 1000.0 * (double)pass_s(s));
}

static int64_t audit_due(struct scrub *s)
{
	uint64_t now = (uint64_t)wall_s();

	s->day = begin_of(s->day, day_s(s), now);
	if (now >= s->day + (uint64_t)day_s(s)) {
		s->day = now;
		s->day_done = 0;
		s->cell_cnt = 0;
	}
	return (int64_t)s->day * 1000 + day_s(s) * 1000 * (int64_t)s->day_done / AUDIT_CELLS;
}

static int next_segment(struct scrub *s, uint64_t *seg, struct seg_place *place)
{
	struct store *st = s->st;

	pthread_mutex_lock(&st->meta);
	sqlite3_stmt *q =
		store_stmt(st, "SELECT seg," SEGMENT_COLS " FROM segment WHERE seg>?1 "
			       "AND kind<3 ORDER BY seg LIMIT 1");
	int r = q ? 0 : -EIO;

	if (!r) {
		sqlite3_bind_int64(q, 1, (int64_t)s->seg);
		r = store_step(st, q);
		if (r == 1) {
			*seg = (uint64_t)sqlite3_column_int64(q, 0);
			if (segment_columns(q, 1, place))
				r = -EBADMSG;
		}
		sqlite3_reset(q);
	}
	pthread_mutex_unlock(&st->meta);
	return r;
}

static void log_found(void *arg, const char *what)
{
	(void)arg;
	log_warn("%s: it is stored anew", what);
}

static bool scrub_stops(void *arg)
{
	return publish_stopping(arg);
}

/* Once in the time of a pass all copies of the log, in one go: there are some thousands. */
static int log_step(struct scrub *s)
{
	uint64_t bytes = 0, limit = s->p->opts.pace.scrub_limit;
	struct logs_check c = {.trust = {s->p->opts.devices, s->p->opts.device_cnt,
					 s->p->opts.owner_pk},
			       .mend = true,
			       .found = log_found,
			       .stop = scrub_stops,
			       .stop_arg = s->p,
			       .bytes = &bytes};
	int64_t begun = now_ms();
	int64_t r = logs_check(s->st, &c);

	s->not_before_ms = begun + (int64_t)(bytes * 1000 / (limit ? limit : LIMIT));
	if (r >= 0)
		s->log = (uint64_t)wall_s();
	return (int)HF_MIN(r, 0);
}

/* One segment of the pass, and what that means for when the next comes. */
static int pass_step(struct scrub *s)
{
	struct seg_place place;
	uint64_t cells, seg = 0, limit = s->p->opts.pace.scrub_limit;
	int r;

	/* This database was made, or read from the nodes, just now. */
	if (!s->log)
		s->log = (uint64_t)wall_s();
	/* A clock that was set back is no reason to wait. */
	if (!s->total && (s->log > (uint64_t)wall_s() ||
			  (uint64_t)wall_s() - s->log >= (uint64_t)pass_s(s))) {
		r = log_step(s);
		return r ? r : save(s);
	}
	if (!s->total) {
		s->start = (uint64_t)wall_s();
		s->seg = s->done = 0;
		r = sizes(s->st, 0, &cells, &s->total);
		if (!r && !s->total)
			s->start += (uint64_t)HF_MIN(day_s(s), pass_s(s));
		return r ? r : save(s);
	}
	r = next_segment(s, &seg, &place);
	if (!r) {
		/* The end: the next pass begins when this one's time is over. */
		s->start = HF_MAX(s->start + (uint64_t)pass_s(s), (uint64_t)wall_s());
		s->total = s->seg = s->done = 0;
		return save(s);
	}
	if (r < 0)
		return r;
	int64_t begun = now_ms();
	int marked = seg_geom_check(&place.geom) ? 0 : scrub_segment(s->st, seg, &place);
	uint64_t bytes = ((uint64_t)place.geom.k + place.geom.m) * seg_shard_len(&place.geom);

	if (marked > 0) {
		log_warn(
			"segment %llu: %d shards are not as they were stored: they are rebuilt",
			(unsigned long long)seg, marked);
		publish_poke(s->p);
	}
	s->seg = seg;
	s->done += bytes;
	s->not_before_ms = begun + (int64_t)(bytes * 1000 / (limit ? limit : LIMIT));
	return marked < 0 && marked != -EBADMSG ? marked : save(s);
}

static int audit_step(struct scrub *s)
{
	int r = 0;

	if (!s->cell_cnt && s->day_done < AUDIT_CELLS) {
		r = scrub_draw(s->st, s->cell, AUDIT_CELLS - (unsigned)s->day_done);
		if (r < 0)
			return r;
		s->cell_cnt = (unsigned)r;
		/* What came since counts for how fast the pass has to be. */
		uint64_t cells, rest;

		r = s->total ? sizes(s->st, s->seg, &cells, &rest) : 0;
		if (r)
			return r;
		if (s->total)
			s->total = HF_MAX(s->done + rest, (uint64_t)1);
	}
	/* Nothing is stored yet, or the day is done. */
	if (!s->cell_cnt) {
		s->day = (uint64_t)wall_s() +
			 (s->day_done ? 0 : (uint64_t)HF_MIN(day_s(s), (int64_t)60));
		s->day_done = 0;
		return save(s);
	}
	r = scrub_cell(s->st, &s->cell[--s->cell_cnt]);
	if (r == 1) {
		log_warn("a sample found a cell that is not as it was stored");
		publish_poke(s->p);
	}
	s->day_done++;
	return r < 0 && r != -EAGAIN ? r : save(s);
}

/* Others go first; p->lock held. */
static bool busy(const struct publisher *p)
{
	return p->status.busy || p->dirty || p->want > p->done ||
	       now_ms() - atomic_load(&p->st->data->read_ms) < BUSY_LOOK;
}

static void wait_ms(struct publisher *p, int64_t ms)
{
	cond_until(&p->cond, &p->lock, now_ms() + HF_MIN(ms, (int64_t)3600 * 1000));
}

void *scrub_main(void *arg)
{
	struct publisher *p = arg;
	struct scrub *s = calloc(1, sizeof *s);
	int r = s ? 0 : -ENOMEM;

	prctl(PR_SET_NAME, "hf-scrub");
	if (!s)
		return NULL;
	s->p = p;
	s->st = p->st;
	load(s);
	pthread_mutex_lock(&p->lock);
	while (!p->stopping && !p->stopped) {
		if (!p->ready) {
			pthread_cond_wait(&p->cond, &p->lock);
			continue;
		}
		int64_t now = realtime_ns() / 1000000;
		int64_t pass = HF_MAX(pass_due(s), now + (s->not_before_ms - now_ms()));
		int64_t audit = audit_due(s), due = HF_MIN(pass, audit);

		if (due > now) {
			wait_ms(p, due - now);
			continue;
		}
		if (busy(p) && now - due < BUSY_S * 1000) {
			wait_ms(p, BUSY_LOOK);
			continue;
		}
		pthread_mutex_unlock(&p->lock);
		r = audit <= pass ? audit_step(s) : pass_step(s);
		if (r && r != -ECANCELED)
			log_warn("verifying what is stored: %s", strerror(-r));
		pthread_mutex_lock(&p->lock);
		/* What fails now may not fail in a minute. */
		if (r && !p->stopping)
			wait_ms(p, 60000);
	}
	pthread_mutex_unlock(&p->lock);
	free(s);
	return NULL;
}
