/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * nlookup: how many references the kernel holds to each inode, 16 bytes an inode, and
 * whether the inode lost a name meanwhile, so that only such inodes are looked at when the
 * kernel forgets them.
 *
 * Open addressing with linear probing; removal shifts the followers back (Knuth, TAOCP 6.4,
 * algorithm R), so there are no tombstones; tables grow and shrink.  Sharded, each shard has
 * its own mutex, which is a leaf: nothing else is taken under it.
 */
#ifndef HOLDFAST_FS_NLOOKUP_H
#define HOLDFAST_FS_NLOOKUP_H

#include "net/base.h"

struct nlookup;

int nlookup_new(struct nlookup **out);
void nlookup_free(struct nlookup *nl);

/* n more references.  0 or -ENOMEM, and nothing has changed then.  ino is not 0. */
int nlookup_add(struct nlookup *nl, uint64_t ino, uint64_t n);
/* n fewer.  True when that was the last and the inode lost a name: the caller reaps it. */
bool nlookup_sub(struct nlookup *nl, uint64_t ino, uint64_t n);
/* The inode lost a name.  True when the kernel does not know it: the caller reaps it now. */
bool nlookup_unlinked(struct nlookup *nl, uint64_t ino);
uint64_t nlookup_count(struct nlookup *nl, uint64_t ino);
/* Inodes the kernel knows. */
size_t nlookup_size(struct nlookup *nl);
/* Forgets all; cb is called for those that lost a name.  No other call may be under way. */
void nlookup_drain(struct nlookup *nl, void (*cb)(void *arg, uint64_t ino), void *arg);

#endif
