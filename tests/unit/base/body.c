// SPDX-License-Identifier: Apache-2.0
/* Counted bodies: the last holder frees, and the account knows what is held. */
#include "test.h"

#include <string.h>

#include "base/body.h"

static void K6_the_last_release_frees_and_gives_back(void **state)
{
    (void)state;
    struct output_account account = {.ceiling = 1000};
    struct body *body = body_new(&account, (const uint8_t *)"bytes", 5);
    assert_non_null(body);
    assert_int_equal(body->length, 5);
    assert_memory_equal(body->bytes, "bytes", 5);
    const size_t used = account.used;
    assert_true(used >= 5);
    assert_ptr_equal(body_hold(body), body);
    body_release(body);
    assert_int_equal(account.used, used);
    body_release(body);
    assert_int_equal(account.used, 0);
    body_release(NULL);
}

static void a_body_may_be_empty(void **state)
{
    (void)state;
    struct output_account account = {.ceiling = 1000};
    struct body *body = body_new(&account, NULL, 0);
    assert_non_null(body);
    assert_int_equal(body->length, 0);
    body_release(body);
    assert_int_equal(account.used, 0);
}

static void K6_equal_bytes_are_there_once_while_somebody_holds_them(void **state)
{
    (void)state;
    struct output_account account = {.ceiling = 1000};
    struct body *first = body_share(&account, (const uint8_t *)"bytes", 5);
    const size_t used = account.used;
    assert_ptr_equal(body_share(&account, (const uint8_t *)"bytes", 5), first);
    assert_int_equal(account.used, used);
    struct body *other = body_share(&account, (const uint8_t *)"Bytes", 5);
    struct body *shorter = body_share(&account, (const uint8_t *)"Byte", 4);
    assert_ptr_not_equal(other, first);
    assert_ptr_not_equal(shorter, other);
    assert_memory_equal(shorter->bytes, "Byte", 4);
    body_release(first);
    body_release(other);
    assert_ptr_equal(body_share(&account, (const uint8_t *)"Byte", 4), shorter);
    body_release(first);
    body_release(shorter);
    body_release(shorter);
    assert_int_equal(account.used, 0);
    body_release(body_share(&account, (const uint8_t *)"Byte", 4)); /* not one that is gone */
    assert_int_equal(account.used, 0);
}

static void K6_nobody_gets_memory_over_the_ceiling(void **state)
{
    (void)state;
    struct output_account account = {.max = 100, .ceiling = 300};
    struct body *body = body_new(&account, (const uint8_t *)"bytes", 5);
    const size_t left = account.ceiling - account.used;
    const volatile size_t most = SIZE_MAX; /* or a compiler warns of such a malloc() */
    assert_null(output_take(&account, left + 1));
    assert_null(output_take(&account, most));
    void *memory = output_take(&account, left); /* over max */
    assert_non_null(memory);
    assert_int_equal(account.used, account.ceiling);
    assert_null(body_new(&account, NULL, 0));
    assert_null(body_share(&account, (const uint8_t *)"bytes", 5));
    output_give(&account, memory, left);
    output_give(&account, NULL, 7);
    body_release(body);
    assert_int_equal(account.used, 0);
    memory = output_take(NULL, 1000);
    assert_non_null(memory);
    output_give(NULL, memory, 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(K6_the_last_release_frees_and_gives_back),
        cmocka_unit_test(a_body_may_be_empty),
        cmocka_unit_test(K6_nobody_gets_memory_over_the_ceiling),
        cmocka_unit_test(K6_equal_bytes_are_there_once_while_somebody_holds_them),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
