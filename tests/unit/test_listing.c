/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdlib.h>

#include "net/listing.h"

/* What came of a document: the entries as one line each. */
static struct buf got;

static int note(void *arg, const struct listing_entry *e)
{
	char line[300];

	(void)arg;
	int n = snprintf(line, sizeof line, "%s %c %lld %lld %u\n", e->name,
			 e->collection ? 'd' : '-', (long long)e->size,
			 (long long)e->quota_available, e->status);
	buf_put(&got, line, (size_t)n);
	return 0;
}

/* All at once and byte by byte must be the same. */
static int read_all(enum listing_kind kind, const char *text, struct listing **out)
{
	struct listing *l;
	int err[2] = {0};
	struct buf first = {0};

	for (int pass = 0; pass < 2; pass++) {
		size_t len = strlen(text), step = pass ? 1 : HF_MAX(len, (size_t)1);

		buf_reset(&got);
		assert_int_equal(listing_new(&l, kind, note, NULL), 0);
		for (size_t at = 0; at < len && !err[pass]; at += step)
			err[pass] = listing_feed(l, (const uint8_t *)text + at, step);
		if (!err[pass])
			err[pass] = listing_end(l);
		if (!pass && got.len)
			buf_put(&first, got.p, got.len);
		if (!pass)
			listing_free(l);
	}
	assert_int_equal(err[0], err[1]);
	if (!err[0] && got.len)
		assert_memory_equal(first.p, got.p, got.len);
	buf_release(&first);
	buf_u8(&got, 0);
	*out = l;
	return err[0];
}

static void test_s3(void **state)
{
	struct listing *l;

	(void)state;
	assert_int_equal(read_all(LISTING_S3,
				  "<?xml version=\"1.0\"?><ListBucketResult "
				  "xmlns=\"http://s3.amazonaws.com/doc/\">"
				  "<Name>b</Name><EncodingType>url</"
				  "EncodingType><IsTruncated>true</IsTruncated>"
				  "<Contents><Key>p%20q/l/ab</Key><Size>12</"
				  "Size><Owner><ID>Key</ID></Owner></Contents>"
				  "<Contents><Size>7</Size><Key>x&amp;y</Key></Contents>"
				  "<CommonPrefixes><Prefix>z/</Prefix></CommonPrefixes>"
				  "<NextContinuationToken>1/tok=</NextContinuationToken></"
				  "ListBucketResult>",
				  &l),
			 0);
	assert_string_equal((char *)got.p, "p q/l/ab - 12 -1 0\nx&y - 7 -1 0\n");
	assert_true(listing_truncated(l));
	assert_string_equal(listing_token(l), "1/tok=");
	assert_string_equal(listing_root(l), "ListBucketResult");
	listing_free(l);

	/* Without a namespace, and empty. */
	assert_int_equal(read_all(LISTING_S3,
				  "<ListBucketResult><IsTruncated>false</IsTruncated>"
				  "</ListBucketResult>",
				  &l),
			 0);
	assert_false(listing_truncated(l));
	listing_free(l);

	assert_int_equal(read_all(LISTING_S3,
				  "<Error><Code>NoSuchKey</Code><Message>It is not."
				  "</Message><Region>eu-1</Region><Key>a</Key></Error>",
				  &l),
			 0);
	assert_string_equal(listing_error_code(l), "NoSuchKey");
	assert_string_equal(listing_error_text(l), "It is not.");
	assert_string_equal(listing_error_region(l), "eu-1");
	listing_free(l);
}

static void test_dav(void **state)
{
	struct listing *l;

	(void)state;
	assert_int_equal(
		read_all(LISTING_DAV,
			 "<?xml version=\"1.0\"?><d:multistatus xmlns:d=\"DAV:\" "
			 "xmlns:x=\"urn:x\">"
			 "<d:response><d:href>/a/</d:href><d:propstat><d:prop><d:resourcetype>"
			 "<d:collection/></d:resourcetype><d:quota-available-bytes>5</"
			 "d:quota-available-bytes>"
			 "</d:prop><d:status>HTTP/1.1 200 "
			 "OK</d:status></d:propstat></d:response>"
			 "<d:response><x:href>/no</x:href><d:href>/a/b%20c</"
			 "d:href><d:propstat><d:prop>"
			 "<d:getcontentlength> 77 "
			 "</d:getcontentlength><d:resourcetype/></d:prop></d:propstat>"
			 "</d:response>"
			 "<d:response><d:href>/a/q</d:href><d:status>HTTP/1.1 403 "
			 "No</d:status></d:response>"
			 "</d:multistatus>",
			 &l),
		0);
	assert_string_equal((char *)got.p,
			    "/a/ d -1 5 0\n/a/b%20c - 77 -1 0\n/a/q - -1 -1 403\n");
	listing_free(l);
}

static void test_refused(void **state)
{
	static const struct {
		enum listing_kind kind;
		const char *text, *why;
	} bad[] = {
		{LISTING_S3, "", "no element"},
		{LISTING_S3, "<ListBucketResult><Contents><Key>a</Key></Contents>",
		 "no element"},
		{LISTING_S3, "<!DOCTYPE a [<!ENTITY x \"y\">]><ListBucketResult/>", "DOCTYPE"},
		{LISTING_S3, "<ListBucketResult><Contents></Contents></ListBucketResult>",
		 "name"},
		{LISTING_S3,
		 "<ListBucketResult><Contents><Key>%4</Key></Contents></ListBucketResult>",
		 "encoded"},
		{LISTING_S3, "{\"json\": 1}", "well-formed"},
		{LISTING_DAV, "<multistatus/>", "multistatus"},
		{LISTING_DAV, "<html xmlns=\"DAV:\"/>", "multistatus"},
		{LISTING_DAV, "<D:multistatus xmlns:D=\"DAV:\"><D:response/></D:multistatus>",
		 "name"},
	};
	struct listing *l;

	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		assert_int_equal(read_all(bad[i].kind, bad[i].text, &l), -EBADMSG);
		if (!strstr(listing_why(l), bad[i].why))
			fail_msg("%s: %s", bad[i].text, listing_why(l));
		listing_free(l);
	}
}

static void test_caps(void **state)
{
	struct listing *l;
	struct buf b = {0};

	(void)state;
	for (unsigned i = 0; i <= LISTING_DEPTH; i++)
		buf_put(&b, "<a>", 3);
	assert_int_equal(listing_new(&l, LISTING_S3, NULL, NULL), 0);
	assert_int_equal(listing_feed(l, b.p, b.len), -EBADMSG);
	assert_non_null(strstr(listing_why(l), "deep"));
	/* As new. */
	assert_int_equal(listing_reset(l), 0);
	buf_reset(&b);
	static const char head[] = "<ListBucketResult><Contents><Key>";
	buf_put(&b, head, sizeof head - 1);
	for (unsigned i = 0; i < LISTING_TEXT_CAP; i++)
		buf_u8(&b, 'k');
	assert_int_equal(listing_feed(l, b.p, b.len), -EBADMSG);
	assert_non_null(strstr(listing_why(l), "too long"));
	/* The same as text that nobody wants is passed over, until the whole is too long. */
	assert_int_equal(listing_reset(l), 0);
	assert_int_equal(listing_feed(l, (const uint8_t *)"<ListBucketResult><X>", 21), 0);
	uint8_t *p = malloc(1u << 20);
	memset(p, 'x', 1u << 20);
	int err = 0;
	unsigned cnt = 0;
	for (; cnt < 100 && !err; cnt++)
		err = listing_feed(l, p, 1u << 20);
	assert_int_equal(err, -EBADMSG);
	assert_int_equal(cnt, (LISTING_CAP >> 20));
	free(p);
	listing_free(l);
	buf_release(&b);
}

static void test_href(void **state)
{
	static const struct {
		const char *href, *dir, *leaf;
		bool slash;
	} good[] = {
		{"/a/b", "a", "b", false},
		{"/x/a/b/", "a", "b", true},
		{"http://h:80/x/l/c%61", "l", "ca", false},
		{"/x//l//c?q=/r", "l", "c", false},
		{"a%20b/c", "a b", "c", false},
	};
	static const char *const bad[] = {"",	      "/",	   "/a",     "a",
					  "http://h", "http://h/", "/a/%zz", "/a/%00"};
	char dir[64], leaf[64];
	bool slash;

	(void)state;
	for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
		assert_int_equal(listing_href(good[i].href, dir, leaf, sizeof dir, &slash), 0);
		assert_string_equal(dir, good[i].dir);
		assert_string_equal(leaf, good[i].leaf);
		assert_int_equal(slash, good[i].slash);
	}
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
		assert_int_equal(listing_href(bad[i], dir, leaf, sizeof dir, &slash), -EINVAL);
	assert_int_equal(listing_href("/a/bcd", dir, leaf, 3, &slash), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_s3),	cmocka_unit_test(test_dav),
		cmocka_unit_test(test_refused), cmocka_unit_test(test_caps),
		cmocka_unit_test(test_href),
	};

	int failed = cmocka_run_group_tests(tests, NULL, NULL);
	buf_release(&got);
	return failed;
}
