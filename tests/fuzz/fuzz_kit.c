/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The first byte says whether the rest is a page or the bytes that its lines carry.  A kit
 * that was read from bytes can be printed, and the page read again.
 */
#include <stdlib.h>
#include "net/kit.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t len);

static void bytes(const uint8_t *p, size_t len)
{
	struct buf again = {0}, page = {0};
	struct kit *k, *back;

	if (kit_decode(p, len, &k))
		return;
	if (kit_encode(k, NULL, &again) || again.len != len)
		abort();
	if (memcmp(again.p, p, len) != 0 && !k->credentials.len)
		abort();
	if (len < 4096) {
		if (kit_print(k, "x", NULL, &page) ||
		    kit_parse((const char *)page.p, page.len, &back))
			abort();
		kit_free(back);
	}
	buf_release(&page);
	buf_release(&again);
	kit_free(k);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
	static bool ready;
	struct kit *k;

	if (!ready && keys_global_init())
		abort();
	ready = true;
	log_set_quiet(true);
	if (!len)
		return 0;
	if (p[0] & 1)
		bytes(p + 1, len - 1);
	else if (!kit_parse((const char *)p + 1, len - 1, &k))
		kit_free(k);
	return 0;
}
