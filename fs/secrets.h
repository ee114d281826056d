/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * secrets: what opens the nodes that are servers: where it comes from, whether it is
 * complete, and how it is kept.
 *
 * It comes from --credentials FILE and, for profiles that FILE does not have, from the
 * variables and files of AWS (net/creds.h).  Of all that, the profiles that the volume's
 * nodes name are kept, in two places: the file "credentials" of the volume's directory,
 * sealed under the volume key (net/FORMAT.md), and the kit.  They are in no log, no address,
 * no argument, no variable and no database.
 *
 * A profile that an address does not name is "default".  WebDAV does without one when none is
 * named and the default is not for it: then requests carry no credentials.
 */
#ifndef HOLDFAST_FS_SECRETS_H
#define HOLDFAST_FS_SECRETS_H

#include "fs/config.h"
#include "net/creds.h"

#define SECRETS_FILE "credentials"

/* Is this the address of a server?  Of one that cannot be asked without credentials? */
bool secrets_remote(const char *url);
bool secrets_needed(const char *url);

/*
 * secrets_read(file, out): file over the variables and files of AWS; file NULL: those alone.
 * 0; -EINVAL, -EACCES, -EFBIG, -errno of the file, -ENOMEM, each with a log line.
 */
int secrets_read(const char *file, struct creds **out);
/*
 * secrets_check(c, url): 0 when the profile that url names is there and complete for its
 * kind; else -ENOKEY with a log line that names the node, the profile, what it lacks and
 * what to do.  c may be NULL.
 */
int secrets_check(const struct creds *c, const char *url);
bool secrets_expire(const struct creds *c, const char *url); /* those of a session */
/* Everything of `over` that is not NULL replaces, profile by profile, what `base` has. */
int secrets_merge(const struct creds *base, const struct creds *over, struct creds **out);
/* What these addresses name, and no more; *out is NULL when that is nothing. */
int secrets_pick(const struct creds *c, const struct node_spec *node, size_t cnt,
		 struct creds **out);

/*
 * The sealed file.  secrets_save keeps what cfg's nodes name: written under a temporary
 * name, synced, renamed, mode 0600; nothing to keep removes it.  secrets_load: *out NULL
 * when there is none; -EBADMSG damaged or of another volume, -ENOTSUP a newer version.
 * All with a log line.
 */
int secrets_save(const struct config *cfg, const struct keys *keys, const struct creds *c);
int secrets_load(const struct config *cfg, const struct keys *keys, struct creds **out);
/*
 * secrets_open(cfg, keys, out): the same for a drive that is to come up: damaged ones are a
 * warning, on standard error too; its nodes then refuse until they are given again.
 */
int secrets_open(const struct config *cfg, const struct keys *keys, struct creds **out);
/*
 * secrets_update(cfg, keys, file): what file has replaces what is kept, profile by profile;
 * the result must be complete, and not refused by a server that takes what is kept (unless
 * `untried`), or nothing has changed.
 */
int secrets_update(const struct config *cfg, const struct keys *keys, const char *file,
		   bool untried);

/* The bytes of the file, for tests and fuzzing. */
int secrets_seal(const struct keys *keys, const struct creds *c, struct buf *out);
int secrets_unseal(const struct keys *keys, const void *p, size_t len, struct creds **out);

/* The text of all profiles as one buffer, no copies left behind; the caller wipes it. */
int secrets_text(const struct creds *c, struct buf *out);
void secrets_wipe(struct buf *b);

#endif
