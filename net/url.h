/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * url: the address of a node, parsed.
 *
 *	dir:/absolute/path[?domain=NAME]
 *	s3+http(s)://host[:port]/bucket[/prefix][?OPTIONS]
 *	dav+http(s)://host[:port][/path][?OPTIONS]
 *
 * Options, joined by "&", each at most once:
 *	profile=P	 section of the credentials; without: "default"
 *	region=R	 S3: what requests are signed for
 *	style=path|virtual  S3: the bucket in the path, or before the host
 *	class=NAME	 S3: the storage class of what is written
 *	ca=/file	 trust this CA and no other
 *	insecure=1	 plain http to a host that is not this one
 *	domain=NAME	 nodes of one name fail together
 *	upload_limit=N, download_limit=N   bytes a second, K, M or G behind
 *
 * An address is public: it is printed, logged, kept in the kit and in commits.  One with a
 * user or a password in it is refused, and what refuses it never repeats it.
 *
 * No I/O, no state; any thread.
 */
#ifndef HOLDFAST_NET_URL_H
#define HOLDFAST_NET_URL_H

#include "net/base.h"

#define NODE_URL_CAP 4096

enum url_kind { URL_DIR, URL_S3, URL_DAV };

struct node_url {
	enum url_kind kind;
	char *text; /* the canonical address */
	/*
	 * dir: the directory.  dav: "" or "/a/b", percent-encoded as it goes into a request.
	 * s3: the prefix as it is, without slashes at its ends, "" when there is none.
	 */
	char *path;
	char *domain; /* NULL: none */
	/* Of s3 and dav only, NULL or 0 where not given: */
	bool tls, insecure, virtual_host;
	char *host;    /* lower case; an IPv6 address is in brackets */
	unsigned port; /* 0: the one of the scheme */
	char *bucket, *region, *profile, *ca, *storage_class;
	uint64_t up_limit, down_limit; /* bytes/s; 0: none */
};

/* 0, or -EINVAL with a log line that says what is wrong and what is right; -ENOMEM. */
int url_parse(struct node_url *out, const char *text);
void url_release(struct node_url *u); /* zeroed and half-built ones allowed */

/* "50", "200K", "3M", "1G" as bytes; -EINVAL.  What -o upload_limit= takes too. */
int url_parse_rate(const char *text, uint64_t *out);

/*
 * Percent-encoding of RFC 3986: everything but letters, digits and "-._~" is escaped; keep
 * names more that stay ("/" in paths).  url_decode: -EINVAL for a bad escape or a 0 byte;
 * the result is never longer.
 */
void url_encode(struct buf *out, const char *s, size_t len, const char *keep);
int url_decode(const char *s, size_t len, char *out, size_t *out_len);

#endif
