/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * mounts: what the kernel says is mounted where (/proc/self/mountinfo), and unmounting as
 * root or, with fusermount3, as a user.
 */
#ifndef HOLDFAST_FS_MOUNTS_H
#define HOLDFAST_FS_MOUNTS_H

#include <sys/types.h>
#include "net/base.h"

#define MOUNT_SOURCE "holdfast:" /* then the volume's name */

/*
 * The absolute path of a mount point, also of one whose process was killed or does not answer
 * (it is not touched then, only its directory above).  0 with *out malloc'ed, or -errno.
 */
int mounts_path(const char *dir, char **out);
/*
 * Is a volume of ours mounted on path (as mounts_path gives it)?  The topmost mount counts.
 * 1 with its name (64 bytes), 0 nothing of ours, -errno.
 */
int mounts_find(const char *path, char name[64]);
/* True when the kernel says that the process of the mount is gone (ENOTCONN, ECONNABORTED). */
bool mounts_stale(const char *path);
/* 0; -EBUSY; -EPERM; other -errno, without a log line. */
int mounts_umount(const char *path, bool lazy);
/*
 * Unmounts what does not answer: all requests under way end with ECONNABORTED, all later ones
 * with ENOTCONN.  0 or -errno, without a log line.
 */
int mounts_force(const char *path);
/* Has the kernel write what programs changed in mapped pages; for at most timeout_ms. */
void mounts_flush(const char *path, int timeout_ms);
/* Waits for the end of a process that need not be a child: 0 or -ETIMEDOUT. */
int mounts_wait_end(int pid_fd, int timeout_ms);
/* A handle for mounts_wait_end, or -errno (-ESRCH: it has ended). */
int mounts_pid_open(pid_t pid);
int mounts_pid_signal(int pid_fd, int sig);
/* Is fusermount3 where a user's mount needs it? */
bool mounts_have_fusermount(void);

#endif
