/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * A stream of records is one zstd frame with a checksum.  The writer keeps what it has
 * compressed; the reader gives out whole records as soon as they are there.
 */
#include "net/record.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>
#include <zstd.h>

#define ZLEVEL	       3
#define ZWINDOW_LOG    21 /* of what is written: 2 MiB */
#define ZWINDOW_MAX    23 /* of what is read */
#define WRITER_MEM_MAX ((size_t)4 << 20)
#define REC_HEAD_LEN   6

struct rec_writer {
	ZSTD_CCtx *cctx;
	char *tmp_dir;
	int fd;		/* -1 while everything is in mem */
	struct buf mem; /* with a file: what is not written yet */
	uint64_t file_len, raw_len;
	bool finished;
	int err; /* the first error; the stream is of no use then */
};

int rec_writer_new(struct rec_writer **out, const char *tmp_dir)
{
	*out = NULL;
	struct rec_writer *w = calloc(1, sizeof *w);
	if (!w)
		return -ENOMEM;
	w->fd = -1;
	w->tmp_dir = strdup(tmp_dir);
	w->cctx = ZSTD_createCCtx();
	if (!w->tmp_dir || !w->cctx ||
	    ZSTD_isError(ZSTD_CCtx_setParameter(w->cctx, ZSTD_c_compressionLevel, ZLEVEL)) ||
	    ZSTD_isError(ZSTD_CCtx_setParameter(w->cctx, ZSTD_c_windowLog, ZWINDOW_LOG)) ||
	    ZSTD_isError(ZSTD_CCtx_setParameter(w->cctx, ZSTD_c_checksumFlag, 1))) {
		rec_writer_free(w);
		return -ENOMEM;
	}
	*out = w;
	return 0;
}

void rec_writer_free(struct rec_writer *w)
{
	if (!w)
		return;
	ZSTD_freeCCtx(w->cctx);
	if (w->fd >= 0)
		close(w->fd);
	buf_release(&w->mem);
	free(w->tmp_dir);
	free(w);
}

uint64_t rec_writer_raw_len(const struct rec_writer *w)
{
	return w->raw_len;
}

static int tmp_file(const char *dir)
{
	char *path;

	if (asprintf(&path, "%s/records.XXXXXX", dir) < 0)
		return -ENOMEM;
	int fd = mkostemp(path, O_CLOEXEC);
	if (fd < 0)
		fd = log_fail(-errno, "cannot make a temporary file in %s: %s", dir,
			      strerror(errno));
	else
		unlink(path);
	free(path);
	return fd;
}

/* Moves what is in memory to the end of the file. */
static int spill(struct rec_writer *w)
{
	if (w->fd < 0) {
		int fd = tmp_file(w->tmp_dir);
		if (fd < 0)
			return fd;
		w->fd = fd;
	}
	for (size_t done = 0; done < w->mem.len;) {
		ssize_t n = pwrite(w->fd, w->mem.p + done, w->mem.len - done,
				   (off_t)(w->file_len + done));
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return log_fail(n < 0 ? -errno : -EIO, "temporary file in %s: %s",
					w->tmp_dir, strerror(n < 0 ? errno : EIO));
		done += (size_t)n;
	}
	w->file_len += w->mem.len;
	buf_reset(&w->mem);
	return 0;
}

static int compress_some(struct rec_writer *w, ZSTD_inBuffer *in, ZSTD_EndDirective how)
{
	size_t left, step = ZSTD_CStreamOutSize();

	do {
		if (w->mem.len >= WRITER_MEM_MAX) {
			int err = spill(w);
			if (err)
				return err;
		}
		uint8_t *to = buf_room(&w->mem, step);
		if (!to)
			return w->mem.err;
		ZSTD_outBuffer out = {to, step, 0};
		left = ZSTD_compressStream2(w->cctx, &out, in, how);
		if (ZSTD_isError(left))
			return log_fail(-EIO, "zstd: %s", ZSTD_getErrorName(left));
		w->mem.len += out.pos;
	} while (how == ZSTD_e_end ? left > 0 : in->pos < in->size);
	return 0;
}

int rec_writer_add(struct rec_writer *w, struct buf *b)
{
	if (!w->err)
		w->err = w->finished ? -EINVAL : b->err;
	if (!w->err && b->len) {
		ZSTD_inBuffer in = {b->p, b->len, 0};
		w->err = compress_some(w, &in, ZSTD_e_continue);
		w->raw_len += b->len;
	}
	buf_reset(b);
	return w->err;
}

int rec_writer_finish(struct rec_writer *w, uint64_t *z_len)
{
	ZSTD_inBuffer in = {NULL, 0, 0};

	if (!w->err && !w->finished)
		w->err = compress_some(w, &in, ZSTD_e_end);
	if (!w->err && w->fd >= 0 && w->mem.len)
		w->err = spill(w);
	w->finished = true;
	*z_len = w->file_len + w->mem.len;
	return w->err;
}

int rec_writer_read(struct rec_writer *w, uint64_t off, void *p, size_t len)
{
	uint8_t *to = p;

	if (w->err)
		return w->err;
	uint64_t all = w->file_len + w->mem.len;
	if (!w->finished || off > all || len > all - off)
		return -EINVAL;
	if (w->fd < 0) {
		if (len)
			memcpy(to, w->mem.p + off, len);
		return 0;
	}
	while (len) {
		ssize_t n = pread(w->fd, to, len, (off_t)off);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return log_fail(n < 0 ? -errno : -EIO, "temporary file in %s: %s",
					w->tmp_dir, strerror(n < 0 ? errno : EIO));
		to += n;
		off += (uint64_t)n;
		len -= (size_t)n;
	}
	return 0;
}

/* --- the way back --- */

struct rec_reader {
	ZSTD_DCtx *dctx;
	struct buf raw; /* begins with a record that is not whole yet */
	uint64_t raw_len, got;
	bool ended; /* the frame is complete */
	int (*sink)(void *arg, struct rd *r);
	void *arg;
};

int rec_reader_new(struct rec_reader **out, uint64_t raw_len,
		   int (*sink)(void *arg, struct rd *r), void *arg)
{
	*out = NULL;
	struct rec_reader *rr = calloc(1, sizeof *rr);
	if (!rr)
		return -ENOMEM;
	rr->raw_len = raw_len;
	rr->sink = sink;
	rr->arg = arg;
	rr->dctx = ZSTD_createDCtx();
	if (!rr->dctx ||
	    ZSTD_isError(ZSTD_DCtx_setParameter(rr->dctx, ZSTD_d_windowLogMax, ZWINDOW_MAX))) {
		rec_reader_free(rr);
		return -ENOMEM;
	}
	*out = rr;
	return 0;
}

void rec_reader_free(struct rec_reader *rr)
{
	if (!rr)
		return;
	ZSTD_freeDCtx(rr->dctx);
	buf_release(&rr->raw);
	free(rr);
}

/* Hands the whole records at the front of raw to the sink and keeps the rest. */
static int hand_out(struct rec_reader *rr)
{
	size_t whole = 0;

	while (rr->raw.len - whole >= REC_HEAD_LEN) {
		uint32_t len = get_le32(rr->raw.p + whole + 2);
		if (len > REC_BODY_MAX)
			return -EBADMSG;
		if (rr->raw.len - whole - REC_HEAD_LEN < len)
			break;
		whole += REC_HEAD_LEN + len;
	}
	if (!whole)
		return 0;
	struct rd r = rd_over(rr->raw.p, whole);
	int err = rr->sink(rr->arg, &r);
	memmove(rr->raw.p, rr->raw.p + whole, rr->raw.len - whole);
	rr->raw.len -= whole;
	return err;
}

int rec_reader_feed(struct rec_reader *rr, const void *p, size_t len)
{
	ZSTD_inBuffer in = {p, len, 0};
	size_t step = ZSTD_DStreamOutSize();

	for (;;) {
		if (rr->ended)
			return in.pos < in.size ? -EBADMSG : 0;
		uint8_t *to = buf_room(&rr->raw, step);
		if (!to)
			return rr->raw.err;
		ZSTD_outBuffer out = {to, step, 0};
		size_t more = ZSTD_decompressStream(rr->dctx, &out, &in);
		if (ZSTD_isError(more))
			return -EBADMSG;
		rr->ended = more == 0;
		rr->raw.len += out.pos;
		rr->got += out.pos;
		if (rr->got > rr->raw_len)
			return -EBADMSG;
		int err = out.pos ? hand_out(rr) : 0;
		if (err)
			return err;
		/* Output that was not filled up means that all input is used. */
		if (!rr->ended && in.pos == in.size && out.pos < out.size)
			return 0;
	}
}

int rec_reader_end(struct rec_reader *rr)
{
	return rr->ended && rr->got == rr->raw_len && !rr->raw.len ? 0 : -EBADMSG;
}
