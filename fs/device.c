/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "fs/serve.h"

#include <fuse_lowlevel.h>
#include <linux/fuse.h>
#include <stdatomic.h>
#include <sys/sysmacros.h>
#include <unistd.h>

/*
 * FUSE_STATX of protocol 7.39, which Debian 12's linux/fuse.h does not have yet.  Its
 * answer carries what is a struct statx in all but name.
 */
#define OP_STATX 52u
struct statx_answer {
	struct fuse_out_header h;
	uint64_t valid_s;
	uint32_t valid_ns, flags;
	uint64_t spare[2];
	struct statx sx;
};
_Static_assert(sizeof(struct statx_answer) == 16 + 32 + 256, "layout of FUSE_STATX");

static __thread struct request_extra extra;

const struct request_extra *request_extra_get(void)
{
	return &extra;
}

static void peek(struct fs *fs, void *buf, size_t len)
{
	struct fuse_in_header *h = buf;
	const void *body = h + 1;
	size_t left = len - sizeof *h;

	extra = (struct request_extra){0};
	switch (h->opcode) {
	case FUSE_INIT: {
		const struct fuse_init_in *in = body;
		if (left >= offsetof(struct fuse_init_in, flags) + sizeof in->flags) {
			atomic_store(&fs->init_unique, h->unique);
			fs->kill_v2 = in->flags & FUSE_HANDLE_KILLPRIV_V2;
		}
		break;
	}
	case FUSE_WRITE: {
		const struct fuse_write_in *in = body;
		if (left >= sizeof *in)
			extra.kill = in->write_flags & FUSE_WRITE_KILL_SUIDGID;
		break;
	}
	case FUSE_SETATTR: {
		const struct fuse_setattr_in *in = body;
		if (left >= sizeof *in)
			extra.kill = in->valid & FATTR_KILL_SUIDGID;
		break;
	}
	case FUSE_TMPFILE:
		/* Their bodies and answers are the same. */
		h->opcode = FUSE_CREATE;
		extra.tmpfile = true;
		break;
	default:
		break;
	}
}

static ssize_t dev_read(int fd, void *buf, size_t len, void *arg)
{
	ssize_t n = read(fd, buf, len);

	if (n >= (ssize_t)sizeof(struct fuse_in_header))
		peek(arg, buf, (size_t)n);
	return n;
}

/* The answer to INIT with the flag that libfuse does not know. */
static ssize_t answer_init(struct fs *fs, int fd, const struct iovec *iov)
{
	struct fuse_init_out out;
	struct iovec with[2] = {iov[0], {&out, iov[1].iov_len}};

	memcpy(&out, iov[1].iov_base, iov[1].iov_len);
	if (fs->kill_v2)
		out.flags |= FUSE_HANDLE_KILLPRIV_V2;
	ssize_t n = writev(fd, with, 2);
	if (n >= 0)
		serve_ready(fs);
	return n;
}

static ssize_t dev_writev(int fd, struct iovec *iov, int cnt, void *arg)
{
	const struct fuse_out_header *h = iov[0].iov_base;
	struct fs *fs = arg;

	if (h->unique && h->unique == atomic_load(&fs->init_unique)) {
		atomic_store(&fs->init_unique, 0);
		if (cnt == 2 && iov[1].iov_len <= sizeof(struct fuse_init_out) &&
		    iov[1].iov_len >= offsetof(struct fuse_init_out, max_background))
			return answer_init(fs, fd, iov);
		fs->kill_v2 = false;
	}
	return writev(fd, iov, cnt);
}

static struct statx_timestamp statx_time(int64_t ns)
{
	struct timespec ts = fs_timespec(ns);

	return (struct statx_timestamp){.tv_sec = ts.tv_sec, .tv_nsec = (uint32_t)ts.tv_nsec};
}

static void answer_statx(struct fs *fs, const struct fuse_in_header *in)
{
	struct statx_answer a = {.h = {.len = sizeof a, .unique = in->unique},
				 .valid_s = SERVE_KEEP_S};
	struct stat st;
	int64_t btime;
	int err = fs_getattr(fs, in->nodeid, &st, &btime);

	if (err) {
		a.h.len = sizeof a.h;
		a.h.error = err;
	} else {
		a.sx = (struct statx){
			.stx_mask = STATX_BASIC_STATS | STATX_BTIME,
			.stx_blksize = (uint32_t)st.st_blksize,
			.stx_nlink = (uint32_t)st.st_nlink,
			.stx_uid = st.st_uid,
			.stx_gid = st.st_gid,
			.stx_mode = (uint16_t)st.st_mode,
			.stx_ino = st.st_ino,
			.stx_size = (uint64_t)st.st_size,
			.stx_blocks = (uint64_t)st.st_blocks,
			.stx_atime = statx_time(fs_time_ns(&st.st_atim)),
			.stx_btime = statx_time(btime),
			.stx_ctime = statx_time(fs_time_ns(&st.st_ctim)),
			.stx_mtime = statx_time(fs_time_ns(&st.st_mtim)),
			.stx_rdev_major = major(st.st_rdev),
			.stx_rdev_minor = minor(st.st_rdev),
		};
	}
	/* It fails when nobody waits for it any more. */
	if (write(fuse_session_fd(fs->se), &a, a.h.len) < 0)
		log_debug("an answer did not arrive: %s", strerror(errno));
}

bool device_answer(struct fs *fs, const void *request)
{
	const struct fuse_in_header *h = request;

	if (h->opcode != OP_STATX)
		return false;
	answer_statx(fs, h);
	return true;
}

bool device_is_forget(const void *request)
{
	const struct fuse_in_header *h = request;

	return h->opcode == FUSE_FORGET || h->opcode == FUSE_BATCH_FORGET;
}

const struct fuse_custom_io device_io = {.read = dev_read, .writev = dev_writev};
