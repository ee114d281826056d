/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The address of a node: what is accepted is written in one way, and accepted so again. */
#include <stdlib.h>
#include "net/node.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
	char *url = strndup(len ? (const char *)p : "", len);
	char *canon = malloc(NODE_URL_CAP), *again = malloc(NODE_URL_CAP);

	log_set_quiet(true);
	log_set_level(LOG_LVL_ERROR);
	if (url && canon && again && node_check_url(url, canon) == 0) {
		char *end = canon + strcspn(canon, "?"), *c = canon + 4;

		if (strnlen(canon, NODE_URL_CAP) > strlen(url) ||
		    strncmp(canon, "dir:/", 5) != 0 || node_check_url(canon, again) ||
		    strcmp(canon, again) != 0)
			abort();
		/* No part of the path is empty, "." or "..". */
		while (c < end) {
			size_t part = strcspn(++c, "/?");

			if (!part || (*c == '.' && part == 1) ||
			    (part == 2 && c[0] == '.' && c[1] == '.'))
				abort();
			c += part;
		}
	}
	free(url);
	free(canon);
	free(again);
	return 0;
}
