// SPDX-License-Identifier: Apache-2.0
/* Questions and answers for the tests of the cache. What an answer holds follows from its question
 * and a version, so that a test can tell from a hit alone whether it is right. */
#ifndef CACHE_FIXTURE_H
#define CACHE_FIXTURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "dns/message.h"

enum {
    FIXTURE_TTLS_MAX = 16,
    FIXTURE_RECORD = 16,
    FIXTURE_TYPE_OFFSET = 2,
    FIXTURE_TTL_OFFSET = 6
};

static const uint64_t fixture_second_ns = UINT64_C(1000000000);

struct fixture_answer {
    struct answer answer;
    uint16_t ttl_offsets[FIXTURE_TTLS_MAX];
    uint8_t body[DNS_MESSAGE_MAX];
};

/* "n0000123.bench.example", A, IN, RD. */
static inline struct question fixture_question(uint32_t number)
{
    static const uint8_t parent[] = "\5bench\7example";
    struct question question = {.type = TYPE_A, .class = CLASS_IN, .recursion_desired = true};
    char label[16];
    snprintf(label, sizeof(label), "\010n%07u", (unsigned)(number % 10000000));
    memcpy(question.name, label, 9);
    memcpy(question.name + 9, parent, sizeof(parent));
    question.name_length = 9 + sizeof(parent);
    return question;
}

/* What the octets of a body follow from: all of the question, and the version. */
static inline uint32_t fixture_mix(const struct question *question, uint8_t version)
{
    uint32_t mix = question->type * 31U + question->class * 7U + question->dnssec_ok * 3U +
                   question->checking_disabled * 5U + version * 17U;
    for (size_t i = 0; i < question->name_length; i++)
        mix = mix * 33 + question->name[i];
    return mix;
}

static inline uint8_t fixture_octet(uint32_t mix, size_t i)
{
    return (uint8_t)((mix >> 8) + mix + i * 13U);
}

static inline bool fixture_is_ttl(size_t i, size_t ttl_count)
{
    const size_t at = i % FIXTURE_RECORD;
    return i / FIXTURE_RECORD < ttl_count && at >= FIXTURE_TTL_OFFSET &&
           at < FIXTURE_TTL_OFFSET + 4;
}

/* A positive answer whose first `ttl_count` sixteens of octets hold a TTL. The first octet of the
 * body is the version. */
static inline void fixture_fill(struct fixture_answer *fixture, const struct question *question,
                                uint8_t version, uint16_t length, uint16_t ttl_count,
                                uint32_t ttl_s)
{
    const uint32_t mix = fixture_mix(question, version);
    for (size_t i = 0; i < length; i++)
        fixture->body[i] = i == 0 ? version : fixture_octet(mix, i);
    for (uint16_t i = 0; i < ttl_count; i++) {
        fixture->ttl_offsets[i] = (uint16_t)(i * FIXTURE_RECORD + FIXTURE_TTL_OFFSET);
        store_u32(fixture->body + fixture->ttl_offsets[i], ttl_s);
    }
    fixture->answer = (struct answer){
        .kind = ANSWER_POSITIVE,
        .flags = DNS_FLAG_RA,
        .answer_count = ttl_count,
        .ttl_s = ttl_s,
        .body = fixture->body,
        .body_length = length,
        .needed_length = length,
        .ttl_count = ttl_count,
        .ttl_offsets = fixture->ttl_offsets,
    };
}

/* True when the hit is, octet for octet, what fixture_fill made for the question and the version
 * that it carries. */
static inline bool fixture_is_intact(const struct answer *hit, const struct question *question)
{
    const uint32_t mix = fixture_mix(question, hit->body[0]);
    for (size_t i = 1; i < hit->body_length; i++)
        if (!fixture_is_ttl(i, hit->answer_count) && hit->body[i] != fixture_octet(mix, i))
            return false;
    return hit->body_length > 0 && hit->rcode == 0 && hit->flags == DNS_FLAG_RA;
}

static inline uint64_t fixture_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state * UINT64_C(0x2545f4914f6cdd1d) >> 16;
}

#endif
