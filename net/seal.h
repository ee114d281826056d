/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * seal: the inside of segment: one cell sealed, one stored cell tagged, the geometry of a
 * length.  Pure functions of their input, any thread.
 */
#ifndef HOLDFAST_NET_SEAL_H
#define HOLDFAST_NET_SEAL_H

#include "net/segment.h"

#define CELL_TAG_LEN 16 /* of the AEAD, and of the shard tag */

/*
 * The layout a writer chooses for `len` bytes over k shards.  Shards have 4, 8, 16, 32 or
 * 64 KiB and beyond that a multiple of 64 KiB by Padmé (Nikitin et al., PETS 2019), capped so
 * that a full segment wastes nothing.
 */
void seg_geom_choose(struct seg_geom *g, unsigned k, unsigned m, uint32_t len);

/* Cells per shard of the longest segment. */
static inline uint32_t seg_cps_max(unsigned k)
{
	return (SEG_MAX_LEN / CELL_SIZE + k - 1) / k;
}

/* Seals 2^cell_log2 bytes at plain to the ciphertext and AEAD tag at stored; may be equal. */
void cell_seal(const uint8_t sk[KEY_LEN], const struct seg_id *id, uint32_t cell,
	       unsigned cell_log2, const uint8_t *plain, uint8_t *stored);

/* Computes the shard tag of what is stored (cell bytes and AEAD tag). */
void cell_tag(const uint8_t tk[KEY_LEN], unsigned shard, uint32_t row, unsigned cell_log2,
	      const uint8_t *stored, uint8_t tag[CELL_TAG_LEN]);

#endif
