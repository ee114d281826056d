/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdlib.h>

#include "net/node.h"

/* What is accepted, and the one way in which it is written. */
static void test_canonical(void **state)
{
	static const char *const same[][2] = {
		{"dir:/a/b", NULL},
		{"dir://a//b/./c/?domain=nas.1-x", "dir:/a/b/c?domain=nas.1-x"},
		{"s3+https://h/b", NULL},
		{"s3+https://H.Example:443/Bucket/", "s3+https://h.example/Bucket"},
		{"s3+http://127.0.0.1:80/b", "s3+http://127.0.0.1/b"},
		{"s3+http://127.9.9.9:9000/b/p//q/", "s3+http://127.9.9.9:9000/b/p/q"},
		{"s3+http://[::1]:9000/b", NULL},
		{"s3+https://h/b/a b?region=eu&profile=default",
		 "s3+https://h/b/a%20b?region=eu"},
		{"s3+https://h/b?profile=p&region=eu-1",
		 "s3+https://h/b?region=eu-1&profile=p"},
		{"s3+https://h/b?style=virtual&class=GLACIER_IR", NULL},
		{"s3+https://h/b?style=path", "s3+https://h/b"},
		{"s3+http://h/b?insecure=1", NULL},
		{"dav+https://h", NULL},
		{"dav+https://h/", "dav+https://h"},
		{"dav+https://h/%7euser/a%2Bb/%c3%a4", "dav+https://h/~user/a%2Bb/%C3%A4"},
		{"dav+http://localhost:8080/x", NULL},
		{"dav+https://h/x?ca=/etc/ca.pem&domain=d", NULL},
		{"dav+https://h/x?upload_limit=2048&download_limit=3000000",
		 "dav+https://h/x?upload_limit=2K&download_limit=3000000"},
		{"dav+https://h/x?download_limit=1G&upload_limit=1M",
		 "dav+https://h/x?upload_limit=1M&download_limit=1G"},
	};
	char canon[NODE_URL_CAP], again[NODE_URL_CAP];

	(void)state;
	for (size_t i = 0; i < sizeof same / sizeof same[0]; i++) {
		assert_int_equal(node_check_url(same[i][0], canon), 0);
		assert_string_equal(canon, same[i][1] ? same[i][1] : same[i][0]);
		assert_int_equal(node_check_url(canon, again), 0);
		assert_string_equal(canon, again);
	}
}

/* What is refused, and a word of the reason. */
static void test_refused(void **state)
{
	static const char *const bad[][2] = {
		{"", "unknown kind"},
		{"dir:", "absolute"},
		{"ftp://x/y", "unknown kind"},
		{"s3://b", "unknown kind"},
		{"s3+https:///b", "name of a host"},
		{"s3+https://h", "bucket"},
		{"s3+https://h/", "bucket"},
		{"s3+https://h/b%20x", "bucket"},
		{"s3+http://example.org/b", "insecure=1"},
		{"s3+http://128.0.0.1/b", "insecure=1"},
		{"s3+http://127.0.0.1.example/b", "insecure=1"},
		{"s3+http://127.1/b", "insecure=1"},
		{"dav+http://[::2]/b", "insecure=1"},
		{"dav+https://u:hunter2@h/b", "user or a password"},
		{"dav+https://hunter2@h/b?x=1", "user or a password"},
		{"https://u:hunter2@h/b", "user or a password"},
		{"dav+https://h/b?password=hunter2", "no option \"password\""},
		{"dav+https://h/b?region=x", "no option \"region\""},
		{"dav+https://h/b?insecure=yes", "insecure"},
		{"dav+https://h/b?ca=rel", "absolute"},
		{"dav+http://localhost/b?ca=/x", "https"},
		{"dav+https://h/b?domain=", "domain"},
		{"dav+https://h/b?domain=a&domain=b", "twice"},
		{"dav+https://h/b?domain", "name=value"},
		{"dav+https://h/b?upload_limit=0", "bytes a second"},
		{"dav+https://h/b?upload_limit=5T", "bytes a second"},
		{"dav+https://h/b?upload_limit=99999999999999999999", "bytes a second"},
		{"dav+https://h:0/b", "port"},
		{"dav+https://h:65536/b", "port"},
		{"dav+https://h:8x/b", "port"},
		{"dav+https://[::1/b", "IPv6"},
		{"dav+https://[1.2.3.4]/b", "IPv6"},
		{"dav+https://h_\xc3\xa4/b", "name of a host"},
		{"dav+https://h/a/../b", "\"..\""},
		{"dav+https://h/a/%2e%2e/b", "\"..\""},
		{"dav+https://h/a%2fb", "slash"},
		{"dav+https://h/a%0ab", "control"},
		{"dav+https://h/a%00b", "hexadecimal"},
		{"dav+https://h/a%4", "hexadecimal"},
		{"dav+https://h/a%", "hexadecimal"},
		{"dav+https://h/a#b", "%23"},
		{"s3+https://h/b?style=dns", "path or virtual"},
		{"s3+https://127.0.0.1/b?style=virtual", "virtual"},
		{"s3+https://h/b?class=cheap", "storage class"},
	};
	char canon[NODE_URL_CAP];

	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		assert_int_equal(node_check_url(bad[i][0], canon), -EINVAL);
		if (!strstr(log_last(), bad[i][1]))
			fail_msg("%s: %s", bad[i][0], log_last());
		/* A secret that was put into an address is not repeated. */
		assert_null(strstr(log_last(), "hunter2"));
	}
}

static void test_fields(void **state)
{
	struct node_url u;

	(void)state;
	assert_int_equal(url_parse(&u, "s3+https://h:9/b/x%20y/z?region=r&profile=p&ca=/c&"
				       "class=IA&upload_limit=1K&domain=d&style=virtual"),
			 0);
	assert_int_equal(u.kind, URL_S3);
	assert_true(u.tls && u.virtual_host && !u.insecure);
	assert_string_equal(u.host, "h");
	assert_int_equal(u.port, 9);
	assert_string_equal(u.bucket, "b");
	assert_string_equal(u.path, "x y/z");
	assert_string_equal(u.region, "r");
	assert_string_equal(u.profile, "p");
	assert_string_equal(u.ca, "/c");
	assert_string_equal(u.storage_class, "IA");
	assert_string_equal(u.domain, "d");
	assert_int_equal(u.up_limit, 1024);
	assert_int_equal(u.down_limit, 0);
	url_release(&u);
	url_release(&u);
	assert_int_equal(url_parse(&u, "dav+https://h/a b"), 0);
	assert_string_equal(u.path, "/a%20b");
	url_release(&u);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_canonical),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_fields),
	};

	log_set_quiet(true);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
