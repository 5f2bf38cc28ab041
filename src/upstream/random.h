// SPDX-License-Identifier: Apache-2.0
/* Chance for choices that no attacker gains by guessing.   Thread: one worker. */
#ifndef UPSTREAM_RANDOM_H
#define UPSTREAM_RANDOM_H

#include <assert.h>
#include <stdint.h>

#include "base/siphash.h"

struct random {
    uint64_t state; /* never 0 */
};

static inline void random_init(struct random *random)
{
    random->state = siphash_random_key().k0 | 1;
}

/* A number below `bound` (> 0). xorshift64* (Vigna, 2016): quick. */
static inline uint64_t random_below(struct random *random, uint64_t bound)
{
    assert(bound > 0 && random->state > 0);
    uint64_t x = random->state;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    random->state = x;
    return ((x * UINT64_C(0x2545f4914f6cdd1d)) >> 16) % bound;
}

#endif
