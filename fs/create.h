/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * create: what a create is told and finds out before it makes anything.  create_check.c
 * fills it and changes nothing but what a create that was killed left; cmd_create.c makes
 * the volume of it.
 */
#ifndef HOLDFAST_FS_CREATE_H
#define HOLDFAST_FS_CREATE_H

#include <limits.h>
#include <sys/types.h>
#include "net/kit.h"
#include "net/probe.h"

#define CREATE_NODES_MAX 4096

struct place {
	char *url;  /* canonical */
	char *path; /* of a directory, all links resolved, without the part that is not there */
	bool there; /* it exists and is empty */
	bool made;  /* by this run */
	int fd;	    /* its lock: from here on it is ours to fill; -1 */
	dev_t disk; /* of a directory */
	bool has_domain;
	bool touched; /* a server: something of this run may be there */
};

struct create {
	const char *name, *pass_file, *kit_file, *credentials;
	bool no_pass, kit_needs_pass, json;
	uint64_t survive, quota; /* quota: bytes, 0: none */
	bool have_survive;
	char **url;
	size_t url_cnt;

	char *home; /* the state directory */
	char *dir;  /* of the volume, in it */
	char *kit_path;
	struct creds *creds; /* what the nodes need; NULL: nothing */
	struct place *place;
	size_t cnt;
	unsigned k, m;
	char *pass;
	struct kit *kit;
	struct owner *owner;
	int home_fd; /* the lock of the state directory; -1 */
	bool trial;  /* no --node: all below dir */
	bool made_dir, made_kit;
	struct probe_result *probe; /* of each place */
	char **warning; /* what is well to know; for the report */
	size_t warning_cnt;
};

/*
 * The shape, the places, the kit's path: 0, or an exit status after a line.  It removes what
 * a create of that name that was killed left behind.
 */
int create_check(struct create *c);
/* A line for the report; 0 or -ENOMEM. */
int create_warn(struct create *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Tries every node, see net/probe.h, into c->probe.  0, or -errno with a log line. */
int create_probe(struct create *c, struct volume *v);
/* Marks them, several at a time; -errno with a log line. */
int create_mark(struct create *c, struct volume *v);
int create_report(const struct create *c);
/* One create or recover at a time in a state directory; kept until this process ends. */
int create_lock_home(struct create *c);
/* 1 when something is in the directory (its name in *what), 0 when not, or -errno. */
int create_holds(const char *path, char what[NAME_MAX + 1]);

#endif
