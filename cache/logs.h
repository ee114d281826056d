/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * logs: what lies whole on every node (volume headers, rosters, the log, and the marks of
 * this device) against what this database knows of it.  Copied to where it lacks, by the mend
 * thread; read and verified on every node, by scrub and fsck.
 */
#ifndef HOLDFAST_CACHE_LOGS_H
#define HOLDFAST_CACHE_LOGS_H

#include "cache/publish.h"

/* Whose signatures hold. */
struct logs_trust {
	const struct hist_device *device;
	size_t device_cnt;
	const uint8_t *owner_pk; /* 32 bytes */
};

/* Copies to where it lacks: how many were made, or -errno. */
int logs_mend(struct publisher *p);

/*
 * Every copy on every node that answers.  Each that is not well is a sentence that names the
 * node by its number.  mend: what is not genuine is stored anew from a genuine copy; missing:
 * of what less than a quorum has it is said who lacks it, and this device's marks are looked
 * for, which makes sense only while nobody publishes.  bytes, stop
 * (with stop_arg): see check_blobs.  Returns how many are not well, or -errno.
 */
struct logs_check {
	struct logs_trust trust;
	bool mend, missing;
	void (*found)(void *arg, const char *what);
	void *arg;
	bool (*stop)(void *arg);
	void *stop_arg;
	uint64_t *bytes;
};
int64_t logs_check(struct store *st, const struct logs_check *c);

#endif
