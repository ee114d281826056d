/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * powercut: a disk that loses what was not synced, below one directory.  fsync and fdatasync
 * of this process, SQLite's too, note what they make durable: the bytes of a file, the names
 * of a directory.  A cut is a directory as it may be found afterwards: of everything else,
 * any part may be there or not, by names, sizes and blocks of 4 KiB.
 *
 * Nothing is really synced: the test runs in memory as far as the kernel lets it.
 */
#ifndef HOLDFAST_TESTS_POWERCUT_H
#define HOLDFAST_TESTS_POWERCUT_H

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PC_BLOCK 4096

enum pc_mode { PC_LOSE, PC_KEEP, PC_MIX }; /* of what was not synced */

static struct {
	char root[96], disk[112]; /* root empty: off */
	unsigned syncs;
	unsigned fail; /* the sync of that number fails; 0: none */
	void (*dir_hook)(void); /* before the next sync of a directory, once */
} pc;

/* Numbers of inodes are used again; with the time of birth they are not. */
static void pc_key(const char *path, char out[64])
{
	struct statx s = {0};

	if (statx(AT_FDCWD, path, 0, STATX_INO | STATX_BTIME, &s))
		abort();
	snprintf(out, 64, "%llx-%llx.%x", (unsigned long long)s.stx_ino,
		 (unsigned long long)s.stx_btime.tv_sec, s.stx_btime.tv_nsec);
}

static void pc_copy(const char *from, const char *to)
{
	static __thread uint8_t b[1 << 16];
	int in = open(from, O_RDONLY), out = open(to, O_RDWR | O_CREAT | O_TRUNC, 0600);
	struct stat s;

	if (in < 0 || out < 0 || fstat(in, &s) || ftruncate(out, s.st_size))
		abort();
	for (off_t at = 0; (at = lseek(in, at, SEEK_DATA)) >= 0;) {
		off_t end = lseek(in, at, SEEK_HOLE);
		while (at < end) {
			size_t want = end - at < (off_t)sizeof b ? (size_t)(end - at) : sizeof b;
			ssize_t n = pread(in, b, want, at);
			if (n <= 0)
				break;
			if (pwrite(out, b, (size_t)n, at) != n)
				abort();
			at += n;
		}
		at = end;
	}
	close(in);
	close(out);
}

static void pc_list(const char *path, const char *to)
{
	DIR *d = opendir(path);
	FILE *f = fopen(to, "w");
	struct dirent *e;

	if (!d || !f)
		abort();
	while ((e = readdir(d))) {
		char sub[600], key[64];
		if (e->d_name[0] == '.')
			continue;
		snprintf(sub, sizeof sub, "%s/%s", path, e->d_name);
		pc_key(sub, key);
		fprintf(f, "%s %s\n", e->d_name, key);
	}
	closedir(d);
	fclose(f);
}

static int pc_sync(int fd)
{
	char link[64], path[300], key[64], to[200];
	struct stat s;

	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	ssize_t n = readlink(link, path, sizeof path - 1);
	if (n < 0 || !*pc.root)
		return 0;
	path[n] = 0;
	size_t len = strlen(pc.root);
	if (strncmp(path, pc.root, len) || (path[len] && path[len] != '/'))
		return 0;
	if (pc.fail && ++pc.syncs == pc.fail) {
		errno = EIO;
		return -1;
	}
	if (fstat(fd, &s) || !s.st_nlink)
		return 0;
	if (S_ISDIR(s.st_mode) && pc.dir_hook) {
		void (*hook)(void) = pc.dir_hook;
		pc.dir_hook = NULL;
		hook();
	}
	pc_key(link, key);
	snprintf(to, sizeof to, "%s/%s", pc.disk, key);
	if (S_ISDIR(s.st_mode))
		pc_list(path, to);
	else
		pc_copy(link, to);
	return 0;
}

int fsync(int fd)
{
	return pc_sync(fd);
}

int fdatasync(int fd)
{
	return pc_sync(fd);
}

static int pc_sync_below(const char *path)
{
	int fd = open(path, O_RDONLY | O_NOFOLLOW), err = fd < 0 ? -1 : pc_sync(fd);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;
	char sub[600];

	while (d && !err && (e = readdir(d))) {
		snprintf(sub, sizeof sub, "%s/%s", path, e->d_name);
		if (e->d_name[0] != '.')
			err = pc_sync_below(sub);
	}
	if (d)
		closedir(d);
	else if (fd >= 0)
		close(fd);
	return err;
}

int syncfs(int fd)
{
	(void)fd;
	return *pc.root ? pc_sync_below(pc.root) : 0;
}

static void pc_on(const char *root)
{
	snprintf(pc.root, sizeof pc.root, "%s", root);
	snprintf(pc.disk, sizeof pc.disk, "%s.disk", root);
	if (mkdir(pc.disk, 0700))
		abort();
	/* The directory itself is the caller's affair: it is there. */
}

static void pc_off(void)
{
	*pc.root = 0;
}

/* One file: what was synced of it (may be nothing) and what it is now (if it is there). */
static void pc_file(const char *synced, const char *now, const char *to, enum pc_mode mode,
		    uint64_t (*rnd)(uint64_t n))
{
	static uint8_t a[PC_BLOCK], b[PC_BLOCK];
	int was = open(synced, O_RDONLY), is = now ? open(now, O_RDONLY) : -1;
	int out = open(to, O_RDWR | O_CREAT | O_TRUNC, 0600);
	struct stat sa = {0}, sb = {0};

	if (out < 0 || (was >= 0 && fstat(was, &sa)) || (is >= 0 && fstat(is, &sb)))
		abort();
	if (is < 0 && was >= 0)
		mode = PC_LOSE;
	bool later = mode == PC_KEEP || (mode == PC_MIX && rnd(2));
	off_t size = later ? sb.st_size : sa.st_size;
	off_t most = sa.st_size > sb.st_size ? sa.st_size : sb.st_size;
	for (off_t at = 0; at < most;) {
		/* Where both have a hole there is nothing to do. */
		off_t da = was >= 0 ? lseek(was, at, SEEK_DATA) : -1;
		off_t db = is >= 0 ? lseek(is, at, SEEK_DATA) : -1;
		off_t next = da < 0 ? db : db < 0 || da < db ? da : db;
		if (next < 0)
			break;
		at = next / PC_BLOCK * PC_BLOCK;
		memset(a, 0, sizeof a);
		memset(b, 0, sizeof b);
		if ((was >= 0 && pread(was, a, PC_BLOCK, at) < 0) ||
		    (is >= 0 && pread(is, b, PC_BLOCK, at) < 0))
			abort();
		bool l = mode == PC_KEEP || (mode == PC_MIX && rnd(2));
		if (pwrite(out, l ? b : a, PC_BLOCK, at) != PC_BLOCK)
			abort();
		at += PC_BLOCK;
	}
	if (ftruncate(out, size))
		abort();
	if (was >= 0)
		close(was);
	if (is >= 0)
		close(is);
	close(out);
}

static void pc_dir(const char *now, const char *to, enum pc_mode mode,
		   uint64_t (*rnd)(uint64_t n));

static void pc_name(const char *now, const char *key, const char *to, enum pc_mode mode,
		    uint64_t (*rnd)(uint64_t n))
{
	char synced[200], is[64];
	struct stat s;
	bool here = !stat(now, &s);

	if (here && S_ISDIR(s.st_mode)) {
		pc_dir(now, to, mode, rnd);
		return;
	}
	if (here) {
		pc_key(now, is);
		here = !strcmp(is, key);
	}
	snprintf(synced, sizeof synced, "%s/%s", pc.disk, key);
	pc_file(synced, here ? now : NULL, to, mode, rnd);
}

static void pc_dir(const char *now, const char *to, enum pc_mode mode,
		   uint64_t (*rnd)(uint64_t n))
{
	char key[64], path[300], name[300], there[600], made[600];
	struct dirent *e;

	if (mkdir(to, 0700))
		abort();
	pc_key(now, key);
	snprintf(path, sizeof path, "%s/%s", pc.disk, key);
	FILE *f = fopen(path, "r");
	while (f && fscanf(f, "%299s %63s", name, key) == 2) {
		struct stat s;
		snprintf(there, sizeof there, "%s/%s", now, name);
		snprintf(made, sizeof made, "%s/%s", to, name);
		bool gone = stat(there, &s) != 0;
		if (gone && (mode == PC_KEEP || (mode == PC_MIX && rnd(2))))
			continue; /* its removal made it to the disk */
		pc_name(there, key, made, mode, rnd);
	}
	if (f)
		fclose(f);
	DIR *d = mode == PC_LOSE ? NULL : opendir(now);
	while (d && (e = readdir(d))) {
		if (e->d_name[0] == '.' || (mode == PC_MIX && rnd(2)))
			continue;
		snprintf(there, sizeof there, "%s/%s", now, e->d_name);
		snprintf(made, sizeof made, "%s/%s", to, e->d_name);
		if (!access(made, F_OK))
			continue;
		pc_key(there, key);
		pc_name(there, key, made, mode, rnd);
	}
	if (d)
		closedir(d);
}

/* The directory as it may be found after the power went now. */
static void pc_cut(const char *to, enum pc_mode mode, uint64_t (*rnd)(uint64_t n))
{
	char root[96];

	snprintf(root, sizeof root, "%s", pc.root);
	*pc.root = 0;
	pc_dir(root, to, mode, rnd);
	snprintf(pc.root, sizeof pc.root, "%s", root);
}

#endif
