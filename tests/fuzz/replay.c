/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Runs a fuzz target over every file of a corpus, and over each cut short and with single
 * bits flipped, without libFuzzer: what `make check` does with the corpora.
 */
#include <dirent.h>
#include <stdlib.h>
#include "net/base.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int main(int argc, char **argv)
{
	unsigned files = 0, runs = 0;
	struct dirent *e;
	DIR *d = argc == 2 ? opendir(argv[1]) : NULL;

	if (!d) {
		fprintf(stderr, "usage: replay CORPUS-DIRECTORY\n");
		return 2;
	}
	while ((e = readdir(d))) {
		char path[4096];
		struct buf b = {0};

		if (e->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "%s/%s", argv[1], e->d_name);
		if (file_read(path, 4u << 20, &b) < 0)
			return 1;
		files++;
		/* A heap copy of the exact size, so that a sanitizer sees a read beyond it. */
		for (size_t i = 0; i <= HF_MIN(b.len, 2048) * 2; i++) {
			size_t len = i && i % 2 ? i / 2 : b.len;
			uint8_t *p = malloc(len + !len);
			if (!p)
				return 1;
			if (len)
				memcpy(p, b.p, len);
			if (i && i % 2 == 0)
				p[i / 2 - 1] ^= (uint8_t)(1u << i / 2 % 8);
			LLVMFuzzerTestOneInput(p, len);
			free(p);
			runs++;
		}
		buf_release(&b);
	}
	closedir(d);
	printf("%u files, %u inputs\n", files, runs);
	return files ? 0 : 1;
}
