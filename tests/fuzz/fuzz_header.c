/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The first byte says whether the rest is a header or what lies under its seal. */
#include <stdlib.h>
#include "net/header.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
	static const uint8_t vol[VOL_LEN], vk[KEY_LEN];
	static struct keys *k;
	struct header h = {0};

	if (!k && (keys_global_init() || keys_adopt(&k, vol, 1, vk)))
		abort();
	if (!len)
		return 0;
	if (p[0] & 1) {
		if (!header_body_decode(p + 1, len - 1, &h))
			for (size_t i = 0; i < h.node_cnt; i++)
				if (strlen((const char *)h.node[i].url) != h.node[i].url_len)
					abort();
	} else {
		header_decode(p + 1, len - 1, NULL, &h);
		header_unseal(p + 1, len - 1, k, &h);
	}
	header_release(&h);
	return 0;
}
