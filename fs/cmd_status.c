/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * status; node list (cmd_node.c) shows a part of the same.
 */
#include "fs/cmd.h"

#include <stdlib.h>
#include "fs/control.h"
#include "fs/drive.h"

#define ASK_MS	  15000
#define VERIFY_MS 3000

/* From the mount when there is one, else from the database.  NULL with a log line. */
json_t *cmd_get_status(const char *name)
{
	json_t *req = json_pack("{s:s}", "cmd", "status"), *answer = NULL, *st = NULL;
	struct config *cfg;

	int err = config_load(name, &cfg);
	if (!err) {
		err = cmd_alive(cfg->dir);
		if (!err)
			err = control_call(cfg->dir, req, ASK_MS, &answer);
		config_free(cfg);
		if (!err) {
			st = json_incref(json_object_get(answer, "status"));
			if (!st)
				log_fail(-EBADMSG, "the mount's answer holds no status");
		} else if (err == -ENOENT) {
			st = drive_status_closed(name, VERIFY_MS);
		}
	}
	json_decref(req);
	json_decref(answer);
	return st;
}

static const char *str(const json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));

	return s ? s : "";
}

static long long num(const json_t *o, const char *key)
{
	return (long long)json_integer_value(json_object_get(o, key));
}

static void figure(const json_t *n, const char *key, const char *unit, char out[SIZE_CAP + 4])
{
	char size[SIZE_CAP];
	long long v = num(n, key);

	if (!v)
		snprintf(out, SIZE_CAP + 4, "-");
	else if (*unit == 'm')
		snprintf(out, SIZE_CAP + 4, "%lld ms", v);
	else {
		cmd_size((uint64_t)v, size);
		snprintf(out, SIZE_CAP + 4, "%s/s", size);
	}
}

static void show_error(const json_t *n)
{
	if (*str(n, "error"))
		printf("  %-10s %s\n", "", str(n, "error"));
}

static void show_nodes(const json_t *nodes)
{
	char size[SIZE_CAP], late[SIZE_CAP + 4];
	size_t i;
	json_t *n;

	printf("  %-10s %-9s %-20s %8s %8s %10s  %s\n", "node", "state", "since", "latency",
	       "shards", "size", "place");
	json_array_foreach(nodes, i, n)
	{
		cmd_size((uint64_t)num(n, "bytes"), size);
		figure(n, "latency_ms", "ms", late);
		printf("  %-10s %-9s %-20s %8s %8lld %10s  %s\n", str(n, "name"),
		       str(n, "state"), str(n, "since"), late, num(n, "shards"), size,
		       str(n, "url"));
		show_error(n);
	}
}

/* All that is known: two lines a node. */
void cmd_show_nodes(const json_t *nodes)
{
	char size[SIZE_CAP], late[SIZE_CAP + 4], p95[SIZE_CAP + 4], up[SIZE_CAP + 4],
		down[SIZE_CAP + 4];
	size_t i;
	json_t *n;

	json_array_foreach(nodes, i, n)
	{
		const json_t *r = json_object_get(n, "requests");
		const char *verified = str(n, "verified"), *domain = str(n, "domain");

		cmd_size((uint64_t)num(n, "bytes"), size);
		figure(n, "latency_ms", "ms", late);
		figure(n, "latency_p95_ms", "ms", p95);
		figure(n, "upload_rate", "", up);
		figure(n, "download_rate", "", down);
		printf("%s  %s since %s  %s%s%s\n", str(n, "name"), str(n, "state"),
		       *str(n, "since") ? str(n, "since") : "-", str(n, "url"),
		       *str(n, "member") ? "  " : "", str(n, "member"));
		show_error(n);
		printf("  %-10s %lld shards, %s, last verified %s%s%s\n", "", num(n, "shards"),
		       size, *verified ? verified : "never", *domain ? ", domain " : "", domain);
		printf("  %-10s latency %s (p95 %s), up %s, down %s\n", "", late, p95, up, down);
		if (strcmp(str(n, "kind"), "dir"))
			printf("  %-10s requests: %lld put, %lld get, %lld list, %lld delete, "
			       "%lld other, %lld of them repeated\n",
			       "", num(r, "put"), num(r, "get"), num(r, "list"),
			       num(r, "delete"), num(r, "other"), num(r, "repeated"));
	}
}

static void show(const json_t *st)
{
	const json_t *pub = json_object_get(st, "published"),
		     *un = json_object_get(st, "unpublished");
	char size[SIZE_CAP];

	if (json_is_true(json_object_get(st, "mounted")))
		printf("%s, mounted on %s (process %lld)\n", str(st, "volume"),
		       str(st, "mountpoint"), num(st, "pid"));
	else
		printf("%s, not mounted\n", str(st, "volume"));
	if (num(pub, "seq"))
		printf("  published    commit %lld of %s\n", num(pub, "seq"), str(pub, "time"));
	else if (*str(pub, "time"))
		printf("  published    nothing of this machine yet; the drive is as of %s\n",
		       str(pub, "time"));
	else
		puts("  published    nothing yet");
	cmd_size((uint64_t)num(un, "bytes"), size);
	if (num(un, "files") || num(un, "bytes"))
		printf("  unpublished  %s in %lld files, oldest change %lld s ago\n", size,
		       num(un, "files"), num(un, "oldest_s"));
	else
		puts("  unpublished  nothing");
	printf("  protected    %s, survives %lld further losses\n",
	       json_is_true(json_object_get(st, "protected")) ? "yes" : "no",
	       num(st, "survives"));
	if (*str(st, "warning"))
		printf("  warning      %s\n", str(st, "warning"));
	show_nodes(json_object_get(st, "nodes"));
}

struct all {
	json_t *list;
	bool json;
	size_t cnt;
	int status;
};

static int one_volume(void *arg, const char *name)
{
	struct all *a = arg;
	json_t *st = cmd_get_status(name);

	a->cnt++;
	if (!st) {
		/* The others are shown all the same. */
		a->status = cmd_fail("status", "%s: %s", name, log_last());
		return 0;
	}
	if (a->json) {
		json_array_append_new(a->list, st);
		return 0;
	}
	if (a->cnt > 1)
		putchar('\n');
	show(st);
	json_decref(st);
	return 0;
}

int cmd_status(int argc, char **argv)
{
	static const struct option longs[] = {{"json", no_argument, NULL, 'j'},
					      {NULL, 0, NULL, 0}};
	struct all a = {0};
	int o, err;

	while ((o = cmd_getopt(argc, argv, "", longs)) != -1) {
		if (o != 'j')
			return EXIT_USAGE;
		a.json = true;
	}
	if (argc - optind > 1)
		return cmd_usage("status", "\"%s\" is too much: one NAME or none",
				 argv[optind + 1]);
	if (argc > optind) {
		json_t *st = cmd_get_status(argv[optind]);

		if (!st)
			return cmd_fail_last("status", -EIO);
		if (a.json)
			return cmd_print_json(st);
		show(st);
		json_decref(st);
		return fflush(stdout) ? EXIT_FAILED : EXIT_DONE;
	}
	a.list = json_array();
	err = config_list(one_volume, &a);
	if (err)
		a.status = cmd_fail_last("status", err);
	if (a.json) {
		err = cmd_print_json(a.list);
		return a.status ? a.status : err;
	}
	json_decref(a.list);
	if (!a.cnt && !a.status)
		puts("no volume on this machine: holdfast create makes one");
	return fflush(stdout) ? EXIT_FAILED : a.status;
}
