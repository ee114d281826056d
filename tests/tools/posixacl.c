/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * posixacl DIR [GROUP]...: POSIX access control lists: set, inherited, in step with the mode,
 * and what they allow.  A native file system passes all of it; see posix.c.
 */
#include <sys/xattr.h>
#include "tests/tools/check.h"

#define ACCESS	"system.posix_acl_access"
#define DEFAULT "system.posix_acl_default"
#define NONE	0xffffffffu
struct entry {
	unsigned tag, perm;
	uint32_t id;
};
enum { U_OBJ = 1, U = 2, G_OBJ = 4, G = 8, MASK = 16, O = 32 };

static size_t acl_pack(uint8_t *p, const struct entry *e, size_t cnt)
{
	put_le32(p, 2);
	for (size_t i = 0; i < cnt; i++) {
		put_le16(p + 4 + i * 8, (uint16_t)e[i].tag);
		put_le16(p + 6 + i * 8, (uint16_t)e[i].perm);
		put_le32(p + 8 + i * 8, e[i].id);
	}
	return 4 + cnt * 8;
}
static int acl_set(const char *path, const char *which, const struct entry *e, size_t cnt)
{
	uint8_t p[256];

	return setxattr(path, which, p, acl_pack(p, e, cnt), 0);
}
static bool acl_is(const char *path, const char *which, const struct entry *e, size_t cnt)
{
	uint8_t want[256], got[256];
	size_t len = acl_pack(want, e, cnt);
	ssize_t n = getxattr(path, which, got, sizeof(got));

	if (n == (ssize_t)len && !memcmp(want, got, len))
		return true;
	printf("%s of %s:%s", which, path, n < 0 ? strerror(errno) : "");
	for (ssize_t i = 4; i + 8 <= n; i += 8)
		printf(" %u:%u:%d", get_le16(got + i), get_le16(got + i + 2),
		       (int)get_le32(got + i + 4));
	printf("\n");
	return false;
}

static void acls(void)
{
	struct entry a[] = {{U_OBJ, 6, NONE}, {U, 6, USER1},   {G_OBJ, 0, NONE},
			    {G, 4, USER2},    {MASK, 4, NONE}, {O, 0, NONE}};
	struct entry bare[] = {{U_OBJ, 7, NONE}, {G_OBJ, 5, NONE}, {O, 1, NONE}};
	char list[256];

	put_file("f", "x", 1);
	OK(chmod("f", 0600));
	if (setxattr("f", ACCESS, NULL, 0, 0) < 0 && errno == EOPNOTSUPP) {
		OK(setxattr("f", ACCESS, NULL, 0, 0));
		return;
	}
	FAILS(ENODATA, getxattr("f", ACCESS, list, sizeof(list)));
	OK(acl_set("f", ACCESS, a, CNT(a)));
	/* The group bits of the mode are the mask. */
	EQ(0640, MODE("f"));
	IS(acl_is("f", ACCESS, a, CNT(a)));
	EQ(4 + 8 * CNT(a), getxattr("f", ACCESS, NULL, 0));
	FAILS(ERANGE, getxattr("f", ACCESS, list, 10));
	ssize_t n = listxattr("f", list, sizeof(list));
	IS(n > 0 && memmem(list, (size_t)n, ACCESS, sizeof(ACCESS)));
	OK(chmod("f", 0600));
	a[4].perm = 0;
	IS(acl_is("f", ACCESS, a, CNT(a)));
	OK(chmod("f", 0664));
	a[4].perm = 6;
	a[5].perm = 4;
	IS(acl_is("f", ACCESS, a, CNT(a)));
	EQ(0664, MODE("f"));
	OK(chmod("f", 04711));
	a[0].perm = 7;
	a[4].perm = 1;
	a[5].perm = 1;
	IS(acl_is("f", ACCESS, a, CNT(a)));
	EQ(04711, MODE("f"));
	OK(chmod("f", 0660));

	/* A list that says what a mode can say is one. */
	OK(acl_set("f", ACCESS, bare, CNT(bare)));
	EQ(0751, MODE("f"));
	FAILS(ENODATA, getxattr("f", ACCESS, list, sizeof(list)));
	OK(acl_set("f", ACCESS, a, CNT(a)));
	OK(removexattr("f", ACCESS));
	FAILS(ENODATA, getxattr("f", ACCESS, list, sizeof(list)));
	EQ(0711, MODE("f"));

	/* What is no list. */
	struct entry nomask[] = {{U_OBJ, 6, NONE}, {U, 6, 7}, {G_OBJ, 0, NONE}, {O, 0, NONE}};
	struct entry order[] = {{G_OBJ, 6, NONE}, {U_OBJ, 6, NONE}, {O, 0, NONE}};
	struct entry perm[] = {{U_OBJ, 8, NONE}, {G_OBJ, 0, NONE}, {O, 0, NONE}};
	FAILS(EINVAL, acl_set("f", ACCESS, nomask, CNT(nomask)));
	FAILS(EINVAL, acl_set("f", ACCESS, order, CNT(order)));
	FAILS(EINVAL, acl_set("f", ACCESS, perm, CNT(perm)));
	FAILS(EINVAL, acl_set("f", ACCESS, bare, 2));
	FAILS(EINVAL, setxattr("f", ACCESS, "\2\0\0\0\1", 5, 0));
	FAILS2(EOPNOTSUPP, EINVAL, setxattr("f", ACCESS, "\1\0\0\0", 4, 0));
	EQ(0711, MODE("f"));
	FAILS(EACCES, acl_set("f", DEFAULT, bare, CNT(bare)));
	OK(symlink("f", "s"));
	uint8_t raw[64];
	FAILS(EOPNOTSUPP, lsetxattr("s", ACCESS, raw, acl_pack(raw, bare, 3), 0));
}

static void acl_default(void)
{
	struct entry d[] = {{U_OBJ, 7, NONE}, {U, 7, USER1},   {G_OBJ, 5, NONE},
			    {G, 6, USER2},    {MASK, 7, NONE}, {O, 5, NONE}};
	struct entry want[CNT(d)];
	char got[64];
	int fd;

	OK(mkdir("d", 0755));
	OK(acl_set("d", DEFAULT, d, CNT(d)));
	EQ(0755, MODE("d"));
	FAILS(ENODATA, getxattr("d", ACCESS, got, sizeof(got)));
	/* The umask has no say where a default list has one. */
	umask(077);
	fd = FD(open("d/f", O_RDWR | O_CREAT, 0664));
	OK(close(fd));
	memcpy(want, d, sizeof(d));
	want[0].perm = 6;
	want[4].perm = 6;
	want[5].perm = 4;
	IS(acl_is("d/f", ACCESS, want, CNT(want)));
	EQ(0664, MODE("d/f"));
	FAILS(ENODATA, getxattr("d/f", DEFAULT, got, sizeof(got)));
	OK(mkdir("d/e", 0770));
	memcpy(want, d, sizeof(d));
	want[5].perm = 0;
	IS(acl_is("d/e", ACCESS, want, CNT(want)));
	IS(acl_is("d/e", DEFAULT, d, CNT(d)));
	EQ(0770, MODE("d/e"));
	OK(mkfifo("d/p", 0600));
	memcpy(want, d, sizeof(d));
	want[0].perm = 6;
	want[4].perm = 0;
	want[5].perm = 0;
	IS(acl_is("d/p", ACCESS, want, CNT(want)));
	EQ(0600, MODE("d/p"));
	OK(symlink("f", "d/s"));
	FAILS2(ENODATA, EOPNOTSUPP, lgetxattr("d/s", ACCESS, got, sizeof(got)));
	EQ(0777, MODE("d/s"));
	touch("d/e/deep");
	IS(getxattr("d/e/deep", ACCESS, NULL, 0) > 0);

	/* A default list of three entries replaces the umask and leaves only a mode. */
	struct entry bare[] = {{U_OBJ, 7, NONE}, {G_OBJ, 5, NONE}, {O, 0, NONE}};
	OK(mkdir("m", 0755));
	OK(acl_set("m", DEFAULT, bare, CNT(bare)));
	fd = FD(open("m/f", O_RDWR | O_CREAT, 0666));
	OK(close(fd));
	EQ(0640, MODE("m/f"));
	FAILS(ENODATA, getxattr("m/f", ACCESS, got, sizeof(got)));
	OK(removexattr("m", DEFAULT));
	FAILS(ENODATA, getxattr("m", DEFAULT, got, sizeof(got)));
	fd = FD(open("m/g", O_RDWR | O_CREAT, 0666));
	OK(close(fd));
	EQ(0600, MODE("m/g"));
	umask(022);
	/* Setting nothing removes. */
	OK(acl_set("d", DEFAULT, NULL, 0));
	FAILS(ENODATA, getxattr("d", DEFAULT, got, sizeof(got)));
}

static void acl_rights(void)
{
	struct entry a[] = {{U_OBJ, 6, NONE}, {U, 6, USER1},   {G_OBJ, 0, NONE},
			    {G, 4, USER2},    {MASK, 6, NONE}, {O, 0, NONE}};
	uint8_t raw[64];
	int fd;

	put_file("f", "x", 1);
	OK(acl_set("f", ACCESS, a, CNT(a)));
	if (as(USER1)) {
		fd = FD(open("f", O_RDWR));
		OK(close(fd));
		FAILS(EPERM, chmod("f", 0666));
		FAILS(EPERM, setxattr("f", ACCESS, raw, acl_pack(raw, a, CNT(a)), 0));
		FAILS(EPERM, removexattr("f", ACCESS));
		_exit(0);
	}
	if (as(USER2)) {
		fd = FD(open("f", O_RDONLY));
		OK(close(fd));
		FAILS(EACCES, open("f", O_RDWR));
		_exit(0);
	}
	if (as(12003)) {
		FAILS(EACCES, open("f", O_RDONLY));
		_exit(0);
	}
	OK(chmod("f", 0640));
	if (as(USER1)) {
		FAILS(EACCES, open("f", O_RDWR));
		fd = FD(open("f", O_RDONLY));
		OK(close(fd));
		_exit(0);
	}
	/* An owner of a directory with a default list makes what another can use. */
	struct entry d[] = {{U_OBJ, 7, NONE},
			    {U, 7, USER2},
			    {G_OBJ, 0, NONE},
			    {MASK, 7, NONE},
			    {O, 0, NONE}};
	OK(mkdir("d", 0755));
	OK(chown("d", USER1, USER1));
	if (as(USER1)) {
		umask(077);
		OK(acl_set("d", ACCESS, d, CNT(d)));
		OK(acl_set("d", DEFAULT, d, CNT(d)));
		OK(mkdir("d/e", 0777));
		fd = FD(open("d/e/f", O_WRONLY | O_CREAT, 0666));
		OK(close(fd));
		_exit(0);
	}
	EQ(0770, MODE("d"));
	if (as(USER2)) {
		fd = FD(open("d/e/f", O_RDWR));
		OK(close(fd));
		touch("d/e/g");
		OK(unlink("d/e/f"));
		_exit(0);
	}
	if (as(12003)) {
		FAILS(EACCES, access("d/e", F_OK));
		_exit(0);
	}
}

int main(int argc, char **argv)
{
	static const struct checks groups[] = {
		{"acls", acls, false},
		{"acl-default", acl_default, false},
		{"acl-rights", acl_rights, true},
		{NULL, NULL, false},
	};

	return check_main(argc, argv, groups);
}
