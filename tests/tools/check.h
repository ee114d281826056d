/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * check: what the programs that check a mounted directory share.  Every check is counted;
 * a failed one is a line with file and line, what was expected and what came.  A program is
 * a table of groups; each runs in a process of its own, in an empty directory of its own
 * that is its working directory (so that nobody needs rights on the path to it), with a
 * time limit, and what it leaves is removed.
 */
#ifndef HOLDFAST_TESTS_CHECK_H
#define HOLDFAST_TESTS_CHECK_H

#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "net/base.h"

/* Two users that are not root, and no group of theirs but the one of the same number. */
#define USER1 12001
#define USER2 12002

struct tally {
	unsigned long checks, failed;
};
static struct tally *tally; /* shared with every child */

static inline void check_count(bool good)
{
	__atomic_add_fetch(&tally->checks, 1, __ATOMIC_RELAXED);
	if (!good)
		__atomic_add_fetch(&tally->failed, 1, __ATOMIC_RELAXED);
}

static inline long long check_ok(long long r, const char *file, int line, const char *what)
{
	int e = errno;

	check_count(r >= 0);
	if (r < 0)
		printf("%s:%d: %s: expected success, came %s\n", file, line, what, strerror(e));
	return r;
}

/* other: a second errno that is as good, or 0. */
static inline void check_fails(long long r, int want, int other, const char *file, int line,
			       const char *what)
{
	int e = errno;
	bool good = r < 0 && (e == want || (other && e == other));

	check_count(good);
	if (!good)
		printf("%s:%d: %s: expected %s, came %s\n", file, line, what,
		       strerrorname_np(want), r < 0 ? strerrorname_np(e) : "success");
}

static inline void check_eq(long long want, long long got, const char *file, int line,
			    const char *what)
{
	check_count(want == got);
	if (want != got)
		printf("%s:%d: %s: expected %lld (0%llo), came %lld (0%llo)\n", file, line,
		       what, want, (unsigned long long)want, got, (unsigned long long)got);
}

static inline bool check_true(bool good, const char *file, int line, const char *what)
{
	check_count(good);
	if (!good)
		printf("%s:%d: expected %s\n", file, line, what);
	return good;
}

#define OK(call)	     check_ok((long long)(call), __FILE__, __LINE__, #call)
#define FD(call)	     ((int)OK(call))
#define FAILS(err, call)     check_fails((long long)(call), err, 0, __FILE__, __LINE__, #call)
#define FAILS2(err, o, call) check_fails((long long)(call), err, o, __FILE__, __LINE__, #call)
#define EQ(want, got) \
	check_eq((long long)(want), (long long)(got), __FILE__, __LINE__, #got)
#define CNT(a)		     (sizeof(a) / sizeof((a)[0]))
#define IS(cond)	     check_true(cond, __FILE__, __LINE__, #cond)

static inline struct stat check_stat(const char *path, int fd, const char *file, int line)
{
	struct stat st;

	memset(&st, 0, sizeof(st));
	check_ok(path ? lstat(path, &st) : fstat(fd, &st), file, line, path ? path : "fstat");
	return st;
}
#define stat_of(path) check_stat(path, -1, __FILE__, __LINE__)
#define stat_fd(fd)   check_stat(NULL, fd, __FILE__, __LINE__)
#define MODE(path)    (stat_of(path).st_mode & 07777)

/* Long enough that a coarse clock has moved on. */
static inline void nap_ms(long ms)
{
	nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000},
		  NULL);
}
static inline int64_t ns_of(struct timespec t)
{
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static inline void check_put(const char *path, const void *p, size_t len, const char *file,
			     int line)
{
	int fd =
		(int)check_ok(open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644), file, line, path);

	check_eq((long long)len, write(fd, p, len), file, line, path);
	check_ok(close(fd), file, line, path);
}
#define put_file(path, p, len) check_put(path, p, len, __FILE__, __LINE__)
#define touch(path)	       put_file(path, "", 0)

/* Bytes that differ from place to place. */
static inline void pattern(uint8_t *p, size_t len, uint64_t salt)
{
	for (size_t i = 0; i < len; i++)
		p[i] = (uint8_t)(((i + salt) * 2654435761u) >> 11);
}
static inline bool all_zero(const uint8_t *p, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (p[i])
			return false;
	return true;
}

/*
 * if (child()) { ... _exit(0); }: the block in a process of its own, which is waited for.
 * as(uid): as that user, with that group alone.
 */
static inline bool child_end(pid_t pid)
{
	int status = 0;

	if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status) ||
	    WEXITSTATUS(status)) {
		check_count(false);
		printf("a child ended with wait status %#x\n", (unsigned)status);
	}
	return false;
}
static inline bool child(void)
{
	pid_t pid = fork();

	return pid == 0 ? true : child_end(pid);
}
static inline bool as(unsigned uid)
{
	pid_t pid = fork();

	if (pid)
		return child_end(pid);
	if (setgroups(0, NULL) || setresgid(uid, uid, uid) || setresuid(uid, uid, uid)) {
		perror("becoming another user");
		_exit(1);
	}
	return true;
}

/* Removes everything in the directory; names are looked at afresh until none is left. */
static inline int remove_within(int dirfd)
{
	int err = 0;

	for (;;) {
		char buf[32768];
		long n;
		bool any = false;

		if (lseek(dirfd, 0, SEEK_SET) < 0)
			return -1;
		while ((n = syscall(SYS_getdents64, dirfd, buf, sizeof(buf))) > 0) {
			for (long at = 0; at < n;) {
				char *name = buf + at + 19;
				uint16_t len;

				memcpy(&len, buf + at + 16, 2);
				at += len;
				if (!strcmp(name, ".") || !strcmp(name, ".."))
					continue;
				if (!unlinkat(dirfd, name, 0)) {
					any = true;
					continue;
				}
				int d = -1;

				if (!fchmodat(dirfd, name, 0700, 0))
					d = openat(dirfd, name,
						   O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
				if (d < 0 || remove_within(d) ||
				    unlinkat(dirfd, name, AT_REMOVEDIR)) {
					printf("cannot remove %s: %s\n", name, strerror(errno));
					err = -1;
				}
				if (d >= 0)
					close(d);
				any |= !err;
			}
		}
		if (n < 0 || err || !any)
			return n < 0 ? -1 : err;
	}
}

struct checks {
	const char *name;
	void (*run)(void);
	bool root;
};

static inline void group_child(const struct checks *g, const char *dir)
{
	/* Everything of one group has its time, whatever it waits for. */
	alarm(300);
	setpgid(0, 0);
	umask(022);
	if (chdir(dir)) {
		printf("%s: %s\n", dir, strerror(errno));
		_exit(1);
	}
	g->run();
	_exit(0);
}

static inline int check_main(int argc, char **argv, const struct checks *groups)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	signal(SIGPIPE, SIG_IGN);
	tally = mmap(NULL, sizeof(*tally), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
		     -1, 0);
	if (argc < 2 || tally == MAP_FAILED || chdir(argv[1])) {
		fprintf(stderr, "usage: %s DIR [GROUP]...: %s\n", argv[0], strerror(errno));
		return 2;
	}
	for (const struct checks *g = groups; g->name; g++) {
		char dir[64];
		bool wanted = argc == 2;

		for (int i = 2; i < argc; i++)
			wanted |= !strcmp(argv[i], g->name);
		if (!wanted)
			continue;
		if (g->root && geteuid()) {
			printf("%s: left out, needs root\n", g->name);
			continue;
		}
		snprintf(dir, sizeof(dir), "%.20s.%d", g->name, (int)getpid());
		if (mkdir(dir, 0755)) {
			printf("%s: mkdir: %s\n", dir, strerror(errno));
			return 1;
		}
		unsigned long failed = tally->failed;
		int64_t t0 = now_ms();
		int status = 0;
		pid_t pid = fork();

		if (pid == 0)
			group_child(g, dir);
		waitpid(pid, &status, 0);
		kill(-pid, SIGKILL); /* what it may have left waiting */
		check_count(status == 0);
		if (WIFSIGNALED(status))
			printf("%s: killed by signal %d (%s)\n", g->name, WTERMSIG(status),
			       strsignal(WTERMSIG(status)));
		int d = FD(open(dir, O_RDONLY | O_DIRECTORY));
		OK(remove_within(d));
		OK(close(d));
		OK(rmdir(dir));
		if (tally->failed != failed)
			printf("%s: %lu failed\n", g->name, tally->failed - failed);
		else if (getenv("VERBOSE"))
			printf("%s: %lld ms\n", g->name, (long long)(now_ms() - t0));
	}
	printf("%lu checks, %lu failed\n", tally->checks, tally->failed);
	return tally->failed != 0;
}

#endif
