/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * treesum DIR: one line an entry, sorted by path, of everything a copy must keep: type, mode,
 * owner, times, links, xattrs and ACLs, targets, device numbers, contents, holes.  Two trees
 * are the same when the outputs are.  -t: without directory times; -h: with the layout of holes.
 */
#include <dirent.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>
#include "net/base.h"

static bool with_times = true, with_holes = false;
struct seen {
	dev_t dev;
	ino_t ino;
	char *path;
};
static struct seen *seen;
static size_t seen_cnt, seen_cap;

static void die(const char *what, const char *path)
{
	fprintf(stderr, "treesum: %s %s: %s\n", what, path, strerror(errno));
	exit(1);
}

static void print_hash(crypto_generichash_state *h)
{
	uint8_t out[16];
	char hex[33];
	crypto_generichash_final(h, out, sizeof(out));
	printf(" %s", sodium_bin2hex(hex, sizeof(hex), out, sizeof(out)));
}

static void print_contents(int dir, const char *name, const char *path)
{
	static uint8_t buf[1 << 20];
	crypto_generichash_state h;
	int fd = openat(dir, name, O_RDONLY | O_NOFOLLOW);
	ssize_t n;

	if (fd < 0 && errno == EACCES) {
		printf(" (no permission)");
		return;
	}
	if (fd < 0)
		die("open", path);
	crypto_generichash_init(&h, NULL, 0, 16);
	off_t at = 0, end = lseek(fd, 0, SEEK_END);
	/* Holes hash as a count of zeros, so that huge sparse files are cheap to compare. */
	while (at < end) {
		off_t data = lseek(fd, at, SEEK_DATA);
		if (data < 0)
			data = errno == ENXIO ? end : at;
		off_t hole = data < end ? lseek(fd, data, SEEK_HOLE) : end;
		if (with_holes)
			printf(" [%lld,%lld)", (long long)data, (long long)hole);
		/* Whole blocks, since file systems differ in where they let a hole begin. */
		data &= ~(off_t)4095;
		hole = hole < 0 ? end : HF_MIN(end, (hole + 4095) & ~(off_t)4095);
		for (; data < hole; data += n) {
			n = pread(fd, buf, (size_t)HF_MIN((off_t)sizeof(buf), hole - data), data);
			if (n <= 0)
				die("read", path);
			/* Blocks of zeros count as holes: a copy may have made or filled one. */
			for (ssize_t i = 0; i < n;) {
				ssize_t len = HF_MIN(4096 - (data + i) % 4096, n - i);
				if (!sodium_is_zero(buf + i, (size_t)len)) {
					uint8_t off[8];
					put_le64(off, (uint64_t)(data + i));
					crypto_generichash_update(&h, off, 8);
					crypto_generichash_update(&h, buf + i, (size_t)len);
				}
				i += len;
			}
		}
		at = hole;
	}
	close(fd);
	print_hash(&h);
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static void print_xattrs(const char *path)
{
	static char list[1 << 16], value[1 << 16];
	ssize_t len = llistxattr(path, list, sizeof(list));
	char *names[1024];
	size_t cnt = 0;

	if (len < 0)
		die("listxattr", path);
	for (char *p = list; p < list + len && cnt < 1024; p += strlen(p) + 1)
		names[cnt++] = p;
	qsort(names, cnt, sizeof(*names), by_name);
	for (size_t i = 0; i < cnt; i++) {
		crypto_generichash_state h;
		ssize_t n = lgetxattr(path, names[i], value, sizeof(value));
		if (n < 0)
			die("getxattr", path);
		crypto_generichash_init(&h, NULL, 0, 16);
		crypto_generichash_update(&h, (uint8_t *)value, (size_t)n);
		printf(" %s=", names[i]);
		print_hash(&h);
	}
}

static const char *linked(const struct stat *st, const char *path)
{
	for (size_t i = 0; i < seen_cnt; i++)
		if (seen[i].dev == st->st_dev && seen[i].ino == st->st_ino)
			return seen[i].path;
	if (seen_cnt == seen_cap) {
		seen_cap = seen_cap ? 2 * seen_cap : 64;
		seen = realloc(seen, seen_cap * sizeof(*seen));
		if (!seen)
			die("memory", path);
	}
	seen[seen_cnt++] = (struct seen){st->st_dev, st->st_ino, strdup(path)};
	return NULL;
}

static void walk(const char *path);

static void walk_dir(const char *path)
{
	char **names = NULL;
	size_t cnt = 0, cap = 0;
	DIR *d = opendir(path);
	struct dirent *e;

	if (!d)
		die("opendir", path);
	while ((errno = 0, e = readdir(d))) {
		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		if (cnt == cap) {
			cap = cap ? 2 * cap : 64;
			names = realloc(names, cap * sizeof(*names));
			if (!names)
				die("memory", path);
		}
		names[cnt++] = strdup(e->d_name);
	}
	if (errno)
		die("readdir", path);
	closedir(d);
	if (cnt)
		qsort(names, cnt, sizeof(*names), by_name);
	for (size_t i = 0; i < cnt; i++) {
		char *sub;
		if (asprintf(&sub, "%s/%s", path, names[i]) < 0)
			die("memory", path);
		walk(sub);
		free(sub);
		free(names[i]);
	}
	free(names);
}

static void walk(const char *path)
{
	struct stat st;
	if (lstat(path, &st) < 0)
		die("lstat", path);
	printf("%s %06o %u:%u", path, st.st_mode, st.st_uid, st.st_gid);
	if (!S_ISDIR(st.st_mode) || with_times)
		printf(" %lld.%09ld", (long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
	const char *first = NULL;
	if (!S_ISDIR(st.st_mode)) {
		printf(" n%lu s%lld", (unsigned long)st.st_nlink, (long long)st.st_size);
		if (st.st_nlink > 1)
			first = linked(&st, path);
	}
	if (first)
		printf(" =%s", first);
	else if (S_ISREG(st.st_mode))
		print_contents(AT_FDCWD, path, path);
	if (S_ISLNK(st.st_mode)) {
		char target[4097];
		ssize_t n = readlink(path, target, sizeof(target) - 1);
		if (n < 0)
			die("readlink", path);
		target[n] = 0;
		printf(" -> %s", target);
	}
	if (S_ISCHR(st.st_mode) || S_ISBLK(st.st_mode))
		printf(" %u,%u", major(st.st_rdev), minor(st.st_rdev));
	print_xattrs(path);
	putchar('\n');
	if (S_ISDIR(st.st_mode))
		walk_dir(path);
}

int main(int argc, char **argv)
{
	int i = 1;
	for (; i < argc && argv[i][0] == '-'; i++) {
		with_times = with_times && strcmp(argv[i], "-t");
		with_holes = with_holes || !strcmp(argv[i], "-h");
	}
	if (sodium_init() < 0 || i + 1 != argc) {
		fprintf(stderr, "usage: treesum [-t] [-h] DIR\n");
		return 2;
	}
	walk(argv[i]);
	return fflush(stdout) ? 1 : 0;
}
