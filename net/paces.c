/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "net/paces.h"

#include <pthread.h>
#include <stdlib.h>

struct paces {
	_Atomic unsigned ref; /* the owner's, and one for each read that was left */
	pthread_mutex_t lock;
	struct pace *p; /* by number of node; grows; guarded by lock */
	size_t cnt;
};

int paces_new(struct paces **out)
{
	*out = calloc(1, sizeof **out);
	if (!*out)
		return -ENOMEM;
	(*out)->ref = 1;
	pthread_mutex_init(&(*out)->lock, NULL);
	return 0;
}

void paces_free(struct paces *ps)
{
	if (!ps || atomic_fetch_sub(&ps->ref, 1) != 1)
		return;
	pthread_mutex_destroy(&ps->lock);
	free(ps->p);
	free(ps);
}

/* NULL without memory: then nothing is known of the node, which is no error. */
static struct pace *pace_locked(struct paces *ps, struct node *n)
{
	size_t at = node_number(n);

	if (at >= ps->cnt) {
		size_t cnt = HF_MAX(2 * ps->cnt, at + 1);
		struct pace *p = realloc(ps->p, cnt * sizeof *p);
		if (!p)
			return NULL;
		memset(p + ps->cnt, 0, (cnt - ps->cnt) * sizeof *p);
		ps->p = p;
		ps->cnt = cnt;
	}
	return &ps->p[at];
}

uint64_t paces_begin(struct paces *ps, struct node *n, size_t len, int64_t *look_ms,
		     int64_t *late_ms)
{
	int64_t now = now_ms(), hedge = node_hedge_ms(n);
	uint64_t ahead = 0;

	*look_ms = *late_ms = now + hedge;
	pthread_mutex_lock(&ps->lock);
	struct pace *p = pace_locked(ps, n);
	if (p) {
		struct pace_guess g = pace_guess(ps->p, ps->cnt);
		/* Of a node that was never read from the marker's history is the best there is.
		 */
		if (!p->cnt)
			g.over_ms = (uint32_t)hedge;
		pace_progress(p, &g, node_told(n), now);
		*late_ms = now + pace_late_ms(p, &g, len, now);
		*look_ms = now + pace_look_ms(p, &g, len, now);
		ahead = p->out_bytes;
		pace_begin(p, len, now);
	}
	pthread_mutex_unlock(&ps->lock);
	return ahead;
}

void paces_end(struct paces *ps, const struct node_io *io, size_t len, uint64_t ahead,
	       int64_t end_ms, enum pace_end how)
{
	pthread_mutex_lock(&ps->lock);
	struct pace *p = pace_locked(ps, io->node);
	if (p)
		pace_end(p, len, HF_MIN(atomic_load(&io->came), len), ahead, io->start_ms,
			 end_ms, how);
	pthread_mutex_unlock(&ps->lock);
}

struct leaving {
	struct paces *ps;
	size_t len;
	uint64_t ahead;
	int64_t ms; /* when it was left */
};

static void left(struct node_io *io)
{
	struct leaving *l = io->left_arg;

	if (!io->err)
		paces_end(l->ps, io, l->len, l->ahead, io->end_ms, PACE_CAME);
	else
		/* How long it may take in the end is not for how long others would wait. */
		paces_end(l->ps, io, l->len, l->ahead, l->ms,
			  io->err == -ETIMEDOUT ? PACE_LATE : PACE_QUIET);
	paces_free(l->ps);
	free(l);
	node_io_unref(io);
}

bool paces_leave(struct paces *ps, struct node_wait *w, struct node_io *io, size_t len,
		 uint64_t ahead, bool late)
{
	struct leaving *l = malloc(sizeof *l);

	if (!l)
		return false;
	*l = (struct leaving){ps, len, ahead, now_ms()};
	struct node *n = io->node;
	pthread_mutex_lock(&ps->lock);
	struct pace *p = pace_locked(ps, n);
	if (p && late)
		pace_late(p);
	pthread_mutex_unlock(&ps->lock);
	atomic_fetch_add(&ps->ref, 1);
	if (node_wait_leave(w, io, late, left, l))
		return true;
	paces_free(ps);
	free(l);
	return false;
}

void paces_expect(struct paces *ps, struct node *const n[], unsigned cnt, size_t len,
		  int64_t expect_ms[])
{
	int64_t now = now_ms();

	pthread_mutex_lock(&ps->lock);
	struct pace_guess g = pace_guess(ps->p, ps->cnt);
	for (unsigned i = 0; i < cnt; i++) {
		struct pace *p = n[i] ? pace_locked(ps, n[i]) : NULL;
		if (!p)
			continue;
		pace_progress(p, &g, node_told(n[i]), now);
		expect_ms[i] = pace_expect_ms(p, &g, len, now);
	}
	pthread_mutex_unlock(&ps->lock);
}

int64_t paces_left(struct paces *ps, struct node *n, size_t len, uint64_t ahead)
{
	int64_t now = now_ms(), ms = 0;

	pthread_mutex_lock(&ps->lock);
	struct pace_guess g = pace_guess(ps->p, ps->cnt);
	struct pace *p = pace_locked(ps, n);
	if (p) {
		pace_progress(p, &g, node_told(n), now);
		ms = pace_left_ms(p, &g, HF_MIN(ahead + len, p->out_bytes), now);
	}
	pthread_mutex_unlock(&ps->lock);
	return ms;
}

uint64_t paces_rate(struct paces *ps, struct node *const n[], size_t cnt, int64_t *over_ms)
{
	uint64_t sum = 0;

	pthread_mutex_lock(&ps->lock);
	struct pace_guess g = pace_guess(ps->p, ps->cnt);
	for (size_t i = 0; i < cnt; i++) {
		struct pace *p = n[i] && node_readable(n[i]) ? pace_locked(ps, n[i]) : NULL;
		if (p)
			sum += p->busy_ms ? p->bytes / p->busy_ms : g.rate;
	}
	pthread_mutex_unlock(&ps->lock);
	if (over_ms)
		*over_ms = g.over_ms;
	return HF_MAX(sum, (uint64_t)1);
}

void paces_lag(struct paces *ps, struct node *n, bool lags)
{
	pthread_mutex_lock(&ps->lock);
	struct pace *p = pace_locked(ps, n);
	if (p)
		p->lags = lags;
	pthread_mutex_unlock(&ps->lock);
}

bool paces_lags(struct paces *ps, struct node *n)
{
	pthread_mutex_lock(&ps->lock);
	struct pace *p = pace_locked(ps, n);
	bool lags = p && p->lags;
	pthread_mutex_unlock(&ps->lock);
	return lags;
}
