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
