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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(I7_labels_are_lower_case_words_and_all_different),
        cmocka_unit_test(texts_are_clauses),
        cmocka_unit_test(K1_four_failures_are_the_end_of_an_open_connection),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
