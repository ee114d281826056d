/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * volume: what the upper layers see of the network: the keys, the nodes, the width of a
 * stripe, and blocking calls with deadlines that hide which node did what.
 *
 * Members are all nodes that are not GONE.  What must not be forgotten (a commit, a snapshot,
 * a marker, a header) is on at least `quorum` members; whoever asks members - quorum + 1 of
 * them meets it.  While the members change this holds because of the order:
 *
 *   add     Every set of `quorum` nodes of the smaller set is one of the larger; who still
 *           counts the smaller set could miss what is written later, so the roster (roster.h)
 *           that names the new node is on a quorum of the old members first.
 *   remove  First the node is LEAVING: no copy on it counts for what is written from now on,
 *           while readers still ask it and count it.  Then what was under way is waited for,
 *           everything of the log is copied until `quorum` of the others have it, the roster
 *           without it is on a quorum of the others, and only then it is GONE.
 */
#ifndef HOLDFAST_NET_VOLUME_H
#define HOLDFAST_NET_VOLUME_H

#include "net/node.h"
#include "net/place.h"
#include "net/segment.h"

/* A segment and where its shards are: node[i] holds shard i, or NODE_NONE. */
struct seg_place {
	struct seg_geom geom;
	uint16_t node[EC_MAX];
};

struct gather;
struct spread;
struct volume {
	struct keys *keys; /* owned */
	struct creds *creds; /* a reference: what opens later nodes; may be NULL; under lock */
	unsigned k, m;
	/* Copies of a log object before it counts as published: N - K + 1, plus 1 where N
	 * allows (max N - F with F = M), so that one stale node is outvoted. */
	unsigned quorum;
	/* Shards of a segment before it counts as stored while enough nodes are there (see
	 * spread.h): K + s, s = 1 where M > 1. */
	unsigned shard_quorum;
	/*
	 * Append-only while the volume is open: node[] has room for node_cap pointers and never
	 * moves, node_cnt grows, no node is taken out.  Whoever goes through them takes the
	 * count once (volume_nodes, volume_view); an array that is kept longer than one such
	 * pass has node_cap entries.
	 */
	struct node **node;
	size_t node_cap;
	_Atomic size_t node_cnt;
	struct seg_pool *pool;
	struct gather *gather;
	/*
	 * Verifies nodes that are down again, with backoff 1 s .. 60 s (a directory that is
	 * not there each second), and all others every 5 s.
	 */
	pthread_t watch;
	bool watching;
	struct node_wait watch_wait; /* also how the watcher is woken */
	pthread_mutex_t login;	     /* other credentials, one at a time; before lock */
	pthread_mutex_t lock;	     /* of all below */
	pthread_cond_t known; /* readable nodes changed, or `verified` */
	bool verified;	      /* volume_verify ended once: what is down now is down */
	bool stopping;
	bool poked; /* verify everything now */
	bool looking; /* volume_look is under way */
	int64_t look_ms, looked_ms; /* when the last one began and ended; 0: none */
	int64_t moment_ms; /* a node that went away so lately is waited for by reads */
	bool skip_look; /* negative control of tests: a read believes that what is down is down */
	/* A node came or went, or late shards arrived: repair may have work. */
	void (*changed)(void *arg);
	void *changed_arg;
	struct spread *tails; /* stripes that were left behind and not collected */
	unsigned tail_cnt;    /* of them with requests under way */
};

struct node_spec {
	uint16_t number;
	uint8_t member; /* enum node_member; 0: a member */
	char *url;
};

#define VOLUME_NODES_MAX 4096

/* What volume_open makes of k and m. */
static inline unsigned volume_quorum_of(unsigned k, unsigned m)
{
	/* Any K of the N nodes show the newest; one more where M losses still leave that many. */
	return m + 2 <= k ? m + 2 : m + 1;
}

/* Takes keys over on success, and references to creds (may be NULL).  Waits for no node. */
int volume_open(struct volume **out, struct keys *keys, unsigned k, unsigned m,
		const struct node_spec *spec, size_t spec_cnt, struct creds *creds);
/* Verifies all nodes in parallel until the deadline; returns how many are readable. */
int volume_verify(struct volume *v, int64_t deadline_ms);
/*
 * Until nodes were verified for the first time nobody knows which are there: waits for the end
 * of that, or until `need` are readable; 0, -ENODATA when fewer are, or what giveup_over says.
 */
int volume_await(struct volume *v, unsigned need, int64_t deadline_ms);
/* For nodes that are opened from now on; takes a reference. */
void volume_set_creds(struct volume *v, struct creds *creds);
/*
 * The same, and for the nodes that are open, which are tried anew.  0 or -ENOMEM: some have
 * them then.
 */
int volume_login(struct volume *v, struct creds *creds);
struct creds *volume_creds(struct volume *v); /* with a reference; may be NULL */
bool volume_known(struct volume *v); /* that first verification has ended */
/*
 * Before a read gives up for want of nodes: those that cannot be read are verified once more,
 * all at once, for some seconds at most.  Callers at the same time share one look, and what it
 * found is believed for as long as it took: where packets vanish, not every read waits.
 * volume_pause: until a node changed its state, or that time; false when the volume is closing.
 */
void volume_look(struct volume *v, int64_t deadline_ms);
bool volume_pause(struct volume *v, int64_t until_ms);
/* Starts the watcher; cb is called whenever a node changed state. */
int volume_start(struct volume *v, void (*changed)(void *arg), void *arg);
/*
 * Everything that waits for a node stops waiting, for good: what calls the volume can then
 * be stopped promptly, however nodes hang.  volume_close is still to be called.
 */
void volume_quiet(struct volume *v);
void volume_close(struct volume *v);
struct node *volume_node(struct volume *v, unsigned number); /* NULL when unknown */
/*
 * One node more, from now on part of every question and every quorum; v owns it.  -EINVAL a
 * number that is known; -ENOSPC; -ECANCELED while the volume is being closed.  n is still the
 * caller's then.
 */
int volume_add(struct volume *v, struct node *n);
size_t volume_nodes(const struct volume *v); /* how many entries of node[] there are now */
size_t volume_members(const struct volume *v);
/*
 * For one question to all nodes: node[0..cnt-1] are asked, and `need` answers of members among
 * them meet every quorum.  Nodes that come meanwhile are no part of it.
 */
struct volume_view {
	size_t cnt, members, need;
};
struct volume_view volume_view(const struct volume *v);
/*
 * Where the shards of a new segment go: place_shards over the members that take new shards;
 * usable are those not in skip[0..node_cap-1] (may be NULL).  Number placed, or -errno.
 */
int volume_place(struct volume *v, const struct seg_id *seg, const bool skip[], uint16_t out[]);
/* How many nodes can take shards / log objects / can be read now. */
unsigned volume_usable(struct volume *v);
unsigned volume_writable(struct volume *v);
unsigned volume_readable(struct volume *v);
/* Wakes the watcher at once (a user asked, a suspend ended). */
void volume_poke(struct volume *v);
/*
 * Capacity for user data: bytes free and total on the nodes, times K/N; 0 when not known.
 * What nodes on one file system share is counted once.
 */
void volume_space(struct volume *v, uint64_t *free_bytes, uint64_t *total_bytes);

#endif
