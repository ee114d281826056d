/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include "fs/cmd.h"
#include "fs/config.h"

static char home[] = "/tmp/test_config.XXXXXX";

static void names(void **state)
{
	static const char *const good[] = {"a", "work", "A-b_c.9", "0"};
	static const char *const bad[] = {"",	 ".",	"..",  ".x",	  "-x",
					  "a/b", "a b", "a\n", "\xc3\xa4"};
	char longest[65];

	(void)state;
	for (size_t i = 0; i < sizeof good / sizeof *good; i++)
		assert_int_equal(config_check_name(good[i]), 0);
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		assert_int_equal(config_check_name(bad[i]), -EINVAL);
	memset(longest, 'a', 64);
	longest[64] = 0;
	assert_int_equal(config_check_name(longest), -EINVAL);
	longest[63] = 0;
	assert_int_equal(config_check_name(longest), 0);
}

static void home_order(void **state)
{
	char want[128], *got;
	struct stat st;

	(void)state;
	unsetenv("HOLDFAST_HOME");
	setenv("HOME", home, 1);
	setenv("XDG_DATA_HOME", "relative", 1);
	assert_int_equal(config_home(&got), 0);
	snprintf(want, sizeof want, "%s/.local/share/holdfast", home);
	assert_string_equal(got, want);
	/* Looking for it makes nothing. */
	assert_int_equal(stat(got, &st), -1);
	free(got);
	assert_int_equal(config_home_make(&got), 0);
	assert_string_equal(got, want);
	assert_int_equal(stat(got, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0700);
	free(got);
	snprintf(want, sizeof want, "%s/xdg", home);
	setenv("XDG_DATA_HOME", want, 1);
	assert_int_equal(config_home(&got), 0);
	snprintf(want, sizeof want, "%s/xdg/holdfast", home);
	assert_string_equal(got, want);
	free(got);
	snprintf(want, sizeof want, "%s/own", home);
	setenv("HOLDFAST_HOME", want, 1);
	assert_int_equal(config_home(&got), 0);
	assert_string_equal(got, want);
	free(got);
}

static struct config *sample(const char *name)
{
	struct rec_device d = {.number = 1, .role = 1};
	struct config *c;
	char *dir, url[32];

	assert_int_equal(config_path(name, &dir), 0);
	assert_int_equal(mkdir_all(dir, 0700), 0);
	assert_int_equal(config_new(&c, name, dir), 0);
	free(dir);
	memset(c->vol, 0x5a, sizeof c->vol);
	memset(c->owner_ed_pk, 0xa5, sizeof c->owner_ed_pk);
	c->device = 1;
	c->k = 2;
	c->m = 1;
	for (uint16_t i = 1; i <= 3; i++) {
		snprintf(url, sizeof url, "dir:/n/%u", i);
		assert_int_equal(config_add_node(c, i, url, strlen(url)), 0);
	}
	memset(d.ed_pk, 7, sizeof d.ed_pk);
	memset(d.cert, 9, sizeof d.cert);
	assert_int_equal(config_add_device(c, &d), 0);
	c->kit_path = strdup("/k/kit.txt");
	return c;
}

static void round_trip(void **state)
{
	struct config *a = sample("round"), *b;

	(void)state;
	assert_int_equal(config_save(a), 0);
	assert_int_equal(config_load("round", &b), 0);
	assert_string_equal(a->dir, b->dir);
	assert_string_equal(b->name, "round");
	assert_memory_equal(a->vol, b->vol, VOL_LEN);
	assert_memory_equal(a->owner_ed_pk, b->owner_ed_pk, 32);
	assert_int_equal(b->device, 1);
	assert_int_equal(b->k, 2);
	assert_int_equal(b->m, 1);
	assert_int_equal(b->node_cnt, 3);
	assert_int_equal(b->node[2].number, 3);
	assert_string_equal(b->node[2].url, "dir:/n/3");
	assert_int_equal(b->device_cnt, 1);
	assert_memory_equal(a->devices[0].cert, b->devices[0].cert, SIG_LEN);
	assert_string_equal(b->kit_path, "/k/kit.txt");
	config_free(a);
	config_free(b);
}

static int parse(const char *text)
{
	struct config *c;

	assert_int_equal(config_new(&c, "x", "/x"), 0);
	int err = config_parse(text, strlen(text), c);
	config_free(c);
	return err;
}

#define HEX16 "00112233445566778899aabbccddeeff"
#define HEX32 HEX16 HEX16
#define HEX64 HEX32 HEX32
#define HEAD  "{\"format\":1,\"volume\":\"" HEX16 "\",\"owner\":\"" HEX32 "\",\"device\":1,"
#define SHAPE "\"k\":1,\"m\":1,"
#define NODES "\"nodes\":[{\"number\":1,\"url\":\"dir:/a\"},{\"number\":2,\"url\":\"dir:/b\"}],"
#define DEVICES                                                                                \
	"\"devices\":[{\"number\":1,\"role\":1,\"key\":\"" HEX32 "\",\"certificate\":\"" HEX64 \
	"\"}]"

static void strict(void **state)
{
	(void)state;
	assert_int_equal(parse(HEAD SHAPE NODES DEVICES "}"), 0);
	assert_int_equal(parse(""), -EBADMSG);
	assert_int_equal(parse("{}"), -EBADMSG);
	assert_int_equal(parse("[1]"), -EBADMSG);
	assert_int_equal(parse(HEAD SHAPE NODES DEVICES "} x"), -EBADMSG);
	assert_int_equal(parse(HEAD SHAPE NODES DEVICES ",\"more\":1}"), -EBADMSG);
	assert_int_equal(parse(HEAD SHAPE NODES DEVICES ",\"kit\":1}"), -EBADMSG);
	assert_int_equal(parse(HEAD "\"k\":0,\"m\":1," NODES DEVICES "}"), -EBADMSG);
	assert_int_equal(parse(HEAD "\"k\":2,\"m\":1," NODES DEVICES "}"), -EBADMSG);
	assert_int_equal(parse(HEAD "\"k\":200,\"m\":1," NODES DEVICES "}"), -EBADMSG);
	assert_int_equal(parse(HEAD "\"k\":1.0,\"m\":1," NODES DEVICES "}"), -EBADMSG);
	assert_int_equal(parse(HEAD SHAPE DEVICES "}"), -EBADMSG);
	assert_int_equal(parse(HEAD SHAPE NODES "\"devices\":[]}"), -EBADMSG);
	assert_int_equal(parse(HEAD SHAPE "\"nodes\":[{\"number\":1,\"url\":\"dir:/a\"},"
					  "{\"number\":1,\"url\":\"dir:/b\"}]," DEVICES "}"),
			 -EBADMSG);
	assert_int_equal(parse(HEAD SHAPE "\"nodes\":[{\"number\":1,\"url\":\"dir:/a\"},"
					  "{\"number\":65535,\"url\":\"dir:/b\"}]," DEVICES
					  "}"),
			 -EBADMSG);
	assert_int_equal(parse("{\"format\":2}"), -ENOTSUP);
	assert_int_equal(parse(HEAD HEAD), -EBADMSG);
}

struct seen {
	char all[128];
};

static int see(void *arg, const char *name)
{
	struct seen *s = arg;

	strcat(s->all, name);
	strcat(s->all, " ");
	return 0;
}

static void list(void **state)
{
	struct config *a = sample("zebra"), *b = sample("ant");
	struct seen s = {""};
	struct config *none;
	char *half;

	(void)state;
	assert_int_equal(config_save(a), 0);
	assert_int_equal(config_save(b), 0);
	/* A directory without volume.json is no volume. */
	assert_int_equal(config_path("half", &half), 0);
	assert_int_equal(mkdir(half, 0700), 0);
	assert_int_equal(config_list(see, &s), 0);
	assert_string_equal(s.all, "ant round zebra ");
	assert_int_equal(config_load("half", &none), -ENOENT);
	assert_non_null(strstr(log_last(), "ant, round, zebra"));
	free(half);
	config_free(a);
	config_free(b);
}

static void hex(void **state)
{
	uint8_t p[3] = {0, 0xab, 0xff}, q[3];
	char s[7];

	(void)state;
	hex_encode(p, 3, s);
	assert_string_equal(s, "00abff");
	assert_int_equal(hex_decode(s, q, 3), 0);
	assert_memory_equal(p, q, 3);
	assert_int_equal(hex_decode("00abf", q, 3), -EBADMSG);
	assert_int_equal(hex_decode("00abfff", q, 3), -EBADMSG);
	assert_int_equal(hex_decode("00ABFF", q, 3), -EBADMSG);
}

static void numbers(void **state)
{
	uint64_t v;
	char s[SIZE_CAP];

	(void)state;
	assert_true(cmd_number("0", 10, &v) && v == 0);
	assert_true(cmd_number("10", 10, &v) && v == 10);
	assert_true(cmd_number("18446744073709551615", UINT64_MAX, &v) && v == UINT64_MAX);
	assert_false(cmd_number("18446744073709551616", UINT64_MAX, &v));
	assert_false(cmd_number("11", 10, &v));
	assert_false(cmd_number("", 10, &v));
	assert_false(cmd_number("-1", 10, &v));
	assert_false(cmd_number("1x", 10, &v));
	cmd_size(999, s);
	assert_string_equal(s, "999 B");
	cmd_size(1000, s);
	assert_string_equal(s, "1.0 kB");
	cmd_size(999960, s);
	assert_string_equal(s, "1.0 MB");
	cmd_size(UINT64_MAX, s);
	assert_string_equal(s, "18.4 EB");
}

static int setup(void **state)
{
	(void)state;
	log_set_quiet(true);
	return mkdtemp(home) ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	return cmd_remove_tree(home);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names),      cmocka_unit_test(home_order),
		cmocka_unit_test(round_trip), cmocka_unit_test(strict),
		cmocka_unit_test(list),	      cmocka_unit_test(hex),
		cmocka_unit_test(numbers),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
