/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "net/roster.h"

#include <sodium.h>
#include <stdlib.h>
#include "net/gather.h"
#include "net/header.h"
#include "net/padded.h"
#include "net/spread.h"

#define MAGIC	 "HFROSTR1"
#define VERSION	 1
#define HEAD_LEN (8 + 2 + VOL_LEN + 8)
#define PUT_MS	 30000
#define TRIES	 64 /* generations that are looked at, the best first */

void roster_release(struct roster *r)
{
	for (size_t i = 0; i < r->node_cnt; i++)
		free((void *)(uintptr_t)r->node[i].url);
	free(r->node);
	if (r->creds.p)
		sodium_memzero(r->creds.p, r->creds.cap);
	buf_release(&r->creds);
	*r = (struct roster){0};
}

int roster_add(struct roster *r, uint16_t number, uint8_t member, const char *url)
{
	struct rec_node *more = reallocarray(r->node, r->node_cnt + 1, sizeof *more);
	size_t at = r->node_cnt;

	if (!more)
		return -ENOMEM;
	r->node = more;
	for (; at && more[at - 1].number > number; at--)
		;
	if (at && more[at - 1].number == number)
		return -EEXIST;
	char *copy = strdup(url);
	if (!copy)
		return -ENOMEM;
	memmove(&more[at + 1], &more[at], (r->node_cnt - at) * sizeof *more);
	more[at] = (struct rec_node){.number = number,
				     .member = member,
				     .url = (const uint8_t *)copy,
				     .url_len = (uint16_t)strlen(copy)};
	r->node_cnt++;
	return 0;
}

bool roster_has(const struct roster *r, uint16_t number)
{
	for (size_t i = 0; i < r->node_cnt; i++)
		if (r->node[i].number == number)
			return r->node[i].member != NODE_GONE;
	return false;
}

void roster_name(uint64_t generation, char out[BLOB_NAME_CAP])
{
	snprintf(out, BLOB_NAME_CAP, "v/n%llu", (unsigned long long)generation);
}

bool roster_name_parse(const char *name, uint64_t *generation)
{
	char again[BLOB_NAME_CAP], *end;

	if (strncmp(name, "v/n", 3) != 0 || name[3] < '0' || name[3] > '9')
		return false;
	errno = 0;
	*generation = strtoull(name + 3, &end, 10);
	if (*end || errno)
		return false;
	roster_name(*generation, again);
	return strcmp(again, name) == 0;
}

/* --- encoding --- */

static int body_encode(const struct roster *r, struct buf *out)
{
	struct roster again = {0};

	if (r->node_cnt >= NODE_NONE || r->creds.len > ROSTER_CREDS_CAP)
		return -EINVAL;
	buf_u32(out, 0);
	buf_u16(out, (uint16_t)r->node_cnt);
	for (size_t i = 0; i < r->node_cnt; i++) {
		buf_u16(out, r->node[i].number);
		buf_u8(out, r->node[i].member);
		buf_u16(out, r->node[i].url_len);
		buf_put(out, r->node[i].url, r->node[i].url_len);
	}
	buf_u32(out, (uint32_t)r->creds.len);
	if (r->creds.len)
		buf_put(out, r->creds.p, r->creds.len);
	int err = padded_end(out, 0);
	if (!err)
		err = roster_body_decode(out->p, out->len, &again);
	roster_release(&again);
	return err == -EBADMSG ? -EINVAL : err;
}

int roster_encode(const struct keys *k, const struct roster *r, struct buf *out)
{
	uint8_t head[HEAD_LEN], sig[SIG_LEN];
	struct buf body = {0};

	buf_reset(out);
	if ((r->generation & 0xffff) != keys_device(k) || !(r->generation >> 16))
		return -EINVAL;
	int err = body_encode(r, &body);
	memcpy(head, MAGIC, 8);
	put_le16(head + 8, VERSION);
	memcpy(head + 10, keys_vol(k), VOL_LEN);
	put_le64(head + 10 + VOL_LEN, r->generation);
	buf_put(out, head, sizeof head);
	if (!err)
		err = out->err;
	if (!err)
		err = keys_box(k, KP_HEADER, head, sizeof head, body.p, body.len, out);
	if (!err)
		err = keys_sign(k, "roster", out->p, out->len, sig);
	if (!err) {
		buf_put(out, sig, sizeof sig);
		err = out->err;
	}
	if (!err && out->len > ROSTER_CAP)
		err = -EINVAL;
	if (body.p)
		sodium_memzero(body.p, body.cap);
	buf_release(&body);
	return err;
}

/* --- decoding --- */

int roster_body_decode(const void *p, size_t len, struct roster *out)
{
	struct rd r;

	*out = (struct roster){0};
	int err = padded_open(p, len, &r);
	if (!err)
		err = header_get_nodes(&r, &out->node, &out->node_cnt);
	uint32_t creds_len = err ? 0 : rd_u32(&r);
	const uint8_t *creds = err ? NULL : rd_bytes(&r, creds_len);
	if (!err && (r.bad || rd_left(&r) || creds_len > ROSTER_CREDS_CAP ||
		     (creds_len && memchr(creds, 0, creds_len))))
		err = -EBADMSG;
	if (!err && creds_len) {
		buf_put(&out->creds, creds, creds_len);
		err = out->creds.err;
	}
	if (err)
		roster_release(out);
	return err;
}

static const struct hist_device *writer(const struct hist_device *dev, size_t dev_cnt,
					uint64_t generation)
{
	for (size_t i = 0; i < dev_cnt; i++)
		if (dev[i].number == (generation & 0xffff))
			return &dev[i];
	return NULL;
}

int roster_decode(const struct keys *k, const struct hist_device *dev, size_t dev_cnt,
		  const void *p, size_t len, struct roster *out)
{
	const uint8_t *b = p;
	struct buf body = {0};

	*out = (struct roster){0};
	if (len < HEAD_LEN + BOX_OVERHEAD + SIG_LEN || len > ROSTER_CAP ||
	    memcmp(b, MAGIC, 8) != 0 || memcmp(b + 10, keys_vol(k), VOL_LEN) != 0)
		return -EBADMSG;
	uint64_t generation = get_le64(b + 10 + VOL_LEN);
	if (!(generation >> 16))
		return -EBADMSG;
	const struct hist_device *d = writer(dev, dev_cnt, generation);
	if (d && device_verify(d->ed_pk, "roster", b, len - SIG_LEN, b + len - SIG_LEN))
		return -EBADMSG;
	/* Only a device says that there is a newer version: a node could stop recoveries by it. */
	if (get_le16(b + 8) != VERSION)
		return !d ? -ENOKEY : get_le16(b + 8) > VERSION ? -ENOTSUP : -EBADMSG;
	int err = keys_unbox(k, KP_HEADER, b, HEAD_LEN, b + HEAD_LEN, len - HEAD_LEN - SIG_LEN,
			     &body);
	if (!err && !d)
		err = -ENOKEY;
	if (!err)
		err = roster_body_decode(body.p, body.len, out);
	if (!err)
		out->generation = generation;
	if (body.p)
		sodium_memzero(body.p, body.cap);
	buf_release(&body);
	return err;
}

int roster_verify(const struct keys *k, const struct hist_device *dev, size_t dev_cnt,
		  const char *name, const void *p, size_t len)
{
	struct roster r;
	uint64_t generation;

	if (!roster_name_parse(name, &generation))
		return -ENOKEY; /* the marker "v/node" has this prefix too */
	int err = roster_decode(k, dev, dev_cnt, p, len, &r);
	if (!err && r.generation != generation)
		err = -EBADMSG;
	if (!err || err == -EBADMSG)
		roster_release(&r);
	return err;
}

bool roster_before(const struct hist_device *dev, size_t dev_cnt, uint64_t a, uint64_t b)
{
	const struct hist_device *da = writer(dev, dev_cnt, a), *db = writer(dev, dev_cnt, b);
	bool live_a = da && !da->retired, live_b = db && !db->retired;

	return live_a != live_b ? live_a : a > b;
}

/* --- storing --- */

static bool takes_writes(struct node *n)
{
	enum node_state s = node_state(n);

	return node_member(n) != NODE_GONE &&
	       (s == NODE_UP || s == NODE_SLOW || s == NODE_LYING);
}

int roster_put(struct volume *v, const struct roster *was, const struct roster *r)
{
	unsigned before = 0, after = 0;
	int64_t end = now_ms() + PUT_MS;
	char name[BLOB_NAME_CAP];
	struct buf bytes = {0};
	struct node_wait w;
	struct node_io *io;

	int err = roster_encode(v->keys, r, &bytes);
	roster_name(r->generation, name);
	node_wait_init(&w);
	for (size_t i = 0, cnt = volume_nodes(v); i < cnt && !err; i++) {
		if (!takes_writes(v->node[i]))
			continue;
		io = node_io_new(NODE_PUT, name);
		/* The io keeps bytes of its own, because it may outlive this call. */
		if (!io || !(io->buf = malloc(bytes.len))) {
			node_io_unref(io);
			err = -ENOMEM;
			break;
		}
		memcpy(io->buf, bytes.p, bytes.len);
		io->iov[0] = (struct iovec){io->buf, bytes.len};
		io->iov_cnt = 1;
		io->deadline_ms = end;
		node_wait_submit(&w, v->node[i], io);
	}
	while (!err && w.pending && (io = node_wait_next(&w, end + 1000))) {
		uint16_t number = node_number(io->node);

		if (!io->err) {
			before += was && roster_has(was, number);
			after += roster_has(r, number);
		}
		node_io_unref(io);
	}
	node_wait_release(&w);
	buf_release(&bytes);
	if (!err && (after < v->quorum || (was && before < v->quorum)))
		err = -EAGAIN;
	return err;
}

int roster_trim(struct volume *v, uint64_t keep)
{
	int64_t end = now_ms() + PUT_MS;
	struct node_wait w;
	struct node_io *io;

	node_wait_init(&w);
	for (size_t i = 0, cnt = volume_nodes(v); i < cnt; i++) {
		if (!takes_writes(v->node[i]) || !(io = node_io_new(NODE_LIST, "v/n")))
			continue;
		io->deadline_ms = end;
		node_wait_submit(&w, v->node[i], io);
	}
	while (w.pending && (io = node_wait_next(&w, end + 1000))) {
		const char *name = (const char *)io->list.p;
		uint64_t generation;

		for (size_t at = 0; !io->err && at < io->list.len; at += strlen(name + at) + 1) {
			struct node_io *del;

			if (!roster_name_parse(name + at, &generation) ||
			    generation >> 16 >= keep >> 16)
				continue;
			del = node_io_new(NODE_DEL, name + at);
			if (!del)
				break;
			del->deadline_ms = end;
			node_wait_submit(&w, io->node, del);
		}
		node_io_unref(io);
	}
	node_wait_release(&w);
	return 0;
}

/* --- finding --- */

struct shown {
	uint64_t generation;
	size_t node;
};

struct finder {
	struct node *const *node;
	size_t node_cnt;
	const struct keys *k;
	const struct hist_device *dev;
	size_t dev_cnt;
	int64_t deadline_ms;
	struct shown *shown;
	size_t cnt, cap;
};

static int show(struct finder *f, uint64_t generation, size_t node)
{
	if (f->cnt == f->cap) {
		size_t cap = f->cap ? 2 * f->cap : 64;
		struct shown *p = reallocarray(f->shown, cap, sizeof *p);

		if (!p)
			return -ENOMEM;
		f->shown = p;
		f->cap = cap;
	}
	f->shown[f->cnt++] = (struct shown){generation, node};
	return 0;
}

static int list(struct finder *f, bool answered[])
{
	struct node_wait w;
	struct node_io *io;
	int err = 0;

	node_wait_init(&w);
	for (size_t i = 0; i < f->node_cnt && !err; i++) {
		if (!node_readable(f->node[i]))
			continue;
		io = node_io_new(NODE_LIST, "v/n");
		if (!io) {
			err = -ENOMEM;
			break;
		}
		io->deadline_ms = f->deadline_ms;
		io->tag = (unsigned)i;
		node_wait_submit(&w, f->node[i], io);
	}
	while (!err && w.pending && (io = node_wait_next(&w, f->deadline_ms + 1000))) {
		const char *name = (const char *)io->list.p;
		uint64_t generation;

		if (!io->err && answered)
			answered[io->tag] = true;
		for (size_t at = 0; !io->err && !err && at < io->list.len;
		     at += strlen(name + at) + 1)
			if (roster_name_parse(name + at, &generation))
				err = show(f, generation, io->tag);
		node_io_unref(io);
	}
	node_wait_release(&w);
	return err;
}

/* One generation from those that show it: 1 found; 0 none has a genuine copy; -ENOTSUP. */
static int get(struct finder *f, uint64_t generation, struct roster *out)
{
	char name[BLOB_NAME_CAP];
	struct node_wait w;
	struct node_io *io;
	int got = 0;

	roster_name(generation, name);
	node_wait_init(&w);
	for (size_t i = 0; i < f->cnt; i++) {
		if (f->shown[i].generation != generation || !(io = node_io_new(NODE_GET, name)))
			continue;
		io->len = ROSTER_CAP + 1;
		io->deadline_ms = f->deadline_ms;
		node_wait_submit(&w, f->node[f->shown[i].node], io);
	}
	while (got != 1 && w.pending && (io = node_wait_next(&w, f->deadline_ms + 1000))) {
		int err = io->err ? io->err
				  : roster_decode(f->k, f->dev, f->dev_cnt, io->buf, io->got, out);

		if (!err && out->generation != generation) {
			roster_release(out);
			err = -EBADMSG;
		}
		if (!err)
			got = 1;
		else if (err == -ENOMEM || err == -ENOTSUP)
			got = err;
		else if (!io->err && err == -EBADMSG)
			node_lied(io->node, name);
		node_io_unref(io);
	}
	node_wait_release(&w);
	return got;
}

int roster_find(struct node *const node[], size_t node_cnt, const struct keys *k,
		const struct hist_device *dev, size_t dev_cnt, int64_t deadline_ms,
		struct roster *out, bool *found, bool answered[])
{
	struct finder f = {.node = node,
			   .node_cnt = node_cnt,
			   .k = k,
			   .dev = dev,
			   .dev_cnt = dev_cnt,
			   .deadline_ms = deadline_ms};
	int got = 0;

	*out = (struct roster){0};
	*found = false;
	if (answered)
		memset(answered, 0, node_cnt * sizeof *answered);
	int err = list(&f, answered);
	for (int i = 0; !err && !got && i < TRIES && f.cnt; i++) {
		uint64_t best = f.shown[0].generation;
		size_t left = 0;

		for (size_t j = 1; j < f.cnt; j++)
			if (roster_before(dev, dev_cnt, f.shown[j].generation, best))
				best = f.shown[j].generation;
		got = get(&f, best, out);
		for (size_t j = 0; j < f.cnt; j++)
			if (f.shown[j].generation != best)
				f.shown[left++] = f.shown[j];
		f.cnt = left;
	}
	free(f.shown);
	*found = got == 1;
	return err ? err : got < 0 ? got : 0;
}
