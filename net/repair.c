/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "net/spread.h"

#include <stdlib.h>
#include "net/rows.h"

#define READ_MS	 120000
#define WRITE_MS 60000
#define CHECK_MS 120000
#define FIND_MS	 30000
#define PIECE	 (1u << 20)

/* --- one segment --- */

/* How many shards of the segment, but for shard `but`, lie on this domain. */
static unsigned on_domain(struct volume *v, const struct seg_place *place, unsigned but,
			  uint32_t domain)
{
	unsigned cnt = 0;

	for (unsigned i = 0; i < place->geom.k + place->geom.m; i++) {
		struct node *n = i != but ? volume_node(v, place->node[i]) : NULL;
		cnt += n && node_domain(n) == domain;
	}
	return cnt;
}

static bool may_take(struct volume *v, const struct seg_place *place, unsigned shard,
		     const bool skip[], size_t i)
{
	struct node *n = v->node[i];
	unsigned cap = HF_MAX(place->geom.m, 1u);

	if (skip[i] || !node_usable(n))
		return false;
	for (unsigned j = 0; j < place->geom.k + place->geom.m; j++)
		if (j != shard && place->node[j] == node_number(n))
			return false;
	return on_domain(v, place, shard, node_domain(n)) < cap;
}

/* The index of the node for a shard that is to be stored again, or -1. */
static int64_t choose(struct volume *v, const struct seg_place *place, unsigned shard,
		      const bool skip[])
{
	uint16_t home[EC_MAX];
	int placed = volume_place(v, &place->geom.id, skip, home);

	/* Where it is damaged it is best replaced; else where a new segment would put it. */
	for (int pass = 0; pass < 3; pass++) {
		for (size_t i = 0, cnt = volume_nodes(v); i < cnt; i++) {
			uint16_t no = node_number(v->node[i]);
			bool liked = pass == 2 || (pass == 0 && place->node[shard] == no) ||
				     (pass == 1 && placed > 0 && home[shard] == no);
			if (liked && may_take(v, place, shard, skip, i))
				return (int64_t)i;
		}
	}
	return -1;
}

struct rebuilt {
	_Atomic int ref;
	uint8_t *blob; /* a whole shard */
};

static void rebuilt_unref(struct rebuilt *r)
{
	if (!r || atomic_fetch_sub(&r->ref, 1) != 1)
		return;
	free(r->blob);
	free(r);
}

static void rebuilt_released(struct node_io *io)
{
	rebuilt_unref(io->priv_arg);
}

static int rebuilt_new(struct rebuilt **out, struct volume *v, const struct seg_geom *g,
		       unsigned shard)
{
	struct rebuilt *r = malloc(sizeof *r);

	*out = r;
	if (!r)
		return -ENOMEM;
	r->ref = 1;
	r->blob = malloc(seg_shard_len(g));
	return r->blob ? seg_shard_header(v->keys, g, shard, r->blob) : -ENOMEM;
}

/* Rebuilds rows of the shards in `lost` into their blobs. */
static int rebuild_rows(struct volume *v, const struct seg_place *place,
			const struct seg_reader *r, uint32_t lost, uint32_t row0, uint32_t rows,
			struct rebuilt *const out[], int64_t deadline_ms)
{
	const struct seg_geom *g = &place->geom;
	size_t stride = seg_stride(g);
	struct fetch f;

	fetch_init(&f, v, place, r, deadline_ms);
	f.avoid = lost;
	int err = fetch_add(&f, row0, rows, lost);
	if (!err)
		err = fetch_run(&f);
	for (unsigned i = 0; i < EC_MAX && !err; i++)
		if (lost >> i & 1)
			memcpy(out[i]->blob + SHARD_HEADER + row0 * stride, f.win[0].data[i],
			       rows * stride);
	fetch_release(&f);
	return err;
}

static int rebuild_all(struct volume *v, const struct seg_place *place, uint32_t lost,
		       struct rebuilt *const out[])
{
	const struct seg_geom *g = &place->geom;
	int64_t deadline = now_ms() + READ_MS;
	uint32_t step = (uint32_t)HF_MAX(PIECE / seg_cell(g), (size_t)1);
	struct seg_reader r;
	int err = seg_reader_init(&r, v->keys, g);

	if (err)
		return err;
	for (uint32_t row = 0; row < g->cps && !err; row += step) {
		uint32_t rows = HF_MIN(step, g->cps - row);
		err = rebuild_rows(v, place, &r, lost, row, rows, out, deadline);
		if (err != -ENODATA || rows == 1)
			continue;
		/* Different rows may be bad on different nodes. */
		err = 0;
		for (uint32_t i = row; i < row + rows && !err; i++)
			err = rebuild_rows(v, place, &r, lost, i, 1, out, deadline);
	}
	seg_reader_release(&r);
	return err;
}

/*
 * Stores one rebuilt shard on `target`, NODE_NONE: somewhere; place is updated when it is
 * there.
 */
static int store(struct volume *v, struct seg_place *place, unsigned shard, struct rebuilt *r,
		 uint16_t target)
{
	bool *skip = calloc(v->node_cap, sizeof *skip);
	int err = skip ? -EAGAIN : -ENOMEM;
	int64_t i;

	for (size_t n = 0; skip && target != NODE_NONE && n < v->node_cap; n++)
		skip[n] = n >= volume_nodes(v) || node_number(v->node[n]) != target;
	while (err == -EAGAIN && (i = choose(v, place, shard, skip)) >= 0) {
		int64_t end = now_ms() + WRITE_MS;
		char name[BLOB_NAME_CAP];
		struct node_wait w;
		struct node_io *io;

		keys_shard_name(v->keys, &place->geom.id, shard, node_number(v->node[i]), name);
		io = node_io_new(NODE_PUT, name);
		if (!io) {
			err = -ENOMEM;
			break;
		}
		io->iov[0] = (struct iovec){r->blob, seg_shard_len(&place->geom)};
		io->iov_cnt = 1;
		io->deadline_ms = end;
		io->release = rebuilt_released;
		io->priv_arg = r;
		atomic_fetch_add(&r->ref, 1);
		node_wait_init(&w);
		node_wait_submit(&w, v->node[i], io);
		io = node_wait_next(&w, end + 1000);
		if (io && !io->err) {
			place->node[shard] = node_number(v->node[i]);
			err = 0;
		}
		skip[i] = true;
		node_io_unref(io);
		node_wait_release(&w);
	}
	free(skip);
	return err;
}

int repair_segment(struct volume *v, struct seg_place *place, const bool lost[])
{
	const struct seg_geom *g = &place->geom;
	struct rebuilt *out[EC_MAX] = {NULL};
	uint32_t mask = 0;
	int missing = 0, stored = 0, err = 0;

	if (seg_geom_check(g) != 0)
		return log_fail(-EBADMSG, "a segment with an impossible geometry is to be repaired");
	for (unsigned i = 0; i < g->k + g->m; i++)
		if (place->node[i] == NODE_NONE || (lost && lost[i]))
			mask |= 1u << i;
	if (!mask)
		return 0;
	/* Not read for nothing: nodes may all be down or taken. */
	bool room = false;
	bool *skip = calloc(v->node_cap, sizeof *skip);
	for (unsigned i = 0; skip && i < g->k + g->m && !room; i++)
		room = (mask >> i & 1) && choose(v, place, i, skip) >= 0;
	if (!skip || !room) {
		err = skip ? -EAGAIN : -ENOMEM;
		free(skip);
		return err;
	}
	free(skip);
	for (unsigned i = 0; i < g->k + g->m && !err; i++)
		if (mask >> i & 1)
			err = rebuilt_new(&out[i], v, g, i);
	if (!err)
		err = rebuild_all(v, place, mask, out);
	for (unsigned i = 0; i < g->k + g->m && !err; i++) {
		if (!(mask >> i & 1))
			continue;
		int e = store(v, place, i, out[i], (uint16_t)NODE_NONE);
		if (!e) {
			stored++;
		} else if (e == -EAGAIN) {
			place->node[i] = (uint16_t)NODE_NONE;
			missing++;
		} else {
			err = e;
		}
	}
	for (unsigned i = 0; i < EC_MAX; i++)
		rebuilt_unref(out[i]);
	if (err)
		return err;
	return stored ? missing : -EBUSY;
}

static void judge(struct volume *v, const struct seg_reader *r, unsigned i, bool deep,
		  const struct node_io *io, bool *present, bool *bad);

/* The shard as its node gives it; 0 when every cell of it is genuine. */
static int read_shard(struct volume *v, const struct seg_place *place, unsigned shard,
		      struct rebuilt *r)
{
	const struct seg_geom *g = &place->geom;
	struct node *n = volume_node(v, place->node[shard]);
	bool present = false, bad = false;
	char name[BLOB_NAME_CAP];
	struct seg_reader sr;
	struct node_wait w;
	struct node_io *io;

	if (!n || !node_readable(n))
		return -ENODATA;
	keys_shard_name(v->keys, &g->id, shard, place->node[shard], name);
	io = node_io_new(NODE_GET, name);
	int err = io ? seg_reader_init(&sr, v->keys, g) : -ENOMEM;
	if (err) {
		node_io_unref(io);
		return err;
	}
	io->len = seg_shard_len(g) + 1;
	io->deadline_ms = now_ms() + READ_MS;
	node_wait_init(&w);
	node_wait_submit(&w, n, io);
	io = node_wait_next(&w, now_ms() + READ_MS + 1000);
	if (io)
		judge(v, &sr, shard, true, io, &present, &bad);
	if (present && !bad && io && !io->err)
		memcpy(r->blob, io->buf, seg_shard_len(g));
	else
		err = -ENODATA;
	node_io_unref(io);
	node_wait_release(&w);
	seg_reader_release(&sr);
	return err;
}

int move_shard(struct volume *v, struct seg_place *place, unsigned shard, uint16_t target)
{
	struct rebuilt *out[EC_MAX] = {NULL};
	struct seg_place to = *place;

	int err = seg_geom_check(&place->geom);
	if (!err)
		err = rebuilt_new(&out[shard], v, &place->geom, shard);
	if (!err) {
		err = read_shard(v, place, shard, out[shard]);
		if (err == -ENODATA) {
			err = seg_shard_header(v->keys, &place->geom, shard, out[shard]->blob);
			if (!err)
				err = rebuild_all(v, place, 1u << shard, out);
		}
	}
	/* Not where it is, even if that node takes shards. */
	to.node[shard] = (uint16_t)NODE_NONE;
	if (!err)
		err = store(v, &to, shard, out[shard], target);
	rebuilt_unref(out[shard]);
	if (!err)
		*place = to;
	return err;
}

int find_shards(struct volume *v, struct seg_place *p, int64_t deadline_ms)
{
	unsigned n = (unsigned)p->geom.k + p->geom.m;
	int64_t end = HF_MIN(now_ms() + FIND_MS, deadline_ms);
	struct node_wait w;
	struct node_io *io;
	int found = 0;

	node_wait_init(&w);
	for (size_t i = 0, cnt = volume_nodes(v); i < cnt; i++) {
		for (unsigned s = 0; s < n && node_readable(v->node[i]); s++) {
			char name[BLOB_NAME_CAP];
			if (p->node[s] == node_number(v->node[i]))
				continue;
			keys_shard_name(v->keys, &p->geom.id, s, node_number(v->node[i]), name);
			io = node_io_new(NODE_GET, name);
			if (!io)
				continue;
			io->len = 1;
			io->deadline_ms = end;
			io->tag = (unsigned)i * EC_MAX + s;
			node_wait_submit(&w, v->node[i], io);
		}
	}
	while (w.pending && (io = node_wait_next(&w, end + 1000))) {
		if (!io->err && io->got == 1) {
			p->node[io->tag % EC_MAX] = node_number(v->node[io->tag / EC_MAX]);
			found++;
		}
		node_io_unref(io);
	}
	node_wait_release(&w);
	return found;
}

/* --- checking --- */

/* What came for shard i of a check: present and bad are set. */
static void judge(struct volume *v, const struct seg_reader *r, unsigned i, bool deep,
		  const struct node_io *io, bool *present, bool *bad)
{
	const struct seg_geom *g = &r->g;
	struct seg_geom found;
	unsigned shard;

	/* EIO is a shard that is there and cannot be read: a bad sector, not a bad node. */
	if (io->err == -EIO && node_readable(io->node)) {
		*present = *bad = true;
		return;
	}
	if (io->err == -ENOENT)
		node_lacks(io->node, io->name);
	if (io->err)
		return;
	*present = true;
	*bad = io->got != (deep ? seg_shard_len(g) : 1);
	if (deep && !*bad) {
		*bad = seg_shard_header_open(v->keys, io->buf, &found, &shard) != 0 ||
		       shard != i || memcmp(&found.id, &g->id, sizeof g->id) != 0;
		for (uint32_t row = 0; row < g->cps && !*bad; row++)
			*bad = seg_check(r, i, row,
					 io->buf + SHARD_HEADER + row * seg_stride(g)) != 0;
	}
	if (*bad)
		node_lied(io->node, io->name);
}

int check_segment(struct volume *v, const struct seg_place *place, bool deep, bool present[],
		  bool bad[])
{
	const struct seg_geom *g = &place->geom;
	int64_t end = now_ms() + CHECK_MS;
	char name[BLOB_NAME_CAP];
	struct seg_reader r;
	struct node_wait w;
	struct node_io *io;
	int unwell = 0;

	int err = seg_geom_check(g);
	if (!err)
		err = seg_reader_init(&r, v->keys, g);
	if (err)
		return err;
	node_wait_init(&w);
	for (unsigned i = 0; i < g->k + g->m && !err; i++) {
		present[i] = bad[i] = false;
		struct node *n = volume_node(v, place->node[i]);
		if (!n || !node_readable(n))
			continue;
		keys_shard_name(v->keys, &g->id, i, place->node[i], name);
		io = node_io_new(NODE_GET, name);
		if (!io) {
			err = -ENOMEM;
			break;
		}
		/* The last byte and the one after it say whether the length is right. */
		io->off = deep ? 0 : seg_shard_len(g) - 1;
		io->len = deep ? seg_shard_len(g) + 1 : 2;
		io->deadline_ms = end;
		io->tag = i;
		node_wait_submit(&w, n, io);
	}
	while (!err && w.pending && (io = node_wait_next(&w, end + 1000))) {
		judge(v, &r, io->tag, deep, io, &present[io->tag], &bad[io->tag]);
		node_io_unref(io);
	}
	node_wait_release(&w);
	seg_reader_release(&r);
	for (unsigned i = 0; i < g->k + g->m; i++)
		unwell += !present[i] || bad[i];
	return err ? err : unwell;
}
