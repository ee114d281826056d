/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * sides: two directories that must be alike, for differ.c.  BOTH makes a call on each side and
 * compares what came; the compare functions go through attributes, contents, xattrs and
 * whole trees.  The first difference prints the last operations said and ends the program.
 */
#ifndef HOLDFAST_TESTS_SIDES_H
#define HOLDFAST_TESTS_SIDES_H

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>
#include "net/base.h"

#define SIDES	  2
#define FILE_MAX (6 << 20) /* files are kept about this small */
#define KEPT	  60
#define PATH_CAP  400

static const char *root_path[SIDES];
static int root[SIDES];
static uint64_t seed;
static unsigned long step;
static char kept[KEPT][400];
static unsigned kept_at;
static unsigned long calls, failed;
static uint8_t in[SIDES][FILE_MAX + (1 << 20)]; /* what was read */

static void say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void say(const char *fmt, ...)
{
	char *line = kept[kept_at++ % KEPT];
	int n = snprintf(line, sizeof(kept[0]), "%lu: ", step);
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line + n, sizeof(kept[0]) - (size_t)n, fmt, ap);
	va_end(ap);
}

static void differ(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));
static void differ(const char *fmt, ...)
{
	va_list ap;

	printf("the last operations:\n");
	for (unsigned i = kept_at > KEPT ? kept_at - KEPT : 0; i < kept_at; i++)
		printf("  %s\n", kept[i % KEPT]);
	printf("DIFFERENT at step %lu, seed %llu: ", step, (unsigned long long)seed);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	printf("\n");
	fflush(stdout);
	exit(1);
}

static const char *result(int64_t r, int e)
{
	static char text[SIDES][64];
	static int at;

	at = !at;
	if (r < 0)
		snprintf(text[at], sizeof(text[0]), "%s", strerrorname_np(e));
	else
		snprintf(text[at], sizeof(text[0]), "%lld", (long long)r);
	return text[at];
}

/* What a call returned on both sides; descriptors count as 0.  0 or -errno, the same for both.
 */
static int64_t same(const int64_t r[SIDES], const int e[SIDES], const char *what)
{
	char *line = kept[(kept_at - 1) % KEPT];
	size_t n = strlen(line);

	snprintf(line + n, sizeof(kept[0]) - n, " = %s", result(r[0], e[0]));
	if ((r[0] < 0) != (r[1] < 0) || (r[0] < 0 ? e[0] != e[1] : r[0] != r[1]))
		differ("%s returned %s in %s but %s in %s", what, result(r[0], e[0]),
		       root_path[0], result(r[1], e[1]), root_path[1]);
	calls++;
	failed += r[0] < 0;
	return r[0] < 0 ? -e[0] : r[0];
}

/* Does the expression for s = 0 and 1 and compares; `s` is the side. */
#define BOTH(what, expr)                                                                       \
	({                                                                                     \
		int64_t r_[SIDES];                                                             \
		int e_[SIDES];                                                                 \
		for (int s = 0; s < SIDES; s++) {                                              \
			errno = 0;                                                             \
			r_[s] = (int64_t)(expr);                                               \
			e_[s] = errno;                                                         \
		}                                                                              \
		same(r_, e_, what);                                                            \
	})

static void compare_stat(const struct stat st[SIDES], const char *what, bool times)
{
	const struct stat *a = &st[0], *b = &st[1];
	bool dir = S_ISDIR(a->st_mode);

	if (a->st_mode != b->st_mode)
		differ("%s: mode 0%o and 0%o", what, a->st_mode, b->st_mode);
	if (!dir && a->st_nlink != b->st_nlink)
		differ("%s: nlink %lu and %lu", what, (unsigned long)a->st_nlink,
		       (unsigned long)b->st_nlink);
	if (!dir && a->st_size != b->st_size)
		differ("%s: size %lld and %lld", what, (long long)a->st_size,
		       (long long)b->st_size);
	if (a->st_uid != b->st_uid || a->st_gid != b->st_gid)
		differ("%s: owner %u:%u and %u:%u", what, a->st_uid, a->st_gid, b->st_uid,
		       b->st_gid);
	if (times && (memcmp(&a->st_mtim, &b->st_mtim, sizeof(a->st_mtim)) ||
		      memcmp(&a->st_atim, &b->st_atim, sizeof(a->st_atim))))
		differ("%s: times %lld.%09ld %lld.%09ld and %lld.%09ld %lld.%09ld", what,
		       (long long)a->st_atim.tv_sec, a->st_atim.tv_nsec,
		       (long long)a->st_mtim.tv_sec, a->st_mtim.tv_nsec,
		       (long long)b->st_atim.tv_sec, b->st_atim.tv_nsec,
		       (long long)b->st_mtim.tv_sec, b->st_mtim.tv_nsec);
}

static void stat_path(const char *path, int flags, bool times)
{
	struct stat st[SIDES];

	memset(st, 0, sizeof(st));
	if (BOTH("stat", fstatat(root[s], path, &st[s], flags)) >= 0)
		compare_stat(st, path, times);
}

static void compare_bytes(int64_t len, const char *what, int64_t at)
{
	for (int64_t i = 0; i < len; i++)
		if (in[0][i] != in[1][i])
			differ("%s: byte %lld is %#x and %#x", what, (long long)(at + i),
			       in[0][i], in[1][i]);
}

/* The whole of a file that is open. */
static void compare_contents(const int fd[SIDES], const char *what)
{
	for (off_t at = 0;;) {
		int64_t n = BOTH(what, pread(fd[s], in[s], FILE_MAX, at));

		compare_bytes(n, what, at);
		if (n <= 0)
			return;
		at += n;
	}
}

struct listing {
	char **name;
	size_t cnt;
};

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}
static void list_add(struct listing *l, const char *name, int type)
{
	l->name = realloc(l->name, (l->cnt + 1) * sizeof(char *));
	if (!l->name || asprintf(&l->name[l->cnt++], "%s %d", name, type) < 0)
		abort();
}
static void list_free(struct listing *l)
{
	while (l->cnt)
		free(l->name[--l->cnt]);
	free(l->name);
}

/* fd is not closed. */
static int list_dir(int fd, struct listing *l)
{
	struct dirent *e;
	int d = openat(fd, ".", O_RDONLY | O_DIRECTORY);
	DIR *dir = d < 0 ? NULL : fdopendir(d);

	memset(l, 0, sizeof(*l));
	if (!dir)
		return -1;
	while ((e = readdir(dir)))
		list_add(l, e->d_name, e->d_type);
	closedir(dir);
	qsort(l->name, l->cnt, sizeof(char *), by_name);
	return (int)l->cnt;
}

static void compare_lists(const struct listing l[SIDES], const char *what)
{
	for (size_t i = 0; i < HF_MAX(l[0].cnt, l[1].cnt); i++) {
		const char *a = i < l[0].cnt ? l[0].name[i] : "(nothing)";
		const char *b = i < l[1].cnt ? l[1].name[i] : "(nothing)";

		if (strcmp(a, b))
			differ("%s: entry %zu is \"%s\" and \"%s\"", what, i, a, b);
	}
}

static void compare_xattrs(const char *path, bool nofollow)
{
	char names[SIDES][8192], value[SIDES][4096], full[SIDES][PATH_CAP * 2];
	struct listing l[SIDES];

	for (int s = 0; s < SIDES; s++)
		snprintf(full[s], sizeof(full[s]), "/proc/self/fd/%d/%s", root[s], path);
	int64_t r[SIDES];
	int e[SIDES];
	for (int s = 0; s < SIDES; s++) {
		r[s] = nofollow ? llistxattr(full[s], names[s], sizeof(names[s]))
				: listxattr(full[s], names[s], sizeof(names[s]));
		e[s] = errno;
	}
	if (same(r, e, "listxattr") < 0)
		return;
	memset(l, 0, sizeof(l));
	for (int s = 0; s < SIDES; s++) {
		for (int64_t at = 0; at < r[s]; at += (int64_t)strlen(names[s] + at) + 1)
			list_add(&l[s], names[s] + at, 0);
		if (l[s].cnt)
			qsort(l[s].name, l[s].cnt, sizeof(char *), by_name);
	}
	compare_lists(l, "xattrs");
	for (size_t i = 0; i < l[0].cnt; i++) {
		char name[300];

		snprintf(name, sizeof(name), "%s", l[0].name[i]);
		name[strlen(name) - 2] = 0;
		int64_t n =
			BOTH("getxattr", nofollow ? lgetxattr(full[s], name, value[s], 4096)
						  : getxattr(full[s], name, value[s], 4096));
		if (n > 0 && memcmp(value[0], value[1], (size_t)n))
			differ("%s: the value of %s", path, name);
	}
	list_free(&l[0]);
	list_free(&l[1]);
}

/* Everything below a path, which is "" or ends in '/'. */
static void compare_tree(const char *path)
{
	struct listing l[SIDES];
	int d[SIDES];

	say("compare %s", path);
	if (BOTH("open", (d[s] = openat(root[s], *path ? path : ".", O_RDONLY | O_DIRECTORY),
			  HF_MIN(d[s], 0))) < 0)
		return;
	BOTH("listing", list_dir(d[s], &l[s]));
	compare_lists(l, *path ? path : ".");
	close(d[0]);
	close(d[1]);
	for (size_t i = 0; i < l[0].cnt; i++) {
		char sub[PATH_CAP * 8], target[SIDES][4096];
		char *name = l[0].name[i];
		struct stat st[SIDES];

		*strrchr(name, ' ') = 0;
		if (!strcmp(name, ".") || !strcmp(name, ".."))
			continue;
		if ((size_t)snprintf(sub, sizeof(sub), "%s%s", path, name) >= PATH_MAX - 40)
			continue;
		say("compare %.300s", sub);
		memset(st, 0, sizeof(st));
		if (BOTH("lstat", fstatat(root[s], sub, &st[s], AT_SYMLINK_NOFOLLOW)) < 0)
			continue;
		compare_stat(st, sub, false);
		if (S_ISLNK(st[0].st_mode)) {
			int64_t n = BOTH("readlink", readlinkat(root[s], sub, target[s], 4096));
			if (n > 0 && memcmp(target[0], target[1], (size_t)n))
				differ("%s: its target", sub);
		} else if (S_ISREG(st[0].st_mode)) {
			int fd[SIDES];
			if (BOTH("open", (fd[s] = openat(root[s], sub, O_RDONLY),
					  HF_MIN(fd[s], 0))) >= 0) {
				compare_contents(fd, sub);
				close(fd[0]);
				close(fd[1]);
			}
		}
		if (strlen(sub) < PATH_CAP)
			compare_xattrs(sub, true);
		if (S_ISDIR(st[0].st_mode)) {
			strcat(sub, "/");
			compare_tree(sub);
		}
	}
	list_free(&l[0]);
	list_free(&l[1]);
}

#endif
