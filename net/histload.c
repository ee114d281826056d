/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * history_load.  The names that the nodes list are all there is to go by: a snapshot and the
 * commits after it, or the commits from the first one on, or those after what the caller has.
 * Each of these is a base.  A base is usable when every device's chain goes on from it
 * without a gap, and at least as far as every snapshot says that chains went.
 *
 * Commits are fetched by a few threads, a bounded number ahead of the one that is handed out;
 * they are handed out on the calling thread, each chain in its order and the chains merged by
 * (lamport, device).
 */
#include "net/histload.h"

#include <stdlib.h>
#include "net/gather.h"
#include "net/spread.h"

#define FETCHERS    6
#define FETCH_AHEAD 32 /* objects fetched and not handed out, at most COMMIT_CAP each */
#define PART_MS	    600000

void hist_state_release(struct hist_state *s)
{
	free(s->seen);
	free(s->parts);
	*s = (struct hist_state){0};
}

/* --- fetching ahead --- */

/* The chain that has least in hand.  Under lock. */
static struct chain *next_job(struct load *l)
{
	struct chain *best = NULL;

	for (size_t i = 0; i < l->chain_cnt; i++) {
		struct chain *c = &l->chain[i];
		if (c->asked == c->end || c->fail)
			continue;
		if (l->ahead >= FETCH_AHEAD && c->asked > c->used)
			continue;
		if (!best || c->asked - c->used < best->asked - best->used)
			best = c;
	}
	return best;
}

static void *fetch_main(void *arg)
{
	struct load *l = arg;
	char name[BLOB_NAME_CAP];

	pthread_mutex_lock(&l->lock);
	while (!l->stop) {
		struct chain *c = next_job(l);
		if (!c) {
			pthread_cond_wait(&l->cond, &l->lock);
			continue;
		}
		uint64_t seq = ++c->asked;
		l->ahead++;
		pthread_mutex_unlock(&l->lock);

		struct hist_object *o = calloc(1, sizeof *o);
		keys_log_name(l->v->keys, 'c', c->device, seq, name);
		int err = o ? load_fetch(l, name, o) : -ENOMEM;
		if (err) {
			free(o);
			o = NULL;
		}
		pthread_mutex_lock(&l->lock);
		c->obj[seq - c->base.seq - 1] = o;
		if (err && (!c->fail || seq < c->fail_seq)) {
			c->fail = err;
			c->fail_seq = seq;
		}
		pthread_cond_broadcast(&l->cond);
	}
	pthread_mutex_unlock(&l->lock);
	return NULL;
}

/*
 * A commit that no quorum ever had was never published: its device makes it again, or is
 * gone.  When it is the last one and no node has a good copy, the state before it is whole.
 */
static bool never_published(const struct load *l, const struct chain *c, int err)
{
	const struct listed *e = load_find(l, c->device, c->fail_seq);
	size_t members = volume_members(l->v);
	size_t silent = members - HF_MIN((size_t)l->answered, members);

	return c->fail_seq == c->end && e && e->copies + silent < l->v->quorum &&
	       (err == -EBADMSG || err == -ENOENT || err == -ENODATA);
}

/* The next object to hand out, taken out of its chain; NULL at the end or on an error. */
static struct hist_object *next_object(struct load *l, struct chain **from, int *err)
{
	struct hist_object *o = NULL;

	pthread_mutex_lock(&l->lock);
again:
	*from = NULL;
	o = NULL;
	for (size_t i = 0; i < l->chain_cnt && !*err; i++) {
		struct chain *c = &l->chain[i];
		if (c->used == c->end)
			continue;
		struct hist_object *mine = c->obj[c->used - c->base.seq];
		if (!mine && c->fail && c->fail_seq == c->used + 1) {
			if (never_published(l, c, c->fail)) {
				log_warn("commit %llu of device %u was never published and is "
					 "left out",
					 (unsigned long long)c->end, c->device);
				c->end--;
				c->asked = HF_MIN(c->asked, c->end);
				l->ahead--;
				continue;
			}
			const char *how = c->fail == -ENOTSUP ? "was written by a newer version"
					  : c->fail == -ENOKEY
						  ? "is by a device without certificate"
					  : c->fail == -EBADMSG ? "has no genuine copy"
								: strerror(-c->fail);
			*err = log_fail(c->fail == -ENOENT   ? -ENODATA
					: c->fail == -ENOKEY ? -EBADMSG
							     : c->fail,
					"commit %llu of device %u: %s",
					(unsigned long long)c->fail_seq, c->device, how);
			break;
		}
		if (!mine) {
			pthread_cond_wait(&l->cond, &l->lock);
			goto again;
		}
		if (!o || mine->head.lamport < o->head.lamport ||
		    (mine->head.lamport == o->head.lamport && c->device < (*from)->device)) {
			o = mine;
			*from = c;
		}
	}
	if (*err)
		o = NULL;
	if (o) {
		(*from)->obj[(*from)->used - (*from)->base.seq] = NULL;
		(*from)->used++;
		l->ahead--;
		pthread_cond_broadcast(&l->cond);
	}
	pthread_mutex_unlock(&l->lock);
	return o;
}

/* --- handing out --- */

static int bad_commit(const struct hist_head *h, const char *what)
{
	return log_fail(-EBADMSG, "%s %llu of device %u: %s",
			h->snapshot ? "snapshot" : "commit", (unsigned long long)h->seq,
			h->device, what);
}

static int check_commit(struct load *l, struct chain *c, const struct hist_object *o)
{
	static const uint8_t none[HASH_LEN];
	const struct hist_head *h = &o->head;
	/* A base may know only how far it goes, not the hash. */
	bool known = h->seq == 1 || memcmp(c->last_hash, none, HASH_LEN) != 0;

	if (known && memcmp(h->prev, c->last_hash, HASH_LEN) != 0)
		return bad_commit(
			h, "does not follow the commit before it: rolled back or forked");
	if (h->lamport <= c->last_lamport)
		return bad_commit(h, "its clock does not advance");
	memcpy(c->hash[h->seq - c->base.seq - 1], o->hash, HASH_LEN);
	memcpy(c->last_hash, o->hash, HASH_LEN);
	c->last_lamport = h->lamport;
	for (uint32_t i = 0; i < h->seen_cnt; i++) {
		const struct hist_seen *s = &h->seen[i];
		const struct chain *other = load_chain(l, s->device);
		if (!other || other->end < s->seq)
			return log_fail(-EBADMSG,
					"commit %llu of device %u is missing (rolled back?): "
					"device %u has seen it",
					(unsigned long long)s->seq, s->device, h->device);
		if (!load_hash_fits(other, s))
			return bad_commit(h, "has seen another history of a device: forked");
	}
	return 0;
}

struct stream {
	struct load *l;
	struct rec_reader *rr;
	uint32_t at; /* so far of the part */
};

static int records_out(void *arg, struct rd *r)
{
	struct load *l = arg;

	return l->cb->records(l->arg, r);
}

static int part_piece(void *arg, uint32_t off, const uint8_t *p, uint32_t len)
{
	struct stream *s = arg;

	s->at = off + len;
	return rec_reader_feed(s->rr, p, len);
}

/* A shard that was missing when the part was named has been repaired to where it belongs. */
static void fill_place(struct load *l, struct seg_place *p)
{
	uint16_t home[EC_MAX];

	if (!l->place ||
	    place_shards(&p->geom.id, l->place, l->place_cnt, p->geom.k, p->geom.m, home) < 0)
		return;
	for (unsigned i = 0; i < (unsigned)p->geom.k + p->geom.m; i++)
		if (p->node[i] == NODE_NONE)
			p->node[i] = home[i];
}

/*
 * Where a node was away when the part was stored, repair may have put its shard elsewhere,
 * and the object that names the part cannot be changed: such shards are looked for.
 */
static int part_out(struct stream *s, const struct seg_place *part)
{
	struct volume *v = s->l->v;
	struct seg_place p = *part;

	s->at = 0;
	fill_place(s->l, &p);
	int err = gather_stream(v, &p, 0, p.geom.len, part_piece, s, now_ms() + PART_MS);
	if (err == -ENODATA && s->at < p.geom.len && find_shards(v, &p, INT64_MAX) > 0)
		err = gather_stream(v, &p, s->at, p.geom.len - s->at, part_piece, s,
				    now_ms() + PART_MS);
	return err;
}

static int keep_parts(struct load *l, const struct hist_object *o)
{
	if (!o->part_cnt)
		return 0;
	struct seg_place *p =
		reallocarray(l->out.parts, l->out.part_cnt + o->part_cnt, sizeof *p);
	if (!p)
		return -ENOMEM;
	memcpy(p + l->out.part_cnt, o->part, o->part_cnt * sizeof *p);
	l->out.parts = p;
	l->out.part_cnt += o->part_cnt;
	return 0;
}

static int hand_out(struct load *l, const struct hist_object *o)
{
	struct stream s = {.l = l};

	int err = keep_parts(l, o);
	if (!err)
		err = rec_reader_new(&s.rr, o->raw_len, records_out, l);
	if (!err)
		err = l->cb->begin(l->arg, &o->head);
	if (err)
		goto out;
	if (!o->part_cnt)
		err = rec_reader_feed(s.rr, o->z.p, o->z.len);
	for (size_t i = 0; i < o->part_cnt && !err; i++) {
		err = part_out(&s, &o->part[i]);
		if (err == -ENODATA || err == -ETIMEDOUT)
			log_msg(LOG_LVL_ERROR, "%s %llu of device %u: part %zu of %zu: %s",
				o->head.snapshot ? "snapshot" : "commit",
				(unsigned long long)o->head.seq, o->head.device, i + 1,
				o->part_cnt,
				err == -ENODATA ? "not enough nodes have it"
						: "no answer in time");
	}
	if (!err)
		err = rec_reader_end(s.rr);
	if (err == -EBADMSG)
		bad_commit(&o->head, "its records are damaged");
	if (!err)
		err = l->cb->end(l->arg, &o->head);
	if (!err && o->head.lamport > l->out.lamport)
		l->out.lamport = o->head.lamport;
	if (!err && (!o->head.snapshot || !l->out.time_ns))
		l->out.time_ns = HF_MAX(l->out.time_ns, o->head.time_ns);
out:
	rec_reader_free(s.rr);
	return err;
}

static int hand_out_all(struct load *l)
{
	pthread_t thread[FETCHERS];
	struct hist_object *o;
	struct chain *c;
	size_t all = 0;
	int started = 0, err = 0;

	for (size_t i = 0; i < l->chain_cnt; i++)
		all += (size_t)(l->chain[i].end - l->chain[i].base.seq);
	while (started < FETCHERS && (size_t)started < all && !err) {
		err = -pthread_create(&thread[started], NULL, fetch_main, l);
		if (!err)
			pthread_setname_np(thread[started++], "hf-load");
	}
	if (started)
		err = 0; /* fewer threads are enough */
	while (!err && (o = next_object(l, &c, &err))) {
		err = check_commit(l, c, o);
		if (!err)
			err = hand_out(l, o);
		hist_object_release(o);
		free(o);
	}
	pthread_mutex_lock(&l->lock);
	l->stop = true;
	pthread_cond_broadcast(&l->cond);
	pthread_mutex_unlock(&l->lock);
	while (started)
		pthread_join(thread[--started], NULL);
	return err;
}

static int place_nodes(struct load *l)
{
	struct volume *v = l->v;
	size_t cnt = volume_nodes(v);

	l->place = calloc(HF_MAX(cnt, (size_t)1), sizeof *l->place);
	if (!l->place)
		return -ENOMEM;
	/* As volume_place does. */
	for (size_t i = 0; i < cnt; i++) {
		if (node_member(v->node[i]) != NODE_MEMBER)
			continue;
		l->place[l->place_cnt++] =
			(struct place_node){.node = node_number(v->node[i]),
					    .weight = 1,
					    .domain = node_domain(v->node[i]),
					    .usable = true};
	}
	return 0;
}

/* What was there before is kept where the base is the caller's own. */
static int begin_state(struct load *l, const struct hist_state *st,
		       const struct hist_object *snap)
{
	if (snap || !st->seen_cnt) {
		l->out.snap = snap ? snap->head.seq : 0;
		l->out.snap_device = snap ? snap->head.device : 0;
		return 0;
	}
	l->out.lamport = st->lamport;
	l->out.time_ns = st->time_ns;
	l->out.snap = st->snap;
	l->out.snap_device = st->snap_device;
	struct hist_object old = {.part = st->parts, .part_cnt = st->part_cnt};
	return keep_parts(l, &old);
}

static int end_state(struct load *l)
{
	l->out.answered = l->answered;
	l->out.seen = calloc(HF_MAX(l->chain_cnt, (size_t)1), sizeof *l->out.seen);
	if (!l->out.seen)
		return -ENOMEM;
	for (size_t i = 0; i < l->chain_cnt; i++) {
		const struct chain *c = &l->chain[i];
		if (!c->end)
			continue;
		struct hist_seen *s = &l->out.seen[l->out.seen_cnt++];
		s->device = c->device;
		s->seq = c->end;
		memcpy(s->hash, c->last_hash, HASH_LEN);
	}
	return 0;
}

int history_load(struct volume *v, const struct hist_device *dev, size_t dev_cnt,
		 const struct hist_seen *floor, size_t floor_cnt, struct hist_state *st,
		 const struct hist_cb *cb, void *arg)
{
	struct load l = {.v = v,
			 .dev = dev,
			 .dev_cnt = dev_cnt,
			 .floor = floor,
			 .floor_cnt = floor_cnt,
			 .cb = cb,
			 .arg = arg};
	const struct hist_object *snap = NULL;

	pthread_mutex_init(&l.lock, NULL);
	pthread_cond_init(&l.cond, NULL);
	int err = place_nodes(&l);
	if (!err)
		err = load_list(&l);
	if (!err)
		err = load_snapshots(&l);
	if (!err)
		err = load_caps(&l, st);
	if (!err)
		err = load_choose_base(&l, st, &snap);
	if (!err)
		err = load_check_floor(&l);
	if (!err)
		err = begin_state(&l, st, snap);
	if (!err && snap)
		err = hand_out(&l, snap);
	if (!err)
		err = hand_out_all(&l);
	/* Once more: a commit may have been left out. */
	if (!err)
		err = load_check_floor(&l);
	if (!err)
		err = end_state(&l);
	if (!err) {
		hist_state_release(st);
		*st = l.out;
		l.out = (struct hist_state){0};
	}
	hist_state_release(&l.out);
	load_chains_free(&l);
	for (size_t i = 0; i < l.snap_cnt; i++)
		hist_object_release(&l.snap[i]);
	free(l.snap);
	free(l.cap);
	free(l.name);
	free(l.place);
	pthread_cond_destroy(&l.cond);
	pthread_mutex_destroy(&l.lock);
	return err;
}
