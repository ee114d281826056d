/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "net/digest.h"

#include <openssl/evp.h>
#include <sodium.h>

#define HEX_CAP (2 * EVP_MAX_MD_SIZE + 1)

/* --- the challenge --- */

struct text {
	const char *p, *end;
};

static void skip(struct text *t, const char *chars)
{
	while (t->p < t->end && strchr(chars, *t->p) && *t->p)
		t->p++;
}

/* A token of RFC 9110. */
static size_t token(const struct text *t)
{
	size_t n = 0;

	while (t->p + n < t->end && t->p[n] > 0x20 && t->p[n] < 0x7f &&
	       !strchr("()<>@,;:\\\"/[]?={}", t->p[n]))
		n++;
	return n;
}

static bool is(const char *p, size_t len, const char *word)
{
	return len == strlen(word) && strncasecmp(p, word, len) == 0;
}

/* A value, quoted or not, into out: its length, or -EINVAL. */
static int value(struct text *t, char *out)
{
	size_t n = 0;

	if (t->p < t->end && *t->p == '"') {
		for (t->p++; t->p < t->end && *t->p != '"'; t->p++) {
			if (*t->p == '\\' && ++t->p == t->end)
				return -EINVAL;
			if (n + 1 >= DIGEST_VALUE_CAP || (unsigned char)*t->p < 0x20)
				return -EINVAL;
			out[n++] = *t->p;
		}
		if (t->p == t->end)
			return -EINVAL;
		t->p++;
	} else {
		size_t len = token(t);

		/* Some leave the quotes of what is base64 away. */
		while (t->p + len < t->end && strchr("=/", t->p[len]) && t->p[len])
			len++;
		if (!len || len >= DIGEST_VALUE_CAP)
			return -EINVAL;
		memcpy(out, t->p, len);
		n = len;
		t->p += len;
	}
	out[n] = 0;
	return (int)n;
}

/* "auth" among the words of a qop value. */
static bool offers_auth(const char *list)
{
	while (*list) {
		size_t n = strcspn(list, ", \t");

		if (is(list, n, "auth"))
			return true;
		list += n;
		list += strspn(list, ", \t");
	}
	return false;
}

/* One name=value of the challenge. */
static int parameter(struct digest *d, const char *name, size_t len, const char *v, bool *bad)
{
	if (is(name, len, "realm"))
		strcpy(d->realm, v);
	else if (is(name, len, "nonce"))
		strcpy(d->nonce, v);
	else if (is(name, len, "opaque")) {
		strcpy(d->opaque, v);
		d->has_opaque = true;
	} else if (is(name, len, "stale"))
		d->stale = strcasecmp(v, "true") == 0;
	else if (is(name, len, "algorithm")) {
		d->sha256 = strcasecmp(v, "SHA-256") == 0;
		*bad |= !d->sha256 && strcasecmp(v, "MD5") != 0;
	} else if (is(name, len, "qop")) {
		d->qop = offers_auth(v);
		*bad |= !d->qop;
	}
	return 0;
}

int digest_challenge(struct digest *d, const char *v, size_t len)
{
	struct text t = {v, v + len};
	char val[DIGEST_VALUE_CAP];
	bool ours = false, bad = false;

	*d = (struct digest){0};
	while (t.p < t.end) {
		skip(&t, ", \t");
		size_t n = token(&t);
		const char *name = t.p;

		if (!n && t.p < t.end)
			return -EINVAL;
		if (!n)
			break;
		t.p += n;
		skip(&t, " \t");
		if (t.p < t.end && *t.p == '=') {
			t.p++;
			skip(&t, " \t");
			if (value(&t, val) < 0)
				return -EINVAL;
			if (ours)
				parameter(d, name, n, val, &bad);
			continue;
		}
		/* The name of a scheme: the one before is complete. */
		if (ours)
			break;
		ours = is(name, n, "Digest");
	}
	if (!ours)
		return -ENOENT;
	return bad || !d->nonce[0] ? -EINVAL : 0;
}

/* --- the answer --- */

static int hex_of(const struct digest *d, const char *text, char out[HEX_CAP])
{
	uint8_t h[EVP_MAX_MD_SIZE];
	unsigned len = 0;

	if (!EVP_Digest(text, strlen(text), h, &len, d->sha256 ? EVP_sha256() : EVP_md5(), NULL))
		return -EINVAL;
	sodium_bin2hex(out, HEX_CAP, h, len);
	return 0;
}

static bool quotable(const char *s)
{
	for (; *s; s++)
		if ((unsigned char)*s < 0x20 || *s == 0x7f || *s == '"' || *s == '\\')
			return false;
	return true;
}

int digest_answer(struct digest *d, const char *user, const char *password, const char *method,
		  const char *uri, const char *cnonce, char out[DIGEST_CAP])
{
	char a1[HEX_CAP], a2[HEX_CAP], proof[HEX_CAP], nc[16];
	char *text = NULL;
	int err = 0;

	if (!quotable(user) || !quotable(d->realm) || !quotable(d->nonce) ||
	    !quotable(d->opaque) || !quotable(uri))
		return -EINVAL;
	snprintf(nc, sizeof nc, "%08x", ++d->nc);
	int len = asprintf(&text, "%s:%s:%s", user, d->realm, password);
	if (len < 0)
		return -ENOMEM;
	err = hex_of(d, text, a1);
	sodium_memzero(text, (size_t)len);
	free(text);
	if (!err && asprintf(&text, "%s:%s", method, uri) < 0)
		err = -ENOMEM;
	if (!err) {
		err = hex_of(d, text, a2);
		free(text);
	}
	if (!err && (d->qop ? asprintf(&text, "%s:%s:%s:%s:auth:%s", a1, d->nonce, nc, cnonce, a2)
			    : asprintf(&text, "%s:%s:%s", a1, d->nonce, a2)) < 0)
		err = -ENOMEM;
	if (!err) {
		err = hex_of(d, text, proof);
		sodium_memzero(text, strlen(text));
		free(text);
	}
	sodium_memzero(a1, sizeof a1);
	if (err)
		return err;
	len = snprintf(out, DIGEST_CAP,
		       "Digest username=\"%s\", realm=\"%s\", nonce=\"%s\", uri=\"%s\", "
		       "algorithm=%s, response=\"%s\"%s%s%s",
		       user, d->realm, d->nonce, uri, d->sha256 ? "SHA-256" : "MD5", proof,
		       d->has_opaque ? ", opaque=\"" : "", d->has_opaque ? d->opaque : "",
		       d->has_opaque ? "\"" : "");
	if (len >= DIGEST_CAP)
		return -EINVAL;
	if (d->qop) {
		size_t left = DIGEST_CAP - (size_t)len;

		if ((size_t)snprintf(out + len, left, ", qop=auth, nc=%s, cnonce=\"%s\"", nc,
				     cnonce) >= left)
			return -EINVAL;
	}
	return 0;
}
