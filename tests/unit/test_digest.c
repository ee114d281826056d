/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Digest authentication: the examples of RFC 7616, challenges of all sorts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include "net/digest.h"

#define NONCE  "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v"
#define OPAQUE "FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"
#define CNONCE "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ"

static int take(struct digest *d, const char *v)
{
	return digest_challenge(d, v, strlen(v));
}

/* RFC 7616, 3.9.1. */
static void rfc(void **state)
{
	static const struct {
		const char *algorithm, *response;
	} each[] = {
		{"MD5", "response=\"8ca523f5e9506fed4657c9700eebdbec\""},
		{"SHA-256", "response=\"753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856"
			    "cb6c1\""},
	};
	char v[512], out[DIGEST_CAP];
	struct digest d;

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		snprintf(v, sizeof v,
			 "Digest realm=\"http-auth@example.org\", qop=\"auth, auth-int\", "
			 "algorithm=%s, nonce=\"" NONCE "\", opaque=\"" OPAQUE "\"",
			 each[i].algorithm);
		assert_int_equal(take(&d, v), 0);
		assert_int_equal(digest_answer(&d, "Mufasa", "Circle of Life", "GET",
					       "/dir/index.html", CNONCE, out), 0);
		assert_non_null(strstr(out, each[i].response));
		assert_non_null(strstr(out, "nc=00000001"));
		assert_non_null(strstr(out, "opaque=\"" OPAQUE "\""));
		/* The next one proves something else. */
		assert_int_equal(digest_answer(&d, "Mufasa", "Circle of Life", "GET",
					       "/dir/index.html", CNONCE, out), 0);
		assert_null(strstr(out, each[i].response));
		assert_non_null(strstr(out, "nc=00000002"));
	}
}

/* RFC 2069's form: no qop, so no count. */
static void old_form(void **state)
{
	char out[DIGEST_CAP];
	struct digest d;

	(void)state;
	assert_int_equal(take(&d, "Digest realm=\"r\",nonce=\"n\""), 0);
	assert_int_equal(digest_answer(&d, "u", "p", "GET", "/", "00", out), 0);
	assert_null(strstr(out, "nc="));
	assert_null(strstr(out, "qop"));
	assert_null(strstr(out, "opaque"));
}

static void challenges(void **state)
{
	struct digest d;
	char longest[2 * DIGEST_VALUE_CAP], v[4 * DIGEST_VALUE_CAP];

	(void)state;
	assert_int_equal(take(&d, "Basic realm=\"x, Digest y\", DIGEST Nonce=abc==, STALE=True"), 0);
	assert_string_equal(d.nonce, "abc==");
	assert_true(d.stale);
	assert_int_equal(take(&d, "Digest nonce=\"a\", qop=auth, Basic realm=\"nonce\""), 0);
	assert_string_equal(d.nonce, "a");
	assert_true(d.qop);
	assert_int_equal(take(&d, "Basic realm=\"x\""), -ENOENT);
	assert_int_equal(take(&d, ""), -ENOENT);
	assert_int_equal(take(&d, "Digest realm=\"r\""), -EINVAL);
	assert_int_equal(take(&d, "Digest nonce=\"a"), -EINVAL);
	assert_int_equal(take(&d, "Digest nonce="), -EINVAL);
	assert_int_equal(take(&d, "Digest nonce=\"a\", algorithm=MD5-sess"), -EINVAL);
	assert_int_equal(take(&d, "Digest nonce=\"a\", qop=\"auth-int\""), -EINVAL);
	memset(longest, 'n', sizeof longest);
	snprintf(v, sizeof v, "Digest nonce=\"%.*s\"", DIGEST_VALUE_CAP, longest);
	assert_int_equal(take(&d, v), -EINVAL);
	snprintf(v, sizeof v, "Digest nonce=\"%.*s\"", DIGEST_VALUE_CAP - 1, longest);
	assert_int_equal(take(&d, v), 0);
}

/* What would end a quoted string early, or a line, is not put into one. */
static void unquotable(void **state)
{
	char out[DIGEST_CAP], longest[DIGEST_CAP + 1];
	struct digest d;

	(void)state;
	assert_int_equal(take(&d, "Digest realm=\"r\\\"x\", nonce=\"n\""), 0);
	assert_int_equal(digest_answer(&d, "u", "p", "GET", "/", "00", out), -EINVAL);
	assert_int_equal(take(&d, "Digest realm=\"r\", nonce=\"n\""), 0);
	assert_int_equal(digest_answer(&d, "u\"", "p", "GET", "/", "00", out), -EINVAL);
	assert_int_equal(digest_answer(&d, "u", "p", "GET", "/\r\nX: y", "00", out), -EINVAL);
	memset(longest, 'u', DIGEST_CAP);
	longest[DIGEST_CAP] = 0;
	assert_int_equal(digest_answer(&d, longest, "p", "GET", "/", "00", out), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(rfc),
		cmocka_unit_test(old_form),
		cmocka_unit_test(challenges),
		cmocka_unit_test(unquotable),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
