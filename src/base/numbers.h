// SPDX-License-Identifier: Apache-2.0
/* Two numbers, and how often something may be. */
#ifndef BASE_NUMBERS_H
#define BASE_NUMBERS_H

#include <stdbool.h>
#include <stdint.h>

static inline uint64_t least_of(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static inline uint64_t most_of(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* A rate as one time stamp, the virtual end of the work already accepted (GCRA, ITU-T I.371). True
 * when one more event fits, each of which takes `interval_ns`, with as much as `ahead_ns` accepted
 * before its time; it is then used up. */
static inline bool rate_fits(uint64_t *until_ns, uint64_t now, uint64_t interval_ns,
                             uint64_t ahead_ns)
{
    if (*until_ns > now + ahead_ns)
        return false;
    *until_ns = most_of(*until_ns, now) + interval_ns;
    return true;
}

#endif
