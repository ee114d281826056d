/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Which segments are worth being emptied, and what is in them.  Moving is the next cut's:
 * pack.c reads and packs, settle.c changes the extents when it is published.
 */
#include <stdlib.h>
#include "cache/garbage.h"

#define COMPACT_MS    (60 * 1000)
#define COMPACT_MAX   ((uint64_t)32 << 20)  /* moved by one cut */
#define COMPACT_WASTE ((uint64_t)256 << 10) /* less is not worth a cut */
#define COMPACT_SEGS  64
#define COMPACT_ROWS  100000 /* extents moved by one cut */
#define COMPACT_BACK  10     /* doublings of the wait when nothing came of it */

struct hollow {
	uint64_t seg[COMPACT_SEGS]; /* ascending */
	unsigned cnt;
	uint64_t sum; /* tells one set from another */
};

/* The emptiest first, as many as one cut may move. */
static int choose_hollow(struct store *st, struct hollow *h)
{
	uint64_t live = 0, waste = 0;
	int more = 0;

	*h = (struct hollow){0};
	pthread_mutex_lock(&st->meta);
	int r = live_flush_locked(st);
	sqlite3_stmt *q =
		r ? NULL
		  : store_stmt(st, "SELECT seg,live,len FROM segment INDEXED BY "
				   "segment_hollow WHERE kind=1 AND len-live*2>0 AND live>0 "
				   "AND seq<=?1 ORDER BY live LIMIT 64");
	if (!r && !q)
		r = -EIO;
	if (!r)
		sqlite3_bind_int64(q, 1, (int64_t)garbage_kv_locked(st, "log_seq"));
	while (!r && h->cnt < COMPACT_SEGS && (more = store_step(st, q)) == 1) {
		uint64_t n = (uint64_t)sqlite3_column_int64(q, 1);

		if (h->cnt && live + n > COMPACT_MAX)
			break;
		live += n;
		waste += (uint64_t)sqlite3_column_int64(q, 2) - n;
		h->seg[h->cnt++] = (uint64_t)sqlite3_column_int64(q, 0);
		h->sum = (h->sum ^ h->seg[h->cnt - 1]) * 0x100000001b3u + n;
	}
	if (q)
		sqlite3_reset(q);
	pthread_mutex_unlock(&st->meta);
	if (waste < COMPACT_WASTE)
		h->cnt = 0;
	qsort(h->seg, h->cnt, sizeof *h->seg, u64_cmp);
	return r ? r : more < 0 ? more : 0;
}

static int by_place(const void *a, const void *b)
{
	const struct move *x = a, *y = b;

	if (x->seg != y->seg)
		return x->seg > y->seg ? 1 : -1;
	return (x->seg_off > y->seg_off) - (x->seg_off < y->seg_off);
}

/* All that names these segments; the table is read in slices, nothing waits for long. */
static int list_moves(struct publisher *p, const struct hollow *h, struct move **out,
		      size_t *cnt)
{
	struct store *st = p->st;
	uint64_t ino = 0, off = 0;
	size_t cap = 0;
	int rows, more, r = 0;

	do {
		rows = more = 0;
		pthread_mutex_lock(&st->meta);
		sqlite3_stmt *q =
			store_stmt(st, "SELECT ino,off,len,seg,seg_off FROM extent WHERE "
				       "(ino,off)>(?1,?2) ORDER BY ino,off LIMIT 1000");
		if (!q)
			r = -EIO;
		else {
			sqlite3_bind_int64(q, 1, (int64_t)ino);
			sqlite3_bind_int64(q, 2, (int64_t)off);
		}
		while (!r && (more = store_step(st, q)) == 1) {
			uint64_t seg = (uint64_t)sqlite3_column_int64(q, 3);

			rows++;
			ino = (uint64_t)sqlite3_column_int64(q, 0);
			off = (uint64_t)sqlite3_column_int64(q, 1);
			if (*cnt == COMPACT_ROWS ||
			    !bsearch(&seg, h->seg, h->cnt, sizeof seg, u64_cmp))
				continue;
			if (*cnt == cap) {
				cap = cap ? 2 * cap : 256;
				struct move *m = reallocarray(*out, cap, sizeof *m);

				if (!m) {
					r = -ENOMEM;
					break;
				}
				*out = m;
			}
			(*out)[(*cnt)++] = (struct move){
				.ino = ino,
				.off = off,
				.seg = seg,
				.len = (uint32_t)sqlite3_column_int64(q, 2),
				.seg_off = (uint32_t)sqlite3_column_int64(q, 4),
			};
		}
		if (q)
			sqlite3_reset(q);
		pthread_mutex_unlock(&st->meta);
		if (!r && publish_stopping(p))
			r = -ECANCELED;
	} while (!r && more >= 0 && rows);
	if (*cnt)
		qsort(*out, *cnt, sizeof **out, by_place);
	return r ? r : more < 0 ? more : 0;
}

/* Nothing waits to be published, and what is moved gets all its shards. */
static bool idle(struct publisher *p)
{
	struct volume *v = p->st->vol;

	pthread_mutex_lock(&p->lock);
	bool idle = !p->dirty && !p->move && !p->repack && p->want <= p->done &&
		    p->done == p->begun;
	pthread_mutex_unlock(&p->lock);
	return idle && volume_usable(v) >= HF_MIN((size_t)v->k + v->m, v->node_cnt);
}

int garbage_compact(struct publisher *p, struct garbage *g, int64_t *next_ms)
{
	int64_t every = garbage_pace(p->opts.pace.compact_ms, COMPACT_MS), now = now_ms();
	struct move *m = NULL;
	struct hollow h;
	size_t cnt = 0;
	int r;

	if (now < g->compact_ms) {
		*next_ms = HF_MIN(*next_ms, g->compact_ms);
		return 0;
	}
	r = choose_hollow(p->st, &h);
	if (r || !h.cnt)
		return r;
	if (!idle(p)) {
		*next_ms = HF_MIN(*next_ms, now + every);
		return 0;
	}
	r = list_moves(p, &h, &m, &cnt);
	/* The same again: something keeps it where it is. */
	g->compact_wait =
		h.sum == g->compact_sum ? HF_MIN(g->compact_wait + 1, COMPACT_BACK) : 0;
	g->compact_sum = h.sum;
	g->compact_ms = now_ms() + (every << g->compact_wait);
	*next_ms = HF_MIN(*next_ms, g->compact_ms);
	if (!r && cnt) {
		pthread_mutex_lock(&p->lock);
		if (!p->move) {
			p->move = m;
			p->move_cnt = cnt;
			m = NULL;
		}
		pthread_cond_broadcast(&p->cond);
		pthread_mutex_unlock(&p->lock);
	}
	free(m);
	return r;
}
