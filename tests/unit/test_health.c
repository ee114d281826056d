/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "net/health.h"

static struct health up(int64_t now)
{
	struct health h;

	health_init(&h);
	assert_int_equal(h.state, NODE_DOWN);
	health_verified(&h, 0, 1, 1 << 30, 1 << 30, now);
	assert_int_equal(h.state, NODE_UP);
	return h;
}

static void test_history(void **state)
{
	struct health h = up(0);

	(void)state;
	h.cnt = h.at = 0;
	assert_int_equal(health_quantile(&h, 95), 0);
	assert_int_equal(health_hedge_ms(&h), HEALTH_HEDGE_FLOOR);
	/* 5 ms always, but for 10 % of 400 ms: p50 is 5, p95 is 400. */
	for (int i = 0; i < 100; i++)
		health_ok(&h, i % 10 ? 5 : 400, 0, false, i);
	assert_int_equal(h.cnt, HEALTH_HIST);
	assert_int_equal(health_quantile(&h, 50), 5);
	assert_int_equal(health_quantile(&h, 95), 400);
	assert_int_equal(health_hedge_ms(&h), 400);
	for (int i = 0; i < 64; i++)
		health_ok(&h, 7000, 0, false, i);
	assert_int_equal(health_hedge_ms(&h), HEALTH_HEDGE_CAP);
	/* Old history is forgotten. */
	for (int i = 0; i < 64; i++)
		health_ok(&h, 1, 0, false, i);
	assert_int_equal(health_hedge_ms(&h), HEALTH_HEDGE_FLOOR);
}

static void test_slow(void **state)
{
	struct health h = up(0);

	(void)state;
	health_late(&h);
	health_late(&h);
	assert_int_equal(h.state, NODE_UP);
	health_ok(&h, 1, 0, false, 1);
	health_late(&h);
	health_late(&h);
	assert_int_equal(h.state, NODE_UP);
	health_late(&h);
	assert_int_equal(h.state, NODE_SLOW);
	health_ok(&h, 1, 0, false, 2);
	health_ok(&h, 1, 0, false, 2);
	assert_int_equal(h.state, NODE_SLOW);
	health_ok(&h, 1, 0, false, 2);
	assert_int_equal(h.state, NODE_UP);
}

static void test_down(void **state)
{
	(void)state;
	struct health h = up(0);
	health_fail(&h, -ETIMEDOUT, 0, 1);
	assert_int_equal(h.state, NODE_UP);
	health_fail(&h, -ETIMEDOUT, 0, 2);
	assert_int_equal(h.state, NODE_DOWN);
	/* An answer does not bring it back, verification does: twice, for it flaps. */
	health_ok(&h, 1, 0, true, 3);
	assert_int_equal(h.state, NODE_DOWN);
	health_verified(&h, 0, 1, 0, 0, 4);
	assert_int_equal(h.state, NODE_DOWN);
	health_verified(&h, 0, 1, 0, 0, 5);
	assert_int_equal(h.state, NODE_UP);

	h = up(0);
	health_fail(&h, -EIO, 0, 1);
	health_fail(&h, -EIO, 0, 1);
	health_ok(&h, 1, 0, false, 1);
	health_fail(&h, -EIO, 0, 1);
	health_fail(&h, -EIO, 0, 1);
	assert_int_equal(h.state, NODE_UP);
	health_fail(&h, -EIO, 0, 1);
	assert_int_equal(h.state, NODE_DOWN);

	/* A vanished place is down at once and back at once. */
	h = up(0);
	health_fail(&h, -ENODEV, 0, 1);
	assert_int_equal(h.state, NODE_DOWN);
	health_verified(&h, -ENODEV, 1, 0, 0, 2);
	assert_int_equal(h.state, NODE_DOWN);
	health_verified(&h, 0, 1, 0, 0, 3);
	assert_int_equal(h.state, NODE_UP);

	/* These say nothing. */
	for (int i = 0; i < 10; i++) {
		health_fail(&h, -ENOENT, 0, 4);
		health_fail(&h, -ECANCELED, 0, 4);
		health_fail(&h, -ENOMEM, 0, 4);
	}
	assert_int_equal(h.state, NODE_UP);
}

static void test_full(void **state)
{
	const uint64_t gib = 1 << 30;

	(void)state;
	struct health h = up(0);
	health_fail(&h, -ENOSPC, 1000, 1);
	assert_int_equal(h.state, NODE_FULL);
	/* Reads and the same room change nothing. */
	health_ok(&h, 1, 0, false, 2);
	health_verified(&h, 0, 1, 1000 + (1 << 20), gib, 2);
	assert_int_equal(h.state, NODE_FULL);
	health_verified(&h, 0, 1, 1000 + (16 << 20), gib, 3);
	assert_int_equal(h.state, NODE_UP);
	health_fail(&h, -ENOSPC, 1000, 4);
	health_ok(&h, -1, 0, true, 5);
	assert_int_equal(h.state, NODE_UP);
	/* A quota shows in no free space: it is tried again after a while. */
	health_fail(&h, -EDQUOT, gib, 6);
	health_verified(&h, 0, 1, gib, gib, 7);
	assert_int_equal(h.state, NODE_FULL);
	health_verified(&h, 0, 1, gib, gib, 7 + HEALTH_FULL_MS);
	assert_int_equal(h.state, NODE_UP);
}

static void test_others(void **state)
{
	(void)state;
	struct health h = up(0);
	health_fail(&h, -EROFS, 0, 1);
	assert_int_equal(h.state, NODE_REFUSING);
	health_verified(&h, -EROFS, 1, 0, 0, 2);
	assert_int_equal(h.state, NODE_REFUSING);
	health_verified(&h, 0, 1, 0, 0, 3);
	assert_int_equal(h.state, NODE_UP);

	health_lied(&h, 10);
	assert_int_equal(h.state, NODE_LYING);
	health_ok(&h, 1, 0, true, 11);
	health_verified(&h, 0, 1, 0, 0, 12);
	assert_int_equal(h.state, NODE_LYING);
	health_ok(&h, 1, 0, true, 11 + HEALTH_LIE_MS);
	assert_int_equal(h.state, NODE_UP);

	health_verified(&h, -ENOENT, 1, 0, 0, 13);
	assert_int_equal(h.state, NODE_WRONG);
	health_fail(&h, -ENODEV, 0, 14);
	health_lied(&h, 14);
	assert_int_equal(h.state, NODE_WRONG);
	health_verified(&h, 0, 1, 0, 0, 15);
	assert_int_equal(h.state, NODE_UP);
	health_verified(&h, -EBADMSG, 1, 0, 0, 16);
	assert_int_equal(h.state, NODE_WRONG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_history), cmocka_unit_test(test_slow),
		cmocka_unit_test(test_down),	cmocka_unit_test(test_full),
		cmocka_unit_test(test_others),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
