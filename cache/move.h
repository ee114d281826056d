/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * move: the members of a volume change while it is in use, and shards move with them.
 *
 * A command writes what is meant into the database, one transaction, and returns; the mend
 * thread does it, now or after the next start, from whatever point it had reached:
 *
 *   meant        rows                     the mend thread
 *   add          node.member = member     a roster with it, then the node joins the volume
 *   drain        node.member = draining   no new shards; those that are there move
 *   replace      the same, heir_OLD       the same, all to one node; then remove
 *   remove       leave_N = 1              when nothing is on it: see volume.h, "remove"
 *   remove lost  leave_N = 2              its shards count as missing, then remove; the repair
 *                                         list makes them again
 *   rebalance    rebalance = 1            shards on nodes that a new segment would not have go
 *                                         to those that it would
 *
 * No roster, no effect: while kv roster_due is set the volume has the members of the roster
 * before.  One shard moves like this: it is stored in its new place; the segment's row and a
 * row of `moved`, which names the old copy, change in one transaction; a commit publishes
 * the row; only then is the old copy deleted and its row of `moved` with it.  A crash leaves
 * a copy too many at most, and the row of `moved` that says so.  On a node that is drained the
 * old copies stay for seven days from then on (kv drained_N), unless that was told not to be
 * (wipe_N).
 */
#ifndef HOLDFAST_CACHE_MOVE_H
#define HOLDFAST_CACHE_MOVE_H

#include "cache/publish.h"

/*
 * Each: 0 when what is meant is in the database, committed; -errno with a log line that says
 * why not and what to do, nothing has changed then.  The publisher must run.
 */
/* The node's place has this number's marker already; url is canonical. */
int move_add(struct publisher *p, uint16_t number, const char *url, bool rebalance);
int move_drain(struct publisher *p, uint16_t number);
int move_remove(struct publisher *p, uint16_t number, bool lost);
/*
 * Before one of them, or replace: what moves off the node is deleted there at once.  Otherwise
 * it stays for seven days, and for good on a node that is removed before.
 */
int move_wipe(struct publisher *p, uint16_t number, bool on, bool *was);
/* All that is on `old` to `heir`, which is added by the same step when url is given. */
/* Before the heir's place is marked: with it instead of `old` nothing less may be promised. */
int move_check_heir(struct publisher *p, uint16_t old, uint16_t number, const char *url);
int move_replace(struct publisher *p, uint16_t old, uint16_t heir, const char *url);
/*
 * The volume's credentials are others: a roster with them, so that who recovers has them.
 * -EBUSY while another change is under way, whose roster may have been made before.
 */
int move_creds(struct publisher *p);
/* The next number that no node ever had.  0 or -errno with a log line. */
int move_number(struct publisher *p, uint16_t *out);
/* A node by name (node-3), number or URL: its number, or -ENOENT with a log line. */
int64_t move_find(struct store *st, const char *what);

struct move_status {
	uint8_t member;		/* as its row says; 0: no such node */
	bool joined;		/* a roster with this is in effect */
	bool leaving, rebalancing;
	uint64_t shards, bytes; /* that are on it */
	uint64_t old_copies;	/* still to be deleted from it; not those that it keeps */
	char reason[256];	/* what it waits for, "" when nothing */
};
int move_get(struct publisher *p, uint16_t number, struct move_status *out);
/* Waits until the mend thread has done something, at most ms. */
void move_wait(struct publisher *p, int64_t ms);

/* --- for the mend thread, and who makes a database --- */

/* The next roster takes effect, or what it waits for is said. */
int join_step(struct publisher *p);
/* What is waited for, "" when nothing. */
void move_say(struct publisher *p, const char *why);
/* Shards on a node, or -errno; *bytes may be NULL. */
int64_t move_shards_on(struct store *st, uint16_t number, uint64_t *bytes);
/* Old copies on a node that are to be deleted now. */
int64_t move_old_copies(struct publisher *p, uint16_t number);
/* The number that a query with one argument gives.  meta held. */
int64_t move_count_locked(struct store *st, const char *sql, int64_t arg);

/* One slice: *left, there is more to do; *soon, without waiting for anything. */
int move_round(struct publisher *p, bool *left, bool *soon);
/* The table `moved`, in a database that was made before there was one.  meta held. */
int move_table_locked(struct store *st);

#endif
