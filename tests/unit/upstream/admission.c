// SPDX-License-Identifier: Apache-2.0
/* How many connections a server takes: what refusals show, and the share of each worker. */
#include "test.h"

#include "base/deadline.h"
#include "upstream/admission.h"

#define BEGIN_NS (1000 * NANOSECONDS_PER_SECOND)
#define KNOWN_NS (10 * NANOSECONDS_PER_SECOND)

static struct admission admission;

static int admission_setup(void **state)
{
    (void)state;
    admission = (struct admission){.workers = 1};
    return 0;
}

static void K9_nothing_is_known_before_a_refusal(void **state)
{
    (void)state;
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(admission_enter(&admission), i);
    admission_opened(&admission, BEGIN_NS);
    admission_opened(&admission, BEGIN_NS);
    admission_leave(&admission, false);
    admission_leave(&admission, true);
    assert_int_equal(admission_open(&admission), 1);
    assert_true(admission_share(&admission, BEGIN_NS) == SIZE_MAX);
}

static void K9_as_many_as_were_there_are_taken_for_ten_seconds(void **state)
{
    (void)state;
    admission_refused(&admission, 10, BEGIN_NS, BEGIN_NS);
    assert_int_equal(admission_share(&admission, BEGIN_NS + KNOWN_NS - 1), 10);
    assert_true(admission_share(&admission, BEGIN_NS + KNOWN_NS) == SIZE_MAX);
}

static void K9_each_worker_has_an_equal_share_and_at_least_one(void **state)
{
    (void)state;
    admission.workers = 3;
    admission_refused(&admission, 10, BEGIN_NS, BEGIN_NS);
    assert_int_equal(admission_share(&admission, BEGIN_NS), 3);
    admission.workers = 11;
    assert_int_equal(admission_share(&admission, BEGIN_NS), 1);
}

static void enter_and_open(size_t count)
{
    for (size_t i = 0; i < count; i++) {
        (void)admission_enter(&admission);
        admission_opened(&admission, BEGIN_NS);
    }
}

static void refuse(size_t ticket)
{
    admission_refused(&admission, ticket, BEGIN_NS, BEGIN_NS);
    admission_leave(&admission, false);
}

/* Those that are begun at a time are no others that the server has, in whatever order the workers
 * learn that they were refused. */
static void K9_each_of_several_refusals_shows_the_same_number(void **state)
{
    (void)state;
    static const size_t orders[2][3] = {{0, 1, 2}, {2, 0, 1}};
    enter_and_open(10);
    for (size_t i = 0; i < 2; i++) {
        size_t tickets[3];
        for (size_t j = 0; j < 3; j++)
            tickets[j] = admission_enter(&admission);
        for (size_t j = 0; j < 3; j++)
            refuse(tickets[orders[i][j]]);
        assert_int_equal(admission_share(&admission, BEGIN_NS), 10);
    }
    const size_t ticket = admission_enter(&admission);
    admission_leave(&admission, true); /* it was there when the server refused the other */
    refuse(ticket);
    assert_int_equal(admission_share(&admission, BEGIN_NS), 10);
}

/* It takes others: a packet was lost. */
static void K9_who_takes_one_that_was_begun_later_is_not_at_its_limit(void **state)
{
    (void)state;
    enter_and_open(3);
    const size_t ticket = admission_enter(&admission);
    (void)admission_enter(&admission);
    admission_opened(&admission, BEGIN_NS + 1);
    refuse(ticket);
    assert_true(admission_share(&admission, BEGIN_NS) == SIZE_MAX);
}

static void K9_what_is_known_no_longer_counts_no_longer(void **state)
{
    (void)state;
    admission_refused(&admission, 2, BEGIN_NS, BEGIN_NS);
    admission_refused(&admission, 20, BEGIN_NS, BEGIN_NS + KNOWN_NS);
    assert_int_equal(admission_share(&admission, BEGIN_NS + KNOWN_NS), 20);
}

static void K9_refusal_beside_none_leaves_one(void **state)
{
    (void)state;
    admission_refused(&admission, 0, BEGIN_NS, BEGIN_NS);
    assert_int_equal(admission_share(&admission, BEGIN_NS), 1);
}

#define TEST(function) cmocka_unit_test_setup(function, admission_setup)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(K9_nothing_is_known_before_a_refusal),
        TEST(K9_as_many_as_were_there_are_taken_for_ten_seconds),
        TEST(K9_each_worker_has_an_equal_share_and_at_least_one),
        TEST(K9_each_of_several_refusals_shows_the_same_number),
        TEST(K9_who_takes_one_that_was_begun_later_is_not_at_its_limit),
        TEST(K9_what_is_known_no_longer_counts_no_longer),
        TEST(K9_refusal_beside_none_leaves_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
