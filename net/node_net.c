/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "net/node_net.h"

#include <stdlib.h>

/* --- the io and the call --- */

static void call_free(struct net_call *c)
{
	pthread_mutex_destroy(&c->mem);
	buf_release(&c->list);
	free(c);
}

void net_call_end(struct net_call *c, int err, size_t got, const char *why)
{
	struct net_node *nn = c->nn;
	struct node_io *io = c->io;

	/* Those of a call that ended say nothing any more. */
	c->ended = true;
	while (c->reqs)
		http_abort(&c->reqs->http);
	if (!err && io->op == NODE_LIST && c->list.err)
		err = c->list.err;
	pthread_mutex_lock(&nn->lock);
	io->priv = NULL;
	bool let_go = c->let_go, aborting = c->abort_queued;
	pthread_mutex_unlock(&nn->lock);
	node_io_finish_why(io, err, got, &c->list, why);
	c->list = (struct buf){0};
	if (!let_go)
		node_io_let_go(io);
	node_io_unref(io);
	/* Else the task that aborts it comes and frees it. */
	if (!aborting)
		call_free(c);
}

static void run_begin(struct http_task *t)
{
	struct net_call *c = (struct net_call *)t;

	if (c->io->fired)
		net_call_end(c, -ECANCELED, 0, NULL);
	else
		c->nn->ops->begin(c);
}

static void run_abort(struct http_task *t)
{
	struct net_call *c =
		(struct net_call *)((char *)t - offsetof(struct net_call, abort_task));
	struct net_node *nn = c->nn;

	if (c->ended) {
		call_free(c);
		return;
	}
	pthread_mutex_lock(&nn->lock);
	c->abort_queued = false;
	pthread_mutex_unlock(&nn->lock);
	net_call_end(c, -ECANCELED, 0, NULL);
}

void net_start(struct node *n, struct node_io *io)
{
	struct net_node *nn = n->impl;
	struct net_call *c = calloc(1, sizeof *c);
	int err = c ? 0 : -ENOMEM;

	if (c) {
		c->nn = nn;
		c->io = io;
		c->begin_task.run = run_begin;
		c->abort_task.run = run_abort;
		pthread_mutex_init(&c->mem, NULL);
		for (unsigned i = 0; i < io->iov_cnt && io->op == NODE_PUT; i++)
			c->body_len += io->iov[i].iov_len;
		if (!net_good_name(io->name) && io->op != NODE_LIST)
			err = -EINVAL;
		else if (nn->ops->ready)
			err = nn->ops->ready(c);
	}
	if (err) {
		/* Like an answer, but from here: no lock of the caller's is taken by done. */
		if (c)
			call_free(c);
		node_io_fail_soon(io, err);
		return;
	}
	pthread_mutex_lock(&nn->lock);
	bool fired = io->fired;
	if (!fired) {
		io->priv = c;
		http_run(nn->host, &c->begin_task);
	}
	pthread_mutex_unlock(&nn->lock);
	if (fired) {
		call_free(c);
		node_io_ended(io);
	}
}

void net_give_up(struct node *n, struct node_io *io)
{
	struct net_node *nn = n->impl;
	bool ours = false;

	pthread_mutex_lock(&nn->lock);
	struct net_call *c = io->priv;
	if (c && !c->let_go) {
		ours = true;
		c->let_go = true;
		pthread_mutex_lock(&c->mem);
		c->gone = true;
		pthread_mutex_unlock(&c->mem);
		c->abort_queued = true;
		http_run(nn->host, &c->abort_task);
	}
	pthread_mutex_unlock(&nn->lock);
	if (ours)
		node_io_let_go(io);
}

/* --- requests --- */

static int source(struct http_req *h, uint64_t at, uint8_t *to, size_t len)
{
	struct net_req *r = (struct net_req *)h;
	struct net_call *c = r->call;
	int err = 0;

	if (r->body) {
		memcpy(to, r->body + at, len);
		return 0;
	}
	pthread_mutex_lock(&c->mem);
	if (c->gone)
		err = -ECANCELED;
	for (unsigned i = 0; !err && i < c->io->iov_cnt && len; i++) {
		const struct iovec *v = &c->io->iov[i];

		if (at >= v->iov_len) {
			at -= v->iov_len;
			continue;
		}
		size_t n = HF_MIN(len, v->iov_len - (size_t)at);
		memcpy(to, (const uint8_t *)v->iov_base + at, n);
		to += n;
		len -= n;
		at = 0;
	}
	pthread_mutex_unlock(&c->mem);
	return err;
}

static int sink(struct http_req *h, bool first, const uint8_t *p, size_t len)
{
	struct net_req *r = (struct net_req *)h;

	/* What came of an attempt that failed comes again. */
	if (first && listing_reset(r->listing))
		return -ENOMEM;
	if (first)
		buf_reset(&r->list);
	int err = listing_feed(r->listing, p, len);
	if (err)
		snprintf(h->why, sizeof h->why, "its listing cannot be read: %.120s",
			 listing_why(r->listing));
	return err == -EBADMSG ? -EIO : err;
}

static void req_free(struct net_req *r)
{
	listing_free(r->listing);
	buf_release(&r->list);
	free(r->http.path);
	free(r);
}

void net_req_drop(struct net_req *r)
{
	req_free(r);
}

static void on_done(struct http_req *h)
{
	struct net_req *r = (struct net_req *)h;
	struct net_call *c = r->call;

	*(r->prev ? &r->prev->next : &c->reqs) = r->next;
	if (r->next)
		r->next->prev = r->prev;
	if (!c->ended)
		r->done(r);
	req_free(r);
}

struct net_req *net_req_new(struct net_call *c, enum http_kind kind, const char *method,
			    char *path, void (*done)(struct net_req *r))
{
	struct net_req *r = path ? calloc(1, sizeof *r) : NULL;

	if (!r) {
		free(path);
		net_call_end(c, -ENOMEM, 0, NULL);
		return NULL;
	}
	r->call = c;
	r->done = done;
	r->http.host = c->nn->host;
	r->http.kind = kind;
	r->http.method = method;
	r->http.path = path;
	r->http.deadline_ms = node_io_deadline(c->io);
	r->http.done = on_done;
	r->http.prepare = c->nn->ops->prepare;
	r->http.source = source;
	return r;
}

void net_req_start(struct net_req *r)
{
	struct net_call *c = r->call;

	r->prev = NULL;
	r->next = c->reqs;
	if (c->reqs)
		c->reqs->prev = r;
	c->reqs = r;
	http_start(&r->http);
}

void net_req_range(struct net_req *r)
{
	struct node_io *io = r->call->io;

	r->http.ranged = true;
	r->http.off = io->off;
	r->http.len = io->len;
	r->http.into = io->buf;
	r->http.came = &io->came;
	r->http.told = &io->node->told;
}

int net_req_listing(struct net_req *r, enum listing_kind kind,
		    int (*entry)(void *arg, const struct listing_entry *e))
{
	r->http.sink = sink;
	return listing_new(&r->listing, kind, entry, r);
}

/* --- names --- */

static bool good_leaf(const char *s)
{
	size_t len = strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789");

	return len && !s[len] && len + 2 < BLOB_NAME_CAP;
}

bool net_good_name(const char *name)
{
	return name[0] >= 'a' && name[0] <= 'z' && name[1] == '/' && good_leaf(name + 2);
}

int net_list_add(struct net_req *r, char dir, const char *leaf)
{
	struct net_call *c = r->call;
	char name[BLOB_NAME_CAP];

	if (!good_leaf(leaf))
		return 0;
	int len = snprintf(name, sizeof name, "%c/%s", dir, leaf);
	if (!strncmp(name, c->io->name, strlen(c->io->name)))
		buf_put(&r->list, name, (size_t)len + 1);
	return r->list.err;
}

/* --- life --- */

int net_open(struct node *n, const struct net_ops *ops, const struct http_host_opts *h,
	     void *kind)
{
	struct net_node *nn = calloc(1, sizeof *nn);

	if (!nn)
		return -ENOMEM;
	pthread_mutex_init(&nn->lock, NULL);
	nn->node = n;
	nn->ops = ops;
	nn->kind = kind;
	n->impl = nn;
	return http_host_new(&nn->host, h);
}

void net_stop(struct node *n)
{
	struct net_node *nn = n->impl;

	http_host_free(nn->host);
	nn->host = NULL;
}

void net_free(struct node *n)
{
	struct net_node *nn = n->impl;

	if (!nn)
		return;
	pthread_mutex_destroy(&nn->lock);
	free(nn);
	n->impl = NULL;
}

void net_info(struct node *n, struct node_info *out)
{
	struct net_node *nn = n->impl;
	struct http_stats st;

	http_host_stats(nn->host, &st);
	out->put_cnt = st.requests[HTTP_PUT];
	out->get_cnt = st.requests[HTTP_GET];
	out->delete_cnt = st.requests[HTTP_DELETE];
	out->list_cnt = st.requests[HTTP_LIST];
	out->other_cnt = st.requests[HTTP_OTHER];
	out->retry_cnt = st.retries;
	out->up_bytes = st.up_bytes;
	out->down_bytes = st.down_bytes;
}
