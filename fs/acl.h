/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * acl: POSIX.1e access control lists in the form in which Linux passes them as xattrs
 * (linux/posix_acl_xattr.h): le32 version 2, then entries of le16 tag, le16 permissions,
 * le32 id.  The kernel enforces them; keeping them and the mode in step is the file
 * system's part.  The rules are those of fs/posix_acl.c.  Pure functions.
 *
 * All but acl_check trust their input: what is stored went through acl_check.
 */
#ifndef HOLDFAST_FS_ACL_H
#define HOLDFAST_FS_ACL_H

#include "net/base.h"

#define ACL_ACCESS  "system.posix_acl_access"
#define ACL_DEFAULT "system.posix_acl_default"

/* 0, or -EINVAL; a list without entries is valid and means: none. */
int acl_check(const void *p, size_t len);
/* True when there are no entries. */
bool acl_empty(const void *p, size_t len);
/*
 * Sets the permission bits of *mode from the list (group bits from the mask if there is
 * one).  True when the list says no more than the mode does, and need not be stored.
 */
bool acl_to_mode(const void *p, size_t len, uint32_t *mode);
/* chmod: sets owner, mask (else group) and other from the mode. */
void acl_chmod(void *p, size_t len, uint32_t mode);
/*
 * A file is created with *mode below a directory whose default list this is: takes from
 * both the list and *mode what the other does not grant.  True when the result must be
 * stored as the access list, false when *mode says it all.
 */
bool acl_inherit(void *p, size_t len, uint32_t *mode);
/* Each number of a named user or group becomes what `map` makes of it. */
void acl_map(void *p, size_t len, uint32_t (*map)(const void *arg, bool group, uint32_t id),
	     const void *arg);

#endif
