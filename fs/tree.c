/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "fs/tree.h"

#include <stdlib.h>
#include "cache/apply.h"
#include "fs/cmd.h"

static void progress(void *arg, uint64_t records, uint64_t files)
{
	(void)arg;
	cmd_progress("reading the drive: %llu records, %llu files", (unsigned long long)records,
		     (unsigned long long)files);
}

/* Devices that are to be taken over, or were. */
struct over {
	uint16_t number[4 * HIST_TAKERS];
	size_t cnt;
};

static int over_add(struct over *o, uint16_t number)
{
	for (size_t i = 0; i < o->cnt; i++)
		if (o->number[i] == number)
			return 0;
	if (o->cnt == sizeof o->number / sizeof *o->number)
		return log_fail(-EBADMSG, "too many machines have taken this drive over");
	o->number[o->cnt++] = number;
	return 0;
}

/*
 * Every device that may write, and whoever is taking the same ones over at this moment and is
 * in no header yet.  Of two at once each puts its marker on a quorum before it looks for the
 * other's, so that one of them sees the other at least; and each looks, after its header is
 * stored, whether it was taken over itself.
 */
static int take_over(struct volume *v, const struct tree_load *t)
{
	uint16_t by[HIST_TAKERS];
	struct over o = {0};
	int err = 0;

	for (size_t i = 0; i < t->device_cnt && !err; i++)
		if (t->device[i].role == 1 && t->device[i].number != t->as)
			err = over_add(&o, t->device[i].number);
	for (size_t i = 0; i < o.cnt && !err; i++) {
		size_t cnt = 0;

		err = history_takeover(v, t->owner, o.number[i], t->as);
		if (!err)
			err = history_takers(v, o.number[i], t->owner->ed_pk, by, &cnt);
		if (err)
			return log_fail(
				err,
				"the machine that had the drive before (device %u) could not "
				"be told on enough nodes that it is taken over: %s",
				o.number[i], strerror(-err));
		for (size_t j = 0; j < cnt && !err; j++) {
			bool known = by[j] == t->as;

			for (size_t d = 0; d < t->device_cnt && !known; d++)
				known = t->device[d].number == by[j];
			if (!known)
				err = over_add(&o, by[j]);
		}
	}
	return err;
}

int tree_load(struct volume *v, struct store *st, const struct tree_load *t)
{
	struct hist_device *dev = calloc(HF_MAX(t->device_cnt, (size_t)1), sizeof *dev);
	struct hist_state hs = {0};
	struct apply *a = NULL;

	if (!dev)
		return log_fail(-ENOMEM, "out of memory");
	for (size_t i = 0; i < t->device_cnt; i++) {
		dev[i].number = t->device[i].number;
		dev[i].retired = t->device[i].role == 3;
		memcpy(dev[i].ed_pk, t->device[i].ed_pk, sizeof dev[i].ed_pk);
	}
	pthread_mutex_lock(&st->meta);
	int err = store_set_device(st, t->as);
	pthread_mutex_unlock(&st->meta);
	if (!err)
		err = apply_new(&a, st, progress, NULL);
	if (!err)
		err = history_load(v, dev, t->device_cnt, t->floor, t->floor_cnt, &hs,
				   &apply_cb, a);
	if (!err && t->owner) {
		err = take_over(v, t);
		/* What the old device published before it could see the marker. */
		if (!err)
			err = history_load(v, dev, t->device_cnt, t->floor, t->floor_cnt, &hs,
					   &apply_cb, a);
	}
	if (!err && !t->owner && hs.answered < volume_members(v))
		err = log_fail(-ENODATA, "only %u of %zu nodes answered: all are needed", hs.answered,
			       volume_members(v));
	if (!err)
		err = history_secure(v, dev, t->device_cnt, &hs);
	if (!err)
		err = apply_finish(a, &hs);
	cmd_progress_end();
	apply_free(a);
	hist_state_release(&hs);
	free(dev);
	return err;
}
