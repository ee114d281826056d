/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * salvage: what a damaged database still says of contents that were not published: names
 * for the cache files that are kept, and the small files that live in it.
 */
#ifndef HOLDFAST_CACHE_SALVAGE_H
#define HOLDFAST_CACHE_SALVAGE_H

#include "net/base.h"

/*
 * salvage_files(db, data, out, named, unnamed): for every file that db (a path; it is opened
 * read-only) says has changed since the last publication: a hard link to its cache file below
 * data, or a copy of its bytes, below out (made when there is something to put), under its
 * path in the drive, else as inode-NUMBER.  Where db cannot be read at all, every cache file
 * is linked as inode-NUMBER.  Ranges of a larger file that were not on this disk are zeros.
 * *named and *unnamed count.  0 or -errno; damage of db is no error.
 */
int salvage_files(const char *db, const char *data, const char *out, uint64_t *named,
		  uint64_t *unnamed);

#endif
