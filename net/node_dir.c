/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * A node that is a directory: the probe and the threads; what a request does is in dir_file.c.
 *
 * Everything is relative to a descriptor of the root that a probe opened and whose marker
 * was found right: when the disk is unmounted, the mount point below is never written to.
 *
 * Requests wait in a queue for up to WORKERS threads.  One that is given up while a thread
 * is inside of it makes that thread `lost`: it hangs in the kernel, maybe for ever, so
 * another one may start in its place, up to LOST_MAX of them.  The kernel is only given a
 * thread's own buffers, never those of a PUT, so what is given up is let go at once.
 */
#include "net/dir_impl.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#define WORKERS	 4
#define LOST_MAX 16
#define LINGER_S 60
#define STOP_MS	 500

/* --- the probe --- */

/* The root as it is now; when that is another directory than before it is not trusted. */
static int reopen_root(struct node *n, bool create, struct root **out)
{
	struct dir_node *d = n->impl;
	struct stat st;

	int fd = open(n->url.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 && errno == ENOENT && create &&
	    (mkdir(n->url.path, 0700) == 0 || errno == EEXIST))
		fd = open(n->url.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0) {
		int err = errno == ENOENT || errno == ENOTDIR ? -ENODEV : -errno;
		if (fd >= 0)
			close(fd);
		return err;
	}
	struct root *fresh = malloc(sizeof *fresh), *old = NULL;
	if (!fresh) {
		close(fd);
		return -ENOMEM;
	}
	*fresh = (struct root){.fd = fd, .dev = st.st_dev, .ino = st.st_ino, .ref = 1};
	pthread_mutex_lock(&d->lock);
	if (d->root && d->root->dev == st.st_dev && d->root->ino == st.st_ino) {
		old = fresh;
	} else {
		n->accepted = false;
		old = d->root;
		d->root = fresh;
	}
	*out = d->root;
	atomic_fetch_add(&d->root->ref, 1);
	pthread_mutex_unlock(&d->lock);
	root_put(old);
	return 0;
}

static void note_space(struct node *n, const struct root *r)
{
	struct statvfs vfs;

	if (fstatvfs(r->fd, &vfs) == 0)
		node_set_space(n, (uint64_t)vfs.f_bavail * vfs.f_frsize,
			       (uint64_t)vfs.f_blocks * vfs.f_frsize, (uint64_t)r->dev + 1);
}

static int do_probe(struct node *n, const struct node_io *io, size_t *got)
{
	struct root *r = NULL;

	int err = reopen_root(n, io->create, &r);
	if (err)
		return err;
	note_space(n, r);
	err = dir_get(r, io, got);
	if (!err && faccessat(r->fd, ".", W_OK | X_OK, AT_EACCESS) < 0)
		err = -errno;
	root_put(r);
	return err;
}

static void sweep(struct node *n)
{
	static const char abc[] = "abcdefghijklmnopqrstuvwxyz234567";
	struct dir_node *d = n->impl;
	time_t now = time(NULL);
	char dir[DIR_LEN];

	struct root *r = root_get(d);
	if (!r)
		return;
	dir_sweep(r, "v", now);
	dir_sweep(r, "l", now);
	for (unsigned i = 0; i < 1024 && n->accepted; i++) {
		snprintf(dir, sizeof dir, "s/%c%c", abc[i / 32], abc[i % 32]);
		dir_sweep(r, dir, now);
	}
	root_put(r);
}

/* --- the threads --- */

static void perform(struct worker *w, struct node_io *io)
{
	struct node *n = w->node;
	struct dir_node *d = n->impl;
	struct buf list = {0};
	size_t got = 0;
	int err;

	if (io->op == NODE_PROBE) {
		err = do_probe(n, io, &got);
		node_io_finish(io, err, got, NULL);
		return;
	}
	struct root *r = root_get(d);
	if (!r) {
		node_io_finish(io, -ENODEV, 0, NULL);
		return;
	}
	switch (io->op) {
	case NODE_PUT:
		err = dir_put(w, r, io);
		break;
	case NODE_GET:
		err = dir_get(r, io, &got);
		break;
	case NODE_DEL:
		err = dir_del(r, io);
		break;
	case NODE_LIST:
		err = dir_list(r, io, &list);
		break;
	default:
		err = -EINVAL;
	}
	/* How full it is when it is full decides when it is tried again. */
	if (err == -ENOSPC || err == -EDQUOT)
		note_space(n, r);
	root_put(r);
	node_io_finish(io, err == -EDQUOT ? -ENOSPC : err, got, &list);
}

static struct node_io *queue_pop(struct dir_node *d)
{
	struct node_io *io = d->head;

	if (!io)
		return NULL;
	d->head = io->next;
	*(io->next ? &io->next->prev : &d->tail) = NULL;
	io->prev = io->next = NULL;
	io->priv = NULL;
	return io;
}

static void *worker_main(void *arg)
{
	struct worker *w = arg;
	struct node *n = w->node;
	struct dir_node *d = n->impl;

	pthread_mutex_lock(&d->lock);
	for (;;) {
		struct node_io *io = queue_pop(d);
		if (!io) {
			if (d->stopping)
				break;
			d->idle++;
			int rc = cond_until(&d->work, &d->lock, now_ms() + LINGER_S * 1000);
			d->idle--;
			if (rc == ETIMEDOUT && !d->head)
				break;
			continue;
		}
		w->io = io;
		w->let_go = false;
		bool probe = io->op == NODE_PROBE && !io->create;
		pthread_mutex_unlock(&d->lock);
		if (!io->fired)
			perform(w, io);
		pthread_mutex_lock(&d->lock);
		w->io = NULL;
		bool let_go = w->let_go, lost = w->lost;
		bool sweeps = !d->swept && probe && n->accepted;
		if (sweeps)
			d->swept = true;
		if (lost) {
			w->lost = false;
			d->lost--;
			d->live++;
		}
		pthread_mutex_unlock(&d->lock);
		if (!let_go)
			node_io_let_go(io);
		node_io_unref(io);
		if (sweeps)
			sweep(n);
		pthread_mutex_lock(&d->lock);
		/* While it was lost another one took its place. */
		if (lost && d->live > WORKERS)
			break;
	}
	d->live--;
	struct worker **p = &d->workers;
	while (*p != w)
		p = &(*p)->next;
	*p = w->next;
	pthread_cond_broadcast(&d->gone);
	pthread_mutex_unlock(&d->lock);
	pthread_mutex_destroy(&w->mem);
	free(w->step);
	free(w->back);
	free(w);
	node_unref(n);
	return NULL;
}

/* Under d->lock: one more thread when all are busy. */
static void want_worker(struct node *n)
{
	struct dir_node *d = n->impl;
	pthread_attr_t attr;
	pthread_t t;
	char name[16];

	if (!d->head || d->idle || d->live >= WORKERS || d->lost >= LOST_MAX)
		return;
	struct worker *w = calloc(1, sizeof *w);
	if (!w)
		return;
	pthread_mutex_init(&w->mem, NULL);
	w->node = n;
	node_ref(n);
	w->next = d->workers;
	d->workers = w;
	d->live++;
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	int err = pthread_create(&t, &attr, worker_main, w);
	pthread_attr_destroy(&attr);
	if (err) {
		/* The request waits for another thread, or for its deadline. */
		d->workers = w->next;
		d->live--;
		pthread_mutex_destroy(&w->mem);
		free(w);
		atomic_fetch_sub(&n->ref, 1); /* the io holds one: it is not the last */
		return;
	}
	snprintf(name, sizeof name, "hf-node-%u", n->number);
	pthread_setname_np(t, name);
}

static void dir_start(struct node *n, struct node_io *io)
{
	struct dir_node *d = n->impl;

	pthread_mutex_lock(&d->lock);
	if (io->fired) {
		pthread_mutex_unlock(&d->lock);
		node_io_ended(io);
		return;
	}
	io->priv = d;
	io->next = NULL;
	io->prev = d->tail;
	*(d->tail ? &d->tail->next : &d->head) = io;
	d->tail = io;
	if (d->idle)
		pthread_cond_signal(&d->work);
	want_worker(n);
	pthread_mutex_unlock(&d->lock);
}

static void dir_give_up(struct node *n, struct node_io *io)
{
	struct dir_node *d = n->impl;
	bool queued, running = false;

	pthread_mutex_lock(&d->lock);
	queued = io->priv != NULL;
	if (queued) {
		*(io->prev ? &io->prev->next : &d->head) = io->next;
		*(io->next ? &io->next->prev : &d->tail) = io->prev;
		io->prev = io->next = NULL;
		io->priv = NULL;
	}
	for (struct worker *w = d->workers; w && !queued && !running; w = w->next) {
		if (w->io != io)
			continue;
		running = true;
		pthread_mutex_lock(&w->mem);
		w->let_go = true;
		pthread_mutex_unlock(&w->mem);
		w->lost = true;
		d->lost++;
		d->live--;
		want_worker(n);
	}
	pthread_mutex_unlock(&d->lock);
	if (queued)
		node_io_ended(io);
	else if (running)
		node_io_let_go(io);
}

static int dir_open(struct node *n)
{
	struct dir_node *d = calloc(1, sizeof *d);
	if (!d)
		return -ENOMEM;
	pthread_mutex_init(&d->lock, NULL);
	cond_init(&d->work);
	cond_init(&d->gone);
	cond_init(&d->synced);
	n->impl = d;
	return 0;
}

static void dir_stop(struct node *n)
{
	struct dir_node *d = n->impl;
	int64_t end = now_ms() + STOP_MS;

	pthread_mutex_lock(&d->lock);
	d->stopping = true;
	pthread_cond_broadcast(&d->work);
	/* Threads that hang keep their reference to the node and go when they can. */
	while (d->workers && cond_until(&d->gone, &d->lock, end) == 0)
		;
	struct root *r = d->root;
	d->root = NULL;
	pthread_mutex_unlock(&d->lock);
	/* A thread may hold the node for a moment still, but the medium can be unmounted. */
	root_put(r);
}

static void dir_free(struct node *n)
{
	struct dir_node *d = n->impl;

	if (!d)
		return;
	root_put(d->root);
	pthread_cond_destroy(&d->work);
	pthread_cond_destroy(&d->gone);
	pthread_cond_destroy(&d->synced);
	pthread_mutex_destroy(&d->lock);
	free(d);
}

const struct node_kind node_dir_kind = {
	.name = "dir",
	.open = dir_open,
	.start = dir_start,
	.give_up = dir_give_up,
	.stop = dir_stop,
	.free = dir_free,
};
