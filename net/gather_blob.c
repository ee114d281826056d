/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "net/gather.h"

#include <stdlib.h>

#define BLOB_MS	     30000
#define LIST_MS	     60000
#define GRACE_MIN_MS 2000
#define GRACE_TIMES  3

struct blob_query {
	struct volume *v;
	const char *name;
	size_t cap;
	size_t cnt;  /* nodes that are asked */
	bool *asked; /* by index of node */
	struct node_wait wait;
	int64_t deadline_ms;
};

/* Asks node i when it may know; true when it was asked. */
static bool ask(struct blob_query *q, size_t i)
{
	struct node *n = q->v->node[i];
	struct node_io *io;

	if (q->asked[i] || !node_readable(n) || !(io = node_io_new(NODE_GET, q->name)))
		return false;
	/* One byte more than allowed, so that a longer copy is noticed. */
	io->len = q->cap + 1;
	io->deadline_ms = q->deadline_ms;
	q->asked[i] = true;
	node_wait_submit(&q->wait, n, io);
	return true;
}

static void ask_all(struct blob_query *q)
{
	for (size_t i = 0; i < q->cnt; i++)
		ask(q, i);
}

int gather_blob(struct volume *v, const char *name, size_t cap,
		int (*verify)(void *arg, const void *p, size_t len), void *arg, struct buf *out)
{
	struct volume_view view = volume_view(v);
	struct blob_query q = {.v = v, .name = name, .cap = cap, .cnt = view.cnt,
			       .deadline_ms = now_ms() + BLOB_MS};
	/* With this many answers at least one is of a node that took part in the quorum. */
	size_t enough = HF_MAX((size_t)v->quorum, view.need);
	unsigned absent = 0, bad = 0;
	int64_t hedge = q.deadline_ms;
	int err = -ENODATA;
	size_t first = 0;

	q.asked = calloc(HF_MAX(q.cnt, (size_t)1), sizeof *q.asked);
	if (!q.asked)
		return -ENOMEM;
	node_wait_init(&q.wait);
	/* One node is enough when all is well; names spread the load. */
	for (const char *c = name; *c; c++)
		first = first * 31 + (uint8_t)*c;
	for (int slow_too = 0; slow_too <= 1 && !q.wait.pending; slow_too++) {
		for (size_t j = 0; j < q.cnt && !q.wait.pending; j++) {
			size_t i = (first + j) % q.cnt;
			if (slow_too || node_state(v->node[i]) != NODE_SLOW)
				if (ask(&q, i))
					hedge = now_ms() + node_hedge_ms(v->node[i]);
		}
	}
	while (q.wait.pending && err == -ENODATA) {
		struct node_io *io = node_wait_next(&q.wait, HF_MIN(hedge, q.deadline_ms));
		if (!io) {
			if (now_ms() >= q.deadline_ms)
				break;
			ask_all(&q);
			hedge = q.deadline_ms;
			continue;
		}
		if (!io->err && io->got <= cap && verify(arg, io->buf, io->got) == 0) {
			size_t before = out->len;
			buf_put(out, io->buf, io->got);
			err = out->err;
			if (err)
				out->len = before;
		} else {
			if (!io->err) {
				bad++;
				node_lied(io->node, name);
			} else if (io->err == -ENOENT) {
				absent++;
			}
			ask_all(&q);
			hedge = q.deadline_ms;
			/* Absence is believed only when nobody shows even a bad copy. */
			if (absent >= enough && !bad)
				err = -ENOENT;
		}
		node_io_unref(io);
	}
	node_wait_release(&q.wait);
	free(q.asked);
	if (err == -ENODATA && bad)
		err = -EBADMSG;
	return err;
}

/* --- lists --- */

static int cmp_name(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Each distinct name once; all holds names, 0-terminated, of every node. */
static int report(const struct buf *all, int (*cb)(void *arg, const char *name, unsigned copies),
		  void *arg)
{
	size_t cnt = 0, at = 0;
	int err = 0;

	for (size_t i = 0; i < all->len; i++)
		cnt += all->p[i] == 0;
	const char **name = malloc(HF_MAX(cnt, (size_t)1) * sizeof *name);
	if (!name)
		return -ENOMEM;
	for (size_t i = 0; i < cnt; i++) {
		name[i] = (const char *)all->p + at;
		at += strlen(name[i]) + 1;
	}
	qsort(name, cnt, sizeof *name, cmp_name);
	for (size_t i = 0, j; i < cnt && !err; i = j) {
		for (j = i + 1; j < cnt && !strcmp(name[i], name[j]); j++)
			;
		err = cb(arg, name[i], (unsigned)(j - i));
	}
	free(name);
	return err;
}

int gather_list(struct volume *v, const char *prefix, unsigned *answered,
		int (*cb)(void *arg, const char *name, unsigned copies), void *arg)
{
	int64_t start = now_ms(), end = start + LIST_MS;
	struct buf all = {0};
	unsigned cnt = 0;
	struct node_wait w;
	struct node_io *io;

	if (answered)
		*answered = 0;
	node_wait_init(&w);
	struct volume_view view = volume_view(v);
	for (size_t i = 0; i < view.cnt; i++) {
		if (!node_readable(v->node[i]) || !(io = node_io_new(NODE_LIST, prefix)))
			continue;
		io->deadline_ms = end;
		node_wait_submit(&w, v->node[i], io);
	}
	while (w.pending && (io = node_wait_next(&w, end))) {
		if (!io->err) {
			cnt++;
			buf_put(&all, io->list.p, io->list.len);
			/* When every K nodes' worth has answered, the last ones are not awaited long. */
			int64_t took = now_ms() - start;
			if (cnt + v->m >= view.members)
				end = HF_MIN(end, now_ms() + HF_MAX((int64_t)GRACE_MIN_MS,
								    GRACE_TIMES * took));
		}
		node_io_unref(io);
	}
	node_wait_release(&w);
	int err = all.err ? all.err : report(&all, cb, arg);
	buf_release(&all);
	if (answered)
		*answered = cnt;
	return err;
}
