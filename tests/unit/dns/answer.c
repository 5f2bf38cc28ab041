// SPDX-License-Identifier: Apache-2.0
/* Answers of upstreams checked: bounds, names, what is kept and for how long. */
#include "test.h"

#include <time.h>

#include "packet.h"

static struct packet packet;
static struct answer_scratch scratch;
static struct answer answer;
static struct question question;
static uint8_t *checked; /* what `answer` points into */

enum { ANSWER_FLAGS = DNS_FLAG_QR | DNS_FLAG_RD | DNS_FLAG_RA };

/* An answer to "www.example" with so many records, which the test then writes. */
static void begin_flags(unsigned flags, unsigned type, unsigned answers, unsigned authorities,
                        unsigned additionals)
{
    question = question_of("www.example", type);
    put_header(&packet, flags, 1, answers, authorities, additionals);
    put_question(&packet, "www.example", type);
}

static void begin(unsigned type, unsigned answers, unsigned authorities, unsigned additionals)
{
    begin_flags(ANSWER_FLAGS, type, answers, authorities, additionals);
}

/* Checks `packet` in memory without an octet to spare. */
static enum status check(void)
{
    free(checked);
    checked = exact_copy(packet.bytes, packet.length);
    memset(&scratch, 0xa5, sizeof scratch);
    return message_check_answer(checked, packet.length, &question, &scratch, &answer);
}

static void put_a(uint32_t ttl)
{
    put_pointer(&packet, QUESTION_POINTER);
    put_record(&packet, TYPE_A, ttl, 4);
    put_u32(&packet, 0x0a000001);
}

static void put_cname(const char *owner, const char *target, uint32_t ttl)
{
    put_name(&packet, owner);
    const size_t data = packet_begin_record(&packet, TYPE_CNAME, ttl);
    put_name(&packet, target);
    packet_end_record(&packet, data);
}

static void put_soa(uint32_t ttl, uint32_t minimum)
{
    put_name(&packet, "example");
    const size_t data = packet_begin_record(&packet, TYPE_SOA, ttl);
    put_name(&packet, "ns.example");
    put_name(&packet, "hostmaster.example");
    put_zeros(&packet, 16);
    put_u32(&packet, minimum);
    packet_end_record(&packet, data);
}

/* One record of the question's name with the given RDATA. */
static enum status check_rdata(unsigned type, const void *data, size_t length)
{
    begin(type, 1, 0, 0);
    put_pointer(&packet, QUESTION_POINTER);
    put_record(&packet, type, 60, length);
    put_bytes(&packet, data, length);
    return check();
}

static void RFC1035_answer_is_taken(void **state)
{
    (void)state;
    begin_flags(0xffff & ~DNS_OPCODE_MASK & ~DNS_RCODE_MASK & ~DNS_FLAG_TC, TYPE_A, 2, 1, 1);
    const size_t body = packet.length;
    put_a(300);
    put_a(200);
    put_soa(900, 100);
    put_name(&packet, "ns.example");
    put_record(&packet, TYPE_A, 250, 4);
    put_u32(&packet, 1);
    assert_int_equal(check(), STATUS_OK);
    assert_int_equal(answer.kind, ANSWER_POSITIVE);
    assert_int_equal(answer.flags, DNS_FLAG_AA | DNS_FLAG_RA | DNS_FLAG_AD);
    assert_int_equal(answer.rcode, RCODE_NOERROR);
    assert_int_equal(answer.answer_count, 2);
    assert_int_equal(answer.authority_count, 1);
    assert_int_equal(answer.additional_count, 1);
    assert_int_equal(answer.ttl_s, 200); /* the SOA's MINIMUM is for negative answers */
    assert_ptr_equal(answer.body, checked + body);
    assert_int_equal(answer.body_length, packet.length - body);
    assert_int_equal(answer.extended_errors_length, 0);
    assert_false(answer.has_keepalive);
    assert_false(answer.has_padding);
    const uint32_t ttls[] = {300, 200, 900, 250};
    assert_int_equal(answer.ttl_count, 4);
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(load_u32(answer.body + answer.ttl_offsets[i]), ttls[i]);
}

static void G1_what_is_no_answer_is_malformed(void **state)
{
    (void)state;
    struct answer untouched;
    memset(&answer, 0xa5, sizeof answer);
    memset(&untouched, 0xa5, sizeof untouched);
    for (size_t length = 0; length < DNS_HEADER_SIZE; length++) {
        begin(TYPE_A, 0, 0, 0);
        packet.length = length;
        assert_int_equal(check(), STATUS_MALFORMED);
    }
    begin_flags(DNS_FLAG_RD, TYPE_A, 0, 0, 0); /* QR=0 */
    assert_int_equal(check(), STATUS_MALFORMED);
    for (unsigned opcode = 1; opcode <= 15; opcode++) {
        begin_flags(ANSWER_FLAGS | opcode << DNS_OPCODE_SHIFT, TYPE_A, 0, 0, 0);
        assert_int_equal(check(), STATUS_MALFORMED);
    }
    begin(TYPE_A, 0, 0, 0);
    put_zeros(&packet, DNS_MESSAGE_MAX + 1 - packet.length);
    assert_int_equal(check(), STATUS_MALFORMED);
    assert_memory_equal(&answer, &untouched, sizeof answer);
}

static void G1_two_questions_are_malformed(void **state)
{
    (void)state;
    begin(TYPE_A, 0, 0, 0);
    store_u16(packet.bytes + 4, 2);
    put_question(&packet, "www.example", TYPE_A);
    assert_int_equal(check(), STATUS_MALFORMED);
}

static void G1_malformed_question_is_malformed(void **state)
{
    (void)state;
    begin(TYPE_A, 0, 0, 0);
    const size_t whole = packet.length;
    for (packet.length = DNS_HEADER_SIZE; packet.length < whole; packet.length++)
        assert_int_equal(check(), STATUS_MALFORMED);
    begin(TYPE_A, 0, 0, 0);
    packet.bytes[DNS_HEADER_SIZE] = 64;
    assert_int_equal(check(), STATUS_MALFORMED);
    packet.bytes[DNS_HEADER_SIZE] = 0xc0;
    assert_int_equal(check(), STATUS_MALFORMED);
}

static void G4_answer_without_a_question_is_not_found(void **state)
{
    (void)state;
    const unsigned rcodes[] = {RCODE_NOERROR, RCODE_FORMERR, RCODE_NXDOMAIN, RCODE_REFUSED};
    for (size_t i = 0; i < sizeof rcodes / sizeof rcodes[0]; i++) {
        question = question_of("www.example", TYPE_A);
        put_header(&packet, ANSWER_FLAGS | rcodes[i], 0, 0, 0, 0);
        assert_int_equal(check(), STATUS_NOT_FOUND);
    }
}

static void F12_answer_to_another_question_is_not_found(void **state)
{
    (void)state;
    begin(TYPE_A, 1, 0, 0);
    put_a(60);
    assert_int_equal(check(), STATUS_OK);
    question.type = TYPE_AAAA;
    assert_int_equal(check(), STATUS_NOT_FOUND);
    question.type = TYPE_A, question.class = CLASS_CH;
    assert_int_equal(check(), STATUS_NOT_FOUND);
    question = question_of("www.example.org", TYPE_A);
    assert_int_equal(check(), STATUS_NOT_FOUND);
    question = question_of("www", TYPE_A);
    assert_int_equal(check(), STATUS_NOT_FOUND);
    for (size_t i = 1; i < 12; i++) {
        question = question_of("www.example", TYPE_A);
        question.name[i] ^= i == 4 ? 0 : 1;
        assert_int_equal(check(), i == 4 ? STATUS_OK : STATUS_NOT_FOUND);
    }
}

static void RFC4343_question_is_compared_without_case(void **state)
{
    (void)state;
    put_header(&packet, ANSWER_FLAGS, 1, 1, 0, 0);
    put_question(&packet, "wWw.EXAMPLE", TYPE_A);
    question = question_of("www.example", TYPE_A);
    put_a(60);
    assert_int_equal(check(), STATUS_OK);
    assert_int_equal(answer.kind, ANSWER_POSITIVE);
    /* '[' and '{' differ by the same bit as letters do. */
    put_header(&packet, ANSWER_FLAGS, 1, 0, 0, 0);
    put_question(&packet, "[23456789", TYPE_A);
    question = question_of("{23456789", TYPE_A);
    assert_int_equal(check(), STATUS_NOT_FOUND);
}

static void G1_answer_cut_anywhere_is_malformed(void **state)
{
    (void)state;
    begin(TYPE_A, 2, 1, 2);
    put_cname("www.example", "www.example.net", 60);
    put_name(&packet, "www.example.net");
    put_record(&packet, TYPE_A, 60, 4);
    put_u32(&packet, 1);
    put_soa(60, 60);
    put_labels(&packet, "x");
    put_pointer(&packet, QUESTION_POINTER);
    put_record(&packet, 65280, 60, 5);
    put_bytes(&packet, "12345", 5);
    put_opt(&packet, 1232, 0, 6);
    put_option(&packet, OPTION_KEEPALIVE, "\1\2", 2);
    assert_int_equal(check(), STATUS_OK);
    while (packet.length-- > DNS_HEADER_SIZE)
        assert_int_equal(check(), STATUS_MALFORMED);
}

static void G1_counts_larger_than_the_data_are_malformed(void **state)
{
    (void)state;
    for (size_t field = 6; field <= 10; field += 2) {
        begin(TYPE_A, 1, 0, 0);
        put_a(60);
        store_u16(packet.bytes + field, (uint16_t)(load_u16(packet.bytes + field) + 1));
        assert_int_equal(check(), STATUS_MALFORMED);
        store_u16(packet.bytes + field, 65535);
        assert_int_equal(check(), STATUS_MALFORMED);
    }
}

static void G1_bytes_after_the_last_record_are_not_passed_on(void **state)
{
    (void)state;
    begin(TYPE_A, 1, 0, 0);
    const size_t body = packet.length;
    put_a(60);
    const size_t end = packet.length;
    put_bytes(&packet, "trailing", 8);
    assert_int_equal(check(), STATUS_OK);
    assert_int_equal(answer.body_length, end - body);
}

static void G1_pointers_lead_backward_to_names_only(void **state)
{
    (void)state;
    /* 12 to 24 is the question's name, 29 the first record, 41 its address 10.0.0.1, 45 the second.
     * Good are the labels of the question, the first owner, and what reads as a name by chance: 30
     * as a label of 12 octets up to the root at 43, and the zeros of the address. */
    const size_t good[] = {12, 16, 24, 29, 30, 42, 43};
    size_t next = 0;
    for (size_t target = 0; target <= 61; target++) {
        begin(TYPE_A, 2, 0, 0);
        put_a(60);
        assert_int_equal(packet.length, 45);
        put_pointer(&packet, target);
        put_record(&packet, TYPE_A, 0, 4);
        put_u32(&packet, 0);
        const bool is_good = next < sizeof good / sizeof good[0] && good[next] == target;
        next += is_good;
        assert_int_equal(check(), is_good ? STATUS_OK : STATUS_MALFORMED);
    }
    assert_int_equal(next, sizeof good / sizeof good[0]);
}

static void G1_name_over_255_through_a_pointer_is_malformed(void **state)
{
    (void)state;
    for (unsigned labels = 120; labels <= 127; labels++) {
        begin(TYPE_A, 2, 0, 0);
        const size_t target = packet.length;
        for (unsigned i = 0; i < 60; i++)
            put_labels(&packet, "x");
        put_u8(&packet, 0);
        put_record(&packet, TYPE_A, 60, 4);
        put_u32(&packet, 0);
        for (unsigned i = 60; i < labels; i++)
            put_labels(&packet, "y");
        put_labels(&packet, "z");
        put_pointer(&packet, target);
        put_record(&packet, TYPE_A, 60, 4);
        put_u32(&packet, 0);
        assert_int_equal(check(), labels < 127 ? STATUS_OK : STATUS_MALFORMED);
    }
}

static void G1_names_over_their_limits_are_malformed(void **state)
{
    (void)state;
    for (unsigned label = 1; label <= 255; label++) {
        begin(TYPE_A, 1, 0, 0);
        put_u8(&packet, label);
        put_zeros(&packet, label);
        put_u8(&packet, 0);
        put_record(&packet, TYPE_A, 0, 4);
        put_u32(&packet, 0);
        assert_int_equal(check(), label <= DNS_LABEL_MAX ? STATUS_OK : STATUS_MALFORMED);
    }
    for (unsigned last = 60; last <= 63; last++) {
        begin(TYPE_A, 1, 0, 0);
        for (unsigned i = 0; i < 4; i++) {
            put_u8(&packet, i == 3 ? last : 63);
            put_zeros(&packet, i == 3 ? last : 63);
        }
        put_u8(&packet, 0);
        put_record(&packet, TYPE_A, 0, 4);
        put_u32(&packet, 0);
        assert_int_equal(check(), last <= 61 ? STATUS_OK : STATUS_MALFORMED);
    }
}

static void G1_record_past_the_end_is_malformed(void **state)
{
    (void)state;
    begin(65280, 1, 0, 0);
    put_pointer(&packet, QUESTION_POINTER);
    put_record(&packet, 65280, 60, 6);
    put_zeros(&packet, 5);
    assert_int_equal(check(), STATUS_MALFORMED);
    put_u8(&packet, 0);
    assert_int_equal(check(), STATUS_OK);
}

/* RDATA of a type that has names: its layout, as octets before, strings, names, octets after. */
struct layout {
    unsigned type;
    unsigned before;
    unsigned strings;
    unsigned names;
    unsigned after;
    bool open_end;
};

static const struct layout layouts[] = {
    {TYPE_A, 4, 0, 0, 0, false},     {TYPE_AAAA, 16, 0, 0, 0, false},
    {TYPE_NS, 0, 0, 1, 0, false},    {TYPE_MD, 0, 0, 1, 0, false},
    {TYPE_MF, 0, 0, 1, 0, false},    {TYPE_CNAME, 0, 0, 1, 0, false},
    {TYPE_SOA, 0, 0, 2, 20, false},  {TYPE_MB, 0, 0, 1, 0, false},
    {TYPE_MG, 0, 0, 1, 0, false},    {TYPE_MR, 0, 0, 1, 0, false},
    {TYPE_PTR, 0, 0, 1, 0, false},   {TYPE_MINFO, 0, 0, 2, 0, false},
    {TYPE_MX, 2, 0, 1, 0, false},    {TYPE_RP, 0, 0, 2, 0, false},
    {TYPE_AFSDB, 2, 0, 1, 0, false}, {TYPE_RT, 2, 0, 1, 0, false},
    {TYPE_SIG, 18, 0, 1, 0, true},   {TYPE_PX, 2, 0, 2, 0, false},
    {TYPE_NXT, 0, 0, 1, 0, true},    {TYPE_SRV, 6, 0, 1, 0, false},
    {TYPE_NAPTR, 4, 3, 1, 0, false}, {TYPE_KX, 2, 0, 1, 0, false},
    {TYPE_DNAME, 0, 0, 1, 0, false}, {TYPE_RRSIG, 18, 0, 1, 0, true},
};

enum { LAYOUTS = sizeof layouts / sizeof layouts[0] };

static struct packet rdata;

/* RDATA of the layout; its last name ends in `tail`, a label, pointer or root. */
static void build_rdata(const struct layout *layout, const void *tail, size_t tail_length)
{
    rdata.length = layout->before;
    memset(rdata.bytes, 0xff, layout->before);
    for (unsigned i = 0; i < layout->strings; i++)
        put_bytes(&rdata, "\3abc", 4);
    for (unsigned i = 1; i < layout->names; i++)
        put_name(&rdata, "first.name");
    if (layout->names > 0) {
        put_labels(&rdata, "last");
        put_bytes(&rdata, tail, tail_length);
    }
    put_zeros(&rdata, layout->after);
}

static void G1_rdata_with_names_has_exactly_its_length(void **state)
{
    (void)state;
    for (size_t i = 0; i < LAYOUTS; i++) {
        const struct layout *layout = &layouts[i];
        build_rdata(layout, "", 1);
        assert_int_equal(check_rdata(layout->type, rdata.bytes, rdata.length), STATUS_OK);
        for (size_t length = 0; length < rdata.length; length++)
            assert_int_equal(check_rdata(layout->type, rdata.bytes, length), STATUS_MALFORMED);
        put_u8(&rdata, 0);
        assert_int_equal(check_rdata(layout->type, rdata.bytes, rdata.length),
                         layout->open_end ? STATUS_OK : STATUS_MALFORMED);
    }
}

static void G1_pointers_in_rdata_are_checked(void **state)
{
    (void)state;
    for (size_t i = 0; i < LAYOUTS; i++) {
        const struct layout *layout = &layouts[i];
        if (layout->names == 0)
            continue;
        build_rdata(layout, "\xc0\x0c", 2); /* the question */
        assert_int_equal(check_rdata(layout->type, rdata.bytes, rdata.length), STATUS_OK);
        build_rdata(layout, "\xff\xff", 2); /* forward */
        assert_int_equal(check_rdata(layout->type, rdata.bytes, rdata.length), STATUS_MALFORMED);
        build_rdata(layout, "\xc0\x00", 2); /* the header */
        assert_int_equal(check_rdata(layout->type, rdata.bytes, rdata.length), STATUS_MALFORMED);
        build_rdata(layout, "\x40", 1);
        assert_int_equal(check_rdata(layout->type, rdata.bytes, rdata.length), STATUS_MALFORMED);
    }
}

static void RFC3597_addresses_of_other_classes_are_opaque(void **state)
{
    (void)state;
    begin(TYPE_A, 1, 0, 0);
    packet.bytes[packet.length - 1] = CLASS_CH;
    question.class = CLASS_CH;
    put_pointer(&packet, QUESTION_POINTER);
    put_record(&packet, TYPE_A, 60, 3);
    packet.bytes[packet.length - 7] = CLASS_CH;
    put_zeros(&packet, 3);
    assert_int_equal(check(), STATUS_OK);
}

static void G9_RFC3597_other_types_are_opaque(void **state)
{
    (void)state;
    static uint8_t octets[65535 - 29 - 12];
    for (size_t i = 0; i < sizeof octets; i++)
        octets[i] = (uint8_t)(0xff - i * 31);
    const unsigned types[] = {TYPE_HINFO, TYPE_TXT, 20,  43,  47,    48,    50,   52,
                              55,         61,       64,  65,  99,    108,   128,  256,
                              257,        258,      261, 262, 32768, 65280, 65534};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        const size_t lengths[] = {0, 1, 255, 16384, sizeof octets};
        for (size_t j = 0; j < 5; j++) {
            assert_int_equal(check_rdata(types[i], octets, lengths[j]), STATUS_OK);
            assert_int_equal(answer.body_length, 12 + lengths[j]);
            assert_memory_equal(answer.body + 12, octets, lengths[j]);
        }
    }
}

static void G9_as_many_records_as_fit_are_taken(void **state)
{
    (void)state;
    question = question_of("", 65280);
    put_header(&packet, ANSWER_FLAGS, 1, 0, 0, 0);
    put_question(&packet, "", 65280);
    unsigned count = 0;
    for (; packet.length + 11 <= DNS_MESSAGE_MAX; count++) {
        put_u8(&packet, 0);
        put_record(&packet, 65280, count + 1, 0);
    }
    assert_true(count > 5900 && count <= ANSWER_TTLS_MAX);
    store_u16(packet.bytes + 6, (uint16_t)count);
    assert_int_equal(check(), STATUS_OK);
    assert_int_equal(answer.ttl_count, count);
    assert_int_equal(answer.ttl_s, 1);
    for (unsigned i = 0; i < count; i++)
        assert_int_equal(load_u32(answer.body + answer.ttl_offsets[i]), i + 1);
}

/* The least of several runs: what else the machine does is not our matter. */
static double seconds_to_check(void)
{
    double least = 1e9;
    for (unsigned i = 0; i < 7; i++) {
        struct timespec before;
        struct timespec after;
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &before);
        const enum status status =
            message_check_answer(packet.bytes, packet.length, &question, &scratch, &answer);
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &after);
        assert_int_equal(status, STATUS_OK);
        const double seconds =
            (double)(after.tv_sec - before.tv_sec) + (double)(after.tv_nsec - before.tv_nsec) / 1e9;
        least = seconds < least ? seconds : least;
    }
    return least;
}

/* 126 labels of one octet, each followed by a pointer to the one before, inside an opaque record:
 * the name that takes the most steps. Returns the offset of its first label. */
static size_t put_worst_name(void)
{
    put_pointer(&packet, QUESTION_POINTER);
    put_record(&packet, 65280, 60, 1 + 126 * 4);
    size_t next = packet.length;
    put_u8(&packet, 0);
    for (unsigned i = 0; i < 126; i++) {
        const size_t label = packet.length;
        put_labels(&packet, "x");
        put_pointer(&packet, next);
        next = label;
    }
    return next;
}

static double seconds_with_pointers_to(size_t target)
{
    begin(65280, 0, 0, 0);
    const size_t worst = put_worst_name();
    unsigned count = 1;
    for (; packet.length + 12 <= DNS_MESSAGE_MAX; count++) {
        put_pointer(&packet, target ? target : worst);
        put_record(&packet, 65280, 60, 0);
    }
    store_u16(packet.bytes + 6, (uint16_t)count);
    return seconds_to_check();
}

static void G2_compression_bomb_costs_no_more_than_any_message(void **state)
{
    (void)state;
    const double plain = seconds_with_pointers_to(QUESTION_POINTER);
    assert_true(seconds_with_pointers_to(0) < 8 * plain);
}

static void G2_pointers_to_pointers_are_bounded(void **state)
{
    (void)state;
    /* An opaque record of nothing but pointers, each to the one before, the first to the root. */
    for (unsigned depth = 1; depth <= 200; depth++) {
        begin(65280, 2, 0, 0);
        put_pointer(&packet, QUESTION_POINTER);
        put_record(&packet, 65280, 60, 1 + 2 * depth);
        put_u8(&packet, 0);
        put_pointer(&packet, packet.length - 1);
        for (unsigned i = 1; i < depth; i++)
            put_pointer(&packet, packet.length - 2);
        put_pointer(&packet, packet.length - 2);
        put_record(&packet, 65280, 60, 0);
        assert_int_equal(check(), depth < 127 ? STATUS_OK : STATUS_MALFORMED);
    }
}

static void G2_chain_of_a_thousand_cnames_costs_little(void **state)
{
    (void)state;
    begin(TYPE_A, 0, 0, 0);
    unsigned count = 0;
    for (; packet.length + 14 <= DNS_MESSAGE_MAX; count++) {
        put_pointer(&packet, QUESTION_POINTER);
        put_record(&packet, TYPE_CNAME, 60, 2);
        put_pointer(&packet, QUESTION_POINTER);
    }
    store_u16(packet.bytes + 6, (uint16_t)count);
    assert_true(seconds_to_check() < 0.5);
    assert_int_equal(answer.kind, ANSWER_NEGATIVE);
    assert_int_equal(answer.ttl_s, 0);
}

static void G2_comparing_names_stops_at_a_budget(void **state)
{
    (void)state;
    /* Two equal names of 127 labels, spelled out twice, and thousands of CNAMEs between them. */
    begin(TYPE_A, 0, 0, 0);
    size_t names[2];
    for (unsigned i = 0; i < 2; i++) {
        names[i] = packet.length;
        for (unsigned j = 0; j < 127; j++)
            put_labels(&packet, "x");
        put_u8(&packet, 0);
        put_record(&packet, 65280, 60, 0);
    }
    put_pointer(&packet, QUESTION_POINTER);
    put_record(&packet, TYPE_CNAME, 60, 2);
    put_pointer(&packet, names[0]);
    unsigned count = 3;
    for (; packet.length + 14 <= DNS_MESSAGE_MAX; count++) {
        put_pointer(&packet, names[1]);
        put_record(&packet, TYPE_CNAME, 60, 2);
        put_pointer(&packet, names[0]);
    }
    store_u16(packet.bytes + 6, (uint16_t)count);
    assert_true(seconds_to_check() < 0.5);
    assert_int_equal(answer.ttl_s, 0);
}

static void G2_pointers_cost_as_much_as_labels(void **state)
{
    (void)state;
    /* Thousands of CNAMEs, each of whose owners points to the one before, ahead of the answer. */
    begin(TYPE_A, 0, 0, 0);
    size_t owner = packet.length;
    unsigned count = 1;
    put_labels(&packet, "x");
    put_u8(&packet, 0);
    put_record(&packet, TYPE_CNAME, 60, 2);
    put_pointer(&packet, QUESTION_POINTER);
    for (; packet.length + 30 <= DNS_MESSAGE_MAX; count++) {
        const size_t here = packet.length;
        put_pointer(&packet, owner);
        put_record(&packet, TYPE_CNAME, 60, 2);
        put_pointer(&packet, QUESTION_POINTER);
        if (here < DNS_POINTER_REACH)
            owner = here;
    }
    const struct packet before = packet;
    for (unsigned i = 0; i < question.name_length; i++)
        put_u8(&packet, question.name[i]);
    put_record(&packet, TYPE_A, 60, 4);
    put_u32(&packet, 0x0a000001);
    store_u16(packet.bytes + 6, (uint16_t)(count + 1));
    assert_int_equal(check(), STATUS_OK);
    assert_int_equal(answer.kind, ANSWER_NEGATIVE); /* given up: not found, and not kept */
    assert_int_equal(answer.ttl_s, 0);
    /* One that stands at the question's own name needs no comparing. */
    packet = before;
    put_a(60);
    store_u16(packet.bytes + 6, (uint16_t)(count + 1));
    assert_int_equal(check(), STATUS_OK);
    assert_int_equal(answer.kind, ANSWER_POSITIVE);
    assert_int_equal(answer.ttl_s, 60);
}

static void G2_no_label_starts_in_a_ttl(void **state)
{
    (void)state;
    /* TTL 0 reads as the root; it would not when it is another number. */
    begin(TYPE_A, 2, 0, 0);
    put_a(0);
    const size_t ttl = packet.length - 10;
    put_pointer(&packet, ttl);
    put_record(&packet, TYPE_A, 60, 4);
    put_u32(&packet, 0);
    assert_int_equal(check(), STATUS_MALFORMED);
}

static void G2_names_beyond_the_reach_of_pointers_are_checked(void **state)
{
    (void)state;
    /* Every part of a record lies once across the end of the reach. */
    for (size_t before = 0; before <= 60; before++) {
        begin(TYPE_A, 3, 0, 0);
        put_pointer(&packet, QUESTION_POINTER);
        const size_t filler = DNS_POINTER_REACH - packet.length - 10 - before;
        put_record(&packet, 65280, 60, filler);
        put_zeros(&packet, filler);
        for (unsigned i = 0; i < 2; i++) {
            put_labels(&packet, "far.away");
            put_pointer(&packet, QUESTION_POINTER);
            put_record(&packet, TYPE_A, 60, 4);
            put_u32(&packet, 0);
        }
        assert_int_equal(check(), STATUS_OK);
        packet.bytes[packet.length - 25] = 64;
        assert_int_equal(check(), STATUS_MALFORMED);
    }
}

static void RFC6891_opt_is_taken_off(void **state)
{
    (void)state;
    begin_flags(ANSWER_FLAGS | 7, TYPE_A, 1, 0, 2);
    const size_t body = packet.length;
    put_a(60);
    put_name(&packet, "x.example");
    put_record(&packet, TYPE_A, 50, 4);
    put_u32(&packet, 0);
    const size_t end = packet.length;
    put_opt(&packet, 1232, 0xab000000 | DNS_EDNS_FLAG_DO, 4 + 100 + 6 + 8);
    put_u16(&packet, OPTION_PADDING);
    put_u16(&packet, 100);
    put_zeros(&packet, 100);
    put_option(&packet, OPTION_KEEPALIVE, "\1\2", 2);
    put_option(&packet, OPTION_EXTENDED_ERROR, "\0\3hi", 4);
    assert_int_equal(check(), STATUS_OK);
    assert_int_equal(answer.rcode, 0xab7);
    assert_int_equal(answer.additional_count, 1);
    assert_int_equal(answer.body_length, end - body);
    assert_int_equal(answer.ttl_count, 2);
    assert_true(answer.has_padding);
    assert_true(answer.has_keepalive);
    assert_int_equal(answer.keepalive_100ms, 0x102);
    assert_int_equal(answer.extended_errors_length, 8);
    assert_memory_equal(answer.extended_errors, "\0\17\0\4\0\3hi", 8);
}

static void RFC6891_records_after_the_opt_are_checked_but_left_out(void **state)
{
    (void)state;
    begin(TYPE_A, 1, 0, 3);
    put_a(60);
    put_pointer(&packet, QUESTION_POINTER);
    put_record(&packet, TYPE_AAAA, 70, 16);
    put_zeros(&packet, 16);
    put_opt(&packet, 1232, 0, 0);
    put_pointer(&packet, QUESTION_POINTER);
    put_record(&packet, TYPE_A, 1, 4);
    put_u32(&packet, 0);
    assert_int_equal(check(), STATUS_OK);
    assert_int_equal(answer.additional_count, 1);
    assert_int_equal(answer.body_length, 16 + 28);
    assert_int_equal(answer.ttl_count, 2);
    assert_int_equal(answer.ttl_s, 60);
    packet.length--;
    assert_int_equal(check(), STATUS_MALFORMED);
}

static void RFC6891_misplaced_opt_is_malformed(void **state)
{
    (void)state;
    begin(TYPE_A, 0, 0, 2);
    put_opt(&packet, 1232, 0, 0);
    put_opt(&packet, 1232, 0, 0);
    assert_int_equal(check(), STATUS_MALFORMED);
    begin(TYPE_A, 1, 0, 0);
    put_opt(&packet, 1232, 0, 0);
    assert_int_equal(check(), STATUS_MALFORMED);
    begin(TYPE_A, 0, 1, 0);
    put_opt(&packet, 1232, 0, 0);
    assert_int_equal(check(), STATUS_MALFORMED);
    begin(TYPE_A, 0, 0, 1);
    put_pointer(&packet, QUESTION_POINTER);
    put_record(&packet, TYPE_OPT, 0, 0);
    assert_int_equal(check(), STATUS_MALFORMED);
    begin(TYPE_A, 0, 0, 1); /* an option past RDLENGTH */
    put_opt(&packet, 1232, 0, 5);
    put_u32(&packet, OPTION_NSID << 16 | 2);
    put_u8(&packet, 0);
    assert_int_equal(check(), STATUS_MALFORMED);
    begin(TYPE_A, 0, 0, 1); /* less than an option */
    put_opt(&packet, 1232, 0, 3);
    put_zeros(&packet, 3);
    assert_int_equal(check(), STATUS_MALFORMED);
}

static void RFC7828_keepalive_that_is_no_timeout_is_ignored(void **state)
{
    (void)state;
    for (size_t length = 0; length <= 4; length++) {
        begin(TYPE_A, 1, 0, 1);
        put_a(60);
        put_opt(&packet, 1232, 0, 4 + length);
        put_option(&packet, OPTION_KEEPALIVE, "\0\0\0\0", length);
        assert_int_equal(check(), STATUS_OK);
        assert_int_equal(answer.has_keepalive, length == 2);
        assert_int_equal(answer.answer_count, 1);
    }
}

static void RFC6891_option_of_an_illegal_length_costs_no_answer(void **state)
{
    (void)state;
    static const uint8_t data[300];
    for (uint16_t option = 0; option < 20; option++)
        for (size_t length = 0; length <= sizeof(data); length++) {
            begin(TYPE_A, 1, 0, 1);
            put_a(60);
            put_opt(&packet, 1232, 0, 4 + length);
            put_option(&packet, option, data, length);
            assert_int_equal(check(), STATUS_OK);
            packet.length--; /* but one that is not whole does */
            assert_int_equal(check(), STATUS_MALFORMED);
        }
}

static void RFC8914_extended_errors_keep_their_codes_as_room_lasts(void **state)
{
    (void)state;
    static uint8_t text[702];
    memset(text + 2, 'x', 700);
    begin(TYPE_A, 0, 0, 1);
    put_opt(&packet, 1232, 0, 5 + 3 * 706 + 8);
    put_option(&packet, OPTION_EXTENDED_ERROR, "\0", 1); /* too short to be one */
    for (text[1] = 1; text[1] <= 3; text[1]++)
        put_option(&packet, OPTION_EXTENDED_ERROR, text, sizeof(text));
    put_option(&packet, OPTION_EXTENDED_ERROR, "\0\4\xff\xfe", 4);
    assert_int_equal(check(), STATUS_OK);
    assert_int_equal(answer.extended_errors_length, ANSWER_EXTENDED_ERRORS_MAX);
    const size_t first = ANSWER_EXTENDED_ERRORS_MAX - 18;
    assert_int_equal(load_u16(answer.extended_errors + 2), first - 4);
    assert_memory_equal(answer.extended_errors + first, "\0\17\0\2\0\2\0\17\0\2\0\3\0\17\0\2\0\4",
                        18);
}

static void H3_RFC2181_ttl_is_the_least_and_0_with_the_top_bit(void **state)
{
    (void)state;
    const struct {
        uint32_t ttl;
        uint32_t expected;
    } cases[] = {{0, 0},          {1, 1},         {3600, 3600}, {86400, 7000}, {0x7fffffff, 7000},
                 {0x80000000, 0}, {0xffffffff, 0}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        begin(TYPE_A, 2, 0, 0);
        put_a(7000);
        put_a(cases[i].ttl);
        assert_int_equal(check(), STATUS_OK);
        assert_int_equal(answer.ttl_s, cases[i].expected);
    }
    begin(TYPE_A, 1, 0, 0);
    put_a(0x7fffffff);
    assert_int_equal(check(), STATUS_OK);
    assert_int_equal(answer.ttl_s, 0x7fffffff);
}

static void put_proof(unsigned type, uint32_t ttl)
{
    put_name(&packet, "example");
    put_record(&packet, type, ttl, 4);
    put_zeros(&packet, 4);
}

static void put_signature(unsigned covered, uint32_t ttl)
{
    put_name(&packet, "example");
    put_record(&packet, TYPE_RRSIG, ttl, 19);
    put_u16(&packet, covered);
    put_zeros(&packet, 17);
}

/* Up to `end`, an offset in the packet, the records are needed, and `ttl_s` is what they give. */
static void assert_needed(size_t end, uint32_t ttl_s)
{
    assert_int_equal(check(), STATUS_OK);
    assert_ptr_equal(answer.body + answer.needed_length, checked + end);
    assert_int_equal(answer.ttl_s, ttl_s);
}

static void A19_H14_answer_section_alone_is_needed_and_decides(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        begin(TYPE_A, 2, 2, 1);
        question.dnssec_ok = i == 1;
        put_a(300);
        put_a(200);
        const size_t end = packet.length;
        put_soa(20, 10);
        put_signature(TYPE_NS, 20);
        put_a(0);
        assert_needed(end, 200);
    }
}

static void A19_H14_RFC4035_proofs_are_needed_with_DO(void **state)
{
    (void)state;
    const unsigned types[] = {TYPE_NSEC, TYPE_NSEC3};
    for (size_t i = 0; i < 4; i++) {
        begin(TYPE_A, 1, 3, 1);
        question.dnssec_ok = i % 2;
        put_a(300);
        const size_t answer_end = packet.length;
        put_proof(types[i / 2], 100);
        put_signature(types[i / 2], 90);
        const size_t end = packet.length;
        put_signature(TYPE_NS, 80);
        put_signature(types[i / 2], 70); /* none is needed in additional */
        assert_needed(i % 2 ? end : answer_end, i % 2 ? 90 : 300);
    }
}

static void A19_H14_RFC2308_soa_of_a_negative_answer_is_needed(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        begin(TYPE_A, 1, 4, 1);
        question.dnssec_ok = i == 1;
        put_cname("www.example", "a.example", 400);
        put_proof(65280, 170); /* goes with the SOA behind it, so that it must not end before it */
        put_soa(200, 900);
        const size_t soa_end = packet.length;
        put_signature(TYPE_SOA, 150);
        const size_t end = packet.length;
        put_proof(65280, 10);
        put_a(10);
        assert_needed(i ? end : soa_end, i ? 150 : 170);
    }
}

static void A19_all_of_a_referral_is_needed(void **state)
{
    (void)state;
    begin(TYPE_A, 0, 1, 1);
    put_cname("www.example", "a.example", 400);
    put_a(10);
    assert_needed(packet.length, 0);
}

static void RFC8945_records_of_the_transaction_are_left_out(void **state)
{
    (void)state;
    static const uint8_t data[19]; /* in a SIG: type covered 0, signer the root (RFC 2931) */
    const unsigned types[] = {TYPE_TSIG, TYPE_TKEY, TYPE_SIG};
    for (size_t i = 0; i < 3; i++) {
        begin_flags(ANSWER_FLAGS, TYPE_A, 1, 0, 4);
        put_a(60);
        put_a(50);
        const size_t end = packet.length;
        put_u8(&packet, 0);
        put_record(&packet, types[i], 0, sizeof data);
        put_bytes(&packet, data, sizeof data);
        put_a(40);
        put_opt(&packet, 1232, 0x01000000, 6); /* what it says still counts */
        put_option(&packet, OPTION_EXTENDED_ERROR, "\0\3", 2);
        assert_int_equal(check(), STATUS_OK);
        assert_ptr_equal(answer.body + answer.body_length, checked + end);
        assert_int_equal(answer.additional_count, 1);
        assert_int_equal(answer.ttl_count, 2);
        assert_int_equal(answer.rcode, 16);
        assert_int_equal(answer.extended_errors_length, 6);
        packet.length--;
        assert_int_equal(check(), STATUS_MALFORMED);
        for (unsigned section = 0; section < 2; section++) {
            begin(TYPE_A, section == 0, section == 1, 0);
            put_u8(&packet, 0);
            put_record(&packet, types[i], 0, sizeof data);
            put_bytes(&packet, data, sizeof data);
            assert_int_equal(check(), STATUS_MALFORMED);
        }
    }
}

static void H4_RFC2308_negative_ttl(void **state)
{
    (void)state;
    const unsigned rcodes[] = {RCODE_NOERROR, RCODE_NXDOMAIN};
    for (size_t i = 0; i < 2; i++) {
        begin_flags(ANSWER_FLAGS | rcodes[i], TYPE_A, 0, 1, 0);
        put_soa(900, 300);
        assert_int_equal(check(), STATUS_OK);
        assert_int_equal(answer.kind, ANSWER_NEGATIVE);
        assert_int_equal(answer.ttl_s, 300);

        begin_flags(ANSWER_FLAGS | rcodes[i], TYPE_A, 0, 1, 0);
        put_soa(200, 300);
        assert_int_equal(check(), STATUS_OK);
        assert_int_equal(answer.ttl_s, 200);

        begin_flags(ANSWER_FLAGS | rcodes[i], TYPE_A, 0, 1, 0);
        put_soa(200, 0xffffffff);
        assert_int_equal(check(), STATUS_OK);
        assert_int_equal(answer.ttl_s, 0);

        begin_flags(ANSWER_FLAGS | rcodes[i], TYPE_A, 0, 0, 0); /* no SOA */
        assert_int_equal(check(), STATUS_OK);
        assert_int_equal(answer.kind, ANSWER_NEGATIVE);
        assert_int_equal(answer.ttl_s, 0);

        begin_flags(ANSWER_FLAGS | rcodes[i], TYPE_A, 1, 0, 0); /* SOA in the wrong section */
        put_soa(200, 300);
        assert_int_equal(check(), STATUS_OK);
        assert_int_equal(answer.kind, ANSWER_NEGATIVE);
        assert_int_equal(answer.ttl_s, 0);

        begin_flags(ANSWER_FLAGS | rcodes[i], TYPE_A, 0, 2, 0); /* the lesser of two */
        put_soa(200, 90);
        put_soa(200, 100);
        assert_int_equal(check(), STATUS_OK);
        assert_int_equal(answer.ttl_s, 90);
    }
}

static void H4_chain_of_cnames_that_ends_nowhere_is_nodata(void **state)
{
    (void)state;
    begin(TYPE_A, 2, 1, 0);
    put_cname("www.example", "a.example", 400);
    put_cname("A.example", "b.example", 50);
    put_soa(900, 300);
    assert_int_equal(check(), STATUS_OK);
    assert_int_equal(answer.kind, ANSWER_NEGATIVE);
    assert_int_equal(answer.ttl_s, 50);

    begin(TYPE_CNAME, 2, 0, 0); /* asked for itself it is data */
    put_cname("www.example", "a.example", 400);
    put_cname("a.example", "b.example", 50);
    assert_int_equal(check(), STATUS_OK);
    assert_int_equal(answer.kind, ANSWER_POSITIVE);
    begin(TYPE_ANY, 1, 0, 0);
    put_cname("www.example", "a.example", 400);
    assert_int_equal(check(), STATUS_OK);
    assert_int_equal(answer.kind, ANSWER_POSITIVE);
}

static void put_a_of(const char *owner)
{
    put_name(&packet, owner);
    put_record(&packet, TYPE_A, 60, 4);
    put_u32(&packet, 0);
}

static void H4_chain_is_followed_in_any_order(void **state)
{
    (void)state;
    begin(TYPE_A, 3, 0, 0);
    put_a_of("B.Example");
    put_cname("a.example", "b.example", 60);
    put_cname("WWW.example", "A.EXAMPLE", 60);
    assert_int_equal(check(), STATUS_OK);
    assert_int_equal(answer.kind, ANSWER_POSITIVE);

    begin(TYPE_A, 4, 0, 0); /* RFC 6672 3.1: a DNAME brings its CNAME */
    put_name(&packet, "example");
    const size_t data = packet_begin_record(&packet, TYPE_DNAME, 60);
    put_name(&packet, "example.net");
    packet_end_record(&packet, data);
    put_cname("www.example", "www.example.net", 60);
    put_cname("www.example.net", "b.example", 60);
    put_a_of("b.example");
    assert_int_equal(check(), STATUS_OK);
    assert_int_equal(answer.kind, ANSWER_POSITIVE);
}

static void H4_long_chain_or_loop_is_not_kept(void **state)
{
    (void)state;
    for (unsigned links = 14; links <= 18; links++) {
        begin(TYPE_A, links + 1, 0, 0);
        char from[] = "www.example";
        char to[] = "a.example";
        for (unsigned i = 0; i < links; i++) {
            to[0] = (char)('a' + i);
            put_cname(from, to, 60);
            strcpy(from, to);
        }
        put_a_of(to);
        assert_int_equal(check(), STATUS_OK);
        assert_int_equal(answer.kind, links <= 16 ? ANSWER_POSITIVE : ANSWER_NEGATIVE);
        assert_int_equal(answer.ttl_s, links <= 16 ? 60 : 0);
    }
    begin(TYPE_A, 2, 0, 0);
    put_cname("www.example", "a.example", 60);
    put_cname("a.example", "www.example", 60);
    assert_int_equal(check(), STATUS_OK);
    assert_int_equal(answer.ttl_s, 0);
}

static void G7_records_of_other_names_do_not_make_an_answer(void **state)
{
    (void)state;
    begin(TYPE_A, 1, 0, 0);
    put_a_of("bank.example");
    assert_int_equal(check(), STATUS_OK); /* passed on under the question asked */
    assert_int_equal(answer.answer_count, 1);
    assert_int_equal(answer.kind, ANSWER_NEGATIVE);
    assert_int_equal(answer.ttl_s, 0);

    begin(TYPE_A, 2, 0, 0); /* the first label alone is not the name */
    put_cname("www.example", "a.example", 60);
    put_a_of("a.example.net");
    assert_int_equal(check(), STATUS_OK);
    assert_int_equal(answer.kind, ANSWER_NEGATIVE);

    begin(TYPE_A, 0, 0, 1);
    put_a(60);
    assert_int_equal(check(), STATUS_OK);
    assert_int_equal(answer.kind, ANSWER_NEGATIVE);
}

static void G8_RFC2181_truncated_answer_is_not_kept(void **state)
{
    (void)state;
    begin_flags(ANSWER_FLAGS | DNS_FLAG_TC, TYPE_A, 1, 0, 0);
    put_a(60);
    assert_int_equal(check(), STATUS_OK);
    assert_int_equal(answer.flags, DNS_FLAG_TC | DNS_FLAG_RA);
    assert_int_equal(answer.ttl_s, 0);
    begin_flags(ANSWER_FLAGS | DNS_FLAG_TC | RCODE_SERVFAIL, TYPE_A, 0, 0, 0);
    assert_int_equal(check(), STATUS_OK);
    assert_int_equal(answer.ttl_s, 0);
}

static void RFC6672_name_too_long_behind_a_dname_is_kept(void **state)
{
    (void)state;
    begin_flags(ANSWER_FLAGS | DNS_FLAG_AD | RCODE_YXDOMAIN, TYPE_A, 1, 0, 0);
    put_name(&packet, "example");
    const size_t data = packet_begin_record(&packet, TYPE_DNAME, 70);
    put_name(&packet, "a-very-long.name");
    packet_end_record(&packet, data);
    assert_int_equal(check(), STATUS_OK);
    assert_int_equal(answer.kind, ANSWER_POSITIVE);
    assert_int_equal(answer.ttl_s, 70);
    assert_int_equal(answer.flags, DNS_FLAG_RA | DNS_FLAG_AD);
}

static void RFC4035_error_is_not_authentic(void **state)
{
    (void)state;
    for (unsigned rcode = 0; rcode <= DNS_RCODE_MASK; rcode++) {
        begin_flags(ANSWER_FLAGS | DNS_FLAG_AA | DNS_FLAG_AD | rcode, TYPE_A, 0, 0, 0);
        assert_int_equal(check(), STATUS_OK);
        const bool is_error = rcode != RCODE_NOERROR && rcode != RCODE_NXDOMAIN;
        assert_int_equal(answer.flags, DNS_FLAG_AA | DNS_FLAG_RA | (is_error ? 0 : DNS_FLAG_AD));
    }
}

static void RFC9520_failures_are_kept_for_a_second(void **state)
{
    (void)state;
    for (unsigned rcode = 1; rcode <= 24; rcode++) {
        if (rcode == RCODE_NXDOMAIN)
            continue;
        begin_flags(ANSWER_FLAGS | (rcode & 15), TYPE_A, 0, 1, 1);
        put_soa(900, 300);
        put_opt(&packet, 1232, (rcode >> 4) << 24, 0);
        assert_int_equal(check(), STATUS_OK);
        assert_int_equal(answer.kind, ANSWER_FAILURE);
        assert_int_equal(answer.rcode, rcode);
        const bool is_of_one_hop = rcode == RCODE_BADVERS || rcode == RCODE_BADCOOKIE;
        assert_int_equal(answer.ttl_s, is_of_one_hop ? 0 : 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(RFC1035_answer_is_taken),
        cmocka_unit_test(G1_what_is_no_answer_is_malformed),
        cmocka_unit_test(G1_two_questions_are_malformed),
        cmocka_unit_test(G1_malformed_question_is_malformed),
        cmocka_unit_test(G4_answer_without_a_question_is_not_found),
        cmocka_unit_test(F12_answer_to_another_question_is_not_found),
        cmocka_unit_test(RFC4343_question_is_compared_without_case),
        cmocka_unit_test(G1_answer_cut_anywhere_is_malformed),
        cmocka_unit_test(G1_counts_larger_than_the_data_are_malformed),
        cmocka_unit_test(G1_bytes_after_the_last_record_are_not_passed_on),
        cmocka_unit_test(G1_pointers_lead_backward_to_names_only),
        cmocka_unit_test(G1_name_over_255_through_a_pointer_is_malformed),
        cmocka_unit_test(G1_names_over_their_limits_are_malformed),
        cmocka_unit_test(G1_record_past_the_end_is_malformed),
        cmocka_unit_test(G1_rdata_with_names_has_exactly_its_length),
        cmocka_unit_test(G1_pointers_in_rdata_are_checked),
        cmocka_unit_test(RFC3597_addresses_of_other_classes_are_opaque),
        cmocka_unit_test(G9_RFC3597_other_types_are_opaque),
        cmocka_unit_test(G9_as_many_records_as_fit_are_taken),
        cmocka_unit_test(G2_compression_bomb_costs_no_more_than_any_message),
        cmocka_unit_test(G2_pointers_to_pointers_are_bounded),
        cmocka_unit_test(G2_chain_of_a_thousand_cnames_costs_little),
        cmocka_unit_test(G2_comparing_names_stops_at_a_budget),
        cmocka_unit_test(G2_pointers_cost_as_much_as_labels),
        cmocka_unit_test(G2_no_label_starts_in_a_ttl),
        cmocka_unit_test(G2_names_beyond_the_reach_of_pointers_are_checked),
        cmocka_unit_test(RFC6891_opt_is_taken_off),
        cmocka_unit_test(RFC6891_records_after_the_opt_are_checked_but_left_out),
        cmocka_unit_test(RFC6891_misplaced_opt_is_malformed),
        cmocka_unit_test(RFC7828_keepalive_that_is_no_timeout_is_ignored),
        cmocka_unit_test(RFC6891_option_of_an_illegal_length_costs_no_answer),
        cmocka_unit_test(RFC8914_extended_errors_keep_their_codes_as_room_lasts),
        cmocka_unit_test(H3_RFC2181_ttl_is_the_least_and_0_with_the_top_bit),
        cmocka_unit_test(A19_H14_answer_section_alone_is_needed_and_decides),
        cmocka_unit_test(A19_H14_RFC4035_proofs_are_needed_with_DO),
        cmocka_unit_test(A19_H14_RFC2308_soa_of_a_negative_answer_is_needed),
        cmocka_unit_test(A19_all_of_a_referral_is_needed),
        cmocka_unit_test(RFC8945_records_of_the_transaction_are_left_out),
        cmocka_unit_test(H4_RFC2308_negative_ttl),
        cmocka_unit_test(H4_chain_of_cnames_that_ends_nowhere_is_nodata),
        cmocka_unit_test(H4_chain_is_followed_in_any_order),
        cmocka_unit_test(H4_long_chain_or_loop_is_not_kept),
        cmocka_unit_test(G7_records_of_other_names_do_not_make_an_answer),
        cmocka_unit_test(G8_RFC2181_truncated_answer_is_not_kept),
        cmocka_unit_test(RFC6672_name_too_long_behind_a_dname_is_kept),
        cmocka_unit_test(RFC4035_error_is_not_authentic),
        cmocka_unit_test(RFC9520_failures_are_kept_for_a_second),
    };
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    free(checked);
    return failed;
}
