/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * data: contents of regular files.  Small ones (SMALL_MAX) are a row, larger ones a sparse
 * cache file data/xx/<ino> at their natural offsets with spans (range.h).  A byte is
 *   HAVE          in the cache file (or the row)
 *   else extent   on the nodes: gathered, kept, and then HAVE
 *   else          zero (hole)
 * Calls take inode->io and st->meta themselves; no lock is held while waiting for nodes
 * except inode->io: shared, or exclusively when a small file that is not here is changed.
 * Who waits for that, or for nodes, ends with what giveup_over says when it is told to.
 *
 * Before clean bytes are overwritten an intent for their 1 MiB part is committed (L5); before
 * bytes of the cut in flight that are not packed yet change, they are captured.
 */
#ifndef HOLDFAST_CACHE_DATA_H
#define HOLDFAST_CACHE_DATA_H

#include "cache/store.h"

int data_open(struct store *st);   /* part of store_open: directories, leftovers */
void data_close(struct store *st); /* part of store_close */
int data_start(struct store *st);  /* read-ahead and eviction threads; needs st->vol */
void data_stop(struct store *st);

/* Bytes read, short only at the end of the file; -ENODATA/-ETIMEDOUT/-EIO from the nodes. */
int64_t data_read(struct store *st, struct inode *in, void *buf, size_t len, uint64_t off);
/* All of len or -errno (-ENOSPC, -EFBIG, -EROFS, -EIO).  Sets mtime, ctime, size.
 * kill_priv: clears set-id bits and security.capability as a write by a user does. */
int data_write(struct store *st, struct inode *in, const void *buf, size_t len, uint64_t off,
	       bool kill_priv);
int data_truncate(struct store *st, struct inode *in, uint64_t size, bool kill_priv);
/* mode: 0, FALLOC_FL_KEEP_SIZE, PUNCH_HOLE|KEEP_SIZE, ZERO_RANGE[|KEEP_SIZE]; others
 * -EOPNOTSUPP. */
int data_fallocate(struct store *st, struct inode *in, int mode, uint64_t off, uint64_t len,
		   bool kill_priv);
/* whence SEEK_DATA or SEEK_HOLE; -ENXIO. */
int64_t data_seek(struct store *st, struct inode *in, uint64_t off, int whence);
/* Bytes copied (may be short).  Published ranges share extents; others are copied. */
int64_t data_copy(struct store *st, struct inode *src, uint64_t src_off, struct inode *dst,
		  uint64_t dst_off, uint64_t len, bool kill_priv);
/* fsync: data, then the row, committed.  -EIO once and for good after a failed write-back. */
int data_sync(struct store *st, struct inode *in, bool datasync);

/* Bytes that are not holes, for st_blocks; meta held; cheap (cached in memory). */
uint64_t data_allocated_locked(struct store *st, struct inode *in);

/* For store.c, meta held unless said otherwise: */
/* small bytes, spans -> rows */
int data_flush_inode_locked(struct store *st, struct inode *in);
void data_evict_inode_locked(struct store *st, struct inode *in); /* leaves the inode cache */
int data_delete_locked(struct store *st, struct inode *in); /* reaped: rows, cache file */
int data_fsync_file(struct store *st, struct inode *in); /* NO lock held: fdatasync; 0/-EIO */
/* NO lock held: begins that, for many files, before each is waited for; errors come with it. */
void data_write_back(struct store *st, struct inode *in);
/* It could not: the inode's fsync fails from now on, and the store has failed. */
void data_sync_failed_locked(struct store *st, struct inode *in);
/* No lock held: syncs files whose bytes are in rows of `redo`, those that are due or all. */
int data_redo_settle(struct store *st, bool all);

/*
 * For cut.c.  data_cut_locked: DIRTY -> CUT and META -> CMETA for a large inode.
 * data_cut_read: bytes of a large inode as they were at the cut (captured or in place);
 * takes io shared; data_cut_packed: [off,off+len) is packed, capture is over for it.
 * data_cut_small: appends the bytes as of the cut; the caller then advances st->cut_pos.
 * -ENOENT: there is no such file any more.  Rows of `capture` are the caller's to delete.
 * What CMETA ranges have for extents must be read in the same hold of st->meta.
 * data_cut_done_locked: published: CUT -> clean, CMETA -> nothing; or, not ok: back to dirty.
 */
/* Around making a cut, before st->meta is taken and after it is released: between the two no
 * write is half done, so that each is whole in the cut or not in it. */
void data_gate_close(struct store *st);
void data_gate_open(struct store *st);
int data_cut_locked(struct store *st, struct inode *in);
int data_cut_read(struct store *st, struct inode *in, uint64_t off, void *buf, size_t len);
int data_cut_packed(struct store *st, struct inode *in, uint64_t off, uint64_t len);
int data_cut_small_locked(struct store *st, uint64_t ino, struct buf *out);
int data_cut_done_locked(struct store *st, struct inode *in, bool ok);

/* Extents of a range in ascending order, cut to it; meta held.  cb non-zero stops. */
struct extent {
	uint64_t off, len;
	uint64_t seg; /* local number */
	uint32_t seg_off;
};
/* The whole extent that holds off, else the next one behind it: 1; 0 none. */
int extent_at_locked(struct store *st, uint64_t ino, uint64_t off, struct extent *e);
int extent_each_locked(struct store *st, uint64_t ino, uint64_t off, uint64_t end,
		       int (*cb)(void *arg, const struct extent *e), void *arg);
/* Removes [off, end), splitting what straddles; then, with len > 0 in *e, inserts it. */
int extent_drop_locked(struct store *st, uint64_t ino, uint64_t off, uint64_t end);
int extent_put_locked(struct store *st, uint64_t ino, const struct extent *e);
/* Removes all of an inode. */
int extent_delete_locked(struct store *st, uint64_t ino);

/*
 * live.c: bytes of each segment that extents name.  _add: of a row that was inserted or
 * deleted; _sub: of all rows that a SELECT seg, len has, which are then deleted; _flush: writes
 * what was added up, and must come before segment.live is read; _recount: after statements
 * that nobody counted.  meta held.
 */
int live_add_locked(struct store *st, uint64_t seg, int64_t delta);
int live_sub_locked(struct store *st, sqlite3_stmt *s);
int live_flush_locked(struct store *st);
int live_recount_locked(struct store *st);
/* All of them together, into st->live_bytes, which _add keeps up to date from then on. */
int live_sum_locked(struct store *st);

/*
 * Where a local segment number's bytes are; inline ones give their data. meta held.  -ESTALE:
 * there is none of that number, or it is going to be deleted.
 */
int segment_place_locked(struct store *st, uint64_t seg, struct seg_place *out,
			 struct buf *inline_data, bool *is_inline);

/* Wait until at most `bytes` of clean contents are kept; also run by itself. */
int data_evict(struct store *st, uint64_t bytes);

#endif
