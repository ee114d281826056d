/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The tables against themselves in one hold of st->meta (a mounted drive waits meanwhile),
 * then cache files inode by inode, then the nodes segment by segment without any lock.
 */
#include "cache/check.h"

#include <fcntl.h>
#include <stdlib.h>
#include "cache/datafile.h"
#include "cache/scrub.h"

#define MORE_THAN 1000 /* findings of one kind that are said one by one */

struct check {
	struct store *st;
	const struct check_opts *o;
	int64_t found;
	uint64_t of_kind;
};

__attribute__((format(printf, 2, 3))) static void found(struct check *c, const char *fmt, ...)
{
	char what[512];
	va_list ap;

	c->found++;
	if (++c->of_kind > MORE_THAN || !c->o->found)
		return;
	va_start(ap, fmt);
	vsnprintf(what, sizeof what, fmt, ap);
	va_end(ap);
	c->o->found(c->o->arg, what);
}

static void kind_end(struct check *c, const char *what)
{
	char text[128];

	if (c->of_kind > MORE_THAN && c->o->found) {
		snprintf(text, sizeof text, "and %llu more: %s",
			 (unsigned long long)(c->of_kind - MORE_THAN), what);
		c->o->found(c->o->arg, text);
	}
	c->of_kind = 0;
}

static void progress(struct check *c, const char *what, uint64_t done, uint64_t total)
{
	if (c->o->progress)
		c->o->progress(c->o->arg, what, done, total);
}

static unsigned long long col(sqlite3_stmt *q, int i)
{
	return (unsigned long long)sqlite3_column_int64(q, i);
}

/* Rows of a query are findings: `say` makes sentences of them. */
static int each(struct check *c, sqlite3_stmt *q, const char *kind,
		void (*say)(struct check *c, sqlite3_stmt *q))
{
	int more;

	if (!q)
		return -EIO;
	while ((more = store_step(c->st, q)) == 1)
		say(c, q);
	sqlite3_reset(q);
	kind_end(c, kind);
	return more < 0 ? more : 0;
}

static void say_page(struct check *c, sqlite3_stmt *q)
{
	const char *s = (const char *)sqlite3_column_text(q, 0);

	if (!s || strcmp(s, "ok"))
		found(c, "the database is damaged: %s", s ? s : "no answer");
}

static void say_name(struct check *c, sqlite3_stmt *q)
{
	found(c, "the name \"%.*s\" in directory %llu leads to inode %llu, which %s",
	      sqlite3_column_bytes(q, 1), (const char *)sqlite3_column_blob(q, 1), col(q, 0),
	      col(q, 2),
	      sqlite3_column_int(q, 3) ? "is of another type, or the directory is not one"
				       : "is not there");
}

static void say_links(struct check *c, sqlite3_stmt *q)
{
	found(c, "inode %llu says it has %llu names and has %llu", col(q, 0), col(q, 1),
	      col(q, 2));
}

static void say_parent(struct check *c, sqlite3_stmt *q)
{
	found(c, "directory %llu says its parent is %llu, and its name is in %llu", col(q, 0),
	      col(q, 1), col(q, 2));
}

static void say_dir_names(struct check *c, sqlite3_stmt *q)
{
	found(c, "directory %llu has %llu names", col(q, 0), col(q, 1));
}

static void say_orphan(struct check *c, sqlite3_stmt *q)
{
	found(c, "%s row of inode %llu, which is not there or not of that kind",
	      (const char *)sqlite3_column_text(q, 1), col(q, 0));
}

static void say_extent(struct check *c, sqlite3_stmt *q)
{
	found(c, "inode %llu: the extent at %llu does not lie within a segment", col(q, 0),
	      col(q, 1));
}

static void say_overlap(struct check *c, sqlite3_stmt *q)
{
	found(c, "inode %llu: the extent at %llu runs into the next", col(q, 0), col(q, 1));
}

static void say_small(struct check *c, sqlite3_stmt *q)
{
	found(c, "inode %llu: its %llu bytes should be here and %s", col(q, 0), col(q, 1),
	      sqlite3_column_type(q, 2) == SQLITE_NULL ? "are not"
						       : "a row of other length is");
}

static void say_lost(struct check *c, sqlite3_stmt *q)
{
	found(c, "inode %llu: %llu bytes are marked as not published and are not here",
	      col(q, 0), col(q, 1));
}

static int check_names(struct check *c)
{
	struct store *st = c->st;
	int r = each(c, store_stmt(st, "PRAGMA quick_check(20)"), "pages", say_page);

	if (!r)
		r = each(c,
			 store_stmt(
				 st,
				 "SELECT d.parent,d.name,d.ino,i.ino IS NOT NULL FROM dirent d "
				 "LEFT JOIN inode i ON i.ino=d.ino "
				 "LEFT JOIN inode p ON p.ino=d.parent WHERE i.ino IS NULL OR "
				 "p.ino IS NULL OR (p.mode&61440)<>16384 OR "
				 "(i.mode&61440)<>(d.mode&61440)"),
			 "names", say_name);
	if (!r)
		r = each(
			c,
			store_stmt(st,
				   "WITH c AS MATERIALIZED(SELECT ino,count(*) n FROM dirent "
				   "GROUP BY ino) SELECT i.ino,i.nlink,coalesce(c.n,0) FROM "
				   "inode i "
				   "LEFT JOIN c ON c.ino=i.ino WHERE (i.mode&61440)<>16384 AND "
				   "i.nlink<>coalesce(c.n,0)"),
			"link counts", say_links);
	if (!r)
		r = each(c,
			 store_stmt(
				 st,
				 "WITH c AS MATERIALIZED(SELECT parent,count(*) n FROM dirent "
				 "WHERE (mode&61440)=16384 GROUP BY parent) "
				 "SELECT i.ino,i.nlink,2+coalesce(c.n,0) FROM inode i LEFT "
				 "JOIN c "
				 "ON c.parent=i.ino WHERE (i.mode&61440)=16384 AND i.nlink>0 "
				 "AND "
				 "i.nlink<>2+coalesce(c.n,0)"),
			 "link counts", say_links);
	if (!r)
		r = each(c,
			 store_stmt(
				 st,
				 "SELECT i.ino,i.parent,d.parent FROM dirent d JOIN inode i ON "
				 "i.ino=d.ino WHERE (d.mode&61440)=16384 AND "
				 "i.parent<>d.parent"),
			 "parents", say_parent);
	if (!r)
		r = each(c,
			 store_stmt(st,
				    "SELECT ino,count(*) FROM dirent WHERE (mode&61440)=16384 "
				    "GROUP BY ino HAVING count(*)>1"),
			 "directories", say_dir_names);
	return r;
}

/* Directories that no way leads to from the root: parts of a cycle, or below one. */
static void say_unreached(struct check *c, sqlite3_stmt *q)
{
	found(c, "directory %llu cannot be reached from the root", col(q, 0));
}

static int check_reach(struct check *c)
{
	return each(
		c,
		store_stmt(c->st,
			   "WITH RECURSIVE d(ino) AS (SELECT 1 UNION SELECT l.ino FROM d JOIN "
			   "dirent l ON l.parent=d.ino WHERE (l.mode&61440)=16384) "
			   "SELECT ino FROM inode WHERE (mode&61440)=16384 AND nlink>0 AND "
			   "ino NOT IN (SELECT ino FROM d)"),
		"directories", say_unreached);
}

static int check_contents(struct check *c)
{
	struct store *st = c->st;
	int r = each(
		c,
		store_stmt(
			st,
			"SELECT DISTINCT t.ino,'a small' FROM small t LEFT JOIN inode i ON "
			"i.ino=t.ino WHERE i.ino IS NULL UNION ALL "
			"SELECT DISTINCT t.ino,'a span' FROM span t LEFT JOIN inode i ON "
			"i.ino=t.ino WHERE i.ino IS NULL UNION ALL "
			"SELECT DISTINCT t.ino,'a redo' FROM redo t LEFT JOIN inode i ON "
			"i.ino=t.ino WHERE i.ino IS NULL OR (i.flags&1)=0 UNION ALL "
			"SELECT DISTINCT t.ino,'an xattr' FROM xattr t LEFT JOIN inode i ON "
			"i.ino=t.ino WHERE i.ino IS NULL UNION ALL "
			"SELECT DISTINCT t.ino,'an extent' FROM extent t LEFT JOIN inode i ON "
			"i.ino=t.ino WHERE i.ino IS NULL OR (i.mode&61440)<>32768"),
		"rows", say_orphan);

	if (!r)
		r = each(c,
			 store_stmt(st,
				    "SELECT e.ino,e.off FROM extent e LEFT JOIN segment s ON "
				    "s.seg=e.seg WHERE s.seg IS NULL OR e.off<0 OR e.len<=0 OR "
				    "e.seg_off<0 OR e.seg_off+e.len>s.len OR s.kind IN (2,4)"),
			 "extents", say_extent);
	if (!r)
		r = each(c,
			 store_stmt(st,
				    "SELECT ino,off FROM (SELECT ino,off,len,lead(off) OVER "
				    "(PARTITION BY ino ORDER BY off) AS nx FROM extent) WHERE "
				    "nx<off+len"),
			 "extents", say_overlap);
	if (!r)
		r = each(c,
			 store_stmt(
				 st,
				 "SELECT i.ino,i.size,s.ino FROM inode i LEFT JOIN small s ON "
				 "s.ino=i.ino WHERE (i.mode&61440)=32768 AND (i.flags&1)=0 AND "
				 "(i.flags&2)<>0 AND i.size>0 AND (s.ino IS NULL OR "
				 "length(s.bytes)<>i.size)"),
			 "small files", say_small);
	if (!r)
		r = each(c,
			 store_stmt(st,
				    "SELECT ino,size FROM inode WHERE (mode&61440)=32768 AND "
				    "(flags&1)=0 AND (flags&6)=4 AND size>0"),
			 "small files", say_lost);
	return r;
}

static int set_missing(struct check *c, uint64_t seg, int missing)
{
	sqlite3_stmt *q = store_stmt(c->st, "UPDATE segment SET missing=?2 WHERE seg=?1");

	if (!q)
		return -EIO;
	sqlite3_bind_int64(q, 1, (int64_t)seg);
	sqlite3_bind_int(q, 2, missing);
	return store_run(c->st, q);
}

static void say_live(struct check *c, sqlite3_stmt *q)
{
	found(c, "segment %llu: extents name %llu bytes of it, its row says %llu", col(q, 0),
	      col(q, 2), col(q, 1));
}

/* A segment that says nothing of it is needed would be deleted. */
static int check_live(struct check *c)
{
	struct store *st = c->st;
	int64_t before = c->found;
	int r = live_flush_locked(st);

	if (!r)
		r = each(c,
			 store_stmt(st, "SELECT s.seg,s.live,coalesce(x.n,0) FROM segment s LEFT "
					"JOIN (SELECT seg,sum(len) AS n FROM extent GROUP BY seg) "
					"x ON x.seg=s.seg WHERE s.live<>coalesce(x.n,0)"),
			 "segments", say_live);
	return r || c->found == before || !c->o->repair ? r : live_recount_locked(st);
}

static int check_segments(struct check *c)
{
	uint64_t after = 0;
	int more, r = 0;

	for (;;) {
		sqlite3_stmt *q = store_stmt(c->st, "SELECT seg," SEGMENT_COLS
						    ",kind,missing,length(data) FROM segment "
						    "WHERE seg>?1 ORDER BY seg LIMIT 1");
		struct seg_place place;
		int missing = 0, said, kind;

		if (!q)
			return -EIO;
		sqlite3_bind_int64(q, 1, (int64_t)after);
		more = store_step(c->st, q);
		if (more != 1) {
			sqlite3_reset(q);
			break;
		}
		after = (uint64_t)sqlite3_column_int64(q, 0);
		said = sqlite3_column_int(q, 9);
		kind = sqlite3_column_int(q, 8);
		if (segment_columns(q, 1, &place)) {
			found(c, "segment %llu: its row is damaged", (unsigned long long)after);
		} else if (kind == SEG_INLINE) {
			if (sqlite3_column_int64(q, 10) != place.geom.len)
				found(c, "segment %llu: its bytes are not as many as it says",
				      (unsigned long long)after);
		} else {
			if (seg_geom_check(&place.geom) ||
			    sqlite3_column_bytes(q, 7) != 2 * (place.geom.k + place.geom.m))
				found(c, "segment %llu: its layout is not possible",
				      (unsigned long long)after);
			for (int i = 0; i < place.geom.k + place.geom.m; i++)
				missing += place.node[i] == NODE_NONE;
			sqlite3_reset(q);
			if (missing != said && kind != SEG_CONDEMNED) {
				found(c,
				      "segment %llu: %d shards are on no node, its row says %d",
				      (unsigned long long)after, missing, said);
				if (c->o->repair)
					r = set_missing(c, after, missing);
			}
		}
		sqlite3_reset(q);
		if (r)
			return r;
	}
	kind_end(c, "segments");
	return more < 0 ? more : 0;
}

static void say_span(struct check *c, sqlite3_stmt *q)
{
	const void *map = sqlite3_column_blob(q, 2);
	size_t len = (size_t)sqlite3_column_bytes(q, 2);

	if (ranges_decode_check(map, len))
		found(c, "inode %llu: the map of its chunk %llu is damaged", col(q, 0),
		      col(q, 1));
}

static int count(struct check *c, sqlite3_stmt *q, uint64_t *n)
{
	*n = 0;
	int r = q ? store_step(c->st, q) : -EIO;

	if (r == 1)
		*n = (uint64_t)sqlite3_column_int64(q, 0);
	if (q)
		sqlite3_reset(q);
	return r < 0 ? r : 0;
}

/* What publishing left behind. */
static int check_publishing(struct check *c)
{
	struct store *st = c->st;
	uint64_t pending, staged, seq = 0, next;
	int r = count(c, store_stmt(st, "SELECT count(*) FROM pending"), &pending);

	if (!r)
		r = count(c, store_stmt(st, "SELECT count(*) FROM staged"), &staged);
	if (!r)
		r = count(c, store_stmt(st, "SELECT seq FROM pending"), &next);
	if (r)
		return r;
	if (store_get_u64(st, "log_seq", &seq))
		seq = 0;
	if (pending > 1)
		found(c, "%llu commits are pending; there can be one",
		      (unsigned long long)pending);
	if (pending == 1 && next != seq && next != seq + 1)
		found(c, "commit %llu is pending after commit %llu", (unsigned long long)next,
		      (unsigned long long)seq);
	/* Rows of a cut that a crash ended are no damage: the next start drops them. */
	if (staged && !pending && !st->cut_epoch && c->o->repair) {
		sqlite3_stmt *q = store_stmt(st, "DELETE FROM staged");

		r = q ? store_run(st, q) : -EIO;
	}
	if (st->published >= st->epoch)
		found(c, "epoch %llu is published and the present one is %llu",
		      (unsigned long long)st->published, (unsigned long long)st->epoch);
	kind_end(c, "publishing");
	return r;
}

/*
 * One larger file: what the map says is here must lie within the file and the cache file.
 * With repair, published bytes that are not here are no longer said to be: they are fetched
 * again when they are read.
 */
static int check_file_locked(struct check *c, struct inode *in)
{
	struct store *st = c->st;
	uint64_t pos = 0, start, end, here = 0;
	unsigned flags;
	struct stat s;
	char name[48];
	int r = datafile_load_locked(st, in);

	if (r == -EBADMSG)
		return 0; /* said of its map already */
	if (r)
		return r;
	cfile_name(in->ino, CF_MAIN, name);
	if (!fstatat(st->data->dir_fd, name, &s, AT_SYMLINK_NOFOLLOW))
		here = (uint64_t)s.st_size;
	else if (errno != ENOENT)
		return log_fail(-errno, "%s/data/%s: %s", st->dir, name, strerror(errno));
	struct account before = account_of(in);

	while ((r = ranges_next(in->spans, pos, UINT64_MAX, RG_HAVE, &start, &end, &flags)) ==
	       1) {
		pos = end;
		if (start >= in->size || end > in->size) {
			found(c, "inode %llu: bytes beyond its end are said to be here",
			      (unsigned long long)in->ino);
			if (c->o->repair)
				r = sent_drop_locked(st, in, HF_MAX(start, in->size), end);
			if (!r && c->o->repair)
				r = ranges_set(in->spans, HF_MAX(start, in->size),
					       end - HF_MAX(start, in->size), 0,
					       RG_HAVE | RG_DIRTY);
			end = HF_MIN(end, in->size);
		}
		if (r < 0)
			break;
		if (end <= here || end <= start)
			continue;
		bool dirty = flags & (RG_DIRTY | RG_CUT);

		start = HF_MAX(start, here);
		found(c, "inode %llu: bytes %llu to %llu are not in its cache file%s",
		      (unsigned long long)in->ino, (unsigned long long)start,
		      (unsigned long long)end, dirty ? " and were not published" : "");
		if (c->o->repair && !dirty)
			r = ranges_set(in->spans, start, end - start, 0, RG_HAVE);
		if (r < 0)
			break;
	}
	if (r >= 0 && c->o->repair && ranges_dirty(in->spans)) {
		account_settle_locked(st, in, before);
		inode_mark_locked(st, in, 0);
	}
	return r < 0 ? r : 0;
}

static int check_files(struct check *c)
{
	struct store *st = c->st;
	uint64_t ino = 0, done = 0, total = 0;
	int r;

	pthread_mutex_lock(&st->meta);
	r = count(c, store_stmt(st, "SELECT count(*) FROM inode WHERE (flags&1)<>0"), &total);
	pthread_mutex_unlock(&st->meta);
	while (!r) {
		struct inode *in;

		pthread_mutex_lock(&st->meta);
		sqlite3_stmt *q = store_stmt(st, "SELECT ino FROM inode WHERE (flags&1)<>0 AND "
						 "ino>?1 ORDER BY ino LIMIT 1");
		r = q ? 0 : -EIO;
		if (!r) {
			sqlite3_bind_int64(q, 1, (int64_t)ino);
			r = store_step(st, q);
			ino = r == 1 ? (uint64_t)sqlite3_column_int64(q, 0) : 0;
			sqlite3_reset(q);
			r = r < 0 ? r : 0;
		}
		if (!r && ino && !inode_get_locked(st, ino, &in)) {
			if (in->flags & INODE_LARGE)
				r = check_file_locked(c, in);
			inode_put_locked(st, in);
		}
		pthread_mutex_unlock(&st->meta);
		if (!ino)
			break;
		progress(c, "cache files", ++done, total);
	}
	kind_end(c, "cache files");
	return r;
}

/* Garbage collection may have come first: what it deletes is not missed. */
static bool needed(struct store *st, uint64_t seg)
{
	pthread_mutex_lock(&st->meta);
	sqlite3_stmt *q = store_stmt(st, "SELECT 1 FROM segment WHERE seg=?1 AND kind IN (1,2,5)");
	bool is = false;

	if (q) {
		sqlite3_bind_int64(q, 1, (int64_t)seg);
		is = store_step(st, q) == 1;
		sqlite3_reset(q);
	}
	pthread_mutex_unlock(&st->meta);
	return is;
}

static int check_shards(struct check *c, uint64_t seg, struct seg_place *place, uint64_t chg)
{
	struct store *st = c->st;
	bool present[EC_MAX] = {0}, bad[EC_MAX] = {0}, lost[EC_MAX] = {0};
	bool some = false;
	int r = check_segment(st->vol, place, c->o->deep, present, bad);

	if (r && !needed(st, seg))
		return 0;
	if (r < 0) {
		found(c, "segment %llu cannot be checked: %s", (unsigned long long)seg,
		      strerror(-r));
		return r == -ENOMEM ? r : 0;
	}
	for (unsigned i = 0; i < (unsigned)place->geom.k + place->geom.m; i++) {
		struct node *n = volume_node(st->vol, place->node[i]);

		if (present[i] && !bad[i])
			continue;
		if (place->node[i] == NODE_NONE)
			found(c, "segment %llu: shard %u is on no node",
			      (unsigned long long)seg, i);
		else if (bad[i])
			found(c, "segment %llu: shard %u on node %u is damaged",
			      (unsigned long long)seg, i, place->node[i]);
		else if (!n || !node_readable(n))
			found(c, "segment %llu: node %u with shard %u cannot be read",
			      (unsigned long long)seg, place->node[i], i);
		else
			found(c, "segment %llu: shard %u is not on node %u",
			      (unsigned long long)seg, i, place->node[i]);
		/* A node that is only away keeps its shards. */
		lost[i] = place->node[i] == NODE_NONE || (n && node_readable(n));
		some = some || lost[i];
	}
	if (c->o->deep) {
		bool well[EC_MAX];

		for (unsigned i = 0; i < EC_MAX; i++)
			well[i] = present[i] && !bad[i];
		r = scrub_well(st, place, well);
		if (r)
			return r;
	}
	if (some && c->o->mark && !c->o->repair) {
		r = scrub_mark(st, seg, place, lost);
		return HF_MIN(r, 0);
	}
	if (!some || !c->o->repair)
		return 0;
	r = repair_segment(st->vol, place, lost);
	if (r < 0)
		return 0;
	pthread_mutex_lock(&st->meta);
	r = segment_nodes_locked(st, seg, place, HF_MAX(st->epoch, chg));
	if (!r && st->dirtied)
		st->dirtied(st->dirtied_arg);
	pthread_mutex_unlock(&st->meta);
	return r;
}

static int check_nodes(struct check *c)
{
	struct store *st = c->st;
	uint64_t seg = 0, done = 0, total = 0, chg = 0;
	struct seg_place place;
	int r;

	pthread_mutex_lock(&st->meta);
	r = count(c, store_stmt(st, "SELECT count(*) FROM segment WHERE kind IN (1,2,5)"), &total);
	pthread_mutex_unlock(&st->meta);
	while (!r) {
		pthread_mutex_lock(&st->meta);
		sqlite3_stmt *q =
			store_stmt(st, "SELECT seg,chg," SEGMENT_COLS " FROM segment "
				       "WHERE seg>?1 AND kind IN (1,2,5) ORDER BY seg LIMIT 1");
		int more = -EIO;

		if (q) {
			sqlite3_bind_int64(q, 1, (int64_t)seg);
			more = store_step(st, q);
			if (more == 1) {
				seg = (uint64_t)sqlite3_column_int64(q, 0);
				chg = (uint64_t)sqlite3_column_int64(q, 1);
				if (segment_columns(q, 2, &place))
					more = 2;
			}
			sqlite3_reset(q);
		}
		pthread_mutex_unlock(&st->meta);
		if (more <= 0)
			return more;
		if (more == 1 && !seg_geom_check(&place.geom))
			r = check_shards(c, seg, &place, chg);
		progress(c, "segments", ++done, total);
	}
	return r;
}

static void log_found(void *arg, const char *what)
{
	found(arg, "%s", what);
}

/* Headers, rosters, the log: small, and all of the drive's names hang on them. */
static int check_log(struct check *c)
{
	struct logs_check lc = {.trust = c->o->trust,
				.mend = c->o->mark || c->o->repair,
				.missing = !c->o->in_use,
				.found = log_found,
				.arg = c};

	progress(c, "log", 0, 1);
	int64_t r = logs_check(c->st, &lc);
	kind_end(c, "copies of the log");
	return (int)HF_MIN(r, 0);
}

int64_t check_store(struct store *st, const struct check_opts *o)
{
	struct check c = {.st = st, .o = o};
	int r;

	pthread_mutex_lock(&st->meta);
	r = st->failed ? st->failed : store_flush_locked(st, false);
	if (!r)
		r = check_names(&c);
	if (!r)
		r = check_reach(&c);
	if (!r)
		r = check_contents(&c);
	if (!r)
		r = each(&c, store_stmt(st, "SELECT ino,chunk,map FROM span"), "maps",
			 say_span);
	if (!r)
		r = check_live(&c);
	if (!r)
		r = check_segments(&c);
	if (!r)
		r = check_publishing(&c);
	pthread_mutex_unlock(&st->meta);
	if (!r)
		r = check_files(&c);
	if (!r && o->nodes && st->vol)
		r = check_nodes(&c);
	kind_end(&c, "shards");
	if (!r && o->deep && st->vol && o->trust.owner_pk)
		r = check_log(&c);
	if (!r && (o->repair || o->mark))
		r = store_commit(st);
	return r ? r : c.found;
}
