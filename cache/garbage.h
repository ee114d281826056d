/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * garbage: what nobody needs any more goes from the nodes.  Part of the mend thread.
 *
 *   condemned  segments that no extent names, parts of a trimmed log, and what an abandoned
 *              cut stored.  Nothing may name them again.  They go when their death is published
 *              and old enough; a row goes when all its shards have.
 *   stray      shards that a node lists and no row knows: seen in two passes, hours apart.
 *   hollow     segments that are less than half used: what lives of them is moved into new
 *              ones within a cut, a bounded amount in each.  Then nothing names the old ones.
 *
 * cache/FORMAT.md says why each step is safe.
 */
#ifndef HOLDFAST_CACHE_GARBAGE_H
#define HOLDFAST_CACHE_GARBAGE_H

#include "cache/cut.h"

/* What the mend thread keeps between its rounds; zeros at first. */
struct garbage {
	int64_t after_since; /* condemned rows up to here were tried in vain */
	uint64_t after_seg;
	int64_t again_ms;     /* now_ms(): when they are tried again from the first */
	int64_t compact_ms;   /* now_ms(): not before */
	uint64_t compact_sum; /* of what was to be moved last */
	unsigned compact_wait;
};

/*
 * Condemns what is dead as of now; before anything else of a round looks at segments.  A few
 * rows at a time, found by an index.
 */
int garbage_condemn(struct publisher *p);
/*
 * One round: bounded work.  came: a node is back.  *next_ms: now_ms() when there is more to do,
 * INT64_MAX when only an event brings it.  0, -ECANCELED, -ESTALE, -EIO, -ENOMEM.
 */
int garbage_round(struct publisher *p, struct garbage *g, bool came, int64_t *next_ms);

/* What is still on the nodes though nothing needs it: segments, bytes of their shards. */
int garbage_figures(struct store *st, uint64_t *segments, uint64_t *bytes);

/* stray.c, compact.c: the other parts of a round. */
int garbage_strays(struct publisher *p, int64_t *next_ms);
int garbage_compact(struct publisher *p, struct garbage *g, int64_t *next_ms);

/* --- what these share --- */

struct garbage_del {
	struct node *node;
	char name[BLOB_NAME_CAP];
	bool done; /* out: the node says that it is not there any more */
};
/* Deletes what can be deleted now, many at a time; ends early when the drive stops. */
void garbage_delete(struct publisher *p, struct garbage_del *d, size_t cnt);
/*
 * Nobody took this device's place: 0, -EAGAIN (too few nodes answer), -ESTALE.  Asked right
 * before something is deleted, for what this machine knows is worth nothing afterwards.
 */
int garbage_ours(struct publisher *p);
static inline int64_t garbage_wall_ms(void)
{
	return realtime_ns() / 1000000;
}
static inline int64_t garbage_pace(unsigned ms, int64_t usual)
{
	return ms ? ms : usual;
}
/* A number of kv, 0 when absent; one number of a statement, 0 when it has no row. */
uint64_t garbage_kv_locked(struct store *st, const char *k);
int garbage_one_locked(struct store *st, sqlite3_stmt *q, uint64_t *v);

#endif
