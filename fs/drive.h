/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * drive: a volume that is open on this machine: keys, store, nodes, publisher, opened in
 * the one right order and closed in reverse.  A mount is a drive with a tree in front.
 */
#ifndef HOLDFAST_FS_DRIVE_H
#define HOLDFAST_FS_DRIVE_H

#include <jansson.h>
#include "cache/publish.h"
#include "cache/store.h"
#include "fs/config.h"

struct drive {
	struct config *cfg; /* owned */
	struct store *st;
	struct volume *vol;
	unsigned interval_ms;
	uint64_t repair_limit, scrub_limit; /* as publish_opts has them; 0: the usual */
	/* the rest belongs to drive.c */
	pthread_mutex_t lock;
	pthread_cond_t idle;
	struct publisher *pub; /* guarded by lock; NULL before the start and after the stop */
	unsigned users;	       /* calls that use pub now; guarded by lock */
	bool store_started, data_started;
	pthread_t verify;
	bool verifying;
	int64_t verify_ms;
};

/*
 * The key file of the volume, opened with the passphrase if it needs one.  -EACCES: wrong
 * passphrase; all said in the log line.
 */
int drive_keys(const struct config *cfg, const char *pass_file, struct keys **out);
/* Store and nodes; takes cfg and keys over, also when it fails.  keys NULL: store alone. */
int drive_open(struct drive **out, struct config *cfg, struct keys *keys,
	       const struct store_opts *so);
/*
 * Threads: commit, read-ahead, watcher, publisher, and one that verifies all nodes for at
 * most verify_ms so that nothing waits for a node that hangs.
 */
int drive_start(struct drive *d, int64_t verify_ms);
/* Who may have signed what is on the nodes: cfg->device_cnt of them; malloc; NULL: said. */
struct hist_device *drive_devices(const struct drive *d);
/* The store's threads alone: for work without publication. */
int drive_start_store(struct drive *d);
/* Abandons what is in flight; commits; 0 or the error of closing the store. */
int drive_close(struct drive *d);

/*
 * drive_publish(d, w): until everything changed before the call is published.  It gives up
 * after limit_ms (0: never), when nothing has moved for a minute (ten seconds while too few
 * nodes answer), or when give_up says so (-ECANCELED).  The log line says what is left and
 * why.  progress is called every two seconds or so.
 */
struct drive_wait {
	bool protect;
	uint64_t ino; /* 0: all; else this file is enough, with what it is in order with */
	int64_t limit_ms;
	bool (*give_up)(void *arg);
	int (*progress)(void *arg, const struct publish_status *ps,
			const struct store_figures *f); /* non-zero: stop, returned */
	void *arg;
};
int drive_publish(struct drive *d, const struct drive_wait *w);
/* Zeros when no publisher runs. */
void drive_publish_status(struct drive *d, struct publish_status *out);
void drive_poke(struct drive *d); /* a node may be back: try all now */
/* The publisher stays while it is held, for a slice of a wait at most; NULL: none runs. */
struct publisher *drive_hold(struct drive *d);
void drive_let_go(struct drive *d);

/* Calls found with a sentence for each node that cannot be read now; returns how many. */
unsigned drive_missing_nodes(struct drive *d, void (*found)(void *arg, const char *what),
			     void *arg);

/*
 * The object of status --json of an open drive; mountpoint NULL: not mounted.
 * NULL with a log line.
 */
json_t *drive_status(struct drive *d, const char *mountpoint);
/* The same without keys: nodes are asked for at most verify_ms. */
json_t *drive_status_closed(const char *name, int64_t verify_ms);

#endif
