/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "net/segment.h"

#include <assert.h>
#include <pthread.h>
#include <sodium.h>
#include <stdlib.h>
#include <sys/mman.h>
#include "net/seal.h"

#define CELL_STRIDE ((size_t)CELL_SIZE + CELL_OVERHEAD)

/* --- the pool --- */

struct seg_pool {
	unsigned k, m, cnt;
	size_t mem_len; /* of one stripe */
	struct ec *ec;
	pthread_mutex_t lock;
	pthread_cond_t back;  /* a stripe came back, or stopped */
	struct stripe *all;   /* cnt of them */
	struct stripe *spare; /* guarded by lock; the one used last comes first */
	unsigned out_cnt;     /* guarded by lock */
	bool stopped;	      /* guarded by lock */
};

int seg_pool_new(struct seg_pool **out, unsigned k, unsigned m, unsigned cnt)
{
	*out = NULL;
	if (cnt < 1)
		return -EINVAL;
	struct seg_pool *p = calloc(1, sizeof *p);
	if (!p)
		return -ENOMEM;
	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->back, NULL);
	int err = ec_new(&p->ec, k, m);
	if (!err) {
		p->all = calloc(cnt, sizeof *p->all);
		if (!p->all)
			err = -ENOMEM;
	}
	if (err) {
		seg_pool_free(p);
		return err;
	}
	p->k = k;
	p->m = m;
	p->cnt = cnt;
	p->mem_len = (size_t)(k + m) * seg_cps_max(k) * CELL_STRIDE;
	for (unsigned i = 0; i < cnt; i++) {
		p->all[i].pool = p;
		p->all[i].next = p->spare;
		p->spare = &p->all[i];
	}
	*out = p;
	return 0;
}

void seg_pool_stop(struct seg_pool *p)
{
	pthread_mutex_lock(&p->lock);
	p->stopped = true;
	pthread_cond_broadcast(&p->back);
	pthread_mutex_unlock(&p->lock);
}

void seg_pool_free(struct seg_pool *p)
{
	if (!p)
		return;
	pthread_mutex_lock(&p->lock);
	p->stopped = true;
	pthread_cond_broadcast(&p->back);
	while (p->out_cnt)
		pthread_cond_wait(&p->back, &p->lock);
	pthread_mutex_unlock(&p->lock);
	for (unsigned i = 0; i < p->cnt; i++)
		if (p->all[i].mem)
			munmap(p->all[i].mem, p->mem_len);
	pthread_cond_destroy(&p->back);
	pthread_mutex_destroy(&p->lock);
	ec_free(p->ec);
	free(p->all);
	free(p);
}

static void stripe_return(struct stripe *s)
{
	struct seg_pool *p = s->pool;

	pthread_mutex_lock(&p->lock);
	s->next = p->spare;
	p->spare = s;
	if (--p->out_cnt == 0) {
		/*
		 * Nobody is publishing.  The stripe that serves a trickle keeps its pages
		 * until the system wants them; those of a burst go at once.
		 */
		if (s->mem)
			madvise(s->mem, p->mem_len, MADV_FREE);
		for (struct stripe *i = s->next; i; i = i->next) {
			if (i->mem)
				munmap(i->mem, p->mem_len);
			i->mem = NULL;
		}
	}
	pthread_cond_broadcast(&p->back);
	pthread_mutex_unlock(&p->lock);
}

static int stripe_take(struct seg_pool *p, struct stripe **out)
{
	int err = 0;

	*out = NULL;
	pthread_mutex_lock(&p->lock);
	while (!p->stopped && !p->spare)
		pthread_cond_wait(&p->back, &p->lock);
	struct stripe *s = p->stopped ? NULL : p->spare;
	if (s) {
		p->spare = s->next;
		s->next = NULL;
		p->out_cnt++;
	}
	pthread_mutex_unlock(&p->lock);
	if (!s)
		return -ECANCELED;
	atomic_store(&s->ref, 1);
	if (!s->mem) {
		/* Pages are 64-byte aligned, and cost nothing until they are written. */
		void *mem = mmap(NULL, p->mem_len, PROT_READ | PROT_WRITE,
				 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		if (mem == MAP_FAILED) {
			err = -ENOMEM;
			stripe_return(s);
			return err;
		}
		madvise(mem, p->mem_len, MADV_HUGEPAGE);
		s->mem = mem;
	}
	*out = s;
	return 0;
}

void stripe_ref(struct stripe *s)
{
	atomic_fetch_add(&s->ref, 1);
}

void stripe_unref(struct stripe *s)
{
	if (s && atomic_fetch_sub(&s->ref, 1) == 1)
		stripe_return(s);
}

void stripe_shard(struct stripe *s, unsigned i, struct iovec iov[2])
{
	iov[0] = (struct iovec){s->header[i], SHARD_HEADER};
	iov[1] = (struct iovec){s->body[i], seg_shard_len(&s->geom) - SHARD_HEADER};
}

/* --- the builder --- */

/*
 * Up to k * 4 KiB the cell size is open, so the bytes wait in `stage`.  Beyond, cells have
 * CELL_SIZE whatever comes, and cell c is sealed at mem + c * stride: the data shards are
 * slices of that one array, wherever finish puts the borders, and the parity shards follow it.
 */
struct seg_builder {
	const struct keys *keys;
	struct seg_pool *pool;
	struct stripe *s; /* NULL between finish and start */
	uint32_t len;
	bool staged; /* the bytes are still in stage */
	uint8_t *stage;
	size_t stage_cap;
};

int seg_builder_new(struct seg_builder **out, const struct keys *k, struct seg_pool *pool)
{
	*out = NULL;
	struct seg_builder *b = calloc(1, sizeof *b);
	if (!b)
		return -ENOMEM;
	b->keys = k;
	b->pool = pool;
	b->stage_cap = (size_t)pool->k << CELL_LOG2_MIN;
	b->stage = malloc(b->stage_cap);
	if (!b->stage) {
		free(b);
		return -ENOMEM;
	}
	*out = b;
	return 0;
}

void seg_builder_free(struct seg_builder *b)
{
	if (!b)
		return;
	seg_builder_abandon(b);
	free(b->stage);
	free(b);
}

int seg_builder_start_id(struct seg_builder *b, const struct seg_id *id)
{
	assert(!b->s);
	int err = stripe_take(b->pool, &b->s);
	if (err)
		return err;
	b->s->geom = (struct seg_geom){.id = *id};
	b->len = 0;
	b->staged = true;
	return 0;
}

int seg_builder_start(struct seg_builder *b, struct seg_id *id_out)
{
	randombytes_buf(id_out->b, SEG_LEN);
	return seg_builder_start_id(b, id_out);
}

size_t seg_builder_len(const struct seg_builder *b)
{
	return b->len;
}

size_t seg_builder_room(const struct seg_builder *b)
{
	return SEG_MAX_LEN - b->len;
}

/* Lays bytes at plaintext offset `at` into cells and seals each that becomes full. */
static void fill(struct seg_builder *b, const uint8_t sk[KEY_LEN], uint32_t at,
		 const uint8_t *p, size_t len)
{
	while (len) {
		uint32_t c = at / CELL_SIZE, o = at % CELL_SIZE;
		uint8_t *cell = b->s->mem + c * CELL_STRIDE;
		uint32_t n = (uint32_t)HF_MIN(len, (size_t)(CELL_SIZE - o));

		if (n == CELL_SIZE) {
			cell_seal(sk, &b->s->geom.id, c, CELL_LOG2, p, cell);
		} else {
			memcpy(cell + o, p, n);
			if (o + n == CELL_SIZE)
				cell_seal(sk, &b->s->geom.id, c, CELL_LOG2, cell, cell);
		}
		at += n;
		p += n;
		len -= n;
	}
}

int seg_builder_add(struct seg_builder *b, const void *p, size_t len, uint32_t *off_out)
{
	uint8_t sk[KEY_LEN], tk[KEY_LEN];

	assert(b->s);
	if (len > seg_builder_room(b))
		return -ENOSPC;
	*off_out = b->len;
	if (!len)
		return 0;
	if (b->staged && len <= b->stage_cap - b->len) {
		memcpy(b->stage + b->len, p, len);
		b->len += (uint32_t)len;
		return 0;
	}
	keys_segment(b->keys, &b->s->geom.id, sk, tk);
	if (b->staged) {
		b->staged = false;
		fill(b, sk, 0, b->stage, b->len);
	}
	fill(b, sk, b->len, p, len);
	b->len += (uint32_t)len;
	sodium_memzero(sk, sizeof sk);
	sodium_memzero(tk, sizeof tk);
	return 0;
}

/* Pads with zeros and seals every cell that add has not sealed. */
static void seal_rest(struct seg_builder *b, const uint8_t sk[KEY_LEN])
{
	const struct seg_geom *g = &b->s->geom;
	size_t cell_len = seg_cell(g);

	/* A cell that is partly full lies in place already, unless all is in the stage. */
	uint32_t first = b->staged ? 0 : g->len >> g->cell_log2;
	for (uint32_t c = first; c < g->k * g->cps; c++) {
		uint8_t *cell = b->s->mem + c * seg_stride(g);
		size_t at = (size_t)c << g->cell_log2;
		size_t n = at < g->len ? HF_MIN(g->len - at, cell_len) : 0;

		if (b->staged && n)
			memcpy(cell, b->stage + at, n);
		memset(cell + n, 0, cell_len - n);
		cell_seal(sk, &g->id, c, g->cell_log2, cell, cell);
	}
}

/* Row by row, so that what is tagged is coded while it is in the processor's cache. */
static void code_and_tag(struct stripe *s, const uint8_t tk[KEY_LEN])
{
	const struct seg_geom *g = &s->geom;
	size_t tag_off = seg_cell(g) + CELL_TAG_LEN;
	uint8_t *cell[EC_MAX];

	for (uint32_t row = 0; row < g->cps; row++) {
		for (unsigned i = 0; i < (unsigned)g->k + g->m; i++)
			cell[i] = s->body[i] + row * seg_stride(g);
		for (unsigned i = 0; i < g->k; i++)
			cell_tag(tk, i, row, g->cell_log2, cell[i], cell[i] + tag_off);
		ec_encode(s->pool->ec, cell, cell + g->k, tag_off);
		for (unsigned i = g->k; i < (unsigned)g->k + g->m; i++)
			cell_tag(tk, i, row, g->cell_log2, cell[i], cell[i] + tag_off);
	}
}

int seg_builder_finish(struct seg_builder *b, struct stripe **out)
{
	uint8_t sk[KEY_LEN], tk[KEY_LEN];
	struct stripe *s = b->s;
	struct seg_geom *g = &s->geom;
	int err = 0;

	*out = NULL;
	seg_geom_choose(g, b->pool->k, b->pool->m, b->len);
	assert(b->staged || g->cell_log2 == CELL_LOG2);
	for (unsigned i = 0; i < (unsigned)g->k + g->m && !err; i++) {
		s->body[i] = s->mem + i * g->cps * seg_stride(g);
		err = seg_shard_header(b->keys, g, i, s->header[i]);
	}
	if (err) {
		seg_builder_abandon(b);
		return err;
	}
	keys_segment(b->keys, &g->id, sk, tk);
	seal_rest(b, sk);
	code_and_tag(s, tk);
	sodium_memzero(sk, sizeof sk);
	sodium_memzero(tk, sizeof tk);
	b->s = NULL;
	*out = s;
	return 0;
}

void seg_builder_abandon(struct seg_builder *b)
{
	stripe_unref(b->s);
	b->s = NULL;
}
