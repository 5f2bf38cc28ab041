// SPDX-License-Identifier: Apache-2.0
/* How many queries of one client wait at once over UDP. */
#include "query/wait_limit.h"

#include <assert.h>

#include "base/siphash.h"

void wait_limit_init(struct wait_limit *limit, uint32_t of_client)
{
    *limit = (struct wait_limit){
        .key = siphash_random_key().k0 | 1,
        .counted_from = of_client > 0 ? of_client / 2 : SIZE_MAX,
        .max = of_client - of_client / 2,
    };
}

/* 127.0.0.0/8 in its IPv4-mapped form, and ::1. */
static bool is_loopback(const uint64_t bits[static 2])
{
    return bits[0] == 0 && (bits[1] >> 24 == 0xffff7f || bits[1] == 1);
}

/* Who finds addresses that meet has won little, so it need not be SipHash; one multiplication alone
 * would, with some keys, send a whole network to a few buckets. */
static uint64_t hash(uint64_t number, uint64_t key)
{
    uint64_t mixed = number * key;
    mixed ^= mixed >> 32;
    return mixed * key;
}

uint16_t wait_limit_bucket(const struct wait_limit *limit, const struct address *client)
{
    uint64_t bits[2];
    address_bits(client, bits);
    if (is_loopback(bits))
        return WAIT_UNLIMITED;
    const uint64_t counted = bits[0] ? bits[0] : bits[1]; /* of IPv6 the /64 */
    return (uint16_t)(hash(counted, limit->key) >> (64 - WAIT_LIMIT_BITS));
}

bool wait_limit_is_reached(const struct wait_limit *limit, uint16_t bucket)
{
    assert(bucket <= WAIT_UNLIMITED);
    return bucket != WAIT_UNLIMITED && limit->counts[bucket] >= limit->max;
}

void wait_limit_enter(struct wait_limit *limit, uint16_t bucket)
{
    assert(bucket < WAIT_LIMIT_BUCKETS);
    limit->counts[bucket]++;
}

void wait_limit_leave(struct wait_limit *limit, uint16_t bucket)
{
    assert(bucket < WAIT_LIMIT_BUCKETS && limit->counts[bucket] > 0);
    limit->counts[bucket]--;
}
