/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "cache/data.h"
#include "cache/db.h"
#include "cache/meta.h"
#include "net/record.h"

#define DIR_SIZE 4096

int meta_readlink(struct store *st, struct inode *in, struct buf *out)
{
	int err = -EINVAL;

	pthread_mutex_lock(&st->meta);
	if (S_ISLNK(in->mode)) {
		sqlite3_stmt *s = store_stmt(st, "SELECT target FROM inode WHERE ino=?1");
		err = -EIO;
		if (s && !store_undone_locked(st, in->ino)) {
			sqlite3_bind_int64(s, 1, (int64_t)in->ino);
			err = store_step(st, s);
			if (err > 0) {
				buf_put(out, sqlite3_column_blob(s, 0),
					(size_t)sqlite3_column_bytes(s, 0));
				err = out->err;
			} else if (!err) {
				err = -ENOENT;
			}
			sqlite3_reset(s);
		}
	}
	pthread_mutex_unlock(&st->meta);
	return err;
}

static struct timespec timespec_of(int64_t ns)
{
	struct timespec ts = {.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};

	if (ts.tv_nsec < 0) {
		ts.tv_sec--;
		ts.tv_nsec += 1000000000;
	}
	return ts;
}

void inode_stat_locked(struct store *st, struct inode *in, struct stat *out, int64_t *btime_ns)
{
	*out = (struct stat){.st_blksize = 4096};
	out->st_ino = in->ino;
	out->st_mode = in->mode;
	out->st_nlink = in->nlink;
	out->st_uid = in->uid;
	out->st_gid = in->gid;
	out->st_rdev = in->rdev;
	out->st_size = S_ISDIR(in->mode) ? DIR_SIZE : (off_t)in->size;
	out->st_atim = timespec_of(in->atime_ns);
	out->st_mtim = timespec_of(in->mtime_ns);
	out->st_ctim = timespec_of(in->ctime_ns);
	if (S_ISREG(in->mode))
		out->st_blocks = (blkcnt_t)((data_allocated_locked(st, in) + 511) / 512);
	else if (S_ISDIR(in->mode))
		out->st_blocks = DIR_SIZE / 512;
	if (btime_ns)
		*btime_ns = in->btime_ns;
}

void inode_stat(struct store *st, struct inode *in, struct stat *out, int64_t *btime_ns)
{
	pthread_mutex_lock(&st->meta);
	inode_stat_locked(st, in, out, btime_ns);
	pthread_mutex_unlock(&st->meta);
}

int meta_setattr(struct store *st, struct inode *in, const struct meta_attr *a)
{
	unsigned mask = 0;

	pthread_mutex_lock(&st->meta);
	int err = store_writable_locked(st);
	if (!err && in->gone)
		err = -ENOENT;
	if (!err && a->set & META_SET_MODE && a->acl)
		err = xattr_change_locked(st, in, a);
	if (err) {
		pthread_mutex_unlock(&st->meta);
		return err;
	}
	if (a->set & META_SET_MODE) {
		in->mode = (in->mode & S_IFMT) | (a->mode & 07777);
		mask |= REC_CH_MODE;
	}
	if (a->set & META_SET_UID)
		in->uid = a->uid;
	if (a->set & META_SET_GID)
		in->gid = a->gid;
	if (a->set & (META_SET_UID | META_SET_GID))
		mask |= REC_CH_OWNER;
	if (a->set & META_SET_ATIME)
		in->atime_ns = a->atime_ns;
	if (a->set & META_SET_MTIME)
		in->mtime_ns = a->mtime_ns;
	if (a->set & META_SET_BTIME)
		in->btime_ns = a->btime_ns;
	in->ctime_ns = a->set & META_SET_CTIME ? a->ctime_ns : realtime_ns();
	inode_mark_locked(st, in, mask | REC_CH_TIMES);
	store_pressure_locked(st);
	pthread_mutex_unlock(&st->meta);
	return 0;
}
