/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * sync and repair: wait until everything is on enough nodes, or on all of them.
 */
#include "fs/cmd.h"

#include <stdlib.h>
#include "fs/control.h"
#include "fs/drive.h"

#define ANSWER_MS 30000
#define VERIFY_MS 5000

struct args {
	const char *cmd, *name, *pass_file;
	bool protect, json;
	uint64_t timeout_s;
};

static void show(uint64_t bytes, uint64_t files)
{
	char size[SIZE_CAP];

	cmd_size(bytes, size);
	cmd_progress("publishing: %s in %llu files left", size, (unsigned long long)files);
}

static void on_progress(void *arg, const json_t *p)
{
	(void)arg;
	show((uint64_t)json_integer_value(json_object_get(p, "bytes")),
	     (uint64_t)json_integer_value(json_object_get(p, "files")));
}

static int on_wait(void *arg, const struct publish_status *ps, const struct store_figures *f)
{
	(void)arg;
	(void)ps;
	show(f->unpublished_bytes, f->unpublished_files);
	return 0;
}

static int done(const struct args *a, uint64_t seq)
{
	cmd_progress_end();
	if (a->json)
		return cmd_print_json(json_pack("{s:s, s:I, s:b}", "volume", a->name, "seq",
						(json_int_t)seq, "protected", (int)a->protect));
	printf("%s: everything is %s\n", a->name, a->protect ? "on all nodes" : "published");
	return fflush(stdout) ? EXIT_FAILED : EXIT_DONE;
}

/* -ENOENT: not mounted. */
static int by_mount(const struct args *a, const struct config *cfg, uint64_t *seq)
{
	json_t *req = json_pack("{s:s, s:b, s:I}", "cmd", a->cmd, "protected", (int)a->protect,
				"timeout_ms", (json_int_t)a->timeout_s * 1000);
	json_t *answer = NULL;

	int err = cmd_alive(cfg->dir);
	if (!err)
		err = control_call_progress(cfg->dir, req, ANSWER_MS, on_progress, NULL, NULL,
					    &answer);
	*seq = (uint64_t)json_integer_value(json_object_get(answer, "seq"));
	json_decref(req);
	json_decref(answer);
	return err;
}

/* The database says whether anything is left; publishing needs a mount. */
static int unmounted_sync(const struct args *a)
{
	json_t *st = drive_status_closed(a->name, VERIFY_MS), *un;
	int status;

	if (!st)
		return cmd_fail_last(a->cmd, -EIO);
	un = json_object_get(st, "unpublished");
	long long files = (long long)json_integer_value(json_object_get(un, "files"));
	if (files)
		status = cmd_fail(a->cmd,
				  "%s is not mounted and %lld changed files are not published: "
				  "mount it, then sync",
				  a->name, files);
	else if (a->protect && !json_is_true(json_object_get(st, "protected")))
		status = cmd_fail(a->cmd,
				  "%s is not mounted and not everything is on all nodes: "
				  "holdfast repair %s",
				  a->name, a->name);
	else
		status = done(a, (uint64_t)json_integer_value(json_object_get(
					 json_object_get(st, "published"), "seq")));
	json_decref(st);
	return status;
}

/* Opens the volume itself, as a mount without a tree. */
static int unmounted_repair(const struct args *a, struct config *cfg)
{
	struct drive_wait w = {
		.protect = true, .limit_ms = (int64_t)a->timeout_s * 1000, .progress = on_wait};
	struct publish_status ps;
	struct store_opts so = {0};
	struct keys *keys;
	struct drive *d;

	int err = keys_global_init();
	if (!err)
		err = drive_keys(cfg, a->pass_file, &keys);
	if (err) {
		config_free(cfg);
		return cmd_fail_last(a->cmd, err);
	}
	err = drive_open(&d, cfg, keys, &so);
	if (err)
		return cmd_fail_last(a->cmd, err);
	err = drive_start(d, VERIFY_MS);
	if (!err)
		err = drive_publish(d, &w);
	drive_publish_status(d, &ps);
	int status = err ? cmd_fail_last(a->cmd, err) : EXIT_DONE;
	err = drive_close(d);
	if (err && !status)
		status = cmd_fail_last(a->cmd, err);
	return status ? status : done(a, ps.seq);
}

static int run(struct args *a, int argc, char **argv)
{
	static const struct option longs[] = {{"protected", no_argument, NULL, 'P'},
					      {"timeout", required_argument, NULL, 't'},
					      {"passphrase-file", required_argument, NULL, 'p'},
					      {"json", no_argument, NULL, 'j'},
					      {NULL, 0, NULL, 0}};
	bool repair = !strcmp(a->cmd, "repair");
	struct config *cfg;
	uint64_t seq;
	int o, status;

	while ((o = cmd_getopt(argc, argv, "", longs)) != -1) {
		if (o == 'P') {
			a->protect = true;
		} else if (o == 'j') {
			a->json = true;
		} else if (o == 'p' && repair) {
			a->pass_file = optarg;
		} else if (o == 't') {
			if (!cmd_number(optarg, 1000000, &a->timeout_s) || !a->timeout_s)
				return cmd_usage(a->cmd, "--timeout %s: a number of seconds",
						 optarg);
		} else {
			return o == 'p' ? cmd_usage(
						  a->cmd,
						  "--passphrase-file: the mount does the work, "
						  "and has the keys")
					: EXIT_USAGE;
		}
	}
	status = cmd_operands(argc, argv, 1, "NAME");
	if (status)
		return status;
	a->name = argv[optind];
	int err = config_load(a->name, &cfg);
	if (err)
		return cmd_fail_last(a->cmd, err);
	err = by_mount(a, cfg, &seq);
	if (err == -ENOENT && repair)
		return unmounted_repair(a, cfg);
	config_free(cfg);
	if (err == -ENOENT)
		return unmounted_sync(a);
	return err ? cmd_fail_last(a->cmd, err) : done(a, seq);
}

int cmd_sync(int argc, char **argv)
{
	struct args a = {.cmd = "sync"};

	return run(&a, argc, argv);
}

int cmd_repair(int argc, char **argv)
{
	struct args a = {.cmd = "repair", .protect = true};

	return run(&a, argc, argv);
}
