/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * fsck, and scrub, which is fsck --nodes --deep and puts what it finds on the repair list.
 */
#include "fs/cmd.h"

#include <stdlib.h>
#include "cache/check.h"
#include "fs/control.h"
#include "fs/drive.h"
#include "fs/rebuild.h"

#define ANSWER_MS 600000 /* without any sign of progress */
#define VERIFY_MS 10000

struct args {
	const char *cmd, *name, *pass_file;
	bool nodes, deep, repair, mark, rebuild, anyway, json;
	int64_t begun_ms; /* the first sign of progress with the segments */
	json_t *list;
	uint64_t cnt;
};

static void found(void *arg, const char *what)
{
	struct args *a = arg;

	a->cnt++;
	cmd_progress_end();
	if (!a->json)
		printf("%s\n", what);
	else if (json_array_size(a->list) < 100000)
		json_array_append_new(a->list, json_string(what));
}

static void progress(void *arg, const char *what, uint64_t done, uint64_t total)
{
	struct args *a = arg;
	bool long_one = a->nodes && !strcmp(what, "segments");
	char left[48] = "";

	if (long_one && !a->begun_ms)
		a->begun_ms = now_ms();
	int64_t s = (now_ms() - a->begun_ms) / 1000;

	/* After some seconds, and as it went so far. */
	if (long_one && s >= 5 && done > 1 && done < total) {
		uint64_t rest = (uint64_t)s * (total - done) / (done - 1);

		snprintf(left, sizeof left, ", about %llu %s left",
			 (unsigned long long)(rest < 120 ? rest : rest / 60),
			 rest < 120 ? "seconds" : "minutes");
	}
	cmd_progress("%s: %llu of %llu%s", what, (unsigned long long)done,
		     (unsigned long long)total, left);
}

static void on_progress(void *arg, const json_t *p)
{
	const char *what = json_string_value(json_object_get(p, "what"));

	progress(arg, what ? what : "checking",
		 (uint64_t)json_integer_value(json_object_get(p, "done")),
		 (uint64_t)json_integer_value(json_object_get(p, "total")));
}

static int report(struct args *a)
{
	int err;

	cmd_progress_end();
	if (a->json) {
		err = cmd_print_json(json_pack("{s:s, s:I, s:O}", "volume", a->name, "count",
					       (json_int_t)a->cnt, "findings", a->list));
		return a->cnt ? EXIT_FAILED : err;
	}
	if (a->cnt)
		printf("%s: %llu findings\n", a->name, (unsigned long long)a->cnt);
	else
		printf("%s: nothing found\n", a->name);
	return fflush(stdout) || a->cnt ? EXIT_FAILED : EXIT_DONE;
}

/* The nodes can be looked at while the drive is in use; the rest cannot. */
static int by_mount(struct args *a, const struct config *cfg)
{
	json_t *req = json_pack("{s:s, s:b, s:b}", "cmd", "fsck", "deep", (int)a->deep,
				"mark", (int)a->mark),
	       *answer = NULL;
	size_t i;
	json_t *f;

	int err = control_call_progress(cfg->dir, req, ANSWER_MS, on_progress, a, NULL,
					&answer);
	json_array_foreach(json_object_get(answer, "findings"), i, f)
		found(a, json_string_value(f) ? json_string_value(f) : "");
	if (!err)
		a->cnt = HF_MAX(a->cnt,
				(uint64_t)json_integer_value(json_object_get(answer, "count")));
	json_decref(req);
	json_decref(answer);
	return err ? cmd_fail_last(a->cmd, err) : report(a);
}

static int check(struct args *a, struct config *cfg)
{
	struct check_opts o = {.nodes = a->nodes,
			       .deep = a->deep,
			       .repair = a->repair,
			       .mark = a->mark,
			       .found = found,
			       .progress = progress,
			       .arg = a};
	struct store_opts so = {0};
	struct keys *keys = NULL;
	struct drive *d;
	int64_t n = 0;

	int err = keys_global_init();
	if (!err && a->nodes)
		err = drive_keys(cfg, a->pass_file, &keys);
	if (err) {
		config_free(cfg);
		return cmd_fail_last(a->cmd, err);
	}
	err = drive_open(&d, cfg, keys, &so);
	if (err)
		return cmd_fail_last(a->cmd, err);
	struct hist_device *dev = drive_devices(d);
	o.trust = (struct logs_trust){dev, d->cfg->device_cnt, d->cfg->owner_ed_pk};
	if (a->nodes) {
		volume_verify(d->vol, now_ms() + VERIFY_MS);
		drive_missing_nodes(d, found, a);
	}
	n = dev ? check_store(d->st, &o) : -ENOMEM;
	free(dev);
	cmd_progress_end();
	int status = n < 0 ? cmd_fail_last(a->cmd, (int)n) : EXIT_DONE;
	err = drive_close(d);
	if (err && !status)
		status = cmd_fail_last(a->cmd, err);
	return status ? status : report(a);
}

/*
 * A sound database with what the nodes do not have: rebuilding would put that aside.  One that
 * cannot be opened, or in which anything is wrong, is what a rebuild is for.
 */
static int check_needed(const struct args *a)
{
	struct check_opts o = {0};
	struct store_figures f = {0};
	struct store_opts so = {0};
	struct config *cfg;
	struct drive *d;

	int err = config_load(a->name, &cfg);
	if (err)
		return err;
	if (drive_open(&d, cfg, NULL, &so))
		return 0;
	bool sound = !check_store(d->st, &o) && !store_figures(d->st, &f);
	drive_close(d);
	if (!sound || (!f.unpublished_files && !f.unpublished_bytes))
		return 0;
	char size[SIZE_CAP];
	cmd_size(f.unpublished_bytes, size);
	return log_fail(-EBUSY,
			"the database is sound, and %llu files (%s) in it are not published: a "
			"rebuild would take them out of the drive, to a folder beside it; mount it "
			"and wait for holdfast sync, or say --anyway",
			(unsigned long long)f.unpublished_files, size);
}

static int rebuild(struct args *a, struct config *cfg)
{
	struct rebuilt r = {0};

	int err = keys_global_init();
	if (!err && !a->anyway)
		err = check_needed(a);
	if (!err)
		err = rebuild_run(cfg, a->pass_file, &r);
	int status = err ? cmd_fail_last(a->cmd, err) : EXIT_DONE;
	if (!err && a->json) {
		status = cmd_print_json(json_pack(
			"{s:s, s:s, s:s, s:o, s:I, s:I}", "volume", a->name, "old_database",
			r.database, "old_contents", r.data, "salvaged",
			r.salvaged ? json_string(r.salvaged) : json_null(), "named",
			(json_int_t)r.named, "unnamed", (json_int_t)r.unnamed));
	} else if (!err) {
		printf("%s: the database is made anew from the nodes\n", a->name);
		printf("the old database: %s*\n", r.database);
		printf("the local contents: %s\n", r.data);
		if (r.salvaged)
			printf("%llu files that were not published: %s (%llu of them without "
			       "name)\n",
			       (unsigned long long)(r.named + r.unnamed), r.salvaged,
			       (unsigned long long)r.unnamed);
		puts("Remove these when nothing of them is needed any more.");
		if (fflush(stdout))
			status = EXIT_FAILED;
	}
	rebuilt_release(&r);
	config_free(cfg);
	return status;
}

static int run(struct args *a, int argc, char **argv)
{
	static const struct option longs[] = {{"nodes", no_argument, NULL, 'n'},
					      {"deep", no_argument, NULL, 'd'},
					      {"repair", no_argument, NULL, 'r'},
					      {"rebuild", no_argument, NULL, 'R'},
					      {"anyway", no_argument, NULL, 'a'},
					      {"passphrase-file", required_argument, NULL, 'p'},
					      {"json", no_argument, NULL, 'j'},
					      {NULL, 0, NULL, 0}};
	bool scrub = !strcmp(a->cmd, "scrub");
	struct config *cfg;
	int o, status;

	while ((o = cmd_getopt(argc, argv, "", longs)) != -1) {
		if (o == '?')
			return EXIT_USAGE;
		if (scrub && o != 'p' && o != 'j')
			return cmd_usage(a->cmd,
					 "only --passphrase-file and --json are known here");
		a->nodes |= o == 'n' || o == 'd';
		a->deep |= o == 'd';
		a->repair |= o == 'r';
		a->rebuild |= o == 'R';
		a->anyway |= o == 'a';
		a->json |= o == 'j';
		if (o == 'p')
			a->pass_file = optarg;
	}
	status = cmd_operands(argc, argv, 1, "NAME");
	if (status)
		return status;
	if (a->anyway && !a->rebuild)
		return cmd_usage(a->cmd, "--anyway belongs to --rebuild");
	if (a->rebuild && (a->nodes || a->repair))
		return cmd_usage(a->cmd, "--rebuild goes alone");
	a->name = argv[optind];
	int err = config_load(a->name, &cfg);
	if (err)
		return cmd_fail_last(a->cmd, err);
	err = cmd_alive(cfg->dir);
	if (err && err != -ENOENT) {
		config_free(cfg);
		return cmd_fail_last(a->cmd, err);
	}
	if (!err) {
		if (a->nodes && !a->repair) {
			status = by_mount(a, cfg);
		} else {
			status = cmd_fail(
				a->cmd,
				"%s is mounted: unmount it first (only --nodes and --deep "
				"can be checked while it is in use)",
				a->name);
		}
		config_free(cfg);
		return status;
	}
	return a->rebuild ? rebuild(a, cfg) : check(a, cfg);
}

int cmd_fsck(int argc, char **argv)
{
	struct args a = {.cmd = "fsck", .list = json_array()};

	int status = run(&a, argc, argv);
	json_decref(a.list);
	return status;
}

int cmd_scrub(int argc, char **argv)
{
	struct args a = {.cmd = "scrub", .nodes = true, .deep = true, .mark = true, .list = json_array()};

	int status = run(&a, argc, argv);
	json_decref(a.list);
	return status;
}
