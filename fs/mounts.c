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

#define STALE_S 5

extern char **environ;

int mounts_path(const char *dir, char **out)
{
	char *path = realpath(dir, NULL), *copy, *slash, *above;
	int err = 0;

	if (!path && errno != ENOTCONN && errno != EACCES)
		return -errno;
	if (path) {
		*out = path;
		return 0;
	}
	/* The last name is the dead mount point: only what is above it can be resolved. */
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

/* Fields: id parent major:minor root POINT options [optional]... - type SOURCE super */
static bool parse_line(char *line, char **point, char **source)
{
	char *save, *f = strtok_r(line, " \n", &save);
	int i;

	for (i = 1; f && i < 5; i++)
		f = strtok_r(NULL, " \n", &save);
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

int mounts_find(const char *path, char name[64])
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	char *line = NULL, *point, *source;
	size_t cap = 0;
	int found = 0;

	if (!f)
		return -errno;
	while (getline(&line, &cap, f) > 0) {
		if (!parse_line(line, &point, &source) || strcmp(point, path))
			continue;
		/* Later lines lie over earlier ones. */
		found = !strncmp(source, MOUNT_SOURCE, strlen(MOUNT_SOURCE)) &&
			strlen(source) < strlen(MOUNT_SOURCE) + 64;
		if (found)
			strcpy(name, source + strlen(MOUNT_SOURCE));
	}
	free(line);
	fclose(f);
	return found;
}

struct ask {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	char *path;
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

static void *ask_main(void *arg)
{
	struct ask *a = arg;
	struct statfs st;

	/* Not stat: the kernel may answer that from its cache. */
	int err = statfs(a->path, &st) < 0 ? -errno : 0;
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
bool mounts_stale(const char *path)
{
	struct ask *a = calloc(1, sizeof *a);
	struct timespec end;
	pthread_t thread;

	if (!a)
		return false;
	pthread_mutex_init(&a->lock, NULL);
	pthread_cond_init(&a->cond, NULL);
	a->path = strdup(path);
	if (!a->path || pthread_create(&thread, NULL, ask_main, a)) {
		ask_free(a);
		return false;
	}
	pthread_detach(thread);
	clock_gettime(CLOCK_REALTIME, &end);
	end.tv_sec += STALE_S;
	pthread_mutex_lock(&a->lock);
	while (!a->done && pthread_cond_timedwait(&a->cond, &a->lock, &end) == 0)
		;
	bool stale = a->done && a->err == -ENOTCONN;
	bool mine = a->done;
	a->given_up = !a->done;
	pthread_mutex_unlock(&a->lock);
	if (mine)
		ask_free(a);
	return stale;
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
