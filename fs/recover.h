/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * recover: what recover is told and finds.  recover_find.c reads: the kit, the nodes, the
 * header, who is who; recover_members.c follows the nodes to those that the drive has now;
 * cmd_recover.c does the rest.
 */
#ifndef HOLDFAST_FS_RECOVER_H
#define HOLDFAST_FS_RECOVER_H

#include "fs/config.h"
#include "cache/member.h"
#include "net/kit.h"

struct found {
	uint16_t number;
	char *url;
	bool given; /* by --node: it holds against the kit and the header */
};

struct recover {
	const char *kit_file, *name, *pass_file, *kit_pass_file, *credentials;
	bool no_pass, json, take_over;
	char **url;
	size_t url_cnt;

	char *dir, *tmp;
	bool made_tmp;
	int home_fd;		/* the lock of the state directory; -1 */
	struct interrupt *stop; /* of cmd_recover.c */
	char *pass;
	struct creds *creds; /* all that is known; NULL: nothing */
	struct kit *kit;
	struct owner *owner;
	struct found *node;
	size_t node_cnt;
	struct buf head_bytes;
	struct header head;
	struct roster roster; /* the one that held, when has_roster */
	bool has_roster;
	uint16_t device; /* this machine's */
	unsigned answered;
	int64_t look_ms; /* how long nodes are looked at: all when none was silent before */
};

/* Each 0 or -errno with a log line; in this order. */
int recover_open_kit(struct recover *r);
/* The kit's own passphrase first, then that of this machine. */
int recover_unlock(struct recover *r);
/*
 * What opens the nodes: the variables and files of AWS, over them what the kit holds, over
 * that --credentials.  A --node that could not be asked with them is an error.
 */
int recover_credentials(struct recover *r);
/* The kit's addresses, and which node each --node URL is. */
int recover_gather_nodes(struct recover *r);
int recover_add_node(struct recover *r, uint16_t number, const char *url, size_t len,
		     bool given);
/* Both of these, and the roster, from ever more nodes until nothing newer is shown. */
int recover_follow(struct recover *r, struct keys **keys);
int recover_fetch_header(struct recover *r);
/* The volume key from the header's kit slot; then what only it can read: nodes, devices. */
int recover_open_header(struct recover *r, struct keys **keys);
/* The header's list is newer than the kit's; what --node says holds against both. */
int recover_make_config(struct recover *r, struct config **out);
/* This machine's own roster: in its database; then on the nodes, before its header. */
int recover_keep_roster(struct recover *r, const struct keys *k, struct store *st);
int recover_put_roster(struct recover *r, struct volume *v);
/* Enough of them can be read, and written to. */
int recover_check_nodes(struct recover *r, struct volume *v);

#endif
