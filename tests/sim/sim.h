/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * sim: the real code of net/ and cache/ in a world that one number decides.
 *
 *   sched.c   threads, locks, conditions, clocks: one thread runs at a time, and a random
 *             number says which is next; when none can, the clock jumps to the next timer
 *   node.c    nodes in memory behind struct node_kind, in the place of net/node_dir.c, with
 *             everything that can be wrong with one
 *   disk.c    fsync, and what a power cut leaves of files that were not synced
 *   model.c   programs: random operations, what each file holds now and held at each moment
 *   check.c   what is seen of a drive against the model
 *   sim.c     lives of a machine, faults, invariants: a seed
 *   main.c    many seeds, the command line
 *
 * The real pthread calls, clocks and statvfs are replaced by the linker (--wrap), randombytes
 * of libsodium by its own hook.  What the world keeps across the death of the simulated
 * process (nodes, requests on their way, the model, the clock, the random numbers) lies in
 * memory that is shared by all processes of a seed; each life of the machine is a process, and
 * a crash is its _exit.
 */
#ifndef HOLDFAST_TESTS_SIM_H
#define HOLDFAST_TESTS_SIM_H

#include <pthread.h>
#include "net/base.h"
#include "net/keys.h"

#define SIM_NODES    16
#define SIM_CLIENTS  2
#define SIM_FILES    6		  /* names of a client */
#define SIM_FILE_CAP (192u << 10) /* bytes of a file, at most */

#define MS  INT64_C(1000000)
#define SEC (1000 * MS)

/* Independent streams, so that one more number drawn here does not change what is done there.
 */
enum draw { RND_SCHED, RND_NODE, RND_FAULT, RND_WORK, RND_KEYS, RND_DISK, RND_CNT };

struct sim_node;
struct client;

/* What a seed keeps across processes. */
struct world {
	uint64_t seed;
	uint64_t rnd[RND_CNT];
	int64_t now_ns;
	uint64_t trace; /* hash of everything that happened */
	uint64_t steps, step_cap;
	uint64_t crash_at;     /* step of the next crash, 0 none */
	bool packing, touched; /* a cut is being packed; something it holds was changed */
	uint64_t cut;	       /* its number */
	int64_t phase_end_ns;  /* virtual time by which this phase must be over */
	char phase[64];
	/* Choices of the seed. */
	unsigned switch_log2; /* a thread goes on with chance 1 - 2^-n */
	bool by_priority;     /* who is next: the highest priority instead of anyone */
	bool slow_disk;
	unsigned dwells;   /* step of a publication that takes its time */
	unsigned think_ms; /* programs wait so long between two operations, at most */
	unsigned nodes, k, m;
	struct sim_node *node;
	struct client *client;
	uint64_t at_once; /* bit per node: may be harmed in this epoch */
	bool blackout;	  /* more than M may be out of reach; nothing is damaged */
	bool calm;	  /* conditions do not show: what is seen after a crash is looked at */
	int64_t well_ns[SIM_NODES]; /* when its condition ends */
	uint64_t ops_left;	    /* of this epoch */
	/* The processes of the seed. */
	uint8_t *arena;
	size_t used, cap;
	bool cuts, epoch_done;
	unsigned epochs_left, crashes_left;
	uint64_t published_seq; /* of the newest commit that was said to be published */
	unsigned life, published, reads, recovered, crashes, faults, failed_reads;
	bool verbose, oracle, no_commit, no_fsync, no_mark;
};
extern struct world *w;

/* --- the world's memory: never freed before the seed ends --- */
void *world_alloc(size_t len);

/* --- random --- */
uint64_t rnd(enum draw s);
uint64_t rnd_below(enum draw s, uint64_t n); /* n > 0 */
static inline bool chance(enum draw s, uint64_t one_in)
{
	return rnd_below(s, one_in) == 0;
}
void trace(uint64_t what); /* into the hash */
void sim_log(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* --- failing: prints the seed and where everybody is, ends the process --- */
#define EXIT_CRASHED 42
#define EXIT_FAILED  43
_Noreturn void sim_fail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* --- sched.c --- */
void sched_begin(void); /* the calling thread is the first */
void sched_point(void); /* another thread may run now; a crash may come */
void sched_sleep(int64_t ns);
/* Blocks until sched_wake(obj) or that time; true when woken. */
bool sched_block(const void *obj, int64_t until_ns);
void sched_wake(const void *obj);
void sched_bound(const char *phase, int64_t ns); /* this must be over in so much virtual time */

/* --- node.c --- */
enum cond {
	ND_WELL,
	ND_SLOW,
	ND_HANG, /* no answer; what was asked may be done, sometime */
	ND_DOWN, /* refused at once */
	ND_FULL,
	ND_REFUSE,
	ND_ERROR, /* half of all fails, done or not */
	ND_LOST_ACK,
	ND_CORRUPT, /* answers with a byte changed, or cut short */
	ND_STALE,   /* shows what it held when this began */
	ND_CONDS
};
extern const char *const cond_name[ND_CONDS];
void nodes_init(void); /* of a new world */
void node_condition(unsigned i, enum cond c);
enum cond node_condition_of(unsigned i);
/* Harm that stays: what was written lately is lost, or half of it; an older copy; bits flip. */
void node_crash(unsigned i);
void node_keep_copy(unsigned i);
bool node_roll_back(unsigned i);
unsigned node_rot(unsigned i);
unsigned node_lose(unsigned i);
void nodes_url(unsigned i, char out[64]);

/* --- model.c --- */
struct store;
struct publisher;
void model_init(void);
void model_dirs(struct store *st); /* in the first life: the directories of the clients */
/* One random operation of a client, checked; and what can be said when all is well. */
void client_op(unsigned c, struct store *st, struct publisher *p);
void model_read_all(struct store *st);
/* After a crash: the tree is one that may be found, and is what the model goes on from. */
void model_adopt(struct store *st);
void model_stopped(void); /* a clean stop: everything is on the disk */
/* A recovered tree: a moment that was, none older than what was said to be published. */
void model_recovered(struct store *st, bool exact);
/* All that was done until now is published: noted by whoever waits for that. */
struct model_mark {
	size_t at[SIM_CLIENTS];
};
void model_mark(struct model_mark *m, bool quiet); /* quiet: no operation is under way */
void model_published(const struct model_mark *m, struct publisher *p);
bool model_any_published(void);

/* --- disk.c --- */
void disk_begin(const char *root, bool cuts); /* the files that a power cut is about */
void disk_attach(const char *root, bool cuts);
void disk_cut(void); /* the power went; nobody has files open */

/* --- sim.c --- */
struct sim_opt {
	bool verbose, first; /* first: the first failure is enough */
	const char *broken;  /* the mechanism that is left out, or NULL */
};
extern struct sim_opt opt;
/* What all seeds together did, in memory that they share. */
struct totals {
	uint64_t seeds, failed, lives, crashes, recovered, faults, published, reads, steps,
		time_s;
};
extern struct totals *totals;
extern struct randombytes_implementation sodium_sim;
/* In a process of its own; true when everything held. */
bool run_seed(uint64_t seed, uint64_t *hash);

#endif
