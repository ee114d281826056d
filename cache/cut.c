/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Everything here happens in one hold of st->meta, so that a commit is an instant of the
 * tree.  The hold costs some microseconds for each inode that changed and nothing for the
 * others: rows are found by the index on chg.
 *
 * Rows of larger inodes may be withheld (store.h): those come from memory, off the dirty
 * list, which after the flush holds nothing else.
 */
#include <stdlib.h>
#include "cache/cut.h"
#include "cache/datafile.h"

#define PUSH_LOCKED ((size_t)32 << 20) /* beyond it records go to the writer at once */

/* Room for one more: the array, maybe elsewhere, or NULL. */
static void *grown(void *p, size_t *cap, size_t cnt, size_t size)
{
	if (cnt < *cap)
		return p;
	size_t n = *cap ? 2 * *cap : 64;
	void *q = reallocarray(p, n, size);

	if (q)
		*cap = n;
	return q;
}

void cut_free(struct cut *c)
{
	if (!c)
		return;
	for (size_t i = 0; i < c->file_cnt; i++)
		inode_put(c->st, c->file[i].in);
	stream_release(&c->s);
	free(c->file);
	free(c->span);
	free(c->small);
	free(c->move);
	free(c->hold);
	free(c);
}

/* Notes which contents of the inode belong to the cut; larger ones are looked at later. */
static int note_contents(struct cut *c, const struct rec_inode *r, uint32_t flags,
			 uint64_t dchg)
{
	if (!S_ISREG(r->mode))
		return 0;
	if (!(flags & INODE_LARGE)) {
		if (!(flags & INODE_SMALL_DIRTY))
			return 0;
		uint64_t *small = grown(c->small, &c->small_cap, c->small_cnt, sizeof *small);

		if (!small)
			return -ENOMEM;
		c->small = small;
		c->small[c->small_cnt++] = r->ino;
		c->bytes += r->size;
		return 0;
	}
	if (dchg <= c->published && !(r->changed & (REC_CH_NEW | REC_CH_CONTENT)))
		return 0;
	struct cut_file *file = grown(c->file, &c->file_cap, c->file_cnt, sizeof *file);

	if (!file)
		return -ENOMEM;
	c->file = file;
	c->file[c->file_cnt] = (struct cut_file){.ino = r->ino, .size = r->size};
	int err = inode_get_locked(c->st, r->ino, &c->file[c->file_cnt].in);

	if (!err)
		c->file_cnt++;
	return err;
}

static int cut_rows(struct cut *c)
{
	sqlite3_stmt *q = store_stmt(c->st, "SELECT " INODE_COLS
					    " FROM inode INDEXED BY inode_chg WHERE chg>?1");
	int more = 0, r = 0;

	if (!q)
		return -EIO;
	sqlite3_bind_int64(q, 1, (int64_t)c->published);
	while (!r && (more = store_step(c->st, q)) == 1) {
		struct rec_inode rec;
		uint32_t flags;
		uint64_t dchg;

		inode_columns(q, &rec, &flags, &dchg);
		struct inode *in = c->st->dirty_cnt ? inode_peek_locked(c->st, rec.ino) : NULL;

		if ((in && in->dirty) || !rec.nlink || hold_has(c, rec.ino))
			continue;
		r = stream_inode_locked(&c->s, &rec, flags);
		if (!r)
			r = note_contents(c, &rec, flags, dchg);
		if (!r)
			r = stream_push(&c->s, PUSH_LOCKED);
	}
	sqlite3_reset(q);
	return r ? r : more < 0 ? more : 0;
}

static int cut_withheld(struct cut *c)
{
	for (struct inode *in = c->st->dirty_head; in; in = in->dirty_next) {
		if (in->chg <= c->published || !in->nlink || hold_has(c, in->ino))
			continue;
		struct rec_inode rec = {
			.ino = in->ino,
			.parent = S_ISDIR(in->mode) ? in->parent : 0,
			.mode = in->mode,
			.uid = in->uid,
			.gid = in->gid,
			.nlink = in->nlink,
			.changed = in->mask,
			.rdev = in->rdev,
			.size = in->size,
			.atime_ns = in->atime_ns,
			.mtime_ns = in->mtime_ns,
			.ctime_ns = in->ctime_ns,
			.btime_ns = in->btime_ns,
		};
		int r = stream_inode_locked(&c->s, &rec, in->flags);

		if (!r)
			r = note_contents(c, &rec, in->flags, in->dchg);
		if (r)
			return r;
	}
	return 0;
}

/* A range that is stored ahead: the cut has only to say where. */
struct sent_part {
	struct cut *c;
	struct content *ct;
};

static int sent_part(void *arg, const struct extent *e)
{
	struct sent_part *s = arg;
	struct store *st = s->c->st;
	uint32_t index;
	int r = stream_segment_locked(&s->c->s, e->seg, &index);

	if (r)
		return r;
	content_add(s->ct, &(struct rec_extent){.off = e->off,
						.len = (uint32_t)e->len,
						.seg = index,
						.seg_off = e->seg_off});
	return staged_put_locked(st, s->ct->ino, e);
}

static int cut_sent(struct cut *c, struct cut_file *f, struct content *ct, uint64_t off,
		    uint64_t end)
{
	struct sent_part s = {.c = c, .ct = ct};
	int r = sent_each_locked(c->st, f->in, off, end, sent_part, &s);

	/* Nobody needs to keep these bytes for the cut. */
	return r ? r : ranges_set(f->in->file->cutinfo, off, end - off, CI_PACKED, 0);
}

/*
 * A larger inode: its dirty ranges become the cut's.  What lies beyond the end is dropped,
 * and ranges whose extents changed are written down with the extents they have now.
 */
static int cut_large(struct cut *c, struct cut_file *f, struct content *ct)
{
	uint64_t pos = 0, start, end;
	unsigned flags;
	int r = data_cut_locked(c->st, f->in);

	if (r)
		return r;
	f->span = c->span_cnt;
	content_begin(ct, &c->s.rec, c->s.stamp, f->ino, f->size);
	while (f->in->spans && pos < f->size &&
	       (r = ranges_next(f->in->spans, pos, f->size, RG_CUT | RG_CMETA, &start, &end,
				&flags)) == 1) {
		end = HF_MIN(end, f->size);
		if (flags & RG_CUT && flags & RG_AHEAD) {
			r = cut_sent(c, f, ct, start, end);
			if (r)
				return r;
		} else if (flags & RG_CUT) {
			struct cut_span *span =
				grown(c->span, &c->span_cap, c->span_cnt, sizeof *span);

			if (!span)
				return -ENOMEM;
			c->span = span;
			c->span[c->span_cnt++] = (struct cut_span){start, end - start};
			c->bytes += end - start;
		} else {
			content_drop(ct, start, end - start);
			r = content_live_locked(ct, &c->s, start, end);
			if (r)
				return r;
		}
		pos = end;
	}
	if (r < 0)
		return r;
	f->span_cnt = c->span_cnt - f->span;
	content_drop(ct, f->size, UINT64_MAX);
	content_end(ct);
	return stream_push(&c->s, PUSH_LOCKED);
}

static int cut_links(struct cut *c)
{
	sqlite3_stmt *q = store_stmt(
		c->st,
		"SELECT d.lid,d.parent,d.ino,d.mode,d.name FROM newlink n CROSS JOIN dirent d "
		"ON d.parent=n.parent AND d.hash=n.hash AND d.lid=n.lid "
		"WHERE n.epoch>?1 ORDER BY n.id");
	int more;

	if (!q)
		return -EIO;
	sqlite3_bind_int64(q, 1, (int64_t)c->published);
	while ((more = store_step(c->st, q)) == 1) {
		if (hold_has(c, (uint64_t)sqlite3_column_int64(q, 2)))
			continue;
		struct rec_link l = {.lid = (uint64_t)sqlite3_column_int64(q, 0),
				     .parent = (uint64_t)sqlite3_column_int64(q, 1),
				     .ino = (uint64_t)sqlite3_column_int64(q, 2),
				     .mode = (uint32_t)sqlite3_column_int64(q, 3) & S_IFMT,
				     .name = sqlite3_column_blob(q, 4),
				     .name_len = (uint8_t)sqlite3_column_bytes(q, 4)};

		rec_put_link(&c->s.rec, c->s.stamp, &l);
	}
	sqlite3_reset(q);
	return more < 0 ? more : stream_push(&c->s, PUSH_LOCKED);
}

static int cut_tombs(struct cut *c)
{
	sqlite3_stmt *q =
		store_stmt(c->st, "SELECT kind,id,parent,name,ino FROM tomb WHERE epoch>?1");
	int more;

	if (!q)
		return -EIO;
	sqlite3_bind_int64(q, 1, (int64_t)c->published);
	while ((more = store_step(c->st, q)) == 1) {
		uint64_t id = (uint64_t)sqlite3_column_int64(q, 1);

		bool gone = sqlite3_column_int(q, 0) == 2;

		if (hold_has(c, gone ? id : (uint64_t)sqlite3_column_int64(q, 4)))
			continue;
		if (gone) {
			rec_put_gone(&c->s.rec, c->s.stamp, id);
			continue;
		}
		struct rec_link l = {.lid = id,
				     .parent = (uint64_t)sqlite3_column_int64(q, 2),
				     .name = sqlite3_column_blob(q, 3),
				     .name_len = (uint8_t)sqlite3_column_bytes(q, 3)};

		rec_put_unlink(&c->s.rec, c->s.stamp, &l);
	}
	sqlite3_reset(q);
	return more < 0 ? more : stream_push(&c->s, PUSH_LOCKED);
}

/* Segments that repair placed anew, and rows of nodes and devices. */
static int cut_places(struct cut *c)
{
	sqlite3_stmt *q = store_stmt(c->st, "SELECT seg FROM segment INDEXED BY segment_chg "
					    "WHERE chg>?1 AND kind=1");
	uint32_t index;
	int more = 0, r = 0;

	if (!q)
		return -EIO;
	sqlite3_bind_int64(q, 1, (int64_t)c->published);
	while (!r && (more = store_step(c->st, q)) == 1)
		r = stream_segment_locked(&c->s, (uint64_t)sqlite3_column_int64(q, 0), &index);
	sqlite3_reset(q);
	if (!r)
		r = more < 0 ? more : stream_nodes_locked(&c->s, c->published);
	return r ? r : stream_devices_locked(&c->s, c->published);
}

static int by_ino(const void *a, const void *b)
{
	return u64_cmp(&((const struct cut_file *)a)->ino, &((const struct cut_file *)b)->ino);
}

static int inline_bytes(struct store *st, uint64_t *bytes)
{
	sqlite3_stmt *q = store_stmt(
		st, "SELECT coalesce(sum(len),0) FROM segment WHERE seg>=1099511627776");

	if (!q)
		return -EIO;
	int r = store_step(st, q);

	if (r == 1)
		*bytes = (uint64_t)sqlite3_column_int64(q, 0);
	sqlite3_reset(q);
	return r < 0 ? r : 0;
}

static int get_u64(struct store *st, const char *k, uint64_t *v)
{
	int r = store_get_u64(st, k, v);

	if (r == -ENOENT) {
		*v = 0;
		r = 0;
	}
	return r;
}

static int encode(struct cut *c)
{
	struct content *ct = malloc(sizeof *ct);
	size_t cut = 0;
	int r = ct ? store_flush_locked(c->st, false) : -ENOMEM;

	if (!r)
		r = hold_pick_locked(c);
	if (!r)
		r = cut_rows(c);
	if (!r)
		r = cut_withheld(c);
	for (; !r && cut < c->file_cnt; cut++)
		r = cut_large(c, &c->file[cut], ct);
	if (!r)
		r = cut_links(c);
	if (!r)
		r = cut_tombs(c);
	if (!r)
		r = cut_places(c);
	for (size_t i = 0; r && i < cut; i++)
		data_cut_done_locked(c->st, c->file[i].in, false);
	if (r && !c->st->failed)
		settle_forget_locked(c->st, false);
	free(ct);
	return r;
}

int cut_take(struct publisher *p, struct cut **out)
{
	struct store *st = p->st;
	struct cut *c = calloc(1, sizeof *c);
	uint64_t bytes = 0;
	bool some = false;

	*out = NULL;
	if (!c)
		return -ENOMEM;
	c->p = p;
	c->st = st;
	/* No write is half done now: each is whole in the cut or not in it. */
	data_gate_close(st);
	pthread_mutex_lock(&st->meta);
	int64_t start = now_ms();

	/* From here on every change belongs to the next cut. */
	pthread_mutex_lock(&p->lock);
	c->repack = p->repack;
	p->repack = false;
	c->move = p->move;
	c->move_cnt = p->move_cnt;
	p->move = NULL;
	p->move_cnt = 0;
	p->begun++;
	p->dirty = false;
	pthread_mutex_unlock(&p->lock);

	int r = st->failed;

	if (!r)
		r = get_u64(st, "log_seq", &c->seq);
	if (!r)
		r = get_u64(st, "log_lamport", &c->lamport);
	if (!r)
		r = inline_bytes(st, &bytes);
	c->seq++;
	c->lamport++;
	c->published = st->published;
	c->epoch = st->epoch;
	c->first_seg = p->next_seg;
	c->first_inline = p->next_inline;
	c->repack = bytes && (c->repack || bytes > INLINE_KEEP_MAX);
	if (!r)
		r = stream_init(
			&c->s, st,
			(struct rec_stamp){.lamport = c->lamport, .device = st->device});
	if (!r)
		r = encode(c);
	if (!r) {
		some = rec_writer_raw_len(c->s.w) || c->s.rec.len || c->small_cnt ||
		       c->repack || c->move_cnt;
		if (some)
			r = store_put_u64(st, "epoch", c->epoch + 1);
	}
	bool taken = !r && some;

	if (taken) {
		st->cut_epoch = c->epoch;
		st->cut_pos = 0;
		st->epoch = c->epoch + 1;
		r = hold_keep_locked(c);
	} else if (r) {
		publish_touch(p);
	}
	pthread_mutex_unlock(&st->meta);
	data_gate_open(st);
	if (!r)
		r = hold_tell(c);
	if (!taken) {
		cut_free(c);
		return r;
	}
	log_debug("cut of epoch %llu: %zu smaller and %zu larger files, %zu held, %lld ms",
		  (unsigned long long)c->epoch, c->small_cnt, c->file_cnt, c->hold_cnt,
		  (long long)(now_ms() - start));
	if (c->small_cnt)
		qsort(c->small, c->small_cnt, sizeof *c->small, u64_cmp);
	if (c->file_cnt)
		qsort(c->file, c->file_cnt, sizeof *c->file, by_ino);
	*out = c;
	return r ? r : stream_push(&c->s, 0);
}
