/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "fs/fs.h"

#include <unistd.h>
#include "cache/data.h"
#include "cache/quota.h"
#include "fs/acl.h"

#define DAY_NS ((int64_t)86400 * 1000000000)

int64_t fs_time_ns(const struct timespec *ts)
{
	int64_t ns;

	if (__builtin_mul_overflow((int64_t)ts->tv_sec, (int64_t)1000000000, &ns) ||
	    __builtin_add_overflow(ns, (int64_t)ts->tv_nsec, &ns))
		return ts->tv_sec < 0 ? INT64_MIN : INT64_MAX;
	return ns;
}

struct timespec fs_timespec(int64_t ns)
{
	int64_t s = ns / 1000000000, rest = ns % 1000000000;

	if (rest < 0) {
		s--;
		rest += 1000000000;
	}
	return (struct timespec){.tv_sec = s, .tv_nsec = rest};
}

int fs_get(struct fs *fs, uint64_t ino, struct inode **out)
{
	uint32_t mode;

	return fs_get_mode(fs, ino, out, &mode);
}

int fs_get_mode(struct fs *fs, uint64_t ino, struct inode **out, uint32_t *mode)
{
	pthread_mutex_lock(&fs->st->meta);
	int err = inode_get_locked(fs->st, ino, out);
	if (!err)
		*mode = (*out)->mode;
	pthread_mutex_unlock(&fs->st->meta);
	return err == -ENOENT ? -ESTALE : err;
}

void fs_put(struct fs *fs, struct inode *in)
{
	inode_put(fs->st, in);
}

int fs_refer(struct fs *fs, struct inode *in)
{
	int err = nlookup_add(fs->nl, in->ino, 1);

	if (err)
		return err;
	/* An unlink that came first found no reference; its reaping was put off by our pin. */
	pthread_mutex_lock(&fs->st->meta);
	bool unnamed = !in->nlink;
	pthread_mutex_unlock(&fs->st->meta);
	if (unnamed)
		nlookup_unlinked(fs->nl, in->ino);
	return 0;
}

void fs_forget(struct fs *fs, uint64_t ino, uint64_t n)
{
	if (nlookup_sub(fs->nl, ino, n))
		meta_reap(fs->st, ino);
}

void fs_unnamed(struct fs *fs, uint64_t ino)
{
	if (ino && nlookup_unlinked(fs->nl, ino))
		meta_reap(fs->st, ino);
}

/* "." and "..": by number, as file handles of NFS need. */
static int lookup_dot(struct fs *fs, uint64_t ino, bool parent, struct inode **out)
{
	if (parent) {
		ino = meta_parent(fs->st, ino);
		if (!ino)
			return -ESTALE;
	}
	int err = fs_get(fs, ino, out);
	if (err)
		return err;
	/* One without a name exists for those who hold it, and for nobody else. */
	pthread_mutex_lock(&fs->st->meta);
	bool unnamed = !(*out)->nlink;
	pthread_mutex_unlock(&fs->st->meta);
	if (unnamed && !nlookup_count(fs->nl, ino)) {
		fs_put(fs, *out);
		return -ESTALE;
	}
	return 0;
}

int fs_lookup(struct fs *fs, uint64_t parent, const char *name, struct inode **out)
{
	int err;

	if (!strcmp(name, ".") || !strcmp(name, ".."))
		err = lookup_dot(fs, parent, name[1] == '.', out);
	else if (!(err = fs_check_name(name)))
		err = meta_lookup(fs->st, parent, name, strlen(name), out);
	if (err)
		return err;
	err = fs_refer(fs, *out);
	if (err)
		fs_put(fs, *out);
	return err;
}

void fs_stat_locked(struct fs *fs, struct inode *in, struct stat *out)
{
	inode_stat_locked(fs->st, in, out, NULL);
	owners_show(&fs->opts.owners, out);
}

void fs_stat(struct fs *fs, struct inode *in, struct stat *out, int64_t *btime_ns)
{
	inode_stat(fs->st, in, out, btime_ns);
	owners_show(&fs->opts.owners, out);
}

int fs_getattr(struct fs *fs, uint64_t ino, struct stat *out, int64_t *btime_ns)
{
	struct inode *in;
	int err = fs_get(fs, ino, &in);

	if (err)
		return err;
	fs_stat(fs, in, out, btime_ns);
	fs_put(fs, in);
	return 0;
}

/* The mode without the bits that a change by c takes. */
static uint32_t killed(struct fs *fs, struct inode *in, uint32_t mode, const struct cred *c)
{
	bool group = mode & S_IXGRP;

	/* Without group execution it once meant mandatory locking: its group and root keep it. */
	if (mode & S_ISGID && !group && c->uid) {
		pthread_mutex_lock(&fs->st->meta);
		uint32_t gid = in->gid;
		pthread_mutex_unlock(&fs->st->meta);
		group = !c->in_group(c->arg, owners_show_gid(&fs->opts.owners, gid));
	}
	return mode & ~(uint32_t)(S_ISUID | (group ? S_ISGID : 0));
}

int fs_kill_group(struct fs *fs, struct inode *in, uint32_t mode, const struct cred *c)
{
	struct meta_attr a = {.set = META_SET_MODE, .mode = mode & ~(uint32_t)S_ISGID};

	if (!c || (mode & (S_ISGID | S_IXGRP)) != S_ISGID || killed(fs, in, mode, c) & S_ISGID)
		return 0;
	return meta_setattr(fs->st, in, &a);
}

/* chmod keeps the access list in step; with st->meta held. */
static int chmod_acl(void *list, size_t len, uint32_t mode)
{
	if (acl_check(list, len))
		return log_fail(-EIO, ACL_ACCESS " in the database is not a list");
	acl_chmod(list, len, mode);
	return 0;
}

/* From numbers of this machine to the drive's; what cannot be changed is left out. */
static int set_owner(struct fs *fs, struct meta_attr *a)
{
	const struct owners *o = &fs->opts.owners;
	int change = 1;

	if (a->set & META_SET_UID)
		change = ids_chown(&o->uid, a->uid, &a->uid);
	if (!change)
		a->set &= ~META_SET_UID;
	if (change >= 0 && a->set & META_SET_GID) {
		change = ids_chown(&o->gid, a->gid, &a->gid);
		if (!change)
			a->set &= ~META_SET_GID;
	}
	return change < 0 ? change : 0;
}

static int setattr(struct fs *fs, struct inode *in, uint32_t mode, const struct setattr *s)
{
	struct meta_attr a = s->a;
	bool kill = s->set & FS_SET_KILL;
	int err;

	a.set = s->set & ~(FS_SET_SIZE | FS_SET_KILL);
	err = set_owner(fs, &a);
	if (err)
		return err;
	if (s->set & FS_SET_SIZE) {
		if (S_ISDIR(mode))
			return -EISDIR;
		if (!S_ISREG(mode))
			return -EINVAL;
		err = data_truncate(fs->st, in, s->size, kill);
		if (err)
			return err;
	}
	if (a.set & META_SET_MODE) {
		a.mode = owners_chmod(&fs->opts.owners, mode, a.mode);
		a.acl = ACL_ACCESS;
		a.acl_chmod = chmod_acl;
	} else if (kill && !S_ISDIR(mode) && killed(fs, in, mode, s->c) != mode) {
		a.set |= META_SET_MODE;
		a.mode = killed(fs, in, mode, s->c);
	}
	if (a.set)
		return meta_setattr(fs->st, in, &a);
	/* Nothing named: chown(-1, -1), which changes the ctime. */
	if (!(s->set & FS_SET_SIZE)) {
		a.set = META_SET_MODE;
		a.mode = mode;
		return meta_setattr(fs->st, in, &a);
	}
	return 0;
}

int fs_setattr(struct fs *fs, uint64_t ino, const struct setattr *s, struct stat *out)
{
	struct inode *in;
	uint32_t mode;
	int err = fs_get_mode(fs, ino, &in, &mode);

	if (err)
		return err;
	err = setattr(fs, in, mode, s);
	if (!err)
		fs_stat(fs, in, out, NULL);
	fs_put(fs, in);
	return err;
}

int fs_readlink(struct fs *fs, uint64_t ino, struct buf *out)
{
	struct inode *in;
	int err = fs_get(fs, ino, &in);

	if (err)
		return err;
	err = meta_readlink(fs->st, in, out);
	fs_put(fs, in);
	return err;
}

void fs_accessed(struct fs *fs, struct inode *in)
{
	if (fs->opts.noatime || fs->opts.read_only)
		return;
	int64_t now = realtime_ns();
	pthread_mutex_lock(&fs->st->meta);
	/* Kept on this machine: reading is nothing to publish. */
	if ((in->atime_ns <= in->mtime_ns || in->atime_ns <= in->ctime_ns ||
	     now - in->atime_ns >= DAY_NS) &&
	    !store_writable_locked(fs->st)) {
		in->atime_ns = now;
		inode_mark_locked(fs->st, in, 0);
	}
	pthread_mutex_unlock(&fs->st->meta);
}

/*
 * The volume is as large as its nodes are, or as its quota says; what can be written just now may be less, when
 * this machine's disk is short: written bytes wait there for their publication.
 */
int fs_statfs(struct fs *fs, struct statvfs *out)
{
	struct store_figures fig;
	struct statvfs local;
	uint64_t total = 0, free = 0;
	const uint64_t bs = 4096;

	if (fstatvfs(fs->st->dir_fd, &local))
		return -errno;
	int err = store_figures(fs->st, &fig);
	if (err)
		return err;
	if (fs->st->vol)
		volume_space(fs->st->vol, &free, &total);
	uint64_t here = (uint64_t)local.f_bavail * local.f_frsize;
	uint64_t used, quota = quota_get(fs->st, &used);
	if (total) {
		free -= HF_MIN(free, fig.unpublished_bytes);
	} else {
		total = (uint64_t)local.f_blocks * local.f_frsize;
		free = (uint64_t)local.f_bfree * local.f_frsize;
	}
	if (quota) {
		total = quota;
		free = HF_MIN(free, quota - HF_MIN(quota, used));
	}
	memset(out, 0, sizeof *out);
	out->f_bsize = bs;
	out->f_frsize = bs;
	out->f_blocks = total / bs;
	out->f_bfree = free / bs;
	/* Clean bytes in the cache make way for new ones. */
	uint64_t clean = fig.cached_bytes - HF_MIN(fig.cached_bytes, fig.unpublished_bytes);
	out->f_bavail = HF_MIN(free, here + (fs->st->vol ? clean : 0)) / bs;
	/* An inode costs some 500 bytes of the local database. */
	out->f_ffree = here / 512;
	out->f_favail = out->f_ffree;
	out->f_files = fig.files + out->f_ffree;
	out->f_namemax = 255;
	return 0;
}
