/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "fs/secrets.h"

#include <sodium.h>
#include <stdlib.h>
#include <unistd.h>
#include "net/node.h"

#define MAGIC	   "hf.cred\0"
#define VERSION	   1
#define HEAD_LEN   (8 + 2 + 2 + VOL_LEN)
#define SEALED_CAP (HEAD_LEN + BOX_OVERHEAD + CREDS_CAP)
#define TRY_MS	   5000

void secrets_wipe(struct buf *b)
{
	if (b->p)
		sodium_memzero(b->p, b->cap);
	buf_release(b);
}

/* --- what addresses ask for --- */

bool secrets_remote(const char *url)
{
	struct node_url u;
	bool remote = !url_parse(&u, url) && u.kind != URL_DIR;

	url_release(&u);
	return remote;
}

static bool needed(const struct node_url *u)
{
	return u->kind == URL_S3 || (u->kind == URL_DAV && u->profile);
}

bool secrets_needed(const char *url)
{
	struct node_url u;
	bool yes = !url_parse(&u, url) && needed(&u);

	url_release(&u);
	return yes;
}

int secrets_check(const struct creds *c, const char *url)
{
	struct node_url u;
	int err = url_parse(&u, url);

	if (err || !needed(&u)) {
		url_release(&u);
		return err;
	}
	const char *profile = u.profile ? u.profile : "default";
	const struct node_cred *p = creds_find(c, profile);
	if (!p)
		err = log_fail(-ENOKEY,
			       "node %s: there are no credentials \"%s\": give --credentials FILE "
			       "with a section [%s], or name another with profile=",
			       u.text, profile, profile);
	else if (u.kind == URL_S3 && (!p->access_key || !p->secret_key))
		err = log_fail(-ENOKEY,
			       "node %s: the credentials \"%s\" have no access_key and "
			       "secret_key, which S3 needs",
			       u.text, profile);
	else if (u.kind == URL_DAV && !p->bearer && (!p->username || !p->password))
		err = log_fail(-ENOKEY,
			       "node %s: the credentials \"%s\" have neither username and "
			       "password nor bearer, one of which WebDAV needs",
			       u.text, profile);
	url_release(&u);
	return err;
}

bool secrets_expire(const struct creds *c, const char *url)
{
	struct node_url u;
	const struct node_cred *p =
		url_parse(&u, url) || u.kind != URL_S3 ? NULL : creds_find(c, u.profile);

	url_release(&u);
	return p && p->session_token;
}

/* --- where it comes from --- */

int secrets_read(const char *file, struct creds **out)
{
	int err = creds_new(out);

	if (!err)
		err = creds_read_aws(*out);
	if (!err && file)
		err = creds_read_file(*out, file);
	if (err) {
		creds_unref(*out);
		*out = NULL;
	}
	return err == -ENOMEM ? log_fail(err, "out of memory for credentials") : err;
}

int secrets_text(const struct creds *c, struct buf *out)
{
	/* All at once: what grows leaves copies behind. */
	if (!buf_room(out, CREDS_CAP))
		return out->err;
	int err = creds_text(c, out);
	if (!err && out->len > CREDS_CAP)
		err = log_fail(-EFBIG, "the credentials have more than %u bytes", CREDS_CAP);
	return err;
}

int secrets_merge(const struct creds *base, const struct creds *over, struct creds **out)
{
	const struct creds *from[] = {base, over};
	int err = creds_new(out);

	for (int i = 0; i < 2 && !err; i++) {
		struct buf text = {0};

		if (!from[i])
			continue;
		err = secrets_text(from[i], &text);
		if (!err)
			err = creds_read_ini(*out, (const char *)text.p, text.len,
					     "credentials");
		secrets_wipe(&text);
	}
	if (err) {
		creds_unref(*out);
		*out = NULL;
	}
	return err;
}

/* The default may be for S3 alone: then WebDAV without a profile is not told of it. */
static bool wanted(const struct creds *c, const struct node_url *u)
{
	const struct node_cred *p = u->kind == URL_DAV ? creds_find(c, NULL) : NULL;

	return needed(u) || (p && (p->bearer || p->username));
}

int secrets_pick(const struct creds *c, const struct node_spec *node, size_t cnt,
		 struct creds **out)
{
	char **name = calloc(HF_MAX(cnt, (size_t)1), sizeof *name);
	size_t names = 0;
	int err = name ? 0 : -ENOMEM;

	*out = NULL;
	for (size_t i = 0; i < cnt && !err; i++) {
		struct node_url u;

		err = url_parse(&u, node[i].url);
		if (!err && wanted(c, &u)) {
			name[names] = strdup(u.profile ? u.profile : "default");
			err = name[names] ? 0 : -ENOMEM;
			names += !err;
		}
		url_release(&u);
	}
	if (!err && names)
		err = creds_pick(c, (const char *const *)name, names, out);
	for (size_t i = 0; i < names; i++)
		free(name[i]);
	free(name);
	if (!err && *out && !creds_count(*out)) {
		creds_unref(*out);
		*out = NULL;
	}
	return err == -ENOMEM ? log_fail(err, "out of memory for credentials") : err;
}

/* --- the sealed file --- */

static void head(const struct keys *keys, uint8_t out[HEAD_LEN])
{
	memcpy(out, MAGIC, 8);
	put_le16(out + 8, VERSION);
	put_le16(out + 10, 0);
	memcpy(out + 12, keys_vol(keys), VOL_LEN);
}

int secrets_seal(const struct keys *keys, const struct creds *c, struct buf *out)
{
	uint8_t aad[HEAD_LEN];
	struct buf text = {0};

	head(keys, aad);
	buf_put(out, aad, sizeof aad);
	int err = secrets_text(c, &text);
	if (!err)
		err = keys_box(keys, KP_LOCAL, aad, sizeof aad, text.p, text.len, out);
	secrets_wipe(&text);
	return err ? err : out->err;
}

int secrets_unseal(const struct keys *keys, const void *p, size_t len, struct creds **out)
{
	uint8_t aad[HEAD_LEN];
	const uint8_t *b = p;
	struct buf text = {0};

	*out = NULL;
	if (len < HEAD_LEN + BOX_OVERHEAD || len > SEALED_CAP || memcmp(b, MAGIC, 8) != 0)
		return -EBADMSG;
	if (get_le16(b + 8) > VERSION)
		return -ENOTSUP;
	head(keys, aad);
	if (memcmp(b, aad, HEAD_LEN) != 0)
		return -EBADMSG;
	int err = keys_unbox(keys, KP_LOCAL, aad, sizeof aad, b + HEAD_LEN, len - HEAD_LEN,
			     &text);
	if (!err)
		err = creds_new(out);
	if (!err)
		err = creds_read_ini(*out, (const char *)text.p, text.len, "credentials");
	secrets_wipe(&text);
	if (err) {
		creds_unref(*out);
		*out = NULL;
	}
	return err == -EINVAL ? -EBADMSG : err;
}

int secrets_save(const struct config *cfg, const struct keys *keys, const struct creds *c)
{
	char *path = config_file(cfg, SECRETS_FILE);
	struct creds *mine = NULL;
	struct buf sealed = {0};

	if (!path)
		return log_fail(-ENOMEM, "out of memory");
	int err = secrets_pick(c, cfg->node, cfg->node_cnt, &mine);
	if (!err && mine)
		err = secrets_seal(keys, mine, &sealed);
	if (!err && mine)
		err = file_write_atomic(path, sealed.p, sealed.len, 0600);
	else if (!err && unlink(path) < 0 && errno != ENOENT)
		err = -errno;
	if (err)
		log_fail(err, "%s cannot be written: %s", path, strerror(-err));
	buf_release(&sealed);
	creds_unref(mine);
	free(path);
	return err;
}

int secrets_load(const struct config *cfg, const struct keys *keys, struct creds **out)
{
	char *path = config_file(cfg, SECRETS_FILE);
	struct buf sealed = {0};

	*out = NULL;
	if (!path)
		return log_fail(-ENOMEM, "out of memory");
	int err = file_read(path, SEALED_CAP, &sealed);
	if (!err)
		err = secrets_unseal(keys, sealed.p, sealed.len, out);
	else if (err == -ENOENT)
		err = 0;
	else if (err == -EFBIG)
		err = -EBADMSG;
	if (err)
		log_fail(err,
			 "the credentials in %s cannot be used: %s: give them again with "
			 "holdfast mount %s DIR --credentials FILE",
			 path,
			 err == -ENOTSUP   ? "they are of a newer version"
			 : err == -EBADMSG ? "they are damaged, or of another volume"
					   : strerror(-err),
			 cfg->name);
	buf_release(&sealed);
	free(path);
	return err;
}

int secrets_open(const struct config *cfg, const struct keys *keys, struct creds **out)
{
	int err = secrets_load(cfg, keys, out);

	if (!err || err == -ENOMEM)
		return err;
	fprintf(stderr, "holdfast: warning: %s\n", log_last());
	return 0;
}

/* What each server says to these credentials: as node_verify; where want[i]. */
static int ask_servers(const struct config *cfg, const struct keys *keys, struct creds *c,
		       const bool want[], int said[])
{
	struct node **node = calloc(HF_MAX(cfg->node_cnt, (size_t)1), sizeof *node);
	int64_t end = now_ms() + TRY_MS;
	struct node_wait w;
	struct node_io *io;
	int err = node ? 0 : log_fail(-ENOMEM, "out of memory");

	node_wait_init(&w);
	for (size_t i = 0; i < cfg->node_cnt && !err; i++) {
		said[i] = -ETIMEDOUT;
		if (!want[i])
			continue;
		err = node_open(&node[i], cfg->node[i].number, cfg->node[i].url, c);
		if (!err && (io = node_verify_io(end))) {
			io->tag = (unsigned)i;
			node_wait_submit(&w, node[i], io);
		}
	}
	while (w.pending && (io = node_wait_next(&w, end + 1000))) {
		said[io->tag] = node_verify_end(node[io->tag], keys_vol(keys), io);
		node_io_unref(io);
	}
	node_wait_release(&w);
	for (size_t i = 0; node && i < cfg->node_cnt; i++)
		if (node[i])
			node_close(node[i]);
	free(node);
	return err;
}

/*
 * A typing error must not take the place of what opens a node now: where a server refuses the
 * new ones and takes the old ones, nothing changes.  Those that do not answer are not waited for.
 */
static int try_out(const struct config *cfg, const struct keys *keys, struct creds *kept,
		   struct creds *all)
{
	size_t cnt = HF_MAX(cfg->node_cnt, (size_t)1);
	bool *want = calloc(cnt, sizeof *want), some = false;
	int *said = calloc(cnt, sizeof *said);
	int err = want && said ? 0 : log_fail(-ENOMEM, "out of memory");

	for (size_t i = 0; i < cfg->node_cnt && !err; i++)
		want[i] = secrets_remote(cfg->node[i].url);
	if (!err)
		err = ask_servers(cfg, keys, all, want, said);
	for (size_t i = 0; i < cfg->node_cnt && !err; i++) {
		want[i] = want[i] && said[i] == -EACCES;
		some |= want[i];
	}
	if (!err && some)
		err = ask_servers(cfg, keys, kept, want, said);
	for (size_t i = 0; i < cfg->node_cnt && !err && some; i++)
		if (want[i] && !said[i])
			err = log_fail(-EACCES,
				       "node %s refuses the new credentials and takes those that are "
				       "kept: nothing is changed; --untried if they are to hold "
				       "all the same",
				       cfg->node[i].url);
	free(want);
	free(said);
	return err;
}

static bool same_text(const struct creds *a, const struct creds *b)
{
	struct buf x = {0}, y = {0};
	bool same = a && b && !secrets_text(a, &x) && !secrets_text(b, &y) && x.len == y.len &&
		    !memcmp(x.p, y.p, x.len);

	secrets_wipe(&x);
	secrets_wipe(&y);
	return same;
}

int secrets_update(const struct config *cfg, const struct keys *keys, const char *file,
		   bool untried)
{
	struct creds *kept = NULL, *given = NULL, *all = NULL;

	/* Damaged ones are what this replaces. */
	int err = secrets_load(cfg, keys, &kept);
	if (err && err != -ENOMEM)
		err = 0;
	if (!err)
		err = creds_new(&given);
	if (!err)
		err = creds_read_file(given, file);
	if (!err)
		err = secrets_merge(kept, given, &all);
	for (size_t i = 0; i < cfg->node_cnt && !err; i++)
		err = secrets_check(all, cfg->node[i].url);
	/* fstab may name the same file at each mount. */
	if (!err && !untried && kept && !same_text(kept, all))
		err = try_out(cfg, keys, kept, all);
	if (!err)
		err = secrets_save(cfg, keys, all);
	creds_unref(kept);
	creds_unref(given);
	creds_unref(all);
	return err;
}
