/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * history: commits, snapshots, takeovers.  Immutable log objects below "l/", whole copies
 * on the nodes, each device in a chain of its own.
 *
 * A commit: magic8 version vol16, then sealed: {device, seq, lamport, time, prev hash, seen
 * vector, parts, inline zstd records}, padded (Padmé), Ed25519 by the device over all before.
 * Records above 256 KiB compressed go into `parts`: ordinary erasure-coded segments.
 * A snapshot root has the same form: its records are all states; it says (from, to]: what it
 * holds may be newer than `from`, so it is true only together with the commits from+1 .. to.
 * Names are MACs of (kind, device, number), so that a holder of the keys finds the newest
 * without reading everything: snapshots are numbered 1, 2, 3 ...
 *
 * Published: a commit is on at least volume.quorum nodes.
 */
#ifndef HOLDFAST_NET_HISTORY_H
#define HOLDFAST_NET_HISTORY_H

#include "net/record.h"

#define COMMIT_CAP (2u << 20) /* a log object's size */
#define HIST_DEVICES_MAX 4096

/* The end of one device's chain as somebody saw it. */
struct hist_seen {
	uint16_t device;
	uint64_t seq;
	uint8_t hash[HASH_LEN]; /* H of that commit object */
};

struct hist_head {
	bool snapshot;
	uint16_t device;
	uint64_t seq; /* of the commit; the number of the snapshot */
	uint64_t lamport;
	int64_t time_ns;
	uint8_t prev[HASH_LEN]; /* zero for seq 1 */
	struct hist_seen *seen; /* other devices; for a snapshot: all, = its `from` */
	uint32_t seen_cnt;
	uint64_t snap_to; /* snapshot: this device's seq that must be applied as well */
};

/*
 * history_build(v, head, w, obj, parts, part_cnt): uploads the parts if there are any, then
 * encodes, seals and signs the object into *obj.  *parts (malloc) says where the segments of
 * the records are.  Retries must use the same *obj.  -EAGAIN: not enough nodes.
 */
int history_build(struct volume *v, const struct hist_head *head, struct rec_writer *w,
		  struct buf *obj, struct seg_place **parts, size_t *part_cnt);
/* PUTs a built object under its name; 0 on at least v->quorum nodes, else -EAGAIN. */
int history_put(struct volume *v, const struct hist_head *head, const struct buf *obj);
void history_hash(const struct buf *obj, uint8_t out[HASH_LEN]);
/*
 * What nobody needs any more of one device's log: commits below `commit`, snapshots below
 * `snap`.  Those from there up to, and without, the ends are known to be in use.
 */
struct hist_floor {
	uint16_t device;
	uint64_t commit, commit_end;
	uint64_t snap, snap_end;
};
/*
 * Deletes what lies below the floors on the nodes that answer.  It goes by what they list, so
 * a node that was away is cleared when it is called again.  stop (may be NULL) is asked
 * between deletions.  0, -ECANCELED, -ENODATA when no node answers, -ENOMEM.
 */
int history_trim(struct volume *v, const struct hist_floor *floor, size_t floor_cnt,
		 bool (*stop)(void *arg), void *arg);

/*
 * history_check: has anybody taken this device's place?  Asks at least n-quorum+1 nodes (so
 * that it meets every takeover that finished): 0 no; 1 yes, *by = the new device's number;
 * -EAGAIN when too few nodes answer.
 */
int history_check(struct volume *v, uint16_t device, const uint8_t owner_pk[32], uint16_t *by);
/* Also checks that this device's own chain on the nodes does not go on beyond `seq`, that is,
 * that this state directory is not an old copy: 0, 1 = a later commit of ours exists, or a
 * snapshot of ours that reaches beyond; -EAGAIN when too few nodes answer to say no. */
int history_ahead(struct volume *v, uint16_t device, uint64_t seq);
/*
 * Does any node still show commit `seq` (not 0) of this device, or a snapshot of ours that has
 * it: 1; 0 no, and enough answered: what was published is gone, the nodes were set back;
 * -EAGAIN when too few answer.
 */
int history_shows(struct volume *v, uint16_t device, uint64_t seq);

/*
 * history_takeover(v, o, old, by): signed by the owner, to quorum nodes, before the chain of
 * `old` is read for the last time.
 */
int history_takeover(struct volume *v, const struct owner *o, uint16_t old, uint16_t by);
/*
 * history_takers: every device that has taken `device` over, in whatever order:
 * by[0..*cnt-1].  Of two takeovers at once, each of which calls this when its own is done,
 * at least one sees the other.  0; -EAGAIN when too few nodes answer; -EBADMSG too many.
 */
#define HIST_TAKERS 64
int history_takers(struct volume *v, uint16_t device, const uint8_t owner_pk[32],
		   uint16_t by[HIST_TAKERS], size_t *cnt);

/*
 * struct hist_state: what a loader has: fill with zeros for "nothing".
 */
struct hist_state {
	struct hist_seen *seen; /* every device's newest applied commit; malloc */
	uint32_t seen_cnt;
	uint64_t lamport;
	uint64_t snap; /* newest snapshot number of the device it came from */
	uint16_t snap_device;
	int64_t time_ns; /* of the newest commit */
	struct seg_place *parts; /* segments that hold records still needed; malloc */
	size_t part_cnt;
	unsigned answered; /* nodes that listed what they have */
};
void hist_state_release(struct hist_state *s);

/*
 * history_load(v, pk, st, cb, arg): finds the newest whole state on the nodes that answer
 * and hands every record stream (decompressed in pieces of whole records, in the order in
 * which they must be applied) to cb:
 *   begin(arg, head, object)          one log object starts
 *   records(arg, stamp-decoded rd)    some whole records
 *   end(arg, head)                    it is complete
 * Each object's signature, chain and parts are verified before its first record is handed
 * out, except that the records within a part are verified part by part (AEAD).
 * device_pk: the owner-certified keys by device number (from the header).
 * floor: refuse states older than this seen vector (-ESTALE, says which device and seq).
 * Returns 0; -ENODATA: too few nodes (log line says how many answered and are needed);
 * -EBADMSG; -ESTALE; what cb returned.
 */
struct hist_cb {
	int (*begin)(void *arg, const struct hist_head *head);
	int (*records)(void *arg, struct rd *r);
	int (*end)(void *arg, const struct hist_head *head);
};
struct hist_device {
	uint16_t number;
	/*
	 * Taken over.  Its chain ends where those that came after it saw it end: what it still
	 * sent is no part of the drive, for what came after was made without it.
	 */
	bool retired;
	uint8_t ed_pk[32];
};
int history_load(struct volume *v, const struct hist_device *dev, size_t dev_cnt,
		 const struct hist_seen *floor, size_t floor_cnt, struct hist_state *st,
		 const struct hist_cb *cb, void *arg);

/*
 * The last commit of a chain may have been read from one node alone.  Before anything builds
 * on it it is put on a quorum: the ends of all chains of st.  0 or -errno.
 */
int history_secure(struct volume *v, const struct hist_device *dev, size_t dev_cnt,
		   const struct hist_state *st);

/*
 * Verifies any blob of "l/", "v/h" or "v/n" for repair_blobs: 0 when genuine; -ESTALE genuine,
 * but below a floor; -ENOKEY by a device that is not known here; -ENOTSUP; -EBADMSG.
 */
struct hist_verify {
	struct volume *v;
	const struct hist_device *dev;
	size_t dev_cnt;
	uint8_t owner_pk[32];
	const struct hist_floor *floor;
	size_t floor_cnt;
	uint64_t roster; /* rosters of a lower count than this one's are of no use */
};
int history_verify_blob(void *hist_verify, const char *name, const void *p, size_t len);

/* Decoders, pure, for tests and fuzzing. */
int history_open(const struct keys *k, const struct hist_device *dev, size_t dev_cnt,
		 const void *p, size_t len, struct hist_head *head, struct buf *inline_records,
		 struct seg_place **parts, size_t *part_cnt);
void hist_head_release(struct hist_head *h);

#endif
