/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "net/health.h"

void health_init(struct health *h)
{
	*h = (struct health){.state = NODE_DOWN};
}

static uint32_t quantile(const uint32_t *ms, unsigned cnt, unsigned percent)
{
	uint32_t v[HEALTH_HIST];

	if (!cnt)
		return 0;
	/* 64 numbers: an insertion sort is as good as any. */
	for (unsigned i = 0; i < cnt; i++) {
		unsigned j = i;
		for (; j && v[j - 1] > ms[i]; j--)
			v[j] = v[j - 1];
		v[j] = ms[i];
	}
	return v[HF_MIN(cnt * percent / 100, cnt - 1)];
}

uint32_t health_quantile(const struct health *h, unsigned percent)
{
	return quantile(h->took_ms, h->cnt, percent);
}

int64_t health_expect_ms(const struct health *h, size_t len)
{
	/* A directory has no first byte of its own: what its reads took is both. */
	int64_t ms = h->first_cnt ? quantile(h->first_ms, h->first_cnt, 95)
				  : quantile(h->took_ms, h->cnt, 95);

	if (h->down_rate > 0)
		ms += (int64_t)((double)len * 1000 / h->down_rate);
	return HF_MAX(ms, (int64_t)HEALTH_HEDGE_FLOOR);
}

void health_measure(struct health *h, bool up, int64_t first_ms, size_t len, int64_t ms)
{
	double *rate = up ? &h->up_rate : &h->down_rate;

	if (!up) {
		h->first_ms[h->first_at] = (uint32_t)HF_MIN(HF_MAX(first_ms, (int64_t)0),
							    (int64_t)UINT32_MAX);
		h->first_at = (h->first_at + 1) % HEALTH_HIST;
		h->first_cnt = HF_MIN(h->first_cnt + 1, (unsigned)HEALTH_HIST);
	}
	if (len < HEALTH_RATE_LEN)
		return;
	double now = (double)len * 1000 / (double)HF_MAX(ms, (int64_t)1);
	*rate = *rate > 0 ? *rate * 0.8 + now * 0.2 : now;
}

int64_t health_hedge_ms(const struct health *h)
{
	int64_t p95 = health_quantile(h, 95);

	return HF_MIN(HF_MAX(p95, (int64_t)HEALTH_HEDGE_FLOOR), (int64_t)HEALTH_HEDGE_CAP);
}

/* States that leave the decision to speed and success: the others need their own reason. */
static bool ordinary(const struct health *h)
{
	return h->state == NODE_UP || h->state == NODE_SLOW;
}

static void go_up(struct health *h, int64_t now)
{
	h->state = NODE_UP;
	h->up_ms = now;
	/* One that kept nothing has one write to show that it does again. */
	h->unkept = HF_MIN(h->unkept, HEALTH_UNKEPT - 1u);
	h->timeouts = h->fails = h->lates = h->goods = h->proofs = 0;
}

static void speed(struct health *h)
{
	if (h->state == NODE_UP && h->lates >= HEALTH_LATE_LIMIT)
		h->state = NODE_SLOW;
	else if (h->state == NODE_SLOW && h->goods >= HEALTH_LATE_LIMIT)
		h->state = NODE_UP;
}

static void took(struct health *h, int64_t ms, size_t len)
{
	/* A long read of a node whose rate is known is late by what its length allows. */
	int64_t due = health_hedge_ms(h);

	if (h->first_cnt)
		due = HF_MAX(due, 2 * health_expect_ms(h, len));
	if (ms > due) {
		h->lates++;
		h->goods = 0;
	} else {
		h->lates = 0;
		h->goods++;
	}
	h->took_ms[h->at] = (uint32_t)HF_MIN(ms, (int64_t)UINT32_MAX);
	h->at = (h->at + 1) % HEALTH_HIST;
	h->cnt = HF_MIN(h->cnt + 1, (unsigned)HEALTH_HIST);
}

static void forgive(struct health *h, int64_t now)
{
	if (h->state == NODE_LYING && now - h->lied_ms > HEALTH_LIE_MS)
		go_up(h, now);
}

void health_ok(struct health *h, int64_t took_ms, size_t len, bool put, int64_t now)
{
	h->timeouts = h->fails = 0;
	if (took_ms >= 0)
		took(h, took_ms, len);
	if (put)
		h->unkept = 0;
	if (put && (h->state == NODE_FULL || h->state == NODE_REFUSING))
		go_up(h, now);
	forgive(h, now);
	speed(h);
}

static void go_down(struct health *h, bool flapping, int64_t now)
{
	if (h->state == NODE_DOWN || h->state == NODE_WRONG)
		return;
	if (flapping)
		h->flaps = now - h->up_ms < HEALTH_FLAP_MS ? HF_MIN(h->flaps + 1, 3u) : 0;
	h->state = NODE_DOWN;
	h->proofs = 0;
}

/* It takes nothing more: again, soon after it was given another chance, or for once. */
static void no_more(struct health *h, enum node_state state, int64_t now)
{
	bool again = now - h->up_ms < HEALTH_KEEP_MAX_MS;

	h->state = state;
	h->refused = again ? HF_MIN(h->refused + 1, 8u) : 1;
}

/*
 * A node may serve all that it has and keep nothing new.  Reads do not speak for its writes:
 * these have a count of their own.
 */
static void unkept(struct health *h, unsigned cnt, int64_t now)
{
	h->unkept += cnt;
	if (h->unkept < HEALTH_UNKEPT || !ordinary(h))
		return;
	no_more(h, NODE_REFUSING, now);
	h->refused_ms = now;
}

/* How long nobody tries whether it keeps something again. */
static int64_t keep_wait_ms(const struct health *h)
{
	return HF_MIN((int64_t)HEALTH_KEEP_MIN_MS << (HF_MAX(h->refused, 1u) - 1),
		      (int64_t)HEALTH_KEEP_MAX_MS);
}

bool health_doubted(const struct health *h)
{
	return h->unkept >= HEALTH_DOUBT;
}

void health_fail(struct health *h, int err, bool put, uint64_t free_bytes, int64_t now)
{
	switch (-err) {
	case ENOENT:
	case ECANCELED:
	case ENOMEM:
	case EINVAL:
		/* These say nothing about the node. */
		break;
	case ENOSPC:
	case EDQUOT:
		if (ordinary(h) || h->state == NODE_FULL) {
			/* What was under way when it became full says nothing new. */
			if (h->state != NODE_FULL)
				no_more(h, NODE_FULL, now);
			h->full_ms = now;
			h->full_free = free_bytes;
		} else if (put) {
			/* Its state has another reason: at least nobody counts on it. */
			unkept(h, HEALTH_DOUBT, now);
		}
		break;
	case EAGAIN:
		/* Too much was asked of it. */
		health_late(h);
		if (put)
			unkept(h, 1, now);
		break;
	case EACCES:
	case EPERM:
	case EROFS:
		if (ordinary(h))
			h->state = NODE_REFUSING;
		else if (put)
			unkept(h, HEALTH_DOUBT, now);
		break;
	case ENODEV:
	case ENXIO:
	case ENOTCONN:
	case ESTALE:
		go_down(h, false, now);
		break;
	case ETIMEDOUT:
		if (++h->timeouts >= 2)
			go_down(h, true, now);
		/* It took as long as anything may: once more is enough. */
		if (put)
			unkept(h, HEALTH_DOUBT, now);
		break;
	default:
		if (++h->fails >= 3)
			go_down(h, true, now);
		if (put)
			unkept(h, 1, now);
	}
}

void health_late(struct health *h)
{
	h->lates++;
	h->goods = 0;
	speed(h);
}

void health_lied(struct health *h, int64_t now)
{
	h->lied_ms = now;
	if (ordinary(h) || h->state == NODE_LYING)
		h->state = NODE_LYING;
}

bool health_returning(const struct health *h)
{
	return (h->state == NODE_DOWN || h->state == NODE_WRONG) && h->proofs;
}

void health_verified(struct health *h, int err, int64_t took_ms, uint64_t free_bytes,
		     uint64_t total_bytes, int64_t now)
{
	switch (-err) {
	case 0:
		break;
	case ENOENT:
	case EBADMSG:
		h->state = NODE_WRONG;
		h->proofs = 0;
		return;
	case EACCES:
	case EPERM:
	case EROFS:
		h->state = NODE_REFUSING;
		return;
	case ECANCELED:
	case ENOMEM:
		return;
	default:
		/* A place that cannot even show its marker is down, whatever the reason. */
		go_down(h, err == -ETIMEDOUT, now);
		h->proofs = 0;
		return;
	}
	if (h->state == NODE_DOWN || h->state == NODE_WRONG) {
		if (++h->proofs >= 1u << h->flaps)
			go_up(h, now);
		return;
	}
	h->timeouts = h->fails = 0;
	if (took_ms >= 0)
		took(h, took_ms, 0);
	int64_t full_ms = total_bytes ? HEALTH_FULL_MS : keep_wait_ms(h);
	int64_t refused_ms = h->unkept >= HEALTH_UNKEPT ? keep_wait_ms(h) : 0;
	uint64_t room = HF_MIN((uint64_t)16 << 20, total_bytes / 8);
	if ((h->state == NODE_REFUSING && now - h->refused_ms >= refused_ms) ||
	    (h->state == NODE_FULL && (now - h->full_ms >= full_ms ||
				       (total_bytes && free_bytes >= h->full_free + room))))
		go_up(h, now);
	forgive(h, now);
	speed(h);
}
