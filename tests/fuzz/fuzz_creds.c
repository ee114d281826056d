/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Credentials: what is accepted has a canonical text, and that is accepted with the same text. */
#include <stdlib.h>
#include "net/creds.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
	struct creds *c = NULL, *d = NULL;
	struct buf x = {0}, y = {0};

	log_set_quiet(true);
	log_set_level(LOG_LVL_ERROR);
	if (creds_new(&c) || creds_new(&d))
		return 0;
	if (creds_read_ini(c, len ? (const char *)p : "", len, "fuzz") == 0) {
		if (creds_text(c, &x) ||
		    creds_read_ini(d, x.len ? (char *)x.p : "", x.len, "again") ||
		    creds_text(d, &y) || x.len != y.len ||
		    (x.len && memcmp(x.p, y.p, x.len) != 0))
			abort();
	}
	buf_release(&x);
	buf_release(&y);
	creds_unref(c);
	creds_unref(d);
	return 0;
}
