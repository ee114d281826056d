/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * interrupt: requests that may wait for nodes end when their program is to end (SIGKILL, ^C
 * and the like: the kernel says so with FUSE_INTERRUPT), and all of them at once when the mount
 * is to go (interrupts_stop).  Without this a killed program stays until the nodes' deadline,
 * because the kernel waits for the answer to what it has sent.
 *
 * The kernel speaks up for any signal, also for those that a program only takes note of
 * (SIGCHLD, SIGALRM, SIGURG).  They must not make a read an error that programs do not expect,
 * or a page fault a SIGBUS; so /proc says what is pending.  SIGINT, SIGHUP, SIGQUIT and SIGTERM
 * that have a handler count for all but reads.  It speaks up once for a request: who first had
 * a signal that does not count waits for the deadline.
 *
 * A request that never waits costs two stores and a mutex that is made and destroyed; it is
 * known here, and to libfuse, from its first wait on (giveup.arm).
 *
 * Locks: libfuse's of the request, interrupts.lock, giveup.lock, then that of the wait.
 */
#ifndef HOLDFAST_FS_INTERRUPT_H
#define HOLDFAST_FS_INTERRUPT_H

#include "net/giveup.h"

struct fuse_req;

struct interrupts {
	pthread_mutex_t lock;
	struct interrupt *first; /* those that wait, or have waited */
	bool stop;
};

struct interrupt {
	struct giveup g;
	struct interrupts *all;
	struct fuse_req *req;
	bool read;
	struct interrupt *next, **at;
};

void interrupts_init(struct interrupts *all);
void interrupts_release(struct interrupts *all);
/* Whoever waits or begins to wait from now on gets -ECANCELED; false: nobody any more. */
void interrupts_stop(struct interrupts *all, bool stop);

/* i is this thread's until interrupt_end, which comes before the answer is sent. */
void interrupt_begin(struct interrupt *i, struct interrupts *all, struct fuse_req *req,
		     bool read);
void interrupt_end(struct interrupt *i);

#endif
