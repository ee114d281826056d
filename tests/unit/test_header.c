/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include "net/header.h"

#define GOLDEN "tests/golden/header.bin"
#define N      4

static uint8_t vk[KEY_LEN], vol[VOL_LEN], kit[KEY_LEN];
static struct rec_node nodes[2] = {
	{.number = 1, .member = 1, .url = (const uint8_t *)"dir:/a", .url_len = 6},
	{.number = 7, .member = 2, .url = (const uint8_t *)"dir:/b c", .url_len = 8},
};

static void sample(struct header *h, struct rec_device *d, const struct owner *o, uint32_t gen)
{
	*d = (struct rec_device){.number = 1, .role = 1};
	memset(d->ed_pk, 0x42, 32);
	assert_int_equal(header_certify(o, vol, d), 0);
	*h = (struct header){.generation = gen,
			     .k = 2,
			     .m = 2,
			     .node = nodes,
			     .node_cnt = 2,
			     .device = d,
			     .device_cnt = 1};
	memcpy(h->vol, vol, VOL_LEN);
	memcpy(h->owner_ed_pk, o->ed_pk, 32);
	memcpy(h->owner_x_pk, o->x_pk, 32);
	memset(h->kit_slot, 0x77, KIT_SLOT_LEN);
}

static void make(struct keys **k, struct owner **o)
{
	assert_int_equal(keys_adopt(k, vol, 1, vk), 0);
	assert_int_equal(owner_new(o, kit), 0);
}

static void test_round_trip(void **state)
{
	struct buf b = {0}, want = {0};
	struct rec_device d;
	struct header h, back;
	struct owner *o;
	struct keys *k;

	(void)state;
	make(&k, &o);
	sample(&h, &d, o, 3);
	assert_int_equal(header_encode(&h, k, o, &b), 0);
	assert_null(memmem(b.p, b.len, "dir:", 4));
	assert_int_equal(header_decode(b.p, b.len, o->ed_pk, &back), 0);
	assert_int_equal(back.generation, 3);
	assert_int_equal(header_unseal(b.p, b.len, k, &back), 0);
	assert_int_equal(back.node_cnt, 2);
	assert_int_equal(back.node[1].number, 7);
	assert_string_equal((const char *)back.node[1].url, "dir:/b c");
	assert_int_equal(back.device_cnt, 1);
	header_release(&back);

	assert_int_equal(header_verify(vol, o->ed_pk, "v/h3", b.p, b.len), 0);
	assert_int_equal(header_verify(vol, o->ed_pk, "v/h4", b.p, b.len), -EBADMSG);
	assert_int_equal(header_verify(kit, o->ed_pk, "v/h3", b.p, b.len), -EBADMSG);
	for (size_t i = 0; i < b.len; i++) {
		b.p[i] ^= 1;
		assert_int_equal(header_decode(b.p, b.len, o->ed_pk, &back), -EBADMSG);
		b.p[i] ^= 1;
		assert_int_equal(header_decode(b.p, i, o->ed_pk, &back), -EBADMSG);
	}
	if (getenv("HF_GOLDEN"))
		assert_int_equal(file_write_atomic(GOLDEN, b.p, b.len, 0644), 0);
	assert_int_equal(file_read(GOLDEN, HEADER_CAP, &want), 0);
	assert_int_equal(want.len, b.len);
	assert_memory_equal(want.p, b.p, b.len);

	/* A certificate that is not the owner's, numbers out of order. */
	d.role = 2;
	assert_int_equal(header_check_cert(o->ed_pk, vol, &d), -EBADMSG);
	assert_int_equal(header_encode(&h, k, o, &b), 0);
	assert_int_equal(header_decode(b.p, b.len, o->ed_pk, &back), 0);
	assert_int_equal(header_unseal(b.p, b.len, k, &back), -EBADMSG);
	header_release(&back);
	nodes[1].number = 1;
	assert_int_equal(header_encode(&h, k, o, &b), -EINVAL);
	nodes[1].number = 7;
	buf_release(&b);
	buf_release(&want);
	owner_free(o);
	keys_free(k);
}

struct world {
	char root[64];
	struct node *node[N];
};

static void place(struct world *w, unsigned i, const char *name, const struct buf *b)
{
	char path[256];

	snprintf(path, sizeof path, "%s/n%u/%s", w->root, i, name);
	assert_int_equal(file_write_atomic(path, b->p, b->len, 0600), 0);
}

static int fetch(struct world *w, const uint8_t owner_pk[32], struct header *h, unsigned *with)
{
	struct buf bytes = {0};
	unsigned answered;

	int err = header_fetch(w->node, N, vol, owner_pk, now_ms() + 5000, &bytes, h, &answered,
			       with);
	assert_true(err || bytes.len > 0);
	buf_release(&bytes);
	return err;
}

static void test_fetch(void **state)
{
	struct world w = {.root = "/tmp/hf-head-XXXXXX"};
	struct buf one = {0}, two = {0}, fake = {0}, bad = {0};
	uint8_t thief_kit[KEY_LEN] = {9};
	struct owner *o, *thief;
	struct rec_device d;
	struct header h;
	struct keys *k;
	unsigned with;
	char path[256];

	(void)state;
	make(&k, &o);
	assert_int_equal(owner_new(&thief, thief_kit), 0);
	sample(&h, &d, o, 1);
	assert_int_equal(header_encode(&h, k, o, &one), 0);
	h.generation = 2;
	assert_int_equal(header_encode(&h, k, o, &two), 0);
	sample(&h, &d, thief, 9);
	assert_int_equal(header_encode(&h, k, thief, &fake), 0);
	buf_put(&bad, "rubbish", 7);

	assert_non_null(mkdtemp(w.root));
	for (unsigned i = 0; i < N; i++) {
		snprintf(path, sizeof path, "dir:%s/n%u", w.root, i);
		mkdir(path + 4, 0700);
		assert_int_equal(node_open(&w.node[i], (uint16_t)(i + 1), path, NULL), 0);
	}
	assert_int_equal(fetch(&w, o->ed_pk, &h, &with), -ENOENT);
	for (unsigned i = 0; i < N; i++)
		assert_int_equal(node_init(w.node[i], vol, now_ms() + 5000), 0);
	assert_int_equal(fetch(&w, o->ed_pk, &h, &with), -ENOENT);
	place(&w, 0, "v/h7", &bad);
	assert_int_equal(fetch(&w, o->ed_pk, &h, &with), -EBADMSG);
	for (unsigned i = 1; i < N; i++)
		place(&w, i, "v/h1", &one);
	assert_int_equal(fetch(&w, o->ed_pk, &h, &with), 0);
	assert_int_equal(h.generation, 1);
	assert_int_equal(with, 3);
	/* One node has a newer one; others claim newer ones that are not. */
	place(&w, 1, "v/h2", &two);
	place(&w, 2, "v/h9", &fake);
	place(&w, 3, "v/h5", &one);
	assert_int_equal(fetch(&w, o->ed_pk, &h, &with), 0);
	assert_int_equal(h.generation, 2);
	for (unsigned i = 100; i < 130; i++) {
		char name[BLOB_NAME_CAP];
		header_name(i, name);
		place(&w, 1, name, &bad);
	}
	assert_int_equal(fetch(&w, o->ed_pk, &h, &with), 0);
	assert_int_equal(h.generation, 2);
	for (unsigned i = 0; i < N; i++)
		node_close(w.node[i]);
	assert_int_equal(strncmp(w.root, "/tmp/hf-head-", 13), 0);
	snprintf(path, sizeof path, "rm -rf %s", w.root);
	assert_int_equal(system(path), 0);
	buf_release(&one);
	buf_release(&two);
	buf_release(&fake);
	buf_release(&bad);
	owner_free(o);
	owner_free(thief);
	keys_free(k);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_fetch),
	};
	log_set_quiet(!getenv("HF_LOUD"));
	if (keys_global_init())
		return 1;
	for (int i = 0; i < KEY_LEN; i++)
		vk[i] = (uint8_t)i, kit[i] = (uint8_t)(i + 50);
	for (int i = 0; i < VOL_LEN; i++)
		vol[i] = (uint8_t)(i + 100);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
