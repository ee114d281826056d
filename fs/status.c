/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The object of status --json, made where the volume is open: in the mount, or in the
 * command when nothing is mounted.
 */
#include "fs/drive.h"

#include <stdlib.h>
#include <unistd.h>
#include "cache/usage.h"
#include "fs/cmd.h"

static bool lost(enum node_state s)
{
	return s == NODE_DOWN || s == NODE_WRONG;
}

/* Text that came from elsewhere may not be UTF-8: then it is shown without what is not. */
static json_t *text(const char *s)
{
	json_t *j = json_string(s);
	char clean[NODE_URL_CAP];
	size_t i;

	if (j)
		return j;
	for (i = 0; i < sizeof clean - 1 && s[i]; i++)
		clean[i] = (unsigned char)s[i] < 0x80 ? s[i] : '?';
	clean[i] = 0;
	return json_string(clean);
}

static json_t *time_or_null(int64_t ns)
{
	char when[TIME_CAP];

	cmd_time(ns, when);
	return *when ? json_string(when) : json_null();
}

static json_t *one_node(const struct node_info *i, const struct usage_node *u)
{
	return json_pack("{s:o, s:o, s:s, s:s, s:o, s:I, s:I, s:o}", "name", text(i->name),
			 "url", text(i->url), "kind", i->kind, "state",
			 node_state_name(i->state), "since", time_or_null(i->since_ns),
			 "shards", (json_int_t)u->shards, "bytes", (json_int_t)u->bytes,
			 "error", *i->error ? text(i->error) : json_null());
}

static json_t *report(struct drive *d, struct node **node, size_t node_cnt,
		      const char *mountpoint)
{
	struct node_info *info = calloc(HF_MAX(node_cnt, (size_t)1), sizeof *info);
	struct usage_node *use = calloc(HF_MAX(node_cnt, (size_t)1), sizeof *use);
	json_t *nodes = json_array(), *j = NULL;
	char fail_msg[sizeof d->st->fail_msg];
	struct store_figures f = {0};
	struct publish_status ps;
	uint64_t below = 0, v = 0;
	unsigned survives = 0, alive = 0;
	char few[160];
	int64_t oldest = 0;

	if (!info || !use || !nodes) {
		log_fail(-ENOMEM, "out of memory");
		goto out;
	}
	for (size_t i = 0; i < node_cnt; i++) {
		node_get_info(node[i], &info[i]);
		use[i].number = info[i].number;
		use[i].lost = lost(info[i].state);
		alive += !use[i].lost;
	}
	if (store_figures(d->st, &f) ||
	    usage_read(d->st, d->cfg->k, d->cfg->m, use, node_cnt, &below, &survives))
		goto out;
	drive_publish_status(d, &ps);
	pthread_mutex_lock(&d->st->meta);
	if (!ps.seq && !store_get_u64(d->st, "log_seq", &v))
		ps.seq = v;
	if (!ps.time_ns && !store_get_u64(d->st, "log_time", &v))
		ps.time_ns = (int64_t)v;
	int failed = d->st->failed;
	snprintf(fail_msg, sizeof fail_msg, "%s", d->st->fail_msg);
	pthread_mutex_unlock(&d->st->meta);
	for (size_t i = 0; i < node_cnt; i++)
		if (json_array_append_new(nodes, one_node(&info[i], &use[i]))) {
			log_fail(-ENOMEM, "out of memory");
			goto out;
		}
	if (f.oldest_ns)
		oldest = HF_MAX((realtime_ns() - f.oldest_ns) / 1000000000, (int64_t)0);
	bool clean = !f.unpublished_files && !f.unpublished_bytes;
	j = json_pack("{s:s, s:b, s:o, s:o, s:{s:I, s:o}, s:{s:I, s:I, s:I}, s:b, s:i, s:O}",
		      "volume", d->cfg->name, "mounted", mountpoint != NULL, "mountpoint",
		      mountpoint ? text(mountpoint) : json_null(), "pid",
		      mountpoint ? json_integer(getpid()) : json_null(), "published", "seq",
		      (json_int_t)ps.seq, "time", time_or_null(ps.time_ns), "unpublished",
		      "bytes", (json_int_t)f.unpublished_bytes, "files",
		      (json_int_t)f.unpublished_files, "oldest_s", (json_int_t)oldest,
		      "protected", clean && !below && survives >= d->cfg->m, "survives",
		      (int)survives, "nodes", nodes);
	/* What a person must act on; absent when all is well. */
	snprintf(few, sizeof few,
		 "only %u of %zu nodes can be read and %u are needed: what is not on "
		 "this machine cannot be had now",
		 alive, node_cnt, d->cfg->k);
	const char *warning = failed ? fail_msg : alive < d->cfg->k ? few : ps.reason;
	if (j && *warning)
		json_object_set_new(j, "warning", text(warning));
out:
	free(info);
	free(use);
	json_decref(nodes);
	return j;
}

json_t *drive_status(struct drive *d, const char *mountpoint)
{
	return report(d, d->vol->node, volume_nodes(d->vol), mountpoint);
}

unsigned drive_missing_nodes(struct drive *d, void (*found)(void *arg, const char *what),
			     void *arg)
{
	struct node_info *info = malloc(sizeof *info);
	unsigned cnt = 0;
	char *what;

	for (size_t i = 0, all = volume_nodes(d->vol); info && i < all; i++) {
		if (node_readable(d->vol->node[i]) ||
		    node_member(d->vol->node[i]) == NODE_GONE)
			continue;
		node_get_info(d->vol->node[i], info);
		cnt++;
		if (asprintf(&what, "%s (%s) is %s: %s", info->name, info->url,
			     node_state_name(info->state), info->error) < 0)
			continue;
		found(arg, what);
		free(what);
	}
	free(info);
	return cnt;
}

/* Markers are no secret: whether a node is there can be said without the passphrase. */
static void verify_all(struct node **node, size_t cnt, const uint8_t *vol, int64_t deadline)
{
	struct node_wait w;
	struct node_io *io;

	node_wait_init(&w);
	for (size_t i = 0; i < cnt && (io = node_verify_io(deadline)); i++) {
		io->tag = (unsigned)i;
		node_wait_submit(&w, node[i], io);
	}
	while (w.pending && (io = node_wait_next(&w, deadline + 1000))) {
		node_verify_end(node[io->tag], vol, io);
		node_io_unref(io);
	}
	node_wait_release(&w);
}

json_t *drive_status_closed(const char *name, int64_t verify_ms)
{
	struct store_opts so = {0};
	struct drive *d = NULL;
	struct node **node;
	struct config *cfg;
	json_t *j = NULL;
	size_t cnt = 0;

	if (config_load(name, &cfg) || drive_open(&d, cfg, NULL, &so))
		return NULL;
	node = calloc(cfg->node_cnt, sizeof *node);
	int err = node ? 0 : log_fail(-ENOMEM, "out of memory");
	while (!err && cnt < cfg->node_cnt) {
		err = node_open(&node[cnt], cfg->node[cnt].number, cfg->node[cnt].url, NULL);
		if (!err)
			cnt++;
	}
	if (!err) {
		verify_all(node, cnt, cfg->vol, now_ms() + verify_ms);
		j = report(d, node, cnt, NULL);
	}
	while (cnt)
		node_close(node[--cnt]);
	free(node);
	if (drive_close(d)) {
		json_decref(j);
		j = NULL;
	}
	return j;
}
