/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * config: where volumes live on this machine and what must be known before the database can
 * be opened.  $HOLDFAST_HOME/NAME/ (0700):
 *   volume.json  format, volume id, device, K, M, nodes, owner's public key (no secret)
 *   keys         the sealed key file (net/keys.h)
 *   credentials  what opens nodes that are servers, sealed (fs/secrets.h)
 *   meta.db      the database     data/  contents     log  the daemon's log
 *   sock         control socket of the mount          kit.txt  unless --kit named another
 * volume.json is written last: a directory without it is no volume.
 */
#ifndef HOLDFAST_FS_CONFIG_H
#define HOLDFAST_FS_CONFIG_H

#include "net/header.h"

struct config {
	char *dir; /* absolute */
	char name[64];
	uint8_t vol[VOL_LEN], owner_ed_pk[32];
	uint16_t device;
	uint8_t k, m;
	struct node_spec *node;
	size_t node_cnt;
	struct rec_device *devices; /* certified */
	size_t device_cnt;
	char *kit_path; /* where create wrote the kit; NULL: not known here */
};
/* 1..63 of [A-Za-z0-9._-], not starting with '.' or '-': 0 or -EINVAL with a log line. */
int config_check_name(const char *name);
/* malloc'ed, absolute; looking at it makes nothing.  _make: made with mode 0700 when absent. */
int config_home(char **out);
int config_home_make(char **out);
/* The canonical form of a path of which the end need not be there; NULL with errno. */
char *config_resolve(const char *path, bool *there);
/* inner is outer or below it; both canonical. */
bool config_within(const char *outer, const char *inner);
/*
 * Two directories, both canonical, which need not be there: 0 apart, 1 the same, 2 one lies
 * within the other.  A bind mount is seen by device and inode of the directory itself and of
 * those above it in its path; what lies above the place that was bound is not seen.
 */
int config_overlap(const char *a, const char *b);
int config_path(const char *name, char **dir_out);
int config_load(const char *name,
		struct config **out); /* -ENOENT: no such volume (says which exist) */
int config_save(const struct config *c);
void config_free(struct config *c);
/* Names in ascending order; stops at the first non-zero return, which is returned. */
int config_list(int (*cb)(void *arg, const char *name), void *arg);

/* A zeroed config for NAME in dir (copied). */
int config_new(struct config **out, const char *name, const char *dir);
int config_add_node(struct config *c, uint16_t number, const char *url, size_t url_len);
/* Exactly these nodes; urls are copied. */
int config_set_nodes(struct config *c, const struct node_spec *node, size_t cnt);
int config_add_device(struct config *c, const struct rec_device *d);
/* For tests and for whoever has the text: strict, -EBADMSG or -ENOTSUP with a log line. */
int config_parse(const char *text, size_t len, struct config *c);
/* A file within the volume's directory: malloc'ed, NULL when out of memory. */
char *config_file(const struct config *c, const char *file);

void hex_encode(const uint8_t *p, size_t len, char *out); /* 2*len characters and a 0 */
int hex_decode(const char *s, uint8_t *out, size_t len);  /* 0 or -EBADMSG */

#endif
