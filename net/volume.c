/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "net/volume.h"

#include <stdlib.h>
#include "net/cond.h"
#include "net/gather.h"
#include "net/giveup.h"
#include "net/spread.h"

#define STRIPES		 5 /* one that fills, two on their way, two left behind */
#define VERIFY_MS	 5000 /* how long one verification may take */
#define LOOK_MS		 3000 /* and before a read fails */
#define MOMENT_MS	 10000 /* as long as a server takes to be restarted */
#define CHECK_MS	 5000 /* how often a node that is well is verified */
#define RETRY_MIN_MS	 1000
#define RETRY_MAX_MS	 60000

static void node_changed(struct node *n, void *arg)
{
	struct volume *v = arg;

	(void)n;
	pthread_mutex_lock(&v->lock);
	pthread_cond_broadcast(&v->known);
	void (*changed)(void *) = v->changed;
	void *changed_arg = v->changed_arg;
	pthread_mutex_unlock(&v->lock);
	if (changed)
		changed(changed_arg);
	/* The watcher looks at the new state for when to verify next. */
	node_wait_poke(&v->watch_wait);
}

int volume_open(struct volume **out, struct keys *keys, unsigned k, unsigned m,
		const struct node_spec *spec, size_t spec_cnt, struct creds *creds)
{
	int err;

	*out = NULL;
	if (k < 1 || k > EC_MAX || m > EC_MAX - k)
		return log_fail(-EINVAL, "a volume of %u + %u shards: at most %d together", k, m,
				EC_MAX);
	struct volume *v = calloc(1, sizeof *v);
	if (!v)
		return -ENOMEM;
	pthread_mutex_init(&v->lock, NULL);
	pthread_mutex_init(&v->login, NULL);
	cond_init(&v->known);
	node_wait_init(&v->watch_wait);
	v->k = k;
	v->m = m;
	v->quorum = volume_quorum_of(k, m);
	v->shard_quorum = m > 1 ? k + 1 : k;
	v->moment_ms = MOMENT_MS;
	v->node_cap = VOLUME_NODES_MAX;
	v->node = calloc(v->node_cap, sizeof *v->node);
	err = v->node ? 0 : -ENOMEM;
	if (!err && spec_cnt > v->node_cap)
		err = log_fail(-EINVAL, "a volume of %zu nodes: at most %zu", spec_cnt,
			       v->node_cap);
	for (size_t i = 0; i < spec_cnt && !err; i++) {
		if (spec[i].number == NODE_NONE || volume_node(v, spec[i].number))
			err = log_fail(-EINVAL, "node number %u is listed twice or is reserved",
				       spec[i].number);
		else
			err = node_open(&v->node[i], spec[i].number, spec[i].url, creds);
		if (!err) {
			if (spec[i].member)
				node_set_member(v->node[i], spec[i].member);
			v->node_cnt++;
			node_on_change(v->node[i], node_changed, v);
		}
	}
	if (!err)
		err = seg_pool_new(&v->pool, k, m, STRIPES);
	if (!err)
		err = gather_new(&v->gather, v);
	if (err) {
		volume_close(v);
		return err;
	}
	v->keys = keys;
	v->creds = creds;
	creds_ref(creds);
	*out = v;
	return 0;
}

/* Verifies those of the nodes in parallel until the deadline: 0, -ENOMEM. */
static int verify_some(struct volume *v, bool (*which)(struct node *n), int64_t deadline_ms)
{
	struct node_wait w;
	struct node_io *io;
	int err = 0;

	node_wait_init(&w);
	for (size_t i = 0, cnt = volume_nodes(v); i < cnt && !err; i++) {
		if (!which(v->node[i]))
			continue;
		io = node_verify_io(deadline_ms);
		if (!io) {
			err = -ENOMEM;
			break;
		}
		io->tag = (unsigned)i;
		node_wait_submit(&w, v->node[i], io);
	}
	/* Each comes back at its own deadline at the latest, which is this one. */
	while (!err && w.pending) {
		io = node_wait_next(&w, deadline_ms + VERIFY_MS);
		if (!io)
			break;
		node_verify_end(v->node[io->tag], keys_vol(v->keys), io);
		node_io_unref(io);
	}
	node_wait_release(&w);
	return err;
}

static bool is_member(struct node *n)
{
	return node_member(n) != NODE_GONE;
}

static bool is_away(struct node *n)
{
	return is_member(n) && !node_readable(n);
}

int volume_verify(struct volume *v, int64_t deadline_ms)
{
	int err = verify_some(v, is_member, deadline_ms);

	pthread_mutex_lock(&v->lock);
	v->verified = true;
	pthread_cond_broadcast(&v->known);
	pthread_mutex_unlock(&v->lock);
	return err ? err : (int)volume_readable(v);
}

/* Under v->lock, until somebody tells or that time: 0, ETIMEDOUT. */
static int wait_locked(struct volume *v, int64_t until_ms)
{
	return cond_until(&v->known, &v->lock, until_ms);
}

void volume_look(struct volume *v, int64_t deadline_ms)
{
	int rc = 0;

	giveup_begin(&v->lock, &v->known);
	pthread_mutex_lock(&v->lock);
	while (v->looking && !v->stopping && !rc && !giveup_over())
		rc = wait_locked(v, deadline_ms);
	int64_t now = now_ms();
	bool known = v->looked_ms && now - v->looked_ms <= v->looked_ms - v->look_ms;
	bool look = !rc && !known && !v->stopping && !v->skip_look && now < deadline_ms &&
		    !giveup_over();
	if (look) {
		v->looking = true;
		v->look_ms = now;
	}
	pthread_mutex_unlock(&v->lock);
	giveup_end();
	if (!look)
		return;
	/* What could not be asked for want of memory stays what it was. */
	verify_some(v, is_away, HF_MIN(now + LOOK_MS, deadline_ms));
	pthread_mutex_lock(&v->lock);
	v->looking = false;
	v->looked_ms = now_ms();
	pthread_cond_broadcast(&v->known);
	pthread_mutex_unlock(&v->lock);
}

bool volume_pause(struct volume *v, int64_t until_ms)
{
	giveup_begin(&v->lock, &v->known);
	pthread_mutex_lock(&v->lock);
	if (!v->stopping && !giveup_over())
		wait_locked(v, until_ms);
	bool open = !v->stopping;
	pthread_mutex_unlock(&v->lock);
	giveup_end();
	return open;
}

void volume_set_creds(struct volume *v, struct creds *creds)
{
	creds_ref(creds);
	pthread_mutex_lock(&v->lock);
	struct creds *old = v->creds;
	v->creds = creds;
	pthread_mutex_unlock(&v->lock);
	creds_unref(old);
}

int volume_login(struct volume *v, struct creds *creds)
{
	int err = 0;

	pthread_mutex_lock(&v->login);
	volume_set_creds(v, creds);
	for (size_t i = 0, cnt = volume_nodes(v); i < cnt && !err; i++)
		err = node_login(v->node[i], creds);
	pthread_mutex_unlock(&v->login);
	volume_poke(v);
	return err;
}

struct creds *volume_creds(struct volume *v)
{
	pthread_mutex_lock(&v->lock);
	struct creds *c = v->creds;
	creds_ref(c);
	pthread_mutex_unlock(&v->lock);
	return c;
}

bool volume_known(struct volume *v)
{
	pthread_mutex_lock(&v->lock);
	bool known = v->verified;
	pthread_mutex_unlock(&v->lock);
	return known;
}

int volume_await(struct volume *v, unsigned need, int64_t deadline_ms)
{
	int rc = 0;

	if (volume_readable(v) >= need)
		return 0;
	giveup_begin(&v->lock, &v->known);
	pthread_mutex_lock(&v->lock);
	while (!v->verified && !v->stopping && !rc && volume_readable(v) < need && !giveup_over())
		rc = wait_locked(v, deadline_ms);
	pthread_mutex_unlock(&v->lock);
	giveup_end();
	if (volume_readable(v) >= need)
		return 0;
	return giveup_over() ? giveup_over() : -ENODATA;
}

/* --- the watcher --- */

struct watched {
	bool asked;
	enum node_state state; /* as of when `next_ms` was chosen */
	int64_t next_ms, backoff_ms;
};

static void plan(struct volume *v, struct watched *a, size_t i, int err)
{
	a->state = node_state(v->node[i]);
	if (err == -ETIMEDOUT)
		a->backoff_ms = HF_MIN(a->backoff_ms * 2, (int64_t)RETRY_MAX_MS);
	else
		a->backoff_ms = RETRY_MIN_MS;
	bool well = a->state != NODE_DOWN && a->state != NODE_WRONG && a->state != NODE_SLOW;
	a->next_ms = now_ms() + (well ? CHECK_MS : a->backoff_ms);
}

/* Asks the nodes whose time has come; returns when the next one's comes. */
static int64_t ask(struct volume *v, struct watched *all, bool poked)
{
	int64_t now = now_ms(), next = now + CHECK_MS;

	for (size_t i = 0, cnt = volume_nodes(v); i < cnt; i++) {
		struct watched *a = &all[i];
		if (a->asked || node_member(v->node[i]) == NODE_GONE)
			continue;
		if (!a->backoff_ms)
			plan(v, a, i, 0); /* it came since */
		/* It changed between: down nodes are looked at sooner than well ones. */
		if (node_state(v->node[i]) != a->state)
			plan(v, a, i, 0);
		if (!poked && a->next_ms > now) {
			next = HF_MIN(next, a->next_ms);
			continue;
		}
		struct node_io *io = node_verify_io(now + VERIFY_MS);
		if (!io)
			continue;
		io->tag = (unsigned)i;
		a->asked = true;
		node_wait_submit(&v->watch_wait, v->node[i], io);
	}
	return next;
}

static void *watch_main(void *arg)
{
	struct volume *v = arg;
	struct watched *all = calloc(v->node_cap, sizeof *all);

	while (all) {
		pthread_mutex_lock(&v->lock);
		bool stop = v->stopping, poked = v->poked;
		v->poked = false;
		pthread_mutex_unlock(&v->lock);
		if (stop)
			break;
		struct node_io *io = node_wait_next(&v->watch_wait, ask(v, all, poked));
		if (!io)
			continue;
		size_t i = io->tag;
		int err = node_verify_end(v->node[i], keys_vol(v->keys), io);
		all[i].asked = false;
		plan(v, &all[i], i, err);
		node_io_unref(io);
	}
	free(all);
	return NULL;
}

int volume_start(struct volume *v, void (*changed)(void *arg), void *arg)
{
	pthread_mutex_lock(&v->lock);
	v->changed = changed;
	v->changed_arg = arg;
	pthread_mutex_unlock(&v->lock);
	int err = -pthread_create(&v->watch, NULL, watch_main, v);
	if (err)
		return log_fail(err, "cannot start the thread that watches the nodes: %s",
				strerrordesc_np(-err));
	pthread_setname_np(v->watch, "hf-watch");
	v->watching = true;
	return 0;
}

void volume_poke(struct volume *v)
{
	pthread_mutex_lock(&v->lock);
	v->poked = true;
	pthread_mutex_unlock(&v->lock);
	node_wait_poke(&v->watch_wait);
}

void volume_quiet(struct volume *v)
{
	pthread_mutex_lock(&v->lock);
	v->stopping = true;
	v->changed = NULL;
	pthread_cond_broadcast(&v->known);
	pthread_mutex_unlock(&v->lock);
	for (size_t i = 0, cnt = volume_nodes(v); i < cnt; i++)
		node_quiet(v->node[i]);
	node_wait_poke(&v->watch_wait);
}

void volume_close(struct volume *v)
{
	if (!v)
		return;
	pthread_mutex_lock(&v->lock);
	v->stopping = true;
	v->changed = NULL;
	pthread_cond_broadcast(&v->known);
	pthread_mutex_unlock(&v->lock);
	if (v->watching) {
		node_wait_poke(&v->watch_wait);
		pthread_join(v->watch, NULL);
	}
	if (v->pool)
		seg_pool_stop(v->pool);
	/* What goes on in the background ends first: it uses nodes. */
	for (size_t i = 0; i < v->node_cnt; i++)
		node_quiet(v->node[i]);
	if (v->gather)
		gather_stop(v->gather);
	for (size_t i = 0; i < v->node_cnt; i++)
		node_close(v->node[i]);
	node_wait_release(&v->watch_wait);
	spread_forget(v);
	gather_free(v->gather);
	/* All PUTs have let their stripes go by now. */
	if (v->pool)
		seg_pool_free(v->pool);
	keys_free(v->keys);
	creds_unref(v->creds);
	free(v->node);
	pthread_cond_destroy(&v->known);
	pthread_mutex_destroy(&v->lock);
	pthread_mutex_destroy(&v->login);
	free(v);
}

/* --- what is there --- */

struct node *volume_node(struct volume *v, unsigned number)
{
	for (size_t i = 0, cnt = volume_nodes(v); i < cnt; i++)
		if (node_number(v->node[i]) == number)
			return v->node[i];
	return NULL;
}

int volume_add(struct volume *v, struct node *n)
{
	/* It was opened before, and others may hold since. */
	pthread_mutex_lock(&v->login);
	struct creds *creds = volume_creds(v);
	int err = node_login(n, creds);

	creds_unref(creds);
	if (err) {
		pthread_mutex_unlock(&v->login);
		return err;
	}
	pthread_mutex_lock(&v->lock);
	size_t cnt = volume_nodes(v);
	if (v->stopping)
		err = -ECANCELED;
	else if (cnt == v->node_cap)
		err = -ENOSPC;
	else if (node_number(n) == NODE_NONE || volume_node(v, node_number(n)))
		err = -EINVAL;
	if (!err) {
		node_on_change(n, node_changed, v);
		v->node[cnt] = n;
		/* Released after the pointer: who sees the count sees the node. */
		atomic_store(&v->node_cnt, cnt + 1);
	}
	pthread_mutex_unlock(&v->lock);
	pthread_mutex_unlock(&v->login);
	if (!err)
		node_changed(n, v);
	return err;
}

size_t volume_nodes(const struct volume *v)
{
	return atomic_load(&v->node_cnt);
}

struct volume_view volume_view(const struct volume *v)
{
	struct volume_view view = {.cnt = volume_nodes(v)};

	for (size_t i = 0; i < view.cnt; i++)
		view.members += node_member(v->node[i]) != NODE_GONE;
	view.need = view.members - HF_MIN((size_t)v->quorum, view.members) + 1;
	return view;
}

size_t volume_members(const struct volume *v)
{
	return volume_view(v).members;
}

unsigned volume_usable(struct volume *v)
{
	unsigned cnt = 0;

	for (size_t i = 0, all = volume_nodes(v); i < all; i++)
		cnt += node_usable(v->node[i]);
	return cnt;
}

unsigned volume_writable(struct volume *v)
{
	unsigned cnt = 0;

	for (size_t i = 0, all = volume_nodes(v); i < all; i++)
		cnt += node_writable(v->node[i]);
	return cnt;
}

unsigned volume_readable(struct volume *v)
{
	unsigned cnt = 0;

	for (size_t i = 0, all = volume_nodes(v); i < all; i++)
		cnt += node_readable(v->node[i]);
	return cnt;
}

int volume_place(struct volume *v, const struct seg_id *seg, const bool skip[], uint16_t out[])
{
	size_t all = volume_nodes(v), members = 0;
	struct place_node *p = calloc(HF_MAX(all, (size_t)1), sizeof *p);

	if (!p)
		return -ENOMEM;
	/* A node that is down keeps its turn for when it is back; one on its way out has none. */
	for (size_t i = 0; i < all; i++) {
		if (node_member(v->node[i]) != NODE_MEMBER)
			continue;
		p[members++] = (struct place_node){
			.node = node_number(v->node[i]),
			.weight = 1,
			.domain = node_domain(v->node[i]),
			.usable = (!skip || !skip[i]) && node_usable(v->node[i]),
		};
	}
	int cnt = place_shards(seg, p, members, v->k, v->m, out);
	free(p);
	return cnt;
}

void volume_space(struct volume *v, uint64_t *free_bytes, uint64_t *total_bytes)
{
	struct node_info *info = malloc(sizeof *info);
	size_t all = volume_nodes(v);
	uint64_t *medium = calloc(HF_MAX(all, (size_t)1), sizeof *medium);
	uint64_t f = 0, t = 0;

	for (size_t i = 0; info && medium && i < all; i++) {
		if (node_member(v->node[i]) != NODE_MEMBER)
			continue;
		node_get_info(v->node[i], info);
		bool seen = false;
		for (size_t j = 0; j < i && info->medium; j++)
			seen |= medium[j] == info->medium;
		medium[i] = info->medium;
		if (seen)
			continue;
		f += info->free_bytes;
		t += info->total_bytes;
	}
	free(medium);
	free(info);
	*free_bytes = f / (v->k + v->m) * v->k;
	*total_bytes = t / (v->k + v->m) * v->k;
}
