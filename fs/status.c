/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The object of status --json, made where the volume is open: in the mount, or in the
 * command when nothing is mounted.
 */
#include "fs/drive.h"

#include <stdlib.h>
#include <unistd.h>
#include "cache/garbage.h"
#include "cache/usage.h"
#include "fs/cmd.h"
#include "fs/prompt.h"
#include "fs/secrets.h"

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

static json_t *one_node(const struct node_info *i, const struct usage_node *u,
			enum node_member m)
{
	/* Drained: nothing is left on it, and it may be removed. */
	const char *member = m == NODE_MEMBER	? "member"
			     : m == NODE_LEAVING ? "leaving"
			     : u->shards	 ? "draining"
						 : "drained";

	return json_pack("{s:o, s:o, s:s, s:s, s:s, s:o, s:I, s:I, s:o}", "name",
			 text(i->name), "url", text(i->url), "kind", i->kind, "state",
			 node_state_name(i->state), "member", member, "since",
			 time_or_null(i->since_ns), "shards", (json_int_t)u->shards, "bytes", (json_int_t)u->bytes,
			 "error", *i->error ? text(i->error) : json_null());
}

static json_t *number_or_null(uint64_t n)
{
	return n ? json_integer((json_int_t)n) : json_null();
}

/* What was measured; null where nothing was.  unasked: it was not even tried. */
static void add_figures(json_t *j, const struct node_info *i, uint64_t verified_s, bool unasked)
{
	struct node_url u;
	bool parsed = !url_parse(&u, i->url);

	json_object_set_new(j, "number", json_integer(i->number));
	json_object_set_new(j, "domain", parsed && u.domain ? text(u.domain) : json_null());
	json_object_set_new(j, "latency_ms", number_or_null(i->latency_ms));
	json_object_set_new(j, "latency_p95_ms", number_or_null(i->latency_p95_ms));
	json_object_set_new(j, "upload_rate", number_or_null(i->up_bytes_s));
	json_object_set_new(j, "download_rate", number_or_null(i->down_bytes_s));
	json_object_set_new(j, "free", i->total_bytes ? json_integer((json_int_t)i->free_bytes)
						      : json_null());
	json_object_set_new(j, "answered", time_or_null(i->ok_ns));
	json_object_set_new(j, "verified", time_or_null((int64_t)verified_s * 1000000000));
	json_object_set_new(j, "requests",
			    json_pack("{s:I, s:I, s:I, s:I, s:I, s:I}", "put",
				      (json_int_t)i->put_cnt, "get", (json_int_t)i->get_cnt,
				      "delete", (json_int_t)i->delete_cnt, "list",
				      (json_int_t)i->list_cnt, "other", (json_int_t)i->other_cnt,
				      "repeated", (json_int_t)i->retry_cnt));
	json_object_set_new(j, "uploaded", json_integer((json_int_t)i->up_bytes));
	json_object_set_new(j, "downloaded", json_integer((json_int_t)i->down_bytes));
	if (unasked) {
		json_object_set_new(j, "state", json_string("unknown"));
		json_object_set_new(j, "since", json_null());
		json_object_set_new(j, "error",
				    json_string("not asked: needs the passphrase, or a mount"));
	}
	url_release(&u);
}

/* When something of it was last found well: see cache/FORMAT.md. */
static uint64_t last_verified(struct drive *d, uint16_t number)
{
	uint64_t s = 0;
	char key[32];

	snprintf(key, sizeof key, "verified_%u", number);
	pthread_mutex_lock(&d->st->meta);
	if (store_get_u64(d->st, key, &s))
		s = 0;
	pthread_mutex_unlock(&d->st->meta);
	return s;
}

static json_t *report(struct drive *d, struct node **node, size_t node_cnt,
		      const char *mountpoint, const bool unasked[])
{
	struct node_info *info = calloc(HF_MAX(node_cnt, (size_t)1), sizeof *info);
	struct usage_node *use = calloc(HF_MAX(node_cnt, (size_t)1), sizeof *use);
	json_t *nodes = json_array(), *j = NULL;
	char fail_msg[sizeof d->st->fail_msg];
	struct store_figures f = {0};
	struct publish_status ps;
	uint64_t below = 0, v = 0;
	unsigned survives = 0, alive = 0, silent = 0;
	char few[160];
	int64_t oldest = 0;

	if (!info || !use || !nodes) {
		log_fail(-ENOMEM, "out of memory");
		goto out;
	}
	for (size_t i = 0; i < node_cnt; i++) {
		node_get_info(node[i], &info[i]);
		use[i].number = info[i].number;
		/* Nothing says that those are lost. */
		use[i].lost = lost(info[i].state) && (!unasked || !unasked[i]);
		silent += unasked && unasked[i];
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
	for (size_t i = 0; i < node_cnt; i++) {
		json_t *one = one_node(&info[i], &use[i], node_member(node[i]));

		if (one)
			add_figures(one, &info[i], last_verified(d, info[i].number),
				    unasked && unasked[i]);
		if (json_array_append_new(nodes, one)) {
			log_fail(-ENOMEM, "out of memory");
			goto out;
		}
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
	uint64_t dead = 0, dead_bytes = 0;

	if (j && !garbage_figures(d->st, &dead, &dead_bytes))
		json_object_set_new(j, "garbage",
				    json_pack("{s:I, s:I}", "bytes", (json_int_t)dead_bytes,
					      "segments", (json_int_t)dead));
	/* What a person must act on; absent when all is well. */
	snprintf(few, sizeof few,
		 "only %u of %zu nodes can be read and %u are needed: what is not on "
		 "this machine cannot be had now",
		 alive, node_cnt, d->cfg->k);
	const char *warning = failed ? fail_msg : alive < d->cfg->k ? few : ps.reason;
	if (!*warning && silent) {
		snprintf(few, sizeof few,
			 "%u of %zu nodes were not asked, as their credentials need the "
			 "passphrase: mount it, or give HOLDFAST_PASSPHRASE_FILE",
			 silent, node_cnt);
		warning = few;
	}
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
	size_t all = volume_nodes(d->vol), cnt = 0;
	struct node **node = calloc(HF_MAX(all, (size_t)1), sizeof *node);

	if (!node) {
		log_fail(-ENOMEM, "out of memory");
		return NULL;
	}
	for (size_t i = 0; i < all; i++)
		if (node_member(d->vol->node[i]) != NODE_GONE)
			node[cnt++] = d->vol->node[i];
	json_t *j = report(d, node, cnt, mountpoint, NULL);
	free(node);
	return j;
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

/*
 * Markers are no secret: whether a node is there can be said without the passphrase, unless
 * it is a server that wants credentials.
 */
static void verify_all(struct node **node, const bool unasked[], size_t cnt, const uint8_t *vol,
		       int64_t deadline)
{
	struct node_wait w;
	struct node_io *io;

	node_wait_init(&w);
	for (size_t i = 0; i < cnt; i++) {
		if (unasked[i] || !(io = node_verify_io(deadline)))
			continue;
		io->tag = (unsigned)i;
		node_wait_submit(&w, node[i], io);
	}
	while (w.pending && (io = node_wait_next(&w, deadline + 1000))) {
		node_verify_end(node[io->tag], vol, io);
		node_io_unref(io);
	}
	node_wait_release(&w);
}

/*
 * The credentials, where the key file opens without asking anybody: it needs no passphrase,
 * or a file has it.  *known says whether they could be had.
 */
static struct creds *quiet_creds(const struct config *cfg, bool *known)
{
	char *path = config_file(cfg, "keys");
	struct creds *creds = NULL;
	struct keys *keys = NULL;
	bool wanted = false;

	*known = false;
	for (size_t i = 0; i < cfg->node_cnt; i++)
		wanted |= secrets_needed(cfg->node[i].url);
	if (path && wanted && (prompt_file(NULL) || keys_needs_pass(path) == 0) &&
	    !keys_global_init() && !drive_keys(cfg, NULL, &keys))
		*known = !secrets_load(cfg, keys, &creds);
	keys_free(keys);
	free(path);
	return creds;
}

json_t *drive_status_closed(const char *name, int64_t verify_ms)
{
	struct store_opts so = {0};
	struct creds *creds = NULL;
	struct drive *d = NULL;
	struct node **node;
	struct config *cfg;
	bool *unasked, known;
	json_t *j = NULL;
	size_t cnt = 0;

	if (config_load(name, &cfg) || drive_open(&d, cfg, NULL, &so))
		return NULL;
	node = calloc(cfg->node_cnt, sizeof *node);
	unasked = calloc(cfg->node_cnt, sizeof *unasked);
	int err = node && unasked ? 0 : log_fail(-ENOMEM, "out of memory");
	if (!err)
		creds = quiet_creds(cfg, &known);
	while (!err && cnt < cfg->node_cnt) {
		unasked[cnt] = !known && secrets_needed(cfg->node[cnt].url);
		err = node_open(&node[cnt], cfg->node[cnt].number, cfg->node[cnt].url, creds);
		if (!err)
			cnt++;
	}
	creds_unref(creds);
	if (!err) {
		verify_all(node, unasked, cnt, cfg->vol, now_ms() + verify_ms);
		j = report(d, node, cnt, NULL, unasked);
	}
	while (cnt)
		node_close(node[--cnt]);
	free(node);
	free(unasked);
	if (drive_close(d)) {
		json_decref(j);
		j = NULL;
	}
	return j;
}
