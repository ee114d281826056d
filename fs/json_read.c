/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "fs/json_read.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

/* Never touched while there is memory; more than any text needs that this program writes. */
#define RESERVE ((size_t)16 << 20)
#define ALIGN	16

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static _Alignas(ALIGN) uint8_t reserve[RESERVE];
static size_t used;	      /* guarded by lock, as the reserve is */
static __thread bool reading; /* this thread holds lock */

static void *get(size_t len)
{
	void *p = malloc(len);

	if (p || !reading || len > RESERVE - used)
		return p;
	p = reserve + used;
	used += (len + ALIGN - 1) / ALIGN * ALIGN;
	return p;
}

static void let_go(void *p)
{
	/* What is in the reserve goes with all of it. */
	if ((uintptr_t)p - (uintptr_t)reserve >= RESERVE)
		free(p);
}

/* Before there is a second thread. */
__attribute__((constructor)) static void begin(void)
{
	json_set_alloc_funcs(get, let_go);
}

json_t *json_read(const void *text, size_t len, json_error_t *e)
{
	pthread_mutex_lock(&lock);
	reading = true;
	json_t *j = json_loadb(text, len, JSON_REJECT_DUPLICATES, e);
	if (used) {
		json_decref(j);
		j = NULL;
		used = 0;
		if (e)
			snprintf(e->text, sizeof e->text, "out of memory");
	}
	reading = false;
	pthread_mutex_unlock(&lock);
	return j;
}
