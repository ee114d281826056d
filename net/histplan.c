/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "net/histload.h"

#include <stdlib.h>
#include "net/gather.h"

#define GAP_LOOK 4096 /* how far beyond a chain's end a gap is looked for by name */
#define ODD_MAX	 4096 /* commits that belong to no chain and are looked at */

/* --- the names --- */

static int add_name(void *arg, const char *name, unsigned copies)
{
	struct load *l = arg;

	if (strlen(name) >= BLOB_NAME_CAP)
		return 0;
	if (l->name_cnt == l->name_cap) {
		size_t cap = HF_MAX(l->name_cap * 2, (size_t)256);
		struct listed *p = reallocarray(l->name, cap, sizeof *p);
		if (!p)
			return -ENOMEM;
		l->name = p;
		l->name_cap = cap;
	}
	strcpy(l->name[l->name_cnt].name, name);
	l->name[l->name_cnt++].copies = copies;
	return 0;
}

static int name_cmp(const void *a, const void *b)
{
	return strcmp(((const struct listed *)a)->name, ((const struct listed *)b)->name);
}

const struct listed *load_find(const struct load *l, uint16_t device, uint64_t seq)
{
	struct listed key = {0};

	keys_log_name(l->v->keys, 'c', device, seq, key.name);
	return l->name_cnt ? bsearch(&key, l->name, l->name_cnt, sizeof key, name_cmp) : NULL;
}

static int too_few(const struct load *l, const struct volume_view *view)
{
	struct buf missing = {0};
	struct node_info *info = malloc(sizeof *info);

	for (size_t i = 0; info && i < view->cnt; i++) {
		if (node_readable(l->v->node[i]) || node_member(l->v->node[i]) == NODE_GONE)
			continue;
		node_get_info(l->v->node[i], info);
		char text[128];
		int len = snprintf(text, sizeof text, "%s%u %s (%s)", missing.len ? ", " : "",
				   info->number, info->name, node_state_name(info->state));
		buf_put(&missing, text, HF_MIN((size_t)len, sizeof text - 1));
	}
	free(info);
	buf_u8(&missing, 0);
	bool named = !missing.err && missing.len > 1;
	log_msg(LOG_LVL_ERROR,
		"%u of %zu nodes answer, %zu are needed to be sure of the newest "
		"state%s%s",
		l->answered, view->members, view->need, named ? "; missing: " : "",
		named ? (const char *)missing.p : "");
	buf_release(&missing);
	return -ENODATA;
}

int load_list(struct load *l)
{
	struct volume *v = l->v;
	struct volume_view view = volume_view(v);

	int err = gather_list(v, "l/", &l->answered, add_name, l);
	if (err && err != -ENODATA && err != -EAGAIN)
		return err;
	if (l->answered < view.need)
		return too_few(l, &view);
	if (err)
		return err;
	if (l->name_cnt)
		qsort(l->name, l->name_cnt, sizeof *l->name, name_cmp);
	return 0;
}

/* --- objects --- */

struct want {
	const struct load *l;
	const char *name;
	struct hist_object obj; /* the one that verified */
	bool newer, stranger;
};

static int want_verify(void *arg, const void *p, size_t len)
{
	struct want *w = arg;
	struct hist_object o;

	int err = hist_object_open(w->l->v->keys, w->l->dev, w->l->dev_cnt, p, len, &o);
	w->newer |= err == -ENOTSUP;
	w->stranger |= err == -ENOKEY;
	if (err == -ENOKEY)
		return 0; /* the node is not to blame */
	if (err)
		return err;
	if (!hist_name_is(w->l->v->keys, &o.head, w->name)) {
		hist_object_release(&o);
		return -EBADMSG;
	}
	hist_object_release(&w->obj);
	w->obj = o;
	return 0;
}

int load_fetch(const struct load *l, const char *name, struct hist_object *out)
{
	struct want w = {.l = l, .name = name};
	struct buf b = {0};

	int err = gather_blob(l->v, name, COMMIT_CAP, want_verify, &w, &b);
	buf_release(&b);
	if (!err && !w.obj.head.device)
		err = -ENOKEY;
	if (err == -EBADMSG && w.newer)
		err = -ENOTSUP;
	if (err) {
		hist_object_release(&w.obj);
		return err;
	}
	*out = w.obj;
	return 0;
}

static int snap_cmp(const void *a, const void *b)
{
	const struct hist_head *x = &((const struct hist_object *)a)->head;
	const struct hist_head *y = &((const struct hist_object *)b)->head;

	if (x->lamport != y->lamport)
		return x->lamport > y->lamport ? -1 : 1;
	if (x->device != y->device)
		return x->device > y->device ? -1 : 1;
	return (x->seq < y->seq) - (x->seq > y->seq);
}

/*
 * Genuine, but by a device that the header given does not know: there is a newer header, and
 * what was written since it would be left out without a word.
 */
static int stranger(const char *name)
{
	return log_fail(-ESTALE,
			"%s is by a device without a certificate here: the nodes that answer show "
			"an old header of the volume; more nodes are needed",
			name);
}

int load_snapshots(struct load *l)
{
	size_t cnt = 0;

	for (size_t i = 0; i < l->name_cnt; i++)
		cnt += strncmp(l->name[i].name, "l/s", 3) == 0;
	if (!cnt)
		return 0;
	l->snap = calloc(cnt, sizeof *l->snap);
	if (!l->snap)
		return -ENOMEM;
	for (size_t i = 0; i < l->name_cnt; i++) {
		if (strncmp(l->name[i].name, "l/s", 3) != 0)
			continue;
		int err = load_fetch(l, l->name[i].name, &l->snap[l->snap_cnt]);
		if (err == -ENOMEM || err == -ECANCELED)
			return err;
		if (err == -ENOKEY)
			return stranger(l->name[i].name);
		if (err)
			log_warn("snapshot %s has no good copy (%s): the state may be older",
				 l->name[i].name, strerror(-err));
		else
			l->snap_cnt++;
	}
	qsort(l->snap, l->snap_cnt, sizeof *l->snap, snap_cmp);
	return 0;
}

/* --- devices that were taken over --- */

/* What this head saw of that device; 0 nothing. */
static uint64_t seen_of(const struct hist_head *h, uint16_t device)
{
	for (uint32_t i = 0; i < h->seen_cnt; i++)
		if (h->seen[i].device == device)
			return h->seen[i].seq;
	return 0;
}

/* The newest commit of a device that can be had; what is known of it goes into *low. */
static int newest_commit(struct load *l, const struct hist_state *st, uint16_t device,
			 uint64_t *low, struct hist_object *out)
{
	char name[BLOB_NAME_CAP];

	for (uint32_t i = 0; i < st->seen_cnt; i++)
		if (st->seen[i].device == device)
			*low = HF_MAX(*low, st->seen[i].seq);
	for (size_t i = 0; i < l->snap_cnt; i++) {
		const struct hist_head *h = &l->snap[i].head;
		*low = HF_MAX(*low, seen_of(h, device));
		if (h->device == device)
			*low = HF_MAX(*low, h->snap_to);
	}
	uint64_t end = *low;
	while (load_find(l, device, end + 1))
		end++;
	/* The last one may be one that was never published, and be damaged. */
	for (int i = 0; i < 2 && end && load_find(l, device, end); i++, end--) {
		keys_log_name(l->v->keys, 'c', device, end, name);
		int err = load_fetch(l, name, out);
		if (!err || err == -ENOMEM || err == -ECANCELED)
			return err ? err : 1;
	}
	return 0;
}

/* Snapshots that a device made of what it wrote after it was taken over. */
static void drop_late(struct load *l)
{
	size_t kept = 0;

	for (size_t i = 0; i < l->snap_cnt; i++) {
		struct hist_object *o = &l->snap[i];
		bool late = false;

		for (size_t d = 0; d < l->dev_cnt; d++)
			late |= l->dev[d].number == o->head.device &&
				o->head.snap_to > l->cap[d];
		if (late)
			hist_object_release(o);
		else
			l->snap[kept++] = *o;
	}
	l->snap_cnt = kept;
}

int load_caps(struct load *l, const struct hist_state *st)
{
	bool *told = calloc(HF_MAX(l->dev_cnt, (size_t)1), sizeof *told), live = false;
	bool any = false;

	l->cap = calloc(HF_MAX(l->dev_cnt, (size_t)1), sizeof *l->cap);
	if (!l->cap || !told) {
		free(told);
		return -ENOMEM;
	}
	for (size_t i = 0; i < l->dev_cnt; i++)
		any |= l->dev[i].retired;
	for (size_t e = 0; any && e < l->dev_cnt + l->snap_cnt; e++) {
		struct hist_object o = {0};
		const struct hist_head *h = &o.head;
		uint64_t low = 0;
		int got = 1;

		if (e < l->dev_cnt)
			got = newest_commit(l, st, l->dev[e].number, &low, &o);
		else
			h = &l->snap[e - l->dev_cnt].head;
		if (got < 0) {
			free(told);
			return got;
		}
		for (size_t d = 0; got && d < l->dev_cnt; d++) {
			uint64_t seq = seen_of(h, l->dev[d].number);
			if (l->dev[d].number == h->device) {
				live |= !l->dev[d].retired;
				continue;
			}
			told[d] |= seq > 0;
			l->cap[d] = HF_MAX(l->cap[d], seq);
		}
		hist_object_release(&o);
	}
	/*
	 * A device that is in use and says nothing of a retired one found nothing there when it
	 * took over; when none has written yet, nothing stands against what is there.
	 */
	for (size_t d = 0; d < l->dev_cnt; d++)
		if (!l->dev[d].retired || (!told[d] && !live))
			l->cap[d] = UINT64_MAX;
	free(told);
	drop_late(l);
	return 0;
}

/* --- a base --- */

void load_chains_free(struct load *l)
{
	for (size_t i = 0; i < l->chain_cnt; i++) {
		struct chain *c = &l->chain[i];
		for (uint64_t s = 0; c->obj && s < c->end - c->base.seq; s++) {
			if (c->obj[s])
				hist_object_release(c->obj[s]);
			free(c->obj[s]);
		}
		free(c->obj);
		free(c->hash);
	}
	free(l->chain);
	l->chain = NULL;
	l->chain_cnt = 0;
}

struct chain *load_chain(struct load *l, uint16_t device)
{
	for (size_t i = 0; i < l->chain_cnt; i++)
		if (l->chain[i].device == device)
			return &l->chain[i];
	return NULL;
}

static struct chain *chain_make(struct load *l, uint16_t device)
{
	struct chain *c = load_chain(l, device);

	if (!c) {
		c = &l->chain[l->chain_cnt++];
		*c = (struct chain){
			.device = device, .base.device = device, .cap = UINT64_MAX};
	}
	return c;
}

static int not_usable(struct load *l, const char *what, uint64_t seq, uint16_t device)
{
	snprintf(l->why, sizeof l->why, "%s: commit %llu of device %u is missing", what,
		 (unsigned long long)seq, device);
	return -EBADMSG;
}

/*
 * Every commit that a node lists must have its place in a chain: one that is beyond the end
 * says that what leads to it is gone.
 */
static int plan_odd(struct load *l)
{
	bool *known = calloc(HF_MAX(l->name_cnt, (size_t)1), sizeof *known);
	size_t left = 0, looked = 0;
	int err = known ? 0 : -ENOMEM;

	for (size_t i = 0; i < l->name_cnt; i++)
		left += strncmp(l->name[i].name, "l/c", 3) == 0;
	for (size_t i = 0; !err && i < l->chain_cnt; i++) {
		const struct chain *c = &l->chain[i];
		for (uint64_t s = c->end; s && left; s--) {
			const struct listed *n = load_find(l, c->device, s);
			left -= n != NULL;
			if (n)
				known[n - l->name] = true;
		}
	}
	for (size_t i = 0; !err && left && i < l->name_cnt && looked < ODD_MAX; i++) {
		struct hist_object o;

		if (known[i] || strncmp(l->name[i].name, "l/c", 3) != 0)
			continue;
		left--;
		looked++;
		int got = load_fetch(l, l->name[i].name, &o);
		if (got == -ENOMEM || got == -ECANCELED)
			err = got;
		if (got == -ENOKEY)
			err = stranger(l->name[i].name);
		if (got)
			continue; /* of no device of ours: its node was named */
		const struct chain *c = load_chain(l, o.head.device);
		if (!c || (o.head.seq > c->end && o.head.seq <= c->cap))
			err = not_usable(l, "a later commit is there", c ? c->end + 1 : 1,
					 o.head.device);
		hist_object_release(&o);
	}
	free(known);
	return err;
}

/* Follows the chains from this base. */
static int plan(struct load *l, const struct hist_seen *seen, size_t seen_cnt)
{
	load_chains_free(l);
	size_t max = l->dev_cnt + seen_cnt + 1;
	for (size_t i = 0; i < l->snap_cnt; i++)
		max += l->snap[i].head.seen_cnt;
	l->chain = calloc(max, sizeof *l->chain);
	if (!l->chain)
		return -ENOMEM;
	for (size_t i = 0; i < l->dev_cnt; i++)
		chain_make(l, l->dev[i].number)->cap = l->cap[i];
	for (size_t i = 0; i < seen_cnt; i++)
		chain_make(l, seen[i].device)->base = seen[i];
	for (size_t i = 0; i < l->chain_cnt; i++) {
		struct chain *c = &l->chain[i];
		for (c->end = c->base.seq;
		     c->end < c->cap && load_find(l, c->device, c->end + 1);)
			c->end++;
		c->used = c->asked = c->base.seq;
		memcpy(c->last_hash, c->base.hash, HASH_LEN);
		for (uint64_t s = c->end + 2; s < c->end + 2 + GAP_LOOK && s <= c->cap; s++)
			if (load_find(l, c->device, s))
				return not_usable(l, "a later commit is there", c->end + 1,
						  c->device);
	}
	for (size_t i = 0; i < l->snap_cnt; i++) {
		const struct hist_head *h = &l->snap[i].head;
		for (uint32_t j = 0; j < h->seen_cnt; j++) {
			const struct chain *c = load_chain(l, h->seen[j].device);
			uint64_t end = c ? c->end : 0;
			if (end < h->seen[j].seq)
				return not_usable(l, "a snapshot goes beyond what is there",
						  end + 1, h->seen[j].device);
		}
		/* It was stored after the commits that it needs had been published. */
		const struct chain *c = load_chain(l, h->device);
		uint64_t end = c ? c->end : 0;
		if (end < h->snap_to)
			return not_usable(l, "a snapshot needs more than is there", end + 1,
					  h->device);
	}
	int err = plan_odd(l);
	if (err)
		return err;
	for (size_t i = 0; i < l->chain_cnt; i++) {
		struct chain *c = &l->chain[i];
		size_t cnt = (size_t)(c->end - c->base.seq);
		c->obj = calloc(HF_MAX(cnt, (size_t)1), sizeof *c->obj);
		c->hash = calloc(HF_MAX(cnt, (size_t)1), sizeof *c->hash);
		if (!c->obj || !c->hash)
			return -ENOMEM;
	}
	return 0;
}

/* *snap: the base is this snapshot, which has to be handed out first; or NULL. */
int load_choose_base(struct load *l, const struct hist_state *st,
		     const struct hist_object **snap)
{
	char first[sizeof l->why] = "";
	int err;

	*snap = NULL;
	if (st->seen_cnt) {
		err = plan(l, st->seen, st->seen_cnt);
		if (err != -EBADMSG)
			return err;
		memcpy(first, l->why, sizeof first);
	}
	for (size_t i = 0; i < l->snap_cnt; i++) {
		const struct hist_head *h = &l->snap[i].head;
		err = plan(l, h->seen, h->seen_cnt);
		if (!err)
			*snap = &l->snap[i];
		if (err != -EBADMSG)
			return err;
		if (!first[0])
			memcpy(first, l->why, sizeof first);
	}
	err = plan(l, NULL, 0);
	if (err != -EBADMSG)
		return err;
	return log_fail(err, "rolled back or damaged: %s", first[0] ? first : l->why);
}

bool load_hash_fits(const struct chain *c, const struct hist_seen *s)
{
	static const uint8_t none[HASH_LEN];
	const uint8_t *have = NULL;

	if (s->seq == c->base.seq && s->seq)
		have = c->base.hash;
	else if (s->seq > c->base.seq && s->seq <= c->used)
		have = c->hash[s->seq - c->base.seq - 1];
	/* Older ones are below the base, newer ones are compared when they come. */
	if (!have || memcmp(have, none, HASH_LEN) == 0 || memcmp(s->hash, none, HASH_LEN) == 0)
		return true;
	return memcmp(have, s->hash, HASH_LEN) == 0;
}

int load_check_floor(struct load *l)
{
	for (size_t i = 0; i < l->floor_cnt; i++) {
		const struct hist_seen *f = &l->floor[i];
		const struct chain *c = load_chain(l, f->device);
		uint64_t end = c ? c->end : 0;
		if (end < f->seq)
			return log_fail(
				-ESTALE,
				"the nodes show an old state: device %u is at commit %llu, "
				"it was at %llu before",
				f->device, (unsigned long long)end, (unsigned long long)f->seq);
		if (c && !load_hash_fits(c, f))
			return log_fail(-EBADMSG,
					"commit %llu of device %u is not the one that was seen "
					"before: forked",
					(unsigned long long)f->seq, f->device);
	}
	return 0;
}
