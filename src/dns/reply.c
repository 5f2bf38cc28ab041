// SPDX-License-Identifier: Apache-2.0
/* Replies composed: the client's header, spelling and EDNS around the records of an answer.
 *
 * What has to be in the reply is written first; if that is too much it becomes TC=1 with nothing
 * but question and OPT. Records that a client can do without are cut to the room there is. Options
 * fill what room is left, the least important last.
 * Thread: any; no state.   Owner: the caller's buffer.
 * RFC:    1035 4.1.1, 2181 9 (TC), 6840 5.8 (AD), 6891, 7828 3.3.2, 8482 4.2, 8914, 9715. */
#include "dns/reply.h"

#include <assert.h>

#include "base/bytes.h"
#include "dns/cut.h"
#include "dns/extended_error.h"

enum {
    KEEPALIVE_LENGTH = 2,
    EDE_TEXT_MAX = 200,
    OPT_RDLENGTH_OFFSET = 9,
};

/* An extended RCODE needs an OPT. BADVERS and BADCOOKIE of an upstream speak of our EDNS, not of
 * the client's. */
static uint16_t reply_rcode(const struct query_message *query, const struct reply *reply)
{
    const uint16_t rcode = reply->answer ? reply->answer->rcode : (uint16_t)reply->rcode;
    const bool of_our_hop = rcode == RCODE_BADVERS || rcode == RCODE_BADCOOKIE;
    if (reply->answer && of_our_hop)
        return RCODE_SERVFAIL;
    return rcode > DNS_RCODE_MASK && !query->has_edns ? RCODE_SERVFAIL : rcode;
}

static uint16_t reply_flags(const struct query_message *query, const struct reply *reply)
{
    const uint16_t from_client = query->flags & (DNS_OPCODE_MASK | DNS_FLAG_RD | DNS_FLAG_CD);
    uint16_t from_answer = 0;
    if (reply->answer) {
        from_answer = reply->answer->flags & (DNS_FLAG_AA | DNS_FLAG_TC | DNS_FLAG_AD);
        /* RFC 6840 5.8: only a client that asked for it understands AD. */
        if (!query->has_authentic_data && !query->question.dnssec_ok)
            from_answer &= (uint16_t)~DNS_FLAG_AD;
    }
    return DNS_FLAG_QR | DNS_FLAG_RA | from_client | from_answer;
}

static size_t question_length(const struct query_message *query)
{
    return query->has_question ? (size_t)query->question.name_length + DNS_QUESTION_TAIL : 0;
}

static void write_question(struct writer *writer, const struct query_message *query)
{
    if (!query->has_question)
        return;
    write_bytes(writer, query->spelling, query->question.name_length);
    write_u16(writer, query->question.type);
    write_u16(writer, query->question.class);
}

static void write_body(struct writer *writer, const struct answer *answer)
{
    uint8_t *body = writer->position;
    write_bytes(writer, answer->body, answer->body_length);
    /* In an answer from the cache this is done, and ttl_count is 0. */
    for (unsigned i = 0; i < answer->ttl_count; i++) {
        uint8_t *ttl = body + answer->ttl_offsets[i];
        assert(answer->ttl_offsets[i] + 4 <= answer->body_length);
        store_u32(ttl, ttl_meant(load_u32(ttl)));
    }
}

static void write_keepalive(struct writer *writer, const struct query_message *query,
                            const struct reply *reply)
{
    if (!query->has_keepalive || !reply->has_keepalive ||
        writer_left(writer) < DNS_OPTION_FIXED + KEEPALIVE_LENGTH)
        return;
    write_u16(writer, OPTION_KEEPALIVE);
    write_u16(writer, KEEPALIVE_LENGTH);
    write_u16(writer, reply->keepalive_100ms);
}

static void write_own_error(struct writer *writer, const struct extended_error *error)
{
    if (error == NULL)
        return;
    const size_t text_length = error->text ? strnlen(error->text, EDE_TEXT_MAX) : 0;
    extended_error_write(writer, (uint16_t)error->code, error->text, text_length, 0);
}

static void write_errors_of_answer(struct writer *writer, const struct answer *answer)
{
    if (answer != NULL)
        extended_errors_copy(writer, answer->extended_errors, answer->extended_errors_length);
}

static void write_opt(struct writer *writer, const struct query_message *query,
                      const struct reply *reply, bool with_options)
{
    uint8_t *opt = write_room(writer, DNS_OPT_FIXED);
    assert(opt != NULL);
    const uint32_t rcode_upper = (uint32_t)(reply_rcode(query, reply) >> 4) << 24;
    opt[0] = 0;
    store_u16(opt + 1, TYPE_OPT);
    store_u16(opt + 3, DNS_UDP_ADVERTISED);
    store_u32(opt + 5, rcode_upper | (query->question.dnssec_ok ? DNS_EDNS_FLAG_DO : 0));
    const uint8_t *options = writer->position;
    if (with_options) {
        write_keepalive(writer, query, reply);
        write_own_error(writer, reply->error);
        write_errors_of_answer(writer, reply->answer);
    }
    store_u16(opt + OPT_RDLENGTH_OFFSET, (uint16_t)(writer->position - options));
}

static void write_header(struct writer *writer, const struct query_message *query, uint16_t flags,
                         const struct answer *answer)
{
    uint8_t *header = write_room(writer, DNS_HEADER_SIZE);
    assert(header != NULL);
    store_u16(header, query->id);
    store_u16(header + 2, flags);
    store_u16(header + 4, query->has_question);
    store_u16(header + 6, answer ? answer->answer_count : 0);
    store_u16(header + 8, answer ? answer->authority_count : 0);
    store_u16(header + 10, (uint16_t)((answer ? answer->additional_count : 0) + query->has_edns));
}

/* Without options. */
static size_t length_around_records(const struct query_message *query)
{
    return DNS_HEADER_SIZE + question_length(query) + (query->has_edns ? DNS_OPT_FIXED : 0);
}

size_t reply_write(const struct query_message *query, const struct reply *reply, uint8_t *out,
                   bool *truncated)
{
    assert(query->has_question || reply->answer == NULL);
    assert(out && truncated);
    assert(reply->limit <= DNS_MESSAGE_MAX);
    const struct answer *answer = reply->answer;
    const size_t room = reply->limit - length_around_records(query);
    struct answer cut;
    *truncated = answer && answer->needed_length > room;
    if (*truncated) {
        answer = NULL;
    } else if (answer && answer->body_length > room) {
        cut = *answer; /* RFC 2181 9: without TC, since nothing is missing that must be there */
        answer_cut(&cut, &query->question, room);
        answer = &cut;
    }

    struct writer writer = writer_over(out, reply->limit);
    const uint16_t flags = reply_flags(query, reply) | (*truncated ? DNS_FLAG_TC : 0) |
                           (reply_rcode(query, reply) & DNS_RCODE_MASK);
    write_header(&writer, query, flags, answer);
    write_question(&writer, query);
    if (answer)
        write_body(&writer, answer);
    if (query->has_edns)
        write_opt(&writer, query, reply, !*truncated);
    assert(!writer.failed);
    return writer_length(&writer);
}

size_t reply_body_at(const struct query_message *query)
{
    return DNS_HEADER_SIZE + question_length(query);
}

bool reply_fits_around(const struct query_message *query, const struct answer *answer)
{
    assert(answer->needed_length <= answer->body_length);
    return answer->ttl_count == 0 &&
           answer->body_length <= DNS_MESSAGE_MAX - length_around_records(query);
}

void reply_leave_out_body(struct reply *reply, struct answer *without)
{
    assert(reply->answer && reply->answer != without);
    assert(reply->answer->body_length > 0 && reply->answer->ttl_count == 0);
    *without = *reply->answer;
    without->body_length = without->needed_length = 0;
    reply->limit = DNS_MESSAGE_MAX - (size_t)reply->answer->body_length;
    reply->answer = without;
}

const struct answer *reply_minimal_any(void)
{
    /* The name of the question, HINFO, IN, one hour; "RFC8482" and "", which is the final NUL. */
    static const uint8_t body[] = "\xc0\x0c\0\x0d\0\x01\0\0\x0e\x10\0\x09\x07RFC8482";
    static const uint16_t ttl_offsets[] = {6};
    static const struct answer answer = {
        .kind = ANSWER_POSITIVE,
        .flags = DNS_FLAG_RA,
        .answer_count = 1,
        .ttl_s = 3600,
        .body = body,
        .body_length = sizeof body,
        .needed_length = sizeof body,
        .ttl_count = 1,
        .ttl_offsets = ttl_offsets,
    };
    return &answer;
}

const struct answer *reply_truncated(void)
{
    static const struct answer answer = {.kind = ANSWER_FAILURE, .flags = DNS_FLAG_TC};
    return &answer;
}
