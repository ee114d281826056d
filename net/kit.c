/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * A line of a kit is 25 bytes in eight groups of five base32 characters:
 *     number u16 (bit 15: the last line) | 20 bytes of the kit | check3
 * so that a typing error names its line, and a lost or doubled line is noticed.  All lines
 * are full: a reader needs no line breaks, it counts characters.
 */
#include "net/kit.h"

#include <ctype.h>
#include <sodium.h>
#include <stdlib.h>
#include <time.h>

#define KIT_MAGIC	"HFKIT001"
#define KIT_VERSION	1
#define KIT_SEALED	1u /* flags: the secret is sealed under a passphrase */
#define KIT_CREDENTIALS 2u
#define KIT_SUM_LEN	8
#define LINE_DATA	20
#define LINE_LEN	(2 + LINE_DATA + 3)
#define LINE_CHARS	40
#define LINE_LAST	0x8000u
#define LINES_MAX	0x7fffu
#define NONCE_LEN	crypto_aead_xchacha20poly1305_ietf_NPUBBYTES
#define TAG_LEN		crypto_aead_xchacha20poly1305_ietf_ABYTES

int kit_new(struct kit **out)
{
	*out = NULL;
	struct kit *k = calloc(1, sizeof *k);
	if (!k)
		return -ENOMEM;
	k->secret = sodium_malloc(KEY_LEN);
	if (!k->secret) {
		free(k);
		return -ENOMEM;
	}
	randombytes_buf(k->secret, KEY_LEN);
	randombytes_buf(k->vol, VOL_LEN);
	struct owner *o;
	int err = owner_new(&o, k->secret);
	if (err) {
		kit_free(k);
		return err;
	}
	memcpy(k->owner_ed_pk, o->ed_pk, 32);
	owner_free(o);
	*out = k;
	return 0;
}

/* Buffers that held secrets. */
static void wipe(struct buf *b)
{
	if (b->p)
		sodium_memzero(b->p, b->cap);
	buf_release(b);
}

void kit_free(struct kit *k)
{
	if (!k)
		return;
	sodium_free(k->secret);
	buf_release(&k->sealed_secret);
	buf_release(&k->sealed_credentials);
	wipe(&k->credentials);
	for (size_t i = 0; i < k->node_cnt; i++)
		free((void *)(uintptr_t)k->node[i].url);
	free(k->node);
	free(k->floor);
	free(k);
}

/* --- credentials under the kit's secret --- */

static void credential_keys(const uint8_t secret[KEY_LEN], uint8_t seal[KEY_LEN],
			    uint8_t nonce[KEY_LEN])
{
	crypto_kdf_derive_from_key(seal, KEY_LEN, 1, "kitcreds", secret);
	crypto_kdf_derive_from_key(nonce, KEY_LEN, 1, "kitnonce", secret);
}

/* The nonce is a MAC of the text: the same kit prints the same, and none repeats. */
static int credentials_seal(const struct kit *k, struct buf *out)
{
	uint8_t seal[KEY_LEN], mac_key[KEY_LEN];

	uint8_t *to = buf_room(out, k->credentials.len + NONCE_LEN + TAG_LEN);
	if (!to)
		return out->err;
	credential_keys(k->secret, seal, mac_key);
	crypto_generichash(to, NONCE_LEN, k->credentials.p, k->credentials.len, mac_key,
			   KEY_LEN);
	crypto_aead_xchacha20poly1305_ietf_encrypt(to + NONCE_LEN, NULL, k->credentials.p,
						   k->credentials.len, k->vol, VOL_LEN, NULL,
						   to, seal);
	out->len += k->credentials.len + NONCE_LEN + TAG_LEN;
	sodium_memzero(seal, sizeof seal);
	sodium_memzero(mac_key, sizeof mac_key);
	return 0;
}

static int credentials_open(struct kit *k)
{
	uint8_t seal[KEY_LEN], mac_key[KEY_LEN];
	const struct buf *in = &k->sealed_credentials;
	int err = 0;

	if (!in->len)
		return 0;
	if (in->len < NONCE_LEN + TAG_LEN)
		return -EBADMSG;
	uint8_t *to = buf_room(&k->credentials, in->len - NONCE_LEN - TAG_LEN);
	if (!to)
		return k->credentials.err;
	credential_keys(k->secret, seal, mac_key);
	if (crypto_aead_xchacha20poly1305_ietf_decrypt(to, NULL, NULL, in->p + NONCE_LEN,
						       in->len - NONCE_LEN, k->vol, VOL_LEN,
						       in->p, seal))
		err = -EBADMSG;
	else
		k->credentials.len = in->len - NONCE_LEN - TAG_LEN;
	sodium_memzero(seal, sizeof seal);
	sodium_memzero(mac_key, sizeof mac_key);
	return err;
}

/* --- the bytes --- */

static int put_secret(const struct kit *k, const char *pass, struct buf *out)
{
	struct buf sealed = {0};

	if (k->secret && !pass) {
		buf_put(out, k->secret, KEY_LEN);
		return out->err;
	}
	int err = 0;
	if (k->secret)
		err = pass_seal(pass, k->secret, KEY_LEN, &sealed);
	else
		buf_put(&sealed, k->sealed_secret.p, k->sealed_secret.len);
	if (!err)
		err = sealed.err;
	if (!err && sealed.len > UINT16_MAX)
		err = -EINVAL;
	if (!err) {
		buf_u16(out, (uint16_t)sealed.len);
		buf_put(out, sealed.p, sealed.len);
		buf_put(out, k->owner_ed_pk, 32);
		err = out->err;
	}
	buf_release(&sealed);
	return err;
}

static int put_credentials(const struct kit *k, struct buf *out)
{
	struct buf sealed = {0};
	int err = 0;

	if (k->secret && k->credentials.len)
		err = credentials_seal(k, &sealed);
	else if (!k->secret)
		buf_put(&sealed, k->sealed_credentials.p, k->sealed_credentials.len);
	if (!err)
		err = sealed.err;
	if (!err && sealed.len > LINES_MAX * (size_t)LINE_DATA)
		err = -EFBIG;
	if (!err && sealed.len) {
		buf_u32(out, (uint32_t)sealed.len);
		buf_put(out, sealed.p, sealed.len);
	}
	buf_release(&sealed);
	return err ? err : out->err;
}

int kit_encode(const struct kit *k, const char *pass, struct buf *out)
{
	if (!k->secret && (!k->sealed_secret.len || pass))
		return -EINVAL;
	if (k->node_cnt > UINT16_MAX || k->floor_cnt > HIST_DEVICES_MAX)
		return -EINVAL;
	bool has_credentials = k->secret ? k->credentials.len : k->sealed_credentials.len;
	buf_reset(out);
	buf_put(out, KIT_MAGIC, 8);
	buf_u8(out, KIT_VERSION);
	buf_u8(out, (uint8_t)((!k->secret || pass ? KIT_SEALED : 0) |
			      (has_credentials ? KIT_CREDENTIALS : 0)));
	buf_put(out, k->vol, VOL_LEN);
	int err = put_secret(k, pass, out);
	if (err)
		return err;
	buf_u8(out, k->k);
	buf_u8(out, k->m);
	buf_u16(out, (uint16_t)k->node_cnt);
	for (size_t i = 0; i < k->node_cnt; i++) {
		buf_u16(out, k->node[i].number);
		buf_u16(out, k->node[i].url_len);
		buf_put(out, k->node[i].url, k->node[i].url_len);
	}
	err = put_credentials(k, out);
	if (err)
		return err;
	buf_u16(out, (uint16_t)k->floor_cnt);
	for (size_t i = 0; i < k->floor_cnt; i++) {
		buf_u16(out, k->floor[i].device);
		buf_u64(out, k->floor[i].seq);
		buf_put(out, k->floor[i].hash, HASH_LEN);
	}
	return out->err;
}

static int get_secret(struct rd *r, struct kit *k, bool sealed)
{
	struct owner *o;

	if (sealed) {
		uint16_t len = rd_u16(r);
		const uint8_t *p = rd_bytes(r, len);
		const uint8_t *pk = rd_bytes(r, 32);
		if (r->bad || !len)
			return -EBADMSG;
		buf_put(&k->sealed_secret, p, len);
		memcpy(k->owner_ed_pk, pk, 32);
		return k->sealed_secret.err;
	}
	const uint8_t *p = rd_bytes(r, KEY_LEN);
	if (!p)
		return -EBADMSG;
	k->secret = sodium_malloc(KEY_LEN);
	if (!k->secret)
		return -ENOMEM;
	memcpy(k->secret, p, KEY_LEN);
	int err = owner_new(&o, k->secret);
	if (err)
		return err;
	memcpy(k->owner_ed_pk, o->ed_pk, 32);
	owner_free(o);
	return 0;
}

static int get_nodes(struct rd *r, struct kit *k)
{
	uint16_t cnt = rd_u16(r);

	if (r->bad || cnt > rd_left(r) / 4)
		return -EBADMSG;
	k->node = calloc(HF_MAX(cnt, 1), sizeof *k->node);
	if (!k->node)
		return -ENOMEM;
	for (; k->node_cnt < cnt; k->node_cnt++) {
		struct rec_node *n = &k->node[k->node_cnt];
		n->member = 1;
		n->number = rd_u16(r);
		n->url_len = rd_u16(r);
		const uint8_t *url = rd_bytes(r, n->url_len);
		if (r->bad || n->number == NODE_NONE || n->url_len < 1 ||
		    n->url_len >= NODE_URL_CAP || memchr(url, 0, n->url_len))
			return -EBADMSG;
		for (size_t i = 0; i < k->node_cnt; i++)
			if (k->node[i].number == n->number)
				return -EBADMSG;
		n->url = (const uint8_t *)strndup((const char *)url, n->url_len);
		if (!n->url)
			return -ENOMEM;
	}
	return 0;
}

static int get_floor(struct rd *r, struct kit *k)
{
	uint16_t cnt = rd_u16(r);

	if (r->bad || cnt > HIST_DEVICES_MAX || rd_left(r) != (size_t)cnt * (10 + HASH_LEN))
		return -EBADMSG;
	k->floor = calloc(HF_MAX(cnt, 1), sizeof *k->floor);
	if (!k->floor)
		return -ENOMEM;
	for (; k->floor_cnt < cnt; k->floor_cnt++) {
		struct hist_seen *s = &k->floor[k->floor_cnt];
		s->device = rd_u16(r);
		s->seq = rd_u64(r);
		memcpy(s->hash, rd_bytes(r, HASH_LEN), HASH_LEN);
		if (!s->device)
			return -EBADMSG;
	}
	return 0;
}

static int decode(struct rd *r, struct kit *k)
{
	const uint8_t *magic = rd_bytes(r, 8);
	uint8_t version = rd_u8(r), flags = rd_u8(r);
	const uint8_t *vol = rd_bytes(r, VOL_LEN);

	if (r->bad || memcmp(magic, KIT_MAGIC, 8) != 0 || version < 1)
		return -EBADMSG;
	if (version > KIT_VERSION)
		return -ENOTSUP;
	if (flags & ~(KIT_SEALED | KIT_CREDENTIALS))
		return -EBADMSG;
	memcpy(k->vol, vol, VOL_LEN);
	int err = get_secret(r, k, flags & KIT_SEALED);
	if (err)
		return err;
	k->k = rd_u8(r);
	k->m = rd_u8(r);
	if (r->bad || k->k < 1 || k->k + k->m > EC_MAX)
		return -EBADMSG;
	err = get_nodes(r, k);
	if (err)
		return err;
	if (flags & KIT_CREDENTIALS) {
		uint32_t len = rd_u32(r);
		const uint8_t *p = rd_bytes(r, len);
		if (r->bad || len <= NONCE_LEN + TAG_LEN)
			return -EBADMSG;
		buf_put(&k->sealed_credentials, p, len);
		err = k->sealed_credentials.err;
		if (!err && k->secret)
			err = credentials_open(k);
		if (err)
			return err;
	}
	return get_floor(r, k);
}

int kit_decode(const void *p, size_t len, struct kit **out)
{
	struct rd r = rd_over(p, len);

	*out = NULL;
	struct kit *k = calloc(1, sizeof *k);
	if (!k)
		return -ENOMEM;
	int err = decode(&r, k);
	if (err) {
		kit_free(k);
		return err;
	}
	*out = k;
	return 0;
}

int kit_unlock(struct kit *k, const char *pass)
{
	struct buf secret = {0};
	struct owner *o = NULL;

	if (k->secret)
		return 0;
	if (!pass)
		return log_fail(-EACCES, "this kit needs its passphrase");
	int err = pass_open(pass, k->sealed_secret.p, k->sealed_secret.len, &secret);
	if (err == -EACCES)
		log_msg(LOG_LVL_ERROR, "wrong passphrase for this kit");
	if (!err && secret.len != KEY_LEN)
		err = -EBADMSG;
	if (!err)
		err = owner_new(&o, secret.p);
	if (!err && memcmp(o->ed_pk, k->owner_ed_pk, 32) != 0)
		err = -EBADMSG;
	if (!err) {
		k->secret = sodium_malloc(KEY_LEN);
		err = k->secret ? 0 : -ENOMEM;
	}
	if (!err) {
		memcpy(k->secret, secret.p, KEY_LEN);
		err = credentials_open(k);
	}
	if (err) {
		sodium_free(k->secret);
		k->secret = NULL;
	}
	owner_free(o);
	wipe(&secret);
	if (err && err != -EACCES)
		return log_fail(err, "the secret in this kit cannot be opened: %s",
				strerror(-err));
	return err;
}

/* --- lines --- */

/* Over the number with its last mark, and the data. */
static void line_check(const uint8_t line[LINE_LEN], uint8_t out[3])
{
	uint8_t h[HASH_LEN];

	hash_tag("kit line", line, 2 + LINE_DATA, h);
	memcpy(out, h, 3);
}

/* Calls put(arg, 40 characters) for every line of the bytes and their hash. */
static int lines_out(struct buf *bytes, void (*put)(struct buf *out, const char *chars),
		     struct buf *out)
{
	uint8_t sum[HASH_LEN], line[LINE_LEN];
	char chars[LINE_CHARS + 1];

	hash_tag("kit", bytes->p, bytes->len, sum);
	buf_put(bytes, sum, KIT_SUM_LEN);
	if (bytes->err)
		return bytes->err;
	/* The length in front tells the padding of the last line from the kit. */
	size_t all = 4 + bytes->len, cnt = (all + LINE_DATA - 1) / LINE_DATA;
	if (cnt > LINES_MAX)
		return log_fail(-EFBIG, "the kit would have %zu lines", cnt);
	for (size_t i = 0; i < cnt; i++) {
		size_t at = i * LINE_DATA, skip = i ? 0 : 4;
		memset(line, 0, sizeof line);
		put_le16(line, (uint16_t)(i | (i + 1 == cnt ? LINE_LAST : 0)));
		if (skip)
			put_le32(line + 2, (uint32_t)bytes->len);
		memcpy(line + 2 + skip, bytes->p + at + skip - 4,
		       HF_MIN(all - at, (size_t)LINE_DATA) - skip);
		line_check(line, line + 2 + LINE_DATA);
		base32_encode(line, sizeof line, chars);
		put(out, chars);
	}
	sodium_memzero(line, sizeof line);
	sodium_memzero(chars, sizeof chars);
	return out->err;
}

static void put_page_line(struct buf *out, const char *chars)
{
	buf_put(out, "hf1", 3);
	for (int i = 0; i < LINE_CHARS; i += 5) {
		buf_put(out, "-", 1);
		buf_put(out, chars + i, 5);
	}
	buf_put(out, "\n", 1);
}

static void put_str(struct buf *out, const char *s)
{
	buf_put(out, s, strlen(s));
}

/* Text of others on our page: no line of it may look like one of ours. */
static void put_plain(struct buf *out, const void *p, size_t len)
{
	const uint8_t *c = p;

	for (size_t i = 0; i < len; i++)
		buf_u8(out, c[i] < 0x20 || c[i] == 0x7f ? '?' : c[i]);
}

int kit_print(const struct kit *k, const char *volume_name, const char *pass, struct buf *text)
{
	struct buf bytes = {0};
	char line[256], date[32];
	time_t now = time(NULL);
	struct tm tm;

	buf_reset(text);
	int err = kit_encode(k, pass, &bytes);
	if (err)
		goto out;
	localtime_r(&now, &tm);
	strftime(date, sizeof date, "%Y-%m-%d", &tm);
	put_str(text, "HOLDFAST RECOVERY KIT\n\ndrive    ");
	put_plain(text, volume_name, strlen(volume_name));
	snprintf(line, sizeof line,
		 "\nprinted  %s\nnodes    %zu; the drive survives the loss of any %u\n\n", date,
		 k->node_cnt, k->m);
	put_str(text, line);
	put_str(text, "Who has this page can read the whole drive. Keep it where you keep what "
		      "must not\nbe lost or seen. ");
	if (!k->secret || pass)
		put_str(text, "It needs its passphrase as well. ");
	put_str(text, "To get the drive back on an empty machine:\n\n"
		      "    holdfast recover THIS-FILE NAME\n\n");
	err = lines_out(&bytes, put_page_line, text);
	if (err)
		goto out;
	put_str(text, "\n");
	for (size_t i = 0; i < k->node_cnt; i++) {
		snprintf(line, sizeof line, "node %-3u ", k->node[i].number);
		put_str(text, line);
		put_plain(text, k->node[i].url, k->node[i].url_len);
		put_str(text, "\n");
	}
	err = text->err;
out:
	wipe(&bytes);
	if (err)
		wipe(text);
	return err;
}

/* --- reading lines --- */

/* A kit's lines as they come, by number. */
struct lines {
	uint8_t (*data)[LINE_DATA];
	bool *have;
	size_t cap, end; /* end: 1 + the number of the last line, 0 not seen */
	size_t cnt;
	unsigned seen; /* lines in the text, for messages */
};

static void lines_free(struct lines *l)
{
	if (l->data)
		sodium_memzero(l->data, l->cap * sizeof *l->data);
	free(l->data);
	free(l->have);
}

static int several(void)
{
	return log_fail(-EBADMSG,
			"the text holds more than one recovery kit: keep one of them");
}

static int line_take(struct lines *l, const char chars[LINE_CHARS])
{
	uint8_t line[LINE_LEN], check[3];

	l->seen++;
	if (base32_decode(chars, LINE_CHARS, line, sizeof line) != LINE_LEN)
		return log_fail(-EBADMSG, "line %u of the kit has a typing error", l->seen);
	line_check(line, check);
	if (memcmp(check, line + 2 + LINE_DATA, 3) != 0)
		return log_fail(-EBADMSG, "line %u of the kit has a typing error", l->seen);
	uint16_t number = get_le16(line);
	bool last = number & LINE_LAST;
	number &= LINES_MAX;
	if (number >= l->cap) {
		size_t cap = HF_MAX((size_t)number + 1, HF_MAX(l->cap * 2, (size_t)64));
		/* Not realloc: what moves would leave a copy of the secret behind. */
		uint8_t(*data)[LINE_DATA] = calloc(cap, sizeof *data);
		bool *have = calloc(cap, sizeof *have);
		if (!data || !have) {
			free(data);
			free(have);
			return -ENOMEM;
		}
		if (l->cap) {
			memcpy(data, l->data, l->cap * sizeof *data);
			memcpy(have, l->have, l->cap * sizeof *have);
		}
		struct lines old = *l;
		l->data = data;
		l->have = have;
		l->cap = cap;
		lines_free(&old);
	}
	if (l->have[number] && memcmp(l->data[number], line + 2, LINE_DATA) != 0)
		return several();
	if (last && l->end && l->end != (size_t)number + 1)
		return several();
	if (last)
		l->end = (size_t)number + 1;
	l->cnt += !l->have[number];
	l->have[number] = true;
	memcpy(l->data[number], line + 2, LINE_DATA);
	sodium_memzero(line, sizeof line);
	return 0;
}

/* Does "hf1" and a group mark begin here?  1 and l and i are taken for each other. */
static bool at_mark(const char *p, const char *end)
{
	return end - p >= 4 && (p[0] == 'h' || p[0] == 'H') && (p[1] == 'f' || p[1] == 'F') &&
	       strchr("1lLiI", p[2]) && p[2] && p[3] == '-';
}

static int scan(const char *p, const char *end, struct lines *l)
{
	char chars[LINE_CHARS];
	bool first = true; /* on its text line, or behind a finished line of the kit */

	while (p < end) {
		if (!first || !at_mark(p, end)) {
			if (*p == '\n' || *p == '\r')
				first = true;
			else if (*p != ' ' && *p != '\t')
				first = false;
			p++;
			continue;
		}
		unsigned cnt = 0;
		bool gap = false;
		for (p += 4; p < end && cnt < LINE_CHARS; p++) {
			if (*p == '-' || isspace((unsigned char)*p)) {
				gap = true;
				continue;
			}
			/* The next line begins: this one was too short. */
			if (gap && at_mark(p, end))
				break;
			gap = false;
			int c = tolower((unsigned char)*p);
			chars[cnt++] = (char)(c == '0' ? 'o' : c == '1' ? 'l' : c);
		}
		if (cnt < LINE_CHARS)
			return log_fail(-EBADMSG, "line %u of the kit is too short",
					l->seen + 1);
		/* Behind the 40 characters something else must begin. */
		if (p < end && *p != '-' && !isspace((unsigned char)*p) && !at_mark(p, end))
			return log_fail(-EBADMSG, "line %u of the kit is too long",
					l->seen + 1);
		int err = line_take(l, chars);
		sodium_memzero(chars, sizeof chars);
		if (err)
			return err;
		first = true;
	}
	return 0;
}

/* The bytes of the kit without their hash. */
static int join(const struct lines *l, struct buf *out)
{
	uint8_t sum[HASH_LEN];

	if (!l->seen)
		return log_fail(-EBADMSG, "this is no recovery kit: no line begins with hf1-");
	size_t end = l->end ? l->end : l->cap;
	for (size_t i = 0; i < l->cap; i++) {
		if (l->have[i] && i >= end)
			return several();
		if (!l->have[i] && i < end && (l->end || l->cnt > i))
			return log_fail(-EBADMSG, "line %zu of the kit is missing", i + 1);
	}
	if (!l->end)
		return log_fail(-EBADMSG,
				"the last lines of the kit are missing, behind line %zu",
				l->cnt);
	size_t len = end * LINE_DATA;
	const uint8_t *p = l->data[0];
	uint32_t said = get_le32(p);
	if (said < KIT_SUM_LEN || said > len - 4 || len - 4 - said >= LINE_DATA)
		return several();
	for (size_t i = 4 + said; i < len; i++)
		if (p[i])
			return several();
	hash_tag("kit", p + 4, said - KIT_SUM_LEN, sum);
	/* Every line is right by itself, so they do not belong together. */
	if (memcmp(sum, p + 4 + said - KIT_SUM_LEN, KIT_SUM_LEN) != 0)
		return several();
	buf_put(out, p + 4, said - KIT_SUM_LEN);
	return out->err;
}

static int kit_bytes(const char *text, size_t len, struct buf *out)
{
	struct lines l = {0};

	int err = scan(text, text + len, &l);
	if (!err)
		err = join(&l, out);
	lines_free(&l);
	return err;
}

int kit_parse(const char *text, size_t len, struct kit **out)
{
	struct buf bytes = {0};

	*out = NULL;
	int err = kit_bytes(text, len, &bytes);
	if (!err) {
		err = kit_decode(bytes.p, bytes.len, out);
		if (err == -ENOTSUP)
			log_msg(LOG_LVL_ERROR, "the kit is of a newer version of holdfast");
		else if (err)
			log_msg(LOG_LVL_ERROR, "the kit cannot be read: %s", strerror(-err));
	}
	wipe(&bytes);
	return err;
}

/* --- the QR code --- */

/* Upper case without groups: the code's alphanumeric mode takes 5.5 bits a character. */
static void put_qr_line(struct buf *out, const char *chars)
{
	buf_put(out, "HF1-", 4);
	for (int i = 0; i < LINE_CHARS; i++)
		buf_u8(out, (uint8_t)toupper((unsigned char)chars[i]));
}

static int qr_string(const struct buf *text, struct buf *s)
{
	struct buf bytes = {0};

	int err = kit_bytes((const char *)text->p, text->len, &bytes);
	if (!err)
		err = lines_out(&bytes, put_qr_line, s);
	buf_u8(s, 0);
	wipe(&bytes);
	return err ? err : s->err;
}

int kit_qr_text(const struct buf *text, struct buf *out)
{
	struct buf s = {0};

	int err = qr_string(text, &s);
	if (!err)
		err = qr_text((const char *)s.p, out);
	wipe(&s);
	return err;
}

int kit_qr_png(const struct buf *text, const char *path)
{
	struct buf s = {0}, png = {0};

	int err = qr_string(text, &s);
	if (!err)
		err = qr_png((const char *)s.p, &png);
	if (!err) {
		err = file_write_atomic(path, png.p, png.len, 0600);
		if (err)
			log_msg(LOG_LVL_ERROR, "cannot write %s: %s", path, strerror(-err));
	}
	wipe(&s);
	wipe(&png);
	return err;
}
