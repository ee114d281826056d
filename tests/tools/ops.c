/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * ops VERB PATH N: one kind of operation many times, and how fast, as `value unit`.
 *   create|stat|read|unlink DIR N   N files of 4 KiB in DIR
 *   seqwrite|seqread FILE MIB       requests of 1 MiB
 *   randread|randwrite FILE N       N requests of 4 KiB at random block offsets
 *   latency FILE N                  the same reads, each timed: `median p99 ms`
 *   append FILE N                   N times 100 bytes and fsync
 * Contents are pseudo-random and seqread, randread and read verify them.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "net/base.h"

static double now(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void die(const char *what)
{
	fprintf(stderr, "ops: %s: %s\n", what, strerror(errno));
	exit(1);
}

/* The block's own number in every 8 bytes, mixed: cheap and not compressible. */
static void fill(uint8_t *p, size_t len, uint64_t at)
{
	for (size_t i = 0; i < len; i += 8)
		put_le64(p + i, (at + i + 1) * 0x9e3779b97f4a7c15u ^ (at + i) >> 7);
}

static void expect(const uint8_t *p, size_t len, uint64_t at)
{
	static uint8_t want[1 << 20];
	fill(want, len, at);
	if (memcmp(p, want, len)) {
		fprintf(stderr, "ops: wrong bytes at %llu\n", (unsigned long long)at);
		exit(3);
	}
}

static uint64_t seed = 88172645463325252u;
static uint64_t rnd(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	return seed ^= seed << 17;
}

static void small(const char *verb, const char *dir, long n)
{
	char path[4096];
	uint8_t buf[4096];
	struct stat st;

	for (long i = 0; i < n; i++) {
		int fd;
		snprintf(path, sizeof(path), "%s/file-%06ld", dir, i);
		if (!strcmp(verb, "create")) {
			fill(buf, sizeof(buf), (uint64_t)i << 20);
			fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0644);
			if (fd < 0 || write(fd, buf, sizeof(buf)) != sizeof(buf) || close(fd))
				die(path);
		} else if (!strcmp(verb, "stat")) {
			if (stat(path, &st) || st.st_size != sizeof(buf))
				die(path);
		} else if (!strcmp(verb, "read")) {
			fd = open(path, O_RDONLY);
			if (fd < 0 || read(fd, buf, sizeof(buf)) != sizeof(buf) || close(fd))
				die(path);
			expect(buf, sizeof(buf), (uint64_t)i << 20);
		} else if (unlink(path)) {
			die(path);
		}
	}
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* Reads of 4 KiB at random, with nothing read ahead of them. */
static int latency(const char *path, long n)
{
	int fd = open(path, O_RDONLY);
	double *ms = calloc((size_t)n + 1, sizeof *ms);
	uint8_t buf[4096];
	struct stat st;

	if (fd < 0 || !ms || fstat(fd, &st) || st.st_size < 4096)
		die(path);
	posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM);
	/* Others than the last time: what they found is here now. */
	seed ^= (uint64_t)(now() * 1e9);
	for (long i = 0; i < n; i++) {
		off_t at = (off_t)(rnd() % (uint64_t)(st.st_size / 4096)) * 4096;
		double t0 = now();
		if (pread(fd, buf, sizeof buf, at) != sizeof buf)
			die(path);
		ms[i] = (now() - t0) * 1000;
	}
	qsort(ms, (size_t)n, sizeof *ms, by_value);
	printf("%.1f %.1f ms\n", ms[n / 2], ms[n * 99 / 100]);
	close(fd);
	free(ms);
	return 0;
}

int main(int argc, char **argv)
{
	static uint8_t buf[1 << 20];
	if (argc != 4)
		return 2;
	const char *verb = argv[1], *path = argv[2], *unit = "1/s";
	long n = atol(argv[3]);
	double scale = 1, t0;
	struct stat st;
	int fd = -1;

	if (!strcmp(verb, "latency"))
		return latency(path, n);
	if (!strncmp(verb, "seq", 3) || !strncmp(verb, "rand", 4) || !strcmp(verb, "append")) {
		int flags = strstr(verb, "read") ? O_RDONLY : O_RDWR | O_CREAT;
		if (!strcmp(verb, "append"))
			flags |= O_APPEND;
		fd = open(path, flags, 0644);
		if (fd < 0 || fstat(fd, &st))
			die(path);
	}
	long blocks = fd >= 0 ? (long)(st.st_size / 4096) : 0;
	if (!strncmp(verb, "rand", 4) && !blocks)
		return 2;
	t0 = now();
	if (!strcmp(verb, "seqwrite") || !strcmp(verb, "seqread")) {
		unit = "MB/s";
		scale = 1048576 / 1e6;
		for (long i = 0; i < n; i++) {
			uint64_t at = (uint64_t)i << 20;
			if (!strcmp(verb, "seqwrite")) {
				/* One block is made, then numbered, to measure the disk path. */
				if (!i)
					fill(buf, sizeof(buf), 0);
				put_le64(buf, at);
				if (write(fd, buf, sizeof(buf)) != sizeof(buf))
					die(path);
			} else {
				if (read(fd, buf, sizeof(buf)) != sizeof(buf))
					die(path);
				if (get_le64(buf) != at) {
					fprintf(stderr, "ops: wrong block %ld\n", i);
					return 3;
				}
			}
		}
		close(fd);
	} else if (!strncmp(verb, "rand", 4)) {
		for (long i = 0; i < n; i++) {
			off_t at = (off_t)(rnd() % (uint64_t)blocks) * 4096;
			ssize_t got = !strcmp(verb, "randread") ? pread(fd, buf, 4096, at)
								: pwrite(fd, buf, 4096, at);
			if (got != 4096)
				die(path);
		}
		close(fd);
	} else if (!strcmp(verb, "append")) {
		for (long i = 0; i < n; i++)
			if (write(fd, buf, 100) != 100 || fsync(fd))
				die(path);
		close(fd);
	} else {
		small(verb, path, n);
	}
	printf("%.1f %s\n", (double)n * scale / (now() - t0), unit);
	return 0;
}
