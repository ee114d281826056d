/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "cache/meta.h"

#include <fcntl.h>
#include <stdlib.h>
#include "cache/data.h"
#include "cache/db.h"
#include "net/record.h"

#define LINK_MAX_COUNT 0x7fffffffu
/* What one new name may take of the disk: rows, their pages and their way through the WAL. */
#define NAME_SPACE 4096

/* --- common steps --- */

static int name_check(const char *name, size_t len)
{
	if (len > REC_NAME_MAX)
		return -ENAMETOOLONG;
	if (!len || memchr(name, '/', len) || memchr(name, 0, len) ||
	    (name[0] == '.' && (len == 1 || (len == 2 && name[1] == '.'))))
		return -EINVAL;
	return 0;
}

/* Pins a directory that names can be looked up in. */
static int dir_get(struct store *st, uint64_t ino, struct inode **out)
{
	int err = inode_get_locked(st, ino, out);

	if (err || S_ISDIR((*out)->mode))
		return err;
	inode_put_locked(st, *out);
	return -ENOTDIR;
}

/* Pins a directory that is going to get a name; a removed one takes none. */
static int dir_get_alive(struct store *st, uint64_t ino, struct inode **out)
{
	int err = store_writable_locked(st);

	if (!err)
		err = dir_get(st, ino, out);
	if (err || (*out)->nlink)
		return err;
	inode_put_locked(st, *out);
	return -ENOENT;
}

/* 1 empty, 0 not, -errno. */
static int dir_empty(struct store *st, uint64_t dir)
{
	sqlite3_stmt *s = store_stmt(st, "SELECT 1 FROM dirent WHERE parent=?1 LIMIT 1");

	if (!s)
		return -EIO;
	sqlite3_bind_int64(s, 1, (int64_t)dir);
	int err = store_step(st, s);
	sqlite3_reset(s);
	return err < 0 ? err : !err;
}

static void dir_changed(struct store *st, struct inode *dir, int64_t now)
{
	dir->mtime_ns = dir->ctime_ns = now;
	inode_mark_locked(st, dir, REC_CH_TIMES);
}

/* Links or names of an inode changed. */
static void links_changed(struct store *st, struct inode *in, int64_t now)
{
	in->ctime_ns = now;
	/*
	 * Its row must not stay behind its name: see store.h.  Also when all of its bytes are
	 * synced: what is not in the row yet (a size, a hole, a small file's contents) would be
	 * withheld with what is written next.
	 */
	if (in->nlink && (in->dirty || in->unsynced || in->syncing))
		in->sync_soon = true;
	inode_mark_locked(st, in, REC_CH_TIMES);
}

/* A name of it is gone. */
static void link_drop(struct store *st, struct inode *in, int64_t now)
{
	if (S_ISDIR(in->mode))
		in->nlink = 0;
	else if (in->nlink)
		in->nlink--;
	/* Where another name of it may be, nobody knows. */
	if (!S_ISDIR(in->mode))
		in->parent = 0;
	links_changed(st, in, now);
}

/* After rows were written in part: the transaction must never be committed. */
static int broken(struct store *st, int err)
{
	return st->failed ? err : store_fail_locked(st, err, "a change stopped half-way");
}

/* --- lookup, create, link --- */

int meta_lookup(struct store *st, uint64_t parent, const char *name, size_t len,
		struct inode **out)
{
	struct inode *dir;
	struct dirent_row d;

	int err = name_check(name, len);
	if (err)
		return err;
	pthread_mutex_lock(&st->meta);
	err = dir_get(st, parent, &dir);
	if (!err) {
		int found = dirent_find_locked(st, parent, name, len, &d);
		err = found < 0 ? found : found ? inode_get_locked(st, d.ino, out) : -ENOENT;
		if (found > 0 && err == -ENOENT)
			err = log_fail(-EIO,
				       "inode %llu has a name but no row: run "
				       "`holdfast fsck`",
				       (unsigned long long)d.ino);
		if (!err && S_ISREG((*out)->mode))
			(*out)->parent = parent;
		inode_put_locked(st, dir);
	}
	pthread_mutex_unlock(&st->meta);
	return err;
}

static int symlink_store(struct store *st, struct inode *in, const char *target)
{
	sqlite3_stmt *s = store_stmt(st, "UPDATE inode SET target=?2 WHERE ino=?1");

	if (!s)
		return -EIO;
	sqlite3_bind_int64(s, 1, (int64_t)in->ino);
	sqlite3_bind_blob(s, 2, target, (int)in->size, SQLITE_STATIC);
	return store_run(st, s);
}

/* A new inode, pinned, dirty, with the rows that cannot wait for the flush. */
static int inode_make(struct store *st, const struct meta_new *n, uint64_t ino, uint32_t nlink,
		      const struct inode *dir, int64_t now, struct inode **out)
{
	struct inode *in = inode_new_locked(st, ino);
	int err = 0;

	if (!in)
		return -ENOMEM;
	in->mode = n->mode;
	in->uid = n->uid;
	in->gid = n->gid;
	in->rdev = n->rdev;
	in->nlink = nlink;
	in->born = st->epoch;
	in->atime_ns = in->mtime_ns = in->ctime_ns = in->btime_ns = now;
	if (S_ISREG(in->mode))
		in->flags = INODE_SMALL_HAVE | INODE_UNORDERED;
	if ((S_ISDIR(in->mode) || S_ISREG(in->mode)) && dir)
		in->parent = dir->ino;
	if (dir && dir->mode & S_ISGID) {
		in->gid = dir->gid;
		if (S_ISDIR(in->mode))
			in->mode |= S_ISGID;
	}
	unsigned mask = REC_CH_NEW | REC_CH_MODE | REC_CH_OWNER | REC_CH_TIMES;
	if (S_ISREG(in->mode)) {
		in->flags |= INODE_SMALL_DIRTY;
		mask |= REC_CH_CONTENT;
	}
	st->files++;
	inode_mark_locked(st, in, mask);
	if (S_ISLNK(in->mode)) {
		/* The target is not kept in memory, so the row is written at once. */
		in->size = strlen(n->target);
		err = inode_write_locked(st, in, true);
		if (!err)
			err = symlink_store(st, in, n->target);
	}
	if (!err && n->acl_access)
		err = xattr_put_locked(st, in, "system.posix_acl_access", n->acl_access,
				       n->acl_access_len);
	if (!err && n->acl_default && S_ISDIR(in->mode))
		err = xattr_put_locked(st, in, "system.posix_acl_default", n->acl_default,
				       n->acl_default_len);
	*out = in;
	return err;
}

static int new_check(const struct meta_new *n)
{
	switch (n->mode & S_IFMT) {
	case S_IFREG:
	case S_IFDIR:
	case S_IFIFO:
	case S_IFSOCK:
	case S_IFCHR:
	case S_IFBLK:
		break;
	case S_IFLNK:
		if (!n->target || !*n->target)
			return -ENOENT;
		if (strlen(n->target) > REC_TARGET_MAX)
			return -ENAMETOOLONG;
		break;
	default:
		return -EINVAL;
	}
	if (n->acl_access_len > REC_XATTR_MAX || n->acl_default_len > REC_XATTR_MAX)
		return -E2BIG;
	return 0;
}

int meta_create(struct store *st, uint64_t parent, const char *name, size_t len,
		const struct meta_new *n, struct inode **out)
{
	struct inode *dir, *in = NULL;
	struct dirent_row d;
	uint64_t ino, lid, slot;
	int64_t now = realtime_ns();

	int err = name_check(name, len);
	if (!err)
		err = new_check(n);
	if (!err)
		err = store_space_rows(st, NAME_SPACE);
	if (err)
		return err;
	pthread_mutex_lock(&st->meta);
	err = dir_get_alive(st, parent, &dir);
	if (err)
		goto out;
	err = dirent_find_locked(st, parent, name, len, &d);
	if (err > 0)
		err = -EEXIST;
	if (!err && S_ISDIR(n->mode) && dir->nlink >= LINK_MAX_COUNT)
		err = -EMLINK;
	if (!err)
		err = dirent_slot_locked(st, parent, name, len, &slot);
	/* Drawing numbers may commit, so it comes before the first change. */
	if (!err && (!(ino = store_new_ino_locked(st)) || !(lid = store_new_lid_locked(st))))
		err = -EROFS;
	if (!err) {
		err = inode_make(st, n, ino, S_ISDIR(n->mode) ? 2 : 1, dir, now, &in);
		if (err && in)
			err = broken(st, err);
	}
	if (!err) {
		err = dirent_put_locked(st, parent, slot, name, len, ino, lid, n->mode,
					st->epoch, true);
		if (err)
			err = broken(st, err);
	}
	if (!err) {
		if (S_ISDIR(n->mode))
			dir->nlink++;
		dir_changed(st, dir, now);
		*out = in;
		store_pressure_locked(st);
	} else if (in) {
		inode_put_locked(st, in);
	}
	inode_put_locked(st, dir);
out:
	pthread_mutex_unlock(&st->meta);
	return err;
}

int meta_tmpfile(struct store *st, const struct meta_new *n, struct inode **out)
{
	struct inode *in = NULL;
	uint64_t ino;

	int err = S_ISREG(n->mode) ? new_check(n) : -EINVAL;
	if (!err)
		err = store_space_rows(st, NAME_SPACE);
	if (err)
		return err;
	pthread_mutex_lock(&st->meta);
	err = store_writable_locked(st);
	if (!err && !(ino = store_new_ino_locked(st)))
		err = -EROFS;
	if (!err) {
		err = inode_make(st, n, ino, 0, NULL, realtime_ns(), &in);
		if (err && in) {
			err = broken(st, err);
			inode_put_locked(st, in);
		}
	}
	if (!err)
		*out = in;
	pthread_mutex_unlock(&st->meta);
	return err;
}

int meta_link(struct store *st, struct inode *in, uint64_t parent, const char *name, size_t len)
{
	struct inode *dir;
	struct dirent_row d;
	uint64_t lid;
	int64_t now = realtime_ns();

	int err = name_check(name, len);
	if (!err)
		err = store_space_rows(st, NAME_SPACE);
	if (err)
		return err;
	pthread_mutex_lock(&st->meta);
	store_seal_locked(st, in, true);
	err = dir_get_alive(st, parent, &dir);
	if (err)
		goto out;
	if (S_ISDIR(in->mode))
		err = -EPERM;
	else if (in->gone)
		err = -ENOENT;
	else if (in->nlink >= LINK_MAX_COUNT)
		err = -EMLINK;
	if (!err)
		err = dirent_find_locked(st, parent, name, len, &d);
	if (err > 0)
		err = -EEXIST;
	if (!err && !(lid = store_new_lid_locked(st)))
		err = -EROFS;
	if (!err) {
		err = dirent_add_locked(st, parent, name, len, in->ino, lid, in->mode,
					st->epoch, true, NULL);
		if (err)
			err = broken(st, err);
	}
	if (!err) {
		in->nlink++;
		in->reap = false;
		if (S_ISREG(in->mode))
			in->parent = parent;
		links_changed(st, in, now);
		dir_changed(st, dir, now);
		store_pressure_locked(st);
	}
	inode_put_locked(st, dir);
out:
	pthread_mutex_unlock(&st->meta);
	return err;
}

/* --- unlink, rename --- */

int meta_unlink(struct store *st, uint64_t parent, const char *name, size_t len, bool rmdir,
		uint64_t *ino)
{
	struct inode *dir, *in;
	struct dirent_row d;
	int64_t now = realtime_ns();

	int err = name_check(name, len);
	if (err)
		return err;
	pthread_mutex_lock(&st->meta);
again:
	in = NULL;
	err = dir_get_alive(st, parent, &dir);
	if (err)
		goto out;
	err = dirent_find_locked(st, parent, name, len, &d);
	if (!err)
		err = -ENOENT;
	else if (err > 0)
		err = inode_get_locked(st, d.ino, &in);
	if (!err && in->nlink > 1 && store_seal_locked(st, in, true)) {
		inode_put_locked(st, in);
		inode_put_locked(st, dir);
		goto again;
	}
	if (!err && S_ISDIR(in->mode) != rmdir)
		err = rmdir ? -ENOTDIR : -EISDIR;
	if (!err)
		d.unordered = in->flags & INODE_UNORDERED;
	if (!err && rmdir) {
		err = dir_empty(st, d.ino);
		if (err >= 0)
			err = err ? 0 : -ENOTEMPTY;
	}
	if (!err) {
		err = dirent_del_locked(st, parent, name, len, &d, true);
		if (err)
			err = broken(st, err);
	}
	if (!err) {
		link_drop(st, in, now);
		if (rmdir)
			dir->nlink--;
		dir_changed(st, dir, now);
		if (ino)
			*ino = d.ino;
		store_pressure_locked(st);
	}
	if (in)
		inode_put_locked(st, in);
	inode_put_locked(st, dir);
out:
	pthread_mutex_unlock(&st->meta);
	return err;
}

/* Is `dir` the directory `in` or below it?  1, 0, -errno. */
static int is_below(struct store *st, uint64_t dir, uint64_t in)
{
	while (dir != in) {
		struct inode *d;
		if (dir == INO_ROOT)
			return 0;
		int err = dir_get(st, dir, &d);
		if (err)
			return err;
		/* A removed directory is below nothing. */
		uint64_t up = d->nlink ? d->parent : INO_ROOT;
		inode_put_locked(st, d);
		if (up == dir)
			return 0;
		dir = up;
	}
	return 1;
}

/* Both sides of a rename. */
struct side {
	uint64_t parent;
	const char *name;
	size_t len;
	struct inode *dir, *in; /* in: NULL when the name is free */
	struct dirent_row d;
	uint64_t lid; /* of the name that comes here */
};

/* What takes the place of a name that moved away, so that a layer below stays hidden. */
struct whiteout {
	const struct meta_new *n; /* NULL: nothing does */
	uint64_t ino, lid;
	struct inode *in;
};

static int side_get(struct store *st, struct side *s)
{
	int err = dir_get_alive(st, s->parent, &s->dir);

	if (!err)
		err = dirent_find_locked(st, s->parent, s->name, s->len, &s->d);
	if (err <= 0)
		return err;
	err = inode_get_locked(st, s->d.ino, &s->in);
	if (!err)
		s->d.unordered = s->in->flags & INODE_UNORDERED;
	return err;
}

static void side_put(struct store *st, struct side *s)
{
	if (s->in)
		inode_put_locked(st, s->in);
	if (s->dir)
		inode_put_locked(st, s->dir);
	s->in = s->dir = NULL;
}

/* Both sides, when no commit keeps their files from other names. */
static int sides_get(struct store *st, struct side *from, struct side *to)
{
	for (;;) {
		int err = side_get(st, from);

		if (!err)
			err = side_get(st, to);
		if (err || ((!from->in || !store_seal_locked(st, from->in, true)) &&
			    (!to->in || !store_seal_locked(st, to->in, true))))
			return err;
		side_put(st, from);
		side_put(st, to);
	}
}

/* What POSIX says against it.  1: there is nothing to do. */
static int rename_check(struct store *st, const struct side *from, const struct side *to,
			unsigned flags)
{
	const struct inode *src = from->in, *dst = to->in;
	bool exchange = flags & RENAME_EXCHANGE;
	int err = 0;

	if (!src || (exchange && !dst))
		return -ENOENT;
	if (dst && flags & RENAME_NOREPLACE)
		return -EEXIST;
	if (src == dst)
		return 1;
	if (S_ISDIR(src->mode) && (err = is_below(st, to->parent, src->ino)))
		return err < 0 ? err : -EINVAL;
	if (exchange) {
		if (S_ISDIR(dst->mode) && (err = is_below(st, from->parent, dst->ino)))
			return err < 0 ? err : -EINVAL;
	} else if (dst) {
		if (S_ISDIR(src->mode) && !S_ISDIR(dst->mode))
			return -ENOTDIR;
		if (!S_ISDIR(src->mode) && S_ISDIR(dst->mode))
			return -EISDIR;
		if (S_ISDIR(dst->mode) && (err = dir_empty(st, dst->ino)) <= 0)
			return err ? err : -ENOTEMPTY;
	}
	if (from->dir != to->dir && S_ISDIR(src->mode) && to->dir->nlink >= LINK_MAX_COUNT)
		return -EMLINK;
	return 0;
}

/* The inode of `from` gets the name of `to`. */
static int rename_add(struct store *st, const struct side *from, const struct side *to)
{
	return dirent_add_locked(st, to->parent, to->name, to->len, from->d.ino, to->lid,
				 from->d.mode, st->epoch, true, NULL);
}

static int whiteout_add(struct store *st, const struct side *from, struct whiteout *w,
			int64_t now)
{
	int err = inode_make(st, w->n, w->ino, 1, from->dir, now, &w->in);

	if (!err)
		err = dirent_add_locked(st, from->parent, from->name, from->len, w->ino, w->lid,
					w->n->mode, st->epoch, true, NULL);
	return err;
}

static int rename_rows(struct store *st, const struct side *from, const struct side *to,
		       bool exchange, struct whiteout *w, int64_t now)
{
	int err = dirent_del_locked(st, from->parent, from->name, from->len, &from->d, true);

	if (!err && to->in)
		err = dirent_del_locked(st, to->parent, to->name, to->len, &to->d, true);
	if (!err)
		err = rename_add(st, from, to);
	if (!err && exchange)
		err = rename_add(st, to, from);
	if (!err && w->n)
		err = whiteout_add(st, from, w, now);
	return err;
}

/* Numbers for the names to come; drawing them may commit, so it comes before any change. */
static int rename_numbers(struct store *st, struct side *from, struct side *to, bool exchange,
			  struct whiteout *w)
{
	if (!(to->lid = store_new_lid_locked(st)) ||
	    (exchange && !(from->lid = store_new_lid_locked(st))))
		return -EROFS;
	if (w->n &&
	    (!(w->ino = store_new_ino_locked(st)) || !(w->lid = store_new_lid_locked(st))))
		return -EROFS;
	return 0;
}

/* A name moved from one directory to another. */
static void moved(struct inode *in, struct inode *from, struct inode *to)
{
	if (S_ISDIR(in->mode) || S_ISREG(in->mode))
		in->parent = to->ino;
	if (!S_ISDIR(in->mode))
		return;
	from->nlink--;
	to->nlink++;
}

int meta_rename(struct store *st, uint64_t parent, const char *name, size_t len,
		uint64_t newparent, const char *newname, size_t newlen, unsigned flags,
		uint64_t *victim)
{
	return meta_rename_leaving(st, parent, name, len, newparent, newname, newlen, flags,
				   NULL, victim);
}

int meta_rename_leaving(struct store *st, uint64_t parent, const char *name, size_t len,
			uint64_t newparent, const char *newname, size_t newlen, unsigned flags,
			const struct meta_new *n, uint64_t *victim)
{
	struct whiteout w = {.n = n};
	struct side from = {.parent = parent, .name = name, .len = len};
	struct side to = {.parent = newparent, .name = newname, .len = newlen};
	bool exchange = flags & RENAME_EXCHANGE;
	int64_t now = realtime_ns();

	if (victim)
		*victim = 0;
	if (flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE) ||
	    flags == (RENAME_NOREPLACE | RENAME_EXCHANGE) || (exchange && n))
		return -EINVAL;
	int err = name_check(name, len);
	if (!err && n)
		err = new_check(n);
	if (!err)
		err = name_check(newname, newlen);
	if (!err)
		err = store_space_rows(st, NAME_SPACE);
	if (err)
		return err;
	pthread_mutex_lock(&st->meta);
	err = sides_get(st, &from, &to);
	if (!err)
		err = rename_check(st, &from, &to, flags);
	if (!err)
		err = rename_numbers(st, &from, &to, exchange, &w);
	if (!err) {
		err = rename_rows(st, &from, &to, exchange, &w, now);
		if (err)
			err = broken(st, err);
	}
	if (!err) {
		moved(from.in, from.dir, to.dir);
		if (exchange) {
			moved(to.in, to.dir, from.dir);
			links_changed(st, to.in, now);
		} else if (to.in) {
			if (S_ISDIR(to.in->mode))
				to.dir->nlink--;
			link_drop(st, to.in, now);
			if (victim)
				*victim = to.in->ino;
		}
		links_changed(st, from.in, now);
		dir_changed(st, from.dir, now);
		if (to.dir != from.dir)
			dir_changed(st, to.dir, now);
		store_pressure_locked(st);
	}
	if (w.in)
		inode_put_locked(st, w.in);
	side_put(st, &from);
	side_put(st, &to);
	pthread_mutex_unlock(&st->meta);
	return err > 0 ? 0 : err;
}

void meta_reap(struct store *st, uint64_t ino)
{
	pthread_mutex_lock(&st->meta);
	/* Nameless inodes never leave the memory before they are reaped. */
	struct inode *in = inode_peek_locked(st, ino);
	if (in && !in->nlink)
		inode_reap_locked(st, in);
	pthread_mutex_unlock(&st->meta);
}

/* --- reading directories --- */

int meta_readdir(struct store *st, uint64_t dir, uint64_t cookie, bool want_attr,
		 int (*cb)(void *arg, const struct meta_entry *e), void *arg)
{
	struct inode *d;
	int stop = 0;

	pthread_mutex_lock(&st->meta);
	int err = dir_get(st, dir, &d);
	sqlite3_stmt *s = NULL;
	if (!err) {
		s = store_stmt(st, "SELECT hash,name,ino,mode FROM dirent WHERE parent=?1 AND "
				   "hash>?2 ORDER BY hash");
		inode_put_locked(st, d);
		if (!s || store_undone_locked(st, dir))
			err = -EIO;
	}
	if (!err) {
		sqlite3_bind_int64(s, 1, (int64_t)dir);
		sqlite3_bind_int64(s, 2, (int64_t)HF_MIN(cookie, (uint64_t)INT64_MAX));
		while (!stop && !err && (err = store_step(st, s)) > 0) {
			struct meta_entry e = {
				.cookie = (uint64_t)sqlite3_column_int64(s, 0),
				.name = sqlite3_column_blob(s, 1),
				.len = (size_t)sqlite3_column_bytes(s, 1),
				.ino = (uint64_t)sqlite3_column_int64(s, 2),
				.mode = (uint32_t)sqlite3_column_int64(s, 3),
			};
			err = want_attr ? inode_get_locked(st, e.ino, &e.in) : 0;
			if (err == -ENOENT)
				err = log_fail(-EIO,
					       "inode %llu has a name but no row: run "
					       "`holdfast fsck`",
					       (unsigned long long)e.ino);
			if (!err && e.in && S_ISREG(e.in->mode))
				e.in->parent = dir;
			if (!err)
				stop = cb(arg, &e);
			if (e.in)
				inode_put_locked(st, e.in);
		}
		sqlite3_reset(s);
	}
	pthread_mutex_unlock(&st->meta);
	return err;
}

uint64_t meta_parent(struct store *st, uint64_t dir)
{
	struct inode *in;
	uint64_t up = 0;

	pthread_mutex_lock(&st->meta);
	if (!dir_get(st, dir, &in)) {
		if (in->nlink)
			up = in->parent;
		inode_put_locked(st, in);
	}
	pthread_mutex_unlock(&st->meta);
	return up;
}

uint64_t meta_files(struct store *st)
{
	pthread_mutex_lock(&st->meta);
	uint64_t n = st->files;
	pthread_mutex_unlock(&st->meta);
	return n;
}
