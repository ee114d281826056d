/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * A node that is a directory.  A blob is a file; "s/abcd" lies in s/ab/abcd, so that no
 * directory gets too large, other names as they are.  A PUT writes a temporary name in the
 * same directory, syncs it, renames it and syncs the directory.
 *
 * Everything is relative to a descriptor of the root that a probe opened and whose marker
 * was found right: when the disk is unmounted, the mount point below is never written to.
 *
 * Requests wait in a queue for up to WORKERS threads.  One that is given up while a thread
 * is inside of it makes that thread `lost`: it hangs in the kernel, maybe for ever, so
 * another one may start in its place, up to LOST_MAX of them.  The kernel is only given a
 * thread's own buffers, never those of a PUT, so what is given up is let go at once.
 */
#include "net/node_impl.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>
#include "net/cond.h"

#define WORKERS	      4
#define LOST_MAX      16
#define LINGER_S      60
#define STOP_MS	      500
#define TMP_PREFIX    ".tmp-"
#define TMP_STALE_S   3600
#define GET_STEP      (1u << 20)
#define PUT_STEP      (256u << 10)
#define DIR_LEN	      8 /* "s/ab" and the like */

struct root {
	int fd;
	dev_t dev;
	ino_t ino;
	_Atomic int ref;
	_Atomic uint32_t durable; /* bit per letter: that directory in the root was synced */
};

/* Somebody syncs, or wants to sync, this directory. */
struct dirsync {
	char dir[DIR_LEN];
	const struct root *root;
	unsigned users;
	uint64_t want, done;
	bool running;
	int err;
	struct dirsync *next;
};

struct worker {
	struct node *node;
	struct node_io *io; /* what it is inside of; guarded by dir_node.lock, as all */
	bool lost;
	struct worker *next;
	pthread_mutex_t mem; /* held while the memory of a PUT is read; innermost */
	bool let_go;	     /* that memory is not ours any more; guarded by mem */
	uint8_t *step, *back; /* PUT_STEP bytes each */
};

struct dir_node {
	pthread_mutex_t lock;
	pthread_cond_t work, gone, synced;
	struct node_io *head, *tail;
	struct worker *workers;
	unsigned live, idle, lost; /* live counts those that are not lost */
	bool stopping, swept;
	struct root *root;
	struct dirsync *syncs;
	_Atomic uint64_t tmp_seq;
};

static void root_put(struct root *r)
{
	if (!r || atomic_fetch_sub(&r->ref, 1) != 1)
		return;
	close(r->fd);
	free(r);
}

static struct root *root_get(struct dir_node *d)
{
	pthread_mutex_lock(&d->lock);
	struct root *r = d->root;
	if (r)
		atomic_fetch_add(&r->ref, 1);
	pthread_mutex_unlock(&d->lock);
	return r;
}

/* The directory itself was removed while we hold it open. */
static bool root_vanished(const struct root *r)
{
	struct stat st;

	return fstat(r->fd, &st) < 0 || st.st_nlink == 0;
}

/* --- names --- */

/* "s/abcd" -> "s/ab", "abcd"; "l/x" -> "l", "x".  Anything but [a-z0-9] and one slash: -EINVAL. */
static int split_name(const char *name, char dir[DIR_LEN], const char **file)
{
	const char *slash = strchr(name, '/');

	if (!slash || slash != name + 1 || !slash[1])
		return -EINVAL;
	for (const char *c = name; *c; c++)
		if (c != slash && !(*c >= 'a' && *c <= 'z') && !(*c >= '0' && *c <= '9'))
			return -EINVAL;
	*file = slash + 1;
	if (name[0] == 's' && strlen(*file) >= 2)
		snprintf(dir, DIR_LEN, "s/%.2s", *file);
	else
		snprintf(dir, DIR_LEN, "%c", name[0]);
	return 0;
}

static bool good_leaf(const char *s)
{
	size_t len = strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789");

	return len && !s[len] && len + 2 < BLOB_NAME_CAP;
}

/* --- syncing directories --- */

/*
 * Makes the names in dir durable.  Callers that come while a sync runs share the next one:
 * one sync serves all that were renamed before it began.
 */
static int sync_dir(struct dir_node *d, const struct root *r, const char *dir, int fd)
{
	struct dirsync *s;

	pthread_mutex_lock(&d->lock);
	for (s = d->syncs; s && (s->root != r || strcmp(s->dir, dir) != 0); s = s->next)
		;
	if (!s) {
		s = calloc(1, sizeof *s);
		if (!s) {
			pthread_mutex_unlock(&d->lock);
			return -ENOMEM;
		}
		snprintf(s->dir, sizeof s->dir, "%s", dir);
		s->root = r;
		s->next = d->syncs;
		d->syncs = s;
	}
	s->users++;
	uint64_t mine = ++s->want;
	int err = 0;
	while (s->done < mine) {
		if (s->running) {
			pthread_cond_wait(&d->synced, &d->lock);
			continue;
		}
		uint64_t target = s->want;
		s->running = true;
		pthread_mutex_unlock(&d->lock);
		int e = fsync(fd) < 0 ? -errno : 0;
		pthread_mutex_lock(&d->lock);
		s->running = false;
		s->done = target;
		/* Who waits for a later one may see this error too: too careful does no harm. */
		if (e)
			s->err = e;
		pthread_cond_broadcast(&d->synced);
	}
	err = s->err;
	if (!--s->users) {
		struct dirsync **p = &d->syncs;
		while (*p != s)
			p = &(*p)->next;
		*p = s->next;
		free(s);
	}
	pthread_mutex_unlock(&d->lock);
	return err;
}

/* Opens a directory below the root; make: creates what is missing, durably. */
static int open_dir(struct dir_node *d, struct root *r, const char *dir, bool make)
{
	const int flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC;
	char up[2] = {dir[0], 0};

	int fd = openat(r->fd, dir, flags);
	if (fd >= 0 || errno != ENOENT || !make)
		return fd >= 0 ? fd : -errno;
	if (root_vanished(r))
		return -ENODEV;
	if (mkdirat(r->fd, up, 0700) < 0 && errno != EEXIST)
		return -errno;
	uint32_t bit = 1u << ((dir[0] - 'a') & 31);
	int err = r->durable & bit ? 0 : sync_dir(d, r, "", r->fd);
	if (err)
		return err;
	atomic_fetch_or(&r->durable, bit);
	if (dir[1]) {
		if (mkdirat(r->fd, dir, 0700) < 0 && errno != EEXIST)
			return -errno;
		int upfd = openat(r->fd, up, flags);
		if (upfd < 0)
			return -errno;
		err = sync_dir(d, r, up, upfd);
		close(upfd);
		if (err)
			return err;
	}
	fd = openat(r->fd, dir, flags);
	return fd >= 0 ? fd : -errno;
}

/* --- the requests --- */

static size_t iov_total(const struct node_io *io)
{
	size_t len = 0;

	for (unsigned i = 0; i < io->iov_cnt; i++)
		len += io->iov[i].iov_len;
	return len;
}

/* Copies len bytes at `at` of what is to be PUT to w->step; false when it was given up. */
static bool take_step(struct worker *w, const struct node_io *io, size_t at, size_t len)
{
	uint8_t *to = w->step;

	pthread_mutex_lock(&w->mem);
	bool ours = !w->let_go;
	for (unsigned i = 0; ours && i < io->iov_cnt && len; i++) {
		if (at >= io->iov[i].iov_len) {
			at -= io->iov[i].iov_len;
			continue;
		}
		size_t n = HF_MIN(len, io->iov[i].iov_len - at);
		memcpy(to, (const uint8_t *)io->iov[i].iov_base + at, n);
		to += n;
		len -= n;
		at = 0;
	}
	pthread_mutex_unlock(&w->mem);
	return ours;
}

/* 1 when the file holds exactly the bytes of the PUT, 0 when not, or -errno. */
static int same_bytes(struct worker *w, int dfd, const char *file, const struct node_io *io)
{
	size_t total = iov_total(io);
	struct stat st;
	int same = 1;

	/* Not a FIFO, not a link: opening those could hang or lead elsewhere. */
	if (fstatat(dfd, file, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISREG(st.st_mode) ||
	    (uint64_t)st.st_size != total)
		return 0;
	int fd = openat(dfd, file, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return 0;
	for (size_t at = 0; at < total && same > 0;) {
		ssize_t n = pread(fd, w->back, HF_MIN(total - at, (size_t)PUT_STEP), (off_t)at);
		/* A file that cannot be read is damaged too. */
		if (n <= 0)
			same = 0;
		else if (!take_step(w, io, at, (size_t)n))
			same = -ECANCELED;
		else
			same = memcmp(w->step, w->back, (size_t)n) == 0;
		at += (size_t)HF_MAX(n, (ssize_t)0);
	}
	close(fd);
	return same;
}

static int write_file(struct worker *w, int fd, const struct node_io *io)
{
	size_t total = iov_total(io);

	for (size_t at = 0; at < total;) {
		size_t len = HF_MIN(total - at, (size_t)PUT_STEP);
		if (!take_step(w, io, at, len))
			return -ECANCELED;
		for (size_t done = 0; done < len;) {
			ssize_t n = write(fd, w->step + done, len - done);
			if (n < 0 && errno == EINTR)
				continue;
			if (n <= 0)
				return n < 0 ? -errno : -EIO;
			done += (size_t)n;
		}
		at += len;
	}
	return 0;
}

static int put_new(struct worker *w, const struct root *r, int dfd, const char *file,
		   const struct node_io *io)
{
	struct dir_node *d = w->node->impl;
	char tmp[64];

	snprintf(tmp, sizeof tmp, TMP_PREFIX "%lx-%llx-%llx", (unsigned long)getpid(),
		 (unsigned long long)realtime_ns(),
		 (unsigned long long)atomic_fetch_add(&d->tmp_seq, 1));
	int fd = openat(dfd, tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return errno == ENOENT && root_vanished(r) ? -ENODEV : -errno;
	int err = write_file(w, fd, io);
	/* A failed sync is final for this file: the kernel may have dropped the bytes. */
	if (!err && fsync(fd) < 0)
		err = -errno;
	if (close(fd) < 0 && !err)
		err = -errno;
	if (!err && io->fired)
		err = -ECANCELED;
	if (!err && renameat(dfd, tmp, dfd, file) < 0)
		err = -errno;
	if (err)
		unlinkat(dfd, tmp, 0);
	return err;
}

static int do_put(struct worker *w, struct root *r, const struct node_io *io)
{
	struct dir_node *d = w->node->impl;
	char dir[DIR_LEN];
	const char *file;

	int err = split_name(io->name, dir, &file);
	if (err)
		return err;
	if (!w->step && !(w->step = malloc(PUT_STEP)))
		return -ENOMEM;
	if (!w->back && !(w->back = malloc(PUT_STEP)))
		return -ENOMEM;
	int dfd = open_dir(d, r, dir, true);
	if (dfd < 0)
		return dfd;
	/* Retries carry the same bytes: a file that differs is damaged and is replaced. */
	int same = same_bytes(w, dfd, file, io);
	err = same < 0 ? same : same ? 0 : put_new(w, r, dfd, file, io);
	if (!err)
		err = sync_dir(d, r, dir, dfd);
	close(dfd);
	return err;
}

static int do_get(const struct root *r, const struct node_io *io, size_t *got)
{
	char path[BLOB_NAME_CAP + DIR_LEN], dir[DIR_LEN];
	const char *file;
	struct stat st;

	int err = split_name(io->name, dir, &file);
	if (err)
		return err;
	snprintf(path, sizeof path, "%s/%s", dir, file);
	int fd = openat(r->fd, path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY);
	if (fd < 0)
		return errno == ENOENT && root_vanished(r) ? -ENODEV : -errno;
	if (fstat(fd, &st) < 0)
		err = -errno;
	else if (!S_ISREG(st.st_mode))
		err = -EIO;
	while (!err && *got < io->len && !io->fired) {
		ssize_t n = pread(fd, io->buf + *got, HF_MIN(io->len - *got, (size_t)GET_STEP),
				  (off_t)(io->off + *got));
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			err = -errno;
		if (n <= 0)
			break;
		*got += (size_t)n;
	}
	close(fd);
	return err;
}

static int do_del(const struct root *r, const struct node_io *io)
{
	char path[BLOB_NAME_CAP + DIR_LEN], dir[DIR_LEN];
	const char *file;

	int err = split_name(io->name, dir, &file);
	if (err)
		return err;
	snprintf(path, sizeof path, "%s/%s", dir, file);
	/* Not synced: a deleted blob that a power cut brings back does no harm. */
	if (unlinkat(r->fd, path, 0) == 0)
		return 0;
	if (errno == ENOENT)
		return root_vanished(r) ? -ENODEV : 0;
	return -errno;
}

static DIR *dir_stream(const struct root *r, const char *dir)
{
	int fd = openat(r->fd, dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *s = fd < 0 ? NULL : fdopendir(fd);

	if (fd >= 0 && !s)
		close(fd);
	return s;
}

/* Appends the blobs of one directory; sub gets the names of what is fanned out below it. */
static int list_dir(const struct root *r, const char *dir, const char *prefix, struct buf *out,
		    struct buf *sub)
{
	char name[BLOB_NAME_CAP];
	struct dirent *e;

	DIR *s = dir_stream(r, dir);
	if (!s)
		return errno == ENOENT ? 0 : -errno;
	while (errno = 0, (e = readdir(s))) {
		if (!good_leaf(e->d_name))
			continue;
		if (sub && strlen(e->d_name) == 2 && e->d_type != DT_REG) {
			buf_put(sub, e->d_name, 3);
			continue;
		}
		if (e->d_type == DT_DIR)
			continue;
		int len = snprintf(name, sizeof name, "%c/%s", dir[0], e->d_name);
		if (len > 0 && (size_t)len < sizeof name &&
		    !strncmp(name, prefix, strlen(prefix)))
			buf_put(out, name, (size_t)len + 1);
	}
	int err = -errno;
	closedir(s);
	return err;
}

static int do_list(const struct root *r, const struct node_io *io, struct buf *out)
{
	char dir[DIR_LEN];
	struct buf sub = {0};
	const char *p = io->name;

	if (!(p[0] >= 'a' && p[0] <= 'z') || p[1] != '/')
		return -EINVAL;
	snprintf(dir, sizeof dir, "%c", p[0]);
	int err = list_dir(r, dir, p, out, p[0] == 's' ? &sub : NULL);
	for (size_t at = 0; !err && at < sub.len && !io->fired; at += 3) {
		snprintf(dir, sizeof dir, "s/%.2s", (char *)sub.p + at);
		/* A prefix of two letters and more names its directory. */
		if (strlen(p) >= 4 && strncmp(dir, p, 4) != 0)
			continue;
		err = list_dir(r, dir, p, out, NULL);
	}
	if (!err)
		err = sub.err ? sub.err : out->err;
	buf_release(&sub);
	return !err && root_vanished(r) ? -ENODEV : err;
}

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
	err = do_get(r, io, got);
	if (!err && faccessat(r->fd, ".", W_OK | X_OK, AT_EACCESS) < 0)
		err = -errno;
	root_put(r);
	return err;
}

/* Temporary files that a crash left behind; those of a running writer are younger. */
static void sweep_dir(const struct root *r, const char *dir, time_t now)
{
	struct dirent *e;
	struct stat st;

	DIR *s = dir_stream(r, dir);
	if (!s)
		return;
	while ((e = readdir(s)))
		if (!strncmp(e->d_name, TMP_PREFIX, strlen(TMP_PREFIX)) &&
		    fstatat(dirfd(s), e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
		    S_ISREG(st.st_mode) && now - st.st_mtime > TMP_STALE_S)
			unlinkat(dirfd(s), e->d_name, 0);
	closedir(s);
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
	sweep_dir(r, "v", now);
	sweep_dir(r, "l", now);
	for (unsigned i = 0; i < 1024 && n->accepted; i++) {
		snprintf(dir, sizeof dir, "s/%c%c", abc[i / 32], abc[i % 32]);
		sweep_dir(r, dir, now);
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
		err = do_put(w, r, io);
		break;
	case NODE_GET:
		err = do_get(r, io, &got);
		break;
	case NODE_DEL:
		err = do_del(r, io);
		break;
	case NODE_LIST:
		err = do_list(r, io, &list);
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
