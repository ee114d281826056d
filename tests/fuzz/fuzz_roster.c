/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The first byte says whether the rest is a whole roster or what lies under its seal. */
#include <stdlib.h>
#include "net/roster.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t len);

/* What a decoder lets through keeps the promises of the header. */
static void check(const struct roster *r)
{
	for (size_t i = 0; i < r->node_cnt; i++)
		if (strlen((const char *)r->node[i].url) != r->node[i].url_len ||
		    (i && r->node[i - 1].number >= r->node[i].number))
			abort();
	if (r->creds.len > ROSTER_CREDS_CAP)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
	static uint8_t vol[VOL_LEN], vk[KEY_LEN];
	static struct keys *k;
	struct roster r;

	/* Those of unit/roster, whose roster in the corpus opens, by a device nobody knows. */
	for (int i = 0; !k && i < VOL_LEN; i++)
		vol[i] = (uint8_t)(i + 100);
	for (int i = 0; !k && i < KEY_LEN; i++)
		vk[i] = (uint8_t)i;
	if (!k && (keys_global_init() || keys_adopt(&k, vol, 1, vk)))
		abort();
	if (!len)
		return 0;
	if (!((p[0] & 1) ? roster_body_decode(p + 1, len - 1, &r)
			 : roster_decode(k, NULL, 0, p + 1, len - 1, &r))) {
		check(&r);
		roster_release(&r);
	}
	return 0;
}
