/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * health: what is thought of a node, from what happened with it.  No I/O, no clock, no
 * locks: times (now_ms) are passed in, the owner of the struct guards it.
 *
 * A state changes by evidence only, and with hysteresis: one late answer makes nobody SLOW,
 * one failed read nobody DOWN, and a node that went down again soon after it came back has
 * to be verified several times in a row before it is trusted with requests.
 *
 *	from		to	 by
 *	any		DOWN	 a vanished place at once; 2 time-outs, 3 I/O errors in a row
 *	any		WRONG	 a marker that is missing or foreign
 *	DOWN, WRONG	UP	 verified
 *	UP		SLOW	 3 late answers in a row;  back: 3 in time
 *	UP, SLOW	FULL	 no space;  back: a PUT, room again, or 5 minutes; where
 *				 nobody says how much room there is 5 s, twice as long each
 *				 time, a minute at most
 *	UP, SLOW	REFUSING no permission;  back: a PUT, verified
 *				 3 writes in a row that failed, whatever is read meanwhile;
 *				 back: a PUT, or verified when 5 s have gone, twice as long
 *				 each time, a minute at most
 *	UP, SLOW	LYING	 bytes that are not genuine;  back: 10 minutes without
 */
#ifndef HOLDFAST_NET_HEALTH_H
#define HOLDFAST_NET_HEALTH_H

#include "net/node.h"

#define HEALTH_HIST	    64
#define HEALTH_HEDGE_FLOOR  20
#define HEALTH_HEDGE_CAP    1000
#define HEALTH_LATE_LIMIT   3
#define HEALTH_LIE_MS	    600000
#define HEALTH_FULL_MS	    300000
#define HEALTH_FLAP_MS	    30000
#define HEALTH_UNKEPT	    3	  /* writes that failed in a row */
#define HEALTH_DOUBT	    2	  /* from so many on nobody counts on a write there */
#define HEALTH_KEEP_MIN_MS  5000  /* how long one that keeps nothing more is not written to */
#define HEALTH_KEEP_MAX_MS  60000
#define HEALTH_RATE_LEN	    32768 /* shorter transfers say nothing about the rate */

struct health {
	enum node_state state;
	uint32_t took_ms[HEALTH_HIST]; /* of reads, a ring */
	unsigned cnt, at;
	uint32_t first_ms[HEALTH_HIST]; /* the same to the first byte; empty for directories */
	unsigned first_cnt, first_at;
	double up_rate, down_rate; /* bytes/s of single transfers, smoothed; 0: not known */
	unsigned timeouts, fails; /* in a row */
	unsigned lates, goods;	  /* in a row */
	unsigned proofs;	  /* verified in a row, while down */
	unsigned flaps;
	unsigned unkept;  /* writes that failed, with none that was kept between */
	unsigned refused; /* how often it was REFUSING for that or FULL, soon after another */
	int64_t up_ms, lied_ms, full_ms, refused_ms; /* when it last became that */
	uint64_t full_free;		 /* bytes free when it became full */
};

void health_init(struct health *h);
/* A request was answered; took_ms < 0 when it says nothing about reads, which had len bytes;
 * put: bytes were kept. */
void health_ok(struct health *h, int64_t took_ms, size_t len, bool put, int64_t now);
/* One transfer: its first byte came after first_ms, all len after ms more. */
void health_measure(struct health *h, bool up, int64_t first_ms, size_t len, int64_t ms);
/* p95 to the first byte and len at the rate of late. */
int64_t health_expect_ms(const struct health *h, size_t len);
/* A request failed with err; put: it was to keep bytes; free_bytes as last known. */
void health_fail(struct health *h, int err, bool put, uint64_t free_bytes, int64_t now);
/* Its last writes failed, even if it answers all else: it takes more, but is not counted on. */
bool health_doubted(const struct health *h);
void health_late(struct health *h);
void health_lied(struct health *h, int64_t now);
/* The place was verified with this result (see node_verify). */
void health_verified(struct health *h, int err, int64_t took_ms, uint64_t free_bytes,
		     uint64_t total_bytes, int64_t now);
/* It was verified since it went down, and not yet so often that it is trusted again. */
bool health_returning(const struct health *h);
/* A quantile of the last reads, per cent; 0 without history. */
uint32_t health_quantile(const struct health *h, unsigned percent);
int64_t health_hedge_ms(const struct health *h);

#endif
