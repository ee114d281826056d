/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * A node's directory is set back to a copy made earlier: marker and old shards are there, new
 * ones are not.  In the second part listing the node is not due, as with a far server.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "drive_util.h"
#include "cache/older.h"

static void sh(const char *fmt, ...)
{
	char cmd[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(cmd, sizeof cmd, fmt, ap);
	va_end(ap);
	assert_int_equal(system(cmd), 0);
}

static int files(const char *dir)
{
	char cmd[256];
	int n = -1;

	snprintf(cmd, sizeof cmd, "find %s -type f | wc -l", dir);
	FILE *f = popen(cmd, "r");
	assert_non_null(f);
	assert_int_equal(fscanf(f, "%d", &n), 1);
	pclose(f);
	return n;
}

static uint64_t kv(struct store *st, const char *key)
{
	uint64_t v = 0;

	pthread_mutex_lock(&st->meta);
	if (store_get_u64(st, key, &v))
		v = 0;
	pthread_mutex_unlock(&st->meta);
	return v;
}

/* The thread itself is not started: what it would do is called here. */
static void marks(void **state)
{
	struct publisher p = {0};
	char path[128];
	struct drive d;

	(void)state;
	dv_open(&d);
	p.st = d.st;
	struct node *n = d.x.v->node[0];
	snprintf(path, sizeof path, "%s/1/v", d.x.base);
	assert_int_equal(files(path), 1);
	/* Nothing is known of it yet. */
	assert_int_equal(older_check(&p, n), 0);
	assert_int_equal(older_mark(&p, n, false), 0);
	assert_int_equal(files(path), 2);
	assert_int_equal(older_check(&p, n), 0);
	uint64_t first = kv(d.st, "epoch_1");
	assert_true(first > 0);
	/* Once a day is enough, unless it is a new mount. */
	assert_int_equal(older_mark(&p, n, false), 0);
	assert_int_equal(kv(d.st, "epoch_1"), first);
	sh("cp -a %s/1 %s/copy", d.x.base, d.x.base);
	for (int i = 0; i < 5; i++)
		assert_int_equal(older_mark(&p, n, true), 0);
	assert_true(kv(d.st, "epoch_1") >= first + 5);
	/* The two newest and no more. */
	assert_int_equal(files(path), 3);
	assert_int_equal(older_check(&p, n), 0);
	sh("mv %s/1 %s/gone && mv %s/copy %s/1", d.x.base, d.x.base, d.x.base, d.x.base);
	assert_int_equal(volume_verify(d.x.v, now_ms() + 10000), 6);
	assert_int_equal(older_check(&p, n), 1);
	/* Negative control. */
	p.opts.skip_older = true;
	assert_int_equal(older_check(&p, n), 0);
	p.opts.skip_older = false;
	/* The last but one is a copy too: of less than a mount ago, and known. */
	assert_int_equal(older_mark(&p, n, true), 0);
	assert_int_equal(older_check(&p, n), 0);
	/* A node that cannot be asked says nothing. */
	sh("mv %s/1 %s/away", d.x.base, d.x.base);
	volume_verify(d.x.v, now_ms() + 10000);
	assert_true(older_check(&p, n) < 0);
	dv_close(&d);
}

/* As by a crash before a COMMIT: the one that the database knows is still there. */
static void crash(void **state)
{
	struct publisher p = {0};
	struct drive d;

	(void)state;
	dv_open(&d);
	p.st = d.st;
	struct node *n = d.x.v->node[2];
	for (int i = 0; i < 3; i++) {
		assert_int_equal(older_mark(&p, n, true), 0);
		uint64_t last = kv(d.st, "epoch_3"), was = kv(d.st, "epoch_was_3");
		assert_int_equal(older_mark(&p, n, true), 0);
		pthread_mutex_lock(&d.st->meta);
		assert_int_equal(store_put_u64(d.st, "epoch_3", last), 0);
		assert_int_equal(store_put_u64(d.st, "epoch_was_3", was), 0);
		pthread_mutex_unlock(&d.st->meta);
		assert_int_equal(older_check(&p, n), 0);
	}
	dv_close(&d);
}

/* The whole of it: what the older copy lacks is stored again, though no list was due. */
static void mended(void **state)
{
	char path[128];
	struct drive d;

	(void)state;
	for (int control = 0; control < 2; control++) {
		dv_open(&d);
		dv_start(&d);
		dv_write(d.st, INO_ROOT, "a", 0, 300000, 1);
		assert_int_equal(publish_wait(d.p, true, now_ms() + 60000), 0);
		sh("cp -a %s/2 %s/copy", d.x.base, d.x.base);
		dv_stop(&d);
		/* Another mount, with a mark of its own, in which more is stored. */
		dv_start(&d);
		dv_write(d.st, INO_ROOT, "b", 0, 300000, 2);
		assert_int_equal(publish_wait(d.p, true, now_ms() + 60000), 0);
		dv_stop(&d);
		snprintf(path, sizeof path, "%s/2/s", d.x.base);
		int had = files(path);
		sh("mv %s/2 %s/gone && mv %s/copy %s/2", d.x.base, d.x.base, d.x.base, d.x.base);
		assert_true(files(path) < had);
		assert_int_equal(volume_verify(d.x.v, now_ms() + 10000), 6);
		d.po.skip_older = control;
		d.po.skip_list = true;
		dv_start(&d);
		assert_int_equal(publish_wait(d.p, true, now_ms() + 60000), 0);
		if (control)
			assert_true(files(path) < had);
		else
			assert_int_equal(files(path), had);
		dv_close(&d);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(marks),
		cmocka_unit_test(crash),
		cmocka_unit_test(mended),
	};

	log_set_quiet(true);
	log_set_level(LOG_LVL_ERROR);
	if (keys_global_init())
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
