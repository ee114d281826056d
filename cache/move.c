/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "cache/move.h"

#include <stdlib.h>
#include "cache/cut.h"
#include "cache/member.h"
#include "cache/usage.h"
#include "net/cond.h"

#define SLICE_ROWS 200	 /* segments looked at in one hold of meta */
#define SLICE_MS   2000	 /* of moving before other mending has its turn */
#define YIELD_MS   200	 /* a shard waits that long for a cut that is being stored */
#define DELETE_MS  30000
#define DELETES	   64
#define KEEP_S	   (7 * 24 * 3600)

int move_table_locked(struct store *st)
{
	if (sqlite3_exec(st->db,
			 "CREATE TABLE IF NOT EXISTS moved(node INTEGER NOT NULL,"
			 "name TEXT NOT NULL,chg INTEGER NOT NULL,PRIMARY KEY(node,name))"
			 " WITHOUT ROWID",
			 NULL, NULL, NULL) == SQLITE_OK)
		return 0;
	return store_fail_locked(st, -EIO, "making the table of moved shards");
}

void move_say(struct publisher *p, const char *why)
{
	pthread_mutex_lock(&p->lock);
	snprintf(p->move_reason, sizeof p->move_reason, "%s", why);
	pthread_cond_broadcast(&p->cond);
	pthread_mutex_unlock(&p->lock);
}

int64_t move_count_locked(struct store *st, const char *sql, int64_t arg)
{
	sqlite3_stmt *q = store_stmt(st, sql);
	int64_t n = -EIO;

	if (!q)
		return -EIO;
	sqlite3_bind_int64(q, 1, arg);
	if (store_step(st, q) == 1)
		n = sqlite3_column_int64(q, 0);
	sqlite3_reset(q);
	return n;
}

/* --- moving --- */

struct round {
	struct publisher *p;
	struct node_spec *list;
	size_t cnt;
	uint16_t *heir; /* of list[i]; 0 none */
	uint8_t *leave;
	uint64_t *on; /* shards found on list[i] in this pass */
	bool rebalance, work;
	bool joining; /* the rows name what is not open yet */
	uint64_t failed;
	int64_t end_ms;
};

static int64_t index_of(const struct round *r, uint16_t number)
{
	for (size_t i = 0; i < r->cnt; i++)
		if (r->list[i].number == number)
			return (int64_t)i;
	return -1;
}

static void round_release(struct round *r)
{
	member_list_free(r->list, r->cnt);
	free(r->heir);
	free(r->leave);
	free(r->on);
}

static int round_begin(struct round *r, struct publisher *p)
{
	struct store *st = p->st;

	*r = (struct round){.p = p, .end_ms = now_ms() + SLICE_MS};
	pthread_mutex_lock(&st->meta);
	int err = member_list_locked(st, &r->list, &r->cnt);
	size_t cnt = HF_MAX(r->cnt, (size_t)1);

	r->heir = calloc(cnt, sizeof *r->heir);
	r->leave = calloc(cnt, sizeof *r->leave);
	r->on = calloc(cnt, sizeof *r->on);
	if (!err && (!r->heir || !r->leave || !r->on))
		err = -ENOMEM;
	for (size_t i = 0; i < r->cnt && !err; i++) {
		r->heir[i] = (uint16_t)member_kv_locked(st, "heir", r->list[i].number);
		r->leave[i] = (uint8_t)member_kv_locked(st, "leave", r->list[i].number);
		r->work |= r->list[i].member == NODE_DRAINING || r->leave[i] || r->heir[i];
	}
	/*
	 * A change may have been asked for since join_step looked: a pass over what is open
	 * now would say of a node that it has its share which has not joined.  And a pass that
	 * is in the middle is not one for what was asked for meanwhile.
	 */
	r->joining = member_kv_locked(st, "roster_due", 0) != 0;
	uint64_t asked = member_kv_locked(st, "rebalance", 0);

	pthread_mutex_unlock(&st->meta);
	if (!p->move_seg)
		p->move_pass = asked;
	r->rebalance = asked != 0;
	r->work |= r->rebalance;
	return err;
}

/* A cut that is under way goes first.  -ECANCELED at the end. */
static int yield(struct publisher *p)
{
	int64_t until = now_ms() + YIELD_MS;

	pthread_mutex_lock(&p->lock);
	while (!p->stopping && !p->stopped && p->status.busy && now_ms() < until)
		cond_until(&p->cond, &p->lock, until);
	int r = p->stopping || p->stopped ? -ECANCELED : 0;

	pthread_mutex_unlock(&p->lock);
	return r;
}

static bool in_set(const uint16_t set[], unsigned n, uint16_t number)
{
	for (unsigned i = 0; i < n; i++)
		if (set[i] == number)
			return true;
	return false;
}

/* Should shard i move, and where to (NODE_NONE: wherever it may)? */
static bool wants_move(struct round *r, const struct seg_place *pl, unsigned i,
		       const uint16_t home[], uint16_t *target)
{
	unsigned n = (unsigned)pl->geom.k + pl->geom.m;
	int64_t at = pl->node[i] == NODE_NONE ? -1 : index_of(r, pl->node[i]);

	*target = (uint16_t)NODE_NONE;
	if (at < 0)
		return false;
	if (r->list[at].member == NODE_DRAINING) {
		if (r->heir[at] && !in_set(pl->node, n, r->heir[at]))
			*target = r->heir[at];
		return true;
	}
	struct node *now = volume_node(r->p->st->vol, pl->node[i]);
	if (!home || in_set(home, n, pl->node[i]) || !now || !node_usable(now))
		return false;
	/* The number of a shard does not matter, only who has one. */
	for (unsigned j = 0; j < n; j++) {
		unsigned h = (i + j) % n;

		if (home[h] != NODE_NONE && !in_set(pl->node, n, home[h])) {
			*target = home[h];
			return true;
		}
	}
	return false;
}

/* The copy on this node goes when epoch chg is published. */
static int put_moved_locked(struct store *st, const struct seg_place *pl, unsigned shard,
			    uint16_t node, uint64_t chg)
{
	sqlite3_stmt *q = store_stmt(st, "INSERT OR REPLACE INTO moved(node,name,chg) "
					 "VALUES(?1,?2,?3)");
	char name[BLOB_NAME_CAP];

	if (!q)
		return -EIO;
	keys_shard_name(st->vol->keys, &pl->geom.id, shard, node, name);
	sqlite3_bind_int64(q, 1, node);
	sqlite3_bind_text(q, 2, name, -1, SQLITE_STATIC);
	sqlite3_bind_int64(q, 3, (int64_t)chg);
	return store_run(st, q);
}

/* The segment's row and what is to be deleted, together.  0, or -ENOENT: it is gone. */
static int note_move(struct round *r, uint64_t seg, const struct seg_place *pl, unsigned shard,
		     uint16_t from)
{
	struct store *st = r->p->st;
	char name[BLOB_NAME_CAP];
	uint16_t where = from;
	int err, gone = 0;

	pthread_mutex_lock(&st->meta);
	err = segment_nodes_locked(st, seg, pl, st->epoch);
	if (!err && !sqlite3_changes(st->db)) {
		gone = -ENOENT;
		where = pl->node[shard];
	}
	if (!err)
		err = put_moved_locked(st, pl, shard, where, st->epoch);
	/* A copy that came back to where an old one was to be deleted is no old one. */
	keys_shard_name(st->vol->keys, &pl->geom.id, shard, pl->node[shard], name);
	sqlite3_stmt *q = err || gone ? NULL
				      : store_stmt(st, "DELETE FROM moved WHERE node=?1 AND "
						       "name=?2");
	if (q) {
		sqlite3_bind_int64(q, 1, pl->node[shard]);
		sqlite3_bind_text(q, 2, name, -1, SQLITE_STATIC);
		err = store_run(st, q);
	}
	publish_touch(r->p);
	pthread_mutex_unlock(&st->meta);
	return err ? err : gone;
}

static int move_segment(struct round *r, uint64_t seg, struct seg_place *pl)
{
	struct volume *v = r->p->st->vol;
	unsigned n = (unsigned)pl->geom.k + pl->geom.m;
	uint16_t home[EC_MAX], target;
	bool homes = r->rebalance && volume_place(v, &pl->geom.id, NULL, home) > 0;

	for (unsigned i = 0; i < n; i++) {
		uint16_t from = pl->node[i];

		if (!wants_move(r, pl, i, homes ? home : NULL, &target))
			continue;
		int err = yield(r->p);
		if (err)
			return err;
		mend_spent(r->p, seg_shard_len(&pl->geom));
		err = move_shard(v, pl, i, target);
		/* The heir may be away, or share a domain: anyone else will do then. */
		if (err == -EAGAIN && target != NODE_NONE && !homes)
			err = move_shard(v, pl, i, (uint16_t)NODE_NONE);
		if (err == -EAGAIN || err == -ENODATA) {
			int64_t at = index_of(r, from);

			if (at >= 0 && r->list[at].member == NODE_DRAINING) {
				r->failed++;
				r->on[at]++;
			}
			continue;
		}
		if (!err)
			err = note_move(r, seg, pl, i, from);
		if (err == -ENOENT)
			return 0;
		if (err)
			return err;
	}
	return 0;
}

/*
 * From *seg on: the segment of the next row that has something to move.  1; 0 at the end;
 * 2 when the hold was long enough.
 */
static int next_row(struct round *r, uint64_t *seg, struct seg_place *pl)
{
	struct store *st = r->p->st;
	uint16_t target;
	int more = 0, rows = 0, err = 0;

	pthread_mutex_lock(&st->meta);
	sqlite3_stmt *q = store_stmt(st, "SELECT seg," SEGMENT_COLS " FROM segment WHERE "
					 "kind IN (1,2,5) AND seg>?1 ORDER BY seg LIMIT 200");
	if (!q)
		err = -EIO;
	else
		sqlite3_bind_int64(q, 1, (int64_t)*seg);
	bool hit = false;
	while (!err && !hit && (more = store_step(st, q)) == 1) {
		rows++;
		*seg = (uint64_t)sqlite3_column_int64(q, 0);
		err = segment_columns(q, 1, pl);
		for (unsigned i = 0; !err && i < (unsigned)pl->geom.k + pl->geom.m; i++)
			hit |= r->rebalance || wants_move(r, pl, i, NULL, &target);
	}
	if (q)
		sqlite3_reset(q);
	pthread_mutex_unlock(&st->meta);
	if (err || more < 0)
		return err ? err : more;
	return hit ? 1 : rows == SLICE_ROWS ? 2 : 0;
}

/* --- what is condemned --- */

struct dead {
	uint64_t seg;
	int64_t since;
	uint64_t chg;
	struct seg_place place;
};

/*
 * Nobody needs a shard of a condemned segment: it is not moved off a node that drains, it
 * goes, as soon as garbage.c might delete it too (its row's chg is published), or with the
 * node.  Its row does not name that node any more, so that nothing waits for it.
 */
static int drop_dead_locked(struct round *r, const struct dead *d)
{
	struct store *st = r->p->st;
	unsigned n = (unsigned)d->place.geom.k + d->place.geom.m, left = 0, hit = 0;
	uint8_t nodes[2 * EC_MAX];
	int err = 0;

	for (unsigned i = 0; i < n && !err; i++) {
		uint16_t at = d->place.node[i];
		int64_t of = at == NODE_NONE ? -1 : index_of(r, at);

		if (of >= 0 && r->list[of].member >= NODE_DRAINING) {
			err = put_moved_locked(st, &d->place, i, at, d->chg);
			at = (uint16_t)NODE_NONE;
			hit++;
		}
		put_le16(nodes + 2 * i, at);
		left += at != NODE_NONE;
	}
	if (err || !hit)
		return err;
	sqlite3_stmt *q =
		left ? store_stmt(st, "UPDATE segment SET nodes=?2 WHERE seg=?1 AND kind=4")
		     : store_stmt(st, "DELETE FROM segment WHERE seg=?1 AND kind=4");
	if (!q)
		return -EIO;
	sqlite3_bind_int64(q, 1, (int64_t)d->seg);
	if (left)
		sqlite3_bind_blob(q, 2, nodes, (int)(2 * n), SQLITE_STATIC);
	return store_run(st, q);
}

static int drop_condemned(struct round *r)
{
	struct store *st = r->p->st;
	struct dead *row = malloc(DELETES * sizeof *row);
	int64_t since = INT64_MIN;
	uint64_t seg = 0;
	int cnt = DELETES, more = 0, err = row ? 0 : -ENOMEM;
	bool drains = false;

	for (size_t i = 0; i < r->cnt; i++)
		drains |= r->list[i].member == NODE_DRAINING;
	while (!err && drains && cnt == DELETES) {
		cnt = 0;
		pthread_mutex_lock(&st->meta);
		sqlite3_stmt *q = store_stmt(
			st, "SELECT seg,since,chg," SEGMENT_COLS " FROM segment INDEXED BY "
			    "segment_condemned WHERE kind=4 AND (since,seg)>(?1,?2) "
			    "ORDER BY since,seg LIMIT 64");
		if (!q)
			err = -EIO;
		if (q) {
			sqlite3_bind_int64(q, 1, since);
			sqlite3_bind_int64(q, 2, (int64_t)seg);
		}
		while (!err && cnt < DELETES && (more = store_step(st, q)) == 1) {
			row[cnt].seg = seg = (uint64_t)sqlite3_column_int64(q, 0);
			row[cnt].since = since = sqlite3_column_int64(q, 1);
			row[cnt].chg = (uint64_t)sqlite3_column_int64(q, 2);
			err = segment_columns(q, 3, &row[cnt++].place);
		}
		if (q)
			sqlite3_reset(q);
		if (!err && more < 0)
			err = more;
		for (int i = 0; i < cnt && !err; i++)
			err = drop_dead_locked(r, &row[i]);
		pthread_mutex_unlock(&st->meta);
	}
	free(row);
	return err;
}

/* --- old copies --- */

struct old_copy {
	uint16_t node;
	char name[BLOB_NAME_CAP];
};

/* Behind `after`, in the order of the table. */
static int old_copies(struct store *st, const struct old_copy *after, struct old_copy c[DELETES])
{
	int cnt = 0, more = 0;

	pthread_mutex_lock(&st->meta);
	sqlite3_stmt *q = store_stmt(st, "SELECT node,name FROM moved WHERE chg<=?1 AND "
					 "(node,name)>(?2,?3) ORDER BY node,name LIMIT 64");
	if (!q)
		more = -EIO;
	if (q) {
		sqlite3_bind_int64(q, 1, (int64_t)st->published);
		sqlite3_bind_int64(q, 2, after->node);
		sqlite3_bind_text(q, 3, after->name, -1, SQLITE_STATIC);
	}
	while (q && cnt < DELETES && (more = store_step(st, q)) == 1) {
		c[cnt].node = (uint16_t)sqlite3_column_int(q, 0);
		snprintf(c[cnt].name, sizeof c[cnt].name, "%s",
			 (const char *)sqlite3_column_text(q, 1));
		cnt++;
	}
	if (q)
		sqlite3_reset(q);
	pthread_mutex_unlock(&st->meta);
	return more < 0 ? more : cnt;
}

static int forget_copy(struct store *st, const struct old_copy *c)
{
	int err = -EIO;

	pthread_mutex_lock(&st->meta);
	sqlite3_stmt *q = store_stmt(st, "DELETE FROM moved WHERE node=?1 AND name=?2");
	if (q) {
		sqlite3_bind_int64(q, 1, c->node);
		sqlite3_bind_text(q, 2, c->name, -1, SQLITE_STATIC);
		err = store_run(st, q);
	}
	pthread_mutex_unlock(&st->meta);
	return err;
}

/*
 * Copies that were moved off a node that is to go stay on it for a week: should it have been the
 * wrong one, or others fail now, they can still be asked for by name.
 */
static bool kept(struct publisher *p, uint16_t number)
{
	struct store *st = p->st;
	struct node *n = volume_node(st->vol, number);
	uint64_t keep = p->opts.pace.keep_s ? p->opts.pace.keep_s : KEEP_S;

	if (!n || node_member(n) != NODE_DRAINING)
		return false;
	uint64_t now = (uint64_t)(realtime_ns() / 1000000000);
	pthread_mutex_lock(&st->meta);
	uint64_t since = member_kv_locked(st, "drained", number);
	bool wipe = member_kv_locked(st, "wipe", number) != 0;
	pthread_mutex_unlock(&st->meta);
	/* A clock that was set back keeps them longer. */
	return !wipe && since && now < since + keep;
}

int64_t move_old_copies(struct publisher *p, uint16_t number)
{
	struct store *st = p->st;

	if (kept(p, number))
		return 0;
	pthread_mutex_lock(&st->meta);
	int64_t cnt = move_count_locked(st, "SELECT count(*) FROM moved WHERE node=?1", number);
	pthread_mutex_unlock(&st->meta);
	return cnt;
}

/* Are there any that are to be deleted? */
static bool old_left(struct publisher *p)
{
	bool left = false;

	for (size_t i = 0, all = volume_nodes(p->st->vol); i < all && !left; i++)
		left = move_old_copies(p, node_number(p->st->vol->node[i])) != 0;
	return left;
}

/* What the commits do not name any more, behind *after.  1: there may be more; 0; -errno. */
static int delete_copies(struct publisher *p, struct old_copy *after)
{
	struct old_copy c[DELETES];
	struct node_wait w;
	struct node_io *io;
	int cnt = old_copies(p->st, after, c), err = 0;

	if (cnt <= 0)
		return cnt;
	*after = c[cnt - 1];
	/* The rows that do not name these copies any more are on the disk before they go. */
	err = store_commit(p->st);
	node_wait_init(&w);
	for (int i = 0; i < cnt && !err; i++) {
		struct node *n = volume_node(p->st->vol, c[i].node);

		/* What is left on a node that is gone stays there. */
		if (!n || node_member(n) == NODE_GONE) {
			err = forget_copy(p->st, &c[i]);
			continue;
		}
		/* Those of a node that is away, or keeps them, are stepped over together. */
		if (!node_readable(n) || kept(p, c[i].node)) {
			if (c[cnt - 1].node == c[i].node) {
				after->node++;
				after->name[0] = 0;
				break;
			}
			continue;
		}
		if (!(io = node_io_new(NODE_DEL, c[i].name)))
			continue;
		io->deadline_ms = now_ms() + DELETE_MS;
		io->tag = (unsigned)i;
		node_wait_submit(&w, n, io);
	}
	while (w.pending && (io = node_wait_next(&w, now_ms() + DELETE_MS + 1000))) {
		if (!err && (!io->err || io->err == -ENOENT))
			err = forget_copy(p->st, &c[io->tag]);
		node_io_unref(io);
	}
	node_wait_release(&w);
	return err ? err : publish_stopping(p) ? -ECANCELED : cnt == DELETES;
}

/* --- the end of a node --- */

int64_t move_shards_on(struct store *st, uint16_t number, uint64_t *bytes)
{
	struct usage_node u = {.number = number};
	uint64_t below;
	unsigned spare;
	int err = usage_read(st, 1, 0, &u, 1, &below, &spare);

	if (bytes)
		*bytes = u.bytes;
	return err ? err : (int64_t)u.shards;
}

/* Its shards are nowhere: the repair list has them from now on. */
static int forget_shards(struct round *r, uint16_t number)
{
	struct store *st = r->p->st;
	uint64_t seg = 0;
	int more = 1, err = 0;

	while (!err && more == 1) {
		struct seg_place pl;
		bool hit = false;
		int rows = 0;

		pthread_mutex_lock(&st->meta);
		sqlite3_stmt *q =
			store_stmt(st, "SELECT seg," SEGMENT_COLS " FROM segment WHERE "
				       "kind IN (1,2,5) AND seg>?1 ORDER BY seg LIMIT 200");
		if (!q)
			err = -EIO;
		else
			sqlite3_bind_int64(q, 1, (int64_t)seg);
		while (!err && !hit && (more = store_step(st, q)) == 1) {
			rows++;
			seg = (uint64_t)sqlite3_column_int64(q, 0);
			err = segment_columns(q, 1, &pl);
			for (unsigned i = 0; !err && i < (unsigned)pl.geom.k + pl.geom.m; i++)
				if (pl.node[i] == number) {
					pl.node[i] = (uint16_t)NODE_NONE;
					hit = true;
				}
		}
		if (q)
			sqlite3_reset(q);
		if (!err && hit)
			err = segment_nodes_locked(st, seg, &pl, st->epoch);
		if (hit || rows == SLICE_ROWS)
			more = 1;
		if (hit)
			publish_touch(r->p);
		pthread_mutex_unlock(&st->meta);
	}
	return err ? err : more < 0 ? more : 0;
}

static int log_is_whole(struct publisher *p)
{
	struct hist_verify hv = {
		.v = p->st->vol, .dev = p->opts.devices, .dev_cnt = p->opts.device_cnt};
	struct hist_floor *floor;
	uint64_t lacking = 0;

	memcpy(hv.owner_pk, p->opts.owner_pk, sizeof hv.owner_pk);
	int err = snapshot_floors(p->st, p->opts.devices, p->opts.device_cnt, &floor,
				  &hv.floor_cnt);

	hv.floor = floor;
	if (!err)
		err = repair_blobs(p->st->vol, history_verify_blob, &hv, &lacking);
	free(floor);
	return err < 0 ? err : lacking ? -EAGAIN : 0;
}

/*
 * The order is that of volume.h.  Whatever stops it, the node is again what it was, and it
 * is tried again; once its row says gone, join_step ends it.
 */
static int leave(struct round *r, size_t at)
{
	struct publisher *p = r->p;
	struct store *st = p->st;
	struct node *n = volume_node(st->vol, r->list[at].number);
	uint16_t number = r->list[at].number;
	int err = 0;

	if (r->list[at].member == NODE_GONE) {
		/* It was removed; what was meant is done. */
		pthread_mutex_lock(&st->meta);
		err = member_kv_locked(st, "roster_due", 0) ? -EAGAIN : 0;
		if (!err)
			err = member_put_kv_locked(st, "leave", number, 0);
		if (!err)
			err = member_put_kv_locked(st, "heir", number, 0);
		if (!err)
			err = member_put_kv_locked(st, "wipe", number, 0);
		if (!err)
			err = member_put_kv_locked(st, "drained", number, 0);
		pthread_mutex_unlock(&st->meta);
		return err;
	}
	if (r->leave[at] == 2)
		err = forget_shards(r, number);
	if (err || !n)
		return err;
	pthread_mutex_lock(&st->meta);
	bool wipe = member_kv_locked(st, "wipe", number) != 0;
	pthread_mutex_unlock(&st->meta);
	/* Told to leave nothing there, it goes when nothing is there, unless it is away. */
	if (wipe && node_readable(n) && move_old_copies(p, number))
		return -EAGAIN;
	enum node_member was = node_member(n);
	node_set_member(n, NODE_LEAVING);
	/* What was being written when it was still counted is waited for. */
	err = publish_now(p, false);
	if (!err && p->crashed)
		err = -ECANCELED;
	int64_t left = err ? err : move_shards_on(st, number, NULL);
	if (left > 0)
		err = -EAGAIN;
	if (left < 0)
		err = (int)left;
	if (!err)
		err = log_is_whole(p);
	if (!err) {
		pthread_mutex_lock(&st->meta);
		err = member_set_locked(st, number, NULL, NODE_GONE);
		if (!err)
			err = member_put_kv_locked(st, "roster_due", 0, 1);
		pthread_mutex_unlock(&st->meta);
		if (!err)
			err = store_commit(st);
	}
	if (err) {
		node_set_member(n, was);
		move_say(p, "waiting for nodes: the log is not on enough of the others yet");
		return err;
	}
	return join_step(p);
}

static int finish_pass(struct round *r, bool *left, bool *soon)
{
	struct publisher *p = r->p;
	int err = 0;

	if (r->rebalance && !r->failed) {
		pthread_mutex_lock(&p->st->meta);
		/* As counted by move_add: another node may have come since this pass began. */
		if (member_kv_locked(p->st, "rebalance", 0) == p->move_pass)
			err = member_put_kv_locked(p->st, "rebalance", 0, 0);
		else
			*soon = true;
		pthread_mutex_unlock(&p->st->meta);
	}
	for (size_t i = 0; i < r->cnt && !err; i++) {
		if (!r->leave[i] && !r->heir[i])
			continue;
		if (r->list[i].member != NODE_GONE && r->leave[i] != 2 &&
		    move_shards_on(p->st, r->list[i].number, NULL) != 0) {
			*left = true;
			continue;
		}
		err = leave(r, i);
		if (err == -EAGAIN) {
			*left = true;
			err = 0;
		}
	}
	if (r->failed) {
		*left = true;
		move_say(p, "waiting for nodes: some shards have no place to go to, or cannot be had");
	}
	return err;
}

int move_round(struct publisher *p, bool *left, bool *soon)
{
	struct seg_place pl;
	struct round r;
	bool waits = false;
	int more = 0;

	*left = *soon = false;
	int err = join_step(p);
	if (err) {
		*left = true;
		return err == -EAGAIN ? 0 : err;
	}
	err = round_begin(&r, p);
	if (!err && r.joining)
		*soon = true;
	if (!err && r.work && !r.joining) {
		uint64_t seg = p->move_seg;

		while (!err && (more = next_row(&r, &seg, &pl)) > 0) {
			/* This one is looked for again when the limit allows it. */
			if (more == 1 && mend_must_wait(p)) {
				waits = true;
				break;
			}
			p->move_seg = seg;
			if (more == 1)
				err = move_segment(&r, seg, &pl);
			if (!err && publish_stopping(p))
				err = -ECANCELED;
			if (!err && now_ms() >= r.end_ms) {
				*soon = true;
				break;
			}
		}
		if (more < 0)
			err = more;
		p->move_failed += r.failed;
		*left |= waits;
		if (!err && !*soon && !waits) {
			r.failed = p->move_failed;
			p->move_seg = p->move_failed = 0;
			move_say(p, "");
			err = drop_condemned(&r);
			if (!err)
				err = finish_pass(&r, left, soon);
		}
	}
	round_release(&r);
	if (err)
		return err;
	pthread_mutex_lock(&p->st->meta);
	int64_t old = move_count_locked(p->st, "SELECT count(*) FROM moved WHERE chg>?1",
				   (int64_t)p->st->published);
	pthread_mutex_unlock(&p->st->meta);
	/* Old copies go when a commit says where the new ones are. */
	if (old > 0 && !*soon && !waits)
		err = publish_now(p, false);
	struct old_copy after = {0};
	while (!err && (err = delete_copies(p, &after)) == 1)
		;
	*left |= old_left(p);
	pthread_mutex_lock(&p->lock);
	p->move_rounds++;
	pthread_cond_broadcast(&p->cond);
	pthread_mutex_unlock(&p->lock);
	return err;
}
