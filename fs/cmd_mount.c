/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "fs/cmd.h"

#include <dirent.h>
#include <fcntl.h>
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/lsan_interface.h>
#endif
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "fs/control.h"
#include "fs/daemon.h"
#include "fs/mounts.h"
#include "fs/supervise.h"
#include "net/url.h"

#define END_WAIT_MS 90000
#define DEAD_MAX    16 /* mounts over each other that are cleared */

struct mount_args {
	struct daemon_opts o;
	bool foreground, fake, supervise, remount;
	char *options[64]; /* copies that daemon_opts points into */
	size_t option_cnt;
};

/* --- options --- */

/* Root's mount is a disk like any other; a user's is that user's, as libfuse has it. */
static struct mount_args defaults(void)
{
	bool root = geteuid() == 0;

	return (struct mount_args){
		.o.fs = {.allow_other = root, .dev = root, .suid = root}};
}

/* What mount(8), fstab and the kernel's list of mounts carry for themselves. */
static bool for_others(const char *opt)
{
	static const char *const word[] = {
		"_netdev",  "nofail",	  "user",	   "users",    "owner",
		"group",    "auto",	  "noauto",	   "nouser",   "silent",
		"loud",	    "defaults",	  "async",	   "atime",    "relatime",
		"diratime", "nodiratime", "nostrictatime", "lazytime", "nolazytime",
		"nomand",   "noiversion", "default_permissions"};

	for (size_t i = 0; i < sizeof word / sizeof *word; i++)
		if (!strcmp(opt, word[i]))
			return true;
	return !strncmp(opt, "x-", 2) || !strncmp(opt, "user=", 5) ||
	       !strncmp(opt, "comment=", 8) || !strncmp(opt, "user_id=", 8) ||
	       !strncmp(opt, "group_id=", 9);
}

static int only_root(const char *opt)
{
	if (geteuid() == 0)
		return 0;
	return cmd_usage("mount", "option %s is for root alone", opt);
}

static int take_rate(const char *opt, const char *value, uint64_t *out)
{
	if (url_parse_rate(value, out) || !*out)
		return cmd_usage("mount", "%s: bytes a second, such as 500K or 2M", opt);
	return 0;
}

static int take_ids(const char *opt, const char *value, struct ids *ids)
{
	int err = ids_parse(ids, value);

	if (err == -ENOMEM)
		return cmd_fail("mount", "out of memory");
	if (err)
		return cmd_usage("mount",
				 "%s: a number, to whom everything belongs here; or "
				 "STORED:HERE, which may be repeated with others of each",
				 opt);
	return 0;
}

static int one_option(struct mount_args *a, char *opt)
{
	char *value = strchr(opt, '=');
	uint64_t n;

	if (value)
		value++;
	if (!strcmp(opt, "ro")) {
		a->o.fs.read_only = true;
	} else if (!strcmp(opt, "rw")) {
		a->o.fs.read_only = false;
	} else if (!strcmp(opt, "remount")) {
		a->remount = true;
		return only_root(opt);
	} else if (!strcmp(opt, "supervise")) {
		a->supervise = true;
	} else if (!strcmp(opt, "noatime")) {
		a->o.fs.noatime = true;
	} else if (!strcmp(opt, "strictatime") || !strcmp(opt, "norelatime")) {
		return cmd_usage("mount", "%s: what is read from the kernel's memory is not "
					  "seen here; access times are as with relatime, or "
					  "noatime", opt);
	} else if (!strcmp(opt, "sync") || !strcmp(opt, "dirsync")) {
		return cmd_usage("mount", "%s is not supported: programs that call fsync get "
					  "what it says, and fsync=remote is more", opt);
	} else if (!strcmp(opt, "allow_other")) {
		a->o.fs.allow_other = true;
	} else if (!strcmp(opt, "allow_root")) {
		return cmd_usage("mount", "allow_root is not supported: allow_other lets root "
					  "and all others in, as the files' modes say");
	} else if (!strcmp(opt, "debug")) {
		a->o.fs.debug = true;
	} else if (!strcmp(opt, "dev")) {
		a->o.fs.dev = true;
		return only_root(opt);
	} else if (!strcmp(opt, "suid")) {
		a->o.fs.suid = true;
		return only_root(opt);
	} else if (!strcmp(opt, "nodev")) {
		a->o.fs.dev = false;
	} else if (!strcmp(opt, "nosuid")) {
		a->o.fs.suid = false;
	} else if (!strcmp(opt, "exec")) {
		a->o.fs.noexec = false;
	} else if (!strcmp(opt, "noexec")) {
		a->o.fs.noexec = true;
	} else if (!strncmp(opt, "uid=", 4)) {
		return take_ids(opt, value, &a->o.fs.owners.uid);
	} else if (!strncmp(opt, "gid=", 4)) {
		return take_ids(opt, value, &a->o.fs.owners.gid);
	} else if (!strncmp(opt, "umask=", 6)) {
		if (owners_parse_umask(&a->o.fs.owners, value))
			return cmd_usage("mount", "%s: an octal number, such as 022", opt);
	} else if (!strncmp(opt, "cache_size=", 11)) {
		if (!cmd_parse_size(value, &a->o.cache_size) || !a->o.cache_size)
			return cmd_usage("mount",
					 "cache_size=%s: a number of bytes, such as 20G",
					 value);
	} else if (!strcmp(opt, "quota=none")) {
		a->o.set_quota = true;
		a->o.quota = 0;
	} else if (!strncmp(opt, "quota=", 6)) {
		a->o.set_quota = true;
		if (!cmd_parse_size(value, &a->o.quota) || !a->o.quota)
			return cmd_usage("mount", "%s: a number of bytes, such as 20G, or none",
					 opt);
	} else if (!strncmp(opt, "upload_limit=", 13)) {
		return take_rate(opt, value, &a->o.up_limit);
	} else if (!strncmp(opt, "download_limit=", 15)) {
		return take_rate(opt, value, &a->o.down_limit);
	} else if (!strncmp(opt, "repair_limit=", 13)) {
		return take_rate(opt, value, &a->o.repair_limit);
	} else if (!strncmp(opt, "scrub_limit=", 12)) {
		return take_rate(opt, value, &a->o.scrub_limit);
	} else if (!strncmp(opt, "credentials=", 12) && *value) {
		a->o.credentials = value;
	} else if (!strcmp(opt, "fsync=local")) {
		a->o.fsync_remote = false;
	} else if (!strcmp(opt, "fsync=remote")) {
		a->o.fsync_remote = true;
	} else if (!strncmp(opt, "fsync=", 6)) {
		return cmd_usage("mount", "%s: fsync=local or fsync=remote", opt);
	} else if (!strncmp(opt, "interval=", 9)) {
		if (!cmd_number(value, 86400, &n) || !n)
			return cmd_usage("mount", "interval=%s: 1 to 86400 seconds", value);
		a->o.interval_ms = (unsigned)n * 1000;
	} else if (!strncmp(opt, "threads=", 8)) {
		if (!cmd_number(value, 64, &n) || !n)
			return cmd_usage("mount", "threads=%s: 1 to 64", value);
		a->o.fs.threads = (unsigned)n;
	} else if (!strncmp(opt, "passphrase_file=", 16) && *value) {
		a->o.pass_file = value;
	} else if (!strncmp(opt, "state=", 6) && *value == '/') {
		if (setenv("HOLDFAST_HOME", value, 1) < 0)
			return cmd_fail("mount", "out of memory");
	} else if (*opt && !for_others(opt)) {
		return cmd_usage("mount", "unknown mount option %s", opt);
	}
	return 0;
}

static int take_options(struct mount_args *a, const char *list)
{
	char *copy = strdup(list), *save;
	int bad = 0;

	if (!copy || a->option_cnt == sizeof a->options / sizeof *a->options) {
		free(copy);
		return cmd_fail("mount", copy ? "too many -o" : "out of memory");
	}
	a->options[a->option_cnt++] = copy;
	for (char *o = strtok_r(copy, ",", &save); o && !bad; o = strtok_r(NULL, ",", &save))
		bad = one_option(a, o);
	return bad;
}

/* --- may it be mounted? --- */

/*
 * The last mount of the volume may still be publishing after it was unmounted from outside:
 * it is told to make haste, and its end is waited for.
 */
static int check_not_mounted(const struct config *cfg, const char *credentials)
{
	json_t *hurry = json_pack("{s:s}", "cmd", "hurry");
	json_t *answer = NULL, *ok = NULL;
	pid_t pid = 0;
	int fd = -1, status = 0;

	int err = cmd_ping(cfg->dir, &pid, &answer);
	/* It died before it answered: the lock says when it is gone. */
	if (err == -ECONNRESET)
		err = -ENOENT;
	if (err && err != -ENOENT)
		status = cmd_fail_last("mount", err);
	if (!err && json_is_true(json_object_get(answer, "mounted")))
		status = cmd_fail("mount",
				  "%s is already mounted on %s (process %d): one mount at a "
				  "time%s%s%s%s",
				  cfg->name,
				  json_string_value(json_object_get(answer, "mountpoint")),
				  (int)pid,
				  credentials ? "; holdfast credentials " : "",
				  credentials ? cfg->name : "", credentials ? " " : "",
				  credentials ? credentials : "");
	/* Its mount has died a moment ago. */
	if (err == -ENOENT && (pid = supervise_pid(cfg->dir)) > 0)
		status = cmd_fail("mount",
				  "%s is supervised by process %d, which is about to mount it "
				  "again: wait, or holdfast umount its mount point first",
				  cfg->name, (int)pid);
	else if (!err && !status && pid > 0) {
		fd = mounts_pid_open(pid);
		control_call(cfg->dir, hurry, 10000, &ok);
		if (fd >= 0 && mounts_wait_end(fd, END_WAIT_MS))
			status =
				cmd_fail("mount",
					 "the last mount of %s (process %d) has not ended yet: "
					 "see %s/log",
					 cfg->name, (int)pid, cfg->dir);
		if (fd >= 0)
			close(fd);
	}
	json_decref(hurry);
	json_decref(answer);
	json_decref(ok);
	return status;
}

/* A line "user_allow_other" in /etc/fuse.conf. */
static bool users_may_allow_other(void)
{
	struct buf b = {0};
	bool may = false;
	char *save;

	if (!file_read("/etc/fuse.conf", 1 << 20, &b)) {
		buf_u8(&b, 0);
		for (char *l = b.err ? NULL : strtok_r((char *)b.p, "\n", &save); l;
		     l = strtok_r(NULL, "\n", &save)) {
			l += strspn(l, " \t");
			may |= !strncmp(l, "user_allow_other", 16) &&
			       !l[16 + strspn(l + 16, " \t\r")];
		}
	}
	buf_release(&b);
	return may;
}

static int check_fuse(bool allow_other)
{
	int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);

	if (fd < 0 && errno == ENOENT)
		return cmd_fail("mount", "there is no /dev/fuse: load the kernel module fuse "
					 "(modprobe fuse), or give the container the device");
	if (fd < 0 && (errno == EACCES || errno == EPERM))
		return cmd_fail("mount", "/dev/fuse may not be opened: ask for read and write "
					 "permission on it");
	if (fd < 0)
		return cmd_fail("mount", "/dev/fuse: %s: is the kernel module fuse loaded?",
				strerror(errno));
	close(fd);
	if (geteuid() == 0)
		return 0;
	if (!mounts_have_fusermount())
		return cmd_fail("mount",
				"fusermount3 is not in PATH and a user's mount needs it: "
				"install the package fuse3");
	if (allow_other && !users_may_allow_other())
		return cmd_fail(
			"mount",
			"allow_other: root must first put the line user_allow_other into "
			"/etc/fuse.conf");
	return 0;
}

static int check_empty(const char *path)
{
	DIR *d = opendir(path);
	struct dirent *e;
	int status = 0;

	if (!d)
		return cmd_fail("mount", "mount point %s: %s", path, strerror(errno));
	while (!status && (e = readdir(d)))
		if (strcmp(e->d_name, ".") && strcmp(e->d_name, ".."))
			status = cmd_fail("mount",
					  "mount point %s is not empty: what is in it would be "
					  "hidden; choose an empty directory",
					  path);
	closedir(d);
	return status;
}

/* What the drive itself needs must be neither below the mount point nor above it. */
static int check_apart(const struct config *cfg, const char *point)
{
	char *home = NULL, *place;
	int status = 0;

	int err = config_home(&home);
	if (err)
		return cmd_fail_last("mount", err);
	if (config_within(home, point))
		status = cmd_fail("mount",
				  "mount point %s lies in the state directory %s: choose "
				  "another",
				  point, home);
	else if (config_within(point, home))
		status = cmd_fail("mount",
				  "mount point %s would hide the state directory %s: choose "
				  "another",
				  point, home);
	free(home);
	for (size_t i = 0; i < cfg->node_cnt && !status; i++) {
		if (strncmp(cfg->node[i].url, "dir:", 4))
			continue;
		place = strdup(cfg->node[i].url + 4);
		if (!place)
			return cmd_fail("mount", "out of memory");
		place[strcspn(place, "?")] = 0;
		if (config_within(place, point) || config_within(point, place))
			status = cmd_fail("mount",
					  "mount point %s and node %s: one lies within the "
					  "other; choose another mount point",
					  point, cfg->node[i].url);
		free(place);
	}
	return status;
}

static int check_point(const struct config *cfg, const char *dir, char **path)
{
	char name[64];
	struct stat st;

	int err = mounts_path(dir, path);
	if (err)
		return cmd_fail("mount", "mount point %s: %s%s", dir, strerror(-err),
				err == -ENOENT ? ": make it first with mkdir" : "");
	for (int i = 0; i < DEAD_MAX && mounts_find(*path, name) == 1; i++) {
		if (!mounts_stale(*path))
			return cmd_fail("mount", "%s is already mounted on %s", name, *path);
		/* The process of that mount was killed: its mount point is of no more use. */
		err = mounts_umount(*path, true);
		if (err)
			return cmd_fail("mount",
					"the dead mount on %s cannot be cleared: %s: "
					"umount -l %s",
					*path, strerror(-err), *path);
	}
	if (stat(*path, &st) < 0)
		return cmd_fail("mount", "mount point %s: %s", *path, strerror(errno));
	if (!S_ISDIR(st.st_mode))
		return cmd_fail("mount", "mount point %s is not a directory", *path);
	int status = check_apart(cfg, *path);
	return status ? status : check_empty(*path);
}

/* --- into the background --- */

/* The child says "" when the mount can be used, else why not; or it just ends. */
static int wait_ready(int fd, pid_t pid)
{
	char text[2048];
	size_t len = 0;
	int status;
	ssize_t n;

	while (len < sizeof text - 1 &&
	       ((n = read(fd, text + len, sizeof text - 1 - len)) > 0 ||
		(n < 0 && errno == EINTR)))
		len += n > 0 ? (size_t)n : 0;
	text[len] = 0;
	if (len == 1 && !*text)
		return EXIT_DONE;
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (len)
		return cmd_fail("mount", "%s", text);
	return cmd_fail("mount",
			"the process of the mount was ended by signal %d before it was ready",
			WIFSIGNALED(status) ? WTERMSIG(status) : 0);
}

static int background(struct config *cfg, const struct mount_args *a)
{
	int p[2];

	if (pipe2(p, O_CLOEXEC) < 0)
		return cmd_fail("mount", "no pipe: %s", strerror(errno));
	/* Before any key, thread or lock is there: none of them would live in the child. */
	pid_t pid = fork();
	if (pid < 0)
		return cmd_fail("mount", "no process can be started: %s", strerror(errno));
	if (pid > 0) {
		close(p[1]);
		config_free(cfg);
		return wait_ready(p[0], pid);
	}
	/* Nothing that the caller had open is kept open for the life of the mount. */
	if (p[1] > 3)
		close_range(3, (unsigned)p[1] - 1, 0);
	close_range((unsigned)p[1] + 1, ~0u, 0);
	int err = (a->supervise ? supervise_run : daemon_run)(cfg, &a->o, p[1]);
	if (err) {
		const char *why = *log_last() ? log_last() : strerror(-err);

		/* After "ready" the pipe is closed, and the log has it. */
		(void)!write(p[1], why, strlen(why));
	}
#ifdef __SANITIZE_ADDRESS__
	__lsan_do_leak_check(); /* which _exit does not */
#endif
	_exit(err ? EXIT_FAILED : EXIT_DONE);
}

/* A mount that its process takes for read-only must not become another by the kernel alone. */
static int check_writable(const char *name)
{
	struct config *cfg = NULL;
	json_t *answer = NULL;
	int status = 0;

	int err = config_load(name, &cfg);
	if (!err)
		err = cmd_ping(cfg->dir, NULL, &answer);
	if (err == -ENOENT && cfg)
		status = cmd_fail("mount", "remount: the process of %s has ended: mount it again",
				  name);
	else if (err)
		status = cmd_fail_last("mount", err);
	else if (json_is_true(json_object_get(answer, "read_only")))
		status = cmd_fail("mount",
				  "remount: %s was mounted read-only: unmount it, and mount it "
				  "without ro",
				  name);
	json_decref(answer);
	config_free(cfg);
	return status;
}

/*
 * What the kernel keeps of a mount is changed: ro, dev, suid, exec.  All else stays as it was
 * mounted, also where mount(8) repeats it from fstab.
 */
static int remount(const struct mount_args *a, const char *name, const char *dir)
{
	unsigned long flags = MS_REMOUNT | (a->o.fs.read_only ? MS_RDONLY : 0) |
			      (a->o.fs.dev ? 0 : MS_NODEV) | (a->o.fs.suid ? 0 : MS_NOSUID) |
			      (a->o.fs.noexec ? MS_NOEXEC : 0) |
			      (a->o.fs.noatime ? MS_NOATIME : 0);
	char *path = NULL, here[64];
	int status = 0;

	int err = mounts_path(dir, &path);
	if (err || mounts_find(path, here) != 1 || strcmp(here, name))
		status = cmd_fail("mount", "remount: %s is not mounted on %s", name, dir);
	if (!status && !a->o.fs.read_only)
		status = check_writable(name);
	if (!status && !a->fake && mount(NULL, path, NULL, flags, NULL) < 0)
		status = cmd_fail("mount", "remount: %s: %s%s", path, strerror(errno),
				  errno == EBUSY ? ": files are open for writing" : "");
	free(path);
	return status;
}

static int run(struct mount_args *a, const char *name, const char *dir)
{
	struct config *cfg = NULL;
	char *path = NULL, *source = NULL;
	int status = 0;

	if (a->remount)
		return remount(a, name, dir);
	int err = config_load(name, &cfg);
	if (err)
		return cmd_fail_last("mount", err);
	status = check_not_mounted(cfg, a->o.credentials);
	if (!status)
		status = check_fuse(a->o.fs.allow_other);
	if (!status)
		status = check_point(cfg, dir, &path);
	if (!status && asprintf(&source, MOUNT_SOURCE "%s", name) < 0) {
		source = NULL;
		status = cmd_fail("mount", "out of memory");
	}
	a->o.mountpoint = path;
	a->o.fs.fsname = source;
	if (status || a->fake) {
		config_free(cfg);
	} else if (a->foreground) {
		err = (a->supervise ? supervise_run : daemon_run)(cfg, &a->o, -1);
		status = err ? cmd_fail_last("mount", err) : EXIT_DONE;
	} else {
		status = background(cfg, a);
	}
	free(path);
	free(source);
	return status;
}

static void args_release(struct mount_args *a)
{
	for (size_t i = 0; i < a->option_cnt; i++)
		free(a->options[i]);
	owners_release(&a->o.fs.owners);
}

int cmd_mount(int argc, char **argv)
{
	static const struct option longs[] = {{"passphrase-file", required_argument, NULL, 'p'},
					      {"credentials", required_argument, NULL, 'c'},
					      {"untried", no_argument, NULL, 'u'},
					      {"supervise", no_argument, NULL, 's'},
					      {NULL, 0, NULL, 0}};
	struct mount_args a = defaults();
	int o, status = 0;

	while (!status && (o = cmd_getopt(argc, argv, "fo:", longs)) != -1) {
		if (o == 'f')
			a.foreground = true;
		else if (o == 'u')
			a.o.untried = true;
		else if (o == 's')
			a.supervise = true;
		else if (o == 'p')
			a.o.pass_file = optarg;
		else if (o == 'c')
			a.o.credentials = optarg;
		else
			status = o == 'o' ? take_options(&a, optarg) : EXIT_USAGE;
	}
	if (!status)
		status = cmd_operands(argc, argv, 2, "NAME DIR");
	if (!status)
		status = run(&a, argv[optind], argv[optind + 1]);
	args_release(&a);
	return status;
}

/* mount(8): NAME DIR [-sfnv] [-N namespace] [-o options] [-t type.subtype] */
int cmd_mount_helper(int argc, char **argv)
{
	static const struct option longs[] = {{NULL, 0, NULL, 0}};
	static char as[] = "mount";
	struct mount_args a = defaults();
	const char *name;
	int o, status = 0;

	argv[0] = as;
	while (!status && (o = cmd_getopt(argc, argv, "sfnvN:o:t:", longs)) != -1) {
		if (o == 'f')
			a.fake = true;
		else if (o == '?')
			status = EXIT_USAGE;
		else if (o == 'o')
			status = take_options(&a, optarg);
	}
	if (!status)
		status = cmd_operands(argc, argv, 2, "NAME DIR");
	if (!status) {
		name = argv[optind];
		if (!strncmp(name, MOUNT_SOURCE, strlen(MOUNT_SOURCE)))
			name += strlen(MOUNT_SOURCE);
		status = run(&a, name, argv[optind + 1]);
	}
	args_release(&a);
	return status;
}
