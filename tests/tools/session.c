/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * session STAGE DIR LEDGER: a part of a scripted session on DIR, whose calls may fail.  LEDGER,
 * which lies elsewhere, keeps what every file may hold after each of them: what a call that
 * succeeded wrote is there; what one that failed wrote may be there or not, block by block;
 * what fsync acknowledged is there also after a crash.
 *   STAGE first, second, third   changes and reads; `old` makes what they begin with
 *         settled                the drive was closed without an error: all is durable
 *         show, verify           everything read and compared with what is there now, with what
 *                                must have survived the end of the mount
 * Ends with 0; 1: something is lost, wrong, or a success that is none, said in a line; 4: the
 * mount has gone; 5: as 0, but an fsync failed, so that the drive must say why; 6: as 0, and
 * some call failed.
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include "net/base.h"

#define BLOCK	4096u
#define BLOCKS	64u
#define OBJECTS 48u
#define NAMES	24u
#define SET	8u
#define ABSENT	0u	      /* as an object */
#define DIRS	(OBJECTS - 1) /* any directory */

/* What may be there: versions of a block, objects of a name. */
struct set {
	uint16_t v[SET];
	uint16_t cnt;
};
struct range {
	uint64_t lo, hi;
};
/* live: what is read now; kept: what may be read after a crash. */
struct object {
	struct set live[BLOCKS], kept[BLOCKS];
	struct range size, kept_size;
	uint16_t id; /* what its blocks are made of */
	uint16_t part, part_block, part_len; /* the version that was written to a block in part */
	bool failed; /* an fsync of it said EIO */
};
struct name {
	char path[32];
	struct set live, kept;
};
static struct ledger {
	struct object obj[OBJECTS];
	struct name name[NAMES];
	unsigned objects, names;
	uint16_t version;
	bool fsync_failed, failed;
} l;

static int root;
static bool gone, wrong;

/* --- the ledger --- */

static void add(struct set *s, uint16_t v)
{
	for (unsigned i = 0; i < s->cnt; i++)
		if (s->v[i] == v)
			return;
	if (s->cnt == SET)
		abort(); /* the script is too long for its sets */
	s->v[s->cnt++] = v;
}

static bool has(const struct set *s, uint16_t v)
{
	for (unsigned i = 0; i < s->cnt; i++)
		if (s->v[i] == v)
			return true;
	return false;
}

static void only(struct set *s, uint16_t v)
{
	s->cnt = 1;
	s->v[0] = v;
}

/* A change to v that was made (ok) or may have been made. */
static void change(struct set *live, struct set *kept, uint16_t v, bool ok)
{
	if (ok)
		only(live, v);
	else
		add(live, v);
	add(kept, v);
}

static void resize(struct object *o, uint64_t lo, uint64_t hi, bool ok)
{
	if (ok) {
		o->size = (struct range){lo, hi};
	} else {
		o->size.lo = HF_MIN(o->size.lo, lo);
		o->size.hi = HF_MAX(o->size.hi, hi);
	}
	o->kept_size.lo = HF_MIN(o->kept_size.lo, o->size.lo);
	o->kept_size.hi = HF_MAX(o->kept_size.hi, o->size.hi);
}

static void keep(struct object *o)
{
	memcpy(o->kept, o->live, sizeof o->kept);
	o->kept_size = o->size;
}

static struct name *name_of(const char *path)
{
	for (unsigned i = 0; i < l.names; i++)
		if (!strcmp(l.name[i].path, path))
			return &l.name[i];
	if (l.names == NAMES)
		abort();
	struct name *n = &l.name[l.names++];
	snprintf(n->path, sizeof n->path, "%s", path);
	only(&n->live, ABSENT);
	only(&n->kept, ABSENT);
	return n;
}

static uint16_t object_new(void)
{
	if (l.objects + 2 == OBJECTS)
		abort();
	struct object *o = &l.obj[++l.objects];
	o->id = (uint16_t)l.objects;
	for (unsigned b = 0; b < BLOCKS; b++) {
		only(&o->live[b], 0);
		only(&o->kept[b], 0);
	}
	return (uint16_t)l.objects;
}

/* --- calls --- */

static void violation(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	printf("\n");
	wrong = true;
}

/* Notes how a call ended; true when it did what it was asked. */
static bool done(int64_t r, const char *what, const char *path)
{
	if (r >= 0)
		return true;
	switch (errno) {
	case ENOTCONN:
	case ECONNABORTED:
		gone = true;
		break;
	case EIO:
	case ENOSPC:
	case EDQUOT:
	case ENOMEM:
	case EROFS:
	case ETIMEDOUT:
		printf("%s %s: %s\n", what, path, strerror(errno));
		break;
	default:
		violation("%s %s: %s, which says nothing of what happened", what, path,
			  strerror(errno));
	}
	l.failed = true;
	return false;
}

static void fill(uint64_t *p, unsigned id, unsigned block, unsigned version)
{
	uint64_t x = 0x9e3779b97f4a7c15u * (id * 1000003u + block * 131u + version * 7919u + 1);

	for (unsigned i = 0; i < BLOCK / 8; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		p[i] = version ? x : 0;
	}
}

/* The object at a path, when it is known for sure; else 0. */
static uint16_t at(const char *path)
{
	struct name *n = name_of(path);

	return n->live.cnt == 1 ? n->live.v[0] : ABSENT;
}

/* Is the directory there for sure that this is in? */
static bool placed(const char *path)
{
	char dir[32];

	snprintf(dir, sizeof dir, "%.*s", (int)strcspn(path, "/"), path);
	return !strchr(path, '/') || at(dir) == DIRS;
}

static int open_file(const char *path)
{
	if (gone || !at(path))
		return -1;
	int fd = openat(root, path, O_RDWR);
	return done(fd, "open", path) ? fd : -1;
}

static int create(const char *path, uint16_t *obj)
{
	struct name *n = name_of(path);

	if (gone || !placed(path) || n->live.cnt != 1 || n->live.v[0] != ABSENT)
		return -1;
	*obj = object_new();
	int fd = openat(root, path, O_RDWR | O_CREAT | O_EXCL, 0644);
	change(&n->live, &n->kept, *obj, done(fd, "create", path));
	return fd;
}

/* len 0: whole blocks; else the last one has len bytes. */
static void put(int fd, const char *path, uint16_t obj, unsigned block, unsigned cnt,
		unsigned len)
{
	static uint64_t buf[BLOCKS * BLOCK / 8];
	struct object *o = &l.obj[obj];
	size_t bytes = cnt * BLOCK - (len ? BLOCK - len : 0);
	uint64_t end = (uint64_t)block * BLOCK + bytes;

	if (fd < 0 || gone || !obj)
		return;
	uint16_t v = ++l.version;
	for (unsigned i = 0; i < cnt; i++)
		fill(buf + i * BLOCK / 8, o->id, block + i, v);
	ssize_t n = pwrite(fd, buf, bytes, (off_t)block * BLOCK);
	bool ok = done(n, "write", path) && (size_t)n == bytes;
	if (n >= 0 && (size_t)n < bytes)
		l.failed = true;
	for (unsigned i = 0; i < cnt; i++)
		change(&o->live[block + i], &o->kept[block + i], v, ok);
	if (len) {
		o->part = v;
		o->part_block = (uint16_t)(block + cnt - 1);
		o->part_len = (uint16_t)len;
	}
	if (ok)
		resize(o, HF_MAX(o->size.lo, end), HF_MAX(o->size.hi, end), true);
	else
		resize(o, o->size.lo, HF_MAX(o->size.hi, end), false);
}

static void zero(int fd, const char *path, uint16_t obj, unsigned block, unsigned cnt)
{
	struct object *o = &l.obj[obj];

	if (fd < 0 || gone || !obj)
		return;
	bool ok = done(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				 (off_t)block * BLOCK, (off_t)cnt * BLOCK),
		       "punch", path);
	for (unsigned i = 0; i < cnt; i++)
		change(&o->live[block + i], &o->kept[block + i], 0, ok);
}

static void cut(int fd, const char *path, uint16_t obj, unsigned blocks)
{
	struct object *o = &l.obj[obj];
	uint64_t to = (uint64_t)blocks * BLOCK;

	if (fd < 0 || gone || !obj)
		return;
	bool ok = done(ftruncate(fd, (off_t)to), "truncate", path);
	resize(o, to, to, ok);
	for (unsigned b = blocks; b < BLOCKS; b++)
		change(&o->live[b], &o->kept[b], 0, ok);
}

/*
 * A name is as durable as the file that was fsynced under it.  EIO stays: the pages that could
 * not be written may be gone, and whoever asks later, by whichever descriptor, must be told.
 */
static bool sync_file(int fd, const char *path, uint16_t obj, bool data)
{
	struct object *o = &l.obj[obj];

	if (fd < 0 || gone || !obj)
		return false;
	int r = data ? fdatasync(fd) : fsync(fd);
	if (r < 0 && errno == EIO)
		o->failed = l.fsync_failed = true;
	if (!done(r, data ? "fdatasync" : "fsync", path))
		return false;
	if (o->failed)
		violation("fsync %s: success after a failure", path);
	keep(o);
	for (unsigned i = 0; i < l.names; i++)
		if (l.name[i].live.cnt == 1 && l.name[i].live.v[0] == obj)
			l.name[i].kept = l.name[i].live;
	return true;
}

static void sync_dir(const char *path)
{
	if (gone || (strcmp(path, ".") && at(path) != DIRS))
		return;
	int fd = openat(root, path, O_RDONLY | O_DIRECTORY);
	if (!done(fd, "open", path))
		return;
	int r = fsync(fd);
	if (r < 0 && errno == EIO)
		l.fsync_failed = true;
	if (done(r, "fsync", path))
		for (unsigned i = 0; i < l.names; i++)
			l.name[i].kept = l.name[i].live;
	close(fd);
}

/* Both have had the file open since before it was written; each is told, and again. */
static void sync_both(int a, int b, const char *path, uint16_t obj)
{
	sync_file(a, path, obj, false);
	sync_file(b, path, obj, true);
	sync_file(a, path, obj, false);
}

static void move(const char *from, const char *to)
{
	uint16_t obj = at(from);
	struct name *f = name_of(from), *t = name_of(to);

	if (gone || !obj || t->live.cnt != 1)
		return;
	bool ok = done(renameat(root, from, root, to), "rename", from);
	change(&f->live, &f->kept, ABSENT, ok);
	change(&t->live, &t->kept, obj, ok);
}

static void join(const char *from, const char *to)
{
	uint16_t obj = at(from);
	struct name *t = name_of(to);

	if (gone || !obj || !placed(to) || t->live.cnt != 1 || t->live.v[0] != ABSENT)
		return;
	change(&t->live, &t->kept, obj, done(linkat(root, from, root, to, 0), "link", to));
}

static void drop(const char *path)
{
	struct name *n = name_of(path);

	if (gone || !at(path))
		return;
	change(&n->live, &n->kept, ABSENT, done(unlinkat(root, path, 0), "unlink", path));
}

static void make_dir(const char *path)
{
	struct name *n = name_of(path);

	if (gone || n->live.cnt != 1 || n->live.v[0] != ABSENT)
		return;
	change(&n->live, &n->kept, DIRS, done(mkdirat(root, path, 0755), "mkdir", path));
}

/* A whole file by copy_file_range: the copy has the blocks of the other one. */
static void copy(const char *from, const char *to)
{
	uint16_t src = at(from), obj = ABSENT;
	int in = open_file(from), out = in < 0 ? -1 : create(to, &obj);

	if (out >= 0) {
		struct object *s = &l.obj[src], *o = &l.obj[obj];
		uint64_t sum = 0;
		ssize_t n;
		while (sum < s->size.hi &&
		       (n = copy_file_range(in, NULL, out, NULL, s->size.hi - sum, 0)) != 0) {
			if (!done(n, "copy", to))
				break;
			sum += (uint64_t)n;
		}
		bool ok = sum >= s->size.hi;
		o->id = s->id;
		for (unsigned b = 0; b < BLOCKS; b++)
			for (unsigned i = 0; i < s->live[b].cnt; i++)
				change(&o->live[b], &o->kept[b], s->live[b].v[i], ok && !i);
		resize(o, s->size.lo, s->size.hi, ok);
	}
	if (in >= 0)
		close(in);
	if (out >= 0)
		close(out);
}

/* --- comparing --- */

static bool block_is(const uint8_t *p, size_t len, const struct object *o, unsigned block,
		     const struct set *s)
{
	static uint64_t want[BLOCK / 8];

	for (unsigned i = 0; i < s->cnt; i++) {
		fill(want, o->id, block, s->v[i]);
		/* Where what followed failed, and then the file grew. */
		if (o->part_len && s->v[i] == o->part && block == o->part_block)
			memset((uint8_t *)want + o->part_len, 0, BLOCK - o->part_len);
		if (!memcmp(p, want, len))
			return true;
	}
	return false;
}

/* NULL, or how what was read is not the object. */
static const char *differs(const uint8_t *p, uint64_t len, unsigned obj, bool kept)
{
	static char why[100];
	const struct object *o = &l.obj[obj];
	const struct range *r = kept ? &o->kept_size : &o->size;

	if (len < r->lo || len > r->hi) {
		snprintf(why, sizeof why, "size %llu, not %llu to %llu",
			 (unsigned long long)len, (unsigned long long)r->lo,
			 (unsigned long long)r->hi);
		return why;
	}
	for (unsigned b = 0; (uint64_t)b * BLOCK < len; b++)
		if (!block_is(p + b * BLOCK, HF_MIN(len - b * BLOCK, (uint64_t)BLOCK), o, b,
			      kept ? &o->kept[b] : &o->live[b])) {
			snprintf(why, sizeof why, "block %u of object %u is something else", b,
				 obj);
			return why;
		}
	return NULL;
}

static void compare(const struct name *n, bool kept, bool errors)
{
	static uint8_t buf[(BLOCKS + 1) * BLOCK];
	const struct set *s = kept ? &n->kept : &n->live;
	const char *why = "there should be none";
	uint64_t len = 0;
	struct stat st;
	ssize_t r = -1;

	if (gone)
		return;
	int fd = openat(root, n->path, O_RDONLY);
	if (fd < 0 && errno == ENOENT) {
		if (!has(s, ABSENT))
			violation("%s is not there", n->path);
		return;
	}
	if (fd >= 0 && !fstat(fd, &st) && S_ISDIR(st.st_mode)) {
		if (!has(s, DIRS))
			violation("%s is a directory", n->path);
		close(fd);
		return;
	}
	while (fd >= 0 && (r = pread(fd, buf + len, sizeof buf - len, (off_t)len)) > 0)
		len += (uint64_t)r;
	if (fd < 0 || r < 0) {
		if (!errors && errno != ENOTCONN && errno != ECONNABORTED)
			violation("read %s: %s", n->path, strerror(errno));
		else
			done(-1, "read", n->path);
		if (fd >= 0)
			close(fd);
		return;
	}
	close(fd);
	for (unsigned i = 0; i < s->cnt; i++) {
		if (s->v[i] == ABSENT || s->v[i] == DIRS)
			continue;
		why = differs(buf, len, s->v[i], kept);
		if (!why)
			return;
	}
	violation("%s: %s", n->path, why);
}

static void compare_all(bool kept, bool errors)
{
	for (unsigned i = 0; i < l.names; i++)
		compare(&l.name[i], kept, errors);
}

/* --- the script --- */

static void plain(const char *path, unsigned blocks, unsigned len, bool sync)
{
	uint16_t obj = ABSENT;
	int fd = create(path, &obj);

	put(fd, path, obj, 0, blocks, len);
	if (sync)
		sync_file(fd, path, obj, false);
	if (fd >= 0)
		close(fd);
}

static void old(void)
{
	plain("old1", 40, 0, true);
	plain("old2", 3, 0, true);
	plain("old3", 20, 0, true);
	plain("old4", 2, 100, true);
	plain("old5", 50, 0, true);
	make_dir("d");
	plain("d/x", 1, 700, true);
	sync_dir(".");
}

static void close_both(int a, int b)
{
	if (a >= 0)
		close(a);
	if (b >= 0)
		close(b);
}

static void first(void)
{
	uint16_t obj = ABSENT;
	int fd, fd2;

	/* A large file and a small one, each with a second descriptor. */
	fd = create("new1", &obj);
	fd2 = open_file("new1");
	put(fd, "new1", obj, 0, 10, 0);
	put(fd, "new1", obj, 10, 10, 0);
	sync_both(fd, fd2, "new1", obj);
	put(fd2, "new1", obj, 20, 10, 0);
	close_both(fd, fd2);
	fd = create("new2", &obj);
	fd2 = open_file("new2");
	put(fd, "new2", obj, 0, 3, 1000);
	sync_both(fd, fd2, "new2", obj);
	close_both(fd, fd2);
	sync_dir(".");

	/* As an editor saves. */
	plain("tmp", 5, 0, true);
	move("tmp", "old2");
	sync_dir(".");

	/* What is published changes: in place, shorter, longer. */
	obj = at("old1");
	fd = open_file("old1");
	put(fd, "old1", obj, 3, 4, 0);
	put(fd, "old1", obj, 40, 5, 0);
	sync_file(fd, "old1", obj, true);
	put(fd, "old1", obj, 12, 2, 0);
	if (fd >= 0)
		close(fd);
	obj = at("old3");
	fd = open_file("old3");
	cut(fd, "old3", obj, 10);
	sync_file(fd, "old3", obj, false);
	put(fd, "old3", obj, 8, 6, 0);
	if (fd >= 0)
		close(fd);

	drop("old4");
	make_dir("e");
	plain("e/y", 2, 0, false);
	join("new2", "e/new2");
	sync_dir("e");
	compare_all(false, true);
}

static void second(void)
{
	uint16_t obj;
	int fd, fd2;

	compare_all(false, true);
	obj = at("old1");
	fd = open_file("old1");
	fd2 = open_file("old1");
	put(fd, "old1", obj, 0, 11, 0);
	sync_both(fd, fd2, "old1", obj);
	put(fd2, "old1", obj, 30, 3, 0);
	close_both(fd, fd2);

	obj = at("new1");
	fd = open_file("new1");
	zero(fd, "new1", obj, 5, 4);
	put(fd, "new1", obj, 18, 3, 0);
	cut(fd, "new1", obj, 50);
	sync_file(fd, "new1", obj, false);
	put(fd, "new1", obj, 45, 3, 0);
	if (fd >= 0)
		close(fd);
	move("new1", "old3");
	copy("old5", "copy");
	sync_dir(".");

	/* A small one grows into a large one. */
	obj = at("d/x");
	fd = open_file("d/x");
	put(fd, "d/x", obj, 0, 2, 0);
	sync_file(fd, "d/x", obj, false);
	put(fd, "d/x", obj, 2, 30, 0);
	sync_file(fd, "d/x", obj, false);
	if (fd >= 0)
		close(fd);
	compare_all(false, true);
}

static void third(void)
{
	uint16_t obj;
	int fd;

	drop("old3");
	drop("e/new2");
	obj = at("old5");
	fd = open_file("old5");
	put(fd, "old5", obj, 0, 50, 0);
	sync_file(fd, "old5", obj, false);
	if (fd >= 0)
		close(fd);
	plain("last", 1, 10, true);
	sync_dir(".");
	compare_all(false, true);
}

static int load(const char *path)
{
	int fd = open(path, O_RDONLY);

	if (fd < 0)
		return errno == ENOENT ? 0 : -1;
	ssize_t n = read(fd, &l, sizeof l);
	close(fd);
	return n == sizeof l ? 0 : -1;
}

static int save(const char *path)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	if (fd < 0)
		return -1;
	ssize_t n = write(fd, &l, sizeof l);
	return close(fd) || n != sizeof l ? -1 : 0;
}

int main(int argc, char **argv)
{
	static const struct {
		const char *stage;
		void (*run)(void);
	} all[] = {{"old", old}, {"first", first}, {"second", second}, {"third", third}};
	const char *stage = argc == 4 ? argv[1] : "";
	bool staged = false;

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc != 4 || load(argv[3]))
		return 2;
	if (strcmp(stage, "settled")) {
		struct stat at, above;
		root = open(argv[2], O_RDONLY | O_DIRECTORY);
		if (root < 0) {
			printf("%s: %s\n", argv[2], strerror(errno));
			return errno == ENOTCONN || errno == ECONNABORTED ? 4 : 6;
		}
		/* What is below a mount that has gone is no drive. */
		if (!fstat(root, &at) && !fstatat(root, "..", &above, 0) &&
		    at.st_dev == above.st_dev) {
			printf("%s: nothing is mounted there\n", argv[2]);
			return 4;
		}
	}
	l.failed = false;
	if (!strcmp(stage, "settled")) {
		for (unsigned i = 1; i <= l.objects; i++)
			keep(&l.obj[i]);
		for (unsigned i = 0; i < l.names; i++)
			l.name[i].kept = l.name[i].live;
	} else if (!strcmp(stage, "show") || !strcmp(stage, "verify")) {
		compare_all(*stage == 'v', false);
	}
	for (size_t i = 0; i < sizeof all / sizeof *all; i++)
		if (!strcmp(stage, all[i].stage)) {
			staged = true;
			all[i].run();
		}
	if (save(argv[3]))
		return 2;
	if (!staged)
		return wrong ? 1 : gone ? 4 : 0;
	return wrong ? 1 : gone ? 4 : l.fsync_failed ? 5 : l.failed ? 6 : 0;
}
