// SPDX-License-Identifier: Apache-2.0
/* The choice of an upstream: strategies, health, back-off, trials, attempts. */
#include <limits.h>

#include "fake_stream.h"

#include "durations.h"

/* The upstream that a request was sent to; the request is cancelled. */
static size_t chosen(struct bench *bench, const char *label)
{
    struct asked one;
    ask(bench, &one, label);
    request_cancel(&one.request);
    return one.request.upstream;
}

static void cool_down(struct bench *bench, size_t upstream)
{
    bench->group->slots[upstream]->path.down = true;
    bench->group->slots[upstream]->path.retry_ns = UINT64_MAX;
}

static void ordered_takes_the_first_that_is_up(void **state)
{
    struct bench *bench = *state;
    begin(bench);
    assert_int_equal(chosen(bench, "x"), 0);
    cool_down(bench, 0);
    assert_int_equal(chosen(bench, "x"), 1);
    cool_down(bench, 1);
    assert_int_equal(chosen(bench, "x"), 2);
}

static void weighted_shares_by_weight(void **state)
{
    struct bench *bench = *state;
    size_t counts[UPSTREAMS_MAX] = {0};
    bench->config.snapshot.strategy = STRATEGY_WEIGHTED;
    bench->config.limits.upstream_requests = 10000; /* cancelled ones keep their IDs */
    for (size_t i = 0; i < UPSTREAMS_MAX; i++)
        bench->config.snapshot.upstreams[i].weight = (uint32_t)(i + 1);
    begin(bench);
    for (size_t i = 0; i < 1000; i++)
        counts[chosen(bench, "x")]++;
    /* 5.5 standard deviations of the widest, the binomial of 0.4: beyond by chance 4 in 10^8. */
    for (size_t i = 0; i < UPSTREAMS_MAX; i++)
        assert_in_range(counts[i], 100 * (i + 1) - 85, 100 * (i + 1) + 85);
}

static void hash_keeps_a_name_at_its_upstream_and_moves_only_those_of_a_dead_one(void **state)
{
    struct bench *bench = *state;
    size_t home[64];
    bool is_used[UPSTREAMS_MAX] = {false};
    bench->config.snapshot.strategy = STRATEGY_HASH;
    begin(bench);
    for (size_t i = 0; i < 64; i++) {
        char label[8];
        snprintf(label, sizeof(label), "n%zu", i);
        home[i] = chosen(bench, label);
        is_used[home[i]] = true;
        assert_int_equal(chosen(bench, label), home[i]);
    }
    for (size_t i = 0; i < UPSTREAMS_MAX; i++)
        assert_true(is_used[i]); /* one is not by chance 4 (3/4)^64 = 4 in 10^8 times */
    cool_down(bench, 2);
    for (size_t i = 0; i < 64; i++) {
        char label[8];
        snprintf(label, sizeof(label), "n%zu", i);
        const size_t now = chosen(bench, label);
        if (home[i] == 2)
            assert_int_not_equal(now, 2);
        else
            assert_int_equal(now, home[i]);
    }
}

static void fastest_prefers_the_quick_and_measures_the_others_again(void **state)
{
    struct bench *bench = *state;
    size_t counts[UPSTREAMS_MAX] = {0};
    bench->config.snapshot.strategy = STRATEGY_FASTEST;
    bench->config.limits.upstream_requests = 10000;
    bench->config.snapshot.upstream_count = 2;
    begin(bench);
    bench->group->slots[0]->path.times.expected_ns = 5 * NANOSECONDS_PER_MILLISECOND;
    bench->group->slots[1]->path.times.expected_ns = 20 * NANOSECONDS_PER_MILLISECOND;
    for (size_t i = 0; i < 100; i++)
        counts[chosen(bench, "x")]++;
    assert_int_equal(counts[0], 100);
    for (size_t i = 0; i < 5000; i++)
        counts[chosen(bench, "x")]++;
    assert_true(counts[1] > 0);
}

static void fastest_turns_away_from_one_that_piles_up(void **state)
{
    struct bench *bench = *state;
    struct asked asks[20];
    size_t counts[UPSTREAMS_MAX] = {0};
    bench->config.snapshot.strategy = STRATEGY_FASTEST;
    bench->config.snapshot.upstream_count = 2;
    begin(bench);
    bench->group->slots[0]->path.times.expected_ns = 5 * NANOSECONDS_PER_MILLISECOND;
    bench->group->slots[1]->path.times.expected_ns = 10 * NANOSECONDS_PER_MILLISECOND;
    for (size_t i = 0; i < 20; i++) {
        ask(bench, &asks[i], "x");
        counts[asks[i].request.upstream]++;
    }
    assert_in_range(counts[1], 4, 10);
    for (size_t i = 0; i < 20; i++)
        request_cancel(&asks[i].request);
}

/* Asks `count` times; each upstream answers after so many milliseconds, with its code. Returns how
 * often the last of two was asked. */
static size_t asked_last(struct bench *bench, size_t count, const uint64_t ms[2],
                         const enum rcode rcodes[2])
{
    size_t last = 0;
    for (size_t i = 0; i < count; i++) {
        struct asked one;
        const size_t stream = ask(bench, &one, "x");
        const size_t upstream = one.request.upstream;
        for (size_t j = 0; j < stream_count; j++)
            if (streams[j].stream && streams[j].stream->state < STREAM_OPEN)
                make_ready(j);
        const size_t asked = streams[stream].written_count - 1;
        turn(bench, ms[upstream]);
        answer_written(stream, asked, rcodes[upstream]);
        streams[stream].written_count = 0; /* there is no room for so many */
        assert_int_equal(one.done, 1);
        last += upstream == 1;
    }
    return last;
}

static const enum rcode both_good[2] = {RCODE_NOERROR, RCODE_NOERROR};

static void fastest_finds_a_once_slow_upstream_again(void **state)
{
    struct bench *bench = *state;
    bench->config.snapshot.strategy = STRATEGY_FASTEST;
    bench->config.snapshot.upstream_count = 2;
    begin(bench);
    asked_last(bench, 500, (uint64_t[2]){5, 200}, both_good);
    assert_in_range(bench->group->slots[1]->path.times.rtt_ns, 190 * NANOSECONDS_PER_MILLISECOND,
                    200 * NANOSECONDS_PER_MILLISECOND);
    /* As long as it is slow it is tried now and then, and each trial tells: ln(200 / 5) * 1024. */
    assert_in_range(asked_last(bench, 20000, (uint64_t[2]){5, 200}, both_good), 2, 8);
    /* The first trial that is quick is enough. */
    for (size_t i = 0; asked_last(bench, 1, (uint64_t[2]){5, 3}, both_good) == 0; i++)
        assert_in_range(i, 0, 5000);
    assert_in_range(asked_last(bench, 200, (uint64_t[2]){5, 3}, both_good), 190, 200);
}

/* A name that is slow, or fails slowly, is no reason to ask elsewhere. */
static void fastest_is_not_led_by_single_names(void **state)
{
    struct bench *bench = *state;
    static const enum rcode first_fails[2] = {RCODE_SERVFAIL, RCODE_NOERROR};
    bench->config.snapshot.strategy = STRATEGY_FASTEST;
    bench->config.snapshot.upstream_count = 2;
    begin(bench);
    is_acknowledged = true;
    asked_last(bench, 100, (uint64_t[2]){5, 100}, both_good);
    for (size_t i = 0; i < 20; i++) {
        asked_last(bench, 1, (uint64_t[2]){900, 100}, i % 2 ? both_good : first_fails);
        assert_in_range(asked_last(bench, 100, (uint64_t[2]){5, 100}, both_good), 0, 1);
    }
}

static void F19_errors_at_once_are_not_the_fastest_answer(void **state)
{
    struct bench *bench = *state;
    static const enum rcode first_fails[2] = {RCODE_SERVFAIL, RCODE_NOERROR};
    bench->config.snapshot.strategy = STRATEGY_FASTEST;
    bench->config.snapshot.upstream_count = 2;
    begin(bench);
    assert_in_range(asked_last(bench, 1000, (uint64_t[2]){1, 20}, first_fails), 990, 1000);
}

static void retry_goes_to_each_upstream_before_any_twice_and_to_none_thrice(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    bench->config.snapshot.upstream_count = 2;
    begin(bench);
    ask(bench, &one, "x");
    assert_int_equal(one.request.upstream, 0);
    request_cancel(&one.request);
    assert_true(ask_again(bench, &one) == STATUS_OK);
    assert_int_equal(one.request.upstream, 1);
    request_cancel(&one.request);
    assert_true(ask_again(bench, &one) == STATUS_OK);
    request_cancel(&one.request);
    assert_true(ask_again(bench, &one) == STATUS_OK);
    request_cancel(&one.request);
    assert_true(ask_again(bench, &one) == STATUS_NOT_FOUND);
}

static void elsewhere_is_never_the_same_upstream(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    enum failure failure;
    bench->config.snapshot.upstream_count = 1;
    begin(bench);
    ask(bench, &one, "x");
    request_cancel(&one.request);
    assert_true(request_submit(bench->group, &one.request, REQUEST_ELSEWHERE, &failure) ==
                STATUS_NOT_FOUND);
}

static void one_quick_failure_is_chance_and_two_take_an_upstream_down(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    begin(bench);
    ask(bench, &one, "x");
    peer_closes(0, FAILURE_REFUSED_CONNECTION);
    assert_int_equal(chosen(bench, "x"), 0);
    peer_closes(1, FAILURE_REFUSED_CONNECTION);
    assert_int_equal(chosen(bench, "x"), 1);
    assert_int_equal(metric_get(&bench->metrics->upstreams[0].up), 0);
}

static void timeout_takes_an_upstream_down_at_once(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    begin(bench);
    ask(bench, &one, "x");
    turn(bench, 1000);
    assert_int_equal(one.failure, FAILURE_CONNECT_TIMEOUT);
    assert_int_equal(chosen(bench, "x"), 1);
}

static void recovery_is_found_by_a_trial_that_no_query_pays_for(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    begin(bench);
    ask(bench, &one, "x");
    turn(bench, 1000);
    assert_int_equal(chosen(bench, "x"), 1); /* stream 1 */
    turn(bench, 200);                        /* over the first back-off with its jitter */
    assert_int_equal(chosen(bench, "x"), 1);
    assert_int_equal(stream_count, 3); /* the trial */
    assert_int_equal(address_port(&streams[2].peer), 1000);
    assert_int_equal(streams[2].written_count, 0);
    assert_int_equal(chosen(bench, "x"), 1);
    make_ready(2);
    assert_int_equal(metric_get(&bench->metrics->upstreams[0].up), 1);
    assert_int_equal(chosen(bench, "x"), 0);
}

static void F4_backoff_doubles_with_jitter_up_to_its_limit(void **state)
{
    struct bench *bench = *state;
    struct upstream *upstream;
    begin(bench);
    upstream = bench->group->slots[0];
    for (uint64_t expected_ms = 100; expected_ms < 60000; expected_ms *= 2) {
        path_failed(&upstream->path, FAILURE_CONNECT_TIMEOUT, "");
        const uint64_t backoff_ms =
            (upstream->path.retry_ns - bench->loop.now) / NANOSECONDS_PER_MILLISECOND;
        const uint64_t bounded_ms = expected_ms < 30000 ? expected_ms : 30000;
        assert_in_range(backoff_ms, bounded_ms * 3 / 4, bounded_ms * 5 / 4);
    }
}

static void F18_all_down_is_a_failure_at_once_and_tried_again_soon(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    bench->config.snapshot.upstream_count = 2;
    begin(bench);
    for (size_t i = 0; i < 2; i++) {
        for (size_t j = 0; j < 8; j++)
            path_failed(&bench->group->slots[i]->path, FAILURE_UNREACHABLE, "");
        bench->group->slots[i]->attempted_ns = bench->loop.now;
    }
    ask_in_vain(bench, &one);
    assert_int_equal(one.failure, FAILURE_UNREACHABLE);
    assert_int_equal(stream_count, 0);
    turn(bench, 250);
    ask_in_vain(bench, &one);
    assert_int_equal(stream_count, 2); /* nobody knows which will be back first */
    make_ready(1);
    ask(bench, &one, "x");
    answer_written(1, 0, RCODE_NOERROR);
    assert_int_equal(one.done, 1);
    assert_int_equal(bench->group->slots[1]->path.failures, 0);
}

static const struct asked *waiting;
static unsigned late_when_done;

static void note_late_of_the_other(struct request *request, const struct answer *answer,
                                   enum failure failure)
{
    (void)request;
    assert_non_null(answer);
    assert_int_equal(failure, FAILURE_SERVER_FAILURE);
    late_when_done = waiting->late;
}

/* A lookup may have both requests out: were the second woken while the first ends, it would send
 * the first again under the feet of its own on_done. */
static void F17_recovery_wakes_nobody_while_a_request_ends(void **state)
{
    struct bench *bench = *state;
    struct asked ending;
    struct asked other;
    bench->config.snapshot.upstream_count = 2;
    begin(bench);
    ask(bench, &ending, "x");
    make_ready(0);
    ending.request.on_done = note_late_of_the_other;
    cool_down(bench, 0);
    ask(bench, &other, "y");
    bench->group->slots[1]->path.down = true;
    waiting = &other;
    late_when_done = UINT_MAX;
    answer_written(0, 0, RCODE_SERVFAIL);
    assert_int_equal(late_when_done, 0);
    assert_false(bench->group->slots[0]->path.down);
    assert_int_equal(other.late, 1); /* at the end of the turn */
    request_cancel(&other.request);
}

static void connect_that_cannot_begin_moves_on_in_the_same_call(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    begin(bench);
    refuse_connects = FAILURE_UNREACHABLE;
    asked_init(&one, "x");
    assert_true(ask_again(bench, &one) == STATUS_NOT_FOUND);
    assert_int_equal(one.failure, FAILURE_UNREACHABLE);
    for (size_t i = 0; i < UPSTREAMS_MAX; i++)
        assert_int_equal(metric_get(&bench->metrics->upstreams[i].failures[FAILURE_UNREACHABLE]),
                         2);
}

static void I1_want_of_descriptors_is_not_the_upstreams_fault(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    begin(bench);
    refuse_connects = FAILURE_LOCAL;
    asked_init(&one, "x");
    assert_true(ask_again(bench, &one) == STATUS_NOT_FOUND);
    assert_int_equal(one.failure, FAILURE_LOCAL);
    assert_false(bench->group->slots[0]->path.down);
}

/* --- Hedges --- */

/* One request of `one` in flight on upstream 0, which has been silent for long; upstreams 0 and 1
 * are ready, the third is not. */
static void fall_silent(struct bench *bench, struct asked *one)
{
    bench->config.snapshot.upstream_count = 3;
    begin(bench);
    struct asked warm;
    for (size_t i = 0; i < 2; i++) {
        cool_down(bench, 1 - i);
        assert_int_equal(ask(bench, &warm, "warm"), i);
        make_ready(i);
        answer_written(i, 0, RCODE_NOERROR);
        bench->group->slots[1 - i]->path.down = false;
        bench->group->slots[i]->path.down = false;
    }
    assert_int_equal(ask(bench, one, "late"), 0);
    turn(bench, 300);
    assert_true(one->late > 0);
}

/* A second request for the lookup of `one`. */
static enum status hedge(struct bench *bench, struct asked *one, struct asked *second)
{
    asked_init(second, "late");
    second->request.attempts = one->request.attempts;
    return request_hedge(bench->group, &one->request, &second->request);
}

static void late_request_is_hedged_to_another_that_is_ready(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    struct asked second;
    fall_silent(bench, &one);
    assert_true(hedge(bench, &one, &second) == STATUS_OK);
    assert_int_equal(second.request.upstream, 1);
    assert_int_equal(metric_get(&bench->metrics->upstreams[1].hedges), 1);
    answer_written(1, 1, RCODE_NOERROR);
    assert_int_equal(second.done, 1);
    assert_int_equal(metric_get(&bench->metrics->upstreams[1].hedges_won), 1);
    request_cancel(&one.request);
}

static void hedge_goes_to_none_that_is_busy_silent_or_not_ready(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    struct asked second;
    struct upstream *other;
    fall_silent(bench, &one);
    other = bench->group->slots[1];
    other->path.in_flight += 51;
    assert_true(hedge(bench, &one, &second) == STATUS_NOT_FOUND);
    other->path.in_flight -= 51;
    other->path.down = true;
    assert_true(hedge(bench, &one, &second) == STATUS_NOT_FOUND);
    other->path.down = false;
    one.attempts.once = 2; /* its lookup has asked it before */
    assert_true(hedge(bench, &one, &second) == STATUS_NOT_FOUND);
    assert_int_equal(metric_get(&bench->metrics->hedges_denied), 0);
    request_cancel(&one.request);
}

static void hedges_are_a_burst_and_then_one_of_twenty_requests(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    struct asked second;
    size_t count = 0;
    bench->config.limits.upstream_requests = 10000;
    fall_silent(bench, &one);
    bench->group->hedge_credit = HEDGE_BURST * HEDGE_COST - 1;
    for (size_t i = 0; i < 3; i++) {
        struct asked more;
        (void)ask(bench, &more, "more");
        request_cancel(&more.request);
    }
    while (hedge(bench, &one, &second) == STATUS_OK) {
        request_cancel(&second.request);
        one.attempts = (struct attempts){.once = 1};
        count++;
    }
    assert_int_equal(count, HEDGE_BURST);
    assert_int_equal(metric_get(&bench->metrics->hedges_denied), 1);
    for (size_t i = 0; i < 100; i++)
        (void)chosen(bench, "x");
    for (count = 0; hedge(bench, &one, &second) == STATUS_OK; count++) {
        request_cancel(&second.request);
        one.attempts = (struct attempts){.once = 1};
    }
    assert_int_equal(count, 100 / HEDGE_COST);
    request_cancel(&one.request);
}

static void half_of_the_burst_is_for_silent_connections(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    struct asked second;
    fall_silent(bench, &one);
    bench->group->hedge_credit = HEDGE_BURST * HEDGE_COST / 2;
    one.request.connection->silent_since_ns = 0; /* merely slow */
    assert_true(hedge(bench, &one, &second) == STATUS_FULL);
    one.request.connection->silent_since_ns = bench->loop.now;
    assert_true(hedge(bench, &one, &second) == STATUS_OK);
    request_cancel(&second.request);
    request_cancel(&one.request);
}

/* The other was idle and has closed: it is opened for the hedge, which then need not wait. */
static void hedge_makes_another_ready_when_none_is(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    struct asked second;
    fall_silent(bench, &one);
    bench->group->slots[1]->path.down = true;
    const size_t before = stream_count;
    assert_true(hedge(bench, &one, &second) == STATUS_NOT_FOUND);
    assert_int_equal(stream_count, before + 1);
    assert_int_equal(metric_get(&bench->metrics->upstreams[2].connects), 1);
    make_ready(before);
    assert_true(hedge(bench, &one, &second) == STATUS_OK);
    assert_int_equal(second.request.upstream, 2);
    request_cancel(&second.request);
    request_cancel(&one.request);
}

/* Slow names that were hedged there, which say nothing about it. */
static void K7_hedge_makes_another_ready_whose_connection_is_silent(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    struct asked second;
    fall_silent(bench, &one);
    bench->group->slots[2]->path.down = true;
    struct list *others = &bench->group->slots[1]->connections;
    connection_fall_silent(CONTAINER_OF(others->next, struct connection, link), bench->loop.now);
    const size_t before = stream_count;
    for (size_t i = 0; i < 2; i++)
        assert_true(hedge(bench, &one, &second) == STATUS_NOT_FOUND);
    assert_int_equal(stream_count, before + 1);
    make_ready(before);
    assert_true(hedge(bench, &one, &second) == STATUS_OK);
    assert_int_equal(second.request.upstream, 1);
    assert_int_equal(stream_of(second.request.connection), before);
    request_cancel(&second.request);
    request_cancel(&one.request);
}

/* An answer lost among others must not cost its query the reply, however many hedges there were. */
static void request_without_an_answer_for_its_time_needs_no_budget(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    struct asked second;
    fall_silent(bench, &one);
    bench->group->hedge_credit = 0;
    assert_true(hedge(bench, &one, &second) == STATUS_FULL);
    bench->loop.now = one.request.sent_ns + bench->config.snapshot.timeouts.request_ns;
    assert_true(hedge(bench, &one, &second) == STATUS_OK);
    assert_int_equal(bench->group->hedge_credit, 0);
    request_cancel(&second.request);
    request_cancel(&one.request);
}

/* Both requests of a lookup are lost, or wait for handshakes: one moves on. */
static void request_that_is_lost_moves_to_one_not_yet_asked(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    struct asked other;
    fall_silent(bench, &one);
    cool_down(bench, 0);
    cool_down(bench, 1);
    assert_int_equal(ask(bench, &other, "late"), 2); /* which has still to be connected to */
    bench->group->slots[1]->path.down = false;
    assert_true(request_move(bench->group, &one.request, &other.request) == STATUS_NOT_FOUND);
    assert_true(request_move(bench->group, &other.request, &one.request) == STATUS_NOT_FOUND);
    bench->loop.now = one.request.sent_ns + bench->config.snapshot.timeouts.request_ns;
    other.request.sent_ns = bench->loop.now;
    bench->group->slots[1]->path.down = true;
    assert_true(request_move(bench->group, &one.request, &other.request) == STATUS_NOT_FOUND);
    assert_true(request_is_in_flight(&one.request)); /* nobody else is ready */
    bench->group->slots[1]->path.down = false;
    assert_true(request_move(bench->group, &other.request, &one.request) == STATUS_OK);
    assert_int_equal(other.request.upstream, 1); /* it was not even sent, and one is lost */
    request_cancel(&other.request);
    assert_true(request_move(bench->group, &one.request, &one.request) == STATUS_OK);
    assert_int_equal(one.request.upstream, 1);
    request_cancel(&one.request);
}

static void turn_until_late(struct bench *bench, const struct asked *one)
{
    for (unsigned i = 0; i < 60 && one->late == 0; i++)
        turn(bench, 5);
    assert_true(one->late > 0);
}

static void RFC9520_3_1_silent_single_upstream_is_hedged_beside_three_sends_in_all(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    struct asked second;
    bench->config.snapshot.upstream_count = 1;
    begin(bench);
    ask(bench, &one, "warm");
    make_ready(0);
    answer_written(0, 0, RCODE_NOERROR);
    ask(bench, &one, "late");
    turn_until_late(bench, &one);
    assert_true(hedge(bench, &one, &second) == STATUS_NOT_FOUND);
    assert_int_equal(stream_count, 1);
    assert_int_equal(streams[0].written_count, 3); /* a probe: it may be merely slow */
    turn(bench, 100);
    assert_true(hedge(bench, &one, &second) == STATUS_NOT_FOUND);
    assert_int_equal(stream_count, 2); /* it is opened, and waited for by nobody */
    make_ready(1);
    assert_true(hedge(bench, &one, &second) == STATUS_OK);
    assert_int_equal(stream_of(second.request.connection), 1);
    answer_written(1, 0, RCODE_NOERROR);
    assert_int_equal(second.done, 1);
    assert_true(hedge(bench, &one, &second) == STATUS_NOT_FOUND);
    bench->loop.now = one.request.sent_ns + bench->config.snapshot.timeouts.request_ns;
    assert_true(hedge(bench, &one, &second) == STATUS_OK); /* the last time alone */
    assert_true(second.request.connection->use == CONNECTION_LANE);
    request_cancel(&second.request);
    request_cancel(&one.request);
}

/* What it answers to the probe shows whether there is any use in asking it more. */
static void K3_doubted_single_upstream_is_sent_no_hedge(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    struct asked second;
    bench->config.snapshot.upstream_count = 1;
    begin(bench);
    ask(bench, &one, "warm");
    make_ready(0);
    answer_written(0, 0, RCODE_NOERROR);
    ask(bench, &one, "late");
    turn_until_late(bench, &one);
    assert_true(hedge(bench, &one, &second) == STATUS_NOT_FOUND);
    bench->group->slots[0]->path.is_doubted = true;
    turn(bench, 100);
    assert_true(hedge(bench, &one, &second) == STATUS_NOT_FOUND);
    assert_int_equal(stream_count, 1);
    bench->group->slots[0]->path.is_doubted = false;
    assert_true(hedge(bench, &one, &second) == STATUS_NOT_FOUND);
    assert_int_equal(stream_count, 2); /* which is to carry it */
    request_cancel(&one.request);
}

/* A server that accepts and closes would have it three times in one moment. */
static void RFC9520_3_1_question_that_waits_for_a_handshake_moves_and_is_sent_once(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    struct asked second;
    bench->config.snapshot.upstream_count = 1;
    begin(bench);
    ask(bench, &one, "late");
    upstream_open_ahead(bench->group->slots[0]);
    make_ready(1);
    assert_true(hedge(bench, &one, &second) == STATUS_OK);
    assert_false(request_is_in_flight(&one.request));
    make_ready(0);
    assert_int_equal(streams[0].written_count, 0);
    answer_written(1, 0, RCODE_NOERROR);
    assert_int_equal(second.done, 1);
}

static void single_upstream_that_is_merely_slow_is_asked_once(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    struct asked second;
    bench->config.snapshot.upstream_count = 1;
    begin(bench);
    ask(bench, &one, "warm");
    make_ready(0);
    answer_written(0, 0, RCODE_NOERROR);
    ask(bench, &one, "slow");
    turn_until_late(bench, &one);
    assert_true(hedge(bench, &one, &second) == STATUS_NOT_FOUND);
    turn(bench, 5);
    answer_written(0, 2, RCODE_NOERROR); /* the probe */
    for (size_t i = 0; i < 5; i++) {
        const size_t written = streams[0].written_count;
        turn(bench, 50);
        if (streams[0].written_count > written)
            answer_written(0, written, RCODE_NOERROR); /* another */
        assert_true(hedge(bench, &one, &second) == STATUS_NOT_FOUND);
    }
    assert_int_equal(stream_count, 1);
    request_cancel(&one.request);
}

/* Nobody else can be asked, and the connection is alive: the answer alone was lost. It is asked
 * alone, lest it wait behind what holds it up. */
static void
RFC9520_3_1_question_lost_by_the_only_upstream_is_asked_alone_three_times_in_all(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    struct asked other;
    struct asked second;
    bench->config.snapshot.upstream_count = 1;
    begin(bench);
    ask(bench, &one, "lost");
    make_ready(0);
    for (size_t i = 1; i <= 15; i++) {
        assert_true(hedge(bench, &one, &second) == STATUS_NOT_FOUND);
        turn(bench, 100);
        ask(bench, &other, "x");
        answer_written(0, i, RCODE_NOERROR);
    }
    bench->group->hedge_credit = 0;
    for (size_t lane = 1; lane <= 2; lane++) {
        assert_true(hedge(bench, &one, &second) == STATUS_OK);
        assert_int_equal(stream_count, 2);
        if (lane == 1)
            make_ready(1);
        assert_true(second.request.connection->use == CONNECTION_LANE);
        answer_written(1, lane - 1, RCODE_NOERROR);
        assert_int_equal(second.done, 1);
    }
    assert_true(hedge(bench, &one, &second) == STATUS_NOT_FOUND);
    request_cancel(&one.request);
}

static void no_strategy_asks_behind_a_silence(void **state)
{
    struct bench *bench = *state;
    static const enum strategy all[] = {STRATEGY_FASTEST, STRATEGY_ORDERED, STRATEGY_WEIGHTED,
                                        STRATEGY_HASH};
    struct asked one;
    fall_silent(bench, &one);
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        bench->config.snapshot.strategy = all[i];
        for (char label[] = "a"; label[0] <= 'z'; label[0]++) {
            struct asked other;
            assert_int_equal(ask(bench, &other, label), 1);
            answer_written(1, streams[1].written_count - 1, RCODE_NOERROR);
        }
    }
    answer_written(0, 1, RCODE_NOERROR);
    bench->config.snapshot.strategy = STRATEGY_ORDERED;
    assert_int_equal(chosen(bench, "x"), 0); /* trusted again */
}

/* Whatever times there are: none is forgotten. */
static void J1_group_has_the_times_of_one_that_was_opened_so(void **state)
{
    struct bench *bench = *state;
    static struct snapshot next;
    uint64_t before[DURATIONS_MAX];
    uint64_t reloaded[DURATIONS_MAX];
    uint64_t opened[DURATIONS_MAX];
    next = bench->config.snapshot;
    next.timeouts.connect_ns *= 3;
    next.timeouts.handshake_ns *= 3;
    next.timeouts.request_ns /= 10;
    next.timeouts.query_ns *= 3;
    next.timeouts.idle_ns = NANOSECONDS_PER_SECOND / 2;
    next.timeouts.park_ns *= 3;
    begin(bench);
    (void)list_durations(&bench->loop, before);
    group_reload(bench->group, &next);
    const size_t count = list_durations(&bench->loop, reloaded);
    assert_int_equal(bench->group->waiting.park_ns, next.timeouts.park_ns);
    group_close(bench->group);
    bench->config.snapshot = next;
    begin(bench);
    assert_int_equal(list_durations(&bench->loop, opened), count);
    assert_memory_equal(reloaded, opened, count * sizeof(opened[0]));
    assert_memory_not_equal(reloaded, before, count * sizeof(before[0]));
    for (size_t i = 0; i < UPSTREAMS_MAX; i++)
        assert_int_equal(bench->group->slots[i]->path.snapshot->timeouts.request_ns,
                         next.timeouts.request_ns);
}

static void J1_reload_changes_the_strategy(void **state)
{
    struct bench *bench = *state;
    static struct snapshot next;
    struct asked one;
    fall_silent(bench, &one);
    next = bench->config.snapshot;
    answer_written(0, 1, RCODE_NOERROR);
    assert_int_equal(chosen(bench, "x"), 0);
    next.strategy = STRATEGY_HASH;
    group_reload(bench->group, &next);
    size_t counts[2] = {};
    for (char label[] = "a"; label[0] <= 'z'; label[0]++)
        counts[chosen(bench, label) % 2]++;
    assert_true(counts[0] > 0 && counts[1] > 0);
    group_reload(bench->group, &bench->config.snapshot);
    assert_int_equal(chosen(bench, "x"), 0);
}

/* --- Coming and going --- */

/* The configuration with these of the upstreams, by their numbers, and new ones from
 * `UPSTREAMS_MAX` on; valid until the call after the next. */
static struct snapshot *snapshot_with(const struct bench *bench, const char *numbers)
{
    static struct snapshot snapshots[2];
    static char labels[10][8];
    static unsigned next;
    struct snapshot *snapshot = &snapshots[next++ % 2];
    *snapshot = bench->config.snapshot;
    snapshot->upstream_count = 0;
    for (; *numbers; numbers++) {
        const size_t number = (size_t)(*numbers - '0');
        struct upstream_config *upstream = &snapshot->upstreams[snapshot->upstream_count++];
        snprintf(labels[number], sizeof(labels[number]), "up%zu", number);
        *upstream = bench->config.snapshot.upstreams[0];
        upstream->slot = number;
        upstream->label = labels[number];
    }
    return snapshot;
}

static upstream_set reload(struct bench *bench, const char *numbers)
{
    return group_reload(bench->group, snapshot_with(bench, numbers));
}

/* Asked of upstream 0 of `count`, on stream 0, which has answered before. */
static void ask_first(struct bench *bench, struct asked *one, size_t count)
{
    bench->config.snapshot.upstream_count = count;
    begin(bench);
    ask(bench, one, "warm");
    make_ready(0);
    answer_written(0, 0, RCODE_NOERROR);
    assert_int_equal(ask(bench, one, "one"), 0);
}

static void J1_upstream_that_stays_keeps_its_connection_and_what_is_known(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    ask_first(bench, &one, 2);
    const struct upstream *first = bench->group->slots[0];
    const uint64_t rtt_ns = first->path.times.rtt_ns;
    assert_true(reload(bench, "0123") == (upstream_bit(2) | upstream_bit(3)));
    assert_true(reload(bench, "3201") == 0);
    assert_ptr_equal(bench->group->slots[0], first);
    assert_int_equal(first->path.times.rtt_ns, rtt_ns);
    assert_false(group_is_leaving(bench->group));
    answer_written(0, 1, RCODE_NOERROR);
    assert_int_equal(one.done, 1);
    assert_true(first->path.has_answered_well);
    assert_int_equal(metric_get(&bench->metrics->upstreams[0].answers), 2);
    cool_down(bench, 0);
    assert_int_equal(chosen(bench, "next"), 3); /* the first in order by now */
}

static void J1_upstream_that_is_removed_answers_what_it_was_asked_and_goes(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    struct asked other;
    ask_first(bench, &one, 2);
    assert_true(reload(bench, "1") == upstream_bit(0));
    assert_int_equal(ask(bench, &other, "two"), 1);
    assert_true(group_is_leaving(bench->group));
    answer_written(0, 1, RCODE_NOERROR);
    assert_int_equal(one.done, 1);
    assert_true(one.has_answer);
    turn(bench, 1);
    assert_false(group_is_leaving(bench->group));
    assert_null(bench->group->slots[0]);
    assert_null(streams[0].stream);
    request_cancel(&other.request);
}

/* Nobody has read what waits for a handshake, and what is asked for long may be asked elsewhere. */
static void J1_what_waits_at_an_upstream_that_is_removed_moves(void **state)
{
    struct bench *bench = *state;
    struct asked moved;
    struct asked silent;
    ask_first(bench, &silent, 3);
    cool_down(bench, 0);
    assert_int_equal(ask(bench, &moved, "two"), 1);
    (void)reload(bench, "2");
    turn(bench, 0);
    assert_int_equal(moved.failure, FAILURE_REMOVED);
    assert_int_equal(moved.attempts.odd | moved.attempts.once, 0);
    assert_int_equal(silent.done, 0);
    turn(bench, 1499);
    assert_true(group_is_leaving(bench->group));
    turn(bench, 1);
    turn(bench, 0);
    assert_int_equal(silent.failure, FAILURE_REMOVED);
    assert_false(group_is_leaving(bench->group));
    assert_int_equal(metric_get(&bench->metrics->upstreams[0].failures[FAILURE_REMOVED]), 1);
    assert_true(ask_again(bench, &silent) == STATUS_OK);
    assert_int_equal(silent.request.upstream, 2);
    request_cancel(&silent.request);
}

/* Also what the socket has yet to take, which nobody has read. */
static void E1_J1_upstream_that_is_removed_is_sent_nothing_more(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    ask_first(bench, &one, 2);
    (void)reload(bench, "1");
    const size_t before = streams[0].written_count;
    turn(bench, 300);
    turn(bench, 300);
    assert_int_equal(streams[0].written_count, before); /* not even our own probe */
    answer_written(0, 1, RCODE_NOERROR);
    assert_int_equal(one.done, 1);
}

static void E1_J1_what_has_not_left_for_a_removed_upstream_moves(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    ask_first(bench, &one, 2);
    unsent = 1;
    (void)reload(bench, "1");
    turn(bench, 0);
    turn(bench, 0);
    assert_int_equal(one.failure, FAILURE_REMOVED);
    assert_false(group_is_leaving(bench->group));
}

/* One that stays may have another number in its label. */
static void J1_names_are_hashed_by_the_label_that_holds(void **state)
{
    struct bench *bench = *state;
    bench->config.snapshot.strategy = STRATEGY_HASH;
    begin(bench);
    struct snapshot *next = snapshot_with(bench, "01");
    struct snapshot *same = snapshot_with(bench, "01");
    char *label = next->upstreams[0].label;
    next->upstreams[0].label = next->upstreams[1].label;
    next->upstreams[1].label = label;
    uint64_t hashes[2];
    (void)group_reload(bench->group, same);
    turn(bench, 0);
    turn(bench, 0);
    for (size_t i = 0; i < 2; i++)
        hashes[i] = bench->group->slots[i]->label_hash;
    (void)group_reload(bench->group, next);
    for (size_t i = 0; i < 2; i++)
        assert_int_equal(bench->group->slots[i]->label_hash, hashes[1 - i]);
}

/* In the order of the configuration, as soon as there is memory. */
static void I2_J1_upstream_that_could_not_be_opened_is_opened_later(void **state)
{
    struct bench *bench = *state;
    bench->config.snapshot.upstream_count = 1;
    begin(bench);
    metric_set(&bench->metrics->upstreams[5].answers, 7); /* of who had the slot before */
    refuse_clients = true;
    (void)reload(bench, "56");
    turn(bench, 0);
    turn(bench, 0);
    assert_int_equal(metric_get(&bench->metrics->upstreams[5].answers), 0);
    struct asked one;
    asked_init(&one, "one");
    assert_true(ask_again(bench, &one) == STATUS_NOT_FOUND);
    assert_int_equal(one.failure, FAILURE_LOCAL);
    refuse_clients = false;
    turn(bench, 1000);
    assert_int_equal(chosen(bench, "two"), 5);
    assert_non_null(bench->group->slots[6]);
}

/* Whatever happens there, nothing connects to it any more. */
static void J1_upstream_that_is_removed_is_not_connected_to(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    ask_first(bench, &one, 2);
    const size_t before = stream_count;
    (void)reload(bench, "1");
    path_doubt(&bench->group->slots[0]->path, FAILURE_CLOSED);
    upstream_warm(bench->group->slots[0]);
    turn(bench, 300);
    assert_int_equal(stream_count, before);
    request_cancel(&one.request);
    turn(bench, 0);
    turn(bench, 0);
    assert_false(group_is_leaving(bench->group));
}

/* What was known of the former is not known of the next. */
static void J1_slot_of_one_that_has_gone_is_as_new_for_another(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    ask_first(bench, &one, 2);
    answer_written(0, 1, RCODE_NOERROR);
    (void)reload(bench, "1");
    turn(bench, 0);
    turn(bench, 0);
    assert_null(bench->group->slots[0]);
    struct snapshot *next = snapshot_with(bench, "01");
    static char label[] = "another";
    next->upstreams[0].label = label;
    assert_true(group_reload(bench->group, next) == upstream_bit(0));
    assert_int_equal(metric_get(&bench->metrics->upstreams[0].answers), 0);
    assert_int_equal(metric_get(&bench->metrics->upstreams[0].up), 1);
    assert_string_equal(group_upstream_label(bench->group, 0), "another");
    assert_false(bench->group->slots[0]->path.has_answered_well);
}

/* With all away, an upstream that is new is what they have waited for. */
static void J1_who_waits_for_an_upstream_is_asked_at_one_that_is_new(void **state)
{
    struct bench *bench = *state;
    struct asking one;
    bench->config.snapshot.upstream_count = 1;
    begin(bench);
    cool_down(bench, 0);
    begin_asking(bench, &one, "one");
    assert_int_equal(one.done, 0);
    assert_false(ask_is_in_flight(&one.ask));
    ask_reload(&one.ask, reload(bench, "5"));
    turn(bench, 0);
    assert_true(ask_is_in_flight(&one.ask));
    assert_int_equal(one.ask.requests[0].upstream, 5);
    ask_cancel(&one.ask);
}

static void J1_names_stay_where_they_were_by_hash_when_others_come(void **state)
{
    struct bench *bench = *state;
    size_t home[64];
    size_t moved = 0;
    bench->config.snapshot.strategy = STRATEGY_HASH;
    begin(bench);
    for (unsigned round = 0; round < 2; round++) {
        for (size_t i = 0; i < 64; i++) {
            char label[8];
            snprintf(label, sizeof(label), "n%zu", i);
            const size_t at = chosen(bench, label);
            if (round == 0)
                home[i] = at;
            else if (at != home[i])
                assert_int_equal(at, 7);
            moved += round == 1 && at != home[i];
        }
        (void)reload(bench, "73210");
    }
    assert_in_range(moved, 1, 32);
}

static void one_that_is_not_ready_is_made_so_while_another_is_asked(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    struct asked second;
    fall_silent(bench, &one);
    const size_t before = stream_count;
    peer_closes(0, FAILURE_CLOSED);
    assert_int_equal(chosen(bench, "x"), 1);
    assert_int_equal(chosen(bench, "x"), 1);
    assert_int_equal(stream_count, before + 1);
    assert_int_equal(address_port(&streams[before].peer), 1000);
    make_ready(before);
    assert_int_equal(chosen(bench, "x"), 0);
    (void)second;
}

/* --- Standby --- */

static void second_upstream_is_ready_before_it_is_needed(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    bench->keeps_standby = true;
    begin(bench);
    turn(bench, 1000);
    assert_int_equal(stream_count, 0); /* without traffic there is none */
    ask(bench, &one, "x");
    make_ready(0);
    turn(bench, 0);
    assert_int_equal(stream_count, 2);
    assert_int_equal(address_port(&streams[1].peer), 1001);
    make_ready(1);
    answer_written(0, 0, RCODE_NOERROR);
    peer_closes(0, FAILURE_CLOSED); /* while there is traffic: another at once */
    turn(bench, 0);
    assert_int_equal(stream_count, 3);
    assert_int_equal(address_port(&streams[2].peer), 1000);
    make_ready(2);
    turn(bench, 11000);
    turn(bench, 20000);
    for (size_t i = 0; i < stream_count; i++)
        assert_null(streams[i].stream); /* idle for long: closed, and never opened again */
    turn(bench, 60000);
    assert_int_equal(stream_count, 3);
}

static void E7_upstream_that_fails_is_no_standby(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    bench->keeps_standby = true;
    bench->config.snapshot.upstream_count = 2;
    begin(bench);
    bench->group->slots[1]->path.failures = 1;
    ask(bench, &one, "x");
    turn(bench, 0);
    assert_int_equal(stream_count, 1);
    request_cancel(&one.request);
}

static void F4_connects_are_limited_however_they_come(void **state)
{
    struct bench *bench = *state;
    size_t allowed = 0;
    begin(bench);
    struct upstream *first = bench->group->slots[0];
    while (first->events->may_connect(first))
        allowed++;
    assert_in_range(allowed, 60, 70);
    bench->loop.now += NANOSECONDS_PER_SECOND;
    for (allowed = 0; first->events->may_connect(first);)
        allowed++;
    assert_in_range(allowed, 60, 70);
    struct asked one;
    asked_init(&one, "x");
    assert_true(ask_again(bench, &one) == STATUS_FULL);
    assert_false(bench->group->slots[0]->path.down);
    assert_int_equal(metric_get(&bench->metrics->upstreams[0].connects_denied), 2);
}

static void F18_all_down_is_tried_quickly_at_first_and_never_seldom(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    size_t tries[4] = {0};
    bench->config.snapshot.upstream_count = 1;
    begin(bench);
    refuse_connects = FAILURE_UNREACHABLE;
    asked_init(&one, "x");
    for (size_t second = 0; second < 4; second++)
        for (size_t ms = 0; ms < 1000; ms += 5) {
            const uint64_t before_ns = bench->group->slots[0]->attempted_ns;
            one.attempts = (struct attempts){0};
            assert_true(ask_again(bench, &one) == STATUS_NOT_FOUND);
            tries[second] += bench->group->slots[0]->attempted_ns != before_ns;
            turn(bench, 5);
        }
    assert_in_range(tries[0], 6, 40);
    for (size_t second = 1; second < 4; second++)
        assert_in_range(tries[second], 4, 8);
}

/* --- Changes of the network --- */

static void J8_change_of_another_link_drops_nothing(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    begin(bench);
    ask(bench, &one, "x");
    make_ready(0);
    group_network_changed(bench->group);
    turn(bench, 0);
    assert_non_null(streams[0].stream);
    answer_written(0, 0, RCODE_NOERROR);
    assert_int_equal(metric_get(&bench->metrics->upstreams[0].network_changes), 0);
}

static void I1_J8_want_of_descriptors_is_no_change_of_the_network(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    begin(bench);
    ask(bench, &one, "x");
    make_ready(0);
    has_no_descriptor = true;
    group_network_changed(bench->group);
    turn(bench, 0);
    assert_non_null(streams[0].stream);
    has_no_descriptor = false;
    group_network_changed(bench->group);
    turn(bench, 0);
    assert_int_equal(metric_get(&bench->metrics->upstreams[0].network_changes), 0);
    request_cancel(&one.request);
}

static void J8_new_way_drops_connections_and_what_is_in_flight_moves(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    bench->config.snapshot.upstream_count = 1;
    begin(bench);
    ask(bench, &one, "x");
    make_ready(0);
    route++;
    group_network_changed(bench->group);
    reap();
    assert_int_equal(one.failure, FAILURE_NETWORK_CHANGED);
    assert_int_equal(bench->group->slots[0]->path.failures, 0);
    assert_false(bench->group->slots[0]->path.down);
    for (size_t i = 0; i < 3; i++) { /* it is no attempt, however often it comes */
        assert_true(ask_again(bench, &one) == STATUS_OK);
        has_no_route = i % 2 == 0;
        group_network_changed(bench->group);
        reap();
        assert_int_equal(one.done, 2 + i);
    }
}

static void J8_return_of_the_network_ends_every_back_off(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    bench->config.snapshot.upstream_count = 2;
    has_no_route = true;
    begin(bench);
    asked_init(&one, "x");
    refuse_connects = FAILURE_UNREACHABLE;
    assert_true(ask_again(bench, &one) == STATUS_NOT_FOUND);
    for (size_t i = 0; i < 2; i++) {
        for (size_t j = 0; j < 12; j++)
            path_failed(&bench->group->slots[i]->path, FAILURE_UNREACHABLE, "");
        bench->group->slots[i]->attempted_ns = bench->loop.now;
    }
    refuse_connects = FAILURE_NONE;
    has_no_route = false;
    group_network_changed(bench->group);
    assert_int_equal(stream_count, 2); /* trials, before the next query */
    make_ready(0);
    assert_false(bench->group->slots[0]->path.down);
}

static void J8_after_sleep_no_connection_is_trusted(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    begin(bench);
    ask(bench, &one, "x");
    make_ready(0);
    answer_written(0, 0, RCODE_NOERROR);
    group_resumed(bench->group);
    reap();
    assert_null(streams[0].stream);
    assert_int_equal(bench->group->slots[0]->path.failures, 0);
}

/* --- How many connections a server admits --- */

static size_t count_open(void)
{
    size_t count = 0;
    for (size_t i = 0; i < stream_count; i++)
        count += streams[i].stream != NULL;
    return count;
}

static void ask_and_answer(struct bench *bench, const char *label)
{
    struct asked one;
    const size_t index = ask(bench, &one, label);
    answer_named(index, label, RCODE_NOERROR);
    assert_true(one.has_answer);
}

/* One connection has ended; three others are ready, and a fourth, the last stream, is on its way.
 */
static size_t three_and_one_to_come(struct bench *bench)
{
    static const char *const labels[] = {"c", "d", "e"};
    struct asked ended;
    struct asked asked[3];
    bench->config.snapshot.upstream_count = 1;
    begin(bench);
    assert_int_equal(ask(bench, &ended, "x"), 0);
    make_ready(0);
    peer_closes(0, FAILURE_CLOSED);
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(ask(bench, &asked[i], labels[i]), 1 + i);
    for (size_t i = 0; i < 3; i++) {
        make_ready(1 + i);
        answer_named(1 + i, labels[i], RCODE_NOERROR);
    }
    assert_int_equal(stream_count, 5);
    assert_int_equal(count_open(), 4);
    turn(bench, 1);
    return 4;
}

static enum status submit_alone(struct bench *bench, struct asked *one)
{
    asked_init(one, "alone");
    return request_submit_alone(bench->group, &one->request, 0, LANE_ANY);
}

/* Half of them are for questions that have to be asked alone. */
static void K1_server_that_refuses_one_more_while_it_answers_is_given_no_more(void **state)
{
    struct bench *bench = *state;
    struct asked alone[3];
    const size_t refused = three_and_one_to_come(bench);
    ask_and_answer(bench, "f");
    peer_closes(refused, FAILURE_RESET);
    assert_int_equal(count_open(), 1); /* those that do nothing go: there are three in all */
    assert_true(submit_alone(bench, &alone[0]) == STATUS_OK);
    assert_true(submit_alone(bench, &alone[1]) == STATUS_OK);
    assert_true(submit_alone(bench, &alone[2]) == STATUS_FULL);
    for (unsigned i = 0; i < 20; i++)
        ask_and_answer(bench, "g");
    assert_int_equal(count_open(), 3);
    request_cancel(&alone[0].request);
    request_cancel(&alone[1].request);
    assert_int_equal(bench->group->slots[0]->path.failures, 0); /* it is well */
    assert_false(bench->group->slots[0]->path.down);
}

/* The server may have been given more by then. */
static void K1_what_a_server_admits_is_forgotten_after_ten_seconds(void **state)
{
    struct bench *bench = *state;
    struct asked alone[3];
    const size_t refused = three_and_one_to_come(bench);
    ask_and_answer(bench, "f");
    peer_closes(refused, FAILURE_RESET);
    turn(bench, 9999);
    assert_true(submit_alone(bench, &alone[0]) == STATUS_OK);
    assert_true(submit_alone(bench, &alone[1]) == STATUS_OK);
    assert_true(submit_alone(bench, &alone[2]) == STATUS_FULL);
    request_cancel(&alone[0].request);
    request_cancel(&alone[1].request);
    turn(bench, 1);
    for (size_t i = 0; i < 3; i++)
        assert_true(submit_alone(bench, &alone[i]) == STATUS_OK);
    for (size_t i = 0; i < 3; i++)
        request_cancel(&alone[i].request);
}

/* A packet was lost: it takes others that begin later. */
static void K1_connect_that_took_too_long_while_a_later_one_was_taken_teaches_nothing(void **state)
{
    struct bench *bench = *state;
    struct asked alone[3];
    const size_t lost = three_and_one_to_come(bench);
    assert_true(submit_alone(bench, &alone[0]) == STATUS_OK);
    make_ready(stream_of(alone[0].request.connection));
    ask_and_answer(bench, "f");
    peer_closes(lost, FAILURE_CONNECT_TIMEOUT);
    assert_int_equal(bench->group->slots[0]->path.failures, 0); /* others are answered */
    for (size_t i = 1; i < 3; i++)
        assert_true(submit_alone(bench, &alone[i]) == STATUS_OK);
    assert_in_range(count_open(), 6, 8);
    for (size_t i = 0; i < 3; i++)
        request_cancel(&alone[i].request);
}

/* It was going under, for all that is known: that teaches nothing, and counts as a failure. */
static void K1_handshake_that_fails_while_nobody_is_answered_teaches_nothing(void **state)
{
    struct bench *bench = *state;
    struct asked alone[3];
    const size_t failed = three_and_one_to_come(bench);
    peer_closes(failed, FAILURE_RESET);
    assert_int_equal(bench->group->slots[0]->path.failures, 1);
    assert_int_equal(count_open(), 3);
    for (size_t i = 0; i < 3; i++)
        assert_true(submit_alone(bench, &alone[i]) == STATUS_OK);
    for (size_t i = 0; i < 3; i++)
        request_cancel(&alone[i].request);
}

/* So many are asked at once: who has how many aboard, of the three that are ready. */
static void ask_many(struct bench *bench, size_t count, const size_t expected[3])
{
    struct asked asked[40];
    char labels[40][3];
    size_t streams_of[40];
    size_t aboard[STREAMS_MAX] = {0};
    assert_true(count <= 40);
    for (size_t i = 0; i < count; i++) {
        snprintf(labels[i], sizeof(labels[i]), "%02zu", i);
        streams_of[i] = ask(bench, &asked[i], labels[i]);
        aboard[streams_of[i]]++;
    }
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(aboard[1 + i], expected[i]);
    for (size_t i = 0; i < count; i++)
        answer_named(streams_of[i], labels[i], RCODE_NOERROR);
}

/* TCP sends no more than twice of what it sent before in a round trip. */
static void K1_behind_trouble_one_connection_is_given_twice_as_many_with_each_step(void **state)
{
    struct bench *bench = *state;
    three_and_one_to_come(bench);
    struct upstream *upstream = bench->group->slots[0];
    LIST_EACH (struct connection, connection, &upstream->connections, link)
        connection->slots.id_mask &= (uint16_t)~3; /* else they differ by chance */
    ask_many(bench, 6, (size_t[3]){2, 2, 2});
    upstream->calm_ns = bench->loop.now;
    ask_many(bench, 4, (size_t[3]){2, 2, 0});
    turn(bench, 250);
    ask_many(bench, 6, (size_t[3]){4, 2, 0});
    turn(bench, 250);
    ask_many(bench, 12, (size_t[3]){8, 4, 0});
    upstream->calm_ns = 0;
    ask_many(bench, 40, (size_t[3]){40, 0, 0});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(J1_group_has_the_times_of_one_that_was_opened_so),
        TEST(J1_reload_changes_the_strategy),
        TEST(J1_upstream_that_stays_keeps_its_connection_and_what_is_known),
        TEST(J1_upstream_that_is_removed_answers_what_it_was_asked_and_goes),
        TEST(J1_what_waits_at_an_upstream_that_is_removed_moves),
        TEST(E1_J1_upstream_that_is_removed_is_sent_nothing_more),
        TEST(E1_J1_what_has_not_left_for_a_removed_upstream_moves),
        TEST(J1_names_are_hashed_by_the_label_that_holds),
        TEST(I2_J1_upstream_that_could_not_be_opened_is_opened_later),
        TEST(J1_upstream_that_is_removed_is_not_connected_to),
        TEST(J1_slot_of_one_that_has_gone_is_as_new_for_another),
        TEST(J1_who_waits_for_an_upstream_is_asked_at_one_that_is_new),
        TEST(J1_names_stay_where_they_were_by_hash_when_others_come),
        TEST(ordered_takes_the_first_that_is_up),
        TEST(weighted_shares_by_weight),
        TEST(hash_keeps_a_name_at_its_upstream_and_moves_only_those_of_a_dead_one),
        TEST(fastest_prefers_the_quick_and_measures_the_others_again),
        TEST(fastest_turns_away_from_one_that_piles_up),
        TEST(fastest_finds_a_once_slow_upstream_again),
        TEST(fastest_is_not_led_by_single_names),
        TEST(F19_errors_at_once_are_not_the_fastest_answer),
        TEST(retry_goes_to_each_upstream_before_any_twice_and_to_none_thrice),
        TEST(elsewhere_is_never_the_same_upstream),
        TEST(one_quick_failure_is_chance_and_two_take_an_upstream_down),
        TEST(timeout_takes_an_upstream_down_at_once),
        TEST(recovery_is_found_by_a_trial_that_no_query_pays_for),
        TEST(F4_backoff_doubles_with_jitter_up_to_its_limit),
        TEST(F18_all_down_is_a_failure_at_once_and_tried_again_soon),
        TEST(F17_recovery_wakes_nobody_while_a_request_ends),
        TEST(connect_that_cannot_begin_moves_on_in_the_same_call),
        TEST(late_request_is_hedged_to_another_that_is_ready),
        TEST(hedge_goes_to_none_that_is_busy_silent_or_not_ready),
        TEST(hedges_are_a_burst_and_then_one_of_twenty_requests),
        TEST(half_of_the_burst_is_for_silent_connections),
        TEST(hedge_makes_another_ready_when_none_is),
        TEST(K7_hedge_makes_another_ready_whose_connection_is_silent),
        TEST(request_without_an_answer_for_its_time_needs_no_budget),
        TEST(request_that_is_lost_moves_to_one_not_yet_asked),
        TEST(RFC9520_3_1_silent_single_upstream_is_hedged_beside_three_sends_in_all),
        TEST(K3_doubted_single_upstream_is_sent_no_hedge),
        TEST(RFC9520_3_1_question_that_waits_for_a_handshake_moves_and_is_sent_once),
        TEST(single_upstream_that_is_merely_slow_is_asked_once),
        TEST(RFC9520_3_1_question_lost_by_the_only_upstream_is_asked_alone_three_times_in_all),
        TEST(no_strategy_asks_behind_a_silence),
        TEST(one_that_is_not_ready_is_made_so_while_another_is_asked),
        TEST(second_upstream_is_ready_before_it_is_needed),
        TEST(E7_upstream_that_fails_is_no_standby),
        TEST(F4_connects_are_limited_however_they_come),
        TEST(F18_all_down_is_tried_quickly_at_first_and_never_seldom),
        TEST(J8_change_of_another_link_drops_nothing),
        TEST(I1_J8_want_of_descriptors_is_no_change_of_the_network),
        TEST(J8_new_way_drops_connections_and_what_is_in_flight_moves),
        TEST(J8_return_of_the_network_ends_every_back_off),
        TEST(J8_after_sleep_no_connection_is_trusted),
        TEST(I1_want_of_descriptors_is_not_the_upstreams_fault),
        TEST(K1_server_that_refuses_one_more_while_it_answers_is_given_no_more),
        TEST(K1_what_a_server_admits_is_forgotten_after_ten_seconds),
        TEST(K1_connect_that_took_too_long_while_a_later_one_was_taken_teaches_nothing),
        TEST(K1_handshake_that_fails_while_nobody_is_answered_teaches_nothing),
        TEST(K1_behind_trouble_one_connection_is_given_twice_as_many_with_each_step),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
