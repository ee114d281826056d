/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Huge files and small ones at random, against a model of what each commit must show. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#include "ahead_util.h"

struct work {
	struct drive *d;
	uint32_t seed;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool verifying, committing, quiet;
	bool cutting;		/* the tree must not change before it is looked at */
	char *published, *next; /* what the nodes should have; with the commit under way */
	const char *crash_at;
	unsigned crash_after, held_seen, disorder;
	bool crashed;
	bool exact; /* nobody changes the tree between a cut and the hook */
	char copy[96];
};

static uint32_t rnd(struct work *w, uint32_t n)
{
	w->seed = w->seed * 1664525 + 1013904223;
	return (w->seed >> 8) % n;
}

static uint64_t some_dir(struct work *w)
{
	struct inode *in;
	char name[8];

	snprintf(name, sizeof name, "d%u", rnd(w, 4));
	if (rnd(w, 2) || meta_lookup(w->d->st, INO_ROOT, name, strlen(name), &in))
		return INO_ROOT;
	uint64_t ino = S_ISDIR(in->mode) ? in->ino : INO_ROOT;

	inode_put(w->d->st, in);
	return ino;
}

/* NULL when a directory has the name. */
static struct inode *some_file(struct store *st, uint64_t dir, const char *name)
{
	struct inode *in = dv_file(st, dir, name);

	if (S_ISREG(in->mode))
		return in;
	inode_put(st, in);
	return NULL;
}

static void one_op(struct work *w)
{
	struct store *st = w->d->st;
	char a[8], b[8], x[8], y[8];
	uint64_t ino = 0, dir = some_dir(w), to = some_dir(w);
	struct meta_new nd = {.mode = S_IFDIR | 0755};
	struct inode *in = NULL;

	snprintf(a, sizeof a, "f%u", rnd(w, 6));
	snprintf(b, sizeof b, "f%u", rnd(w, 6));
	snprintf(x, sizeof x, "d%u", rnd(w, 4));
	snprintf(y, sizeof y, rnd(w, 4) ? "d%u" : "f%u", rnd(w, 4));
	unsigned op = rnd(w, 17);

	if (op < 4 && !(in = some_file(st, dir, a)))
		return;
	if (op < 4)
		inode_put(st, in);
	switch (op) {
	case 0:
	case 1:
		dv_write(st, dir, a, rnd(w, 400000), 300000 + rnd(w, 400000), rnd(w, 1000000));
		break;
	case 2:
		dv_write(st, dir, a, rnd(w, 2000), 1 + rnd(w, 5000), rnd(w, 1000000));
		break;
	case 3:
		dv_write(st, dir, a, rnd(w, 700000), 1 + rnd(w, 9000), rnd(w, 1000000));
		break;
	case 4:
		in = some_file(st, dir, a);
		if (!in)
			break;
		assert_int_equal(
			data_truncate(st, in,
				      rnd(w, 3) ? rnd(w, 900000) : rnd(w, 2) * rnd(w, 3000),
				      false),
			0);
		inode_put(st, in);
		break;
	case 5:
	case 6:
		if (!meta_rename(st, dir, a, strlen(a), to, b, strlen(b), 0, &ino) && ino)
			meta_reap(st, ino);
		break;
	case 7:
		if (!meta_unlink(st, dir, a, strlen(a), false, &ino))
			meta_reap(st, ino);
		break;
	case 8:
		in = some_file(st, dir, a);
		if (!in)
			break;
		assert_int_equal(
			data_fallocate(st, in, 3, rnd(w, 500000), 1 + rnd(w, 200000), false),
			0);
		inode_put(st, in);
		break;
	case 9:
		in = some_file(st, dir, a);
		if (!in)
			break;
		if (in->nlink < 3)
			meta_link(st, in, to, b, strlen(b));
		inode_put(st, in);
		break;
	case 10: {
		struct inode *from = some_file(st, dir, a);

		in = some_file(st, to, b);
		if (from && in && from != in)
			assert_true(data_copy(st, from, rnd(w, 50000), in, rnd(w, 50000),
					      1 + rnd(w, 600000), false) >= 0);
		if (from)
			inode_put(st, from);
		if (in)
			inode_put(st, in);
		break;
	}
	case 11:
		if (!meta_create(st, INO_ROOT, x, strlen(x), &nd, &in))
			inode_put(st, in);
		break;
	case 12:
		if (!meta_rename(st, INO_ROOT, x, strlen(x), to, y, strlen(y), 0, &ino) && ino)
			meta_reap(st, ino);
		break;
	case 13:
		if (!meta_unlink(st, INO_ROOT, x, strlen(x), true, &ino))
			meta_reap(st, ino);
		break;
	default:
		in = some_file(st, dir, a);
		if (!in)
			break;
		assert_int_equal(data_sync(st, in, false), 0);
		inode_put(st, in);
	}
}

static bool is_held(struct publisher *p, const char *line)
{
	const char *at = strstr(line, " ino ");
	uint64_t ino = strtoull(at + 5, NULL, 16);
	bool held = false;

	for (size_t i = 0; i < p->held_cnt; i++)
		held |= p->held[i].ino == ino && !p->held[i].taken;
	return held;
}

/* The line of the directory with that number; NULL. */
static const char *dir_line(const char *dump, uint64_t ino)
{
	for (const char *l = dump; *l; l = strchr(l, '\n') + 1) {
		const char *at = strstr(l, " ino ");

		if (strtoull(at + 5, NULL, 16) == ino && strstr(at, " mode ")[6] == '4')
			return l;
	}
	return NULL;
}

static size_t path_len(const char *line)
{
	return (size_t)(strstr(line, " ino ") - line);
}

/* The number of the directory that has the name of this line. */
static uint64_t dir_of(const char *dump, const char *line)
{
	size_t len = path_len(line);
	char dir[256];

	while (line[--len] != '/')
		;
	snprintf(dir, sizeof dir, "%.*s", (int)len, line);
	char *up = line_of(dump, dir);

	assert_non_null(up);
	uint64_t ino = strtoull(strstr(up, " ino ") + 5, NULL, 16);

	free(up);
	return ino;
}

/* Where a directory is; one that is gone is where it was. */
static void dir_path(const char *was, const char *now, uint64_t ino, struct buf *out)
{
	const char *l = dir_line(now, ino), *old;

	if (l) {
		buf_put(out, l, path_len(l));
		return;
	}
	old = dir_line(was, ino);
	assert_non_null(old);
	size_t len = path_len(old), name = len;

	while (old[name] != '/')
		name--;
	dir_path(was, now, dir_of(was, old), out);
	buf_put(out, old + name, len - name);
}

static void free_lines(struct buf *out, struct publisher *p, const char *dump)
{
	for (const char *l = dump; *l; l = strchr(l, '\n') + 1)
		if (!is_held(p, l))
			buf_put(out, l, (size_t)(strchr(l, '\n') - l) + 1);
}

/* What is held stays below the directory it was in, wherever that is by now. */
static void held_lines(struct buf *out, struct publisher *p, const char *was, const char *now)
{
	for (const char *l = was; *l; l = strchr(l, '\n') + 1) {
		const char *name = strstr(l, " ino ");

		if (!is_held(p, l))
			continue;
		while (*name != '/')
			name--;
		dir_path(was, now, dir_of(was, l), out);
		buf_put(out, name, (size_t)(strchr(l, '\n') - name) + 1);
	}
}

/*
 * Of files that are ordered, in a part where one that was fsynced is held, none may have
 * changed.  The part of a file: its first directory, "" in the root; NULL: it may be in any.
 */
static const char *part_in(const char *line, struct inode *in, char out[256])
{
	const char *end = strchr(line + 1, '/');

	if (in->nlink != 1)
		return NULL;
	snprintf(out, 256, "%.*s", end && end < line + path_len(line) ? (int)(end - line) : 0,
		 line);
	return out;
}

static bool out_of_order(struct work *w, const char *now, const char *behind, uint64_t ino)
{
	struct store *st = w->d->st;
	struct inode *b;
	bool wrong = false;
	char part_b[256], part_a[256];

	assert_int_equal(inode_get(st, ino, &b), 0);
	const char *pb = part_in(behind, b, part_b);

	for (const char *l = now; *l && !wrong; l = strchr(l, '\n') + 1) {
		struct inode *a;

		if (!is_held(w->d->p, l) ||
		    inode_get(st, strtoull(strstr(l, " ino ") + 5, NULL, 16), &a))
			continue;
		const char *pa = part_in(l, a, part_a);

		wrong = S_ISREG(a->mode) && a->flags & INODE_FSYNCED &&
			(!pa || !pb || !strcmp(pa, pb));
		inode_put(st, a);
	}
	wrong = wrong && S_ISREG(b->mode) && !(b->flags & INODE_UNORDERED) &&
		b->chg > st->published;
	inode_put(st, b);
	return wrong;
}

static unsigned check_order(struct work *w, const char *now)
{
	unsigned wrong = 0;

	for (const char *l = now; *l; l = strchr(l, '\n') + 1) {
		uint64_t ino = strtoull(strstr(l, " ino ") + 5, NULL, 16);

		if (is_held(w->d->p, l) || !out_of_order(w, now, l, ino))
			continue;
		printf("before its turn: %.*s\n", (int)path_len(l), l);
		wrong++;
	}
	return wrong;
}

static int by_line(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Lines in order, so that two trees can be compared whatever was put together how. */
static char *sorted(char *dump)
{
	char **line = calloc(strlen(dump) + 1, sizeof *line);
	struct buf out = {0};
	size_t cnt = 0;

	for (char *l = strtok(dump, "\n"); l; l = strtok(NULL, "\n")) {
		/* How many directories are in one, whoever is kept there says. */
		char *links = strstr(l, " mode 4") ? strstr(l, " nlink ") : NULL;

		if (links)
			memset(links + 7, '-', strcspn(links + 7, " "));
		line[cnt++] = l;
	}
	qsort(line, cnt, sizeof *line, by_line);
	for (size_t i = 0; i < cnt; i++)
		dv_text(&out, "%s\n", line[i]);
	buf_u8(&out, 0);
	free(line);
	free(dump);
	return (char *)out.p;
}

/* The tree at the cut, but for what is held: of that, what was published before. */
static char *model(struct work *w)
{
	char *now = dv_dump(w->d->st);
	struct buf out = {0};

	if (w->exact)
		w->disorder += check_order(w, now);
	pthread_mutex_lock(&w->d->p->lock);
	free_lines(&out, w->d->p, now);
	if (w->published)
		held_lines(&out, w->d->p, w->published, now);
	for (size_t i = 0; i < w->d->p->held_cnt; i++)
		w->held_seen += !w->d->p->held[i].taken;
	pthread_mutex_unlock(&w->d->p->lock);
	buf_u8(&out, 0);
	free(now);
	return sorted((char *)out.p);
}

static int work_stage(void *arg, const char *name)
{
	struct work *w = arg;
	bool sends = !strcmp(name, "ahead");

	pthread_mutex_lock(&w->lock);
	if (!strcmp(name, "due"))
		w->cutting = true;
	if (!strcmp(name, "none"))
		w->cutting = false;
	if (!strcmp(name, "cut") && !w->crashed) {
		free(w->next);
		/* Somebody else reads the tree then, with a buffer there is only one of. */
		w->next = w->quiet ? NULL : model(w);
		w->cutting = false;
		pthread_cond_broadcast(&w->cond);
		while (w->verifying)
			pthread_cond_wait(&w->cond, &w->lock);
		w->committing = true;
	}
	/* The tree at a cut must be that of this hook: only the publish thread changes it. */
	pthread_cond_broadcast(&w->cond);
	for (unsigned i = 0; i < 3 && !sends && !w->quiet && !w->crashed && !w->cutting; i++)
		one_op(w);
	if (!strcmp(name, "applied")) {
		free(w->published);
		w->published = w->next;
		w->next = NULL;
		w->committing = false;
		pthread_cond_broadcast(&w->cond);
	}
	if (w->crash_at && !w->crashed && !strcmp(name, w->crash_at) && !w->crash_after--) {
		if (!sends && rnd(w, 2))
			store_commit(w->d->st);
		copy_now(w->d, w->copy);
		w->crashed = true;
	}
	int r = w->crashed;
	pthread_mutex_unlock(&w->lock);
	return r;
}

static void work_init(struct work *w, struct drive *d, uint32_t seed)
{
	*w = (struct work){.d = d, .seed = seed};
	pthread_mutex_init(&w->lock, NULL);
	pthread_cond_init(&w->cond, NULL);
}

/* What a recovery finds just now is what the model says. */
static int verify(struct work *w)
{
	int wrong = 0;

	pthread_mutex_lock(&w->lock);
	w->verifying = true;
	while (w->committing)
		pthread_cond_wait(&w->cond, &w->lock);
	if (w->published) {
		char *got = sorted(from_nodes(w->d));

		wrong = !dv_same(got, w->published);
		free(got);
	}
	w->verifying = false;
	pthread_cond_broadcast(&w->cond);
	pthread_mutex_unlock(&w->lock);
	return wrong;
}

/* Changes go on at every stage; the hook's and these never at once. */
static void ops(struct work *w, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		pthread_mutex_lock(&w->lock);
		while (w->cutting)
			pthread_cond_wait(&w->cond, &w->lock);
		one_op(w);
		pthread_mutex_unlock(&w->lock);
	}
}

static unsigned random_rounds(uint32_t seed, unsigned rounds, bool skip_order)
{
	struct drive d;
	struct work w;
	int wrong = 0;

	dv_open(&d);
	d.po.skip_order = skip_order;
	work_init(&w, &d, seed);
	w.exact = true;
	start(&d, work_stage, &w);
	/* Cuts only when somebody wants one: see the model. */
	for (unsigned i = 0; i < rounds && !wrong; i++) {
		ops(&w, 6);
		assert_int_equal(publish_now(d.p, false), 0);
		wrong = verify(&w);
		if (i % 5 == 4 && !wrong) {
			assert_int_equal(snapshot_take(d.p), 0);
			wrong = verify(&w);
		}
	}
	printf("seed %u: %u held, %u before their turn\n", seed, w.held_seen, w.disorder);
	pthread_mutex_lock(&w.lock);
	w.quiet = true;
	pthread_mutex_unlock(&w.lock);
	if (!wrong)
		all_published(&d);
	dv_stop(&d);
	free(w.published);
	free(w.next);
	dv_close(&d);
	assert_int_equal(wrong, 0);
	return w.disorder;
}

static void test_random(void **state)
{
	uint32_t seed = seed_of();
	unsigned wrong = 0;

	(void)state;
	assert_int_equal(random_rounds(seed, 25, false), 0);
	for (unsigned i = 0; i < 10 && !wrong; i++)
		wrong = random_rounds(seed + i, 10, true);
	assert_true(wrong > 0);
}

/* A crash wherever it may be; the copy of that moment goes on, and loses nothing. */
static void crash_at(const char *stage, uint32_t seed)
{
	struct drive d;
	struct work w;

	dv_open(&d);
	work_init(&w, &d, seed);
	snprintf(w.copy, sizeof w.copy, "%s/crashed", d.x.base);
	d.po.interval_ms = 20;
	start(&d, work_stage, &w);
	ops(&w, 20);
	pthread_mutex_lock(&w.lock);
	w.crash_after = rnd(&w, 5);
	w.crash_at = stage;
	pthread_mutex_unlock(&w.lock);
	for (unsigned i = 0; i < 2000; i++) {
		pthread_mutex_lock(&w.lock);
		bool crashed = w.crashed;
		if (!crashed && i % 3 == 0)
			one_op(&w);
		pthread_mutex_unlock(&w.lock);
		if (crashed)
			break;
		poll(NULL, 0, 5);
	}
	assert_true(w.crashed);
	dv_stop(&d);
	assert_int_equal(store_close(d.st), 0);
	free(w.published);
	free(w.next);
	work_init(&w, &d, seed);
	w.quiet = true;
	char copy[96];

	snprintf(copy, sizeof copy, "%s/crashed", d.x.base);
	d.st = dv_store(&d, copy);
	assert_int_equal(dv_check(d.st, false), 0);
	start(&d, work_stage, &w);
	all_published(&d);
	ops(&w, 8);
	all_published(&d);
	dv_stop(&d);
	free(w.published);
	free(w.next);
	dv_close(&d);
}

static void test_crash(void **state)
{
	static const char *const stages[] = {"ahead",	"cut", "segment", "packed",
					     "pending", "put", "staged",  "applied"};
	uint32_t seed = seed_of();

	(void)state;
	for (unsigned i = 0; i < sizeof stages / sizeof *stages; i++) {
		printf("seed %u stage %s\n", seed, stages[i]);
		crash_at(stages[i], seed + i);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_random),
		cmocka_unit_test(test_crash),
	};

	return dv_init() ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
