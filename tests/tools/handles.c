/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * handles: file handles as a server of NFS keeps them, over a mount or two.
 *
 * handles save FILE PATH...   writes to FILE what name_to_handle_at says of each path
 * handles show DIR FILE       opens each on the mount that DIR is on, in the same order; a line
 *                             for each: its inode number and size, or the name of the error
 */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include "net/base.h"

union handle {
	struct file_handle h;
	unsigned char all[sizeof(struct file_handle) + MAX_HANDLE_SZ];
};

static int save(const char *to, char **path)
{
	FILE *f = fopen(to, "w");
	int bad = !f;

	for (; f && *path; path++) {
		union handle u = {.h.handle_bytes = MAX_HANDLE_SZ};
		int id;

		if (name_to_handle_at(AT_FDCWD, *path, &u.h, &id, 0)) {
			printf("%s: %s\n", *path, strerrorname_np(errno));
			bad = 1;
		}
		bad |= fwrite(&u, sizeof u, 1, f) != 1;
	}
	return (f && fclose(f)) || bad;
}

static int show(const char *dir, const char *from)
{
	FILE *f = fopen(from, "r");
	int on = open(dir, O_RDONLY | O_DIRECTORY);
	union handle u;

	if (!f || on < 0)
		return 1;
	while (fread(&u, sizeof u, 1, f) == 1) {
		struct stat st;
		int fd = open_by_handle_at(on, &u.h, O_RDONLY | O_NONBLOCK);

		/* What is no file and no directory can be looked at only. */
		if (fd < 0 && errno == ELOOP)
			fd = open_by_handle_at(on, &u.h, O_PATH | O_NOFOLLOW);
		if (fd < 0 || fstat(fd, &st))
			printf("%s\n", strerrorname_np(errno));
		else
			printf("%llu %lld\n", (unsigned long long)st.st_ino,
			       (long long)st.st_size);
		if (fd >= 0)
			close(fd);
	}
	fclose(f);
	close(on);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc >= 4 && !strcmp(argv[1], "save"))
		return save(argv[2], argv + 3);
	if (argc == 4 && !strcmp(argv[1], "show"))
		return show(argv[2], argv[3]);
	fprintf(stderr, "usage: handles save FILE PATH... | show DIR FILE\n");
	return 2;
}
