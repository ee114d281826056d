/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * All sequences of one and of two operations, a crash at each persistence point (Mohan et al.,
 * "Finding Crash-Consistency Bugs with Bounded Black-Box Crash Testing", OSDI 2018).
 *
 * A sequence is OP PERSIST or OP [PERSIST] OP PERSIST on a small tree that is durable, its file
 * `foo` a row or a cache file, published or not.  At each PERSIST the power goes: of what was
 * not synced nothing, all, or any part is there (powercut.h).  What the drive shows then is
 * compared with what it showed at that moment (the oracle): names, links, types and attributes
 * are the same, for each PERSIST commits all of them; so are the contents of what was synced;
 * other contents are of some moment since they were synced last, block by block.
 *
 * The sequences of a batch have one drive.  Between the two operations of all of them, and at
 * the end, it is published, and a recovery must see just that instant (P3); then the drive
 * goes on from a crash, and what it publishes next is what it shows.
 *
 * COUNT (60) sequences of two at random; ALL=1: all of them (PART=i/n: one of n parts of that);
 * CASE=n: that one.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#include <linux/falloc.h>
#include <time.h>
#include "drive_util.h"
#include "powercut.h"

#define ENTRIES 24u
#define BATCH	24u
#define SNAPS	3u

enum kind {
	CREAT,
	MKDIR,
	FALLOC,
	WRITE,
	MMAP,
	LINK,
	SYMLINK,
	UNLINK,
	RMDIR,
	RENAME,
	TRUNC,
	SETX,
	REMX
};

/* Offsets and lengths are in eighths of foo's size at the beginning. */
static const struct op {
	enum kind kind;
	const char *a, *b;
	int mode;
	unsigned off, len;
} ops[] = {
	{CREAT, "bar", NULL, 0, 0, 0},
	{CREAT, "A/bar", NULL, 0, 0, 0},
	{MKDIR, "B", NULL, 0, 0, 0},
	{MKDIR, "A/C", NULL, 0, 0, 0},
	{FALLOC, "foo", NULL, 0, 6, 4},
	{FALLOC, "foo", NULL, FALLOC_FL_KEEP_SIZE, 6, 4},
	{FALLOC, "foo", NULL, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 2, 3},
	{FALLOC, "foo", NULL, FALLOC_FL_ZERO_RANGE, 6, 4},
	{FALLOC, "foo", NULL, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, 2, 2},
	{WRITE, "foo", NULL, 0, 0, 3},
	{WRITE, "foo", NULL, 0, 8, 2},
	{WRITE, "foo", NULL, 0, 6, 4},
	{WRITE, "bar", NULL, 0, 0, 4},
	{WRITE, "A/bar", NULL, 0, 0, 12},
	{MMAP, "foo", NULL, 0, 4, 0},
	{LINK, "foo", "bar", 0, 0, 0},
	{LINK, "foo", "A/bar", 0, 0, 0},
	{SYMLINK, "A/bar", NULL, 0, 0, 0},
	{UNLINK, "foo", NULL, 0, 0, 0},
	{UNLINK, "A/foo", NULL, 0, 0, 0},
	{RMDIR, "A/D", NULL, 0, 0, 0},
	{RENAME, "foo", "bar", 0, 0, 0},
	{RENAME, "foo", "A/foo", 0, 0, 0},
	{RENAME, "A/foo", "foo", 0, 0, 0},
	{RENAME, "A", "B", 0, 0, 0},
	{RENAME, "A/D", "B", 0, 0, 0},
	{TRUNC, "foo", NULL, 0, 0, 0},
	{TRUNC, "foo", NULL, 0, 4, 0},
	{TRUNC, "foo", NULL, 0, 12, 0},
	{SETX, "foo", NULL, 0, 0, 0},
	{REMX, "foo", NULL, 0, 0, 0},
};
#define OPS ((unsigned)(sizeof ops / sizeof *ops))
static const char *const kinds[] = {"creat",	"mkdir",    "falloc",	  "write", "mmap",
				    "link",	"symlink",  "unlink",	  "rmdir", "rename",
				    "truncate", "setxattr", "removexattr"};

enum persist { NONE, FSYNC, FDATASYNC, DIRSYNC, SYNC, PERSISTS };
static const char *const persists[] = {"-", "fsync", "fdatasync", "fsync of a directory",
				       "sync"};

/* foo: a row, one that grows out of it, a cache file. */
static const size_t sizes[] = {5000, 60000, 100000};
#define LIVES (2 * (unsigned)(sizeof sizes / sizeof *sizes)) /* not published, published */

/* Number of a sequence of two: op, persist (may be NONE), op, persist. */
#define SEQUENCES (OPS * PERSISTS * OPS * (PERSISTS - 1))

struct entry {
	char path[24];
	uint64_t ino, size, xattr;
	uint32_t mode, nlink;
	uint8_t *bytes; /* of a regular file */
};
struct snap {
	struct entry e[ENTRIES];
	unsigned cnt;
};
struct seq {
	uint64_t id, root, touched, synced; /* synced: the inode; UINT64_MAX all */
	unsigned op[2], persist[2];
	struct snap snap[SNAPS];
	unsigned snaps; /* the first is of what was durable */
};

static uint64_t seed;
static unsigned wrong, crashes, version;
static bool control;

static uint64_t rnd(uint64_t n)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (seed * 0x2545f4914f6cdd1d >> 16) % n;
}

/* --- what is there --- */

static void snap_free(struct snap *s)
{
	for (unsigned i = 0; i < s->cnt; i++)
		free(s->e[i].bytes);
	*s = (struct snap){0};
}

static void snap_entry(struct store *st, struct snap *s, uint64_t ino, const char *path)
{
	struct buf x = {0};
	struct inode *in;
	struct stat sb;
	int64_t btime;

	assert_true(s->cnt < ENTRIES);
	struct entry *e = &s->e[s->cnt++];
	assert_true(strlen(path) < sizeof e->path);
	strcpy(e->path, path);
	assert_int_equal(inode_get(st, ino, &in), 0);
	inode_stat(st, in, &sb, &btime);
	e->ino = ino;
	e->mode = sb.st_mode;
	e->nlink = (uint32_t)sb.st_nlink;
	e->size = S_ISREG(sb.st_mode) ? (uint64_t)sb.st_size : 0;
	for (unsigned i = 0; i < 2; i++)
		if (meta_getxattr(st, in, i ? "user.new" : "user.old", &x) >= 0)
			e->xattr |= 1u << i;
	buf_release(&x);
	if (S_ISREG(sb.st_mode)) {
		e->bytes = malloc(e->size + 1);
		/* What cannot be read is like nothing that was ever there. */
		if (data_read(st, in, e->bytes, e->size, 0) != (int64_t)e->size)
			e->size = e->mode = 0;
	}
	inode_put(st, in);
}

static void snap_dir(struct store *st, struct snap *s, uint64_t dir, const char *prefix)
{
	struct dv_names names = {0};
	char path[300];

	assert_int_equal(meta_readdir(st, dir, 0, false, dv_entry, &names), 0);
	if (names.cnt)
		qsort(names.e, names.cnt, sizeof *names.e, dv_by_name);
	for (size_t i = 0; i < names.cnt; i++) {
		snprintf(path, sizeof path, "%s%s", prefix, names.e[i].name);
		snap_entry(st, s, names.e[i].ino, path);
		if (S_ISDIR(s->e[s->cnt - 1].mode)) {
			snprintf(path, sizeof path, "%s%s/", prefix, names.e[i].name);
			snap_dir(st, s, names.e[i].ino, path);
		}
	}
	free(names.e);
}

static void snap_take(struct store *st, struct seq *q)
{
	assert_true(q->snaps < SNAPS);
	struct snap *s = &q->snap[q->snaps++];
	snap_dir(st, s, q->root, "");
	for (unsigned i = 0; i < s->cnt; i++)
		assert_true(s->e[i].mode);
}

static const struct entry *by_ino(const struct snap *s, uint64_t ino)
{
	for (unsigned i = 0; i < s->cnt; i++)
		if (s->e[i].ino == ino)
			return &s->e[i];
	return NULL;
}

/* --- comparing --- */

static void name_of(const struct seq *q, char out[200])
{
	int n = snprintf(out, 200, "%llu:", (unsigned long long)q->id);

	for (unsigned i = 0; i < 2; i++) {
		const struct op *o = &ops[q->op[i]];
		if (q->op[i] < OPS)
			n += snprintf(out + n, 200 - (size_t)n, " %s %s %s, %s;",
				      kinds[o->kind], o->a, o->b ? o->b : "",
				      persists[q->persist[i]]);
	}
}

static void violation(const struct seq *q, enum pc_mode mode, const char *path,
		      const char *what)
{
	char name[200];

	wrong++;
	name_of(q, name);
	if (!control)
		print_error("CASE=%s\n  %s: %s (%s)\n", name, path, what,
			    mode == PC_LOSE   ? "all lost"
			    : mode == PC_KEEP ? "all kept"
					      : "mixed");
}

/* Contents of some moment since the last sync, block by block. */
static bool of_some_moment(const struct seq *q, const struct entry *g)
{
	const struct entry *v[SNAPS];
	unsigned cnt = 0;

	for (unsigned i = 0; i < q->snaps; i++) {
		const struct entry *e = by_ino(&q->snap[i], g->ino);
		if (e)
			v[cnt++] = e;
	}
	/* A new one may be as it was made. */
	bool ok = !g->size && !by_ino(&q->snap[0], g->ino);
	for (unsigned i = 0; i < cnt; i++)
		ok |= g->size == v[i]->size;
	for (uint64_t at = 0; ok && at < g->size; at++) {
		bool some = false;
		for (unsigned i = 0; i < cnt && !some; i++)
			some = g->bytes[at] == (at < v[i]->size ? v[i]->bytes[at] : 0);
		ok = some;
	}
	return ok;
}

static void compare(const struct seq *q, const struct snap *got, enum pc_mode mode)
{
	const struct snap *want = &q->snap[q->snaps - 1];

	for (unsigned i = 0; i < want->cnt || i < got->cnt; i++) {
		const struct entry *w = &want->e[i], *g = &got->e[i];

		if (i >= want->cnt || i >= got->cnt || strcmp(w->path, g->path)) {
			violation(q, mode, i < want->cnt ? w->path : g->path,
				  "is there or is not, against what was committed");
			return;
		}
		if (w->ino != g->ino || w->mode != g->mode || w->nlink != g->nlink ||
		    w->xattr != g->xattr)
			violation(q, mode, w->path, "has other attributes");
		if (!S_ISREG(w->mode))
			continue;
		bool exact = q->synced == UINT64_MAX || q->synced == w->ino;
		if (exact && (w->size != g->size || memcmp(w->bytes, g->bytes, w->size)))
			violation(q, mode, w->path, "was synced and is something else");
		if (!exact && !of_some_moment(q, g))
			violation(q, mode, w->path, "is of no moment");
	}
}

static void crash(struct drive *d, const struct seq *q, enum pc_mode mode)
{
	struct store_opts o = {.power_cut = true};
	struct snap got = {0};
	struct store *st;
	char dir[120];

	crashes++;
	snprintf(dir, sizeof dir, "%s/crash", d->x.base);
	pc_cut(dir, mode, rnd);
	o.dir = dir;
	int err = store_open(&st, &o);
	if (err) {
		violation(q, mode, "", "the store cannot be opened");
	} else {
		st->vol = d->x.v;
		snap_dir(st, &got, q->root, "");
		compare(q, &got, mode);
		snap_free(&got);
		if (!control && crashes % 8 == 0 && dv_check(st, false))
			violation(q, mode, "", "fsck finds something");
		store_close(st);
	}
	fx_rm_tree(dir);
}

/* --- the operations --- */

/* The directory a path is in, and its last part. */
static int walk(struct store *st, uint64_t root, const char *path, uint64_t *dir,
		const char **last)
{
	const char *slash = strchr(path, '/');
	struct inode *in;

	*dir = root;
	*last = slash ? slash + 1 : path;
	if (!slash)
		return 0;
	int err = meta_lookup(st, root, path, (size_t)(slash - path), &in);
	if (err)
		return err;
	*dir = in->ino;
	inode_put(st, in);
	return 0;
}

static int make(struct store *st, uint64_t dir, const char *name, uint32_t mode, uint64_t *ino)
{
	struct meta_new n = {.mode = mode, .target = S_ISLNK(mode) ? "foo" : NULL};
	struct inode *in;
	int err = meta_create(st, dir, name, strlen(name), &n, &in);

	if (err)
		return err;
	*ino = in->ino;
	inode_put(st, in);
	return 0;
}

static int put(struct store *st, struct inode *in, uint64_t off, size_t len)
{
	uint8_t *p = malloc(len + 1);

	memset(p, (int)(1 + version++ % 255), len);
	int err = data_write(st, in, p, len, off, false);
	free(p);
	return err;
}

static int on_file(struct store *st, const struct op *o, struct inode *in, size_t size)
{
	uint64_t off = size / 8 * o->off, len = size / 8 * o->len;

	switch (o->kind) {
	case FALLOC:
		return data_fallocate(st, in, o->mode, off, len, false);
	case WRITE:
		return put(st, in, off, len);
	/* What the kernel sends of a mapping: whole pages, as far as the file goes. */
	case MMAP:
		off = off / 4096 * 4096;
		return off < in->size ? put(st, in, off, HF_MIN(4096, in->size - off)) : 0;
	case TRUNC:
		return data_truncate(st, in, off, false);
	case SETX:
		return meta_setxattr(st, in, "user.new", "v", 1, 0);
	case REMX:
		return meta_removexattr(st, in, "user.old");
	default:
		return -EINVAL;
	}
}

static int run_op(struct store *st, struct seq *q, const struct op *o, size_t size)
{
	uint64_t dir, dir2 = 0, gone = 0;
	const char *name, *name2 = "";
	struct inode *in = NULL;

	q->touched = 0;
	int err = walk(st, q->root, o->a, &dir, &name);
	if (!err && o->b)
		err = walk(st, q->root, o->b, &dir2, &name2);
	if (err)
		return err;
	size_t len = strlen(name), len2 = strlen(name2);
	if (o->kind == CREAT || o->kind == MKDIR || o->kind == SYMLINK)
		return make(st, dir, name,
			    o->kind == CREAT   ? S_IFREG | 0644
			    : o->kind == MKDIR ? S_IFDIR | 0755
					       : S_IFLNK | 0777,
			    &q->touched);
	if (o->kind == UNLINK || o->kind == RMDIR) {
		err = meta_unlink(st, dir, name, len, o->kind == RMDIR, &gone);
		if (!err)
			meta_reap(st, gone);
		return err;
	}
	err = meta_lookup(st, dir, name, len, &in);
	if (err == -ENOENT && o->kind == WRITE) {
		err = make(st, dir, name, S_IFREG | 0644, &gone);
		if (!err)
			err = inode_get(st, gone, &in);
	}
	if (err)
		return err;
	q->touched = in->ino;
	if (o->kind == LINK) {
		err = S_ISDIR(in->mode) ? -EPERM : meta_link(st, in, dir2, name2, len2);
	} else if (o->kind == RENAME) {
		err = meta_rename(st, dir, name, len, dir2, name2, len2, 0, &gone);
		if (!err && gone)
			meta_reap(st, gone);
	} else if (S_ISREG(in->mode)) {
		err = on_file(st, o, in, size);
	}
	inode_put(st, in);
	return err;
}

static void run_persist(struct store *st, struct seq *q, enum persist p)
{
	struct inode *in = NULL;

	q->synced = 0;
	if (p == SYNC) {
		assert_int_equal(store_commit_all(st), 0);
		q->synced = UINT64_MAX;
	} else if ((p == FSYNC || p == FDATASYNC) && q->touched &&
		   !inode_get(st, q->touched, &in) && S_ISREG(in->mode)) {
		assert_int_equal(data_sync(st, in, p == FDATASYNC), 0);
		q->synced = q->touched;
	} else {
		assert_int_equal(store_commit(st), 0);
	}
	if (in)
		inode_put(st, in);
}

/* What was synced is, as it is now, the oldest that may be seen from now on. */
static void forget(struct seq *q)
{
	const struct snap *last = &q->snap[q->snaps - 1];

	for (unsigned k = 0; k + 1 < q->snaps; k++)
		for (unsigned i = 0; i < q->snap[k].cnt; i++) {
			struct entry *e = &q->snap[k].e[i];
			const struct entry *now = by_ino(last, e->ino);

			if (!now || !e->bytes ||
			    (q->synced != UINT64_MAX && q->synced != e->ino))
				continue;
			free(e->bytes);
			e->size = now->size;
			e->bytes = malloc(e->size + 1);
			memcpy(e->bytes, now->bytes, e->size);
		}
}

/* Operation i and what makes it durable, and the crash there. */
static void step(struct drive *d, struct seq *q, unsigned i, size_t size, bool all_modes)
{
	if (q->op[i] >= OPS)
		return;
	int err = run_op(d->st, q, &ops[q->op[i]], size);
	/* What a second operation finds no object for is done nothing by. */
	if (err && err != -ENOENT && err != -EEXIST && err != -ENODATA && err != -ENOTEMPTY &&
	    err != -EISDIR && err != -ENOTDIR && err != -EPERM && err != -EINVAL)
		fail_msg("%s: %d", kinds[ops[q->op[i]].kind], err);
	snap_take(d->st, q);
	if (!q->persist[i])
		return;
	run_persist(d->st, q, (enum persist)q->persist[i]);
	for (unsigned m = 0; m < (all_modes ? 3 : 1); m++)
		crash(d, q, all_modes ? (enum pc_mode)m : rnd(3) == 0 ? PC_LOSE : PC_MIX);
	forget(q);
}

/* --- a batch --- */

static int sync_one(const char *path, const struct stat *sb, int flag, struct FTW *ftw)
{
	(void)sb;
	(void)flag;
	(void)ftw;
	int fd = open(path, O_RDONLY);
	if (fd >= 0) {
		fsync(fd);
		close(fd);
	}
	return 0;
}

static void tree_make(struct store *st, struct seq *q, unsigned n, size_t size)
{
	struct inode *in;
	char name[16];
	uint64_t a;

	snprintf(name, sizeof name, "s%u", n);
	q->root = dv_mkdir(st, INO_ROOT, name);
	a = dv_mkdir(st, q->root, "A");
	dv_mkdir(st, a, "D");
	dv_write(st, a, "foo", 0, 700, n);
	in = dv_file(st, q->root, "foo");
	assert_int_equal(put(st, in, 0, size), 0);
	assert_int_equal(meta_setxattr(st, in, "user.old", "v", 1, 0), 0);
	inode_put(st, in);
}

/* What a recovery from the nodes sees is the drive as it is now. */
static void published(struct drive *d)
{
	char *want = dv_dump(d->st);

	assert_int_equal(dv_publish(d), 0);
	dv_recovered(d, want);
	free(want);
}

/* The drive goes on from what a power cut leaves. */
static void goes_on(struct drive *d)
{
	char was[120];

	dv_stop(d);
	snprintf(was, sizeof was, "%s.cut", d->dir);
	assert_int_equal(store_commit(d->st), 0);
	pc_cut(was, PC_MIX, rnd);
	pc_off();
	store_close(d->st);
	fx_rm_tree(d->dir);
	assert_int_equal(rename(was, d->dir), 0);
	d->so.power_cut = true;
	d->st = dv_store(d, d->dir);
	dv_start(d);
	published(d);
	assert_int_equal(dv_check(d->st, true), 0);
}

static void batch(struct seq *q, unsigned cnt, unsigned life, bool all_modes,
		  const struct store_opts *so)
{
	size_t size = sizes[life / 2];
	struct drive d;

	dv_open(&d);
	if (so)
		d.st->opts.skip_sync = so->skip_sync;
	for (unsigned i = 0; i < cnt; i++)
		tree_make(d.st, &q[i], i, size);
	dv_start(&d);
	if (life % 2)
		assert_int_equal(dv_publish(&d), 0);
	assert_int_equal(store_commit_all(d.st), 0);
	/* So far all is on the disk. */
	pc_on(d.dir);
	nftw(d.dir, sync_one, 16, FTW_PHYS);
	for (unsigned i = 0; i < cnt; i++)
		snap_take(d.st, &q[i]);
	for (unsigned i = 0; i < cnt; i++)
		step(&d, &q[i], 0, size, all_modes);
	if (!control && life % 2)
		published(&d);
	for (unsigned i = 0; i < cnt; i++)
		step(&d, &q[i], 1, size, all_modes);
	if (!control) {
		published(&d);
		goes_on(&d);
	} else {
		pc_off();
	}
	fx_rm_tree(pc.disk);
	for (unsigned i = 0; i < cnt; i++)
		while (q[i].snaps)
			snap_free(&q[i].snap[--q[i].snaps]);
	dv_close(&d);
}

static void seq_two(struct seq *q, uint64_t id)
{
	*q = (struct seq){.id = id};
	q->op[0] = (unsigned)(id % OPS);
	q->op[1] = (unsigned)(id / OPS % OPS);
	q->persist[0] = (unsigned)(id / OPS / OPS % PERSISTS);
	q->persist[1] = 1 + (unsigned)(id / OPS / OPS / PERSISTS % (PERSISTS - 1));
}

/* PART=i/n: is this batch one of the i-th part? */
static bool in_part(uint64_t at)
{
	const char *part = getenv("PART");
	char *end;
	uint64_t i = part ? strtoull(part, &end, 0) : 0;
	uint64_t n = part && *end == '/' ? strtoull(end + 1, NULL, 0) : 1;

	return at % HF_MAX(n, (uint64_t)1) == i % HF_MAX(n, (uint64_t)1);
}

/* --- tests --- */

/* Every operation with every way of making it durable, in every life of the file. */
static void one(void **state)
{
	static struct seq q[OPS];

	(void)state;
	wrong = crashes = 0;
	for (unsigned life = 0; life < LIVES; life++) {
		for (unsigned p = FSYNC; p < PERSISTS; p++) {
			/* In `check` those that differ: all in the first and the last life. */
			if (!getenv("ALL") && life % (LIVES - 1) && p != 1 + (life + seed) % 4)
				continue;
			for (unsigned i = 0; i < OPS; i++)
				q[i] = (struct seq){.id = i, .op = {i, OPS}, .persist = {p, 0}};
			batch(q, OPS, life, getenv("ALL") != NULL, NULL);
		}
	}
	print_message("%u crashes\n", crashes);
	assert_int_equal(wrong, 0);
}

static void two(void **state)
{
	const char *count = getenv("COUNT"), *which = getenv("CASE");
	uint64_t planned = which		? 1
			: getenv("ALL") ? SEQUENCES
			: count		? strtoul(count, NULL, 0)
					: 60;
	static struct seq q[BATCH];

	(void)state;
	wrong = crashes = 0;
	print_message("%llu of %llu sequences\n", (unsigned long long)planned,
		      (unsigned long long)SEQUENCES);
	for (unsigned life = 0; life < (getenv("ALL") || which ? LIVES : 1); life++) {
		for (uint64_t at = 0; at < planned; at += BATCH) {
			unsigned cnt = (unsigned)HF_MIN(planned - at, (uint64_t)BATCH);
			if (!in_part(at / BATCH))
				continue;
			for (unsigned i = 0; i < cnt; i++)
				seq_two(&q[i], which	       ? strtoul(which, NULL, 0)
					       : getenv("ALL") ? at + i
							       : rnd(SEQUENCES));
			batch(q, cnt, getenv("ALL") || which ? life : (unsigned)rnd(LIVES),
			      which != NULL, NULL);
			if (wrong > 10)
				fail_msg("that will do");
		}
	}
	print_message("%u crashes\n", crashes);
	assert_int_equal(wrong, 0);
}

/* Switched off, rows name bytes that the power cut took. */
static void skip_sync(void **state)
{
	struct store_opts o = {.skip_sync = true};
	struct seq q[4];

	(void)state;
	wrong = 0;
	control = true;
	for (unsigned i = 0; i < 4; i++)
		q[i] = (struct seq){.op = {10, OPS}, .persist = {FSYNC, 0}};
	batch(q, 4, LIVES - 1, true, &o);
	control = false;
	assert_true(wrong > 0);
}

int main(void)
{
	const char *env = getenv("SEED");
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(skip_sync),
		cmocka_unit_test(one),
		cmocka_unit_test(two),
	};

	seed = env ? strtoull(env, NULL, 0) : (uint64_t)time(NULL);
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (keys_global_init())
		return 1;
	print_message("seed %llu (SEED= repeats it)\n", (unsigned long long)seed);
	seed = seed * 0x9e3779b97f4a7c15u | 1;
	log_set_level(LOG_LVL_ERROR);
	log_set_quiet(true);
	/* Those of one are no part of a part but the first. */
	if (getenv("CASE") || (getenv("PART") && !in_part(0)))
		return _cmocka_run_group_tests("case", &tests[2], 1, NULL, NULL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
