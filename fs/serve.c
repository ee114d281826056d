/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "fs/serve.h"

#include <fuse_lowlevel.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define READ_AHEAD_KB 1024
#define READERS	      2
#define SPIN_NS	      20000
#define SPIN_TRIES    3 /* in vain; then chances are let pass: */
#define SPIN_SKIP     32

struct worker {
	struct worker *next;
	struct fs *fs;
	pthread_t thread;
};

struct stale {
	struct stale *next;
	uint64_t ino, parent;
	size_t len;
	char name[];
};

struct loop {
	pthread_mutex_t lock; /* a leaf */
	pthread_cond_t cond;  /* of the thread in fs_loop */
	struct worker *workers;
	unsigned worker_cnt, idle_max, readers;
	atomic_uint idle;    /* workers that read the device */
	pthread_cond_t rest; /* of those that do not, and wait to be called: */
	unsigned rested, called;
	bool may_spin;
	atomic_bool spinning;		 /* and who is guards these: */
	unsigned spin_misses, spin_skip; /* in a row; chances to let pass */
	bool serving, stop, ended;
	int err;
	bool dev_known; /* the device number of the mount: */
	unsigned dev_major, dev_minor;
	/* what the kernel must be told of, in order */
	pthread_cond_t stale_cond;
	pthread_t stale_thread;
	struct stale *stale, **stale_end;
	bool stale_stop;
};

/* "\040" and the like, in place. */
static void unescape(char *s)
{
	char *to = s;

	while (*s) {
		if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] && s[3]) {
			*to++ = (char)((s[1] & 7u) << 6 | (s[2] & 7u) << 3 | (s[3] & 7u));
			s += 4;
		} else {
			*to++ = *s++;
		}
	}
	*to = '\0';
}

/* The device number of what is mounted on dir, topmost; false: nothing is. */
static bool mounted_dev(const char *dir, unsigned *major_out, unsigned *minor_out)
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	char *line = NULL;
	size_t cap = 0;
	bool found = false;

	if (!f)
		return false;
	while (getline(&line, &cap, f) > 0) {
		unsigned maj, min;
		int at = 0;
		if (sscanf(line, "%*u %*u %u:%u %*s %n", &maj, &min, &at) != 2 || !at)
			continue;
		char *mnt = line + at;
		mnt[strcspn(mnt, " \n")] = '\0';
		unescape(mnt);
		if (strcmp(mnt, dir))
			continue;
		*major_out = maj;
		*minor_out = min;
		found = true;
	}
	free(line);
	fclose(f);
	return found;
}

/*
 * The kernel reads 128 KiB ahead by default; a reader of one large file then waits for a
 * round trip that often.  Only root may change it, and nothing depends on it.
 */
void serve_ready(struct fs *fs)
{
	const struct loop *l = fs->loop;
	char path[128];

	snprintf(path, sizeof path, "/sys/class/bdi/%u:%u/read_ahead_kb", l->dev_major,
		 l->dev_minor);
	FILE *f = l->dev_known ? fopen(path, "we") : NULL;
	if (!f)
		return;
	fprintf(f, "%d\n", READ_AHEAD_KB);
	fclose(f);
}

/* --- mounting --- */

static void put_escaped(struct buf *b, const char *s)
{
	for (; *s; s++) {
		if (*s == ',' || *s == '\\')
			buf_u8(b, '\\');
		buf_u8(b, (uint8_t)*s);
	}
}

static void put_text(struct buf *b, const char *s)
{
	buf_put(b, s, strlen(s));
}

static int mount_options(const struct fs_opts *o, struct buf *b)
{
	put_text(b, "default_permissions,subtype=holdfast,fsname=");
	put_escaped(b, o->fsname ? o->fsname : "holdfast");
	if (o->allow_other)
		put_text(b, ",allow_other");
	if (o->read_only)
		put_text(b, ",ro");
	if (o->noatime)
		put_text(b, ",noatime");
	if (o->dev)
		put_text(b, ",dev");
	if (o->suid)
		put_text(b, ",suid");
	if (o->noexec)
		put_text(b, ",noexec");
	if (o->debug)
		put_text(b, ",debug");
	buf_u8(b, 0);
	return b->err;
}

/* On one processor the program could not ask while a worker spins. */
static bool have_processors(void)
{
	cpu_set_t set;

	return sched_getaffinity(0, sizeof set, &set) < 0 || CPU_COUNT(&set) > 1;
}

static struct loop *loop_new(const struct fs_opts *o)
{
	struct loop *l = calloc(1, sizeof *l);

	if (!l)
		return NULL;
	pthread_mutex_init(&l->lock, NULL);
	pthread_cond_init(&l->cond, NULL);
	pthread_cond_init(&l->rest, NULL);
	pthread_cond_init(&l->stale_cond, NULL);
	l->stale_end = &l->stale;
	l->idle_max = o->threads ? o->threads : 4;
	l->readers = l->idle_max < READERS ? l->idle_max : READERS;
	l->may_spin = have_processors();
	return l;
}

static void loop_free(struct loop *l)
{
	if (!l)
		return;
	pthread_mutex_destroy(&l->lock);
	pthread_cond_destroy(&l->cond);
	pthread_cond_destroy(&l->rest);
	pthread_cond_destroy(&l->stale_cond);
	free(l);
}

/* What libfuse has to say belongs in the log. */
static void fuse_says(enum fuse_log_level level, const char *fmt, va_list ap)
{
	char line[512];

	vsnprintf(line, sizeof line, fmt, ap);
	line[strcspn(line, "\n")] = '\0';
	log_msg(level <= FUSE_LOG_ERR	    ? LOG_LVL_ERROR
		: level <= FUSE_LOG_WARNING ? LOG_LVL_WARN
					    : LOG_LVL_DEBUG,
		"%s", line);
}

static int mount_session(struct fs *fs)
{
	struct buf opts = {0};
	int err = mount_options(&fs->opts, &opts);

	if (err)
		goto out;
	if (!fs->opts.debug)
		fuse_set_log_func(fuse_says);
	char *argv[] = {(char *)"holdfast", (char *)"-o", (char *)opts.p, NULL};
	struct fuse_args args = FUSE_ARGS_INIT(3, argv);
	fs->se = fuse_session_new(&args, &fs_ops, sizeof fs_ops, fs);
	fuse_opt_free_args(&args);
	if (!fs->se) {
		err = log_fail(-EINVAL, "mount options were not accepted: %s", opts.p);
		goto out;
	}
	if (fuse_session_mount(fs->se, fs->dir)) {
		err = log_fail(-EIO, "cannot mount on %s", fs->dir);
		goto out;
	}
	fs->loop->dev_known = mounted_dev(fs->dir, &fs->loop->dev_major, &fs->loop->dev_minor);
	err = fuse_session_custom_io(fs->se, &device_io, fuse_session_fd(fs->se));
	if (err) {
		fuse_session_unmount(fs->se);
		err = log_fail(-EIO, "libfuse refuses to let requests through");
	}
out:
	buf_release(&opts);
	return err;
}

int fs_mount(struct fs **out, struct store *st, const char *dir, const struct fs_opts *o)
{
	struct fs *fs = calloc(1, sizeof *fs);
	int err;

	if (!fs)
		return -ENOMEM;
	interrupts_init(&fs->interrupts);
	fs->st = st;
	fs->opts = *o;
	fs->opts.fsname = NULL;
	fs->dir = realpath(dir, NULL);
	if (!fs->dir) {
		err = log_fail(-errno, "%s: %s", dir, strerror(errno));
		goto fail;
	}
	if (o->fsname) {
		fs->opts.fsname = strdup(o->fsname);
		if (!fs->opts.fsname) {
			err = -ENOMEM;
			goto fail;
		}
	}
	fs->loop = loop_new(o);
	if (!fs->loop) {
		err = -ENOMEM;
		goto fail;
	}
	err = nlookup_new(&fs->nl);
	if (err)
		goto fail;
	err = mount_session(fs);
	if (err)
		goto fail;
	*out = fs;
	return 0;
fail:
	fs_free(fs);
	return err;
}

/* fusermount3 is set-id: who is not root unmounts with its help. */
static int fusermount(const char *dir, bool lazy)
{
	char *argv[] = {(char *)"fusermount3", (char *)(lazy ? "-uzq" : "-uq"), (char *)"--",
			(char *)dir, NULL};
	pid_t pid;
	int status;

	if (posix_spawnp(&pid, argv[0], NULL, NULL, argv, environ))
		return log_fail(-EIO, "cannot run fusermount3");
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	return WIFEXITED(status) && !WEXITSTATUS(status) ? 0 : -EBUSY;
}

/* Not when it was unmounted already, and something else is there now. */
static bool still_mounted(const struct fs *fs)
{
	unsigned maj, min;

	return mounted_dev(fs->dir, &maj, &min) && fs->loop->dev_known &&
	       maj == fs->loop->dev_major && min == fs->loop->dev_minor;
}

int fs_unmount(struct fs *fs, bool lazy)
{
	pthread_mutex_lock(&fs->loop->lock);
	bool serving = fs->loop->serving;
	pthread_mutex_unlock(&fs->loop->lock);

	/* Nobody answers any more: the device is closed first, or unmounting would wait. */
	if (!serving) {
		fuse_session_unmount(fs->se);
		/* It leaves a mount whose connection was aborted. */
		lazy = true;
	}
	if (!still_mounted(fs))
		return 0;
	if (geteuid())
		return fusermount(fs->dir, lazy);
	if (umount2(fs->dir, lazy ? MNT_DETACH : 0) && errno != EINVAL)
		return -errno;
	return 0;
}

static void reap(void *arg, uint64_t ino)
{
	struct fs *fs = arg;

	meta_reap(fs->st, ino);
}

void fs_free(struct fs *fs)
{
	if (!fs)
		return;
	if (fs->se)
		fuse_session_destroy(fs->se);
	if (fs->nl)
		nlookup_drain(fs->nl, reap, fs);
	nlookup_free(fs->nl);
	loop_free(fs->loop);
	interrupts_release(&fs->interrupts);
	free((char *)fs->opts.fsname);
	free(fs->dir);
	free(fs);
}

/* --- telling the kernel that something changed beneath it --- */

static void *stale_main(void *arg)
{
	struct fs *fs = arg;
	struct loop *l = fs->loop;

	pthread_mutex_lock(&l->lock);
	for (;;) {
		while (!l->stale && !l->stale_stop)
			pthread_cond_wait(&l->stale_cond, &l->lock);
		struct stale *s = l->stale;
		if (!s)
			break;
		l->stale = s->next;
		if (!l->stale)
			l->stale_end = &l->stale;
		pthread_mutex_unlock(&l->lock);
		/* Waits for requests on the same inode, so never from within one. */
		if (s->len)
			fuse_lowlevel_notify_inval_entry(fs->se, s->parent, s->name, s->len);
		if (s->ino)
			fuse_lowlevel_notify_inval_inode(fs->se, s->ino, 0, 0);
		free(s);
		pthread_mutex_lock(&l->lock);
	}
	pthread_mutex_unlock(&l->lock);
	return NULL;
}

static void stale_put(void *arg, uint64_t ino, uint64_t parent, const char *name, size_t len)
{
	struct fs *fs = arg;
	struct loop *l = fs->loop;
	struct stale *s = calloc(1, sizeof *s + len + 1);

	if (!s) {
		log_warn("no memory to tell the kernel of a change");
		return;
	}
	s->ino = ino;
	s->parent = parent;
	s->len = len;
	if (len)
		memcpy(s->name, name, len);
	pthread_mutex_lock(&l->lock);
	*l->stale_end = s;
	l->stale_end = &s->next;
	pthread_cond_signal(&l->stale_cond);
	pthread_mutex_unlock(&l->lock);
}

/* --- workers --- */

static void free_mem(void *arg)
{
	struct fuse_buf *b = arg;

	free(b->mem);
}

static void *worker_main(void *arg);

/* loop->lock held. */
static int worker_add(struct fs *fs)
{
	struct loop *l = fs->loop;
	struct worker *w = calloc(1, sizeof *w);
	sigset_t all, old;

	if (!w)
		return -ENOMEM;
	w->fs = fs;
	atomic_fetch_add(&l->idle, 1);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	int err = pthread_create(&w->thread, NULL, worker_main, w);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (err) {
		atomic_fetch_sub(&l->idle, 1);
		free(w);
		return -err;
	}
	pthread_setname_np(w->thread, "hf-fuse");
	w->next = l->workers;
	l->workers = w;
	l->worker_cnt++;
	return 0;
}

/* l->lock held.  The thread goes its own way; there is no loop that ends now. */
static void worker_leave(struct loop *l, struct worker *w)
{
	struct worker **at = &l->workers;

	while (*at != w)
		at = &(*at)->next;
	*at = w->next;
	l->worker_cnt--;
	pthread_detach(w->thread);
}

/* l->lock held. */
static bool loop_ends(const struct loop *l)
{
	return l->stop || l->ended;
}

static void worker_took(struct fs *fs, const struct fuse_buf *b)
{
	struct loop *l = fs->loop;

	/* One that came with the last free thread: there must be another for the next. */
	if (atomic_fetch_sub(&l->idle, 1) > 1)
		return;
	if (device_is_forget(b->mem))
		return;
	pthread_mutex_lock(&l->lock);
	if (l->called < l->rested) {
		l->called++;
		atomic_fetch_add(&l->idle, 1);
		pthread_cond_signal(&l->rest);
	} else if (!loop_ends(l) && l->worker_cnt < SERVE_THREADS_MAX) {
		(void)worker_add(fs);
	}
	pthread_mutex_unlock(&l->lock);
}

/* False while the worker is one of those that are to read on. */
static bool readers_enough(struct loop *l)
{
	unsigned n = atomic_load(&l->idle);

	while (n > l->readers)
		if (atomic_compare_exchange_weak(&l->idle, &n, n - 1))
			return true;
	return false;
}

/*
 * The kernel wakes those that read in turn: each further one finds colder caches.  So few read,
 * and the others wait for the moment when nobody does.  True: there are enough of those, too,
 * and this one is off the list.
 */
static bool worker_surplus(struct worker *w)
{
	struct loop *l = w->fs->loop;
	bool leave = false;

	if (atomic_fetch_add(&l->idle, 1) < l->readers)
		return false;
	pthread_mutex_lock(&l->lock);
	if (!loop_ends(l) && readers_enough(l)) {
		leave = l->rested - l->called + l->readers >= l->idle_max;
		if (leave)
			worker_leave(l, w);
		else
			l->rested++;
		while (!leave && !l->called && !loop_ends(l))
			pthread_cond_wait(&l->rest, &l->lock);
		if (!leave) {
			l->rested--;
			l->called -= l->called > 0;
		}
	}
	pthread_mutex_unlock(&l->lock);
	return leave;
}

/* There was no memory for a buffer: others go on. */
static bool worker_starved(struct worker *w)
{
	struct loop *l = w->fs->loop;

	pthread_mutex_lock(&l->lock);
	bool leave = !loop_ends(l) && l->worker_cnt > 1;
	if (leave) {
		worker_leave(l, w);
		atomic_fetch_sub(&l->idle, 1);
	}
	pthread_mutex_unlock(&l->lock);
	return leave;
}

static void worker_end(struct fs *fs, int err)
{
	struct loop *l = fs->loop;

	pthread_mutex_lock(&l->lock);
	l->ended = true;
	if (err && !l->err)
		l->err = err;
	pthread_cond_signal(&l->cond);
	pthread_mutex_unlock(&l->lock);
}

static int64_t clock_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * (int64_t)1000000000 + t.tv_nsec;
}

/*
 * Who asks in a row asks again sooner than a thread goes to sleep and is woken: so one of the
 * readers looks for the next request first, for no longer than that takes.  Where that is in
 * vain it is seldom done.
 */
static void spin(struct fs *fs)
{
	struct loop *l = fs->loop;
	struct pollfd p = {.fd = fuse_session_fd(fs->se), .events = POLLIN};

	if (!l->may_spin || atomic_exchange(&l->spinning, true))
		return;
	if (l->spin_skip) {
		l->spin_skip--;
	} else {
		int64_t end = clock_ns() + SPIN_NS;
		int got;

		while ((got = poll(&p, 1, 0)) == 0 && clock_ns() < end)
			;
		if (got)
			l->spin_misses = 0;
		else if (l->spin_misses < SPIN_TRIES)
			l->spin_misses++;
		else
			l->spin_skip = SPIN_SKIP;
	}
	atomic_store(&l->spinning, false);
}

static void *worker_main(void *arg)
{
	struct worker *w = arg;
	struct fs *fs = w->fs;
	struct fuse_buf b = {0};
	/* It outlives pthread_cleanup_push, which is a setjmp. */
	volatile bool surplus = false;
	int old;

	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &old);
	pthread_cleanup_push(free_mem, &b);
	while (!fuse_session_exited(fs->se)) {
		spin(fs);
		/* Stopping cancels those that wait here; one with a request finishes it. */
		pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &old);
		int n = fuse_session_receive_buf(fs->se, &b);
		pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &old);
		if (n == -EINTR || n == -EAGAIN)
			continue;
		surplus = n == -ENOMEM && worker_starved(w);
		if (surplus)
			break;
		if (n <= 0) {
			worker_end(fs, n);
			break;
		}
		worker_took(fs, &b);
		if (!device_answer(fs, b.mem))
			fuse_session_process_buf(fs->se, &b);
		surplus = worker_surplus(w);
		if (surplus)
			break;
	}
	pthread_cleanup_pop(1);
	if (surplus)
		free(w);
	return NULL;
}

int fs_loop(struct fs *fs)
{
	struct loop *l = fs->loop;
	int err;

	err = -pthread_create(&l->stale_thread, NULL, stale_main, fs);
	if (err)
		return log_fail(err, "cannot start a thread");
	pthread_setname_np(l->stale_thread, "hf-inval");
	pthread_mutex_lock(&fs->st->meta);
	fs->st->inval_arg = fs;
	fs->st->inval = stale_put;
	pthread_mutex_unlock(&fs->st->meta);

	pthread_mutex_lock(&l->lock);
	l->serving = true;
	err = worker_add(fs);
	while (!err && !l->stop && !l->ended)
		pthread_cond_wait(&l->cond, &l->lock);
	pthread_mutex_unlock(&l->lock);

	pthread_mutex_lock(&fs->st->meta);
	fs->st->inval = NULL;
	pthread_mutex_unlock(&fs->st->meta);
	pthread_mutex_lock(&l->lock);
	l->stale_stop = true;
	pthread_cond_signal(&l->stale_cond);
	pthread_mutex_unlock(&l->lock);
	/* While there are workers: what it does may wait for a request of somebody's. */
	pthread_join(l->stale_thread, NULL);

	/* Nobody gets an answer any more that nodes would have to give. */
	fs_hurry(fs, true);
	fuse_session_exit(fs->se);
	pthread_mutex_lock(&l->lock);
	pthread_cond_broadcast(&l->rest);
	pthread_mutex_unlock(&l->lock);
	/* The list does not change any more: ended or stop is set. */
	for (struct worker *w = l->workers; w; w = w->next)
		pthread_cancel(w->thread);
	while (l->workers) {
		struct worker *w = l->workers;
		l->workers = w->next;
		pthread_join(w->thread, NULL);
		free(w);
	}
	pthread_mutex_lock(&l->lock);
	l->worker_cnt = 0;
	l->serving = false;
	pthread_mutex_unlock(&l->lock);
	return err ? err : l->err;
}

bool fs_mounted(struct fs *fs)
{
	struct pollfd p = {.fd = fuse_session_fd(fs->se)};

	return poll(&p, 1, 0) <= 0 || !(p.revents & POLLERR);
}

void fs_hurry(struct fs *fs, bool hurry)
{
	interrupts_stop(&fs->interrupts, hurry);
}

void fs_stop(struct fs *fs)
{
	pthread_mutex_lock(&fs->loop->lock);
	fs->loop->stop = true;
	pthread_cond_signal(&fs->loop->cond);
	pthread_mutex_unlock(&fs->loop->lock);
}
