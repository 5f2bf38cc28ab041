// SPDX-License-Identifier: Apache-2.0
/* The words of the failures. */
#include "test.h"

#include <string.h>

#include "base/failure.h"

/* Prometheus: a label value may be anything, but people write these into queries. */
static void I7_labels_are_lower_case_words_and_all_different(void **state)
{
    (void)state;
    for (int i = 0; i < FAILURE_COUNT; i++) {
        const char *label = failure_label((enum failure)i);
        assert_int_equal(strspn(label, "abcdefghijklmnopqrstuvwxyz_"), strlen(label));
        assert_true(strlen(label) > 0);
        for (int j = 0; j < i; j++)
            assert_string_not_equal(label, failure_label((enum failure)j));
    }
}

static void texts_are_clauses(void **state)
{
    (void)state;
    assert_string_equal(failure_text(FAILURE_RESET), "connection reset before the answer");
    for (int i = 0; i < FAILURE_COUNT; i++)
        assert_true(strlen(failure_text((enum failure)i)) > 0);
}

/* A server that cannot be authenticated, or says nothing, has not closed. */
static void K1_four_failures_are_the_end_of_an_open_connection(void **state)
{
    (void)state;
    size_t count = 0;
    for (int i = 0; i < FAILURE_COUNT; i++)
        count += failure_is_close((enum failure)i);
    assert_int_equal(count, 4);
    assert_true(failure_is_close(FAILURE_CLOSED) && failure_is_close(FAILURE_RESET));
    assert_true(failure_is_close(FAILURE_TLS) && failure_is_close(FAILURE_PROTOCOL));
}

/* What an upstream has answered, and our own doing, is "other". */
static void I7_extended_errors_say_who_is_to_blame(void **state)
{
    (void)state;
    assert_int_equal(failure_extended_error(FAILURE_REQUEST_TIMEOUT), 22);
    assert_int_equal(failure_extended_error(FAILURE_BACKING_OFF), 22);
    assert_int_equal(failure_extended_error(FAILURE_CERTIFICATE_NAME), 23);
    assert_int_equal(failure_extended_error(FAILURE_CLOSED), 23);
    assert_int_equal(failure_extended_error(FAILURE_STALLED), 23);
    assert_int_equal(failure_extended_error(FAILURE_REFUSED), 0);
    assert_int_equal(failure_extended_error(FAILURE_CONVICTED), 0);
    assert_int_equal(failure_extended_error(FAILURE_LOCAL), 0);
}

static void K3_what_authenticates_nobody_does_not_pass_by_itself(void **state)
{
    (void)state;
    for (int i = FAILURE_CERTIFICATE_NAME; i <= FAILURE_TLS; i++)
        assert_false(failure_is((enum failure)i, FAILURE_PASSES));
    assert_false(failure_is(FAILURE_SELF, FAILURE_PASSES));
    assert_true(failure_is(FAILURE_REFUSED_CONNECTION, FAILURE_PASSES));
    assert_true(failure_is(FAILURE_LOCAL, FAILURE_PASSES | FAILURE_OF_NAME));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(I7_labels_are_lower_case_words_and_all_different),
        cmocka_unit_test(texts_are_clauses),
        cmocka_unit_test(I7_extended_errors_say_who_is_to_blame),
        cmocka_unit_test(K3_what_authenticates_nobody_does_not_pass_by_itself),
        cmocka_unit_test(K1_four_failures_are_the_end_of_an_open_connection),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
