/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <sodium.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fs/secrets.h"

#define S3   "s3+https://s3.example.net/bucket/one?profile=cloud"
#define DAV  "dav+https://dav.example.net/two?profile=friend"
#define BARE "dav+https://dav.example.net/three"

static const char text[] = "[cloud]\naccess_key = AKIA1\nsecret_key = veryse/cret+\n"
			   "[friend]\nusername = me\npassword = hunter2\n"
			   "[other]\nbearer = tokentoken\n";
static char dir[] = "/tmp/test_secrets.XXXXXX";

static struct creds *from(const char *ini)
{
	struct creds *c;

	assert_int_equal(creds_new(&c), 0);
	assert_int_equal(creds_read_ini(c, ini, strlen(ini), "test"), 0);
	return c;
}

static void needs(void **state)
{
	struct creds *c = from(text), *none = from("");

	(void)state;
	assert_false(secrets_remote("dir:/a"));
	assert_true(secrets_remote(BARE));
	assert_false(secrets_needed(BARE));
	assert_true(secrets_needed(DAV));
	assert_true(secrets_needed("s3+https://s3.example.net/bucket"));
	assert_int_equal(secrets_check(NULL, "dir:/a"), 0);
	assert_int_equal(secrets_check(NULL, BARE), 0);
	assert_int_equal(secrets_check(c, S3), 0);
	assert_int_equal(secrets_check(c, DAV), 0);
	assert_int_equal(secrets_check(NULL, S3), -ENOKEY);
	assert_non_null(strstr(log_last(), "[cloud]"));
	assert_int_equal(secrets_check(none, DAV), -ENOKEY);
	/* Each kind needs its own. */
	assert_int_equal(secrets_check(c, "s3+https://h.example/b?profile=friend"), -ENOKEY);
	assert_int_equal(secrets_check(c, "dav+https://h.example/b?profile=cloud"), -ENOKEY);
	assert_int_equal(secrets_check(c, "dav+https://h.example/b?profile=other"), 0);
	assert_int_equal(secrets_check(c, "s3+https://h.example/b"), -ENOKEY);
	assert_null(strstr(log_last(), "AKIA1"));
	creds_unref(c);
	creds_unref(none);
}

static void picks(void **state)
{
	char s3[] = S3, dir_url[] = "dir:/a", bare[] = BARE;
	struct node_spec node[] = {{.number = 1, .url = s3},
				   {.number = 2, .url = dir_url},
				   {.number = 3, .url = bare}};
	struct creds *c = from(text), *got;

	(void)state;
	assert_int_equal(secrets_pick(c, node, 3, &got), 0);
	assert_int_equal(creds_count(got), 1);
	assert_non_null(creds_find(got, "cloud"));
	creds_unref(got);
	assert_int_equal(secrets_pick(c, node + 1, 2, &got), 0);
	assert_null(got);
	creds_unref(c);
	/* The default of WebDAV is meant; that of S3 is nobody's business there. */
	c = from("username = u\npassword = p\n");
	assert_int_equal(secrets_pick(c, node + 2, 1, &got), 0);
	assert_non_null(creds_find(got, NULL));
	creds_unref(got);
	creds_unref(c);
	c = from("access_key = u\nsecret_key = p\n");
	assert_int_equal(secrets_pick(c, node + 2, 1, &got), 0);
	assert_null(got);
	creds_unref(c);
}

static void merges(void **state)
{
	struct creds *a = from(text), *b = from("[friend]\nbearer = new\n"), *c;

	(void)state;
	assert_int_equal(secrets_merge(a, b, &c), 0);
	assert_int_equal(creds_count(c), 3);
	assert_string_equal(creds_find(c, "friend")->bearer, "new");
	assert_null(creds_find(c, "friend")->password);
	assert_string_equal(creds_find(c, "cloud")->secret_key, "veryse/cret+");
	creds_unref(c);
	assert_int_equal(secrets_merge(NULL, NULL, &c), 0);
	assert_int_equal(creds_count(c), 0);
	creds_unref(a);
	creds_unref(b);
	creds_unref(c);
}

/* Every bit counts, and every length; and it opens with this volume's key alone. */
static void sealed(void **state)
{
	uint8_t vol[VOL_LEN] = {1}, vol2[VOL_LEN] = {2};
	struct creds *c = from(text), *got;
	struct keys *keys, *others, *same_vol;
	struct buf b = {0}, again = {0}, t1 = {0}, t2 = {0};

	(void)state;
	assert_int_equal(keys_create(&keys, vol, 1), 0);
	assert_int_equal(keys_create(&others, vol2, 1), 0);
	assert_int_equal(keys_create(&same_vol, vol, 1), 0);
	assert_int_equal(secrets_seal(keys, c, &b), 0);
	assert_int_equal(secrets_seal(keys, c, &again), 0);
	assert_int_equal(b.len, again.len);
	assert_memory_equal(b.p, again.p, b.len);
	assert_null(memmem(b.p, b.len, "hunter2", 7));
	assert_null(memmem(b.p, b.len, "friend", 6));
	assert_int_equal(secrets_unseal(keys, b.p, b.len, &got), 0);
	assert_int_equal(creds_text(c, &t1), 0);
	assert_int_equal(creds_text(got, &t2), 0);
	assert_int_equal(t1.len, t2.len);
	assert_memory_equal(t1.p, t2.p, t1.len);
	creds_unref(got);
	assert_int_equal(secrets_unseal(others, b.p, b.len, &got), -EBADMSG);
	assert_int_equal(secrets_unseal(same_vol, b.p, b.len, &got), -EBADMSG);
	for (size_t len = 0; len < b.len; len++)
		assert_int_equal(secrets_unseal(keys, b.p, len, &got), -EBADMSG);
	for (size_t bit = 0; bit < 8 * b.len; bit++) {
		b.p[bit / 8] ^= (uint8_t)(1u << bit % 8);
		int err = secrets_unseal(keys, b.p, b.len, &got);
		/* Higher versions are told from damage. */
		assert_true(err == -EBADMSG || (bit / 8 >= 8 && bit / 8 < 10 && err == -ENOTSUP));
		assert_null(got);
		b.p[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	buf_u8(&b, 0);
	assert_int_equal(secrets_unseal(keys, b.p, b.len, &got), -EBADMSG);
	buf_release(&b);
	buf_release(&again);
	buf_release(&t1);
	buf_release(&t2);
	creds_unref(c);
	keys_free(keys);
	keys_free(others);
	keys_free(same_vol);
}

static void give(const char *path, const char *ini)
{
	assert_int_equal(file_write_atomic(path, ini, strlen(ini), 0600), 0);
}

static void kept(void **state)
{
	uint8_t vol[VOL_LEN] = {1};
	struct creds *c = from(text), *got;
	struct config *cfg;
	struct keys *keys;
	struct stat st;
	char path[64], ini[64];

	(void)state;
	assert_int_equal(keys_create(&keys, vol, 1), 0);
	assert_int_equal(config_new(&cfg, "v", dir), 0);
	assert_int_equal(config_add_node(cfg, 1, S3, strlen(S3)), 0);
	assert_int_equal(config_add_node(cfg, 2, DAV, strlen(DAV)), 0);
	snprintf(path, sizeof path, "%s/" SECRETS_FILE, dir);
	snprintf(ini, sizeof ini, "%s/ini", dir);
	assert_int_equal(secrets_load(cfg, keys, &got), 0);
	assert_null(got);
	assert_int_equal(secrets_save(cfg, keys, c), 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_int_equal(secrets_load(cfg, keys, &got), 0);
	assert_int_equal(creds_count(got), 2);
	creds_unref(got);
	/* A new password; what is not given stays. */
	give(ini, "[friend]\nusername = me\npassword = changed\n");
	assert_int_equal(secrets_update(cfg, keys, ini, true), 0);
	assert_int_equal(secrets_load(cfg, keys, &got), 0);
	assert_string_equal(creds_find(got, "friend")->password, "changed");
	assert_string_equal(creds_find(got, "cloud")->access_key, "AKIA1");
	creds_unref(got);
	/* What would leave a node without is refused and changes nothing. */
	give(ini, "[friend]\naccess_key = a\nsecret_key = b\n");
	assert_int_equal(secrets_update(cfg, keys, ini, true), -ENOKEY);
	assert_int_equal(secrets_load(cfg, keys, &got), 0);
	assert_string_equal(creds_find(got, "friend")->password, "changed");
	creds_unref(got);
	/* A damaged file: a drive comes up without, an update puts it right. */
	assert_int_equal(file_write_atomic(path, "x", 1, 0600), 0);
	assert_int_equal(secrets_load(cfg, keys, &got), -EBADMSG);
	assert_int_equal(secrets_open(cfg, keys, &got), 0);
	assert_null(got);
	give(ini, text);
	assert_int_equal(secrets_update(cfg, keys, ini, true), 0);
	assert_int_equal(secrets_load(cfg, keys, &got), 0);
	assert_int_equal(creds_count(got), 2);
	creds_unref(got);
	assert_int_equal(secrets_save(cfg, keys, NULL), 0);
	assert_int_equal(stat(path, &st), -1);
	unlink(ini);
	creds_unref(c);
	keys_free(keys);
	config_free(cfg);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(needs),  cmocka_unit_test(picks), cmocka_unit_test(merges),
		cmocka_unit_test(sealed), cmocka_unit_test(kept),
	};

	log_set_quiet(true);
	if (keys_global_init() || !mkdtemp(dir))
		return 1;
	int failed = cmocka_run_group_tests(tests, NULL, NULL);
	rmdir(dir);
	return failed;
}
