/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * fs: POSIX semantics between the kernel's requests (fuse.c) and the store: what a call
 * means, in terms of inodes, names and bytes.  No FUSE types here.
 *
 * An inode is pinned only while a request runs; what keeps an unlinked one alive between
 * requests is its reference count in nlookup.  Nobody counts open files: the kernel does
 * not tell us of open and close (fuse.c), an unlinked file lives until it is forgotten.
 *
 * Functions that give an entry (out pinned, one reference counted in nlookup) leave both to
 * the caller: fs_put ends the pin, and fs_forget takes the reference back when the reply
 * did not reach the kernel.
 *
 * Locks: st->meta before the mutexes of nlookup.
 */
#ifndef HOLDFAST_FS_FS_H
#define HOLDFAST_FS_FS_H

#include <sys/statvfs.h>
#include "cache/meta.h"
#include "fs/fuse.h"
#include "fs/interrupt.h"
#include "fs/nlookup.h"

struct fuse_session;
struct loop;

struct fs {
	struct store *st;
	struct nlookup *nl;
	struct fs_opts opts;
	char *dir;
	struct fuse_session *se;
	bool no_open, no_opendir;     /* the kernel takes ENOSYS for "do not ask again" */
	bool kill_v2;		      /* the kernel says when set-id bits must go */
	_Atomic uint64_t init_unique; /* of the FUSE_INIT that is not answered, or 0 */
	struct loop *loop;
	struct interrupts interrupts; /* requests that wait for nodes */
};

/* Who asks. */
struct cred {
	uint32_t uid, gid, umask;
	bool (*in_group)(void *arg, uint32_t gid); /* supplementary groups too */
	void *arg;
};

/* --- inode.c --- */

/* Pins; -ESTALE when the inode does not exist. */
int fs_get(struct fs *fs, uint64_t ino, struct inode **out);
/* And its mode of now; the type in it never changes. */
int fs_get_mode(struct fs *fs, uint64_t ino, struct inode **out, uint32_t *mode);
void fs_put(struct fs *fs, struct inode *in);
/* Counts one reference of the kernel's to a pinned inode. */
int fs_refer(struct fs *fs, struct inode *in);
void fs_forget(struct fs *fs, uint64_t ino, uint64_t n);
/* The inode lost a name: free it now or when it is forgotten.  0 is nobody. */
void fs_unnamed(struct fs *fs, uint64_t ino);

int fs_lookup(struct fs *fs, uint64_t parent, const char *name, struct inode **out);
/* As they are shown here; btime_ns may be NULL.  _locked: st->meta is held. */
void fs_stat(struct fs *fs, struct inode *in, struct stat *out, int64_t *btime_ns);
void fs_stat_locked(struct fs *fs, struct inode *in, struct stat *out);
/* btime_ns may be NULL. */
int fs_getattr(struct fs *fs, uint64_t ino, struct stat *out, int64_t *btime_ns);
struct timespec fs_timespec(int64_t ns);

#define FS_SET_SIZE (1u << 16)
#define FS_SET_KILL (1u << 17) /* set-id bits go */
struct setattr {
	unsigned set; /* META_SET_*, FS_SET_* */
	const struct cred *c; /* who asks */
	struct meta_attr a;   /* owner and mode as they are here */
	uint64_t size;
};
int fs_setattr(struct fs *fs, uint64_t ino, const struct setattr *s, struct stat *out);
/*
 * Before c, or NULL, changes the contents: of the bits that this takes the one of which cache/
 * knows nothing, S_ISGID without group execution where c is not of the group.
 */
int fs_kill_group(struct fs *fs, struct inode *in, uint32_t mode, const struct cred *c);
int fs_readlink(struct fs *fs, uint64_t ino, struct buf *out);
int fs_statfs(struct fs *fs, struct statvfs *out);
/* relatime: the inode was read just now. */
void fs_accessed(struct fs *fs, struct inode *in);
/* Nanoseconds since 1970, clamped to what 64 bits hold. */
int64_t fs_time_ns(const struct timespec *ts);

/* --- dir.c --- */

/* 0, -ENAMETOOLONG, -EINVAL. */
int fs_check_name(const char *name);
struct make {
	const char *name; /* NULL: without a name (O_TMPFILE) */
	uint32_t mode;	  /* with type, umask not applied */
	uint64_t rdev;
	const char *target; /* symlink */
};
int fs_make(struct fs *fs, const struct cred *c, uint64_t parent, const struct make *m,
	    struct inode **out);
int fs_link(struct fs *fs, uint64_t ino, uint64_t parent, const char *name, struct inode **out);
int fs_unlink(struct fs *fs, uint64_t parent, const char *name, bool dir);
/* flags: RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT (which then belongs to c). */
int fs_rename(struct fs *fs, const struct cred *c, uint64_t parent, const char *name,
	      uint64_t newparent, const char *newname, unsigned flags);
/*
 * Entries after offset `off`, "." and ".." first.  attr: with attributes and a reference
 * counted for each but those two.  emit gets the offset that follows the entry; non-zero:
 * it did not fit.  Called with st->meta held.
 */
typedef int fs_emit(void *arg, const char *name, const struct stat *st, uint64_t next);
int fs_readdir(struct fs *fs, uint64_t ino, uint64_t off, bool attr, fs_emit *emit, void *arg);

/* --- file.c --- */

/* kill: who asks, when set-id bits go; else NULL. */
int64_t fs_read(struct fs *fs, uint64_t ino, void *buf, size_t len, uint64_t off);
int fs_write(struct fs *fs, uint64_t ino, const void *buf, size_t len, uint64_t off,
	     const struct cred *kill);
int fs_fsync(struct fs *fs, uint64_t ino, bool datasync);
int fs_fallocate(struct fs *fs, uint64_t ino, int mode, uint64_t off, uint64_t len,
		 const struct cred *kill);
int64_t fs_lseek(struct fs *fs, uint64_t ino, uint64_t off, int whence);
int64_t fs_copy(struct fs *fs, uint64_t src, uint64_t src_off, uint64_t dst, uint64_t dst_off,
		uint64_t len, const struct cred *kill);

/* --- xattr.c --- */

int fs_setxattr(struct fs *fs, const struct cred *c, uint64_t ino, const char *name,
		const void *v, size_t len, int flags);
int fs_getxattr(struct fs *fs, uint64_t ino, const char *name, struct buf *out);
int fs_listxattr(struct fs *fs, const struct cred *c, uint64_t ino, struct buf *out);
int fs_removexattr(struct fs *fs, uint64_t ino, const char *name);
/* A directory's default list or a file's access list into *out, empty when it has none. */
int fs_get_acl(struct fs *fs, struct inode *in, const char *name, struct buf *out);

#endif
