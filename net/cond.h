/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * cond: conditions that are waited for until a deadline of now_ms(), which no change of the
 * machine's time moves.
 */
#ifndef HOLDFAST_NET_COND_H
#define HOLDFAST_NET_COND_H

#include <pthread.h>
#include "net/base.h"

int cond_init(pthread_cond_t *c); /* 0 or -errno */
/* Under the lock: 0 when it was signalled (or for nothing), ETIMEDOUT.  INT64_MAX: for ever. */
int cond_until(pthread_cond_t *c, pthread_mutex_t *lock, int64_t ms);

#endif
