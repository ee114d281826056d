/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * store: the local side of a mounted volume: the database, the inode cache, the data files.
 *
 * Local truth (rules L1-L6):
 *  L1 a committed row never names bytes that are not on the disk
 *  L2 fsync()==0 => its row is committed
 *  L3 a segment id, and so a nonce, is used for one content only
 *  L4 dirty bytes are released only after the publication itself is committed locally
 *  L5 bytes called clean equal the published bytes, across any crash
 *  L6 ENOSPC is said before a write is accepted
 *
 * Threads and locks, in the order in which they may be taken:
 *  1. inode->io     iolock: contents of one inode against truncate, evict, capture.
 *                   Two inodes (copy_file_range): by ascending ino.
 *  2. st->meta      mutex: SQLite, every field of every inode that is not marked otherwise,
 *                   the inode cache, the ranges.  Held for microseconds; never while waiting
 *                   for the network or for inode->io.
 *  3. st->space     mutex: figures of free space.
 * Who holds inode->io may call store_commit: the commit never waits for an inode->io (it
 * only tries).  It calls data_fsync_file with that lock held or not, never with st->meta;
 * data_fsync_file therefore takes neither an inode->io nor, while it syncs, st->meta.
 * All SQL runs on one connection in one open transaction, committed by the commit thread
 * every second (or when asked: fsync) under st->meta.
 *
 * Attributes live in the struct inode while it is dirty and are written to the row before a
 * COMMIT (store_flush).  The row of a large inode whose new bytes are not synced yet is
 * left as it was (withheld) by the timed commit, unless it was renamed or linked since
 * (sync_soon), has not been written for a second or is withheld for WITHHELD_MAX_MS: then
 * it is synced first (L1).  Attributes and link count of a withheld inode are written all
 * the same, only its contents stay as they were; one that has no row yet gets that of an
 * empty file.
 *
 * When the database fails (I/O error, full, corrupt) the store is `failed`: every change
 * and every fsync returns -EIO (-EROFS for changes) until it is opened again; reads go on, but
 * for what only rows say that the failure took back (undone.c).
 */
#ifndef HOLDFAST_CACHE_STORE_H
#define HOLDFAST_CACHE_STORE_H

#include <pthread.h>
#include <sqlite3.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include "cache/iolock.h"
#include "cache/range.h"
#include "net/volume.h"

#define INO_ROOT      1u
#define SMALL_MAX     (64u << 10) /* larger contents get a cache file of their own */
#define DEVICE_SHIFT  40
#define INTENT_PART   ((uint64_t)1 << 20)
#define WITHHELD_MAX_MS 5000
#define HUGE_MAX ((uint64_t)64 << 20) /* a file with more dirty bytes is sent ahead (rate.c) */

/* inode.flags, stored */
#define INODE_LARGE	 1u  /* contents in a cache file and spans; else in a row of `small` */
#define INODE_SMALL_HAVE 2u  /* !LARGE: the bytes are here (row or in->small); size 0: set */
#define INODE_SMALL_DIRTY 4u /* !LARGE: they are not published */
#define INODE_XATTR	 8u  /* has xattrs other than these: */
#define INODE_ACL	 16u /* has system.posix_acl_access or _default */
#define INODE_CAP	 32u /* has security.capability */
#define INODE_XATTRS	 (INODE_XATTR | INODE_ACL | INODE_CAP)
/* order.c; neither of the two: it was made elsewhere, or before anybody took note. */
#define INODE_FSYNCED	 64u  /* a program has called fsync for it on this machine */
#define INODE_UNORDERED	 128u /* a regular file that was made here, and none has */

struct datafile;
struct cut;

struct inode {
	uint64_t ino;
	struct inode *hash_next, *lru_prev, *lru_next, *dirty_prev, *dirty_next;
	unsigned pin;		/* inode_get - inode_put, and one while dirty, one while redo */
	uint32_t mode, uid, gid, nlink, flags, mask;
	uint64_t rdev, size;
	uint64_t parent; /* of a directory; of a regular file: where its name was last, or 0 */
	int64_t atime_ns, mtime_ns, ctime_ns, btime_ns;
	uint64_t chg, dchg, born;
	bool dirty;		/* in-memory state is newer than the row */
	bool sync_soon;		/* renamed or linked: sync before the next commit */
	/*
	 * The cache file has bytes that no fdatasync covered and no row of `redo` has.  Set after
	 * the pwrite, with the size and the spans.  redo_sync clears it when they are in rows;
	 * store_sync_inode does before data_fsync_file, so that a write meanwhile sets it again;
	 * `syncing` counts those calls that are under way, `sync_gen` those that began with new
	 * bytes.
	 */
	bool unsynced;
	unsigned syncing, sync_gen;
	bool redo;		/* has rows of `redo`, and a pin for them (redo.c) */
	bool gone;		/* reaped: the row is deleted */
	bool stored;		/* has a row; new inodes get theirs with the next flush */
	bool reap;		/* goes with the last pin if it has no name then */
	bool attr_dirty;	/* changes that a withheld inode's row gets too */
	bool chg_dirty;		/* the row may have another chg */
	int64_t withheld_ms;	/* withheld since, now_ms(); 0 not */
	int64_t written_ms;	/* last write, now_ms() */
	uint32_t io_err;	/* sticky: a write-back of this inode failed (errno) */
	/* contents */
	struct iolock io;
	uint8_t *small;		/* bytes not yet in the row; size bytes; NULL when in the row */
	struct ranges *spans;	/* LARGE; NULL: not loaded */
	size_t lru_bytes;	/* what it counts for on the list of unused inodes */
	struct datafile *file;	/* LARGE; data.c's */
	uint64_t read_next;	/* sequential reader: where the next read would begin */
	uint32_t read_run;	/* how many reads came in sequence; 2: two or more */
	uint32_t row_synced;	/* bytes of its row of `small` that fsync wrote since it was empty */
};

struct store_opts {
	const char *dir;	 /* the volume's state directory */
	uint64_t cache_size;	 /* bytes of file contents to keep; 0: default */
	unsigned commit_ms;	 /* 0: 1000 */
	bool fsync_remote;
	bool wal_ahead;		 /* the commit thread makes the WAL file as long as it will get */
	bool power_cut;		 /* of tests: the machine stopped, though it seems to run on */
	bool skip_sync;		 /* negative control of tests: no fdatasync before COMMIT */
	bool skip_capture;	 /* negative control: no copy of the cut before an overwrite */
	bool skip_intent;	 /* negative control: no intent before clean bytes change */
	bool skip_written;	 /* negative control: bytes being written may become clean */
	bool skip_forget;	 /* negative control: what was sent ahead stays said when it changes */
	bool skip_redo;		 /* negative control: rows of `redo` are dropped at the start */
	bool skip_undone;	 /* negative control: rows are read that a failure took back */
	bool skip_settle;	 /* negative control: no COMMIT before blocks are released */
};

/* What segment.live is to be changed by before the next COMMIT; live.c. */
#define LIVE_SLOTS 1024u
struct live_delta {
	uint64_t seg; /* 0: free */
	int64_t delta;
};

/* Whose rows the open transaction changed; undone.c. */
struct touched {
	uint64_t *slot; /* open addressing, at most half full */
	size_t cap, cnt;
	uint64_t last;
	bool all; /* there was no room to say which */
};

struct store {
	pthread_mutex_t meta;
	sqlite3 *db;
	struct volume *vol;	/* may be NULL (fsck, tests) */
	struct db *dbx;		/* db.c: statements */
	struct inode_cache *inodes;
	struct data *data;	/* data.c: fd cache, read-ahead, eviction */
	char *dir;
	int dir_fd, lock_fd;
	uint16_t device;
	uint64_t epoch;		/* of changes made now; starts at 1 */
	uint64_t published;	/* epoch up to which all is published */
	uint64_t cut_epoch;	/* epoch of the cut in flight, 0 none */
	uint64_t cut_pos;	/* small inodes up to this ino are packed already */
	uint64_t next_ino, next_lid;
	_Atomic uint64_t small_bytes; /* in-memory small contents not in rows */
	_Atomic uint64_t row_bytes;   /* contents written to rows since the last COMMIT */
	/* Numbers below *_safe may be used: the database says so durably (see FORMAT.md). */
	uint64_t ino_safe, ino_reserved, lid_safe, lid_reserved;
	bool unclean;		/* the last stop was not a clean one; for data_open */
	uint8_t name_key[16];	/* of the hash of names */
	uint64_t hash_mask;	/* all ones; tests narrow it to make names collide */
	struct live_delta live[LIVE_SLOTS]; /* open addressing, at most half full */
	size_t live_cnt;
	struct touched touched;
	bool whole;		/* failed, but between two changes: no row is half a one */
	uint64_t files;		/* inodes; whoever adds or removes rows of `inode` counts */
	struct inode *dirty_head, *dirty_tail;
	size_t redo_cnt;	/* inodes with rows of `redo` */
	size_t dirty_cnt, dirty_left; /* left: withheld by the last flush */
	bool txn_dirty;		/* rows were written since the last COMMIT */
	bool committing;	/* somebody is the leader of a group commit */
	bool sealed;		/* and syncs what was renamed: no more of that (store_seal_locked) */
	bool commit_now;	/* store_commit_soon */
	bool commit_idle;	/* the commit thread waits for something to do */
	_Atomic uint64_t commit_seq; /* tickets of group commit, drawn without meta */
	uint64_t commit_done;
	pthread_cond_t thread_cond; /* the commit thread waits here, callers at commit_cond */
	/* First change of each epoch that may be unpublished, oldest first. */
	struct store_since {
		uint64_t epoch;
		int64_t ns;
	} since[8];
	unsigned since_cnt;
	pthread_mutex_t space;
	/*
	 * Guarded by space.  rows: promised since the last COMMIT.  As of that: grow, what the
	 * database takes when the WAL goes into it; free, pages in it that nothing uses.
	 */
	uint64_t space_reserve, space_margin, space_taken, space_rows, space_grow, space_free;
	int64_t space_ms, space_settled_ms;
	_Atomic bool space_short; /* the end of the disk is not far */
	pthread_cond_t commit_cond;
	pthread_t commit_thread;
	bool running, stopping;
	int failed;		/* -errno, with the reason in fail_msg */
	char fail_msg[256];
	struct store_opts opts;
	uint64_t unpublished_bytes; /* dirty bytes; kept up to date by data.c */
	uint64_t huge_bytes; /* those of files with more than HUGE_MAX of them, since the start */
	uint64_t cached_bytes;	    /* bytes of contents on this disk */
	_Atomic uint64_t quota;	    /* quota.c; 0: none */
	int64_t live_bytes;	    /* sum of segment.live, counted from when there is a quota */
	void (*dirtied)(void *arg); /* publisher's wake-up; called with meta held, cheap */
	void *dirtied_arg;
	/* fsync_remote: waits until the inode as it is now is published; no lock held. */
	int (*remote_sync)(void *arg, uint64_t ino);
	void *remote_arg;
	/* The tree changed beneath the kernel: fs/ invalidates. */
	void (*inval)(void *arg, uint64_t ino, uint64_t parent, const char *name, size_t len);
	void *inval_arg;
};

/*
 * store_open: exclusive lock on the directory (-EBUSY: another process has it), the database
 * (created when absent), quick_check and the intent rules after an unclean stop, reaping of
 * nameless inodes.  -ENOTSUP: database of a newer version; -EBADMSG: corrupted (log line
 * says what to do).  store_start starts the commit thread (after daemonizing).
 * store_close commits everything, syncs, marks a clean stop.
 */
int store_open(struct store **out, const struct store_opts *o);
int store_start(struct store *st);
int store_close(struct store *st);

/* A new volume's root directory; 0 also when there is one. */
int store_init_root(struct store *st, uint32_t uid, uint32_t gid, uint32_t mode);
/* The number of this device (kv); starts its inode and link numbers at 1.  meta held. */
int store_set_device(struct store *st, uint16_t device);

/*
 * store_commit: what changed before the call is committed after it: all rows and names, not
 * the contents of withheld inodes (fsync of a directory; data_sync after store_sync_inode;
 * intents).  No lock but an inode->io may be held.
 * store_commit_all: those too (syncfs, umount); no lock.  -EIO when the store is failed.
 * The group: callers draw a ticket; the first becomes the leader and commits for all who
 * came before its COMMIT began.
 */
int store_commit(struct store *st);
int store_commit_all(struct store *st);
/* Without waiting: the commit thread does it soon.  meta not held. */
void store_commit_soon(struct store *st);
/*
 * Write dirty rows into the open transaction; meta held.  all: also those of unsynced large
 * inodes (whose data the caller has synced).  _inode: this one alone, whatever it is.
 */
int store_flush_locked(struct store *st, bool all);
int store_flush_inode_locked(struct store *st, struct inode *in);
/*
 * Syncs the cache file of a pinned inode and flushes its row, both as of one instant after
 * the call began (L1).  wait: no lock is held, and -EAGAIN is no answer; else an inode->io
 * may be held, and the row stays withheld, -EAGAIN, when writers are too busy.  -EIO: the
 * store is failed, and so is the inode.  A program's thread may be told to wait no longer
 * (iolock.h): the inode is as unsynced then as it was.
 * fsync of a file is store_sync_inode(st, in, true), or redo_sync, then store_commit(st).
 */
int store_sync_inode(struct store *st, struct inode *in, bool wait);
/*
 * The same for all (waiting for writers), those a timed commit takes, those a commit must.
 * -ENOMEM: there was no memory to list more than some of them; those are done.
 */
enum store_sync { SYNC_SOON, SYNC_DUE, SYNC_ALL };
int store_sync(struct store *st, enum store_sync which);
/*
 * After a change that is whole: flushes when much is dirty, so that memory stays bounded; commits
 * near the end of the disk, for which _locked gives meta up meanwhile.
 */
void store_pressure(struct store *st);
void store_pressure_locked(struct store *st);
/*
 * Before an inode gets or loses a name (name), and before its cache file is said to have
 * other bytes than before (!name): waits for a commit that is syncing what was renamed, where
 * that would make it more, so that it comes to an end.  meta held, given up meanwhile (true);
 * inode->io may be held, and what comes before it.
 */
bool store_seal_locked(struct store *st, const struct inode *in, bool name);
/* Marks the store failed; returns err.  meta held. */
int store_fail_locked(struct store *st, int err, const char *what);
/* 0, or why changes are refused now: -EROFS when failed. meta held. */
int store_writable_locked(const struct store *st);
/*
 * _touch: a row of `what` is going to change in the open transaction; that is the number of an
 * inode (its row, its contents, its attributes, the names in it) or of one name (dirent.c).
 * _undone: a failure took that back, or half of it, so the rows are not what was told, and
 * whoever needs them answers -EIO.  undone.c; meta held.
 */
void store_touch_locked(struct store *st, uint64_t what);
bool store_undone_locked(const struct store *st, uint64_t what);
/*
 * Numbers for a new inode or name; 0 when none can be had (the store is failed).
 * _low: a commit should come first, as the next ones may have to make one on the spot, without
 * syncing what was renamed.  meta held.
 */
uint64_t store_new_ino_locked(struct store *st);
uint64_t store_new_lid_locked(struct store *st);
bool store_numbers_low_locked(const struct store *st);

/* Settings in kv; blobs and integers.  meta held. -ENOENT when absent. */
int store_get_u64(struct store *st, const char *k, uint64_t *v);
int store_put_u64(struct store *st, const char *k, uint64_t v);
int store_get_blob(struct store *st, const char *k, struct buf *out);
int store_put_blob(struct store *st, const char *k, const void *p, size_t len);

/*
 * A prepared statement by its SQL text (a string literal: the pointer is the key), reset and
 * unbound.  NULL when it cannot be prepared (the store is failed then).  meta held.
 * store_step: SQLITE_ROW -> 1, SQLITE_DONE -> 0, else store_fail_locked -> -EIO.  A failed
 * store executes no statement that writes.  A statement belongs to one place in the program:
 * a nested call of that place would reset it.  Bound memory must last until store_run or the
 * last store_step (SQLITE_STATIC).  Statements left in the middle are reset by the COMMIT.
 */
sqlite3_stmt *store_stmt(struct store *st, const char *sql);
int store_step(struct store *st, sqlite3_stmt *s);
/* Step to the end and reset; 0 or -EIO, also for NULL, which is a store_stmt that failed. */
int store_run(struct store *st, sqlite3_stmt *s);

/*
 * -ENOSPC when `bytes` more on the local disk would eat the reserve (L6).  Cheap, but for a
 * COMMIT before it says no; so no lock but an inode->io may be held.  _rows: they are going to
 * be rows, in the WAL and then in the database; counted until the next COMMIT.
 */
int store_space_for(struct store *st, uint64_t bytes);
int store_space_rows(struct store *st, uint64_t bytes);
/* Something is in the way to the disk, and what is free will be known better after this. */
int store_settle(struct store *st);
/* After a COMMIT; meta held; in bytes. */
void store_space_committed(struct store *st, uint64_t grow, uint64_t unused);

struct store_figures {
	uint64_t unpublished_bytes, unpublished_files, cached_bytes, files;
	int64_t oldest_ns; /* realtime of the oldest unpublished change, 0 none */
};
int store_figures(struct store *st, struct store_figures *out);

#endif
