/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * publish: cut, pack, spread, commit, apply; over and over while there is something new.
 *
 * A cut (cut.h) fixes what is dirty at one instant: every metadata record is encoded then,
 * contents are packed afterwards in ascending inode order, as they were at the cut.  When
 * every segment is stored, the commit object is built, written to `pending` and committed
 * locally (so that after a crash the identical object is sent again), PUT until it is on
 * quorum nodes, the takeover markers are checked once more, and only then the cut is applied
 * locally: extents, clean ranges, published epoch.  If anything stops in between, what was
 * dirty is still dirty and the next cut covers it; segment ids of an abandoned cut are never
 * used again.
 *
 *   state            dirty rows   segments        pending   on restart
 *   cutting          in DB        none            no        a new cut
 *   packing          in DB        some, unused    no        a new cut; orphans are garbage
 *   building         in DB        all stored      no        the same
 *   pending          in DB        all stored      yes       PUT again, apply, go on
 *   applied          cleared      referenced      no        -
 *
 * Threads: publish (this), mend (repair list, log objects of returned nodes, snapshots,
 * garbage, what move.h says), scrub (verifies what is stored).
 */
#ifndef HOLDFAST_CACHE_PUBLISH_H
#define HOLDFAST_CACHE_PUBLISH_H

#include "cache/store.h"
#include "net/header.h"

/* How long things are waited for that nothing tells of; 0 is the usual time. */
struct publish_pace {
	unsigned grace_ms;	/* between condemning and deleting; 10 minutes */
	unsigned stray_ms;	/* between two looks for stray shards; 12 hours */
	unsigned compact_ms;	/* between two moves out of hollow segments; a minute */
	unsigned scrub_s;	/* for a pass over all shards; 30 days */
	unsigned keep_s;	/* old copies on a node that is drained stay so long; 7 days */
	unsigned audit_s;	/* for 300 cells; a day */
	uint64_t scrub_limit;	/* bytes a second that scrubbing reads at most; 8 MiB */
};

struct publish_opts {
	unsigned interval_ms;	/* between cuts while there is something new; 0: 5000 */
	unsigned snapshot_every; /* commits between snapshots at least; 0: 1000 */
	uint8_t owner_pk[32];
	struct hist_device *devices; /* certified devices; copied */
	size_t device_cnt;
	struct publish_pace pace;
	uint64_t ahead_min; /* dirty bytes of a file that make it a huge one; 0: see rate.c */
	/*
	 * Bytes/s of shards that are rebuilt (read or written, whichever is more) or moved; over
	 * many segments, one at a time goes at the speed of the nodes; 0: any.
	 */
	uint64_t repair_limit;
	/* The members are others than before (mend thread, no lock held); may be NULL. */
	void (*members_changed)(void *arg);
	void *members_arg;
	/* negative controls of tests */
	bool skip_older;	/* an older copy of a node is not noticed */
	bool skip_list;		/* directories are listed as seldom as servers are */
	bool skip_hold;		/* every cut takes everything */
	bool skip_names;	/* names do not hang together with what is held */
	bool skip_order;	/* fsync does not either */
	bool skip_quorum;	/* take any number of copies for published */
	bool skip_published;	/* delete before the death is published */
	bool skip_seen;		/* delete strays at first sight, whoever's they are */
};

struct publish_status {
	uint64_t seq;
	int64_t time_ns;	/* of the newest published commit, 0 none */
	bool stopped;		/* for good, see reason */
	char reason[256];	/* taken over, rolled back; or why it waits now ("" when it does not) */
	uint64_t below_target;	/* segments with missing shards */
	unsigned survives;	/* further node losses everything published survives now */
	bool busy;		/* a cut is in flight */
	uint64_t cut_bytes, cut_done; /* of the cut in flight */
};

struct publisher;
/* st->vol must be set.  First thing the thread does: history_check, history_ahead, pending. */
int publish_start(struct publisher **out, struct store *st, const struct publish_opts *o);
void publish_stop(struct publisher *p); /* abandons a cut in flight; prompt */
/*
 * Everything changed before the call is published (protect: and every segment has all its
 * shards, every log object all its copies).  Cuts at once.  0; -ETIMEDOUT; -EAGAIN while nodes
 * are missing and deadline_ms passes; -ESTALE when publishing is stopped for good; -ECANCELED.
 */
int publish_wait(struct publisher *p, bool protect, int64_t deadline_ms);
/*
 * The same in steps: the ticket says what the caller waits for, so that it comes nearer however
 * much is changed meanwhile; after -ETIMEDOUT or -EAGAIN it may be waited for again.  ino:
 * only that file, and what it is in order with (order.c); 0: all.
 */
struct publish_ticket {
	uint64_t cut, whole, ino;
	bool protect;
};
void publish_ticket(struct publisher *p, bool protect, uint64_t ino, struct publish_ticket *t);
int publish_await(struct publisher *p, struct publish_ticket *t, int64_t deadline_ms);
void publish_get_status(struct publisher *p, struct publish_status *out);
/* A node came or went (volume's changed callback). */
void publish_poke(struct publisher *p);

#endif
