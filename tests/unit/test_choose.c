/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "net/choose.h"

/* --- a node of which a rate and a way are given, and time that is only counted --- */

struct sim {
	struct pace p;
	int64_t over_ms, rate;
};

/* One request after the other, from *now on. */
static void answers(struct sim *s, unsigned cnt, size_t len, int64_t *now)
{
	for (unsigned i = 0; i < cnt; i++) {
		int64_t begun = *now;
		pace_begin(&s->p, len, begun);
		*now += s->over_ms + (int64_t)len / s->rate;
		pace_end(&s->p, len, 0, 0, begun, *now, PACE_CAME);
	}
}

static void near(int64_t a, int64_t b)
{
	assert_in_range(a, b - b / 5 - 2, b + b / 5 + 2);
}

static const struct pace_guess guess = {50, 10000};

static void test_pace(void **state)
{
	struct sim s = {.over_ms = 40, .rate = 12000};
	int64_t now = 1000;

	(void)state;
	/* Nothing known: what the others are like. */
	assert_int_equal(pace_expect_ms(&s.p, &guess, 100000, now), 60);
	answers(&s, 10, 4096, &now);
	near(pace_expect_ms(&s.p, &guess, 4096, now), 40);
	assert_in_range(pace_late_ms(&s.p, &guess, 4096, now), 40, 60);
	answers(&s, 10, 4 << 20, &now);
	near(pace_expect_ms(&s.p, &guess, 4 << 20, now), 40 + (4 << 20) / 12000);
	near(pace_expect_ms(&s.p, &guess, 4096, now), 40);
	/* What is under way comes first. */
	pace_begin(&s.p, 12000000, now);
	near(pace_expect_ms(&s.p, &guess, 4096, now), 1040);
	pace_end(&s.p, 12000000, 0, 0, now, now + 5, PACE_QUIET);
	near(pace_expect_ms(&s.p, &guess, 4096, now), 40);
	assert_int_equal(s.p.out, 0);
	assert_int_equal(s.p.out_bytes, 0);
}

/* Bulk of which nothing has ended yet: how fast it comes is seen all the same. */
static void test_progress(void **state)
{
	struct sim s = {.over_ms = 40, .rate = 12000}, t = {.over_ms = 40, .rate = 12000};
	int64_t now = 1000;

	(void)state;
	pace_progress(&s.p, &guess, 500, now);
	pace_begin(&s.p, 4 << 20, now);
	pace_begin(&s.p, 4 << 20, now);
	pace_progress(&s.p, &guess, 500, now + 100);
	near(pace_expect_ms(&s.p, &guess, 4 << 20, now), 50 + (12 << 20) / 10000);
	/* As fast as was thought, or nearly: nothing new. */
	pace_progress(&s.p, &guess, 500 + 350 * 6000, now + 400);
	assert_int_equal(s.p.slow, 0);
	/* A trickle. */
	pace_progress(&s.p, &guess, 500 + 95000, now + 1000);
	near(pace_left_ms(&s.p, &guess, 4 << 20, now), 50 + (4 << 20) / 100);
	near(pace_expect_ms(&s.p, &guess, 4 << 20, now), 50 + (12 << 20) / 100);
	/* Given up without a word: it is remembered. */
	pace_end(&s.p, 4 << 20, 95000, 0, now, now + 1000, PACE_QUIET);
	pace_end(&s.p, 4 << 20, 0, 4 << 20, now, now + 1000, PACE_QUIET);
	near(pace_expect_ms(&s.p, &guess, 4 << 20, now), 50 + (4 << 20) / 100);
	/* It comes as it should: the next look begins with what ended last. */
	answers(&t, 3, 4 << 20, &now);
	pace_begin(&t.p, 4 << 20, now);
	pace_progress(&t.p, &guess, 12 << 20, now);
	pace_progress(&t.p, &guess, (12 << 20) + 1000, now + 300);
	assert_true(t.p.slow > 0);
	pace_end(&t.p, 4 << 20, 0, 0, now, now + 400, PACE_CAME);
	pace_begin(&t.p, 4 << 20, now + 400);
	pace_progress(&t.p, &guess, 16 << 20, now + 401);
	assert_int_equal(t.p.slow, 0);
	/* Who does not tell is judged by what ends alone. */
	pace_progress(&t.p, &guess, 0, now + 5000);
	assert_int_equal(t.p.slow, 0);
}

/* Three requests share a link: each takes three times as long, the link is not slower. */
static void test_shared_link(void **state)
{
	struct sim s = {.over_ms = 40, .rate = 12000};
	size_t len = 1200000;
	int64_t now = 1000;

	(void)state;
	answers(&s, 4, 4096, &now);
	for (int round = 0; round < 10; round++) {
		int64_t begun = now;
		for (int i = 0; i < 3; i++)
			pace_begin(&s.p, len, begun);
		for (int i = 0; i < 3; i++)
			pace_end(&s.p, len, 0, len * (unsigned)i, begun,
				 begun + 40 + 100 * (i + 1), PACE_CAME);
		now += 340;
	}
	near(pace_expect_ms(&s.p, &guess, len, now), 140);
}

/* Late and given up; then it is quick again. */
static void test_late_then_recovered(void **state)
{
	struct sim s = {.over_ms = 40, .rate = 12000};
	int64_t now = 1000;

	(void)state;
	answers(&s, 20, 4096, &now);
	answers(&s, 8, 1 << 20, &now);
	for (int i = 0; i < 3; i++) {
		pace_begin(&s.p, 1 << 20, now);
		now += 3000;
		pace_end(&s.p, 1 << 20, 0, 0, now - 3000, now, PACE_LATE);
	}
	int64_t bad = pace_expect_ms(&s.p, &guess, 1 << 20, now);
	assert_true(bad > 300);
	/* A while later it is given another chance, which it takes. */
	assert_true(pace_expect_ms(&s.p, &guess, 1 << 20, now + 200000) < bad / 2);
	now += 200000;
	answers(&s, 64, 1 << 20, &now);
	near(pace_expect_ms(&s.p, &guess, 1 << 20, now), 40 + (1 << 20) / 12000);
}

/* Its answers vary; once one was late, the next is not waited for as long. */
static void test_impatience(void **state)
{
	struct sim s = {.over_ms = 40, .rate = 12000};
	int64_t now = 1000;

	(void)state;
	for (int i = 0; i < 30; i++) {
		s.over_ms = i % 10 ? 40 : 200;
		answers(&s, 1, 4096, &now);
	}
	s.over_ms = 40;
	int64_t patience = pace_late_ms(&s.p, &guess, 4096, now);
	assert_true(patience >= 200);
	for (int i = 0; i < 2; i++) {
		pace_begin(&s.p, 4096, now);
		now += patience;
		pace_end(&s.p, 4096, 0, 0, now - patience, now, PACE_LATE);
		assert_in_range(pace_late_ms(&s.p, &guess, 4096, now), 45, 120);
	}
	/* Given up for another reason says nothing; an answer says all. */
	pace_begin(&s.p, 4096, now);
	pace_end(&s.p, 4096, 0, 0, now, now + 10, PACE_QUIET);
	assert_in_range(pace_late_ms(&s.p, &guess, 4096, now), 45, 120);
	answers(&s, 1, 4096, &now);
	assert_true(pace_late_ms(&s.p, &guess, 4096, now) >= 200);
}

/* Late twice and nothing since: others are asked at once, until it answers. */
static void test_mute(void **state)
{
	struct sim s = {.over_ms = 40, .rate = 12000};
	int64_t now = 1000;

	(void)state;
	answers(&s, 20, 4096, &now);
	pace_late(&s.p);
	assert_true(pace_look_ms(&s.p, &guess, 4096, now) >= 40);
	pace_late(&s.p);
	assert_int_equal(pace_look_ms(&s.p, &guess, 4096, now), 0);
	/* But it is not late before its time. */
	assert_true(pace_late_ms(&s.p, &guess, 4096, now) >= 40);
	answers(&s, 1, 4096, &now);
	assert_true(pace_look_ms(&s.p, &guess, 4096, now) >= 40);
	/* Bulk is looked at when it should be here, which is before it is late. */
	answers(&s, 10, 4 << 20, &now);
	near(pace_look_ms(&s.p, &guess, 4 << 20, now), 60 + (4 << 20) / 12000);
	assert_true(pace_late_ms(&s.p, &guess, 4 << 20, now) >
		    pace_look_ms(&s.p, &guess, 4 << 20, now));
}

static void test_guess(void **state)
{
	struct sim s[5] = {{.over_ms = 20, .rate = 20000},
			   {.over_ms = 40, .rate = 10000},
			   {.over_ms = 60, .rate = 5000},
			   {.over_ms = 0, .rate = 1},
			   {.over_ms = 0, .rate = 1}};
	struct pace p[5];
	int64_t now = 0;

	(void)state;
	struct pace_guess g = pace_guess(NULL, 0);
	assert_true(g.over_ms > 0 && g.rate > 0);
	for (int i = 0; i < 5; i++) {
		if (i < 3) {
			answers(&s[i], 9, 4096, &now);
			answers(&s[i], 9, 1 << 20, &now);
		}
		p[i] = s[i].p;
	}
	g = pace_guess(p, 5);
	near(g.over_ms, 40);
	near(g.rate, 10000);
}

/* --- decisions --- */

static struct choice four_of_six(uint32_t want)
{
	struct choice c = {.n = 6, .k = 4, .want = want, .can = 63, .code_ms = 2};

	for (int i = 0; i < 6; i++)
		c.expect_ms[i] = 45;
	return c;
}

/* All combinations of wanted shards, all well: one request each, and nothing else. */
static void test_healthy(void **state)
{
	(void)state;
	for (uint32_t want = 1; want < 16; want++) {
		struct choice c = four_of_six(want);
		for (c.turn = 0; c.turn < 6; c.turn++)
			assert_int_equal(choose_start(&c), want);
		c.asked = want;
		c.can &= ~want;
		assert_int_equal(choose_more(&c), 0);
		assert_true(choose_hope(&c));
	}
}

/* The rest of a shard is asked of another when that is plainly sooner. */
static void test_straggler(void **state)
{
	struct choice c = four_of_six(15);

	(void)state;
	c.asked = 15;
	c.can = 48;
	c.expect_ms[4] = 500;
	c.expect_ms[5] = 400;
	assert_false(choose_straggler(&c, 100));
	assert_false(choose_straggler(&c, 600));
	assert_true(choose_straggler(&c, 700));
	/* A slow node is no way out, nor is one that was asked or has failed. */
	c.avoid = 32;
	assert_false(choose_straggler(&c, 700));
	assert_true(choose_straggler(&c, 1000));
	c.avoid = 48;
	assert_false(choose_straggler(&c, 100000));
	c.avoid = 0;
	c.asked = 63;
	assert_false(choose_straggler(&c, 100000));
	c.asked = 15;
	c.failed = 48;
	assert_false(choose_straggler(&c, 100000));
}

/* A segment is read from the K that end first; a loaded one is spared. */
static void test_least_finish(void **state)
{
	unsigned used[6] = {0};
	struct choice c = four_of_six(15);

	(void)state;
	c.expect_ms[1] = 200;
	assert_int_equal(choose_start(&c) & 15, 13);
	/* Six equal links, each further shard is 100 ms of its link: all are used alike. */
	for (int i = 0; i < 6; i++)
		c.expect_ms[i] = 45;
	for (unsigned seg = 0; seg < 300; seg++) {
		c.turn = seg % 6;
		uint32_t got = choose_start(&c);
		assert_int_equal(__builtin_popcount(got), 4);
		for (int i = 0; i < 6; i++) {
			used[i] += got >> i & 1;
			c.expect_ms[i] += got >> i & 1 ? 100 : 0;
		}
	}
	for (int i = 0; i < 6; i++)
		assert_in_range(used[i], 195, 205);
	/* A straggler of a fiftieth gets what it can carry. */
	memset(used, 0, sizeof used);
	for (int i = 0; i < 6; i++)
		c.expect_ms[i] = 45;
	for (unsigned seg = 0; seg < 300; seg++) {
		uint32_t got = choose_start(&c);
		for (int i = 0; i < 6; i++) {
			used[i] += got >> i & 1;
			c.expect_ms[i] += got >> i & 1 ? (i == 2 ? 5000 : 100) : 0;
		}
	}
	assert_in_range(used[2], 1, 8);
}

/* Its node has much to do for others: a small read goes elsewhere at once. */
static void test_queued(void **state)
{
	struct choice c = four_of_six(1);

	(void)state;
	c.expect_ms[0] = 80;
	assert_int_equal(choose_start(&c), 1);
	c.expect_ms[0] = 1000;
	uint32_t got = choose_start(&c);
	assert_true(got & 1);
	assert_int_equal(__builtin_popcount(got & ~1u), 4);
}

/* Two hung nodes, every pair: whatever is wanted, what is asked in the end suffices. */
static void test_two_hung(void **state)
{
	(void)state;
	for (uint32_t want = 1; want < 16; want++) {
		for (unsigned a = 0; a < 6; a++) {
			for (unsigned b = a + 1; b < 6; b++) {
				uint32_t hung = 1u << a | 1u << b;
				struct choice c = four_of_six(want);
				for (int round = 0; round < 4; round++) {
					uint32_t ask =
						round ? choose_more(&c) : choose_start(&c);
					assert_int_equal(ask & ~c.can, 0);
					c.asked |= ask;
					c.can &= ~ask;
					c.good |= ask & ~hung;
					c.late |= ask & hung;
				}
				assert_true(!(want & ~c.good) ||
					    __builtin_popcount(c.good) >= 4);
				assert_true(choose_hope(&c));
				/* Nobody was asked twice, nor more than there are. */
				assert_true(__builtin_popcount(c.asked) <= 6);
			}
		}
	}
}

/* Slow ones are asked when no other is left, and all slow is as good as none slow. */
static void test_slow(void **state)
{
	struct choice c = four_of_six(1);

	(void)state;
	c.avoid = 1;
	uint32_t got = choose_start(&c);
	assert_int_equal(got & 1, 0);
	assert_int_equal(__builtin_popcount(got), 4);
	c.avoid = 1 | 2 | 4;
	got = choose_start(&c);
	assert_int_equal(__builtin_popcount(got & c.avoid), 1);
	c.avoid = 63;
	assert_int_equal(__builtin_popcount(choose_start(&c)), 4);
	/* All late: nothing more can be asked, and there is hope. */
	c = four_of_six(1);
	c.asked = c.late = 63;
	c.can = 0;
	assert_int_equal(choose_more(&c), 0);
	assert_true(choose_hope(&c));
}

/* One late: three more and one to spare; it comes after all: nothing more. */
static void test_late_one(void **state)
{
	struct choice c = four_of_six(1);

	(void)state;
	c.asked = c.late = 1;
	c.can = 62;
	assert_int_equal(choose_more(&c), 62);
	c.good = 1;
	assert_int_equal(choose_more(&c), 0);
	/* One failed at once: four of the others, none to spare. */
	c = four_of_six(1);
	c.asked = c.failed = 1;
	c.can = 62;
	assert_int_equal(__builtin_popcount(choose_more(&c)), 4);
}

static void test_just_k(void **state)
{
	struct choice c = four_of_six(3);

	(void)state;
	c.can = 2 | 8 | 16 | 32;
	assert_int_equal(choose_start(&c), c.can);
	c.asked = c.can;
	c.can = 0;
	assert_true(choose_hope(&c));
	c.failed = 16;
	assert_int_equal(choose_more(&c), 0);
	assert_false(choose_hope(&c));
	/* The wanted one alone is there: it will do. */
	c = four_of_six(1);
	c.can = 1;
	assert_int_equal(choose_start(&c), 1);
}

static void test_amounts(void **state)
{
	(void)state;
	assert_int_equal(choose_rows(64, 16, 2000), 64);
	assert_int_equal(choose_rows(64, 16, 8000), 32);
	assert_int_equal(choose_rows(64, 16, 300000), 16);
	assert_int_equal(choose_rows(8, 16, 300000), 8);
	assert_false(choose_rest(2, 40, 10));
	assert_true(choose_rest(3, 0, 100));
	assert_true(choose_rest(3, 40, 480));
	assert_false(choose_rest(20, 40, 16000));
	assert_true(choose_rest(100, 40, 16000));
	assert_int_equal(choose_grace_ms(100000, true), 0);
	assert_true(choose_grace_ms(0, false) > 0);
	assert_true(choose_grace_ms(10000, false) > 10000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pace),	    cmocka_unit_test(test_progress),
		cmocka_unit_test(test_shared_link), cmocka_unit_test(test_late_then_recovered),
		cmocka_unit_test(test_impatience),  cmocka_unit_test(test_mute),
		cmocka_unit_test(test_straggler),   cmocka_unit_test(test_guess),
		cmocka_unit_test(test_healthy),	    cmocka_unit_test(test_least_finish),
		cmocka_unit_test(test_queued),	    cmocka_unit_test(test_two_hung),
		cmocka_unit_test(test_slow),	    cmocka_unit_test(test_late_one),
		cmocka_unit_test(test_just_k),	    cmocka_unit_test(test_amounts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
