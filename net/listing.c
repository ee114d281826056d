/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "net/listing.h"

#include <expat.h>
#include <stdlib.h>
#include "net/url.h"

#define NS_SEP	'\n'
#define SAY_CAP 256

enum want {
	W_NONE,
	W_KEY,
	W_TRUNCATED,
	W_TOKEN,
	W_CODE,
	W_MESSAGE,
	W_REGION,
	W_HREF,
	W_SIZE,
	W_USED,
	W_AVAILABLE,
	W_STATUS,
};

struct listing {
	enum listing_kind kind;
	XML_Parser xml;
	int (*entry)(void *arg, const struct listing_entry *e);
	void *arg;
	unsigned depth;
	size_t total;
	int err;
	char why[SAY_CAP], root[64];
	/* The text that is being read, and for what. */
	enum want want;
	unsigned want_depth;
	char text[LISTING_TEXT_CAP];
	size_t text_len;
	/* The entry that is being read, begun at entry_depth (0: none). */
	unsigned entry_depth;
	struct listing_entry e;
	char name[LISTING_TEXT_CAP];
	bool have_name;
	bool truncated;
	char token[LISTING_TEXT_CAP], code[128], message[SAY_CAP], region[64];
};

static void stop(struct listing *l, int err, const char *why)
{
	if (l->err)
		return;
	l->err = err;
	snprintf(l->why, sizeof l->why, "%s", why);
	XML_StopParser(l->xml, XML_FALSE);
}

/* The name without its namespace; of WebDAV only names in "DAV:". */
static const char *local(const struct listing *l, const char *name)
{
	const char *sep = strrchr(name, NS_SEP);

	if (l->kind == LISTING_DAV && (!sep || strncmp(name, "DAV:\n", 5) != 0))
		return "";
	return sep ? sep + 1 : name;
}

static void want(struct listing *l, enum want w)
{
	l->want = w;
	l->want_depth = l->depth;
	l->text_len = 0;
}

static void begin_entry(struct listing *l)
{
	l->entry_depth = l->depth;
	l->have_name = false;
	l->e = (struct listing_entry){.name = l->name,
				      .size = UINT64_MAX,
				      .quota_used = UINT64_MAX,
				      .quota_available = UINT64_MAX};
}

static void s3_open(struct listing *l, const char *n)
{
	bool error = !strcmp(l->root, "Error"), result = !strcmp(l->root, "ListBucketResult");

	if (result && l->depth == 2) {
		if (!strcmp(n, "Contents"))
			begin_entry(l);
		else if (!strcmp(n, "IsTruncated"))
			want(l, W_TRUNCATED);
		else if (!strcmp(n, "NextContinuationToken"))
			want(l, W_TOKEN);
	} else if (result && l->depth == 3 && l->entry_depth) {
		if (!strcmp(n, "Key"))
			want(l, W_KEY);
		else if (!strcmp(n, "Size"))
			want(l, W_SIZE);
	} else if (error && l->depth == 2) {
		if (!strcmp(n, "Code"))
			want(l, W_CODE);
		else if (!strcmp(n, "Message"))
			want(l, W_MESSAGE);
		else if (!strcmp(n, "Region"))
			want(l, W_REGION);
	}
}

static void dav_open(struct listing *l, const char *n)
{
	if (l->depth == 2 && !strcmp(n, "response")) {
		begin_entry(l);
	} else if (!l->entry_depth) {
		return;
	} else if (l->depth == 3 && !strcmp(n, "href")) {
		want(l, W_HREF);
	} else if (l->depth == 3 && !strcmp(n, "status")) {
		want(l, W_STATUS);
	} else if (l->depth == 6 && !strcmp(n, "collection")) {
		l->e.collection = true;
	} else if (l->depth == 5) {
		if (!strcmp(n, "getcontentlength"))
			want(l, W_SIZE);
		else if (!strcmp(n, "quota-used-bytes"))
			want(l, W_USED);
		else if (!strcmp(n, "quota-available-bytes"))
			want(l, W_AVAILABLE);
	}
}

static void XMLCALL on_open(void *arg, const char *name, const char **attrs)
{
	struct listing *l = arg;
	const char *n = local(l, name);

	(void)attrs;
	if (l->err)
		return;
	if (++l->depth > LISTING_DEPTH) {
		stop(l, -EBADMSG, "nested too deep");
		return;
	}
	if (l->depth == 1)
		snprintf(l->root, sizeof l->root, "%s", n);
	if (l->depth == 1 && l->kind == LISTING_DAV && strcmp(n, "multistatus") != 0)
		stop(l, -EBADMSG, "not a multistatus");
	else if (l->kind == LISTING_S3)
		s3_open(l, n);
	else
		dav_open(l, n);
}

static void XMLCALL on_text(void *arg, const char *s, int len)
{
	struct listing *l = arg;

	if (l->err || l->want == W_NONE || l->depth != l->want_depth)
		return;
	if ((size_t)len >= sizeof l->text - l->text_len) {
		stop(l, -EBADMSG, "a text in it is too long");
		return;
	}
	memcpy(l->text + l->text_len, s, (size_t)len);
	l->text_len += (size_t)len;
}

static uint64_t number(const char *s)
{
	uint64_t v = 0;

	for (; *s == ' ' || *s == '\n' || *s == '\t' || *s == '\r'; s++)
		;
	if (!*s)
		return UINT64_MAX;
	for (; *s >= '0' && *s <= '9'; s++) {
		if (v > UINT64_MAX / 16)
			return UINT64_MAX;
		v = v * 10 + (uint64_t)(*s - '0');
	}
	for (; *s == ' ' || *s == '\n' || *s == '\t' || *s == '\r'; s++)
		;
	/* Negative: "not known" and "no limit" (RFC 4331 and its users). */
	return *s ? UINT64_MAX : v;
}

static void take(struct listing *l)
{
	const char *s = l->text;

	l->text[l->text_len] = 0;
	switch (l->want) {
	case W_KEY:
	case W_HREF:
		snprintf(l->name, sizeof l->name, "%s", s);
		l->have_name = true;
		break;
	case W_TRUNCATED:
		l->truncated = !strcmp(s, "true");
		break;
	case W_TOKEN:
		snprintf(l->token, sizeof l->token, "%s", s);
		break;
	case W_CODE:
		snprintf(l->code, sizeof l->code, "%.100s", s);
		break;
	case W_MESSAGE:
		snprintf(l->message, sizeof l->message, "%.200s", s);
		break;
	case W_REGION:
		snprintf(l->region, sizeof l->region, "%.60s", s);
		break;
	case W_SIZE:
		l->e.size = number(s);
		break;
	case W_USED:
		l->e.quota_used = number(s);
		break;
	case W_AVAILABLE:
		l->e.quota_available = number(s);
		break;
	case W_STATUS: {
		/* "HTTP/1.1 404 Not Found" */
		const char *sp = strchr(s, ' ');
		l->e.status = sp ? (unsigned)strtoul(sp + 1, NULL, 10) % 1000 : 0;
		break;
	}
	default:
		break;
	}
	l->want = W_NONE;
}

static void end_entry(struct listing *l)
{
	size_t len;

	l->entry_depth = 0;
	if (!l->have_name) {
		stop(l, -EBADMSG, "an entry without a name");
		return;
	}
	/* It was asked to encode them (encoding-type=url), and then there is no other "%". */
	if (l->kind == LISTING_S3 && memchr(l->name, '%', strlen(l->name))) {
		if (url_decode(l->name, strlen(l->name), l->text, &len)) {
			stop(l, -EBADMSG, "a key that is badly encoded");
			return;
		}
		memcpy(l->name, l->text, len);
		l->name[len] = 0;
	}
	int err = l->entry ? l->entry(l->arg, &l->e) : 0;
	if (err)
		stop(l, err, "out of memory");
}

static void XMLCALL on_close(void *arg, const char *name)
{
	struct listing *l = arg;

	(void)name;
	if (l->err)
		return;
	if (l->want != W_NONE && l->depth == l->want_depth)
		take(l);
	if (l->entry_depth && l->depth == l->entry_depth)
		end_entry(l);
	l->depth--;
}

static void XMLCALL on_doctype(void *arg, const char *name, const char *sysid,
			       const char *pubid, int internal)
{
	(void)name;
	(void)sysid;
	(void)pubid;
	(void)internal;
	stop(arg, -EBADMSG, "it has a DOCTYPE, which is refused");
}

static void set_up(struct listing *l)
{
	XML_SetUserData(l->xml, l);
	XML_SetElementHandler(l->xml, on_open, on_close);
	XML_SetCharacterDataHandler(l->xml, on_text);
	XML_SetStartDoctypeDeclHandler(l->xml, on_doctype);
}

int listing_reset(struct listing *l)
{
	if (!XML_ParserReset(l->xml, NULL))
		return -ENOMEM;
	set_up(l);
	l->depth = 0;
	l->err = 0;
	l->total = l->text_len = 0;
	l->want = W_NONE;
	l->entry_depth = 0;
	l->truncated = false;
	l->why[0] = l->root[0] = l->token[0] = l->code[0] = l->message[0] = l->region[0] = 0;
	return 0;
}

int listing_new(struct listing **out, enum listing_kind kind,
		int (*entry)(void *arg, const struct listing_entry *e), void *arg)
{
	struct listing *l = calloc(1, sizeof *l);

	*out = NULL;
	if (!l)
		return -ENOMEM;
	l->xml = XML_ParserCreateNS(NULL, NS_SEP);
	if (!l->xml) {
		free(l);
		return -ENOMEM;
	}
	l->kind = kind;
	l->entry = entry;
	l->arg = arg;
	set_up(l);
	*out = l;
	return 0;
}

void listing_free(struct listing *l)
{
	if (!l)
		return;
	XML_ParserFree(l->xml);
	free(l);
}

static int parse(struct listing *l, const uint8_t *p, size_t len, bool last)
{
	if (l->err)
		return l->err;
	l->total += len;
	if (l->total > LISTING_CAP)
		stop(l, -EBADMSG, "longer than a listing may be");
	if (!l->err && XML_Parse(l->xml, (const char *)p, (int)len, last) != XML_STATUS_OK &&
	    !l->err) {
		enum XML_Error e = XML_GetErrorCode(l->xml);

		l->err = e == XML_ERROR_NO_MEMORY ? -ENOMEM : -EBADMSG;
		snprintf(l->why, sizeof l->why, "%s", XML_ErrorString(e));
	}
	return l->err;
}

int listing_feed(struct listing *l, const uint8_t *p, size_t len)
{
	int err = 0;

	/* Its lengths are ints. */
	for (size_t at = 0; at < len && !err; at += 1u << 20)
		err = parse(l, p + at, HF_MIN(len - at, (size_t)1 << 20), false);
	return err;
}

int listing_end(struct listing *l)
{
	return parse(l, (const uint8_t *)"", 0, true);
}

const char *listing_why(const struct listing *l)
{
	return l->why;
}

const char *listing_root(const struct listing *l)
{
	return l->root;
}

bool listing_truncated(const struct listing *l)
{
	return l->truncated;
}

const char *listing_token(const struct listing *l)
{
	return l->token;
}

const char *listing_error_code(const struct listing *l)
{
	return l->code;
}

const char *listing_error_text(const struct listing *l)
{
	return l->message;
}

const char *listing_error_region(const struct listing *l)
{
	return l->region;
}

static int put_part(const char *s, size_t len, char *out, size_t cap)
{
	char dec[LISTING_TEXT_CAP];
	size_t n;

	if (!len || len >= sizeof dec || url_decode(s, len, dec, &n) || n >= cap)
		return -EINVAL;
	memcpy(out, dec, n);
	out[n] = 0;
	return 0;
}

int listing_href(const char *href, char *dir, char *leaf, size_t cap, bool *slash)
{
	const char *path = strstr(href, "://");

	/* An absolute address: what is behind its host. */
	if (path && strcspn(href, "/?#") == (size_t)(path - href) + 1)
		path = strchr(path + 3, '/');
	else
		path = href;
	if (!path)
		return -EINVAL;
	size_t len = strcspn(path, "?#");
	*slash = len && path[len - 1] == '/';
	while (len && path[len - 1] == '/')
		len--;
	size_t at = len;
	while (at && path[at - 1] != '/')
		at--;
	if (put_part(path + at, len - at, leaf, cap))
		return -EINVAL;
	while (at && path[at - 1] == '/')
		at--;
	len = at;
	while (at && path[at - 1] != '/')
		at--;
	return put_part(path + at, len - at, dir, cap);
}
