/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "cache/range.h"

#include <assert.h>
#include <stdlib.h>

#define CHUNKS	  ((uint64_t)1 << 38) /* chunks of all 2^64 bytes */
#define MAP_SPANS 1
#define MAP_RUN	  2
#define FLAGS	  7
#define STORED	  (RG_HAVE | RG_DIRTY | RG_META)

struct span {
	uint32_t start, end; /* within the chunk */
	uint32_t flags;
};

/* One chunk with its spans, or (s == NULL) n chunks that have the same flags throughout. */
struct entry {
	uint64_t chunk, n;
	struct span *s;
	uint32_t cnt, cap;
	uint32_t flags;
	bool dirty;  /* differs from the stored row */
	bool stored; /* there is a row under this number */
};

struct ranges {
	struct entry *e;
	size_t cnt, cap;
	uint64_t total[FLAGS];
	uint64_t *gone; /* chunks whose rows must go */
	size_t gone_cnt, gone_cap;
	bool dirty;
	size_t memory; /* 0: to be counted */
};

int ranges_new(struct ranges **out)
{
	*out = calloc(1, sizeof **out);
	return *out ? 0 : -ENOMEM;
}

void ranges_free(struct ranges *r)
{
	if (!r)
		return;
	for (size_t i = 0; i < r->cnt; i++)
		free(r->e[i].s);
	free(r->e);
	free(r->gone);
	free(r);
}

static void count(struct ranges *r, uint32_t flags, uint64_t bytes, bool add)
{
	for (unsigned i = 0; i < FLAGS; i++)
		if (flags >> i & 1)
			r->total[i] += add ? bytes : -bytes;
}

uint64_t ranges_total(const struct ranges *r, unsigned flag)
{
	return r->total[__builtin_ctz(flag)];
}

size_t ranges_memory(struct ranges *r)
{
	if (!r->memory) {
		r->memory = sizeof *r + r->cap * sizeof *r->e + r->gone_cap * sizeof *r->gone;
		for (size_t i = 0; i < r->cnt; i++)
			r->memory += r->e[i].cap * sizeof *r->e[i].s;
	}
	return r->memory;
}

bool ranges_dirty(const struct ranges *r)
{
	return r->dirty;
}

static uint64_t chunk_off(uint64_t chunk)
{
	return chunk >= CHUNKS ? UINT64_MAX : chunk * RANGE_CHUNK;
}

/* The first entry that ends behind the beginning of the chunk. */
static size_t entry_find(const struct ranges *r, uint64_t chunk)
{
	size_t lo = 0, hi = r->cnt;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		if (r->e[mid].chunk + r->e[mid].n <= chunk)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static int entries_reserve(struct ranges *r, size_t more)
{
	if (r->cnt + more <= r->cap)
		return 0;
	size_t cap = HF_MAX(r->cap * 2, r->cnt + more + 4);
	struct entry *e = realloc(r->e, cap * sizeof *e);
	if (!e)
		return -ENOMEM;
	r->e = e;
	r->cap = cap;
	return 0;
}

static int gone_reserve(struct ranges *r, size_t more)
{
	if (r->gone_cnt + more <= r->gone_cap)
		return 0;
	size_t cap = HF_MAX(r->gone_cap * 2, r->gone_cnt + more + 4);
	uint64_t *g = realloc(r->gone, cap * sizeof *g);
	if (!g)
		return -ENOMEM;
	r->gone = g;
	r->gone_cap = cap;
	return 0;
}

/* Room was reserved. */
static struct entry *entry_insert(struct ranges *r, size_t i, uint64_t chunk, uint64_t n,
				  uint32_t flags)
{
	assert(r->cnt < r->cap);
	memmove(&r->e[i + 1], &r->e[i], (r->cnt - i) * sizeof *r->e);
	r->cnt++;
	r->e[i] = (struct entry){.chunk = chunk, .n = n, .flags = flags, .dirty = true};
	r->dirty = true;
	r->memory = 0;
	return &r->e[i];
}

/* Room for its row in `gone` was reserved. */
static void entry_remove(struct ranges *r, size_t i)
{
	if (r->e[i].stored) {
		assert(r->gone_cnt < r->gone_cap);
		r->gone[r->gone_cnt++] = r->e[i].chunk;
		r->dirty = true;
	}
	r->memory = 0;
	free(r->e[i].s);
	memmove(&r->e[i], &r->e[i + 1], (r->cnt - i - 1) * sizeof *r->e);
	r->cnt--;
}

static void entry_touch(struct ranges *r, struct entry *e)
{
	e->dirty = true;
	r->dirty = true;
	r->memory = 0;
}

/* No run crosses the boundary before `chunk` afterwards.  Room was reserved. */
static void split_at(struct ranges *r, uint64_t chunk)
{
	size_t i = entry_find(r, chunk);

	if (i == r->cnt || r->e[i].chunk >= chunk)
		return;
	struct entry *e = &r->e[i];
	uint64_t rest = e->chunk + e->n - chunk;
	uint32_t flags = e->flags;
	e->n -= rest;
	entry_touch(r, e);
	entry_insert(r, i + 1, chunk, rest, flags);
}

/* Entries i and i + 1 become one where they are alike. */
static bool merge_at(struct ranges *r, size_t i)
{
	if (i + 1 >= r->cnt)
		return false;
	struct entry *a = &r->e[i], *b = &r->e[i + 1];
	if (a->s || b->s || a->flags != b->flags || a->chunk + a->n != b->chunk)
		return false;
	a->n += b->n;
	entry_touch(r, a);
	entry_remove(r, i + 1);
	return true;
}

/* --- spans of one chunk --- */

static size_t span_find(const struct entry *e, uint32_t at)
{
	size_t lo = 0, hi = e->cnt;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		if (e->s[mid].end <= at)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static int spans_reserve(struct entry *e, size_t cap)
{
	if (cap <= e->cap)
		return 0;
	cap = HF_MAX(HF_MAX(cap, (size_t)e->cap * 2), (size_t)4);
	struct span *s = realloc(e->s, cap * sizeof *s);
	if (!s)
		return -ENOMEM;
	e->s = s;
	e->cap = (uint32_t)cap;
	return 0;
}

static size_t span_push(struct span *out, size_t cnt, uint32_t start, uint32_t end,
			uint32_t flags)
{
	if (start >= end || !flags)
		return cnt;
	if (cnt && out[cnt - 1].end == start && out[cnt - 1].flags == flags) {
		out[cnt - 1].end = end;
		return cnt;
	}
	out[cnt] = (struct span){start, end, flags};
	return cnt + 1;
}

static int spans_set(struct ranges *r, struct entry *e, uint32_t start, uint32_t end,
		     unsigned set, unsigned clear)
{
	struct span few[48], *out = few;
	size_t i = span_find(e, start), j = i, cnt = 0;
	uint32_t cur = start;

	/* The neighbours that only touch take part, so that they can be merged with. */
	if (i && e->s[i - 1].end == start)
		i--;
	while (j < e->cnt && e->s[j].start <= end)
		j++;
	size_t most = 3 * (j - i) + 2;
	if (most > sizeof few / sizeof few[0]) {
		out = malloc(most * sizeof *out);
		if (!out)
			return -ENOMEM;
	}
	int err = spans_reserve(e, e->cnt + most);
	if (err)
		goto out;
	for (size_t k = i; k < j; k++) {
		struct span s = e->s[k];
		uint32_t from = HF_MAX(s.start, start), to = HF_MIN(s.end, end);
		uint32_t flags = (s.flags & ~clear) | set;

		cnt = span_push(out, cnt, s.start, HF_MIN(s.end, start), s.flags);
		if (from < to) {
			cnt = span_push(out, cnt, cur, from, set);
			count(r, set, from - cur, true);
			cnt = span_push(out, cnt, from, to, flags);
			count(r, s.flags, to - from, false);
			count(r, flags, to - from, true);
			cur = to;
		}
		if (s.end > end) {
			if (cur < end) {
				cnt = span_push(out, cnt, cur, end, set);
				count(r, set, end - cur, true);
				cur = end;
			}
			cnt = span_push(out, cnt, HF_MAX(s.start, end), s.end, s.flags);
		}
	}
	if (cur < end) {
		cnt = span_push(out, cnt, cur, end, set);
		count(r, set, end - cur, true);
	}
	assert(cnt <= most);
	if (cnt == j - i && !memcmp(out, &e->s[i], cnt * sizeof *out))
		goto out;
	memmove(&e->s[i + cnt], &e->s[j], (e->cnt - j) * sizeof *out);
	memcpy(&e->s[i], out, cnt * sizeof *out);
	e->cnt = (uint32_t)(e->cnt - (j - i) + cnt);
	entry_touch(r, e);
out:
	if (out != few)
		free(out);
	return err;
}

/* A chunk's spans changed: it may be gone, or part of a run now.  Room was reserved. */
static void entry_settle(struct ranges *r, size_t i)
{
	struct entry *e = &r->e[i];

	if (e->s && !e->cnt) {
		entry_remove(r, i);
		return;
	}
	if (!e->s || e->cnt > 1 || e->s[0].start || e->s[0].end != RANGE_CHUNK)
		return;
	e->flags = e->s[0].flags;
	free(e->s);
	e->s = NULL;
	e->cnt = e->cap = 0;
	merge_at(r, i);
	if (i)
		merge_at(r, i - 1);
}

static int chunk_set(struct ranges *r, uint64_t chunk, uint32_t start, uint32_t end,
		     unsigned set, unsigned clear)
{
	int err = entries_reserve(r, 3);

	if (!err)
		err = gone_reserve(r, 3);
	if (err)
		return err;
	size_t i = entry_find(r, chunk);
	bool have = i < r->cnt && r->e[i].chunk <= chunk;
	if (!have && !set)
		return 0;
	if (have && !r->e[i].s && ((r->e[i].flags & ~clear) | set) == r->e[i].flags)
		return 0;
	split_at(r, chunk);
	split_at(r, chunk + 1);
	i = entry_find(r, chunk);
	struct entry *e = have ? &r->e[i] : entry_insert(r, i, chunk, 1, 0);
	if (!e->s) {
		err = spans_reserve(e, 4);
		if (!err && have)
			e->s[e->cnt++] = (struct span){0, RANGE_CHUNK, e->flags};
	}
	if (!err)
		err = spans_set(r, e, start, end, set, clear);
	if (e->s)
		entry_settle(r, i);
	else if (!have)
		entry_remove(r, i);
	return err;
}

/* --- whole chunks [a, b) --- */

static int chunks_set(struct ranges *r, uint64_t a, uint64_t b, unsigned set, unsigned clear)
{
	size_t in = entry_find(r, b) - entry_find(r, a) + 1;
	int err = entries_reserve(r, in + 4);

	if (!err)
		err = gone_reserve(r, in + 4);
	if (err)
		return err;
	split_at(r, a);
	split_at(r, b);
	size_t i = entry_find(r, a);
	for (uint64_t pos = a; pos < b;) {
		if (i == r->cnt || r->e[i].chunk > pos) {
			uint64_t next = i == r->cnt ? b : HF_MIN(b, r->e[i].chunk);
			if (set) {
				entry_insert(r, i++, pos, next - pos, set);
				count(r, set, (next - pos) * RANGE_CHUNK, true);
			}
			pos = next;
			continue;
		}
		struct entry *e = &r->e[i];
		pos = e->chunk + e->n;
		if (e->s) {
			size_t before = r->cnt;
			err = spans_set(r, e, 0, RANGE_CHUNK, set, clear);
			if (err)
				return err;
			if (!e->cnt)
				entry_settle(r, i);
			i += r->cnt == before;
			continue;
		}
		uint32_t flags = (e->flags & ~clear) | set;
		if (flags != e->flags) {
			count(r, e->flags, e->n * RANGE_CHUNK, false);
			count(r, flags, e->n * RANGE_CHUNK, true);
			e->flags = flags;
			entry_touch(r, e);
		}
		if (flags)
			i++;
		else
			entry_remove(r, i);
	}
	/* Runs that are alike now become one; single chunks that got full become runs. */
	i = entry_find(r, a);
	if (i)
		i--;
	while (i < r->cnt && r->e[i].chunk <= b) {
		struct entry *e = &r->e[i];
		if (e->s && e->cnt == 1 && !e->s[0].start && e->s[0].end == RANGE_CHUNK) {
			e->flags = e->s[0].flags;
			free(e->s);
			e->s = NULL;
			e->cnt = e->cap = 0;
		}
		if (i && merge_at(r, i - 1))
			continue;
		i++;
	}
	return 0;
}

int ranges_set(struct ranges *r, uint64_t off, uint64_t len, unsigned set, unsigned clear)
{
	assert(len <= UINT64_MAX - off);
	if (!len)
		return 0;
	uint64_t end = off + len;
	uint64_t a = off / RANGE_CHUNK, b = end / RANGE_CHUNK;
	uint32_t head = (uint32_t)(off % RANGE_CHUNK), tail = (uint32_t)(end % RANGE_CHUNK);

	if (a == b)
		return chunk_set(r, a, head, tail, set, clear);
	if (head) {
		int err = chunk_set(r, a, head, RANGE_CHUNK, set, clear);
		if (err)
			return err;
		a++;
	}
	if (a < b) {
		int err = chunks_set(r, a, b, set, clear);
		if (err)
			return err;
	}
	return tail ? chunk_set(r, b, 0, tail, set, clear) : 0;
}

/* --- looking --- */

/* The piece around off: its flags and its end; pieces of equal flags may follow each other. */
static uint32_t piece_at(const struct ranges *r, uint64_t off, uint64_t *end)
{
	uint64_t chunk = off / RANGE_CHUNK, base = chunk * RANGE_CHUNK;
	size_t i = entry_find(r, chunk);

	if (i == r->cnt || r->e[i].chunk > chunk) {
		*end = i == r->cnt ? UINT64_MAX : chunk_off(r->e[i].chunk);
		return 0;
	}
	const struct entry *e = &r->e[i];
	if (!e->s) {
		*end = chunk_off(e->chunk + e->n);
		return e->flags;
	}
	uint32_t at = (uint32_t)(off - base);
	size_t k = span_find(e, at);
	if (k == e->cnt) {
		*end = chunk_off(chunk + 1);
		return 0;
	}
	if (e->s[k].start > at) {
		*end = base + e->s[k].start;
		return 0;
	}
	*end = e->s[k].end == RANGE_CHUNK ? chunk_off(chunk + 1) : base + e->s[k].end;
	return e->s[k].flags;
}

int ranges_at(struct ranges *r, uint64_t off, uint64_t to, unsigned *flags, uint64_t *end)
{
	uint64_t e;

	assert(off < to);
	*flags = piece_at(r, off, &e);
	while (e < to) {
		uint64_t next;
		if (piece_at(r, e, &next) != *flags)
			break;
		e = next;
	}
	*end = HF_MIN(e, to);
	return 0;
}

int ranges_next(struct ranges *r, uint64_t off, uint64_t to, unsigned mask, uint64_t *start,
		uint64_t *end, unsigned *flags)
{
	while (off < to) {
		unsigned f = piece_at(r, off, end);
		if (f & mask) {
			*start = off;
			ranges_at(r, off, to, flags, end);
			return 1;
		}
		off = *end;
	}
	return 0;
}

/* --- the stored form: see FORMAT.md --- */

static void put_varint(struct buf *b, uint64_t v)
{
	for (; v >= 0x80; v >>= 7)
		buf_u8(b, (uint8_t)(v | 0x80));
	buf_u8(b, (uint8_t)v);
}

static uint64_t rd_varint(struct rd *r)
{
	uint64_t v = 0;

	for (unsigned shift = 0; shift < 64; shift += 7) {
		uint8_t c = rd_u8(r);
		if (r->bad)
			return 0;
		/* The shortest form only, and nothing beyond 64 bits. */
		if ((shift && !c) || (shift == 63 && c > 1))
			break;
		v |= (uint64_t)(c & 0x7f) << shift;
		if (!(c & 0x80))
			return v;
	}
	r->bad = true;
	return 0;
}

static uint32_t stored_flags(uint32_t flags)
{
	uint32_t f = flags & STORED;

	if (flags & RG_CUT)
		f |= RG_DIRTY;
	if (flags & RG_CMETA)
		f |= RG_META;
	return f;
}

static bool flags_good(uint32_t f)
{
	return f && !(f & ~STORED) && !((f & RG_DIRTY) && !(f & RG_HAVE));
}

static void encode(const struct entry *e, struct buf *b)
{
	uint32_t prev = 0;

	buf_reset(b);
	if (!e->s) {
		buf_u8(b, MAP_RUN);
		put_varint(b, e->n);
		buf_u8(b, (uint8_t)stored_flags(e->flags));
		return;
	}
	buf_u8(b, MAP_SPANS);
	for (uint32_t i = 0; i < e->cnt;) {
		uint32_t start = e->s[i].start, end = e->s[i].end;
		uint32_t flags = stored_flags(e->s[i].flags);

		for (i++;
		     i < e->cnt && e->s[i].start == end && stored_flags(e->s[i].flags) == flags;
		     i++)
			end = e->s[i].end;
		if (!prev && !start && end == RANGE_CHUNK) {
			/* All alike once stored: that is a run of one. */
			buf_reset(b);
			buf_u8(b, MAP_RUN);
			put_varint(b, 1);
			buf_u8(b, (uint8_t)flags);
			return;
		}
		put_varint(b, start - prev);
		put_varint(b, end - start);
		buf_u8(b, (uint8_t)flags);
		prev = end;
	}
}

/* e: zeroed; e->s is the caller's to free, also after an error. */
static int decode(const void *p, size_t len, struct entry *e)
{
	struct rd r = rd_over(p, len);
	uint64_t prev = 0;
	uint32_t prev_flags = 0;

	switch (rd_u8(&r)) {
	case MAP_RUN:
		e->n = rd_varint(&r);
		e->flags = rd_u8(&r);
		if (r.bad || rd_left(&r) || !e->n || e->n > CHUNKS || !flags_good(e->flags))
			return -EBADMSG;
		return 0;
	case MAP_SPANS:
		e->n = 1;
		break;
	default:
		return -EBADMSG;
	}
	while (rd_left(&r)) {
		uint64_t gap = rd_varint(&r), n = rd_varint(&r);
		uint32_t flags = rd_u8(&r);

		if (r.bad || !n || gap > RANGE_CHUNK || n > RANGE_CHUNK ||
		    prev + gap + n > RANGE_CHUNK || !flags_good(flags) ||
		    (!gap && flags == prev_flags) || n == RANGE_CHUNK)
			return -EBADMSG;
		int err = spans_reserve(e, e->cnt + 1);
		if (err)
			return err;
		e->s[e->cnt++] = (struct span){(uint32_t)(prev + gap),
					       (uint32_t)(prev + gap + n), flags};
		prev += gap + n;
		prev_flags = flags;
	}
	return r.bad || !e->cnt ? -EBADMSG : 0;
}

int ranges_decode_check(const void *p, size_t len)
{
	struct entry e = {0};
	int err = decode(p, len, &e);

	free(e.s);
	return err;
}

int ranges_add(struct ranges *r, uint64_t chunk, const void *p, size_t len)
{
	struct entry e = {0};
	int err = entries_reserve(r, 1);

	if (!err)
		err = decode(p, len, &e);
	const struct entry *last = r->cnt ? &r->e[r->cnt - 1] : NULL;
	if (!err && (chunk >= CHUNKS || e.n > CHUNKS - chunk ||
		     (last && last->chunk + last->n > chunk)))
		err = -EBADMSG;
	/* The last of all bytes is in no range that ranges_set can be given. */
	if (!err && chunk + e.n == CHUNKS && (!e.s || e.s[e.cnt - 1].end == RANGE_CHUNK))
		err = -EBADMSG;
	if (err) {
		free(e.s);
		return err;
	}
	e.chunk = chunk;
	e.stored = true;
	if (!e.s)
		count(r, e.flags, e.n * RANGE_CHUNK, true);
	for (uint32_t i = 0; i < e.cnt; i++)
		count(r, e.s[i].flags, e.s[i].end - e.s[i].start, true);
	r->e[r->cnt++] = e;
	r->memory = 0;
	return 0;
}

int ranges_store(struct ranges *r,
		 int (*store)(void *arg, uint64_t chunk, const struct buf *map), void *arg)
{
	struct buf map = {0};
	int err = 0;

	if (!r->dirty)
		return 0;
	for (size_t i = 0; i < r->gone_cnt && !err; i++) {
		size_t k = entry_find(r, r->gone[i]);
		if (k < r->cnt && r->e[k].chunk == r->gone[i])
			continue; /* written anew below, or stored already */
		err = store(arg, r->gone[i], &map);
	}
	for (size_t i = 0; i < r->cnt && !err; i++) {
		if (!r->e[i].dirty)
			continue;
		encode(&r->e[i], &map);
		err = map.err ? map.err : store(arg, r->e[i].chunk, &map);
	}
	buf_release(&map);
	if (err)
		return err;
	for (size_t i = 0; i < r->cnt; i++) {
		r->e[i].stored = true;
		r->e[i].dirty = false;
	}
	r->gone_cnt = 0;
	r->dirty = false;
	return 0;
}
