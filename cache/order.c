/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What a program fsynced is published no later than what is fsynced after it.
 *
 * A held file (hold.c) is published as it was, and what came after it as it is: a program
 * that had fsynced the one before it wrote the other would find, after a recovery, an order
 * that never was.  A database would: new journal, old pages.  So, once a program has called
 * fsync for a file (INODE_FSYNCED) that is held, every other file that
 *
 *   is ordered itself (not INODE_UNORDERED), and
 *   is in the same part of the tree: below the same directory of the root, or both in the
 *   root itself,
 *
 * stays as it was too, and what was one stays there.  When it changed does not matter: what
 * is published of the part's ordered files is then as of one commit, and so in order.
 *
 * Files for which nobody called fsync do not wait: their writer did not ask for an order.
 * Nor does the rest of the drive: one huge image would hold back everything else.  A part is
 * as large as it is because what belongs together is rarely in one directory (PostgreSQL,
 * git), and as small as it is because what a user calls a place of its own is one there.
 *
 * Where a file has several names, or where it is is not known, it is in every part.
 */
#include <stdlib.h>
#include "cache/cut.h"

#define DEPTH_MAX 65536
#define ANYWHERE  0 /* no inode has this number */

struct order {
	struct cut *c;
	struct store *st;
	struct item {
		uint64_t ino, part;
	} * item; /* what may have to wait: changed and ordered */
	size_t cnt, cap;
	uint64_t *part; /* those that have a reason to */
	size_t part_cnt, part_cap;
	uint64_t last_dir, last_part;
};

/* The directory of the root that dir is or is below; INO_ROOT for the root itself. */
static uint64_t part_of(struct order *o, uint64_t dir)
{
	uint64_t at = dir;

	if (dir == o->last_dir)
		return o->last_part;
	for (unsigned i = 0; at && at != INO_ROOT && i < DEPTH_MAX; i++) {
		struct inode *in;

		if (inode_get_locked(o->st, at, &in)) {
			at = ANYWHERE;
			break;
		}
		uint64_t up = S_ISDIR(in->mode) && in->nlink ? in->parent : ANYWHERE;

		inode_put_locked(o->st, in);
		if (up == INO_ROOT)
			break;
		at = up;
	}
	o->last_dir = dir;
	o->last_part = at;
	return at;
}

/* Of a regular file. */
static uint64_t part_of_file(struct order *o, uint64_t parent, uint64_t nlink)
{
	return nlink == 1 && parent ? part_of(o, parent) : ANYWHERE;
}

static int item_add(struct order *o, uint64_t ino, uint64_t part)
{
	if (o->cnt == o->cap) {
		size_t cap = o->cap ? 2 * o->cap : 64;
		struct item *p = reallocarray(o->item, cap, sizeof *p);

		if (!p)
			return -ENOMEM;
		o->item = p;
		o->cap = cap;
	}
	o->item[o->cnt++] = (struct item){ino, part};
	return 0;
}

static int part_add(struct order *o, uint64_t part)
{
	for (size_t i = 0; i < o->part_cnt; i++)
		if (o->part[i] == part)
			return 0;
	if (o->part_cnt == o->part_cap) {
		size_t cap = o->part_cap ? 2 * o->part_cap : 8;
		uint64_t *p = reallocarray(o->part, cap, sizeof *p);

		if (!p)
			return -ENOMEM;
		o->part = p;
		o->part_cap = cap;
	}
	o->part[o->part_cnt++] = part;
	return 0;
}

/* Files: rows, and what memory knows better. */
static int list_files(struct order *o)
{
	struct store *st = o->st;
	int more = 0, r = 0;

	for (struct inode *in = st->dirty_head; in && !r; in = in->dirty_next)
		if (in->chg > o->c->published && in->nlink && S_ISREG(in->mode) &&
		    !(in->flags & INODE_UNORDERED))
			r = item_add(o, in->ino, part_of_file(o, in->parent, in->nlink));
	sqlite3_stmt *q = store_stmt(st, "SELECT ino,parent,nlink FROM inode INDEXED BY "
					 "inode_chg WHERE chg>?1 AND nlink>0 AND "
					 "(mode&61440)=32768 AND flags&128=0");
	if (!q)
		return -EIO;
	sqlite3_bind_int64(q, 1, (int64_t)o->c->published);
	while (!r && (more = store_step(st, q)) == 1) {
		uint64_t ino = (uint64_t)sqlite3_column_int64(q, 0);
		struct inode *in = inode_peek_locked(st, ino);

		if (in && in->dirty)
			continue;
		r = item_add(
			o, ino,
			part_of_file(o, in ? in->parent : (uint64_t)sqlite3_column_int64(q, 1),
				     (uint64_t)sqlite3_column_int64(q, 2)));
	}
	sqlite3_reset(q);
	return r ? r : more < 0 ? more : 0;
}

/* Names that are gone, wherever their files are now. */
static int list_tombs(struct order *o)
{
	struct store *st = o->st;
	int more = 0, r = 0;
	sqlite3_stmt *q = store_stmt(st, "SELECT ino,parent FROM tomb WHERE kind=1 AND "
					 "epoch>?1 AND ino NOT NULL AND mode=32768");

	if (!q)
		return -EIO;
	sqlite3_bind_int64(q, 1, (int64_t)o->c->published);
	while (!r && (more = store_step(st, q)) == 1)
		r = item_add(o, (uint64_t)sqlite3_column_int64(q, 0),
			     part_of(o, (uint64_t)sqlite3_column_int64(q, 1)));
	sqlite3_reset(q);
	return r ? r : more < 0 ? more : 0;
}

/* Where something is held that somebody has fsynced. */
static int list_parts(struct order *o)
{
	struct store *st = o->st;
	int more = 0, r = 0;
	sqlite3_stmt *q = store_stmt(st, "SELECT h.ino,i.flags,i.parent,i.nlink FROM hold h "
					 "CROSS JOIN inode i ON i.ino=h.ino "
					 "WHERE (i.mode&61440)=32768 AND i.nlink>0");

	if (!q)
		return -EIO;
	while (!r && (more = store_step(st, q)) == 1) {
		struct inode *in = inode_peek_locked(st, (uint64_t)sqlite3_column_int64(q, 0));
		uint32_t flags = in ? in->flags : (uint32_t)sqlite3_column_int64(q, 1);

		if (flags & INODE_FSYNCED)
			r = part_add(o, part_of_file(o,
						     in ? in->parent
							: (uint64_t)sqlite3_column_int64(q, 2),
						     (uint64_t)sqlite3_column_int64(q, 3)));
	}
	sqlite3_reset(q);
	return r ? r : more < 0 ? more : 0;
}

static bool waits(const struct order *o, uint64_t part)
{
	for (size_t i = 0; i < o->part_cnt; i++)
		if (part == ANYWHERE || o->part[i] == ANYWHERE || o->part[i] == part)
			return true;
	return false;
}

int order_new_locked(struct cut *c, struct order **out)
{
	struct order *o = calloc(1, sizeof *o);

	*out = o;
	if (!o)
		return -ENOMEM;
	o->c = c;
	o->st = c->st;
	o->last_part = ANYWHERE; /* of last_dir 0, which is none */
	return 0;
}

void order_free(struct order *o)
{
	if (!o)
		return;
	free(o->item);
	free(o->part);
	free(o);
}

int order_pick_locked(struct order *o, bool *more)
{
	int r = list_parts(o);

	if (r || !o->part_cnt)
		return r;
	if (!o->cap) {
		r = list_files(o);
		if (!r)
			r = list_tombs(o);
	}
	for (size_t i = 0; !r && i < o->cnt; i++) {
		if (!waits(o, o->item[i].part))
			continue;
		r = hold_add(o->c, o->item[i].ino, more);
		o->item[i--] = o->item[--o->cnt];
	}
	return r;
}
