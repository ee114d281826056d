/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <time.h>
#include <cmocka.h>
#include "fs/nlookup.h"

static void test_counts(void **state)
{
	struct nlookup *nl;

	(void)state;
	assert_int_equal(nlookup_new(&nl), 0);
	assert_int_equal(nlookup_add(nl, 7, 2), 0);
	assert_int_equal(nlookup_add(nl, 7, 1), 0);
	assert_int_equal(nlookup_count(nl, 7), 3);
	assert_int_equal(nlookup_size(nl), 1);
	assert_false(nlookup_sub(nl, 7, 3));
	assert_int_equal(nlookup_size(nl), 0);
	/* Too much, or unknown: nothing happens. */
	assert_false(nlookup_sub(nl, 7, 1));
	assert_false(nlookup_sub(nl, 0, 1));
	nlookup_free(nl);
	nlookup_free(NULL);
}

static void test_unlinked(void **state)
{
	struct nlookup *nl;

	(void)state;
	assert_int_equal(nlookup_new(&nl), 0);
	assert_true(nlookup_unlinked(nl, 9));
	assert_int_equal(nlookup_add(nl, 9, 2), 0);
	assert_false(nlookup_unlinked(nl, 9));
	assert_int_equal(nlookup_count(nl, 9), 2);
	assert_false(nlookup_sub(nl, 9, 1));
	assert_true(nlookup_sub(nl, 9, 1));
	assert_true(nlookup_unlinked(nl, 9));
	nlookup_free(nl);
}

static void count_cb(void *arg, uint64_t ino)
{
	uint64_t *sum = arg;
	*sum += ino;
}

static void test_drain(void **state)
{
	struct nlookup *nl;
	uint64_t sum = 0;

	(void)state;
	assert_int_equal(nlookup_new(&nl), 0);
	for (uint64_t i = 1; i <= 1000; i++)
		assert_int_equal(nlookup_add(nl, i, 1), 0);
	for (uint64_t i = 100; i <= 200; i++)
		assert_false(nlookup_unlinked(nl, i));
	nlookup_drain(nl, count_cb, &sum);
	assert_int_equal(sum, 15150);
	assert_int_equal(nlookup_size(nl), 0);
	nlookup_free(nl);
}

/* Against a plain array; few inodes, so that chains form, break and wrap. */
static void test_model(void **state)
{
	enum { INOS = 4000 };
	static uint64_t cnt[INOS];
	static bool gone[INOS];
	unsigned seed = (unsigned)time(NULL);
	struct nlookup *nl;
	size_t size = 0;

	(void)state;
	print_message("seed %u\n", seed);
	srandom(seed);
	assert_int_equal(nlookup_new(&nl), 0);
	for (int round = 0; round < 400000; round++) {
		/* Grows for a while, then shrinks, twice. */
		bool grow = round / 100000 % 2 == 0;
		uint64_t i = (uint64_t)random() % INOS;
		uint64_t ino = (i % 3 << 40) + i + 1;
		unsigned what = (unsigned)random() % 8;
		if (what == 0) {
			assert_int_equal(nlookup_unlinked(nl, ino), !cnt[i]);
			gone[i] = cnt[i] > 0;
		} else if (what < (grow ? 6 : 3)) {
			uint64_t n = (uint64_t)random() % 3 + 1;
			assert_int_equal(nlookup_add(nl, ino, n), 0);
			size += !cnt[i];
			cnt[i] += n;
		} else {
			uint64_t n = (uint64_t)random() % 4 + 1;
			n = HF_MIN(n, cnt[i]);
			bool reap = nlookup_sub(nl, ino, n);
			assert_int_equal(reap, cnt[i] && n == cnt[i] && gone[i]);
			size -= cnt[i] && n == cnt[i];
			cnt[i] -= n;
			if (!cnt[i])
				gone[i] = false;
		}
		assert_int_equal(nlookup_count(nl, ino), cnt[i]);
	}
	assert_int_equal(nlookup_size(nl), size);
	for (uint64_t i = 0; i < INOS; i++)
		assert_int_equal(nlookup_count(nl, (i % 3 << 40) + i + 1), cnt[i]);
	nlookup_free(nl);
}

static void *hammer(void *arg)
{
	struct nlookup *nl = arg;

	for (uint64_t i = 1; i <= 20000; i++) {
		if (nlookup_add(nl, i % 1000 + 1, 1))
			return arg;
		nlookup_sub(nl, i % 1000 + 1, 1);
	}
	return NULL;
}

static void test_threads(void **state)
{
	struct nlookup *nl;
	pthread_t t[4];
	void *ret;

	(void)state;
	assert_int_equal(nlookup_new(&nl), 0);
	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&t[i], NULL, hammer, nl), 0);
	for (int i = 0; i < 4; i++) {
		assert_int_equal(pthread_join(t[i], &ret), 0);
		assert_null(ret);
	}
	assert_int_equal(nlookup_size(nl), 0);
	nlookup_free(nl);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_counts),	cmocka_unit_test(test_unlinked),
		cmocka_unit_test(test_drain),	cmocka_unit_test(test_model),
		cmocka_unit_test(test_threads),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
