/* SPDX-License-Identifier: GPL-3.0-or-later */
/* A volume on temporary directories, for tests of what is above the nodes. */
#ifndef HOLDFAST_TESTS_VOLUME_UTIL_H
#define HOLDFAST_TESTS_VOLUME_UTIL_H

#include <fcntl.h>
#include <ftw.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "net/gather.h"
#include "net/spread.h"

struct fixture {
	char base[64];
	unsigned nodes, k, m;
	struct volume *v;
};

static inline int fx_rm_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	(void)st;
	(void)flag;
	(void)ftw;
	return remove(path);
}

static inline void fx_rm_tree(const char *path)
{
	nftw(path, fx_rm_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* nodes directories "1".."nodes"; a k + m volume whose markers are written and verified. */
static inline void fx_open(struct fixture *x, unsigned nodes, unsigned k, unsigned m)
{
	uint8_t vol[VOL_LEN] = {7};
	struct node_spec spec[40] = {0};
	struct keys *keys;

	*x = (struct fixture){.nodes = nodes, .k = k, .m = m};
	strcpy(x->base, "/tmp/hf-test-vol-XXXXXX");
	assert_non_null(mkdtemp(x->base));
	for (unsigned i = 0; i < nodes; i++) {
		spec[i].number = (uint16_t)(i + 1);
		assert_true(asprintf(&spec[i].url, "dir:%s/%u", x->base, i + 1) > 0);
	}
	assert_int_equal(keys_create(&keys, vol, 1), 0);
	assert_int_equal(volume_open(&x->v, keys, k, m, spec, nodes, NULL), 0);
	/* What is taken away in a test does not come back by itself. */
	x->v->moment_ms = 0;
	for (unsigned i = 0; i < nodes; i++) {
		assert_int_equal(node_init(x->v->node[i], vol, now_ms() + 10000), 0);
		free(spec[i].url);
	}
	assert_int_equal(volume_verify(x->v, now_ms() + 10000), nodes);
}

static inline void fx_close(struct fixture *x)
{
	volume_close(x->v);
	fx_rm_tree(x->base);
}

/* The file of shard i. */
static inline void fx_shard_path(struct fixture *x, const struct seg_place *p, unsigned i,
				 char out[256])
{
	char name[BLOB_NAME_CAP];

	keys_shard_name(x->v->keys, &p->geom.id, i, p->node[i], name);
	snprintf(out, 256, "%s/%u/s/%.2s/%s", x->base, p->node[i], name + 2, name + 2);
}

static inline void fx_fill(uint8_t *p, size_t len, uint32_t seed)
{
	for (size_t i = 0; i < len; i++) {
		seed = seed * 1664525 + 1013904223;
		p[i] = (uint8_t)(seed >> 24);
	}
}

/* Begins to store bytes as one segment. */
static inline struct spread *fx_begin(struct fixture *x, const uint8_t *p, size_t len)
{
	struct seg_builder *b;
	struct stripe *stripe;
	struct spread *sp;
	struct seg_id id;
	uint32_t off;

	assert_int_equal(seg_builder_new(&b, x->v->keys, x->v->pool), 0);
	assert_int_equal(seg_builder_start(b, &id), 0);
	assert_int_equal(seg_builder_add(b, p, len, &off), 0);
	assert_int_equal(off, 0);
	assert_int_equal(seg_builder_finish(b, &stripe), 0);
	assert_int_equal(spread_start(&sp, x->v, stripe), 0);
	stripe_unref(stripe);
	seg_builder_free(b);
	return sp;
}

/* The same to its end; what spread_finish says. */
static inline int fx_store(struct fixture *x, const uint8_t *p, size_t len,
			   struct seg_place *place)
{
	return spread_finish(fx_begin(x, p, len), place);
}

#endif
