// SPDX-License-Identifier: Apache-2.0
/* SipHash-1-3, the keyed hash of every table whose keys a client or an upstream chooses: without
 * the key nobody can make names that collide (FAULTS I9).
 *
 * Source: Aumasson and Bernstein, "SipHash: a fast short-input PRF" (2012), with c = 1, d = 3. */
#ifndef BASE_SIPHASH_H
#define BASE_SIPHASH_H

#include <stddef.h>
#include <stdint.h>

struct siphash_key {
    uint64_t k0;
    uint64_t k1;
};

/* A key from the kernel's generator (getrandom); aborts when the kernel has none to give. */
struct siphash_key siphash_random_key(void);

uint64_t siphash(const struct siphash_key *key, const void *bytes, size_t length);

/* The hash of `first` in little-endian order with `bytes` behind it, without laying them out so. */
uint64_t siphash_with(const struct siphash_key *key, uint64_t first, const void *bytes,
                      size_t length);

#endif
