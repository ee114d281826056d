/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Rows of `extent` against a model: where each unit of a file lives. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <sodium.h>
#include <time.h>
#include "cache/data.h"
#include "volume_util.h"

#define UNITS 300
#define UNIT  1000u

static uint64_t seed;
static unsigned rnd(unsigned n)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (unsigned)((seed * 0x2545f4914f6cdd1d >> 33) % n);
}

static char dir[64];
static struct store *st;

static int setup(void **state)
{
	struct store_opts o = {.dir = dir};

	(void)state;
	strcpy(dir, "/tmp/hf-test-extent-XXXXXX");
	return !mkdtemp(dir) || store_open(&st, &o);
}

static int teardown(void **state)
{
	(void)state;
	int err = store_close(st);
	fx_rm_tree(dir);
	return err;
}

struct cell {
	uint64_t seg;
	uint32_t seg_off;
};
struct walk {
	const struct cell *model;
	uint64_t pos, end;
	unsigned calls;
};

static int walk(void *arg, const struct extent *e)
{
	struct walk *w = arg;

	w->calls++;
	assert_true(e->len > 0 && e->off >= w->pos && e->off + e->len <= w->end);
	for (; w->pos < e->off; w->pos += UNIT)
		assert_true(w->model[w->pos / UNIT].seg == 0);
	for (; w->pos < e->off + e->len; w->pos += UNIT) {
		const struct cell *c = &w->model[w->pos / UNIT];
		assert_true(c->seg == e->seg);
		assert_true(c->seg_off == e->seg_off + (w->pos - e->off));
	}
	/* The table may be used from within. */
	struct extent again;
	assert_int_equal(extent_at_locked(st, 7, e->off, &again), 1);
	assert_true(again.off <= e->off && again.off + again.len >= e->off + e->len);
	return 0;
}

static void model(void **state)
{
	static struct cell m[UNITS];

	(void)state;
	pthread_mutex_lock(&st->meta);
	for (int i = 0; i < 3000; i++) {
		unsigned a = rnd(UNITS), b = a + 1 + rnd(i % 5 ? 8 : UNITS);

		b = HF_MIN(b, UNITS);
		if (rnd(3)) {
			struct extent e = {(uint64_t)a * UNIT, (uint64_t)(b - a) * UNIT,
					   1 + rnd(1000), rnd(1000)};
			assert_int_equal(extent_put_locked(st, 7, &e), 0);
			for (unsigned k = a; k < b; k++)
				m[k] = (struct cell){e.seg, e.seg_off + (k - a) * UNIT};
		} else {
			uint64_t end = b == UNITS ? UINT64_MAX : (uint64_t)b * UNIT;
			assert_int_equal(extent_drop_locked(st, 7, (uint64_t)a * UNIT, end), 0);
			memset(&m[a], 0, (b - a) * sizeof m[0]);
		}
		if (i % 10)
			continue;
		a = rnd(UNITS);
		b = a + 1 + rnd(UNITS - a);
		struct walk w = {m, (uint64_t)a * UNIT, (uint64_t)b * UNIT, 0};
		assert_int_equal(extent_each_locked(st, 7, w.pos, w.end, walk, &w), 0);
		for (; w.pos < w.end; w.pos += UNIT)
			assert_true(m[w.pos / UNIT].seg == 0);
	}
	/* Other inodes have nothing. */
	struct walk none = {m, 0, 0, 0};
	assert_int_equal(extent_each_locked(st, 6, 0, UINT64_MAX, walk, &none), 0);
	assert_int_equal(extent_each_locked(st, 8, 0, UINT64_MAX, walk, &none), 0);
	assert_int_equal(none.calls, 0);
	pthread_mutex_unlock(&st->meta);
}

int main(void)
{
	const char *s = getenv("SEED");
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(model, setup, teardown),
	};

	if (sodium_init() < 0)
		return 1;
	seed = s ? strtoull(s, NULL, 0) : (uint64_t)time(NULL) * 2654435761u | 1;
	print_message("SEED=%llu\n", (unsigned long long)seed);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
