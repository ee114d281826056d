/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "net/node_impl.h"
#include "net/cond.h"
#include "net/probe.h"

#include <stdarg.h>
#include <stdlib.h>
#include <time.h>

#define MARKER_NAME  NODE_MARKER
#define MARKER_LEN   (8 + HASH_LEN)
#define MARKER_MAGIC "HFNODE\0\1"
#define SHORT_MS     2000

const char *node_state_name(enum node_state s)
{
	static const char *const name[] = {"up",       "slow",	"down", "full",
					   "refusing", "wrong", "lying"};

	return (unsigned)s < sizeof name / sizeof name[0] ? name[s] : "unknown";
}

int node_check_url(const char *url, char *canon)
{
	struct node_url u;

	int err = url_parse(&u, url);
	if (!err)
		snprintf(canon, NODE_URL_CAP, "%s", u.text);
	url_release(&u);
	return err;
}

/* --- life --- */

static uint32_t hash_domain(const char *name)
{
	uint32_t h = 2166136261u; /* FNV-1a */

	for (; *name; name++)
		h = (h ^ (uint8_t)*name) * 16777619u;
	/* Above every node number, which are the domains of nodes that name none. */
	return h | 0x80000000u;
}

int node_open(struct node **out, uint16_t number, const char *url, struct creds *creds)
{
	static const struct node_kind *const kind[] = {
		[URL_DIR] = &node_dir_kind,
		[URL_S3] = &node_s3_kind,
		[URL_DAV] = &node_dav_kind,
	};

	*out = NULL;
	struct node *n = calloc(1, sizeof *n);
	if (!n)
		return -ENOMEM;
	int err = url_parse(&n->url, url);
	if (err)
		goto fail;
	n->kind = kind[n->url.kind];
	n->number = number;
	n->ref = 1;
	n->domain = n->url.domain ? hash_domain(n->url.domain) : number;
	n->since_ns = realtime_ns();
	snprintf(n->name, sizeof n->name, "node-%u", number);
	snprintf(n->error, sizeof n->error, "not tried yet");
	health_init(&n->health);
	err = node_timer_get();
	if (err)
		goto fail;
	n->creds = creds;
	creds_ref(creds);
	pthread_mutex_init(&n->lock, NULL);
	cond_init(&n->idle);
	err = n->kind->open(n);
	if (err) {
		node_unref(n);
		node_timer_put();
		return err;
	}
	*out = n;
	return 0;
fail:
	url_release(&n->url);
	free(n);
	return err;
}

void node_ref(struct node *n)
{
	atomic_fetch_add(&n->ref, 1);
}

void node_unref(struct node *n)
{
	if (atomic_fetch_sub(&n->ref, 1) != 1)
		return;
	n->kind->free(n);
	pthread_cond_destroy(&n->idle);
	pthread_mutex_destroy(&n->lock);
	url_release(&n->url);
	creds_unref(n->creds);
	free(n);
}

void node_quiet(struct node *n)
{
	pthread_mutex_lock(&n->lock);
	n->closing = true;
	pthread_mutex_unlock(&n->lock);
	node_timer_cancel_all(n);
}

void node_close(struct node *n)
{
	if (!n)
		return;
	node_quiet(n);
	pthread_mutex_lock(&n->lock);
	while (n->pending)
		pthread_cond_wait(&n->idle, &n->lock);
	pthread_mutex_unlock(&n->lock);
	n->kind->stop(n);
	node_unref(n);
	node_timer_put();
}

/* --- what is known of it --- */

uint64_t node_told(const struct node *n)
{
	return atomic_load(&n->told);
}

uint16_t node_number(const struct node *n)
{
	return n->number;
}

uint32_t node_domain(const struct node *n)
{
	return n->domain;
}

const char *node_name(const struct node *n)
{
	return n->name;
}

enum node_state node_state(struct node *n)
{
	pthread_mutex_lock(&n->lock);
	enum node_state s = n->health.state;
	pthread_mutex_unlock(&n->lock);
	return s;
}

int node_login(struct node *n, struct creds *c)
{
	return n->kind->login ? n->kind->login(n, c) : 0;
}

void node_set_member(struct node *n, enum node_member m)
{
	atomic_store(&n->member, (int)m);
}

enum node_member node_member(const struct node *n)
{
	int m = atomic_load(&n->member);

	return m ? (enum node_member)m : NODE_MEMBER;
}

static bool takes_writes(struct node *n)
{
	enum node_state s = node_state(n);

	return s == NODE_UP || s == NODE_SLOW || s == NODE_LYING;
}

bool node_usable(struct node *n)
{
	return node_member(n) == NODE_MEMBER && takes_writes(n);
}

bool node_writable(struct node *n)
{
	enum node_member m = node_member(n);

	return (m == NODE_MEMBER || m == NODE_DRAINING) && takes_writes(n);
}

bool node_doubted(struct node *n)
{
	pthread_mutex_lock(&n->lock);
	bool doubted = health_doubted(&n->health);
	pthread_mutex_unlock(&n->lock);
	return doubted;
}

bool node_readable(struct node *n)
{
	enum node_state s = node_state(n);

	/* One that refuses even to show its marker answers no read. */
	return s != NODE_DOWN && s != NODE_WRONG && (s != NODE_REFUSING || n->accepted) &&
	       node_member(n) != NODE_GONE;
}

bool node_returning(struct node *n)
{
	pthread_mutex_lock(&n->lock);
	bool back = health_returning(&n->health);
	pthread_mutex_unlock(&n->lock);
	return back && node_member(n) != NODE_GONE;
}

bool node_gone_since(struct node *n, int64_t since_ms)
{
	pthread_mutex_lock(&n->lock);
	bool gone = n->gone_ms && n->gone_ms >= since_ms;
	pthread_mutex_unlock(&n->lock);
	return gone;
}

int64_t node_hedge_ms(struct node *n)
{
	pthread_mutex_lock(&n->lock);
	int64_t ms = health_hedge_ms(&n->health);
	pthread_mutex_unlock(&n->lock);
	return ms;
}

int64_t node_expect_ms(struct node *n, size_t len)
{
	pthread_mutex_lock(&n->lock);
	int64_t ms = health_expect_ms(&n->health, len);
	pthread_mutex_unlock(&n->lock);
	return ms;
}

void node_measure(struct node *n, bool up, int64_t first_ms, size_t len, int64_t ms)
{
	pthread_mutex_lock(&n->lock);
	health_measure(&n->health, up, first_ms, len, ms);
	pthread_mutex_unlock(&n->lock);
}

void node_get_info(struct node *n, struct node_info *out)
{
	*out = (struct node_info){.number = n->number};
	snprintf(out->name, sizeof out->name, "%s", n->name);
	snprintf(out->kind, sizeof out->kind, "%s", n->kind->name);
	snprintf(out->url, sizeof out->url, "%s", n->url.text);
	pthread_mutex_lock(&n->lock);
	out->state = n->health.state;
	out->since_ns = n->since_ns;
	memcpy(out->error, n->error, sizeof out->error);
	out->free_bytes = n->free_bytes;
	out->total_bytes = n->total_bytes;
	out->medium = n->medium;
	out->latency_ms = health_quantile(&n->health, 50);
	out->latency_p95_ms = health_quantile(&n->health, 95);
	out->up_bytes_s = (uint64_t)n->health.up_rate;
	out->down_bytes_s = (uint64_t)n->health.down_rate;
	out->ok_ns = n->ok_ns;
	pthread_mutex_unlock(&n->lock);
	if (n->kind->info)
		n->kind->info(n, out);
}

void node_on_change(struct node *n, void (*cb)(struct node *n, void *arg), void *arg)
{
	pthread_mutex_lock(&n->lock);
	n->change = cb;
	n->change_arg = arg;
	pthread_mutex_unlock(&n->lock);
}

void node_set_space(struct node *n, uint64_t free_bytes, uint64_t total_bytes, uint64_t medium)
{
	pthread_mutex_lock(&n->lock);
	n->free_bytes = free_bytes;
	n->total_bytes = total_bytes;
	n->medium = medium;
	pthread_mutex_unlock(&n->lock);
}

static bool serves(enum node_state s)
{
	return s != NODE_DOWN && s != NODE_WRONG && s != NODE_REFUSING;
}

/* Ends what began with locking n->lock and noting n->health.state in `before`. */
static void unlock_and_tell(struct node *n, enum node_state before)
{
	enum node_state after = n->health.state;
	void (*change)(struct node *, void *) = NULL;
	void *arg = n->change_arg;
	char error[sizeof n->error];

	memcpy(error, n->error, sizeof error);
	if (after != before) {
		n->since_ns = realtime_ns();
		if (serves(before) && !serves(after))
			n->gone_ms = now_ms();
		change = n->change;
		if (after == NODE_UP)
			n->error[0] = 0;
	}
	pthread_mutex_unlock(&n->lock);
	if (after == before)
		return;
	if (after == NODE_UP || after == NODE_SLOW)
		log_info("%s (%s) is %s", n->name, n->url.text, node_state_name(after));
	else
		log_warn("%s (%s) is %s: %s", n->name, n->url.text, node_state_name(after), error);
	if (change)
		change(n, arg);
}

static const char *reason(int err, const char *why)
{
	if (*why)
		return why;
	if (err == -ENODEV)
		return "the place is not there";
	if (err == -ETIMEDOUT)
		return "no answer in time";
	const char *s = strerrordesc_np(-err);
	return s ? s : "unknown error";
}

void node_account(struct node *n, const struct node_io *io)
{
	static const char *const word[] = {"PUT", "GET", "DELETE", "LIST", "PROBE"};
	bool late, left = node_io_left(io, &late);
	int64_t took = -1;

	/* What a probe says is judged by who asked for it, with the marker it brought. */
	if (io->op == NODE_PROBE || io->err == -ECANCELED || io->err == -ENOMEM || io->unsent)
		return;
	/* Waiting in our own line is not the node's doing.  Set by who answered, when it did. */
	if (io->op == NODE_GET && (!io->err || io->err == -ENOENT) && !late)
		took = io->wire_ms ? io->wire_ms : io->end_ms - io->start_ms;
	pthread_mutex_lock(&n->lock);
	enum node_state before = n->health.state;
	if (io->err == -ETIMEDOUT && io->start_ms <= n->gone_ms && n->shown_ms > n->gone_ms) {
		/* Of a time that is over: the node was down since, and came back. */
	} else if (io->err == -ETIMEDOUT && (left || io->end_ms - io->start_ms < SHORT_MS)) {
		/* The caller was in a hurry; that alone makes nobody down. */
		if (!late)
			health_late(&n->health);
	} else if (io->err == 0 || io->err == -ENOENT) {
		health_ok(&n->health, took, io->got, io->op == NODE_PUT && !io->err, io->end_ms);
		n->ok_ns = realtime_ns();
		if (n->once_late && n->health.state == NODE_UP && io->op == NODE_GET && io->got &&
		    !late) {
			n->error[0] = 0;
			n->once_late = false;
		}
	} else {
		n->once_late = false;
		snprintf(n->error, sizeof n->error, "%s %s: %s", word[io->op], io->name,
			 reason(io->err, io->why));
		health_fail(&n->health, io->err, io->op == NODE_PUT, n->free_bytes,
			    io->end_ms);
	}
	unlock_and_tell(n, before);
}

void node_lied(struct node *n, const char *blob)
{
	log_warn("%s (%s): %s is not genuine", n->name, n->url.text, blob);
	pthread_mutex_lock(&n->lock);
	enum node_state before = n->health.state;
	snprintf(n->error, sizeof n->error, "%s is not genuine", blob);
	n->once_late = false;
	health_lied(&n->health, now_ms());
	unlock_and_tell(n, before);
}

void node_note(struct node *n, const char *fmt, ...)
{
	char what[sizeof n->error];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(what, sizeof what, fmt, ap);
	va_end(ap);
	log_warn("%s (%s): %s", n->name, n->url.text, what);
	pthread_mutex_lock(&n->lock);
	memcpy(n->error, what, sizeof what);
	n->once_late = false;
	pthread_mutex_unlock(&n->lock);
}

void node_lacks(struct node *n, const char *blob)
{
	node_note(n, "%s is missing", blob);
}

void node_late(struct node *n)
{
	pthread_mutex_lock(&n->lock);
	enum node_state before = n->health.state;
	health_late(&n->health);
	if (n->health.state != before) {
		snprintf(n->error, sizeof n->error, "answers late");
		n->once_late = false;
	} else if (before == NODE_UP && !n->error[0]) {
		/* Once may be all that is asked of it: others are asked from then on. */
		snprintf(n->error, sizeof n->error, "an answer came late, or not at all");
		n->once_late = true;
	}
	unlock_and_tell(n, before);
}

/* --- the marker --- */

static void marker_make(const struct node *n, const uint8_t vol[VOL_LEN],
			uint8_t out[MARKER_LEN])
{
	uint8_t body[VOL_LEN + 2];

	memcpy(body, vol, VOL_LEN);
	put_le16(body + VOL_LEN, n->number);
	memcpy(out, MARKER_MAGIC, 8);
	hash_tag("marker", body, sizeof body, out + 8);
}

static int marker_check(const struct node *n, const uint8_t vol[VOL_LEN], const uint8_t *p,
			size_t len)
{
	uint8_t right[MARKER_LEN];

	marker_make(n, vol, right);
	return len == MARKER_LEN && !memcmp(p, right, MARKER_LEN) ? 0 : -EBADMSG;
}

struct node_io *node_verify_io(int64_t deadline_ms)
{
	struct node_io *io = node_io_new(NODE_PROBE, MARKER_NAME);

	if (!io)
		return NULL;
	io->buf = malloc(MARKER_LEN + 1);
	io->len = MARKER_LEN + 1; /* one more, so that a longer file is noticed */
	io->deadline_ms = deadline_ms;
	if (!io->buf) {
		node_io_unref(io);
		return NULL;
	}
	return io;
}

int node_verify_end(struct node *n, const uint8_t vol[VOL_LEN], const struct node_io *io)
{
	int err = io->err;
	const char *why = reason(err, io->why);
	bool genuine = false;

	if (err == -ECANCELED || err == -ENOMEM)
		return err;
	if (!err || ((err == -EROFS || err == -EACCES) && io->got)) {
		genuine = marker_check(n, vol, io->buf, io->got) == 0;
		if (!genuine) {
			err = -EBADMSG;
			why = "the marker is of another volume or another node, or damaged";
		}
	} else if (err == -ENOENT) {
		why = n->url.kind == URL_DIR
			      ? "no marker of this volume: emptied, or the disk is not mounted?"
			      : "no marker of this volume: emptied, or another place?";
	}
	pthread_mutex_lock(&n->lock);
	enum node_state before = n->health.state;
	/* That a question had no answer is no news where a later one had. */
	if (err == -ETIMEDOUT && n->shown_ms > io->start_ms) {
		pthread_mutex_unlock(&n->lock);
		return err;
	}
	/* Nor does it make the place another one. */
	if (genuine)
		n->accepted = true;
	else if (err != -ETIMEDOUT)
		n->accepted = false;
	if (genuine)
		n->shown_ms = HF_MAX(n->shown_ms, io->start_ms);
	if (err)
		snprintf(n->error, sizeof n->error, "%s", why);
	else
		n->ok_ns = realtime_ns();
	health_verified(&n->health, err, io->end_ms - io->start_ms, n->free_bytes,
			n->total_bytes, io->end_ms);
	unlock_and_tell(n, before);
	return err;
}

/* One request, waited for.  The reference in *out is the caller's; NULL only with -ENOMEM. */
static int call(struct node *n, struct node_io *io, struct node_io **out)
{
	struct node_wait w;

	*out = NULL;
	if (!io)
		return -ENOMEM;
	node_wait_init(&w);
	node_wait_submit(&w, n, io);
	/* It always comes: done is called at the deadline of the request at the latest. */
	while (!(*out = node_wait_next(&w, io->deadline_ms + 60000)))
		;
	node_wait_release(&w);
	return (*out)->err;
}

int node_verify(struct node *n, const uint8_t vol[VOL_LEN], int64_t deadline_ms)
{
	struct node_io *io;
	int err = call(n, node_verify_io(deadline_ms), &io);

	if (!io)
		return err;
	err = node_verify_end(n, vol, io);
	node_io_unref(io);
	return err;
}

/* Anything but what a trial of the place left where nothing can be deleted? */
static bool holds_blobs(const struct buf *list)
{
	for (size_t at = 0; at < list->len;) {
		const char *name = (const char *)list->p + at;

		if (strncmp(name, PROBE_PREFIX, strlen(PROBE_PREFIX)) != 0)
			return true;
		at += strnlen(name, list->len - at) + 1;
	}
	return false;
}

static int init_empty(struct node *n, const uint8_t vol[VOL_LEN], int64_t deadline_ms)
{
	static const char *const prefix[] = {"v/", "l/", "s/"};
	struct node_io *io;
	int err = 0;

	for (unsigned i = 0; i < sizeof prefix / sizeof prefix[0] && !err; i++) {
		io = node_io_new(NODE_LIST, prefix[i]);
		if (!io)
			return -ENOMEM;
		io->deadline_ms = deadline_ms;
		io->trusted = true;
		err = call(n, io, &io);
		if (!err && holds_blobs(&io->list))
			err = log_fail(-ENOTEMPTY, "node %s: holds blobs but no marker; it may be "
				       "part of another volume: choose an empty place", n->url.text);
		else if (err)
			log_fail(err, "node %s: cannot be listed: %s", n->url.text, reason(err, io->why));
		node_io_unref(io);
	}
	if (err)
		return err;
	io = node_io_new(NODE_PUT, MARKER_NAME);
	/* The bytes go to the io: a PUT that hangs may outlive this call. */
	uint8_t *marker = io ? malloc(MARKER_LEN) : NULL;
	if (!marker) {
		node_io_unref(io);
		return -ENOMEM;
	}
	marker_make(n, vol, marker);
	io->buf = marker;
	io->iov[0] = (struct iovec){marker, MARKER_LEN};
	io->iov_cnt = 1;
	io->deadline_ms = deadline_ms;
	io->trusted = true;
	err = call(n, io, &io);
	if (err)
		log_fail(err, "node %s: cannot be written: %s", n->url.text, reason(err, io->why));
	node_io_unref(io);
	return err;
}

int node_init(struct node *n, const uint8_t vol[VOL_LEN], int64_t deadline_ms)
{
	struct node_io *io = node_verify_io(deadline_ms);

	if (!io)
		return -ENOMEM;
	io->create = true;
	int err = call(n, io, &io);
	if (err == -ENOENT)
		err = init_empty(n, vol, deadline_ms);
	else if (err == -ENODEV)
		log_fail(err, "node %s: %s", n->url.text,
			 *io->why ? io->why
				  : "the directory above it is not there; make it, or mount the "
				    "disk");
	else if (err)
		log_fail(err, "node %s: %s", n->url.text, reason(err, io->why));
	else if (marker_check(n, vol, io->buf, io->got) != 0)
		err = log_fail(-EEXIST, "node %s: in use already, by another volume or as another "
			       "node", n->url.text);
	node_io_unref(io);
	return err ? err : node_verify(n, vol, deadline_ms);
}
