/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "fs/mounts.h"

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/vfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "net/cond.h"

#define STALE_MS 5000

extern char **environ;

/* The directory above resolved, and the last name behind it. */
static int path_by_parent(const char *dir, char **out)
{
	char *copy, *slash, *above;
	int err = 0;

	copy = strdup(dir);
	if (!copy)
		return -ENOMEM;
	size_t len = strlen(copy);
	while (len > 1 && copy[len - 1] == '/')
		copy[--len] = 0;
	slash = strrchr(copy, '/');
	const char *last = slash ? slash + 1 : copy;
	if (slash)
		*slash = 0;
	above = realpath(!slash ? "." : *copy ? copy : "/", NULL);
	if (!above || !strcmp(last, ".") || !strcmp(last, ".."))
		err = above ? -ENOTCONN : -errno;
	else if (asprintf(out, "%s/%s", strcmp(above, "/") ? above : "", last) < 0)
		err = -ENOMEM;
	free(above);
	free(copy);
	return err;
}

int mounts_path(const char *dir, char **out)
{
	char *path, name[64];
	int err = path_by_parent(dir, out);

	/* What is mounted there may be dead, or never answer. */
	if (!err && mounts_find(*out, name) == 1)
		return 0;
	if (!err)
		free(*out);
	*out = NULL;
	path = realpath(dir, NULL);
	if (!path)
		return -errno;
	*out = path;
	return 0;
}

/* mountinfo writes space, tab, newline and backslash as \ooo. */
static void unescape(char *s)
{
	char *to = s;

	while (*s) {
		if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] >= '0' && s[2] <= '7' &&
		    s[3] >= '0' && s[3] <= '7') {
			*to++ = (char)((s[1] - '0') << 6 | (s[2] - '0') << 3 | (s[3] - '0'));
			s += 4;
		} else {
			*to++ = *s++;
		}
	}
	*to = 0;
}

/* Fields: id parent MAJOR:MINOR root POINT options [optional]... - type SOURCE super */
static bool parse_line(char *line, char **dev, char **point, char **source)
{
	char *save, *f = strtok_r(line, " \n", &save);
	int i;

	for (i = 1; f && i < 5; i++) {
		f = strtok_r(NULL, " \n", &save);
		if (i == 2)
			*dev = f;
	}
	*point = f;
	while (f && strcmp(f, "-"))
		f = strtok_r(NULL, " \n", &save);
	if (f)
		f = strtok_r(NULL, " \n", &save);
	if (f)
		f = strtok_r(NULL, " \n", &save);
	*source = f;
	if (!f)
		return false;
	unescape(*point);
	unescape(*source);
	return true;
}

/* As mounts_find; *minor_out is that of its device number. */
static int find(const char *path, char name[64], unsigned *minor_out)
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	char *line = NULL, *dev = NULL, *point, *source;
	size_t cap = 0;
	int found = 0;

	if (!f)
		return -errno;
	while (getline(&line, &cap, f) > 0) {
		if (!parse_line(line, &dev, &point, &source) || strcmp(point, path))
			continue;
		/* Later lines lie over earlier ones. */
		found = !strncmp(source, MOUNT_SOURCE, strlen(MOUNT_SOURCE)) &&
			strlen(source) < strlen(MOUNT_SOURCE) + 64;
		if (found)
			strcpy(name, source + strlen(MOUNT_SOURCE));
		if (sscanf(dev, "%*u:%u", minor_out) != 1)
			*minor_out = 0;
	}
	free(line);
	fclose(f);
	return found;
}

int mounts_find(const char *path, char name[64])
{
	unsigned no;

	return find(path, name, &no);
}

struct ask {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	char *path;
	bool flush; /* else is it there? */
	bool done, given_up;
	int err;
};

static void ask_free(struct ask *a)
{
	pthread_mutex_destroy(&a->lock);
	pthread_cond_destroy(&a->cond);
	free(a->path);
	free(a);
}

static int flush(const char *path)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int err = fd < 0 || syncfs(fd) < 0 ? -errno : 0;

	if (fd >= 0)
		close(fd);
	return err;
}

static void *ask_main(void *arg)
{
	struct ask *a = arg;
	struct statfs st;
	int err;

	/* Not stat: the kernel may answer that from its cache. */
	if (a->flush)
		err = flush(a->path);
	else
		err = statfs(a->path, &st) < 0 ? -errno : 0;
	pthread_mutex_lock(&a->lock);
	a->err = err;
	a->done = true;
	bool alone = a->given_up;
	pthread_cond_signal(&a->cond);
	pthread_mutex_unlock(&a->lock);
	if (alone)
		ask_free(a);
	return NULL;
}

/* A mount whose process was stopped never answers: so it is asked by a thread of its own. */
static int ask(const char *path, bool flush_it, int timeout_ms)
{
	struct ask *a = calloc(1, sizeof *a);
	int64_t end = now_ms() + timeout_ms;
	pthread_t thread;

	if (!a)
		return -ENOMEM;
	pthread_mutex_init(&a->lock, NULL);
	cond_init(&a->cond);
	a->flush = flush_it;
	a->path = strdup(path);
	if (!a->path || pthread_create(&thread, NULL, ask_main, a)) {
		ask_free(a);
		return -ENOMEM;
	}
	pthread_detach(thread);
	pthread_mutex_lock(&a->lock);
	while (!a->done && cond_until(&a->cond, &a->lock, end) == 0)
		;
	int err = a->done ? a->err : -ETIMEDOUT;
	bool mine = a->done;
	a->given_up = !a->done;
	pthread_mutex_unlock(&a->lock);
	if (mine)
		ask_free(a);
	return err;
}

bool mounts_stale(const char *path)
{
	int err = ask(path, false, STALE_MS);

	/* Asked while the process was dying, and by nobody answered any more. */
	return err == -ENOTCONN || err == -ECONNABORTED;
}

void mounts_flush(const char *path, int timeout_ms)
{
	ask(path, true, timeout_ms);
}

/* The error lines of fusermount3 are not ours: what it means is told from its effect. */
static int fusermount(const char *path, bool lazy)
{
	char *argv[] = {"fusermount3",
			"-u",
			lazy ? "-z" : "--",
			lazy ? "--" : (char *)path,
			lazy ? (char *)path : NULL,
			NULL};
	posix_spawn_file_actions_t fa;
	int status;
	pid_t pid;

	posix_spawn_file_actions_init(&fa);
	posix_spawn_file_actions_addopen(&fa, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
	int err = -posix_spawnp(&pid, argv[0], &fa, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&fa);
	if (err)
		return err;
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EBUSY;
}

int mounts_umount(const char *path, bool lazy)
{
	if (umount2(path, UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0)) == 0)
		return 0;
	return errno == EPERM ? fusermount(path, lazy) : -errno;
}

/* Who mounted may abort: the file is that user's. */
static int abort_connection(unsigned no)
{
	char path[64];
	int err = 0;

	snprintf(path, sizeof path, "/sys/fs/fuse/connections/%u/abort", no);
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, "1", 1) < 0)
		err = -errno;
	if (fd >= 0)
		close(fd);
	return err;
}

int mounts_force(const char *path)
{
	char name[64];
	unsigned no;

	if (umount2(path, UMOUNT_NOFOLLOW | MNT_FORCE | MNT_DETACH) == 0)
		return 0;
	if (errno != EPERM)
		return -errno;
	/* Where /sys/fs/fuse is not mounted, the end of the process frees who waits. */
	if (find(path, name, &no) == 1 && no)
		abort_connection(no);
	return fusermount(path, true);
}

int mounts_pid_signal(int pid_fd, int sig)
{
	return syscall(SYS_pidfd_send_signal, pid_fd, sig, NULL, 0) < 0 ? -errno : 0;
}

int mounts_pid_open(pid_t pid)
{
	int fd = (int)syscall(SYS_pidfd_open, pid, 0);

	return fd < 0 ? -errno : fd;
}

int mounts_wait_end(int pid_fd, int timeout_ms)
{
	int64_t end = now_ms() + timeout_ms;

	for (;;) {
		struct pollfd p = {pid_fd, POLLIN, 0};
		int64_t left = HF_MAX(end - now_ms(), (int64_t)0);
		int r = poll(&p, 1, (int)left);

		if (r > 0)
			return 0;
		if (r < 0 && errno != EINTR)
			return -errno;
		if (r == 0)
			return -ETIMEDOUT;
	}
}

bool mounts_have_fusermount(void)
{
	const char *path = getenv("PATH");
	char *copy = strdup(path && *path ? path : "/bin:/usr/bin"), *save, file[PATH_MAX];
	bool found = false;

	for (char *p = copy ? strtok_r(copy, ":", &save) : NULL; p && !found;
	     p = strtok_r(NULL, ":", &save)) {
		snprintf(file, sizeof file, "%s/fusermount3", p);
		found = access(file, X_OK) == 0;
	}
	free(copy);
	return found;
}
