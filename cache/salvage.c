/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "cache/salvage.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define DEPTH_MAX 1000 /* directories above a file; a damaged table may hold a loop */

struct salvage {
	sqlite3 *db; /* NULL: cannot be read */
	const char *data, *out;
	uint64_t named, unnamed, published;
	uint64_t *ino; /* changed since the last publication, ascending; unless all */
	size_t ino_cnt, ino_cap;
	bool all;
};

static bool wanted(const struct salvage *s, uint64_t ino)
{
	size_t lo = 0, hi = s->ino_cnt;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (s->ino[mid] == ino)
			return true;
		if (s->ino[mid] < ino)
			lo = mid + 1;
		else
			hi = mid;
	}
	return s->all;
}

/* Which files changed.  When that cannot be read: all of them. */
static int read_changed(struct salvage *s)
{
	sqlite3_stmt *q = NULL;
	int r = sqlite3_prepare_v2(s->db, "SELECT v FROM kv WHERE k = 'published'", -1, &q,
				   NULL);

	if (r == SQLITE_OK && sqlite3_step(q) == SQLITE_ROW)
		s->published = (uint64_t)sqlite3_column_int64(q, 0);
	sqlite3_finalize(q);
	q = NULL;
	r = sqlite3_prepare_v2(s->db, "SELECT ino FROM inode WHERE dchg > ?", -1, &q, NULL);
	if (r == SQLITE_OK)
		sqlite3_bind_int64(q, 1, (int64_t)s->published);
	while (r == SQLITE_OK && (r = sqlite3_step(q)) == SQLITE_ROW) {
		r = SQLITE_OK;
		if (s->ino_cnt == s->ino_cap) {
			size_t cap = s->ino_cap ? s->ino_cap * 2 : 256;
			uint64_t *more = reallocarray(s->ino, cap, sizeof *more);

			if (!more) {
				sqlite3_finalize(q);
				return -ENOMEM;
			}
			s->ino = more;
			s->ino_cap = cap;
		}
		s->ino[s->ino_cnt++] = (uint64_t)sqlite3_column_int64(q, 0);
	}
	sqlite3_finalize(q);
	s->all = r != SQLITE_DONE;
	if (s->ino_cnt)
		qsort(s->ino, s->ino_cnt, sizeof *s->ino, u64_cmp);
	return 0;
}

/* The path of an inode below the root, or false when it cannot be told. */
static bool find_path(struct salvage *s, uint64_t ino, char path[PATH_MAX])
{
	size_t at = PATH_MAX - 1;
	bool whole = false;

	path[at] = 0;
	for (int depth = 0; s->db && depth < DEPTH_MAX && !whole; depth++) {
		sqlite3_stmt *q = NULL;
		bool up = false;

		if (sqlite3_prepare_v2(s->db, "SELECT parent, name FROM dirent WHERE ino = ?",
				       -1, &q, NULL) == SQLITE_OK) {
			sqlite3_bind_int64(q, 1, (int64_t)ino);
			if (sqlite3_step(q) == SQLITE_ROW) {
				const void *name = sqlite3_column_blob(q, 1);
				size_t len = (size_t)sqlite3_column_bytes(q, 1);

				up = name && len && len <= 255 && len < at &&
				     !memchr(name, '/', len) && !memchr(name, 0, len) &&
				     !(len == 1 && !memcmp(name, ".", 1)) &&
				     !(len == 2 && !memcmp(name, "..", 2));
				if (up) {
					at -= len;
					memcpy(path + at, name, len);
					path[--at] = '/';
					ino = (uint64_t)sqlite3_column_int64(q, 0);
					whole = ino == 1;
				}
			}
		}
		sqlite3_finalize(q);
		if (!up)
			break;
	}
	memmove(path, path + at, PATH_MAX - at);
	return whole;
}

/* Where the inode's bytes go: malloc'ed, its directories made. */
static char *target(struct salvage *s, uint64_t ino, bool *named)
{
	char *path = malloc(PATH_MAX), *to = NULL;

	if (!path)
		return NULL;
	*named = find_path(s, ino, path);
	if (*named) {
		if (asprintf(&to, "%s%s", s->out, path) < 0)
			to = NULL;
		char *slash = to ? strrchr(to, '/') : NULL;
		if (slash) {
			*slash = 0;
			if (mkdir_all(to, 0700))
				*named = false;
			*slash = '/';
		}
		if (!*named || access(to ? to : "", F_OK) == 0) {
			free(to);
			to = NULL;
			*named = false;
		}
	}
	free(path);
	if (!to && (mkdir_all(s->out, 0700) ||
		    asprintf(&to, "%s/inode-%llu", s->out, (unsigned long long)ino) < 0))
		to = NULL;
	return to;
}

static int keep_file(struct salvage *s, const char *from, uint64_t ino)
{
	bool named;
	char *to = target(s, ino, &named);
	int err = !to ? -ENOMEM : link(from, to) < 0 && errno != EEXIST ? -errno : 0;

	if (!err)
		*(named ? &s->named : &s->unnamed) += 1;
	else
		log_fail(err, "%s cannot be linked below %s: %s", from, s->out, strerror(-err));
	free(to);
	return err;
}

/*
 * What was fsynced into rows of `redo` need not be in the cache files yet, which are linked, not
 * copied: so it is written there first.  Databases of earlier versions have no such rows.
 */
static void each_redo(struct salvage *s)
{
	sqlite3_stmt *q = NULL;
	int r = sqlite3_prepare_v2(s->db, "SELECT ino, off, bytes FROM redo ORDER BY ino, seq",
				   -1, &q, NULL);

	while (r == SQLITE_OK && sqlite3_step(q) == SQLITE_ROW) {
		uint64_t ino = (uint64_t)sqlite3_column_int64(q, 0);
		sqlite3_int64 off = sqlite3_column_int64(q, 1);
		const void *p = sqlite3_column_blob(q, 2);
		int len = sqlite3_column_bytes(q, 2);
		char file[PATH_MAX];

		if (!wanted(s, ino) || !p || off < 0 ||
		    (size_t)snprintf(file, sizeof file, "%s/%02x/%llx", s->data,
				     (unsigned)(ino & 0xff),
				     (unsigned long long)ino) >= sizeof file)
			continue;
		int fd = open(file, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
		if (fd < 0 && errno == ENOENT)
			continue;
		if (fd < 0 || pwrite(fd, p, (size_t)len, off) != len || fsync(fd) < 0)
			log_warn("%s lacks what was written last, %d bytes at %lld", file, len,
				 (long long)off);
		if (fd >= 0)
			close(fd);
	}
	sqlite3_finalize(q);
}

static int each_file(struct salvage *s)
{
	char dir[PATH_MAX], file[PATH_MAX];
	struct dirent *d, *e;
	int err = 0;

	DIR *top = opendir(s->data);
	while (top && !err && (d = readdir(top))) {
		if (*d->d_name == '.' || (size_t)snprintf(dir, sizeof dir, "%s/%s", s->data,
							  d->d_name) >= sizeof dir)
			continue;
		DIR *sub = opendir(dir);
		while (sub && !err && (e = readdir(sub))) {
			char *end;
			uint64_t ino = strtoull(e->d_name, &end, 16);

			if (end == e->d_name || *end || !wanted(s, ino) ||
			    (size_t)snprintf(file, sizeof file, "%s/%s", dir, e->d_name) >=
				    sizeof file)
				continue;
			err = keep_file(s, file, ino);
		}
		if (sub)
			closedir(sub);
	}
	if (top)
		closedir(top);
	return err;
}

static int each_small(struct salvage *s)
{
	sqlite3_stmt *q = NULL;
	int r = sqlite3_prepare_v2(s->db, "SELECT ino, bytes FROM small", -1, &q, NULL),
	    err = 0;

	while (r == SQLITE_OK && !err && sqlite3_step(q) == SQLITE_ROW) {
		uint64_t ino = (uint64_t)sqlite3_column_int64(q, 0);
		bool named;

		if (!wanted(s, ino))
			continue;
		char *to = target(s, ino, &named);
		err = to ? file_write_atomic(to, sqlite3_column_blob(q, 1),
					     (size_t)sqlite3_column_bytes(q, 1), 0600)
			 : -ENOMEM;
		if (!err)
			*(named ? &s->named : &s->unnamed) += 1;
		free(to);
	}
	sqlite3_finalize(q);
	return err ? log_fail(err, "%s: %s", s->out, strerror(-err)) : 0;
}

int salvage_files(const char *db, const char *data, const char *out, uint64_t *named,
		  uint64_t *unnamed)
{
	struct salvage s = {.data = data, .out = out, .all = true};
	int err = 0;

	if (sqlite3_open_v2(db, &s.db, SQLITE_OPEN_READONLY, NULL) != SQLITE_OK) {
		sqlite3_close(s.db);
		s.db = NULL;
	}
	if (s.db)
		err = read_changed(&s);
	if (!err && s.db)
		each_redo(&s);
	if (!err)
		err = each_file(&s);
	if (!err && s.db)
		err = each_small(&s);
	sqlite3_close(s.db);
	free(s.ino);
	*named = s.named;
	*unnamed = s.unnamed;
	return err;
}
