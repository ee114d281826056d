/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * quota: how many bytes of contents the drive may hold.  The number is an attribute of the
 * root that no program sees, so it is published and recovered with everything else.
 *
 * What is used is the bytes that extents name, each as often as named (segment.live), and
 * those that are not published yet; published bytes that were overwritten count twice until
 * the new ones are published.  A write that adds nothing is never refused, nor is anything
 * that frees.  Names, attributes and what the nodes keep besides (parity) do not count.
 *
 * Locks: st->meta, which the calls take themselves unless their name ends in _locked.
 */
#ifndef HOLDFAST_CACHE_QUOTA_H
#define HOLDFAST_CACHE_QUOTA_H

#include "cache/store.h"

#define QUOTA_XATTR "holdfast.quota"

/* Part of store_open: what the root says. */
int quota_open_locked(struct store *st);
/* From now on and after every mount; 0: none.  -EROFS, -EIO, ... */
int quota_set(struct store *st, uint64_t bytes);
/* 0 when there is none. */
uint64_t quota_get(struct store *st, uint64_t *used);

/* -EDQUOT when bytes more would pass it.  See data_quota of datafile.h, too. */
int quota_check_locked(const struct store *st, uint64_t more);

#endif
