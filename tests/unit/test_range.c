/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * range against a model: flags of intervals between a few hundred chosen offsets, around
 * chunk edges, in the first chunks, and as far as 2^64.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <time.h>
#include <cmocka.h>
#include "cache/range.h"

#define POINTS 400
#define ROWS   4096

static uint64_t seed;
static uint64_t rnd(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed * 0x2545f4914f6cdd1d;
}

static int cmp(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
	return x < y ? -1 : x > y;
}

/* The rows of table `span`. */
static struct row {
	uint64_t chunk;
	uint8_t *p;
	size_t len;
} row[ROWS];
static size_t rows;

static int store(void *arg, uint64_t chunk, const struct buf *map)
{
	size_t i = 0;

	(void)arg;
	while (i < rows && row[i].chunk < chunk)
		i++;
	if (i < rows && row[i].chunk == chunk) {
		free(row[i].p);
		memmove(&row[i], &row[i + 1], (rows - i - 1) * sizeof row[0]);
		rows--;
	}
	if (!map->len)
		return 0;
	assert_true(rows < ROWS);
	assert_int_equal(ranges_decode_check(map->p, map->len), 0);
	memmove(&row[i + 1], &row[i], (rows - i) * sizeof row[0]);
	row[i] = (struct row){chunk, malloc(map->len), map->len};
	memcpy(row[i].p, map->p, map->len);
	rows++;
	return 0;
}

static struct ranges *reload(struct ranges *r)
{
	ranges_free(r);
	assert_int_equal(ranges_new(&r), 0);
	for (size_t i = 0; i < rows; i++)
		assert_int_equal(ranges_add(r, row[i].chunk, row[i].p, row[i].len), 0);
	return r;
}

static void rows_free(void)
{
	while (rows)
		free(row[--rows].p);
}

static void check(struct ranges *r, const uint64_t *pt, const unsigned *model, size_t n)
{
	uint64_t total[5] = {0};

	for (size_t i = 0; i + 1 < n;) {
		size_t j = i + 1;
		unsigned flags;
		uint64_t end;

		while (j + 1 < n && model[j] == model[i])
			j++;
		assert_int_equal(ranges_at(r, pt[i], pt[n - 1], &flags, &end), 0);
		assert_int_equal(flags, model[i]);
		assert_true(end == pt[j]);
		for (unsigned b = 0; b < 5; b++)
			if (flags >> b & 1)
				total[b] += pt[j] - pt[i];
		i = j;
	}
	for (unsigned b = 0; b < 5; b++)
		assert_true(ranges_total(r, 1u << b) == total[b]);
}

static void random_ops(void **state)
{
	(void)state;
	for (int round = 0; round < 60; round++) {
		static uint64_t pt[POINTS];
		static unsigned model[POINTS];
		size_t n = 0;
		struct ranges *r;

		for (int i = 0; i < POINTS; i++) {
			uint64_t x = rnd() % 100;
			if (x < 50)
				pt[i] = rnd() % (3 * RANGE_CHUNK);
			else if (x < 80)
				pt[i] = (rnd() % 20) * RANGE_CHUNK + rnd() % 3 - (rnd() % 2);
			else if (x < 90)
				pt[i] = (rnd() % 1000) * RANGE_CHUNK;
			else
				pt[i] = rnd() >> (rnd() % 30);
		}
		pt[0] = 0;
		pt[1] = UINT64_MAX;
		qsort(pt, POINTS, sizeof pt[0], cmp);
		for (size_t i = 0; i < POINTS; i++)
			if (!n || pt[i] != pt[n - 1])
				pt[n++] = pt[i];
		memset(model, 0, sizeof model);
		rows_free();
		assert_int_equal(ranges_new(&r), 0);
		for (int op = 0; op < 400; op++) {
			size_t a = rnd() % (n - 1), b = a + 1 + rnd() % (op % 3 ? 6 : n);
			unsigned set, clear;
			static const unsigned kinds[][2] = {
				{RG_HAVE | RG_DIRTY, RG_ALL},
				{RG_META, RG_ALL},
				{0, RG_ALL},
				{RG_HAVE, 0},
				{0, RG_HAVE | RG_DIRTY | RG_CUT},
				{RG_META, 0},
				{RG_HAVE | RG_CUT, RG_DIRTY},
			};

			b = HF_MIN(b, n - 1);
			set = kinds[rnd() % 7][0];
			clear = kinds[rnd() % 7][1];
			assert_int_equal(ranges_set(r, pt[a], pt[b] - pt[a], set, clear), 0);
			for (size_t i = a; i < b; i++)
				model[i] = (model[i] & ~clear) | set;
			if (op % 20 == 0)
				check(r, pt, model, n);
			if (op % 50 != 49)
				continue;
			/* Storing normalizes: what CUT and DIRTY without HAVE would be refused.
			 */
			for (size_t i = 0; i + 1 < n; i++) {
				if (!(model[i] & RG_HAVE) && (model[i] & (RG_DIRTY | RG_CUT))) {
					model[i] &= ~(RG_DIRTY | RG_CUT);
					ranges_set(r, pt[i], pt[i + 1] - pt[i], 0,
						   RG_DIRTY | RG_CUT);
				}
			}
			check(r, pt, model, n);
			assert_int_equal(ranges_store(r, store, NULL), 0);
			assert_false(ranges_dirty(r));
			r = reload(r);
			for (size_t i = 0; i + 1 < n; i++) {
				if (model[i] & RG_CUT)
					model[i] = (model[i] & ~RG_CUT) | RG_DIRTY;
				if (model[i] & RG_CMETA)
					model[i] = (model[i] & ~RG_CMETA) | RG_META;
			}
			check(r, pt, model, n);
		}
		for (int i = 0; i < 200; i++) {
			size_t a = rnd() % (n - 1), k = a;
			unsigned mask = 1u << rnd() % 5, flags;
			uint64_t start, end;

			while (k + 1 < n && !(model[k] & mask))
				k++;
			int found =
				ranges_next(r, pt[a], UINT64_MAX, mask, &start, &end, &flags);
			assert_int_equal(found, k + 1 < n);
			if (found) {
				assert_true(start == pt[k]);
				assert_int_equal(flags, model[k]);
			}
		}
		ranges_free(r);
	}
	rows_free();
}

/* A huge hole with a few writes costs a few rows, whatever its size. */
static void huge(void **state)
{
	struct ranges *r;
	uint64_t start, end;
	unsigned flags;

	(void)state;
	assert_int_equal(ranges_new(&r), 0);
	assert_int_equal(ranges_set(r, 4096, (1ull << 62) - 4096, RG_META, 0), 0);
	for (uint64_t i = 0; i < 4; i++)
		assert_int_equal(ranges_set(r, i << 40, 4096, RG_HAVE | RG_DIRTY, RG_META), 0);
	assert_int_equal(ranges_store(r, store, NULL), 0);
	assert_true(rows <= 9);
	assert_int_equal(ranges_next(r, 4096, 1ull << 62, RG_HAVE, &start, &end, &flags), 1);
	assert_true(start == 1ull << 40 && end == start + 4096);
	assert_int_equal(ranges_set(r, 0, 1ull << 62, RG_HAVE, RG_ALL), 0);
	assert_int_equal(ranges_store(r, store, NULL), 0);
	assert_int_equal(rows, 1);
	assert_int_equal(ranges_set(r, 0, UINT64_MAX, 0, RG_ALL), 0);
	assert_int_equal(ranges_store(r, store, NULL), 0);
	assert_int_equal(rows, 0);
	ranges_free(r);
}

static void fragmented(void **state)
{
	struct ranges *r;
	struct timespec a, b;
	unsigned n = 200000;

	(void)state;
	assert_int_equal(ranges_new(&r), 0);
	clock_gettime(CLOCK_MONOTONIC, &a);
	for (unsigned i = 0; i < n; i++)
		assert_int_equal(ranges_set(r, (rnd() % (1u << 18)) << 12, 4096,
					    RG_HAVE | RG_DIRTY, RG_ALL),
				 0);
	clock_gettime(CLOCK_MONOTONIC, &b);
	double s = (double)(b.tv_sec - a.tv_sec) + (double)(b.tv_nsec - a.tv_nsec) / 1e9;
	print_message("%.2f us for a random 4 KiB range of 1 GiB\n", s / n * 1e6);
	ranges_free(r);
}

static void bad_maps(void **state)
{
	static const struct {
		const char *p;
		size_t len;
	} bad[] = {
		{"", 0},
		{"\0", 1},
		{"\3", 1},
		{"\1", 1},
		{"\2", 1},
		{"\2\0\1", 3},
		{"\2\1\0", 3},		       /* no flags */
		{"\2\1\2", 3},		       /* dirty but not here */
		{"\2\1\x08", 3},	       /* unknown flag */
		{"\2\1\1\0", 4},	       /* trailing */
		{"\2\x81\0\1", 4},	       /* long form */
		{"\1\0\0\1", 4},	       /* empty span */
		{"\1\0\5\1\0\5\1", 7},	       /* alike and adjacent */
		{"\1\0\x80\x80\x80\x20\1", 7}, /* a whole chunk: a run */
		{"\1\1\x80\x80\x80\x20\1", 7}, /* beyond the chunk */
		{"\1\0\5", 3},
	};

	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
		assert_int_equal(ranges_decode_check(bad[i].p, bad[i].len), -EBADMSG);
	assert_int_equal(ranges_decode_check("\1\0\5\1\0\5\3", 7), 0);
	assert_int_equal(ranges_decode_check("\2\1\1", 3), 0);
	/* Random bytes are decoded or refused; what is accepted may be entered. */
	for (int i = 0; i < 100000; i++) {
		uint8_t p[16];
		size_t len = rnd() % 16;
		struct ranges *r;

		for (size_t k = 0; k < len; k++)
			p[k] = (uint8_t)(rnd() >> 20 & (i & 1 ? 7 : 255));
		int err = ranges_decode_check(p, len);
		assert_int_equal(ranges_new(&r), 0);
		assert_int_equal(ranges_add(r, 5, p, len), err);
		assert_true(ranges_add(r, 0, p, len) != 0 || err);
		ranges_free(r);
	}
}

/* Memory follows the pieces, not the bytes, and is given back. */
static void memory(void **state)
{
	struct ranges *r;

	(void)state;
	assert_int_equal(ranges_new(&r), 0);
	assert_int_equal(ranges_set(r, 0, (uint64_t)4 << 40, RG_META, 0), 0);
	assert_true(ranges_memory(r) < 4096);
	for (uint64_t i = 0; i < 10000; i++)
		assert_int_equal(ranges_set(r, i * 8192, 4096, RG_HAVE | RG_DIRTY, 0), 0);
	size_t most = ranges_memory(r);
	assert_true(most > 10000 * 12 && most < 10000 * 64);
	assert_int_equal(ranges_set(r, 0, (uint64_t)1 << 40, 0, RG_HAVE | RG_DIRTY), 0);
	assert_true(ranges_memory(r) < most / 10);
	ranges_free(r);
}

int main(void)
{
	const char *s = getenv("SEED");
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(memory), cmocka_unit_test(random_ops),
		cmocka_unit_test(huge),
		cmocka_unit_test(fragmented),
		cmocka_unit_test(bad_maps),
	};

	seed = s ? strtoull(s, NULL, 0) : (uint64_t)time(NULL) * 2654435761u | 1;
	print_message("SEED=%llu\n", (unsigned long long)seed);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
