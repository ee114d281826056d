/* SPDX-License-Identifier: GPL-3.0-or-later */
/* One transfer: its handle, what libcurl calls while it runs, and the verdict at its end. */
#include "net/http_impl.h"

#include <fcntl.h>
#include <sodium.h>
#include <stdlib.h>

#define HEADERS_CAP   (64u << 10)
#define TEXT_READ_CAP (64u << 10) /* of an answer that is not 2xx; then the rest is left */
#define CONNECT_MS    10000
#define BUFFER_LEN    (128l << 10)
#define PROOFS_MAX    3
#define USER_AGENT    "holdfast"
#define EARLY	      "it said that it was done before it had every byte"

int http_header(struct http_req *r, const char *fmt, ...)
{
	va_list ap;
	char *line;

	va_start(ap, fmt);
	int len = vasprintf(&line, fmt, ap);
	va_end(ap);
	if (len < 0)
		return -ENOMEM;
	struct curl_slist *more = curl_slist_append(r->headers, line);
	free(line);
	if (!more)
		return -ENOMEM;
	r->headers = more;
	return 0;
}

/* --- what libcurl calls --- */

static bool field(const char *line, size_t len, const char *name, const char **v, size_t *v_len)
{
	size_t n = strlen(name);

	if (len <= n || line[n] != ':' || strncasecmp(line, name, n) != 0)
		return false;
	for (n++; n < len && (line[n] == ' ' || line[n] == '\t'); n++)
		;
	while (len > n &&
	       (line[len - 1] == '\r' || line[len - 1] == '\n' || line[len - 1] == ' '))
		len--;
	*v = line + n;
	*v_len = len - n;
	return true;
}

static void take_location(struct http_head *h, const char *v, size_t len)
{
	size_t n = 0;

	/* A signature or a token may be in the query, a password before the "@". */
	while (n < len && v[n] != '?' && v[n] != '#' && n + 1 < sizeof h->location)
		n++;
	if (memchr(v, '@', n))
		n = 0;
	for (size_t i = 0; i < n; i++)
		h->location[i] = v[i] > 0x20 && v[i] < 0x7f ? v[i] : '?';
	h->location[n] = 0;
}

static long status_of(const struct http_req *r)
{
	long status = 0;

	curl_easy_getinfo(r->easy, CURLINFO_RESPONSE_CODE, &status);
	return status;
}

/* It says that it has everything, and that is not so. */
static bool done_too_early(const struct http_req *r)
{
	long status = status_of(r);

	return !r->host->trust_transport && r->sent_at < r->body_len && status >= 200 &&
	       status < 300;
}

static size_t on_header(char *line, size_t size, size_t cnt, void *arg)
{
	struct http_req *r = arg;
	struct http_head *h = &r->head;
	size_t len = size * cnt, v_len;
	const char *v;

	r->moved_ms = now_ms();
	h->bytes += len;
	if (h->bytes > HEADERS_CAP) {
		r->fault = -EIO;
		snprintf(r->why, sizeof r->why,
			 "the headers of its answer are longer than %u bytes", HEADERS_CAP);
		return 0;
	}
	if (len > 5 && !strncmp(line, "HTTP/", 5)) {
		/* Another answer: the one before was interim, or a question for a password. */
		size_t bytes = h->bytes;

		*h = (struct http_head){.bytes = bytes, .date = -1, .retry_s = -1};
		r->text_len = 0;
		r->text[0] = 0;
		r->body_seen = 0;
		r->asked = false;
	} else if ((len == 2 || len == 1) && done_too_early(r)) {
		r->fault = -EIO;
		snprintf(r->why, sizeof r->why, "%s", EARLY);
		return 0;
	} else if (field(line, len, "Content-Range", &v, &v_len)) {
		if (http_parse_range(v, v_len, h))
			h->have_range = h->range_unsatisfied = false;
	} else if (field(line, len, "Content-Length", &v, &v_len)) {
		h->have_len = http_parse_number(v, v_len, &h->len) == 0;
	} else if (field(line, len, "Transfer-Encoding", &v, &v_len)) {
		h->chunked = true;
	} else if (field(line, len, "WWW-Authenticate", &v, &v_len)) {
		/* The first that can be answered: servers name the best first. */
		r->asked = r->asked || digest_challenge(&r->ask, v, v_len) == 0;
	} else if (field(line, len, "Date", &v, &v_len)) {
		h->date = http_parse_date(v, v_len);
	} else if (field(line, len, "Retry-After", &v, &v_len)) {
		h->retry_s = http_parse_retry(v, v_len, realtime_ns() / 1000000000);
	} else if (field(line, len, "Location", &v, &v_len)) {
		take_location(h, v, v_len);
	} else if (field(line, len, "x-amz-bucket-region", &v, &v_len)) {
		snprintf(h->region, sizeof h->region, "%.*s", (int)HF_MIN(v_len, (size_t)60),
			 v);
		for (char *c = h->region; *c; c++)
			if (*c <= 0x20 || *c >= 0x7f)
				*c = '?';
	}
	return len;
}

/* The first bytes of a body for a range: is it the range that was asked for? */
static int range_begins(struct http_req *r, long status)
{
	const struct http_head *h = &r->head;

	if (r->host->trust_transport)
		return 0;
	if (status == 206) {
		if (!h->have_range || h->range_first != r->off ||
		    h->range_last - h->range_first >= HF_MAX(r->len, (size_t)1)) {
			snprintf(r->why, sizeof r->why,
				 "it sent another range than was asked for");
			return -EIO;
		}
		/* Shorter than asked for is right at the end alone. */
		if (h->range_last - h->range_first + 1 < r->len &&
		    h->range_total != h->range_last + 1) {
			snprintf(r->why, sizeof r->why,
				 "it sent less of a range than there is");
			return -EIO;
		}
		r->skip = 0;
		return 0;
	}
	if (r->off)
		r->host->no_range = true;
	if (r->off > HTTP_SKIP_CAP) {
		snprintf(r->why, sizeof r->why,
			 "it ignores Range and sends the whole: too far to "
			 "read past %llu bytes",
			 (unsigned long long)r->off);
		return -EIO;
	}
	r->skip = r->off;
	return 0;
}

static size_t range_bytes(struct http_req *r, const uint8_t *p, size_t len)
{
	size_t all = len;

	if (r->skip) {
		size_t n = (size_t)HF_MIN((uint64_t)len, r->skip);

		r->skip -= n;
		p += n;
		len -= n;
	}
	size_t n = HF_MIN(len, r->len - r->got);
	if (n)
		memcpy(r->into + r->got, p, n);
	r->got += n;
	if (r->came)
		atomic_store(r->came, r->got);
	if (r->told)
		atomic_fetch_add(r->told, n);
	if (n < len || (r->got == r->len && r->len && status_of(r) == 200 &&
			(!r->head.have_len || r->head.len > r->body_seen))) {
		/* Of a whole blob that is more than was wanted, or a foreign tail. */
		r->enough = true;
		return 0;
	}
	return all;
}

static size_t on_body(char *p, size_t size, size_t cnt, void *arg)
{
	struct http_req *r = arg;
	size_t len = size * cnt;
	long status = status_of(r);

	if (!http_may_down(r->host)) {
		r->paused_down = true;
		return CURL_WRITEFUNC_PAUSE;
	}
	http_took_down(r->host, len);
	http_lane_of(r)->l.moved += len;
	r->moved_ms = now_ms();
	bool first = !r->body_seen;
	r->body_seen += len;
	if (status < 200 || status > 299) {
		size_t n = HF_MIN(len, sizeof r->text - 1 - r->text_len);

		memcpy(r->text + r->text_len, p, n);
		r->text_len += n;
		r->text[r->text_len] = 0;
		if (r->body_seen > TEXT_READ_CAP) {
			r->enough = true;
			return 0;
		}
		return len;
	}
	if (r->ranged) {
		if (first)
			r->fault = range_begins(r, status);
		return r->fault ? 0 : range_bytes(r, (uint8_t *)p, len);
	}
	if (r->sink)
		r->fault = r->sink(r, first, (uint8_t *)p, len);
	else if (r->body_seen > TEXT_READ_CAP)
		r->enough = true;
	return r->fault || r->enough ? 0 : len;
}

static size_t on_read(char *to, size_t size, size_t cnt, void *arg)
{
	struct http_req *r = arg;
	size_t len = HF_MIN(size * cnt, (size_t)(r->body_len - r->sent_at));

	if (!len)
		return 0;
	len = http_take_up(r->host, len);
	if (!len) {
		r->paused_up = true;
		return CURL_READFUNC_PAUSE;
	}
	http_lane_of(r)->l.moved += len;
	r->moved_ms = now_ms();
	r->fault = r->source(r, r->sent_at, (uint8_t *)to, len);
	if (r->fault)
		return CURL_READFUNC_ABORT;
	r->sent_at += len;
	return len;
}

static int on_seek(void *arg, curl_off_t off, int whence)
{
	struct http_req *r = arg;

	if (whence != SEEK_SET || off < 0 || (uint64_t)off > r->body_len)
		return CURL_SEEKFUNC_FAIL;
	r->sent_at = (uint64_t)off;
	return CURL_SEEKFUNC_OK;
}

/* Programs that this one starts (fusermount3) inherit no connection. */
static int on_socket(void *arg, curl_socket_t fd, curlsocktype type)
{
	(void)arg;
	(void)type;
	return fcntl(fd, F_SETFD, FD_CLOEXEC) < 0 ? CURL_SOCKOPT_ERROR : CURL_SOCKOPT_OK;
}

/* --- the handle --- */

/* What is the same for all requests of a host. */
static CURL *handle_new(const struct http_host *h, CURLSH *share)
{
	CURL *e = curl_easy_init();

	if (!e)
		return NULL;
	curl_easy_setopt(e, CURLOPT_SHARE, share);
	curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1l);
	curl_easy_setopt(e, CURLOPT_QUICK_EXIT, 1l);
	curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, h->tls ? "https" : "http");
	curl_easy_setopt(e, CURLOPT_PROXY, "");
	curl_easy_setopt(e, CURLOPT_NETRC, (long)CURL_NETRC_IGNORED);
	curl_easy_setopt(e, CURLOPT_FOLLOWLOCATION, 0l);
	curl_easy_setopt(e, CURLOPT_HTTP_CONTENT_DECODING, 0l);
	curl_easy_setopt(e, CURLOPT_PATH_AS_IS, 1l);
	curl_easy_setopt(e, CURLOPT_USERAGENT, USER_AGENT);
	curl_easy_setopt(e, CURLOPT_CONNECTTIMEOUT_MS, (long)CONNECT_MS);
	curl_easy_setopt(e, CURLOPT_TCP_NODELAY, 1l);
	curl_easy_setopt(e, CURLOPT_TCP_KEEPALIVE, 1l);
	curl_easy_setopt(e, CURLOPT_TCP_KEEPIDLE, 30l);
	curl_easy_setopt(e, CURLOPT_TCP_KEEPINTVL, 15l);
	curl_easy_setopt(e, CURLOPT_BUFFERSIZE, BUFFER_LEN);
	curl_easy_setopt(e, CURLOPT_UPLOAD_BUFFERSIZE, BUFFER_LEN);
	curl_easy_setopt(e, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
	curl_easy_setopt(e, CURLOPT_SSL_VERIFYPEER, 1l);
	curl_easy_setopt(e, CURLOPT_SSL_VERIFYHOST, 2l);
	if (h->ca) {
		curl_easy_setopt(e, CURLOPT_CAINFO, h->ca);
		curl_easy_setopt(e, CURLOPT_CAPATH, NULL);
	}
	curl_easy_setopt(e, CURLOPT_HEADERFUNCTION, on_header);
	curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, on_body);
	curl_easy_setopt(e, CURLOPT_READFUNCTION, on_read);
	curl_easy_setopt(e, CURLOPT_SEEKFUNCTION, on_seek);
	curl_easy_setopt(e, CURLOPT_SOCKOPTFUNCTION, on_socket);
	return e;
}

/* The answer to the host's challenge, if it has made one yet. */
static int set_digest(struct http_req *r)
{
	struct http_host *h = r->host;
	char answer[DIGEST_CAP], cnonce[33];
	uint8_t random[16];

	r->proved = h->challenge;
	if (!h->challenge)
		return 0;
	randombytes_buf(random, sizeof random);
	sodium_bin2hex(cnonce, sizeof cnonce, random, sizeof random);
	int err = digest_answer(&h->digest, h->username, h->password, r->method, r->path, cnonce,
				answer);
	return err ? err : http_header(r, "Authorization: %s", answer);
}

static int set_proof(struct http_req *r)
{
	const struct http_host *h = r->host;
	bool basic = h->auth == CURLAUTH_BASIC;

	r->proved = 0;
	r->asked = false;
	if (!h->auth)
		return 0;
	/* The handle may be of a time when another proof was given. */
	if (curl_easy_setopt(r->easy, CURLOPT_HTTPAUTH, basic ? CURLAUTH_BASIC : CURLAUTH_BEARER) ||
	    curl_easy_setopt(r->easy, CURLOPT_XOAUTH2_BEARER, h->bearer) ||
	    curl_easy_setopt(r->easy, CURLOPT_USERNAME, basic ? h->username : NULL) ||
	    curl_easy_setopt(r->easy, CURLOPT_PASSWORD, basic ? h->password : NULL))
		return -ENOMEM;
	return h->auth == CURLAUTH_DIGEST ? set_digest(r) : 0;
}

static int set_request(struct http_req *r)
{
	const struct http_host *h = r->host;
	CURL *e = r->easy;
	char *url;

	if (asprintf(&url, "%s%s", h->base, r->path) < 0)
		return -ENOMEM;
	CURLcode rc = curl_easy_setopt(e, CURLOPT_URL, url);
	free(url);
	if (rc)
		return -ENOMEM;
	/* The first sets the shape, the last the word. */
	if (r->body_len || r->kind == HTTP_PUT) {
		curl_easy_setopt(e, CURLOPT_UPLOAD, 1l);
		curl_easy_setopt(e, CURLOPT_INFILESIZE_LARGE, (curl_off_t)r->body_len);
	} else {
		curl_easy_setopt(e, CURLOPT_HTTPGET, 1l);
	}
	curl_easy_setopt(e, CURLOPT_CUSTOMREQUEST, r->method);
	curl_easy_setopt(e, CURLOPT_HTTP_VERSION,
			 http_bulk(r) || !h->tls ? (long)CURL_HTTP_VERSION_1_1
					 : (long)CURL_HTTP_VERSION_2TLS);
	curl_easy_setopt(
		e, CURLOPT_TIMEOUT_MS,
		(long)HF_MIN(HF_MAX(r->deadline_ms - now_ms(), (int64_t)1), (int64_t)86400000));
	int err = set_proof(r);
	if (err)
		return err;
	curl_easy_setopt(e, CURLOPT_HTTPHEADER, r->headers);
	curl_easy_setopt(e, CURLOPT_HEADERDATA, r);
	curl_easy_setopt(e, CURLOPT_WRITEDATA, r);
	curl_easy_setopt(e, CURLOPT_READDATA, r);
	curl_easy_setopt(e, CURLOPT_SEEKDATA, r);
	curl_easy_setopt(e, CURLOPT_PRIVATE, r);
	return 0;
}

int xfer_begin(struct http_req *r, CURLSH *share)
{
	struct http_host *h = r->host;
	/* A range of nothing cannot be asked for: one byte, which is thrown away. */
	uint64_t last = r->off + HF_MAX(r->len, (size_t)1) - 1;

	r->sent_at = r->body_seen = r->skip = 0;
	r->got = r->text_len = 0;
	if (r->came)
		atomic_store(r->came, 0);
	r->text[0] = r->why[0] = 0;
	r->fault = 0;
	r->status = 0;
	r->enough = r->paused_up = r->paused_down = false;
	r->head = (struct http_head){.date = -1, .retry_s = -1};
	r->begun_ms = r->moved_ms = now_ms();
	r->easy = h->idle_cnt ? h->idle[--h->idle_cnt] : handle_new(h, share);
	if (!r->easy)
		return -ENOMEM;
	/* No round trip before a body. */
	int err = http_header(r, "Expect:");
	if (!err && r->ranged)
		err = http_header(r, "Range: bytes=%llu-%llu", (unsigned long long)r->off,
				  (unsigned long long)last);
	if (!err && r->prepare)
		err = r->prepare(r);
	if (!err)
		err = set_request(r);
	if (err)
		xfer_drop(r, true);
	return err;
}

void xfer_drop(struct http_req *r, bool whole)
{
	struct http_host *h = r->host;

	if (!r->easy)
		return;
	curl_easy_setopt(r->easy, CURLOPT_HTTPHEADER, NULL);
	/* It keeps what it knows of Digest; curl_easy_reset would forget. */
	if (whole && h->idle_cnt < HTTP_WINDOW_MAX)
		h->idle[h->idle_cnt++] = r->easy;
	else
		curl_easy_cleanup(r->easy);
	r->easy = NULL;
	curl_slist_free_all(r->headers);
	r->headers = NULL;
}

/* --- the verdict --- */

static int failed(struct http_req *r, int err, const char *what)
{
	snprintf(r->why, sizeof r->why, "%s", what);
	return err;
}

static int transport(struct http_req *r, CURLcode code)
{
	switch (code) {
	case CURLE_COULDNT_RESOLVE_HOST:
		return failed(r, -ENODEV, "the name of its host cannot be resolved");
	case CURLE_COULDNT_CONNECT:
		return failed(r, -ENODEV,
			      "no connection: nothing answers there, or the network is "
			      "away");
	case CURLE_OPERATION_TIMEDOUT:
		return failed(r, -ETIMEDOUT, "no answer in time");
	case CURLE_PEER_FAILED_VERIFICATION:
	case CURLE_SSL_ISSUER_ERROR:
	case CURLE_SSL_INVALIDCERTSTATUS:
		return failed(r, -EACCES,
			      "its certificate is not trusted: for another name, out of "
			      "date, or of an unknown CA (ca=/file in the address names "
			      "a private one)");
	case CURLE_SSL_CACERT_BADFILE:
		return failed(r, -EACCES, "the CA file of its address cannot be read");
	case CURLE_SSL_CONNECT_ERROR:
		return failed(r, -EIO, "no TLS connection: is https spoken there?");
	case CURLE_OUT_OF_MEMORY:
		return failed(r, -ENOMEM, "out of memory");
	case CURLE_GOT_NOTHING:
		return failed(r, -EIO, "it ended the connection without an answer");
	case CURLE_SEND_ERROR:
	case CURLE_RECV_ERROR:
		return failed(r, -EIO, "the connection broke");
	case CURLE_PARTIAL_FILE:
		return failed(r, -EIO, "its answer was cut short");
	case CURLE_WEIRD_SERVER_REPLY:
	case CURLE_UNSUPPORTED_PROTOCOL:
	case CURLE_HTTP2:
	case CURLE_HTTP2_STREAM:
	case CURLE_BAD_CONTENT_ENCODING:
		return failed(r, -EIO, "what it answers is not HTTP");
	default:
		snprintf(r->why, sizeof r->why, "%s", curl_easy_strerror(code));
		return -EIO;
	}
}

/* A 2xx answer to a ranged request, or 416. */
static int range_verdict(struct http_req *r)
{
	const struct http_head *h = &r->head;
	long version = 0;

	if (r->status == 416) {
		r->got = 0;
		if (h->range_unsatisfied && h->range_total > r->off)
			return failed(r, -EIO,
				      "it says that a range is past the end, and that the "
				      "end is later");
		return 0;
	}
	if (r->status == 206) {
		/* Without a body range_begins was not asked yet. */
		if (!r->body_seen && range_begins(r, 206))
			return -EIO;
		if (r->body_seen != h->range_last - h->range_first + 1)
			return failed(r, -EIO,
				      "its answer was cut short or is longer than it says");
		return 0;
	}
	if (r->status != 200) {
		snprintf(r->why, sizeof r->why, "HTTP %ld to a read", r->status);
		return -EIO;
	}
	if (!r->body_seen && range_begins(r, 200))
		return -EIO;
	if (r->got == r->len)
		return 0;
	/* Short: only right when the end of the blob was seen. */
	curl_easy_getinfo(r->easy, CURLINFO_HTTP_VERSION, &version);
	if (!h->have_len && !h->chunked && version < CURL_HTTP_VERSION_2_0)
		return failed(r, -EIO, "an answer without a length: its end cannot be told");
	if (h->have_len && h->len != r->body_seen)
		return failed(r, -EIO, "its answer was cut short");
	return 0;
}

static int verdict(struct http_req *r, CURLcode code)
{
	curl_off_t up = 0;

	curl_easy_getinfo(r->easy, CURLINFO_RESPONSE_CODE, &r->status);
	curl_easy_getinfo(r->easy, CURLINFO_SIZE_UPLOAD_T, &up);
	bool refused = r->status >= 300;
	if (r->fault) {
		if (!r->why[0])
			snprintf(r->why, sizeof r->why, "%s", strerrordesc_np(-r->fault));
		return r->fault;
	}
	/*
	 * Why it was refused is worth more than that the connection broke while the body was
	 * still being sent.
	 */
	if (code && !r->enough &&
	    !(refused && (code == CURLE_SEND_ERROR || code == CURLE_RECV_ERROR ||
			  code == CURLE_PARTIAL_FILE)))
		return transport(r, code);
	if (r->status < 200)
		return failed(r, -EIO, "the connection ended after an interim answer");
	if ((refused && !(r->ranged && r->status == 416)) || r->host->trust_transport)
		return 0;
	if (r->body_len && (uint64_t)up != r->body_len)
		return failed(r, -EIO, EARLY);
	return r->ranged ? range_verdict(r) : 0;
}

/* Which proof of the password it wants; the next attempt gives that. */
static void learn_proof(struct http_req *r)
{
	struct http_host *h = r->host;
	long avail = 0;

	/* A redirect, or a proxy's error, says nothing of what was proved. */
	if (r->status >= 200 && r->status < 300)
		h->auth_known = true;
	if (r->status != 401)
		return;
	curl_easy_getinfo(r->easy, CURLINFO_HTTPAUTH_AVAIL, &avail);
	bool basic = (avail & (long)CURLAUTH_BASIC) != 0;
	if (h->auth == CURLAUTH_BASIC && !basic && r->asked) {
		h->auth = CURLAUTH_DIGEST;
	} else if (h->auth == CURLAUTH_DIGEST && basic && !r->asked && !h->auth_known) {
		/* Never once Digest served: that would give the password to whoever asks. */
		h->auth = CURLAUTH_BASIC;
		r->fresh = true;
	}
	if (h->auth != CURLAUTH_DIGEST || !r->asked || r->proofs >= PROOFS_MAX)
		return;
	/* One that answered this very challenge and is not told that it is old is not let in. */
	if (r->proved && r->proved == h->challenge && !r->ask.stale)
		return;
	if (r->proved == h->challenge) {
		h->digest = r->ask;
		h->challenge++;
	}
	r->proofs++;
	r->fresh = true;
}

void xfer_end(struct http_req *r, CURLcode code)
{
	curl_off_t first_us = 0;

	r->err = verdict(r, code);
	r->took_ms = now_ms() - r->begun_ms;
	curl_easy_getinfo(r->easy, CURLINFO_STARTTRANSFER_TIME_T, &first_us);
	r->first_ms = first_us ? first_us / 1000 : r->took_ms;
	if (!r->err && r->host->username)
		learn_proof(r);
	xfer_drop(r, code == CURLE_OK);
}

bool xfer_repeatable(struct http_req *r, int64_t *wait_ms)
{
	*wait_ms = 0;
	if (r->fresh) {
		r->fresh = false;
		return true;
	}
	/* A server that answers wrongly will again; a connection that broke is another matter.
	 */
	if (r->err == -EIO)
		return r->attempts < (r->status >= 200 ? 2u : 4u);
	if (r->err)
		return false;
	switch (r->status) {
	case 500:
		/* Some say this when their disk is full, and will say it again. */
		return r->attempts < 2;
	case 408:
	case 425:
	case 429:
	case 502:
	case 503:
	case 504:
		if (r->head.retry_s > 0)
			*wait_ms = r->head.retry_s * 1000;
		return true;
	default:
		return false;
	}
}

int http_status_err(struct http_req *r)
{
	const char *what = "";
	int err = -EIO;

	switch (r->status) {
	case 301:
	case 302:
	case 303:
	case 307:
	case 308:
		snprintf(r->why, sizeof r->why,
			 "it redirects, which is not followed, to %.120s: give "
			 "the address where it is",
			 r->head.location[0] ? r->head.location : "?");
		return -EACCES;
	case 401:
		what = ": no credentials, or wrong ones";
		err = -EACCES;
		break;
	case 403:
		what = ": not permitted";
		err = -EACCES;
		break;
	case 404:
	case 410:
		err = -ENOENT;
		break;
	case 405:
		what = ": it does not do this";
		err = -EACCES;
		break;
	case 408:
	case 504:
		err = -ETIMEDOUT;
		break;
	case 411:
		what = ": it wants a length, which was sent: is a proxy between?";
		break;
	case 413:
		what = ": it does not take a blob of this size";
		err = -EACCES;
		break;
	case 425:
	case 429:
	case 503:
		what = ": busy";
		err = -EAGAIN;
		break;
	case 501:
		what = ": it cannot do this";
		err = -EACCES;
		break;
	case 507:
		what = ": no space";
		err = -ENOSPC;
		break;
	default:
		break;
	}
	snprintf(r->why, sizeof r->why, "HTTP %ld%s", r->status, what);
	return err;
}
