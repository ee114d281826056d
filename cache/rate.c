/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * How fast this drive publishes, from the segments that are stored, whoever stores them; and
 * so what is huge: a file that would take more than HUGE_S.  Time counts only while something
 * is on its way, and not when it had to wait for nodes.
 */
#include "cache/cut.h"

#define HUGE_S	   5
#define HUGE_LEAST ((uint64_t)8 << 20) /* also while nothing is known */
#define LOW_LEAST  ((uint64_t)4 << 20)
#define SEGMENT_S  4		       /* what is on its way is lost in a crash */
#define SEG_LEAST  ((uint64_t)4 << 20) /* smaller ones would be too many for ever */
#define WINDOW_MS  2000
#define WINDOW_LEN ((uint64_t)32 << 20)

void rate_begin(struct publisher *p)
{
	pthread_mutex_lock(&p->lock);
	if (!p->rate_busy++)
		p->rate_since_ms = now_ms();
	pthread_mutex_unlock(&p->lock);
}

void rate_end(struct publisher *p, uint64_t bytes)
{
	pthread_mutex_lock(&p->lock);
	int64_t now = now_ms();

	p->rate_busy--;
	p->rate_ms += now - p->rate_since_ms;
	p->rate_since_ms = now;
	p->rate_bytes += bytes;
	if (!bytes) {
		p->rate_ms = 0;
		p->rate_bytes = 0;
	} else if (p->rate_ms > 0 && (p->rate_ms >= WINDOW_MS || p->rate_bytes >= WINDOW_LEN)) {
		uint64_t seen = p->rate_bytes * 1000 / (uint64_t)p->rate_ms, was = p->rate;

		p->rate = was ? (was + seen) / 2 : seen;
		p->rate_ms = 0;
		p->rate_bytes = 0;
	}
	pthread_mutex_unlock(&p->lock);
}

uint64_t ahead_min(const struct publisher *p)
{
	uint64_t rate = p->rate;

	if (p->opts.ahead_min)
		return p->opts.ahead_min;
	return HF_MIN(HF_MAX(HF_MIN(rate, HUGE_MAX) * HUGE_S, HUGE_LEAST), HUGE_MAX);
}

uint64_t ahead_low(const struct publisher *p)
{
	uint64_t low = ahead_min(p) / 4;

	if (!p->opts.ahead_min)
		low = HF_MAX(low, LOW_LEAST);
	return HF_MIN(low, (uint64_t)SEG_MAX_LEN);
}

uint64_t ahead_seg(const struct publisher *p)
{
	uint64_t rate = p->rate;

	if (p->opts.ahead_min)
		return ahead_low(p);
	if (!rate)
		return SEG_MAX_LEN;
	return HF_MIN(HF_MAX(HF_MIN(rate, HUGE_MAX) * SEGMENT_S, SEG_LEAST),
		      (uint64_t)SEG_MAX_LEN);
}
