/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "net/choose.h"

#define FADE_MS	      4000  /* busy time after which the past counts half */
#define OLD_MS	      20000 /* a bad rate is doubted after so long, and half each time */
#define GUESS_OVER_MS 100
#define GUESS_RATE    8192
#define RATE_MIN      16
#define LATE_MIN_MS   20
#define LATE_MAX_MS   1000
#define SOON_MS	      4000
#define SLOW_START    6
#define MUTE	      2 /* lates after which nothing is expected of a node */
#define REST_CNT      3
#define REST_SOON_MS  300
#define TELLS_MS      200 /* what came in less says little */
#define GRACE_MIN_MS  500
#define GRACE_TIMES   2

static unsigned bits(uint32_t mask)
{
	return (unsigned)__builtin_popcount(mask);
}

/* --- pace --- */

static uint32_t rate_of(const struct pace *p)
{
	return (uint32_t)HF_MAX(
		HF_MIN(p->bytes / HF_MAX(p->busy_ms, (uint64_t)1), (uint64_t)UINT32_MAX),
		(uint64_t)RATE_MIN);
}

/* A rate that was seen long ago and is worse than the others' is given another chance. */
static uint32_t rate_now(const struct pace *p, const struct pace_guess *g, int64_t now)
{
	if (p->slow && p->out)
		return p->slow;
	if (!p->busy_ms)
		return HF_MAX(g->rate, (uint32_t)RATE_MIN);
	uint64_t rate = rate_of(p);
	for (int64_t t = now - p->seen_ms; t > OLD_MS && rate < g->rate; t -= OLD_MS)
		rate *= 2;
	return rate_of(p) >= g->rate ? rate_of(p) : (uint32_t)HF_MIN(rate, (uint64_t)g->rate);
}

static uint32_t quantile(const uint32_t *p, unsigned cnt, unsigned percent)
{
	uint32_t v[PACE_HIST] = {0};

	for (unsigned i = 0; i < cnt; i++) {
		unsigned j = i;
		for (; j && v[j - 1] > p[i]; j--)
			v[j] = v[j - 1];
		v[j] = p[i];
	}
	return v[HF_MIN(cnt * percent / 100, cnt - 1)];
}

static uint32_t over(const struct pace *p, const struct pace_guess *g, unsigned percent)
{
	return p->cnt ? quantile(p->over_ms, p->cnt, percent) : g->over_ms;
}

static void put_over(struct pace *p, int64_t ms)
{
	p->over_ms[p->at] = (uint32_t)HF_MIN(HF_MAX(ms, (int64_t)0), (int64_t)60000);
	p->at = (p->at + 1) % PACE_HIST;
	p->cnt = HF_MIN(p->cnt + 1, (unsigned)PACE_HIST);
}

static void put_rate(struct pace *p, size_t len, int64_t ms, int64_t now)
{
	p->bytes += len;
	p->busy_ms += (uint64_t)HF_MAX(ms, (int64_t)1);
	while (p->busy_ms > FADE_MS) {
		p->busy_ms /= 2;
		p->bytes /= 2;
	}
	p->seen_ms = now;
}

void pace_begin(struct pace *p, size_t len, int64_t now)
{
	if (!p->out++)
		p->last_ms = now;
	p->out_bytes += len;
}

void pace_late(struct pace *p)
{
	p->lates += p->lates < UINT32_MAX;
}

void pace_end(struct pace *p, size_t len, size_t came, uint64_t ahead, int64_t begun,
	      int64_t now, enum pace_end how)
{
	const struct pace_guess none = {0, GUESS_RATE};
	/* The link was this request's, or others', since something last came over it. */
	int64_t since = HF_MAX(begun, p->last_ms);

	p->out -= p->out > 0;
	p->out_bytes -= HF_MIN(p->out_bytes, (uint64_t)len);
	if (how == PACE_CAME)
		p->lates = 0;
	else if (how == PACE_LATE && len < PACE_BULK)
		pace_late(p);
	if (how == PACE_CAME && len < PACE_BULK) {
		put_over(p, now - begun - (int64_t)((ahead + len) / rate_now(p, &none, now)));
	} else if (how == PACE_CAME) {
		/* The way there and back is no time of the link's, if nothing else was on it.
		 */
		int64_t idle = ahead ? 0 : over(p, &none, 50);
		put_rate(p, len, now - HF_MIN(since + idle, now - 1), now);
	} else if (how == PACE_LATE) {
		put_over(p, now - begun);
		if (len >= PACE_BULK)
			put_rate(p, came, HF_MIN(now - since, (int64_t)FADE_MS), now);
	}
	if (how == PACE_QUIET && p->slow && len >= PACE_BULK)
		put_rate(p, (size_t)p->slow * TELLS_MS, TELLS_MS, now);
	if (how != PACE_QUIET)
		p->last_ms = now;
}

void pace_progress(struct pace *p, const struct pace_guess *g, uint64_t told, int64_t now)
{
	int64_t ms = now - p->told_ms - over(p, g, 50);

	if (!told || p->out_bytes < PACE_BULK || p->told_ms < p->last_ms) {
		p->told = told;
		p->told_ms = now;
		p->slow = 0;
	} else if (ms >= TELLS_MS) {
		uint64_t rate = HF_MAX((told - p->told) / (uint64_t)ms, (uint64_t)RATE_MIN);
		p->slow = 0;
		if (rate < rate_now(p, g, now) / 2)
			p->slow = (uint32_t)rate;
	}
}

int64_t pace_left_ms(const struct pace *p, const struct pace_guess *g, uint64_t bytes,
		     int64_t now)
{
	return over(p, g, 50) + (int64_t)(bytes / rate_now(p, g, now));
}

struct pace_guess pace_guess(const struct pace p[], size_t cnt)
{
	uint32_t over_ms[PACE_HIST], rate[PACE_HIST];
	unsigned overs = 0, rates = 0;

	/* A few dozen are as good as all. */
	for (size_t i = 0; i < cnt && overs < PACE_HIST && rates < PACE_HIST; i++) {
		if (p[i].cnt)
			over_ms[overs++] = quantile(p[i].over_ms, p[i].cnt, 50);
		if (p[i].busy_ms)
			rate[rates++] = rate_of(&p[i]);
	}
	return (struct pace_guess){overs ? quantile(over_ms, overs, 50) : GUESS_OVER_MS,
				   rates ? quantile(rate, rates, 50) : GUESS_RATE};
}

int64_t pace_expect_ms(const struct pace *p, const struct pace_guess *g, size_t len,
		       int64_t now)
{
	return over(p, g, 50) + (int64_t)((p->out_bytes + len) / rate_now(p, g, now));
}

int64_t pace_late_ms(const struct pace *p, const struct pace_guess *g, size_t len, int64_t now)
{
	int64_t late = over(p, g, 95), usual = over(p, g, 50);

	/* With little history the largest of it is not yet what is late. */
	if (p->cnt < 8)
		late += late / 2;
	if (p->lates)
		late = HF_MIN(late, usual + usual / 2 + LATE_MIN_MS);
	late = HF_MIN(HF_MAX(late + late / 8, (int64_t)LATE_MIN_MS), (int64_t)LATE_MAX_MS);
	uint64_t bytes = (p->out_bytes + len) / rate_now(p, g, now);
	/* The first bulk over a link takes some ways more, while TCP learns what it carries. */
	if (!p->busy_ms && len >= PACE_BULK)
		late += SLOW_START * usual;
	return late + 2 * (int64_t)bytes;
}

int64_t pace_look_ms(const struct pace *p, const struct pace_guess *g, size_t len, int64_t now)
{
	int64_t late = pace_late_ms(p, g, len, now);

	if (len < PACE_BULK)
		return p->lates >= MUTE ? 0 : late;
	return HF_MIN(late, pace_expect_ms(p, g, len, now) + LATE_MIN_MS);
}

/* --- shards --- */

/* When shard i would be of use; one that is not wanted has to be decoded from. */
static int64_t use_ms(const struct choice *c, unsigned i)
{
	return c->expect_ms[i] + (c->want >> i & 1 ? 0 : c->code_ms + 1);
}

/* The next best of `from`, or n. */
static unsigned best(const struct choice *c, uint32_t from)
{
	unsigned found = c->n;

	for (unsigned j = 0; j < c->n; j++) {
		unsigned i = (j + c->turn) % c->n;
		if ((from >> i & 1) && (found == c->n || use_ms(c, i) < use_ms(c, found)))
			found = i;
	}
	return found;
}

/* The best of `from` until cnt are found; slow ones come last.  *end_ms: the worst of them. */
static uint32_t take(const struct choice *c, uint32_t from, unsigned cnt, int64_t *end_ms)
{
	uint32_t got = 0;

	*end_ms = 0;
	for (int slow_too = 0; slow_too <= 1; slow_too++) {
		uint32_t left = slow_too ? from & c->avoid : from & ~c->avoid;
		while (bits(got) < cnt && left) {
			unsigned i = best(c, left);
			left &= ~(1u << i);
			got |= 1u << i;
			*end_ms = HF_MAX(*end_ms, use_ms(c, i));
		}
	}
	return got;
}

uint32_t choose_start(const struct choice *c)
{
	int64_t want_ms, any_ms;
	uint32_t any = take(c, c->can, c->k, &any_ms);
	uint32_t good = c->can & ~c->avoid;

	if (c->want & ~good)
		/* One that is wanted must be rebuilt: from any K. */
		return any;
	take(c, c->want, c->n, &want_ms);
	if (bits(any) < c->k || (any & c->avoid))
		return c->want;
	if (bits(c->want) >= c->k)
		return any;
	/* More requests than needed only where they gain much. */
	return want_ms > 2 * any_ms + LATE_MIN_MS ? any | c->want : c->want;
}

uint32_t choose_more(const struct choice *c)
{
	uint32_t coming = (c->asked & ~c->failed & ~c->late) | c->good;
	unsigned enough = c->k + (c->late & ~c->good ? 1 : 0);
	int64_t end;

	if (!(c->want & ~coming) || bits(coming) >= enough)
		return 0;
	return take(c, c->can & ~c->asked & ~c->failed, enough - bits(coming), &end);
}

bool choose_straggler(const struct choice *c, int64_t left_ms)
{
	int64_t end;

	return take(c, c->can & ~c->avoid & ~c->asked & ~c->failed, 1, &end) &&
	       left_ms > end + end / 2 + LATE_MIN_MS;
}

bool choose_hope(const struct choice *c)
{
	uint32_t hope = (c->asked & ~c->failed) | c->good;

	return !(c->want & ~hope) || bits(hope) >= c->k;
}

uint32_t choose_rows(uint32_t rows, uint32_t least, int64_t whole_ms)
{
	if (whole_ms <= SOON_MS)
		return rows;
	return HF_MIN(rows, HF_MAX(least, (uint32_t)((int64_t)rows * SOON_MS / whole_ms)));
}

bool choose_rest(unsigned cnt, int64_t over_ms, int64_t whole_ms)
{
	return cnt >= REST_CNT &&
	       (whole_ms <= REST_SOON_MS || 4 * (int64_t)cnt * (over_ms + 1) >= whole_ms);
}

int64_t choose_grace_ms(int64_t took_ms, bool laggards)
{
	return laggards ? 0 : HF_MAX((int64_t)GRACE_MIN_MS, GRACE_TIMES * took_ms);
}
