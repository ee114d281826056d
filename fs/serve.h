/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * serve: the mount itself and the threads that serve it (serve.c), and what they read from
 * and write to /dev/fuse (device.c).  fuse.c has the table of operations.
 *
 * libfuse 3.14 drops what it does not know of: the kernel's word on whether a change takes
 * the set-id bits away (FUSE_HANDLE_KILLPRIV_V2, without which every write costs a GETXATTR
 * of security.capability), files without a name (O_TMPFILE), times of birth (STATX).  So
 * requests are looked at as they come in, and the answer to FUSE_INIT as it goes out
 * (fuse_session_custom_io).
 */
#ifndef HOLDFAST_FS_SERVE_H
#define HOLDFAST_FS_SERVE_H

#include "fs/fs.h"

#define SERVE_THREADS_MAX 128	/* a request may wait for nodes; others must find a thread */
#define SERVE_KEEP_S	  86400 /* how long the kernel may keep what it was told */

/* What libfuse does not pass on of the request this thread has in hand. */
struct request_extra {
	bool kill;    /* WRITE, SETATTR: the set-id bits go */
	bool tmpfile; /* CREATE: it was a TMPFILE */
};
const struct request_extra *request_extra_get(void);

struct fuse_custom_io;
extern const struct fuse_custom_io device_io;
/* True: it was a request that libfuse does not know, and it is answered. */
bool device_answer(struct fs *fs, const void *request);
bool device_is_forget(const void *request);
/* The kernel has the answer to FUSE_INIT. */
void serve_ready(struct fs *fs);

struct fuse_lowlevel_ops;
extern const struct fuse_lowlevel_ops fs_ops; /* fuse.c */

#endif
