/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "cache/datafile.h"

#include <assert.h>
#include <stdlib.h>

/* How much in->small is allocated for: a function of the size, so that it needs no field. */
static size_t small_cap(uint64_t size)
{
	size_t cap = 128;

	while (cap < size)
		cap *= 2;
	return cap;
}

static sqlite3_stmt *by_ino(sqlite3_stmt *s, uint64_t ino)
{
	if (s)
		sqlite3_bind_int64(s, 1, (sqlite3_int64)ino);
	return s;
}

void small_free_locked(struct store *st, struct inode *in)
{
	if (!in->small)
		return;
	st->small_bytes -= small_cap(in->size);
	free(in->small);
	in->small = NULL;
}

int small_row_locked(struct store *st, uint64_t ino, uint8_t *to, uint64_t size)
{
	sqlite3_stmt *s = by_ino(store_stmt(st, "SELECT bytes FROM small WHERE ino = ?"), ino);
	if (!s || store_undone_locked(st, ino))
		return -EIO;
	int got = store_step(st, s);
	if (got == 1) {
		const void *p = sqlite3_column_blob(s, 0);
		if ((uint64_t)sqlite3_column_bytes(s, 0) == size) {
			if (size)
				memcpy(to, p, size);
		} else {
			got = store_fail_locked(st, -EIO,
						"a row of `small` has a wrong length");
		}
	}
	sqlite3_reset(s);
	return got == 1 ? 0 : got ? got : -ENOENT;
}

int small_store_locked(struct store *st, uint64_t ino, const uint8_t *p, uint64_t size)
{
	sqlite3_stmt *s = by_ino(store_stmt(st, "INSERT OR REPLACE INTO small(ino, bytes) "
						"VALUES(?, ?)"),
				 ino);
	if (!s)
		return -EIO;
	store_touch_locked(st, ino);
	sqlite3_bind_blob64(s, 2, p, size, SQLITE_STATIC);
	st->row_bytes += size;
	return store_run(st, s);
}

int small_delete_locked(struct store *st, uint64_t ino)
{
	sqlite3_stmt *s = by_ino(store_stmt(st, "DELETE FROM small WHERE ino = ?"), ino);

	store_touch_locked(st, ino);
	return store_run(st, s);
}

int small_load_locked(struct store *st, struct inode *in)
{
	if (in->small)
		return 0;
	if (!(in->flags & INODE_SMALL_HAVE) && in->size)
		return -EAGAIN;
	assert(in->size <= SMALL_MAX);
	size_t cap = small_cap(in->size);
	uint8_t *p = malloc(cap);
	if (!p)
		return -ENOMEM;
	int err = in->size ? small_row_locked(st, in->ino, p, in->size) : 0;
	if (err) {
		free(p);
		return err == -ENOENT ? store_fail_locked(st, -EIO, "a row of `small` is gone")
				      : err;
	}
	in->small = p;
	st->small_bytes += cap;
	return 0;
}

int small_resize_locked(struct store *st, struct inode *in, uint64_t size)
{
	size_t old = small_cap(in->size), cap = small_cap(size);

	assert(in->small && size <= SMALL_MAX);
	if (old != cap) {
		uint8_t *p = realloc(in->small, cap);
		if (!p)
			return -ENOMEM;
		in->small = p;
		st->small_bytes += cap - old;
	}
	if (size > in->size)
		memset(in->small + in->size, 0, size - in->size);
	in->size = size;
	return 0;
}

int small_capture_locked(struct store *st, struct inode *in)
{
	sqlite3_stmt *s;

	if (!st->cut_epoch || in->dchg > st->cut_epoch || in->dchg <= st->published ||
	    in->ino <= st->cut_pos || st->opts.skip_capture)
		return 0;
	if (in->small || !in->size)
		s = store_stmt(st, "INSERT OR IGNORE INTO capture(ino, bytes) VALUES(?, ?)");
	else
		s = store_stmt(st, "INSERT OR IGNORE INTO capture(ino, bytes) "
				   "SELECT ino, bytes FROM small WHERE ino = ?");
	if (!by_ino(s, in->ino))
		return -EIO;
	if (!in->size)
		sqlite3_bind_zeroblob(s, 2, 0);
	else if (in->small)
		sqlite3_bind_blob64(s, 2, in->small, in->size, SQLITE_STATIC);
	st->row_bytes += in->size;
	return store_run(st, s);
}

/* One blob, appended; 1 there was one. */
static int append_blob(struct store *st, sqlite3_stmt *s, struct buf *out)
{
	if (!s)
		return -EIO;
	int got = store_step(st, s);
	if (got == 1)
		buf_put(out, sqlite3_column_blob(s, 0), (size_t)sqlite3_column_bytes(s, 0));
	sqlite3_reset(s);
	return got == 1 && out->err ? out->err : got;
}

int data_cut_small_locked(struct store *st, uint64_t ino, struct buf *out)
{
	int got = append_blob(
		st, by_ino(store_stmt(st, "SELECT bytes FROM capture WHERE ino = ?"), ino),
		out);
	if (got)
		return got < 0 ? got : 0;
	const struct inode *in = inode_peek_locked(st, ino);
	if (in && in->flags & INODE_LARGE)
		return -ENOENT;
	if (in && in->small) {
		buf_put(out, in->small, in->size);
		return out->err;
	}
	got = append_blob(
		st, by_ino(store_stmt(st, "SELECT bytes FROM small WHERE ino = ?"), ino), out);
	if (got)
		return got < 0 ? got : 0;
	/* No row: it is empty, or it is not there. */
	if (in)
		return in->size || in->gone ? -ENOENT : 0;
	sqlite3_stmt *s = by_ino(store_stmt(st, "SELECT size FROM inode WHERE ino = ?"), ino);
	if (!s)
		return -EIO;
	got = store_step(st, s);
	if (got == 1 && sqlite3_column_int64(s, 0))
		got = 0;
	sqlite3_reset(s);
	return got == 1 ? 0 : got ? got : -ENOENT;
}

/* --- from the nodes --- */

struct gathered {
	struct extent *e;
	size_t cnt, cap;
};

static int gathered_add(void *arg, const struct extent *e)
{
	struct gathered *g = arg;

	if (g->cnt == g->cap) {
		size_t cap = g->cap * 2 + 4;
		struct extent *p = realloc(g->e, cap * sizeof *p);
		if (!p)
			return -ENOMEM;
		g->e = p;
		g->cap = cap;
	}
	g->e[g->cnt++] = *e;
	return 0;
}

int small_fetch(struct store *st, struct inode *in, int64_t deadline_ms,
		const struct small_want *want)
{
	struct gathered g = {0};
	int err;

	pthread_mutex_lock(&st->meta);
	uint64_t size = in->size, dchg = in->dchg;
	if (in->flags & (INODE_SMALL_HAVE | INODE_LARGE) || !size) {
		pthread_mutex_unlock(&st->meta);
		return 0;
	}
	uint8_t *p = calloc(1, HF_MAX(size, (uint64_t)1));
	err = p && size <= SMALL_MAX
		      ? extent_each_locked(st, in->ino, 0, size, gathered_add, &g)
		      : -ENOMEM;
	pthread_mutex_unlock(&st->meta);
	/* Moved meanwhile: the caller finds nothing here and comes again. */
	for (size_t i = 0; i < g.cnt && !err; i++)
		err = fetch_extent(st, in->ino, &g.e[i], p + g.e[i].off, deadline_ms);
	if (err == -EAGAIN) {
		free(g.e);
		free(p);
		return 0;
	}
	int space = err ? 0 : store_space_for(st, size);
	pthread_mutex_lock(&st->meta);
	if (!err && !(in->flags & (INODE_SMALL_HAVE | INODE_LARGE)) && in->size == size &&
	    in->dchg == dchg && !in->gone) {
		bool keep = !space && !st->failed;
		if (keep)
			err = small_store_locked(st, in->ino, p, size);
		else if (!want)
			err = space ? space : -EROFS;
		if (keep && !err) {
			struct account before = account_of(in);
			in->flags |= INODE_SMALL_HAVE;
			inode_mark_locked(st, in, 0);
			account_settle_locked(st, in, before);
		}
		/* The reader has its bytes, whatever became of keeping them. */
		if (want && want->off <= size && want->len <= size - want->off) {
			memcpy(want->buf, p + want->off, want->len);
			err = 1;
		}
	}
	pthread_mutex_unlock(&st->meta);
	free(g.e);
	free(p);
	return err;
}
