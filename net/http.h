/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * http: the one network engine.  One thread, "hf-net", owns libcurl's multi handle and all
 * that happens on it; it runs while there is a host.  Everything below that is not said to be
 * for any thread is for that thread alone: callers come onto it with http_run, and the
 * callbacks of their requests run there.  Callbacks never wait.
 *
 * A host is one server as one node sees it.  It has
 *  - a window: how many requests are under way.  It grows with success, is halved when the
 *    server says 429 or 503 or does not answer in time, shrinks when answers get slow.  What
 *    does not fit waits in line, small before bulk;
 *  - two lanes for bulk, one each way, of few connections (net/lane.h);
 *  - a budget of repetitions, a tenth of its requests and a few, so that a server that is
 *    ill is not beaten;
 *  - connections that are kept.  What is small goes over HTTP/2 where that is offered, bulk
 *    over connections of its own: behind megabytes in one socket nothing small is fast.
 *
 * A request succeeds when the transport was well AND the server said so AND every byte was
 * sent and received AND the range is the one that was asked for.  libcurl alone is content
 * with less.  Redirects are not followed, proxies and ~/.netrc of the environment not used,
 * encodings not decoded; each body and the headers have a cap.
 */
#ifndef HOLDFAST_NET_HTTP_H
#define HOLDFAST_NET_HTTP_H

#include <curl/curl.h>
#include <stdatomic.h>
#include "net/digest.h"

#define HTTP_WHY_CAP	  200
#define HTTP_TEXT_CAP	  4096	      /* what is kept of the body of an error */
#define HTTP_SKIP_CAP	  (32u << 20) /* passed over where a server ignores ranges */
#define HTTP_WINDOW_MAX	  64
#define HTTP_WINDOW_START 8

struct http_host;

struct http_host_opts {
	const char *base; /* "https://host:port", without a slash at its end */
	bool tls;
	bool plain_ok;	/* Basic may be sent at once: nobody on the way reads it */
	const char *ca; /* PEM file to trust instead of the system's, or NULL */
	const char *username, *password, *bearer; /* NULL: none */
	uint64_t up_limit, down_limit;		  /* bytes/s; 0: none */
	bool trust_transport; /* negative control of tests: what libcurl calls success is one */
};

/*
 * Any thread.  http_host_new copies opts and starts the thread for the first host.
 * http_host_free waits for requests of this host, which must have been aborted or be about
 * to end, and stops the thread after the last host.  Not from the thread itself.
 */
int http_host_new(struct http_host **out, const struct http_host_opts *opts);
void http_host_free(struct http_host *h);
/* Calls run(arg) on the thread, and returns when it has been called.  Not from the thread. */
void http_host_run(struct http_host *h, void (*run)(void *arg), void *arg);
/*
 * From now on these go with each attempt, copied; what is under way keeps what it was begun
 * with.  Any thread but that one.  0 or -ENOMEM, nothing has changed then.
 */
int http_host_login(struct http_host *h, const char *username, const char *password,
		    const char *bearer);

/* For all hosts together, bytes/s, 0: no limit.  Any thread, at any time. */
void http_set_limits(uint64_t up, uint64_t down);

/* What was asked of a host since it was made; a copy.  Any thread. */
enum http_kind { HTTP_PUT, HTTP_GET, HTTP_DELETE, HTTP_LIST, HTTP_OTHER, HTTP_KINDS };
struct http_stats {
	uint64_t requests[HTTP_KINDS]; /* sent, with repetitions */
	uint64_t retries;
	uint64_t up_bytes, down_bytes; /* of bodies */
	unsigned window, running, waiting;
	bool no_range; /* it has answered with the whole where a range was asked */
};
void http_host_stats(struct http_host *h, struct http_stats *out);

/* Runs t->run on the thread, in the order of the calls.  Any thread; t lives until then. */
struct http_task {
	void (*run)(struct http_task *t);
	struct http_task *next;
};
void http_run(struct http_host *h, struct http_task *t);

/* Headers of an answer. */
struct http_head {
	bool have_range, have_len, chunked;
	uint64_t range_first, range_last, range_total; /* total UINT64_MAX: "*" */
	bool range_unsatisfied;			       /* 416, and the length of it all */
	uint64_t len;
	int64_t date;	    /* seconds since 1970, or -1 */
	int64_t retry_s;    /* -1: none */
	char region[64];    /* x-amz-bucket-region */
	char location[256]; /* without its query */
	size_t bytes;
};

/*
 * One request.  The caller zeroes it and sets the first group; the second is the result.
 * It must live until done, which is called exactly once, by http_start at the earliest.
 */
struct http_req {
	struct http_host *host;
	enum http_kind kind;
	const char *method;
	char *path; /* "/bucket/key?query", encoded; the caller's, who frees it in done */
	int64_t deadline_ms;
	void (*done)(struct http_req *r);
	void *arg;
	/* Before each attempt: adds headers to r->headers (http_header).  -errno ends it. */
	int (*prepare)(struct http_req *r);
	/* The body to send: copies len bytes at `at`, or says -ECANCELED.  Repeatable. */
	int (*source)(struct http_req *r, uint64_t at, uint8_t *to, size_t len);
	size_t body_len;
	/*
	 * The body that comes, when the status is 2xx.  Ranged: into[0..len-1] gets the bytes
	 * from off on, *came (may be NULL) says how many so far, and *told (may be NULL) grows
	 * with all that come.  Else sink gets it piece by piece; first is true at the start of
	 * each attempt; what it returns other than 0 ends the request with that error.
	 */
	bool ranged;
	uint64_t off;
	size_t len;
	uint8_t *into;
	_Atomic size_t *came;
	_Atomic uint64_t *told;
	int (*sink)(struct http_req *r, bool first, const uint8_t *p, size_t len);

	/*
	 * 0: a whole answer came, `status` says which (also 403 or 500); ranged: the bytes
	 * are there, `got` of them, fewer at the end of the blob.
	 * -ENODEV no connection, -ETIMEDOUT, -EAGAIN the server asked for longer patience
	 * than the deadline has, -EACCES its certificate is not trusted, -ECANCELED,
	 * -ENOMEM, -EIO anything else; why is a sentence.
	 */
	int err;
	long status;
	size_t got;
	char why[HTTP_WHY_CAP];
	struct http_head head;
	char text[HTTP_TEXT_CAP]; /* the body of an answer that is not 2xx, 0-terminated */
	size_t text_len;
	int64_t first_ms, took_ms; /* of the last attempt: to the first byte, to the end */

	/* The engine's. */
	struct http_req *prev, *next;
	CURL *easy;
	struct curl_slist *headers;
	uint64_t sent_at, skip, body_seen;
	int64_t due_ms, moved_ms, begun_ms;
	unsigned attempts;
	unsigned proofs; /* attempts that a question for a password led to */
	unsigned proved; /* the host's challenge that this attempt answers, 0 none */
	struct digest ask; /* what a 401 asks for */
	bool asked;
	int fault; /* what a callback noticed */
	enum { HTTP_NEW, HTTP_QUEUED, HTTP_WAITING, HTTP_RUNNING, HTTP_ENDED } where;
	bool enough, fresh, paused_up, paused_down;
};
void http_start(struct http_req *r);
/* Ends it soon with -ECANCELED; r->done is called before this returns. */
void http_abort(struct http_req *r);
int http_header(struct http_req *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* The meaning of a status that no kind of node knows better; the sentence is added to why. */
int http_status_err(struct http_req *r);

/*
 * Fields of headers, from hostile servers.  Values are not 0-terminated.  -EINVAL.
 * http_parse_date: IMF-fixdate (RFC 9110, 5.6.7), seconds since 1970.
 * http_parse_retry: seconds from now_s on, delta or date, capped at a day.
 */
int http_parse_range(const char *v, size_t len, struct http_head *h);
int http_parse_number(const char *v, size_t len, uint64_t *out);
int64_t http_parse_date(const char *v, size_t len);
int64_t http_parse_retry(const char *v, size_t len, int64_t now_s);

#endif
