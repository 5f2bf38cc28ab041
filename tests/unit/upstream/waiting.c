// SPDX-License-Identifier: Apache-2.0
/* Asks that wait: who is resumed when, in which order, and what ends the waiting. */
#include "test.h"

#include <limits.h>

#include "loop_fixture.h"
#include "upstream/waiting.h"

enum { FEW = 8, MANY = 2 * LOOP_BUDGET, PARK_MS = 3000, TICK_MS = 50 };

/* Waits for room, of which there is so much; goes back to where it was when there is none. */
struct one {
    struct waiter waiter;
    enum line line;
    bool parks_again;
    bool is_stuck; /* there is room for others alone */
    unsigned resumed;
};

static struct waiting waiting;
static struct one all[MANY];
static size_t room;
static size_t served[MANY]; /* in the order of their service */
static size_t served_count;
static unsigned parked_ticks;

static void on_parked(struct waiting *of)
{
    assert_ptr_equal(of, &waiting);
    parked_ticks++;
}

static void resume(struct waiter *waiter)
{
    struct one *one = CONTAINER_OF(waiter, struct one, waiter);
    one->resumed++;
    if (one->parks_again)
        (void)waiting_park(&waiting, waiter);
    if (one->line == LINES)
        return;
    if (room == 0 || one->is_stuck) {
        waiting_line_up(&waiting, waiter, one->line);
        return;
    }
    room--;
    list_remove(&waiter->link);
    served[served_count++] = (size_t)(one - all);
}

static void begin(uint64_t park_ms)
{
    waiting = (struct waiting){0};
    waiting_open(&waiting, &loop, park_ms * NANOSECONDS_PER_MILLISECOND, on_parked);
    room = served_count = parked_ticks = 0;
    for (size_t i = 0; i < MANY; i++) {
        all[i] = (struct one){.waiter = {.resume = resume}, .line = LINES};
        list_init(&all[i].waiter.link);
        deadline_init(&all[i].waiter.again);
    }
}

static void end(void)
{
    for (size_t i = 0; i < MANY; i++) {
        list_remove(&all[i].waiter.link);
        deadline_cancel(&all[i].waiter.again);
    }
    waiting_close(&waiting);
}

static void line_up(size_t index, enum line line)
{
    all[index].line = line;
    waiting_line_up(&waiting, &all[index].waiter, line);
}

static bool waits(size_t index)
{
    return list_is_linked(&all[index].waiter.link);
}

static void run_tasks(void)
{
    const uint64_t now = loop.now;
    assert_true(loop_turn(&loop, 0));
    loop.now = now;
}

static void find_room(size_t count)
{
    room = count;
    waiting_serve_soon(&waiting);
    run_tasks();
}

/* The time of the test is the loop's between its turns. */
static void pass(uint64_t ms)
{
    loop.now += ms * NANOSECONDS_PER_MILLISECOND;
    deadline_queue_expire(&waiting.ticks, loop.now, UINT_MAX);
    deadline_queue_expire(&waiting.second_looks, loop.now, UINT_MAX);
    run_tasks();
}

static void assert_served(size_t count, ...)
{
    va_list expected;
    assert_int_equal(served_count, count);
    va_start(expected, count);
    for (size_t i = 0; i < count; i++)
        assert_int_equal(served[i], va_arg(expected, int));
    va_end(expected);
}

/* --- In line --- */

static void K1_crowd_is_served_in_turn_and_nobody_is_overtaken(void **state)
{
    (void)state;
    begin(PARK_MS);
    for (size_t i = 0; i < 3; i++)
        line_up(i, LINE_CROWD);
    find_room(1);
    assert_served(1, 0);
    line_up(3, LINE_CROWD); /* comes later */
    line_up(0, LINE_CROWD); /* comes once more */
    find_room(3);
    assert_served(4, 0, 1, 2, 3);
    assert_true(waits(0));
    find_room(1);
    assert_served(5, 0, 1, 2, 3, 0);
    end();
}

static void K1_first_in_line_stays_it_when_there_was_no_room(void **state)
{
    (void)state;
    begin(PARK_MS);
    line_up(0, LINE_CROWD);
    line_up(1, LINE_CROWD);
    for (unsigned i = 1; i <= 3; i++) {
        find_room(0);
        assert_int_equal(all[0].resumed, i);
    }
    line_up(1, LINE_CROWD); /* to ask for it again changes nothing */
    line_up(0, LINE_CROWD);
    find_room(1);
    assert_served(1, 0);
    end();
}

/* Whose upstreams are all full, when those of the others are not. */
static void K1_one_that_cannot_be_served_holds_up_nobody_who_can(void **state)
{
    (void)state;
    begin(PARK_MS);
    for (size_t i = 0; i < FEW; i++)
        line_up(i, LINE_LANES);
    all[0].is_stuck = all[2].is_stuck = true;
    find_room(3);
    assert_served(3, 1, 3, 4);
    assert_true(waits(0) && waits(2));
    all[5].is_stuck = all[6].is_stuck = true; /* with so many the rest is not looked at */
    find_room(1);
    assert_served(3, 1, 3, 4);
    assert_int_equal(all[7].resumed, 0);
    all[0].is_stuck = false; /* it has kept its place */
    find_room(2);
    assert_served(5, 1, 3, 4, 0, 7);
    end();
}

static void K9_newest_of_the_confined_is_the_first(void **state)
{
    (void)state;
    begin(PARK_MS);
    for (size_t i = 0; i < 3; i++)
        line_up(i, LINE_CONFINED);
    find_room(2);
    assert_served(2, 2, 1);
    end();
}

static void K9_one_line_does_not_wait_for_another(void **state)
{
    (void)state;
    begin(PARK_MS);
    line_up(0, LINE_CONFINED);
    line_up(1, LINE_LOOKS);
    line_up(2, LINE_LANES);
    line_up(3, LINE_CROWD);
    find_room(0);
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(all[i].resumed, 1);
    find_room(3); /* the crowd before lanes, first looks before second ones */
    assert_served(3, 3, 2, 1);
    end();
}

static void who_changes_lines_is_the_last_of_the_other(void **state)
{
    (void)state;
    begin(PARK_MS);
    line_up(0, LINE_CROWD);
    line_up(1, LINE_LANES);
    line_up(0, LINE_LANES);
    find_room(1);
    assert_served(1, 1);
    assert_true(waits(0));
    end();
}

/* One unit each, so that half a turn is left for others. */
static void K5_long_line_is_served_over_several_turns(void **state)
{
    (void)state;
    begin(PARK_MS);
    for (size_t i = 0; i < MANY; i++)
        line_up(i, LINE_CROWD);
    find_room(MANY);
    assert_in_range(served_count, 1, LOOP_BUDGET / 2);
    assert_true(loop.budget >= LOOP_BUDGET / 2);
    for (size_t turn = 0; turn < 6; turn++) {
        run_tasks();
        assert_true(loop.budget >= LOOP_BUDGET / 2 - 64);
    }
    assert_int_equal(served_count, MANY);
    for (size_t i = 0; i < MANY; i++)
        assert_int_equal(served[i], i);
    end();
}

/* What frees room may not tell. */
static void line_is_looked_at_by_itself_while_anybody_is_in_it(void **state)
{
    (void)state;
    begin(PARK_MS);
    line_up(0, LINE_CROWD);
    pass(TICK_MS - 1);
    assert_int_equal(all[0].resumed, 0);
    pass(1);
    assert_int_equal(all[0].resumed, 1);
    room = 1;
    pass(TICK_MS);
    assert_served(1, 0);
    pass(TICK_MS);
    assert_false(list_is_linked(&waiting.tick.link)); /* nobody waits */
    assert_int_equal(parked_ticks, 0);
    end();
}

/* --- For an upstream --- */

static void park(size_t index)
{
    assert_true(waiting_park(&waiting, &all[index].waiter));
}

static void K3_parked_are_resumed_once_also_when_they_park_again(void **state)
{
    (void)state;
    begin(PARK_MS);
    all[0].parks_again = true;
    park(0);
    park(1);
    waiting_resume_parked(&waiting);
    run_tasks();
    assert_int_equal(all[0].resumed, 1);
    assert_int_equal(all[1].resumed, 1);
    assert_true(waits(0));
    assert_false(waits(1));
    end();
}

static void K5_many_parked_are_resumed_over_several_turns(void **state)
{
    (void)state;
    begin(PARK_MS);
    for (size_t i = 0; i < MANY; i++)
        park(i);
    waiting_resume_parked(&waiting);
    assert_int_equal(all[0].resumed, 0); /* whoever calls may be in the midst of something */
    for (size_t turn = 0; turn < 6; turn++) {
        run_tasks();
        assert_true(loop.budget >= LOOP_BUDGET / 2 - 64);
        assert_true(turn > 0 || (all[0].resumed == 1 && all[MANY - 1].resumed == 0));
    }
    for (size_t i = 0; i < MANY; i++)
        assert_int_equal(all[i].resumed, 1);
    end();
}

static void K5_one_that_leaves_before_its_turn_is_not_resumed(void **state)
{
    (void)state;
    begin(PARK_MS);
    park(0);
    park(1);
    waiting_resume_parked(&waiting);
    list_remove(&all[0].waiter.link);
    run_tasks();
    assert_int_equal(all[0].resumed, 0);
    assert_int_equal(all[1].resumed, 1);
    end();
}

static void K3_upstreams_are_tried_while_anybody_is_parked(void **state)
{
    (void)state;
    begin(PARK_MS);
    park(0);
    pass(TICK_MS);
    pass(TICK_MS);
    assert_int_equal(parked_ticks, 2);
    waiting_resume_parked(&waiting);
    pass(TICK_MS);
    pass(TICK_MS);
    assert_int_equal(parked_ticks, 2);
    end();
}

static void K3_all_give_up_when_trials_have_failed_for_timeouts_park(void **state)
{
    (void)state;
    begin(PARK_MS);
    park(0);
    for (unsigned ms = 0; ms < PARK_MS; ms += 500) {
        waiting_note_trial(&waiting, true);
        run_tasks();
        assert_int_equal(all[0].resumed, 0);
        pass(500);
    }
    waiting_note_trial(&waiting, true);
    run_tasks();
    assert_int_equal(all[0].resumed, 1);
    assert_false(waiting_park(&waiting, &all[1].waiter)); /* who comes now fails at once, */
    waiting_note_upstream(&waiting);
    park(1); /* until one is back */
    end();
}

/* After a quiet hour nobody knows whether they are still away. */
static void K3_trials_of_a_while_ago_count_for_nothing(void **state)
{
    (void)state;
    begin(PARK_MS);
    for (unsigned ms = 0; ms <= PARK_MS; ms += 500) {
        waiting_note_trial(&waiting, true);
        pass(500);
    }
    assert_false(waiting_park(&waiting, &all[0].waiter));
    pass(500);
    park(0);
    waiting_note_trial(&waiting, true);
    run_tasks();
    assert_int_equal(all[0].resumed, 0);
    end();
}

static void E1_nobody_waits_for_what_does_not_pass(void **state)
{
    (void)state;
    begin(PARK_MS);
    park(0);
    waiting_note_trial(&waiting, false);
    run_tasks();
    assert_int_equal(all[0].resumed, 1);
    end();
}

static void K3_with_timeouts_park_of_zero_nobody_is_parked(void **state)
{
    (void)state;
    begin(0);
    assert_false(waiting_park(&waiting, &all[0].waiter));
    assert_false(waits(0));
    end();
}

/* --- For a moment --- */

static void K1_second_look_comes_a_tenth_of_a_second_later(void **state)
{
    (void)state;
    begin(PARK_MS);
    waiting_look_again(&waiting, &all[0].waiter);
    pass(99);
    assert_int_equal(all[0].resumed, 0);
    pass(1);
    assert_int_equal(all[0].resumed, 1);
    end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(K1_crowd_is_served_in_turn_and_nobody_is_overtaken),
        TEST(K1_first_in_line_stays_it_when_there_was_no_room),
        TEST(K1_one_that_cannot_be_served_holds_up_nobody_who_can),
        TEST(K9_newest_of_the_confined_is_the_first),
        TEST(K9_one_line_does_not_wait_for_another),
        TEST(who_changes_lines_is_the_last_of_the_other),
        TEST(K5_long_line_is_served_over_several_turns),
        TEST(line_is_looked_at_by_itself_while_anybody_is_in_it),
        TEST(K3_parked_are_resumed_once_also_when_they_park_again),
        TEST(K5_many_parked_are_resumed_over_several_turns),
        TEST(K5_one_that_leaves_before_its_turn_is_not_resumed),
        TEST(K3_upstreams_are_tried_while_anybody_is_parked),
        TEST(K3_all_give_up_when_trials_have_failed_for_timeouts_park),
        TEST(K3_trials_of_a_while_ago_count_for_nothing),
        TEST(E1_nobody_waits_for_what_does_not_pass),
        TEST(K3_with_timeouts_park_of_zero_nobody_is_parked),
        TEST(K1_second_look_comes_a_tenth_of_a_second_later),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
