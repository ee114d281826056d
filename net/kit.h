/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * kit: the text with which a volume is recovered.  It prints on one page:
 *
 *   HOLDFAST RECOVERY KIT            (head lines for people: volume name, date, N, F)
 *   hf1-xxxxx-xxxxx-...              lines of base32 groups, each line with its own check
 *   node 1  dir:/mnt/a               (the addresses again, for people; not read)
 *
 * Only the hf1- lines are read; spaces, case, line breaks and 0/o 1/l confusions forgiven.
 * magic8 version flags vol16 kit32 (or sealed kit) k m nodes{number, url} credentials floor
 * | H[0..8].  Credentials are sealed under the kit secret.
 */
#ifndef HOLDFAST_NET_KIT_H
#define HOLDFAST_NET_KIT_H

#include "net/header.h"

struct kit {
	uint8_t vol[VOL_LEN];
	uint8_t *secret; /* sodium_malloc, 32 bytes; NULL until opened with the passphrase */
	struct buf sealed_secret;
	uint8_t owner_ed_pk[32];
	uint8_t k, m;
	struct rec_node *node;
	size_t node_cnt;
	struct buf credentials; /* opaque, decrypted; empty with directories */
	struct buf sealed_credentials; /* as they were read, until kit_unlock */
	struct hist_seen *floor;
	size_t floor_cnt;
};
int kit_new(struct kit **out); /* random secret, random volume id */
void kit_free(struct kit *k);
/* pass != NULL: the kit needs it as well (--kit-needs-passphrase). */
int kit_print(const struct kit *k, const char *volume_name, const char *pass, struct buf *text);
/* -EBADMSG with a log line: which line is wrong, or that it is no kit, or a newer version.
 * k->secret == NULL afterwards when it needs a passphrase: kit_unlock (-EACCES). */
int kit_parse(const char *text, size_t len, struct kit **out);
int kit_unlock(struct kit *k, const char *pass);
/* The same text's machine part as a QR code: UTF-8 half blocks, or a PNG (own, minimal,
 * uncompressed deflate) to a file. */
int kit_qr_text(const struct buf *text, struct buf *out);
int kit_qr_png(const struct buf *text, const char *path);

/* The bytes that the lines carry, for tests and fuzzing: all but the hash at their end. */
int kit_encode(const struct kit *k, const char *pass, struct buf *out);
int kit_decode(const void *p, size_t len, struct kit **out);

/*
 * qr: any text of the QR code's alphanumeric set (0-9 A-Z space $%*+-./:); white modules of
 * the quiet zone are drawn as well, so that it can be read from a dark terminal.
 * -EFBIG when it does not fit into a code.
 */
int qr_text(const char *alnum, struct buf *out);
int qr_png(const char *alnum, struct buf *out);

#endif
