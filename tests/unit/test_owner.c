/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "fs/owner.h"

static void parsing(void **state)
{
	static const char *const bad[] = {"",
					  "a",
					  "-1",
					  "1:",
					  ":1",
					  "1:2:3",
					  "1 ",
					  " 1",
					  "0x10",
					  "1,2",
					  "4294967295",
					  "1:4294967295",
					  "99999999999999999999",
					  "1::2"};
	struct owners o = {0};

	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		assert_int_equal(ids_parse(&o.uid, bad[i]), -EINVAL);
	assert_int_equal(ids_parse(&o.uid, "4294967294"), 0);
	assert_int_equal(o.uid.as, 4294967294u);
	/* One for all, or pairs; no number twice on a side. */
	assert_int_equal(ids_parse(&o.uid, "1"), -EINVAL);
	assert_int_equal(ids_parse(&o.uid, "1:2"), -EINVAL);
	assert_int_equal(ids_parse(&o.gid, "1:2"), 0);
	assert_int_equal(ids_parse(&o.gid, "1"), -EINVAL);
	assert_int_equal(ids_parse(&o.gid, "1:3"), -EINVAL);
	assert_int_equal(ids_parse(&o.gid, "3:2"), -EINVAL);
	assert_int_equal(ids_parse(&o.gid, "2:1"), 0);
	owners_release(&o);
	assert_int_equal(o.gid.pair_cnt, 0);

	static const char *const no_mask[] = {"", "8", "-1", "1000", "0x7", "022 ", "07777"};
	for (size_t i = 0; i < sizeof no_mask / sizeof *no_mask; i++)
		assert_int_equal(owners_parse_umask(&o, no_mask[i]), -EINVAL);
	assert_int_equal(owners_parse_umask(&o, "0027"), 0);
	assert_int_equal(o.umask, 027);
	assert_int_equal(owners_parse_umask(&o, "777"), 0);
	assert_int_equal(o.umask, 0777);
}

/* Every set of pairs of a few numbers is a permutation, and there and back is where it was. */
static void permutations(void **state)
{
	enum { N = 5 };

	(void)state;
	for (unsigned code = 0; code < 7776; code++) { /* (N + 1)^N */
		struct ids ids = {0};
		unsigned rest = code, seen = 0;
		bool valid = true;

		for (unsigned s = 0; s < N; s++, rest /= N + 1) {
			char pair[8] = {(char)('0' + s), ':', (char)('0' + rest % (N + 1)), 0};
			if (rest % (N + 1) < N)
				valid &= !ids_parse(&ids, pair);
		}
		for (uint32_t i = 0; valid && i < N; i++) {
			uint32_t here = ids_here(&ids, i);
			assert_int_equal(ids_stored(&ids, here), i);
			assert_true(here < N);
			seen |= 1u << here;
		}
		if (valid)
			assert_int_equal(seen, (1u << N) - 1);
		for (size_t i = 0; i < ids.pair_cnt; i++)
			assert_int_equal(ids_here(&ids, ids.pair[i].stored), ids.pair[i].here);
		assert_int_equal(ids_here(&ids, 77), 77);
		assert_int_equal(ids_stored(&ids, 77), 77);
		owners_release(&(struct owners){.uid = ids});
	}
}

static void squash(void **state)
{
	struct owners o = {0};
	struct stat st = {.st_uid = 5, .st_gid = 6, .st_mode = S_IFREG | 06755};
	uint32_t id = 1;

	(void)state;
	owners_show(&o, &st);
	assert_int_equal(st.st_mode, S_IFREG | 06755);
	assert_int_equal(st.st_uid, 5);
	assert_int_equal(ids_new(&o.uid, 7, 8), 7);
	assert_int_equal(ids_chown(&o.uid, 9, &id), 1);
	assert_int_equal(id, 9);
	assert_int_equal(ids_parse(&o.uid, "1000"), 0);
	owners_show(&o, &st);
	assert_int_equal(st.st_uid, 1000);
	assert_int_equal(st.st_gid, 6);
	/* A stranger's set-id program is not this user's. */
	assert_int_equal(st.st_mode, S_IFREG | 02755);
	assert_int_equal(ids_new(&o.uid, 7, 8), 8);
	assert_int_equal(ids_chown(&o.uid, 1000, &id), 0);
	assert_int_equal(ids_chown(&o.uid, 5, &id), -EPERM);
	assert_int_equal(owners_chmod(&o, S_IFREG | 04755, 02644), S_IFREG | 06644);
	assert_int_equal(owners_chmod(&o, S_IFREG | 0755, 04644), S_IFREG | 0644);
	assert_int_equal(ids_parse(&o.gid, "2000"), 0);
	st = (struct stat){.st_mode = S_IFDIR | 02755};
	owners_show(&o, &st);
	assert_int_equal(st.st_mode, S_IFDIR | 02755);
	assert_int_equal(st.st_gid, 2000);
	assert_int_equal(owners_show_gid(&o, 3), 2000);
}

static void mask(void **state)
{
	static const struct {
		uint32_t umask, stored, shown;
	} t[] = {
		{022, S_IFREG | 0600, S_IFREG | 0644}, {022, S_IFREG | 0700, S_IFREG | 0755},
		{077, S_IFREG | 0666, S_IFREG | 0600}, {077, S_IFREG | 06711, S_IFREG | 0700},
		{022, S_IFDIR | 0700, S_IFDIR | 0755}, {022, S_IFDIR | 01777, S_IFDIR | 01755},
		{0, S_IFREG | 0, S_IFREG | 0666},      {0777, S_IFREG | 0777, S_IFREG | 0},
		{077, S_IFLNK | 0777, S_IFLNK | 0777},
	};
	struct owners o = {.masked = true};

	(void)state;
	for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
		struct stat st = {.st_mode = t[i].stored};
		o.umask = t[i].umask;
		owners_show(&o, &st);
		assert_int_equal(st.st_mode, t[i].shown);
	}
	/* chmod: execution, for those who may read; nothing else changes. */
	assert_int_equal(owners_chmod(&o, S_IFREG | 0640, 0666), S_IFREG | 0640);
	assert_int_equal(owners_chmod(&o, S_IFREG | 0640, 0777), S_IFREG | 0750);
	assert_int_equal(owners_chmod(&o, S_IFREG | 0200, 0100), S_IFREG | 0300);
	assert_int_equal(owners_chmod(&o, S_IFREG | 04755, 0644), S_IFREG | 04644);
	assert_int_equal(owners_chmod(&o, S_IFREG | 04755, 0700), S_IFREG | 04755);
	assert_int_equal(owners_chmod(&o, S_IFDIR | 0750, 0), S_IFDIR | 0750);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(parsing),
		cmocka_unit_test(permutations),
		cmocka_unit_test(squash),
		cmocka_unit_test(mask),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
