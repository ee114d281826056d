/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "net/node_impl.h"
#include "tests/unit/volume_util.h"

static struct fixture x;
static uint8_t *bytes, *back;
#define LEN (3u << 20) /* 48 cells, 12 rows of 4 data shards */

static int setup(void **state)
{
	(void)state;
	bytes = malloc(SEG_MAX_LEN);
	back = malloc(SEG_MAX_LEN);
	fx_fill(bytes, SEG_MAX_LEN, 1);
	fx_open(&x, 6, 4, 2);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	fx_close(&x);
	free(bytes);
	free(back);
	return 0;
}

static int64_t soon(void)
{
	return now_ms() + 20000;
}

/* Nothing is remembered of what was read: the next read asks the nodes. */
static void forget(void)
{
	gather_free(x.v->gather);
	assert_int_equal(gather_new(&x.v->gather, x.v), 0);
}

static int read_back(const struct seg_place *p, uint32_t off, uint32_t len)
{
	memset(back, 0xee, len);
	int err = gather_read(x.v, p, off, len, back, soon());
	if (!err)
		assert_memory_equal(back, bytes + off, len);
	return err;
}

struct sunk {
	uint32_t at, pieces, stop_at;
};

static int sink(void *arg, uint32_t off, const uint8_t *p, uint32_t len)
{
	struct sunk *s = arg;

	assert_int_equal(off, s->at);
	assert_memory_equal(p, bytes + off, len);
	s->at += len;
	s->pieces++;
	return s->stop_at && s->at >= s->stop_at ? -77 : 0;
}

static int stream_back(const struct seg_place *p, uint32_t off, uint32_t len)
{
	struct sunk s = {.at = off};
	int err = gather_stream(x.v, p, off, len, sink, &s, soon());

	if (!err)
		assert_int_equal(s.at, off + len);
	return err;
}

/* The states are of no use between the parts of a test. */
static void heal(void)
{
	volume_close(x.v);
	struct node_spec spec[6] = {0};
	struct keys *keys;
	uint8_t vol[VOL_LEN] = {7};
	char path[128];

	/* The same keys again, by way of the key file. */
	(void)vol;
	snprintf(path, sizeof path, "%s/key", x.base);
	assert_int_equal(keys_load(&keys, path, NULL), 0);
	for (unsigned i = 0; i < 6; i++) {
		spec[i].number = (uint16_t)(i + 1);
		assert_true(asprintf(&spec[i].url, "dir:%s/%u", x.base, i + 1) > 0);
	}
	assert_int_equal(volume_open(&x.v, keys, 4, 2, spec, 6, NULL), 0);
	x.v->moment_ms = 0;
	for (unsigned i = 0; i < 6; i++)
		free(spec[i].url);
	volume_verify(x.v, soon());
}

static void save_keys(void)
{
	char path[128];

	snprintf(path, sizeof path, "%s/key", x.base);
	assert_int_equal(keys_save(x.v->keys, path, NULL), 0);
}

static void test_ranges(void **state)
{
	struct seg_place p, small;
	unsigned seed = (unsigned)now_ms();

	(void)state;
	print_message("seed %u\n", seed);
	assert_int_equal(fx_store(&x, bytes, LEN, &p), 0);
	assert_int_equal(fx_store(&x, bytes, 5000, &small), 0);
	assert_int_equal(read_back(&p, 0, LEN), 0);
	assert_int_equal(read_back(&p, 0, 0), 0);
	assert_int_equal(read_back(&p, LEN, 0), 0);
	assert_int_equal(read_back(&p, LEN, 1), -EINVAL);
	assert_int_equal(read_back(&p, 1, LEN), -EINVAL);
	assert_int_equal(read_back(&p, 0xfffffff0u, 0x20), -EINVAL);
	assert_int_equal(read_back(&small, 0, 5000), 0);
	assert_int_equal(read_back(&small, 4999, 1), 0);
	assert_int_equal(stream_back(&small, 0, 5000), 0);
	assert_int_equal(stream_back(&p, 0, LEN), 0);
	for (int i = 0; i < 60; i++) {
		uint32_t off = (uint32_t)rand_r(&seed) % LEN;
		uint32_t len = (uint32_t)rand_r(&seed) % (LEN - off) + 1;
		if (i % 3)
			len = 1 + (len - 1) % 200000;
		assert_int_equal(read_back(&p, off, len), 0);
		if (i % 5 == 0) {
			forget();
			assert_int_equal(stream_back(&p, off, len), 0);
		}
	}
	/* A sink that has had enough. */
	struct sunk s = {.stop_at = 1};
	assert_int_equal(gather_stream(x.v, &p, 0, LEN, sink, &s, soon()), -77);
	assert_int_equal(s.pieces, 1);
	/* No node lied and none is slow. */
	for (unsigned i = 0; i < 6; i++)
		assert_true(node_usable(x.v->node[i]));
}

/* All C(6,2) losses, and a third one. */
static void test_losses(void **state)
{
	struct seg_place p;
	char path[6][256], keep[2][1600];

	(void)state;
	save_keys();
	assert_int_equal(fx_store(&x, bytes, LEN, &p), 0);
	for (unsigned i = 0; i < 6; i++) {
		assert_int_not_equal(p.node[i], NODE_NONE);
		fx_shard_path(&x, &p, i, path[i]);
	}
	for (unsigned a = 0; a < 6; a++) {
		for (unsigned b = a + 1; b < 6; b++) {
			struct seg_place q = p;
			/* Lost and known to be lost. */
			q.node[a] = q.node[b] = (uint16_t)NODE_NONE;
			forget();
			assert_int_equal(read_back(&q, 0, LEN), 0);
			assert_int_equal(stream_back(&q, 12345, LEN - 12345), 0);
			/* Lost and not known. */
			snprintf(keep[0], sizeof keep[0], "%s.x", path[a]);
			snprintf(keep[1], sizeof keep[1], "%s.x", path[b]);
			assert_int_equal(rename(path[a], keep[0]), 0);
			assert_int_equal(rename(path[b], keep[1]), 0);
			forget();
			assert_int_equal(read_back(&p, 0, LEN), 0);
			assert_int_equal(stream_back(&p, 0, LEN), 0);
			if (a == 0 && b == 1) {
				char third[300];
				q = p;
				q.node[2] = (uint16_t)NODE_NONE;
				snprintf(third, sizeof third, "%s.x", path[2]);
				assert_int_equal(rename(path[2], third), 0);
				forget();
				assert_int_equal(read_back(&q, 0, LEN), -ENODATA);
				assert_int_equal(stream_back(&q, 0, LEN), -ENODATA);
				/* What lies on the others is still there. */
				uint32_t shard = p.geom.cps << p.geom.cell_log2;
				assert_int_equal(read_back(&q, 3 * shard, LEN - 3 * shard), 0);
				/* The third is there, and nobody was told: it is looked for. */
				assert_int_equal(rename(third, path[2]), 0);
				forget();
				assert_int_equal(read_back(&q, 0, LEN), 0);
				forget();
				assert_int_equal(stream_back(&q, 0, LEN), 0);
			}
			rename(keep[0], path[a]);
			rename(keep[1], path[b]);
		}
	}
	/* Whole directories away, found out by reading, then known. */
	char dir[2][128];
	for (int i = 0; i < 2; i++) {
		snprintf(dir[0], 128, "%s/%d", x.base, 2 + i * 3);
		snprintf(dir[1], 128, "%s/away%d", x.base, i);
		assert_int_equal(rename(dir[0], dir[1]), 0);
	}
	assert_int_equal(volume_verify(x.v, soon()), 4);
	forget();
	int64_t start = now_ms();
	assert_int_equal(read_back(&p, 0, LEN), 0);
	assert_in_range(now_ms() - start, 0, 10000);
	for (int i = 0; i < 2; i++) {
		snprintf(dir[0], 128, "%s/%d", x.base, 2 + i * 3);
		snprintf(dir[1], 128, "%s/away%d", x.base, i);
		assert_int_equal(rename(dir[1], dir[0]), 0);
	}
	assert_int_equal(volume_verify(x.v, soon()), 6);
}

/* A whole segment is one request to each of K nodes; with any two lost, too. */
static void test_whole(void **state)
{
	struct seg_place p;

	(void)state;
	assert_int_equal(fx_store(&x, bytes, SEG_MAX_LEN, &p), 0);
	assert_int_equal(stream_back(&p, 0, SEG_MAX_LEN), 0);
	assert_int_equal(stream_back(&p, 70000, SEG_MAX_LEN - 140000), 0);
	for (unsigned a = 0; a < 6; a++) {
		for (unsigned b = a + 1; b < 6; b++) {
			struct seg_place q = p;
			q.node[a] = q.node[b] = (uint16_t)NODE_NONE;
			assert_int_equal(stream_back(&q, 0, SEG_MAX_LEN), 0);
		}
	}
}

/* After a few small reads in a segment its other cells are here without being asked for. */
/* One segment, read here and there, then nowhere any more: 0 when all of it had come along. */
static int neighbours(void)
{
	struct seg_place p;
	char path[256];

	assert_int_equal(fx_store(&x, bytes, LEN, &p), 0);
	for (uint32_t i = 0; i < 8; i++) {
		uint32_t at = i * 5 % 8 * (LEN / 8) + 1000;
		assert_int_equal(gather_read_near(x.v, &p, at, 4096, back, soon()), 0);
		assert_memory_equal(back, bytes + at, 4096);
	}
	/* The last one of the segment: when it is here all are, if it was not read alone. */
	assert_int_equal(gather_read_near(x.v, &p, LEN - 100, 100, back, soon()), 0);
	for (unsigned i = 0; i < 6; i++) {
		fx_shard_path(&x, &p, i, path);
		assert_int_equal(unlink(path), 0);
	}
	return read_back(&p, 0, LEN);
}

static void test_neighbours(void **state)
{
	int err = -1;

	(void)state;
	/* On a machine with much to do the readers may be through before the thread begins. */
	for (unsigned i = 0; i < 10 && err; i++)
		err = neighbours();
	assert_int_equal(err, 0);
}

enum harm { MISSING, TRUNCATED, EXTENDED, FLIPPED, SWAPPED, FOREIGN, HARMS };

static void damage(enum harm h, const char *path, const char *other)
{
	struct buf a = {0}, b = {0};

	assert_int_equal(file_read(path, 64 << 20, &a), 0);
	if (other)
		assert_int_equal(file_read(other, 64 << 20, &b), 0);
	switch (h) {
	case MISSING:
		assert_int_equal(unlink(path), 0);
		break;
	case TRUNCATED:
		assert_int_equal(truncate(path, (off_t)a.len - 1), 0);
		break;
	case EXTENDED:
		assert_int_equal(truncate(path, (off_t)a.len + 1), 0);
		break;
	case FLIPPED:
		a.p[SHARD_HEADER + 70000] ^= 4;
		assert_int_equal(file_write_atomic(path, a.p, a.len, 0600), 0);
		break;
	case SWAPPED:
	case FOREIGN:
		assert_int_equal(file_write_atomic(path, b.p, b.len, 0600), 0);
		if (h == SWAPPED)
			assert_int_equal(file_write_atomic(other, a.p, a.len, 0600), 0);
		break;
	default:
		break;
	}
	buf_release(&a);
	buf_release(&b);
}

static void named(const struct seg_place *p, unsigned shard, enum harm h)
{
	struct node_info info;
	char name[BLOB_NAME_CAP];

	keys_shard_name(x.v->keys, &p->geom.id, shard, p->node[shard], name);
	node_get_info(volume_node(x.v, p->node[shard]), &info);
	assert_non_null(strstr(info.error, name));
	assert_int_equal(info.state, h == MISSING ? NODE_UP : NODE_LYING);
}

/* Each kind of harm, to a data shard, is noticed, named, read around, found and repaired. */
static void test_harm(void **state)
{
	bool present[EC_MAX], bad[EC_MAX];
	struct seg_place p, f;
	char path[256], other[256];

	(void)state;
	save_keys();
	for (int h = 0; h < HARMS; h++) {
		heal();
		assert_int_equal(fx_store(&x, bytes, LEN, &p), 0);
		assert_int_equal(fx_store(&x, bytes + 1, LEN, &f), 0);
		assert_int_equal(check_segment(x.v, &p, true, present, bad), 0);
		fx_shard_path(&x, &p, 1, path);
		if (h == FOREIGN)
			fx_shard_path(&x, &f, 1, other);
		else
			fx_shard_path(&x, &p, 2, other);
		damage(h, path, h >= SWAPPED ? other : NULL);
		if (h == FOREIGN) {
			/* Else the node's other segment would be damaged too. */
			assert_int_equal(check_segment(x.v, &f, true, present, bad), 0);
		}
		assert_int_equal(read_back(&p, 0, LEN), 0);
		named(&p, 1, h);
		if (h == SWAPPED)
			named(&p, 2, h);
		forget();
		assert_int_equal(stream_back(&p, 0, LEN), 0);
		/* A check finds the same; lengths even without reading all. */
		int cnt = h == SWAPPED ? 2 : 1;
		assert_int_equal(check_segment(x.v, &p, true, present, bad), cnt);
		assert_true(h == MISSING ? !present[1] : present[1] && bad[1]);
		bool lost[EC_MAX] = {false};
		for (int i = 0; i < 6; i++)
			lost[i] = !present[i] || bad[i];
		if (h <= EXTENDED)
			assert_int_equal(check_segment(x.v, &p, false, present, bad), 1);
		assert_int_equal(repair_segment(x.v, &p, lost), 0);
		assert_int_equal(check_segment(x.v, &p, true, present, bad), 0);
		forget();
		assert_int_equal(read_back(&p, 0, LEN), 0);
	}
	heal();
}

/* One bad cell on each of three nodes, each in another row: every cell can still be had. */
static void test_scattered(void **state)
{
	struct seg_place p;
	char path[256];

	(void)state;
	save_keys();
	assert_int_equal(fx_store(&x, bytes, LEN, &p), 0);
	for (unsigned i = 0; i < 4; i++) {
		struct buf b = {0};
		fx_shard_path(&x, &p, i, path);
		assert_int_equal(file_read(path, 64 << 20, &b), 0);
		b.p[SHARD_HEADER + i * seg_stride(&p.geom) + 9] ^= 1;
		assert_int_equal(file_write_atomic(path, b.p, b.len, 0600), 0);
		buf_release(&b);
	}
	assert_int_equal(read_back(&p, 0, LEN), 0);
	forget();
	assert_int_equal(stream_back(&p, 0, LEN), 0);
	heal();
}

/*
 * The negative control: that a flipped byte comes out is only prevented by the tags.  Decoded
 * past the check, from the very file the node gives, it does come out wrong.
 */
static void test_control(void **state)
{
	struct seg_place p;
	struct seg_reader r;
	struct buf b = {0};
	char path[256];

	(void)state;
	save_keys();
	assert_int_equal(fx_store(&x, bytes, LEN, &p), 0);
	size_t stride = seg_stride(&p.geom);
	uint8_t *stored[EC_MAX] = {NULL}, *mem = calloc(6, stride), *good = malloc(stride);
	bool have[EC_MAX] = {false};
	assert_int_equal(seg_reader_init(&r, x.v->keys, &p.geom), 0);
	for (unsigned i = 0; i < 6; i++) {
		fx_shard_path(&x, &p, i, path);
		buf_reset(&b);
		assert_int_equal(file_read(path, 64 << 20, &b), 0);
		stored[i] = mem + i * stride;
		memcpy(stored[i], b.p + SHARD_HEADER, stride);
		have[i] = i > 0 && i < 5;
	}
	memcpy(good, stored[0], stride);
	assert_int_equal(seg_rebuild(&r, 0, 1, stored, have), 0);
	assert_memory_equal(good, stored[0], stride);
	stored[2][100] ^= 1;
	assert_int_equal(seg_check(&r, 2, 0, stored[2]), -EBADMSG);
	/* As if the check were not there: a "genuine" cell with wrong bytes is the result. */
	assert_int_equal(seg_rebuild(&r, 0, 1, stored, have), 0);
	assert_int_equal(seg_check(&r, 0, 0, stored[0]), 0);
	assert_memory_not_equal(good, stored[0], stride);
	seg_reader_release(&r);
	buf_release(&b);
	free(mem);
	free(good);
}

/* A FIFO in place of a shard: opening it hangs. */
static void test_hang(void **state)
{
	struct seg_place p;
	char path[2][256];

	(void)state;
	save_keys();
	assert_int_equal(fx_store(&x, bytes, LEN, &p), 0);
	for (unsigned i = 0; i < 2; i++) {
		fx_shard_path(&x, &p, i, path[i]);
		unlink(path[i]);
		assert_int_equal(mkfifo(path[i], 0600), 0);
	}
	int64_t worst = 0, start;
	unsigned soon_cnt = 0;
	for (int i = 0; i < 12; i++) {
		forget();
		start = now_ms();
		assert_int_equal(read_back(&p, 65536u * (unsigned)i, 65536), 0);
		worst = HF_MAX(worst, now_ms() - start);
		soon_cnt += now_ms() - start < 1000;
	}
	print_message("worst of 12 cells with two nodes hanging: %d ms\n", (int)worst);
	/* The machine may have had something else to do; the request itself has twenty seconds. */
	assert_in_range(worst, 0, 10000);
	assert_in_range(soon_cnt, 7, 12);
	/* By now the one that was asked is known to be slow, and is not waited for. */
	assert_int_equal(node_state(volume_node(x.v, p.node[0])), NODE_SLOW);
	forget();
	start = now_ms();
	assert_int_equal(stream_back(&p, 0, LEN), 0);
	assert_in_range(now_ms() - start, 0, 10000);
	/*
	 * A long stream gives what is there while it waits for what hangs, and then needs it
	 * again to rebuild the rest: the last data shard is the one that hangs.
	 */
	struct seg_place q;
	assert_int_equal(fx_store(&x, bytes, SEG_MAX_LEN, &q), 0);
	fx_shard_path(&x, &q, 3, path[1]);
	unlink(path[1]);
	assert_int_equal(mkfifo(path[1], 0600), 0);
	forget();
	start = now_ms();
	assert_int_equal(stream_back(&q, 0, SEG_MAX_LEN), 0);
	assert_in_range(now_ms() - start, 0, 10000);
	/* Three: the deadline ends it. */
	for (unsigned i = 2; i < 3; i++) {
		fx_shard_path(&x, &p, i, path[0]);
		unlink(path[0]);
		assert_int_equal(mkfifo(path[0], 0600), 0);
	}
	forget();
	start = now_ms();
	assert_int_equal(gather_read(x.v, &p, 0, 100, back, now_ms() + 300), -ETIMEDOUT);
	assert_in_range(now_ms() - start, 250, 10000);
	start = now_ms();
	heal();
	assert_in_range(now_ms() - start, 0, 15000);
}

static void away(unsigned node, bool again)
{
	char here[128], there[128];

	snprintf(here, sizeof here, "%s/%u", x.base, node);
	snprintf(there, sizeof there, "%s/away%u", x.base, node);
	assert_int_equal(again ? rename(there, here) : rename(here, there), 0);
}

/* What the last look found is believed for a while: not here. */
static void doubt(void)
{
	forget();
	x.v->looked_ms = 0;
}

/*
 * Three of six are down, and one of them is back without anybody having noticed: a read that
 * needs it looks, and gets its bytes.
 */
static void test_returned(void **state)
{
	struct seg_place p;

	(void)state;
	assert_int_equal(fx_store(&x, bytes, LEN, &p), 0);
	for (unsigned i = 1; i <= 3; i++)
		away(i, false);
	assert_int_equal(volume_verify(x.v, soon()), 3);
	doubt();
	assert_int_equal(read_back(&p, 0, LEN), -ENODATA);
	away(1, true);
	/* The control: what is said to be down is believed. */
	x.v->skip_look = true;
	doubt();
	assert_int_equal(read_back(&p, 0, LEN), -ENODATA);
	assert_int_equal(stream_back(&p, 0, LEN), -ENODATA);
	x.v->skip_look = false;
	assert_int_equal(node_state(x.v->node[0]), NODE_DOWN);
	doubt();
	assert_int_equal(read_back(&p, 0, LEN), 0);
	assert_int_equal(node_state(x.v->node[0]), NODE_UP);
	/* One that goes and comes is asked though it is not trusted yet. */
	away(1, false);
	assert_int_equal(volume_verify(x.v, soon()), 3);
	doubt();
	assert_int_equal(read_back(&p, 0, LEN), -ENODATA);
	away(1, true);
	x.v->node[0]->health.flaps = 3;
	doubt();
	assert_int_equal(read_back(&p, 0, LEN), 0);
	assert_int_equal(node_state(x.v->node[0]), NODE_DOWN);
	doubt();
	assert_int_equal(stream_back(&p, 0, LEN), 0);
	/* A foreign marker is nobody who comes back. */
	away(2, true);
	char path[128];
	snprintf(path, sizeof path, "%s/2/v/node", x.base);
	assert_int_equal(unlink(path), 0);
	away(1, false);
	assert_int_equal(volume_verify(x.v, soon()), 3);
	doubt();
	assert_int_equal(read_back(&p, 0, LEN), -ENODATA);
	assert_int_equal(node_state(x.v->node[1]), NODE_WRONG);
}

static void *come_back(void *arg)
{
	usleep(*(useconds_t *)arg);
	away(3, true);
	return NULL;
}

/* A third node goes away for a moment: who reads meanwhile waits for it, and no longer. */
static void test_moment(void **state)
{
	useconds_t pause = 400000;
	struct seg_place p;
	pthread_t t;

	(void)state;
	assert_int_equal(fx_store(&x, bytes, LEN, &p), 0);
	away(1, false);
	away(2, false);
	assert_int_equal(volume_verify(x.v, soon()), 4);
	away(3, false);
	assert_int_equal(volume_verify(x.v, soon()), 3);
	doubt();
	assert_int_equal(read_back(&p, 0, LEN), -ENODATA);
	assert_int_equal(node_state(x.v->node[2]), NODE_DOWN);
	x.v->moment_ms = 15000;
	assert_int_equal(pthread_create(&t, NULL, come_back, &pause), 0);
	doubt();
	assert_int_equal(read_back(&p, 0, LEN), 0);
	pthread_join(t, NULL);
	away(3, false);
	assert_int_equal(volume_verify(x.v, soon()), 3);
	doubt();
	x.v->moment_ms = 1000;
	int64_t start = now_ms();
	assert_int_equal(read_back(&p, 0, LEN), -ENODATA);
	assert_true(now_ms() - start >= 900);
}

struct reader {
	const struct seg_place *p;
	unsigned seed;
	int err;
};

static void *reader(void *arg)
{
	struct reader *r = arg;
	uint8_t *out = malloc(300000);

	for (int i = 0; i < 60 && !r->err; i++) {
		uint32_t off = (uint32_t)rand_r(&r->seed) % (LEN / 4);
		uint32_t len = 1 + (uint32_t)rand_r(&r->seed) % 300000;
		r->err = gather_read(x.v, r->p, off, len, out, soon());
		if (!r->err && memcmp(out, bytes + off, len) != 0)
			r->err = -EBADMSG;
	}
	free(out);
	return NULL;
}

static void test_threads(void **state)
{
	struct reader r[6];
	struct seg_place p;
	pthread_t t[6];

	(void)state;
	assert_int_equal(fx_store(&x, bytes, LEN, &p), 0);
	p.node[0] = (uint16_t)NODE_NONE;
	for (unsigned i = 0; i < 6; i++) {
		r[i] = (struct reader){.p = &p, .seed = i};
		assert_int_equal(pthread_create(&t[i], NULL, reader, &r[i]), 0);
	}
	for (unsigned i = 0; i < 6; i++) {
		pthread_join(t[i], NULL);
		assert_int_equal(r[i].err, 0);
	}
}

static int verify_blob(void *arg, const void *p, size_t len)
{
	return len == strlen(arg) && !memcmp(p, arg, len) ? 0 : -EBADMSG;
}

static int count_name(void *arg, const char *name, unsigned copies)
{
	unsigned *cnt = arg;

	assert_true(!strncmp(name, "l/", 2));
	cnt[0]++;
	cnt[1] += copies;
	return 0;
}

static int verify_any(void *arg, const char *name, const void *p, size_t len)
{
	(void)arg;
	(void)name;
	return len >= 4 && !memcmp(p, "good", 4) ? 0 : -EBADMSG;
}

/* Of the form that names of commits have. */
#define LOG_NAME(last) "l/caaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" last

static void test_blobs(void **state)
{
	char path[128];
	struct buf b = {0};
	unsigned copies, cnt[2] = {0}, answered;

	(void)state;
	save_keys();
	assert_int_equal(x.v->quorum, 4);
	assert_int_equal(x.v->shard_quorum, 5);
	assert_int_equal(spread_blob(x.v, "l/c1", "good1", 5, 4, &copies), 0);
	assert_int_equal(copies, 6);
	assert_int_equal(gather_blob(x.v, "l/c1", 100, verify_blob, "good1", &b), 0);
	assert_memory_equal(b.p, "good1", 5);
	buf_reset(&b);
	assert_int_equal(gather_blob(x.v, "l/c2", 100, verify_blob, "good2", &b), -ENOENT);
	/* All but one copy bad or longer than allowed. */
	for (int i = 1; i <= 5; i++) {
		snprintf(path, sizeof path, "%s/%d/l/c1", x.base, i);
		assert_int_equal(file_write_atomic(path, "goodxxxxxxxx", i > 3 ? 12 : 5, 0600), 0);
	}
	assert_int_equal(gather_blob(x.v, "l/c1", 8, verify_blob, "good1", &b), 0);
	assert_int_equal(b.len, 5);
	buf_reset(&b);
	snprintf(path, sizeof path, "%s/6/l/c1", x.base);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(gather_blob(x.v, "l/c1", 8, verify_blob, "good1", &b), -EBADMSG);
	heal();
	/* On one node alone: the copy is found, and copied to the others; a bad one is not. */
	spread_delete(x.v, "l/c1");
	snprintf(path, sizeof path, "%s/6/%s", x.base, LOG_NAME("2"));
	assert_int_equal(file_write_atomic(path, "good7", 5, 0600), 0);
	snprintf(path, sizeof path, "%s/5/%s", x.base, LOG_NAME("3"));
	assert_int_equal(file_write_atomic(path, "evil8", 5, 0600), 0);
	/* Nor is a file of somebody else, which says nothing about its node. */
	snprintf(path, sizeof path, "%s/4/l/cover.jpg", x.base);
	assert_int_equal(file_write_atomic(path, "evil9", 5, 0600), 0);
	snprintf(path, sizeof path, "%s/4/l/cover", x.base);
	assert_int_equal(file_write_atomic(path, "evil9", 5, 0600), 0);
	assert_int_equal(repair_blobs(x.v, verify_any, NULL, NULL), 5);
	assert_int_equal(node_state(x.v->node[3]), NODE_UP);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(gather_list(x.v, "l/", &answered, count_name, cnt), 0);
	assert_int_equal(answered, 6);
	assert_int_equal(cnt[0], 2);
	assert_int_equal(cnt[1], 7);
	assert_int_equal(gather_blob(x.v, LOG_NAME("2"), 100, verify_blob, "good7", &b), 0);
	heal();
	/* Three nodes away: absence cannot be told, nor can a quorum be had. */
	for (int i = 1; i <= 3; i++) {
		char to[128];
		snprintf(path, sizeof path, "%s/%d", x.base, i);
		snprintf(to, sizeof to, "%s/gone%d", x.base, i);
		assert_int_equal(rename(path, to), 0);
	}
	assert_int_equal(volume_verify(x.v, soon()), 3);
	assert_int_equal(gather_blob(x.v, "l/c9", 100, verify_blob, "good9", &b), -ENODATA);
	assert_int_equal(spread_blob(x.v, "l/c9", "good9", 5, 4, &copies), -EAGAIN);
	assert_int_equal(copies, 3);
	for (int i = 1; i <= 3; i++) {
		char to[128];
		snprintf(path, sizeof path, "%s/%d", x.base, i);
		snprintf(to, sizeof to, "%s/gone%d", x.base, i);
		assert_int_equal(rename(to, path), 0);
	}
	buf_release(&b);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_ranges), T(test_whole), T(test_neighbours),	 T(test_losses), T(test_harm),	  T(test_scattered),
		T(test_control), T(test_hang),	 T(test_returned), T(test_moment), T(test_threads), T(test_blobs),
	};

	log_set_quiet(true);
	log_set_level(LOG_LVL_ERROR);
	if (keys_global_init() != 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
