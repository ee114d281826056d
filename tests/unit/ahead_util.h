/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Huge files on a drive of drive_util.h, and a thread that sends them only so far. */
#ifndef HOLDFAST_TESTS_AHEAD_UTIL_H
#define HOLDFAST_TESTS_AHEAD_UTIL_H

#include <poll.h>
#include "drive_util.h"
#include "net/cond.h"

#define MIN  (256u << 10) /* what is huge here */
#define SEG  (MIN / 4)	  /* what is sent at once then */
#define HUGE (2u << 20)

/* The hook of both threads: lets the sending one go on only so far, crashes where told. */
struct gate {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	unsigned stored, allowed;
	const char *crash_at;
	unsigned crash_after; /* so many times */
	struct drive *d;
	char copy[96];
	bool crashed;
};

/* What a crash would leave just now: the other thread is in no statement. */
static inline void copy_now(struct drive *d, const char *to)
{
	pthread_mutex_lock(&d->st->meta);
	dv_copy(d->dir, to);
	pthread_mutex_unlock(&d->st->meta);
}

static inline int gate_stage(void *arg, const char *name)
{
	struct gate *g = arg;
	int r = 0;

	pthread_mutex_lock(&g->lock);
	if (!strcmp(name, "ahead")) {
		g->stored++;
		pthread_cond_broadcast(&g->cond);
		while (g->stored >= g->allowed && !g->crashed && !publish_stopping(g->d->p))
			pthread_cond_wait(&g->cond, &g->lock);
	}
	if (g->crash_at && !g->crashed && !strcmp(name, g->crash_at) && !g->crash_after--) {
		copy_now(g->d, g->copy);
		g->crashed = true;
		pthread_cond_broadcast(&g->cond);
	}
	r = g->crashed;
	pthread_mutex_unlock(&g->lock);
	return r;
}

static inline void gate_init(struct gate *g, struct drive *d)
{
	*g = (struct gate){.d = d, .allowed = UINT32_MAX};
	pthread_mutex_init(&g->lock, NULL);
	assert_int_equal(cond_init(&g->cond), 0);
}

static inline void gate_allow(struct gate *g, unsigned n)
{
	pthread_mutex_lock(&g->lock);
	g->allowed = n;
	pthread_cond_broadcast(&g->cond);
	pthread_mutex_unlock(&g->lock);
}

/* Until n segments are stored.  Where they never are, what is torn down would wait for them. */
static inline void gate_await(struct gate *g, unsigned n)
{
	int64_t until = now_ms() + 120000;
	int rc = 0;

	pthread_mutex_lock(&g->lock);
	while (!rc && g->stored < n)
		rc = cond_until(&g->cond, &g->lock, until);
	unsigned stored = g->stored;
	pthread_mutex_unlock(&g->lock);
	if (stored < n) {
		fprintf(stderr, "%u of %u segments were stored in 120 s\n", stored, n);
		abort();
	}
}

static inline void start(struct drive *d, int (*stage)(void *, const char *), void *arg)
{
	d->po.ahead_min = MIN;
	assert_int_equal(publish_prepare(&d->p, d->st, &d->po), 0);
	d->p->stage = stage;
	d->p->stage_arg = arg;
	assert_int_equal(publish_run(d->p), 0);
}

/* A cut that holds back what is huge: with it the sending begins. */
static inline void held_from_now(struct drive *d)
{
	int r = publish_now(d->p, false);

	/* It may not be over before a crash is. */
	assert_true(!r || r == -ECANCELED);
}

static inline void stop(struct drive *d, struct gate *g)
{
	/* A thread in the hook looks again once it is told to stop. */
	pthread_mutex_lock(&d->p->lock);
	d->p->stopping = true;
	pthread_mutex_unlock(&d->p->lock);
	gate_allow(g, UINT32_MAX);
	dv_stop(d);
}

/* The tree from the nodes, as text. */
static inline char *from_nodes(struct drive *d)
{
	char dir[96];
	struct store *st;

	snprintf(dir, sizeof dir, "%s/recovered", d->x.base);
	assert_int_equal(dv_recover(d, dir, &st), 0);
	assert_int_equal(dv_check(st, false), 0);
	char *got = dv_dump(st);

	dv_drop(st, dir);
	return got;
}

/* The line of one path, malloc'ed; NULL when it is not there. */
static inline char *line_of(const char *dump, const char *path)
{
	char start[128];
	size_t len = (size_t)snprintf(start, sizeof start, "%s ino ", path);

	for (const char *p = dump; *p; p = strchr(p, '\n') + 1)
		if (!strncmp(p, start, len))
			return strndup(p, (size_t)(strchr(p, '\n') - p));
	return NULL;
}

static inline bool has(const char *dump, const char *path)
{
	char *line = line_of(dump, path);

	free(line);
	return line != NULL;
}

static inline void same_line(const char *a, const char *b, const char *path)
{
	char *x = line_of(a, path), *y = line_of(b, path);

	assert_non_null(x);
	assert_non_null(y);
	assert_string_equal(x, y);
	free(x);
	free(y);
}

static inline void all_published(struct drive *d)
{
	char *want = dv_dump(d->st);

	assert_int_equal(publish_wait(d->p, false, now_ms() + 60000), 0);
	dv_recovered(d, want);
	assert_int_equal(dv_check(d->st, true), 0);
	assert_int_equal(d->st->unpublished_bytes, 0);
	assert_int_equal(dv_number(d->st, "SELECT count(*) FROM ahead"), 0);
	free(want);
}

/* A drive of which the thread that sends stops at the gate; all let through and published. */
static inline void gated_open(struct drive *d, struct gate *g)
{
	dv_open(d);
	gate_init(g, d);
	start(d, gate_stage, g);
}

static inline void gated_close(struct drive *d, struct gate *g)
{
	gate_allow(g, UINT32_MAX);
	all_published(d);
	stop(d, g);
	dv_close(d);
}

static inline void fsynced(struct store *st, uint64_t dir, const char *name)
{
	struct inode *in = dv_file(st, dir, name);

	assert_int_equal(data_sync(st, in, false), 0);
	inode_put(st, in);
}

static inline void removed(struct store *st, uint64_t dir, const char *name, bool rmdir)
{
	uint64_t ino;

	assert_int_equal(meta_unlink(st, dir, name, strlen(name), rmdir, &ino), 0);
	meta_reap(st, ino);
}

static inline uint32_t seed_of(void)
{
	return getenv("SEED") ? (uint32_t)strtoul(getenv("SEED"), NULL, 10)
			      : randombytes_random();
}

#endif
