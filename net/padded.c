/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "net/padded.h"

size_t padme(size_t len)
{
	if (len < 2)
		return len;
	unsigned e = 63u - (unsigned)__builtin_clzll(len);
	unsigned s = e ? 32u - (unsigned)__builtin_clz(e) : 0;
	if (s >= e)
		return len;
	size_t mask = ((size_t)1 << (e - s)) - 1;
	return (len + mask) & ~mask;
}

int padded_end(struct buf *out, size_t start)
{
	if (out->err)
		return out->err;
	size_t len = out->len - start, pad = padme(len) - len;
	put_le32(out->p + start, (uint32_t)(len - 4));
	uint8_t *zeros = buf_room(out, pad);
	if (!zeros)
		return out->err;
	memset(zeros, 0, pad);
	out->len += pad;
	return 0;
}

int padded_open(const void *p, size_t len, struct rd *body)
{
	struct rd r = rd_over(p, len);

	uint32_t body_len = rd_u32(&r);
	const uint8_t *at = rd_bytes(&r, body_len);
	if (r.bad || padme((size_t)body_len + 4) != len)
		return -EBADMSG;
	while (rd_left(&r))
		if (rd_u8(&r))
			return -EBADMSG;
	*body = rd_over(at, body_len);
	return 0;
}
