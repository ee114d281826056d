/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "cache/quota.h"

#include "cache/data.h"
#include "cache/meta.h"

/* 0 for an attribute that is not ours. */
static uint64_t decode(const void *p, size_t len)
{
	return len == 8 ? get_le64(p) : 0;
}

int quota_open_locked(struct store *st)
{
	uint64_t quota = 0;
	sqlite3_stmt *s = store_stmt(st, "SELECT value FROM xattr WHERE ino=?1 AND name=?2");

	if (!s)
		return -EIO;
	sqlite3_bind_int64(s, 1, INO_ROOT);
	sqlite3_bind_blob(s, 2, QUOTA_XATTR, (int)strlen(QUOTA_XATTR), SQLITE_STATIC);
	int err = store_step(st, s);
	if (err == 1)
		quota = decode(sqlite3_column_blob(s, 0), (size_t)sqlite3_column_bytes(s, 0));
	sqlite3_reset(s);
	if (err < 0)
		return err;
	err = quota ? live_sum_locked(st) : 0;
	atomic_store(&st->quota, quota);
	return err;
}

int quota_set(struct store *st, uint64_t bytes)
{
	struct inode *root;
	uint8_t v[8];

	int err = inode_get(st, INO_ROOT, &root);
	if (err)
		return err;
	put_le64(v, bytes);
	if (bytes)
		err = meta_setxattr(st, root, QUOTA_XATTR, v, sizeof v, 0);
	else
		err = meta_removexattr(st, root, QUOTA_XATTR);
	inode_put(st, root);
	if (err == -ENODATA)
		err = 0;
	pthread_mutex_lock(&st->meta);
	if (!err && bytes)
		err = live_sum_locked(st);
	pthread_mutex_unlock(&st->meta);
	if (!err)
		atomic_store(&st->quota, bytes);
	return err;
}

static uint64_t used_locked(const struct store *st)
{
	int64_t live = st->live_bytes;

	return (live > 0 ? (uint64_t)live : 0) + st->unpublished_bytes;
}

uint64_t quota_get(struct store *st, uint64_t *used)
{
	uint64_t quota = atomic_load(&st->quota);

	*used = 0;
	if (quota) {
		pthread_mutex_lock(&st->meta);
		*used = used_locked(st);
		pthread_mutex_unlock(&st->meta);
	}
	return quota;
}

int quota_check_locked(const struct store *st, uint64_t more)
{
	uint64_t quota = atomic_load(&st->quota), used = used_locked(st);

	return !quota || !more || (more <= quota && used <= quota - more) ? 0 : -EDQUOT;
}
