/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The first byte says whether the rest is plain records or a compressed stream of them. */
#include <stdlib.h>
#include "net/record.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t len);

static volatile uint64_t sink;

static void content(const struct rec_content *c)
{
	uint64_t end = 0;

	for (uint32_t i = 0; i < c->drop_cnt; i++)
		sink += rec_content_drop(c, i).off;
	for (uint32_t i = 0; i < c->extent_cnt; i++) {
		struct rec_extent e = rec_content_extent(c, i);
		if (e.off < end || !e.len || e.seg_off + (uint64_t)e.len > SEG_MAX_LEN)
			abort();
		end = e.off + e.len;
	}
}

static int records(void *arg, struct rd *r)
{
	struct record rec;
	int got;

	(void)arg;
	while ((got = rec_next(r, &rec)) == 1) {
		if (rec.type == REC_CONTENT)
			content(&rec.content);
		if (rec.type == REC_INODE) {
			struct rd x = rd_over(rec.inode.xattrs, rec.inode.xattrs_len);
			const uint8_t *name, *value;
			uint8_t name_len;
			uint32_t value_len, cnt = 0;
			while (rec_xattr_next(&x, &name, &name_len, &value, &value_len) == 1)
				sink += name[name_len - 1] +
					(value_len ? value[value_len - 1] : 0) + !!++cnt;
			if (cnt != rec.inode.xattr_cnt)
				abort();
		}
		if ((rec.type == REC_LINK || rec.type == REC_UNLINK) &&
		    memchr(rec.link.name, '/', rec.link.name_len))
			abort();
	}
	return got;
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
	struct rec_reader *rr;

	if (!len)
		return 0;
	if (p[0] & 1) {
		struct rd r = rd_over(p + 1, len - 1);
		records(NULL, &r);
		return 0;
	}
	if (rec_reader_new(&rr, 1u << 20, records, NULL))
		return 0;
	/* In two pieces, at a place that the input chooses. */
	size_t cut = len - 1 ? p[0] % len : 0;
	if (!rec_reader_feed(rr, p + 1, HF_MIN(cut, len - 1)))
		if (!rec_reader_feed(rr, p + 1 + HF_MIN(cut, len - 1),
				     len - 1 - HF_MIN(cut, len - 1)))
			rec_reader_end(rr);
	rec_reader_free(rr);
	return 0;
}
