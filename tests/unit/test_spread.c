/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "net/health.h"
#include "tests/unit/volume_util.h"

static struct fixture x;
static uint8_t *bytes;
#define LEN	 (2u << 20)
#define GRACE_MS 500 /* what the last are waited for at the least, see choose_grace_ms */

static int setup(void **state)
{
	(void)state;
	bytes = malloc(SEG_MAX_LEN);
	fx_fill(bytes, SEG_MAX_LEN, 3);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	fx_close(&x);
	free(bytes);
	return 0;
}

static int64_t soon(void)
{
	return now_ms() + 20000;
}

static unsigned held(const struct seg_place *p)
{
	unsigned cnt = 0;

	for (unsigned i = 0; i < p->geom.k + p->geom.m; i++)
		cnt += p->node[i] != NODE_NONE;
	return cnt;
}

static void move(unsigned node, const char *from, const char *to)
{
	char a[128], b[128];

	snprintf(a, sizeof a, "%s/%s%u", x.base, from, node);
	snprintf(b, sizeof b, "%s/%s%u", x.base, to, node);
	assert_int_equal(rename(a, b), 0);
}

static void expect_readable(const struct seg_place *p)
{
	uint8_t *out = malloc(LEN);

	assert_int_equal(gather_read(x.v, p, 0, LEN, out, soon()), 0);
	assert_memory_equal(out, bytes, LEN);
	free(out);
}

/* One node away: stored on five, and the sixth is made up for when it is back. */
static void test_one_down(void **state)
{
	bool present[EC_MAX], bad[EC_MAX];
	struct seg_place p;

	(void)state;
	fx_open(&x, 6, 4, 2);
	assert_int_equal(fx_store(&x, bytes, LEN, &p), 0);
	assert_int_equal(held(&p), 6);
	assert_int_equal(repair_segment(x.v, &p, NULL), 0);
	move(3, "", "away");
	assert_int_equal(volume_verify(x.v, soon()), 5);
	assert_int_equal(fx_store(&x, bytes, LEN, &p), 0);
	assert_int_equal(held(&p), 5);
	expect_readable(&p);
	assert_int_equal(repair_segment(x.v, &p, NULL), -EAGAIN);
	assert_int_equal(check_segment(x.v, &p, true, present, bad), 1);
	move(3, "away", "");
	assert_int_equal(volume_verify(x.v, soon()), 6);
	assert_int_equal(repair_segment(x.v, &p, NULL), 0);
	assert_int_equal(held(&p), 6);
	assert_int_equal(check_segment(x.v, &p, true, present, bad), 0);
	/* Found out by the PUT itself: the directory is gone and nobody looked. */
	char path[128];
	snprintf(path, sizeof path, "%s/4", x.base);
	fx_rm_tree(path);
	assert_int_equal(fx_store(&x, bytes, LEN, &p), 0);
	assert_int_equal(held(&p), 5);
	assert_int_equal(node_state(volume_node(x.v, 4)), NODE_DOWN);
	/* Two are known to be away: the four that are left will do. */
	move(3, "", "away");
	assert_int_equal(volume_verify(x.v, soon()), 4);
	assert_int_equal(fx_store(&x, bytes, LEN, &p), 0);
	assert_int_equal(held(&p), 4);
	expect_readable(&p);
	/* Three: nothing may refer to what fewer than K nodes hold. */
	move(2, "", "away");
	assert_int_equal(volume_verify(x.v, soon()), 3);
	assert_int_equal(fx_store(&x, bytes, LEN, &p), -EAGAIN);
}

/* More nodes than shards: another one stands in, and no node gets two shards. */
static void test_more_nodes(void **state)
{
	struct seg_place p;
	char path[128];

	(void)state;
	fx_open(&x, 8, 4, 2);
	assert_int_equal(fx_store(&x, bytes, LEN, &p), 0);
	/* The node of shard 0 fails in the act: its "s" is a file. */
	snprintf(path, sizeof path, "%s/%u/s", x.base, p.node[0]);
	fx_rm_tree(path);
	assert_int_equal(file_write_atomic(path, "x", 1, 0600), 0);
	unsigned broken = p.node[0];
	for (int i = 0; i < 8; i++) {
		assert_int_equal(fx_store(&x, bytes, LEN, &p), 0);
		assert_int_equal(held(&p), 6);
		for (unsigned a = 0; a < 6; a++) {
			assert_int_not_equal(p.node[a], broken);
			for (unsigned b = 0; b < a; b++)
				assert_int_not_equal(p.node[a], p.node[b]);
		}
		expect_readable(&p);
	}
	/* Repair chooses another node too. */
	p.node[2] = (uint16_t)NODE_NONE;
	assert_int_equal(repair_segment(x.v, &p, NULL), 0);
	assert_int_equal(held(&p), 6);
	for (unsigned b = 0; b < 6; b++)
		assert_true(b == 2 || p.node[b] != p.node[2]);
}

/* All C(6,2) pairs of shards are rebuilt byte for byte as they were. */
static void test_repair_pairs(void **state)
{
	struct seg_place p;

	(void)state;
	fx_open(&x, 6, 4, 2);
	assert_int_equal(fx_store(&x, bytes, LEN, &p), 0);
	for (unsigned a = 0; a < 6; a++) {
		for (unsigned b = a + 1; b < 6; b++) {
			struct buf was[2] = {{0}}, now[2] = {{0}};
			unsigned lost[2] = {a, b};
			struct seg_place q = p;
			char path[256];
			for (int i = 0; i < 2; i++) {
				fx_shard_path(&x, &p, lost[i], path);
				assert_int_equal(file_read(path, 64 << 20, &was[i]), 0);
				assert_int_equal(unlink(path), 0);
				q.node[lost[i]] = (uint16_t)NODE_NONE;
			}
			assert_int_equal(repair_segment(x.v, &q, NULL), 0);
			for (int i = 0; i < 2; i++) {
				fx_shard_path(&x, &q, lost[i], path);
				assert_int_equal(file_read(path, 64 << 20, &now[i]), 0);
				assert_int_equal(was[i].len, now[i].len);
				if (q.node[lost[i]] == p.node[lost[i]])
					assert_memory_equal(was[i].p, now[i].p, was[i].len);
				buf_release(&was[i]);
				buf_release(&now[i]);
			}
			p = q;
			expect_readable(&p);
		}
	}
	/* Three lost: not to be had, and nothing else is touched. */
	struct seg_place q = p;
	q.node[0] = q.node[1] = q.node[2] = (uint16_t)NODE_NONE;
	assert_int_equal(repair_segment(x.v, &q, NULL), -ENODATA);
	assert_int_equal(held(&q), 3);
	expect_readable(&p);
}

static int get_within(struct node *n, const char *name, int64_t ms)
{
	struct node_io *io = node_io_new(NODE_GET, name);
	struct node_wait w;

	io->len = 1;
	io->deadline_ms = now_ms() + ms;
	node_wait_init(&w);
	node_wait_submit(&w, n, io);
	io = node_wait_next(&w, soon());
	int err = io->err;
	node_io_unref(io);
	node_wait_release(&w);
	return err;
}

/*
 * Threads of node 6 hang in the open of a FIFO, as many as there may ever be: until none is
 * left to say that a name is not there.
 */
static void hang(struct node *n, char path[256])
{
	snprintf(path, 256, "%s/6/l", x.base);
	assert_true(mkdir(path, 0700) == 0 || errno == EEXIST);
	snprintf(path, 256, "%s/6/l/hang", x.base);
	assert_int_equal(mkfifo(path, 0600), 0);
	int tries = 0;
	do
		for (int i = 0; i < 12; i++)
			get_within(n, "l/hang", 10);
	while (get_within(n, "l/none", 500) == -ENOENT && ++tries < 50);
}

/* A node that hangs in the act: the segment is stored, its stripe comes back, time is short. */
static void test_hang(void **state)
{
	struct seg_place p;
	char path[256];

	(void)state;
	fx_open(&x, 6, 4, 2);
	struct node *n = x.v->node[5];
	hang(n, path);
	/* More segments than the pool has stripes: none stays with the node that hangs. */
	int64_t start = now_ms();
	struct spread *sp[3];
	for (int i = 0; i < 3; i++)
		sp[i] = fx_begin(&x, bytes, LEN);
	int err[3];
	unsigned cnt[3];
	for (int i = 0; i < 3; i++) {
		err[i] = spread_finish(sp[i], &p);
		cnt[i] = held(&p);
	}
	for (int i = 0; i < 3; i++) {
		assert_int_equal(err[i], 0);
		assert_int_equal(cnt[i], 5);
	}
	assert_int_equal(fx_store(&x, bytes, LEN, &p), 0);
	/* A request that nobody ends takes a minute. */
	assert_in_range(now_ms() - start, 0, 30000);
	/* The watcher's question hangs as well, which makes the node known to be down. */
	assert_int_equal(node_verify(n, keys_vol(x.v->keys), now_ms() + 200), -ETIMEDOUT);
	assert_int_equal(node_state(n), NODE_DOWN);
	assert_int_equal(fx_store(&x, bytes, LEN, &p), 0);
	assert_int_equal(held(&p), 5);
	/* It was asked for nothing. */
	assert_false(spread_going(x.v, &p.geom.id));
	expect_readable(&p);
}

/* Two that answer every read and fail every write hold nobody up, and are let in again. */
static void test_keeps_nothing(void **state)
{
	struct seg_place p;
	char path[256], away[256];
	int failed = 0;

	(void)state;
	fx_open(&x, 6, 4, 2);
	/* A link to itself where the folder of shards should be: ELOOP. */
	for (unsigned i = 1; i <= 2; i++) {
		snprintf(path, sizeof path, "%s/%u/s", x.base, i);
		snprintf(away, sizeof away, "%s/%u/away", x.base, i);
		assert_true(rename(path, away) == 0 || errno == ENOENT);
		assert_int_equal(symlink("s", path), 0);
	}
	for (int i = 0; i < 12; i++) {
		int err = fx_store(&x, bytes, LEN, &p);
		failed += err != 0;
		if (!err) {
			assert_int_equal(held(&p), 4);
			expect_readable(&p);
		}
		/* The marker is read all the while. */
		assert_int_equal(volume_verify(x.v, soon()), 6);
		assert_int_equal(node_state(x.v->node[2]), NODE_UP);
	}
	assert_in_range(failed, 0, 2);
	assert_int_equal(node_state(x.v->node[0]), NODE_REFUSING);
	assert_int_equal(node_state(x.v->node[1]), NODE_REFUSING);
	for (unsigned i = 1; i <= 2; i++) {
		snprintf(path, sizeof path, "%s/%u/s", x.base, i);
		assert_int_equal(unlink(path), 0);
	}
	/* The next chance comes by itself; repair is then its proof. */
	int64_t end = now_ms() + HEALTH_KEEP_MAX_MS;
	while (volume_usable(x.v) < 6 && now_ms() < end) {
		assert_int_equal(volume_verify(x.v, soon()), 6);
		usleep(100000);
	}
	assert_int_equal(repair_segment(x.v, &p, NULL), 0);
	assert_int_equal(held(&p), 6);
	assert_false(node_doubted(x.v->node[0]));
	assert_int_equal(fx_store(&x, bytes, LEN, &p), 0);
	assert_int_equal(held(&p), 6);
}

struct late {
	struct seg_id id;
	uint16_t node[EC_MAX];
	unsigned calls;
	int answer;
};

static int collected(void *arg, const struct seg_id *id, const uint16_t node[EC_MAX])
{
	struct late *l = arg;

	if (memcmp(id, &l->id, sizeof *id) != 0)
		return 0;
	memcpy(l->node, node, sizeof l->node);
	l->calls++;
	return l->answer;
}

/* A shard that is late arrives after all: that is told, once, and nothing is to be repaired. */
static void test_late(void **state)
{
	bool present[EC_MAX], bad[EC_MAX];
	struct seg_place p, q;
	char path[256];

	(void)state;
	fx_open(&x, 6, 4, 2);
	hang(x.v->node[5], path);
	assert_int_equal(fx_store(&x, bytes, LEN, &p), 0);
	assert_int_equal(held(&p), 5);
	struct late l = {.id = p.geom.id, .answer = -EAGAIN};
	assert_true(spread_going(x.v, &p.geom.id));
	spread_collect(x.v, collected, &l);
	assert_int_equal(l.calls, 0);
	/* The node is known to be left behind: nobody waits for it again, nor does it get more. */
	int64_t least = INT64_MAX;
	for (int i = 0; i < 40 && (i < 4 || least >= GRACE_MS); i++) {
		int64_t start = now_ms();
		assert_int_equal(fx_store(&x, bytes, LEN, &q), 0);
		assert_int_equal(held(&q), 5);
		least = HF_MIN(least, now_ms() - start);
	}
	assert_in_range(least, 0, GRACE_MS - 1);
	assert_true(x.v->tail_cnt <= 2);
	/* It goes on. */
	int fd = open(path, O_WRONLY | O_NONBLOCK);
	assert_true(fd >= 0);
	int64_t end = soon();
	while (x.v->tail_cnt && now_ms() < end)
		usleep(10000);
	close(fd);
	assert_int_equal(x.v->tail_cnt, 0);
	assert_true(spread_going(x.v, &p.geom.id));
	/* Whoever does not know the segment yet is asked again. */
	spread_collect(x.v, collected, &l);
	assert_int_equal(l.calls, 1);
	assert_true(spread_going(x.v, &p.geom.id));
	l.answer = 0;
	spread_collect(x.v, collected, &l);
	assert_int_equal(l.calls, 2);
	assert_false(spread_going(x.v, &p.geom.id));
	for (unsigned i = 0; i < 6; i++)
		if (p.node[i] == NODE_NONE)
			p.node[i] = l.node[i];
	assert_int_equal(held(&p), 6);
	assert_int_equal(check_segment(x.v, &p, true, present, bad), 0);
	spread_collect(x.v, collected, &l);
	assert_int_equal(l.calls, 2);
}

static _Atomic int changes;

static void changed(void *arg)
{
	assert_ptr_equal(arg, &x);
	atomic_fetch_add(&changes, 1);
}

static bool becomes(struct node *n, enum node_state want, int64_t within_ms)
{
	int64_t end = now_ms() + within_ms;

	while (node_state(n) != want && now_ms() < end)
		usleep(10000);
	return node_state(n) == want;
}

/* The watcher notices by itself that a place is gone, and that it is back. */
static void test_watch(void **state)
{
	(void)state;
	fx_open(&x, 6, 4, 2);
	assert_int_equal(volume_start(x.v, changed, &x), 0);
	struct node *n = volume_node(x.v, 2);
	move(2, "", "away");
	volume_poke(x.v);
	assert_true(becomes(n, NODE_DOWN, 60000));
	assert_true(changes > 0);
	assert_int_equal(volume_usable(x.v), 5);
	move(2, "away", "");
	/* Nobody pokes: it is tried each second. */
	assert_true(becomes(n, NODE_UP, 60000));
	assert_int_equal(volume_readable(x.v), 6);
	uint64_t f, t;
	volume_space(x.v, &f, &t);
	assert_true(f > 0 && f <= t);
	struct node_info info;
	node_get_info(n, &info);
	/* Six directories on one disk are one disk. */
	assert_true(t <= info.total_bytes);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_one_down), T(test_more_nodes), T(test_repair_pairs),
		T(test_keeps_nothing), T(test_hang),	  T(test_late),	    T(test_watch),
	};

	log_set_quiet(true);
	log_set_level(LOG_LVL_ERROR);
	if (keys_global_init() != 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
