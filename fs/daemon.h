/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * daemon: the life of a mount.
 *
 *   start  keys, log, signals blocked, store (its lock), nodes, the mount point, threads,
 *          control socket, signal thread, "ready"
 *   serve  until umount, a signal, or the kernel ends it
 *   stop   mount point gone (no more changes), publish for at most a minute, control socket,
 *          publisher, store, nodes
 *
 * The mount is ready before any node was found well: it works without nodes.  What is not
 * published when it ends stays in the store and is published after the next start.
 */
#ifndef HOLDFAST_FS_DAEMON_H
#define HOLDFAST_FS_DAEMON_H

#include "fs/config.h"
#include "fs/fuse.h"

struct daemon_opts {
	const char *mountpoint; /* absolute */
	const char *pass_file;
	const char *credentials; /* a file that replaces what is kept; NULL */
	bool untried;		 /* whatever the servers say to them */
	uint64_t cache_size;
	uint64_t quota; /* with set_quota: the drive's from now on, 0: none */
	bool set_quota;
	uint64_t up_limit, down_limit; /* bytes/s to and from all servers together; 0: none */
	uint64_t repair_limit; /* bytes/s of rebuilding and moving shards; 0: any */
	uint64_t scrub_limit;  /* bytes/s that verifying in the background reads; 0: usual */
	unsigned interval_ms;
	bool fsync_remote;
	bool again; /* after a death: what is left of the last mount is cleared */
	struct fs_opts fs;
};

/*
 * Takes cfg over.  ready_fd >= 0: in the background; "" is written to it when the mount can
 * be used, and standard streams go to /dev/null and the log file then; ready_fd is closed.
 * No other thread may exist.  0 after an orderly end, else -errno with a log line.
 */
int daemon_run(struct config *cfg, const struct daemon_opts *o, int ready_fd);

/* Its parts, for who runs it more than once (supervise.h). */
int daemon_keys(const struct config *cfg, const struct daemon_opts *o, struct keys **out);
/* background: a session of its own, and the log file; else the log goes to standard error. */
int daemon_log(const struct config *cfg, const struct daemon_opts *o, bool background);
/* daemon_run without asking for keys; it takes cfg and keys over. */
int daemon_serve(struct config *cfg, struct keys *keys, const struct daemon_opts *o,
		 int ready_fd);
/* Standard streams to /dev/null and the log; "" is written to ready_fd, which is closed. */
void daemon_detach(int ready_fd);

#endif
