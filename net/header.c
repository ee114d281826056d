/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "net/header.h"

#include <stdlib.h>
#include "net/gather.h"
#include "net/padded.h"
#include "net/spread.h"

#define HEADER_MAGIC	 "HFVOLHD1"
#define HEADER_FIXED_LEN (8 + 2 + 2 + VOL_LEN + 4 + 2 + 32 + 32 + KIT_SLOT_LEN)
#define GENERATIONS_MAX	 64 /* that are tried on one node, newest first */

/* What is left to wait for late nodes once most have answered. */
#define GRACE_MIN_MS 1000

void header_release(struct header *h)
{
	for (size_t i = 0; i < h->node_cnt; i++)
		free((void *)(uintptr_t)h->node[i].url);
	free(h->node);
	free(h->device);
	*h = (struct header){0};
}

void header_name(uint32_t generation, char out[BLOB_NAME_CAP])
{
	snprintf(out, BLOB_NAME_CAP, "v/h%u", generation);
}

/* --- encoding --- */

static int body_encode(const struct header *h, struct buf *out)
{
	struct header again = {0};

	if (h->node_cnt >= NODE_NONE || h->device_cnt > HIST_DEVICES_MAX)
		return -EINVAL;
	buf_u32(out, 0);
	buf_u16(out, (uint16_t)h->node_cnt);
	for (size_t i = 0; i < h->node_cnt; i++) {
		buf_u16(out, h->node[i].number);
		buf_u8(out, h->node[i].member);
		buf_u16(out, h->node[i].url_len);
		buf_put(out, h->node[i].url, h->node[i].url_len);
	}
	buf_u16(out, (uint16_t)h->device_cnt);
	for (size_t i = 0; i < h->device_cnt; i++) {
		buf_u16(out, h->device[i].number);
		buf_u8(out, h->device[i].role);
		buf_put(out, h->device[i].ed_pk, sizeof h->device[i].ed_pk);
		buf_put(out, h->device[i].cert, sizeof h->device[i].cert);
	}
	int err = padded_end(out, 0);
	if (!err)
		err = header_body_decode(out->p, out->len, &again);
	header_release(&again);
	return err == -EBADMSG ? -EINVAL : err;
}

int header_encode(const struct header *h, const struct keys *k, const struct owner *o,
		  struct buf *out)
{
	struct buf body = {0};
	struct header again;
	uint8_t sig[SIG_LEN], head[HEADER_FIXED_LEN];

	buf_reset(out);
	int err = body_encode(h, &body);
	if (err)
		goto out;
	buf_put(out, HEADER_MAGIC, 8);
	buf_u16(out, FORMAT_VERSION);
	buf_u16(out, 0);
	buf_put(out, h->vol, VOL_LEN);
	buf_u32(out, h->generation);
	buf_u8(out, h->k);
	buf_u8(out, h->m);
	buf_put(out, h->owner_ed_pk, 32);
	buf_put(out, h->owner_x_pk, 32);
	buf_put(out, h->kit_slot, KIT_SLOT_LEN);
	err = out->err;
	if (err)
		goto out;
	/* A copy, because the box grows the buffer that the head is in. */
	memcpy(head, out->p, sizeof head);
	err = keys_box(k, KP_HEADER, head, sizeof head, body.p, body.len, out);
	if (!err)
		err = owner_sign(o, "header", out->p, out->len, sig);
	if (err)
		goto out;
	buf_put(out, sig, sizeof sig);
	err = out->err;
	if (!err && header_decode(out->p, out->len, o->ed_pk, &again))
		err = -EINVAL;
out:
	buf_release(&body);
	return err;
}

int header_put(struct volume *v, const struct header *h, const struct buf *bytes)
{
	char name[BLOB_NAME_CAP];

	header_name(h->generation, name);
	return spread_blob(v, name, bytes->p, bytes->len, v->quorum, NULL);
}

/* --- decoding --- */

int header_decode(const void *p, size_t len, const uint8_t owner_pk[32], struct header *out)
{
	const uint8_t *b = p;

	*out = (struct header){0};
	if (len < HEADER_FIXED_LEN + BOX_OVERHEAD + SIG_LEN || len > HEADER_CAP)
		return -EBADMSG;
	struct rd r = rd_over(b, HEADER_FIXED_LEN);
	const uint8_t *magic = rd_bytes(&r, 8);
	uint16_t version = rd_u16(&r), flags = rd_u16(&r);
	const uint8_t *vol = rd_bytes(&r, VOL_LEN);
	out->generation = rd_u32(&r);
	out->k = rd_u8(&r);
	out->m = rd_u8(&r);
	const uint8_t *ed_pk = rd_bytes(&r, 32);
	const uint8_t *x_pk = rd_bytes(&r, 32);
	const uint8_t *slot = rd_bytes(&r, KIT_SLOT_LEN);
	if (r.bad || memcmp(magic, HEADER_MAGIC, 8) != 0)
		return -EBADMSG;
	memcpy(out->vol, vol, VOL_LEN);
	memcpy(out->owner_ed_pk, ed_pk, 32);
	memcpy(out->owner_x_pk, x_pk, 32);
	memcpy(out->kit_slot, slot, KIT_SLOT_LEN);
	/* Only the owner may say that the format is a newer one. */
	if (owner_pk && memcmp(owner_pk, ed_pk, 32) != 0)
		return -EBADMSG;
	if (owner_verify(ed_pk, "header", b, len - SIG_LEN, b + len - SIG_LEN))
		return -EBADMSG;
	if (version > FORMAT_VERSION)
		return -ENOTSUP;
	if (version < 1 || flags || out->k < 1 || out->k + out->m > EC_MAX)
		return -EBADMSG;
	return 0;
}

int header_verify(const uint8_t vol[VOL_LEN], const uint8_t owner_pk[32], const char *name,
		  const void *p, size_t len)
{
	char want[BLOB_NAME_CAP];
	struct header h;

	int err = header_decode(p, len, owner_pk, &h);
	if (err)
		return err;
	header_name(h.generation, want);
	return memcmp(h.vol, vol, VOL_LEN) || strcmp(want, name) ? -EBADMSG : 0;
}

int header_get_nodes(struct rd *r, struct rec_node **node, size_t *node_cnt)
{
	uint16_t cnt = rd_u16(r);

	*node_cnt = 0;
	if (r->bad || cnt > rd_left(r) / 6)
		return -EBADMSG;
	*node = calloc(HF_MAX(cnt, 1), sizeof **node);
	if (!*node)
		return -ENOMEM;
	for (; *node_cnt < cnt; ++*node_cnt) {
		struct rec_node *n = &(*node)[*node_cnt];

		n->number = rd_u16(r);
		n->member = rd_u8(r);
		n->url_len = rd_u16(r);
		const uint8_t *url = rd_bytes(r, n->url_len);
		if (r->bad || n->number == NODE_NONE || n->member < NODE_MEMBER ||
		    n->member > NODE_GONE || n->url_len < 1 || n->url_len >= NODE_URL_CAP ||
		    memchr(url, 0, n->url_len) || (*node_cnt && n[-1].number >= n->number))
			return -EBADMSG;
		/* 0-terminated too, for who prints it. */
		n->url = (const uint8_t *)strndup((const char *)url, n->url_len);
		if (!n->url)
			return -ENOMEM;
	}
	return 0;
}

static int get_devices(struct rd *r, struct header *h)
{
	uint16_t cnt = rd_u16(r);
	if (r->bad || cnt > HIST_DEVICES_MAX || cnt > rd_left(r) / (3 + 32 + SIG_LEN))
		return -EBADMSG;
	h->device = calloc(HF_MAX(cnt, 1), sizeof *h->device);
	if (!h->device)
		return -ENOMEM;
	for (; h->device_cnt < cnt; h->device_cnt++) {
		struct rec_device *d = &h->device[h->device_cnt];
		d->number = rd_u16(r);
		d->role = rd_u8(r);
		const uint8_t *pk = rd_bytes(r, sizeof d->ed_pk);
		const uint8_t *cert = rd_bytes(r, sizeof d->cert);
		if (r->bad || !d->number || d->role < 1 || d->role > 3 ||
		    (h->device_cnt && d[-1].number >= d->number))
			return -EBADMSG;
		memcpy(d->ed_pk, pk, sizeof d->ed_pk);
		memcpy(d->cert, cert, sizeof d->cert);
	}
	return 0;
}

static void drop_lists(struct header *h)
{
	for (size_t i = 0; i < h->node_cnt; i++)
		free((void *)(uintptr_t)h->node[i].url);
	free(h->node);
	free(h->device);
	h->node = NULL;
	h->device = NULL;
	h->node_cnt = h->device_cnt = 0;
}

int header_body_decode(const void *p, size_t len, struct header *h)
{
	struct rd r;

	drop_lists(h);
	int err = padded_open(p, len, &r);
	if (!err)
		err = header_get_nodes(&r, &h->node, &h->node_cnt);
	if (!err)
		err = get_devices(&r, h);
	if (!err && rd_left(&r))
		err = -EBADMSG;
	if (err)
		drop_lists(h);
	return err;
}

int header_unseal(const void *p, size_t len, const struct keys *k, struct header *h)
{
	const uint8_t *b = p;
	struct buf body = {0};

	if (len < HEADER_FIXED_LEN + BOX_OVERHEAD + SIG_LEN || len > HEADER_CAP)
		return -EBADMSG;
	int err = keys_unbox(k, KP_HEADER, b, HEADER_FIXED_LEN, b + HEADER_FIXED_LEN,
			     len - HEADER_FIXED_LEN - SIG_LEN, &body);
	if (!err)
		err = header_body_decode(body.p, body.len, h);
	for (size_t i = 0; !err && i < h->device_cnt; i++)
		err = header_check_cert(h->owner_ed_pk, h->vol, &h->device[i]);
	if (err)
		drop_lists(h);
	buf_release(&body);
	return err;
}

/* --- certificates --- */

#define CERT_BODY_LEN (VOL_LEN + 2 + 32 + 1)

static void cert_body(const uint8_t vol[VOL_LEN], const struct rec_device *d,
		      uint8_t out[CERT_BODY_LEN])
{
	memcpy(out, vol, VOL_LEN);
	put_le16(out + VOL_LEN, d->number);
	memcpy(out + VOL_LEN + 2, d->ed_pk, 32);
	out[VOL_LEN + 2 + 32] = d->role;
}

int header_certify(const struct owner *o, const uint8_t vol[VOL_LEN], struct rec_device *d)
{
	uint8_t body[CERT_BODY_LEN];

	cert_body(vol, d, body);
	return owner_sign(o, "device", body, sizeof body, d->cert);
}

int header_check_cert(const uint8_t owner_pk[32], const uint8_t vol[VOL_LEN],
		      const struct rec_device *d)
{
	uint8_t body[CERT_BODY_LEN];

	cert_body(vol, d, body);
	return owner_verify(owner_pk, "device", body, sizeof body, d->cert);
}

/* --- all of them --- */

struct merge {
	struct volume *v;
	const uint8_t *owner_pk;
	const char *name;
	struct header *h;
	struct buf names; /* each 0-terminated */
	unsigned fresh;
};

static int merge_name(void *arg, const char *name, unsigned copies)
{
	struct merge *m = arg;

	(void)copies;
	buf_put(&m->names, name, strlen(name) + 1);
	return m->names.err;
}

static int merge_verify(void *arg, const void *p, size_t len)
{
	struct merge *m = arg;

	return header_verify(keys_vol(m->v->keys), m->owner_pk, m->name, p, len);
}

int header_add_device(struct header *h, const struct rec_device *d)
{
	struct rec_device *more = reallocarray(h->device, h->device_cnt + 1, sizeof *more);
	size_t at = h->device_cnt;

	if (!more)
		return -ENOMEM;
	h->device = more;
	for (; at && more[at - 1].number > d->number; at--)
		more[at] = more[at - 1];
	more[at] = *d;
	h->device_cnt++;
	return 0;
}

static int merge_device(struct merge *m, const struct rec_device *d)
{
	struct header *h = m->h;

	if (header_check_cert(m->owner_pk, keys_vol(m->v->keys), d))
		return 0;
	for (size_t i = 0; i < h->device_cnt; i++) {
		if (h->device[i].number != d->number)
			continue;
		/* Retired is for ever. */
		if (d->role == 3)
			h->device[i] = *d;
		return 0;
	}
	m->fresh++;
	return header_add_device(h, d);
}

int header_merge(struct volume *v, const uint8_t owner_pk[32], struct header *h,
		 unsigned *fresh)
{
	struct merge m = {.v = v, .owner_pk = owner_pk, .h = h};
	struct volume_view view = volume_view(v);
	unsigned answered;

	*fresh = 0;
	int err = gather_list(v, "v/h", &answered, merge_name, &m);
	if (!err && answered < view.need)
		err = log_fail(-ENODATA,
			       "%u of %zu nodes show the headers of the volume, %zu are needed",
			       answered, view.members, view.need);
	for (size_t at = 0; !err && at < m.names.len; at += strlen(m.name) + 1) {
		struct buf b = {0};
		struct header one = {0};

		m.name = (const char *)m.names.p + at;
		/* One without a good copy says nothing: it was never published, or is damaged. */
		int bad = gather_blob(v, m.name, HEADER_CAP, merge_verify, &m, &b);
		if (!bad)
			bad = header_decode(b.p, b.len, owner_pk, &one);
		if (!bad)
			bad = header_unseal(b.p, b.len, v->keys, &one);
		if (bad == -ENOMEM)
			err = bad;
		for (size_t i = 0; !bad && !err && i < one.device_cnt; i++)
			err = merge_device(&m, &one.device[i]);
		header_release(&one);
		buf_release(&b);
	}
	buf_release(&m.names);
	*fresh = m.fresh;
	return err;
}

/* --- finding it --- */

/* One node's header generations, newest first; `next` is the one to try. */
struct candidates {
	uint32_t gen[GENERATIONS_MAX];
	unsigned cnt, next;
	bool answered, good;
};

/* "v/h<decimal>", the way header_name writes it. */
static bool name_parse(const char *name, uint32_t *gen)
{
	char again[BLOB_NAME_CAP], *end;

	if (strncmp(name, "v/h", 3) != 0 || name[3] < '0' || name[3] > '9')
		return false;
	errno = 0;
	unsigned long long v = strtoull(name + 3, &end, 10);
	if (*end || errno || v > UINT32_MAX)
		return false;
	*gen = (uint32_t)v;
	header_name(*gen, again);
	return strcmp(again, name) == 0;
}

/* Keeps the GENERATIONS_MAX highest, sorted downwards. */
static void candidate_add(struct candidates *c, uint32_t gen)
{
	unsigned at = c->cnt;

	while (at && c->gen[at - 1] < gen)
		at--;
	if (at == GENERATIONS_MAX || (at && c->gen[at - 1] == gen))
		return;
	if (c->cnt < GENERATIONS_MAX)
		c->cnt++;
	memmove(&c->gen[at + 1], &c->gen[at], (c->cnt - 1 - at) * sizeof c->gen[0]);
	c->gen[at] = gen;
}

struct fetch {
	struct node **node;
	struct candidates *cand;
	size_t node_cnt;
	const uint8_t *vol, *owner_pk;
	int64_t deadline_ms;
	struct buf *bytes;
	struct header *best;
	bool found, damaged, newer;
};

/*
 * The next answer.  When more than half have come the others get as long again as those took
 * three times: a node that hangs must not cost the whole deadline.
 */
static struct node_io *next_answer(struct fetch *f, struct node_wait *w, int64_t start_ms,
				   size_t asked, size_t got, int64_t *until_ms)
{
	if (got * 2 > asked && *until_ms == f->deadline_ms) {
		int64_t now = now_ms();
		int64_t grace = HF_MAX((int64_t)GRACE_MIN_MS, 3 * (now - start_ms));
		*until_ms = HF_MIN(f->deadline_ms, now + grace);
	}
	return node_wait_next(w, *until_ms);
}

static int submit(struct fetch *f, struct node_wait *w, size_t i, struct node_io *io)
{
	if (!io)
		return -ENOMEM;
	io->deadline_ms = f->deadline_ms;
	io->tag = (unsigned)i;
	node_wait_submit(w, f->node[i], io);
	return 0;
}

static void take_list(struct candidates *c, const struct buf *list)
{
	uint32_t gen;

	for (size_t at = 0; at < list->len;) {
		const char *name = (const char *)list->p + at;
		size_t len = strnlen(name, list->len - at);
		if (at + len == list->len)
			break; /* not terminated */
		if (name_parse(name, &gen))
			candidate_add(c, gen);
		at += len + 1;
	}
}

/* Every node's marker is looked at, and the nodes of this volume are listed. */
static int list_all(struct fetch *f)
{
	struct node_wait w;
	struct node_io *io;
	int64_t start = now_ms(), until = f->deadline_ms;
	size_t asked = 0, got = 0;
	int err = 0;

	node_wait_init(&w);
	for (; asked < f->node_cnt && !err; asked++)
		err = submit(f, &w, asked, node_verify_io(f->deadline_ms));
	while (!err && got < asked && (io = next_answer(f, &w, start, asked, got, &until))) {
		size_t i = io->tag;
		struct candidates *c = &f->cand[i];
		if (io->op == NODE_LIST) {
			got++;
			c->answered = io->err == 0;
			if (!io->err)
				take_list(c, &io->list);
		} else {
			int bad = node_verify_end(f->node[i], f->vol, io);
			/* An emptied place and a foreign one are answers too. */
			c->answered = bad == -ENOENT || bad == -EBADMSG;
			if (node_readable(f->node[i]))
				err = submit(f, &w, i, node_io_new(NODE_LIST, "v/h"));
			else
				got++;
		}
		node_io_unref(io);
	}
	node_wait_release(&w);
	return err;
}

static int take(struct fetch *f, struct candidates *c, uint32_t gen, const struct node_io *io)
{
	struct header h;

	if (io->err)
		return 0;
	int err = io->got > HEADER_CAP ? -EBADMSG
				       : header_decode(io->buf, io->got, f->owner_pk, &h);
	if (err == -ENOTSUP && memcmp(h.vol, f->vol, VOL_LEN) == 0)
		f->newer = true;
	if (!err && memcmp(h.vol, f->vol, VOL_LEN) != 0)
		return 0; /* sound, but another drive's: nobody is to blame */
	if (!err && h.generation != gen)
		err = -EBADMSG;
	if (err) {
		/* Another drive's header is not signed by this owner either. */
		bool foreign = io->got <= HEADER_CAP &&
			       header_decode(io->buf, io->got, NULL, &h) == 0 &&
			       memcmp(h.vol, f->vol, VOL_LEN) != 0;
		f->damaged |= !foreign;
		return 0;
	}
	c->good = true;
	if (f->found && f->best->generation >= gen)
		return 0;
	buf_reset(f->bytes);
	buf_put(f->bytes, io->buf, io->got);
	*f->best = h;
	f->found = true;
	return f->bytes->err;
}

/*
 * One round: every node that lists something newer than the best so far gives its newest
 * that was not tried.  Returns how many were asked, or -errno.
 */
static int get_round(struct fetch *f)
{
	char name[BLOB_NAME_CAP];
	struct node_wait w;
	struct node_io *io;
	int64_t start = now_ms(), until = f->deadline_ms;
	size_t asked = 0, got = 0;
	int err = 0;

	node_wait_init(&w);
	for (size_t i = 0; i < f->node_cnt && !err; i++) {
		struct candidates *c = &f->cand[i];
		/* A node that gave a good one is asked again only for a newer one. */
		if (c->next == c->cnt || (c->good && c->gen[c->next] <= f->best->generation))
			continue;
		header_name(c->gen[c->next++], name);
		io = node_io_new(NODE_GET, name);
		if (io)
			io->len = HEADER_CAP + 1;
		err = submit(f, &w, i, io);
		asked++;
	}
	while (!err && got < asked && (io = next_answer(f, &w, start, asked, got, &until))) {
		uint32_t gen;

		got++;
		if (name_parse(io->name, &gen))
			err = take(f, &f->cand[io->tag], gen, io);
		node_io_unref(io);
	}
	node_wait_release(&w);
	return err ? err : (int)asked;
}

int header_fetch(struct node **node, size_t node_cnt, const uint8_t vol[VOL_LEN],
		 const uint8_t owner_pk[32], int64_t deadline_ms, struct buf *bytes,
		 struct header *out, unsigned *answered, unsigned *with_header)
{
	struct fetch f = {.node = node,
			  .node_cnt = node_cnt,
			  .vol = vol,
			  .owner_pk = owner_pk,
			  .deadline_ms = deadline_ms,
			  .bytes = bytes,
			  .best = out};

	*out = (struct header){0};
	*answered = *with_header = 0;
	f.cand = calloc(HF_MAX(node_cnt, (size_t)1), sizeof *f.cand);
	if (!f.cand)
		return -ENOMEM;
	int err = list_all(&f);
	while (!err && (err = get_round(&f)) > 0)
		err = now_ms() < deadline_ms ? 0 : -ETIMEDOUT;
	if (err == -ETIMEDOUT && f.found)
		err = 0;
	for (size_t i = 0; i < node_cnt; i++) {
		*answered += f.cand[i].answered;
		*with_header += f.cand[i].good;
	}
	free(f.cand);
	if (err && err != -ETIMEDOUT)
		return err;
	if (f.found)
		return 0;
	*out = (struct header){0};
	if (f.newer)
		return log_fail(-ENOTSUP,
				"the drive was written by a newer version of holdfast");
	if (!*answered)
		return log_fail(-ENODATA, "none of %zu nodes answers", node_cnt);
	if (f.damaged)
		return log_fail(-EBADMSG,
				"%u of %zu nodes answer, every volume header is damaged",
				*answered, node_cnt);
	return log_fail(-ENOENT, "%u of %zu nodes answer, none has a header of this volume",
			*answered, node_cnt);
}
