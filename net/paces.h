/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * paces: how fast each node of a volume answers (choose.h), shared by all readers.  Known
 * from reads alone and forgotten with the process.  Any thread; never waits.
 */
#ifndef HOLDFAST_NET_PACES_H
#define HOLDFAST_NET_PACES_H

#include "net/choose.h"
#include "net/node.h"

struct paces;

int paces_new(struct paces **out);
void paces_free(struct paces *ps); /* NULL allowed */

/*
 * paces_begin(ps, n, len, look_ms, late_ms): a read of len bytes is sent to node n.  *look_ms,
 * *late_ms: the times of pace_look_ms and pace_late_ms.  Returns the bytes under way before it,
 * for paces_end.
 * paces_end: it has ended at end_ms, having begun with its submission.
 * paces_leave: a small one is not wanted any more, but what becomes of it is (node_wait_leave,
 * which says what is returned; late: it was).
 */
uint64_t paces_begin(struct paces *ps, struct node *n, size_t len, int64_t *look_ms,
		     int64_t *late_ms);
void paces_end(struct paces *ps, const struct node_io *io, size_t len, uint64_t ahead,
	       int64_t end_ms, enum pace_end how);
bool paces_leave(struct paces *ps, struct node_wait *w, struct node_io *io, size_t len,
		 uint64_t ahead, bool late);
/* How long a read of len bytes would take now, for each of cnt nodes; NULL ones are left out.
 */
void paces_expect(struct paces *ps, struct node *const n[], unsigned cnt, size_t len,
		  int64_t expect_ms[]);
/* How long what was sent to it when `ahead` was under way, and has not begun to come, will take. */
int64_t paces_left(struct paces *ps, struct node *n, size_t len, uint64_t ahead);
/*
 * Of all the nodes that can be read together: bytes in a millisecond.  *over_ms (may be NULL):
 * what an answer of one takes beyond its bytes, the median.
 */
uint64_t paces_rate(struct paces *ps, struct node *const n[], size_t cnt, int64_t *over_ms);

/* Whether the node was left behind by the others when it was last written to. */
void paces_lag(struct paces *ps, struct node *n, bool lags);
bool paces_lags(struct paces *ps, struct node *n);

#endif
