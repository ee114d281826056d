/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * kit: prints the recovery kit again.  Its secret is not kept on this machine, on purpose:
 * who takes the machine must not get what outlives a change of the passphrase.  So the kit
 * is read from where create wrote it, as long as it is still there.
 */
#include "fs/cmd.h"

#include <fcntl.h>
#include <sodium.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include "net/kit.h"

#define CMD	"kit"
#define KIT_CAP (8u << 20)

static int put_file(const char *path, const struct buf *text)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	size_t done = 0;
	int err = fd < 0 ? -errno : 0;

	while (!err && done < text->len) {
		ssize_t n = write(fd, text->p + done, text->len - done);

		if (n < 0 && errno != EINTR)
			err = -errno;
		done += n > 0 ? (size_t)n : 0;
	}
	if (fd >= 0 && !err && fsync(fd) < 0)
		err = -errno;
	if (fd >= 0)
		close(fd);
	if (err && fd >= 0)
		unlink(path);
	return err ? cmd_fail(CMD, "%s cannot be written: %s", path, strerror(-err))
		   : EXIT_DONE;
}

static int load(const struct config *cfg, const char *from, struct buf *text)
{
	const char *path = from ? from : cfg->kit_path;
	struct kit *k = NULL;

	if (!path)
		return cmd_fail(
			CMD,
			"this machine does not know where a kit of %s is, and the kit's secret "
			"is not kept here: print a copy of it with --from FILE",
			cfg->name);
	int err = file_read(path, KIT_CAP, text);
	if (err && !from)
		return cmd_fail(
			CMD,
			"the kit is no longer at %s (%s), and its secret is not kept on this "
			"machine: print another copy with --from FILE; if there is none, "
			"copy the files into a new volume while this one works",
			path, strerror(-err));
	if (err)
		return cmd_fail(CMD, "%s: %s", path, strerror(-err));
	err = kit_parse((const char *)text->p, text->len, &k);
	if (err)
		return cmd_fail(CMD, "%s: %s", path, *log_last() ? log_last() : strerror(-err));
	bool same = !memcmp(k->vol, cfg->vol, VOL_LEN);
	kit_free(k);
	if (!same)
		return cmd_fail(CMD, "%s is the kit of another volume, not of %s", path,
				cfg->name);
	return 0;
}

/* Whoever has a node with the kit on it has the keys. */
static int check_place(const struct config *cfg, const char *path)
{
	char *file = strdup(path), *slash = file ? strrchr(file, '/') : NULL, *above;
	int status = 0;

	if (!file)
		return cmd_fail(CMD, "out of memory");
	if (slash)
		slash[slash == file] = 0;
	above = realpath(slash ? file : ".", NULL);
	for (size_t i = 0; above && i < cfg->node_cnt && !status; i++) {
		const char *url = cfg->node[i].url;
		char *dir = strncmp(url, "dir:", 4) ? NULL : strdup(url + 4), *node;

		if (dir)
			dir[strcspn(dir, "?")] = 0;
		node = dir ? realpath(dir, NULL) : NULL;
		if (node && config_within(node, above))
			status = cmd_fail(CMD,
					  "%s lies on node %s: whoever has that node would have "
					  "the keys; give another place",
					  path, url);
		free(node);
		free(dir);
	}
	free(above);
	free(file);
	return status;
}

int cmd_kit(int argc, char **argv)
{
	static const struct option longs[] = {{"output", required_argument, NULL, 'o'},
					      {"from", required_argument, NULL, 'f'},
					      {"qr", no_argument, NULL, 'q'},
					      {"qr-png", required_argument, NULL, 'Q'},
					      {NULL, 0, NULL, 0}};
	const char *output = NULL, *from = NULL, *png = NULL;
	struct buf text = {0}, picture = {0};
	struct config *cfg = NULL;
	struct stat st;
	bool qr = false;
	int o, status;

	while ((o = cmd_getopt(argc, argv, "", longs)) != -1) {
		if (o == 'o')
			output = optarg;
		else if (o == 'f')
			from = optarg;
		else if (o == 'q')
			qr = true;
		else if (o == 'Q')
			png = optarg;
		else
			return EXIT_USAGE;
	}
	status = cmd_operands(argc, argv, 1, "NAME");
	if (!status && (qr + (png != NULL) > 1 || (png && output)))
		status = cmd_usage(CMD, "--qr, --qr-png and --output: one picture or one file");
	if (status)
		return status;
	int err = keys_global_init();
	if (!err)
		err = config_load(argv[optind], &cfg);
	if (err)
		return cmd_fail_last(CMD, err);
	status = load(cfg, from, &text);
	if (!status && qr) {
		err = kit_qr_text(&text, &picture);
		if (err)
			status = cmd_fail_last(CMD, err);
	}
	if (!status && (png || output))
		status = check_place(cfg, png ? png : output);
	if (!status && png && lstat(png, &st) == 0) {
		status = cmd_fail(CMD, "%s exists already: give another name", png);
	} else if (!status && png) {
		umask(077);
		err = kit_qr_png(&text, png);
		if (err)
			status = cmd_fail_last(CMD, err);
	} else if (!status && output) {
		status = put_file(output, qr ? &picture : &text);
	} else if (!status) {
		const struct buf *b = qr ? &picture : &text;

		if (fwrite(b->p, 1, b->len, stdout) != b->len || fflush(stdout))
			status = EXIT_FAILED; /* main() says it */
	}
	if (text.p)
		sodium_memzero(text.p, text.cap);
	if (picture.p)
		sodium_memzero(picture.p, picture.cap);
	buf_release(&text);
	buf_release(&picture);
	config_free(cfg);
	return status;
}
