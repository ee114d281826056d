/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * member: the nodes and devices of the volume as rows, so that commits and snapshots carry
 * them, and what this machine knows of rosters (net/roster.h).
 *
 * The rows of `node` say what is meant to be.  Settings in kv:
 *   roster        the newest roster that took effect, as net/roster.h's body without addresses
 *                 and secrets: generation u64, then number u16 and member u8 of each node;
 *                 absent: the list of the header, as generation 0
 *   roster_due    1: the rows differ from it, so the next one must take effect before they do
 *   leave_N       node N is to be removed: 1 when nothing is on it any more, 2 it is lost
 *   heir_N        all that is on node N goes to this one, then N is removed
 *   rebalance     1: shards are moved to where new ones would be placed
 */
#ifndef HOLDFAST_CACHE_MEMBER_H
#define HOLDFAST_CACHE_MEMBER_H

#include "cache/store.h"
#include "net/record.h"
#include "net/roster.h"

/*
 * What differs from the rows is written and goes out with the next cut: an address, a node
 * or device that has no row.  What a node is stays as its row says.  0 or -EIO.
 */
int member_put(struct store *st, const struct node_spec *node, size_t node_cnt,
	       const struct rec_device *device, size_t device_cnt);

/* The address of a node as a row has it; *url is malloc'ed.  0, -ENOENT, -ENOMEM, -EIO. */
int member_url(struct store *st, uint16_t number, char **url);

/*
 * All rows of nodes, ascending, those that are gone too; urls malloc'ed, freed with the list
 * by member_list_free.  0, -ENOMEM, -EIO.  meta is not held; in _locked it is.
 */
int member_list(struct store *st, struct node_spec **out, size_t *cnt);
int member_list_locked(struct store *st, struct node_spec **out, size_t *cnt);
void member_list_free(struct node_spec *list, size_t cnt);

/* A row of a node; url NULL: as it is.  The next cut has it.  meta held. */
int member_set_locked(struct store *st, uint16_t number, const char *url, uint8_t member);
/* Exactly these nodes: what a roster says after a recovery.  Takes meta. */
int member_take_roster(struct store *st, const struct roster *r);

/* The roster of kv "roster", without addresses; -ENOENT none.  meta held. */
int member_roster_locked(struct store *st, struct roster *out);
int member_keep_roster_locked(struct store *st, const struct roster *r);
/* A number of kv, 0 when absent; one with a node's number behind its name; meta held. */
uint64_t member_kv_locked(struct store *st, const char *name, uint16_t number);
int member_put_kv_locked(struct store *st, const char *name, uint16_t number, uint64_t value);

/*
 * How a volume that is about to be opened has to see its nodes: rows over `node` of the
 * configuration.  A node that no roster knows yet is left out; one that a roster still knows,
 * though its row says gone, is leaving.  *out as member_list's.
 */
int member_specs(struct store *st, struct node_spec **out, size_t *cnt);

/* One device, if its row differs; chg is its epoch.  meta held. */
int member_device_locked(struct store *st, const struct rec_device *d, uint64_t chg);

/* Adds to h->seen, which the caller frees, where each other device's chain ends.  meta held. */
int member_seen_locked(struct store *st, struct hist_head *h);

#endif
