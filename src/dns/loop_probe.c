// SPDX-License-Identifier: Apache-2.0
/* How this process recognizes itself; dns/loop_probe.h has the idea.
 *
 * Thread: any; no state.   Owner: the caller's structs; the key is main's.
 * RFC:    6761 6.5 (.example). */
#include "dns/loop_probe.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>

#include "base/bytes.h"

enum {
    DIGITS = 16,        /* of a 64-bit number */
    LABEL = 2 * DIGITS, /* the first one: ID and tag */
    TEXT_OFFSET = 13,   /* of the digits in the body of the answer */
    BODY = TEXT_OFFSET + DIGITS,
};

static const uint8_t SUFFIX[] = "\x13"
                                "dnsproxy-loop-probe\x07"
                                "example"; /* its NUL is the root label */
static_assert(1 + LABEL + sizeof SUFFIX == LOOP_PROBE_NAME_LENGTH, "the length is the name's");

static uint64_t hash_of(const struct siphash_key *key, uint64_t id, char purpose)
{
    char bytes[sizeof id + 1];
    memcpy(bytes, &id, sizeof id);
    bytes[sizeof id] = purpose;
    return siphash(key, bytes, sizeof bytes);
}

static void write_digits(uint8_t *out, uint64_t number)
{
    char text[DIGITS + 1];
    snprintf(text, sizeof text, "%016" PRIx64, number);
    memcpy(out, text, DIGITS);
}

/* False unless all are digits, in lower case as names are kept. */
static bool read_digits(const uint8_t *digits, uint64_t *out)
{
    uint64_t number = 0;
    for (unsigned i = 0; i < DIGITS; i++) {
        const uint8_t digit = digits[i];
        if (digit >= '0' && digit <= '9')
            number = number << 4 | (uint64_t)(digit - '0');
        else if (digit >= 'a' && digit <= 'f')
            number = number << 4 | (uint64_t)(digit - 'a' + 10);
        else
            return false;
    }
    *out = number;
    return true;
}

void loop_probe_question(const struct siphash_key *key, uint64_t id, struct question *out)
{
    *out = (struct question){.type = TYPE_TXT,
                             .class = CLASS_IN,
                             .recursion_desired = true,
                             .name_length = LOOP_PROBE_NAME_LENGTH};
    out->name[0] = LABEL;
    write_digits(out->name + 1, id);
    write_digits(out->name + 1 + DIGITS, hash_of(key, id, 'q'));
    memcpy(out->name + 1 + LABEL, SUFFIX, sizeof SUFFIX);
}

bool loop_probe_is_ours(const struct siphash_key *key, const struct question *question)
{
    assert(question->name_length == LOOP_PROBE_NAME_LENGTH);
    const uint8_t *name = question->name;
    uint64_t id;
    uint64_t tag;
    return question->type == TYPE_TXT && question->class == CLASS_IN && name[0] == LABEL &&
           memcmp(name + 1 + LABEL, SUFFIX, sizeof SUFFIX) == 0 && read_digits(name + 1, &id) &&
           read_digits(name + 1 + DIGITS, &tag) && tag == hash_of(key, id, 'q');
}

static uint64_t id_of(const struct question *question)
{
    uint64_t id = 0;
    const bool is_id = read_digits(question->name + 1, &id);
    assert(is_id);
    (void)is_id;
    return id;
}

void loop_probe_make_answer(const struct siphash_key *key, const struct question *question,
                            struct loop_probe_answer *out)
{
    static_assert(sizeof out->body >= BODY, "the record has its room");
    struct writer writer = writer_over(out->body, sizeof out->body);
    write_u16(&writer, 0xc000 | DNS_HEADER_SIZE); /* the name of the question */
    write_u16(&writer, TYPE_TXT);
    write_u16(&writer, CLASS_IN);
    out->ttl_offset = (uint16_t)writer_length(&writer);
    write_u32(&writer, 0);
    write_u16(&writer, 1 + DIGITS);
    write_u8(&writer, DIGITS);
    assert(writer_length(&writer) == TEXT_OFFSET);
    write_digits(write_room(&writer, DIGITS), hash_of(key, id_of(question), 'a'));
    out->answer = (struct answer){
        .kind = ANSWER_POSITIVE,
        .flags = DNS_FLAG_RA,
        .answer_count = 1,
        .body = out->body,
        .body_length = BODY,
        .ttl_count = 1,
        .ttl_offsets = &out->ttl_offset,
    };
}

/* On its way the record may have been written anew, but its text stands last in it. */
bool loop_probe_is_answered(const struct siphash_key *key, const struct question *question,
                            const struct answer *answer)
{
    uint8_t digits[DIGITS];
    write_digits(digits, hash_of(key, id_of(question), 'a'));
    return answer->answer_count > 0 &&
           memmem(answer->body, answer->body_length, digits, sizeof digits) != NULL;
}
