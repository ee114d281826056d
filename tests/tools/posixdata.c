/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * posixdata DIR [GROUP]...: what POSIX and Linux promise about contents: reading and writing
 * in every way, holes, sizes, mappings.  A native file system passes all of it; see posix.c.
 */
#include <linux/aio_abi.h>
#include <sys/uio.h>
#include "tests/tools/check.h"

static uint8_t big[8 << 20], got[8 << 20];

/* The file is exactly these bytes, by read, and by its size. */
static void contents_at(int fd, const uint8_t *want, size_t len, int line)
{
	struct stat st;
	ssize_t n;

	memset(got, 0xee, HF_MIN(len + 16, sizeof(got)));
	n = pread(fd, got, sizeof(got), 0);
	check_ok(fstat(fd, &st), __FILE__, line, "fstat");
	check_eq((long long)len, st.st_size, __FILE__, line, "st_size");
	check_eq((long long)len, n, __FILE__, line, "bytes read");
	for (size_t i = 0; i < len && n == (ssize_t)len; i++)
		if (got[i] != want[i]) {
			printf("%s:%d: byte %zu of %zu differs\n", __FILE__, line, i, len);
			check_count(false);
			return;
		}
}
#define CONTENTS(fd, want, len) contents_at(fd, want, len, __LINE__)

static void reading(void)
{
	char b[16];
	int fd = FD(open("f", O_RDWR | O_CREAT, 0644));

	EQ(10, write(fd, "0123456789", 10));
	EQ(0, read(fd, b, 4));
	EQ(4, lseek(fd, 4, SEEK_SET));
	EQ(4, read(fd, b, 4));
	IS(!memcmp(b, "4567", 4));
	EQ(8, lseek(fd, 0, SEEK_CUR));
	EQ(2, read(fd, b, 16));
	EQ(7, lseek(fd, -3, SEEK_END));
	EQ(3, pread(fd, b, 3, 1));
	IS(!memcmp(b, "123", 3));
	EQ(7, lseek(fd, 0, SEEK_CUR));
	EQ(2, pwrite(fd, "XY", 2, 5));
	EQ(7, lseek(fd, 0, SEEK_CUR));
	EQ(0, pread(fd, b, 4, 10));
	EQ(0, pread(fd, b, 4, 1 << 30));
	FAILS(EINVAL, pread(fd, b, 4, -1));
	FAILS(EINVAL, pwrite(fd, b, 4, -1));
	FAILS(EINVAL, lseek(fd, -1, SEEK_SET));
	FAILS(EINVAL, lseek(fd, -11, SEEK_END));
	FAILS(EINVAL, lseek(fd, 0, 99));
	FAILS(EINVAL, ftruncate(fd, -1));
	FAILS(EINVAL, truncate("f", -1));
	void *nothing = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	FAILS(EFAULT, pwrite(fd, nothing, 1, 0));
	OK(munmap(nothing, 4096));
	EQ(0, write(fd, b, 0));
	EQ(10, stat_fd(fd).st_size);
	EQ(20, lseek(fd, 20, SEEK_SET));
	EQ(10, stat_fd(fd).st_size);
	EQ(1, write(fd, "z", 1));
	CONTENTS(fd, (const uint8_t *)"01234XY789\0\0\0\0\0\0\0\0\0\0z", 21);

	struct iovec v[3] = {{b, 2}, {b + 2, 0}, {b + 8, 3}};
	EQ(0, lseek(fd, 0, SEEK_SET));
	EQ(5, readv(fd, v, 3));
	IS(!memcmp(b, "01", 2) && !memcmp(b + 8, "234", 3));
	memcpy(b, "vw", 2);
	memcpy(b + 8, "xyz", 3);
	EQ(5, writev(fd, v, 3));
	EQ(5, pwritev(fd, v, 3, 100));
	EQ(5, preadv(fd, v, 3, 5));
	IS(!memcmp(b, "vw", 2) && !memcmp(b + 8, "xyz", 3));
	EQ(105, stat_fd(fd).st_size);
	OK(close(fd));

	/* 8 MiB at once, then in odd pieces, then back over the borders. */
	pattern(big, sizeof(big), 3);
	fd = FD(open("big", O_RDWR | O_CREAT, 0644));
	EQ(sizeof(big), write(fd, big, sizeof(big)));
	CONTENTS(fd, big, sizeof(big));
	OK(ftruncate(fd, 0));
	for (size_t at = 0, n = 1; at < sizeof(big); at += n, n = n * 7 % 300007 + 1) {
		n = HF_MIN(n, sizeof(big) - at);
		EQ(n, pwrite(fd, big + at, n, (off_t)at));
	}
	CONTENTS(fd, big, sizeof(big));
	for (size_t at = 4096; at < sizeof(big); at *= 2) {
		pattern(big + at - 5, 10, at);
		EQ(10, pwrite(fd, big + at - 5, 10, (off_t)at - 5));
	}
	CONTENTS(fd, big, sizeof(big));
	OK(fsync(fd));
	OK(fdatasync(fd));
	OK(syncfs(fd));
	CONTENTS(fd, big, sizeof(big));
	OK(close(fd));
	fd = FD(open("big", O_RDONLY));
	OK(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED));
	OK(fsync(fd));
	CONTENTS(fd, big, sizeof(big));
	OK(close(fd));
}

static void appending(void)
{
	char b[8];
	int a = FD(open("f", O_RDWR | O_CREAT | O_APPEND, 0644));
	int c = FD(open("f", O_RDWR | O_APPEND)), d = FD(open("f", O_RDWR));

	for (int i = 0; i < 300; i++) {
		memset(big + i * 20, i, 10);
		memset(big + i * 20 + 10, i + 100, 10);
		EQ(10, write(a, big + i * 20, 10));
		EQ(10, write(c, big + i * 20 + 10, 10));
	}
	CONTENTS(a, big, 6000);
	EQ(6000, lseek(c, 0, SEEK_CUR));
	/* Where it was does not matter, nor does pwrite's offset. */
	EQ(0, lseek(a, 0, SEEK_SET));
	EQ(1, write(a, "x", 1));
	EQ(1, pwrite(a, "y", 1, 0));
	EQ(6002, stat_fd(d).st_size);
	EQ(2, pread(d, b, 2, 6000));
	IS(!memcmp(b, "xy", 2));
	OK(ftruncate(d, 5));
	EQ(1, write(c, "z", 1));
	EQ(6, stat_fd(a).st_size);
	OK(truncate("f", 0));
	/* Four writers at once: every line whole, none lost. */
	pid_t pid[4];
	for (int w = 0; w < 4; w++) {
		pid[w] = fork();
		if (pid[w])
			continue;
		int fd = FD(open("f", O_WRONLY | O_APPEND));
		char line[64];
		for (int i = 0; i < 250; i++) {
			memset(line, 'a' + w, 63);
			line[63] = '\n';
			EQ(64, write(fd, line, 64));
		}
		_exit(0);
	}
	for (int w = 0; w < 4; w++)
		child_end(pid[w]);
	EQ(64000, pread(d, got, sizeof(got), 0));
	int count[4] = {0}, torn = 0;
	for (size_t i = 0; i < 64000; i += 64) {
		unsigned w = (unsigned)(got[i] - 'a');
		for (size_t k = 0; k < 63; k++)
			torn += got[i + k] != got[i];
		if (w < 4)
			count[w]++;
	}
	EQ(0, torn);
	for (int w = 0; w < 4; w++)
		EQ(250, count[w]);
}

static void growing(void)
{
	int fd = FD(open("f", O_RDWR | O_CREAT, 0644));

	pattern(big, 80000, 9);
	for (size_t i = 0; i < 70000; i++) {
		if (pwrite(fd, big + i, 1, (off_t)i) != 1) {
			EQ(1, -1);
			break;
		}
		if ((i & 8191) == 8191 || i == 65535 || i == 65536)
			CONTENTS(fd, big, i + 1);
	}
	CONTENTS(fd, big, 70000);
	/* Down across every border and up again: zeros, never what was there. */
	static const size_t to[] = {65537, 65536, 65535,  66000, 4097,	  4096,
				    4095,  5000,  70000,  1,	 3,	  0,
				    65536, 65537, 131072, 10,	 1 << 20, 0};
	size_t len = 70000;
	for (size_t i = 0; i < sizeof(to) / sizeof(to[0]); i++) {
		OK(ftruncate(fd, (off_t)to[i]));
		if (to[i] > len)
			memset(big + len, 0, to[i] - len);
		len = to[i];
		CONTENTS(fd, big, len);
		/* Through another descriptor as well, opened afterwards. */
		int r = FD(open("f", O_RDONLY));
		CONTENTS(r, big, len);
		OK(close(r));
	}
	for (int round = 0; round < 3; round++) {
		pattern(big, 200000, (uint64_t)round);
		EQ(100, pwrite(fd, big, 100, 0));
		OK(fsync(fd));
		EQ(199900, pwrite(fd, big + 100, 199900, 100));
		CONTENTS(fd, big, 200000);
		OK(ftruncate(fd, 50));
		OK(fsync(fd));
		CONTENTS(fd, big, 50);
		OK(ftruncate(fd, 200000));
		memset(big + 50, 0, 199950);
		CONTENTS(fd, big, 200000);
		OK(ftruncate(fd, 0));
	}
	OK(close(fd));
}

static void sparse(void)
{
	const off_t far = 5LL << 40;
	char b[16];
	int fd = FD(open("f", O_RDWR | O_CREAT, 0644));

	EQ(4, pwrite(fd, "tail", 4, 1 << 30));
	struct stat st = stat_fd(fd);
	EQ((1 << 30) + 4, st.st_size);
	IS(st.st_blocks * 512 < 1 << 20);
	EQ(16, pread(fd, b, 16, 12345678));
	IS(all_zero((uint8_t *)b, 16));
	EQ(8, pread(fd, b, 16, (1 << 30) - 4));
	IS(!memcmp(b, "\0\0\0\0tail", 8));
	OK(fsync(fd));
	IS(stat_fd(fd).st_blocks * 512 < 1 << 20);
	OK(close(fd));

	/* Past 4 TiB, where 32 bits of 1 KiB blocks end. */
	fd = FD(open("huge", O_RDWR | O_CREAT, 0644));
	EQ(3, pwrite(fd, "end", 3, far));
	EQ(far + 3, stat_fd(fd).st_size);
	EQ(3, pread(fd, b, 16, far));
	IS(!memcmp(b, "end", 3));
	OK(fsync(fd));
	EQ(far, lseek(fd, far, SEEK_DATA));
	OK(ftruncate(fd, far + (1LL << 30)));
	EQ(4, pread(fd, b, 4, far - 2));
	IS(!memcmp(b, "\0\0en", 4));
	OK(ftruncate(fd, 4LL << 40));
	OK(ftruncate(fd, far + 3));
	EQ(3, pread(fd, b, 16, far));
	IS(all_zero((uint8_t *)b, 3));
	EQ(1, pwrite(fd, "x", 1, 0));
	IS(stat_fd(fd).st_blocks * 512 < 1 << 20);
	FAILS2(EFBIG, EINVAL, pwrite(fd, "x", 1, INT64_MAX));
	FAILS(EFBIG, pwrite(fd, "x", 1, INT64_MAX - 1));
	EQ(far + 3, stat_fd(fd).st_size);
	OK(close(fd));

	/* The limit of the process is kept. */
	if (child()) {
		struct rlimit r = {100000, 100000};

		signal(SIGXFSZ, SIG_IGN);
		OK(setrlimit(RLIMIT_FSIZE, &r));
		int l = FD(open("limited", O_RDWR | O_CREAT, 0644));
		EQ(10, pwrite(l, big, 20, 99990));
		FAILS(EFBIG, pwrite(l, big, 1, 100000));
		FAILS(EFBIG, ftruncate(l, 100001));
		FAILS(EFBIG, fallocate(l, 0, 0, 100001));
		EQ(100000, stat_fd(l).st_size);
		_exit(0);
	}
}

static void allocating(void)
{
	const size_t len = 3 << 20;
	int fd = FD(open("f", O_RDWR | O_CREAT, 0644));

	pattern(big, len, 5);
	OK(fallocate(fd, 0, 0, 100));
	memset(got, 0, 100);
	EQ(100, stat_fd(fd).st_size);
	OK(fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, 1 << 20));
	EQ(100, stat_fd(fd).st_size);
	EQ(len, pwrite(fd, big, len, 0));
	OK(fallocate(fd, 0, 1000, 50000));
	CONTENTS(fd, big, len);

	static const struct {
		size_t off, len;
	} hole[] = {{0, 1},
		    {4096, 4096},
		    {100000, 1},
		    {65536 - 3, 6},
		    {200001, 300003},
		    {(1 << 20) - 1, (1 << 20) + 2},
		    {(3 << 20) - 10, 10}};
	for (size_t i = 0; i < sizeof(hole) / sizeof(hole[0]); i++) {
		int mode = i % 2 ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE;

		OK(fallocate(fd, mode | FALLOC_FL_KEEP_SIZE, (off_t)hole[i].off,
			     (off_t)hole[i].len));
		memset(big + hole[i].off, 0, hole[i].len);
		CONTENTS(fd, big, len);
	}
	OK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)len - 5, 1 << 20));
	memset(big + len - 5, 0, 5);
	CONTENTS(fd, big, len);
	OK(fallocate(fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, (off_t)len - 7, 100));
	memset(big + len - 7, 0, 7);
	CONTENTS(fd, big, len);
	OK(fallocate(fd, FALLOC_FL_ZERO_RANGE, (off_t)len - 7, 100));
	memset(big + len, 0, 93);
	CONTENTS(fd, big, len + 93);
	OK(fallocate(fd, 0, (off_t)len + 1000, 24));
	memset(big + len, 0, 1024);
	CONTENTS(fd, big, len + 1024);
	OK(fsync(fd));
	/* A hole is space again. */
	blkcnt_t before = stat_fd(fd).st_blocks;
	OK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 2 << 20));
	OK(fsync(fd));
	IS(stat_fd(fd).st_blocks < before);
	memset(big, 0, 2 << 20);
	CONTENTS(fd, big, len + 1024);

	FAILS(EINVAL, fallocate(fd, 0, 0, 0));
	FAILS(EINVAL, fallocate(fd, 0, -1, 10));
	FAILS(EINVAL, fallocate(fd, 0, 0, -10));
	FAILS(EFBIG, fallocate(fd, 0, INT64_MAX - 5, 100));
	FAILS2(EOPNOTSUPP, EINVAL, fallocate(fd, FALLOC_FL_PUNCH_HOLE, 0, 10));
	FAILS2(EOPNOTSUPP, EINVAL, fallocate(fd, 1 << 15, 0, 10));
	FAILS(EBADF, fallocate(open("f", O_RDONLY), 0, 0, 10));
	EQ(len + 1024, stat_fd(fd).st_size);
	OK(close(fd));

	/* Small files too. */
	fd = FD(open("s", O_RDWR | O_CREAT, 0644));
	memcpy(big, "0123456789", 10);
	EQ(10, write(fd, big, 10));
	OK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 2, 3));
	memset(big + 2, 0, 3);
	CONTENTS(fd, big, 10);
	OK(fallocate(fd, FALLOC_FL_ZERO_RANGE, 8, 4));
	memset(big + 8, 0, 4);
	CONTENTS(fd, big, 12);
	OK(fallocate(fd, 0, 0, 100000));
	memset(big + 12, 0, 99988);
	CONTENTS(fd, big, 100000);
	OK(close(fd));
}

static void seeking(void)
{
	const off_t mib = 1 << 20;
	int fd = FD(open("f", O_RDWR | O_CREAT, 0644));

	FAILS(ENXIO, lseek(fd, 0, SEEK_DATA));
	FAILS(ENXIO, lseek(fd, 0, SEEK_HOLE));
	OK(ftruncate(fd, 64 * mib));
	EQ(0, lseek(fd, 0, SEEK_HOLE));
	FAILS(ENXIO, lseek(fd, 0, SEEK_DATA));
	pattern(big, (size_t)mib, 1);
	EQ(mib, pwrite(fd, big, (size_t)mib, 8 * mib));
	EQ(mib, pwrite(fd, big, (size_t)mib, 32 * mib));
	for (int synced = 0; synced < 2; synced++) {
		EQ(8 * mib, lseek(fd, 0, SEEK_DATA));
		EQ(8 * mib + 5, lseek(fd, 8 * mib + 5, SEEK_DATA));
		EQ(9 * mib, lseek(fd, 8 * mib, SEEK_HOLE));
		EQ(32 * mib, lseek(fd, 9 * mib, SEEK_DATA));
		EQ(33 * mib, lseek(fd, 32 * mib + 1, SEEK_HOLE));
		EQ(10 * mib, lseek(fd, 10 * mib, SEEK_HOLE));
		FAILS(ENXIO, lseek(fd, 33 * mib, SEEK_DATA));
		FAILS(ENXIO, lseek(fd, 64 * mib, SEEK_DATA));
		FAILS(ENXIO, lseek(fd, 64 * mib, SEEK_HOLE));
		FAILS(ENXIO, lseek(fd, 1LL << 40, SEEK_DATA));
		FAILS(ENXIO, lseek(fd, -1, SEEK_DATA));
		EQ(64 * mib - 1, lseek(fd, 64 * mib - 1, SEEK_HOLE));
		OK(fsync(fd));
	}
	OK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 8 * mib, mib / 2));
	EQ(8 * mib + mib / 2, lseek(fd, 0, SEEK_DATA));
	/* The end of a file is a hole; what was not said to be one may be data. */
	OK(ftruncate(fd, 9 * mib));
	EQ(9 * mib, lseek(fd, 8 * mib + mib / 2, SEEK_HOLE));
	OK(close(fd));
	fd = FD(open("s", O_RDWR | O_CREAT, 0644));
	EQ(10, write(fd, "0123456789", 10));
	EQ(3, lseek(fd, 3, SEEK_DATA));
	EQ(10, lseek(fd, 3, SEEK_HOLE));
	FAILS(ENXIO, lseek(fd, 10, SEEK_DATA));
	OK(close(fd));
}

static size_t copy_all(int in, off_t from, int out, off_t to, size_t len)
{
	size_t done = 0;

	while (done < len) {
		off_t a = from + (off_t)done, b = to + (off_t)done;
		ssize_t n = copy_file_range(in, &a, out, &b, len - done, 0);

		if (OK(n) <= 0)
			break;
		EQ(from + (off_t)done + n, a);
		EQ(to + (off_t)done + n, b);
		done += (size_t)n;
	}
	return done;
}

static void copying(void)
{
	const size_t len = 2 << 20;
	int a = FD(open("a", O_RDWR | O_CREAT, 0644)),
	    b = FD(open("b", O_RDWR | O_CREAT, 0644));

	pattern(big, len, 1);
	EQ(len, write(a, big, len));
	EQ(len, copy_all(a, 0, b, 0, len));
	CONTENTS(b, big, len);
	/* Unaligned, across the middle and past the end. */
	EQ(500000, copy_all(a, 12345, b, 777, 500000));
	memmove(big + len, big + 12345, 500000);
	memcpy(big + 777, big + len, 500000);
	CONTENTS(b, big, len);
	EQ(100000, copy_all(a, 99, b, (off_t)len + 50000, 100000));
	pattern(big + 4194304, len, 1);
	memset(big + len, 0, 50000);
	memcpy(big + len + 50000, big + 4194304 + 99, 100000);
	CONTENTS(b, big, len + 150000);
	OK(fsync(b));
	EQ(0, lseek(a, 0, SEEK_SET));
	/* Within one file, where nothing overlaps. */
	pattern(big, len, 1);
	EQ(100001, copy_all(a, 5, a, 1000000, 100001));
	memcpy(big + 1000000, big + 5, 100001);
	CONTENTS(a, big, len);
	off_t from = 0, to = 100;
	FAILS(EINVAL, copy_file_range(a, &from, a, &to, 200, 0));
	CONTENTS(a, big, len);
	/* Not past the end of the source; the positions of the files without offsets. */
	from = (off_t)len - 10;
	to = 0;
	EQ(10, copy_file_range(a, &from, b, &to, 1000, 0));
	EQ(0, copy_file_range(a, &from, b, &to, 1000, 0));
	OK(ftruncate(b, 0));
	EQ(0, lseek(b, 0, SEEK_SET));
	EQ(7, lseek(a, 7, SEEK_SET));
	EQ(20, copy_file_range(a, NULL, b, NULL, 20, 0));
	EQ(27, lseek(a, 0, SEEK_CUR));
	EQ(20, lseek(b, 0, SEEK_CUR));
	CONTENTS(b, big + 7, 20);
	/* Later changes of one are not the other's. */
	OK(ftruncate(b, 0));
	EQ(len, copy_all(a, 0, b, 0, len));
	EQ(3, pwrite(a, "new", 3, 100));
	CONTENTS(b, big, len);
	memcpy(big + 100, "new", 3);
	EQ(3, pwrite(b, "old", 3, 70000));
	CONTENTS(a, big, len);
	from = to = 0;
	FAILS(EBADF, copy_file_range(a, &from, open("b", O_RDONLY), &to, 1, 0));
	FAILS(EBADF, copy_file_range(open("a", O_WRONLY), &from, b, &to, 1, 0));
	FAILS(EBADF, copy_file_range(a, &from, open("b", O_WRONLY | O_APPEND), &to, 1, 0));
	FAILS(EISDIR, copy_file_range(open(".", O_RDONLY), &from, b, &to, 1, 0));
	FAILS(EINVAL, copy_file_range(a, &from, b, &to, 1, 1));
	OK(close(a));
	OK(close(b));
	/* Small to small and a hole. */
	a = FD(open("s", O_RDWR | O_CREAT, 0644));
	b = FD(open("t", O_RDWR | O_CREAT, 0644));
	EQ(5, write(a, "small", 5));
	EQ(5, copy_all(a, 0, b, 0, 5));
	CONTENTS(b, (const uint8_t *)"small", 5);
	OK(ftruncate(a, 300000));
	EQ(300000, copy_all(a, 0, b, 0, 300000));
	memset(big, 0, 300000);
	memcpy(big, "small", 5);
	CONTENTS(b, big, 300000);
	OK(close(a));
	OK(close(b));
}

static void mapping(void)
{
	const size_t len = 1 << 20;
	int fd = FD(open("f", O_RDWR | O_CREAT, 0644));
	uint8_t b[8];

	pattern(big, len, 4);
	EQ(len, write(fd, big, len));
	uint8_t *s = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	uint8_t *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	if (!IS(s != MAP_FAILED) || !IS(p != MAP_FAILED))
		return;
	IS(!memcmp(s, big, len));
	IS(!memcmp(p, big, len));
	/* A mapping's write is read at once, a write is seen in the mapping. */
	memcpy(s + 5000, "mapped", 6);
	EQ(6, pread(fd, b, 6, 5000));
	IS(!memcmp(b, "mapped", 6));
	EQ(7, pwrite(fd, "written", 7, 700001));
	IS(!memcmp(s + 700001, "written", 7));
	memcpy(big + 5000, "mapped", 6);
	memcpy(big + 700001, "written", 7);
	/* A private one's stays with it. */
	memcpy(p, "private", 7);
	CONTENTS(fd, big, len);
	IS(!memcmp(s, big, len));
	for (size_t i = 0; i < len; i += 4096)
		s[i + i / 4096 % 4096] = big[i + i / 4096 % 4096] = (uint8_t)(i >> 12);
	OK(msync(s, len, MS_SYNC));
	CONTENTS(fd, big, len);
	s[77] = big[77] = 1;
	OK(munmap(s, len));
	OK(munmap(p, len));
	OK(fsync(fd));
	CONTENTS(fd, big, len);
	OK(close(fd));
	fd = FD(open("f", O_RDWR));
	CONTENTS(fd, big, len);

	/* Between processes. */
	s = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 8192);
	if (child()) {
		int c = FD(open("f", O_RDWR));
		uint8_t *m = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, c, 8192);

		m[9] = 99;
		_exit(0);
	}
	EQ(99, s[9]);
	big[8192 + 9] = 99;
	/* The descriptor may go before the mapping, the name too. */
	OK(close(fd));
	s[10] = big[8192 + 10] = 98;
	OK(link("f", "g"));
	OK(unlink("f"));
	OK(munmap(s, 4096));
	fd = FD(open("g", O_RDWR));
	CONTENTS(fd, big, len);

	/* The part of the last page past the end is zero and is not the file's. */
	OK(ftruncate(fd, 5000));
	s = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	IS(all_zero(s + 5000, 3192));
	memset(s + 5000, 7, 100);
	OK(msync(s, 8192, MS_SYNC));
	EQ(5000, stat_fd(fd).st_size);
	OK(munmap(s, 8192));
	OK(ftruncate(fd, 6000));
	memset(big + 5000, 0, 1000);
	CONTENTS(fd, big, 6000);
	/* Truncated under a mapping: the pages beyond are gone. */
	if (child()) {
		s = mmap(NULL, 8192, PROT_READ, MAP_SHARED, fd, 0);
		IS(s[4097] == big[4097]);
		OK(ftruncate(fd, 100));
		pid_t pid = fork();
		if (!pid) {
			signal(SIGBUS, SIG_DFL);
			_exit(s[4097]);
		}
		int status = 0;
		waitpid(pid, &status, 0);
		IS(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS);
		IS(s[100] == 0 && s[99] == big[99]);
		_exit(0);
	}
	FAILS(EACCES,
	      mmap(NULL, 4096, PROT_WRITE, MAP_SHARED, open("g", O_RDONLY), 0) == MAP_FAILED
		      ? -1
		      : 0);
	OK(close(fd));
	/* A file that is only mapped into a hole. */
	fd = FD(open("h", O_RDWR | O_CREAT, 0644));
	OK(ftruncate(fd, 300000));
	s = mmap(NULL, 300000, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	memset(big, 0, 300000);
	memcpy(s + 131000, "abcdef", 6);
	memcpy(big + 131000, "abcdef", 6);
	OK(munmap(s, 300000));
	CONTENTS(fd, big, 300000);
	OK(close(fd));
}

static void direct(void)
{
	const size_t len = 1 << 20;
	int fd = FD(open("f", O_RDWR | O_CREAT, 0644)), d = open("f", O_RDWR | O_DIRECT);
	uint8_t *p = aligned_alloc(4096, len);

	if (OK(d) < 0 || !IS(p != NULL))
		return;
	pattern(big, len, 8);
	memcpy(p, big, len);
	EQ(len, pwrite(d, p, len, 0));
	CONTENTS(fd, big, len);
	/* Each way sees what the others wrote. */
	uint8_t *m = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	IS(!memcmp(m, big, len));
	EQ(5, pwrite(fd, "plain", 5, 10000));
	memcpy(big + 10000, "plain", 5);
	memcpy(m + 20000, "mapped", 6);
	memcpy(big + 20000, "mapped", 6);
	memset(p, 0, len);
	EQ(len, pread(d, p, len, 0));
	IS(!memcmp(p, big, len));
	pattern(p, 65536, 99);
	pattern(big + 131072, 65536, 99);
	EQ(65536, pwrite(d, p, 65536, 131072));
	IS(!memcmp(m, big, len));
	CONTENTS(fd, big, len);
	OK(munmap(m, len));
	/* To the end and beyond. */
	OK(ftruncate(fd, 10001));
	EQ(10001 - 8192, pread(d, p, 8192, 8192));
	IS(!memcmp(p, big + 8192, 10001 - 8192));
	EQ(0, pread(d, p, 4096, 12288));
	memset(p, 3, 4096);
	EQ(4096, pwrite(d, p, 4096, 1 << 16));
	memset(big + 10001, 0, 65536 - 10001);
	memset(big + 65536, 3, 4096);
	CONTENTS(fd, big, 65536 + 4096);
	OK(fsync(d));
	CONTENTS(fd, big, 65536 + 4096);
	OK(close(d));
	OK(close(fd));
	free(p);
}

/*
 * What an asynchronous O_DIRECT write wrote is read afterwards, also while others read the
 * file meanwhile: none of its old pages stay in the kernel's memory.
 */
static void asynchronous(void)
{
	enum { WRITES = 16, EACH = 40 << 10, LEN = WRITES * EACH, ROUNDS = 100 };
	aio_context_t ctx = 0;
	struct iocb cb[WRITES], *list[WRITES];
	struct io_event ev[WRITES];
	int fd = FD(open("f", O_RDWR | O_CREAT, 0644)), d = open("f", O_RDWR | O_DIRECT);
	uint8_t *p = aligned_alloc(4096, LEN);
	bool good = true;
	pid_t readers[2];

	if (OK(d) < 0 || !IS(p != NULL) || OK(syscall(SYS_io_setup, WRITES, &ctx)) < 0)
		return;
	OK(ftruncate(fd, LEN));
	for (int i = 0; i < 2; i++) {
		readers[i] = fork();
		OK(readers[i]);
		while (!readers[i])
			(void)!pread(fd, got, LEN, 0);
	}
	for (int round = 0; good && round < ROUNDS; round++) {
		memset(p, 'a' + round % 26, LEN);
		for (int i = 0; i < WRITES; i++) {
			cb[i] = (struct iocb){.aio_lio_opcode = IOCB_CMD_PWRITE,
					      .aio_fildes = (uint32_t)d,
					      .aio_buf = (uintptr_t)(p + i * EACH),
					      .aio_nbytes = EACH,
					      .aio_offset = i * EACH};
			list[i] = &cb[i];
		}
		good = syscall(SYS_io_submit, ctx, WRITES, list) == WRITES &&
		       syscall(SYS_io_getevents, ctx, WRITES, WRITES, ev, NULL) == WRITES &&
		       pread(fd, big, LEN, 0) == LEN && !memcmp(big, p, LEN);
	}
	IS(good);
	for (int i = 0; i < 2; i++) {
		OK(kill(readers[i], SIGKILL));
		OK(waitpid(readers[i], NULL, 0));
	}
	OK(syscall(SYS_io_destroy, ctx));
	OK(close(d));
	OK(close(fd));
	free(p);
}

int main(int argc, char **argv)
{
	static const struct checks groups[] = {
		{"reading", reading, false},	   {"appending", appending, false},
		{"growing", growing, false},	   {"sparse", sparse, false},
		{"allocating", allocating, false}, {"seeking", seeking, false},
		{"copying", copying, false},	   {"mapping", mapping, false},
		{"direct", direct, false},	   {"asynchronous", asynchronous, false},
		{NULL, NULL, false},
	};

	return check_main(argc, argv, groups);
}
