/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * rows: genuine rows of shards of one segment, from whichever nodes give them first.
 *
 * A fetch is a list of windows; a window is a range of rows and the shards that are wanted
 * of it.  Each wanted shard is one GET.  When one is late (past its node's own p95), absent,
 * wrong, or on a node known to be down or slow, others are asked until K shards of the
 * window are on their way; the first K rebuild the wanted ones.  Bulk is late when what has
 * come of it says that another node would bring it plainly sooner.
 * Every row's tag is checked when it arrives; a node with a wrong one is named.
 *
 * When fewer than K can be had a patient fetch does not give up yet: the nodes that are away
 * are looked at again (volume_look), a request that failed is repeated a few times, and for a
 * node that went away a moment ago, as a server does that is restarted, it waits a while.
 *
 * One thread per fetch.  Every wait ends at the fetch's deadline.
 */
#ifndef HOLDFAST_NET_ROWS_H
#define HOLDFAST_NET_ROWS_H

#include "net/volume.h"

struct window {
	uint32_t row0, rows;
	uint32_t want; /* bit i: shard i; the rest are masks of the same kind */
	uint32_t asked, good, failed, late;
	uint32_t paced; /* begun in the paces, and not ended there */
	bool started, done;
	int64_t due_ms[EC_MAX];	    /* when to look whether an asked one is late */
	int64_t late_ms[EC_MAX];    /* when it is, whatever has come of it */
	struct {
		size_t came;
		int64_t ms;
	} seen[EC_MAX]; /* of bulk: what had come at the last look; ms 0: there was none */
	int why[EC_MAX];	    /* the error, where failed */
	uint8_t again[EC_MAX];	    /* how often it was repeated */
	uint64_t ahead[EC_MAX];	    /* bytes under way at its node before it */
	struct node_io *io[EC_MAX]; /* held where good, else the node_wait's */
	uint8_t *data[EC_MAX];	    /* rows * stride bytes where good; in io or in own */
	uint8_t *own;		    /* what was rebuilt */
};

struct fetch {
	struct volume *v;
	const struct seg_place *place;
	const struct seg_reader *r;
	int64_t deadline_ms;
	uint32_t avoid;	     /* shards not to be read */
	unsigned active_max; /* windows under way at once; 0: all */
	struct node_wait wait;
	struct window *win;
	size_t cnt, cap, started, active;
	bool failed; /* fetch_step returned an error */
	bool patient; /* see above; the caller sets it */
	bool waited;  /* it was patient once */
	int64_t short_ms, pause_ms; /* since when it is short of shards, 0: not; next pause */
};

void fetch_init(struct fetch *f, struct volume *v, const struct seg_place *place,
		const struct seg_reader *r, int64_t deadline_ms);
void fetch_release(struct fetch *f);
/* One window; want is a mask of shards.  -ENOMEM. */
int fetch_add(struct fetch *f, uint32_t row0, uint32_t rows, uint32_t want);
/* The data cells first..last, as few windows as do, of at most max_rows (0: any). */
int fetch_add_cells(struct fetch *f, uint32_t first, uint32_t last, uint32_t max_rows);
/*
 * Waits until something happened.  0, or the end: -ENODATA when a window cannot be had,
 * -ETIMEDOUT, -ENOMEM, what giveup_over says.
 */
int fetch_step(struct fetch *f);
/* Until all windows are done. */
int fetch_run(struct fetch *f);
static inline bool window_has(const struct window *w, unsigned shard)
{
	return w->good >> shard & 1;
}
/* The window's bytes of one shard are not needed any more. */
void window_drop(struct window *w, unsigned shard);
/*
 * Of a fetch that failed, what became of the shards of the window that could not be had: a
 * sentence for the log.
 */
void fetch_why(struct fetch *f, char *out, size_t cap);
/* The stored bytes of a data cell, or NULL when no window has it. */
const uint8_t *fetch_cell(const struct fetch *f, uint32_t cell);

#endif
