// SPDX-License-Identifier: Apache-2.0
/* SipHash-1-3: one round per word of input, three at the end.
 *
 * Thread: any. */
#include "base/siphash.h"

#include <endian.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

struct state {
    uint64_t v0;
    uint64_t v1;
    uint64_t v2;
    uint64_t v3;
};

static inline uint64_t rotate_left(uint64_t word, unsigned int bits)
{
    return word << bits | word >> (64 - bits);
}

static inline void mix(struct state *state)
{
    state->v0 += state->v1;
    state->v1 = rotate_left(state->v1, 13) ^ state->v0;
    state->v0 = rotate_left(state->v0, 32);
    state->v2 += state->v3;
    state->v3 = rotate_left(state->v3, 16) ^ state->v2;
    state->v0 += state->v3;
    state->v3 = rotate_left(state->v3, 21) ^ state->v0;
    state->v2 += state->v1;
    state->v1 = rotate_left(state->v1, 17) ^ state->v2;
    state->v2 = rotate_left(state->v2, 32);
}

static inline void absorb(struct state *state, uint64_t word)
{
    state->v3 ^= word;
    mix(state);
    state->v0 ^= word;
}

static inline uint64_t load_word(const uint8_t *bytes)
{
    uint64_t word;
    memcpy(&word, bytes, sizeof(word));
    return le64toh(word);
}

static inline uint32_t load_half(const uint8_t *bytes)
{
    uint32_t half;
    memcpy(&half, bytes, sizeof(half));
    return le32toh(half);
}

/* Up to 7 bytes; where two loads overlap they bring the same. */
static inline uint64_t load_tail(const uint8_t *bytes, size_t length)
{
    if (length >= 4)
        return load_half(bytes) | (uint64_t)load_half(bytes + length - 4) << (length - 4) * 8;
    if (length == 0)
        return 0;
    const size_t middle = length / 2;
    return bytes[0] | (uint64_t)bytes[middle] << middle * 8 |
           (uint64_t)bytes[length - 1] << (length - 1) * 8;
}

struct siphash_key siphash_random_key(void)
{
    struct siphash_key key;
    /* A request this small is never cut short, and never interrupted once the pool is seeded. */
    if (getrandom(&key, sizeof key, 0) != (ssize_t)sizeof key)
        abort();
    return key;
}

static inline struct state begin(const struct siphash_key *key)
{
    return (struct state){
        .v0 = key->k0 ^ UINT64_C(0x736f6d6570736575),
        .v1 = key->k1 ^ UINT64_C(0x646f72616e646f6d),
        .v2 = key->k0 ^ UINT64_C(0x6c7967656e657261),
        .v3 = key->k1 ^ UINT64_C(0x7465646279746573),
    };
}

/* `before`: bytes absorbed already, a multiple of 8. */
static inline uint64_t finish(struct state state, const uint8_t *bytes, size_t length,
                              size_t before)
{
    size_t done = 0;
    for (; length - done >= sizeof(uint64_t); done += sizeof(uint64_t))
        absorb(&state, load_word(bytes + done));
    absorb(&state, load_tail(bytes + done, length - done) | (uint64_t)(before + length) << 56);

    state.v2 ^= 0xff;
    mix(&state);
    mix(&state);
    mix(&state);
    return state.v0 ^ state.v1 ^ state.v2 ^ state.v3;
}

uint64_t siphash(const struct siphash_key *key, const void *bytes, size_t length)
{
    return finish(begin(key), bytes, length, 0);
}

uint64_t siphash_with(const struct siphash_key *key, uint64_t first, const void *bytes,
                      size_t length)
{
    struct state state = begin(key);
    absorb(&state, first);
    return finish(state, bytes, length, sizeof(first));
}
