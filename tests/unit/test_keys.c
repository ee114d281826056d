/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <setjmp.h>
#include <sodium.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include "net/keys.h"
#include <cmocka.h>

/* tests/golden/keys.hex holds `name hex` lines; HOLDFAST_GOLDEN=write makes it anew. */
#define GOLDEN "tests/golden/keys.hex"

static const uint8_t vol[VOL_LEN] = "volume 0123456";
static const uint8_t vk[KEY_LEN] = "the volume key of the golden one";
static const uint8_t kit[KEY_LEN] = "the kit secret of the golden one";
static const char pass[] = "correct horse";
static char dir[] = "/tmp/test_keys.XXXXXX";

static const char *in_dir(const char *name)
{
	static char path[512];

	snprintf(path, sizeof path, "%s/%s", dir, name);
	return path;
}

static void hex_is(const uint8_t *p, size_t len, const char *want)
{
	char hex[2 * 512 + 1];

	assert_true(len <= 512);
	sodium_bin2hex(hex, sizeof hex, p, len);
	assert_string_equal(hex, want);
}

static void test_hash_known_answer(void **state)
{
	uint8_t h[HASH_LEN];
	(void)state;

	/* Python: hashlib.blake2b(x, digest_size=32, person=tag) */
	hash_tag("holdfast", "abc", 3, h);
	hex_is(h, sizeof h, "fdc47af29e063481ca56d74f3f94fbcb2830762e30e79f01b37e3fbbd8d7f2a5");
	hash_tag("sixteen bytes ok", NULL, 0, h);
	hex_is(h, sizeof h, "5ba3e594cfe8ac8c793ad6056a24ff9808d16709137c897284c67663fd5fd958");
}

static void test_names_known_answer(void **state)
{
	struct seg_id seg = {"segment id 0123"};
	char name[BLOB_NAME_CAP], other[BLOB_NAME_CAP];
	struct keys *k;
	(void)state;

	assert_int_equal(keys_adopt(&k, vol, 1, vk), 0);
	keys_shard_name(k, &seg, 3, 7, name);
	assert_string_equal(name, "s/hz6z7nshtly4cnslxbud3ocuh4q3uupy");
	keys_log_name(k, 'c', 2, 9, name);
	assert_string_equal(name, "l/cv5usuib3vojlxmzbs3g4p7qpfpqexjac");
	keys_log_name(k, 's', 2, 9, other);
	assert_int_equal(strncmp(other, "l/s", 3), 0);
	assert_string_not_equal(name + 3, other + 3);
	keys_log_name(k, 't', 2, 0, other);
	assert_int_equal(strncmp(other, "l/t", 3), 0);
	assert_int_equal(strlen(other), 3 + NAME_LEN);
	assert_memory_equal(keys_vol(k), vol, VOL_LEN);
	assert_int_equal(keys_device(k), 1);

	uint8_t sk[KEY_LEN], tk[KEY_LEN];
	keys_segment(k, &seg, sk, tk);
	hex_is(sk, sizeof sk,
	       "8eeba66c57eae41e410cf3f63486921b29ba519d4409635d3547491f97f4b3fc");
	hex_is(tk, sizeof tk,
	       "c32b3f379696064ae60a77ff578f5d8fe4a8af647ccabfb553d52cd60885cdd5");
	keys_free(k);
	assert_int_equal(keys_adopt(&k, vol, 0, vk), -EINVAL);
	keys_free(NULL);
}

static void test_box(void **state)
{
	struct buf b = {0}, again = {0}, plain = {0};
	struct keys *k, *other;
	(void)state;

	assert_int_equal(keys_adopt(&k, vol, 1, vk), 0);
	assert_int_equal(keys_create(&other, vol, 1), 0);
	buf_put(&b, "head", 4);
	assert_int_equal(keys_box(k, KP_LOG, "aad", 3, "plain", 5, &b), 0);
	assert_int_equal(b.len, 4 + 5 + BOX_OVERHEAD);
	/* The same again gives the same bytes, anything else another nonce. */
	assert_int_equal(keys_box(k, KP_LOG, "aad", 3, "plain", 5, &again), 0);
	assert_memory_equal(b.p + 4, again.p, again.len);
	uint8_t nonce[24];
	memcpy(nonce, again.p, 24);
	buf_reset(&again);
	assert_int_equal(keys_box(k, KP_LOG, "aadp", 4, "lain", 4, &again), 0);
	assert_memory_not_equal(nonce, again.p, 24);

	for (size_t i = 0; i < b.len - 4; i++) {
		b.p[4 + i] ^= 0x10;
		assert_int_equal(keys_unbox(k, KP_LOG, "aad", 3, b.p + 4, b.len - 4, &plain),
				 -EBADMSG);
		b.p[4 + i] ^= 0x10;
		assert_int_equal(keys_unbox(k, KP_LOG, "aad", 3, b.p + 4, i, &plain), -EBADMSG);
	}
	assert_int_equal(keys_unbox(k, KP_LOG, "aae", 3, b.p + 4, b.len - 4, &plain), -EBADMSG);
	assert_int_equal(keys_unbox(k, KP_LOCAL, "aad", 3, b.p + 4, b.len - 4, &plain),
			 -EBADMSG);
	assert_int_equal(keys_unbox(other, KP_LOG, "aad", 3, b.p + 4, b.len - 4, &plain),
			 -EBADMSG);
	assert_int_equal(plain.len, 0);
	assert_int_equal(keys_unbox(k, KP_LOG, "aad", 3, b.p + 4, b.len - 4, &plain), 0);
	assert_int_equal(plain.len, 5);
	assert_memory_equal(plain.p, "plain", 5);
	buf_reset(&b);
	assert_int_equal(keys_box(k, KP_HEADER, NULL, 0, NULL, 0, &b), 0);
	assert_int_equal(keys_unbox(k, KP_HEADER, NULL, 0, b.p, b.len, &plain), 0);
	buf_release(&b);
	buf_release(&again);
	buf_release(&plain);
	keys_free(k);
	keys_free(other);
}

static void test_signatures(void **state)
{
	uint8_t sig[SIG_LEN], msg[] = "message";
	struct owner *o;
	struct keys *k;
	(void)state;

	assert_int_equal(keys_adopt(&k, vol, 1, vk), 0);
	assert_int_equal(keys_sign(k, "tag", msg, 7, sig), 0);
	assert_int_equal(device_verify(keys_device_pk(k), "tag", msg, 7, sig), 0);
	assert_int_equal(device_verify(keys_device_pk(k), "tah", msg, 7, sig), -EBADMSG);
	assert_int_equal(device_verify(keys_device_pk(k), "tag", msg, 6, sig), -EBADMSG);
	sig[3] ^= 1;
	assert_int_equal(device_verify(keys_device_pk(k), "tag", msg, 7, sig), -EBADMSG);

	assert_int_equal(owner_new(&o, kit), 0);
	assert_int_equal(owner_sign(o, "tag", msg, 7, sig), 0);
	assert_int_equal(owner_verify(o->ed_pk, "tag", msg, 7, sig), 0);
	assert_int_equal(owner_verify(keys_device_pk(k), "tag", msg, 7, sig), -EBADMSG);
	hex_is(o->ed_pk, 32,
	       "c673ee4e2aad6d5a6ee1c17474eadfefbe2e4cd4110a8631c5710ae0205e00c1");
	hex_is(o->x_pk, 32, "feb521d48b6f36a639795ba06281f90891f22233f9707418fa65fe8f1097aa41");
	owner_free(o);
	owner_free(NULL);
	keys_free(k);
}

static void test_kit_slot(void **state)
{
	uint8_t slot[KIT_SLOT_LEN], got[KEY_LEN], other_kit[KEY_LEN] = {1};
	struct owner *o, *other;
	struct keys *k;
	(void)state;

	assert_int_equal(keys_adopt(&k, vol, 1, vk), 0);
	assert_int_equal(owner_new(&o, kit), 0);
	assert_int_equal(owner_new(&other, other_kit), 0);
	assert_int_equal(keys_kit_slot(k, o->x_pk, slot), 0);
	assert_int_equal(kit_slot_open(other, slot, got), -EBADMSG);
	assert_int_equal(kit_slot_open(o, slot, got), 0);
	assert_memory_equal(got, vk, KEY_LEN);
	for (size_t i = 0; i < sizeof slot; i++) {
		slot[i] ^= 1;
		assert_int_equal(kit_slot_open(o, slot, got), -EBADMSG);
		slot[i] ^= 1;
	}
	const uint8_t zero[32] = {0};
	assert_int_equal(keys_kit_slot(k, zero, slot), -EINVAL);
	owner_free(o);
	owner_free(other);
	keys_free(k);
}

/* Two struct keys of one device: each box and signature of one is good for the other. */
static void assert_same(const struct keys *a, const struct keys *b)
{
	uint8_t sig[SIG_LEN];
	struct buf x = {0}, y = {0};

	assert_memory_equal(keys_vol(a), keys_vol(b), VOL_LEN);
	assert_int_equal(keys_device(a), keys_device(b));
	assert_int_equal(keys_sign(b, "t", "m", 1, sig), 0);
	assert_int_equal(device_verify(keys_device_pk(a), "t", "m", 1, sig), 0);
	for (enum key_purpose p = KP_LOG; p <= KP_LOCAL; p++) {
		keys_box(a, p, NULL, 0, "x", 1, &x);
		keys_box(b, p, NULL, 0, "x", 1, &y);
	}
	assert_int_equal(x.len, y.len);
	assert_memory_equal(x.p, y.p, x.len);
	buf_release(&x);
	buf_release(&y);
}

static int load(struct keys **k, const void *p, size_t len, const char *pw)
{
	assert_int_equal(file_write_atomic(in_dir("k2"), p, len, 0600), 0);
	return keys_load(k, in_dir("k2"), pw);
}

static void try_key_file(const char *pw)
{
	struct buf b = {0};
	struct stat st;
	struct keys *k, *l;

	assert_int_equal(keys_create(&k, vol, 513), 0);
	assert_int_equal(keys_save(k, in_dir("k"), pw), 0);
	assert_int_equal(stat(in_dir("k"), &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_int_equal(keys_needs_pass(in_dir("k")), pw != NULL);
	assert_int_equal(keys_load(&l, in_dir("k"), pw), 0);
	assert_same(k, l);
	keys_free(l);
	if (pw) {
		assert_int_equal(keys_load(&l, in_dir("k"), "wrong"), -EACCES);
		assert_null(l);
		assert_int_equal(keys_load(&l, in_dir("k"), NULL), -EACCES);
		assert_int_equal(keys_load(&l, in_dir("k"), ""), -EACCES);
	}
	assert_int_equal(file_read(in_dir("k"), 4096, &b), 0);
	for (size_t i = 0; i < b.len; i++) {
		b.p[i] ^= 4;
		int want = i == 8 || i == 9 ? -ENOTSUP : -EBADMSG; /* the version */
		assert_int_equal(load(&l, b.p, b.len, pw), want);
		b.p[i] ^= 4;
	}
	for (size_t i = 0; i < b.len; i += 7)
		assert_int_equal(load(&l, b.p, i, pw), -EBADMSG);
	buf_u8(&b, 0);
	assert_int_equal(load(&l, b.p, b.len, pw), -EBADMSG);

	/* Against who recomputes the checksum there are the bounds and the commitment. */
	b.len--;
	for (size_t i = 10; i < b.len - HASH_LEN; i += 3) {
		b.p[i] ^= 0x80;
		hash_tag("slot", b.p, b.len - HASH_LEN, b.p + b.len - HASH_LEN);
		/* The memory size of Argon2 can be any size, at the cost of time. */
		if (!pw || i < 30 || i > 60)
			assert_int_not_equal(load(&l, b.p, b.len, pw), 0);
		b.p[i] ^= 0x80;
	}
	buf_release(&b);
	keys_free(k);
	assert_int_equal(keys_load(&l, in_dir("none"), pw), -ENOENT);
	assert_int_equal(keys_needs_pass(in_dir("none")), -ENOENT);
	unlink(in_dir("k"));
	unlink(in_dir("k2"));
}

static void test_key_file_pass(void **state)
{
	(void)state;
	try_key_file(pass);
}

static void test_key_file_stored(void **state)
{
	(void)state;
	try_key_file(NULL);
}

static void test_pass(void **state)
{
	struct buf b = {0}, out = {0};
	(void)state;

	buf_put(&b, "head", 4);
	assert_int_equal(pass_seal(pass, "secret", 6, &b), 0);
	uint8_t *p = b.p + 4;
	size_t len = b.len - 4;
	assert_int_equal(pass_open(pass, p, len, &out), 0);
	assert_int_equal(out.len, 6);
	assert_memory_equal(out.p, "secret", 6);
	assert_int_equal(pass_open("x", p, len, &out), -EACCES);
	assert_int_equal(pass_open(NULL, p, len, &out), -EACCES);
	assert_int_equal(pass_open(pass, p, len - 1, &out), -EBADMSG);
	assert_int_equal(pass_seal(NULL, "", 0, &b), -EINVAL);
	for (size_t i = 0; i < len; i++) {
		p[i] ^= 1;
		/* Version 0 never was. */
		int want = i == 9 ? -ENOTSUP : -EBADMSG;
		assert_int_equal(pass_open(pass, p, len, &out), want);
		p[i] ^= 1;
	}
	assert_int_equal(out.len, 6);
	buf_u8(&b, 0);
	assert_int_equal(pass_open(pass, b.p + 4, len + 1, &out), -EBADMSG);

	/* Parameters that would take a day, or no time, are refused before they are used. */
	static const struct {
		size_t off;
		uint32_t v;
	} bad[] = {{29, 0}, {29, 17}, {29, UINT32_MAX}, {33, 8191}, {33, (4096u << 10) + 1}};
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		uint32_t was = get_le32(b.p + 4 + bad[i].off);
		assert_true(was == 3 || was == 8192);
		put_le32(b.p + 4 + bad[i].off, bad[i].v);
		hash_tag("slot", b.p + 4, len - HASH_LEN, b.p + 4 + len - HASH_LEN);
		assert_int_equal(pass_open(pass, b.p + 4, len, &out), -EBADMSG);
		put_le32(b.p + 4 + bad[i].off, was);
	}
	buf_release(&b);
	buf_release(&out);
}

/* What an earlier build has written must open for ever. */
static void test_golden(void **state)
{
	uint8_t bin[1024], got[KEY_LEN];
	struct buf out = {0};
	char name[32], hex[2049];
	size_t len, found = 0;
	struct keys *k;
	struct owner *o;
	(void)state;

	assert_int_equal(owner_new(&o, kit), 0);
	const char *how = getenv("HOLDFAST_GOLDEN");
	if (how && strcmp(how, "write") == 0) {
		FILE *f = fopen(GOLDEN, "w");
		struct buf b = {0};
		assert_non_null(f);
		assert_int_equal(keys_adopt(&k, vol, 5, vk), 0);
		for (unsigned i = 0; i < 2; i++) {
			assert_int_equal(keys_save(k, in_dir("g"), i ? NULL : pass), 0);
			buf_reset(&b);
			assert_int_equal(file_read(in_dir("g"), 4096, &b), 0);
			sodium_bin2hex(hex, sizeof hex, b.p, b.len);
			fprintf(f, "%s %s\n", i ? "keyfile-stored" : "keyfile-pass", hex);
		}
		buf_reset(&b);
		assert_int_equal(pass_seal(pass, "secret", 6, &b), 0);
		sodium_bin2hex(hex, sizeof hex, b.p, b.len);
		fprintf(f, "pass %s\n", hex);
		assert_int_equal(keys_kit_slot(k, o->x_pk, bin), 0);
		sodium_bin2hex(hex, sizeof hex, bin, KIT_SLOT_LEN);
		fprintf(f, "kitslot %s\n", hex);
		fclose(f);
		buf_release(&b);
		keys_free(k);
	}
	FILE *f = fopen(GOLDEN, "r");
	assert_non_null(f);
	while (fscanf(f, "%31s %2048s", name, hex) == 2) {
		assert_int_equal(
			sodium_hex2bin(bin, sizeof bin, hex, strlen(hex), NULL, &len, NULL), 0);
		found++;
		if (strncmp(name, "keyfile", 7) == 0) {
			assert_int_equal(load(&k, bin, len, pass), 0);
			struct keys *same;
			char a[BLOB_NAME_CAP], b[BLOB_NAME_CAP];
			assert_int_equal(keys_adopt(&same, vol, 5, vk), 0);
			keys_log_name(k, 'c', 1, 2, a);
			keys_log_name(same, 'c', 1, 2, b);
			assert_string_equal(a, b);
			assert_int_equal(keys_device(k), 5);
			keys_free(same);
			keys_free(k);
		} else if (strcmp(name, "pass") == 0) {
			assert_int_equal(pass_open(pass, bin, len, &out), 0);
			assert_int_equal(out.len, 6);
			assert_memory_equal(out.p, "secret", 6);
		} else {
			assert_string_equal(name, "kitslot");
			assert_int_equal(len, KIT_SLOT_LEN);
			assert_int_equal(kit_slot_open(o, bin, got), 0);
			assert_memory_equal(got, vk, KEY_LEN);
		}
	}
	fclose(f);
	assert_int_equal(found, 4);
	buf_release(&out);
	owner_free(o);
	unlink(in_dir("g"));
	unlink(in_dir("k2"));
}

static void test_global(void **state)
{
	struct rlimit r;
	(void)state;

	assert_int_equal(keys_global_init(), 0);
	assert_int_equal(getrlimit(RLIMIT_CORE, &r), 0);
	assert_int_equal(r.rlim_cur, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_hash_known_answer),
		cmocka_unit_test(test_names_known_answer),
		cmocka_unit_test(test_box),
		cmocka_unit_test(test_signatures),
		cmocka_unit_test(test_kit_slot),
		cmocka_unit_test(test_key_file_pass),
		cmocka_unit_test(test_key_file_stored),
		cmocka_unit_test(test_pass),
		cmocka_unit_test(test_golden),
		cmocka_unit_test(test_global),
	};

	setenv("HOLDFAST_ARGON_MIB", "8", 1);
	log_set_quiet(true);
	if (keys_global_init() || !mkdtemp(dir))
		return 1;
	int bad = cmocka_run_group_tests(tests, NULL, NULL);
	rmdir(dir);
	return bad;
}
