// SPDX-License-Identifier: Apache-2.0
/* The census: connections are counted for each address and places come back. */
#include "test.h"

#include <stdio.h>

#include "listen/census.h"

static struct census_place *enter(struct census *census, const char *text, uint32_t limit)
{
    struct address address;
    assert_int_equal(address_parse(text, 53, &address), STATUS_OK);
    return census_enter(census, &address, limit);
}

static void B9_address_has_its_limit_and_others_theirs(void **state)
{
    (void)state;
    struct census census;
    assert_int_equal(census_open(&census, 10), STATUS_OK);
    struct census_place *first = enter(&census, "192.0.2.1", 2);
    struct census_place *second = enter(&census, "192.0.2.1", 2);
    assert_non_null(first);
    assert_ptr_equal(first, second);
    assert_null(enter(&census, "192.0.2.1", 2));
    struct census_place *other = enter(&census, "192.0.2.2", 2);
    assert_non_null(other);
    census_leave(&census, second);
    assert_non_null(enter(&census, "192.0.2.1", 2));
    census_leave(&census, first);
    census_leave(&census, first);
    census_leave(&census, other);
    census_close(&census); /* asserts that all places are back */
}

static void B9_v6_counts_by_64(void **state)
{
    (void)state;
    struct census census;
    assert_int_equal(census_open(&census, 10), STATUS_OK);
    struct census_place *first = enter(&census, "2001:db8::1", 1);
    assert_null(enter(&census, "2001:db8::2:0:0:1", 1));
    struct census_place *other = enter(&census, "2001:db8:0:1::1", 1);
    assert_non_null(other);
    census_leave(&census, first);
    census_leave(&census, other);
    census_close(&census);
}

static void full_census_refuses_new_addresses(void **state)
{
    (void)state;
    struct census census;
    struct census_place *places[5];
    assert_int_equal(census_open(&census, 5), STATUS_OK);
    for (int i = 0; i < 5; i++) {
        char text[32];
        snprintf(text, sizeof(text), "192.0.2.%d", i);
        places[i] = enter(&census, text, 9);
        assert_non_null(places[i]);
    }
    assert_null(enter(&census, "192.0.2.5", 9));
    assert_ptr_equal(enter(&census, "192.0.2.0", 9), places[0]);
    census_leave(&census, places[0]);
    for (int i = 0; i < 5; i++)
        census_leave(&census, places[i]);
    census_close(&census);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(B9_address_has_its_limit_and_others_theirs),
        cmocka_unit_test(B9_v6_counts_by_64),
        cmocka_unit_test(full_census_refuses_new_addresses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
