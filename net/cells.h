/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * cells: the decrypted cells that were read last, and the meeting point of readers who want
 * the same one: the first to claim a cell fetches it, the others wait for it.
 *
 * The bytes of a cell that is there never change, so they are read without a lock by who
 * holds a reference.  Any thread.
 */
#ifndef HOLDFAST_NET_CELLS_H
#define HOLDFAST_NET_CELLS_H

#include "net/segment.h"

struct cells;
struct cell;

int cells_new(struct cells **out, size_t cap_bytes);
void cells_free(struct cells *c);
/* *out with one reference.  *mine: the caller must call cells_fill or cells_fail. -ENOMEM. */
int cells_claim(struct cells *c, const struct seg_id *id, uint32_t no, struct cell **out,
		bool *mine);
/* Takes p over: malloc'ed, len bytes. */
void cells_fill(struct cells *c, struct cell *e, uint8_t *p, size_t len);
void cells_fail(struct cells *c, struct cell *e, int err);
/* 0 when the cell is there; what its fetcher failed with; -ETIMEDOUT. */
int cells_wait(struct cells *c, struct cell *e, int64_t deadline_ms);
/* Of a cell that is there, or NULL. */
const uint8_t *cell_bytes(const struct cell *e);
void cells_put(struct cells *c, struct cell *e);

#endif
