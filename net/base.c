/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "net/base.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define LOG_ROTATE_LEN ((int64_t)8 << 20)
#define LOG_LINE_CAP   1024

int u64_cmp(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

/* --- buffers and readers --- */

void buf_release(struct buf *b)
{
	free(b->p);
	*b = (struct buf){0};
}

void buf_reset(struct buf *b)
{
	b->len = 0;
	b->err = 0;
}

uint8_t *buf_room(struct buf *b, size_t len)
{
	if (b->err)
		return NULL;
	if (b->p && len <= b->cap - b->len)
		return b->p + b->len;
	if (len > SIZE_MAX / 2 - b->len) {
		b->err = -ENOMEM;
		return NULL;
	}
	/* cap <= SIZE_MAX / 2 always holds, so doubling does not overflow. */
	size_t cap = HF_MAX(HF_MIN(b->cap * 2, SIZE_MAX / 2), b->len + len);
	cap = HF_MAX(cap, (size_t)64);
	uint8_t *p = realloc(b->p, cap);
	if (!p) {
		b->err = -ENOMEM;
		return NULL;
	}
	b->p = p;
	b->cap = cap;
	return p + b->len;
}

void buf_put(struct buf *b, const void *p, size_t len)
{
	uint8_t *to = len ? buf_room(b, len) : NULL;
	if (!to)
		return;
	memcpy(to, p, len);
	b->len += len;
}

void buf_u8(struct buf *b, uint8_t v)
{
	buf_put(b, &v, 1);
}

void buf_u16(struct buf *b, uint16_t v)
{
	uint8_t t[2];

	put_le16(t, v);
	buf_put(b, t, sizeof t);
}

void buf_u32(struct buf *b, uint32_t v)
{
	uint8_t t[4];

	put_le32(t, v);
	buf_put(b, t, sizeof t);
}

void buf_u64(struct buf *b, uint64_t v)
{
	uint8_t t[8];

	put_le64(t, v);
	buf_put(b, t, sizeof t);
}

const uint8_t *rd_bytes(struct rd *r, size_t len)
{
	if (r->bad || len > rd_left(r)) {
		r->bad = true;
		return NULL;
	}
	const uint8_t *p = r->p;
	if (len)
		r->p += len;
	return p;
}

uint8_t rd_u8(struct rd *r)
{
	const uint8_t *p = rd_bytes(r, 1);
	return p ? *p : 0;
}

uint16_t rd_u16(struct rd *r)
{
	const uint8_t *p = rd_bytes(r, 2);
	return p ? get_le16(p) : 0;
}

uint32_t rd_u32(struct rd *r)
{
	const uint8_t *p = rd_bytes(r, 4);
	return p ? get_le32(p) : 0;
}

uint64_t rd_u64(struct rd *r)
{
	const uint8_t *p = rd_bytes(r, 8);
	return p ? get_le64(p) : 0;
}

/* --- clocks --- */

int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

int64_t realtime_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

/* --- base32 --- */

void base32_encode(const uint8_t *in, size_t len, char *out)
{
	static const char abc[] = "abcdefghijklmnopqrstuvwxyz234567";
	uint32_t acc = 0;
	unsigned bits = 0;

	for (size_t i = 0; i < len; i++) {
		acc = acc << 8 | in[i];
		bits += 8;
		while (bits >= 5) {
			bits -= 5;
			*out++ = abc[acc >> bits & 31];
		}
		acc &= (1u << bits) - 1;
	}
	if (bits)
		*out++ = abc[acc << (5 - bits) & 31];
	*out = 0;
}

int64_t base32_decode(const char *in, size_t in_len, uint8_t *out, size_t out_cap)
{
	size_t len = 0;
	uint32_t acc = 0;
	unsigned bits = 0;

	for (size_t i = 0; i < in_len; i++) {
		uint32_t v;
		if (in[i] >= 'a' && in[i] <= 'z')
			v = (uint32_t)(in[i] - 'a');
		else if (in[i] >= '2' && in[i] <= '7')
			v = (uint32_t)(in[i] - '2') + 26;
		else
			return -EBADMSG;
		acc = acc << 5 | v;
		bits += 5;
		if (bits >= 8) {
			bits -= 8;
			if (len == out_cap)
				return -EBADMSG;
			out[len++] = (uint8_t)(acc >> bits);
			acc &= (1u << bits) - 1;
		}
	}
	/* One encoding only: no spare character, and the bits left over are zero. */
	if (bits >= 5 || acc)
		return -EBADMSG;
	return (int64_t)len;
}

/* --- small files --- */

int file_read(const char *path, size_t cap, struct buf *out)
{
	size_t before = out->len;
	int err = 0;

	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	for (;;) {
		/* One byte more than allowed is asked for, so that a longer file is noticed. */
		size_t got = out->len - before;
		size_t want = HF_MIN(cap - got, (size_t)65536) + 1;
		uint8_t *to = buf_room(out, want);
		if (!to) {
			err = out->err;
			break;
		}
		ssize_t n = read(fd, to, want);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			err = -errno;
		else if ((size_t)n > cap - got)
			err = -EFBIG;
		if (n <= 0 || err)
			break;
		out->len += (size_t)n;
	}
	close(fd);
	if (err)
		out->len = before;
	return err;
}

static int write_all(int fd, const uint8_t *p, size_t len)
{
	while (len) {
		ssize_t n = write(fd, p, HF_MIN(len, (size_t)1 << 30));
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return -EIO;
		p += n;
		len -= (size_t)n;
	}
	return 0;
}

/* Makes the names in the directory of path durable. */
static int fsync_parent(const char *path)
{
	const char *slash = strrchr(path, '/');
	char *dir =
		slash ? strndup(path, HF_MAX((size_t)(slash - path), (size_t)1)) : strdup(".");
	int err = 0;

	if (!dir)
		return -ENOMEM;
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	free(dir);
	if (fd < 0)
		return -errno;
	if (fsync(fd) < 0)
		err = -errno;
	close(fd);
	return err;
}

int file_write_atomic(const char *path, const void *p, size_t len, unsigned mode)
{
	char *tmp;
	int err;

	if (asprintf(&tmp, "%s.XXXXXX", path) < 0)
		return -ENOMEM;
	int fd = mkostemp(tmp, O_CLOEXEC);
	if (fd < 0) {
		err = -errno;
		free(tmp);
		return err;
	}
	err = write_all(fd, p, len);
	if (!err && fchmod(fd, (mode_t)mode) < 0)
		err = -errno;
	if (!err && fsync(fd) < 0)
		err = -errno;
	if (close(fd) < 0 && !err)
		err = -errno;
	if (!err && rename(tmp, path) < 0)
		err = -errno;
	if (err)
		unlink(tmp);
	else
		err = fsync_parent(path);
	free(tmp);
	return err;
}

static int mkdir_one(const char *path, unsigned mode)
{
	struct stat st;

	if (mkdir(path, (mode_t)mode) == 0)
		return 0;
	int err = -errno;
	/* EROFS and EACCES are also given for a directory that is there. */
	if (stat(path, &st) == 0)
		return S_ISDIR(st.st_mode) ? 0 : -ENOTDIR;
	return err;
}

int mkdir_all(const char *path, unsigned mode)
{
	int err = 0;

	if (!*path)
		return -ENOENT;
	char *s = strdup(path);
	if (!s)
		return -ENOMEM;
	for (char *at = s + 1; *at && !err; at++) {
		if (*at != '/' || at[-1] == '/')
			continue;
		*at = 0;
		/* Directories above the last must let us pass, whatever mode the last gets. */
		err = mkdir_one(s, mode | 0300);
		*at = '/';
	}
	if (!err)
		err = mkdir_one(s, mode);
	free(s);
	return err;
}

/* --- the log --- */

static struct {
	pthread_mutex_t lock;
	int fd;	      /* guarded by lock; standard error at first */
	char *path;   /* guarded by lock; NULL while fd is standard error */
	int64_t size; /* guarded by lock; bytes in the file */
	bool took_stderr; /* guarded by lock */
	_Atomic int level;
	_Atomic bool quiet;
} lg = {PTHREAD_MUTEX_INITIALIZER, STDERR_FILENO, NULL, 0, false, LOG_LVL_INFO, false};

static _Thread_local char last_error[LOG_LINE_CAP];

void log_set_level(enum log_level lvl)
{
	lg.level = lvl;
}

void log_set_quiet(bool quiet)
{
	lg.quiet = quiet;
}

const char *log_last(void)
{
	return last_error;
}

static int log_open(const char *path, int64_t *size)
{
	struct stat st;

	int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	*size = fstat(fd, &st) == 0 ? (int64_t)st.st_size : 0;
	return fd;
}

int log_to_file(const char *path)
{
	int64_t size;

	char *copy = strdup(path);
	if (!copy)
		return -ENOMEM;
	int fd = log_open(path, &size);
	if (fd < 0) {
		free(copy);
		return fd;
	}
	pthread_mutex_lock(&lg.lock);
	int old = lg.path ? lg.fd : -1;
	free(lg.path);
	lg.path = copy;
	lg.fd = fd;
	lg.size = size;
	pthread_mutex_unlock(&lg.lock);
	if (old >= 0)
		close(old);
	return 0;
}

void log_take_stderr(void)
{
	pthread_mutex_lock(&lg.lock);
	lg.took_stderr = lg.path != NULL;
	if (lg.path)
		dup2(lg.fd, STDERR_FILENO);
	pthread_mutex_unlock(&lg.lock);
}

/* Under lg.lock.  When the new file cannot be made the old one is written on. */
static void log_rotate(void)
{
	char *old;
	int64_t size;

	/* Not again with every line when it fails. */
	lg.size = 0;
	if (asprintf(&old, "%s.1", lg.path) < 0)
		return;
	int fd = rename(lg.path, old) == 0 ? log_open(lg.path, &size) : -1;
	free(old);
	if (fd < 0)
		return;
	close(lg.fd);
	lg.fd = fd;
	lg.size = size;
	if (lg.took_stderr)
		dup2(fd, STDERR_FILENO);
}

static void log_line(enum log_level lvl, const char *text)
{
	static const char *const word[] = {"error", "warning", "info", "debug"};
	char line[LOG_LINE_CAP + 64], when[32];
	struct timespec ts;
	struct tm tm;

	clock_gettime(CLOCK_REALTIME, &ts);
	gmtime_r(&ts.tv_sec, &tm);
	strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%S", &tm);
	pthread_mutex_lock(&lg.lock);
	if (lvl == LOG_LVL_ERROR && lg.quiet && !lg.path) {
		pthread_mutex_unlock(&lg.lock);
		return;
	}
	int n = snprintf(line, sizeof line, "%s.%03ldZ %s: %s\n", when, ts.tv_nsec / 1000000,
			 word[lvl], text);
	size_t len = HF_MIN((size_t)HF_MAX(n, 0), sizeof line - 1);
	if (lg.path && lg.size + (int64_t)len > LOG_ROTATE_LEN)
		log_rotate();
	/* Nothing can be done about a log that cannot be written. */
	if (write_all(lg.fd, (const uint8_t *)line, len) == 0)
		lg.size += (int64_t)len;
	pthread_mutex_unlock(&lg.lock);
}

static void log_vmsg(enum log_level lvl, const char *fmt, va_list ap)
{
	char text[LOG_LINE_CAP];
	int saved = errno;

	if (lvl > LOG_LVL_ERROR && (int)lvl > lg.level)
		return;
	vsnprintf(text, sizeof text, fmt, ap);
	/* What servers and paths put into a message must not forge lines or move the cursor. */
	for (char *c = text; *c; c++)
		if ((unsigned char)*c < 0x20 || *c == 0x7f)
			*c = '?';
	if (lvl == LOG_LVL_ERROR)
		memcpy(last_error, text, strlen(text) + 1);
	log_line(lvl, text);
	errno = saved;
}

void log_msg(enum log_level lvl, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	log_vmsg(lvl, fmt, ap);
	va_end(ap);
}

int log_fail(int err, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	log_vmsg(LOG_LVL_ERROR, fmt, ap);
	va_end(ap);
	return err;
}
