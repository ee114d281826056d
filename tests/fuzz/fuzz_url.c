/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The address of a node: what is accepted is written in one way, and accepted so again. */
#include <stdlib.h>
#include "net/node.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t len);

/* No part of a path is empty, "." or "..". */
static void check_path(const char *path)
{
	for (const char *c = path; *c;) {
		size_t part = strcspn(++c, "/");

		if (!part || (*c == '.' && part == 1) ||
		    (part == 2 && c[0] == '.' && c[1] == '.'))
			abort();
		c += part;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
	char *text = strndup(len ? (const char *)p : "", len);
	struct node_url u, again;

	log_set_quiet(true);
	log_set_level(LOG_LVL_ERROR);
	if (text && url_parse(&u, text) == 0) {
		if (strlen(u.text) >= NODE_URL_CAP || url_parse(&again, u.text) ||
		    strcmp(u.text, again.text) != 0 || strcmp(u.path, again.path) != 0)
			abort();
		url_release(&again);
		if (u.kind != URL_S3)
			check_path(u.path);
		else if (strstr(u.path, "//") || *u.path == '/')
			abort();
		url_release(&u);
	}
	free(text);
	return 0;
}
