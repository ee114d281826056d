/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Inodes, contents and segments go straight into their tables.  Names first gather by link
 * id in a temporary one: while commits are replayed over a snapshot that is newer than they
 * are, two creations of one name can be there at once.  In the end the later one holds; the
 * earlier had its end in a commit that the snapshot already contains.
 */
#include "cache/apply.h"

#include <stdlib.h>
#include "cache/cut.h"
#include "cache/member.h"
#include "cache/meta.h"

#define APPLIED_EPOCH 1 /* everything counts as published at this epoch */

struct apply {
	struct store *st;
	void (*progress)(void *arg, uint64_t records, uint64_t files);
	void *arg;
	uint64_t records, next_seg, next_inline;
	/* Local numbers of the segments of the stream that is being read. */
	uint64_t *seg;
	size_t seg_cnt, seg_cap;
	uint64_t max_ino, max_lid; /* counters of this device seen anywhere */
};

static int exec(struct store *st, const char *sql)
{
	if (sqlite3_exec(st->db, sql, NULL, NULL, NULL) == SQLITE_OK)
		return 0;
	return store_fail_locked(st, -EIO, "recovering: the database");
}

/* The first column of the first row, or `absent` when there is none. */
static int number(struct store *st, sqlite3_stmt *q, uint64_t absent, uint64_t *out)
{
	*out = absent;
	if (!q)
		return -EIO;
	int r = store_step(st, q);

	if (r == 1)
		*out = (uint64_t)sqlite3_column_int64(q, 0);
	sqlite3_reset(q);
	return r < 0 ? r : 0;
}

static int apply_begin_locked(struct apply *a)
{
	struct store *st = a->st;
	uint64_t rows;
	int r = number(st, store_stmt(st, "SELECT count(*) FROM (SELECT 1 FROM inode LIMIT 1)"),
		       0, &rows);

	if (!r && rows)
		r = log_fail(-EEXIST, "%s: there is a tree already", st->dir);
	if (!r)
		r = exec(st, "CREATE TEMP TABLE IF NOT EXISTS hist_link("
			     "lid INTEGER PRIMARY KEY, parent INTEGER NOT NULL,"
			     "ino INTEGER NOT NULL, mode INTEGER NOT NULL, name BLOB NOT NULL,"
			     "lamport INTEGER NOT NULL, device INTEGER NOT NULL)");
	if (!r)
		r = number(st,
			   store_stmt(st, "SELECT coalesce(max(seg),0)+1 FROM segment WHERE "
					  "seg<1099511627776"),
			   1, &a->next_seg);
	if (!r)
		r = number(st, store_stmt(st, "SELECT coalesce(max(seg),0)+1 FROM segment"), 1,
			   &a->next_inline);
	a->next_inline = HF_MAX(a->next_inline, SEG_INLINE_BASE);
	return r;
}

int apply_new(struct apply **out, struct store *st,
	      void (*progress)(void *arg, uint64_t records, uint64_t files), void *arg)
{
	struct apply *a = calloc(1, sizeof *a);

	*out = NULL;
	if (!a)
		return -ENOMEM;
	a->st = st;
	a->progress = progress;
	a->arg = arg;
	pthread_mutex_lock(&st->meta);
	int r = apply_begin_locked(a);

	pthread_mutex_unlock(&st->meta);
	if (r) {
		apply_free(a);
		return r;
	}
	*out = a;
	return 0;
}

void apply_free(struct apply *a)
{
	if (!a)
		return;
	free(a->seg);
	free(a);
}

static void saw(const struct apply *a, uint64_t number_seen, uint64_t *max)
{
	uint64_t counter = number_seen & (((uint64_t)1 << DEVICE_SHIFT) - 1);

	if (number_seen >> DEVICE_SHIFT == a->st->device && counter > *max)
		*max = counter;
}

static uint32_t xattr_flags(const struct rec_inode *i)
{
	struct rd r = rd_over(i->xattrs, i->xattrs_len);
	const uint8_t *name, *value;
	uint8_t name_len;
	uint32_t value_len, flags = 0;

	while (rec_xattr_next(&r, &name, &name_len, &value, &value_len) == 1)
		flags |= xattr_flag((const char *)name, name_len);
	return flags;
}

static int apply_xattrs(struct apply *a, const struct rec_inode *i)
{
	struct rd r = rd_over(i->xattrs, i->xattrs_len);
	const uint8_t *name, *value;
	uint8_t name_len;
	uint32_t value_len;
	int more;

	while ((more = rec_xattr_next(&r, &name, &name_len, &value, &value_len)) == 1) {
		sqlite3_stmt *q = store_stmt(
			a->st, "INSERT OR REPLACE INTO xattr(ino,name,value) VALUES(?1,?2,?3)");

		if (!q)
			return -EIO;
		sqlite3_bind_int64(q, 1, (int64_t)i->ino);
		sqlite3_bind_blob(q, 2, name, name_len, SQLITE_STATIC);
		sqlite3_bind_blob64(q, 3, value_len ? (const void *)value : "", value_len,
				    SQLITE_STATIC);
		int err = store_run(a->st, q);

		if (err)
			return err;
	}
	return more;
}

static int drop_xattrs(struct apply *a, uint64_t ino)
{
	sqlite3_stmt *q = store_stmt(a->st, "DELETE FROM xattr WHERE ino=?1");

	if (q)
		sqlite3_bind_int64(q, 1, (int64_t)ino);
	return store_run(a->st, q);
}

static int apply_inode(struct apply *a, const struct rec_inode *i)
{
	uint32_t flags = xattr_flags(i);
	uint64_t before;
	sqlite3_stmt *q = store_stmt(a->st, "SELECT count(*) FROM inode WHERE ino=?1");

	saw(a, i->ino, &a->max_ino);
	if (q)
		sqlite3_bind_int64(q, 1, (int64_t)i->ino);
	int r = number(a->st, q, 0, &before);

	if (!r && before)
		r = drop_xattrs(a, i->ino);
	if (r)
		return r;
	if (S_ISREG(i->mode) && i->size > SMALL_MAX)
		flags |= INODE_LARGE;
	else if (!i->size)
		flags |= INODE_SMALL_HAVE;
	q = store_stmt(
		a->st,
		"INSERT OR REPLACE INTO inode(ino,mode,uid,gid,nlink,rdev,size,atime,mtime,"
		"ctime,btime,parent,flags,chg,dchg,born,mask,target) VALUES(?1,?2,?3,?4,?5,"
		"?6,?7,?8,?9,?10,?11,?12,?13,1,1,1,0,?14)");
	if (!q)
		return -EIO;
	sqlite3_bind_int64(q, 1, (int64_t)i->ino);
	sqlite3_bind_int64(q, 2, i->mode);
	sqlite3_bind_int64(q, 3, i->uid);
	sqlite3_bind_int64(q, 4, i->gid);
	sqlite3_bind_int64(q, 5, i->nlink);
	sqlite3_bind_int64(q, 6, (int64_t)i->rdev);
	sqlite3_bind_int64(q, 7, (int64_t)i->size);
	sqlite3_bind_int64(q, 8, i->atime_ns);
	sqlite3_bind_int64(q, 9, i->mtime_ns);
	sqlite3_bind_int64(q, 10, i->ctime_ns);
	sqlite3_bind_int64(q, 11, i->btime_ns);
	sqlite3_bind_int64(q, 12, (int64_t)i->parent);
	sqlite3_bind_int64(q, 13, flags);
	if (i->target_len)
		sqlite3_bind_blob(q, 14, i->target, i->target_len, SQLITE_STATIC);
	r = store_run(a->st, q);
	a->st->files += !r && !before;
	return r ? r : apply_xattrs(a, i);
}

static int apply_gone(struct apply *a, uint64_t ino)
{
	saw(a, ino, &a->max_ino);
	sqlite3_stmt *q = store_stmt(a->st, "DELETE FROM inode WHERE ino=?1");

	if (q)
		sqlite3_bind_int64(q, 1, (int64_t)ino);
	int r = store_run(a->st, q);

	if (!r)
		a->st->files -= (uint64_t)sqlite3_changes(a->st->db);
	if (!r)
		r = drop_xattrs(a, ino);
	return r ? r : extent_drop_locked(a->st, ino, 0, UINT64_MAX);
}

static int apply_link(struct apply *a, struct rec_stamp s, const struct rec_link *l)
{
	saw(a, l->ino, &a->max_ino);
	saw(a, l->lid, &a->max_lid);
	sqlite3_stmt *q = store_stmt(
		a->st,
		"INSERT OR REPLACE INTO hist_link(lid,parent,ino,mode,name,lamport,device) "
		"VALUES(?1,?2,?3,?4,?5,?6,?7)");

	if (!q)
		return -EIO;
	sqlite3_bind_int64(q, 1, (int64_t)l->lid);
	sqlite3_bind_int64(q, 2, (int64_t)l->parent);
	sqlite3_bind_int64(q, 3, (int64_t)l->ino);
	sqlite3_bind_int64(q, 4, l->mode & S_IFMT);
	sqlite3_bind_blob(q, 5, l->name, l->name_len, SQLITE_STATIC);
	sqlite3_bind_int64(q, 6, (int64_t)s.lamport);
	sqlite3_bind_int64(q, 7, s.device);
	return store_run(a->st, q);
}

static int apply_unlink(struct apply *a, uint64_t lid)
{
	saw(a, lid, &a->max_lid);
	sqlite3_stmt *q = store_stmt(a->st, "DELETE FROM hist_link WHERE lid=?1");

	if (q)
		sqlite3_bind_int64(q, 1, (int64_t)lid);
	return store_run(a->st, q);
}

static int introduce(struct apply *a, uint64_t seg)
{
	if (a->seg_cnt == a->seg_cap) {
		size_t cap = a->seg_cap ? 2 * a->seg_cap : 64;
		uint64_t *p = reallocarray(a->seg, cap, sizeof *p);

		if (!p)
			return -ENOMEM;
		a->seg = p;
		a->seg_cap = cap;
	}
	a->seg[a->seg_cnt++] = seg;
	return 0;
}

/* The local number of a segment, known already or not. */
static int apply_segment(struct apply *a, const struct seg_place *place, const struct buf *data)
{
	sqlite3_stmt *q = store_stmt(a->st, "SELECT seg FROM segment WHERE id=?1");
	uint64_t seg;

	if (q)
		sqlite3_bind_blob(q, 1, place->geom.id.b, SEG_LEN, SQLITE_STATIC);
	int r = number(a->st, q, 0, &seg);

	if (r)
		return r;
	if (seg) {
		if (!data)
			r = segment_nodes_locked(a->st, seg, place, APPLIED_EPOCH);
		return r ? r : introduce(a, seg);
	}
	seg = data ? a->next_inline++ : a->next_seg++;
	r = segment_insert_locked(a->st, seg, place, data ? SEG_INLINE : SEG_DATA, 0,
				  APPLIED_EPOCH, data);
	return r ? r : introduce(a, seg);
}

static int apply_inline(struct apply *a, const struct rec_inline *inl)
{
	struct volume *v = a->st->vol;
	struct seg_place place = {.geom = {.id = inl->id,
					   .k = v ? (uint8_t)v->k : 1,
					   .m = v ? (uint8_t)v->m : 0,
					   .cell_log2 = CELL_LOG2_MIN,
					   .len = inl->len}};
	struct buf data = {.p = (uint8_t *)(uintptr_t)inl->data, .len = inl->len};

	return apply_segment(a, &place, &data);
}

static int segment_len(struct apply *a, uint64_t seg, uint64_t *len)
{
	sqlite3_stmt *q = store_stmt(a->st, "SELECT len FROM segment WHERE seg=?1");

	if (q)
		sqlite3_bind_int64(q, 1, (int64_t)seg);
	return number(a->st, q, 0, len);
}

static int apply_content(struct apply *a, const struct rec_content *c)
{
	uint64_t seg = UINT64_MAX, len = 0;
	int r = 0;

	for (uint32_t i = 0; !r && i < c->drop_cnt; i++) {
		struct rec_range d = rec_content_drop(c, i);

		r = extent_drop_locked(a->st, c->ino, d.off,
				       d.len == UINT64_MAX ? UINT64_MAX : d.off + d.len);
	}
	for (uint32_t i = 0; !r && i < c->extent_cnt; i++) {
		struct rec_extent e = rec_content_extent(c, i);

		if (e.seg >= a->seg_cnt)
			return log_fail(-EBADMSG,
					"a record of contents names segment %u of %zu", e.seg,
					a->seg_cnt);
		if (seg != a->seg[e.seg]) {
			seg = a->seg[e.seg];
			r = segment_len(a, seg, &len);
		}
		if (!r && (e.seg_off > len || e.len > len - e.seg_off))
			return log_fail(-EBADMSG,
					"a record of contents goes beyond its segment");
		if (!r)
			r = extent_put_locked(a->st, c->ino,
					      &(struct extent){.off = e.off,
							       .len = e.len,
							       .seg = seg,
							       .seg_off = e.seg_off});
	}
	return r;
}

static int apply_node(struct apply *a, const struct rec_node *n)
{
	sqlite3_stmt *q = store_stmt(
		a->st, "INSERT OR REPLACE INTO node(number,url,member,chg) VALUES(?1,?2,?3,1)");

	if (!q)
		return -EIO;
	sqlite3_bind_int64(q, 1, n->number);
	sqlite3_bind_text(q, 2, (const char *)n->url, n->url_len, SQLITE_STATIC);
	sqlite3_bind_int(q, 3, n->member);
	return store_run(a->st, q);
}

static int apply_one(struct apply *a, const struct record *rec)
{
	switch (rec->type) {
	case REC_INODE:
		return apply_inode(a, &rec->inode);
	case REC_INODE_GONE:
		return apply_gone(a, rec->gone_ino);
	case REC_LINK:
		return apply_link(a, rec->stamp, &rec->link);
	case REC_UNLINK:
		return apply_unlink(a, rec->link.lid);
	case REC_CONTENT:
		return apply_content(a, &rec->content);
	case REC_SEGMENT:
		return apply_segment(a, &rec->segment, NULL);
	case REC_INLINE:
		return apply_inline(a, &rec->inl);
	case REC_NODE:
		return apply_node(a, &rec->node);
	case REC_DEVICE:
		return member_device_locked(a->st, &rec->device, 1);
	}
	return -EBADMSG;
}

static int on_begin(void *arg, const struct hist_head *head)
{
	struct apply *a = arg;

	(void)head;
	a->seg_cnt = 0;
	return 0;
}

static int on_records(void *arg, struct rd *r)
{
	struct apply *a = arg;
	struct record rec;
	int more = 0, err = 0;

	pthread_mutex_lock(&a->st->meta);
	while (!err && (more = rec_next(r, &rec)) == 1) {
		err = apply_one(a, &rec);
		a->records++;
	}
	uint64_t files = a->st->files;

	pthread_mutex_unlock(&a->st->meta);
	if (a->progress)
		a->progress(a->arg, a->records, files);
	if (more < 0)
		return log_fail(more, "record %llu of the history cannot be read",
				(unsigned long long)a->records + 1);
	return err;
}

static int on_end(void *arg, const struct hist_head *head)
{
	(void)arg;
	(void)head;
	return 0;
}

const struct hist_cb apply_cb = {.begin = on_begin, .records = on_records, .end = on_end};

/* Of several creations of one name the latest stays. */
static int drop_losers(struct apply *a)
{
	uint64_t losers;
	int r = exec(a->st, "DELETE FROM hist_link WHERE lid IN (SELECT lid FROM (SELECT lid,"
			    "row_number() OVER (PARTITION BY parent,name ORDER BY lamport DESC,"
			    "device DESC,lid DESC) AS place FROM hist_link) WHERE place>1)");

	losers = (uint64_t)sqlite3_changes(a->st->db);
	if (!r && losers)
		log_warn("%llu names were made twice in one directory: the later one holds",
			 (unsigned long long)losers);
	return r;
}

/* Every name must lead from a directory to an inode of its type. */
static int check_names(struct apply *a)
{
	uint64_t bad;
	int r = number(
		a->st,
		store_stmt(a->st,
			   "SELECT count(*) FROM hist_link l LEFT JOIN inode i ON i.ino=l.ino "
			   "LEFT JOIN inode p ON p.ino=l.parent WHERE i.ino IS NULL OR "
			   "p.ino IS NULL OR (p.mode&61440)<>16384 OR "
			   "(i.mode&61440)<>l.mode"),
		0, &bad);

	if (!r && bad)
		r = log_fail(-EBADMSG, "the tree is not whole: %llu names without an inode",
			     (unsigned long long)bad);
	if (!r)
		r = number(a->st,
			   store_stmt(a->st, "SELECT count(*) FROM inode WHERE ino=1 AND "
					     "(mode&61440)=16384"),
			   0, &bad);
	if (!r && !bad)
		r = log_fail(-EBADMSG, "the tree is not whole: there is no root directory");
	return r;
}

static int insert_names(struct apply *a)
{
	sqlite3_stmt *q = store_stmt(
		a->st, "SELECT parent,name,ino,lid,mode FROM hist_link ORDER BY lid");
	int more = 0, r = 0;

	if (!q)
		return -EIO;
	while (!r && (more = store_step(a->st, q)) == 1)
		r = dirent_add_locked(
			a->st, (uint64_t)sqlite3_column_int64(q, 0), sqlite3_column_blob(q, 1),
			(size_t)sqlite3_column_bytes(q, 1),
			(uint64_t)sqlite3_column_int64(q, 2),
			(uint64_t)sqlite3_column_int64(q, 3),
			(uint32_t)sqlite3_column_int64(q, 4), APPLIED_EPOCH, false, NULL);
	sqlite3_reset(q);
	return r ? r : more < 0 ? more : 0;
}

/*
 * Link counts follow from the names, a directory's parent from its name.  What has no name
 * (it was open and unlinked at the cut) goes, with its contents.
 */
static int settle_links(struct apply *a)
{
	uint64_t files;
	int r = exec(
		a->st,
		"CREATE TEMP TABLE hist_cnt(ino INTEGER PRIMARY KEY, n INTEGER, parent "
		"INTEGER);"
		"INSERT INTO hist_cnt SELECT ino,count(*),max(parent) FROM hist_link "
		"GROUP BY ino;"
		"DELETE FROM inode WHERE ino<>1 AND ino NOT IN (SELECT ino FROM hist_cnt);"
		"UPDATE inode SET nlink=(SELECT n FROM hist_cnt c WHERE c.ino=inode.ino) "
		"WHERE (mode&61440)<>16384 AND "
		"nlink<>(SELECT n FROM hist_cnt c WHERE c.ino=inode.ino);"
		"UPDATE inode SET parent=(SELECT c.parent FROM hist_cnt c WHERE "
		"c.ino=inode.ino) WHERE (mode&61440)=16384 AND ino<>1;"
		"CREATE TEMP TABLE hist_sub(ino INTEGER PRIMARY KEY, n INTEGER);"
		"INSERT INTO hist_sub SELECT parent,count(*) FROM hist_link WHERE mode=16384 "
		"GROUP BY parent;"
		"UPDATE inode SET nlink=2+coalesce((SELECT n FROM hist_sub s WHERE "
		"s.ino=inode.ino),0) WHERE (mode&61440)=16384;"
		"DELETE FROM extent WHERE ino NOT IN (SELECT ino FROM inode);"
		"DELETE FROM xattr WHERE ino NOT IN (SELECT ino FROM inode);"
		"DROP TABLE hist_cnt;DROP TABLE hist_sub");

	if (!r)
		r = number(a->st, store_stmt(a->st, "SELECT count(*) FROM inode"), 0, &files);
	if (!r)
		a->st->files = files;
	return r;
}

/* Each directory has one name; and none is its own ancestor, or it could not be reached. */
static int check_reach(struct apply *a)
{
	uint64_t all, reached;
	int r = number(a->st,
		       store_stmt(a->st, "SELECT count(*) FROM inode WHERE (mode&61440)=16384"),
		       0, &all);

	if (!r)
		r = number(
			a->st,
			store_stmt(
				a->st,
				"WITH RECURSIVE d(ino) AS (SELECT 1 UNION SELECT l.ino FROM d "
				"JOIN dirent l ON l.parent=d.ino WHERE l.mode=16384) "
				"SELECT count(*) FROM d"),
			0, &reached);
	if (!r && all != reached)
		r = log_fail(-EBADMSG,
			     "the tree is not whole: %llu of %llu directories are reached from "
			     "the root",
			     (unsigned long long)reached, (unsigned long long)all);
	return r;
}

static int put_numbers(struct apply *a, const struct hist_state *hs)
{
	struct store *st = a->st;
	int r = store_put_u64(st, "epoch", APPLIED_EPOCH + 1);

	if (!r)
		r = store_put_u64(st, "published", APPLIED_EPOCH);
	if (!r)
		r = store_put_u64(st, "log_lamport", hs->lamport);
	if (!r)
		r = store_put_u64(st, "log_time", (uint64_t)hs->time_ns);
	if (!r && hs->snap_device == st->device)
		r = store_put_u64(st, "snap", hs->snap);
	if (!r && a->max_ino >= st->next_ino) {
		st->next_ino = st->ino_safe = st->ino_reserved = a->max_ino + 1;
		r = store_put_u64(st, "next_ino", st->next_ino);
	}
	if (!r && a->max_lid >= st->next_lid) {
		st->next_lid = st->lid_safe = st->lid_reserved = a->max_lid + 1;
		r = store_put_u64(st, "next_lid", st->next_lid);
	}
	st->epoch = APPLIED_EPOCH + 1;
	st->published = APPLIED_EPOCH;
	return r;
}

static int put_chains(struct apply *a, const struct hist_state *hs)
{
	struct store *st = a->st;
	int r = 0;

	for (uint32_t i = 0; !r && i < hs->seen_cnt; i++) {
		const struct hist_seen *d = &hs->seen[i];

		if (d->device == st->device) {
			r = store_put_u64(st, "log_seq", d->seq);
			if (!r)
				r = store_put_blob(st, "log_hash", d->hash, HASH_LEN);
			continue;
		}
		/* One without a record of its own keeps its place in the chain all the same. */
		sqlite3_stmt *q = store_stmt(
			st, "INSERT INTO device(number,role,ed_pk,cert,seq,hash,chg) "
			    "VALUES(?1,3,x'',x'',?2,?3,1) ON CONFLICT(number) DO UPDATE SET "
			    "seq=excluded.seq,hash=excluded.hash");

		if (!q)
			return -EIO;
		sqlite3_bind_int64(q, 1, d->device);
		sqlite3_bind_int64(q, 2, (int64_t)d->seq);
		sqlite3_bind_blob(q, 3, d->hash, HASH_LEN, SQLITE_STATIC);
		r = store_run(st, q);
	}
	return r;
}

/* Segments that hold records are kept whole like the others. */
static int put_parts(struct apply *a, const struct hist_state *hs)
{
	int r = 0;

	for (size_t i = 0; !r && i < hs->part_cnt; i++) {
		sqlite3_stmt *q = store_stmt(a->st, "SELECT count(*) FROM segment WHERE id=?1");
		uint64_t known;

		if (q)
			sqlite3_bind_blob(q, 1, hs->parts[i].geom.id.b, SEG_LEN, SQLITE_STATIC);
		r = number(a->st, q, 0, &known);
		if (!r && !known)
			r = segment_insert_locked(a->st, a->next_seg++, &hs->parts[i],
						  SEG_RECORDS, 0, APPLIED_EPOCH, NULL);
	}
	return r;
}

/* What came and was replaced by what came later; its shards may be gone already. */
static int condemn(struct apply *a)
{
	int r = live_recount_locked(a->st);
	sqlite3_stmt *q = r ? NULL
			    : store_stmt(a->st, "UPDATE segment SET kind=4,missing=0,since=?1 "
						"WHERE kind=1 AND live=0");

	if (r)
		return r;
	if (q)
		sqlite3_bind_int64(q, 1, realtime_ns() / 1000000);
	return store_run(a->st, q);
}

int apply_finish(struct apply *a, const struct hist_state *hs)
{
	struct store *st = a->st;

	pthread_mutex_lock(&st->meta);
	int r = drop_losers(a);

	if (!r)
		r = check_names(a);
	if (!r)
		r = insert_names(a);
	if (!r)
		r = settle_links(a);
	if (!r)
		r = check_reach(a);
	if (!r)
		r = put_chains(a, hs);
	if (!r)
		r = put_parts(a, hs);
	if (!r)
		r = put_numbers(a, hs);
	if (!r)
		r = condemn(a);
	/* The statement that walked the names must not hold its table. */
	if (!r)
		r = exec(st, "DELETE FROM hist_link");
	pthread_mutex_unlock(&st->meta);
	return r ? r : store_commit(st);
}
