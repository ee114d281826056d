/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The nodes of a new volume: tried, marked, and reported.
 */
#include "fs/create.h"

#include <stdarg.h>
#include <stdlib.h>
#include "fs/cmd.h"
#include "net/volume.h"

#define PROBE_MS   90000
#define NODE_MS	   30000
#define MARKERS_AT 16

int create_warn(struct create *c, const char *fmt, ...)
{
	char **more = reallocarray(c->warning, c->warning_cnt + 1, sizeof *more);
	va_list ap;
	int n;

	if (!more)
		return -ENOMEM;
	c->warning = more;
	va_start(ap, fmt);
	n = vasprintf(&more[c->warning_cnt], fmt, ap);
	va_end(ap);
	if (n < 0)
		return -ENOMEM;
	c->warning_cnt++;
	return 0;
}

static bool interrupted(void *arg)
{
	(void)arg;
	return cmd_interrupted();
}

int create_probe(struct create *c, struct volume *v)
{
	const struct place *first = NULL;
	int err = 0;

	c->probe = calloc(c->cnt, sizeof *c->probe);
	if (!c->probe)
		return log_fail(-ENOMEM, "out of memory");
	cmd_progress("trying %zu nodes", c->cnt);
	int bad = probe_run(v->node, c->cnt, c->kit->vol, now_ms() + PROBE_MS, interrupted,
			    NULL, c->probe);
	for (size_t i = 0; i < c->cnt && !err; i++) {
		const struct probe_result *r = &c->probe[i];

		if (r->err && r->same != SIZE_MAX)
			first = &c->place[r->same];
		if (r->err && first)
			err = log_fail(r->err,
				       "nodes %s and %s are the same place: what was written "
				       "through one is seen through the other",
				       first->url, c->place[i].url);
		else if (r->err && bad == 1)
			err = log_fail(r->err, "node %s: %s", c->place[i].url, r->why);
		else if (r->err)
			err = log_fail(r->err, "node %s: %s (and %d more of %zu nodes cannot "
					       "serve)",
				       c->place[i].url, r->why, bad - 1, c->cnt);
		else if (*r->warn)
			err = create_warn(c, "node %s: %s", c->place[i].url, r->warn);
	}
	for (size_t i = 0; i < c->cnt; i++)
		c->place[i].touched = !c->place[i].path && c->probe[i].wrote;
	if (bad == -ECANCELED)
		return log_fail(bad, "interrupted");
	return bad < 0 ? log_fail(bad, "out of memory") : err;
}

/* --- marking --- */

struct marking {
	struct create *c;
	struct volume *v;
	_Atomic size_t next;
	pthread_mutex_t lock;
	int err; /* the first one; guarded by lock, as why */
	char why[1024];
};

static void *mark_main(void *arg)
{
	struct marking *m = arg;
	size_t i;

	while ((i = m->next++) < m->v->node_cnt && !cmd_interrupted()) {
		int err = node_init(m->v->node[i], m->c->kit->vol, now_ms() + NODE_MS);

		pthread_mutex_lock(&m->lock);
		if (err && !m->err) {
			m->err = err;
			snprintf(m->why, sizeof m->why, "node %s cannot be made one: %s",
				 m->c->place[i].url,
				 *log_last() ? log_last() : strerror(-err));
		}
		pthread_mutex_unlock(&m->lock);
	}
	return NULL;
}

int create_mark(struct create *c, struct volume *v)
{
	struct marking m = {.c = c, .v = v, .lock = PTHREAD_MUTEX_INITIALIZER};
	pthread_t thread[MARKERS_AT];
	size_t cnt = 0;

	cmd_progress("making %zu nodes", c->cnt);
	for (size_t i = 0; i < c->cnt; i++)
		c->place[i].touched = !c->place[i].path;
	while (cnt < HF_MIN(v->node_cnt, (size_t)MARKERS_AT) &&
	       !pthread_create(&thread[cnt], NULL, mark_main, &m))
		cnt++;
	if (!cnt)
		mark_main(&m);
	while (cnt)
		pthread_join(thread[--cnt], NULL);
	if (m.err)
		return log_fail(m.err, "%s", m.why);
	if (cmd_interrupted())
		return log_fail(-ECANCELED, "interrupted");
	int n = volume_verify(v, now_ms() + NODE_MS);
	if (n >= 0 && (size_t)n < v->node_cnt)
		n = -EIO;
	return n < 0 ? log_fail(n, "not every node could be read back after it was made") : 0;
}

/* --- the report --- */

static json_t *probe_json(const struct create *c)
{
	json_t *all = json_array();

	for (size_t i = 0; i < c->cnt; i++) {
		const struct probe_result *r = &c->probe[i];

		json_array_append_new(
			all, json_pack("{s:s, s:I, s:I, s:I, s:I, s:o, s:o}", "url",
				       c->place[i].url, "write_ms", (json_int_t)r->put_ms,
				       "read_ms", (json_int_t)r->get_ms, "upload_rate",
				       (json_int_t)r->up_rate, "download_rate",
				       (json_int_t)r->down_rate, "free",
				       r->total_bytes ? json_integer((json_int_t)r->free_bytes)
						      : json_null(),
				       "warning", *r->warn ? json_string(r->warn) : json_null()));
	}
	return all;
}

static void show_node(const struct create *c, size_t i)
{
	const struct probe_result *r = &c->probe[i];
	char up[SIZE_CAP], down[SIZE_CAP], room[SIZE_CAP + 8] = "", size[SIZE_CAP];

	cmd_size(r->up_rate, up);
	cmd_size(r->down_rate, down);
	if (r->total_bytes) {
		cmd_size(r->free_bytes, size);
		snprintf(room, sizeof room, ", %s free", size);
	}
	printf("  node-%-3zu write %u ms, read %u ms, up %s/s, down %s/s%s  %s\n", i + 1, r->put_ms,
	       r->get_ms, up, down, room, c->place[i].url);
}

int create_report(const struct create *c)
{
	if (c->json) {
		json_t *urls = json_array(), *warnings = json_array();

		for (size_t i = 0; i < c->cnt; i++)
			json_array_append_new(urls, json_string(c->place[i].url));
		for (size_t i = 0; i < c->warning_cnt; i++)
			json_array_append_new(warnings, json_string(c->warning[i]));
		return cmd_print_json(json_pack(
			"{s:s, s:i, s:i, s:s, s:o, s:o, s:o}", "volume", c->name, "k", (int)c->k,
			"survives", (int)c->m, "kit", c->kit_path, "nodes", urls, "probe",
			probe_json(c), "warnings", warnings));
	}
	for (size_t i = 0; i < c->warning_cnt; i++)
		fprintf(stderr, "holdfast: create: warning: %s\n", c->warning[i]);
	printf("%s: %zu nodes, any %u of them may be lost\n", c->name, c->cnt, c->m);
	for (size_t i = 0; i < c->cnt && !c->trial; i++)
		show_node(c, i);
	printf("recovery kit: %s\n", c->kit_path);
	puts("Print it or copy it to a place that is not this machine, and keep it there: "
	     "without\n"
	     "it nothing can be recovered when this machine is lost.");
	printf("next: holdfast mount %s DIR\n", c->name);
	return fflush(stdout) ? EXIT_FAILED : EXIT_DONE;
}
