/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The kernel has checked who may use which namespace.  The two lists of POSIX.1e are
 * xattrs whose names and forms we know, and whose values the mode follows.
 */
#include "fs/fs.h"

#include "fs/acl.h"

static bool starts(const char *s, const char *prefix)
{
	return !strncmp(s, prefix, strlen(prefix));
}

static bool is_acl(const char *name)
{
	return !strcmp(name, ACL_ACCESS) || !strcmp(name, ACL_DEFAULT);
}

static int check_name(const struct fs *fs, const char *name)
{
	if (fs->opts.owners.masked && is_acl(name))
		return -EOPNOTSUPP;
	if (starts(name, "user.") || starts(name, "trusted.") || starts(name, "security."))
		return name[strcspn(name, ".") + 1] ? 0 : -EINVAL;
	return is_acl(name) ? 0 : -EOPNOTSUPP;
}

int fs_get_acl(struct fs *fs, struct inode *in, const char *name, struct buf *out)
{
	buf_reset(out);
	int64_t n = meta_getxattr(fs->st, in, name, out);
	if (n == -ENODATA) {
		buf_reset(out);
		return 0;
	}
	if (n < 0)
		return (int)n;
	return acl_check(out->p, out->len) ? log_fail(-EIO, "inode %llu: %s is not a list",
						      (unsigned long long)in->ino, name)
					   : 0;
}

/* Lists name users and groups: by the drive's numbers there, by this machine's here. */
static uint32_t id_here(const void *owners, bool group, uint32_t id)
{
	const struct owners *o = owners;

	return ids_here(group ? &o->gid : &o->uid, id);
}

static uint32_t id_stored(const void *owners, bool group, uint32_t id)
{
	const struct owners *o = owners;

	return ids_stored(group ? &o->gid : &o->uid, id);
}

static int drop(struct fs *fs, struct inode *in, const char *name)
{
	int err = meta_removexattr(fs->st, in, name);

	/* No list is what was asked for. */
	return err == -ENODATA && is_acl(name) ? 0 : err;
}

static int set_access(struct fs *fs, const struct cred *c, struct inode *in, const void *v,
		      size_t len, int flags)
{
	uint32_t clear = 0777;

	pthread_mutex_lock(&fs->st->meta);
	uint32_t gid = in->gid, mode = in->mode;
	pthread_mutex_unlock(&fs->st->meta);
	bool plain = acl_to_mode(v, len, &mode);
	gid = owners_show_gid(&fs->opts.owners, gid);
	if (mode & S_ISGID && c->uid && !c->in_group(c->arg, gid))
		clear |= S_ISGID;
	return meta_setacl(fs->st, in, ACL_ACCESS, plain ? NULL : v, len, flags, mode & 0777,
			   clear);
}

static int set(struct fs *fs, const struct cred *c, struct inode *in, uint32_t mode,
	       const char *name, const void *v, size_t len, int flags)
{
	if (!is_acl(name))
		return meta_setxattr(fs->st, in, name, v, len, flags);
	if (S_ISLNK(mode))
		return -EOPNOTSUPP;
	int err = acl_check(v, len);
	if (err)
		return err;
	if (acl_empty(v, len))
		return drop(fs, in, name);
	if (!strcmp(name, ACL_ACCESS))
		return set_access(fs, c, in, v, len, flags);
	if (!S_ISDIR(mode))
		return -EACCES;
	return meta_setxattr(fs->st, in, name, v, len, flags);
}

int fs_setxattr(struct fs *fs, const struct cred *c, uint64_t ino, const char *name,
		const void *v, size_t len, int flags)
{
	struct buf list = {0};
	struct inode *in;
	uint32_t mode;
	int err = check_name(fs, name);

	if (!err && is_acl(name) && !acl_check(v, len)) {
		buf_put(&list, v, len);
		err = list.err;
		if (!err)
			acl_map(list.p, list.len, id_stored, &fs->opts.owners);
		v = list.p;
	}
	if (!err && !(err = fs_get_mode(fs, ino, &in, &mode))) {
		err = set(fs, c, in, mode, name, v, len, flags);
		fs_put(fs, in);
	}
	buf_release(&list);
	return err;
}

int fs_getxattr(struct fs *fs, uint64_t ino, const char *name, struct buf *out)
{
	struct inode *in;
	int err = check_name(fs, name);

	if (!err)
		err = fs_get(fs, ino, &in);
	if (err)
		return err;
	size_t at = out->len;
	int64_t n = meta_getxattr(fs->st, in, name, out);
	fs_put(fs, in);
	if (n >= 0 && is_acl(name) && !acl_check(out->p + at, out->len - at))
		acl_map(out->p + at, out->len - at, id_here, &fs->opts.owners);
	return n < 0 ? (int)n : 0;
}

int fs_listxattr(struct fs *fs, const struct cred *c, uint64_t ino, struct buf *out)
{
	struct inode *in;
	int err = fs_get(fs, ino, &in);

	if (err)
		return err;
	err = meta_listxattr(fs->st, in, out);
	fs_put(fs, in);
	if (err)
		return err;
	/* trusted.* is not for everybody's eyes; what is no attribute here is for nobody's. */
	size_t to = 0;
	for (size_t at = 0; at < out->len;) {
		const char *name = (const char *)out->p + at;
		size_t len = strnlen(name, out->len - at) + 1;
		len = HF_MIN(len, out->len - at);
		if (check_name(fs, name) != -EOPNOTSUPP &&
		    !(c->uid && starts(name, "trusted."))) {
			memmove(out->p + to, name, len);
			to += len;
		}
		at += len;
	}
	out->len = to;
	return 0;
}

int fs_removexattr(struct fs *fs, uint64_t ino, const char *name)
{
	struct inode *in;
	int err = check_name(fs, name);

	if (!err)
		err = fs_get(fs, ino, &in);
	if (err)
		return err;
	err = drop(fs, in, name);
	fs_put(fs, in);
	return err;
}
