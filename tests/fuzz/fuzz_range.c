/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Rows of stored maps: the number of the first chunk (8 bytes), then for each row how many
 * chunks further it lies (1 byte), its length (1 byte) and the map.  What is accepted is in
 * order, is counted right, and is written again as the same bytes.
 */
#include <stdlib.h>
#include "cache/range.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t len);

struct row {
	uint64_t chunk;
	const uint8_t *p;
	size_t len;
	bool seen;
};

static int same(void *arg, uint64_t chunk, const struct buf *map)
{
	struct row *row = arg;

	if (row->seen || chunk != row->chunk || map->len != row->len ||
	    memcmp(map->p, row->p, map->len) != 0)
		abort();
	row->seen = true;
	return 0;
}

/* The spans of r, checked against its totals; entered into `copy` where there is one. */
static void walk(struct ranges *r, struct ranges *copy)
{
	uint64_t total[3] = {0}, at = 0, start, end;
	unsigned flags;

	while (ranges_next(r, at, UINT64_MAX, RG_ALL, &start, &end, &flags)) {
		if (start < at || end <= start || !flags ||
		    (flags & ~(RG_HAVE | RG_DIRTY | RG_META)) ||
		    ((flags & RG_DIRTY) && !(flags & RG_HAVE)))
			abort();
		for (unsigned i = 0; i < 3; i++)
			total[i] += flags >> i & 1 ? end - start : 0;
		if (copy && ranges_set(copy, start, end - start, flags, 0))
			abort();
		at = end;
	}
	for (unsigned i = 0; i < 3; i++)
		if (ranges_total(r, 1u << i) != total[i])
			abort();
}

/* A map that is accepted is the one way to write it. */
static void again(const struct row *row)
{
	struct ranges *r, *copy;
	struct row want = *row;

	if (ranges_new(&r) || ranges_new(&copy) || ranges_add(r, row->chunk, row->p, row->len))
		abort();
	walk(r, copy);
	if (ranges_store(copy, same, &want) || !want.seen)
		abort();
	ranges_free(copy);
	ranges_free(r);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
	struct rd in = rd_over(p, len);
	struct ranges *r;

	if (ranges_new(&r))
		return 0;
	uint64_t chunk = rd_u64(&in);
	while (rd_left(&in)) {
		struct row row = {0};

		chunk += rd_u8(&in);
		row.chunk = chunk;
		row.len = rd_u8(&in);
		row.p = rd_bytes(&in, row.len);
		if (in.bad)
			break;
		int err = ranges_decode_check(row.p, row.len);
		if (ranges_add(r, row.chunk, row.p, row.len) == 0) {
			if (err)
				abort();
			again(&row);
		}
	}
	walk(r, NULL);
	/* Everything as it would be after a change of everything. */
	uint64_t off = p && len > 3 ? get_le32(p + len - 4) : 0;
	if (ranges_set(r, off, UINT64_MAX - off, RG_HAVE | RG_DIRTY, 0) == 0 &&
	    (ranges_total(r, RG_DIRTY) < UINT64_MAX - off ||
	     ranges_set(r, 0, UINT64_MAX, 0, RG_ALL) || ranges_total(r, RG_HAVE)))
		abort();
	ranges_free(r);
	return 0;
}
