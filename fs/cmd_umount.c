/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * umount, and what --now may do beyond it.  In order, each only when the one before did not
 * end it: requests that wait for nodes are errors; the mount point is detached; the process
 * is told to end, whoever still uses files there; it is killed.  Nothing that was written is
 * lost by any of it: it is on this disk, and is published after the next mount.
 */
#include "fs/cmd.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include "fs/control.h"
#include "fs/mounts.h"
#include "fs/supervise.h"

#define ANSWER_MS 30000
#define END_MS	  90000
#define FLUSH_MS  10000
#define GRACE_MS  3000	/* for programs that got an error to end */
#define NOW_MS	  30000 /* for a process that was told to end at once */
#define KILL_MS	  20000

static void show(void *arg, const json_t *p)
{
	char size[SIZE_CAP];

	(void)arg;
	cmd_size((uint64_t)json_integer_value(json_object_get(p, "bytes")), size);
	cmd_progress("publishing: %s in %lld files left", size,
		     (long long)json_integer_value(json_object_get(p, "files")));
}

/* fd: of the supervisor, told to end before; closed. */
static int supervisor_gone(int fd, const char *dir)
{
	int status = 0;

	if (fd >= 0 && mounts_wait_end(fd, END_MS))
		status = cmd_fail("umount", "its supervisor has not ended: see %s/log", dir);
	if (fd >= 0)
		close(fd);
	return status;
}

static int clear_dead(const char *path, const char *dir)
{
	int fd = supervise_end(dir);
	int err = mounts_umount(path, true), status = 0;

	/* It may just have been cleared by whoever was to mount it again. */
	if (err && err != -EINVAL)
		status = cmd_fail("umount",
				  "the dead mount on %s cannot be cleared: %s: as root: "
				  "umount -l %s",
				  path, strerror(-err), path);
	int s = supervisor_gone(fd, dir);
	return status ? status : s;
}

/* The process that has the volume locked: for who cannot even be connected to. */
static pid_t lock_holder(const char *dir)
{
	char *path, text[32] = "";
	pid_t pid = 0;

	if (asprintf(&path, "%s/lock", dir) < 0)
		return 0;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	free(path);
	if (fd < 0)
		return 0;
	if (flock(fd, LOCK_SH | LOCK_NB) < 0 && errno == EWOULDBLOCK &&
	    pread(fd, text, sizeof text - 1, 0) > 0)
		pid = (pid_t)strtol(text, NULL, 10);
	close(fd);
	return HF_MAX(pid, 0);
}

static int kill_now(int fd, pid_t pid, const char *path, const char *dir)
{
	int supervisor = supervise_end(dir);

	if (supervisor >= 0)
		close(supervisor);
	mounts_pid_signal(fd, SIGKILL);
	if (!mounts_wait_end(fd, KILL_MS))
		return EXIT_DONE;
	return cmd_fail("umount",
			"%s is unmounted, but its process %d cannot be ended: it waits in the "
			"kernel, as for a disk that hangs; see %s/log",
			path, (int)pid, dir);
}

/* The process of the mount does not answer. */
static int force(const char *path, const char *dir, pid_t pid)
{
	int supervisor = supervise_end(dir), status = 0;
	int fd = pid > 0 ? mounts_pid_open(pid) : -ESRCH;

	int err = mounts_force(path);
	if (err && err != -EINVAL)
		status = cmd_fail("umount", "%s: %s", path, strerror(-err));
	else if (fd >= 0)
		status = kill_now(fd, pid, path, dir);
	if (!status && fd >= 0)
		fprintf(stderr,
			"holdfast: umount: the process %d of the mount did not answer and was "
			"killed; what was written is safe on this machine and is published "
			"after the next mount\n",
			(int)pid);
	if (fd >= 0)
		close(fd);
	int s = supervisor_gone(supervisor, dir);
	return status ? status : s;
}

/* --now, and programs use it: fd is the process of the mount. */
static int take_away(const char *path, const char *dir, int fd, pid_t pid)
{
	mounts_flush(path, FLUSH_MS);
	int err = mounts_umount(path, true);
	if (err && err != -EINVAL)
		return cmd_fail("umount", "%s: %s", path, strerror(-err));
	if (fd < 0 || !mounts_wait_end(fd, GRACE_MS))
		return EXIT_DONE;
	fprintf(stderr,
		"holdfast: umount: programs still used %s: their open files are errors from "
		"now on; what they wrote is safe\n",
		path);
	mounts_pid_signal(fd, SIGTERM);
	return mounts_wait_end(fd, NOW_MS) ? kill_now(fd, pid, path, dir) : EXIT_DONE;
}

static int refused(const char *path, int err)
{
	return cmd_fail("umount", "%s: %s", path,
			err == -EBUSY ? "it is in use: end the programs that have files open "
					"there or work in it (fuser -vm shows them); --now takes "
					"it from them"
				      : strerror(-err));
}

/*
 * The tree goes, unless somebody else has taken it away before (gone), then the process, which
 * has said that nothing is lost by it.
 */
static int go(const char *path, const char *dir, pid_t pid, bool now, bool gone)
{
	pid_t above = supervise_pid(dir);
	int supervisor = above ? mounts_pid_open(above) : -ESRCH;
	int fd = mounts_pid_open(pid), status = 0;
	int err = gone ? 0 : mounts_umount(path, false);

	if (err == -EBUSY && now)
		status = take_away(path, dir, fd, pid);
	else if (err && err != -EINVAL) /* somebody else may have unmounted it meanwhile */
		status = refused(path, err);
	else if (fd >= 0 && mounts_wait_end(fd, now ? NOW_MS : END_MS))
		status = now ? kill_now(fd, pid, path, dir)
			     : cmd_fail("umount",
					"%s is unmounted, but its process %d has not ended: see "
					"%s/log",
					path, (int)pid, dir);
	if (fd >= 0)
		close(fd);
	/* It ends with the mount's process, when that had an orderly end. */
	if (!status)
		return supervisor_gone(supervisor, dir);
	if (supervisor >= 0)
		close(supervisor);
	return status;
}

/* The mount that was found has no socket any more: another umount may just have ended it. */
static bool gone_meanwhile(const char *path)
{
	char name[64];

	return mounts_find(path, name) == 0;
}

/* Publishes; then the tree goes, then the process. */
static int leave(const char *dir, const char *path, const char *name, bool now)
{
	json_t *req = json_pack("{s:s, s:b}", "cmd", "umount", "now", (int)now), *answer = NULL;
	json_t *stay = json_pack("{s:s}", "cmd", "stay"), *ok = NULL;
	json_t *hurry = json_pack("{s:s}", "cmd", "hurry");
	int status = 0;
	pid_t pid = 0;

	int err = cmd_ping(dir, &pid, &answer);
	json_decref(answer);
	answer = NULL;
	bool silent = err == -ETIMEDOUT;
	if (!err)
		err = control_call_progress(dir, req, ANSWER_MS, show, NULL, &pid, &answer);
	cmd_progress_end();
	if (err == -ESHUTDOWN && now)
		control_call(dir, hurry, ANSWER_MS, &ok);
	silent |= now && (err == -ETIMEDOUT || err == -ECONNRESET);
	if (err == -ENOENT && mounts_stale(path))
		status = clear_dead(path, dir);
	else if (err == -ENOENT && gone_meanwhile(path))
		status = go(path, dir, pid ? pid : lock_holder(dir), now, true);
	else if (err == -ENOENT)
		status = cmd_fail("umount",
				  "the mount of %s on %s does not belong to this state "
				  "directory: set HOLDFAST_HOME to its own",
				  name, path);
	else if (silent && now)
		status = force(path, dir, pid ? pid : lock_holder(dir));
	else if (silent)
		status = cmd_fail_last("umount", err);
	else if (err && err != -ESHUTDOWN && !now)
		status = cmd_fail("umount", "%s; still mounted, --now does not wait",
				  log_last());
	else
		status = go(path, dir, pid, now, err == -ESHUTDOWN);
	if (status && !err && now)
		control_call(dir, stay, ANSWER_MS, &ok);
	json_decref(hurry);
	json_decref(req);
	json_decref(stay);
	json_decref(answer);
	json_decref(ok);
	return status;
}

/* Nothing is mounted: but it may be about to be mounted again. */
static int not_there(const char *path)
{
	char *dir = NULL;
	int found = supervise_find(path, &dir);
	int fd = found == 1 ? supervise_end(dir) : -ESRCH, status;

	if (fd < 0)
		status = cmd_fail("umount", "no volume is mounted on %s", path);
	else
		status = supervisor_gone(fd, dir);
	free(dir);
	return status;
}

int cmd_umount(int argc, char **argv)
{
	static const struct option longs[] = {{"now", no_argument, NULL, 'n'},
					      {NULL, 0, NULL, 0}};
	char *path = NULL, *dir = NULL, name[64];
	bool now = false;
	int o, status;

	while ((o = cmd_getopt(argc, argv, "", longs)) != -1) {
		if (o != 'n')
			return EXIT_USAGE;
		now = true;
	}
	status = cmd_operands(argc, argv, 1, "DIR");
	if (status)
		return status;
	int err = mounts_path(argv[optind], &path);
	if (err)
		return cmd_fail("umount", "%s: %s", argv[optind], strerror(-err));
	int found = mounts_find(path, name);
	if (found < 0)
		status = cmd_fail("umount", "/proc/self/mountinfo: %s", strerror(-found));
	else if (!found)
		status = not_there(path);
	else if ((err = config_path(name, &dir)))
		status = cmd_fail_last("umount", err);
	else
		status = leave(dir, path, name, now);
	free(path);
	free(dir);
	return status;
}
