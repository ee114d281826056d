/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The lives of a machine in a world of one seed.
 *
 * A seed is some epochs.  In each, clients work while up to M nodes (all, in a blackout, but
 * without damage) are harmed in whatever way; the process or the power of the machine may go at
 * any step.  Then faults end: everything must be published, read, found by scrub, repaired and
 * whole within a bounded time, and be recovered without any M nodes.  After each crash, what
 * was acknowledged as published must be recovered without the harmed nodes.
 */
#include "sim.h"

#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <sodium.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "cache/apply.h"
#include "cache/check.h"
#include "cache/cut.h"
#include "cache/scrub.h"
#include "net/gather.h"

int __real_clock_gettime(clockid_t id, struct timespec *ts);

#define ARENA ((size_t)8 << 30)
#define STEPS 30000000u

struct world *w;

struct sim_opt opt;
struct totals *totals;

static struct {
	char dir[64], state[96];
	int memory; /* of the world */
} here;

/* What a seed's parent makes and every life inherits. */
static struct keys *keys;
static struct owner *owner;
static struct hist_device device;
static struct store_opts so;
static struct publish_opts po;

void *world_alloc(size_t len)
{
	len = (len + 63) & ~(size_t)63;
	if (len > w->cap - w->used)
		sim_fail("the world is full: %zu bytes", w->used);
	void *p = w->arena + w->used;
	w->used += len;
	return p;
}

/* splitmix64 */
uint64_t rnd(enum draw s)
{
	uint64_t z = (w->rnd[s] += 0x9e3779b97f4a7c15u);

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

uint64_t rnd_below(enum draw s, uint64_t n)
{
	return (uint64_t)((unsigned __int128)rnd(s) * n >> 64);
}

void trace(uint64_t what)
{
	w->trace = (w->trace ^ what) * 0x100000001b3u;
	w->trace ^= w->trace >> 31;
}

void sim_log(const char *fmt, ...)
{
	va_list ap;

	if (!w->verbose)
		return;
	fprintf(stderr, "%10.3f ", (double)w->now_ns / 1e9);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
}

/* The product's own takes a lock for each line it writes: -v would be another world. */
void __real_log_msg(enum log_level lvl, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void __wrap_log_msg(enum log_level lvl, const char *fmt, ...)
{
	char text[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	if (w)
		sim_log("%s", text);
	__real_log_msg(lvl, "%s", text);
}

/* --- libsodium's randomness --- */

static const char *sodium_name(void)
{
	return "sim";
}
static uint32_t sodium_random(void)
{
	return (uint32_t)rnd(RND_KEYS);
}
static void sodium_buf(void *const buf, const size_t len)
{
	for (size_t i = 0; i < len; i++)
		((uint8_t *)buf)[i] = (uint8_t)rnd(RND_KEYS);
}
struct randombytes_implementation sodium_sim = {
	.implementation_name = sodium_name, .random = sodium_random, .buf = sodium_buf};

/* --- negative controls that are no option of the product --- */

int __real_history_put(struct volume *v, const struct hist_head *head, const struct buf *obj);
int __wrap_history_put(struct volume *v, const struct hist_head *head, const struct buf *obj)
{
	return w->no_commit ? 0 : __real_history_put(v, head, obj);
}

int __real_store_commit(struct store *st);
int __wrap_store_commit(struct store *st)
{
	return w->no_fsync ? 0 : __real_store_commit(st);
}

int __real_scrub_mark(struct store *st, uint64_t seg, const struct seg_place *place,
		      const bool lost[]);
int __wrap_scrub_mark(struct store *st, uint64_t seg, const struct seg_place *place,
		      const bool lost[])
{
	return w->no_mark ? 0 : __real_scrub_mark(st, seg, place, lost);
}

/* --- one life --- */

struct life {
	struct volume *v;
	struct store *st;
	struct publisher *p;
	unsigned left; /* clients at work */
};

static void node_changed(void *arg)
{
	struct life *l = arg;

	if (l->p)
		publish_poke(l->p);
}

static struct volume *open_volume(struct keys *k)
{
	struct node_spec spec[SIM_NODES] = {0};
	char url[SIM_NODES][64];
	struct volume *v;

	for (unsigned i = 0; i < w->nodes; i++) {
		nodes_url(i, url[i]);
		spec[i].number = (uint16_t)(i + 1);
		spec[i].url = url[i];
	}
	int r = volume_open(&v, k, w->k, w->m, spec, w->nodes, NULL);
	if (r)
		sim_fail("volume_open: %s", strerror(-r));
	return v;
}

static void must(int r, const char *what)
{
	if (r)
		sim_fail("%s: %s; %s", what, strerror(-r), log_last());
}

/* Steps of a publication before which others have their turn for long, one in a seed. */
static const char *const steps[] = {"cut",     "cut", "cut",	"packed",  "built",
				    "pending", "put", "staged", "applied", "none"};

/*
 * What a cut holds is read at once, and safe then: often programs have their turn before that.
 */
static void await_programs(void)
{
	uint64_t few = rnd_below(RND_DISK, 6), until = w->ops_left - HF_MIN(w->ops_left, few);
	int64_t end = w->now_ns + 5 * SEC;

	while (w->ops_left > until && w->now_ns < end)
		sched_sleep(20 * MS);
}

static int dwell(void *arg, const char *step)
{
	(void)arg;
	sim_log("publication: %s", step);
	w->packing = !strcmp(step, "cut");
	if (w->packing) {
		w->touched = false;
		w->cut++;
		await_programs();
	}
	/* That a program was at work meanwhile may not be seen in what is on the nodes now. */
	if (!strcmp(step, "put") && w->touched && w->crashes_left && w->ops_left &&
	    !chance(RND_FAULT, 3))
		w->crash_at = w->steps + 1 + rnd_below(RND_FAULT, 100);
	if (w->ops_left && !strcmp(step, steps[w->dwells]))
		sched_sleep((int64_t)rnd_below(RND_DISK, 2000) * MS);
	else
		sched_point();
	return 0;
}

static void life_open(struct life *l, bool crashed)
{
	sched_bound("start", 3600 * SEC);
	must(store_open(&l->st, &so), "store_open");
	if (w->life == 1) {
		pthread_mutex_lock(&l->st->meta);
		must(store_set_device(l->st, 1), "store_set_device");
		pthread_mutex_unlock(&l->st->meta);
		must(store_init_root(l->st, 0, 0, 0755), "store_init_root");
	}
	l->v = open_volume(keys);
	l->st->vol = l->v;
	w->calm = true;
	if (w->life == 1)
		for (unsigned i = 0; i < w->nodes; i++)
			must(node_init(l->v->node[i], keys_vol(keys), now_ms() + 60000),
			     "node_init");
	must(store_start(l->st), "store_start");
	must(data_start(l->st), "data_start");
	must(volume_start(l->v, node_changed, l), "volume_start");
	if (w->life == 1)
		model_dirs(l->st);
	if (w->life > 1) {
		volume_verify(l->v, now_ms() + 5000);
		if (crashed)
			model_adopt(l->st);
		else
			model_read_all(l->st);
	}
	w->calm = false;
	must(publish_prepare(&l->p, l->st, &po), "publish_prepare");
	l->p->stage = dwell;
	must(publish_run(l->p), "publish_run");
	volume_verify(l->v, now_ms() + 5000);
	publish_poke(l->p);
}

static void life_close(struct life *l)
{
	struct publisher *p = l->p;

	sched_bound("stop", 600 * SEC);
	volume_quiet(l->v);
	l->p = NULL;
	publish_stop(p);
	data_stop(l->st);
	must(store_close(l->st), "store_close");
	volume_close(l->v);
	model_stopped();
}

/* --- clients and faults --- */

struct worker {
	struct life *l;
	unsigned i;
};

static void *client_main(void *arg)
{
	struct worker *a = arg;

	while (w->ops_left) {
		w->ops_left--;
		client_op(a->i, a->l->st, a->l->p);
		sched_point();
		if (w->think_ms)
			sched_sleep((int64_t)rnd_below(RND_WORK, w->think_ms) * MS);
	}
	if (!--a->l->left)
		sched_wake(a->l);
	return NULL;
}

static bool harmed(unsigned i)
{
	return w->at_once >> i & 1;
}

static void set_condition(unsigned i, enum cond c)
{
	if (c != node_condition_of(i))
		sim_log("node %u: %s", i + 1, cond_name[c]);
	node_condition(i, c);
	w->faults += c != ND_WELL;
}

/* Something happens to one node, or ends. */
static void fault(void)
{
	static const enum cond away[] = {ND_SLOW,   ND_HANG,  ND_DOWN,	  ND_FULL,
					 ND_REFUSE, ND_ERROR, ND_LOST_ACK};
	unsigned i = (unsigned)rnd_below(RND_FAULT, w->nodes);

	if (!w->blackout && !w->at_once)
		return;
	while (!w->blackout && !harmed(i))
		i = (i + 1) % w->nodes;
	if (node_condition_of(i) != ND_WELL)
		return;
	w->well_ns[i] = w->now_ns + (int64_t)rnd_below(RND_FAULT, 30000) * MS;
	if (w->blackout) {
		set_condition(i, away[rnd_below(RND_FAULT, 7)]);
		return;
	}
	switch (rnd_below(RND_FAULT, 6)) {
	case 0:
		node_crash(i);
		set_condition(i, ND_DOWN);
		break;
	case 1:
		if (node_roll_back(i))
			set_condition(i, ND_DOWN);
		else
			node_keep_copy(i);
		break;
	case 2: {
		unsigned n = chance(RND_FAULT, 2) ? node_rot(i) : node_lose(i);
		sim_log("node %u: %u blobs are damaged or gone", i + 1, n);
		break;
	}
	default:
		set_condition(i, (enum cond)(1 + rnd_below(RND_FAULT, ND_CONDS - 1)));
	}
	trace(i);
}

static void *fault_main(void *arg)
{
	struct life *l = arg;

	while (l->left) {
		for (unsigned i = 0; i < w->nodes; i++)
			if (node_condition_of(i) != ND_WELL && w->well_ns[i] <= w->now_ns)
				set_condition(i, ND_WELL);
		fault();
		sched_block(l, w->now_ns + (int64_t)rnd_below(RND_FAULT, 2000) * MS);
	}
	return NULL;
}

static void work(struct life *l)
{
	struct worker a[SIM_CLIENTS];
	pthread_t t[SIM_CLIENTS], f;

	sched_bound("work", 24 * 3600 * SEC);
	l->left = SIM_CLIENTS;
	for (unsigned i = 0; i < SIM_CLIENTS; i++) {
		a[i] = (struct worker){l, i};
		pthread_create(&t[i], NULL, client_main, &a[i]);
		pthread_setname_np(t[i], "client");
	}
	pthread_create(&f, NULL, fault_main, l);
	pthread_setname_np(f, "faults");
	for (unsigned i = 0; i < SIM_CLIENTS; i++)
		pthread_join(t[i], NULL);
	pthread_join(f, NULL);
}

static void found(void *arg, const char *what)
{
	(void)arg;
	sim_log("found: %s", what);
	if (arg)
		fprintf(stderr, "found: %s\n", what);
}

/* Who is asked again after a while is up. */
static void all_back(struct life *l)
{
	for (unsigned s = 0; volume_readable(l->v) < w->nodes; s++) {
		if (s == 600)
			sim_fail("a node is down when all is well");
		sched_sleep(SEC);
	}
}

/* Faults have ended: protection comes back, by itself and in time. */
static void quiet(struct life *l)
{
	struct check_opts mark = {.nodes = true, .deep = true, .mark = true, .found = found};
	struct check_opts look = {.nodes = true, .deep = true, .found = found, .arg = l};
	struct model_mark m;
	int64_t n = 1;

	sched_bound("quiet", 2 * 3600 * SEC);
	for (unsigned i = 0; i < w->nodes; i++)
		set_condition(i, ND_WELL);
	volume_poke(l->v);
	model_mark(&m, true);
	must(publish_wait(l->p, false, now_ms() + 600000), "publish when all is well");
	model_published(&m, l->p);
	must(data_evict(l->st, 0), "evict");
	model_read_all(l->st);
	/* What mends one thing may find another: in the end nothing is left. */
	for (unsigned i = 0; i < 5 && n; i++) {
		n = check_store(l->st, &mark);
		sim_log("scrub: %lld findings", (long long)n);
		if (n < 0)
			sim_fail("check_store: %s", strerror((int)-n));
		publish_poke(l->p);
		must(publish_wait(l->p, true, now_ms() + 1800000), "protect when all is well");
	}
	/*
	 * What was sent while a node hung may end now, and hold it for down once more; and
	 * garbage may just be compacted, so that a shard is still on its way.  Not each time.
	 */
	n = 1;
	for (unsigned i = 0; i < 3 && n; i++) {
		all_back(l);
		must(publish_wait(l->p, true, now_ms() + 1800000), "protect when all is well");
		look.arg = i == 2 ? l : NULL;
		n = check_store(l->st, &look);
	}
	if (n)
		sim_fail("%lld findings after repair", (long long)n);
}

static _Noreturn void life(bool crashed)
{
	struct life l = {0};

	signal(SIGALRM, SIG_DFL);
	alarm(300);
	keys_forked(keys);
	disk_attach(so.dir, w->cuts);
	sched_begin();
	life_open(&l, crashed);
	if (w->ops_left)
		work(&l);
	quiet(&l);
	w->epoch_done = true;
	/* Sometimes it ends with a crash right now. */
	if (chance(RND_FAULT, 3))
		_exit(EXIT_CRASHED);
	life_close(&l);
	_exit(0);
}

/* What a recovery must find: what was published by name, with its bytes; the newest there is.
 */
enum what { NAMED, PUBLISHED, ALL_OF_IT };

/* Another machine, with nothing but the keys and the nodes that are not lost. */
static _Noreturn void recover(uint64_t lost, enum what what)
{
	struct hist_state hs = {0};
	struct store *st;
	struct apply *a;
	struct store_opts mine = {0};
	char dir[96];

	signal(SIGALRM, SIG_DFL);
	alarm(300);
	snprintf(dir, sizeof dir, "%s/recovered", here.dir);
	mkdir(dir, 0700);
	mine.dir = dir;
	keys_forked(keys);
	/* What happens here is of no world but this one. */
	if (mmap(w, ARENA, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE,
		 here.memory, 0) == MAP_FAILED)
		abort();
	w->oracle = true;
	w->crash_at = 0;
	disk_attach(dir, false);
	sched_begin();
	sched_bound("recover", 3600 * SEC);
	for (unsigned i = 0; i < w->nodes; i++)
		node_condition(i, lost >> i & 1 ? ND_DOWN : ND_WELL);
	must(store_open(&st, &mine), "store_open");
	struct volume *v = open_volume(keys);
	st->vol = v;
	volume_verify(v, now_ms() + 20000);
	pthread_mutex_lock(&st->meta);
	must(store_set_device(st, 2), "store_set_device");
	pthread_mutex_unlock(&st->meta);
	must(apply_new(&a, st, NULL, NULL), "apply_new");
	int r = history_load(v, &device, 1, NULL, 0, &hs, &apply_cb, a);
	/* Parts of a snapshot may be on K nodes only. */
	if (what == NAMED && (r == -ENODATA || r == -EIO))
		_exit(0);
	must(r, "recover: history_load");
	if (!hs.seen_cnt || hs.seen[0].seq < w->published_seq)
		sim_fail("recovered: commit %llu, and %llu is published",
			 (unsigned long long)(hs.seen_cnt ? hs.seen[0].seq : 0),
			 (unsigned long long)w->published_seq);
	if (what == NAMED)
		_exit(0);
	must(apply_finish(a, &hs), "recover: apply_finish");
	hist_state_release(&hs);
	apply_free(a);
	model_recovered(st, what == ALL_OF_IT);
	_exit(0);
}

/* --- a seed --- */

static int rm_one(const char *path, const struct stat *s, int flag, struct FTW *f)
{
	(void)s;
	(void)flag;
	(void)f;
	return remove(path);
}

static void rm_tree(const char *path)
{
	nftw(path, rm_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void why(int status, const char *what)
{
	if (WIFSIGNALED(status))
		fprintf(stderr, "seed %llu life %u at %.3f s, step %llu, %s: %s: %s\n",
			(unsigned long long)w->seed, w->life, (double)w->now_ns / 1e9,
			(unsigned long long)w->steps, w->phase, what,
			WTERMSIG(status) == SIGALRM ? "it hangs in real time"
						    : strsignal(WTERMSIG(status)));
	else if (WEXITSTATUS(status) != EXIT_FAILED)
		fprintf(stderr, "seed %llu: %s ended with status %d\n",
			(unsigned long long)w->seed, what, WEXITSTATUS(status));
}

/* True when what must be recovered is. */
static bool try_recover(uint64_t lost, enum what what)
{
	char dir[96];
	int status;

	if (!model_any_published())
		return true;
	snprintf(dir, sizeof dir, "%s/recovered", here.dir);
	fflush(NULL);
	pid_t pid = fork();
	if (!pid)
		recover(lost, what);
	if (pid < 0 || waitpid(pid, &status, 0) < 0)
		abort();
	bool ok = WIFEXITED(status) && WEXITSTATUS(status) == 0;
	if (!ok) {
		why(status, "recovery");
		fprintf(stderr, "seed %llu: recovered without nodes %llx%s\n",
			(unsigned long long)w->seed, (unsigned long long)lost,
			what == ALL_OF_IT ? ", all was whole" : "");
	}
	w->recovered++;
	rm_tree(dir);
	return ok;
}

static void begin_epoch(void)
{
	unsigned most = (unsigned)rnd_below(RND_FAULT, w->m + 1);

	if (!chance(RND_FAULT, 8))
		most = HF_MAX(most, 1u);

	w->epoch_done = false;
	w->at_once = 0;
	w->blackout = chance(RND_FAULT, 4);
	for (unsigned i = 0; i < most; i++)
		w->at_once |= (uint64_t)1 << rnd_below(RND_FAULT, w->nodes);
	w->ops_left = 20 + rnd_below(RND_FAULT, 80);
	sim_log("epoch: %s, nodes %llx", w->blackout ? "blackout" : "harm",
		(unsigned long long)w->at_once);
}

static bool breaks(const char *what)
{
	return opt.broken && !strcmp(opt.broken, what);
}

static void choose_world(uint64_t seed)
{
	static const struct {
		unsigned nodes, k, m;
	} shape[] = {{6, 4, 2}, {6, 4, 2}, {3, 2, 1}, {5, 3, 2},
		     {4, 2, 2}, {9, 4, 2}, {8, 5, 3}};
	/* Without it all that an epoch does is between two publications. */
	static const unsigned think[] = {0, 50, 200, 200, 1000};
	uint64_t s = seed;

	for (unsigned i = 0; i < RND_CNT; i++) {
		s = (s + 0x9e3779b97f4a7c15u) * 0xd1342543de82ef95u;
		w->rnd[i] = s ^ s >> 32;
	}
	w->seed = seed;
	w->step_cap = STEPS;
	w->phase_end_ns = INT64_MAX;
	w->now_ns = 1000 * SEC;
	w->switch_log2 = 2 + (unsigned)rnd_below(RND_SCHED, 7);
	w->by_priority = chance(RND_SCHED, 3);
	w->slow_disk = chance(RND_DISK, 3);
	w->dwells = (unsigned)rnd_below(RND_DISK, sizeof steps / sizeof *steps);
	w->think_ms = think[rnd_below(RND_WORK, sizeof think / sizeof *think)];
	unsigned i = (unsigned)rnd_below(RND_FAULT, sizeof shape / sizeof *shape);
	w->nodes = shape[i].nodes;
	w->k = shape[i].k;
	w->m = shape[i].m;
	w->verbose = opt.verbose;
	po = (struct publish_opts){
		.interval_ms = 500 + (unsigned)rnd_below(RND_FAULT, 8000),
		.snapshot_every = 2 + (unsigned)rnd_below(RND_FAULT, 12),
		.devices = &device,
		.device_cnt = 1,
		.pace = {.grace_ms = 1 + (unsigned)rnd_below(RND_FAULT, 30000),
			 .stray_ms = 1 + (unsigned)rnd_below(RND_FAULT, 60000),
			 .compact_ms = 1 + (unsigned)rnd_below(RND_FAULT, 30000),
			 .scrub_s = 30 + (unsigned)rnd_below(RND_FAULT, 3000),
			 .audit_s = 30 + (unsigned)rnd_below(RND_FAULT, 3000)}};
	so = (struct store_opts){.cache_size = (uint64_t)1 << (16 + rnd_below(RND_FAULT, 8)),
				 .commit_ms = 100 + (unsigned)rnd_below(RND_FAULT, 2000)};
	so.dir = here.state;
	so.power_cut = true;
	w->cuts = !chance(RND_DISK, 3);
	w->epochs_left = 1 + (unsigned)rnd_below(RND_FAULT, 2);
	w->crashes_left = (unsigned)rnd_below(RND_FAULT, 8);
	w->no_commit = breaks("commit");
	w->no_fsync = breaks("fsync");
	w->no_mark = breaks("scrub");
	po.skip_quorum = breaks("quorum");
	po.skip_published = breaks("published");
	po.skip_seen = breaks("seen");
	po.skip_older = breaks("older");
	so.skip_sync = breaks("sync");
	so.skip_capture = breaks("capture");
	so.skip_intent = breaks("intent");
	so.skip_redo = breaks("redo");
	so.skip_settle = breaks("settle");
}

static void make_world(uint64_t seed)
{
	uint8_t vol[VOL_LEN] = {7}, kit[32];

	here.memory = memfd_create("sim", MFD_CLOEXEC);
	if (here.memory < 0 || ftruncate(here.memory, ARENA))
		abort();
	w = mmap(NULL, ARENA, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, here.memory,
		 0);
	if (w == MAP_FAILED)
		abort();
	w->arena = (uint8_t *)w;
	w->cap = ARENA;
	w->used = (sizeof *w + 63) & ~(size_t)63;
	choose_world(seed);
	disk_begin(here.state, w->cuts);
	nodes_init();
	model_init();
	if (sodium_init() < 0)
		abort();
	sodium_buf(kit, sizeof kit);
	must(keys_create(&keys, vol, 1), "keys_create");
	must(owner_new(&owner, kit), "owner_new");
	device.number = 1;
	memcpy(device.ed_pk, keys_device_pk(keys), 32);
	memcpy(po.owner_pk, owner->ed_pk, 32);
}

/* One life and what is recovered after it. */
static bool live(bool *crashed)
{
	int status;

	w->life++;
	/* The first life makes the drive; only then there is something to lose. */
	w->crash_at = 0;
	w->packing = w->touched = false;
	if (w->life > 1 && w->crashes_left && !chance(RND_FAULT, 4))
		w->crash_at =
			w->steps + 1 +
			rnd_below(RND_FAULT, (uint64_t)1 << (6 + rnd_below(RND_FAULT, 9)));
	fflush(NULL);
	pid_t pid = fork();
	if (!pid)
		life(*crashed);
	if (pid < 0 || waitpid(pid, &status, 0) < 0)
		abort();
	*crashed = WIFEXITED(status) && WEXITSTATUS(status) == EXIT_CRASHED;
	if (!*crashed && !(WIFEXITED(status) && WEXITSTATUS(status) == 0)) {
		why(status, "the machine");
		return false;
	}
	if (*crashed) {
		bool cut = w->cuts && !chance(RND_DISK, 4);

		w->crashes++;
		w->crashes_left -= w->crashes_left > 0;
		sim_log("crash%s", cut ? ": the power" : "");
		if (cut)
			disk_cut();
	}
	w->now_ns += (int64_t)rnd_below(RND_FAULT, 100000) * MS;
	uint64_t lost = 0;
	for (unsigned i = 0; i < w->m;) {
		uint64_t bit = (uint64_t)1 << rnd_below(RND_FAULT, w->nodes);

		i += !(lost & bit);
		lost |= bit;
	}
	/* In a blackout shards may be on K nodes only; commits never are. */
	if (!w->epoch_done)
		return try_recover(w->blackout ? 0 : w->at_once, PUBLISHED) &&
		       (!w->blackout || try_recover(lost, NAMED));
	w->epochs_left--;
	bool ok = try_recover(lost, ALL_OF_IT);
	begin_epoch();
	return ok;
}

static void add_totals(void)
{
	__atomic_fetch_add(&totals->lives, w->life, __ATOMIC_RELAXED);
	__atomic_fetch_add(&totals->crashes, w->crashes, __ATOMIC_RELAXED);
	__atomic_fetch_add(&totals->recovered, w->recovered, __ATOMIC_RELAXED);
	__atomic_fetch_add(&totals->faults, w->faults, __ATOMIC_RELAXED);
	__atomic_fetch_add(&totals->published, w->published, __ATOMIC_RELAXED);
	__atomic_fetch_add(&totals->reads, w->reads, __ATOMIC_RELAXED);
	__atomic_fetch_add(&totals->steps, w->steps, __ATOMIC_RELAXED);
	__atomic_fetch_add(&totals->time_s, (uint64_t)(w->now_ns / SEC), __ATOMIC_RELAXED);
}

bool run_seed(uint64_t seed, uint64_t *hash)
{
	bool ok = true, crashed = false;

	snprintf(here.dir, sizeof here.dir, "%s/hf-sim-%d",
		 access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm", getpid());
	snprintf(here.state, sizeof here.state, "%s/state", here.dir);
	rm_tree(here.dir);
	if (mkdir(here.dir, 0700))
		abort();
	make_world(seed);
	begin_epoch();
	while (ok && w->epochs_left)
		ok = live(&crashed);
	*hash = w->trace;
	if (opt.verbose || !ok)
		fprintf(stderr,
			"seed %llu: %s; hash %016llx, %u lives, %u crashes, %u faults, %u "
			"published, "
			"%u recovered, %llu steps, %.0f s\n",
			(unsigned long long)seed, ok ? "held" : "FAILED",
			(unsigned long long)*hash, w->life, w->crashes, w->faults, w->published,
			w->recovered, (unsigned long long)w->steps, (double)w->now_ns / 1e9);
	add_totals();
	if (!getenv("SIM_KEEP"))
		rm_tree(here.dir);
	return ok;
}
