/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * posix DIR [GROUP]...: what POSIX and Linux promise about names: files, directories, links,
 * special files, rename, unlinked files.  A native file system passes all of it.  In the same
 * way posixdir.c has listings and limits, posixattr.c and posixacl.c attributes, posixdata.c
 * contents, posixlock.c locks.
 */
#include <sched.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include "tests/tools/check.h"

static void files(void)
{
	int fd = FD(open("f", O_RDWR | O_CREAT | O_EXCL, 0640));
	struct stat st = stat_fd(fd);

	IS(S_ISREG(st.st_mode));
	EQ(0640, st.st_mode & 07777);
	EQ(1, st.st_nlink);
	EQ(0, st.st_size);
	EQ(0, st.st_blocks);
	EQ(geteuid(), st.st_uid);
	EQ(getegid(), st.st_gid);
	EQ(stat_of("f").st_ino, st.st_ino);
	EQ(stat_of(".").st_dev, st.st_dev);
	IS(st.st_blksize >= 512);
	FAILS(EEXIST, open("f", O_RDWR | O_CREAT | O_EXCL, 0640));
	EQ(5, write(fd, "hello", 5));
	EQ(5, stat_of("f").st_size);
	OK(close(fd));
	fd = FD(open("f", O_WRONLY | O_TRUNC));
	EQ(0, stat_fd(fd).st_size);
	OK(close(fd));
	FAILS(ENOENT, open("g", O_RDONLY));
	FAILS(ENOENT, open("no/g", O_WRONLY | O_CREAT, 0644));
	FAILS(ENOTDIR, open("f/g", O_WRONLY | O_CREAT, 0644));
	FAILS(ENOENT, open("", O_RDONLY));
	FAILS(ENOTDIR, mkdir("f/d", 0755));
	FAILS(ENOTDIR, unlink("f/d"));
	FAILS(ENOTDIR, open("f/", O_RDONLY));
	OK(unlink("f"));
	FAILS(ENOENT, unlink("f"));
	FAILS(ENOENT, open("f", O_RDONLY));

	/* The creating descriptor may write whatever the mode says. */
	fd = FD(open("r", O_RDWR | O_CREAT, 0400));
	EQ(1, write(fd, "x", 1));
	OK(close(fd));
	EQ(0400, MODE("r"));

	umask(027);
	OK(mknod("n", S_IFREG | 0666, 0));
	EQ(0640, MODE("n"));
	OK(mkdir("d", 0777));
	EQ(0750, MODE("d"));
	touch("t");
	EQ(0640, MODE("t"));
	umask(0);
	OK(mkdir("e", 01777));
	EQ(01777, MODE("e"));
}

static void directories(void)
{
	char name[32];

	OK(mkdir("d", 0755));
	struct stat st = stat_of("d");
	IS(S_ISDIR(st.st_mode));
	EQ(0755, st.st_mode & 07777);
	IS(st.st_nlink == 2 || st.st_nlink == 1);
	FAILS(EEXIST, mkdir("d", 0755));
	OK(mkdir("d/e/", 0755));
	IS(stat_of("d").st_nlink == 3 || stat_of("d").st_nlink == 1);
	EQ(st.st_ino, stat_of("d/e/..").st_ino);
	EQ(st.st_ino, stat_of("d/.").st_ino);
	FAILS(ENOTEMPTY, rmdir("d"));
	FAILS(EINVAL, rmdir("d/e/."));
	FAILS(ENOTEMPTY, rmdir("d/e/.."));
	FAILS(EISDIR, unlink("d/e"));
	touch("f");
	FAILS(ENOTDIR, rmdir("f"));
	FAILS(ENOENT, rmdir("g"));
	FAILS(EEXIST, mkdir("f", 0755));
	OK(symlink("d", "s"));
	FAILS(ENOTDIR, rmdir("s"));
	FAILS(EEXIST, mkdir("s", 0755));
	OK(rmdir("d/e"));
	IS(stat_of("d").st_nlink == 2 || stat_of("d").st_nlink == 1);
	OK(rmdir("d"));
	FAILS(ENOENT, mkdir("s/x", 0755));
	FAILS(EISDIR, open(".", O_WRONLY));
	FAILS(EISDIR, open(".", O_RDWR));
	int fd = FD(open(".", O_RDONLY));
	FAILS(EISDIR, read(fd, name, 1));
	FAILS(EBADF, write(fd, name, 1));
	FAILS(EINVAL, ftruncate(fd, 0));
	OK(fsync(fd));
	OK(fdatasync(fd));
	OK(close(fd));
	FAILS(EISDIR, truncate(".", 0));

	/* Emptied by unlink, a directory goes; a name with a dot or two is a name. */
	OK(mkdir("many", 0755));
	for (int i = 0; i < 300; i++) {
		snprintf(name, sizeof(name), "many/%d", i);
		touch(name);
	}
	touch("many/...");
	touch("many/.x");
	FAILS(ENOTEMPTY, rmdir("many"));
	for (int i = 0; i < 300; i++) {
		snprintf(name, sizeof(name), "many/%d", i);
		OK(unlink(name));
	}
	OK(unlink("many/..."));
	FAILS(ENOTEMPTY, rmdir("many"));
	OK(unlink("many/.x"));
	OK(rmdir("many"));
}

static void busy(void)
{
	if (!child())
		return;
	/* A mount point of this name space may not be removed or renamed. */
	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
		_exit(0);
	OK(mkdir("d", 0755));
	if (!mount("none", "d", "tmpfs", 0, NULL)) {
		FAILS(EBUSY, rmdir("d"));
		FAILS(EBUSY, rename("d", "e"));
		OK(umount("d"));
	}
	OK(rmdir("d"));
	_exit(0);
}

static void hard_links(void)
{
	char name[32], proc[64];
	int fd = FD(open("f", O_RDWR | O_CREAT, 0644));

	EQ(3000, write(fd, (char[3000]){1}, 3000));
	OK(link("f", "g"));
	/* Right after the link the size is that of the write before. */
	EQ(3000, stat_of("g").st_size);
	EQ(3000, stat_of("f").st_size);
	EQ(2, stat_fd(fd).st_nlink);
	EQ(stat_of("f").st_ino, stat_of("g").st_ino);
	EQ(10, pwrite(fd, "0123456789", 10, 100000));
	EQ(100010, stat_of("g").st_size);
	FAILS(EEXIST, link("f", "g"));
	FAILS(ENOENT, link("no", "h"));
	FAILS(ENOENT, link("f", "no/h"));
	FAILS(ENOTDIR, link("f", "g/h"));
	OK(mkdir("d", 0755));
	FAILS(EPERM, link("d", "e"));
	FAILS(EEXIST, link("f", "d"));
	OK(link("f", "d/h"));
	EQ(3, stat_of("f").st_nlink);
	OK(chmod("d/h", 0600));
	EQ(0600, MODE("f"));
	OK(unlink("f"));
	EQ(2, stat_of("g").st_nlink);
	EQ(2, stat_fd(fd).st_nlink);

	/* Of a symbolic link it is the link, unless asked to follow. */
	OK(symlink("g", "s"));
	OK(link("s", "t"));
	IS(S_ISLNK(stat_of("t").st_mode));
	EQ(2, stat_of("s").st_nlink);
	OK(linkat(AT_FDCWD, "s", AT_FDCWD, "u", AT_SYMLINK_FOLLOW));
	IS(S_ISREG(stat_of("u").st_mode));
	EQ(3, stat_of("g").st_nlink);

	snprintf(proc, sizeof(proc), "/proc/self/fd/%d", fd);
	OK(linkat(AT_FDCWD, proc, AT_FDCWD, "v", AT_SYMLINK_FOLLOW));
	EQ(stat_fd(fd).st_ino, stat_of("v").st_ino);
	if (!geteuid()) {
		OK(linkat(fd, "", AT_FDCWD, "w", AT_EMPTY_PATH));
		OK(unlink("w"));
	}
	for (const char *p = "gvu"; *p; p++)
		OK(unlink((char[2]){*p, 0}));
	OK(unlink("d/h"));
	EQ(0, stat_fd(fd).st_nlink);
	FAILS(ENOENT, linkat(AT_FDCWD, proc, AT_FDCWD, "x", AT_SYMLINK_FOLLOW));
	OK(close(fd));

	touch("many");
	for (int i = 0; i < 500; i++) {
		snprintf(name, sizeof(name), "many.%d", i);
		OK(link("many", name));
	}
	EQ(501, stat_of("many").st_nlink);
}

static void symlinks(void)
{
	char target[4097], got[4200], name[32], prev[32];

	OK(symlink("somewhere", "s"));
	struct stat st = stat_of("s");
	IS(S_ISLNK(st.st_mode));
	EQ(9, st.st_size);
	EQ(0777, st.st_mode & 07777);
	EQ(9, readlink("s", got, sizeof(got)));
	IS(!memcmp(got, "somewhere", 9));
	EQ(4, readlink("s", got, 4));
	FAILS(EEXIST, symlink("x", "s"));
	FAILS(ENOENT, symlink("", "e"));
	FAILS(ENOENT, open("s", O_RDONLY));
	FAILS(EEXIST, open("s", O_WRONLY | O_CREAT | O_EXCL, 0644));
	FAILS(ELOOP, open("s", O_RDONLY | O_NOFOLLOW));
	int fd = FD(open("s", O_WRONLY | O_CREAT, 0644));
	OK(close(fd));
	IS(S_ISREG(stat_of("somewhere").st_mode));
	FAILS(EINVAL, readlink("somewhere", got, sizeof(got)));
	FAILS(EINVAL, readlink(".", got, sizeof(got)));
	FAILS(ENOENT, readlink("no", got, sizeof(got)));

	for (size_t len = 1; len <= 4095; len = len < 4000 ? len * 2 + 1 : len + 1) {
		memset(target, 'x', len);
		target[len] = 0;
		OK(symlink(target, "long"));
		EQ(len, stat_of("long").st_size);
		EQ(len, readlink("long", got, sizeof(got)));
		IS(!memcmp(got, target, len));
		OK(unlink("long"));
	}
	memset(target, 'x', 4096);
	target[4096] = 0;
	FAILS(ENAMETOOLONG, symlink(target, "long"));

	OK(symlink("a", "b"));
	OK(symlink("b", "a"));
	FAILS(ELOOP, open("a", O_RDONLY));
	FAILS(ELOOP, open("a/x", O_RDONLY));
	FAILS(ELOOP, chmod("a", 0644));
	OK(symlink("self/x", "self"));
	FAILS(ELOOP, open("self", O_RDONLY));
	touch("c0");
	for (int i = 1; i <= 41; i++) {
		snprintf(name, sizeof(name), "c%d", i);
		snprintf(prev, sizeof(prev), "c%d", i - 1);
		OK(symlink(prev, name));
	}
	OK(fd = open("c40", O_RDONLY));
	OK(close(fd));
	FAILS(ELOOP, open("c41", O_RDONLY));

	OK(mkdir("d", 0755));
	OK(symlink("d", "ds"));
	touch("ds/f");
	IS(S_ISREG(stat_of("d/f").st_mode));
	IS(S_ISDIR(stat_of("ds/").st_mode));
	OK(symlink("../somewhere", "d/up"));
	OK(fd = open("ds/up", O_RDONLY));
	OK(close(fd));
	OK(unlink("ds"));
	IS(S_ISDIR(stat_of("d").st_mode));
	if (!geteuid()) {
		OK(lchown("s", 7, 8));
		EQ(7, stat_of("s").st_uid);
		EQ(8, stat_of("s").st_gid);
		EQ(0, stat_of("somewhere").st_uid);
	}
}

static void fifos(void)
{
	char got[16];

	OK(mkfifo("p", 0620));
	struct stat st = stat_of("p");
	IS(S_ISFIFO(st.st_mode));
	EQ(0600, st.st_mode & 07777);
	EQ(0, st.st_size);
	FAILS(EEXIST, mkfifo("p", 0600));
	FAILS(ENXIO, open("p", O_WRONLY | O_NONBLOCK));
	pid_t pid = fork();
	if (pid == 0) {
		int w = FD(open("p", O_WRONLY));
		EQ(6, write(w, "through", 6));
		_exit(0);
	}
	int r = FD(open("p", O_RDONLY));
	EQ(6, read(r, got, sizeof(got)));
	IS(!memcmp(got, "through", 6));
	EQ(0, read(r, got, sizeof(got)));
	child_end(pid);
	FAILS(ESPIPE, lseek(r, 0, SEEK_SET));
	/* The open ends go on when the name is gone or another. */
	int w = FD(open("p", O_WRONLY));
	OK(rename("p", "q"));
	OK(unlink("q"));
	EQ(1, write(w, "x", 1));
	EQ(1, read(r, got, 1));
	OK(close(r));
	OK(close(w));
}

static void sockets(void)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX, .sun_path = "sock"};
	char got[8];
	int s = FD(socket(AF_UNIX, SOCK_STREAM, 0));

	OK(bind(s, (struct sockaddr *)&a, sizeof(a)));
	IS(S_ISSOCK(stat_of("sock").st_mode));
	OK(listen(s, 1));
	int c = FD(socket(AF_UNIX, SOCK_STREAM, 0));
	FAILS(EADDRINUSE, bind(c, (struct sockaddr *)&a, sizeof(a)));
	OK(connect(c, (struct sockaddr *)&a, sizeof(a)));
	int p = FD(accept(s, NULL, NULL));
	EQ(4, write(c, "sent", 4));
	EQ(4, read(p, got, sizeof(got)));
	IS(!memcmp(got, "sent", 4));
	FAILS(ENXIO, open("sock", O_RDWR));
	OK(rename("sock", "moved"));
	snprintf(a.sun_path, sizeof(a.sun_path), "moved");
	int d = FD(socket(AF_UNIX, SOCK_STREAM, 0));
	OK(connect(d, (struct sockaddr *)&a, sizeof(a)));
	for (int fd = d; fd >= s; fd--)
		close(fd);
	int e = FD(socket(AF_UNIX, SOCK_STREAM, 0));
	FAILS(ECONNREFUSED, connect(e, (struct sockaddr *)&a, sizeof(a)));
	OK(close(e));
	OK(mknod("made", S_IFSOCK | 0600, 0));
	IS(S_ISSOCK(stat_of("made").st_mode));
}

static void devices(void)
{
	static const struct {
		mode_t type;
		unsigned maj, min;
	} dev[] = {{S_IFCHR, 1, 3},
		   {S_IFCHR, 0, 0},
		   {S_IFBLK, 7, 255},
		   {S_IFBLK, 259, 70000},
		   {S_IFCHR, 4095, 1048575}};
	char name[16], got;
	struct statvfs fs;

	for (size_t i = 0; i < sizeof(dev) / sizeof(dev[0]); i++) {
		snprintf(name, sizeof(name), "dev%zu", i);
		OK(mknod(name, dev[i].type | 0640, makedev(dev[i].maj, dev[i].min)));
		struct stat st = stat_of(name);
		EQ(dev[i].type | 0640, st.st_mode);
		EQ(dev[i].maj, major(st.st_rdev));
		EQ(dev[i].min, minor(st.st_rdev));
		EQ(0, st.st_size);
	}
	OK(statvfs(".", &fs));
	if (fs.f_flag & ST_NODEV) {
		FAILS(EACCES, open("dev0", O_RDWR));
	} else {
		int fd = FD(open("dev0", O_RDWR));
		EQ(0, read(fd, &got, 1));
		EQ(1, write(fd, "x", 1));
		OK(close(fd));
	}
}

static int exchange(const char *a, const char *b)
{
	return renameat2(AT_FDCWD, a, AT_FDCWD, b, RENAME_EXCHANGE);
}
static int noreplace(const char *a, const char *b)
{
	return renameat2(AT_FDCWD, a, AT_FDCWD, b, RENAME_NOREPLACE);
}

/* What overlayfs leaves behind where a lower layer has the name; as any user. */
static void whiteouts(void)
{
	put_file("a", "A", 1);
	put_file("b", "B", 1);
	ino_t ino = stat_of("a").st_ino;
	OK(renameat2(AT_FDCWD, "a", AT_FDCWD, "b", RENAME_WHITEOUT));
	EQ(ino, stat_of("b").st_ino);
	struct stat st = stat_of("a");
	EQ(S_IFCHR, st.st_mode);
	EQ(0, st.st_rdev);
	EQ(1, st.st_nlink);
	EQ(geteuid(), st.st_uid);
	IS(st.st_ino != ino);
	FAILS(EINVAL,
	      renameat2(AT_FDCWD, "a", AT_FDCWD, "b", RENAME_WHITEOUT | RENAME_EXCHANGE));
	FAILS(EEXIST,
	      renameat2(AT_FDCWD, "b", AT_FDCWD, "a", RENAME_WHITEOUT | RENAME_NOREPLACE));
	OK(mkdir("d", 0755));
	OK(mkdir("e", 0755));
	OK(renameat2(AT_FDCWD, "d", AT_FDCWD, "e/d", RENAME_WHITEOUT | RENAME_NOREPLACE));
	EQ(S_IFCHR, stat_of("d").st_mode);
	IS(S_ISDIR(stat_of("e/d").st_mode));
	/* Over the whiteout itself: nothing but names changes. */
	OK(rename("b", "a"));
	EQ(ino, stat_of("a").st_ino);
	FAILS(ENOENT, access("b", F_OK));
	OK(link("a", "b"));
	OK(renameat2(AT_FDCWD, "a", AT_FDCWD, "b", RENAME_WHITEOUT));
	EQ(ino, stat_of("a").st_ino);
	OK(unlink("d"));
}

static void renames(void)
{
	char got[8] = "";

	put_file("a", "A", 1);
	put_file("b", "B", 1);
	int old = FD(open("b", O_RDWR)), fd = FD(open("a", O_RDWR));
	ino_t ino = stat_of("a").st_ino;
	OK(rename("a", "b"));
	FAILS(ENOENT, access("a", F_OK));
	EQ(ino, stat_of("b").st_ino);
	/* Open descriptors follow their file, not the name. */
	EQ(0, stat_fd(old).st_nlink);
	EQ(1, pread(old, got, 1, 0));
	EQ('B', got[0]);
	EQ(1, pwrite(fd, "C", 1, 1));
	int r = FD(open("b", O_RDONLY));
	EQ(2, read(r, got, sizeof(got)));
	IS(!memcmp(got, "AC", 2));
	close(r);
	close(old);
	close(fd);

	OK(link("b", "c"));
	OK(rename("b", "c"));
	OK(access("b", F_OK));
	EQ(2, stat_of("c").st_nlink);
	OK(rename("b", "b"));
	FAILS(ENOENT, rename("no", "b"));
	FAILS(ENOENT, rename("b", "no/b"));
	FAILS(ENOTDIR, rename("b", "c/d"));
	FAILS(ENOTDIR, rename("b", "new/"));

	OK(mkdir("d", 0755));
	OK(mkdir("e", 0755));
	OK(mkdir("full", 0755));
	OK(mkdir("full/in", 0755));
	FAILS(EISDIR, rename("b", "d"));
	FAILS(ENOTDIR, rename("d", "b"));
	FAILS2(ENOTEMPTY, EEXIST, rename("d", "full"));
	FAILS2(ENOTEMPTY, EEXIST, rename("full/in", "full"));
	FAILS(EINVAL, rename("full", "full/in/x"));
	FAILS(EINVAL, rename("full", "full/x"));
	FAILS(EINVAL, exchange("full", "full/in"));
	FAILS2(EINVAL, ENOTEMPTY, exchange("full/in", "full"));
	FAILS2(EBUSY, EINVAL, rename("d/.", "x"));
	FAILS2(EBUSY, EINVAL, rename("d", "e/."));
	FAILS2(EBUSY, ENOTEMPTY, rename("d", "full/.."));
	ino = stat_of("d").st_ino;
	OK(rename("d", "e"));
	EQ(ino, stat_of("e").st_ino);
	OK(rename("full", "e"));
	OK(access("e/in", F_OK));
	OK(mkdir("p", 0755));
	OK(rename("e/in", "p/in"));
	EQ(stat_of("p").st_ino, stat_of("p/in/..").st_ino);
	IS(stat_of("p").st_nlink == 3 || stat_of("p").st_nlink == 1);
	IS(stat_of("e").st_nlink == 2 || stat_of("e").st_nlink == 1);
	OK(rename("p", "q"));
	OK(access("q/in", F_OK));

	FAILS(EEXIST, noreplace("b", "c"));
	FAILS(EEXIST, noreplace("b", "q"));
	FAILS(EEXIST, noreplace("b", "b"));
	OK(noreplace("b", "n"));
	FAILS(EINVAL,
	      renameat2(AT_FDCWD, "n", AT_FDCWD, "q", RENAME_NOREPLACE | RENAME_EXCHANGE));
	FAILS(EINVAL, renameat2(AT_FDCWD, "n", AT_FDCWD, "q", 1u << 20));

	FAILS(ENOENT, exchange("n", "no"));
	ino = stat_of("n").st_ino;
	ino_t dir = stat_of("q").st_ino;
	OK(exchange("n", "q"));
	EQ(dir, stat_of("n").st_ino);
	EQ(ino, stat_of("q").st_ino);
	OK(access("n/in", F_OK));
	OK(exchange("n/in", "q"));
	IS(S_ISREG(stat_of("n/in").st_mode));
	IS(S_ISDIR(stat_of("q").st_mode));
	EQ(stat_of(".").st_ino, stat_of("q/..").st_ino);
	IS(stat_of("n").st_nlink == 2 || stat_of("n").st_nlink == 1);
	OK(mkdir("q/k", 0755));
	OK(mkdir("n/k", 0755));
	OK(exchange("q/k", "n/k"));
	EQ(stat_of("n").st_ino, stat_of("n/k/..").st_ino);
	EQ(stat_of("q").st_ino, stat_of("q/k/..").st_ino);
	OK(rmdir("q/k"));
	OK(exchange("n/in", "n/in"));

	/* A name that changes only in letter case is another name. */
	touch("case");
	OK(rename("case", "CASE"));
	FAILS(ENOENT, access("case", F_OK));
	OK(symlink("n", "sn"));
	OK(rename("sn", "sm"));
	IS(S_ISLNK(stat_of("sm").st_mode));
	OK(rename("CASE", "sm"));
	IS(S_ISREG(stat_of("sm").st_mode));
	IS(S_ISDIR(stat_of("n").st_mode));
	/* Through a descriptor of the directory, wherever that has gone. */
	int d = FD(open("n", O_RDONLY | O_DIRECTORY));
	OK(rename("n", "q/n"));
	OK(renameat(d, "in", d, "out"));
	OK(access("q/n/out", F_OK));
	OK(close(d));
}

static void unlinked(void)
{
	char got[8], cwd[4096];
	int fd = FD(open("f", O_RDWR | O_CREAT, 0644));

	EQ(4, write(fd, "data", 4));
	OK(unlink("f"));
	EQ(0, stat_fd(fd).st_nlink);
	EQ(4, pread(fd, got, sizeof(got), 0));
	IS(!memcmp(got, "data", 4));
	EQ(3, pwrite(fd, "xyz", 3, 200000));
	EQ(200003, stat_fd(fd).st_size);
	OK(ftruncate(fd, 200001));
	EQ(1, pread(fd, got, sizeof(got), 200000));
	EQ('x', got[0]);
	OK(fchmod(fd, 0611));
	EQ(0611, stat_fd(fd).st_mode & 07777);
	OK(fsync(fd));
	/* The name is free for another file, which has nothing to do with it. */
	put_file("f", "new", 3);
	EQ(200001, stat_fd(fd).st_size);
	IS(stat_of("f").st_ino != stat_fd(fd).st_ino);
	int over = FD(open("f", O_RDWR));
	touch("g");
	OK(rename("g", "f"));
	EQ(0, stat_fd(over).st_nlink);
	EQ(3, read(over, got, sizeof(got)));
	EQ(3, pwrite(over, "NEW", 3, 3));
	OK(ftruncate(over, 100));
	EQ(100, stat_fd(over).st_size);
	EQ(0, stat_of("f").st_size);
	char proc[64];
	snprintf(proc, sizeof(proc), "/proc/self/fd/%d", over);
	int again = FD(open(proc, O_RDONLY));
	EQ(6, pread(again, cwd, 6, 0));
	IS(!memcmp(cwd, "newNEW", 6));
	OK(close(again));
	OK(close(over));
	OK(close(fd));

	OK(mkdir("d", 0755));
	if (child()) {
		OK(chdir("d"));
		OK(rmdir("../d"));
		FAILS(ENOENT, open("x", O_WRONLY | O_CREAT, 0644));
		FAILS(ENOENT, mkdir("x", 0755));
		FAILS(ENOENT, symlink("x", "y"));
		FAILS(ENOENT, link("../f", "y"));
		FAILS(ENOENT, rename("../f", "y"));
		FAILS(ENOENT, access("x", F_OK));
		FAILS(ENOENT, syscall(SYS_getcwd, cwd, sizeof(cwd)));
		EQ(0, stat_of(".").st_nlink);
		_exit(0);
	}
	OK(mkdir("d", 0755));
	OK(mkdir("e", 0755));
	int d = FD(open("d", O_RDONLY | O_DIRECTORY));
	OK(rename("e", "d"));
	FAILS(ENOENT, openat(d, "x", O_WRONLY | O_CREAT, 0644));
	EQ(0, stat_fd(d).st_nlink);
	OK(fchmod(d, 0700));
	FAILS(ENOENT, syscall(SYS_getdents64, d, cwd, sizeof(cwd)));
	OK(close(d));
}

static void open_flags(void)
{
	char got[8];

	put_file("f", "data", 4);
	OK(symlink("f", "s"));
	OK(mkdir("d", 0755));
	FAILS(ENOTDIR, open("f", O_RDONLY | O_DIRECTORY));
	FAILS(EISDIR, open("d", O_WRONLY | O_CREAT, 0644));
	FAILS(EEXIST, open("d", O_WRONLY | O_CREAT | O_EXCL, 0644));
	FAILS(EISDIR, open("d", O_RDWR | O_TRUNC));
	FAILS(ELOOP, open("s", O_WRONLY | O_NOFOLLOW));
	FAILS(EISDIR, open("new/", O_WRONLY | O_CREAT, 0644));
	int fd = FD(open("f", O_PATH));
	FAILS(EBADF, read(fd, got, 1));
	FAILS(EBADF, fchmod(fd, 0600));
	EQ(4, stat_fd(fd).st_size);
	char proc[64];
	snprintf(proc, sizeof(proc), "/proc/self/fd/%d", fd);
	int r = FD(open(proc, O_RDWR));
	EQ(4, read(r, got, sizeof(got)));
	FAILS(EBADF, write(open("f", O_RDONLY), "x", 1));
	FAILS(EBADF, read(open("f", O_WRONLY), got, 1));
	FAILS(EINVAL, ftruncate(open("f", O_RDONLY), 1));
	OK(close(r));
	OK(close(fd));
	fd = FD(open("s", O_PATH | O_NOFOLLOW));
	IS(S_ISLNK(stat_fd(fd).st_mode));
	EQ(1, readlinkat(fd, "", got, sizeof(got)));
	OK(close(fd));
	fd = FD(open("d", O_PATH | O_DIRECTORY));
	int g = FD(openat(fd, "in", O_WRONLY | O_CREAT | O_EXCL, 0644));
	OK(close(g));
	OK(close(fd));
	OK(access("d/in", F_OK));
	/* O_EXCL makes one winner among many. */
	int won = 0;
	for (int i = 0; i < 4; i++) {
		fd = open("excl", O_WRONLY | O_CREAT | O_EXCL, 0644);
		won += fd >= 0;
	}
	EQ(1, won);
	fd = FD(open("f", O_WRONLY | O_CREAT | O_TRUNC | O_SYNC, 0600));
	EQ(0, stat_fd(fd).st_size);
	EQ(0644, stat_fd(fd).st_mode & 07777);
	EQ(2, write(fd, "ab", 2));
	OK(close(fd));
}

int main(int argc, char **argv)
{
	static const struct checks groups[] = {
		{"files", files, false},
		{"directories", directories, false},
		{"busy", busy, true},
		{"hard-links", hard_links, false},
		{"symlinks", symlinks, false},
		{"fifos", fifos, false},
		{"sockets", sockets, false},
		{"devices", devices, true},
		{"whiteouts", whiteouts, false},
		{"renames", renames, false},
		{"unlinked", unlinked, false},
		{"open-flags", open_flags, false},
		{NULL, NULL, false},
	};

	return check_main(argc, argv, groups);
}
