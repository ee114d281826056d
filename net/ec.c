/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "net/ec.h"

#include <assert.h>
#include <isa-l/erasure_code.h>
#include <stdlib.h>

/* The most bytes of table for one code: k * m is largest at half and half. */
#define TABLE_MAX (32 * (EC_MAX / 2) * (EC_MAX / 2))

/* ISA-L takes the length as an int. */
#define CHUNK_LEN ((size_t)1 << 28)

struct ec {
	unsigned k, m;
	uint8_t a[EC_MAX * EC_MAX]; /* (k + m) rows of k: identity, then Cauchy */
	uint8_t table[TABLE_MAX];   /* of the parity rows */
};

int ec_new(struct ec **out, unsigned k, unsigned m)
{
	*out = NULL;
	if (k < 1 || k > EC_MAX || m > EC_MAX - k)
		return -EINVAL;
	struct ec *ec = calloc(1, sizeof *ec);
	if (!ec)
		return -ENOMEM;
	ec->k = k;
	ec->m = m;
	gf_gen_cauchy1_matrix(ec->a, (int)(k + m), (int)k);
	if (m)
		ec_init_tables((int)k, (int)m, ec->a + k * k, ec->table);
	*out = ec;
	return 0;
}

void ec_free(struct ec *ec)
{
	free(ec);
}

static void code(unsigned k, unsigned rows, const uint8_t *table, uint8_t *const in[],
		 uint8_t *const out[], size_t len)
{
	uint8_t *from[EC_MAX], *to[EC_MAX];

	for (size_t off = 0; rows && off < len; off += CHUNK_LEN) {
		for (unsigned i = 0; i < k; i++)
			from[i] = in[i] + off;
		for (unsigned i = 0; i < rows; i++)
			to[i] = out[i] + off;
		ec_encode_data((int)HF_MIN(len - off, CHUNK_LEN), (int)k, (int)rows,
			       (uint8_t *)table, from, to);
	}
}

void ec_encode(const struct ec *ec, uint8_t *const data[], uint8_t *const parity[], size_t len)
{
	code(ec->k, ec->m, ec->table, data, parity, len);
}

/* row[0..k-1] of shard i times the inverse inv: how shard i is made of the survivors. */
static void decode_row(const struct ec *ec, unsigned i, const uint8_t *inv, uint8_t *row)
{
	unsigned k = ec->k;

	if (i < k) {
		memcpy(row, inv + i * k, k);
		return;
	}
	for (unsigned c = 0; c < k; c++) {
		row[c] = 0;
		for (unsigned j = 0; j < k; j++)
			row[c] ^= gf_mul(ec->a[i * k + j], inv[j * k + c]);
	}
}

int ec_repair(const struct ec *ec, uint8_t *const shard[], const bool have[], size_t len)
{
	uint8_t sub[EC_MAX * EC_MAX], inv[EC_MAX * EC_MAX];
	uint8_t row[EC_MAX * EC_MAX / 4 + EC_MAX], table[TABLE_MAX];
	uint8_t *in[EC_MAX], *out[EC_MAX];
	unsigned k = ec->k, n = ec->k + ec->m, in_cnt = 0, out_cnt = 0;

	for (unsigned i = 0; i < n && in_cnt < k; i++) {
		if (!have[i] || !shard[i])
			continue;
		memcpy(sub + in_cnt * k, ec->a + i * k, k);
		in[in_cnt++] = shard[i];
	}
	if (in_cnt < k)
		return -ENODATA;
	/* Any k rows of identity over Cauchy are independent. */
	if (gf_invert_matrix(sub, inv, (int)k) != 0)
		return log_fail(-EIO, "erasure code %u+%u: a survivor set has no inverse", k,
				ec->m);
	for (unsigned i = 0; i < n; i++) {
		if (have[i] || !shard[i])
			continue;
		/* At most m are missing, since k are there. */
		decode_row(ec, i, inv, row + out_cnt * k);
		out[out_cnt++] = shard[i];
	}
	assert(out_cnt <= ec->m);
	if (!out_cnt)
		return 0;
	ec_init_tables((int)k, (int)out_cnt, row, table);
	code(k, out_cnt, table, in, out, len);
	return 0;
}
