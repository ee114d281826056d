/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * gather: reading from many nodes.  A range of a segment is read from its data shards, one
 * ranged GET per contiguous run; a node that is late (past its own p95), absent or wrong is
 * read around: the same rows from others, the first K win.  Bulk that lost is cancelled; a
 * small read that lost is left to end by itself.
 * Every cell's shard tag is checked before anything is decoded from it; a node whose cell is
 * wrong is named (node_lied).
 *
 * Decrypted cells are kept in an LRU (24 MiB), and two readers of one cell share one fetch.
 * Who reads many small things of one segment reads them in no order that could be told from
 * their places: after a few misses in a short time the rest of the segment is fetched in the
 * background, from all nodes together, and the readers find or await their cells there.
 */
#ifndef HOLDFAST_NET_GATHER_H
#define HOLDFAST_NET_GATHER_H

#include "net/volume.h"

struct paces;
int gather_new(struct gather **out, struct volume *v);
void gather_free(struct gather *g);
/* Nothing is fetched in the background any more.  Prompt once the nodes are quiet. */
void gather_stop(struct gather *g);
struct paces *gather_paces(struct volume *v);

/*
 * gather_read(v, place, off, len, out, deadline_ms): plaintext [off, off+len) of a segment.
 * 0; -ENODATA when fewer than K genuine shards can be had; -ETIMEDOUT when the deadline
 * passed first; -EINVAL past the segment's end; what giveup_over says.  Blocks; any number
 * of threads.
 */
int gather_read(struct volume *v, const struct seg_place *place, uint32_t off, uint32_t len,
		uint8_t *out, int64_t deadline_ms);

/* The same for a small thing that is wanted whole, which will not be the only one. */
int gather_read_near(struct volume *v, const struct seg_place *place, uint32_t off,
		     uint32_t len, uint8_t *out, int64_t deadline_ms);

/* How many bytes come from all nodes together in this time, as far as is known. */
uint64_t gather_reach(struct volume *v, int64_t ms);

/*
 * Read-ahead: like gather_read for a long range (to a whole segment), but streamed: sink is
 * called with consecutive pieces in order, on the calling thread; a non-zero return of sink
 * stops and is returned.  One request to each of the K nodes that will have answered first,
 * more and smaller ones where the nodes are slow; does not go through the LRU.  Several at
 * once keep all N nodes busy.
 */
int gather_stream(struct volume *v, const struct seg_place *place, uint32_t off, uint32_t len,
		  int (*sink)(void *arg, uint32_t off, const uint8_t *p, uint32_t len), void *arg,
		  int64_t deadline_ms);

/*
 * A whole small blob, from any node whose copy `verify` accepts (0); cap bytes at most.
 * -ENOENT when at least quorum-many nodes answered and none has it; -ENODATA when not
 * enough answered to say so; -EBADMSG when only bad copies were found.
 */
int gather_blob(struct volume *v, const char *name, size_t cap,
		int (*verify)(void *arg, const void *p, size_t len), void *arg, struct buf *out);

/*
 * Every name below a prefix on any node that answers.  *answered = how many nodes did.
 * Each distinct name is reported once, with the number of nodes that hold it.
 */
int gather_list(struct volume *v, const char *prefix, unsigned *answered,
		int (*cb)(void *arg, const char *name, unsigned copies), void *arg);

#endif
