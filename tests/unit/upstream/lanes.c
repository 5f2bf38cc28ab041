// SPDX-License-Identifier: Apache-2.0
/* Connections that carry one question at a time, and the lines of those that wait. */
#include "fake_stream.h"

enum {
    LANES_OPENING_MAX = 16, /* while nothing is measured */
    LANES_FRESH_MAX = 48,   /* the others are left to those that have ended nothing alone */
    LANE_REQUESTS_MAX = 8,
    LANES_LOST = 32,
    LANES_CONFINED = 2,
    CONFINED_MS = 50,
    IDLE_MS = 1000,
};

/* In line with a request of its own. */
struct in_line {
    struct bench *bench;
    struct asked asked;
    struct waiter waiter;
    enum lane_kind kind;
};

static enum status submit(struct bench *bench, struct asked *one, enum lane_kind kind)
{
    asked_init(one, "x");
    return request_submit_alone(bench->group, &one->request, 0, kind);
}

/* The stream of its lane, which has shaken hands. */
static size_t lane_of(struct bench *bench, struct asked *one, enum lane_kind kind)
{
    assert_true(submit(bench, one, kind) == STATUS_OK);
    assert_int_equal(one->request.connection->use, CONNECTION_LANE);
    const size_t index = stream_of(one->request.connection);
    if (streams[index].stream->state != STREAM_OPEN)
        make_ready(index);
    return index;
}

static void answer_last(size_t index)
{
    answer_named(index, "x", RCODE_NOERROR);
}

static void start(struct bench *bench)
{
    bench->config.snapshot.upstream_count = 1;
    begin(bench);
}

static void resume(struct waiter *waiter)
{
    struct in_line *waiting = CONTAINER_OF(waiter, struct in_line, waiter);
    if (submit(waiting->bench, &waiting->asked, waiting->kind) == STATUS_OK)
        list_remove(&waiting->waiter.link);
}

static void wait_in_line(struct bench *bench, struct in_line *waiting, enum line line,
                         enum lane_kind kind)
{
    *waiting = (struct in_line){.bench = bench, .waiter = {.resume = resume}, .kind = kind};
    list_init(&waiting->waiter.link);
    asked_init(&waiting->asked, "x");
    waiting_line_up(&bench->group->waiting, &waiting->waiter, line);
}

static bool waits(const struct in_line *waiting)
{
    return list_is_linked(&waiting->waiter.link);
}

/* --- One at a time --- */

static void K1_lane_carries_one_question_at_a_time(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    struct asked other;
    start(bench);
    const size_t first = lane_of(bench, &one, LANE_ANY);
    const size_t second = lane_of(bench, &other, LANE_ANY);
    assert_int_not_equal(first, second);
    answer_last(first);
    assert_int_equal(lane_of(bench, &one, LANE_ANY), first); /* it is free again */
    request_cancel(&one.request);
    request_cancel(&other.request);
}

/* Nobody may come behind an answer that is still owed. */
static void K1_lane_whose_question_was_given_up_is_closed(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    start(bench);
    const size_t lane = lane_of(bench, &one, LANE_ANY);
    request_cancel(&one.request);
    reap();
    assert_null(streams[lane].stream);
}

/* A server that closes behind so many answers must not look like a question that ends connections.
 */
static void K1_lane_closes_behind_its_eighth_answer(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    start(bench);
    for (size_t i = 0; i < LANE_REQUESTS_MAX; i++) {
        assert_int_equal(lane_of(bench, &one, LANE_ANY), 0);
        answer_last(0);
        assert_int_equal(one.done, 1);
    }
    reap();
    assert_null(streams[0].stream);
    assert_int_equal(lane_of(bench, &one, LANE_ANY), 1);
    request_cancel(&one.request);
    assert_int_equal(bench->group->slots[0]->path.failures, 0);
}

static void K1_fresh_lane_has_carried_nothing_else(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    start(bench);
    const size_t used = lane_of(bench, &one, LANE_ANY);
    answer_last(used);
    assert_int_not_equal(lane_of(bench, &one, LANE_FRESH), used);
    request_cancel(&one.request);
}

static void lane_closes_when_nobody_needs_it_for_a_second(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    start(bench);
    const size_t lane = lane_of(bench, &one, LANE_ANY);
    answer_last(lane);
    turn(bench, IDLE_MS - 1);
    assert_non_null(streams[lane].stream);
    turn(bench, 1);
    assert_null(streams[lane].stream);
}

static void K1_no_query_goes_to_a_lane(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    struct asked other;
    start(bench);
    answer_last(lane_of(bench, &one, LANE_ANY));
    assert_int_equal(ask(bench, &other, "x"), 1);
    assert_int_equal(other.request.connection->use, CONNECTION_MAIN);
    request_cancel(&other.request);
}

/* Its silence costs nobody else anything. */
static void K8_server_may_take_its_time_on_a_lane(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    start(bench);
    const size_t lane = lane_of(bench, &one, LANE_ANY);
    is_acknowledged = true;
    for (unsigned ms = 0; ms < 3500; ms += 50)
        turn(bench, 50);
    assert_int_equal(one.done, 0);
    answer_written(lane, 0, RCODE_NOERROR);
    assert_true(one.has_answer);
}

static void F5_dead_path_is_noticed_on_a_lane_too(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    start(bench);
    lane_of(bench, &one, LANE_ANY);
    for (unsigned ms = 0; ms < 2500; ms += 50)
        turn(bench, 50);
    assert_int_equal(one.failure, FAILURE_REQUEST_TIMEOUT);
}

static void lane_goes_to_another_upstream_than_the_one_to_avoid(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    bench->config.snapshot.upstream_count = 2;
    begin(bench);
    asked_init(&one, "x");
    assert_true(request_submit_alone(bench->group, &one.request, 1, LANE_ANY) == STATUS_OK);
    assert_int_equal(one.request.upstream, 1);
    request_cancel(&one.request);
    asked_init(&one, "x");
    assert_true(request_submit_alone(bench->group, &one.request, 3, LANE_ANY) == STATUS_OK);
    assert_int_equal(one.request.upstream, 0); /* there is no other */
    request_cancel(&one.request);
    bench->group->slots[0]->path.down = true;
    bench->group->slots[1]->path.down = true;
    asked_init(&one, "x");
    assert_true(request_submit_alone(bench->group, &one.request, 0, LANE_ANY) == STATUS_NOT_FOUND);
}

static void RFC9520_3_1_lane_is_for_no_question_that_was_sent_three_times(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    start(bench);
    asked_init(&one, "x");
    for (size_t i = 0; i < 3; i++) {
        assert_true(request_submit_alone(bench->group, &one.request, 0, LANE_ANY) == STATUS_OK);
        const size_t lane = stream_of(one.request.connection);
        make_ready(lane);
        bench->group->slots[0]->path.answered_ns = bench->loop.now; /* all is well */
        peer_closes(lane, FAILURE_CLOSED);
    }
    assert_true(request_submit_alone(bench->group, &one.request, 0, LANE_ANY) == STATUS_NOT_FOUND);
}

/* --- Limits, lines --- */

static void F4_so_many_lanes_are_opened_at_a_time_and_so_many_are_there(void **state)
{
    struct bench *bench = *state;
    static struct asked all[LANES_MAX + 1];
    struct asked more;
    start(bench);
    for (size_t i = 0; i < LANES_MAX; i++) {
        if (i % LANES_OPENING_MAX == 0 && i > 0) {
            assert_true(submit(bench, &more, LANE_ANY) == STATUS_FULL);
            for (size_t j = i - LANES_OPENING_MAX; j < i; j++)
                make_ready(j);
            turn(bench, 100); /* the bucket of connects */
        }
        assert_true(submit(bench, &all[i], LANE_ANY) == STATUS_OK);
    }
    for (size_t i = LANES_MAX - LANES_OPENING_MAX; i < LANES_MAX; i++)
        make_ready(i);
    assert_true(submit(bench, &more, LANE_ANY) == STATUS_FULL);
    assert_int_equal(stream_count, LANES_MAX);
    answer_last(0);
    assert_true(submit(bench, &more, LANE_ANY) == STATUS_OK);
    assert_int_equal(stream_count, LANES_MAX);
    request_cancel(&more.request);
    for (size_t i = 1; i < LANES_MAX; i++)
        request_cancel(&all[i].request);
}

/* Each on a stream of its own, the first ones. */
static void take_lanes(struct bench *bench, struct asked *asked, size_t count, enum lane_kind kind)
{
    for (size_t i = 0; i < count; i++) {
        assert_true(submit(bench, &asked[i], kind) == STATUS_OK);
        make_ready(i);
        if (i % LANES_OPENING_MAX == 0)
            turn(bench, 100); /* the bucket of connects */
    }
}

/* One that has carried others gives way to it. */
static void K1_fresh_lane_is_found_room_for_among_idle_ones(void **state)
{
    struct bench *bench = *state;
    static struct asked all[LANES_FRESH_MAX];
    struct asked fresh;
    start(bench);
    take_lanes(bench, all, LANES_FRESH_MAX, LANE_ANY);
    answer_last(0);
    assert_true(submit(bench, &fresh, LANE_FRESH) == STATUS_FULL);
    reap();
    assert_null(streams[0].stream);
    assert_true(submit(bench, &fresh, LANE_FRESH) == STATUS_OK);
    request_cancel(&fresh.request);
    for (size_t i = 1; i < LANES_FRESH_MAX; i++)
        request_cancel(&all[i].request);
}

/* The server takes so few that the upstream has all that it may have. */
static void K1_fresh_lane_is_found_room_for_where_the_server_takes_few(void **state)
{
    struct bench *bench = *state;
    struct asked used;
    struct asked fresh;
    start(bench);
    bench->group->slots[0]->alone.admitted = 2; /* one of them for all questions */
    bench->group->slots[0]->alone.until_ns = UINT64_MAX;
    const size_t lane = lane_of(bench, &used, LANE_ANY);
    assert_true(submit(bench, &fresh, LANE_FRESH) == STATUS_FULL); /* it is in use */
    reap();
    answer_last(lane);
    assert_true(submit(bench, &fresh, LANE_FRESH) == STATUS_FULL);
    reap();
    assert_true(submit(bench, &fresh, LANE_FRESH) == STATUS_OK);
    assert_int_not_equal(stream_of(fresh.request.connection), lane);
    request_cancel(&fresh.request);
}

/* Names that are never answered hold a lane for as long as their queries wait. */
static void K1_what_is_lost_leaves_half_of_the_lanes_to_suspects(void **state)
{
    struct bench *bench = *state;
    static struct asked lost[LANES_LOST];
    struct asked more;
    struct asked suspect;
    start(bench);
    take_lanes(bench, lost, LANES_LOST, LANE_LOST);
    assert_true(submit(bench, &more, LANE_LOST) == STATUS_FULL);
    assert_true(submit(bench, &suspect, LANE_ANY) == STATUS_OK);
    request_cancel(&suspect.request);
    answer_last(0);
    assert_true(submit(bench, &more, LANE_LOST) == STATUS_OK);
    request_cancel(&more.request);
    for (size_t i = 1; i < LANES_LOST; i++)
        request_cancel(&lost[i].request);
}

static void K1_what_is_lost_leaves_half_where_the_server_takes_few(void **state)
{
    struct bench *bench = *state;
    struct asked lost[3];
    struct asked suspect;
    start(bench);
    bench->group->slots[0]->alone.admitted = 5; /* four of them are for lanes */
    bench->group->slots[0]->alone.until_ns = UINT64_MAX;
    for (size_t i = 0; i < 2; i++)
        (void)lane_of(bench, &lost[i], LANE_LOST);
    assert_true(submit(bench, &lost[2], LANE_LOST) == STATUS_FULL);
    assert_true(submit(bench, &suspect, LANE_ANY) == STATUS_OK);
    request_cancel(&suspect.request);
    for (size_t i = 0; i < 2; i++)
        request_cancel(&lost[i].request);
}

static void K1_who_waits_for_a_lane_has_the_first_that_is_free_in_turn(void **state)
{
    struct bench *bench = *state;
    static struct asked all[LANES_OPENING_MAX];
    struct in_line first;
    struct in_line second;
    start(bench);
    for (size_t i = 0; i < LANES_OPENING_MAX; i++)
        assert_true(submit(bench, &all[i], LANE_ANY) == STATUS_OK);
    wait_in_line(bench, &first, LINE_LANES, LANE_ANY);
    wait_in_line(bench, &second, LINE_LANES, LANE_ANY);
    reap();
    assert_true(waits(&first) && waits(&second));
    make_ready(0);
    reap();
    assert_false(waits(&first)); /* one more may be opened */
    assert_true(waits(&second));
    answer_last(0);
    reap();
    assert_false(waits(&second));
    assert_int_equal(stream_of(second.asked.request.connection), 0);
    request_cancel(&first.asked.request);
    request_cancel(&second.asked.request);
    for (size_t i = 1; i < LANES_OPENING_MAX; i++)
        request_cancel(&all[i].request);
}

/* What frees room may not tell: it is looked at every now and then. */
static void line_for_lanes_moves_by_itself(void **state)
{
    struct bench *bench = *state;
    struct in_line one;
    start(bench);
    bench->group->next_connect_ns = UINT64_MAX;
    wait_in_line(bench, &one, LINE_LANES, LANE_ANY);
    turn(bench, 50);
    assert_true(waits(&one));
    bench->group->next_connect_ns = 0;
    turn(bench, 50);
    assert_false(waits(&one));
    request_cancel(&one.asked.request);
}

static void K9_known_bad_ones_have_two_lanes_and_twenty_opens_a_second(void **state)
{
    struct bench *bench = *state;
    struct asked bad[LANES_CONFINED + 1];
    struct asked good;
    start(bench);
    assert_true(submit(bench, &bad[0], LANE_CONFINED) == STATUS_OK);
    assert_true(submit(bench, &bad[1], LANE_CONFINED) == STATUS_FULL);
    turn(bench, CONFINED_MS);
    assert_true(submit(bench, &bad[1], LANE_CONFINED) == STATUS_OK);
    turn(bench, CONFINED_MS);
    assert_true(submit(bench, &bad[2], LANE_CONFINED) == STATUS_FULL);
    assert_true(submit(bench, &good, LANE_ANY) == STATUS_OK); /* others have theirs */
    request_cancel(&good.request);
    make_ready(0);
    answer_last(0);
    assert_true(submit(bench, &good, LANE_ANY) == STATUS_OK);
    assert_int_not_equal(stream_of(good.request.connection), 0);
    assert_true(submit(bench, &bad[2], LANE_CONFINED) == STATUS_OK);
    assert_int_equal(stream_of(bad[2].request.connection), 0);
    request_cancel(&good.request);
    for (size_t i = 1; i <= LANES_CONFINED; i++)
        request_cancel(&bad[i].request);
}

static void K9_newest_of_the_known_bad_ones_is_the_first(void **state)
{
    struct bench *bench = *state;
    struct asked bad;
    struct in_line older;
    struct in_line newer;
    start(bench);
    assert_true(submit(bench, &bad, LANE_CONFINED) == STATUS_OK);
    make_ready(0);
    wait_in_line(bench, &older, LINE_CONFINED, LANE_CONFINED);
    wait_in_line(bench, &newer, LINE_CONFINED, LANE_CONFINED);
    answer_last(0);
    reap();
    assert_false(waits(&newer));
    assert_true(waits(&older));
    answer_last(0);
    reap();
    assert_false(waits(&older));
    request_cancel(&older.asked.request);
}

/* Those who wait for a lane are not behind those who are known to be bad. */
static void K9_no_line_waits_for_another(void **state)
{
    struct bench *bench = *state;
    struct asked bad;
    struct in_line confined;
    struct in_line crowded;
    struct in_line suspect;
    start(bench);
    assert_true(submit(bench, &bad, LANE_CONFINED) == STATUS_OK);
    wait_in_line(bench, &confined, LINE_CONFINED, LANE_CONFINED);
    wait_in_line(bench, &suspect, LINE_LANES, LANE_ANY);
    wait_in_line(bench, &crowded, LINE_CROWD, LANE_ANY);
    waiting_serve_soon(&bench->group->waiting);
    reap();
    assert_true(waits(&confined));
    assert_false(waits(&suspect) || waits(&crowded));
    list_remove(&confined.waiter.link);
    request_cancel(&bad.request);
    request_cancel(&suspect.asked.request);
    request_cancel(&crowded.asked.request);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(K1_lane_carries_one_question_at_a_time),
        TEST(K1_lane_whose_question_was_given_up_is_closed),
        TEST(K1_lane_closes_behind_its_eighth_answer),
        TEST(K1_fresh_lane_has_carried_nothing_else),
        TEST(lane_closes_when_nobody_needs_it_for_a_second),
        TEST(K1_no_query_goes_to_a_lane),
        TEST(K8_server_may_take_its_time_on_a_lane),
        TEST(F5_dead_path_is_noticed_on_a_lane_too),
        TEST(lane_goes_to_another_upstream_than_the_one_to_avoid),
        TEST(RFC9520_3_1_lane_is_for_no_question_that_was_sent_three_times),
        TEST(F4_so_many_lanes_are_opened_at_a_time_and_so_many_are_there),
        TEST(K1_fresh_lane_is_found_room_for_among_idle_ones),
        TEST(K1_fresh_lane_is_found_room_for_where_the_server_takes_few),
        TEST(K1_what_is_lost_leaves_half_of_the_lanes_to_suspects),
        TEST(K1_what_is_lost_leaves_half_where_the_server_takes_few),
        TEST(K1_who_waits_for_a_lane_has_the_first_that_is_free_in_turn),
        TEST(line_for_lanes_moves_by_itself),
        TEST(K9_known_bad_ones_have_two_lanes_and_twenty_opens_a_second),
        TEST(K9_newest_of_the_known_bad_ones_is_the_first),
        TEST(K9_no_line_waits_for_another),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
