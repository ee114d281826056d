/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Shards that a node lists and no row knows: of uploads that a crash ended, of a machine that
 * was taken over and did not know it yet, requests that came through long after everybody had
 * given them up.
 */
#include <stdlib.h>
#include "cache/garbage.h"

#define STRAY_MS  (12 * 3600 * 1000)
#define STRAY_MAX 100000 /* known of one node at a time */
#define SLICE	  200
#define DEL_OUT	  32

struct listed {
	uint64_t hash;
	const char *name;
	bool known;
};

static int by_hash(const void *a, const void *b)
{
	const struct listed *x = a, *y = b;

	return (x->hash > y->hash) - (x->hash < y->hash);
}

/* All entries of this hash are known: names that only share it are left alone. */
static void mark_known(struct listed *l, size_t cnt, uint64_t hash)
{
	struct listed key = {.hash = hash};
	struct listed *e = cnt ? bsearch(&key, l, cnt, sizeof *l, by_hash) : NULL;

	if (!e)
		return;
	while (e > l && e[-1].hash == hash)
		e--;
	for (; e < l + cnt && e->hash == hash; e++)
		e->known = true;
}

/*
 * Every shard that a row could have on this node is known, wherever the row says its shards
 * are: a repair may have put it there a moment ago, or long ago, and it may be needed.
 */
static int mark_rows(struct publisher *p, uint16_t node, struct listed *l, size_t cnt)
{
	struct store *st = p->st;
	struct {
		struct seg_id id;
		unsigned n;
	} row[SLICE];
	uint64_t seg = 0;
	int rows, more, r = 0;

	do {
		rows = more = 0;
		pthread_mutex_lock(&st->meta);
		sqlite3_stmt *q =
			store_stmt(st, "SELECT seg,id,k+m FROM segment WHERE seg>?1 AND "
				       "kind<>3 ORDER BY seg LIMIT 200");
		if (!q)
			r = -EIO;
		else
			sqlite3_bind_int64(q, 1, (int64_t)seg);
		while (!r && rows < SLICE && (more = store_step(st, q)) == 1) {
			seg = (uint64_t)sqlite3_column_int64(q, 0);
			if (sqlite3_column_bytes(q, 1) != SEG_LEN)
				r = -EBADMSG;
			else
				memcpy(row[rows].id.b, sqlite3_column_blob(q, 1), SEG_LEN);
			row[rows++].n = HF_MIN((unsigned)sqlite3_column_int(q, 2), EC_MAX);
		}
		if (q)
			sqlite3_reset(q);
		pthread_mutex_unlock(&st->meta);
		for (int i = 0; !r && i < rows; i++)
			for (unsigned s = 0; s < row[i].n; s++) {
				char name[BLOB_NAME_CAP];

				keys_shard_name(st->vol->keys, &row[i].id, s, node, name);
				mark_known(l, cnt, mend_hash(name));
			}
		if (!r && publish_stopping(p))
			r = -ECANCELED;
	} while (!r && more >= 0 && rows);
	return r ? r : more < 0 ? more : 0;
}

/* The oldest epoch that a cut in flight, or one that is pending, may have; meta held. */
static int oldest_cut_locked(struct store *st, uint64_t *epoch)
{
	uint64_t pending;
	int r = garbage_one_locked(st, store_stmt(st, "SELECT epoch FROM pending"), &pending);

	*epoch = st->cut_epoch ? st->cut_epoch : UINT64_MAX;
	if (pending)
		*epoch = HF_MIN(*epoch, pending);
	return r;
}

/*
 * Notes an unknown shard; *old: it was seen before, long enough ago, and whatever was being
 * stored at that time has long ended.  meta held.
 */
static int note_stray(struct publisher *p, uint16_t node, uint64_t hash, uint64_t oldest,
		      uint64_t *room, bool *old)
{
	struct store *st = p->st;
	int64_t age = garbage_pace(p->opts.pace.stray_ms, STRAY_MS) / 2, since = 0,
		now = garbage_wall_ms();
	uint64_t epoch = 0;
	sqlite3_stmt *q =
		store_stmt(st, "SELECT since,epoch FROM stray WHERE node=?1 AND hash=?2");

	*old = p->opts.skip_seen;
	if (!q)
		return -EIO;
	sqlite3_bind_int(q, 1, node);
	sqlite3_bind_int64(q, 2, (int64_t)hash);
	int r = store_step(st, q);

	if (r == 1) {
		since = sqlite3_column_int64(q, 0);
		epoch = (uint64_t)sqlite3_column_int64(q, 1);
	}
	sqlite3_reset(q);
	if (r < 0)
		return r;
	if (r == 1) {
		*old |= now - since >= age && oldest >= epoch;
		return 0;
	}
	if (!*room)
		return 0;
	(*room)--;
	q = store_stmt(st, "INSERT INTO stray(node,hash,since,epoch) VALUES(?1,?2,?3,?4)");
	if (!q)
		return -EIO;
	sqlite3_bind_int(q, 1, node);
	sqlite3_bind_int64(q, 2, (int64_t)hash);
	sqlite3_bind_int64(q, 3, now);
	sqlite3_bind_int64(q, 4, (int64_t)st->epoch);
	return store_run(st, q);
}

/* Forgets what is not listed any more, or known by now. */
static int forget_strays(struct publisher *p, uint16_t node, const struct listed *l, size_t cnt,
			 uint64_t *kept)
{
	struct store *st = p->st;
	int64_t after = INT64_MIN;
	uint64_t gone[SLICE];
	int rows, more, r = 0;
	bool first = true;

	*kept = 0;
	do {
		int drop = 0;

		rows = more = 0;
		pthread_mutex_lock(&st->meta);
		sqlite3_stmt *q = store_stmt(st, "SELECT hash FROM stray WHERE node=?1 AND "
						 "(hash>?2 OR ?3) ORDER BY hash LIMIT 200");
		if (!q)
			r = -EIO;
		else {
			sqlite3_bind_int(q, 1, node);
			sqlite3_bind_int64(q, 2, after);
			sqlite3_bind_int(q, 3, first);
		}
		first = false;
		while (!r && rows < SLICE && (more = store_step(st, q)) == 1) {
			struct listed key = {.hash = (uint64_t)sqlite3_column_int64(q, 0)};
			const struct listed *e =
				cnt ? bsearch(&key, l, cnt, sizeof *l, by_hash) : NULL;

			rows++;
			after = (int64_t)key.hash;
			if (!e || e->known)
				gone[drop++] = key.hash;
			else
				(*kept)++;
		}
		if (q)
			sqlite3_reset(q);
		for (int i = 0; !r && i < drop; i++) {
			q = store_stmt(st, "DELETE FROM stray WHERE node=?1 AND hash=?2");
			if (q) {
				sqlite3_bind_int(q, 1, node);
				sqlite3_bind_int64(q, 2, (int64_t)gone[i]);
			}
			r = q ? store_run(st, q) : -EIO;
		}
		pthread_mutex_unlock(&st->meta);
	} while (!r && more >= 0 && rows == SLICE);
	return r ? r : more < 0 ? more : 0;
}

static int list_of(struct buf *names, struct listed **out, size_t *cnt)
{
	const char *s = (const char *)names->p;

	*cnt = 0;
	for (size_t i = 0; i < names->len; i++)
		*cnt += !names->p[i];
	*out = calloc(HF_MAX(*cnt, (size_t)1), sizeof **out);
	if (!*out)
		return -ENOMEM;
	for (size_t i = 0; i < *cnt; i++, s += strlen(s) + 1)
		(*out)[i] = (struct listed){.hash = mend_hash(s), .name = s};
	if (*cnt)
		qsort(*out, *cnt, sizeof **out, by_hash);
	return 0;
}

static int delete_strays(struct publisher *p, struct node *n, const struct listed *const *l,
			 size_t cnt, unsigned *done)
{
	struct garbage_del *d = calloc(DEL_OUT, sizeof *d);
	int r = d ? 0 : -ENOMEM;

	for (size_t i = 0; !r && i < cnt; i += DEL_OUT) {
		size_t k = HF_MIN(cnt - i, (size_t)DEL_OUT);

		memset(d, 0, DEL_OUT * sizeof *d);
		for (size_t j = 0; j < k; j++) {
			d[j].node = n;
			snprintf(d[j].name, sizeof d[j].name, "%s", l[i + j]->name);
		}
		garbage_delete(p, d, k);
		for (size_t j = 0; j < k; j++)
			*done += d[j].done;
		if (publish_stopping(p))
			r = -ECANCELED;
	}
	free(d);
	return r;
}

/*
 * One look at a node.  The order is what makes it safe: list; then see that nobody took over,
 * so that all that was listed is of this machine or of those before it; then see which cuts may
 * still be under way; only then see what the database knows.
 */
static int look_for_strays(struct publisher *p, struct node *n)
{
	struct store *st = p->st;
	uint16_t number = node_number(n);
	const struct listed **old = NULL;
	struct listed *l = NULL;
	struct buf names = {0};
	size_t cnt = 0, old_cnt = 0;
	uint64_t oldest = 0, kept = 0, room;
	unsigned done = 0;
	int r = mend_list(n, &names);

	if (!r)
		r = publish_stage(p, "listed");
	if (!r)
		r = garbage_ours(p);
	pthread_mutex_lock(&st->meta);
	if (!r)
		r = oldest_cut_locked(st, &oldest);
	pthread_mutex_unlock(&st->meta);
	if (!r)
		r = list_of(&names, &l, &cnt);
	if (!r)
		r = mark_rows(p, number, l, cnt);
	if (!r)
		r = forget_strays(p, number, l, cnt, &kept);
	if (!r && !(old = calloc(HF_MAX(cnt, (size_t)1), sizeof *old)))
		r = -ENOMEM;
	room = STRAY_MAX - HF_MIN(kept, (uint64_t)STRAY_MAX);
	for (size_t i = 0; !r && i < cnt;) {
		pthread_mutex_lock(&st->meta);
		for (size_t end = i + SLICE; !r && i < cnt && i < end; i++) {
			bool is_old = false;

			/* Only what has the form of a shard's name is anything of ours. */
			if (l[i].known || strncmp(l[i].name, "s/", 2) ||
			    strlen(l[i].name) >= BLOB_NAME_CAP)
				continue;
			r = note_stray(p, number, l[i].hash, oldest, &room, &is_old);
			if (is_old)
				old[old_cnt++] = &l[i];
		}
		pthread_mutex_unlock(&st->meta);
	}
	if (!r && old_cnt)
		r = delete_strays(p, n, old, old_cnt, &done);
	if (done)
		log_info("node %s: %u shards that nothing names are deleted", node_name(n),
			 done);
	free(old);
	free(l);
	buf_release(&names);
	return r;
}

/*
 * Does this database know all that a recovery may ask for?  Not while another device writes to
 * the volume too; and after a takeover not before two snapshots of this device stand for all
 * that came from those before it.
 */
static int knows_all(struct publisher *p, bool *all)
{
	struct store *st = p->st;
	uint64_t others = 1, before = 1;

	pthread_mutex_lock(&st->meta);
	sqlite3_stmt *q =
		store_stmt(st, "SELECT count(*) FROM device WHERE role<>3 AND number<>?1");
	if (q)
		sqlite3_bind_int(q, 1, st->device);
	int r = garbage_one_locked(st, q, &others);

	q = r ? NULL : store_stmt(st, "SELECT count(*) FROM device WHERE number<>?1");
	if (q)
		sqlite3_bind_int(q, 1, st->device);
	if (!r)
		r = garbage_one_locked(st, q, &before);
	*all = !r && !others && (!before || garbage_kv_locked(st, "log_trim") > 1);
	/* A snapshot that stands on the first commit trims nothing yet. */
	bool alone = !r && !others && garbage_kv_locked(st, "log_seq") > 1;
	pthread_mutex_unlock(&st->meta);
	/* Each snapshot makes the one before it the older of two. */
	for (int i = 0; !r && alone && !*all && i < 3; i++) {
		r = snapshot_take(p);
		pthread_mutex_lock(&st->meta);
		*all = !r && garbage_kv_locked(st, "log_trim") > 1;
		pthread_mutex_unlock(&st->meta);
	}
	return r;
}

int garbage_strays(struct publisher *p, int64_t *next_ms)
{
	struct store *st = p->st;
	int64_t every = garbage_pace(p->opts.pace.stray_ms, STRAY_MS), first = INT64_MAX;
	bool asked = false, all = false;
	int r = 0;

	for (size_t i = 0; !r && i < st->vol->node_cnt; i++) {
		struct node *n = st->vol->node[i];
		int64_t now = garbage_wall_ms();
		uint64_t last;
		char key[32];

		if (!node_usable(n))
			continue;
		snprintf(key, sizeof key, "strays_%u", node_number(n));
		pthread_mutex_lock(&st->meta);
		last = garbage_kv_locked(st, key);
		if (!last) /* a new drive has none yet */
			r = store_put_u64(st, key, last = (uint64_t)now);
		pthread_mutex_unlock(&st->meta);
		int64_t due = (int64_t)last + every;

		if (r || (due > now && (int64_t)last <= now)) {
			first = HF_MIN(first, due - now);
			continue;
		}
		if (!asked)
			r = knows_all(p, &all);
		asked = true;
		if (!r && all)
			r = look_for_strays(p, n);
		if (r && r != -ECANCELED && r != -ESTALE) {
			log_debug("looking for stray shards on node %s: %s", node_name(n),
				  strerror(-r));
			r = 0;
		}
		pthread_mutex_lock(&st->meta);
		if (!r)
			r = store_put_u64(st, key, (uint64_t)now);
		pthread_mutex_unlock(&st->meta);
		first = HF_MIN(first, every);
	}
	if (first != INT64_MAX)
		*next_ms = HF_MIN(*next_ms, now_ms() + first);
	return r;
}
