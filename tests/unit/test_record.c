/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <sys/stat.h>
#include "net/record.h"

static const struct rec_stamp stamp = {7, 3};

static void put_one_of_each(struct buf *b)
{
	static const uint8_t xattrs[] = "\6user.a\3\0\0\0xyz\4trus\0\0\0";
	struct rec_inode ino = {.ino = 5,
				.parent = 1,
				.mode = S_IFDIR | 0755,
				.nlink = 2,
				.size = 4096,
				.mtime_ns = -5,
				.xattr_cnt = 2,
				.xattrs = xattrs,
				.xattrs_len = sizeof xattrs};
	struct rec_inode ln = {.ino = 6,
			       .mode = S_IFLNK | 0777,
			       .nlink = 1,
			       .target = (const uint8_t *)"a/b",
			       .target_len = 3};
	struct rec_link link = {.lid = 9,
				.parent = 1,
				.ino = 5,
				.mode = S_IFDIR,
				.name = (const uint8_t *)"d",
				.name_len = 1};
	struct rec_range drop = {0, UINT64_MAX};
	struct rec_extent ext[2] = {{0, 10, 0, 5}, {10, 20, 1, 0}};
	struct seg_place place = {
		.geom = {.k = 4, .m = 2, .cell_log2 = 12, .cps = 1, .len = 9000}};
	struct rec_inline inl = {.data = (const uint8_t *)"hello", .len = 5};
	struct rec_node node = {
		.number = 2, .member = 1, .url = (const uint8_t *)"dir:/a", .url_len = 6};
	struct rec_device dev = {.number = 3, .role = 1};

	for (unsigned i = 0; i < EC_MAX; i++)
		place.node[i] = (uint16_t)(i < 6 ? i + 1 : NODE_NONE);
	rec_put_inode(b, stamp, &ino);
	rec_put_inode(b, stamp, &ln);
	rec_put_gone(b, stamp, 8);
	rec_put_link(b, stamp, &link);
	rec_put_unlink(b, stamp, &link);
	rec_put_segment(b, stamp, &place);
	rec_put_inline(b, stamp, &inl);
	rec_put_content(b, stamp, 6, 30, &drop, 1, ext, 2);
	rec_put_node(b, stamp, &node);
	rec_put_device(b, stamp, &dev);
	assert_int_equal(b->err, 0);
}

static void test_round_trip(void **state)
{
	static const enum rec_type want[] = {
		REC_INODE,   REC_INODE,	 REC_INODE_GONE, REC_LINK, REC_UNLINK,
		REC_SEGMENT, REC_INLINE, REC_CONTENT,	 REC_NODE, REC_DEVICE};
	struct buf b = {0};
	struct record r;

	(void)state;
	put_one_of_each(&b);
	struct rd rd = rd_over(b.p, b.len);
	for (size_t i = 0; i < sizeof want / sizeof want[0]; i++) {
		assert_int_equal(rec_next(&rd, &r), 1);
		assert_int_equal(r.type, want[i]);
		assert_int_equal(r.stamp.lamport, 7);
		assert_int_equal(r.stamp.device, 3);
		if (i == 0)
			assert_int_equal(r.inode.mtime_ns, -5);
		if (r.type == REC_CONTENT) {
			assert_int_equal(rec_content_drop(&r.content, 0).len, UINT64_MAX);
			assert_int_equal(rec_content_extent(&r.content, 1).off, 10);
		}
		if (r.type == REC_SEGMENT)
			assert_int_equal(r.segment.node[5], 6);
	}
	assert_int_equal(rec_next(&rd, &r), 0);
	buf_release(&b);
}

/* Every cut, and every changed byte, is a clean end, a record or an error; never a crash. */
static void test_damage(void **state)
{
	struct buf b = {0};
	struct record r;

	(void)state;
	put_one_of_each(&b);
	for (size_t len = 0; len < b.len; len++) {
		uint8_t *copy = malloc(len + 1); /* its end is watched by the sanitizer */
		memcpy(copy, b.p, len);
		struct rd rd = rd_over(copy, len);
		while (rec_next(&rd, &r) == 1)
			;
		free(copy);
	}
	for (size_t i = 0; i < b.len; i++) {
		for (int v = 0; v < 256; v += 51) {
			uint8_t old = b.p[i];
			b.p[i] = (uint8_t)(old ^ (v | 1));
			struct rd rd = rd_over(b.p, b.len);
			while (rec_next(&rd, &r) == 1)
				;
			b.p[i] = old;
		}
	}
	buf_release(&b);
}

static void refused(struct buf *b)
{
	assert_int_equal(b->err, -EINVAL);
	assert_int_equal(b->len, 0);
	buf_reset(b);
}

static void test_rules(void **state)
{
	static const char *const bad[] = {"", ".", "..", "a/b"};
	struct buf b = {0};
	struct record r;

	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		struct rec_link link = {.lid = 9,
					.parent = 1,
					.ino = 5,
					.mode = S_IFREG,
					.name = (const uint8_t *)bad[i],
					.name_len = (uint8_t)strlen(bad[i])};
		rec_put_link(&b, stamp, &link);
		refused(&b);
	}
	struct rec_link nul = {.lid = 9,
			       .parent = 1,
			       .ino = 5,
			       .mode = S_IFREG,
			       .name = (const uint8_t *)"a\0b",
			       .name_len = 3};
	rec_put_link(&b, stamp, &nul);
	refused(&b);
	nul.name_len = 1;
	nul.mode |= 0644;
	rec_put_link(&b, stamp, &nul);
	refused(&b);

	struct rec_extent over[2] = {{0, 10, 0, 0}, {5, 10, 0, 10}};
	rec_put_content(&b, stamp, 6, 30, NULL, 0, over, 2);
	refused(&b);
	struct rec_extent far = {0, 10, 0, SEG_MAX_LEN - 5};
	rec_put_content(&b, stamp, 6, 30, NULL, 0, &far, 1);
	refused(&b);
	rec_put_content(&b, stamp, 6, (uint64_t)1 << 62, NULL, 0, NULL, 0);
	refused(&b);
	struct rec_range wild = {5, (uint64_t)1 << 62};
	rec_put_content(&b, stamp, 6, 1, &wild, 1, NULL, 0);
	refused(&b);

	struct rec_inode ino = {.ino = 5,
				.mode = S_IFREG | 0644,
				.target = (const uint8_t *)"x",
				.target_len = 1};
	rec_put_inode(&b, stamp, &ino);
	refused(&b);
	ino.target_len = 0;
	ino.xattr_cnt = 1;
	rec_put_inode(&b, stamp, &ino);
	refused(&b);

	rec_put_gone(&b, stamp, 8);
	b.p[1] = 1; /* an unknown flag */
	struct rd rd = rd_over(b.p, b.len);
	assert_int_equal(rec_next(&rd, &r), -EBADMSG);
	b.p[1] = 0;
	b.p[0] = 77; /* an unknown type */
	rd = rd_over(b.p, b.len);
	assert_int_equal(rec_next(&rd, &r), -EBADMSG);
	buf_release(&b);
}

struct sum {
	uint64_t cnt, next;
};

static int count(void *arg, struct rd *r)
{
	struct sum *s = arg;
	struct record rec;
	int got;

	while ((got = rec_next(r, &rec)) == 1) {
		if (rec.type == REC_INODE_GONE)
			assert_int_equal(rec.gone_ino, ++s->next);
		s->cnt++;
	}
	return got;
}

/* Random inline data makes the compressed stream long enough for the temporary file. */
static void stream(unsigned rounds, size_t inline_len, bool file)
{
	struct rec_writer *w;
	struct rec_reader *rr;
	struct buf b = {0};
	struct sum s = {0};
	uint64_t z_len, again, ino = 0;
	uint32_t rnd = 1;

	assert_int_equal(rec_writer_new(&w, "/tmp"), 0);
	uint8_t *data = malloc(inline_len + 1);
	for (unsigned i = 0; i < rounds; i++) {
		rec_put_gone(&b, stamp, ++ino);
		for (size_t j = 0; j < inline_len; j++)
			data[j] = (uint8_t)((rnd = rnd * 1664525 + 1013904223) >> 24);
		struct rec_inline inl = {.data = data, .len = (uint32_t)inline_len};
		if (inline_len)
			rec_put_inline(&b, stamp, &inl);
		assert_int_equal(rec_writer_add(w, &b), 0);
	}
	assert_int_equal(rec_writer_finish(w, &z_len), 0);
	assert_int_equal(rec_writer_finish(w, &again), 0);
	assert_int_equal(z_len, again);
	assert_true(!file || z_len > (4u << 20));

	uint8_t *z = malloc((size_t)z_len);
	assert_int_equal(rec_writer_read(w, 0, z, (size_t)z_len), 0);
	assert_int_equal(rec_writer_read(w, 1, z, (size_t)z_len), -EINVAL);
	assert_int_equal(rec_reader_new(&rr, rec_writer_raw_len(w), count, &s), 0);
	for (size_t at = 0; at < z_len;) {
		size_t len = HF_MIN((size_t)z_len - at, 1 + at * 7 % 70001);
		assert_int_equal(rec_reader_feed(rr, z + at, len), 0);
		at += len;
	}
	assert_int_equal(rec_reader_end(rr), 0);
	assert_int_equal(s.cnt, inline_len ? 2 * rounds : rounds);
	assert_int_equal(rec_reader_feed(rr, z, 1), -EBADMSG);
	rec_reader_free(rr);

	/* Longer than it said; shorter than it said; a changed byte. */
	s = (struct sum){0};
	assert_int_equal(rec_reader_new(&rr, rec_writer_raw_len(w) - 1, count, &s), 0);
	assert_int_equal(rec_reader_feed(rr, z, (size_t)z_len), -EBADMSG);
	rec_reader_free(rr);
	s = (struct sum){0};
	assert_int_equal(rec_reader_new(&rr, rec_writer_raw_len(w), count, &s), 0);
	assert_int_equal(rec_reader_feed(rr, z, (size_t)z_len - 1), 0);
	assert_int_equal(rec_reader_end(rr), -EBADMSG);
	rec_reader_free(rr);
	free(z);
	free(data);
	buf_release(&b);
	rec_writer_free(w);
}

static void test_stream_small(void **state)
{
	(void)state;
	stream(3, 0, false);
	stream(2000, 0, false);
}

static void test_stream_file(void **state)
{
	(void)state;
	stream(3, 3u << 20, true);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),  cmocka_unit_test(test_damage),
		cmocka_unit_test(test_rules),	    cmocka_unit_test(test_stream_small),
		cmocka_unit_test(test_stream_file),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
