/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * ec: Reed-Solomon over GF(2^8) by ISA-L, Cauchy matrices only: gf_gen_rs_matrix has
 * undecodable survivor sets (46 of the 8008 of 10-of-16).
 */
#ifndef HOLDFAST_NET_EC_H
#define HOLDFAST_NET_EC_H

#include "net/base.h"

#define EC_MAX 32 /* shards of a stripe, K + M */

struct ec;

/* 1 <= k, 0 <= m, k + m <= EC_MAX: else -EINVAL.  Immutable afterwards, any thread. */
int ec_new(struct ec **out, unsigned k, unsigned m);
void ec_free(struct ec *ec);

/* data[0..k-1] in, parity[0..m-1] out, len bytes each. */
void ec_encode(const struct ec *ec, uint8_t *const data[], uint8_t *const parity[], size_t len);

/*
 * ec_repair(ec, shard, have, len): rebuild the shards that are missing.
 * shard[0..k+m-1]   in where have[i], out where not and shard[i] != NULL; len bytes each
 * have[0..k+m-1]    which shards hold valid bytes on entry
 * Returns 0; -ENODATA if fewer than k are present; -ENOMEM.  On an error no shard has
 * changed.  It trusts its input: check each shard's tags before.
 */
int ec_repair(const struct ec *ec, uint8_t *const shard[], const bool have[], size_t len);

#endif
