/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "cache/older.h"

#include <stdlib.h>

#define ASK_MS	   20000
#define MARK_S	   (24 * 3600)
#define MAGIC	   "HFEPOCH1"
#define EPOCH_LEN  (8 + 2 + 2 + 8)

static void key_of(const struct node *n, const char *what, char out[32])
{
	snprintf(out, 32, "%s_%u", what, node_number(n));
}

static uint64_t get(struct store *st, const char *key)
{
	uint64_t v = 0;

	pthread_mutex_lock(&st->meta);
	if (store_get_u64(st, key, &v))
		v = 0;
	pthread_mutex_unlock(&st->meta);
	return v;
}

static int put(struct store *st, const char *key, uint64_t v)
{
	pthread_mutex_lock(&st->meta);
	int err = store_put_u64(st, key, v);
	pthread_mutex_unlock(&st->meta);
	return err;
}

/* The name is what proves; the bytes are there so that the blob has some. */
static void bytes_of(const struct store *st, const struct node *n, uint64_t time,
		     uint8_t out[EPOCH_LEN])
{
	memcpy(out, MAGIC, 8);
	put_le16(out + 8, st->device);
	put_le16(out + 10, node_number(n));
	put_le64(out + 12, time);
}

static int ask(struct node *n, struct node_io *io, struct node_io **out)
{
	struct node_wait w;

	*out = NULL;
	if (!io)
		return -ENOMEM;
	io->deadline_ms = now_ms() + ASK_MS;
	node_wait_init(&w);
	node_wait_submit(&w, n, io);
	*out = node_wait_next(&w, now_ms() + 2 * ASK_MS);
	node_wait_release(&w);
	return *out ? (*out)->err : -ETIMEDOUT;
}

int older_ask(struct store *st, struct node *n)
{
	char key[32], name[BLOB_NAME_CAP];
	uint8_t right[EPOCH_LEN];
	struct node_io *io;

	key_of(n, "epoch", key);
	uint64_t time = get(st, key);
	if (!time)
		return 0;
	keys_epoch_name(st->vol->keys, st->device, node_number(n), time, name);
	io = node_io_new(NODE_GET, name);
	if (io)
		io->len = EPOCH_LEN + 1;
	int err = ask(n, io, &io);
	bytes_of(st, n, time, right);
	if (!err && (io->got != EPOCH_LEN || memcmp(io->buf, right, EPOCH_LEN) != 0)) {
		node_lied(n, name);
		err = -ENOENT;
	}
	node_io_unref(io);
	if (err != -ENOENT)
		return err;
	node_note(n, "an older copy of this node is back: what it lacks is stored again");
	return 1;
}

int older_check(struct publisher *p, struct node *n)
{
	return p->opts.skip_older ? 0 : older_ask(p->st, n);
}

static void wipe(struct node *n, struct publisher *p, uint64_t time)
{
	char name[BLOB_NAME_CAP];
	struct node_io *io;

	if (!time)
		return;
	keys_epoch_name(p->st->vol->keys, p->st->device, node_number(n), time, name);
	/* One that stays does no harm. */
	ask(n, node_io_new(NODE_DEL, name), &io);
	node_io_unref(io);
}

int older_mark(struct publisher *p, struct node *n, bool always)
{
	char key[32], before_key[32], name[BLOB_NAME_CAP];
	uint64_t now = (uint64_t)(realtime_ns() / 1000000000);
	struct node_io *io;

	key_of(n, "epoch", key);
	key_of(n, "epoch_was", before_key);
	uint64_t last = get(p->st, key), before = get(p->st, before_key);
	if (!always && now >= last && now - last < MARK_S)
		return 0;
	/* A clock that went back must not write a name again that an old copy may have. */
	uint64_t time = HF_MAX(now, last + 1);
	keys_epoch_name(p->st->vol->keys, p->st->device, node_number(n), time, name);
	io = node_io_new(NODE_PUT, name);
	/* With the io, which a PUT that hangs outlives this call with. */
	if (io && !(io->buf = malloc(EPOCH_LEN))) {
		node_io_unref(io);
		io = NULL;
	}
	if (io) {
		bytes_of(p->st, n, time, io->buf);
		io->iov[0] = (struct iovec){io->buf, EPOCH_LEN};
		io->iov_cnt = 1;
	}
	int err = ask(n, io, &io);
	node_io_unref(io);
	if (err)
		return err;
	/*
	 * A crash before the next COMMIT leaves the last one known: it stays until the next
	 * time.
	 */
	err = put(p->st, key, time);
	if (!err)
		err = put(p->st, before_key, last);
	if (!err)
		wipe(n, p, before);
	return err;
}
