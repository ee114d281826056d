/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * stream LEDGER DIR SEED THREADS CUTS GAP PID HOLDFAST VOLUME DATA: random operations on a drive.
 * Threads, each in a directory of its own below DIR, until recdisk has made CUTS cuts, one about
 * every GAP operations.  PID is the daemon's.  A further thread does what the kernel does at any
 * moment: it begins to write back parts of the files below DATA, the drive's cache files; nothing
 * waits for it.  What may be found of it after a cut says `found`.
 */
#include <dirent.h>
#include <pthread.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include "net/base.h"
#include "tests/power/contents.h"

#define WARM_UP	  150u
#define DIRS	  4u
#define WRITE_MAX 600u /* units: one request of the kernel */

extern char **environ;

static struct ledger *l;
static char **opt; /* the arguments from DIR on */

static int64_t clock_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

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

int main(int argc, char **argv)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc == 11)
		return run(argv[1], argv + 2);
	fprintf(stderr, "usage: see the top of stream.c\n");
	return 2;
}
