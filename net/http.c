/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The thread, hosts, their lines and windows.  See http.h. */
#include "net/http_impl.h"

#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <sodium.h>
#include <stdlib.h>

#define WINDOW_MIN	 1.0
#define ATTEMPTS_MAX	 5
#define BACKOFF_MS	 100
#define BACKOFF_CAP_MS	 10000
#define HOLD_CAP_MS	 60000
#define RETRIES_START	 10.0
#define RETRIES_CAP	 20.0
#define STALL_MS	 30000 /* not one byte either way */
#define TICK_MS		 500
#define LIMIT_TICK_MS	 10
#define BURST_MS	 250 /* of tokens that may be saved up */
#define CUT_EVERY_MS	 1000
#define DEADLINE_NEAR_MS 50
#define CONNECTIONS	 256l

static struct {
	pthread_mutex_t life; /* starts and stops, outside of lock */
	pthread_mutex_t lock; /* of tasks, stop, users, and what hosts say */
	pthread_cond_t idle;
	pthread_t thread;
	unsigned users;
	bool stop;
	struct http_task *head, **tail;
	CURLM *multi;
	CURLSH *share;
	struct http_host *hosts; /* the thread's */
	struct bucket up, down;
} net = {.life = PTHREAD_MUTEX_INITIALIZER,
	 .lock = PTHREAD_MUTEX_INITIALIZER,
	 .idle = PTHREAD_COND_INITIALIZER,
	 .tail = &net.head};

/* --- lists --- */

void http_list_add(struct http_list *l, struct http_req *r)
{
	r->next = NULL;
	r->prev = l->tail;
	*(l->tail ? &l->tail->next : &l->head) = r;
	l->tail = r;
	l->cnt++;
}

void http_list_del(struct http_list *l, struct http_req *r)
{
	*(r->prev ? &r->prev->next : &l->head) = r->next;
	*(r->next ? &r->next->prev : &l->tail) = r->prev;
	r->prev = r->next = NULL;
	l->cnt--;
}

/* --- limits --- */

static void fill(struct bucket *b, int64_t now)
{
	double rate = (double)b->rate, cap = HF_MAX(rate * BURST_MS / 1000, 16384.0);

	if (b->at_ms)
		b->tokens += rate * (double)(now - b->at_ms) / 1000;
	b->tokens = HF_MIN(b->tokens, cap);
	b->at_ms = now;
}

static bool limited(const struct bucket *b)
{
	return b->rate != 0;
}

size_t http_take_up(struct http_host *h, size_t want)
{
	struct bucket *both[2] = {&h->up, &net.up};
	int64_t now = now_ms();

	for (int i = 0; i < 2; i++) {
		if (!limited(both[i]))
			continue;
		fill(both[i], now);
		/* Not crumbs: a packet at least, unless that is all there is to send. */
		if (both[i]->tokens < (double)HF_MIN(want, (size_t)1400))
			return 0;
		want = HF_MIN(want, (size_t)both[i]->tokens);
	}
	for (int i = 0; i < 2; i++)
		if (limited(both[i]))
			both[i]->tokens -= (double)want;
	pthread_mutex_lock(&net.lock);
	h->stats.up_bytes += want;
	pthread_mutex_unlock(&net.lock);
	return want;
}

bool http_may_down(struct http_host *h)
{
	struct bucket *both[2] = {&h->down, &net.down};
	int64_t now = now_ms();

	for (int i = 0; i < 2; i++) {
		if (!limited(both[i]))
			continue;
		fill(both[i], now);
		if (both[i]->tokens <= 0)
			return false;
	}
	return true;
}

void http_took_down(struct http_host *h, size_t len)
{
	if (limited(&h->down))
		h->down.tokens -= (double)len;
	if (limited(&net.down))
		net.down.tokens -= (double)len;
	pthread_mutex_lock(&net.lock);
	h->stats.down_bytes += len;
	pthread_mutex_unlock(&net.lock);
}

void http_set_limits(uint64_t up, uint64_t down)
{
	net.up.rate = up;
	net.down.rate = down;
	pthread_mutex_lock(&net.lock);
	if (net.users)
		curl_multi_wakeup(net.multi);
	pthread_mutex_unlock(&net.lock);
}

/* --- the window --- */

static void window_cut(struct http_host *h, double to, int64_t now)
{
	/* Once for what was under way when it was too much. */
	if (now - h->cut_ms < CUT_EVERY_MS)
		return;
	h->cut_ms = now;
	h->slow_start = 0;
	h->window = HF_MAX(h->window * to, WINDOW_MIN);
}

static void window_learn(struct http_host *h, const struct http_req *r, int64_t now)
{
	bool busy = !r->err && (r->status == 429 || r->status == 503);

	if (busy || r->err == -ETIMEDOUT) {
		window_cut(h, 0.5, now);
		if (busy && r->head.retry_s > 0)
			h->hold_ms = HF_MAX(h->hold_ms, now + HF_MIN(r->head.retry_s * 1000,
								     (int64_t)HOLD_CAP_MS));
		return;
	}
	if (r->err)
		return;
	if (r->kind == HTTP_GET && r->status < 300) {
		double first = (double)r->first_ms;

		/* The base forgets slowly: routes change. */
		if (h->base_first_ms <= 0 || first < h->base_first_ms)
			h->base_first_ms = first;
		else
			h->base_first_ms += (first - h->base_first_ms) * 0.002;
		h->cur_first_ms =
			h->cur_first_ms > 0 ? h->cur_first_ms * 0.9 + first * 0.1 : first;
		if (h->cur_first_ms > 3 * h->base_first_ms + 50 && h->window > 4) {
			window_cut(h, 0.8, now);
			return;
		}
	}
	/* Only a window that was full says something about a larger one. */
	if ((double)h->running.cnt + 1 >= floor(h->window))
		h->window += h->slow_start > 0 ? 0.5 : 1 / h->window;
	h->window = HF_MIN(h->window, (double)HTTP_WINDOW_MAX);
}

/* How many bulk requests may be under way one way: a part is left to what is small. */
static unsigned bulk_max(const struct http_host *h)
{
	return HF_MAX((unsigned)h->window * 3 / 4, 1u);
}

/* --- requests --- */

static void start_some(struct http_host *h);

static void finish(struct http_req *r, int err)
{
	struct http_host *h = r->host;

	r->where = HTTP_ENDED;
	r->err = err;
	r->done(r);
	pthread_mutex_lock(&net.lock);
	if (!--h->alive)
		pthread_cond_broadcast(&net.idle);
	pthread_mutex_unlock(&net.lock);
}

static struct http_list *line_of(struct http_req *r)
{
	switch (r->where) {
	case HTTP_QUEUED:
		return http_bulk(r) ? &http_lane_of(r)->line : &r->host->small;
	case HTTP_WAITING:
		return &r->host->later;
	default:
		return &r->host->running;
	}
}

static void enqueue(struct http_req *r)
{
	r->where = HTTP_QUEUED;
	http_list_add(line_of(r), r);
}

static void not_running(struct http_req *r)
{
	http_list_del(&r->host->running, r);
	http_lane_of(r)->l.running -= http_bulk(r);
}

/* Repeats r later when that may help and can be afforded. */
static bool again(struct http_req *r, int64_t now)
{
	struct http_host *h = r->host;
	int64_t wait, least;
	bool answer = r->fresh; /* to a question for a password: nothing failed */

	if (!xfer_repeatable(r, &least) || r->attempts >= ATTEMPTS_MAX ||
	    (!answer && h->retries_left < 1))
		return false;
	wait = HF_MIN((int64_t)BACKOFF_MS << HF_MIN(r->attempts - 1, 10u),
		      (int64_t)BACKOFF_CAP_MS);
	/* A connection that was dead already costs no patience; else half to all of it. */
	if (answer || (r->err == -EIO && r->attempts == 1))
		wait = 0;
	else
		wait = wait / 2 + randombytes_uniform((uint32_t)wait / 2 + 1);
	wait = HF_MAX(wait, least);
	if (now + wait >= r->deadline_ms) {
		if (!r->err && (r->status == 429 || r->status == 503)) {
			r->err = -EAGAIN;
			snprintf(r->why, sizeof r->why,
				 "HTTP %ld: busy, and wants to be asked again "
				 "in %lld s",
				 r->status, (long long)(wait + 999) / 1000);
		}
		return false;
	}
	h->retries_left -= !answer;
	pthread_mutex_lock(&net.lock);
	h->stats.retries += !answer;
	pthread_mutex_unlock(&net.lock);
	r->due_ms = now + wait;
	r->where = HTTP_WAITING;
	http_list_add(&h->later, r);
	return true;
}

static void ended(struct http_req *r, CURLcode code)
{
	struct http_host *h = r->host;
	int64_t now = now_ms();

	curl_multi_remove_handle(net.multi, r->easy);
	xfer_end(r, code);
	not_running(r);
	window_learn(h, r, now);
	h->retries_left = HF_MIN(h->retries_left + 0.1, RETRIES_CAP);
	if (!again(r, now))
		finish(r, r->err);
	start_some(h);
}

static void begin(struct http_req *r)
{
	struct http_host *h = r->host;

	r->attempts++;
	int err = xfer_begin(r, net.share);
	if (!err) {
		r->where = HTTP_RUNNING;
		http_list_add(&h->running, r);
		http_lane_of(r)->l.running += http_bulk(r);
		if (curl_multi_add_handle(net.multi, r->easy)) {
			not_running(r);
			xfer_drop(r, false);
			err = -ENOMEM;
		}
	}
	pthread_mutex_lock(&net.lock);
	h->stats.requests[r->kind] += !err;
	pthread_mutex_unlock(&net.lock);
	if (err)
		finish(r, err);
}

static void start_some(struct http_host *h)
{
	int64_t now = now_ms();

	if (now < h->hold_ms)
		return;
	while (h->running.cnt < (unsigned)h->window) {
		struct http_req *r = h->small.head;

		for (unsigned i = 0; !r && i < 2; i++)
			if (lane_room(&h->lane[i].l, bulk_max(h)))
				r = h->lane[i].line.head;
		if (!r)
			break;
		http_list_del(line_of(r), r);
		begin(r);
	}
	pthread_mutex_lock(&net.lock);
	h->stats.window = (unsigned)h->window;
	h->stats.running = h->running.cnt;
	h->stats.waiting = h->small.cnt + h->lane[0].line.cnt + h->lane[1].line.cnt +
			   h->later.cnt;
	h->stats.no_range = h->no_range;
	pthread_mutex_unlock(&net.lock);
}

void http_start(struct http_req *r)
{
	struct http_host *h = r->host;
	int64_t now = now_ms();

	pthread_mutex_lock(&net.lock);
	h->alive++;
	pthread_mutex_unlock(&net.lock);
	r->where = HTTP_NEW;
	if (h->hold_ms > now && h->hold_ms >= r->deadline_ms) {
		snprintf(r->why, sizeof r->why, "busy: it wants to be asked again in %lld s",
			 (long long)(h->hold_ms - now + 999) / 1000);
		finish(r, -EAGAIN);
		return;
	}
	enqueue(r);
	start_some(h);
}

void http_abort(struct http_req *r)
{
	struct http_host *h = r->host;

	if (r->where == HTTP_NEW || r->where == HTTP_ENDED)
		return;
	if (r->where == HTTP_RUNNING) {
		int64_t now = now_ms();

		/* Its time was over: that is how most servers that hang are met. */
		if (now + DEADLINE_NEAR_MS >= r->deadline_ms)
			window_cut(h, 0.5, now);
		curl_multi_remove_handle(net.multi, r->easy);
		not_running(r);
		xfer_drop(r, false);
	} else {
		http_list_del(line_of(r), r);
	}
	finish(r, -ECANCELED);
	start_some(h);
}

/* --- the thread --- */

static void run_tasks(void)
{
	pthread_mutex_lock(&net.lock);
	struct http_task *t = net.head;
	net.head = NULL;
	net.tail = &net.head;
	pthread_mutex_unlock(&net.lock);
	while (t) {
		struct http_task *next = t->next;
		t->run(t);
		t = next;
	}
}

/* What waits for time to pass; returns when to look again. */
static int64_t tick(struct http_host *h, int64_t now)
{
	int64_t next = now + TICK_MS;

	for (struct http_req *r = h->later.head, *after; r; r = after) {
		after = r->next;
		if (r->due_ms > now) {
			next = HF_MIN(next, r->due_ms);
			continue;
		}
		http_list_del(&h->later, r);
		enqueue(r);
	}
	if (h->hold_ms > now)
		next = HF_MIN(next, h->hold_ms);
	for (unsigned i = 0; i < 2; i++)
		lane_tick(&h->lane[i].l, h->lane[i].line.cnt, bulk_max(h), now);
	start_some(h);
	for (struct http_req *r = h->running.head, *after; r; r = after) {
		after = r->next;
		if (r->paused_up || r->paused_down) {
			/* Who is slow by our wish is not stalled. */
			r->moved_ms = now;
			next = HF_MIN(next, now + LIMIT_TICK_MS);
			bool up = r->paused_up, down = r->paused_down;
			r->paused_up = r->paused_down = false;
			if (up || down)
				curl_easy_pause(r->easy, CURLPAUSE_CONT);
		} else if (now - r->moved_ms > STALL_MS) {
			snprintf(r->why, sizeof r->why, "not a byte for %d s", STALL_MS / 1000);
			curl_multi_remove_handle(net.multi, r->easy);
			not_running(r);
			xfer_drop(r, false);
			r->status = 0;
			r->err = -ETIMEDOUT;
			window_learn(h, r, now);
			finish(r, -ETIMEDOUT);
			/* What its owner did may have emptied the list. */
			after = h->running.head;
		}
	}
	return next;
}

static void *net_main(void *arg)
{
	(void)arg;
	for (;;) {
		int running, left;
		CURLMsg *m;

		run_tasks();
		curl_multi_perform(net.multi, &running);
		while ((m = curl_multi_info_read(net.multi, &left))) {
			struct http_req *r = NULL;
			CURLcode code = m->data.result;

			if (m->msg != CURLMSG_DONE)
				continue;
			curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **)&r);
			ended(r, code);
		}
		int64_t now = now_ms(), next = now + TICK_MS;
		for (struct http_host *h = net.hosts, *after; h; h = after) {
			after = h->next;
			next = HF_MIN(next, tick(h, now));
		}
		pthread_mutex_lock(&net.lock);
		bool stop = net.stop && !net.head;
		pthread_mutex_unlock(&net.lock);
		if (stop)
			return NULL;
		curl_multi_poll(net.multi, NULL, 0, (int)HF_MAX(next - now_ms(), (int64_t)0),
				NULL);
	}
}

static void net_free(void)
{
	if (net.multi)
		curl_multi_cleanup(net.multi);
	if (net.share)
		curl_share_cleanup(net.share);
	net.multi = NULL;
	net.share = NULL;
}

static void init_curl(void)
{
	curl_global_init(CURL_GLOBAL_ALL);
}

static int net_start(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	sigset_t all, old;

	pthread_once(&once, init_curl);
	net.stop = false;
	net.multi = curl_multi_init();
	net.share = curl_share_init();
	if (!net.multi || !net.share) {
		net_free();
		return -ENOMEM;
	}
	curl_share_setopt(net.share, CURLSHOPT_SHARE, (int)CURL_LOCK_DATA_SSL_SESSION);
	curl_multi_setopt(net.multi, CURLMOPT_MAXCONNECTS, CONNECTIONS);
	/* Signals, SIGPIPE of OpenSSL above all, are not for this thread or its resolvers. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	int err = -pthread_create(&net.thread, NULL, net_main, NULL);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (err) {
		net_free();
		return log_fail(err, "cannot start the network's thread: %s",
				strerrordesc_np(-err));
	}
	pthread_setname_np(net.thread, "hf-net");
	return 0;
}

static int net_get(void)
{
	int err = 0;

	pthread_mutex_lock(&net.life);
	if (!net.users)
		err = net_start();
	if (!err) {
		pthread_mutex_lock(&net.lock);
		net.users++;
		pthread_mutex_unlock(&net.lock);
	}
	pthread_mutex_unlock(&net.life);
	return err;
}

static void net_put(void)
{
	pthread_mutex_lock(&net.life);
	pthread_mutex_lock(&net.lock);
	bool last = !--net.users;
	if (last) {
		net.stop = true;
		curl_multi_wakeup(net.multi);
	}
	pthread_mutex_unlock(&net.lock);
	if (last) {
		pthread_join(net.thread, NULL);
		net_free();
	}
	pthread_mutex_unlock(&net.life);
}

void http_run(struct http_host *h, struct http_task *t)
{
	(void)h;
	t->next = NULL;
	pthread_mutex_lock(&net.lock);
	*net.tail = t;
	net.tail = &t->next;
	curl_multi_wakeup(net.multi);
	pthread_mutex_unlock(&net.lock);
}

/* --- hosts --- */

/* A host enters and leaves the thread's list there; the caller waits for it. */
struct visit {
	struct http_task task;
	struct http_host *host;
	void (*call)(void *arg);
	void *arg;
	bool done;
};

static void visited(struct visit *v)
{
	pthread_mutex_lock(&net.lock);
	v->done = true;
	pthread_cond_broadcast(&net.idle);
	pthread_mutex_unlock(&net.lock);
}

static void enter(struct http_task *t)
{
	struct visit *v = (struct visit *)t;

	v->host->next = net.hosts;
	net.hosts = v->host;
	visited(v);
}

static void leave(struct http_task *t)
{
	struct visit *v = (struct visit *)t;
	struct http_host **p = &net.hosts;

	while (*p != v->host)
		p = &(*p)->next;
	*p = v->host->next;
	while (v->host->idle_cnt)
		curl_easy_cleanup(v->host->idle[--v->host->idle_cnt]);
	visited(v);
}

static void await_visit(struct visit *v)
{
	http_run(v->host, &v->task);
	pthread_mutex_lock(&net.lock);
	while (!v->done)
		pthread_cond_wait(&net.idle, &net.lock);
	pthread_mutex_unlock(&net.lock);
}

static void visit(struct http_host *h, void (*run)(struct http_task *t))
{
	struct visit v = {.task.run = run, .host = h};

	await_visit(&v);
}

static void call(struct http_task *t)
{
	struct visit *v = (struct visit *)t;

	v->call(v->arg);
	visited(v);
}

void http_host_run(struct http_host *h, void (*run)(void *arg), void *arg)
{
	struct visit v = {.task.run = call, .host = h, .call = run, .arg = arg};

	await_visit(&v);
}

static void wiped(char *s)
{
	if (s)
		sodium_memzero(s, strlen(s));
	free(s);
}

static void host_release(struct http_host *h)
{
	free(h->base);
	free(h->ca);
	wiped(h->username);
	wiped(h->password);
	wiped(h->bearer);
	free(h);
}

static int copy(char **to, const char *from)
{
	*to = from ? strdup(from) : NULL;
	return from && !*to ? -ENOMEM : 0;
}

/* What is tried first; a 401 may ask for another way. */
static void choose_auth(struct http_host *h)
{
	h->auth = h->bearer	 ? CURLAUTH_BEARER
		  : !h->username ? 0
		  : h->plain_ok	 ? CURLAUTH_BASIC
				 : CURLAUTH_DIGEST;
}

struct login {
	struct http_host *host;
	char *username, *password, *bearer;
};

static void swap(char **a, char **b)
{
	char *t = *a;

	*a = *b;
	*b = t;
}

static void log_in(void *arg)
{
	struct login *l = arg;
	struct http_host *h = l->host;

	swap(&h->username, &l->username);
	swap(&h->password, &l->password);
	swap(&h->bearer, &l->bearer);
	choose_auth(h);
	h->auth_known = false;
	h->digest = (struct digest){0};
	h->challenge = 0;
}

int http_host_login(struct http_host *h, const char *username, const char *password,
		    const char *bearer)
{
	struct login l = {.host = h};
	int err = copy(&l.username, username) | copy(&l.password, password) |
		  copy(&l.bearer, bearer);

	if (!err)
		http_host_run(h, log_in, &l);
	wiped(l.username);
	wiped(l.password);
	wiped(l.bearer);
	return err ? -ENOMEM : 0;
}

int http_host_new(struct http_host **out, const struct http_host_opts *o)
{
	struct http_host *h = calloc(1, sizeof *h);

	*out = NULL;
	if (!h)
		return -ENOMEM;
	int err = copy(&h->base, o->base) | copy(&h->ca, o->ca) |
		  copy(&h->username, o->username) | copy(&h->password, o->password) |
		  copy(&h->bearer, o->bearer);
	if (!err)
		err = net_get();
	if (err) {
		host_release(h);
		return err;
	}
	h->tls = o->tls;
	h->trust_transport = o->trust_transport;
	h->plain_ok = o->plain_ok;
	choose_auth(h);
	h->window = HTTP_WINDOW_START;
	h->slow_start = 1;
	lane_init(&h->lane[0].l);
	lane_init(&h->lane[1].l);
	h->retries_left = RETRIES_START;
	h->up.rate = o->up_limit;
	h->down.rate = o->down_limit;
	visit(h, enter);
	*out = h;
	return 0;
}

void http_host_free(struct http_host *h)
{
	if (!h)
		return;
	pthread_mutex_lock(&net.lock);
	while (h->alive)
		pthread_cond_wait(&net.idle, &net.lock);
	pthread_mutex_unlock(&net.lock);
	visit(h, leave);
	net_put();
	host_release(h);
}

void http_host_stats(struct http_host *h, struct http_stats *out)
{
	pthread_mutex_lock(&net.lock);
	*out = h->stats;
	pthread_mutex_unlock(&net.lock);
}
