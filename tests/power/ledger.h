/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * ledger: what programs did on the drive, in a file that three share: `stream`, which writes
 * it, `recdisk`, which notes how far it was at a cut, and `found`.
 *
 * Each thread has a history, and nobody else touches its files.  An operation is written
 * before it begins (begun), and counts as done when the program was told so (acked).
 */
#ifndef HOLDFAST_TESTS_LEDGER_H
#define HOLDFAST_TESTS_LEDGER_H

#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#define THREADS_MAX 4
#define OPS_MAX	    (1u << 19)

enum op_kind {
	OP_CREATE = 1,
	OP_MKDIR,
	OP_WRITE,
	OP_TRUNCATE,
	OP_PUNCH,
	OP_RENAME,
	OP_LINK,
	OP_UNLINK,
	OP_RMDIR,
	OP_CHMOD,
	OP_XATTR,
	OP_FSYNC,
	OP_FDATASYNC,
	OP_FSYNCDIR,
	OP_PUBLISH, /* holdfast sync */
};

struct op {
	uint8_t kind;
	uint8_t leaf, leaf2;
	uint32_t obj, dir, dir2; /* objects; made by CREATE and MKDIR, in order */
	uint32_t off, len;	 /* units; TRUNCATE: the size in len; CHMOD, XATTR: the value */
	uint64_t ino;		 /* CREATE, MKDIR: when done */
	int64_t begin_ns, end_ns;
};

struct ledger {
	_Atomic uint32_t threads, go, stop, cuts;
	_Atomic uint32_t wanted, gap; /* cuts; operations between two, on average */
	_Atomic int32_t pid;	      /* of the daemon */
	struct {
		_Atomic uint64_t begun, acked;
	} thread[THREADS_MAX];
	struct op op[THREADS_MAX][OPS_MAX];
};

/* NULL: it cannot be mapped.  A new one is sparse and all zeros. */
static inline struct ledger *ledger_map(const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	if (fd < 0)
		return NULL;
	void *p = ftruncate(fd, sizeof(struct ledger)) < 0
			  ? MAP_FAILED
			  : mmap(NULL, sizeof(struct ledger), PROT_READ | PROT_WRITE,
				 MAP_SHARED, fd, 0);
	close(fd);
	return p == MAP_FAILED ? NULL : p;
}

#endif
