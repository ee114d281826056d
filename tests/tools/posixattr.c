/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * posixattr DIR [GROUP]...: what POSIX and Linux promise about attributes: permissions and
 * owners, extended attributes, times.  A native file system passes all of it; see posix.c.
 */
#include <sys/statvfs.h>
#include <sys/xattr.h>
#include "tests/tools/check.h"

static void modes(void)
{
	touch("f");
	OK(mkdir("d", 0755));
	for (mode_t m = 0; m < 010000; m += 0111) {
		OK(chmod("f", m));
		EQ(m, MODE("f"));
		OK(chmod("d", m));
		EQ(m, MODE("d"));
	}
	OK(chmod("f", 07777));
	EQ(07777, MODE("f"));
	OK(chmod("d", 0755));
	OK(chmod("f", 0644));
	IS(S_ISREG(stat_of("f").st_mode));
	int fd = FD(open("f", O_RDONLY));
	OK(fchmod(fd, 0600));
	EQ(0600, MODE("f"));
	OK(close(fd));
	OK(access("f", R_OK | W_OK));
	FAILS(EACCES, access("f", X_OK));
	FAILS(ENOENT, chmod("no", 0600));
	OK(symlink("f", "s"));
	OK(chmod("s", 0640));
	EQ(0640, MODE("f"));
	EQ(0777, MODE("s"));
	OK(chown("f", (uid_t)-1, (gid_t)-1));
	OK(chown("f", geteuid(), (gid_t)-1));
	EQ(geteuid(), stat_of("f").st_uid);
	if (geteuid()) {
		OK(chmod("f", 0));
		FAILS(EACCES, open("f", O_RDONLY));
		FAILS(EACCES, open("f", O_WRONLY));
		OK(mkdir("x", 0));
		FAILS(EACCES, open("x", O_RDONLY));
		FAILS(EACCES, access("x/f", F_OK));
		FAILS(EACCES, mkdir("x/d", 0755));
		FAILS(EPERM, chown("f", 0, (gid_t)-1));
		FAILS(EPERM, mknod("c", S_IFCHR | 0600, 0x103));
	}
}

/* Who may read, write, pass; the class is the first that fits, not the best. */
static void access_rights(void)
{
	OK(mkdir("open", 0777));
	OK(chmod("open", 0777));
	OK(mkdir("shut", 0700));
	OK(mkdir("list", 0744));
	OK(mkdir("pass", 0711));
	OK(mkdir("group", 0770));
	OK(chmod("group", 0770));
	OK(chown("group", 0, USER2));
	put_file("shut/f", "x", 1);
	put_file("list/f", "x", 1);
	put_file("pass/f", "x", 1);
	put_file("f", "x", 1);
	OK(chown("f", USER1, USER2));
	OK(chmod("f", 0042));
	if (as(USER1)) {
		FAILS(EACCES, open("f", O_RDONLY));
		OK(chmod("f", 0242));
		FAILS(EACCES, open("f", O_RDONLY));
		int fd = FD(open("f", O_WRONLY));
		OK(close(fd));
		OK(chmod("f", 0042));
		FAILS(EACCES, open("shut/f", O_RDONLY));
		FAILS(EACCES, access("shut/f", F_OK));
		FAILS(EACCES, open("shut", O_RDONLY));
		fd = FD(open("list", O_RDONLY));
		OK(close(fd));
		FAILS(EACCES, open("list/f", O_RDONLY));
		FAILS(EACCES, chdir("list"));
		FAILS(EACCES, open("pass", O_RDONLY));
		fd = FD(open("pass/f", O_RDONLY));
		OK(close(fd));
		FAILS(EACCES, open("pass/f", O_WRONLY));
		FAILS(EACCES, open("pass/g", O_WRONLY | O_CREAT, 0644));
		FAILS(EACCES, mkdir("pass/d", 0755));
		FAILS(EACCES, symlink("x", "pass/s"));
		FAILS(EACCES, link("f", "pass/l"));
		FAILS(EACCES, mkfifo("pass/p", 0600));
		FAILS(EACCES, unlink("pass/f"));
		FAILS(EACCES, rename("pass/f", "open/f"));
		FAILS(EACCES, truncate("pass/f", 0));
		FAILS(EACCES, access("group", R_OK));
		FAILS(EPERM, chmod("pass", 0777));
		FAILS(EPERM, chmod("pass/f", 0777));
		FAILS(EPERM, chown("pass/f", USER1, (gid_t)-1));
		FAILS(EPERM, lchown("pass/f", (uid_t)-1, USER1));
		FAILS(EPERM, mknod("open/c", S_IFCHR | 0600, 0x103));
		FAILS(EPERM, open("pass/f", O_RDONLY | O_NOATIME));
		fd = FD(open("open/mine", O_RDWR | O_CREAT, 0600));
		OK(close(fd));
		EQ(USER1, stat_of("open/mine").st_uid);
		EQ(USER1, stat_of("open/mine").st_gid);
		FAILS(EPERM, chown("open/mine", USER2, (gid_t)-1));
		FAILS(EPERM, chown("open/mine", (uid_t)-1, USER2));
		OK(chown("open/mine", USER1, USER1));
		OK(mkdir("open/d", 0755));
		_exit(0);
	}
	if (as(USER2)) {
		/* The group class, by the group alone. */
		int fd = FD(open("f", O_RDONLY));
		OK(close(fd));
		FAILS(EACCES, open("f", O_WRONLY));
		FAILS(EACCES, open("open/mine", O_RDONLY));
		touch("group/g");
		EQ(USER2, stat_of("group/g").st_gid);
		/* A directory that all may write lets all remove. */
		OK(unlink("open/mine"));
		OK(rmdir("open/d"));
		_exit(0);
	}
	if (as(12003)) {
		FAILS(EACCES, open("f", O_RDONLY));
		FAILS(EACCES, open("f", O_RDWR));
		_exit(0);
	}
	/* A supplementary group counts, and its owner may give a file to it. */
	touch("own");
	OK(chown("own", USER1, USER1));
	if (child()) {
		OK(setgroups(1, (gid_t[]){USER2}));
		OK(setresgid(USER1, USER1, USER1));
		OK(setresuid(USER1, USER1, USER1));
		OK(chdir("group"));
		OK(chdir(".."));
		OK(chown("own", (uid_t)-1, USER2));
		EQ(USER2, stat_of("own").st_gid);
		_exit(0);
	}
	/* access(2) asks for the real user, faccessat(AT_EACCESS) for the effective one. */
	if (child()) {
		OK(setresuid(USER1, 0, 0));
		FAILS(EACCES, access("shut/f", R_OK));
		OK(faccessat(AT_FDCWD, "shut/f", R_OK, AT_EACCESS));
		_exit(0);
	}
	OK(access("f", R_OK | W_OK));
	FAILS(EACCES, access("f", X_OK));

	static const char script[] = "#!/bin/sh\nexit 7\n";
	put_file("run", script, sizeof(script) - 1);
	OK(chmod("run", 0744));
	if (as(USER1)) {
		FAILS(EACCES, execl("./run", "run", NULL));
		_exit(0);
	}
	pid_t pid = fork();
	int status = 0;
	if (!pid) {
		execl("./run", "run", NULL);
		_exit(1);
	}
	waitpid(pid, &status, 0);
	EQ(7, WEXITSTATUS(status));
}

static void sticky(void)
{
	OK(mkdir("t", 0));
	OK(chmod("t", 01777));
	OK(mkdir("o", 0777));
	OK(chmod("o", 0777));
	if (as(USER1)) {
		touch("t/f");
		touch("t/g");
		OK(chmod("t/f", 0666));
		OK(mkdir("t/d", 0777));
		_exit(0);
	}
	if (as(USER2)) {
		FAILS(EPERM, unlink("t/f"));
		FAILS(EPERM, rmdir("t/d"));
		FAILS(EPERM, rename("t/f", "t/h"));
		FAILS(EPERM, rename("t/f", "o/h"));
		FAILS(EPERM, rename("t/d", "t/e"));
		touch("t/mine");
		FAILS(EPERM, rename("t/mine", "t/f"));
		FAILS(EPERM, renameat2(AT_FDCWD, "t/mine", AT_FDCWD, "t/f", RENAME_EXCHANGE));
		int fd = FD(open("t/f", O_WRONLY | O_APPEND));
		EQ(1, write(fd, "x", 1));
		OK(close(fd));
		OK(rename("t/mine", "t/mine2"));
		OK(unlink("t/mine2"));
		_exit(0);
	}
	if (as(USER1)) {
		OK(rename("t/f", "t/h"));
		OK(unlink("t/h"));
		OK(rmdir("t/d"));
		_exit(0);
	}
	OK(chown("t", USER2, USER2));
	if (as(USER2)) {
		OK(unlink("t/g"));
		_exit(0);
	}
}

static void set_id_write(const char *how, unsigned mode, unsigned expect, bool other)
{
	touch("s");
	OK(chown("s", USER1, USER1));
	OK(chmod("s", mode));
	EQ(mode, MODE("s"));
	int fd = FD(open("s", O_RDWR));
	EQ(4, write(fd, "1234", 4));
	EQ(mode, MODE("s"));
	if (other ? as(USER2) : as(USER1)) {
		int own = FD(open("s", O_RDWR));
		struct stat st;

		switch (how[0]) {
		case 'w':
			EQ(1, write(own, "x", 1));
			break;
		case 'z':
			EQ(0, write(own, "x", 0));
			break;
		case 't':
			OK(ftruncate(own, 1));
			break;
		case 'p':
			OK(truncate("s", 0));
			break;
		case 'o':
			OK(open("s", O_WRONLY | O_TRUNC));
			break;
		case 'f':
			OK(fallocate(own, 0, 0, 8192));
			break;
		case 'd':
			OK(close(own));
			own = FD(open("s", O_RDWR | O_DIRECT));
			void *p = aligned_alloc(4096, 4096);
			if (!IS(p != NULL))
				break;
			memset(p, 1, 4096);
			EQ(4096, pwrite(own, p, 4096, 0));
			free(p);
			break;
		case 'r':
			EQ(1, read(own, (char[1]){0}, 1));
			break;
		}
		/* Seen at once by this descriptor, the other and the name. */
		OK(fstat(own, &st));
		EQ(expect, st.st_mode & 07777);
		EQ(expect, stat_fd(fd).st_mode & 07777);
		_exit(0);
	}
	struct stat st = stat_of("s");
	if ((st.st_mode & 07777) != expect)
		printf("set-id bits after \"%s\" by the %s:\n", how, other ? "other" : "owner");
	EQ(expect, st.st_mode & 07777);
	OK(close(fd));
	OK(unlink("s"));
}

static void set_id(void)
{
	static const char *const how[] = {"write",	   "truncate by descriptor",
					  "path truncate", "open with O_TRUNC",
					  "fallocate",	   "direct write"};

	for (size_t i = 0; i < sizeof(how) / sizeof(how[0]); i++) {
		set_id_write(how[i], 06777, 0777, true);
		set_id_write(how[i], 06777, 0777, false);
		/* Without execution for the group its members leave it the bit. */
		set_id_write(how[i], 06666, 0666, true);
		set_id_write(how[i], 06666, 02666, false);
	}
	set_id_write("read", 06777, 06777, true);
	set_id_write("zero bytes written", 06777, 06777, true);

	/* chown by anybody takes them from a file, never from a directory. */
	touch("f");
	OK(chmod("f", 06755));
	OK(chown("f", USER1, USER1));
	EQ(0755, MODE("f"));
	OK(chmod("f", 06755));
	if (as(USER1)) {
		OK(chown("f", (uid_t)-1, USER1));
		EQ(0755, MODE("f"));
		_exit(0);
	}
	/* Without execution for the group the set-group-id bit is no privilege. */
	OK(chmod("f", 02644));
	OK(chown("f", USER1, USER1));
	EQ(02644, MODE("f"));
	OK(mkdir("d", 0755));
	OK(chmod("d", 06755));
	OK(chown("d", USER1, USER2));
	EQ(06755, MODE("d"));
	/* Who is not of the group cannot set the bit for it. */
	OK(chown("f", USER1, USER2));
	if (as(USER1)) {
		OK(chmod("f", 02755));
		EQ(0755, MODE("f"));
		_exit(0);
	}

	/* New things in a set-group-id directory get its group, directories the bit too. */
	OK(chmod("d", 02777));
	if (as(USER1)) {
		touch("d/f");
		OK(mkdir("d/e", 0755));
		OK(mkfifo("d/p", 0644));
		OK(symlink("x", "d/s"));
		touch("d/e/f");
		EQ(USER1, stat_of("d/f").st_uid);
		_exit(0);
	}
	EQ(USER2, stat_of("d/f").st_gid);
	EQ(0644, MODE("d/f"));
	EQ(USER2, stat_of("d/p").st_gid);
	EQ(USER2, stat_of("d/s").st_gid);
	EQ(USER2, stat_of("d/e").st_gid);
	EQ(02755, MODE("d/e"));
	EQ(USER2, stat_of("d/e/f").st_gid);
	/* What moves in keeps its own. */
	touch("moved");
	OK(rename("moved", "d/moved"));
	EQ(0, stat_of("d/moved").st_gid);
}

static bool listed(const char *list, ssize_t len, const char *name)
{
	return len > 0 && memmem(list, (size_t)len, name, strlen(name) + 1) != NULL;
}

static void xattrs_of(const char *path, const char *prefix)
{
	static uint8_t big[70000], got[70000];
	char a[32], b[32], name[300], list[4096];

	snprintf(a, sizeof(a), "%s.a", prefix);
	snprintf(b, sizeof(b), "%s.b", prefix);
	FAILS(ENODATA, lgetxattr(path, a, got, sizeof(got)));
	FAILS(ENODATA, lremovexattr(path, a));
	FAILS(ENODATA, lsetxattr(path, a, "x", 1, XATTR_REPLACE));
	OK(lsetxattr(path, a, "value", 5, XATTR_CREATE));
	FAILS(EEXIST, lsetxattr(path, a, "x", 1, XATTR_CREATE));
	FAILS(EINVAL, lsetxattr(path, a, "x", 1, 4));
	EQ(5, lgetxattr(path, a, NULL, 0));
	EQ(5, lgetxattr(path, a, got, 5));
	IS(!memcmp(got, "value", 5));
	FAILS(ERANGE, lgetxattr(path, a, got, 4));
	OK(lsetxattr(path, b, "", 0, 0));
	EQ(0, lgetxattr(path, b, got, 9));
	OK(lsetxattr(path, a, "\0\1", 2, XATTR_REPLACE));
	EQ(2, lgetxattr(path, a, got, 9));
	IS(got[0] == 0 && got[1] == 1);
	ssize_t n = llistxattr(path, list, sizeof(list));
	IS(listed(list, n, a) && listed(list, n, b));
	EQ(n, llistxattr(path, NULL, 0));
	FAILS(ERANGE, llistxattr(path, list, 3));
	OK(lremovexattr(path, a));
	n = llistxattr(path, list, sizeof(list));
	IS(!listed(list, n, a) && listed(list, n, b));
	pattern(big, sizeof(big), 1);
	OK(lsetxattr(path, b, big, 3000, 0));
	EQ(3000, lgetxattr(path, b, got, sizeof(got)));
	IS(!memcmp(big, got, 3000));
	FAILS(E2BIG, lsetxattr(path, b, big, 65537, 0));
	int r = lsetxattr(path, b, big, 65536, 0);
	if (r == 0) {
		EQ(65536, lgetxattr(path, b, got, sizeof(got)));
		IS(!memcmp(big, got, 65536));
	} else {
		FAILS2(ENOSPC, E2BIG, r);
		EQ(3000, lgetxattr(path, b, got, sizeof(got)));
	}
	OK(lremovexattr(path, b));
	snprintf(name, sizeof(name), "%s.%0*d", prefix, 255 - (int)strlen(prefix) - 1, 7);
	OK(lsetxattr(path, name, "x", 1, 0));
	EQ(1, lgetxattr(path, name, got, 9));
	OK(lremovexattr(path, name));
	snprintf(name, sizeof(name), "%s.%0*d", prefix, 255 - (int)strlen(prefix), 7);
	FAILS(ERANGE, lsetxattr(path, name, "x", 1, 0));
	for (int i = 0; i < 40; i++) {
		snprintf(name, sizeof(name), "%s.many-%d", prefix, i);
		OK(lsetxattr(path, name, name, (size_t)i, 0));
	}
	for (int i = 0; i < 40; i++) {
		snprintf(name, sizeof(name), "%s.many-%d", prefix, i);
		EQ(i, lgetxattr(path, name, got, 99));
		OK(lremovexattr(path, name));
	}
}

static void xattrs(void)
{
	char got[16];

	touch("f");
	OK(mkdir("d", 0755));
	OK(symlink("f", "s"));
	OK(mkfifo("p", 0644));
	xattrs_of("f", "user");
	xattrs_of("d", "user");
	FAILS(EPERM, lsetxattr("s", "user.a", "x", 1, 0));
	FAILS(EPERM, setxattr("p", "user.a", "x", 1, 0));
	FAILS(EOPNOTSUPP, setxattr("f", "nothing.a", "x", 1, 0));
	FAILS(ENOENT, setxattr("no", "user.a", "x", 1, 0));
	/* Of the file, not of the name; gone with the file. */
	OK(setxattr("s", "user.a", "x", 1, 0));
	OK(link("f", "g"));
	OK(rename("f", "h"));
	EQ(1, getxattr("g", "user.a", got, 9));
	int fd = FD(open("g", O_RDONLY));
	OK(unlink("g"));
	OK(unlink("h"));
	EQ(1, fgetxattr(fd, "user.a", got, 9));
	OK(fsetxattr(fd, "user.b", "yy", 2, 0));
	EQ(2, fgetxattr(fd, "user.b", got, 9));
	OK(close(fd));
	touch("f");
	FAILS(ENODATA, getxattr("f", "user.a", got, 9));
	int64_t before = ns_of(stat_of("f").st_ctim);
	nap_ms(15);
	OK(setxattr("f", "user.a", "x", 1, 0));
	IS(ns_of(stat_of("f").st_ctim) > before);
	before = ns_of(stat_of("f").st_ctim);
	nap_ms(15);
	OK(removexattr("f", "user.a"));
	IS(ns_of(stat_of("f").st_ctim) > before);
	if (geteuid()) {
		FAILS(EPERM, setxattr("f", "trusted.a", "x", 1, 0));
		FAILS2(EPERM, ENODATA, getxattr("f", "trusted.a", got, 9));
		return;
	}
	xattrs_of("f", "trusted");
	xattrs_of("s", "trusted");
	xattrs_of("d", "trusted");
	xattrs_of("p", "trusted");
	xattrs_of("f", "security");
	xattrs_of("s", "security");
	OK(setxattr("f", "trusted.t", "x", 1, 0));
	OK(setxattr("f", "user.u", "x", 1, 0));
	OK(chmod("f", 0644));
	if (as(USER1)) {
		FAILS2(ENODATA, EPERM, getxattr("f", "trusted.t", got, 9));
		FAILS(EPERM, setxattr("f", "trusted.t", "y", 1, 0));
		FAILS(EPERM, setxattr("f", "security.x", "y", 1, 0));
		FAILS(EACCES, setxattr("f", "user.u", "y", 1, 0));
		EQ(1, getxattr("f", "user.u", got, 9));
		_exit(0);
	}
	OK(chmod("f", 0600));
	if (as(USER1)) {
		FAILS(EACCES, getxattr("f", "user.u", got, 9));
		_exit(0);
	}
	/* File capabilities go with the first write of anybody. */
	static const uint8_t cap[20] = {0, 0, 0, 2, 0, 4};
	OK(setxattr("f", "security.capability", cap, sizeof(cap), 0));
	EQ(20, getxattr("f", "security.capability", NULL, 0));
	put_file("f", "x", 1);
	FAILS(ENODATA, getxattr("f", "security.capability", NULL, 0));
	OK(setxattr("f", "security.capability", cap, sizeof(cap), 0));
	OK(chown("f", USER1, USER1));
	FAILS(ENODATA, getxattr("f", "security.capability", NULL, 0));
}

/* How the change of `path`'s times by a call is: moved on (true) or not. */
static bool moves(const struct stat *before, const char *path, bool mtime)
{
	struct stat st = stat_of(path);

	return mtime ? ns_of(st.st_mtim) > ns_of(before->st_mtim)
		     : ns_of(st.st_ctim) > ns_of(before->st_ctim);
}
#define TIMES(path, call, what)                                                                \
	do {                                                                                   \
		struct stat b_ = stat_of(path);                                                \
		nap_ms(15);                                                                    \
		OK(call);                                                                      \
		if (what[0] == 'c')                                                            \
			check_true(moves(&b_, path, false), __FILE__, __LINE__,                \
				   "a later ctime of " #path " by " #call);                    \
		else if (what[0] == 'm')                                                       \
			check_true(moves(&b_, path, true) && moves(&b_, path, false),          \
				   __FILE__, __LINE__,                                         \
				   "a later mtime and ctime of " #path " by " #call);          \
		else                                                                           \
			check_true(!moves(&b_, path, true), __FILE__, __LINE__,                \
				   "the same mtime of " #path " after " #call);                \
	} while (0)
#define CTIME_MOVES(path, call) TIMES(path, call, "c")
#define MTIME_MOVES(path, call) TIMES(path, call, "m")
#define MTIME_STAYS(path, call) TIMES(path, call, "stays")

static void times_set(void)
{
	static const struct timespec far[] = {{1234567890, 123456789}, {0, 1},
					      {-5, 999999999},	       {4102444800, 1},
					      {-1000000000, 7},	       {2147483648, 9}};
	struct statx sx;

	touch("f");
	OK(symlink("f", "s"));
	OK(mkdir("d", 0755));
	for (size_t i = 0; i < CNT(far); i++) {
		struct timespec t[2] = {far[i], far[(i + 1) % CNT(far)]};
		static const char *const what[] = {"f", "s", "d"};

		for (size_t k = 0; k < 3; k++) {
			OK(utimensat(AT_FDCWD, what[k], t, AT_SYMLINK_NOFOLLOW));
			struct stat st = stat_of(what[k]);
			EQ(ns_of(t[0]), ns_of(st.st_atim));
			EQ(ns_of(t[1]), ns_of(st.st_mtim));
		}
	}
	struct timespec known[2] = {{1000, 1}, {2000, 2}};
	OK(utimensat(AT_FDCWD, "f", known, 0));
	OK(utimensat(AT_FDCWD, "f", (struct timespec[2]){{0, UTIME_OMIT}, {3000, 3}}, 0));
	EQ(ns_of(known[0]), ns_of(stat_of("f").st_atim));
	EQ(3000000000003, ns_of(stat_of("f").st_mtim));
	OK(utimensat(AT_FDCWD, "f", (struct timespec[2]){{4000, 4}, {0, UTIME_OMIT}}, 0));
	EQ(4000000000004, ns_of(stat_of("f").st_atim));
	EQ(3000000000003, ns_of(stat_of("f").st_mtim));
	int64_t before = ns_of(stat_of("f").st_ctim);
	nap_ms(15);
	OK(utimensat(AT_FDCWD, "f", (struct timespec[2]){{0, UTIME_OMIT}, {0, UTIME_OMIT}}, 0));
	EQ(before, ns_of(stat_of("f").st_ctim));
	OK(utimensat(AT_FDCWD, "f", (struct timespec[2]){{0, UTIME_OMIT}, {0, UTIME_NOW}}, 0));
	EQ(4000000000004, ns_of(stat_of("f").st_atim));
	IS(llabs(ns_of(stat_of("f").st_mtim) - realtime_ns()) < 60000000000);
	IS(ns_of(stat_of("f").st_ctim) > before);
	OK(utimensat(AT_FDCWD, "f", known, 0));
	OK(utimensat(AT_FDCWD, "f", NULL, 0));
	IS(llabs(ns_of(stat_of("f").st_atim) - realtime_ns()) < 60000000000);
	IS(llabs(ns_of(stat_of("f").st_mtim) - realtime_ns()) < 60000000000);
	FAILS(EINVAL,
	      utimensat(AT_FDCWD, "f", (struct timespec[2]){{0, 1000000000}, {0, 0}}, 0));
	CTIME_MOVES("f", utimensat(AT_FDCWD, "f", known, 0));
	int fd = FD(open("f", O_RDONLY));
	OK(futimens(fd, (struct timespec[2]){{5, 5}, {6, 6}}));
	EQ(6000000006, ns_of(stat_fd(fd).st_mtim));
	OK(close(fd));

	/* A time that was set is not overtaken by a write that came before it. */
	fd = FD(open("f", O_RDWR));
	EQ(3, write(fd, "abc", 3));
	OK(futimens(fd, known));
	OK(close(fd));
	EQ(ns_of(known[1]), ns_of(stat_of("f").st_mtim));
	OK(statx(AT_FDCWD, "f", 0, STATX_BTIME, &sx));
	if (sx.stx_mask & STATX_BTIME)
		IS(llabs(sx.stx_btime.tv_sec * 1000000000LL - realtime_ns()) < 60000000000);

	if (geteuid())
		return;
	OK(chmod("f", 0666));
	if (as(USER1)) {
		OK(utimensat(AT_FDCWD, "f", NULL, 0));
		OK(utimensat(AT_FDCWD, "f",
			     (struct timespec[2]){{0, UTIME_NOW}, {0, UTIME_NOW}}, 0));
		FAILS(EPERM, utimensat(AT_FDCWD, "f", known, 0));
		FAILS(EPERM,
		      utimensat(AT_FDCWD, "f",
				(struct timespec[2]){{0, UTIME_NOW}, {0, UTIME_OMIT}}, 0));
		_exit(0);
	}
	OK(chmod("f", 0644));
	if (as(USER1)) {
		FAILS(EACCES, utimensat(AT_FDCWD, "f", NULL, 0));
		FAILS(EPERM, utimensat(AT_FDCWD, "f", known, 0));
		_exit(0);
	}
}

static void times_move(void)
{
	char buf[100] = "";

	touch("f");
	OK(mkdir("d", 0755));
	int fd = FD(open("f", O_RDWR));
	MTIME_MOVES("f", write(fd, "x", 1));
	MTIME_MOVES("f", pwrite(fd, "y", 1, 0));
	MTIME_MOVES("f", ftruncate(fd, 1000));
	MTIME_MOVES("f", truncate("f", 10));
	MTIME_MOVES("f", open("f", O_WRONLY | O_TRUNC));
	MTIME_MOVES("f", fallocate(fd, 0, 0, 5000));
	MTIME_MOVES("f", fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096));
	MTIME_STAYS("f", pread(fd, buf, sizeof(buf), 0));
	MTIME_STAYS("f", fsync(fd));
	MTIME_STAYS("f", chmod("f", 0600));
	CTIME_MOVES("f", chmod("f", 0644));
	CTIME_MOVES("f", chown("f", geteuid(), getegid()));
	CTIME_MOVES("f", link("f", "g"));
	CTIME_MOVES("f", unlink("g"));
	CTIME_MOVES("f", rename("f", "h") || rename("h", "f") ? -1 : 0);
	MTIME_STAYS("f", link("f", "g"));
	OK(unlink("g"));
	MTIME_MOVES("d", open("d/a", O_WRONLY | O_CREAT, 0644));
	MTIME_MOVES("d", link("f", "d/l"));
	MTIME_MOVES("d", symlink("f", "d/s"));
	MTIME_MOVES("d", mkfifo("d/p", 0644));
	MTIME_MOVES("d", mkdir("d/d", 0755));
	MTIME_MOVES("d", rename("d/a", "d/b"));
	MTIME_MOVES("d", unlink("d/b"));
	MTIME_MOVES("d", rmdir("d/d"));
	MTIME_MOVES("d", rename("d/l", "l"));
	MTIME_MOVES("d", rename("l", "d/l"));
	OK(mkdir("e", 0755));
	MTIME_MOVES("d", rename("e", "d/e"));
	MTIME_STAYS("d", open("d/e/x", O_WRONLY | O_CREAT, 0644));
	MTIME_STAYS("d", chmod("d/l", 0600));
	MTIME_STAYS("d", open("d/l", O_WRONLY | O_TRUNC));
	MTIME_STAYS("f", chmod("d", 0700));
	CTIME_MOVES("d", chmod("d", 0755));
	CTIME_MOVES("d/s", lchown("d/s", geteuid(), getegid()));
	/* A mapping's write is one too. */
	OK(ftruncate(fd, 4096));
	char *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (IS(p != MAP_FAILED)) {
		int64_t before = ns_of(stat_fd(fd).st_mtim);
		nap_ms(15);
		p[0] = 1;
		OK(msync(p, 4096, MS_SYNC));
		OK(munmap(p, 4096));
		OK(fsync(fd));
		IS(ns_of(stat_fd(fd).st_mtim) > before);
	}
	/* Before a write anywhere the times are in the past, and they agree by every way. */
	EQ(ns_of(stat_fd(fd).st_mtim), ns_of(stat_of("f").st_mtim));
	IS(ns_of(stat_fd(fd).st_mtim) <= realtime_ns());
	OK(close(fd));
	/* relatime: what is newer than the last reading is marked as read. */
	struct statvfs fs;
	OK(statvfs(".", &fs));
	if (!(fs.f_flag & (ST_NOATIME | ST_RDONLY)) && (fs.f_flag & ST_RELATIME)) {
		put_file("r", "x", 1);
		int r = FD(open("r", O_RDONLY));
		OK(futimens(r, (struct timespec[2]){{1000, 0}, {2000, 0}}));
		EQ(1, read(r, buf, 1));
		OK(close(r));
		IS(stat_of("r").st_atim.tv_sec > 2000);
	}
}

int main(int argc, char **argv)
{
	static const struct checks groups[] = {
		{"modes", modes, false},	   {"access-rights", access_rights, true},
		{"sticky", sticky, true},	   {"set-id", set_id, true},
		{"xattrs", xattrs, false},	   {"times-set", times_set, false},
		{"times-move", times_move, false}, {NULL, NULL, false},
	};

	return check_main(argc, argv, groups);
}
