/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <dirent.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include "net/histobj.h"
#include "net/padded.h"
#include "net/spread.h"

#define GOLDEN	  "tests/golden/commit.bin"
#define GOLDEN_PK "tests/golden/commit.pk"
#define N	  6

static uint8_t vk[KEY_LEN], vol[VOL_LEN];

/* --- the pure part --- */

/* A zstd frame with one raw block: fixed bytes, whatever the library would make. */
static size_t raw_frame(const uint8_t *p, size_t len, uint8_t *out)
{
	static const uint8_t magic[] = {0x28, 0xb5, 0x2f, 0xfd, 0x20};

	memcpy(out, magic, sizeof magic);
	out[5] = (uint8_t)len;
	uint32_t head = 1 | (uint32_t)len << 3;
	out[6] = (uint8_t)head;
	out[7] = (uint8_t)(head >> 8);
	out[8] = (uint8_t)(head >> 16);
	memcpy(out + 9, p, len);
	return 9 + len;
}

static void sample(struct hist_object *o, bool snapshot, struct buf *records)
{
	uint8_t frame[300];

	*o = (struct hist_object){.head = {.snapshot = snapshot,
					   .device = 1,
					   .seq = 5,
					   .lamport = 9,
					   .time_ns = 1234567890}};
	o->head.snap_to = snapshot ? 44 : 0;
	if (!snapshot)
		memset(o->head.prev, 0xaa, HASH_LEN);
	o->head.seen = calloc(2, sizeof *o->head.seen);
	o->head.seen_cnt = 2;
	for (int i = 0; i < 2; i++) {
		o->head.seen[i] = (struct hist_seen){.device = (uint16_t)(i * 2 + 2), .seq = 7};
		memset(o->head.seen[i].hash, i + 1, HASH_LEN);
	}
	rec_put_gone(records, (struct rec_stamp){9, 1}, 99);
	o->raw_len = records->len;
	buf_put(&o->z, frame, raw_frame(records->p, records->len, frame));
	o->z_len = o->z.len;
}

static struct keys *golden_keys(void)
{
	struct keys *k;

	for (int i = 0; i < KEY_LEN; i++)
		vk[i] = (uint8_t)i;
	for (int i = 0; i < VOL_LEN; i++)
		vol[i] = (uint8_t)(i + 100);
	assert_int_equal(keys_adopt(&k, vol, 1, vk), 0);
	return k;
}

static void test_object(void **state)
{
	struct keys *k = golden_keys();
	struct hist_device dev = {.number = 1}, other = {.number = 2};

	(void)state;
	memcpy(dev.ed_pk, keys_device_pk(k), 32);
	for (int snapshot = 0; snapshot < 2; snapshot++) {
		struct buf rec = {0}, obj = {0}, again = {0}, got = {0};
		struct hist_object o, back;
		struct hist_head head;
		struct seg_place *parts;
		size_t part_cnt;

		sample(&o, snapshot, &rec);
		assert_int_equal(hist_object_seal(k, &o, &obj), 0);
		assert_int_equal(hist_object_seal(k, &o, &again), 0);
		assert_int_equal(obj.len, again.len);
		assert_memory_equal(obj.p, again.p, obj.len);
		assert_int_equal(history_open(k, &dev, 1, obj.p, obj.len, &head, &got, &parts,
					      &part_cnt),
				 0);
		assert_int_equal(head.seq, 5);
		assert_int_equal(head.snap_to, snapshot ? 44 : 0);
		assert_int_equal(head.seen_cnt, 2);
		assert_int_equal(got.len, rec.len);
		assert_memory_equal(got.p, rec.p, rec.len);
		hist_head_release(&head);
		assert_int_equal(hist_object_open(k, &other, 1, obj.p, obj.len, &back),
				 -ENOKEY);
		other.number = 1; /* the right number, another key */
		assert_int_equal(hist_object_open(k, &other, 1, obj.p, obj.len, &back),
				 -EBADMSG);
		other.number = 2;
		for (size_t i = 0; i < obj.len; i++) {
			obj.p[i] ^= 1;
			int err = hist_object_open(k, &dev, 1, obj.p, obj.len, &back);
			assert_true(err == -EBADMSG || err == -ENOTSUP);
			obj.p[i] ^= 1;
		}
		for (size_t i = 0; i < obj.len; i++)
			assert_int_equal(hist_object_open(k, &dev, 1, obj.p, i, &back),
					 -EBADMSG);

		/* What a reader would refuse is not written. */
		o.head.seen[1].device = 1;
		assert_int_equal(hist_object_seal(k, &o, &again), -EINVAL);
		o.head.seen[1].device = 4;
		o.head.seq = 0;
		assert_int_equal(hist_object_seal(k, &o, &again), -EINVAL);
		hist_object_release(&o);
		buf_release(&rec);
		buf_release(&obj);
		buf_release(&again);
		buf_release(&got);
	}
	keys_free(k);
}

/* The device key of a golden file is random: all but the signature is compared. */
static void test_golden(void **state)
{
	struct keys *k = golden_keys();
	struct buf rec = {0}, obj = {0}, want = {0}, pk = {0};
	struct hist_device dev = {.number = 1};
	struct hist_object o, back;

	(void)state;
	sample(&o, false, &rec);
	assert_int_equal(hist_object_seal(k, &o, &obj), 0);
	if (getenv("HF_GOLDEN")) {
		assert_int_equal(file_write_atomic(GOLDEN, obj.p, obj.len, 0644), 0);
		assert_int_equal(file_write_atomic(GOLDEN_PK, keys_device_pk(k), 32, 0644), 0);
	}
	assert_int_equal(file_read(GOLDEN, COMMIT_CAP, &want), 0);
	assert_int_equal(file_read(GOLDEN_PK, 32, &pk), 0);
	memcpy(dev.ed_pk, pk.p, 32);
	assert_int_equal(want.len, obj.len);
	assert_memory_equal(want.p, obj.p, obj.len - SIG_LEN);
	assert_int_equal(hist_object_open(k, &dev, 1, want.p, want.len, &back), 0);
	hist_object_release(&back);
	hist_object_release(&o);
	buf_release(&rec);
	buf_release(&obj);
	buf_release(&want);
	buf_release(&pk);
	keys_free(k);
}

static void test_padme(void **state)
{
	(void)state;
	assert_int_equal(padme(0), 0);
	assert_int_equal(padme(9), 10);
	assert_int_equal(padme(1000000), 1015808);
	for (size_t i = 1; i < 100000; i++) {
		assert_true(padme(i) >= i && padme(i) <= i + i / 8 + 1);
		assert_int_equal(padme(padme(i)), padme(i));
	}
}

/* --- on nodes --- */

struct world {
	char root[64];
	struct volume *v;
	struct hist_device dev[3];
	uint8_t hash[3][HASH_LEN]; /* of the newest commit of device i + 1 */
	uint64_t seq[3];
	uint64_t lamport;
	uint64_t snap_extra; /* the next snapshots want so many commits after `from` */
};

static char *node_path(const struct world *w, unsigned i)
{
	char *p = NULL;

	assert_true(asprintf(&p, "%s/n%u", w->root, i) > 0);
	return p;
}

static struct volume *open_volume(struct world *w, struct keys *k, bool init)
{
	struct node_spec spec[N] = {0};
	struct volume *v;

	for (unsigned i = 0; i < N; i++) {
		char *p = node_path(w, i);
		mkdir(p, 0700);
		spec[i].number = (uint16_t)(i + 1);
		spec[i].url = NULL;
		assert_true(asprintf(&spec[i].url, "dir:%s", p) > 0);
		free(p);
	}
	assert_int_equal(volume_open(&v, k, 4, 2, spec, N, NULL), 0);
	for (unsigned i = 0; i < N; i++) {
		if (init)
			assert_int_equal(node_init(v->node[i], vol, now_ms() + 5000), 0);
		free(spec[i].url);
	}
	volume_verify(v, now_ms() + 5000);
	return v;
}

/* Devices 1 and 2: two volumes over the same nodes. */
static void world_open(struct world *w, struct volume **second)
{
	struct keys *k;

	*w = (struct world){.root = "/tmp/hf-hist-XXXXXX"};
	assert_non_null(mkdtemp(w->root));
	for (uint16_t i = 0; i < 2; i++) {
		assert_int_equal(keys_adopt(&k, vol, (uint16_t)(i + 1), vk), 0);
		w->dev[i].number = (uint16_t)(i + 1);
		memcpy(w->dev[i].ed_pk, keys_device_pk(k), 32);
		*(i ? second : &w->v) = open_volume(w, k, i == 0);
	}
}

static void world_close(struct world *w, struct volume *second)
{
	char cmd[128];

	volume_close(w->v);
	volume_close(second);
	assert_int_equal(strncmp(w->root, "/tmp/hf-hist-", 13), 0);
	snprintf(cmd, sizeof cmd, "rm -rf %s", w->root);
	assert_int_equal(system(cmd), 0);
}

/* One commit or snapshot with `cnt` GONE records (and random data when big). */
static void publish(struct world *w, struct volume *v, bool snapshot, uint64_t number,
		    uint64_t ino, size_t big, bool sees)
{
	unsigned d = keys_device(v->keys) - 1u;
	struct hist_head h = {.snapshot = snapshot,
			      .device = (uint16_t)(d + 1),
			      .seq = number,
			      .lamport = ++w->lamport,
			      .time_ns = (int64_t)w->lamport * 1000};
	struct hist_seen seen[2];
	struct rec_writer *rw;
	struct seg_place *parts;
	size_t part_cnt;
	struct buf b = {0}, obj = {0};
	uint8_t *noise = malloc(big + 1);
	uint32_t rnd = 7;

	for (unsigned i = 0; i < 2; i++) {
		if (!w->seq[i] || (i == d && !snapshot) || (i != d && !sees))
			continue;
		seen[h.seen_cnt].device = (uint16_t)(i + 1);
		seen[h.seen_cnt].seq = w->seq[i];
		memcpy(seen[h.seen_cnt++].hash, w->hash[i], HASH_LEN);
	}
	h.seen = seen;
	if (snapshot)
		h.snap_to = w->seq[d] + w->snap_extra;
	else
		memcpy(h.prev, w->hash[d], HASH_LEN);
	assert_int_equal(rec_writer_new(&rw, "/tmp"), 0);
	rec_put_gone(&b, (struct rec_stamp){h.lamport, h.device}, ino);
	for (size_t i = 0; i < big; i++)
		noise[i] = (uint8_t)((rnd = rnd * 1664525 + 1013904223) >> 24);
	for (size_t at = 0; at < big; at += 1u << 20) {
		struct rec_inline inl = {.data = noise + at,
					 .len = (uint32_t)HF_MIN(big - at, (size_t)1 << 20)};
		rec_put_inline(&b, (struct rec_stamp){h.lamport, h.device}, &inl);
		assert_int_equal(rec_writer_add(rw, &b), 0);
	}
	assert_int_equal(rec_writer_add(rw, &b), 0);
	assert_int_equal(history_build(v, &h, rw, &obj, &parts, &part_cnt), 0);
	assert_true((big > (1u << 20)) == (part_cnt > 0));
	assert_int_equal(history_put(v, &h, &obj), 0);
	if (!snapshot) {
		w->seq[d] = number;
		history_hash(&obj, w->hash[d]);
	}
	free(parts);
	free(noise);
	rec_writer_free(rw);
	buf_release(&b);
	buf_release(&obj);
}

static void commit(struct world *w, struct volume *v, uint64_t ino)
{
	publish(w, v, false, w->seq[keys_device(v->keys) - 1] + 1, ino, 0, true);
}

struct log {
	uint64_t ino[512];
	unsigned cnt, begun, ended;
	uint64_t bytes;
};

static int on_begin(void *arg, const struct hist_head *h)
{
	struct log *g = arg;
	(void)h;
	g->begun++;
	return 0;
}

static int on_records(void *arg, struct rd *r)
{
	struct log *g = arg;
	struct record rec;
	int got;

	while ((got = rec_next(r, &rec)) == 1) {
		if (rec.type == REC_INODE_GONE)
			g->ino[g->cnt++] = rec.gone_ino;
		else
			g->bytes += rec.inl.len;
	}
	return got;
}

static int on_end(void *arg, const struct hist_head *h)
{
	struct log *g = arg;
	(void)h;
	g->ended++;
	return 0;
}

static const struct hist_cb cb = {on_begin, on_records, on_end};

static int load(struct world *w, struct log *g, struct hist_state *st,
		const struct hist_seen *floor, size_t floor_cnt)
{
	*g = (struct log){0};
	return history_load(w->v, w->dev, 2, floor, floor_cnt, st, &cb, g);
}

static void blob_path(struct world *w, unsigned node, char kind, unsigned device, uint64_t seq,
		      char out[256])
{
	char name[BLOB_NAME_CAP], *p = node_path(w, node);

	keys_log_name(w->v->keys, kind, device, seq, name);
	snprintf(out, 256, "%s/%s", p, name);
	free(p);
}

static void remove_blob(struct world *w, char kind, unsigned device, uint64_t seq)
{
	char path[256];

	for (unsigned i = 0; i < N; i++) {
		blob_path(w, i, kind, device, seq, path);
		assert_int_equal(unlink(path), 0);
	}
}

static void trim(struct world *w, uint64_t commit, uint64_t snap)
{
	struct hist_floor f = {.device = 1, .commit = commit, .snap = snap};

	assert_int_equal(history_trim(w->v, &f, 1, NULL, NULL), 0);
}

static void test_load_chain(void **state)
{
	struct hist_state st = {0};
	struct volume *second;
	struct world w;
	struct log g;

	(void)state;
	world_open(&w, &second);
	assert_int_equal(load(&w, &g, &st, NULL, 0), 0);
	assert_int_equal(g.cnt, 0);
	for (uint64_t i = 1; i <= 40; i++)
		commit(&w, i % 3 ? w.v : second, i);
	assert_int_equal(load(&w, &g, &st, NULL, 0), 0);
	assert_int_equal(g.cnt, 40);
	assert_int_equal(g.begun, 40);
	assert_int_equal(g.ended, 40);
	for (uint64_t i = 0; i < 40; i++)
		assert_int_equal(g.ino[i], i + 1);
	assert_int_equal(st.seen_cnt, 2);
	assert_int_equal(st.lamport, 40);
	assert_int_equal(st.seen[0].seq, w.seq[0]);
	assert_memory_equal(st.seen[1].hash, w.hash[1], HASH_LEN);

	/* Only what is new, the next time. */
	commit(&w, second, 77);
	assert_int_equal(load(&w, &g, &st, NULL, 0), 0);
	assert_int_equal(g.cnt, 1);
	assert_int_equal(g.ino[0], 77);
	assert_int_equal(st.lamport, 41);
	hist_state_release(&st);

	/* A wrong copy on two nodes stops nobody. */
	char path[256];
	for (unsigned i = 0; i < 2; i++) {
		blob_path(&w, i, 'c', 1, 4, path);
		assert_int_equal(file_write_atomic(path, "rubbish", 7, 0600), 0);
	}
	assert_int_equal(load(&w, &g, &st, NULL, 0), 0);
	assert_int_equal(g.cnt, 41);

	/* A newer floor is refused. */
	struct hist_seen floor = {.device = 2, .seq = w.seq[1]};
	memcpy(floor.hash, w.hash[1], HASH_LEN);
	hist_state_release(&st);
	assert_int_equal(load(&w, &g, &st, &floor, 1), 0);
	floor.hash[0] ^= 1;
	hist_state_release(&st);
	assert_int_equal(load(&w, &g, &st, &floor, 1), -EBADMSG);
	floor.seq++;
	assert_int_equal(load(&w, &g, &st, &floor, 1), -ESTALE);

	/* A commit that is gone everywhere: a gap; at the end of a chain another saw it. */
	remove_blob(&w, 'c', 1, 10);
	assert_int_equal(load(&w, &g, &st, NULL, 0), -EBADMSG);
	assert_non_null(strstr(log_last(), "commit 10 of device 1"));
	for (uint64_t i = 11; i <= w.seq[0]; i++)
		remove_blob(&w, 'c', 1, i);
	assert_int_equal(load(&w, &g, &st, NULL, 0), -EBADMSG);
	assert_non_null(strstr(log_last(), "of device 1 is missing"));
	hist_state_release(&st);
	world_close(&w, second);
}

/* A genuine commit under the name of another is not that one: no node exchanges history. */
static void test_exchanged(void **state)
{
	struct hist_state st = {0};
	struct volume *second;
	char from[256], to[256];
	struct buf other = {0};
	struct world w;
	struct log g;

	(void)state;
	world_open(&w, &second);
	for (uint64_t i = 1; i <= 8; i++)
		commit(&w, w.v, i);
	blob_path(&w, 0, 'c', 1, 5, from);
	assert_int_equal(file_read(from, COMMIT_CAP, &other), 0);
	for (unsigned i = 0; i < N - 1; i++) {
		blob_path(&w, i, 'c', 1, 4, to);
		assert_int_equal(file_write_atomic(to, other.p, other.len, 0600), 0);
	}
	assert_int_equal(load(&w, &g, &st, NULL, 0), 0);
	assert_int_equal(g.cnt, 8);
	for (uint64_t i = 0; i < 8; i++)
		assert_int_equal(g.ino[i], i + 1);
	hist_state_release(&st);
	buf_release(&other);
	world_close(&w, second);
}

static void test_load_snapshot(void **state)
{
	struct hist_state st = {0};
	struct volume *second;
	struct world w;
	struct log g;

	(void)state;
	world_open(&w, &second);
	for (uint64_t i = 1; i <= 10; i++)
		commit(&w, w.v, i);
	commit(&w, second, 11);
	publish(&w, w.v, true, 1, 1000, 0, true);
	trim(&w, 8, 1);
	assert_int_equal(load(&w, &g, &st, NULL, 0), 0);
	assert_int_equal(g.cnt, 1);
	assert_int_equal(g.ino[0], 1000);
	assert_int_equal(st.snap, 1);
	assert_int_equal(st.snap_device, 1);
	for (uint64_t i = 12; i <= 20; i++)
		commit(&w, i & 1 ? second : w.v, i);
	publish(&w, w.v, true, 2, 2000, (17u << 20) + 5, true);
	trim(&w, 12, 2);
	commit(&w, w.v, 21);
	hist_state_release(&st);
	assert_int_equal(load(&w, &g, &st, NULL, 0), 0);
	assert_int_equal(g.cnt, 2);
	assert_int_equal(g.ino[0], 2000);
	assert_int_equal(g.ino[1], 21);
	assert_int_equal(g.bytes, (17u << 20) + 5);
	assert_int_equal(st.part_cnt, 2);
	assert_int_equal(st.snap, 2);

	/* Two nodes gone: the same; three: too few, and it says which. */
	char *from = node_path(&w, 0), *to = node_path(&w, 90);
	assert_int_equal(rename(from, to), 0);
	char *from1 = node_path(&w, 1), *to1 = node_path(&w, 91);
	assert_int_equal(rename(from1, to1), 0);
	volume_verify(w.v, now_ms() + 2000);
	hist_state_release(&st);
	assert_int_equal(load(&w, &g, &st, NULL, 0), 0);
	assert_int_equal(g.bytes, (17u << 20) + 5);
	char *from2 = node_path(&w, 2), *to2 = node_path(&w, 92);
	char *from3 = node_path(&w, 3), *to3 = node_path(&w, 93);
	assert_int_equal(rename(from2, to2), 0);
	assert_int_equal(rename(from3, to3), 0);
	volume_verify(w.v, now_ms() + 2000);
	hist_state_release(&st);
	assert_int_equal(load(&w, &g, &st, NULL, 0), -ENODATA);
	assert_non_null(strstr(log_last(), "2 of 6 nodes answer, 3 are needed"));
	assert_non_null(strstr(log_last(), "missing"));
	free(from), free(to), free(from1), free(to1), free(from2), free(to2), free(from3),
		free(to3);
	world_close(&w, second);
}

/* The newest snapshot's commits are not all there: an older base is taken, or none. */
static void test_snapshot_needs_commits(void **state)
{
	struct hist_state st = {0};
	struct volume *second;
	struct world w;
	struct log g;

	(void)state;
	world_open(&w, &second);
	for (uint64_t i = 1; i <= 3; i++)
		commit(&w, w.v, i);
	publish(&w, w.v, true, 1, 1000, 0, true);
	remove_blob(&w, 'c', 1, 3);
	/* The snapshot itself holds what its `from` says, so it is a base. */
	assert_int_equal(load(&w, &g, &st, NULL, 0), 0);
	assert_int_equal(g.ino[0], 1000);
	hist_state_release(&st);
	/* One that needs two commits more: they were published, so what is there is old. */
	w.snap_extra = 2;
	publish(&w, w.v, true, 2, 1500, 0, true);
	assert_int_equal(load(&w, &g, &st, NULL, 0), -EBADMSG);
	assert_non_null(strstr(log_last(), "commit 4 of device 1"));
	commit(&w, w.v, 4);
	commit(&w, w.v, 5);
	assert_int_equal(load(&w, &g, &st, NULL, 0), 0);
	assert_int_equal(g.cnt, 3);
	assert_int_equal(g.ino[0], 1500);
	hist_state_release(&st);
	w.snap_extra = 0;
	/* A newer one whose commits were trimmed replaces all. */
	w.seq[0] = 9;
	publish(&w, w.v, true, 3, 2000, 0, true);
	remove_blob(&w, 's', 1, 1);
	remove_blob(&w, 'c', 1, 1);
	assert_int_equal(load(&w, &g, &st, NULL, 0), 0);
	assert_int_equal(g.ino[0], 2000);
	hist_state_release(&st);
	world_close(&w, second);
}

/* A device that was taken over: what it sent after that is no part of the drive. */
static void test_retired(void **state)
{
	struct hist_state st = {0};
	struct volume *second;
	struct world w;
	struct log g;

	(void)state;
	world_open(&w, &second);
	for (uint64_t i = 1; i <= 3; i++)
		commit(&w, w.v, i);
	/* Nothing by the second yet: all that the first wrote holds. */
	w.dev[0].retired = true;
	assert_int_equal(load(&w, &g, &st, NULL, 0), 0);
	assert_int_equal(g.cnt, 3);
	uint64_t saw = w.seq[0];
	uint8_t hash[HASH_LEN];
	memcpy(hash, w.hash[0], HASH_LEN);
	for (uint64_t i = 4; i <= 6; i++)
		commit(&w, w.v, i);
	/* The second took over at 3. */
	uint64_t late = w.seq[0];
	uint8_t late_hash[HASH_LEN];
	memcpy(late_hash, w.hash[0], HASH_LEN);
	w.seq[0] = saw;
	memcpy(w.hash[0], hash, HASH_LEN);
	commit(&w, second, 100);
	commit(&w, second, 101);
	hist_state_release(&st);
	assert_int_equal(load(&w, &g, &st, NULL, 0), 0);
	assert_int_equal(g.cnt, 5);
	assert_int_equal(st.seen[0].seq, 3);
	assert_int_equal(g.ino[3], 100);
	hist_state_release(&st);
	/* The control: a device that is not retired. */
	w.dev[0].retired = false;
	assert_int_equal(load(&w, &g, &st, NULL, 0), 0);
	assert_int_equal(g.cnt, 8);
	hist_state_release(&st);
	w.dev[0].retired = true;
	/* From a snapshot of the second; and a late one of the first is no base. */
	publish(&w, second, true, 1, 1000, 0, true);
	w.seq[0] = late;
	memcpy(w.hash[0], late_hash, HASH_LEN);
	w.lamport -= 2;
	publish(&w, w.v, true, 1, 666, 0, false);
	assert_int_equal(load(&w, &g, &st, NULL, 0), 0);
	assert_int_equal(g.ino[0], 1000);
	hist_state_release(&st);
	w.lamport += 50;
	publish(&w, w.v, true, 2, 667, 0, false);
	assert_int_equal(load(&w, &g, &st, NULL, 0), 0);
	assert_int_equal(g.ino[0], 1000);
	hist_state_release(&st);
	/* A device of which the header says nothing: that header is old. */
	g = (struct log){0};
	assert_int_equal(history_load(w.v, w.dev, 1, NULL, 0, &st, &cb, &g), -ESTALE);
	world_close(&w, second);
}

/*
 * The snapshots have no good copy, and what is left of an older state ends far below what is
 * there: never the old state in silence.
 */
static void test_old_rest(void **state)
{
	struct hist_state st = {0};
	struct volume *second;
	struct world w;
	struct log g;
	char path[256];

	(void)state;
	world_open(&w, &second);
	for (uint64_t i = 1; i <= 3; i++)
		commit(&w, w.v, i);
	w.seq[0] = 9000;
	commit(&w, w.v, 9001);
	publish(&w, w.v, true, 1, 1000, 0, true);
	commit(&w, w.v, 9002);
	assert_int_equal(load(&w, &g, &st, NULL, 0), 0);
	assert_int_equal(g.ino[0], 1000);
	hist_state_release(&st);
	for (unsigned i = 0; i < N; i++) {
		blob_path(&w, i, 's', 1, 1, path);
		assert_int_equal(file_write_atomic(path, "rubbish", 7, 0600), 0);
	}
	assert_int_equal(load(&w, &g, &st, NULL, 0), -EBADMSG);
	assert_non_null(strstr(log_last(), "commit 4 of device 1"));
	world_close(&w, second);
}

/* A part's shards that lie elsewhere than its object says and than new ones would. */
static void test_part_moved(void **state)
{
	struct hist_state st = {0};
	struct volume *second;
	struct world w;
	struct log g;
	char from[256], to[256], gone[2][256];

	(void)state;
	world_open(&w, &second);
	for (unsigned i = 0; i < 2; i++) {
		char *p = node_path(&w, i);
		snprintf(gone[i], sizeof gone[i], "%s.gone", p);
		assert_int_equal(rename(p, gone[i]), 0);
		free(p);
	}
	volume_verify(w.v, now_ms() + 2000);
	publish(&w, w.v, false, 1, 5, 2u << 20, true);
	for (unsigned i = 0; i < 2; i++) {
		char *p = node_path(&w, i);
		assert_int_equal(rename(gone[i], p), 0);
		free(p);
	}
	volume_verify(w.v, now_ms() + 2000);
	assert_int_equal(load(&w, &g, &st, NULL, 0), 0);
	assert_int_equal(st.part_cnt, 1);
	/* Both missing ones are stored, each on the other's home. */
	struct seg_place *p = &st.parts[0], home = *p;
	unsigned miss[2], cnt = 0;
	for (unsigned i = 0; i < N; i++)
		if (p->node[i] == NODE_NONE)
			miss[cnt++] = i;
	assert_int_equal(cnt, 2);
	assert_int_equal(repair_segment(w.v, &home, NULL), 0);
	for (unsigned i = 0; i < 2; i++) {
		uint16_t was = home.node[miss[i]], is = home.node[miss[!i]];
		char name[BLOB_NAME_CAP], *d = node_path(&w, was - 1u);
		keys_shard_name(w.v->keys, &p->geom.id, miss[i], was, name);
		snprintf(from, sizeof from, "%s/s/%.2s/%s", d, name + 2, name + 2);
		free(d);
		d = node_path(&w, is - 1u);
		keys_shard_name(w.v->keys, &p->geom.id, miss[i], is, name);
		snprintf(to, sizeof to, "%s/s/%.2s", d, name + 2);
		mkdir(to, 0700);
		snprintf(to, sizeof to, "%s/s/%.2s/%s", d, name + 2, name + 2);
		free(d);
		assert_int_equal(rename(from, to), 0);
	}
	/* Two of the four that are known go. */
	for (unsigned i = 2; i < 4; i++) {
		char *d = node_path(&w, i);
		snprintf(from, sizeof from, "%s.gone", d);
		assert_int_equal(rename(d, from), 0);
		free(d);
	}
	volume_verify(w.v, now_ms() + 2000);
	hist_state_release(&st);
	assert_int_equal(load(&w, &g, &st, NULL, 0), 0);
	assert_int_equal(g.bytes, 2u << 20);
	hist_state_release(&st);
	world_close(&w, second);
}

static void test_never_published(void **state)
{
	struct hist_state st = {0};
	struct volume *second;
	struct world w;
	struct log g;
	char path[256];

	(void)state;
	world_open(&w, &second);
	commit(&w, w.v, 1);
	commit(&w, w.v, 2);
	for (unsigned i = 0; i < N; i++) {
		blob_path(&w, i, 'c', 1, 2, path);
		if (i)
			assert_int_equal(unlink(path), 0);
		else
			assert_int_equal(file_write_atomic(path, "rubbish", 7, 0600), 0);
	}
	assert_int_equal(load(&w, &g, &st, NULL, 0), 0);
	assert_int_equal(g.cnt, 1);
	assert_int_equal(st.seen[0].seq, 1);
	hist_state_release(&st);
	/* On as many nodes as a quorum it was published: its loss is an error. */
	for (unsigned i = 0; i < 4; i++) {
		blob_path(&w, i, 'c', 1, 2, path);
		assert_int_equal(file_write_atomic(path, "rubbish", 7, 0600), 0);
	}
	assert_int_equal(load(&w, &g, &st, NULL, 0), -EBADMSG);
	world_close(&w, second);
}

static void test_takeover(void **state)
{
	uint8_t kit[KEY_LEN] = {1}, wrong[32] = {0};
	struct volume *second;
	struct owner *o;
	struct world w;
	uint16_t by = 0;
	char path[256];

	(void)state;
	assert_int_equal(owner_new(&o, kit), 0);
	world_open(&w, &second);
	assert_int_equal(history_check(w.v, 1, o->ed_pk, &by), 0);
	assert_int_equal(history_takeover(second, o, 1, 2), 0);
	assert_int_equal(history_takeover(second, o, 1, 2), 0);
	assert_int_equal(history_check(w.v, 1, o->ed_pk, &by), 1);
	assert_int_equal(by, 2);
	assert_int_equal(history_takeover(second, o, 1, 3), 0);
	assert_int_equal(history_check(w.v, 1, o->ed_pk, &by), 1);
	assert_int_equal(by, 3);
	assert_int_equal(history_check(w.v, 2, o->ed_pk, &by), 0);
	uint16_t takers[HIST_TAKERS];
	size_t taker_cnt;
	assert_int_equal(history_takers(w.v, 1, o->ed_pk, takers, &taker_cnt), 0);
	assert_int_equal(taker_cnt, 2);
	assert_int_equal(takers[0] + takers[1], 5);
	assert_int_equal(history_takers(w.v, 2, o->ed_pk, takers, &taker_cnt), 0);
	assert_int_equal(taker_cnt, 0);

	struct hist_verify hv = {.v = w.v, .dev = w.dev, .dev_cnt = 2};
	struct buf b = {0};
	char name[BLOB_NAME_CAP];
	memcpy(hv.owner_pk, o->ed_pk, 32);
	blob_path(&w, 0, 't', 1, 0, path);
	assert_int_equal(file_read(path, MARKER_CAP, &b), 0);
	keys_log_name(w.v->keys, 't', 1, 0, name);
	assert_int_equal(history_verify_blob(&hv, name, b.p, b.len), 0);
	keys_log_name(w.v->keys, 't', 1, 1, name);
	assert_int_equal(history_verify_blob(&hv, name, b.p, b.len), -EBADMSG);
	memcpy(hv.owner_pk, wrong, 32);
	keys_log_name(w.v->keys, 't', 1, 0, name);
	assert_int_equal(history_verify_blob(&hv, name, b.p, b.len), -EBADMSG);
	buf_release(&b);

	/* Own commits beyond what this state knows; trimmed ones by the snapshot. */
	assert_int_equal(history_ahead(w.v, 1, 0), 0);
	for (uint64_t i = 1; i <= 4; i++)
		commit(&w, w.v, i);
	assert_int_equal(history_ahead(w.v, 1, 4), 0);
	assert_int_equal(history_ahead(w.v, 1, 3), 1);
	publish(&w, w.v, true, 1, 1000, 0, true);
	trim(&w, 5, 1);
	assert_int_equal(history_ahead(w.v, 1, 2), 1);
	assert_int_equal(history_ahead(w.v, 1, 4), 0);

	/* Too few nodes cannot say that nobody took over. */
	for (unsigned i = 0; i < 4; i++) {
		char *p = node_path(&w, i);
		snprintf(path, sizeof path, "%s.gone", p);
		assert_int_equal(rename(p, path), 0);
		free(p);
	}
	volume_verify(w.v, now_ms() + 2000);
	assert_int_equal(history_check(w.v, 2, o->ed_pk, &by), -EAGAIN);
	assert_int_equal(history_check(w.v, 1, o->ed_pk, &by), 1);
	owner_free(o);
	world_close(&w, second);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_object),
		cmocka_unit_test(test_golden),
		cmocka_unit_test(test_padme),
		cmocka_unit_test(test_load_chain),
		cmocka_unit_test(test_exchanged),
		cmocka_unit_test(test_load_snapshot),
		cmocka_unit_test(test_snapshot_needs_commits),
		cmocka_unit_test(test_retired),
		cmocka_unit_test(test_old_rest),
		cmocka_unit_test(test_part_moved),
		cmocka_unit_test(test_never_published),
		cmocka_unit_test(test_takeover),
	};
	log_set_quiet(!getenv("HF_LOUD"));
	if (keys_global_init())
		return 1;
	for (int i = 0; i < KEY_LEN; i++)
		vk[i] = (uint8_t)i;
	for (int i = 0; i < VOL_LEN; i++)
		vol[i] = (uint8_t)(i + 100);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
