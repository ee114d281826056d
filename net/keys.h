/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * keys: the volume key, everything derived from it, and the ways to wrap it.
 *
 * All secrets live in one sodium_malloc slab per struct keys.  One key per purpose
 * (crypto_kdf contexts and keyed BLAKE2b with a personal tag), see net/FORMAT.md.
 * H(tag,x) = BLAKE2b-256 with personal = tag; MAC(k,tag,x) = the same, keyed.
 *
 * A struct keys is immutable after creation and may be used from any thread.
 */
#ifndef HOLDFAST_NET_KEYS_H
#define HOLDFAST_NET_KEYS_H

#include "net/base.h"

#define KEY_LEN	 32
#define VOL_LEN	 16
#define SEG_LEN	 16
#define NAME_LEN 32 /* base32 of 20 bytes, without the terminating 0 */
#define HASH_LEN 32
#define SIG_LEN	 64

struct seg_id {
	uint8_t b[SEG_LEN];
};

/* sodium_init, PR_SET_DUMPABLE 0, RLIMIT_CORE 0.  -EIO with a log line when it cannot be. */
int keys_global_init(void);

void hash_tag(const char tag[static 1], const void *in, size_t len, uint8_t out[HASH_LEN]);

/*
 * struct owner: derived from the 32 random bytes of the kit.  Signs headers, device
 * certificates, takeovers; opens the kit slot.  Exists only at create and recover.
 */
struct owner {
	uint8_t ed_pk[32], x_pk[32];
	uint8_t *secret; /* sodium_malloc: ed_sk 64, x_sk 32 */
};
int owner_new(struct owner **out, const uint8_t kit[KEY_LEN]);
void owner_free(struct owner *o);
int owner_sign(const struct owner *o, const char *tag, const void *p, size_t len, uint8_t sig[SIG_LEN]);
int owner_verify(const uint8_t ed_pk[32], const char *tag, const void *p, size_t len,
		 const uint8_t sig[SIG_LEN]); /* 0 or -EBADMSG */

struct keys;

/* A new volume key and a new device.  device >= 1. */
int keys_create(struct keys **out, const uint8_t vol[VOL_LEN], uint16_t device);
/* The same volume key (opened from the kit slot), a new device's own keys. */
int keys_adopt(struct keys **out, const uint8_t vol[VOL_LEN], uint16_t device,
	       const uint8_t vk[KEY_LEN]);
void keys_free(struct keys *k);
/* In a new process: what fork does not take along is done again (memory is locked). */
int keys_forked(struct keys *k);

const uint8_t *keys_vol(const struct keys *k);
uint16_t keys_device(const struct keys *k);
const uint8_t *keys_device_pk(const struct keys *k); /* Ed25519, 32 bytes */

/* Sign with the device key / verify with any device's public key (0 or -EBADMSG). */
int keys_sign(const struct keys *k, const char *tag, const void *p, size_t len, uint8_t sig[SIG_LEN]);

/*
 * The local key file: vol, device, VK and the device secrets, sealed under a passphrase
 * (Argon2id, moderate: t=3, m=256 MiB; a reader caps t <= 16 and m <= 4 GiB) or, with pass
 * == NULL, under a random key stored beside it in the same file (mode 0600).
 * HOLDFAST_ARGON_MIB in the environment lowers m for new slots (tests); never below 8.
 * keys_load: -EACCES wrong passphrase (or pass == NULL where one is needed),
 * -EBADMSG damaged, -ENOTSUP a newer version.
 */
int keys_save(const struct keys *k, const char *path, const char *pass);
int keys_load(struct keys **out, const char *path, const char *pass);
int keys_needs_pass(const char *path); /* 1, 0 or -errno */

/* Kit slot: VK sealed to the owner's X25519 key, with a commitment; opened with the owner. */
#define KIT_SLOT_LEN (KEY_LEN + 48 + HASH_LEN)
int keys_kit_slot(const struct keys *k, const uint8_t x_pk[32], uint8_t slot[KIT_SLOT_LEN]);
int kit_slot_open(const struct owner *o, const uint8_t slot[KIT_SLOT_LEN], uint8_t vk[KEY_LEN]);

/* Passphrase over a short secret (a kit that needs both); same Argon2id rules and errors. */
int pass_seal(const char *pass, const void *p, size_t len, struct buf *out);
int pass_open(const char *pass, const void *p, size_t len, struct buf *out);

/* SK[seg] and TK[seg]: keys of cells and of shard tags. */
void keys_segment(const struct keys *k, const struct seg_id *seg, uint8_t sk[KEY_LEN],
		  uint8_t tk[KEY_LEN]);

/* Names on the nodes, "s/...", "l/c...", "l/s...", "l/t...", "v/h...": 0-terminated. */
#define BLOB_NAME_CAP 48
void keys_shard_name(const struct keys *k, const struct seg_id *seg, unsigned shard,
		     unsigned node, char out[BLOB_NAME_CAP]);
/* kind: 'c' commit, 's' snapshot root, 't' takeover marker of `device` (seq 0). */
void keys_log_name(const struct keys *k, char kind, unsigned device, uint64_t seq,
		   char out[BLOB_NAME_CAP]);

/* "v/e...", by which an older copy of a node is told: see cache/older.h. */
void keys_epoch_name(const struct keys *k, unsigned device, unsigned node, uint64_t time,
		     char out[BLOB_NAME_CAP]);

/*
 * Sealed box for log objects, shard headers, header payloads: XChaCha20-Poly1305 under a
 * purpose key, AAD given; out = nonce24 | ciphertext | tag16.  The nonce is
 * MAC(purpose key, "nonce", aad | plaintext)[0..24]: sealing the same bytes again gives the
 * same bytes, so retries are identical (rule L3).
 */
enum key_purpose { KP_LOG, KP_SHARD_HEADER, KP_HEADER, KP_LOCAL };
#define BOX_OVERHEAD 40
int keys_box(const struct keys *k, enum key_purpose p, const void *aad, size_t aad_len,
	     const void *in, size_t len, struct buf *out); /* appends */
int keys_unbox(const struct keys *k, enum key_purpose p, const void *aad, size_t aad_len,
	       const void *in, size_t len, struct buf *out); /* appends; -EBADMSG */

/* ed25519 verification of a device's signature; 0 or -EBADMSG */
int device_verify(const uint8_t pk[32], const char *tag, const void *p, size_t len,
		  const uint8_t sig[SIG_LEN]);

#endif
