/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "fs/config.h"

#include <dirent.h>
#include <jansson.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include "fs/json_read.h"

#define CONFIG_FORMAT 1
#define CONFIG_CAP    (8u << 20)
#define NODES_MAX     4096

int config_check_name(const char *name)
{
	size_t len = strlen(name);
	static const char ok[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";

	if (len < 1 || len > 63)
		return log_fail(-EINVAL, "a volume's name has 1 to 63 characters");
	if (*name == '.' || *name == '-')
		return log_fail(-EINVAL,
				"\"%s\": a volume's name does not begin with '.' or '-'", name);
	if (strspn(name, ok) != len)
		return log_fail(
			-EINVAL,
			"\"%s\": a volume's name is made of letters, digits, '.', '_' and '-'",
			name);
	return 0;
}

/* --- places --- */

char *config_resolve(const char *path, bool *there)
{
	char *whole = realpath(path, NULL), *copy, *slash, *above, *out = NULL;
	bool above_there;
	size_t len;

	*there = whole != NULL;
	if (whole || errno != ENOENT)
		return whole;
	copy = strdup(path);
	for (len = copy ? strlen(copy) : 0; len > 1 && copy[len - 1] == '/'; len--)
		copy[len - 1] = 0;
	slash = copy ? strrchr(copy, '/') : NULL;
	if (!slash || slash == copy)
		return copy;
	*slash = 0;
	above = config_resolve(copy, &above_there);
	if (above && asprintf(&out, "%s/%s", strcmp(above, "/") ? above : "", slash + 1) < 0)
		out = NULL;
	free(above);
	free(copy);
	return out;
}

bool config_within(const char *outer, const char *inner)
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

static bool below(const char *outer, const char *inner)
{
	char *path = strdup(inner), *slash;
	bool found = config_within(outer, inner);

	while (path && !found && (slash = strrchr(path, '/')) && slash != path) {
		*slash = 0;
		found = same_inode(outer, path);
	}
	free(path);
	return found;
}

int config_overlap(const char *a, const char *b)
{
	if (!strcmp(a, b) || same_inode(a, b))
		return 1;
	return below(a, b) || below(b, a) ? 2 : 0;
}

static int home_path(char **out)
{
	const char *home = getenv("HOLDFAST_HOME"), *xdg = getenv("XDG_DATA_HOME");
	const char *user = getenv("HOME");
	char *path = NULL, *cwd = NULL;
	int n;

	if (home && *home == '/')
		n = asprintf(&path, "%s", home);
	else if (home && *home && !(cwd = getcwd(NULL, 0)))
		return log_fail(-errno, "HOLDFAST_HOME=%s: the working directory: %s", home,
				strerror(errno));
	else if (home && *home)
		n = asprintf(&path, "%s/%s", cwd, home);
	else if (xdg && *xdg == '/')
		n = asprintf(&path, "%s/holdfast", xdg);
	else if (user && *user == '/')
		n = asprintf(&path, "%s/.local/share/holdfast", user);
	else
		return log_fail(-ENOENT,
				"neither HOLDFAST_HOME, XDG_DATA_HOME nor HOME says where "
				"volumes are kept: set HOLDFAST_HOME");
	free(cwd);
	*out = path;
	return n < 0 ? log_fail(-ENOMEM, "out of memory") : 0;
}

int config_home(char **out)
{
	struct stat st;
	bool there;
	char *path;
	int err = home_path(&path);

	if (err)
		return err;
	*out = config_resolve(path, &there);
	err = *out ? 0 : -errno;
	if (!err && there && stat(*out, &st) == 0 && !S_ISDIR(st.st_mode))
		err = -ENOTDIR;
	if (err) {
		log_fail(err, "the state directory %s: %s: set HOLDFAST_HOME to another place",
			 path, strerror(-err));
		free(*out);
		*out = NULL;
	}
	free(path);
	return err;
}

int config_home_make(char **out)
{
	char *path;
	int err = home_path(&path);

	if (err)
		return err;
	err = mkdir_all(path, 0700);
	if (err)
		log_fail(err, "%s cannot be made: %s: set HOLDFAST_HOME to another place", path,
			 strerror(-err));
	free(path);
	return err ? err : config_home(out);
}

int config_path(const char *name, char **dir_out)
{
	char *home;
	int err = config_check_name(name);

	if (err)
		return err;
	err = config_home(&home);
	if (err)
		return err;
	int n = asprintf(dir_out, "%s/%s", home, name);
	free(home);
	return n < 0 ? log_fail(-ENOMEM, "out of memory") : 0;
}

char *config_file(const struct config *c, const char *file)
{
	char *path;

	return asprintf(&path, "%s/%s", c->dir, file) < 0 ? NULL : path;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

int config_list(int (*cb)(void *arg, const char *name), void *arg)
{
	char *home, **names = NULL;
	size_t cnt = 0, cap = 0;
	struct dirent *e;
	struct stat st;

	int err = config_home(&home);
	if (err)
		return err;
	DIR *d = opendir(home);
	if (!d && errno != ENOENT)
		err = log_fail(-errno, "%s: %s", home, strerror(errno));
	while (d && !err && (e = readdir(d))) {
		char file[NAME_MAX + 16];

		if (*e->d_name == '.' || *e->d_name == '-' || strlen(e->d_name) > 63)
			continue;
		snprintf(file, sizeof file, "%s/volume.json", e->d_name);
		if (fstatat(dirfd(d), file, &st, 0) < 0)
			continue;
		if (cnt == cap) {
			cap = cap ? cap * 2 : 16;
			char **more = reallocarray(names, cap, sizeof *names);
			if (!more) {
				err = log_fail(-ENOMEM, "out of memory");
				break;
			}
			names = more;
		}
		names[cnt] = strdup(e->d_name);
		if (!names[cnt])
			err = log_fail(-ENOMEM, "out of memory");
		else
			cnt++;
	}
	if (d)
		closedir(d);
	free(home);
	if (cnt)
		qsort(names, cnt, sizeof *names, by_name);
	for (size_t i = 0; i < cnt; i++) {
		if (!err)
			err = cb(arg, names[i]);
		free(names[i]);
	}
	free(names);
	return err;
}

/* --- hex --- */

void hex_encode(const uint8_t *p, size_t len, char *out)
{
	static const char digit[] = "0123456789abcdef";

	for (size_t i = 0; i < len; i++) {
		*out++ = digit[p[i] >> 4];
		*out++ = digit[p[i] & 15];
	}
	*out = 0;
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return -1;
}

int hex_decode(const char *s, uint8_t *out, size_t len)
{
	if (strlen(s) != 2 * len)
		return -EBADMSG;
	for (size_t i = 0; i < len; i++) {
		int hi = hex_digit(s[2 * i]), lo = hex_digit(s[2 * i + 1]);

		if (hi < 0 || lo < 0)
			return -EBADMSG;
		out[i] = (uint8_t)(hi << 4 | lo);
	}
	return 0;
}

/* --- volume.json --- */

int config_new(struct config **out, const char *name, const char *dir)
{
	struct config *c = calloc(1, sizeof *c);

	if (!c)
		return log_fail(-ENOMEM, "out of memory");
	snprintf(c->name, sizeof c->name, "%s", name);
	c->dir = strdup(dir);
	if (!c->dir) {
		config_free(c);
		return log_fail(-ENOMEM, "out of memory");
	}
	*out = c;
	return 0;
}

void config_free(struct config *c)
{
	if (!c)
		return;
	for (size_t i = 0; i < c->node_cnt; i++)
		free(c->node[i].url);
	free(c->node);
	free(c->devices);
	free(c->kit_path);
	free(c->dir);
	free(c);
}

int config_add_node(struct config *c, uint16_t number, const char *url, size_t url_len)
{
	struct node_spec *more = reallocarray(c->node, c->node_cnt + 1, sizeof *more);

	if (!more)
		return log_fail(-ENOMEM, "out of memory");
	c->node = more;
	more[c->node_cnt] = (struct node_spec){.number = number,
						.url = strndup(url, url_len)};
	if (!more[c->node_cnt].url)
		return log_fail(-ENOMEM, "out of memory");
	c->node_cnt++;
	return 0;
}

int config_set_nodes(struct config *c, const struct node_spec *node, size_t cnt)
{
	struct config fresh = {0};
	int err = 0;

	for (size_t i = 0; i < cnt && !err; i++)
		err = config_add_node(&fresh, node[i].number, node[i].url, strlen(node[i].url));
	if (!err) {
		struct config old = {.node = c->node, .node_cnt = c->node_cnt};

		c->node = fresh.node;
		c->node_cnt = fresh.node_cnt;
		fresh = old;
	}
	for (size_t i = 0; i < fresh.node_cnt; i++)
		free(fresh.node[i].url);
	free(fresh.node);
	return err;
}

int config_add_device(struct config *c, const struct rec_device *d)
{
	struct rec_device *more = reallocarray(c->devices, c->device_cnt + 1, sizeof *more);

	if (!more)
		return log_fail(-ENOMEM, "out of memory");
	c->devices = more;
	more[c->device_cnt++] = *d;
	return 0;
}

static int take_hex(const json_t *o, const char *key, uint8_t *out, size_t len)
{
	const char *s = json_string_value(json_object_get(o, key));

	return s ? hex_decode(s, out, len) : -EBADMSG;
}

static int take_int(const json_t *o, const char *key, int64_t min, int64_t max, int64_t *out)
{
	const json_t *j = json_object_get(o, key);

	if (!json_is_integer(j))
		return -EBADMSG;
	*out = json_integer_value(j);
	return *out < min || *out > max ? -EBADMSG : 0;
}

static int take_nodes(const json_t *list, struct config *c)
{
	size_t i;
	json_t *j;

	if (!json_is_array(list) || json_array_size(list) < 2 ||
	    json_array_size(list) > NODES_MAX)
		return -EBADMSG;
	json_array_foreach(list, i, j)
	{
		const char *url = json_string_value(json_object_get(j, "url"));
		int64_t number;

		if (take_int(j, "number", 1, NODE_NONE - 1, &number) || !url ||
		    strlen(url) >= NODE_URL_CAP || json_object_size(j) != 2)
			return -EBADMSG;
		for (size_t n = 0; n < c->node_cnt; n++)
			if (c->node[n].number == number)
				return -EBADMSG;
		int err = config_add_node(c, (uint16_t)number, url, strlen(url));
		if (err)
			return err;
	}
	return 0;
}

static int take_devices(const json_t *list, struct config *c)
{
	size_t i;
	json_t *j;

	if (!json_is_array(list) || json_array_size(list) < 1 ||
	    json_array_size(list) > HIST_DEVICES_MAX)
		return -EBADMSG;
	json_array_foreach(list, i, j)
	{
		struct rec_device d = {0};
		int64_t number, role;

		if (take_int(j, "number", 1, UINT16_MAX, &number) ||
		    take_int(j, "role", 1, 3, &role) ||
		    take_hex(j, "key", d.ed_pk, sizeof d.ed_pk) ||
		    take_hex(j, "certificate", d.cert, sizeof d.cert) ||
		    json_object_size(j) != 4)
			return -EBADMSG;
		d.number = (uint16_t)number;
		d.role = (uint8_t)role;
		int err = config_add_device(c, &d);
		if (err)
			return err;
	}
	return 0;
}

int config_parse(const char *text, size_t len, struct config *c)
{
	static const char *const known[] = {"format", "volume", "owner",   "device", "k",
					    "m",      "nodes",	"devices", "kit"};
	int64_t format = 0, device = 0, k = 0, m = 0;
	const char *key;
	json_error_t e;
	json_t *value;
	int err = 0;

	json_t *root = json_read(text, len, &e);
	if (!root)
		return log_fail(-EBADMSG, "line %d: %s", e.line, e.text);
	if (take_int(root, "format", 1, INT64_MAX, &format)) {
		json_decref(root);
		return log_fail(-EBADMSG, "it does not say which format it has");
	}
	if (format != CONFIG_FORMAT) {
		json_decref(root);
		return log_fail(-ENOTSUP, "format %lld is newer than this program knows",
				(long long)format);
	}
	json_object_foreach(root, key, value)
	{
		size_t i = 0;

		while (i < sizeof known / sizeof *known && strcmp(key, known[i]))
			i++;
		if (i == sizeof known / sizeof *known)
			err = log_fail(-EBADMSG, "unknown field \"%.40s\"", key);
	}
	if (!err && (take_hex(root, "volume", c->vol, sizeof c->vol) ||
		     take_hex(root, "owner", c->owner_ed_pk, sizeof c->owner_ed_pk)))
		err = log_fail(-EBADMSG, "the volume's id or the owner's key is damaged");
	if (!err && (take_int(root, "device", 1, UINT16_MAX, &device) ||
		     take_int(root, "k", 1, EC_MAX - 1, &k) ||
		     take_int(root, "m", 1, EC_MAX - 1, &m) || k + m > EC_MAX))
		err = log_fail(-EBADMSG, "device, k or m is out of range");
	if (!err) {
		c->device = (uint16_t)device;
		c->k = (uint8_t)k;
		c->m = (uint8_t)m;
		err = take_nodes(json_object_get(root, "nodes"), c);
		if (err)
			err = log_fail(err, "the list of nodes is damaged");
	}
	if (!err && c->node_cnt < (size_t)(k + m))
		err = log_fail(-EBADMSG, "there are fewer than k + m nodes");
	if (!err) {
		err = take_devices(json_object_get(root, "devices"), c);
		if (err)
			err = log_fail(err, "the list of devices is damaged");
	}
	const json_t *kit = json_object_get(root, "kit");
	if (!err && kit && !json_is_string(kit))
		err = log_fail(-EBADMSG, "the kit's path is no text");
	if (!err && kit) {
		c->kit_path = strdup(json_string_value(kit));
		if (!c->kit_path)
			err = log_fail(-ENOMEM, "out of memory");
	}
	json_decref(root);
	return err;
}

static int add_name(void *arg, const char *name)
{
	struct buf *b = arg;

	/* Enough to recognise what was meant; the whole list is `holdfast status`. */
	if (b->len > 200)
		return 1;
	if (b->len)
		buf_put(b, ", ", 2);
	buf_put(b, name, strlen(name));
	return 0;
}

static int no_such_volume(const char *name)
{
	struct buf b = {0};
	int err;

	config_list(add_name, &b);
	if (b.len && !b.err)
		err = log_fail(-ENOENT, "no volume \"%s\" on this machine: there is %.*s", name,
			       (int)b.len, (const char *)b.p);
	else
		err = log_fail(
			-ENOENT,
			"no volume \"%s\" on this machine: make one with holdfast create, or "
			"bring one here with holdfast recover",
			name);
	buf_release(&b);
	return err;
}

int config_load(const char *name, struct config **out)
{
	struct config *c = NULL;
	struct buf text = {0};
	char *dir, *path = NULL;

	int err = config_path(name, &dir);
	if (err)
		return err;
	err = config_new(&c, name, dir);
	if (!err && !(path = config_file(c, "volume.json")))
		err = log_fail(-ENOMEM, "out of memory");
	if (!err)
		err = file_read(path, CONFIG_CAP, &text);
	if (err == -ENOENT || err == -ENOTDIR)
		err = no_such_volume(name);
	else if (err)
		err = log_fail(err, "%s: %s", path ? path : dir, strerror(-err));
	if (!err) {
		err = config_parse((const char *)text.p, text.len, c);
		if (err) {
			char why[256];

			snprintf(why, sizeof why, "%s", log_last());
			err = log_fail(err, "%s cannot be used: %s", path, why);
		}
	}
	buf_release(&text);
	free(path);
	free(dir);
	if (err) {
		config_free(c);
		return err;
	}
	*out = c;
	return 0;
}

int config_save(const struct config *c)
{
	char vol[2 * VOL_LEN + 1], owner[65], key[65], cert[2 * SIG_LEN + 1];
	json_t *nodes = json_array(), *devices = json_array(), *root;
	char *text = NULL, *path = config_file(c, "volume.json");
	int err = 0;

	hex_encode(c->vol, VOL_LEN, vol);
	hex_encode(c->owner_ed_pk, 32, owner);
	for (size_t i = 0; i < c->node_cnt; i++)
		if (json_array_append_new(nodes, json_pack("{s:i, s:s}", "number",
							   (int)c->node[i].number, "url",
							   c->node[i].url)))
			err = -ENOMEM;
	for (size_t i = 0; i < c->device_cnt; i++) {
		const struct rec_device *d = &c->devices[i];

		hex_encode(d->ed_pk, sizeof d->ed_pk, key);
		hex_encode(d->cert, sizeof d->cert, cert);
		if (json_array_append_new(devices,
					  json_pack("{s:i, s:i, s:s, s:s}", "number",
						    (int)d->number, "role", (int)d->role, "key",
						    key, "certificate", cert)))
			err = -ENOMEM;
	}
	root = json_pack("{s:i, s:s, s:s, s:i, s:i, s:i, s:o, s:o}", "format", CONFIG_FORMAT,
			 "volume", vol, "owner", owner, "device", (int)c->device, "k",
			 (int)c->k, "m", (int)c->m, "nodes", nodes, "devices", devices);
	if (root && c->kit_path && json_object_set_new(root, "kit", json_string(c->kit_path)))
		err = -EINVAL; /* a path that is not UTF-8 */
	if (root)
		text = json_dumps(root, JSON_INDENT(2));
	if (!err && (!text || !path))
		err = -ENOMEM;
	if (!err)
		err = file_write_atomic(path, text, strlen(text), 0600);
	if (err)
		log_fail(err, "%s/volume.json cannot be written: %s", c->dir, strerror(-err));
	json_decref(root);
	free(text);
	free(path);
	return err;
}
