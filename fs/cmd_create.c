/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * create: everything is checked first; then the nodes are marked, the header is put on them,
 * the first state is published, and the kit is written and read again.  volume.json, which
 * makes it a volume, comes last.  What this run made is removed when anything fails.
 */
#include "fs/cmd.h"

#include <sodium.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include "cache/quota.h"
#include "fs/create.h"
#include "fs/drive.h"
#include "fs/making.h"
#include "fs/prompt.h"
#include "fs/secrets.h"

#define CMD	    "create"
#define NODE_MS	    30000
#define FIRST_MS    120000
#define KIT_CAP	    (8u << 20)

static int write_down(const struct create *c)
{
	struct making_node *node = calloc(c->cnt, sizeof *node);
	size_t cnt = 0;

	if (!node)
		return log_fail(-ENOMEM, "out of memory");
	for (size_t i = 0; i < c->cnt; i++)
		node[cnt++] = (struct making_node){
			.number = (uint16_t)(i + 1),
			.path = c->place[i].path,
			.made = !c->place[i].there,
			.url = c->place[i].path ? NULL : c->place[i].url};
	int err = making_write(c->dir, c->kit->vol, c->kit_path, node, cnt);
	free(node);
	return err;
}

static int make_place(struct create *c, struct place *p)
{
	char what[NAME_MAX + 1];
	int err = 0;

	if (!p->path)
		return 0;
	if (!p->there) {
		/* Only in the volume's own directory is what is above it made too. */
		err = config_within(c->dir, p->path)	   ? mkdir_all(p->path, 0700)
		      : mkdir(p->path, 0700) < 0 ? -errno
						 : 0;
		if (err)
			return log_fail(err, "node %s cannot be made: %s", p->url,
					strerror(-err));
		p->made = true;
	}
	err = making_lock(p->path, &p->fd);
	if (err == -EAGAIN)
		return log_fail(err, "node %s: another create is at work on it", p->url);
	/* It was empty, but that was before the lock. */
	if (!err)
		err = create_holds(p->path, what);
	if (err > 0)
		err = log_fail(-ENOTEMPTY, "node %s is not empty any more: it holds %s", p->url,
			       what);
	else if (err)
		log_fail(err, "node %s: %s", p->url, strerror(-err));
	if (err && p->fd >= 0) {
		close(p->fd);
		p->fd = -1;
	}
	return err;
}

static int make_dirs(struct create *c)
{
	char *home;
	int err = config_home_make(&home);

	if (err)
		return err;
	free(home);
	err = create_lock_home(c);
	if (err)
		return err;
	if (mkdir(c->dir, 0700) < 0)
		return log_fail(-errno, "%s: %s", c->dir, strerror(errno));
	c->made_dir = true;
	err = write_down(c);
	for (size_t i = 0; i < c->cnt && !err; i++)
		err = make_place(c, &c->place[i]);
	return err;
}

static int make_config(struct create *c, const struct rec_device *d, struct config **out)
{
	struct config *cfg;

	int err = config_new(&cfg, c->name, c->dir);
	if (err)
		return err;
	memcpy(cfg->vol, c->kit->vol, VOL_LEN);
	memcpy(cfg->owner_ed_pk, c->owner->ed_pk, 32);
	cfg->device = 1;
	cfg->k = (uint8_t)c->k;
	cfg->m = (uint8_t)c->m;
	for (size_t i = 0; i < c->cnt && !err; i++)
		err = config_add_node(cfg, (uint16_t)(i + 1), c->place[i].url,
				      strlen(c->place[i].url));
	if (!err)
		err = config_add_device(cfg, d);
	if (!err && !(cfg->kit_path = strdup(c->kit_path)))
		err = log_fail(-ENOMEM, "out of memory");
	if (err)
		config_free(cfg);
	else
		*out = cfg;
	return err;
}

static int put_header(struct create *c, struct volume *v, struct rec_device *d)
{
	struct header h = {
		.generation = 1, .k = (uint8_t)c->k, .m = (uint8_t)c->m, .device_cnt = 1};
	struct rec_node *node = calloc(c->cnt, sizeof *node);
	struct buf bytes = {0};
	int err = node ? 0 : -ENOMEM;

	for (size_t i = 0; i < c->cnt && !err; i++)
		node[i] = (struct rec_node){(uint16_t)(i + 1), 1,
					    (const uint8_t *)c->place[i].url,
					    (uint16_t)strlen(c->place[i].url)};
	memcpy(h.vol, c->kit->vol, VOL_LEN);
	memcpy(h.owner_ed_pk, c->owner->ed_pk, 32);
	memcpy(h.owner_x_pk, c->owner->x_pk, 32);
	h.node = node;
	h.node_cnt = c->cnt;
	h.device = d;
	if (!err)
		err = keys_kit_slot(v->keys, c->owner->x_pk, h.kit_slot);
	if (!err)
		err = header_encode(&h, v->keys, c->owner, &bytes);
	if (!err)
		err = header_put(v, &h, &bytes);
	if (err)
		log_fail(err, "the volume's header cannot be stored: %s", strerror(-err));
	buf_release(&bytes);
	free(node);
	return err;
}

static bool give_up(void *arg)
{
	(void)arg;
	return cmd_interrupted();
}

static int check_interrupt(void)
{
	return cmd_interrupted() ? log_fail(-ECANCELED, "interrupted") : 0;
}

/* The root directory, published and on every node. */
static int first_state(struct drive *s, uint64_t quota)
{
	struct drive_wait w = {.protect = true, .limit_ms = FIRST_MS, .give_up = give_up};

	int err = store_init_root(s->st, geteuid(), getegid(), 0755);
	if (!err && quota)
		err = quota_set(s->st, quota);
	if (!err)
		err = store_commit(s->st);
	if (!err)
		err = drive_start(s, NODE_MS);
	return err ? err : drive_publish(s, &w);
}

/* What the chain's end is now: nobody recovering with this kit is shown less. */
static int take_floor(struct drive *s, struct kit *kit)
{
	struct buf hash = {0};
	uint64_t seq = 0;

	pthread_mutex_lock(&s->st->meta);
	int err = store_get_u64(s->st, "log_seq", &seq);
	if (!err)
		err = store_get_blob(s->st, "log_hash", &hash);
	pthread_mutex_unlock(&s->st->meta);
	if (!err && hash.len != HASH_LEN)
		err = -EBADMSG;
	if (!err && !(kit->floor = calloc(1, sizeof *kit->floor)))
		err = -ENOMEM;
	if (!err) {
		kit->floor_cnt = 1;
		kit->floor[0].device = keys_device(s->vol->keys);
		kit->floor[0].seq = seq;
		memcpy(kit->floor[0].hash, hash.p, HASH_LEN);
	}
	buf_release(&hash);
	return err ? log_fail(err, "the first state's place in the log is not known") : 0;
}

/* Parsed again from the disk: a kit that cannot be read is worth nothing. */
static int verify_kit(const struct create *c)
{
	struct buf text = {0};
	struct kit *k = NULL;

	int err = file_read(c->kit_path, KIT_CAP, &text);
	if (!err)
		err = kit_parse((const char *)text.p, text.len, &k);
	if (!err && !k->secret)
		err = c->pass ? kit_unlock(k, c->pass) : -EACCES;
	if (!err && (memcmp(k->vol, c->kit->vol, VOL_LEN) ||
		     sodium_memcmp(k->secret, c->kit->secret, KEY_LEN) ||
		     memcmp(k->owner_ed_pk, c->owner->ed_pk, 32) || k->node_cnt != c->cnt ||
		     k->credentials.len != c->kit->credentials.len ||
		     (k->credentials.len &&
		      sodium_memcmp(k->credentials.p, c->kit->credentials.p,
				    k->credentials.len))))
		err = -EBADMSG;
	kit_free(k);
	if (text.p)
		sodium_memzero(text.p, text.cap);
	buf_release(&text);
	return err ? log_fail(err, "the kit %s does not read back as it was written",
			      c->kit_path)
		   : 0;
}

static int write_kit(struct create *c)
{
	struct buf text = {0};
	int err = 0;

	c->kit->k = (uint8_t)c->k;
	c->kit->m = (uint8_t)c->m;
	c->kit->node = calloc(c->cnt, sizeof *c->kit->node);
	if (!c->kit->node)
		return log_fail(-ENOMEM, "out of memory");
	for (size_t i = 0; i < c->cnt && !err; i++) {
		char *url = strdup(c->place[i].url);

		if (!url)
			return log_fail(-ENOMEM, "out of memory");
		c->kit->node[c->kit->node_cnt++] = (struct rec_node){
			(uint16_t)(i + 1), 1, (const uint8_t *)url, (uint16_t)strlen(url)};
	}
	if (c->creds)
		err = secrets_text(c->creds, &c->kit->credentials);
	if (!err)
		err = kit_print(c->kit, c->name, c->kit_needs_pass ? c->pass : NULL, &text);
	if (err)
		log_fail(err, "the kit cannot be made: %s", strerror(-err));
	if (!err) {
		c->made_kit = true;
		err = file_write_atomic(c->kit_path, text.p, text.len, 0600);
		if (err)
			log_fail(err, "kit %s cannot be written: %s", c->kit_path,
				 strerror(-err));
	}
	if (text.p)
		sodium_memzero(text.p, text.cap);
	buf_release(&text);
	return err ? err : verify_kit(c);
}

static int make(struct create *c)
{
	struct rec_device d = {.number = 1, .role = 1};
	struct store_opts so = {0};
	struct config *cfg = NULL;
	struct drive *s = NULL;
	struct keys *keys = NULL;
	char *path = NULL;

	int err = kit_new(&c->kit);
	if (!err)
		err = owner_new(&c->owner, c->kit->secret);
	if (!err)
		err = keys_create(&keys, c->kit->vol, 1);
	if (err)
		return log_fail(err, "no keys can be made: %s",
				*log_last() ? log_last() : strerror(-err));
	memcpy(d.ed_pk, keys_device_pk(keys), sizeof d.ed_pk);
	err = header_certify(c->owner, c->kit->vol, &d);
	if (!err)
		err = make_dirs(c);
	if (!err)
		err = make_config(c, &d, &cfg);
	if (!err && !(path = config_file(cfg, "keys")))
		err = log_fail(-ENOMEM, "out of memory");
	if (!err) {
		err = keys_save(keys, path, c->no_pass ? NULL : c->pass);
		if (err)
			log_fail(err, "%s cannot be written: %s", path, strerror(-err));
	}
	free(path);
	if (!err)
		err = secrets_save(cfg, keys, c->creds);
	if (err) {
		keys_free(keys);
		config_free(cfg);
		return err;
	}
	err = drive_open(&s, cfg, keys, &so);
	if (err)
		return err;
	err = create_probe(c, s->vol);
	if (!err)
		err = create_mark(c, s->vol);
	if (!err)
		err = check_interrupt();
	if (!err)
		err = put_header(c, s->vol, &d);
	if (!err)
		err = first_state(s, c->quota);
	if (!err)
		err = take_floor(s, c->kit);
	if (!err)
		err = write_kit(c);
	if (!err)
		err = check_interrupt();
	if (!err)
		err = config_save(cfg);
	if (!err)
		making_done(c->dir);
	char why[1024];
	snprintf(why, sizeof why, "%s", log_last());
	int err2 = drive_close(s);
	return err ? log_fail(err, "%s", why) : err2;
}

/* 0 when nothing is left on servers; else what is stays written down. */
static int undo_servers(struct create *c)
{
	int err = 0;

	for (size_t i = 0; i < c->cnt && c->kit; i++) {
		struct place *p = &c->place[i];

		if (!p->touched)
			continue;
		int bad = making_clear_server((uint16_t)(i + 1), p->url, c->kit->vol, c->creds);
		p->touched = bad;
		err = bad ? bad : err;
		if (bad)
			cmd_fail(CMD, "%s: the next holdfast create %s removes it", log_last(),
				 c->name);
	}
	return err;
}

/* The volume's directory with the note of what is left, and nothing else in it. */
static int keep_note(struct create *c)
{
	int err = cmd_remove_tree(c->dir);

	if (!err && mkdir(c->dir, 0700) < 0)
		err = -errno;
	return err ? err : write_down(c);
}

/* Everything this run made goes again, in places that were empty or absent before it. */
static void undo(struct create *c)
{
	bool keep = undo_servers(c) != 0;

	for (size_t i = 0; i < c->cnt; i++) {
		const struct place *p = &c->place[i];

		if (p->fd < 0)
			continue;
		making_clear_node(p->path);
		if (p->made)
			rmdir(p->path);
	}
	if (c->made_kit)
		unlink(c->kit_path);
	if (c->made_dir && (!keep || keep_note(c)))
		cmd_remove_tree(c->dir);
}

static void create_release(struct create *c)
{
	for (size_t i = 0; i < c->url_cnt; i++)
		free(c->url[i]);
	free(c->url);
	for (size_t i = 0; i < c->cnt; i++) {
		free(c->place[i].url);
		free(c->place[i].path);
		if (c->place[i].fd >= 0)
			close(c->place[i].fd);
	}
	if (c->home_fd >= 0)
		close(c->home_fd);
	free(c->home);
	free(c->place);
	free(c->dir);
	free(c->kit_path);
	prompt_free(c->pass);
	for (size_t i = 0; i < c->warning_cnt; i++)
		free(c->warning[i]);
	free(c->warning);
	free(c->probe);
	creds_unref(c->creds);
	kit_free(c->kit);
	owner_free(c->owner);
}

static int add_url(struct create *c, const char *url)
{
	char **more = reallocarray(c->url, c->url_cnt + 1, sizeof *more);

	if (!more)
		return cmd_fail(CMD, "out of memory");
	c->url = more;
	if (c->url_cnt == CREATE_NODES_MAX)
		return cmd_usage(CMD, "more than %d nodes", CREATE_NODES_MAX);
	more[c->url_cnt] = strdup(url);
	return more[c->url_cnt] ? (c->url_cnt++, 0) : cmd_fail(CMD, "out of memory");
}

static int take_args(struct create *c, int argc, char **argv)
{
	static const struct option longs[] = {{"node", required_argument, NULL, 'n'},
					      {"survive", required_argument, NULL, 's'},
					      {"quota", required_argument, NULL, 'q'},
					      {"kit", required_argument, NULL, 'k'},
					      {"passphrase-file", required_argument, NULL, 'p'},
					      {"no-passphrase", no_argument, NULL, 'N'},
					      {"kit-needs-passphrase", no_argument, NULL, 'K'},
					      {"credentials", required_argument, NULL, 'c'},
					      {"json", no_argument, NULL, 'j'},
					      {NULL, 0, NULL, 0}};
	int o, status = 0;

	while (!status && (o = cmd_getopt(argc, argv, "", longs)) != -1) {
		switch (o) {
		case 'n':
			status = add_url(c, optarg);
			break;
		case 's':
			if (!cmd_number(optarg, 1000, &c->survive))
				status = cmd_usage(CMD, "--survive %s: a number of nodes",
						   optarg);
			c->have_survive = true;
			break;
		case 'q':
			if (!cmd_parse_size(optarg, &c->quota) || !c->quota)
				status = cmd_usage(CMD,
						   "--quota %s: a number of bytes, such as 20G",
						   optarg);
			break;
		case 'k':
			c->kit_file = optarg;
			break;
		case 'p':
			c->pass_file = optarg;
			break;
		case 'N':
			c->no_pass = true;
			break;
		case 'K':
			c->kit_needs_pass = true;
			break;
		case 'c':
			c->credentials = optarg;
			break;
		case 'j':
			c->json = true;
			break;
		default:
			status = EXIT_USAGE;
		}
	}
	if (!status)
		status = cmd_operands(argc, argv, 1, "NAME");
	if (!status)
		c->name = argv[optind];
	if (!status && c->no_pass && c->pass_file && !c->kit_needs_pass)
		status = cmd_usage(CMD,
				   "--no-passphrase and --passphrase-file: only one of them");
	return status;
}

int cmd_create(int argc, char **argv)
{
	struct create c = {.home_fd = -1};

	int status = take_args(&c, argc, argv);
	int err = status ? 0 : keys_global_init();
	if (err)
		status = cmd_fail_last(CMD, err);
	if (!status)
		status = create_check(&c);
	if (!status && (!c.no_pass || c.kit_needs_pass)) {
		err = prompt_pass(c.pass_file, "New passphrase", true, &c.pass);
		if (err)
			status = cmd_fail_last(CMD, err);
	}
	if (!status) {
		cmd_catch_interrupts();
		err = make(&c);
		if (err) {
			status =
				cmd_interrupted()
					? cmd_fail(
						  CMD,
						  "interrupted: what was made is removed again")
					: cmd_fail_last(CMD, err);
			undo(&c);
		}
	}
	cmd_progress_end();
	if (!status)
		status = create_report(&c);
	create_release(&c);
	return status;
}
