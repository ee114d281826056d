/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * A store in a directory of its own, over fake contents (fake_data.h).
 */
#ifndef HOLDFAST_TESTS_STORE_UTIL_H
#define HOLDFAST_TESTS_STORE_UTIL_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <unistd.h>
#include "cache/db.h"
#include "fake_data.h"

static char *dir;

static const struct meta_new file_new = {.mode = S_IFREG | 0644};

static int setup(void **state)
{
	(void)state;
	dir = fake_dir();
	fake_fsync = NULL;
	fake_fsyncs = 0;
	log_set_quiet(true);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	fake_dir_remove(dir);
	return 0;
}

static bool wal_ahead;

static int open_(struct store **st, bool start)
{
	struct store_opts o = {.dir = dir, .commit_ms = 50, .wal_ahead = wal_ahead};

	int err = store_open(st, &o);
	if (!err)
		err = store_init_root(*st, 0, 0, 0755);
	if (!err && start)
		err = store_start(*st);
	return err;
}

static struct inode *create(struct store *st, const char *name)
{
	struct inode *in;

	int err = meta_create(st, INO_ROOT, name, strlen(name), &file_new, &in);
	return err ? NULL : in;
}

#endif
