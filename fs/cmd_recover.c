/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * recover: kit + any N-F nodes = the drive.  Everything local is made in a directory of its
 * own beside the volumes and gets the volume's name at the very end; the nodes are changed
 * only when the whole drive was read and found good.
 */
#include "fs/cmd.h"

#include <dirent.h>
#include <signal.h>
#include <sodium.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include "cache/member.h"
#include "cache/store.h"
#include "fs/making.h"
#include "fs/prompt.h"
#include "fs/recover.h"
#include "fs/secrets.h"
#include "fs/tree.h"

#define CMD "recover"

/*
 * ^C: everything local goes again and the process ends at once, whatever it waits for; but
 * not between the new header and the name, where little is left to do.
 */
struct interrupt {
	pthread_mutex_t lock;
	char *tmp;	/* guarded by lock, as finishing */
	bool finishing;
};

/* --- the new device --- */

/*
 * This machine's certificate goes in; that of every device that could write is replaced by
 * one that says retired.
 */
static int add_device(struct recover *r, const struct keys *keys)
{
	struct rec_device mine = {.number = keys_device(keys), .role = 1};
	int err = 0;

	for (size_t i = 0; i < r->head.device_cnt && !err; i++)
		if (r->head.device[i].role == 1) {
			r->head.device[i].role = 3;
			err = header_certify(r->owner, r->kit->vol, &r->head.device[i]);
		}
	memcpy(mine.ed_pk, keys_device_pk(keys), 32);
	if (!err)
		err = header_certify(r->owner, r->kit->vol, &mine);
	if (!err)
		err = header_add_device(&r->head, &mine);
	r->device = mine.number;
	return err ? log_fail(err, "this machine cannot be certified: %s", strerror(-err)) : 0;
}

static int save_local(struct recover *r, struct config *cfg, const struct keys *keys)
{
	char *path = config_file(cfg, "keys");

	if (!path)
		return log_fail(-ENOMEM, "out of memory");
	int err = keys_save(keys, path, r->no_pass ? NULL : r->pass);
	if (err)
		log_fail(err, "%s cannot be written: %s", path, strerror(-err));
	free(path);
	cfg->device = keys_device(keys);
	cfg->kit_path = realpath(r->kit_file, NULL);
	for (size_t i = 0; i < r->head.device_cnt && !err; i++)
		err = config_add_device(cfg, &r->head.device[i]);
	if (!err)
		err = secrets_save(cfg, keys, r->creds);
	return err ? err : config_save(cfg);
}

static int rival(const char *how)
{
	return log_fail(-EBUSY,
			"another machine recovered this drive at the same time (%s): run recover "
			"again on the one that is to have it",
			how);
}

/*
 * Another recovery that stored its header meanwhile may have published since: what was read
 * would be without that.
 */
static int check_header(struct recover *r, struct volume *v)
{
	unsigned fresh;
	int err = header_merge(v, r->owner->ed_pk, &r->head, &fresh);

	return !err && fresh ? rival("there is a newer header") : err;
}

static int put_header(struct recover *r, struct volume *v)
{
	struct buf bytes = {0};
	uint16_t by;

	r->head.generation = ((r->head.generation >> 16) + 1) << 16 | r->device;
	int err = header_encode(&r->head, v->keys, r->owner, &bytes);
	if (!err)
		err = header_put(v, &r->head, &bytes);
	buf_release(&bytes);
	if (err)
		return log_fail(err, "the volume's new header cannot be stored: %s",
				strerror(-err));
	err = history_check(v, r->device, r->owner->ed_pk, &by);
	if (err == 1)
		return rival("it has taken this one over");
	return err ? log_fail(err, "the nodes cannot be asked whether the drive is ours: %s",
			      strerror(-err))
		   : 0;
}

/*
 * A node that is not where the header says may be where a commit says: the machine that had
 * the drive cannot write headers.
 */
static int take_addresses(struct recover *r, struct store *st, struct volume *v,
			  struct config *cfg)
{
	char canon[NODE_URL_CAP];
	int err = 0;

	for (size_t i = 0; i < r->head.node_cnt && !err; i++) {
		struct rec_node *n = &r->head.node[i];
		struct node *node = volume_node(v, n->number);
		char *url;

		if (!node || node_readable(node))
			continue;
		err = member_url(st, n->number, &url);
		if (err == -ENOENT) {
			err = 0;
			continue;
		}
		if (!err && (strlen(url) != n->url_len || memcmp(url, n->url, n->url_len)) &&
		    !node_check_url(url, canon)) {
			for (size_t j = 0; j < cfg->node_cnt && !err; j++) {
				if (cfg->node[j].number != n->number)
					continue;
				free(cfg->node[j].url);
				cfg->node[j].url = strdup(url);
				err = cfg->node[j].url ? 0 : -ENOMEM;
			}
			free((void *)(uintptr_t)n->url);
			n->url_len = (uint16_t)strlen(url);
			n->url = (const uint8_t *)url;
			url = NULL;
		}
		free(url);
	}
	return err ? log_fail(err, "the nodes' addresses: %s", strerror(-err)) : 0;
}

static int load(struct recover *r, struct volume *v, struct config *cfg)
{
	struct tree_load t = {.device = r->head.device,
			      .device_cnt = r->head.device_cnt,
			      .floor = r->kit->floor,
			      .floor_cnt = r->kit->floor_cnt,
			      .owner = r->owner,
			      .as = keys_device(v->keys)};
	struct store_opts so = {.dir = r->tmp};
	struct store *st;

	int err = store_open(&st, &so);
	if (err)
		return err;
	st->vol = v;
	err = tree_load(v, st, &t);
	if (!err)
		err = take_addresses(r, st, v, cfg);
	if (!err)
		err = recover_keep_roster(r, v->keys, st);
	char why[1024];
	snprintf(why, sizeof why, "%s", log_last());
	int err2 = store_close(st);
	if (err)
		return log_fail(err, "%s", *why ? why : strerror(-err));
	return err2;
}

/* What a killed recovery of the same volume left. */
static void remove_leftovers(const char *home, const char *name)
{
	char prefix[128], path[4096];
	struct dirent *e;

	snprintf(prefix, sizeof prefix, ".%s.recover-", name);
	DIR *d = opendir(home);
	while (d && (e = readdir(d))) {
		if (strncmp(e->d_name, prefix, strlen(prefix)))
			continue;
		long pid = strtol(e->d_name + strlen(prefix), NULL, 10);
		if (pid <= 0 || kill((pid_t)pid, 0) == 0 || errno != ESRCH)
			continue;
		snprintf(path, sizeof path, "%s/%s", home, e->d_name);
		cmd_remove_tree(path);
	}
	if (d)
		closedir(d);
}

static int make_tmp(struct recover *r)
{
	struct stat st;
	char *home;

	int err = config_home_make(&home);
	if (err)
		return err;
	err = making_lock(home, &r->home_fd);
	if (err) {
		if (err == -EAGAIN)
			log_fail(err,
				 "another create or recover is at work in %s: wait for its "
				 "end",
				 home);
		else
			log_fail(err, "%s: %s", home, strerror(-err));
		free(home);
		return err;
	}
	if (lstat(r->dir, &st) == 0) {
		free(home);
		return log_fail(-EEXIST, "%s exists already on this machine", r->name);
	}
	remove_leftovers(home, r->name);
	if (asprintf(&r->tmp, "%s/.%s.recover-%d", home, r->name, (int)getpid()) < 0) {
		r->tmp = NULL;
		err = log_fail(-ENOMEM, "out of memory");
	}
	free(home);
	if (err)
		return err;
	cmd_remove_tree(r->tmp);
	pthread_mutex_lock(&r->stop->lock);
	if (mkdir(r->tmp, 0700) < 0) {
		err = log_fail(-errno, "%s: %s", r->tmp, strerror(errno));
	} else {
		r->made_tmp = true;
		r->stop->tmp = r->tmp;
	}
	pthread_mutex_unlock(&r->stop->lock);
	return err;
}

static int give_name(struct recover *r)
{
	pthread_mutex_lock(&r->stop->lock);
	int err = rename(r->tmp, r->dir) < 0 ? -errno : 0;
	if (!err) {
		r->made_tmp = false;
		r->stop->tmp = NULL;
	}
	pthread_mutex_unlock(&r->stop->lock);
	return err ? log_fail(err, "%s cannot be made: %s", r->dir, strerror(-err)) : 0;
}

static void *interrupt_main(void *arg)
{
	struct interrupt *s = arg;
	sigset_t set;
	int sig;

	cmd_interrupt_set(&set);
	while (!sigwait(&set, &sig)) {
		pthread_mutex_lock(&s->lock);
		if (!s->finishing) {
			/* The others may still be making files in it. */
			for (int i = 0; s->tmp && i < 100 && cmd_remove_tree(s->tmp); i++)
				;
			cmd_fail(CMD, "interrupted: what was made here is removed again; "
				      "recover can be run again");
			_exit(EXIT_FAILED);
		}
		pthread_mutex_unlock(&s->lock);
	}
	return NULL;
}

/* Before any other thread is there, which then has the signals blocked as well. */
static int watch_interrupts(struct recover *r)
{
	static struct interrupt stop = {.lock = PTHREAD_MUTEX_INITIALIZER};
	pthread_t thread;
	sigset_t set;

	r->stop = &stop;
	cmd_interrupt_set(&set);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	int err = -pthread_create(&thread, NULL, interrupt_main, &stop);
	if (err)
		return log_fail(err, "no thread can be started: %s", strerror(-err));
	pthread_detach(thread);
	return 0;
}

static int run(struct recover *r)
{
	struct config *cfg = NULL;
	struct volume *v = NULL;
	struct keys *keys = NULL;
	unsigned fresh;

	/* First the lock: two that take the same drive over must not both begin. */
	int err = make_tmp(r);
	if (!err)
		err = recover_gather_nodes(r);
	if (!err)
		err = recover_follow(r, &keys);
	if (!err)
		err = recover_make_config(r, &cfg);
	if (!err)
		err = volume_open(&v, keys, r->head.k, r->head.m, cfg->node, cfg->node_cnt,
				  r->creds);
	if (v)
		keys = NULL;
	if (!err)
		err = recover_check_nodes(r, v);
	if (!err)
		err = header_merge(v, r->owner->ed_pk, &r->head, &fresh);
	if (!err)
		err = load(r, v, cfg);
	if (!err)
		err = check_header(r, v);
	if (!err)
		err = recover_put_roster(r, v);
	if (!err)
		err = add_device(r, v->keys);
	if (!err)
		err = save_local(r, cfg, v->keys);
	pthread_mutex_lock(&r->stop->lock);
	r->stop->finishing = true;
	pthread_mutex_unlock(&r->stop->lock);
	if (!err)
		err = put_header(r, v);
	if (!err)
		err = give_name(r);
	char why[1024];
	snprintf(why, sizeof why, "%s", log_last());
	volume_close(v);
	keys_free(keys);
	config_free(cfg);
	return err ? log_fail(err, "%s", *why ? why : strerror(-err)) : 0;
}

static int report(const struct recover *r)
{
	cmd_progress_end();
	if (r->json)
		return cmd_print_json(
			json_pack("{s:s, s:i, s:i, s:i}", "volume", r->name, "device",
				  (int)r->device, "nodes",
				  (int)r->head.node_cnt, "answered", (int)r->answered));
	printf("%s is recovered: %u of %zu nodes answered\n", r->name, r->answered,
	       r->head.node_cnt);
	puts("The machine that had it before can publish no more.  The kit stays as it is: "
	     "keep it.");
	/* What was meant with a node that is drained was known to that machine alone. */
	for (size_t i = 0; i < r->roster.node_cnt && r->has_roster; i++)
		if (r->roster.node[i].member == NODE_DRAINING)
			printf("node-%u is being drained, and goes on with that: if it was to be "
			       "removed or replaced: holdfast node remove %s node-%u\n",
			       r->roster.node[i].number, r->name, r->roster.node[i].number);
	printf("next: holdfast mount %s DIR\n", r->name);
	return fflush(stdout) ? EXIT_FAILED : EXIT_DONE;
}

static int check_name(struct recover *r)
{
	struct stat st;

	int err = config_path(r->name, &r->dir);
	if (err == -EINVAL)
		return cmd_usage(CMD, "%s", log_last());
	if (err)
		return cmd_fail_last(CMD, err);
	if (lstat(r->dir, &st) == 0)
		return cmd_fail(
			CMD, "%s exists already on this machine: give the drive another name",
			r->name);
	for (size_t i = 0; i < r->url_cnt; i++) {
		char canon[NODE_URL_CAP];

		if (node_check_url(r->url[i], canon))
			return cmd_usage(CMD, "%s", log_last());
	}
	return 0;
}

/* The drive may be here already, with bytes that only this machine has. */
static int one_here(void *arg, const char *name)
{
	struct recover *r = arg;
	struct config *cfg;

	/* One that cannot be read is no reason against a recovery. */
	if (config_load(name, &cfg))
		return 0;
	bool same = !memcmp(cfg->vol, r->kit->vol, VOL_LEN);
	config_free(cfg);
	if (!same)
		return 0;
	return log_fail(-EEXIST,
			"this drive is on this machine already, as %s: mount that. Recovered under "
			"another name, %s could publish no more, and what it has not published "
			"would stay in it: --take-over if that is meant",
			name, name);
}

static int check_here(struct recover *r)
{
	return r->take_over ? 0 : config_list(one_here, r);
}

static int take_args(struct recover *r, int argc, char **argv)
{
	static const struct option longs[] = {
		{"node", required_argument, NULL, 'n'},
		{"passphrase-file", required_argument, NULL, 'p'},
		{"kit-passphrase-file", required_argument, NULL, 'k'},
		{"no-passphrase", no_argument, NULL, 'N'},
		{"credentials", required_argument, NULL, 'c'},
		{"take-over", no_argument, NULL, 't'},
		{"json", no_argument, NULL, 'j'},
		{NULL, 0, NULL, 0}};
	int o, status;

	r->url = calloc((size_t)argc, sizeof *r->url);
	if (!r->url)
		return cmd_fail(CMD, "out of memory");
	while ((o = cmd_getopt(argc, argv, "", longs)) != -1) {
		switch (o) {
		case 'n':
			r->url[r->url_cnt++] = optarg;
			break;
		case 'p':
			r->pass_file = optarg;
			break;
		case 'k':
			r->kit_pass_file = optarg;
			break;
		case 'N':
			r->no_pass = true;
			break;
		case 'c':
			r->credentials = optarg;
			break;
		case 't':
			r->take_over = true;
			break;
		case 'j':
			r->json = true;
			break;
		default:
			return EXIT_USAGE;
		}
	}
	status = cmd_operands(argc, argv, 2, "KIT NAME");
	if (status)
		return status;
	r->kit_file = argv[optind];
	r->name = argv[optind + 1];
	return 0;
}

int cmd_recover(int argc, char **argv)
{
	struct recover r = {.home_fd = -1};

	int status = take_args(&r, argc, argv);
	if (!status)
		status = check_name(&r);
	if (!status) {
		int err = keys_global_init();

		if (!err)
			err = recover_open_kit(&r);
		if (!err)
			err = check_here(&r);
		if (!err)
			err = recover_unlock(&r);
		if (!err)
			err = recover_credentials(&r);
		if (!err)
			err = watch_interrupts(&r);
		if (!err)
			err = run(&r);
		if (err)
			status = cmd_fail_last(CMD, err);
	}
	if (r.made_tmp)
		cmd_remove_tree(r.tmp);
	if (r.home_fd >= 0)
		close(r.home_fd);
	if (!status)
		status = report(&r);
	for (size_t i = 0; i < r.node_cnt; i++)
		free(r.node[i].url);
	free(r.node);
	free(r.url);
	free(r.dir);
	free(r.tmp);
	prompt_free(r.pass);
	creds_unref(r.creds);
	kit_free(r.kit);
	owner_free(r.owner);
	header_release(&r.head);
	roster_release(&r.roster);
	buf_release(&r.head_bytes);
	return status;
}
