/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "net/seal.h"

#include <sodium.h>

#define SHARD_MAGIC   "hf.shard"
#define SHARD_VERSION 1
#define SHARD_CLEAR   16 /* magic, version, flags, zeros: before the sealed part */
#define SHARD_SEALED  (SHARD_HEADER - SHARD_CLEAR - BOX_OVERHEAD)
#define SHARD_UNIT    (CELL_MAX / CELL_SIZE) /* rows: lengths beyond 64 KiB are so coarse */
#define NONCE_LEN     crypto_aead_xchacha20poly1305_ietf_NPUBBYTES

_Static_assert(2 * CELL_TAG_LEN == CELL_OVERHEAD, "the format");
_Static_assert(SEG_LEN + 8 == NONCE_LEN, "the nonce is the segment and the cell");
_Static_assert(crypto_aead_xchacha20poly1305_ietf_ABYTES == CELL_TAG_LEN &&
		       crypto_onetimeauth_BYTES == CELL_TAG_LEN &&
		       crypto_onetimeauth_KEYBYTES == HASH_LEN,
	       "the format");

/* --- geometry --- */

int seg_geom_check(const struct seg_geom *g)
{
	if (g->k < 1 || g->k > EC_MAX || g->m > EC_MAX - g->k)
		return -EBADMSG;
	if (g->cell_log2 < CELL_LOG2_MIN || g->cell_log2 > CELL_LOG2_MAX)
		return -EBADMSG;
	uint64_t row = (uint64_t)g->k << g->cell_log2;
	if (g->len > SEG_MAX_LEN || g->cps < 1 || g->len > g->cps * row)
		return -EBADMSG;
	/* No more rows than the longest segment needs. */
	if ((g->cps - 1) * row >= SEG_MAX_LEN)
		return -EBADMSG;
	return 0;
}

static uint32_t padme(uint32_t v)
{
	if (v < 2)
		return v;
	unsigned e = 31 - (unsigned)__builtin_clz(v);
	unsigned s = e ? 32 - (unsigned)__builtin_clz(e) : 1;
	uint32_t mask = (1u << (e - HF_MIN(s, e))) - 1;
	return (v + mask) & ~mask;
}

void seg_geom_choose(struct seg_geom *g, unsigned k, unsigned m, uint32_t len)
{
	g->k = (uint8_t)k;
	g->m = (uint8_t)m;
	g->len = len;
	g->cps = 1;
	g->cell_log2 = len <= (uint64_t)k << CELL_LOG2_MIN ? CELL_LOG2_MIN : CELL_LOG2;
	uint32_t row = k << g->cell_log2, rows = (len + row - 1) / row;
	while (g->cps < SHARD_UNIT && g->cps < rows)
		g->cps *= 2;
	if (g->cps < rows)
		g->cps = SHARD_UNIT * padme((rows + SHARD_UNIT - 1) / SHARD_UNIT);
	g->cps = HF_MIN(g->cps, seg_cps_max(k));
}

void seg_locate(const struct seg_geom *g, uint32_t cell, unsigned *shard, uint32_t *row,
		uint64_t *blob_off)
{
	*shard = cell / g->cps;
	*row = cell % g->cps;
	*blob_off = SHARD_HEADER + (uint64_t)*row * seg_stride(g);
}

/* --- cells --- */

static void cell_nonce(const struct seg_id *id, uint32_t cell, uint8_t nonce[NONCE_LEN])
{
	memcpy(nonce, id->b, SEG_LEN);
	put_le64(nonce + SEG_LEN, cell);
}

void cell_seal(const uint8_t sk[KEY_LEN], const struct seg_id *id, uint32_t cell,
	       unsigned cell_log2, const uint8_t *plain, uint8_t *stored)
{
	size_t len = (size_t)1 << cell_log2;
	uint8_t nonce[NONCE_LEN];

	cell_nonce(id, cell, nonce);
	crypto_aead_xchacha20poly1305_ietf_encrypt_detached(stored, stored + len, NULL, plain,
							    len, NULL, 0, NULL, nonce, sk);
}

void cell_tag(const uint8_t tk[KEY_LEN], unsigned shard, uint32_t row, unsigned cell_log2,
	      const uint8_t *stored, uint8_t tag[CELL_TAG_LEN])
{
	static const uint8_t personal[crypto_generichash_blake2b_PERSONALBYTES] = "tag";
	uint8_t in[8], key[crypto_onetimeauth_KEYBYTES];

	put_le32(in, shard);
	put_le32(in + 4, row);
	crypto_generichash_blake2b_salt_personal(key, sizeof key, in, sizeof in, tk, KEY_LEN,
						 NULL, personal);
	crypto_onetimeauth(tag, stored, ((size_t)1 << cell_log2) + CELL_TAG_LEN, key);
	sodium_memzero(key, sizeof key);
}

/* --- reading --- */

int seg_reader_init(struct seg_reader *r, const struct keys *k, const struct seg_geom *g)
{
	r->g = *g;
	int err = seg_geom_check(g);
	if (err) {
		memset(r, 0, sizeof *r);
		return err;
	}
	keys_segment(k, &g->id, r->sk, r->tk);
	return 0;
}

void seg_reader_release(struct seg_reader *r)
{
	sodium_memzero(r, sizeof *r);
}

int seg_check(const struct seg_reader *r, unsigned shard, uint32_t row, const uint8_t *stored)
{
	uint8_t tag[CELL_TAG_LEN];

	if (shard >= (unsigned)r->g.k + r->g.m || row >= r->g.cps)
		return -EBADMSG;
	cell_tag(r->tk, shard, row, r->g.cell_log2, stored, tag);
	if (sodium_memcmp(tag, stored + seg_cell(&r->g) + CELL_TAG_LEN, CELL_TAG_LEN))
		return -EBADMSG;
	return 0;
}

int seg_open(const struct seg_reader *r, uint32_t cell, const uint8_t *stored, uint8_t *plain)
{
	uint8_t nonce[NONCE_LEN];
	size_t len = seg_cell(&r->g);

	if (cell >= r->g.k * r->g.cps)
		return -EBADMSG;
	cell_nonce(&r->g.id, cell, nonce);
	if (crypto_aead_xchacha20poly1305_ietf_decrypt_detached(
		    plain, NULL, stored, len, stored + len, NULL, 0, nonce, r->sk))
		return -EBADMSG;
	return 0;
}

int seg_rebuild(const struct seg_reader *r, uint32_t row0, uint32_t rows,
		uint8_t *const stored[], const bool have[])
{
	const struct seg_geom *g = &r->g;
	size_t stride = seg_stride(g);
	struct ec *ec;

	if (row0 > g->cps || rows > g->cps - row0)
		return -EINVAL;
	int err = ec_new(&ec, g->k, g->m);
	if (err)
		return err;
	/* All rows at once: what that makes of the shard tags in between is written over. */
	err = ec_repair(ec, stored, have, rows * stride);
	ec_free(ec);
	if (err)
		return err;
	for (unsigned i = 0; i < (unsigned)g->k + g->m; i++) {
		if (have[i] || !stored[i])
			continue;
		for (uint32_t row = 0; row < rows; row++) {
			uint8_t *cell = stored[i] + row * stride;
			cell_tag(r->tk, i, row0 + row, g->cell_log2, cell,
				 cell + seg_cell(g) + CELL_TAG_LEN);
		}
	}
	return 0;
}

/* --- shard headers --- */

/* What is not secret, and then the volume: the additional data of the sealed part. */
static void shard_aad(const struct keys *k, uint8_t aad[SHARD_CLEAR + VOL_LEN])
{
	memset(aad, 0, SHARD_CLEAR);
	memcpy(aad, SHARD_MAGIC, 8);
	put_le16(aad + 8, SHARD_VERSION);
	memcpy(aad + SHARD_CLEAR, keys_vol(k), VOL_LEN);
}

int seg_shard_header(const struct keys *k, const struct seg_geom *g, unsigned shard,
		     uint8_t out[SHARD_HEADER])
{
	uint8_t aad[SHARD_CLEAR + VOL_LEN], in[SHARD_SEALED] = {0};
	struct buf b = {0};

	if (seg_geom_check(g) || shard >= (unsigned)g->k + g->m)
		return -EINVAL;
	memcpy(in, g->id.b, SEG_LEN);
	in[16] = (uint8_t)shard;
	in[17] = g->k;
	in[18] = g->m;
	in[19] = g->cell_log2;
	put_le32(in + 20, g->cps);
	put_le32(in + 24, g->len);
	shard_aad(k, aad);
	int err = keys_box(k, KP_SHARD_HEADER, aad, sizeof aad, in, sizeof in, &b);
	if (!err) {
		memcpy(out, aad, SHARD_CLEAR);
		memcpy(out + SHARD_CLEAR, b.p, b.len);
	}
	buf_release(&b);
	return err;
}

int seg_shard_header_open(const struct keys *k, const uint8_t in[SHARD_HEADER],
			  struct seg_geom *g, unsigned *shard)
{
	uint8_t aad[SHARD_CLEAR + VOL_LEN];
	struct buf b = {0};

	if (memcmp(in, SHARD_MAGIC, 8) != 0 || get_le16(in + 8) == 0)
		return -EBADMSG;
	if (get_le16(in + 8) > SHARD_VERSION)
		return -ENOTSUP;
	shard_aad(k, aad);
	if (memcmp(in, aad, SHARD_CLEAR) != 0)
		return -EBADMSG;
	int err = keys_unbox(k, KP_SHARD_HEADER, aad, sizeof aad, in + SHARD_CLEAR,
			     SHARD_HEADER - SHARD_CLEAR, &b);
	if (!err) {
		struct rd r = rd_over(b.p, b.len);
		memcpy(g->id.b, rd_bytes(&r, SEG_LEN), SEG_LEN);
		*shard = rd_u8(&r);
		g->k = rd_u8(&r);
		g->m = rd_u8(&r);
		g->cell_log2 = rd_u8(&r);
		g->cps = rd_u32(&r);
		g->len = rd_u32(&r);
		while (rd_left(&r))
			if (rd_u8(&r))
				err = -EBADMSG;
		if (!err)
			err = seg_geom_check(g);
		if (!err && *shard >= (unsigned)g->k + g->m)
			err = -EBADMSG;
	}
	buf_release(&b);
	return err;
}
