/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * http_impl: what http.c (the thread, hosts, queues) and http_xfer.c (one transfer) share.
 * All of it belongs to the thread, but where it says otherwise.
 */
#ifndef HOLDFAST_NET_HTTP_IMPL_H
#define HOLDFAST_NET_HTTP_IMPL_H

#include <stdatomic.h>
#include "net/http.h"
#include "net/lane.h"

#define HTTP_SMALL (256u << 10) /* what may share a connection with others */

/* Tokens are bytes; what was moved already is taken even when that leaves a debt. */
struct bucket {
	_Atomic uint64_t rate; /* bytes/s, 0: no limit; any thread */
	double tokens;
	int64_t at_ms;
};

struct http_list {
	struct http_req *head, *tail;
	unsigned cnt;
};

struct http_lane {
	struct http_list line;
	struct lane l;
};

struct http_host {
	struct http_host *next;
	char *base, *ca, *username, *password, *bearer;
	bool tls, trust_transport, plain_ok;
	unsigned long auth; /* CURLAUTH_*, 0: none */
	bool auth_known;
	struct digest digest; /* what is answered, when challenge is not 0 */
	unsigned challenge;   /* counts the challenges taken */
	struct http_list small;	  /* in line, before bulk */
	struct http_lane lane[2]; /* of bulk, reads and writes */
	struct http_list later; /* to be repeated at due_ms */
	struct http_list running;
	double window, slow_start;
	int64_t cut_ms;			    /* when the window was cut */
	int64_t hold_ms;		    /* nothing is begun before */
	double base_first_ms, cur_first_ms; /* to the first byte of reads */
	double retries_left;
	struct bucket up, down;
	CURL *idle[HTTP_WINDOW_MAX];
	unsigned idle_cnt;
	bool no_range;
	/* Guarded by the lock of the engine: */
	struct http_stats stats;
	unsigned alive; /* requests and tasks that are not done */
};

void http_list_add(struct http_list *l, struct http_req *r);
void http_list_del(struct http_list *l, struct http_req *r);

static inline bool http_bulk(const struct http_req *r)
{
	return r->body_len > HTTP_SMALL || (r->ranged && r->len > HTTP_SMALL);
}

/* The lane of a bulk request. */
static inline struct http_lane *http_lane_of(const struct http_req *r)
{
	return &r->host->lane[r->body_len > HTTP_SMALL];
}

/* Takes up to want bytes; 0: wait.  Of a host and of all together. */
size_t http_take_up(struct http_host *h, size_t want);
bool http_may_down(struct http_host *h);
void http_took_down(struct http_host *h, size_t len);

/* A handle with r on it, ready for the multi handle; -ENOMEM and what prepare says. */
int xfer_begin(struct http_req *r, CURLSH *share);
/* The transfer ended: sets the result in r, and gives the handle back. */
void xfer_end(struct http_req *r, CURLcode code);
/* Gives the handle back; whole: its state may be used again. */
void xfer_drop(struct http_req *r, bool whole);
/* Whether another attempt may do better, and after how long at least. */
bool xfer_repeatable(struct http_req *r, int64_t *wait_ms);

#endif
