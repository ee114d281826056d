/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <stdlib.h>
#include "cache/cut.h"

int stream_init(struct stream *s, struct store *st, struct rec_stamp stamp)
{
	*s = (struct stream){.st = st, .stamp = stamp};
	return rec_writer_new(&s->w, st->dir);
}

void stream_release(struct stream *s)
{
	rec_writer_free(s->w);
	buf_release(&s->rec);
	buf_release(&s->xattrs);
	free(s->slot);
	*s = (struct stream){0};
}

int stream_push(struct stream *s, size_t limit)
{
	if (s->rec.err)
		return s->rec.err;
	if (s->rec.len <= limit || !s->rec.len)
		return 0;
	return rec_writer_add(s->w, &s->rec);
}

void inode_columns(sqlite3_stmt *q, struct rec_inode *r, uint32_t *flags, uint64_t *dchg)
{
	*r = (struct rec_inode){
		.ino = (uint64_t)sqlite3_column_int64(q, 0),
		.mode = (uint32_t)sqlite3_column_int64(q, 1),
		.uid = (uint32_t)sqlite3_column_int64(q, 2),
		.gid = (uint32_t)sqlite3_column_int64(q, 3),
		.nlink = (uint32_t)sqlite3_column_int64(q, 4),
		.rdev = (uint64_t)sqlite3_column_int64(q, 5),
		.size = (uint64_t)sqlite3_column_int64(q, 6),
		.atime_ns = sqlite3_column_int64(q, 7),
		.mtime_ns = sqlite3_column_int64(q, 8),
		.ctime_ns = sqlite3_column_int64(q, 9),
		.btime_ns = sqlite3_column_int64(q, 10),
		.changed = (uint32_t)sqlite3_column_int64(q, 14),
		.target = sqlite3_column_blob(q, 15),
		.target_len = (uint16_t)sqlite3_column_bytes(q, 15),
	};
	if (S_ISDIR(r->mode))
		r->parent = (uint64_t)sqlite3_column_int64(q, 11);
	*flags = (uint32_t)sqlite3_column_int64(q, 12);
	*dchg = (uint64_t)sqlite3_column_int64(q, 13);
}

int stream_inode_locked(struct stream *s, struct rec_inode *r, uint32_t flags)
{
	buf_reset(&s->xattrs);
	r->xattr_cnt = 0;
	if (flags & INODE_XATTRS) {
		sqlite3_stmt *q =
			store_stmt(s->st, "SELECT name,value FROM xattr WHERE ino=?1");
		int more;

		if (!q)
			return -EIO;
		sqlite3_bind_int64(q, 1, (int64_t)r->ino);
		while ((more = store_step(s->st, q)) == 1) {
			int name_len = sqlite3_column_bytes(q, 0);
			int len = sqlite3_column_bytes(q, 1);

			buf_u8(&s->xattrs, (uint8_t)name_len);
			buf_put(&s->xattrs, sqlite3_column_blob(q, 0), (size_t)name_len);
			buf_u32(&s->xattrs, (uint32_t)len);
			buf_put(&s->xattrs, sqlite3_column_blob(q, 1), (size_t)len);
			r->xattr_cnt++;
		}
		sqlite3_reset(q);
		if (more < 0)
			return more;
	}
	r->xattrs = s->xattrs.p;
	r->xattrs_len = (uint32_t)s->xattrs.len;
	rec_put_inode(&s->rec, s->stamp, r);
	return s->xattrs.err ? s->xattrs.err : s->rec.err;
}

int segment_columns(sqlite3_stmt *q, int col, struct seg_place *out)
{
	int id_len = sqlite3_column_bytes(q, col);
	const void *id = sqlite3_column_blob(q, col);
	int len = sqlite3_column_bytes(q, col + 6);
	const uint8_t *nodes = sqlite3_column_blob(q, col + 6);

	*out = (struct seg_place){
		.geom.k = (uint8_t)sqlite3_column_int(q, col + 1),
		.geom.m = (uint8_t)sqlite3_column_int(q, col + 2),
		.geom.cell_log2 = (uint8_t)sqlite3_column_int(q, col + 3),
		.geom.cps = (uint32_t)sqlite3_column_int64(q, col + 4),
		.geom.len = (uint32_t)sqlite3_column_int64(q, col + 5),
	};
	for (unsigned i = 0; i < EC_MAX; i++)
		out->node[i] = NODE_NONE;
	if (id_len != SEG_LEN || len > 2 * EC_MAX || len % 2)
		return log_fail(-EBADMSG, "the database's row of a segment is damaged");
	memcpy(out->geom.id.b, id, SEG_LEN);
	for (int i = 0; i < len / 2; i++)
		out->node[i] = get_le16(nodes + 2 * i);
	return 0;
}

static size_t slot_of(const struct stream *s, uint64_t seg)
{
	size_t i = (size_t)(seg * 0x9e3779b97f4a7c15u >> 20) & (s->slot_cap - 1);

	while (s->slot[i].seg && s->slot[i].seg != seg)
		i = (i + 1) & (s->slot_cap - 1);
	return i;
}

static int slot_grow(struct stream *s)
{
	struct stream old = *s;

	s->slot_cap = old.slot_cap ? 2 * old.slot_cap : 256;
	s->slot = calloc(s->slot_cap, sizeof *s->slot);
	if (!s->slot) {
		*s = old;
		return -ENOMEM;
	}
	for (size_t i = 0; i < old.slot_cap; i++) {
		if (old.slot[i].seg)
			s->slot[slot_of(s, old.slot[i].seg)] = old.slot[i];
	}
	free(old.slot);
	return 0;
}

int stream_segment_locked(struct stream *s, uint64_t seg, uint32_t *index)
{
	if (2 * (s->slot_cnt + 1) > s->slot_cap && slot_grow(s))
		return -ENOMEM;
	size_t i = slot_of(s, seg);

	if (s->slot[i].seg) {
		*index = s->slot[i].index;
		return 0;
	}
	sqlite3_stmt *q = store_stmt(s->st, "SELECT " SEGMENT_COLS
					    ",kind,data FROM segment WHERE seg=?1");
	struct seg_place place;

	if (!q)
		return -EIO;
	sqlite3_bind_int64(q, 1, (int64_t)seg);
	int r = store_step(s->st, q);

	if (r == 0)
		r = log_fail(-EBADMSG, "an extent refers to segment %llu, which is not known",
			     (unsigned long long)seg);
	else if (r == 1)
		r = segment_columns(q, 0, &place);
	if (!r && sqlite3_column_int(q, 7) == SEG_INLINE) {
		struct rec_inline inl = {.id = place.geom.id,
					 .data = sqlite3_column_blob(q, 8),
					 .len = (uint32_t)sqlite3_column_bytes(q, 8)};

		rec_put_inline(&s->rec, s->stamp, &inl);
	} else if (!r) {
		rec_put_segment(&s->rec, s->stamp, &place);
	}
	sqlite3_reset(q);
	if (r)
		return r;
	if (s->rec.err)
		return s->rec.err;
	s->slot[i] = (struct stream_seg){.seg = seg, .index = s->segs++};
	s->slot_cnt++;
	*index = s->slot[i].index;
	return 0;
}

int stream_nodes_locked(struct stream *s, uint64_t after_chg)
{
	sqlite3_stmt *q = store_stmt(
		s->st, "SELECT number,url,member FROM node WHERE chg>?1 ORDER BY number");
	int more;

	if (!q)
		return -EIO;
	sqlite3_bind_int64(q, 1, (int64_t)after_chg);
	while ((more = store_step(s->st, q)) == 1) {
		struct rec_node n = {.number = (uint16_t)sqlite3_column_int(q, 0),
				     .member = (uint8_t)sqlite3_column_int(q, 2),
				     .url = sqlite3_column_text(q, 1),
				     .url_len = (uint16_t)sqlite3_column_bytes(q, 1)};

		rec_put_node(&s->rec, s->stamp, &n);
	}
	sqlite3_reset(q);
	return more < 0 ? more : s->rec.err;
}

int stream_devices_locked(struct stream *s, uint64_t after_chg)
{
	sqlite3_stmt *q =
		store_stmt(s->st, "SELECT number,role,ed_pk,cert FROM device WHERE chg>?1 AND "
				  "length(cert)>0 ORDER BY number");
	int more;

	if (!q)
		return -EIO;
	sqlite3_bind_int64(q, 1, (int64_t)after_chg);
	while ((more = store_step(s->st, q)) == 1) {
		struct rec_device d = {.number = (uint16_t)sqlite3_column_int(q, 0),
				       .role = (uint8_t)sqlite3_column_int(q, 1)};

		if (sqlite3_column_bytes(q, 2) != sizeof d.ed_pk ||
		    sqlite3_column_bytes(q, 3) != sizeof d.cert) {
			sqlite3_reset(q);
			return log_fail(-EBADMSG, "the database's row of device %u is damaged",
					d.number);
		}
		memcpy(d.ed_pk, sqlite3_column_blob(q, 2), sizeof d.ed_pk);
		memcpy(d.cert, sqlite3_column_blob(q, 3), sizeof d.cert);
		rec_put_device(&s->rec, s->stamp, &d);
	}
	sqlite3_reset(q);
	return more < 0 ? more : s->rec.err;
}

void content_begin(struct content *c, struct buf *out, struct rec_stamp stamp, uint64_t ino,
		   uint64_t size)
{
	c->out = out;
	c->stamp = stamp;
	c->ino = ino;
	c->size = size;
	c->drop_cnt = c->ext_cnt = 0;
}

void content_end(struct content *c)
{
	if (c->drop_cnt || c->ext_cnt)
		rec_put_content(c->out, c->stamp, c->ino, c->size, c->drop, c->drop_cnt, c->ext,
				c->ext_cnt);
	c->drop_cnt = c->ext_cnt = 0;
}

void content_drop(struct content *c, uint64_t off, uint64_t len)
{
	if (c->drop_cnt == CONTENT_BATCH)
		content_end(c);
	c->drop[c->drop_cnt++] = (struct rec_range){.off = off, .len = len};
}

void content_add(struct content *c, const struct rec_extent *e)
{
	if (c->ext_cnt) {
		struct rec_extent *last = &c->ext[c->ext_cnt - 1];

		if (last->seg == e->seg && last->off + last->len == e->off &&
		    last->seg_off + last->len == e->seg_off) {
			last->len += e->len;
			return;
		}
	}
	if (c->ext_cnt == CONTENT_BATCH)
		content_end(c);
	c->ext[c->ext_cnt++] = *e;
}

struct live {
	struct content *c;
	struct stream *s;
	uint64_t off, end;
	int err;
};

static int live_extent(void *arg, const struct extent *e)
{
	struct live *l = arg;
	uint64_t from = HF_MAX(e->off, l->off), to = HF_MIN(e->off + e->len, l->end);
	uint32_t index;

	if (from >= to)
		return 0;
	l->err = stream_segment_locked(l->s, e->seg, &index);
	if (l->err)
		return 1;
	content_add(l->c,
		    &(struct rec_extent){.off = from,
					 .len = (uint32_t)(to - from),
					 .seg = index,
					 .seg_off = e->seg_off + (uint32_t)(from - e->off)});
	return 0;
}

int content_live_locked(struct content *c, struct stream *s, uint64_t off, uint64_t end)
{
	struct live l = {.c = c, .s = s, .off = off, .end = end};
	int r = extent_each_locked(s->st, c->ino, off, end, live_extent, &l);

	return l.err ? l.err : r < 0 ? r : 0;
}

static void encode_nodes(const struct seg_place *place, uint8_t out[2 * EC_MAX], int *len,
			 int *missing)
{
	unsigned n = (unsigned)place->geom.k + place->geom.m;

	*missing = 0;
	for (unsigned i = 0; i < n; i++) {
		put_le16(out + 2 * i, place->node[i]);
		*missing += place->node[i] == NODE_NONE;
	}
	*len = (int)(2 * n);
}

int segment_insert_locked(struct store *st, uint64_t seg, const struct seg_place *place,
			  enum seg_kind kind, uint64_t seq, uint64_t chg,
			  const struct buf *data)
{
	sqlite3_stmt *q = store_stmt(
		st, "INSERT INTO segment(seg,id,kind,k,m,cell_log2,cps,len,nodes,missing,chg,"
		    "seq,data) VALUES(?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13)");
	uint8_t nodes[2 * EC_MAX];
	int len, missing;

	if (!q)
		return -EIO;
	encode_nodes(place, nodes, &len, &missing);
	if (kind == SEG_INLINE)
		len = missing = 0;
	sqlite3_bind_int64(q, 1, (int64_t)seg);
	sqlite3_bind_blob(q, 2, place->geom.id.b, SEG_LEN, SQLITE_STATIC);
	sqlite3_bind_int(q, 3, (int)kind);
	sqlite3_bind_int(q, 4, place->geom.k);
	sqlite3_bind_int(q, 5, place->geom.m);
	sqlite3_bind_int(q, 6, place->geom.cell_log2);
	sqlite3_bind_int64(q, 7, place->geom.cps);
	sqlite3_bind_int64(q, 8, place->geom.len);
	sqlite3_bind_blob(q, 9, nodes, len, SQLITE_STATIC);
	sqlite3_bind_int(q, 10, missing);
	sqlite3_bind_int64(q, 11, (int64_t)chg);
	sqlite3_bind_int64(q, 12, (int64_t)seq);
	if (data)
		sqlite3_bind_blob64(q, 13, data->p, data->len, SQLITE_STATIC);
	return store_run(st, q);
}

int segment_nodes_locked(struct store *st, uint64_t seg, const struct seg_place *place,
			 uint64_t chg)
{
	sqlite3_stmt *q = store_stmt(
		st, "UPDATE segment SET nodes=?2,missing=?3,chg=?4 WHERE seg=?1 AND id=?5 "
		    "AND kind<>4");
	uint8_t nodes[2 * EC_MAX];
	int len, missing;

	if (!q)
		return -EIO;
	encode_nodes(place, nodes, &len, &missing);
	sqlite3_bind_int64(q, 1, (int64_t)seg);
	sqlite3_bind_blob(q, 2, nodes, len, SQLITE_STATIC);
	sqlite3_bind_int(q, 3, missing);
	sqlite3_bind_int64(q, 4, (int64_t)chg);
	sqlite3_bind_blob(q, 5, place->geom.id.b, SEG_LEN, SQLITE_STATIC);
	return store_run(st, q);
}
