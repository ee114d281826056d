/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "cache/db.h"
#include "cache/data.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#define DB_PAGE	     4096
#define DB_CACHE_KIB 24576
#define DB_WAL_LIMIT ((uint64_t)16 << 20)
#define DB_WAL_PIECE ((uint64_t)1 << 20)

static const char schema[] =
#include "cache/schema.inc"
	;

/* --- statements --- */

/* Out of the hash's hands: literals lie close together, so their low bits are mixed up. */
static size_t stmt_slot(const struct db *d, const char *sql)
{
	uint64_t h = (uint64_t)(uintptr_t)sql * 0x9e3779b97f4a7c15u;

	return (size_t)(h >> 32) & (d->cap - 1);
}

static struct db_stmt *stmt_find(struct db *d, const char *sql)
{
	size_t i = stmt_slot(d, sql);

	while (d->slot[i].sql && d->slot[i].sql != sql)
		i = (i + 1) & (d->cap - 1);
	return &d->slot[i];
}

static int stmt_grow(struct db *d)
{
	struct db_stmt *old = d->slot;
	size_t old_cap = d->cap;
	struct db_stmt *p = calloc(old_cap * 2, sizeof *p);

	if (!p)
		return -ENOMEM;
	d->slot = p;
	d->cap = old_cap * 2;
	for (size_t i = 0; i < old_cap; i++)
		if (old[i].sql)
			*stmt_find(d, old[i].sql) = old[i];
	free(old);
	return 0;
}

static int db_error(struct store *st, const char *what)
{
	char text[200];

	snprintf(text, sizeof text, "%.120s: %.70s", what, sqlite3_errmsg(st->db));
	return store_fail_locked(st, -EIO, text);
}

sqlite3_stmt *store_stmt(struct store *st, const char *sql)
{
	struct db *d = st->dbx;
	struct db_stmt *e = stmt_find(d, sql);

	if (e->sql) {
		sqlite3_reset(e->s);
		sqlite3_clear_bindings(e->s);
		return e->s;
	}
	if (d->cnt * 2 >= d->cap) {
		if (stmt_grow(d) < 0) {
			store_fail_locked(st, -ENOMEM, "out of memory");
			return NULL;
		}
		e = stmt_find(d, sql);
	}
	sqlite3_stmt *s;
	if (sqlite3_prepare_v3(st->db, sql, -1, SQLITE_PREPARE_PERSISTENT, &s, NULL)) {
		db_error(st, sql);
		return NULL;
	}
	e->sql = sql;
	e->s = s;
	d->cnt++;
	return s;
}

void store_txn_dirty_locked(struct store *st)
{
	if (st->txn_dirty)
		return;
	st->txn_dirty = true;
	/* One that waits for its second to end finds it by itself. */
	if (st->commit_idle)
		pthread_cond_signal(&st->thread_cond);
}

int store_step(struct store *st, sqlite3_stmt *s)
{
	bool writes = !sqlite3_stmt_readonly(s);

	if (writes && st->failed)
		return -EIO;
	int rc = sqlite3_step(s);
	if (rc == SQLITE_ROW || rc == SQLITE_DONE) {
		st->dbx->writes += writes;
		if (writes)
			store_txn_dirty_locked(st);
		return rc == SQLITE_ROW;
	}
	db_error(st, sqlite3_sql(s));
	sqlite3_reset(s);
	return -EIO;
}

int store_run(struct store *st, sqlite3_stmt *s)
{
	int err;

	if (!s)
		return -EIO;
	do {
		err = store_step(st, s);
	} while (err > 0);
	sqlite3_reset(s);
	return err;
}

/* --- settings --- */

int store_get_u64(struct store *st, const char *k, uint64_t *v)
{
	sqlite3_stmt *s = store_stmt(st, "SELECT v FROM kv WHERE k=?1");

	if (!s)
		return -EIO;
	sqlite3_bind_text(s, 1, k, -1, SQLITE_STATIC);
	int err = store_step(st, s);
	if (err > 0)
		*v = (uint64_t)sqlite3_column_int64(s, 0);
	sqlite3_reset(s);
	return err > 0 ? 0 : err ? err : -ENOENT;
}

int store_put_u64(struct store *st, const char *k, uint64_t v)
{
	sqlite3_stmt *s = store_stmt(st, "INSERT OR REPLACE INTO kv(k,v) VALUES(?1,?2)");

	if (!s)
		return -EIO;
	sqlite3_bind_text(s, 1, k, -1, SQLITE_STATIC);
	sqlite3_bind_int64(s, 2, (int64_t)v);
	return store_run(st, s);
}

int store_get_blob(struct store *st, const char *k, struct buf *out)
{
	sqlite3_stmt *s = store_stmt(st, "SELECT v FROM kv WHERE k=?1");

	if (!s)
		return -EIO;
	sqlite3_bind_text(s, 1, k, -1, SQLITE_STATIC);
	int err = store_step(st, s);
	if (err > 0)
		buf_put(out, sqlite3_column_blob(s, 0), (size_t)sqlite3_column_bytes(s, 0));
	sqlite3_reset(s);
	return err > 0 ? out->err : err ? err : -ENOENT;
}

int store_put_blob(struct store *st, const char *k, const void *p, size_t len)
{
	sqlite3_stmt *s = store_stmt(st, "INSERT OR REPLACE INTO kv(k,v) VALUES(?1,?2)");

	if (!s)
		return -EIO;
	sqlite3_bind_text(s, 1, k, -1, SQLITE_STATIC);
	sqlite3_bind_blob64(s, 2, len ? p : "", len, SQLITE_STATIC);
	return store_run(st, s);
}

/* --- opening --- */

/* What an error of SQLite means while opening, said once. */
static int open_error(struct store *st, const char *path, int rc)
{
	const char *msg = st->db ? sqlite3_errmsg(st->db) : sqlite3_errstr(rc);

	switch (rc & 0xff) {
	case SQLITE_NOTADB:
	case SQLITE_CORRUPT:
		return log_fail(-EBADMSG,
				"%s is damaged (%s): `holdfast fsck NAME --rebuild` makes it "
				"anew from the nodes and keeps what is here",
				path, (rc & 0xff) == SQLITE_NOTADB ? "it is no database" : msg);
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
		return log_fail(-EBUSY, "%s is in use by another program", path);
	case SQLITE_FULL:
		return log_fail(-ENOSPC, "%s: no space left on this disk", path);
	case SQLITE_NOMEM:
		return log_fail(-ENOMEM, "%s: out of memory", path);
	default:
		return log_fail(-EIO, "%s: %s", path, msg);
	}
}

static int pragma_u64(struct store *st, const char *sql, uint64_t *v)
{
	sqlite3_stmt *s;
	int rc = sqlite3_prepare_v2(st->db, sql, -1, &s, NULL);

	if (rc)
		return rc;
	rc = sqlite3_step(s);
	*v = rc == SQLITE_ROW ? (uint64_t)sqlite3_column_int64(s, 0) : 0;
	int end = sqlite3_finalize(s);
	return rc == SQLITE_ROW || rc == SQLITE_DONE ? end : rc;
}

static int exec(struct store *st, const char *sql)
{
	return sqlite3_exec(st->db, sql, NULL, NULL, NULL);
}

static int wal_hook(void *arg, sqlite3 *db, const char *name, int pages)
{
	struct db *d = arg;

	(void)db;
	(void)name;
	d->wal_pages = pages;
	return SQLITE_OK;
}

static int db_configure(struct store *st)
{
	int on = 0, rc;

	sqlite3_extended_result_codes(st->db, 1);
	rc = sqlite3_db_config(st->db, SQLITE_DBCONFIG_DEFENSIVE, 1, &on);
	if (!rc)
		rc = sqlite3_db_config(st->db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, &on);
	/*
	 * A locking mode set before the first access to the WAL needs no shared memory.
	 * Debian's SQLite writes zeros over each page that becomes unused, into the WAL and then
	 * into the database; FAST does so only where the page is written anyway.
	 */
	if (!rc)
		rc = exec(st, "PRAGMA locking_mode=EXCLUSIVE;"
			      "PRAGMA cell_size_check=ON;"
			      "PRAGMA foreign_keys=ON;"
			      "PRAGMA secure_delete=FAST;"
			      "PRAGMA mmap_size=0;"
			      "PRAGMA temp_store=MEMORY;"
			      "PRAGMA page_size=4096;"
			      "PRAGMA journal_mode=WAL;"
			      "PRAGMA synchronous=FULL;"
			      "PRAGMA wal_autocheckpoint=0;"
			      "PRAGMA journal_size_limit=33554432");
	char sql[64];
	snprintf(sql, sizeof sql, "PRAGMA cache_size=-%d", DB_CACHE_KIB);
	if (!rc)
		rc = exec(st, sql);
	return rc;
}

/* From version 1: what is counted of each segment, what was moved, what nobody knows,
 * what names that are gone led to, what is stored ahead of a commit. */
static const char from_1[] =
	"ALTER TABLE segment ADD COLUMN live INTEGER NOT NULL DEFAULT 0;"
	"ALTER TABLE segment ADD COLUMN since INTEGER NOT NULL DEFAULT 0;"
	"UPDATE segment SET live=x.n FROM (SELECT seg,sum(len) AS n FROM extent GROUP BY seg) x "
	"WHERE x.seg=segment.seg;"
	"CREATE INDEX segment_hollow ON segment(live) WHERE kind = 1 AND len - live * 2 > 0;"
	"CREATE INDEX segment_condemned ON segment(since, seg) WHERE kind = 4;"
	"ALTER TABLE staged ADD COLUMN was INTEGER NOT NULL DEFAULT 0;"
	"ALTER TABLE staged ADD COLUMN was_off INTEGER NOT NULL DEFAULT 0;"
	"CREATE TABLE stray(node INTEGER NOT NULL, hash INTEGER NOT NULL, since INTEGER NOT NULL,"
	"epoch INTEGER NOT NULL, PRIMARY KEY(node, hash)) WITHOUT ROWID;"
	"ALTER TABLE tomb ADD COLUMN ino INTEGER;"
	"ALTER TABLE tomb ADD COLUMN mode INTEGER;"
	"CREATE TABLE ahead(ino INTEGER NOT NULL,off INTEGER NOT NULL,len INTEGER NOT NULL,"
	"seg INTEGER NOT NULL,seg_off INTEGER NOT NULL,PRIMARY KEY(ino,off)) WITHOUT ROWID;"
	"CREATE INDEX ahead_seg ON ahead(seg);"
	"CREATE INDEX segment_ahead ON segment(seg) WHERE kind = 5;"
	"PRAGMA user_version=2;";

/* From version 2: bytes that are in rows before they are in cache files. */
static const char from_2[] =
	"CREATE TABLE redo(ino INTEGER NOT NULL,seq INTEGER NOT NULL,off INTEGER NOT NULL,"
	"bytes BLOB NOT NULL,PRIMARY KEY(ino,seq)) WITHOUT ROWID;"
	"PRAGMA user_version=3;";

/* In one transaction: after a crash it is the old one or the new. */
static int db_upgrade(struct store *st, const char *path, uint64_t version)
{
	int rc = exec(st, "BEGIN IMMEDIATE");

	if (!rc && version < 2)
		rc = exec(st, from_1);
	if (!rc)
		rc = exec(st, from_2);
	if (!rc)
		rc = exec(st, "COMMIT");
	if (rc) {
		int err = open_error(st, path, rc);

		exec(st, "ROLLBACK");
		return err;
	}
	log_info("%s: from version %llu to %d", path, (unsigned long long)version, DB_VERSION);
	return 0;
}

/* The schema and the version, in one transaction; or the check of those that are there. */
static int db_schema(struct store *st, const char *path, bool *fresh)
{
	uint64_t tables, id, version;
	int rc = pragma_u64(st, "SELECT count(*) FROM sqlite_schema", &tables);

	if (!rc)
		rc = pragma_u64(st, "PRAGMA application_id", &id);
	if (!rc)
		rc = pragma_u64(st, "PRAGMA user_version", &version);
	if (rc)
		return open_error(st, path, rc);
	*fresh = !tables && !id && !version;
	if (*fresh) {
		char sql[128];
		snprintf(sql, sizeof sql,
			 "PRAGMA application_id=%d;PRAGMA user_version=%d;COMMIT",
			 DB_APPLICATION_ID, DB_VERSION);
		rc = exec(st, "BEGIN IMMEDIATE");
		if (!rc)
			rc = exec(st, schema);
		if (!rc)
			rc = exec(st, sql);
		return rc ? open_error(st, path, rc) : 0;
	}
	if (id != DB_APPLICATION_ID)
		return log_fail(-EBADMSG, "%s is not a database of holdfast", path);
	if (version > DB_VERSION)
		return log_fail(
			-ENOTSUP,
			"%s was written by a newer holdfast (version %llu, this one knows "
			"%d): use that one",
			path, (unsigned long long)version, DB_VERSION);
	if (version && version < DB_VERSION)
		return db_upgrade(st, path, version);
	if (version != DB_VERSION)
		return log_fail(-EBADMSG, "%s has the unknown version %llu", path,
				(unsigned long long)version);
	return 0;
}

static void sqlite_setup(void)
{
	/* The figures nobody asks for cost a mutex with each allocation. */
	sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0);
}

int db_open(struct store *st, bool *fresh)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	char *path;

	pthread_once(&once, sqlite_setup);
	if (asprintf(&path, "%s/meta.db", st->dir) < 0)
		return -ENOMEM;
	struct db *d = calloc(1, sizeof *d);
	struct db_stmt *slot = calloc(256, sizeof *slot);
	int err = d && slot ? 0 : -ENOMEM;
	if (err) {
		free(d);
		free(slot);
		free(path);
		return err;
	}
	d->slot = slot;
	d->cap = 256;
	d->wal_limit = (int)(HF_MIN(DB_WAL_LIMIT, st->space_reserve / 4) / DB_PAGE);
	st->dbx = d;
	/* Created here so that it and its WAL are private, whatever the umask is. */
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		err = log_fail(-errno, "%s: %s", path, strerror(errno));
	else
		close(fd);
	int rc = 0;
	if (!err)
		rc = sqlite3_open_v2(path, &st->db,
				     SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX |
					     SQLITE_OPEN_PRIVATECACHE | SQLITE_OPEN_NOFOLLOW,
				     NULL);
	if (!err && !rc)
		rc = db_configure(st);
	if (rc)
		err = open_error(st, path, rc);
	if (!err)
		err = db_schema(st, path, fresh);
	if (!err) {
		sqlite3_wal_hook(st->db, wal_hook, d);
		rc = exec(st, "BEGIN IMMEDIATE");
		if (rc)
			err = open_error(st, path, rc);
	}
	free(path);
	if (err)
		db_close(st);
	return err;
}

int db_quick_check(struct store *st)
{
	sqlite3_stmt *s;
	int bad = 0;
	int rc = sqlite3_prepare_v2(st->db, "PRAGMA quick_check(5)", -1, &s, NULL);

	while (!rc && (rc = sqlite3_step(s)) == SQLITE_ROW) {
		const char *line = (const char *)sqlite3_column_text(s, 0);
		rc = 0;
		if (line && !strcmp(line, "ok"))
			continue;
		bad++;
		log_warn("%s/meta.db: %s", st->dir, line ? line : "unreadable");
	}
	sqlite3_finalize(s);
	if (rc == SQLITE_DONE && !bad)
		return 0;
	if (rc == SQLITE_DONE)
		rc = SQLITE_CORRUPT;
	return open_error(st, st->dir, rc);
}

void db_close(struct store *st)
{
	struct db *d = st->dbx;

	if (!d)
		return;
	for (size_t i = 0; i < d->cap; i++)
		sqlite3_finalize(d->slot[i].s);
	if (st->db && !sqlite3_get_autocommit(st->db))
		exec(st, "ROLLBACK");
	/* After a failure nothing is moved: the next start looks at what there is. */
	if (st->db && st->failed)
		sqlite3_db_config(st->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
	sqlite3_close(st->db);
	touched_release(st);
	free(d->slot);
	free(d);
	st->db = NULL;
	st->dbx = NULL;
}

bool db_wal_extend_locked(struct store *st)
{
	static const uint8_t zeros[1 << 16];
	sqlite3_int64 size;
	sqlite3_file *f = NULL;

	if (st->failed ||
	    sqlite3_file_control(st->db, "main", SQLITE_FCNTL_JOURNAL_POINTER, &f) || !f ||
	    !f->pMethods || f->pMethods->xFileSize(f, &size))
		return false;
	/* Each page with a header; the transaction that passes the limit is in there, too. */
	uint64_t at = (uint64_t)size;
	uint64_t whole = ((uint64_t)st->dbx->wal_limit + 64) * (DB_PAGE + 24);
	uint64_t end = HF_MIN(at + DB_WAL_PIECE, whole);
	while (at < end) {
		size_t n = (size_t)HF_MIN(end - at, (uint64_t)sizeof zeros);

		if (f->pMethods->xWrite(f, zeros, (int)n, (sqlite3_int64)at))
			return false;
		at += n;
	}
	return at < whole;
}

/* --- the transaction --- */

static uint64_t pages(struct store *st, const char *sql)
{
	sqlite3_stmt *s = store_stmt(st, sql);
	uint64_t n = 0;

	if (s && store_step(st, s) == 1)
		n = (uint64_t)sqlite3_column_int64(s, 0);
	if (s)
		sqlite3_reset(s);
	return n;
}

/* What the database will take of the disk, and what it could do without. */
static void space_committed(struct store *st)
{
	uint64_t size = pages(st, "PRAGMA page_count") * DB_PAGE;
	uint64_t unused = pages(st, "PRAGMA freelist_count") * DB_PAGE;
	struct stat sb;

	if (fstatat(st->dir_fd, "meta.db", &sb, 0))
		sb.st_size = 0;
	store_space_committed(st, size - HF_MIN(size, (uint64_t)sb.st_size), unused);
}

int db_commit_locked(struct store *st, enum db_checkpoint ckpt)
{
	struct db *d = st->dbx;

	if (st->failed || live_flush_locked(st))
		return -EIO;
	/* A SELECT left in the middle would keep the WAL from being reset. */
	for (size_t i = 0; i < d->cap; i++)
		if (d->slot[i].s && sqlite3_stmt_busy(d->slot[i].s))
			sqlite3_reset(d->slot[i].s);
	sqlite3_stmt *commit = store_stmt(st, "COMMIT");
	if (!commit)
		return -EIO;
	if (sqlite3_step(commit) != SQLITE_DONE) {
		db_error(st, "COMMIT");
		sqlite3_reset(commit);
		return -EIO;
	}
	sqlite3_reset(commit);
	touched_clear(st);
	st->txn_dirty = false;
	st->ino_safe = st->ino_reserved;
	st->lid_safe = st->lid_reserved;
	int rc = 0;
	if (ckpt != DB_CKPT_NONE && d->wal_pages) {
		int64_t before = now_ms();
		rc = sqlite3_wal_checkpoint_v2(st->db, NULL,
					       ckpt == DB_CKPT_TRUNCATE
						       ? SQLITE_CHECKPOINT_TRUNCATE
						       : SQLITE_CHECKPOINT_PASSIVE,
					       NULL, NULL);
		/*
		 * Somebody reads: then the next one gets further.  Without space the WAL keeps
		 * what it has; nothing is lost by that.
		 */
		if (rc && (rc & 0xff) != SQLITE_BUSY && (rc & 0xff) != SQLITE_LOCKED &&
		    (rc & 0xff) != SQLITE_FULL)
			return db_error(st, "checkpoint");
		if ((rc & 0xff) == SQLITE_FULL)
			log_warn("%s: no space to tidy the database up", st->dir);
		log_debug("database: checkpoint of %d pages in %lld ms", d->wal_pages,
			  (long long)(now_ms() - before));
		if (!rc)
			d->wal_pages = 0;
	}
	d->writes = 0;
	space_committed(st);
	sqlite3_stmt *begin = store_stmt(st, "BEGIN IMMEDIATE");
	if (!begin)
		return -EIO;
	rc = sqlite3_step(begin);
	if (rc != SQLITE_DONE)
		db_error(st, "BEGIN");
	sqlite3_reset(begin);
	return rc == SQLITE_DONE ? 0 : -EIO;
}
