// SPDX-License-Identifier: Apache-2.0
/* The ends of connections: which of them came together. */
#include "test.h"

#include "upstream/ends.h"

#define BEGIN_NS (1000 * NANOSECONDS_PER_SECOND)

static struct ends ends;

static int ends_setup(void **state)
{
    (void)state;
    ends = (struct ends){0};
    return 0;
}

static void note(size_t count, uint64_t now, size_t left)
{
    for (size_t i = 0; i < count; i++)
        ends_note(&ends, now, left);
}

static void K3_nothing_and_one_end_are_not_together(void **state)
{
    (void)state;
    assert_false(ends_were_together(&ends, BEGIN_NS));
    note(1, BEGIN_NS, 0);
    assert_false(ends_were_together(&ends, BEGIN_NS));
}

static void K3_ends_of_all_or_of_most_are_together(void **state)
{
    (void)state;
    note(2, BEGIN_NS, 0);
    assert_true(ends_were_together(&ends, BEGIN_NS));
    note(1, BEGIN_NS + NANOSECONDS_PER_SECOND, 3);
    note(2, BEGIN_NS + NANOSECONDS_PER_SECOND, 2);
    assert_true(ends_were_together(&ends, BEGIN_NS + NANOSECONDS_PER_SECOND));
}

static void K1_ends_of_few_among_many_meet_by_chance(void **state)
{
    (void)state;
    note(3, BEGIN_NS, 3);
    assert_false(ends_were_together(&ends, BEGIN_NS));
}

static void K3_what_was_left_after_the_last_of_them_counts(void **state)
{
    (void)state;
    for (size_t left = 4; left-- > 0;)
        note(1, BEGIN_NS, left);
    assert_true(ends_were_together(&ends, BEGIN_NS));
}

static void K3_together_is_within_ten_milliseconds_before_or_after(void **state)
{
    (void)state;
    note(1, BEGIN_NS, 0);
    note(1, BEGIN_NS + TOGETHER_NS, 0);
    assert_true(ends_were_together(&ends, BEGIN_NS));
    assert_true(ends_were_together(&ends, BEGIN_NS + TOGETHER_NS));
    assert_false(ends_were_together(&ends, BEGIN_NS - 1));
    assert_false(ends_were_together(&ends, BEGIN_NS + TOGETHER_NS + 1));
}

static void K1_old_ends_are_forgotten_for_new_ones(void **state)
{
    (void)state;
    note(2, BEGIN_NS, 0);
    note(ENDS_KEPT - 1, BEGIN_NS + NANOSECONDS_PER_SECOND, SIZE_MAX);
    assert_false(ends_were_together(&ends, BEGIN_NS));
}

#define TEST(function) cmocka_unit_test_setup(function, ends_setup)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(K3_nothing_and_one_end_are_not_together),
        TEST(K3_ends_of_all_or_of_most_are_together),
        TEST(K1_ends_of_few_among_many_meet_by_chance),
        TEST(K3_what_was_left_after_the_last_of_them_counts),
        TEST(K3_together_is_within_ten_milliseconds_before_or_after),
        TEST(K1_old_ends_are_forgotten_for_new_ones),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
