/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Vectors that AWS publishes: "Authenticating Requests: Using the Authorization Header" of
 * the S3 API Reference, and the Signature Version 4 test suite.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <sodium.h>

#include "net/sigv4.h"

#define CNT(a) (sizeof(a) / sizeof(a)[0])

/* 2013-05-24T00:00:00Z and 2015-08-30T12:36:00Z */
#define S3_TIME	   1369353600
#define SUITE_TIME 1440938160

static struct sigv4 s3(const char *method, const char *path, const char *query)
{
	return (struct sigv4){
		.method = method,
		.host = "examplebucket.s3.amazonaws.com",
		.path = path,
		.query = query,
		.payload = SIGV4_EMPTY,
		.access_key = "AKIAIOSFODNN7EXAMPLE",
		.secret_key = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
		.region = "us-east-1",
		.service = "s3",
		.time_s = S3_TIME,
	};
}

static void expect(const struct sigv4 *s, const char *right)
{
	struct buf out = {0};

	assert_int_equal(sigv4_sign(s, &out), 0);
	buf_u8(&out, 0);
	assert_string_equal((char *)out.p, right);
	buf_release(&out);
}

#define S3_AUTH                                                                                \
	"AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,"
#define PLAIN_HEADS "SignedHeaders=host;x-amz-content-sha256;x-amz-date,"

static void test_s3(void **state)
{
	static const char *const plain[][2] = {
		{"host", "examplebucket.s3.amazonaws.com"},
		{"x-amz-content-sha256", SIGV4_EMPTY},
		{"x-amz-date", "20130524T000000Z"},
	};
	static const char *const range[][2] = {
		{"host", "examplebucket.s3.amazonaws.com"},
		{"range", "bytes=0-9"},
		{"x-amz-content-sha256", SIGV4_EMPTY},
		{"x-amz-date", "20130524T000000Z"},
	};
	char hash[SIGV4_HEX];
	const char *put[][2] = {
		{"date", "Fri, 24 May 2013 00:00:00 GMT"},
		{"host", "examplebucket.s3.amazonaws.com"},
		{"x-amz-content-sha256", hash},
		{"x-amz-date", "20130524T000000Z"},
		{"x-amz-storage-class", "REDUCED_REDUNDANCY"},
	};

	(void)state;
	struct sigv4 s = s3("GET", "/test.txt", "");
	s.header = range;
	s.header_cnt = CNT(range);
	expect(&s, S3_AUTH "SignedHeaders=host;range;x-amz-content-sha256;x-amz-date,Signature="
			   "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41");

	s = s3("PUT", "/test%24file.text", "");
	sigv4_hash_hex("Welcome to Amazon S3.", 21, hash);
	assert_string_equal(hash,
			    "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072");
	s.payload = hash;
	s.header = put;
	s.header_cnt = CNT(put);
	expect(&s, S3_AUTH "SignedHeaders=date;host;x-amz-content-sha256;x-amz-date;"
			   "x-amz-storage-class,Signature="
			   "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd");

	s = s3("GET", "/", "lifecycle=");
	s.header = plain;
	s.header_cnt = CNT(plain);
	expect(&s, S3_AUTH PLAIN_HEADS
	       "Signature=fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543");
	s.query = "max-keys=2&prefix=J";
	expect(&s, S3_AUTH PLAIN_HEADS
	       "Signature=34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7");
}

#define SUITE_AUTH                                                                             \
	"AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request,"     \
	"SignedHeaders=host;x-amz-date,Signature="

static void test_suite(void **state)
{
	static const char *const head[][2] = {
		{"host", "example.amazonaws.com"},
		{"x-amz-date", "20150830T123600Z"},
	};
	struct sigv4 s = {
		.method = "GET",
		.host = "example.amazonaws.com",
		.path = "/",
		.query = "",
		.header = head,
		.header_cnt = CNT(head),
		.payload = SIGV4_EMPTY,
		.access_key = "AKIDEXAMPLE",
		.secret_key = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
		.region = "us-east-1",
		.service = "service",
		.time_s = SUITE_TIME,
	};

	(void)state;
	/* get-vanilla, get-vanilla-query-order-key-case, post-vanilla */
	expect(&s,
	       SUITE_AUTH "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31");
	s.query = "Param1=value1&Param2=value2";
	expect(&s,
	       SUITE_AUTH "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500");
	s.query = "";
	s.method = "POST";
	expect(&s,
	       SUITE_AUTH "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b");
}

static void test_date(void **state)
{
	char date[17];

	(void)state;
	sigv4_date(SUITE_TIME, date);
	assert_string_equal(date, "20150830T123600Z");
	sigv4_date(0, date);
	assert_string_equal(date, "19700101T000000Z");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_s3),
		cmocka_unit_test(test_suite),
		cmocka_unit_test(test_date),
	};

	if (sodium_init() < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
