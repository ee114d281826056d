/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "fs/members.h"

#include <stdlib.h>
#include "cache/member.h"
#include "fs/secrets.h"
#include "net/probe.h"

#define PROBE_MS 60000
#define INIT_MS	 30000
#define STEP_MS	 1000
#define IDLE_MS	 60000

/* What opens the new node: what is known already, and --credentials over it. */
static int take_creds(struct drive *d, const struct member_change *c, const char *url,
		      uint16_t number, struct creds **out)
{
	struct volume *v = d->vol;
	struct creds *given = NULL, *have = volume_creds(v);
	struct config with;

	*out = NULL;
	int err = c->credentials || secrets_remote(url) ? secrets_read(c->credentials, &given) : 0;
	if (!err && given)
		err = secrets_merge(have, given, out);
	if (!err && !given) {
		*out = have;
		creds_ref(*out);
	}
	creds_unref(have);
	if (!err)
		err = secrets_check(*out, url);
	/* Kept before the database names the node.  The mend thread may change the list. */
	pthread_mutex_lock(&d->lock);
	with = *d->cfg;
	with.node = NULL;
	with.node_cnt = 0;
	for (size_t i = 0; i < d->cfg->node_cnt && !err && given; i++)
		err = config_add_node(&with, d->cfg->node[i].number, d->cfg->node[i].url,
				      strlen(d->cfg->node[i].url));
	pthread_mutex_unlock(&d->lock);
	if (!err && given)
		err = config_add_node(&with, number, url, strlen(url));
	if (!err && given)
		err = secrets_save(&with, v->keys, *out);
	for (size_t i = 0; i < with.node_cnt; i++)
		free(with.node[i].url);
	free(with.node);
	creds_unref(given);
	return err;
}

/* Is it, as its address says, no place that this volume has already? */
static int check_new(struct drive *d, const char *url)
{
	int err = 0;

	pthread_mutex_lock(&d->lock);
	for (size_t i = 0; i < d->cfg->node_cnt && !err; i++) {
		const struct node_spec *n = &d->cfg->node[i];
		int how = probe_overlap(n->url, url);

		if (how == 1)
			err = log_fail(-EEXIST, "%s is a node of this volume already: node-%u", url,
				       n->number);
		else if (how)
			err = log_fail(-EEXIST,
				       "%s and node-%u (%s) lie one within the other: each node "
				       "needs a place of its own",
				       url, n->number, n->url);
	}
	pthread_mutex_unlock(&d->lock);
	return err;
}

/* All that a node is asked for is tried before it is marked, as when a volume is made. */
static int try_place(struct drive *d, struct node *n, const char *url)
{
	struct probe_result *r = malloc(sizeof *r);

	if (!r)
		return log_fail(-ENOMEM, "out of memory");
	int bad = probe_run(&n, 1, keys_vol(d->vol->keys), now_ms() + PROBE_MS, NULL, r);
	int err = bad < 0 ? log_fail(bad, "out of memory")
		  : bad	  ? log_fail(r->err, "node %s: %s", url, r->why)
			  : 0;

	if (!err && *r->warn)
		log_warn("node %s: %s", url, r->warn);
	free(r);
	return err;
}

/* Opens the place, writes its marker and closes it: the drive opens it again when it joins. */
static int prepare(struct drive *d, struct publisher *p, const struct member_change *c,
		   char canon[NODE_URL_CAP], uint16_t *number)
{
	struct creds *creds = NULL;
	struct node *n;

	int err = node_check_url(c->url, canon);
	if (err)
		return err;
	err = check_new(d, canon);
	if (!err)
		err = move_number(p, number);
	if (!err)
		err = take_creds(d, c, canon, *number, &creds);
	if (!err)
		err = node_open(&n, *number, canon, creds);
	if (!err) {
		err = try_place(d, n, canon);
		if (!err) {
			err = node_init(n, keys_vol(d->vol->keys), now_ms() + INIT_MS);
			if (err && !*log_last())
				log_fail(err, "node %s: %s", canon, strerror(-err));
		}
		node_close(n);
	}
	if (!err)
		volume_set_creds(d->vol, creds);
	creds_unref(creds);
	return err;
}

static int begin(struct drive *d, struct publisher *p, struct member_change *c)
{
	char canon[NODE_URL_CAP];
	uint16_t number = 0;
	int64_t old = 0;

	if (c->node) {
		old = move_find(d->st, c->node);
		if (old < 0)
			return (int)old;
	}
	if (c->url) {
		int err = prepare(d, p, c, canon, &number);

		if (err)
			return err;
	}
	c->number = c->node ? (uint16_t)old : number;
	if (!strcmp(c->op, "add"))
		return move_add(p, number, canon, c->rebalance);
	if (!strcmp(c->op, "drain"))
		return move_drain(p, (uint16_t)old);
	if (!strcmp(c->op, "remove"))
		return move_remove(p, (uint16_t)old, c->lost);
	return move_replace(p, (uint16_t)old, number, canon);
}

int members_begin(struct drive *d, struct member_change *c)
{
	struct publisher *p = drive_hold(d);

	if (!p)
		return log_fail(-ESHUTDOWN, "the volume is being closed");
	int err = begin(d, p, c);
	drive_let_go(d);
	return err;
}

static bool done(const struct member_change *c, const struct move_status *ms)
{
	if (!ms->joined)
		return false;
	if (!strcmp(c->op, "add"))
		return !c->rebalance || !ms->rebalancing;
	if (!strcmp(c->op, "drain"))
		return ms->member == NODE_GONE || (!ms->shards && !ms->old_copies);
	return ms->member == NODE_GONE && !ms->leaving;
}

int members_wait(struct drive *d, const struct member_change *c, bool (*give_up)(void *arg),
		 int (*progress)(void *arg, const struct move_status *ms), void *arg)
{
	struct move_status ms = {0}, was = {0};
	int64_t moved = now_ms();
	bool first = true;

	for (;;) {
		struct publisher *p = drive_hold(d);
		if (!p)
			return log_fail(-ECANCELED, "the volume is being closed: the rest is done "
						    "after its next start");
		if (!first)
			move_wait(p, STEP_MS);
		first = false;
		int err = move_get(p, c->number, &ms);
		struct publish_status ps;
		publish_get_status(p, &ps);
		drive_let_go(d);
		if (err)
			return err;
		if (done(c, &ms))
			return 0;
		if (ps.stopped)
			return log_fail(-ESTALE, "%s", ps.reason);
		if (ms.shards != was.shards || ms.old_copies != was.old_copies ||
		    ms.joined != was.joined || ms.member != was.member)
			moved = now_ms();
		was = ms;
		if (now_ms() - moved > IDLE_MS)
			return log_fail(-ETIMEDOUT,
					"nothing has moved for a minute, %llu shards are left: %s; "
					"the drive goes on with it by itself while it is mounted",
					(unsigned long long)ms.shards,
					*ms.reason  ? ms.reason
					: *ps.reason ? ps.reason
						     : "see holdfast status");
		if (give_up && give_up(arg))
			return log_fail(-ECANCELED, "stopped before its end: the drive goes on "
						    "with it after its next start");
		err = progress ? progress(arg, &ms) : 0;
		if (err)
			return err;
	}
}
