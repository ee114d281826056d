/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * A node that is a bucket, or what is below a prefix in one.  A blob is an object, its key
 * is PREFIX/NAME; object stores need no fan-out.
 *
 * Bodies are signed over plain http alone, where somebody on the way could change them; over
 * TLS UNSIGNED-PAYLOAD spares hashing them, and what a node keeps is checked by its tags.
 */
#include "net/node_net.h"

#include <sodium.h>
#include <stdlib.h>
#include "net/sigv4.h"

#define PAGE "1000"

struct s3 {
	char *host;		      /* as the Host header has it */
	char *base;		      /* in front of each key: "/bucket/prefix/", encoded */
	char *bucket;		      /* the path of the bucket itself */
	char *prefix;		      /* "prefix/", not encoded */
	const char *region;	      /* of the URL or the credentials, else us-east-1 */
	const struct node_cred *cred; /* NULL: requests are not signed */
};

static struct s3 *s3_of(const struct net_node *nn)
{
	return nn->kind;
}

/* --- requests --- */

static char *key_path(const struct net_call *c)
{
	char *path;

	return asprintf(&path, "%s%s", s3_of(c->nn)->base, c->io->name) < 0 ? NULL : path;
}

/* Signs, with the time of this attempt. */
static int s3_prepare(struct http_req *h)
{
	struct net_req *r = (struct net_req *)h;
	const struct s3 *s = s3_of(r->call->nn);
	const struct node_url *u = &r->call->nn->node->url;
	const char *q = strchr(h->path, '?');
	const char *head[5][2];
	const char *payload = h->body_len ? r->call->hash : SIGV4_EMPTY;
	struct buf auth = {0};
	size_t cnt = 0;
	char date[17];
	int err = 0;

	if (h->kind == HTTP_PUT && u->storage_class)
		err = http_header(h, "x-amz-storage-class: %s", u->storage_class);
	if (h->kind == HTTP_PUT && !err)
		err = http_header(h, "Content-Type: application/octet-stream");
	if (!s->cred || !s->cred->access_key || err)
		return err;
	if (u->tls)
		payload = SIGV4_UNSIGNED;
	int64_t now_s = realtime_ns() / 1000000000;
	char *path = strndup(h->path, q ? (size_t)(q - h->path) : strlen(h->path));
	if (!path)
		return -ENOMEM;
	sigv4_date(now_s, date);
	head[cnt][0] = "host";
	head[cnt++][1] = s->host;
	head[cnt][0] = "x-amz-content-sha256";
	head[cnt++][1] = payload;
	head[cnt][0] = "x-amz-date";
	head[cnt++][1] = date;
	if (s->cred->session_token) {
		head[cnt][0] = "x-amz-security-token";
		head[cnt++][1] = s->cred->session_token;
	}
	if (h->kind == HTTP_PUT && u->storage_class) {
		head[cnt][0] = "x-amz-storage-class";
		head[cnt++][1] = u->storage_class;
	}
	struct sigv4 sig = {
		.method = h->method,
		.host = s->host,
		.path = path,
		.query = q ? q + 1 : "",
		.header = head,
		.header_cnt = cnt,
		.payload = payload,
		.access_key = s->cred->access_key,
		.secret_key = s->cred->secret_key,
		.region = s->region,
		.service = "s3",
		.time_s = now_s,
	};
	err = sigv4_sign(&sig, &auth);
	buf_u8(&auth, 0);
	if (!err)
		err = auth.err;
	if (!err)
		err = http_header(h, "x-amz-content-sha256: %s", payload);
	if (!err)
		err = http_header(h, "x-amz-date: %s", date);
	if (!err && s->cred->session_token)
		err = http_header(h, "x-amz-security-token: %s", s->cred->session_token);
	if (!err)
		err = http_header(h, "Authorization: %s", (char *)auth.p);
	buf_release(&auth);
	free(path);
	return err;
}

/* The hash of a body that may be signed, on the thread of who submits. */
static int s3_ready(struct net_call *c)
{
	crypto_hash_sha256_state st;
	uint8_t hash[crypto_hash_sha256_BYTES];

	if (c->io->op != NODE_PUT || c->nn->node->url.tls)
		return 0;
	crypto_hash_sha256_init(&st);
	for (unsigned i = 0; i < c->io->iov_cnt; i++)
		crypto_hash_sha256_update(&st, c->io->iov[i].iov_base, c->io->iov[i].iov_len);
	crypto_hash_sha256_final(&st, hash);
	sodium_bin2hex(c->hash, sizeof c->hash, hash, sizeof hash);
	return 0;
}

/* --- errors --- */

/* What S3 says in its <Error>: errno, and a sentence in h->why. */
static int s3_error(struct net_req *r)
{
	static const struct {
		const char *code;
		int err;
		const char *what; /* NULL: as the server puts it */
	} known[] = {
		{"NoSuchKey", -ENOENT, NULL},
		{"AccessDenied", -EACCES,
		 "the key may not do this: check its policy, and the name of the bucket"},
		{"InvalidAccessKeyId", -EACCES, "the access key is not known there"},
		{"SignatureDoesNotMatch", -EACCES, "the secret key is not right"},
		{"ExpiredToken", -EACCES, "the session token has expired"},
		{"InvalidToken", -EACCES, "the session token is not valid"},
		{"AllAccessDisabled", -EACCES, NULL},
		{"AccountProblem", -EACCES, NULL},
		{"InvalidObjectState", -EACCES,
		 "it is in an archive: its storage class cannot be "
		 "read at once"},
		{"QuotaExceeded", -ENOSPC, "the quota is used up"},
		{"ServiceQuotaExceeded", -ENOSPC, "the quota is used up"},
		{"InsufficientCapacity", -ENOSPC, "no space"},
		{"StorageFull", -ENOSPC, "no space"},
		{"XMinioStorageFull", -ENOSPC, "no space"},
		{"EntityTooLarge", -EACCES, "it does not take an object of this size"},
		{"SlowDown", -EAGAIN, "busy: it asks to slow down"},
		{"ServiceUnavailable", -EAGAIN, "busy"},
		{"RequestTimeout", -ETIMEDOUT, NULL},
		{"InvalidStorageClass", -EACCES, "it has no such storage class"},
		{"NotImplemented", -EACCES, "it cannot do this"},
	};
	struct http_req *h = &r->http;
	const struct s3 *s = s3_of(r->call->nn);
	const struct node_url *u = &r->call->nn->node->url;
	struct listing *x = NULL;

	int err = http_status_err(h);
	if (listing_new(&x, LISTING_S3, NULL, NULL))
		return -ENOMEM;
	/* Cut off or not even XML: what was read of it counts. */
	if (!listing_feed(x, (uint8_t *)h->text, h->text_len))
		listing_end(x);
	const char *code = listing_error_code(x), *region = listing_error_region(x);
	if (!*region)
		region = h->head.region;
	if (!strcmp(code, "NoSuchBucket")) {
		err = -ENODEV;
		snprintf(h->why, sizeof h->why, "there is no bucket %s; make it first",
			 u->bucket);
	} else if (!strcmp(code, "RequestTimeTooSkewed")) {
		int64_t skew =
			h->head.date >= 0 ? realtime_ns() / 1000000000 - h->head.date : 0;

		err = -EACCES;
		snprintf(h->why, sizeof h->why,
			 "RequestTimeTooSkewed: this machine's clock is %lld s "
			 "%s of the server's; set one of them right",
			 (long long)llabs(skew), skew < 0 ? "behind" : "ahead");
	} else if (*region && strcmp(region, s->region) &&
		   (h->status == 301 || h->status == 307 || h->status == 400)) {
		err = -EACCES;
		snprintf(h->why, sizeof h->why,
			 "the bucket is in the region %s, not in %s: say "
			 "region=%s in the address",
			 region, s->region, region);
	} else if (*code && h->status / 100 != 3) {
		const char *what = listing_error_text(x);

		for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
			if (strcmp(code, known[i].code) != 0)
				continue;
			err = known[i].err;
			what = known[i].what ? known[i].what : what;
		}
		snprintf(h->why, sizeof h->why, "HTTP %ld %.60s%s%.100s", h->status, code,
			 *what ? ": " : "", what);
	}
	if (err == -EACCES && (!s->cred || !s->cred->access_key))
		snprintf(h->why, sizeof h->why,
			 "HTTP %ld, and there is no access key: the profile "
			 "\"%.49s\" has none",
			 h->status, u->profile ? u->profile : "default");
	listing_free(x);
	return err;
}

/* A call of one request: its result, which is final. */
static void end(struct net_req *r, int err)
{
	net_call_end(r->call, err, r->http.got, r->http.why);
}

static void get_done(struct net_req *r)
{
	struct http_req *h = &r->http;
	int err = h->err;

	r->call->io->wire_ms = HF_MAX(h->took_ms, (int64_t)1);
	if (!err && h->status >= 300 && h->status != 416)
		err = s3_error(r);
	else if (!err)
		node_measure(r->call->nn->node, false, h->first_ms, h->got,
			     h->took_ms - h->first_ms);
	end(r, err);
}

static void put_done(struct net_req *r)
{
	struct http_req *h = &r->http;
	int err = h->err;

	if (!err && h->status >= 300) {
		err = s3_error(r);
	} else if (!err && h->status != 200) {
		err = -EIO;
		snprintf(h->why, sizeof h->why, "HTTP %ld to a PUT, which is no success in S3",
			 h->status);
	} else if (!err) {
		node_measure(r->call->nn->node, true, 0, h->body_len, h->took_ms);
	}
	end(r, err);
}

static void delete_done(struct net_req *r)
{
	struct http_req *h = &r->http;
	int err = h->err;

	if (!err && h->status != 204 && h->status != 200 && h->status != 202)
		err = s3_error(r);
	end(r, err == -ENOENT ? 0 : err);
}

/* --- listing --- */

static void list_page(struct net_call *c, const char *token);

static int list_entry(void *arg, const struct listing_entry *e)
{
	struct net_req *r = arg;
	const char *prefix = s3_of(r->call->nn)->prefix;
	size_t len = strlen(prefix);

	if (strncmp(e->name, prefix, len) != 0 || !e->name[len] || e->name[len + 1] != '/')
		return 0;
	return net_list_add(r, e->name[len], e->name + len + 2);
}

static void list_done(struct net_req *r)
{
	struct net_call *c = r->call;
	struct http_req *h = &r->http;
	int err = h->err;

	if (!err && h->status >= 300)
		err = s3_error(r);
	else if (!err && listing_end(r->listing))
		err = -EIO;
	else if (!err && strcmp(listing_root(r->listing), "ListBucketResult") != 0)
		err = -EIO;
	if (err == -EIO && !h->why[0])
		snprintf(h->why, sizeof h->why, "its listing cannot be read: %.120s",
			 h->status < 300 ? listing_why(r->listing) : "");
	if (!err)
		buf_put(&c->list, r->list.p ? r->list.p : (uint8_t *)"", r->list.len);
	if (!err && listing_truncated(r->listing) && !*listing_token(r->listing)) {
		err = -EIO;
		snprintf(h->why, sizeof h->why, "its listing goes on and does not say where");
	}
	if (err || !listing_truncated(r->listing))
		end(r, err);
	else
		list_page(c, listing_token(r->listing));
}

/* Names and values are encoded, and ordered by name: so are they signed. */
static void list_page(struct net_call *c, const char *token)
{
	const struct s3 *s = s3_of(c->nn);
	struct buf b = {0};

	buf_put(&b, s->bucket, strlen(s->bucket));
	buf_put(&b, "?", 1);
	if (token) {
		buf_put(&b, "continuation-token=", 19);
		url_encode(&b, token, strlen(token), "");
		buf_put(&b, "&", 1);
	}
	static const char rest[] = "encoding-type=url&list-type=2&max-keys=" PAGE "&prefix=";
	buf_put(&b, rest, strlen(rest));
	url_encode(&b, s->prefix, strlen(s->prefix), "");
	url_encode(&b, c->io->name, strlen(c->io->name), "");
	buf_u8(&b, 0);
	if (b.err)
		buf_release(&b);
	struct net_req *r = net_req_new(c, HTTP_LIST, "GET", (char *)b.p, list_done);
	if (!r)
		return;
	if (net_req_listing(r, LISTING_S3, list_entry)) {
		net_req_drop(r);
		net_call_end(c, -ENOMEM, 0, NULL);
		return;
	}
	net_req_start(r);
}

/* --- calls --- */

static void s3_begin(struct net_call *c)
{
	struct node_io *io = c->io;
	struct net_req *r = NULL;

	switch (io->op) {
	case NODE_PUT:
		r = net_req_new(c, HTTP_PUT, "PUT", key_path(c), put_done);
		if (r)
			r->http.body_len = c->body_len;
		break;
	case NODE_GET:
	case NODE_PROBE:
		r = net_req_new(c, HTTP_GET, "GET", key_path(c), get_done);
		if (r)
			net_req_range(r);
		break;
	case NODE_DEL:
		r = net_req_new(c, HTTP_DELETE, "DELETE", key_path(c), delete_done);
		break;
	case NODE_LIST:
		list_page(c, NULL);
		return;
	}
	if (r)
		net_req_start(r);
}

static const struct net_ops s3_ops = {
	.ready = s3_ready,
	.begin = s3_begin,
	.prepare = s3_prepare,
};

static void s3_release(struct s3 *s)
{
	if (!s)
		return;
	free(s->host);
	free(s->base);
	free(s->bucket);
	free(s->prefix);
	free(s);
}

static char *encoded(const char *s)
{
	struct buf b = {0};

	url_encode(&b, s, strlen(s), "/");
	buf_u8(&b, 0);
	if (b.err)
		buf_release(&b);
	return (char *)b.p;
}

/* The region in "s3.eu-central-1.amazonaws.com", or NULL; to be freed. */
static char *region_of_host(const char *host)
{
	static const char tail[] = ".amazonaws.com";
	size_t len = strlen(host);

	if (strncmp(host, "s3.", 3) || len <= 3 + strlen(tail) ||
	    strcmp(host + len - strlen(tail), tail) != 0)
		return NULL;
	return strndup(host + 3, len - 3 - strlen(tail));
}

/* The net thread, or before there is one. */
static void take_cred(struct node *n, struct s3 *s)
{
	struct node_url *u = &n->url;

	s->cred = creds_find(n->creds, u->profile);
	if (!u->region && !(s->cred && s->cred->region))
		u->region = region_of_host(u->host);
	s->region = u->region			 ? u->region
		    : s->cred && s->cred->region ? s->cred->region
						 : "us-east-1";
}

static int s3_open(struct node *n)
{
	struct node_url *u = &n->url;
	struct s3 *s = calloc(1, sizeof *s);
	char port[16] = "", *base = NULL;
	int err = s ? 0 : -ENOMEM;

	if (u->port)
		snprintf(port, sizeof port, ":%u", u->port);
	char *path = encoded(u->path);
	if (!path)
		err = -ENOMEM;
	if (!err) {
		bool v = u->virtual_host;
		const char *b = v ? "" : u->bucket;

		if (asprintf(&s->host, "%s%s%s%s", v ? u->bucket : "", v ? "." : "", u->host,
			     port) < 0 ||
		    asprintf(&s->base, "%s%s/%s%s", v ? "" : "/", b, path, *path ? "/" : "") <
			    0 ||
		    asprintf(&s->bucket, "/%s", b) < 0 ||
		    asprintf(&s->prefix, "%s%s", u->path, *path ? "/" : "") < 0 ||
		    asprintf(&base, "%s://%s", u->tls ? "https" : "http", s->host) < 0)
			err = -ENOMEM;
	}
	if (!err) {
		take_cred(n, s);
		struct http_host_opts o = {.base = base,
					   .tls = u->tls,
					   .ca = u->ca,
					   .up_limit = u->up_limit,
					   .down_limit = u->down_limit};
		err = net_open(n, &s3_ops, &o, s);
	}
	/* From net_open on it is freed with the node. */
	if (err && !n->impl)
		s3_release(s);
	free(path);
	free(base);
	return err;
}

static void s3_swap(void *arg)
{
	struct net_login *l = arg;
	struct s3 *s = s3_of(l->node->impl);

	l->node->creds = l->creds;
	take_cred(l->node, s);
}

static int s3_login(struct node *n, struct creds *c)
{
	struct net_login l = {n, c};
	struct net_node *nn = n->impl;
	struct creds *old = n->creds;

	creds_ref(c);
	http_host_run(nn->host, s3_swap, &l);
	creds_unref(old);
	return 0;
}

static void s3_free(struct node *n)
{
	struct net_node *nn = n->impl;

	if (nn)
		s3_release(s3_of(nn));
	net_free(n);
}

const struct node_kind node_s3_kind = {
	.name = "s3",
	.open = s3_open,
	.start = net_start,
	.give_up = net_give_up,
	.info = net_info,
	.login = s3_login,
	.stop = net_stop,
	.free = s3_free,
};
