/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * rebuild: a new database from the nodes, in the place of a damaged one.  Nothing local is
 * thrown away: the old database and all contents are kept beside the new ones.
 */
#ifndef HOLDFAST_FS_REBUILD_H
#define HOLDFAST_FS_REBUILD_H

#include "fs/config.h"

struct rebuilt {
	char *database, *data; /* where the old ones are now */
	char *salvaged;	       /* files that were not published; NULL: none */
	uint64_t named, unnamed;
};
/* The volume must not be mounted (-EBUSY).  On an error all is as it was before. */
int rebuild_run(const struct config *cfg, const char *pass_file, struct rebuilt *out);
void rebuilt_release(struct rebuilt *r);

#endif
