/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The thread that stores huge files while cuts go on: what cuts hold back (hold.c) is packed
 * and spread segment by segment, ahead of the commit that will name it (sent.c).  A file of
 * which no more than one segment is missing is left to the next cut, which is asked for.
 *
 * It has stripes of its own, so it and the publish thread never wait for each other; what they
 * share is the way to the nodes.  The file with the least to send comes first.
 *
 * A range is read with inode->io held shared, in which RG_SENT is set; whoever writes there
 * clears it.  A range that was hit while it was on its way is not read again before all that
 * is on the way of that file has arrived: so RG_SENT never stands for two segments.
 */
#include <stdlib.h>
#include <sys/prctl.h>
#include "cache/cut.h"
#include "cache/datafile.h"
#include "net/cond.h"

#define PIECE_LEN      ((size_t)1 << 20) /* in one read */
#define WRITTEN_MS     1000		 /* a file written so lately is still being written; */
#define WRITING_MAX_MS 25000		 /* but it is not waited for longer than that */

struct sending {
	struct inode *in; /* pinned */
	uint64_t seg;
	struct seg_id id;
	struct stripe *stripe;
	struct spread *spread;
	struct sent_part {
		uint64_t off;
		uint32_t len, seg_off;
	} * part;
	size_t part_cnt, part_cap;
};

struct ahead {
	struct publisher *p;
	struct store *st;
	struct seg_builder *b;
	struct sending flight[AHEAD_IN_FLIGHT];
	unsigned flight_cnt;
	uint8_t *piece;
	uint64_t gen, hurries; /* of p->held, as of the last look */
};

static void sending_release(struct ahead *a, struct sending *s)
{
	struct seg_place place;

	if (s->spread)
		spread_finish(s->spread, &place);
	if (s->stripe)
		stripe_unref(s->stripe);
	if (s->in) {
		pthread_mutex_lock(&a->st->meta);
		/* What did not arrive is as dirty as before. */
		for (size_t i = 0; s->in->spans && i < s->part_cnt; i++)
			ranges_set(s->in->spans, s->part[i].off, s->part[i].len, 0, RG_SENT);
		inode_put_locked(a->st, s->in);
		pthread_mutex_unlock(&a->st->meta);
	}
	free(s->part);
	*s = (struct sending){0};
}

static bool over(struct publisher *p)
{
	pthread_mutex_lock(&p->lock);
	bool stop = p->stopping || p->stopped || p->crashed;
	pthread_mutex_unlock(&p->lock);
	return stop;
}

static void count_sent(struct publisher *p, uint64_t ino, uint64_t bytes)
{
	pthread_mutex_lock(&p->lock);
	struct held *h = held_find(p, ino);

	if (h)
		h->sent += bytes;
	pthread_mutex_unlock(&p->lock);
}

/* The segment is stored: what has not changed since it was read need not be sent again. */
static int arrived(struct ahead *a, struct sending *s, const struct seg_place *place)
{
	struct store *st = a->st;
	uint64_t kept = 0;
	/* The bytes, and the row that says that they are here, before a row of `ahead` (L1). */
	int r = store_sync_inode(st, s->in, true);

	if (r)
		return r;
	pthread_mutex_lock(&st->meta);
	r = segment_insert_locked(st, s->seg, place, SEG_AHEAD, 0, 0, NULL);
	for (size_t i = 0; !r && i < s->part_cnt; i++)
		r = sent_stored_locked(st, s->in, s->part[i].off, s->part[i].len, s->seg,
				       s->part[i].seg_off, &kept);
	pthread_mutex_unlock(&st->meta);
	count_sent(a->p, s->in->ino, place->geom.len);
	return r ? r : store_commit(st);
}

/* The oldest segment in flight is waited for until it is stored. */
static int finish_one(struct ahead *a)
{
	struct sending *s = &a->flight[0];
	struct seg_place place;
	struct backoff backoff = publish_backoff(a->p);
	int r, waits = 0;

	for (;; waits++) {
		r = spread_finish(s->spread, &place);
		s->spread = NULL;
		if (r != -EAGAIN)
			break;
		r = publish_pause(a->p, &backoff, NULL);
		if (!r && over(a->p))
			r = -ECANCELED;
		if (!r)
			r = spread_start(&s->spread, a->st->vol, s->stripe);
		if (r)
			break;
	}
	rate_end(a->p, r || waits ? 0 : s->stripe->geom.len);
	if (!r)
		r = arrived(a, s, &place);
	sending_release(a, s);
	memmove(&a->flight[0], &a->flight[1], (AHEAD_IN_FLIGHT - 1) * sizeof a->flight[0]);
	a->flight[AHEAD_IN_FLIGHT - 1] = (struct sending){0};
	a->flight_cnt--;
	return r ? r : publish_stage(a->p, "ahead");
}

static bool on_its_way(const struct ahead *a, const struct inode *in)
{
	for (unsigned i = 0; i < a->flight_cnt; i++)
		if (a->flight[i].in == in)
			return true;
	return false;
}

static int part_add(struct sending *s, uint64_t off, size_t len, uint32_t seg_off)
{
	struct sent_part *last = s->part_cnt ? &s->part[s->part_cnt - 1] : NULL;

	if (last && last->off + last->len == off && last->seg_off + last->len == seg_off) {
		last->len += (uint32_t)len;
		return 0;
	}
	if (s->part_cnt == s->part_cap) {
		size_t cap = s->part_cap ? 2 * s->part_cap : 16;
		struct sent_part *p = reallocarray(s->part, cap, sizeof *p);

		if (!p)
			return -ENOMEM;
		s->part = p;
		s->part_cap = cap;
	}
	s->part[s->part_cnt++] = (struct sent_part){off, (uint32_t)len, seg_off};
	return 0;
}

/* The next piece of the file: its length, 0 when there is none. */
static int64_t read_piece(struct ahead *a, struct inode *in, uint64_t *pos, size_t room)
{
	struct store *st = a->st;
	struct cfile *c = NULL;
	uint64_t end = 0;
	size_t len = 0;
	int r = iolock_read(&in->io);

	if (r)
		return r;
	pthread_mutex_lock(&st->meta);
	if (in->flags & INODE_LARGE && in->nlink && in->spans && !in->file->cutinfo &&
	    !in->file->sent_hit && sent_want_locked(in, pos, &end)) {
		len = (size_t)HF_MIN(HF_MIN(end - *pos, (uint64_t)room), (uint64_t)PIECE_LEN);
		r = ranges_set(in->spans, *pos, len, RG_SENT, 0);
	}
	pthread_mutex_unlock(&st->meta);
	if (!r && len)
		r = cfile_get(st, in, CF_MAIN, false, &c);
	if (!r && len)
		r = cfile_read(c->fd, a->piece, len, *pos);
	cfile_put(st, c);
	iolock_unlock(&in->io);
	if (r) {
		pthread_mutex_lock(&st->meta);
		if (in->spans)
			ranges_set(in->spans, *pos, len, 0, RG_SENT);
		pthread_mutex_unlock(&st->meta);
		return log_fail(r, "inode %llx: reading its cache file: %s",
				(unsigned long long)in->ino,
				r == -ENODATA ? "it is too short" : strerror(-r));
	}
	return (int64_t)len;
}

/* One segment of the file; s->part_cnt 0: there was nothing to send after all. */
static int fill(struct ahead *a, struct sending *s)
{
	uint64_t pos = 0, most = ahead_seg(a->p);
	int r = seg_builder_start(a->b, &s->id);

	if (r)
		return r;
	while (!r && seg_builder_len(a->b) < most) {
		uint64_t room =
			HF_MIN((uint64_t)seg_builder_room(a->b), most - seg_builder_len(a->b));
		int64_t len = room ? read_piece(a, s->in, &pos, (size_t)room) : 0;
		uint32_t seg_off;

		if (len <= 0) {
			r = (int)len;
			break;
		}
		r = seg_builder_add(a->b, a->piece, (size_t)len, &seg_off);
		if (!r)
			r = part_add(s, pos, (size_t)len, seg_off);
		if (r) {
			pthread_mutex_lock(&a->st->meta);
			if (s->in->spans)
				ranges_set(s->in->spans, pos, (uint64_t)len, 0, RG_SENT);
			pthread_mutex_unlock(&a->st->meta);
		}
		pos += (uint64_t)len;
		if (!r && over(a->p))
			r = -ECANCELED;
	}
	if (!r && s->part_cnt)
		return seg_builder_finish(a->b, &s->stripe);
	seg_builder_abandon(a->b);
	return r;
}

/* 1: something is on its way. */
static int send_one(struct ahead *a, struct inode *in)
{
	struct sending s = {.in = in};
	int r = fill(a, &s);

	if (r || !s.part_cnt) {
		sending_release(a, &s);
		return r;
	}
	pthread_mutex_lock(&a->st->meta);
	s.seg = a->p->next_seg++;
	pthread_mutex_unlock(&a->st->meta);
	r = spread_start(&s.spread, a->st->vol, s.stripe);
	if (r) {
		sending_release(a, &s);
		return r;
	}
	rate_begin(a->p);
	a->flight[a->flight_cnt++] = s;
	return 1;
}

struct pick {
	struct inode *in; /* pinned: what to send next */
	uint64_t left;
	bool ask;     /* a cut can take something */
	bool writing; /* something is only left in peace for a while */
};

static void look_at(struct ahead *a, struct held *h, struct pick *k)
{
	struct store *st = a->st;
	int64_t now = now_ms(), wait = a->p->opts.interval_ms
					       ? 5 * (int64_t)a->p->opts.interval_ms
					       : WRITING_MAX_MS;
	struct inode *in;

	if (h->taken || inode_get_locked(st, h->ino, &in))
		return;
	if (in->flags & INODE_LARGE && in->nlink && !datafile_load_locked(st, in) &&
	    !in->file->cutinfo) {
		uint64_t left = sent_left_locked(in), way = ranges_total(in->spans, RG_SENT);

		if (in->file->sent_hit && !on_its_way(a, in))
			in->file->sent_hit = false;
		/* Whoever waits wants what is there now, whatever is written meanwhile. */
		if (h->hurry && !h->due)
			h->due = h->sent + HF_MAX(left, (uint64_t)1);
		bool enough = held_enough(a->p, h, account_of(in).unpublished);

		/* What a cut takes as it is must not keep this thread from the others. */
		if (enough || (left <= ahead_low(a->p) && !way)) {
			k->ask |= !h->asked;
			h->asked = true;
		} else if (left - HF_MIN(left, way) >= ahead_low(a->p) && !in->file->sent_hit) {
			h->asked = false;
			if (!h->hurry && now - in->written_ms < WRITTEN_MS &&
			    now - h->since_ms < HF_MIN(wait, (int64_t)WRITING_MAX_MS)) {
				k->writing = true;
			} else if (!k->in || left < k->left) {
				struct inode *was = k->in;

				k->in = in;
				k->left = left;
				in = was;
			}
		}
	}
	if (in)
		inode_put_locked(st, in);
}

/* Which file is next; what is known of p->held is written back. */
static int pick(struct ahead *a, struct pick *k)
{
	struct publisher *p = a->p;
	struct held *held;
	size_t cnt;

	*k = (struct pick){0};
	pthread_mutex_lock(&p->lock);
	held = malloc(HF_MAX(p->held_cnt, (size_t)1) * sizeof *held);
	cnt = 0;
	for (size_t i = 0; held && i < p->held_cnt; i++)
		if (p->held[i].send)
			held[cnt++] = p->held[i];
	a->gen = p->held_gen;
	a->hurries = p->hurries;
	pthread_mutex_unlock(&p->lock);
	if (!held)
		return -ENOMEM;
	pthread_mutex_lock(&a->st->meta);
	for (size_t i = 0; i < cnt; i++)
		look_at(a, &held[i], k);
	pthread_mutex_unlock(&a->st->meta);
	pthread_mutex_lock(&p->lock);
	for (size_t i = 0; i < cnt; i++) {
		struct held *h = held_find(p, held[i].ino);

		if (h && h->since == held[i].since) {
			h->asked = held[i].asked;
			h->due = held[i].due;
		}
	}
	if (k->ask) {
		p->want = HF_MAX(p->want, p->begun + 1);
		pthread_cond_broadcast(&p->cond);
	}
	pthread_mutex_unlock(&p->lock);
	free(held);
	return 0;
}

/* Segments whose bytes have all changed since: no commit names them, and none ever will. */
static int forsake(struct store *st)
{
	pthread_mutex_lock(&st->meta);
	sqlite3_stmt *q = store_stmt(
		st, "UPDATE segment SET kind=4,missing=0,chg=0,seq=0,since=?1 WHERE kind=5 AND "
		    "NOT EXISTS (SELECT 1 FROM ahead a WHERE a.seg=segment.seg) AND "
		    "NOT EXISTS (SELECT 1 FROM staged s WHERE s.seg=segment.seg)");

	if (q)
		sqlite3_bind_int64(q, 1, realtime_ns() / 1000000);
	int r = q ? store_run(st, q) : -EIO;

	pthread_mutex_unlock(&st->meta);
	return r;
}

/* Until a cut held something or a node came or went; ms > 0: at most so long. */
static void idle(struct ahead *a, int64_t ms)
{
	struct publisher *p = a->p;
	int64_t until = ms ? now_ms() + ms : INT64_MAX;

	pthread_mutex_lock(&p->lock);
	uint64_t pokes = p->pokes;
	int rc = 0;

	while (!rc && !p->stopping && !p->stopped && !p->crashed && p->held_gen == a->gen &&
	       p->pokes == pokes && p->hurries == a->hurries)
		rc = cond_until(&p->cond, &p->lock, until);
	pthread_mutex_unlock(&p->lock);
}

/* Stripes and buffers are there only while something is held. */
static int tools(struct ahead *a)
{
	if (a->b)
		return 0;
	if (!a->piece)
		a->piece = malloc(PIECE_LEN);
	return a->piece ? seg_builder_new(&a->b, a->st->vol->keys, a->p->ahead_pool) : -ENOMEM;
}

static int work(struct ahead *a)
{
	struct pick k;
	int r = pick(a, &k);

	if (r)
		return r;
	if (k.in) {
		unsigned most = a->p->rate ? AHEAD_IN_FLIGHT : AHEAD_UNKNOWN;

		r = tools(a);
		if (!r && a->flight_cnt >= most)
			r = finish_one(a);
		if (r) {
			inode_put(a->st, k.in);
			return r;
		}
		r = send_one(a, k.in);
		if (!r && !a->flight_cnt)
			idle(a, WRITTEN_MS);
		return HF_MIN(r, 0);
	}
	if (a->flight_cnt)
		return finish_one(a);
	r = forsake(a->st);
	if (!r)
		idle(a, k.writing ? WRITTEN_MS : 0);
	return r;
}

static void give_up(struct ahead *a)
{
	for (unsigned i = 0; i < a->flight_cnt; i++) {
		rate_end(a->p, 0);
		sending_release(a, &a->flight[i]);
	}
	a->flight_cnt = 0;
}

void *ahead_main(void *arg)
{
	struct ahead a = {.p = arg, .st = ((struct publisher *)arg)->st};

	prctl(PR_SET_NAME, "hf-ahead");
	while (!over(a.p)) {
		int r = work(&a);

		if (r == -ECANCELED)
			break;
		/* The next attempt begins with what the last one had not stored. */
		if (r) {
			give_up(&a);
			idle(&a, 1000);
		}
	}
	give_up(&a);
	if (a.b)
		seg_builder_free(a.b);
	free(a.piece);
	return NULL;
}

void ahead_figures(struct publisher *p, uint64_t *bytes, uint64_t *done)
{
	struct buf list = {0};

	*bytes = *done = 0;
	pthread_mutex_lock(&p->lock);
	for (size_t i = 0; i < p->held_cnt; i++)
		if (p->held[i].send)
			buf_u64(&list, p->held[i].ino);
	pthread_mutex_unlock(&p->lock);
	pthread_mutex_lock(&p->st->meta);
	for (size_t i = 0; i < list.len; i += 8) {
		/* One that is not in memory is neither written nor sent just now. */
		struct inode *in = inode_peek_locked(p->st, get_le64(list.p + i));

		if (!in || !(in->flags & INODE_LARGE) || !in->spans)
			continue;
		*bytes += account_of(in).unpublished;
		*done += ranges_total(in->spans, RG_AHEAD);
	}
	pthread_mutex_unlock(&p->st->meta);
	buf_release(&list);
}
