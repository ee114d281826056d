/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * node_net: what nodes behind a server share: the way of a node_io to the network's thread
 * and back.  Not for callers of nodes.
 *
 * A call is one node_io under way; it makes requests (struct net_req) until it ends.  All of
 * it happens on the network's thread, but two things: start, on the thread of who submits,
 * and give_up, on any.  Those two and the end meet at net_node.lock, which guards io->priv
 * and the marks of the call; mem, innermost, is held while the memory of a PUT is read.
 */
#ifndef HOLDFAST_NET_NODE_NET_H
#define HOLDFAST_NET_NODE_NET_H

#include "net/http.h"
#include "net/listing.h"
#include "net/node_impl.h"

struct net_call;

struct net_ops {
	/* On the thread of who submits, before begin; may be NULL.  0 or -errno. */
	int (*ready)(struct net_call *c);
	/* Makes the first request, or ends the call. */
	void (*begin)(struct net_call *c);
	/* Adds what each request of this kind of node needs; may be NULL. */
	int (*prepare)(struct http_req *r);
};

struct net_node {
	struct node *node;
	const struct net_ops *ops;
	struct http_host *host;
	pthread_mutex_t lock;
	void *kind; /* of node_s3 or node_dav */
};

struct net_req {
	struct http_req http; /* first: the engine gives back this */
	struct net_call *call;
	void (*done)(struct net_req *r);
	struct listing *listing; /* the sink, when it is there */
	struct buf list;	 /* names that came */
	const char *body;	 /* sent instead of the memory of the io; lives for ever */
	unsigned tag;
	struct net_req *prev, *next;
};

struct net_call {
	struct http_task begin_task, abort_task;
	struct net_node *nn;
	struct node_io *io;
	struct net_req *reqs; /* under way */
	size_t body_len;      /* of the io */
	char hash[65];	      /* of the body, where it is signed; "" not known */
	struct buf list;
	unsigned step, asked; /* the kind's own */
	uint64_t flags;
	/* Guarded by nn->lock: */
	bool let_go, abort_queued, ended;
	pthread_mutex_t mem;
	bool gone; /* the memory of the PUT is not ours any more; guarded by mem */
};

/* h: what the host is made of.  Makes n->impl; kind is freed by the kind's own free. */
int net_open(struct node *n, const struct net_ops *ops, const struct http_host_opts *h,
	     void *kind);
/* What a kind's login hands to the net thread. */
struct net_login {
	struct node *node;
	struct creds *creds;
};
void net_start(struct node *n, struct node_io *io);
void net_give_up(struct node *n, struct node_io *io);
void net_info(struct node *n, struct node_info *out);
void net_stop(struct node *n);
void net_free(struct node *n);

/* path is taken over, also on error; NULL allowed (no memory).  NULL: the call was ended. */
struct net_req *net_req_new(struct net_call *c, enum http_kind kind, const char *method,
			    char *path, void (*done)(struct net_req *r));
/* done is called with the result; the request is freed after that. */
void net_req_start(struct net_req *r);
/* Frees one that was not started. */
void net_req_drop(struct net_req *r);
/* The range of a blob that the io wants, into its buffer. */
void net_req_range(struct net_req *r);
/* The body of an answer goes into a listing, whose entries go to entry with arg = r. */
int net_req_listing(struct net_req *r, enum listing_kind kind,
		    int (*entry)(void *arg, const struct listing_entry *e));
/* The answer; why may be NULL.  Requests that are still under way are aborted. */
void net_call_end(struct net_call *c, int err, size_t got, const char *why);

/* [a-z0-9] and one slash after one letter, as all names of blobs. */
bool net_good_name(const char *name);
/* Adds dir/leaf to r->list when that is a name with the prefix that the LIST asks for. */
int net_list_add(struct net_req *r, char dir, const char *leaf);

#endif
