// SPDX-License-Identifier: Apache-2.0
/* Queries of clients parsed, queries to upstreams built. */
#include "test.h"

#include "dns/name.h"
#include "packet.h"

static struct packet packet;
static struct query_message query;
static enum rcode rcode;

static void put_query(unsigned flags, const char *name, unsigned type, unsigned additionals)
{
    put_header(&packet, flags, 1, 0, 0, additionals);
    put_question(&packet, name, type);
}

/* The verdict on `packet`, in memory without an octet to spare. */
static enum query_verdict parse(void)
{
    rcode = RCODE_NOERROR;
    return parse_exact(&packet, &query, &rcode);
}

#define ASSERT_REJECTED(expected)                \
    do {                                         \
        assert_int_equal(parse(), QUERY_REJECT); \
        assert_int_equal(rcode, expected);       \
        assert_int_equal(query.id, PACKET_ID);   \
        assert_true(query.udp_size >= 512);      \
    } while (0)

static void RFC1035_question_and_header_are_taken(void **state)
{
    (void)state;
    put_query(DNS_FLAG_RD, "wWw.Example.COM", TYPE_A, 0);
    assert_int_equal(parse(), QUERY_ACCEPT);
    assert_int_equal(query.id, PACKET_ID);
    assert_int_equal(query.flags, DNS_FLAG_RD);
    assert_true(query.has_question);
    assert_false(query.has_edns);
    assert_false(query.has_authentic_data);
    assert_false(query.has_keepalive);
    assert_int_equal(query.udp_size, 512);
    const struct question *question = &query.question;
    assert_int_equal(question->type, TYPE_A);
    assert_int_equal(question->class, CLASS_IN);
    assert_true(question->recursion_desired);
    assert_false(question->dnssec_ok);
    assert_false(question->checking_disabled);
    assert_int_equal(question->name_length, 17);
    assert_memory_equal(question->name, "\3www\7example\3com", 17);
    assert_memory_equal(query.spelling, "\3wWw\7Example\3COM", 17);
}

static void RFC6840_bits_are_taken_one_by_one(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 16; i++) {
        const bool recursion = i & 1;
        const bool checking_disabled = i & 2;
        const bool authentic = i & 4;
        const bool dnssec = i & 8;
        put_query((recursion ? DNS_FLAG_RD : 0) | (checking_disabled ? DNS_FLAG_CD : 0) |
                      (authentic ? DNS_FLAG_AD : 0),
                  "example", TYPE_A, 1);
        put_opt(&packet, 1232, dnssec ? DNS_EDNS_FLAG_DO : 0, 0);
        memset(&query, i & 1 ? 0 : 1, sizeof query); /* nothing is left as it was */
        assert_int_equal(parse(), QUERY_ACCEPT);
        assert_int_equal(query.question.recursion_desired, recursion);
        assert_int_equal(query.question.checking_disabled, checking_disabled);
        assert_int_equal(query.has_authentic_data, authentic);
        assert_int_equal(query.question.dnssec_ok, dnssec);
        assert_false(query.has_keepalive);
    }
    put_query(DNS_FLAG_RD, "example", TYPE_A, 0);
    memset(&query, 1, sizeof query);
    assert_int_equal(parse(), QUERY_ACCEPT);
    assert_false(query.has_edns);
    assert_false(query.has_keepalive);
    assert_false(query.question.dnssec_ok);
    put_header(&packet, DNS_FLAG_RD, 2, 0, 0, 0);
    memset(&query, 1, sizeof query);
    ASSERT_REJECTED(RCODE_FORMERR);
    assert_false(query.has_question);
    assert_false(query.has_edns);
}

static void A1_shorter_than_a_header_is_dropped(void **state)
{
    (void)state;
    put_query(DNS_FLAG_RD, "example", TYPE_A, 0);
    struct query_message untouched;
    memset(&query, 0xa5, sizeof query);
    memset(&untouched, 0xa5, sizeof untouched);
    for (packet.length = 0; packet.length < DNS_HEADER_SIZE; packet.length++)
        assert_int_equal(parse(), QUERY_DROP);
    assert_memory_equal(&query, &untouched, sizeof query);
}

static void A2_a_response_is_never_answered(void **state)
{
    (void)state;
    for (unsigned flags = 0; flags <= 0x7fff; flags++) {
        put_header(&packet, DNS_FLAG_QR | flags, flags & 3, 0, 0, 0);
        assert_int_equal(parse(), QUERY_RESPONSE);
    }
}

static void A4_truncated_query_is_formerr(void **state)
{
    (void)state;
    put_query(DNS_FLAG_RD | DNS_FLAG_TC, "example", TYPE_A, 0);
    ASSERT_REJECTED(RCODE_FORMERR);
    assert_true(query.has_question);
}

static void A5_A6_RFC9619_any_number_of_questions_but_one_is_formerr(void **state)
{
    (void)state;
    const unsigned counts[] = {0, 2, 3, 256, 65535};
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        put_header(&packet, DNS_FLAG_RD, counts[i], 0, 0, 0);
        ASSERT_REJECTED(RCODE_FORMERR); /* from the header alone */
        assert_false(query.has_question);
        put_question(&packet, "example", TYPE_A);
        put_question(&packet, "example", TYPE_AAAA);
        ASSERT_REJECTED(RCODE_FORMERR);
        assert_false(query.has_question);
    }
}

static void A7_RFC8490_other_opcodes_are_notimp(void **state)
{
    (void)state;
    for (unsigned opcode = 1; opcode <= 15; opcode++) {
        put_query(opcode << DNS_OPCODE_SHIFT, "example", TYPE_A, 0);
        ASSERT_REJECTED(RCODE_NOTIMP);
        assert_int_equal(query.flags, opcode << DNS_OPCODE_SHIFT);
        put_header(&packet, opcode << DNS_OPCODE_SHIFT, 0, 0, 0, 0); /* DSO has no question */
        ASSERT_REJECTED(RCODE_NOTIMP);
    }
    put_query(0x7fff, "example", TYPE_A, 0);
    ASSERT_REJECTED(RCODE_NOTIMP);
}

static void A8_records_in_a_query_are_formerr(void **state)
{
    (void)state;
    for (unsigned section = 1; section <= 2; section++) {
        put_query(DNS_FLAG_RD, "example", TYPE_A, 0);
        store_u16(packet.bytes + 4 + 2 * section, 1);
        put_pointer(&packet, QUESTION_POINTER);
        put_record(&packet, TYPE_A, 60, 4);
        put_u32(&packet, 0x7f000001);
        ASSERT_REJECTED(RCODE_FORMERR);
        assert_true(query.has_question);
    }
    put_query(DNS_FLAG_RD, "example", TYPE_A, 65535);
    ASSERT_REJECTED(RCODE_FORMERR);
}

static void A8_additional_record_that_is_not_opt_is_formerr(void **state)
{
    (void)state;
    const unsigned types[] = {TYPE_TSIG, TYPE_SIG, TYPE_TKEY, TYPE_A, 0};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        put_query(DNS_FLAG_RD, "example", TYPE_A, 1);
        put_u8(&packet, 0);
        put_record(&packet, types[i], 0, 0);
        ASSERT_REJECTED(RCODE_FORMERR);
        assert_false(query.has_edns);
    }
    put_query(DNS_FLAG_RD, "example", TYPE_A, 1); /* announced but not there */
    ASSERT_REJECTED(RCODE_FORMERR);
}

static void A9_RFC9103_transfers_and_mail_meta_types_are_refused(void **state)
{
    (void)state;
    const unsigned types[] = {TYPE_AXFR, TYPE_IXFR, TYPE_MAILA, TYPE_MAILB, TYPE_TKEY};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        put_query(DNS_FLAG_RD, "Example", types[i], 1);
        put_opt(&packet, 4096, DNS_EDNS_FLAG_DO, 0);
        ASSERT_REJECTED(RCODE_REFUSED);
        assert_true(query.has_question);
        assert_memory_equal(query.spelling, "\7Example", 9);
        assert_true(query.has_edns);
        assert_true(query.question.dnssec_ok);
        assert_int_equal(query.udp_size, 4096);
    }
}

static void A9_ixfr_with_its_soa_is_formerr(void **state)
{
    (void)state;
    put_query(0, "example", TYPE_IXFR, 0);
    store_u16(packet.bytes + 8, 1);
    put_pointer(&packet, QUESTION_POINTER);
    put_record(&packet, TYPE_SOA, 0, 22);
    put_zeros(&packet, 22);
    ASSERT_REJECTED(RCODE_FORMERR);
}

static void RFC6895_types_and_classes_that_cannot_be_asked_for_are_formerr(void **state)
{
    (void)state;
    put_query(0, "example", TYPE_OPT, 0);
    ASSERT_REJECTED(RCODE_FORMERR);
    put_query(0, "example", TYPE_TSIG, 0);
    ASSERT_REJECTED(RCODE_FORMERR);
    put_query(0, "example", TYPE_A, 0);
    store_u16(packet.bytes + packet.length - 2, 0);
    ASSERT_REJECTED(RCODE_FORMERR);
}

static void RFC5625_RFC8906_unknown_types_and_classes_pass(void **state)
{
    (void)state;
    unsigned rejected = 0;
    for (unsigned type = 0; type <= 65535; type++) {
        put_query(DNS_FLAG_RD, "example", type, 0);
        rejected +=
            message_parse_query(packet.bytes, packet.length, &query, &rcode) != QUERY_ACCEPT;
    }
    assert_int_equal(rejected, 7);
    rejected = 0;
    for (unsigned class = 0; class <= 65535; class ++) {
        put_query(DNS_FLAG_RD, "example", TYPE_A, 0);
        store_u16(packet.bytes + packet.length - 2, (uint16_t) class);
        rejected +=
            message_parse_query(packet.bytes, packet.length, &query, &rcode) != QUERY_ACCEPT;
    }
    assert_int_equal(rejected, 1);
}

static void A10_RFC6891_opt_is_taken(void **state)
{
    (void)state;
    put_query(DNS_FLAG_CD | DNS_FLAG_AD, "example", TYPE_A, 1);
    put_opt(&packet, 1400, 0xff00ffff, 0); /* extended RCODE and all flags set */
    assert_int_equal(parse(), QUERY_ACCEPT);
    assert_true(query.has_edns);
    assert_true(query.has_authentic_data);
    assert_int_equal(query.udp_size, 1400);
    assert_true(query.question.dnssec_ok);
    assert_true(query.question.checking_disabled);
    assert_false(query.question.recursion_desired);

    put_query(DNS_FLAG_RD | DNS_FLAG_Z, "example", TYPE_A, 1);
    put_opt(&packet, 1400, 0x00007fff, 0); /* all but DO */
    assert_int_equal(parse(), QUERY_ACCEPT);
    assert_false(query.question.dnssec_ok);
}

static void A10_RFC6891_every_version_but_0_is_badvers(void **state)
{
    (void)state;
    for (uint32_t version = 1; version <= 255; version++) {
        put_query(DNS_FLAG_RD, "example", TYPE_A, 1);
        put_opt(&packet, 1232, version << 16 | DNS_EDNS_FLAG_DO, 4);
        put_u32(&packet, 0xffffffff); /* what its options look like is unknown */
        ASSERT_REJECTED(RCODE_BADVERS);
        assert_true(query.has_edns);
        assert_true(query.has_question);
        assert_true(query.question.dnssec_ok);
    }
}

static void A10_H9_options_are_accepted_and_forgotten(void **state)
{
    (void)state;
    for (unsigned code = 0; code <= 65535; code += code < 32 ? 1 : 4093) {
        put_query(DNS_FLAG_RD, "example", TYPE_A, 1);
        put_opt(&packet, 1232, 0, 12);
        put_option(&packet, code, "12345678", 8);
        assert_int_equal(parse(), QUERY_ACCEPT);
        assert_false(query.has_keepalive);
    }
}

static void A10_malformed_opt_is_formerr(void **state)
{
    (void)state;
    put_query(DNS_FLAG_RD, "example", TYPE_A, 1); /* owner not the root */
    put_pointer(&packet, QUESTION_POINTER);
    put_record(&packet, TYPE_OPT, 0, 0);
    ASSERT_REJECTED(RCODE_FORMERR);

    put_query(DNS_FLAG_RD, "example", TYPE_A, 2);
    put_opt(&packet, 1232, 0, 0);
    put_opt(&packet, 1232, 0, 0);
    ASSERT_REJECTED(RCODE_FORMERR);

    put_query(DNS_FLAG_RD, "example", TYPE_A, 1); /* RDLENGTH past the end */
    put_opt(&packet, 1232, 0, 5);
    put_option(&packet, OPTION_NSID, "", 0);
    ASSERT_REJECTED(RCODE_FORMERR);
    assert_true(query.has_edns); /* RFC 6891 6.1.1: an OPT is answered with an OPT */

    put_query(DNS_FLAG_RD, "example", TYPE_A, 1); /* option past RDLENGTH */
    put_opt(&packet, 1232, 0, 6);
    put_u16(&packet, OPTION_COOKIE);
    put_u16(&packet, 3);
    put_zeros(&packet, 3);
    ASSERT_REJECTED(RCODE_FORMERR);

    for (size_t length = 1; length <= 3; length++) { /* less than an option */
        put_query(DNS_FLAG_RD, "example", TYPE_A, 1);
        put_opt(&packet, 1232, 0, length);
        put_zeros(&packet, length);
        ASSERT_REJECTED(RCODE_FORMERR);
    }
}

static void A11_options_are_capped(void **state)
{
    (void)state;
    for (unsigned count = 0; count <= 16000; count = count < 40 ? count + 1 : count * 2) {
        put_query(DNS_FLAG_RD, "example", TYPE_A, 1);
        put_opt(&packet, 1232, 0, count * 4);
        for (unsigned i = 0; i < count; i++)
            put_option(&packet, OPTION_PADDING, "", 0);
        if (count <= DNS_OPTIONS_MAX)
            assert_int_equal(parse(), QUERY_ACCEPT);
        else
            ASSERT_REJECTED(RCODE_FORMERR);
    }
    put_query(DNS_FLAG_RD, "example", TYPE_A, 1);
    put_opt(&packet, 1232, 0, 65004);
    put_u16(&packet, OPTION_PADDING);
    put_u16(&packet, 65000);
    put_zeros(&packet, 65000);
    assert_int_equal(parse(), QUERY_ACCEPT);
}

static void A12_RFC9267_name_with_a_pointer_is_formerr(void **state)
{
    (void)state;
    for (unsigned target = 0; target <= 0x3fff; target++) { /* backward, itself, forward */
        put_header(&packet, DNS_FLAG_RD, 1, 0, 0, 0);
        put_labels(&packet, target & 1 ? "example" : "");
        put_pointer(&packet, target);
        put_u32(&packet, TYPE_A << 16 | CLASS_IN);
        ASSERT_REJECTED(RCODE_FORMERR);
        assert_false(query.has_question);
    }
    put_header(&packet, DNS_FLAG_RD, 1, 0, 0, 0); /* 200 deep */
    for (unsigned i = 0; i < 200; i++)
        put_pointer(&packet, packet.length + 2);
    put_question(&packet, "", TYPE_A);
    ASSERT_REJECTED(RCODE_FORMERR);
}

static void A12_label_over_63_is_formerr(void **state)
{
    (void)state;
    for (unsigned length = 1; length <= 255; length++) {
        put_header(&packet, DNS_FLAG_RD, 1, 0, 0, 0);
        put_u8(&packet, length);
        put_zeros(&packet, length);
        put_question(&packet, "", TYPE_A);
        if (length <= DNS_LABEL_MAX)
            assert_int_equal(parse(), QUERY_ACCEPT);
        else
            ASSERT_REJECTED(RCODE_FORMERR);
    }
}

/* Writes a name of `length` octets, at least 2, of labels as long as can be. */
static void put_long_name(size_t length)
{
    size_t left = length - 1;
    while (left > 0) {
        size_t label = left > 64 ? 64 : left;
        label -= left - label == 1; /* one octet alone is no label */
        put_u8(&packet, (unsigned)(label - 1));
        memset(packet.bytes + packet.length, 'X', label - 1);
        packet.length += label - 1;
        left -= label;
    }
    put_u8(&packet, 0);
}

static void A12_RFC1035_name_over_255_is_formerr(void **state)
{
    (void)state;
    for (size_t length = 3; length <= 300; length++) {
        put_header(&packet, DNS_FLAG_RD, 1, 0, 0, 0);
        put_long_name(length);
        put_u32(&packet, TYPE_A << 16 | CLASS_IN);
        if (length <= DNS_NAME_MAX) {
            assert_int_equal(parse(), QUERY_ACCEPT);
            assert_int_equal(query.question.name_length, length);
            assert_memory_equal(query.spelling, packet.bytes + DNS_HEADER_SIZE, length);
        } else {
            ASSERT_REJECTED(RCODE_FORMERR);
        }
    }
    put_header(&packet, DNS_FLAG_RD, 1, 0, 0, 0); /* most labels: 127 of one octet */
    for (unsigned i = 0; i < 127; i++)
        put_labels(&packet, "a");
    put_question(&packet, "", TYPE_A);
    assert_int_equal(parse(), QUERY_ACCEPT);
    assert_int_equal(query.question.name_length, 255);
}

static void A12_query_cut_anywhere_is_never_accepted(void **state)
{
    (void)state;
    put_query(DNS_FLAG_RD, "www.example.com", TYPE_A, 1);
    put_opt(&packet, 1232, 0, 4 + 8 + 4);
    put_option(&packet, OPTION_COOKIE, "12345678", 8);
    put_option(&packet, OPTION_KEEPALIVE, "", 0);
    assert_int_equal(parse(), QUERY_ACCEPT);
    while (packet.length-- > DNS_HEADER_SIZE)
        ASSERT_REJECTED(RCODE_FORMERR);
}

static void A13_bytes_after_the_message_go_nowhere(void **state)
{
    (void)state;
    uint8_t clean[MESSAGE_QUERY_MAX];
    uint8_t built[MESSAGE_QUERY_MAX];
    put_query(DNS_FLAG_RD, "example", TYPE_A, 1);
    put_opt(&packet, 1232, 0, 0);
    assert_int_equal(parse(), QUERY_ACCEPT);
    const size_t length = message_build_query(&query.question, 1, clean);
    put_bytes(&packet, "SECRET", 6);
    assert_int_equal(parse(), QUERY_ACCEPT);
    assert_int_equal(message_build_query(&query.question, 1, built), length);
    assert_memory_equal(built, clean, length);
}

static void A14_RFC6891_size_below_512_counts_as_512(void **state)
{
    (void)state;
    const unsigned sizes[] = {0, 1, 511, 512, 513, 1232, 65535};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        put_query(DNS_FLAG_RD, "example", TYPE_A, 1);
        put_opt(&packet, sizes[i], 0, 0);
        assert_int_equal(parse(), QUERY_ACCEPT);
        assert_int_equal(query.udp_size, sizes[i] < 512 ? 512 : sizes[i]);
    }
}

static void RFC7828_keepalive_counts_when_it_is_empty(void **state)
{
    (void)state;
    for (size_t length = 0; length <= 3; length++) {
        put_query(DNS_FLAG_RD, "example", TYPE_A, 1);
        put_opt(&packet, 1232, 0, 4 + length);
        put_option(&packet, OPTION_KEEPALIVE, "\0\0\0", length);
        assert_int_equal(parse(), QUERY_ACCEPT);
        assert_int_equal(query.has_keepalive, length == 0);
    }
}

static void RFC4343_only_ascii_letters_change_case(void **state)
{
    (void)state;
    /* Every octet at every place of a word and of what is left after the words. */
    for (unsigned octet = 0; octet <= 255; octet++) {
        for (unsigned length = 1; length <= 17; length++) {
            put_header(&packet, DNS_FLAG_RD, 1, 0, 0, 0);
            put_u8(&packet, length);
            memset(packet.bytes + packet.length, (int)octet, length);
            packet.length += length;
            put_question(&packet, "", TYPE_A);
            assert_int_equal(parse(), QUERY_ACCEPT);
            const bool is_capital = octet >= 'A' && octet <= 'Z';
            for (unsigned i = 1; i <= length; i++) {
                assert_int_equal(query.question.name[i], is_capital ? octet + 32 : octet);
                assert_int_equal(query.spelling[i], octet);
            }
            assert_int_equal(query.question.name[0], length);
            assert_int_equal(query.question.name[length + 1], 0);
        }
    }
}

static void RFC8467_built_query_is_padded_to_128_at_every_length(void **state)
{
    (void)state;
    uint8_t built[MESSAGE_QUERY_MAX];
    for (size_t length = 3; length <= DNS_NAME_MAX; length++) {
        put_header(&packet, DNS_FLAG_RD, 1, 0, 0, 0);
        put_long_name(length);
        put_u32(&packet, TYPE_AAAA << 16 | CLASS_IN);
        assert_int_equal(parse(), QUERY_ACCEPT);
        const struct question question = query.question;

        memset(built, 0xff, sizeof built);
        packet.length = message_build_query(&question, PACKET_ID, built);
        assert_int_equal(packet.length % 128, 0);
        assert_true(packet.length <= MESSAGE_QUERY_MAX);
        memcpy(packet.bytes, built, packet.length);
        assert_int_equal(parse(), QUERY_ACCEPT);
        assert_true(question_equal(&query.question, &question));
        assert_true(query.has_keepalive);
        assert_true(query.has_authentic_data);
    }
}

static void RFC6840_RFC7828_built_query_byte_for_byte(void **state)
{
    (void)state;
    struct question question = question_of("a", TYPE_MX);
    question.dnssec_ok = true;
    question.checking_disabled = true;
    uint8_t built[MESSAGE_QUERY_MAX];
    assert_int_equal(message_build_query(&question, 0xabcd, built), 128);
    static const uint8_t expected[128] = {
        0xab, 0xcd, 0x01, 0x30, 0,  1, 0,  0, 0, 0,  0,    1, /* RD, AD, CD */
        1,    'a',  0,    0,    15, 0, 1,  0, 0, 41, 0x04, 0xd0, 0,
        0,    0x80, 0,    0,    98, 0, 11, 0, 0, 0,  12,   0,    90,
    };
    assert_memory_equal(built, expected, 128);

    question.dnssec_ok = false;
    question.checking_disabled = false;
    question.recursion_desired = false;
    message_build_query(&question, 0, built);
    assert_int_equal(load_u16(built + 2), DNS_FLAG_AD);
    assert_int_equal(load_u32(built + 24), 0);
}

static void H1_every_field_of_a_question_counts(void **state)
{
    (void)state;
    const struct question a = question_of("www.example", TYPE_A);
    struct question b = a;
    assert_true(question_equal(&a, &b));
    memset(b.name + b.name_length, 0xff, DNS_NAME_MAX - (size_t)b.name_length); /* not part of it */
    assert_true(question_equal(&a, &b));
    b = a, b.type = TYPE_AAAA;
    assert_false(question_equal(&a, &b));
    b = a, b.class = CLASS_CH;
    assert_false(question_equal(&a, &b));
    b = a, b.recursion_desired = false;
    assert_false(question_equal(&a, &b));
    b = a, b.dnssec_ok = true;
    assert_false(question_equal(&a, &b));
    b = a, b.checking_disabled = true;
    assert_false(question_equal(&a, &b));
    b = a, b.name[1] ^= 1;
    assert_false(question_equal(&a, &b));
    b = question_of("www.example.x", TYPE_A);
    assert_false(question_equal(&a, &b));
}

static void RFC1035_names_are_written_with_escapes(void **state)
{
    (void)state;
    char text[DNS_NAME_TEXT_SIZE];
#define FORMAT(wire) name_format((const uint8_t *)(wire), sizeof(wire), text)
    assert_string_equal(FORMAT(""), ".");
    assert_string_equal(FORMAT("\3www\7example\3com"), "www.example.com.");
    assert_string_equal(FORMAT("\1.\2\\\"\4();@\1$"), "\\..\\\\\\\".\\(\\)\\;\\@.\\$.");
    assert_string_equal(FORMAT("\7\0 \n\x7f\xff~!"), "\\000\\032\\010\\127\\255~!.");
#undef FORMAT
    put_header(&packet, 0, 1, 0, 0, 0);
    put_long_name(DNS_NAME_MAX);
    memset(packet.bytes + 13, 1, 63);
    const char *longest = name_format(packet.bytes + DNS_HEADER_SIZE, DNS_NAME_MAX, text);
    assert_int_equal(strlen(longest), 63 * 4 + 1 + 64 + 64 + 62);
    uint8_t worst[DNS_NAME_MAX]; /* one octet over what fits could only come from a mistake */
    memset(worst, 0xff, sizeof worst);
    worst[0] = 63, worst[64] = 63, worst[128] = 63, worst[192] = 61, worst[254] = 0;
    assert_true(strlen(name_format(worst, sizeof worst, text)) < DNS_NAME_TEXT_SIZE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(RFC1035_question_and_header_are_taken),
        cmocka_unit_test(RFC6840_bits_are_taken_one_by_one),
        cmocka_unit_test(A1_shorter_than_a_header_is_dropped),
        cmocka_unit_test(A2_a_response_is_never_answered),
        cmocka_unit_test(A4_truncated_query_is_formerr),
        cmocka_unit_test(A5_A6_RFC9619_any_number_of_questions_but_one_is_formerr),
        cmocka_unit_test(A7_RFC8490_other_opcodes_are_notimp),
        cmocka_unit_test(A8_records_in_a_query_are_formerr),
        cmocka_unit_test(A8_additional_record_that_is_not_opt_is_formerr),
        cmocka_unit_test(A9_RFC9103_transfers_and_mail_meta_types_are_refused),
        cmocka_unit_test(A9_ixfr_with_its_soa_is_formerr),
        cmocka_unit_test(RFC6895_types_and_classes_that_cannot_be_asked_for_are_formerr),
        cmocka_unit_test(RFC5625_RFC8906_unknown_types_and_classes_pass),
        cmocka_unit_test(A10_RFC6891_opt_is_taken),
        cmocka_unit_test(A10_RFC6891_every_version_but_0_is_badvers),
        cmocka_unit_test(A10_H9_options_are_accepted_and_forgotten),
        cmocka_unit_test(A10_malformed_opt_is_formerr),
        cmocka_unit_test(A11_options_are_capped),
        cmocka_unit_test(A12_RFC9267_name_with_a_pointer_is_formerr),
        cmocka_unit_test(A12_label_over_63_is_formerr),
        cmocka_unit_test(A12_RFC1035_name_over_255_is_formerr),
        cmocka_unit_test(A12_query_cut_anywhere_is_never_accepted),
        cmocka_unit_test(A13_bytes_after_the_message_go_nowhere),
        cmocka_unit_test(A14_RFC6891_size_below_512_counts_as_512),
        cmocka_unit_test(RFC7828_keepalive_counts_when_it_is_empty),
        cmocka_unit_test(RFC4343_only_ascii_letters_change_case),
        cmocka_unit_test(RFC8467_built_query_is_padded_to_128_at_every_length),
        cmocka_unit_test(RFC6840_RFC7828_built_query_byte_for_byte),
        cmocka_unit_test(H1_every_field_of_a_question_counts),
        cmocka_unit_test(RFC1035_names_are_written_with_escapes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
