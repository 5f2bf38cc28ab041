// SPDX-License-Identifier: Apache-2.0
/* How this process recognizes itself; dns/self_probe.h has the idea.
 *
 * Thread: any; no state.   Owner: the caller's structs; the key is main's.
 * RFC:    6761 6.5 (.example). */
#include "dns/self_probe.h"

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
static_assert(1 + LABEL + sizeof SUFFIX == SELF_PROBE_NAME_LENGTH, "the length is the name's");

static void write_digits(uint8_t *out, uint64_t number)
{
    char text[DIGITS + 1];
    snprintf(text, sizeof text, "%016" PRIx64, number);
    memcpy(out, text, DIGITS);
}

/* The ID of the question is hashed as it stands in the name. */
static void write_hash(uint8_t *out, const struct siphash_key *key, const struct question *question,
                       uint8_t purpose)
{
    uint8_t bytes[DIGITS + 1];
    memcpy(bytes, question->name + 1, DIGITS);
    bytes[DIGITS] = purpose;
    write_digits(out, siphash(key, bytes, sizeof bytes));
}

void self_probe_question(const struct siphash_key *key, uint64_t id, struct question *out)
{
    assert(key && out);
    *out = (struct question){.type = TYPE_TXT,
                             .class = CLASS_IN,
                             .recursion_desired = true,
                             .name_length = SELF_PROBE_NAME_LENGTH};
    out->name[0] = LABEL;
    write_digits(out->name + 1, id);
    write_hash(out->name + 1 + DIGITS, key, out, 'q');
    memcpy(out->name + 1 + LABEL, SUFFIX, sizeof SUFFIX);
}

bool self_probe_is_ours(const struct siphash_key *key, const struct question *question)
{
    assert(question->name_length == SELF_PROBE_NAME_LENGTH);
    const uint8_t *name = question->name;
    uint8_t tag[DIGITS];
    if (question->type != TYPE_TXT || question->class != CLASS_IN || name[0] != LABEL ||
        memcmp(name + 1 + LABEL, SUFFIX, sizeof SUFFIX) != 0)
        return false;
    write_hash(tag, key, question, 'q');
    return memcmp(name + 1 + DIGITS, tag, sizeof tag) == 0;
}

void self_probe_make_answer(const struct siphash_key *key, const struct question *question,
                            struct self_probe_answer *out)
{
    assert(question->name_length == SELF_PROBE_NAME_LENGTH);
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
    write_hash(write_room(&writer, DIGITS), key, question, 'a');
    out->answer = (struct answer){
        .kind = ANSWER_POSITIVE,
        .flags = DNS_FLAG_RA,
        .answer_count = 1,
        .body = out->body,
        .body_length = BODY,
        .needed_length = BODY,
        .ttl_count = 1,
        .ttl_offsets = &out->ttl_offset,
    };
}

/* On its way the record may have been written anew, but its text stands last in it. */
bool self_probe_is_answered(const struct siphash_key *key, const struct question *question,
                            const struct answer *answer)
{
    assert(question->name_length == SELF_PROBE_NAME_LENGTH);
    uint8_t digits[DIGITS];
    write_hash(digits, key, question, 'a');
    return answer->answer_count > 0 &&
           memmem(answer->body, answer->body_length, digits, sizeof digits) != NULL;
}
