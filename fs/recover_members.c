/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * From the nodes that the kit knows to those that the drive has now: header, then the roster
 * that holds (net/roster.h), then the nodes it names, until nothing newer is shown.
 */
#include <stdlib.h>
#include "fs/recover.h"
#include "fs/secrets.h"

#define NODE_MS	 10000
#define AGAIN_MS 2000
#define ROUNDS	 64

static int devices_of(const struct recover *r, struct hist_device **out)
{
	*out = calloc(HF_MAX(r->head.device_cnt, (size_t)1), sizeof **out);
	if (!*out)
		return log_fail(-ENOMEM, "out of memory");
	for (size_t i = 0; i < r->head.device_cnt; i++) {
		(*out)[i].number = r->head.device[i].number;
		(*out)[i].retired = r->head.device[i].role == 3;
		memcpy((*out)[i].ed_pk, r->head.device[i].ed_pk, 32);
	}
	return 0;
}

/* True in *more when it says something new of where nodes are. */
static int take_node(struct recover *r, const struct rec_node *n, bool *more)
{
	const char *url = (const char *)n->url;

	if (n->member == NODE_GONE)
		return 0;
	for (size_t i = 0; i < r->node_cnt; i++)
		if (r->node[i].number == n->number &&
		    (r->node[i].given || !strcmp(r->node[i].url, url)))
			return 0;
	*more = true;
	return recover_add_node(r, n->number, url, n->url_len, false);
}

/* What the roster has is newer than the kit; what the command line gives holds against both. */
static int take_creds(struct recover *r)
{
	struct creds *c = NULL, *low = NULL, *given = NULL, *all = NULL;

	if (!r->roster.creds.len)
		return 0;
	int err = creds_new(&c);
	if (!err)
		err = creds_read_ini(c, (const char *)r->roster.creds.p, r->roster.creds.len,
				     "the nodes' own list");
	if (!err)
		err = secrets_merge(r->creds, c, &low);
	if (!err && r->credentials) {
		err = creds_new(&given);
		if (!err)
			err = creds_read_file(given, r->credentials);
	}
	if (!err)
		err = secrets_merge(low, given, &all);
	if (!err) {
		creds_unref(r->creds);
		r->creds = all;
		creds_ref(all);
	}
	creds_unref(c);
	creds_unref(low);
	creds_unref(given);
	creds_unref(all);
	return err;
}

static int find(struct recover *r, const struct keys *keys, bool *found)
{
	struct node **node = calloc(HF_MAX(r->node_cnt, (size_t)1), sizeof *node);
	struct hist_device *dev = NULL;
	struct node_wait w;
	struct node_io *io;
	size_t cnt = 0;
	int64_t slowest = 0;
	bool silent = false;
	int err = node ? devices_of(r, &dev) : log_fail(-ENOMEM, "out of memory");

	*found = false;
	for (size_t i = 0; i < r->node_cnt && !err; i++)
		/* One that cannot even be opened is one that does not answer. */
		cnt += !node_open(&node[cnt], r->node[i].number, r->node[i].url, r->creds);
	int64_t end = now_ms() + NODE_MS;
	node_wait_init(&w);
	for (size_t i = 0; i < cnt && !err && (io = node_verify_io(end)); i++) {
		io->tag = (unsigned)i;
		node_wait_submit(&w, node[i], io);
	}
	while (w.pending && (io = node_wait_next(&w, end + 1000))) {
		node_verify_end(node[io->tag], r->kit->vol, io);
		silent |= io->err == -ETIMEDOUT;
		if (io->err != -ETIMEDOUT)
			slowest = HF_MAX(slowest, io->end_ms - io->start_ms);
		node_io_unref(io);
	}
	node_wait_release(&w);
	/* Who said nothing in all that time is not waited for as long once more. */
	r->look_ms = silent ? HF_MIN(HF_MAX(4 * slowest, (int64_t)AGAIN_MS), (int64_t)NODE_MS)
			    : NODE_MS;
	roster_release(&r->roster);
	if (!err)
		err = roster_find(node, cnt, keys, dev, r->head.device_cnt, now_ms() + NODE_MS,
				  &r->roster, found, NULL);
	if (err == -ENOTSUP)
		log_fail(err, "the drive was written by a newer version of holdfast");
	while (cnt)
		node_close(node[--cnt]);
	free(node);
	free(dev);
	return err;
}

/* The header's list becomes the present one. */
static int take_roster(struct recover *r)
{
	for (size_t i = 0; i < r->head.node_cnt; i++)
		free((void *)(uintptr_t)r->head.node[i].url);
	free(r->head.node);
	r->head.node_cnt = 0;
	r->head.node = calloc(HF_MAX(r->roster.node_cnt, (size_t)1), sizeof *r->head.node);
	if (!r->head.node)
		return log_fail(-ENOMEM, "out of memory");
	for (size_t i = 0; i < r->roster.node_cnt; i++) {
		struct rec_node *n = &r->head.node[i];

		*n = r->roster.node[i];
		n->url = (const uint8_t *)strdup((const char *)n->url);
		if (!n->url)
			return log_fail(-ENOMEM, "out of memory");
		r->head.node_cnt++;
	}
	return 0;
}

int recover_follow(struct recover *r, struct keys **keys)
{
	bool more = true;
	int err = 0;

	*keys = NULL;
	for (int round = 0; more && !err; round++) {
		keys_free(*keys);
		*keys = NULL;
		more = false;
		header_release(&r->head);
		buf_reset(&r->head_bytes);
		if (round == ROUNDS)
			return log_fail(-EBADMSG, "the nodes lead from one list to another "
						  "without an end");
		err = recover_fetch_header(r);
		if (!err)
			err = recover_open_header(r, keys);
		for (size_t i = 0; i < r->head.node_cnt && !err; i++) {
			bool known = false;

			/* What a roster said of it before is newer. */
			for (size_t j = 0; j < r->node_cnt && r->has_roster; j++)
				known |= r->node[j].number == r->head.node[i].number;
			if (!known)
				err = take_node(r, &r->head.node[i], &more);
		}
		if (!err)
			err = find(r, *keys, &r->has_roster);
		for (size_t i = 0; i < r->roster.node_cnt && !err && r->has_roster; i++)
			err = take_node(r, &r->roster.node[i], &more);
		if (!err && r->has_roster)
			err = take_creds(r);
	}
	if (!err && r->has_roster)
		err = take_roster(r);
	return err;
}

/* What comes after the one that was found, or after the header's list. */
static int next_roster(struct recover *r, const struct keys *k, struct roster *out)
{
	uint64_t count = r->has_roster ? r->roster.generation >> 16 : 0;
	int err = 0;

	*out = (struct roster){.generation = (count + 1) << 16 | keys_device(k)};
	for (size_t i = 0; i < r->head.node_cnt && !err; i++)
		err = roster_add(out, r->head.node[i].number, r->head.node[i].member,
				 (const char *)r->head.node[i].url);
	if (!err && r->creds)
		err = secrets_text(r->creds, &out->creds);
	if (err)
		roster_release(out);
	return err ? log_fail(err, "the list of nodes: %s", strerror(-err)) : 0;
}

int recover_keep_roster(struct recover *r, const struct keys *k, struct store *st)
{
	struct roster next;
	int err = next_roster(r, k, &next);

	if (!err)
		err = member_take_roster(st, &next);
	roster_release(&next);
	return err;
}

int recover_put_roster(struct recover *r, struct volume *v)
{
	struct volume_view view = volume_view(v);
	bool *answered = calloc(HF_MAX(view.cnt, (size_t)1), sizeof *answered), found = false;
	struct roster now = {0}, next = {0};
	struct hist_device *dev = NULL;
	size_t cnt = 0;
	int err = answered ? devices_of(r, &dev) : log_fail(-ENOMEM, "out of memory");

	/* Asked again after our markers are stored: see put_roster in cache/join.c. */
	if (!err)
		err = roster_find(v->node, view.cnt, v->keys, dev, r->head.device_cnt,
				  now_ms() + NODE_MS, &now, &found, answered);
	for (size_t i = 0; i < view.cnt && !err; i++)
		cnt += answered[i];
	if (!err && cnt < view.need)
		err = log_fail(-ENODATA, "%zu of %zu nodes show their list of nodes, %zu are needed",
			       cnt, view.members, view.need);
	if (!err && (found != r->has_roster ||
		     (found && now.generation != r->roster.generation)))
		err = log_fail(-EAGAIN,
			       "the nodes of the drive were changed meanwhile by the machine that had "
			       "it: run recover again");
	if (!err)
		err = next_roster(r, v->keys, &next);
	if (!err) {
		err = roster_put(v, r->has_roster ? &r->roster : NULL, &next);
		if (err)
			log_fail(err, "the list of nodes cannot be stored on enough nodes: %s",
				 strerror(-err));
	}
	roster_release(&now);
	roster_release(&next);
	free(answered);
	free(dev);
	return err;
}
