/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The lock of an inode's contents: who holds it keeps the others away, nobody is forgotten,
 * and who waits can be told to go.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include "cache/iolock.h"
#include "net/giveup.h"

#define LOCKS	3
#define THREADS 6
#define ROUNDS	20000

/* --- exclusion, and nobody who sleeps for ever --- */

static struct {
	struct iolock lock;
	int readers, a, b; /* a and b change together, by who holds it alone */
} thing[LOCKS];
static atomic_int wrong, given_up;

static void hold(int i, bool alone)
{
	if (alone) {
		thing[i].a++;
		sched_yield();
		thing[i].b++;
	} else if (thing[i].a != thing[i].b) {
		wrong++;
	}
}

static void *work(void *arg)
{
	unsigned seed = (unsigned)(uintptr_t)arg;

	for (int r = 0; r < ROUNDS; r++) {
		int i = rand_r(&seed) % LOCKS, how = rand_r(&seed) % 8;
		struct iolock *l = &thing[i].lock;
		struct giveup g;
		bool got, alone = how & 1;

		/* Some are told to go before they begin: they get it, or do not. */
		giveup_init(&g, NULL);
		if (how < 2) {
			giveup_set(&g);
			giveup_now(&g, -EINTR);
		}
		if (how >= 6)
			got = alone ? iolock_try_write(l) : iolock_try_read(l);
		else
			got = !(alone ? iolock_write(l) : iolock_read(l));
		if (got) {
			hold(i, alone);
			iolock_unlock(l);
		} else if (how < 2) {
			given_up++;
		} else if (how < 6) {
			wrong++;
		}
		giveup_set(NULL);
		giveup_release(&g);
	}
	return NULL;
}

static void exclusion(void **state)
{
	pthread_t t[THREADS];

	(void)state;
	for (uintptr_t i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&t[i], NULL, work, (void *)(i + 1)), 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(t[i], NULL);
	assert_int_equal(wrong, 0);
	for (int i = 0; i < LOCKS; i++) {
		assert_int_equal(thing[i].a, thing[i].b);
		assert_true(iolock_try_write(&thing[i].lock));
	}
	print_message("%d of %d gave up\n", given_up, THREADS * ROUNDS);
}

/* --- giving up --- */

struct waiter {
	struct iolock *lock;
	bool alone;
	struct giveup g;
	atomic_bool waits;
	int err;
};

/* Called before the first wait. */
static void armed(struct giveup *g)
{
	struct waiter *w = (struct waiter *)((char *)g - offsetof(struct waiter, g));

	w->waits = true;
}

static void *wait_main(void *arg)
{
	struct waiter *w = arg;

	giveup_set(&w->g);
	w->err = w->alone ? iolock_write(w->lock) : iolock_read(w->lock);
	giveup_set(NULL);
	return NULL;
}

static pthread_t wait_start(struct waiter *w, struct iolock *l, bool alone)
{
	pthread_t t;

	*w = (struct waiter){.lock = l, .alone = alone};
	giveup_init(&w->g, armed);
	assert_int_equal(pthread_create(&t, NULL, wait_main, w), 0);
	while (!w->waits)
		sched_yield();
	return t;
}

static void giving_up(void **state)
{
	struct iolock l = {0};
	struct waiter one, other, reader;

	(void)state;
	/* Somebody reads what is far; two want to write, one of them is told to go. */
	assert_int_equal(iolock_read(&l), 0);
	pthread_t t1 = wait_start(&one, &l, true), t2 = wait_start(&other, &l, true);
	giveup_now(&one.g, -EINTR);
	pthread_join(t1, NULL);
	assert_int_equal(one.err, -EINTR);
	/* Nobody who only reads waits for who waits to write. */
	assert_int_equal(iolock_read(&l), 0);
	iolock_unlock(&l);
	assert_false(iolock_try_write(&l));
	iolock_unlock(&l);
	pthread_join(t2, NULL);
	assert_int_equal(other.err, 0);
	/* The other one writes now. */
	assert_false(iolock_try_read(&l));
	pthread_t t3 = wait_start(&reader, &l, false);
	giveup_now(&reader.g, -ECANCELED);
	pthread_join(t3, NULL);
	assert_int_equal(reader.err, -ECANCELED);
	iolock_unlock(&l);
	assert_true(iolock_try_write(&l));
	/* What is free is had, whoever is told to go. */
	iolock_unlock(&l);
	giveup_set(&one.g);
	assert_int_equal(iolock_write(&l), 0);
	giveup_set(NULL);
	iolock_unlock(&l);
	giveup_release(&one.g);
	giveup_release(&other.g);
	giveup_release(&reader.g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(exclusion),
		cmocka_unit_test(giving_up),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
