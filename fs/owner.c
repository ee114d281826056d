/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "fs/owner.h"

#include <stdlib.h>

#define ID_NONE 0xffffffffu /* no user at all, for chown and access lists */

/* Digits up to `end`. */
static bool parse_id(const char *s, char end, uint32_t *out, const char **next)
{
	uint64_t n = 0;
	const char *p = s;

	for (; *p >= '0' && *p <= '9' && n < ID_NONE; p++)
		n = n * 10 + (uint64_t)(*p - '0');
	if (p == s || *p != end || n >= ID_NONE)
		return false;
	*out = (uint32_t)n;
	*next = p + 1;
	return true;
}

static const struct id_pair *by_stored(const struct ids *ids, uint32_t id)
{
	for (size_t i = 0; i < ids->pair_cnt; i++)
		if (ids->pair[i].stored == id)
			return &ids->pair[i];
	return NULL;
}

static const struct id_pair *by_here(const struct ids *ids, uint32_t id)
{
	for (size_t i = 0; i < ids->pair_cnt; i++)
		if (ids->pair[i].here == id)
			return &ids->pair[i];
	return NULL;
}

int ids_parse(struct ids *ids, const char *value)
{
	struct id_pair p;
	const char *next;

	if (parse_id(value, 0, &p.here, &next)) {
		if (ids->all || ids->pair_cnt)
			return -EINVAL;
		ids->all = true;
		ids->as = p.here;
		return 0;
	}
	if (!parse_id(value, ':', &p.stored, &next) || !parse_id(next, 0, &p.here, &next) ||
	    ids->all || by_stored(ids, p.stored) || by_here(ids, p.here))
		return -EINVAL;
	struct id_pair *more = realloc(ids->pair, (ids->pair_cnt + 1) * sizeof *more);
	if (!more)
		return -ENOMEM;
	ids->pair = more;
	ids->pair[ids->pair_cnt++] = p;
	return 0;
}

int owners_parse_umask(struct owners *o, const char *value)
{
	const char *p = value;
	uint32_t n = 0;

	for (; *p >= '0' && *p <= '7' && n <= 0777; p++)
		n = n << 3 | (uint32_t)(*p - '0');
	if (p == value || *p || n > 0777)
		return -EINVAL;
	o->masked = true;
	o->umask = n;
	return 0;
}

void owners_release(struct owners *o)
{
	free(o->uid.pair);
	free(o->gid.pair);
	*o = (struct owners){0};
}

/*
 * Pairs form chains and circles.  The end of a chain goes to its beginning, so that the whole
 * is a permutation.
 */
uint32_t ids_here(const struct ids *ids, uint32_t stored)
{
	const struct id_pair *p = by_stored(ids, stored);

	if (p)
		return p->here;
	while ((p = by_here(ids, stored)))
		stored = p->stored;
	return stored;
}

uint32_t ids_stored(const struct ids *ids, uint32_t here)
{
	const struct id_pair *p = by_here(ids, here);

	if (p)
		return p->stored;
	while ((p = by_stored(ids, here)))
		here = p->here;
	return here;
}

static uint32_t show(const struct ids *ids, uint32_t stored)
{
	return ids->all ? ids->as : ids_here(ids, stored);
}

uint32_t owners_show_gid(const struct owners *o, uint32_t gid)
{
	return show(&o->gid, gid);
}

void owners_show(const struct owners *o, struct stat *st)
{
	st->st_uid = show(&o->uid, st->st_uid);
	st->st_gid = show(&o->gid, st->st_gid);
	if (o->masked && !S_ISLNK(st->st_mode)) {
		uint32_t all = S_ISDIR(st->st_mode) || st->st_mode & 0111 ? 0777 : 0666;
		st->st_mode = (st->st_mode & (S_IFMT | S_ISVTX)) | (all & ~o->umask);
	}
	if (o->uid.all)
		st->st_mode &= ~(uint32_t)S_ISUID;
	/* Of a directory it says whose group new files get, which stays true. */
	if (o->gid.all && !S_ISDIR(st->st_mode))
		st->st_mode &= ~(uint32_t)S_ISGID;
}

uint32_t ids_new(const struct ids *ids, uint32_t here, uint32_t dir)
{
	return ids->all ? dir : ids_stored(ids, here);
}

int ids_chown(const struct ids *ids, uint32_t here, uint32_t *stored)
{
	if (ids->all)
		return here == ids->as ? 0 : -EPERM;
	*stored = ids_stored(ids, here);
	return 1;
}

uint32_t owners_chmod(const struct owners *o, uint32_t stored, uint32_t want)
{
	bool exec = want & 0111;

	if (o->masked && (S_ISDIR(stored) || exec == !!(stored & 0111)))
		return stored;
	if (o->masked)
		return exec ? stored | 0100 | (stored & 0444) >> 2 : stored & ~0111u;
	/* Bits that are not shown are no one's to set; those that are there stay. */
	uint32_t hidden =
		(o->uid.all ? S_ISUID : 0u) | (o->gid.all && !S_ISDIR(stored) ? S_ISGID : 0u);
	return (stored & (S_IFMT | hidden)) | (want & 07777 & ~hidden);
}
