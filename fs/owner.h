/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * owner: whose the files are on this machine.  A drive keeps numbers of users and groups, and
 * the machine it is mounted on may have given them to other people, or to nobody.
 *
 *   uid=N, gid=N    everything belongs to N here.  What is made belongs, in the drive, to
 *                   whom its directory belongs; owners cannot be changed; set-id bits are
 *                   not shown, since they would be N's.
 *   uid=S:H, gid=S:H   what the drive has of S belongs to H here, and what H makes or is given
 *                   is S's there.  Any number of pairs.  Nobody's files become a stranger's:
 *                   who is in no pair, but has the number of one, takes the number that is
 *                   free (one pair exchanges two numbers).
 *   umask=M         permissions are 0777 less M, for files without any x 0666 less M; set-id
 *                   bits and access lists are neither shown nor enforced.  chmod changes
 *                   whether a file can be executed, and nothing else.
 *
 * The kernel checks permissions by what it is shown here.  Pure functions.
 */
#ifndef HOLDFAST_FS_OWNER_H
#define HOLDFAST_FS_OWNER_H

#include <sys/stat.h>
#include "net/base.h"

struct id_pair {
	uint32_t stored, here;
};
struct ids {
	bool all; /* everything is `as` */
	uint32_t as;
	struct id_pair *pair; /* neither number twice on its side */
	size_t pair_cnt;
};
struct owners {
	struct ids uid, gid;
	bool masked;
	uint32_t umask;
};

/*
 * ids_parse(ids, value): one more "N" or "STORED:HERE".  -EINVAL: not that, or not beside what
 * is there already; -ENOMEM.
 */
int ids_parse(struct ids *ids, const char *value);
/* Three octal digits at most, a leading 0 apart: 0 or -EINVAL. */
int owners_parse_umask(struct owners *o, const char *value);
void owners_release(struct owners *o);

/* A number of the drive's as it is here, and back; each is the other's inverse.  Not with all.
 */
uint32_t ids_here(const struct ids *ids, uint32_t stored);
uint32_t ids_stored(const struct ids *ids, uint32_t here);

/* What the drive has becomes what is shown. */
void owners_show(const struct owners *o, struct stat *st);
uint32_t owners_show_gid(const struct owners *o, uint32_t gid);
/* Whom something new belongs to in the drive; dir: its directory's owner there. */
uint32_t ids_new(const struct ids *ids, uint32_t here, uint32_t dir);
/*
 * chown to `here`: 1 and *stored; 0: nothing is to be changed; -EPERM.  The same for gid.
 */
int ids_chown(const struct ids *ids, uint32_t here, uint32_t *stored);
/* chmod: what becomes of the mode in the drive, with its type; 07777 of `want` count. */
uint32_t owners_chmod(const struct owners *o, uint32_t stored, uint32_t want);

#endif
