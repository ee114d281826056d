/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * db: the SQLite connection of a store: opening and checking it, the one open transaction,
 * checkpoints.  inode: the cache of inodes over it.  Only for store.c, commit.c, inode.c,
 * meta.c, dirent.c and xattr.c; everybody else uses store.h and meta.h.  st->meta is held in
 * every call but commit_main.
 */
#ifndef HOLDFAST_CACHE_DB_H
#define HOLDFAST_CACHE_DB_H

#include "cache/store.h"

#define DB_APPLICATION_ID 0x486f6c64
#define DB_VERSION	  3

struct db_stmt {
	const char *sql; /* the pointer is the key */
	sqlite3_stmt *s;
};

struct db {
	struct db_stmt *slot; /* open addressing, a power of two, at most half full */
	size_t cap, cnt;
	int wal_pages; /* after the last COMMIT */
	int wal_limit; /* checkpoint beyond it */
	uint64_t writes; /* statements that write, since the last COMMIT */
};

/*
 * db_open: opens or creates meta.db of st->dir and begins the transaction.  *fresh: it was
 * created.  -EBADMSG, -ENOTSUP, -EIO, -ENOSPC, all said in the log.
 */
int db_open(struct store *st, bool *fresh);
int db_quick_check(struct store *st); /* -EBADMSG when the database is damaged */
/* COMMIT and BEGIN; between them, where checkpoint, the WAL goes into the database. */
enum db_checkpoint { DB_CKPT_NONE, DB_CKPT_PASSIVE, DB_CKPT_TRUNCATE };
int db_commit_locked(struct store *st, enum db_checkpoint ckpt);
/*
 * Zeros behind the end of the WAL file, a piece at a time: false when it is as long as it gets
 * before a checkpoint, or cannot be made longer.
 */
bool db_wal_extend_locked(struct store *st);
void store_txn_dirty_locked(struct store *st); /* there is something to commit */
void db_close(struct store *st); /* rolls back what is not committed */

#define INODE_LRU_MAX	16384
#define INODE_LRU_BYTES ((size_t)64 << 20) /* of ranges, of inodes that nobody uses */

struct inode_cache {
	struct inode **slot;
	size_t cap, cnt;
	struct inode *lru_head, *lru_tail; /* not pinned; head: newest */
	size_t lru_cnt, lru_bytes;
};
int inode_cache_new(struct store *st);
void inode_cache_free(struct store *st); /* flushed before; pinned ones go too */
/* A new inode without a row, pinned once; NULL out of memory. */
struct inode *inode_new_locked(struct store *st, uint64_t ino);
/* Writes the row; contents_too false: withheld, see store.h. */
int inode_write_locked(struct store *st, struct inode *in, bool contents_too);
/* On to the list, off it; off may free the inode. */
void inode_dirty_locked(struct store *st, struct inode *in);
void inode_clean_locked(struct store *st, struct inode *in);
/* Rows and memory of an inode without names go, or will with the last pin. */
void inode_reap_locked(struct store *st, struct inode *in);

/* undone.c: after a COMMIT; at the end. */
void touched_clear(struct store *st);
void touched_release(struct store *st);

/* commit.c: the commit thread; arg is the store. */
void *commit_main(void *arg);

/*
 * dirent.c: dirent_add_locked in two steps: a free slot for an absent name, -ENOSPC when there
 * is none (which is never seen); then the rows.
 */
int dirent_slot_locked(struct store *st, uint64_t parent, const char *name, size_t len,
		       uint64_t *slot);
int dirent_put_locked(struct store *st, uint64_t parent, uint64_t slot, const char *name,
		      size_t len, uint64_t ino, uint64_t lid, uint32_t mode, uint64_t chg,
		      bool link);

/* xattr.c */
struct meta_attr;
/* The list a->acl follows the mode. */
int xattr_change_locked(struct store *st, struct inode *in, const struct meta_attr *a);
int xattr_put_locked(struct store *st, struct inode *in, const char *name, const void *v,
		     size_t len);

#endif
