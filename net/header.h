/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * header: the volume header "v/h<generation>", written by create and recover, signed by the
 * owner: format version, volume id, K, M, kit slot in the clear; node list and device
 * certificates sealed under the volume key.  Never overwritten: a change is a new generation
 * and the highest one with a good signature holds.  The lower 16 bits of a generation are the
 * device that wrote it, so that no two write the same one.
 */
#ifndef HOLDFAST_NET_HEADER_H
#define HOLDFAST_NET_HEADER_H

#include "net/history.h"

#define FORMAT_VERSION 1
#define HEADER_CAP (1u << 20)

struct header {
	uint8_t vol[VOL_LEN];
	uint32_t generation;
	uint8_t k, m;
	uint8_t owner_ed_pk[32], owner_x_pk[32];
	uint8_t kit_slot[KIT_SLOT_LEN];
	struct rec_node *node; /* urls malloc'ed, owned */
	size_t node_cnt;
	struct rec_device *device;
	size_t device_cnt;
};
void header_release(struct header *h);
int header_encode(const struct header *h, const struct keys *k, const struct owner *o,
		  struct buf *out);
/* The clear part: signature and caps. owner_pk NULL: only self-consistent. */
int header_decode(const void *p, size_t len, const uint8_t owner_pk[32], struct header *out);
/* The sealed part (after the volume key is known), into the same struct. */
int header_unseal(const void *p, size_t len, const struct keys *k, struct header *h);
int header_put(struct volume *v, const struct header *h, const struct buf *bytes);
/*
 * Two recoveries at once may each have stored a header of its own, neither of which names the
 * other's device.  header_merge adds to h->device what any header on the nodes certifies;
 * *fresh = how many devices h did not have.  0; -ENODATA too few nodes answer; -ENOMEM.
 */
int header_merge(struct volume *v, const uint8_t owner_pk[32], struct header *h,
		 unsigned *fresh);
/* The devices of a header ascend by number. */
int header_add_device(struct header *h, const struct rec_device *d);

/*
 * A list of nodes as headers and rosters have it: ascending numbers, urls malloc'ed and
 * 0-terminated.  *node and *node_cnt are the caller's also after -EBADMSG and -ENOMEM.
 */
int header_get_nodes(struct rd *r, struct rec_node **node, size_t *node_cnt);

/* The decoder below the seal, for tests and fuzzing: node and device lists of h. */
int header_body_decode(const void *p, size_t len, struct header *h);
/* 0 when these bytes are this owner's header of this volume and belong below this name. */
int header_verify(const uint8_t vol[VOL_LEN], const uint8_t owner_pk[32], const char *name,
		  const void *p, size_t len);
/* "v/h" and the generation in decimal. */
void header_name(uint32_t generation, char out[BLOB_NAME_CAP]);

/* The certificate of a device: owner's signature over {vol, number, ed_pk, role}. */
int header_certify(const struct owner *o, const uint8_t vol[VOL_LEN], struct rec_device *d);
int header_check_cert(const uint8_t owner_pk[32], const uint8_t vol[VOL_LEN],
		      const struct rec_device *d);

/*
 * Finds the newest header of volume `vol` signed by owner_pk on these nodes (before any key
 * is known).  answered/with_header tell how many nodes were there and how many had one.
 * -ENODATA when none answered, -ENOENT when none has a header of this volume (wrong kit or
 * emptied nodes), -EBADMSG when only damaged ones.
 */
int header_fetch(struct node **node, size_t node_cnt, const uint8_t vol[VOL_LEN],
		 const uint8_t owner_pk[32], int64_t deadline_ms, struct buf *bytes,
		 struct header *out, unsigned *answered, unsigned *with_header);

#endif
