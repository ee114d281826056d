/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * A key file, or what a passphrase seals in a kit: the first byte says which.  Once as it came,
 * and once with the checksum that belongs to it, so that what lies behind that is reached.
 * Argon2id is not run, so its cost is looked at here: a reader refuses what it cannot pay.
 */
#include "net/keys.c"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t len);

static bool within(const uint8_t *part, size_t part_len, const uint8_t *p, size_t len)
{
	return part >= p && part_len <= len && part <= p + (len - part_len);
}

static void parse(const uint8_t *p, size_t len, bool file)
{
	uint8_t secret[SLOT_SECRET_MAX];
	struct slot s;

	if (slot_parse(&s, p, len, file ? KEY_FILE_MAGIC : PASS_MAGIC,
		       file ? KEY_FILE_PREFIX : 12))
		return;
	if (s.len > SLOT_SECRET_MAX || s.aad_len > len ||
	    !within(s.salt, s.kind == SLOT_PASS ? SALT_LEN : KEY_LEN, p, len) ||
	    !within(s.nonce, NONCE_LEN, p, len) ||
	    !within(s.box, s.len + AEAD_TAG_LEN, p, len) || !within(s.commit, HASH_LEN, p, len))
		abort();
	if (s.kind == SLOT_PASS && (s.t > 16 || s.m_kib > 4u << 20))
		abort();
	if (s.kind == SLOT_STORED)
		slot_open(&s, p, NULL, secret);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
	static bool ready;

	if (!ready && keys_global_init())
		abort();
	ready = true;
	if (!len)
		return 0;
	parse(p + 1, len - 1, p[0] & 1);
	uint8_t *summed = malloc(len - 1 + HASH_LEN);
	if (!summed)
		return 0;
	memcpy(summed, p + 1, len - 1);
	hash_tag("slot", summed, len - 1, summed + len - 1);
	parse(summed, len - 1 + HASH_LEN, p[0] & 1);
	free(summed);
	return 0;
}
