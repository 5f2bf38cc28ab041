// SPDX-License-Identifier: Apache-2.0
/* Rates, for one bucket or for every address prefix of clients.
 *
 * The table stores no prefixes: each is hashed to its bucket, and two prefixes that meet in one
 * share its rate. That costs a client at worst a retry over TCP, and there is nothing to evict, so
 * a flood from forged addresses cannot push out what is known about its victim. The hash is keyed:
 * nobody can choose whom to meet (FAULTS I9). */
#include "listen/rate.h"

#include <assert.h>
#include <stdlib.h>

#include "base/deadline.h"
#include "base/siphash.h"

enum {
    BUCKETS = 16384, /* 128 KiB */
    PREFIX_V4 = 24,
    PREFIX_V6 = 56, /* what one customer is given (RFC 6177) */
};

struct rate_table {
    struct siphash_key key;
    struct rate_bucket buckets[BUCKETS];
};

bool rate_allow(struct rate_bucket *bucket, uint32_t per_second, uint64_t now)
{
    assert(per_second > 0);
    const uint64_t interval_ns = NANOSECONDS_PER_SECOND / per_second;
    const uint64_t start = bucket->busy_until_ns > now ? bucket->busy_until_ns : now;
    if (start - now > NANOSECONDS_PER_SECOND - interval_ns)
        return false;
    bucket->busy_until_ns = start + interval_ns;
    return true;
}

struct rate_table *rate_table_open(void)
{
    struct rate_table *table = calloc(1, sizeof(*table));
    if (table)
        table->key = siphash_random_key();
    return table;
}

void rate_table_close(struct rate_table *table)
{
    free(table);
}

bool rate_table_allow(struct rate_table *table, const struct address *client, uint32_t per_second,
                      uint64_t now)
{
    const struct prefix prefix = prefix_of(client, PREFIX_V4, PREFIX_V6);
    const uint64_t hash = siphash(&table->key, prefix.bits, sizeof(prefix.bits));
    return rate_allow(&table->buckets[hash % BUCKETS], per_second, now);
}
