/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Extended attributes: rows, and flags of the inode that say which rows there are, so that
 * an inode without any costs no query.  ACLs and capabilities are rows as all others.
 */
#include <stdlib.h>
#include <sys/xattr.h>
#include "cache/db.h"
#include "cache/meta.h"
#include "net/record.h"

#define XATTR_TOTAL_MAX (1u << 20)
/* Rows, their pages and their way through the WAL. */
#define XATTR_SPACE 8192
#define CAPABILITY  "security.capability"

static bool is(const char *name, size_t len, const char *what)
{
	return len == strlen(what) && !memcmp(name, what, len);
}

uint32_t xattr_flag(const char *name, size_t len)
{
	if (is(name, len, "system.posix_acl_access") || is(name, len, "system.posix_acl_default"))
		return INODE_ACL;
	return is(name, len, CAPABILITY) ? INODE_CAP : INODE_XATTR;
}

static int name_check(const char *name)
{
	size_t len = strlen(name);

	return len && len <= REC_XATTR_NAME_MAX ? 0 : -ERANGE;
}

/* Length of the value, -ENODATA, -errno; out may be NULL. */
static int64_t xattr_find(struct store *st, const struct inode *in, const char *name,
			  struct buf *out)
{
	if (!(in->flags & xattr_flag(name, strlen(name))))
		return -ENODATA;
	sqlite3_stmt *s = store_stmt(st, "SELECT value FROM xattr WHERE ino=?1 AND name=?2");
	if (!s || store_undone_locked(st, in->ino))
		return -EIO;
	sqlite3_bind_int64(s, 1, (int64_t)in->ino);
	sqlite3_bind_blob(s, 2, name, (int)strlen(name), SQLITE_STATIC);
	int64_t err = store_step(st, s);
	if (err > 0) {
		int len = sqlite3_column_bytes(s, 0);
		if (out)
			buf_put(out, sqlite3_column_blob(s, 0), (size_t)len);
		err = out && out->err ? out->err : len;
	} else if (!err) {
		err = -ENODATA;
	}
	sqlite3_reset(s);
	return err;
}

/* Bytes of names and values of all attributes. */
static int64_t xattr_total(struct store *st, const struct inode *in)
{
	if (!(in->flags & INODE_XATTRS))
		return 0;
	sqlite3_stmt *s = store_stmt(st, "SELECT sum(length(name)+length(value)) FROM xattr "
					 "WHERE ino=?1");
	if (!s)
		return -EIO;
	sqlite3_bind_int64(s, 1, (int64_t)in->ino);
	int64_t n = store_step(st, s);
	if (n > 0)
		n = sqlite3_column_int64(s, 0);
	sqlite3_reset(s);
	return n;
}

int xattr_put_locked(struct store *st, struct inode *in, const char *name, const void *v,
		     size_t len)
{
	sqlite3_stmt *s = store_stmt(st, "INSERT OR REPLACE INTO xattr(ino,name,value) "
					 "VALUES(?1,?2,?3)");
	if (!s)
		return -EIO;
	store_touch_locked(st, in->ino);
	sqlite3_bind_int64(s, 1, (int64_t)in->ino);
	sqlite3_bind_blob(s, 2, name, (int)strlen(name), SQLITE_STATIC);
	sqlite3_bind_blob(s, 3, len ? v : "", (int)len, SQLITE_STATIC);
	int err = store_run(st, s);
	if (err)
		return err;
	in->flags |= xattr_flag(name, strlen(name));
	inode_mark_locked(st, in, REC_CH_XATTR | REC_CH_TIMES);
	return 0;
}

int64_t meta_getxattr(struct store *st, struct inode *in, const char *name, struct buf *out)
{
	int err = name_check(name);

	if (err)
		return err;
	pthread_mutex_lock(&st->meta);
	int64_t n = xattr_find(st, in, name, out);
	pthread_mutex_unlock(&st->meta);
	return n;
}

/* All names, each with its 0; they are in the order of their bytes. */
static int list_locked(struct store *st, const struct inode *in, struct buf *out)
{
	int err;

	if (!(in->flags & INODE_XATTRS))
		return 0;
	sqlite3_stmt *s = store_stmt(st, "SELECT name FROM xattr WHERE ino=?1 ORDER BY name");
	if (!s || store_undone_locked(st, in->ino))
		return -EIO;
	sqlite3_bind_int64(s, 1, (int64_t)in->ino);
	while ((err = store_step(st, s)) > 0) {
		buf_put(out, sqlite3_column_blob(s, 0), (size_t)sqlite3_column_bytes(s, 0));
		buf_u8(out, 0);
	}
	sqlite3_reset(s);
	return err ? err : out->err;
}

int meta_listxattr(struct store *st, struct inode *in, struct buf *out)
{
	pthread_mutex_lock(&st->meta);
	int err = list_locked(st, in, out);
	pthread_mutex_unlock(&st->meta);
	return err;
}

/* The flags say what the rows say. */
static int flags_again(struct store *st, struct inode *in)
{
	struct buf names = {0};
	uint32_t flags = 0;
	int err = list_locked(st, in, &names);

	for (size_t at = 0; !err && at < names.len; at += strlen((char *)names.p + at) + 1)
		flags |= xattr_flag((char *)names.p + at, strlen((char *)names.p + at));
	buf_release(&names);
	if (!err)
		in->flags = (in->flags & ~INODE_XATTRS) | flags;
	return err;
}

static int remove_locked(struct store *st, struct inode *in, const char *name)
{
	sqlite3_stmt *s = store_stmt(st, "DELETE FROM xattr WHERE ino=?1 AND name=?2");

	if (!s)
		return -EIO;
	store_touch_locked(st, in->ino);
	sqlite3_bind_int64(s, 1, (int64_t)in->ino);
	sqlite3_bind_blob(s, 2, name, (int)strlen(name), SQLITE_STATIC);
	int err = store_run(st, s);
	if (!err)
		err = flags_again(st, in);
	if (err)
		return err;
	in->ctime_ns = realtime_ns();
	inode_mark_locked(st, in, REC_CH_XATTR | REC_CH_TIMES);
	return 0;
}

int xattr_change_locked(struct store *st, struct inode *in, const struct meta_attr *a)
{
	struct buf v = {0};
	int64_t n = xattr_find(st, in, a->acl, &v);
	int err = n < 0 ? (int)n : 0;

	if (!err)
		err = a->acl_chmod(v.p, v.len, a->mode);
	if (!err)
		err = xattr_put_locked(st, in, a->acl, v.p, v.len);
	buf_release(&v);
	return err == -ENODATA ? 0 : err;
}

/* What the flags and the limits say against it. */
static int set_check(struct store *st, const struct inode *in, const char *name, size_t len,
		     int flags)
{
	int64_t old = store_writable_locked(st);

	if (!old)
		old = in->gone ? -ENOENT : xattr_find(st, in, name, NULL);
	if (old >= 0 && flags & XATTR_CREATE)
		return -EEXIST;
	if (old == -ENODATA && flags & XATTR_REPLACE)
		return -ENODATA;
	if (old < 0 && old != -ENODATA)
		return (int)old;
	int64_t total = xattr_total(st, in);
	if (total < 0)
		return (int)total;
	total += (int64_t)len;
	total += old >= 0 ? -old : (int64_t)strlen(name);
	return total > XATTR_TOTAL_MAX ? -ENOSPC : 0;
}

static int set_args(struct store *st, const char *name, size_t len, int flags)
{
	int err = name_check(name);

	if (!err && len > REC_XATTR_MAX)
		err = -E2BIG;
	if (!err && (flags & ~(XATTR_CREATE | XATTR_REPLACE) ||
		     flags == (XATTR_CREATE | XATTR_REPLACE)))
		err = -EINVAL;
	return err ? err : store_space_rows(st, len + XATTR_SPACE);
}

int meta_setxattr(struct store *st, struct inode *in, const char *name, const void *v,
		  size_t len, int flags)
{
	int err = set_args(st, name, len, flags);

	if (err)
		return err;
	pthread_mutex_lock(&st->meta);
	err = set_check(st, in, name, len, flags);
	if (!err)
		err = xattr_put_locked(st, in, name, v, len);
	if (!err) {
		in->ctime_ns = realtime_ns();
		store_pressure_locked(st);
	}
	pthread_mutex_unlock(&st->meta);
	return err;
}

int meta_setacl(struct store *st, struct inode *in, const char *name, const void *v, size_t len,
		int flags, uint32_t set, uint32_t clear)
{
	int err = v ? set_args(st, name, len, flags) : name_check(name);

	if (err)
		return err;
	pthread_mutex_lock(&st->meta);
	if (v) {
		err = set_check(st, in, name, len, flags);
		if (!err)
			err = xattr_put_locked(st, in, name, v, len);
	} else {
		err = store_writable_locked(st);
		int64_t old = in->gone ? -ENOENT : xattr_find(st, in, name, NULL);
		if (!err && old >= 0)
			err = remove_locked(st, in, name);
		else if (!err && old != -ENODATA)
			err = (int)old;
	}
	uint32_t mode = (in->mode & ~(clear & 07777)) | (set & 07777);
	if (!err && mode != in->mode) {
		in->mode = mode;
		inode_mark_locked(st, in, REC_CH_MODE | REC_CH_TIMES);
	}
	if (!err) {
		in->ctime_ns = realtime_ns();
		store_pressure_locked(st);
	}
	pthread_mutex_unlock(&st->meta);
	return err;
}

int meta_removexattr(struct store *st, struct inode *in, const char *name)
{
	int64_t err = name_check(name);

	if (err)
		return (int)err;
	pthread_mutex_lock(&st->meta);
	err = store_writable_locked(st);
	if (!err)
		err = in->gone ? -ENOENT : xattr_find(st, in, name, NULL);
	if (err >= 0)
		err = remove_locked(st, in, name);
	pthread_mutex_unlock(&st->meta);
	return (int)err;
}

int inode_kill_priv_locked(struct store *st, struct inode *in)
{
	uint32_t mode = in->mode & ~S_ISUID;

	/* Without group execution the bit once meant mandatory locking, not privilege. */
	if (mode & S_IXGRP)
		mode &= ~S_ISGID;
	if (mode != in->mode) {
		in->mode = mode;
		inode_mark_locked(st, in, REC_CH_MODE | REC_CH_TIMES);
	}
	return in->flags & INODE_CAP ? remove_locked(st, in, CAPABILITY) : 0;
}
