/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "net/spread.h"

#include <stdlib.h>

#define PUT_MS	     60000
#define GRACE_MIN_MS 1000
#define GRACE_TIMES  3
#define LOOK_MS	     1000

/*
 * One stripe on its way.  A shard whose node failed is offered to one that holds no shard of
 * this segment yet, as long as there is any.
 */
struct spread {
	struct volume *v;
	struct stripe *stripe;
	struct node_wait wait;
	struct node_io *io[EC_MAX]; /* ours until node_wait returns it: only to cancel */
	uint16_t target[EC_MAX], stored[EC_MAX];
	uint16_t tried[EC_MAX]; /* the last target */
	bool *skip; /* by index of node, node_cap of them: it failed here */
	unsigned stored_cnt, pending, need;
	int64_t start_ms, quorum_ms;
};

static void stripe_released(struct node_io *io)
{
	stripe_unref(io->priv_arg);
}

static int submit(struct spread *sp, unsigned shard, uint16_t number)
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
	io->release = stripe_released;
	io->priv_arg = sp->stripe;
	io->tag = shard;
	stripe_ref(sp->stripe);
	sp->io[shard] = io;
	sp->target[shard] = sp->tried[shard] = number;
	sp->pending++;
	node_wait_submit(&sp->wait, n, io);
	return 0;
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
	sp->start_ms = now_ms();
	stripe_ref(s);
	node_wait_init(&sp->wait);
	for (unsigned i = 0; i < EC_MAX; i++)
		sp->stored[i] = sp->target[i] = sp->tried[i] = (uint16_t)NODE_NONE;
	int placed = volume_place(v, &s->geom.id, NULL, place);
	err = placed < 0 ? placed : 0;
	sp->need = HF_MAX(v->k, HF_MIN(v->shard_quorum, (unsigned)HF_MAX(placed, 0)));
	for (unsigned i = 0; i < v->k + v->m && !err; i++)
		if (place[i] != NODE_NONE)
			err = submit(sp, i, place[i]);
	if (err) {
		node_wait_release(&sp->wait);
		stripe_unref(s);
		free(sp->skip);
		free(sp);
		return err;
	}
	*out = sp;
	return 0;
}

/* The node of this shard failed: offer it to another one that has none of this segment. */
static void elsewhere(struct spread *sp, unsigned shard)
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
		submit(sp, shard, number);
}

static void collect(struct spread *sp, struct node_io *io)
{
	unsigned shard = io->tag;

	sp->pending--;
	sp->io[shard] = NULL;
	if (!io->err) {
		sp->stored[shard] = sp->target[shard];
		if (++sp->stored_cnt == sp->need)
			sp->quorum_ms = io->end_ms;
	} else {
		elsewhere(sp, shard);
	}
	node_io_unref(io);
}

/*
 * Nodes that were found to be down since this began are away like those that were before:
 * what is needed is what all the others can take, and at least K.
 */
static unsigned needed(struct spread *sp)
{
	unsigned able = sp->stored_cnt;

	for (unsigned i = 0; i < sp->v->k + sp->v->m; i++) {
		struct node *n = sp->stored[i] == NODE_NONE ? volume_node(sp->v, sp->tried[i])
							    : NULL;
		able += n && node_usable(n);
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
	bool hope = false;
	for (unsigned i = 0; i < sp->v->k + sp->v->m && !hope; i++) {
		struct node *n = sp->io[i] ? volume_node(sp->v, sp->target[i]) : NULL;
		hope = n && node_usable(n);
	}
	if (!hope)
		return 0;
	return sp->quorum_ms +
	       HF_MAX((int64_t)GRACE_MIN_MS, GRACE_TIMES * (sp->quorum_ms - sp->start_ms));
}

bool spread_ready(struct spread *sp)
{
	struct node_io *io;

	while (sp->pending && (io = node_wait_next(&sp->wait, 0)))
		collect(sp, io);
	return until(sp) <= now_ms();
}

int spread_finish(struct spread *sp, struct seg_place *out)
{
	int64_t end;

	while ((end = until(sp)) > now_ms()) {
		struct node_io *io = node_wait_next(&sp->wait, end);
		if (io)
			collect(sp, io);
	}
	/* What came in the same moment still counts; the rest is given up. */
	spread_ready(sp);
	node_wait_release(&sp->wait);
	out->geom = sp->stripe->geom;
	memcpy(out->node, sp->stored, sizeof out->node);
	unsigned need = needed(sp);
	int err = sp->stored_cnt >= need ? 0 : -EAGAIN;
	if (err)
		log_warn("a segment reached %u nodes of the %u it needs", sp->stored_cnt, need);
	stripe_unref(sp->stripe);
	free(sp->skip);
	free(sp);
	return err;
}

/* --- whole blobs --- */

/* A shared copy of the bytes, because PUTs may outlive the call. */
struct copy {
	_Atomic int ref;
	uint8_t p[];
};

static void copy_unref(struct copy *c)
{
	if (atomic_fetch_sub(&c->ref, 1) == 1)
		free(c);
}

static void copy_released(struct node_io *io)
{
	copy_unref(io->priv_arg);
}

int spread_blob(struct volume *v, const char *name, const void *p, size_t len, unsigned need,
		unsigned *copies)
{
	unsigned cnt = 0;
	struct node_wait w;
	int64_t start = now_ms(), end = start + PUT_MS;
	int err = 0;

	if (copies)
		*copies = 0;
	struct copy *c = malloc(sizeof *c + len);
	if (!c)
		return -ENOMEM;
	c->ref = 1;
	if (len)
		memcpy(c->p, p, len);
	node_wait_init(&w);
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
		io->release = copy_released;
		io->priv_arg = c;
		atomic_fetch_add(&c->ref, 1);
		node_wait_submit(&w, v->node[i], io);
	}
	while (w.pending) {
		struct node_io *io = node_wait_next(&w, end);
		if (!io)
			break;
		if (!io->err && ++cnt == need) {
			int64_t took = now_ms() - start;
			end = HF_MIN(end, now_ms() + HF_MAX((int64_t)GRACE_MIN_MS,
							    GRACE_TIMES * took));
		}
		node_io_unref(io);
	}
	node_wait_release(&w);
	copy_unref(c);
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
