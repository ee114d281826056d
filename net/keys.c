/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "net/keys.h"

#include <assert.h>
#include <sodium.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#define KEY_FILE_MAGIC	"hf.keys"
#define PASS_MAGIC	"hf.pass"
#define SLOT_VERSION	1
#define SLOT_SECRET_MAX 65536
#define KEY_FILE_CAP	4096
#define SALT_LEN	crypto_pwhash_SALTBYTES
#define NONCE_LEN	crypto_aead_xchacha20poly1305_ietf_NPUBBYTES
#define AEAD_TAG_LEN	crypto_aead_xchacha20poly1305_ietf_ABYTES
#define ARGON_T		3u
#define ARGON_MIB	256u
#define ARGON_T_MAX	16u
#define ARGON_MIB_MIN	8u
#define ARGON_MIB_MAX	4096u
#define KEY_FILE_PREFIX (12 + VOL_LEN + 2)

_Static_assert(SALT_LEN == 16 && NONCE_LEN == 24 && AEAD_TAG_LEN == 16, "the format");
_Static_assert(BOX_OVERHEAD == NONCE_LEN + AEAD_TAG_LEN, "the format");
_Static_assert(KIT_SLOT_LEN == KEY_LEN + crypto_box_SEALBYTES + HASH_LEN, "the format");

/* The leak checker of sanitizer builds traces its own process, so there it stays possible. */
#if defined(__SANITIZE_ADDRESS__)
#define TRACED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define TRACED 1
#endif
#endif

enum slot_kind { SLOT_PASS = 1, SLOT_STORED = 2 };

/* What a struct keys keeps secret: one sodium_malloc slab, read-only once filled. */
struct secrets {
	uint8_t vk[KEY_LEN];
	uint8_t dev_seed[KEY_LEN];
	uint8_t dev_sk[crypto_sign_SECRETKEYBYTES];
	uint8_t dk[KEY_LEN];
	uint8_t shard_name[KEY_LEN];
	uint8_t log_name[KEY_LEN];
	uint8_t purpose[KP_LOCAL + 1][KEY_LEN];
};

struct keys {
	uint8_t vol[VOL_LEN];
	uint16_t device;
	uint8_t dev_pk[crypto_sign_PUBLICKEYBYTES];
	struct secrets *s;
};

/* Secret memory, locked; NULL with a log line when the system does not let us lock it. */
static void *secret_new(size_t len)
{
	void *p = sodium_malloc(len);

	/* sodium_malloc says nothing when mlock fails, hence once more. */
	if (p && sodium_mlock(p, len) == 0)
		return p;
	sodium_free(p);
	log_msg(LOG_LVL_ERROR, "cannot lock memory for keys (see ulimit -l): %s",
		strerror(errno));
	return NULL;
}

int keys_global_init(void)
{
	const struct rlimit none = {0, 0};

	if (sodium_init() < 0)
		return log_fail(-EIO, "libsodium cannot be initialised");
	if (setrlimit(RLIMIT_CORE, &none) < 0)
		return log_fail(-EIO, "cannot switch off core dumps: %s", strerror(errno));
#ifndef TRACED
	if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
		return log_fail(-EIO, "cannot switch off tracing: %s", strerror(errno));
#endif
	void *probe = secret_new(KEY_LEN);
	if (!probe)
		return -EIO;
	sodium_free(probe);
	return 0;
}

/* --- hashes, MACs and derivation --- */

struct mac {
	crypto_generichash_blake2b_state st;
};

/* BLAKE2b, personal = tag padded with zeros, keyed when key is not NULL. */
static void mac_init(struct mac *m, const uint8_t *key, const char *tag, size_t out_len)
{
	uint8_t personal[crypto_generichash_blake2b_PERSONALBYTES] = {0};
	size_t len = strlen(tag);

	assert(len <= sizeof personal);
	memcpy(personal, tag, len);
	crypto_generichash_blake2b_init_salt_personal(&m->st, key, key ? KEY_LEN : 0, out_len,
						      NULL, personal);
}

static void mac_add(struct mac *m, const void *p, size_t len)
{
	if (len)
		crypto_generichash_blake2b_update(&m->st, p, len);
}

static void mac_end(struct mac *m, uint8_t *out, size_t out_len)
{
	crypto_generichash_blake2b_final(&m->st, out, out_len);
	sodium_memzero(m, sizeof *m);
}

static void mac_once(const uint8_t key[KEY_LEN], const char *tag, const void *p, size_t len,
		     uint8_t out[HASH_LEN])
{
	struct mac m;

	mac_init(&m, key, tag, HASH_LEN);
	mac_add(&m, p, len);
	mac_end(&m, out, HASH_LEN);
}

void hash_tag(const char tag[static 1], const void *in, size_t len, uint8_t out[HASH_LEN])
{
	mac_once(NULL, tag, in, len, out);
}

static void derive(uint8_t out[KEY_LEN], const uint8_t from[KEY_LEN], const char ctx[static 8])
{
	crypto_kdf_derive_from_key(out, KEY_LEN, 1, ctx, from);
}

/* --- signatures: Ed25519 over the 64-byte BLAKE2b of the message, personal = tag --- */

static void sign_with(const uint8_t *sk, const char *tag, const void *p, size_t len,
		      uint8_t sig[SIG_LEN])
{
	uint8_t digest[crypto_generichash_blake2b_BYTES_MAX];
	struct mac m;

	mac_init(&m, NULL, tag, sizeof digest);
	mac_add(&m, p, len);
	mac_end(&m, digest, sizeof digest);
	crypto_sign_detached(sig, NULL, digest, sizeof digest, sk);
}

int device_verify(const uint8_t pk[32], const char *tag, const void *p, size_t len,
		  const uint8_t sig[SIG_LEN])
{
	uint8_t digest[crypto_generichash_blake2b_BYTES_MAX];
	struct mac m;

	mac_init(&m, NULL, tag, sizeof digest);
	mac_add(&m, p, len);
	mac_end(&m, digest, sizeof digest);
	return crypto_sign_verify_detached(sig, digest, sizeof digest, pk) ? -EBADMSG : 0;
}

/* --- owner --- */

int owner_new(struct owner **out, const uint8_t kit[KEY_LEN])
{
	uint8_t seed[KEY_LEN];

	*out = NULL;
	struct owner *o = calloc(1, sizeof *o);
	if (!o)
		return -ENOMEM;
	o->secret = secret_new(crypto_sign_SECRETKEYBYTES + crypto_box_SECRETKEYBYTES);
	if (!o->secret) {
		free(o);
		return -ENOMEM;
	}
	derive(seed, kit, "ownersig");
	crypto_sign_seed_keypair(o->ed_pk, o->secret, seed);
	derive(seed, kit, "ownerbox");
	crypto_box_seed_keypair(o->x_pk, o->secret + crypto_sign_SECRETKEYBYTES, seed);
	sodium_memzero(seed, sizeof seed);
	sodium_mprotect_readonly(o->secret);
	*out = o;
	return 0;
}

void owner_free(struct owner *o)
{
	if (!o)
		return;
	sodium_free(o->secret);
	free(o);
}

int owner_sign(const struct owner *o, const char *tag, const void *p, size_t len,
	       uint8_t sig[SIG_LEN])
{
	sign_with(o->secret, tag, p, len, sig);
	return 0;
}

int owner_verify(const uint8_t ed_pk[32], const char *tag, const void *p, size_t len,
		 const uint8_t sig[SIG_LEN])
{
	return device_verify(ed_pk, tag, p, len, sig);
}

/* --- keys --- */

static int keys_alloc(struct keys **out, const uint8_t vol[VOL_LEN], uint16_t device)
{
	*out = NULL;
	if (device == 0)
		return -EINVAL;
	struct keys *k = calloc(1, sizeof *k);
	if (!k)
		return -ENOMEM;
	k->s = secret_new(sizeof *k->s);
	if (!k->s) {
		free(k);
		return -ENOMEM;
	}
	memcpy(k->vol, vol, VOL_LEN);
	k->device = device;
	*out = k;
	return 0;
}

/* vk and dev_seed are set: derives the rest and closes the slab. */
static void keys_complete(struct keys *k)
{
	struct secrets *s = k->s;

	crypto_sign_seed_keypair(k->dev_pk, s->dev_sk, s->dev_seed);
	derive(s->dk, s->vk, "domain--");
	derive(s->shard_name, s->dk, "name----");
	derive(s->purpose[KP_SHARD_HEADER], s->dk, "shardhdr");
	derive(s->log_name, s->vk, "logname-");
	derive(s->purpose[KP_LOG], s->vk, "log-----");
	derive(s->purpose[KP_HEADER], s->vk, "header--");
	derive(s->purpose[KP_LOCAL], s->vk, "local---");
	sodium_mprotect_readonly(s);
}

int keys_adopt(struct keys **out, const uint8_t vol[VOL_LEN], uint16_t device,
	       const uint8_t vk[KEY_LEN])
{
	int err = keys_alloc(out, vol, device);
	if (err)
		return err;
	memcpy((*out)->s->vk, vk, KEY_LEN);
	randombytes_buf((*out)->s->dev_seed, KEY_LEN);
	keys_complete(*out);
	return 0;
}

int keys_create(struct keys **out, const uint8_t vol[VOL_LEN], uint16_t device)
{
	uint8_t vk[KEY_LEN];

	randombytes_buf(vk, sizeof vk);
	int err = keys_adopt(out, vol, device, vk);
	sodium_memzero(vk, sizeof vk);
	return err;
}

int keys_forked(struct keys *k)
{
	if (sodium_mlock(k->s, sizeof *k->s) == 0)
		return 0;
	return log_fail(-ENOMEM, "cannot lock memory for keys (see ulimit -l): %s",
			strerror(errno));
}

void keys_free(struct keys *k)
{
	if (!k)
		return;
	sodium_free(k->s);
	free(k);
}

const uint8_t *keys_vol(const struct keys *k)
{
	return k->vol;
}

uint16_t keys_device(const struct keys *k)
{
	return k->device;
}

const uint8_t *keys_device_pk(const struct keys *k)
{
	return k->dev_pk;
}

int keys_sign(const struct keys *k, const char *tag, const void *p, size_t len,
	      uint8_t sig[SIG_LEN])
{
	sign_with(k->s->dev_sk, tag, p, len, sig);
	return 0;
}

void keys_segment(const struct keys *k, const struct seg_id *seg, uint8_t sk[KEY_LEN],
		  uint8_t tk[KEY_LEN])
{
	mac_once(k->s->dk, "segment", seg->b, SEG_LEN, sk);
	mac_once(k->s->dk, "tag", seg->b, SEG_LEN, tk);
}

/* prefix, then 20 bytes of the MAC in base32. */
static void name_out(char out[BLOB_NAME_CAP], const char *prefix, const uint8_t mac[HASH_LEN])
{
	size_t len = strlen(prefix);

	_Static_assert(3 + NAME_LEN + 1 <= BLOB_NAME_CAP, "names fit");
	memcpy(out, prefix, len);
	base32_encode(mac, 20, out + len);
}

void keys_shard_name(const struct keys *k, const struct seg_id *seg, unsigned shard,
		     unsigned node, char out[BLOB_NAME_CAP])
{
	uint8_t in[SEG_LEN + 8], mac[HASH_LEN];

	memcpy(in, seg->b, SEG_LEN);
	put_le32(in + SEG_LEN, shard);
	put_le32(in + SEG_LEN + 4, node);
	mac_once(k->s->shard_name, "shard", in, sizeof in, mac);
	name_out(out, "s/", mac);
}

void keys_log_name(const struct keys *k, char kind, unsigned device, uint64_t seq,
		   char out[BLOB_NAME_CAP])
{
	const char prefix[4] = {'l', '/', kind, 0};
	uint8_t in[12], mac[HASH_LEN];
	const char *tag = kind == 'c' ? "commit" : kind == 's' ? "snapshot" : "takeover";

	assert(kind == 'c' || kind == 's' || kind == 't');
	put_le32(in, device);
	put_le64(in + 4, seq);
	mac_once(k->s->log_name, tag, in, sizeof in, mac);
	name_out(out, prefix, mac);
}

void keys_epoch_name(const struct keys *k, unsigned device, unsigned node, uint64_t time,
		     char out[BLOB_NAME_CAP])
{
	uint8_t in[16], mac[HASH_LEN];

	put_le32(in, device);
	put_le32(in + 4, node);
	put_le64(in + 8, time);
	mac_once(k->s->log_name, "epoch", in, sizeof in, mac);
	name_out(out, "v/e", mac);
}

/* --- sealed boxes --- */

int keys_box(const struct keys *k, enum key_purpose p, const void *aad, size_t aad_len,
	     const void *in, size_t len, struct buf *out)
{
	uint8_t n[8], nonce[HASH_LEN];
	struct mac m;

	if (len > SIZE_MAX / 4)
		return -ENOMEM;
	uint8_t *to = buf_room(out, len + BOX_OVERHEAD);
	if (!to)
		return out->err;
	/* The length keeps two pairs (aad, text) that join to the same bytes apart. */
	put_le64(n, aad_len);
	mac_init(&m, k->s->purpose[p], "nonce", sizeof nonce);
	mac_add(&m, n, sizeof n);
	mac_add(&m, aad, aad_len);
	mac_add(&m, in, len);
	mac_end(&m, nonce, sizeof nonce);
	memcpy(to, nonce, NONCE_LEN);
	crypto_aead_xchacha20poly1305_ietf_encrypt(to + NONCE_LEN, NULL, in, len, aad, aad_len,
						   NULL, to, k->s->purpose[p]);
	out->len += len + BOX_OVERHEAD;
	return 0;
}

int keys_unbox(const struct keys *k, enum key_purpose p, const void *aad, size_t aad_len,
	       const void *in, size_t len, struct buf *out)
{
	const uint8_t *c = in;

	if (len < BOX_OVERHEAD)
		return -EBADMSG;
	uint8_t *to = buf_room(out, len - BOX_OVERHEAD);
	if (!to)
		return out->err;
	if (crypto_aead_xchacha20poly1305_ietf_decrypt(to, NULL, NULL, c + NONCE_LEN,
						       len - NONCE_LEN, aad, aad_len, c,
						       k->s->purpose[p]))
		return -EBADMSG;
	out->len += len - BOX_OVERHEAD;
	return 0;
}

/* --- slots: a secret under a passphrase, or under a key stored beside it --- */

struct slot {
	enum slot_kind kind;
	const uint8_t *salt; /* 16 bytes, or the 32 of a stored key */
	uint32_t t, m_kib;
	size_t aad_len; /* everything before the nonce */
	uint32_t len;	/* of the secret */
	const uint8_t *nonce, *box, *commit;
};

static uint32_t argon_mib(void)
{
	const char *s = getenv("HOLDFAST_ARGON_MIB");
	char *end;

	if (!s || !*s)
		return ARGON_MIB;
	long v = strtol(s, &end, 10);
	if (*end || v < 0)
		return ARGON_MIB;
	return (uint32_t)HF_MIN(HF_MAX(v, (long)ARGON_MIB_MIN), (long)ARGON_MIB);
}

static int argon(uint8_t kek[KEY_LEN], const char *pass, const uint8_t *salt, uint32_t t,
		 uint32_t m_kib)
{
	if (crypto_pwhash(kek, KEY_LEN, pass, strlen(pass), salt, t, (size_t)m_kib << 10,
			  crypto_pwhash_ALG_ARGON2ID13))
		return log_fail(-ENOMEM, "no memory for the passphrase hash (%u MiB)",
				m_kib >> 10);
	return 0;
}

static void slot_commit(const uint8_t kek[KEY_LEN], const uint8_t *aad, size_t len,
			uint8_t out[HASH_LEN])
{
	mac_once(kek, "commit", aad, len, out);
}

/*
 * Appends to out, whose bytes from `start` on are the prefix (magic, version, flags and what
 * else the caller binds), a slot that holds the secret.
 */
static int slot_seal(struct buf *out, size_t start, const char *pass, const void *p, size_t len)
{
	uint8_t kek[KEY_LEN], rnd[KEY_LEN], mac[HASH_LEN];
	int err = 0;

	if (len > SLOT_SECRET_MAX)
		return -EINVAL;
	/* All at once, so that growing leaves no copy of a stored key behind. */
	if (!buf_room(out, 256 + len))
		return out->err;
	randombytes_buf(rnd, sizeof rnd);
	buf_u8(out, pass ? SLOT_PASS : SLOT_STORED);
	if (pass) {
		uint32_t m_kib = argon_mib() << 10;
		err = argon(kek, pass, rnd, ARGON_T, m_kib);
		buf_put(out, rnd, SALT_LEN);
		buf_u32(out, ARGON_T);
		buf_u32(out, m_kib);
	} else {
		memcpy(kek, rnd, KEY_LEN);
		buf_put(out, rnd, KEY_LEN);
	}
	if (err)
		goto out;
	buf_u32(out, (uint32_t)len);

	size_t aad_len = out->len - start;
	uint8_t *aad = out->p + start, *nonce = aad + aad_len;
	randombytes_buf(nonce, NONCE_LEN);
	crypto_aead_xchacha20poly1305_ietf_encrypt(nonce + NONCE_LEN, NULL, p, len, aad,
						   aad_len, NULL, nonce, kek);
	out->len += NONCE_LEN + len + AEAD_TAG_LEN;
	slot_commit(kek, aad, aad_len + NONCE_LEN, mac);
	buf_put(out, mac, sizeof mac);
	hash_tag("slot", out->p + start, out->len - start, mac);
	buf_put(out, mac, sizeof mac);
	err = out->err;
out:
	sodium_memzero(kek, sizeof kek);
	sodium_memzero(rnd, sizeof rnd);
	return err;
}

/* Parses what begins with a prefix of prefix_len bytes.  -EBADMSG, -ENOTSUP. */
static int slot_parse(struct slot *s, const uint8_t *p, size_t len, const char magic[static 8],
		      size_t prefix_len)
{
	struct rd r = rd_over(p, len);
	uint8_t sum[HASH_LEN];

	*s = (struct slot){0};
	const uint8_t *got = rd_bytes(&r, 8);
	uint16_t version = rd_u16(&r);
	if (r.bad || memcmp(got, magic, 8) != 0 || version == 0)
		return -EBADMSG;
	if (version > SLOT_VERSION)
		return -ENOTSUP;
	/* Damage is told from a wrong passphrase by a checksum over all. */
	if (len < HASH_LEN)
		return -EBADMSG;
	hash_tag("slot", p, len - HASH_LEN, sum);
	if (memcmp(sum, p + len - HASH_LEN, HASH_LEN) != 0)
		return -EBADMSG;
	if (rd_u16(&r) != 0) /* flags, none known */
		return -ENOTSUP;
	rd_bytes(&r, prefix_len - 12);
	s->kind = rd_u8(&r);
	if (s->kind == SLOT_PASS) {
		s->salt = rd_bytes(&r, SALT_LEN);
		s->t = rd_u32(&r);
		s->m_kib = rd_u32(&r);
		if (s->t < 1 || s->t > ARGON_T_MAX || s->m_kib < ARGON_MIB_MIN << 10 ||
		    s->m_kib > ARGON_MIB_MAX << 10)
			return -EBADMSG;
	} else if (s->kind == SLOT_STORED) {
		s->salt = rd_bytes(&r, KEY_LEN);
	} else {
		return -EBADMSG;
	}
	s->len = rd_u32(&r);
	if (r.bad || s->len > SLOT_SECRET_MAX)
		return -EBADMSG;
	s->aad_len = len - rd_left(&r);
	s->nonce = rd_bytes(&r, NONCE_LEN);
	s->box = rd_bytes(&r, s->len + AEAD_TAG_LEN);
	s->commit = rd_bytes(&r, HASH_LEN);
	rd_bytes(&r, HASH_LEN);
	return r.bad || rd_left(&r) ? -EBADMSG : 0;
}

/* secret: s->len bytes out. */
static int slot_open(const struct slot *s, const uint8_t *p, const char *pass, uint8_t *secret)
{
	uint8_t kek[KEY_LEN], commit[HASH_LEN];
	int err = 0;

	if (s->kind == SLOT_PASS) {
		if (!pass)
			return -EACCES;
		err = argon(kek, pass, s->salt, s->t, s->m_kib);
	} else {
		memcpy(kek, s->salt, KEY_LEN);
	}
	if (!err) {
		slot_commit(kek, p, s->aad_len + NONCE_LEN, commit);
		if (sodium_memcmp(commit, s->commit, HASH_LEN))
			err = s->kind == SLOT_PASS ? -EACCES : -EBADMSG;
		else if (crypto_aead_xchacha20poly1305_ietf_decrypt(secret, NULL, NULL, s->box,
								    s->len + AEAD_TAG_LEN, p,
								    s->aad_len, s->nonce, kek))
			err = -EBADMSG;
	}
	sodium_memzero(kek, sizeof kek);
	return err;
}

int pass_seal(const char *pass, const void *p, size_t len, struct buf *out)
{
	size_t start = out->len;

	if (!pass)
		return -EINVAL;
	buf_put(out, PASS_MAGIC, 8);
	buf_u16(out, SLOT_VERSION);
	buf_u16(out, 0);
	int err = slot_seal(out, start, pass, p, len);
	if (err)
		out->len = start;
	return err;
}

int pass_open(const char *pass, const void *p, size_t len, struct buf *out)
{
	struct slot s;

	int err = slot_parse(&s, p, len, PASS_MAGIC, 12);
	if (err)
		return err;
	/* The magic of one that was sealed by pass_seal leaves one kind only. */
	if (s.kind != SLOT_PASS)
		return -EBADMSG;
	uint8_t *to = buf_room(out, s.len);
	if (!to)
		return out->err;
	err = slot_open(&s, p, pass, to);
	if (!err)
		out->len += s.len;
	return err;
}

/* --- the key file --- */

int keys_save(const struct keys *k, const char *path, const char *pass)
{
	struct buf b = {0};

	buf_room(&b, 1024);
	buf_put(&b, KEY_FILE_MAGIC, 8);
	buf_u16(&b, SLOT_VERSION);
	buf_u16(&b, 0);
	buf_put(&b, k->vol, VOL_LEN);
	buf_u16(&b, k->device);
	/* vk and dev_seed lie side by side: the secret is both. */
	_Static_assert(offsetof(struct secrets, dev_seed) == KEY_LEN, "side by side");
	int err = b.err ? b.err : slot_seal(&b, 0, pass, k->s, 2 * KEY_LEN);
	if (!err) {
		err = file_write_atomic(path, b.p, b.len, 0600);
		if (err)
			log_msg(LOG_LVL_ERROR, "cannot write %s: %s", path, strerror(-err));
	}
	if (b.p)
		sodium_memzero(b.p, b.cap);
	buf_release(&b);
	return err;
}

static int key_file_read(const char *path, struct buf *b, struct slot *s)
{
	int err = file_read(path, KEY_FILE_CAP, b);
	if (err == -EFBIG)
		err = -EBADMSG;
	else if (err)
		return log_fail(err, "cannot read %s: %s", path, strerror(-err));
	if (!err)
		err = slot_parse(s, b->p, b->len, KEY_FILE_MAGIC, KEY_FILE_PREFIX);
	if (!err && s->len != 2 * KEY_LEN)
		err = -EBADMSG;
	if (err == -ENOTSUP)
		return log_fail(err, "%s was written by a newer version", path);
	if (err)
		return log_fail(err, "%s is damaged", path);
	return 0;
}

static void key_file_release(struct buf *b)
{
	if (b->p)
		sodium_memzero(b->p, b->cap);
	buf_release(b);
}

int keys_load(struct keys **out, const char *path, const char *pass)
{
	struct buf b = {0};
	struct slot s;

	*out = NULL;
	int err = key_file_read(path, &b, &s);
	if (!err)
		err = keys_alloc(out, b.p + 12, get_le16(b.p + 12 + VOL_LEN));
	if (!err) {
		err = slot_open(&s, b.p, pass, (uint8_t *)(*out)->s);
		if (err == -EACCES)
			log_msg(LOG_LVL_ERROR,
				pass ? "wrong passphrase for %s" : "%s needs a passphrase",
				path);
		else if (err == -EBADMSG)
			log_msg(LOG_LVL_ERROR, "%s is damaged", path);
	}
	key_file_release(&b);
	if (err) {
		keys_free(*out);
		*out = NULL;
		return err == -EINVAL ? -EBADMSG : err;
	}
	keys_complete(*out);
	return 0;
}

int keys_needs_pass(const char *path)
{
	struct buf b = {0};
	struct slot s;

	int err = key_file_read(path, &b, &s);
	key_file_release(&b);
	return err ? err : s.kind == SLOT_PASS;
}

/* --- the kit slot --- */

/* Only who opens the box knows vk, and only one vk fits: the box alone does not commit. */
static void kit_commit(const uint8_t vk[KEY_LEN], const uint8_t x_pk[32],
		       const uint8_t slot[KIT_SLOT_LEN], uint8_t out[HASH_LEN])
{
	struct mac m;

	mac_init(&m, vk, "kit commit", HASH_LEN);
	mac_add(&m, x_pk, 32);
	mac_add(&m, slot, KIT_SLOT_LEN - HASH_LEN);
	mac_end(&m, out, HASH_LEN);
}

int keys_kit_slot(const struct keys *k, const uint8_t x_pk[32], uint8_t slot[KIT_SLOT_LEN])
{
	if (crypto_box_seal(slot, k->s->vk, KEY_LEN, x_pk))
		return log_fail(-EINVAL, "the owner's public key is not a usable one");
	kit_commit(k->s->vk, x_pk, slot, slot + KIT_SLOT_LEN - HASH_LEN);
	return 0;
}

int kit_slot_open(const struct owner *o, const uint8_t slot[KIT_SLOT_LEN], uint8_t vk[KEY_LEN])
{
	uint8_t commit[HASH_LEN];

	if (crypto_box_seal_open(vk, slot, KIT_SLOT_LEN - HASH_LEN, o->x_pk,
				 o->secret + crypto_sign_SECRETKEYBYTES))
		return -EBADMSG;
	kit_commit(vk, o->x_pk, slot, commit);
	if (sodium_memcmp(commit, slot + KIT_SLOT_LEN - HASH_LEN, HASH_LEN)) {
		sodium_memzero(vk, KEY_LEN);
		return -EBADMSG;
	}
	return 0;
}
