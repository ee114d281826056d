/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Contents of a cut into segments: smaller files first, by inode number, so that neighbours
 * share a segment and a cell; then larger ones range by range.  While two segments are being
 * spread the next is packed.  Each segment takes with it the CONTENT records and the rows of
 * `staged` that use it: they are written when it is stored and its places are known, in the
 * order of their indexes, since the queue is first in, first out.
 */
#include <sodium.h>
#include <stdlib.h>
#include "cache/cut.h"

#define IN_FLIGHT 2u		      /* the pool has one more */
#define PIECE_LEN ((size_t)1 << 20)   /* of a larger file, in one read */
#define SLICE_CNT 100u		      /* smaller files in one hold of st->meta, */
#define SLICE_LEN ((size_t)512 << 10) /* or so many bytes */
#define MOVE_MS	  120000	      /* to read a segment that is to be moved */
#define BATCH_REC ((size_t)4 << 20)   /* a batch is closed when its records reach this */

struct staged {
	uint64_t ino, off, seg, was; /* was: moved from there, 0: contents of the cut */
	uint32_t len, seg_off, was_off;
};

struct batch {
	struct seg_id id;
	uint64_t seg;
	uint32_t index;
	struct stripe *stripe;
	struct spread *spread;
	struct buf rec; /* CONTENT records */
	struct staged *row;
	size_t row_cnt, row_cap;
};

struct pack {
	struct cut *c;
	struct publisher *p;
	struct seg_builder *b;
	bool inlined; /* everything goes into one inline segment */
	struct buf inl;
	struct batch open, flight[IN_FLIGHT];
	bool is_open;
	unsigned flight_cnt;
	struct content ct; /* of the file being packed, into open.rec */
	bool in_file;
	uint64_t was; /* what is packed now is moved from this place; 0: it is new */
	uint32_t was_off;
	uint8_t *piece;
};

static void batch_release(struct batch *b)
{
	struct seg_place place;

	if (b->spread)
		spread_finish(b->spread, &place);
	if (b->stripe)
		stripe_unref(b->stripe);
	buf_release(&b->rec);
	free(b->row);
	*b = (struct batch){0};
}

static int staged_insert_locked(struct store *st, const struct staged *s)
{
	sqlite3_stmt *q =
		store_stmt(st, "INSERT OR REPLACE INTO staged(ino,off,len,seg,seg_off,was,"
			       "was_off) VALUES(?1,?2,?3,?4,?5,?6,?7)");

	if (!q)
		return -EIO;
	sqlite3_bind_int64(q, 1, (int64_t)s->ino);
	sqlite3_bind_int64(q, 2, (int64_t)s->off);
	sqlite3_bind_int64(q, 3, s->len);
	sqlite3_bind_int64(q, 4, (int64_t)s->seg);
	sqlite3_bind_int64(q, 5, s->seg_off);
	sqlite3_bind_int64(q, 6, (int64_t)s->was);
	sqlite3_bind_int64(q, 7, s->was_off);
	return store_run(st, q);
}

int staged_put_locked(struct store *st, uint64_t ino, const struct extent *e)
{
	return staged_insert_locked(st, &(struct staged){.ino = ino,
							 .off = e->off,
							 .len = (uint32_t)e->len,
							 .seg = e->seg,
							 .seg_off = e->seg_off});
}

static int batch_store(struct pack *k, struct batch *b, const struct seg_place *place,
		       const struct buf *data)
{
	struct store *st = k->c->st;
	int r = 0;

	for (size_t i = 0; !r && (i < b->row_cnt || i == 0);) {
		size_t end = HF_MIN(i + 500, b->row_cnt);

		pthread_mutex_lock(&st->meta);
		if (i == 0)
			r = segment_insert_locked(st, b->seg, place,
						  data ? SEG_INLINE : SEG_DATA, k->c->seq,
						  k->c->epoch, data);
		for (; !r && i < end; i++)
			r = staged_insert_locked(st, &b->row[i]);
		pthread_mutex_unlock(&st->meta);
		if (!b->row_cnt)
			break;
	}
	return r;
}

/* The oldest segment in flight is waited for until it is stored. */
static int flight_finish(struct pack *k)
{
	struct batch *b = &k->flight[0];
	struct seg_place place;
	struct backoff backoff = publish_backoff(k->p);
	int r, waits = 0;

	for (;; waits++) {
		r = spread_finish(b->spread, &place);
		b->spread = NULL;
		if (r != -EAGAIN)
			break;
		char why[128];
		struct volume *v = k->c->st->vol;

		snprintf(why, sizeof why,
			 "waiting for nodes: %u of %zu can take shards, %u are needed",
			 volume_usable(v), volume_members(v), v->k);
		r = publish_pause(k->p, &backoff, why);
		if (r)
			break;
		/* The same bytes under the same names: nothing of the first try is wasted. */
		r = spread_start(&b->spread, v, b->stripe);
		if (r)
			break;
	}
	rate_end(k->p, r || waits ? 0 : b->stripe->geom.len);
	if (!r) {
		publish_reason(k->p, "");
		pthread_mutex_lock(&k->p->lock);
		k->p->status.cut_done += b->stripe->geom.len;
		pthread_mutex_unlock(&k->p->lock);
		rec_put_segment(&k->c->s.rec, k->c->s.stamp, &place);
		r = stream_push(&k->c->s, 0);
	}
	if (!r)
		r = rec_writer_add(k->c->s.w, &b->rec);
	if (!r)
		r = batch_store(k, b, &place, NULL);
	batch_release(b);
	memmove(&k->flight[0], &k->flight[1], (IN_FLIGHT - 1) * sizeof k->flight[0]);
	k->flight[IN_FLIGHT - 1] = (struct batch){0};
	k->flight_cnt--;
	return r ? r : publish_stage(k->p, "segment");
}

static uint64_t segment_number(struct pack *k, bool inlined)
{
	pthread_mutex_lock(&k->c->st->meta);
	uint64_t seg = inlined ? k->p->next_inline++ : k->p->next_seg++;

	pthread_mutex_unlock(&k->c->st->meta);
	return seg;
}

static int batch_open(struct pack *k)
{
	struct batch *b = &k->open;

	*b = (struct batch){0};
	if (k->inlined) {
		randombytes_buf(b->id.b, SEG_LEN);
		buf_reset(&k->inl);
		b->seg = segment_number(k, true);
	} else {
		if (k->flight_cnt == IN_FLIGHT) {
			int r = flight_finish(k);

			if (r)
				return r;
		}
		int r = seg_builder_start(k->b, &b->id);

		if (r)
			return r;
		b->seg = segment_number(k, false);
	}
	b->index = k->c->s.segs++;
	k->is_open = true;
	if (k->in_file)
		content_begin(&k->ct, &b->rec, k->c->s.stamp, k->ct.ino, k->ct.size);
	return 0;
}

static int batch_close(struct pack *k)
{
	struct batch *b = &k->open;
	int r;

	if (!k->is_open)
		return 0;
	if (k->in_file)
		content_end(&k->ct);
	k->is_open = false;
	if (b->rec.err)
		return b->rec.err;
	if (k->inlined) {
		struct rec_inline inl = {
			.id = b->id, .data = k->inl.p, .len = (uint32_t)k->inl.len};
		struct seg_place place = {.geom = {.id = b->id,
						   .k = (uint8_t)k->c->st->vol->k,
						   .m = (uint8_t)k->c->st->vol->m,
						   .cell_log2 = CELL_LOG2_MIN,
						   .len = (uint32_t)k->inl.len}};

		rec_put_inline(&k->c->s.rec, k->c->s.stamp, &inl);
		r = stream_push(&k->c->s, 0);
		if (!r)
			r = rec_writer_add(k->c->s.w, &b->rec);
		if (!r)
			r = batch_store(k, b, &place, &k->inl);
		batch_release(b);
		return r;
	}
	r = seg_builder_finish(k->b, &b->stripe);
	if (!r)
		r = spread_start(&b->spread, k->c->st->vol, b->stripe);
	if (r) {
		batch_release(b);
		return r;
	}
	rate_begin(k->p);
	k->flight[k->flight_cnt++] = *b;
	*b = (struct batch){0};
	return 0;
}

static size_t batch_room(const struct pack *k)
{
	if (!k->is_open)
		return 0;
	return k->inlined ? 2 * INLINE_CUT_MAX - k->inl.len : seg_builder_room(k->b);
}

static bool batch_full(const struct pack *k)
{
	return k->open.rec.len > BATCH_REC ||
	       k->open.row_cnt * sizeof(struct staged) > BATCH_REC;
}

/* A piece of the current file that fits. */
static int batch_add(struct pack *k, uint64_t off, const uint8_t *p, size_t len)
{
	struct batch *b = &k->open;
	uint32_t seg_off = (uint32_t)k->inl.len;
	int r = 0;

	if (k->inlined) {
		buf_put(&k->inl, p, len);
		r = k->inl.err;
	} else {
		r = seg_builder_add(k->b, p, len, &seg_off);
	}
	if (r)
		return r;
	content_add(&k->ct, &(struct rec_extent){.off = off,
						 .len = (uint32_t)len,
						 .seg = b->index,
						 .seg_off = seg_off});
	/* What is moved comes extent by extent, each from its own place. */
	if (b->row_cnt && !k->was) {
		struct staged *last = &b->row[b->row_cnt - 1];

		if (!last->was && last->ino == k->ct.ino && last->off + last->len == off &&
		    last->seg_off + last->len == seg_off) {
			last->len += (uint32_t)len;
			return 0;
		}
	}
	if (b->row_cnt == b->row_cap) {
		size_t cap = b->row_cap ? 2 * b->row_cap : 64;
		struct staged *row = reallocarray(b->row, cap, sizeof *row);

		if (!row)
			return -ENOMEM;
		b->row = row;
		b->row_cap = cap;
	}
	b->row[b->row_cnt++] = (struct staged){.ino = k->ct.ino,
					       .off = off,
					       .seg = b->seg,
					       .len = (uint32_t)len,
					       .seg_off = seg_off,
					       .was = k->was,
					       .was_off = k->was_off};
	return 0;
}

static int pack_bytes(struct pack *k, uint64_t off, const uint8_t *p, size_t len)
{
	while (len) {
		size_t room = batch_room(k);
		int r;

		if (k->is_open && (!room || batch_full(k))) {
			r = batch_close(k);
			if (r)
				return r;
			room = 0;
		}
		if (!k->is_open) {
			r = batch_open(k);
			if (r)
				return r;
			room = batch_room(k);
		}
		size_t n = HF_MIN(room, len);

		r = batch_add(k, off, p, n);
		if (r)
			return r;
		off += n;
		p += n;
		len -= n;
	}
	return publish_stopping(k->p) ? -ECANCELED : 0;
}

static void file_begin(struct pack *k, uint64_t ino, uint64_t size)
{
	k->in_file = true;
	content_begin(&k->ct, &k->open.rec, k->c->s.stamp, ino, size);
}

static void file_end(struct pack *k)
{
	if (k->is_open)
		content_end(&k->ct);
	k->in_file = false;
}

/*
 * A smaller file whole, in one segment: its one row of `staged` is what settle.c relies on.
 * An empty one needs no segment: its record goes at once, and a row of no length.
 */
static int pack_small(struct pack *k, uint64_t ino, const uint8_t *p, size_t len)
{
	int r = 0;

	if (!len) {
		struct rec_range all = {.off = 0, .len = UINT64_MAX};

		rec_put_content(&k->c->s.rec, k->c->s.stamp, ino, 0, &all, 1, NULL, 0);
		pthread_mutex_lock(&k->c->st->meta);
		r = staged_insert_locked(k->c->st, &(struct staged){.ino = ino});
		pthread_mutex_unlock(&k->c->st->meta);
		return r ? r : stream_push(&k->c->s, BATCH_REC);
	}
	if (k->is_open && (batch_room(k) < len || batch_full(k)))
		r = batch_close(k);
	if (!r && !k->is_open)
		r = batch_open(k);
	if (r)
		return r;
	file_begin(k, ino, len);
	content_drop(&k->ct, 0, UINT64_MAX);
	r = pack_bytes(k, 0, p, len);
	file_end(k);
	return r;
}

static int pack_smalls(struct pack *k)
{
	struct cut *c = k->c;
	struct store *st = c->st;
	struct buf bytes = {0};
	size_t end[SLICE_CNT], i = 0;
	int r = 0;

	while (!r && i < c->small_cnt) {
		size_t n = 0;

		buf_reset(&bytes);
		pthread_mutex_lock(&st->meta);
		while (!r && i + n < c->small_cnt && n < SLICE_CNT && bytes.len < SLICE_LEN) {
			uint64_t ino = c->small[i + n];

			r = data_cut_small_locked(st, ino, &bytes);
			if (!r)
				r = bytes.err;
			if (r == -ENOENT)
				r = log_fail(-EIO,
					     "the bytes of inode %llu at the cut are gone",
					     (unsigned long long)ino);
			st->cut_pos = ino;
			end[n++] = bytes.len;
		}
		pthread_mutex_unlock(&st->meta);
		for (size_t j = 0; !r && j < n; j++) {
			size_t from = j ? end[j - 1] : 0;

			r = pack_small(k, c->small[i + j], bytes.p + from, end[j] - from);
		}
		i += n;
	}
	buf_release(&bytes);
	pthread_mutex_lock(&st->meta);
	st->cut_pos = UINT64_MAX;
	pthread_mutex_unlock(&st->meta);
	return r;
}

static int pack_large(struct pack *k, const struct cut_file *f)
{
	struct store *st = k->c->st;
	int r;

	pthread_mutex_lock(&st->meta);
	r = staged_insert_locked(st, &(struct staged){.ino = f->ino, .off = STAGED_MARK});
	pthread_mutex_unlock(&st->meta);
	file_begin(k, f->ino, f->size);
	for (size_t i = 0; !r && i < f->span_cnt; i++) {
		uint64_t off = k->c->span[f->span + i].off;
		uint64_t end = off + k->c->span[f->span + i].len;

		while (!r && off < end) {
			size_t len = (size_t)HF_MIN(end - off, PIECE_LEN);

			r = data_cut_read(st, f->in, off, k->piece, len);
			if (!r)
				r = data_cut_packed(st, f->in, off, len);
			if (!r)
				r = pack_bytes(k, off, k->piece, len);
			off += len;
		}
	}
	file_end(k);
	return r;
}

/* A published range whose bytes are in an inline segment. */
struct inlined {
	uint64_t ino, size, off, seg;
	uint32_t len, seg_off;
};

static int inlined_list(struct pack *k, struct inlined **out, size_t *cnt)
{
	struct store *st = k->c->st;
	size_t cap = 0;
	int r = 0, more = 0;

	pthread_mutex_lock(&st->meta);
	sqlite3_stmt *q =
		store_stmt(st, "SELECT e.ino,i.size,e.off,e.len,e.seg,e.seg_off FROM extent e "
			       "CROSS JOIN inode i ON i.ino=e.ino "
			       "WHERE e.seg>=1099511627776 AND i.chg<=?1 AND i.nlink>0");
	if (!q)
		r = -EIO;
	else
		sqlite3_bind_int64(q, 1, (int64_t)k->c->published);
	while (!r && (more = store_step(st, q)) == 1) {
		uint64_t ino = (uint64_t)sqlite3_column_int64(q, 0);
		struct inode *in = inode_peek_locked(st, ino);

		/* Changed since: the cut that publishes the change has its own say. */
		if (in && in->chg > k->c->published)
			continue;
		if (*cnt == cap) {
			cap = cap ? 2 * cap : 256;
			struct inlined *p = reallocarray(*out, cap, sizeof *p);

			if (!p) {
				r = -ENOMEM;
				break;
			}
			*out = p;
		}
		(*out)[(*cnt)++] = (struct inlined){
			.ino = ino,
			.size = (uint64_t)sqlite3_column_int64(q, 1),
			.off = (uint64_t)sqlite3_column_int64(q, 2),
			.len = (uint32_t)sqlite3_column_int64(q, 3),
			.seg = (uint64_t)sqlite3_column_int64(q, 4),
			.seg_off = (uint32_t)sqlite3_column_int64(q, 5),
		};
	}
	if (q)
		sqlite3_reset(q);
	pthread_mutex_unlock(&st->meta);
	return r ? r : more < 0 ? more : 0;
}

static int by_place(const void *a, const void *b)
{
	const struct inlined *x = a, *y = b;

	if (x->ino != y->ino)
		return x->ino > y->ino ? 1 : -1;
	return (x->off > y->off) - (x->off < y->off);
}

static int inlined_data(struct store *st, const struct inlined *e, struct buf *out)
{
	pthread_mutex_lock(&st->meta);
	sqlite3_stmt *q = store_stmt(st, "SELECT data FROM segment WHERE seg=?1 AND kind=3");
	int r = q ? 0 : -EIO;

	if (!r) {
		sqlite3_bind_int64(q, 1, (int64_t)e->seg);
		r = store_step(st, q);
		buf_reset(out);
		if (r == 1)
			buf_put(out, sqlite3_column_blob(q, 0),
				(size_t)sqlite3_column_bytes(q, 0));
		sqlite3_reset(q);
		if (r == 1)
			r = out->err;
		else if (!r)
			r = -EBADMSG;
	}
	pthread_mutex_unlock(&st->meta);
	if (!r && (e->seg_off > out->len || e->len > out->len - e->seg_off))
		r = -EBADMSG;
	if (r == -EBADMSG)
		log_fail(r, "inode %llu: its extent does not lie within inline segment %llu",
			 (unsigned long long)e->ino, (unsigned long long)e->seg);
	return r;
}

/* Bytes that are published where e says; one extent becomes one, whole in a segment. */
static int pack_moved(struct pack *k, uint64_t ino, uint64_t size, const struct extent *e,
		      const uint8_t *p)
{
	int r = 0;

	if (k->is_open && (batch_room(k) < e->len || batch_full(k)))
		r = batch_close(k);
	if (!r && !k->is_open)
		r = batch_open(k);
	if (r)
		return r;
	k->was = e->seg;
	k->was_off = e->seg_off;
	file_begin(k, ino, size);
	r = pack_bytes(k, e->off, p, (size_t)e->len);
	file_end(k);
	k->was = 0;
	return r;
}

/*
 * Inline segments into real ones: only for inodes of which all is published, so that nothing
 * appears in this commit before its time.  settle.c moves an extent only as far as it is still
 * the one that was listed.
 */
static int pack_inlined(struct pack *k)
{
	struct inlined *list = NULL;
	struct buf data = {0};
	size_t cnt = 0;
	uint64_t have = 0;
	int r = inlined_list(k, &list, &cnt);

	if (cnt)
		qsort(list, cnt, sizeof *list, by_place);
	for (size_t i = 0; !r && i < cnt; i++) {
		const struct inlined *e = &list[i];

		if (have != e->seg) {
			r = inlined_data(k->c->st, e, &data);
			have = e->seg;
		}
		if (r)
			break;
		r = pack_moved(k, e->ino, e->size, &(struct extent){e->off, e->len, e->seg, e->seg_off},
			       data.p + e->seg_off);
	}
	free(list);
	buf_release(&data);
	return r;
}

/* --- out of hollow segments --- */

/* Is the range where it was when it was listed, in an inode of which all is published? */
static bool still_there(struct pack *k, const struct move *m, uint64_t *size)
{
	struct store *st = k->c->st;
	struct extent e;
	bool ok = false;

	pthread_mutex_lock(&st->meta);
	struct inode *in = inode_peek_locked(st, m->ino);
	sqlite3_stmt *q =
		store_stmt(st, "SELECT size FROM inode WHERE ino=?1 AND chg<=?2 AND nlink>0");
	if (q) {
		sqlite3_bind_int64(q, 1, (int64_t)m->ino);
		sqlite3_bind_int64(q, 2, (int64_t)k->c->published);
		ok = store_step(st, q) == 1 && (!in || in->chg <= k->c->published);
		if (ok)
			*size = (uint64_t)sqlite3_column_int64(q, 0);
		sqlite3_reset(q);
	}
	ok = ok && extent_at_locked(st, m->ino, m->off, &e) == 1 && e.off == m->off &&
	     e.len == m->len && e.seg == m->seg && e.seg_off == m->seg_off;
	pthread_mutex_unlock(&st->meta);
	return ok;
}

struct whole {
	struct pack *k;
	uint8_t *p;
	uint32_t from;
};

static int whole_sink(void *arg, uint32_t off, const uint8_t *p, uint32_t len)
{
	struct whole *w = arg;

	memcpy(w->p + (off - w->from), p, len);
	return publish_stopping(w->k->p) ? -ECANCELED : 0;
}

/* The moves of one segment.  What cannot be read stays where it is. */
static int pack_hollow(struct pack *k, const struct move *m, size_t cnt, uint8_t *bytes)
{
	struct store *st = k->c->st;
	uint32_t from = m[0].seg_off, to = 0;
	struct seg_place place;
	struct buf none = {0};
	bool is_inline = false;

	for (size_t i = 0; i < cnt; i++)
		to = HF_MAX(to, m[i].seg_off + m[i].len);
	pthread_mutex_lock(&st->meta);
	int r = segment_place_locked(st, m[0].seg, &place, &none, &is_inline);
	pthread_mutex_unlock(&st->meta);
	buf_release(&none);
	if (r == -ESTALE || (!r && (is_inline || to > place.geom.len)))
		return 0;
	struct whole w = {k, bytes, from};
	if (!r)
		r = gather_stream(st->vol, &place, from, to - from, whole_sink, &w,
				  now_ms() + MOVE_MS);
	if (r == -ECANCELED || r == -ENOMEM)
		return r;
	if (r) {
		log_debug("segment %llu cannot be read to be moved: %s",
			  (unsigned long long)m[0].seg, strerror(-r));
		return 0;
	}
	for (size_t i = 0; !r && i < cnt; i++) {
		uint64_t size;

		if (!still_there(k, &m[i], &size))
			continue;
		r = pack_moved(k, m[i].ino, size,
			       &(struct extent){m[i].off, m[i].len, m[i].seg, m[i].seg_off},
			       bytes + (m[i].seg_off - from));
	}
	return r;
}

static int pack_moves(struct pack *k)
{
	struct cut *c = k->c;
	uint8_t *bytes = malloc(SEG_MAX_LEN);
	int r = bytes ? 0 : -ENOMEM;

	for (size_t i = 0, j; !r && i < c->move_cnt; i = j) {
		for (j = i + 1; j < c->move_cnt && c->move[j].seg == c->move[i].seg;)
			j++;
		r = pack_hollow(k, &c->move[i], j - i, bytes);
	}
	free(bytes);
	return r;
}

int pack_run(struct cut *c)
{
	struct pack *k = calloc(1, sizeof *k);
	int r;

	if (!k)
		return -ENOMEM;
	k->c = c;
	k->p = c->p;
	k->inlined = c->bytes < INLINE_CUT_MAX && !c->repack && !c->move_cnt;
	k->piece = malloc(PIECE_LEN);
	r = k->piece ? seg_builder_new(&k->b, c->st->vol->keys, c->st->vol->pool) : -ENOMEM;
	pthread_mutex_lock(&c->p->lock);
	c->p->status.cut_bytes = c->bytes;
	c->p->status.cut_done = 0;
	pthread_mutex_unlock(&c->p->lock);
	if (!r)
		r = pack_smalls(k);
	for (size_t i = 0; !r && i < c->file_cnt; i++)
		r = pack_large(k, &c->file[i]);
	if (!r && c->repack)
		r = pack_inlined(k);
	if (!r && c->move_cnt)
		r = pack_moves(k);
	if (!r)
		r = batch_close(k);
	while (!r && k->flight_cnt)
		r = flight_finish(k);
	for (unsigned i = 0; i < k->flight_cnt; i++) {
		rate_end(k->p, 0);
		batch_release(&k->flight[i]);
	}
	if (k->is_open && !k->inlined)
		seg_builder_abandon(k->b);
	batch_release(&k->open);
	if (k->b)
		seg_builder_free(k->b);
	buf_release(&k->inl);
	free(k->piece);
	free(k);
	return r ? r : stream_push(&c->s, 0);
}
