/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "cache/garbage.h"

#include <stdlib.h>

#define GRACE_MS (10 * 60 * 1000)
#define AGAIN_MS (3600 * 1000)
#define DEL_MS	 60000
#define DEL_OUT	 32  /* requests under way */
#define BATCH	 32  /* segments between two looks for a takeover */
#define ROUND	 512 /* segments in one round */
#define SWEEP	 1000

uint64_t garbage_kv_locked(struct store *st, const char *k)
{
	uint64_t v = 0;

	return store_get_u64(st, k, &v) ? 0 : v;
}

int garbage_one_locked(struct store *st, sqlite3_stmt *q, uint64_t *v)
{
	int r = q ? store_step(st, q) : -EIO;

	*v = r == 1 ? (uint64_t)sqlite3_column_int64(q, 0) : 0;
	if (q)
		sqlite3_reset(q);
	return r < 0 ? r : 0;
}

/* --- condemning --- */

/*
 * Is all that was changed here published?  Then the epoch in which something died does not
 * matter any more.  An inode without names is not published, nor is what it loses missed.
 */
static int quiet_locked(struct publisher *p, bool *quiet)
{
	struct store *st = p->st;
	uint64_t some = 1;

	*quiet = false;
	if (st->cut_epoch)
		return 0;
	for (const struct inode *in = st->dirty_head; in; in = in->dirty_next)
		if (in->chg > st->published && in->nlink)
			return 0;
	sqlite3_stmt *q = store_stmt(
		st,
		"SELECT EXISTS(SELECT 1 FROM pending) OR EXISTS(SELECT 1 FROM inode INDEXED "
		"BY inode_chg WHERE chg>?1 AND nlink>0) OR EXISTS(SELECT 1 FROM tomb WHERE "
		"epoch>?1) OR "
		"EXISTS(SELECT 1 FROM newlink WHERE epoch>?1)");

	if (q)
		sqlite3_bind_int64(q, 1, (int64_t)st->published);
	int r = garbage_one_locked(st, q, &some);

	*quiet = !r && !some;
	return r;
}

static int condemn_locked(struct publisher *p, bool *touch)
{
	struct store *st = p->st;
	uint64_t late = 0;
	bool quiet;
	int r = live_flush_locked(st);

	/*
	 * What the cut in flight stored has its extents in `staged` and its number as `seq`:
	 * both end at once when it is published.
	 */
	sqlite3_stmt *q =
		r ? NULL
		  : store_stmt(st, "UPDATE segment SET kind=4,missing=0,chg=?1,since=?2 "
				   "WHERE seg IN (SELECT seg FROM segment INDEXED BY "
				   "segment_hollow WHERE kind=1 AND len-live*2>0 AND live<=0 "
				   "AND seq<=?3 AND NOT EXISTS (SELECT 1 FROM ahead a WHERE "
				   "a.seg=segment.seg) LIMIT ?4)");
	if (!r && !q)
		r = -EIO;
	if (!r) {
		sqlite3_bind_int64(q, 1, (int64_t)st->epoch);
		sqlite3_bind_int64(q, 2, garbage_wall_ms());
		sqlite3_bind_int64(q, 3, (int64_t)garbage_kv_locked(st, "log_seq"));
		sqlite3_bind_int(q, 4, SWEEP);
		r = store_run(st, q);
	}
	if (!r)
		r = quiet_locked(p, &quiet);
	if (r)
		return r;
	if (quiet) {
		q = store_stmt(st, "UPDATE segment SET chg=?1 WHERE kind=4 AND chg>?1");
		if (!q)
			return -EIO;
		sqlite3_bind_int64(q, 1, (int64_t)st->published);
		return store_run(st, q);
	}
	/* A change that nobody would publish by itself, such as a row that is withheld. */
	q = store_stmt(st, "SELECT EXISTS(SELECT 1 FROM segment INDEXED BY segment_condemned "
			   "WHERE kind=4 AND chg>?1)");
	if (q)
		sqlite3_bind_int64(q, 1, (int64_t)st->published);
	r = garbage_one_locked(st, q, &late);
	*touch = late;
	return r;
}

int garbage_condemn(struct publisher *p)
{
	bool touch = false;

	pthread_mutex_lock(&p->st->meta);
	int r = p->st->failed ? -EIO : condemn_locked(p, &touch);
	pthread_mutex_unlock(&p->st->meta);
	if (touch)
		publish_touch(p);
	return r;
}

int garbage_figures(struct store *st, uint64_t *segments, uint64_t *bytes)
{
	pthread_mutex_lock(&st->meta);
	int r = st->failed ? 0 : live_flush_locked(st);
	sqlite3_stmt *q =
		r ? NULL
		  : store_stmt(
			    st,
			    "SELECT count(*),coalesce(sum((k+m)*(128+cps*((1<<cell_log2)+"
			    "32))),0) FROM (SELECT k,m,cps,cell_log2 FROM segment INDEXED BY "
			    "segment_condemned WHERE kind=4 UNION ALL SELECT k,m,cps,cell_log2 "
			    "FROM segment INDEXED BY segment_hollow WHERE kind=1 AND "
			    "len-live*2>0 AND live<=0 AND seq<=?1)");

	*segments = *bytes = 0;
	if (q) {
		sqlite3_bind_int64(q, 1, (int64_t)garbage_kv_locked(st, "log_seq"));
		r = store_step(st, q);
		if (r == 1) {
			*segments = (uint64_t)sqlite3_column_int64(q, 0);
			*bytes = (uint64_t)sqlite3_column_int64(q, 1);
		}
		sqlite3_reset(q);
	} else if (!r) {
		r = -EIO;
	}
	pthread_mutex_unlock(&st->meta);
	return r < 0 ? r : 0;
}

/* --- deleting --- */

void garbage_delete(struct publisher *p, struct garbage_del *d, size_t cnt)
{
	int64_t end = now_ms() + DEL_MS;
	struct node_wait w;
	struct node_io *io;
	size_t next = 0;

	node_wait_init(&w);
	while (next < cnt || w.pending) {
		while (next < cnt && w.pending < DEL_OUT) {
			struct garbage_del *one = &d[next++];
			enum node_state s = node_state(one->node);

			/* A full node is one to delete from; others that take no writes are
			 * not. */
			if (s == NODE_DOWN || s == NODE_WRONG || s == NODE_REFUSING)
				continue;
			io = node_io_new(NODE_DEL, one->name);
			if (!io)
				break;
			io->deadline_ms = end;
			io->tag = (unsigned)(one - d);
			node_wait_submit(&w, one->node, io);
		}
		if (!w.pending)
			break;
		io = node_wait_next(&w, end + 1000);
		if (!io || publish_stopping(p)) {
			node_io_unref(io);
			break;
		}
		d[io->tag].done = !io->err || io->err == -ENOENT;
		if (!d[io->tag].done)
			log_debug("%s: DELETE %s: %s", node_name(io->node), io->name,
				  strerrordesc_np(-io->err));
		node_io_unref(io);
	}
	node_wait_release(&w);
}

int garbage_ours(struct publisher *p)
{
	uint16_t by;
	int r = history_check(p->st->vol, p->st->device, p->opts.owner_pk, &by);

	return r == 1 ? publish_check(p) : r;
}

struct condemned {
	uint64_t seg;
	int64_t since;
	struct seg_place place;
};

/* The next rows whose time has come; *later: the first whose time has not. */
static int due_rows(struct publisher *p, struct garbage *g, struct condemned *row, int *cnt,
		    int64_t *later)
{
	struct store *st = p->st;
	int64_t now = garbage_wall_ms(), grace = garbage_pace(p->opts.pace.grace_ms, GRACE_MS);
	int r = 0, more = 0;

	*cnt = 0;
	*later = INT64_MAX;
	pthread_mutex_lock(&st->meta);
	sqlite3_stmt *q =
		store_stmt(st, "SELECT seg,since,chg," SEGMENT_COLS " FROM segment INDEXED BY "
			       "segment_condemned WHERE kind=4 AND (since,seg)>(?1,?2) "
			       "ORDER BY since,seg");
	if (!q)
		r = -EIO;
	else {
		sqlite3_bind_int64(q, 1, g->after_since);
		sqlite3_bind_int64(q, 2, (int64_t)g->after_seg);
	}
	while (!r && *cnt < BATCH && (more = store_step(st, q)) == 1) {
		struct condemned *c = &row[*cnt];

		c->seg = (uint64_t)sqlite3_column_int64(q, 0);
		c->since = sqlite3_column_int64(q, 1);
		/* A clock that was set back makes it wait as long again, not for ever. */
		if (c->since + grace > now && c->since <= now + grace) {
			*later = c->since + grace - now;
			break;
		}
		/* What it published last may have been forgotten by a crash just now. */
		if ((uint64_t)sqlite3_column_int64(q, 2) > st->published &&
		    !p->opts.skip_published) {
			*later = INT64_MAX;
			break;
		}
		r = segment_columns(q, 3, &c->place);
		if (!r)
			(*cnt)++;
	}
	if (q)
		sqlite3_reset(q);
	pthread_mutex_unlock(&st->meta);
	return r ? r : more < 0 ? more : 0;
}

/*
 * Nothing names it: an extent that does would be a fault of this program, and is no reason to
 * lose what it names.
 */
static int verify_dead_locked(struct store *st, struct condemned *row, int *cnt)
{
	int left = 0, r = live_flush_locked(st);

	for (int i = 0; !r && i < *cnt; i++) {
		sqlite3_stmt *q = store_stmt(
			st, "SELECT 1 FROM segment WHERE seg=?1 AND kind=4 AND live=0");
		uint64_t dead;

		if (q)
			sqlite3_bind_int64(q, 1, (int64_t)row[i].seg);
		r = garbage_one_locked(st, q, &dead);
		if (!r && dead)
			row[left++] = row[i];
		else if (!r)
			log_warn("segment %llu is condemned and in use: it stays",
				 (unsigned long long)row[i].seg);
	}
	*cnt = left;
	return r;
}

/* A node that is no part of the volume keeps nothing that has to be waited for. */
static bool gone_locked(struct store *st, uint16_t number)
{
	uint64_t member;
	sqlite3_stmt *q = store_stmt(st, "SELECT member FROM node WHERE number=?1");

	if (!volume_node(st->vol, number))
		return true;
	if (q)
		sqlite3_bind_int(q, 1, number);
	return !garbage_one_locked(st, q, &member) && member == 3;
}

/* What is left of a row: the shards that were not confirmed to be deleted; or no row. */
static int put_left_locked(struct store *st, const struct condemned *c)
{
	unsigned n = (unsigned)c->place.geom.k + c->place.geom.m, left = 0;
	uint8_t nodes[2 * EC_MAX];

	for (unsigned i = 0; i < n; i++) {
		bool gone = c->place.node[i] == NODE_NONE || gone_locked(st, c->place.node[i]);

		put_le16(nodes + 2 * i, gone ? NODE_NONE : c->place.node[i]);
		left += !gone;
	}
	sqlite3_stmt *q =
		left ? store_stmt(st, "UPDATE segment SET nodes=?2 WHERE seg=?1 AND kind=4")
		     : store_stmt(st, "DELETE FROM segment WHERE seg=?1 AND kind=4");
	if (!q)
		return -EIO;
	sqlite3_bind_int64(q, 1, (int64_t)c->seg);
	if (left)
		sqlite3_bind_blob(q, 2, nodes, (int)(2 * n), SQLITE_STATIC);
	return store_run(st, q);
}

static int collect_batch(struct publisher *p, struct condemned *row, int cnt)
{
	struct store *st = p->st;
	size_t del_cnt = 0, at = 0;

	pthread_mutex_lock(&st->meta);
	int r = verify_dead_locked(st, row, &cnt);
	pthread_mutex_unlock(&st->meta);
	/* That they are condemned, and what was published, is on the disk before they go. */
	if (!r)
		r = store_commit(st);
	if (!r)
		r = garbage_ours(p);
	if (!r)
		r = publish_stage(p, "condemned");
	struct garbage_del *d = r ? NULL : calloc((size_t)cnt * EC_MAX + 1, sizeof *d);
	if (r || !d)
		return r ? r : -ENOMEM;
	for (int i = 0; i < cnt; i++) {
		const struct seg_place *pl = &row[i].place;

		for (unsigned s = 0; s < (unsigned)pl->geom.k + pl->geom.m; s++) {
			struct node *n = volume_node(st->vol, pl->node[s]);

			if (!n)
				continue;
			d[del_cnt].node = n;
			keys_shard_name(st->vol->keys, &pl->geom.id, s, pl->node[s],
					d[del_cnt++].name);
		}
	}
	garbage_delete(p, d, del_cnt);
	r = publish_stage(p, "deleted");
	pthread_mutex_lock(&st->meta);
	for (int i = 0; !r && i < cnt; i++) {
		struct seg_place *pl = &row[i].place;

		for (unsigned s = 0; s < (unsigned)pl->geom.k + pl->geom.m; s++)
			if (volume_node(st->vol, pl->node[s]) && d[at++].done)
				pl->node[s] = NODE_NONE;
		r = put_left_locked(st, &row[i]);
	}
	pthread_mutex_unlock(&st->meta);
	free(d);
	return r ? r : publish_stage(p, "dropped");
}

static int collect(struct publisher *p, struct garbage *g, bool came, int64_t *next_ms)
{
	struct condemned *row = malloc(BATCH * sizeof *row);
	int64_t later = INT64_MAX;
	int cnt = 0, total = 0, r = row ? 0 : -ENOMEM;

	/* What a node that was away kept in the list is tried again when one comes. */
	if (came || now_ms() >= g->again_ms) {
		g->after_since = 0;
		g->after_seg = 0;
		g->again_ms = now_ms() + AGAIN_MS;
	}
	while (!r && total < ROUND) {
		r = due_rows(p, g, row, &cnt, &later);
		if (r || !cnt)
			break;
		total += cnt;
		int64_t since = row[cnt - 1].since;
		uint64_t seg = row[cnt - 1].seg;

		r = collect_batch(p, row, cnt);
		if (!r) {
			g->after_since = since;
			g->after_seg = seg;
		}
		if (!r && publish_stopping(p))
			r = -ECANCELED;
	}
	free(row);
	if (!r && total >= ROUND)
		*next_ms = now_ms();
	else if (!r && later != INT64_MAX)
		*next_ms = HF_MIN(*next_ms, now_ms() + later);
	/* Too few nodes to see whether somebody took over: a node's return wakes the thread. */
	if (r == -EAGAIN) {
		*next_ms = HF_MIN(*next_ms, now_ms() + 30000);
		r = 0;
	}
	return r;
}

int garbage_round(struct publisher *p, struct garbage *g, bool came, int64_t *next_ms)
{
	/* What is held back may be published in a former state, which no table knows. */
	pthread_mutex_lock(&p->lock);
	bool old = p->held_old && !p->opts.skip_published;
	pthread_mutex_unlock(&p->lock);
	int r = old ? 0 : collect(p, g, came, next_ms);

	if (!r)
		r = garbage_strays(p, next_ms);
	if (!r)
		r = garbage_compact(p, g, next_ms);
	return r;
}
