/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * node_impl: what the kinds of node (node_dir.c) and node.c share.  Not for callers.
 *
 * A kind gets an io by `start` and owns it until node_io_ended.  It gives the answer with
 * node_io_finish, which does nothing when the deadline or a cancellation came first: so the
 * result goes in as arguments and is written into the io by the winner alone.  GET and
 * PROBE write io->buf directly; nobody reads it unless err is 0.
 *
 * Locks, in order: node.lock, then the kind's own, then the timer's.  `done`, `release` and
 * the change callback are called with none of them held.
 */
#ifndef HOLDFAST_NET_NODE_IMPL_H
#define HOLDFAST_NET_NODE_IMPL_H

#include "net/health.h"

struct node_kind {
	const char *name;
	int (*open)(struct node *n); /* n->url and n->creds are set */
	void (*start)(struct node *n, struct node_io *io);
	/*
	 * The caller has its answer; io may be anywhere or unknown.  If it was not begun the
	 * kind forgets it (node_io_ended).  If it was, the kind calls node_io_let_go as soon
	 * as nothing reads the memory of a PUT any more, at once if it can: a node that hangs
	 * must not hold the few buffers that publishing has.
	 */
	void (*give_up)(struct node *n, struct node_io *io);
	/* Nothing is pending: ends the threads that can be ended. */
	void (*stop)(struct node *n);
	void (*free)(struct node *n);
};
extern const struct node_kind node_dir_kind;

struct node {
	const struct node_kind *kind;
	struct node_url url;
	struct creds *creds; /* may be NULL */
	char name[64];
	uint16_t number;
	uint32_t domain;
	_Atomic int ref;
	_Atomic bool accepted; /* the marker was right, and the place is still that place */
	void *impl;

	pthread_mutex_t lock;
	pthread_cond_t idle;
	unsigned pending; /* ios whose done has not returned; guarded by lock */
	bool closing;
	struct health health;
	int64_t since_ns;
	char error[256];
	uint64_t free_bytes, total_bytes, medium;
	void (*change)(struct node *n, void *arg);
	void *change_arg;
};

void node_ref(struct node *n);
void node_unref(struct node *n);
void node_io_ref(struct node_io *io);
/* The answer.  list (may be NULL) is taken over or released.  True when it came in time. */
bool node_io_finish(struct node_io *io, int err, size_t got, struct buf *list);
/* Nothing reads the memory of io's iov any more.  Once for each io. */
void node_io_let_go(struct node_io *io);
/* The same, and drops the kind's reference. */
void node_io_ended(struct node_io *io);
/* What an answer says about the node: its health, its last error. */
void node_account(struct node *n, const struct node_io *io);
/* The timer thread runs while there is an open node. */
int node_timer_get(void);
void node_timer_put(void);
void node_timer_cancel_all(struct node *n);
void node_set_space(struct node *n, uint64_t free_bytes, uint64_t total_bytes,
		    uint64_t medium);

#endif
