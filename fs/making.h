/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * making: what a create is about to make is written down in the volume's directory before it
 * is made, so that the next create of that name undoes one that was killed.  volume.json,
 * which makes it a volume, comes last; where that is, nothing is ever undone.
 */
#ifndef HOLDFAST_FS_MAKING_H
#define HOLDFAST_FS_MAKING_H

#include <stdbool.h>
#include "net/creds.h"
#include "net/keys.h"

struct making_node {
	uint16_t number;
	const char *path; /* of a directory; else NULL */
	bool made;	  /* the directory was not there before */
	const char *url;  /* of a server; else NULL */
};
/* The list, read back; what it points to is its own. */
struct making {
	uint8_t vol[VOL_LEN];
	const char *kit;
	struct making_node *node;
	size_t cnt;
	void *text;
};

/* Writes dir/making; kit is the path where the kit will be.  A log line on errors. */
int making_write(const char *dir, const uint8_t vol[VOL_LEN], const char *kit,
		 const struct making_node *node, size_t cnt);
void making_done(const char *dir);
/* -EBADMSG for what making_write does not write; -ENOMEM. */
int making_parse(const char *text, size_t len, struct making *out);
void making_release(struct making *m); /* zeroed ones allowed */
/*
 * Undoes what a killed create left in dir and on its nodes, and removes dir.  On a node only
 * what stands beside this volume's own marker goes; the marker goes last.  creds open those
 * that are servers (may be NULL).  -EEXIST when dir is not what a create leaves; nothing has
 * changed then.  When a server cannot be cleared dir stays as it is, for the next time:
 * -errno of that with a log line.  The caller has the lock of the state directory.
 */
int making_undo(const char *dir, struct creds *creds);
/*
 * The same for one server: 0 when nothing of this volume is there any more; else -errno with
 * a log line.
 */
int making_clear_server(uint16_t number, const char *url, const uint8_t vol[VOL_LEN],
			struct creds *creds);

/* Removes the blobs of a node in this directory, and what stands beside them stays. */
void making_clear_node(const char *path);
/*
 * The lock of a directory that something is being made in, for as long as *fd is open:
 * -EAGAIN when another process has it.  Where the file system has no locks, 0 without one.
 */
int making_lock(const char *dir, int *fd);

#endif
