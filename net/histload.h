/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * histload: what the two halves of history_load share.  histplan.c reads names and snapshots
 * and chooses from where to load; histload.c fetches the commits and hands everything out.
 * Not for callers.
 */
#ifndef HOLDFAST_NET_HISTLOAD_H
#define HOLDFAST_NET_HISTLOAD_H

#include "net/histobj.h"

struct listed {
	char name[BLOB_NAME_CAP];
	unsigned copies;
};

/* One device's commits base+1 .. end. */
struct chain {
	uint16_t device;
	struct hist_seen base; /* seq 0: from the first commit */
	uint64_t end;
	uint64_t cap; /* what lies beyond is no part of the drive */
	uint64_t last_lamport;
	uint8_t last_hash[HASH_LEN];
	uint8_t (*hash)[HASH_LEN]; /* of what was handed out, from base.seq + 1 */
	uint64_t used, asked;	   /* handed out up to; asked for up to */
	struct hist_object **obj;  /* fetched; index seq - base.seq - 1 */
	int fail;		   /* fetching `fail_seq` failed */
	uint64_t fail_seq;
};

struct load {
	struct volume *v;
	const struct hist_device *dev;
	size_t dev_cnt;
	const struct hist_seen *floor;
	size_t floor_cnt;
	struct listed *name; /* sorted */
	size_t name_cnt, name_cap;
	unsigned answered;
	struct hist_object *snap; /* those that verify, newest first */
	size_t snap_cnt;
	uint64_t *cap; /* of each device of dev[] */
	struct chain *chain;
	size_t chain_cnt;
	char why[256]; /* the base tried last is not usable */
	struct place_node *place; /* members that take shards */
	size_t place_cnt;

	/* Fetching; the chains' used, asked, obj, fail are guarded by lock as well. */
	pthread_mutex_t lock;
	pthread_cond_t cond;
	unsigned ahead;
	bool stop;

	const struct hist_cb *cb;
	void *arg;
	struct hist_state out;
};

/* The names on the nodes that answer, sorted; -ENODATA when too few do. */
int load_list(struct load *l);
/* The entry of a commit, or NULL when no node lists it. */
const struct listed *load_find(const struct load *l, uint16_t device, uint64_t seq);
/* A genuine log object; -ENOKEY: by a device whose key is not known. */
int load_fetch(const struct load *l, const char *name, struct hist_object *out);
int load_snapshots(struct load *l);
/* Where the chains of retired devices end; st: what the caller has. */
int load_caps(struct load *l, const struct hist_state *st);
/* Plans the chains.  *snap: a snapshot that has to be handed out first, or NULL. */
int load_choose_base(struct load *l, const struct hist_state *st,
		     const struct hist_object **snap);
/* Against what is planned, or, at the end, loaded: 0, -ESTALE, -EBADMSG. */
int load_check_floor(struct load *l);
struct chain *load_chain(struct load *l, uint16_t device);
/* Is what s says of commit s->seq what we have? */
bool load_hash_fits(const struct chain *c, const struct hist_seen *s);
void load_chains_free(struct load *l);

#endif
