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
#include "net/kit.h"
#include "net/node.h"

#define FILE_NAME "making"
#define FILE_CAP  (8u << 20)
#define KIT_CAP	  (8u << 20)
#define VERIFY_MS 5000

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
	for (size_t i = 0; i < cnt && !err; i++)
		if (json_array_append_new(
			    nodes, json_pack("{s:i, s:s, s:b}", "number", (int)node[i].number,
					     "path", node[i].path, "made", (int)node[i].made)))
			err = -ENOMEM;
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

/* It was killed before its marker was there: what there may be is a part of that. */
static void clear_unmarked(const char *path)
{
	char dir[PATH_MAX];
	struct dirent *e;

	if ((size_t)snprintf(dir, sizeof dir, "%s/v", path) >= sizeof dir)
		return;
	DIR *d = opendir(dir);
	while (d && (e = readdir(d)))
		if (!strncmp(e->d_name, ".tmp-", 5))
			unlinkat(dirfd(d), e->d_name, 0);
	if (d)
		closedir(d);
	rmdir(dir);
}

static void undo_node(const uint8_t vol[VOL_LEN], const json_t *j)
{
	const char *path = json_string_value(json_object_get(j, "path"));
	json_int_t number = json_integer_value(json_object_get(j, "number"));
	char url[NODE_URL_CAP];
	struct node *n;
	int fd;

	if (!path || number < 1 || number >= NODE_NONE ||
	    (size_t)snprintf(url, sizeof url, "dir:%s", path) >= sizeof url ||
	    making_lock(path, &fd) || node_open(&n, (uint16_t)number, url, NULL)) {
		/* Nothing is there, or somebody makes something new of it. */
		return;
	}
	int err = node_verify(n, vol, now_ms() + VERIFY_MS);
	node_close(n);
	if (!err)
		making_clear_node(path);
	else if (err == -ENOENT)
		clear_unmarked(path);
	if (json_is_true(json_object_get(j, "made")))
		rmdir(path);
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

int making_undo(const char *dir)
{
	char path[PATH_MAX];
	uint8_t vol[VOL_LEN];
	struct buf text = {0};
	json_error_t e;
	struct stat st;
	json_t *root, *one;
	size_t i;

	/* Killed before anything was written down: then there is nothing else. */
	if (rmdir(dir) == 0)
		return 0;
	if ((size_t)snprintf(path, sizeof path, "%s/volume.json", dir) >= sizeof path ||
	    lstat(path, &st) == 0)
		return -EEXIST;
	snprintf(path, sizeof path, "%s/" FILE_NAME, dir);
	if (file_read(path, FILE_CAP, &text))
		return undo_unwritten(dir) ? 0 : -EEXIST;
	root = json_loadb((const char *)text.p, text.len, JSON_REJECT_DUPLICATES, &e);
	buf_release(&text);
	const char *id = json_string_value(json_object_get(root, "volume"));
	if (!id || hex_decode(id, vol, VOL_LEN)) {
		json_decref(root);
		return -EEXIST;
	}
	json_array_foreach(json_object_get(root, "nodes"), i, one)
		undo_node(vol, one);
	undo_kit(vol, json_string_value(json_object_get(root, "kit")));
	json_decref(root);
	return cmd_remove_tree(dir);
}
