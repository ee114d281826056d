/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * segment: up to 16 MiB of plaintext, sealed in cells, laid over K data shards, M parity
 * shards computed, every stored cell tagged.  Bytes in, bytes out; no I/O, no threads.
 *
 * Plaintext is cut into cells of 2^cell_log2 bytes (4 to 64 KiB; those written here 4 or 8:
 * what a small read fetches is in TCP's first flight then, and comes in one way there and back
 * over a connection that was idle too, where 64 KiB take three).  A stored cell is
 *     ciphertext (2^cell_log2) | AEAD tag (16) | shard tag (16)      = stride bytes
 * cell c lives in data shard c / cps at row c % cps.  Row r of parity shard j is the code of
 * row r of the K data shards (ciphertext and AEAD tag), with its own shard tag.
 * A shard blob is SHARD_HEADER bytes, then cps stored cells.  The plaintext is padded with
 * zeros to K * cps cells, so every shard of a stripe has one length, from a coarse set.
 * Cell AEAD: XChaCha20-Poly1305(SK[seg], nonce = seg id | cell number as le64).
 * Shard tag: Poly1305, one-time key MAC(TK[seg], "tag", shard number | row), over the
 * ciphertext and AEAD tag as stored.
 */
#ifndef HOLDFAST_NET_SEGMENT_H
#define HOLDFAST_NET_SEGMENT_H

#include <stdatomic.h>
#include <sys/uio.h>
#include "net/ec.h"
#include "net/keys.h"

#define SEG_MAX_LEN   (16u << 20)
#define CELL_LOG2_MIN 12
#define CELL_LOG2_MAX 16
#define CELL_MAX      (1u << CELL_LOG2_MAX)
#define CELL_LOG2     13 /* of what is written, unless a shard is smaller */
#define CELL_SIZE     (1u << CELL_LOG2)
#define CELL_OVERHEAD 32
#define SHARD_HEADER  128

/* Everything a reader must know of a segment but where its shards are. */
struct seg_geom {
	struct seg_id id;
	uint8_t k, m, cell_log2;
	uint32_t cps; /* cells per shard */
	uint32_t len; /* plaintext bytes */
};
int seg_geom_check(const struct seg_geom *g); /* 0 or -EBADMSG: all caps of the format */
static inline size_t seg_cell(const struct seg_geom *g)
{
	return (size_t)1 << g->cell_log2;
}
static inline size_t seg_stride(const struct seg_geom *g)
{
	return seg_cell(g) + CELL_OVERHEAD;
}
static inline size_t seg_shard_len(const struct seg_geom *g)
{
	return SHARD_HEADER + (size_t)g->cps * seg_stride(g);
}

/*
 * struct stripe: one segment ready to be stored: K + M shard blobs in memory.  Reference
 * counted because late PUTs outlive the quorum; the last stripe_unref returns its memory to
 * the pool of the builder that made it.
 */
struct stripe {
	struct seg_geom geom;
	uint8_t header[EC_MAX][SHARD_HEADER]; /* filled per target node by stripe_shard */
	uint8_t *body[EC_MAX];		      /* cps * stride bytes each */
	_Atomic int ref;
	struct seg_pool *pool;
	uint8_t *mem;
	struct stripe *next;
};
void stripe_ref(struct stripe *s);
void stripe_unref(struct stripe *s);
/* iov[0] = header, iov[1] = body of shard i. */
void stripe_shard(struct stripe *s, unsigned i, struct iovec iov[2]);

/*
 * struct seg_pool: a fixed number of stripe buffers; taking one waits while all are out,
 * which is the back-pressure of publishing.  seg_pool_stop wakes waiters with -ECANCELED.
 */
struct seg_pool;
int seg_pool_new(struct seg_pool **out, unsigned k, unsigned m, unsigned cnt);
void seg_pool_stop(struct seg_pool *p);
void seg_pool_free(struct seg_pool *p); /* waits until every stripe is back */

/*
 * struct seg_builder: packs bytes into a stripe.  One thread.
 *   seg_builder_start  takes a stripe, draws a random id (b->id readable at once)
 *   seg_builder_add    appends; *off_out = where in the segment; -ENOSPC when len > room
 *   seg_builder_finish pads, seals what is open, codes, tags; *out holds one reference
 * Full cells are sealed while they fill; a segment of K * 4 KiB at the most gets cells of
 * 4 KiB, so that little data stays little.
 */
struct seg_builder;
int seg_builder_new(struct seg_builder **out, const struct keys *k, struct seg_pool *pool);
void seg_builder_free(struct seg_builder *b);
int seg_builder_start(struct seg_builder *b, struct seg_id *id_out);
/* The same with a given id, for golden tests alone: an id must never be used twice. */
int seg_builder_start_id(struct seg_builder *b, const struct seg_id *id);
size_t seg_builder_len(const struct seg_builder *b);
size_t seg_builder_room(const struct seg_builder *b);
int seg_builder_add(struct seg_builder *b, const void *p, size_t len, uint32_t *off_out);
int seg_builder_finish(struct seg_builder *b, struct stripe **out);
void seg_builder_abandon(struct seg_builder *b); /* the id is never used again */

/* Where the stored cell lies: shard, row, byte offset within the blob of that shard. */
void seg_locate(const struct seg_geom *g, uint32_t cell, unsigned *shard, uint32_t *row,
		uint64_t *blob_off);

/*
 * struct seg_reader: checks and opens stored cells of one segment.  On the stack; holds
 * derived keys, so seg_reader_release wipes it.  Calls are thread-safe for one reader.
 */
struct seg_reader {
	struct seg_geom g;
	uint8_t sk[KEY_LEN], tk[KEY_LEN];
};
int seg_reader_init(struct seg_reader *r, const struct keys *k, const struct seg_geom *g);
void seg_reader_release(struct seg_reader *r);
/* stored: stride bytes.  0 when the tag of (shard, row) is right, else -EBADMSG. */
int seg_check(const struct seg_reader *r, unsigned shard, uint32_t row, const uint8_t *stored);
/* Opens a checked data cell to 2^cell_log2 plaintext bytes; -EBADMSG. */
int seg_open(const struct seg_reader *r, uint32_t cell, const uint8_t *stored, uint8_t *plain);
/*
 * Rebuild rows: stored[i] = rows * stride bytes of shard i beginning at row `row0`, valid
 * where have[i]; written (with right tags) where !have[i] and stored[i] != NULL.
 * Everything in have[] must have passed seg_check.  0, -ENODATA, -ENOMEM.
 */
int seg_rebuild(const struct seg_reader *r, uint32_t row0, uint32_t rows,
		uint8_t *const stored[], const bool have[]);
/* The header of shard i, as stripe_shard gives it: to store a rebuilt shard again. */
int seg_shard_header(const struct keys *k, const struct seg_geom *g, unsigned shard,
		     uint8_t out[SHARD_HEADER]);
/* Opens the header of any shard blob: its geometry and number.  -EBADMSG, -ENOTSUP. */
int seg_shard_header_open(const struct keys *k, const uint8_t in[SHARD_HEADER],
			  struct seg_geom *g, unsigned *shard);

#endif
