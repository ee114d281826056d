/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "fs/fs.h"

#include "cache/data.h"

/* What one copy_file_range request moves at most, so that it can be interrupted soon. */
#define COPY_MAX ((uint64_t)64 << 20)

static int get_file(struct fs *fs, uint64_t ino, struct inode **out, const struct cred *kill)
{
	uint32_t mode;
	int err = fs_get_mode(fs, ino, out, &mode);

	if (err)
		return err;
	if (S_ISREG(mode))
		err = fs_kill_group(fs, *out, mode, kill);
	else
		err = S_ISDIR(mode) ? -EISDIR : -EINVAL;
	if (err)
		fs_put(fs, *out);
	return err;
}

int64_t fs_read(struct fs *fs, uint64_t ino, void *buf, size_t len, uint64_t off)
{
	struct inode *in;
	int err = get_file(fs, ino, &in, NULL);

	if (err)
		return err;
	int64_t n = data_read(fs->st, in, buf, len, off);
	if (n >= 0)
		fs_accessed(fs, in);
	fs_put(fs, in);
	return n;
}

int fs_write(struct fs *fs, uint64_t ino, const void *buf, size_t len, uint64_t off,
	     const struct cred *kill)
{
	struct inode *in;
	int err = get_file(fs, ino, &in, kill);

	if (err)
		return err;
	err = data_write(fs->st, in, buf, len, off, kill);
	fs_put(fs, in);
	return err;
}

int fs_fsync(struct fs *fs, uint64_t ino, bool datasync)
{
	struct inode *in;
	uint32_t mode;
	int err = fs_get_mode(fs, ino, &in, &mode);

	if (err)
		return err;
	err = S_ISREG(mode) ? data_sync(fs->st, in, datasync) : store_commit(fs->st);
	fs_put(fs, in);
	return err;
}

int fs_fallocate(struct fs *fs, uint64_t ino, int mode, uint64_t off, uint64_t len,
		 const struct cred *kill)
{
	struct inode *in;
	int err = get_file(fs, ino, &in, kill);

	if (err)
		return err;
	err = data_fallocate(fs->st, in, mode, off, len, kill);
	fs_put(fs, in);
	return err;
}

int64_t fs_lseek(struct fs *fs, uint64_t ino, uint64_t off, int whence)
{
	struct inode *in;
	int err = get_file(fs, ino, &in, NULL);

	if (err)
		return err;
	int64_t pos = data_seek(fs->st, in, off, whence);
	fs_put(fs, in);
	return pos;
}

int64_t fs_copy(struct fs *fs, uint64_t src, uint64_t src_off, uint64_t dst, uint64_t dst_off,
		uint64_t len, const struct cred *kill)
{
	struct inode *from, *to;
	int err = get_file(fs, src, &from, NULL);

	if (err)
		return err;
	err = get_file(fs, dst, &to, kill);
	if (err) {
		fs_put(fs, from);
		return err;
	}
	int64_t n = data_copy(fs->st, from, src_off, to, dst_off, HF_MIN(len, COPY_MAX), kill);
	fs_put(fs, to);
	fs_put(fs, from);
	return n;
}
