// SPDX-License-Identifier: Apache-2.0
/* The IDs of one connection: taken, given back, abandoned, and what an ID on the wire means. */
#include "test.h"

#include <stdlib.h>
#include <string.h>

#include "upstream/request.h"
#include "upstream/slots.h"

enum { MASK = 0x5a5a };

static struct request requests[4]; /* only their addresses matter */

/* `count` slots under MASK; the caller frees. */
static struct slots *make(size_t count)
{
    struct slots *slots = calloc(1, sizeof(*slots) + count * sizeof(struct slot));
    assert_non_null(slots);
    slots_init(slots, count, MASK);
    return slots;
}

static void F9_an_id_means_its_slot_until_that_is_given_back(void **state)
{
    (void)state;
    struct slots *slots = make(8);
    const uint16_t index = slot_take(slots, &requests[0]);
    const uint16_t id = slot_id(slots, index);
    assert_ptr_equal(slot_of_id(slots, id), &slots->table[index]);
    assert_ptr_equal(slots->table[index].request, &requests[0]);
    slot_give(slots, index);
    assert_null(slot_of_id(slots, id));
    free(slots);
}

static void F9_no_two_in_use_have_one_id(void **state)
{
    (void)state;
    enum { COUNT = 3000 }; /* three steps, the last of them not whole */
    struct slots *slots = make(COUNT);
    static uint8_t seen[UINT16_MAX + 1];
    memset(seen, 0, sizeof(seen));
    for (size_t i = 0; i < COUNT; i++) {
        assert_true(slots_have_room(slots));
        const uint16_t index = slot_take(slots, &requests[0]);
        assert_int_equal(seen[slot_id(slots, index)]++, 0);
    }
    assert_false(slots_have_room(slots));
    free(slots);
}

static void F10_the_next_use_of_a_slot_has_another_id(void **state)
{
    (void)state;
    struct slots *slots = make(1);
    const uint16_t first = slot_id(slots, slot_take(slots, &requests[0]));
    slot_give(slots, 0);
    const uint16_t second = slot_id(slots, slot_take(slots, &requests[1]));
    assert_int_not_equal(first, second);
    assert_null(slot_of_id(slots, first));
    assert_ptr_equal(slot_of_id(slots, second)->request, &requests[1]);
    free(slots);
}

static void F10_an_abandoned_slot_stays_reserved_without_a_request(void **state)
{
    (void)state;
    struct slots *slots = make(2);
    const uint16_t index = slot_take(slots, &requests[0]);
    const uint16_t id = slot_id(slots, index);
    slot_abandon(slots, index);
    const struct slot *slot = slot_of_id(slots, id);
    assert_non_null(slot);
    assert_true(slot->is_abandoned);
    assert_null(slot->request);
    assert_int_not_equal(slot_take(slots, &requests[1]), index);
    assert_false(slots_have_room(slots));
    slot_give(slots, index);
    assert_int_equal(slot_take(slots, &requests[2]), index);
    free(slots);
}

static void F10_a_question_of_our_own_is_abandoned_from_the_first(void **state)
{
    (void)state;
    struct slots *slots = make(2);
    const uint16_t index = slot_take(slots, NULL);
    assert_true(slot_of_id(slots, slot_id(slots, index))->is_abandoned);
    free(slots);
}

static void F10_the_slot_that_is_free_for_longest_is_used_next(void **state)
{
    (void)state;
    struct slots *slots = make(4);
    uint16_t taken[4];
    for (size_t i = 0; i < 4; i++)
        taken[i] = slot_take(slots, &requests[i]);
    slot_give(slots, taken[2]);
    slot_give(slots, taken[0]);
    slot_give(slots, taken[3]);
    assert_int_equal(slot_take(slots, &requests[0]), taken[2]);
    assert_int_equal(slot_take(slots, &requests[0]), taken[0]);
    assert_int_equal(slot_take(slots, &requests[0]), taken[3]);
    assert_false(slots_have_room(slots));
    free(slots);
}

static void F16_slots_come_into_use_in_steps(void **state)
{
    (void)state;
    struct slots *slots = make(SLOTS_STEP + 1);
    assert_int_equal(slots->used, 0);
    for (size_t i = 0; i < SLOTS_STEP; i++)
        (void)slot_take(slots, &requests[0]);
    assert_int_equal(slots->used, SLOTS_STEP);
    (void)slot_take(slots, &requests[0]);
    assert_int_equal(slots->used, SLOTS_STEP + 1);
    free(slots);
}

/* Indices have four bits here; nine of the sixteen are of slots, and one slot was ever used. */
static void F13_an_id_of_no_slot_or_of_one_that_was_never_used_means_none(void **state)
{
    (void)state;
    struct slots *slots = make(9);
    const uint16_t used = slot_id(slots, slot_take(slots, &requests[0]));
    for (size_t id = 0; id <= UINT16_MAX; id++)
        assert_true((slot_of_id(slots, (uint16_t)id) != NULL) == (id == used));
    free(slots);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(F9_an_id_means_its_slot_until_that_is_given_back),
        cmocka_unit_test(F9_no_two_in_use_have_one_id),
        cmocka_unit_test(F10_the_next_use_of_a_slot_has_another_id),
        cmocka_unit_test(F10_an_abandoned_slot_stays_reserved_without_a_request),
        cmocka_unit_test(F10_a_question_of_our_own_is_abandoned_from_the_first),
        cmocka_unit_test(F10_the_slot_that_is_free_for_longest_is_used_next),
        cmocka_unit_test(F16_slots_come_into_use_in_steps),
        cmocka_unit_test(F13_an_id_of_no_slot_or_of_one_that_was_never_used_means_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
