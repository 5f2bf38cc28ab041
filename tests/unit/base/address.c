// SPDX-License-Identifier: Apache-2.0
/* Addresses and prefixes: every accepted spelling, every refused one, and what contains what. */
#include "test.h"

#include <stdio.h>
#include <string.h>

#include "base/address.h"

static struct address parsed(const char *text)
{
    struct address address;
    if (address_parse(text, 53, &address) != STATUS_OK)
        fail_msg("\"%s\" is not taken", text);
    return address;
}

static struct prefix prefixed(const char *text)
{
    struct prefix prefix;
    if (prefix_parse(text, &prefix) != STATUS_OK)
        fail_msg("\"%s\" is not taken", text);
    return prefix;
}

static void addresses_print_as_they_were_meant(void **state)
{
    (void)state;
    static const char *const pairs[][2] = {
        {"192.0.2.1", "192.0.2.1:53"},
        {"192.0.2.1:1", "192.0.2.1:1"},
        {"192.0.2.1:65535", "192.0.2.1:65535"},
        {"0.0.0.0:8989", "0.0.0.0:8989"},
        {"2001:db8::1", "[2001:db8::1]:53"},
        {"[2001:DB8:0::1]", "[2001:db8::1]:53"},
        {"[2001:db8::1]:853", "[2001:db8::1]:853"},
        {"::", "[::]:53"},
        {"::ffff:192.0.2.1", "[::ffff:192.0.2.1]:53"},
        {"fe80::1%lo", "[fe80::1%lo]:53"},
        {"[fe80::1%lo]:5353", "[fe80::1%lo]:5353"},
        {"[fe80::1%60000]:5353", "[fe80::1%60000]:5353"},
        {"ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255",
         "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:53"},
    };
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        char text[ADDRESS_TEXT_SIZE];
        const struct address address = parsed(pairs[i][0]);
        assert_string_equal(address_format(&address, text), pairs[i][1]);
        const struct address again = parsed(text);
        assert_true(address_equal(&address, &again));
    }
}

static void what_is_no_address_is_malformed_and_touches_nothing(void **state)
{
    (void)state;
    static const char *const wrong[] = {
        "",
        "localhost",
        "dns.example:53",
        "1.2.3",
        "1.2.3.4.5",
        "127.1",
        "010.0.0.1",
        "256.0.0.1",
        "1.2.3.4:",
        "1.2.3.4:0",
        "1.2.3.4:65536",
        "1.2.3.4:99999999999",
        "1.2.3.4:+53",
        "1.2.3.4: 53",
        "1.2.3.4:53 ",
        " 1.2.3.4",
        "1.2.3.4:5x",
        "[1.2.3.4]:53",
        "[::1",
        "[::1]53",
        "[::1]:",
        "[::1]:0",
        "::1]:53",
        "[]:53",
        ":::1",
        "fe80::1%",
        "fe80::1%no-such-interface",
        "1.2.3.4%lo",
        "1111:2222:3333:4444:5555:6666:7777:8888:9999",
        "[1111:2222:3333:4444:5555:6666:7777:8888%1234567890123456789012345678901234567890]:53",
    };
    struct address address;
    memset(&address, 0x5a, sizeof address);
    const struct address before = address;
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        if (address_parse(wrong[i], 53, &address) != STATUS_MALFORMED)
            fail_msg("\"%s\" is taken", wrong[i]);
        assert_memory_equal(&address, &before, sizeof address);
    }
}

static void a_port_behind_an_address_without_brackets_is_unclear(void **state)
{
    (void)state;
    static const char *const unclear[][2] = {
        {"::1:53", "[::1]:53"},
        {"2001:db8::1:8853", "[2001:db8::1]:8853"},
        {":::53", "[::]:53"},
        {"2001:db8:1:2:3:4:5:6:53", "[2001:db8:1:2:3:4:5:6]:53"},
        {"::ffff:192.0.2.1:53", "[::ffff:192.0.2.1]:53"},
        {"fe80::1%lo:53", "[fe80::1%lo]:53"},
    };
    struct address address;
    char text[ADDRESS_TEXT_SIZE];
    for (size_t i = 0; i < sizeof unclear / sizeof unclear[0]; i++) {
        assert_true(address_has_unclear_port(unclear[i][0], &address));
        assert_string_equal(address_format(&address, text), unclear[i][1]);
    }
    static const char *const clear[] = {
        "",          "::",           "::1",          "::53",           "2001:db8::53",
        "[::1]:53",  "[::1:53]",     "fe80::1%lo",   "2001:db8::1:ab", "2001:db8:0:0:0:0:0:53",
        "127.0.0.1", "127.0.0.1:53", "dns.test:853", "::1:0",          "::1:65536",
        "x::1:53",
    };
    for (size_t i = 0; i < sizeof clear / sizeof clear[0]; i++)
        assert_false(address_has_unclear_port(clear[i], &address));
}

static void equal_needs_family_address_port_and_zone(void **state)
{
    (void)state;
    static const char *const different[] = {
        "192.0.2.1:53",     "192.0.2.1:54",     "192.0.2.2:53",          "[2001:db8::1]:53",
        "[2001:db8::1]:54", "[2001:db8::2]:53", "[::ffff:192.0.2.1]:53", "[2001:db8::1%lo]:53",
    };
    const size_t count = sizeof different / sizeof different[0];
    for (size_t i = 0; i < count; i++) {
        for (size_t j = 0; j < count; j++) {
            const struct address a = parsed(different[i]);
            const struct address b = parsed(different[j]);
            assert_int_equal(address_equal(&a, &b), i == j);
        }
    }
}

static void kinds_of_addresses(void **state)
{
    (void)state;
    const struct address v4 = parsed("192.0.2.1:5300");
    const struct address v6 = parsed("[2001:db8::1]:5301");
    const struct address any4 = parsed("0.0.0.0");
    const struct address any6 = parsed("::");
    assert_int_equal(address_length(&v4), sizeof(struct sockaddr_in));
    assert_int_equal(address_length(&v6), sizeof(struct sockaddr_in6));
    assert_int_equal(address_port(&v4), 5300);
    assert_int_equal(address_port(&v6), 5301);
    assert_true(address_is_any(&any4));
    assert_true(address_is_any(&any6));
    assert_false(address_is_any(&v4));
    assert_false(address_is_any(&v6));
}

static void what_is_no_prefix_is_malformed_and_touches_nothing(void **state)
{
    (void)state;
    static const char *const wrong[] = {
        "",
        "/",
        "/8",
        "10.0.0.0/",
        "10.0.0.0/33",
        "10.0.0.0/-1",
        "10.0.0.0/8/8",
        "10.0.0.0/8 ",
        "10.0.0.1/8",
        "10.128.0.0/8",
        "10/8",
        "::/129",
        "2001:db8::1/64",
        "[::1]",
        "fe80::%lo/10",
        "localhost",
        "127.0.0.1:53",
        "1111:2222:3333:4444:5555:6666:7777:8888:9999:0000:1111/8",
    };
    struct prefix prefix;
    memset(&prefix, 0x5a, sizeof prefix);
    const struct prefix before = prefix;
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        if (prefix_parse(wrong[i], &prefix) != STATUS_MALFORMED)
            fail_msg("\"%s\" is taken", wrong[i]);
        assert_memory_equal(&prefix, &before, sizeof prefix);
    }
}

static void prefixes_contain_what_lies_inside(void **state)
{
    (void)state;
    static const struct {
        const char *prefix;
        const char *address;
        bool inside;
    } cases[] = {
        {"10.0.0.0/8", "10.255.255.255", true},
        {"10.0.0.0/8", "11.0.0.0", false},
        {"10.0.0.0/8", "9.255.255.255", false},
        {"10.0.0.0/8", "[::ffff:10.1.2.3]:99", true},
        {"10.0.0.0/8", "2001:db8::1", false},
        {"10.0.0.0/8", "::10.1.2.3", false},
        {"100.64.0.0/10", "100.127.255.255", true},
        {"100.64.0.0/10", "100.128.0.0", false},
        {"172.16.0.0/12", "172.31.0.1", true},
        {"172.16.0.0/12", "172.32.0.1", false},
        {"192.0.2.1", "192.0.2.1:99", true},
        {"192.0.2.1/32", "192.0.2.0", false},
        {"0.0.0.0/0", "203.0.113.9", true},
        {"0.0.0.0/0", "::ffff:203.0.113.9", true},
        {"0.0.0.0/0", "2001:db8::1", false},
        {"::/0", "2001:db8::1", true},
        {"::/0", "203.0.113.9", false},
        {"::/0", "::ffff:203.0.113.9", false},
        {"::ffff:10.0.0.0/104", "10.9.9.9", true},
        {"::1", "::1", true},
        {"::1", "::2", false},
        {"::1", "127.0.0.1", false},
        {"fe80::/10", "fe80::1%lo", true},
        {"fe80::/10", "febf::1", true},
        {"fe80::/10", "fec0::1", false},
        {"fc00::/7", "fdff::1", true},
        {"fc00::/7", "fe00::1", false},
        {"2001:db8::/32", "2001:db8:ffff::", true},
        {"2001:db8::/32", "2001:db9::", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const struct prefix prefix = prefixed(cases[i].prefix);
        const struct address address = parsed(cases[i].address);
        if (prefix_contains(&prefix, &address) != cases[i].inside)
            fail_msg("%s in %s", cases[i].address, cases[i].prefix);
    }
}

static void prefix_of_cuts_each_family_at_its_length(void **state)
{
    (void)state;
    static const struct {
        const char *address;
        const char *prefix;
    } cases[] = {
        {"192.0.2.77", "192.0.2.0/24"},
        {"::ffff:192.0.2.77", "192.0.2.0/24"},
        {"2001:db8:1:2:3:4:5:6", "2001:db8:1::/56"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const struct address address = parsed(cases[i].address);
        const struct prefix prefix = prefix_of(&address, 24, 56);
        const struct prefix expected = prefixed(cases[i].prefix);
        assert_int_equal(prefix.length, expected.length);
        assert_memory_equal(prefix.bits, expected.bits, sizeof prefix.bits);
        assert_true(prefix_contains(&prefix, &address));
    }
}

static void every_prefix_length_contains_and_excludes(void **state)
{
    (void)state;
    const struct address address = parsed("2001:db8:aaaa:5555:aaaa:5555:aaaa:5555");
    for (uint8_t length = 1; length <= 128; length++) {
        const struct prefix prefix = prefix_of(&address, 0, length);
        assert_true(prefix_contains(&prefix, &address));
        struct address other = address;
        other.v6.sin6_addr.s6_addr[(length - 1) / 8] ^= (uint8_t)(0x80 >> (length - 1) % 8);
        assert_false(prefix_contains(&prefix, &other));
        if (length == 128)
            continue;
        other = address;
        other.v6.sin6_addr.s6_addr[length / 8] ^= (uint8_t)(0x80 >> length % 8);
        assert_true(prefix_contains(&prefix, &other));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(addresses_print_as_they_were_meant),
        cmocka_unit_test(what_is_no_address_is_malformed_and_touches_nothing),
        cmocka_unit_test(a_port_behind_an_address_without_brackets_is_unclear),
        cmocka_unit_test(equal_needs_family_address_port_and_zone),
        cmocka_unit_test(kinds_of_addresses),
        cmocka_unit_test(what_is_no_prefix_is_malformed_and_touches_nothing),
        cmocka_unit_test(prefixes_contain_what_lies_inside),
        cmocka_unit_test(prefix_of_cuts_each_family_at_its_length),
        cmocka_unit_test(every_prefix_length_contains_and_excludes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
