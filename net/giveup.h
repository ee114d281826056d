/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * giveup: who waits for nodes on behalf of a program waits no longer than the program wants.
 *
 * A thread that serves a request names a struct giveup as its own (giveup_set).  What it then
 * waits for in this layer and the next (nodes, read-ahead, a publication) ends soon after
 * giveup_now was called on that struct, from any thread, with the error given there.  A
 * thread without one waits until its deadline; threads that work in the background have none.
 *
 * A wait is written so, without any lock held at the first and the last line:
 *
 *	giveup_begin(&lock, &cond);
 *	lock; while (!there && !giveup_over()) wait for cond; unlock
 *	giveup_end();
 *
 * Locks: giveup.lock before the lock that giveup_begin was told of.  So giveup_now is called
 * with none held that a wait may use.
 */
#ifndef HOLDFAST_NET_GIVEUP_H
#define HOLDFAST_NET_GIVEUP_H

#include <pthread.h>
#include <stdatomic.h>
#include "net/base.h"

struct giveup {
	pthread_mutex_t lock;
	pthread_mutex_t *wait_lock; /* of the wait under way, or NULL; guarded by lock */
	pthread_cond_t *wait_cond;
	atomic_int err; /* why it is over, or 0 */
	/*
	 * Called by the thread itself, no lock held, before its first wait: most requests
	 * never wait, and need not be known to who might interrupt them.  May be NULL.
	 */
	void (*arm)(struct giveup *g);
	bool armed;
};

void giveup_init(struct giveup *g, void (*arm)(struct giveup *g));
/* Nobody may call giveup_now any more. */
void giveup_release(struct giveup *g);
/* g is this thread's from now on; NULL: none is. */
void giveup_set(struct giveup *g);
/* err: negative.  The first one stays.  Any thread. */
void giveup_now(struct giveup *g, int err);

/* 0, or why this thread should stop waiting. */
int giveup_over(void);
void giveup_begin(pthread_mutex_t *lock, pthread_cond_t *cond);
void giveup_end(void);

#endif
