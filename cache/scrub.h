/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * scrub: whether what is stored still is what was stored.
 *
 *   scrub   reads and verifies every shard, a pass in 30 days, at most so many bytes a second;
 *	     before it every copy of the log on every node, and stores anew what is damaged there
 *   audit   verifies 300 cells a day, drawn uniformly from all that are stored: if 1 % of them
 *           are lost it finds one with 1 - 0.99^300 = 0.951
 *
 * A thread of its own, which waits while something is being published or waits for it, an hour
 * at most.  It goes on where it was after a restart.  What it finds is marked as missing in the
 * segment's row, which puts it on the repair list; the node is named.
 *
 *   k in kv                 v
 *   scrub_start, _total     the pass: unix seconds of its begin, bytes it has to read
 *   scrub_seg, _done        the last segment that was verified, bytes read
 *   scrub_log               when the copies of the log were verified
 *   audit_start, _done      the day: unix seconds of its begin, cells verified
 *   verified_N              unix seconds when something of node N was last found well
 */
#ifndef HOLDFAST_CACHE_SCRUB_H
#define HOLDFAST_CACHE_SCRUB_H

#include "cache/cut.h"

#define AUDIT_CELLS 300u

void *scrub_main(void *publisher);

/* One stored cell: row `row` of shard `shard`. */
struct scrub_cell {
	uint64_t seg;
	uint32_t row;
	unsigned shard;
};
/*
 * scrub_draw(st, out, cnt): cnt cells, each drawn from all stored cells with equal chance, in
 * random order.  Returns how many; fewer when segments go meanwhile; 0 when none are stored.
 */
int scrub_draw(struct store *st, struct scrub_cell *out, unsigned cnt);
/* Verifies one: 0 well, 1 not (marked, named), -EAGAIN it could not be looked at; -errno. */
int scrub_cell(struct store *st, const struct scrub_cell *c);
/* Verifies all shards of a segment: how many are marked as missing since, or -errno. */
int scrub_segment(struct store *st, uint64_t seg, const struct seg_place *place);

/*
 * For whoever has checked a segment itself: notes that these nodes were found well; marks those
 * shards as missing whose place still is that one, but never so many that the segment could not
 * be read any more.  Returns how many were marked, or -EIO.
 */
int scrub_well(struct store *st, const struct seg_place *place, const bool well[]);
int scrub_mark(struct store *st, uint64_t seg, const struct seg_place *place,
	       const bool lost[]);

#endif
