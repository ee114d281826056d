/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Contents after crashes, errors of the disk and failed transactions, case by case. */
#include "world_util.h"

/*
 * A cut is published in the middle of an overwrite of its bytes: they were CUT when the writer
 * looked for clean ones, so there is no intent; they must not become clean.
 */
static unsigned written(bool skip)
{
	struct world *w = world_new(&(struct plan_of){.o.skip_written = skip, .crashes = true});
	struct image *at_cut = malloc(sizeof w->now);
	struct inode *in = w->in[0];
	struct store *st = w->st;
	struct cfile *c;
	uint8_t b[3000];
	unsigned flags;
	uint64_t end;

	assert_non_null(at_cut);
	lies = 0;
	fill(w, 0, 1, 100000);
	assert_int_equal(data_sync(st, in, false), 0);
	memcpy(at_cut, w->now, sizeof w->now);
	cut_begin(w);
	while (w->packed < w->pieces)
		pack_one(w);
	/* What write_large_io does. */
	memset(b, 2, sizeof b);
	assert_int_equal(iolock_write(&in->io), 0);
	pthread_rwlock_rdlock(&st->data->gate);
	assert_int_equal(data_prepare_io(st, in, 5000, 8000), 0);
	assert_int_equal(cfile_get(st, in, CF_MAIN, false, &c), 0);
	assert_int_equal(cfile_write(c->fd, b, sizeof b, 5000, NULL), 0);
	cfile_put(st, c);
	cut_end(w, true, at_cut);
	w->plan.o.skip_intent = true; /* a lie is no failure */
	crash_check(w, PC_KEEP);
	pthread_rwlock_unlock(&st->data->gate);
	iolock_unlock(&in->io);
	pthread_mutex_lock(&st->meta);
	ranges_at(in->spans, 5000, 8000, &flags, &end);
	assert_int_equal(flags & RG_DIRTY, skip ? 0 : RG_DIRTY);
	assert_true(in->dchg > st->published || skip);
	in->file->wr_off = in->file->wr_end = 0;
	pthread_mutex_unlock(&st->meta);
	world_close(w);
	world_free(w);
	free(at_cut);
	return lies;
}

static void written_meanwhile(void **state)
{
	(void)state;
	assert_int_equal(written(false), 0);
	assert_true(written(true) > 0);
	lies = 0;
}

/*
 * Two crashes: the start after the first makes dirty what its intents name, and they go.  Bytes
 * of those parts that are fetched then are clean, and need intents of their own.
 */
static void crashed_twice(void **state)
{
	struct world *w = world_new(&(struct plan_of){.crashes = true});
	uint8_t b[3000];

	(void)state;
	lies = 0;
	fill(w, 0, 1, 100000);
	publish(w);
	fill(w, 0, 2, 4096);
	assert_int_equal(data_evict(w->st, 0), 0);
	check_read(w, w->st, w->in[0], 0, 90000, 10000, &w->now[0]);
	assert_int_equal(store_commit_all(w->st), 0);
	world_die(w);
	world_open(w);
	assert_true(w->st->unclean);
	check_read(w, w->st, w->in[0], 0, 0, 100000, &w->now[0]);
	assert_int_equal(store_commit_all(w->st), 0);
	memset(b, 3, sizeof b);
	assert_int_equal(data_write(w->st, w->in[0], b, sizeof b, 50000, false), 0);
	crash_check(w, PC_KEEP);
	assert_int_equal(lies, 0);
	world_close(w);
	world_free(w);
}

/* What a killed process had written and not synced is published by the next, and then on the
 * disk. */
static void killed(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		struct world *w = world_new(&(struct plan_of){.crashes = true});

		lies = 0;
		fill(w, 0, 1, 100000);
		if (i) {
			/* Over clean bytes: they are taken for changed. */
			publish(w);
		} else {
			assert_int_equal(data_sync(w->st, w->in[0], false), 0);
		}
		fill(w, 0, 2, 3000);
		world_die(w);
		world_open(w);
		assert_true(w->st->unclean);
		check_read(w, w->st, w->in[0], 0, 0, 100000, &w->now[0]);
		publish(w);
		crash_check(w, PC_LOSE);
		assert_int_equal(lies, 0);
		world_close(w);
		world_free(w);
	}
}

/* A log that is synced line by line leaves its row while it is small; a short note does not. */
static void logged(void **state)
{
	struct world *w = world_new(&(struct plan_of){.crashes = true});

	(void)state;
	lies = in_rows = 0;
	for (unsigned i = 0; i < 120; i++) {
		op_write_at(w, 0, w->now[0].size, 300);
		op_sync(w, 0);
		op_write_at(w, 1, 0, 900);
		op_sync(w, 1);
		if (i == 60)
			publish(w);
		if (i % 8 == 0 || (i > 20 && i < 30))
			crash_check(w, PC_LOSE);
	}
	assert_true(w->in[0]->size < SMALL_MAX && w->in[0]->flags & INODE_LARGE);
	assert_false(w->in[1]->flags & INODE_LARGE);
	assert_true(in_rows > 60);
	assert_int_equal(lies, 0);
	check_all(w);
	w->synced[0] = false;
	assert_int_equal(data_truncate(w->st, w->in[0], 0, false), 0);
	w->now[0].size = 0;
	image_trim(&w->now[0], 0);
	assert_false(w->in[0]->flags & INODE_LARGE);
	crash_check(w, PC_KEEP);
	/* Where it cannot have a cache file it stays a row. */
	char dir[PATH_MAX];
	snprintf(dir, sizeof dir, "%s/data/%02x", w->dir, (unsigned)w->ino[1] & 0xff);
	int fd = creat(dir, 0600);
	assert_true(fd >= 0);
	close(fd);
	for (unsigned i = 0; i < 60; i++) {
		op_write_at(w, 1, w->now[1].size, 300);
		op_sync(w, 1);
	}
	assert_false(w->in[1]->flags & INODE_LARGE);
	assert_int_equal(unlink(dir), 0);
	crash_check(w, PC_LOSE);
	assert_int_equal(lies, 0);
	world_close(w);
	world_open(w);
	check_all(w);
	world_close(w);
	world_free(w);
}

/* A new cache file's name is synced whoever syncs first, and again after an error. */
static void new_names(void **state)
{
	struct plan_of plan = {.crashes = true};

	(void)state;
	lies = 0;
	struct world *w = world_new(&plan);
	for (int f = 0; f < 2; f++) {
		fill(w, f, 3, 100000);
		assert_int_equal(data_sync(w->st, w->in[f], false), 0);
		w->synced[f] = true;
		assert_false(w->in[f]->file->created);
		crash_check(w, PC_LOSE);
	}
	/* Emptied and filled again: it is another file of the same name. */
	w->synced[0] = false;
	assert_int_equal(data_truncate(w->st, w->in[0], 0, false), 0);
	w->now[0].size = 0;
	image_trim(&w->now[0], 0);
	fill(w, 0, 4, 80000);
	assert_int_equal(data_sync(w->st, w->in[0], false), 0);
	w->synced[0] = true;
	crash_check(w, PC_LOSE);
	/* The bytes are synced, the name is not: said, and never taken back. */
	fill(w, 2, 5, 80000);
	pc.syncs = 0;
	pc.fail = 2;
	assert_int_equal(data_sync(w->st, w->in[2], false), -EIO);
	pc.fail = 0;
	assert_true(w->in[2]->file->created);
	assert_int_equal(data_sync(w->st, w->in[2], false), -EIO);
	assert_int_equal(data_sync(w->st, w->in[0], false), -EIO);
	assert_int_equal(data_write(w->st, w->in[0], "x", 1, 0, false), -EROFS);
	assert_int_equal(data_truncate(w->st, w->in[0], 0, false), -EROFS);
	assert_int_equal(data_fallocate(w->st, w->in[0], FALLOC_FL_ZERO_RANGE, 0, 10, false),
			 -EROFS);
	check_read(w, w->st, w->in[0], 0, 0, 80000, &w->now[0]);
	assert_non_null(strstr(w->st->fail_msg, "cache"));
	crash_check(w, PC_LOSE);
	for (int f = 0; f < FILES; f++)
		inode_put(w->st, w->in[f]);
	assert_int_equal(store_close(w->st), -EIO);
	/* The next mount begins with the last commit. */
	w->ino[2] = 0;
	world_open(w);
	assert_true(w->st->unclean);
	check_read(w, w->st, w->in[0], 0, 0, 80000, &w->now[0]);
	inode_put(w->st, w->in[0]);
	inode_put(w->st, w->in[1]);
	assert_int_equal(store_close(w->st), 0);
	world_free(w);
}

static struct {
	struct world *w;
	pthread_t thread;
	_Atomic bool done;
	bool early;
} second;

static void *second_sync(void *arg)
{
	(void)arg;
	assert_int_equal(data_sync(second.w->st, second.w->in[0], false), 0);
	second.done = true;
	return NULL;
}

static void second_begin(void)
{
	assert_int_equal(pthread_create(&second.thread, NULL, second_sync, NULL), 0);
	usleep(50000);
	second.early = second.done;
}

/* Of two who sync a new file, none returns before its name is on the disk. */
static void two_syncers(void **state)
{
	struct world *w = world_new(&(struct plan_of){.crashes = true});

	(void)state;
	second.w = w;
	second.done = second.early = false;
	fill(w, 0, 3, 100000);
	pc.dir_hook = second_begin;
	assert_int_equal(data_sync(w->st, w->in[0], false), 0);
	assert_null(pc.dir_hook);
	pthread_join(second.thread, NULL);
	assert_true(second.done);
	assert_false(second.early);
	world_close(w);
	world_free(w);
}

/* Every sync of the workload fails once: whoever was told that it is safe was told the truth.
 */
static void sync_fails_anywhere(void **state)
{
	struct plan_of plan = {.crashes = true};

	(void)state;
	for (unsigned n = 1;; n++) {
		struct world *w = world_new(&plan);
		unsigned done = 0;

		lies = 0;
		w->plan.o.skip_intent = false;
		pc.syncs = 0;
		pc.fail = n;
		int err = 0;
		for (unsigned i = 0; i < 6 && !err; i++) {
			static uint8_t b[90000];
			int f = (int)(i % FILES);
			memset(b, (int)i + 1, sizeof b);
			err = data_write(w->st, w->in[f], b, sizeof b, w->base[f], false);
			w->synced[f] = false;
			if (!err)
				err = data_sync(w->st, w->in[f], false);
			if (err)
				break;
			memcpy(w->now[f].b, b, sizeof b);
			w->now[f].size = w->base[f] + sizeof b;
			w->synced[f] = true;
			done++;
		}
		bool hit = pc.syncs >= n;
		pc.fail = 0;
		if (hit && done < 6) {
			assert_int_equal(err, -EIO);
			assert_true(w->st->failed);
			assert_int_equal(store_commit(w->st), -EIO);
		}
		crash_check(w, PC_LOSE);
		assert_int_equal(lies, 0);
		for (int f = 0; f < FILES; f++)
			inode_put(w->st, w->in[f]);
		assert_int_equal(store_close(w->st), w->st->failed ? -EIO : 0);
		world_free(w);
		if (!hit)
			break;
		assert_true(n < 200);
	}
}

/* A byte that is read, or an error. */
static int byte_of(struct world *w, int f, uint64_t off)
{
	uint8_t b;
	int64_t n = data_read(w->st, w->in[f], &b, 1, off);

	return n == 1 ? b : (int)n;
}

/*
 * A COMMIT that fails takes back rows of a small file, extents of a large one, a name and an
 * attribute: what is in memory is told as it is, what only those rows said is an error, never
 * what was there before; all else is read on.
 */
static void taken_back(void **state)
{
	struct world *w = world_new(&(struct plan_of){.crashes = true});
	struct store *st = w->st;
	uint64_t inl = ((uint64_t)1 << 40) + 1; /* the local number of an inline segment */
	struct inode *in, *dir, *calm;
	struct buf v = {0};
	struct meta_new d = {.mode = S_IFDIR | 0755}, n = {.mode = S_IFREG | 0644};

	(void)state;
	assert_int_equal(meta_create(st, INO_ROOT, "d", 1, &d, &dir), 0);
	assert_int_equal(meta_create(st, dir->ino, "old", 3, &n, &in), 0);
	inode_put(st, in);
	assert_int_equal(meta_create(st, INO_ROOT, "calm", 4, &d, &calm), 0);
	assert_int_equal(meta_create(st, calm->ino, "old", 3, &n, &in), 0);
	inode_put(st, in);
	fill(w, 0, 1, 100);
	fill(w, 1, 2, 200);
	fill(w, 2, 3, 90000);
	assert_int_equal(meta_setxattr(st, w->in[0], "user.x", "old", 3, 0), 0);
	assert_int_equal(store_commit_all(st), 0);
	/* Names are of the directory, bytes and attributes of the file. */
	inode_put(st, dir);
	assert_int_equal(meta_create(st, dir->ino, "new", 3, &n, &in), 0);
	inode_put(st, in);
	fill(w, 0, 11, 100);
	assert_int_equal(meta_setxattr(st, w->in[0], "user.x", "new", 3, 0), 0);
	pthread_mutex_lock(&st->meta);
	assert_int_equal(store_flush_locked(st, false), 0);
	assert_null(w->in[0]->small);
	/* As if the first page of the large one had been published and given up just now. */
	assert_int_equal(
		sqlite3_exec(st->db,
			     "INSERT INTO segment(seg,id,kind,k,m,cell_log2,cps,"
			     "len,nodes,missing,chg,seq,data) VALUES(1099511627777,"
			     "x'00112233445566778899aabbccddeeff',3,1,0,16,1,4096,'',0,"
			     "0,0,zeroblob(4096))",
			     NULL, NULL, NULL),
		SQLITE_OK);
	struct extent e = {.off = 0, .len = 4096, .seg = inl};
	assert_int_equal(extent_put_locked(st, w->ino[2], &e), 0);
	assert_int_equal(ranges_set(w->in[2]->spans, 0, 4096, 0, RG_ALL), 0);
	pthread_mutex_unlock(&st->meta);
	assert_int_equal(byte_of(w, 0, 0), 11);
	pc.syncs = 0;
	pc.fail = 1;
	assert_int_equal(store_commit(st), -EIO);
	pc.fail = 0;
	assert_int_equal(byte_of(w, 0, 0), -EIO);
	assert_int_equal(byte_of(w, 1, 0), 2);
	assert_int_equal(byte_of(w, 2, 0), -EIO);
	assert_int_equal(byte_of(w, 2, 5000), 3);
	/* Switched off, bytes of before are told. */
	st->opts.skip_undone = true;
	assert_int_equal(byte_of(w, 0, 0), 1);
	st->opts.skip_undone = false;
	assert_int_equal(meta_getxattr(st, w->in[0], "user.x", &v), -EIO);
	assert_int_equal(meta_listxattr(st, w->in[0], &v), -EIO);
	assert_int_equal(meta_lookup(st, dir->ino, "new", 3, &in), -EIO);
	assert_int_equal(meta_lookup(st, dir->ino, "none", 4, &in), -ENOENT);
	assert_int_equal(meta_lookup(st, dir->ino, "old", 3, &in), 0);
	inode_put(st, in);
	assert_int_equal(meta_readdir(st, dir->ino, 0, false, NULL, NULL), -EIO);
	assert_int_equal(meta_lookup(st, calm->ino, "old", 3, &in), 0);
	inode_put(st, in);
	assert_int_equal(meta_lookup(st, calm->ino, "none", 4, &in), -ENOENT);
	buf_release(&v);
	inode_put(st, calm);
	world_die(w);
	/* The next mount has what was committed, or, as no power was lost, what was tried. */
	world_open(w);
	int b = byte_of(w, 0, 0);
	assert_true(b == 1 || b == 11);
	assert_int_equal(byte_of(w, 2, 0), 3);
	world_close(w);
	world_free(w);
}

/*
 * A statement in the middle of a change fails, and the transaction stays as it is: what half of
 * the change left is not told, all else is.
 */
static void half_way(void **state)
{
	struct world *w = world_new(&(struct plan_of){.crashes = true});

	(void)state;
	fill(w, 0, 1, 100000);
	fill(w, 1, 2, 100000);
	publish(w);
	assert_int_equal(data_evict(w->st, 0), 0);
	assert_int_equal(byte_of(w, 0, 10), 1);
	assert_int_equal(data_evict(w->st, 0), 0);
	assert_int_equal(sqlite3_exec(w->st->db,
				      "CREATE TEMP TRIGGER half BEFORE INSERT ON extent "
				      "BEGIN SELECT RAISE(FAIL,'half'); END",
				      NULL, NULL, NULL),
			 SQLITE_OK);
	assert_int_equal(data_truncate(w->st, w->in[0], 50000, false), -EIO);
	assert_true(w->st->failed && !sqlite3_get_autocommit(w->st->db));
	assert_int_equal(byte_of(w, 0, 10), -EIO);
	assert_int_equal(byte_of(w, 1, 10), 2);
	/* Switched off, a hole is told. */
	w->st->opts.skip_undone = true;
	assert_int_equal(byte_of(w, 0, 10), 0);
	w->st->opts.skip_undone = false;
	world_die(w);
	world_open(w);
	assert_int_equal(byte_of(w, 0, 10), 1);
	world_close(w);
	world_free(w);
}

/* More files are written than may be open: those that go are synced, and what fails is said. */
static void few_descriptors(void **state)
{
	static uint8_t b[70000];
	struct inode *in[60];
	struct meta_new n = {.mode = S_IFREG | 0644};
	char name[16];

	(void)state;
	for (unsigned fails = 0; fails < 2; fails++) {
		struct world *w = world_new(&(struct plan_of){.crashes = true});
		struct store *st = w->st;

		assert_int_equal(store_commit_all(st), 0);
		st->data->fd_max = 8;
		st->data->fd_hard = 12;
		pc.syncs = 0;
		pc.fail = fails ? 3 : 1000; /* so that they are counted */
		for (unsigned i = 0; i < 60; i++) {
			snprintf(name, sizeof name, "%u", i);
			assert_int_equal(
				meta_create(st, INO_ROOT, name, strlen(name), &n, &in[i]), 0);
			memset(b, (int)i + 1, sizeof b);
			assert_int_equal(data_write(st, in[i], b, sizeof b, 0, false), 0);
			assert_true(st->data->fd_cnt <= 12);
		}
		assert_true(pc.syncs >= 40);
		for (unsigned i = 0; i < 60; i++) {
			assert_int_equal(data_read(st, in[i], b, 10, 60000), 10);
			assert_int_equal(b[0], i + 1);
		}
		int err = store_commit_all(st);
		pc.fail = 0;
		assert_int_equal(err, fails ? -EIO : 0);
		for (unsigned i = 0; i < 60; i++)
			inode_put(st, in[i]);
		world_die(w);
		world_open(w);
		for (unsigned i = 0; i < 60 && !fails; i++) {
			snprintf(name, sizeof name, "%u", i);
			assert_int_equal(
				meta_lookup(w->st, INO_ROOT, name, strlen(name), &in[i]), 0);
			assert_int_equal(data_read(w->st, in[i], b, 10, 60000), 10);
			assert_int_equal(b[0], i + 1);
			inode_put(w->st, in[i]);
		}
		world_close(w);
		world_free(w);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(written_meanwhile),
		cmocka_unit_test(crashed_twice),
		cmocka_unit_test(killed),
		cmocka_unit_test(logged),
		cmocka_unit_test(new_names),
		cmocka_unit_test(two_syncers),
		cmocka_unit_test(taken_back),
		cmocka_unit_test(half_way),
		cmocka_unit_test(sync_fails_anywhere),
		cmocka_unit_test(few_descriptors),
	};

	return world_init() ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
