/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * choose: which shards of a window are asked for, of whom, and who is late: pure functions
 * of (history, time).  No I/O, no clock, no locks: times (now_ms) are passed in, the owner
 * of a struct guards it.
 *
 * A node is known by its pace: what an answer takes that has no bytes (the way there and
 * back, and the server's own time; a ring, of which the median is what to expect and the
 * 95th per cent what is late), and the bytes in a millisecond that come while something is
 * under way.  From these and the bytes under way now follows when a further request would be
 * answered.  What is merely queued on this side so counts as what it is: time.
 *
 * A read that wants fewer than K shards asks just for these, one request each, as long as
 * that is not much slower than any K: each request costs somebody money.  One that wants K,
 * a whole segment, takes the K that end first: so all nodes' links are busy together, each
 * segment using a different K of its N, and a slow one gets as much as it can carry.
 *
 * Hedging after Dean and Barroso, "The Tail at Scale", 2013.
 */
#ifndef HOLDFAST_NET_CHOOSE_H
#define HOLDFAST_NET_CHOOSE_H

#include "net/ec.h"

#define PACE_HIST 32
#define PACE_BULK (256u << 10) /* shorter answers say nothing of the rate */

struct pace {
	uint32_t over_ms[PACE_HIST]; /* beyond the bytes; a ring */
	unsigned cnt, at;
	uint64_t bytes, busy_ms; /* that came, and in which time; both fade */
	uint64_t out_bytes;	 /* under way now */
	unsigned out;
	int64_t last_ms; /* something came, or the first of those under way was sent */
	int64_t seen_ms; /* the rate was seen */
	bool lags;	 /* when it last had a part in a write, the others did not wait for it */
	unsigned lates;	 /* small reads in a row that were late, with no answer between */
	uint64_t told;	 /* bytes that had come over the link at told_ms */
	int64_t told_ms; /* first looked at since something ended */
	uint32_t slow;	 /* the rate of what is under way, where it is plainly less; else 0 */
};

/* What to believe of a node of which nothing is known: what the others are like. */
struct pace_guess {
	uint32_t over_ms;
	uint32_t rate; /* bytes in a millisecond */
};

enum pace_end {
	PACE_CAME,  /* all the bytes */
	PACE_LATE,  /* given up when it was late: it would have taken longer still */
	PACE_QUIET, /* says nothing: absent, an error, given up for other reasons */
};

/* A request of len bytes is sent. */
void pace_begin(struct pace *p, size_t len, int64_t now);
/*
 * It has ended; ahead = out_bytes when it was sent, its own not counted; came: of its len
 * bytes those that were here.
 */
void pace_end(struct pace *p, size_t len, size_t came, uint64_t ahead, int64_t begun,
	      int64_t now, enum pace_end how);
/*
 * Bulk may be under way for long before any of it ends: told, all bytes that ever came over the
 * link, shows how fast it is by then.  0: the node does not tell.
 */
void pace_progress(struct pace *p, const struct pace_guess *g, uint64_t told, int64_t now);
/* How long bytes that are under way already will take. */
int64_t pace_left_ms(const struct pace *p, const struct pace_guess *g, uint64_t bytes,
		     int64_t now);
/* A small read of it was late, and is left to end by itself. */
void pace_late(struct pace *p);
/* The guess for nodes without a history: the median of those that have one. */
struct pace_guess pace_guess(const struct pace p[], size_t cnt);
/* How long a request of len bytes that is sent now will take. */
int64_t pace_expect_ms(const struct pace *p, const struct pace_guess *g, size_t len,
		       int64_t now);
/*
 * After how long it is late.  Sooner when it was late the last time: one that hangs is found
 * out by a few reads, and these shall not all wait for as long as an answer ever took.
 */
int64_t pace_late_ms(const struct pace *p, const struct pace_guess *g, size_t len, int64_t now);
/*
 * After how long to look whether others should be asked too.  A small read: when it is late; at
 * once, where the node was late several times and has not answered since: what it does in the
 * end tells more than any waiting for it.  Bulk: when it should have been here, for how much
 * of it has come says when the rest will (choose_straggler).
 */
int64_t pace_look_ms(const struct pace *p, const struct pace_guess *g, size_t len, int64_t now);

/* One window: masks of shards, bit i is shard i. */
struct choice {
	unsigned n, k;
	uint32_t want;	/* needed in the end */
	uint32_t can;	/* may be asked now: not asked yet, on a node worth a read */
	uint32_t avoid; /* of these the ones to ask only when no other is left: slow nodes */
	uint32_t asked, good, failed, late;
	int64_t expect_ms[EC_MAX]; /* of those that can be asked */
	int64_t code_ms;	   /* what rebuilding one shard costs here */
	unsigned turn;		   /* where to begin among equals: the load is shared */
};

/* What to ask for at the beginning.  May be fewer than suffice: choose_more then says 0. */
uint32_t choose_start(const struct choice *c);
/*
 * What to ask for in addition, now that some failed or are late: until all that is wanted, or
 * K, is here or on its way in time; with one to spare where one is late, for then another
 * may be.  0 when nothing is to be added.
 */
uint32_t choose_more(const struct choice *c);
/*
 * Whether bulk of which the rest will take left_ms should be asked of another node too: where
 * that would be here plainly sooner.
 */
bool choose_straggler(const struct choice *c, int64_t left_ms);
/* Whether it can still succeed with what was asked: late ones count for hope. */
bool choose_hope(const struct choice *c);

/*
 * How many rows of `rows` to ask of a shard in one request, when all of them would take
 * whole_ms: all where that is soon, else so many as come in a few seconds, `least` at least.
 */
uint32_t choose_rows(uint32_t rows, uint32_t least, int64_t whole_ms);

/*
 * Whether to fetch the rest of a segment: cnt reads of small things in it missed lately, one
 * costs over_ms, the whole whole_ms.
 */
bool choose_rest(unsigned cnt, int64_t over_ms, int64_t whole_ms);

/*
 * The same for writing: how long after the quorum the others are waited for.  took_ms: what
 * the quorum took; laggards: all that are missing were left behind before.
 */
int64_t choose_grace_ms(int64_t took_ms, bool laggards);

#endif
