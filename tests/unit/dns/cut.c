// SPDX-License-Identifier: Apache-2.0
/* Answers cut short: where RRsets have their boundaries, and what is left. */
#include "test.h"

#include "dns/cut.h"
#include "packet.h"

enum { RECORDS_MAX = 24, ADDRESS = 4 };

static struct packet packet;
static struct answer_scratch scratch;
static struct question question;
static struct answer answer;
static size_t ends[RECORDS_MAX + 1]; /* of the records, in the body; the first of none */
static size_t record_count;

static void begin(unsigned answers, unsigned authorities, unsigned additionals)
{
    question = question_of("www.example", TYPE_A);
    put_header(&packet, DNS_FLAG_QR, 1, answers, authorities, additionals);
    put_question(&packet, "www.example", TYPE_A);
    answer.body = packet.bytes + packet.length;
    record_count = 0;
    ends[0] = 0;
}

/* What follows the owner, which the test has written; RDATA of zeros. */
static void put_rest(unsigned type, uint32_t ttl, size_t length)
{
    put_record(&packet, type, ttl, length);
    put_zeros(&packet, length);
    ends[++record_count] = (size_t)(packet.bytes + packet.length - answer.body);
}

static void put(const char *owner, unsigned type)
{
    put_name(&packet, owner);
    put_rest(type, 60, ADDRESS);
}

static void put_signature(const char *owner, unsigned covered)
{
    put(owner, TYPE_RRSIG);
    packet.length -= ADDRESS;
    store_u16(packet.bytes + packet.length - 2, 19);
    put_u16(&packet, covered);
    put_zeros(&packet, 17);
    ends[record_count] += 15;
}

static void check(void)
{
    assert_int_equal(
        message_check_answer(packet.bytes, packet.length, &question, &scratch, &answer), STATUS_OK);
    assert_int_equal(answer.ttl_count, record_count);
}

/* Cuts to every length; each record but those of `inside` is followed by a boundary. */
static void assert_boundaries(const bool inside[RECORDS_MAX])
{
    size_t left = answer.answer_count; /* records that stay */
    for (size_t length = answer.needed_length; length <= answer.body_length; length++) {
        for (size_t i = left + 1; i <= record_count && ends[i] <= length; i++)
            if (!inside[i - 1])
                left = i;
        struct answer cut = answer;
        answer_cut(&cut, &question, length);
        assert_int_equal(cut.body_length, ends[left]);
        assert_int_equal(cut.ttl_count, left);
        assert_int_equal(cut.answer_count + cut.authority_count + cut.additional_count, left);
        assert_int_equal(cut.answer_count, answer.answer_count);
        assert_true(cut.additional_count == 0 || cut.authority_count == answer.authority_count);
        assert_ptr_equal(cut.body, answer.body);
    }
    assert_int_equal(left, record_count);
}

static void A19_RFC2181_rrsets_go_whole_and_from_the_end(void **state)
{
    (void)state;
    begin(1, 2, 5);
    put("www.example", TYPE_A);
    put("a.example", 65280);
    put("a.example", 65280);
    put("ns1.example", TYPE_A);
    put("ns1.example", 65281);
    put("ns2.example", TYPE_A);
    put("ns2.example", TYPE_A);
    put("ns3.example", TYPE_A);
    check();
    assert_int_equal(answer.needed_length, ends[1]);
    assert_boundaries((bool[RECORDS_MAX]){[1] = true, [5] = true});
}

static void A19_rrset_that_stands_apart_is_not_torn(void **state)
{
    (void)state;
    begin(1, 0, 6);
    put("www.example", TYPE_A);
    put("a.example", TYPE_A);
    put("b.example", TYPE_A); /* from here to the last b nothing is whole */
    put("c.example", TYPE_A);
    put("d.example", TYPE_A);
    put("c.example", TYPE_A);
    put("b.example", TYPE_A);
    check();
    assert_boundaries((bool[RECORDS_MAX]){[2] = true, [3] = true, [4] = true, [5] = true});
}

static void A19_RFC4343_owners_are_equal_whatever_their_case_and_compression(void **state)
{
    (void)state;
    begin(1, 0, 4);
    put("www.example", TYPE_A);
    const size_t owner = packet.length;
    put("Ns.Example", TYPE_A);
    put_pointer(&packet, owner);
    put_rest(TYPE_A, 60, ADDRESS);
    put_labels(&packet, "nS");
    put_pointer(&packet, QUESTION_POINTER + 4); /* "example" in the question */
    put_rest(TYPE_A, 60, ADDRESS);
    put_pointer(&packet, QUESTION_POINTER + 4);
    put_rest(TYPE_A, 60, ADDRESS);
    check();
    assert_boundaries((bool[RECORDS_MAX]){[1] = true, [2] = true});
}

/* A set without its signatures would look as if somebody had taken them off. */
static void A19_RFC4035_signatures_go_with_what_they_cover(void **state)
{
    (void)state;
    begin(1, 0, 7);
    put("www.example", TYPE_A);
    put("ns.example", TYPE_A);
    put_signature("ns.example", TYPE_A);
    put("ns.example", TYPE_TXT);
    put_signature("ns.example", TYPE_TXT);
    put_signature("ns.example", TYPE_TXT);
    put_signature("ns.example", TYPE_AAAA);
    put_signature("a.example", TYPE_AAAA);
    check();
    assert_boundaries((bool[RECORDS_MAX]){[1] = true, [3] = true, [4] = true});
}

static void A19_an_rrset_ends_with_its_section(void **state)
{
    (void)state;
    begin(1, 1, 1);
    for (unsigned i = 0; i < 3; i++)
        put("www.example", TYPE_A);
    check();
    assert_boundaries((bool[RECORDS_MAX]){0});
}

/* Each owner points to the pointer of the one before: only so many are followed, whatever the cut.
 */
static void A19_G2_chains_of_pointers_are_not_followed_to_their_ends(void **state)
{
    (void)state;
    begin(1, 0, RECORDS_MAX - 1);
    put("www.example", TYPE_A);
    size_t owner = QUESTION_POINTER;
    for (unsigned i = 1; i < RECORDS_MAX; i++) {
        const size_t here = 0xc000 | packet.length;
        put_pointer(&packet, (uint16_t)owner);
        put_rest(TYPE_A, 60, ADDRESS);
        owner = here;
    }
    check();
    assert_true(answer.needed_length < answer.body_length);
    bool inside[RECORDS_MAX] = {0};
    /* They have one name; those at the end of a longer chain are not seen to have it. */
    for (unsigned i = 1; i + 1 < RECORDS_MAX; i++)
        inside[i] = i != 16;
    assert_boundaries(inside);
}

/* Only the first octets of owners are looked at, so that a cut costs little. */
static void A19_G2_long_owners_are_told_apart_by_their_begin(void **state)
{
    (void)state;
    begin(1, 0, 4);
    put("www.example", TYPE_A);
    put("0123456789.0123456789.0123456789.a.example", TYPE_A); /* as good as equal to the next */
    put("0123456789.0123456789.0123456789.b.example", TYPE_A);
    put("1123456789.0123456789.0123456789.b.example", TYPE_A);
    put("", TYPE_A);
    check();
    assert_boundaries((bool[RECORDS_MAX]){[1] = true});
}

static void A19_nothing_that_is_needed_is_cut(void **state)
{
    (void)state;
    begin(1, 3, 0);
    question.dnssec_ok = true;
    put("www.example", TYPE_A);
    put("a.example", 65280); /* goes on behind what is needed */
    put("a.example", TYPE_NSEC);
    put("a.example", 65280);
    check();
    assert_int_equal(answer.needed_length, ends[3]);
    struct answer cut = answer;
    answer_cut(&cut, &question, cut.body_length - 1U);
    assert_int_equal(cut.body_length, ends[3]);
    assert_int_equal(cut.authority_count, 2);
}

static void G9_as_many_records_as_fit_are_cut(void **state)
{
    (void)state;
    question = question_of("", 65280);
    put_header(&packet, DNS_FLAG_QR, 1, 1, 0, 0);
    put_question(&packet, "", 65280);
    unsigned count = 0;
    for (; packet.length + 11 <= DNS_MESSAGE_MAX; count++) {
        put_u8(&packet, 0);
        put_record(&packet, 65280 + count % 16, 60, 0);
    }
    store_u16(packet.bytes + 10, (uint16_t)(count - 1));
    record_count = count;
    check();
    answer_cut(&answer, &question, answer.body_length - 1U);
    assert_int_equal(answer.body_length, 11); /* each type goes on to the end */
    assert_int_equal(answer.ttl_count, 1);
}

static void H14_living_length_ends_before_the_first_optional_record_that_has_ended(void **state)
{
    (void)state;
    for (size_t ended = 0; ended <= 5; ended++) {
        begin(1, 2, 2);
        for (size_t i = 0; i < 5; i++) {
            put_pointer(&packet, QUESTION_POINTER);
            put_rest(TYPE_A, i == ended ? 0 : 60, ADDRESS);
        }
        check();
        const size_t expected = ended == 0 ? 5 : ended; /* the first is needed */
        assert_int_equal(answer_living_length(&answer), ends[expected]);
    }
}

static void answers_without_records_have_nothing_to_cut(void **state)
{
    (void)state;
    struct answer none = {.kind = ANSWER_FAILURE};
    question = question_of("www.example", TYPE_A);
    assert_int_equal(answer_living_length(&none), 0);
    answer_cut(&none, &question, 0);
    assert_int_equal(none.body_length, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(A19_RFC2181_rrsets_go_whole_and_from_the_end),
        cmocka_unit_test(A19_rrset_that_stands_apart_is_not_torn),
        cmocka_unit_test(A19_RFC4343_owners_are_equal_whatever_their_case_and_compression),
        cmocka_unit_test(A19_RFC4035_signatures_go_with_what_they_cover),
        cmocka_unit_test(A19_an_rrset_ends_with_its_section),
        cmocka_unit_test(A19_G2_chains_of_pointers_are_not_followed_to_their_ends),
        cmocka_unit_test(A19_G2_long_owners_are_told_apart_by_their_begin),
        cmocka_unit_test(A19_nothing_that_is_needed_is_cut),
        cmocka_unit_test(G9_as_many_records_as_fit_are_cut),
        cmocka_unit_test(H14_living_length_ends_before_the_first_optional_record_that_has_ended),
        cmocka_unit_test(answers_without_records_have_nothing_to_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
