/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <pthread.h>
#include <setjmp.h>
#include <sodium.h>
#include <stdlib.h>
#include <time.h>
#include "net/seal.h"
#include <cmocka.h>

/* tests/golden/segment.txt: `length shard shard-length hash`; HOLDFAST_GOLDEN=write. */
#define GOLDEN "tests/golden/segment.txt"

static const uint8_t vol[VOL_LEN] = "volume 0123456";
static const uint8_t vk[KEY_LEN] = "the volume key of the golden one";
static struct keys *keys;
static uint64_t rng = 1;

static uint32_t rnd(void)
{
	rng = rng * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)(rng >> 33);
}

static uint8_t *random_bytes(size_t len)
{
	uint8_t seed[32] = {0}, *p = malloc(len + 1);

	put_le64(seed, rng++);
	randombytes_buf_deterministic(p, len, seed);
	return p;
}

/* Packs in pieces of random sizes. */
static struct stripe *pack(struct seg_builder *b, const uint8_t *p, size_t len, size_t piece)
{
	struct stripe *s;
	struct seg_id id;
	uint32_t off;

	assert_int_equal(seg_builder_start(b, &id), 0);
	for (size_t at = 0; at < len;) {
		size_t want = rnd() % piece + 1, n = HF_MIN(len - at, want);
		assert_int_equal(seg_builder_add(b, p + at, n, &off), 0);
		assert_int_equal(off, at);
		at += n;
		assert_int_equal(seg_builder_len(b), at);
		assert_int_equal(seg_builder_room(b), SEG_MAX_LEN - at);
	}
	assert_int_equal(seg_builder_finish(b, &s), 0);
	assert_int_equal(s->geom.len, len);
	assert_memory_equal(s->geom.id.b, id.b, SEG_LEN);
	assert_int_equal(seg_geom_check(&s->geom), 0);
	return s;
}

/* Reads every cell with the shards in `have`; gone ones are rebuilt. */
static void read_back(struct stripe *s, const uint8_t *p, uint32_t have_mask)
{
	const struct seg_geom *g = &s->geom;
	size_t stride = seg_stride(g), body = seg_shard_len(g) - SHARD_HEADER;
	uint8_t *got[EC_MAX], *plain = malloc(seg_cell(g));
	struct seg_reader r;
	bool have[EC_MAX];

	assert_int_equal(seg_reader_init(&r, keys, g), 0);
	for (unsigned i = 0; i < (unsigned)g->k + g->m; i++) {
		have[i] = have_mask >> i & 1;
		got[i] = have[i] ? s->body[i] : malloc(body);
	}
	assert_int_equal(seg_rebuild(&r, 0, g->cps, got, have), 0);
	for (unsigned i = 0; i < (unsigned)g->k + g->m; i++)
		if (!have[i])
			assert_memory_equal(got[i], s->body[i], body);
	for (uint32_t c = 0; c < g->k * g->cps; c++) {
		unsigned shard;
		uint32_t row;
		uint64_t off;
		seg_locate(g, c, &shard, &row, &off);
		assert_int_equal(off, SHARD_HEADER + row * stride);
		const uint8_t *cell = got[shard] + off - SHARD_HEADER;
		assert_int_equal(seg_check(&r, shard, row, cell), 0);
		assert_int_equal(seg_open(&r, c, cell, plain), 0);
		size_t at = (size_t)c * seg_cell(g);
		size_t n = at < g->len ? HF_MIN(g->len - at, seg_cell(g)) : 0;
		assert_memory_equal(plain, p + at, n);
		assert_true(n == seg_cell(g) || sodium_is_zero(plain + n, seg_cell(g) - n));
	}
	for (unsigned i = 0; i < (unsigned)g->k + g->m; i++)
		if (!have[i])
			free(got[i]);
	seg_reader_release(&r);
	assert_true(sodium_is_zero((uint8_t *)&r, sizeof r));
	free(plain);
}

static void test_lengths(void **state)
{
	static const uint32_t len[] = {0,
				       1,
				       4095,
				       4096,
				       4097,
				       16384,
				       16385,
				       32768,
				       65535,
				       65536,
				       131071,
				       131072,
				       131073,
				       262143,
				       262144,
				       262145,
				       300000,
				       1 << 20,
				       (1 << 20) + 1,
				       5000000,
				       8 << 20,
				       (16 << 20) - 1,
				       16 << 20};
	static const uint8_t shape[][2] = {{4, 2}, {1, 0}, {1, 1}, {3, 2}, {16, 4}};
	struct seg_builder *b;
	struct seg_pool *pool;
	(void)state;

	for (size_t i = 0; i < sizeof shape / sizeof *shape; i++) {
		unsigned k = shape[i][0], m = shape[i][1];
		assert_int_equal(seg_pool_new(&pool, k, m, 1), 0);
		assert_int_equal(seg_builder_new(&b, keys, pool), 0);
		for (size_t j = 0; j < sizeof len / sizeof *len; j++) {
			/* The larger ones once. */
			if (i && len[j] > 1 << 20 && j % 5 != i)
				continue;
			uint8_t *p = random_bytes(len[j]);
			struct stripe *s = pack(b, p, len[j], len[j] / 7 + 2);
			if (len[j] <= k << CELL_LOG2)
				assert_int_equal(s->geom.cps, 1);
			read_back(s, p, ((1u << k) - 1) << m);
			stripe_unref(s);
			free(p);
		}
		seg_builder_free(b);
		seg_pool_free(pool);
	}
}

static void test_every_k_of_n(void **state)
{
	struct seg_builder *b;
	struct seg_pool *pool;
	(void)state;

	assert_int_equal(seg_pool_new(&pool, 4, 2, 2), 0);
	assert_int_equal(seg_builder_new(&b, keys, pool), 0);
	for (unsigned round = 0; round < 4; round++) {
		size_t len = round ? rnd() % 900000 : 40000;
		uint8_t *p = random_bytes(len);
		struct stripe *s = pack(b, p, len, 1 + rnd() % 100000);
		for (uint32_t mask = 0; mask < 64; mask++)
			if (__builtin_popcount(mask) >= 4)
				read_back(s, p, mask);
		/* One fewer, and it is said. */
		uint8_t *got[6];
		const bool have[6] = {true, false, true, true, false, false};
		struct seg_reader r;
		for (unsigned i = 0; i < 6; i++)
			got[i] = s->body[i];
		assert_int_equal(seg_reader_init(&r, keys, &s->geom), 0);
		assert_int_equal(seg_rebuild(&r, 0, 1, got, have), -ENODATA);
		assert_int_equal(seg_rebuild(&r, 0, s->geom.cps + 1, got, have), -EINVAL);
		stripe_unref(s);
		free(p);
	}
	seg_builder_free(b);
	seg_pool_free(pool);
}

/* Some rows out of the middle: their tags must be those of the rows they are. */
static void test_rebuild_middle(void **state)
{
	struct seg_builder *b;
	struct seg_pool *pool;
	struct seg_reader r;
	(void)state;

	assert_int_equal(seg_pool_new(&pool, 4, 2, 1), 0);
	assert_int_equal(seg_builder_new(&b, keys, pool), 0);
	uint8_t *p = random_bytes(3 << 20);
	struct stripe *s = pack(b, p, 3 << 20, 1 << 20);
	size_t stride = seg_stride(&s->geom);
	uint8_t *out = malloc(2 * stride), *got[6];
	const bool have[6] = {true, false, true, true, false, true};
	for (unsigned i = 0; i < 6; i++)
		got[i] = s->body[i] + 5 * stride;
	got[1] = out;
	got[4] = NULL;
	assert_int_equal(seg_reader_init(&r, keys, &s->geom), 0);
	assert_int_equal(seg_rebuild(&r, 5, 2, got, have), 0);
	assert_memory_equal(out, s->body[1] + 5 * stride, 2 * stride);
	seg_reader_release(&r);
	free(out);
	free(p);
	stripe_unref(s);
	seg_builder_free(b);
	seg_pool_free(pool);
}

static void test_lies_are_found(void **state)
{
	struct seg_builder *b;
	struct seg_pool *pool;
	struct seg_reader r, r2;
	(void)state;

	assert_int_equal(seg_pool_new(&pool, 4, 2, 2), 0);
	assert_int_equal(seg_builder_new(&b, keys, pool), 0);
	size_t len = 16 * CELL_SIZE;
	uint8_t *p = random_bytes(len), *plain = malloc(CELL_SIZE);
	struct stripe *s = pack(b, p, len, len), *t = pack(b, p, len, len);
	size_t stride = seg_stride(&s->geom);
	assert_int_equal(s->geom.cps, 4);
	assert_int_equal(seg_reader_init(&r, keys, &s->geom), 0);
	assert_int_equal(seg_reader_init(&r2, keys, &t->geom), 0);

	/* Bit flips, in ciphertext and in both tags. */
	for (unsigned i = 0; i < 2000; i++) {
		unsigned shard = rnd() % 6;
		size_t off = i < 32 ? stride - 1 - i : rnd() % stride;
		uint8_t *cell = s->body[shard] + 2 * stride, bit = (uint8_t)(1u << rnd() % 8);
		cell[off] ^= bit;
		assert_int_equal(seg_check(&r, shard, 2, cell), -EBADMSG);
		if (shard < 4 && off < stride - 16)
			assert_int_equal(seg_open(&r, shard * 4 + 2, cell, plain), -EBADMSG);
		cell[off] ^= bit;
		assert_int_equal(seg_check(&r, shard, 2, cell), 0);
	}
	/* Another shard, another row, another segment: genuine bytes in the wrong place. */
	for (unsigned shard = 0; shard < 6; shard++) {
		for (uint32_t row = 0; row < 4; row++) {
			const uint8_t *cell = s->body[shard] + row * stride;
			for (unsigned j = 0; j < 7; j++)
				for (uint32_t q = 0; q < 5; q++)
					assert_int_equal(seg_check(&r, j, q, cell),
							 j == shard && q == row ? 0 : -EBADMSG);
			assert_int_equal(seg_check(&r2, shard, row, cell), -EBADMSG);
			if (shard < 4) {
				uint32_t c = shard * 4 + row;
				assert_int_equal(seg_open(&r, c, cell, plain), 0);
				assert_int_equal(seg_open(&r, (c + 1) % 16, cell, plain),
						 -EBADMSG);
				assert_int_equal(seg_open(&r2, c, cell, plain), -EBADMSG);
			}
		}
	}
	assert_int_equal(seg_open(&r, 16, s->body[0], plain), -EBADMSG);
	/* Equal plaintext shows in no byte that is stored. */
	assert_memory_not_equal(s->body[0], t->body[0], 64);
	free(plain);
	free(p);
	stripe_unref(s);
	stripe_unref(t);
	seg_builder_free(b);
	seg_pool_free(pool);
}

static bool same_geom(const struct seg_geom *a, const struct seg_geom *b)
{
	return memcmp(a->id.b, b->id.b, SEG_LEN) == 0 && a->k == b->k && a->m == b->m &&
	       a->cell_log2 == b->cell_log2 && a->cps == b->cps && a->len == b->len;
}

static void test_header(void **state)
{
	struct seg_geom g = {.k = 4, .m = 2, .cell_log2 = 16, .cps = 3, .len = 700000}, got;
	uint8_t h[SHARD_HEADER], again[SHARD_HEADER], other_vol[VOL_LEN] = {1};
	struct keys *other;
	unsigned shard;
	(void)state;

	randombytes_buf(g.id.b, SEG_LEN);
	assert_int_equal(seg_shard_header(keys, &g, 6, h), -EINVAL);
	for (unsigned i = 0; i < 6; i++) {
		assert_int_equal(seg_shard_header(keys, &g, i, h), 0);
		assert_int_equal(seg_shard_header(keys, &g, i, again), 0);
		assert_memory_equal(h, again, sizeof h);
		assert_int_equal(seg_shard_header_open(keys, h, &got, &shard), 0);
		assert_int_equal(shard, i);
		assert_true(same_geom(&g, &got));
	}
	for (unsigned i = 0; i < sizeof h; i++) {
		h[i] ^= 0x20;
		assert_int_equal(seg_shard_header_open(keys, h, &got, &shard),
				 i == 8 || i == 9 ? -ENOTSUP : -EBADMSG);
		h[i] ^= 0x20;
	}
	/* Another volume's, even under the same key. */
	assert_int_equal(keys_adopt(&other, other_vol, 1, vk), 0);
	assert_int_equal(seg_shard_header_open(other, h, &got, &shard), -EBADMSG);
	keys_free(other);
}

static void test_geometry(void **state)
{
	struct seg_geom g = {0}, bad;
	(void)state;

	for (unsigned k = 1; k <= EC_MAX; k++) {
		uint64_t last_size = 0;
		unsigned n = 0;
		for (uint32_t len = 0; len < SEG_MAX_LEN; len += 4099 + len / 64) {
			seg_geom_choose(&g, k, 0, len);
			assert_int_equal(seg_geom_check(&g), 0);
			uint64_t size = (uint64_t)g.k * g.cps << g.cell_log2;
			assert_true(size >= len && size >= last_size);
			/* Padmé: under 12 %, and 64 KiB of each; below, a power of two. */
			if (size > (uint64_t)k << 16)
				assert_true(size <= len + len / 8 + ((uint64_t)k << 16));
			else
				assert_true(size <= HF_MAX(2ull * len, (uint64_t)k << 12));
			n += size != last_size;
			last_size = size;
		}
		assert_true(n <= 56); /* few sizes to tell segments apart by */
		seg_geom_choose(&g, k, 0, SEG_MAX_LEN);
		assert_int_equal(g.cps, (2048 + k - 1) / k);
	}
	seg_geom_choose(&g, 4, 2, 1000000);
	g.id.b[0] = 1;
#define BAD(field, value)                                                                      \
	do {                                                                                   \
		bad = g;                                                                       \
		bad.field = value;                                                             \
		assert_int_equal(seg_geom_check(&bad), -EBADMSG);                              \
	} while (0)
	BAD(k, 0);
	BAD(k, 33);
	BAD(m, 29);
	BAD(m, 255);
	BAD(cell_log2, 11);
	BAD(cell_log2, 17);
	BAD(cell_log2, 64);
	BAD(cps, 0);
	BAD(cps, 3);
	BAD(cps, 513);
	BAD(cps, UINT32_MAX);
	BAD(len, SEG_MAX_LEN + 1);
	BAD(len, UINT32_MAX);
	struct seg_reader r;
	assert_int_equal(seg_reader_init(&r, keys, &bad), -EBADMSG);
}

/* No writer of today makes such cells; readers take them. */
static void test_other_cells(void **state)
{
	struct seg_geom g = {.k = 1, .cell_log2 = CELL_LOG2_MAX, .cps = 2, .len = 100000};
	uint8_t *p = random_bytes(2 * CELL_MAX), *plain = malloc(CELL_MAX);
	uint8_t *stored = malloc(seg_stride(&g)), sk[KEY_LEN], tk[KEY_LEN];
	struct seg_reader r;
	(void)state;

	randombytes_buf(g.id.b, SEG_LEN);
	keys_segment(keys, &g.id, sk, tk);
	assert_int_equal(seg_reader_init(&r, keys, &g), 0);
	for (uint32_t c = 0; c < 2; c++) {
		cell_seal(sk, &g.id, c, g.cell_log2, p + c * CELL_MAX, stored);
		cell_tag(tk, 0, c, g.cell_log2, stored, stored + CELL_MAX + CELL_TAG_LEN);
		assert_int_equal(seg_check(&r, 0, c, stored), 0);
		assert_int_equal(seg_check(&r, 0, !c, stored), -EBADMSG);
		assert_int_equal(seg_open(&r, c, stored, plain), 0);
		assert_memory_equal(plain, p + c * CELL_MAX, CELL_MAX);
	}
	seg_reader_release(&r);
	free(stored);
	free(plain);
	free(p);
}

static void *waiter(void *arg)
{
	struct seg_builder *b;
	struct seg_id id;

	int err = seg_builder_new(&b, keys, arg);
	if (!err)
		err = seg_builder_start(b, &id);
	seg_builder_free(b);
	return (void *)(intptr_t)err;
}

static void *late_put(void *arg)
{
	struct stripe *s = arg;
	struct iovec iov[2];

	stripe_shard(s, 5, iov);
	bool good = iov[0].iov_len + iov[1].iov_len == seg_shard_len(&s->geom);
	stripe_unref(s);
	return good ? arg : NULL;
}

static void test_pool(void **state)
{
	struct seg_builder *b;
	struct seg_pool *pool;
	struct stripe *s[2];
	pthread_t t[2];
	void *ret;
	uint32_t off;
	uint8_t p[100] = {1};
	struct seg_id id;
	(void)state;

	assert_int_equal(seg_pool_new(&pool, 4, 2, 0), -EINVAL);
	assert_int_equal(seg_pool_new(&pool, 0, 2, 1), -EINVAL);
	assert_int_equal(seg_pool_new(&pool, 4, 2, 2), 0);
	assert_int_equal(seg_builder_new(&b, keys, pool), 0);
	/* All out: the next waits until one is back. */
	for (unsigned i = 0; i < 2; i++)
		s[i] = pack(b, p, sizeof p, 100);
	pthread_create(&t[0], NULL, waiter, pool);
	stripe_unref(s[0]);
	pthread_join(t[0], &ret);
	assert_int_equal((intptr_t)ret, 0);
	/* What is referenced twice comes back with the second. */
	s[0] = pack(b, p, sizeof p, 100);
	stripe_ref(s[0]);
	stripe_unref(s[0]);
	read_back(s[0], p, 0x3c);
	/* Stopping wakes who waits. */
	pthread_create(&t[0], NULL, waiter, pool);
	seg_pool_stop(pool);
	pthread_join(t[0], &ret);
	assert_int_equal((intptr_t)ret, -ECANCELED);
	for (unsigned i = 0; i < 2; i++)
		pthread_create(&t[i], NULL, late_put, s[i]);
	seg_builder_free(b);
	seg_pool_free(pool);
	for (unsigned i = 0; i < 2; i++) {
		pthread_join(t[i], &ret);
		assert_ptr_equal(ret, s[i]);
	}

	/* Abandoning gives the stripe back; a full segment says so and stays good. */
	assert_int_equal(seg_pool_new(&pool, 4, 2, 1), 0);
	assert_int_equal(seg_builder_new(&b, keys, pool), 0);
	assert_int_equal(seg_builder_start(b, &id), 0);
	seg_builder_abandon(b);
	assert_int_equal(seg_builder_start(b, &id), 0);
	uint8_t *big = random_bytes(SEG_MAX_LEN);
	assert_int_equal(seg_builder_add(b, big, SEG_MAX_LEN - 50, &off), 0);
	assert_int_equal(seg_builder_add(b, p, 51, &off), -ENOSPC);
	assert_int_equal(seg_builder_add(b, big + SEG_MAX_LEN - 50, 50, &off), 0);
	assert_int_equal(seg_builder_add(b, p, 1, &off), -ENOSPC);
	assert_int_equal(seg_builder_add(b, p, 0, &off), 0);
	assert_int_equal(seg_builder_finish(b, &s[0]), 0);
	read_back(s[0], big, 0x3c);
	stripe_unref(s[0]);
	free(big);
	seg_builder_free(b);
	seg_pool_free(pool);
	seg_pool_free(NULL);
}

/* The same keys, id and bytes give the same shards in every build. */
static void test_golden(void **state)
{
	static const uint32_t lens[] = {0, 5000, 100000, 1500000};
	struct seg_id id = {"segment id 0123"};
	char line[128], want[128], hex[2 * HASH_LEN + 1];
	struct seg_builder *b;
	struct seg_pool *pool;
	struct stripe *s;
	uint32_t off;
	(void)state;

	const char *how = getenv("HOLDFAST_GOLDEN");
	bool write = how && strcmp(how, "write") == 0;
	FILE *f = fopen(GOLDEN, write ? "w" : "r");
	assert_non_null(f);
	assert_int_equal(seg_pool_new(&pool, 4, 2, 1), 0);
	assert_int_equal(seg_builder_new(&b, keys, pool), 0);
	uint8_t *p = malloc(1500000);
	for (uint32_t i = 0; i < 1500000; i++)
		p[i] = (uint8_t)(i % 251);
	for (size_t j = 0; j < sizeof lens / sizeof *lens; j++) {
		assert_int_equal(seg_builder_start_id(b, &id), 0);
		assert_int_equal(seg_builder_add(b, p, lens[j], &off), 0);
		assert_int_equal(seg_builder_finish(b, &s), 0);
		for (unsigned i = 0; i < 6; i++) {
			struct iovec iov[2];
			uint8_t h[HASH_LEN];
			stripe_shard(s, i, iov);
			uint8_t *blob = malloc(iov[0].iov_len + iov[1].iov_len);
			memcpy(blob, iov[0].iov_base, iov[0].iov_len);
			memcpy(blob + iov[0].iov_len, iov[1].iov_base, iov[1].iov_len);
			hash_tag("golden", blob, iov[0].iov_len + iov[1].iov_len, h);
			free(blob);
			sodium_bin2hex(hex, sizeof hex, h, sizeof h);
			snprintf(line, sizeof line, "%u %u %zu %s\n", lens[j], i,
				 seg_shard_len(&s->geom), hex);
			if (write) {
				fputs(line, f);
			} else {
				assert_non_null(fgets(want, sizeof want, f));
				assert_string_equal(line, want);
			}
		}
		stripe_unref(s);
	}
	fclose(f);
	free(p);
	seg_builder_free(b);
	seg_pool_free(pool);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lengths),	       cmocka_unit_test(test_every_k_of_n),
		cmocka_unit_test(test_rebuild_middle), cmocka_unit_test(test_lies_are_found),
		cmocka_unit_test(test_header),	       cmocka_unit_test(test_geometry),
		cmocka_unit_test(test_pool),	       cmocka_unit_test(test_golden),
		cmocka_unit_test(test_other_cells),
	};

	rng = getenv("SEED") ? strtoull(getenv("SEED"), NULL, 10) : (uint64_t)time(NULL);
	printf("SEED=%llu\n", (unsigned long long)rng);
	if (keys_global_init() || keys_adopt(&keys, vol, 1, vk))
		return 1;
	int bad = cmocka_run_group_tests(tests, NULL, NULL);
	keys_free(keys);
	return bad;
}
