/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <math.h>
#include <setjmp.h>
#include <stdlib.h>
#include "net/ec.h"
#include "net/place.h"
#include <cmocka.h>

static void seg_of(unsigned i, struct seg_id *id)
{
	memset(id, 0, sizeof *id);
	put_le32(id->b, i);
}

static void nodes_even(struct place_node *n, unsigned cnt)
{
	for (unsigned i = 0; i < cnt; i++)
		n[i] = (struct place_node){(uint16_t)(i + 1), 100, i, true};
}

/* Exactly n nodes: a permutation each time, and every node holds every shard equally often. */
static void test_permutation(void **state)
{
	struct place_node n[6];
	unsigned cnt[7][6] = {0};
	struct seg_id id;
	uint16_t out[6], again[6];
	(void)state;

	nodes_even(n, 6);
	for (unsigned s = 0; s < 6000; s++) {
		unsigned seen = 0;
		seg_of(s, &id);
		assert_int_equal(place_shards(&id, n, 6, 4, 2, out), 6);
		for (unsigned i = 0; i < 6; i++) {
			seen |= 1u << out[i];
			cnt[out[i]][i]++;
		}
		assert_int_equal(seen, 0x7e);
		assert_int_equal(place_shards(&id, n, 6, 4, 2, again), 6);
		assert_memory_equal(out, again, sizeof out);
	}
	for (unsigned i = 1; i <= 6; i++)
		for (unsigned j = 0; j < 6; j++)
			assert_in_range(cnt[i][j], 850, 1150);
	/* The order in which the nodes are listed says nothing. */
	struct place_node t = n[0];
	n[0] = n[5];
	n[5] = t;
	assert_int_equal(place_shards(&id, n, 6, 4, 2, again), 6);
	assert_memory_equal(out, again, sizeof out);
}

static void test_domains(void **state)
{
	struct place_node n[12];
	struct seg_id id;
	uint16_t out[6];
	(void)state;

	nodes_even(n, 12);
	for (unsigned i = 0; i < 12; i++)
		n[i].domain = i / 4; /* 3 domains of 4 */
	assert_int_equal(place_check(n, 12, 4, 2), 0);
	for (unsigned s = 0; s < 2000; s++) {
		unsigned in[3] = {0};
		n[s % 12].usable = false;
		seg_of(s, &id);
		assert_int_equal(place_shards(&id, n, 12, 4, 2, out), 6);
		n[s % 12].usable = true;
		for (unsigned i = 0; i < 6; i++) {
			assert_int_not_equal(out[i], s % 12 + 1);
			in[(out[i] - 1) / 4]++;
		}
		for (unsigned d = 0; d < 3; d++)
			assert_int_equal(in[d], 2);
	}
	/* A whole domain away: its share waits, rather than crowd another one. */
	for (unsigned i = 0; i < 4; i++)
		n[i].usable = false;
	assert_int_equal(place_shards(&id, n, 12, 4, 2, out), 4);
	/* Two domains cannot carry it. */
	assert_int_equal(place_check(n, 8, 4, 2), -EINVAL);
	assert_int_equal(place_check(n, 5, 4, 2), -EINVAL);
	assert_int_equal(place_check(n, 12, 0, 2), -EINVAL);
	assert_int_equal(place_check(n, 12, 30, 3), -EINVAL);
	assert_int_equal(place_check(n, 2, 1, 1), -EINVAL);
	assert_int_equal(place_check(n + 3, 2, 1, 1), 0);
	assert_int_equal(place_check(n, 1, 1, 0), 0);
	n[3].weight = 0;
	assert_int_equal(place_check(n, 12, 4, 2), -EINVAL);
	assert_int_equal(place_shards(&id, n, 12, 4, 2, out), -EINVAL);
}

/* A node that is away changes nothing but its own shard. */
static void test_away_and_back(void **state)
{
	struct place_node n[10];
	struct seg_id id;
	uint16_t all[6], out[6];
	(void)state;

	nodes_even(n, 10);
	for (unsigned s = 0; s < 2000; s++) {
		unsigned away = s % 10;
		seg_of(s, &id);
		assert_int_equal(place_shards(&id, n, 10, 4, 2, all), 6);
		n[away].usable = false;
		assert_int_equal(place_shards(&id, n, 10, 4, 2, out), 6);
		n[away].usable = true;
		for (unsigned i = 0; i < 6; i++) {
			if (all[i] != away + 1)
				assert_int_equal(out[i], all[i]);
			else
				for (unsigned j = 0; j < 6; j++)
					assert_int_not_equal(out[i], all[j]);
		}
	}
	/* No spare node: its shard waits. */
	n[2].usable = false;
	unsigned none = 0;
	assert_int_equal(place_shards(&id, n, 6, 4, 2, out), 5);
	for (unsigned i = 0; i < 6; i++)
		none += out[i] == NODE_NONE;
	assert_int_equal(none, 1);
	assert_int_equal(place_shards(&id, n, 0, 4, 2, out), 0);
	assert_int_equal(out[3], NODE_NONE);
}

/* A node that is gone: the set changes by it alone, and most shards stay where they are. */
static void test_leaving(void **state)
{
	struct place_node n[10], less[9];
	unsigned moved = 0, had = 0;
	struct seg_id id;
	uint16_t all[6], out[6];
	(void)state;

	nodes_even(n, 10);
	for (unsigned s = 0; s < 3000; s++) {
		unsigned gone = s % 10, fresh = 0, j;
		bool held = false;
		memcpy(less, n, gone * sizeof *n);
		memcpy(less + gone, n + gone + 1, (9 - gone) * sizeof *n);
		seg_of(s, &id);
		assert_int_equal(place_shards(&id, n, 10, 4, 2, all), 6);
		assert_int_equal(place_shards(&id, less, 9, 4, 2, out), 6);
		for (unsigned i = 0; i < 6; i++) {
			held |= all[i] == gone + 1;
			for (j = 0; j < 6 && out[i] != all[j]; j++)
				;
			fresh += j == 6;
		}
		assert_int_equal(fresh, held);
		for (unsigned i = 0; i < 6; i++)
			moved += held && out[i] != all[i];
		had += held;
		if (!held)
			assert_memory_equal(all, out, sizeof out);
	}
	/* One must move; numbers by rank would move three and a half on average. */
	printf("%.2f shards move when a holder leaves\n", (double)moved / had);
	assert_true(moved < 3 * had);
}

static void test_weights(void **state)
{
	struct place_node n[4];
	unsigned cnt[5] = {0}, segs = 20000;
	struct seg_id id;
	uint16_t out[EC_MAX];
	(void)state;

	nodes_even(n, 4);
	for (unsigned i = 0; i < 4; i++)
		n[i].weight = (i + 1) * 1000000;
	for (unsigned s = 0; s < segs; s++) {
		seg_of(s, &id);
		assert_int_equal(place_shards(&id, n, 4, 1, 0, out), 1);
		cnt[out[0]]++;
	}
	for (unsigned i = 1; i <= 4; i++) {
		double want = segs * i / 10.0;
		if (fabs(cnt[i] - want) > 5 * sqrt(want))
			fail_msg("node %u: %u instead of %.0f", i, cnt[i], want);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_permutation),   cmocka_unit_test(test_domains),
		cmocka_unit_test(test_away_and_back), cmocka_unit_test(test_leaving),
		cmocka_unit_test(test_weights),
	};
	log_set_quiet(true);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
