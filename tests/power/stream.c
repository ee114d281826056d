/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * stream: random operations on a drive, and what may be found of them after a power cut.
 *
 *	stream run LEDGER DIR SEED THREADS CUTS GAP PID HOLDFAST VOLUME DATA
 *		Threads, each in a directory of its own below DIR, until recdisk has made CUTS
 *		cuts, one about every GAP operations.  PID is the daemon's.  A further thread
 *		does what the kernel does at any moment: it begins to write back parts of the
 *		files below DATA, the drive's cache files; nothing waits for it.
 *	stream verify LEDGER ACKED DIR [published | C...]
 *		Is what DIR holds now a state after the cut that ACKED (recdisk) belongs to?
 *		Prints "state C..." with how many operations of each thread are there.
 *		published: as recovered from the nodes; C...: at least these must be there.
 *
 * The rule.  There is one instant of the drive's history, and
 *   - names, link counts, modes, attributes, and contents of files up to 64 KiB are as at it;
 *   (a write that the kernel made several requests of may be there in part)
 *   - a larger file, and one that was synced over and over, is as at an instant not after it, but
 *     not before its last fsync, nor before it was last renamed or linked; where it was
 *     overwritten later, unit by unit the new or the old may be there, never anything else;
 *   - what was done before any fsync was called that was acknowledged, is there.
 * Of what was published, contents of all files are as at the instant, and what was done before
 * a `holdfast sync` that ended is there.
 */
#include <dirent.h>
#include <pthread.h>
#include <spawn.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include "net/base.h"
#include "tests/power/model.h"

#define WARM_UP	  150u
#define LEAVES	  12u
#define DIRS	  4u
#define BAD	  UINT32_MAX
#define WRITE_MAX 600u /* units: one request of the kernel */

extern char **environ;

static const char *const words[] = {
	"",	  "create", "mkdir", "write", "truncate", "punch",     "rename",   "link",
	"unlink", "rmdir",  "chmod", "xattr", "fsync",	  "fdatasync", "fsyncdir", "sync"};
static struct ledger *l;
static char **opt; /* run's arguments from DIR on */

static int64_t clock_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void die(const char *fmt, ...)
{
	va_list ap;
	int e = errno;

	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	printf(": %s\n", strerror(e));
	fflush(stdout);
	_exit(1);
}

/* --- contents --- */

static void fill(uint64_t *p, unsigned thread, uint32_t obj, uint32_t unit, uint32_t version)
{
	uint64_t x = 0x9e3779b97f4a7c15u *
		     (thread * 1000003u + obj * 7919u + (uint64_t)unit * 131u + version + 1);

	p[0] = (uint64_t)unit << 32 | version;
	for (unsigned i = 1; i < UNIT / 8; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		p[i] = x;
	}
}

/* The version of a unit that was read; BAD: nobody ever wrote that. */
static uint32_t version_of(const uint64_t *p, unsigned thread, uint32_t obj, uint32_t unit)
{
	uint64_t want[UNIT / 8] = {0};
	uint32_t version = (uint32_t)p[0];

	if (version)
		fill(want, thread, obj, unit, version);
	return memcmp(p, want, UNIT) ? BAD : version;
}

/* Everything of a file; -1: errno. */
static int contents(int fd, unsigned thread, uint32_t obj, uint32_t *v, uint32_t *units)
{
	static __thread uint64_t buf[UNITS_MAX * UNIT / 8 + UNIT / 8];
	size_t len = 0;
	ssize_t n;

	while ((n = pread(fd, (char *)buf + len, sizeof buf - len, (off_t)len)) > 0)
		len += (size_t)n;
	if (n < 0)
		return -1;
	*units = (uint32_t)((len + UNIT - 1) / UNIT);
	if (len % UNIT || *units > UNITS_MAX) {
		*units = BAD;
		return 0;
	}
	for (uint32_t u = 0; u < *units; u++)
		v[u] = version_of(buf + u * UNIT / 8, thread, obj, u);
	return 0;
}

/* --- the stream --- */

struct thread {
	pthread_t id;
	unsigned number, syncs; /* syncs: of a hundred that were chosen, these are made */
	uint64_t rnd;
	struct model m;
	int root;
	char path[100], path2[100];
};

static uint32_t rnd(struct thread *t, uint32_t n)
{
	t->rnd ^= t->rnd << 13;
	t->rnd ^= t->rnd >> 7;
	t->rnd ^= t->rnd << 17;
	return (uint32_t)((t->rnd >> 11) % n);
}

static void path_of(struct thread *t, char *out, uint32_t dir, uint8_t leaf)
{
	char up[100] = "";

	for (uint32_t i = 0; dir && i < t->m.entries; i++)
		if (t->m.entry[i].obj == dir) {
			path_of(t, up, t->m.entry[i].dir, t->m.entry[i].leaf);
			strcat(up, "/");
			break;
		}
	sprintf(out, "%s%c", up, 'a' + leaf);
}

static struct entry *pick(struct thread *t, bool dir)
{
	uint32_t n = t->m.entries, at = n ? rnd(t, n) : 0;

	for (uint32_t i = 0; i < n; i++) {
		struct entry *e = &t->m.entry[(at + i) % n];
		if (t->m.obj[e->obj].dir == dir)
			return e;
	}
	return NULL;
}

static uint32_t pick_dir(struct thread *t)
{
	struct entry *e = rnd(t, 2) ? pick(t, true) : NULL;

	return e ? e->obj : 0;
}

static uint32_t dirs(const struct thread *t)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < t->m.entries; i++)
		n += t->m.obj[t->m.entry[i].obj].dir;
	return n;
}

static bool empty(const struct thread *t, uint32_t dir)
{
	for (uint32_t i = 0; i < t->m.entries; i++)
		if (t->m.entry[i].dir == dir)
			return false;
	return true;
}

static bool below(struct thread *t, uint32_t dir, uint32_t top)
{
	while (dir && dir != top)
		for (uint32_t i = 0; i < t->m.entries; i++)
			if (t->m.entry[i].obj == dir) {
				dir = t->m.entry[i].dir;
				break;
			}
	return dir == top;
}

/* What to do next; false: nothing, another toss. */
static bool choose(struct thread *t, struct op *p)
{
	static const uint32_t few[] = {1, 3, 8, 20, 60, 120}, many[] = {140, 200, 400, 600};
	struct entry *e = NULL;
	uint32_t toss = rnd(t, 1000);

	*p = (struct op){0};
	if (toss < 130) {
		p->kind = toss < 110 ? OP_CREATE : OP_MKDIR;
		p->obj = t->m.objects;
		p->dir = pick_dir(t);
		p->leaf = (uint8_t)rnd(t, LEAVES);
		return t->m.objects < OBJECTS_MAX && t->m.entries < 40 &&
		       (p->kind == OP_CREATE || dirs(t) < DIRS) &&
		       !model_find(&t->m, p->dir, p->leaf);
	}
	if (toss < 240) {
		bool linking = toss >= 200;
		e = pick(t, !linking && toss < 140);
		if (!e)
			return false;
		p->kind = linking ? OP_LINK : OP_RENAME;
		p->obj = e->obj;
		p->dir = e->dir;
		p->leaf = e->leaf;
		p->dir2 = pick_dir(t);
		p->leaf2 = (uint8_t)rnd(t, LEAVES);
		struct object *o = &t->m.obj[p->obj];
		struct entry *there = model_find(&t->m, p->dir2, p->leaf2);
		if (linking)
			return !there && t->m.entries < 40;
		/* Two names of one file: rename does nothing. */
		if (there && (there->obj == p->obj || t->m.obj[there->obj].dir || o->dir))
			return false;
		return !o->dir || !below(t, p->dir2, p->obj);
	}
	if (toss < 300) {
		e = pick(t, toss < 250);
		if (!e || (t->m.obj[e->obj].dir && !empty(t, e->obj)))
			return false;
		p->kind = t->m.obj[e->obj].dir ? OP_RMDIR : OP_UNLINK;
		p->obj = e->obj;
		p->dir = e->dir;
		p->leaf = e->leaf;
		return true;
	}
	e = pick(t, false);
	if (!e)
		return false;
	struct object *o = &t->m.obj[e->obj];
	p->obj = e->obj;
	p->dir = e->dir;
	p->leaf = e->leaf;
	if (toss < 700) {
		p->kind = OP_WRITE;
		p->len = 1 + (toss < 600 ? rnd(t, few[rnd(t, 6)]) : rnd(t, many[rnd(t, 4)]));
		/* Appended, overwritten, a hole left. */
		p->off = rnd(t, 3) == 0	  ? o->units
			 : o->units	  ? rnd(t, o->units)
			 : rnd(t, 8) == 0 ? rnd(t, 300)
					  : 0;
		return p->off + p->len <= UNITS_MAX;
	}
	if (toss < 750) {
		p->kind = OP_TRUNCATE;
		p->len = rnd(t, 3) ? rnd(t, o->units + 1) : rnd(t, o->units + 100);
		return p->len <= UNITS_MAX;
	}
	if (toss < 770) {
		p->kind = OP_PUNCH;
		if (!o->units)
			return false;
		p->off = rnd(t, o->units);
		p->len = 1 + rnd(t, o->units - p->off);
		return true;
	}
	if (toss < 830) {
		p->kind = toss < 800 ? OP_CHMOD : OP_XATTR;
		p->len = p->kind == OP_CHMOD ? 0400 + rnd(t, 0400) : 1 + rnd(t, 1000000);
		return true;
	}
	/* The fewer there are, the more the disk has that was not flushed. */
	if (toss < 998 && rnd(t, 100) >= t->syncs)
		return false;
	p->kind = toss < 900 ? OP_FSYNC : toss < 960 ? OP_FDATASYNC : OP_FSYNCDIR;
	if (p->kind == OP_FSYNCDIR)
		p->dir = pick_dir(t);
	if (toss >= 999 && !t->number)
		p->kind = OP_PUBLISH;
	return true;
}

static int publish(void)
{
	char *args[] = {opt[6], "sync", opt[7], NULL};
	posix_spawn_file_actions_t fa;
	int status;
	pid_t pid;

	posix_spawn_file_actions_init(&fa);
	posix_spawn_file_actions_addopen(&fa, 1, "/dev/null", O_WRONLY, 0);
	int err = posix_spawn(&pid, opt[6], &fa, NULL, args, environ);
	posix_spawn_file_actions_destroy(&fa);
	if (err || waitpid(pid, &status, 0) != pid || !WIFEXITED(status) ||
	    WEXITSTATUS(status)) {
		errno = err ? err : EIO;
		return -1;
	}
	return 0;
}

static int with_file(struct thread *t, struct op *p, int fd)
{
	static __thread uint64_t buf[WRITE_MAX * UNIT / 8];
	struct stat s;

	switch ((enum op_kind)p->kind) {
	case OP_CREATE:
		if (fstat(fd, &s) < 0)
			return -1;
		p->ino = s.st_ino;
		return 0;
	case OP_WRITE:
		for (uint32_t u = 0; u < p->len; u++)
			fill(buf + u * UNIT / 8, t->number, p->obj, p->off + u, t->m.done + 1);
		errno = EIO;
		return pwrite(fd, buf, p->len * UNIT, (off_t)p->off * UNIT) ==
				       (ssize_t)(p->len * UNIT)
			       ? 0
			       : -1;
	case OP_TRUNCATE:
		return ftruncate(fd, (off_t)p->len * UNIT);
	case OP_PUNCH:
		return fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				 (off_t)p->off * UNIT, (off_t)p->len * UNIT);
	case OP_CHMOD:
		return fchmod(fd, p->len);
	case OP_XATTR:
		return fsetxattr(fd, "user.power", &p->len, sizeof p->len, 0);
	case OP_FDATASYNC:
		return fdatasync(fd);
	default:
		return fsync(fd);
	}
}

static int perform(struct thread *t, struct op *p)
{
	struct stat s;
	int fd, r;

	path_of(t, t->path, p->dir, p->leaf);
	switch ((enum op_kind)p->kind) {
	case OP_MKDIR:
		r = mkdirat(t->root, t->path, 0755);
		if (!r)
			r = fstatat(t->root, t->path, &s, 0);
		p->ino = s.st_ino;
		return r;
	case OP_RENAME:
	case OP_LINK:
		path_of(t, t->path2, p->dir2, p->leaf2);
		return p->kind == OP_RENAME ? renameat(t->root, t->path, t->root, t->path2)
					    : linkat(t->root, t->path, t->root, t->path2, 0);
	case OP_UNLINK:
	case OP_RMDIR:
		return unlinkat(t->root, t->path, p->kind == OP_RMDIR ? AT_REMOVEDIR : 0);
	case OP_PUBLISH:
		return publish();
	case OP_FSYNCDIR:
		if (p->dir)
			path_of(t, t->path, p->dir, 0);
		t->path[p->dir ? strlen(t->path) - 2 : 0] = 0;
		fd = openat(t->root, p->dir ? t->path : ".", O_RDONLY | O_DIRECTORY);
		break;
	case OP_CREATE:
		fd = openat(t->root, t->path, O_RDWR | O_CREAT | O_EXCL, 0644);
		break;
	default:
		fd = openat(t->root, t->path, O_RDWR);
	}
	r = fd < 0 ? -1 : with_file(t, p, fd);
	if (fd >= 0)
		close(fd);
	return r;
}

/* A file as it must be right now. */
static void look(struct thread *t)
{
	static __thread uint32_t v[UNITS_MAX + 1];
	struct entry *e = pick(t, false);
	uint32_t units = 0;

	if (!e)
		return;
	path_of(t, t->path, e->dir, e->leaf);
	struct object *o = &t->m.obj[e->obj];
	int fd = openat(t->root, t->path, O_RDONLY);
	if (fd < 0 || contents(fd, t->number, e->obj, v, &units))
		die("thread %u: reading %s", t->number, t->path);
	close(fd);
	errno = EIO;
	if (units != o->units)
		die("thread %u: %s has %u units, not %u", t->number, t->path, units, o->units);
	for (uint32_t u = 0; u < units; u++)
		if (v[u] != model_unit(o, u))
			die("thread %u: %s, unit %u: %u, not %u", t->number, t->path, u, v[u],
			    model_unit(o, u));
}

static void *thread_main(void *arg)
{
	struct thread *t = arg;
	struct op *ops = l->op[t->number];

	while (!l->stop && t->m.done < OPS_MAX) {
		struct op *p = &ops[t->m.done];
		if (!rnd(t, 50))
			look(t);
		if (!choose(t, p))
			continue;
		p->begin_ns = clock_ns();
		atomic_store(&l->thread[t->number].begun, t->m.done + 1);
		if (perform(t, p))
			die("thread %u, operation %u: %s %s %s", t->number, t->m.done,
			    words[p->kind], t->path, t->path2);
		p->end_ns = clock_ns();
		atomic_store(&l->thread[t->number].acked, t->m.done + 1);
		model_apply(&t->m, p);
		if (t->m.done == WARM_UP)
			l->go = 1;
	}
	l->stop = 1;
	return NULL;
}

static void some_file(struct thread *t, const char *dir, char out[300])
{
	unsigned seen = 0;
	struct dirent *e;
	DIR *d = opendir(dir);

	*out = 0;
	while (d && (e = readdir(d)))
		if (e->d_name[0] != '.' && !rnd(t, ++seen))
			snprintf(out, 300, "%s/%.60s", dir, e->d_name);
	if (d)
		closedir(d);
}

static void *writeback_main(void *arg)
{
	struct thread *t = arg;
	char dir[300], file[300];

	while (!l->stop) {
		some_file(t, opt[8], dir);
		some_file(t, dir, file);
		int fd = open(file, O_RDONLY | O_CLOEXEC);
		if (fd >= 0) {
			sync_file_range(fd, rnd(t, 300) * 1024, (rnd(t, 400) + 1) * 1024,
					SYNC_FILE_RANGE_WRITE);
			close(fd);
		}
		nanosleep(&(struct timespec){0, (long)rnd(t, 3000000)}, NULL);
	}
	return NULL;
}

static void thread_init(struct thread *t, unsigned number, uint64_t seed)
{
	static const unsigned syncs[] = {100, 25, 4};

	t->number = number;
	t->syncs = syncs[seed % 3];
	t->rnd = (seed + number * 77777u + 1) * 0x9e3779b97f4a7c15u | 1;
	for (int i = 0; i < 8; i++)
		rnd(t, 2);
}

static int run(const char *ledger, char **argv)
{
	static struct thread t[THREADS_MAX + 1];
	unsigned threads = (unsigned)atoi(argv[2]);

	opt = argv;
	l = ledger_map(ledger);
	if (!l || !threads || threads > THREADS_MAX)
		die("%s", ledger);
	l->wanted = (unsigned)atoi(argv[3]);
	l->gap = (unsigned)atoi(argv[4]);
	l->pid = atoi(argv[5]);
	l->threads = threads;
	for (unsigned i = 0; i < threads; i++) {
		char path[600];
		struct stat s;

		thread_init(&t[i], i, strtoull(argv[1], NULL, 10));
		snprintf(path, sizeof path, "%s/t%u", argv[0], i);
		if (mkdir(path, 0755) < 0 && errno != EEXIST)
			die("%s", path);
		t[i].root = open(path, O_RDONLY | O_DIRECTORY);
		if (t[i].root < 0 || fstat(t[i].root, &s) < 0 || fsync(t[i].root) < 0)
			die("%s", path);
		model_init(&t[i].m, s.st_ino);
	}
	thread_init(&t[threads], threads, strtoull(argv[1], NULL, 10));
	for (unsigned i = 0; i <= threads; i++)
		if (pthread_create(&t[i].id, NULL, i < threads ? thread_main : writeback_main,
				   &t[i]))
			die("a thread");
	for (unsigned i = 0; i <= threads; i++)
		pthread_join(t[i].id, NULL);
	for (unsigned i = 0; i < threads; i++)
		printf("thread %u: %u operations\n", i, t[i].m.done);
	printf("%u cuts\n", l->cuts);
	return l->cuts == l->wanted ? 0 : 1;
}

/* --- verifying --- */

struct seen {
	uint64_t ino;
	uint32_t *unit, units, nlink, mode, xattr, obj;
	bool dir, lax;
	/* lax: until when (operations) what is there was there; its sizes over time */
	int64_t until;
	uint32_t which; /* the unit that says so */
	uint32_t sync;
	struct size {
		uint32_t at, end, lo, hi; /* of operations, of units */
	} * size;
	uint32_t sizes;
};

struct name {
	uint64_t dir, ino;
	uint8_t leaf;
};

struct view {
	unsigned thread;
	uint32_t acked, begun, floor, at_least;
	struct seen seen[ENTRIES_MAX + 1];
	struct name name[ENTRIES_MAX];
	uint32_t seens, names;
	struct window {
		int64_t lo, hi;
		uint32_t c;
	} * window;
	uint32_t windows;
};

static struct seen *seen_of(struct view *v, uint64_t ino)
{
	for (uint32_t i = 0; i < v->seens; i++)
		if (v->seen[i].ino == ino)
			return &v->seen[i];
	return NULL;
}

static uint32_t object_of(const struct view *v, uint64_t ino)
{
	const struct op *ops = l->op[v->thread];
	uint32_t obj = BAD;

	for (uint32_t i = 0; i < v->begun; i++)
		if ((ops[i].kind == OP_CREATE || ops[i].kind == OP_MKDIR) && ops[i].ino == ino)
			obj = ops[i].obj;
	return obj;
}

static void read_entry(struct view *v, int dir, uint64_t parent, const char *name);

static void read_dir(struct view *v, int fd, uint64_t ino)
{
	struct dirent *e;
	DIR *d = fdopendir(fd);

	if (!d)
		die("thread %u: a directory", v->thread);
	while (errno = 0, (e = readdir(d)))
		if (strcmp(e->d_name, ".") && strcmp(e->d_name, ".."))
			read_entry(v, dirfd(d), ino, e->d_name);
	if (errno)
		die("thread %u: reading a directory", v->thread);
	closedir(d);
}

static void read_entry(struct view *v, int dir, uint64_t parent, const char *name)
{
	struct stat s;

	int fd = openat(dir, name, O_RDONLY | O_NOFOLLOW);
	if (fd < 0 || fstat(fd, &s) < 0)
		die("thread %u: opening %s", v->thread, name);
	errno = EINVAL;
	if (name[1] || *name < 'a' || *name >= (int)('a' + LEAVES) || v->names == ENTRIES_MAX)
		die("thread %u: there is a %s", v->thread, name);
	v->name[v->names++] = (struct name){parent, s.st_ino, (uint8_t)(*name - 'a')};
	if (seen_of(v, s.st_ino)) {
		close(fd);
		return;
	}
	struct seen *n = &v->seen[v->seens++];
	*n = (struct seen){.ino = s.st_ino,
			   .nlink = (uint32_t)s.st_nlink,
			   .mode = s.st_mode & 07777,
			   .dir = S_ISDIR(s.st_mode),
			   .obj = object_of(v, s.st_ino)};
	if (n->obj == BAD)
		die("thread %u: %s is an inode that nobody made", v->thread, name);
	if (n->dir) {
		read_dir(v, fd, s.st_ino);
		return;
	}
	ssize_t x = fgetxattr(fd, "user.power", &n->xattr, sizeof n->xattr);
	if (x < 0 && errno != ENODATA)
		die("thread %u: attribute of %s", v->thread, name);
	n->unit = calloc(UNITS_MAX + 1, sizeof *n->unit);
	if (!n->unit || contents(fd, v->thread, n->obj, n->unit, &n->units))
		die("thread %u: reading %s, object %u", v->thread, name, n->obj);
	for (uint32_t u = 0; n->units != BAD && u < n->units; u++)
		if (n->unit[u] == BAD) {
			errno = EILSEQ;
			die("thread %u: %s, object %u, unit %u of %u is what nobody wrote",
			    v->thread, name, n->obj, u, n->units);
		}
	close(fd);
}

static void changed(struct seen *n, const struct object *o, uint32_t from, uint32_t to,
		    uint32_t version, uint32_t done, int64_t *until)
{
	to = HF_MIN(to, n->units);
	for (uint32_t u = from; u < to; u++)
		if (model_unit(o, u) != version && model_unit(o, u) == n->unit[u])
			until[u] = done;
}

/* What is known of larger files over the whole history: until, sizes, fsyncs. */
static void history(struct view *v, uint64_t root)
{
	static int64_t *until[ENTRIES_MAX + 1];
	const struct op *ops = l->op[v->thread];
	struct model m;

	model_init(&m, root);
	m.keep = true;
	for (uint32_t i = 0; i < v->seens; i++) {
		until[i] = malloc(UNITS_MAX * sizeof **until);
		if (!until[i])
			die("memory");
		for (uint32_t u = 0; u < UNITS_MAX; u++)
			until[i][u] = -1;
		v->seen[i].size = malloc(2 * (v->begun + 1) * sizeof *v->seen[i].size);
		v->seen[i].lax = false;
	}
	for (uint32_t k = 0; k < v->begun; k++) {
		const struct op *p = &ops[k];
		struct seen *n = NULL;
		for (uint32_t i = 0; i < v->seens && !n; i++)
			if (v->seen[i].obj == p->obj && !v->seen[i].dir)
				n = &v->seen[i];
		struct object *o = &m.obj[p->obj];
		int64_t *un = n ? until[n - v->seen] : NULL;
		if (n && n->units != BAD && p->kind == OP_WRITE)
			changed(n, o, p->off, p->off + p->len, k + 1, k, un);
		else if (n && n->units != BAD && p->kind == OP_PUNCH)
			changed(n, o, p->off, p->off + p->len, 0, k, un);
		else if (n && n->units != BAD && p->kind == OP_TRUNCATE && p->len < o->units)
			changed(n, o, p->len, o->units, 0, k, un);
		uint32_t was = o->units;
		model_apply(&m, p);
		if (!n)
			continue;
		if (!n->sizes || was != o->units) {
			if (n->sizes)
				n->size[n->sizes - 1].end = k;
			if (p->kind == OP_WRITE)
				n->size[n->sizes++] = (struct size){k, k, was, o->units};
			n->size[n->sizes++] = (struct size){k + 1, BAD, o->units, o->units};
		}
		n->lax |= o->large;
		if ((p->kind == OP_FSYNC || p->kind == OP_FDATASYNC) && k < v->acked)
			n->sync = k + 1;
	}
	for (uint32_t i = 0; i < v->seens; i++) {
		struct seen *n = &v->seen[i];
		n->until = INT64_MAX;
		for (uint32_t u = 0; n->units != BAD && u < n->units; u++)
			if (!n->dir && model_unit(&m.obj[n->obj], u) != n->unit[u] &&
			    until[i][u] < n->until) {
				n->until = until[i][u];
				n->which = u;
			}
		free(until[i]);
	}
	for (uint32_t i = 0; i < m.objects; i++)
		free(m.obj[i].unit);
	free(m.obj);
}

/* NULL, or why what is there of a file is not it after the operations of m. */
static const char *file_differs(const struct view *v, const struct model *m,
				const struct seen *n, bool exact)
{
	static char why[200];
	const struct object *o = &m->obj[n->obj];

	if (!n->lax || exact) {
		if (n->units != o->units)
			return snprintf(why, sizeof why, "object %u has %u units, not %u",
					n->obj, n->units, o->units),
			       why;
		for (uint32_t u = 0; u < n->units; u++)
			if (n->unit[u] != model_unit(o, u))
				return snprintf(why, sizeof why,
						"object %u, unit %u of %u: version %u, not %u",
						n->obj, u, n->units, n->unit[u],
						model_unit(o, u)),
				       why;
		return NULL;
	}
	uint32_t from = HF_MAX(HF_MAX(n->sync, o->named), v->at_least);
	int64_t to = HF_MIN((int64_t)m->done, n->until);
	for (uint32_t i = 0; i < n->sizes; i++)
		if (n->size[i].lo <= n->units && n->units <= n->size[i].hi &&
		    n->size[i].at <= to && n->size[i].end >= from && from <= to)
			return NULL;
	snprintf(why, sizeof why,
		 "larger object %u: its %u units are not as at an instant from %u to %u "
		 "(unit %u, version %u, until %lld)",
		 n->obj, n->units, from, m->done, n->which, n->unit[n->which],
		 (long long)n->until);
	return why;
}

static const char *differs(struct view *v, const struct model *m, bool exact)
{
	static char why[200];

	if (m->entries != v->names)
		return snprintf(why, sizeof why, "%u names, not %u", v->names, m->entries), why;
	for (uint32_t i = 0; i < m->entries; i++) {
		const struct entry *e = &m->entry[i];
		const struct object *o = &m->obj[e->obj];
		bool there = false;
		for (uint32_t k = 0; k < v->names && !there; k++)
			there = v->name[k].dir == m->obj[e->dir].ino &&
				v->name[k].leaf == e->leaf && v->name[k].ino == o->ino;
		if (!there)
			return snprintf(why, sizeof why, "object %u is not %c of object %u",
					e->obj, 'a' + e->leaf, e->dir),
			       why;
		const struct seen *n = seen_of(v, o->ino);
		if (o->dir)
			continue;
		if (n->nlink != o->nlink || n->mode != o->mode || n->xattr != o->xattr)
			return snprintf(why, sizeof why,
					"object %u: links, mode, attribute %u %o %u, not %u "
					"%o %u",
					e->obj, n->nlink, n->mode, n->xattr, o->nlink, o->mode,
					o->xattr),
			       why;
	}
	for (uint32_t i = 0; i < v->seens; i++) {
		const char *w = v->seen[i].dir ? NULL : file_differs(v, m, &v->seen[i], exact);
		if (w)
			return w;
	}
	return NULL;
}

/*
 * The kernel may make several requests of a write: a part of it is a state, too.  Applies as
 * much of the next operation as is there; false: nothing, or all.
 */
static bool part_of(struct view *v, struct model *m, const struct op *p)
{
	const struct seen *n = NULL;
	uint32_t len = 0;

	for (uint32_t i = 0; i < v->seens && !n; i++)
		if (v->seen[i].obj == p->obj && !v->seen[i].dir)
			n = &v->seen[i];
	if (p->kind != OP_WRITE || !n || n->units == BAD)
		return false;
	while (len < p->len && p->off + len < n->units && n->unit[p->off + len] == m->done + 1)
		len++;
	if (!len || len == p->len)
		return false;
	struct object *o = &m->obj[p->obj];
	model_size(o, HF_MAX(o->units, p->off + len));
	model_fill(o, p->off, p->off + len, m->done + 1);
	return true;
}

/* What was done with a larger file of which a unit is there that is older than it may be. */
static void tell(const struct view *v, const struct seen *n)
{
	const struct op *ops = l->op[v->thread];
	int64_t least = v->at_least;

	for (uint32_t k = 0; k < v->acked; k++)
		if (ops[k].obj == n->obj &&
		    (ops[k].kind == OP_RENAME || ops[k].kind == OP_LINK ||
		     ops[k].kind == OP_FSYNC || ops[k].kind == OP_FDATASYNC))
			least = HF_MAX(least, (int64_t)k + 1);
	if (!n->lax || n->until >= least)
		return;
	printf("    object %u, unit %u has version %u of %lld, was done:\n", n->obj, n->which,
	       n->unit[n->which], (long long)n->until);
	for (uint32_t k = 0; k < v->begun; k++) {
		const struct op *p = &ops[k];
		bool in = p->off <= n->which && n->which < p->off + p->len;
		if (p->kind == OP_PUBLISH ||
		    (p->obj == n->obj && p->kind != OP_FSYNCDIR &&
		     (in || (p->kind != OP_WRITE && p->kind != OP_PUNCH))))
			printf("    %u: %s %u %u\n", k + 1, words[p->kind], p->off, p->len);
	}
}

/* All states of one thread that are as what is there. */
static void search(struct view *v, uint64_t root, bool published)
{
	const struct op *ops = l->op[v->thread];
	struct model m;

	history(v, root);
	model_init(&m, root);
	v->window = malloc(2 * (v->begun + 1) * sizeof *v->window);
	for (uint32_t c = 0;; c++) {
		const char *w = c >= v->floor ? differs(v, &m, published) : NULL;
		if (c >= v->floor && !w)
			v->window[v->windows++] =
				(struct window){c ? ops[c - 1].begin_ns : 0,
						c < v->acked ? ops[c].end_ns : INT64_MAX, c};
		if (c == v->begun)
			break;
		int64_t end = c < v->acked ? ops[c].end_ns : INT64_MAX;
		if (c >= v->floor && part_of(v, &m, &ops[c]) && !differs(v, &m, published))
			v->window[v->windows++] = (struct window){ops[c].begin_ns, end, c};
		model_apply(&m, &ops[c]);
	}
	if (v->windows)
		return;
	printf("thread %u: no state after %u to %u operations (%u acknowledged) is as what is "
	       "there\n",
	       v->thread, v->floor, v->begun, v->acked);
	for (uint32_t i = 0; i < v->seens; i++)
		tell(v, &v->seen[i]);
	model_init(&m, root);
	const char *last = "";
	char text[200] = "";
	for (uint32_t c = 0; c <= v->begun; c++) {
		const char *w = differs(v, &m, published);
		if (!w)
			printf("    but after %u it is, too early\n", c);
		else if (c >= v->floor && strcmp(w, last))
			printf("    %u: %s\n", c, w);
		last = strcpy(text, w ? w : "");
		if (c < v->begun)
			model_apply(&m, &ops[c]);
	}
}

static int64_t last_call(const struct view *v, unsigned threads, bool published)
{
	int64_t last = 0;

	for (unsigned t = 0; t < threads; t++)
		for (uint32_t k = 0; k < v[t].acked; k++) {
			const struct op *p = &l->op[t][k];
			if (p->kind == OP_PUBLISH || (!published && p->kind >= OP_FSYNC))
				last = HF_MAX(last, p->begin_ns);
		}
	return last;
}

static uint32_t before(const struct view *v, int64_t ns)
{
	uint32_t n = 0;

	while (n < v->acked && l->op[v->thread][n].end_ns <= ns)
		n++;
	return n;
}

/* An instant that is in a window of each thread. */
static bool common(const struct view *v, unsigned threads, int64_t at, uint32_t c[])
{
	for (unsigned t = 0; t < threads; t++) {
		bool in = false;
		for (uint32_t i = 0; i < v[t].windows && !in; i++)
			if (v[t].window[i].lo <= at && at <= v[t].window[i].hi) {
				c[t] = v[t].window[i].c;
				in = true;
			}
		if (!in)
			return false;
	}
	return true;
}

static int verify(int argc, char **argv)
{
	static struct view v[THREADS_MAX];
	bool published = argc == 4 && !strcmp(argv[3], "published");
	uint32_t c[THREADS_MAX];

	l = ledger_map(argv[0]);
	FILE *f = fopen(argv[1], "r");
	if (!l || !f)
		die("%s, %s", argv[0], argv[1]);
	unsigned threads = l->threads;
	for (unsigned t = 0; t < threads; t++) {
		v[t].thread = t;
		if (fscanf(f, "%u %u", &v[t].acked, &v[t].begun) != 2)
			die("%s", argv[1]);
	}
	fclose(f);
	int64_t all = last_call(v, threads, published), whole = last_call(v, threads, true);
	bool found = true;
	for (unsigned t = 0; t < threads; t++) {
		char path[600];
		struct stat s;

		v[t].floor = before(&v[t], all);
		v[t].at_least = before(&v[t], whole);
		if (!published && argc == 3 + (int)threads) {
			uint32_t n = (uint32_t)strtoul(argv[3 + t], NULL, 10);
			v[t].floor = HF_MAX(v[t].floor, n);
			v[t].at_least = HF_MAX(v[t].at_least, n);
		}
		snprintf(path, sizeof path, "%s/t%u", argv[2], t);
		int fd = open(path, O_RDONLY | O_DIRECTORY);
		if (fd < 0 || fstat(fd, &s) < 0)
			die("%s", path);
		read_dir(&v[t], fd, s.st_ino);
		search(&v[t], s.st_ino, published);
		found &= v[t].windows > 0;
	}
	if (!found)
		return 1;
	for (unsigned t = 0; t < threads; t++)
		for (uint32_t i = 0; i < v[t].windows; i++)
			if (common(v, threads, v[t].window[i].lo, c)) {
				printf("state");
				for (unsigned k = 0; k < threads; k++)
					printf(" %u", c[k]);
				printf("\n");
				return 0;
			}
	printf("what is there of each thread was never there at one instant:\n");
	for (unsigned t = 0; t < threads; t++)
		printf("    thread %u: after %u to %u\n", t, v[t].window[0].c,
		       v[t].window[v[t].windows - 1].c);
	return 1;
}

int main(int argc, char **argv)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc == 12 && !strcmp(argv[1], "run"))
		return run(argv[2], argv + 3);
	if (argc >= 5 && !strcmp(argv[1], "verify"))
		return verify(argc - 2, argv + 2);
	fprintf(stderr, "usage: see the top of stream.c\n");
	return 2;
}
