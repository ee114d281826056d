/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What commands ask of the members: checked, and written down for the mend thread. */
#include <stdlib.h>
#include "cache/cut.h"
#include "cache/member.h"
#include "cache/move.h"
#include "net/cond.h"

static int known(struct publisher *p, uint16_t number, struct node_spec **list, size_t *cnt,
		 size_t *at)
{
	int err = member_list(p->st, list, cnt);

	if (err)
		return log_fail(err, "the members cannot be read: %s", strerror(-err));
	for (*at = 0; *at < *cnt; (*at)++)
		if ((*list)[*at].number == number && (*list)[*at].member != NODE_GONE)
			return 0;
	return log_fail(-ENOENT, "node-%u is no node of this volume: see holdfast node list",
			number);
}

/* The same, for who wants no more than that. */
static int is_known(struct publisher *p, uint16_t number)
{
	struct node_spec *list;
	size_t cnt, at;
	int err = known(p, number, &list, &cnt, &at);

	member_list_free(list, cnt);
	return err;
}

/*
 * Without `but`, and with the heir in its place if there is one, could new segments have all
 * their shards?
 */
static int check_room(struct publisher *p, uint16_t but, const struct place_node *heir,
		      const char *verb)
{
	struct volume *v = p->st->vol;
	size_t all = volume_nodes(v), cnt = 0;
	struct place_node *pn = calloc(all + 1, sizeof *pn);

	if (!pn)
		return log_fail(-ENOMEM, "out of memory");
	for (size_t i = 0; i < all; i++)
		if (node_member(v->node[i]) == NODE_MEMBER && node_number(v->node[i]) != but)
			pn[cnt++] = (struct place_node){.node = node_number(v->node[i]),
							.weight = 1,
							.domain = node_domain(v->node[i]),
							.usable = true};
	if (heir)
		pn[cnt++] = *heir;
	int err = place_check(pn, cnt, v->k, v->m);
	free(pn);
	if (!err)
		return 0;
	char why[256];
	snprintf(why, sizeof why, "%s", log_last());
	return log_fail(-EBUSY,
			"node-%u cannot be %s: the drive would promise less than it does (%s): %s",
			but, verb, why,
			heir ? "give a place of another domain"
			     : "replace it (holdfast node replace), or add a node first "
			       "(holdfast node add)");
}

int move_check_heir(struct publisher *p, uint16_t old, uint16_t number, const char *url)
{
	struct node *n;
	/* It is asked for its domain alone: that touches no place. */
	int err = node_open(&n, number, url, NULL);

	if (err)
		return err;
	struct place_node heir = {.node = number,
				  .weight = 1,
				  .domain = node_domain(n),
				  .usable = true};
	node_close(n);
	return check_room(p, old, &heir, "replaced by this one");
}

/* The members as they are now count as a roster, so that the next one knows what was. */
static int begin_change_locked(struct store *st)
{
	struct roster r = {0};
	struct node_spec *list = NULL;
	size_t cnt = 0;
	int err = member_roster_locked(st, &r);

	/* One at a time: each roster follows from one that took effect. */
	if (member_kv_locked(st, "roster_due", 0)) {
		roster_release(&r);
		return log_fail(-EBUSY, "another change of the nodes is under way and waits for "
					"enough of them: see holdfast node list");
	}
	if (err == -ENOENT) {
		err = member_list_locked(st, &list, &cnt);
		for (size_t i = 0; i < cnt && !err; i++)
			err = roster_add(&r, list[i].number, list[i].member, list[i].url);
		if (!err)
			err = member_keep_roster_locked(st, &r);
		member_list_free(list, cnt);
	}
	roster_release(&r);
	return err ? err : member_put_kv_locked(st, "roster_due", 0, 1);
}

static int changed(struct publisher *p, int err)
{
	if (!err)
		err = store_commit(p->st);
	if (err == -EBUSY)
		return err;
	if (err)
		return log_fail(err, "the database cannot be written: %s", strerror(-err));
	publish_touch(p);
	publish_poke(p);
	return 0;
}

int move_number(struct publisher *p, uint16_t *out)
{
	struct node_spec *list;
	size_t cnt;
	int err = member_list(p->st, &list, &cnt);

	*out = 0;
	if (!err)
		*out = cnt ? (uint16_t)(list[cnt - 1].number + 1) : 1;
	member_list_free(list, cnt);
	if (!err && (*out >= NODE_NONE || cnt >= VOLUME_NODES_MAX))
		err = -ENOSPC;
	return err ? log_fail(err, "there is no number for another node: %s", strerror(-err)) : 0;
}

int64_t move_find(struct store *st, const char *what)
{
	struct node_spec *list;
	char canon[NODE_URL_CAP], name[32];
	int64_t number = -ENOENT;
	size_t cnt;
	int err = member_list(st, &list, &cnt);

	if (err)
		return log_fail(err, "the members cannot be read: %s", strerror(-err));
	if (!strchr(what, ':') || node_check_url(what, canon))
		canon[0] = 0;
	for (size_t i = 0; i < cnt; i++) {
		snprintf(name, sizeof name, "node-%u", list[i].number);
		if (list[i].member != NODE_GONE &&
		    (!strcmp(what, name) || !strcmp(what, name + 5) ||
		     !strcmp(what, list[i].url) || (*canon && !strcmp(canon, list[i].url))))
			number = list[i].number;
	}
	member_list_free(list, cnt);
	if (number < 0)
		log_fail(-ENOENT, "%s is no node of this volume: see holdfast node list", what);
	return number;
}

int move_add(struct publisher *p, uint16_t number, const char *url, bool rebalance)
{
	struct store *st = p->st;

	pthread_mutex_lock(&st->meta);
	int err = begin_change_locked(st);
	if (!err)
		err = member_set_locked(st, number, url, NODE_MEMBER);
	if (!err && rebalance)
		err = member_put_kv_locked(st, "rebalance", 0,
					   member_kv_locked(st, "rebalance", 0) + 1);
	pthread_mutex_unlock(&st->meta);
	return changed(p, err);
}

int move_creds(struct publisher *p)
{
	struct store *st = p->st;

	pthread_mutex_lock(&st->meta);
	int err = begin_change_locked(st);
	pthread_mutex_unlock(&st->meta);
	return changed(p, err);
}

int move_wipe(struct publisher *p, uint16_t number, bool on, bool *was)
{
	int err = is_known(p, number);

	if (err)
		return err;
	pthread_mutex_lock(&p->st->meta);
	*was = member_kv_locked(p->st, "wipe", number) != 0;
	err = member_put_kv_locked(p->st, "wipe", number, on);
	pthread_mutex_unlock(&p->st->meta);
	return changed(p, err);
}

/* No new shards from now on; what moves off it is kept there for a while. */
static int set_draining_locked(struct store *st, uint16_t number)
{
	int err = member_set_locked(st, number, NULL, NODE_DRAINING);

	return err ? err : member_put_kv_locked(st, "drained", number,
						(uint64_t)(realtime_ns() / 1000000000));
}

int move_drain(struct publisher *p, uint16_t number)
{
	struct store *st = p->st;
	struct node_spec *list;
	size_t cnt, at;
	int err = known(p, number, &list, &cnt, &at);
	bool already = !err && list[at].member == NODE_DRAINING;

	member_list_free(list, cnt);
	if (err || already)
		return err;
	err = check_room(p, number, NULL, "drained");
	if (err)
		return err;
	pthread_mutex_lock(&st->meta);
	err = begin_change_locked(st);
	if (!err)
		err = set_draining_locked(st, number);
	pthread_mutex_unlock(&st->meta);
	return changed(p, err);
}

/* Segments that would have fewer than k shards on nodes that can be read without this one. */
static int64_t would_lose(struct publisher *p, uint16_t number)
{
	struct store *st = p->st;
	struct volume *v = st->vol;
	bool *up = calloc(0x10000, sizeof *up);
	int64_t lost = 0;
	int more = 0;

	if (!up)
		return -ENOMEM;
	for (size_t i = 0, all = volume_nodes(v); i < all; i++)
		up[node_number(v->node[i])] = node_number(v->node[i]) != number &&
					      node_readable(v->node[i]);
	pthread_mutex_lock(&st->meta);
	sqlite3_stmt *q = store_stmt(st, "SELECT nodes,k,count(*) FROM segment WHERE kind IN (1,2,5) "
					 "GROUP BY nodes,k");
	while (q && (more = store_step(st, q)) == 1) {
		const uint8_t *nodes = sqlite3_column_blob(q, 0);
		int len = sqlite3_column_bytes(q, 0) / 2, have = 0;

		for (int i = 0; i < len; i++)
			have += up[get_le16(nodes + 2 * i)];
		if (have < sqlite3_column_int(q, 1))
			lost += sqlite3_column_int64(q, 2);
	}
	if (q)
		sqlite3_reset(q);
	pthread_mutex_unlock(&st->meta);
	free(up);
	return !q ? -EIO : more < 0 ? more : lost;
}

static int check_lost(struct publisher *p, uint16_t number)
{
	struct node *n = volume_node(p->st->vol, number);

	if (n && node_readable(n))
		return log_fail(-EBUSY,
				"node-%u answers, so it is not lost: drain it (holdfast node drain), "
				"then remove it",
				number);
	int64_t lose = would_lose(p, number);
	if (lose < 0)
		return log_fail((int)lose, "the segments cannot be counted: %s",
				strerror((int)-lose));
	if (lose)
		return log_fail(-EBUSY,
				"without node-%u %lld segments cannot be read from the nodes that "
				"answer now: attach the other nodes first",
				number, (long long)lose);
	return 0;
}

int move_remove(struct publisher *p, uint16_t number, bool lost)
{
	struct store *st = p->st;
	struct node_spec *list;
	size_t cnt, at;
	uint64_t bytes;
	int err = known(p, number, &list, &cnt, &at);
	bool draining = !err && list[at].member == NODE_DRAINING;

	member_list_free(list, cnt);
	/* With a heir it goes by itself. */
	if (err)
		return err;
	err = check_room(p, number, NULL, "removed");
	if (!err && lost)
		err = check_lost(p, number);
	int64_t on = err || lost ? 0 : move_shards_on(st, number, &bytes);
	if (on < 0)
		return log_fail((int)on, "the shards cannot be counted");
	if (on)
		err = log_fail(-EBUSY,
			       "node-%u holds %lld shards (%.1f MB): drain it first (holdfast "
			       "node drain), or replace it (holdfast node replace); if it is gone "
			       "for good: --lost",
			       number, (long long)on, (double)bytes / 1e6);
	if (err)
		return err;
	pthread_mutex_lock(&st->meta);
	err = begin_change_locked(st);
	/* No new shards while it is on its way out. */
	if (!err && !draining)
		err = set_draining_locked(st, number);
	if (!err)
		err = member_put_kv_locked(st, "leave", number, lost ? 2 : 1);
	pthread_mutex_unlock(&st->meta);
	return changed(p, err);
}

int move_replace(struct publisher *p, uint16_t old, uint16_t heir, const char *url)
{
	struct store *st = p->st;
	int err = is_known(p, old);

	if (err)
		return err;
	pthread_mutex_lock(&st->meta);
	err = begin_change_locked(st);
	if (!err)
		err = member_set_locked(st, heir, url, NODE_MEMBER);
	if (!err)
		err = set_draining_locked(st, old);
	if (!err)
		err = member_put_kv_locked(st, "heir", old, heir);
	pthread_mutex_unlock(&st->meta);
	return changed(p, err);
}

int move_get(struct publisher *p, uint16_t number, struct move_status *out)
{
	struct store *st = p->st;
	struct node_spec *list;
	size_t cnt;

	*out = (struct move_status){0};
	int64_t on = move_shards_on(st, number, &out->bytes);
	int err = on < 0 ? (int)on : member_list(st, &list, &cnt);
	if (err)
		return log_fail(err, "the members cannot be read: %s", strerror(-err));
	out->shards = (uint64_t)on;
	for (size_t i = 0; i < cnt; i++)
		if (list[i].number == number)
			out->member = list[i].member;
	member_list_free(list, cnt);
	struct node *n = volume_node(st->vol, number);

	pthread_mutex_lock(&st->meta);
	out->joined = !member_kv_locked(st, "roster_due", 0) &&
		      (out->member == NODE_GONE
			       ? !n || node_member(n) == NODE_GONE
			       : n && node_member(n) == (enum node_member)out->member);
	out->leaving = member_kv_locked(st, "leave", number) ||
		       member_kv_locked(st, "heir", number);
	out->rebalancing = member_kv_locked(st, "rebalance", 0) != 0;
	pthread_mutex_unlock(&st->meta);
	int64_t old = move_old_copies(p, number);
	out->old_copies = old > 0 ? (uint64_t)old : 0;
	pthread_mutex_lock(&p->lock);
	memcpy(out->reason, p->move_reason, sizeof out->reason);
	pthread_mutex_unlock(&p->lock);
	return 0;
}

void move_wait(struct publisher *p, int64_t ms)
{
	int64_t until = now_ms() + ms;

	pthread_mutex_lock(&p->lock);
	uint64_t rounds = p->move_rounds;
	while (!p->stopping && !p->stopped && p->move_rounds == rounds &&
	       cond_until(&p->cond, &p->lock, until) != ETIMEDOUT)
		;
	pthread_mutex_unlock(&p->lock);
}
