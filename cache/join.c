/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The rows of nodes become a roster, and that the nodes of the open volume. */
#include <stdlib.h>
#include "cache/cut.h"
#include "cache/member.h"
#include "cache/move.h"

#define FIND_MS 30000

static int roster_of_rows(struct publisher *p, const struct roster *was, struct roster *out)
{
	struct volume *v = p->st->vol;
	struct roster found;
	struct node_spec *list = NULL;
	uint64_t count = was->generation >> 16;
	size_t cnt = 0;
	bool there;

	*out = (struct roster){0};
	/* A database that was made anew does not know how far this machine had counted. */
	int err = roster_find(v->node, volume_nodes(v), v->keys, p->opts.devices,
			      p->opts.device_cnt, now_ms() + FIND_MS, &found, &there, NULL);
	if (!err && there)
		count = HF_MAX(count, found.generation >> 16);
	roster_release(&found);
	if (!err)
		err = member_list(p->st, &list, &cnt);
	out->generation = (count + 1) << 16 | p->st->device;
	for (size_t i = 0; i < cnt && !err; i++)
		err = roster_add(out, list[i].number, list[i].member, list[i].url);
	struct creds *creds = volume_creds(v);
	if (!err && creds)
		err = creds_text(creds, &out->creds);
	creds_unref(creds);
	member_list_free(list, cnt);
	if (err)
		roster_release(out);
	return err;
}

static int put_roster(struct publisher *p)
{
	struct store *st = p->st;
	struct roster was, next = {0};

	pthread_mutex_lock(&st->meta);
	bool due = member_kv_locked(st, "roster_due", 0) != 0;
	int err = due ? member_roster_locked(st, &was) : 0;

	pthread_mutex_unlock(&st->meta);
	if (!due || err)
		return err;
	err = roster_of_rows(p, &was, &next);
	if (!err)
		err = roster_put(st->vol, &was, &next);
	if (err == -EAGAIN)
		move_say(p, "waiting for nodes: too few can be written to change the members");
	/*
	 * Who takes the drive over at this moment counts the members it read: either it sees this
	 * roster when it looks again after its marker is stored, or its marker is seen here.
	 */
	if (!err) {
		uint16_t by;

		err = history_check(st->vol, st->device, p->opts.owner_pk, &by);
		if (err == 1)
			err = -ESTALE;
	}
	if (!err) {
		pthread_mutex_lock(&st->meta);
		err = member_keep_roster_locked(st, &next);
		if (!err)
			err = member_put_kv_locked(st, "roster_due", 0, 0);
		pthread_mutex_unlock(&st->meta);
		if (!err)
			err = store_commit(st);
		if (!err)
			roster_trim(st->vol, was.generation);
	}
	roster_release(&was);
	roster_release(&next);
	return err;
}

static int join(struct publisher *p, const struct node_spec *s)
{
	struct volume *v = p->st->vol;
	struct node *n;
	struct creds *creds = volume_creds(v);
	int err = node_open(&n, s->number, s->url, creds);

	creds_unref(creds);
	if (err)
		return err;
	node_set_member(n, s->member);
	node_verify(n, keys_vol(v->keys), now_ms() + 5000);
	err = volume_add(v, n);
	if (err)
		node_close(n);
	return err;
}

/* The volume as the roster that is in effect has it. */
static int open_members(struct publisher *p, bool *changed)
{
	struct volume *v = p->st->vol;
	struct node_spec *list;
	size_t cnt;
	int err = member_list(p->st, &list, &cnt);

	for (size_t i = 0; i < cnt && !err; i++) {
		struct node *n = volume_node(v, list[i].number);

		if (!n && list[i].member != NODE_GONE) {
			err = join(p, &list[i]);
			*changed = true;
		} else if (n && node_member(n) != NODE_LEAVING &&
			   node_member(n) != (enum node_member)list[i].member) {
			node_set_member(n, list[i].member);
			*changed = true;
		} else if (n && node_member(n) == NODE_LEAVING && list[i].member == NODE_GONE) {
			node_set_member(n, NODE_GONE);
			log_info("node %s is no member any more", node_name(n));
			*changed = true;
		}
	}
	member_list_free(list, cnt);
	return err;
}

int join_step(struct publisher *p)
{
	bool changed = false;
	int err = put_roster(p);

	if (!err)
		err = open_members(p, &changed);
	if (changed && p->opts.members_changed)
		p->opts.members_changed(p->opts.members_arg);
	if (changed)
		publish_poke(p);
	return err;
}
