/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * iolock: the lock of an inode's contents: many readers, or one who changes them.
 *
 * Who reads bytes that are far holds it for as long as the nodes take, 30 s at worst; a
 * program that waits for it meanwhile can be ended like one that waits for the nodes itself
 * (net/giveup).  pthread_rwlock_t cannot be left like that, and takes 56 bytes of an inode.
 *
 * Readers go before writers: what is here is read while somebody reads what is far and
 * somebody else wants to write.  A holder may so take it shared a second time.
 *
 * The state is one word, changed without a lock while nobody waits.  Those that wait sleep
 * on one of a few condition variables that all inodes share, chosen by the address, so a
 * wake-up may be for others: each looks again.  `waiters` is set with that variable's lock
 * held and before the last look; who gives the lock back with it set wakes all of them.
 *
 * Locks: those of the condition variables come last; none is taken with one held.
 */
#ifndef HOLDFAST_CACHE_IOLOCK_H
#define HOLDFAST_CACHE_IOLOCK_H

#include <stdatomic.h>
#include <stdbool.h>

/* All zero: free.  Nothing is to be released. */
struct iolock {
	atomic_uint state;
};

/*
 * 0 with the lock held; or without it what giveup_over says, when the thread's request is to
 * end before it is its turn.  Threads that serve no request always get it.
 */
int iolock_read(struct iolock *l);
int iolock_write(struct iolock *l);
/* They never wait; true: held. */
bool iolock_try_read(struct iolock *l);
bool iolock_try_write(struct iolock *l);
/* The caller keeps the inode pinned until this returns. */
void iolock_unlock(struct iolock *l);

#endif
