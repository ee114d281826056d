/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "fs/making.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <sodium.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include "fs/cmd.h"
#include "fs/json_read.h"
#include "net/kit.h"
#include "net/probe.h"

#define FILE_NAME "making"
#define FILE_CAP  (8u << 20)
#define KIT_CAP	  (8u << 20)
#define VERIFY_MS 5000
#define CLEAR_MS  120000
#define AT_ONCE	  32u

int making_lock(const char *dir, int *fd)
{
	*fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (*fd < 0)
		return -errno;
	if (flock(*fd, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK) {
		close(*fd);
		*fd = -1;
		return -EAGAIN;
	}
	return 0;
}

int making_write(const char *dir, const uint8_t vol[VOL_LEN], const char *kit,
		 const struct making_node *node, size_t cnt)
{
	char id[2 * VOL_LEN + 1], path[PATH_MAX];
	json_t *nodes = json_array(), *root;
	int err = nodes ? 0 : -ENOMEM;

	hex_encode(vol, VOL_LEN, id);
	for (size_t i = 0; i < cnt && !err; i++) {
		json_t *j = node[i].url
				    ? json_pack("{s:i, s:s}", "number", (int)node[i].number,
						"url", node[i].url)
				    : json_pack("{s:i, s:s, s:b}", "number",
						(int)node[i].number, "path", node[i].path,
						"made", (int)node[i].made);

		if (json_array_append_new(nodes, j))
			err = -ENOMEM;
	}
	root = json_pack("{s:s, s:s, s:o}", "volume", id, "kit", kit, "nodes", nodes);
	char *text = root ? json_dumps(root, JSON_INDENT(2)) : NULL;
	if (!err && !text)
		err = -ENOMEM;
	if (!err && (size_t)snprintf(path, sizeof path, "%s/" FILE_NAME, dir) >= sizeof path)
		err = -ENAMETOOLONG;
	if (!err)
		err = file_write_atomic(path, text, strlen(text), 0600);
	free(text);
	json_decref(root);
	return err ? log_fail(err, "%s/" FILE_NAME " cannot be written: %s", dir,
			      strerror(-err))
		   : 0;
}

void making_release(struct making *m)
{
	free(m->node);
	json_decref(m->text);
	*m = (struct making){0};
}

int making_parse(const char *text, size_t len, struct making *out)
{
	struct making m = {.text = json_read(text, len, NULL)};
	const json_t *list = json_object_get(m.text, "nodes");
	const char *id = json_string_value(json_object_get(m.text, "volume"));
	int err = -EBADMSG;

	m.kit = json_string_value(json_object_get(m.text, "kit"));
	if (!id || hex_decode(id, m.vol, VOL_LEN) || !m.kit || !json_is_array(list))
		goto bad;
	m.node = calloc(json_array_size(list) + 1, sizeof *m.node);
	if (!m.node) {
		err = -ENOMEM;
		goto bad;
	}
	for (; m.cnt < json_array_size(list); m.cnt++) {
		const json_t *j = json_array_get(list, m.cnt);
		json_int_t number = json_integer_value(json_object_get(j, "number"));
		struct making_node *n = &m.node[m.cnt];

		n->number = (uint16_t)number;
		n->path = json_string_value(json_object_get(j, "path"));
		n->made = json_is_true(json_object_get(j, "made"));
		n->url = json_string_value(json_object_get(j, "url"));
		if (number < 1 || number >= NODE_NONE || !n->path == !n->url ||
		    (n->path && *n->path != '/'))
			goto bad;
	}
	*out = m;
	return 0;
bad:
	making_release(&m);
	return err;
}

void making_done(const char *dir)
{
	char path[PATH_MAX];

	if ((size_t)snprintf(path, sizeof path, "%s/" FILE_NAME, dir) < sizeof path)
		unlink(path);
}

void making_clear_node(const char *path)
{
	static const char *const ours[] = {"v", "s", "l", "tmp"};
	char one[PATH_MAX];

	for (size_t i = 0; i < sizeof ours / sizeof *ours; i++)
		if ((size_t)snprintf(one, sizeof one, "%s/%s", path, ours[i]) < sizeof one)
			cmd_remove_tree(one);
}

/*
 * It was killed before its marker was there: what there may be is a part of that, and the
 * blobs of a probe.
 */
static void clear_unmarked(const char *path, const uint8_t vol[VOL_LEN], uint16_t number)
{
	char name[2][BLOB_NAME_CAP], dir[PATH_MAX];
	struct dirent *e;

	if ((size_t)snprintf(dir, sizeof dir, "%s/v", path) >= sizeof dir)
		return;
	probe_names(vol, number, name[0], name[1]);
	for (int i = 0; i < 2; i++) {
		char one[PATH_MAX];

		if ((size_t)snprintf(one, sizeof one, "%s/%s", path, name[i]) < sizeof one)
			unlink(one);
	}
	DIR *d = opendir(dir);
	while (d && (e = readdir(d)))
		if (!strncmp(e->d_name, ".tmp-", 5))
			unlinkat(dirfd(d), e->d_name, 0);
	if (d)
		closedir(d);
	rmdir(dir);
}

/* --- servers --- */

/* All blobs of a list; AT_ONCE requests at a time.  `last` is left. */
static int delete_all(struct node *n, const struct buf *list, const char *last,
		      int64_t deadline_ms)
{
	struct node_wait w;
	size_t at = 0;
	int err = 0;

	node_wait_init(&w);
	while (!err && (at < list->len || w.pending)) {
		const char *name = (const char *)list->p + at;
		struct node_io *io;

		if (at < list->len && w.pending < AT_ONCE) {
			at += strlen(name) + 1;
			if (!strcmp(name, last))
				continue;
			io = node_io_new(NODE_DEL, name);
			if (!io) {
				err = -ENOMEM;
				break;
			}
			io->trusted = true;
			io->deadline_ms = deadline_ms;
			node_wait_submit(&w, n, io);
			continue;
		}
		io = node_wait_next(&w, deadline_ms + VERIFY_MS);
		if (!io)
			err = -ETIMEDOUT;
		else if (io->err && io->err != -ENOENT)
			err = io->err;
		if (io)
			node_io_unref(io);
	}
	node_wait_release(&w);
	return err;
}

static int list_one(struct node *n, const char *prefix, int64_t deadline_ms, struct buf *out)
{
	struct node_wait w;
	struct node_io *io = node_io_new(NODE_LIST, prefix);
	int err = -ENOMEM;

	if (!io)
		return err;
	io->trusted = true;
	io->deadline_ms = deadline_ms;
	node_wait_init(&w);
	node_wait_submit(&w, n, io);
	io = node_wait_next(&w, deadline_ms + VERIFY_MS);
	err = io ? io->err : -ETIMEDOUT;
	if (!err) {
		*out = io->list;
		io->list = (struct buf){0};
		err = out->err;
	}
	if (io)
		node_io_unref(io);
	node_wait_release(&w);
	return err;
}

int making_clear_server(uint16_t number, const char *url, const uint8_t vol[VOL_LEN],
			struct creds *creds)
{
	static const char *const ours[] = {"s/", "l/", "v/"};
	int64_t deadline = now_ms() + CLEAR_MS;
	struct buf list = {0};
	struct node *n;

	int err = node_open(&n, number, url, creds);
	if (err)
		return err;
	struct node_info *info = malloc(sizeof *info);
	if (!info) {
		node_close(n);
		return log_fail(-ENOMEM, "out of memory");
	}
	err = node_verify(n, vol, now_ms() + VERIFY_MS);
	if (err == -ENOENT) {
		/* Before its marker was there: what there may be is of a probe. */
		char small[BLOB_NAME_CAP], big[BLOB_NAME_CAP];

		probe_names(vol, number, small, big);
		buf_put(&list, small, strlen(small) + 1);
		buf_put(&list, big, strlen(big) + 1);
		err = list.err;
		if (!err)
			err = delete_all(n, &list, "", deadline);
	} else if (err == -EBADMSG) {
		err = 0; /* Somebody made something else of it. */
	} else if (err == -ENODEV) {
		/* Stopped before it made the folder of a server that is there: nothing is in it. */
		err = list_one(n, "v/", deadline, &list) || list.len ? -ENODEV : 0;
	} else if (!err) {
		for (size_t i = 0; i < sizeof ours / sizeof *ours && !err; i++) {
			buf_release(&list);
			err = list_one(n, ours[i], deadline, &list);
			if (!err)
				err = delete_all(n, &list, NODE_MARKER, deadline);
		}
		buf_reset(&list);
		buf_put(&list, NODE_MARKER, sizeof NODE_MARKER);
		if (!err)
			err = list.err;
		if (!err)
			err = delete_all(n, &list, "", deadline);
	}
	if (err) {
		node_get_info(n, info);
		log_fail(err, "node %s: what a create made there cannot be removed: %s", url,
			 *info->error ? info->error : strerror(-err));
	}
	free(info);
	buf_release(&list);
	node_close(n);
	return err;
}

/* --- undoing --- */

static void undo_node(const uint8_t vol[VOL_LEN], const struct making_node *one)
{
	char url[NODE_URL_CAP];
	struct node *n;
	int fd;

	if ((size_t)snprintf(url, sizeof url, "dir:%s", one->path) >= sizeof url ||
	    making_lock(one->path, &fd) || node_open(&n, one->number, url, NULL)) {
		/* Nothing is there, or somebody makes something new of it. */
		return;
	}
	int err = node_verify(n, vol, now_ms() + VERIFY_MS);
	node_close(n);
	if (!err)
		making_clear_node(one->path);
	else if (err == -ENOENT)
		clear_unmarked(one->path, vol, one->number);
	if (one->made)
		rmdir(one->path);
	close(fd);
}

static void undo_kit(const uint8_t vol[VOL_LEN], const char *path)
{
	struct buf text = {0};
	struct kit *k = NULL;

	if (path && !file_read(path, KIT_CAP, &text) &&
	    !kit_parse((const char *)text.p, text.len, &k) && !memcmp(k->vol, vol, VOL_LEN))
		unlink(path);
	kit_free(k);
	if (text.p)
		sodium_memzero(text.p, text.cap);
	buf_release(&text);
}

/*
 * Killed while the list was being written under its temporary name: nothing else was made
 * before it.  Removes that and the directory; false when anything else is in it.
 */
static bool undo_unwritten(const char *dir)
{
	struct dirent *e;
	bool only = true;

	DIR *d = opendir(dir);
	if (!d)
		return false;
	for (int pass = 0; pass < 2 && only; pass++) {
		rewinddir(d);
		while ((e = readdir(d))) {
			if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
				continue;
			if (strncmp(e->d_name, FILE_NAME ".", strlen(FILE_NAME ".")) != 0)
				only = false;
			else if (pass)
				unlinkat(dirfd(d), e->d_name, 0);
		}
	}
	closedir(d);
	return only && rmdir(dir) == 0;
}

int making_undo(const char *dir, struct creds *creds)
{
	char path[PATH_MAX];
	struct buf text = {0};
	struct making m;
	struct stat st;
	int err = 0;

	/* Killed before anything was written down: then there is nothing else. */
	if (rmdir(dir) == 0)
		return 0;
	if ((size_t)snprintf(path, sizeof path, "%s/volume.json", dir) >= sizeof path ||
	    lstat(path, &st) == 0)
		return -EEXIST;
	snprintf(path, sizeof path, "%s/" FILE_NAME, dir);
	if (file_read(path, FILE_CAP, &text))
		return undo_unwritten(dir) ? 0 : -EEXIST;
	int bad = making_parse((const char *)text.p, text.len, &m);
	buf_release(&text);
	if (bad)
		return bad == -ENOMEM ? bad : -EEXIST;
	/* Servers first: where that fails, all is as it was for another try. */
	for (size_t i = 0; i < m.cnt && !err; i++)
		if (m.node[i].url)
			err = making_clear_server(m.node[i].number, m.node[i].url, m.vol,
						  creds);
	if (!err) {
		for (size_t i = 0; i < m.cnt; i++)
			if (m.node[i].path)
				undo_node(m.vol, &m.node[i]);
		undo_kit(m.vol, m.kit);
		err = cmd_remove_tree(dir);
	}
	making_release(&m);
	return err;
}
