/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * digest: HTTP Digest authentication, RFC 7616: what a server asks and what it is answered.
 * MD5 and SHA-256, with qop=auth or without, no -sess, no auth-int, no userhash.
 *
 * It is ours because libcurl keeps what it knows of it with each handle and begins a PUT
 * whose proof it lacks with an empty body: a server that takes that for the blob has an empty
 * blob.  Here one challenge serves all requests of a host, and a body is always whole.
 *
 * Pure functions; any thread.  A challenge is hostile input.
 */
#ifndef HOLDFAST_NET_DIGEST_H
#define HOLDFAST_NET_DIGEST_H

#include "net/base.h"

#define DIGEST_VALUE_CAP 256 /* of a realm, a nonce, with its end */
#define DIGEST_CAP	 2048 /* of an answer, with its end */

struct digest {
	char realm[DIGEST_VALUE_CAP], nonce[DIGEST_VALUE_CAP], opaque[DIGEST_VALUE_CAP];
	bool has_opaque, sha256, qop, stale;
	uint32_t nc; /* how often the nonce was used */
};

/*
 * The value of a WWW-Authenticate header, not 0-terminated; other schemes may stand in it
 * too.  0 with *d filled; -ENOENT when Digest is not asked for; -EINVAL when what it asks is
 * malformed, too long, or cannot be done.
 */
int digest_challenge(struct digest *d, const char *v, size_t len);

/*
 * The value of the Authorization header for one request; uri as it stands in the request
 * line.  cnonce: any text of hexadecimal digits that nobody can foresee.  Counts d->nc.
 * -EINVAL when a name cannot be quoted or it all is longer than DIGEST_CAP.
 */
int digest_answer(struct digest *d, const char *user, const char *password, const char *method,
		  const char *uri, const char *cnonce, char out[DIGEST_CAP]);

#endif
