/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * datafile: the inside of data.h, shared by
 *   datafile.c  cache files: names, descriptors, what is known of one in memory
 *   small.c     contents in rows
 *   data.c      reading and writing
 *   leftover.c  what the run before left
 *   resize.c    truncate, fallocate, small to large and back
 *   copy.c      copy_file_range, SEEK_DATA
 *   capture.c   bytes of the cut in flight, intents
 *   sent.c      dirty ranges that are stored ahead of a commit
 *   redo.c      fsync of a few bytes by rows
 *   fetch.c     bytes from the nodes, read-ahead
 *   evict.c     giving bytes up; releasing space after a commit
 *   extent.c    rows of `extent` and `segment`
 *
 * Locks, in the order of store.h with three more: inode->io, gate, datafile->sync, st->meta,
 * data->fd_lock.
 * gate: writers of large files hold it shared from looking at the flags until they have set
 * them, a cut is made with it held exclusively; so every write is whole in the cut or not
 * in it.  Nobody waits for the network with it.
 */
#ifndef HOLDFAST_CACHE_DATAFILE_H
#define HOLDFAST_CACHE_DATAFILE_H

#include "cache/data.h"
#include "cache/meta.h"
#include "net/record.h"

#define DATA_MAX	 ((uint64_t)1 << 62) /* no byte of a file is at or beyond */
#define READ_DEADLINE_MS 30000
#define READ_AHEAD	 ((uint64_t)64 << 20) /* asked for and not here yet */
#define READ_AHEAD_MAX	 ((uint64_t)128 << 20) /* before the reader; it waits in the cache */
#define READ_AHEAD_LEAST ((uint64_t)4 << 20)  /* however slow the nodes are */
#define READ_AHEAD_JOBS	 64
#define READ_AHEAD_THREADS 6 /* segments in flight, and in memory */
#define EXT_GENS	 1024

/* The files of one inode. */
enum cfile_kind { CF_MAIN, CF_CUT, CF_OLD, CF_KINDS };

/* An open file; lives until it is out of the cache and nobody uses it. */
struct cfile {
	int fd;
	unsigned ref;
	struct cfile **home; /* where it hangs; NULL: dropped */
	struct datafile *owner;
	_Atomic bool wrote; /* bytes that no fdatasync covers; set before they are written */
	struct cfile *prev, *next;
};

/* Flags of datafile.cutinfo; RG_* values, for struct ranges needs those. */
#define CI_CAPTURED RG_HAVE  /* the cut's bytes are in CF_CUT */
#define CI_OLD	    RG_META  /* the cut's bytes are in CF_OLD */
#define CI_PACKED   RG_CMETA /* the cut does not need them any more */

/* A write since the last fdatasync; redo.c. */
#define FRESH_PIECES 8
#define REDO_MAX     ((size_t)32 << 10) /* more bytes than this are synced where they are */
struct fresh {
	uint64_t off;
	size_t len;
};

/* What is known of one larger file in memory.  st->meta guards it but for fd[]. */
struct datafile {
	struct inode *in;
	struct cfile *fd[CF_KINDS]; /* data->fd_lock */
	struct ranges *intended;    /* RG_HAVE: the part has an intent */
	struct ranges *cutinfo;	    /* while the inode is in a cut: CI_* */
	uint64_t gen, synced_gen;   /* bytes written; as of the last fdatasync */
	unsigned fsyncing;	    /* calls of data_fsync_file under way */
	/*
	 * The bytes that neither an fdatasync nor a row of `redo` covers, pieces in order; of
	 * those of generations up to fresh_lost nothing is known.
	 */
	struct fresh piece[FRESH_PIECES];
	unsigned fresh_cnt;
	uint8_t *fresh;
	size_t fresh_len, fresh_cap;
	uint64_t fresh_gen, fresh_lost;
	/* Rows of `redo`, while in->redo: the newest, how much, since when. */
	uint64_t redo_seq, redo_bytes, redo_rows;
	int64_t redo_ms;
	struct datafile *redo_prev, *redo_next;
	uint64_t wr_off, wr_end;    /* an overwrite of clean bytes under way */
	uint64_t ext_bytes;	    /* sum of the extents, when ext_gen is current */
	uint64_t ext_gen;
	uint64_t ra_end;	    /* read-ahead was asked for up to here */
	uint64_t missed;	    /* where the last read was of what is not here */
	uint64_t forgot;	    /* sent_forget took rows away up to here */
	bool sent_hit;		    /* bytes changed while they were RG_SENT */
	bool small_row;		    /* it was small and its row is still there */
	bool side[CF_KINDS];	    /* CF_CUT, CF_OLD: there may be such a file */
	_Atomic bool created;	    /* its name may not be on the disk yet */
	pthread_mutex_t sync;	    /* one fdatasync at a time; taken before st->meta */
	_Atomic int sync_err;	    /* of the first that failed, for good */
	bool on_lru;
	struct datafile *lru_prev, *lru_next;
};

struct fetch_job {
	uint64_t ino, off, end;
};

/* A range that a read-ahead thread is fetching. */
struct fetch_busy {
	uint64_t ino, off, end;
	struct fetch_busy *next;
};

struct data {
	int dir_fd;
	pthread_mutex_t fd_lock;
	struct cfile *fd_head, *fd_tail; /* newest first */
	unsigned fd_cnt, fd_max, fd_hard; /* hard: if all have bytes that are not synced */
	/* The names of the directories data/xx are on the disk; set once. */
	_Atomic bool sub_synced[256];
	pthread_rwlock_t gate;
	/* st->meta guards the rest. */
	uint64_t limit; /* of cached_bytes */
	uint64_t ext_gen[EXT_GENS];
	struct datafile *lru_head, *lru_tail; /* larger files read or written, newest first */
	struct datafile *redo_head;	/* files with rows of `redo` */
	uint64_t redo_seq, redo_bytes;	/* of the newest of these rows; in all of them */
	uint64_t fresh_bytes;		/* in datafile.fresh */
	uint64_t scan_span, scan_small; /* where eviction looks next */
	/* the keeper: eviction, and what waits for a commit */
	uint64_t *trim; /* inodes whose file has bytes nothing refers to */
	size_t trim_cnt, trim_cap;
	bool evictable; /* something may have become clean since eviction found nothing */
	pthread_cond_t keeper_cond;
	pthread_t keeper, reader[READ_AHEAD_THREADS];
	bool keeper_on;
	unsigned reader_cnt;
	bool stopping;
	struct fetch_job job[READ_AHEAD_JOBS];
	unsigned job_head, job_cnt;
	struct fetch_busy *busy;
	pthread_cond_t job_cond, busy_cond;
	int64_t complained_ms; /* last log line about unreachable nodes */
	_Atomic int64_t read_ms; /* a program last wanted bytes of the nodes */
};

/* --- datafile.c --- */

/* in->file, and in->spans of a large one, with what the database knows. */
int datafile_load_locked(struct store *st, struct inode *in);
/* A descriptor of one of its files, held until cfile_put; -ENOENT without create. */
int cfile_get(struct store *st, struct inode *in, enum cfile_kind k, bool create,
	      struct cfile **out);
void cfile_put(struct store *st, struct cfile *c);
/* Out of the cache (the name is about to go). */
void cfile_drop(struct store *st, struct datafile *f, enum cfile_kind k);
void cfile_name(uint64_t ino, enum cfile_kind k, char out[48]);
int cfile_unlink(struct store *st, uint64_t ino, enum cfile_kind k);
/* All of it or -errno; *done (may be NULL): how much was written before the error. */
int cfile_write(int fd, const void *buf, size_t len, uint64_t off, size_t *done);
int cfile_read(int fd, void *buf, size_t len, uint64_t off); /* -ENODATA: it ends before */
/* Everything in the file is on the disk; io held exclusively. */
int datafile_sync_io(struct store *st, struct inode *in);
/*
 * The file got bytes at the end of a change: what the rules of syncing want to know.  buf:
 * which ones, NULL: not said.
 */
void datafile_wrote_locked(struct store *st, struct inode *in, const void *buf, size_t len,
			   uint64_t off);
void datafile_touch_locked(struct store *st, struct inode *in); /* newest of the LRU */
void data_extents_changed_locked(struct store *st, uint64_t ino);

/* What an inode adds to st->cached_bytes and st->unpublished_bytes. */
struct account {
	uint64_t cached, unpublished;
};
struct account account_of(const struct inode *in);
/* To be called after a change, with what account_of said before it. */
void account_settle_locked(struct store *st, const struct inode *in, struct account before);

/*
 * -EDQUOT when [off, off+len), of which only what is a hole now counts, would pass the
 * quota; st->meta is not held (copy.c).
 */
int data_quota(struct store *st, struct inode *in, uint64_t off, uint64_t len);

/* Times, set-id bits and the dirty list after a change of contents. */
int data_mark_locked(struct store *st, struct inode *in, bool kill_priv);

/* --- small.c --- */

/* Contents into in->small, so that they may be changed.  -EAGAIN: they are not here. */
int small_load_locked(struct store *st, struct inode *in);
/* in->small becomes `size` bytes long, new ones zero; loaded before, or size 0. */
int small_resize_locked(struct store *st, struct inode *in, uint64_t size);
void small_free_locked(struct store *st, struct inode *in);
/* The bytes of the row; -ENOENT when there is none. */
int small_row_locked(struct store *st, uint64_t ino, uint8_t *to, uint64_t size);
int small_store_locked(struct store *st, uint64_t ino, const uint8_t *p, uint64_t size);
int small_delete_locked(struct store *st, uint64_t ino);
/* If the cut in flight still needs the bytes as they are: keeps them in `capture`. */
int small_capture_locked(struct store *st, struct inode *in);
/*
 * Gathers the contents of a small file that is not here; io held, meta not.  For a reader
 * (want): copies the part it wants, 1, as a disk without space cannot keep them.  Else -ENOSPC.
 */
struct small_want {
	void *buf;
	uint64_t off;
	size_t len;
};
int small_fetch(struct store *st, struct inode *in, int64_t deadline_ms,
		const struct small_want *want);

/* --- data.c --- */

/* data_write with inode->io held exclusively. */
int data_write_io(struct store *st, struct inode *in, const void *buf, size_t len, uint64_t off,
		  bool kill_priv);
int64_t data_read_io(struct store *st, struct inode *in, void *buf, size_t len, uint64_t off,
		     int64_t deadline_ms);

/* --- leftover.c --- */

/*
 * When the store is opened: redo, intents, files of no inode; what is cached and unpublished
 * is added up.  After a crash what was not synced is synced.
 */
int leftover_locked(struct store *st);

/* --- resize.c --- */

/*
 * A small file becomes a large one; io held exclusively, meta not.  -EAGAIN: its contents are
 * not here (any more), and nothing has changed.
 */
int data_make_large(struct store *st, struct inode *in);
/*
 * [off, end) of a large file becomes a hole, or what `put` (extents, may be NULL) says;
 * size_max != UINT64_MAX: the size becomes that; size_min: at least that.
 */
struct punch {
	uint64_t off, end, size_set, size_min;
	const struct extent *put;
	size_t put_cnt;
	bool kill_priv;
};
#define PUNCH_SIZE_KEEP UINT64_MAX
int data_punch_io(struct store *st, struct inode *in, const struct punch *p); /* -EAGAIN: put */

/* --- capture.c --- */

/* Before [off, end) of a large file is overwritten; io and gate held. */
int data_prepare_io(struct store *st, struct inode *in, uint64_t off, uint64_t end);
int capture_range_io(struct store *st, struct inode *in, uint64_t off, uint64_t end);
/* Before the whole file is given up: the cut keeps a second name of it.  *kept: it does. */
int capture_whole_io(struct store *st, struct inode *in, bool *kept);
void capture_free_locked(struct store *st, struct inode *in);

/* --- sent.c: meta held --- */

int sent_load_locked(struct store *st, struct inode *in); /* RG_AHEAD, once spans are there */
/* Before [off, end) is written: *put is set when that has to be committed first. */
int sent_forget_locked(struct store *st, struct inode *in, uint64_t off, uint64_t end,
		       bool *put);
/* The range is given up in this transaction, which is waited for if it had RG_AHEAD. */
int sent_drop_locked(struct store *st, struct inode *in, uint64_t off, uint64_t end);
int sent_drop_all_locked(struct store *st, struct inode *in);
/* The next dirty range from *pos on that is not stored and not on its way. */
bool sent_want_locked(struct inode *in, uint64_t *pos, uint64_t *end);
/* What is still RG_SENT of [off, off+len) lies in that segment; *kept grows by as much. */
int sent_stored_locked(struct store *st, struct inode *in, uint64_t off, uint64_t len,
		       uint64_t seg, uint32_t seg_off, uint64_t *kept);
/* Bytes that are not published and not stored ahead either. */
uint64_t sent_left_locked(const struct inode *in);
/* Where the bytes of [off, end) lie, all of which are RG_AHEAD. */
int sent_each_locked(struct store *st, struct inode *in, uint64_t off, uint64_t end,
		     int (*cb)(void *arg, const struct extent *e), void *arg);

/* --- redo.c: meta held unless said otherwise --- */

/* After gen was counted up: what was written, or (NULL) that nobody knows. */
void redo_note_locked(struct store *st, struct inode *in, const void *buf, size_t len,
		      uint64_t off);
/*
 * Instead of store_sync_inode, meta not held: 1: all that was written is in rows, and they
 * and the inode's row are in the transaction; 0: it has to be synced; -errno.
 */
int redo_sync(struct store *st, struct inode *in);
/* An fdatasync that began at generation gen, when the newest row was seq, has succeeded. */
int redo_synced_locked(struct store *st, struct inode *in, uint64_t gen, uint64_t seq);
/* Rows and memory go: the contents do. */
int redo_drop_locked(struct store *st, struct inode *in);
/* The memory alone. */
void redo_release_locked(struct store *st, struct inode *in);
/* When the store is opened, before any cache file is read. */
int redo_replay_locked(struct store *st);

/* --- fetch.c --- */

/*
 * Bytes [off, off+len) that lie within extent e: to buf, and into the cache file where they
 * are still wanted there.  io held shared, meta not.  -EAGAIN: they lie elsewhere by now.
 */
int fetch_read(struct store *st, struct inode *in, const struct extent *e, uint64_t off,
	       size_t len, uint8_t *buf, int64_t deadline_ms);
/* Plaintext of one extent, no cache file.  -EAGAIN as above. */
int fetch_extent(struct store *st, uint64_t ino, const struct extent *e, uint8_t *buf,
		 int64_t deadline_ms);
/* A read of [off, end) happened: read-ahead when it is one of a sequence. */
void fetch_ahead_locked(struct store *st, struct inode *in, uint64_t off, uint64_t end);
/* Asks for what comes next of it, as far as less is under way than should be. */
void fetch_more_locked(struct store *st, struct inode *in);
/* The range is being fetched by read-ahead. */
bool fetch_busy_locked(const struct data *d, uint64_t ino, uint64_t off, uint64_t *end);
void *fetch_main(void *store);

/* --- evict.c --- */

void keeper_wake_locked(struct store *st); /* if there is too much in the cache */
int keeper_trim_locked(struct store *st, uint64_t ino); /* soon, after a commit */
int keeper_trim(struct store *st); /* does what is queued, now; 0 or the last failure */
void keeper_drain(struct store *st); /* the same, when no inode is in memory any more */
void *keeper_main(void *store);
/* Punches what no span calls HAVE in [off, end) out of the cache file; io held exclusively
 * and the spans committed. */
int cfile_punch(struct store *st, struct inode *in, uint64_t off, uint64_t end);

#endif
