/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * secrets KIT HEADER: what the kit and a volume header (v/h...) open, for tests that look for it
 * where it must not be: a line each, the name and the bytes in hexadecimal.
 */
#include <sodium.h>
#include <stdlib.h>
#include "net/header.h"
#include "net/kit.h"

static void show(const char *name, const uint8_t key[KEY_LEN])
{
	char hex[2 * KEY_LEN + 1];

	printf("%s %s\n", name, sodium_bin2hex(hex, sizeof hex, key, KEY_LEN));
}

static void derived(const char *name, const uint8_t key[KEY_LEN], const char *context)
{
	uint8_t out[KEY_LEN];

	crypto_kdf_derive_from_key(out, sizeof out, 1, context, key);
	show(name, out);
}

int main(int argc, char **argv)
{
	struct buf text = {0}, head = {0};
	uint8_t vk[KEY_LEN], dk[KEY_LEN];
	struct owner *owner;
	struct header h;
	struct kit *kit;

	if (argc != 3 || keys_global_init() || file_read(argv[1], 8u << 20, &text) ||
	    kit_parse((const char *)text.p, text.len, &kit) || !kit->secret ||
	    owner_new(&owner, kit->secret) || file_read(argv[2], 1u << 20, &head) ||
	    header_decode(head.p, head.len, owner->ed_pk, &h) ||
	    kit_slot_open(owner, h.kit_slot, vk)) {
		fprintf(stderr, "secrets: usage, or these are not a kit and its header\n");
		return 1;
	}
	crypto_kdf_derive_from_key(dk, sizeof dk, 1, "domain--", vk);
	show("kit", kit->secret);
	derived("owner-sign", kit->secret, "ownersig");
	derived("owner-box", kit->secret, "ownerbox");
	show("volume", vk);
	show("domain", dk);
	derived("shard-headers", dk, "shardhdr");
	derived("shard-names", dk, "name----");
	derived("log", vk, "log-----");
	derived("log-names", vk, "logname-");
	derived("header", vk, "header--");
	derived("local", vk, "local---");
	return 0;
}
