/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * lane: how many bulk requests are under way to a server, one way: a pure function of
 * (history, time).  No I/O, no clock, no locks; the owner counts and passes the time.
 *
 * Two connections keep a link full; more only share it, and unfairly, so that one takes
 * several times as long as the others, and what waits for it waits.  So few are under way and
 * the rest stands in line.  Where one connection does not get what the link has (loss, a long
 * way, a server that gives each its share) more of them do: that is tried while there is a
 * line, and kept when more bytes come.  A trial that was in vain is repeated later, each time
 * after twice as long.
 */
#ifndef HOLDFAST_NET_LANE_H
#define HOLDFAST_NET_LANE_H

#include "net/base.h"

struct lane {
	unsigned running; /* under way */
	uint64_t moved;	  /* bytes, ever */
	unsigned streams; /* how many may be */
	unsigned trial;	  /* streams before the trial; 0: none */
	double rate;	  /* bytes/ms before it */
	int64_t since_ms; /* there is a line since; 0: there is none */
	int64_t mark_ms;  /* bytes count since; 0: not yet */
	uint64_t mark_moved;
	int64_t next_ms, pause_ms; /* no trial before; how long that was */
};

void lane_init(struct lane *l);
/* Whether one more may be begun; most: what the server bears. */
bool lane_room(const struct lane *l, unsigned most);
/* To be called now and then, twice a second; line: how many wait. */
void lane_tick(struct lane *l, unsigned line, unsigned most, int64_t now);

#endif
