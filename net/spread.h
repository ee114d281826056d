/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * spread: writing to many nodes.  All shards of a stripe go out in parallel.  The stripe
 * counts as stored when shard_quorum shards on distinct nodes are acknowledged, or, while so
 * many nodes are known to be away that it cannot be, all that can, and at least K.
 *
 * The rest get a short grace, and none when their nodes were left behind before.  What is
 * not there then goes on in the background, up to its own deadline: the caller is told that
 * it is missing, and spread_collect tells later what became of it.  Left stripes hold memory
 * that publishing needs: only so many go on as leave enough, the latest are given up, and
 * are for repair.  Nodes that are known to be down get no request.
 */
#ifndef HOLDFAST_NET_SPREAD_H
#define HOLDFAST_NET_SPREAD_H

#include "net/volume.h"

/*
 * spread_start takes its own reference to the stripe.  spread_finish waits, fills *out
 * (NODE_NONE for every shard that is not acknowledged: the repair list) and frees the
 * spread.  0; -EAGAIN when fewer nodes took their shard: nothing may
 * refer to the segment then; -ENOMEM.
 */
struct spread;
int spread_start(struct spread **out, struct volume *v, struct stripe *s);
bool spread_ready(struct spread *sp); /* spread_finish would not wait */
int spread_finish(struct spread *sp, struct seg_place *out);

/*
 * What became of stripes that were left behind: cb for each that has ended, with the node of
 * every shard that is stored, or NODE_NONE.  When it says -EAGAIN it is asked again, at a
 * later call, for two minutes; anything else is the end of it.  The volume's `changed` is
 * called when there is something to collect.
 */
void spread_collect(struct volume *v,
		    int (*cb)(void *arg, const struct seg_id *id, const uint16_t node[EC_MAX]),
		    void *arg);
/* Shards of this segment are on their way, or arrived and not collected: not for repair yet. */
bool spread_going(struct volume *v, const struct seg_id *id);
/* Before the volume goes, when no request is under way. */
void spread_forget(struct volume *v);

/*
 * Whole copies of a small blob (log objects, headers) to every writable node.  0 when on at
 * least `need` nodes; *copies says on how many (may be NULL); -EAGAIN otherwise.  Those that
 * are late go on in the background.
 */
int spread_blob(struct volume *v, const char *name, const void *p, size_t len, unsigned need,
		unsigned *copies);

/* Deletes a blob everywhere it can be; errors are only logged. */
void spread_delete(struct volume *v, const char *name);

/*
 * repair_segment(v, place): reads K shards, rebuilds those with NODE_NONE (or listed in
 * lost[], may be NULL), stores them where place_shards says, updates *place.
 * Returns the number of shards still missing, -ENODATA when fewer than K can be read,
 * -EAGAIN when no node can take one and nothing was asked of any, -EBUSY when those that could
 * did not.  Never deletes anything.
 */
int repair_segment(struct volume *v, struct seg_place *place, const bool lost[]);

/*
 * Asks every node for every shard by name and puts what is found where it was not known into
 * *place: after a repair that was not published, or when too few of those known can be read.
 * Returns how many were found until the deadline, or within 30 s.
 */
int find_shards(struct volume *v, struct seg_place *place, int64_t deadline_ms);

/*
 * check_segment: asks for every shard: present[i]; with deep, every cell's tag is verified.
 * bad[i] when a shard is there but not genuine (its node is named).  Returns the number of
 * shards that are not well, or -errno.
 */
int check_segment(struct volume *v, const struct seg_place *place, bool deep, bool present[],
		  bool bad[]);

/*
 * repair_blobs: every object below "v/h", "v/n" and "l/" that any node holds and that `verify`
 * accepts is copied to the writable nodes that lack it.  What verify finds not genuine
 * (-EBADMSG) its node is named for; any other error only says that it is not to be copied.
 * Returns copies made, or -errno.  *lacking (may be NULL): how many of them are on fewer than
 * v->quorum writable nodes even then.
 */
int repair_blobs(struct volume *v,
		 int (*verify)(void *arg, const char *name, const void *p, size_t len), void *arg,
		 uint64_t *lacking);

/*
 * check_blobs: the same objects, each read from every node that lists it, and verified.
 *   found(arg, n, name, missing)  a copy that is not genuine, whose node is named; or, with
 *				   `missing`, one that a node lacks, of a commit or snapshot
 *				   that is on less than a quorum of them (only where nothing
 *				   is being published)
 * With `mend` what is not genuine is stored anew over itself from a genuine copy.  bytes (may
 * be NULL): how many were read.  stop (may be NULL) is asked between names.
 * Returns how many were found; -ECANCELED, -ENOMEM.
 */
struct blob_check {
	int (*verify)(void *arg, const char *name, const void *p, size_t len);
	void *verify_arg;
	void (*found)(void *arg, struct node *n, const char *name, bool missing);
	void *found_arg;
	bool (*stop)(void *arg);
	void *stop_arg;
	bool missing, mend;
	uint64_t *bytes;
};
int64_t check_blobs(struct volume *v, const struct blob_check *o);

/*
 * move_shard: one shard of a segment to `target`, or with NODE_NONE to where repair would put
 * it.  Copied when its node still gives it and every cell is genuine, else rebuilt from the
 * others.  place->node[shard] says where it is then; nothing is deleted.  The domain rules
 * hold.  0; -EAGAIN when no node may take it; -ENODATA when it cannot be had.
 */
int move_shard(struct volume *v, struct seg_place *place, unsigned shard, uint16_t target);

#endif
