/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "fs/daemon.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>
#include "cache/check.h"
#include "cache/quota.h"
#include "fs/cmd.h"
#include "fs/control.h"
#include "fs/drive.h"
#include "fs/members.h"
#include "fs/mounts.h"
#include "fs/secrets.h"
#include "net/http.h"

#define VERIFY_MS    5000
#define LAST_SYNC_MS 60000
#define DEAD_MAX     16 /* mounts over each other that are cleared */

struct daemon {
	const struct daemon_opts *o;
	struct drive *s;
	struct fs *fs;
	struct control *control;
	pthread_t signals;
	_Atomic bool serving; /* the tree is mounted */
	_Atomic bool hurry;   /* do not wait for nodes any more */
	_Atomic bool ended;   /* the signal thread may go */
};

/* --- what the command line asks --- */

struct call {
	struct daemon *d;
	int (*send)(void *conn, json_t *p);
	void *conn;
};

static bool call_give_up(void *arg)
{
	struct call *c = arg;

	return c->d->hurry || !c->d->serving;
}

static int call_progress(void *arg, const struct publish_status *ps,
			 const struct store_figures *f)
{
	struct call *c = arg;

	return c->send(c->conn,
		       json_pack("{s:I, s:I, s:I, s:I, s:I}", "seq", (json_int_t)ps->seq,
				 "bytes", (json_int_t)f->unpublished_bytes, "files",
				 (json_int_t)f->unpublished_files, "cut_bytes",
				 (json_int_t)ps->cut_bytes, "cut_done",
				 (json_int_t)ps->cut_done));
}

static json_t *do_sync(struct call *c, const json_t *req, bool protect)
{
	json_int_t ms = json_integer_value(json_object_get(req, "timeout_ms"));
	struct drive_wait w = {.protect = protect,
			       .limit_ms = HF_MAX(ms, (json_int_t)0),
			       .give_up = call_give_up,
			       .progress = call_progress,
			       .arg = c};
	struct publish_status ps;

	int err = drive_publish(c->d->s, &w);
	if (err)
		return control_error(err, "%s",
				     err == -EPIPE ? "the caller has gone" : log_last());
	drive_publish_status(c->d->s, &ps);
	return json_pack("{s:b, s:I}", "ok", 1, "seq", (json_int_t)ps.seq);
}

struct findings {
	struct call *c;
	json_t *list;
};

static void found(void *arg, const char *what)
{
	struct findings *f = arg;

	if (json_array_size(f->list) < 1000)
		json_array_append_new(f->list, json_string(what));
}

static void check_progress(void *arg, const char *what, uint64_t done, uint64_t total)
{
	struct findings *f = arg;

	f->c->send(f->c->conn, json_pack("{s:s, s:I, s:I}", "what", what, "done",
					 (json_int_t)done, "total", (json_int_t)total));
}

static json_t *do_fsck(struct call *c, const json_t *req)
{
	struct findings f = {c, json_array()};
	struct check_opts o = {.nodes = true,
			       .deep = json_is_true(json_object_get(req, "deep")),
			       .mark = json_is_true(json_object_get(req, "mark")),
			       .in_use = true,
			       .found = found,
			       .progress = check_progress,
			       .arg = &f};

	const struct config *cfg = c->d->s->cfg;
	struct hist_device *dev = drive_devices(c->d->s);
	o.trust = (struct logs_trust){dev, cfg->device_cnt, cfg->owner_ed_pk};
	unsigned missing = f.list ? drive_missing_nodes(c->d->s, found, &f) : 0;
	int64_t n = f.list && dev ? check_store(c->d->s->st, &o) : -ENOMEM;
	free(dev);
	if (n > 0 && o.mark)
		drive_poke(c->d->s);
	if (n >= 0)
		n += missing;
	if (n < 0) {
		json_decref(f.list);
		return control_error((int)n, "%s", log_last());
	}
	return json_pack("{s:b, s:I, s:o}", "ok", 1, "count", (json_int_t)n, "findings",
			 f.list);
}

static int move_progress(void *arg, const struct move_status *ms)
{
	struct call *c = arg;

	return c->send(c->conn, json_pack("{s:I, s:I, s:s}", "shards", (json_int_t)ms->shards,
					  "bytes", (json_int_t)ms->bytes, "reason", ms->reason));
}

static const char *str(const json_t *req, const char *key)
{
	return json_string_value(json_object_get(req, key));
}

/* Who hangs up while a new place is tried does not want it. */
static bool trial_give_up(void *arg)
{
	struct call *c = arg;

	return call_give_up(c) || c->send(c->conn, json_pack("{s:b}", "trying", 1));
}

static json_t *do_node(struct call *c, const json_t *req)
{
	struct member_change m = {.op = str(req, "op"),
				  .node = str(req, "node"),
				  .url = str(req, "url"),
				  .credentials = str(req, "credentials"),
				  .rebalance = json_is_true(json_object_get(req, "rebalance")),
				  .lost = json_is_true(json_object_get(req, "lost")),
				  .wipe = json_is_true(json_object_get(req, "wipe"))};
	bool add = m.op && !strcmp(m.op, "add"), replace = m.op && !strcmp(m.op, "replace");

	if (!add && !replace && (!m.op || (strcmp(m.op, "drain") && strcmp(m.op, "remove"))))
		return control_error(-EINVAL, "the request does not say what to do with a node");
	if ((!m.node) != add || (!m.url) == (add || replace))
		return control_error(-EINVAL, "the request lacks a node or a place");
	if (c->d->o->fs.read_only)
		return control_error(-EROFS, "the volume is mounted read-only");
	int err = members_begin(c->d->s, &m, trial_give_up, c);
	if (!err && json_is_true(json_object_get(req, "wait")))
		err = members_wait(c->d->s, &m, call_give_up, move_progress, c);
	if (err)
		return control_error(err, "%s",
				     err == -EPIPE ? "the caller has gone" : log_last());
	return json_pack("{s:b, s:i}", "ok", 1, "number", (int)m.number);
}

static json_t *do_credentials(struct call *c, const json_t *req)
{
	const char *file = str(req, "file");

	if (!file || *file != '/')
		return control_error(-EINVAL, "the request names no file");
	if (c->d->o->fs.read_only)
		return control_error(-EROFS, "the volume is mounted read-only");
	int err = members_login(c->d->s, file,
				json_is_true(json_object_get(req, "untried")));
	return err ? control_error(err, "%s", log_last()) : json_pack("{s:b}", "ok", 1);
}

/* Also unmounted from outside, and fs_loop has not returned yet. */
static bool is_mounted(struct daemon *d)
{
	bool kernel = d->serving && fs_mounted(d->fs);

	/* When it is false now, the descriptor may have been another's. */
	return kernel && d->serving;
}

static json_t *handle(void *arg, const json_t *req, int (*progress)(void *conn, json_t *p),
		      void *conn)
{
	struct daemon *d = arg;
	struct call c = {d, progress, conn};
	const char *cmd = json_string_value(json_object_get(req, "cmd"));

	if (!cmd)
		return control_error(-EINVAL, "the request has no \"cmd\"");
	if (!strcmp(cmd, "ping"))
		return json_pack("{s:b, s:b, s:i, s:s, s:b}", "ok", 1, "mounted",
				 (int)is_mounted(d), "pid", (int)getpid(), "mountpoint",
				 d->o->mountpoint, "read_only", (int)d->o->fs.read_only);
	if (!strcmp(cmd, "status")) {
		json_t *st = drive_status(d->s, is_mounted(d) ? d->o->mountpoint : NULL);

		if (!st)
			return control_error(-EIO, "%s", log_last());
		return json_pack("{s:b, s:o}", "ok", 1, "status", st);
	}
	if (!strcmp(cmd, "hurry") || !strcmp(cmd, "stay")) {
		d->hurry = *cmd == 'h';
		fs_hurry(d->fs, d->hurry);
		return json_pack("{s:b}", "ok", 1);
	}
	if (!d->serving)
		return control_error(-ESHUTDOWN, "the volume is being unmounted");
	if (!strcmp(cmd, "sync"))
		return do_sync(&c, req, json_is_true(json_object_get(req, "protected")));
	if (!strcmp(cmd, "repair")) {
		drive_poke(d->s);
		return do_sync(&c, req, true);
	}
	if (!strcmp(cmd, "umount")) {
		/* The caller unmounts, when this says that it loses nothing by it. */
		if (json_is_true(json_object_get(req, "now"))) {
			d->hurry = true;
			/* Programs that wait for nodes would keep it in use. */
			fs_hurry(d->fs, true);
			return json_pack("{s:b}", "ok", 1);
		}
		return do_sync(&c, req, false);
	}
	if (!strcmp(cmd, "fsck"))
		return do_fsck(&c, req);
	if (!strcmp(cmd, "node"))
		return do_node(&c, req);
	if (!strcmp(cmd, "credentials"))
		return do_credentials(&c, req);
	return control_error(
		-ENOSYS, "the mount does not know \"%.40s\": is it of another version?", cmd);
}

/* --- signals --- */

static void signal_set(sigset_t *set)
{
	sigemptyset(set);
	sigaddset(set, SIGTERM);
	sigaddset(set, SIGINT);
	sigaddset(set, SIGHUP);
}

static void *signal_main(void *arg)
{
	struct daemon *d = arg;
	bool asked = false;
	sigset_t set;
	int sig;

	signal_set(&set);
	while (!sigwait(&set, &sig)) {
		if (d->ended)
			break;
		asked |= !d->serving;
		log_info("signal %d: %s", sig,
			 asked ? "not waiting for the nodes any more" : "unmounting");
		if (asked)
			d->hurry = true;
		else
			fs_stop(d->fs);
		asked = true;
	}
	return NULL;
}

/* --- life --- */

/* Standard streams stay with the caller's terminal until all can be said there. */
void daemon_detach(int ready_fd)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (null >= 0) {
		dup2(null, STDIN_FILENO);
		dup2(null, STDOUT_FILENO);
		dup2(null, STDERR_FILENO);
		if (null > STDERR_FILENO)
			close(null);
	}
	log_take_stderr();
	while (write(ready_fd, "", 1) < 0 && errno == EINTR)
		;
	close(ready_fd);
}

static bool last_give_up(void *arg)
{
	struct daemon *d = arg;

	return d->hurry;
}

static void last_publication(struct daemon *d)
{
	struct drive_wait w = {.limit_ms = LAST_SYNC_MS, .give_up = last_give_up, .arg = d};

	if (d->o->fs.read_only)
		return;
	/* It fails when nodes are missing: drive_publish has logged what stays here. */
	if (!d->hurry && !drive_publish(d->s, &w))
		log_info("all is published");
}

/* Late, so that programs meet an error, not the empty directory below. */
static int clear_dead(const char *path)
{
	char name[64];

	for (int i = 0; i < DEAD_MAX && mounts_find(path, name) == 1; i++) {
		if (!mounts_stale(path))
			return log_fail(-EBUSY, "%s is mounted on %s by another process", name,
					path);
		int err = mounts_umount(path, true);
		if (err)
			return log_fail(err, "the dead mount on %s cannot be cleared: %s", path,
					strerror(-err));
	}
	return 0;
}

static int serve(struct daemon *d, int ready_fd)
{
	int err = d->o->again ? clear_dead(d->o->mountpoint) : 0;

	if (!err)
		err = fs_mount(&d->fs, d->s->st, d->o->mountpoint, &d->o->fs);
	if (err)
		return err;
	d->serving = true;
	err = drive_start(d->s, VERIFY_MS);
	if (!err && d->o->credentials && !d->o->fs.read_only)
		members_tell_creds(d->s);
	if (!err)
		err = control_start(&d->control, d->s->cfg->dir, handle, d);
	if (!err) {
		err = -pthread_create(&d->signals, NULL, signal_main, d);
		if (err)
			log_fail(err, "no thread can be started: %s", strerror(-err));
	}
	if (err) {
		d->serving = false;
		fs_unmount(d->fs, true);
		control_stop(d->control);
		fs_free(d->fs);
		return err;
	}
	pthread_setname_np(d->signals, "hf-signal");
	log_info("%s is mounted on %s", d->s->cfg->name, d->o->mountpoint);
	if (ready_fd >= 0)
		daemon_detach(ready_fd);

	err = fs_loop(d->fs);
	d->serving = false;
	log_info("%s: unmounting", d->s->cfg->name);
	fs_unmount(d->fs, true);
	last_publication(d);
	control_stop(d->control);
	d->ended = true;
	pthread_kill(d->signals, SIGTERM);
	pthread_join(d->signals, NULL);
	fs_free(d->fs);
	return err;
}

int daemon_keys(const struct config *cfg, const struct daemon_opts *o, struct keys **out)
{
	int err = keys_global_init();

	*out = NULL;
	if (!err)
		err = drive_keys(cfg, o->pass_file, out);
	if (!err && o->credentials)
		err = secrets_update(cfg, *out, o->credentials, o->untried);
	if (err) {
		keys_free(*out);
		*out = NULL;
	}
	return err;
}

int daemon_log(const struct config *cfg, const struct daemon_opts *o, bool background)
{
	char *path = config_file(cfg, "log");
	int err = path ? 0 : -ENOMEM;

	log_set_level(o->fs.debug ? LOG_LVL_DEBUG : LOG_LVL_INFO);
	if (background) {
		/* After the passphrase: the terminal is asked from its own session. */
		setsid();
		if (!err)
			err = log_to_file(path);
		if (err)
			log_fail(err, "%s cannot be written: %s", path ? path : "log",
				 strerror(-err));
	} else {
		log_set_quiet(false);
	}
	free(path);
	return err;
}

int daemon_serve(struct config *cfg, struct keys *keys, const struct daemon_opts *o,
		 int ready_fd)
{
	struct daemon d = {.o = o};
	struct store_opts so = {.cache_size = o->cache_size,
				.fsync_remote = o->fsync_remote,
				.wal_ahead = !o->fs.read_only};
	sigset_t set;

	int err = daemon_log(cfg, o, ready_fd >= 0);
	signal(SIGPIPE, SIG_IGN);
	signal_set(&set);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	umask(077);
	if (err || chdir("/") < 0) {
		keys_free(keys);
		config_free(cfg);
		return err ? err : log_fail(-errno, "/: %s", strerror(errno));
	}
	err = drive_open(&d.s, cfg, keys, &so);
	if (err)
		return err;
	if (o->set_quota && (err = quota_set(d.s->st, o->quota))) {
		drive_close(d.s);
		return log_fail(err, "the quota cannot be set: %s", strerror(-err));
	}
	d.s->interval_ms = o->interval_ms;
	d.s->repair_limit = o->repair_limit;
	d.s->scrub_limit = o->scrub_limit;
	http_set_limits(o->up_limit, o->down_limit);
	err = serve(&d, ready_fd);
	if (err) {
		/* Closing logs too: the reason must stay the last line. */
		char why[1024];

		snprintf(why, sizeof why, "%s", log_last());
		drive_close(d.s);
		return log_fail(err, "%s", why);
	}
	err = drive_close(d.s);
	log_info("ended");
	return err;
}

int daemon_run(struct config *cfg, const struct daemon_opts *o, int ready_fd)
{
	struct keys *keys;
	int err = daemon_keys(cfg, o, &keys);

	if (!err)
		return daemon_serve(cfg, keys, o, ready_fd);
	config_free(cfg);
	return err;
}
