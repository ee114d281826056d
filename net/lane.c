/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "net/lane.h"

#define STREAMS	     2
#define WARM_MS	     1000 /* new connections need a while, and fill buffers here */
#define TRIAL_MS     3000
#define GAIN	     1.15
#define PAUSE_MS     30000
#define PAUSE_CAP_MS 1800000

void lane_init(struct lane *l)
{
	*l = (struct lane){.streams = STREAMS};
}

bool lane_room(const struct lane *l, unsigned most)
{
	return l->running < HF_MIN(l->streams, most);
}

static void judge(struct lane *l, double rate, unsigned most, int64_t now)
{
	if (!l->trial) {
		if (now < l->next_ms || l->streams >= most)
			return;
		l->rate = rate;
		l->trial = l->streams;
		l->streams = HF_MIN(l->streams + HF_MAX(l->streams / 2, 1u), most);
		return;
	}
	if (rate > l->rate * GAIN) {
		l->pause_ms = 0;
	} else {
		l->streams = l->trial;
		l->pause_ms = HF_MIN(HF_MAX(2 * l->pause_ms, (int64_t)PAUSE_MS),
				     (int64_t)PAUSE_CAP_MS);
	}
	l->next_ms = now + l->pause_ms;
	l->trial = 0;
}

void lane_tick(struct lane *l, unsigned line, unsigned most, int64_t now)
{
	if (!line || lane_room(l, most)) {
		/* Without a line the bytes do not say what could have been carried. */
		l->since_ms = l->mark_ms = 0;
	} else if (!l->since_ms) {
		l->since_ms = now;
	} else if (!l->mark_ms) {
		if (now - l->since_ms < WARM_MS)
			return;
		l->mark_ms = now;
		l->mark_moved = l->moved;
	} else if (now - l->mark_ms >= TRIAL_MS) {
		judge(l, (double)(l->moved - l->mark_moved) / (double)(now - l->mark_ms), most,
		      now);
		l->since_ms = l->mark_ms = 0;
	}
}
