/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * churn DIR SEED [STEPS]: random creates, writes, truncates, renames, links, unlinks, mkdirs and
 * rmdirs below DIR, until DIR fails or for STEPS steps.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include "net/base.h"

static uint64_t seed;
static uint64_t rnd(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	return seed ^= seed << 17;
}

static void name(char *out, const char *dir)
{
	snprintf(out, 4200, "%s/d%u/f%u", dir, (unsigned)(rnd() % 8), (unsigned)(rnd() % 60));
}

int main(int argc, char **argv)
{
	static uint8_t buf[200000];
	char a[4200], b[4200];
	struct stat st;

	if (argc < 3)
		return 2;
	seed = 0x9e3779b97f4a7c15u ^ strtoull(argv[2], NULL, 10);
	long steps = argc > 3 ? atol(argv[3]) : -1;
	for (size_t i = 0; i < sizeof(buf); i += 8)
		put_le64(buf + i, rnd());
	mkdir(argv[1], 0755);
	while (steps < 0 || steps-- > 0) {
		int fd, rc = 0;
		name(a, argv[1]);
		name(b, argv[1]);
		switch (rnd() % 10) {
		case 0:
			snprintf(a, sizeof(a), "%s/d%u", argv[1], (unsigned)(rnd() % 8));
			rc = mkdir(a, 0755);
			break;
		case 1:
			snprintf(a, sizeof(a), "%s/d%u", argv[1], (unsigned)(rnd() % 8));
			rc = rmdir(a);
			break;
		case 2:
			rc = unlink(a);
			break;
		case 3:
			rc = rename(a, b);
			break;
		case 4:
			rc = link(a, b);
			break;
		case 5:
			rc = truncate(a, (off_t)(rnd() % 300000));
			break;
		case 6:
			rc = symlink(b, a);
			break;
		default:
			fd = open(a, O_WRONLY | O_CREAT, 0644);
			if (fd < 0) {
				rc = fd;
				break;
			}
			rc = (int)pwrite(fd, buf, rnd() % (rnd() % 4 ? 9000 : sizeof(buf)),
					 (off_t)(rnd() % 3 ? 0 : rnd() % 100000));
			close(fd);
		}
		if (rc < 0 && (errno == ENOTCONN || errno == ECONNABORTED || errno == EIO))
			return 0;
	}
	return stat(argv[1], &st) ? 1 : 0;
}
