/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * fuse: the mounted tree: decode a kernel request, call cache/, reply.  Low-level libfuse
 * API, several threads.  The one place where errors of the lower layers become the errno a
 * program sees (ENODATA/EBADMSG/ETIMEDOUT of contents -> EIO, ...).
 *
 * The kernel does the permission checks (default_permissions) and the locks (flock, fcntl:
 * one machine), and caches entries, attributes, listings and pages for as long as it likes:
 * nothing but this mount changes the tree, and what does (store.inval) invalidates.
 */
#ifndef HOLDFAST_FS_FUSE_H
#define HOLDFAST_FS_FUSE_H

#include "cache/store.h"
#include "fs/owner.h"

struct fs_opts {
	const char *fsname; /* shown in /proc/mounts */
	bool allow_other, read_only, debug;
	bool noatime;	  /* else relatime semantics */
	bool dev, suid;	  /* honour device nodes and set-id bits: only root may ask */
	bool noexec;
	unsigned threads; /* 0: 4 */
	struct owners owners; /* the caller's, until fs_free */
};

struct fs;
/* The session and the mount itself; the store must be open, may be started later. */
int fs_mount(struct fs **out, struct store *st, const char *dir, const struct fs_opts *o);
/* Serves until the mount is gone or fs_stop was called: 0 or -errno. After daemonizing. */
int fs_loop(struct fs *fs);
/*
 * Until fs_unmount: whether the kernel still has the mount.  When it is gone, fs_loop returns
 * soon, but what is being served then comes first.
 */
bool fs_mounted(struct fs *fs);
/* From any thread or a signal handler's thread: makes fs_loop return soon. */
void fs_stop(struct fs *fs);
/* Requests do not wait for nodes any more: those that do, or would, are an error (EIO). */
void fs_hurry(struct fs *fs, bool hurry);
/* Unmounts, while fs_loop serves or after; -EBUSY when it is in use and not lazy. */
int fs_unmount(struct fs *fs, bool lazy);
/* After fs_loop and fs_unmount: what was unlinked while in use is freed. */
void fs_free(struct fs *fs);

#endif
