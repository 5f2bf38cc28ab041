// SPDX-License-Identifier: Apache-2.0
/* Anything at all as a client's query: libldns is of the same opinion, and every reply is
 * well-formed.
 *
 * What is accepted libldns reads in the same way, and what libldns reads as one plain query is
 * accepted; it survives being asked on; and every reply is a message that we would take ourselves.
 * The counts of the header are made sane for three of four inputs, so that the fuzzer finds its way
 * to the question without seeds. */
#include <assert.h>
#include <ldns/ldns.h>

#include "dns/name.h"
#include "dns/reply.h"
#include "packet.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_built_query(const struct question *question)
{
    uint8_t built[MESSAGE_QUERY_MAX];
    struct query_message again;
    enum rcode rcode = RCODE_NOERROR;
    const size_t length = message_build_query(question, PACKET_ID, built);
    assert(length % 128 == 0 && length <= MESSAGE_QUERY_MAX);
    assert(message_parse_query(built, length, &again, &rcode) == QUERY_ACCEPT);
    assert(again.id == PACKET_ID && question_equal(&again.question, question));
    char text[DNS_NAME_TEXT_SIZE];
    assert(strlen(name_format(question->name, question->name_length, text)) < sizeof text);
}

static void check_reply(const struct query_message *query, enum rcode rcode)
{
    static uint8_t out[DNS_MESSAGE_MAX];
    static struct answer_scratch scratch;
    const struct extended_error error = {EDE_OTHER, "fuzzed"};
    bool truncated = true;
    struct answer answer;
    const struct reply reply = {
        .rcode = rcode, .error = &error, .limit = query->udp_size, .has_keepalive = true};
    const size_t length = reply_write(query, &reply, out, &truncated);
    assert(!truncated && length <= query->udp_size);
    assert(load_u16(out) == query->id && load_u16(out + 2) & DNS_FLAG_QR);
    if (!query->has_question || query->flags & DNS_OPCODE_MASK)
        return;
    assert(message_check_answer(out, length, &query->question, &scratch, &answer) == STATUS_OK);
    assert(answer.rcode == rcode && answer.body_length == 0);
    assert(answer.has_keepalive == query->has_keepalive);
    assert(answer.extended_errors_length == (query->has_edns ? 12 : 0));
}

/* --- The opinion of libldns --- */

/* Octets of the question's name, 0 when a pointer is in it: a first name has nothing to point at,
 * and only libldns looks for it in the header. */
static size_t plain_name_length(const uint8_t *bytes, size_t length)
{
    size_t end = DNS_HEADER_SIZE;
    while (end < length && bytes[end] > 0 && bytes[end] < 64)
        end += bytes[end] + 1u;
    return end < length && bytes[end] == 0 ? end + 1 - DNS_HEADER_SIZE : 0;
}

static bool are_options_plain(const ldns_rdf *options)
{
    size_t count = 0;
    size_t end = 0;
    const size_t length = options ? ldns_rdf_size(options) : 0;
    for (; end + 4 <= length; count++)
        end += 4 + (size_t)load_u16(ldns_rdf_data(options) + end + 2);
    return end == length && count <= DNS_OPTIONS_MAX;
}

static bool may_be_asked(const ldns_rr *asked)
{
    switch (ldns_rr_get_type(asked)) {
    case LDNS_RR_TYPE_AXFR:
    case LDNS_RR_TYPE_IXFR:
    case LDNS_RR_TYPE_MAILA:
    case LDNS_RR_TYPE_MAILB:
    case LDNS_RR_TYPE_TKEY:
    case LDNS_RR_TYPE_TSIG:
    case LDNS_RR_TYPE_OPT:
        return false;
    default:
        return ldns_rr_get_class(asked) != 0;
    }
}

/* One question and at most an OPT at the root, nothing else. */
static bool is_plain_query(const ldns_pkt *parsed, const uint8_t *bytes, size_t length)
{
    const size_t name_length = plain_name_length(bytes, length);
    if (name_length == 0 || name_length > DNS_NAME_MAX)
        return false;
    if (ldns_pkt_qr(parsed) || ldns_pkt_tc(parsed) ||
        ldns_pkt_get_opcode(parsed) != LDNS_PACKET_QUERY)
        return false;
    if (load_u32(bytes + 4) != 1 << 16 || load_u16(bytes + 8) != 0 || load_u16(bytes + 10) > 1)
        return false;
    if (load_u16(bytes + 10) == 1) {
        const uint8_t owner = bytes[DNS_HEADER_SIZE + name_length + DNS_QUESTION_TAIL];
        if (owner != 0 || !ldns_pkt_edns(parsed) || ldns_pkt_edns_version(parsed) != 0 ||
            !are_options_plain(ldns_pkt_edns_data(parsed)))
            return false;
    }
    return may_be_asked(ldns_rr_list_rr(ldns_pkt_question(parsed), 0));
}

static void check_same(const ldns_pkt *parsed, const struct query_message *query)
{
    const struct question *question = &query->question;
    assert(ldns_pkt_id(parsed) == query->id && ldns_pkt_qdcount(parsed) == 1);
    const ldns_rr *asked = ldns_rr_list_rr(ldns_pkt_question(parsed), 0);
    assert(ldns_rdf_size(ldns_rr_owner(asked)) == question->name_length);
    assert(memcmp(ldns_rdf_data(ldns_rr_owner(asked)), query->spelling, question->name_length) ==
           0);
    assert(ldns_rr_get_type(asked) == (ldns_rr_type)question->type);
    assert(ldns_rr_get_class(asked) == (ldns_rr_class)question->class);
    assert(ldns_pkt_rd(parsed) == question->recursion_desired);
    assert(ldns_pkt_cd(parsed) == question->checking_disabled);
    assert(ldns_pkt_ad(parsed) == query->has_authentic_data);
    assert(ldns_pkt_edns_do(parsed) == question->dnssec_ok);
    if (query->has_edns && ldns_pkt_edns_udp_size(parsed) >= DNS_UDP_DEFAULT)
        assert(ldns_pkt_edns_udp_size(parsed) == query->udp_size);
}

static void ask_ldns(const uint8_t *bytes, size_t length, const struct query_message *accepted)
{
    ldns_pkt *parsed = NULL;
    const bool is_read = ldns_wire2pkt(&parsed, bytes, length) == LDNS_STATUS_OK;
    if (accepted) {
        assert(is_read);
        check_same(parsed, accepted);
    } else {
        assert(!is_read || !is_plain_query(parsed, bytes, length));
    }
    if (is_read)
        ldns_pkt_free(parsed);
}

static void check_verdict(const uint8_t *bytes, size_t length)
{
    struct query_message query;
    enum rcode rcode = RCODE_NOERROR;
    switch (message_parse_query(bytes, length, &query, &rcode)) {
    case QUERY_DROP:
        assert(length < DNS_HEADER_SIZE);
        return;
    case QUERY_RESPONSE:
        assert(bytes[2] & DNS_FLAG_QR >> 8);
        return;
    case QUERY_ACCEPT:
        assert(query.has_question && rcode == RCODE_NOERROR);
        check_built_query(&query.question);
        ask_ldns(bytes, length, &query);
        break;
    case QUERY_REJECT:
        assert(rcode != RCODE_NOERROR);
        ask_ldns(bytes, length, NULL);
        break;
    }
    check_reply(&query, rcode);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *bytes = exact_copy(data, size); /* the input is const */
    if (size >= DNS_HEADER_SIZE && data[0] & 3) {
        store_u32(bytes + 4, 1 << 16);
        store_u32(bytes + 8, data[0] & 1);
        bytes[2] &= DNS_FLAG_RD >> 8;
    }
    check_verdict(bytes, size);
    free(bytes);
    return 0;
}
