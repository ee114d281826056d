/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "fs/supervise.h"

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>
#include "fs/cmd.h"
#include "fs/drive.h"
#include "fs/mounts.h"

#define SOUND_MS      10000 /* who has served that long did not die of its start */
#define DELAY_MS      250   /* before the third in a row, then twice as long */
#define DELAY_MAX_MS  5000
#define LOCK_FILE     "supervise"

/* --- the lock --- */

static char *lock_path(const char *dir)
{
	char *path;

	return asprintf(&path, "%s/" LOCK_FILE, dir) < 0 ? NULL : path;
}

static int lock_take(const char *dir, const char *mountpoint, int *out)
{
	struct flock fl = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	char *path = lock_path(dir);
	size_t len = strlen(mountpoint);

	if (!path)
		return log_fail(-ENOMEM, "out of memory");
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	int err = fd < 0 || fcntl(fd, F_SETLK, &fl) < 0 ? -errno : 0;
	if (err == -EAGAIN || err == -EACCES)
		err = log_fail(-EBUSY, "%s is being supervised already", dir);
	else if (err || ftruncate(fd, 0) < 0 || pwrite(fd, mountpoint, len, 0) != (ssize_t)len)
		err = log_fail(err ? err : -EIO, "%s cannot be written: %s", path,
			       strerror(errno));
	free(path);
	if (err && fd >= 0)
		close(fd);
	*out = err ? -1 : fd;
	return err;
}

/* The holder; where buf is given it gets the mount point, as much of it as fits. */
static pid_t lock_holder(const char *dir, char *buf, size_t cap)
{
	struct flock fl = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	char *path = lock_path(dir);
	int fd = path ? open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK) : -1;
	pid_t pid = 0;

	free(path);
	if (fd < 0)
		return 0;
	if (fcntl(fd, F_GETLK, &fl) == 0 && fl.l_type != F_UNLCK && fl.l_pid > 0)
		pid = fl.l_pid;
	if (buf) {
		ssize_t n = pread(fd, buf, cap - 1, 0);
		buf[n > 0 ? n : 0] = 0;
	}
	close(fd);
	return pid;
}

pid_t supervise_pid(const char *dir)
{
	return lock_holder(dir, NULL, 0);
}

int supervise_end(const char *dir)
{
	pid_t pid = supervise_pid(dir);
	int fd = pid ? mounts_pid_open(pid) : -ESRCH;

	if (fd < 0)
		return -ESRCH;
	/* Still the holder, so the handle is of no other process that got the number since. */
	if (supervise_pid(dir) == pid && mounts_pid_signal(fd, SIGTERM) == 0)
		return fd;
	close(fd);
	return -ESRCH;
}

struct find {
	const char *path;
	char *dir;
};

static int find_one(void *arg, const char *name)
{
	struct find *f = arg;
	char point[PATH_MAX], *dir;

	if (config_path(name, &dir))
		return 0;
	if (lock_holder(dir, point, sizeof point) && !strcmp(point, f->path)) {
		f->dir = dir;
		return 1;
	}
	free(dir);
	return 0;
}

int supervise_find(const char *path, char **dir)
{
	struct find f = {.path = path};
	int found = config_list(find_one, &f);

	*dir = f.dir;
	return found;
}

/* --- supervising --- */

struct supervisor {
	struct config *cfg;
	struct keys *keys;
	struct daemon_opts o;
	int ready_fd; /* of who waits for the first mount, or -1 */
	int lock_fd, signal_fd;
	pid_t child;
	int child_fd;	   /* says when the child is ready, or why not; -1 */
	char why[1024];	   /* what came through it */
	size_t why_len;
	bool was_ready;	   /* some child was */
	bool ending;	   /* no other shall be started */
	int64_t ready_ms;  /* when this child was; 0 */
	unsigned fail_cnt; /* in a row */
};

/* In the new process.  Never returns. */
static void child_main(struct supervisor *s, int fd)
{
	struct config *cfg = NULL;
	sigset_t set;

	close(s->lock_fd);
	close(s->signal_fd);
	if (s->ready_fd >= 0)
		close(s->ready_fd);
	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
	/* Nodes may have come and gone since the last one started. */
	int err = keys_forked(s->keys);
	if (!err)
		err = config_load(s->cfg->name, &cfg);
	if (!err)
		err = daemon_serve(cfg, s->keys, &s->o, fd);
	if (err) {
		const char *why = *log_last() ? log_last() : strerror(-err);

		(void)!write(fd, why, strlen(why));
	}
	_exit(err ? EXIT_FAILED : EXIT_DONE);
}

static int start(struct supervisor *s)
{
	int p[2];

	if (pipe2(p, O_CLOEXEC) < 0)
		return log_fail(-errno, "no pipe: %s", strerror(errno));
	s->why_len = 0;
	s->ready_ms = 0;
	s->o.again = s->was_ready;
	if (s->was_ready)
		s->o.credentials = NULL; /* they were taken over, and told */
	s->child = fork();
	if (!s->child) {
		close(p[0]);
		child_main(s, p[1]);
	}
	close(p[1]);
	if (s->child < 0) {
		s->child = 0;
		close(p[0]);
		return log_fail(-errno, "no process can be started: %s", strerror(errno));
	}
	s->child_fd = p[0];
	return 0;
}

static void child_said(struct supervisor *s)
{
	ssize_t n = read(s->child_fd, s->why + s->why_len, sizeof s->why - 1 - s->why_len);

	if (n < 0 && errno == EINTR)
		return;
	if (n > 0) {
		s->why_len += (size_t)n;
		if (s->why[0])
			return;
		s->ready_ms = now_ms();
		if (!s->was_ready && s->ready_fd >= 0) {
			daemon_detach(s->ready_fd);
			s->ready_fd = -1;
		} else if (s->was_ready) {
			log_info("%s is mounted again on %s (process %d)", s->cfg->name,
				 s->o.mountpoint, (int)s->child);
		}
		s->was_ready = true;
	}
	s->why[s->why_len] = 0;
	close(s->child_fd);
	s->child_fd = -1;
}

/* The child has ended: 0 that was the end, 1 start another, or why there is no other. */
static int child_ended(struct supervisor *s, int status)
{
	char how[1200];

	while (s->child_fd >= 0)
		child_said(s);
	pid_t pid = s->child;
	s->child = 0;
	if (WIFEXITED(status) && !WEXITSTATUS(status))
		return 0;
	if (WIFSIGNALED(status))
		snprintf(how, sizeof how, "was ended by signal %d", WTERMSIG(status));
	else
		snprintf(how, sizeof how, "failed: %s",
			 *s->why ? s->why : "see the lines above");
	if (!s->was_ready)
		return log_fail(-EIO, "%s", *s->why ? s->why : how);
	if (s->ending) {
		log_info("the process %d of the mount %s; it was to end", (int)pid, how);
		return 0;
	}
	if (s->ready_ms && now_ms() - s->ready_ms >= SOUND_MS)
		s->fail_cnt = 0;
	if (++s->fail_cnt > SUPERVISE_TRIES)
		return log_fail(-EIO,
				"the process %d of the mount %s; that was the %uth time in a "
				"row: giving up. What was written is safe; holdfast mount %s "
				"%s mounts it again",
				(int)pid, how, s->fail_cnt, s->cfg->name, s->o.mountpoint);
	log_msg(LOG_LVL_WARN, "the process %d of the mount %s: starting another", (int)pid, how);
	return 1;
}

static void take_signal(struct supervisor *s, int *status, bool *ended)
{
	struct signalfd_siginfo si;

	if (read(s->signal_fd, &si, sizeof si) != sizeof si)
		return;
	if (si.ssi_signo != SIGCHLD) {
		s->ending = true;
		if (s->child)
			kill(s->child, SIGTERM);
	}
	/* A second SIGCHLD may have been merged with the first. */
	*ended |= s->child && waitpid(s->child, status, WNOHANG) == s->child;
}

static int watch(struct supervisor *s)
{
	int64_t next = 0; /* when to start another */
	int err = start(s);

	while (!err) {
		struct pollfd p[2] = {{s->signal_fd, POLLIN, 0}, {s->child_fd, POLLIN, 0}};
		int64_t left = s->child ? -1 : HF_MAX(next - now_ms(), (int64_t)0);
		bool ended = false;
		int status = 0;

		if (!s->child && s->ending)
			return 0;
		if (!s->child && !left) {
			err = start(s);
			continue;
		}
		if (poll(p, 2, (int)left) < 0) {
			if (errno != EINTR)
				err = log_fail(-errno, "poll: %s", strerror(errno));
			continue;
		}
		if (s->child_fd >= 0 && p[1].revents)
			child_said(s);
		if (p[0].revents)
			take_signal(s, &status, &ended);
		if (!ended)
			continue;
		err = child_ended(s, status);
		if (err <= 0)
			return err;
		err = 0;
		next = now_ms();
		if (s->fail_cnt > 2)
			next += HF_MIN(DELAY_MS << (s->fail_cnt - 3), DELAY_MAX_MS);
	}
	return err;
}

/* A relative HOLDFAST_HOME would be another one from "/". */
static int pin_home(void)
{
	char *home;
	int err = config_home(&home);

	if (err)
		return err;
	if (setenv("HOLDFAST_HOME", home, 1) < 0)
		err = log_fail(-ENOMEM, "out of memory");
	free(home);
	return err;
}

int supervise_run(struct config *cfg, const struct daemon_opts *o, int ready_fd)
{
	struct supervisor s = {.cfg = cfg, .o = *o, .ready_fd = ready_fd, .lock_fd = -1,
			       .signal_fd = -1, .child_fd = -1};
	sigset_t set;

	int err = daemon_keys(cfg, o, &s.keys);
	if (err)
		goto out;
	err = pin_home();
	if (!err)
		err = daemon_log(cfg, o, ready_fd >= 0);
	if (!err)
		err = lock_take(cfg->dir, o->mountpoint, &s.lock_fd);
	if (err)
		goto out;
	cmd_interrupt_set(&set);
	sigaddset(&set, SIGCHLD);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	s.signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (s.signal_fd < 0)
		err = log_fail(-errno, "signalfd: %s", strerror(errno));
	else if (chdir("/") < 0)
		err = log_fail(-errno, "/: %s", strerror(errno));
	if (!err)
		err = watch(&s);
	if (s.child_fd >= 0)
		close(s.child_fd);
	if (s.signal_fd >= 0)
		close(s.signal_fd);
out:
	if (s.lock_fd >= 0)
		close(s.lock_fd);
	keys_free(s.keys);
	config_free(cfg);
	return err;
}
