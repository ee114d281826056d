/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "cache/iolock.h"

#include <stdint.h>
#include "net/giveup.h"

#define WRITER	(1u << 31)
#define WAITERS (1u << 30) /* the rest counts readers */

#define BEDS 64

static struct bed {
	pthread_mutex_t lock;
	pthread_cond_t cond;
} beds[BEDS] = {
	[0 ... BEDS - 1] = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER},
};

static struct bed *bed_of(const struct iolock *l)
{
	return &beds[(uint64_t)(uintptr_t)l * 0x9e3779b97f4a7c15u >> 58];
}

bool iolock_try_read(struct iolock *l)
{
	unsigned s = atomic_load_explicit(&l->state, memory_order_relaxed);

	while (!(s & WRITER))
		if (atomic_compare_exchange_weak_explicit(
			    &l->state, &s, s + 1, memory_order_acquire, memory_order_relaxed))
			return true;
	return false;
}

bool iolock_try_write(struct iolock *l)
{
	unsigned s = atomic_load_explicit(&l->state, memory_order_relaxed);

	while (!(s & ~WAITERS))
		if (atomic_compare_exchange_weak_explicit(&l->state, &s, s | WRITER,
							  memory_order_acquire,
							  memory_order_relaxed))
			return true;
	return false;
}

static int wait_for(struct iolock *l, bool (*try)(struct iolock *l))
{
	struct bed *b = bed_of(l);
	int err = 0;

	giveup_begin(&b->lock, &b->cond);
	pthread_mutex_lock(&b->lock);
	for (;;) {
		/* Said before the last look: who gives it back after that look sees it. */
		atomic_fetch_or(&l->state, WAITERS);
		if (try(l) || (err = giveup_over()))
			break;
		pthread_cond_wait(&b->cond, &b->lock);
	}
	pthread_mutex_unlock(&b->lock);
	giveup_end();
	return err;
}

int iolock_read(struct iolock *l)
{
	return iolock_try_read(l) ? 0 : wait_for(l, iolock_try_read);
}

int iolock_write(struct iolock *l)
{
	return iolock_try_write(l) ? 0 : wait_for(l, iolock_try_write);
}

void iolock_unlock(struct iolock *l)
{
	unsigned s = atomic_load_explicit(&l->state, memory_order_relaxed), to;

	do {
		to = s & WRITER ? s & ~WRITER : s - 1;
	} while (!atomic_compare_exchange_weak_explicit(&l->state, &s, to, memory_order_release,
							memory_order_relaxed));
	if (to != WAITERS)
		return;
	/* Free, and somebody waits, or did. */
	struct bed *b = bed_of(l);
	pthread_mutex_lock(&b->lock);
	atomic_fetch_and(&l->state, ~WAITERS);
	pthread_cond_broadcast(&b->cond);
	pthread_mutex_unlock(&b->lock);
}
