/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "fs/members.h"

#include <limits.h>
#include <stdlib.h>
#include <unistd.h>
#include "cache/member.h"
#include "fs/secrets.h"
#include "net/probe.h"

#define PROBE_MS 60000
#define INIT_MS	 30000
#define STEP_MS	 1000
#define IDLE_MS	 60000
#define UNDO_MS	 5000

/* The configuration with nodes of its own: the mend thread may change the list. */
static int copy_nodes(struct drive *d, struct config *with)
{
	int err = 0;

	pthread_mutex_lock(&d->lock);
	*with = *d->cfg;
	with->node = NULL;
	with->node_cnt = 0;
	for (size_t i = 0; i < d->cfg->node_cnt && !err; i++)
		err = config_add_node(with, d->cfg->node[i].number, d->cfg->node[i].url,
				      strlen(d->cfg->node[i].url));
	pthread_mutex_unlock(&d->lock);
	return err;
}

static void free_nodes(struct config *with)
{
	for (size_t i = 0; i < with->node_cnt; i++)
		free(with->node[i].url);
	free(with->node);
}

void members_tell_creds(struct drive *d)
{
	struct publisher *p = drive_hold(d);

	if (!p)
		return;
	if (move_creds(p))
		log_warn("the list of nodes that lies on them gets the new credentials with the "
			 "next change of the nodes");
	drive_let_go(d);
}

int members_login(struct drive *d, const char *file, bool untried)
{
	struct creds *all = NULL;
	struct config with;

	int err = copy_nodes(d, &with);
	if (!err)
		err = secrets_update(&with, d->vol->keys, file, untried);
	if (!err)
		err = secrets_load(&with, d->vol->keys, &all);
	free_nodes(&with);
	if (!err) {
		err = volume_login(d->vol, all);
		if (err)
			log_fail(err, "out of memory: they are kept; give them again");
	}
	creds_unref(all);
	if (!err)
		members_tell_creds(d);
	return err;
}

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
	/* Kept before the database names the node. */
	if (!err && given) {
		err = copy_nodes(d, &with);
		if (!err)
			err = config_add_node(&with, number, url, strlen(url));
		if (!err)
			err = secrets_save(&with, v->keys, *out);
		free_nodes(&with);
	}
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

struct trial {
	const char *url; /* canonical */
	uint16_t number;
	bool wrote; /* something of it may be there */
	bool made;  /* the directory was not there before */
	bool (*give_up)(void *arg);
	void *arg;
};

/* The directory of a node's address, or NULL. */
static char *dir_of(const char *url)
{
	char *path = strncmp(url, "dir:", 4) ? NULL : strdup(url + 4);

	if (path)
		path[strcspn(path, "?")] = 0;
	return path;
}

/* All that a node is asked for is tried before it is marked, as when a volume is made. */
static int try_place(struct drive *d, struct node *n, struct trial *t)
{
	struct probe_result *r = malloc(sizeof *r);

	if (!r)
		return log_fail(-ENOMEM, "out of memory");
	int bad = probe_run(&n, 1, keys_vol(d->vol->keys), now_ms() + PROBE_MS, t->give_up,
			    t->arg, r);
	int err = bad == -ECANCELED ? log_fail(bad, "interrupted")
		  : bad < 0	    ? log_fail(bad, "out of memory")
		  : bad		    ? log_fail(r->err, "node %s: %s", t->url, r->why)
				    : 0;

	/* A probe that ends by itself takes its blobs away, or says that it cannot. */
	t->wrote = r->wrote && bad == -ECANCELED;
	if (!err && *r->warn)
		log_warn("node %s: %s", t->url, r->warn);
	free(r);
	return err;
}

static int delete_one(struct node *n, const char *name, int64_t deadline_ms)
{
	struct node_io *io = node_io_new(NODE_DEL, name);
	struct node_wait w;

	if (!io)
		return -ENOMEM;
	io->deadline_ms = deadline_ms;
	io->trusted = true;
	node_wait_init(&w);
	node_wait_submit(&w, n, io);
	io = node_wait_next(&w, deadline_ms + 1000);
	int err = io ? io->err : -ETIMEDOUT;
	node_io_unref(io);
	node_wait_release(&w);
	return err == -ENOENT ? 0 : err;
}

/*
 * The blobs of the trial and, when it is this node's, the marker, which goes last; a place
 * that is somebody else's by now is left alone.  0 when nothing is left.
 */
static int clear_place(struct drive *d, const struct trial *t, struct creds *creds)
{
	char small[BLOB_NAME_CAP], big[BLOB_NAME_CAP];
	const uint8_t *vol = keys_vol(d->vol->keys);
	int64_t end = now_ms() + UNDO_MS;
	struct node *n;

	/* Opened anew: what was under way through the other one has ended. */
	int err = node_open(&n, t->number, t->url, creds);
	if (err)
		return err;
	err = node_verify(n, vol, end);
	bool marked = !err;
	if (err == -ENOENT)
		err = 0;
	probe_names(vol, t->number, small, big);
	if (!err)
		err = delete_one(n, small, end);
	if (!err)
		err = delete_one(n, big, end);
	if (!err && marked)
		err = delete_one(n, NODE_MARKER, end);
	node_close(n);
	return err;
}

/* Directories that are empty, and the place itself when it was made for the trial. */
static void clear_dirs(const struct trial *t)
{
	static const char *const ours[] = {"v", "s", "l", "tmp"};
	char *path = dir_of(t->url), one[PATH_MAX];

	for (size_t i = 0; path && i < sizeof ours / sizeof *ours; i++)
		if ((size_t)snprintf(one, sizeof one, "%s/%s", path, ours[i]) < sizeof one)
			rmdir(one);
	if (path && t->made)
		rmdir(path);
	free(path);
}

/* After a trial that failed; the log line says why, and what is left if anything is. */
static int undo_place(struct drive *d, const struct trial *t, struct creds *creds, int err)
{
	char why[1024];

	snprintf(why, sizeof why, "%s", *log_last() ? log_last() : strerror(-err));
	int left = t->wrote ? clear_place(d, t, creds) : 0;
	if (!left)
		clear_dirs(t);
	return log_fail(err, "%s%s%s%s%s", why,
			err == -ECANCELED ? ": no node was added" : "",
			left ? "; what the trial wrote may be left at " : "",
			left ? t->url : "", left ? " (v/p..., v/node)" : "");
}

/* Opens the place, writes its marker and closes it: the drive opens it again when it joins. */
static int mark_place(struct drive *d, struct trial *t, struct creds *creds)
{
	struct node *n;
	int err = node_open(&n, t->number, t->url, creds);

	if (err)
		return err;
	char *path = dir_of(t->url);
	t->made = path && access(path, F_OK) < 0;
	free(path);
	err = try_place(d, n, t);
	if (!err) {
		t->wrote = true;
		err = node_init(n, keys_vol(d->vol->keys), now_ms() + INIT_MS);
		if (err && !*log_last())
			log_fail(err, "node %s: %s", t->url, strerror(-err));
	}
	if (!err && t->give_up && t->give_up(t->arg))
		err = log_fail(-ECANCELED, "interrupted");
	node_close(n);
	return err ? undo_place(d, t, creds, err) : 0;
}

static int prepare(struct drive *d, struct publisher *p, const struct member_change *c,
		   int64_t old, struct trial *t, char canon[NODE_URL_CAP], uint16_t *number)
{
	struct creds *creds = NULL;

	int err = node_check_url(c->url, canon);
	if (err)
		return err;
	err = check_new(d, canon);
	if (!err)
		err = move_number(p, number);
	if (!err && c->node)
		err = move_check_heir(p, (uint16_t)old, *number, canon);
	if (!err)
		err = take_creds(d, c, canon, *number, &creds);
	if (!err) {
		t->url = canon;
		t->number = *number;
		err = mark_place(d, t, creds);
	}
	if (!err)
		volume_set_creds(d->vol, creds);
	creds_unref(creds);
	return err;
}

static int begin(struct drive *d, struct publisher *p, struct member_change *c,
		 struct trial *t)
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
		int err = prepare(d, p, c, old, t, canon, &number);

		if (err)
			return err;
	}
	c->number = c->node ? (uint16_t)old : number;
	if (!strcmp(c->op, "add"))
		return move_add(p, number, canon, c->rebalance);
	bool was = false;
	int err = c->wipe ? move_wipe(p, (uint16_t)old, true, &was) : 0;
	if (err)
		return err;
	if (!strcmp(c->op, "drain"))
		err = move_drain(p, (uint16_t)old);
	else if (!strcmp(c->op, "remove"))
		err = move_remove(p, (uint16_t)old, c->lost);
	else
		err = move_replace(p, (uint16_t)old, number, canon);
	if (err && c->wipe && !was) {
		char why[1024];

		/* What is refused has changed nothing. */
		snprintf(why, sizeof why, "%s", log_last());
		move_wipe(p, (uint16_t)old, false, &was);
		return log_fail(err, "%s", why);
	}
	return err;
}

int members_begin(struct drive *d, struct member_change *c, bool (*give_up)(void *arg),
		  void *arg)
{
	struct trial t = {.give_up = give_up, .arg = arg};
	struct publisher *p = drive_hold(d);

	if (!p)
		return log_fail(-ESHUTDOWN, "the volume is being closed");
	int err = begin(d, p, c, &t);
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
