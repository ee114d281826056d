/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * meta: inodes, names and xattrs; typed calls over the database.  No permissions here
 * (the kernel checks them: default_permissions), but the structural rules of POSIX are:
 * types, emptiness, loops, link counts, times.  Every call takes st->meta itself unless its
 * name ends in _locked.  Each is one step: it happens whole or not at all.
 */
#ifndef HOLDFAST_CACHE_META_H
#define HOLDFAST_CACHE_META_H

#include "cache/store.h"

/* Pins an inode; -ENOENT (-ESTALE for one that is gone). */
int inode_get(struct store *st, uint64_t ino, struct inode **out);
int inode_get_locked(struct store *st, uint64_t ino, struct inode **out);
void inode_put(struct store *st, struct inode *in);
void inode_put_locked(struct store *st, struct inode *in);
/* The inode if it is in memory, not pinned; else NULL.  (Dirty ones always are.) */
struct inode *inode_peek_locked(struct store *st, uint64_t ino);
/*
 * The inode changed: mask of REC_CH_*; sets chg/dchg, puts it on the dirty list, wakes the
 * publisher.  mask 0: only the row must be written, there is nothing to publish.  meta held.
 */
void inode_mark_locked(struct store *st, struct inode *in, unsigned mask);
/* Clears set-id bits and security.capability as a write by a user does.  meta held. */
int inode_kill_priv_locked(struct store *st, struct inode *in);

/* A consistent copy of the attributes. st_blocks by data.c's rule: bytes that are not holes. */
void inode_stat(struct store *st, struct inode *in, struct stat *out, int64_t *btime_ns);
void inode_stat_locked(struct store *st, struct inode *in, struct stat *out,
		       int64_t *btime_ns); /* the same with meta held */

/* In a directory with S_ISGID the group is the directory's; a new directory gets the bit. */
struct meta_new {
	uint32_t mode, uid, gid; /* mode with type */
	uint64_t rdev;
	const char *target; /* symlink */
	/* xattrs to begin with (inherited ACLs): */
	const void *acl_access, *acl_default;
	size_t acl_access_len, acl_default_len;
};

/*
 * Names.  `name` is 1..255 bytes, not "." or "..", no '/': callers checked (-EINVAL,
 * -ENAMETOOLONG otherwise).  Times of the parent are set.  Errors as in the man pages:
 * -ENOENT, -EEXIST, -ENOTDIR, -EISDIR, -ENOTEMPTY, -EMLINK, -EINVAL, -EROFS, -ENOSPC.
 */
int meta_lookup(struct store *st, uint64_t parent, const char *name, size_t len,
		struct inode **out); /* pinned */
int meta_create(struct store *st, uint64_t parent, const char *name, size_t len,
		const struct meta_new *n, struct inode **out); /* file, dir, symlink, special */
int meta_tmpfile(struct store *st, const struct meta_new *n, struct inode **out); /* nlink 0 */
int meta_link(struct store *st, struct inode *in, uint64_t parent, const char *name,
	      size_t len);
/* dir: rmdir semantics, else unlink semantics.  *ino = what the name was (may be NULL). */
int meta_unlink(struct store *st, uint64_t parent, const char *name, size_t len, bool dir,
		uint64_t *ino);
/* flags: RENAME_NOREPLACE, RENAME_EXCHANGE.  *victim = inode that lost its name, or 0. */
int meta_rename(struct store *st, uint64_t parent, const char *name, size_t len,
		uint64_t newparent, const char *newname, size_t newlen, unsigned flags,
		uint64_t *victim);
/* The same, and a new inode takes the old name in the same step (RENAME_WHITEOUT). */
int meta_rename_leaving(struct store *st, uint64_t parent, const char *name, size_t len,
			uint64_t newparent, const char *newname, size_t newlen, unsigned flags,
			const struct meta_new *n, uint64_t *victim);
/* The kernel forgot the inode: frees it if it has no name left, or with its last pin. */
void meta_reap(struct store *st, uint64_t ino);

/*
 * Entries after `cookie` (0: from the start) in a stable order; cb returns non-zero to stop
 * (that entry was not taken).  Called with meta held: cb must not call back.  want_attr:
 * `in` is given (pinned only during the call), else NULL.
 */
#define META_COOKIE_MIN 16 /* smaller ones are free for "." and ".." */
struct meta_entry {
	const char *name;
	size_t len;
	uint64_t ino, cookie; /* cookie: of this entry; at least META_COOKIE_MIN */
	uint32_t mode;
	struct inode *in;
};
int meta_readdir(struct store *st, uint64_t dir, uint64_t cookie, bool want_attr,
		 int (*cb)(void *arg, const struct meta_entry *e), void *arg);
uint64_t meta_parent(struct store *st, uint64_t dir); /* "..", 0 when gone */

int meta_readlink(struct store *st, struct inode *in, struct buf *out);

struct meta_attr {
	unsigned set; /* META_SET_* */
	uint32_t mode, uid, gid;
	int64_t atime_ns, mtime_ns, ctime_ns, btime_ns;
	/*
	 * With META_SET_MODE, NULL if there is nothing to be kept in step: called with meta held
	 * when the inode has the xattr of that name; changes its value in place, as long as it
	 * is.  Mode and list change in one step.  An error: nothing has changed.
	 */
	const char *acl;
	int (*acl_chmod)(void *list, size_t len, uint32_t mode);
};
#define META_SET_MODE  1u
#define META_SET_UID   2u
#define META_SET_GID   4u
#define META_SET_ATIME 8u
#define META_SET_MTIME 16u
#define META_SET_CTIME 32u /* else ctime becomes now */
#define META_SET_BTIME 64u
/* Attributes but not size (data_truncate). */
int meta_setattr(struct store *st, struct inode *in, const struct meta_attr *a);

/* flags: XATTR_CREATE, XATTR_REPLACE.  -ENODATA, -EEXIST, -ERANGE, -E2BIG, -ENOSPC. */
int meta_setxattr(struct store *st, struct inode *in, const char *name, const void *v,
		  size_t len, int flags);
/*
 * The access list and the mode in one step: v NULL removes it (which may be absent); the mode
 * becomes (mode & ~clear) | set.
 */
int meta_setacl(struct store *st, struct inode *in, const char *name, const void *v, size_t len,
		int flags, uint32_t set, uint32_t clear);
int64_t meta_getxattr(struct store *st, struct inode *in, const char *name, struct buf *out);
/* Names, each with its 0. */
int meta_listxattr(struct store *st, struct inode *in, struct buf *out);
/* Which of INODE_XATTRS says that an attribute of this name may be there. */
uint32_t xattr_flag(const char *name, size_t len);
int meta_removexattr(struct store *st, struct inode *in, const char *name);

/* Counts for statfs. */
uint64_t meta_files(struct store *st);

/*
 * Rows of names as they are, for whoever changes the tree below POSIX (apply.c); meta held.
 * _find: 1 found (*d filled, but for the name), 0 absent, -errno.
 * _add: name must be absent; chg the epoch, `link`: a newlink row too.  *hash may be NULL.
 * _del: removes the found one; tomb: leave a tomb when a cut may have carried the name.
 */
struct dirent_row {
	uint64_t hash, ino, lid, chg;
	uint32_t mode;
	bool unordered; /* for _del: the inode has INODE_UNORDERED */
};
int dirent_find_locked(struct store *st, uint64_t parent, const char *name, size_t len,
		       struct dirent_row *d);
int dirent_add_locked(struct store *st, uint64_t parent, const char *name, size_t len,
		      uint64_t ino, uint64_t lid, uint32_t mode, uint64_t chg, bool link,
		      uint64_t *hash);
int dirent_del_locked(struct store *st, uint64_t parent, const char *name, size_t len,
		      const struct dirent_row *d, bool tomb);

#endif
