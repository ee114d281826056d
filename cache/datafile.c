/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "cache/datafile.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#define FD_LOOK 16 /* that were not used for longest, for one without bytes to sync */

/* --- names and descriptors --- */

void cfile_name(uint64_t ino, enum cfile_kind k, char out[48])
{
	static const char *const suffix[CF_KINDS] = {"", ".cut", ".old"};

	snprintf(out, 48, "%02x/%llx%s", (unsigned)(ino & 0xff), (unsigned long long)ino,
		 suffix[k]);
}

static int cfile_open(struct data *d, uint64_t ino, enum cfile_kind k, bool create,
		      bool *created)
{
	char name[48];

	cfile_name(ino, k, name);
	int fd = openat(d->dir_fd, name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	if (fd >= 0 || errno != ENOENT || !create)
		return fd < 0 ? -errno : fd;
	for (int i = 0; i < 2; i++) {
		fd = openat(d->dir_fd, name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
		if (fd >= 0) {
			*created = true;
			return fd;
		}
		if (errno != ENOENT)
			break;
		name[2] = 0;
		if (mkdirat(d->dir_fd, name, 0700) < 0 && errno != EEXIST)
			break;
		name[2] = '/';
	}
	return -errno;
}

static void fd_unlink(struct data *d, struct cfile *c)
{
	if (c->prev)
		c->prev->next = c->next;
	else
		d->fd_head = c->next;
	if (c->next)
		c->next->prev = c->prev;
	else
		d->fd_tail = c->prev;
	d->fd_cnt--;
}

static void fd_push(struct data *d, struct cfile *c)
{
	c->prev = NULL;
	c->next = d->fd_head;
	if (c->next)
		c->next->prev = c;
	else
		d->fd_tail = c;
	d->fd_head = c;
	d->fd_cnt++;
}

/* Out of the cache; closed when nobody uses it. */
static void fd_detach(struct data *d, struct cfile *c)
{
	fd_unlink(d, c);
	*c->home = NULL;
	c->home = NULL;
	if (c->ref)
		return;
	close(c->fd);
	free(c);
}

/* Written, but not waited for: of many files that are synced then, the first has to wait. */
static void fd_write_back(const struct cfile *c)
{
	(void)sync_file_range(c->fd, 0, 0, SYNC_FILE_RANGE_WRITE);
}

/*
 * Room for one more.  Without an open descriptor the kernel may forget that it could not
 * write bytes back, so one with such bytes stays as long as there is room for that, and is
 * synced before it goes, many at a time.
 */
static void fd_room(struct data *d)
{
	bool full = d->fd_cnt >= d->fd_hard;
	unsigned goal = full ? d->fd_hard - (d->fd_hard - d->fd_max) / 4 : d->fd_max;
	unsigned ahead = full ? d->fd_cnt - goal + 1 : 0;
	unsigned look = full ? d->fd_cnt : FD_LOOK;
	struct cfile *prev;

	for (struct cfile *c = d->fd_tail; c && ahead; c = c->prev)
		if (!c->ref && c->wrote) {
			fd_write_back(c);
			ahead--;
		}
	for (struct cfile *c = d->fd_tail; c && look && d->fd_cnt >= goal; c = prev, look--) {
		prev = c->prev;
		if (c->ref || (c->wrote && !full))
			continue;
		if (c->wrote && fdatasync(c->fd) < 0)
			c->owner->sync_err = -errno;
		fd_detach(d, c);
	}
}

int cfile_get(struct store *st, struct inode *in, enum cfile_kind k, bool create,
	      struct cfile **out)
{
	struct data *d = st->data;
	struct datafile *f = in->file;
	bool created = false;
	int err = 0;

	pthread_mutex_lock(&d->fd_lock);
	struct cfile *c = f->fd[k];
	if (c) {
		c->ref++;
		if (d->fd_head != c) {
			fd_unlink(d, c);
			fd_push(d, c);
		}
		goto out;
	}
	fd_room(d);
	c = calloc(1, sizeof *c);
	if (!c) {
		err = -ENOMEM;
		goto out;
	}
	c->fd = cfile_open(d, in->ino, k, create, &created);
	if (c->fd < 0) {
		err = c->fd;
		free(c);
		goto out;
	}
	c->ref = 1;
	c->owner = f;
	c->home = &f->fd[k];
	f->fd[k] = c;
	fd_push(d, c);
	if (created && k == CF_MAIN)
		f->created = true;
out:
	pthread_mutex_unlock(&d->fd_lock);
	*out = err ? NULL : c;
	return err;
}

void cfile_put(struct store *st, struct cfile *c)
{
	if (!c)
		return;
	pthread_mutex_lock(&st->data->fd_lock);
	if (!--c->ref && !c->home) {
		close(c->fd);
		free(c);
	}
	pthread_mutex_unlock(&st->data->fd_lock);
}

void cfile_drop(struct store *st, struct datafile *f, enum cfile_kind k)
{
	pthread_mutex_lock(&st->data->fd_lock);
	if (f->fd[k])
		fd_detach(st->data, f->fd[k]);
	pthread_mutex_unlock(&st->data->fd_lock);
}

int cfile_unlink(struct store *st, uint64_t ino, enum cfile_kind k)
{
	char name[48];

	cfile_name(ino, k, name);
	if (unlinkat(st->data->dir_fd, name, 0) < 0 && errno != ENOENT)
		return log_fail(-errno, "removing %s/data/%s: %s", st->dir, name,
				strerror(errno));
	return 0;
}

int cfile_write(int fd, const void *buf, size_t len, uint64_t off, size_t *done)
{
	size_t at = 0;
	int err = 0;

	while (at < len && !err) {
		ssize_t n = pwrite(fd, (const uint8_t *)buf + at, len - at, (off_t)(off + at));
		if (n > 0)
			at += (size_t)n;
		else if (n == 0)
			err = -ENOSPC;
		else if (errno != EINTR)
			err = -errno;
	}
	if (done)
		*done = at;
	return err;
}

int cfile_read(int fd, void *buf, size_t len, uint64_t off)
{
	size_t at = 0;

	while (at < len) {
		ssize_t n = pread(fd, (uint8_t *)buf + at, len - at, (off_t)(off + at));
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return -ENODATA;
		at += (size_t)n;
	}
	return 0;
}

/* --- syncing --- */

/* The name of a cache file is on the disk, and that of the directory it is in. */
static int name_sync(struct data *d, uint64_t ino)
{
	char name[48];
	int err = 0;

	cfile_name(ino, CF_MAIN, name);
	name[2] = 0;
	int fd = openat(d->dir_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return -errno;
	if (fsync(fd) < 0)
		err = -errno;
	close(fd);
	if (!err && !d->sub_synced[ino & 0xff]) {
		if (fsync(d->dir_fd) < 0)
			err = -errno;
		else
			d->sub_synced[ino & 0xff] = true;
	}
	return err;
}

/* The bytes as of generation `gen` and the name; f->sync held. */
static int sync_one(struct store *st, struct inode *in, uint64_t gen)
{
	struct datafile *f = in->file;
	struct cfile *c;
	int err = cfile_get(st, in, CF_MAIN, false, &c);

	if (err == -ENOENT) {
		/* Nothing was ever written, or the file was emptied meanwhile. */
		pthread_mutex_lock(&st->meta);
		bool lost = in->flags & INODE_LARGE && f->synced_gen < gen;
		pthread_mutex_unlock(&st->meta);
		return lost ? err : 0;
	}
	if (err)
		return err;
	/*
	 * First the mark: a file that is made anew while this goes on sets it again.  It comes
	 * back before anybody else gets to look, if the name could not be synced.
	 */
	bool created = atomic_exchange(&f->created, false);
	c->wrote = false;
	if (fdatasync(c->fd) < 0)
		err = -errno;
	cfile_put(st, c);
	if (!err && created)
		err = name_sync(st->data, in->ino);
	if (err && created)
		f->created = true;
	return err;
}

void data_write_back(struct store *st, struct inode *in)
{
	struct cfile *c = NULL;

	if (!st->data || st->opts.skip_sync)
		return;
	pthread_mutex_lock(&st->meta);
	pthread_mutex_lock(&st->data->fd_lock);
	if (in->file && in->file->fd[CF_MAIN] && in->file->fd[CF_MAIN]->wrote) {
		c = in->file->fd[CF_MAIN];
		c->ref++;
	}
	pthread_mutex_unlock(&st->data->fd_lock);
	pthread_mutex_unlock(&st->meta);
	if (c)
		fd_write_back(c);
	cfile_put(st, c);
}

int data_fsync_file(struct store *st, struct inode *in)
{
	int err = 0;

	if (!st->data)
		return 0;
	pthread_mutex_lock(&st->meta);
	if (!(in->flags & INODE_LARGE) || !in->file) {
		pthread_mutex_unlock(&st->meta);
		return 0;
	}
	struct datafile *f = in->file;
	uint64_t gen = f->gen, seq = f->redo_seq;
	f->fsyncing++;
	pthread_mutex_unlock(&st->meta);
	if (!st->opts.skip_sync) {
		/*
		 * One at a time: the kernel reports a failed write-back to one fdatasync of a
		 * descriptor, and the name of a new file is synced by one of those who wait.
		 */
		pthread_mutex_lock(&f->sync);
		err = f->sync_err ? f->sync_err : sync_one(st, in, gen);
		f->sync_err = err;
		pthread_mutex_unlock(&f->sync);
	}
	if (err)
		log_fail(-EIO, "inode %llx: syncing its cache file: %s",
			 (unsigned long long)in->ino, strerror(-err));
	pthread_mutex_lock(&st->meta);
	f->fsyncing--;
	if (!err) {
		f->synced_gen = HF_MAX(f->synced_gen, gen);
		err = redo_synced_locked(st, in, gen, seq);
	}
	pthread_mutex_unlock(&st->meta);
	return err ? -EIO : 0;
}

void data_sync_failed_locked(struct store *st, struct inode *in)
{
	if (!in->io_err)
		in->io_err = EIO;
	if (st->failed)
		return;
	store_fail_locked(st, -EIO, "writing a file of the cache to the disk");
	st->whole = true;
}

int datafile_sync_io(struct store *st, struct inode *in)
{
	pthread_mutex_lock(&st->meta);
	bool need = in->file && in->file->gen != in->file->synced_gen;
	pthread_mutex_unlock(&st->meta);
	int err = need ? data_fsync_file(st, in) : 0;
	pthread_mutex_lock(&st->meta);
	if (err)
		data_sync_failed_locked(st, in);
	else
		in->unsynced = false;
	pthread_mutex_unlock(&st->meta);
	return err;
}

void datafile_wrote_locked(struct store *st, struct inode *in, const void *buf, size_t len,
			   uint64_t off)
{
	in->file->gen++;
	in->unsynced = true;
	in->written_ms = now_ms();
	redo_note_locked(st, in, buf, len, off);
}

/* --- in memory --- */

static void lru_unlink(struct data *d, struct datafile *f)
{
	if (!f->on_lru)
		return;
	if (f->lru_prev)
		f->lru_prev->lru_next = f->lru_next;
	else
		d->lru_head = f->lru_next;
	if (f->lru_next)
		f->lru_next->lru_prev = f->lru_prev;
	else
		d->lru_tail = f->lru_prev;
	f->on_lru = false;
}

void datafile_touch_locked(struct store *st, struct inode *in)
{
	struct data *d = st->data;
	struct datafile *f = in->file;

	if (d->lru_head == f)
		return;
	lru_unlink(d, f);
	f->lru_prev = NULL;
	f->lru_next = d->lru_head;
	if (f->lru_next)
		f->lru_next->lru_prev = f;
	else
		d->lru_tail = f;
	d->lru_head = f;
	f->on_lru = true;
}

static void datafile_free_locked(struct store *st, struct inode *in)
{
	struct datafile *f = in->file;

	if (!f)
		return;
	redo_release_locked(st, in);
	for (unsigned k = 0; k < CF_KINDS; k++)
		cfile_drop(st, f, k);
	lru_unlink(st->data, f);
	ranges_free(f->intended);
	ranges_free(f->cutinfo);
	pthread_mutex_destroy(&f->sync);
	free(f);
	in->file = NULL;
}

static int load_spans(struct store *st, struct inode *in)
{
	struct ranges *r;
	int err = ranges_new(&r), got = 0;

	if (err)
		return err;
	sqlite3_stmt *s =
		store_stmt(st, "SELECT chunk, map FROM span WHERE ino = ? ORDER BY chunk");
	if (!s || store_undone_locked(st, in->ino))
		err = -EIO;
	else
		sqlite3_bind_int64(s, 1, (sqlite3_int64)in->ino);
	while (!err && (got = store_step(st, s)) == 1) {
		sqlite3_int64 chunk = sqlite3_column_int64(s, 0);
		const void *p = sqlite3_column_blob(s, 1);

		err = ranges_add(r, (uint64_t)chunk, p, (size_t)sqlite3_column_bytes(s, 1));
		if (err == -EBADMSG)
			err = store_fail_locked(st, -EIO, "a row of `span` is damaged");
	}
	if (s)
		sqlite3_reset(s);
	if (!err && got < 0)
		err = got;
	if (err)
		ranges_free(r);
	else
		in->spans = r;
	return err;
}

static int load_intents(struct store *st, struct inode *in, struct datafile *f)
{
	int err = 0, got = 0;

	sqlite3_stmt *s = store_stmt(st, "SELECT part FROM intent WHERE ino = ?");
	if (!s)
		return -EIO;
	sqlite3_bind_int64(s, 1, (sqlite3_int64)in->ino);
	while (!err && (got = store_step(st, s)) == 1) {
		uint64_t part = (uint64_t)sqlite3_column_int64(s, 0);
		if (part < DATA_MAX / INTENT_PART)
			err = ranges_set(f->intended, part * INTENT_PART, INTENT_PART, RG_HAVE,
					 0);
	}
	sqlite3_reset(s);
	return err ? err : got;
}

int datafile_load_locked(struct store *st, struct inode *in)
{
	int err = 0;

	if (!in->file) {
		struct datafile *f = calloc(1, sizeof *f);
		if (!f)
			return -ENOMEM;
		f->in = in;
		f->ext_gen = f->forgot = UINT64_MAX;
		err = ranges_new(&f->intended);
		if (!err && in->flags & INODE_LARGE)
			err = load_intents(st, in, f);
		if (!err)
			err = -pthread_mutex_init(&f->sync, NULL);
		if (err) {
			ranges_free(f->intended);
			free(f);
			return err;
		}
		in->file = f;
	}
	if (in->flags & INODE_LARGE && !in->spans) {
		err = load_spans(st, in);
		if (!err)
			err = sent_load_locked(st, in);
	}
	return err;
}

void data_evict_inode_locked(struct store *st, struct inode *in)
{
	small_free_locked(st, in);
	ranges_free(in->spans);
	in->spans = NULL;
	datafile_free_locked(st, in);
}

static int store_map(void *arg, uint64_t chunk, const struct buf *map)
{
	void *const *a = arg;
	struct store *st = a[0];
	const struct inode *in = a[1];
	sqlite3_stmt *s;

	if (map->len)
		s = store_stmt(st,
			       "INSERT OR REPLACE INTO span(ino, chunk, map) VALUES(?, ?, ?)");
	else
		s = store_stmt(st, "DELETE FROM span WHERE ino = ? AND chunk = ?");
	if (!s)
		return -EIO;
	sqlite3_bind_int64(s, 1, (sqlite3_int64)in->ino);
	sqlite3_bind_int64(s, 2, (sqlite3_int64)chunk);
	if (map->len)
		sqlite3_bind_blob64(s, 3, map->p, map->len, SQLITE_STATIC);
	return store_run(st, s);
}

int data_flush_inode_locked(struct store *st, struct inode *in)
{
	store_touch_locked(st, in->ino);
	if (in->flags & INODE_LARGE) {
		void *arg[] = {st, in};
		int err = in->spans ? ranges_store(in->spans, store_map, arg) : 0;

		/* Only now that the spans are rows may the small bytes go. */
		if (!err && in->file && in->file->small_row) {
			err = small_delete_locked(st, in->ino);
			in->file->small_row = err != 0;
		}
		return err;
	}
	if (!in->small)
		return 0;
	int err = in->size ? small_store_locked(st, in->ino, in->small, in->size)
			   : small_delete_locked(st, in->ino);
	if (!err)
		small_free_locked(st, in);
	return err;
}

static int delete_rows(struct store *st, uint64_t ino, sqlite3_stmt *s)
{
	if (!s)
		return -EIO;
	sqlite3_bind_int64(s, 1, (sqlite3_int64)ino);
	return store_run(st, s);
}

static uint64_t huge(struct account a)
{
	return a.unpublished > HUGE_MAX ? a.unpublished : 0;
}

int data_delete_locked(struct store *st, struct inode *in)
{
	bool large = in->flags & INODE_LARGE;
	int err = large ? datafile_load_locked(st, in) : small_capture_locked(st, in);

	if (err)
		return err;
	struct account before = account_of(in);
	if (large)
		err = sent_drop_all_locked(st, in);
	if (!err && in->redo)
		err = redo_drop_locked(st, in);
	if (!err && (!large || in->file->small_row))
		err = small_delete_locked(st, in->ino);
	/* Spans and intents are of larger contents, extents of what may have been published. */
	if (!err && large)
		err = delete_rows(st, in->ino,
				  store_stmt(st, "DELETE FROM span WHERE ino = ?"));
	if (!err && large)
		err = delete_rows(st, in->ino,
				  store_stmt(st, "DELETE FROM intent WHERE ino = ?"));
	if (!err && (large || in->born <= HF_MAX(st->published, st->cut_epoch) ||
		     !(in->flags & INODE_SMALL_DIRTY)))
		err = extent_delete_locked(st, in->ino);
	if (err)
		return err;
	data_extents_changed_locked(st, in->ino);
	st->cached_bytes -= HF_MIN(st->cached_bytes, before.cached);
	st->unpublished_bytes -= HF_MIN(st->unpublished_bytes, before.unpublished);
	st->huge_bytes -= HF_MIN(st->huge_bytes, huge(before));
	/* The committed row names the file's bytes until the next commit: it goes after it. */
	if (large)
		err = keeper_trim_locked(st, in->ino);
	in->size = 0;
	return err;
}

/* --- figures --- */

void data_extents_changed_locked(struct store *st, uint64_t ino)
{
	if (st->data)
		st->data->ext_gen[ino % EXT_GENS]++;
}

struct account account_of(const struct inode *in)
{
	if (!(in->flags & INODE_LARGE))
		return (struct account){in->flags & INODE_SMALL_HAVE ? in->size : 0,
					in->flags & INODE_SMALL_DIRTY ? in->size : 0};
	return (struct account){ranges_total(in->spans, RG_HAVE),
				ranges_total(in->spans, RG_DIRTY) +
					ranges_total(in->spans, RG_CUT)};
}

void account_settle_locked(struct store *st, const struct inode *in, struct account before)
{
	struct account now = account_of(in);

	st->cached_bytes += now.cached;
	st->cached_bytes -= HF_MIN(st->cached_bytes, before.cached);
	st->unpublished_bytes += now.unpublished;
	st->unpublished_bytes -= HF_MIN(st->unpublished_bytes, before.unpublished);
	st->huge_bytes += huge(now);
	st->huge_bytes -= HF_MIN(st->huge_bytes, huge(before));
	keeper_wake_locked(st);
}

uint64_t data_allocated_locked(struct store *st, struct inode *in)
{
	if (!S_ISREG(in->mode))
		return 0;
	if (!(in->flags & INODE_LARGE))
		return in->size;
	if (!st->data || datafile_load_locked(st, in))
		return in->size;
	struct datafile *f = in->file;
	uint64_t gen = st->data->ext_gen[in->ino % EXT_GENS];
	if (f->ext_gen != gen) {
		sqlite3_stmt *s = store_stmt(st, "SELECT sum(len) FROM extent WHERE ino = ?");
		if (!s)
			return in->size;
		sqlite3_bind_int64(s, 1, (sqlite3_int64)in->ino);
		if (store_step(st, s) == 1)
			f->ext_bytes = (uint64_t)sqlite3_column_int64(s, 0);
		sqlite3_reset(s);
		f->ext_gen = gen;
	}
	/* Unpublished bytes over older extents count twice until they are published. */
	return HF_MIN(f->ext_bytes + account_of(in).unpublished, in->size);
}

int data_mark_locked(struct store *st, struct inode *in, bool kill_priv)
{
	int err = kill_priv ? inode_kill_priv_locked(st, in) : 0;

	in->mtime_ns = in->ctime_ns = realtime_ns();
	inode_mark_locked(st, in, REC_CH_CONTENT | REC_CH_TIMES);
	return err;
}
