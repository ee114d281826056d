/* SPDX-License-Identifier: GPL-3.0-or-later */
/* A store on a volume of temporary directories, a publisher, and recovery from the nodes. */
#ifndef HOLDFAST_TESTS_DRIVE_UTIL_H
#define HOLDFAST_TESTS_DRIVE_UTIL_H

#include <dirent.h>
#include <sodium.h>
#include <sys/stat.h>
#include "cache/apply.h"
#include "cache/check.h"
#include "cache/cut.h"
#include "cache/datafile.h"
#include "net/record.h"
#include "volume_util.h"

struct drive {
	struct fixture x;
	char dir[80];
	struct store *st;
	struct store_opts so;
	struct publisher *p;
	struct publish_opts po;
	struct hist_device dev;
	uint8_t kit[32];
	struct owner *owner;
};

static inline struct store *dv_store(struct drive *d, const char *dir)
{
	struct store *st;

	d->so.dir = dir;
	mkdir(dir, 0700);
	assert_int_equal(store_open(&st, &d->so), 0);
	st->vol = d->x.v;
	return st;
}

static inline void dv_open(struct drive *d)
{
	*d = (struct drive){0};
	fx_open(&d->x, 6, 4, 2);
	randombytes_buf(d->kit, sizeof d->kit);
	assert_int_equal(owner_new(&d->owner, d->kit), 0);
	d->dev.number = 1;
	memcpy(d->dev.ed_pk, keys_device_pk(d->x.v->keys), 32);
	d->po = (struct publish_opts){
		.interval_ms = 1000000, .devices = &d->dev, .device_cnt = 1};
	memcpy(d->po.owner_pk, d->owner->ed_pk, 32);
	snprintf(d->dir, sizeof d->dir, "%s/state", d->x.base);
	d->st = dv_store(d, d->dir);
	pthread_mutex_lock(&d->st->meta);
	assert_int_equal(store_set_device(d->st, 1), 0);
	pthread_mutex_unlock(&d->st->meta);
	assert_int_equal(store_init_root(d->st, 0, 0, 0755), 0);
	assert_int_equal(store_commit(d->st), 0);
}

static inline void dv_start(struct drive *d)
{
	assert_int_equal(publish_start(&d->p, d->st, &d->po), 0);
}

static inline void dv_stop(struct drive *d)
{
	publish_stop(d->p);
	d->p = NULL;
}

static inline void dv_close(struct drive *d)
{
	if (d->p)
		dv_stop(d);
	if (d->st)
		assert_int_equal(store_close(d->st), 0);
	owner_free(d->owner);
	fx_close(&d->x);
}

static inline int dv_publish(struct drive *d)
{
	return publish_wait(d->p, false, now_ms() + 20000);
}

/* A file of the store, made when absent, written at off. */
static inline struct inode *dv_file(struct store *st, uint64_t dir, const char *name)
{
	struct meta_new n = {.mode = S_IFREG | 0644, .uid = 1000, .gid = 1000};
	struct inode *in;

	if (meta_lookup(st, dir, name, strlen(name), &in))
		assert_int_equal(meta_create(st, dir, name, strlen(name), &n, &in), 0);
	return in;
}

static inline void dv_write(struct store *st, uint64_t dir, const char *name, uint64_t off,
			    size_t len, uint32_t seed)
{
	struct inode *in = dv_file(st, dir, name);
	uint8_t *p = malloc(len + 1);

	fx_fill(p, len, seed);
	assert_int_equal(data_write(st, in, p, len, off, false), 0);
	free(p);
	inode_put(st, in);
}

static inline uint64_t dv_mkdir(struct store *st, uint64_t dir, const char *name)
{
	struct meta_new n = {.mode = S_IFDIR | 0755};
	struct inode *in;

	assert_int_equal(meta_create(st, dir, name, strlen(name), &n, &in), 0);
	uint64_t ino = in->ino;

	inode_put(st, in);
	return ino;
}

/* --- the tree as text --- */

struct dv_names {
	struct {
		char name[256];
		uint64_t ino;
	} * e;
	size_t cnt, cap;
};

static inline int dv_entry(void *arg, const struct meta_entry *e)
{
	struct dv_names *n = arg;

	if (n->cnt == n->cap) {
		n->cap = n->cap ? 2 * n->cap : 64;
		n->e = realloc(n->e, n->cap * sizeof *n->e);
	}
	memcpy(n->e[n->cnt].name, e->name, e->len);
	n->e[n->cnt].name[e->len] = 0;
	n->e[n->cnt++].ino = e->ino;
	return 0;
}

static inline int dv_by_name(const void *a, const void *b)
{
	return strcmp(a, b);
}

static inline void dv_text(struct buf *out, const char *fmt, ...)
{
	char line[1024];
	va_list ap;

	va_start(ap, fmt);
	int n = vsnprintf(line, sizeof line, fmt, ap);
	va_end(ap);
	buf_put(out, line, (size_t)n);
}

static inline void dv_dump_data(struct store *st, struct inode *in, struct buf *out)
{
	uint64_t h = 0xcbf29ce484222325u, off = 0;
	static uint8_t p[1 << 20];
	int64_t n;

	while ((n = data_read(st, in, p, sizeof p, off)) > 0) {
		for (int64_t i = 0; i < n; i++)
			h = (h ^ p[i]) * 0x100000001b3u;
		off += (uint64_t)n;
	}
	dv_text(out, " data %lld %llu %016llx", (long long)n, (unsigned long long)off,
		(unsigned long long)h);
}

static inline void dv_dump_dir(struct store *st, uint64_t ino, const char *path,
			       struct buf *out)
{
	struct dv_names names = {0};
	struct buf x = {0};
	struct inode *in;
	struct stat s;
	int64_t btime;

	if (inode_get(st, ino, &in)) {
		dv_text(out, "%s MISSING\n", path);
		return;
	}
	inode_stat(st, in, &s, &btime);
	dv_text(out, "%s ino %llx mode %o uid %u nlink %u size %llu mtime %lld.%ld b %lld",
		path, (unsigned long long)ino, s.st_mode, s.st_uid, (unsigned)s.st_nlink,
		(unsigned long long)s.st_size, (long long)s.st_mtim.tv_sec, s.st_mtim.tv_nsec,
		(long long)btime);
	if (S_ISREG(s.st_mode))
		dv_dump_data(st, in, out);
	if (S_ISLNK(s.st_mode)) {
		assert_int_equal(meta_readlink(st, in, &x), 0);
		buf_u8(&x, 0);
		dv_text(out, " -> %s", (char *)x.p);
	}
	buf_reset(&x);
	assert_true(meta_listxattr(st, in, &x) >= 0);
	for (size_t i = 0; i < x.len; i += strlen((char *)x.p + i) + 1) {
		struct buf v = {0};

		meta_getxattr(st, in, (char *)x.p + i, &v);
		dv_text(out, " %s=%.*s", (char *)x.p + i, (int)v.len, (char *)v.p);
		buf_release(&v);
	}
	dv_text(out, "\n");
	buf_release(&x);
	inode_put(st, in);
	if (!S_ISDIR(s.st_mode))
		return;
	assert_int_equal(meta_readdir(st, ino, 0, false, dv_entry, &names), 0);
	if (names.cnt)
		qsort(names.e, names.cnt, sizeof *names.e, dv_by_name);
	for (size_t i = 0; i < names.cnt; i++) {
		char sub[4096];

		snprintf(sub, sizeof sub, "%s/%s", path, names.e[i].name);
		dv_dump_dir(st, names.e[i].ino, sub, out);
	}
	free(names.e);
}

static inline char *dv_dump(struct store *st)
{
	struct buf out = {0};

	dv_dump_dir(st, INO_ROOT, "", &out);
	buf_u8(&out, 0);
	return (char *)out.p;
}

static inline void dv_found(void *arg, const char *what)
{
	(void)arg;
	fprintf(stderr, "check: %s\n", what);
}

static inline int64_t dv_check(struct store *st, bool nodes)
{
	struct check_opts o = {.nodes = nodes, .found = dv_found};

	return check_store(st, &o);
}

/* Everything from the nodes alone, into a new store below `dir`. */
static inline int dv_recover(struct drive *d, const char *dir, struct store **out)
{
	struct hist_state hs = {0};
	struct apply *a;

	*out = dv_store(d, dir);
	pthread_mutex_lock(&(*out)->meta);
	assert_int_equal(store_set_device(*out, 2), 0);
	pthread_mutex_unlock(&(*out)->meta);
	assert_int_equal(apply_new(&a, *out, NULL, NULL), 0);
	int r = history_load(d->x.v, &d->dev, 1, NULL, 0, &hs, &apply_cb, a);

	if (!r)
		r = apply_finish(a, &hs);
	hist_state_release(&hs);
	apply_free(a);
	return r;
}

static inline void dv_drop(struct store *st, const char *dir)
{
	store_close(st);
	fx_rm_tree(dir);
}

/* The lines of a that b has not. */
static inline void dv_only(const char *side, const char *a, const char *b)
{
	while (*a) {
		const char *end = strchr(a, '\n');
		size_t len = end ? (size_t)(end - a) + 1 : strlen(a);
		char *line = strndup(a, len);

		if (!strstr(b, line))
			fprintf(stderr, "%s: %s", side, line);
		free(line);
		a += len;
	}
}

static inline bool dv_same(const char *got, const char *want)
{
	if (!strcmp(got, want))
		return true;
	dv_only("got", got, want);
	dv_only("want", want, got);
	return false;
}

static inline void dv_recovered(struct drive *d, const char *want)
{
	char dir[96];
	struct store *st;

	snprintf(dir, sizeof dir, "%s/recovered", d->x.base);
	assert_int_equal(dv_recover(d, dir, &st), 0);
	char *got = dv_dump(st);

	assert_true(dv_same(got, want));
	assert_int_equal(dv_check(st, false), 0);
	free(got);
	dv_drop(st, dir);
}

static unsigned dv_counted;

static inline int dv_count_one(const char *path, const struct stat *st, int flag,
			       struct FTW *ftw)
{
	(void)st;
	dv_counted += flag == FTW_F && path[ftw->base] != '.';
	return 0;
}

/* Files below a directory of the nodes: "s", "l". */
static inline unsigned dv_count(const char *path)
{
	dv_counted = 0;
	nftw(path, dv_count_one, 16, FTW_PHYS);
	return dv_counted;
}

static inline unsigned dv_blobs(struct drive *d, unsigned node, const char *kind)
{
	char path[128];

	snprintf(path, sizeof path, "%s/%u/%s", d->x.base, node, kind);
	return dv_count(path);
}

static inline void dv_copy_file(int from, int to, const char *name)
{
	int in = openat(from, name, O_RDONLY);
	int out = openat(to, name, O_WRONLY | O_CREAT, 0600);
	struct stat s;

	assert_true(out >= 0);
	if (in >= 0) {
		assert_int_equal(fstat(in, &s), 0);
		assert_int_equal(ftruncate(out, s.st_size), 0);
		for (loff_t left = s.st_size; left > 0;) {
			ssize_t n = copy_file_range(in, NULL, out, NULL, (size_t)left, 0);

			assert_true(n > 0);
			left -= n;
		}
		close(in);
	}
	close(out);
}

/* A copy of a directory as a crash would leave it: what the kernel has. */
static inline void dv_copy_at(int from, int to)
{
	DIR *dir = fdopendir(from);
	struct dirent *e;

	assert_non_null(dir);
	while ((e = readdir(dir))) {
		struct stat s;

		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..") ||
		    fstatat(from, e->d_name, &s, AT_SYMLINK_NOFOLLOW))
			continue;
		if (!S_ISDIR(s.st_mode)) {
			dv_copy_file(from, to, e->d_name);
			continue;
		}
		assert_int_equal(mkdirat(to, e->d_name, 0700), 0);
		dv_copy_at(openat(from, e->d_name, O_RDONLY | O_DIRECTORY),
			   openat(to, e->d_name, O_RDONLY | O_DIRECTORY));
	}
	closedir(dir);
	close(to);
}

static inline void dv_copy(const char *from, const char *to)
{
	assert_int_equal(mkdir(to, 0700), 0);
	dv_copy_at(open(from, O_RDONLY | O_DIRECTORY), open(to, O_RDONLY | O_DIRECTORY));
}

static inline uint64_t dv_number(struct store *st, const char *sql)
{
	sqlite3_stmt *q;
	uint64_t n = 0;

	pthread_mutex_lock(&st->meta);
	assert_int_equal(sqlite3_prepare_v2(st->db, sql, -1, &q, NULL), SQLITE_OK);
	if (sqlite3_step(q) == SQLITE_ROW)
		n = (uint64_t)sqlite3_column_int64(q, 0);
	sqlite3_finalize(q);
	pthread_mutex_unlock(&st->meta);
	return n;
}

/* Publishes; a recovery then sees all there is, and fsck finds nothing. */
static inline void dv_check_published(struct drive *d)
{
	char *want = dv_dump(d->st);

	assert_int_equal(dv_publish(d), 0);
	dv_recovered(d, want);
	assert_int_equal(dv_check(d->st, true), 0);
	free(want);
}

/* Before the tests of a program; VERBOSE and ONLY=name are for those who look for a fault. */
static inline int dv_init(void)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (keys_global_init())
		return -1;
	log_set_quiet(!getenv("VERBOSE"));
	if (getenv("VERBOSE"))
		log_set_level(LOG_LVL_DEBUG);
	if (getenv("ONLY"))
		cmocka_set_test_filter(getenv("ONLY"));
	return 0;
}

#endif
