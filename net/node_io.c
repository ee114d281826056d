/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The life of a request, the one thread that ends those whose time is over, and node_wait.
 */
#include "net/node_impl.h"

#include <stdlib.h>
#include <time.h>
#include "net/cond.h"
#include "net/giveup.h"

/* Who gets an io that has ended: done, or the `left` of who left it; END: nobody any more. */
enum node_hand { HAND_DONE, HAND_LEFT, HAND_LEFT_LATE, HAND_END };

/*
 * The timer.  A list ordered by fire_ms; nearly all requests are appended, because nearly
 * all have similar deadlines.  It runs while there are users (open nodes).
 */
static struct {
	pthread_mutex_t lock;
	pthread_mutex_t life; /* starts and stops, outside of lock */
	pthread_cond_t cond;
	struct node_io *head, *tail;
	pthread_t thread;
	unsigned users;
	bool stop;
} timer = {.lock = PTHREAD_MUTEX_INITIALIZER, .life = PTHREAD_MUTEX_INITIALIZER};

/* Under timer.lock. */
static void timer_unlink(struct node_io *io)
{
	*(io->tprev ? &io->tprev->tnext : &timer.head) = io->tnext;
	*(io->tnext ? &io->tnext->tprev : &timer.tail) = io->tprev;
	io->tprev = io->tnext = NULL;
	io->timed = false;
}

/* Under timer.lock. */
static void timer_link(struct node_io *io)
{
	struct node_io *after = timer.tail;

	while (after && after->fire_ms > io->fire_ms)
		after = after->tprev;
	io->tprev = after;
	io->tnext = after ? after->tnext : timer.head;
	*(io->tnext ? &io->tnext->tprev : &timer.tail) = io;
	*(after ? &after->tnext : &timer.head) = io;
	io->timed = true;
	if (timer.head == io)
		pthread_cond_signal(&timer.cond);
}

static void timer_add(struct node_io *io)
{
	node_io_ref(io);
	pthread_mutex_lock(&timer.lock);
	timer_link(io);
	pthread_mutex_unlock(&timer.lock);
}

static void timer_del(struct node_io *io)
{
	pthread_mutex_lock(&timer.lock);
	bool was = io->timed;
	if (was)
		timer_unlink(io);
	pthread_mutex_unlock(&timer.lock);
	if (was)
		node_io_unref(io);
}

/* Makes the timer end io now.  Under timer.lock; io is in the list. */
static void timer_now(struct node_io *io, int err)
{
	timer_unlink(io);
	io->fire_ms = 0;
	io->fire_err = err;
	timer_link(io);
}

static void *timer_main(void *arg)
{
	(void)arg;
	pthread_mutex_lock(&timer.lock);
	while (!timer.stop || timer.head) {
		struct node_io *io = timer.head;
		if (!io) {
			pthread_cond_wait(&timer.cond, &timer.lock);
			continue;
		}
		if (io->fire_ms > now_ms()) {
			cond_until(&timer.cond, &timer.lock, io->fire_ms);
			continue;
		}
		timer_unlink(io);
		int err = io->fire_err;
		pthread_mutex_unlock(&timer.lock);
		node_io_finish(io, err, 0, NULL);
		node_io_unref(io);
		pthread_mutex_lock(&timer.lock);
	}
	pthread_mutex_unlock(&timer.lock);
	return NULL;
}

int node_timer_get(void)
{
	int err = 0;

	pthread_mutex_lock(&timer.life);
	if (!timer.users) {
		timer.stop = false;
		cond_init(&timer.cond);
		err = -pthread_create(&timer.thread, NULL, timer_main, NULL);
		if (!err)
			pthread_setname_np(timer.thread, "hf-timer");
		else
			pthread_cond_destroy(&timer.cond);
	}
	if (!err)
		timer.users++;
	pthread_mutex_unlock(&timer.life);
	return err;
}

void node_timer_put(void)
{
	pthread_mutex_lock(&timer.life);
	if (!--timer.users) {
		pthread_mutex_lock(&timer.lock);
		timer.stop = true;
		pthread_cond_signal(&timer.cond);
		pthread_mutex_unlock(&timer.lock);
		pthread_join(timer.thread, NULL);
		pthread_cond_destroy(&timer.cond);
	}
	pthread_mutex_unlock(&timer.life);
}

void node_timer_cancel_all(struct node *n)
{
	pthread_mutex_lock(&timer.lock);
	for (struct node_io *io = timer.head, *next; io; io = next) {
		next = io->tnext;
		if (io->node == n && io->fire_ms)
			timer_now(io, -ECANCELED);
	}
	pthread_mutex_unlock(&timer.lock);
}

/* --- requests --- */

struct node_io *node_io_new(enum node_op op, const char *name)
{
	if (strlen(name) >= BLOB_NAME_CAP)
		return NULL;
	struct node_io *io = calloc(1, sizeof *io);
	if (!io)
		return NULL;
	io->op = op;
	strcpy(io->name, name);
	io->ref = 1;
	return io;
}

void node_io_ref(struct node_io *io)
{
	atomic_fetch_add(&io->ref, 1);
}

void node_io_unref(struct node_io *io)
{
	if (!io || atomic_fetch_sub(&io->ref, 1) != 1)
		return;
	free(io->buf);
	buf_release(&io->list);
	if (io->node)
		node_unref(io->node);
	free(io);
}

/* Called twice: when done has returned, and by the kind.  The second call releases. */
void node_io_let_go(struct node_io *io)
{
	if (atomic_fetch_sub(&io->busy, 1) == 1 && io->release)
		io->release(io);
}

void node_io_ended(struct node_io *io)
{
	node_io_let_go(io);
	node_io_unref(io);
}

bool node_io_finish(struct node_io *io, int err, size_t got, struct buf *list)
{
	return node_io_finish_why(io, err, got, list, NULL);
}

bool node_io_finish_why(struct node_io *io, int err, size_t got, struct buf *list,
			const char *why)
{
	struct node *n = io->node;

	if (atomic_exchange(&io->fired, 1)) {
		if (list)
			buf_release(list);
		return false;
	}
	node_io_ref(io);
	timer_del(io);
	if (err == -ETIMEDOUT || err == -ECANCELED)
		n->kind->give_up(n, io);
	io->err = err;
	snprintf(io->why, sizeof io->why, "%s", err && why ? why : "");
	io->got = got;
	if (list)
		io->list = *list;
	io->end_ms = now_ms();
	node_account(n, io);
	if (atomic_exchange(&io->hand, HAND_END) != HAND_DONE)
		io->left(io);
	else if (io->done)
		io->done(io);
	node_io_let_go(io);
	pthread_mutex_lock(&n->lock);
	if (!--n->pending)
		pthread_cond_broadcast(&n->idle);
	pthread_mutex_unlock(&n->lock);
	node_io_unref(io);
	return true;
}

void node_io_fail_soon(struct node_io *io, int err)
{
	pthread_mutex_lock(&timer.lock);
	if (io->timed && io->fire_ms)
		timer_now(io, err);
	pthread_mutex_unlock(&timer.lock);
	node_io_ended(io);
}

void node_submit(struct node *n, struct node_io *io)
{
	int err = 0;

	node_ref(n);
	io->node = n;
	io->busy = 2;
	io->start_ms = now_ms();
	io->fire_err = -ETIMEDOUT;
	io->fire_ms = node_io_deadline(io);
	node_io_ref(io); /* the work's */
	if (io->op == NODE_GET && !(io->buf = malloc(HF_MAX(io->len, (size_t)1))))
		err = -ENOMEM;
	pthread_mutex_lock(&n->lock);
	n->pending++;
	if (n->closing)
		err = -ECANCELED;
	pthread_mutex_unlock(&n->lock);
	if (!err && !n->accepted && io->op != NODE_PROBE && !io->trusted)
		err = -ENODEV;
	if (err) {
		/* Done is never called from here: who submits may hold locks of its own. */
		io->unsent = true;
		io->fire_ms = 0;
		io->fire_err = err;
		timer_add(io);
		node_io_ended(io);
		return;
	}
	/* With the answer a timer may drop the io at once: one more reference until started. */
	node_io_ref(io);
	timer_add(io);
	n->kind->start(n, io);
	node_io_unref(io);
}

void node_cancel(struct node_io *io)
{
	pthread_mutex_lock(&timer.lock);
	if (io->timed && io->fire_ms)
		timer_now(io, -ECANCELED);
	pthread_mutex_unlock(&timer.lock);
}

/* --- waiting --- */

void node_wait_init(struct node_wait *w)
{
	*w = (struct node_wait){.tail = &w->head};
	pthread_mutex_init(&w->lock, NULL);
	cond_init(&w->cond);
}

/* Under w->lock; io has not been called back. */
static void wait_unlink(struct node_wait *w, struct node_io *io)
{
	*(io->wprev ? &io->wprev->wnext : &w->out) = io->wnext;
	if (io->wnext)
		io->wnext->wprev = io->wprev;
}

void node_wait_done(struct node_io *io)
{
	struct node_wait *w = io->arg;

	pthread_mutex_lock(&w->lock);
	wait_unlink(w, io);
	io->next = NULL;
	*w->tail = io;
	w->tail = &io->next;
	/* Under the lock: the waiter may destroy the condition as soon as it has this io. */
	pthread_cond_signal(&w->cond);
	pthread_mutex_unlock(&w->lock);
}

void node_wait_submit(struct node_wait *w, struct node *n, struct node_io *io)
{
	io->done = node_wait_done;
	io->arg = w;
	pthread_mutex_lock(&w->lock);
	io->wprev = NULL;
	io->wnext = w->out;
	if (w->out)
		w->out->wprev = io;
	w->out = io;
	w->pending++;
	pthread_mutex_unlock(&w->lock);
	node_submit(n, io);
}

bool node_wait_leave(struct node_wait *w, struct node_io *io, bool late,
		     void (*left)(struct node_io *io), void *arg)
{
	int was = HAND_DONE;

	io->left = left;
	io->left_arg = arg;
	pthread_mutex_lock(&timer.lock);
	if (io->timed && io->fire_ms && io->fire_ms > now_ms() + NODE_LEAVE_MS) {
		timer_unlink(io);
		io->fire_ms = now_ms() + NODE_LEAVE_MS;
		timer_link(io);
	}
	pthread_mutex_unlock(&timer.lock);
	/* Once it is left whoever ends it may free it, before it is out of the list. */
	node_io_ref(io);
	pthread_mutex_lock(&w->lock);
	bool ours = atomic_compare_exchange_strong(&io->hand, &was,
						   late ? HAND_LEFT_LATE : HAND_LEFT);
	if (ours) {
		wait_unlink(w, io);
		w->pending--;
	}
	pthread_mutex_unlock(&w->lock);
	node_io_unref(io);
	return ours;
}

bool node_io_left(const struct node_io *io, bool *late)
{
	int hand = atomic_load(&io->hand);

	*late = hand == HAND_LEFT_LATE;
	return *late || hand == HAND_LEFT;
}

struct node_io *node_wait_next(struct node_wait *w, int64_t deadline_ms)
{
	struct node_io *io;

	giveup_begin(&w->lock, &w->cond);
	pthread_mutex_lock(&w->lock);
	while (!w->head && !w->poked && !giveup_over())
		if (cond_until(&w->cond, &w->lock, deadline_ms) == ETIMEDOUT)
			break;
	w->poked = false;
	io = w->head;
	if (io) {
		w->head = io->next;
		if (!w->head)
			w->tail = &w->head;
		w->pending--;
	}
	pthread_mutex_unlock(&w->lock);
	giveup_end();
	return io;
}

void node_wait_poke(struct node_wait *w)
{
	pthread_mutex_lock(&w->lock);
	w->poked = true;
	pthread_cond_signal(&w->cond);
	pthread_mutex_unlock(&w->lock);
}

void node_wait_release(struct node_wait *w)
{
	pthread_mutex_lock(&w->lock);
	/* An io stays in the list until its callback, which takes this lock. */
	for (struct node_io *io = w->out; io; io = io->wnext)
		node_cancel(io);
	while (w->pending) {
		while (!w->head)
			pthread_cond_wait(&w->cond, &w->lock);
		struct node_io *io = w->head;
		w->head = io->next;
		if (!w->head)
			w->tail = &w->head;
		w->pending--;
		node_io_unref(io);
	}
	pthread_mutex_unlock(&w->lock);
	pthread_cond_destroy(&w->cond);
	pthread_mutex_destroy(&w->lock);
}
