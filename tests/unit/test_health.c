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
	health_fail(&h, -ETIMEDOUT, false, 0, 1);
	assert_int_equal(h.state, NODE_UP);
	health_fail(&h, -ETIMEDOUT, false, 0, 2);
	assert_int_equal(h.state, NODE_DOWN);
	/* An answer does not bring it back, verification does: twice, for it flaps. */
	health_ok(&h, 1, 0, true, 3);
	assert_int_equal(h.state, NODE_DOWN);
	assert_false(health_returning(&h));
	health_verified(&h, 0, 1, 0, 0, 4);
	assert_int_equal(h.state, NODE_DOWN);
	assert_true(health_returning(&h));
	health_verified(&h, 0, 1, 0, 0, 5);
	assert_int_equal(h.state, NODE_UP);

	h = up(0);
	health_fail(&h, -EIO, false, 0, 1);
	health_fail(&h, -EIO, false, 0, 1);
	health_ok(&h, 1, 0, false, 1);
	health_fail(&h, -EIO, false, 0, 1);
	health_fail(&h, -EIO, false, 0, 1);
	assert_int_equal(h.state, NODE_UP);
	health_fail(&h, -EIO, false, 0, 1);
	assert_int_equal(h.state, NODE_DOWN);

	/* A vanished place is down at once and back at once. */
	h = up(0);
	health_fail(&h, -ENODEV, false, 0, 1);
	assert_int_equal(h.state, NODE_DOWN);
	health_verified(&h, -ENODEV, 1, 0, 0, 2);
	assert_int_equal(h.state, NODE_DOWN);
	health_verified(&h, 0, 1, 0, 0, 3);
	assert_int_equal(h.state, NODE_UP);

	/* These say nothing. */
	for (int i = 0; i < 10; i++) {
		health_fail(&h, -ENOENT, false, 0, 4);
		health_fail(&h, -ECANCELED, false, 0, 4);
		health_fail(&h, -ENOMEM, false, 0, 4);
	}
	assert_int_equal(h.state, NODE_UP);
}

static void test_full(void **state)
{
	const uint64_t gib = 1 << 30;

	(void)state;
	struct health h = up(0);
	health_fail(&h, -ENOSPC, false, 1000, 1);
	assert_int_equal(h.state, NODE_FULL);
	/* Reads and the same room change nothing. */
	health_ok(&h, 1, 0, false, 2);
	health_verified(&h, 0, 1, 1000 + (1 << 20), gib, 2);
	assert_int_equal(h.state, NODE_FULL);
	health_verified(&h, 0, 1, 1000 + (16 << 20), gib, 3);
	assert_int_equal(h.state, NODE_UP);
	health_fail(&h, -ENOSPC, false, 1000, 4);
	health_ok(&h, -1, 0, true, 5);
	assert_int_equal(h.state, NODE_UP);
	/* A quota shows in no free space: it is tried again after a while. */
	health_fail(&h, -EDQUOT, false, gib, 6);
	health_verified(&h, 0, 1, gib, gib, 7);
	assert_int_equal(h.state, NODE_FULL);
	health_verified(&h, 0, 1, gib, gib, 7 + HEALTH_FULL_MS);
	assert_int_equal(h.state, NODE_UP);
	/* Where nothing shows it is tried soon, and later each time that it was in vain. */
	int64_t now = 1, wait = HEALTH_KEEP_MIN_MS;
	h = up(0);
	for (int i = 0; i < 20; i++) {
		health_fail(&h, -ENOSPC, true, 0, now);
		health_fail(&h, -ENOSPC, true, 0, now);
		health_ok(&h, 1, 0, false, now);
		health_verified(&h, 0, 1, 0, 0, now + wait - 1);
		assert_int_equal(h.state, NODE_FULL);
		now += wait;
		wait = HF_MIN(2 * wait, (int64_t)HEALTH_KEEP_MAX_MS);
		health_verified(&h, 0, 1, 0, 0, now);
		assert_int_equal(h.state, NODE_UP);
	}
	/* A little that is kept between shows nothing; a minute does. */
	health_ok(&h, -1, 0, true, now);
	health_fail(&h, -ENOSPC, true, 0, now);
	health_verified(&h, 0, 1, 0, 0, now + HEALTH_KEEP_MIN_MS);
	assert_int_equal(h.state, NODE_FULL);
	health_ok(&h, -1, 0, true, now + HEALTH_KEEP_MIN_MS);
	assert_int_equal(h.state, NODE_UP);
	now += HEALTH_KEEP_MIN_MS + HEALTH_KEEP_MAX_MS;
	health_fail(&h, -ENOSPC, true, 0, now);
	health_verified(&h, 0, 1, 0, 0, now + HEALTH_KEEP_MIN_MS);
	assert_int_equal(h.state, NODE_UP);
}

/* Reads that go well do not speak for writes that fail. */
static void test_keeps_nothing(void **state)
{
	int64_t now = 1, wait = HEALTH_KEEP_MIN_MS;

	(void)state;
	struct health h = up(0);
	for (int i = 0; i < 2; i++) {
		health_fail(&h, -EIO, true, 0, now);
		health_ok(&h, 1, 0, false, now);
		health_verified(&h, 0, 1, 0, 0, now);
		assert_int_equal(h.state, NODE_UP);
		assert_int_equal(health_doubted(&h), i == 1);
	}
	/* It has one chance after a while, and a longer one each time. */
	for (int i = 0; i < 20; i++) {
		health_fail(&h, i & 1 ? -EAGAIN : -EIO, true, 0, now);
		assert_int_equal(h.state, NODE_REFUSING);
		assert_true(health_doubted(&h));
		health_ok(&h, 1, 0, false, now);
		health_verified(&h, 0, 1, 0, 0, now + wait - 1);
		assert_int_equal(h.state, NODE_REFUSING);
		now += wait;
		wait = HF_MIN(2 * wait, (int64_t)HEALTH_KEEP_MAX_MS);
		health_verified(&h, 0, 1, 0, 0, now);
		assert_int_equal(h.state, NODE_UP);
		assert_true(health_doubted(&h));
	}
	/* One write that is kept, and nobody doubts it. */
	health_ok(&h, -1, 0, true, now);
	assert_false(health_doubted(&h));
	health_fail(&h, -EIO, true, 0, now);
	health_fail(&h, -ENOENT, true, 0, now);
	health_fail(&h, -EIO, false, 0, now);
	assert_int_equal(h.state, NODE_UP);
	assert_false(health_doubted(&h));

	/* Writes that hang while reads are answered. */
	h = up(0);
	health_fail(&h, -ETIMEDOUT, true, 0, 1);
	health_ok(&h, 1, 0, false, 1);
	assert_int_equal(h.state, NODE_UP);
	assert_true(health_doubted(&h));
	health_fail(&h, -ETIMEDOUT, true, 0, 2);
	assert_int_equal(h.state, NODE_REFUSING);
	/* What else it is called it stays. */
	h = up(0);
	health_lied(&h, 1);
	health_fail(&h, -ENOSPC, true, 0, 2);
	assert_int_equal(h.state, NODE_LYING);
	assert_true(health_doubted(&h));
	health_ok(&h, -1, 0, true, 2);
	assert_false(health_doubted(&h));
	for (int i = 0; i < 5; i++) {
		health_fail(&h, -EAGAIN, true, 0, 2);
		assert_int_equal(h.state, NODE_LYING);
	}
	assert_true(health_doubted(&h));
}

static void test_others(void **state)
{
	(void)state;
	struct health h = up(0);
	health_fail(&h, -EROFS, false, 0, 1);
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
	health_fail(&h, -ENODEV, false, 0, 14);
	health_lied(&h, 14);
	assert_int_equal(h.state, NODE_WRONG);
	health_verified(&h, 0, 1, 0, 0, 15);
	assert_int_equal(h.state, NODE_UP);
	health_verified(&h, -EBADMSG, 1, 0, 0, 16);
	assert_int_equal(h.state, NODE_WRONG);
	/* Nobody who flapped and then turns out to be another place is coming back. */
	h = up(0);
	health_fail(&h, -ETIMEDOUT, false, 0, 1);
	health_fail(&h, -ETIMEDOUT, false, 0, 1);
	health_verified(&h, 0, 1, 0, 0, 2);
	assert_true(health_returning(&h));
	health_verified(&h, -EBADMSG, 1, 0, 0, 3);
	assert_int_equal(h.state, NODE_WRONG);
	assert_false(health_returning(&h));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_history), cmocka_unit_test(test_slow),
		cmocka_unit_test(test_down),	cmocka_unit_test(test_full),
		cmocka_unit_test(test_keeps_nothing), cmocka_unit_test(test_others),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
