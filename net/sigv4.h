/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * sigv4: AWS Signature Version 4 for S3 ("Authenticating Requests: Using the Authorization
 * Header", Amazon S3 API Reference).  Pure: the time is passed in.  libcurl's own is not
 * used: what it signs is not always what it sends.
 *
 * Any thread.
 */
#ifndef HOLDFAST_NET_SIGV4_H
#define HOLDFAST_NET_SIGV4_H

#include "net/base.h"

#define SIGV4_UNSIGNED "UNSIGNED-PAYLOAD"
#define SIGV4_EMPTY    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
#define SIGV4_HEX      65 /* a SHA-256 in hex, with its end */

struct sigv4 {
	const char *method;
	const char *host;  /* as the Host header says it, with a port that is not the default */
	const char *path;  /* encoded as it is sent, each byte but A-Za-z0-9-._~/ escaped */
	const char *query; /* encoded and sorted by name, each with "=", without "?"; "" none */
	/*
	 * More headers that are signed: lower-case names, ordered, values without blanks at
	 * their ends; "host" and the "x-amz-" ones of the request are among them.
	 */
	const char *const (*header)[2];
	size_t header_cnt;
	const char *payload; /* hex of its SHA-256, or SIGV4_UNSIGNED */
	const char *access_key, *secret_key, *region, *service;
	int64_t time_s; /* since 1970 */
};

/* "20150830T123600Z" for x-amz-date. */
void sigv4_date(int64_t time_s, char out[17]);
/* Appends the value of the Authorization header, not 0-terminated. */
int sigv4_sign(const struct sigv4 *s, struct buf *out);
void sigv4_hash_hex(const void *p, size_t len, char out[SIGV4_HEX]);

#endif
