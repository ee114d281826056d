/* SPDX-License-Identifier: GPL-3.0-or-later */
/* copyrange FROM TO: copies a file by copy_file_range(2) alone. */
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include "net/base.h"

int main(int argc, char **argv)
{
	struct stat st;
	int in, out;

	if (argc != 3)
		return 2;
	in = open(argv[1], O_RDONLY);
	out = open(argv[2], O_WRONLY | O_CREAT | O_TRUNC, 0644);
	if (in < 0 || out < 0 || fstat(in, &st)) {
		perror("copyrange");
		return 1;
	}
	for (off_t left = st.st_size; left > 0;) {
		ssize_t n = copy_file_range(in, NULL, out, NULL, (size_t)left, 0);
		if (n <= 0) {
			perror("copy_file_range");
			return 1;
		}
		left -= n;
	}
	return close(out) ? 1 : 0;
}
