/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "cache/datafile.h"

#include <assert.h>
#include <stdlib.h>
#include "net/gather.h"

#define COMPLAIN_MS 10000
#define NEAR_SIZE   ((uint64_t)1 << 20)
#define JOB_LEAST   ((uint64_t)1 << 20)
#define NEXT_SLACK  ((uint64_t)2 << 20)
#define REACH_MS    2000
#define RUN_AT_ONCE ((uint64_t)1 << 20)
#define MISS_NEAR   ((uint64_t)1 << 20)
#define MISS_GRAIN  ((uint64_t)64 << 10)

/* --- one extent --- */

struct source {
	struct seg_place place;
	struct buf inl;
	bool is_inline;
};

/* Is the byte at e->off still where e says? */
static bool still_there_locked(struct store *st, uint64_t ino, const struct extent *e)
{
	struct extent now;

	return extent_at_locked(st, ino, e->off, &now) == 1 && now.off <= e->off &&
	       now.seg == e->seg;
}

/* Are the shards where they were when the source was opened? */
static bool same_place_locked(struct store *st, const struct extent *e, const struct source *s)
{
	struct source now = {0};
	int err = segment_place_locked(st, e->seg, &now.place, &now.inl, &now.is_inline);
	bool same = !err && now.is_inline == s->is_inline &&
		    !memcmp(now.place.node, s->place.node, sizeof now.place.node);

	buf_release(&now.inl);
	return same;
}

/*
 * What the publisher moved elsewhere may be deleted where it was, and a repair may have stored
 * shards meanwhile: whoever was on the way there looks it up again, -EAGAIN, instead of taking
 * it for lost.
 */
static int source_failed(struct store *st, uint64_t ino, const struct extent *e,
			 const struct source *s, int err)
{
	pthread_mutex_lock(&st->meta);
	if (!still_there_locked(st, ino, e) ||
	    (err == -ENODATA && !same_place_locked(st, e, s)))
		err = -EAGAIN;
	else if (err == -ESTALE)
		err = store_fail_locked(st, -EIO, "an extent names no segment");
	pthread_mutex_unlock(&st->meta);
	return err;
}

static int source_open(struct store *st, const struct extent *e, struct source *s)
{
	*s = (struct source){0};
	pthread_mutex_lock(&st->meta);
	int err = segment_place_locked(st, e->seg, &s->place, &s->inl, &s->is_inline);
	if (!err && (e->seg_off > s->place.geom.len || e->len > s->place.geom.len - e->seg_off))
		err = store_fail_locked(st, -EIO, "an extent ends behind its segment");
	pthread_mutex_unlock(&st->meta);
	return err;
}

/* Once in a while, why reads fail: in words for who knows how many nodes there should be. */
static void complain(struct store *st)
{
	unsigned n = st->vol ? volume_readable(st->vol) : 0, k = st->vol ? st->vol->k : 1;

	if (n >= k)
		return;
	pthread_mutex_lock(&st->meta);
	int64_t now = now_ms();
	bool say = !st->data->complained_ms || now - st->data->complained_ms >= COMPLAIN_MS;
	if (say)
		st->data->complained_ms = now;
	pthread_mutex_unlock(&st->meta);
	if (say)
		log_msg(LOG_LVL_ERROR, "reading: %u nodes can be read now, %u are needed", n, k);
}

/* Before nodes were verified once nobody knows which are there. */
static int reachable(struct store *st, int64_t deadline_ms)
{
	atomic_store(&st->data->read_ms, now_ms());
	if (!st->vol)
		return -ENODATA;
	int err = volume_await(st->vol, st->vol->k, deadline_ms);
	return err == -ENODATA ? 0 : err;
}

/* near: of a small file, whose neighbours will be read too. */
static int source_read(struct store *st, const struct source *s, uint32_t off, uint32_t len,
		       uint8_t *buf, int64_t deadline_ms, bool near)
{
	if (s->is_inline) {
		memcpy(buf, s->inl.p + off, len);
		return 0;
	}
	int err = reachable(st, deadline_ms);
	if (!err)
		err = (near ? gather_read_near : gather_read)(st->vol, &s->place, off, len, buf,
							      deadline_ms);
	if (err == -ENODATA)
		complain(st);
	return err;
}

int fetch_extent(struct store *st, uint64_t ino, const struct extent *e, uint8_t *buf,
		 int64_t deadline_ms)
{
	struct source s;
	int err = source_open(st, e, &s);

	if (!err)
		err = source_read(st, &s, e->seg_off, (uint32_t)e->len, buf, deadline_ms, true);
	buf_release(&s.inl);
	return err == -ESTALE || err == -ENODATA ? source_failed(st, ino, e, &s, err) : err;
}

/* --- keeping what came --- */

struct gap {
	uint64_t off, end;
};

/* Parts of [off, end) that still are what e says and are not here yet. */
static int gaps_locked(struct store *st, struct inode *in, const struct extent *e, uint64_t off,
		       uint64_t end, struct buf *out)
{
	struct extent now;

	if (in->gone || !(in->flags & INODE_LARGE) || st->failed)
		return 0;
	int got = datafile_load_locked(st, in);
	if (!got)
		got = extent_at_locked(st, in->ino, off, &now);
	if (got <= 0)
		return got;
	if (now.off > off || now.off + now.len < end || now.seg != e->seg ||
	    now.seg_off + (off - now.off) != e->seg_off + (off - e->off))
		return 0;
	while (off < end) {
		struct gap g = {off, end};
		unsigned flags;

		ranges_at(in->spans, off, end, &flags, &g.end);
		if (!(flags & RG_HAVE))
			buf_put(out, &g, sizeof g);
		off = g.end;
	}
	return out->err;
}

/*
 * Published bytes [off, end) into the cache file.  io held, so that nobody writes there.
 * Failing is no harm: the reader has its bytes.
 */
static void keep(struct store *st, struct inode *in, const struct extent *e, uint64_t off,
		 uint64_t end, const uint8_t *p)
{
	struct buf list = {0};
	struct cfile *c = NULL;
	bool create = false;
	int err = store_space_for(st, end - off);

	if (!err) {
		pthread_mutex_lock(&st->meta);
		err = gaps_locked(st, in, e, off, end, &list);
		create = list.len && !account_of(in).cached;
		pthread_mutex_unlock(&st->meta);
	}
	if (!err && list.len)
		err = cfile_get(st, in, CF_MAIN, create, &c);
	if (c)
		c->wrote = true;
	for (size_t i = 0; i < list.len && !err; i += sizeof(struct gap)) {
		struct gap g;

		memcpy(&g, list.p + i, sizeof g);
		err = cfile_write(c->fd, p + (g.off - off), (size_t)(g.end - g.off), g.off,
				  NULL);
	}
	cfile_put(st, c);
	if (err || !list.len) {
		buf_release(&list);
		return;
	}
	pthread_mutex_lock(&st->meta);
	store_seal_locked(st, in, false);
	struct account before = account_of(in);
	for (size_t i = 0; i < list.len && !err; i += sizeof(struct gap)) {
		struct gap g;

		memcpy(&g, list.p + i, sizeof g);
		err = ranges_set(in->spans, g.off, g.end - g.off, RG_HAVE, 0);
	}
	datafile_wrote_locked(st, in, NULL, 0, 0);
	st->data->evictable = true;
	inode_mark_locked(st, in, 0);
	account_settle_locked(st, in, before);
	pthread_mutex_unlock(&st->meta);
	buf_release(&list);
}

/* A program that looks for something around here is given more at a time. */
static uint64_t grain(struct store *st, struct inode *in, uint64_t off)
{
	pthread_mutex_lock(&st->meta);
	uint64_t last = in->file->missed;
	in->file->missed = off;
	pthread_mutex_unlock(&st->meta);
	return last && off < last + MISS_NEAR && last < off + MISS_NEAR ? MISS_GRAIN : 1;
}

int fetch_read(struct store *st, struct inode *in, const struct extent *e, uint64_t off,
	       size_t len, uint8_t *buf, int64_t deadline_ms)
{
	struct source s;
	int err = source_open(st, e, &s);

	assert(off >= e->off && off + len <= e->off + e->len);
	if (err)
		goto out;
	/* Whole cells come anyway; take of them what belongs to this extent. */
	uint64_t cell = HF_MAX((uint64_t)seg_cell(&s.place.geom), grain(st, in, off));
	uint64_t at = e->seg_off + (off - e->off), end = at + len;
	at = HF_MAX(at / cell * cell, (uint64_t)e->seg_off);
	end = HF_MIN((end + cell - 1) / cell * cell, e->seg_off + e->len);
	uint64_t from = e->off + (at - e->seg_off), to = e->off + (end - e->seg_off);
	uint8_t *p = from == off && to == off + len ? buf : malloc((size_t)(to - from));
	if (!p) {
		err = -ENOMEM;
		goto out;
	}
	err = source_read(st, &s, (uint32_t)at, (uint32_t)(end - at), p, deadline_ms,
			  in->size <= NEAR_SIZE);
	if (!err) {
		keep(st, in, e, from, to, p);
		if (p != buf)
			memcpy(buf, p + (off - from), len);
	}
	if (p != buf)
		free(p);
out:
	buf_release(&s.inl);
	return err == -ESTALE || err == -ENODATA ? source_failed(st, in->ino, e, &s, err) : err;
}

/* --- read-ahead --- */

bool fetch_busy_locked(const struct data *d, uint64_t ino, uint64_t off, uint64_t *end)
{
	for (const struct fetch_busy *b = d->busy; b; b = b->next) {
		if (b->ino == ino && b->off <= off && off < b->end) {
			*end = b->end;
			return true;
		}
	}
	return false;
}

/*
 * The next job from *from on: an extent to its end, so that a segment is fetched by one, or
 * several small ones.  1; 0 at the end of what is on the nodes.
 */
static int job_locked(struct store *st, struct inode *in, uint64_t *from, uint64_t *end)
{
	struct extent e;
	int got = extent_at_locked(st, in->ino, *from, &e);

	if (got != 1)
		return got;
	*from = HF_MAX(*from, e.off);
	*end = e.off + e.len;
	while (*end - *from < JOB_LEAST && extent_at_locked(st, in->ino, *end, &e) == 1)
		*end = e.off + e.len;
	return 1;
}

/* What is asked for of this file and not here yet. */
static uint64_t coming_locked(const struct data *d, uint64_t ino)
{
	uint64_t sum = 0;

	for (const struct fetch_busy *b = d->busy; b; b = b->next)
		sum += b->ino == ino ? b->end - b->off : 0;
	for (unsigned i = 0; i < d->job_cnt; i++) {
		const struct fetch_job *j = &d->job[(d->job_head + i) % READ_AHEAD_JOBS];
		sum += j->ino == ino ? j->end - j->off : 0;
	}
	return sum;
}

void fetch_more_locked(struct store *st, struct inode *in)
{
	struct data *d = st->data;
	struct datafile *f = in->file;

	if (in->read_run < 2 || !d->reader_cnt || f->ra_end >= in->size ||
	    in->read_next + READ_AHEAD_MAX <= f->ra_end)
		return;
	uint64_t coming = coming_locked(d, in->ino);
	if (coming >= READ_AHEAD)
		return;
	/* Where the nodes are slow what is wanted next shall not wait for what is wanted last. */
	uint64_t reach = HF_MAX(gather_reach(st->vol, REACH_MS), READ_AHEAD_LEAST);
	uint64_t from = HF_MAX(in->read_next, f->ra_end), stop;
	uint64_t to = HF_MIN(in->read_next + HF_MIN(READ_AHEAD_MAX, reach), in->size);
	while (from < to && coming < READ_AHEAD && d->job_cnt < READ_AHEAD_JOBS) {
		unsigned flags;

		ranges_at(in->spans, from, in->size, &flags, &stop);
		if (flags & RG_HAVE) {
			from = f->ra_end = stop;
			continue;
		}
		if (job_locked(st, in, &from, &stop) != 1) {
			f->ra_end = in->size;
			break;
		}
		f->ra_end = stop;
		d->job[(d->job_head + d->job_cnt++) % READ_AHEAD_JOBS] =
			(struct fetch_job){in->ino, from, stop};
		coming += stop - from;
		from = stop;
		pthread_cond_signal(&d->job_cond);
	}
}

void fetch_ahead_locked(struct store *st, struct inode *in, uint64_t off, uint64_t end)
{
	/* The kernel reads ahead too, several pieces at once, which overtake each other here. */
	if (off > in->read_next + NEXT_SLACK || off + NEXT_SLACK < in->read_next) {
		in->read_run = 0;
		in->read_next = end;
		in->file->ra_end = 0;
	} else if (end > in->read_next) {
		/* Who begins with so much will want it all. */
		in->read_run += end - off >= RUN_AT_ONCE && !in->read_run ? 2 : 1;
		in->read_run = HF_MIN(in->read_run, 2u);
		in->read_next = end;
	}
	fetch_more_locked(st, in);
}

struct ahead {
	struct store *st;
	struct inode *in;
	const struct extent *e;
	struct fetch_busy *busy;
};

static int ahead_sink(void *arg, uint32_t off, const uint8_t *p, uint32_t len)
{
	struct ahead *a = arg;
	struct store *st = a->st;
	uint64_t from = a->e->off + (off - a->e->seg_off);

	/* Who writes to the file now may be waiting for us: never wait for io here. */
	if (iolock_try_read(&a->in->io)) {
		keep(st, a->in, a->e, from, from + len, p);
		iolock_unlock(&a->in->io);
	}
	pthread_mutex_lock(&st->meta);
	a->busy->off = from + len;
	bool stop = st->data->stopping || a->in->gone;
	pthread_cond_broadcast(&st->data->busy_cond);
	pthread_mutex_unlock(&st->meta);
	return stop ? -ECANCELED : 0;
}

/* [off, end) of extent e; meta not held. */
static int ahead_piece(struct store *st, struct inode *in, const struct extent *e,
		       struct fetch_busy *busy)
{
	struct ahead a = {st, in, e, busy};
	uint32_t at = e->seg_off + (uint32_t)(busy->off - e->off);
	uint32_t len = (uint32_t)(busy->end - busy->off);
	struct source s;
	int err = source_open(st, e, &s);

	if (!err && s.is_inline)
		err = ahead_sink(&a, at, s.inl.p + at, len);
	else if (!err && !(err = reachable(st, now_ms() + READ_DEADLINE_MS)))
		err = gather_stream(st->vol, &s.place, at, len, ahead_sink, &a,
				    now_ms() + READ_DEADLINE_MS);
	buf_release(&s.inl);
	return err;
}

/* The next part of the job that is on the nodes: 1; 0 none. */
static int ahead_next_locked(struct store *st, struct inode *in, struct fetch_job *j,
			     struct extent *e, struct fetch_busy *busy)
{
	while (j->off < HF_MIN(j->end, in->size)) {
		uint64_t stop, busy_end;
		unsigned flags;

		ranges_at(in->spans, j->off, j->end, &flags, &stop);
		if (flags & RG_HAVE) {
			j->off = stop;
			continue;
		}
		if (fetch_busy_locked(st->data, in->ino, j->off, &busy_end)) {
			j->off = busy_end;
			continue;
		}
		int got = extent_at_locked(st, in->ino, j->off, e);
		if (got <= 0)
			return got;
		if (e->off > j->off) {
			j->off = e->off;
			continue;
		}
		*busy = (struct fetch_busy){in->ino, j->off, HF_MIN(stop, e->off + e->len),
					    NULL};
		j->off = busy->end;
		return 1;
	}
	return 0;
}

static void ahead_run_locked(struct store *st, struct fetch_job *j)
{
	struct data *d = st->data;
	struct inode *in;
	int err = inode_get_locked(st, j->ino, &in);

	if (err)
		return;
	while (!err && !d->stopping && !in->gone && in->flags & INODE_LARGE &&
	       !datafile_load_locked(st, in)) {
		struct fetch_busy busy, **at;
		struct extent e;

		if (ahead_next_locked(st, in, j, &e, &busy) != 1)
			break;
		busy.next = d->busy;
		d->busy = &busy;
		pthread_mutex_unlock(&st->meta);
		err = ahead_piece(st, in, &e, &busy);
		pthread_mutex_lock(&st->meta);
		for (at = &d->busy; *at != &busy; at = &(*at)->next)
			;
		*at = busy.next;
		pthread_cond_broadcast(&d->busy_cond);
	}
	inode_put_locked(st, in);
}

void *fetch_main(void *arg)
{
	struct store *st = arg;
	struct data *d = st->data;

	pthread_setname_np(pthread_self(), "read-ahead");
	pthread_mutex_lock(&st->meta);
	while (!d->stopping) {
		if (!d->job_cnt) {
			pthread_cond_wait(&d->job_cond, &st->meta);
			continue;
		}
		struct fetch_job j = d->job[d->job_head];
		d->job_head = (d->job_head + 1) % READ_AHEAD_JOBS;
		d->job_cnt--;
		ahead_run_locked(st, &j);
	}
	pthread_mutex_unlock(&st->meta);
	return NULL;
}
