/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <setjmp.h>
#include <stdlib.h>
#include <time.h>
#include "net/ec.h"
#include <cmocka.h>

static uint64_t rng = 1;

static uint32_t rnd(void)
{
	rng = rng * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)(rng >> 33);
}

#define LEN 67 /* odd, and above ISA-L's vector width */

struct set {
	unsigned n;
	uint8_t good[EC_MAX][LEN], work[EC_MAX][LEN];
	uint8_t *ptr[EC_MAX];
};

static void set_up(struct set *s, struct ec *ec, unsigned k, unsigned m)
{
	s->n = k + m;
	for (unsigned i = 0; i < s->n; i++) {
		for (unsigned j = 0; j < LEN; j++)
			s->good[i][j] = (uint8_t)rnd();
		s->ptr[i] = s->good[i];
	}
	ec_encode(ec, s->ptr, s->ptr + k, LEN);
}

/* Repairs from the survivors in the mask; the answer must be right for each. */
static void try_mask(struct set *s, struct ec *ec, unsigned k, uint32_t mask)
{
	bool have[EC_MAX];

	for (unsigned i = 0; i < s->n; i++) {
		have[i] = mask >> i & 1;
		s->ptr[i] = s->work[i];
		if (have[i])
			memcpy(s->work[i], s->good[i], LEN);
		else
			memset(s->work[i], 0xee, LEN);
	}
	int err = ec_repair(ec, s->ptr, have, LEN);
	if ((unsigned)__builtin_popcount(mask) < k) {
		assert_int_equal(err, -ENODATA);
		for (unsigned i = 0; i < s->n; i++)
			if (!have[i])
				assert_int_equal(s->work[i][LEN / 2], 0xee);
		return;
	}
	assert_int_equal(err, 0);
	for (unsigned i = 0; i < s->n; i++)
		if (memcmp(s->work[i], s->good[i], LEN) != 0)
			fail_msg("%u of %u, survivors %x: shard %u is wrong", k, s->n, mask, i);
}

static void test_every_survivor_set(void **state)
{
	static struct set s;
	struct ec *ec;
	(void)state;

	for (unsigned k = 1; k <= 8; k++) {
		for (unsigned m = 0; k + m <= 8; m++) {
			assert_int_equal(ec_new(&ec, k, m), 0);
			set_up(&s, ec, k, m);
			for (uint32_t mask = 0; mask < 1u << (k + m); mask++)
				try_mask(&s, ec, k, mask);
			ec_free(ec);
		}
	}
}

/* All of 10-of-16, where other matrices fail. */
static void test_ten_of_sixteen(void **state)
{
	static struct set s;
	struct ec *ec;
	(void)state;

	assert_int_equal(ec_new(&ec, 10, 6), 0);
	set_up(&s, ec, 10, 6);
	for (uint32_t mask = 0; mask < 1u << 16; mask++)
		if (__builtin_popcount(mask) == 10)
			try_mask(&s, ec, 10, mask);
	ec_free(ec);
}

static void test_large_sampled(void **state)
{
	static const unsigned shape[][2] = {{16, 16}, {29, 3}, {12, 6},
					    {31, 1},  {1, 31}, {20, 12}};
	static struct set s;
	struct ec *ec;
	(void)state;

	for (size_t i = 0; i < sizeof shape / sizeof *shape; i++) {
		unsigned k = shape[i][0], n = k + shape[i][1];
		assert_int_equal(ec_new(&ec, k, n - k), 0);
		set_up(&s, ec, k, n - k);
		for (unsigned round = 0; round < 1000; round++) {
			uint32_t mask = 0;
			unsigned cnt = round % 8 ? k : k - 1;
			while ((unsigned)__builtin_popcount(mask) < cnt)
				mask |= 1u << rnd() % n;
			try_mask(&s, ec, k, mask);
		}
		ec_free(ec);
	}
}

/* Shards nobody asks for may be NULL, there or not. */
static void test_only_what_is_asked(void **state)
{
	static struct set s;
	uint8_t out[LEN];
	struct ec *ec;
	(void)state;

	assert_int_equal(ec_new(&ec, 4, 2), 0);
	set_up(&s, ec, 4, 2);
	uint8_t *ptr[6] = {NULL, out, s.good[2], s.good[3], s.good[4], s.good[5]};
	const bool have[6] = {false, false, true, true, true, true};
	assert_int_equal(ec_repair(ec, ptr, have, LEN), 0);
	assert_memory_equal(out, s.good[1], LEN);
	const bool have3[6] = {true, false, true, true, true, false}; /* 0 is NULL */
	assert_int_equal(ec_repair(ec, ptr, have3, LEN), -ENODATA);
	assert_int_equal(ec_repair(ec, s.ptr, have, 0), 0);
	ec_free(ec);
}

static void test_limits(void **state)
{
	struct ec *ec;
	(void)state;

	assert_int_equal(ec_new(&ec, 0, 2), -EINVAL);
	assert_null(ec);
	assert_int_equal(ec_new(&ec, 31, 2), -EINVAL);
	assert_int_equal(ec_new(&ec, 33, 0), -EINVAL);
	assert_int_equal(ec_new(&ec, 1, UINT32_MAX), -EINVAL);
	assert_int_equal(ec_new(&ec, 32, 0), 0);
	ec_free(ec);
	ec_free(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_survivor_set),
		cmocka_unit_test(test_ten_of_sixteen),
		cmocka_unit_test(test_large_sampled),
		cmocka_unit_test(test_only_what_is_asked),
		cmocka_unit_test(test_limits),
	};

	rng = getenv("SEED") ? strtoull(getenv("SEED"), NULL, 10) : (uint64_t)time(NULL);
	printf("SEED=%llu\n", (unsigned long long)rng);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
