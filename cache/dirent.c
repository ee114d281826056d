/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Rows of names: their hashes, and what the next commit must know of new and removed ones. */
#include <assert.h>
#include <sodium.h>
#include "cache/db.h"
#include "cache/meta.h"

/* Names of one hash sit in the slots from it on, so that no two of a directory share one. */
#define HASH_SLOTS 8

static uint64_t name_hash(const struct store *st, const char *name, size_t len)
{
	uint8_t out[crypto_shorthash_BYTES];

	static_assert(crypto_shorthash_KEYBYTES == sizeof st->name_key, "siphash key");
	crypto_shorthash(out, (const uint8_t *)name, len, st->name_key);
	uint64_t h = (get_le64(out) & st->hash_mask) >> 1;
	return HF_MIN(HF_MAX(h, (uint64_t)META_COOKIE_MIN), (uint64_t)INT64_MAX - HASH_SLOTS);
}

/* A name of a directory, as a number for store_touch_locked. */
static uint64_t name_key(uint64_t parent, uint64_t hash)
{
	return (parent * 0x9e3779b97f4a7c15u) ^ hash;
}

static void names_touch(struct store *st, uint64_t parent, const char *name, size_t len)
{
	store_touch_locked(st, parent);
	store_touch_locked(st, name_key(parent, name_hash(st, name, len)));
}

int dirent_find_locked(struct store *st, uint64_t parent, const char *name, size_t len,
		       struct dirent_row *d)
{
	sqlite3_stmt *s =
		store_stmt(st, "SELECT hash,ino,lid,mode,chg FROM dirent WHERE parent=?1 "
			       "AND hash BETWEEN ?2 AND ?3 AND name=?4");
	uint64_t hash = name_hash(st, name, len);

	if (!s || store_undone_locked(st, name_key(parent, hash)))
		return -EIO;
	sqlite3_bind_int64(s, 1, (int64_t)parent);
	sqlite3_bind_int64(s, 2, (int64_t)hash);
	sqlite3_bind_int64(s, 3, (int64_t)(hash + HASH_SLOTS - 1));
	sqlite3_bind_blob(s, 4, name, (int)len, SQLITE_STATIC);
	int err = store_step(st, s);
	if (err > 0) {
		d->hash = (uint64_t)sqlite3_column_int64(s, 0);
		d->ino = (uint64_t)sqlite3_column_int64(s, 1);
		d->lid = (uint64_t)sqlite3_column_int64(s, 2);
		d->mode = (uint32_t)sqlite3_column_int64(s, 3);
		d->chg = (uint64_t)sqlite3_column_int64(s, 4);
		d->unordered = false;
		sqlite3_reset(s);
	}
	return err;
}

int dirent_slot_locked(struct store *st, uint64_t parent, const char *name, size_t len,
		       uint64_t *slot)
{
	sqlite3_stmt *s = store_stmt(st, "SELECT hash FROM dirent WHERE parent=?1 AND "
					 "hash BETWEEN ?2 AND ?3 ORDER BY hash");
	uint64_t hash = name_hash(st, name, len), end = hash + HASH_SLOTS;
	int err;

	if (!s)
		return -EIO;
	sqlite3_bind_int64(s, 1, (int64_t)parent);
	sqlite3_bind_int64(s, 2, (int64_t)hash);
	sqlite3_bind_int64(s, 3, (int64_t)(end - 1));
	while ((err = store_step(st, s)) > 0 && (uint64_t)sqlite3_column_int64(s, 0) == hash)
		hash++;
	sqlite3_reset(s);
	if (err < 0)
		return err;
	*slot = hash;
	return hash < end ? 0 : log_fail(-ENOSPC, "too many names of one hash in a directory");
}

static int newlink_add(struct store *st, uint64_t parent, uint64_t hash, uint64_t lid,
		       uint64_t epoch)
{
	sqlite3_stmt *s = store_stmt(st, "INSERT INTO newlink(epoch,parent,hash,lid) "
					 "VALUES(?1,?2,?3,?4)");
	if (!s)
		return -EIO;
	sqlite3_bind_int64(s, 1, (int64_t)epoch);
	sqlite3_bind_int64(s, 2, (int64_t)parent);
	sqlite3_bind_int64(s, 3, (int64_t)hash);
	sqlite3_bind_int64(s, 4, (int64_t)lid);
	return store_run(st, s);
}

int dirent_put_locked(struct store *st, uint64_t parent, uint64_t slot, const char *name,
		      size_t len, uint64_t ino, uint64_t lid, uint32_t mode, uint64_t chg,
		      bool link)
{
	sqlite3_stmt *s =
		store_stmt(st, "INSERT INTO dirent(parent,hash,name,ino,lid,mode,chg) "
			       "VALUES(?1,?2,?3,?4,?5,?6,?7)");
	if (!s)
		return -EIO;
	names_touch(st, parent, name, len);
	sqlite3_bind_int64(s, 1, (int64_t)parent);
	sqlite3_bind_int64(s, 2, (int64_t)slot);
	sqlite3_bind_blob(s, 3, name, (int)len, SQLITE_STATIC);
	sqlite3_bind_int64(s, 4, (int64_t)ino);
	sqlite3_bind_int64(s, 5, (int64_t)lid);
	sqlite3_bind_int64(s, 6, mode & S_IFMT);
	sqlite3_bind_int64(s, 7, (int64_t)chg);
	int err = store_run(st, s);
	return err || !link ? err : newlink_add(st, parent, slot, lid, chg);
}

int dirent_add_locked(struct store *st, uint64_t parent, const char *name, size_t len,
		      uint64_t ino, uint64_t lid, uint32_t mode, uint64_t chg, bool link,
		      uint64_t *hash)
{
	uint64_t slot;
	int err = dirent_slot_locked(st, parent, name, len, &slot);

	if (!err)
		err = dirent_put_locked(st, parent, slot, name, len, ino, lid, mode, chg, link);
	if (!err && hash)
		*hash = slot;
	return err;
}

int dirent_del_locked(struct store *st, uint64_t parent, const char *name, size_t len,
		      const struct dirent_row *d, bool tomb)
{
	sqlite3_stmt *s = store_stmt(st, "DELETE FROM dirent WHERE parent=?1 AND hash=?2 AND "
					 "name=?3");
	if (!s)
		return -EIO;
	names_touch(st, parent, name, len);
	sqlite3_bind_int64(s, 1, (int64_t)parent);
	sqlite3_bind_int64(s, 2, (int64_t)d->hash);
	sqlite3_bind_blob(s, 3, name, (int)len, SQLITE_STATIC);
	int err = store_run(st, s);
	/* A name of this epoch was in no cut: nobody else ever heard of it. */
	if (err || !tomb || d->chg >= st->epoch)
		return err;
	s = store_stmt(st, "INSERT OR REPLACE INTO tomb(id,kind,epoch,parent,name,ino,mode) "
			   "VALUES(?1,1,?2,?3,?4,?5,?6)");
	if (!s)
		return -EIO;
	sqlite3_bind_int64(s, 1, (int64_t)d->lid);
	sqlite3_bind_int64(s, 2, (int64_t)st->epoch);
	sqlite3_bind_int64(s, 3, (int64_t)parent);
	sqlite3_bind_blob(s, 4, name, (int)len, SQLITE_STATIC);
	sqlite3_bind_int64(s, 5, (int64_t)d->ino);
	sqlite3_bind_int64(s, 6, (d->mode & S_IFMT) | d->unordered);
	return store_run(st, s);
}
