/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * model: the files of one thread after a number of its operations.  Contents are units of 512
 * bytes, each a version: the number of the operation that wrote it, from 1; 0 is zeros.
 */
#ifndef HOLDFAST_TESTS_MODEL_H
#define HOLDFAST_TESTS_MODEL_H

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include "tests/power/ledger.h"

#define UNIT	    512u
#define UNITS_MAX   4096u
#define LARGE_UNITS 128u /* more are a file of the cache, not a row; */
#define ROW_UNITS   8u	 /* or fewer than that, when fsync wrote so many of larger rows */
#define OBJECTS_MAX (1u << 16)
#define ENTRIES_MAX 64u

struct object {
	uint64_t ino;
	uint32_t *unit; /* UNITS_MAX of them, NULL: all zeros */
	uint32_t units; /* the size */
	uint32_t nlink, mode, xattr;
	bool dir, large; /* has been large once, or may have been */
	uint32_t rows;	 /* units that fsync may have written as rows */
	uint32_t sync;	 /* operations when its contents were last made durable for sure */
	uint32_t named;	 /* when it last was renamed or linked */
};

struct entry {
	uint32_t dir, obj;
	uint8_t leaf;
};

struct model {
	struct object *obj; /* 0: the thread's directory */
	uint32_t objects, entries, done;
	bool keep; /* the contents of what is gone */
	struct entry entry[ENTRIES_MAX];
};

static inline void model_init(struct model *m, uint64_t root_ino)
{
	memset(m, 0, sizeof *m);
	m->obj = calloc(OBJECTS_MAX, sizeof *m->obj);
	if (!m->obj)
		abort();
	m->obj[0] = (struct object){.ino = root_ino, .dir = true, .mode = 0755};
	m->objects = 1;
}

static inline struct entry *model_find(struct model *m, uint32_t dir, uint8_t leaf)
{
	for (uint32_t i = 0; i < m->entries; i++)
		if (m->entry[i].dir == dir && m->entry[i].leaf == leaf)
			return &m->entry[i];
	return NULL;
}

static inline void model_drop(struct model *m, struct entry *e)
{
	struct object *o = &m->obj[e->obj];

	if (!--o->nlink && !m->keep) {
		free(o->unit);
		o->unit = NULL;
	}
	*e = m->entry[--m->entries];
}

static inline void model_add(struct model *m, uint32_t dir, uint8_t leaf, uint32_t obj)
{
	if (m->entries == ENTRIES_MAX)
		abort();
	m->entry[m->entries++] = (struct entry){dir, obj, leaf};
	m->obj[obj].nlink++;
}

static inline void model_fill(struct object *o, uint32_t from, uint32_t to, uint32_t version)
{
	if (!o->unit) {
		if (!version)
			return;
		o->unit = calloc(UNITS_MAX, sizeof *o->unit);
		if (!o->unit)
			abort();
	}
	for (uint32_t u = from; u < to; u++)
		o->unit[u] = version;
}

static inline uint32_t model_unit(const struct object *o, uint32_t u)
{
	return o->unit ? o->unit[u] : 0;
}

static inline void model_size(struct object *o, uint32_t units)
{
	if (units < o->units)
		model_fill(o, units, o->units, 0);
	o->units = units;
	o->large |= units > LARGE_UNITS;
}

static inline void model_apply(struct model *m, const struct op *p)
{
	struct object *o = &m->obj[p->obj];
	uint32_t number = ++m->done;
	struct entry *e;

	switch ((enum op_kind)p->kind) {
	case OP_CREATE:
	case OP_MKDIR:
		*o = (struct object){.ino = p->ino,
				     .dir = p->kind == OP_MKDIR,
				     .mode = p->kind == OP_MKDIR ? 0755 : 0644};
		m->objects = p->obj + 1;
		model_add(m, p->dir, p->leaf, p->obj);
		break;
	case OP_WRITE:
		model_size(o, o->units > p->off + p->len ? o->units : p->off + p->len);
		model_fill(o, p->off, p->off + p->len, number);
		break;
	case OP_TRUNCATE:
		model_size(o, p->len);
		break;
	case OP_PUNCH:
		model_fill(o, p->off, p->off + p->len, 0);
		break;
	case OP_RENAME:
		o->named = number;
		e = model_find(m, p->dir2, p->leaf2);
		if (e)
			model_drop(m, e);
		e = model_find(m, p->dir, p->leaf);
		e->dir = p->dir2;
		e->leaf = p->leaf2;
		break;
	case OP_LINK:
		o->named = number;
		model_add(m, p->dir2, p->leaf2, p->obj);
		break;
	case OP_UNLINK:
	case OP_RMDIR:
		model_drop(m, model_find(m, p->dir, p->leaf));
		break;
	case OP_CHMOD:
		o->mode = p->len;
		break;
	case OP_XATTR:
		o->xattr = p->len;
		break;
	case OP_FSYNC:
	case OP_FDATASYNC:
		o->sync = number;
		o->rows += o->units > ROW_UNITS ? o->units : 0;
		o->large |= o->rows > LARGE_UNITS;
		break;
	case OP_FSYNCDIR:
	case OP_PUBLISH:
		break;
	}
}

#endif
