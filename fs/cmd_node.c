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
	if (json_is_true(json_object_get(p, "trying"))) {
		cmd_progress("trying the new place");
		return;
	}
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
					     {"drain", "is drained: nothing on it is needed any more"},
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
	json_t *req = json_pack("{s:s, s:s, s:b, s:b, s:b, s:b}", "cmd", "node", "op", a->c.op,
				"rebalance", (int)a->c.rebalance, "lost", (int)a->c.lost, "wipe",
				(int)a->c.wipe, "wait", (int)!a->no_wait);
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
		err = members_begin(d, &a->c, interrupted, NULL);
	if (!err && !a->no_wait)
		err = members_wait(d, &a->c, interrupted, on_move, a);
	if (!err && !a->no_wait)
		err = drive_publish(d, &w);
	snprintf(why, sizeof why, "%s", log_last());
	int err2 = drive_close(d);
	return err ? log_fail(err, "%s", why) : err2;
}

/*
 * Is a new directory a place of its own?  Looked at here and not in the mount, which must not
 * wait for a file system that hangs.
 */
static int check_dir(const struct args *a, const struct config *cfg, const char *mountpoint)
{
	const char *url = a->c.url;
	char *home = NULL, *path = NULL, *other;
	bool there;
	int over = 0;

	if (!url || strncmp(url, "dir:", 4))
		return 0;
	int err = config_home(&home);
	if (!err && (!(other = strdup(url + 4))))
		err = log_fail(-ENOMEM, "out of memory");
	if (!err) {
		other[strcspn(other, "?")] = 0;
		path = config_resolve(other, &there);
		if (!path)
			err = log_fail(-errno, "node %s: %s", url, strerror(errno));
		free(other);
	}
	if (!err && (config_overlap(home, path) ||
		     (mountpoint && config_overlap(mountpoint, path))))
		err = log_fail(-EEXIST,
			       "node %s and %s %s: one lies within the other; a node is a "
			       "place of its own",
			       url,
			       config_overlap(home, path) ? "the state directory"
							  : "the mount point",
			       config_overlap(home, path) ? home : mountpoint);
	for (size_t i = 0; i < cfg->node_cnt && !err; i++) {
		const struct node_spec *n = &cfg->node[i];

		if (strncmp(n->url, "dir:", 4))
			continue;
		char *have = strdup(n->url + 4);

		if (have)
			have[strcspn(have, "?")] = 0;
		other = have ? config_resolve(have, &there) : NULL;
		/* What cannot be looked at is compared as it is written. */
		over = have ? config_overlap(other ? other : have, path) : 0;
		if (!have)
			err = log_fail(-ENOMEM, "out of memory");
		else if (over == 1)
			err = log_fail(-EEXIST,
				       "%s is a node of this volume already: node-%u (%s)", url,
				       n->number, n->url);
		else if (over)
			err = log_fail(-EEXIST,
				       "%s and node-%u (%s) lie one within the other: each node "
				       "needs a place of its own",
				       url, n->number, n->url);
		free(other);
		free(have);
	}
	free(path);
	free(home);
	return err;
}

static int change(struct args *a)
{
	json_t *answer = NULL;
	struct config *cfg;
	int err = config_load(a->name, &cfg);

	if (err)
		return cmd_fail_last(CMD, err);
	err = cmd_ping(cfg->dir, NULL, &answer);
	bool mounted = !err;
	if (!err || err == -ENOENT)
		err = check_dir(a, cfg,
				json_string_value(json_object_get(answer, "mountpoint")));
	json_decref(answer);
	if (err) {
		config_free(cfg);
		return cmd_fail_last(CMD, err);
	}
	if (mounted) {
		err = by_mount(a, cfg);
		config_free(cfg);
	} else {
		err = by_itself(a, cfg);
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
					      {"wipe", no_argument, NULL, 'w'},
					      {"no-wait", no_argument, NULL, 'n'},
					      {"passphrase-file", required_argument, NULL, 'p'},
					      {NULL, 0, NULL, 0}};
	static const struct {
		const char *op, *operands, *options;
		int cnt;
	} ops[] = {{"list", "NAME", "j", 1},
		   {"add", "NAME URL", "jcrnp", 2},
		   {"drain", "NAME NODE", "jnpw", 2},
		   {"remove", "NAME NODE", "jlnpw", 2},
		   {"replace", "NAME OLD NEW_URL", "jcnpw", 3}};
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
		a.c.wipe |= o == 'w';
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
