// SPDX-License-Identifier: Apache-2.0
/* Rates: one second's worth at once, then evenly, for each prefix on its own. */
#include "test.h"

#include "base/deadline.h"
#include "listen/rate.h"

static const uint64_t start_ns = 5 * NANOSECONDS_PER_SECOND;

static struct address address(const char *text)
{
    struct address parsed;
    assert_int_equal(address_parse(text, 53, &parsed), STATUS_OK);
    return parsed;
}

static void one_second_comes_at_once_then_evenly(void **state)
{
    (void)state;
    struct rate_bucket bucket = {0};
    for (int i = 0; i < 10; i++)
        assert_true(rate_allow(&bucket, 10, start_ns));
    assert_false(rate_allow(&bucket, 10, start_ns));
    assert_false(rate_allow(&bucket, 10, start_ns + 99 * NANOSECONDS_PER_MILLISECOND));
    assert_true(rate_allow(&bucket, 10, start_ns + 100 * NANOSECONDS_PER_MILLISECOND));
    assert_false(rate_allow(&bucket, 10, start_ns + 100 * NANOSECONDS_PER_MILLISECOND));
}

static void what_is_refused_is_not_charged(void **state)
{
    (void)state;
    struct rate_bucket bucket = {0};
    assert_true(rate_allow(&bucket, 1, start_ns));
    for (int i = 0; i < 1000; i++)
        assert_false(rate_allow(&bucket, 1, start_ns + 1));
    assert_true(rate_allow(&bucket, 1, start_ns + NANOSECONDS_PER_SECOND));
}

static void silence_saves_up_one_second_only(void **state)
{
    (void)state;
    struct rate_bucket bucket = {0};
    const uint64_t later = start_ns + 1000 * NANOSECONDS_PER_SECOND;
    assert_true(rate_allow(&bucket, 2, start_ns));
    assert_true(rate_allow(&bucket, 2, later));
    assert_true(rate_allow(&bucket, 2, later));
    assert_false(rate_allow(&bucket, 2, later));
}

static void highest_rate_is_never_reached(void **state)
{
    (void)state;
    struct rate_bucket bucket = {0};
    for (int i = 0; i < 100000; i++)
        assert_true(rate_allow(&bucket, UINT32_MAX, start_ns));
}

/* True when the prefix of `b` has used up the rate of `a`. */
static bool shares(const char *a, const char *b)
{
    struct rate_table *table = rate_table_open();
    assert_non_null(table);
    const struct address first = address(a), second = address(b);
    assert_true(rate_table_allow(table, &first, 1, start_ns));
    assert_false(rate_table_allow(table, &first, 1, start_ns));
    const bool shared = !rate_table_allow(table, &second, 1, start_ns);
    rate_table_close(table);
    return shared;
}

/* Two prefixes meet in one bucket by chance, but not with ten keys. */
static bool always_shares(const char *a, const char *b)
{
    for (int i = 0; i < 10; i++) {
        if (!shares(a, b))
            return false;
    }
    return true;
}

static void A17_one_rate_for_each_v4_24_and_v6_56(void **state)
{
    (void)state;
    assert_true(always_shares("192.0.2.1", "192.0.2.255"));
    assert_false(always_shares("192.0.2.1", "192.0.3.1"));
    assert_true(always_shares("2001:db8:0:100::1", "2001:db8:0:1ff:1::1"));
    assert_false(always_shares("2001:db8:0:100::1", "2001:db8:0:200::1"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_second_comes_at_once_then_evenly),
        cmocka_unit_test(what_is_refused_is_not_charged),
        cmocka_unit_test(silence_saves_up_one_second_only),
        cmocka_unit_test(highest_rate_is_never_reached),
        cmocka_unit_test(A17_one_rate_for_each_v4_24_and_v6_56),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
