/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Access lists, as programs set them and as they come back from the nodes: the first byte
 * chooses what becomes of one.  What is accepted stays one that is.  The first bytes once more
 * as text, for the pairs of numbers that a mount is given.
 */
#include <stdlib.h>
#include "fs/acl.h"
#include "fs/owner.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t len);

static uint32_t other(const void *arg, bool group, uint32_t id)
{
	return ids_here(arg, id == UINT32_MAX - 1 ? id : id + group);
}

static void pairs(const char *text)
{
	struct owners o = {0};

	if (ids_parse(&o.uid, text) == 0 && !o.uid.all)
		for (size_t i = 0; i < o.uid.pair_cnt; i++)
			if (ids_here(&o.uid, o.uid.pair[i].stored) != o.uid.pair[i].here ||
			    ids_stored(&o.uid, o.uid.pair[i].here) != o.uid.pair[i].stored)
				abort();
	if (owners_parse_umask(&o, text) == 0 && o.umask > 0777)
		abort();
	owners_release(&o);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
	static struct id_pair pair[] = {{1000, 1001}, {0, 70000}};
	static const struct ids ids = {.pair = pair, .pair_cnt = 2};
	uint32_t mode = 0640;
	char text[32];

	if (!len)
		return 0;
	snprintf(text, sizeof text, "%.*s", (int)HF_MIN(len, sizeof text - 1), (const char *)p);
	pairs(text);
	/* A copy of the exact size, which changes. */
	uint8_t *list = malloc(len - 1 + (len == 1));
	if (!list)
		return 0;
	memcpy(list, p + 1, len - 1);
	if (acl_check(list, len - 1) == 0) {
		switch (p[0] % 4) {
		case 0:
			acl_chmod(list, len - 1, 0751);
			break;
		case 1:
			acl_inherit(list, len - 1, &mode);
			break;
		case 2:
			acl_map(list, len - 1, other, &ids);
			break;
		default:
			acl_to_mode(list, len - 1, &mode);
		}
		if (acl_check(list, len - 1) || mode > 0777)
			abort();
	}
	free(list);
	return 0;
}
