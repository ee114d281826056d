/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "fs/acl.h"

#define VERSION	 2u
#define HEAD_LEN 4u
#define ENT_LEN	 8u

/* In the order in which the entries of a list must come. */
#define TAG_USER_OBJ  0x01u
#define TAG_USER      0x02u
#define TAG_GROUP_OBJ 0x04u
#define TAG_GROUP     0x08u
#define TAG_MASK      0x10u
#define TAG_OTHER     0x20u

#define ID_NONE 0xffffffffu

static uint8_t *ent(const void *p, size_t i)
{
	return (uint8_t *)p + HEAD_LEN + i * ENT_LEN;
}

static size_t ent_cnt(size_t len)
{
	return len < HEAD_LEN ? 0 : (len - HEAD_LEN) / ENT_LEN;
}

static unsigned tag(const uint8_t *e)
{
	return get_le16(e);
}

static unsigned perm(const uint8_t *e)
{
	return get_le16(e + 2);
}

static void set_perm(uint8_t *e, unsigned v)
{
	put_le16(e + 2, (uint16_t)v);
}

int acl_check(const void *p, size_t len)
{
	unsigned seen = 0, last = 0;

	if (len < HEAD_LEN || (len - HEAD_LEN) % ENT_LEN || get_le32(p) != VERSION)
		return -EINVAL;
	if (len == HEAD_LEN)
		return 0;
	for (size_t i = 0; i < ent_cnt(len); i++) {
		const uint8_t *e = ent(p, i);
		unsigned t = tag(e);
		bool many = t == TAG_USER || t == TAG_GROUP;
		if (perm(e) > 7 || t < last || (t == last && !many))
			return -EINVAL;
		if (t != TAG_USER_OBJ && t != TAG_GROUP_OBJ && t != TAG_MASK &&
		    t != TAG_OTHER && !many)
			return -EINVAL;
		if (many && get_le32(e + 4) == ID_NONE)
			return -EINVAL;
		seen |= t;
		last = t;
	}
	unsigned need = TAG_USER_OBJ | TAG_GROUP_OBJ | TAG_OTHER;
	if (seen & (TAG_USER | TAG_GROUP))
		need |= TAG_MASK;
	return (seen & need) == need ? 0 : -EINVAL;
}

bool acl_empty(const void *p, size_t len)
{
	(void)p;
	return ent_cnt(len) == 0;
}

bool acl_to_mode(const void *p, size_t len, uint32_t *mode)
{
	uint32_t m = 0;
	bool equal = true, mask = false;

	for (size_t i = 0; i < ent_cnt(len); i++) {
		const uint8_t *e = ent(p, i);
		switch (tag(e)) {
		case TAG_USER_OBJ:
			m |= perm(e) << 6;
			break;
		case TAG_GROUP_OBJ:
			if (!mask)
				m |= perm(e) << 3;
			break;
		case TAG_MASK:
			m = (m & ~070u) | perm(e) << 3;
			mask = true;
			equal = false;
			break;
		case TAG_OTHER:
			m |= perm(e);
			break;
		default:
			equal = false;
		}
	}
	*mode = (*mode & ~0777u) | m;
	return equal;
}

/* The entry that stands for the group bits of the mode. */
static uint8_t *group_class(const void *p, size_t len)
{
	uint8_t *g = NULL;

	for (size_t i = 0; i < ent_cnt(len); i++) {
		uint8_t *e = ent(p, i);
		if (tag(e) == TAG_MASK || (tag(e) == TAG_GROUP_OBJ && !g))
			g = e;
	}
	return g;
}

void acl_chmod(void *p, size_t len, uint32_t mode)
{
	uint8_t *g = group_class(p, len);

	for (size_t i = 0; i < ent_cnt(len); i++) {
		uint8_t *e = ent(p, i);
		if (tag(e) == TAG_USER_OBJ)
			set_perm(e, mode >> 6 & 7);
		else if (e == g)
			set_perm(e, mode >> 3 & 7);
		else if (tag(e) == TAG_OTHER)
			set_perm(e, mode & 7);
	}
}

bool acl_inherit(void *p, size_t len, uint32_t *mode)
{
	uint8_t *g = group_class(p, len);
	uint32_t m = 0;
	bool store = false;

	for (size_t i = 0; i < ent_cnt(len); i++) {
		uint8_t *e = ent(p, i);
		unsigned shift;
		if (tag(e) == TAG_USER_OBJ)
			shift = 6;
		else if (e == g)
			shift = 3;
		else if (tag(e) == TAG_OTHER)
			shift = 0;
		else
			shift = 9;
		if (tag(e) == TAG_USER || tag(e) == TAG_GROUP || tag(e) == TAG_MASK)
			store = true;
		if (shift > 6)
			continue;
		set_perm(e, perm(e) & *mode >> shift & 7);
		m |= perm(e) << shift;
	}
	*mode = (*mode & ~0777u) | m;
	return store;
}

void acl_map(void *p, size_t len, uint32_t (*map)(const void *arg, bool group, uint32_t id),
	     const void *arg)
{
	for (size_t i = 0; i < ent_cnt(len); i++) {
		uint8_t *e = ent(p, i);
		if (tag(e) == TAG_USER || tag(e) == TAG_GROUP)
			put_le32(e + 4, map(arg, tag(e) == TAG_GROUP, get_le32(e + 4)));
	}
}
