/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "cache/logs.h"

#include <stdlib.h>
#include "cache/cut.h"
#include "cache/member.h"
#include "cache/older.h"
#include "net/roster.h"

static void verifier_release(struct hist_verify *hv)
{
	free((void *)(uintptr_t)hv->floor);
}

/* A node that was away may hold what was deleted elsewhere: that is neither copied nor said. */
static int verifier_of(struct store *st, const struct logs_trust *t, struct hist_verify *hv)
{
	struct hist_floor *floor;
	struct roster was = {0};

	*hv = (struct hist_verify){.v = st->vol, .dev = t->device, .dev_cnt = t->device_cnt};
	memcpy(hv->owner_pk, t->owner_pk, sizeof hv->owner_pk);
	int err = snapshot_floors(st, t->device, t->device_cnt, &floor, &hv->floor_cnt);
	hv->floor = floor;
	pthread_mutex_lock(&st->meta);
	if (!member_roster_locked(st, &was))
		hv->roster = was.generation - HF_MIN(was.generation, (uint64_t)1 << 16);
	pthread_mutex_unlock(&st->meta);
	roster_release(&was);
	return err;
}

int logs_mend(struct publisher *p)
{
	struct logs_trust t = {p->opts.devices, p->opts.device_cnt, p->opts.owner_pk};
	struct hist_verify hv;

	int r = verifier_of(p->st, &t, &hv);
	if (!r)
		r = snapshot_trim(p);
	if (!r)
		r = repair_blobs(p->st->vol, history_verify_blob, &hv, NULL);
	verifier_release(&hv);
	return r;
}

/* --- verifying --- */

struct checking {
	const struct logs_check *c;
	struct hist_verify hv;
	/* What a crash left half stored is no part of the drive yet: its next start ends it. */
	char commit[BLOB_NAME_CAP], snapshot[BLOB_NAME_CAP];
	uint64_t roster;
};

static int verify(void *arg, const char *name, const void *p, size_t len)
{
	const struct checking *k = arg;
	uint64_t generation;

	int err = history_verify_blob((void *)(uintptr_t)&k->hv, name, p, len);
	if (err)
		return err;
	if (!strcmp(name, k->commit) || !strcmp(name, k->snapshot) ||
	    (roster_name_parse(name, &generation) && generation > k->roster))
		return -ESTALE;
	return 0;
}

static int begin(struct checking *k, struct store *st, const struct logs_check *c)
{
	struct roster was = {0};
	uint64_t seq = 0, snap = 0;

	*k = (struct checking){.c = c, .roster = UINT64_MAX};
	int err = verifier_of(st, &c->trust, &k->hv);
	pthread_mutex_lock(&st->meta);
	if (store_get_u64(st, "log_seq", &seq))
		seq = 0;
	if (store_get_u64(st, "snap", &snap))
		snap = 0;
	if (!member_roster_locked(st, &was))
		k->roster = was.generation;
	pthread_mutex_unlock(&st->meta);
	roster_release(&was);
	keys_log_name(st->vol->keys, 'c', st->device, seq + 1, k->commit);
	keys_log_name(st->vol->keys, 's', st->device, snap + 1, k->snapshot);
	return err;
}

static const char *kind_of(const char *name)
{
	return !strncmp(name, "v/h", 3)	  ? "the volume header"
	       : !strncmp(name, "v/n", 3) ? "the list of nodes"
	       : !strncmp(name, "l/c", 3) ? "commit"
	       : !strncmp(name, "l/s", 3) ? "snapshot"
	       : !strncmp(name, "l/t", 3) ? "takeover marker"
					  : "blob";
}

static void say(void *arg, struct node *n, const char *name, bool missing)
{
	const struct logs_check *c = ((struct checking *)arg)->c;
	char what[256];

	snprintf(what, sizeof what, "%s %s %s node %u%s", kind_of(name), name,
		 missing ? "is not on" : "on", node_number(n), missing ? "" : " is damaged");
	c->found(c->arg, what);
}

/* This device's own mark on each node: what is not there says that the node was set back. */
static int64_t check_marks(struct store *st, const struct logs_check *c)
{
	struct volume *v = st->vol;
	int64_t cnt = 0;

	for (size_t i = 0, all = volume_nodes(v); i < all; i++) {
		struct node *n = v->node[i];
		char what[256];

		if (c->stop && c->stop(c->stop_arg))
			return -ECANCELED;
		if (!node_writable(n) || older_ask(st, n) != 1)
			continue;
		snprintf(what, sizeof what,
			 "this device's mark on node %u is not there or not genuine: an older "
			 "copy of the node is back, or it was damaged",
			 node_number(n));
		c->found(c->arg, what);
		cnt++;
	}
	return cnt;
}

int64_t logs_check(struct store *st, const struct logs_check *c)
{
	struct checking k;

	int64_t r = begin(&k, st, c);
	if (!r) {
		struct blob_check bc = {.verify = verify,
					.verify_arg = &k,
					.found = say,
					.found_arg = &k,
					.stop = c->stop,
					.stop_arg = c->stop_arg,
					.missing = c->missing,
					.mend = c->mend,
					.bytes = c->bytes};

		r = check_blobs(st->vol, &bc);
	}
	verifier_release(&k.hv);
	/* The mend thread writes new marks on a mount, and looks after them itself. */
	int64_t marks = r < 0 || !c->missing ? 0 : check_marks(st, c);
	return marks < 0 ? marks : r + marks;
}
