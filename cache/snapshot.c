/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * A snapshot is read from the live database in slices while changes and cuts go on, so what
 * it holds is of no single instant.  It is right all the same together with the commits
 * (from, to], where `from` is the last commit applied when the scan began and `to` one whose
 * cut was made after the scan ended:
 *
 *   What is scanned is, for every attribute and every byte of a file, the state of some
 *   moment between `from` and the end of the scan.  Records are states, and replaying
 *   commits i..j over the state of j gives the state of j again: each byte range is what its
 *   last writer of i..j says, or was not touched.  So replaying from+1 .. over any of these
 *   moments gives the state of `to`, for all that was published.
 *   What was scanned but not published at that moment (a size without its bytes, a hole just
 *   punched) was dirty at the end of the scan or published in between; either way a commit
 *   up to `to` has the whole of it.
 *   What came into being after `from` (born, or for names chg, above the published epoch of
 *   that moment) is left out: if it lives it is in (from, to], and if it goes before it was
 *   published there will never be a record that takes it away again.
 *   What was published at `from` and goes during the scan leaves a record in (from, to].
 *
 * Overlapping extents of two slices of one file are in two records, the newer one later.
 */
#include <stdlib.h>
#include "cache/member.h"
#include "cache/cut.h"

#define SNAPSHOT_EVERY 1000
#define SNAPSHOT_MIN   ((uint64_t)4 << 20)
#define SLICE	       500u
#define SNAP_VERSION   1
#define LATE_MAX       64u /* what a device sends after it was taken over, at most */

struct snapshot {
	struct publisher *p;
	struct store *st;
	struct stream s;
	uint64_t number, from, to, epoch, lamport;
	unsigned slice;
	uint8_t hash[HASH_LEN]; /* of commit `from` */
	struct content ct;
};

static uint64_t u64_or_0(struct store *st, const char *k)
{
	uint64_t v = 0;

	return store_get_u64(st, k, &v) ? 0 : v;
}

bool snapshot_due(struct publisher *p)
{
	struct store *st = p->st;
	unsigned every = p->opts.snapshot_every ? p->opts.snapshot_every : SNAPSHOT_EVERY;

	pthread_mutex_lock(&st->meta);
	uint64_t commits = u64_or_0(st, "log_seq") - u64_or_0(st, "snap_from");
	uint64_t bytes = u64_or_0(st, "log_since"), last = u64_or_0(st, "snap_len");

	pthread_mutex_unlock(&st->meta);
	/*
	 * What is published of a held file in a former state is not in the tables any more.  The
	 * log must not grow for ever, though: in the end the cuts of a snapshot are whole.
	 */
	pthread_mutex_lock(&p->lock);
	bool old = p->held_old;
	pthread_mutex_unlock(&p->lock);
	if (old && commits < every + every / 2)
		return false;
	return commits >= every || (commits && bytes > HF_MAX(last / 2, SNAPSHOT_MIN));
}

struct extents {
	struct snapshot *n;
	uint64_t pos;
	unsigned left;
	bool more;
	int err;
};

static int one_extent(void *arg, const struct extent *e)
{
	struct extents *x = arg;
	uint64_t skip = e->off < x->pos ? x->pos - e->off : 0;
	uint32_t index;

	if (!x->left) {
		x->more = true;
		return 1;
	}
	x->left--;
	if (skip >= e->len)
		return 0;
	x->err = stream_segment_locked(&x->n->s, e->seg, &index);
	if (x->err)
		return 1;
	content_add(&x->n->ct, &(struct rec_extent){.off = e->off + skip,
						    .len = (uint32_t)(e->len - skip),
						    .seg = index,
						    .seg_off = e->seg_off + (uint32_t)skip});
	x->pos = e->off + e->len;
	return 0;
}

/*
 * Inodes after *ino, and their extents; *pos > 0: the rest of those of *ino.  Returns 1 while
 * there is more.  The records of extents are gathered apart: the segments they introduce
 * come before them in the stream.
 */
static int scan_inodes(struct snapshot *n, uint64_t *ino, uint64_t *pos, struct buf *content)
{
	unsigned left = n->slice;
	int r = 0;

	while (!r && left) {
		sqlite3_stmt *q = *pos ? store_stmt(n->st, "SELECT " INODE_COLS
							   ",born FROM inode WHERE ino=?1")
				       : store_stmt(n->st, "SELECT " INODE_COLS
							   ",born FROM inode WHERE ino>?1 "
							   "ORDER BY ino LIMIT 1");
		struct rec_inode rec;
		uint32_t flags;
		uint64_t dchg, born;

		if (!q)
			return -EIO;
		sqlite3_bind_int64(q, 1, (int64_t)*ino);
		r = store_step(n->st, q);
		if (r != 1) {
			sqlite3_reset(q);
			if (r == 0 && *pos) {
				*pos = 0;
				continue;
			}
			return r;
		}
		inode_columns(q, &rec, &flags, &dchg);
		born = (uint64_t)sqlite3_column_int64(q, 16);
		*ino = rec.ino;
		left--;
		r = 0;
		if (born > n->epoch || !rec.nlink) {
			*pos = 0;
			sqlite3_reset(q);
			continue;
		}
		if (!*pos)
			r = stream_inode_locked(&n->s, &rec, flags);
		sqlite3_reset(q);
		if (r || !S_ISREG(rec.mode))
			continue;
		struct extents x = {.n = n, .pos = *pos, .left = HF_MAX(left, 1u)};

		content_begin(&n->ct, content, n->s.stamp, rec.ino, rec.size);
		r = extent_each_locked(n->st, rec.ino, *pos, UINT64_MAX, one_extent, &x);
		content_end(&n->ct);
		left = HF_MIN(left, x.left);
		*pos = x.more ? x.pos : 0;
		r = x.err ? x.err : r < 0 ? r : content->err;
	}
	return r ? r : 1;
}

static int scan_names(struct snapshot *n, uint64_t *parent, int64_t *hash, struct buf *name)
{
	sqlite3_stmt *q = store_stmt(
		n->st, "SELECT parent,hash,name,lid,ino,mode,chg FROM dirent WHERE "
		       "(parent,hash,name)>(?1,?2,?3) ORDER BY parent,hash,name LIMIT ?4");
	struct buf last = {0};
	unsigned cnt = 0;
	int more;

	if (!q)
		return -EIO;
	sqlite3_bind_int64(q, 1, (int64_t)*parent);
	sqlite3_bind_int64(q, 2, *hash);
	sqlite3_bind_blob64(q, 3, name->len ? (const void *)name->p : "", name->len,
			    SQLITE_STATIC);
	sqlite3_bind_int64(q, 4, n->slice);
	while ((more = store_step(n->st, q)) == 1) {
		struct rec_link l = {.lid = (uint64_t)sqlite3_column_int64(q, 3),
				     .parent = (uint64_t)sqlite3_column_int64(q, 0),
				     .ino = (uint64_t)sqlite3_column_int64(q, 4),
				     .mode = (uint32_t)sqlite3_column_int64(q, 5) & S_IFMT,
				     .name = sqlite3_column_blob(q, 2),
				     .name_len = (uint8_t)sqlite3_column_bytes(q, 2)};

		cnt++;
		*parent = l.parent;
		*hash = sqlite3_column_int64(q, 1);
		buf_reset(&last);
		buf_put(&last, l.name, l.name_len);
		if ((uint64_t)sqlite3_column_int64(q, 6) <= n->epoch)
			rec_put_link(&n->s.rec, n->s.stamp, &l);
	}
	sqlite3_reset(q);
	if (cnt) {
		buf_release(name);
		*name = last;
	}
	return more < 0 ? more : last.err ? last.err : cnt > 0;
}

static int scan(struct snapshot *n)
{
	struct buf content = {0}, name = {0};
	uint64_t ino = 0, pos = 0, parent = 0;
	int64_t hash = 0;
	int r;

	do {
		pthread_mutex_lock(&n->st->meta);
		r = scan_inodes(n, &ino, &pos, &content);
		pthread_mutex_unlock(&n->st->meta);
		int err = r < 0 ? r : stream_push(&n->s, 0);

		if (!err && content.len)
			err = rec_writer_add(n->s.w, &content);
		if (!err && publish_stopping(n->p))
			err = -ECANCELED;
		if (!err)
			err = publish_stage(n->p, "scan");
		r = err ? err : r;
	} while (r == 1);
	if (!r) {
		do {
			pthread_mutex_lock(&n->st->meta);
			r = scan_names(n, &parent, &hash, &name);
			pthread_mutex_unlock(&n->st->meta);
			int err = r < 0 ? r : stream_push(&n->s, 0);

			if (!err && publish_stopping(n->p))
				err = -ECANCELED;
			if (!err)
				err = publish_stage(n->p, "scan");
			r = err ? err : r;
		} while (r == 1);
	}
	pthread_mutex_lock(&n->st->meta);
	if (!r)
		r = stream_nodes_locked(&n->s, 0);
	if (!r)
		r = stream_devices_locked(&n->s, 0);
	pthread_mutex_unlock(&n->st->meta);
	buf_release(&content);
	buf_release(&name);
	return r ? r : stream_push(&n->s, 0);
}

static int scan_begin(struct snapshot *n)
{
	struct store *st = n->st;
	struct buf hash = {0};
	int r;

	pthread_mutex_lock(&st->meta);
	/* What an in-memory inode knows and a commit has said must not be older in its row. */
	r = store_flush_locked(st, false);
	n->epoch = st->published;
	n->from = u64_or_0(st, "log_seq");
	n->lamport = u64_or_0(st, "log_lamport");
	n->number = u64_or_0(st, "snap") + 1;
	if (!r)
		r = store_get_blob(st, "log_hash", &hash);
	pthread_mutex_unlock(&st->meta);
	if (!r && hash.len == HASH_LEN)
		memcpy(n->hash, hash.p, HASH_LEN);
	else if (!r)
		r = -EBADMSG;
	buf_release(&hash);
	return r;
}

static int by_device(const void *a, const void *b)
{
	return ((const struct hist_seen *)a)->device - ((const struct hist_seen *)b)->device;
}

/* The chain ends that the snapshot stands on: every device's, ours being `from`. */
static int head_of(struct snapshot *n, struct hist_head *h)
{
	struct store *st = n->st;

	*h = (struct hist_head){.snapshot = true,
				.device = st->device,
				.seq = n->number,
				.lamport = n->lamport,
				.time_ns = realtime_ns(),
				.snap_to = n->to,
				.seen = calloc(1, sizeof *h->seen)};
	if (!h->seen)
		return -ENOMEM;
	h->seen[h->seen_cnt++] = (struct hist_seen){.device = st->device, .seq = n->from};
	memcpy(h->seen[0].hash, n->hash, HASH_LEN);
	pthread_mutex_lock(&st->meta);
	n->to = u64_or_0(st, "log_seq");
	h->snap_to = n->to;
	h->lamport = u64_or_0(st, "log_lamport");
	int r = member_seen_locked(st, h);
	pthread_mutex_unlock(&st->meta);
	qsort(h->seen, h->seen_cnt, sizeof *h->seen, by_device);
	return r;
}

/* Kept until it is on the nodes: the object below one name never changes. */
static int keep_object(struct snapshot *n, const struct buf *obj, const struct seg_place *parts,
		       size_t part_cnt)
{
	struct store *st = n->st;
	struct buf head = {0};
	uint64_t len = obj->len;
	int r = 0;

	pthread_mutex_lock(&st->meta);
	sqlite3_stmt *q = store_stmt(
		st, "SELECT coalesce(max(seg),0) FROM segment WHERE seg<1099511627776");
	uint64_t seg = 0;

	if (!q || store_step(st, q) < 0)
		r = -EIO;
	else
		seg = (uint64_t)sqlite3_column_int64(q, 0);
	if (q)
		sqlite3_reset(q);
	/* Numbers are the publish thread's to give; it draws under meta as well. */
	for (size_t i = 0; !r && i < part_cnt; i++) {
		seg = HF_MAX(seg + 1, n->p->next_seg);
		n->p->next_seg = seg + 1;
		len += parts[i].geom.len;
		r = segment_insert_locked(st, seg, &parts[i], SEG_RECORDS, n->from,
					  st->published, NULL);
	}
	buf_u8(&head, SNAP_VERSION);
	buf_u64(&head, n->number);
	buf_u64(&head, n->from);
	buf_u64(&head, len);
	r = r ? r : head.err;
	if (!r)
		r = store_put_blob(st, "snap_head", head.p, head.len);
	if (!r)
		r = store_put_blob(st, "snap_object", obj->p, obj->len);
	pthread_mutex_unlock(&st->meta);
	buf_release(&head);
	return r ? r : store_commit(st);
}

/* Segments with records of commits and snapshots that are trimmed: garbage.c deletes them. */
static int trim_parts(struct publisher *p, uint64_t before)
{
	struct store *st = p->st;

	pthread_mutex_lock(&st->meta);
	sqlite3_stmt *q = store_stmt(st, "UPDATE segment SET kind=4,missing=0,chg=0,seq=0,"
					 "since=?2 WHERE kind=2 AND seq<?1");
	if (q) {
		sqlite3_bind_int64(q, 1, (int64_t)before);
		sqlite3_bind_int64(q, 2, realtime_ns() / 1000000);
	}
	int r = q ? store_run(st, q) : -EIO;
	pthread_mutex_unlock(&st->meta);
	return r;
}

int snapshot_floors(struct store *st, const struct hist_device *device, size_t device_cnt,
		    struct hist_floor **out, size_t *cnt)
{
	struct hist_floor *f = calloc(device_cnt + 1, sizeof *f);
	uint64_t seq = 0;
	int r = 0;

	*out = f;
	*cnt = 1;
	if (!f)
		return -ENOMEM;
	pthread_mutex_lock(&st->meta);
	f[0] = (struct hist_floor){
		.device = st->device,
		.commit = HF_MAX(u64_or_0(st, "log_trim"), (uint64_t)1),
		.commit_end = u64_or_0(st, "log_seq") + 1,
		.snap = HF_MAX(u64_or_0(st, "snap_trim"), (uint64_t)1),
		.snap_end = u64_or_0(st, "snap") + 1,
	};
	/*
	 * Two snapshots of ours hold all that came from those before us.  How far they still
	 * wrote when we had read them is not known, only that it was little.
	 */
	for (size_t i = 0; !r && i < device_cnt && f[0].commit > 1; i++) {
		const struct hist_device *d = &device[i];

		if (!d->retired || d->number == st->device)
			continue;
		sqlite3_stmt *q = store_stmt(st, "SELECT seq FROM device WHERE number=?1");
		if (!q) {
			r = -EIO;
			break;
		}
		sqlite3_bind_int64(q, 1, d->number);
		r = store_step(st, q);
		seq = r == 1 ? (uint64_t)sqlite3_column_int64(q, 0) : 0;
		sqlite3_reset(q);
		r = r < 0 ? r : 0;
		f[(*cnt)++] = (struct hist_floor){.device = d->number,
						  .commit = seq + LATE_MAX,
						  .commit_end = seq + LATE_MAX,
						  .snap = seq + LATE_MAX,
						  .snap_end = seq + LATE_MAX};
	}
	pthread_mutex_unlock(&st->meta);
	return r;
}

static bool trim_stops(void *publisher)
{
	return publish_stopping(publisher);
}

int snapshot_trim(struct publisher *p)
{
	struct hist_floor *f;
	size_t cnt;
	int r = snapshot_floors(p->st, p->opts.devices, p->opts.device_cnt, &f, &cnt);

	if (!r && (f[0].commit > 1 || f[0].snap > 1))
		r = history_trim(p->st->vol, f, cnt, trim_stops, p);
	/* Parts that were there at recovery count as of before the first commit of ours. */
	if (!r && f[0].commit > 1)
		r = trim_parts(p, f[0].commit);
	free(f);
	return r;
}

/*
 * The snapshot is stored: two are kept, and the commits after the older one.  What is below
 * is written down first; deleting it may take several goes, and nodes that are away now are
 * cleared when they are back.
 */
static int snapshot_end(struct publisher *p, uint64_t number, uint64_t from, uint64_t len)
{
	struct store *st = p->st;
	uint64_t old, old_from;
	int r;

	pthread_mutex_lock(&st->meta);
	old = u64_or_0(st, "snap");
	old_from = u64_or_0(st, "snap_from");
	r = store_put_u64(st, "snap", number);
	if (!r)
		r = store_put_u64(st, "snap_from", from);
	if (!r)
		r = store_put_u64(st, "snap_len", len);
	if (!r)
		r = store_put_u64(st, "log_since", 0);
	if (!r && old && old < number) {
		r = store_put_u64(st, "snap_trim", old);
		/* Nothing is known of where an older one stood that was only found. */
		if (!r && old_from)
			r = store_put_u64(st, "log_trim",
					  HF_MAX(old_from, u64_or_0(st, "log_trim")));
	}
	sqlite3_stmt *q =
		r ? NULL
		  : store_stmt(st, "DELETE FROM kv WHERE k IN ('snap_head','snap_object')");
	if (!r)
		r = q ? store_run(st, q) : -EIO;
	pthread_mutex_unlock(&st->meta);
	if (!r)
		r = store_commit(st);
	return r ? r : snapshot_trim(p);
}

int snapshot_put(struct publisher *p)
{
	struct store *st = p->st;
	struct buf head = {0}, obj = {0};
	struct hist_head h = {.snapshot = true, .device = st->device};
	uint64_t from = 0, len = 0;
	int r;

	pthread_mutex_lock(&st->meta);
	r = store_get_blob(st, "snap_head", &head);
	if (!r)
		r = store_get_blob(st, "snap_object", &obj);
	pthread_mutex_unlock(&st->meta);
	if (!r) {
		struct rd rd = rd_over(head.p, head.len);
		uint8_t version = rd_u8(&rd);

		h.seq = rd_u64(&rd);
		from = rd_u64(&rd);
		len = rd_u64(&rd);
		if (version != SNAP_VERSION || rd.bad || rd_left(&rd))
			r = log_fail(-EBADMSG, "the snapshot kept in the database is damaged");
	}
	/* Whoever was taken over changes nothing on the nodes any more. */
	if (!r)
		r = publish_check(p);
	if (!r)
		r = history_put(st->vol, &h, &obj);
	if (!r)
		r = snapshot_end(p, h.seq, from, len);
	buf_release(&head);
	buf_release(&obj);
	return r == -ENOENT ? 0 : r;
}

/*
 * While it is made nothing that some commit knows is held back: it would be read as it is now.
 * What no commit knows was born after `from`, as far as its row says (hold.c).
 */
static void whole_cuts(struct publisher *p, bool on)
{
	pthread_mutex_lock(&p->lock);
	p->whole = on;
	pthread_mutex_unlock(&p->lock);
}

int snapshot_take(struct publisher *p)
{
	struct snapshot *n = calloc(1, sizeof *n);
	struct hist_head h = {0};
	struct buf obj = {0};
	struct seg_place *parts = NULL;
	size_t part_cnt = 0;
	int r;

	if (!n)
		return -ENOMEM;
	n->p = p;
	n->st = p->st;
	n->slice = p->slice ? p->slice : SLICE;
	whole_cuts(p, true);
	r = publish_now(p, true); /* with no inline segments left in it */
	if (!r)
		r = scan_begin(n);
	if (!r)
		r = stream_init(
			&n->s, n->st,
			(struct rec_stamp){.lamport = n->lamport, .device = n->st->device});
	if (!r)
		r = scan(n);
	if (!r)
		r = publish_now(p, false);
	whole_cuts(p, false);
	if (!r)
		r = head_of(n, &h);
	if (!r)
		r = history_build(n->st->vol, &h, n->s.w, &obj, &parts, &part_cnt);
	if (!r)
		r = keep_object(n, &obj, parts, part_cnt);
	if (!r)
		r = snapshot_put(p);
	stream_release(&n->s);
	free(h.seen);
	free(parts);
	buf_release(&obj);
	free(n);
	return r;
}
