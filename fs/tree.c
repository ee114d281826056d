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

static int take_over(struct volume *v, const struct tree_load *t)
{
	for (size_t i = 0; i < t->device_cnt; i++) {
		const struct rec_device *d = &t->device[i];

		if (d->role != 1 || d->number == t->as)
			continue;
		int err = history_takeover(v, t->owner, d->number, t->as);
		if (err)
			return log_fail(
				err,
				"the machine that had the drive before (device %u) could not "
				"be told on enough nodes that it is taken over: %s",
				d->number, strerror(-err));
	}
	return 0;
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
	if (!err)
		err = apply_finish(a, &hs);
	cmd_progress_end();
	apply_free(a);
	hist_state_release(&hs);
	free(dev);
	return err;
}
