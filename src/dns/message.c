// SPDX-License-Identifier: Apache-2.0
/* A client's query parsed, and the query for an upstream built from what was parsed.
 *
 * Thread: any; no state.   Owner: the caller's structs and buffers.
 * RFC:    1035 4.1, 6891 6.1 and 7 (OPT), 7828 (keepalive), 8467 (padding), 8906 (always an
 *         answer), 9619 (one question). */
#include "dns/message.h"

#include <assert.h>

#include "base/bytes.h"
#include "dns/name.h"

enum { PADDING_BLOCK = 128 }; /* RFC 8467 4.1 */

/* Fills what a reply of any kind needs. */
static void parse_header(const uint8_t *bytes, struct query_message *out)
{
    out->id = load_u16(bytes);
    out->flags = load_u16(bytes + 2);
    out->has_question = false;
    out->has_edns = false;
    out->has_authentic_data = out->flags & DNS_FLAG_AD;
    out->has_keepalive = false;
    out->udp_size = DNS_UDP_DEFAULT;
    out->question.recursion_desired = out->flags & DNS_FLAG_RD;
    out->question.checking_disabled = out->flags & DNS_FLAG_CD;
    out->question.dnssec_ok = false;
}

/* Pointers are refused: the first name of a message has nothing before it to point at. */
static enum status parse_question(struct reader *reader, struct query_message *out)
{
    const size_t length = name_measure(reader->position, reader_left(reader));
    const uint8_t *name = length ? read_bytes(reader, length + DNS_QUESTION_TAIL) : NULL;
    if (name == NULL)
        return STATUS_MALFORMED;
    struct question *question = &out->question;
    name_copy(name, length, out->spelling, question->name);
    question->name_length = (uint8_t)length;
    question->type = load_u16(name + length);
    question->class = load_u16(name + length + 2);
    out->has_question = true;
    return STATUS_OK;
}

/* The options concern this hop alone: none but keepalive is looked at, none is passed on. */
static enum status parse_options(struct reader options, struct query_message *out)
{
    for (unsigned count = 0; reader_left(&options) > 0; count++) {
        const uint16_t code = read_u16(&options);
        const uint16_t length = read_u16(&options);
        read_bytes(&options, length);
        if (options.failed || count == DNS_OPTIONS_MAX)
            return STATUS_MALFORMED;
        /* RFC 7828 3.3.1: a client sends it without a timeout. */
        if (code == OPTION_KEEPALIVE && length == 0)
            out->has_keepalive = true;
    }
    return STATUS_OK;
}

/* The only record that a query may carry is an OPT (FAULTS A8). */
static enum rcode parse_additional(struct reader *reader, struct query_message *out)
{
    const uint8_t *record = read_bytes(reader, DNS_OPT_FIXED);
    if (record == NULL || record[0] != 0 || load_u16(record + 1) != TYPE_OPT)
        return RCODE_FORMERR;
    const uint16_t udp_size = load_u16(record + 3);
    out->has_edns = true;
    out->udp_size = udp_size < DNS_UDP_DEFAULT ? DNS_UDP_DEFAULT : udp_size;
    out->question.dnssec_ok = load_u16(record + 7) & DNS_EDNS_FLAG_DO;
    const uint8_t version = record[6];
    if (version > 0)
        return RCODE_BADVERS;
    const size_t length = load_u16(record + 9);
    const uint8_t *options = read_bytes(reader, length);
    if (options == NULL || parse_options(reader_over(options, length), out) != STATUS_OK)
        return RCODE_FORMERR;
    return RCODE_NOERROR;
}

/* What may be asked of a forwarder. Unknown types and classes pass (RFC 5625 4.3, 8906 3.1.2). */
static enum rcode judge_question(const struct question *question)
{
    switch (question->type) {
    case TYPE_AXFR:
    case TYPE_IXFR:
    case TYPE_MAILA:
    case TYPE_MAILB:
    case TYPE_TKEY:
        return RCODE_REFUSED;
    case TYPE_OPT:
    case TYPE_TSIG:
        return RCODE_FORMERR; /* parts of a message, nothing that could be asked for */
    default:
        return question->class == 0 ? RCODE_FORMERR : RCODE_NOERROR; /* RFC 6895 3.2: reserved */
    }
}

static enum rcode parse_query(const uint8_t *bytes, size_t length, struct query_message *out)
{
    if (out->flags & DNS_OPCODE_MASK)
        return RCODE_NOTIMP;
    if (load_u16(bytes + 4) != 1) /* RFC 9619 4, and no work for each of 65,535 (FAULTS A6) */
        return RCODE_FORMERR;
    struct reader reader = reader_over(bytes + DNS_HEADER_SIZE, length - DNS_HEADER_SIZE);
    if (parse_question(&reader, out) != STATUS_OK)
        return RCODE_FORMERR;
    const uint16_t additional_count = load_u16(bytes + 10);
    const bool has_records = load_u32(bytes + 6) != 0; /* ANCOUNT and NSCOUNT */
    if (out->flags & DNS_FLAG_TC || has_records || additional_count > 1)
        return RCODE_FORMERR;
    if (additional_count == 1) {
        const enum rcode rcode = parse_additional(&reader, out);
        if (rcode != RCODE_NOERROR)
            return rcode;
    }
    return judge_question(&out->question);
}

enum query_verdict message_parse_query(const uint8_t *bytes, size_t length,
                                       struct query_message *out, enum rcode *rcode)
{
    assert(out && rcode);
    if (length < DNS_HEADER_SIZE)
        return QUERY_DROP;
    if (load_u16(bytes + 2) & DNS_FLAG_QR)
        return QUERY_RESPONSE;
    parse_header(bytes, out);
    const enum rcode found = parse_query(bytes, length, out);
    if (found == RCODE_NOERROR)
        return QUERY_ACCEPT;
    *rcode = found;
    return QUERY_REJECT;
}

size_t message_build_query(const struct question *question, uint16_t id,
                           uint8_t out[static MESSAGE_QUERY_MAX])
{
    assert(question->name_length > 0 && question->name[question->name_length - 1] == 0);
    const size_t unpadded = DNS_HEADER_SIZE + (size_t)question->name_length + DNS_QUESTION_TAIL +
                            DNS_OPT_FIXED + DNS_OPTION_FIXED + DNS_OPTION_FIXED;
    const size_t length = (unpadded + PADDING_BLOCK - 1) / PADDING_BLOCK * PADDING_BLOCK;
    const size_t padding = length - unpadded;
    assert(length <= MESSAGE_QUERY_MAX);

    store_u16(out, id);
    store_u16(out + 2, (uint16_t)(DNS_FLAG_AD | (question->recursion_desired ? DNS_FLAG_RD : 0) |
                                  (question->checking_disabled ? DNS_FLAG_CD : 0)));
    store_u32(out + 4, 1 << 16); /* QDCOUNT 1, ANCOUNT 0 */
    store_u32(out + 8, 1);       /* NSCOUNT 0, ARCOUNT 1 */
    memcpy(out + DNS_HEADER_SIZE, question->name, question->name_length);
    uint8_t *tail = out + DNS_HEADER_SIZE + question->name_length;
    store_u16(tail, question->type);
    store_u16(tail + 2, question->class);

    uint8_t *opt = tail + DNS_QUESTION_TAIL;
    opt[0] = 0; /* the root */
    store_u16(opt + 1, TYPE_OPT);
    store_u16(opt + 3, DNS_UDP_ADVERTISED);
    store_u32(opt + 5, question->dnssec_ok ? DNS_EDNS_FLAG_DO : 0);
    store_u16(opt + 9, (uint16_t)(2 * DNS_OPTION_FIXED + padding));
    uint8_t *options = opt + DNS_OPT_FIXED;
    store_u16(options, OPTION_KEEPALIVE);
    store_u16(options + 2, 0);
    store_u16(options + DNS_OPTION_FIXED, OPTION_PADDING);
    store_u16(options + DNS_OPTION_FIXED + 2, (uint16_t)padding);
    memset(out + unpadded, 0, padding);
    return length;
}

bool question_equal(const struct question *a, const struct question *b)
{
    return a->type == b->type && a->class == b->class &&
           a->recursion_desired == b->recursion_desired && a->dnssec_ok == b->dnssec_ok &&
           a->checking_disabled == b->checking_disabled && a->name_length == b->name_length &&
           memcmp(a->name, b->name, a->name_length) == 0;
}

uint64_t question_hash(const struct siphash_key *key, const struct question *question)
{
    const uint64_t first = question->type | (uint64_t)question->class << 16 |
                           (uint64_t)question->dnssec_ok << 32 |
                           (uint64_t)question->checking_disabled << 33;
    return siphash_with(key, first, question->name, question->name_length);
}

void question_copy(struct question *to, const struct question *from)
{
    memcpy(to, from, offsetof(struct question, name) + from->name_length);
}
