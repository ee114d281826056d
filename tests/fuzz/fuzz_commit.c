/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The first byte says what the rest is: an object as a node gives it, or what lies under the
 * seal of a commit or of a snapshot.  What is accepted there encodes to the same bytes.
 */
#include <stdlib.h>
#include "net/histobj.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t len);

static int ignore(void *arg, struct rd *r)
{
	(void)arg;
	(void)r;
	return 0;
}

static void body(const uint8_t *p, size_t len, bool snapshot)
{
	struct hist_object o;
	struct rec_reader *rr;
	struct buf again = {0};

	if (hist_body_decode(p, len, snapshot, &o))
		return;
	if (hist_body_encode(&o, &again) || again.len != len || memcmp(again.p, p, len) != 0)
		abort();
	if (!o.part_cnt && o.raw_len <= 1u << 20 &&
	    !rec_reader_new(&rr, o.raw_len, ignore, NULL)) {
		rec_reader_feed(rr, o.z.p, o.z.len);
		rec_reader_end(rr);
		rec_reader_free(rr);
	}
	buf_release(&again);
	hist_object_release(&o);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
	static const uint8_t vol[VOL_LEN], vk[KEY_LEN];
	static struct hist_device dev = {.number = 1};
	static struct keys *k;
	struct hist_object o;
	struct hist_marker m;

	if (!k) {
		if (keys_global_init() || keys_adopt(&k, vol, 1, vk))
			abort();
		memcpy(dev.ed_pk, keys_device_pk(k), 32);
	}
	if (!len)
		return 0;
	switch (p[0] % 3) {
	case 0:
		if (!hist_object_open(k, &dev, 1, p + 1, len - 1, &o))
			hist_object_release(&o);
		hist_marker_open(k, dev.ed_pk, p + 1, len - 1, &m);
		break;
	default:
		body(p + 1, len - 1, p[0] % 3 == 2);
	}
	return 0;
}
