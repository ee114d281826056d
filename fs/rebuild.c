/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "fs/rebuild.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "cache/salvage.h"
#include "fs/cmd.h"
#include "fs/drive.h"
#include "fs/secrets.h"
#include "fs/tree.h"

#define NODE_MS 10000

struct rebuild {
	const struct config *cfg;
	char date[40], *tmp;
	int lock_fd;
};

void rebuilt_release(struct rebuilt *r)
{
	free(r->database);
	free(r->data);
	free(r->salvaged);
}

/* The lock of the store: a damaged database cannot be opened, but nobody else may try. */
static int take_lock(struct rebuild *r)
{
	char *path = config_file(r->cfg, "lock");
	int err = 0;

	if (!path)
		return log_fail(-ENOMEM, "out of memory");
	r->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (r->lock_fd < 0)
		err = log_fail(-errno, "%s: %s", path, strerror(errno));
	else if (flock(r->lock_fd, LOCK_EX | LOCK_NB) < 0)
		err = log_fail(-EBUSY, "%s is in use by another process: unmount it first",
			       r->cfg->name);
	free(path);
	return err;
}

/* The tree into a store of its own. */
static int load(struct rebuild *r, const char *pass_file)
{
	struct tree_load t = {.device = r->cfg->devices,
			      .device_cnt = r->cfg->device_cnt,
			      .as = r->cfg->device};
	struct store_opts so = {.dir = r->tmp};
	struct volume *v = NULL;
	struct creds *creds = NULL;
	struct keys *keys = NULL;
	struct store *st = NULL;
	char why[1024];

	int err = drive_keys(r->cfg, pass_file, &keys);
	if (!err)
		err = secrets_open(r->cfg, keys, &creds);
	if (!err)
		err = volume_open(&v, keys, r->cfg->k, r->cfg->m, r->cfg->node,
				  r->cfg->node_cnt, creds);
	creds_unref(creds);
	if (err) {
		keys_free(keys);
		return err;
	}
	size_t members = volume_members(v);
	cmd_progress("looking at %zu nodes", members);
	int n = volume_verify(v, now_ms() + NODE_MS);
	/*
	 * This machine goes on with its own log.  A commit that it had begun to send may be on
	 * one node alone; another one under the same number would be a fork.
	 */
	if (n < (int)members)
		err = log_fail(
			-ENODATA,
			"only %d of %zu nodes can be read, and one that is away may have the last "
			"commit of this machine: attach them all (see holdfast node list %s), or "
			"recover the drive with its kit under another name (recover --take-over), "
			"which needs %u",
			HF_MAX(n, 0), members, r->cfg->name, r->cfg->k);
	if (!err && mkdir(r->tmp, 0700) < 0)
		err = log_fail(-errno, "%s: %s", r->tmp, strerror(errno));
	if (!err)
		err = store_open(&st, &so);
	if (!err) {
		st->vol = v;
		err = tree_load(v, st, &t);
	}
	snprintf(why, sizeof why, "%s", log_last());
	int err2 = st ? store_close(st) : 0;
	volume_close(v);
	cmd_progress_end();
	return err ? log_fail(err, "%s", *why ? why : strerror(-err)) : err2;
}

static int move(const char *from_dir, const char *from, const char *to_dir, const char *to,
		const char *suffix)
{
	char *a = NULL, *b = NULL;
	int err = 0;

	if (asprintf(&a, "%s/%s", from_dir, from) < 0 ||
	    asprintf(&b, "%s/%s%s%s", to_dir, to, *suffix ? "-" : "", suffix) < 0)
		err = -ENOMEM;
	else if (renameat2(AT_FDCWD, a, AT_FDCWD, b, RENAME_NOREPLACE) < 0 && errno != ENOENT)
		err = -errno;
	if (err)
		log_fail(err, "%s cannot be moved: %s", a ? a : from, strerror(-err));
	free(a);
	free(b);
	return err;
}

/* What an earlier rebuild kept, in this very second too, is not written over. */
static int choose_names(struct rebuild *r)
{
	static const char *const kept[] = {"meta.db.damaged", "data.kept", "salvaged",
					   "rebuild"};
	time_t now = time(NULL);
	char day[24];
	struct tm tm;
	bool taken = true;

	gmtime_r(&now, &tm);
	strftime(day, sizeof day, "%Y%m%dT%H%M%SZ", &tm);
	for (int n = 0; taken; n++) {
		taken = false;
		if (n)
			snprintf(r->date, sizeof r->date, "%s.%d", day, n);
		else
			snprintf(r->date, sizeof r->date, "%s", day);
		for (size_t i = 0; i < sizeof kept / sizeof *kept; i++) {
			char *path;
			struct stat st;

			if (asprintf(&path, "%s/%s-%s", r->cfg->dir, kept[i], r->date) < 0)
				return log_fail(-ENOMEM, "out of memory");
			taken |= lstat(path, &st) == 0;
			free(path);
		}
	}
	if (asprintf(&r->tmp, "%s/rebuild-%s", r->cfg->dir, r->date) < 0) {
		r->tmp = NULL;
		return log_fail(-ENOMEM, "out of memory");
	}
	return 0;
}

/* Old ones aside, new ones in their place; the database's companions keep their suffixes. */
static int swap(struct rebuild *r, struct rebuilt *out)
{
	static const char *const part[] = {"", "-wal", "-shm"};
	const char *dir = r->cfg->dir;
	char old[96], name[32];
	int err = 0;

	for (size_t i = 0; i < 3 && !err; i++) {
		snprintf(name, sizeof name, "meta.db%s", part[i]);
		snprintf(old, sizeof old, "meta.db.damaged-%s%s", r->date, part[i]);
		err = move(dir, name, dir, old, "");
	}
	if (!err)
		err = move(dir, "data", dir, "data.kept", r->date);
	for (size_t i = 0; i < 3 && !err; i++) {
		snprintf(name, sizeof name, "meta.db%s", part[i]);
		err = move(r->tmp, name, dir, name, "");
	}
	if (!err)
		err = move(r->tmp, "data", dir, "data", "");
	if (!err && (asprintf(&out->database, "%s/meta.db.damaged-%s", dir, r->date) < 0 ||
		     asprintf(&out->data, "%s/data.kept-%s", dir, r->date) < 0))
		err = log_fail(-ENOMEM, "out of memory");
	return err;
}

/* Put back what was moved aside. */
static void swap_back(struct rebuild *r)
{
	static const char *const part[] = {"", "-wal", "-shm"};
	char old[96], name[32], from[96];

	for (size_t i = 0; i < 3; i++) {
		snprintf(name, sizeof name, "meta.db%s", part[i]);
		snprintf(old, sizeof old, "meta.db.damaged-%s%s", r->date, part[i]);
		move(r->cfg->dir, old, r->cfg->dir, name, "");
	}
	snprintf(from, sizeof from, "data.kept-%s", r->date);
	move(r->cfg->dir, from, r->cfg->dir, "data", "");
}

static int salvage(struct rebuild *r, struct rebuilt *out)
{
	char *to;

	if (asprintf(&to, "%s/salvaged-%s", r->cfg->dir, r->date) < 0)
		return log_fail(-ENOMEM, "out of memory");
	int err = salvage_files(out->database, out->data, to, &out->named, &out->unnamed);
	if (out->named || out->unnamed)
		out->salvaged = to;
	else
		free(to);
	return err;
}

int rebuild_run(const struct config *cfg, const char *pass_file, struct rebuilt *out)
{
	struct rebuild r = {.cfg = cfg, .lock_fd = -1};
	char why[1024];

	*out = (struct rebuilt){0};
	int err = take_lock(&r);
	if (!err)
		err = choose_names(&r);
	if (!err)
		err = load(&r, pass_file);
	if (!err) {
		err = swap(&r, out);
		if (err)
			swap_back(&r);
	}
	snprintf(why, sizeof why, "%s", log_last());
	if (r.tmp)
		cmd_remove_tree(r.tmp);
	if (!err) {
		/* The drive is whole again, whatever comes of this. */
		int err2 = salvage(&r, out);
		if (err2)
			fprintf(stderr, "holdfast: fsck: warning: %s\n", log_last());
	}
	if (r.lock_fd >= 0)
		close(r.lock_fd);
	free(r.tmp);
	return err ? log_fail(err, "%s", *why ? why : strerror(-err)) : 0;
}
