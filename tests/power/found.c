/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * found LEDGER ACKED DIR [published | C...]: is what DIR holds now, after a power cut, a state
 * after the cut that ACKED (recdisk) belongs to?  Prints "state C..." with how many operations of
 * each thread of `stream` are there.  published: as recovered from the nodes; C...: at least
 * these must be there.
 *
 * The rule.  There is one instant of the drive's history, and
 *   - names, link counts, modes, attributes, and contents of files up to 64 KiB are as at it;
 *   (a write that the kernel made several requests of may be there in part)
 *   - a larger file, and one that was synced over and over, is as at an instant not after it, but
 *     not before its last fsync, nor before it was last renamed or linked; where it was
 *     overwritten later, unit by unit the new or the old may be there, never anything else;
 *   - what was done before any fsync was called that was acknowledged, is there.
 * Of what was published, contents of all files are as at the instant, and what was done before
 * a `holdfast sync` that ended is there.
 */
#include <dirent.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include "net/base.h"
#include "tests/power/contents.h"

static struct ledger *l;

struct seen {
	uint64_t ino;
	uint32_t *unit, units, nlink, mode, xattr, obj;
	bool dir, lax;
	/* lax: until when (operations) what is there was there; its sizes over time */
	int64_t until;
	uint32_t which; /* the unit that says so */
	uint32_t sync;
	struct size {
		uint32_t at, end, lo, hi; /* of operations, of units */
	} * size;
	uint32_t sizes;
};

struct name {
	uint64_t dir, ino;
	uint8_t leaf;
};

struct view {
	unsigned thread;
	uint32_t acked, begun, floor, at_least;
	struct seen seen[ENTRIES_MAX + 1];
	struct name name[ENTRIES_MAX];
	uint32_t seens, names;
	struct window {
		int64_t lo, hi;
		uint32_t c;
	} * window;
	uint32_t windows;
};

static struct seen *seen_of(struct view *v, uint64_t ino)
{
	for (uint32_t i = 0; i < v->seens; i++)
		if (v->seen[i].ino == ino)
			return &v->seen[i];
	return NULL;
}

static uint32_t object_of(const struct view *v, uint64_t ino)
{
	const struct op *ops = l->op[v->thread];
	uint32_t obj = BAD;

	for (uint32_t i = 0; i < v->begun; i++)
		if ((ops[i].kind == OP_CREATE || ops[i].kind == OP_MKDIR) && ops[i].ino == ino)
			obj = ops[i].obj;
	return obj;
}

static void read_entry(struct view *v, int dir, uint64_t parent, const char *name);

static void read_dir(struct view *v, int fd, uint64_t ino)
{
	struct dirent *e;
	DIR *d = fdopendir(fd);

	if (!d)
		die("thread %u: a directory", v->thread);
	while (errno = 0, (e = readdir(d)))
		if (strcmp(e->d_name, ".") && strcmp(e->d_name, ".."))
			read_entry(v, dirfd(d), ino, e->d_name);
	if (errno)
		die("thread %u: reading a directory", v->thread);
	closedir(d);
}

static void read_entry(struct view *v, int dir, uint64_t parent, const char *name)
{
	struct stat s;

	int fd = openat(dir, name, O_RDONLY | O_NOFOLLOW);
	if (fd < 0 || fstat(fd, &s) < 0)
		die("thread %u: opening %s", v->thread, name);
	errno = EINVAL;
	if (name[1] || *name < 'a' || *name >= (int)('a' + LEAVES) || v->names == ENTRIES_MAX)
		die("thread %u: there is a %s", v->thread, name);
	v->name[v->names++] = (struct name){parent, s.st_ino, (uint8_t)(*name - 'a')};
	if (seen_of(v, s.st_ino)) {
		close(fd);
		return;
	}
	struct seen *n = &v->seen[v->seens++];
	*n = (struct seen){.ino = s.st_ino,
			   .nlink = (uint32_t)s.st_nlink,
			   .mode = s.st_mode & 07777,
			   .dir = S_ISDIR(s.st_mode),
			   .obj = object_of(v, s.st_ino)};
	if (n->obj == BAD)
		die("thread %u: %s is an inode that nobody made", v->thread, name);
	if (n->dir) {
		read_dir(v, fd, s.st_ino);
		return;
	}
	ssize_t x = fgetxattr(fd, "user.power", &n->xattr, sizeof n->xattr);
	if (x < 0 && errno != ENODATA)
		die("thread %u: attribute of %s", v->thread, name);
	n->unit = calloc(UNITS_MAX + 1, sizeof *n->unit);
	if (!n->unit || contents(fd, v->thread, n->obj, n->unit, &n->units))
		die("thread %u: reading %s, object %u", v->thread, name, n->obj);
	for (uint32_t u = 0; n->units != BAD && u < n->units; u++)
		if (n->unit[u] == BAD) {
			errno = EILSEQ;
			die("thread %u: %s, object %u, unit %u of %u is what nobody wrote",
			    v->thread, name, n->obj, u, n->units);
		}
	close(fd);
}

static void changed(struct seen *n, const struct object *o, uint32_t from, uint32_t to,
		    uint32_t version, uint32_t done, int64_t *until)
{
	to = HF_MIN(to, n->units);
	for (uint32_t u = from; u < to; u++)
		if (model_unit(o, u) != version && model_unit(o, u) == n->unit[u])
			until[u] = done;
}

/* What is known of larger files over the whole history: until, sizes, fsyncs. */
static void history(struct view *v, uint64_t root)
{
	static int64_t *until[ENTRIES_MAX + 1];
	const struct op *ops = l->op[v->thread];
	struct model m;

	model_init(&m, root);
	m.keep = true;
	for (uint32_t i = 0; i < v->seens; i++) {
		until[i] = malloc(UNITS_MAX * sizeof **until);
		if (!until[i])
			die("memory");
		for (uint32_t u = 0; u < UNITS_MAX; u++)
			until[i][u] = -1;
		v->seen[i].size = malloc(2 * (v->begun + 1) * sizeof *v->seen[i].size);
		v->seen[i].lax = false;
	}
	for (uint32_t k = 0; k < v->begun; k++) {
		const struct op *p = &ops[k];
		struct seen *n = NULL;
		for (uint32_t i = 0; i < v->seens && !n; i++)
			if (v->seen[i].obj == p->obj && !v->seen[i].dir)
				n = &v->seen[i];
		struct object *o = &m.obj[p->obj];
		int64_t *un = n ? until[n - v->seen] : NULL;
		if (n && n->units != BAD && p->kind == OP_WRITE)
			changed(n, o, p->off, p->off + p->len, k + 1, k, un);
		else if (n && n->units != BAD && p->kind == OP_PUNCH)
			changed(n, o, p->off, p->off + p->len, 0, k, un);
		else if (n && n->units != BAD && p->kind == OP_TRUNCATE && p->len < o->units)
			changed(n, o, p->len, o->units, 0, k, un);
		uint32_t was = o->units;
		model_apply(&m, p);
		if (!n)
			continue;
		if (!n->sizes || was != o->units) {
			if (n->sizes)
				n->size[n->sizes - 1].end = k;
			if (p->kind == OP_WRITE)
				n->size[n->sizes++] = (struct size){k, k, was, o->units};
			n->size[n->sizes++] = (struct size){k + 1, BAD, o->units, o->units};
		}
		n->lax |= o->large;
		if ((p->kind == OP_FSYNC || p->kind == OP_FDATASYNC) && k < v->acked)
			n->sync = k + 1;
	}
	for (uint32_t i = 0; i < v->seens; i++) {
		struct seen *n = &v->seen[i];
		n->until = INT64_MAX;
		for (uint32_t u = 0; n->units != BAD && u < n->units; u++)
			if (!n->dir && model_unit(&m.obj[n->obj], u) != n->unit[u] &&
			    until[i][u] < n->until) {
				n->until = until[i][u];
				n->which = u;
			}
		free(until[i]);
	}
	for (uint32_t i = 0; i < m.objects; i++)
		free(m.obj[i].unit);
	free(m.obj);
}

/* NULL, or why what is there of a file is not it after the operations of m. */
static const char *file_differs(const struct view *v, const struct model *m,
				const struct seen *n, bool exact)
{
	static char why[200];
	const struct object *o = &m->obj[n->obj];

	if (!n->lax || exact) {
		if (n->units != o->units)
			return snprintf(why, sizeof why, "object %u has %u units, not %u",
					n->obj, n->units, o->units),
			       why;
		for (uint32_t u = 0; u < n->units; u++)
			if (n->unit[u] != model_unit(o, u))
				return snprintf(why, sizeof why,
						"object %u, unit %u of %u: version %u, not %u",
						n->obj, u, n->units, n->unit[u],
						model_unit(o, u)),
				       why;
		return NULL;
	}
	uint32_t from = HF_MAX(HF_MAX(n->sync, o->named), v->at_least);
	int64_t to = HF_MIN((int64_t)m->done, n->until);
	for (uint32_t i = 0; i < n->sizes; i++)
		if (n->size[i].lo <= n->units && n->units <= n->size[i].hi &&
		    n->size[i].at <= to && n->size[i].end >= from && from <= to)
			return NULL;
	snprintf(why, sizeof why,
		 "larger object %u: its %u units are not as at an instant from %u to %u "
		 "(unit %u, version %u, until %lld)",
		 n->obj, n->units, from, m->done, n->which, n->unit[n->which],
		 (long long)n->until);
	return why;
}

static const char *differs(struct view *v, const struct model *m, bool exact)
{
	static char why[200];

	if (m->entries != v->names)
		return snprintf(why, sizeof why, "%u names, not %u", v->names, m->entries), why;
	for (uint32_t i = 0; i < m->entries; i++) {
		const struct entry *e = &m->entry[i];
		const struct object *o = &m->obj[e->obj];
		bool there = false;
		for (uint32_t k = 0; k < v->names && !there; k++)
			there = v->name[k].dir == m->obj[e->dir].ino &&
				v->name[k].leaf == e->leaf && v->name[k].ino == o->ino;
		if (!there)
			return snprintf(why, sizeof why, "object %u is not %c of object %u",
					e->obj, 'a' + e->leaf, e->dir),
			       why;
		const struct seen *n = seen_of(v, o->ino);
		if (o->dir)
			continue;
		if (n->nlink != o->nlink || n->mode != o->mode || n->xattr != o->xattr)
			return snprintf(why, sizeof why,
					"object %u: links, mode, attribute %u %o %u, not %u "
					"%o %u",
					e->obj, n->nlink, n->mode, n->xattr, o->nlink, o->mode,
					o->xattr),
			       why;
	}
	for (uint32_t i = 0; i < v->seens; i++) {
		const char *w = v->seen[i].dir ? NULL : file_differs(v, m, &v->seen[i], exact);
		if (w)
			return w;
	}
	return NULL;
}

/*
 * The kernel may make several requests of a write: a part of it is a state, too.  Applies as
 * much of the next operation as is there; false: nothing, or all.
 */
static bool part_of(struct view *v, struct model *m, const struct op *p)
{
	const struct seen *n = NULL;
	uint32_t len = 0;

	for (uint32_t i = 0; i < v->seens && !n; i++)
		if (v->seen[i].obj == p->obj && !v->seen[i].dir)
			n = &v->seen[i];
	if (p->kind != OP_WRITE || !n || n->units == BAD)
		return false;
	while (len < p->len && p->off + len < n->units && n->unit[p->off + len] == m->done + 1)
		len++;
	if (!len || len == p->len)
		return false;
	struct object *o = &m->obj[p->obj];
	model_size(o, HF_MAX(o->units, p->off + len));
	model_fill(o, p->off, p->off + len, m->done + 1);
	return true;
}

/* What was done with a larger file of which a unit is there that is older than it may be. */
static void tell(const struct view *v, const struct seen *n)
{
	const struct op *ops = l->op[v->thread];
	int64_t least = v->at_least;

	for (uint32_t k = 0; k < v->acked; k++)
		if (ops[k].obj == n->obj &&
		    (ops[k].kind == OP_RENAME || ops[k].kind == OP_LINK ||
		     ops[k].kind == OP_FSYNC || ops[k].kind == OP_FDATASYNC))
			least = HF_MAX(least, (int64_t)k + 1);
	if (!n->lax || n->until >= least)
		return;
	printf("    object %u, unit %u has version %u of %lld, was done:\n", n->obj, n->which,
	       n->unit[n->which], (long long)n->until);
	for (uint32_t k = 0; k < v->begun; k++) {
		const struct op *p = &ops[k];
		bool in = p->off <= n->which && n->which < p->off + p->len;
		if (p->kind == OP_PUBLISH ||
		    (p->obj == n->obj && p->kind != OP_FSYNCDIR &&
		     (in || (p->kind != OP_WRITE && p->kind != OP_PUNCH))))
			printf("    %u: %s %u %u\n", k + 1, words[p->kind], p->off, p->len);
	}
}

/* All states of one thread that are as what is there. */
static void search(struct view *v, uint64_t root, bool published)
{
	const struct op *ops = l->op[v->thread];
	struct model m;

	history(v, root);
	model_init(&m, root);
	v->window = malloc(2 * (v->begun + 1) * sizeof *v->window);
	for (uint32_t c = 0;; c++) {
		const char *w = c >= v->floor ? differs(v, &m, published) : NULL;
		if (c >= v->floor && !w)
			v->window[v->windows++] =
				(struct window){c ? ops[c - 1].begin_ns : 0,
						c < v->acked ? ops[c].end_ns : INT64_MAX, c};
		if (c == v->begun)
			break;
		int64_t end = c < v->acked ? ops[c].end_ns : INT64_MAX;
		if (c >= v->floor && part_of(v, &m, &ops[c]) && !differs(v, &m, published))
			v->window[v->windows++] = (struct window){ops[c].begin_ns, end, c};
		model_apply(&m, &ops[c]);
	}
	if (v->windows)
		return;
	printf("thread %u: no state after %u to %u operations (%u acknowledged) is as what is "
	       "there\n",
	       v->thread, v->floor, v->begun, v->acked);
	for (uint32_t i = 0; i < v->seens; i++)
		tell(v, &v->seen[i]);
	model_init(&m, root);
	const char *last = "";
	char text[200] = "";
	for (uint32_t c = 0; c <= v->begun; c++) {
		const char *w = differs(v, &m, published);
		if (!w)
			printf("    but after %u it is, too early\n", c);
		else if (c >= v->floor && strcmp(w, last))
			printf("    %u: %s\n", c, w);
		last = strcpy(text, w ? w : "");
		if (c < v->begun)
			model_apply(&m, &ops[c]);
	}
}

static int64_t last_call(const struct view *v, unsigned threads, bool published)
{
	int64_t last = 0;

	for (unsigned t = 0; t < threads; t++)
		for (uint32_t k = 0; k < v[t].acked; k++) {
			const struct op *p = &l->op[t][k];
			if (p->kind == OP_PUBLISH || (!published && p->kind >= OP_FSYNC))
				last = HF_MAX(last, p->begin_ns);
		}
	return last;
}

static uint32_t before(const struct view *v, int64_t ns)
{
	uint32_t n = 0;

	while (n < v->acked && l->op[v->thread][n].end_ns <= ns)
		n++;
	return n;
}

/* An instant that is in a window of each thread. */
static bool common(const struct view *v, unsigned threads, int64_t at, uint32_t c[])
{
	for (unsigned t = 0; t < threads; t++) {
		bool in = false;
		for (uint32_t i = 0; i < v[t].windows && !in; i++)
			if (v[t].window[i].lo <= at && at <= v[t].window[i].hi) {
				c[t] = v[t].window[i].c;
				in = true;
			}
		if (!in)
			return false;
	}
	return true;
}

static int verify(int argc, char **argv)
{
	static struct view v[THREADS_MAX];
	bool published = argc == 4 && !strcmp(argv[3], "published");
	uint32_t c[THREADS_MAX];

	l = ledger_map(argv[0]);
	FILE *f = fopen(argv[1], "r");
	if (!l || !f)
		die("%s, %s", argv[0], argv[1]);
	unsigned threads = l->threads;
	for (unsigned t = 0; t < threads; t++) {
		v[t].thread = t;
		if (fscanf(f, "%u %u", &v[t].acked, &v[t].begun) != 2)
			die("%s", argv[1]);
	}
	fclose(f);
	int64_t all = last_call(v, threads, published), whole = last_call(v, threads, true);
	bool found = true;
	for (unsigned t = 0; t < threads; t++) {
		char path[600];
		struct stat s;

		v[t].floor = before(&v[t], all);
		v[t].at_least = before(&v[t], whole);
		if (!published && argc == 3 + (int)threads) {
			uint32_t n = (uint32_t)strtoul(argv[3 + t], NULL, 10);
			v[t].floor = HF_MAX(v[t].floor, n);
			v[t].at_least = HF_MAX(v[t].at_least, n);
		}
		snprintf(path, sizeof path, "%s/t%u", argv[2], t);
		int fd = open(path, O_RDONLY | O_DIRECTORY);
		if (fd < 0 || fstat(fd, &s) < 0)
			die("%s", path);
		read_dir(&v[t], fd, s.st_ino);
		search(&v[t], s.st_ino, published);
		found &= v[t].windows > 0;
	}
	if (!found)
		return 1;
	for (unsigned t = 0; t < threads; t++)
		for (uint32_t i = 0; i < v[t].windows; i++)
			if (common(v, threads, v[t].window[i].lo, c)) {
				printf("state");
				for (unsigned k = 0; k < threads; k++)
					printf(" %u", c[k]);
				printf("\n");
				return 0;
			}
	printf("what is there of each thread was never there at one instant:\n");
	for (unsigned t = 0; t < threads; t++)
		printf("    thread %u: after %u to %u\n", t, v[t].window[0].c,
		       v[t].window[v[t].windows - 1].c);
	return 1;
}

int main(int argc, char **argv)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc >= 4)
		return verify(argc - 1, argv + 1);
	fprintf(stderr, "usage: see the top of found.c\n");
	return 2;
}
