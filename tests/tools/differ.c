/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * differ DIR1 DIR2 SEED STEPS [CMD]: does the same random operations in two directories and
 * compares what each returns: value, errno, attributes, contents, listings, xattrs; every 500
 * steps and at the end the whole trees.  Every 2,000 steps or so everything is closed and
 * `sh -c CMD differ N` is run, N counting from 0; then the trees are compared again.  The
 * same seed makes the same operations.  On a difference: the seed, the last operations, 1.
 *
 * Not compared, because file systems may differ in them: inode numbers, blocks, the size and
 * link count of directories, times other than those just set, where holes are.
 */
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include "tests/tools/sides.h"

#define SLOTS 8

static int slot[SLOTS][SIDES]; /* -1: not open */
static uint64_t state;
static bool is_root;

static uint64_t rnd(void)
{
	state += 0x9e3779b97f4a7c15u;
	uint64_t z = state;
	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}
static unsigned below(unsigned n)
{
	return (unsigned)(rnd() % n);
}
static bool one_in(unsigned n)
{
	return below(n) == 0;
}

static uint8_t data[FILE_MAX + (1 << 20)];

static void random_bytes(size_t len)
{
	uint64_t x = rnd();

	if (one_in(5)) {
		memset(data, (int)(x & 0xff), len);
		return;
	}
	for (size_t i = 0; i < len; i += 8) {
		x = x * 6364136223846793005u + 1442695040888963407u;
		put_le64(data + i, x ^ x >> 29);
	}
}

static off_t random_size(void)
{
	static const unsigned edge[] = {0,     1,     512,    4095,    4096,	4097,	65535,
					65536, 65537, 131072, 1 << 20, 2 << 20, 1048577};
	switch (below(10)) {
	case 0:
	case 1:
		return (off_t)edge[below(sizeof(edge) / sizeof(edge[0]))];
	case 2:
	case 3:
	case 4:
		return (off_t)below(5000);
	case 5:
	case 6:
		return (off_t)below(100000);
	case 7:
		return (off_t)below(300) * 4096;
	case 8:
		return (off_t)below(1 << 20);
	default:
		return (off_t)below(4 << 20);
	}
}

/* Few names, so that operations meet; depth 0 to 3. */
static const char *last_name(char *p, size_t cap, bool dir)
{
	unsigned k = below(100);

	if (k == 0)
		snprintf(p, cap, "%c%0*u", dir ? 'd' : 'f', one_in(2) ? 254 : 255, below(3));
	else if (k == 1)
		snprintf(p, cap, "\xff\xfe \n%u", below(3));
	else if (k < 12)
		snprintf(p, cap, "%c%u", dir ? 'f' : 'd', below(6));
	else
		snprintf(p, cap, "%c%u", dir ? 'd' : 'f', below(dir ? 5 : 12));
	return p;
}
static void random_path(char *p, size_t cap, bool dir)
{
	unsigned depth = below(4);
	size_t n = 0;

	for (unsigned i = 0; i < depth; i++)
		n += (size_t)snprintf(p + n, cap - n, "d%u/", below(4));
	last_name(p + n, cap - n, dir);
}
static void stat_slot(unsigned k)
{
	struct stat st[SIDES];

	memset(st, 0, sizeof(st));
	if (BOTH("fstat", fstat(slot[k][s], &st[s])) >= 0)
		compare_stat(st, "fstat", false);
}

static void close_slot(unsigned k)
{
	if (slot[k][0] < 0)
		return;
	say("close %u", k);
	BOTH("close", close(slot[k][s]));
	slot[k][0] = slot[k][1] = -1;
}

static void do_open(void)
{
	static const int ways[] = {O_RDONLY, O_WRONLY, O_RDWR, O_RDWR, O_RDWR};
	static const int flags[] = {O_CREAT,
				    O_CREAT | O_EXCL,
				    O_TRUNC,
				    O_CREAT | O_TRUNC,
				    O_APPEND,
				    O_CREAT | O_APPEND,
				    O_NOFOLLOW,
				    O_DIRECTORY,
				    O_CREAT | O_NOFOLLOW,
				    0};
	char path[PATH_CAP];
	unsigned k = below(SLOTS);
	int how = ways[below(5)] | flags[below(10)] | O_NONBLOCK;
	mode_t mode = one_in(4) ? (mode_t)below(010000) : 0644;

	random_path(path, sizeof(path), one_in(10));
	close_slot(k);
	say("open %s 0%o 0%o as %u", path, (unsigned)how, mode, k);
	int64_t r = BOTH(
		"open", (slot[k][s] = openat(root[s], path, how, mode), HF_MIN(slot[k][s], 0)));
	if (r < 0)
		slot[k][0] = slot[k][1] = -1;
	else
		stat_slot(k);
}

static void slot_io(unsigned k)
{
	off_t off = random_size();
	size_t len = one_in(3) ? (size_t)random_size() : 1 + below(9000);
	bool write_it = below(10) < 6;
	struct stat st;
	int64_t r;

	len = HF_MIN(len, (size_t)1 << 20);
	/* A file may grow without end by writes at its end. */
	if (fstat(slot[k][0], &st) || (write_it && st.st_size > FILE_MAX))
		return;
	if (write_it)
		random_bytes(len);
	if (one_in(4)) {
		say("%s %u %zu", write_it ? "write" : "read", k, len);
		if (write_it && lseek(slot[k][0], 0, SEEK_CUR) > FILE_MAX)
			return;
		r = write_it ? BOTH("write", write(slot[k][s], data, len))
			     : BOTH("read", read(slot[k][s], in[s], len));
		if (!S_ISFIFO(st.st_mode))
			BOTH("position", lseek(slot[k][s], 0, SEEK_CUR));
	} else {
		say("%s %u %zu at %lld", write_it ? "pwrite" : "pread", k, len, (long long)off);
		r = write_it ? BOTH("pwrite", pwrite(slot[k][s], data, len, off))
			     : BOTH("pread", pread(slot[k][s], in[s], len, off));
	}
	if (!write_it)
		compare_bytes(r, "read", off);
	else
		stat_slot(k);
}

static void slot_seek(unsigned k)
{
	static const int whence[] = {SEEK_SET, SEEK_CUR, SEEK_END};
	int w = whence[below(3)];
	off_t off = w == SEEK_SET ? random_size() : (off_t)below(2000) - 1000;
	struct stat st;

	/* The positions of a directory are the file system's own. */
	if (fstat(slot[k][0], &st) || S_ISDIR(st.st_mode))
		return;
	say("lseek %u %lld %d", k, (long long)off, w);
	BOTH("lseek", lseek(slot[k][s], off, w));
}

static void slot_allocate(unsigned k)
{
	static const int modes[] = {
		0, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		FALLOC_FL_ZERO_RANGE, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE};
	int mode = modes[below(5)];
	off_t off = random_size(), len = random_size() % (1 << 20);

	say("fallocate %u %#x %lld+%lld", k, mode, (long long)off, (long long)len);
	if (BOTH("fallocate", fallocate(slot[k][s], mode, off, len)) >= 0)
		stat_slot(k);
}

static void slot_map(unsigned k)
{
	struct stat st;
	uint8_t *p[SIDES];

	if (fstat(slot[k][0], &st) || !S_ISREG(st.st_mode) || !st.st_size)
		return;
	size_t len = (size_t)HF_MIN(st.st_size, 1 << 20);
	size_t at = below((unsigned)len), n = 1 + below(20000);
	off_t from = (off_t)((size_t)(st.st_size - (off_t)len) / 4096 * 4096);

	n = HF_MIN(n, len - at);
	say("mmap %u at %lld, %zu bytes at %zu", k, (long long)from, n, at);
	if (BOTH("mmap",
		 (p[s] = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, slot[k][s], from),
		  p[s] == MAP_FAILED ? -1 : 0)) < 0)
		return;
	random_bytes(n);
	for (int s = 0; s < SIDES; s++)
		memcpy(p[s] + at, data, n);
	if (one_in(3))
		BOTH("msync", msync(p[s], len, MS_SYNC));
	for (size_t i = 0; i < len; i++)
		if (p[0][i] != p[1][i])
			differ("mapped %u: byte %lld of %lld is %#x and %#x", k,
			       (long long)from + (long long)i, (long long)st.st_size, p[0][i],
			       p[1][i]);
	BOTH("munmap", munmap(p[s], len));
	int64_t r = BOTH("pread", pread(slot[k][s], in[s], len, from));
	compare_bytes(r, "pread after mmap", from);
}

/* Until all is copied, because a file system may copy in pieces. */
static int64_t copy_range(int from, off_t a, int to, off_t b, size_t len)
{
	int64_t done = 0;

	while (len) {
		ssize_t n = copy_file_range(from, &a, to, &b, len, 0);

		if (n < 0)
			return done ? done : -1;
		if (n == 0)
			break;
		done += n;
		len -= (size_t)n;
	}
	return done;
}

static void slot_copy(unsigned k)
{
	unsigned to = below(SLOTS);
	off_t a = random_size(), b = random_size();
	size_t len = (size_t)random_size() % (1 << 20);

	if (slot[to][0] < 0)
		to = k;
	say("copy_file_range %u %lld to %u %lld, %zu", k, (long long)a, to, (long long)b, len);
	BOTH("copy_file_range", copy_range(slot[k][s], a, slot[to][s], b, len));
	stat_slot(to);
}

static void slot_op(void)
{
	unsigned k = below(SLOTS), op = below(20);
	mode_t mode;
	off_t size;

	if (slot[k][0] < 0) {
		do_open();
		return;
	}
	switch (op) {
	case 0:
		close_slot(k);
		return;
	case 1:
	case 2:
		size = random_size();
		say("ftruncate %u %lld", k, (long long)size);
		BOTH("ftruncate", ftruncate(slot[k][s], size));
		break;
	case 3:
	case 4:
		slot_allocate(k);
		return;
	case 5:
		say("fsync %u", k);
		BOTH("fsync", fsync(slot[k][s]));
		return;
	case 6:
		mode = (mode_t)below(010000);
		say("fchmod %u 0%o", k, mode);
		BOTH("fchmod", fchmod(slot[k][s], mode));
		break;
	case 7:
		slot_map(k);
		return;
	case 8:
	case 9:
		slot_copy(k);
		return;
	case 10:
		slot_seek(k);
		return;
	case 11:
		say("contents of %u", k);
		compare_contents(slot[k], "contents");
		return;
	case 12:
		say("fsetxattr %u", k);
		BOTH("fsetxattr", fsetxattr(slot[k][s], "user.fd", &op, sizeof(op), 0));
		return;
	default:
		slot_io(k);
		return;
	}
	stat_slot(k);
}

static size_t random_acl(uint8_t *p)
{
	static const uint16_t tag[] = {1, 2, 2, 4, 8, 16, 32};
	bool extended = one_in(2);
	size_t n = 4;

	put_le32(p, 2);
	for (size_t i = 0; i < 7; i++) {
		bool named = tag[i] == 2 || tag[i] == 8;

		if (!extended && (named || tag[i] == 16))
			continue;
		if (named && one_in(3))
			continue;
		put_le16(p + n, tag[i]);
		put_le16(p + n + 2, (uint16_t)below(8));
		put_le32(p + n + 4, named ? (uint32_t)(100 * i + 1) : 0xffffffffu);
		n += 8;
	}
	return n;
}

static void xattr_op(void)
{
	static const char *const names[] = {"user.a", "user.bb", "user.c.d", "trusted.t",
					    "security.s"};
	char path[PATH_CAP], full[SIDES][PATH_CAP + 40];
	uint8_t value[256];
	size_t len = below(120);
	int how = one_in(3) ? XATTR_CREATE : one_in(3) ? XATTR_REPLACE : 0;
	const char *name = names[below(is_root ? 5 : 3)];
	bool acl = one_in(3), remove = one_in(4), nofollow = one_in(3);

	random_path(path, sizeof(path), one_in(3));
	for (int s = 0; s < SIDES; s++)
		snprintf(full[s], sizeof(full[s]), "/proc/self/fd/%d/%s", root[s], path);
	for (size_t i = 0; i < sizeof(value); i++)
		value[i] = (uint8_t)rnd();
	if (acl) {
		name = one_in(2) ? "system.posix_acl_access" : "system.posix_acl_default";
		len = random_acl(value);
		how = 0;
		nofollow = false;
	}
	say("%s %s %s %zu %d %s", remove ? "removexattr" : "setxattr", path, name, len, how,
	    nofollow ? "nofollow" : "");
	if (remove)
		BOTH("removexattr",
		     nofollow ? lremovexattr(full[s], name) : removexattr(full[s], name));
	else
		BOTH("setxattr", nofollow ? lsetxattr(full[s], name, value, len, how)
					  : setxattr(full[s], name, value, len, how));
	stat_path(path, 0, false);
	compare_xattrs(path, nofollow);
}

static void rename_op(void)
{
	static const unsigned flags[] = {
		0, 0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_EXCHANGE};
	unsigned how = flags[below(6)];
	char a[PATH_CAP], b[PATH_CAP];
	bool dir = one_in(3);

	random_path(a, sizeof(a), dir);
	random_path(b, sizeof(b), dir);
	say("rename %s %s %u", a, b, how);
	if (BOTH("rename", renameat2(root[s], a, root[s], b, how)) >= 0)
		stat_path(b, AT_SYMLINK_NOFOLLOW, false);
	stat_path(a, AT_SYMLINK_NOFOLLOW, false);
}

static void time_op(const char *path)
{
	struct timespec t[2] = {
		{(time_t)below(3000000000u) - 500000000, (long)below(1000000000)},
		{(time_t)below(3000000000u) - 500000000, (long)below(1000000000)}};
	unsigned keep = below(6);
	bool set;

	if (keep < 2)
		t[keep].tv_nsec = UTIME_OMIT;
	say("utimensat %s %lld.%09ld %lld.%09ld", path, (long long)t[0].tv_sec, t[0].tv_nsec,
	    (long long)t[1].tv_sec, t[1].tv_nsec);
	set = BOTH("utimensat", utimensat(root[s], path, t, AT_SYMLINK_NOFOLLOW)) >= 0;
	stat_path(path, AT_SYMLINK_NOFOLLOW, set && keep > 1);
}

static void direct_op(const char *path)
{
	static uint8_t page[1 << 17] __attribute__((aligned(4096)));
	off_t off = (off_t)below(60) * 4096;
	size_t len = (1 + below(32)) * 4096;
	bool write_it = one_in(2);
	int fd[SIDES];

	random_bytes(len);
	memcpy(page, data, len);
	say("O_DIRECT %s %s %zu at %lld", write_it ? "write" : "read", path, len,
	    (long long)off);
	if (BOTH("open",
		 (fd[s] = openat(root[s], path, O_RDWR | O_DIRECT | O_NOFOLLOW | O_NONBLOCK),
		  HF_MIN(fd[s], 0))) < 0)
		return;
	struct stat st;
	/* Pipes take another meaning of the flag. */
	if (!fstat(fd[0], &st) && S_ISREG(st.st_mode)) {
		int64_t r = BOTH("direct", write_it ? pwrite(fd[s], page, len, off) : ({
					 ssize_t n_ = pread(fd[s], page, len, off);
					 memcpy(in[s], page, len);
					 n_;
				 }));
		if (!write_it)
			compare_bytes(r, "direct read", off);
	}
	close(fd[0]);
	close(fd[1]);
}

static void path_op(void)
{
	char path[PATH_CAP], other[PATH_CAP];
	unsigned op = below(34);
	mode_t mode;
	uid_t u;
	gid_t g;
	off_t size;

	random_path(path, sizeof(path), one_in(4));
	switch (op) {
	case 0:
	case 1:
	case 2:
	case 3:
		say("unlink %s", path);
		BOTH("unlink", unlinkat(root[s], path, 0));
		break;
	case 4:
	case 5:
	case 6:
	case 7:
		mode = one_in(3) ? (mode_t)below(010000) : 0755;
		random_path(path, sizeof(path), true);
		say("mkdir %s 0%o", path, mode);
		BOTH("mkdir", mkdirat(root[s], path, mode));
		break;
	case 8:
		random_path(path, sizeof(path), true);
		say("rmdir %s", path);
		BOTH("rmdir", unlinkat(root[s], path, AT_REMOVEDIR));
		break;
	case 9:
	case 10:
	case 11:
		random_path(other, sizeof(other), false);
		say("link %s %s", path, other);
		if (BOTH("link", linkat(root[s], path, root[s], other, 0)) >= 0)
			stat_path(other, AT_SYMLINK_NOFOLLOW, false);
		break;
	case 12:
	case 13:
		/* Never upwards: out of the directory the sides are not the same. */
		random_path(other, sizeof(other), one_in(3));
		say("symlink %s %s", other, path);
		BOTH("symlink", symlinkat(other, root[s], path));
		break;
	case 14:
	case 15:
		mode = (mode_t)below(010000);
		say("chmod %s 0%o", path, mode);
		BOTH("chmod", fchmodat(root[s], path, mode, 0));
		break;
	case 16:
	case 17:
		u = one_in(3) ? (uid_t)-1 : below(3) * 500;
		g = one_in(3) ? (gid_t)-1 : below(3) * 500;
		if (u == (uid_t)-1 && g == (gid_t)-1)
			u = 0;
		say("chown %s %d:%d", path, (int)u, (int)g);
		BOTH("chown", fchownat(root[s], path, u, g, AT_SYMLINK_NOFOLLOW));
		break;
	case 18:
	case 19:
		time_op(path);
		return;
	case 20:
	case 21:
		size = random_size();
		say("truncate %s %lld", path, (long long)size);
		for (int s = 0; s < SIDES; s++)
			snprintf((char *)in[s], PATH_CAP * 2, "/proc/self/fd/%d/%s", root[s],
				 path);
		BOTH("truncate", truncate((char *)in[s], size));
		break;
	case 22:
		say("mkfifo %s", path);
		BOTH("mkfifo", mkfifoat(root[s], path, 0640));
		break;
	case 23:
	case 24:
		direct_op(path);
		break;
	case 25:
		mode = below(8);
		say("access %s %u", path, mode);
		BOTH("access", faccessat(root[s], path, (int)mode, 0));
		break;
	case 26:
		random_path(path, sizeof(path), true);
		strcat(path, "/");
		compare_tree(path);
		return;
	case 27:
	case 28:
	case 29:
	case 30:
		xattr_op();
		return;
	default:
		rename_op();
		return;
	}
	stat_path(path, AT_SYMLINK_NOFOLLOW, false);
}

static int open_roots(void)
{
	for (int s = 0; s < SIDES; s++) {
		root[s] = open(root_path[s], O_RDONLY | O_DIRECTORY);
		if (root[s] < 0) {
			fprintf(stderr, "differ: %s: %s\n", root_path[s], strerror(errno));
			return -1;
		}
	}
	return 0;
}

static int run_command(const char *cmd, unsigned n)
{
	char number[16];
	int status = 0;

	for (unsigned k = 0; k < SLOTS; k++)
		close_slot(k);
	compare_tree("");
	close(root[0]);
	close(root[1]);
	say("command, time %u", n);
	snprintf(number, sizeof(number), "%u", n);
	fflush(stdout);
	pid_t pid = fork();
	if (!pid) {
		execvp("sh", (char *[]){"sh", "-c", (char *)cmd, "differ", number, NULL});
		_exit(127);
	}
	if (pid < 0 || waitpid(pid, &status, 0) < 0 || status) {
		printf("differ: the command ended with wait status %#x, seed %llu\n", status,
		       (unsigned long long)seed);
		return -1;
	}
	if (open_roots())
		return -1;
	compare_tree("");
	return 0;
}

int main(int argc, char **argv)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc < 5 || argc > 6) {
		fprintf(stderr, "usage: differ DIR1 DIR2 SEED STEPS [CMD]\n");
		return 2;
	}
	signal(SIGPIPE, SIG_IGN);
	umask(022);
	is_root = !geteuid();
	root_path[0] = argv[1];
	root_path[1] = argv[2];
	seed = strtoull(argv[3], NULL, 10);
	state = seed;
	unsigned long steps = strtoul(argv[4], NULL, 10), next = 1500;
	unsigned commands = 0;
	memset(slot, 0xff, sizeof(slot));
	printf("seed %llu\n", (unsigned long long)seed);
	if (open_roots() || chdir("/"))
		return 1;
	for (step = 1; step <= steps; step++) {
		if (below(5) < 2)
			path_op();
		else
			slot_op();
		if (step % 500 == 0)
			compare_tree("");
		if (argc == 6 && step >= next) {
			if (run_command(argv[5], commands++))
				return 1;
			next = step + 1500 + below(1000);
		}
	}
	for (unsigned k = 0; k < SLOTS; k++)
		close_slot(k);
	compare_tree("");
	printf("%lu steps, %u commands, no difference; %lu calls, of which %lu failed alike\n",
	       steps, commands, calls, failed);
	return 0;
}
