/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Reads, writes and syncs of cache files take time, while others go on; syncs are what a power
 * cut leaves: the model of the unit tests.
 */
#include "sim.h"

#include <unistd.h>

ssize_t __real_pread64(int fd, void *p, size_t len, off_t at);
ssize_t __real_pwrite64(int fd, const void *p, size_t len, off_t at);
/* What the model itself copies takes none, and no crash comes in the middle of it. */
#define pread  __real_pread64
#define pwrite __real_pwrite64
/* Its fsync and fdatasync become the model's own; ours stand before them. */
#define fsync	  disk_fsync
#define fdatasync disk_fdatasync
int disk_fsync(int fd);
int disk_fdatasync(int fd);
#define rnd pc_rnd
#include "tests/unit/powercut.h"
#undef rnd
#undef fsync
#undef fdatasync
#undef pread
#undef pwrite
#include <ftw.h>

static void io_time(uint64_t one_in, uint64_t most_ms)
{
	if (w && w->slow_disk && chance(RND_DISK, one_in))
		sched_sleep((int64_t)rnd_below(RND_DISK, most_ms) * MS);
	else
		sched_point();
}

ssize_t __wrap_pread64(int fd, void *p, size_t len, off_t at)
{
	io_time(4, 30);
	return __real_pread64(fd, p, len, at);
}

ssize_t __wrap_pwrite64(int fd, const void *p, size_t len, off_t at)
{
	io_time(8, 30);
	return __real_pwrite64(fd, p, len, at);
}

static int synced(int fd)
{
	io_time(4, 60);
	return pc_sync(fd);
}

int fsync(int fd)
{
	return synced(fd);
}

int fdatasync(int fd)
{
	return synced(fd);
}

static char disk_root[96];

void disk_attach(const char *root, bool cuts)
{
	snprintf(disk_root, sizeof disk_root, "%s", root);
	pc_off();
	if (!cuts)
		return;
	snprintf(pc.root, sizeof pc.root, "%s", root);
	snprintf(pc.disk, sizeof pc.disk, "%s.disk", root);
}

void disk_begin(const char *root, bool cuts)
{
	if (mkdir(root, 0700))
		abort();
	if (cuts)
		pc_on(root);
	disk_attach(root, cuts);
}

static int rm_one(const char *path, const struct stat *s, int flag, struct FTW *f)
{
	(void)s;
	(void)flag;
	(void)f;
	return remove(path);
}

static int sync_one(const char *path, const struct stat *s, int flag, struct FTW *f)
{
	int fd = open(path, O_RDONLY);

	(void)s;
	(void)flag;
	(void)f;
	if (fd < 0 || pc_sync(fd))
		abort();
	close(fd);
	return 0;
}

static uint64_t disk_rnd(uint64_t n)
{
	return rnd_below(RND_DISK, n);
}

void disk_cut(void)
{
	static const enum pc_mode mode[] = {PC_LOSE, PC_KEEP, PC_MIX, PC_MIX};
	char after[112];

	snprintf(after, sizeof after, "%s.after", disk_root);
	pc_cut(after, mode[rnd_below(RND_DISK, 4)], disk_rnd);
	nftw(disk_root, rm_one, 16, FTW_DEPTH | FTW_PHYS);
	nftw(pc.disk, rm_one, 16, FTW_DEPTH | FTW_PHYS);
	if (rename(after, disk_root) || mkdir(pc.disk, 0700))
		abort();
	/* What is found after a power cut is on the disk. */
	nftw(disk_root, sync_one, 16, FTW_PHYS);
}
