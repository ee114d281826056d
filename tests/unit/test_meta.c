/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>
#include "fake_data.h"

static struct store *st;
static char *dir;

static const struct meta_new file_new = {.mode = S_IFREG | 0644, .uid = 7, .gid = 8};
static const struct meta_new dir_new = {.mode = S_IFDIR | 0755, .uid = 7, .gid = 8};

static int setup(void **state)
{
	struct store_opts o = {0};

	(void)state;
	dir = fake_dir();
	o.dir = dir;
	if (store_open(&st, &o) || store_init_root(st, 1, 2, 0755) || store_start(st))
		return -1;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	int err = store_close(st);
	fake_dir_remove(dir);
	return err;
}

static uint64_t make(const struct meta_new *n, uint64_t parent, const char *name)
{
	struct inode *in;

	int err = meta_create(st, parent, name, strlen(name), n, &in);
	if (err)
		return 0;
	uint64_t ino = in->ino;
	inode_put(st, in);
	return ino;
}

static int64_t find(uint64_t parent, const char *name)
{
	struct inode *in;

	int err = meta_lookup(st, parent, name, strlen(name), &in);
	if (err)
		return err;
	int64_t ino = (int64_t)in->ino;
	inode_put(st, in);
	return ino;
}

static int unlink_(uint64_t parent, const char *name, bool rmdir)
{
	uint64_t ino;

	int err = meta_unlink(st, parent, name, strlen(name), rmdir, &ino);
	if (!err)
		meta_reap(st, ino);
	return err;
}

static int rename_(uint64_t p, const char *n, uint64_t p2, const char *n2, unsigned flags)
{
	uint64_t victim;

	int err = meta_rename(st, p, n, strlen(n), p2, n2, strlen(n2), flags, &victim);
	if (!err && victim)
		meta_reap(st, victim);
	return err;
}

static struct stat stat_(uint64_t ino)
{
	struct inode *in;
	struct stat s;

	assert_int_equal(inode_get(st, ino, &in), 0);
	inode_stat(st, in, &s, NULL);
	inode_put(st, in);
	return s;
}

static void names(void **state)
{
	char longname[257];

	(void)state;
	uint64_t d = make(&dir_new, INO_ROOT, "d");
	uint64_t f = make(&file_new, d, "f");
	assert_true(d && f);
	assert_int_equal(stat_(INO_ROOT).st_nlink, 3);
	assert_int_equal(stat_(d).st_nlink, 2);
	assert_int_equal(find(d, "f"), f);
	assert_int_equal(find(d, "g"), -ENOENT);
	assert_int_equal(find(f, "g"), -ENOTDIR);
	assert_int_equal(find(d, ".."), -EINVAL);
	memset(longname, 'x', 256);
	longname[256] = 0;
	assert_int_equal(find(d, longname), -ENAMETOOLONG);
	longname[255] = 0;
	assert_true(make(&file_new, d, longname));
	assert_int_equal(make(&file_new, d, "f"), 0);
	assert_int_equal(unlink_(d, "f", true), -ENOTDIR);
	assert_int_equal(unlink_(INO_ROOT, "d", false), -EISDIR);
	assert_int_equal(unlink_(INO_ROOT, "d", true), -ENOTEMPTY);
	assert_int_equal(unlink_(d, "f", false), 0);
	assert_int_equal(unlink_(d, longname, false), 0);
	assert_int_equal(unlink_(d, "f", false), -ENOENT);
	assert_int_equal(unlink_(INO_ROOT, "d", true), 0);
	assert_int_equal(stat_(INO_ROOT).st_nlink, 2);
	assert_int_equal(meta_files(st), 1);
	/* Never flushed, so nothing of it is in the tables but the parent. */
	assert_int_equal(fake_flush(st), 0);
	assert_int_equal(fake_query(st, "SELECT count(*) FROM inode", 0), 1);
	assert_int_equal(fake_query(st, "SELECT count(*) FROM tomb", 0), 0);
}

static void open_unlinked(void **state)
{
	struct inode *in;

	(void)state;
	uint64_t f = make(&file_new, INO_ROOT, "f");
	assert_int_equal(inode_get(st, f, &in), 0);
	assert_int_equal(unlink_(INO_ROOT, "f", false), 0);
	/* Reaped by the kernel, but pinned still. */
	assert_int_equal(fake_flush(st), 0);
	assert_int_equal(stat_(f).st_nlink, 0);
	assert_int_equal(fake_query(st, "SELECT count(*) FROM inode WHERE ino=?", f), 1);
	inode_put(st, in);
	assert_int_equal(inode_get(st, f, &in), -ENOENT);
	assert_int_equal(fake_query(st, "SELECT count(*) FROM inode WHERE ino=?", f), 0);

	/* A temporary file gets a name. */
	assert_int_equal(meta_tmpfile(st, &file_new, &in), 0);
	meta_reap(st, in->ino);
	assert_int_equal(meta_link(st, in, INO_ROOT, "t", 1), 0);
	f = in->ino;
	inode_put(st, in);
	assert_int_equal(find(INO_ROOT, "t"), f);
	meta_reap(st, f);
	assert_int_equal(find(INO_ROOT, "t"), f);
	/* A directory that was removed takes no more names. */
	uint64_t d = make(&dir_new, INO_ROOT, "d");
	assert_int_equal(inode_get(st, d, &in), 0);
	assert_int_equal(meta_parent(st, d), INO_ROOT);
	assert_int_equal(meta_unlink(st, INO_ROOT, "d", 1, true, NULL), 0);
	assert_int_equal(meta_parent(st, d), 0);
	assert_int_equal(make(&file_new, d, "x"), 0);
	meta_reap(st, d);
	inode_put(st, in);
	assert_int_equal(inode_get(st, d, &in), -ENOENT);
	assert_int_equal(unlink_(INO_ROOT, "t", false), 0);
}

static void links(void **state)
{
	struct inode *in;

	(void)state;
	uint64_t d = make(&dir_new, INO_ROOT, "d");
	uint64_t f = make(&file_new, INO_ROOT, "f");
	assert_int_equal(inode_get(st, f, &in), 0);
	assert_int_equal(meta_link(st, in, d, "g", 1), 0);
	assert_int_equal(meta_link(st, in, d, "g", 1), -EEXIST);
	assert_int_equal(stat_(f).st_nlink, 2);
	assert_int_equal(rename_(INO_ROOT, "f", d, "g", 0), 0);
	assert_int_equal(find(INO_ROOT, "f"), f);
	assert_int_equal(rename_(INO_ROOT, "f", d, "g", RENAME_NOREPLACE), -EEXIST);
	assert_int_equal(unlink_(INO_ROOT, "f", false), 0);
	assert_int_equal(stat_(f).st_nlink, 1);
	inode_put(st, in);
	assert_int_equal(inode_get(st, d, &in), 0);
	assert_int_equal(meta_link(st, in, INO_ROOT, "h", 1), -EPERM);
	inode_put(st, in);
	assert_int_equal(unlink_(d, "g", false), 0);
	assert_int_equal(unlink_(INO_ROOT, "d", true), 0);
}

static void renames(void **state)
{
	(void)state;
	uint64_t a = make(&dir_new, INO_ROOT, "a"), b = make(&dir_new, a, "b");
	uint64_t c = make(&dir_new, b, "c"), f = make(&file_new, INO_ROOT, "f");
	assert_int_equal(rename_(INO_ROOT, "a", c, "x", 0), -EINVAL);
	assert_int_equal(rename_(INO_ROOT, "a", a, "x", 0), -EINVAL);
	assert_int_equal(rename_(INO_ROOT, "a", c, "x", RENAME_EXCHANGE), -ENOENT);
	assert_int_equal(rename_(INO_ROOT, "a", b, "c", RENAME_EXCHANGE), -EINVAL);
	assert_int_equal(rename_(b, "c", INO_ROOT, "a", RENAME_EXCHANGE), -EINVAL);
	assert_int_equal(rename_(b, "c", INO_ROOT, "a", 0), -ENOTEMPTY);
	assert_int_equal(rename_(INO_ROOT, "a", INO_ROOT, "f", 0), -ENOTDIR);
	assert_int_equal(rename_(INO_ROOT, "f", INO_ROOT, "a", 0), -EISDIR);
	assert_int_equal(rename_(INO_ROOT, "f", INO_ROOT, "n", 8), -EINVAL);
	assert_int_equal(rename_(INO_ROOT, "n", INO_ROOT, "m", 0), -ENOENT);
	/* A directory changes its parent. */
	assert_int_equal(rename_(b, "c", INO_ROOT, "c", RENAME_NOREPLACE), 0);
	assert_int_equal(stat_(b).st_nlink, 2);
	assert_int_equal(stat_(INO_ROOT).st_nlink, 4);
	assert_int_equal(meta_parent(st, c), INO_ROOT);
	/* A file and a directory change places. */
	assert_int_equal(rename_(INO_ROOT, "f", a, "b", RENAME_EXCHANGE), 0);
	assert_int_equal(find(INO_ROOT, "f"), b);
	assert_int_equal(find(a, "b"), f);
	assert_int_equal(meta_parent(st, b), INO_ROOT);
	assert_int_equal(stat_(a).st_nlink, 2);
	assert_int_equal(stat_(INO_ROOT).st_nlink, 5);
	/* A directory replaces an empty one. */
	assert_int_equal(rename_(INO_ROOT, "c", INO_ROOT, "f", 0), 0);
	assert_int_equal(find(INO_ROOT, "f"), c);
	assert_int_equal(find(INO_ROOT, "c"), -ENOENT);
	assert_int_equal(stat_(INO_ROOT).st_nlink, 4);
	/* What moves away leaves something behind, which counts as any other. */
	const struct meta_new hide = {.mode = S_IFCHR};
	assert_int_equal(meta_rename_leaving(st, INO_ROOT, "f", 1, a, "b", 1, RENAME_EXCHANGE,
					     &hide, NULL),
			 -EINVAL);
	assert_int_equal(meta_rename_leaving(st, INO_ROOT, "f", 1, a, "b", 1, 0,
					     &(struct meta_new){.mode = 0}, NULL),
			 -EINVAL);
	assert_int_equal(meta_rename_leaving(st, INO_ROOT, "f", 1, a, "c", 1, RENAME_NOREPLACE,
					     &hide, NULL),
			 0);
	assert_int_equal(find(a, "c"), c);
	assert_int_equal(meta_parent(st, c), a);
	assert_int_equal(stat_(find(INO_ROOT, "f")).st_mode, S_IFCHR);
	assert_int_equal(stat_(find(INO_ROOT, "f")).st_nlink, 1);
	assert_int_equal(stat_(INO_ROOT).st_nlink, 3);
	assert_int_equal(stat_(a).st_nlink, 3);
	assert_int_equal(meta_files(st), 5);
	assert_int_equal(rename_(a, "c", INO_ROOT, "c", 0), 0);
	assert_int_equal(unlink_(INO_ROOT, "f", false), 0);
	assert_int_equal(rename_(INO_ROOT, "c", INO_ROOT, "f", 0), 0);
	assert_int_equal(meta_files(st), 4);
	/* A file replaces a file. */
	make(&file_new, INO_ROOT, "g");
	assert_int_equal(rename_(INO_ROOT, "g", a, "b", 0), 0);
	struct inode *in;
	assert_int_equal(inode_get(st, f, &in), -ENOENT);
	assert_int_equal(unlink_(a, "b", false), 0);
	assert_int_equal(unlink_(INO_ROOT, "a", true), 0);
	assert_int_equal(unlink_(INO_ROOT, "f", true), 0);
	assert_int_equal(meta_files(st), 1);
}

static void new_epoch(void)
{
	pthread_mutex_lock(&st->meta);
	st->epoch++;
	assert_int_equal(store_put_u64(st, "epoch", st->epoch), 0);
	pthread_mutex_unlock(&st->meta);
}

static void tracking(void **state)
{
	(void)state;
	int64_t links_before = fake_query(st, "SELECT count(*) FROM newlink", 0);
	uint64_t f = make(&file_new, INO_ROOT, "f");
	make(&file_new, INO_ROOT, "g");
	assert_int_equal(fake_query(st, "SELECT count(*) FROM newlink", 0), links_before + 2);
	fake_flush(st);
	new_epoch();
	/* Names of an earlier epoch leave tombs, so do inodes. */
	assert_int_equal(rename_(INO_ROOT, "f", INO_ROOT, "h", 0), 0);
	assert_int_equal(fake_query(st, "SELECT count(*) FROM tomb WHERE kind=1", 0), 1);
	assert_int_equal(rename_(INO_ROOT, "h", INO_ROOT, "i", 0), 0);
	assert_int_equal(fake_query(st, "SELECT count(*) FROM tomb WHERE kind=1", 0), 1);
	assert_int_equal(unlink_(INO_ROOT, "i", false), 0);
	assert_int_equal(fake_query(st, "SELECT count(*) FROM tomb WHERE kind=1", 0), 1);
	assert_int_equal(fake_query(st, "SELECT epoch FROM tomb WHERE kind=2 AND id=?", f),
			 (int64_t)st->epoch);
	assert_int_equal(unlink_(INO_ROOT, "g", false), 0);
	assert_int_equal(fake_query(st, "SELECT count(*) FROM tomb WHERE kind=1", 0), 2);
	assert_int_equal(fake_query(st, "SELECT count(*) FROM tomb WHERE kind=2", 0), 2);
	/* One that came and went within an epoch leaves nothing. */
	make(&file_new, INO_ROOT, "k");
	assert_int_equal(unlink_(INO_ROOT, "k", false), 0);
	assert_int_equal(fake_query(st, "SELECT count(*) FROM tomb", 0), 4);
}

struct seen {
	unsigned cnt, stop_at;
	uint64_t last, mark[4];
	bool attr;
};

static int see(void *arg, const struct meta_entry *e)
{
	struct seen *s = arg;
	unsigned n;

	if (s->cnt == s->stop_at)
		return 1;
	assert_true(e->cookie > s->last && e->cookie >= META_COOKIE_MIN);
	assert_int_equal(s->attr, e->in != NULL);
	assert_int_equal(sscanf(e->name, "n%u", &n), 1);
	assert_false(s->mark[n / 64] & 1ull << n % 64);
	s->mark[n / 64] |= 1ull << n % 64;
	s->last = e->cookie;
	s->cnt++;
	return 0;
}

/* 200 names read in steps, while others come and go; each of those that stay is seen once. */
static void read_dir(unsigned cnt)
{
	struct seen s = {0};
	char name[16];

	uint64_t d = make(&dir_new, INO_ROOT, "d");
	for (unsigned i = 0; i < cnt; i++) {
		snprintf(name, sizeof name, "n%u", i);
		assert_true(make(&file_new, d, name));
		assert_true(find(d, name) > 0);
	}
	for (unsigned round = 0; s.cnt < cnt; round++) {
		unsigned before = s.cnt;
		s.stop_at = s.cnt + 3;
		s.attr = round & 1;
		assert_int_equal(meta_readdir(st, d, s.last, s.attr, see, &s), 0);
		assert_true(s.cnt > before);
	}
	s.stop_at = s.cnt + 1;
	assert_int_equal(meta_readdir(st, d, s.last, false, see, &s), 0);
	assert_int_equal(s.cnt, cnt);
	for (unsigned i = 0; i < cnt; i++) {
		snprintf(name, sizeof name, "n%u", i ^ 1);
		if ((i ^ 1) < cnt)
			assert_int_equal(unlink_(d, name, false), 0);
	}
	if (cnt & 1) {
		snprintf(name, sizeof name, "n%u", cnt - 1);
		assert_int_equal(unlink_(d, name, false), 0);
	}
	assert_int_equal(unlink_(INO_ROOT, "d", true), 0);
}

static void readdir_(void **state)
{
	(void)state;
	read_dir(200);
	/* Now all names have one hash: they are found all the same, until its slots are full.
	 */
	st->hash_mask = 0;
	uint64_t d = make(&dir_new, INO_ROOT, "x");
	for (unsigned i = 0; i < 8; i++)
		assert_true(make(&file_new, d, (char[]){(char)('a' + i), 0}));
	assert_int_equal(make(&file_new, d, "full"), 0);
	assert_int_equal(unlink_(d, "c", false), 0);
	assert_true(find(d, "h") > 0);
	assert_true(make(&file_new, d, "z"));
	assert_int_equal(rename_(d, "z", d, "y", 0), 0);
	assert_false(st->failed);
}

static void collide(void **state)
{
	(void)state;
	st->hash_mask = 0;
	/* The directory's own name takes one slot of the root. */
	read_dir(8);
	read_dir(5);
}

static void attributes(void **state)
{
	struct inode *in;
	struct buf b = {0};
	int64_t btime;
	struct stat s;

	(void)state;
	struct meta_new link = {.mode = S_IFLNK | 0777, .target = "over/there"};
	assert_int_equal(meta_create(st, INO_ROOT, "l", 1, &link, &in), 0);
	assert_int_equal(meta_readlink(st, in, &b), 0);
	assert_memory_equal(b.p, "over/there", b.len);
	inode_stat(st, in, &s, &btime);
	assert_int_equal(s.st_size, 10);
	inode_put(st, in);
	buf_reset(&b);

	struct meta_new sg = {.mode = S_IFDIR | S_ISGID | 0755, .uid = 3, .gid = 77};
	uint64_t d = make(&sg, INO_ROOT, "sg");
	assert_int_equal(stat_(make(&file_new, d, "f")).st_gid, 77);
	assert_int_equal(stat_(make(&dir_new, d, "d")).st_mode, S_IFDIR | S_ISGID | 0755);

	struct meta_new dev = {.mode = S_IFCHR | 0600, .rdev = 0x1234567890};
	assert_int_equal(meta_create(st, INO_ROOT, "c", 1, &dev, &in), 0);
	struct meta_attr a = {.set = META_SET_MODE | META_SET_UID | META_SET_MTIME |
				     META_SET_CTIME | META_SET_BTIME,
			      .mode = 06751,
			      .uid = 99,
			      .mtime_ns = -1,
			      .ctime_ns = 5,
			      .btime_ns = 6};
	assert_int_equal(meta_setattr(st, in, &a), 0);
	uint64_t ino = in->ino;
	pthread_mutex_lock(&st->meta);
	assert_int_equal(inode_kill_priv_locked(st, in), 0);
	pthread_mutex_unlock(&st->meta);
	inode_put(st, in);
	/* And after it was written and read back. */
	assert_int_equal(store_close(st), 0);
	struct store_opts o = {.dir = dir};
	assert_int_equal(store_open(&st, &o), 0);
	assert_int_equal(store_start(st), 0);
	assert_false(st->unclean);
	assert_int_equal(inode_get(st, ino, &in), 0);
	inode_stat(st, in, &s, &btime);
	inode_put(st, in);
	assert_int_equal(s.st_mode, S_IFCHR | 0751);
	assert_int_equal(s.st_uid, 99);
	assert_int_equal(s.st_rdev, 0x1234567890);
	assert_int_equal(s.st_mtim.tv_sec, -1);
	assert_int_equal(s.st_mtim.tv_nsec, 999999999);
	assert_int_equal(s.st_ctim.tv_nsec, 5);
	assert_int_equal(btime, 6);
	assert_int_equal(meta_lookup(st, INO_ROOT, "l", 1, &in), 0);
	assert_int_equal(meta_readlink(st, in, &b), 0);
	assert_int_equal(b.len, 10);
	inode_put(st, in);
	buf_release(&b);
}

static int acl_step(void *list, size_t len, uint32_t mode)
{
	if (len != 3 || memcmp(list, "acl", 3))
		return -EBADMSG;
	((char *)list)[0] = (char)('0' + (mode & 7));
	return 0;
}

/* Mode and access list change in one hold of st->meta: both or neither. */
static void acl_and_mode(void **state)
{
	const char *name = "system.posix_acl_access";
	struct meta_attr a = {
		.set = META_SET_MODE, .mode = 0705, .acl = name, .acl_chmod = acl_step};
	struct meta_new n = file_new;
	struct buf b = {0};
	struct inode *in;

	(void)state;
	n.mode = S_IFREG | 02644;
	assert_int_equal(meta_create(st, INO_ROOT, "acl", 3, &n, &in), 0);
	assert_int_equal(meta_setattr(st, in, &a), 0); /* there is no list */
	assert_int_equal(in->mode, S_IFREG | 0705);
	assert_int_equal(meta_setacl(st, in, name, "acl", 3, 0, 0640, 0777), 0);
	assert_int_equal(in->mode, S_IFREG | 0640);
	assert_int_equal(meta_setattr(st, in, &a), 0);
	assert_int_equal(in->mode, S_IFREG | 0705);
	assert_int_equal(meta_getxattr(st, in, name, &b), 3);
	assert_memory_equal(b.p, "5cl", 3);
	/* The list is not what it should be: nothing changes. */
	a.mode = 0777;
	assert_int_equal(meta_setattr(st, in, &a), -EBADMSG);
	assert_int_equal(in->mode, S_IFREG | 0705);
	assert_int_equal(meta_setacl(st, in, name, "x", 1, XATTR_CREATE, 0, 0777), -EEXIST);
	assert_int_equal(in->mode, S_IFREG | 0705);
	assert_int_equal(meta_setacl(st, in, name, NULL, 0, 0, 0600, 0777), 0);
	assert_int_equal(in->mode, S_IFREG | 0600);
	assert_int_equal(meta_getxattr(st, in, name, &b), -ENODATA);
	assert_int_equal(meta_setacl(st, in, name, NULL, 0, 0, 0600, 0777), 0);
	buf_release(&b);
	inode_put(st, in);
}

static void xattrs(void **state)
{
	struct inode *in;
	struct buf b = {0};
	static uint8_t big[65537];

	(void)state;
	struct meta_new n = file_new;
	n.acl_access = "acl";
	n.acl_access_len = 3;
	assert_int_equal(meta_create(st, INO_ROOT, "f", 1, &n, &in), 0);
	assert_int_equal(in->flags & (INODE_XATTR | INODE_ACL | INODE_CAP), INODE_ACL);
	assert_int_equal(meta_getxattr(st, in, "system.posix_acl_access", &b), 3);
	assert_int_equal(meta_getxattr(st, in, "user.a", NULL), -ENODATA);
	assert_int_equal(meta_setxattr(st, in, "user.a", "1", 1, XATTR_REPLACE), -ENODATA);
	assert_int_equal(meta_setxattr(st, in, "user.a", "1", 1, XATTR_CREATE), 0);
	assert_int_equal(meta_setxattr(st, in, "user.a", "22", 2, XATTR_CREATE), -EEXIST);
	assert_int_equal(meta_setxattr(st, in, "user.a", "22", 2, 0), 0);
	assert_int_equal(meta_setxattr(st, in, "user.e", NULL, 0, 0), 0);
	assert_int_equal(meta_setxattr(st, in, "", "1", 1, 0), -ERANGE);
	assert_int_equal(meta_setxattr(st, in, "user.b", big, sizeof big, 0), -E2BIG);
	buf_reset(&b);
	assert_int_equal(meta_getxattr(st, in, "user.a", &b), 2);
	assert_memory_equal(b.p, "22", 2);
	assert_int_equal(meta_getxattr(st, in, "user.e", &b), 0);
	buf_reset(&b);
	assert_int_equal(meta_listxattr(st, in, &b), 0);
	assert_int_equal(b.len, sizeof "system.posix_acl_access" + 14);
	/* The total is bounded; replacing one of them is not adding to it. */
	unsigned cnt = 0;
	int err;
	do {
		char name[16];
		snprintf(name, sizeof name, "user.n%u", cnt);
		err = meta_setxattr(st, in, name, big, 65536, 0);
	} while (!err && ++cnt < 100);
	assert_int_equal(err, -ENOSPC);
	assert_int_equal(cnt, 15);
	assert_int_equal(meta_setxattr(st, in, "user.n3", big, 65536, XATTR_REPLACE), 0);
	assert_int_equal(meta_setxattr(st, in, "security.capability", "cap", 3, 0), 0);
	pthread_mutex_lock(&st->meta);
	assert_int_equal(inode_kill_priv_locked(st, in), 0);
	pthread_mutex_unlock(&st->meta);
	assert_int_equal(meta_getxattr(st, in, "security.capability", NULL), -ENODATA);
	assert_int_equal(in->flags & (INODE_XATTR | INODE_ACL | INODE_CAP),
			 INODE_ACL | INODE_XATTR);
	assert_int_equal(meta_removexattr(st, in, "system.posix_acl_access"), 0);
	assert_int_equal(meta_removexattr(st, in, "system.posix_acl_access"), -ENODATA);
	assert_int_equal(in->flags & INODE_ACL, 0);
	inode_put(st, in);
	assert_int_equal(unlink_(INO_ROOT, "f", false), 0);
	assert_int_equal(fake_query(st, "SELECT count(*) FROM xattr", 0), 0);
	buf_release(&b);
}

/* --- many threads --- */

#define DIRS 12

struct worker {
	pthread_t thread;
	unsigned seed;
	int rounds;
};

static uint64_t dirs[DIRS];

static int see_any(void *arg, const struct meta_entry *e)
{
	unsigned *n = arg;

	if (e->in)
		*n += e->in->ino == e->ino;
	return *n > 20;
}

static void *work(void *arg)
{
	struct worker *w = arg;
	char a[8], b[8];

	for (int i = 0; i < w->rounds; i++) {
		uint64_t p = dirs[rand_r(&w->seed) % DIRS], q = dirs[rand_r(&w->seed) % DIRS];
		uint64_t ino = 0;
		struct inode *in = NULL;
		unsigned n = 0;
		snprintf(a, sizeof a, "%d", rand_r(&w->seed) % 12);
		snprintf(b, sizeof b, "%d", rand_r(&w->seed) % 12);
		switch (rand_r(&w->seed) % 12) {
		case 0:
		case 1:
		case 2:
			if (!meta_create(st, p, a, strlen(a), &file_new, &in))
				fake_write_small(st, in, "some bytes");
			break;
		case 3:
			meta_create(st, p, a, strlen(a), &dir_new, &in);
			break;
		case 4:
			if (!meta_lookup(st, p, a, strlen(a), &in))
				meta_link(st, in, q, b, strlen(b));
			break;
		case 5:
			meta_unlink(st, p, a, strlen(a), true, &ino);
			break;
		case 6:
			meta_unlink(st, p, a, strlen(a), false, &ino);
			break;
		case 7:
		case 8:
			meta_rename(st, p, a, strlen(a), q, b, strlen(b), 0, &ino);
			break;
		case 9:
			meta_rename(st, p, a, strlen(a), q, b, strlen(b), RENAME_EXCHANGE,
				    &ino);
			break;
		case 10:
			meta_readdir(st, p, 0, true, see_any, &n);
			break;
		default:
			if (!meta_lookup(st, p, a, strlen(a), &in))
				meta_setxattr(st, in, "user.x", "1", 1, 0);
			if (i % 64 == 0)
				store_commit(st);
		}
		if (in)
			inode_put(st, in);
		if (ino)
			meta_reap(st, ino);
	}
	return NULL;
}

static void invariants(void)
{
	assert_int_equal(store_commit(st), 0);
	assert_int_equal(fake_query(st,
				    "SELECT count(*) FROM dirent d LEFT JOIN inode i ON "
				    "i.ino=d.ino WHERE i.ino IS NULL OR (i.mode&61440)"
				    "!=d.mode",
				    0),
			 0);
	assert_int_equal(fake_query(st,
				    "SELECT count(*) FROM inode i WHERE (i.mode&61440)=32768 "
				    "AND nlink!=(SELECT count(*) FROM dirent d WHERE "
				    "d.ino=i.ino)",
				    0),
			 0);
	assert_int_equal(fake_query(st,
				    "SELECT count(*) FROM inode i WHERE (i.mode&61440)=16384 "
				    "AND nlink!=2+(SELECT count(*) FROM dirent d WHERE "
				    "d.parent=i.ino AND d.mode=16384)",
				    0),
			 0);
	/* Every directory but the root has one name, in the directory it calls its parent. */
	assert_int_equal(fake_query(st,
				    "SELECT count(*) FROM inode i WHERE (i.mode&61440)=16384 "
				    "AND ino!=1 AND (SELECT group_concat(parent) FROM dirent "
				    "d WHERE d.ino=i.ino) IS NOT CAST(i.parent AS TEXT)",
				    0),
			 0);
	assert_int_equal(fake_query(st,
				    "WITH RECURSIVE t(i) AS (SELECT 1 UNION SELECT d.ino FROM "
				    "t JOIN dirent d ON d.parent=t.i) SELECT count(*) FROM t",
				    0),
			 fake_query(st, "SELECT count(*) FROM inode", 0));
	assert_int_equal(fake_query(st, "SELECT count(*) FROM inode", 0), meta_files(st));
	assert_int_equal(fake_query(st,
				    "SELECT count(*) FROM xattr WHERE ino NOT IN "
				    "(SELECT ino FROM inode)",
				    0),
			 0);
	assert_int_equal(fake_query(st,
				    "SELECT count(*) FROM small WHERE ino NOT IN "
				    "(SELECT ino FROM inode)",
				    0),
			 0);
	assert_int_equal(fake_query(st,
				    "SELECT count(*) FROM (SELECT 1 FROM dirent GROUP BY "
				    "parent,hash HAVING count(*)>1)",
				    0),
			 0);
}

static void threads(void **state)
{
	struct worker w[4];
	const char *env = getenv("SEED");
	unsigned seed = env ? (unsigned)strtoul(env, NULL, 0) : (unsigned)time(NULL);

	(void)state;
	print_message("seed %u\n", seed);
	dirs[0] = INO_ROOT;
	for (int i = 1; i < DIRS; i++) {
		/* Letters, which the workers do not use: these stay. */
		char name[2] = {(char)('a' + i), 0};
		dirs[i] = make(&dir_new, dirs[(i - 1) / 2], name);
	}
	st->hash_mask = 0xff; /* some names collide */
	for (unsigned i = 0; i < 4; i++) {
		w[i] = (struct worker){.seed = seed + i * 7919, .rounds = 3000};
		assert_int_equal(pthread_create(&w[i].thread, NULL, work, &w[i]), 0);
	}
	for (unsigned i = 0; i < 4; i++)
		pthread_join(w[i].thread, NULL);
	st->hash_mask = UINT64_MAX;
	assert_int_equal(st->failed, 0);
	invariants();
}

/* --- figures, not judged --- */

static double us_since(struct timespec *t, unsigned cnt)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	double us = (double)(now.tv_sec - t->tv_sec) * 1e6 +
		    (double)(now.tv_nsec - t->tv_nsec) / 1e3;
	*t = now;
	return us / cnt;
}

static int count_entry(void *arg, const struct meta_entry *e)
{
	(void)e;
	++*(unsigned *)arg;
	return 0;
}

static void speed(void **state)
{
	const char *env = getenv("SPEED");
	unsigned cnt = env ? (unsigned)strtoul(env, NULL, 0) : 5000;
	struct timespec t;
	char name[32];
	unsigned n = 0;

	(void)state;
	uint64_t d = make(&dir_new, INO_ROOT, "d");
	clock_gettime(CLOCK_MONOTONIC, &t);
	for (unsigned i = 0; i < cnt; i++) {
		snprintf(name, sizeof name, "file-%u.txt", i);
		make(&file_new, d, name);
	}
	print_message("create %.2f us", us_since(&t, cnt));
	store_commit(st);
	print_message(", commit %.0f us", us_since(&t, 1));
	for (unsigned i = 0; i < cnt; i++) {
		snprintf(name, sizeof name, "file-%u.txt", i * 7919 % cnt);
		find(d, name);
	}
	print_message(", cold lookup %.2f us", us_since(&t, cnt));
	for (unsigned i = 0; i < cnt; i++) {
		snprintf(name, sizeof name, "file-%u.txt", i % 1000);
		find(d, name);
	}
	print_message(", warm lookup %.2f us", us_since(&t, cnt));
	meta_readdir(st, d, 0, false, count_entry, &n);
	print_message(", readdir %.2f us", us_since(&t, cnt));
	meta_readdir(st, d, 0, true, count_entry, &n);
	print_message(", with attributes %.2f us", us_since(&t, cnt));
	for (unsigned i = 0; i < cnt; i++) {
		snprintf(name, sizeof name, "file-%u.txt", i);
		unlink_(d, name, false);
	}
	print_message(", unlink+reap %.2f us", us_since(&t, cnt));
	for (unsigned i = 0; i < cnt; i++) {
		make(&file_new, d, "temporary");
		unlink_(d, "temporary", false);
	}
	print_message(", create+unlink %.2f us\n", us_since(&t, cnt));
	assert_int_equal(n, cnt * 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(names, setup, teardown),
		cmocka_unit_test_setup_teardown(acl_and_mode, setup, teardown),
		cmocka_unit_test_setup_teardown(open_unlinked, setup, teardown),
		cmocka_unit_test_setup_teardown(links, setup, teardown),
		cmocka_unit_test_setup_teardown(renames, setup, teardown),
		cmocka_unit_test_setup_teardown(tracking, setup, teardown),
		cmocka_unit_test_setup_teardown(readdir_, setup, teardown),
		cmocka_unit_test_setup_teardown(collide, setup, teardown),
		cmocka_unit_test_setup_teardown(attributes, setup, teardown),
		cmocka_unit_test_setup_teardown(xattrs, setup, teardown),
		cmocka_unit_test_setup_teardown(threads, setup, teardown),
		cmocka_unit_test_setup_teardown(speed, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
