/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "fs/cmd.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include "fs/control.h"
#include "fs/mounts.h"

#define ANSWER_MS 30000
#define END_MS	  90000

static void show(void *arg, const json_t *p)
{
	char size[SIZE_CAP];

	(void)arg;
	cmd_size((uint64_t)json_integer_value(json_object_get(p, "bytes")), size);
	cmd_progress("publishing: %s in %lld files left", size,
		     (long long)json_integer_value(json_object_get(p, "files")));
}

static int clear_dead(const char *path)
{
	int err = mounts_umount(path, true);

	if (err)
		return cmd_fail("umount",
				"the dead mount on %s cannot be cleared: %s: as root: "
				"umount -l %s",
				path, strerror(-err), path);
	return EXIT_DONE;
}

/* Publishes; then the tree goes, then the process. */
static int leave(const char *dir, const char *path, const char *name, bool now)
{
	json_t *req = json_pack("{s:s, s:b}", "cmd", "umount", "now", (int)now), *answer = NULL;
	json_t *stay = json_pack("{s:s}", "cmd", "stay"), *ok = NULL;
	int fd = -1, status = 0;
	pid_t pid = 0;

	int err = cmd_alive(dir);
	bool silent = err == -ETIMEDOUT;
	if (!err)
		err = control_call_progress(dir, req, ANSWER_MS, show, NULL, &pid, &answer);
	cmd_progress_end();
	if (err == -ENOENT && mounts_stale(path))
		status = clear_dead(path);
	else if (err == -ENOENT)
		status = cmd_fail("umount",
				  "the mount of %s on %s does not belong to this state "
				  "directory: set HOLDFAST_HOME to its own",
				  name, path);
	else if (silent)
		status = cmd_fail_last("umount", err);
	else if (err && err != -ESHUTDOWN)
		status = cmd_fail("umount", "%s; still mounted, --now does not wait",
				  log_last());
	bool done = status || err == -ENOENT || err == -ESHUTDOWN;
	if (!status && err != -ENOENT)
		fd = mounts_pid_open(pid);
	err = done ? 0 : mounts_umount(path, false);
	/* Somebody else may have unmounted it in the meantime. */
	if (err == -EINVAL)
		err = 0;
	if (err)
		status = cmd_fail("umount", "%s: %s", path,
				  err == -EBUSY
					  ? "it is in use: end the programs that have files "
					    "open there or work in it (fuser -vm shows them)"
					  : strerror(-err));
	if (err && now)
		control_call(dir, stay, ANSWER_MS, &ok);
	if (!status && fd >= 0 && mounts_wait_end(fd, END_MS))
		status = cmd_fail("umount",
				  "%s is unmounted, but its process %d has not ended: see "
				  "%s/log",
				  path, (int)pid, dir);
	if (fd >= 0)
		close(fd);
	json_decref(req);
	json_decref(stay);
	json_decref(answer);
	json_decref(ok);
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
		status = cmd_fail("umount", "no volume is mounted on %s", path);
	else if ((err = config_path(name, &dir)))
		status = cmd_fail_last("umount", err);
	else
		status = leave(dir, path, name, now);
	free(path);
	free(dir);
	return status;
}
