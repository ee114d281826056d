/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * nth.so, for LD_PRELOAD: the n-th system call of a program fails, or kills it, where the call
 * is about a file below certain directories.  SQLite's and libfuse's calls count as well: all
 * go through libc.  What a descriptor is about is asked of /proc, so nothing has to be
 * remembered of opens, dups and closes.
 *
 * NTH_UNDER: directories, separated by colons; calls about anything else are left alone.
 *
 * NTH_MATCH: the path must hold this word, too.
 *
 * NTH_CALLS: which calls count, separated by commas; all but mem when absent.  write, read,
 * sync (fsync, fdatasync, syncfs), open (and creat, mkstemp, opendir), rename (and link),
 * trunc, unlink (and rmdir), falloc, mkdir, stat (and access, statvfs), mem (malloc and its
 * like, wherever).
 *
 * NTH_N: which of them, from 1, separated by commas; absent or 0: all are only counted.
 *
 * NTH_SITE: only calls of this place of the program, a hash that NTH_SITES has, are counted.
 *
 * NTH_SITES: a file that gets a line for each place of the program, at its first call: kind,
 * hash of the kind and of the callers, callers.
 *
 * NTH_HOW: EIO (the default), ENOSPC, EDQUOT, ENOMEM: an errno.  SHORT: half of a read or a
 * write, EIO of others.  KILL, DIE: SIGKILL before, after the call.  LIE: the call says that it
 * was done and does nothing.
 *
 * NTH_FOR: once (the default), good: all calls from then on; of mem 100 of them.
 *
 * NTH_PAGE: a file that is mapped and gets, as native 64-bit numbers, calls that counted,
 * faults, then calls of each kind in the order of `kinds` below.
 *
 * NTH_REPORT: a file that gets a line for each of the first faults: kind, number, path,
 * callers.
 */
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum kind { WRITE, READ, SYNC, OPEN, RENAME, TRUNC, UNLINK, FALLOC, MKDIR, STAT, MEM, KINDS };
static const char *const kinds[KINDS] = {"write",  "read",   "sync",  "open", "rename", "trunc",
					 "unlink", "falloc", "mkdir", "stat", "mem"};
enum how { ERRNO, SHORT, KILL, DIE, LIE };

#define NS	   16
#define FRAMES	   24	 /* of the callers that make a place */
#define MEM_FRAMES 7	 /* of an allocation */
#define SITES	   65536 /* places; a power of two */
#define REPORTS	   20
#define MEM_RUN	   100
#define PATH_CAP   4352

struct page {
	_Atomic uint64_t counted, faults, kind[KINDS];
};

static struct {
	bool on;
	unsigned kinds;
	const char *under, *match;
	uint64_t n[NS];
	unsigned n_cnt;
	enum how how;
	int err;
	bool good;
	int report, sites;
	uint64_t site; /* 0: any */
	struct page *page;
} cfg = {.report = -1, .sites = -1, .err = EIO};
static struct page own_page;
/* What the library itself does is no call of the program's. */
static __thread bool inside;

/* --- what counts --- */

static bool below(const char *path)
{
	const char *u = cfg.under;

	while (*u) {
		size_t len = strcspn(u, ":");
		if (len && !strncmp(path, u, len) && (!path[len] || path[len] == '/'))
			return !cfg.match || strstr(path, cfg.match);
		u += len + (u[len] == ':');
	}
	return false;
}

/* The path of fd; false when it is nothing that counts. */
static bool fd_path(int fd, char path[PATH_CAP])
{
	char link[40];

	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	ssize_t n = readlink(link, path, PATH_CAP - 1);
	path[n > 0 ? n : 0] = 0;
	return n > 0 && below(path);
}

static bool at_path(int dir, const char *name, char path[PATH_CAP])
{
	size_t len = 0;

	if (name[0] != '/') {
		char link[40];
		snprintf(link, sizeof link, "/proc/self/fd/%d", dir);
		ssize_t n = readlink(dir == AT_FDCWD ? "/proc/self/cwd" : link, path, 4096);
		if (n <= 0)
			return false;
		path[n] = '/';
		len = (size_t)n + 1;
	}
	snprintf(path + len, PATH_CAP - len, "%s", name);
	return below(path);
}

/* The callers, as file+offset. */
static int callers(char *line, int len, int cap, void **frame, int cnt)
{
	for (int i = 0; i < cnt && len < cap - 200; i++) {
		Dl_info d;
		bool known = dladdr(frame[i], &d) && d.dli_fname;
		const char *slash = known ? strrchr(d.dli_fname, '/') : NULL;
		len += snprintf(
			line + len, (size_t)(cap - len), " %.60s+0x%lx",
			slash ? slash + 1 : "?",
			known ? (unsigned long)((char *)frame[i] - (char *)d.dli_fbase) - 1
			      : 0);
	}
	line[len++] = '\n';
	return len;
}

static void report(enum kind k, uint64_t number, const char *path)
{
	char line[PATH_CAP + 1024];
	void *frame[16];
	int len, cnt;

	if (cfg.report < 0)
		return;
	cnt = backtrace(frame, 16);
	len = snprintf(line, sizeof line, "%s %llu %s", kinds[k], (unsigned long long)number,
		       path);
	len = callers(line, len, sizeof line, frame + 2, cnt - 2);
	syscall(SYS_write, cfg.report, line, (size_t)len);
}

/* The place of the program that makes this call: the same in every run, wherever it is loaded.
 */
static __attribute__((noinline)) uint64_t site(enum kind k)
{
	static _Atomic uint64_t seen[SITES];
	void *frame[FRAMES + 3];
	/* This, due(), due_fd() or its like are none of the program's. */
	int cnt = backtrace(frame, (k == MEM ? MEM_FRAMES : FRAMES) + 3),
	    skip = cnt < 3 ? cnt : 3;
	uint64_t h = 0xcbf29ce484222325u + k;
	char line[64 + 80 * FRAMES];

	for (int i = skip; i < cnt; i++) {
		Dl_info d;
		uint64_t off = (uint64_t)(uintptr_t)frame[i];
		if (dladdr(frame[i], &d))
			off -= (uint64_t)(uintptr_t)d.dli_fbase;
		h = (h ^ off) * 0x100000001b3u;
		h ^= h >> 29;
	}
	if (cfg.sites < 0)
		return h;
	for (uint64_t i = h, n = 0; n < SITES; i++, n++) {
		uint64_t none = 0;
		if (atomic_compare_exchange_strong(&seen[i % SITES], &none, h)) {
			int len = snprintf(line, sizeof line, "%s %016llx", kinds[k],
					   (unsigned long long)h);
			len = callers(line, len, sizeof line, frame + skip, cnt - skip);
			syscall(SYS_write, cfg.sites, line, (size_t)len);
		} else if (none != h) {
			continue;
		}
		break;
	}
	return h;
}

static void die(void)
{
	syscall(SYS_kill, getpid(), SIGKILL);
	for (;;)
		syscall(SYS_pause);
}

/* Counts one call: 0, or it is one to fail.  For DIE the caller calls died() afterwards. */
static __attribute__((noinline)) bool due(enum kind k, const char *path)
{
	bool hit = false;

	atomic_fetch_add(&cfg.page->kind[k], 1);
	if (!(cfg.kinds & 1u << k))
		return false;
	if ((cfg.sites >= 0 || cfg.site) && site(k) != cfg.site && cfg.site)
		return false;
	uint64_t number = atomic_fetch_add(&cfg.page->counted, 1) + 1;
	for (unsigned i = 0; i < cfg.n_cnt; i++)
		hit |= cfg.n[i] == number || (cfg.good && number > cfg.n[i] &&
					      (k != MEM || number - cfg.n[i] < MEM_RUN));
	if (!hit)
		return false;
	if (atomic_fetch_add(&cfg.page->faults, 1) < REPORTS)
		report(k, number, path);
	if (cfg.how == KILL)
		die();
	return true;
}

static __attribute__((noinline)) bool due_fd(enum kind k, int fd)
{
	char path[PATH_CAP];
	int saved = errno;

	if (!cfg.on || inside)
		return false;
	inside = true;
	bool hit = fd_path(fd, path) && due(k, path);
	inside = false;
	errno = saved;
	return hit;
}

static __attribute__((noinline)) bool due_at(enum kind k, int dir, const char *name)
{
	char path[PATH_CAP];
	int saved = errno;

	if (!cfg.on || inside || !name)
		return false;
	inside = true;
	bool hit = at_path(dir, name, path) && due(k, path);
	inside = false;
	errno = saved;
	return hit;
}

/* What a call that is due answers: -1 with errno, or, a lie, `done`. */
static int64_t answer(int64_t done)
{
	if (cfg.how == LIE)
		return done;
	errno = cfg.err;
	return -1;
}

/* hit: the call is due.  It is made all the same when the process is to die after it. */
#define REAL(ret, name, ...) ((ret(*)(__VA_ARGS__))real(#name))
#define CALL(hit, ret, call, done)                                                             \
	do {                                                                                   \
		bool hit_ = (hit);                                                             \
		if (hit_ && cfg.how != DIE)                                                    \
			return (ret)answer(done);                                              \
		ret r_ = (call);                                                               \
		if (hit_)                                                                      \
			die();                                                                 \
		return r_;                                                                     \
	} while (0)

static void *real(const char *name)
{
	bool was = inside;

	inside = true;
	void *p = dlsym(RTLD_NEXT, name);
	inside = was;
	if (!p)
		abort();
	return p;
}

/* --- set-up --- */

static void calls_of(const char *s)
{
	if (!s)
		cfg.kinds = ((1u << KINDS) - 1) & ~(1u << MEM);
	while (s && *s) {
		size_t len = strcspn(s, ",");
		for (unsigned k = 0; k < KINDS; k++)
			if (strlen(kinds[k]) == len && !strncmp(s, kinds[k], len))
				cfg.kinds |= 1u << k;
		s += len + (s[len] == ',');
	}
}

static void how_of(const char *s)
{
	static const struct {
		const char *word;
		enum how how;
		int err;
	} all[] = {{"EIO", ERRNO, EIO},	      {"ENOSPC", ERRNO, ENOSPC},
		   {"EDQUOT", ERRNO, EDQUOT}, {"ENOMEM", ERRNO, ENOMEM},
		   {"SHORT", SHORT, EIO},     {"KILL", KILL, 0},
		   {"DIE", DIE, 0},	      {"LIE", LIE, 0}};

	for (size_t i = 0; s && i < sizeof all / sizeof *all; i++)
		if (!strcmp(s, all[i].word)) {
			cfg.how = all[i].how;
			cfg.err = all[i].err;
		}
}

static int lines_to(const char *path)
{
	int fd = path ? open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600) : -1;
	/* Away from the numbers that a program closes without looking. */
	int high = fd >= 0 ? fcntl(fd, F_DUPFD_CLOEXEC, 500) : -1;

	if (fd >= 0)
		close(fd);
	return high;
}

__attribute__((constructor)) static void start(void)
{
	const char *s = getenv("NTH_PAGE"), *n = getenv("NTH_N"), *f = getenv("NTH_FOR");
	void *frame[2];

	inside = true;
	cfg.page = &own_page;
	cfg.under = getenv("NTH_UNDER");
	cfg.match = getenv("NTH_MATCH");
	calls_of(getenv("NTH_CALLS"));
	how_of(getenv("NTH_HOW"));
	cfg.good = f && !strcmp(f, "good");
	for (char *end; n && *n && cfg.n_cnt < NS; n = *end ? end + 1 : end) {
		uint64_t v = strtoull(n, &end, 10);
		if (end == n)
			break;
		if (v)
			cfg.n[cfg.n_cnt++] = v;
	}
	int fd = s ? open(s, O_RDWR | O_CREAT | O_CLOEXEC, 0600) : -1;
	if (fd >= 0 && !ftruncate(fd, sizeof own_page)) {
		void *p =
			mmap(NULL, sizeof own_page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		if (p != MAP_FAILED)
			cfg.page = p;
	}
	if (fd >= 0)
		close(fd);
	cfg.report = lines_to(getenv("NTH_REPORT"));
	cfg.sites = lines_to(getenv("NTH_SITES"));
	s = getenv("NTH_SITE");
	cfg.site = s ? strtoull(s, NULL, 16) : 0;
	/* It loads what it needs at its first call. */
	backtrace(frame, 2);
	cfg.on = cfg.under && *cfg.under;
	inside = false;
}

/* --- reading and writing --- */

static size_t half(size_t len, bool hit)
{
	return hit && cfg.how == SHORT && len > 1 ? len / 2 : len;
}

#define RW(k, ret, name, params, call, len)                                                    \
	ret name params                                                                        \
	{                                                                                      \
		static ret(*f) params;                                                         \
		if (!f)                                                                        \
			f = real(#name);                                                       \
		bool hit = due_fd(k, fd);                                                      \
		if (hit && cfg.how == SHORT && (len) > 1) {                                    \
			len = half(len, true);                                                 \
			return call;                                                           \
		}                                                                              \
		CALL(hit, ret, call, (int64_t)(len));                                          \
	}

RW(WRITE, ssize_t, write, (int fd, const void *p, size_t len), f(fd, p, len), len)
RW(WRITE, ssize_t, pwrite, (int fd, const void *p, size_t len, off_t at), f(fd, p, len, at),
   len)
RW(WRITE, ssize_t, pwrite64, (int fd, const void *p, size_t len, off_t at), f(fd, p, len, at),
   len)
RW(READ, ssize_t, read, (int fd, void *p, size_t len), f(fd, p, len), len)
RW(READ, ssize_t, pread, (int fd, void *p, size_t len, off_t at), f(fd, p, len, at), len)
RW(READ, ssize_t, pread64, (int fd, void *p, size_t len, off_t at), f(fd, p, len, at), len)

static int64_t iov_len(const struct iovec *v, int cnt)
{
	int64_t sum = 0;

	for (int i = 0; i < cnt; i++)
		sum += (int64_t)v[i].iov_len;
	return sum;
}

/* Half of several pieces is the first half of the pieces. */
#define RWV(k, name, params, call)                                                             \
	ssize_t name params                                                                    \
	{                                                                                      \
		static ssize_t(*f) params;                                                     \
		if (!f)                                                                        \
			f = real(#name);                                                       \
		bool hit = due_fd(k, fd);                                                      \
		if (hit && cfg.how == SHORT && cnt > 1) {                                      \
			cnt /= 2;                                                              \
			return call;                                                           \
		}                                                                              \
		CALL(hit, ssize_t, call, iov_len(v, cnt));                                     \
	}

RWV(WRITE, writev, (int fd, const struct iovec *v, int cnt), f(fd, v, cnt))
RWV(WRITE, pwritev, (int fd, const struct iovec *v, int cnt, off_t at), f(fd, v, cnt, at))
RWV(WRITE, pwritev64, (int fd, const struct iovec *v, int cnt, off_t at), f(fd, v, cnt, at))
RWV(READ, readv, (int fd, const struct iovec *v, int cnt), f(fd, v, cnt))
RWV(READ, preadv, (int fd, const struct iovec *v, int cnt, off_t at), f(fd, v, cnt, at))
RWV(READ, preadv64, (int fd, const struct iovec *v, int cnt, off_t at), f(fd, v, cnt, at))

/* --- the others: by descriptor, by path --- */

#define BY_FD(k, ret, name, params, args, done)                                                \
	ret name params                                                                        \
	{                                                                                      \
		static ret(*f) params;                                                         \
		if (!f)                                                                        \
			f = real(#name);                                                       \
		CALL(due_fd(k, fd), ret, f args, done);                                        \
	}
#define BY_PATH(k, ret, name, params, args, dir, path)                                         \
	ret name params                                                                        \
	{                                                                                      \
		static ret(*f) params;                                                         \
		if (!f)                                                                        \
			f = real(#name);                                                       \
		CALL(due_at(k, dir, path), ret, f args, 0);                                    \
	}

BY_FD(SYNC, int, fsync, (int fd), (fd), 0)
BY_FD(SYNC, int, fdatasync, (int fd), (fd), 0)
BY_FD(SYNC, int, syncfs, (int fd), (fd), 0)
BY_FD(SYNC, int, sync_file_range, (int fd, off_t at, off_t len, unsigned fl), (fd, at, len, fl),
      0)
BY_FD(TRUNC, int, ftruncate, (int fd, off_t len), (fd, len), 0)
BY_FD(TRUNC, int, ftruncate64, (int fd, off_t len), (fd, len), 0)
BY_PATH(TRUNC, int, truncate, (const char *p, off_t len), (p, len), AT_FDCWD, p)
BY_PATH(TRUNC, int, truncate64, (const char *p, off_t len), (p, len), AT_FDCWD, p)
BY_FD(FALLOC, int, fallocate, (int fd, int m, off_t at, off_t len), (fd, m, at, len), 0)
BY_FD(FALLOC, int, fallocate64, (int fd, int m, off_t at, off_t len), (fd, m, at, len), 0)
BY_PATH(RENAME, int, rename, (const char *a, const char *b), (a, b), AT_FDCWD, b)
BY_PATH(RENAME, int, renameat, (int d, const char *a, int e, const char *b), (d, a, e, b), e, b)
BY_PATH(RENAME, int, renameat2, (int d, const char *a, int e, const char *b, unsigned fl),
	(d, a, e, b, fl), e, b)
BY_PATH(RENAME, int, link, (const char *a, const char *b), (a, b), AT_FDCWD, b)
BY_PATH(RENAME, int, linkat, (int d, const char *a, int e, const char *b, int fl),
	(d, a, e, b, fl), e, b)
BY_PATH(UNLINK, int, unlink, (const char *p), (p), AT_FDCWD, p)
BY_PATH(UNLINK, int, unlinkat, (int d, const char *p, int fl), (d, p, fl), d, p)
BY_PATH(UNLINK, int, rmdir, (const char *p), (p), AT_FDCWD, p)
BY_PATH(MKDIR, int, mkdir, (const char *p, mode_t m), (p, m), AT_FDCWD, p)
BY_PATH(MKDIR, int, mkdirat, (int d, const char *p, mode_t m), (d, p, m), d, p)
BY_PATH(STAT, int, stat, (const char *p, struct stat *st), (p, st), AT_FDCWD, p)
BY_PATH(STAT, int, stat64, (const char *p, struct stat64 *st), (p, st), AT_FDCWD, p)
BY_PATH(STAT, int, lstat, (const char *p, struct stat *st), (p, st), AT_FDCWD, p)
BY_PATH(STAT, int, lstat64, (const char *p, struct stat64 *st), (p, st), AT_FDCWD, p)
BY_PATH(STAT, int, fstatat, (int d, const char *p, struct stat *st, int fl), (d, p, st, fl), d,
	p)
BY_PATH(STAT, int, fstatat64, (int d, const char *p, struct stat64 *st, int fl), (d, p, st, fl),
	d, p)
BY_PATH(STAT, int, faccessat, (int d, const char *p, int m, int fl), (d, p, m, fl), d, p)
BY_PATH(STAT, int, access, (const char *p, int m), (p, m), AT_FDCWD, p)
BY_PATH(STAT, int, statx, (int d, const char *p, int fl, unsigned m, struct statx *st),
	(d, p, fl, m, st), d, p)
BY_FD(STAT, int, fstat, (int fd, struct stat *st), (fd, st), 0)
BY_FD(STAT, int, fstat64, (int fd, struct stat64 *st), (fd, st), 0)
BY_FD(STAT, int, fstatvfs, (int fd, struct statvfs *st), (fd, st), 0)
BY_FD(STAT, int, fstatvfs64, (int fd, struct statvfs64 *st), (fd, st), 0)

/* --- opening --- */

#define OPEN_MODE(last)                                                                        \
	mode_t mode = 0;                                                                       \
	if (flags & (O_CREAT | O_TMPFILE)) {                                                   \
		va_list ap;                                                                    \
		va_start(ap, last);                                                            \
		mode = va_arg(ap, mode_t);                                                     \
		va_end(ap);                                                                    \
	}

/* No lie: there is no descriptor to give. */
#define OPEN_CALL(hit, call)                                                                   \
	do {                                                                                   \
		bool hit_ = (hit);                                                             \
		if (hit_ && cfg.how != DIE && cfg.how != LIE) {                                \
			errno = cfg.err;                                                       \
			return -1;                                                             \
		}                                                                              \
		int fd_ = (call);                                                              \
		if (hit_ && cfg.how == DIE)                                                    \
			die();                                                                 \
		return fd_;                                                                    \
	} while (0)

int open(const char *p, int flags, ...)
{
	OPEN_MODE(flags)
	OPEN_CALL(due_at(OPEN, AT_FDCWD, p),
		  (int)syscall(SYS_openat, AT_FDCWD, p, flags, mode));
}

int open64(const char *p, int flags, ...)
{
	OPEN_MODE(flags)
	OPEN_CALL(due_at(OPEN, AT_FDCWD, p),
		  (int)syscall(SYS_openat, AT_FDCWD, p, flags, mode));
}

int openat(int d, const char *p, int flags, ...)
{
	OPEN_MODE(flags)
	OPEN_CALL(due_at(OPEN, d, p), (int)syscall(SYS_openat, d, p, flags, mode));
}

int openat64(int d, const char *p, int flags, ...)
{
	OPEN_MODE(flags)
	OPEN_CALL(due_at(OPEN, d, p), (int)syscall(SYS_openat, d, p, flags, mode));
}

int creat(const char *p, mode_t mode)
{
	return open(p, O_WRONLY | O_CREAT | O_TRUNC, mode);
}

#define MKSTEMP(name, params, args)                                                            \
	int name params                                                                        \
	{                                                                                      \
		static int(*f) params;                                                         \
		if (!f)                                                                        \
			f = real(#name);                                                       \
		OPEN_CALL(due_at(OPEN, AT_FDCWD, p), f args);                                  \
	}

MKSTEMP(mkstemp, (char *p), (p))
MKSTEMP(mkstemp64, (char *p), (p))
MKSTEMP(mkostemp, (char *p, int fl), (p, fl))
MKSTEMP(mkostemp64, (char *p, int fl), (p, fl))

DIR *opendir(const char *p)
{
	static DIR *(*f)(const char *);

	if (!f)
		f = real("opendir");
	bool hit = due_at(OPEN, AT_FDCWD, p);
	if (hit && cfg.how != DIE && cfg.how != LIE) {
		errno = cfg.err;
		return NULL;
	}
	DIR *d = f(p);
	if (hit && cfg.how == DIE)
		die();
	return d;
}

/* --- memory --- */

extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t), *__libc_memalign(size_t, size_t);

static __attribute__((noinline)) bool due_mem(void)
{
	if (!cfg.on || inside)
		return false;
	int saved = errno;
	inside = true;
	bool hit = due(MEM, "-");
	inside = false;
	errno = hit ? ENOMEM : saved;
	return hit && cfg.how != LIE && cfg.how != DIE;
}

void *malloc(size_t n)
{
	return due_mem() ? NULL : __libc_malloc(n);
}

void *calloc(size_t a, size_t b)
{
	return due_mem() ? NULL : __libc_calloc(a, b);
}

void *realloc(void *p, size_t n)
{
	/* free() in other words. */
	if (p && !n)
		return __libc_realloc(p, n);
	return due_mem() ? NULL : __libc_realloc(p, n);
}

void *aligned_alloc(size_t a, size_t n)
{
	return due_mem() ? NULL : __libc_memalign(a, n);
}

void *memalign(size_t a, size_t n)
{
	return due_mem() ? NULL : __libc_memalign(a, n);
}

int posix_memalign(void **out, size_t a, size_t n)
{
	if (due_mem())
		return ENOMEM;
	void *p = __libc_memalign(a, n);
	if (!p)
		return ENOMEM;
	*out = p;
	return 0;
}
