// SPDX-License-Identifier: Apache-2.0
/* The way to one upstream: what takes it down, what makes it doubted, what ends that. */
#include "test.h"

#include "upstream/path.h"

#define MS NANOSECONDS_PER_MILLISECOND
#define RTT_NS (20 * MS)

static struct loop loop;
static struct upstream_metrics metrics;
static struct random random_state;
static struct config config;
static struct path path;
static unsigned backs, fails, doubts;

static void on_back(struct path *of)
{
    assert_ptr_equal(of, &path);
    backs++;
}

static void on_failed(struct path *of, enum failure failure)
{
    assert_ptr_equal(of, &path);
    assert_int_not_equal(failure, FAILURE_NONE);
    fails++;
}

static void on_doubted(struct path *of)
{
    assert_ptr_equal(of, &path);
    doubts++;
}

static const struct path_events events = {
    .on_back = on_back, .on_failed = on_failed, .on_doubted = on_doubted};

/* It is up and has answered in RTT_NS, just now. */
static int path_setup(void **state)
{
    (void)state;
    loop = (struct loop){.now = 1000 * NANOSECONDS_PER_SECOND};
    metrics = (struct upstream_metrics){0};
    config = (struct config){.snapshot.timeouts.request_ns = 2000 * MS};
    path = (struct path){.events = &events,
                         .loop = &loop,
                         .config = &config,
                         .snapshot = &config.snapshot,
                         .label = "one.test",
                         .metrics = &metrics,
                         .random = &random_state};
    random_init(&random_state);
    times_init(&path.times);
    path_set_down(&path, false);
    path_heard(&path, loop.now);
    path_measure(&path, RTT_NS);
    backs = fails = doubts = 0;
    return 0;
}

static void after(uint64_t duration_ns)
{
    loop.now += duration_ns;
}

static void K2_one_close_says_nothing_however_long_ago_it_answered(void **state)
{
    (void)state;
    after(10 * NANOSECONDS_PER_SECOND);
    path_ended(&path, FAILURE_CLOSED, 0);
    assert_true(path_is_usable(&path));
    assert_int_equal(fails + doubts, 0);
}

static void K2_closes_between_answers_say_nothing(void **state)
{
    (void)state;
    for (size_t i = 0; i < 100; i++) {
        after(NANOSECONDS_PER_SECOND);
        path_heard(&path, loop.now);
        path_ended(&path, FAILURE_CLOSED, 0);
    }
    assert_true(path_is_usable(&path));
}

static void K2_closes_in_a_moment_say_nothing(void **state)
{
    (void)state;
    after(50 * MS + 4 * RTT_NS - 1);
    for (size_t i = 0; i < 100; i++)
        path_ended(&path, FAILURE_CLOSED, 0);
    assert_true(path_is_usable(&path));
}

static void F4_closes_with_nothing_answered_in_between_are_a_doubt(void **state)
{
    (void)state;
    after(50 * MS + 4 * RTT_NS);
    path_ended(&path, FAILURE_CLOSED, 0);
    path_ended(&path, FAILURE_CLOSED, 0);
    assert_false(path_is_usable(&path));
    assert_false(path.down);
    assert_int_equal(doubts, 1);
    assert_int_equal(path.last_failure, FAILURE_CLOSED);
    assert_int_equal(metric_get(&metrics.up), 0);
    path_ended(&path, FAILURE_CLOSED, 0);
    assert_int_equal(doubts, 1);
}

static void F5_a_silence_in_which_nothing_is_heard_is_a_doubt(void **state)
{
    (void)state;
    const uint64_t since_ns = loop.now;
    after(500 * MS);
    path_ended(&path, FAILURE_REQUEST_TIMEOUT, since_ns);
    assert_int_equal(doubts, 1);
}

static void K8_a_silence_beside_answers_is_none(void **state)
{
    (void)state;
    const uint64_t since_ns = loop.now;
    after(500 * MS);
    path_heard(&path, loop.now);
    path_ended(&path, FAILURE_REQUEST_TIMEOUT, since_ns);
    assert_true(path_is_usable(&path));
}

static void F20_whatever_it_answers_ends_a_doubt(void **state)
{
    (void)state;
    path_doubt(&path, FAILURE_CLOSED);
    after(MS);
    path_heard(&path, loop.now - MS);
    assert_true(path_is_usable(&path));
    assert_int_equal(backs, 1);
    assert_int_equal(metric_get(&metrics.up), 1);
    assert_int_equal(path.answered_ns, loop.now);
    assert_int_equal(path.answered_sent_ns, loop.now - MS);
}

static void F10_what_was_sent_earlier_does_not_set_back_what_is_answered(void **state)
{
    (void)state;
    const uint64_t sent_ns = loop.now;
    after(MS);
    path_heard(&path, sent_ns - MS);
    assert_int_equal(path.answered_sent_ns, sent_ns);
}

static void F4_a_refused_connect_counts_the_second_time(void **state)
{
    (void)state;
    path_failed(&path, FAILURE_REFUSED_CONNECTION, "");
    assert_true(path_is_usable(&path));
    path_failed(&path, FAILURE_REFUSED_CONNECTION, "");
    assert_true(path.down);
    assert_int_equal(fails, 2);
    assert_true(path.retry_ns > loop.now);
}

static void F4_answers_in_between_begin_the_count_anew(void **state)
{
    (void)state;
    for (size_t i = 0; i < 10; i++) {
        path_failed(&path, FAILURE_REFUSED_CONNECTION, "");
        assert_true(path_is_usable(&path));
        path_answered(&path);
    }
}

static void F6_what_took_a_timeout_counts_at_once(void **state)
{
    (void)state;
    path_failed(&path, FAILURE_CONNECT_TIMEOUT, "");
    assert_true(path.down);
    path_connected(&path);
    assert_true(path_is_usable(&path));
    assert_int_equal(backs, 1);
    path_connected(&path);
    assert_int_equal(backs, 1);
}

static void F18_what_is_down_is_not_doubted_besides(void **state)
{
    (void)state;
    path_failed(&path, FAILURE_CONNECT_TIMEOUT, "");
    path_doubt(&path, FAILURE_CLOSED);
    assert_int_equal(doubts, 0);
    assert_false(path.is_doubted);
}

static uint64_t back_off(void)
{
    path_failed(&path, FAILURE_CONNECT_TIMEOUT, "");
    return path.retry_ns - loop.now;
}

static void F4_the_back_off_doubles_with_jitter_up_to_half_a_minute(void **state)
{
    (void)state;
    for (uint64_t wanted_ns = 100 * MS; wanted_ns <= 25600 * MS; wanted_ns *= 2) {
        const uint64_t seen_ns = back_off();
        assert_true(seen_ns >= wanted_ns / 4 * 3 && seen_ns <= wanted_ns / 4 * 5);
    }
    for (size_t i = 0; i < 100; i++) {
        const uint64_t seen_ns = back_off();
        assert_true(seen_ns >= 22500 * MS && seen_ns <= 37500 * MS);
    }
}

static void F4_who_is_ourselves_is_tried_again_after_a_minute(void **state)
{
    (void)state;
    path_failed(&path, FAILURE_SELF, "");
    assert_true(path.down);
    const uint64_t seen_ns = path.retry_ns - loop.now;
    assert_true(seen_ns >= 45000 * MS && seen_ns <= 75000 * MS);
}

static void F5_late_follows_what_answers_take(void **state)
{
    (void)state;
    const uint64_t before_ns = path.late.duration_ns;
    for (size_t i = 0; i < 200; i++) {
        after(MS);
        path_measure(&path, 4 * RTT_NS);
    }
    assert_true(path.late.duration_ns > 2 * before_ns);
    assert_int_equal(metric_get(&metrics.rtt_ns), path.times.rtt_ns);
}

#define TEST(function) cmocka_unit_test_setup(function, path_setup)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(K2_one_close_says_nothing_however_long_ago_it_answered),
        TEST(K2_closes_between_answers_say_nothing),
        TEST(K2_closes_in_a_moment_say_nothing),
        TEST(F4_closes_with_nothing_answered_in_between_are_a_doubt),
        TEST(F5_a_silence_in_which_nothing_is_heard_is_a_doubt),
        TEST(K8_a_silence_beside_answers_is_none),
        TEST(F20_whatever_it_answers_ends_a_doubt),
        TEST(F10_what_was_sent_earlier_does_not_set_back_what_is_answered),
        TEST(F4_a_refused_connect_counts_the_second_time),
        TEST(F4_answers_in_between_begin_the_count_anew),
        TEST(F6_what_took_a_timeout_counts_at_once),
        TEST(F18_what_is_down_is_not_doubted_besides),
        TEST(F4_the_back_off_doubles_with_jitter_up_to_half_a_minute),
        TEST(F4_who_is_ourselves_is_tried_again_after_a_minute),
        TEST(F5_late_follows_what_answers_take),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
