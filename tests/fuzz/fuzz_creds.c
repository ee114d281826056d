/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Credentials: what is accepted has a canonical text, and that is accepted with the same text.
 * The same bytes once more as one of AWS's files, of which what nobody knows is passed over.
 */
#include "net/creds.c"

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
	if (creds_new(&c))
		return 0;
	if (read_text(c, len ? (const char *)p : "", len, "fuzz", true) == 0)
		for (size_t i = 0; i < c->cnt; i++)
			if (!good_profile(c->profile[i]->name))
				abort();
	creds_unref(c);
	return 0;
}
