/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "net/kit.h"

#include <qrencode.h>

#define QUIET	  4 /* modules around the code, as ISO/IEC 18004 wants */
#define PNG_SCALE 6 /* pixels a module */
#define STORE_MAX 65535u

/* Medium correction where it fits, for paper; else low. */
static int encode(const char *alnum, QRcode **out)
{
	static const QRecLevel level[] = {QR_ECLEVEL_M, QR_ECLEVEL_L};
	size_t len = strlen(alnum);

	*out = NULL;
	for (int i = 0; i < 2 && !*out && len <= 4296; i++) {
		QRinput *in = QRinput_new2(0, level[i]);
		if (!in)
			return -ENOMEM;
		if (QRinput_append(in, QR_MODE_AN, (int)len, (const unsigned char *)alnum) == 0)
			*out = QRcode_encodeInput(in);
		int err = errno;
		QRinput_free(in);
		if (!*out && err == ENOMEM)
			return -ENOMEM;
	}
	if (!*out)
		return log_fail(-EFBIG, "the kit does not fit into a QR code (%zu characters)",
				len);
	return 0;
}

static bool dark(const QRcode *q, int x, int y)
{
	x -= QUIET;
	y -= QUIET;
	return x >= 0 && y >= 0 && x < q->width && y < q->width &&
	       q->data[y * q->width + x] & 1;
}

int qr_text(const char *alnum, struct buf *out)
{
	/* Light modules are the drawn ones, as terminals are dark; readers know the inverse
	 * too. */
	static const char *const half[] = {"█", "▀", "▄", " "};
	QRcode *q;

	buf_reset(out);
	int err = encode(alnum, &q);
	if (err)
		return err;
	int side = q->width + 2 * QUIET;
	for (int y = 0; y < side; y += 2) {
		for (int x = 0; x < side; x++) {
			/* Below the last row of an odd height there is light, too. */
			const char *s = half[dark(q, x, y) * 2 + dark(q, x, y + 1)];
			buf_put(out, s, strlen(s));
		}
		buf_put(out, "\n", 1);
	}
	QRcode_free(q);
	return out->err;
}

/* --- a PNG with stored deflate blocks (RFC 1950, 1951, 2083) --- */

static uint32_t crc32_of(const uint8_t *p, size_t len)
{
	uint32_t crc = 0xffffffffu;

	for (size_t i = 0; i < len; i++) {
		crc ^= p[i];
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
	}
	return ~crc;
}

static uint32_t adler32_of(const uint8_t *p, size_t len)
{
	uint32_t a = 1, b = 0;

	for (size_t i = 0; i < len; i++) {
		a = (a + p[i]) % 65521;
		b = (b + a) % 65521;
	}
	return b << 16 | a;
}

static void put_be32(struct buf *b, uint32_t v)
{
	buf_u8(b, (uint8_t)(v >> 24));
	buf_u8(b, (uint8_t)(v >> 16));
	buf_u8(b, (uint8_t)(v >> 8));
	buf_u8(b, (uint8_t)v);
}

static void put_chunk(struct buf *out, const char type[4], const struct buf *data)
{
	put_be32(out, (uint32_t)data->len);
	size_t start = out->len;
	buf_put(out, type, 4);
	buf_put(out, data->p, data->len);
	put_be32(out, out->err ? 0 : crc32_of(out->p + start, out->len - start));
}

static void store(struct buf *z, const struct buf *raw)
{
	buf_u8(z, 0x78);
	buf_u8(z, 0x01);
	for (size_t at = 0; at < raw->len;) {
		size_t len = HF_MIN(raw->len - at, (size_t)STORE_MAX);
		buf_u8(z, at + len == raw->len);
		buf_u16(z, (uint16_t)len);
		buf_u16(z, (uint16_t)~len);
		buf_put(z, raw->p + at, len);
		at += len;
	}
	put_be32(z, adler32_of(raw->p, raw->len));
}

int qr_png(const char *alnum, struct buf *out)
{
	static const uint8_t magic[8] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
	struct buf raw = {0}, data = {0};
	QRcode *q;

	buf_reset(out);
	int err = encode(alnum, &q);
	if (err)
		return err;
	int side = q->width + 2 * QUIET, px = side * PNG_SCALE;
	for (int y = 0; y < px; y++) {
		buf_u8(&raw, 0); /* no filter */
		uint8_t byte = 0;
		for (int x = 0; x < px; x++) {
			byte = (uint8_t)(byte << 1 | !dark(q, x / PNG_SCALE, y / PNG_SCALE));
			if ((x & 7) == 7)
				buf_u8(&raw, byte);
		}
		if (px & 7)
			buf_u8(&raw, (uint8_t)(byte << (8 - (px & 7))));
	}
	QRcode_free(q);

	buf_put(out, magic, sizeof magic);
	put_be32(&data, (uint32_t)px);
	put_be32(&data, (uint32_t)px);
	buf_put(&data, "\1\0\0\0\0", 5); /* 1 bit, grey, deflate, adaptive, not interlaced */
	put_chunk(out, "IHDR", &data);
	buf_reset(&data);
	store(&data, &raw);
	put_chunk(out, "IDAT", &data);
	err = raw.err ? raw.err : data.err;
	buf_reset(&data);
	put_chunk(out, "IEND", &data);
	buf_release(&raw);
	buf_release(&data);
	return err ? err : out->err;
}
