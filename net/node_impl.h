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

#define NODE_DEADLINE_MS 60000

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
	/* Adds what it counted to out; may be NULL. */
	void (*info)(struct node *n, struct node_info *out);
	/*
	 * n->creds and all that was made of it are of c from now on, a reference is kept; the
	 * old one's is dropped when no thread looks at it any more.  0 or -ENOMEM, nothing has
	 * changed then.  NULL: the kind needs none.  One call at a time.
	 */
	int (*login)(struct node *n, struct creds *c);
	/* Nothing is pending: ends the threads that can be ended. */
	void (*stop)(struct node *n);
	void (*free)(struct node *n);
};
extern const struct node_kind node_dir_kind, node_s3_kind, node_dav_kind;

struct node {
	const struct node_kind *kind;
	struct node_url url;
	struct creds *creds; /* may be NULL */
	char name[64];
	uint16_t number;
	uint32_t domain;
	_Atomic int member; /* enum node_member; 0 is a member */
	_Atomic int ref;
	_Atomic uint64_t told; /* bytes of ranges that came, as they come */
	_Atomic bool accepted; /* the marker was right, and the place is still that place */
	void *impl;

	pthread_mutex_t lock;
	pthread_cond_t idle;
	unsigned pending; /* ios whose done has not returned; guarded by lock */
	bool closing;
	struct health health;
	int64_t since_ns;
	int64_t gone_ms;  /* when it last stopped serving reads; 0: not since it was opened */
	int64_t shown_ms; /* when the latest verification began that found the marker */
	char error[256];
	bool once_late; /* that is what error says, until the next answer in time */
	int64_t ok_ns;
	uint64_t free_bytes, total_bytes, medium;
	void (*change)(struct node *n, void *arg);
	void *change_arg;
};

/* When an io ends at the latest; from when it was submitted on, on any thread. */
static inline int64_t node_io_deadline(const struct node_io *io)
{
	return io->deadline_ms ? HF_MAX(io->deadline_ms, (int64_t)1)
			       : io->start_ms + NODE_DEADLINE_MS;
}

void node_ref(struct node *n);
void node_unref(struct node *n);
void node_io_ref(struct node_io *io);
/* The answer.  list (may be NULL) is taken over or released.  True when it came in time. */
bool node_io_finish(struct node_io *io, int err, size_t got, struct buf *list);
/* The same with a sentence for err, or NULL. */
bool node_io_finish_why(struct node_io *io, int err, size_t got, struct buf *list,
			const char *why);
/* One transfer of len bytes had its first byte after first_ms and took ms more. */
void node_measure(struct node *n, bool up, int64_t first_ms, size_t len, int64_t ms);
/* Nothing reads the memory of io's iov any more.  Once for each io. */
void node_io_let_go(struct node_io *io);
/* The same, and drops the kind's reference. */
void node_io_ended(struct node_io *io);
/* From start alone: ends an io that cannot be begun, on another thread. */
void node_io_fail_soon(struct node_io *io, int err);
/* Nobody waits for it (node_wait_leave); *late: that it is late has been said. */
bool node_io_left(const struct node_io *io, bool *late);
/* What an answer says about the node: its health, its last error. */
void node_account(struct node *n, const struct node_io *io);
/* The timer thread runs while there is an open node. */
int node_timer_get(void);
void node_timer_put(void);
void node_timer_cancel_all(struct node *n);
void node_set_space(struct node *n, uint64_t free_bytes, uint64_t total_bytes,
		    uint64_t medium);

#endif
