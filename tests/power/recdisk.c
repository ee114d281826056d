/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * recdisk: a disk that remembers in which order it was written and flushed.
 *
 *	recdisk run BASE LOG DIR [LEDGER NODES SNAP SEED]
 *		DIR/disk has the contents of BASE and takes writes, which are kept in memory and
 *		in LOG; BASE stays as it is.  A loop device on top of it has a volatile cache as
 *		far as its file system knows: FLUSH arrives as fsync, FUA as a write and an
 *fsync. With LEDGER (ledger.h) it makes cuts once that says so, as described below. recdisk cut
 *BASE LOG CUT OUT HOW SEED OUT: the disk as it may be found when the power went at that cut.
 *Everything before the last flush is there; of what was written after it, by HOW: `lose`
 *		nothing, `keep` all, `mix` any of the writes, whichever came first, `tear` any
 *		of their sectors.
 *
 * A cut is an instant.  The request before or after which it comes is not answered; the daemon
 * is stopped, and nobody writes to the nodes below NODES any more; those are kept as they
 * are, by links, as SNAP/CUT/n (blobs never change, they come and go); SNAP/CUT/acked has what
 * the programs have begun and been told by then; and all goes on.  Every second one lies at a
 * flush, just before or just after it.
 *
 * One thread.
 */
#include <dirent.h>
#include <fcntl.h>
#include <fuse.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include "net/base.h"
#include "tests/power/ledger.h"

#define MAGIC	 0x4b524543u
#define SECTOR	 512u
#define PAGE	 4096u
#define STOP_MS	 60000
#define WANT_MAX 12
#define WAIT_MAX 400

enum kind { REC_WRITE = 1, REC_FLUSH, REC_CUT };
enum how { LOSE, KEEP, MIX, TEAR };

struct rec {
	uint32_t magic, kind;
	uint64_t off, len; /* REC_CUT: its number in off */
};

static struct {
	uint8_t *map;
	uint64_t size;
	FILE *log;
	struct ledger *ledger;
	const char *nodes, *snap;
	uint64_t rnd, due;
	bool at_flush, after;
	unsigned open, want, waited; /* writes since the last flush; so many are wanted */
} disk;

static void die(const char *what, const char *path)
{
	fprintf(stderr, "recdisk: %s %s: %s\n", what, path, strerror(errno));
	exit(1);
}

static uint64_t rnd(uint64_t n)
{
	disk.rnd ^= disk.rnd << 13;
	disk.rnd ^= disk.rnd >> 7;
	disk.rnd ^= disk.rnd << 17;
	return (disk.rnd >> 11) % n;
}

static void seed(const char *s)
{
	disk.rnd = strtoull(s, NULL, 10) * 0x9e3779b97f4a7c15u + 1;
	for (int i = 0; i < 8; i++)
		rnd(2);
}

static void put(enum kind kind, uint64_t off, const void *p, uint64_t len)
{
	struct rec r = {MAGIC, kind, off, p ? len : 0};

	/* A lost record would be a lost write: not to be gone on with. */
	if (fwrite(&r, sizeof r, 1, disk.log) != 1 ||
	    (p && len && fwrite(p, len, 1, disk.log) != 1))
		die("writing", "the log");
}

/* --- cuts --- */

static void links(const char *from, const char *to)
{
	char a[600], b[600];
	struct dirent *e;
	DIR *d = opendir(from);

	if (mkdir(to, 0700) < 0)
		die("making", to);
	if (!d)
		die("opening", from);
	while ((e = readdir(d))) {
		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		snprintf(a, sizeof a, "%s/%s", from, e->d_name);
		snprintf(b, sizeof b, "%s/%s", to, e->d_name);
		if (e->d_type == DT_DIR)
			links(a, b);
		else if (link(a, b) < 0 && errno != ENOENT)
			die("linking", a);
	}
	closedir(d);
}

/* Each thread is stopped, or waits for this disk (or another), and will be. */
static bool all_stopped(void)
{
	char path[64], line[300];
	struct dirent *e;
	bool all = true;

	snprintf(path, sizeof path, "/proc/%d/task", (int)disk.ledger->pid);
	DIR *d = opendir(path);
	while (d && (e = readdir(d)) && all) {
		if (e->d_name[0] == '.')
			continue;
		snprintf(line, sizeof line, "%s/%.20s/stat", path, e->d_name);
		FILE *f = fopen(line, "r");
		if (!f)
			continue;
		size_t n = fread(line, 1, sizeof line - 1, f);
		line[n] = 0;
		fclose(f);
		const char *p = strrchr(line, ')');
		all = p && p[1] && strchr("TtDZX", p[2]);
	}
	if (d)
		closedir(d);
	return all;
}

static void cut(void)
{
	struct ledger *l = disk.ledger;
	unsigned number = l->cuts;
	char path[600], to[640];

	if (kill(l->pid, SIGSTOP) < 0) {
		l->stop = 1; /* it is dead: the script will see */
		return;
	}
	for (int64_t end = now_ms() + STOP_MS; !all_stopped();) {
		if (now_ms() > end)
			die("stopping", "the daemon");
		nanosleep(&(struct timespec){0, 200000}, NULL);
	}
	snprintf(path, sizeof path, "%s/%u", disk.snap, number);
	if (mkdir(path, 0700) < 0)
		die("making", path);
	snprintf(to, sizeof to, "%s/n", path);
	links(disk.nodes, to);
	snprintf(to, sizeof to, "%s/acked", path);
	FILE *f = fopen(to, "w");
	if (!f)
		die("making", to);
	for (unsigned i = 0; i < l->threads; i++)
		fprintf(f, "%llu %llu\n", (unsigned long long)l->thread[i].acked,
			(unsigned long long)l->thread[i].begun);
	if (fclose(f))
		die("writing", to);
	put(REC_CUT, number, NULL, 0);
	if (fflush(disk.log))
		die("writing", "the log");
	l->cuts = number + 1;
	if (l->cuts >= l->wanted)
		l->stop = 1;
	kill(l->pid, SIGCONT);
}

static void next_cut(uint64_t now)
{
	disk.due = now + 1 + rnd(2 * disk.ledger->gap);
	disk.at_flush = rnd(2);
	disk.after = rnd(2);
	disk.want = rnd(2) ? 1 + (unsigned)rnd(WANT_MAX) : 0;
	disk.waited = 0;
}

static void maybe_cut(bool flush, bool after)
{
	struct ledger *l = disk.ledger;
	uint64_t ops = 0;

	if (!l || !l->go || l->stop || (flush ? disk.at_flush && disk.after != after : after))
		return;
	for (unsigned i = 0; i < l->threads; i++)
		ops += l->thread[i].acked;
	if (!disk.due)
		next_cut(ops);
	if (ops < disk.due || (disk.at_flush && !flush))
		return;
	/* Where much is lost: but not for ever. */
	if (!after && disk.open < disk.want && disk.waited++ < WAIT_MAX)
		return;
	cut();
	next_cut(ops);
}

/* --- the file --- */

static int disk_getattr(const char *path, struct stat *s, struct fuse_file_info *fi)
{
	(void)fi;
	s->st_nlink = 1;
	if (!strcmp(path, "/")) {
		s->st_mode = S_IFDIR | 0700;
		return 0;
	}
	if (strcmp(path, "/disk"))
		return -ENOENT;
	s->st_mode = S_IFREG | 0600;
	s->st_size = (off_t)disk.size;
	return 0;
}

static int disk_open(const char *path, struct fuse_file_info *fi)
{
	(void)path;
	fi->keep_cache = 1;
	return 0;
}

static int disk_read(const char *path, char *buf, size_t len, off_t off,
		     struct fuse_file_info *fi)
{
	(void)path;
	(void)fi;
	if ((uint64_t)off >= disk.size)
		return 0;
	len = HF_MIN((uint64_t)len, disk.size - (uint64_t)off);
	memcpy(buf, disk.map + off, len);
	return (int)len;
}

static int disk_write(const char *path, const char *buf, size_t len, off_t off,
		      struct fuse_file_info *fi)
{
	(void)path;
	(void)fi;
	if ((uint64_t)off > disk.size || len > disk.size - (uint64_t)off)
		return -ENOSPC;
	maybe_cut(false, false);
	memcpy(disk.map + off, buf, len);
	put(REC_WRITE, (uint64_t)off, buf, len);
	disk.open++;
	return (int)len;
}

static int disk_fsync(const char *path, int data, struct fuse_file_info *fi)
{
	(void)path;
	(void)data;
	(void)fi;
	maybe_cut(true, false);
	put(REC_FLUSH, 0, NULL, 0);
	disk.open = 0;
	maybe_cut(true, true);
	return 0;
}

static int run(int argc, char **argv)
{
	static const struct fuse_operations ops = {.getattr = disk_getattr,
						   .open = disk_open,
						   .read = disk_read,
						   .write = disk_write,
						   .fsync = disk_fsync};
	char *args[] = {"recdisk", "-f", "-s", "-o", "fsname=recdisk", argv[4], NULL};
	struct stat s;

	int fd = open(argv[2], O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &s) < 0)
		die("opening", argv[2]);
	disk.size = (uint64_t)s.st_size;
	disk.map = mmap(NULL, disk.size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE,
			fd, 0);
	if (disk.map == MAP_FAILED)
		die("mapping", argv[2]);
	disk.log = fopen(argv[3], "w");
	if (!disk.log)
		die("making", argv[3]);
	setvbuf(disk.log, NULL, _IOFBF, 1 << 20);
	if (argc == 9) {
		disk.ledger = ledger_map(argv[5]);
		if (!disk.ledger)
			die("mapping", argv[5]);
		disk.nodes = argv[6];
		disk.snap = argv[7];
		seed(argv[8]);
	}
	int rc = fuse_main(6, args, &ops, NULL);
	if (fclose(disk.log))
		die("writing", argv[3]);
	return rc;
}

/* --- what a cut leaves --- */

static bool is_zero(const uint8_t *p, size_t len)
{
	return !*p && !memcmp(p, p + 1, len - 1);
}

/* Zeros stay holes: most of a new file system is. */
static void copy_base(const char *base, int out)
{
	static uint8_t buf[1 << 20];
	struct stat s;
	int in = open(base, O_RDONLY | O_CLOEXEC);

	if (in < 0 || fstat(in, &s) < 0 || ftruncate(out, s.st_size) < 0)
		die("copying", base);
	for (off_t at = 0, end; (at = lseek(in, at, SEEK_DATA)) >= 0; at = end) {
		end = lseek(in, at, SEEK_HOLE);
		for (ssize_t n; at < end; at += n) {
			n = pread(in, buf, HF_MIN((size_t)(end - at), sizeof buf), at);
			if (n <= 0)
				die("reading", base);
			for (ssize_t p = 0, len; p < n; p += len) {
				len = HF_MIN((ssize_t)PAGE, n - p);
				if (is_zero(buf + p, (size_t)len))
					continue;
				if (pwrite(out, buf + p, (size_t)len, at + p) != len)
					die("writing", "the image");
			}
		}
	}
	close(in);
}

static void apply(int out, const struct rec *r, const uint8_t *p, enum how how)
{
	uint64_t step = how == TEAR ? SECTOR : HF_MAX(r->len, (uint64_t)1);
	/* None of its sectors, some, or all: where each is tossed for nothing whole is left. */
	unsigned luck = how == TEAR ? (unsigned)rnd(4) : 1;

	if (how == LOSE)
		return;
	for (uint64_t at = 0; at < r->len; at += step) {
		uint64_t len = HF_MIN(step, r->len - at);
		if (how != KEEP && (luck == 0 || (luck < 3 && rnd(2))))
			continue;
		if (pwrite(out, p + at, len, (off_t)(r->off + at)) != (ssize_t)len)
			die("writing", "the image");
	}
}

static int make_cut(char **argv)
{
	static const char *const hows[] = {"lose", "keep", "mix", "tear"};
	unsigned long long number = strtoull(argv[4], NULL, 10);
	unsigned long long writes = 0, open_writes = 0;
	uint64_t at = 0, flush = 0;
	enum how how = LOSE;
	bool found = false;
	struct stat s;

	for (unsigned i = 0; i < 4; i++)
		if (!strcmp(argv[6], hows[i]))
			how = (enum how)i;
	seed(argv[7]);
	int fd = open(argv[3], O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &s) < 0)
		die("opening", argv[3]);
	uint64_t size = (uint64_t)s.st_size;
	const uint8_t *log = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (log == MAP_FAILED)
		die("mapping", argv[3]);
	for (struct rec r; !found && size - at >= sizeof r; at += sizeof r + r.len) {
		memcpy(&r, log + at, sizeof r);
		if (r.magic != MAGIC || r.len > size - at - sizeof r)
			break;
		if (r.kind == REC_FLUSH)
			flush = at;
		found = r.kind == REC_CUT && r.off == number;
	}
	if (!found) {
		fprintf(stderr, "recdisk: no cut %llu in %s\n", number, argv[3]);
		return 1;
	}
	int out = open(argv[5], O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (out < 0)
		die("making", argv[5]);
	copy_base(argv[2], out);
	struct rec r;
	for (uint64_t p = 0; p < at; p += sizeof r + r.len) {
		memcpy(&r, log + p, sizeof r);
		if (r.kind != REC_WRITE)
			continue;
		writes++;
		open_writes += p > flush;
		apply(out, &r, log + p + sizeof r, p < flush ? KEEP : how);
	}
	if (close(out) < 0)
		die("writing", argv[5]);
	printf("%llu writes, %llu since the last flush: %s\n", writes, open_writes, hows[how]);
	return 0;
}

int main(int argc, char **argv)
{
	if ((argc == 5 || argc == 9) && !strcmp(argv[1], "run"))
		return run(argc, argv);
	if (argc == 8 && !strcmp(argv[1], "cut"))
		return make_cut(argv);
	fprintf(stderr, "usage: see the top of recdisk.c\n");
	return 2;
}
