/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The XML of servers: whole or in pieces it says the same, and names stay within their caps. */
#include <stdlib.h>
#include "net/listing.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t len);

struct seen {
	unsigned cnt;
	size_t bytes;
};

static int entry(void *arg, const struct listing_entry *e)
{
	struct seen *s = arg;
	char dir[LISTING_TEXT_CAP], leaf[LISTING_TEXT_CAP];
	bool slash;

	s->cnt++;
	s->bytes += strlen(e->name);
	if (strlen(e->name) >= LISTING_TEXT_CAP)
		abort();
	if (!listing_href(e->name, dir, leaf, sizeof dir, &slash) && !*leaf)
		abort();
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
	for (int kind = 0; kind < 2; kind++) {
		struct seen seen[2] = {0};
		struct listing *l = NULL;
		int err[2] = {0};

		if (listing_new(&l, kind ? LISTING_DAV : LISTING_S3, entry, &seen[0]))
			return 0;
		err[0] = listing_feed(l, p, len);
		if (!err[0])
			err[0] = listing_end(l);
		listing_free(l);
		if (listing_new(&l, kind ? LISTING_DAV : LISTING_S3, entry, &seen[1]))
			return 0;
		for (size_t at = 0; at < len && !err[1]; at += 7)
			err[1] = listing_feed(l, p + at, HF_MIN(len - at, (size_t)7));
		if (!err[1])
			err[1] = listing_end(l);
		listing_free(l);
		if (err[0] != err[1] || (!err[0] && (seen[0].cnt != seen[1].cnt ||
						     seen[0].bytes != seen[1].bytes)))
			abort();
	}
	return 0;
}
