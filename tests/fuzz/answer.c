// SPDX-License-Identifier: Apache-2.0
/* Anything at all as an upstream's answer: what is accepted lies within the message, and is
 * accepted again, record for record, after we passed it on, cut it or let its TTLs age.
 *
 * libldns can read it, too, and finds as many records and the same least TTL in the answer section;
 * the RDATA of types
 * that we do not look into (RFC 3597) is given to it under a type that it does not know.
 *
 * The input is RCODE and TC, the question's type, three counts, the case of the name and DO, then
 * the records: the rest of the header and of the question is right, so that the fuzzer spends its
 * time on the records and needs no seeds. */
#include <assert.h>
#include <ldns/ldns.h>

#include "dns/reply.h"
#include "packet.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { PREFIX = 6, TYPE_UNKNOWN = 65280 };

static struct packet packet;
static struct answer_scratch scratch;
static struct answer_scratch scratch_again;
static uint8_t out[DNS_MESSAGE_MAX];

static enum status check(const uint8_t *bytes, size_t length, const struct question *question,
                         struct answer_scratch *room, struct answer *answer)
{
    struct answer untouched;
    memset(&untouched, 0xa5, sizeof untouched);
    *answer = untouched;
    const enum status status = message_check_answer(bytes, length, question, room, answer);
    if (status != STATUS_OK)
        assert(memcmp(answer, &untouched, sizeof untouched) == 0);
    return status;
}

static void check_bounds(const struct answer *answer, const uint8_t *bytes, size_t length)
{
    assert(answer->body >= bytes && answer->body + answer->body_length <= bytes + length);
    assert(answer->ttl_count ==
           answer->answer_count + answer->authority_count + answer->additional_count);
    size_t end = 0;
    for (size_t i = 0; i < answer->ttl_count; i++) {
        assert(answer->ttl_offsets[i] >= end);
        end = (size_t)answer->ttl_offsets[i] + 4;
    }
    assert(end <= answer->body_length && answer->needed_length <= answer->body_length);
    assert(answer->needed_length == 0 || answer->needed_length >= 11);
    assert(answer->extended_errors_length <= ANSWER_EXTENDED_ERRORS_MAX);
    assert(answer->ttl_s <= INT32_MAX && answer->rcode <= 0xfff);
    assert(!(answer->flags & DNS_FLAG_TC) || answer->ttl_s == 0);
}

static void assert_same(const struct answer *a, const struct answer *b)
{
    const bool of_one_hop = a->rcode == RCODE_BADVERS || a->rcode == RCODE_BADCOOKIE;
    assert(b->rcode == (of_one_hop ? RCODE_SERVFAIL : a->rcode));
    assert(a->kind == b->kind && (a->flags | DNS_FLAG_RA) == b->flags);
    assert(a->ttl_s == b->ttl_s || of_one_hop);
    assert(a->answer_count == b->answer_count && a->authority_count >= b->authority_count);
    assert(a->authority_count == b->authority_count || b->additional_count == 0);
    assert(a->additional_count >= b->additional_count && a->body_length >= b->body_length);
    assert(a->ttl_count == b->ttl_count || a->body_length > b->body_length);
    assert(a->needed_length == b->needed_length);
    assert(memcmp(a->ttl_offsets, b->ttl_offsets, b->ttl_count * sizeof *b->ttl_offsets) == 0);
}

/* The same octets as far as `b` goes, but for TTLs that were too large to be. */
static void assert_same_body(const struct answer *a, const struct answer *b)
{
    size_t done = 0;
    for (size_t i = 0; i < b->ttl_count; i++) {
        const size_t offset = a->ttl_offsets[i];
        const uint32_t ttl = load_u32(a->body + offset);
        assert(memcmp(a->body + done, b->body + done, offset - done) == 0);
        assert(load_u32(b->body + offset) == (ttl > INT32_MAX ? 0 : ttl));
        done = offset + 4;
    }
    assert(memcmp(a->body + done, b->body + done, b->body_length - done) == 0);
}

static void make_query(const struct question *question, struct query_message *query)
{
    uint8_t bytes[MESSAGE_QUERY_MAX];
    enum rcode rcode;
    const size_t length = message_build_query(question, PACKET_ID, bytes);
    assert(message_parse_query(bytes, length, query, &rcode) == QUERY_ACCEPT);
}

static void pass_on(const struct answer *answer, const struct question *question, size_t limit)
{
    struct query_message query;
    struct answer again;
    bool truncated;
    make_query(question, &query);
    const struct reply reply = {.answer = answer, .limit = limit};
    const size_t length = reply_write(&query, &reply, out, &truncated);
    assert(length <= limit);
    const enum status status = check(out, length, question, &scratch_again, &again);
    assert(status == STATUS_OK);
    if (limit == DNS_MESSAGE_MAX) /* more than any input */
        assert(!truncated && again.body_length == answer->body_length);
    if (truncated) {
        assert(DNS_HEADER_SIZE + question->name_length + DNS_QUESTION_TAIL + DNS_OPT_FIXED +
                   answer->needed_length >
               limit);
        assert(again.flags & DNS_FLAG_TC && again.body_length == 0);
        return;
    }
    assert_same(answer, &again);
    assert_same_body(answer, &again);
}

/* Every age of a message is as well-formed as the message. */
static void age(uint8_t *bytes, size_t length, const struct question *question,
                const struct answer *answer, uint32_t ttl)
{
    struct answer again;
    for (size_t i = 0; i < answer->ttl_count; i++)
        store_u32(bytes + (answer->body - bytes) + answer->ttl_offsets[i], ttl);
    const enum status status = check(bytes, length, question, &scratch_again, &again);
    assert(status == STATUS_OK);
}

/* --- The opinion of libldns --- */

static void take_least(const ldns_rr_list *records, size_t count, uint32_t *least_ttl)
{
    assert(ldns_rr_list_rr_count(records) >= count);
    for (size_t i = 0; i < count; i++) {
        const uint32_t ttl = ttl_meant(ldns_rr_ttl(ldns_rr_list_rr(records, i)));
        *least_ttl = ttl < *least_ttl ? ttl : *least_ttl;
    }
}

/* Whether nothing was left out but an OPT; behind that, and in a TSIG, anything may stand. */
static bool is_whole_but_for_opt(const uint8_t *bytes, const struct answer *answer)
{
    const unsigned left_out = load_u16(bytes + 10) - answer->additional_count;
    const uint8_t *next = answer->body + answer->body_length;
    return left_out == 0 || (left_out == 1 && next[0] == 0 && load_u16(next + 1) == TYPE_OPT);
}

/* Changes the types of `bytes`. */
static void ask_ldns(uint8_t *bytes, size_t length, const struct question *question,
                     const struct answer *answer)
{
    ldns_pkt *parsed = NULL;
    uint32_t least_ttl = DNS_TTL_MAX;
    if (!is_whole_but_for_opt(bytes, answer))
        return;
    for (size_t i = 0; i < answer->ttl_count; i++) {
        uint8_t *type = bytes + (answer->body - bytes) + answer->ttl_offsets[i] - 4;
        if (!is_checked_by_us(load_u16(type), load_u16(type + 2)))
            store_u16(type, TYPE_UNKNOWN);
    }
    const ldns_status status = ldns_wire2pkt(&parsed, bytes, length);
    assert(status == LDNS_STATUS_OK);
    assert(ldns_pkt_ancount(parsed) == answer->answer_count);
    assert(ldns_pkt_nscount(parsed) == answer->authority_count);
    assert(ldns_pkt_arcount(parsed) >= answer->additional_count);
    take_least(ldns_pkt_answer(parsed), answer->answer_count, &least_ttl);
    if (answer->kind == ANSWER_POSITIVE && !(answer->flags & DNS_FLAG_TC) && !question->dnssec_ok)
        assert(answer->ttl_s == least_ttl);
    assert(answer->kind == ANSWER_FAILURE || answer->ttl_s <= least_ttl);
    ldns_pkt_free(parsed);
}

static void build(const uint8_t *data, size_t size, struct question *question)
{
    const unsigned type = data[1];
    *question = question_of("www.example", type == TYPE_OPT ? TYPE_A : type);
    question->dnssec_ok = (data[5] & 2) != 0;
    put_header(&packet, DNS_FLAG_QR | DNS_FLAG_RD | (data[0] & 0x0f) | (data[0] & 0x10) << 5, 1,
               data[2], data[3], data[4]);
    put_question(&packet, data[5] & 1 ? "WWW.example" : "www.example", question->type);
    put_bytes(&packet, data + PREFIX, size - PREFIX);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct question question;
    struct answer answer;
    if (size < PREFIX || size > 60000)
        return 0;
    build(data, size, &question);
    switch (question.type) {
    case TYPE_TKEY: /* are not asked */
    case TYPE_TSIG:
    case TYPE_IXFR:
    case TYPE_AXFR:
    case TYPE_MAILB:
    case TYPE_MAILA:
        return 0;
    default:
        break;
    }
    uint8_t *bytes = exact_copy(packet.bytes, packet.length);
    if (check(bytes, packet.length, &question, &scratch, &answer) == STATUS_OK) {
        check_bounds(&answer, bytes, packet.length);
        uint8_t *copy = exact_copy(bytes, packet.length);
        struct answer of_copy = answer;
        of_copy.body = copy + (answer.body - bytes);
        ask_ldns(copy, packet.length, &question, &of_copy);
        free(copy);
        pass_on(&answer, &question, DNS_MESSAGE_MAX);
        pass_on(&answer, &question, DNS_UDP_DEFAULT);
        age(bytes, packet.length, &question, &answer, 0);
        age(bytes, packet.length, &question, &answer, 0x3f3f3f3f);
        age(bytes, packet.length, &question, &answer, 0x7fffffff);
    }
    free(bytes);
    return 0;
}
