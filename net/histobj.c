/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "net/histobj.h"

#include <stdlib.h>
#include "net/padded.h"

#define COMMIT_MAGIC   "HFCOMMT1"
#define SNAPSHOT_MAGIC "HFSNAPS1"
#define MARKER_MAGIC   "HFTAKEO1"
#define OBJ_VERSION    1
#define OBJ_HEAD_LEN   (8 + 2 + VOL_LEN) /* in the clear, authenticated by box and signature */
#define MARKER_BODY    12

void hist_head_release(struct hist_head *h)
{
	free(h->seen);
	h->seen = NULL;
	h->seen_cnt = 0;
}

void hist_object_release(struct hist_object *o)
{
	hist_head_release(&o->head);
	free(o->part);
	buf_release(&o->z);
	*o = (struct hist_object){0};
}

/* --- the sealed part --- */

int hist_body_encode(const struct hist_object *o, struct buf *out)
{
	const struct hist_head *h = &o->head;
	struct hist_object again = {0};
	size_t start = out->len;

	if (h->seen_cnt > HIST_DEVICES_MAX || o->part_cnt > HIST_PARTS_MAX ||
	    o->z.len > HIST_INLINE_MAX)
		return -EFBIG;
	buf_u32(out, 0);
	buf_u16(out, h->device);
	buf_u64(out, h->seq);
	buf_u64(out, h->lamport);
	buf_u64(out, (uint64_t)h->time_ns);
	buf_put(out, h->prev, HASH_LEN);
	buf_u64(out, h->snap_to);
	buf_u32(out, h->seen_cnt);
	for (uint32_t i = 0; i < h->seen_cnt; i++) {
		buf_u16(out, h->seen[i].device);
		buf_u64(out, h->seen[i].seq);
		buf_put(out, h->seen[i].hash, HASH_LEN);
	}
	buf_u64(out, o->raw_len);
	buf_u64(out, o->z_len);
	buf_u32(out, (uint32_t)o->part_cnt);
	for (size_t i = 0; i < o->part_cnt; i++)
		rec_put_place(out, &o->part[i]);
	buf_put(out, o->z.p, o->z.len);

	/* One set of rules: what a reader would refuse is not written. */
	int err = padded_end(out, start);
	if (!err)
		err = hist_body_decode(out->p + start, out->len - start, h->snapshot, &again);
	hist_object_release(&again);
	return err == -EBADMSG ? -EINVAL : err;
}

static int get_seen(struct rd *r, struct hist_head *h)
{
	h->seen_cnt = rd_u32(r);
	if (r->bad || h->seen_cnt > HIST_DEVICES_MAX ||
	    rd_left(r) / (10 + HASH_LEN) < h->seen_cnt) {
		h->seen_cnt = 0;
		return -EBADMSG;
	}
	if (!h->seen_cnt)
		return 0;
	h->seen = calloc(h->seen_cnt, sizeof *h->seen);
	if (!h->seen)
		return -ENOMEM;
	for (uint32_t i = 0; i < h->seen_cnt; i++) {
		struct hist_seen *s = &h->seen[i];
		s->device = rd_u16(r);
		s->seq = rd_u64(r);
		const uint8_t *hash = rd_bytes(r, HASH_LEN);
		if (r->bad || !s->device || !s->seq || (i && s[-1].device >= s->device))
			return -EBADMSG;
		/* A commit says what it saw of others; a snapshot also where its own was. */
		if (!h->snapshot && s->device == h->device)
			return -EBADMSG;
		if (h->snapshot && s->device == h->device && s->seq > h->snap_to)
			return -EBADMSG;
		memcpy(s->hash, hash, HASH_LEN);
	}
	return 0;
}

static int get_parts(struct rd *r, struct hist_object *o)
{
	uint64_t sum = 0;

	uint32_t cnt = rd_u32(r);
	if (r->bad || cnt > HIST_PARTS_MAX || cnt > rd_left(r) / SEG_LEN)
		return -EBADMSG;
	if (!cnt)
		return 0;
	o->part = calloc(cnt, sizeof *o->part);
	if (!o->part)
		return -ENOMEM;
	for (o->part_cnt = 0; o->part_cnt < cnt; o->part_cnt++) {
		if (rec_get_place(r, &o->part[o->part_cnt]))
			return -EBADMSG;
		if (!o->part[o->part_cnt].geom.len)
			return -EBADMSG;
		sum += o->part[o->part_cnt].geom.len;
	}
	return sum == o->z_len ? 0 : -EBADMSG;
}

static int body_decode(struct rd *r, struct hist_object *o)
{
	static const uint8_t none[HASH_LEN];
	struct hist_head *h = &o->head;

	h->device = rd_u16(r);
	h->seq = rd_u64(r);
	h->lamport = rd_u64(r);
	h->time_ns = (int64_t)rd_u64(r);
	const uint8_t *prev = rd_bytes(r, HASH_LEN);
	h->snap_to = rd_u64(r);
	if (r->bad || !h->device || !h->seq || (!h->snapshot && h->snap_to))
		return -EBADMSG;
	memcpy(h->prev, prev, HASH_LEN);
	bool first = memcmp(prev, none, HASH_LEN) == 0;
	if (first != (h->snapshot || h->seq == 1))
		return -EBADMSG;
	int err = get_seen(r, h);
	if (err)
		return err;
	o->raw_len = rd_u64(r);
	o->z_len = rd_u64(r);
	if (r->bad || o->raw_len > HIST_RAW_MAX)
		return -EBADMSG;
	err = get_parts(r, o);
	if (err || o->part_cnt)
		return !err && rd_left(r) ? -EBADMSG : err;
	if (o->raw_len > HIST_INLINE_RAW_MAX || o->z_len > HIST_INLINE_MAX ||
	    o->z_len != rd_left(r))
		return -EBADMSG;
	buf_put(&o->z, r->p, rd_left(r));
	return o->z.err;
}

int hist_body_decode(const void *p, size_t len, bool snapshot, struct hist_object *out)
{
	struct rd r;

	*out = (struct hist_object){.head.snapshot = snapshot};
	int err = padded_open(p, len, &r);
	if (!err)
		err = body_decode(&r, out);
	if (err)
		hist_object_release(out);
	return err;
}

/* --- the object around it --- */

/* The head, then a box with this body; the head is what the box authenticates with it. */
static int put_sealed(struct buf *out, const char *magic, const struct keys *k,
		      const void *body, size_t len)
{
	uint8_t head[OBJ_HEAD_LEN];

	memcpy(head, magic, 8);
	put_le16(head + 8, OBJ_VERSION);
	memcpy(head + 10, keys_vol(k), VOL_LEN);
	buf_reset(out);
	buf_put(out, head, sizeof head);
	if (out->err)
		return out->err;
	return keys_box(k, KP_LOG, head, sizeof head, body, len, out);
}

/* 0 when p begins like an object of this kind and of this volume. */
static int check_head(const uint8_t *p, size_t len, const char *magic, const struct keys *k)
{
	if (len < OBJ_HEAD_LEN + BOX_OVERHEAD + SIG_LEN || memcmp(p, magic, 8) != 0)
		return -EBADMSG;
	uint16_t version = get_le16(p + 8);
	if (version != OBJ_VERSION)
		return version > OBJ_VERSION ? -ENOTSUP : -EBADMSG;
	return memcmp(p + 10, keys_vol(k), VOL_LEN) ? -EBADMSG : 0;
}

int hist_object_seal(const struct keys *k, const struct hist_object *o, struct buf *out)
{
	struct buf body = {0};
	uint8_t sig[SIG_LEN];

	int err = hist_body_encode(o, &body);
	if (!err)
		err = put_sealed(out, o->head.snapshot ? SNAPSHOT_MAGIC : COMMIT_MAGIC, k,
				 body.p, body.len);
	if (!err)
		err = keys_sign(k, "commit", out->p, out->len, sig);
	if (!err) {
		buf_put(out, sig, sizeof sig);
		err = out->err;
	}
	if (!err && out->len > COMMIT_CAP)
		err = -EFBIG;
	buf_release(&body);
	return err;
}

static const uint8_t *device_pk(const struct hist_device *dev, size_t dev_cnt, uint16_t number)
{
	for (size_t i = 0; i < dev_cnt; i++)
		if (dev[i].number == number)
			return dev[i].ed_pk;
	return NULL;
}

int hist_object_open(const struct keys *k, const struct hist_device *dev, size_t dev_cnt,
		     const void *p, size_t len, struct hist_object *out)
{
	const uint8_t *b = p;
	struct buf body = {0};

	*out = (struct hist_object){0};
	if (len > COMMIT_CAP || len < 8)
		return -EBADMSG;
	bool snapshot = memcmp(b, SNAPSHOT_MAGIC, 8) == 0;
	int err = check_head(b, len, snapshot ? SNAPSHOT_MAGIC : COMMIT_MAGIC, k);
	if (err)
		return err;
	size_t signed_len = len - SIG_LEN;
	err = keys_unbox(k, KP_LOG, b, OBJ_HEAD_LEN, b + OBJ_HEAD_LEN,
			 signed_len - OBJ_HEAD_LEN, &body);
	if (!err)
		err = hist_body_decode(body.p, body.len, snapshot, out);
	buf_release(&body);
	if (err)
		return err;
	const uint8_t *pk = device_pk(dev, dev_cnt, out->head.device);
	err = pk ? device_verify(pk, "commit", b, signed_len, b + signed_len) : -ENOKEY;
	if (err) {
		hist_object_release(out);
		return err;
	}
	hash_tag("commit", b, len, out->hash);
	return 0;
}

bool hist_name_is(const struct keys *k, const struct hist_head *h, const char *name)
{
	char want[BLOB_NAME_CAP];

	keys_log_name(k, h->snapshot ? 's' : 'c', h->device, h->seq, want);
	return strcmp(want, name) == 0;
}

/* --- takeover markers --- */

int hist_marker_seal(const struct keys *k, const struct owner *o, const struct hist_marker *m,
		     struct buf *out)
{
	uint8_t body[MARKER_BODY], sig[SIG_LEN];

	put_le16(body, m->old);
	put_le16(body + 2, m->by);
	put_le64(body + 4, m->number);
	int err = put_sealed(out, MARKER_MAGIC, k, body, sizeof body);
	if (!err)
		err = owner_sign(o, "takeover", out->p, out->len, sig);
	if (err)
		return err;
	buf_put(out, sig, sizeof sig);
	return out->err;
}

int hist_marker_open(const struct keys *k, const uint8_t owner_pk[32], const void *p,
		     size_t len, struct hist_marker *out)
{
	const uint8_t *b = p;
	struct buf body = {0};

	int err = check_head(b, len, MARKER_MAGIC, k);
	if (err)
		return err;
	size_t signed_len = len - SIG_LEN;
	if (len != OBJ_HEAD_LEN + MARKER_BODY + BOX_OVERHEAD + SIG_LEN ||
	    owner_verify(owner_pk, "takeover", b, signed_len, b + signed_len))
		return -EBADMSG;
	err = keys_unbox(k, KP_LOG, b, OBJ_HEAD_LEN, b + OBJ_HEAD_LEN,
			 signed_len - OBJ_HEAD_LEN, &body);
	if (!err) {
		*out = (struct hist_marker){.old = get_le16(body.p),
					    .by = get_le16(body.p + 2),
					    .number = get_le64(body.p + 4)};
		if (!out->old || !out->by || out->old == out->by)
			err = -EBADMSG;
	}
	buf_release(&body);
	return err;
}
