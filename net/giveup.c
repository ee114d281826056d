/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "net/giveup.h"

static __thread struct giveup *own;

void giveup_init(struct giveup *g, void (*arm)(struct giveup *g))
{
	*g = (struct giveup){.arm = arm};
	pthread_mutex_init(&g->lock, NULL);
}

void giveup_release(struct giveup *g)
{
	pthread_mutex_destroy(&g->lock);
}

void giveup_set(struct giveup *g)
{
	own = g;
}

void giveup_now(struct giveup *g, int err)
{
	int none = 0;

	pthread_mutex_lock(&g->lock);
	atomic_compare_exchange_strong(&g->err, &none, err);
	if (g->wait_lock) {
		/* Who waits there either has not looked at err yet, or sleeps. */
		pthread_mutex_lock(g->wait_lock);
		pthread_cond_broadcast(g->wait_cond);
		pthread_mutex_unlock(g->wait_lock);
	}
	pthread_mutex_unlock(&g->lock);
}

int giveup_over(void)
{
	return own ? atomic_load(&own->err) : 0;
}

static void wait_at(struct giveup *g, pthread_mutex_t *lock, pthread_cond_t *cond)
{
	pthread_mutex_lock(&g->lock);
	g->wait_lock = lock;
	g->wait_cond = cond;
	pthread_mutex_unlock(&g->lock);
}

void giveup_begin(pthread_mutex_t *lock, pthread_cond_t *cond)
{
	struct giveup *g = own;

	if (!g)
		return;
	if (!g->armed) {
		g->armed = true;
		if (g->arm)
			g->arm(g);
	}
	wait_at(g, lock, cond);
}

void giveup_end(void)
{
	if (own)
		wait_at(own, NULL, NULL);
}
