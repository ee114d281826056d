/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "cache/move.h"

#include <stdlib.h>
#include "cache/cut.h"
#include "cache/member.h"
#include "cache/usage.h"

#define SLICE_ROWS 200	 /* segments looked at in one hold of meta */
#define SLICE_MS   2000	 /* of moving before other mending has its turn */
#define YIELD_MS   200	 /* a shard waits that long for a cut that is being stored */
#define DELETE_MS  30000
#define DELETES	   64

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

static void say(struct publisher *p, const char *why)
{
	pthread_mutex_lock(&p->lock);
	snprintf(p->move_reason, sizeof p->move_reason, "%s", why);
	pthread_cond_broadcast(&p->cond);
	pthread_mutex_unlock(&p->lock);
}

static int64_t count_locked(struct store *st, const char *sql, int64_t arg)
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

/* --- rosters, and who is open --- */

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
			      p->opts.device_cnt, now_ms() + DELETE_MS, &found, &there, NULL);
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
		say(p, "waiting for nodes: too few can be written to change the members");
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

static int members_step(struct publisher *p)
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
	 * A change may have been asked for since members_step looked: a pass over what is open
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
	while (!p->stopping && !p->stopped && p->status.busy && now_ms() < until) {
		struct timespec ts = {.tv_sec = until / 1000,
				      .tv_nsec = until % 1000 * 1000000};

		pthread_cond_timedwait(&p->cond, &p->lock, &ts);
	}
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
		/* Those of a node that is away are stepped over together. */
		if (!node_readable(n)) {
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

static int64_t shards_on(struct store *st, uint16_t number, uint64_t *bytes)
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
	int err = snapshot_floors(p, &floor, &hv.floor_cnt);

	hv.floor = floor;
	if (!err)
		err = repair_blobs(p->st->vol, history_verify_blob, &hv, &lacking);
	free(floor);
	return err < 0 ? err : lacking ? -EAGAIN : 0;
}

/*
 * The order is that of volume.h.  Whatever stops it, the node is again what it was, and it
 * is tried again; once its row says gone, put_roster and open_members end it.
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
		pthread_mutex_unlock(&st->meta);
		return err;
	}
	if (r->leave[at] == 2)
		err = forget_shards(r, number);
	if (err || !n)
		return err;
	enum node_member was = node_member(n);
	node_set_member(n, NODE_LEAVING);
	/* What was being written when it was still counted is waited for. */
	err = publish_now(p, false);
	if (!err && p->crashed)
		err = -ECANCELED;
	int64_t left = err ? err : shards_on(st, number, NULL);
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
		say(p, "waiting for nodes: the log is not on enough of the others yet");
		return err;
	}
	return members_step(p);
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
		    shards_on(p->st, r->list[i].number, NULL) != 0) {
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
		say(p, "waiting for nodes: some shards have no place to go to, or cannot be had");
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
	int err = members_step(p);
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
			say(p, "");
			err = drop_condemned(&r);
			if (!err)
				err = finish_pass(&r, left, soon);
		}
	}
	round_release(&r);
	if (err)
		return err;
	pthread_mutex_lock(&p->st->meta);
	int64_t old = count_locked(p->st, "SELECT count(*) FROM moved WHERE chg>?1",
				   (int64_t)p->st->published);
	pthread_mutex_unlock(&p->st->meta);
	/* Old copies go when a commit says where the new ones are. */
	if (old > 0 && !*soon && !waits)
		err = publish_now(p, false);
	struct old_copy after = {0};
	while (!err && (err = delete_copies(p, &after)) == 1)
		;
	pthread_mutex_lock(&p->st->meta);
	old = count_locked(p->st, "SELECT count(*) FROM moved WHERE chg>=?1", 0);
	pthread_mutex_unlock(&p->st->meta);
	*left |= old > 0;
	pthread_mutex_lock(&p->lock);
	p->move_rounds++;
	pthread_cond_broadcast(&p->cond);
	pthread_mutex_unlock(&p->lock);
	return err;
}

/* --- what commands ask for --- */

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

/* Without `but`, could new segments have all their shards?  (A heir takes its place.) */
static int check_room(struct publisher *p, uint16_t but, const char *verb)
{
	struct volume *v = p->st->vol;
	size_t all = volume_nodes(v), cnt = 0;
	struct place_node *pn = calloc(HF_MAX(all, (size_t)1), sizeof *pn);

	if (!pn)
		return log_fail(-ENOMEM, "out of memory");
	for (size_t i = 0; i < all; i++)
		if (node_member(v->node[i]) == NODE_MEMBER && node_number(v->node[i]) != but)
			pn[cnt++] = (struct place_node){.node = node_number(v->node[i]),
							.weight = 1,
							.domain = node_domain(v->node[i]),
							.usable = true};
	int err = place_check(pn, cnt, v->k, v->m);
	free(pn);
	if (!err)
		return 0;
	char why[256];
	snprintf(why, sizeof why, "%s", log_last());
	return log_fail(-EBUSY,
			"node-%u cannot be %s: the drive would promise less than it does (%s): "
			"replace it (holdfast node replace), or add a node first (holdfast node add)",
			but, verb, why);
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
	err = check_room(p, number, "drained");
	if (err)
		return err;
	pthread_mutex_lock(&st->meta);
	err = begin_change_locked(st);
	if (!err)
		err = member_set_locked(st, number, NULL, NODE_DRAINING);
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
	err = check_room(p, number, "removed");
	if (!err && lost)
		err = check_lost(p, number);
	int64_t on = err || lost ? 0 : shards_on(st, number, &bytes);
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
		err = member_set_locked(st, number, NULL, NODE_DRAINING);
	if (!err)
		err = member_put_kv_locked(st, "leave", number, lost ? 2 : 1);
	pthread_mutex_unlock(&st->meta);
	return changed(p, err);
}

int move_replace(struct publisher *p, uint16_t old, uint16_t heir, const char *url)
{
	struct store *st = p->st;
	struct node_spec *list;
	size_t cnt, at;
	int err = known(p, old, &list, &cnt, &at);

	member_list_free(list, cnt);
	if (err)
		return err;
	pthread_mutex_lock(&st->meta);
	err = begin_change_locked(st);
	if (!err)
		err = member_set_locked(st, heir, url, NODE_MEMBER);
	if (!err)
		err = member_set_locked(st, old, NULL, NODE_DRAINING);
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
	int64_t on = shards_on(st, number, &out->bytes);
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
	int64_t old = count_locked(st, "SELECT count(*) FROM moved WHERE node=?1", number);
	pthread_mutex_unlock(&st->meta);
	out->old_copies = old > 0 ? (uint64_t)old : 0;
	pthread_mutex_lock(&p->lock);
	memcpy(out->reason, p->move_reason, sizeof out->reason);
	pthread_mutex_unlock(&p->lock);
	return 0;
}

void move_wait(struct publisher *p, int64_t ms)
{
	int64_t until = now_ms() + ms;
	struct timespec ts = {.tv_sec = until / 1000, .tv_nsec = until % 1000 * 1000000};

	pthread_mutex_lock(&p->lock);
	uint64_t rounds = p->move_rounds;
	while (!p->stopping && !p->stopped && p->move_rounds == rounds &&
	       pthread_cond_timedwait(&p->cond, &p->lock, &ts) != ETIMEDOUT)
		;
	pthread_mutex_unlock(&p->lock);
}
