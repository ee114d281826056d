/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * roster: which nodes the volume has now, "v/n<generation>" on every node.
 *
 * The volume header has the owner's signature, whose secret is on paper, so a device cannot
 * change the list in it.  It writes a roster instead, signed with its own certified key: all
 * nodes with their numbers, what they are and where, and what opens them.  A recovery that
 * reaches any node that is still a member finds the others from there.
 *
 * Generation: count << 16 | device, so that no two devices write one name.  Which one holds:
 * those of a device that may write go before those of devices that are retired, whatever
 * their count; among equals the highest generation.  So what a machine writes that does not
 * know yet that it was taken over never wins: who takes a drive over stores a roster of its
 * own before the header that makes it the one that may write.  One by a device that no header
 * knows counts for nothing: its recovery was not finished.  Without any, the header's list
 * holds, as generation 0.
 *
 * When it takes effect: it is on a quorum of the members before (of the roster before it) and
 * on a quorum of those it names.  So any members - quorum + 1 of the members that some roster
 * names show a newer one if there is one: a reader goes on with the newest it finds, opens
 * the nodes that are named there, and has the present one when that many of its members have
 * answered and none shows a newer.  Nodes that were removed hold old ones; they lead on.
 *
 * The two newest are kept.
 */
#ifndef HOLDFAST_NET_ROSTER_H
#define HOLDFAST_NET_ROSTER_H

#include "net/history.h"

#define ROSTER_CAP	 (2u << 20)
#define ROSTER_CREDS_CAP (1u << 20)

struct roster {
	uint64_t generation;
	struct rec_node *node; /* ascending; urls malloc'ed, 0-terminated, owned */
	size_t node_cnt;
	struct buf creds; /* a text for creds_read_ini, or nothing; wiped by roster_release */
};
void roster_release(struct roster *r);
/* Keeps numbers ascending; copies the url.  -EEXIST, -ENOMEM. */
int roster_add(struct roster *r, uint16_t number, uint8_t member, const char *url);
/* Does it name this node as one that is not gone? */
bool roster_has(const struct roster *r, uint16_t number);

void roster_name(uint64_t generation, char out[BLOB_NAME_CAP]);
bool roster_name_parse(const char *name, uint64_t *generation);

/* Signed by the device of k, which the generation must name: else -EINVAL.  -ENOMEM. */
int roster_encode(const struct keys *k, const struct roster *r, struct buf *out);
/* -EBADMSG; -ENOTSUP a newer version; -ENOKEY by a device that is not in dev; -ENOMEM. */
int roster_decode(const struct keys *k, const struct hist_device *dev, size_t dev_cnt,
		  const void *p, size_t len, struct roster *out);
/* What is below the seal, for tests and fuzzing: node, node_cnt, creds. */
int roster_body_decode(const void *p, size_t len, struct roster *out);
/* 0 when genuine and below its own name; else as roster_decode. */
int roster_verify(const struct keys *k, const struct hist_device *dev, size_t dev_cnt,
		  const char *name, const void *p, size_t len);
/* Does a go before b? */
bool roster_before(const struct hist_device *dev, size_t dev_cnt, uint64_t a, uint64_t b);

/*
 * roster_put(v, was, r): stores r on every node of v that can be written, those that leave
 * as well.  0 when it is on a quorum of was (NULL: not asked) and of r; else -EAGAIN.
 */
int roster_put(struct volume *v, const struct roster *was, const struct roster *r);
/*
 * roster_find: the one that holds among all that the readable nodes of node[] show.
 * *found false: there is none.  answered[] (may be NULL) says which nodes showed their list.
 * 0; -ENOTSUP a newer version has written; -ENOMEM.
 */
int roster_find(struct node *const node[], size_t node_cnt, const struct keys *k,
		const struct hist_device *dev, size_t dev_cnt, int64_t deadline_ms,
		struct roster *out, bool *found, bool answered[]);
/* Deletes those whose count is below that of `keep`. */
int roster_trim(struct volume *v, uint64_t keep);

#endif
