/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The command line: seeds, one after the other or several at a time.
 *
 *   sim [-vf] [-j JOBS] [-t SECONDS] [-b MECHANISM] SEED | FROM-TO | @FILE
 *   sim -2 FROM-TO
 *
 * -b switches off what is to be found missing, the negative controls: commit (it is not sent),
 * fsync (nothing is committed), scrub (nothing is marked), and the product's own sync, capture,
 * intent, redo, settle, published, seen, older, quorum.
 */
#include "sim.h"

#include <sodium.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

int __real_clock_gettime(clockid_t id, struct timespec *ts);

static pid_t start_seed(uint64_t seed, uint64_t *hash)
{
	fflush(NULL);
	pid_t pid = fork();

	if (pid)
		return pid;
	_exit(run_seed(seed, hash) ? 0 : 1);
}

static int64_t wall_s(void)
{
	struct timespec ts;

	/* The real clock: the wrapped one is the world's. */
	__real_clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec;
}

#define JOBS 64

static bool more_seeds(uint64_t next, uint64_t cnt, int64_t end)
{
	return next < cnt && wall_s() < end && !(opt.first && totals->failed);
}

/* Seeds from..to (or list[0..cnt-1]), until the time is over. */
static int run_seeds(const uint64_t *list, uint64_t from, uint64_t cnt, unsigned jobs,
		     int64_t limit_s)
{
	struct {
		pid_t pid;
		uint64_t seed;
	} job[JOBS] = {0};
	int64_t end = wall_s() + limit_s;
	uint64_t next = 0, *hash = &totals[1].seeds;
	unsigned busy = 0;

	while (busy || more_seeds(next, cnt, limit_s ? end : INT64_MAX)) {
		while (busy < jobs && more_seeds(next, cnt, limit_s ? end : INT64_MAX)) {
			unsigned i = 0;

			while (job[i].pid)
				i++;
			job[i].seed = list ? list[next] : from + next;
			job[i].pid = start_seed(job[i].seed, hash + i);
			next++;
			busy++;
		}
		int status;
		pid_t pid = wait(&status);
		for (unsigned i = 0; i < jobs; i++)
			if (job[i].pid == pid) {
				busy--;
				job[i].pid = 0;
				totals->seeds++;
				if (status) {
					totals->failed++;
					printf("FAILED: seed %llu\n",
					       (unsigned long long)job[i].seed);
				}
			}
	}
	printf("%llu seeds, %llu failed: %llu lives, %llu crashes, %llu faults, %llu "
	       "publications "
	       "and %llu reads checked, %llu recoveries, %llu steps, %.1f h of virtual time\n",
	       (unsigned long long)totals->seeds, (unsigned long long)totals->failed,
	       (unsigned long long)totals->lives, (unsigned long long)totals->crashes,
	       (unsigned long long)totals->faults, (unsigned long long)totals->published,
	       (unsigned long long)totals->reads, (unsigned long long)totals->recovered,
	       (unsigned long long)totals->steps, (double)totals->time_s / 3600);
	return totals->failed ? 1 : 0;
}

/* The same seed twice: the same hash. */
static int run_twice(uint64_t from, uint64_t cnt)
{
	uint64_t *hash = &totals[1].seeds;
	int status[2], bad = 0;

	for (uint64_t s = from; s < from + cnt; s++) {
		for (unsigned i = 0; i < 2; i++)
			if (waitpid(start_seed(s, hash + i), &status[i], 0) < 0)
				abort();
		if (hash[0] != hash[1] || status[0] != status[1]) {
			printf("seed %llu: %016llx, then %016llx\n", (unsigned long long)s,
			       (unsigned long long)hash[0], (unsigned long long)hash[1]);
			bad++;
		} else if (s > from && hash[0] == hash[2]) {
			printf("seed %llu: the hash of the one before\n",
			       (unsigned long long)s);
			bad++;
		}
		hash[2] = hash[0];
	}
	printf("%llu seeds twice, %d differ\n", (unsigned long long)cnt, bad);
	return bad ? 1 : 0;
}

/* A number at the begin of each line; what it found behind it. */
static uint64_t read_corpus(const char *path, uint64_t **list)
{
	FILE *f = fopen(path, "r");
	char line[1024];
	uint64_t cnt = 0;

	*list = NULL;
	if (!f) {
		perror(path);
		exit(2);
	}
	while (fgets(line, sizeof line, f)) {
		char *end;
		uint64_t seed = strtoull(line, &end, 10);

		if (end == line)
			continue;
		*list = realloc(*list, (cnt + 1) * sizeof **list);
		(*list)[cnt++] = seed;
	}
	fclose(f);
	return cnt;
}

static int usage(void)
{
	fprintf(stderr, "usage: sim [-vf] [-j JOBS] [-t SECONDS] [-b MECHANISM] SEED | FROM-TO "
			"| @FILE\n"
			"       sim -2 FROM-TO    each seed twice, the same hash\n");
	return 2;
}

int main(int argc, char **argv)
{
	unsigned jobs = 1;
	int64_t limit_s = 0;
	bool twice = false;
	uint64_t *list = NULL;
	int c;

	/* The order of addresses is the same each time. */
	if (!(personality(0xffffffff) & ADDR_NO_RANDOMIZE) && !getenv("SIM_FIXED")) {
		personality(ADDR_NO_RANDOMIZE);
		setenv("SIM_FIXED", "1", 1);
		execv("/proc/self/exe", argv);
	}
	while ((c = getopt(argc, argv, "fvj:t:b:2")) != -1)
		switch (c) {
		case 'f':
			opt.first = true;
			break;
		case 'v':
			opt.verbose = true;
			break;
		case 'j':
			jobs = (unsigned)HF_MIN(HF_MAX(atoi(optarg), 1), JOBS);
			break;
		case 't':
			limit_s = atoll(optarg);
			break;
		case 'b':
			opt.broken = optarg;
			break;
		case '2':
			twice = true;
			break;
		default:
			return usage();
		}
	if (optind + 1 != argc)
		return usage();
	randombytes_set_implementation(&sodium_sim);
	totals = mmap(NULL, 4096 + JOBS * 8, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
		      -1, 0);
	if (totals == MAP_FAILED)
		abort();
	log_set_quiet(true);
	log_set_level(LOG_LVL_ERROR);
	const char *dash = strchr(argv[optind], '-');
	uint64_t from = strtoull(argv[optind], NULL, 10), cnt = 1;
	if (argv[optind][0] == '@')
		cnt = read_corpus(argv[optind] + 1, &list);
	else if (dash)
		cnt = strtoull(dash + 1, NULL, 10) - from + 1;
	return twice ? run_twice(from, cnt) : run_seeds(list, from, cnt, jobs, limit_s);
}
