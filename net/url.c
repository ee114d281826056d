/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "net/url.h"

#include <arpa/inet.h>
#include <stdlib.h>

#define DOMAIN_CAP 64
#define WORD_CAP   64
#define HOST_CAP   254
#define LOWER	   "abcdefghijklmnopqrstuvwxyz"
#define UPPER	   "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
#define DIGITS	   "0123456789"
#define WORDS	   LOWER UPPER DIGITS "._-"

/* --- escapes and units --- */

void url_encode(struct buf *out, const char *s, size_t len, const char *keep)
{
	static const char hex[] = "0123456789ABCDEF";

	for (size_t i = 0; i < len; i++) {
		uint8_t c = (uint8_t)s[i];

		if (c && (strchr(WORDS "~", c) || strchr(keep, c))) {
			buf_u8(out, c);
		} else {
			buf_u8(out, '%');
			buf_u8(out, (uint8_t)hex[c >> 4]);
			buf_u8(out, (uint8_t)hex[c & 15]);
		}
	}
}

static int hex_digit(char c)
{
	return c >= '0' && c <= '9'   ? c - '0'
	       : c >= 'a' && c <= 'f' ? c - 'a' + 10
	       : c >= 'A' && c <= 'F' ? c - 'A' + 10
				      : -1;
}

int url_decode(const char *s, size_t len, char *out, size_t *out_len)
{
	size_t at = 0;

	for (size_t i = 0; i < len; i++) {
		char c = s[i];

		if (c == '%') {
			int hi = len - i > 2 ? hex_digit(s[i + 1]) : -1;
			int lo = len - i > 2 ? hex_digit(s[i + 2]) : -1;

			if (hi < 0 || lo < 0)
				return -EINVAL;
			c = (char)(hi << 4 | lo);
			i += 2;
		}
		if (!c)
			return -EINVAL;
		out[at++] = c;
	}
	*out_len = at;
	return 0;
}

int url_parse_rate(const char *text, uint64_t *out)
{
	static const char unit[] = "KMG";
	uint64_t v = 0;
	const char *c = text;

	for (; *c >= '0' && *c <= '9'; c++) {
		if (v > UINT64_MAX / 16)
			return -EINVAL;
		v = v * 10 + (uint64_t)(*c - '0');
	}
	if (c == text)
		return -EINVAL;
	if (*c) {
		const char *u = strchr(unit, *c);
		unsigned shift = u ? 10 * (unsigned)(u - unit + 1) : 0;

		if (!u || c[1] || v > (UINT64_MAX >> 8) >> shift)
			return -EINVAL;
		v <<= shift;
	}
	*out = v;
	return 0;
}

static void put_rate(struct buf *out, const char *name, uint64_t v)
{
	static const char *const unit[] = {"", "K", "M", "G"};
	char text[64];
	unsigned u = 0;

	for (; u < 3 && v && v % 1024 == 0; u++)
		v /= 1024;
	snprintf(text, sizeof text, "%s%llu%s", name, (unsigned long long)v, unit[u]);
	buf_put(out, text, strlen(text));
}

/* Well-formed as RFC 3629 has it: addresses are kept as JSON text. */
static bool utf8(const char *s)
{
	const uint8_t *c = (const uint8_t *)s;

	while (*c) {
		unsigned more = *c < 0x80   ? 0
				: *c < 0xc2 ? 9
				: *c < 0xe0 ? 1
				: *c < 0xf0 ? 2
					    : 3;

		if (more == 9 || *c > 0xf4 || (*c == 0xe0 && c[1] < 0xa0) ||
		    (*c == 0xed && c[1] > 0x9f) || (*c == 0xf0 && c[1] < 0x90) ||
		    (*c == 0xf4 && c[1] > 0x8f))
			return false;
		for (c++; more; more--, c++)
			if ((*c & 0xc0) != 0x80)
				return false;
	}
	return true;
}

static bool plain(const char *s)
{
	for (; *s; s++)
		if ((unsigned char)*s < 0x20 || *s == 0x7f)
			return false;
	return utf8(s);
}

/* --- directories --- */

static int check_domain(const char *url, const char *name)
{
	size_t len = strspn(name, WORDS);

	if (!len || name[len] || len >= DOMAIN_CAP)
		return log_fail(-EINVAL,
				"node %s: a domain is 1 to %d letters, digits, dots, dashes",
				url, DOMAIN_CAP - 1);
	return 0;
}

/* Appends "/part" for each part of path[0..len-1] that says something. */
static int put_parts(struct buf *out, const char *path, size_t len)
{
	const char *end = path + len;

	for (const char *c = path; c < end;) {
		size_t part;

		while (c < end && *c == '/')
			c++;
		for (part = 0; c + part < end && c[part] != '/';)
			part++;
		if (part == 2 && c[0] == '.' && c[1] == '.')
			return -EINVAL;
		if (part && (part != 1 || c[0] != '.')) {
			buf_u8(out, '/');
			buf_put(out, c, part);
		}
		c += part;
	}
	return 0;
}

static int parse_dir(struct node_url *u, const char *url, struct buf *canon)
{
	static const char option[] = "?domain=";
	const char *path = url + strlen("dir:");
	size_t len = strcspn(path, "?");
	const char *q = path + len;

	if (*path != '/')
		return log_fail(-EINVAL,
				"node %s: the path must be absolute, as in "
				"dir:/absolute/path",
				url);
	if (*q && strncmp(q, option, strlen(option)) != 0)
		return log_fail(-EINVAL, "node %s: after the path only ?domain=NAME may follow",
				url);
	int err = *q ? check_domain(url, q + strlen(option)) : 0;
	if (err)
		return err;
	buf_put(canon, "dir:", 4);
	if (put_parts(canon, path, len))
		return log_fail(-EINVAL, "node %s: the path must not contain \"..\"", url);
	if (canon->len == 4 && !canon->err)
		return log_fail(-EINVAL,
				"node %s: the root directory cannot be a node; name a "
				"directory below it",
				url);
	if (!canon->err)
		u->path = strndup((char *)canon->p + 4, canon->len - 4);
	if (*q)
		u->domain = strdup(q + strlen(option));
	buf_put(canon, q, strlen(q));
	return canon->err || !u->path || (*q && !u->domain) ? -ENOMEM : 0;
}

/* --- servers --- */

/* A place to say what is wrong with: the address without its options. */
struct net_text {
	const char *shown; /* "s3+https://host/bucket" */
	const char *scheme;
	bool s3;
};

static int take_host(struct node_url *u, const struct net_text *t, const char *p, size_t len)
{
	const char *colon;
	size_t host_len = len;
	struct in6_addr a6;

	if (len && *p == '[') {
		const char *close = memchr(p, ']', len);
		char plain6[64];

		if (!close || (size_t)(close - p - 1) >= sizeof plain6)
			return log_fail(-EINVAL, "node %s: an IPv6 address is written [::1]",
					t->shown);
		snprintf(plain6, sizeof plain6, "%.*s", (int)(close - p - 1), p + 1);
		host_len = (size_t)(close - p) + 1;
		if (inet_pton(AF_INET6, plain6, &a6) != 1 ||
		    (host_len < len && p[host_len] != ':'))
			return log_fail(-EINVAL, "node %s: an IPv6 address is written [::1]",
					t->shown);
		colon = host_len < len ? p + host_len : NULL;
	} else {
		colon = memchr(p, ':', len);
		host_len = colon ? (size_t)(colon - p) : len;
		size_t good = 0;
		while (good < host_len && p[good] && strchr(WORDS, p[good]))
			good++;
		if (!host_len || good < host_len || host_len >= HOST_CAP || *p == '.' ||
		    *p == '-')
			return log_fail(-EINVAL,
					"node %s: the name of a host is letters, digits, "
					"dots and dashes, as in %shost:port/",
					t->shown, t->scheme);
	}
	if (colon) {
		const char *c = colon + 1;
		unsigned long port = 0;

		for (; c < p + len && *c >= '0' && *c <= '9' && port <= 65535; c++)
			port = port * 10 + (unsigned long)(*c - '0');
		if (c < p + len || c == colon + 1 || port < 1 || port > 65535)
			return log_fail(-EINVAL, "node %s: a port is a number of 1 to 65535",
					t->shown);
		u->port = port == (u->tls ? 443 : 80) ? 0 : (unsigned)port;
	}
	u->host = strndup(p, host_len);
	if (!u->host)
		return -ENOMEM;
	for (char *c = u->host; *c; c++)
		if (*c >= 'A' && *c <= 'Z')
			*c = (char)(*c - 'A' + 'a');
	return 0;
}

static bool loopback(const char *host)
{
	struct in_addr a4;
	struct in6_addr a6;
	char plain6[64];

	if (!strcmp(host, "localhost"))
		return true;
	if (inet_pton(AF_INET, host, &a4) == 1)
		return (ntohl(a4.s_addr) >> 24) == 127;
	if (*host != '[')
		return false;
	snprintf(plain6, sizeof plain6, "%.*s", (int)(strlen(host) - 2), host + 1);
	return inet_pton(AF_INET6, plain6, &a6) == 1 && IN6_IS_ADDR_LOOPBACK(&a6);
}

/* The parts of the path, decoded, without empty ones, each behind a slash. */
static int take_path(const struct net_text *t, const char *p, size_t len, struct buf *out)
{
	int err = 0;

	for (const char *end = p + len, *c = p; c < end && !err;) {
		size_t part = 0, dec_len = 0;

		while (c < end && *c == '/')
			c++;
		while (c + part < end && c[part] != '/')
			part++;
		if (!part)
			break;
		char *dec = malloc(part + 1);
		if (!dec)
			return -ENOMEM;
		if (url_decode(c, part, dec, &dec_len))
			err = log_fail(-EINVAL, "node %s: after %% come two hexadecimal digits",
				       t->shown);
		dec[err ? 0 : dec_len] = 0;
		if (!err && (!plain(dec) || strchr(dec, '/')))
			err = log_fail(-EINVAL,
				       "node %s: an escape stands for a slash, a control "
				       "character or what is not UTF-8",
				       t->shown);
		if (!err && (!strcmp(dec, ".") || !strcmp(dec, "..")))
			err = log_fail(-EINVAL, "node %s: the path must not contain \"%s\"",
				       t->shown, dec);
		if (!err) {
			buf_u8(out, '/');
			buf_put(out, dec, dec_len);
		}
		free(dec);
		c += part;
	}
	return err ? err : out->err;
}

static int bad_option(const struct net_text *t, const char *name, const char *right)
{
	return log_fail(-EINVAL, "node %s: %s is %s", t->shown, name, right);
}

static bool word(const char *v, const char *chars, size_t cap)
{
	size_t len = strspn(v, chars);

	return len && !v[len] && len < cap;
}

static int take_word(char **to, const struct net_text *t, const char *name, const char *v,
		     const char *chars, const char *right)
{
	if (!word(v, chars, WORD_CAP))
		return bad_option(t, name, right);
	*to = strdup(v);
	return *to ? 0 : -ENOMEM;
}

/* One option; v is decoded and plain. */
static int take_option(struct node_url *u, const struct net_text *t, const char *name,
		       const char *v)
{
	if (!strcmp(name, "profile"))
		return take_word(&u->profile, t, name, v, WORDS " @+",
				 "the name of a section of the credentials file");
	if (!strcmp(name, "domain"))
		return take_word(&u->domain, t, name, v, WORDS,
				 "1 to 63 letters, digits, dots, dashes");
	if (!strcmp(name, "insecure")) {
		u->insecure = true;
		return strcmp(v, "1") ? bad_option(t, name, "1, or not given at all") : 0;
	}
	if (!strcmp(name, "ca")) {
		if (*v != '/')
			return bad_option(t, name, "the absolute path of a PEM file");
		if (!u->tls)
			return log_fail(-EINVAL, "node %s: ca= is for https", t->shown);
		u->ca = strdup(v);
		return u->ca ? 0 : -ENOMEM;
	}
	if (!strcmp(name, "upload_limit") || !strcmp(name, "download_limit")) {
		uint64_t *rate = *name == 'u' ? &u->up_limit : &u->down_limit;

		if (url_parse_rate(v, rate) || !*rate)
			return bad_option(t, name, "bytes a second, as in 500K or 2M");
		return 0;
	}
	if (t->s3 && !strcmp(name, "region"))
		return take_word(&u->region, t, name, v, WORDS, "a name such as eu-central-1");
	if (t->s3 && !strcmp(name, "class"))
		return take_word(&u->storage_class, t, name, v, UPPER DIGITS "_-",
				 "a storage class such as STANDARD_IA");
	if (t->s3 && !strcmp(name, "style")) {
		u->virtual_host = !strcmp(v, "virtual");
		return u->virtual_host || !strcmp(v, "path")
			       ? 0
			       : bad_option(t, name, "path or virtual");
	}
	return log_fail(-EINVAL,
			"node %s: there is no option \"%s\"; there are profile, ca, "
			"insecure, domain, upload_limit, download_limit%s",
			t->shown, name, t->s3 ? ", region, style, class" : "");
}

static int take_options(struct node_url *u, const struct net_text *t, const char *q)
{
	static const char *const names[] = {"profile", "domain",       "insecure",
					    "ca",      "upload_limit", "download_limit",
					    "region",  "class",	       "style"};
	unsigned seen = 0;
	int err = 0;

	while (*q && !err) {
		size_t len = strcspn(q, "&"), name_len = strcspn(q, "=&"), val_len;
		char name[24];

		if (name_len >= sizeof name || name_len == len)
			return log_fail(-EINVAL,
					"node %s: options are written ?name=value&name=value",
					t->shown);
		snprintf(name, sizeof name, "%.*s", (int)name_len, q);
		for (unsigned i = 0; i < sizeof names / sizeof *names; i++) {
			if (strcmp(name, names[i]) != 0)
				continue;
			if (seen & 1u << i)
				return log_fail(-EINVAL, "node %s: %s is given twice", t->shown,
						name);
			seen |= 1u << i;
		}
		char *v = malloc(len - name_len);
		if (!v)
			return -ENOMEM;
		err = url_decode(q + name_len + 1, len - name_len - 1, v, &val_len);
		v[err ? 0 : val_len] = 0;
		if (err || !plain(v))
			err = log_fail(-EINVAL, "node %s: %s holds a bad escape", t->shown,
				       name);
		else
			err = take_option(u, t, name, v);
		free(v);
		q += len + (q[len] == '&');
	}
	return err;
}

static void put_option(struct buf *out, const char *name, const char *v)
{
	if (!v)
		return;
	buf_u8(out, memchr(out->p, '?', out->len) ? '&' : '?');
	buf_put(out, name, strlen(name));
	url_encode(out, v, strlen(v), "/");
}

static void put_options(const struct node_url *u, struct buf *out)
{
	struct buf rate = {0};

	put_option(out, "region=", u->region);
	put_option(out,
		   "profile=", u->profile && strcmp(u->profile, "default") ? u->profile : NULL);
	put_option(out, "style=", u->virtual_host ? "virtual" : NULL);
	put_option(out, "class=", u->storage_class);
	put_option(out, "ca=", u->ca);
	put_option(out, "insecure=", u->insecure ? "1" : NULL);
	put_option(out, "domain=", u->domain);
	for (int i = 0; i < 2; i++) {
		uint64_t v = i ? u->down_limit : u->up_limit;

		buf_reset(&rate);
		if (!v || out->err)
			continue;
		put_rate(&rate, "", v);
		buf_u8(&rate, 0);
		if (!rate.err)
			put_option(out,
				   i ? "download_limit=" : "upload_limit=", (char *)rate.p);
	}
	if (rate.err)
		out->err = rate.err;
	buf_release(&rate);
}

/* Path and bucket from the decoded parts. */
static int take_place(struct node_url *u, const struct net_text *t, const struct buf *parts)
{
	const char *p = parts->len ? (const char *)parts->p : "";
	struct buf enc = {0};

	if (!t->s3) {
		url_encode(&enc, p, parts->len, "/");
		u->path = enc.err ? NULL : strndup(enc.len ? (char *)enc.p : "", enc.len);
		buf_release(&enc);
		return u->path ? 0 : -ENOMEM;
	}
	if (!parts->len)
		return log_fail(-EINVAL,
				"node %s: a bucket must follow the host, as in "
				"%shost/bucket",
				t->shown, t->scheme);
	p++;
	size_t left = parts->len - 1;
	const char *slash = memchr(p, '/', left);
	size_t len = slash ? (size_t)(slash - p) : left;
	u->bucket = strndup(p, len);
	u->path = slash ? strndup(slash + 1, left - len - 1) : strdup("");
	if (!u->bucket || !u->path)
		return -ENOMEM;
	if (!word(u->bucket, WORDS, WORD_CAP))
		return log_fail(-EINVAL,
				"node %s: the name of a bucket is letters, digits, dots, "
				"dashes",
				t->shown);
	return 0;
}

static int put_canon(const struct node_url *u, const struct net_text *t, struct buf *out)
{
	char port[16];

	buf_put(out, t->scheme, strlen(t->scheme));
	buf_put(out, u->host, strlen(u->host));
	snprintf(port, sizeof port, ":%u", u->port);
	if (u->port)
		buf_put(out, port, strlen(port));
	if (t->s3) {
		buf_u8(out, '/');
		buf_put(out, u->bucket, strlen(u->bucket));
		if (*u->path)
			buf_u8(out, '/');
		url_encode(out, u->path, strlen(u->path), "/");
	} else {
		/* It is encoded already. */
		buf_put(out, u->path, strlen(u->path));
	}
	if (!out->err)
		put_options(u, out);
	return out->err;
}

static int parse_net(struct node_url *u, const char *url, const struct net_text *t,
		     struct buf *canon)
{
	const char *auth = url + strlen(t->scheme);
	size_t auth_len = strcspn(auth, "/?#");
	const char *path = auth + auth_len;
	size_t path_len = strcspn(path, "?#");
	const char *q = path + path_len;
	struct buf parts = {0};

	if (*q == '#' || strchr(q, '#'))
		return log_fail(-EINVAL,
				"node %s: \"#\" has no meaning here; in a name it is %%23",
				t->shown);
	int err = take_host(u, t, auth, auth_len);
	if (!err)
		err = take_path(t, path, path_len, &parts);
	if (!err)
		err = take_place(u, t, &parts);
	buf_release(&parts);
	if (!err && *q)
		err = take_options(u, t, q + 1);
	if (err)
		return err;
	if (!u->tls && !u->insecure && !loopback(u->host))
		return log_fail(-EINVAL,
				"node %s: over plain http anybody on the way reads the "
				"credentials and can change answers: use %shttps://, or add "
				"?insecure=1 if you mean it",
				t->shown, t->s3 ? "s3+" : "dav+");
	struct in_addr a4;
	if (u->virtual_host && (*u->host == '[' || inet_pton(AF_INET, u->host, &a4) == 1))
		return log_fail(-EINVAL, "node %s: style=virtual needs a host with a name",
				t->shown);
	return put_canon(u, t, canon);
}

/* Whether a user or a password stands in the address, in any of the ways that are tried. */
static bool holds_secret(const char *url)
{
	const char *auth = strstr(url, "//");

	auth = auth ? auth + 2 : url;
	return memchr(auth, '@', strcspn(auth, "/?#")) != NULL;
}

int url_parse(struct node_url *out, const char *text)
{
	static const struct net_text schemes[] = {
		{NULL, "s3+https://", true},
		{NULL, "s3+http://", true},
		{NULL, "dav+https://", false},
		{NULL, "dav+http://", false},
	};
	size_t len = strlen(text);
	struct buf canon = {0};
	int err = -EAGAIN;

	*out = (struct node_url){0};
	if (strncmp(text, "dir:", 4) && holds_secret(text))
		return log_fail(
			-EINVAL,
			"a node's address must not hold a user or a password: it is "
			"printed and stored; put them into a credentials file and name the "
			"section with ?profile=NAME");
	if (len >= NODE_URL_CAP)
		return log_fail(-EINVAL, "node address of %zu bytes: %d is the limit", len,
				NODE_URL_CAP - 1);
	char *shown = strdup(text);
	if (!shown)
		return -ENOMEM;
	/* Options may hold a secret that somebody put there: only paths are repeated. */
	if (strncmp(text, "dir:", 4))
		shown[strcspn(shown, "?#")] = 0;
	for (const char *c = text; *c && err == -EAGAIN; c++)
		if ((unsigned char)*c < 0x20 || *c == 0x7f)
			err = log_fail(-EINVAL, "node address \"%s\" holds a control character",
				       shown);
	if (err == -EAGAIN && !utf8(text))
		err = log_fail(-EINVAL, "node address \"%s\" is not UTF-8", shown);
	if (err == -EAGAIN && !strncmp(text, "dir:", 4))
		err = parse_dir(out, text, &canon);
	for (size_t i = 0; i < sizeof schemes / sizeof *schemes && err == -EAGAIN; i++) {
		struct net_text t = schemes[i];

		if (strncmp(text, t.scheme, strlen(t.scheme)) != 0)
			continue;
		t.shown = shown;
		out->kind = t.s3 ? URL_S3 : URL_DAV;
		out->tls = strstr(t.scheme, "https") != NULL;
		err = parse_net(out, text, &t, &canon);
	}
	if (err == -EAGAIN)
		err = log_fail(-EINVAL,
			       "node %s: unknown kind of node; an address looks like "
			       "dir:/absolute/path, s3+https://host/bucket or "
			       "dav+https://host/path",
			       shown);
	if (!err && canon.len >= NODE_URL_CAP)
		err = log_fail(-EINVAL,
			       "node address of %zu bytes with its escapes: %d is the "
			       "limit",
			       canon.len, NODE_URL_CAP - 1);
	if (!err) {
		out->text = strndup((char *)canon.p, canon.len);
		err = out->text ? 0 : -ENOMEM;
	}
	buf_release(&canon);
	free(shown);
	if (err)
		url_release(out);
	return err;
}

void url_release(struct node_url *u)
{
	free(u->text);
	free(u->path);
	free(u->domain);
	free(u->host);
	free(u->bucket);
	free(u->region);
	free(u->profile);
	free(u->ca);
	free(u->storage_class);
	*u = (struct node_url){0};
}
