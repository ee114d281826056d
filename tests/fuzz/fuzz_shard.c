/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * A shard blob as a node hands it over: the header is opened, then each stored cell of it is
 * checked and opened.  Once as it came, and once with a header that says what its first bytes
 * say but is genuine, so that what lies behind the seal is reached.
 */
#include <sodium.h>
#include <stdlib.h>
#include "net/segment.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t len);

static bool same_geom(const struct seg_geom *a, const struct seg_geom *b)
{
	return memcmp(a->id.b, b->id.b, SEG_LEN) == 0 && a->k == b->k && a->m == b->m &&
	       a->cell_log2 == b->cell_log2 && a->cps == b->cps && a->len == b->len;
}

static void cells(const struct keys *k, const struct seg_geom *g, unsigned shard,
		  const uint8_t *p, size_t len)
{
	struct seg_reader r;

	if (seg_reader_init(&r, k, g))
		return;
	uint8_t *plain = malloc(seg_cell(g));
	for (uint32_t row = 0; plain && row < g->cps && seg_stride(g) <= len; row++) {
		unsigned at_shard;
		uint32_t at_row;
		uint64_t off;

		seg_check(&r, shard, row, p);
		if (shard < g->k) {
			uint32_t c = shard * g->cps + row;
			seg_locate(g, c, &at_shard, &at_row, &off);
			if (at_shard != shard || at_row != row || off >= seg_shard_len(g))
				abort();
			seg_open(&r, c, p, plain);
		}
		p += seg_stride(g);
		len -= seg_stride(g);
	}
	free(plain);
	seg_reader_release(&r);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
	static const uint8_t vol[VOL_LEN] = "volume 0123456";
	static const uint8_t vk[KEY_LEN] = "the volume key of the golden one";
	static struct keys *k;
	uint8_t genuine[SHARD_HEADER];
	struct seg_geom g, got;
	unsigned shard;

	if (!k && (sodium_init() < 0 || keys_adopt(&k, vol, 1, vk)))
		abort();
	if (len < SHARD_HEADER)
		return 0;
	if (seg_shard_header_open(k, p, &g, &shard) == 0)
		cells(k, &g, shard, p + SHARD_HEADER, len - SHARD_HEADER);

	/* The same fields, unsealed, where the sealed part begins. */
	memset(&g, 0, sizeof g);
	memcpy(g.id.b, p + 16, SEG_LEN);
	shard = p[32];
	g.k = p[33];
	g.m = p[34];
	g.cell_log2 = p[35];
	g.cps = get_le32(p + 36);
	g.len = get_le32(p + 40);
	if (seg_shard_header(k, &g, shard, genuine) == 0) {
		unsigned got_shard;
		if (seg_shard_header_open(k, genuine, &got, &got_shard) || got_shard != shard ||
		    !same_geom(&g, &got))
			abort();
		cells(k, &g, shard, p + SHARD_HEADER, len - SHARD_HEADER);
	}
	return 0;
}
