/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * histobj: the bytes of commits, snapshot roots and takeover markers.  Bytes in, bytes out;
 * no I/O.  What is done with them is in history.c and histload.c.
 */
#ifndef HOLDFAST_NET_HISTOBJ_H
#define HOLDFAST_NET_HISTOBJ_H

#include "net/history.h"

#define HIST_INLINE_MAX	    (256u << 10) /* compressed records within the object */
#define HIST_INLINE_RAW_MAX (32u << 20)	 /* and what they may become */
#define HIST_PARTS_MAX	    16384u
#define HIST_RAW_MAX	    ((uint64_t)1 << 42)
#define MARKER_CAP	    1024

/* A decoded log object.  Its records are in z or, when part_cnt > 0, in the parts. */
struct hist_object {
	struct hist_head head;
	uint64_t raw_len, z_len; /* of the record stream, plain and compressed */
	struct seg_place *part;
	size_t part_cnt;
	struct buf z;
	uint8_t hash[HASH_LEN]; /* set by hist_object_open */
};
void hist_object_release(struct hist_object *o);

/* The part under the seal.  Encoding sorts nothing: head.seen must ascend by device. */
int hist_body_encode(const struct hist_object *o, struct buf *out);
int hist_body_decode(const void *p, size_t len, bool snapshot, struct hist_object *out);

/* The object as it is stored, signed by the device of k.  -EINVAL, -EFBIG, -ENOMEM. */
int hist_object_seal(const struct keys *k, const struct hist_object *o, struct buf *out);
/* -EBADMSG; -ENOTSUP a newer version; -ENOKEY genuine, but by a device not in dev. */
int hist_object_open(const struct keys *k, const struct hist_device *dev, size_t dev_cnt,
		     const void *p, size_t len, struct hist_object *out);

/* "Device `old` has been replaced by `by`"; number counts the takeovers of `old` from 0. */
struct hist_marker {
	uint16_t old, by;
	uint64_t number;
};
int hist_marker_seal(const struct keys *k, const struct owner *o, const struct hist_marker *m,
		     struct buf *out);
int hist_marker_open(const struct keys *k, const uint8_t owner_pk[32], const void *p, size_t len,
		     struct hist_marker *out);

/* Does the object with this head belong below this name? */
bool hist_name_is(const struct keys *k, const struct hist_head *h, const char *name);

#endif
