/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <stdlib.h>
#include <sys/prctl.h>
#include "cache/cut.h"
#include "cache/move.h"
#include "cache/scrub.h"
#include "net/cond.h"
#include "net/giveup.h"

#define BUSY_BYTES     ((uint64_t)64 << 20) /* in BUSY_MS */
#define BUSY_MS	       1000
#define BUSY_WAIT_MS   25000
#define INTERVAL_MS    5000
#define BACKOFF_MAX_MS 30000

static int wait_until(struct publisher *p, int64_t ms)
{
	return cond_until(&p->cond, &p->lock, ms);
}

int publish_stage(struct publisher *p, const char *name)
{
	if (!p->stage || !p->stage(p->stage_arg, name))
		return 0;
	p->crashed = true;
	return -ECANCELED;
}

bool publish_stopping(struct publisher *p)
{
	pthread_mutex_lock(&p->lock);
	bool stop = p->stopping;
	pthread_mutex_unlock(&p->lock);
	return stop;
}

void publish_reason(struct publisher *p, const char *why)
{
	pthread_mutex_lock(&p->lock);
	if (!p->stopped && strcmp(p->status.reason, why)) {
		snprintf(p->status.reason, sizeof p->status.reason, "%s", why);
		/* At first nobody knows which nodes are there, which is no news. */
		if (*why && volume_known(p->st->vol))
			log_info("publishing: %s", why);
	}
	pthread_mutex_unlock(&p->lock);
}

/* For good: nothing is published any more, all that is dirty stays. */
__attribute__((format(printf, 2, 3))) static int stop_for_good(struct publisher *p,
							       const char *fmt, ...)
{
	char why[sizeof p->status.reason];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, sizeof why, fmt, ap);
	va_end(ap);
	pthread_mutex_lock(&p->lock);
	p->stopped = -ESTALE;
	p->status.stopped = true;
	memcpy(p->status.reason, why, sizeof why);
	pthread_cond_broadcast(&p->cond);
	pthread_mutex_unlock(&p->lock);
	return log_fail(-ESTALE, "%s", why);
}

struct backoff publish_backoff(struct publisher *p)
{
	pthread_mutex_lock(&p->lock);
	struct backoff b = {.pokes = p->pokes};
	pthread_mutex_unlock(&p->lock);
	return b;
}

int publish_pause(struct publisher *p, struct backoff *b, const char *why)
{
	if (why)
		publish_reason(p, why);
	b->ms = b->ms ? HF_MIN(2 * b->ms, (unsigned)BACKOFF_MAX_MS) : 1000;
	int64_t until = now_ms() + b->ms;

	pthread_mutex_lock(&p->lock);
	while (!p->stopping && p->pokes == b->pokes && wait_until(p, until) != ETIMEDOUT)
		;
	int r = p->stopping ? -ECANCELED : 0;

	if (p->pokes != b->pokes)
		*b = (struct backoff){.pokes = p->pokes};
	pthread_mutex_unlock(&p->lock);
	return r;
}

void publish_touch(struct publisher *p)
{
	if (atomic_load(&p->dirty))
		return;
	pthread_mutex_lock(&p->lock);
	if (!p->dirty) {
		p->dirty = true;
		p->dirty_ms = now_ms();
		pthread_cond_broadcast(&p->cond);
	}
	pthread_mutex_unlock(&p->lock);
}

static void dirtied(void *arg)
{
	publish_touch(arg);
}

void publish_poke(struct publisher *p)
{
	pthread_mutex_lock(&p->lock);
	p->pokes++;
	pthread_cond_broadcast(&p->cond);
	pthread_mutex_unlock(&p->lock);
}

int publish_check(struct publisher *p)
{
	struct volume *v = p->st->vol;
	struct backoff backoff = publish_backoff(p);
	uint16_t by = 0;
	int r;

	while ((r = history_check(v, p->st->device, p->opts.owner_pk, &by)) == -EAGAIN) {
		char why[160];

		snprintf(why, sizeof why,
			 "waiting for nodes: %u of %zu can be read, %zu are needed to see "
			 "whether "
			 "another machine took over",
			 volume_readable(v), volume_members(v), volume_view(v).need);
		r = publish_pause(p, &backoff, why);
		if (r)
			return r;
	}
	if (r == 1)
		return stop_for_good(
			p,
			"this volume was recovered on another machine (device %u): "
			"this copy no longer publishes; its local files are kept",
			by);
	return r;
}

/* Whether the nodes know more of this device than this directory does. */
static int check_ahead(struct publisher *p)
{
	struct store *st = p->st;
	uint64_t seq = 0, pending = 0;
	struct backoff backoff = publish_backoff(p);
	int r;

	pthread_mutex_lock(&st->meta);
	if (store_get_u64(st, "log_seq", &seq))
		seq = 0;
	sqlite3_stmt *q = store_stmt(st, "SELECT seq FROM pending");

	if (q && store_step(st, q) == 1)
		pending = (uint64_t)sqlite3_column_int64(q, 0);
	if (q)
		sqlite3_reset(q);
	pthread_mutex_unlock(&st->meta);
	if (!q)
		return -EIO;
	while ((r = history_ahead(st->vol, st->device, HF_MAX(seq, pending))) == -EAGAIN) {
		r = publish_pause(p, &backoff,
				  "waiting for nodes: too few answer to see whether this copy "
				  "is the newest");
		if (r)
			return r;
	}
	if (r == 1)
		return stop_for_good(
			p,
			"this state directory is older than what this device "
			"published (it knows %llu commits): it no longer publishes; "
			"use `holdfast recover --take-over`; its local files are kept",
			(unsigned long long)seq);
	return r;
}

int publish_set_back(struct publisher *p)
{
	struct store *st = p->st;
	struct backoff backoff = publish_backoff(p);
	uint64_t seq = 0;
	int r;

	pthread_mutex_lock(&st->meta);
	if (store_get_u64(st, "log_seq", &seq))
		seq = 0;
	pthread_mutex_unlock(&st->meta);
	if (!seq || p->opts.skip_older)
		return 0;
	while ((r = history_shows(st->vol, st->device, seq)) == -EAGAIN) {
		r = publish_pause(p, &backoff,
				  "waiting for nodes: too few answer to see whether they have what "
				  "this machine has published");
		if (r)
			return r;
	}
	if (r == 0)
		return stop_for_good(
			p,
			"the nodes were rolled back: commit %llu, which this machine published, is "
			"on none that answer; nothing more is published, what is here stays: "
			"attach the newer copies, or take the older state with `holdfast recover "
			"--take-over`",
			(unsigned long long)seq);
	return HF_MIN(r, 0);
}

static int number_segments(struct publisher *p)
{
	struct store *st = p->st;
	int r;

	pthread_mutex_lock(&st->meta);
	r = st->failed;
	sqlite3_stmt *q = r ? NULL
			    : store_stmt(st, "SELECT "
					     "coalesce((SELECT max(seg) FROM segment WHERE "
					     "seg<1099511627776),0),"
					     "coalesce((SELECT max(seg) FROM segment),0)");
	if (!r && !q)
		r = -EIO;
	if (!r)
		r = store_step(st, q);
	if (r == 1) {
		p->next_seg = (uint64_t)sqlite3_column_int64(q, 0) + 1;
		p->next_inline = (uint64_t)sqlite3_column_int64(q, 1) + 1;
		p->next_inline = HF_MAX(p->next_inline, SEG_INLINE_BASE);
	}
	if (q)
		sqlite3_reset(q);
	pthread_mutex_unlock(&st->meta);
	return r < 0 ? r : 0;
}

static int begin(struct publisher *p)
{
	int r = publish_check(p);

	if (!r)
		r = check_ahead(p);
	if (!r)
		r = publish_set_back(p);
	if (!r)
		r = settle_resume(p);
	return r;
}

/* Something to do now?  0, or when to look again; p->lock held. */
static int64_t due_ms(struct publisher *p)
{
	int64_t interval = p->opts.interval_ms ? p->opts.interval_ms : INTERVAL_MS;

	if (p->want > p->done || p->repack || p->move)
		return 0;
	return p->dirty ? p->dirty_ms + interval : INT64_MAX;
}

/*
 * While a program writes a lot, every cut would find its files in the middle, and storing
 * them would take the disk from it: the cut waits for a second of less, but not for ever.
 */
static bool busy_writing(struct publisher *p, uint64_t *seen)
{
	pthread_mutex_unlock(&p->lock);
	pthread_mutex_lock(&p->st->meta);
	/* Huge files are no reason to wait: the cut leaves them alone. */
	uint64_t bytes = p->st->unpublished_bytes;
	bytes -= HF_MIN(bytes, p->st->huge_bytes);
	pthread_mutex_unlock(&p->st->meta);
	pthread_mutex_lock(&p->lock);
	bool busy = bytes > *seen + BUSY_BYTES;
	*seen = bytes;
	return busy;
}

static int wait_due(struct publisher *p)
{
	uint64_t seen = 0;

	pthread_mutex_lock(&p->lock);
	while (!p->stopping) {
		int64_t due = due_ms(p), now = now_ms();

		if (due == INT64_MAX)
			pthread_cond_wait(&p->cond, &p->lock);
		else if (due > now)
			wait_until(p, due);
		else if (due && now < due + BUSY_WAIT_MS && busy_writing(p, &seen))
			while (!p->stopping && due_ms(p) && now_ms() < now + BUSY_MS)
				wait_until(p, now + BUSY_MS);
		else
			break;
	}
	int r = p->stopping ? -ECANCELED : 0;

	pthread_mutex_unlock(&p->lock);
	return r;
}

static int publish_once(struct publisher *p)
{
	struct volume *v = p->st->vol;
	struct backoff backoff = publish_backoff(p);
	struct cut *c = NULL;
	int r = 0;

	while (!p->opts.skip_quorum &&
	       (volume_usable(v) < v->k || volume_writable(v) < v->quorum)) {
		char why[128];

		snprintf(why, sizeof why,
			 "waiting for nodes: %u of %zu are usable, %u are needed",
			 volume_usable(v), volume_members(v), HF_MAX(v->quorum, v->k));
		r = publish_pause(p, &backoff, why);
		if (r)
			return r;
	}
	publish_reason(p, "");
	r = publish_stage(p, "due");
	if (!r)
		r = cut_take(p, &c);
	uint64_t ticket;

	pthread_mutex_lock(&p->lock);
	ticket = p->begun;
	p->status.busy = c != NULL;
	pthread_mutex_unlock(&p->lock);
	if (c) {
		if (!r)
			r = publish_stage(p, "cut");
		if (!r)
			r = pack_run(c);
		if (!r)
			r = settle_commit(c);
		if (r && !p->crashed)
			settle_abandon(c);
		cut_free(c);
	} else if (!r) {
		r = publish_stage(p, "none");
	}
	pthread_mutex_lock(&p->lock);
	p->status.busy = false;
	p->status.cut_bytes = p->status.cut_done = 0;
	if (!r) {
		p->done = ticket;
		hold_done_locked(p);
	}
	pthread_cond_broadcast(&p->cond);
	pthread_mutex_unlock(&p->lock);
	return r;
}

static void *publish_main(void *arg)
{
	struct publisher *p = arg;
	struct backoff backoff = publish_backoff(p);
	bool begun = false;
	int r = 0;

	prctl(PR_SET_NAME, "hf-publish");
	while (r != -ECANCELED && r != -ESTALE) {
		if (r) {
			char why[sizeof p->status.reason];

			snprintf(why, sizeof why, "the last attempt to publish failed: %.200s",
				 *log_last() ? log_last() : strerror(-r));
			if (publish_pause(p, &backoff, why))
				break;
		}
		/*
		 * A commit that is pending, from before or from an attempt that failed after it
		 * was written, comes first: its number is taken.
		 */
		if (!begun || r) {
			r = begun ? settle_resume(p) : begin(p);
			if (r)
				continue;
			begun = true;
			publish_reason(p, "");
			pthread_mutex_lock(&p->lock);
			p->ready = true;
			pthread_cond_broadcast(&p->cond);
			pthread_mutex_unlock(&p->lock);
		}
		r = wait_due(p);
		if (!r)
			r = publish_once(p);
		if (!r)
			backoff = publish_backoff(p);
	}
	pthread_mutex_lock(&p->lock);
	if (!p->stopped)
		p->stopped = -ECANCELED;
	pthread_cond_broadcast(&p->cond);
	pthread_mutex_unlock(&p->lock);
	return NULL;
}

/* held: also until nothing is held back that the caller may have changed. */
static int wait_for(struct publisher *p, struct publish_ticket *t, bool held,
		    int64_t deadline_ms)
{
	int r = 0;

	giveup_begin(&p->lock, &p->cond);
	pthread_mutex_lock(&p->lock);
	p->want = HF_MAX(p->want, t->cut);
	pthread_cond_broadcast(&p->cond);
	while (!r && !p->stopped && !p->stopping) {
		bool done = p->done >= t->cut && !(held && hold_blocks_locked(p, t->ino, t->cut));

		if (done && !t->protect)
			break;
		if (held && !done)
			hold_hurry_locked(p, t->ino, t->cut);
		/* Callers come again and again: what was found whole since is not asked anew. */
		if (done && p->protect_cut >= t->cut && p->protect_pokes == p->pokes)
			break;
		if (done && !t->whole) {
			t->whole = ++p->protect_want;
			pthread_cond_broadcast(&p->cond);
		}
		if (t->whole && p->protect_done >= t->whole)
			break;
		r = giveup_over();
		if (r)
			break;
		if (deadline_ms == INT64_MAX)
			pthread_cond_wait(&p->cond, &p->lock);
		else if (wait_until(p, deadline_ms) == ETIMEDOUT)
			r = -ETIMEDOUT;
	}
	if (p->stopped)
		r = p->stopped;
	else if (p->stopping)
		r = -ECANCELED;
	bool waits = p->status.reason[0] != 0;

	pthread_mutex_unlock(&p->lock);
	giveup_end();
	if (r == -ETIMEDOUT && (waits || volume_writable(p->st->vol) < volume_members(p->st->vol)))
		r = -EAGAIN;
	return r;
}

void publish_ticket(struct publisher *p, bool protect, uint64_t ino, struct publish_ticket *t)
{
	pthread_mutex_lock(&p->lock);
	/*
	 * A cut that has begun may have missed the caller's change; then `dirty` was set after
	 * it and the next one has it.
	 */
	*t = (struct publish_ticket){
		.cut = p->begun + (p->dirty || p->repack), .ino = ino, .protect = protect};
	pthread_mutex_unlock(&p->lock);
}

int publish_await(struct publisher *p, struct publish_ticket *t, int64_t deadline_ms)
{
	return wait_for(p, t, true, deadline_ms);
}

int publish_wait(struct publisher *p, bool protect, int64_t deadline_ms)
{
	struct publish_ticket t;

	publish_ticket(p, protect, 0, &t);
	return publish_await(p, &t, deadline_ms);
}

int publish_now(struct publisher *p, bool repack)
{
	if (repack) {
		pthread_mutex_lock(&p->lock);
		p->repack = true;
		pthread_mutex_unlock(&p->lock);
	}
	struct publish_ticket t;

	publish_ticket(p, false, 0, &t);
	return wait_for(p, &t, false, INT64_MAX);
}

/*
 * How many more nodes may go before something published cannot be read: the least over all
 * segments of shards on readable nodes, less k; and k nodes must stay for the log.
 */
static unsigned survives(struct publisher *p)
{
	struct store *st = p->st;
	struct volume *v = st->vol;
	struct volume_view view = volume_view(v);
	unsigned readable = volume_readable(v);
	unsigned down = (unsigned)(view.members - HF_MIN((size_t)readable, view.members));
	int least = (int)v->m - (int)HF_MIN(down, v->k + v->m);
	bool *up = calloc(0x10000, sizeof *up);

	for (size_t i = 0; up && i < view.cnt; i++)
		up[node_number(v->node[i])] = node_readable(v->node[i]);
	pthread_mutex_lock(&st->meta);
	sqlite3_stmt *q = up ? store_stmt(st, "SELECT nodes,k FROM segment WHERE missing>0 "
					      "GROUP BY nodes,k LIMIT 20000")
			     : NULL;
	while (q && store_step(st, q) == 1) {
		const uint8_t *nodes = sqlite3_column_blob(q, 0);
		int len = sqlite3_column_bytes(q, 0) / 2, have = 0;

		for (int i = 0; i < len; i++) {
			unsigned n = get_le16(nodes + 2 * i);

			have += n != NODE_NONE && up[n];
		}
		least = HF_MIN(least, have - sqlite3_column_int(q, 1));
	}
	if (q)
		sqlite3_reset(q);
	pthread_mutex_unlock(&st->meta);
	free(up);
	least = HF_MIN(least, (int)readable - (int)HF_MAX((size_t)v->k, view.need));
	return (unsigned)HF_MAX(least, 0);
}

void publish_get_status(struct publisher *p, struct publish_status *out)
{
	unsigned left = survives(p);
	uint64_t below = 0, bytes, done;

	ahead_figures(p, &bytes, &done);

	pthread_mutex_lock(&p->st->meta);
	sqlite3_stmt *q = store_stmt(p->st, "SELECT count(*) FROM segment WHERE missing>0");

	if (q && store_step(p->st, q) == 1)
		below = (uint64_t)sqlite3_column_int64(q, 0);
	if (q)
		sqlite3_reset(q);
	pthread_mutex_unlock(&p->st->meta);
	pthread_mutex_lock(&p->lock);
	*out = p->status;
	pthread_mutex_unlock(&p->lock);
	out->cut_bytes += bytes;
	out->cut_done += done;
	out->below_target = below;
	out->survives = left;
}

static void publisher_free(struct publisher *p)
{
	pthread_cond_destroy(&p->cond);
	pthread_mutex_destroy(&p->lock);
	free(p->opts.devices);
	free(p->node_was);
	free(p->node_lost);
	free(p->node_listed);
	free(p->move);
	free(p->held);
	seg_pool_free(p->ahead_pool);
	free(p);
}

static int copy_opts(struct publisher *p, const struct publish_opts *o)
{
	p->opts = *o;
	p->opts.devices = calloc(HF_MAX(o->device_cnt, (size_t)1), sizeof *o->devices);
	p->node_was = calloc(p->st->vol->node_cap, sizeof *p->node_was);
	p->node_lost = calloc(p->st->vol->node_cap, sizeof *p->node_lost);
	p->node_listed = calloc(p->st->vol->node_cap, sizeof *p->node_listed);
	if (!p->opts.devices || !p->node_was || !p->node_lost || !p->node_listed)
		return -ENOMEM;
	if (o->device_cnt)
		memcpy(p->opts.devices, o->devices, o->device_cnt * sizeof *o->devices);
	return 0;
}

static void last_commit(struct publisher *p)
{
	uint64_t v = 0;

	pthread_mutex_lock(&p->st->meta);
	if (!store_get_u64(p->st, "log_seq", &v))
		p->status.seq = v;
	v = 0;
	if (!store_get_u64(p->st, "log_time", &v))
		p->status.time_ns = (int64_t)v;
	if (!store_get_u64(p->st, "publish_rate", &v))
		p->rate = v;
	p->st->dirtied = dirtied;
	p->st->dirtied_arg = p;
	pthread_mutex_unlock(&p->st->meta);
}

/* Until the first cut has looked: is there anything that an earlier one may have held? */
static int held_before(struct publisher *p)
{
	struct store *st = p->st;
	int r = -EIO;

	pthread_mutex_lock(&st->meta);
	sqlite3_stmt *q = store_stmt(
		st, "SELECT 1 WHERE EXISTS (SELECT 1 FROM tomb WHERE epoch>?1) OR EXISTS (SELECT "
		    "1 FROM inode INDEXED BY inode_chg WHERE chg>?1 AND born<=?1)");
	if (q) {
		sqlite3_bind_int64(q, 1, (int64_t)st->published);
		r = store_step(st, q);
		sqlite3_reset(q);
	}
	pthread_mutex_unlock(&st->meta);
	p->held_old = r == 1;
	return HF_MIN(r, 0);
}

/* For tests, which set p->stage before the thread runs. */
int publish_prepare(struct publisher **out, struct store *st, const struct publish_opts *o)
{
	struct publisher *p = calloc(1, sizeof *p);

	*out = NULL;
	if (!p)
		return -ENOMEM;
	p->st = st;
	pthread_mutex_init(&p->lock, NULL);
	cond_init(&p->cond);
	int r = copy_opts(p, o);

	if (!r && st->vol)
		r = seg_pool_new(&p->ahead_pool, st->vol->k, st->vol->m, AHEAD_IN_FLIGHT + 1);
	if (!r) {
		pthread_mutex_lock(&st->meta);
		r = move_table_locked(st);
		pthread_mutex_unlock(&st->meta);
	}
	if (!r)
		r = settle_clean(p);
	if (!r)
		r = number_segments(p);
	if (!r)
		r = held_before(p);
	if (r) {
		publisher_free(p);
		return r;
	}
	last_commit(p);
	/* What was dirty before is found by the first cut. */
	p->dirty = true;
	p->dirty_ms = now_ms();
	*out = p;
	return 0;
}

int publish_run(struct publisher *p)
{
	int r = -pthread_create(&p->thread, NULL, publish_main, p);

	if (r)
		return log_fail(r, "starting a thread: %s", strerror(-r));
	p->thread_on = true;
	r = -pthread_create(&p->mend, NULL, mend_main, p);
	if (r)
		return log_fail(r, "starting a thread: %s", strerror(-r));
	p->mend_on = true;
	r = -pthread_create(&p->scrub, NULL, scrub_main, p);
	if (r)
		return log_fail(r, "starting a thread: %s", strerror(-r));
	p->scrub_on = true;
	r = -pthread_create(&p->ahead, NULL, ahead_main, p);
	if (r)
		return log_fail(r, "starting a thread: %s", strerror(-r));
	p->ahead_on = true;
	return 0;
}

int publish_start(struct publisher **out, struct store *st, const struct publish_opts *o)
{
	int r = publish_prepare(out, st, o);

	if (r)
		return r;
	r = publish_run(*out);
	if (r) {
		publish_stop(*out);
		*out = NULL;
	}
	return r;
}

void publish_stop(struct publisher *p)
{
	if (!p)
		return;
	pthread_mutex_lock(&p->lock);
	p->stopping = true;
	pthread_cond_broadcast(&p->cond);
	pthread_mutex_unlock(&p->lock);
	if (p->ahead_pool)
		seg_pool_stop(p->ahead_pool);
	if (p->ahead_on)
		pthread_join(p->ahead, NULL);
	if (p->thread_on)
		pthread_join(p->thread, NULL);
	if (p->mend_on)
		pthread_join(p->mend, NULL);
	if (p->scrub_on)
		pthread_join(p->scrub, NULL);
	pthread_mutex_lock(&p->st->meta);
	p->st->dirtied = NULL;
	p->st->dirtied_arg = NULL;
	pthread_mutex_unlock(&p->st->meta);
	publisher_free(p);
}
