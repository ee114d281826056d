/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * mktree DIR [SEED [dense]]: makes DIR with one of everything a tree can hold: sizes around every
 * limit of the format, holes, hard links, symlinks, special files, set-id and sticky modes,
 * foreign owners, far times to the nanosecond, xattrs, ACLs, awkward names, deep paths.
 * The same seed gives the same tree.  What needs root is left out for others; dense: without
 * the file of 5 TiB, for who reads what a drive keeps on its disk.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/xattr.h>
#include <unistd.h>
#include "net/base.h"

static uint64_t state;

static uint64_t rnd(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

#define TRY(call)                                                                            \
	do {                                                                                 \
		if ((call) < 0) {                                                            \
			fprintf(stderr, "mktree: %s: %s\n", #call, strerror(errno));         \
			exit(1);                                                             \
		}                                                                            \
	} while (0)

static void put(const char *path, size_t len)
{
	static uint8_t buf[1 << 16];
	int fd;

	TRY(fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644));
	while (len) {
		size_t n = HF_MIN(len, sizeof(buf));
		for (size_t i = 0; i < n; i += 8)
			put_le64(buf + i, rnd());
		TRY(write(fd, buf, n));
		len -= n;
	}
	TRY(close(fd));
}

static void set_times(const char *path, int64_t sec, long ns)
{
	struct timespec ts[2] = {{.tv_sec = sec, .tv_nsec = ns}, {.tv_sec = sec, .tv_nsec = ns}};
	TRY(utimensat(AT_FDCWD, path, ts, AT_SYMLINK_NOFOLLOW));
}

/* u::rwx u:1234:r-- g::r-x m::r-x o::--- in the kernel's form (acl(5), version 2). */
static void set_acl(const char *path, const char *name)
{
	static const struct {
		uint16_t tag, perm;
		uint32_t id;
	} e[] = {{1, 7, ~0u}, {2, 4, 1234}, {4, 5, ~0u}, {0x10, 5, ~0u}, {0x20, 0, ~0u}};
	uint8_t b[4 + 8 * 5];

	put_le32(b, 2);
	for (int i = 0; i < 5; i++) {
		put_le16(b + 4 + 8 * i, e[i].tag);
		put_le16(b + 6 + 8 * i, e[i].perm);
		put_le32(b + 8 + 8 * i, e[i].id);
	}
	TRY(setxattr(path, name, b, sizeof(b), 0));
}

int main(int argc, char **argv)
{
	static const size_t sizes[] = {0, 1, 100, 4095, 4096, 4097, 65535, 65536, 65537,
				       262143, 262144, 1000000, 5u << 20};
	char name[300];
	bool root = geteuid() == 0;

	if (argc < 2)
		return 2;
	state = 0x9e3779b97f4a7c15u ^ (argc > 2 ? strtoull(argv[2], NULL, 10) : 1);
	TRY(mkdir(argv[1], 0755));
	TRY(chdir(argv[1]));

	TRY(mkdir("sizes", 0755));
	for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
		snprintf(name, sizeof(name), "sizes/%zu", sizes[i]);
		put(name, sizes[i]);
	}
	TRY(mkdir("many", 0755));
	for (int i = 0; i < 300; i++) {
		snprintf(name, sizeof(name), "many/f%03d", i);
		put(name, rnd() % 9000);
		set_times(name, (int64_t)(rnd() % 2000000000), (long)(rnd() % 1000000000));
	}

	int fd;
	if (argc <= 3) {
		TRY(fd = open("sparse", O_RDWR | O_CREAT, 0600));
		TRY(ftruncate(fd, (off_t)5 << 40));
		TRY(pwrite(fd, "begin", 5, 0));
		TRY(pwrite(fd, "middle", 6, ((off_t)3 << 40) + 12345));
		TRY(close(fd));
	}
	TRY(fd = open("small-hole", O_RDWR | O_CREAT, 0600));
	TRY(pwrite(fd, "x", 1, 50000));
	TRY(close(fd));

	TRY(link("sizes/100", "hard1"));
	TRY(link("sizes/100", "many/hard2"));
	TRY(link("sizes/5242880", "hard-large"));
	TRY(symlink("sizes/1", "symlink"));
	TRY(symlink("/nowhere/at all", "dangling"));
	memset(name, 't', 299);
	name[299] = 0;
	TRY(symlink(name, "long-target"));
	set_times("symlink", 1234567890, 987654321);
	TRY(mkfifo("fifo", 0640));
	int s;
	struct sockaddr_un sa = {.sun_family = AF_UNIX, .sun_path = "socket"};
	TRY(s = socket(AF_UNIX, SOCK_STREAM, 0));
	TRY(bind(s, (struct sockaddr *)&sa, sizeof(sa)));
	TRY(close(s));

	TRY(mkdir("names", 0755));
	memset(name, 'n', 300);
	memcpy(name, "names/", 6);
	name[6 + 255] = 0;
	put(name, 10);
	put("names/ leading and trailing ", 11);
	put("names/new\nline", 12);
	put("names/\xff\xfe not utf-8", 13);
	put("names/\xc3\xa4\xe2\x82\xac", 14);
	put("names/-rf", 15);
	put("names/a'b\"c\\d", 16);

	char *deep = strdup("deep");
	TRY(mkdir(deep, 0755));
	for (int i = 0; i < 60; i++) {
		char *next;
		if (asprintf(&next, "%s/directory-%02d", deep, i) < 0)
			return 1;
		TRY(mkdir(next, 0755));
		free(deep);
		deep = next;
	}
	snprintf(name, sizeof(name), "file");
	TRY(chdir(deep));
	put(name, 1234);
	for (int i = 0; i < 61; i++)
		TRY(chdir(".."));
	free(deep);
	TRY(mkdir("empty", 0711));

	put("suid", 10);
	TRY(chmod("suid", 04755));
	put("sgid", 10);
	TRY(chmod("sgid", 02755));
	TRY(mkdir("sticky", 01777));
	TRY(chmod("sticky", 01777));
	put("nothing", 10);
	TRY(chmod("nothing", 0));
	put("far-future", 5);
	set_times("far-future", 4102444800 + 86399, 999999999);
	put("epoch", 5);
	set_times("epoch", 0, 1);
	put("before-epoch", 5);
	set_times("before-epoch", -86400, 500);

	put("xattrs", 20);
	TRY(setxattr("xattrs", "user.short", "v", 1, 0));
	TRY(setxattr("xattrs", "user.empty", "", 0, 0));
	char *big = calloc(1, 30000);
	memset(big, 'b', 30000);
	/* The file system under test takes 64 KiB; others, such as ext4, about a block. */
	if (setxattr("xattrs", "user.big", big, 30000, 0) < 0)
		TRY(setxattr("xattrs", "user.big", big, 1000, 0));
	free(big);
	TRY(setxattr("sizes", "user.on-directory", "directory", 9, 0));
	set_acl("xattrs", "system.posix_acl_access");
	TRY(mkdir("acl-dir", 0750));
	set_acl("acl-dir", "system.posix_acl_default");
	put("acl-dir/inherits", 3);
	TRY(mkdir("acl-dir/inherits-too", 0777));

	if (root) {
		TRY(mknod("chr", S_IFCHR | 0600, makedev(1, 3)));
		TRY(mknod("blk", S_IFBLK | 0600, makedev(259, 70000)));
		put("owned", 30);
		TRY(chown("owned", 1234, 4321));
		TRY(lchown("symlink", 77, 88));
		TRY(setxattr("owned", "trusted.t", "secret", 6, 0));
		TRY(setxattr("owned", "security.s", "label", 5, 0));
	}
	set_times("sizes", 1000000000, 123456789);
	set_times("empty", 1500000000, 1);
	return 0;
}
