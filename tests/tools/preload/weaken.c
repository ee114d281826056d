/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * weaken.so, for LD_PRELOAD: one of the mechanisms that make a drive survive power cuts is
 * left out, as a negative control of the tests that show it.  WEAKEN is a word:
 *	normal	SQLite with synchronous=NORMAL: a COMMIT does not sync the WAL
 *	data	fdatasync of cache files does nothing
 *	names	fsync of directories does nothing: names of cache files
 *	intent	no row of `intent` before clean bytes are overwritten
 *	redo	no row of `redo` where fsync of a few bytes relies on them
 * WEAKEN_LOG is a file that gets a line when it first had an effect.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool is(const char *word)
{
	const char *s = getenv("WEAKEN");

	return s && !strcmp(s, word);
}

static void note(void)
{
	static atomic_bool noted;
	const char *path = getenv("WEAKEN_LOG");

	if (!path || atomic_exchange(&noted, true))
		return;
	int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	if (fd < 0 || write(fd, "weakened\n", 9) != 9)
		abort();
	close(fd);
}

static void *real(const char *name)
{
	void *p = dlsym(RTLD_NEXT, name);

	if (!p)
		abort();
	return p;
}

static bool ours(int fd)
{
	char link[40], path[4096];
	struct stat s;

	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	ssize_t n = readlink(link, path, sizeof path - 1);
	path[n > 0 ? n : 0] = 0;
	if (fstat(fd, &s) || !strstr(path, "/data"))
		return false;
	return S_ISDIR(s.st_mode) ? is("names") : is("data");
}

int fsync(int fd)
{
	static int (*f)(int);

	if (!f)
		f = (int (*)(int))real("fsync");
	if (!ours(fd))
		return f(fd);
	note();
	return 0;
}

int fdatasync(int fd)
{
	static int (*f)(int);

	if (!f)
		f = (int (*)(int))real("fdatasync");
	if (!ours(fd))
		return f(fd);
	note();
	return 0;
}

int sqlite3_exec(sqlite3 *db, const char *sql, int (*row)(void *, int, char **, char **),
		 void *arg, char **msg)
{
	static const char full[] = "PRAGMA synchronous=FULL;";
	static int (*f)(sqlite3 *, const char *, int (*)(void *, int, char **, char **), void *,
			char **);

	if (!f)
		f = (int (*)(sqlite3 *, const char *, int (*)(void *, int, char **, char **),
			     void *, char **))real("sqlite3_exec");
	int rc = f(db, sql, row, arg, msg);
	if (!rc && sql && is("normal") && strstr(sql, full)) {
		note();
		rc = f(db, "PRAGMA synchronous=NORMAL", NULL, NULL, NULL);
	}
	return rc;
}

/* The statement takes the same values and does nothing with them. */
static const char *instead(const char *sql)
{
	static const struct {
		const char *word, *sql, *instead;
	} all[] = {{"intent", "INSERT OR IGNORE INTO intent(", "SELECT ?,? LIMIT 0"},
		   {"redo", "INSERT INTO redo(", "SELECT ?,?,?,? LIMIT 0"}};

	for (size_t i = 0; i < sizeof all / sizeof *all; i++)
		if (is(all[i].word) && sql && !strncmp(sql, all[i].sql, strlen(all[i].sql))) {
			note();
			return all[i].instead;
		}
	return NULL;
}

#define PREPARE(name, params, args, args_instead)                                              \
	int name params                                                                        \
	{                                                                                      \
		static int(*f) params;                                                         \
		if (!f)                                                                        \
			f = (int(*) params)real(#name);                                        \
		const char *other = instead(sql);                                              \
		return other ? f args_instead : f args;                                        \
	}

PREPARE(sqlite3_prepare_v2,
	(sqlite3 * db, const char *sql, int len, sqlite3_stmt **out, const char **tail),
	(db, sql, len, out, tail), (db, other, -1, out, tail))
PREPARE(sqlite3_prepare_v3,
	(sqlite3 * db, const char *sql, int len, unsigned flags, sqlite3_stmt **out,
	 const char **tail),
	(db, sql, len, flags, out, tail), (db, other, -1, flags, out, tail))
