/* SPDX-License-Identifier: GPL-3.0-or-later */
/* S3 and WebDAV nodes against a server that says what it should not: states and sentences. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "net/node_impl.h"
#include "scripted.h"

#define CNT(a) (sizeof(a) / sizeof(a)[0])
#define EMPTY  "Content-Length: 0\r\n\r\n"

static const uint8_t vol[VOL_LEN] = {1};
static struct scripted *sv;
static struct node *node;

static void open_node(const struct act *act, unsigned cnt, const char *format)
{
	static const char ini[] = "[p]\naccess_key = AK\nsecret_key = hunter2\n"
				  "username = u\npassword = hunter2\n";
	struct creds *creds;
	char url[256];

	sv = malloc(sizeof *sv);
	sc_start(sv, act, cnt);
	snprintf(url, sizeof url, format, sv->port);
	assert_int_equal(creds_new(&creds), 0);
	assert_int_equal(creds_read_ini(creds, ini, strlen(ini), "test"), 0);
	assert_int_equal(node_open(&node, 1, url, creds), 0);
	creds_unref(creds);
}

static void close_node(void)
{
	node_close(node);
	sc_stop(sv);
	free(sv);
}

#define S3  "s3+http://127.0.0.1:%u/bucket/pre?profile=p&region=here"
#define DAV "dav+http://127.0.0.1:%u/base?profile=p"

static struct node_io *run(struct node_io *io, int64_t ms)
{
	struct node_wait w;

	io->trusted = true;
	io->deadline_ms = now_ms() + ms;
	node_wait_init(&w);
	node_wait_submit(&w, node, io);
	io = node_wait_next(&w, now_ms() + 60000);
	assert_non_null(io);
	node_wait_release(&w);
	return io;
}

/* What a probe makes of an answer. */
struct probe_case {
	const char *url, *reply;
	int err;
	enum node_state state;
	const char *why;
};

#define ERROR(status, code, more)                                                              \
	"HTTP/1.1 " status "\r\nConnection: close\r\n" more "\r\n<Error><Code>" code           \
	"</Code><Message>the server's words</Message><Region>there</Region></Error>"

static const struct probe_case probe_cases[] = {
	{S3, ERROR("404 N", "NoSuchKey", ""), -ENOENT, NODE_WRONG, "no marker"},
	{S3, ERROR("404 N", "NoSuchBucket", ""), -ENODEV, NODE_DOWN,
	 "there is no bucket bucket"},
	{S3, ERROR("403 F", "AccessDenied", ""), -EACCES, NODE_REFUSING, "AccessDenied"},
	{S3, ERROR("403 F", "InvalidAccessKeyId", ""), -EACCES, NODE_REFUSING,
	 "access key is not known"},
	{S3, ERROR("403 F", "SignatureDoesNotMatch", ""), -EACCES, NODE_REFUSING, "secret key"},
	{S3, ERROR("403 F", "RequestTimeTooSkewed", "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"),
	 -EACCES, NODE_REFUSING, "ahead of the server's"},
	{S3, ERROR("403 F", "SomethingNew", ""), -EACCES, NODE_REFUSING, "the server's words"},
	{S3, ERROR("400 B", "AuthorizationHeaderMalformed", ""), -EACCES, NODE_REFUSING,
	 "region there, not in here"},
	{S3, ERROR("301 M", "PermanentRedirect", ""), -EACCES, NODE_REFUSING, "region=there"},
	{S3, "HTTP/1.1 301 M\r\nLocation: http://else/where?x\r\n" EMPTY, -EACCES,
	 NODE_REFUSING, "http://else/where"},
	{S3, ERROR("501 N", "NotImplemented", ""), -EACCES, NODE_REFUSING, "cannot do this"},
	{S3, "HTTP/1.1 403 F\r\n" EMPTY, -EACCES, NODE_REFUSING, "403"},
	{S3, "HTTP/1.1 403 F\r\nContent-Length: 5\r\n\r\n<html", -EACCES, NODE_REFUSING, "403"},
	{S3, "HTTP/1.1 503 S\r\nRetry-After: 99\r\n" EMPTY, -EAGAIN, NODE_DOWN, "again in"},
	{DAV, "HTTP/1.1 401 U\r\nWWW-Authenticate: Basic realm=\"x\"\r\n" EMPTY, -EACCES,
	 NODE_REFUSING, "not accepted"},
	{DAV, "HTTP/1.1 403 F\r\n" EMPTY, -EACCES, NODE_REFUSING, "403"},
	{DAV, "HTTP/1.1 302 F\r\nLocation: /login\r\n" EMPTY, -EACCES, NODE_REFUSING, "/login"},
	{DAV, "HTTP/1.1 200 O\r\nContent-Length: 16\r\n\r\n<html>Welcome!!\n", -EBADMSG,
	 NODE_WRONG, "another volume"},
	{DAV, "SSH-2.0-OpenSSH_9.2\r\n", -EIO, NODE_DOWN, NULL},
};

static void test_probe(void **state)
{
	struct node_info info;

	(void)state;
	for (size_t i = 0; i < CNT(probe_cases); i++) {
		const struct probe_case *c = &probe_cases[i];
		bool close = strstr(c->reply, "close") || c->reply[0] == 'S';
		struct act act = {c->reply, close ? ACT_CLOSE : ACT_KEEP, 0, 0, 0};

		open_node(&act, 1, c->url);
		int err = node_verify(node, vol, now_ms() + 20000);
		node_get_info(node, &info);
		if (err != c->err || info.state != c->state ||
		    (c->why && !strstr(info.error, c->why)) || !info.error[0])
			fail_msg("%.60s: %d, %s: %s", c->reply, err,
				 node_state_name(info.state), info.error);
		assert_null(strstr(info.error, "hunter2"));
		assert_null(strstr(info.url, "hunter2"));
		/* Requests that are not even sent change nothing of that. */
		struct node_io *io = node_io_new(NODE_DEL, "s/abc");
		io->deadline_ms = now_ms() + 1000;
		struct node_wait w;
		node_wait_init(&w);
		node_wait_submit(&w, node, io);
		io = node_wait_next(&w, now_ms() + 60000);
		assert_int_equal(io->err, -ENODEV);
		node_io_unref(io);
		node_wait_release(&w);
		assert_int_equal(node_state(node), c->state);
		assert_false(node_readable(node));
		close_node();
	}
}

/* A folder that is not there is another thing than one without a marker. */
static void test_dav_place(void **state)
{
	static const struct act empty[] = {
		{"HTTP/1.1 404 N\r\n" EMPTY, 0, 0, 0, 0},
		{"HTTP/1.1 207 M\r\nConnection: close\r\n\r\n<D:multistatus xmlns:D=\"DAV:\">"
		 "<D:response><D:href>/base/</D:href><D:propstat/></D:response></"
		 "D:multistatus>",
		 ACT_CLOSE, 0, 0, 0},
	};
	static const struct act gone = {"HTTP/1.1 404 N\r\n" EMPTY, 0, 0, 0, 0};
	static const struct act above[] = {{"HTTP/1.1 409 C\r\n" EMPTY, 0, 0, 0, 0}};
	struct node_info info;

	(void)state;
	open_node(empty, 2, DAV);
	assert_int_equal(node_verify(node, vol, now_ms() + 20000), -ENOENT);
	assert_int_equal(node_state(node), NODE_WRONG);
	close_node();
	open_node(&gone, 1, DAV);
	assert_int_equal(node_verify(node, vol, now_ms() + 20000), -ENODEV);
	node_get_info(node, &info);
	assert_non_null(strstr(info.error, "folder"));
	close_node();
	open_node(above, 1, DAV);
	assert_int_equal(node_init(node, vol, now_ms() + 20000), -ENODEV);
	assert_non_null(strstr(log_last(), "above it"));
	close_node();
}

static struct node_io *put_io(const char *name, size_t len)
{
	struct node_io *io = node_io_new(NODE_PUT, name);

	io->buf = calloc(1, len);
	io->iov[0] = (struct iovec){io->buf, len};
	io->iov_cnt = 1;
	return io;
}

static void test_dav_parents(void **state)
{
	static const struct act act[] = {
		{"HTTP/1.1 409 C\r\n" EMPTY, 0, 0, 0, 0},
		{"HTTP/1.1 201 C\r\n" EMPTY, 0, 0, 0, 0},
		{"HTTP/1.1 405 M\r\n" EMPTY, 0, 0, 0, 0},
		{"HTTP/1.1 201 C\r\n" EMPTY, 0, 0, 0, 0},
	};
	static const char *const heads[] = {"PUT /base/s/a/abcd ", "MKCOL /base/s/ ",
					    "MKCOL /base/s/a/ ", "PUT /base/s/a/abcd "};

	(void)state;
	open_node(act, 4, DAV);
	struct node_io *io = run(put_io("s/abcd", 100), 20000);
	assert_int_equal(io->err, 0);
	node_io_unref(io);
	assert_int_equal(sc_cnt(sv), 4);
	for (unsigned i = 0; i < 4; i++)
		assert_memory_equal(sc_seen(sv, i), heads[i], strlen(heads[i]));
	close_node();

	/* A large body is not sent in vain: its folder is made first. */
	open_node(act + 1, 3, DAV);
	io = run(put_io("s/abcd", 100000), 20000);
	assert_int_equal(io->err, 0);
	node_io_unref(io);
	assert_memory_equal(sc_seen(sv, 0), "MKCOL", 5);
	assert_memory_equal(sc_seen(sv, 2), "PUT", 3);
	close_node();

	/* It says 409 for ever. */
	open_node(act, 1, DAV);
	io = run(put_io("s/abcd", 100), 20000);
	assert_int_equal(io->err, -ENODEV);
	node_io_unref(io);
	close_node();
}

static void test_put_errors(void **state)
{
	static const struct {
		const char *url, *reply;
		int err;
	} cases[] = {
		{DAV, "HTTP/1.1 507 F\r\n" EMPTY, -ENOSPC},
		{DAV, "HTTP/1.1 500 F\r\n" EMPTY, -ENOSPC},
		{DAV, "HTTP/1.1 405 F\r\n" EMPTY, -EACCES},
		{DAV, "HTTP/1.1 411 F\r\n" EMPTY, -EIO},
		{DAV, "HTTP/1.1 413 F\r\n" EMPTY, -EACCES},
		{DAV, "HTTP/1.1 202 A\r\n" EMPTY, -EIO},
		{S3, "HTTP/1.1 202 A\r\n" EMPTY, -EIO},
		{S3, ERROR("403 F", "QuotaExceeded", ""), -ENOSPC},
		{S3, ERROR("507 F", "XMinioStorageFull", ""), -ENOSPC},
		{S3, ERROR("411 F", "MissingContentLength", ""), -EIO},
		{S3, ERROR("500 F", "InternalError", ""), -EIO},
	};

	(void)state;
	for (size_t i = 0; i < CNT(cases); i++) {
		struct act act = {cases[i].reply,
				  strstr(cases[i].reply, "close") ? ACT_CLOSE : ACT_KEEP, 0, 0,
				  0};

		open_node(&act, 1, cases[i].url);
		struct node_io *io = run(put_io("l/abcd", 100), 20000);
		if (io->err != cases[i].err || !io->why[0])
			fail_msg("%.50s: %d %s", cases[i].reply, io->err, io->why);
		node_io_unref(io);
		close_node();
	}
}

/* A node that hangs holds neither the memory of a PUT nor a close. */
static _Atomic int released;

static void on_release(struct node_io *io)
{
	(void)io;
	released++;
}

static void test_hang(void **state)
{
	static const struct act reads = {"", ACT_HANG, 0, 0, 0},
				deaf = {"", ACT_HANG, true, 0, 0};
	struct node_io *io[20];
	struct node_wait w;

	(void)state;
	for (int pass = 0; pass < 4; pass++) {
		open_node(pass % 2 ? &deaf : &reads, 1, pass / 2 ? S3 : DAV);
		released = 0;
		node_wait_init(&w);
		for (int i = 0; i < 20; i++) {
			char name[16];

			snprintf(name, sizeof name, "l/x%d", i);
			io[i] = put_io(name, 1u << 20);
			io[i]->trusted = true;
			io[i]->release = on_release;
			/* Half of them end by their deadline, the others by the close. */
			io[i]->deadline_ms = now_ms() + (i % 2 ? 300 : 600000);
			node_wait_submit(&w, node, io[i]);
		}
		for (int i = 0; i < 10; i++) {
			struct node_io *back = node_wait_next(&w, now_ms() + 30000);
			assert_non_null(back);
			assert_int_equal(back->err, -ETIMEDOUT);
			node_io_unref(back);
		}
		/* The last may be between its two halves for a moment. */
		for (int i = 0; i < 1000 && released < 10; i++)
			usleep(10000);
		assert_int_equal(released, 10);
		node_wait_release(&w);
		close_node();
		assert_int_equal(released, 20);
	}
}

/* --- reads that are left --- */

static struct node_wait gone; /* where those that were left turn up in the end */

static void on_left(struct node_io *io)
{
	assert_ptr_equal(io->left_arg, &gone);
	pthread_mutex_lock(&gone.lock);
	*gone.tail = io;
	io->next = NULL;
	gone.tail = &io->next;
	pthread_cond_signal(&gone.cond);
	pthread_mutex_unlock(&gone.lock);
}

static struct node_io *get_io(void)
{
	struct node_io *io = node_io_new(NODE_GET, "l/abcd");

	assert_non_null(io);
	io->len = 5;
	io->trusted = true;
	io->deadline_ms = now_ms() + 60000;
	return io;
}

/*
 * A read that nobody waits for any more: taken back, it costs the server its connection; left,
 * it ends by itself and the next one has the connection.  One that hangs ends soon all the
 * same, and that is what the node is judged by.
 */
static void test_leave(void **state)
{
	static const struct act slow = {"HTTP/1.1 206 P\r\nContent-Range: bytes 0-4/9\r\n"
					"Content-Length: 5\r\n\r\nhello",
					ACT_KEEP, false, 2, 0},
				hangs = {"HTTP/1.1 206 P\r\n", ACT_HANG, false, 0, 0};

	(void)state;
	for (int pass = 0; pass < 3; pass++) {
		struct node_wait w;
		struct node_io *io = get_io();

		open_node(pass == 2 ? &hangs : &slow, 1, DAV);
		node_wait_init(&w);
		node_wait_init(&gone);
		node_wait_submit(&w, node, io);
		while (!sc_cnt(sv))
			usleep(1000);
		if (pass) {
			assert_true(node_wait_leave(&w, io, pass == 1, on_left, &gone));
			node_wait_release(&w);
			gone.pending = 1;
			io = node_wait_next(&gone, now_ms() + 30000);
			assert_non_null(io);
			assert_int_equal(io->err, pass == 1 ? 0 : -ETIMEDOUT);
			if (pass == 1)
				assert_memory_equal(io->buf, "hello", 5);
			assert_int_equal(io->came, pass == 1 ? 5 : 0);
			/* That it was late has been said, of the one that was left as late. */
			assert_int_equal(node->health.lates, pass == 1 ? 0 : 1);
			node_io_unref(io);
		} else {
			node_cancel(io);
			node_wait_release(&w);
		}
		if (pass < 2) {
			io = run(get_io(), 30000);
			assert_int_equal(io->err, 0);
			assert_int_equal(sv->conns, pass ? 1 : 2);
			/* What has come cannot be left any more. */
			node_wait_init(&w);
			assert_false(node_wait_leave(&w, io, false, on_left, &gone));
			node_wait_release(&w);
			node_io_unref(io);
		}
		node_wait_release(&gone);
		close_node();
	}
}

static void test_s3_pages(void **state)
{
#define PAGE(more, token, key)                                                                 \
	"HTTP/1.1 200 O\r\nConnection: close\r\n\r\n<ListBucketResult><IsTruncated>" more      \
	"</IsTruncated>" token "<Contents><Key>pre%2Fl%2F" key                                 \
	"</Key></Contents><Contents><Key>pre/l/UPPER</Key></Contents><Contents><Key>other/l/"  \
	"x</Key>"                                                                              \
	"</Contents></ListBucketResult>"
	static const struct act act[] = {
		{PAGE("true", "<NextContinuationToken>a/b=</NextContinuationToken>", "one"),
		 ACT_CLOSE, 0, 0, 0},
		{PAGE("false", "", "two"), ACT_CLOSE, 0, 0, 0},
	};
	static const struct act lost = {PAGE("true", "", "one"), ACT_CLOSE, 0, 0, 0};
	static const struct act cut = {
		"HTTP/1.1 200 O\r\nConnection: close\r\n\r\n<ListBucketResult>"
		"<Contents><Key>pre/l/one</Key></Contents>",
		ACT_CLOSE, 0, 0, 0};

	(void)state;
	open_node(act, 2, S3);
	struct node_io *io = run(node_io_new(NODE_LIST, "l/"), 20000);
	assert_int_equal(io->err, 0);
	assert_int_equal(io->list.len, 12);
	assert_memory_equal(io->list.p, "l/one\0l/two\0", 12);
	node_io_unref(io);
	assert_non_null(strstr(sc_seen(sv, 0),
			       "GET /bucket?encoding-type=url&list-type=2&max-keys=1000&"
			       "prefix=pre%2Fl%2F HTTP/1.1"));
	assert_non_null(strstr(sc_seen(sv, 1), "?continuation-token=a%2Fb%3D&encoding-type"));
	assert_non_null(
		strstr(sc_seen(sv, 0), "Authorization: AWS4-HMAC-SHA256 Credential=AK/"));
	assert_null(strstr(sc_seen(sv, 0), "hunter2"));
	close_node();

	/* A listing that ends in the middle is none: what is missing would be thought lost. */
	open_node(&lost, 1, S3);
	io = run(node_io_new(NODE_LIST, "l/"), 20000);
	assert_int_equal(io->err, -EIO);
	node_io_unref(io);
	close_node();
	open_node(&cut, 1, S3);
	io = run(node_io_new(NODE_LIST, "l/"), 20000);
	assert_int_equal(io->err, -EIO);
	assert_int_equal(io->list.len, 0);
	node_io_unref(io);
	close_node();
}

static void test_dav_list(void **state)
{
#define RESP(href, type)                                                                       \
	"<D:response><D:href>" href "</D:href><D:propstat><D:prop><D:resourcetype>" type       \
	"</D:resourcetype></D:prop></D:propstat></D:response>"
	static const struct act act = {
		"HTTP/1.1 207 M\r\nConnection: close\r\n\r\n<D:multistatus "
		"xmlns:D=\"DAV:\">" RESP("/base/l/", "<D:collection/>") RESP("/base/l/one", "")
			RESP("http://h/base/l/two", "") RESP("/base/l/dir", "<D:collection/>")
				RESP("/base/l/.davfs.tmp1", "") RESP("/base/l/dir2/", "")
					RESP("/base/other/three", "") "</D:multistatus>",
		ACT_CLOSE, 0, 0, 0};
	static const struct act none = {"HTTP/1.1 405 N\r\n" EMPTY, 0, 0, 0, 0};
	static const struct act html = {"HTTP/1.1 200 O\r\nContent-Length: 6\r\n\r\n<html>", 0,
					0, 0, 0};

	(void)state;
	open_node(&act, 1, DAV);
	struct node_io *io = run(node_io_new(NODE_LIST, "l/"), 20000);
	assert_int_equal(io->err, 0);
	assert_int_equal(io->list.len, 12);
	assert_memory_equal(io->list.p, "l/one\0l/two\0", 12);
	node_io_unref(io);
	assert_non_null(strstr(sc_seen(sv, 0), "PROPFIND /base/l/ "));
	assert_non_null(strstr(sc_seen(sv, 0), "Depth: 1\r\n"));
	close_node();
	open_node(&none, 1, DAV);
	io = run(node_io_new(NODE_LIST, "s/"), 20000);
	assert_int_equal(io->err, -EACCES);
	assert_non_null(strstr(io->why, "cannot list"));
	node_io_unref(io);
	close_node();
	open_node(&html, 1, DAV);
	io = run(node_io_new(NODE_LIST, "s/"), 20000);
	assert_true(io->err == -EIO || io->err == -EACCES);
	node_io_unref(io);
	close_node();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_probe),	    cmocka_unit_test(test_dav_place),
		cmocka_unit_test(test_dav_parents), cmocka_unit_test(test_put_errors),
		cmocka_unit_test(test_s3_pages),    cmocka_unit_test(test_dav_list),
		cmocka_unit_test(test_hang),	    cmocka_unit_test(test_leave),
	};

	log_set_quiet(true);
	log_set_level(LOG_LVL_ERROR);
	if (keys_global_init())
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
