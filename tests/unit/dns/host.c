// SPDX-License-Identifier: Apache-2.0
/* The question for a host's addresses, and the addresses in an answer. */
#include "test.h"

#include <stdlib.h>

#include "dns/host.h"

static void question_has_the_name_in_lower_case(void **state)
{
    (void)state;
    struct question question;
    host_question("DNS.Quad9.net", TYPE_AAAA, &question);
    assert_int_equal(question.name_length, 15);
    assert_memory_equal(question.name, "\3dns\5quad9\3net", 15);
    assert_int_equal(question.type, TYPE_AAAA);
    assert_int_equal(question.class, CLASS_IN);
    assert_true(question.recursion_desired);
    assert_false(question.dnssec_ok || question.checking_disabled);
}

static void query_is_a_header_and_the_question(void **state)
{
    (void)state;
    static const uint8_t expected[] = "\x12\x34\1\0\0\1\0\0\0\0\0\0\1a\7example\0\0\1\0\1";
    struct question question;
    uint8_t query[HOST_QUERY_MAX];
    host_question("a.example", TYPE_A, &question);
    assert_int_equal(host_query(&question, 0x1234, query), sizeof expected - 1);
    assert_memory_equal(query, expected, sizeof expected - 1);
}

static void longest_name_has_room(void **state)
{
    (void)state;
    char host[254];
    for (size_t i = 0; i < 253; i++)
        host[i] = i % 64 == 63 ? '.' : 'x';
    host[253] = '\0';
    struct question question;
    uint8_t query[HOST_QUERY_MAX];
    host_question(host, TYPE_A, &question);
    assert_int_equal(question.name_length, DNS_NAME_MAX);
    assert_int_equal(host_query(&question, 1, query), HOST_QUERY_MAX);
}

static size_t addresses_of(const uint8_t *body, size_t length, uint16_t count, enum dns_type type,
                           struct address out[static 4])
{
    struct question question;
    host_question("a.example", type, &question);
    const struct answer answer = {
        .answer_count = count, .body = body, .body_length = (uint16_t)length};
    return host_addresses(&answer, &question, 853, out, 4);
}

/* Every record but those of the type asked for is passed over, whatever its owner looks like. */
static void addresses_are_taken_from_behind_cnames(void **state)
{
    (void)state;
    static const uint8_t body[] =
        "\xc0\x0c\0\5\0\1\0\0\0\1\0\4\1b\xc0\x0e" /* CNAME */
        "\1b\xc0\x0e\0\1\0\1\0\0\0\1\0\4\xc0\0\2\1"
        "\1c\7example\0\0\1\0\1\0\0\0\1\0\4\xc0\0\2\2"
        "\xc0\x0c\0\1\0\3\0\0\0\1\0\4\xc0\0\2\3" /* class CH */
        "\xc0\x0c\0\x1c\0\1\0\0\0\1\0\x10\x20\1\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\1";
    struct address out[4];
    char text[ADDRESS_TEXT_SIZE];
    assert_int_equal(addresses_of(body, sizeof body - 1, 5, TYPE_A, out), 2);
    assert_string_equal(address_format(&out[0], text), "192.0.2.1:853");
    assert_string_equal(address_format(&out[1], text), "192.0.2.2:853");
    assert_int_equal(addresses_of(body, sizeof body - 1, 5, TYPE_AAAA, out), 1);
    assert_string_equal(address_format(&out[0], text), "[2001:db8::1]:853");
    /* Only the answer section counts. */
    assert_int_equal(addresses_of(body, sizeof body - 1, 1, TYPE_A, out), 0);
}

static void as_many_as_asked_for(void **state)
{
    (void)state;
    uint8_t body[6 * 16];
    struct address out[5] = {0};
    for (size_t i = 0; i < 6; i++) {
        memcpy(body + i * 16, "\xc0\x0c\0\1\0\1\0\0\0\1\0\4\xc0\0\2\1", 16);
        body[i * 16 + 15] = (uint8_t)i;
    }
    assert_int_equal(addresses_of(body, sizeof body, 6, TYPE_A, out), 4);
    assert_int_equal(out[4].any.sa_family, AF_UNSPEC);
}

static void RFC_2181_5_an_address_that_is_said_twice_counts_once(void **state)
{
    (void)state;
    uint8_t body[6 * 16];
    struct address out[4];
    char text[ADDRESS_TEXT_SIZE];
    for (size_t i = 0; i < 6; i++) {
        memcpy(body + i * 16, "\xc0\x0c\0\1\0\1\0\0\0\1\0\4\xc0\0\2\1", 16);
        body[i * 16 + 15] = i < 5 ? 1 : 2; /* behind more than there is room for */
    }
    assert_int_equal(addresses_of(body, sizeof body, 6, TYPE_A, out), 2);
    assert_string_equal(address_format(&out[1], text), "192.0.2.2:853");
}

/* No answer that was checked looks so; it must do no harm all the same. */
static void records_cut_anywhere_are_left_out(void **state)
{
    (void)state;
    static const uint8_t body[] = "\1b\xc0\x0e\0\1\0\1\0\0\0\1\0\4\xc0\0\2\1";
    struct address out[4];
    for (size_t length = 0; length < sizeof body - 1; length++) {
        uint8_t *copy = malloc(length + 1);
        memcpy(copy, body, length);
        assert_int_equal(addresses_of(copy, length, 1, TYPE_A, out), 0);
        free(copy);
    }
    assert_int_equal(addresses_of(body, sizeof body - 1, 1, TYPE_A, out), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(question_has_the_name_in_lower_case),
        cmocka_unit_test(query_is_a_header_and_the_question),
        cmocka_unit_test(longest_name_has_room),
        cmocka_unit_test(addresses_are_taken_from_behind_cnames),
        cmocka_unit_test(as_many_as_asked_for),
        cmocka_unit_test(RFC_2181_5_an_address_that_is_said_twice_counts_once),
        cmocka_unit_test(records_cut_anywhere_are_left_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
