/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <setjmp.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include "net/base.h"
#include <cmocka.h>

static char dir[] = "/tmp/test_base.XXXXXX";

static const char *in_dir(const char *name)
{
	static char path[512];

	snprintf(path, sizeof path, "%s/%s", dir, name);
	return path;
}

static void test_buf_and_reader(void **state)
{
	struct buf b = {0};
	(void)state;

	buf_u8(&b, 1);
	buf_u16(&b, 0x0203);
	buf_u32(&b, 0x04050607);
	buf_u64(&b, 0x08090a0b0c0d0e0f);
	buf_put(&b, "xyz", 3);
	buf_put(&b, NULL, 0);
	assert_int_equal(b.err, 0);
	assert_int_equal(b.len, 18);
	assert_memory_equal(b.p, "\1\3\2\7\6\5\4\xf\xe\xd\xc\xb\xa\x9\x8xyz", 18);

	struct rd r = rd_over(b.p, b.len);
	assert_int_equal(rd_u8(&r), 1);
	assert_int_equal(rd_u16(&r), 0x0203);
	assert_int_equal(rd_u32(&r), 0x04050607);
	assert_true(rd_u64(&r) == 0x08090a0b0c0d0e0f);
	assert_int_equal(rd_left(&r), 3);
	assert_memory_equal(rd_bytes(&r, 3), "xyz", 3);
	assert_false(r.bad);
	assert_int_equal(rd_u8(&r), 0);
	assert_true(r.bad);

	/* A read across the end takes nothing and stays bad. */
	r = rd_over(b.p, 3);
	assert_int_equal(rd_u32(&r), 0);
	assert_true(r.bad);
	assert_int_equal(rd_u8(&r), 0);
	assert_null(rd_bytes(&r, SIZE_MAX));

	/* Impossible sizes are an error that stays. */
	assert_null(buf_room(&b, SIZE_MAX));
	assert_int_equal(b.err, -ENOMEM);
	buf_u8(&b, 1);
	assert_int_equal(b.len, 18);
	buf_reset(&b);
	assert_int_equal(b.len + (size_t)b.err, 0);
	for (unsigned i = 0; i < 100000; i++)
		buf_u16(&b, (uint16_t)i);
	assert_int_equal(b.len, 200000);
	assert_int_equal(get_le16(b.p + 2 * 777), 777);
	buf_release(&b);
	assert_null(b.p);
}

static void test_base32(void **state)
{
	static const struct {
		const char *plain, *code;
	} known[] = {{"", ""},
		     {"f", "my"},
		     {"fo", "mzxq"},
		     {"foo", "mzxw6"},
		     {"foob", "mzxw6yq"},
		     {"fooba", "mzxw6ytb"},
		     {"foobar", "mzxw6ytboi"}};
	uint8_t in[40], back[64];
	char out[80];
	(void)state;

	for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
		base32_encode((const uint8_t *)known[i].plain, strlen(known[i].plain), out);
		assert_string_equal(out, known[i].code);
	}
	for (size_t len = 0; len <= sizeof in; len++) {
		for (size_t i = 0; i < len; i++)
			in[i] = (uint8_t)(i * 37 + len * 11);
		base32_encode(in, len, out);
		assert_int_equal(strlen(out), (len * 8 + 4) / 5);
		assert_int_equal(base32_decode(out, strlen(out), back, sizeof back), len);
		assert_memory_equal(in, back, len);
	}
	assert_int_equal(base32_decode("mz", 2, back, 1), -EBADMSG); /* spare bits not zero */
	assert_int_equal(base32_decode("a", 1, back, 1), -EBADMSG);
	assert_int_equal(base32_decode("MY", 2, back, 1), -EBADMSG);
	assert_int_equal(base32_decode("m1", 2, back, 1), -EBADMSG);
	assert_int_equal(base32_decode("my======", 8, back, 8), -EBADMSG);
	assert_int_equal(base32_decode("mzxq", 4, back, 1), -EBADMSG); /* too long */
}

static void test_files(void **state)
{
	struct buf b = {0};
	struct stat st;
	(void)state;

	assert_int_equal(file_read(in_dir("none"), 10, &b), -ENOENT);
	assert_int_equal(file_write_atomic(in_dir("f"), "0123456789", 10, 0640), 0);
	assert_int_equal(stat(in_dir("f"), &st), 0);
	assert_int_equal(st.st_mode & 07777, 0640);
	assert_int_equal(file_read(in_dir("f"), 9, &b), -EFBIG);
	assert_int_equal(b.len, 0);
	assert_int_equal(file_read(in_dir("f"), 10, &b), 0);
	assert_int_equal(b.len, 10);
	assert_memory_equal(b.p, "0123456789", 10);
	/* It is appended to what is there. */
	assert_int_equal(file_write_atomic(in_dir("f"), "ab", 2, 0600), 0);
	assert_int_equal(file_read(in_dir("f"), SIZE_MAX, &b), 0);
	assert_memory_equal(b.p, "0123456789ab", 12);
	assert_int_equal(file_write_atomic(in_dir("no/f"), "", 0, 0600), -ENOENT);

	buf_reset(&b);
	uint8_t *big = calloc(1, 200000);
	assert_int_equal(file_write_atomic(in_dir("big"), big, 200000, 0600), 0);
	assert_int_equal(file_read(in_dir("big"), 199999, &b), -EFBIG);
	assert_int_equal(file_read(in_dir("big"), 200000, &b), 0);
	assert_int_equal(b.len, 200000);
	free(big);
	buf_release(&b);

	assert_int_equal(mkdir_all(in_dir("a//b/c/"), 0700), 0);
	assert_int_equal(mkdir_all(in_dir("a/b/c"), 0700), 0);
	assert_int_equal(stat(in_dir("a/b/c"), &st), 0);
	assert_true(S_ISDIR(st.st_mode));
	assert_int_equal(mkdir_all(in_dir("f"), 0700), -ENOTDIR);
	assert_int_equal(mkdir_all(in_dir("f/g"), 0700), -ENOTDIR);
	assert_int_equal(mkdir_all("", 0700), -ENOENT);
	assert_int_equal(mkdir_all("/", 0700), 0);
}

static void test_log(void **state)
{
	struct buf b = {0};
	struct stat st;
	(void)state;

	errno = EXDEV;
	log_set_quiet(true);
	assert_int_equal(log_fail(-EIO, "node %d: %s", 7, "a\nb\033[2J"), -EIO);
	assert_int_equal(errno, EXDEV);
	assert_string_equal(log_last(), "node 7: a?b?[2J");

	assert_int_equal(log_to_file(in_dir("no/log")), -ENOENT);
	assert_int_equal(log_to_file(in_dir("log")), 0);
	log_set_level(LOG_LVL_INFO);
	log_info("one");
	log_debug("two");
	log_fail(-EIO, "three");
	assert_int_equal(file_read(in_dir("log"), 4096, &b), 0);
	buf_u8(&b, 0);
	assert_non_null(strstr((char *)b.p, "Z info: one\n"));
	assert_null(strstr((char *)b.p, "two"));
	assert_non_null(strstr((char *)b.p, "Z error: three\n"));
	buf_release(&b);

	char text[1001];
	memset(text, 'x', 1000);
	text[1000] = 0;
	for (unsigned i = 0; i < 8500; i++)
		log_info("%s", text);
	assert_int_equal(stat(in_dir("log.1"), &st), 0);
	assert_true(st.st_size <= 8 << 20 && st.st_size > (8 << 20) - 2000);
	assert_int_equal(stat(in_dir("log"), &st), 0);
	assert_true(st.st_size > 0 && st.st_size < 1 << 20);
	/* A line that is too long is cut, not split. */
	log_info("%s%s", text, text);
}

static void test_clocks(void **state)
{
	(void)state;
	int64_t a = now_ms();
	assert_true(now_ms() >= a && a > 0);
	assert_true(realtime_ns() > (int64_t)1600000000 * 1000000000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_buf_and_reader), cmocka_unit_test(test_base32),
		cmocka_unit_test(test_files),	       cmocka_unit_test(test_log),
		cmocka_unit_test(test_clocks),
	};
	if (!mkdtemp(dir))
		return 1;
	int bad = cmocka_run_group_tests(tests, NULL, NULL);
	const char *const left[] = {"f", "big", "log", "log.1", "a/b/c", "a/b", "a", ""};
	for (size_t i = 0; i < sizeof left / sizeof *left; i++)
		remove(in_dir(left[i]));
	return bad;
}
