/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The model.  Each client has a directory of its own and does one thing after the other there;
 * clients run beside each other.  Of each file the model knows the bytes as they are, as the
 * last successful sync left them, and every change since.  Of each client it knows the hash of
 * its whole directory at every moment, that is, between any two of its operations.
 *
 *   a read            exactly those bytes, or an error
 *   after a crash     names as of one moment, none older than the last sync; each byte one that
 *                     was written there since the file's last sync, or that one
 *   after recovery    a directory as of one moment, none older than the last acknowledged
 *                     publication
 */
#include "sim.h"

#include <fcntl.h>
#include <stdlib.h>
#include "cache/data.h"
#include "cache/meta.h"
#include "cache/publish.h"

#define UNKNOWN UINT64_MAX

struct change {
	uint64_t off, len; /* bytes; p NULL: zeros */
	const uint8_t *p;
	uint64_t size; /* afterwards */
};

struct file {
	uint64_t ino; /* UNKNOWN until its creation has returned */
	uint64_t size, stable_size;
	uint32_t mode;
	uint8_t *now, *stable; /* SIM_FILE_CAP bytes, zero beyond the size */
	struct change *change; /* since stable */
	size_t cnt, cap;
	uint64_t hash, cut; /* the newest cut when it was changed last */
	bool hashed;
};

struct moment {
	uint64_t hash;
	struct file *name[SIM_FILES];
	bool never; /* what would have made it failed */
};

struct client {
	uint64_t dir;
	struct file *name[SIM_FILES];
	struct moment *m;
	size_t cnt, cap;
	size_t durable, published; /* no older moment may be found: here, on the nodes */
};

/* --- hashes --- */

static uint64_t mix(uint64_t h, uint64_t x)
{
	h = (h ^ x) * 0x9e3779b97f4a7c15u;
	return h ^ h >> 29;
}

static uint64_t hash_data(const uint8_t *p, uint64_t len)
{
	uint64_t h = len, x;

	for (; len >= 8; len -= 8, p += 8) {
		memcpy(&x, p, 8);
		h = mix(h, x);
	}
	for (; len; len--)
		h = mix(h, *p++);
	return h;
}

static uint64_t hash_file(unsigned name, uint64_t size, uint32_t mode, uint64_t data)
{
	return mix(mix(mix(mix(1, name), size), mode), data);
}

static uint64_t hash_client(struct client *c)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < SIM_FILES; i++) {
		struct file *f = c->name[i];

		if (!f)
			continue;
		if (!f->hashed)
			f->hash = hash_data(f->now, f->size);
		f->hashed = true;
		sum += hash_file(i, f->size, f->mode, f->hash);
	}
	return sum;
}

static struct moment *moment(struct client *c)
{
	if (c->cnt == c->cap) {
		size_t cap = c->cap ? 2 * c->cap : 64;
		struct moment *m = world_alloc(cap * sizeof *m);

		if (c->cnt)
			memcpy(m, c->m, c->cnt * sizeof *m);
		c->m = m;
		c->cap = cap;
	}
	struct moment *m = &c->m[c->cnt++];
	*m = (struct moment){.hash = hash_client(c)};
	memcpy(m->name, c->name, sizeof m->name);
	return m;
}

/* --- the model's own changes --- */

static struct file *file_new(uint32_t mode)
{
	struct file *f = world_alloc(sizeof *f);

	*f = (struct file){.ino = UNKNOWN,
			   .mode = mode,
			   .now = world_alloc(SIM_FILE_CAP),
			   .stable = world_alloc(SIM_FILE_CAP)};
	return f;
}

static void changed(struct file *f, uint64_t off, uint64_t len, const uint8_t *p, uint64_t size)
{
	if (f->cnt == f->cap) {
		size_t cap = f->cap ? 2 * f->cap : 16;
		struct change *n = world_alloc(cap * sizeof *n);

		if (f->cnt)
			memcpy(n, f->change, f->cnt * sizeof *n);
		f->change = n;
		f->cap = cap;
	}
	f->change[f->cnt++] = (struct change){off, len, p, size};
	if (p && len)
		memcpy(f->now + off, p, len);
	else if (len)
		memset(f->now + off, 0, len);
	if (size < f->size)
		memset(f->now + size, 0, f->size - size);
	f->size = size;
	f->hashed = false;
	f->cut = w->cut;
}

static void stable(struct file *f)
{
	memcpy(f->stable, f->now, HF_MAX(f->size, f->stable_size));
	f->stable_size = f->size;
	f->cnt = 0;
}

void model_init(void)
{
	w->client = world_alloc(SIM_CLIENTS * sizeof *w->client);
	for (unsigned i = 0; i < SIM_CLIENTS; i++)
		moment(&w->client[i]);
}

void model_dirs(struct store *st)
{
	for (unsigned i = 0; i < SIM_CLIENTS; i++) {
		char name[4] = {'c', (char)('0' + i)};
		struct meta_new n = {.mode = S_IFDIR | 0755};
		struct inode *in;

		int r = meta_lookup(st, INO_ROOT, name, 2, &in);
		if (r == -ENOENT)
			r = meta_create(st, INO_ROOT, name, 2, &n, &in);
		if (r)
			sim_fail("directory %s: %s", name, strerror(-r));
		w->client[i].dir = in->ino;
		inode_put(st, in);
	}
	int r = store_commit(st);
	if (r)
		sim_fail("store_commit: %s", strerror(-r));
}

void model_mark(struct model_mark *m, bool quiet)
{
	for (unsigned i = 0; i < SIM_CLIENTS; i++) {
		struct client *c = &w->client[i];

		/* The newest may be of an operation that is under way. */
		m->at[i] = c->cnt - (quiet || c->cnt < 2 ? 1 : 2);
	}
}

void model_published(const struct model_mark *m, struct publisher *p)
{
	struct publish_status s;

	publish_get_status(p, &s);
	w->published_seq = HF_MAX(w->published_seq, s.seq);
	for (unsigned i = 0; i < SIM_CLIENTS; i++)
		w->client[i].published = HF_MAX(w->client[i].published, m->at[i]);
	w->published++;
}

bool model_any_published(void)
{
	return w->published > 0;
}

/* --- operations --- */

/* What was said to be done, on the disk, on the nodes is worth a crash soon after. */
static void said(unsigned one_in)
{
	if (w->crash_at && chance(RND_FAULT, one_in))
		w->crash_at = w->steps + 1 + rnd_below(RND_FAULT, 300);
}

static void name_of(unsigned f, char out[8])
{
	snprintf(out, 8, "f%u", f);
}

static struct inode *look(struct store *st, unsigned c, unsigned f)
{
	struct inode *in;
	char name[8];

	name_of(f, name);
	int r = meta_lookup(st, w->client[c].dir, name, strlen(name), &in);
	if (r)
		sim_fail("client %u: %s is not found: %s", c, name, strerror(-r));
	if (in->ino != w->client[c].name[f]->ino)
		sim_fail("client %u: %s is another inode", c, name);
	return in;
}

struct undo {
	uint8_t *now;
	uint64_t size;
	size_t at; /* the moment */
};

/* What the model holds of a file, in case what is about to be tried fails. */
static struct undo undo_take(struct client *c, const struct file *f)
{
	struct undo u = {calloc(1, SIM_FILE_CAP), f->size, c->cnt};

	memcpy(u.now, f->now, f->size);
	return u;
}

/* It failed (r), so nothing is to have changed. */
static void undo_end(struct client *c, struct file *f, struct undo *u, int r)
{
	if (r) {
		/* After a crash bytes of it may be found: they stay among the changes. */
		changed(f, 0, SIM_FILE_CAP, u->now, u->size);
		f->change[f->cnt - 1].p =
			memcpy(world_alloc(SIM_FILE_CAP), u->now, SIM_FILE_CAP);
		c->m[u->at].never = true;
		moment(c);
	}
	free(u->now);
}

/* Reading needs nodes: with at most M of them harmed there are always enough. */
static void may_fail(unsigned c, const char *what, int r)
{
	w->failed_reads++;
	if (!w->blackout || (r != -EIO && r != -ENODATA && r != -ETIMEDOUT && r != -EAGAIN))
		sim_fail("client %u: %s: %s (at most %u of %u nodes are harmed)", c, what,
			 strerror(-r), w->m, w->nodes);
}

static void write_at(unsigned ci, struct store *st, unsigned fi, uint64_t off, uint64_t len)
{
	struct client *c = &w->client[ci];
	struct file *f = c->name[fi];
	uint8_t *p = world_alloc(len);
	uint64_t x = rnd(RND_WORK);
	for (uint64_t i = 0; i < len; i++) {
		if (!(i & 7))
			x = x * 6364136223846793005u + 1442695040888963407u;
		p[i] = (uint8_t)(x >> (8 * (i & 7)));
	}
	struct undo u = undo_take(c, f);
	changed(f, off, len, p, HF_MAX(f->size, off + len));
	moment(c);
	struct inode *in = look(st, ci, fi);
	sim_log("client %u: f%u (%llx): write %llu+%llu", ci, fi, (unsigned long long)f->ino,
		(unsigned long long)off, (unsigned long long)len);
	int r = data_write(st, in, p, len, off, false);
	inode_put(st, in);
	undo_end(c, f, &u, r);
	if (r)
		may_fail(ci, "write", r);
	/* Bytes of a cache file changed that may have been clean. */
	said(f->size > SMALL_MAX ? 4 : 16);
}

static void op_write(unsigned ci, struct store *st, unsigned fi)
{
	static const uint64_t most[] = {300, 5000, 70000, 200000};
	const struct file *f = w->client[ci].name[fi];
	uint64_t len = 1 + rnd_below(RND_WORK, most[rnd_below(RND_WORK, 4)]), off = 0;

	switch (rnd_below(RND_WORK, 4)) {
	case 0:
		break;
	case 1:
		off = f->size;
		break;
	case 2:
		off = rnd_below(RND_WORK, f->size + 1);
		break;
	default:
		off = rnd_below(RND_WORK, SIM_FILE_CAP);
	}
	if (off < SIM_FILE_CAP)
		write_at(ci, st, fi, off, HF_MIN(len, SIM_FILE_CAP - off));
}

static void op_truncate(unsigned ci, struct store *st, unsigned fi)
{
	struct client *c = &w->client[ci];
	struct file *f = c->name[fi];
	uint64_t size =
		chance(RND_WORK, 3)
			? 0
			: rnd_below(RND_WORK, HF_MIN(2 * f->size + 1, (uint64_t)SIM_FILE_CAP));
	struct undo u = undo_take(c, f);

	changed(f, 0, 0, NULL, size);
	moment(c);
	struct inode *in = look(st, ci, fi);
	sim_log("client %u: f%u: truncate %llu", ci, fi, (unsigned long long)size);
	int r = data_truncate(st, in, size, false);
	inode_put(st, in);
	undo_end(c, f, &u, r);
	if (r)
		may_fail(ci, "truncate", r);
}

static void op_punch(unsigned ci, struct store *st, unsigned fi)
{
	struct client *c = &w->client[ci];
	struct file *f = c->name[fi];

	if (!f->size)
		return;
	uint64_t off = rnd_below(RND_WORK, f->size),
		 len = 1 + rnd_below(RND_WORK, f->size - off);
	struct undo u = undo_take(c, f);
	changed(f, off, len, NULL, f->size);
	moment(c);
	struct inode *in = look(st, ci, fi);
	sim_log("client %u: f%u: punch %llu+%llu", ci, fi, (unsigned long long)off,
		(unsigned long long)len);
	int r = data_fallocate(st, in, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, off, len,
			       false);
	inode_put(st, in);
	undo_end(c, f, &u, r);
	if (r)
		may_fail(ci, "punch", r);
}

static void op_create(unsigned ci, struct store *st, unsigned fi)
{
	struct client *c = &w->client[ci];
	struct meta_new n = {.mode = S_IFREG | 0644};
	struct inode *in;
	char name[8];

	name_of(fi, name);
	c->name[fi] = file_new(n.mode);
	moment(c);
	int r = meta_create(st, c->dir, name, strlen(name), &n, &in);
	if (r)
		sim_fail("client %u: create %s: %s", ci, name, strerror(-r));
	c->name[fi]->ino = in->ino;
	inode_put(st, in);
}

static void op_unlink(unsigned ci, struct store *st, unsigned fi)
{
	struct client *c = &w->client[ci];
	uint64_t ino;
	char name[8];

	name_of(fi, name);
	c->name[fi] = NULL;
	moment(c);
	int r = meta_unlink(st, c->dir, name, strlen(name), false, &ino);
	if (r)
		sim_fail("client %u: unlink %s: %s", ci, name, strerror(-r));
	meta_reap(st, ino);
}

static void op_rename(unsigned ci, struct store *st, unsigned from, unsigned to)
{
	struct client *c = &w->client[ci];
	uint64_t victim = 0;
	char a[8], b[8];

	if (from == to)
		return;
	name_of(from, a);
	name_of(to, b);
	c->name[to] = c->name[from];
	c->name[from] = NULL;
	moment(c);
	int r = meta_rename(st, c->dir, a, strlen(a), c->dir, b, strlen(b), 0, &victim);
	if (r)
		sim_fail("client %u: rename %s %s: %s", ci, a, b, strerror(-r));
	if (victim)
		meta_reap(st, victim);
}

static void op_chmod(unsigned ci, struct store *st, unsigned fi)
{
	struct client *c = &w->client[ci];
	struct file *f = c->name[fi];
	struct meta_attr a = {.set = META_SET_MODE,
			      .mode = S_IFREG | (0600 + (uint32_t)rnd_below(RND_WORK, 64))};
	struct inode *in = look(st, ci, fi);

	f->mode = a.mode;
	moment(c);
	int r = meta_setattr(st, in, &a);
	if (r)
		sim_fail("client %u: chmod: %s", ci, strerror(-r));
	inode_put(st, in);
}

/* Reads [off, off + len) and compares; the error of the read, or 0. */
static int compare(unsigned ci, struct store *st, struct inode *in, const struct file *f,
		   unsigned fi, uint64_t off, uint64_t len)
{
	uint8_t *p = malloc(len + 1);
	int64_t n = 0;

	for (uint64_t done = 0; p && done < len; done += (uint64_t)n) {
		uint64_t want =
			HF_MIN(len - done, f->size > off + done ? f->size - off - done : 0);

		n = data_read(st, in, p, len - done, off + done);
		if (n < 0)
			break;
		if ((uint64_t)n > want || (!n && want))
			sim_fail("client %u: f%u: a read of %llu at %llu gave %lld of %llu", ci,
				 fi, (unsigned long long)(len - done),
				 (unsigned long long)(off + done), (long long)n,
				 (unsigned long long)want);
		for (int64_t i = 0; i < n; i++)
			if (p[i] != f->now[off + done + (uint64_t)i])
				sim_fail("client %u: f%u: byte %llu of %llu is %02x, not %02x",
					 ci, fi, (unsigned long long)(off + done + (uint64_t)i),
					 (unsigned long long)f->size, p[i],
					 f->now[off + done + (uint64_t)i]);
		if (!n)
			break;
	}
	w->reads++;
	free(p);
	return (int)HF_MIN(n, 0);
}

static void op_read(unsigned ci, struct store *st, unsigned fi)
{
	struct file *f = w->client[ci].name[fi];
	uint64_t off = chance(RND_WORK, 2) ? 0 : rnd_below(RND_WORK, f->size + 1);
	uint64_t len = chance(RND_WORK, 2) ? f->size : 1 + rnd_below(RND_WORK, 9000);
	struct inode *in = look(st, ci, fi);

	int r = compare(ci, st, in, f, fi, off, len);
	inode_put(st, in);
	if (r)
		may_fail(ci, "read", r);
}

static void op_fsync(unsigned ci, struct store *st, unsigned fi)
{
	struct client *c = &w->client[ci];
	struct inode *in = look(st, ci, fi);

	int r = data_sync(st, in, chance(RND_WORK, 2));
	sim_log("client %u: f%u: synced", ci, fi);
	if (r)
		sim_fail("client %u: fsync: %s", ci, strerror(-r));
	stable(c->name[fi]);
	c->durable = c->cnt - 1;
	inode_put(st, in);
	said(6);
}

static void op_syncfs(unsigned ci, struct store *st)
{
	struct client *c = &w->client[ci];

	int r = store_commit_all(st);
	if (r)
		sim_fail("client %u: syncfs: %s", ci, strerror(-r));
	for (unsigned i = 0; i < SIM_FILES; i++)
		if (c->name[i])
			stable(c->name[i]);
	c->durable = c->cnt - 1;
}

static void op_publish(unsigned ci, struct publisher *p)
{
	struct client *c = &w->client[ci];
	struct model_mark m;

	model_mark(&m, false);
	m.at[ci] = c->cnt - 1; /* nothing of ours is under way */
	int r = publish_wait(p, false, now_ms() + 1000 + (int64_t)rnd_below(RND_WORK, 40000));
	sim_log("client %u: publish: %d", ci, r);
	if (!r) {
		model_published(&m, p);
		said(3);
	} else if (r != -ETIMEDOUT && r != -EAGAIN) {
		sim_fail("client %u: publish: %s", ci, strerror(-r));
	}
}

/* A cut is being packed, or stored. */
static bool busy(struct publisher *p)
{
	struct publish_status s;

	publish_get_status(p, &s);
	return s.busy;
}

/*
 * Something that is not in the cut, then a few bytes of what is: who finds the second and not
 * the first has bytes that are newer than their moment.
 */
static void op_pair(unsigned ci, struct store *st)
{
	const struct client *c = &w->client[ci];
	unsigned from = (unsigned)rnd_below(RND_WORK, SIM_FILES);

	for (unsigned i = 0; i < SIM_FILES; i++) {
		unsigned fi = (from + i) % SIM_FILES, other = (fi + 1) % SIM_FILES;
		const struct file *f = c->name[fi];

		if (!f || !f->size || f->cut + 1 != w->cut || !c->name[other])
			continue;
		uint64_t off = rnd_below(RND_WORK, f->size);
		op_chmod(ci, st, other);
		write_at(ci, st, fi, off, 1 + rnd_below(RND_WORK, HF_MIN(f->size - off, 5000u)));
		w->touched = true;
		return;
	}
}

void client_op(unsigned ci, struct store *st, struct publisher *p)
{
	struct client *c = &w->client[ci];
	unsigned fi = (unsigned)rnd_below(RND_WORK, SIM_FILES);
	uint64_t what = rnd_below(RND_WORK, 100);
	int64_t begin = w->now_ns;

	/* Meanwhile what it holds is overwritten. */
	if (what < 18 && busy(p) && !chance(RND_WORK, 4))
		what = 25 + rnd_below(RND_WORK, 33);
	trace(what << 8 | fi);
	if (w->packing)
		op_pair(ci, st);
	sim_log("client %u: operation %llu, f%u", ci, (unsigned long long)what, fi);
	if (what < 8) {
		sched_sleep((int64_t)rnd_below(RND_WORK, 8000) * MS);
	} else if (what < 18) {
		op_publish(ci, p);
	} else if (what < 21) {
		op_syncfs(ci, st);
	} else if (what < 25) {
		int r = data_evict(st, rnd_below(RND_WORK, 2) * 100000);
		if (r)
			sim_fail("evict: %s", strerror(-r));
	} else if (!c->name[fi]) {
		op_create(ci, st, fi);
	} else if (what < 50) {
		op_write(ci, st, fi);
		/* As databases do: a little of a large file, at once to the disk. */
		if (chance(RND_WORK, c->name[fi]->size > SMALL_MAX ? 2 : 6))
			op_fsync(ci, st, fi);
	} else if (what < 55) {
		op_truncate(ci, st, fi);
	} else if (what < 58) {
		op_punch(ci, st, fi);
	} else if (what < 61) {
		op_unlink(ci, st, fi);
	} else if (what < 66) {
		op_rename(ci, st, fi, (unsigned)rnd_below(RND_WORK, SIM_FILES));
	} else if (what < 69) {
		op_chmod(ci, st, fi);
	} else if (what < 86) {
		op_read(ci, st, fi);
	} else {
		op_fsync(ci, st, fi);
	}
	if (w->now_ns - begin > 300 * SEC)
		sim_fail("client %u: operation %llu took %lld s", ci, (unsigned long long)what,
			 (long long)((w->now_ns - begin) / SEC));
}

void model_read_all(struct store *st)
{
	for (unsigned c = 0; c < SIM_CLIENTS; c++)
		for (unsigned f = 0; f < SIM_FILES; f++) {
			struct file *m = w->client[c].name[f];
			char name[8];

			if (!m) {
				struct inode *none;

				name_of(f, name);
				if (meta_lookup(st, w->client[c].dir, name, strlen(name),
						&none) != -ENOENT)
					sim_fail("client %u: %s is there", c, name);
				continue;
			}
			struct inode *in = look(st, c, f);
			int r = compare(c, st, in, m, f, 0, m->size + 10);
			if (r)
				sim_fail("client %u: f%u cannot be read though all is well: %s",
					 c, f, strerror(-r));
			inode_put(st, in);
		}
}

void model_stopped(void)
{
	for (unsigned i = 0; i < SIM_CLIENTS; i++) {
		struct client *c = &w->client[i];

		for (unsigned f = 0; f < SIM_FILES; f++)
			if (c->name[f])
				stable(c->name[f]);
		c->durable = c->cnt - 1;
	}
}

/* --- what is found --- */

struct found {
	uint64_t ino, size;
	uint32_t mode;
	uint8_t *p;
};

static void found_read(struct store *st, uint64_t dir, struct found f[SIM_FILES])
{
	for (unsigned i = 0; i < SIM_FILES; i++) {
		struct inode *in;
		struct stat s;
		int64_t btime;
		char name[8];

		f[i] = (struct found){0};
		name_of(i, name);
		int r = meta_lookup(st, dir, name, strlen(name), &in);
		if (r == -ENOENT)
			continue;
		if (r)
			sim_fail("%s: %s", name, strerror(-r));
		inode_stat(st, in, &s, &btime);
		if (s.st_size > SIM_FILE_CAP)
			sim_fail("%s has %lld bytes", name, (long long)s.st_size);
		f[i] = (struct found){in->ino, (uint64_t)s.st_size, s.st_mode,
				      calloc(1, SIM_FILE_CAP)};
		int64_t n = data_read(st, in, f[i].p, SIM_FILE_CAP, 0);
		if (n != s.st_size)
			sim_fail("%s: read %lld of %lld bytes: %s", name, (long long)n,
				 (long long)s.st_size, n < 0 ? strerror((int)-n) : "short");
		inode_put(st, in);
	}
}

static void found_free(struct found f[SIM_FILES])
{
	for (unsigned i = 0; i < SIM_FILES; i++)
		free(f[i].p);
}

static bool same_names(const struct moment *m, const struct found f[SIM_FILES])
{
	for (unsigned i = 0; i < SIM_FILES; i++) {
		if (!m->name[i] != !f[i].ino)
			return false;
		if (f[i].ino && m->name[i]->ino != UNKNOWN && m->name[i]->ino != f[i].ino)
			return false;
	}
	return true;
}

/* Each byte is one that the file may have there. */
static void check_bytes(unsigned c, unsigned i, const struct file *m, const struct found *f)
{
	bool size_ok = f->size == m->stable_size;
	uint8_t *ok = calloc(1, SIM_FILE_CAP);

	for (uint64_t j = 0; j < f->size; j++)
		ok[j] = f->p[j] == m->stable[j];
	for (size_t k = 0; k < m->cnt; k++) {
		const struct change *ch = &m->change[k];

		size_ok |= f->size == ch->size;
		for (uint64_t j = ch->off; j < HF_MIN(ch->off + ch->len, f->size); j++)
			ok[j] |= f->p[j] == (ch->p ? ch->p[j - ch->off] : 0);
		for (uint64_t j = ch->size; j < f->size; j++)
			ok[j] |= f->p[j] == 0;
	}
	if (!size_ok)
		sim_fail("after a crash client %u's f%u has %llu bytes; synced %llu, now %llu",
			 c, i, (unsigned long long)f->size, (unsigned long long)m->stable_size,
			 (unsigned long long)m->size);
	for (uint64_t j = 0; j < f->size; j++)
		if (!ok[j])
			sim_fail("after a crash byte %llu of client %u's f%u is %02x; synced "
				 "%02x, "
				 "%zu changes since",
				 (unsigned long long)j, c, i, f->p[j], m->stable[j], m->cnt);
	free(ok);
}

void model_adopt(struct store *st)
{
	for (unsigned ci = 0; ci < SIM_CLIENTS; ci++) {
		struct client *c = &w->client[ci];
		struct found f[SIM_FILES];
		size_t at = c->cnt;

		found_read(st, c->dir, f);
		while (at > c->durable && !same_names(&c->m[at - 1], f))
			at--;
		if (at == c->durable && !same_names(&c->m[at], f))
			sim_fail("after a crash client %u's names are of no moment since %zu "
				 "of %zu",
				 ci, c->durable, c->cnt);
		at -= at > c->durable;
		memcpy(c->name, c->m[at].name, sizeof c->name);
		for (unsigned i = 0; i < SIM_FILES; i++) {
			struct file *m = c->name[i];

			if (!m)
				continue;
			check_bytes(ci, i, m, &f[i]);
			m->ino = f[i].ino;
			m->mode = f[i].mode;
			uint8_t *p = world_alloc(SIM_FILE_CAP);
			memcpy(p, f[i].p, SIM_FILE_CAP);
			changed(m, 0, SIM_FILE_CAP, p, f[i].size);
		}
		moment(c);
		/* These names are what is here; a later crash may still find the ones before.
		 */
		found_free(f);
	}
}

void model_recovered(struct store *st, bool exact)
{
	for (unsigned ci = 0; ci < SIM_CLIENTS; ci++) {
		struct client *c = &w->client[ci];
		struct found f[SIM_FILES];
		struct inode *in;
		uint64_t hash = 0;
		char name[4] = {'c', (char)('0' + ci)};

		int r = meta_lookup(st, INO_ROOT, name, 2, &in);
		if (r)
			sim_fail("recovered: no directory %s: %s", name, strerror(-r));
		found_read(st, in->ino, f);
		inode_put(st, in);
		for (unsigned i = 0; i < SIM_FILES; i++)
			if (f[i].ino)
				hash += hash_file(i, f[i].size, f[i].mode,
						  hash_data(f[i].p, f[i].size));
		size_t j = exact ? c->cnt - 1 : c->published;
		while (j < c->cnt && (c->m[j].hash != hash || c->m[j].never))
			j++;
		if (j == c->cnt) {
			while (j && c->m[j - 1].hash != hash)
				j--;
			if (j)
				sim_fail("recovered: client %u's directory is that of moment "
					 "%zu%s; %zu is "
					 "published, %zu now",
					 ci, j - 1,
					 c->m[j - 1].never ? ", which never was" : "",
					 c->published, c->cnt - 1);
			sim_fail("recovered: client %u's directory is of no moment; %zu is "
				 "published, "
				 "%zu now",
				 ci, c->published, c->cnt - 1);
		}
		found_free(f);
	}
}
