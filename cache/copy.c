/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "cache/datafile.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>
#include "cache/quota.h"

#define COPY_BUF   ((size_t)1 << 20)
#define COPY_BYTES ((uint64_t)16 << 20)	 /* bytes moved by one call at most */
#define COPY_SHARE ((uint64_t)256 << 20) /* bytes shared by one call at most */
#define SHARE_MIN  4096			 /* smaller pieces are copied: a row costs more */
#define SEEK_SLICE 512			 /* steps in one hold of st->meta */

/* --- holes and data --- */

/* The first data (hole) at or after *pos below `end`; 1 found, 0 not found yet, *pos moved. */
static int seek_step_locked(struct store *st, struct inode *in, uint64_t *pos, uint64_t end,
			    bool data)
{
	struct extent e;
	unsigned flags;
	uint64_t stop, start;

	ranges_at(in->spans, *pos, end, &flags, &stop);
	if (flags & RG_HAVE) {
		if (data)
			return 1;
		*pos = stop;
		return 0;
	}
	int got = extent_at_locked(st, in->ino, *pos, &e);
	if (got < 0)
		return got;
	if (got && e.off <= *pos) {
		if (data)
			return 1;
		*pos = e.off + e.len;
		return 0;
	}
	if (!data)
		return 1;
	/* A hole as far as the next extent or the next bytes here. */
	uint64_t next = got ? HF_MIN(e.off, end) : end;
	if (ranges_next(in->spans, stop, next, RG_HAVE, &start, &stop, &flags) == 1)
		next = start;
	*pos = next;
	return 0;
}

int64_t data_seek(struct store *st, struct inode *in, uint64_t off, int whence)
{
	uint64_t pos = off;
	int err, found = 0;

	if (whence != SEEK_DATA && whence != SEEK_HOLE)
		return -EINVAL;
	err = iolock_read(&in->io);
	if (err)
		return err;
	pthread_mutex_lock(&st->meta);
	uint64_t size = in->size;
	bool large = in->flags & INODE_LARGE;
	if (off >= size)
		err = -ENXIO;
	else if (large)
		err = datafile_load_locked(st, in);
	else
		pos = whence == SEEK_DATA ? off : size;
	for (unsigned steps = 0; !err && large && !found && pos < size; steps++) {
		if (steps % SEEK_SLICE == SEEK_SLICE - 1) {
			pthread_mutex_unlock(&st->meta);
			pthread_mutex_lock(&st->meta);
		}
		found = seek_step_locked(st, in, &pos, size, whence == SEEK_DATA);
		if (found < 0)
			err = found;
	}
	pthread_mutex_unlock(&st->meta);
	iolock_unlock(&in->io);
	if (err)
		return err;
	pos = HF_MIN(pos, size);
	/* The end of the file counts as a hole, but not as data. */
	return pos == size && whence == SEEK_DATA ? -ENXIO : (int64_t)pos;
}

/* Bytes of [off, end) that no bytes here or on nodes are behind. */
static int64_t holes_locked(struct store *st, struct inode *in, uint64_t off, uint64_t end)
{
	uint64_t size = HF_MAX(in->size, off), n = end > size ? end - size : 0;

	end = HF_MIN(end, size);
	if (!(in->flags & INODE_LARGE))
		return (int64_t)n;
	int err = datafile_load_locked(st, in);
	while (!err && off < end) {
		struct extent e;
		unsigned flags;
		uint64_t stop;

		ranges_at(in->spans, off, end, &flags, &stop);
		if (!(flags & RG_HAVE)) {
			int got = extent_at_locked(st, in->ino, off, &e);
			if (got < 0)
				return got;
			if (got && e.off <= off) {
				stop = HF_MIN(stop, e.off + e.len);
			} else {
				stop = got ? HF_MIN(stop, e.off) : stop;
				n += stop - off;
			}
		}
		off = stop;
	}
	return err ? err : (int64_t)n;
}

int data_quota(struct store *st, struct inode *in, uint64_t off, uint64_t len)
{
	if (!atomic_load(&st->quota))
		return 0;
	pthread_mutex_lock(&st->meta);
	int err = quota_check_locked(st, len);
	if (err) {
		int64_t n = holes_locked(st, in, off, off + len);
		err = n < 0 ? (int)n : quota_check_locked(st, (uint64_t)n);
	}
	pthread_mutex_unlock(&st->meta);
	return err;
}

/* --- copy_file_range --- */

struct share {
	struct extent *e;
	size_t cnt, cap;
};

static int share_add(struct share *s, struct extent e)
{
	if (s->cnt == s->cap) {
		size_t cap = s->cap * 2 + 16;
		struct extent *p = realloc(s->e, cap * sizeof *p);
		if (!p)
			return -ENOMEM;
		s->e = p;
		s->cap = cap;
	}
	s->e[s->cnt++] = e;
	return 0;
}

/*
 * How far from off the source consists of published extents and holes, and those extents
 * moved by `shift`; *end = off when the bytes there must be copied.
 */
static int share_locked(struct store *st, struct inode *src, uint64_t off, uint64_t to,
			uint64_t shift, struct share *s, uint64_t *end)
{
	uint64_t pos = off;

	while (pos < to) {
		struct extent e;
		unsigned flags;
		uint64_t stop;

		ranges_at(src->spans, pos, to, &flags, &stop);
		if (flags & (RG_DIRTY | RG_CUT))
			break;
		int got = extent_at_locked(st, src->ino, pos, &e);
		if (got < 0)
			return got;
		if (!got || e.off >= stop) {
			/* Clean bytes without an extent do not exist; be careful all the same.
			 */
			if (flags & RG_HAVE)
				break;
			pos = stop;
			continue;
		}
		if (e.off > pos) {
			if (flags & RG_HAVE)
				break;
			pos = e.off;
			continue;
		}
		uint64_t last = HF_MIN(stop, e.off + e.len);
		struct extent part = {pos + shift, last - pos, e.seg,
				      e.seg_off + (uint32_t)(pos - e.off)};
		if (part.len < SHARE_MIN && flags & RG_HAVE)
			break;
		int err = share_add(s, part);
		if (err)
			return err;
		pos = last;
	}
	*end = pos;
	return 0;
}

/* Shares what can be shared beginning at src_off; the length done, 0: it must be copied. */
static int64_t share_io(struct store *st, struct inode *src, uint64_t src_off,
			struct inode *dst, uint64_t dst_off, uint64_t len, bool kill_priv)
{
	struct share s = {0};
	uint64_t end = src_off;

	len = HF_MIN(len, COPY_SHARE);
	pthread_mutex_lock(&st->meta);
	bool large = src->flags & INODE_LARGE;
	int err = large ? datafile_load_locked(st, src) : 0;
	bool grow = !(dst->flags & INODE_LARGE);
	/* A small file takes bytes, unless it becomes a large one by this. */
	bool fits = large && (!grow || dst_off + len > SMALL_MAX);
	bool here = !grow || !dst->size || dst->flags & INODE_SMALL_HAVE;
	if (!err && fits && here)
		err = share_locked(st, src, src_off, src_off + len, dst_off - src_off, &s,
				   &end);
	pthread_mutex_unlock(&st->meta);
	if (!err && end > src_off && grow) {
		if (dst_off + (end - src_off) <= SMALL_MAX)
			end = src_off;
		else
			err = data_make_large(st, dst);
	}
	if (!err && end > src_off) {
		struct punch p = {.off = dst_off,
				  .end = dst_off + (end - src_off),
				  .size_set = PUNCH_SIZE_KEEP,
				  .size_min = dst_off + (end - src_off),
				  .put = s.e,
				  .put_cnt = s.cnt,
				  .kill_priv = kill_priv};
		err = data_punch_io(st, dst, &p);
	}
	free(s.e);
	/* The bytes or extents that were found have moved meanwhile: copying finds them. */
	if (err == -EAGAIN)
		return 0;
	return err ? err : (int64_t)(end - src_off);
}

static int64_t copy_io(struct store *st, struct inode *src, uint64_t src_off, struct inode *dst,
		       uint64_t dst_off, uint64_t len, bool kill_priv)
{
	uint64_t at = 0, bytes = 0;
	uint8_t *buf = NULL;
	int64_t n = 0;

	pthread_mutex_lock(&st->meta);
	len = src_off < src->size ? HF_MIN(len, src->size - src_off) : 0;
	pthread_mutex_unlock(&st->meta);
	while (at < len && bytes < COPY_BYTES) {
		/* What is shared counts as often as it is named. */
		uint64_t step = HF_MIN(len - at, COPY_SHARE);
		n = data_quota(st, dst, dst_off + at, step);
		if (n == -EDQUOT) {
			step = HF_MIN(step, (uint64_t)COPY_BUF);
			n = data_quota(st, dst, dst_off + at, step);
		}
		if (!n)
			n = share_io(st, src, src_off + at, dst, dst_off + at, step, kill_priv);
		if (n < 0)
			break;
		if (n) {
			at += (uint64_t)n;
			continue;
		}
		if (!buf && !(buf = malloc(COPY_BUF))) {
			n = -ENOMEM;
			break;
		}
		size_t want = (size_t)HF_MIN(len - at, (uint64_t)COPY_BUF);
		n = store_space_for(st, want);
		if (!n)
			n = data_read_io(st, src, buf, want, src_off + at,
					 now_ms() + READ_DEADLINE_MS);
		if (n <= 0)
			break;
		int err = data_write_io(st, dst, buf, (size_t)n, dst_off + at, kill_priv);
		if (err) {
			n = err;
			break;
		}
		at += (uint64_t)n;
		bytes += (uint64_t)n;
	}
	free(buf);
	return at ? (int64_t)at : n;
}

/* By ascending number; the same one is taken once. */
static int lock_both(struct inode *src, struct inode *dst)
{
	bool first = src != dst && src->ino < dst->ino;
	int err = first ? iolock_read(&src->io) : iolock_write(&dst->io);

	if (err || src == dst)
		return err;
	err = first ? iolock_write(&dst->io) : iolock_read(&src->io);
	if (err)
		iolock_unlock(first ? &src->io : &dst->io);
	return err;
}

int64_t data_copy(struct store *st, struct inode *src, uint64_t src_off, struct inode *dst,
		  uint64_t dst_off, uint64_t len, bool kill_priv)
{
	if (src_off > DATA_MAX || dst_off > DATA_MAX)
		return -EFBIG;
	len = HF_MIN(len, DATA_MAX - HF_MAX(src_off, dst_off));
	if (src == dst && src_off < dst_off + len && dst_off < src_off + len)
		return len ? -EINVAL : 0;
	if (!len)
		return 0;
	int err = lock_both(src, dst);
	if (err)
		return err;
	int64_t n = copy_io(st, src, src_off, dst, dst_off, len, kill_priv);
	iolock_unlock(&dst->io);
	if (src != dst)
		iolock_unlock(&src->io);
	store_pressure(st);
	return n;
}
