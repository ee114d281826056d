/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * cut: what goes into a commit or a snapshot.  The inside of publishing, shared by
 *   stream.c    states from the database as a stream of records
 *   cut.c       what is dirty at one instant, encoded in that instant
 *   pack.c      contents into segments, spread two at a time
 *   settle.c    a published cut made true locally; resuming one after a restart
 *   hold.c      which files a cut leaves as they were, because they are huge
 *   order.c     which of them others wait for, because a program fsynced them
 *   ahead.c     the thread that stores those, cut or no cut
 *   rate.c      how fast, and so what is huge
 *   publish.c   the publish thread and the public calls
 *   snapshot.c  all states, while changes go on; trimming
 *   mend.c      the mend thread: repair list, log objects, when to take snapshots
 *   garbage.c   what nobody needs any more goes from the nodes
 *   scrub.c     the scrub thread: whether what is stored still is what was stored
 *   move.c      members that come and go, and the shards that move with them
 *
 * Locks: after the three of store.h comes publisher->lock, the innermost.  No thread waits
 * for the network with any of them held.
 */
#ifndef HOLDFAST_CACHE_CUT_H
#define HOLDFAST_CACHE_CUT_H

#include "cache/data.h"
#include "cache/meta.h"
#include "cache/publish.h"
#include "net/gather.h"
#include "net/spread.h"

/* Local numbers of inline segments begin here, so that an index can find who uses them. */
#define SEG_INLINE_BASE ((uint64_t)1 << 40)
#define INLINE_CUT_MAX	(64u << 10) /* cuts with less data carry it in the commit */
#define INLINE_KEEP_MAX (4u << 20)  /* inline bytes in all before they are repacked */
/* staged.off of the row that says "this larger inode was in the cut" (len 0). */
#define STAGED_MARK ((uint64_t)1 << 62)

/*
 * Condemned: nothing may name it again, its shards are being deleted.  Ahead: no commit names it
 * yet; it becomes SEG_DATA with the first that does.
 */
enum seg_kind {
	SEG_DATA = 1,
	SEG_RECORDS = 2,
	SEG_INLINE = 3,
	SEG_CONDEMNED = 4,
	SEG_AHEAD = 5
};

/* A stream of records being written, with the segments introduced in it so far. */
struct stream {
	struct store *st;
	struct rec_stamp stamp;
	struct rec_writer *w;
	struct buf rec; /* encoded, not yet in w */
	uint32_t segs;	/* the next index */
	struct stream_seg {
		uint64_t seg;
		uint32_t index;
	} * slot; /* open addressing, a power of two, at most half full */
	size_t slot_cap, slot_cnt;
	struct buf xattrs;
};
int stream_init(struct stream *s, struct store *st, struct rec_stamp stamp);
void stream_release(struct stream *s);
/* Hands what is encoded to the writer once it is more than `limit` bytes. */
int stream_push(struct stream *s, size_t limit);
/* Appends the inode with its xattrs; r->target is given; meta held. */
int stream_inode_locked(struct stream *s, struct rec_inode *r, uint32_t flags);
/* The index of a local segment number; introduces the segment when it is new; meta held. */
int stream_segment_locked(struct stream *s, uint64_t seg, uint32_t *index);
/* A node row, a device row of a statement that selects all columns in their order. */
int stream_nodes_locked(struct stream *s, uint64_t after_chg);
int stream_devices_locked(struct stream *s, uint64_t after_chg);
/* Columns 0..: INODE_COLS */
#define INODE_COLS                                                                             \
	"ino,mode,uid,gid,nlink,rdev,size,atime,mtime,ctime,btime,parent,flags,dchg,mask,"     \
	"target"
void inode_columns(sqlite3_stmt *q, struct rec_inode *r, uint32_t *flags, uint64_t *dchg);

/* CONTENT records of one file, split at a bounded number of extents. */
#define CONTENT_BATCH 4096u
struct content {
	struct buf *out;
	struct rec_stamp stamp;
	uint64_t ino, size;
	uint32_t drop_cnt, ext_cnt;
	struct rec_range drop[CONTENT_BATCH];
	struct rec_extent ext[CONTENT_BATCH];
};
void content_begin(struct content *c, struct buf *out, struct rec_stamp stamp, uint64_t ino,
		   uint64_t size);
void content_drop(struct content *c, uint64_t off, uint64_t len);
void content_add(struct content *c, const struct rec_extent *e);
void content_end(struct content *c);
/* The live extents of [off, end) as they are, added to c; meta held. */
int content_live_locked(struct content *c, struct stream *s, uint64_t off, uint64_t end);

/* Rows of `segment`; meta held. */
int segment_insert_locked(struct store *st, uint64_t seg, const struct seg_place *place,
			  enum seg_kind kind, uint64_t seq, uint64_t chg,
			  const struct buf *data);
int segment_nodes_locked(struct store *st, uint64_t seg, const struct seg_place *place,
			 uint64_t chg);
/* From a statement that selects SEGMENT_COLS beginning at column `col`. */
#define SEGMENT_COLS "id,k,m,cell_log2,cps,len,nodes"
int segment_columns(sqlite3_stmt *q, int col, struct seg_place *out);

/* A published range to be moved into a new segment, if it still is where this says. */
struct move {
	uint64_t ino, off, seg;
	uint32_t len, seg_off;
};

/* A cut: one per publisher at a time, owned by the publish thread. */
struct cut {
	struct publisher *p;
	struct store *st;
	struct stream s;
	uint64_t epoch, seq, lamport, published; /* published: the epoch before */
	uint64_t bytes;
	uint64_t first_seg, first_inline;
	bool repack, committed; /* committed: the pending row is in the database */
	/* Larger inodes: pinned, and which ranges are to be packed. */
	struct cut_file {
		struct inode *in;
		uint64_t ino, size;
		size_t span, span_cnt;
		bool failed; /* its bytes could not be synced: it stays dirty */
	} * file;
	size_t file_cnt, file_cap;
	struct cut_span {
		uint64_t off, len;
	} * span;
	size_t span_cnt, span_cap;
	/* Smaller ones by number, ascending. */
	uint64_t *small;
	size_t small_cnt, small_cap;
	/* By segment and offset in it. */
	struct move *move;
	size_t move_cnt;
	/* Inodes that stay as they were published, ascending. */
	struct hold {
		uint64_t ino;
		bool send; /* for its size: it is to be sent ahead */
	} * hold;
	size_t hold_cnt;
	bool hold_old; /* some of them were published in a former state */
};

/*
 * Segments on their way ahead of commits, besides the one that is filled.  With two, links
 * fall idle whenever both arrive at once.  Before a rate is known they are large, whatever the
 * links are (ahead_seg), and a crash loses them.
 */
#define AHEAD_IN_FLIGHT 3u
#define AHEAD_UNKNOWN   2u

struct publisher {
	struct store *st;
	struct publish_opts opts;
	pthread_t thread, mend, scrub, ahead;
	bool thread_on, mend_on, scrub_on, ahead_on;
	struct seg_pool *ahead_pool; /* a cut never waits for stripes of the other thread */

	pthread_mutex_t lock; /* guards the rest */
	pthread_cond_t cond;  /* CLOCK_MONOTONIC; everything that is waited for */
	bool stopping;
	_Atomic bool dirty;	    /* something changed since the last cut */
	int64_t dirty_ms;	    /* when */
	uint64_t pokes;		    /* nodes that came or went */
	uint64_t want, begun, done; /* cuts: asked for, begun, published or found empty */
	bool repack;		    /* the next cut repacks all inline segments */
	struct move *move;	    /* the next cut moves these; malloc */
	size_t move_cnt;
	uint64_t protect_want, protect_done; /* rounds of mending: asked for, found all whole */
	uint64_t protect_cut, protect_pokes; /* as of the begin of the last such round */
	/* What the last cut left as it was, and what is in it that the one before had left. */
	struct held {
		uint64_t ino;
		uint64_t since;	  /* the cut that left it first */
		int64_t since_ms; /* and when */
		uint64_t sent;	  /* bytes stored ahead for it since, whatever became of them */
		uint64_t due;	  /* somebody waits: once so many are, it is taken; 0 not set */
		bool send;	  /* as in the cut */
		bool hurry;	  /* somebody waits for this one */
		bool asked;	  /* a cut was asked for because it is small enough now */
		bool taken;	  /* the cut in flight has it */
	} * held;		  /* by ino, ascending */
	size_t held_cnt;
	uint64_t held_gen; /* cuts that wrote this */
	bool held_old;	   /* some of it is published in a former state; */
	bool hold_old;	   /* when the cut in flight is, that */
	bool whole;	   /* a snapshot is made: held_old must not become true */
	uint64_t hurries;  /* times that `hurry` was set */
	/* rate.c: bytes stored while something was on its way, and that time. */
	uint64_t rate_bytes;
	int64_t rate_ms, rate_since_ms;
	unsigned rate_busy;
	_Atomic uint64_t rate; /* bytes a second, 0 not known */
	int stopped; /* -ESTALE, for good */
	struct publish_status status;
	bool ready;		    /* begun: nobody took over, nothing is pending */
	/* Mend thread: usable when last looked at; gone since; its shards were listed. */
	bool *node_was, *node_lost, *node_listed;
	/* move.c: where its pass is, mend thread; the rest under lock. */
	uint64_t move_seg, move_failed, move_pass; /* rebalance as the pass began */
	uint64_t move_rounds;
	char move_reason[256];
	/* repair_limit, mend thread: shards are made or moved not before; this round has waited. */
	int64_t shards_next_ms;
	bool shards_late;

	uint64_t next_seg, next_inline; /* guarded by st->meta */

	/* Tests look in here: non-zero ends the thread as a crash would. */
	int (*stage)(void *arg, const char *name);
	void *stage_arg;
	unsigned slice; /* rows of a snapshot in one hold; 0: the usual number */
	_Atomic bool crashed;
};

/* publish.c */
/* publish_start in two steps, so that a test can set p->stage between them. */
int publish_prepare(struct publisher **out, struct store *st, const struct publish_opts *o);
int publish_run(struct publisher *p);
int publish_stage(struct publisher *p, const char *name);
/* Attempts one after the other: publish_backoff before the first, publish_pause between. */
struct backoff {
	unsigned ms;
	uint64_t pokes; /* known of before the attempt: what comes meanwhile ends the pause */
};
struct backoff publish_backoff(struct publisher *p);
/* Waits for a node to come or go, longer each time; 0 or -ECANCELED.  Says why, unless NULL,
 * in the status. */
int publish_pause(struct publisher *p, struct backoff *b, const char *why);
void publish_reason(struct publisher *p, const char *why);
bool publish_stopping(struct publisher *p);
void publish_touch(struct publisher *p); /* something is to be published; meta may be held */
/* Asks for a cut and waits for it, without a deadline; for the mend thread. */
int publish_now(struct publisher *p, bool repack);
/* The takeover check: 0, -ESTALE (stopped for good), -ECANCELED. */
int publish_check(struct publisher *p);

/* cut.c: 0 and *out NULL when there is nothing new.  *out and an error: settle_abandon. */
int cut_take(struct publisher *p, struct cut **out);
void cut_free(struct cut *c);

/* hold.c */
int hold_pick_locked(struct cut *c); /* c->hold, before anything is encoded; meta held */
bool hold_has(const struct cut *c, uint64_t ino);
int hold_keep_locked(struct cut *c); /* once the epoch has grown; meta held */
int hold_tell(struct cut *c);	     /* p->held; no lock held */
void hold_done_locked(struct publisher *p); /* the cut is published; p->lock held */
/* Whether that file, or for 0 any, is not published as of the cut `ticket`; p->lock held. */
bool hold_blocks_locked(struct publisher *p, uint64_t ino, uint64_t ticket);
/* The same, and it has to go soon: told to the thread that sends. */
void hold_hurry_locked(struct publisher *p, uint64_t ino, uint64_t ticket);
struct held *held_find(const struct publisher *p, uint64_t ino); /* or NULL; p->lock held */
/* Sent so often that it is taken as it is; unpublished: bytes of it that are, now. */
bool held_enough(const struct publisher *p, const struct held *h, uint64_t unpublished);
int hold_add(struct cut *c, uint64_t ino, bool *more); /* more: set when it is new; meta held */

/* rate.c: a segment is on its way; it is stored, or (0) that says nothing of the rate. */
void rate_begin(struct publisher *p);
void rate_end(struct publisher *p, uint64_t bytes);
uint64_t ahead_min(const struct publisher *p); /* more unpublished bytes make a file huge */
uint64_t ahead_low(const struct publisher *p); /* what it may have left when a cut takes it */
uint64_t ahead_seg(const struct publisher *p); /* of a segment that is sent ahead */

/* order.c: what fsync adds to that; _pick until *more stays as it is.  meta held. */
struct order;
int order_new_locked(struct cut *c, struct order **out); /* for one cut */
int order_pick_locked(struct order *o, bool *more);
void order_free(struct order *o);

/* ahead.c */
void *ahead_main(void *publisher);
/* Bytes of what is held, and how many of them are stored. */
void ahead_figures(struct publisher *p, uint64_t *bytes, uint64_t *done);

/* pack.c */
int pack_run(struct cut *c);

/* pending.c: one commit; release in any case */
struct pending {
	struct hist_head head;
	struct buf obj;
	uint64_t epoch;		/* of its cut */
	struct seg_place *part; /* segments of its records */
	size_t part_cnt;
};
int pending_build(struct cut *c, struct pending *pd); /* waits for nodes for the records */
int pending_write(struct cut *c, const struct pending *pd); /* its row, committed */
int pending_put(struct publisher *p, const struct pending *pd); /* until on enough nodes */
int pending_read(struct store *st, struct pending *pd); /* the row; 1, or 0: none */
void pending_release(struct pending *pd);

/* settle.c */
int settle_commit(struct cut *c);	/* syncs, has it built and put, applies */
void settle_abandon(struct cut *c);	/* what was dirty is dirty again */
int settle_resume(struct publisher *p); /* a pending commit of an earlier run */
int settle_clean(struct publisher *p);	/* rows that an interrupted cut left behind */
/* Rows of a cut in flight that is given up, or (pending) of one that is published. */
int settle_forget_locked(struct store *st, bool pending);
int staged_put_locked(struct store *st, uint64_t ino, const struct extent *e);
int settle_tidy(struct publisher *p, uint64_t epoch); /* tomb, newlink, inline segments */

/* snapshot.c */
bool snapshot_due(struct publisher *p);
int snapshot_take(struct publisher *p);
int snapshot_put(struct publisher *p); /* an interrupted one; 0 also when there is none */
/* What of the log is of no use; *out is malloc'ed, also on an error. */
int snapshot_floors(struct store *st, const struct hist_device *device, size_t device_cnt,
		    struct hist_floor **out, size_t *cnt);
int snapshot_trim(struct publisher *p); /* deletes that, wherever it is still listed */

/*
 * Are the nodes older than what this machine has published?  Then publishing ends for good
 * (-ESTALE).  On the threads that publish and mend.
 */
int publish_set_back(struct publisher *p);

/* mend.c */
void *mend_main(void *publisher);
/* repair_limit: true when no shard may be rebuilt or moved yet; what was, in bytes. */
bool mend_must_wait(struct publisher *p);
void mend_spent(struct publisher *p, uint64_t bytes);
/* The names of all shards on a node, each 0-terminated. */
int mend_list(struct node *n, struct buf *out);
uint64_t mend_hash(const char *name);

#endif
