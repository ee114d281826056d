/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "net/probe.h"

#include <sodium.h>
#include <stdlib.h>

#define STEP_MS	     20000
#define BIG_MS	     60000
#define RANGE_OFF    300001u
#define RANGE_LEN    70003u
#define TAIL_LEN     100u
#define TAIL_ASKED   1000u
#define SHOW_MS	     10000 /* how long a listing may take to show a new blob */
#define SHOW_STEP_MS 500
#define LOOK_MS	     500 /* how often the caller is asked whether to go on */

/*
 * What is tried, in this order.  Nobody lists before all have written, and nobody deletes
 * before all have listed: so that two addresses of one place see each other's blobs.
 */
enum step {
	OPEN,
	OLD_SMALL, /* what a killed probe left */
	OLD_BIG,
	PUT,
	AGAIN,
	GET,
	LIST,
	BIG,
	RANGE,
	TAIL,
	WHOLE,
	ABSENT,
	DEL,
	DEL_BIG,
	GONE,
	DONE,
	CLEAN, /* after a failure */
	CLEAN_BIG,
};

/* What is written; shared by all, as a PUT that hangs may read it for long. */
struct sample {
	_Atomic int ref;
	uint8_t p[PROBE_BIG];
};

struct run {
	struct node *node;
	struct probe_result *r;
	enum step step;
	bool asked; /* a request is under way */
	int64_t not_before_ms, wrote_ms;
	char small[BLOB_NAME_CAP], big[BLOB_NAME_CAP];
};

struct probe {
	const uint8_t *vol;
	int64_t deadline_ms, step_ms;
	struct run *run;
	size_t cnt;
	struct sample *sample;
	struct node_wait w;
};

void probe_names(const uint8_t vol[VOL_LEN], uint16_t number, char small[BLOB_NAME_CAP],
		 char big[BLOB_NAME_CAP])
{
	char *const out[] = {small, big};
	uint8_t in[VOL_LEN + 3], hash[HASH_LEN];

	for (uint8_t i = 0; i < 2; i++) {
		memcpy(in, vol, VOL_LEN);
		put_le16(in + VOL_LEN, number);
		in[VOL_LEN + 2] = i;
		hash_tag("probe", in, sizeof in, hash);
		memcpy(out[i], PROBE_PREFIX, sizeof PROBE_PREFIX - 1);
		base32_encode(hash, 20, out[i] + sizeof PROBE_PREFIX - 1);
	}
}

static void sample_unref(struct sample *s)
{
	if (s && atomic_fetch_sub(&s->ref, 1) == 1)
		free(s);
}

static void sample_release(struct node_io *io)
{
	sample_unref(io->priv_arg);
}

static struct sample *sample_new(const uint8_t vol[VOL_LEN])
{
	static const uint8_t nonce[crypto_stream_chacha20_NONCEBYTES];
	struct sample *s = malloc(sizeof *s);
	uint8_t key[HASH_LEN];

	if (!s)
		return NULL;
	s->ref = 1;
	hash_tag("probe bytes", vol, VOL_LEN, key);
	crypto_stream_chacha20(s->p, sizeof s->p, nonce, key);
	return s;
}

/* --- addresses --- */

static bool within(const char *outer, const char *inner)
{
	size_t len = strlen(outer);

	return !len || (!strncmp(outer, inner, len) && (inner[len] == '/' || !inner[len]));
}

static unsigned port(const struct node_url *u)
{
	return u->port ? u->port : u->tls ? 443 : 80;
}

int probe_overlap(const char *url_a, const char *url_b)
{
	struct node_url a, b = {0};
	int over = 0;

	if (!url_parse(&a, url_a) && !url_parse(&b, url_b) && a.kind == b.kind &&
	    (a.kind == URL_DIR || (!strcmp(a.host, b.host) && port(&a) == port(&b))) &&
	    (a.kind != URL_S3 || !strcmp(a.bucket, b.bucket))) {
		if (!strcmp(a.path, b.path))
			over = 1;
		else if (within(a.path, b.path) || within(b.path, a.path))
			over = 2;
	}
	url_release(&a);
	url_release(&b);
	return over;
}

/* --- requests --- */

static struct node_io *put_io(struct probe *p, const char *name, size_t len)
{
	struct node_io *io = node_io_new(NODE_PUT, name);

	if (!io)
		return NULL;
	io->iov[0] = (struct iovec){p->sample->p, len};
	io->iov_cnt = 1;
	io->release = sample_release;
	io->priv_arg = p->sample;
	atomic_fetch_add(&p->sample->ref, 1);
	return io;
}

static struct node_io *get_io(const char *name, uint64_t off, size_t len)
{
	struct node_io *io = node_io_new(NODE_GET, name);

	if (io) {
		io->off = off;
		io->len = len;
	}
	return io;
}

static struct node_io *make_io(struct probe *p, struct run *u, int64_t deadline_ms)
{
	struct node_io *io;

	switch (u->step) {
	case OPEN:
		io = node_verify_io(deadline_ms);
		if (io)
			io->create = true;
		return io;
	case PUT:
		u->r->wrote = true;
		return put_io(p, u->small, PROBE_SMALL);
	case AGAIN:
		return put_io(p, u->small, PROBE_SMALL);
	case BIG:
		return put_io(p, u->big, PROBE_BIG);
	case GET: /* one byte more, so that a longer blob is noticed */
	case GONE:
		return get_io(u->small, 0, PROBE_SMALL + 1);
	case RANGE:
		return get_io(u->big, RANGE_OFF, RANGE_LEN);
	case TAIL:
		return get_io(u->big, PROBE_BIG - TAIL_LEN, TAIL_ASKED);
	case WHOLE:
		return get_io(u->big, 0, PROBE_BIG + 1);
	case ABSENT: {
		char name[BLOB_NAME_CAP];

		snprintf(name, sizeof name, "%s", u->small);
		char *last = &name[strlen(name) - 1];
		*last = *last == 'a' ? 'b' : 'a';
		return get_io(name, 0, PROBE_SMALL);
	}
	case LIST:
		return node_io_new(NODE_LIST, PROBE_PREFIX);
	case OLD_BIG:
	case DEL_BIG:
	case CLEAN_BIG:
		return node_io_new(NODE_DEL, u->big);
	default:
		return node_io_new(NODE_DEL, u->small);
	}
}

static int ask(struct probe *p, struct run *u)
{
	int64_t now = now_ms();
	bool big = u->step == BIG || u->step == WHOLE;
	int64_t until = HF_MIN(p->deadline_ms, now + (big ? BIG_MS : p->step_ms));
	struct node_io *io = make_io(p, u, until);

	if (!io)
		return -ENOMEM;
	io->deadline_ms = until;
	io->trusted = true;
	io->tag = (unsigned)(u - p->run);
	u->asked = true;
	node_wait_submit(&p->w, u->node, io);
	return 0;
}

/* --- verdicts --- */

/* What the node itself said is the best reason there is. */
static void said(struct run *u, const struct node_io *io, char *out, size_t cap)
{
	struct node_info *info = malloc(sizeof *info);

	*out = 0;
	if (info && io->err) {
		node_get_info(u->node, info);
		snprintf(out, cap, " (%s)",
			 *info->error ? info->error : strerrordesc_np(-io->err));
	}
	free(info);
}

static const char *advice(int err)
{
	switch (err) {
	case -EACCES:
	case -EROFS:
		return ": check its credentials and what they may do there";
	case -ETIMEDOUT:
	case -ENODEV:
		return ": check the address, and that it is running and in reach";
	case -ENOSPC:
		return ": make room there";
	default:
		return "";
	}
}

static void fail(struct run *u, const struct node_io *io, int err, const char *what)
{
	char more[300];

	said(u, io, more, sizeof more);
	u->r->err = err;
	snprintf(u->r->why, sizeof u->r->why, "%s%s%s", what, more, advice(io->err));
	u->step = u->r->wrote ? CLEAN : DONE;
}

static void warn(struct run *u, const struct node_io *io, const char *what)
{
	size_t at = strlen(u->r->warn);
	char more[300];

	said(u, io, more, sizeof more);
	snprintf(u->r->warn + at, sizeof u->r->warn - at, "%s%s%s", at ? "; " : "", what, more);
}

/* Exactly these bytes of the sample? */
static bool genuine(const struct probe *p, const struct node_io *io, size_t off, size_t len)
{
	return io->got == len && !memcmp(io->buf, p->sample->p + off, len);
}

static uint64_t rate(const struct node_io *io)
{
	return PROBE_BIG * 1000ull / (uint64_t)HF_MAX(io->end_ms - io->start_ms, (int64_t)1);
}

static void take_open(struct probe *p, struct run *u, const struct node_io *io)
{
	int err = node_verify_end(u->node, p->vol, io);

	/* No marker is as it should be; ours is left of an earlier try. */
	if (!err || err == -ENOENT)
		u->step++;
	else if (err == -EBADMSG)
		fail(u, io, -EEXIST,
		     "it is in use already, by another volume or as another node: give an "
		     "empty place");
	else if (err == -EACCES || err == -EROFS)
		fail(u, io, err, "it refuses");
	else if (err == -ETIMEDOUT)
		fail(u, io, err, "it does not answer in time");
	else
		fail(u, io, err, "it cannot be reached");
}

/* Whose blobs are there?  Its own must be, and none of another node. */
static void take_list(struct probe *p, struct run *u, const struct node_io *io)
{
	bool mine = false;

	if (io->err || io->list.err) {
		fail(u, io, io->err ? io->err : io->list.err,
		     "what it holds cannot be listed, which repair and recovery need");
		return;
	}
	for (size_t at = 0; at < io->list.len;) {
		const char *name = (const char *)io->list.p + at;
		size_t len = strnlen(name, io->list.len - at);

		if (at + len == io->list.len)
			break;
		mine |= !strcmp(name, u->small);
		for (size_t i = 0; i < p->cnt; i++)
			if (&p->run[i] < u && !strcmp(name, p->run[i].small))
				u->r->same = i;
		at += len + 1;
	}
	int64_t now = now_ms();
	if (u->r->same != SIZE_MAX) {
		fail(u, io, -EEXIST,
		     "it is the same place as another of the nodes: what was written through "
		     "that one is seen here");
	} else if (mine) {
		if (u->not_before_ms)
			warn(u, io, "its listing shows a new blob only after a while");
		u->not_before_ms = 0;
		u->step++;
	} else if (now - u->wrote_ms < SHOW_MS && now + SHOW_STEP_MS < p->deadline_ms) {
		u->not_before_ms = now + SHOW_STEP_MS;
	} else {
		fail(u, io, -EIO,
		     "its listing does not show what was written a while before, which repair "
		     "and recovery need");
	}
}

static void take(struct probe *p, struct run *u, const struct node_io *io)
{
	switch (u->step) {
	case OPEN:
		take_open(p, u, io);
		return;
	case OLD_SMALL:
	case OLD_BIG:
		/* If it cannot be deleted that is found below. */
		u->step++;
		return;
	case PUT:
	case AGAIN:
		if (io->err) {
			fail(u, io, io->err,
			     u->step == PUT ? "it cannot be written to"
					    : "the same bytes cannot be written there again, "
					      "as must be after a lost answer");
			return;
		}
		u->wrote_ms = io->end_ms;
		unsigned ms = (unsigned)(io->end_ms - io->start_ms);
		u->r->put_ms = u->step == PUT ? ms : HF_MIN(ms, u->r->put_ms);
		break;
	case GET:
		u->r->get_ms = (unsigned)(io->end_ms - io->start_ms);
		if (io->err || !genuine(p, io, 0, PROBE_SMALL)) {
			fail(u, io, io->err ? io->err : -EIO,
			     io->err ? "what was written cannot be read back"
				     : "it gives back other bytes than were written");
			return;
		}
		break;
	case LIST:
		take_list(p, u, io);
		return;
	case BIG:
		if (io->err) {
			fail(u, io, io->err, "a blob of 1 MiB cannot be written");
			return;
		}
		u->r->up_rate = rate(io);
		break;
	case RANGE:
	case TAIL: {
		bool range = u->step == RANGE;

		if (io->err || !genuine(p, io, range ? RANGE_OFF : PROBE_BIG - TAIL_LEN,
					range ? RANGE_LEN : TAIL_LEN)) {
			fail(u, io, io->err ? io->err : -EIO,
			     range ? "a part of a blob cannot be read: it does not do Range "
				     "requests as it should"
				   : "the end of a blob cannot be read: it does not do Range "
				     "requests as it should");
			return;
		}
		break;
	}
	case WHOLE:
		if (io->err || !genuine(p, io, 0, PROBE_BIG)) {
			fail(u, io, io->err ? io->err : -EIO,
			     io->err ? "a blob of 1 MiB cannot be read back"
				     : "it gives back other bytes than were written");
			return;
		}
		u->r->down_rate = rate(io);
		break;
	case ABSENT:
		if (io->err != -ENOENT) {
			fail(u, io, io->err ? io->err : -EIO,
			     io->err == -EACCES
				     ? "for a blob that is not there it says that it refuses: "
				       "the credentials must allow listing too (s3:ListBucket)"
			     : io->err ? "for a blob that is not there it says something else"
				       : "it answers with bytes for a blob that is not there");
			return;
		}
		break;
	case DEL:
	case DEL_BIG:
		if (io->err && io->err != -ENOENT && u->step == DEL)
			warn(u, io,
			     "nothing can be deleted there, so that no space is ever given "
			     "back, and two small blobs of this trial stay");
		break;
	case GONE:
		if (!io->err && !strstr(u->r->warn, "deleted"))
			warn(u, io, "a deleted blob can still be read there");
		break;
	case CLEAN:
		if (!io->err || io->err == -ENOENT)
			break;
		snprintf(u->r->why + strlen(u->r->why),
			 sizeof u->r->why - strlen(u->r->why), "; %s may be left there",
			 u->small);
		break;
	case CLEAN_BIG:
		u->step = DONE;
		return;
	case DONE:
		return;
	}
	u->step++;
}

/* --- all of them --- */

/* May it go on, or do others have to come first? */
static bool may_go(const struct run *u, size_t writing, size_t listing)
{
	if (u->asked || u->step == DONE)
		return false;
	if (u->step == LIST && writing)
		return false;
	return u->step != DEL || !(writing + listing);
}

/* Submits what can be; the time when a listing is to be asked for again, or INT64_MAX. */
static int64_t submit(struct probe *p, int *err)
{
	size_t writing = 0, listing = 0;
	int64_t now = now_ms(), next = INT64_MAX;

	for (size_t i = 0; i < p->cnt; i++) {
		writing += p->run[i].step < LIST;
		listing += p->run[i].step == LIST;
	}
	for (size_t i = 0; i < p->cnt && !*err; i++) {
		struct run *u = &p->run[i];

		if (!may_go(u, writing, listing))
			continue;
		if (u->step == LIST && u->not_before_ms > now)
			next = HF_MIN(next, u->not_before_ms);
		else
			*err = ask(p, u);
	}
	return next;
}

int probe_run(struct node *const node[], size_t cnt, const uint8_t vol[VOL_LEN],
	      int64_t deadline_ms, bool (*give_up)(void *arg), void *arg,
	      struct probe_result out[])
{
	struct probe p = {.vol = vol, .deadline_ms = deadline_ms, .cnt = cnt};
	int err = 0, bad = 0;

	/* One that hangs must leave the others, who wait for it, time to go on. */
	p.step_ms = HF_MIN((deadline_ms - now_ms()) / 4, (int64_t)STEP_MS);
	p.run = calloc(HF_MAX(cnt, (size_t)1), sizeof *p.run);
	p.sample = sample_new(vol);
	if (!p.run || !p.sample)
		err = -ENOMEM;
	for (size_t i = 0; i < cnt && !err; i++) {
		out[i] = (struct probe_result){.same = SIZE_MAX};
		p.run[i].node = node[i];
		p.run[i].r = &out[i];
		probe_names(vol, node_number(node[i]), p.run[i].small, p.run[i].big);
	}
	node_wait_init(&p.w);
	while (!err) {
		int64_t next = submit(&p, &err);
		struct node_io *io;

		if (err || (!p.w.pending && next == INT64_MAX))
			break;
		/* Each comes at its own deadline at the latest. */
		io = node_wait_next(&p.w, HF_MIN(next, now_ms() + LOOK_MS));
		if (give_up && give_up(arg))
			err = -ECANCELED;
		if (!io)
			continue;
		struct run *u = &p.run[io->tag];
		u->asked = false;
		take(&p, u, io);
		node_io_unref(io);
	}
	node_wait_release(&p.w);
	struct node_info *info = err ? NULL : malloc(sizeof *info);
	if (!err && !info)
		err = -ENOMEM;
	for (size_t i = 0; i < cnt && !err; i++) {
		node_get_info(node[i], info);
		out[i].free_bytes = info->free_bytes;
		out[i].total_bytes = info->total_bytes;
		bad += out[i].err != 0;
	}
	free(info);
	free(p.run);
	sample_unref(p.sample);
	return err ? err : bad;
}
