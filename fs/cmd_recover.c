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
#include "fs/tree.h"
#include "net/kit.h"

#define CMD	 "recover"
#define KIT_CAP	 (8u << 20)
#define NODE_MS	 10000
#define PROBE_MS 5000
#define DEVICE_TRY 1000
#define TRY_MORE 64 /* node numbers above the kit's that a given place is tried as */

struct found {
	uint16_t number;
	char *url;
	bool given; /* by --node: it holds against the kit and the header */
};

/*
 * ^C: everything local goes again and the process ends at once, whatever it waits for; but
 * not between the new header and the name, where little is left to do.
 */
struct interrupt {
	pthread_mutex_t lock;
	char *tmp;	/* guarded by lock, as finishing */
	bool finishing;
};

struct recover {
	const char *kit_file, *name, *pass_file, *kit_pass_file, *credentials;
	bool no_pass, json;
	char **url;
	size_t url_cnt;

	char *dir, *tmp;
	bool made_tmp;
	int home_fd; /* the lock of the state directory; -1 */
	struct interrupt *stop;
	char *pass;
	struct kit *kit;
	struct owner *owner;
	struct found *node;
	size_t node_cnt;
	struct buf head_bytes;
	struct header head;
	uint16_t device; /* this machine's */
	unsigned answered;
};

/* --- the kit --- */

static int open_kit(struct recover *r)
{
	struct buf text = {0};

	int err = file_read(r->kit_file, KIT_CAP, &text);
	bool unread = err;
	if (unread)
		log_fail(err, "kit %s: %s", r->kit_file,
			 err == -EFBIG ? "too long to be a kit" : strerror(-err));
	else
		err = kit_parse((const char *)text.p, text.len, &r->kit);
	if (text.p)
		sodium_memzero(text.p, text.cap);
	buf_release(&text);
	if (err && !unread) {
		char why[512];

		snprintf(why, sizeof why, "%s", log_last());
		return log_fail(err, "%s: %s", r->kit_file, *why ? why : strerror(-err));
	}
	return err;
}

/* The kit's own passphrase first, then that of this machine. */
static int unlock(struct recover *r)
{
	char *pass = NULL;
	int err = 0;

	if (!r->kit->secret) {
		const char *file = r->kit_pass_file ? r->kit_pass_file : r->pass_file;

		err = prompt_pass(file, "Passphrase of the kit", false, &pass);
		if (!err)
			err = kit_unlock(r->kit, pass);
		if (err == -EACCES)
			log_fail(err, "the passphrase is not that of the kit %s", r->kit_file);
		else if (err && pass)
			log_fail(err, "the kit %s cannot be opened: %s", r->kit_file,
				 strerror(-err));
		prompt_free(pass);
	}
	if (!err && !r->no_pass)
		err = prompt_pass(r->pass_file, "Passphrase of the drive on this machine", true,
				  &r->pass);
	if (!err)
		err = owner_new(&r->owner, r->kit->secret);
	if (!err && memcmp(r->owner->ed_pk, r->kit->owner_ed_pk, 32))
		err = log_fail(-EBADMSG, "the kit %s contradicts itself: it is damaged",
			       r->kit_file);
	return err;
}

/* --- the nodes --- */

static int add_node(struct recover *r, uint16_t number, const char *url, size_t len, bool given)
{
	struct found *f = NULL;

	for (size_t i = 0; i < r->node_cnt; i++)
		if (r->node[i].number == number)
			f = &r->node[i];
	if (f && f->given && !given)
		return 0;
	if (!f) {
		struct found *more = reallocarray(r->node, r->node_cnt + 1, sizeof *more);

		if (!more)
			return log_fail(-ENOMEM, "out of memory");
		r->node = more;
		f = &more[r->node_cnt++];
		*f = (struct found){.number = number};
	}
	free(f->url);
	f->url = strndup(url, len);
	f->given = given;
	return f->url ? 0 : log_fail(-ENOMEM, "out of memory");
}

/* 0 it is node `number`; -EBADMSG it is another; else it cannot be told. */
static int probe(const struct recover *r, uint16_t number, const char *url)
{
	struct node *n;

	int err = node_open(&n, number, url, NULL);
	if (err)
		return err;
	err = node_verify(n, r->kit->vol, now_ms() + PROBE_MS);
	node_close(n);
	return err == -EACCES || err == -EROFS ? 0 : err;
}

/* The marker of a place tells which node it is. */
static int recognise(struct recover *r, const char *url)
{
	uint32_t max = 0;
	int err = -EBADMSG;

	for (size_t i = 0; i < r->kit->node_cnt && err == -EBADMSG; i++) {
		uint16_t number = r->kit->node[i].number;

		max = HF_MAX(max, (uint32_t)number);
		err = probe(r, number, url);
		if (!err)
			return add_node(r, number, url, strlen(url), true);
	}
	for (uint32_t n = 1; n <= max + TRY_MORE && n < NODE_NONE && err == -EBADMSG; n++) {
		err = probe(r, (uint16_t)n, url);
		if (!err)
			return add_node(r, (uint16_t)n, url, strlen(url), true);
	}
	if (err == -EBADMSG)
		return log_fail(err, "node %s belongs to another volume than the kit %s", url,
				r->kit_file);
	if (err == -ENOENT)
		return log_fail(err, "node %s holds no volume", url);
	return log_fail(err, "node %s: %s", url,
			err == -ENODEV ? "nothing is there" : strerror(-err));
}

static int gather_nodes(struct recover *r)
{
	int err = 0;

	for (size_t i = 0; i < r->url_cnt && !err; i++)
		err = recognise(r, r->url[i]);
	for (size_t i = 0; i < r->kit->node_cnt && !err; i++)
		err = add_node(r, r->kit->node[i].number, (const char *)r->kit->node[i].url,
			       r->kit->node[i].url_len, false);
	return err;
}

static int fetch_header(struct recover *r)
{
	struct node **node = calloc(HF_MAX(r->node_cnt, (size_t)1), sizeof *node);
	unsigned with = 0;
	size_t cnt = 0;
	int err = node ? 0 : log_fail(-ENOMEM, "out of memory");

	for (size_t i = 0; i < r->node_cnt && !err; i++) {
		err = node_open(&node[cnt], r->node[i].number, r->node[i].url, NULL);
		cnt += !err;
	}
	if (!err)
		err = header_fetch(node, cnt, r->kit->vol, r->owner->ed_pk, now_ms() + NODE_MS,
				   &r->head_bytes, &r->head, &r->answered, &with);
	if (err == -ENODATA)
		log_fail(err,
			 "none of the %zu nodes of the kit answers: are they attached? "
			 "--node URL says where one is now",
			 cnt);
	else if (err == -ENOENT)
		log_fail(err,
			 "%u of %zu nodes answer and none of them holds the volume of the kit "
			 "%s: "
			 "they were emptied, or are those of another volume",
			 r->answered, cnt, r->kit_file);
	else if (err && !*log_last())
		log_fail(err, "the volume's header cannot be read: %s", strerror(-err));
	while (cnt)
		node_close(node[--cnt]);
	free(node);
	return err;
}

/*
 * A number of its own, at random: two machines that recover the same drive at the same time
 * read the same header and must not both take the next one.
 */
static int choose_device(const struct recover *r, uint16_t *out)
{
	for (int i = 0; i < DEVICE_TRY; i++) {
		uint16_t number = (uint16_t)(1 + randombytes_uniform(UINT16_MAX - 1));
		bool taken = false;

		for (size_t d = 0; d < r->head.device_cnt; d++)
			taken |= r->head.device[d].number == number;
		*out = number;
		if (!taken)
			return 0;
	}
	return log_fail(-ENOSPC, "the volume has had all the devices it can have");
}

/* The volume key from the header's kit slot; then what only it can read: nodes, devices. */
static int open_header(struct recover *r, struct keys **keys)
{
	uint8_t *vk = sodium_malloc(KEY_LEN);
	uint16_t device = 0;

	*keys = NULL;
	int err = vk ? kit_slot_open(r->owner, r->head.kit_slot, vk)
		     : log_fail(-ENOMEM, "no locked memory: see ulimit -l");
	if (vk && err)
		log_fail(err, "the volume key cannot be opened with the kit %s", r->kit_file);
	if (!err)
		err = keys_adopt(keys, r->kit->vol, 1, vk);
	if (!err) {
		err = header_unseal(r->head_bytes.p, r->head_bytes.len, *keys, &r->head);
		if (err)
			log_fail(err, "the volume's header is damaged");
		keys_free(*keys);
		*keys = NULL;
	}
	if (!err)
		err = choose_device(r, &device);
	if (!err)
		err = keys_adopt(keys, r->kit->vol, device, vk);
	sodium_free(vk);
	return err;
}

/* The header's list is newer than the kit's; what --node says holds against both. */
static int make_config(struct recover *r, struct config **out)
{
	struct config *cfg;

	int err = config_new(&cfg, r->name, r->tmp);
	if (err)
		return err;
	memcpy(cfg->vol, r->kit->vol, VOL_LEN);
	memcpy(cfg->owner_ed_pk, r->owner->ed_pk, 32);
	cfg->k = r->head.k;
	cfg->m = r->head.m;
	for (size_t i = 0; i < r->head.node_cnt && !err; i++) {
		struct rec_node *n = &r->head.node[i];
		const char *url = (const char *)n->url;

		if (n->member == 3)
			continue;
		for (size_t j = 0; j < r->node_cnt; j++)
			if (r->node[j].number == n->number && r->node[j].given) {
				url = r->node[j].url;
				/* The new header says so too. */
				free((void *)(uintptr_t)n->url);
				n->url = (const uint8_t *)strdup(url);
				n->url_len = (uint16_t)strlen(url);
				if (!n->url)
					err = log_fail(-ENOMEM, "out of memory");
			}
		if (!err)
			err = config_add_node(cfg, n->number, url, strlen(url));
	}
	if (err)
		config_free(cfg);
	else
		*out = cfg;
	return err;
}

static int check_nodes(struct recover *r, struct volume *v)
{
	struct node_info *info = malloc(sizeof *info);
	struct buf missing = {0};

	if (!info)
		return log_fail(-ENOMEM, "out of memory");
	cmd_progress("looking at %zu nodes", v->node_cnt);
	int n = volume_verify(v, now_ms() + NODE_MS);
	unsigned write = volume_usable(v);
	for (size_t i = 0; i < v->node_cnt; i++) {
		char one[512];

		node_get_info(v->node[i], info);
		if (node_readable(v->node[i]) && node_usable(v->node[i]))
			continue;
		snprintf(one, sizeof one, "%s%s %s (%.200s)", missing.len ? ", " : "",
			 info->name, node_state_name(info->state), info->url);
		buf_put(&missing, one, strlen(one));
	}
	buf_u8(&missing, 0);
	const char *list = missing.err ? "" : (const char *)missing.p;
	int err = n < 0 ? log_fail(n, "the nodes cannot be looked at: %s", strerror(-n)) : 0;
	if (!err && n < r->head.k)
		err = log_fail(
			-ENODATA,
			"only %d of %zu nodes can be read and %u are needed; missing: %s; "
			"--node URL says where one is now",
			n, v->node_cnt, r->head.k, list);
	else if (!err && write < v->quorum)
		err = log_fail(
			-ENODATA,
			"only %u of %zu nodes can be written to and %u are needed to take "
			"the drive over; not writable: %s",
			write, v->node_cnt, v->quorum, list);
	buf_release(&missing);
	free(info);
	return err;
}

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
		err = gather_nodes(r);
	if (!err)
		err = fetch_header(r);
	if (!err)
		err = open_header(r, &keys);
	if (!err)
		err = make_config(r, &cfg);
	if (!err)
		err = volume_open(&v, keys, r->head.k, r->head.m, cfg->node, cfg->node_cnt,
				  NULL);
	if (v)
		keys = NULL;
	if (!err)
		err = check_nodes(r, v);
	if (!err)
		err = header_merge(v, r->owner->ed_pk, &r->head, &fresh);
	if (!err)
		err = load(r, v, cfg);
	if (!err)
		err = check_header(r, v);
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
	return cmd_check_credentials(CMD, r->credentials, r->url, r->url_cnt);
}

static int take_args(struct recover *r, int argc, char **argv)
{
	static const struct option longs[] = {
		{"node", required_argument, NULL, 'n'},
		{"passphrase-file", required_argument, NULL, 'p'},
		{"kit-passphrase-file", required_argument, NULL, 'k'},
		{"no-passphrase", no_argument, NULL, 'N'},
		{"credentials", required_argument, NULL, 'c'},
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
			err = open_kit(&r);
		if (!err)
			err = unlock(&r);
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
	kit_free(r.kit);
	owner_free(r.owner);
	header_release(&r.head);
	buf_release(&r.head_bytes);
	return status;
}
