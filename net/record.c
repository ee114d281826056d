/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "net/record.h"

#include <sys/stat.h>

#define REC_HEAD_LEN   6 /* type, flags, length */
#define REC_EXTENT_LEN 20
#define REC_RANGE_LEN  16
#define REC_OFF_MAX    ((uint64_t)1 << 62) /* sizes and offsets stay below */
#define REC_CH_ALL                                                                             \
	(REC_CH_MODE | REC_CH_OWNER | REC_CH_TIMES | REC_CH_XATTR | REC_CH_CONTENT | REC_CH_NEW)

/* --- encoding --- */

static void put_err(struct buf *b, int err)
{
	if (!b->err)
		b->err = err;
}

static size_t rec_begin(struct buf *b, enum rec_type type, struct rec_stamp s)
{
	size_t start = b->len;

	buf_u8(b, (uint8_t)type);
	buf_u8(b, 0);
	buf_u32(b, 0);
	buf_u64(b, s.lamport);
	buf_u16(b, s.device);
	return start;
}

/*
 * Sets the length.  What was written is decoded at once: the rules are in one place, and
 * nothing is published that a reader would refuse.
 */
static void rec_finish(struct buf *b, size_t start)
{
	struct record rec;

	if (b->err)
		return;
	size_t len = b->len - start;
	if (len <= REC_HEAD_LEN + (size_t)REC_BODY_MAX) {
		put_le32(b->p + start + 2, (uint32_t)(len - REC_HEAD_LEN));
		struct rd r = rd_over(b->p + start, len);
		if (rec_next(&r, &rec) == 1 && !rd_left(&r))
			return;
	}
	b->len = start;
	put_err(b, -EINVAL);
}

void rec_put_inode(struct buf *b, struct rec_stamp s, const struct rec_inode *r)
{
	if (r->xattrs_len > REC_BODY_MAX)
		return put_err(b, -EINVAL);
	size_t start = rec_begin(b, REC_INODE, s);
	buf_u64(b, r->ino);
	buf_u64(b, r->parent);
	buf_u32(b, r->mode);
	buf_u32(b, r->uid);
	buf_u32(b, r->gid);
	buf_u32(b, r->nlink);
	buf_u32(b, r->changed);
	buf_u64(b, r->rdev);
	buf_u64(b, r->size);
	buf_u64(b, (uint64_t)r->atime_ns);
	buf_u64(b, (uint64_t)r->mtime_ns);
	buf_u64(b, (uint64_t)r->ctime_ns);
	buf_u64(b, (uint64_t)r->btime_ns);
	buf_u16(b, r->target_len);
	buf_put(b, r->target, r->target_len);
	buf_u32(b, r->xattr_cnt);
	buf_put(b, r->xattrs, r->xattrs_len);
	rec_finish(b, start);
}

void rec_put_gone(struct buf *b, struct rec_stamp s, uint64_t ino)
{
	size_t start = rec_begin(b, REC_INODE_GONE, s);

	buf_u64(b, ino);
	rec_finish(b, start);
}

void rec_put_link(struct buf *b, struct rec_stamp s, const struct rec_link *r)
{
	size_t start = rec_begin(b, REC_LINK, s);

	buf_u64(b, r->lid);
	buf_u64(b, r->parent);
	buf_u64(b, r->ino);
	buf_u32(b, r->mode);
	buf_u8(b, r->name_len);
	buf_put(b, r->name, r->name_len);
	rec_finish(b, start);
}

void rec_put_unlink(struct buf *b, struct rec_stamp s, const struct rec_link *r)
{
	size_t start = rec_begin(b, REC_UNLINK, s);

	buf_u64(b, r->lid);
	buf_u64(b, r->parent);
	buf_u8(b, r->name_len);
	buf_put(b, r->name, r->name_len);
	rec_finish(b, start);
}

void rec_put_content(struct buf *b, struct rec_stamp s, uint64_t ino, uint64_t size,
		     const struct rec_range *drop, uint32_t drop_cnt,
		     const struct rec_extent *ext, uint32_t ext_cnt)
{
	if (drop_cnt > REC_EXTENTS_MAX || ext_cnt > REC_EXTENTS_MAX)
		return put_err(b, -EINVAL);
	size_t start = rec_begin(b, REC_CONTENT, s);
	buf_u64(b, ino);
	buf_u64(b, size);
	buf_u32(b, drop_cnt);
	buf_u32(b, ext_cnt);
	for (uint32_t i = 0; i < drop_cnt; i++) {
		buf_u64(b, drop[i].off);
		buf_u64(b, drop[i].len);
	}
	for (uint32_t i = 0; i < ext_cnt; i++) {
		buf_u64(b, ext[i].off);
		buf_u32(b, ext[i].len);
		buf_u32(b, ext[i].seg);
		buf_u32(b, ext[i].seg_off);
	}
	rec_finish(b, start);
}

void rec_put_place(struct buf *b, const struct seg_place *p)
{
	/* The check comes before the loop: k and m bound it. */
	if (seg_geom_check(&p->geom))
		return put_err(b, -EINVAL);
	buf_put(b, p->geom.id.b, SEG_LEN);
	buf_u8(b, p->geom.k);
	buf_u8(b, p->geom.m);
	buf_u8(b, p->geom.cell_log2);
	buf_u32(b, p->geom.cps);
	buf_u32(b, p->geom.len);
	for (unsigned i = 0; i < (unsigned)p->geom.k + p->geom.m; i++)
		buf_u16(b, p->node[i]);
}

void rec_put_segment(struct buf *b, struct rec_stamp s, const struct seg_place *p)
{
	size_t start = rec_begin(b, REC_SEGMENT, s);

	rec_put_place(b, p);
	rec_finish(b, start);
}

void rec_put_inline(struct buf *b, struct rec_stamp s, const struct rec_inline *r)
{
	if (r->len > REC_BODY_MAX)
		return put_err(b, -EINVAL);
	size_t start = rec_begin(b, REC_INLINE, s);
	buf_put(b, r->id.b, SEG_LEN);
	buf_u32(b, r->len);
	buf_put(b, r->data, r->len);
	rec_finish(b, start);
}

void rec_put_node(struct buf *b, struct rec_stamp s, const struct rec_node *r)
{
	size_t start = rec_begin(b, REC_NODE, s);

	buf_u16(b, r->number);
	buf_u8(b, r->member);
	buf_u16(b, r->url_len);
	buf_put(b, r->url, r->url_len);
	rec_finish(b, start);
}

void rec_put_device(struct buf *b, struct rec_stamp s, const struct rec_device *r)
{
	size_t start = rec_begin(b, REC_DEVICE, s);

	buf_u16(b, r->number);
	buf_u8(b, r->role);
	buf_put(b, r->ed_pk, sizeof r->ed_pk);
	buf_put(b, r->cert, sizeof r->cert);
	rec_finish(b, start);
}

/* --- decoding: each returns false for what breaks a rule --- */

static bool type_ok(uint32_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFREG:
	case S_IFDIR:
	case S_IFLNK:
	case S_IFCHR:
	case S_IFBLK:
	case S_IFIFO:
	case S_IFSOCK:
		return true;
	default:
		return false;
	}
}

static bool name_ok(const uint8_t *p, size_t len)
{
	if (len < 1 || memchr(p, 0, len) || memchr(p, '/', len))
		return false;
	return !(p[0] == '.' && (len == 1 || (len == 2 && p[1] == '.')));
}

int rec_xattr_next(struct rd *r, const uint8_t **name, uint8_t *name_len, const uint8_t **value,
		   uint32_t *value_len)
{
	if (!r->bad && !rd_left(r))
		return 0;
	*name_len = rd_u8(r);
	*name = rd_bytes(r, *name_len);
	*value_len = rd_u32(r);
	*value = rd_bytes(r, *value_len);
	if (r->bad || *name_len < 1 || *value_len > REC_XATTR_MAX ||
	    memchr(*name, 0, *name_len))
		return -EBADMSG;
	return 1;
}

static bool get_inode(struct rd *r, struct rec_inode *o)
{
	o->ino = rd_u64(r);
	o->parent = rd_u64(r);
	o->mode = rd_u32(r);
	o->uid = rd_u32(r);
	o->gid = rd_u32(r);
	o->nlink = rd_u32(r);
	o->changed = rd_u32(r);
	o->rdev = rd_u64(r);
	o->size = rd_u64(r);
	o->atime_ns = (int64_t)rd_u64(r);
	o->mtime_ns = (int64_t)rd_u64(r);
	o->ctime_ns = (int64_t)rd_u64(r);
	o->btime_ns = (int64_t)rd_u64(r);
	o->target_len = rd_u16(r);
	o->target = rd_bytes(r, o->target_len);
	o->xattr_cnt = rd_u32(r);
	if (r->bad)
		return false;
	o->xattrs_len = (uint32_t)rd_left(r);
	o->xattrs = rd_bytes(r, o->xattrs_len);

	bool dir = S_ISDIR(o->mode), symlink = S_ISLNK(o->mode);
	if (!o->ino || !type_ok(o->mode) || o->mode & ~(uint32_t)(S_IFMT | 07777) ||
	    o->changed & ~REC_CH_ALL || o->size >= REC_OFF_MAX || (o->parent && !dir))
		return false;
	if (symlink != (o->target_len > 0) || o->target_len > REC_TARGET_MAX ||
	    (symlink && memchr(o->target, 0, o->target_len)))
		return false;

	struct rd x = rd_over(o->xattrs, o->xattrs_len);
	const uint8_t *name, *value;
	uint8_t name_len;
	uint32_t value_len, cnt = 0;
	int got;
	while ((got = rec_xattr_next(&x, &name, &name_len, &value, &value_len)) == 1)
		cnt++;
	return got == 0 && cnt == o->xattr_cnt;
}

static bool get_link(struct rd *r, struct rec_link *o, bool made)
{
	*o = (struct rec_link){0};
	o->lid = rd_u64(r);
	o->parent = rd_u64(r);
	if (made) {
		o->ino = rd_u64(r);
		o->mode = rd_u32(r);
	}
	o->name_len = rd_u8(r);
	o->name = rd_bytes(r, o->name_len);
	if (r->bad || !o->lid || !o->parent || !name_ok(o->name, o->name_len))
		return false;
	return !made || (o->ino && type_ok(o->mode) && !(o->mode & ~(uint32_t)S_IFMT));
}

struct rec_range rec_content_drop(const struct rec_content *c, uint32_t i)
{
	const uint8_t *p = c->drops + (size_t)i * REC_RANGE_LEN;

	return (struct rec_range){.off = get_le64(p), .len = get_le64(p + 8)};
}

struct rec_extent rec_content_extent(const struct rec_content *c, uint32_t i)
{
	const uint8_t *p = c->extents + (size_t)i * REC_EXTENT_LEN;

	return (struct rec_extent){.off = get_le64(p),
				   .len = get_le32(p + 8),
				   .seg = get_le32(p + 12),
				   .seg_off = get_le32(p + 16)};
}

static bool get_content(struct rd *r, struct rec_content *o)
{
	uint64_t end = 0;

	o->ino = rd_u64(r);
	o->size = rd_u64(r);
	o->drop_cnt = rd_u32(r);
	o->extent_cnt = rd_u32(r);
	if (r->bad || !o->ino || o->size >= REC_OFF_MAX || o->drop_cnt > REC_EXTENTS_MAX ||
	    o->extent_cnt > REC_EXTENTS_MAX)
		return false;
	o->drops = rd_bytes(r, (size_t)o->drop_cnt * REC_RANGE_LEN);
	o->extents = rd_bytes(r, (size_t)o->extent_cnt * REC_EXTENT_LEN);
	if (r->bad)
		return false;
	for (uint32_t i = 0; i < o->drop_cnt; i++) {
		struct rec_range d = rec_content_drop(o, i);
		if (d.off >= REC_OFF_MAX || !d.len)
			return false;
		if (d.len != UINT64_MAX && d.len > REC_OFF_MAX - d.off)
			return false;
	}
	for (uint32_t i = 0; i < o->extent_cnt; i++) {
		struct rec_extent e = rec_content_extent(o, i);
		if (e.off < end || e.off >= REC_OFF_MAX || !e.len || e.len > SEG_MAX_LEN ||
		    e.seg_off > SEG_MAX_LEN - e.len)
			return false;
		end = e.off + e.len;
	}
	return end <= REC_OFF_MAX;
}

int rec_get_place(struct rd *r, struct seg_place *p)
{
	const uint8_t *id = rd_bytes(r, SEG_LEN);

	*p = (struct seg_place){0};
	p->geom.k = rd_u8(r);
	p->geom.m = rd_u8(r);
	p->geom.cell_log2 = rd_u8(r);
	p->geom.cps = rd_u32(r);
	p->geom.len = rd_u32(r);
	if (r->bad)
		return -EBADMSG;
	memcpy(p->geom.id.b, id, SEG_LEN);
	if (seg_geom_check(&p->geom))
		return -EBADMSG;
	for (unsigned i = 0; i < EC_MAX; i++)
		p->node[i] =
			i < (unsigned)p->geom.k + p->geom.m ? rd_u16(r) : (uint16_t)NODE_NONE;
	return r->bad ? -EBADMSG : 0;
}

static bool get_inline(struct rd *r, struct rec_inline *o)
{
	const uint8_t *id = rd_bytes(r, SEG_LEN);

	o->len = rd_u32(r);
	o->data = rd_bytes(r, o->len);
	if (r->bad || !o->len)
		return false;
	memcpy(o->id.b, id, SEG_LEN);
	return true;
}

static bool get_node(struct rd *r, struct rec_node *o)
{
	o->number = rd_u16(r);
	o->member = rd_u8(r);
	o->url_len = rd_u16(r);
	o->url = rd_bytes(r, o->url_len);
	return !r->bad && o->number != NODE_NONE && o->member >= 1 && o->member <= 3 &&
	       o->url_len >= 1 && o->url_len < NODE_URL_CAP && !memchr(o->url, 0, o->url_len);
}

static bool get_device(struct rd *r, struct rec_device *o)
{
	o->number = rd_u16(r);
	o->role = rd_u8(r);
	const uint8_t *pk = rd_bytes(r, sizeof o->ed_pk);
	const uint8_t *cert = rd_bytes(r, sizeof o->cert);
	if (r->bad || !o->number || o->role < 1 || o->role > 3)
		return false;
	memcpy(o->ed_pk, pk, sizeof o->ed_pk);
	memcpy(o->cert, cert, sizeof o->cert);
	return true;
}

int rec_next(struct rd *r, struct record *out)
{
	bool ok = false;

	if (!r->bad && !rd_left(r))
		return 0;
	uint8_t type = rd_u8(r), flags = rd_u8(r);
	uint32_t len = rd_u32(r);
	if (r->bad || flags || len > REC_BODY_MAX)
		return -EBADMSG;
	const uint8_t *body = rd_bytes(r, len);
	if (!body)
		return -EBADMSG;

	struct rd b = rd_over(body, len);
	out->type = (enum rec_type)type;
	out->stamp.lamport = rd_u64(&b);
	out->stamp.device = rd_u16(&b);
	if (b.bad)
		return -EBADMSG;
	switch (type) {
	case REC_INODE:
		ok = get_inode(&b, &out->inode);
		break;
	case REC_INODE_GONE:
		out->gone_ino = rd_u64(&b);
		ok = !b.bad && out->gone_ino;
		break;
	case REC_LINK:
	case REC_UNLINK:
		ok = get_link(&b, &out->link, type == REC_LINK);
		break;
	case REC_CONTENT:
		ok = get_content(&b, &out->content);
		break;
	case REC_SEGMENT:
		ok = rec_get_place(&b, &out->segment) == 0;
		break;
	case REC_INLINE:
		ok = get_inline(&b, &out->inl);
		break;
	case REC_NODE:
		ok = get_node(&b, &out->node);
		break;
	case REC_DEVICE:
		ok = get_device(&b, &out->device);
		break;
	}
	return ok && !rd_left(&b) ? 1 : -EBADMSG;
}
