/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The table of operations: decode, call, reply.
 *
 * Requests decide the speed, so the kernel is made to send few: no open, opendir, flush and
 * release (ENOSYS; O_TRUNC then comes as a setattr), no create but mknod, which needs no
 * release either, entries, attributes and their absence kept for a day, symlinks and listings
 * cached, pages invalidated only when we say so.
 * There is no writeback cache: a write that returned is ours, and errors are its own.
 */
#include "fs/serve.h"

#include <fuse_lowlevel.h>
#include <stdlib.h>
#include "cache/data.h"

#define KEEP_S	  ((double)SERVE_KEEP_S)
#define WRITE_MAX (1u << 20)

/* --- replies --- */

/* What a program sees.  Of what nodes do wrong it sees EIO; the log has the rest. */
static int errno_of(int err)
{
	switch (-err) {
	case EBADMSG:
	case ENODATA:
	case ETIMEDOUT:
	case ECANCELED:
	case EAGAIN:
	case EACCES:
		return EIO;
	default:
		return -err;
	}
}

static void reply_err(fuse_req_t req, int err)
{
	fuse_reply_err(req, errno_of(err));
}

/* Of xattrs, ENODATA is an answer. */
static void reply_xattr_err(fuse_req_t req, int err)
{
	fuse_reply_err(req, err == -ENODATA || err == -EACCES ? -err : errno_of(err));
}

static struct fs *fs_of(fuse_req_t req)
{
	return fuse_req_userdata(req);
}

/* What may wait for nodes does so only as long as its program. */
static void wait_begin(struct interrupt *i, fuse_req_t req)
{
	interrupt_begin(i, &fs_of(req)->interrupts, req, false);
}

static bool in_group(void *arg, uint32_t gid)
{
	fuse_req_t req = arg;
	gid_t *list = NULL;
	bool in = fuse_req_ctx(req)->gid == gid;
	int cnt = in ? 0 : fuse_req_getgroups(req, 0, NULL);

	if (cnt > 0)
		list = calloc((size_t)cnt, sizeof *list);
	if (list)
		cnt = HF_MIN(cnt, fuse_req_getgroups(req, cnt, list));
	for (int i = 0; list && i < cnt; i++)
		in |= list[i] == gid;
	free(list);
	return in;
}

static struct cred cred_of(fuse_req_t req)
{
	const struct fuse_ctx *c = fuse_req_ctx(req);

	return (struct cred){c->uid, c->gid, c->umask, in_group, req};
}

/* Whether this write or truncation takes set-id bits away. */
static bool kills(fuse_req_t req)
{
	return fs_of(req)->kill_v2 ? request_extra_get()->kill : fuse_req_ctx(req)->uid != 0;
}

/* The entry is pinned and counted; a reply that does not arrive takes the count back. */
static void reply_entry(fuse_req_t req, struct inode *in, struct fuse_file_info *fi)
{
	struct fuse_entry_param e = {
		.ino = in->ino, .attr_timeout = KEEP_S, .entry_timeout = KEEP_S};
	struct fs *fs = fs_of(req);

	fs_stat(fs, in, &e.attr, NULL);
	fs_put(fs, in);
	if (fi ? fuse_reply_create(req, &e, fi) : fuse_reply_entry(req, &e))
		fs_forget(fs, e.ino, 1);
}

/* A buffer of this thread, at least len bytes, for answers. */
static pthread_key_t scratch_key;
static pthread_once_t scratch_once = PTHREAD_ONCE_INIT;
static __thread struct {
	char *p;
	size_t cap;
} scratch;

static void scratch_make_key(void)
{
	pthread_key_create(&scratch_key, free);
}

static char *scratch_get(size_t len)
{
	void *p;

	if (len <= scratch.cap)
		return scratch.p;
	pthread_once(&scratch_once, scratch_make_key);
	len = (len + 65535) & ~(size_t)65535;
	if (posix_memalign(&p, 4096, len))
		return NULL;
	if (pthread_setspecific(scratch_key, p)) {
		free(p);
		return NULL;
	}
	free(scratch.p);
	scratch.p = p;
	scratch.cap = len;
	return p;
}

/* --- the session --- */

static void op_init(void *arg, struct fuse_conn_info *conn)
{
	const unsigned want = FUSE_CAP_ASYNC_READ | FUSE_CAP_PARALLEL_DIROPS |
			      FUSE_CAP_READDIRPLUS | FUSE_CAP_READDIRPLUS_AUTO |
			      FUSE_CAP_EXPORT_SUPPORT | FUSE_CAP_POSIX_ACL |
			      FUSE_CAP_DONT_MASK | FUSE_CAP_CACHE_SYMLINKS |
			      FUSE_CAP_EXPLICIT_INVAL_DATA | FUSE_CAP_NO_OPEN_SUPPORT |
			      FUSE_CAP_NO_OPENDIR_SUPPORT;
	struct fs *fs = arg;

	/*
	 * Not ATOMIC_O_TRUNC: nobody would see an open with O_TRUNC.  Not ASYNC_DIO: the kernel
	 * does not drop the pages that others read while such a write was under way, and shows
	 * old bytes from then on.
	 */
	conn->want = conn->capable & want;
	if (fs->opts.owners.masked)
		conn->want &= ~(unsigned)FUSE_CAP_POSIX_ACL;
	if (!fs->kill_v2)
		conn->want |= conn->capable & FUSE_CAP_HANDLE_KILLPRIV;
	fs->no_open = conn->capable & FUSE_CAP_NO_OPEN_SUPPORT;
	fs->no_opendir = conn->capable & FUSE_CAP_NO_OPENDIR_SUPPORT;
	conn->max_write = HF_MIN(conn->max_write, WRITE_MAX);
	/* Read-ahead that waits for nodes must leave threads for everything else. */
	conn->max_background = SERVE_THREADS_MAX * 3 / 4;
	conn->congestion_threshold = conn->max_background * 3 / 4;
	conn->time_gran = 1;
	if (!(conn->capable & FUSE_CAP_POSIX_ACL))
		log_warn("this kernel knows no POSIX ACLs for FUSE: they are not enforced");
}

/* --- inodes --- */

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct inode *in;
	int err = fs_lookup(fs_of(req), parent, name, &in);

	if (err == -ENOENT) {
		struct fuse_entry_param none = {.entry_timeout = KEEP_S};
		fuse_reply_entry(req, &none);
	} else if (err) {
		reply_err(req, err);
	} else {
		reply_entry(req, in, NULL);
	}
}

static void op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t n)
{
	fs_forget(fs_of(req), ino, n);
	fuse_reply_none(req);
}

static void op_forget_multi(fuse_req_t req, size_t cnt, struct fuse_forget_data *f)
{
	for (size_t i = 0; i < cnt; i++)
		fs_forget(fs_of(req), f[i].ino, f[i].nlookup);
	fuse_reply_none(req);
}

static void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct stat st;
	int err = fs_getattr(fs_of(req), ino, &st, NULL);

	(void)fi;
	if (err)
		reply_err(req, err);
	else
		fuse_reply_attr(req, &st, KEEP_S);
}

static void op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int set,
		       struct fuse_file_info *fi)
{
	struct cred c = cred_of(req);
	struct setattr s = {
		.size = (uint64_t)attr->st_size,
		.c = &c,
		.a = {.mode = attr->st_mode, .uid = attr->st_uid, .gid = attr->st_gid}};
	struct fs *fs = fs_of(req);
	struct interrupt wait;
	struct stat st;

	(void)fi;
	if (set & FUSE_SET_ATTR_MODE)
		s.set |= META_SET_MODE;
	if (set & FUSE_SET_ATTR_UID)
		s.set |= META_SET_UID;
	if (set & FUSE_SET_ATTR_GID)
		s.set |= META_SET_GID;
	if (set & FUSE_SET_ATTR_SIZE)
		s.set |= FS_SET_SIZE;
	int64_t now = realtime_ns();
	if (set & (FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_ATIME_NOW)) {
		s.set |= META_SET_ATIME;
		s.a.atime_ns = set & FUSE_SET_ATTR_ATIME_NOW ? now : fs_time_ns(&attr->st_atim);
	}
	if (set & (FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_MTIME_NOW)) {
		s.set |= META_SET_MTIME;
		s.a.mtime_ns = set & FUSE_SET_ATTR_MTIME_NOW ? now : fs_time_ns(&attr->st_mtim);
	}
	/*
	 * Nothing to set: the kernel strips set-id bits before it changes contents, or it is
	 * a chown(-1, -1), which strips them too.
	 */
	if (fs->kill_v2 ? request_extra_get()->kill
			: (s.set & (META_SET_UID | META_SET_GID) ||
			   (s.set & FS_SET_SIZE && fuse_req_ctx(req)->uid)))
		s.set |= FS_SET_KILL;
	if (!s.set)
		s.set |= FS_SET_KILL;
	wait_begin(&wait, req);
	int err = fs_setattr(fs, ino, &s, &st);
	interrupt_end(&wait);
	if (err)
		reply_err(req, err);
	else
		fuse_reply_attr(req, &st, KEEP_S);
}

static void op_readlink(fuse_req_t req, fuse_ino_t ino)
{
	struct buf b = {0};
	int err = fs_readlink(fs_of(req), ino, &b);

	if (!err) {
		buf_u8(&b, 0);
		err = b.err;
	}
	if (err)
		reply_err(req, err);
	else
		fuse_reply_readlink(req, (const char *)b.p);
	buf_release(&b);
}

static void op_statfs(fuse_req_t req, fuse_ino_t ino)
{
	struct statvfs s;
	int err = fs_statfs(fs_of(req), &s);

	(void)ino;
	if (err)
		reply_err(req, err);
	else
		fuse_reply_statfs(req, &s);
}

/* --- names --- */

static void make(fuse_req_t req, fuse_ino_t parent, const struct make *m,
		 struct fuse_file_info *fi)
{
	struct cred c = cred_of(req);
	struct inode *in;
	int err = fs_make(fs_of(req), &c, parent, m, &in);

	/* The kernel did not know of the name: it looks again, and checks permissions. */
	if (err == -EEXIST && fi && !(fi->flags & O_EXCL))
		err = -ESTALE;
	if (err)
		reply_err(req, err);
	else
		reply_entry(req, in, fi);
}

static void op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
		     dev_t rdev)
{
	make(req, parent, &(struct make){.name = name, .mode = mode, .rdev = rdev}, NULL);
}

static void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	make(req, parent, &(struct make){.name = name, .mode = S_IFDIR | (mode & 07777)}, NULL);
}

static void op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
	make(req, parent,
	     &(struct make){.name = name, .mode = S_IFLNK | 0777, .target = target}, NULL);
}

static void op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
		      struct fuse_file_info *fi)
{
	bool tmpfile = request_extra_get()->tmpfile;

	/* The kernel then makes it by mknod, and nobody has to hear of its close. */
	if (!tmpfile && fs_of(req)->no_open) {
		fuse_reply_err(req, ENOSYS);
		return;
	}
	if (tmpfile)
		name = NULL;
	fi->fh = 0;
	fi->keep_cache = 1;
	make(req, parent, &(struct make){.name = name, .mode = S_IFREG | (mode & 07777)}, fi);
}

static void op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char *name)
{
	struct inode *in;
	int err = fs_link(fs_of(req), ino, parent, name, &in);

	if (err)
		reply_err(req, err);
	else
		reply_entry(req, in, NULL);
}

static void op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	reply_err(req, fs_unlink(fs_of(req), parent, name, false));
}

static void op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	reply_err(req, fs_unlink(fs_of(req), parent, name, true));
}

static void op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t newparent,
		      const char *newname, unsigned flags)
{
	struct cred c = cred_of(req);

	reply_err(req, fs_rename(fs_of(req), &c, parent, name, newparent, newname, flags));
}

/* --- listings --- */

struct filler {
	fuse_req_t req;
	char *p;
	size_t len, cap;
	bool plus;
	struct buf counted; /* u64 each, in case the reply does not arrive */
};

static int fill(void *arg, const char *name, const struct stat *st, uint64_t next)
{
	struct filler *f = arg;
	size_t left = f->cap - f->len, n;

	if (f->plus) {
		bool dots = next <= 2;
		struct fuse_entry_param e = {.attr = *st};
		if (!dots) {
			e.ino = st->st_ino;
			e.attr_timeout = e.entry_timeout = KEEP_S;
		}
		n = fuse_add_direntry_plus(f->req, f->p + f->len, left, name, &e, (off_t)next);
		if (n <= left && !dots)
			buf_u64(&f->counted, st->st_ino);
	} else {
		n = fuse_add_direntry(f->req, f->p + f->len, left, name, st, (off_t)next);
	}
	if (n > left)
		return 1;
	f->len += n;
	return 0;
}

static void listing(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, bool plus)
{
	struct filler f = {.req = req, .plus = plus, .cap = HF_MIN(size, WRITE_MAX)};
	struct fs *fs = fs_of(req);
	int err = 0;

	f.p = scratch_get(f.cap);
	/* Room for all that can be counted, so that counting cannot fail. */
	if (!f.p || (plus && !buf_room(&f.counted, f.cap / 16 + 8)))
		err = -ENOMEM;
	if (!err)
		err = fs_readdir(fs, ino, (uint64_t)off, plus, fill, &f);
	bool arrived = false;
	/* What came before an error is given out; the next call meets the error. */
	if (err && !f.len)
		reply_err(req, err);
	else
		arrived = !fuse_reply_buf(req, f.p, f.len);
	for (size_t i = 0; !arrived && i + 8 <= f.counted.len; i += 8)
		fs_forget(fs, get_le64(f.counted.p + i), 1);
	buf_release(&f.counted);
}

static void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		       struct fuse_file_info *fi)
{
	(void)fi;
	listing(req, ino, size, off, false);
}

static void op_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
			   struct fuse_file_info *fi)
{
	(void)fi;
	listing(req, ino, size, off, true);
}

static void op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	if (fs_of(req)->no_opendir) {
		fuse_reply_err(req, ENOSYS);
		return;
	}
	fi->keep_cache = 1;
	fi->cache_readdir = 1;
	fuse_reply_open(req, fi);
}

static void op_fsyncdir(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	(void)ino;
	(void)datasync;
	(void)fi;
	reply_err(req, store_commit(fs_of(req)->st));
}

/* --- contents --- */

static void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	if (fs_of(req)->no_open) {
		fuse_reply_err(req, ENOSYS);
		return;
	}
	fi->keep_cache = 1;
	fuse_reply_open(req, fi);
}

/* Of files without a name, which create makes, and those made before open was answered so. */
static void op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	(void)fi;
	fuse_reply_err(req, 0);
}

static void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		    struct fuse_file_info *fi)
{
	size_t len = HF_MIN(size, WRITE_MAX);
	char *p = scratch_get(len);
	struct interrupt wait;

	(void)fi;
	interrupt_begin(&wait, &fs_of(req)->interrupts, req, true);
	int64_t n = p ? fs_read(fs_of(req), ino, p, len, (uint64_t)off) : -ENOMEM;
	interrupt_end(&wait);
	if (n < 0)
		reply_err(req, (int)n);
	else
		fuse_reply_buf(req, p, (size_t)n);
}

static void op_write(fuse_req_t req, fuse_ino_t ino, const char *p, size_t len, off_t off,
		     struct fuse_file_info *fi)
{
	/* Pages written by mmap come from the kernel, and nobody asks whose they were. */
	bool kill = !fi->writepage && kills(req);
	struct cred c = cred_of(req);
	struct interrupt wait;

	/* And nobody would hear that they were not taken. */
	if (!fi->writepage)
		wait_begin(&wait, req);
	int err = fs_write(fs_of(req), ino, p, len, (uint64_t)off, kill ? &c : NULL);
	if (!fi->writepage)
		interrupt_end(&wait);
	if (err)
		reply_err(req, err);
	else
		fuse_reply_write(req, len);
}

static void op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	struct interrupt wait;

	(void)fi;
	wait_begin(&wait, req);
	int err = fs_fsync(fs_of(req), ino, datasync);
	interrupt_end(&wait);
	reply_err(req, err);
}

static void op_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t off, off_t len,
			 struct fuse_file_info *fi)
{
	/* The kernel strips set-id bits itself first, by an empty setattr. */
	bool kill = !fs_of(req)->kill_v2 && kills(req);
	struct cred c = cred_of(req);
	struct interrupt wait;

	(void)fi;
	if (off < 0 || len <= 0) {
		fuse_reply_err(req, EINVAL);
		return;
	}
	wait_begin(&wait, req);
	int err = fs_fallocate(fs_of(req), ino, mode, (uint64_t)off, (uint64_t)len,
			       kill ? &c : NULL);
	interrupt_end(&wait);
	reply_err(req, err);
}

static void op_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence,
		     struct fuse_file_info *fi)
{
	(void)fi;
	if (off < 0 || (whence != SEEK_DATA && whence != SEEK_HOLE)) {
		fuse_reply_err(req, off < 0 ? ENXIO : EINVAL);
		return;
	}
	int64_t pos = fs_lseek(fs_of(req), ino, (uint64_t)off, whence);
	if (pos < 0)
		reply_err(req, (int)pos);
	else
		fuse_reply_lseek(req, pos);
}

static void op_copy_file_range(fuse_req_t req, fuse_ino_t src, off_t src_off,
			       struct fuse_file_info *src_fi, fuse_ino_t dst, off_t dst_off,
			       struct fuse_file_info *dst_fi, size_t len, int flags)
{
	bool kill = !fs_of(req)->kill_v2 && kills(req);
	struct cred c = cred_of(req);
	struct interrupt wait;

	(void)src_fi;
	(void)dst_fi;
	if (src_off < 0 || dst_off < 0 || flags) {
		fuse_reply_err(req, EINVAL);
		return;
	}
	wait_begin(&wait, req);
	int64_t n = fs_copy(fs_of(req), src, (uint64_t)src_off, dst, (uint64_t)dst_off, len,
			    kill ? &c : NULL);
	interrupt_end(&wait);
	if (n < 0)
		reply_err(req, (int)n);
	else
		fuse_reply_write(req, (size_t)n);
}

/* --- xattrs --- */

static void op_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *v,
			size_t len, int flags)
{
	struct cred c = cred_of(req);

	reply_xattr_err(req, fs_setxattr(fs_of(req), &c, ino, name, v, len, flags));
}

/* size 0 asks how large it is. */
static void reply_value(fuse_req_t req, int err, const struct buf *b, size_t size)
{
	if (!err)
		err = b->err;
	if (err)
		reply_xattr_err(req, err);
	else if (!size)
		fuse_reply_xattr(req, b->len);
	else if (b->len > size)
		fuse_reply_err(req, ERANGE);
	else
		fuse_reply_buf(req, (const char *)b->p, b->len);
}

static void op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	struct buf b = {0};
	int err = fs_getxattr(fs_of(req), ino, name, &b);

	reply_value(req, err, &b, size);
	buf_release(&b);
}

static void op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
	struct cred c = cred_of(req);
	struct buf b = {0};
	int err = fs_listxattr(fs_of(req), &c, ino, &b);

	reply_value(req, err, &b, size);
	buf_release(&b);
}

static void op_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
	reply_xattr_err(req, fs_removexattr(fs_of(req), ino, name));
}

/* flush, ioctl, access, locks, poll are absent: the kernel then does without. */
const struct fuse_lowlevel_ops fs_ops = {
	.init = op_init,
	.lookup = op_lookup,
	.forget = op_forget,
	.forget_multi = op_forget_multi,
	.getattr = op_getattr,
	.setattr = op_setattr,
	.readlink = op_readlink,
	.mknod = op_mknod,
	.mkdir = op_mkdir,
	.unlink = op_unlink,
	.rmdir = op_rmdir,
	.symlink = op_symlink,
	.rename = op_rename,
	.link = op_link,
	.create = op_create,
	.open = op_open,
	.release = op_release,
	.read = op_read,
	.write = op_write,
	.fsync = op_fsync,
	.opendir = op_opendir,
	.readdir = op_readdir,
	.readdirplus = op_readdirplus,
	.fsyncdir = op_fsyncdir,
	.statfs = op_statfs,
	.setxattr = op_setxattr,
	.getxattr = op_getxattr,
	.listxattr = op_listxattr,
	.removexattr = op_removexattr,
	.fallocate = op_fallocate,
	.copy_file_range = op_copy_file_range,
	.lseek = op_lseek,
};
