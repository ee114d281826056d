/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * node: the nodes of a volume, shown and changed.  A mount does the work when there is one
 * and the command follows; else the command opens the drive as a mount without a tree.
 */
#include "fs/cmd.h"

#include <stdlib.h>
#include "fs/control.h"
#include "fs/members.h"

#define CMD	  "node"
#define ANSWER_MS 120000
#define VERIFY_MS 5000
#define PUBLISH_MS 60000

struct args {
	struct member_change c;
	const char *name, *pass_file;
	bool json, no_wait;
	int64_t start_ms;
	uint64_t first; /* bytes on the node at the beginning */
};

static void show(struct args *a, uint64_t shards, uint64_t bytes)
{
	int64_t now = now_ms();
	char size[SIZE_CAP];

	if (!a->start_ms) {
		a->start_ms = now;
		a->first = bytes;
	}
	cmd_size(bytes, size);
	uint64_t gone = a->first - HF_MIN(a->first, bytes);
	int64_t took = now - a->start_ms;
	if (strcmp(a->c.op, "add") == 0)
		cmd_progress("adding: %s on the new node", size);
	else if (gone && took > 1000)
		cmd_progress("%llu shards left (%s), about %lld s", (unsigned long long)shards,
			     size, (long long)(bytes * (uint64_t)took / gone / 1000));
	else
		cmd_progress("%llu shards left (%s)", (unsigned long long)shards, size);
}

static void on_progress(void *arg, const json_t *p)
{
	show(arg, (uint64_t)json_integer_value(json_object_get(p, "shards")),
	     (uint64_t)json_integer_value(json_object_get(p, "bytes")));
}

static int on_move(void *arg, const struct move_status *ms)
{
	show(arg, ms->shards, ms->bytes);
	return 0;
}

static bool interrupted(void *arg)
{
	(void)arg;
	return cmd_interrupted();
}

static int report(const struct args *a)
{
	static const char *const did[][2] = {{"add", "is added"},
					     {"drain", "is drained: nothing is on it any more"},
					     {"remove", "is removed"},
					     {"replace", "is replaced and removed"}};
	const char *what = "";

	cmd_progress_end();
	if (a->json)
		return cmd_print_json(json_pack("{s:s, s:s, s:i, s:b}", "volume", a->name, "op",
						a->c.op, "number", (int)a->c.number, "done",
						(int)!a->no_wait));
	for (size_t i = 0; i < 4; i++)
		if (!strcmp(a->c.op, did[i][0]))
			what = did[i][1];
	printf("%s: node-%u %s\n", a->name, a->c.number,
	       a->no_wait ? "is being worked on: see holdfast node list" : what);
	return fflush(stdout) ? EXIT_FAILED : EXIT_DONE;
}

static int by_mount(struct args *a, const struct config *cfg)
{
	char *cred = a->c.credentials ? realpath(a->c.credentials, NULL) : NULL;
	json_t *req = json_pack("{s:s, s:s, s:b, s:b, s:b}", "cmd", "node", "op", a->c.op,
				"rebalance", (int)a->c.rebalance, "lost", (int)a->c.lost, "wait",
				(int)!a->no_wait);
	json_t *answer = NULL;

	if (a->c.credentials && !cred) {
		json_decref(req);
		return log_fail(-errno, "credentials file %s: %s", a->c.credentials,
				strerror(errno));
	}
	if (a->c.node)
		json_object_set_new(req, "node", json_string(a->c.node));
	if (a->c.url)
		json_object_set_new(req, "url", json_string(a->c.url));
	if (cred)
		json_object_set_new(req, "credentials", json_string(cred));
	int err = control_call_progress(cfg->dir, req, ANSWER_MS, on_progress, a, NULL, &answer);
	a->c.number = (uint16_t)json_integer_value(json_object_get(answer, "number"));
	json_decref(req);
	json_decref(answer);
	free(cred);
	return err;
}

/* Takes cfg over. */
static int by_itself(struct args *a, struct config *cfg)
{
	struct drive_wait w = {.limit_ms = PUBLISH_MS, .give_up = interrupted};
	struct store_opts so = {0};
	struct keys *keys;
	struct drive *d;
	char why[1024];

	int err = keys_global_init();
	if (!err)
		err = drive_keys(cfg, a->pass_file, &keys);
	if (err) {
		config_free(cfg);
		return err;
	}
	err = drive_open(&d, cfg, keys, &so);
	if (err)
		return err;
	cmd_catch_interrupts();
	err = drive_start(d, VERIFY_MS);
	if (!err)
		volume_await(d->vol, (unsigned)volume_members(d->vol), now_ms() + VERIFY_MS);
	if (!err)
		err = members_begin(d, &a->c);
	if (!err && !a->no_wait)
		err = members_wait(d, &a->c, interrupted, on_move, a);
	if (!err && !a->no_wait)
		err = drive_publish(d, &w);
	snprintf(why, sizeof why, "%s", log_last());
	int err2 = drive_close(d);
	return err ? log_fail(err, "%s", why) : err2;
}

static int change(struct args *a)
{
	struct config *cfg;
	int err = config_load(a->name, &cfg);

	if (err)
		return cmd_fail_last(CMD, err);
	err = cmd_alive(cfg->dir);
	if (!err) {
		err = by_mount(a, cfg);
		config_free(cfg);
	} else if (err == -ENOENT) {
		err = by_itself(a, cfg);
	} else {
		config_free(cfg);
	}
	cmd_progress_end();
	return err ? cmd_fail_last(CMD, err) : report(a);
}

static int list(const char *name, bool json)
{
	json_t *st = cmd_get_status(name);

	if (!st)
		return cmd_fail_last(CMD, -EIO);
	json_t *nodes = json_incref(json_object_get(st, "nodes"));
	json_decref(st);
	if (json)
		return cmd_print_json(nodes);
	cmd_show_nodes(nodes);
	json_decref(nodes);
	return fflush(stdout) ? EXIT_FAILED : EXIT_DONE;
}

int cmd_node(int argc, char **argv)
{
	static const struct option longs[] = {{"json", no_argument, NULL, 'j'},
					      {"credentials", required_argument, NULL, 'c'},
					      {"rebalance", no_argument, NULL, 'r'},
					      {"lost", no_argument, NULL, 'l'},
					      {"no-wait", no_argument, NULL, 'n'},
					      {"passphrase-file", required_argument, NULL, 'p'},
					      {NULL, 0, NULL, 0}};
	static const struct {
		const char *op, *operands, *options;
		int cnt;
	} ops[] = {{"list", "NAME", "j", 1},
		   {"add", "NAME URL", "jcrnp", 2},
		   {"drain", "NAME NODE", "jnp", 2},
		   {"remove", "NAME NODE", "jlnp", 2},
		   {"replace", "NAME OLD NEW_URL", "jcnp", 3}};
	static char as[] = "node";
	struct args a = {0};
	size_t op = 0;
	int o, status;

	while (argc > 1 && op < 5 && strcmp(argv[1], ops[op].op))
		op++;
	if (argc < 2 || op == 5)
		return cmd_usage(CMD, "%s: list, add, drain, remove or replace",
				 argc < 2 ? "what to do is needed" : "it is not known what to do");
	argc--;
	argv++;
	argv[0] = as;
	while ((o = cmd_getopt(argc, argv, "", longs)) != -1) {
		if (o == '?')
			return EXIT_USAGE;
		if (!strchr(ops[op].options, o))
			return cmd_usage(CMD, "%s takes no such option", ops[op].op);
		a.json |= o == 'j';
		a.c.rebalance |= o == 'r';
		a.c.lost |= o == 'l';
		a.no_wait |= o == 'n';
		if (o == 'c')
			a.c.credentials = optarg;
		if (o == 'p')
			a.pass_file = optarg;
	}
	status = cmd_operands(argc, argv, ops[op].cnt, ops[op].operands);
	if (status)
		return status;
	a.name = argv[optind];
	a.c.op = ops[op].op;
	if (!op)
		return list(a.name, a.json);
	if (op == 1 || op == 4) {
		char canon[NODE_URL_CAP];

		a.c.url = argv[optind + ops[op].cnt - 1];
		if (node_check_url(a.c.url, canon))
			return cmd_usage(CMD, "%s", log_last());
	}
	if (op != 1)
		a.c.node = argv[optind + 1];
	return change(&a);
}
