/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * create: everything is checked first; then the nodes are marked, the header is put on them,
 * the first state is published, and the kit is written and read again.  volume.json, which
 * makes it a volume, comes last.  What this run made is removed when anything fails.
 */
#include "fs/cmd.h"

#include <dirent.h>
#include <limits.h>
#include <sodium.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include "fs/drive.h"
#include "fs/making.h"
#include "fs/prompt.h"
#include "net/kit.h"

#define CMD	    "create"
#define NODES_MAX   4096
#define STRIPE_MAX  16
#define TRIAL_NODES 6
#define NODE_MS	    30000
#define FIRST_MS    120000
#define KIT_CAP	    (8u << 20)

struct place {
	char *url;  /* canonical */
	char *path; /* of a directory, all links resolved, without the part that is not there */
	bool there; /* it exists and is empty */
	bool made;  /* by this run */
	int fd;	    /* its lock: from here on it is ours to fill; -1 */
};

struct create {
	const char *name, *pass_file, *kit_file, *credentials;
	bool no_pass, kit_needs_pass, json;
	uint64_t survive;
	bool have_survive;
	char **url;
	size_t url_cnt;

	char *home; /* the state directory */
	char *dir;  /* of the volume, in it */
	char *kit_path;
	struct place *place;
	size_t cnt;
	unsigned k, m;
	char *pass;
	struct kit *kit;
	struct owner *owner;
	int home_fd; /* the lock of the state directory; -1 */
	bool trial; /* no --node: all below dir */
	bool made_dir, made_kit;
};

/* --- checks: nothing is written --- */

/* 1 when something is in the directory (its name in *what), 0 when not, or -errno. */
static int holds(const char *path, char what[NAME_MAX + 1])
{
	DIR *d = opendir(path);
	struct dirent *e;
	int found = 0;

	if (!d)
		return -errno;
	while (!found && (e = readdir(d))) {
		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..") ||
		    !strcmp(e->d_name, "lost+found"))
			continue;
		found = 1;
		snprintf(what, NAME_MAX + 1, "%s", e->d_name);
	}
	closedir(d);
	return found;
}

static int check_dir(const struct place *p)
{
	char what[NAME_MAX + 1];
	int err = holds(p->path, what);

	if (err < 0)
		return cmd_fail(CMD, "node %s: %s", p->url, strerror(-err));
	if (err)
		return cmd_fail(CMD,
				"node %s is not empty (it holds %s): give an empty or new "
				"directory",
				p->url, what);
	if (access(p->path, R_OK | W_OK | X_OK) < 0)
		return cmd_fail(CMD, "node %s cannot be written to: %s", p->url,
				strerror(errno));
	return 0;
}

/* Above a node that is to be made: a typing error there would make a tree. */
static int check_above(const struct place *p)
{
	char *above = strdup(p->path), *slash;
	struct stat st;
	int status = 0;

	if (!above)
		return cmd_fail(CMD, "out of memory");
	slash = strrchr(above, '/');
	slash[slash == above] = 0;
	if (lstat(p->path, &st) == 0)
		status = cmd_fail(CMD, "node %s is a link to what is not there", p->url);
	else if (access(above, F_OK) < 0 && errno == ENOENT)
		status = cmd_fail(CMD,
				  "node %s: %s is not there: make it, or mount the disk first",
				  p->url, above);
	else if (access(above, W_OK | X_OK) < 0)
		status = cmd_fail(CMD, "node %s cannot be made in %s: %s", p->url, above,
				  strerror(errno));
	free(above);
	return status;
}

static bool within(const char *outer, const char *inner)
{
	size_t len = strlen(outer);

	return !strncmp(outer, inner, len) && (inner[len] == '/' || !inner[len]);
}

static bool same_inode(const char *a, const char *b)
{
	struct stat x, y;

	return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev &&
	       x.st_ino == y.st_ino;
}

static int check_node(struct create *c, const char *url)
{
	struct place *p = &c->place[c->cnt];
	char canon[NODE_URL_CAP];

	int err = node_check_url(url, canon);
	if (err)
		return cmd_usage(CMD, "%s", log_last());
	p->url = strdup(canon);
	p->fd = -1;
	if (!p->url)
		return cmd_fail(CMD, "out of memory");
	c->cnt++;
	if (strncmp(canon, "dir:", 4)) {
		for (size_t i = 0; i + 1 < c->cnt; i++)
			if (!strcmp(c->place[i].url, canon))
				return cmd_usage(CMD, "node %s is given twice", canon);
		return 0;
	}
	canon[strcspn(canon, "?")] = 0;
	p->path = config_resolve(canon + 4, &p->there);
	if (!p->path)
		return cmd_fail(CMD, "node %s: %s", p->url, strerror(errno));
	if (!c->trial && (within(c->home, p->path) || within(p->path, c->home)))
		return cmd_usage(CMD,
				 "node %s and the state directory %s: one lies within the "
				 "other; a node is a place of its own",
				 p->url, c->home);
	for (size_t i = 0; i + 1 < c->cnt; i++) {
		const struct place *q = &c->place[i];

		if (!q->path)
			continue;
		if (!strcmp(q->path, p->path) || same_inode(q->path, p->path))
			return cmd_usage(CMD, "nodes %s and %s are the same place", q->url,
					 p->url);
		if (within(q->path, p->path) || within(p->path, q->path))
			return cmd_usage(CMD, "nodes %s and %s: one lies within the other",
					 q->url, p->url);
	}
	return p->there ? check_dir(p) : c->trial ? 0 : check_above(p);
}

static int check_shape(struct create *c)
{
	size_t n = c->cnt, width = HF_MIN(n, (size_t)STRIPE_MAX);

	if (n < 2)
		return cmd_usage(
			CMD, "a volume needs at least two nodes: give --node twice or more");
	if (!c->have_survive)
		c->survive = n == 6 ? 2 : HF_MAX(width / 3, (size_t)1);
	if (c->survive < 1 || c->survive >= width)
		return cmd_usage(CMD, "--survive %llu: with %zu nodes it is 1 to %zu",
				 (unsigned long long)c->survive, n, width - 1);
	c->m = (unsigned)c->survive;
	c->k = (unsigned)width - c->m;
	/* Domains that fail together are known to opened nodes. */
	struct place_node *p = calloc(n, sizeof *p);
	int err = p ? 0 : -ENOMEM;
	for (size_t i = 0; i < n && !err; i++) {
		struct node *node;

		err = node_open(&node, (uint16_t)(i + 1), c->place[i].url, NULL);
		if (err)
			break;
		p[i] = (struct place_node){(uint16_t)(i + 1), 1, node_domain(node), true};
		node_close(node);
	}
	if (!err)
		err = place_check(p, n, c->k, c->m);
	free(p);
	return err ? cmd_fail_last(CMD, err) : 0;
}

static int trial_nodes(struct create *c)
{
	c->url = calloc(TRIAL_NODES, sizeof *c->url);
	if (!c->url)
		return cmd_fail(CMD, "out of memory");
	for (; c->url_cnt < TRIAL_NODES; c->url_cnt++)
		if (asprintf(&c->url[c->url_cnt], "dir:%s/nodes/%zu", c->dir, c->url_cnt + 1) <
		    0) {
			c->url[c->url_cnt] = NULL;
			return cmd_fail(CMD, "out of memory");
		}
	return 0;
}

static int check_kit_path(struct create *c)
{
	struct stat st;
	char *above, *slash;
	int status = 0;

	if (!c->kit_file) {
		if (asprintf(&c->kit_path, "%s/kit.txt", c->dir) < 0)
			c->kit_path = NULL;
		return c->kit_path ? 0 : cmd_fail(CMD, "out of memory");
	}
	if (!*c->kit_file)
		return cmd_usage(CMD, "--kit needs a file");
	for (const char *s = c->kit_file; *s; s++)
		if ((unsigned char)*s < 0x20 || *s == 0x7f)
			return cmd_usage(CMD, "kit %s: its name holds a control character",
					 c->kit_file);
	json_t *text = json_string(c->kit_file);
	json_decref(text);
	if (!text)
		return cmd_usage(CMD, "kit %s: its name is not UTF-8", c->kit_file);
	above = strdup(c->kit_file);
	if (!above)
		return cmd_fail(CMD, "out of memory");
	slash = strrchr(above, '/');
	if (slash)
		slash[slash == above] = 0;
	char *real = realpath(slash ? above : ".", NULL);
	if (!real)
		status = cmd_fail(CMD, "kit %s: %s", c->kit_file, strerror(errno));
	else if (asprintf(&c->kit_path, "%s/%s", strcmp(real, "/") ? real : "",
			  slash ? strrchr(c->kit_file, '/') + 1 : c->kit_file) < 0)
		c->kit_path = NULL;
	if (!status && !c->kit_path)
		status = cmd_fail(CMD, "out of memory");
	if (!status && lstat(c->kit_path, &st) == 0)
		status =
			cmd_fail(CMD,
				 "kit %s exists already: another volume's kit is never written "
				 "over; give another --kit",
				 c->kit_path);
	if (!status && access(real, W_OK | X_OK) < 0)
		status = cmd_fail(CMD, "kit %s: %s: %s", c->kit_path, real, strerror(errno));
	for (size_t i = 0; !status && i < c->cnt; i++)
		if (c->place[i].path && within(c->place[i].path, c->kit_path))
			status = cmd_usage(
				CMD,
				"kit %s lies on node %s: whoever has that node would have "
				"the keys; give another --kit",
				c->kit_path, c->place[i].url);
	free(real);
	free(above);
	return status;
}

/* One create or recover at a time in a state directory; kept until this process ends. */
static int lock_home(struct create *c)
{
	if (c->home_fd >= 0)
		return 0;
	int err = making_lock(c->home, &c->home_fd);
	if (err == -EAGAIN)
		return log_fail(err,
				"another create or recover is at work in %s: wait for its end",
				c->home);
	return err ? log_fail(err, "%s: %s", c->home, strerror(-err)) : 0;
}

/* The name is taken, but maybe only by a create that was killed. */
static int clear_dir(struct create *c)
{
	char file[PATH_MAX];

	snprintf(file, sizeof file, "%s/volume.json", c->dir);
	if (access(file, F_OK) == 0)
		return cmd_fail(CMD, "the volume %s exists already: choose another name",
				c->name);
	int err = lock_home(c);
	if (err)
		return cmd_fail_last(CMD, err);
	err = making_undo(c->dir);
	/* A prompt that nobody answers must not keep others out. */
	close(c->home_fd);
	c->home_fd = -1;
	if (!err)
		return 0;
	return cmd_fail(CMD, "%s is there but holds no volume: remove it, or choose another name",
			c->dir);
}

static int check(struct create *c)
{
	struct stat st;
	int status = 0;

	int err = config_path(c->name, &c->dir);
	if (err == -EINVAL)
		return cmd_usage(CMD, "%s", log_last());
	if (!err)
		err = config_home(&c->home);
	if (err)
		return cmd_fail_last(CMD, err);
	if (lstat(c->dir, &st) == 0)
		status = clear_dir(c);
	if (status)
		return status;
	c->trial = !c->url_cnt;
	if (c->trial)
		status = trial_nodes(c);
	c->place = calloc(HF_MAX(c->url_cnt, (size_t)1), sizeof *c->place);
	if (!status && !c->place)
		status = cmd_fail(CMD, "out of memory");
	for (size_t i = 0; i < c->url_cnt && !status; i++)
		status = check_node(c, c->url[i]);
	if (!status)
		status = check_shape(c);
	if (!status)
		status = check_kit_path(c);
	if (!status)
		status = cmd_check_credentials(CMD, c->credentials, c->url, c->url_cnt);
	return status;
}

/* --- making it --- */

static int write_down(const struct create *c)
{
	struct making_node *node = calloc(c->cnt, sizeof *node);
	size_t cnt = 0;

	if (!node)
		return log_fail(-ENOMEM, "out of memory");
	for (size_t i = 0; i < c->cnt; i++)
		if (c->place[i].path)
			node[cnt++] = (struct making_node){
				(uint16_t)(i + 1), c->place[i].path, !c->place[i].there};
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
		err = within(c->dir, p->path)	   ? mkdir_all(p->path, 0700)
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
		err = holds(p->path, what);
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
	err = lock_home(c);
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

static int mark_nodes(struct create *c, struct volume *v)
{
	for (size_t i = 0; i < v->node_cnt; i++) {
		int err = node_init(v->node[i], c->kit->vol, now_ms() + NODE_MS);

		if (err)
			return log_fail(err, "node %s cannot be made one: %s", c->place[i].url,
					strerror(-err));
	}
	int n = volume_verify(v, now_ms() + NODE_MS);
	if (n >= 0 && (size_t)n < v->node_cnt)
		n = -EIO;
	return n < 0 ? log_fail(n, "not every node could be read back after it was made") : 0;
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
static int first_state(struct drive *s)
{
	struct drive_wait w = {.protect = true, .limit_ms = FIRST_MS, .give_up = give_up};

	int err = store_init_root(s->st, geteuid(), getegid(), 0755);
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
		     memcmp(k->owner_ed_pk, c->owner->ed_pk, 32) || k->node_cnt != c->cnt))
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
	if (err) {
		keys_free(keys);
		config_free(cfg);
		return err;
	}
	err = drive_open(&s, cfg, keys, &so);
	if (err)
		return err;
	cmd_progress("making %zu nodes", c->cnt);
	err = mark_nodes(c, s->vol);
	if (!err)
		err = check_interrupt();
	if (!err)
		err = put_header(c, s->vol, &d);
	if (!err)
		err = first_state(s);
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

/* Everything this run made goes again, in places that were empty or absent before it. */
static void undo(struct create *c)
{
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
	if (c->made_dir)
		cmd_remove_tree(c->dir);
}

static int report(const struct create *c)
{
	if (c->json) {
		json_t *urls = json_array();

		for (size_t i = 0; i < c->cnt; i++)
			json_array_append_new(urls, json_string(c->place[i].url));
		return cmd_print_json(json_pack("{s:s, s:i, s:i, s:s, s:o}", "volume", c->name,
						"k", (int)c->k, "survives", (int)c->m, "kit",
						c->kit_path, "nodes", urls));
	}
	printf("%s: %zu nodes, any %u of them may be lost\n", c->name, c->cnt, c->m);
	printf("recovery kit: %s\n", c->kit_path);
	puts("Print it or copy it to a place that is not this machine, and keep it there: "
	     "without\n"
	     "it nothing can be recovered when this machine is lost.");
	printf("next: holdfast mount %s DIR\n", c->name);
	return fflush(stdout) ? EXIT_FAILED : EXIT_DONE;
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
	kit_free(c->kit);
	owner_free(c->owner);
}

static int add_url(struct create *c, const char *url)
{
	char **more = reallocarray(c->url, c->url_cnt + 1, sizeof *more);

	if (!more)
		return cmd_fail(CMD, "out of memory");
	c->url = more;
	if (c->url_cnt == NODES_MAX)
		return cmd_usage(CMD, "more than %d nodes", NODES_MAX);
	more[c->url_cnt] = strdup(url);
	return more[c->url_cnt] ? (c->url_cnt++, 0) : cmd_fail(CMD, "out of memory");
}

static int take_args(struct create *c, int argc, char **argv)
{
	static const struct option longs[] = {{"node", required_argument, NULL, 'n'},
					      {"survive", required_argument, NULL, 's'},
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
		status = check(&c);
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
		status = report(&c);
	create_release(&c);
	return status;
}
