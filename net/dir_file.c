/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What the requests to a directory node do to its files.  A blob is a file; "s/abcd" lies in
 * s/ab/abcd, so that no directory gets too large, other names as they are.  A PUT writes a
 * temporary name in the same directory, syncs it, renames it and syncs the directory.
 */
#include "net/dir_impl.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#define TMP_PREFIX  ".tmp-"
#define TMP_STALE_S 3600
#define GET_STEP    (1u << 20)
#define PUT_STEP    (256u << 10)

void root_put(struct root *r)
{
	if (!r || atomic_fetch_sub(&r->ref, 1) != 1)
		return;
	close(r->fd);
	free(r);
}

struct root *root_get(struct dir_node *d)
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

int dir_put(struct worker *w, struct root *r, const struct node_io *io)
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

int dir_get(const struct root *r, const struct node_io *io, size_t *got)
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

int dir_del(const struct root *r, const struct node_io *io)
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

int dir_list(const struct root *r, const struct node_io *io, struct buf *out)
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

void dir_sweep(const struct root *r, const char *dir, time_t now)
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
