/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * range: what is known of every byte range of one larger file: a set of disjoint spans with
 * flags, kept and stored per 64 MiB chunk of file in sorted arrays.  Chunks that are one span
 * throughout are kept and stored as runs, so that a huge hole or a huge file costs one entry.
 * Adjacent spans of equal flags are one span.  Bytes outside all spans have no flags: they
 * are where the extents say, or a hole.
 *
 * Pure data structure: no I/O, no lock (the owner guards it).
 */
#ifndef HOLDFAST_CACHE_RANGE_H
#define HOLDFAST_CACHE_RANGE_H

#include "net/base.h"

#define RANGE_CHUNK ((uint64_t)64 << 20)

#define RG_HAVE	 1u /* the bytes are in the cache file */
#define RG_DIRTY 2u /* and are newer than what is published (implies HAVE) */
#define RG_META	 4u /* extents of the range changed (hole or shared): publish that */
#define RG_CUT	 8u /* was dirty when the cut in flight was made, not changed since */
#define RG_CMETA 16u /* was META when the cut was made */
#define RG_AHEAD 32u /* DIRTY or CUT, and stored in segments ahead of any commit (sent.c) */
#define RG_SENT	 64u /* DIRTY, and on its way there; not changed since it was read */
#define RG_ALL	 127u

struct ranges;
int ranges_new(struct ranges **out); /* empty */
/* Enters a stored map, each once and in ascending order, before anything else: 0, -EBADMSG. */
int ranges_add(struct ranges *r, uint64_t chunk, const void *p, size_t len);
void ranges_free(struct ranges *r);

/*
 * [off, off+len): flags = (flags & ~clear) | set.  len may reach UINT64_MAX - off.
 * -ENOMEM: some of the range may have changed.
 */
int ranges_set(struct ranges *r, uint64_t off, uint64_t len, unsigned set, unsigned clear);
/* The flags at off < to, and how far they hold: *end, at most `to`. */
int ranges_at(struct ranges *r, uint64_t off, uint64_t to, unsigned *flags, uint64_t *end);
/* The next span at or after off with any of `mask`, cut to [off, to): 1; 0 none. */
int ranges_next(struct ranges *r, uint64_t off, uint64_t to, unsigned mask, uint64_t *start,
		uint64_t *end, unsigned *flags);

/*
 * Chunks changed since the last time: calls store(arg, chunk, map) for each; an empty map
 * means the row can go.  RG_CUT is stored as RG_DIRTY, RG_CMETA as RG_META, RG_AHEAD and
 * RG_SENT not at all.  After an error of store everything counts as changed still.
 */
int ranges_store(struct ranges *r,
		 int (*store)(void *arg, uint64_t chunk, const struct buf *map), void *arg);
bool ranges_dirty(const struct ranges *r); /* ranges_store would store something */
/* Bytes with this one flag; kept up to date by every change. */
uint64_t ranges_total(const struct ranges *r, unsigned flag);
/* What it takes of memory; counted anew after changes only. */
size_t ranges_memory(struct ranges *r);

/* The map's encoding (FORMAT.md): decode refuses what encode would not write. -EBADMSG. */
int ranges_decode_check(const void *p, size_t len);

#endif
