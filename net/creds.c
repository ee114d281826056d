/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "net/creds.h"

#include <fcntl.h>
#include <ini.h>
#include <pthread.h>
#include <sodium.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum field {
	ACCESS_KEY,
	SECRET_KEY,
	SESSION_TOKEN,
	REGION,
	USERNAME,
	PASSWORD,
	BEARER,
	FIELDS
};

static const char *const ours[FIELDS] = {"access_key", "secret_key", "session_token", "region",
					 "username",   "password",   "bearer"};
static const char *const amazon[FIELDS] = {"aws_access_key_id", "aws_secret_access_key",
					   "aws_session_token", "region"};

/* A profile.  cred points to what field holds. */
struct profile {
	struct node_cred cred;
	char *field[FIELDS]; /* each a sodium_malloc of its own, or NULL */
	char name[CREDS_PROFILE_CAP];
};

struct creds {
	_Atomic int ref;
	struct profile **profile; /* ordered by name */
	size_t cnt;
};

/* --- profiles --- */

static void profile_free(struct profile *p)
{
	for (unsigned i = 0; p && i < FIELDS; i++)
		if (p->field[i])
			sodium_free(p->field[i]);
	free(p);
}

static int profile_set(struct profile *p, unsigned field, const char *value)
{
	size_t len = strlen(value) + 1;
	char *copy = sodium_malloc(len);

	if (!copy)
		return -ENOMEM;
	memcpy(copy, value, len);
	if (p->field[field])
		sodium_free(p->field[field]);
	p->field[field] = copy;
	p->cred = (struct node_cred){
		.profile = p->name,
		.access_key = p->field[ACCESS_KEY],
		.secret_key = p->field[SECRET_KEY],
		.session_token = p->field[SESSION_TOKEN],
		.region = p->field[REGION],
		.username = p->field[USERNAME],
		.password = p->field[PASSWORD],
		.bearer = p->field[BEARER],
	};
	return 0;
}

static struct profile *find(const struct creds *c, const char *name)
{
	for (size_t i = 0; c && i < c->cnt; i++)
		if (!strcmp(c->profile[i]->name, name))
			return c->profile[i];
	return NULL;
}

/* The profile of that name, made when there is none; NULL: out of memory. */
static struct profile *profile_get(struct creds *c, const char *name)
{
	struct profile *p = find(c, name);

	if (p)
		return p;
	struct profile **more = reallocarray(c->profile, c->cnt + 1, sizeof *more);
	if (!more)
		return NULL;
	c->profile = more;
	p = calloc(1, sizeof *p);
	if (!p)
		return NULL;
	snprintf(p->name, sizeof p->name, "%s", name);
	p->cred.profile = p->name;
	size_t at = c->cnt++;
	for (; at && strcmp(more[at - 1]->name, name) > 0; at--)
		more[at] = more[at - 1];
	more[at] = p;
	return p;
}

static void drop(struct creds *c, struct profile *p)
{
	for (size_t i = 0; i < c->cnt; i++) {
		if (c->profile[i] != p)
			continue;
		memmove(&c->profile[i], &c->profile[i + 1],
			(c->cnt - i - 1) * sizeof c->profile[0]);
		c->cnt--;
		profile_free(p);
		return;
	}
}

static int copy_profile(struct creds *to, const char *name, const struct profile *from)
{
	struct profile *p = profile_get(to, name);
	int err = p ? 0 : -ENOMEM;

	for (unsigned i = 0; i < FIELDS && !err; i++) {
		if (from->field[i])
			err = profile_set(p, i, from->field[i]);
	}
	return err;
}

/* --- life --- */

int creds_new(struct creds **out)
{
	*out = calloc(1, sizeof **out);
	if (!*out)
		return -ENOMEM;
	(*out)->ref = 1;
	return sodium_init() < 0 ? log_fail(-EIO, "libsodium cannot be started") : 0;
}

void creds_ref(struct creds *c)
{
	if (c)
		atomic_fetch_add(&c->ref, 1);
}

void creds_unref(struct creds *c)
{
	if (!c || atomic_fetch_sub(&c->ref, 1) != 1)
		return;
	for (size_t i = 0; i < c->cnt; i++)
		profile_free(c->profile[i]);
	free(c->profile);
	free(c);
}

size_t creds_count(const struct creds *c)
{
	return c ? c->cnt : 0;
}

const struct node_cred *creds_find(const struct creds *c, const char *profile)
{
	const struct profile *p = find(c, profile ? profile : "default");

	return p ? &p->cred : NULL;
}

/* Takes everything of `from` over: what is there by the same name is replaced. */
static int merge(struct creds *c, const struct creds *from)
{
	for (size_t i = 0; i < from->cnt; i++) {
		struct profile *old = find(c, from->profile[i]->name);

		if (old)
			drop(c, old);
		if (copy_profile(c, from->profile[i]->name, from->profile[i]))
			return -ENOMEM;
	}
	return 0;
}

int creds_pick(const struct creds *c, const char *const profile[], size_t cnt,
	       struct creds **out)
{
	int err = creds_new(out);

	for (size_t i = 0; i < cnt && !err; i++) {
		const char *name = profile[i] ? profile[i] : "default";
		const struct profile *p = find(c, name);

		if (p && !find(*out, name))
			err = copy_profile(*out, name, p);
	}
	if (err) {
		creds_unref(*out);
		*out = NULL;
	}
	return err;
}

int creds_text(const struct creds *c, struct buf *out)
{
	for (size_t i = 0; c && i < c->cnt; i++) {
		const struct profile *p = c->profile[i];

		buf_put(out, "[", 1);
		buf_put(out, p->name, strlen(p->name));
		buf_put(out, "]\n", 2);
		for (unsigned f = 0; f < FIELDS; f++) {
			if (!p->field[f])
				continue;
			buf_put(out, ours[f], strlen(ours[f]));
			buf_put(out, " = ", 3);
			buf_put(out, p->field[f], strlen(p->field[f]));
			buf_put(out, "\n", 1);
		}
	}
	return out->err;
}

/* --- reading --- */

struct reading {
	struct creds *into;
	const char *const *names; /* of the fields */
	bool lenient;		  /* other keys are somebody else's */
	const char *why;
	int err;
};

static bool good_profile(const char *s)
{
	size_t len = strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
			       "._-@+ ");

	return len && !s[len] && len < CREDS_PROFILE_CAP;
}

static bool good_value(const char *s)
{
	if (!*s || *s == ' ' || s[strlen(s) - 1] == ' ')
		return false;
	for (; *s; s++)
		if ((unsigned char)*s < 0x20 || *s == 0x7f)
			return false;
	return true;
}

/* From inih, once a line; 0 is an error. */
static int take_line(void *user, const char *section, const char *name, const char *value)
{
	struct reading *r = user;
	const char *profile = *section ? section : "default";
	unsigned f = 0;

	if (r->err)
		return 0;
	while (f < FIELDS && (!r->names[f] || strcmp(r->names[f], name) != 0))
		f++;
	if (f == FIELDS && r->lenient)
		return 1;
	/* ~/.aws/config calls a section "profile NAME". */
	if (r->lenient && !strncmp(profile, "profile ", 8))
		profile += 8;
	r->err = -EINVAL;
	if (f == FIELDS)
		r->why =
			"unknown key; there are access_key, secret_key, session_token, region, "
			"username, password, bearer";
	else if (!good_profile(profile))
		r->why = "the name of a section is at most 48 letters, digits, dots, dashes";
	else if (!good_value(value))
		r->why = "the value is empty or holds a control character";
	else if (r->into->cnt >= CREDS_CNT_CAP && !find(r->into, profile))
		r->why = "too many sections";
	else
		r->err = 0;
	if (r->err && r->lenient && !*value) {
		r->err = 0;
		return 1;
	}
	if (r->err)
		return 0;
	struct profile *p = profile_get(r->into, profile);
	if (!p || profile_set(p, f, value))
		r->err = -ENOMEM;
	return !r->err;
}

static void tune_inih(void)
{
	/* Its defaults cut lines at 199 bytes and values at " ;". */
	ini_max_line = CREDS_LINE_CAP;
	ini_use_stack = true;
	ini_allow_inline_comments = false;
	ini_allow_multiline = false;
	ini_stop_on_first_error = true;
}

/* What inih would cut in silence: its lines are of a size, names of sections are short. */
static int check_lines(const char *text, size_t len, const char *what, bool lenient)
{
	unsigned line = 1;

	if (len > CREDS_CAP)
		return log_fail(-EINVAL, "%s: longer than %u bytes", what, CREDS_CAP);
	if (memchr(text, 0, len))
		return log_fail(-EINVAL, "%s: holds a zero byte: not a credentials file", what);
	for (const char *c = text, *end = text + len; c < end; line++) {
		const char *nl = memchr(c, '\n', (size_t)(end - c));
		size_t n = (size_t)((nl ? nl : end) - c), blank = 0;

		if (n + 2 >= CREDS_LINE_CAP)
			return log_fail(-EINVAL, "%s, line %u: longer than %d bytes", what,
					line, CREDS_LINE_CAP - 3);
		while (blank < n && (c[blank] == ' ' || c[blank] == '\t'))
			blank++;
		if (!lenient && blank < n && c[blank] == '[' &&
		    n - blank > CREDS_PROFILE_CAP + 1)
			return log_fail(-EINVAL,
					"%s, line %u: the name of a section is at most %d "
					"letters, digits, dots, dashes",
					what, line, CREDS_PROFILE_CAP - 1);
		c += n + 1;
	}
	return 0;
}

/* Halves of a pair; a pair and another pair are fine: one profile for two nodes. */
static const char *incomplete(const struct profile *p)
{
	if (!p->field[ACCESS_KEY] != !p->field[SECRET_KEY])
		return "access_key and secret_key go together";
	if (p->field[SESSION_TOKEN] && !p->field[ACCESS_KEY])
		return "session_token needs access_key and secret_key";
	if (!p->field[USERNAME] != !p->field[PASSWORD])
		return "username and password go together";
	return NULL;
}

static int read_text(struct creds *c, const char *text, size_t len, const char *what,
		     bool lenient)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	struct reading r = {.names = lenient ? amazon : ours, .lenient = lenient};

	pthread_once(&once, tune_inih);
	int err = check_lines(text, len, what, lenient);
	if (err)
		return err;
	char *copy = sodium_malloc(len + 1);
	if (!copy)
		return -ENOMEM;
	memcpy(copy, text, len);
	copy[len] = 0;
	err = creds_new(&r.into);
	if (!err) {
		int line = ini_parse_string(copy, take_line, &r);

		sodium_stackzero(2 * CREDS_LINE_CAP);
		if (r.err == -EINVAL)
			err = log_fail(-EINVAL, "%s, line %d: %s", what, line, r.why);
		else if (r.err || line < 0)
			err = -ENOMEM;
		else if (line > 0 && !lenient)
			err = log_fail(-EINVAL,
				       "%s, line %d: neither [section] nor key = value", what,
				       line);
	}
	sodium_free(copy);
	for (size_t i = 0; !err && !lenient && i < r.into->cnt; i++) {
		const char *why = incomplete(r.into->profile[i]);

		if (why)
			err = log_fail(-EINVAL, "%s, section [%s]: %s", what,
				       r.into->profile[i]->name, why);
	}
	if (!err)
		err = lenient ? 0 : merge(c, r.into);
	/* The files of AWS complete each other. */
	for (size_t i = 0; !err && lenient && i < r.into->cnt; i++)
		err = copy_profile(c, r.into->profile[i]->name, r.into->profile[i]);
	creds_unref(r.into);
	return err;
}

int creds_read_ini(struct creds *c, const char *text, size_t len, const char *what)
{
	return read_text(c, text, len, what, false);
}

static int read_path(struct creds *c, const char *path, bool lenient)
{
	struct buf b = {0};
	struct stat st;

	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0 || fstat(fd, &st) < 0) {
		int err = -errno;

		if (fd >= 0)
			close(fd);
		if (lenient && (err == -ENOENT || err == -ENOTDIR || err == -EACCES))
			return 0;
		return log_fail(err, "%s: %s", path, strerrordesc_np(-err));
	}
	int err = 0;
	if (!S_ISREG(st.st_mode))
		err = lenient ? -EAGAIN : log_fail(-EINVAL, "%s: not a regular file", path);
	else if (st.st_size > CREDS_CAP)
		err = log_fail(-EFBIG, "%s: longer than %u bytes", path, CREDS_CAP);
	else if (!lenient && (st.st_mode & 077))
		err = log_fail(-EACCES,
			       "%s: others on this machine may read these credentials: "
			       "chmod 600 %s",
			       path, path);
	/* In one piece: what grows is copied about, and copies of secrets stay behind. */
	if (!err && st.st_size && !buf_room(&b, (size_t)st.st_size))
		err = -ENOMEM;
	while (!err && b.len < (size_t)st.st_size) {
		ssize_t n = read(fd, b.p + b.len, (size_t)st.st_size - b.len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			err = log_fail(-errno, "%s: %s", path, strerrordesc_np(errno));
		if (n <= 0)
			break;
		b.len += (size_t)n;
	}
	close(fd);
	if (!err)
		err = read_text(c, b.len ? (char *)b.p : "", b.len, path, lenient);
	if (b.p)
		sodium_memzero(b.p, b.cap);
	buf_release(&b);
	return err == -EAGAIN ? 0 : err;
}

int creds_read_file(struct creds *c, const char *path)
{
	return read_path(c, path, false);
}

static int read_aws_file(struct creds *c, const char *variable, const char *below_home)
{
	const char *path = getenv(variable), *home = getenv("HOME");
	char *made = NULL;

	if ((!path || !*path) && home && *home &&
	    asprintf(&made, "%s/%s", home, below_home) < 0)
		return -ENOMEM;
	if (!path || !*path)
		path = made;
	int err = path ? read_path(c, path, true) : 0;
	free(made);
	return err;
}

int creds_read_aws(struct creds *c)
{
	const char *key = getenv("AWS_ACCESS_KEY_ID"),
		   *secret = getenv("AWS_SECRET_ACCESS_KEY");
	const char *token = getenv("AWS_SESSION_TOKEN"), *region = getenv("AWS_REGION");
	const char *profile = getenv("AWS_PROFILE");
	struct profile *p;

	int err = read_aws_file(c, "AWS_SHARED_CREDENTIALS_FILE", ".aws/credentials");
	if (!err)
		err = read_aws_file(c, "AWS_CONFIG_FILE", ".aws/config");
	/* Halves are of no use, and theirs to mend. */
	for (size_t i = 0; !err && i < c->cnt;) {
		if (incomplete(c->profile[i]))
			drop(c, c->profile[i]);
		else
			i++;
	}
	if (err)
		return err;
	if (!region || !*region)
		region = getenv("AWS_DEFAULT_REGION");
	if (region && !good_value(region))
		region = NULL;
	if (key && secret && *key && *secret) {
		if (!good_value(key) || !good_value(secret) ||
		    (token && *token && !good_value(token)))
			return log_fail(
				-EINVAL,
				"AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY or "
				"AWS_SESSION_TOKEN holds a blank or a control character");
		p = find(c, "default");
		if (p && p->field[SESSION_TOKEN]) {
			sodium_free(p->field[SESSION_TOKEN]);
			p->field[SESSION_TOKEN] = NULL;
			p->cred.session_token = NULL;
		}
		p = profile_get(c, "default");
		if (!p || profile_set(p, ACCESS_KEY, key) ||
		    profile_set(p, SECRET_KEY, secret) ||
		    (token && *token && profile_set(p, SESSION_TOKEN, token)))
			return -ENOMEM;
	} else if (profile && *profile && strcmp(profile, "default") && find(c, profile)) {
		p = find(c, "default");
		if (p)
			drop(c, p);
		if (copy_profile(c, "default", find(c, profile)))
			return -ENOMEM;
	}
	if (!region)
		return 0;
	p = profile_get(c, "default");
	return !p || profile_set(p, REGION, region) ? -ENOMEM : 0;
}
