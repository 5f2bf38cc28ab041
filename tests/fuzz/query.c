// SPDX-License-Identifier: Apache-2.0
/* Anything at all as a client's query: what is accepted survives being asked on, and every reply is
 * a message that we would take ourselves.
 *
 * The counts of the header are made sane for three of four inputs, so that the fuzzer finds its way
 * to the question without seeds. */
#include <assert.h>

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
        break;
    case QUERY_REJECT:
        assert(rcode != RCODE_NOERROR);
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
