/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The commit that is built: its row, committed before the first byte of it leaves (L3), so that
 * whatever is sent again, also by a later run, is identical; then on enough nodes.
 */
#include <stdlib.h>
#include "cache/cut.h"
#include "cache/member.h"

#define PENDING_VERSION 1

static int head_of(struct cut *c, struct hist_head *h)
{
	struct buf hash = {0};
	int r;

	*h = (struct hist_head){.device = c->st->device,
				.seq = c->seq,
				.lamport = c->lamport,
				.time_ns = realtime_ns()};
	pthread_mutex_lock(&c->st->meta);
	r = member_seen_locked(c->st, h);
	if (!r && c->seq > 1) {
		r = store_get_blob(c->st, "log_hash", &hash);
		if (!r && hash.len == HASH_LEN)
			memcpy(h->prev, hash.p, HASH_LEN);
		else
			r = log_fail(-EBADMSG,
				     "the database lacks the hash of the last commit");
	}
	pthread_mutex_unlock(&c->st->meta);
	buf_release(&hash);
	return r;
}

int pending_build(struct cut *c, struct pending *pd)
{
	struct volume *v = c->st->vol;
	struct backoff backoff = publish_backoff(c->p);
	int r = head_of(c, &pd->head);

	pd->epoch = c->epoch;
	while (!r && (r = history_build(v, &pd->head, c->s.w, &pd->obj, &pd->part,
					&pd->part_cnt)) == -EAGAIN) {
		char why[128];

		snprintf(why, sizeof why,
			 "waiting for nodes: %u of %zu can take shards, %u are needed",
			 volume_usable(v), volume_members(v), v->k);
		buf_reset(&pd->obj);
		r = publish_pause(c->p, &backoff, why);
	}
	return r;
}

static void encode(struct buf *b, const struct hist_head *h)
{
	buf_u8(b, PENDING_VERSION);
	buf_u16(b, h->device);
	buf_u64(b, h->seq);
	buf_u64(b, h->lamport);
	buf_u64(b, (uint64_t)h->time_ns);
}

static int decode(const void *p, size_t len, struct hist_head *h)
{
	struct rd r = rd_over(p, len);

	*h = (struct hist_head){0};
	if (rd_u8(&r) != PENDING_VERSION)
		return -EBADMSG;
	h->device = rd_u16(&r);
	h->seq = rd_u64(&r);
	h->lamport = rd_u64(&r);
	h->time_ns = (int64_t)rd_u64(&r);
	return r.bad || rd_left(&r) ? -EBADMSG : 0;
}

int pending_write(struct cut *c, const struct pending *pd)
{
	struct store *st = c->st;
	struct buf head = {0};
	uint64_t since = 0;

	encode(&head, &pd->head);
	pthread_mutex_lock(&st->meta);
	int r = head.err ? head.err : store_get_u64(st, "log_since", &since);
	if (r == -ENOENT)
		r = 0;
	since += pd->obj.len;
	for (size_t i = 0; !r && i < pd->part_cnt; i++) {
		since += pd->part[i].geom.len;
		r = segment_insert_locked(st, c->p->next_seg++, &pd->part[i], SEG_RECORDS,
					  pd->head.seq, c->epoch, NULL);
	}
	if (!r)
		r = store_put_u64(st, "log_since", since);
	sqlite3_stmt *q = r ? NULL
			    : store_stmt(st, "INSERT INTO pending(seq,epoch,head,object) "
					     "VALUES(?1,?2,?3,?4)");
	if (!r && !q)
		r = -EIO;
	if (!r) {
		sqlite3_bind_int64(q, 1, (int64_t)pd->head.seq);
		sqlite3_bind_int64(q, 2, (int64_t)c->epoch);
		sqlite3_bind_blob64(q, 3, head.p, head.len, SQLITE_STATIC);
		sqlite3_bind_blob64(q, 4, pd->obj.p, pd->obj.len, SQLITE_STATIC);
		r = store_run(st, q);
	}
	pthread_mutex_unlock(&st->meta);
	buf_release(&head);
	/* Even if this fails the row may be on the disk: the cut is not undone below it. */
	c->committed = !r;
	return r ? r : store_commit(st);
}

/* PUT until it is on enough nodes, then see again that nobody took over meanwhile. */
int pending_put(struct publisher *p, const struct pending *pd)
{
	struct volume *v = p->st->vol;
	struct backoff backoff = publish_backoff(p);
	int r = publish_check(p);

	while (!r && (r = history_put(v, &pd->head, &pd->obj)) == -EAGAIN) {
		char why[128];

		if (p->opts.skip_quorum) {
			r = 0;
			break;
		}
		snprintf(why, sizeof why,
			 "waiting for nodes: %u of %zu can be written, a commit needs %u",
			 volume_writable(v), volume_members(v), v->quorum);
		r = publish_pause(p, &backoff, why);
	}
	return r ? r : publish_check(p);
}

int pending_read(struct store *st, struct pending *pd)
{
	pthread_mutex_lock(&st->meta);
	sqlite3_stmt *q = store_stmt(st, "SELECT epoch,head,object FROM pending");
	int r = q ? store_step(st, q) : -EIO;

	if (r == 1) {
		pd->epoch = (uint64_t)sqlite3_column_int64(q, 0);
		if (decode(sqlite3_column_blob(q, 1), (size_t)sqlite3_column_bytes(q, 1),
			   &pd->head))
			r = log_fail(-EBADMSG, "the pending commit in the database is damaged");
		buf_put(&pd->obj, sqlite3_column_blob(q, 2),
			(size_t)sqlite3_column_bytes(q, 2));
		if (r == 1 && pd->obj.err)
			r = pd->obj.err;
	}
	if (q)
		sqlite3_reset(q);
	pthread_mutex_unlock(&st->meta);
	return r;
}

void pending_release(struct pending *pd)
{
	free(pd->part);
	free(pd->head.seen);
	buf_release(&pd->obj);
}
