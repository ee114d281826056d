/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * credentials: a mounted drive takes others, as after a changed password.
 */
#include "fs/cmd.h"

#include <stdlib.h>
#include "fs/control.h"

#define CMD	  "credentials"
#define ANSWER_MS 60000

static int run(const char *name, const char *file, bool untried)
{
	json_t *req = NULL, *answer = NULL;
	struct config *cfg;
	char *path = NULL;
	int status = 0;

	int err = config_load(name, &cfg);
	if (err)
		return cmd_fail_last(CMD, err);
	path = realpath(file, NULL);
	if (!path)
		status = cmd_fail(CMD, "credentials file %s: %s", file, strerror(errno));
	if (!status) {
		err = cmd_alive(cfg->dir);
		if (err == -ENOENT)
			status = cmd_fail(CMD,
					  "%s is not mounted: holdfast mount %s DIR --credentials "
					  "%s takes them from then on",
					  name, name, file);
		else if (err)
			status = cmd_fail_last(CMD, err);
	}
	if (!status) {
		req = json_pack("{s:s, s:s, s:b}", "cmd", CMD, "file", path, "untried",
				(int)untried);
		err = req ? control_call(cfg->dir, req, ANSWER_MS, &answer) : -ENOMEM;
		if (err)
			status = cmd_fail_last(CMD, err);
	}
	json_decref(req);
	json_decref(answer);
	free(path);
	config_free(cfg);
	if (!status)
		printf("%s: the nodes are asked with the new credentials from now on\n", name);
	return status;
}

int cmd_credentials(int argc, char **argv)
{
	static const struct option longs[] = {{"untried", no_argument, NULL, 'u'},
					      {NULL, 0, NULL, 0}};
	bool untried = false;
	int o, status = 0;

	while (!status && (o = cmd_getopt(argc, argv, "", longs)) != -1) {
		untried |= o == 'u';
		status = o == 'u' ? 0 : EXIT_USAGE;
	}
	if (!status)
		status = cmd_operands(argc, argv, 2, "NAME FILE");
	return status ? status : run(argv[optind], argv[optind + 1], untried);
}
