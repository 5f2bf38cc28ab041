// SPDX-License-Identifier: Apache-2.0
/* The way to an upstream: when it has become another. The kernel's answers are real ones: another
 * loopback address as target has another source, the broadcast address none. */
#include "test.h"

#include <errno.h>
#include <sys/resource.h>

#include "upstream/route.h"

static struct address address_of(const char *text)
{
    struct address address;
    assert_true(address_parse(text, 853, &address) == STATUS_OK);
    return address;
}

static struct route route_with(const char *target)
{
    struct route route = {0};
    const struct address address = address_of(target);
    route_to(&route, &address);
    return route;
}

static void J8_way_to_nowhere_does_not_change(void **state)
{
    (void)state;
    struct route route = {0};
    assert_false(route_look_up(&route));
    assert_false(route.is_there);
}

static void J8_way_is_looked_up_when_its_target_is_known(void **state)
{
    (void)state;
    struct route route = route_with("127.0.0.7");
    assert_true(route.is_there);
    const struct address source = address_of("127.0.0.1");
    assert_int_equal(route.source.v4.sin_addr.s_addr, source.v4.sin_addr.s_addr);
    assert_false(route_look_up(&route));
}

static void J8_another_source_is_a_change_once(void **state)
{
    (void)state;
    struct route route = route_with("127.0.0.7");
    route.source = address_of("192.0.2.1");
    assert_true(route_look_up(&route));
    assert_false(route_look_up(&route));
}

static void J8_way_that_is_lost_or_found_is_a_change(void **state)
{
    (void)state;
    struct route route = route_with("127.0.0.7");
    route.target = address_of("255.255.255.255");
    assert_true(route_look_up(&route));
    assert_false(route.is_there);
    assert_false(route_look_up(&route));
    route.target = address_of("127.0.0.7");
    assert_true(route_look_up(&route));
    assert_true(route.is_there);
}

static void J8_another_target_is_looked_up_at_once_and_the_same_is_not(void **state)
{
    (void)state;
    struct route route = route_with("127.0.0.7");
    struct address target = address_of("127.0.0.7");
    route.source = address_of("192.0.2.1");
    route_to(&route, &target); /* the change is for route_look_up() to tell */
    assert_true(route_look_up(&route));
    target = address_of("255.255.255.255");
    route_to(&route, &target);
    assert_false(route.is_there);
}

static void I1_without_descriptors_what_was_known_holds(void **state)
{
    (void)state;
    struct route route = route_with("127.0.0.7");
    route.target = address_of("255.255.255.255");
    struct rlimit before;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    const struct rlimit none = {.rlim_cur = 0, .rlim_max = before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    const bool is_change = route_look_up(&route);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    assert_false(is_change);
    assert_true(route.is_there);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(J8_way_to_nowhere_does_not_change),
        cmocka_unit_test(J8_way_is_looked_up_when_its_target_is_known),
        cmocka_unit_test(J8_another_source_is_a_change_once),
        cmocka_unit_test(J8_way_that_is_lost_or_found_is_a_change),
        cmocka_unit_test(J8_another_target_is_looked_up_at_once_and_the_same_is_not),
        cmocka_unit_test(I1_without_descriptors_what_was_known_holds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
