/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "net/history.h"

#include <sodium.h>
#include <stdlib.h>
#include "net/gather.h"
#include "net/header.h"
#include "net/histobj.h"
#include "net/roster.h"
#include "net/spread.h"

#define ASK_MS	     10000
#define UPLOAD_STEP  (1u << 20)

void history_hash(const struct buf *obj, uint8_t out[HASH_LEN])
{
	hash_tag("commit", obj->p, obj->len, out);
}

/* --- building --- */

static int seen_cmp(const void *a, const void *b)
{
	const struct hist_seen *x = a, *y = b;

	return (x->device > y->device) - (x->device < y->device);
}

/* The next piece of the stream as a sealed stripe. */
static int build_part(struct seg_builder *sb, struct rec_writer *w, uint64_t *off,
		      uint64_t z_len, uint8_t *tmp, struct stripe **out)
{
	struct seg_id id;
	uint32_t at;

	int err = seg_builder_start(sb, &id);
	if (err)
		return err;
	while (!err && *off < z_len) {
		size_t room = HF_MIN(seg_builder_room(sb), SEG_MAX_LEN - seg_builder_len(sb));
		size_t len = (size_t)HF_MIN((uint64_t)HF_MIN(room, (size_t)UPLOAD_STEP),
					    z_len - *off);
		if (!len)
			break;
		err = rec_writer_read(w, *off, tmp, len);
		if (!err)
			err = seg_builder_add(sb, tmp, len, &at);
		*off += len;
	}
	if (!err)
		err = seg_builder_finish(sb, out);
	if (err)
		seg_builder_abandon(sb);
	return err;
}

/* One part is on its way while the next one is built. */
static int upload_parts(struct volume *v, struct rec_writer *w, uint64_t z_len,
			struct hist_object *o)
{
	struct seg_builder *sb = NULL;
	struct spread *flying = NULL, *next;
	uint64_t off = 0;

	uint64_t parts_max = z_len / HIST_INLINE_MAX + 1;
	if (parts_max > HIST_PARTS_MAX)
		parts_max = HIST_PARTS_MAX;
	uint8_t *tmp = malloc(UPLOAD_STEP);
	o->part = calloc((size_t)parts_max, sizeof *o->part);
	int err = tmp && o->part ? seg_builder_new(&sb, v->keys, v->pool) : -ENOMEM;
	while (!err && off < z_len) {
		struct stripe *s = NULL;
		if (o->part_cnt + (flying != NULL) >= parts_max) {
			err = -EFBIG;
			break;
		}
		err = build_part(sb, w, &off, z_len, tmp, &s);
		if (err)
			break;
		err = spread_start(&next, v, s);
		stripe_unref(s);
		if (err)
			break;
		if (flying) {
			err = spread_finish(flying, &o->part[o->part_cnt]);
			o->part_cnt += !err;
		}
		flying = next;
	}
	if (flying) {
		struct seg_place last;
		int end = spread_finish(flying, &last);
		if (!err && !end)
			o->part[o->part_cnt++] = last;
		err = err ? err : end;
	}
	seg_builder_free(sb);
	free(tmp);
	return err;
}

int history_build(struct volume *v, const struct hist_head *head, struct rec_writer *w,
		  struct buf *obj, struct seg_place **parts, size_t *part_cnt)
{
	struct hist_object o = {.head = *head};
	struct hist_seen *seen = NULL;

	*parts = NULL;
	*part_cnt = 0;
	if (head->device != keys_device(v->keys))
		return log_fail(-EINVAL, "device %u cannot sign for device %u",
				keys_device(v->keys), head->device);
	if (head->seen_cnt) {
		seen = malloc(head->seen_cnt * sizeof *seen);
		if (!seen)
			return -ENOMEM;
		memcpy(seen, head->seen, head->seen_cnt * sizeof *seen);
		qsort(seen, head->seen_cnt, sizeof *seen, seen_cmp);
	}
	o.head.seen = seen;
	int err = rec_writer_finish(w, &o.z_len);
	o.raw_len = rec_writer_raw_len(w);
	if (!err && o.z_len <= HIST_INLINE_MAX && o.raw_len <= HIST_INLINE_RAW_MAX) {
		uint8_t *to = buf_room(&o.z, (size_t)o.z_len);
		err = to ? rec_writer_read(w, 0, to, (size_t)o.z_len) : o.z.err;
		if (!err)
			o.z.len = (size_t)o.z_len;
	} else if (!err) {
		err = upload_parts(v, w, o.z_len, &o);
	}
	if (!err) {
		err = hist_object_seal(v->keys, &o, obj);
		if (err == -EINVAL || err == -EFBIG)
			log_msg(LOG_LVL_ERROR, "%s %llu cannot be encoded: %s",
				head->snapshot ? "snapshot" : "commit",
				(unsigned long long)head->seq, strerror(-err));
	}
	if (!err && o.part_cnt) {
		*parts = o.part;
		*part_cnt = o.part_cnt;
		o.part = NULL;
	}
	hist_object_release(&o);
	return err;
}

int history_put(struct volume *v, const struct hist_head *head, const struct buf *obj)
{
	char name[BLOB_NAME_CAP];

	keys_log_name(v->keys, head->snapshot ? 's' : 'c', head->device, head->seq, name);
	return spread_blob(v, name, obj->p, obj->len, v->quorum, NULL);
}

/* --- trimming --- */

struct trim {
	struct volume *v;
	struct buf names;	/* of commits and snapshots, each 0-terminated */
	const char **name;	/* sorted */
	bool *known;
	size_t cnt, left; /* left: not known yet */
	bool (*stop)(void *arg);
	void *arg;
};

static int trim_name(void *arg, const char *name, unsigned copies)
{
	struct trim *t = arg;

	(void)copies;
	if (strncmp(name, "l/c", 3) != 0 && strncmp(name, "l/s", 3) != 0)
		return 0;
	buf_put(&t->names, name, strlen(name) + 1);
	t->cnt++;
	return t->names.err;
}

static int trim_cmp(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Its place among the names, or NULL when no node lists it. */
static const char **trim_find(struct trim *t, char kind, uint16_t device, uint64_t number)
{
	char want[BLOB_NAME_CAP];
	const char *key = want;

	keys_log_name(t->v->keys, kind, device, number, want);
	return t->left ? bsearch(&key, t->name, t->cnt, sizeof *t->name, trim_cmp) : NULL;
}

static int trim_below(struct trim *t, char kind, uint16_t device, uint64_t floor)
{
	/* The newest first: once every name is known the rest need not be looked for. */
	for (uint64_t n = floor; n-- > 1 && t->left;) {
		const char **at = trim_find(t, kind, device, n);

		if (!at || t->known[at - t->name])
			continue;
		if (t->stop && t->stop(t->arg))
			return -ECANCELED;
		t->known[at - t->name] = true;
		t->left--;
		spread_delete(t->v, *at);
	}
	return 0;
}

static void trim_keep(struct trim *t, char kind, uint16_t device, uint64_t from, uint64_t to)
{
	for (uint64_t n = HF_MAX(from, (uint64_t)1); n < to && t->left; n++) {
		const char **at = trim_find(t, kind, device, n);

		if (at && !t->known[at - t->name]) {
			t->known[at - t->name] = true;
			t->left--;
		}
	}
}

int history_trim(struct volume *v, const struct hist_floor *floor, size_t floor_cnt,
		 bool (*stop)(void *arg), void *arg)
{
	struct trim t = {.v = v, .stop = stop, .arg = arg};
	unsigned answered;

	int err = gather_list(v, "l/", &answered, trim_name, &t);
	if (!err && !answered)
		err = -ENODATA;
	if (!err) {
		t.name = malloc(HF_MAX(t.cnt, (size_t)1) * sizeof *t.name);
		t.known = calloc(HF_MAX(t.cnt, (size_t)1), sizeof *t.known);
		if (!t.name || !t.known)
			err = -ENOMEM;
	}
	const char *s = (const char *)t.names.p;
	for (size_t i = 0; !err && i < t.cnt; i++, s += strlen(s) + 1)
		t.name[i] = s;
	if (!err && t.cnt)
		qsort(t.name, t.cnt, sizeof *t.name, trim_cmp);
	t.left = t.cnt;
	for (size_t i = 0; !err && i < floor_cnt; i++) {
		trim_keep(&t, 's', floor[i].device, floor[i].snap, floor[i].snap_end);
		trim_keep(&t, 'c', floor[i].device, floor[i].commit, floor[i].commit_end);
	}
	/* Old snapshots go first: none is left whose commits are gone. */
	for (size_t i = 0; !err && i < floor_cnt; i++)
		err = trim_below(&t, 's', floor[i].device, floor[i].snap);
	for (size_t i = 0; !err && i < floor_cnt; i++)
		err = trim_below(&t, 'c', floor[i].device, floor[i].commit);
	buf_release(&t.names);
	free(t.name);
	free(t.known);
	return err;
}

/* --- what was begun by others --- */

struct secure {
	const struct hist_verify *hv;
	const char *name;
};

static int secure_verify(void *arg, const void *p, size_t len)
{
	const struct secure *s = arg;

	return history_verify_blob((void *)(uintptr_t)s->hv, s->name, p, len);
}

int history_secure(struct volume *v, const struct hist_device *dev, size_t dev_cnt,
		   const struct hist_state *st)
{
	struct hist_verify hv = {.v = v, .dev = dev, .dev_cnt = dev_cnt};
	int err = 0;

	for (uint32_t i = 0; i < st->seen_cnt && !err; i++) {
		char name[BLOB_NAME_CAP];
		struct secure s = {&hv, name};
		struct buf b = {0};

		keys_log_name(v->keys, 'c', st->seen[i].device, st->seen[i].seq, name);
		err = gather_blob(v, name, COMMIT_CAP, secure_verify, &s, &b);
		if (!err)
			err = spread_blob(v, name, b.p, b.len, v->quorum, NULL);
		else if (err == -ENOENT)
			err = 0; /* trimmed: a snapshot that is on a quorum has it */
		buf_release(&b);
		if (err)
			log_fail(err, "commit %llu of device %u cannot be stored on enough nodes",
				 (unsigned long long)st->seen[i].seq, st->seen[i].device);
	}
	return err;
}

/* --- asking every node for one name --- */

struct ask {
	const char *name;
	size_t cap;
	/* 1: that is it; 0: genuine, but not what is asked for; else not genuine */
	int (*verify)(void *arg, const void *p, size_t len);
	void *arg;
	bool all; /* "no" only when all that answer have said so */
};

/*
 * 1 when a node has what verify looks for; 0 when as many nodes as meet every quorum say
 * that they do not; -EAGAIN when too few answer.
 */
static int ask_nodes(struct volume *v, const struct ask *a)
{
	struct volume_view view = volume_view(v);
	size_t without = 0;
	int64_t deadline = now_ms() + ASK_MS;
	struct node_wait w;
	struct node_io *io;
	bool found = false;
	int err = 0;

	node_wait_init(&w);
	for (size_t i = 0; i < view.cnt && !err; i++) {
		if (!node_readable(v->node[i]))
			continue;
		io = node_io_new(NODE_GET, a->name);
		if (!io) {
			err = -ENOMEM;
			break;
		}
		io->len = a->cap + 1;
		io->deadline_ms = deadline;
		io->tag = (unsigned)i;
		node_wait_submit(&w, v->node[i], io);
	}
	while (!err && w.pending && (io = node_wait_next(&w, deadline))) {
		if (io->err == -ENOENT) {
			without++;
		} else if (!io->err) {
			int got = io->got > a->cap ? -EBADMSG
						   : a->verify(a->arg, io->buf, io->got);
			if (got == 1)
				found = true;
			else if (got == 0)
				without++;
			else if (got == -EBADMSG)
				node_lied(v->node[io->tag], a->name);
			else
				err = got;
		}
		node_io_unref(io);
		if (found || (!a->all && without >= view.need))
			break;
	}
	node_wait_release(&w);
	if (err)
		return err;
	return found ? 1 : without >= view.need ? 0 : -EAGAIN;
}

/* --- takeovers --- */

/*
 * A takeover is said twice: under a name that everybody can tell, number 0, and under one of
 * its own, so that of several takeovers none hides another.
 */
struct marker_ask {
	struct volume *v;
	const uint8_t *owner_pk;
	const char *name; /* of a marker of any device; or NULL: number 0 of `old` */
	uint16_t old;
	uint16_t by; /* found */
	uint16_t *list;	/* all that took `old` over; HIST_TAKERS */
	size_t cnt;
	struct buf names; /* each 0-terminated */
};

static int marker_verify(void *arg, const void *p, size_t len)
{
	struct marker_ask *q = arg;
	struct hist_marker m;
	char name[BLOB_NAME_CAP];

	int err = hist_marker_open(q->v->keys, q->owner_pk, p, len, &m);
	if (err)
		return err;
	if (!q->name) {
		if (m.old != q->old || m.number)
			return -EBADMSG;
		q->by = m.by;
		return 1;
	}
	keys_log_name(q->v->keys, 't', m.old, m.number, name);
	if (strcmp(name, q->name) != 0)
		return -EBADMSG;
	bool known = m.old != q->old;
	for (size_t i = 0; i < q->cnt && !known; i++)
		known = q->list[i] == m.by;
	if (!known && q->cnt < HIST_TAKERS)
		q->list[q->cnt++] = m.by;
	return 0;
}

int history_check(struct volume *v, uint16_t device, const uint8_t owner_pk[32], uint16_t *by)
{
	struct marker_ask q = {.v = v, .owner_pk = owner_pk, .old = device};
	char name[BLOB_NAME_CAP];
	struct ask a = {name, MARKER_CAP, marker_verify, &q, false};

	keys_log_name(v->keys, 't', device, 0, name);
	int got = ask_nodes(v, &a);
	*by = q.by;
	return got;
}

static int marker_name(void *arg, const char *name, unsigned copies)
{
	struct marker_ask *q = arg;

	(void)copies;
	buf_put(&q->names, name, strlen(name) + 1);
	return q->names.err;
}

int history_takers(struct volume *v, uint16_t device, const uint8_t owner_pk[32],
		   uint16_t by[HIST_TAKERS], size_t *cnt)
{
	struct marker_ask q = {.v = v, .owner_pk = owner_pk, .old = device, .list = by};
	size_t need = volume_view(v).need;
	unsigned answered;

	int err = gather_list(v, "l/t", &answered, marker_name, &q);
	if (!err && answered < need)
		err = -EAGAIN;
	for (size_t at = 0; !err && at < q.names.len; at += strlen(q.name) + 1) {
		struct buf b = {0};

		q.name = (const char *)q.names.p + at;
		/* One that is damaged everywhere was not on a quorum. */
		err = gather_blob(v, q.name, MARKER_CAP, marker_verify, &q, &b);
		if (err != -ENOMEM && err != -ECANCELED)
			err = 0;
		buf_release(&b);
	}
	buf_release(&q.names);
	*cnt = q.cnt;
	return err ? err : q.cnt == HIST_TAKERS ? -EBADMSG : 0;
}

static int marker_put(struct volume *v, const struct owner *o, const struct hist_marker *m)
{
	char name[BLOB_NAME_CAP];
	struct buf obj = {0};

	int err = hist_marker_seal(v->keys, o, m, &obj);
	if (!err) {
		keys_log_name(v->keys, 't', m->old, m->number, name);
		err = spread_blob(v, name, obj.p, obj.len, v->quorum, NULL);
	}
	buf_release(&obj);
	return err;
}

int history_takeover(struct volume *v, const struct owner *o, uint16_t old, uint16_t by)
{
	struct hist_marker m = {.old = old, .by = by};

	do
		randombytes_buf(&m.number, sizeof m.number);
	while (!m.number);
	int err = marker_put(v, o, &m);
	m.number = 0;
	return err ? err : marker_put(v, o, &m);
}

/* --- is this an old copy of our own state? --- */

struct ahead_ask {
	struct volume *v;
	struct hist_device self;
	const char *name;
	uint64_t seq;
	bool later;
	char names[256][BLOB_NAME_CAP]; /* snapshot roots */
	unsigned name_cnt;
};

static int ahead_verify(void *arg, const void *p, size_t len)
{
	struct ahead_ask *q = arg;
	struct hist_object o;

	int err = hist_object_open(q->v->keys, &q->self, 1, p, len, &o);
	if (err == -ENOKEY)
		return 0; /* another device's: its key is not known here */
	if (err)
		return err == -ENOTSUP ? 0 : err;
	err = hist_name_is(q->v->keys, &o.head, q->name) ? 0 : -EBADMSG;
	if (!err && o.head.device == q->self.number)
		q->later |= (o.head.snapshot ? o.head.snap_to : o.head.seq) > q->seq;
	hist_object_release(&o);
	return err ? err : q->later;
}

static int ahead_blob(void *arg, const void *p, size_t len)
{
	int got = ahead_verify(arg, p, len);

	return got > 0 ? 0 : got;
}

static int ahead_name(void *arg, const char *name, unsigned copies)
{
	struct ahead_ask *q = arg;

	(void)copies;
	if (q->name_cnt < sizeof q->names / sizeof q->names[0] && strlen(name) < BLOB_NAME_CAP)
		strcpy(q->names[q->name_cnt++], name);
	return 0;
}

static int beyond(struct volume *v, uint16_t device, uint64_t seq, bool all)
{
	char name[BLOB_NAME_CAP];
	unsigned answered;

	struct ahead_ask *q = calloc(1, sizeof *q);
	if (!q)
		return -ENOMEM;
	q->v = v;
	q->seq = seq;
	q->self.number = device;
	q->name = name;
	memcpy(q->self.ed_pk, keys_device_pk(v->keys), sizeof q->self.ed_pk);
	keys_log_name(v->keys, 'c', device, seq + 1, name);
	struct ask a = {name, COMMIT_CAP, ahead_verify, q, all};
	int got = ask_nodes(v, &a);

	/* It may be trimmed already: then a snapshot of ours reaches beyond. */
	int err = got == 0 ? gather_list(v, "l/s", &answered, ahead_name, q) : 0;
	for (unsigned i = 0; got == 0 && !err && i < q->name_cnt && !q->later; i++) {
		struct buf b = {0};
		q->name = q->names[i];
		/* One that cannot be read says nothing. */
		gather_blob(v, q->names[i], COMMIT_CAP, ahead_blob, q, &b);
		buf_release(&b);
	}
	if (got == 0)
		got = err < 0 ? err : q->later;
	free(q);
	return got;
}

int history_ahead(struct volume *v, uint16_t device, uint64_t seq)
{
	return beyond(v, device, seq, false);
}

int history_shows(struct volume *v, uint16_t device, uint64_t seq)
{
	return beyond(v, device, seq - 1, true);
}

/* --- genuine or not --- */

int history_verify_blob(void *hist_verify, const char *name, const void *p, size_t len)
{
	const struct hist_verify *hv = hist_verify;
	char want[BLOB_NAME_CAP];
	int err = -EBADMSG;

	if (strncmp(name, "v/n", 3) == 0) {
		uint64_t generation;

		err = roster_verify(hv->v->keys, hv->dev, hv->dev_cnt, name, p, len);
		if (!err && roster_name_parse(name, &generation) &&
		    generation >> 16 < hv->roster >> 16)
			err = -ESTALE;
		return err;
	}
	if (strncmp(name, "v/h", 3) == 0)
		return header_verify(keys_vol(hv->v->keys), hv->owner_pk, name, p, len);
	if (strncmp(name, "l/t", 3) == 0) {
		struct hist_marker m;
		err = hist_marker_open(hv->v->keys, hv->owner_pk, p, len, &m);
		if (err)
			return err;
		keys_log_name(hv->v->keys, 't', m.old, m.number, want);
		return strcmp(want, name) ? -EBADMSG : 0;
	}
	if (strncmp(name, "l/", 2) == 0) {
		struct hist_object o;
		err = hist_object_open(hv->v->keys, hv->dev, hv->dev_cnt, p, len, &o);
		if (err)
			return err;
		err = hist_name_is(hv->v->keys, &o.head, name) ? 0 : -EBADMSG;
		for (size_t i = 0; i < hv->floor_cnt && !err; i++) {
			const struct hist_floor *f = &hv->floor[i];
			if (f->device == o.head.device &&
			    o.head.seq < (o.head.snapshot ? f->snap : f->commit))
				err = -ESTALE;
		}
		hist_object_release(&o);
	}
	return err;
}

/* --- the pure decoder --- */

static int collect(void *arg, struct rd *r)
{
	struct buf *b = arg;

	buf_put(b, r->p, rd_left(r));
	return b->err;
}

int history_open(const struct keys *k, const struct hist_device *dev, size_t dev_cnt,
		 const void *p, size_t len, struct hist_head *head, struct buf *inline_records,
		 struct seg_place **parts, size_t *part_cnt)
{
	struct hist_object o;
	struct rec_reader *rr;

	int err = hist_object_open(k, dev, dev_cnt, p, len, &o);
	if (err)
		return err == -ENOKEY ? -EBADMSG : err;
	buf_reset(inline_records);
	if (!o.part_cnt) {
		err = rec_reader_new(&rr, o.raw_len, collect, inline_records);
		if (!err)
			err = rec_reader_feed(rr, o.z.p, o.z.len);
		if (!err)
			err = rec_reader_end(rr);
		rec_reader_free(rr);
	}
	if (!err) {
		*head = o.head;
		o.head.seen = NULL;
		*parts = o.part;
		*part_cnt = o.part_cnt;
		o.part = NULL;
	}
	hist_object_release(&o);
	return err;
}
