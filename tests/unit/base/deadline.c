// SPDX-License-Identifier: Apache-2.0
/* Deadlines: order, rearming and cancelling, also from inside the callback. */
#include "test.h"

#include <limits.h>
#include <stdlib.h>

#include "base/deadline.h"

enum { TIMERS = 8, DURATION = 100 };

struct timer {
    struct deadline deadline;
    int expired;
};

static struct deadline_queue queue;
static struct timer timers[TIMERS];
static struct timer *order[64];
static size_t order_length;
static void (*action)(struct timer *timer, uint64_t now);

static void record(struct deadline *deadline, uint64_t now)
{
    struct timer *timer = CONTAINER_OF(deadline, struct timer, deadline);
    assert_true(deadline->armed_ns + queue.duration_ns <= now);
    assert_false(list_is_linked(&deadline->link));
    timer->expired++;
    order[order_length++] = timer;
    if (action)
        action(timer, now);
}

static int setup(void **state)
{
    (void)state;
    deadline_queue_init(&queue, DURATION, record);
    for (size_t i = 0; i < TIMERS; i++) {
        timers[i] = (struct timer){};
        deadline_init(&timers[i].deadline);
    }
    order_length = 0;
    action = NULL;
    return 0;
}

static void nothing_armed_is_never_due(void **state)
{
    (void)state;
    assert_int_equal(deadline_queue_next(&queue), DEADLINE_NEVER);
    deadline_cancel(&timers[0].deadline);
    deadline_queue_expire(&queue, UINT64_MAX - 1, UINT_MAX);
    assert_int_equal(order_length, 0);
}

static void expires_at_its_time_and_not_before(void **state)
{
    (void)state;
    deadline_arm(&queue, &timers[0].deadline, 1000);
    assert_int_equal(deadline_queue_next(&queue), 1100);
    deadline_queue_expire(&queue, 1099, UINT_MAX);
    assert_int_equal(order_length, 0);
    deadline_queue_expire(&queue, 1100, UINT_MAX);
    assert_int_equal(timers[0].expired, 1);
    deadline_queue_expire(&queue, 5000, UINT_MAX);
    assert_int_equal(timers[0].expired, 1);
}

static void expires_in_the_order_of_arming(void **state)
{
    (void)state;
    for (size_t i = 0; i < TIMERS; i++)
        deadline_arm(&queue, &timers[i].deadline, i);
    deadline_queue_expire(&queue, DURATION + 3, UINT_MAX);
    assert_int_equal(order_length, 4);
    for (size_t i = 0; i < order_length; i++)
        assert_ptr_equal(order[i], &timers[i]);
    assert_int_equal(deadline_queue_next(&queue), DURATION + 4);
}

static void arming_again_moves_to_the_end(void **state)
{
    (void)state;
    deadline_arm(&queue, &timers[0].deadline, 0);
    deadline_arm(&queue, &timers[1].deadline, 10);
    deadline_arm(&queue, &timers[0].deadline, 20);
    assert_int_equal(deadline_queue_next(&queue), 110);
    deadline_queue_expire(&queue, 115, UINT_MAX);
    assert_int_equal(timers[0].expired, 0);
    assert_int_equal(timers[1].expired, 1);
    deadline_queue_expire(&queue, 120, UINT_MAX);
    assert_int_equal(timers[0].expired, 1);
}

static void cancelled_does_not_expire(void **state)
{
    (void)state;
    deadline_arm(&queue, &timers[0].deadline, 0);
    deadline_arm(&queue, &timers[1].deadline, 0);
    deadline_cancel(&timers[0].deadline);
    deadline_cancel(&timers[0].deadline);
    deadline_queue_expire(&queue, 1000, UINT_MAX);
    assert_int_equal(timers[0].expired, 0);
    assert_int_equal(timers[1].expired, 1);
}

static void rearm(struct timer *timer, uint64_t now)
{
    deadline_arm(&queue, &timer->deadline, now);
}

static void callback_may_arm_again(void **state)
{
    (void)state;
    action = rearm;
    deadline_arm(&queue, &timers[0].deadline, 0);
    deadline_queue_expire(&queue, 1000, UINT_MAX);
    assert_int_equal(timers[0].expired, 1);
    assert_int_equal(deadline_queue_next(&queue), 1100);
}

static void cancel_the_next(struct timer *timer, uint64_t now)
{
    (void)now;
    deadline_cancel(&timer[1].deadline);
}

static void callback_may_cancel_another_that_is_due(void **state)
{
    (void)state;
    action = cancel_the_next;
    deadline_arm(&queue, &timers[0].deadline, 0);
    deadline_arm(&queue, &timers[1].deadline, 0);
    deadline_arm(&queue, &timers[2].deadline, 0);
    deadline_queue_expire(&queue, 1000, UINT_MAX);
    assert_int_equal(timers[0].expired, 1);
    assert_int_equal(timers[1].expired, 0);
    assert_int_equal(timers[2].expired, 1);
}

static void free_it(struct deadline *deadline, uint64_t now)
{
    (void)now;
    free(CONTAINER_OF(deadline, struct timer, deadline));
}

static void callback_may_free_its_object(void **state)
{
    (void)state;
    deadline_queue_init(&queue, DURATION, free_it);
    for (size_t i = 0; i < 3; i++) {
        struct timer *timer = malloc(sizeof *timer);
        assert_non_null(timer);
        deadline_init(&timer->deadline);
        deadline_arm(&queue, &timer->deadline, i);
    }
    deadline_queue_expire(&queue, 1000, UINT_MAX);
    assert_int_equal(deadline_queue_next(&queue), DEADLINE_NEVER);
}

static void a_new_duration_holds_for_those_already_armed(void **state)
{
    (void)state;
    deadline_arm(&queue, &timers[0].deadline, 0);
    queue.duration_ns = 10;
    deadline_arm(&queue, &timers[1].deadline, 5);
    assert_int_equal(deadline_queue_next(&queue), 10);
    deadline_queue_expire(&queue, 14, UINT_MAX);
    assert_int_equal(timers[0].expired, 1);
    assert_int_equal(timers[1].expired, 0);
    queue.duration_ns = 50;
    deadline_queue_expire(&queue, 54, UINT_MAX);
    assert_int_equal(timers[1].expired, 0);
    deadline_queue_expire(&queue, 55, UINT_MAX);
    assert_int_equal(timers[1].expired, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(nothing_armed_is_never_due, setup),
        cmocka_unit_test_setup(expires_at_its_time_and_not_before, setup),
        cmocka_unit_test_setup(expires_in_the_order_of_arming, setup),
        cmocka_unit_test_setup(arming_again_moves_to_the_end, setup),
        cmocka_unit_test_setup(cancelled_does_not_expire, setup),
        cmocka_unit_test_setup(callback_may_arm_again, setup),
        cmocka_unit_test_setup(callback_may_cancel_another_that_is_due, setup),
        cmocka_unit_test_setup(callback_may_free_its_object, setup),
        cmocka_unit_test_setup(a_new_duration_holds_for_those_already_armed, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
