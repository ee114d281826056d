/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * A node that is a folder of a WebDAV server (RFC 4918).  "s/abcd" lies in s/a/abcd, so that
 * a folder holds some thousands of names and 32 of them show all, other names as they are.
 *
 * Servers differ: some make the folders above a blob, some answer 409 or 404.  Before the
 * first large body goes into a folder the folder is made, which is one small request; a PUT
 * that finds none makes it and goes again.  ETags are weak, missing or wrong and are not
 * used.  A server that writes in place shows a reader half a blob: the tags of what it holds
 * notice, as anything else that is not genuine.
 */
#include "net/node_net.h"

#include <stdlib.h>

#define FAN	   "abcdefghijklmnopqrstuvwxyz234567"
#define FAN_CNT	   32u
#define LIST_WIDE  6u	       /* folders that are asked at a time */
#define MAKE_FIRST (64u << 10) /* a body that is not sent in vain */
#define TOP_OF_FAN  ((uint64_t)1 << 58) /* of dav.there: the folder "s" itself */
#define QUOTA_MS   60000

static const char propfind_names[] =
	"<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<D:propfind xmlns:D=\"DAV:\"><D:prop>"
	"<D:resourcetype/></D:prop></D:propfind>";
static const char propfind_quota[] =
	"<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<D:propfind xmlns:D=\"DAV:\"><D:prop>"
	"<D:resourcetype/><D:quota-available-bytes/><D:quota-used-bytes/></D:prop></"
	"D:propfind>";

/* On the network's thread. */
struct dav {
	uint64_t there; /* folders that were made or found: a bit each, see bit_of */
	int64_t quota_ms;
	bool quota_known;
};

/* Of a call's flags. */
#define MADE  1u /* the folders were made for this call already */
#define FIRST 2u /* the place itself was made or found */

static struct dav *dav_of(const struct net_call *c)
{
	return c->nn->kind;
}

/* The folder of a name below the place: "s/a/", "l/"; and its bit, with that of "s" itself. */
static void folder(const char *name, char out[8])
{
	if (name[0] == 's')
		snprintf(out, 8, "s/%c/", name[2]);
	else
		snprintf(out, 8, "%c/", name[0]);
}

static uint64_t bit_of(const char *name)
{
	static const char abc[] = "abcdefghijklmnopqrstuvwxyz0123456789";
	bool fan = name[0] == 's';
	const char *at = strchr(abc, fan ? name[2] : name[0]);

	/* Fan-out from bit 0, the few others from 40 on, TOP_OF_FAN in the place of their "s". */
	return (uint64_t)1 << (fan ? (at - abc) % 40 : 40 + (at - abc) % 24);
}

static char *path_of(const struct net_call *c, const char *dir, const char *leaf)
{
	char *path;

	return asprintf(&path, "%s/%s%s", c->nn->node->url.path, dir, leaf) < 0 ? NULL : path;
}

static char *blob_path(const struct net_call *c)
{
	char dir[8];

	folder(c->io->name, dir);
	return path_of(c, dir, c->io->name + 2);
}

static int dav_prepare(struct http_req *h)
{
	if (!strcmp(h->method, "PROPFIND")) {
		int err = http_header(h, "Content-Type: application/xml; charset=utf-8");

		return err ? err : http_header(h, "Depth: %d", h->kind == HTTP_LIST);
	}
	return h->kind == HTTP_PUT ? http_header(h, "Content-Type: application/octet-stream")
				   : 0;
}

/* What a status means; 401 says what is wrong with the credentials. */
static int dav_error(struct net_req *r)
{
	const struct node *n = r->call->nn->node;
	const struct node_cred *cred = creds_find(n->creds, n->url.profile);
	struct http_req *h = &r->http;

	int err = http_status_err(h);
	if (h->status == 401)
		snprintf(h->why, sizeof h->why,
			 cred && (cred->username || cred->bearer)
				 ? "HTTP 401: the credentials of profile "
				   "\"%.49s\" are not accepted"
				 : "HTTP 401: it wants credentials, and profile "
				   "\"%.49s\" has none for WebDAV",
			 n->url.profile ? n->url.profile : "default");
	return err;
}

static void end(struct net_req *r, int err)
{
	net_call_end(r->call, err, r->http.got, r->http.why);
}

static void start_if(struct net_req *r)
{
	if (r)
		net_req_start(r);
}

/* --- PUT --- */

static void put_blob(struct net_call *c);

static void make(struct net_call *c);

static void make_done(struct net_req *r)
{
	struct net_call *c = r->call;
	struct http_req *h = &r->http;

	/*
	 * 405 and redirects to itself: it is there; so says Apache with 403 when two make it at
	 * once.  Anything else the PUT will find out.
	 */
	if (h->err) {
		end(r, h->err);
		return;
	}
	if (h->status == 401 || h->status == 507) {
		end(r, dav_error(r));
		return;
	}
	if (c->step == 0 && c->io->name[0] == 's')
		dav_of(c)->there |= TOP_OF_FAN;
	c->step++;
	make(c);
}

/* The folders of the blob, from above; c->step counts those that are done. */
static void make(struct net_call *c)
{
	const char *name = c->io->name;
	char dir[8];

	if (c->step == 0 && name[0] == 's' && (dav_of(c)->there & TOP_OF_FAN))
		c->step++;
	if (c->step == 0 && name[0] == 's') {
		strcpy(dir, "s/");
	} else if (c->step == 0 || (c->step == 1 && name[0] == 's')) {
		folder(name, dir);
	} else {
		dav_of(c)->there |= bit_of(name);
		c->flags |= MADE;
		put_blob(c);
		return;
	}
	start_if(net_req_new(c, HTTP_OTHER, "MKCOL", path_of(c, dir, ""), make_done));
}

static void put_done(struct net_req *r)
{
	struct net_call *c = r->call;
	struct http_req *h = &r->http;
	int err = h->err;

	if (!err && (h->status == 409 || h->status == 404) && !(c->flags & MADE)) {
		dav_of(c)->there &= ~(bit_of(c->io->name) | TOP_OF_FAN);
		c->step = 0;
		make(c);
		return;
	}
	if (!err && h->status != 200 && h->status != 201 && h->status != 204) {
		err = dav_error(r);
		if (h->status == 404 || h->status == 409) {
			err = -ENODEV;
			snprintf(h->why, sizeof h->why,
				 "HTTP %ld: its folder is not there and cannot "
				 "be made",
				 h->status);
		} else if (h->status == 500) {
			/* nginx and lighttpd, when their disk is full. */
			err = -ENOSPC;
			snprintf(h->why, sizeof h->why,
				 "HTTP 500 to a PUT, twice: its disk is full, "
				 "or the server is broken (its log says which)");
		} else if (h->status < 300) {
			err = -EIO;
			snprintf(h->why, sizeof h->why,
				 "HTTP %ld to a PUT, which is no success", h->status);
		}
	} else if (!err) {
		dav_of(c)->there |= bit_of(c->io->name);
		node_measure(c->nn->node, true, 0, h->body_len, h->took_ms);
	}
	end(r, err);
}

static void put_blob(struct net_call *c)
{
	struct net_req *r = net_req_new(c, HTTP_PUT, "PUT", blob_path(c), put_done);

	if (!r)
		return;
	r->http.body_len = c->body_len;
	net_req_start(r);
}

/* --- GET, DELETE --- */

static void get_done(struct net_req *r)
{
	struct http_req *h = &r->http;
	int err = h->err;

	r->call->io->wire_ms = HF_MAX(h->took_ms, (int64_t)1);
	if (!err && h->status >= 300 && h->status != 416)
		err = dav_error(r);
	else if (!err)
		node_measure(r->call->nn->node, false, h->first_ms, h->got,
			     h->took_ms - h->first_ms);
	end(r, err);
}

static void get_blob(struct net_call *c, void (*done)(struct net_req *r))
{
	struct net_req *r = net_req_new(c, HTTP_GET, "GET", blob_path(c), done);

	if (!r)
		return;
	net_req_range(r);
	net_req_start(r);
}

static void delete_done(struct net_req *r)
{
	struct http_req *h = &r->http;
	int err = h->err;

	if (!err && h->status != 204 && h->status != 200 && h->status != 202)
		err = dav_error(r);
	end(r, err == -ENOENT ? 0 : err);
}

/* --- LIST --- */

/* One folder: its entries have it as the part above them. */
static int list_entry(void *arg, const struct listing_entry *e)
{
	struct net_req *r = arg;
	char dir[LISTING_TEXT_CAP], leaf[LISTING_TEXT_CAP];
	bool slash;

	if (e->collection || listing_href(e->name, dir, leaf, sizeof dir, &slash) || slash ||
	    dir[0] != (char)(r->tag & 255) || dir[1])
		return 0;
	return net_list_add(r, (char)(r->tag >> 8), leaf);
}

static struct net_req *list_folder(struct net_call *c, const char *dir, char top, char last);
static void list_done(struct net_req *r);

/* Keeps LIST_WIDE folders asked; c->step is the next of them. */
static void list_more(struct net_call *c)
{
	const char *p = c->io->name;
	char dir[8];

	while (p[0] == 's' && c->asked < LIST_WIDE && c->step < FAN_CNT) {
		char f = FAN[c->step++];

		/* A prefix of one letter and more names its folder. */
		if (p[2] && p[2] != f)
			continue;
		snprintf(dir, sizeof dir, "s/%c/", f);
		struct net_req *r = list_folder(c, dir, 's', f);
		if (!r)
			return;
		c->asked++;
		net_req_start(r);
	}
}

static void list_done(struct net_req *r)
{
	struct net_call *c = r->call;
	struct http_req *h = &r->http;
	int err = h->err;

	if (!err && h->status == 404) {
		/* A folder that nothing was put into yet. */
	} else if (!err && h->status != 207) {
		err = dav_error(r);
		if (h->status == 405 || h->status == 501 || h->status < 300)
			snprintf(h->why, sizeof h->why,
				 "HTTP %ld to PROPFIND: this server cannot list, "
				 "so it cannot be a node",
				 h->status);
		err = h->status < 300 ? -EACCES : err;
	} else if (!err && listing_end(r->listing)) {
		err = -EIO;
		snprintf(h->why, sizeof h->why, "its listing cannot be read: %.120s",
			 listing_why(r->listing));
	} else if (!err && r->list.len) {
		buf_put(&c->list, r->list.p, r->list.len);
	}
	if (err) {
		end(r, err);
		return;
	}
	c->asked--;
	if (c->io->name[0] == 's' && c->step < FAN_CNT)
		list_more(c);
	else if (!c->asked)
		end(r, 0);
}

static struct net_req *propfind(struct net_call *c, enum http_kind kind, char *path,
				const char *body, void (*done)(struct net_req *r))
{
	struct net_req *r = net_req_new(c, kind, "PROPFIND", path, done);

	if (!r)
		return NULL;
	r->body = body;
	r->http.body_len = strlen(body);
	return r;
}

static struct net_req *list_folder(struct net_call *c, const char *dir, char top, char last)
{
	struct net_req *r =
		propfind(c, HTTP_LIST, path_of(c, dir, ""), propfind_names, list_done);

	if (!r)
		return NULL;
	r->tag = (unsigned)(uint8_t)top << 8 | (uint8_t)last;
	if (net_req_listing(r, LISTING_DAV, list_entry)) {
		net_req_drop(r);
		net_call_end(c, -ENOMEM, 0, NULL);
		return NULL;
	}
	return r;
}

static void list_begin(struct net_call *c)
{
	const char *p = c->io->name;
	char dir[8];

	if (!(p[0] >= 'a' && p[0] <= 'z') || p[1] != '/') {
		net_call_end(c, -EINVAL, 0, NULL);
		return;
	}
	if (p[0] == 's') {
		/* Where the prefix fits no folder there is nothing. */
		if (p[2] && !strchr(FAN, p[2]))
			net_call_end(c, 0, 0, NULL);
		else
			list_more(c);
		return;
	}
	snprintf(dir, sizeof dir, "%c/", p[0]);
	c->step = FAN_CNT;
	struct net_req *r = list_folder(c, dir, p[0], p[0]);
	if (!r)
		return;
	c->asked++;
	net_req_start(r);
}

/* --- the probe --- */

static int quota_entry(void *arg, const struct listing_entry *e)
{
	struct net_req *r = arg;

	if (e->quota_available == UINT64_MAX)
		return 0;
	uint64_t used = e->quota_used == UINT64_MAX ? 0 : e->quota_used;
	if (used > UINT64_MAX - e->quota_available)
		return 0;
	node_set_space(r->call->nn->node, e->quota_available, e->quota_available + used, 0);
	return 0;
}

static void quota_done(struct net_req *r)
{
	/* Only whether the place is there counts; c->asked says what the marker's GET said. */
	struct net_call *c = r->call;

	if (c->asked == 404) {
		bool gone = !r->http.err && r->http.status == 404;

		net_call_end(c, gone ? -ENODEV : -ENOENT, 0,
			     gone ? "the folder of its address is not there" : NULL);
		return;
	}
	net_call_end(c, 0, c->body_len, NULL);
}

static void quota(struct net_call *c)
{
	struct net_req *r =
		propfind(c, HTTP_OTHER, path_of(c, "", ""), propfind_quota, quota_done);

	if (!r)
		return;
	if (net_req_listing(r, LISTING_DAV, quota_entry)) {
		net_req_drop(r);
		net_call_end(c, -ENOMEM, 0, NULL);
		return;
	}
	net_req_start(r);
}

static void probe_done(struct net_req *r)
{
	struct net_call *c = r->call;
	struct dav *d = dav_of(c);
	struct http_req *h = &r->http;
	int64_t now = now_ms();

	if (h->err || (h->status >= 300 && h->status != 404 && h->status != 416)) {
		get_done(r);
		return;
	}
	if (h->status == 404 && (c->flags & FIRST)) {
		h->why[0] = 0;
		end(r, -ENOENT);
		return;
	}
	c->asked = (unsigned)h->status;
	c->body_len = h->got;
	if (h->status != 404) {
		node_measure(c->nn->node, false, h->first_ms, h->got, h->took_ms - h->first_ms);
		if (d->quota_ms && now - d->quota_ms < QUOTA_MS) {
			end(r, 0);
			return;
		}
		d->quota_ms = now;
	}
	quota(c);
}

static void place_done(struct net_req *r)
{
	struct net_call *c = r->call;
	struct http_req *h = &r->http;

	if (h->err) {
		end(r, h->err);
	} else if (h->status == 409) {
		snprintf(h->why, sizeof h->why, "the folder above it is not there; make it");
		end(r, -ENODEV);
	} else if (h->status == 401 || h->status == 507) {
		end(r, dav_error(r));
	} else {
		c->flags |= FIRST;
		get_blob(c, probe_done);
	}
}

static void probe_begin(struct net_call *c)
{
	if (c->io->create)
		start_if(net_req_new(c, HTTP_OTHER, "MKCOL", path_of(c, "", ""), place_done));
	else
		get_blob(c, probe_done);
}

/* --- calls --- */

static void dav_begin(struct net_call *c)
{
	switch (c->io->op) {
	case NODE_PUT:
		if (c->body_len >= MAKE_FIRST && !(dav_of(c)->there & bit_of(c->io->name)))
			make(c);
		else
			put_blob(c);
		break;
	case NODE_GET:
		get_blob(c, get_done);
		break;
	case NODE_DEL:
		start_if(net_req_new(c, HTTP_DELETE, "DELETE", blob_path(c), delete_done));
		break;
	case NODE_LIST:
		list_begin(c);
		break;
	case NODE_PROBE:
		probe_begin(c);
		break;
	}
}

static const struct net_ops dav_ops = {
	.begin = dav_begin,
	.prepare = dav_prepare,
};

static int dav_open(struct node *n)
{
	const struct node_url *u = &n->url;
	const struct node_cred *cred = creds_find(n->creds, u->profile);
	struct dav *d = calloc(1, sizeof *d);
	char port[16] = "", *base;

	if (!d)
		return -ENOMEM;
	if (u->port)
		snprintf(port, sizeof port, ":%u", u->port);
	if (asprintf(&base, "%s://%s%s", u->tls ? "https" : "http", u->host, port) < 0) {
		free(d);
		return -ENOMEM;
	}
	struct http_host_opts o = {
		.base = base,
		.tls = u->tls,
		/* Over the open network a server is first asked for a way that hides it. */
		.plain_ok = u->tls || !u->insecure,
		.ca = u->ca,
		.bearer = cred ? cred->bearer : NULL,
		.username = cred && !cred->bearer ? cred->username : NULL,
		.password = cred && !cred->bearer ? cred->password : NULL,
		.up_limit = u->up_limit,
		.down_limit = u->down_limit,
	};
	int err = net_open(n, &dav_ops, &o, d);
	if (err && !n->impl)
		free(d);
	free(base);
	return err;
}

static void dav_swap(void *arg)
{
	struct net_login *l = arg;

	l->node->creds = l->creds;
}

static int dav_login(struct node *n, struct creds *c)
{
	const struct node_cred *cred = creds_find(c, n->url.profile);
	struct net_login l = {n, c};
	struct net_node *nn = n->impl;
	struct creds *old = n->creds;

	int err = http_host_login(nn->host, cred && !cred->bearer ? cred->username : NULL,
				  cred && !cred->bearer ? cred->password : NULL,
				  cred ? cred->bearer : NULL);
	if (err)
		return err;
	creds_ref(c);
	http_host_run(nn->host, dav_swap, &l);
	creds_unref(old);
	return 0;
}

static void dav_free(struct node *n)
{
	struct net_node *nn = n->impl;

	if (nn)
		free(nn->kind);
	net_free(n);
}

const struct node_kind node_dav_kind = {
	.name = "dav",
	.open = dav_open,
	.start = net_start,
	.give_up = net_give_up,
	.info = net_info,
	.login = dav_login,
	.stop = net_stop,
	.free = dav_free,
};
