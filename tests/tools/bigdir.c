/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * bigdir fill DIR N    makes DIR with N empty files, every 1,000th a directory
 * bigdir check DIR N [half]   lists: each name once and no other, types and numbers right;
 *                      looks up names that are there and names that are not.  half: every
 *                      odd name must be gone
 * bigdir halve DIR N   removes every odd name as it is listed; each must be listed once
 * bigdir deep DIR      makes a path of 4,095 bytes below DIR, whose last name has 255
 * bigdir deepcheck DIR it is there, with its contents
 */
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include "net/base.h"

static void die(const char *what)
{
	fprintf(stderr, "bigdir: %s: %s\n", what, strerror(errno));
	exit(1);
}

static const char *name_of(unsigned long i)
{
	static char name[64];

	snprintf(name, sizeof(name), "entry-%lu-of-a-large-directory", i);
	return name;
}
static bool is_dir(unsigned long i)
{
	return i % 1000 == 0;
}

static void fill(unsigned long n)
{
	for (unsigned long i = 0; i < n; i++) {
		if (is_dir(i)) {
			if (mkdir(name_of(i), 0755))
				die(name_of(i));
			continue;
		}
		int fd = open(name_of(i), O_WRONLY | O_CREAT | O_EXCL, 0644);
		if (fd < 0 || close(fd))
			die(name_of(i));
	}
}

/* Lists, removing the odd ones when asked; counts in seen[]. */
static unsigned long list(unsigned long n, uint8_t *seen, bool halve)
{
	unsigned long cnt = 0;
	struct dirent *e;
	DIR *d = opendir(".");

	if (!d)
		die("opendir");
	while (errno = 0, e = readdir(d)) {
		unsigned long i;

		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		if (sscanf(e->d_name, "entry-%lu-", &i) != 1 || i >= n ||
		    strcmp(e->d_name, name_of(i))) {
			fprintf(stderr, "bigdir: a foreign name: %s\n", e->d_name);
			exit(1);
		}
		if (e->d_type != (is_dir(i) ? DT_DIR : DT_REG)) {
			fprintf(stderr, "bigdir: %s has type %d\n", e->d_name, e->d_type);
			exit(1);
		}
		if (seen[i]++) {
			fprintf(stderr, "bigdir: listed twice: %s\n", e->d_name);
			exit(1);
		}
		cnt++;
		if (halve && i % 2 && unlink(e->d_name))
			die(e->d_name);
	}
	if (errno)
		die("readdir");
	closedir(d);
	return cnt;
}

static void check(unsigned long n, bool half)
{
	uint8_t *seen = calloc(n + 1, 1);
	struct stat st;

	if (!seen)
		die("memory");
	unsigned long cnt = list(n, seen, false);
	for (unsigned long i = 0; i < n; i++)
		if (seen[i] != !(half && i % 2)) {
			fprintf(stderr, "bigdir: %s is %slisted\n", name_of(i),
				seen[i] ? "" : "not ");
			exit(1);
		}
	/* Every 97th name, there or gone, and its neighbour that never was. */
	for (unsigned long i = 0; i < n; i += 97) {
		int r = stat(name_of(i), &st);

		if (half && i % 2 ? !r || errno != ENOENT
				  : r || !S_ISDIR(st.st_mode) != !is_dir(i))
			die(name_of(i));
		if (!stat(name_of(n + i), &st) || errno != ENOENT)
			die(name_of(n + i));
	}
	printf("%lu entries\n", cnt);
	free(seen);
}

static void halve(unsigned long n)
{
	uint8_t *seen = calloc(n + 1, 1);

	if (!seen)
		die("memory");
	list(n, seen, true);
	/* A name goes only after it was listed, so all must have been. */
	for (unsigned long i = 0; i < n; i++)
		if (!seen[i]) {
			fprintf(stderr, "bigdir: %s was there and not listed\n", name_of(i));
			exit(1);
		}
	free(seen);
}

/* 19 directories of 200 bytes with their slashes, one that fills up, a name of 255. */
static const char *deep_path(bool make)
{
	static char path[PATH_MAX];
	size_t n = 0;

	while (n < PATH_MAX - 1 - 255) {
		size_t len = HF_MIN(199, PATH_MAX - 1 - 255 - 1 - n);

		memset(path + n, 'a' + (int)(n / 200), len);
		path[n + len] = 0;
		if (make && mkdir(path, 0755))
			die(path);
		path[n + len] = '/';
		n += len + 1;
	}
	memset(path + n, 'z', 255);
	path[n + 255] = 0;
	return path;
}

static void deep(bool make)
{
	const char *path = deep_path(make);
	char got[8] = "";
	int fd = open(path, make ? O_WRONLY | O_CREAT | O_EXCL : O_RDONLY, 0644);

	if (strlen(path) != PATH_MAX - 1 || fd < 0)
		die("a path of 4,095 bytes");
	if (make ? write(fd, "bottom", 6) != 6 : read(fd, got, 8) != 6 || strcmp(got, "bottom"))
		die("its contents");
	close(fd);
}

int main(int argc, char **argv)
{
	if (argc < 3 || (!strcmp(argv[1], "fill") && mkdir(argv[2], 0755)) || chdir(argv[2]))
		die(argc < 3 ? "usage" : argv[2]);
	unsigned long n = argc > 3 ? strtoul(argv[3], NULL, 10) : 0;

	if (!strcmp(argv[1], "fill"))
		fill(n);
	else if (!strcmp(argv[1], "check"))
		check(n, argc > 4);
	else if (!strcmp(argv[1], "halve"))
		halve(n);
	else if (!strcmp(argv[1], "deep") || !strcmp(argv[1], "deepcheck"))
		deep(!argv[1][4]);
	else
		return 2;
	return 0;
}
