/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * record: the states that commits and snapshots carry.  A record is type u8, flags u8
 * (0: a reader refuses what it does not know), length u32, body.  Records are states, not
 * operations: applying a stream twice gives the same result as once.
 *
 * Inode numbers and link ids are device << 40 | counter; the root is inode 1.  A link id
 * names one creation of a name, so that links form an observed-remove set: UNLINK removes
 * exactly the creation it saw.  stamp = (lamport, device) of the commit that carries the
 * record; snapshots carry the stamp of the commit each state came from.
 *
 * Segments are named within one stream by an index: SEGMENT and INLINE records introduce the
 * next index (0, 1, 2 ...), extents refer to it.  A segment must be introduced, by its whole
 * record, in every stream whose extents use it.
 */
#ifndef HOLDFAST_NET_RECORD_H
#define HOLDFAST_NET_RECORD_H

#include "net/volume.h"

#define REC_NAME_MAX   255
#define REC_TARGET_MAX 4095
#define REC_XATTR_NAME_MAX 255
#define REC_XATTR_MAX  (64u << 10)	/* one value */
#define REC_BODY_MAX   (4u << 20)	/* any record but INLINE data is far below */
#define REC_EXTENTS_MAX 65536		/* extents of one CONTENT record; longer files use several */

enum rec_type {
	REC_INODE = 1, /* attributes, symlink target, all xattrs */
	REC_INODE_GONE,
	REC_LINK,
	REC_UNLINK,
	REC_CONTENT, /* ranges dropped, extents added */
	REC_SEGMENT, /* geometry and nodes */
	REC_INLINE,  /* a small segment whose plaintext is in the record itself */
	REC_NODE,    /* number, url (sealed with everything else), state of membership */
	REC_DEVICE,  /* number, Ed25519 key, owner's certificate, role */
};

struct rec_stamp {
	uint64_t lamport;
	uint16_t device;
};

/* Which fields differ from what this device published before (for merging). */
#define REC_CH_MODE    1u
#define REC_CH_OWNER   2u
#define REC_CH_TIMES   4u
#define REC_CH_XATTR   8u
#define REC_CH_CONTENT 16u
#define REC_CH_NEW     32u

struct rec_inode {
	uint64_t ino, parent; /* parent: of a directory; else 0 */
	uint32_t mode, uid, gid, nlink, changed;
	uint64_t rdev, size;
	int64_t atime_ns, mtime_ns, ctime_ns, btime_ns;
	const uint8_t *target; /* symlinks, not 0-terminated */
	uint16_t target_len;
	/* xattrs: count, then name_len u8 | name | value_len u32 | value, each */
	uint32_t xattr_cnt;
	const uint8_t *xattrs;
	uint32_t xattrs_len;
};
struct rec_link {
	uint64_t lid, parent, ino;
	uint32_t mode; /* file type bits only */
	const uint8_t *name;
	uint8_t name_len;
};
struct rec_extent {
	uint64_t off; /* in the file */
	uint32_t len, seg, seg_off;
};
struct rec_range {
	uint64_t off, len; /* len UINT64_MAX: to the end of the file */
};
struct rec_content {
	uint64_t ino, size;
	uint32_t drop_cnt, extent_cnt;
	const uint8_t *drops;	/* decode with rec_content_drop/extent */
	const uint8_t *extents; /* ascending, not overlapping, within the size of their segment */
};
struct rec_inline {
	struct seg_id id;
	const uint8_t *data;
	uint32_t len;
};
struct rec_node {
	uint16_t number;
	uint8_t member; /* 1 member, 2 draining, 3 removed */
	const uint8_t *url;
	uint16_t url_len;
};
struct rec_device {
	uint16_t number;
	uint8_t role; /* 1 rw, 2 ro, 3 retired */
	uint8_t ed_pk[32], cert[SIG_LEN];
};

struct record {
	enum rec_type type;
	struct rec_stamp stamp;
	union {
		struct rec_inode inode;
		struct rec_link link; /* UNLINK too: lid, parent, name */
		struct rec_content content;
		struct seg_place segment;
		struct rec_inline inl;
		struct rec_node node;
		struct rec_device device;
		uint64_t gone_ino;
	};
};

/*
 * Encoders append one record to a stream buffer.  Errors collect in the buf (base.h).
 * rec_put_content takes the arrays; rec_put_* of over-long input set -EINVAL.
 */
void rec_put_inode(struct buf *b, struct rec_stamp s, const struct rec_inode *r);
void rec_put_gone(struct buf *b, struct rec_stamp s, uint64_t ino);
void rec_put_link(struct buf *b, struct rec_stamp s, const struct rec_link *r);
void rec_put_unlink(struct buf *b, struct rec_stamp s, const struct rec_link *r);
void rec_put_content(struct buf *b, struct rec_stamp s, uint64_t ino, uint64_t size,
		     const struct rec_range *drop, uint32_t drop_cnt,
		     const struct rec_extent *ext, uint32_t ext_cnt);
void rec_put_segment(struct buf *b, struct rec_stamp s, const struct seg_place *p);
void rec_put_inline(struct buf *b, struct rec_stamp s, const struct rec_inline *r);
void rec_put_node(struct buf *b, struct rec_stamp s, const struct rec_node *r);
void rec_put_device(struct buf *b, struct rec_stamp s, const struct rec_device *r);

/*
 * Decodes the next record; pointers are into the input.  1 a record, 0 the clean end,
 * -EBADMSG anything else (every cap, range, order and name rule is checked here: a name is
 * 1..255 bytes without '/' and NUL, not "." or ".."; sizes and offsets below 2^62).
 */
int rec_next(struct rd *r, struct record *out);
struct rec_range rec_content_drop(const struct rec_content *c, uint32_t i);
struct rec_extent rec_content_extent(const struct rec_content *c, uint32_t i);
/* Iterates over xattrs of a decoded inode: 1, 0 at the end. */
int rec_xattr_next(struct rd *r, const uint8_t **name, uint8_t *name_len,
		   const uint8_t **value, uint32_t *value_len);

/*
 * struct rec_writer: a stream of records on its way into a commit or snapshot, zstd
 * compressed as it comes; in memory up to 4 MiB of compressed bytes, then in an unlinked
 * temporary file below tmp_dir.  One thread.
 */
struct rec_writer;
int rec_writer_new(struct rec_writer **out, const char *tmp_dir);
void rec_writer_free(struct rec_writer *w);
/* Takes what is in b (whole records) and resets it. */
int rec_writer_add(struct rec_writer *w, struct buf *b);
uint64_t rec_writer_raw_len(const struct rec_writer *w);
/* Ends the stream, no more adds; may be called again.  *z_len = compressed bytes. */
int rec_writer_finish(struct rec_writer *w, uint64_t *z_len);
/* After finish: compressed bytes [off, off + len), any number of times. */
int rec_writer_read(struct rec_writer *w, uint64_t off, void *p, size_t len);

/*
 * struct rec_reader: the way back: compressed bytes in, in pieces of any size; whole records
 * out, to the sink.  Memory is bounded by the window cap and one record.
 * rec_reader_feed returns 0, -EBADMSG (damaged, trailing bytes, more than raw_len bytes,
 * a record longer than its cap), -ENOMEM, or what the sink returned.
 * rec_reader_end: 0 when the stream was complete and had raw_len bytes, else -EBADMSG.
 */
struct rec_reader;
int rec_reader_new(struct rec_reader **out, uint64_t raw_len,
		   int (*sink)(void *arg, struct rd *r), void *arg);
void rec_reader_free(struct rec_reader *rr);
int rec_reader_feed(struct rec_reader *rr, const void *p, size_t len);
int rec_reader_end(struct rec_reader *rr);

/* A segment's geometry and nodes, as SEGMENT records and lists of parts have them. */
void rec_put_place(struct buf *b, const struct seg_place *p);
int rec_get_place(struct rd *r, struct seg_place *p); /* 0 or -EBADMSG */

#endif
