// SPDX-License-Identifier: Apache-2.0
/* Queries that wait, counted by client address. */
#include "test.h"

#include "query/wait_limit.h"

enum { MAX = 3 };

static struct address address(const char *text)
{
    struct address parsed;
    assert_int_equal(address_parse(text, 5000, &parsed), STATUS_OK);
    return parsed;
}

static uint16_t bucket_of(const struct wait_limit *limit, const char *text)
{
    const struct address client = address(text);
    return wait_limit_bucket(limit, &client);
}

/* A limit of MAX that queries of `text` have reached: half of MAX were not counted. */
static struct wait_limit full_of(const char *text)
{
    struct wait_limit limit;
    wait_limit_init(&limit, MAX);
    const uint16_t bucket = bucket_of(&limit, text);
    for (int i = 0; i < MAX - MAX / 2; i++) {
        assert_false(wait_limit_is_reached(&limit, bucket));
        wait_limit_enter(&limit, bucket);
    }
    return limit;
}

static bool has_room_for(const struct wait_limit *limit, const char *text)
{
    return !wait_limit_is_reached(limit, bucket_of(limit, text));
}

static void I5_room_is_what_has_not_left(void **state)
{
    (void)state;
    struct wait_limit limit = full_of("192.0.2.1");
    const uint16_t bucket = bucket_of(&limit, "192.0.2.1");
    assert_false(has_room_for(&limit, "192.0.2.1"));
    wait_limit_leave(&limit, bucket);
    assert_true(has_room_for(&limit, "192.0.2.1"));
}

static void I5_an_address_is_an_ipv4_address_or_an_ipv6_64(void **state)
{
    (void)state;
    struct wait_limit limit = full_of("192.0.2.1");
    assert_false(has_room_for(&limit, "192.0.2.1:6000"));
    assert_false(has_room_for(&limit, "::ffff:192.0.2.1"));
    limit = full_of("2001:db8:1:2::1");
    assert_false(has_room_for(&limit, "2001:db8:1:2:ffff:ffff:ffff:ffff"));
}

/* Any two may meet by chance, but not often. */
static void I5_others_have_room(void **state)
{
    (void)state;
    enum { OTHERS = 1 << 16, MANY = OTHERS * 4 / WAIT_LIMIT_BUCKETS };
    struct wait_limit limit = full_of("192.0.2.1");
    struct address other = address("10.0.0.0");
    int met = 0;
    for (uint32_t i = 0; i < OTHERS; i++) {
        other.v4.sin_addr.s_addr = htonl(0x0a000000 + i);
        met += wait_limit_is_reached(&limit, wait_limit_bucket(&limit, &other));
    }
    assert_in_range(met, 0, MANY);
    limit = full_of("2001:db8::1");
    other = address("2001:db8:0:1::1");
    met = 0;
    for (uint32_t i = 1; i < OTHERS; i++) {
        other.v6.sin6_addr.s6_addr[6] = (uint8_t)(i >> 8);
        other.v6.sin6_addr.s6_addr[7] = (uint8_t)i;
        met += wait_limit_is_reached(&limit, wait_limit_bucket(&limit, &other));
    }
    assert_in_range(met, 0, MANY);
}

static void I5_the_host_itself_has_no_limit(void **state)
{
    (void)state;
    static const char *const own[] = {"127.0.0.1", "127.255.0.1", "::1", "::ffff:127.0.0.1"};
    static const char *const others[] = {"128.0.0.1", "126.0.0.1", "::2", "0:0:0:1::1"};
    struct wait_limit limit;
    wait_limit_init(&limit, 1);
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(bucket_of(&limit, own[i]), WAIT_UNLIMITED);
        assert_in_range(bucket_of(&limit, others[i]), 0, WAIT_LIMIT_BUCKETS - 1);
    }
    assert_true(has_room_for(&limit, "127.0.0.1"));
}

static void I5_half_may_wait_uncounted_and_zero_is_no_limit(void **state)
{
    (void)state;
    struct wait_limit limit;
    static const uint32_t limits[] = {1, 2, 3, 4096};
    for (size_t i = 0; i < 4; i++) {
        wait_limit_init(&limit, limits[i]);
        assert_int_equal(limit.counted_from, limits[i] / 2);
        assert_int_equal(limit.counted_from + limit.max, limits[i]);
    }
    wait_limit_init(&limit, 0);
    assert_true(limit.counted_from == SIZE_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(I5_room_is_what_has_not_left),
        cmocka_unit_test(I5_an_address_is_an_ipv4_address_or_an_ipv6_64),
        cmocka_unit_test(I5_others_have_room),
        cmocka_unit_test(I5_the_host_itself_has_no_limit),
        cmocka_unit_test(I5_half_may_wait_uncounted_and_zero_is_no_limit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
