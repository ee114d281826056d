/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "net/spread.h"

#include <pthread.h>
#include <stdlib.h>
#include "net/cond.h"
#include "net/gather.h"
#include "net/paces.h"

#define PUT_MS	  60000
#define LOOK_MS	  1000
#define TAILS_MAX 2	 /* left stripes on their way: each holds memory of the pool */
#define KEEP_MS	  120000 /* how long what became of a left stripe is kept for who asks */

/*
 * One stripe on its way.  A shard whose node failed is offered to one that holds no shard of
 * this segment yet, as long as there is any.
 *
 * Whoever started it holds a reference, and each request under way one.  When the stripe is
 * stored and some shards are still on their way it is left: it belongs to the volume's tails
 * then, until what became of it was collected.
 */
struct spread {
	struct volume *v;
	struct stripe *stripe; /* NULL once left */
	struct seg_id id;
	_Atomic int ref;
	struct spread *next; /* of the tails; guarded by v->lock */

	pthread_mutex_t lock; /* of all below; taken before any lock of a node */
	pthread_cond_t cond;  /* a request ended */
	struct node_io *io[EC_MAX];
	uint16_t target[EC_MAX], stored[EC_MAX];
	uint16_t tried[EC_MAX]; /* the last target */
	bool *skip; /* by index of node, node_cap of them: it failed here */
	unsigned stored_cnt, pending, need;
	int64_t start_ms, quorum_ms, left_ms;
	bool closed; /* left or given up: no shard is offered to others any more */
	bool left;
};

static int64_t grace_end(const struct spread *sp, bool laggards)
{
	return sp->quorum_ms + choose_grace_ms(sp->quorum_ms - sp->start_ms, laggards);
}

static void spread_unref(struct spread *sp)
{
	if (atomic_fetch_sub(&sp->ref, 1) != 1)
		return;
	if (sp->stripe)
		stripe_unref(sp->stripe);
	pthread_cond_destroy(&sp->cond);
	pthread_mutex_destroy(&sp->lock);
	free(sp->skip);
	free(sp);
}

static void stripe_released(struct node_io *io)
{
	stripe_unref(io->priv_arg);
}

static void put_done(struct node_io *io);

/* Under sp->lock: so the answer waits until sp->io says whose it is. */
static int submit_locked(struct spread *sp, unsigned shard, uint16_t number)
{
	struct node *n = volume_node(sp->v, number);
	char name[BLOB_NAME_CAP];
	struct node_io *io;

	keys_shard_name(sp->v->keys, &sp->stripe->geom.id, shard, number, name);
	io = node_io_new(NODE_PUT, name);
	if (!io)
		return -ENOMEM;
	stripe_shard(sp->stripe, shard, io->iov);
	io->iov_cnt = 2;
	io->deadline_ms = now_ms() + PUT_MS;
	io->done = put_done;
	io->arg = sp;
	io->release = stripe_released;
	io->priv_arg = sp->stripe;
	io->tag = shard;
	stripe_ref(sp->stripe);
	atomic_fetch_add(&sp->ref, 1);
	sp->io[shard] = io;
	sp->target[shard] = sp->tried[shard] = number;
	sp->pending++;
	node_submit(n, io);
	return 0;
}

/* Nothing more is started, and what is under way ends soon. */
static void give_up_locked(struct spread *sp)
{
	sp->closed = true;
	for (unsigned i = 0; i < EC_MAX; i++)
		if (sp->io[i])
			node_cancel(sp->io[i]);
}

int spread_start(struct spread **out, struct volume *v, struct stripe *s)
{
	uint16_t place[EC_MAX];
	int err = 0;

	*out = NULL;
	struct spread *sp = calloc(1, sizeof *sp);
	if (!sp)
		return -ENOMEM;
	sp->skip = calloc(v->node_cap, sizeof *sp->skip);
	if (!sp->skip) {
		free(sp);
		return -ENOMEM;
	}
	sp->v = v;
	sp->stripe = s;
	sp->id = s->geom.id;
	sp->ref = 1;
	sp->start_ms = now_ms();
	stripe_ref(s);
	pthread_mutex_init(&sp->lock, NULL);
	cond_init(&sp->cond);
	for (unsigned i = 0; i < EC_MAX; i++)
		sp->stored[i] = sp->target[i] = sp->tried[i] = (uint16_t)NODE_NONE;
	int placed = volume_place(v, &s->geom.id, NULL, place);
	err = placed < 0 ? placed : 0;
	sp->need = HF_MAX(v->k, HF_MIN(v->shard_quorum, (unsigned)HF_MAX(placed, 0)));
	pthread_mutex_lock(&sp->lock);
	for (unsigned i = 0; i < v->k + v->m && !err; i++)
		if (place[i] != NODE_NONE)
			err = submit_locked(sp, i, place[i]);
	if (err)
		give_up_locked(sp);
	pthread_mutex_unlock(&sp->lock);
	if (err) {
		spread_unref(sp);
		return err;
	}
	*out = sp;
	return 0;
}

/* The node of this shard failed: offer it to another one that has none of this segment. */
static void elsewhere_locked(struct spread *sp, unsigned shard)
{
	struct volume *v = sp->v;
	uint16_t place[EC_MAX];

	for (size_t i = 0, cnt = volume_nodes(v); i < cnt; i++)
		if (node_number(v->node[i]) == sp->target[shard])
			sp->skip[i] = true;
	sp->target[shard] = (uint16_t)NODE_NONE;
	if (volume_members(v) <= v->k + v->m || volume_place(v, &sp->stripe->geom.id, sp->skip, place) < 0)
		return;
	uint16_t number = place[shard];
	for (unsigned i = 0; i < v->k + v->m; i++)
		if (sp->target[i] == number)
			number = (uint16_t)NODE_NONE;
	/* Without memory the shard is missing, which the caller is told of. */
	if (number != NODE_NONE)
		submit_locked(sp, shard, number);
}

/* Called by the node layer, once for each request. */
static void put_done(struct node_io *io)
{
	struct spread *sp = io->arg;
	struct volume *v = sp->v;
	unsigned shard = io->tag;

	pthread_mutex_lock(&sp->lock);
	sp->pending--;
	sp->io[shard] = NULL;
	if (!io->err) {
		sp->stored[shard] = sp->target[shard];
		if (++sp->stored_cnt == sp->need)
			sp->quorum_ms = io->end_ms;
		if (!sp->left || io->end_ms <= grace_end(sp, false))
			paces_lag(gather_paces(v), io->node, false);
	} else if (!sp->closed) {
		elsewhere_locked(sp, shard);
	}
	bool told = sp->left && !sp->pending;
	pthread_cond_signal(&sp->cond);
	pthread_mutex_unlock(&sp->lock);
	node_io_unref(io);
	spread_unref(sp);
	if (!told)
		return;
	pthread_mutex_lock(&v->lock);
	v->tail_cnt--;
	void (*changed)(void *) = v->changed;
	void *changed_arg = v->changed_arg;
	pthread_mutex_unlock(&v->lock);
	if (changed)
		changed(changed_arg);
}

/*
 * Nodes that were found to be down since this began are away like those that were before,
 * and so are those that answer but fail write after write: what is needed is what all the
 * others can take, and at least K.
 */
static unsigned needed(struct spread *sp)
{
	unsigned able = sp->stored_cnt;

	for (unsigned i = 0; i < sp->v->k + sp->v->m; i++) {
		struct node *n = sp->stored[i] == NODE_NONE ? volume_node(sp->v, sp->tried[i])
							    : NULL;
		able += n && node_usable(n) && !node_doubted(n);
	}
	return HF_MAX(sp->v->k, HF_MIN(sp->need, able));
}

/* When waiting ends: 0 now, else a time.  Every request has a deadline of its own. */
static int64_t until(struct spread *sp)
{
	unsigned need = needed(sp);

	if (!sp->pending || sp->stored_cnt + sp->pending < need)
		return 0;
	/* Nobody tells of a node that goes down meanwhile: look again. */
	if (sp->stored_cnt < need)
		return now_ms() + LOOK_MS;
	if (!sp->quorum_ms)
		sp->quorum_ms = now_ms();
	bool hope = false, laggards = true;
	for (unsigned i = 0; i < sp->v->k + sp->v->m; i++) {
		struct node *n = sp->io[i] ? volume_node(sp->v, sp->target[i]) : NULL;
		if (!n || !node_usable(n))
			continue;
		hope = true;
		laggards = laggards && paces_lags(gather_paces(sp->v), n);
	}
	return hope ? grace_end(sp, laggards) : 0;
}

bool spread_ready(struct spread *sp)
{
	pthread_mutex_lock(&sp->lock);
	bool ready = until(sp) <= now_ms();
	pthread_mutex_unlock(&sp->lock);
	return ready;
}

/*
 * It is stored, and some are on their way still: they go on, as long as not too much memory
 * is on its way already; then this one, the latest, is given up.  Takes the reference.
 */
static void leave_locked(struct spread *sp)
{
	struct volume *v = sp->v;

	for (unsigned i = 0; i < EC_MAX; i++)
		if (sp->io[i])
			paces_lag(gather_paces(v), sp->io[i]->node, true);
	pthread_mutex_lock(&v->lock);
	bool room = v->tail_cnt < TAILS_MAX && !v->stopping;
	if (room) {
		v->tail_cnt++;
		sp->next = v->tails;
		v->tails = sp;
	}
	pthread_mutex_unlock(&v->lock);
	if (!room) {
		give_up_locked(sp);
		return;
	}
	sp->left = sp->closed = true;
	sp->left_ms = now_ms();
	/* The requests hold the stripe as long as they need it. */
	stripe_unref(sp->stripe);
	sp->stripe = NULL;
	atomic_fetch_add(&sp->ref, 1);
}

int spread_finish(struct spread *sp, struct seg_place *out)
{
	int64_t end;

	pthread_mutex_lock(&sp->lock);
	while ((end = until(sp)) > now_ms())
		cond_until(&sp->cond, &sp->lock, end);
	out->geom = sp->stripe->geom;
	memcpy(out->node, sp->stored, sizeof out->node);
	unsigned need = needed(sp), cnt = sp->stored_cnt;
	int err = cnt >= need ? 0 : -EAGAIN;
	if (!err && sp->pending)
		leave_locked(sp);
	else
		give_up_locked(sp);
	pthread_mutex_unlock(&sp->lock);
	if (err)
		log_warn("a segment reached %u nodes of the %u it needs", cnt, need);
	spread_unref(sp);
	return err;
}

/* --- what was left --- */

void spread_collect(struct volume *v,
		    int (*cb)(void *arg, const struct seg_id *id, const uint16_t node[EC_MAX]),
		    void *arg)
{
	struct spread *list, *sp, *keep = NULL;

	pthread_mutex_lock(&v->lock);
	list = v->tails;
	v->tails = NULL;
	pthread_mutex_unlock(&v->lock);
	while ((sp = list)) {
		list = sp->next;
		pthread_mutex_lock(&sp->lock);
		bool going = sp->pending > 0, old = now_ms() - sp->left_ms > KEEP_MS;
		pthread_mutex_unlock(&sp->lock);
		/* After its last request has ended nothing of it changes. */
		if (going || (cb(arg, &sp->id, sp->stored) == -EAGAIN && !old)) {
			sp->next = keep;
			keep = sp;
		} else {
			spread_unref(sp);
		}
	}
	pthread_mutex_lock(&v->lock);
	while ((sp = keep)) {
		keep = sp->next;
		sp->next = v->tails;
		v->tails = sp;
	}
	pthread_mutex_unlock(&v->lock);
}

bool spread_going(struct volume *v, const struct seg_id *id)
{
	bool going = false;

	pthread_mutex_lock(&v->lock);
	for (struct spread *sp = v->tails; sp && !going; sp = sp->next)
		going = memcmp(&sp->id, id, sizeof *id) == 0;
	pthread_mutex_unlock(&v->lock);
	return going;
}

void spread_forget(struct volume *v)
{
	struct spread *sp;

	while ((sp = v->tails)) {
		v->tails = sp->next;
		spread_unref(sp);
	}
}

/* --- whole blobs --- */

/*
 * The bytes and who has them, shared with PUTs that outlive the call: each holds two
 * references, one until it is answered and one until its node reads the bytes no more.
 */
struct copies {
	_Atomic int ref;
	struct paces *paces;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	unsigned cnt, pending, quick, need; /* quick: pending, of nodes that do not lag */
	int64_t start_ms, need_ms;
	bool left;
	uint8_t p[];
};

static void copies_unref(struct copies *c)
{
	if (atomic_fetch_sub(&c->ref, 1) != 1)
		return;
	pthread_cond_destroy(&c->cond);
	pthread_mutex_destroy(&c->lock);
	free(c);
}

static void copy_released(struct node_io *io)
{
	copies_unref(io->priv_arg);
}

static int64_t copies_grace_end(const struct copies *c, bool laggards)
{
	return c->need_ms + choose_grace_ms(c->need_ms - c->start_ms, laggards);
}

static void copy_done(struct node_io *io)
{
	struct copies *c = io->arg;
	bool lagged = io->tag;

	pthread_mutex_lock(&c->lock);
	c->pending--;
	c->quick -= !lagged;
	if (!io->err && ++c->cnt == c->need)
		c->need_ms = io->end_ms;
	if (!io->err && lagged &&
	    (!c->need_ms || io->end_ms <= copies_grace_end(c, false)))
		paces_lag(c->paces, io->node, false);
	if (c->left && !lagged)
		paces_lag(c->paces, io->node, true);
	pthread_cond_signal(&c->cond);
	pthread_mutex_unlock(&c->lock);
	node_io_unref(io);
	copies_unref(c);
}

int spread_blob(struct volume *v, const char *name, const void *p, size_t len, unsigned need,
		unsigned *copies)
{
	int64_t end = now_ms() + PUT_MS, stop;
	int err = 0;

	if (copies)
		*copies = 0;
	struct copies *c = calloc(1, sizeof *c + len);
	if (!c)
		return -ENOMEM;
	c->ref = 1;
	c->need = need;
	c->paces = gather_paces(v);
	c->start_ms = now_ms();
	pthread_mutex_init(&c->lock, NULL);
	cond_init(&c->cond);
	if (len)
		memcpy(c->p, p, len);
	for (size_t i = 0, all = volume_nodes(v); i < all; i++) {
		if (!node_writable(v->node[i]))
			continue;
		struct node_io *io = node_io_new(NODE_PUT, name);
		if (!io) {
			err = -ENOMEM;
			break;
		}
		io->iov[0] = (struct iovec){c->p, len};
		io->iov_cnt = 1;
		io->deadline_ms = end;
		io->done = copy_done;
		io->release = copy_released;
		io->arg = io->priv_arg = c;
		io->tag = paces_lags(c->paces, v->node[i]);
		atomic_fetch_add(&c->ref, 2);
		pthread_mutex_lock(&c->lock);
		c->pending++;
		c->quick += !io->tag;
		pthread_mutex_unlock(&c->lock);
		node_submit(v->node[i], io);
	}
	pthread_mutex_lock(&c->lock);
	while (c->pending) {
		stop = c->cnt >= need && c->need_ms ? copies_grace_end(c, !c->quick) : end;
		if (stop <= now_ms())
			break;
		cond_until(&c->cond, &c->lock, stop);
	}
	/* Those that are on their way go on: so much memory a log object is not. */
	c->left = true;
	unsigned cnt = c->cnt;
	pthread_mutex_unlock(&c->lock);
	copies_unref(c);
	if (copies)
		*copies = cnt;
	if (cnt >= need)
		return 0;
	return err ? err : -EAGAIN;
}

void spread_delete(struct volume *v, const char *name)
{
	int64_t end = now_ms() + PUT_MS;
	struct node_wait w;
	struct node_io *io;

	node_wait_init(&w);
	for (size_t i = 0, all = volume_nodes(v); i < all; i++) {
		/* A full node is one to delete from; others that take no writes are not. */
		enum node_state s = node_state(v->node[i]);
		if (s == NODE_DOWN || s == NODE_WRONG || s == NODE_REFUSING ||
		    node_member(v->node[i]) == NODE_GONE)
			continue;
		io = node_io_new(NODE_DEL, name);
		if (!io)
			break;
		io->deadline_ms = end;
		node_wait_submit(&w, v->node[i], io);
	}
	while (w.pending && (io = node_wait_next(&w, end))) {
		if (io->err && io->err != -ENOENT)
			log_debug("%s: DELETE %s: %s", node_name(io->node), name,
				  strerrordesc_np(-io->err));
		node_io_unref(io);
	}
	node_wait_release(&w);
}
