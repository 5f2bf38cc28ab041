// SPDX-License-Identifier: Apache-2.0
/* Answers cut short: what a client can do without goes from the end, at the boundary of an RRset.
 *
 * Nothing is written anew: compression pointers lead backward, so what stays needs nothing of what
 * goes. A boundary is where no RRset has records on both sides, though they may stand apart. RRsets
 * are told apart by a hash; two of the same one stay or go together, which costs optional data and
 * is never wrong. So a cut takes time linear in the message, whatever is in it (FAULTS G2).
 *
 * Thread: any; no state.   Owner: nothing; the body stays where it is.
 * RFC:    2181 5 and 9, 4035 3.1.1, 4343. */
#include "dns/cut.h"

#include <assert.h>

#include "base/bytes.h"
#include "dns/name.h"

enum {
    SECTIONS = 3,
    HASH_BITS = 12,
    OWNER_OCTETS = 32, /* that are hashed: a whole label more at most */
    POINTERS_MAX = 16, /* followed for it; who hides an owner behind more may get its RRset torn */
};

/* A walk along the records of a body, which message_check_answer has passed. */
struct walk {
    const struct answer *answer;
    uint16_t counts[SECTIONS]; /* of the records before `position` */
    unsigned section;          /* of the last of them */
    size_t owner;
    size_t fixed; /* its type, class, TTL and length */
    size_t position;
};

static unsigned records_in(const struct answer *answer, unsigned section)
{
    const uint16_t counts[SECTIONS] = {answer->answer_count, answer->authority_count,
                                       answer->additional_count};
    return counts[section];
}

/* Takes one record; false when there is none left. */
static bool walk_next(struct walk *walk)
{
    while (walk->counts[walk->section] == records_in(walk->answer, walk->section))
        if (++walk->section == SECTIONS)
            return false;
    walk->counts[walk->section]++;
    walk->owner = walk->position;
    walk->fixed = name_end(walk->answer->body, walk->owner);
    walk->position =
        walk->fixed + DNS_RECORD_FIXED + (size_t)load_u16(walk->answer->body + walk->fixed + 8);
    assert(walk->position <= walk->answer->body_length);
    return true;
}

/* FNV-1a. */
static uint32_t hash_octet(uint32_t hash, uint8_t octet)
{
    return (hash ^ octet) * 0x01000193;
}

static uint32_t hash_owner(const struct walk *walk, const struct question *question)
{
    const size_t body = DNS_HEADER_SIZE + (size_t)question->name_length + DNS_QUESTION_TAIL;
    const uint8_t *label = walk->answer->body + walk->owner;
    uint32_t hash = 0x811c9dc5;
    unsigned pointers = 0;
    for (size_t done = 0; *label != 0 && done < OWNER_OCTETS;) {
        if (*label >= DNS_POINTER_MARK) {
            if (++pointers > POINTERS_MAX)
                break;
            const size_t target = load_u16(label) & DNS_POINTER_MASK;
            label = target < body ? question->name + target - DNS_HEADER_SIZE
                                  : walk->answer->body + target - body;
            continue;
        }
        const size_t length = 1 + (size_t)*label;
        for (size_t i = 0; i < length; i++)
            hash = hash_octet(hash, octet_lower(label[i]));
        label += length;
        done += length;
    }
    return hash;
}

/* Signatures go with what they cover: without them it would look unsigned (RFC 4035 3.1.1). */
static size_t hash_rrset(const struct walk *walk, const struct question *question)
{
    const uint8_t *fixed = walk->answer->body + walk->fixed;
    const uint8_t *type = load_u16(fixed) == TYPE_RRSIG ? fixed + DNS_RECORD_FIXED : fixed;
    uint32_t hash = hash_owner(walk, question);
    hash = hash_octet(hash, (uint8_t)walk->section);
    for (size_t i = 0; i < 2; i++) {
        hash = hash_octet(hash, type[i]);
        hash = hash_octet(hash, fixed[2 + i]);
    }
    return hash * 0x9e3779b1 >> (32 - HASH_BITS);
}

size_t answer_living_length(const struct answer *answer)
{
    struct walk walk = {.answer = answer};
    if (answer->needed_length == answer->body_length)
        return answer->body_length;
    while (walk_next(&walk))
        if (walk.owner >= answer->needed_length && load_u32(answer->body + walk.fixed + 4) == 0)
            return walk.owner;
    return answer->body_length;
}

/* The last place for a cut; where what is needed ends is always one. */
static struct walk find_cut(const struct answer *answer, const struct question *question,
                            size_t length)
{
    assert(length >= answer->needed_length && length < answer->body_length);
    uint16_t ends[1 << HASH_BITS] = {0}; /* of the last record of each RRset */
    struct walk walk = {.answer = answer};
    while (walk_next(&walk))
        ends[hash_rrset(&walk, question)] = (uint16_t)walk.position;
    walk = (struct walk){.answer = answer};
    struct walk cut = walk;
    size_t whole = 0; /* where the RRsets so far have ended */
    while (walk.position <= length) {
        if (walk.position == answer->needed_length ||
            (walk.position > answer->needed_length && walk.position >= whole))
            cut = walk;
        if (!walk_next(&walk))
            break;
        const size_t end = ends[hash_rrset(&walk, question)];
        whole = end > whole ? end : whole;
    }
    assert(cut.position >= answer->needed_length);
    return cut;
}

void answer_cut(struct answer *answer, const struct question *question, size_t length)
{
    assert(length >= answer->needed_length);
    if (length >= answer->body_length)
        return;
    assert(question->name_length > 0);
    const struct walk cut = find_cut(answer, question, length);
    answer->body_length = (uint16_t)cut.position;
    answer->answer_count = cut.counts[0];
    answer->authority_count = cut.counts[1];
    answer->additional_count = cut.counts[2];
    while (answer->ttl_count > 0 && answer->ttl_offsets[answer->ttl_count - 1] >= cut.position)
        answer->ttl_count--;
}
