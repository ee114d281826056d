/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "net/cells.h"

#include <pthread.h>
#include <stdlib.h>
#include <time.h>
#include "net/cond.h"
#include "net/giveup.h"

#define BUCKETS 1024

struct cell {
	struct seg_id id;
	uint32_t no;
	unsigned ref;	/* of callers; guarded by cells.lock, as all but p once it is there */
	bool busy;	/* somebody fetches it */
	bool listed;	/* in a bucket, and in the list of use when not busy */
	int err;
	uint8_t *p;
	size_t len;
	struct cell *chain;
	struct cell *newer, *older;
};

struct cells {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	struct cell *bucket[BUCKETS];
	struct cell *newest, *oldest;
	size_t used, cap;
};

int cells_new(struct cells **out, size_t cap_bytes)
{
	struct cells *c = calloc(1, sizeof *c);

	*out = c;
	if (!c)
		return -ENOMEM;
	c->cap = cap_bytes;
	pthread_mutex_init(&c->lock, NULL);
	cond_init(&c->cond);
	return 0;
}

static void cell_free(struct cell *e)
{
	free(e->p);
	free(e);
}

void cells_free(struct cells *c)
{
	if (!c)
		return;
	for (struct cell *e = c->newest, *next; e; e = next) {
		next = e->older;
		cell_free(e);
	}
	pthread_cond_destroy(&c->cond);
	pthread_mutex_destroy(&c->lock);
	free(c);
}

static struct cell **bucket(struct cells *c, const struct seg_id *id, uint32_t no)
{
	/* Segment ids are random: any bits of them will do. */
	return &c->bucket[(get_le32(id->b) + no) % BUCKETS];
}

static void use_unlink(struct cells *c, struct cell *e)
{
	*(e->newer ? &e->newer->older : &c->newest) = e->older;
	*(e->older ? &e->older->newer : &c->oldest) = e->newer;
	e->newer = e->older = NULL;
}

static void use_push(struct cells *c, struct cell *e)
{
	e->newer = NULL;
	e->older = c->newest;
	*(c->newest ? &c->newest->newer : &c->oldest) = e;
	c->newest = e;
}

static void unlist(struct cells *c, struct cell *e)
{
	struct cell **p = bucket(c, &e->id, e->no);

	while (*p != e)
		p = &(*p)->chain;
	*p = e->chain;
	e->listed = false;
	if (!e->busy) {
		use_unlink(c, e);
		c->used -= e->len;
	}
}

int cells_claim(struct cells *c, const struct seg_id *id, uint32_t no, struct cell **out,
		bool *mine)
{
	struct cell **b = bucket(c, id, no), *e;

	*mine = false;
	pthread_mutex_lock(&c->lock);
	for (e = *b; e && (e->no != no || memcmp(&e->id, id, sizeof *id) != 0); e = e->chain)
		;
	if (e) {
		e->ref++;
		if (!e->busy) {
			use_unlink(c, e);
			use_push(c, e);
		}
	} else {
		e = calloc(1, sizeof *e);
		if (e) {
			*e = (struct cell){.id = *id, .no = no, .ref = 1, .chain = *b};
			e->busy = e->listed = *mine = true;
			*b = e;
		}
	}
	pthread_mutex_unlock(&c->lock);
	*out = e;
	return e ? 0 : -ENOMEM;
}

void cells_fill(struct cells *c, struct cell *e, uint8_t *p, size_t len)
{
	pthread_mutex_lock(&c->lock);
	e->p = p;
	e->len = len;
	e->busy = false;
	use_push(c, e);
	c->used += len;
	while (c->used > c->cap && c->oldest != e) {
		struct cell *old = c->oldest;
		unlist(c, old);
		if (!old->ref)
			cell_free(old);
	}
	pthread_cond_broadcast(&c->cond);
	pthread_mutex_unlock(&c->lock);
}

void cells_fail(struct cells *c, struct cell *e, int err)
{
	pthread_mutex_lock(&c->lock);
	unlist(c, e);
	e->busy = false;
	e->err = err;
	pthread_cond_broadcast(&c->cond);
	pthread_mutex_unlock(&c->lock);
}

int cells_wait(struct cells *c, struct cell *e, int64_t deadline_ms)
{
	int rc = 0, over = 0;

	giveup_begin(&c->lock, &c->cond);
	pthread_mutex_lock(&c->lock);
	while (e->busy && rc == 0 && !(over = giveup_over()))
		rc = cond_until(&c->cond, &c->lock, deadline_ms);
	int err = !e->busy ? e->err : over ? over : -ETIMEDOUT;
	pthread_mutex_unlock(&c->lock);
	giveup_end();
	return err;
}

const uint8_t *cell_bytes(const struct cell *e)
{
	return e->p;
}

void cells_put(struct cells *c, struct cell *e)
{
	pthread_mutex_lock(&c->lock);
	bool gone = !--e->ref && !e->listed;
	pthread_mutex_unlock(&c->lock);
	if (gone)
		cell_free(e);
}
