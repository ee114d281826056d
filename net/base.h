/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * base: what every other file needs: little-endian bytes, growable buffers, a bounded
 * reader, clocks, the log.
 *
 * Errors everywhere: 0 or -errno; int64_t where a length is the answer.  Between layers:
 * ENOENT absent, EBADMSG not genuine, ENODATA fewer than K, EAGAIN busy, ETIMEDOUT,
 * EACCES, ENOSPC, ECANCELED, ENOMEM, EIO.
 */
#ifndef HOLDFAST_NET_BASE_H
#define HOLDFAST_NET_BASE_H

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define HF_MIN(a, b) ((a) < (b) ? (a) : (b))
#define HF_MAX(a, b) ((a) > (b) ? (a) : (b))

/* For qsort and bsearch of uint64_t. */
int u64_cmp(const void *a, const void *b);

/* Little-endian loads and stores, any alignment. */
static inline uint16_t get_le16(const uint8_t *p)
{
	return (uint16_t)(p[0] | p[1] << 8);
}
static inline uint32_t get_le32(const uint8_t *p)
{
	return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}
static inline uint64_t get_le64(const uint8_t *p)
{
	return (uint64_t)get_le32(p) | (uint64_t)get_le32(p + 4) << 32;
}
static inline void put_le16(uint8_t *p, uint16_t v)
{
	p[0] = (uint8_t)v;
	p[1] = (uint8_t)(v >> 8);
}
static inline void put_le32(uint8_t *p, uint32_t v)
{
	put_le16(p, (uint16_t)v);
	put_le16(p + 2, (uint16_t)(v >> 16));
}
static inline void put_le64(uint8_t *p, uint64_t v)
{
	put_le32(p, (uint32_t)v);
	put_le32(p + 4, (uint32_t)(v >> 32));
}

/*
 * struct buf: bytes that grow.  Zero-initialise; buf_release frees.  The put calls never
 * fail at once: an allocation failure sets `err` to -ENOMEM and later puts do nothing, so
 * that an encoder checks once, at its end.
 */
struct buf {
	uint8_t *p;
	size_t len, cap;
	int err;
};
void buf_release(struct buf *b);
void buf_reset(struct buf *b); /* len and err to 0, memory kept */
uint8_t *buf_room(struct buf *b, size_t len); /* room for len more bytes at p+len, or NULL */
void buf_put(struct buf *b, const void *p, size_t len);
void buf_u8(struct buf *b, uint8_t v);
void buf_u16(struct buf *b, uint16_t v);
void buf_u32(struct buf *b, uint32_t v);
void buf_u64(struct buf *b, uint64_t v);

/*
 * struct rd: a bounded reader.  A read past the end sets `bad`, returns 0 or NULL and stays
 * bad, so that a decoder checks once, at its end.
 */
struct rd {
	const uint8_t *p, *end;
	bool bad;
};
static inline struct rd rd_over(const void *p, size_t len)
{
	return (struct rd){p, (const uint8_t *)p + len, false};
}
static inline size_t rd_left(const struct rd *r)
{
	return (size_t)(r->end - r->p);
}
uint8_t rd_u8(struct rd *r);
uint16_t rd_u16(struct rd *r);
uint32_t rd_u32(struct rd *r);
uint64_t rd_u64(struct rd *r);
const uint8_t *rd_bytes(struct rd *r, size_t len); /* points into the input, or NULL */

int64_t now_ms(void);      /* monotonic */
int64_t realtime_ns(void); /* since 1970 */

/* Lower-case base32 (RFC 4648 alphabet a-z2-7, no padding); out has (len*8+4)/5+1 bytes. */
void base32_encode(const uint8_t *in, size_t len, char *out);
/* Returns the bytes decoded, or -EBADMSG for a foreign character or non-zero spare bits. */
int64_t base32_decode(const char *in, size_t in_len, uint8_t *out, size_t out_cap);

/* Whole small files; path errors as -errno.  file_read refuses more than cap bytes: -EFBIG. */
int file_read(const char *path, size_t cap, struct buf *out);
/* Temporary name, fsync, rename, fsync of the directory. */
int file_write_atomic(const char *path, const void *p, size_t len, unsigned mode);
int mkdir_all(const char *path, unsigned mode); /* as mkdir -p; 0 when it exists */

/*
 * The log.  One line each, to standard error until log_to_file; a line never holds a key,
 * a passphrase or a credential.  log_fail logs at error level and returns err, so that who
 * notices an error says it once: return log_fail(-EIO, "node %s: %s", ...).
 * Thread-safe.  The last error line of this thread is kept for the command line:
 * log_last() returns it ("" when none).
 */
enum log_level { LOG_LVL_ERROR, LOG_LVL_WARN, LOG_LVL_INFO, LOG_LVL_DEBUG };
void log_set_level(enum log_level lvl);
void log_set_quiet(bool quiet); /* errors are only kept for log_last, not printed */
int log_to_file(const char *path); /* from now on append there; rotated to .1 at 8 MiB */
void log_take_stderr(void); /* assertions and libraries speak into the log file too */
void log_msg(enum log_level lvl, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
int log_fail(int err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
const char *log_last(void);
#define log_info(...)  log_msg(LOG_LVL_INFO, __VA_ARGS__)
#define log_warn(...)  log_msg(LOG_LVL_WARN, __VA_ARGS__)
#define log_debug(...) log_msg(LOG_LVL_DEBUG, __VA_ARGS__)

#endif
