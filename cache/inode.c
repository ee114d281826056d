/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The cache of inodes.  A pinned inode stays; a dirty one holds a pin of its own.  Those
 * without pins are on the LRU list, but for nameless ones, which wait to be reaped.
 */
#include "cache/db.h"

#include <assert.h>
#include <stdlib.h>
#include "cache/data.h"
#include "cache/meta.h"
#include "net/record.h"


/* Pins that are not of those who use it. */
static unsigned own_pins(const struct inode *in)
{
	return (unsigned)in->dirty + in->redo;
}

/* --- hash and LRU --- */

int inode_cache_new(struct store *st)
{
	struct inode_cache *c = calloc(1, sizeof *c);

	if (!c)
		return -ENOMEM;
	c->cap = 1024;
	c->slot = calloc(c->cap, sizeof *c->slot);
	if (!c->slot) {
		free(c);
		return -ENOMEM;
	}
	st->inodes = c;
	return 0;
}

static struct inode **hash_slot(struct inode **slot, size_t cap, uint64_t ino)
{
	return &slot[(ino * 0x9e3779b97f4a7c15u) >> 32 & (cap - 1)];
}

static void hash_grow(struct inode_cache *c)
{
	size_t cap = c->cap * 2;
	struct inode **slot = calloc(cap, sizeof *slot);

	/* Longer chains do when there is no memory for a larger table. */
	if (!slot)
		return;
	for (size_t i = 0; i < c->cap; i++) {
		while (c->slot[i]) {
			struct inode *in = c->slot[i];
			struct inode **to = hash_slot(slot, cap, in->ino);
			c->slot[i] = in->hash_next;
			in->hash_next = *to;
			*to = in;
		}
	}
	free(c->slot);
	c->slot = slot;
	c->cap = cap;
}

static void hash_add(struct inode_cache *c, struct inode *in)
{
	if (c->cnt >= c->cap)
		hash_grow(c);
	struct inode **to = hash_slot(c->slot, c->cap, in->ino);
	in->hash_next = *to;
	*to = in;
	c->cnt++;
}

static void hash_del(struct inode_cache *c, struct inode *in)
{
	struct inode **at = hash_slot(c->slot, c->cap, in->ino);

	while (*at != in)
		at = &(*at)->hash_next;
	*at = in->hash_next;
	c->cnt--;
}

static void lru_del(struct inode_cache *c, struct inode *in)
{
	if (in->lru_prev)
		in->lru_prev->lru_next = in->lru_next;
	else
		c->lru_head = in->lru_next;
	if (in->lru_next)
		in->lru_next->lru_prev = in->lru_prev;
	else
		c->lru_tail = in->lru_prev;
	in->lru_prev = in->lru_next = NULL;
	c->lru_cnt--;
	c->lru_bytes -= in->lru_bytes;
}

static void lru_add(struct inode_cache *c, struct inode *in)
{
	in->lru_prev = NULL;
	in->lru_next = c->lru_head;
	if (c->lru_head)
		c->lru_head->lru_prev = in;
	else
		c->lru_tail = in;
	c->lru_head = in;
	c->lru_cnt++;
	in->lru_bytes = in->spans ? ranges_memory(in->spans) : 0;
	c->lru_bytes += in->lru_bytes;
}

static bool on_lru(const struct inode_cache *c, const struct inode *in)
{
	return in->lru_prev || c->lru_head == in;
}

struct inode *inode_peek_locked(struct store *st, uint64_t ino)
{
	struct inode_cache *c = st->inodes;
	struct inode *in = *hash_slot(c->slot, c->cap, ino);

	while (in && in->ino != ino)
		in = in->hash_next;
	return in;
}

/* Out of the hash and the memory.  It is on no list any more. */
static void inode_free(struct store *st, struct inode *in)
{
	hash_del(st->inodes, in);
	data_evict_inode_locked(st, in);
	free(in);
}

void inode_cache_free(struct store *st)
{
	struct inode_cache *c = st->inodes;

	if (!c)
		return;
	for (size_t i = 0; i < c->cap; i++) {
		while (c->slot[i]) {
			struct inode *in = c->slot[i];
			if (in->pin > own_pins(in) && !st->failed)
				log_debug("inode %llu is still pinned at close",
					  (unsigned long long)in->ino);
			if (!in->nlink) {
				in->pin = own_pins(in);
				inode_reap_locked(st, in);
				continue;
			}
			if (in->dirty)
				st->dirty_cnt--;
			inode_free(st, in);
		}
	}
	st->dirty_head = st->dirty_tail = NULL;
	free(c->slot);
	free(c);
	st->inodes = NULL;
}

struct inode *inode_new_locked(struct store *st, uint64_t ino)
{
	struct inode *in = calloc(1, sizeof *in);

	if (!in)
		return NULL;
	in->ino = ino;
	in->pin = 1;
	hash_add(st->inodes, in);
	return in;
}

/* --- get and put --- */

static int inode_load(struct store *st, uint64_t ino, struct inode **out)
{
	if (store_undone_locked(st, ino))
		return -EIO;
	sqlite3_stmt *s =
		store_stmt(st, "SELECT mode,uid,gid,nlink,rdev,size,atime,mtime,ctime,"
			       "btime,parent,flags,chg,dchg,born,mask FROM inode "
			       "WHERE ino=?1");
	if (!s)
		return -EIO;
	sqlite3_bind_int64(s, 1, (int64_t)ino);
	int err = store_step(st, s);
	if (err <= 0)
		return err ? err : -ENOENT;
	struct inode *in = inode_new_locked(st, ino);
	if (!in) {
		sqlite3_reset(s);
		return -ENOMEM;
	}
	in->mode = (uint32_t)sqlite3_column_int64(s, 0);
	in->uid = (uint32_t)sqlite3_column_int64(s, 1);
	in->gid = (uint32_t)sqlite3_column_int64(s, 2);
	in->nlink = (uint32_t)sqlite3_column_int64(s, 3);
	in->rdev = (uint64_t)sqlite3_column_int64(s, 4);
	in->size = (uint64_t)sqlite3_column_int64(s, 5);
	in->atime_ns = sqlite3_column_int64(s, 6);
	in->mtime_ns = sqlite3_column_int64(s, 7);
	in->ctime_ns = sqlite3_column_int64(s, 8);
	in->btime_ns = sqlite3_column_int64(s, 9);
	in->parent = (uint64_t)sqlite3_column_int64(s, 10);
	in->flags = (uint32_t)sqlite3_column_int64(s, 11);
	in->chg = (uint64_t)sqlite3_column_int64(s, 12);
	in->dchg = (uint64_t)sqlite3_column_int64(s, 13);
	in->born = (uint64_t)sqlite3_column_int64(s, 14);
	in->mask = (uint32_t)sqlite3_column_int64(s, 15);
	in->stored = true;
	sqlite3_reset(s);
	*out = in;
	return 0;
}

int inode_get_locked(struct store *st, uint64_t ino, struct inode **out)
{
	struct inode *in = inode_peek_locked(st, ino);

	if (!in)
		return inode_load(st, ino, out);
	if (in->pin++ == 0 && on_lru(st->inodes, in))
		lru_del(st->inodes, in);
	*out = in;
	return 0;
}

int inode_get(struct store *st, uint64_t ino, struct inode **out)
{
	pthread_mutex_lock(&st->meta);
	int err = inode_get_locked(st, ino, out);
	pthread_mutex_unlock(&st->meta);
	return err;
}

void inode_put_locked(struct store *st, struct inode *in)
{
	struct inode_cache *c = st->inodes;

	assert(in->pin);
	in->pin--;
	if (in->reap && !in->nlink && in->pin == own_pins(in)) {
		inode_reap_locked(st, in);
		return;
	}
	if (in->pin || !in->nlink)
		return;
	lru_add(c, in);
	while (c->lru_cnt > INODE_LRU_MAX ||
	       (c->lru_bytes > INODE_LRU_BYTES && c->lru_tail != in)) {
		struct inode *old = c->lru_tail;
		lru_del(c, old);
		inode_free(st, old);
	}
}

void inode_put(struct store *st, struct inode *in)
{
	pthread_mutex_lock(&st->meta);
	inode_put_locked(st, in);
	pthread_mutex_unlock(&st->meta);
}

/* --- changes --- */

void inode_dirty_locked(struct store *st, struct inode *in)
{
	if (in->dirty)
		return;
	/* The caller has it pinned, so it is not on the LRU list. */
	assert(in->pin);
	in->dirty = true;
	in->pin++;
	in->dirty_next = NULL;
	in->dirty_prev = st->dirty_tail;
	if (st->dirty_tail)
		st->dirty_tail->dirty_next = in;
	else
		st->dirty_head = in;
	st->dirty_tail = in;
	st->dirty_cnt++;
	store_txn_dirty_locked(st);
}

static void dirty_del(struct store *st, struct inode *in)
{
	if (in->dirty_prev)
		in->dirty_prev->dirty_next = in->dirty_next;
	else
		st->dirty_head = in->dirty_next;
	if (in->dirty_next)
		in->dirty_next->dirty_prev = in->dirty_prev;
	else
		st->dirty_tail = in->dirty_prev;
	in->dirty_prev = in->dirty_next = NULL;
	in->dirty = false;
	in->withheld_ms = 0;
	st->dirty_cnt--;
}

void inode_clean_locked(struct store *st, struct inode *in)
{
	if (!in->dirty)
		return;
	dirty_del(st, in);
	inode_put_locked(st, in);
}

/* Remembers when the current epoch's first change was. */
static void since_mark(struct store *st)
{
	unsigned cap = sizeof st->since / sizeof st->since[0];

	if (st->since_cnt && st->since[st->since_cnt - 1].epoch == st->epoch)
		return;
	unsigned keep = 0;
	for (unsigned i = 0; i < st->since_cnt; i++)
		if (st->since[i].epoch > st->published)
			st->since[keep++] = st->since[i];
	st->since_cnt = keep;
	/* Nothing was published for long: the newest entry's time then stands for this too. */
	if (keep == cap) {
		st->since[cap - 1].epoch = st->epoch;
		return;
	}
	st->since[st->since_cnt++] = (struct store_since){st->epoch, realtime_ns()};
}

void inode_mark_locked(struct store *st, struct inode *in, unsigned mask)
{
	if (mask) {
		if (in->chg <= st->published)
			in->mask = 0;
		in->chg_dirty |= in->chg != st->epoch;
		in->chg = st->epoch;
		if (mask & REC_CH_CONTENT)
			in->dchg = st->epoch;
		if (!(mask & REC_CH_CONTENT) || mask & ~(REC_CH_CONTENT | REC_CH_TIMES))
			in->attr_dirty = true;
		in->mask |= mask;
		since_mark(st);
	}
	inode_dirty_locked(st, in);
	if (mask && st->dirtied)
		st->dirtied(st->dirtied_arg);
}

/* --- rows --- */

/* What does not speak of contents. */
#define ROW_FLAGS (INODE_XATTRS | INODE_FSYNCED | INODE_UNORDERED)

static int write_row(struct store *st, sqlite3_stmt *s, const struct inode *in, uint64_t size,
		     uint32_t flags)
{
	sqlite3_bind_int64(s, 1, (int64_t)in->ino);
	sqlite3_bind_int64(s, 2, in->mode);
	sqlite3_bind_int64(s, 3, in->uid);
	sqlite3_bind_int64(s, 4, in->gid);
	sqlite3_bind_int64(s, 5, in->nlink);
	sqlite3_bind_int64(s, 6, (int64_t)in->rdev);
	sqlite3_bind_int64(s, 7, (int64_t)size);
	sqlite3_bind_int64(s, 8, in->atime_ns);
	sqlite3_bind_int64(s, 9, in->mtime_ns);
	sqlite3_bind_int64(s, 10, in->ctime_ns);
	sqlite3_bind_int64(s, 11, in->btime_ns);
	sqlite3_bind_int64(s, 12, (int64_t)in->parent);
	sqlite3_bind_int64(s, 13, flags);
	sqlite3_bind_int64(s, 14, (int64_t)in->chg);
	sqlite3_bind_int64(s, 15, (int64_t)in->dchg);
	sqlite3_bind_int64(s, 16, (int64_t)in->born);
	sqlite3_bind_int64(s, 17, in->mask);
	return store_run(st, s);
}

static int write_insert(struct store *st, const struct inode *in, bool contents_too)
{
	sqlite3_stmt *s =
		store_stmt(st, "INSERT INTO inode(ino,mode,uid,gid,nlink,rdev,size,atime,"
			       "mtime,ctime,btime,parent,flags,chg,dchg,born,mask) VALUES"
			       "(?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,?16,"
			       "?17)");
	uint32_t flags = in->flags;

	if (!s)
		return -EIO;
	if (!contents_too)
		flags = (flags & ROW_FLAGS) | INODE_SMALL_HAVE | INODE_SMALL_DIRTY;
	return write_row(st, s, in, contents_too ? in->size : 0, flags);
}

/* A chg that is set, if only to what it is, makes SQLite write its index too. */
static int write_update(struct store *st, const struct inode *in)
{
#define ALL_BUT_CHG                                                                            \
	"mode=?2,uid=?3,gid=?4,nlink=?5,rdev=?6,size=?7,atime=?8,mtime=?9,ctime=?10,btime=?11,"    \
	"parent=?12,flags=?13,dchg=?15,born=?16,mask=?17 WHERE ino=?1"
	sqlite3_stmt *s = store_stmt(st, in->chg_dirty ? "UPDATE inode SET chg=?14," ALL_BUT_CHG
						       : "UPDATE inode SET " ALL_BUT_CHG);
	return s ? write_row(st, s, in, in->size, in->flags) : -EIO;
}

/* What a withheld inode's row gets: all but what speaks of its contents. */
static int write_attrs(struct store *st, const struct inode *in)
{
	sqlite3_stmt *s =
		store_stmt(st, "UPDATE inode SET mode=?2,uid=?3,gid=?4,nlink=?5,atime=?6,"
			       "ctime=?7,btime=?8,flags=(flags&~?9)|?10,chg=?11,"
			       "mask=mask|?12 WHERE ino=?1");
	if (!s)
		return -EIO;
	sqlite3_bind_int64(s, 1, (int64_t)in->ino);
	sqlite3_bind_int64(s, 2, in->mode);
	sqlite3_bind_int64(s, 3, in->uid);
	sqlite3_bind_int64(s, 4, in->gid);
	sqlite3_bind_int64(s, 5, in->nlink);
	sqlite3_bind_int64(s, 6, in->atime_ns);
	sqlite3_bind_int64(s, 7, in->ctime_ns);
	sqlite3_bind_int64(s, 8, in->btime_ns);
	sqlite3_bind_int64(s, 9, ROW_FLAGS);
	sqlite3_bind_int64(s, 10, in->flags & ROW_FLAGS);
	sqlite3_bind_int64(s, 11, (int64_t)in->chg);
	sqlite3_bind_int64(s, 12, in->mask & ~REC_CH_CONTENT);
	return store_run(st, s);
}

int inode_write_locked(struct store *st, struct inode *in, bool contents_too)
{
	int err;

	store_touch_locked(st, in->ino);
	if (!in->stored)
		err = write_insert(st, in, contents_too);
	else if (contents_too)
		err = write_update(st, in);
	else if (in->attr_dirty)
		err = write_attrs(st, in);
	else
		return 0;
	if (err)
		return err;
	in->stored = true;
	in->attr_dirty = in->chg_dirty = false;
	return 0;
}

static int delete_by_ino(struct store *st, sqlite3_stmt *s, uint64_t ino)
{
	if (!s)
		return -EIO;
	sqlite3_bind_int64(s, 1, (int64_t)ino);
	return store_run(st, s);
}

void inode_reap_locked(struct store *st, struct inode *in)
{
	int err = 0;

	in->reap = true;
	if (in->gone || in->pin > own_pins(in))
		return;
	/* A failed store keeps its rows; whoever opens it next reaps them. */
	if (!st->failed) {
		in->gone = true;
		store_touch_locked(st, in->ino);
		if (S_ISREG(in->mode))
			err = data_delete_locked(st, in);
		if (!err && in->flags & INODE_XATTRS)
			err = delete_by_ino(
				st, store_stmt(st, "DELETE FROM xattr WHERE ino=?1"), in->ino);
		if (!err && in->stored)
			err = delete_by_ino(
				st, store_stmt(st, "DELETE FROM inode WHERE ino=?1"), in->ino);
		if (!err && in->born < st->epoch) {
			sqlite3_stmt *s = store_stmt(st, "INSERT OR REPLACE INTO tomb"
							 "(id,kind,epoch) VALUES(?1,2,?2)");
			if (s) {
				sqlite3_bind_int64(s, 1, (int64_t)in->ino);
				sqlite3_bind_int64(s, 2, (int64_t)st->epoch);
				err = store_run(st, s);
			}
		}
		if (err && !st->failed)
			store_fail_locked(st, err, "freeing an inode");
		st->files--;
	}
	if (in->dirty) {
		in->pin--;
		dirty_del(st, in);
	}
	inode_free(st, in);
}
