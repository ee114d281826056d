/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "cache/member.h"

#include <stdlib.h>

static int put_node(struct store *st, const struct node_spec *n)
{
	sqlite3_stmt *q = store_stmt(
		st, "INSERT INTO node(number,url,member,chg) VALUES(?1,?2,1,?3) "
		    "ON CONFLICT(number) DO UPDATE SET url=excluded.url,chg=excluded.chg "
		    "WHERE url<>excluded.url");

	if (!q)
		return -EIO;
	sqlite3_bind_int64(q, 1, n->number);
	sqlite3_bind_text(q, 2, n->url, -1, SQLITE_STATIC);
	sqlite3_bind_int64(q, 3, (int64_t)st->epoch);
	return store_run(st, q);
}

int member_device_locked(struct store *st, const struct rec_device *d, uint64_t chg)
{
	static const uint8_t none[HASH_LEN];
	sqlite3_stmt *q = store_stmt(
		st, "INSERT INTO device(number,role,ed_pk,cert,seq,hash,chg) "
		    "VALUES(?1,?2,?3,?4,0,?5,?6) ON CONFLICT(number) DO UPDATE SET "
		    "role=excluded.role,ed_pk=excluded.ed_pk,cert=excluded.cert,chg=excluded.chg "
		    "WHERE role<>excluded.role OR cert<>excluded.cert");

	if (!q)
		return -EIO;
	sqlite3_bind_int64(q, 1, d->number);
	sqlite3_bind_int(q, 2, d->role);
	sqlite3_bind_blob(q, 3, d->ed_pk, sizeof d->ed_pk, SQLITE_STATIC);
	sqlite3_bind_blob(q, 4, d->cert, sizeof d->cert, SQLITE_STATIC);
	sqlite3_bind_blob(q, 5, none, sizeof none, SQLITE_STATIC);
	sqlite3_bind_int64(q, 6, (int64_t)chg);
	return store_run(st, q);
}

int member_put(struct store *st, const struct node_spec *node, size_t node_cnt,
	       const struct rec_device *device, size_t device_cnt)
{
	int err = 0;

	pthread_mutex_lock(&st->meta);
	for (size_t i = 0; i < node_cnt && !err; i++)
		err = put_node(st, &node[i]);
	for (size_t i = 0; i < device_cnt && !err; i++)
		err = member_device_locked(st, &device[i], st->epoch);
	pthread_mutex_unlock(&st->meta);
	return err;
}

int member_url(struct store *st, uint16_t number, char **url)
{
	*url = NULL;
	pthread_mutex_lock(&st->meta);
	sqlite3_stmt *q = store_stmt(st, "SELECT url FROM node WHERE number=?1 AND member<>3");
	int r = -EIO;

	if (q) {
		sqlite3_bind_int64(q, 1, number);
		r = store_step(st, q);
		if (r == 1) {
			const char *text = (const char *)sqlite3_column_text(q, 0);

			*url = text ? strdup(text) : NULL;
			r = *url ? 0 : -ENOMEM;
		} else if (!r) {
			r = -ENOENT;
		}
		sqlite3_reset(q);
	}
	pthread_mutex_unlock(&st->meta);
	return r;
}

/* --- rows --- */

void member_list_free(struct node_spec *list, size_t cnt)
{
	for (size_t i = 0; i < cnt; i++)
		free(list[i].url);
	free(list);
}

int member_list_locked(struct store *st, struct node_spec **out, size_t *cnt)
{
	sqlite3_stmt *q = store_stmt(st, "SELECT number,url,member FROM node ORDER BY number");
	size_t cap = 0;
	int more, r = 0;

	*out = NULL;
	*cnt = 0;
	if (!q)
		return -EIO;
	while (!r && (more = store_step(st, q)) == 1) {
		const char *url = (const char *)sqlite3_column_text(q, 1);

		if (*cnt == cap) {
			cap = cap ? 2 * cap : 16;
			struct node_spec *p = reallocarray(*out, cap, sizeof *p);

			if (!p) {
				r = -ENOMEM;
				break;
			}
			*out = p;
		}
		struct node_spec *n = &(*out)[*cnt];

		*n = (struct node_spec){.number = (uint16_t)sqlite3_column_int(q, 0),
					.member = (uint8_t)sqlite3_column_int(q, 2),
					.url = strdup(url ? url : "")};
		if (!n->url)
			r = -ENOMEM;
		else
			(*cnt)++;
	}
	sqlite3_reset(q);
	if (!r && more < 0)
		r = more;
	if (r) {
		member_list_free(*out, *cnt);
		*out = NULL;
		*cnt = 0;
	}
	return r;
}

int member_list(struct store *st, struct node_spec **out, size_t *cnt)
{
	pthread_mutex_lock(&st->meta);
	int r = member_list_locked(st, out, cnt);

	pthread_mutex_unlock(&st->meta);
	return r;
}

int member_set_locked(struct store *st, uint16_t number, const char *url, uint8_t member)
{
	sqlite3_stmt *q = store_stmt(
		st, "INSERT INTO node(number,url,member,chg) VALUES(?1,coalesce(?2,''),?3,?4) "
		    "ON CONFLICT(number) DO UPDATE SET url=coalesce(?2,url),member=?3,chg=?4");

	if (!q)
		return -EIO;
	sqlite3_bind_int64(q, 1, number);
	sqlite3_bind_text(q, 2, url, -1, SQLITE_STATIC);
	sqlite3_bind_int(q, 3, member);
	sqlite3_bind_int64(q, 4, (int64_t)st->epoch);
	return store_run(st, q);
}

int member_take_roster(struct store *st, const struct roster *r)
{
	struct node_spec *list;
	size_t cnt;

	pthread_mutex_lock(&st->meta);
	int err = member_list_locked(st, &list, &cnt);

	/* A node that was begun to be added, and is in no roster, never held anything. */
	for (size_t i = 0; i < cnt && !err; i++) {
		bool named = false;

		for (size_t j = 0; j < r->node_cnt; j++)
			named |= r->node[j].number == list[i].number;
		sqlite3_stmt *q = named ? NULL
					: store_stmt(st, "DELETE FROM node WHERE number=?1");
		if (!named && !q)
			err = -EIO;
		if (q) {
			sqlite3_bind_int64(q, 1, list[i].number);
			err = store_run(st, q);
		}
	}
	for (size_t i = 0; i < r->node_cnt && !err; i++)
		err = member_set_locked(st, r->node[i].number, (const char *)r->node[i].url,
					r->node[i].member);
	if (!err)
		err = member_keep_roster_locked(st, r);
	pthread_mutex_unlock(&st->meta);
	member_list_free(list, cnt);
	return err ? err : store_commit(st);
}

/* --- settings --- */

static void key_of(const char *name, uint16_t number, char out[32])
{
	if (number)
		snprintf(out, 32, "%s_%u", name, number);
	else
		snprintf(out, 32, "%s", name);
}

uint64_t member_kv_locked(struct store *st, const char *name, uint16_t number)
{
	uint64_t v = 0;
	char key[32];

	key_of(name, number, key);
	return store_get_u64(st, key, &v) ? 0 : v;
}

int member_put_kv_locked(struct store *st, const char *name, uint16_t number, uint64_t value)
{
	char key[32];

	key_of(name, number, key);
	return store_put_u64(st, key, value);
}

int member_keep_roster_locked(struct store *st, const struct roster *r)
{
	struct buf b = {0};

	buf_u64(&b, r->generation);
	for (size_t i = 0; i < r->node_cnt; i++) {
		buf_u16(&b, r->node[i].number);
		buf_u8(&b, r->node[i].member);
	}
	int err = b.err ? b.err : store_put_blob(st, "roster", b.p, b.len);

	buf_release(&b);
	return err;
}

int member_roster_locked(struct store *st, struct roster *out)
{
	struct buf b = {0};

	*out = (struct roster){0};
	int err = store_get_blob(st, "roster", &b);
	struct rd r = rd_over(b.p, b.len);

	if (!err) {
		out->generation = rd_u64(&r);
		if (r.bad || rd_left(&r) % 3)
			err = log_fail(-EBADMSG, "the database's list of members is damaged");
	}
	while (!err && rd_left(&r)) {
		uint16_t number = rd_u16(&r);
		uint8_t member = rd_u8(&r);

		err = roster_add(out, number, member, "");
	}
	buf_release(&b);
	if (err)
		roster_release(out);
	return err;
}

int member_specs(struct store *st, struct node_spec **out, size_t *cnt)
{
	struct roster was;
	size_t kept = 0;

	pthread_mutex_lock(&st->meta);
	int err = member_list_locked(st, out, cnt);
	int none = err ? err : member_roster_locked(st, &was);
	bool due = member_kv_locked(st, "roster_due", 0) != 0;

	pthread_mutex_unlock(&st->meta);
	if (err || (none && none != -ENOENT))
		return err ? err : none;
	for (size_t i = 0; i < *cnt; i++) {
		struct node_spec *n = &(*out)[i];
		bool known = none || roster_has(&was, n->number);

		if (n->member == NODE_GONE && due && !none && known)
			n->member = NODE_LEAVING;
		if (n->member == NODE_GONE || (due && !known))
			free(n->url);
		else
			(*out)[kept++] = *n;
	}
	*cnt = kept;
	roster_release(&was);
	return 0;
}

int member_seen_locked(struct store *st, struct hist_head *h)
{
	sqlite3_stmt *q = store_stmt(st, "SELECT number,seq,hash FROM device WHERE seq>0 AND "
					 "number<>?1 ORDER BY number");
	size_t cap = h->seen_cnt;
	int more;

	if (!q)
		return -EIO;
	sqlite3_bind_int64(q, 1, st->device);
	while ((more = store_step(st, q)) == 1) {
		if (h->seen_cnt == cap) {
			cap = cap ? 2 * cap : 8;
			struct hist_seen *p = reallocarray(h->seen, cap, sizeof *p);

			if (!p) {
				more = -ENOMEM;
				break;
			}
			h->seen = p;
		}
		struct hist_seen *d = &h->seen[h->seen_cnt++];

		*d = (struct hist_seen){.device = (uint16_t)sqlite3_column_int(q, 0),
					.seq = (uint64_t)sqlite3_column_int64(q, 1)};
		if (sqlite3_column_bytes(q, 2) == HASH_LEN)
			memcpy(d->hash, sqlite3_column_blob(q, 2), HASH_LEN);
	}
	sqlite3_reset(q);
	return more < 0 ? more : 0;
}
