/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Whole copies of small blobs, on all nodes: headers, rosters and the log are copied to where
 * they lack, and read and verified wherever they are.
 */
#include "net/spread.h"

#include <stdlib.h>

#define READ_MS	  120000
#define WRITE_MS  60000
#define CHECK_MS  120000
#define BLOB_CAP  (64u << 20)
#define CHECK_CAP (2u << 20) /* what is longer is none of ours */
#define AT_ONCE	  16

struct entry {
	const char *name;
	size_t node;
};

static int cmp_entry(const void *a, const void *b)
{
	const struct entry *x = a, *y = b;
	int c = strcmp(x->name, y->name);

	return c ? c : (x->node > y->node) - (x->node < y->node);
}

struct verifier {
	int (*verify)(void *arg, const char *name, const void *p, size_t len);
	void *arg;
};

/*
 * A genuine copy from those that say they have one: gather_blob asks nobody more once enough
 * nodes have none, and what is to be copied may be on one node alone.  -ENODATA: no copy.
 */
static int read_copy(struct volume *v, size_t nodes, const char *name, const bool has[],
		     const struct verifier *a, struct buf *out)
{
	int err = -ENODATA;

	for (size_t i = 0; i < nodes && err == -ENODATA; i++) {
		int64_t end = now_ms() + READ_MS;
		struct node_wait w;
		struct node_io *io = has[i] ? node_io_new(NODE_GET, name) : NULL;
		if (!io)
			continue;
		io->len = BLOB_CAP + 1;
		io->deadline_ms = end;
		node_wait_init(&w);
		node_wait_submit(&w, v->node[i], io);
		io = node_wait_next(&w, end + 1000);
		if (io && !io->err) {
			int bad = io->got > BLOB_CAP
					  ? -EBADMSG
					  : a->verify(a->arg, name, io->buf, io->got);
			if (!bad) {
				buf_put(out, io->buf, io->got);
				err = out->err;
			} else if (bad == -EBADMSG) {
				node_lied(v->node[i], name);
			}
		}
		node_io_unref(io);
		node_wait_release(&w);
	}
	return err;
}

/* The io keeps bytes of its own, because it may outlive this call. */
static int put_copy(struct node *n, const char *name, const void *p, size_t len, int64_t end,
		    struct node_wait *w)
{
	struct node_io *io = node_io_new(NODE_PUT, name);

	if (!io || !(io->buf = malloc(HF_MAX(len, (size_t)1)))) {
		node_io_unref(io);
		return -ENOMEM;
	}
	memcpy(io->buf, p, len);
	io->iov[0] = (struct iovec){io->buf, len};
	io->iov_cnt = 1;
	io->deadline_ms = end;
	node_wait_submit(w, n, io);
	return 0;
}

/* Copies one blob to the usable nodes that did answer and do not have it. */
static int copy_blob(struct volume *v, size_t nodes, const char *name, const bool answered[],
		     const bool has[], const struct verifier *a, bool *wanted)
{
	int64_t end;
	int copies = 0;
	struct buf b = {0};
	struct node_io *io;
	struct node_wait w;

	int err = read_copy(v, nodes, name, has, a, &b);
	if (err) {
		buf_release(&b);
		/* What is genuine nowhere, or nowhere in reach, cannot be copied. */
		return err == -ENODATA ? 0 : err;
	}
	*wanted = true;
	end = now_ms() + WRITE_MS;
	node_wait_init(&w);
	for (size_t i = 0; i < nodes && !err; i++)
		if (answered[i] && !has[i] && node_writable(v->node[i]))
			err = put_copy(v->node[i], name, b.p, b.len, end, &w);
	while (w.pending && (io = node_wait_next(&w, end + 1000))) {
		copies += !io->err;
		node_io_unref(io);
	}
	node_wait_release(&w);
	buf_release(&b);
	return err ? err : copies;
}

/* Lists one prefix on every node that answers. */
static int list_all(struct volume *v, size_t nodes, const char *prefix, bool answered[],
		    struct buf lists[])
{
	int64_t end = now_ms() + CHECK_MS;
	struct node_wait w;
	struct node_io *io;
	int err = 0;

	node_wait_init(&w);
	for (size_t i = 0; i < nodes; i++) {
		answered[i] = false;
		if (!node_readable(v->node[i]))
			continue;
		io = node_io_new(NODE_LIST, prefix);
		if (!io) {
			err = -ENOMEM;
			break;
		}
		io->deadline_ms = end;
		io->tag = (unsigned)i;
		node_wait_submit(&w, v->node[i], io);
	}
	while (!err && w.pending && (io = node_wait_next(&w, end + 1000))) {
		if (!io->err) {
			answered[io->tag] = true;
			lists[io->tag] = io->list;
			io->list = (struct buf){0};
		}
		node_io_unref(io);
	}
	node_wait_release(&w);
	return err;
}

/* Files that others put there, such as a desktop's, are neither copied nor held against a node. */
static bool our_name(const char *name)
{
	const char *rest = name + 3;

	if (!strncmp(name, "v/h", 3) || !strncmp(name, "v/n", 3))
		return *rest && rest[strspn(rest, "0123456789")] == 0;
	return strlen(name) == 3 + 32 &&
	       strspn(rest, "abcdefghijklmnopqrstuvwxyz234567") == 32;
}

/* What the nodes list below one prefix, by name. */
struct listing {
	size_t nodes, cnt;
	bool *answered;
	bool *has; /* for whoever goes through it: of one name */
	struct buf *lists;
	struct entry *e;
};

static void listing_release(struct listing *l)
{
	for (size_t i = 0; l->lists && i < l->nodes; i++)
		buf_release(&l->lists[i]);
	free(l->e);
	free(l->lists);
	free(l->has);
	free(l->answered);
}

static int listing_make(struct listing *l, struct volume *v, const char *prefix)
{
	size_t at = 0;

	*l = (struct listing){.nodes = volume_nodes(v)};
	size_t room = HF_MAX(l->nodes, (size_t)1);
	l->answered = calloc(room, sizeof *l->answered);
	l->has = calloc(room, sizeof *l->has);
	l->lists = calloc(room, sizeof *l->lists);
	int err = l->answered && l->has && l->lists
			  ? list_all(v, l->nodes, prefix, l->answered, l->lists)
			  : -ENOMEM;
	for (size_t i = 0; !err && i < l->nodes; i++)
		for (size_t j = 0; j < l->lists[i].len; j++)
			l->cnt += l->lists[i].p[j] == 0;
	if (!err && !(l->e = malloc(HF_MAX(l->cnt, (size_t)1) * sizeof *l->e)))
		err = -ENOMEM;
	for (size_t i = 0; !err && i < l->nodes; i++)
		for (size_t j = 0; j < l->lists[i].len;) {
			const char *name = (const char *)l->lists[i].p + j;
			l->e[at++] = (struct entry){name, i};
			j += strlen(name) + 1;
		}
	if (!err)
		qsort(l->e, l->cnt, sizeof *l->e, cmp_entry);
	return err;
}

/* From entry i on: the first of another name; l->has says who lists this one. */
static size_t listing_next(struct listing *l, size_t i)
{
	size_t j;

	memset(l->has, 0, l->nodes * sizeof *l->has);
	for (j = i; j < l->cnt && !strcmp(l->e[i].name, l->e[j].name); j++)
		l->has[l->e[j].node] = true;
	return j;
}

static int repair_prefix(struct volume *v, const char *prefix, const struct verifier *a,
			 uint64_t *lacking)
{
	struct listing l;
	int copies = 0;
	int err = listing_make(&l, v, prefix);

	for (size_t i = 0, j; !err && i < l.cnt; i = j) {
		unsigned lack = 0, held = 0;
		bool ours = our_name(l.e[i].name);

		j = listing_next(&l, i);
		for (size_t n = 0; n < l.nodes; n++) {
			bool writable = node_writable(v->node[n]);
			lack += l.answered[n] && !l.has[n] && writable;
			held += l.has[n] && writable;
		}
		bool wanted = false;
		int made = lack && ours ? copy_blob(v, l.nodes, l.e[i].name, l.answered, l.has, a,
						    &wanted)
					: 0;
		if (made >= 0 && ours && (wanted || !lack) && held + (unsigned)made < v->quorum)
			(*lacking)++;
		if (made < 0)
			err = made;
		else
			copies += made;
	}
	listing_release(&l);
	return err ? err : copies;
}

static const char *const prefix[] = {"v/h", "v/n", "l/"};

int repair_blobs(struct volume *v,
		 int (*verify)(void *arg, const char *name, const void *p, size_t len), void *arg,
		 uint64_t *lacking)
{
	struct verifier a = {verify, arg};
	uint64_t few = 0;
	int copies = 0;

	for (size_t i = 0; i < sizeof prefix / sizeof *prefix; i++) {
		int more = repair_prefix(v, prefix[i], &a, &few);

		if (more < 0)
			return more;
		copies += more;
	}
	if (lacking)
		*lacking = few;
	return copies;
}

/* --- verifying --- */

enum copy { COPY_NONE, COPY_WELL, COPY_BAD };

struct check {
	struct volume *v;
	const struct blob_check *o;
	enum copy *copy; /* of one name, on every node */
	struct buf well; /* its bytes, where a copy is genuine */
	bool wanted;	 /* there is one, and it is not below a floor */
	uint64_t cnt;
};

static int take_copy(struct check *c, const char *name, const struct node_io *io)
{
	enum copy *to = &c->copy[io->tag];

	*to = COPY_NONE;
	/* A bad sector is one bad copy, of a node that else is well. */
	if (io->err == -EIO && node_readable(io->node))
		*to = COPY_BAD;
	if (io->err)
		return 0;
	if (c->o->bytes)
		*c->o->bytes += io->got;
	int bad = io->got > CHECK_CAP ? -EBADMSG
				      : c->o->verify(c->o->verify_arg, name, io->buf, io->got);
	if (bad == -EBADMSG) {
		*to = COPY_BAD;
		node_lied(io->node, name);
	} else if (!bad) {
		*to = COPY_WELL;
		c->wanted = true;
		if (!c->well.len)
			buf_put(&c->well, io->buf, io->got);
	}
	return bad == -ENOMEM ? bad : c->well.err;
}

/* Every copy of one name is read, some at a time. */
static int read_copies(struct check *c, const struct listing *l, const char *name)
{
	int err = 0;

	for (size_t n = 0; n < l->nodes && !err;) {
		int64_t end = now_ms() + READ_MS;
		struct node_wait w;
		struct node_io *io;

		node_wait_init(&w);
		for (unsigned out = 0; n < l->nodes && out < AT_ONCE && !err; n++) {
			c->copy[n] = COPY_NONE;
			if (!l->has[n] || !node_readable(c->v->node[n]))
				continue;
			io = node_io_new(NODE_GET, name);
			if (!io) {
				err = -ENOMEM;
				break;
			}
			io->len = CHECK_CAP + 1;
			io->deadline_ms = end;
			io->tag = (unsigned)n;
			node_wait_submit(&w, c->v->node[n], io);
			out++;
		}
		while (!err && w.pending && (io = node_wait_next(&w, end + 1000))) {
			err = take_copy(c, name, io);
			node_io_unref(io);
		}
		node_wait_release(&w);
	}
	return err;
}

/* What is bad is stored anew over itself: the name allows no other bytes. */
static int mend_copies(struct check *c, const struct listing *l, const char *name)
{
	int64_t end = now_ms() + WRITE_MS;
	struct node_wait w;
	struct node_io *io;
	int err = 0;

	node_wait_init(&w);
	for (size_t n = 0; n < l->nodes && !err; n++)
		if (c->copy[n] == COPY_BAD && node_writable(c->v->node[n]))
			err = put_copy(c->v->node[n], name, c->well.p, c->well.len, end, &w);
	while (w.pending && (io = node_wait_next(&w, end + 1000))) {
		if (!io->err)
			log_info("%s: %s is stored anew", node_name(io->node), name);
		node_io_unref(io);
	}
	node_wait_release(&w);
	return err;
}

static int check_name(struct check *c, const struct listing *l, const char *name)
{
	/* Others may be what a recovery left that was stopped: no quorum has to have them. */
	bool log = !strncmp(name, "l/c", 3) || !strncmp(name, "l/s", 3), some = false;
	unsigned held = 0;

	buf_reset(&c->well);
	c->wanted = false;
	int err = read_copies(c, l, name);
	for (size_t n = 0; n < l->nodes; n++)
		held += c->copy[n] == COPY_WELL;
	for (size_t n = 0; n < l->nodes && !err; n++) {
		bool missing = c->wanted && c->o->missing && log && held < c->v->quorum &&
			       l->answered[n] && !l->has[n] && node_writable(c->v->node[n]);

		if (c->copy[n] != COPY_BAD && !missing)
			continue;
		some |= c->copy[n] == COPY_BAD;
		if (missing)
			node_lacks(c->v->node[n], name);
		c->o->found(c->o->found_arg, c->v->node[n], name, missing);
		c->cnt++;
	}
	return err || !some || !c->wanted || !c->o->mend ? err : mend_copies(c, l, name);
}

int64_t check_blobs(struct volume *v, const struct blob_check *o)
{
	struct check c = {.v = v, .o = o};
	int err = 0;

	for (size_t p = 0; p < sizeof prefix / sizeof *prefix && !err; p++) {
		struct listing l;

		err = listing_make(&l, v, prefix[p]);
		c.copy = err ? NULL : calloc(HF_MAX(l.nodes, (size_t)1), sizeof *c.copy);
		if (!err && !c.copy)
			err = -ENOMEM;
		for (size_t i = 0, j; !err && i < l.cnt; i = j) {
			j = listing_next(&l, i);
			if (our_name(l.e[i].name))
				err = check_name(&c, &l, l.e[i].name);
			if (!err && o->stop && o->stop(o->stop_arg))
				err = -ECANCELED;
		}
		free(c.copy);
		listing_release(&l);
	}
	buf_release(&c.well);
	return err ? err : (int64_t)c.cnt;
}
