/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include "net/padded.h"
#include "net/roster.h"

#define CORPUS		   "tests/fuzz/corpus/roster/"
#define GEN(count, device) ((uint64_t)(count) << 16 | (device))
#define CREDS		   "[default]\nuser = a\npassword = b\n"

static uint8_t vk[KEY_LEN], vol[VOL_LEN], vol2[VOL_LEN];

static void sample(struct roster *r, uint64_t generation)
{
	*r = (struct roster){.generation = generation};
	/* Not in order: roster_add sees to that. */
	assert_int_equal(roster_add(r, 9, NODE_GONE, "dir:/gone"), 0);
	assert_int_equal(roster_add(r, 1, NODE_MEMBER, "dir:/a"), 0);
	assert_int_equal(roster_add(r, 7, NODE_DRAINING, "dir:/b c"), 0);
	assert_int_equal(roster_add(r, 7, NODE_MEMBER, "dir:/d"), -EEXIST);
	buf_put(&r->creds, CREDS, strlen(CREDS));
}

static struct hist_device device(const struct keys *k)
{
	struct hist_device d = {.number = keys_device(k)};

	memcpy(d.ed_pk, keys_device_pk(k), sizeof d.ed_pk);
	return d;
}

static void same(const struct roster *a, const struct roster *b)
{
	assert_int_equal(a->node_cnt, b->node_cnt);
	for (size_t i = 0; i < a->node_cnt; i++) {
		assert_int_equal(a->node[i].number, b->node[i].number);
		assert_int_equal(a->node[i].member, b->node[i].member);
		assert_string_equal((const char *)a->node[i].url, (const char *)b->node[i].url);
	}
	assert_int_equal(a->creds.len, b->creds.len);
	if (a->creds.len)
		assert_memory_equal(a->creds.p, b->creds.p, a->creds.len);
}

static void test_round_trip(void **state)
{
	struct roster r, back, none = {.generation = GEN(1, 3)};
	struct hist_device dev;
	struct buf b = {0};
	struct keys *k;

	(void)state;
	assert_int_equal(keys_adopt(&k, vol, 3, vk), 0);
	dev = device(k);
	sample(&r, GEN(5, 3));
	assert_true(roster_has(&r, 1));
	assert_true(roster_has(&r, 7));
	assert_false(roster_has(&r, 9));
	assert_false(roster_has(&r, 2));
	assert_int_equal(roster_encode(k, &r, &b), 0);
	/* Neither addresses nor secrets are to be seen. */
	assert_null(memmem(b.p, b.len, "dir:", 4));
	assert_null(memmem(b.p, b.len, "user", 4));
	assert_int_equal(roster_decode(k, &dev, 1, b.p, b.len, &back), 0);
	assert_int_equal(back.generation, r.generation);
	same(&r, &back);
	roster_release(&back);
	assert_null(back.node);
	assert_int_equal(roster_encode(k, &none, &b), 0);
	assert_int_equal(roster_decode(k, &dev, 1, b.p, b.len, &back), 0);
	same(&none, &back);
	roster_release(&back);
	roster_release(&r);
	buf_release(&b);
	keys_free(k);
}

static void test_names(void **state)
{
	static const char *const not [] = {
		"v/node", "v/n",   "v/n01", "v/n-1",
		"v/n+1",  "v/n1 ", "v/h1",  "v/n18446744073709551616",
		"v/n1/2", "n1"};
	static const uint64_t is[] = {0, 1, GEN(1, 1), GEN(5, 65535), UINT64_MAX};
	char name[BLOB_NAME_CAP];
	uint64_t g;

	(void)state;
	for (size_t i = 0; i < sizeof not / sizeof *not ; i++)
		assert_false(roster_name_parse(not [i], &g));
	for (size_t i = 0; i < sizeof is / sizeof *is; i++) {
		roster_name(is[i], name);
		assert_true(roster_name_parse(name, &g));
		assert_true(g == is[i]);
	}
}

static void test_refusals(void **state)
{
	struct keys *k, *other, *thief;
	struct roster r, back;
	struct hist_device dev[2], wrong;
	struct buf b = {0}, c = {0};
	char name[BLOB_NAME_CAP];

	(void)state;
	assert_int_equal(keys_adopt(&k, vol, 3, vk), 0);
	assert_int_equal(keys_adopt(&other, vol2, 3, vk), 0);
	assert_int_equal(keys_adopt(&thief, vol, 3, vk), 0);
	dev[0] = device(k);
	dev[1] = (struct hist_device){.number = 4};
	wrong = device(thief);
	sample(&r, GEN(5, 3));
	assert_int_equal(roster_encode(k, &r, &b), 0);
	roster_name(r.generation, name);
	assert_int_equal(roster_verify(k, dev, 2, name, b.p, b.len), 0);

	/* Below another name; of another volume; by a key that is not that device's. */
	roster_name(GEN(6, 3), name);
	assert_int_equal(roster_verify(k, dev, 2, name, b.p, b.len), -EBADMSG);
	roster_name(GEN(5, 4), name);
	assert_int_equal(roster_verify(k, dev, 2, name, b.p, b.len), -EBADMSG);
	assert_int_equal(roster_verify(k, dev, 2, "v/node", b.p, b.len), -ENOKEY);
	assert_int_equal(roster_decode(other, dev, 2, b.p, b.len, &back), -EBADMSG);
	assert_int_equal(roster_decode(k, &wrong, 1, b.p, b.len, &back), -EBADMSG);
	assert_int_equal(roster_encode(thief, &r, &c), 0);
	assert_int_equal(roster_decode(k, dev, 2, c.p, c.len, &back), -EBADMSG);
	/* A device that no header knows yet. */
	assert_int_equal(roster_decode(k, &dev[1], 1, b.p, b.len, &back), -ENOKEY);
	assert_int_equal(roster_decode(k, NULL, 0, b.p, b.len, &back), -ENOKEY);
	assert_null(back.node);

	/* Every byte counts, the end too.  A newer version counts when a device signed it,
	 * not when a node says so. */
	for (size_t i = 0; i < b.len; i++) {
		uint8_t bit = i == 8 ? 2 : 1;

		b.p[i] ^= bit;
		assert_int_equal(roster_decode(k, dev, 2, b.p, b.len, &back), -EBADMSG);
		b.p[i] ^= bit;
		assert_int_equal(roster_decode(k, dev, 2, b.p, i, &back), -EBADMSG);
	}
	buf_u8(&b, 0);
	assert_int_equal(roster_decode(k, dev, 2, b.p, b.len, &back), -EBADMSG);
	b.len--;
	assert_int_equal(roster_decode(k, dev, 2, b.p, b.len, &back), 0);
	roster_release(&back);

	/* What is not written: another device's, generation 0, too much, numbers out of order.
	 */
	r.generation = GEN(5, 4);
	assert_int_equal(roster_encode(k, &r, &b), -EINVAL);
	r.generation = GEN(0, 3);
	assert_int_equal(roster_encode(k, &r, &b), -EINVAL);
	r.generation = GEN(1, 3);
	r.node[1].number = 1;
	assert_int_equal(roster_encode(k, &r, &b), -EINVAL);
	r.node[1].number = 7;
	r.node[1].member = NODE_LEAVING;
	assert_int_equal(roster_encode(k, &r, &b), -EINVAL);
	r.node[1].member = NODE_MEMBER;
	assert_int_equal(roster_encode(k, &r, &b), 0);
	uint8_t *more = buf_room(&r.creds, ROSTER_CREDS_CAP);
	assert_non_null(more);
	memset(more, 'x', ROSTER_CREDS_CAP);
	r.creds.len = ROSTER_CREDS_CAP;
	assert_int_equal(roster_encode(k, &r, &b), 0);
	assert_true(b.len <= ROSTER_CAP);
	assert_int_equal(roster_decode(k, dev, 2, b.p, b.len, &back), 0);
	same(&r, &back);
	roster_release(&back);
	r.creds.len++;
	assert_int_equal(roster_encode(k, &r, &b), -EINVAL);
	r.creds.len--;
	/* Nodes and secrets that each are allowed, but not together. */
	char url[NODE_URL_CAP];
	memset(url, 'u', sizeof url - 1);
	url[sizeof url - 1] = 0;
	for (uint16_t i = 100; i < 400; i++)
		assert_int_equal(roster_add(&r, i, NODE_MEMBER, url), 0);
	assert_int_equal(roster_encode(k, &r, &b), -EINVAL);
	roster_release(&r);
	buf_release(&b);
	buf_release(&c);
	keys_free(k);
	keys_free(other);
	keys_free(thief);
}

static void test_before(void **state)
{
	/* 1 was taken over by 2; 3 writes as well; nobody knows 4. */
	static const struct hist_device dev[] = {
		{.number = 1, .retired = true}, {.number = 2}, {.number = 3}};
	static const uint64_t order[] = {GEN(8, 3),   GEN(8, 2),  GEN(7, 3),  GEN(1, 2),
					 GEN(900, 4), GEN(99, 1), GEN(98, 1), GEN(1, 4)};

	(void)state;
	for (size_t i = 0; i < sizeof order / sizeof *order; i++)
		for (size_t j = 0; j < sizeof order / sizeof *order; j++)
			assert_int_equal(roster_before(dev, 3, order[i], order[j]), i < j);
	/* Nothing is known of any device: the count alone. */
	assert_true(roster_before(NULL, 0, GEN(2, 1), GEN(1, 2)));
}

/* --- what is below the seal --- */

struct one {
	unsigned number, member, url_len;
	const char *url;
};

static void body(struct buf *b, const struct one *n, unsigned cnt, unsigned says,
		 const char *creds, size_t creds_len)
{
	buf_reset(b);
	buf_u32(b, 0);
	buf_u16(b, (uint16_t)says);
	for (unsigned i = 0; i < cnt; i++) {
		buf_u16(b, (uint16_t)n[i].number);
		buf_u8(b, (uint8_t)n[i].member);
		buf_u16(b, (uint16_t)n[i].url_len);
		buf_put(b, n[i].url, n[i].url_len);
	}
	buf_u32(b, (uint32_t)creds_len);
	buf_put(b, creds, creds_len);
	put_le32(b->p, (uint32_t)(b->len - 4));
	while (b->len < padme(b->len))
		buf_u8(b, 0);
}

static int decode(const struct buf *b)
{
	struct roster r;
	int err = roster_body_decode(b->p, b->len, &r);

	if (err)
		assert_null(r.node);
	roster_release(&r);
	return err;
}

/* One node, and secrets of that length. */
static int with(struct buf *b, unsigned number, unsigned member, const char *url,
		size_t url_len, size_t creds_len)
{
	char *creds = malloc(creds_len + 1);
	struct one n = {number, member, (unsigned)url_len, url};

	assert_non_null(creds);
	memset(creds, 'c', creds_len);
	body(b, &n, 1, 1, creds, creds_len);
	free(creds);
	return decode(b);
}

static void keep(const char *name, const struct buf *b)
{
	char path[128];

	/* The fuzzer's first byte: what follows is a body, or all of it. */
	if (!getenv("HF_GOLDEN"))
		return;
	snprintf(path, sizeof path, CORPUS "%s", name);
	struct buf c = {0};
	buf_u8(&c, memcmp(b->p, "HFROSTR1", 8) != 0);
	buf_put(&c, b->p, b->len);
	assert_int_equal(file_write_atomic(path, c.p, c.len, 0644), 0);
	buf_release(&c);
}

static void test_body(void **state)
{
	static const struct one two[] = {{1, NODE_MEMBER, 6, "dir:/a"},
					 {7, NODE_GONE, 8, "dir:/b c"}};
	static const struct one back[] = {{7, NODE_MEMBER, 6, "dir:/a"},
					  {7, NODE_GONE, 8, "dir:/b c"}};
	char url[NODE_URL_CAP];
	struct buf b = {0};
	struct keys *k;
	struct roster r;

	(void)state;
	memset(url, 'u', sizeof url);
	body(&b, NULL, 0, 0, "", 0);
	assert_int_equal(decode(&b), 0);
	keep("none", &b);
	body(&b, two, 2, 2, CREDS, strlen(CREDS));
	assert_int_equal(decode(&b), 0);
	keep("body", &b);
	/* Every byte of it cut off, and one more. */
	for (size_t i = 0, len = b.len; i < len; i++) {
		b.len = i;
		assert_int_equal(decode(&b), -EBADMSG);
		b.len = len;
	}
	buf_u8(&b, 0);
	assert_int_equal(decode(&b), -EBADMSG);
	/* Padding that is not zero. */
	body(&b, two, 1, 1, "abcdefghijklmnopqrst", 20);
	for (unsigned i = 20; b.len == get_le32(b.p) + 4; i++)
		body(&b, two, 2, 2, url, i * 7);
	assert_int_equal(decode(&b), 0);
	b.p[b.len - 1] = 1;
	assert_int_equal(decode(&b), -EBADMSG);
	/* More and fewer nodes than it says; numbers that do not ascend. */
	body(&b, two, 2, 1, "", 0);
	assert_int_equal(decode(&b), -EBADMSG);
	body(&b, two, 2, 3, "", 0);
	assert_int_equal(decode(&b), -EBADMSG);
	body(&b, two, 2, 65535, "", 0);
	assert_int_equal(decode(&b), -EBADMSG);
	body(&b, back, 2, 2, "", 0);
	assert_int_equal(decode(&b), -EBADMSG);
	/* What a node is, its number, its address. */
	assert_int_equal(with(&b, 0, NODE_MEMBER, "u", 1, 0), 0);
	assert_int_equal(with(&b, NODE_NONE - 1, NODE_GONE, "u", 1, 0), 0);
	assert_int_equal(with(&b, NODE_NONE, NODE_MEMBER, "u", 1, 0), -EBADMSG);
	assert_int_equal(with(&b, 1, NODE_MEMBER - 1, "u", 1, 0), -EBADMSG);
	assert_int_equal(with(&b, 1, NODE_GONE + 1, "u", 1, 0), -EBADMSG);
	assert_int_equal(with(&b, 1, NODE_MEMBER, "", 0, 0), -EBADMSG);
	assert_int_equal(with(&b, 1, NODE_MEMBER, "u\0v", 3, 0), -EBADMSG);
	assert_int_equal(with(&b, 1, NODE_MEMBER, url, NODE_URL_CAP - 1, 0), 0);
	assert_int_equal(with(&b, 1, NODE_MEMBER, url, NODE_URL_CAP, 0), -EBADMSG);
	assert_int_equal(with(&b, 1, NODE_MEMBER, "u", 1, ROSTER_CREDS_CAP), 0);
	assert_int_equal(with(&b, 1, NODE_MEMBER, "u", 1, ROSTER_CREDS_CAP + 1), -EBADMSG);
	body(&b, two, 2, 2, "a\0b", 3);
	assert_int_equal(decode(&b), -EBADMSG);

	assert_int_equal(keys_adopt(&k, vol, 3, vk), 0);
	sample(&r, GEN(5, 3));
	assert_int_equal(roster_encode(k, &r, &b), 0);
	keep("roster", &b);
	roster_release(&r);
	keys_free(k);
	buf_release(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip), cmocka_unit_test(test_names),
		cmocka_unit_test(test_refusals),   cmocka_unit_test(test_before),
		cmocka_unit_test(test_body),
	};
	log_set_quiet(!getenv("HF_LOUD"));
	if (keys_global_init())
		return 1;
	for (int i = 0; i < KEY_LEN; i++)
		vk[i] = (uint8_t)i;
	for (int i = 0; i < VOL_LEN; i++)
		vol[i] = (uint8_t)(i + 100), vol2[i] = (uint8_t)(i + 101);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
