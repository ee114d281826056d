/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * making: what a create is about to make is written down in the volume's directory before it
 * is made, so that the next create of that name undoes one that was killed.  volume.json,
 * which makes it a volume, comes last; where that is, nothing is ever undone.
 */
#ifndef HOLDFAST_FS_MAKING_H
#define HOLDFAST_FS_MAKING_H

#include <stdbool.h>
#include "net/keys.h"

struct making_node {
	uint16_t number;
	const char *path;
	bool made; /* the directory was not there before */
};

/* Writes dir/making; kit is the path where the kit will be.  A log line on errors. */
int making_write(const char *dir, const uint8_t vol[VOL_LEN], const char *kit,
		 const struct making_node *node, size_t cnt);
void making_done(const char *dir);
/*
 * Undoes what a killed create left in dir and on its nodes, and removes dir.  On a node only
 * what stands beside this volume's own marker goes.  -EEXIST when dir is not what a create
 * leaves; nothing has changed then.  The caller has the lock of the state directory.
 */
int making_undo(const char *dir);

/* Removes the blobs of a node in this directory, and what stands beside them stays. */
void making_clear_node(const char *path);
/*
 * The lock of a directory that something is being made in, for as long as *fd is open:
 * -EAGAIN when another process has it.  Where the file system has no locks, 0 without one.
 */
int making_lock(const char *dir, int *fd);

#endif
