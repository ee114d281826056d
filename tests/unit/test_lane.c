/* SPDX-License-Identifier: GPL-3.0-or-later */
/* lane: how many bulk requests are under way, on links of different kinds. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "net/lane.h"

#define TICK 500

/*
 * Passes ms of time with a line: each connection gets at most `each`, all together `link`
 * bytes in a millisecond.  Returns the most that were under way.
 */
static unsigned pass(struct lane *l, int64_t *now, int64_t ms, unsigned most, double each,
		     double link)
{
	unsigned top = 0;

	for (int64_t end = *now + ms; *now < end; *now += TICK) {
		while (lane_room(l, most))
			l->running++;
		while (l->running > HF_MIN(l->streams, most))
			l->running--;
		top = HF_MAX(top, l->running);
		double rate = HF_MIN(each * l->running, link);
		l->moved += (uint64_t)(rate * TICK);
		lane_tick(l, 5, most, *now);
	}
	return top;
}

static void one_connection_fills_the_link(void **state)
{
	struct lane l;
	int64_t now = 1000;

	(void)state;
	lane_init(&l);
	/* A trial of a third one is in vain, and the next comes half a minute later. */
	assert_int_equal(pass(&l, &now, 12000, 24, 12500, 12500), 3);
	assert_int_equal(l.streams, 2);
	assert_int_equal(pass(&l, &now, 24000, 24, 12500, 12500), 2);
	assert_int_equal(pass(&l, &now, 20000, 24, 12500, 12500), 3);
	assert_int_equal(pass(&l, &now, 50000, 24, 12500, 12500), 2);
}

static void each_connection_has_a_share(void **state)
{
	struct lane l;
	int64_t now = 1000;

	(void)state;
	lane_init(&l);
	/* Twenty would fill the link. */
	pass(&l, &now, 120000, 24, 600, 12000);
	assert_in_range(l.trial ? l.trial : l.streams, 16, 24);
	/* Never more than the server bears. */
	assert_int_equal(pass(&l, &now, 60000, 6, 600, 12000), 6);
}

static void nothing_is_tried_without_a_line(void **state)
{
	struct lane l;

	(void)state;
	lane_init(&l);
	for (int64_t now = 1000; now < 600000; now += TICK) {
		l.running = 2;
		l.moved += 1000;
		lane_tick(&l, 0, 24, now);
	}
	assert_int_equal(l.streams, 2);
	assert_int_equal(l.trial, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_connection_fills_the_link),
		cmocka_unit_test(each_connection_has_a_share),
		cmocka_unit_test(nothing_is_tried_without_a_line),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
