// SPDX-License-Identifier: Apache-2.0
/* Which upstreams answer well: what errors tell, and who is chosen last for them. (The strategies
 * are tested with requests, in group.c.) */
#include "fake_stream.h"

#include "upstream/choose.h"

enum { CONTRADICTED_MAX = 5, USELESS_MS = 1000, FIRST = 1, SECOND = 2, BOTH = 3 };

static struct upstream *upstream_at(struct bench *bench, size_t index)
{
    return bench->group->slots[index];
}

static void start(struct bench *bench, size_t count)
{
    bench->config.snapshot.upstream_count = count;
    begin(bench);
}

static void contradict(struct bench *bench, uint32_t erred, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        choose_contradict(bench->group, erred);
}

/* The upstream that the strategy, ordered, has for a new question. */
static size_t first_choice(struct bench *bench)
{
    struct asked one;
    asked_init(&one, "x");
    const struct upstream *upstream = choose_usable(bench->group, 0, &one.question);
    assert_non_null(upstream);
    return upstream->path.slot;
}

/* --- Whether another may know better --- */

static void erred(struct bench *bench, size_t index, uint32_t times)
{
    upstream_at(bench, index)->path.errors = times; /* in a row, now */
    upstream_at(bench, index)->path.erred_ns = bench->loop.now;
}

static void F19_nobody_knows_better_than_the_only_one(void **state)
{
    struct bench *bench = *state;
    start(bench, 1);
    erred(bench, 0, 1);
    assert_false(choose_knows_better(bench->group, FIRST));
}

static void F19_one_that_nobody_knows_yet_may_know_better(void **state)
{
    struct bench *bench = *state;
    start(bench, 2);
    erred(bench, 0, 1);
    assert_true(choose_knows_better(bench->group, FIRST));
    erred(bench, 1, 1); /* it has only ever given errors */
    assert_false(choose_knows_better(bench->group, FIRST));
}

static void F19_K4_one_that_answers_well_knows_better_and_its_error_is_the_last_word(void **state)
{
    struct bench *bench = *state;
    start(bench, 2);
    erred(bench, 0, 1);
    upstream_at(bench, 1)->path.has_answered_well = true;
    assert_true(choose_knows_better(bench->group, FIRST));
    assert_false(choose_knows_better(bench->group, SECOND));
    assert_false(choose_knows_better(bench->group, BOTH));
    erred(bench, 1, 1); /* which is nothing */
    assert_true(choose_knows_better(bench->group, FIRST));
    erred(bench, 1, 2);
    assert_false(choose_knows_better(bench->group, FIRST));
    bench->loop.now += NANOSECONDS_PER_SECOND; /* a moment ago it was so */
    assert_true(choose_knows_better(bench->group, FIRST));
}

static void F19_one_that_cannot_be_asked_is_not_waited_for(void **state)
{
    struct bench *bench = *state;
    start(bench, 2);
    erred(bench, 0, 1);
    upstream_at(bench, 1)->path.has_answered_well = true;
    upstream_at(bench, 1)->path.down = true;
    assert_false(choose_knows_better(bench->group, FIRST));
    upstream_at(bench, 1)->path.down = false;
    upstream_at(bench, 1)->path.is_doubted = true;
    assert_false(choose_knows_better(bench->group, FIRST));
    upstream_at(bench, 1)->path.is_doubted = false;
    assert_true(choose_knows_better(bench->group, FIRST));
}

/* Whose errors others knew better is no witness any more, until its next good answer. */
static void K4_error_of_one_that_was_contradicted_is_not_the_last_word(void **state)
{
    struct bench *bench = *state;
    start(bench, 2);
    upstream_at(bench, 0)->path.has_answered_well = true;
    upstream_at(bench, 1)->path.has_answered_well = true;
    assert_false(choose_knows_better(bench->group, FIRST));
    contradict(bench, FIRST, 1);
    assert_true(choose_knows_better(bench->group, FIRST));
    assert_false(choose_knows_better(bench->group, SECOND));
}

/* --- Who is of no use --- */

static void K4_fifth_error_that_others_knew_better_makes_it_the_last_choice(void **state)
{
    struct bench *bench = *state;
    start(bench, 2);
    contradict(bench, FIRST, CONTRADICTED_MAX - 1);
    assert_int_equal(first_choice(bench), 0);
    contradict(bench, FIRST, 1);
    assert_int_equal(first_choice(bench), 1);
}

static void K4_it_is_tried_again_after_a_second(void **state)
{
    struct bench *bench = *state;
    start(bench, 2);
    contradict(bench, FIRST, CONTRADICTED_MAX);
    bench->loop.now += USELESS_MS * NANOSECONDS_PER_MILLISECOND - 1;
    assert_int_equal(first_choice(bench), 1);
    bench->loop.now += 1;
    assert_int_equal(first_choice(bench), 0);
    contradict(bench, FIRST, 1); /* no better: a second more for one error */
    assert_int_equal(first_choice(bench), 1);
}

static void K4_one_good_answer_makes_it_useful(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    start(bench, 2);
    contradict(bench, FIRST, CONTRADICTED_MAX - 1);
    assert_int_equal(ask(bench, &one, "x"), 0);
    make_ready(0);
    answer_written(0, 0, RCODE_NOERROR);
    assert_true(one.has_answer);
    contradict(bench, FIRST, CONTRADICTED_MAX - 1);
    assert_int_equal(first_choice(bench), 0);
}

static void K4_with_no_other_it_is_asked_all_the_same(void **state)
{
    struct bench *bench = *state;
    start(bench, 2);
    contradict(bench, FIRST, CONTRADICTED_MAX);
    upstream_at(bench, 1)->path.down = true;
    assert_int_equal(first_choice(bench), 0);
    upstream_at(bench, 1)->path.down = false;
    contradict(bench, SECOND, CONTRADICTED_MAX);
    assert_int_equal(first_choice(bench), 0); /* both: as ever */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(F19_nobody_knows_better_than_the_only_one),
        TEST(F19_one_that_nobody_knows_yet_may_know_better),
        TEST(F19_K4_one_that_answers_well_knows_better_and_its_error_is_the_last_word),
        TEST(F19_one_that_cannot_be_asked_is_not_waited_for),
        TEST(K4_error_of_one_that_was_contradicted_is_not_the_last_word),
        TEST(K4_fifth_error_that_others_knew_better_makes_it_the_last_choice),
        TEST(K4_it_is_tried_again_after_a_second),
        TEST(K4_one_good_answer_makes_it_useful),
        TEST(K4_with_no_other_it_is_asked_all_the_same),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
