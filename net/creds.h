/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * creds: what opens nodes, by profile.  The file is an ini file with a section a profile:
 *
 *	[backup]
 *	access_key = ...	S3: access_key and secret_key, session_token where one is needed
 *	secret_key = ...
 *	region = eu-west-1	also S3; a region in the node's address goes before
 *	[friend]
 *	username = ...		WebDAV: username and password, or bearer
 *	password = ...
 *
 * The part before the first section is the profile "default".  Comments begin a line with
 * ";" or "#"; a value is all that follows the "=", without blanks at its ends.
 *
 * Secrets lie in sodium_malloc memory and are in no message: an error names the source and
 * the line.  A struct creds is filled by one thread, is immutable from then on, is shared by
 * reference and may be read from any thread.
 */
#ifndef HOLDFAST_NET_CREDS_H
#define HOLDFAST_NET_CREDS_H

#include "net/base.h"

#define CREDS_CAP	  (1u << 20) /* bytes of a file */
#define CREDS_LINE_CAP	  8192
#define CREDS_PROFILE_CAP 49   /* with its end */
#define CREDS_CNT_CAP	  1000 /* profiles */

/* One profile; a field that was not given is NULL.  Lives as long as its struct creds. */
struct node_cred {
	const char *profile;
	const char *access_key, *secret_key, *session_token, *region;
	const char *username, *password, *bearer;
};

struct creds;
int creds_new(struct creds **out);
void creds_ref(struct creds *c); /* NULL allowed, as below */
void creds_unref(struct creds *c);

/*
 * Adds the profiles of a text; a profile that was there is replaced as a whole.  `what` names
 * the text in messages.  -EINVAL with a log line, and c is as it was; -ENOMEM.
 * creds_read_file: also -errno of the file, -EFBIG, and -EACCES for a file that others on
 * this machine may read, each with a log line.
 */
int creds_read_ini(struct creds *c, const char *text, size_t len, const char *what);
int creds_read_file(struct creds *c, const char *path);
/*
 * What users of S3 have already: ~/.aws/credentials and ~/.aws/config (or what
 * AWS_SHARED_CREDENTIALS_FILE and AWS_CONFIG_FILE name) with their profiles, then
 * AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN and AWS_REGION or
 * AWS_DEFAULT_REGION as the profile "default"; else AWS_PROFILE says which is the default.
 * What is absent is no error.
 */
int creds_read_aws(struct creds *c);

/* NULL when there is none; profile NULL means "default", c may be NULL. */
const struct node_cred *creds_find(const struct creds *c, const char *profile);
/* New creds with these profiles of c alone, those that c has not are left out. */
int creds_pick(const struct creds *c, const char *const profile[], size_t cnt,
	       struct creds **out);
/* Appends the canonical text of all profiles, for sealing; the caller wipes it. */
int creds_text(const struct creds *c, struct buf *out);
size_t creds_count(const struct creds *c);

#endif
