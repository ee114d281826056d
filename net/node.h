/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * node: one place that stores named immutable blobs, behind a small table of calls.  All
 * I/O is asynchronous: node_submit returns at once, io->done is called exactly once, on a
 * thread of the node layer, at the latest when the deadline has passed, even when the node
 * hangs.  A node that hangs never holds a caller; what it holds (a buffer, a stripe) is
 * released when its system call or transfer really ends.
 *
 * Kinds: directories (node_dir.c), buckets of S3 (node_s3.c), folders of WebDAV servers
 * (node_dav.c); net/url.h has their addresses.
 */
#ifndef HOLDFAST_NET_NODE_H
#define HOLDFAST_NET_NODE_H

#include <pthread.h>
#include <stdatomic.h>
#include <sys/uio.h>
#include "net/creds.h"
#include "net/keys.h"
#include "net/url.h"

/* NODE_PROBE is for node_verify_io alone: opens the place anew and reads its marker. */
#define NODE_WHY_CAP 200

enum node_op { NODE_PUT, NODE_GET, NODE_DEL, NODE_LIST, NODE_PROBE };

enum node_state {
	NODE_UP,
	NODE_SLOW,     /* answers later than its own history */
	NODE_DOWN,     /* no answer, or the place is not there */
	NODE_FULL,     /* ENOSPC, EDQUOT: reads go on */
	NODE_REFUSING, /* EACCES, EROFS, bad credentials; it keeps nothing of what is written */
	NODE_WRONG,    /* emptied, or marker of another volume or node */
	NODE_LYING,    /* gave bytes that are not genuine */
};
const char *node_state_name(enum node_state s);

/*
 * What a node is to its volume; the first three are what records and rosters say.  Whoever
 * changes it keeps the order that volume.h gives.
 */
enum node_member {
	NODE_MEMBER = 1,
	NODE_DRAINING, /* no new shards; read, and the log is still kept there */
	NODE_GONE,     /* neither read nor written */
	NODE_LEAVING,  /* about to be GONE: nothing is written any more, it is still read */
};

struct node;

/*
 * struct node_io: one request; heap, reference counted.  node_io_new gives one reference to
 * the caller; submission takes another.  The caller sets the first group before submitting
 * and reads the second after `done` was called.  PUT: the memory of iov must live until
 * `release` is called (once, after done has returned and when nothing reads it any more,
 * maybe long after done).
 * GET: buf belongs to the io, len bytes wanted at off; short only at the end of the blob.
 */
struct node_io {
	enum node_op op;
	char name[BLOB_NAME_CAP]; /* LIST: a prefix such as "l/" */
	struct iovec iov[2];
	unsigned iov_cnt;
	uint64_t off;
	size_t len;
	int64_t deadline_ms; /* absolute, now_ms() clock; 0: the node's default of 60 s */
	void (*done)(struct node_io *io);
	void (*release)(struct node_io *io);
	void *arg;

	struct node *node;
	int err; /* 0, ENOENT, EIO, ENOSPC, EACCES, ETIMEDOUT, ECANCELED ... negative */
	char why[NODE_WHY_CAP]; /* with err: a sentence of the kind of node, or "" */
	uint8_t *buf;
	size_t got;
	_Atomic size_t came; /* of a GET: how much is here already; 0 where it is not told */
	struct buf list;  /* LIST: names, each 0-terminated, with the prefix */
	int64_t start_ms, end_ms;

	_Atomic int ref;
	_Atomic int fired; /* done has been called or is being called */
	_Atomic int hand;  /* enum node_hand, in node_io.c: who gets it when it ends */
	_Atomic int busy;  /* 2: done has not returned and the work has not ended */
	int64_t wire_ms;   /* set by kinds that have a line of their own: without the waiting */
	bool unsent;	   /* it ended before the kind of node had it */
	bool trusted;	   /* may pass before the marker was found right: node_init alone */
	bool create;	   /* PROBE: make the place when it is not there */
	struct node_io *prev, *next;   /* the queue of the node, later the list of a node_wait */
	struct node_io *tprev, *tnext; /* the timer's list */
	struct node_io *wprev, *wnext; /* what a node_wait waits for */
	int64_t fire_ms;	       /* when the timer ends it, and with which error */
	int fire_err;
	bool timed; /* it is in the timer's list */
	void *priv;	/* of the kind of node, while the work is under way */
	void (*left)(struct node_io *io); /* of node_wait_leave, as is left_arg */
	void *left_arg;
	unsigned tag;	/* the caller's own, as priv_arg is for release */
	void *priv_arg;
};
struct node_io *node_io_new(enum node_op op, const char *name);
void node_io_unref(struct node_io *io);
void node_submit(struct node *n, struct node_io *io);
/* Makes done come soon with -ECANCELED unless it came; safe at any time after submit. */
void node_cancel(struct node_io *io);

/*
 * struct node_wait: collects completions for a caller that waits.  Use node_wait_done as
 * `done` with arg = the node_wait.  node_wait_next returns completed ios one by one (the
 * caller's reference), or NULL at the deadline.  It may be released only when every
 * submitted io has been returned or detached: node_wait_release cancels and waits for the
 * callbacks (which come promptly), never for the node.  node_wait_submit takes the caller's
 * reference, node_wait_next gives it back.  node_wait_poke makes one node_wait_next return
 * NULL before its deadline; so does what net/giveup.h says of the calling thread.
 */
struct node_wait {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	struct node_io *head, **tail;
	struct node_io *out; /* submitted, not called back */
	unsigned pending;    /* submitted, not returned by node_wait_next */
	bool poked;
};
void node_wait_init(struct node_wait *w);
void node_wait_release(struct node_wait *w);
void node_wait_submit(struct node_wait *w, struct node *n, struct node_io *io);
struct node_io *node_wait_next(struct node_wait *w, int64_t deadline_ms);
void node_wait_done(struct node_io *io);
void node_wait_poke(struct node_wait *w);
/*
 * The answer to a GET is not wanted any more, but what becomes of it is: to take it back would
 * cost a server its connection, and nobody would learn when the node would have answered.  It
 * ends within NODE_LEAVE_MS, and left is called with it then, on a thread of the node layer;
 * left_arg is arg.  Takes the caller's reference.  late: node_late was called because of it,
 * and its being late is not counted again.  False when it has ended: it comes from
 * node_wait_next.
 */
#define NODE_LEAVE_MS 1500
bool node_wait_leave(struct node_wait *w, struct node_io *io, bool late,
		     void (*left)(struct node_io *io), void *arg);

/* What a user is shown; a copy, never holds a credential. */
struct node_info {
	uint16_t number;
	char name[64], kind[8];
	char url[NODE_URL_CAP];
	enum node_state state;
	int64_t since_ns;  /* realtime of the last change of state */
	char error[256];   /* the sentence of the last error, "" when none */
	uint64_t free_bytes, total_bytes; /* 0: not known */
	uint64_t medium;     /* nodes with an equal one share free_bytes; 0: not known */
	unsigned latency_ms, latency_p95_ms; /* of recent reads */
	uint64_t up_bytes_s, down_bytes_s;   /* of one transfer, lately; 0: not known */
	int64_t ok_ns;			     /* realtime of the last good answer; 0: none */
	/* What servers were asked, since this process opened the node; 0 for directories. */
	uint64_t put_cnt, get_cnt, delete_cnt, list_cnt, other_cnt, retry_cnt;
	uint64_t up_bytes, down_bytes;
};

/*
 * node_check_url: 0, or -EINVAL with a log line that says what is wrong and what is right;
 * canon gets the canonical URL (NODE_URL_CAP bytes).
 * node_open takes a reference to creds (may be NULL) and uses the profile that the URL names.
 * It never touches the place: it starts the threads.  node_close waits for ios to be
 * called back, and detaches threads that hang in the kernel.
 */
int node_check_url(const char *url, char *canon);
int node_open(struct node **out, uint16_t number, const char *url, struct creds *creds);
void node_close(struct node *n);
/* Requests under way, and those that come, end with -ECANCELED: before a close. */
void node_quiet(struct node *n);
uint16_t node_number(const struct node *n);
/* Bytes of ranges that came so far, as they come; 0 where a node does not tell. */
uint64_t node_told(const struct node *n);
uint32_t node_domain(const struct node *n); /* hash of domain=NAME, else unique per node */
void node_get_info(struct node *n, struct node_info *out);
/*
 * Other credentials from now on (c may be NULL), for requests that are not begun yet; one call
 * at a time.  0 or -ENOMEM, nothing has changed then.
 */
int node_login(struct node *n, struct creds *c);
/* A new node is a member. */
void node_set_member(struct node *n, enum node_member m);
enum node_member node_member(const struct node *n);
/* True when new shards may go there: a member that is UP, SLOW or LYING. */
bool node_usable(struct node *n);
/* True when log objects may go there: the same, and nodes being drained. */
bool node_writable(struct node *n);
/* True when its last writes failed: it may be written to, but nothing may depend on it. */
bool node_doubted(struct node *n);
/* True unless DOWN, WRONG or GONE: worth a read. */
bool node_readable(struct node *n);
/*
 * True when a node that is not readable has shown its marker since: it is not trusted with
 * requests yet, but a read that would fail without it may ask it.
 */
bool node_returning(struct node *n);
/* True when it stopped serving reads after this time (now_ms); as opened it never did. */
bool node_gone_since(struct node *n, int64_t since_ms);
/* Says that bytes from this node were not genuine: state LYING, logged with the blob name. */
void node_lied(struct node *n, const char *blob);
/* A sentence about the node, such as that something is not there: its last error, and logged. */
void node_note(struct node *n, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* That a blob that should be there is not. */
void node_lacks(struct node *n, const char *blob);
/* Says that others had to be asked because this node was late; after some in a row: SLOW. */
void node_late(struct node *n);
/* How long to wait for this node before others are asked: its own p95, 20 ms to 1 s. */
int64_t node_hedge_ms(struct node *n);
/*
 * How long a GET of len bytes takes at most in 19 of 20 cases, from this node's own history:
 * p95 to the first byte, and len at the rate that single transfers had lately.  Not bounded
 * above; 20 ms at least.
 */
int64_t node_expect_ms(struct node *n, size_t len);
enum node_state node_state(struct node *n);
const char *node_name(const struct node *n);

#define NODE_MARKER "v/node"
/*
 * The marker "v/node": H("marker", vol | number), written by create and by node add.
 * A node without it (an unmounted disk's empty mount point) or with a foreign one is WRONG
 * and is never written to.  node_init writes it: -EEXIST when any other volume's marker is
 * there, -ENOTEMPTY when the place holds blobs but no marker.  Synchronous, with deadline.
 * node_verify reads it and sets the state; also how a node that is down is tried again.
 * 0 when the node can be read and written; -ENODEV the place is not there; -ENOENT no
 * marker; -EBADMSG a foreign one; -EACCES, -EROFS it refuses (reads may work); -ETIMEDOUT.
 * node_init makes the last directory of a path when it is not there, not those above.
 *
 * Until a marker was found right every other request ends with -ENODEV.
 *
 * The same in two steps, for who verifies many: node_wait_submit an io of node_verify_io,
 * and give what comes back to node_verify_end.
 */
int node_init(struct node *n, const uint8_t vol[VOL_LEN], int64_t deadline_ms);
int node_verify(struct node *n, const uint8_t vol[VOL_LEN], int64_t deadline_ms);
struct node_io *node_verify_io(int64_t deadline_ms);
int node_verify_end(struct node *n, const uint8_t vol[VOL_LEN], const struct node_io *io);

/* Called (from any thread, no lock held) whenever a node's state changes. */
void node_on_change(struct node *n, void (*cb)(struct node *n, void *arg), void *arg);

#endif
