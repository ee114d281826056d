/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * fsynced work DIR LOG ID SEED: writes files in DIR/ID for ever: new ones, appends,
 * overwrites in place, renames over, of small and large sizes; after each fsync that returned
 * 0 it notes in LOG/ID (which lies elsewhere) what must now be there.  Ends when DIR fails.
 * fsynced verify DIR LOG: everything noted is there, or something newer that was begun.
 *
 * A file's contents are a function of (name, version, size): version in the first 8 bytes of
 * every 4 KiB block.  The note "name version size" is written before the change as
 * "begin" and after the fsync as "done".  In-place overwrites may be torn between the last
 * done and the begun version, block by block; new and renamed files may not.
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include "net/base.h"

static uint64_t seed;
static uint64_t rnd(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	return seed ^= seed << 17;
}

#define FILES 40
static void fill(uint8_t *p, size_t len, unsigned file, uint64_t version, size_t size)
{
	memset(p, (int)(file + version), len);
	for (size_t at = 0; at + 24 <= len; at += 4096) {
		put_le64(p + at, version);
		put_le64(p + at + 8, file);
		put_le64(p + at + 16, size);
	}
}

static int put(int fd, unsigned file, uint64_t version, size_t size)
{
	static uint8_t buf[1 << 20];
	for (size_t at = 0; at < size;) {
		size_t n = HF_MIN(size - at, sizeof(buf));
		fill(buf, n, file, version, size);
		ssize_t w = pwrite(fd, buf, n, (off_t)at);
		if (w <= 0)
			return -1;
		at += (size_t)w;
	}
	return 0;
}

static int work(const char *dir, const char *log, const char *id)
{
	char own[4096], path[4200], tmp[4200], line[128];
	uint64_t version = (uint64_t)realtime_ns();

	snprintf(own, sizeof(own), "%s/%s", dir, id);
	if (mkdir(own, 0755) && errno != EEXIST)
		return 1;
	int d = open(dir, O_RDONLY | O_DIRECTORY), o = open(own, O_RDONLY | O_DIRECTORY);
	snprintf(path, sizeof(path), "%s/%s", log, id);
	int lf = open(path, O_WRONLY | O_CREAT | O_APPEND, 0644);
	if (d < 0 || o < 0 || lf < 0 || fsync(d))
		return 1;
	for (;;) {
		unsigned f = (unsigned)(rnd() % FILES);
		/* Even files are replaced by rename, odd ones overwritten in place at one size. */
		size_t size = f % 4 == 1 ? 3000 : f % 4 == 3 ? 400000 : 100 + rnd() % (f % 8 ? 20000 : 2000000);
		version++;
		snprintf(path, sizeof(path), "%s/f%u", own, f);
		int n = snprintf(line, sizeof(line), "begin %u %llu %zu\n", f, (unsigned long long)version, size);
		if (write(lf, line, (size_t)n) != n)
			return 1;
		int fd;
		if (f % 2) {
			fd = open(path, O_WRONLY | O_CREAT, 0644);
			if (fd < 0 || put(fd, f, version, size) || fsync(fd) || close(fd) || fsync(o))
				return 0;
		} else {
			snprintf(tmp, sizeof(tmp), "%s/tmp%u", own, f);
			fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC, 0644);
			if (fd < 0 || put(fd, f, version, size) || fsync(fd) || close(fd) ||
			    rename(tmp, path) || fsync(o))
				return 0;
		}
		n = snprintf(line, sizeof(line), "done %u %llu %zu\n", f, (unsigned long long)version, size);
		if (write(lf, line, (size_t)n) != n)
			return 1;
	}
}

struct note {
	uint64_t done, begun;
	size_t done_size;
};

static int verify_file(const char *path, unsigned f, const struct note *n)
{
	static uint8_t buf[4096], want[4096];
	uint64_t first = 0;
	struct stat st;
	int fd = open(path, O_RDONLY);

	if (fd < 0 || fstat(fd, &st)) {
		printf("%s: %s\n", path, strerror(errno));
		return 1;
	}
	if (f % 2 && (size_t)st.st_size != n->done_size) {
		printf("%s: size %lld, fsynced %zu\n", path, (long long)st.st_size, n->done_size);
		return 1;
	}
	if (st.st_size == 0) {
		printf("%s: empty\n", path);
		return 1;
	}
	for (off_t at = 0; at < st.st_size; at += 4096) {
		ssize_t len = pread(fd, buf, sizeof(buf), at);
		if (len <= 0) {
			printf("%s at %lld: %s\n", path, (long long)at, strerror(errno));
			return 1;
		}
		if (len < 24)
			continue;
		uint64_t version = get_le64(buf);
		if (at == 0)
			first = version;
		fill(want, (size_t)len, f, version, (size_t)get_le64(buf + 16));
		/* Only the caller's own versions count; a torn block is two of them. */
		if (version != n->done && (version < n->done || version > n->begun)) {
			printf("%s at %lld: version %llu, fsynced %llu, begun %llu\n", path,
			       (long long)at, (unsigned long long)version,
			       (unsigned long long)n->done, (unsigned long long)n->begun);
			return 1;
		}
		if (f % 2 == 0 && (version != first || get_le64(buf + 16) != (uint64_t)st.st_size || memcmp(buf, want, (size_t)len))) {
			printf("%s at %lld: torn\n", path, (long long)at);
			return 1;
		}
	}
	close(fd);
	return 0;
}

static int verify(const char *dir, const char *log)
{
	char path[4400], line[256];
	unsigned long checked = 0;
	struct dirent *e;
	int bad = 0;
	DIR *d = opendir(log);

	while (d && (e = readdir(d))) {
		struct note notes[FILES] = {0};
		unsigned f;
		unsigned long long v;
		size_t size;
		char word[16];

		if (e->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "%s/%s", log, e->d_name);
		FILE *in = fopen(path, "r");
		while (in && fgets(line, sizeof(line), in)) {
			if (sscanf(line, "%15s %u %llu %zu", word, &f, &v, &size) != 4 || f >= FILES)
				continue;
			notes[f].begun = v;
			if (!strcmp(word, "done")) {
				notes[f].done = v;
				notes[f].done_size = size;
			}
		}
		if (in)
			fclose(in);
		for (f = 0; f < FILES; f++) {
			if (!notes[f].done)
				continue;
			snprintf(path, sizeof(path), "%s/%s/f%u", dir, e->d_name, f);
			bad |= verify_file(path, f, &notes[f]);
			checked++;
		}
	}
	if (d)
		closedir(d);
	printf("%lu fsynced files verified\n", checked);
	return bad;
}

int main(int argc, char **argv)
{
	if (argc == 6 && !strcmp(argv[1], "work")) {
		seed = 0x9e3779b97f4a7c15u ^ strtoull(argv[5], NULL, 10);
		return work(argv[2], argv[3], argv[4]);
	}
	if (argc == 4 && !strcmp(argv[1], "verify"))
		return verify(argv[2], argv[3]);
	return 2;
}
