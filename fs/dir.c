/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "fs/fs.h"

#include <limits.h>
#include <linux/fs.h>
#include "cache/data.h"
#include "fs/acl.h"

/* Offsets of a listing: these two, then the cookies of meta_readdir, which are larger. */
#define OFF_DOT	   1u
#define OFF_DOTDOT 2u
_Static_assert(META_COOKIE_MIN > OFF_DOTDOT, "cookies of meta_readdir");

int fs_check_name(const char *name)
{
	size_t len = strlen(name);

	if (len > NAME_MAX)
		return -ENAMETOOLONG;
	if (!len || strchr(name, '/') || !strcmp(name, ".") || !strcmp(name, ".."))
		return -EINVAL;
	return 0;
}

/* What a new inode takes from its directory, or not: owner, permissions by umask or list. */
static int inherit(struct fs *fs, const struct cred *c, struct inode *dir, struct meta_new *n,
		   struct buf *access, struct buf *deflt)
{
	pthread_mutex_lock(&fs->st->meta);
	uint32_t dir_mode = dir->mode, dir_gid = dir->gid;
	n->uid = ids_new(&fs->opts.owners.uid, c->uid, dir->uid);
	n->gid = ids_new(&fs->opts.owners.gid, c->gid, dir->gid);
	pthread_mutex_unlock(&fs->st->meta);
	/* What the kernel does too since 6.1: no set-id file for a group one is not in. */
	if (!S_ISDIR(n->mode) && dir_mode & S_ISGID && c->uid &&
	    (n->mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP) &&
	    !c->in_group(c->arg, owners_show_gid(&fs->opts.owners, dir_gid)))
		n->mode &= ~(uint32_t)S_ISGID;
	if (S_ISLNK(n->mode))
		return 0;
	int err = fs_get_acl(fs, dir, ACL_DEFAULT, deflt);
	if (err)
		return err;
	if (!deflt->len) {
		n->mode &= ~(c->umask & 0777);
		return 0;
	}
	buf_put(access, deflt->p, deflt->len);
	if (access->err)
		return access->err;
	if (acl_inherit(access->p, access->len, &n->mode)) {
		n->acl_access = access->p;
		n->acl_access_len = access->len;
	}
	if (S_ISDIR(n->mode)) {
		n->acl_default = deflt->p;
		n->acl_default_len = deflt->len;
	}
	return 0;
}

int fs_make(struct fs *fs, const struct cred *c, uint64_t parent, const struct make *m,
	    struct inode **out)
{
	struct meta_new n = {.mode = m->mode, .rdev = m->rdev, .target = m->target};
	struct buf access = {0}, deflt = {0};
	struct inode *dir;
	int err = m->name ? fs_check_name(m->name) : 0;

	if (err)
		return err;
	err = fs_get(fs, parent, &dir);
	if (err)
		return err;
	err = inherit(fs, c, dir, &n, &access, &deflt);
	if (!err && m->name) {
		err = meta_create(fs->st, parent, m->name, strlen(m->name), &n, out);
	} else if (!err) {
		pthread_mutex_lock(&fs->st->meta);
		if (dir->mode & S_ISGID)
			n.gid = dir->gid;
		pthread_mutex_unlock(&fs->st->meta);
		err = meta_tmpfile(fs->st, &n, out);
	}
	buf_release(&access);
	buf_release(&deflt);
	fs_put(fs, dir);
	if (err)
		return err;
	err = fs_refer(fs, *out);
	if (err)
		fs_put(fs, *out);
	return err;
}

int fs_link(struct fs *fs, uint64_t ino, uint64_t parent, const char *name, struct inode **out)
{
	int err = fs_check_name(name);
	uint32_t mode;

	if (!err)
		err = fs_get_mode(fs, ino, out, &mode);
	if (err)
		return err;
	err = S_ISDIR(mode) ? -EPERM : meta_link(fs->st, *out, parent, name, strlen(name));
	if (!err)
		err = fs_refer(fs, *out);
	if (err)
		fs_put(fs, *out);
	return err;
}

int fs_unlink(struct fs *fs, uint64_t parent, const char *name, bool dir)
{
	uint64_t ino = 0;
	int err = fs_check_name(name);

	if (!err)
		err = meta_unlink(fs->st, parent, name, strlen(name), dir, &ino);
	if (!err)
		fs_unnamed(fs, ino);
	return err;
}

int fs_rename(struct fs *fs, const struct cred *c, uint64_t parent, const char *name,
	      uint64_t newparent, const char *newname, unsigned flags)
{
	/* What overlayfs takes for "nothing is here, whatever the layers below say". */
	struct meta_new whiteout = {.mode = S_IFCHR};
	struct inode *dir;
	uint64_t victim = 0;
	int err = fs_check_name(name);

	if (!err)
		err = fs_check_name(newname);
	if (!err && flags & ~(unsigned)(RENAME_NOREPLACE | RENAME_EXCHANGE | RENAME_WHITEOUT))
		err = -EINVAL;
	if (!err && flags & RENAME_WHITEOUT && !(err = fs_get(fs, parent, &dir))) {
		pthread_mutex_lock(&fs->st->meta);
		whiteout.uid = ids_new(&fs->opts.owners.uid, c->uid, dir->uid);
		whiteout.gid = ids_new(&fs->opts.owners.gid, c->gid, dir->gid);
		pthread_mutex_unlock(&fs->st->meta);
		fs_put(fs, dir);
	}
	if (!err)
		err = meta_rename_leaving(fs->st, parent, name, strlen(name), newparent,
					  newname, strlen(newname),
					  flags & ~(unsigned)RENAME_WHITEOUT,
					  flags & RENAME_WHITEOUT ? &whiteout : NULL, &victim);
	if (!err)
		fs_unnamed(fs, victim);
	return err;
}

struct listing {
	struct fs *fs;
	bool attr;
	fs_emit *emit;
	void *arg;
	int err;
};

static int take(void *arg, const struct meta_entry *e)
{
	struct listing *l = arg;
	struct stat st = {.st_ino = e->ino, .st_mode = e->mode};
	char name[NAME_MAX + 1];

	if (e->len > NAME_MAX) {
		l->err = log_fail(-EIO, "a name of %zu bytes in the database", e->len);
		return 1;
	}
	memcpy(name, e->name, e->len);
	name[e->len] = '\0';
	if (!l->attr)
		return l->emit(l->arg, name, &st, e->cookie);
	/* Counted before the kernel can know of it, and so before it can forget it. */
	l->err = nlookup_add(l->fs->nl, e->ino, 1);
	if (l->err)
		return 1;
	fs_stat_locked(l->fs, e->in, &st);
	if (!l->emit(l->arg, name, &st, e->cookie))
		return 0;
	/* It has a name, so there is nothing to reap. */
	nlookup_sub(l->fs->nl, e->ino, 1);
	return 1;
}

int fs_readdir(struct fs *fs, uint64_t ino, uint64_t off, bool attr, fs_emit *emit, void *arg)
{
	struct listing l = {.fs = fs, .attr = attr, .emit = emit, .arg = arg};
	struct inode *dir;
	int err = fs_get(fs, ino, &dir);

	if (err)
		return err;
	if (off < OFF_DOT) {
		struct stat st = {.st_ino = ino, .st_mode = S_IFDIR};
		if (emit(arg, ".", &st, OFF_DOT))
			goto out;
	}
	if (off < OFF_DOTDOT) {
		uint64_t up = meta_parent(fs->st, ino);
		struct stat st = {.st_ino = up ? up : ino, .st_mode = S_IFDIR};
		if (emit(arg, "..", &st, OFF_DOTDOT))
			goto out;
	}
	err = meta_readdir(fs->st, ino, off <= OFF_DOTDOT ? 0 : off, attr, take, &l);
	if (!err)
		err = l.err;
	if (!err && !off)
		fs_accessed(fs, dir);
out:
	fs_put(fs, dir);
	return err;
}
