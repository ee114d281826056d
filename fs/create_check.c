/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "fs/create.h"

#include <dirent.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include "fs/cmd.h"
#include "fs/making.h"
#include "fs/secrets.h"
#include "net/place.h"
#include "net/probe.h"

#define CMD	    "create"
#define STRIPE_MAX  16
#define TRIAL_NODES 6

int create_holds(const char *path, char what[NAME_MAX + 1])
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
	int err = create_holds(p->path, what);

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

/* That of the nearest directory above that is there. */
static void note_disk(struct place *p)
{
	char *path = strdup(p->path), *slash;
	struct stat st;

	while (path && stat(path, &st) < 0 && (slash = strrchr(path, '/')) && slash != path)
		*slash = 0;
	if (path && stat(path, &st) == 0)
		p->disk = st.st_dev;
	free(path);
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
		for (size_t i = 0; i + 1 < c->cnt; i++) {
			int over = probe_overlap(c->place[i].url, canon);

			if (over)
				return cmd_usage(CMD, "nodes %s and %s%s", c->place[i].url, canon,
						 over == 1 ? " are the same place"
							   : ": one lies within the other");
		}
		return 0;
	}
	canon[strcspn(canon, "?")] = 0;
	p->path = config_resolve(canon + 4, &p->there);
	if (!p->path)
		return cmd_fail(CMD, "node %s: %s", p->url, strerror(errno));
	if (!c->trial && config_overlap(c->home, p->path))
		return cmd_usage(CMD,
				 "node %s and the state directory %s: one lies within the "
				 "other; a node is a place of its own",
				 p->url, c->home);
	for (size_t i = 0; i + 1 < c->cnt; i++) {
		const struct place *q = &c->place[i];

		if (!q->path)
			continue;
		int over = config_overlap(q->path, p->path);

		if (over)
			return cmd_usage(CMD, "nodes %s and %s%s", q->url, p->url,
					 over == 1 ? " are the same place"
						   : ": one lies within the other");
	}
	p->has_domain = strstr(p->url, "domain=");
	note_disk(p);
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

		err = node_open(&node, (uint16_t)(i + 1), c->place[i].url, c->creds);
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
		if (c->place[i].path && config_within(c->place[i].path, c->kit_path))
			status = cmd_usage(
				CMD,
				"kit %s lies on node %s: whoever has that node would have "
				"the keys; give another --kit",
				c->kit_path, c->place[i].url);
	free(real);
	free(above);
	return status;
}

int create_lock_home(struct create *c)
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
	int err = create_lock_home(c);
	if (err)
		return cmd_fail_last(CMD, err);
	err = making_undo(c->dir, c->creds);
	/* A prompt that nobody answers must not keep others out. */
	close(c->home_fd);
	c->home_fd = -1;
	if (!err)
		return 0;
	if (err != -EEXIST)
		return cmd_fail(CMD,
				"an earlier create of %s was stopped: %s; try again when it can "
				"be reached, with its --credentials, or remove %s to leave it "
				"as it is",
				c->name, log_last(), c->dir);
	return cmd_fail(CMD,
			"%s is there but holds no volume: remove it, or choose another name",
			c->dir);
}

/* Of all that was found, what these nodes name is enough. */
static int check_credentials(struct create *c)
{
	struct node_spec *spec = calloc(c->cnt, sizeof *spec);
	struct creds *mine = NULL;
	bool expire = false;

	int err = spec ? 0 : log_fail(-ENOMEM, "out of memory");
	for (size_t i = 0; i < c->cnt && !err; i++) {
		spec[i].url = c->place[i].url;
		err = secrets_check(c->creds, c->place[i].url);
		expire |= !err && secrets_expire(c->creds, c->place[i].url);
	}
	if (!err)
		err = secrets_pick(c->creds, spec, c->cnt, &mine);
	free(spec);
	if (err)
		return cmd_fail_last(CMD, err);
	if (c->credentials && !mine)
		create_warn(c, "no node needs credentials: %s is not used", c->credentials);
	if (expire)
		create_warn(c, "a session token ends after some hours: keys that stay are better "
			       "for a drive");
	creds_unref(c->creds);
	c->creds = mine;
	return 0;
}

static bool on_disk_of(const struct place *p, const struct place *q)
{
	return p->path && q->path && !p->has_domain && !q->has_domain && p->disk == q->disk;
}

/* Nodes of one disk fail together, which domain= can say.  One line for each disk. */
static int check_disks(struct create *c)
{
	int err = 0;

	for (size_t i = 0; i < c->cnt && !err; i++) {
		struct buf list = {0};
		unsigned cnt = 0;
		bool said = false;

		for (size_t j = 0; j < c->cnt; j++) {
			char one[32];

			if (!on_disk_of(&c->place[i], &c->place[j]))
				continue;
			said |= j < i;
			snprintf(one, sizeof one, "%s%zu", cnt++ ? ", " : "", j + 1);
			buf_put(&list, one, strlen(one));
		}
		buf_u8(&list, 0);
		err = list.err;
		if (!err && !said && cnt > 1)
			err = create_warn(c,
					  "nodes %s are on one disk and fail together: say so with "
					  "?domain=NAME behind each",
					  (const char *)list.p);
		buf_release(&list);
	}
	return err ? cmd_fail(CMD, "out of memory") : 0;
}

static int read_credentials(struct create *c)
{
	bool remote = c->credentials;

	for (size_t i = 0; i < c->url_cnt; i++)
		remote |= secrets_remote(c->url[i]);
	int err = remote ? secrets_read(c->credentials, &c->creds) : 0;

	return err ? cmd_fail_last(CMD, err) : 0;
}

int create_check(struct create *c)
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
	status = read_credentials(c);
	if (!status && lstat(c->dir, &st) == 0)
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
		status = check_credentials(c);
	if (!status)
		status = check_shape(c);
	if (!status)
		status = check_kit_path(c);
	if (!status && !c->trial)
		status = check_disks(c);
	return status;
}
