/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * members: what `node add|drain|remove|replace` ask of a drive that is open, in the mount or
 * in the command itself.  What is meant is in the database when members_begin returns 0; it
 * is done by the drive, now or after its next start (cache/move.h).
 */
#ifndef HOLDFAST_FS_MEMBERS_H
#define HOLDFAST_FS_MEMBERS_H

#include "cache/move.h"
#include "fs/drive.h"

struct member_change {
	const char *op; /* add, drain, remove, replace */
	const char *node, *url;
	const char *credentials; /* an absolute path, or NULL */
	bool rebalance, lost, wipe;
	uint16_t number; /* set by members_begin: whose end is waited for */
};
/*
 * give_up (may be NULL) is asked while a new place is tried: -ECANCELED then, nothing has
 * changed, and what the trial left at the place is removed or named in the log line.
 */
int members_begin(struct drive *d, struct member_change *c, bool (*give_up)(void *arg),
		  void *arg);
/*
 * members_login(d, file, untried): what file has replaces what is kept, profile by profile; the open
 * nodes use it at once, and the list of nodes that lies on them gets it, sealed.  The result must
 * be complete, or nothing has changed: -errno with a log line.
 */
int members_login(struct drive *d, const char *file, bool untried);
/* The last step alone, for a drive that was opened with others.  It can wait: no error. */
void members_tell_creds(struct drive *d);
/*
 * Until it is done: 0; -ETIMEDOUT when nothing has moved for a minute, -ECANCELED when
 * give_up says so, each with a log line; what progress returns when that is not 0.
 */
int members_wait(struct drive *d, const struct member_change *c, bool (*give_up)(void *arg),
		 int (*progress)(void *arg, const struct move_status *ms), void *arg);

#endif
