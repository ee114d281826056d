/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "net/cond.h"

#include <time.h>

int cond_init(pthread_cond_t *c)
{
	pthread_condattr_t attr;

	int rc = pthread_condattr_init(&attr);
	if (rc)
		return -rc;
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	rc = pthread_cond_init(c, &attr);
	pthread_condattr_destroy(&attr);
	return -rc;
}

int cond_until(pthread_cond_t *c, pthread_mutex_t *lock, int64_t ms)
{
	ms = HF_MAX(ms, (int64_t)0);
	struct timespec ts = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};

	return ms == INT64_MAX ? pthread_cond_wait(c, lock)
			       : pthread_cond_timedwait(c, lock, &ts);
}
