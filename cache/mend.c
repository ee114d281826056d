/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The mend thread: what is below its number of shards or copies is brought back to it when
 * nodes allow, and snapshots are taken when the log has grown.  It waits for an event: a
 * node that came or went, a commit, somebody who wants all of it protected; and for the time
 * when garbage may go.
 */
#include <stdlib.h>
#include <sys/prctl.h>
#include "cache/cut.h"
#include "cache/garbage.h"
#include "cache/logs.h"
#include "cache/move.h"
#include "cache/older.h"
#include "net/cond.h"

#define LIST_DEADLINE_MS (10 * 60 * 1000)
#define RETRY_MS	 30000
#define LIST_AGAIN_S	 (24 * 3600)
#define SLICE		 500
#define MARK_LOOK_MS	 (10 * 60 * 1000)
#define REPAIR_MS	 10000 /* of repairing before other mending has its turn */

static bool all_writable(struct volume *v)
{
	return volume_writable(v) == volume_members(v);
}

/*
 * Is there a node that can be written to, and was not looked at since it can be?  What it lost
 * meanwhile is not known yet.
 */
static bool unseen(const struct publisher *p)
{
	struct volume *v = p->st->vol;

	for (size_t i = 0, cnt = volume_nodes(v); i < cnt; i++)
		if (node_writable(v->node[i]) && !p->node_was[i])
			return true;
	return false;
}

/* Is there a usable node that holds no shard of the segment? */
static bool has_candidate(struct volume *v, const struct seg_place *place)
{
	unsigned n = (unsigned)place->geom.k + place->geom.m;

	for (size_t i = 0, cnt = volume_nodes(v); i < cnt; i++) {
		bool used = !node_usable(v->node[i]);

		for (unsigned s = 0; s < n && !used; s++)
			used = place->node[s] == node_number(v->node[i]);
		if (!used)
			return true;
	}
	return false;
}

/* The next segment of the repair list: 1, 0 at its end. */
static int next_missing(struct store *st, uint64_t *seg, struct seg_place *place)
{
	pthread_mutex_lock(&st->meta);
	sqlite3_stmt *q =
		store_stmt(st, "SELECT seg," SEGMENT_COLS " FROM segment WHERE missing>0 "
			       "AND seg>?1 ORDER BY seg LIMIT 1");
	int r = -EIO;

	if (q) {
		sqlite3_bind_int64(q, 1, (int64_t)*seg);
		r = store_step(st, q);
		if (r == 1) {
			*seg = (uint64_t)sqlite3_column_int64(q, 0);
			if (segment_columns(q, 1, place))
				r = -EBADMSG;
		}
		sqlite3_reset(q);
	}
	pthread_mutex_unlock(&st->meta);
	return r;
}

/* Shards that arrived after their segment was published: no repair is needed. */
static int late_shards(void *arg, const struct seg_id *id, const uint16_t node[EC_MAX])
{
	struct publisher *p = arg;
	struct store *st = p->st;
	struct seg_place place;
	uint64_t seg = 0;
	bool news = false, found = false;

	pthread_mutex_lock(&st->meta);
	sqlite3_stmt *q =
		store_stmt(st, "SELECT seg," SEGMENT_COLS " FROM segment WHERE id=?1");
	int r = -EIO;

	if (q) {
		sqlite3_bind_blob(q, 1, id->b, SEG_LEN, SQLITE_STATIC);
		r = store_step(st, q);
		found = r != 0;
		if (r == 1) {
			seg = (uint64_t)sqlite3_column_int64(q, 0);
			r = segment_columns(q, 1, &place) ? -EBADMSG : 1;
		}
		sqlite3_reset(q);
	}
	for (unsigned i = 0; r == 1 && i < (unsigned)place.geom.k + place.geom.m; i++) {
		struct node *n = volume_node(st->vol, node[i]);

		/* One that leaves meanwhile is not said to have it. */
		if (place.node[i] != NODE_NONE || !n || node_member(n) >= NODE_GONE)
			continue;
		place.node[i] = node[i];
		news = true;
	}
	if (news) {
		/* The new places are published with the next cut. */
		segment_nodes_locked(st, seg, &place, st->epoch);
		publish_touch(p);
	}
	pthread_mutex_unlock(&st->meta);
	/* Its cut may not have come so far as to write the row. */
	return found ? 0 : -EAGAIN;
}

bool mend_must_wait(struct publisher *p)
{
	bool late = p->opts.repair_limit && now_ms() < p->shards_next_ms;

	p->shards_late |= late;
	return late;
}

void mend_spent(struct publisher *p, uint64_t bytes)
{
	if (p->opts.repair_limit)
		p->shards_next_ms = HF_MAX(p->shards_next_ms, now_ms()) +
				    (int64_t)(bytes * 1000 / p->opts.repair_limit);
}

/* What a round has to do, and what the thread has seen. */
struct mend {
	uint64_t pokes, done, protect; /* as of the round before */
	bool blobs, left;
	/* The pass over the repair list: where it is, 0 at its begin; what it had to leave. */
	uint64_t repair_seg, repair_left;
	struct garbage garbage;
	int64_t next_ms; /* there is garbage to look at then */
	int64_t mark_ms; /* when the nodes' marks are looked at next */
	bool moving, soon; /* move.c has more to do; at once */
};

/* Reads K shards for those that are missing: whichever is more counts for the limit. */
static int repair_one(struct publisher *p, struct seg_place *place)
{
	struct volume *v = p->st->vol;
	unsigned cnt = 0;

	for (unsigned i = 0; i < (unsigned)place->geom.k + place->geom.m; i++)
		cnt += place->node[i] == NODE_NONE;
	int missing = repair_segment(v, place, NULL);

	/* Some may be where a repair put them of which nobody was told. */
	if (missing == -ENODATA && find_shards(v, place, INT64_MAX))
		missing = repair_segment(v, place, NULL);
	if (missing != -EAGAIN)
		mend_spent(p, seg_shard_len(&place->geom) * HF_MAX(cnt, place->geom.k));
	return missing;
}

/*
 * Goes on through the repair list for a while.  1 when there is more to do, at once or when
 * the limit allows it; 0 at its end, m->left says whether segments are still on it then.
 */
static int repair_slice(struct publisher *p, struct mend *m)
{
	struct store *st = p->st;
	int64_t end = now_ms() + REPAIR_MS;
	struct seg_place place;
	int r;

	m->left = true;
	spread_collect(st->vol, late_shards, p);
	uint64_t seg = m->repair_seg;
	while ((r = next_missing(st, &seg, &place)) == 1) {
		if (publish_stopping(p))
			return -ECANCELED;
		if (!has_candidate(st->vol, &place) ||
		    spread_going(st->vol, &place.geom.id)) {
			m->repair_left++;
			m->repair_seg = seg;
			continue;
		}
		if (mend_must_wait(p) || now_ms() >= end)
			return 1;
		m->repair_seg = seg;
		int missing = repair_one(p, &place);

		if (missing < 0) {
			if (missing != -EAGAIN && missing != -EBUSY && missing != -ENODATA)
				log_warn("repairing segment %llu: %s", (unsigned long long)seg,
					 strerror(-missing));
			m->repair_left++;
			continue;
		}
		m->repair_left += missing > 0;
		/* The new places are published with the next cut. */
		pthread_mutex_lock(&st->meta);
		r = segment_nodes_locked(st, seg, &place, st->epoch);
		publish_touch(p);
		pthread_mutex_unlock(&st->meta);
		if (r)
			return r;
	}
	m->left = r || m->repair_left;
	m->repair_seg = m->repair_left = 0;
	return r;
}

uint64_t mend_hash(const char *s)
{
	uint64_t h = 0xcbf29ce484222325u;

	for (; *s; s++)
		h = (h ^ (uint8_t)*s) * 0x100000001b3u;
	return h;
}

int mend_list(struct node *n, struct buf *out)
{
	struct node_wait w;
	struct node_io *io = node_io_new(NODE_LIST, "s/");
	int r;

	if (!io)
		return -ENOMEM;
	io->deadline_ms = now_ms() + LIST_DEADLINE_MS;
	node_wait_init(&w);
	node_wait_submit(&w, n, io);
	io = node_wait_next(&w, now_ms() + LIST_DEADLINE_MS + 1000);
	r = io ? io->err : -ETIMEDOUT;
	if (!r && io->list.err)
		r = io->list.err;
	if (!r) {
		*out = io->list;
		io->list = (struct buf){0};
	}
	if (io)
		node_io_unref(io);
	node_wait_release(&w);
	return r;
}

/* Hashes of the names of all shards on a node, sorted. */
static int list_node(struct node *n, uint64_t **out, size_t *cnt)
{
	struct buf list = {0};
	int r = mend_list(n, &list);

	*out = NULL;
	*cnt = 0;
	if (!r) {
		for (size_t i = 0; i < list.len; i++)
			*cnt += !list.p[i];
		*out = malloc(HF_MAX(*cnt, (size_t)1) * sizeof **out);
		r = *out ? 0 : -ENOMEM;
	}
	if (!r) {
		const char *s = (const char *)list.p;

		for (size_t i = 0; i < *cnt; i++, s += strlen(s) + 1)
			(*out)[i] = mend_hash(s);
		qsort(*out, *cnt, sizeof **out, u64_cmp);
	}
	buf_release(&list);
	return r;
}

/* Segments after *seg up to `max`: shards that the node should have and has not. */
static int check_slice(struct publisher *p, struct node *n, const uint64_t *have, size_t cnt,
		       uint64_t *seg, uint64_t max, unsigned *lost)
{
	struct store *st = p->st;
	struct {
		uint64_t seg, chg;
		struct seg_place place;
	} row[32];
	int rows = 0, seen = 0, more = 0, r = 0;

	pthread_mutex_lock(&st->meta);
	sqlite3_stmt *q =
		store_stmt(st, "SELECT seg,chg," SEGMENT_COLS " FROM segment WHERE "
			       "seg>?1 AND seg<=?2 AND kind IN (1,2,5) ORDER BY seg LIMIT 500");
	if (!q)
		r = -EIO;
	if (q) {
		sqlite3_bind_int64(q, 1, (int64_t)*seg);
		sqlite3_bind_int64(q, 2, (int64_t)max);
	}
	while (!r && rows < 32 && (more = store_step(st, q)) == 1) {
		struct seg_place *pl = &row[rows].place;
		bool gone = false;

		seen++;
		*seg = (uint64_t)sqlite3_column_int64(q, 0);
		r = segment_columns(q, 2, pl);
		for (unsigned i = 0; !r && i < (unsigned)pl->geom.k + pl->geom.m; i++) {
			char name[BLOB_NAME_CAP];

			if (pl->node[i] != node_number(n))
				continue;
			keys_shard_name(st->vol->keys, &pl->geom.id, i, pl->node[i], name);
			uint64_t h = mend_hash(name);

			if (!bsearch(&h, have, cnt, sizeof h, u64_cmp)) {
				pl->node[i] = NODE_NONE;
				gone = true;
			}
		}
		if (gone) {
			row[rows].seg = *seg;
			row[rows].chg = (uint64_t)sqlite3_column_int64(q, 1);
			rows++;
		}
	}
	if (q)
		sqlite3_reset(q);
	if (!r && more < 0)
		r = more;
	for (int i = 0; !r && i < rows; i++) {
		unsigned left = 0;

		for (unsigned j = 0; j < (unsigned)row[i].place.geom.k + row[i].place.geom.m; j++)
			left += row[i].place.node[j] != NODE_NONE;
		/* A list may lie or be cut short: nothing becomes unreadable by it. */
		if (left < row[i].place.geom.k)
			continue;
		r = segment_nodes_locked(st, row[i].seg, &row[i].place, row[i].chg);
		*lost += !r;
	}
	pthread_mutex_unlock(&st->meta);
	return r ? r : seen > 0;
}

static int check_node(struct publisher *p, struct node *n)
{
	struct store *st = p->st;
	uint64_t *have = NULL, seg = 0, max = 0;
	size_t cnt = 0;
	unsigned lost = 0;

	/* Segments that come while the list is made need not be on it. */
	pthread_mutex_lock(&st->meta);
	sqlite3_stmt *q = store_stmt(
		st, "SELECT coalesce(max(seg),0) FROM segment WHERE seg<1099511627776");
	if (q && store_step(st, q) == 1)
		max = (uint64_t)sqlite3_column_int64(q, 0);
	if (q)
		sqlite3_reset(q);
	pthread_mutex_unlock(&st->meta);
	int r = q ? list_node(n, &have, &cnt) : -EIO;

	if (!r) {
		while ((r = check_slice(p, n, have, cnt, &seg, max, &lost)) == 1) {
			if (publish_stopping(p)) {
				r = -ECANCELED;
				break;
			}
		}
	}
	free(have);
	if (lost)
		node_note(n, "it is without %u %s it had: rebuilt", lost,
			  lost == 1 ? "shard" : "shards");
	return r;
}

/*
 * What went while the drive was not mounted is seen by the first list of a mount.  Where a
 * list is answered by a far server, which may charge for it, one in a while is enough.
 */
static bool list_due(struct publisher *p, struct node *n)
{
	struct node_info *info = malloc(sizeof *info);
	uint64_t last = 0, now = (uint64_t)(realtime_ns() / 1000000000);
	char key[32];

	if (!info)
		return false;
	node_get_info(n, info);
	bool near = !strcmp(info->kind, "dir") && !p->opts.skip_list;

	free(info);
	snprintf(key, sizeof key, "listed_%u", node_number(n));
	pthread_mutex_lock(&p->st->meta);
	if (store_get_u64(p->st, key, &last))
		last = 0;
	pthread_mutex_unlock(&p->st->meta);
	return near || now < last || now - last > LIST_AGAIN_S;
}

static void list_done(struct publisher *p, struct node *n)
{
	char key[32];

	snprintf(key, sizeof key, "listed_%u", node_number(n));
	pthread_mutex_lock(&p->st->meta);
	store_put_u64(p->st, key, (uint64_t)(realtime_ns() / 1000000000));
	pthread_mutex_unlock(&p->st->meta);
}

/* Nodes that came, or came back since the last look; *came says whether any did. */
static int look_at_nodes(struct publisher *p, bool *came)
{
	struct volume *v = p->st->vol;
	bool older_one = false;
	int r = 0;

	*came = false;
	for (size_t i = 0, cnt = volume_nodes(v); i < cnt && !r; i++) {
		bool now = node_writable(v->node[i]);

		if (now && !p->node_was[i]) {
			*came = true;
			bool older = older_check(p, v->node[i]) > 0;

			/* All of them at once are no failure of nodes, and no mark must hide it. */
			if (older && !older_one)
				r = publish_set_back(p);
			older_one |= older;
			if (r)
				break;

			if (older || p->node_lost[i] ||
			    (!p->node_listed[i] && list_due(p, v->node[i]))) {
				r = check_node(p, v->node[i]);
				if (!r) {
					p->node_listed[i] = true;
					list_done(p, v->node[i]);
				}
				if (r && r != -ECANCELED) {
					log_warn("listing node %s: %s", node_name(v->node[i]),
						 strerror(-r));
					r = 0;
					now = false;
				}
			}
			/* After the look: killed before it, the next mount looks again. */
			if (!r && now && older_mark(p, v->node[i], true))
				log_debug("%s: no mark of today", node_name(v->node[i]));
		}
		p->node_lost[i] = p->node_lost[i] || (p->node_was[i] && !now);
		p->node_was[i] = now;
		if (now)
			p->node_lost[i] = false;
	}
	return r;
}

static int mend_round(struct publisher *p, struct mend *m, bool nodes, uint64_t protect)
{
	struct volume *v = p->st->vol;
	bool came = false, more = false;
	int r = garbage_condemn(p);

	/* One whose list failed is asked for it again when somebody wants to know. */
	nodes = nodes || (protect && unseen(p));

	if (m->mark_ms <= now_ms()) {
		for (size_t i = 0, cnt = volume_nodes(v); i < cnt; i++)
			if (p->node_was[i])
				older_mark(p, v->node[i], false);
		m->mark_ms = now_ms() + MARK_LOOK_MS;
	}
	if (!r && nodes)
		r = look_at_nodes(p, &came);
	m->blobs = m->blobs || came;
	/* What it had to leave may have a place now. */
	if (nodes)
		m->repair_seg = m->repair_left = 0;
	if (!r && (nodes || m->left || protect || all_writable(v)))
		r = repair_slice(p, m);
	if (r > 0) {
		more = true;
		r = 0;
	}
	if (!r && (m->blobs || (protect && !more)) && volume_writable(v)) {
		int copies = logs_mend(p);

		if (copies >= 0)
			m->blobs = false;
		/* One may have come back since this round has looked at the nodes. */
		if (!m->left && copies >= 0 && protect && all_writable(v) && !unseen(p)) {
			pthread_mutex_lock(&p->lock);
			p->protect_done = HF_MAX(p->protect_done, protect);
			p->protect_cut = m->done;
			p->protect_pokes = m->pokes;
			pthread_cond_broadcast(&p->cond);
			pthread_mutex_unlock(&p->lock);
		}
	}
	if (!r)
		r = move_round(p, &m->moving, &m->soon);
	m->soon |= more && !p->shards_late;
	if (!r)
		r = snapshot_put(p);
	if (!r && snapshot_due(p))
		r = snapshot_take(p);
	return r ? r : garbage_round(p, &m->garbage, came, &m->next_ms);
}

void *mend_main(void *arg)
{
	struct publisher *p = arg;
	struct mend m = {.pokes = UINT64_MAX};
	int r = 0;

	prctl(PR_SET_NAME, "hf-mend");
	pthread_mutex_lock(&p->lock);
	while (!p->stopping && !p->stopped) {
		bool nodes = p->pokes != m.pokes;
		uint64_t protect = p->protect_want > p->protect_done ? p->protect_want : 0;

		m.next_ms = INT64_MAX;
		m.pokes = p->pokes;
		m.done = p->done;
		m.protect = p->protect_want;
		/* Before the first cut it is not known whether this copy may change anything.
		 */
		m.soon = p->shards_late = false;
		if (p->ready) {
			pthread_mutex_unlock(&p->lock);
			r = mend_round(p, &m, nodes, protect);
			if (r && r != -EAGAIN && r != -ECANCELED && r != -ESTALE)
				log_warn("mending: %s", strerror(-r));
			pthread_mutex_lock(&p->lock);
		} else {
			m.pokes = UINT64_MAX;
		}
		bool retry = p->ready &&
			     (r || m.left || m.blobs || m.moving || p->protect_want > p->protect_done);
		bool ready = p->ready;
		int64_t until = retry ? HF_MIN(now_ms() + RETRY_MS, m.next_ms) : m.next_ms;
		if (p->shards_late)
			until = HF_MIN(until, p->shards_next_ms);
		while (!p->stopping && !p->stopped && !m.soon && p->ready == ready &&
		       (p->pokes == m.pokes || !ready) && p->done == m.done &&
		       p->protect_want == m.protect)
			if (cond_until(&p->cond, &p->lock, until) == ETIMEDOUT)
				break;
	}
	pthread_mutex_unlock(&p->lock);
	return NULL;
}
