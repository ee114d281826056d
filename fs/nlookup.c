/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "fs/nlookup.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>

#define SHARD_LOG2 4
#define SHARD_CNT  (1u << SHARD_LOG2)
#define CAP_MIN	   64u
#define UNLINKED   ((uint64_t)1 << 63)

/* ino 0: free. */
struct slot {
	uint64_t ino, cnt;
};

struct shard {
	pthread_mutex_t lock;
	struct slot *slot;
	size_t cap; /* a power of two */
	size_t len;
};

struct nlookup {
	struct shard shard[SHARD_CNT];
};

/* Inode numbers are counters: Fibonacci hashing spreads them; top bits choose the shard. */
static uint64_t mix(uint64_t ino)
{
	ino ^= ino >> 32;
	return ino * 0x9e3779b97f4a7c15u;
}

static struct shard *shard_of(struct nlookup *nl, uint64_t ino)
{
	return &nl->shard[mix(ino) >> (64 - SHARD_LOG2)];
}

static size_t home(uint64_t ino, size_t cap)
{
	return (size_t)(mix(ino) >> 20) & (cap - 1);
}

/* Where ino is, or the free slot where it would be. */
static size_t find(const struct shard *s, uint64_t ino)
{
	size_t i = home(ino, s->cap);

	while (s->slot[i].ino && s->slot[i].ino != ino)
		i = (i + 1) & (s->cap - 1);
	return i;
}

static int resize(struct shard *s, size_t cap)
{
	struct shard to = {.cap = cap, .slot = calloc(cap, sizeof *to.slot)};

	if (!to.slot)
		return -ENOMEM;
	for (size_t i = 0; i < s->cap; i++)
		if (s->slot[i].ino)
			to.slot[find(&to, s->slot[i].ino)] = s->slot[i];
	free(s->slot);
	s->slot = to.slot;
	s->cap = cap;
	return 0;
}

static void erase(struct shard *s, size_t i)
{
	size_t mask = s->cap - 1;

	/* A follower may move into the gap unless its home lies behind the gap. */
	for (size_t j = (i + 1) & mask; s->slot[j].ino; j = (j + 1) & mask) {
		size_t h = home(s->slot[j].ino, s->cap);
		if (((j - h) & mask) >= ((j - i) & mask)) {
			s->slot[i] = s->slot[j];
			i = j;
		}
	}
	s->slot[i] = (struct slot){0, 0};
	s->len--;
	/* Without memory for the smaller table the larger one stays. */
	if (s->cap > CAP_MIN && s->len < s->cap / 8)
		(void)resize(s, s->cap / 2);
}

int nlookup_new(struct nlookup **out)
{
	struct nlookup *nl = calloc(1, sizeof *nl);

	if (!nl)
		return -ENOMEM;
	for (unsigned i = 0; i < SHARD_CNT; i++)
		pthread_mutex_init(&nl->shard[i].lock, NULL);
	for (unsigned i = 0; i < SHARD_CNT; i++) {
		if (resize(&nl->shard[i], CAP_MIN)) {
			nlookup_free(nl);
			return -ENOMEM;
		}
	}
	*out = nl;
	return 0;
}

void nlookup_free(struct nlookup *nl)
{
	if (!nl)
		return;
	for (unsigned i = 0; i < SHARD_CNT; i++) {
		free(nl->shard[i].slot);
		pthread_mutex_destroy(&nl->shard[i].lock);
	}
	free(nl);
}

int nlookup_add(struct nlookup *nl, uint64_t ino, uint64_t n)
{
	struct shard *s = shard_of(nl, ino);
	int err = 0;

	assert(ino);
	pthread_mutex_lock(&s->lock);
	size_t i = find(s, ino);
	if (!s->slot[i].ino) {
		if (s->len + 1 > s->cap / 4 * 3) {
			err = resize(s, s->cap * 2);
			i = find(s, ino);
		}
		if (!err) {
			s->slot[i].ino = ino;
			s->len++;
		}
	}
	if (!err)
		s->slot[i].cnt += n;
	pthread_mutex_unlock(&s->lock);
	return err;
}

bool nlookup_sub(struct nlookup *nl, uint64_t ino, uint64_t n)
{
	struct shard *s = shard_of(nl, ino);
	bool reap = false;

	if (!ino)
		return false;
	pthread_mutex_lock(&s->lock);
	size_t i = find(s, ino);
	if (s->slot[i].ino) {
		uint64_t cnt = s->slot[i].cnt & ~UNLINKED;
		/* The kernel forgets what it was given, but is not trusted to count. */
		if (n < cnt) {
			s->slot[i].cnt -= n;
		} else {
			reap = s->slot[i].cnt & UNLINKED;
			erase(s, i);
		}
	}
	pthread_mutex_unlock(&s->lock);
	return reap;
}

bool nlookup_unlinked(struct nlookup *nl, uint64_t ino)
{
	struct shard *s = shard_of(nl, ino);

	pthread_mutex_lock(&s->lock);
	size_t i = find(s, ino);
	bool known = s->slot[i].ino != 0;
	if (known)
		s->slot[i].cnt |= UNLINKED;
	pthread_mutex_unlock(&s->lock);
	return !known;
}

uint64_t nlookup_count(struct nlookup *nl, uint64_t ino)
{
	struct shard *s = shard_of(nl, ino);

	pthread_mutex_lock(&s->lock);
	uint64_t cnt = s->slot[find(s, ino)].cnt & ~UNLINKED;
	pthread_mutex_unlock(&s->lock);
	return cnt;
}

size_t nlookup_size(struct nlookup *nl)
{
	size_t n = 0;

	for (unsigned i = 0; i < SHARD_CNT; i++) {
		pthread_mutex_lock(&nl->shard[i].lock);
		n += nl->shard[i].len;
		pthread_mutex_unlock(&nl->shard[i].lock);
	}
	return n;
}

void nlookup_drain(struct nlookup *nl, void (*cb)(void *arg, uint64_t ino), void *arg)
{
	for (unsigned k = 0; k < SHARD_CNT; k++) {
		struct shard *s = &nl->shard[k];
		for (size_t i = 0; i < s->cap; i++) {
			struct slot e = s->slot[i];
			s->slot[i] = (struct slot){0, 0};
			if (e.cnt & UNLINKED)
				cb(arg, e.ino);
		}
		s->len = 0;
	}
}
