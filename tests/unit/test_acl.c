/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <cmocka.h>
#include "fs/acl.h"

enum { U = 1, NU = 2, G = 4, NG = 8, M = 16, O = 32 };

/* Builds a list from (tag, perm, id) triples that end with tag 0. */
static size_t list(uint8_t *p, ...)
{
	size_t len = 4;
	va_list ap;

	put_le32(p, 2);
	va_start(ap, p);
	for (int t = va_arg(ap, int); t; t = va_arg(ap, int)) {
		put_le16(p + len, (uint16_t)t);
		put_le16(p + len + 2, (uint16_t)va_arg(ap, int));
		put_le32(p + len + 4, (uint32_t)va_arg(ap, int));
		len += 8;
	}
	va_end(ap);
	return len;
}

static void test_check(void **state)
{
	uint8_t p[128];
	size_t len;

	(void)state;
	len = list(p, U, 7, -1, G, 5, -1, O, 0, -1, 0);
	assert_int_equal(acl_check(p, len), 0);
	for (size_t cut = 0; cut < len; cut++)
		assert_int_equal(acl_check(p, cut), cut == 4 ? 0 : -EINVAL);
	p[0] = 1;
	assert_int_equal(acl_check(p, len), -EINVAL);
	len = list(p, U, 7, -1, NU, 6, 10, NU, 6, 11, G, 5, -1, NG, 4, 3, M, 7, -1, O, 0, -1,
		   0);
	assert_int_equal(acl_check(p, len), 0);
	/* A named entry needs a mask. */
	len = list(p, U, 7, -1, NU, 6, 10, G, 5, -1, O, 0, -1, 0);
	assert_int_equal(acl_check(p, len), -EINVAL);
	/* Order, doubles, absent ones, foreign tags, permissions, ids. */
	len = list(p, G, 5, -1, U, 7, -1, O, 0, -1, 0);
	assert_int_equal(acl_check(p, len), -EINVAL);
	len = list(p, U, 7, -1, U, 7, -1, G, 5, -1, O, 0, -1, 0);
	assert_int_equal(acl_check(p, len), -EINVAL);
	len = list(p, U, 7, -1, G, 5, -1, 0);
	assert_int_equal(acl_check(p, len), -EINVAL);
	len = list(p, U, 7, -1, 3, 1, 1, G, 5, -1, O, 0, -1, 0);
	assert_int_equal(acl_check(p, len), -EINVAL);
	len = list(p, U, 8, -1, G, 5, -1, O, 0, -1, 0);
	assert_int_equal(acl_check(p, len), -EINVAL);
	len = list(p, U, 7, -1, NU, 6, -1, G, 5, -1, M, 7, -1, O, 0, -1, 0);
	assert_int_equal(acl_check(p, len), -EINVAL);
	len = list(p, 0);
	assert_true(acl_empty(p, len));
}

static void test_to_mode(void **state)
{
	uint8_t p[128];
	uint32_t mode = 0104000;
	size_t len = list(p, U, 7, -1, G, 5, -1, O, 1, -1, 0);

	(void)state;
	assert_true(acl_to_mode(p, len, &mode));
	assert_int_equal(mode, 0104751);
	len = list(p, U, 6, -1, NU, 7, 5, G, 7, -1, M, 4, -1, O, 0, -1, 0);
	assert_false(acl_to_mode(p, len, &mode));
	assert_int_equal(mode, 0104640);
}

static void test_chmod(void **state)
{
	uint8_t p[128];
	uint32_t mode = 0;
	size_t len = list(p, U, 7, -1, NU, 7, 5, G, 5, -1, M, 7, -1, O, 7, -1, 0);

	(void)state;
	acl_chmod(p, len, 0100640);
	assert_false(acl_to_mode(p, len, &mode));
	assert_int_equal(mode, 0640);
	/* The group entry stays what it was: the mask took the change. */
	assert_int_equal(get_le16(p + 4 + 2 * 8 + 2), 5);
	len = list(p, U, 7, -1, G, 5, -1, O, 7, -1, 0);
	acl_chmod(p, len, 0100604);
	assert_true(acl_to_mode(p, len, &mode));
	assert_int_equal(mode, 0604);
}

static void test_inherit(void **state)
{
	uint8_t p[128];
	uint32_t mode = 0100666;
	size_t len = list(p, U, 7, -1, NU, 7, 5, G, 5, -1, M, 7, -1, O, 5, -1, 0);

	(void)state;
	assert_true(acl_inherit(p, len, &mode));
	assert_int_equal(mode, 0100664);
	assert_int_equal(acl_check(p, len), 0);
	uint32_t of_acl = 0;
	acl_to_mode(p, len, &of_acl);
	assert_int_equal(of_acl, 0664);
	/* The named user's entry is not touched, the mask limits it. */
	assert_int_equal(get_le16(p + 4 + 8 + 2), 7);

	mode = 040777;
	len = list(p, U, 7, -1, G, 5, -1, O, 0, -1, 0);
	assert_false(acl_inherit(p, len, &mode));
	assert_int_equal(mode, 040750);
}

/* The mode a list stands for and the list agree, for every mode and permission triple. */
static void test_all_modes(void **state)
{
	uint8_t p[128];

	(void)state;
	for (int perms = 0; perms < 512; perms++) {
		for (uint32_t m = 0; m < 512; m += 7) {
			uint32_t mode = m, back = 0;
			size_t len = list(p, U, perms >> 6, -1, G, 7, -1, NG, 7, 1, M,
					  perms >> 3 & 7, -1, O, perms & 7, -1, 0);
			assert_true(acl_inherit(p, len, &mode));
			assert_int_equal(mode, m & (uint32_t)perms);
			acl_to_mode(p, len, &back);
			assert_int_equal(back, mode);
			acl_chmod(p, len, m);
			acl_to_mode(p, len, &back);
			assert_int_equal(back, m);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_check),	  cmocka_unit_test(test_to_mode),
		cmocka_unit_test(test_chmod),	  cmocka_unit_test(test_inherit),
		cmocka_unit_test(test_all_modes),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
