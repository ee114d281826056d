/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What node_dir.c (threads, the probe) and dir_file.c (what a request does to files) share. */
#ifndef HOLDFAST_NET_DIR_IMPL_H
#define HOLDFAST_NET_DIR_IMPL_H

#include <dirent.h>
#include <sys/stat.h>
#include "net/cond.h"
#include "net/node_impl.h"

#define DIR_LEN 8 /* "s/ab" and the like */

struct root {
	int fd;
	dev_t dev;
	ino_t ino;
	_Atomic int ref;
	_Atomic uint32_t durable; /* bit per letter: that directory in the root was synced */
};

/* Somebody syncs, or wants to sync, this directory. */
struct dirsync {
	char dir[DIR_LEN];
	const struct root *root;
	unsigned users;
	uint64_t want, done;
	bool running;
	int err;
	struct dirsync *next;
};

struct worker {
	struct node *node;
	struct node_io *io; /* what it is inside of; guarded by dir_node.lock, as all */
	bool lost;
	struct worker *next;
	pthread_mutex_t mem; /* held while the memory of a PUT is read; innermost */
	bool let_go;	     /* that memory is not ours any more; guarded by mem */
	uint8_t *step, *back; /* dir_put's; freed with the worker */
};

struct dir_node {
	pthread_mutex_t lock;
	pthread_cond_t work, gone, synced;
	struct node_io *head, *tail;
	struct worker *workers;
	unsigned live, idle, lost; /* live counts those that are not lost */
	bool stopping, swept;
	struct root *root;
	struct dirsync *syncs;
	_Atomic uint64_t tmp_seq;
};

/* A reference to the root of the last probe, or NULL; the last one to put it closes it. */
struct root *root_get(struct dir_node *d);
void root_put(struct root *r);

/*
 * The requests, in a worker's thread: 0 or -errno; -ENODEV where the root itself was removed,
 * -ECANCELED where the request was given up meanwhile.
 */
int dir_put(struct worker *w, struct root *r, const struct node_io *io);
int dir_get(const struct root *r, const struct node_io *io, size_t *got);
int dir_del(const struct root *r, const struct node_io *io);
int dir_list(const struct root *r, const struct node_io *io, struct buf *out);
/* Removes temporary files that a crash left in one directory; younger ones have a writer. */
void dir_sweep(const struct root *r, const char *dir, time_t now);

#endif
