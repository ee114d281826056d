/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What the engine makes of servers that break off, stall, lie about lengths and ranges, or
 * speak something else: each gives its error, in time, and never foreign bytes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "net/http.h"
#include "scripted.h"

#define BLOB "0123456789abcdef"

/* One request, from a thread that waits for it. */
struct job {
	struct http_task task;
	struct http_req r;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool done, begun;
	const uint8_t *body;
	uint8_t into[64];
	size_t sunk;
};

static struct scripted *sv; /* on the heap: it is large */
static struct http_host *host;

static void job_done(struct http_req *r)
{
	struct job *j = r->arg;

	pthread_mutex_lock(&j->lock);
	j->done = true;
	pthread_cond_signal(&j->cond);
	pthread_mutex_unlock(&j->lock);
}

static void job_start(struct http_task *t)
{
	struct job *j = (struct job *)t;

	pthread_mutex_lock(&j->lock);
	j->begun = true;
	pthread_cond_broadcast(&j->cond);
	pthread_mutex_unlock(&j->lock);
	http_start(&j->r);
}

static int job_source(struct http_req *r, uint64_t at, uint8_t *to, size_t len)
{
	const struct job *j = r->arg;

	memcpy(to, j->body + at, len);
	return 0;
}

static int job_sink(struct http_req *r, bool first, const uint8_t *p, size_t len)
{
	struct job *j = r->arg;

	(void)p;
	j->sunk = (first ? 0 : j->sunk) + len;
	return 0;
}

static void job_init(struct job *j, enum http_kind kind, const char *method, int64_t ms)
{
	memset(j, 0, sizeof *j);
	pthread_mutex_init(&j->lock, NULL);
	pthread_cond_init(&j->cond, NULL);
	j->task.run = job_start;
	j->r.host = host;
	j->r.kind = kind;
	j->r.method = method;
	j->r.path = (char *)(uintptr_t) "/x";
	j->r.deadline_ms = now_ms() + ms;
	j->r.done = job_done;
	j->r.arg = j;
	j->r.source = job_source;
	if (kind == HTTP_GET) {
		j->r.ranged = true;
		j->r.into = j->into;
	}
}

static void job_wait(struct job *j)
{
	pthread_mutex_lock(&j->lock);
	while (!j->done)
		pthread_cond_wait(&j->cond, &j->lock);
	pthread_mutex_unlock(&j->lock);
	pthread_cond_destroy(&j->cond);
	pthread_mutex_destroy(&j->lock);
}

static void open_host(const struct act *act, unsigned cnt, struct http_host_opts o)
{
	char base[64];

	sv = malloc(sizeof *sv);
	sc_start(sv, act, cnt);
	snprintf(base, sizeof base, "http://127.0.0.1:%u", sv->port);
	o.base = base;
	assert_int_equal(http_host_new(&host, &o), 0);
}

static void close_host(void)
{
	http_host_free(host);
	sc_stop(sv);
	free(sv);
}

static void get(struct job *j, uint64_t off, size_t len, int64_t ms)
{
	job_init(j, HTTP_GET, "GET", ms);
	j->r.off = off;
	j->r.len = len;
	http_run(host, &j->task);
	job_wait(j);
}

/* GET of [off, off+len) of BLOB against one script. */
struct range_case {
	const char *what;
	struct act act;
	uint64_t off;
	size_t len;
	int err;
	size_t got;	 /* of BLOB, when err is 0 and the status good */
	const char *why; /* a word of it, or NULL */
};

#define OK206(range, n, body)                                                                  \
	"HTTP/1.1 206 P\r\nContent-Range: bytes " range "\r\nContent-Length: " n "\r\n\r"      \
										 "\n" body

static const struct range_case range_cases[] = {
	{"right", {OK206("2-5/16", "4", "2345"), 0, 0, 0, 0}, 2, 4, 0, 4, NULL},
	{"short at the end", {OK206("14-15/16", "2", "ef"), 0, 0, 0, 0}, 14, 9, 0, 2, NULL},
	{"chunked",
	 {"HTTP/1.1 206 P\r\nContent-Range: bytes 2-5/16\r\nTransfer-Encoding: chunked"
	  "\r\n\r\n2\r\n23\r\n2\r\n45\r\n0\r\n\r\n",
	  0, 0, 0, 0},
	 2,
	 4,
	 0,
	 4,
	 NULL},
	{"unknown total, whole range",
	 {OK206("2-5/*", "4", "2345"), 0, 0, 0, 0},
	 2,
	 4,
	 0,
	 4,
	 NULL},
	{"unknown total, short",
	 {OK206("2-3/*", "2", "23"), 0, 0, 0, 0},
	 2,
	 4,
	 -EIO,
	 0,
	 "less"},
	{"less than there is", {OK206("2-3/16", "2", "23"), 0, 0, 0, 0}, 2, 4, -EIO, 0, "less"},
	{"another range", {OK206("3-6/16", "4", "3456"), 0, 0, 0, 0}, 2, 4, -EIO, 0, "another"},
	{"more than asked",
	 {OK206("2-9/16", "8", "23456789"), 0, 0, 0, 0},
	 2,
	 4,
	 -EIO,
	 0,
	 "another"},
	{"no Content-Range",
	 {"HTTP/1.1 206 P\r\nContent-Length: 4\r\n\r\n2345", 0, 0, 0, 0},
	 2,
	 4,
	 -EIO,
	 0,
	 "another"},
	{"multipart",
	 {"HTTP/1.1 206 P\r\nContent-Type: multipart/byteranges; boundary=x\r\n"
	  "Content-Length: 6\r\n\r\n--x--\n",
	  0, 0, 0, 0},
	 2,
	 4,
	 -EIO,
	 0,
	 "another"},
	{"body shorter than its range",
	 {OK206("2-5/16", "3", "234"), 0, 0, 0, 0},
	 2,
	 4,
	 -EIO,
	 0,
	 "cut"},
	{"cut short", {OK206("2-5/16", "4", "23"), ACT_CLOSE, 0, 0, 0}, 2, 4, -EIO, 0, "cut"},
	{"cut short without a length",
	 {"HTTP/1.1 206 P\r\nContent-Range: bytes 2-5/16\r\n"
	  "Connection: close\r\n\r\n23",
	  ACT_CLOSE, 0, 0, 0},
	 2,
	 4,
	 -EIO,
	 0,
	 "cut"},
	{"chunked, cut",
	 {"HTTP/1.1 206 P\r\nContent-Range: bytes 2-5/16\r\nTransfer-Encoding: "
	  "chunked\r\n\r\n2\r\n23\r\n",
	  ACT_CLOSE, 0, 0, 0},
	 2,
	 4,
	 -EIO,
	 0,
	 NULL},
	{"reset in the body",
	 {OK206("2-5/16", "4", "23"), ACT_RESET, 0, 0, 0},
	 2,
	 4,
	 -EIO,
	 0,
	 NULL},
	{"200, from the start",
	 {"HTTP/1.1 200 O\r\nContent-Length: 16\r\n\r\n" BLOB, 0, 0, 0, 0},
	 0,
	 4,
	 0,
	 4,
	 NULL},
	{"200, in the middle",
	 {"HTTP/1.1 200 O\r\nContent-Length: 16\r\n\r\n" BLOB, 0, 0, 0, 0},
	 5,
	 4,
	 0,
	 4,
	 NULL},
	{"200, over the end",
	 {"HTTP/1.1 200 O\r\nContent-Length: 16\r\n\r\n" BLOB, 0, 0, 0, 0},
	 12,
	 9,
	 0,
	 4,
	 NULL},
	{"200, past the end",
	 {"HTTP/1.1 200 O\r\nContent-Length: 16\r\n\r\n" BLOB, 0, 0, 0, 0},
	 20,
	 9,
	 0,
	 0,
	 NULL},
	{"200, cut",
	 {"HTTP/1.1 200 O\r\nContent-Length: 16\r\n\r\n01234567", ACT_CLOSE, 0, 0, 0},
	 5,
	 9,
	 -EIO,
	 0,
	 NULL},
	{"200 without a length, cut",
	 {"HTTP/1.1 200 O\r\n\r\n01234567", ACT_CLOSE, 0, 0, 0},
	 5,
	 9,
	 -EIO,
	 0,
	 "without a length"},
	{"200, too far",
	 {"HTTP/1.1 200 O\r\nContent-Length: 99999999\r\n\r\n", 0, 0, 0, 900},
	 40u << 20,
	 4,
	 -EIO,
	 0,
	 "ignores Range"},
	{"416",
	 {"HTTP/1.1 416 R\r\nContent-Range: bytes */16\r\nContent-Length: 0\r\n\r\n", 0, 0, 0,
	  0},
	 16,
	 4,
	 0,
	 0,
	 NULL},
	{"416 without more",
	 {"HTTP/1.1 416 R\r\nContent-Length: 3\r\n\r\nbad", 0, 0, 0, 0},
	 16,
	 4,
	 0,
	 0,
	 NULL},
	{"416 of what is there",
	 {"HTTP/1.1 416 R\r\nContent-Range: bytes */16\r\nContent-Length: 0\r\n"
	  "\r\n",
	  0, 0, 0, 0},
	 2,
	 4,
	 -EIO,
	 0,
	 "later"},
	{"204", {"HTTP/1.1 204 N\r\n\r\n", 0, 0, 0, 0}, 2, 4, -EIO, 0, "204"},
	{"gzip is not decoded",
	 {"HTTP/1.1 206 P\r\nContent-Encoding: gzip\r\nContent-Range: bytes "
	  "2-5/16\r\nContent-Length: 4\r\n\r\n2345",
	  0, 0, 0, 0},
	 2,
	 4,
	 0,
	 4,
	 NULL},
	{"nothing", {"", ACT_CLOSE, 0, 0, 0}, 2, 4, -EIO, 0, "without an answer"},
	{"garbage", {"\x16\x03\x01 hello\r\n\r\n", ACT_CLOSE, 0, 0, 0}, 2, 4, -EIO, 0, NULL},
	{"only 100", {"HTTP/1.1 100 C\r\n\r\n", ACT_CLOSE, 0, 0, 0}, 2, 4, -EIO, 0, NULL},
	{"100, then right",
	 {"HTTP/1.1 100 C\r\n\r\n" OK206("2-5/16", "4", "2345"), 0, 0, 0, 0},
	 2,
	 4,
	 0,
	 4,
	 NULL},
	{"drips", {OK206("2-5/16", "4", "2345"), 0, 0, 1, 0}, 2, 4, 0, 4, NULL},
	{"nothing wanted", {OK206("2-2/16", "1", "2"), 0, 0, 0, 0}, 2, 0, 0, 0, NULL},
};

static void test_ranges(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof range_cases / sizeof range_cases[0]; i++) {
		const struct range_case *c = &range_cases[i];
		struct job j;

		open_host(&c->act, 1, (struct http_host_opts){0});
		get(&j, c->off, c->len, 20000);
		if (j.r.err != c->err || (!c->err && j.r.got != c->got))
			fail_msg("%s: %d, %zu bytes (%s)", c->what, j.r.err, j.r.got, j.r.why);
		if (!c->err && c->got)
			assert_memory_equal(j.into, &BLOB[c->off], c->got);
		if (c->why && !strstr(j.r.why, c->why))
			fail_msg("%s: %s", c->what, j.r.why);
		if (c->err && !j.r.why[0])
			fail_msg("%s: no reason", c->what);
		/* Never more than was asked for. */
		for (size_t b = c->len; b < sizeof j.into; b++)
			assert_int_equal(j.into[b], 0);
		close_host();
	}
}

static void test_no_range_is_remembered(void **state)
{
	static const struct act act = {"HTTP/1.1 200 O\r\nContent-Length: 16\r\n\r\n" BLOB, 0,
				       0, 0, 0};
	struct http_stats st;
	struct job j;

	(void)state;
	open_host(&act, 1, (struct http_host_opts){0});
	get(&j, 0, 4, 20000);
	http_host_stats(host, &st);
	assert_false(st.no_range);
	get(&j, 5, 4, 20000);
	get(&j, 0, 4, 20000);
	http_host_stats(host, &st);
	assert_true(st.no_range);
	assert_int_equal(st.requests[HTTP_GET], 3);
	close_host();
}

/* --- bodies that are sent --- */

static void put(struct job *j, size_t len, int64_t ms)
{
	uint8_t *p = malloc(len);

	memset(p, 'b', len);
	job_init(j, HTTP_PUT, "PUT", ms);
	j->body = p;
	j->r.body_len = len;
	http_run(host, &j->task);
	job_wait(j);
	free(p);
}

static void test_put(void **state)
{
	static const struct {
		const char *what;
		struct act act;
		size_t len;
		int err;
		long status;
	} cases[] = {
		{"right",
		 {"HTTP/1.1 201 C\r\nContent-Length: 0\r\n\r\n", 0, 0, 0, 0},
		 300000,
		 0,
		 201},
		{"204", {"HTTP/1.1 204 N\r\n\r\n", 0, 0, 0, 0}, 10, 0, 204},
		{"early success",
		 {"HTTP/1.1 201 C\r\nContent-Length: 0\r\n\r\n", ACT_HANG, true, 0, 0},
		 30u << 20,
		 -EIO,
		 201},
		{"early success, closed",
		 {"HTTP/1.1 201 C\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", ACT_CLOSE,
		  true, 0, 0},
		 30u << 20,
		 -EIO,
		 0},
		{"early refusal",
		 {"HTTP/1.1 507 F\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", ACT_CLOSE,
		  true, 0, 0},
		 30u << 20,
		 0,
		 507},
		{"reset after the body", {"", ACT_RESET, 0, 0, 0}, 1000, -EIO, 0},
		{"huge error", {"HTTP/1.1 403 F\r\n\r\n", ACT_CLOSE, 0, 0, 100}, 10, 0, 403},
		{"100 and 200 and 201",
		 {"HTTP/1.1 100 C\r\n\r\nHTTP/1.1 201 C\r\nContent-Length: 0\r\n"
		  "\r\n",
		  0, 0, 0, 0},
		 10,
		 0,
		 201},
		{"hangs", {"", ACT_HANG, 0, 0, 0}, 10, -ETIMEDOUT, 0},
		{"hangs before the body", {"", ACT_HANG, true, 0, 0}, 10, -ETIMEDOUT, 0},
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct job j;

		open_host(&cases[i].act, 1, (struct http_host_opts){0});
		put(&j, cases[i].len, cases[i].err == -ETIMEDOUT ? 500 : 20000);
		if (j.r.err != cases[i].err ||
		    (cases[i].status && j.r.status != cases[i].status))
			fail_msg("%s: %d, HTTP %ld (%s)", cases[i].what, j.r.err, j.r.status,
				 j.r.why);
		/* No round trip before a body. */
		assert_null(strcasestr(sc_seen(sv, 0), "Expect"));
		close_host();
	}
}

/* --- the rest --- */

/* Negative control: without the checks each of these is a success, as libcurl has it. */
static void test_trust(void **state)
{
	static const struct act early = {
		"HTTP/1.1 201 C\r\nContent-Length: 0\r\nConnection: close\r\n"
		"\r\n",
		ACT_HANG, true, 0, 0};
	static const struct act cut = {"HTTP/1.1 206 P\r\nContent-Range: bytes 2-5/16\r\n"
				       "Connection: close\r\n\r\n23",
				       ACT_CLOSE, 0, 0, 0};
	static const struct act whole = {"HTTP/1.1 200 O\r\nContent-Length: 16\r\n\r\n" BLOB, 0,
					 0, 0, 0};
	struct http_host_opts o = {.trust_transport = true};
	struct job j;

	(void)state;
	open_host(&cut, 1, o);
	get(&j, 2, 4, 20000);
	assert_int_equal(j.r.err, 0);
	assert_int_equal(j.r.got, 2);
	close_host();
	open_host(&whole, 1, o);
	get(&j, 5, 4, 20000);
	assert_int_equal(j.r.err, 0);
	assert_memory_equal(j.into, BLOB, 4);
	close_host();
	/* Small enough for the buffers of a socket: nobody reads it, and all went well. */
	open_host(&early, 1, o);
	put(&j, 1000, 20000);
	assert_int_equal(j.r.err, 0);
	assert_int_equal(sc_got(sv, 0), 0);
	close_host();
}

static void test_statuses(void **state)
{
	static const struct {
		const char *reply;
		int err;
		const char *why;
	} cases[] = {
		{"HTTP/1.1 301 M\r\nLocation: http://other/x?token=hunter2\r\nContent-Length: "
		 "0\r\n\r\n",
		 -EACCES, "http://other/x"},
		{"HTTP/1.1 307 M\r\nLocation: http://u:hunter2@other/\r\nContent-Length: "
		 "0\r\n\r\n",
		 -EACCES, "redirects"},
		{"HTTP/1.1 401 U\r\nContent-Length: 0\r\n\r\n", -EACCES, "credentials"},
		{"HTTP/1.1 403 F\r\nContent-Length: 0\r\n\r\n", -EACCES, "403"},
		{"HTTP/1.1 404 N\r\nContent-Length: 0\r\n\r\n", -ENOENT, "404"},
		{"HTTP/1.1 411 L\r\nContent-Length: 0\r\n\r\n", -EIO, "length"},
		{"HTTP/1.1 501 N\r\nContent-Length: 0\r\n\r\n", -EACCES, "501"},
		{"HTTP/1.1 507 N\r\nContent-Length: 0\r\n\r\n", -ENOSPC, "space"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct act act = {cases[i].reply, 0, 0, 0, 0};
		struct job j;

		open_host(&act, 1, (struct http_host_opts){0});
		job_init(&j, HTTP_OTHER, "MKCOL", 20000);
		http_run(host, &j.task);
		job_wait(&j);
		assert_int_equal(j.r.err, 0);
		assert_int_equal(http_status_err(&j.r), cases[i].err);
		if (!strstr(j.r.why, cases[i].why) || strstr(j.r.why, "hunter2"))
			fail_msg("%s: %s", cases[i].reply, j.r.why);
		close_host();
	}
}

static void test_retries(void **state)
{
	static const struct act busy[] = {
		{"HTTP/1.1 503 B\r\nContent-Length: 0\r\n\r\n", 0, 0, 0, 0},
		{"HTTP/1.1 429 B\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n", 0, 0, 0, 0},
		{OK206("2-5/16", "4", "2345"), 0, 0, 0, 0},
	};
	static const struct act later = {
		"HTTP/1.1 503 B\r\nRetry-After: 100\r\nContent-Length: 0\r\n\r\n", 0, 0, 0, 0};
	static const struct act broken[] = {
		{"", ACT_RESET, 0, 0, 0},
		{OK206("2-5/16", "4", "2345"), 0, 0, 0, 0},
	};
	static const struct act ill = {"HTTP/1.1 500 I\r\nContent-Length: 0\r\n\r\n", 0, 0, 0,
				       0};
	struct http_stats st;
	struct job j;

	(void)state;
	open_host(busy, 3, (struct http_host_opts){0});
	int64_t begin = now_ms();
	get(&j, 2, 4, 20000);
	assert_int_equal(j.r.err, 0);
	assert_int_equal(j.r.got, 4);
	assert_int_equal(j.r.attempts, 3);
	assert_true(now_ms() - begin >= 1000);
	http_host_stats(host, &st);
	assert_int_equal(st.retries, 2);
	/* Halved once for both. */
	assert_true(st.window <= HTTP_WINDOW_START);
	close_host();

	/* It wants more patience than there is: said at once, and the next is told as well. */
	open_host(&later, 1, (struct http_host_opts){0});
	get(&j, 2, 4, 20000);
	assert_int_equal(j.r.err, -EAGAIN);
	assert_non_null(strstr(j.r.why, "again in"));
	get(&j, 2, 4, 20000);
	assert_int_equal(j.r.err, -EAGAIN);
	assert_int_equal(sc_cnt(sv), 1);
	close_host();

	open_host(broken, 2, (struct http_host_opts){0});
	get(&j, 2, 4, 20000);
	assert_int_equal(j.r.err, 0);
	close_host();

	/* The budget: ten, and one for each ten requests; not twice for each. */
	open_host(&ill, 1, (struct http_host_opts){0});
	for (int i = 0; i < 30; i++) {
		get(&j, 2, 4, 20000);
		assert_int_equal(j.r.err, 0);
		assert_int_equal(j.r.status, 500);
	}
	http_host_stats(host, &st);
	assert_in_range(st.retries, 10, 15);
	close_host();
}

static void test_nobody(void **state)
{
	struct scripted *s = malloc(sizeof *s);
	static const struct act act = {"", 0, 0, 0, 0};
	char base[64];
	struct job j;

	(void)state;
	/* A port that nobody listens on any more. */
	sc_start(s, &act, 1);
	snprintf(base, sizeof base, "http://127.0.0.1:%u", s->port);
	sc_stop(s);
	free(s);
	struct http_host_opts o = {.base = base};
	assert_int_equal(http_host_new(&host, &o), 0);
	get(&j, 0, 4, 20000);
	assert_int_equal(j.r.err, -ENODEV);
	http_host_free(host);
	o.base = "http://nobody.invalid";
	assert_int_equal(http_host_new(&host, &o), 0);
	get(&j, 0, 4, 5000);
	assert_true(j.r.err == -ENODEV || j.r.err == -ETIMEDOUT);
	http_host_free(host);
}

struct aborter {
	struct http_task task;
	struct job *j;
};

static void run_abort(struct http_task *t)
{
	http_abort(&((struct aborter *)t)->j->r);
}

static void test_abort(void **state)
{
	static const struct act act = {"", ACT_HANG, 0, 0, 0};
	struct job j[20];
	struct aborter a[20];

	(void)state;
	/* Some are under way, some in line. */
	open_host(&act, 1, (struct http_host_opts){0});
	for (int i = 0; i < 20; i++) {
		job_init(&j[i], HTTP_GET, "GET", 600000);
		j[i].r.len = 4;
		http_run(host, &j[i].task);
	}
	for (int i = 19; i >= 0; i--) {
		a[i] = (struct aborter){.task.run = run_abort, .j = &j[i]};
		http_run(host, &a[i].task);
	}
	for (int i = 0; i < 20; i++) {
		job_wait(&j[i]);
		assert_int_equal(j[i].r.err, -ECANCELED);
	}
	close_host();
}

static void test_limits(void **state)
{
	static const struct act act = {"HTTP/1.1 201 C\r\nContent-Length: 0\r\n\r\n", 0, 0, 0,
				       0};
	struct job j;

	(void)state;
	/* 300 KB at 200 KB/s, of which a quarter of a second may be saved up. */
	open_host(&act, 1, (struct http_host_opts){.up_limit = 200000});
	int64_t begin = now_ms();
	put(&j, 300000, 60000);
	assert_int_equal(j.r.err, 0);
	assert_true(now_ms() - begin >= 1000);
	close_host();
	http_set_limits(200000, 0);
	open_host(&act, 1, (struct http_host_opts){0});
	begin = now_ms();
	put(&j, 300000, 60000);
	assert_int_equal(j.r.err, 0);
	assert_true(now_ms() - begin >= 1000);
	http_set_limits(0, 0);
	/* Without: bounded by nothing but the machine, so only that it works. */
	put(&j, 300000, 60000);
	assert_int_equal(j.r.err, 0);
	close_host();
}

/* A listing of any length goes to the sink; of a body that nobody wants little is read. */
static void test_sink(void **state)
{
	static const struct act act = {"HTTP/1.1 207 M\r\nContent-Length: 6553600\r\n\r\n", 0,
				       0, 0, 100};
	struct job j;

	(void)state;
	open_host(&act, 1, (struct http_host_opts){0});
	job_init(&j, HTTP_LIST, "PROPFIND", 20000);
	j.r.sink = job_sink;
	http_run(host, &j.task);
	job_wait(&j);
	assert_int_equal(j.r.err, 0);
	assert_int_equal(j.sunk, 6553600);
	job_init(&j, HTTP_OTHER, "MKCOL", 20000);
	http_run(host, &j.task);
	job_wait(&j);
	assert_int_equal(j.r.err, 0);
	assert_true(j.r.body_seen < 1u << 20);
	close_host();
}

static void test_auth(void **state)
{
	static const struct act basic = {"HTTP/1.1 201 C\r\nContent-Length: 0\r\n\r\n", 0, 0, 0,
					 0};
	static const struct act digest[] = {
		{"HTTP/1.1 401 U\r\nWWW-Authenticate: Digest realm=\"r\", nonce=\"n1\", "
		 "qop=\"auth\", "
		 "algorithm=MD5\r\nContent-Length: 0\r\n\r\n",
		 0, 0, 0, 0},
		{"HTTP/1.1 201 C\r\nContent-Length: 0\r\n\r\n", 0, 0, 0, 0},
	};
	struct http_host_opts o = {.username = "u", .password = "hunter2", .plain_ok = true};
	struct job j;

	(void)state;
	open_host(&basic, 1, o);
	put(&j, 1000, 20000);
	assert_int_equal(j.r.status, 201);
	assert_non_null(strstr(sc_seen(sv, 0), "Authorization: Basic dTpodW50ZXIy"));
	close_host();

	/* Over a network in the clear the password is not sent before Digest was offered. */
	o.plain_ok = false;
	open_host(digest, 2, o);
	put(&j, 1000, 20000);
	assert_int_equal(j.r.status, 201);
	assert_null(strstr(sc_seen(sv, 0), "Authorization:"));
	/* Never an empty body: a server that took it for the blob would have an empty one. */
	assert_non_null(strstr(sc_seen(sv, 0), "Content-Length: 1000"));
	assert_non_null(strstr(sc_seen(sv, 1), "Authorization: Digest username=\"u\""));
	assert_int_equal(sc_got(sv, 1), 1000);
	/* What is known of Digest is kept: no question before the next body. */
	put(&j, 1000, 20000);
	assert_int_equal(j.r.status, 201);
	assert_int_equal(sc_cnt(sv), 3);
	assert_non_null(strstr(sc_seen(sv, 2), "Authorization: Digest username=\"u\""));
	close_host();

	/* Where it knows Basic alone, that is what insecure=1 allows. */
	static const struct act only_basic[] = {
		{"HTTP/1.1 401 U\r\nWWW-Authenticate: Basic realm=\"r\"\r\nContent-Length: "
		 "0\r\n\r\n",
		 0, 0, 0, 0},
		{"HTTP/1.1 201 C\r\nContent-Length: 0\r\n\r\n", 0, 0, 0, 0},
	};
	open_host(only_basic, 2, o);
	put(&j, 1000, 20000);
	assert_int_equal(j.r.status, 201);
	assert_null(strstr(sc_seen(sv, 0), "Authorization:"));
	assert_non_null(strstr(sc_seen(sv, 1), "Authorization: Basic dTpodW50ZXIy"));
	close_host();

	/* A nonce that has grown old is no wrong password, and a wrong one is asked once. */
	static const struct act stale[] = {
		{"HTTP/1.1 401 U\r\nWWW-Authenticate: Digest realm=\"r\", nonce=\"n1\", "
		 "qop=\"auth\"\r\nContent-Length: 0\r\n\r\n",
		 0, 0, 0, 0},
		{"HTTP/1.1 401 U\r\nWWW-Authenticate: Digest realm=\"r\", nonce=\"n2\", "
		 "qop=\"auth\", stale=true\r\nContent-Length: 0\r\n\r\n",
		 0, 0, 0, 0},
		{"HTTP/1.1 401 U\r\nWWW-Authenticate: Digest realm=\"r\", nonce=\"n3\", "
		 "qop=\"auth\"\r\nContent-Length: 0\r\n\r\n",
		 0, 0, 0, 0},
	};
	open_host(stale, 3, o);
	put(&j, 1000, 20000);
	assert_int_equal(j.r.status, 401);
	assert_int_equal(sc_cnt(sv), 3);
	assert_non_null(strstr(sc_seen(sv, 1), "nonce=\"n1\""));
	assert_non_null(strstr(sc_seen(sv, 2), "nonce=\"n2\""));
	close_host();

	/* Basic first where that is safe; a server that wants Digest gets it, also when somebody
	 * else answered before it. */
	static const struct act moved = {"HTTP/1.1 302 F\r\nLocation: http://x.example/\r\n"
					 "Content-Length: 0\r\n\r\n",
					 0, 0, 0, 0};
	const struct act then[] = {moved, digest[0], digest[1]};
	o.plain_ok = true;
	open_host(then, 3, o);
	put(&j, 10, 20000);
	assert_int_equal(j.r.status, 302);
	put(&j, 1000, 20000);
	assert_int_equal(j.r.status, 201);
	assert_non_null(strstr(sc_seen(sv, 2), "Authorization: Digest username=\"u\""));
	close_host();
	open_host(digest, 2, o);
	put(&j, 1000, 20000);
	assert_int_equal(j.r.status, 201);
	assert_non_null(strstr(sc_seen(sv, 1), "Authorization: Digest username=\"u\""));
	assert_int_equal(sc_got(sv, 1), 1000);
	close_host();

	o = (struct http_host_opts){.bearer = "tok"};
	open_host(&basic, 1, o);
	put(&j, 10, 20000);
	assert_non_null(strstr(sc_seen(sv, 0), "Authorization: Bearer tok"));
	close_host();
}

static void test_fields(void **state)
{
	struct http_head h = {0};

	(void)state;
	assert_int_equal(http_parse_date("Sun, 06 Nov 1994 08:49:37 GMT", 29), 784111777);
	assert_int_equal(http_parse_date("Sun, 06 Nov 1994 08:49:37 GMT", 28), -EINVAL);
	assert_int_equal(http_parse_date("Sun, 06 Nox 1994 08:49:37 GMT", 29), -EINVAL);
	assert_int_equal(http_parse_retry("120", 3, 0), 120);
	assert_int_equal(http_parse_retry("999999999", 9, 0), 86400);
	assert_int_equal(http_parse_retry("-1", 2, 0), -EINVAL);
	assert_int_equal(http_parse_retry("Sun, 06 Nov 1994 08:49:37 GMT", 29, 784111770), 7);
	assert_int_equal(http_parse_retry("Sun, 06 Nov 1994 08:49:37 GMT", 29, 784111780), 0);
	static const char *const bad[] = {"bytes 5-4/9",
					  "bytes 5-9/9",
					  "bytes 5-/9",
					  "bytes -5/9",
					  "bytes 1-2",
					  "items 1-2/3",
					  "bytes */*",
					  "bytes 1-2/x",
					  "bytes 99999999999999999999-1/2",
					  ""};
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
		assert_int_equal(http_parse_range(bad[i], strlen(bad[i]), &h), -EINVAL);
	assert_int_equal(http_parse_range("Bytes 1-2/3", 11, &h), 0);
	assert_true(h.have_range && h.range_first == 1 && h.range_last == 2 &&
		    h.range_total == 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fields),
		cmocka_unit_test(test_ranges),
		cmocka_unit_test(test_no_range_is_remembered),
		cmocka_unit_test(test_put),
		cmocka_unit_test(test_trust),
		cmocka_unit_test(test_statuses),
		cmocka_unit_test(test_retries),
		cmocka_unit_test(test_nobody),
		cmocka_unit_test(test_abort),
		cmocka_unit_test(test_limits),
		cmocka_unit_test(test_sink),
		cmocka_unit_test(test_auth),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
