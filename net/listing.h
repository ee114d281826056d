/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * listing: the XML that servers answer with, read as it comes: S3's ListBucketResult and
 * Error, WebDAV's multistatus (RFC 4918).  Written for hostile input: a DOCTYPE is refused,
 * and with it entities; depth, the length of each text and the whole have caps.  What is not
 * known is passed over.
 *
 * No I/O; one thread at a time.
 */
#ifndef HOLDFAST_NET_LISTING_H
#define HOLDFAST_NET_LISTING_H

#include "net/base.h"

#define LISTING_CAP	 (64u << 20)
#define LISTING_DEPTH	 24
#define LISTING_TEXT_CAP 4096

enum listing_kind { LISTING_S3, LISTING_DAV };

/* One <Contents> or one <response>; valid during the callback. */
struct listing_entry {
	const char *name; /* Key, decoded; or href as it stands */
	bool collection;
	uint64_t size, quota_used, quota_available; /* UINT64_MAX: not said */
	unsigned status;			    /* of the response, 0: not said */
};

struct listing;
/* entry may be NULL; what it returns other than 0 ends the reading with that error. */
int listing_new(struct listing **out, enum listing_kind kind,
		int (*entry)(void *arg, const struct listing_entry *e), void *arg);
void listing_free(struct listing *l);
/* As new. */
int listing_reset(struct listing *l);
/* 0; -EBADMSG: not such a document (listing_why is a sentence), -ENOMEM, or what entry said. */
int listing_feed(struct listing *l, const uint8_t *p, size_t len);
int listing_end(struct listing *l);
const char *listing_why(const struct listing *l);

/* After listing_end.  S3: "" where the document has none. */
const char *listing_root(const struct listing *l); /* "ListBucketResult", "Error" ... */
bool listing_truncated(const struct listing *l);
const char *listing_token(const struct listing *l);	 /* NextContinuationToken */
const char *listing_error_code(const struct listing *l); /* of <Error> */
const char *listing_error_text(const struct listing *l);
const char *listing_error_region(const struct listing *l);

/*
 * The two last parts of the path of an href, absolute or not, decoded: "/a/b/l/x", and
 * "http://h/a/b/l/x" as well, give "l" and "x".  slash: it ended with one.  Each at most
 * cap - 1 bytes, else, and where there is no such part, -EINVAL.
 */
int listing_href(const char *href, char *dir, char *leaf, size_t cap, bool *slash);

#endif
