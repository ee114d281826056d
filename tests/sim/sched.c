/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The threads of the program are contexts of one real thread, so that a switch is no affair
 * of the kernel's.  At each lock, unlock, wait and signal, and where nodes and the disk say
 * so, another one that can run may go on; which one is the seed's choice.  When nobody can
 * run, the clock jumps to the next timer; when there is none either, that is a deadlock, and a
 * failure.  What is thread-local in the program (the last line of its log) they all share.
 *
 * Locks and conditions live in the memory of the real ones, of which all bytes zero is a valid
 * start, so that static initialisers work.
 */
#include "sim.h"

#include <limits.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/statvfs.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#define THREADS 256
#define STACK	((size_t)1 << 20)

int __real_fstatvfs64(int, struct statvfs *);

enum { T_FREE, T_RUN, T_WAIT, T_DONE };

struct thr {
	int state;
	const void *obj;
	const char *why;
	int64_t until_ns; /* INT64_MAX: no timer */
	bool woken, detached;
	uint64_t prio;
	ucontext_t ctx;
	void *stack; /* stays with the slot */
	void *(*fn)(void *);
	void *arg, *ret;
	char name[16];
};

static struct thr thr[THREADS];
static unsigned thr_cnt, self;
static bool on;

struct mutex {
	uint32_t owner; /* thread + 1; 0: free */
	uint32_t waiters;
};
struct rwlock {
	uint32_t writer; /* thread + 1 */
	uint32_t readers;
	uint32_t writers_wait;
	uint32_t writers_first;
};
_Static_assert(sizeof(struct mutex) <= sizeof(pthread_mutex_t), "");
_Static_assert(sizeof(struct rwlock) <= sizeof(pthread_rwlock_t), "");

/* --- failing --- */

static void show_threads(void)
{
	static const char *const state[] = {"free", "runs", "waits", "ended"};

	for (unsigned i = 0; i < thr_cnt; i++)
		if (thr[i].state == T_RUN || thr[i].state == T_WAIT)
			fprintf(stderr, "  thread %u %-12s %s%s%s at %p%s\n", i, thr[i].name,
				state[thr[i].state], thr[i].why ? " for " : "",
				thr[i].why ? thr[i].why : "", (void *)thr[i].obj,
				thr[i].until_ns == INT64_MAX ? "" : ", with a timer");
}

void sim_fail(const char *fmt, ...)
{
	char what[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(what, sizeof what, fmt, ap);
	va_end(ap);
	fprintf(stderr, "seed %llu life %u at %.3f s, step %llu, %s: %s\n",
		(unsigned long long)w->seed, w->life, (double)w->now_ns / 1e9,
		(unsigned long long)w->steps, w->phase, what);
	if (on && w->verbose)
		show_threads();
	if (getenv("SIM_ABORT"))
		abort();
	_exit(EXIT_FAILED);
}

/* --- choosing --- */

static int64_t next_timer(void)
{
	int64_t t = INT64_MAX;

	for (unsigned i = 0; i < thr_cnt; i++)
		if (thr[i].state == T_WAIT)
			t = HF_MIN(t, thr[i].until_ns);
	return t;
}

static void expire(void)
{
	for (unsigned i = 0; i < thr_cnt; i++)
		if (thr[i].state == T_WAIT && thr[i].until_ns <= w->now_ns)
			thr[i].state = T_RUN;
}

static unsigned choose(void)
{
	unsigned can[THREADS], cnt = 0;

	for (;;) {
		expire();
		for (unsigned i = 0; i < thr_cnt; i++)
			if (thr[i].state == T_RUN)
				can[cnt++] = i;
		if (cnt)
			break;
		int64_t t = next_timer();
		if (t == INT64_MAX) {
			w->verbose = true;
			sim_fail("deadlock: nobody can run and no timer is set");
		}
		w->now_ns = t;
	}
	unsigned pick = can[0];
	if (!w->by_priority)
		return cnt == 1 ? pick : can[rnd_below(RND_SCHED, cnt)];
	for (unsigned i = 1; i < cnt; i++)
		if (thr[can[i]].prio > thr[pick].prio)
			pick = can[i];
	/* Nobody is kept from running for ever. */
	if (chance(RND_SCHED, 64))
		thr[pick].prio = rnd(RND_SCHED);
	return pick;
}

static void note(unsigned to)
{
	trace((uint64_t)to << 48 ^ (uint64_t)w->now_ns);
	if (w->steps > w->step_cap)
		sim_fail("more than %llu steps", (unsigned long long)w->step_cap);
	if (w->now_ns > w->phase_end_ns) {
		w->verbose = true;
		sim_fail("not over in the time it has");
	}
}

static void count_step(void)
{
	if (++w->steps >= w->crash_at && w->crash_at) {
		w->crash_at = 0;
		_exit(EXIT_CRASHED);
	}
}

/* Another one goes on; returns when it is this one's turn again. */
static void switch_away(void)
{
	unsigned me = self;
	int err = errno;

	count_step();
	unsigned to = choose();
	note(to);
	if (to == me)
		return;
	self = to;
	swapcontext(&thr[me].ctx, &thr[to].ctx);
	errno = err;
}

void sched_point(void)
{
	if (!on)
		return;
	/* Work takes time, a little. */
	w->now_ns += (int64_t)(rnd(RND_SCHED) & 4095);
	if (rnd(RND_SCHED) >> (64 - w->switch_log2))
		count_step();
	else
		switch_away();
}

static bool block(const void *obj, int64_t until_ns, const char *why)
{
	struct thr *t = &thr[self];

	t->state = T_WAIT;
	t->obj = obj;
	t->why = why;
	t->until_ns = until_ns;
	t->woken = false;
	switch_away();
	t->obj = NULL;
	t->why = NULL;
	t->until_ns = INT64_MAX;
	return t->woken;
}

static void wake(const void *obj, unsigned most)
{
	unsigned who[THREADS], cnt = 0;

	for (unsigned i = 0; i < thr_cnt; i++)
		if (thr[i].state == T_WAIT && thr[i].obj == obj)
			who[cnt++] = i;
	while (cnt && most--) {
		unsigned j = cnt == 1 ? 0 : (unsigned)rnd_below(RND_SCHED, cnt);
		thr[who[j]].state = T_RUN;
		thr[who[j]].woken = true;
		who[j] = who[--cnt];
	}
}

bool sched_block(const void *obj, int64_t until_ns)
{
	return block(obj, until_ns, "an event");
}

void sched_wake(const void *obj)
{
	wake(obj, UINT_MAX);
}

void sched_sleep(int64_t ns)
{
	if (on && ns > 0)
		block(&thr[self], w->now_ns + ns, "time to pass");
}

void sched_bound(const char *phase, int64_t ns)
{
	snprintf(w->phase, sizeof w->phase, "%s", phase);
	w->phase_end_ns = ns == INT64_MAX ? INT64_MAX : w->now_ns + ns;
}

void sched_begin(void)
{
	thr_cnt = 1;
	self = 0;
	thr[0] = (struct thr){
		.state = T_RUN, .until_ns = INT64_MAX, .name = "main", .prio = rnd(RND_SCHED)};
	on = true;
}

/* --- threads: a pthread_t is the number of the slot + 1 --- */

static void enter(void)
{
	struct thr *t = &thr[self];

	t->ret = t->fn(t->arg);
	t->state = t->detached ? T_FREE : T_DONE;
	wake(t, UINT_MAX); /* who joins it */
	unsigned to = choose();
	note(to);
	self = to;
	setcontext(&thr[to].ctx);
	abort();
}

int __wrap_pthread_create(pthread_t *out, const pthread_attr_t *attr, void *(*fn)(void *),
			  void *arg)
{
	int detached = PTHREAD_CREATE_JOINABLE;
	unsigned i = 0;

	while (i < thr_cnt && thr[i].state != T_FREE)
		i++;
	if (i == THREADS)
		sim_fail("more than %d threads", THREADS);
	if (i == thr_cnt)
		thr_cnt++;
	if (attr)
		pthread_attr_getdetachstate(attr, &detached);
	struct thr *t = &thr[i];
	void *stack = t->stack;
	if (!stack) {
		stack = mmap(NULL, STACK, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		if (stack == MAP_FAILED || mprotect(stack, 4096, PROT_NONE))
			sim_fail("no stack for a thread");
	}
	*t = (struct thr){.state = T_RUN,
			  .until_ns = INT64_MAX,
			  .fn = fn,
			  .arg = arg,
			  .detached = detached == PTHREAD_CREATE_DETACHED,
			  .prio = rnd(RND_SCHED),
			  .stack = stack};
	getcontext(&t->ctx);
	t->ctx.uc_stack.ss_sp = stack;
	t->ctx.uc_stack.ss_size = STACK;
	makecontext(&t->ctx, enter, 0);
	*out = i + 1;
	sched_point();
	return 0;
}

int __wrap_pthread_join(pthread_t real, void **ret)
{
	struct thr *t = &thr[real - 1];

	if (!real || real > thr_cnt || t->state == T_FREE || t->detached)
		sim_fail("a join of no thread");
	while (t->state != T_DONE)
		block(t, INT64_MAX, "the end of a thread");
	if (ret)
		*ret = t->ret;
	t->state = T_FREE;
	return 0;
}

pthread_t __wrap_pthread_self(void)
{
	return self + 1;
}

int __wrap_pthread_setname_np(pthread_t real, const char *name)
{
	if (real && real <= thr_cnt)
		snprintf(thr[real - 1].name, sizeof thr[real - 1].name, "%s", name);
	return 0;
}

/* --- mutexes --- */

int __wrap_pthread_mutex_init(pthread_mutex_t *p, const pthread_mutexattr_t *a)
{
	(void)a;
	memset(p, 0, sizeof *p);
	return 0;
}

int __wrap_pthread_mutex_destroy(pthread_mutex_t *p)
{
	struct mutex *m = (struct mutex *)p;

	if (m->owner || m->waiters)
		sim_fail("a mutex is destroyed while it is used");
	return 0;
}

static void lock(struct mutex *m)
{
	if (!on)
		return;
	if (m->owner == self + 1)
		sim_fail("thread %u (%s) locks a mutex that it holds", self, thr[self].name);
	while (m->owner) {
		m->waiters++;
		block(m, INT64_MAX, "a mutex");
		m->waiters--;
	}
	m->owner = self + 1;
}

static void unlock(struct mutex *m)
{
	if (!on)
		return;
	if (m->owner != self + 1)
		sim_fail("thread %u (%s) unlocks a mutex that it does not hold", self,
			 thr[self].name);
	m->owner = 0;
	if (m->waiters)
		wake(m, UINT_MAX);
}

int __wrap_pthread_mutex_lock(pthread_mutex_t *p)
{
	sched_point();
	lock((struct mutex *)p);
	return 0;
}

int __wrap_pthread_mutex_trylock(pthread_mutex_t *p)
{
	sched_point();
	if (((struct mutex *)p)->owner)
		return EBUSY;
	lock((struct mutex *)p);
	return 0;
}

int __wrap_pthread_mutex_unlock(pthread_mutex_t *p)
{
	unlock((struct mutex *)p);
	sched_point();
	return 0;
}

/* --- conditions: all with the monotonic clock --- */

int __wrap_pthread_cond_init(pthread_cond_t *p, const pthread_condattr_t *a)
{
	(void)a;
	memset(p, 0, sizeof *p);
	return 0;
}

int __wrap_pthread_cond_destroy(pthread_cond_t *p)
{
	for (unsigned i = 0; on && i < thr_cnt; i++)
		if (thr[i].state == T_WAIT && thr[i].obj == p)
			sim_fail("a condition is destroyed while thread %u (%s) waits", i,
				 thr[i].name);
	return 0;
}

static int cond_wait(pthread_cond_t *c, pthread_mutex_t *p, int64_t until_ns)
{
	unlock((struct mutex *)p);
	/* Sometimes for no reason, as it is allowed. */
	bool woken = !rnd_below(RND_SCHED, 512) || block(c, until_ns, "a condition");
	lock((struct mutex *)p);
	return woken ? 0 : ETIMEDOUT;
}

int __wrap_pthread_cond_wait(pthread_cond_t *c, pthread_mutex_t *p)
{
	return cond_wait(c, p, INT64_MAX);
}

int __wrap_pthread_cond_timedwait(pthread_cond_t *c, pthread_mutex_t *p,
				  const struct timespec *ts)
{
	int64_t until =
		ts->tv_sec > INT64_MAX / SEC - 1 ? INT64_MAX : ts->tv_sec * SEC + ts->tv_nsec;

	if (ts->tv_nsec < 0 || ts->tv_nsec >= SEC)
		sim_fail("a wait with %ld ns", ts->tv_nsec);
	/* A time that is over is none to wait for. */
	return cond_wait(c, p, HF_MAX(until, w->now_ns + 1));
}

int __wrap_pthread_cond_signal(pthread_cond_t *c)
{
	wake(c, 1);
	sched_point();
	return 0;
}

int __wrap_pthread_cond_broadcast(pthread_cond_t *c)
{
	wake(c, UINT_MAX);
	sched_point();
	return 0;
}

/* --- read-write locks: of both kinds that are used --- */

int __wrap_pthread_rwlock_init(pthread_rwlock_t *p, const pthread_rwlockattr_t *a)
{
	struct rwlock *l = (struct rwlock *)p;
	int kind = PTHREAD_RWLOCK_DEFAULT_NP;

	memset(p, 0, sizeof *p);
	if (a)
		pthread_rwlockattr_getkind_np(a, &kind);
	l->writers_first = kind == PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP;
	return 0;
}

int __wrap_pthread_rwlock_destroy(pthread_rwlock_t *p)
{
	struct rwlock *l = (struct rwlock *)p;

	if (l->writer || l->readers || l->writers_wait)
		sim_fail("a read-write lock is destroyed while it is used");
	return 0;
}

static bool try_read(struct rwlock *l)
{
	if (l->writer || (l->writers_first && l->writers_wait))
		return false;
	l->readers++;
	return true;
}

static bool try_write(struct rwlock *l)
{
	if (l->writer || l->readers)
		return false;
	l->writer = self + 1;
	return true;
}

int __wrap_pthread_rwlock_rdlock(pthread_rwlock_t *p)
{
	struct rwlock *l = (struct rwlock *)p;

	if (!on)
		return 0;
	sched_point();
	while (!try_read(l))
		block(l, INT64_MAX, "a lock to read");
	return 0;
}

int __wrap_pthread_rwlock_tryrdlock(pthread_rwlock_t *p)
{
	if (!on)
		return 0;
	sched_point();
	return try_read((struct rwlock *)p) ? 0 : EBUSY;
}

int __wrap_pthread_rwlock_wrlock(pthread_rwlock_t *p)
{
	struct rwlock *l = (struct rwlock *)p;

	if (!on)
		return 0;
	sched_point();
	if (l->writer == self + 1)
		sim_fail("thread %u (%s) locks twice to write", self, thr[self].name);
	while (!try_write(l)) {
		l->writers_wait++;
		block(l, INT64_MAX, "a lock to write");
		l->writers_wait--;
	}
	return 0;
}

int __wrap_pthread_rwlock_trywrlock(pthread_rwlock_t *p)
{
	if (!on)
		return 0;
	sched_point();
	return try_write((struct rwlock *)p) ? 0 : EBUSY;
}

int __wrap_pthread_rwlock_unlock(pthread_rwlock_t *p)
{
	struct rwlock *l = (struct rwlock *)p;

	if (!on)
		return 0;
	if (l->writer == self + 1)
		l->writer = 0;
	else if (l->readers)
		l->readers--;
	else
		sim_fail("thread %u (%s) unlocks what nobody holds", self, thr[self].name);
	wake(l, UINT_MAX);
	sched_point();
	return 0;
}

/* --- clocks; the space of the disk --- */

#define REAL_START INT64_C(1700000000)

int __wrap_clock_gettime(clockid_t id, struct timespec *ts)
{
	int64_t ns = w->now_ns;

	/* A time that everybody sees the same is one that moves on. */
	w->now_ns += 1000;
	ts->tv_sec = ns / SEC + (id == CLOCK_REALTIME ? REAL_START : 0);
	ts->tv_nsec = ns % SEC;
	return 0;
}

time_t __wrap_time(time_t *out)
{
	time_t t = REAL_START + w->now_ns / SEC;

	if (out)
		*out = t;
	return t;
}

int __wrap_fstatvfs64(int fd, struct statvfs *v)
{
	int rc = __real_fstatvfs64(fd, v);

	v->f_frsize = v->f_bsize = 4096;
	v->f_blocks = 1 << 22;
	v->f_bfree = v->f_bavail = 1 << 21;
	return rc;
}
