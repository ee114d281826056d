/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Nodes in memory, with everything that may be wrong with one.  This defines node_dir_kind, so
 * the linker takes nothing of net/node_dir.c: an address "dir:/sim/N" is a node of the world.
 *
 * A request is two things.  What was sent (its name, its bytes) belongs to the world: once it
 * is on its way it is done or not, whatever becomes of who sent it.  The answer belongs to the
 * process.  Which condition the node is in when a request comes says what becomes of both.
 *
 * Checked at every PUT: a name has one content, for ever, on whatever node and whoever sends
 * it; the memory of a PUT does not change before the node layer has let it go.
 */
#include "sim.h"

#include <stdlib.h>
#include "net/node_impl.h"

struct blob {
	char name[BLOB_NAME_CAP];
	const uint8_t *p;
	size_t len;
	int64_t put_ns;	 /* when it came */
	int64_t gone_ns; /* deleted then; 0: it is there */
};

struct blobs {
	struct blob *b;
	size_t cnt, cap;
};

/* A PUT or a DEL on its way, or done. */
struct sent {
	struct sent *next;
	enum node_op op;
	char name[BLOB_NAME_CAP];
	const uint8_t *p;
	size_t len;
	int64_t at_ns;
};

struct sim_node {
	struct blobs now, copy; /* copy: as it was when node_keep_copy was called */
	bool has_copy;
	enum cond cond;
	int64_t since_ns;
	int down_err;
	struct sent *sent; /* by time */
	int64_t latency_ns;
	struct blobs first; /* every content that was ever sent under a name */
};

const char *const cond_name[ND_CONDS] = {"well",    "slow",  "hangs",	   "down",     "full",
					 "refuses", "fails", "loses acks", "corrupts", "stale"};

/* --- blobs --- */

static struct blob *find(const struct blobs *s, const char *name)
{
	for (size_t i = 0; i < s->cnt; i++)
		if (!strcmp(s->b[i].name, name))
			return &s->b[i];
	return NULL;
}

static struct blob *add(struct blobs *s, const char *name)
{
	if (s->cnt == s->cap) {
		size_t cap = s->cap ? 2 * s->cap : 64;
		struct blob *b = world_alloc(cap * sizeof *b);

		if (s->cnt)
			memcpy(b, s->b, s->cnt * sizeof *b);
		s->b = b;
		s->cap = cap;
	}
	struct blob *b = &s->b[s->cnt++];

	*b = (struct blob){0};
	snprintf(b->name, sizeof b->name, "%s", name);
	return b;
}

static void put(struct blobs *s, const char *name, const uint8_t *p, size_t len, int64_t at)
{
	struct blob *b = find(s, name);

	if (!b)
		b = add(s, name);
	else if (!b->gone_ns && b->len == len && !memcmp(b->p, p, len))
		return; /* it is there, as old as it is */
	b->p = p;
	b->len = len;
	b->put_ns = at;
	b->gone_ns = 0;
}

static uint64_t hash_bytes(const void *p, size_t len)
{
	const uint8_t *c = p;
	uint64_t h = 0xcbf29ce484222325u ^ len, x;

	for (; len >= 8; len -= 8, c += 8) {
		memcpy(&x, c, 8);
		h = (h ^ x) * 0x9e3779b97f4a7c15u;
		h ^= h >> 29;
	}
	for (; len; len--)
		h = (h ^ *c++) * 0x100000001b3u;
	return h;
}

/* --- what is on its way --- */

static void arrive(struct sim_node *n)
{
	while (n->sent && n->sent->at_ns <= w->now_ns) {
		struct sent *s = n->sent;
		struct blob *b;

		n->sent = s->next;
		if (s->op == NODE_PUT)
			put(&n->now, s->name, s->p, s->len, s->at_ns);
		else if ((b = find(&n->now, s->name)) && !b->gone_ns)
			b->gone_ns = s->at_ns;
		trace(hash_bytes(s->name, strlen(s->name)) + s->op);
	}
}

static void send(struct sim_node *n, enum node_op op, const char *name, const uint8_t *p,
		 size_t len, int64_t at)
{
	struct sent *s = world_alloc(sizeof *s), **to = &n->sent;

	*s = (struct sent){.op = op, .p = p, .len = len, .at_ns = at};
	snprintf(s->name, sizeof s->name, "%s", name);
	while (*to && (*to)->at_ns <= at)
		to = &(*to)->next;
	s->next = *to;
	*to = s;
}

/* The bytes of a PUT, the world's from now on; the same name always has the same. */
static const uint8_t *copy_of(unsigned i, struct sim_node *n, const struct node_io *io,
			      size_t *len)
{
	*len = 0;
	for (unsigned v = 0; v < io->iov_cnt; v++)
		*len += io->iov[v].iov_len;
	struct blob *was = find(&n->first, io->name);
	uint8_t *p = world_alloc(*len), *at = p;
	for (unsigned v = 0; v < io->iov_cnt; v++) {
		memcpy(at, io->iov[v].iov_base, io->iov[v].iov_len);
		at += io->iov[v].iov_len;
	}
	if (was && (was->len != *len || memcmp(was->p, p, *len) != 0))
		sim_fail("node %u is sent another content under the name %s: %zu bytes, before "
			 "%zu",
			 i + 1, io->name, *len, was->len);
	if (!was) {
		was = add(&n->first, io->name);
		was->p = p;
		was->len = *len;
	}
	return was->p;
}

/* --- harm --- */

void nodes_init(void)
{
	w->node = world_alloc(SIM_NODES * sizeof *w->node);
	for (unsigned i = 0; i < w->nodes; i++)
		w->node[i].latency_ns = (1 + (int64_t)rnd_below(RND_NODE, 60)) * MS;
}

void nodes_url(unsigned i, char out[64])
{
	snprintf(out, 64, "dir:/sim/%u", i + 1);
}

static void keep(const struct blobs *from, struct blobs *to)
{
	*to = (struct blobs){world_alloc((from->cnt + 1) * sizeof *to->b), from->cnt,
			     from->cnt + 1};
	if (from->cnt)
		memcpy(to->b, from->b, from->cnt * sizeof *to->b);
}

void node_condition(unsigned i, enum cond c)
{
	struct sim_node *n = &w->node[i];

	arrive(n);
	n->cond = c;
	n->since_ns = w->now_ns;
	n->down_err = chance(RND_NODE, 2) ? -ENODEV : -EIO;
	if (c == ND_STALE) {
		keep(&n->now, &n->copy);
		n->has_copy = false; /* that copy is this condition's */
	}
}

enum cond node_condition_of(unsigned i)
{
	return w->node[i].cond;
}

/* Of the last seconds, anything may not have been on the disk; what was deleted may be back. */
void node_crash(unsigned i)
{
	struct sim_node *n = &w->node[i];
	int64_t since;

	arrive(n);
	since = w->now_ns - (int64_t)rnd_below(RND_NODE, 30) * SEC;
	for (size_t j = 0; j < n->now.cnt; j++) {
		struct blob *b = &n->now.b[j];

		if (!strcmp(b->name, NODE_MARKER))
			continue;
		if (b->gone_ns > since && chance(RND_NODE, 2))
			b->gone_ns = 0;
		if (!b->gone_ns && b->put_ns > since && chance(RND_NODE, 2))
			b->gone_ns = w->now_ns;
	}
}

void node_keep_copy(unsigned i)
{
	arrive(&w->node[i]);
	keep(&w->node[i].now, &w->node[i].copy);
	w->node[i].has_copy = true;
}

bool node_roll_back(unsigned i)
{
	struct sim_node *n = &w->node[i];

	if (!n->has_copy)
		return false;
	arrive(n);
	keep(&n->copy, &n->now);
	return true;
}

/* Bits flip at rest, files are cut short; but for the marker, without which it is no node. */
unsigned node_rot(unsigned i)
{
	struct sim_node *n = &w->node[i];
	unsigned done = 0;

	for (unsigned t = 0; n->now.cnt && t < 1 + rnd_below(RND_NODE, 6); t++) {
		struct blob *b = &n->now.b[rnd_below(RND_NODE, n->now.cnt)];

		if (b->gone_ns || !b->len || !strcmp(b->name, NODE_MARKER))
			continue;
		uint8_t *p = world_alloc(b->len);
		memcpy(p, b->p, b->len);
		if (chance(RND_NODE, 4))
			b->len = rnd_below(RND_NODE, b->len);
		else
			p[rnd_below(RND_NODE, b->len)] ^=
				(uint8_t)(1 + rnd_below(RND_NODE, 255));
		b->p = p;
		done++;
	}
	return done;
}

unsigned node_lose(unsigned i)
{
	struct sim_node *n = &w->node[i];
	unsigned done = 0, one_in = 1 + (unsigned)rnd_below(RND_NODE, 4);

	arrive(n);
	for (size_t j = 0; j < n->now.cnt; j++) {
		struct blob *b = &n->now.b[j];

		if (b->gone_ns || !strcmp(b->name, NODE_MARKER) || !chance(RND_NODE, one_in))
			continue;
		b->gone_ns = w->now_ns;
		done++;
	}
	return done;
}

/* --- the kind --- */

struct ev {
	struct ev *next;
	struct node_io *io;
	int64_t at_ns; /* of the answer; INT64_MAX: none comes */
	int err;
	bool let_go, corrupt;
	enum cond cond;
	uint64_t hash; /* of the memory of a PUT */
};

struct line {
	unsigned i;
	struct ev *head; /* by time */
	struct ev *in;	 /* being answered */
	pthread_t thread;
	bool stop;
};

static uint64_t hash_iov(const struct node_io *io)
{
	uint64_t h = 0;

	for (unsigned v = 0; v < io->iov_cnt; v++)
		h = h * 31 + hash_bytes(io->iov[v].iov_base, io->iov[v].iov_len);
	return h;
}

/* What the node shows: its blobs, or a stale view of them. */
static const struct blobs *view_of(const struct sim_node *n, const struct ev *e)
{
	return e->cond == ND_STALE && n->cond == ND_STALE ? &n->copy : &n->now;
}

static int read_blob(const struct sim_node *n, const struct ev *e, size_t *got)
{
	struct node_io *io = e->io;
	const struct blob *b = find(view_of(n, e), io->name);

	if (!b || b->gone_ns)
		return -ENOENT;
	if (io->off < b->len) {
		*got = HF_MIN(io->len, b->len - io->off);
		memcpy(io->buf, b->p + io->off, *got);
	}
	if (e->corrupt && *got) {
		if (chance(RND_NODE, 4))
			*got = rnd_below(RND_NODE, *got);
		else
			io->buf[rnd_below(RND_NODE, *got)] ^=
				(uint8_t)(1 + rnd_below(RND_NODE, 255));
	}
	return 0;
}

static void answer(struct node *node, struct line *l, struct ev *e)
{
	struct sim_node *n = &w->node[l->i];
	struct node_io *io = e->io;
	struct buf list = {0};
	size_t got = 0;
	int err = e->err;

	arrive(n);
	if (!io->fired && !err) {
		switch (io->op) {
		case NODE_GET:
		case NODE_PROBE:
			err = read_blob(n, e, &got);
			break;
		case NODE_LIST: {
			const struct blobs *v = view_of(n, e);

			for (size_t j = 0; j < v->cnt; j++)
				if (!v->b[j].gone_ns &&
				    !strncmp(v->b[j].name, io->name, strlen(io->name)))
					buf_put(&list, v->b[j].name, strlen(v->b[j].name) + 1);
			break;
		}
		case NODE_PUT:
			if (!e->let_go && hash_iov(io) != e->hash)
				sim_fail("the memory of a PUT of %s changed under way",
					 io->name);
			break;
		default:
			break;
		}
		if (io->op == NODE_PROBE)
			node_set_space(node, (uint64_t)1 << 38, (uint64_t)1 << 39, 0);
	}
	trace((uint64_t)(unsigned)err << 32 ^ got ^ hash_bytes(io->name, strlen(io->name)));
	node_io_finish(io, err, got, &list);
	if (!e->let_go)
		node_io_let_go(io);
	node_io_unref(io);
}

static void *line_main(void *arg)
{
	struct node *node = arg;
	struct line *l = node->impl;

	while (!l->stop) {
		struct ev *e = l->head;

		if (!e || e->at_ns > w->now_ns) {
			sched_block(l, e ? e->at_ns : INT64_MAX);
			continue;
		}
		l->head = e->next;
		l->in = e;
		answer(node, l, e);
		l->in = NULL;
		free(e);
		sched_point();
	}
	return NULL;
}

static void sim_start(struct node *node, struct node_io *io)
{
	struct line *l = node->impl;
	struct sim_node *n = &w->node[l->i];
	struct ev *e = calloc(1, sizeof *e), **to = &l->head;
	int64_t lat = n->latency_ns + (int64_t)rnd_below(RND_NODE, (uint64_t)n->latency_ns);
	const uint8_t *p = NULL;
	size_t len = 0;
	bool does = true; /* a PUT or DEL gets there */

	if (!e)
		sim_fail("out of memory");
	if (io->fired) {
		free(e);
		node_io_ended(io);
		return;
	}
	arrive(n);
	*e = (struct ev){.io = io,
			 .cond = (w->oracle && n->cond != ND_DOWN) || w->calm ? ND_WELL
									      : n->cond};
	if (chance(RND_NODE, 300))
		lat += (int64_t)rnd_below(RND_NODE, 3000) * MS;
	if (io->op == NODE_PUT) {
		p = copy_of(l->i, n, io, &len);
		e->hash = hash_iov(io);
	}
	int64_t done = w->now_ns + lat / 2, back = w->now_ns + lat;

	switch (e->cond) {
	case ND_SLOW:
		back = w->now_ns + lat * (20 + (int64_t)rnd_below(RND_NODE, 60));
		done = w->now_ns + (back - w->now_ns) / 2;
		break;
	case ND_HANG:
		back = INT64_MAX;
		done = w->now_ns + (int64_t)rnd_below(RND_NODE, 40000) * MS;
		does = chance(RND_NODE, 2);
		break;
	case ND_DOWN:
		back = w->now_ns + MS;
		e->err = n->down_err;
		does = false;
		break;
	case ND_FULL:
		if (io->op == NODE_PUT)
			e->err = -ENOSPC;
		does = io->op != NODE_PUT;
		break;
	case ND_REFUSE:
		e->err = -EACCES;
		does = false;
		break;
	case ND_ERROR:
		if (chance(RND_NODE, 2)) {
			e->err = -EIO;
			does = chance(RND_NODE, 2);
		}
		break;
	case ND_LOST_ACK:
		if (io->op == NODE_PUT || io->op == NODE_DEL)
			e->err = -EIO;
		break;
	case ND_CORRUPT:
		e->corrupt = io->op == NODE_GET && chance(RND_NODE, 2);
		break;
	default:
		break;
	}
	if (does && !w->oracle && (io->op == NODE_PUT || io->op == NODE_DEL))
		send(n, io->op, io->name, p, len, done);
	if (w->verbose)
		sim_log("node %u %s: %s %s %zu+%zu", l->i + 1, cond_name[e->cond],
			(const char *const[]){"PUT", "GET", "DEL", "LIST", "PROBE"}[io->op],
			io->name, (size_t)io->off, io->op == NODE_PUT ? len : io->len);
	trace(hash_bytes(io->name, strlen(io->name)) ^ (uint64_t)back);
	e->at_ns = back;
	while (*to && (*to)->at_ns <= back)
		to = &(*to)->next;
	e->next = *to;
	*to = e;
	sched_wake(l);
	sched_point();
}

static void sim_give_up(struct node *node, struct node_io *io)
{
	struct line *l = node->impl;

	for (struct ev **e = &l->head; *e; e = &(*e)->next)
		if ((*e)->io == io) {
			struct ev *gone = *e;

			*e = gone->next;
			free(gone);
			node_io_ended(io);
			return;
		}
	if (l->in && l->in->io == io && !l->in->let_go) {
		l->in->let_go = true;
		node_io_let_go(io);
	}
}

static int sim_open(struct node *node)
{
	struct line *l = calloc(1, sizeof *l);
	char name[16];

	if (!l)
		return -ENOMEM;
	l->i = node->number - 1u;
	node->impl = l;
	pthread_create(&l->thread, NULL, line_main, node);
	snprintf(name, sizeof name, "node-%u", node->number);
	pthread_setname_np(l->thread, name);
	return 0;
}

static void sim_stop(struct node *node)
{
	struct line *l = node->impl;

	l->stop = true;
	sched_wake(l);
	pthread_join(l->thread, NULL);
	if (l->head)
		sim_fail("node %u is closed with requests in its line", l->i + 1);
}

static void sim_free(struct node *node)
{
	free(node->impl);
}

const struct node_kind node_dir_kind = {
	.name = "sim",
	.open = sim_open,
	.start = sim_start,
	.give_up = sim_give_up,
	.stop = sim_stop,
	.free = sim_free,
};
