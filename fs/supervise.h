/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * supervise: a process that only watches over the one that serves a mount, and starts another
 * on the same mount point when that one dies (mount --supervise).
 *
 * It holds the keys, so that nobody needs to be asked again, but no store, no thread and no
 * node.  An orderly end (umount, a signal to either process) ends it too.  After
 * SUPERVISE_TRIES deaths in a row, none of which came after ten seconds of service, it gives up
 * and leaves the dead mount point: an error is better than programs that write beside the
 * drive.  The next mount clears it.
 *
 * The file `supervise` in the volume's directory, locked (fcntl) by the supervisor as long as
 * it lives, holds the mount point: so who unmounts finds it, also while no mount is there.
 */
#ifndef HOLDFAST_FS_SUPERVISE_H
#define HOLDFAST_FS_SUPERVISE_H

#include "fs/daemon.h"

#define SUPERVISE_TRIES 5

/* As daemon_run, but returns when supervision ends. */
int supervise_run(struct config *cfg, const struct daemon_opts *o, int ready_fd);

/* The supervisor of the volume in dir, or 0. */
pid_t supervise_pid(const char *dir);
/*
 * Tells it that the mount shall end: a handle for mounts_wait_end, or -ESRCH when there is
 * none.  It passes that on to the mount, which publishes and ends; it starts no other.
 */
int supervise_end(const char *dir);
/* 1 with the directory of the volume that is kept on path, malloc'ed; 0; -errno. */
int supervise_find(const char *path, char **dir);

#endif
