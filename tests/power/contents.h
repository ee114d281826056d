/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What `stream` writes and `found` reads: the names, and the contents of a unit. */
#ifndef HOLDFAST_TESTS_CONTENTS_H
#define HOLDFAST_TESTS_CONTENTS_H

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include "tests/power/model.h"

#define LEAVES 12u
#define BAD    UINT32_MAX

static const char *const words[] = {
	"",	  "create", "mkdir", "write", "truncate", "punch",     "rename",   "link",
	"unlink", "rmdir",  "chmod", "xattr", "fsync",	  "fdatasync", "fsyncdir", "sync"};

static inline void die(const char *fmt, ...)
{
	va_list ap;
	int e = errno;

	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	printf(": %s\n", strerror(e));
	fflush(stdout);
	_exit(1);
}

static inline void fill(uint64_t *p, unsigned thread, uint32_t obj, uint32_t unit, uint32_t version)
{
	uint64_t x = 0x9e3779b97f4a7c15u *
		     (thread * 1000003u + obj * 7919u + (uint64_t)unit * 131u + version + 1);

	p[0] = (uint64_t)unit << 32 | version;
	for (unsigned i = 1; i < UNIT / 8; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		p[i] = x;
	}
}

/* The version of a unit that was read; BAD: nobody ever wrote that. */
static inline uint32_t version_of(const uint64_t *p, unsigned thread, uint32_t obj, uint32_t unit)
{
	uint64_t want[UNIT / 8] = {0};
	uint32_t version = (uint32_t)p[0];

	if (version)
		fill(want, thread, obj, unit, version);
	return memcmp(p, want, UNIT) ? BAD : version;
}

/* Everything of a file; -1: errno. */
static inline int contents(int fd, unsigned thread, uint32_t obj, uint32_t *v, uint32_t *units)
{
	static __thread uint64_t buf[UNITS_MAX * UNIT / 8 + UNIT / 8];
	size_t len = 0;
	ssize_t n;

	while ((n = pread(fd, (char *)buf + len, sizeof buf - len, (off_t)len)) > 0)
		len += (size_t)n;
	if (n < 0)
		return -1;
	*units = (uint32_t)((len + UNIT - 1) / UNIT);
	if (len % UNIT || *units > UNITS_MAX) {
		*units = BAD;
		return 0;
	}
	for (uint32_t u = 0; u < *units; u++)
		v[u] = version_of(buf + u * UNIT / 8, thread, obj, u);
	return 0;
}

#endif
