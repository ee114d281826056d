/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "net/sigv4.h"

#include <sodium.h>
#include <time.h>

#define SHA crypto_hash_sha256_BYTES

void sigv4_date(int64_t time_s, char out[17])
{
	time_t t = (time_t)time_s;
	struct tm tm;

	gmtime_r(&t, &tm);
	strftime(out, 17, "%Y%m%dT%H%M%SZ", &tm);
}

void sigv4_hash_hex(const void *p, size_t len, char out[SIGV4_HEX])
{
	uint8_t h[SHA];

	crypto_hash_sha256(h, p, len);
	sodium_bin2hex(out, SIGV4_HEX, h, sizeof h);
}

static void text(struct buf *out, const char *s)
{
	buf_put(out, s, strlen(s));
}

static void hmac(const uint8_t *key, size_t key_len, const void *p, size_t len,
		 uint8_t out[SHA])
{
	crypto_auth_hmacsha256_state st;

	crypto_auth_hmacsha256_init(&st, key, key_len);
	crypto_auth_hmacsha256_update(&st, p, len);
	crypto_auth_hmacsha256_final(&st, out);
	sodium_memzero(&st, sizeof st);
}

static void put_names(const struct sigv4 *s, struct buf *out)
{
	for (size_t i = 0; i < s->header_cnt; i++) {
		text(out, i ? ";" : "");
		text(out, s->header[i][0]);
	}
}

static void canonical(const struct sigv4 *s, struct buf *out)
{
	text(out, s->method);
	text(out, "\n");
	text(out, s->path);
	text(out, "\n");
	text(out, s->query);
	text(out, "\n");
	for (size_t i = 0; i < s->header_cnt; i++) {
		text(out, s->header[i][0]);
		text(out, ":");
		text(out, s->header[i][1]);
		text(out, "\n");
	}
	text(out, "\n");
	put_names(s, out);
	text(out, "\n");
	text(out, s->payload);
}

/* "AWS4" secret -> date -> region -> service -> "aws4_request" */
static int signing_key(const struct sigv4 *s, const char *date, uint8_t key[SHA])
{
	size_t len = strlen(s->secret_key) + 4;
	char *first = sodium_malloc(len + 1);

	if (!first)
		return -ENOMEM;
	memcpy(first, "AWS4", 4);
	memcpy(first + 4, s->secret_key, len - 3);
	hmac((uint8_t *)first, len, date, 8, key);
	sodium_free(first);
	hmac(key, SHA, s->region, strlen(s->region), key);
	hmac(key, SHA, s->service, strlen(s->service), key);
	hmac(key, SHA, "aws4_request", 12, key);
	return 0;
}

int sigv4_sign(const struct sigv4 *s, struct buf *out)
{
	struct buf canon = {0}, scope = {0}, sts = {0};
	char date[17], hex[SIGV4_HEX];
	uint8_t key[SHA], sig[SHA];

	sigv4_date(s->time_s, date);
	buf_put(&scope, date, 8);
	text(&scope, "/");
	text(&scope, s->region);
	text(&scope, "/");
	text(&scope, s->service);
	text(&scope, "/aws4_request");
	canonical(s, &canon);
	int err = canon.err ? canon.err : scope.err;
	if (!err) {
		sigv4_hash_hex(canon.p, canon.len, hex);
		text(&sts, "AWS4-HMAC-SHA256\n");
		text(&sts, date);
		text(&sts, "\n");
		buf_put(&sts, scope.p, scope.len);
		text(&sts, "\n");
		text(&sts, hex);
		err = sts.err ? sts.err : signing_key(s, date, key);
	}
	if (!err) {
		hmac(key, sizeof key, sts.p, sts.len, sig);
		sodium_bin2hex(hex, sizeof hex, sig, sizeof sig);
		text(out, "AWS4-HMAC-SHA256 Credential=");
		text(out, s->access_key);
		text(out, "/");
		buf_put(out, scope.p, scope.len);
		text(out, ",SignedHeaders=");
		put_names(s, out);
		text(out, ",Signature=");
		text(out, hex);
		err = out->err;
	}
	sodium_memzero(key, sizeof key);
	buf_release(&canon);
	buf_release(&scope);
	buf_release(&sts);
	return err;
}
