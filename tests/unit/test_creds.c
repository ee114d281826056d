/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "net/creds.h"

static char dir[64];

static int setup(void **state)
{
	(void)state;
	strcpy(dir, "/tmp/hf-test-creds-XXXXXX");
	return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	return rmdir(dir);
}

static int read_ini(struct creds *c, const char *text)
{
	return creds_read_ini(c, text, strlen(text), "test.ini");
}

static void test_read(void **state)
{
	struct creds *c;

	(void)state;
	assert_int_equal(creds_new(&c), 0);
	assert_null(creds_find(c, NULL));
	assert_null(creds_find(NULL, "x"));
	assert_int_equal(read_ini(c, "# said before any section\nbearer = tok\n\n[s3]\n"
				     "access_key=AK:1\r\nsecret_key = a=b ;c #d\nregion=eu\n"
				     "[friend one]\nusername = u\npassword = p w\n"),
			 0);
	assert_string_equal(creds_find(c, NULL)->bearer, "tok");
	assert_string_equal(creds_find(c, "s3")->access_key, "AK:1");
	assert_string_equal(creds_find(c, "s3")->secret_key, "a=b ;c #d");
	assert_string_equal(creds_find(c, "s3")->region, "eu");
	assert_null(creds_find(c, "s3")->session_token);
	assert_string_equal(creds_find(c, "friend one")->password, "p w");
	/* A second text replaces a profile as a whole and leaves the others. */
	assert_int_equal(read_ini(c, "[s3]\nbearer = x\n"), 0);
	assert_null(creds_find(c, "s3")->access_key);
	assert_string_equal(creds_find(c, "s3")->bearer, "x");
	assert_int_equal(creds_count(c), 3);
	creds_unref(c);
}

static void test_long_values(void **state)
{
	struct creds *c;
	size_t len = CREDS_LINE_CAP + 100;
	char *text = malloc(len + 1);

	(void)state;
	assert_int_equal(creds_new(&c), 0);
	memset(text, 'x', len);
	memcpy(text, "bearer=", 7);
	text[4000] = 0;
	assert_int_equal(read_ini(c, text), 0);
	assert_int_equal(strlen(creds_find(c, NULL)->bearer), 3993);
	text[4000] = 'x';
	text[len] = 0;
	assert_int_equal(read_ini(c, text), -EINVAL);
	assert_non_null(strstr(log_last(), "line 1"));
	assert_int_equal(strlen(creds_find(c, NULL)->bearer), 3993);
	free(text);
	creds_unref(c);
}

static void test_refused(void **state)
{
	static const char *const bad[][2] = {
		{"[a]\nsecret = hunter2\n", "line 2"},
		{"[a]\n\naccess_key = hunter2\n", "[a]"},
		{"[a]\nusername = hunter2\n", "username and password"},
		{"[a]\nsession_token = hunter2\n", "session_token"},
		{"[a]\npassword =\n", "line 2"},
		{"[a]\npassword hunter2\n", "line 2"},
		{"[a\npassword = hunter2\n", "line 1"},
		{"[a/b]\nbearer = hunter2\n", "line 2"},
		{"[a23456789012345678901234567890123456789012345678901]\nbearer = hunter2\n",
		 "line 1"},
		{"[a]\nbearer = hunter2\x01\n", "line 2"},
	};
	struct creds *c;

	(void)state;
	assert_int_equal(creds_new(&c), 0);
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		assert_int_equal(read_ini(c, bad[i][0]), -EINVAL);
		if (!strstr(log_last(), bad[i][1]) || !strstr(log_last(), "test.ini"))
			fail_msg("%s: %s", bad[i][0], log_last());
		assert_null(strstr(log_last(), "hunter2"));
		assert_int_equal(creds_count(c), 0);
	}
	assert_int_equal(creds_read_ini(c, "a\0b", 3, "z"), -EINVAL);
	creds_unref(c);
}

static void test_text(void **state)
{
	static const char *const want[] = {"b", "none", "b"};
	struct creds *c, *d, *e;
	struct buf x = {0}, y = {0};

	(void)state;
	assert_int_equal(creds_new(&c), 0);
	assert_int_equal(creds_new(&d), 0);
	assert_int_equal(read_ini(c, "[b]\nusername=u\npassword=\";p\n[a]\nbearer=x\n"), 0);
	assert_int_equal(creds_text(c, &x), 0);
	assert_int_equal(creds_read_ini(d, (char *)x.p, x.len, "again"), 0);
	assert_int_equal(creds_text(d, &y), 0);
	assert_int_equal(x.len, y.len);
	assert_memory_equal(x.p, y.p, x.len);
	assert_int_equal(creds_pick(c, want, 3, &e), 0);
	assert_int_equal(creds_count(e), 1);
	assert_string_equal(creds_find(e, "b")->password, "\";p");
	buf_release(&x);
	buf_release(&y);
	creds_ref(e);
	creds_unref(e);
	creds_unref(e);
	creds_unref(c);
	creds_unref(d);
	creds_unref(NULL);
}

static void test_file(void **state)
{
	struct creds *c;
	char path[96];

	(void)state;
	snprintf(path, sizeof path, "%s/c", dir);
	assert_int_equal(creds_new(&c), 0);
	assert_int_equal(creds_read_file(c, path), -ENOENT);
	assert_int_equal(file_write_atomic(path, "bearer=x\n", 9, 0600), 0);
	assert_int_equal(creds_read_file(c, path), 0);
	assert_int_equal(chmod(path, 0644), 0);
	assert_int_equal(creds_read_file(c, path), -EACCES);
	assert_non_null(strstr(log_last(), "chmod 600"));
	assert_int_equal(creds_read_file(c, dir), -EINVAL);
	unlink(path);
	creds_unref(c);
}

static void write_at(const char *name, const char *text, char path[96])
{
	snprintf(path, 96, "%s/%s", dir, name);
	assert_int_equal(file_write_atomic(path, text, strlen(text), 0644), 0);
}

static void test_aws(void **state)
{
	char credentials[96], config[96];
	struct creds *c;

	(void)state;
	write_at("credentials",
		 "[default]\naws_access_key_id = D\naws_secret_access_key = DS\n"
		 "[work]\naws_access_key_id=W\naws_secret_access_key=WS\n"
		 "aws_session_token=WT\n[half]\naws_access_key_id=H\n",
		 credentials);
	write_at("config",
		 "[default]\nregion = us-west-2\noutput = json\n[profile work]\n"
		 "region=eu-west-1\ns3 =\n  max_concurrent_requests = 20\n",
		 config);
	setenv("AWS_SHARED_CREDENTIALS_FILE", credentials, 1);
	setenv("AWS_CONFIG_FILE", config, 1);
	assert_int_equal(creds_new(&c), 0);
	assert_int_equal(creds_read_aws(c), 0);
	assert_string_equal(creds_find(c, NULL)->access_key, "D");
	assert_string_equal(creds_find(c, NULL)->region, "us-west-2");
	assert_string_equal(creds_find(c, "work")->session_token, "WT");
	assert_string_equal(creds_find(c, "work")->region, "eu-west-1");
	assert_null(creds_find(c, "half"));
	creds_unref(c);

	setenv("AWS_PROFILE", "work", 1);
	assert_int_equal(creds_new(&c), 0);
	assert_int_equal(creds_read_aws(c), 0);
	assert_string_equal(creds_find(c, NULL)->access_key, "W");
	creds_unref(c);

	setenv("AWS_ACCESS_KEY_ID", "E", 1);
	setenv("AWS_SECRET_ACCESS_KEY", "ES", 1);
	setenv("AWS_REGION", "ap-1", 1);
	assert_int_equal(creds_new(&c), 0);
	assert_int_equal(creds_read_aws(c), 0);
	assert_string_equal(creds_find(c, NULL)->secret_key, "ES");
	assert_null(creds_find(c, NULL)->session_token);
	assert_string_equal(creds_find(c, NULL)->region, "ap-1");
	creds_unref(c);
	unlink(credentials);
	unlink(config);

	/* Nothing there at all is fine. */
	unsetenv("AWS_ACCESS_KEY_ID");
	unsetenv("AWS_REGION");
	assert_int_equal(creds_new(&c), 0);
	assert_int_equal(creds_read_aws(c), 0);
	assert_int_equal(creds_count(c), 0);
	creds_unref(c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_read),	cmocka_unit_test(test_long_values),
		cmocka_unit_test(test_refused), cmocka_unit_test(test_text),
		cmocka_unit_test(test_file),	cmocka_unit_test(test_aws),
	};
	static const char *const names[] = {
		"AWS_ACCESS_KEY_ID",
		"AWS_SECRET_ACCESS_KEY",
		"AWS_SESSION_TOKEN",
		"AWS_REGION",
		"AWS_DEFAULT_REGION",
		"AWS_PROFILE",
		"HOME",
	};

	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
		unsetenv(names[i]);
	log_set_quiet(true);
	return cmocka_run_group_tests(tests, setup, teardown);
}
