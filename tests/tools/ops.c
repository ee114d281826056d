/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * ops VERB PATH N [BATCH [PER]]: one kind of operation many times, and how fast, as `value unit`.
 *   create|stat|read|unlink DIR N   N files of 4 KiB in DIR; with PER in directories of PER files
 *   seqwrite|seqread FILE MIB       requests of 1 MiB
 *   randread|randwrite|randsync FILE N  N requests of 4 KiB at random block offsets; written and
 *                                   fdatasynced
 *   latency FILE N                  the same reads, each timed: `median p99 ms`
 *   append FILE N                   N times 100 bytes and fsync
 *   touch|lookup|list DIR N         N empty files; each looked up; all listed
 *   rename DIR N                    the N files of create to other names, and back
 *   mixed DIR N                     N times make, write, read, rename, stat, remove; 8 threads
 *   mmap FILE N                     N pages at random of 64 MiB changed, and msync
 *   holes FILE N                    all N parts of a sparse file, by SEEK_DATA and SEEK_HOLE
 *   sqlite FILE N                   N rows, each in a transaction of its own
 * After BATCH files the kernel's names and inodes are dropped, as root; that takes no time.
 * Contents are pseudo-random and seqread, randread and read verify them.
 */
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <sys/mman.h>
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

static long batch;
static double dropping;

/* Before file I. */
static void drop(long i)
{
	double t0;
	int fd;

	if (!batch || !i || i % batch)
		return;
	t0 = now();
	fd = open("/proc/sys/vm/drop_caches", O_WRONLY);
	if (fd < 0 || write(fd, "2", 1) != 1 || close(fd))
		die("/proc/sys/vm/drop_caches");
	dropping += now() - t0;
}

static void small(const char *verb, const char *top, long n, long per)
{
	char dir[4000], path[4096];
	uint8_t buf[4096];
	struct stat st;

	snprintf(dir, sizeof dir, "%s", top);
	for (long i = 0; i < n; i++) {
		int fd;
		drop(i);
		if (per && i % per == 0) {
			snprintf(dir, sizeof dir, "%s/dir-%04ld", top, i / per);
			if (!strcmp(verb, "create") && mkdir(dir, 0755))
				die(dir);
		}
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
		} else {
			bool last = per && (i % per == per - 1 || i == n - 1);
			if (unlink(path) || (last && rmdir(dir)))
				die(path);
		}
	}
}

static void name_of(char *path, size_t len, const char *dir, const char *what, long i)
{
	snprintf(path, len, "%s/%s-%06ld", dir, what, i);
}

static void names(const char *verb, const char *dir, long n)
{
	char path[4096], other[4096];
	struct stat st;

	for (long i = 0; i < n; i++) {
		drop(i);
		name_of(path, sizeof path, dir, "file", i);
		name_of(other, sizeof other, dir, "other", i);
		if (!strcmp(verb, "touch")) {
			int fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0644);
			if (fd < 0 || close(fd))
				die(path);
		} else if (!strcmp(verb, "lookup")) {
			if (stat(path, &st))
				die(path);
		} else if (rename(path, other)) {
			die(path);
		}
	}
	drop(batch);
	for (long i = 0; i < n && !strcmp(verb, "rename"); i++) {
		drop(i);
		name_of(path, sizeof path, dir, "file", i);
		name_of(other, sizeof other, dir, "other", i);
		if (rename(other, path))
			die(other);
	}
}

static void list(const char *path, long n)
{
	DIR *d = opendir(path);
	long seen = 0;

	if (!d)
		die(path);
	while (readdir(d))
		seen++;
	closedir(d);
	if (seen != n + 2) {
		fprintf(stderr, "ops: %s: %ld entries, not %ld\n", path, seen, n + 2);
		exit(3);
	}
}

#define THREADS 8
struct mixed {
	const char *dir;
	long who, n;
};

static void *mixed_main(void *arg)
{
	const struct mixed *m = arg;
	char dir[4000], path[4096], other[4096];
	uint8_t buf[4096];
	struct stat st;

	name_of(dir, sizeof dir, m->dir, "thread", m->who);
	if (mkdir(dir, 0755))
		die(dir);
	for (long i = 0; i < m->n; i++) {
		name_of(path, sizeof path, dir, "file", i);
		name_of(other, sizeof other, dir, "other", i);
		fill(buf, sizeof buf, (uint64_t)i << 20);
		int fd = open(path, O_RDWR | O_CREAT | O_EXCL, 0644);
		if (fd < 0 || write(fd, buf, sizeof buf) != sizeof buf ||
		    pread(fd, buf, sizeof buf, 0) != sizeof buf || close(fd))
			die(path);
		if (rename(path, other) || stat(other, &st) || st.st_size != sizeof buf)
			die(other);
		/* Some stay for a while. */
		name_of(other, sizeof other, dir, "other", i - 32);
		if (i >= 32 && unlink(other))
			die(other);
	}
	return NULL;
}

static void mixed(const char *dir, long n)
{
	struct mixed m[THREADS];
	pthread_t t[THREADS];

	for (long i = 0; i < THREADS; i++) {
		m[i] = (struct mixed){dir, i, n / THREADS};
		if (pthread_create(&t[i], NULL, mixed_main, &m[i]))
			die("a thread");
	}
	for (long i = 0; i < THREADS; i++)
		pthread_join(t[i], NULL);
}

static void mapped(const char *path, long n)
{
	const size_t len = (size_t)64 << 20;
	int fd = open(path, O_RDWR | O_CREAT, 0644);

	if (fd < 0 || ftruncate(fd, (off_t)len))
		die(path);
	uint8_t *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED)
		die(path);
	for (long i = 0; i < n; i++)
		put_le64(p + rnd() % (len / 4096) * 4096, (uint64_t)i);
	if (msync(p, len, MS_SYNC) || munmap(p, len) || close(fd))
		die(path);
}

static void holes(const char *path, long n)
{
	int fd = open(path, O_RDONLY);
	off_t at = 0, end;
	long parts = 0;

	if (fd < 0)
		die(path);
	while ((at = lseek(fd, at, SEEK_DATA)) >= 0) {
		end = lseek(fd, at, SEEK_HOLE);
		if (end <= at)
			die(path);
		at = end;
		parts++;
	}
	if (errno != ENXIO)
		die(path);
	close(fd);
	if (parts != n) {
		fprintf(stderr, "ops: %s: %ld parts, not %ld\n", path, parts, n);
		exit(3);
	}
}

static void rows(const char *path, long n)
{
	sqlite3 *db;
	int rc = sqlite3_open(path, &db);

	if (!rc)
		rc = sqlite3_exec(db, "CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB)", NULL,
				  NULL, NULL);
	for (long i = 0; i < n && !rc; i++)
		rc = sqlite3_exec(db, "INSERT INTO t(v) VALUES(randomblob(200))", NULL, NULL,
				  NULL);
	if (rc) {
		fprintf(stderr, "ops: %s: %s\n", path, sqlite3_errmsg(db));
		exit(1);
	}
	sqlite3_close(db);
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
	if (argc < 4 || argc > 6)
		return 2;
	const char *verb = argv[1], *path = argv[2], *unit = "1/s";
	long n = atol(argv[3]), per = argc > 5 ? atol(argv[5]) : 0;
	double scale = 1, t0;
	struct stat st;
	int fd = -1;

	batch = argc > 4 ? atol(argv[4]) : 0;
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
				/* One block is made, then numbered, to measure the disk path.
				 */
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
			if (got != 4096 || (!strcmp(verb, "randsync") && fdatasync(fd)))
				die(path);
		}
		close(fd);
	} else if (!strcmp(verb, "append")) {
		for (long i = 0; i < n; i++)
			if (write(fd, buf, 100) != 100 || fsync(fd))
				die(path);
		close(fd);
	} else if (!strcmp(verb, "touch") || !strcmp(verb, "lookup") ||
		   !strcmp(verb, "rename")) {
		names(verb, path, n);
		scale = strcmp(verb, "rename") ? 1 : 2;
	} else if (!strcmp(verb, "list")) {
		list(path, n);
	} else if (!strcmp(verb, "mixed")) {
		mixed(path, n);
	} else if (!strcmp(verb, "mmap")) {
		mapped(path, n);
	} else if (!strcmp(verb, "holes")) {
		holes(path, n);
	} else if (!strcmp(verb, "sqlite")) {
		rows(path, n);
	} else {
		small(verb, path, n, per);
	}
	printf("%.1f %s\n", (double)n * scale / (now() - t0 - dropping), unit);
	return 0;
}
