// SPDX-License-Identifier: Apache-2.0
/* Another parser's opinion: what we accept, build and compose, libldns reads the same way.
 *
 * Messages are drawn from a generator with a fixed seed, some whole and some with octets changed.
 * Known differences, where we are the laxer: the RDATA of types that we pass as opaque is not
 * looked into (RFC 3597), so libldns gets those records under a type that it does not know. */
#include "test.h"

#include "dns/reply.h"
#include "packet.h"

/* Where stdbool.h has not come before, it makes a bool of its own. */
#include <ldns/ldns.h>

enum { QUERIES = 30000, BUILT = 3000, ANSWERS = 2000, MUTATIONS = 10, TYPE_UNKNOWN = 65280 };

static uint64_t random_state;

/* SplitMix64 (Steele, Lea, Flood 2014). */
static uint64_t random_bits(void)
{
    uint64_t bits = random_state += UINT64_C(0x9e3779b97f4a7c15);
    bits = (bits ^ bits >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    bits = (bits ^ bits >> 27) * UINT64_C(0x94d049bb133111eb);
    return bits ^ bits >> 31;
}

static unsigned random_below(unsigned limit)
{
    return (unsigned)(random_bits() % limit);
}

static bool one_in(unsigned count)
{
    return random_below(count) == 0;
}

static int seed(void **state)
{
    (void)state;
    random_state = 20260401;
    return 0;
}

static void put_random_name(struct packet *packet)
{
    unsigned labels = random_below(6);
    while (labels-- > 0) {
        const unsigned length = 1 + random_below(one_in(10) ? 63 : 8);
        put_u8(packet, length);
        for (unsigned i = 0; i < length; i++)
            put_u8(packet,
                   one_in(20) ? random_below(256) : (uint8_t) "aBcDeFgHiJ-_09Z"[random_below(15)]);
    }
    put_u8(packet, 0);
}

static void mutate(struct packet *packet, unsigned changes)
{
    while (changes-- > 0 && packet->length > 0) {
        const size_t position = random_below((unsigned)packet->length);
        switch (random_below(4)) {
        case 0:
            packet->bytes[position] = (uint8_t)random_bits();
            break;
        case 1:
            packet->bytes[position] ^= (uint8_t)(1 << random_below(8));
            break;
        case 2:
            packet->bytes[position] = (uint8_t)(packet->bytes[position] + (one_in(2) ? 1 : 255));
            break;
        default:
            if (one_in(4))
                packet->length = position;
            else
                packet->bytes[position] = one_in(2) ? 0xc0 : 0;
        }
    }
}

static void put_random_query(struct packet *packet)
{
    const bool edns = one_in(2);
    put_header(packet, random_below(0x10000) & (DNS_FLAG_RD | DNS_FLAG_AD | DNS_FLAG_CD), 1, 0, 0,
               edns);
    put_random_name(packet);
    put_u16(packet, one_in(3) ? random_below(0x10000) : 1 + random_below(70));
    put_u16(packet, one_in(10) ? random_below(0x10000) : CLASS_IN);
    if (!edns)
        return;
    put_opt(packet, random_below(5000), random_below(0x10000), 0);
    const size_t options = packet->length;
    for (unsigned count = random_below(4); count > 0; count--) {
        const uint64_t data = random_bits();
        const unsigned code = random_below(20);
        put_option(packet, code, &data, random_below(9));
    }
    store_u16(packet->bytes + options - 2, (uint16_t)(packet->length - options));
}

static ldns_pkt *parse_with_ldns(const uint8_t *bytes, size_t length)
{
    ldns_pkt *parsed = NULL;
    return ldns_wire2pkt(&parsed, bytes, length) == LDNS_STATUS_OK ? parsed : NULL;
}

static void assert_same_question(const ldns_pkt *parsed, const uint8_t *name,
                                 const struct question *question)
{
    assert_int_equal(ldns_pkt_qdcount(parsed), 1);
    const ldns_rr *asked = ldns_rr_list_rr(ldns_pkt_question(parsed), 0);
    assert_int_equal(ldns_rdf_size(ldns_rr_owner(asked)), question->name_length);
    assert_memory_equal(ldns_rdf_data(ldns_rr_owner(asked)), name, question->name_length);
    assert_int_equal(ldns_rr_get_type(asked), question->type);
    assert_int_equal(ldns_rr_get_class(asked), question->class);
    assert_int_equal(ldns_pkt_rd(parsed), question->recursion_desired);
    assert_int_equal(ldns_pkt_cd(parsed), question->checking_disabled);
}

static void RFC1035_a_query_that_we_accept_reads_the_same_with_ldns(void **state)
{
    (void)state;
    static struct packet packet;
    static struct query_message query;
    enum rcode rcode;
    unsigned accepted = 0;
    for (unsigned i = 0; i < QUERIES; i++) {
        put_random_query(&packet);
        mutate(&packet, i % 2 ? random_below(4) : 0);
        if (parse_exact(&packet, &query, &rcode) != QUERY_ACCEPT)
            continue;
        accepted++;
        ldns_pkt *parsed = parse_with_ldns(packet.bytes, packet.length);
        assert_non_null(parsed);
        assert_same_question(parsed, query.spelling, &query.question);
        assert_int_equal(ldns_pkt_id(parsed), query.id);
        assert_int_equal(ldns_pkt_ad(parsed), query.has_authentic_data);
        assert_int_equal(ldns_pkt_edns_do(parsed), query.question.dnssec_ok);
        if (query.has_edns && ldns_pkt_edns_udp_size(parsed) >= 512)
            assert_int_equal(ldns_pkt_edns_udp_size(parsed), query.udp_size);
        ldns_pkt_free(parsed);
    }
    assert_in_range(accepted, QUERIES / 2, QUERIES - 1);
}

/* Offset of an option's data in the options that libldns read, 0 when it is not there. */
static size_t find_option(const ldns_rdf *options, unsigned wanted, size_t *length)
{
    const uint8_t *bytes = ldns_rdf_data(options);
    for (size_t i = 0; i + 4 <= ldns_rdf_size(options); i += 4 + (size_t)load_u16(bytes + i + 2)) {
        *length = load_u16(bytes + i + 2);
        if (load_u16(bytes + i) == wanted)
            return i + 4;
    }
    return 0;
}

static void RFC8467_a_query_that_we_build_reads_the_same_with_ldns(void **state)
{
    (void)state;
    static struct packet packet;
    static struct query_message query;
    enum rcode rcode;
    uint8_t built[MESSAGE_QUERY_MAX];
    for (unsigned count = 0; count < BUILT;) {
        put_random_query(&packet);
        if (parse_exact(&packet, &query, &rcode) != QUERY_ACCEPT)
            continue;
        count++;
        const uint16_t id = (uint16_t)random_bits();
        const size_t length = message_build_query(&query.question, id, built);
        assert_int_equal(length % 128, 0);
        ldns_pkt *parsed = parse_with_ldns(built, length);
        assert_non_null(parsed);
        assert_same_question(parsed, query.question.name, &query.question);
        assert_int_equal(ldns_pkt_id(parsed), id);
        assert_false(ldns_pkt_qr(parsed));
        assert_true(ldns_pkt_ad(parsed));
        assert_true(ldns_pkt_edns(parsed));
        assert_int_equal(ldns_pkt_edns_do(parsed), query.question.dnssec_ok);
        size_t option_length = 1;
        assert_int_not_equal(
            find_option(ldns_pkt_edns_data(parsed), OPTION_KEEPALIVE, &option_length), 0);
        assert_int_equal(option_length, 0);
        const size_t padding =
            find_option(ldns_pkt_edns_data(parsed), OPTION_PADDING, &option_length);
        assert_int_not_equal(padding, 0);
        assert_int_equal(padding + option_length, ldns_rdf_size(ldns_pkt_edns_data(parsed)));
        ldns_pkt_free(parsed);
    }
}

/* A record of each type that libldns writes; names below the question's and elsewhere. */
static const char *const record_texts[] = {
    "www.example. 300 IN A 192.0.2.1",
    "www.example. 300 IN AAAA 2001:db8::1",
    "example. 300 IN NS ns.example.",
    "www.example. 300 IN CNAME WWW.example.net.",
    "example. 300 IN SOA ns.example. hostmaster.example. 1 2 3 4 60",
    "www.example. 300 IN MB mail.example.",
    "www.example. 300 IN MG mail.example.",
    "www.example. 300 IN MR mail.www.example.",
    "1.2.0.192.in-addr.arpa. 300 IN PTR www.example.",
    "www.example. 300 IN HINFO \"cpu\" \"os\"",
    "www.example. 300 IN MINFO a.example. b.example.",
    "example. 300 IN MX 10 mail.example.",
    "www.example. 300 IN TXT \"one\" \"two\" \"\"",
    "www.example. 300 IN RP a.example. b.example.",
    "www.example. 300 IN AFSDB 1 afs.example.",
    "www.example. 300 IN X25 \"311061700956\"",
    "www.example. 300 IN ISDN \"150862028003217\" \"004\"",
    "www.example. 300 IN RT 10 relay.example.",
    "www.example. 300 IN KEY 256 3 8 AwEAAaHIwpx3w4VHKi6i1LHnTaWeHCL154Jug0Rt",
    "www.example. 300 IN PX 10 a.example. b.example.",
    "www.example. 300 IN LOC 52 22 23.000 N 4 53 32.000 E -2.00m 0.00m 10000m 10m",
    "_dns._tcp.example. 300 IN SRV 1 2 853 ns.example.",
    "www.example. 300 IN NAPTR 1 2 \"u\" \"sip+E2U\" \"!^.*$!sip:a@b!\" next.example.",
    "www.example. 300 IN KX 10 kx.example.",
    "www.example. 300 IN CERT PGP 1 1 AQIDBA==",
    "sub.example. 300 IN DNAME other.example.",
    "www.example. 300 IN APL 1:192.0.2.0/24",
    "example. 300 IN DS 12345 8 2 "
    "3490A6806D47F17A34C29E2CE80E8A999FFBE4BE3490A6806D47F17A34C29E2C",
    "www.example. 300 IN SSHFP 1 1 3490A6806D47F17A34C29E2CE80E8A999FFBE4BE",
    "www.example. 300 IN IPSECKEY 10 1 2 192.0.2.38 AQIDBA==",
    "www.example. 300 IN RRSIG A 8 2 300 20300101000000 20200101000000 12345 example. AQIDBA==",
    "www.example. 300 IN NSEC z.example. A AAAA RRSIG NSEC",
    "example. 300 IN DNSKEY 257 3 8 AwEAAaHIwpx3w4VHKi6i1LHnTaWeHCL154Jug0Rt",
    "www.example. 300 IN DHCID AAIBY2/AuCccgoJbsaxcQc9TUapptP69lOjxfNuVAA2kjEA=",
    "2t7b4g4vsa5smi47k61mv5bv1a22bojr.example. 300 IN NSEC3 1 1 12 aabbccdd "
    "2vptu5timamqttgl4luu9kg21e0aor3s A RRSIG",
    "example. 300 IN NSEC3PARAM 1 0 12 aabbccdd",
    "_853._tcp.example. 300 IN TLSA 3 1 1 "
    "3490A6806D47F17A34C29E2CE80E8A999FFBE4BE3490A6806D47F17A34C29E2C",
    "example. 300 IN CDS 0 0 0 00",
    "example. 300 IN CDNSKEY 0 3 0 AA==",
    "www.example. 300 IN OPENPGPKEY AQIDBA==",
    "www.example. 300 IN CSYNC 66 3 A NS AAAA",
    "www.example. 300 IN SPF \"v=spf1 -all\"",
    "www.example. 300 IN NID 10 0014:4fff:ff20:ee64",
    "www.example. 300 IN L32 10 10.1.2.0",
    "www.example. 300 IN L64 10 2001:0db8:1140:1000",
    "www.example. 300 IN LP 10 l64.example.",
    "www.example. 300 IN EUI48 00-00-5e-00-53-2a",
    "www.example. 300 IN EUI64 00-00-5e-ef-10-00-00-2a",
    "www.example. 300 IN URI 10 1 \"ftp://ftp.example/\"",
    "www.example. 300 IN CAA 0 issue \"ca.example\"",
    "www.example. 300 IN HTTPS 1 . alpn=h2",
    "_dns.example. 300 IN SVCB 1 ns.example. alpn=dot",
    "www.example. 300 IN TYPE65280 \\# 5 0102c00c05",
};

enum { TEXTS = sizeof record_texts / sizeof record_texts[0] };

static ldns_rr *records[TEXTS];
static size_t record_count;

static int read_records(void **state)
{
    record_count = 0;
    for (size_t i = 0; i < TEXTS; i++) {
        const ldns_status status =
            ldns_rr_new_frm_str(&records[record_count], record_texts[i], 0, NULL, NULL);
        record_count += status == LDNS_STATUS_OK;
    }
    return seed(state);
}

static int free_records(void **state)
{
    (void)state;
    for (size_t i = 0; i < record_count; i++)
        ldns_rr_free(records[i]);
    return 0;
}

/* A packet with the record `first` in the answer section and others drawn at random. */
static ldns_pkt *random_answer(size_t first, unsigned most)
{
    ldns_pkt *made = ldns_pkt_query_new(ldns_dname_new_frm_str("www.example."), LDNS_RR_TYPE_A,
                                        LDNS_RR_CLASS_IN, LDNS_RD);
    assert_non_null(made);
    ldns_pkt_set_id(made, PACKET_ID);
    ldns_pkt_set_qr(made, true);
    ldns_pkt_set_ra(made, true);
    ldns_pkt_push_rr(made, LDNS_SECTION_ANSWER, ldns_rr_clone(records[first]));
    for (unsigned count = random_below(most); count > 0; count--) {
        const ldns_pkt_section sections[] = {LDNS_SECTION_ANSWER, LDNS_SECTION_AUTHORITY,
                                             LDNS_SECTION_ADDITIONAL};
        ldns_rr *record = ldns_rr_clone(records[random_below((unsigned)record_count)]);
        ldns_rr_set_ttl(record, random_below(100000));
        ldns_pkt_push_rr(made, sections[random_below(3)], record);
    }
    if (one_in(2)) {
        ldns_pkt_set_edns_udp_size(made, 1232);
        ldns_pkt_set_edns_do(made, one_in(2));
    }
    return made;
}

/* The packet's wire form, whose names libldns compresses. */
static void write_with_ldns(const ldns_pkt *made, struct packet *packet)
{
    uint8_t *wire = NULL;
    assert_int_equal(ldns_pkt2wire(&wire, made, &packet->length), LDNS_STATUS_OK);
    memcpy(packet->bytes, wire, packet->length);
    free(wire);
}

static void assert_same_records(const ldns_rr_list *expected, const ldns_rr_list *actual)
{
    assert_int_equal(ldns_rr_list_rr_count(expected), ldns_rr_list_rr_count(actual));
    for (size_t i = 0; i < ldns_rr_list_rr_count(expected); i++) {
        /* In canonical form: a name that points at the question has the client's spelling. */
        ldns_rr *a = ldns_rr_clone(ldns_rr_list_rr(expected, i));
        ldns_rr *b = ldns_rr_clone(ldns_rr_list_rr(actual, i));
        ldns_rr2canonical(a);
        ldns_rr2canonical(b);
        assert_int_equal(ldns_rr_ttl(a), ldns_rr_ttl(b));
        assert_int_equal(ldns_rr_compare(a, b), 0);
        ldns_rr_free(a);
        ldns_rr_free(b);
    }
}

static void ask_for_www(struct query_message *query, unsigned edns)
{
    static struct packet packet;
    enum rcode rcode;
    put_header(&packet, DNS_FLAG_RD, 1, 0, 0, edns);
    put_question(&packet, "wWw.eXample", TYPE_A);
    if (edns)
        put_opt(&packet, 1232, DNS_EDNS_FLAG_DO, 0);
    assert_int_equal(parse_exact(&packet, query, &rcode), QUERY_ACCEPT);
}

static struct query_message query;
static struct answer_scratch scratch;
static uint8_t reply_bytes[DNS_MESSAGE_MAX];

/* The records of an answer by libldns, through us, and read by libldns again. */
static void pass_on(const ldns_pkt *made)
{
    static struct packet packet;
    struct answer answer;
    write_with_ldns(made, &packet);
    ask_for_www(&query, random_below(2));
    uint8_t *bytes = exact_copy(packet.bytes, packet.length);
    assert_int_equal(message_check_answer(bytes, packet.length, &query.question, &scratch, &answer),
                     STATUS_OK);
    bool truncated;
    const struct reply reply = {.answer = &answer, .limit = DNS_MESSAGE_MAX};
    const size_t length = reply_write(&query, &reply, reply_bytes, &truncated);
    free(bytes);
    assert_false(truncated);
    ldns_pkt *parsed = parse_with_ldns(reply_bytes, length);
    assert_non_null(parsed);
    assert_same_question(parsed, query.spelling, &query.question);
    assert_int_equal(ldns_pkt_id(parsed), query.id);
    assert_true(ldns_pkt_qr(parsed));
    assert_int_equal(ldns_pkt_edns(parsed), query.has_edns);
    assert_int_equal(ldns_pkt_edns_do(parsed), query.question.dnssec_ok);
    assert_same_records(ldns_pkt_answer(made), ldns_pkt_answer(parsed));
    assert_same_records(ldns_pkt_authority(made), ldns_pkt_authority(parsed));
    assert_same_records(ldns_pkt_additional(made), ldns_pkt_additional(parsed));
    ldns_pkt_free(parsed);
}

static void G9_records_of_every_type_are_passed_on_unchanged(void **state)
{
    (void)state;
    assert_in_range(record_count, 45, TEXTS); /* an older libldns knows fewer */
    for (unsigned i = 0; i < ANSWERS; i++) {
        ldns_pkt *made = random_answer(i % record_count, i < record_count ? 1 : 30);
        pass_on(made);
        ldns_pkt_free(made);
    }
}

/* Gives the records that are opaque to us a type that libldns does not know either. */
static void hide_opaque_records(struct packet *packet, const struct answer *answer, size_t body)
{
    for (size_t i = 0; i < answer->ttl_count; i++) {
        uint8_t *type = packet->bytes + body + answer->ttl_offsets[i] - 4;
        if (!is_checked_by_us(load_u16(type), load_u16(type + 2)))
            store_u16(type, TYPE_UNKNOWN);
    }
}

static void G1_a_damaged_answer_that_we_accept_is_one_that_ldns_can_read(void **state)
{
    (void)state;
    static struct packet whole;
    static struct packet packet;
    struct answer answer;
    unsigned accepted = 0;
    ask_for_www(&query, 1);
    const size_t body = DNS_HEADER_SIZE + (size_t)query.question.name_length + DNS_QUESTION_TAIL;
    for (unsigned i = 0; i < ANSWERS; i++) {
        ldns_pkt *made = random_answer(random_below((unsigned)record_count), 10);
        write_with_ldns(made, &whole);
        ldns_pkt_free(made);
        for (unsigned j = 0; j < MUTATIONS; j++) {
            packet = (struct packet){.length = whole.length};
            memcpy(packet.bytes, whole.bytes, whole.length);
            mutate(&packet, 1 + random_below(4));
            uint8_t *bytes = exact_copy(packet.bytes, packet.length);
            const enum status status =
                message_check_answer(bytes, packet.length, &query.question, &scratch, &answer);
            free(bytes);
            if (status != STATUS_OK)
                continue;
            accepted++;
            hide_opaque_records(&packet, &answer, body);
            ldns_pkt *parsed = parse_with_ldns(packet.bytes, packet.length);
            assert_non_null(parsed);
            assert_int_equal(ldns_pkt_ancount(parsed), answer.answer_count);
            assert_int_equal(ldns_pkt_nscount(parsed), answer.authority_count);
            ldns_pkt_free(parsed);
        }
    }
    assert_in_range(accepted, ANSWERS, ANSWERS * MUTATIONS - ANSWERS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(RFC1035_a_query_that_we_accept_reads_the_same_with_ldns, seed),
        cmocka_unit_test_setup(RFC8467_a_query_that_we_build_reads_the_same_with_ldns, seed),
        cmocka_unit_test_setup_teardown(G9_records_of_every_type_are_passed_on_unchanged,
                                        read_records, free_records),
        cmocka_unit_test_setup_teardown(
            G1_a_damaged_answer_that_we_accept_is_one_that_ldns_can_read, read_records,
            free_records),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
