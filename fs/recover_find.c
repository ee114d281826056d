/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "fs/recover.h"

#include <sodium.h>
#include <stdlib.h>
#include "fs/cmd.h"
#include "fs/prompt.h"
#include "fs/secrets.h"
#include "net/volume.h"

#define CMD	   "recover"
#define KIT_CAP	   (8u << 20)
#define NODE_MS	   10000
#define PROBE_MS   5000
#define DEVICE_TRY 1000
#define TRY_MORE   64 /* node numbers above the kit's that a given place is tried as */

/* --- the kit --- */

int recover_open_kit(struct recover *r)
{
	struct buf text = {0};

	int err = file_read(r->kit_file, KIT_CAP, &text);
	bool unread = err;
	if (unread)
		log_fail(err, "kit %s: %s", r->kit_file,
			 err == -EFBIG ? "too long to be a kit" : strerror(-err));
	else
		err = kit_parse((const char *)text.p, text.len, &r->kit);
	if (text.p)
		sodium_memzero(text.p, text.cap);
	buf_release(&text);
	if (err && !unread) {
		char why[512];

		snprintf(why, sizeof why, "%s", log_last());
		return log_fail(err, "%s: %s", r->kit_file, *why ? why : strerror(-err));
	}
	return err;
}

int recover_unlock(struct recover *r)
{
	char *pass = NULL;
	int err = 0;

	if (!r->kit->secret) {
		const char *file = r->kit_pass_file ? r->kit_pass_file : r->pass_file;

		err = prompt_pass(file, "Passphrase of the kit", false, &pass);
		if (!err)
			err = kit_unlock(r->kit, pass);
		if (err == -EACCES)
			log_fail(err, "the passphrase is not that of the kit %s", r->kit_file);
		else if (err && pass)
			log_fail(err, "the kit %s cannot be opened: %s", r->kit_file,
				 strerror(-err));
		prompt_free(pass);
	}
	if (!err && !r->no_pass)
		err = prompt_pass(r->pass_file, "Passphrase of the drive on this machine", true,
				  &r->pass);
	if (!err)
		err = owner_new(&r->owner, r->kit->secret);
	if (!err && memcmp(r->owner->ed_pk, r->kit->owner_ed_pk, 32))
		err = log_fail(-EBADMSG, "the kit %s contradicts itself: it is damaged",
			       r->kit_file);
	return err;
}

int recover_credentials(struct recover *r)
{
	struct creds *aws = NULL, *kit = NULL, *given = NULL, *low = NULL;
	const struct buf *b = &r->kit->credentials;
	bool remote = false;
	int err = 0;

	for (size_t i = 0; i < r->url_cnt; i++)
		remote |= secrets_remote(r->url[i]);
	for (size_t i = 0; i < r->kit->node_cnt; i++)
		remote |= secrets_remote((const char *)r->kit->node[i].url);
	if (remote)
		err = secrets_read(NULL, &aws);
	if (!err)
		err = creds_new(&kit);
	if (!err && b->len) {
		err = creds_read_ini(kit, (const char *)b->p, b->len, "the kit");
		if (err == -EINVAL)
			err = log_fail(-EBADMSG,
				       "the credentials in the kit %s cannot be read: %s",
				       r->kit_file, "give others with --credentials FILE");
		if (err == -EBADMSG && r->credentials)
			err = 0;
	}
	if (!err && r->credentials)
		err = creds_new(&given);
	if (!err && r->credentials)
		err = creds_read_file(given, r->credentials);
	if (!err)
		err = secrets_merge(aws, kit, &low);
	if (!err)
		err = secrets_merge(low, given, &r->creds);
	for (size_t i = 0; i < r->url_cnt && !err; i++)
		err = secrets_check(r->creds, r->url[i]);
	/* Any N - F nodes are enough: others need not be opened. */
	for (size_t i = 0; i < r->kit->node_cnt && !err; i++)
		if (secrets_check(r->creds, (const char *)r->kit->node[i].url) == -ENOKEY)
			fprintf(stderr, "holdfast: " CMD ": warning: %s\n", log_last());
	creds_unref(aws);
	creds_unref(kit);
	creds_unref(given);
	creds_unref(low);
	return err == -ENOMEM ? log_fail(err, "out of memory") : err;
}

/* --- the nodes --- */

int recover_add_node(struct recover *r, uint16_t number, const char *url, size_t len, bool given)
{
	struct found *f = NULL;

	for (size_t i = 0; i < r->node_cnt; i++)
		if (r->node[i].number == number)
			f = &r->node[i];
	if (f && f->given && !given)
		return 0;
	if (!f) {
		struct found *more = reallocarray(r->node, r->node_cnt + 1, sizeof *more);

		if (!more)
			return log_fail(-ENOMEM, "out of memory");
		r->node = more;
		f = &more[r->node_cnt++];
		*f = (struct found){.number = number};
	}
	free(f->url);
	f->url = strndup(url, len);
	f->given = given;
	return f->url ? 0 : log_fail(-ENOMEM, "out of memory");
}

/* 0 it is node `number`; -EBADMSG it is another; else it cannot be told. */
static int probe(const struct recover *r, uint16_t number, const char *url)
{
	struct node *n;

	int err = node_open(&n, number, url, r->creds);
	if (err)
		return err;
	err = node_verify(n, r->kit->vol, now_ms() + PROBE_MS);
	node_close(n);
	return err == -EACCES || err == -EROFS ? 0 : err;
}

/* The marker of a place tells which node it is. */
static int recognise(struct recover *r, const char *url)
{
	uint32_t max = 0;
	int err = -EBADMSG;

	for (size_t i = 0; i < r->kit->node_cnt && err == -EBADMSG; i++) {
		uint16_t number = r->kit->node[i].number;

		max = HF_MAX(max, (uint32_t)number);
		err = probe(r, number, url);
		if (!err)
			return recover_add_node(r, number, url, strlen(url), true);
	}
	for (uint32_t n = 1; n <= max + TRY_MORE && n < NODE_NONE && err == -EBADMSG; n++) {
		err = probe(r, (uint16_t)n, url);
		if (!err)
			return recover_add_node(r, (uint16_t)n, url, strlen(url), true);
	}
	if (err == -EBADMSG)
		return log_fail(err, "node %s belongs to another volume than the kit %s", url,
				r->kit_file);
	if (err == -ENOENT)
		return log_fail(err, "node %s holds no volume", url);
	return log_fail(err, "node %s: %s", url,
			err == -ENODEV ? "nothing is there" : strerror(-err));
}

int recover_gather_nodes(struct recover *r)
{
	int err = 0;

	for (size_t i = 0; i < r->url_cnt && !err; i++)
		err = recognise(r, r->url[i]);
	for (size_t i = 0; i < r->kit->node_cnt && !err; i++)
		err = recover_add_node(r, r->kit->node[i].number, (const char *)r->kit->node[i].url,
			       r->kit->node[i].url_len, false);
	return err;
}

int recover_fetch_header(struct recover *r)
{
	struct node **node = calloc(HF_MAX(r->node_cnt, (size_t)1), sizeof *node);
	unsigned with = 0;
	size_t cnt = 0;
	int err = node ? 0 : log_fail(-ENOMEM, "out of memory");

	for (size_t i = 0; i < r->node_cnt && !err; i++) {
		err = node_open(&node[cnt], r->node[i].number, r->node[i].url, r->creds);
		cnt += !err;
	}
	if (!err)
		err = header_fetch(node, cnt, r->kit->vol, r->owner->ed_pk, now_ms() + NODE_MS,
				   &r->head_bytes, &r->head, &r->answered, &with);
	if (err == -ENODATA)
		log_fail(err,
			 "none of the %zu nodes of the kit answers: are they attached? "
			 "--node URL says where one is now",
			 cnt);
	else if (err == -ENOENT)
		log_fail(err,
			 "%u of %zu nodes answer and none of them holds the volume of the kit "
			 "%s: "
			 "they were emptied, or are those of another volume",
			 r->answered, cnt, r->kit_file);
	else if (err && !*log_last())
		log_fail(err, "the volume's header cannot be read: %s", strerror(-err));
	while (cnt)
		node_close(node[--cnt]);
	free(node);
	return err;
}

/*
 * A number of its own, at random: two machines that recover the same drive at the same time
 * read the same header and must not both take the next one.
 */
static int choose_device(const struct recover *r, uint16_t *out)
{
	for (int i = 0; i < DEVICE_TRY; i++) {
		uint16_t number = (uint16_t)(1 + randombytes_uniform(UINT16_MAX - 1));
		bool taken = false;

		for (size_t d = 0; d < r->head.device_cnt; d++)
			taken |= r->head.device[d].number == number;
		*out = number;
		if (!taken)
			return 0;
	}
	return log_fail(-ENOSPC, "the volume has had all the devices it can have");
}

int recover_open_header(struct recover *r, struct keys **keys)
{
	uint8_t *vk = sodium_malloc(KEY_LEN);
	uint16_t device = 0;

	*keys = NULL;
	int err = vk ? kit_slot_open(r->owner, r->head.kit_slot, vk)
		     : log_fail(-ENOMEM, "no locked memory: see ulimit -l");
	if (vk && err)
		log_fail(err, "the volume key cannot be opened with the kit %s", r->kit_file);
	if (!err)
		err = keys_adopt(keys, r->kit->vol, 1, vk);
	if (!err) {
		err = header_unseal(r->head_bytes.p, r->head_bytes.len, *keys, &r->head);
		if (err)
			log_fail(err, "the volume's header is damaged");
		keys_free(*keys);
		*keys = NULL;
	}
	if (!err)
		err = choose_device(r, &device);
	if (!err)
		err = keys_adopt(keys, r->kit->vol, device, vk);
	sodium_free(vk);
	return err;
}

int recover_make_config(struct recover *r, struct config **out)
{
	struct config *cfg;

	int err = config_new(&cfg, r->name, r->tmp);
	if (err)
		return err;
	memcpy(cfg->vol, r->kit->vol, VOL_LEN);
	memcpy(cfg->owner_ed_pk, r->owner->ed_pk, 32);
	cfg->k = r->head.k;
	cfg->m = r->head.m;
	for (size_t i = 0; i < r->head.node_cnt && !err; i++) {
		struct rec_node *n = &r->head.node[i];
		const char *url = (const char *)n->url;

		if (n->member == 3)
			continue;
		for (size_t j = 0; j < r->node_cnt; j++)
			if (r->node[j].number == n->number && r->node[j].given) {
				url = r->node[j].url;
				/* The new header says so too. */
				free((void *)(uintptr_t)n->url);
				n->url = (const uint8_t *)strdup(url);
				n->url_len = (uint16_t)strlen(url);
				if (!n->url)
					err = log_fail(-ENOMEM, "out of memory");
			}
		if (!err)
			err = config_add_node(cfg, n->number, url, strlen(url));
	}
	if (err)
		config_free(cfg);
	else
		*out = cfg;
	return err;
}

int recover_check_nodes(struct recover *r, struct volume *v)
{
	struct node_info *info = malloc(sizeof *info);
	struct buf missing = {0};

	if (!info)
		return log_fail(-ENOMEM, "out of memory");
	cmd_progress("looking at %zu nodes", v->node_cnt);
	int n = volume_verify(v, now_ms() + r->look_ms);
	unsigned write = volume_usable(v);
	for (size_t i = 0; i < v->node_cnt; i++) {
		char one[512];

		node_get_info(v->node[i], info);
		if (node_readable(v->node[i]) && node_usable(v->node[i]))
			continue;
		snprintf(one, sizeof one, "%s%s %s (%.200s)", missing.len ? ", " : "",
			 info->name, node_state_name(info->state), info->url);
		buf_put(&missing, one, strlen(one));
	}
	buf_u8(&missing, 0);
	const char *list = missing.err ? "" : (const char *)missing.p;
	int err = n < 0 ? log_fail(n, "the nodes cannot be looked at: %s", strerror(-n)) : 0;
	if (!err && n < r->head.k)
		err = log_fail(
			-ENODATA,
			"only %d of %zu nodes can be read and %u are needed; missing: %s; "
			"--node URL says where one is now",
			n, v->node_cnt, r->head.k, list);
	else if (!err && write < v->quorum)
		err = log_fail(
			-ENODATA,
			"only %u of %zu nodes can be written to and %u are needed to take "
			"the drive over; not writable: %s",
			write, v->node_cnt, v->quorum, list);
	buf_release(&missing);
	free(info);
	return err;
}
