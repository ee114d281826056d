/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * probe: can this place be a node?  Before a place is marked everything that a node is asked
 * for is tried on it: writing, the same bytes once more (as after a lost answer), reading
 * them, a part of them, a listing that shows them, a name that is not there, deletion.  What
 * it answers is compared, not believed.
 *
 * The blobs of a probe are two, "v/p..." with names that follow from the volume and the
 * number of the node: who knows these can clear away what a killed probe left, and a blob of
 * one node that another lists shows that both are one place.  Nothing stays behind where
 * deletion is allowed.
 */
#ifndef HOLDFAST_NET_PROBE_H
#define HOLDFAST_NET_PROBE_H

#include "net/node.h"

#define PROBE_PREFIX "v/p"
#define PROBE_SMALL  4096u
#define PROBE_BIG    (1u << 20)

struct probe_result {
	int err;	/* 0: it can serve */
	char why[640];	/* what it cannot, what it said, what to do; "" */
	char warn[640]; /* it can serve, but; "" */
	bool wrote;	/* something of the probe may have got there */
	size_t same;	/* the node before it in node[] that is the same place; else SIZE_MAX */
	unsigned put_ms, get_ms;     /* PROBE_SMALL bytes, the better of two; of one */
	uint64_t up_rate, down_rate; /* bytes/s with PROBE_BIG bytes; 0: not known */
	uint64_t free_bytes, total_bytes; /* 0: not known */
};

/*
 * probe_run(node, cnt, vol, deadline_ms, out): all at the same time, out[i] for node[i]; no
 * request of any goes on behind the deadline.  A place that is marked already is an error
 * unless it is this very node of this volume.  give_up (may be NULL) is asked twice a second
 * at least: then what is under way ends, and blobs may be left where out[i].wrote.  Returns how many
 * cannot serve; -ECANCELED given up; -ENOMEM.
 */
int probe_run(struct node *const node[], size_t cnt, const uint8_t vol[VOL_LEN],
	      int64_t deadline_ms, bool (*give_up)(void *arg), void *arg, struct probe_result out[]);
/*
 * As the addresses say: 0 two places, 1 the same, 2 one lies within the other.  Addresses
 * that are not well-formed overlap with nothing.  Two names of one host are not known here:
 * a probe sees them.
 */
int probe_overlap(const char *url_a, const char *url_b);
/* The names of the two blobs. */
void probe_names(const uint8_t vol[VOL_LEN], uint16_t number, char small[BLOB_NAME_CAP],
		 char big[BLOB_NAME_CAP]);

#endif
