/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What a commit leaves as it was: files with so much to send that everybody else would wait
 * for them, and what hangs together with them.  FORMAT.md, "Held files", has the rule.
 *
 * An inode is held as a whole: its record, its contents, its new names, the names it lost.
 * Names carry the rest: whoever had, or has now, a name in the place where a held inode has
 * or had one is held as well; a directory that is gone and had the name of one stays until
 * then.  And fsync does (order.c).  When a directory that is there would have to be held, or
 * it grows too far, nothing is: the cut takes everything and takes longer.
 *
 * What is held moves to the epoch after the cut, so that it is unpublished as before, and an
 * inode or a name that no commit ever had counts as born there.
 */
#include <stdlib.h>
#include "cache/cut.h"
#include "cache/datafile.h"

/* In memory, filled anew by each cut. */
#define TABLES                                                                                 \
	"CREATE TEMP TABLE IF NOT EXISTS hold(ino INTEGER PRIMARY KEY);"                       \
	"CREATE TEMP TABLE IF NOT EXISTS hold_new(parent INTEGER NOT NULL,name BLOB NOT NULL," \
	"ino INTEGER NOT NULL,mode INTEGER,PRIMARY KEY(parent,name)) WITHOUT ROWID;"           \
	"CREATE INDEX IF NOT EXISTS temp.hold_new_ino ON hold_new(ino);"                       \
	"CREATE TEMP TABLE IF NOT EXISTS hold_old(parent INTEGER NOT NULL,name BLOB NOT NULL," \
	"ino INTEGER NOT NULL,mode INTEGER,PRIMARY KEY(parent,name,ino)) WITHOUT ROWID;"       \
	"CREATE INDEX IF NOT EXISTS temp.hold_old_ino ON hold_old(ino)"

#define HELD_MAX   4096 /* inodes; beyond it the cut is a whole one */
#define ROUNDS_MAX 64
#define SENT_SPARE 16 /* times ahead_min, before a file that never stands still is taken */

/* Runs a statement whose ?1 is the published epoch; sets *changed, if given, when it did some. */
static int since_published(struct cut *c, sqlite3_stmt *q, bool *changed)
{
	if (!q)
		return -EIO;
	sqlite3_bind_int64(q, 1, (int64_t)c->published);
	int r = store_run(c->st, q);

	if (changed && !r && sqlite3_changes(c->st->db) > 0)
		*changed = true;
	return r;
}

/* 1 when the query has a row. */
static int any(struct cut *c, sqlite3_stmt *q)
{
	if (!q)
		return -EIO;
	sqlite3_bind_int64(q, 1, (int64_t)c->published);
	int r = store_step(c->st, q);

	sqlite3_reset(q);
	return r;
}

struct held *held_find(const struct publisher *p, uint64_t ino)
{
	return p->held_cnt ? bsearch(&ino, p->held, p->held_cnt, sizeof *p->held, u64_cmp)
			   : NULL;
}

bool held_enough(const struct publisher *p, const struct held *h, uint64_t unpublished)
{
	return (h->due && h->sent >= h->due) ||
	       h->sent > 2 * unpublished + SENT_SPARE * ahead_min(p);
}

/* The limit for this inode: lower once it is held, so that what is left is little. */
static uint64_t limit_of(struct publisher *p, struct inode *in, uint64_t dirty)
{
	uint64_t limit = ahead_min(p);

	pthread_mutex_lock(&p->lock);
	const struct held *h = held_find(p, in->ino);

	/* It changes faster than it is sent: then as it is at this cut. */
	if (h)
		limit = held_enough(p, h, dirty) ? UINT64_MAX : ahead_low(p);
	pthread_mutex_unlock(&p->lock);
	return limit;
}

int hold_add(struct cut *c, uint64_t ino, bool *more)
{
	sqlite3_stmt *q = store_stmt(c->st, "INSERT OR IGNORE INTO hold(ino) VALUES(?1)");

	if (!q)
		return -EIO;
	sqlite3_bind_int64(q, 1, (int64_t)ino);
	int r = store_run(c->st, q);

	*more |= !r && sqlite3_changes(c->st->db) > 0;
	return r;
}

static int look_at(struct cut *c, struct inode *in, bool *some)
{
	int r = datafile_load_locked(c->st, in);

	if (r || !in->spans)
		return r;
	uint64_t limit = limit_of(c->p, in, account_of(in).unpublished);

	/* What is on its way is waited for: it would be sent twice. */
	if (limit == UINT64_MAX ||
	    (sent_left_locked(in) <= limit && !ranges_total(in->spans, RG_SENT)))
		return 0;
	return hold_add(c, in->ino, some);
}

/* The files that are too large to be taken along. */
static int huge_files(struct cut *c, bool *some)
{
	struct store *st = c->st;
	struct buf large = {0};
	int more, r = 0;

	for (struct inode *in = st->dirty_head; in && !r; in = in->dirty_next)
		if (in->flags & INODE_LARGE && in->nlink && in->size > ahead_low(c->p))
			r = look_at(c, in, some);
	sqlite3_stmt *q = store_stmt(st, "SELECT ino FROM inode INDEXED BY inode_chg WHERE "
					 "chg>?1 AND flags&1 AND nlink>0 AND size>?2");
	if (!q)
		return -EIO;
	sqlite3_bind_int64(q, 1, (int64_t)c->published);
	sqlite3_bind_int64(q, 2, (int64_t)ahead_low(c->p));
	while ((more = store_step(st, q)) == 1)
		buf_u64(&large, (uint64_t)sqlite3_column_int64(q, 0));
	sqlite3_reset(q);
	r = r ? r : more < 0 ? more : large.err;
	for (size_t i = 0; !r && i < large.len; i += 8) {
		struct inode *in;

		r = inode_get_locked(st, get_le64(large.p + i), &in);
		if (r)
			break;
		if (in->flags & INODE_LARGE && in->nlink)
			r = look_at(c, in, some);
		inode_put_locked(st, in);
	}
	buf_release(&large);
	return r;
}

/* The names made and lost since the last commit, by place and by inode. */
static int places(struct cut *c)
{
	struct store *st = c->st;
	int r = store_run(st, store_stmt(st, "DELETE FROM hold_new"));

	if (!r)
		r = store_run(st, store_stmt(st, "DELETE FROM hold_old"));
	if (!r)
		r = since_published(
			c,
			store_stmt(st, "INSERT OR IGNORE INTO hold_new SELECT d.parent,d.name,"
				       "d.ino,d.mode FROM newlink n CROSS JOIN dirent d ON "
				       "d.parent=n.parent AND d.hash=n.hash AND d.lid=n.lid "
				       "WHERE n.epoch>?1"),
			NULL);
	/* Version 1 does not say what a name led to: 0. */
	if (!r)
		r = since_published(
			c,
			store_stmt(st, "INSERT OR IGNORE INTO hold_old SELECT parent,name,"
				       "coalesce(ino,0),mode FROM tomb WHERE kind=1 AND "
				       "epoch>?1"),
			NULL);
	return r;
}

/* Whoever shares a place for a name with one that is held is held, and so is its place. */
static int spread_out(struct cut *c, bool *changed)
{
	struct store *st = c->st;
	bool more = true;
	int r = 0;

	for (unsigned i = 0; !r && more; i++) {
		if (i == ROUNDS_MAX)
			return 1;
		more = false;
		r = since_published(
			c,
			store_stmt(st, "INSERT OR IGNORE INTO hold SELECT o.ino FROM hold h "
				       "CROSS JOIN hold_new n ON n.ino=h.ino CROSS JOIN "
				       "hold_old o ON o.parent=n.parent AND o.name=n.name "
				       "WHERE o.ino<>0"),
			&more);
		if (!r)
			r = since_published(
				c,
				store_stmt(st, "INSERT OR IGNORE INTO hold SELECT n.ino FROM "
					       "hold h CROSS JOIN hold_old o ON o.ino=h.ino "
					       "CROSS JOIN hold_new n ON n.parent=o.parent AND "
					       "n.name=o.name"),
				&more);
		/* A directory that is gone: the names that are kept need it. */
		if (!r)
			r = since_published(
				c,
				store_stmt(st, "INSERT OR IGNORE INTO hold SELECT o.parent "
					       "FROM hold h CROSS JOIN hold_old o ON "
					       "o.ino=h.ino WHERE NOT EXISTS (SELECT 1 FROM "
					       "inode i WHERE i.ino=o.parent AND i.nlink>0)"),
				&more);
		*changed |= more;
	}
	return r;
}

/* 1: it cannot be told apart which part of the tree may be published. */
static int tangled(struct cut *c)
{
	struct store *st = c->st;
	/* A directory that is there, with all that is in it. */
	int r = any(c, store_stmt(st, "SELECT 1 FROM hold h CROSS JOIN hold_new n ON "
				      "n.ino=h.ino WHERE n.mode=16384 LIMIT 1"));

	if (!r)
		r = any(c, store_stmt(st, "SELECT 1 FROM hold h CROSS JOIN hold_old o ON "
					  "o.ino=h.ino CROSS JOIN inode i ON i.ino=h.ino "
					  "WHERE o.mode=16384 AND i.nlink>0 LIMIT 1"));
	/* The directory of a name that is kept, gone in an earlier commit. */
	if (!r)
		r = any(c, store_stmt(st, "SELECT 1 FROM hold h CROSS JOIN hold_old o ON "
					  "o.ino=h.ino WHERE NOT EXISTS (SELECT 1 FROM inode i "
					  "WHERE i.ino=o.parent AND i.nlink>0) AND NOT EXISTS "
					  "(SELECT 1 FROM hold_old x WHERE x.ino=o.parent) "
					  "LIMIT 1"));
	if (!r)
		r = any(c, store_stmt(st, "SELECT 1 FROM hold h CROSS JOIN hold_new n ON "
					  "n.ino=h.ino CROSS JOIN hold_old o ON "
					  "o.parent=n.parent AND o.name=n.name "
					  "WHERE o.ino=0 LIMIT 1"));
	return r;
}

/* All that hangs together with what is too large.  1: it is not to be told apart. */
static int together(struct cut *c)
{
	struct order *o;
	int r = order_new_locked(c, &o);
	bool more = true;

	if (!r)
		r = places(c);
	while (!r && more) {
		more = false;
		if (!c->p->opts.skip_names)
			r = spread_out(c, &more);
		if (!r && !c->p->opts.skip_order)
			r = order_pick_locked(o, &more);
	}
	order_free(o);
	return r || c->p->opts.skip_names ? r : tangled(c);
}

static int list_one(struct cut *c, sqlite3_stmt *q, size_t *cap)
{
	uint64_t ino = (uint64_t)sqlite3_column_int64(q, 0);
	struct inode *in = inode_peek_locked(c->st, ino);
	uint64_t size = in ? in->size : (uint64_t)sqlite3_column_int64(q, 2);
	uint32_t flags = in ? in->flags : (uint32_t)sqlite3_column_int64(q, 3);

	if (c->hold_cnt == *cap) {
		size_t n = *cap ? 2 * *cap : 16;
		struct hold *p = reallocarray(c->hold, n, sizeof *p);

		if (!p)
			return -ENOMEM;
		c->hold = p;
		*cap = n;
	}
	c->hold[c->hold_cnt++] = (struct hold){
		.ino = ino, .send = flags & INODE_LARGE && size > ahead_low(c->p)};
	/* Some commit knows it: that has to stay readable. */
	c->hold_old |= sqlite3_column_type(q, 1) == SQLITE_NULL ||
		       (uint64_t)sqlite3_column_int64(q, 1) <= c->published;
	return 0;
}

static int list(struct cut *c)
{
	size_t cap = 0;
	int more = 0, r = 0;
	sqlite3_stmt *q =
		store_stmt(c->st, "SELECT h.ino,i.born,i.size,i.flags FROM hold h LEFT "
				  "JOIN inode i ON i.ino=h.ino ORDER BY h.ino");

	if (!q)
		return -EIO;
	while (!r && (more = store_step(c->st, q)) == 1)
		r = list_one(c, q, &cap);
	sqlite3_reset(q);
	return r ? r : more;
}

int hold_pick_locked(struct cut *c)
{
	struct store *st = c->st;
	struct publisher *p = c->p;
	bool some = false;

	/* Nobody can have so much of its own. */
	if (st->unpublished_bytes <= ahead_low(p) || p->opts.skip_hold)
		return 0;
	if (sqlite3_exec(st->db, TABLES, NULL, NULL, NULL))
		return store_fail_locked(st, -EIO, "a table in memory");
	int r = store_run(st, store_stmt(st, "DELETE FROM hold"));

	if (!r)
		r = huge_files(c, &some);
	if (r || !some)
		return r;
	r = together(c);
	if (!r)
		r = list(c);
	if (r < 0)
		return r;
	pthread_mutex_lock(&p->lock);
	bool whole = r || c->hold_cnt > HELD_MAX || (p->whole && c->hold_old);
	pthread_mutex_unlock(&p->lock);
	if (whole) {
		log_debug("a huge file is not held back: its names do not stand alone");
		c->hold_cnt = 0;
		c->hold_old = false;
	}
	return 0;
}

bool hold_has(const struct cut *c, uint64_t ino)
{
	return c->hold_cnt && bsearch(&ino, c->hold, c->hold_cnt, sizeof *c->hold, u64_cmp);
}

static int keep_inode(struct cut *c, uint64_t ino)
{
	struct store *st = c->st;
	struct inode *in = inode_peek_locked(st, ino);
	sqlite3_stmt *q = store_stmt(
		st, "UPDATE inode SET born=iif(born>?3,?2,born),dchg=iif(dchg>?3,?2,dchg),"
		    "chg=?2 WHERE ino=?1 AND chg>?3");

	if (!q)
		return -EIO;
	sqlite3_bind_int64(q, 1, (int64_t)ino);
	sqlite3_bind_int64(q, 2, (int64_t)st->epoch);
	sqlite3_bind_int64(q, 3, (int64_t)c->published);
	if (in && in->chg > c->published) {
		in->chg = st->epoch;
		in->chg_dirty = true;
		if (in->dchg > c->published)
			in->dchg = st->epoch;
		if (in->born > c->published)
			in->born = st->epoch;
	}
	return store_run(st, q);
}

/* The first change that is not published stays the first, whatever the cut takes. */
static void keep_since(struct cut *c)
{
	struct store *st = c->st;
	unsigned i = 0;

	while (i < st->since_cnt && st->since[i].epoch <= c->published)
		i++;
	if (i == st->since_cnt)
		return;
	st->since[0] = (struct store_since){.epoch = st->epoch, .ns = st->since[i].ns};
	st->since_cnt = 1;
}

int hold_keep_locked(struct cut *c)
{
	struct store *st = c->st;
	int r = 0;

	if (!c->hold_cnt)
		return 0;
	for (size_t i = 0; !r && i < c->hold_cnt; i++)
		r = keep_inode(c, c->hold[i].ino);
	keep_since(c);
	sqlite3_stmt *q =
		r ? NULL
		  : store_stmt(st, "UPDATE dirent SET chg=?2 WHERE (parent,hash,name) "
				   "IN (SELECT d.parent,d.hash,d.name FROM newlink n "
				   "CROSS JOIN dirent d ON d.parent=n.parent AND "
				   "d.hash=n.hash AND d.lid=n.lid WHERE n.epoch>?1 "
				   "AND d.ino IN (SELECT ino FROM hold))");
	if (q)
		sqlite3_bind_int64(q, 2, (int64_t)st->epoch);
	if (!r)
		r = since_published(c, q, NULL);
	q = r ? NULL
	      : store_stmt(st, "UPDATE newlink SET epoch=?2 WHERE id IN (SELECT n.id FROM "
			       "newlink n CROSS JOIN dirent d ON d.parent=n.parent AND "
			       "d.hash=n.hash AND d.lid=n.lid WHERE n.epoch>?1 AND "
			       "d.ino IN (SELECT ino FROM hold))");
	if (q)
		sqlite3_bind_int64(q, 2, (int64_t)st->epoch);
	if (!r)
		r = since_published(c, q, NULL);
	q = r ? NULL
	      : store_stmt(st, "UPDATE tomb SET epoch=?2 WHERE epoch>?1 AND "
			       "iif(kind=2,id,ino) IN (SELECT ino FROM hold)");
	if (q)
		sqlite3_bind_int64(q, 2, (int64_t)st->epoch);
	if (!r)
		r = since_published(c, q, NULL);
	return r;
}

/* What waits for it, and what the thread that sends it knows. */
int hold_tell(struct cut *c)
{
	struct publisher *p = c->p;
	size_t cnt = 0, i = 0, j = 0;

	pthread_mutex_lock(&p->lock);
	struct held *held = calloc(HF_MAX(c->hold_cnt + p->held_cnt, (size_t)1), sizeof *held);

	if (!held) {
		pthread_mutex_unlock(&p->lock);
		return -ENOMEM;
	}
	while (i < c->hold_cnt || j < p->held_cnt) {
		const struct hold *now = i < c->hold_cnt ? &c->hold[i] : NULL;
		const struct held *was = j < p->held_cnt ? &p->held[j] : NULL;

		if (!now || (was && was->ino < now->ino)) {
			/* The cut takes it: it is not published before that is. */
			held[cnt] = *was;
			held[cnt++].taken = true;
			j++;
			continue;
		}
		if (was && was->ino == now->ino) {
			held[cnt] = *was;
			j++;
		} else {
			held[cnt] = (struct held){
				.ino = now->ino, .since = p->begun, .since_ms = now_ms()};
		}
		held[cnt].send = now->send;
		held[cnt++].taken = false;
		i++;
	}
	free(p->held);
	p->held = held;
	p->held_cnt = cnt;
	p->held_old |= c->hold_old;
	p->hold_old = c->hold_old;
	p->held_gen++;
	pthread_cond_broadcast(&p->cond);
	pthread_mutex_unlock(&p->lock);
	return 0;
}

void hold_done_locked(struct publisher *p)
{
	size_t cnt = 0;

	for (size_t i = 0; i < p->held_cnt; i++)
		if (!p->held[i].taken)
			p->held[cnt++] = p->held[i];
	p->held_cnt = cnt;
	p->held_old = p->hold_old;
	p->held_gen++;
}

bool hold_blocks_locked(struct publisher *p, uint64_t ino, uint64_t ticket)
{
	const struct held *h = ino ? held_find(p, ino) : NULL;

	if (ino)
		return h && h->since <= ticket;
	for (size_t i = 0; i < p->held_cnt; i++)
		if (p->held[i].since <= ticket)
			return true;
	return false;
}

void hold_hurry_locked(struct publisher *p, uint64_t ino, uint64_t ticket)
{
	const struct held *one = ino ? held_find(p, ino) : NULL;
	uint64_t before = p->hurries;

	/* What waits for others goes when they do. */
	for (size_t i = 0; i < p->held_cnt; i++) {
		struct held *h = &p->held[i];
		bool wanted = !ino || h == one || (one && !one->send);

		if (wanted && h->send && h->since <= ticket && !h->hurry) {
			h->hurry = true;
			p->hurries++;
		}
	}
	if (p->hurries != before)
		pthread_cond_broadcast(&p->cond);
}
