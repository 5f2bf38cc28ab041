// SPDX-License-Identifier: Apache-2.0
/* A query, an answer and a limit in, a reply out: it fits, and both we and libldns read the same
 * records in it.
 *
 * Both messages are made from the input: header bits, spelling, EDNS of the query; sections and
 * records of the answer. What the reply must be like is worked out here once more: what is needed
 * comes whole or not at all (TC=1, question and OPT alone: RFC 2181 9, 9715), behind it as many
 * whole RRsets as fit, OPT only when asked
 * (RFC 6891 7), AD only when asked (RFC 6840 5.8), keepalive and extended errors when they fit. */
#include <assert.h>
#include <ldns/ldns.h>

#include "dns/reply.h"
#include "packet.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { RECORDS_MAX = 40, TEXT_SIZE = 256 };

static const uint8_t *input, *input_end;
static struct packet packet;
static struct answer_scratch scratch, scratch_again;
static uint8_t out[DNS_MESSAGE_MAX];

static unsigned choose(unsigned limit)
{
    return input < input_end ? *input++ % limit : 0;
}

static unsigned choose_u16(void)
{
    const unsigned upper = choose(256);
    return upper << 8 | choose(256);
}

/* --- The query --- */

static void put_spelling(void)
{
    for (unsigned labels = choose(5); labels > 0; labels--) {
        const unsigned length = 1 + choose(63);
        put_u8(&packet, length);
        for (unsigned i = 0; i < length; i++)
            put_u8(&packet, i < 4 ? choose(256) : 'x');
    }
    put_u8(&packet, 0);
}

static void make_query(struct query_message *query)
{
    enum rcode rcode;
    const bool has_edns = choose(4) > 0;
    put_header(&packet, choose_u16() & (DNS_FLAG_RD | DNS_FLAG_AD | DNS_FLAG_CD), 1, 0, 0,
               has_edns);
    put_spelling();
    put_u16(&packet, 1 + choose(240));
    put_u16(&packet, CLASS_IN);
    if (has_edns) {
        const bool has_keepalive = choose(2) == 1;
        put_opt(&packet, choose_u16(), choose(2) ? DNS_EDNS_FLAG_DO : 0, has_keepalive ? 4 : 0);
        if (has_keepalive)
            put_option(&packet, OPTION_KEEPALIVE, "", 0);
    }
    if (parse_exact(&packet, query, &rcode) != QUERY_ACCEPT) /* of type OPT */
        query->has_question = false;
}

/* --- The answer --- */

static void put_data(unsigned type)
{
    switch (type) {
    case TYPE_A:
        put_u32(&packet, 0xc0000201);
        break;
    case TYPE_CNAME:
        put_labels(&packet, choose(2) ? "alias" : "a.b");
        put_pointer(&packet, QUESTION_POINTER);
        break;
    case TYPE_MX:
        put_u16(&packet, choose(256));
        put_pointer(&packet, QUESTION_POINTER);
        break;
    case TYPE_SOA:
        put_pointer(&packet, QUESTION_POINTER);
        put_name(&packet, "hostmaster");
        put_zeros(&packet, 16);
        put_u32(&packet, choose_u16());
        break;
    default: /* one that libldns does not know: any octets */
        for (unsigned length = choose(256) * (choose(8) == 7 ? 16 : 1); length > 0; length--)
            put_u8(&packet, choose(256));
    }
}

static void put_one_record(void)
{
    static const unsigned types[] = {TYPE_A, TYPE_CNAME, TYPE_MX, TYPE_SOA, 65280};
    const unsigned type = types[choose(5)];
    if (choose(4) > 0)
        put_pointer(&packet, QUESTION_POINTER);
    else
        put_name(&packet, "other");
    const size_t data = packet_begin_record(&packet, type, choose_u16() << 8 * choose(3));
    put_data(type);
    packet_end_record(&packet, data);
}

static void put_answer_opt(void)
{
    put_opt(&packet, 1232, 0, 0);
    const size_t options = packet.length;
    for (unsigned count = choose(8); count > 0; count--) {
        static const uint8_t text[TEXT_SIZE] = {0, 22};
        put_option(&packet, choose(2) ? OPTION_EXTENDED_ERROR : choose(16), text, 2 + choose(250));
    }
    packet_end_record(&packet, options);
}

static bool make_answer(const struct question *question, struct answer *answer)
{
    unsigned counts[3];
    put_header(&packet, DNS_FLAG_QR | (choose_u16() & (DNS_FLAG_AA | DNS_FLAG_RA | DNS_FLAG_AD)), 1,
               0, 0, 0);
    packet.bytes[3] |= (uint8_t)choose(6);
    put_bytes(&packet, question->name, question->name_length);
    put_u16(&packet, question->type);
    put_u16(&packet, question->class);
    for (unsigned section = 0; section < 3; section++) {
        counts[section] = choose(4) == 3 ? choose(RECORDS_MAX) : choose(4);
        for (unsigned i = 0; i < counts[section]; i++)
            put_one_record();
    }
    if (choose(2)) {
        put_answer_opt();
        counts[2]++;
    }
    for (unsigned section = 0; section < 3; section++)
        store_u16(packet.bytes + 6 + section * 2, (uint16_t)counts[section]);
    assert(packet.length <= DNS_MESSAGE_MAX);
    return message_check_answer(packet.bytes, packet.length, question, &scratch, answer) ==
           STATUS_OK;
}

/* --- The reply --- */

struct parts {
    const struct query_message *query;
    const struct reply *reply;
    size_t length;
    bool truncated;
    struct answer again; /* what we read in the reply */
};

/* Octets of a reply with so many of records, and no options. */
static size_t length_with(const struct parts *parts, size_t body_length)
{
    return DNS_HEADER_SIZE + parts->query->question.name_length + DNS_QUESTION_TAIL + body_length +
           (parts->query->has_edns ? DNS_OPT_FIXED : 0u);
}

static size_t choose_limit(void)
{
    const size_t limit = choose_u16();
    return limit < DNS_UDP_DEFAULT ? DNS_UDP_DEFAULT : limit;
}

static size_t needed(const struct parts *parts)
{
    return length_with(parts, parts->reply->answer ? parts->reply->answer->needed_length : 0u);
}

static void check_header(const struct parts *parts)
{
    const struct query_message *query = parts->query;
    const struct answer *answer = parts->reply->answer;
    const unsigned flags = load_u16(out + 2);
    const unsigned echoed = DNS_OPCODE_MASK | DNS_FLAG_RD | DNS_FLAG_CD;
    assert(load_u16(out) == query->id && flags & DNS_FLAG_QR && flags & DNS_FLAG_RA);
    assert((flags & echoed) == (query->flags & echoed) && !(flags & DNS_FLAG_Z));
    const bool wants_ad = query->has_authentic_data || query->question.dnssec_ok;
    assert(!(flags & DNS_FLAG_AD) == !(answer && answer->flags & DNS_FLAG_AD && wants_ad));
    assert(!(flags & DNS_FLAG_TC) == !parts->truncated); /* our answers are whole */
    assert(load_u16(out + 4) == 1);
    const struct answer *again = &parts->again;
    const bool has_records = answer && !parts->truncated;
    assert(load_u16(out + 6) == (has_records ? answer->answer_count : 0));
    assert(load_u16(out + 8) == again->authority_count);
    assert(load_u16(out + 10) == again->additional_count + (query->has_edns ? 1 : 0));
    const size_t name_length = query->question.name_length;
    assert(memcmp(out + DNS_HEADER_SIZE, query->spelling, name_length) == 0);
}

/* Options are those that fit, in this order: keepalive, our own error, the answer's errors. */
static void check_options(const struct parts *parts)
{
    const struct reply *reply = parts->reply;
    const struct answer *again = &parts->again;
    const size_t fixed = length_with(parts, again->body_length);
    size_t room = parts->truncated ? 0 : reply->limit - fixed;
    const bool has_options = parts->query->has_edns && !parts->truncated;
    const bool has_keepalive =
        has_options && reply->has_keepalive && parts->query->has_keepalive && room >= 6;
    assert(again->has_keepalive == has_keepalive);
    if (has_keepalive) {
        assert(again->keepalive_100ms == reply->keepalive_100ms);
        room -= 6;
    }
    size_t wanted = 0;
    size_t codes = 0; /* octets of the extended errors without their texts */
    if (has_options && reply->error) {
        const size_t text = reply->error->text ? strlen(reply->error->text) : 0;
        wanted += 6 + (text > 200 ? 200 : text);
        codes += 6;
    }
    for (size_t i = 0; has_options && reply->answer && i < reply->answer->extended_errors_length;) {
        const size_t length = 4 + (size_t)load_u16(reply->answer->extended_errors + i + 2);
        wanted += length;
        codes += 6;
        i += length;
    }
    const size_t errors = parts->length - fixed - (has_keepalive ? 6 : 0);
    assert(errors <= room && errors <= wanted && (errors == wanted || wanted > room));
    assert(errors >= codes || reply->error || codes > room);
}

/* Our own check of the reply. Its question is the client's, of any spelling. */
static void check_again(struct parts *parts)
{
    const struct answer *again = &parts->again;
    const struct answer *answer = parts->reply->answer;
    uint8_t *bytes = exact_copy(out, parts->length);
    const enum status status = message_check_answer(bytes, parts->length, &parts->query->question,
                                                    &scratch_again, &parts->again);
    assert(status == STATUS_OK);
    if (answer && !parts->truncated) {
        assert(again->rcode == answer->rcode && again->kind == answer->kind);
        assert(again->needed_length == answer->needed_length);
        assert(again->body_length == answer->body_length ||
               length_with(parts, answer->body_length) > parts->reply->limit);
    } else {
        assert(again->body_length == 0);
    }
    check_options(parts);
    free(bytes);
}

static bool is_same_rrset(const ldns_rr *a, const ldns_rr *b)
{
    return ldns_rr_get_type(a) == ldns_rr_get_type(b) &&
           ldns_dname_compare(ldns_rr_owner(a), ldns_rr_owner(b)) == 0;
}

/* The first ones of those expected, and whole RRsets if it is up to us. */
static void check_records(const struct parts *parts, const ldns_rr_list *expected,
                          const ldns_rr_list *actual)
{
    const size_t count = ldns_rr_list_rr_count(actual);
    const bool is_least = parts->again.body_length == parts->reply->answer->needed_length;
    assert(ldns_rr_list_rr_count(expected) >= count);
    for (size_t i = count; i < ldns_rr_list_rr_count(expected) && !is_least; i++)
        for (size_t kept = 0; kept < count; kept++)
            assert(!is_same_rrset(ldns_rr_list_rr(expected, i), ldns_rr_list_rr(expected, kept)));
    for (size_t i = 0; i < count; i++) {
        /* In canonical form: a name that points at the question has the client's spelling. */
        ldns_rr *a = ldns_rr_clone(ldns_rr_list_rr(expected, i));
        ldns_rr *b = ldns_rr_clone(ldns_rr_list_rr(actual, i));
        ldns_rr2canonical(a);
        ldns_rr2canonical(b);
        assert(ttl_meant(ldns_rr_ttl(a)) == ldns_rr_ttl(b) && ldns_rr_compare(a, b) == 0);
        ldns_rr_free(a);
        ldns_rr_free(b);
    }
}

static void ask_ldns(const struct parts *parts)
{
    ldns_pkt *reply = NULL;
    ldns_pkt *original = NULL;
    const ldns_status status = ldns_wire2pkt(&reply, out, parts->length);
    assert(status == LDNS_STATUS_OK);
    assert(ldns_pkt_edns(reply) == parts->query->has_edns);
    assert(ldns_pkt_edns_do(reply) == (parts->query->has_edns && parts->query->question.dnssec_ok));
    if (parts->reply->answer && !parts->truncated) {
        const ldns_status read = ldns_wire2pkt(&original, packet.bytes, packet.length);
        assert(read == LDNS_STATUS_OK);
        check_records(parts, ldns_pkt_answer(original), ldns_pkt_answer(reply));
        check_records(parts, ldns_pkt_authority(original), ldns_pkt_authority(reply));
        check_records(parts, ldns_pkt_additional(original), ldns_pkt_additional(reply));
        ldns_pkt_free(original);
    }
    ldns_pkt_free(reply);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char text[TEXT_SIZE];
    static struct query_message query;
    struct answer answer;
    input = data;
    input_end = data + size;
    make_query(&query);
    if (!query.has_question)
        return 0;
    const bool has_answer = choose(4) > 0 && make_answer(&query.question, &answer);
    const size_t text_length = choose(TEXT_SIZE);
    memset(text, 'e', text_length);
    text[text_length] = '\0';
    const struct extended_error error = {EDE_OTHER, choose(4) > 0 ? text : NULL};
    const struct reply reply = {
        .answer = has_answer ? &answer : NULL,
        .rcode = (enum rcode)choose(6),
        .error = choose(2) ? &error : NULL,
        .limit = choose_limit(),
        .has_keepalive = choose(2) == 1,
        .keepalive_100ms = (uint16_t)choose_u16(),
    };
    struct parts parts = {.query = &query, .reply = &reply};
    parts.length = reply_write(&query, &reply, out, &parts.truncated);
    assert(parts.length <= reply.limit && parts.truncated == (needed(&parts) > reply.limit));
    check_again(&parts);
    check_header(&parts);
    ask_ldns(&parts);
    return 0;
}
