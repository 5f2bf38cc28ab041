// SPDX-License-Identifier: Apache-2.0
/* What one question does until its end: ends of connections, verdicts, waiting, errors. */
#include "fake_stream.h"

enum {
    DNSSEC_BOGUS = 6,         /* RFC 8914 4.7 */
    FILTERED = 17,            /* 4.18 */
    NO_REACHABLE_SERVER = 22, /* 4.23 */
    SECOND_LOOK_MS = 100,
    SUSPECTS_MAX = 8,
};

/* The first of `count` upstreams has answered a moment ago, on stream 0. */
static void start(struct bench *bench, size_t count)
{
    struct asked warm;
    bench->config.snapshot.upstream_count = count;
    begin(bench);
    assert_int_equal(ask(bench, &warm, "warm"), 0);
    make_ready(0);
    answer_written(0, 0, RCODE_NOERROR);
    turn(bench, 1);
}

static bool is_alone(const struct asking *one)
{
    asked_on(one);
    return one->ask.requests[0].connection->use == CONNECTION_LANE;
}

static size_t where_is(const struct asking *one)
{
    asked_on(one);
    return one->ask.requests[0].upstream;
}

/* Its stream, which has shaken hands. */
static size_t ready_stream(const struct asking *one)
{
    const size_t index = asked_on(one);
    if (streams[index].stream->state != STREAM_OPEN)
        make_ready(index);
    return index;
}

static void answer(const struct asking *one, enum rcode rcode)
{
    const size_t index = ready_stream(one);
    answer_written(index, streams[index].written_count - 1, rcode);
}

static void close_under(const struct asking *one)
{
    peer_closes(ready_stream(one), FAILURE_CLOSED);
}

/* Somebody else is answered by upstream 0. */
static void others_are_answered(struct bench *bench)
{
    struct asking other;
    begin_asking(bench, &other, "other");
    assert_int_equal(where_is(&other), 0);
    answer(&other, RCODE_NOERROR);
    assert_true(other.has_answer);
}

/* Whoever connects is refused. */
static void refuse_all(void)
{
    for (size_t i = 0; i < stream_count; i++)
        if (streams[i].stream && streams[i].stream->state == STREAM_CONNECTING)
            peer_closes(i, FAILURE_REFUSED_CONNECTION);
}

static void accept_all(void)
{
    for (size_t i = 0; i < stream_count; i++)
        if (streams[i].stream && streams[i].stream->state == STREAM_CONNECTING)
            make_ready(i);
}

/* The trial that is on its way, or soon will be. */
static size_t find_trial(struct bench *bench)
{
    for (unsigned i = 0; i < 40; i++) {
        for (size_t j = 0; j < stream_count; j++)
            if (streams[j].stream && streams[j].stream->state == STREAM_CONNECTING)
                return j;
        turn(bench, 50);
    }
    fail_msg("no upstream is tried");
    return 0;
}

/* Closed as soon as it is asked, until it waits for its second look. */
static void end_alone(struct bench *bench, struct asking *one)
{
    begin_asking(bench, one, "bad");
    close_under(one);
    assert_true(is_alone(one));
    close_under(one);
    assert_int_equal(one->done, 0);
    assert_false(ask_is_in_flight(&one->ask));
}

/* Its second look, which comes `SECOND_LOOK_MS` after the first end. */
static void look_again(struct bench *bench, const struct asking *one)
{
    turn(bench, SECOND_LOOK_MS - 1);
    assert_false(ask_is_in_flight(&one->ask));
    turn(bench, 1);
}

/* --- Reload --- */

static void J1_what_is_known_of_a_removed_upstream_is_forgotten(void **state)
{
    struct bench *bench = *state;
    struct asking one;
    start(bench, 1);
    end_alone(bench, &one);
    assert_true(one.ask.has_ended && one.ask.lone_ends > 0);
    one.ask.attempts.erred |= upstream_bit(0) | upstream_bit(1);
    ask_reload(&one.ask, upstream_bit(0));
    assert_false(one.ask.has_ended);
    assert_int_equal(one.ask.lone_ends, 0);
    assert_int_equal(one.ask.failure, FAILURE_REMOVED);
    assert_true(attempts_exhausted(&one.ask.attempts) == upstream_bit(1));
    assert_int_equal(one.ask.attempts.once | one.ask.attempts.twice, 0);
    ask_cancel(&one.ask);
}

static void J1_what_is_known_of_others_stays(void **state)
{
    struct bench *bench = *state;
    struct asking one;
    start(bench, 1);
    end_alone(bench, &one);
    const struct attempts before = one.ask.attempts;
    ask_reload(&one.ask, ~upstream_bit(0));
    assert_memory_equal(&one.ask.attempts, &before, sizeof(before));
    assert_true(one.ask.has_ended && one.ask.lone_ends > 0);
    assert_int_not_equal(one.ask.failure, FAILURE_REMOVED);
    ask_cancel(&one.ask);
}

/* --- Ends of connections --- */

static void K1_what_was_on_a_connection_that_ended_is_asked_alone(void **state)
{
    struct bench *bench = *state;
    struct asking good;
    struct asking bad;
    start(bench, 1);
    begin_asking(bench, &good, "good");
    begin_asking(bench, &bad, "bad");
    assert_int_equal(asked_on(&good), 0);
    assert_int_equal(asked_on(&bad), 0);
    close_under(&bad);
    assert_true(is_alone(&good) && is_alone(&bad));
    assert_int_not_equal(asked_on(&good), asked_on(&bad));
    close_under(&bad);
    answer(&good, RCODE_NOERROR);
    assert_true(good.has_answer);
    ask_cancel(&bad.ask);
}

static void K1_of_many_on_a_connection_that_ended_nobody_is_suspected(void **state)
{
    struct bench *bench = *state;
    struct asking many[SUSPECTS_MAX + 1];
    start(bench, 1);
    for (size_t i = 0; i <= SUSPECTS_MAX; i++)
        begin_asking(bench, &many[i], "many");
    close_under(&many[0]);
    for (size_t i = 0; i <= SUSPECTS_MAX; i++)
        assert_false(is_alone(&many[i]));
    close_under(&many[0]); /* who was hit twice is */
    assert_true(many[0].ask.is_suspect);
    for (size_t i = 0; i <= SUSPECTS_MAX; i++)
        ask_cancel(&many[i].ask);
}

static void K1_first_end_may_be_the_upstreams_and_one_in_calm_is_asked(void **state)
{
    struct bench *bench = *state;
    struct asking other;
    struct asking one;
    start(bench, 2);
    begin_asking(bench, &other, "other");
    begin_asking(bench, &one, "one");
    upstream_warm(bench->group->slots[1]);
    make_ready(stream_count - 1);
    close_under(&one);
    assert_int_equal(where_is(&one), 1);
    assert_false(is_alone(&one));
    close_under(&one);
    assert_true(is_alone(&one)); /* neither is in calm any more */
    ask_cancel(&other.ask);
    ask_cancel(&one.ask);
}

static void K2_close_with_questions_aboard_takes_no_upstream_down(void **state)
{
    struct bench *bench = *state;
    struct asking one;
    start(bench, 1);
    for (size_t i = 0; i < 10; i++) {
        begin_asking(bench, &one, "one");
        close_under(&one);
        ask_cancel(&one.ask);
        others_are_answered(bench);
    }
    assert_int_equal(metric_get(&bench->metrics->upstreams[0].up), 1);
    assert_int_equal(bench->group->slots[0]->path.failures, 0);
}

/* Its silence would be that of all others: it has a lane of its own once it is lost. */
static void K1_suspect_that_is_late_is_not_hedged_among_others(void **state)
{
    struct bench *bench = *state;
    struct asking one;
    start(bench, 1);
    begin_asking(bench, &one, "one");
    close_under(&one);
    assert_true(is_alone(&one));
    accept_all();
    is_acknowledged = true;
    for (unsigned ms = 0; ms < 1400; ms += 50)
        turn(bench, 50);
    assert_false(request_is_in_flight(&one.ask.requests[1]));
    for (unsigned ms = 0; ms < 200; ms += 50)
        turn(bench, 50);
    assert_true(request_is_in_flight(&one.ask.requests[1]));
    assert_int_equal(one.ask.requests[1].connection->use, CONNECTION_LANE);
    ask_cancel(&one.ask);
}

/* Servers close behind a number of answers, as it were in the midst of others' questions. */
static void K2_end_right_behind_an_answer_makes_nobody_suspect(void **state)
{
    struct bench *bench = *state;
    struct asking good;
    struct asking other;
    start(bench, 1);
    turn(bench, 10);
    begin_asking(bench, &good, "good");
    begin_asking(bench, &other, "other");
    assert_int_equal(asked_on(&other), 0);
    turn(bench, 1);
    answer_written(0, 1, RCODE_NOERROR);
    assert_true(good.has_answer);
    close_under(&other);
    assert_false(other.ask.is_suspect);
    assert_int_equal(other.ask.lone_ends, 0); /* it was not alone all the time */
    assert_false(is_alone(&other));
    answer(&other, RCODE_NOERROR);
    assert_true(other.has_answer);
}

/* They cost a handshake each and count for nothing; the second look is a second chance. */
static void K1_few_are_looked_at_before_the_look_that_counts(void **state)
{
    enum { BURST = 16, COUNT = BURST + 8 };
    struct bench *bench = *state;
    struct asking bad[COUNT];
    size_t at_once = 0;
    start(bench, 1);
    for (size_t i = 0; i < COUNT; i++) {
        begin_asking(bench, &bad[i], "bad");
        close_under(&bad[i]);
        accept_all();
        assert_int_equal(bad[i].ask.lone_ends, 1);
        at_once += ask_is_in_flight(&bad[i].ask);
    }
    assert_in_range(at_once, BURST, BURST + 1);
    assert_false(ask_is_in_flight(&bad[COUNT - 1].ask));
    turn(bench, SECOND_LOOK_MS);
    assert_true(is_alone(&bad[COUNT - 1]));
    for (size_t i = 0; i < COUNT; i++)
        ask_cancel(&bad[i].ask);
}

/* A middlebox that forgets its connections; and the next second look finds the same. */
static void K2_ends_of_most_connections_at_once_are_no_evidence(void **state)
{
    struct bench *bench = *state;
    struct asking one;
    struct asking other;
    start(bench, 1);
    end_alone(bench, &one);
    turn(bench, 1);
    others_are_answered(bench);
    turn(bench, SECOND_LOOK_MS - 1);
    assert_true(is_alone(&one));
    others_are_answered(bench);
    begin_asking(bench, &other, "other");
    const size_t stream = ready_stream(&other);
    close_under(&one);
    peer_closes(stream, FAILURE_CLOSED);
    turn(bench, 1);
    if (ask_is_in_flight(&other.ask))
        answer(&other, RCODE_NOERROR);
    others_are_answered(bench);
    turn(bench, SECOND_LOOK_MS);
    assert_int_not_equal(one.ask.failure, FAILURE_CONVICTED);
    ask_cancel(&one.ask);
    ask_cancel(&other.ask);
}

/* Each was sent before; whoever finds no room makes one, and is asked there. */
static void K2_none_of_many_fails_when_their_connection_ends(void **state)
{
    enum { MANY = 200 };
    struct bench *bench = *state;
    static struct asking many[MANY];
    start(bench, 1);
    for (size_t i = 0; i < MANY; i++)
        begin_asking(bench, &many[i], "many");
    close_under(&many[0]);
    for (size_t i = 0; i < MANY; i++)
        assert_int_equal(many[i].done, 0);
    for (size_t i = 0; i < MANY; i++)
        ask_cancel(&many[i].ask);
}

/* The last is for when it is there: it was said to be gone before three were sent. */
static void K3_RFC9520_3_1_last_time_is_not_spent_on_a_server_that_says_nothing(void **state)
{
    struct bench *bench = *state;
    struct asking one;
    struct asking other;
    start(bench, 1);
    turn(bench, 1);
    begin_asking(bench, &one, "one");
    begin_asking(bench, &other, "other");
    for (size_t i = 0; i < 2; i++) {
        close_under(&one);
        turn(bench, 1);
    }
    assert_false(ask_is_in_flight(&one.ask));
    turn(bench, SECOND_LOOK_MS);
    assert_false(ask_is_in_flight(&one.ask));
    assert_int_equal(metric_get(&bench->metrics->upstreams[0].up), 0); /* it is doubted */
    assert_int_equal(one.done, 0);
    ask_cancel(&one.ask);
    ask_cancel(&other.ask);
}

/* Whoever has been asked something closes, probes too. */
static void accept_and_close_all(struct bench *bench)
{
    accept_all();
    for (size_t i = 0; i < stream_count; i++)
        if (streams[i].stream && streams[i].stream->state == STREAM_OPEN &&
            streams[i].written_count > 0)
            peer_closes(i, FAILURE_CLOSED);
    turn(bench, 10);
}

/* All four are restarted: each would have it twice, which are all attempts there are, but the last
 * one waits. */
static void begin_and_keep_last(struct bench *bench, struct asking *one)
{
    start(bench, 4);
    turn(bench, 1);
    begin_asking(bench, one, "one");
    for (unsigned ms = 0; ms < 2000; ms += 10)
        accept_and_close_all(bench);
    assert_int_equal(one->done, 0);
    assert_int_equal(one->ask.attempts.count, 7);
    assert_false(ask_is_in_flight(&one->ask));
}

static void K3_last_attempt_of_all_is_kept_until_somebody_answers(void **state)
{
    struct bench *bench = *state;
    struct asking one;
    begin_and_keep_last(bench, &one);
    /* Also when it was in line for a connection. */
    waiting_line_up(&bench->group->waiting, &one.ask.waiter, LINE_LANES);
    one.ask.waiter.resume(&one.ask.waiter);
    assert_true(list_is_linked(&one.ask.waiter.link));
    assert_int_equal(one.ask.waiter.line, LINES);
    for (unsigned ms = 0; ms < 1000 && !ask_is_in_flight(&one.ask); ms += 10) {
        accept_all();
        for (size_t i = 0; i < stream_count; i++)
            if (streams[i].stream && streams[i].written_count > 0)
                answer_written(i, streams[i].written_count - 1, RCODE_NOERROR);
        turn(bench, 10);
    }
    answer(&one, RCODE_NOERROR);
    assert_true(one.has_answer);
}

/* What others have done to a question is no evidence against who never had it. */
static void K3_last_attempt_is_for_an_upstream_that_was_never_asked(void **state)
{
    struct bench *bench = *state;
    struct asking one;
    begin_and_keep_last(bench, &one);
    one.ask.attempts.odd &= ~upstream_bit(3); /* as if it had come to be later */
    one.ask.attempts.two &= ~upstream_bit(3);
    struct path *path = &bench->group->slots[3]->path;
    path_set_down(path, false);
    path->is_doubted = false;
    one.ask.waiter.resume(&one.ask.waiter);
    assert_false(path->is_doubted);
    assert_int_equal(where_is(&one), 3);
    ask_cancel(&one.ask);
}

/* --- Verdicts --- */

/* It has ended nothing alone: no fresh lane is needed, nor a place behind those who have. */
static void K9_RFC9520_3_1_who_has_one_time_left_is_in_line_for_any_lane(void **state)
{
    struct bench *bench = *state;
    struct asking many[SUSPECTS_MAX + 1];
    start(bench, 1);
    for (size_t i = 0; i <= SUSPECTS_MAX; i++)
        begin_asking(bench, &many[i], "many");
    close_under(&many[0]);
    size_t hit = 0; /* one that is not alone now: they are more than the connections */
    while (connection_aboard(many[hit].ask.requests[0].connection) == 1)
        hit++;
    close_under(&many[hit]);
    assert_false(ask_is_in_flight(&many[hit].ask)); /* the server has said nothing since */
    others_are_answered(bench);
    bench->group->slots[0]->alone.admitted = 1;
    bench->group->slots[0]->alone.until_ns = UINT64_MAX;
    turn(bench, SECOND_LOOK_MS);
    assert_true(list_is_linked(&many[hit].ask.waiter.link));
    assert_int_equal(many[hit].ask.waiter.line, LINE_LANES);
    for (size_t i = 0; i <= SUSPECTS_MAX; i++)
        ask_cancel(&many[i].ask);
}

static void K1_two_ends_alone_while_others_are_answered_convict(void **state)
{
    struct bench *bench = *state;
    struct asking bad;
    start(bench, 1);
    end_alone(bench, &bad);
    turn(bench, 1);
    others_are_answered(bench);
    turn(bench, SECOND_LOOK_MS - 2);
    assert_false(ask_is_in_flight(&bad.ask));
    turn(bench, 1);
    assert_true(is_alone(&bad));
    others_are_answered(bench);
    close_under(&bad);
    assert_int_equal(bad.done, 0); /* it may be a restart */
    turn(bench, 1);
    others_are_answered(bench);
    turn(bench, SECOND_LOOK_MS - 1);
    assert_int_equal(bad.done, 1);
    assert_false(bad.has_answer);
    assert_int_equal(bad.ask.failure, FAILURE_CONVICTED);
    assert_int_equal(bad.ask.failed_upstream, 0);
    assert_int_equal(metric_get(&bench->metrics->upstreams[0].up), 1);
}

/* A server that closes behind a number of answers must not look like its question. */
static void K1_second_look_is_on_a_connection_that_has_carried_nothing_else(void **state)
{
    struct bench *bench = *state;
    struct asking bad;
    struct asking other;
    start(bench, 1);
    begin_asking(bench, &other, "other");
    begin_asking(bench, &bad, "bad");
    close_under(&bad);
    const size_t used = ready_stream(&other);
    answer(&other, RCODE_NOERROR); /* its lane is free now, and used */
    close_under(&bad);
    path_heard(&bench->group->slots[0]->path, bench->loop.now);
    look_again(bench, &bad);
    assert_true(is_alone(&bad));
    assert_int_not_equal(asked_on(&bad), used);
    assert_int_equal(bad.ask.requests[0].connection->requests, 1);
    ask_cancel(&bad.ask);
}

static void K1_second_look_goes_to_another_upstream(void **state)
{
    struct bench *bench = *state;
    struct asking bad;
    start(bench, 2);
    begin_asking(bench, &bad, "bad");
    close_under(&bad);
    const size_t first = bad.ask.ended_upstream;
    assert_int_equal(first, 0);
    assert_true(is_alone(&bad));
    assert_int_equal(where_is(&bad), 1);
    ask_cancel(&bad.ask);
}

/* Nothing else is answered: that is the upstream's doing, and everybody waits. */
static void K3_two_ends_alone_while_nobody_is_answered_convict_nobody(void **state)
{
    struct bench *bench = *state;
    struct asking one;
    struct asking other;
    start(bench, 1);
    end_alone(bench, &one);
    turn(bench, SECOND_LOOK_MS);
    assert_int_equal(one.done, 0);
    assert_false(ask_is_in_flight(&one.ask)); /* it is parked */
    assert_int_equal(metric_get(&bench->metrics->upstreams[0].up), 0);
    begin_asking(bench, &other, "other");
    assert_false(ask_is_in_flight(&other.ask)); /* as are all others */
    /* Ours, over a connection of after the first end. */
    for (size_t i = 0; i < 4 && metric_get(&bench->metrics->upstreams[0].up) == 0; i++) {
        const size_t probe = find_trial(bench);
        make_ready(probe);
        assert_int_equal(streams[probe].written_count, 1);
        assert_int_equal(streams[probe].written[0][DNS_HEADER_SIZE], 0); /* of the root */
        answer_written(probe, 0, RCODE_NOERROR);
        turn(bench, 0);
    }
    assert_int_equal(metric_get(&bench->metrics->upstreams[0].up), 1);
    answer(&other, RCODE_NOERROR);
    assert_true(other.has_answer);
    ask_cancel(&one.ask);
}

/* The upstream closes everything, our probe, too, and then is well. */
static void K3_evidence_from_a_time_when_our_probe_failed_convicts_nobody(void **state)
{
    struct bench *bench = *state;
    struct asking one;
    start(bench, 1);
    end_alone(bench, &one);
    turn(bench, SECOND_LOOK_MS);
    for (size_t i = 0; i < 2; i++) {
        const size_t probe = find_trial(bench);
        make_ready(probe);
        assert_int_equal(streams[probe].written_count, 1);
        peer_closes(probe, FAILURE_CLOSED);
    }
    assert_true(bench->group->slots[0]->path.down);
    assert_int_equal(one.done, 0);
    const size_t trial = find_trial(bench);
    make_ready(trial);
    if (streams[trial].written_count > 0)
        answer_written(trial, 0, RCODE_NOERROR);
    turn(bench, 0);
    assert_int_not_equal(one.ask.failure, FAILURE_CONVICTED);
    assert_in_range(one.ask.attempts.count, 1, 3);
    ask_cancel(&one.ask);
}

/* Whatever the verdict. */
static void RFC9520_3_1_a_server_is_sent_a_question_three_times_at_most(void **state)
{
    struct bench *bench = *state;
    struct asking bad;
    size_t sent = 0;
    start(bench, 2);
    begin_asking(bench, &bad, "bad");
    for (unsigned i = 0; i < 400 && bad.done == 0; i++) {
        if (ask_is_in_flight(&bad.ask)) {
            sent++;
            close_under(&bad);
        }
        for (size_t j = 0; j < 2; j++) { /* others are answered */
            bench->group->slots[j]->path.answered_ns = bench->loop.now;
            bench->group->slots[j]->path.answered_sent_ns = bench->loop.now;
        }
        turn(bench, 10);
    }
    assert_int_equal(bad.done, 1);
    assert_in_range(sent, 2, 6);
    for (size_t i = 0; i < 2; i++)
        assert_true(metric_get(&bench->metrics->upstreams[i].requests) <= 3 + (i == 0));
}

/* --- Clients that are known to be bad --- */

enum { MALLORY = 2000, ALICE = 2001 };

/* Mallory's questions have ended connections, and nothing else; upstream 0 is ready. */
static void know_mallory(struct bench *bench)
{
    struct asking one;
    start(bench, 1);
    asking_init(bench, &one, "bad");
    for (unsigned i = 0; i < 10; i++)
        blame_end(&bench->group->blames, bench->loop.now, MALLORY, &one.question);
    bench->client = MALLORY;
}

/* Its lane is still shaking hands by then, or the server is slow. */
static void K9_known_bad_that_is_late_is_not_asked_among_others(void **state)
{
    struct bench *bench = *state;
    struct asking one;
    know_mallory(bench);
    begin_asking(bench, &one, "one");
    assert_true(is_alone(&one));
    for (unsigned ms = 0; ms < 900; ms += 50) {
        turn(bench, 50);
        assert_true(is_alone(&one));
        assert_false(request_is_in_flight(&one.ask.requests[1]));
    }
    ask_cancel(&one.ask);
}

/* Others may want the same; while they join it would never end. */
static void K9_who_joins_what_a_known_bad_one_asks_is_not_confined_with_it(void **state)
{
    struct bench *bench = *state;
    struct asking held[2];
    struct asking one;
    know_mallory(bench);
    begin_asking(bench, &held[0], "held");
    turn(bench, 50);
    begin_asking(bench, &held[1], "held");
    turn(bench, 50);
    begin_asking(bench, &one, "one");
    turn(bench, 50);
    assert_false(ask_is_in_flight(&one.ask));
    ask_join(&one.ask, MALLORY);
    turn(bench, 0);
    assert_false(ask_is_in_flight(&one.ask));
    ask_join(&one.ask, ALICE);
    turn(bench, 0);
    assert_false(is_alone(&one));
    answer(&one, RCODE_NOERROR);
    assert_true(one.has_answer);
    for (size_t i = 0; i < 2; i++)
        ask_cancel(&held[i].ask);
}

/* --- Waiting --- */

/* That it takes no more connections is not why it cannot be asked. */
static void K9_asks_wait_for_an_upstream_that_takes_no_more_connections(void **state)
{
    struct bench *bench = *state;
    struct asking one;
    start(bench, 1);
    struct upstream *upstream = bench->group->slots[0];
    upstream->alone.admitted = 1;
    upstream->alone.until_ns = UINT64_MAX;
    path_doubt(&upstream->path, FAILURE_CLOSED);
    begin_asking(bench, &one, "one");
    assert_false(ask_is_in_flight(&one.ask));
    turn(bench, 60);
    assert_int_equal(one.done, 0);
    answer_written(0, streams[0].written_count - 1, RCODE_NOERROR); /* our probe, where it may be */
    turn(bench, 0);
    answer(&one, RCODE_NOERROR);
    assert_true(one.has_answer);
}

/* The only connection that the server takes is a lane of another's. */
static void K9_question_waits_until_the_only_connection_is_free(void **state)
{
    struct bench *bench = *state;
    struct asking one;
    struct asked alone;
    start(bench, 1);
    struct upstream *upstream = bench->group->slots[0];
    peer_closes(0, FAILURE_CLOSED); /* idle */
    asked_init(&alone, "alone");
    assert_true(request_submit_alone(bench->group, &alone.request, 0, LANE_ANY) == STATUS_OK);
    const size_t lane = stream_of(alone.request.connection);
    make_ready(lane);
    upstream->alone.admitted = 1;
    upstream->alone.until_ns = UINT64_MAX;
    begin_asking(bench, &one, "one");
    assert_false(ask_is_in_flight(&one.ask));
    answer_written(lane, 0, RCODE_NOERROR);
    for (unsigned ms = 0; ms < 1200 && !ask_is_in_flight(&one.ask); ms += 50)
        turn(bench, 50);
    answer(&one, RCODE_NOERROR);
    assert_true(one.has_answer);
}

static void F4_question_waits_when_too_many_connections_were_opened_of_late(void **state)
{
    struct bench *bench = *state;
    struct asking one;
    begin(bench);
    struct upstream *upstream = bench->group->slots[0];
    while (upstream->events->may_connect(upstream))
        continue;
    begin_asking(bench, &one, "one");
    assert_false(ask_is_in_flight(&one.ask));
    turn(bench, 50);
    turn(bench, 0);
    answer(&one, RCODE_NOERROR);
    assert_true(one.has_answer);
}

/* In trouble many wait for the connections to come; but none can be opened. */
static void I1_K1_many_ride_on_what_there_is_when_no_more_comes(void **state)
{
    struct bench *bench = *state;
    struct asking ended;
    struct asking many[40];
    start(bench, 1);
    begin_asking(bench, &ended, "ended");
    close_under(&ended);
    answer(&ended, RCODE_NOERROR);
    accept_all();
    refuse_connects = FAILURE_LOCAL;
    for (size_t i = 0; i < sizeof(many) / sizeof(many[0]); i++) {
        begin_asking(bench, &many[i], "many");
        assert_true(ask_is_in_flight(&many[i].ask));
    }
    for (size_t i = 0; i < sizeof(many) / sizeof(many[0]); i++)
        ask_cancel(&many[i].ask);
}

static void K3_ask_waits_for_an_upstream_to_come_back(void **state)
{
    struct bench *bench = *state;
    struct asking one;
    start(bench, 1);
    peer_closes(0, FAILURE_CLOSED);
    begin_asking(bench, &one, "one");
    for (unsigned ms = 0; ms < 2500; ms += 50) {
        refuse_all();
        turn(bench, 50);
    }
    assert_int_equal(one.done, 0);
    assert_int_equal(one.ask.attempts.odd | one.ask.attempts.two, 0); /* it was sent to nobody */
    make_ready(find_trial(bench));
    turn(bench, 0);
    answer(&one, RCODE_NOERROR);
    assert_true(one.has_answer);
}

/* `one` waits for the only upstream, which cannot even be tried from now on. */
static void lack_descriptors(struct bench *bench, struct asking *one)
{
    start(bench, 1);
    peer_closes(0, FAILURE_CLOSED);
    begin_asking(bench, one, "one");
    for (unsigned ms = 0; ms < 500; ms += 50) {
        refuse_all();
        turn(bench, 50);
    }
    refuse_connects = FAILURE_LOCAL;
    refuse_all();
    turn(bench, 300);
    assert_true(bench->group->slots[0]->path.last_failure == FAILURE_LOCAL);
}

/* A trial that could not even begin says nothing about the upstreams. */
static void K3_I1_ask_waits_though_a_trial_lacked_a_descriptor(void **state)
{
    struct bench *bench = *state;
    struct asking early;
    struct asking one;
    lack_descriptors(bench, &early);
    begin_asking(bench, &one, "one");
    refuse_connects = FAILURE_NONE;
    make_ready(find_trial(bench));
    turn(bench, 0);
    answer(&one, RCODE_NOERROR);
    assert_true(one.has_answer);
    ask_cancel(&early.ask);
}

static void
K3_I1_asks_fail_at_once_when_trials_lack_descriptors_for_longer_than_timeouts_park(void **state)
{
    struct bench *bench = *state;
    struct asking one;
    struct asking late;
    lack_descriptors(bench, &one);
    for (unsigned ms = 0; ms < 4000 && one.done == 0; ms += 50)
        turn(bench, 50);
    assert_true(one.done == 1 && !one.has_answer);
    asking_init(bench, &late, "late");
    assert_false(ask_begin(&late.ask));
}

static void K3_parked_ask_goes_to_the_first_that_is_back(void **state)
{
    struct bench *bench = *state;
    struct asking one;
    bench->config.snapshot.upstream_count = 2;
    begin(bench);
    for (size_t i = 0; i < 2; i++)
        for (size_t j = 0; j < 8; j++)
            path_failed(&bench->group->slots[i]->path, FAILURE_HANDSHAKE_TIMEOUT, "");
    turn(bench, 1000);
    begin_asking(bench, &one, "one");
    assert_int_equal(stream_count, 2);
    make_ready(1);
    turn(bench, 0);
    assert_int_equal(asked_on(&one), 1);
    make_ready(0);
    turn(bench, 0);
    assert_int_equal(asked_on(&one), 1); /* and is sent once */
    assert_int_equal(streams[0].written_count, 0);
    answer(&one, RCODE_NOERROR);
    assert_true(one.has_answer);
}

static void K3_asks_fail_at_once_when_all_are_away_for_longer_than_timeouts_park(void **state)
{
    struct bench *bench = *state;
    struct asking one;
    struct asking next;
    unsigned ms = 0;
    bench->config.snapshot.upstream_count = 1;
    begin(bench);
    begin_asking(bench, &one, "one");
    for (; ms < 5000 && one.done == 0; ms += 50) {
        refuse_all();
        turn(bench, 50);
    }
    assert_in_range(ms, 2900, 3400);
    assert_int_equal(one.done, 1);
    assert_int_equal(one.ask.failure, FAILURE_REFUSED_CONNECTION);
    asking_init(bench, &next, "next");
    assert_false(ask_begin(&next.ask));
    assert_int_equal(next.ask.failure, FAILURE_REFUSED_CONNECTION);
    for (ms = 0; ms < 500; ms += 50) { /* while queries come it is tried */
        turn(bench, 50);
        (void)ask_begin(&next.ask);
        ask_cancel(&next.ask);
    }
    make_ready(find_trial(bench));
    turn(bench, 0);
    begin_asking(bench, &next, "next");
    answer(&next, RCODE_NOERROR);
    assert_true(next.has_answer);
}

static void K3_nobody_is_parked_with_timeouts_park_of_zero(void **state)
{
    struct bench *bench = *state;
    struct asking one;
    bench->config.snapshot.timeouts.park_ns = 0;
    bench->config.snapshot.upstream_count = 1;
    begin(bench);
    begin_asking(bench, &one, "one");
    refuse_all();
    refuse_all();
    assert_int_equal(one.done, 1);
    assert_int_equal(one.ask.failure, FAILURE_REFUSED_CONNECTION);
}

static void K3_first_query_after_a_quiet_hour_waits_for_its_trial(void **state)
{
    struct bench *bench = *state;
    struct asking one;
    bench->config.snapshot.upstream_count = 1;
    begin(bench);
    begin_asking(bench, &one, "one");
    for (unsigned ms = 0; ms < 5000 && one.done == 0; ms += 50) {
        refuse_all();
        turn(bench, 50);
    }
    refuse_all();
    assert_false(ask_begin(&one.ask));
    turn(bench, 3600 * 1000);
    refuse_all();
    turn(bench, 1000);
    begin_asking(bench, &one, "one");
    assert_int_equal(one.done, 0);
    make_ready(find_trial(bench));
    turn(bench, 0);
    answer(&one, RCODE_NOERROR);
    assert_true(one.has_answer);
}

/* No waiting mends it. */
static void E1_nobody_waits_for_a_certificate_to_become_right(void **state)
{
    struct bench *bench = *state;
    struct asking one;
    bench->config.snapshot.upstream_count = 1;
    begin(bench);
    begin_asking(bench, &one, "one");
    for (size_t i = 0; i < 2; i++) {
        streams[i].stream->handler->on_connected(streams[i].stream);
        peer_closes(i, FAILURE_CERTIFICATE_NAME);
    }
    turn(bench, 0);
    assert_int_equal(one.done, 1);
    assert_int_equal(one.ask.failure, FAILURE_CERTIFICATE_NAME);
    asking_init(bench, &one, "one");
    assert_false(ask_begin(&one.ask));
}

/* A storm of queries waits for what one would. */
static void F4_five_hundred_that_wait_open_no_more_connections_than_one(void **state)
{
    struct bench *bench = *state;
    static struct asking all[500];
    begin(bench);
    bench->config.snapshot.upstream_count = UPSTREAMS_MAX;
    for (size_t i = 0; i < 500; i++)
        begin_asking(bench, &all[i], "one");
    for (unsigned ms = 0; ms < 1000; ms += 50) {
        refuse_all();
        turn(bench, 50);
    }
    assert_in_range(stream_count, 2 * UPSTREAMS_MAX, 25 * UPSTREAMS_MAX);
    make_ready(find_trial(bench));
    turn(bench, 0);
    for (size_t i = 0; i < 500; i++)
        ask_cancel(&all[i].ask);
}

/* --- Errors --- */

/* An error with an extended error (RFC 8914 2). */
static void answer_error(const struct asking *one, enum rcode rcode, uint16_t code)
{
    static const uint8_t opt[] = {0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 6, 0, 15, 0, 2};
    uint8_t message[MESSAGE_QUERY_MAX];
    const size_t index = ready_stream(one);
    memcpy(message, streams[index].written[streams[index].written_count - 1], sizeof(message));
    const size_t end = DNS_HEADER_SIZE + one->question.name_length + DNS_QUESTION_TAIL;
    store_u16(message + 2, (uint16_t)(DNS_FLAG_QR | DNS_FLAG_RD | DNS_FLAG_RA | rcode));
    store_u16(message + 10, 1);
    memcpy(message + end, opt, sizeof(opt));
    store_u16(message + end + sizeof(opt), code);
    deliver(index, message, end + sizeof(opt) + 2);
}

static void F19_error_of_all_is_passed_on_without_cycling(void **state)
{
    struct bench *bench = *state;
    struct asking one;
    bench->config.snapshot.upstream_count = 2;
    begin(bench);
    begin_asking(bench, &one, "one");
    answer(&one, RCODE_SERVFAIL);
    assert_int_equal(where_is(&one), 1);
    answer(&one, RCODE_REFUSED);
    assert_int_equal(one.done, 1);
    assert_int_equal(one.errors, 2);
    assert_false(one.has_answer);
}

static void F19_K4_one_known_to_be_good_is_asked_before_an_error_is_passed_on(void **state)
{
    struct bench *bench = *state;
    struct asking one;
    bench->config.snapshot.upstream_count = 3;
    begin(bench);
    bench->group->slots[2]->path.has_answered_well = true;
    begin_asking(bench, &one, "one");
    answer(&one, RCODE_SERVFAIL);
    answer(&one, RCODE_SERVFAIL);
    assert_int_equal(one.done, 0);
    assert_int_equal(where_is(&one), 2);
    answer(&one, RCODE_NOERROR);
    assert_true(one.has_answer);
}

static void F19_error_of_one_that_answers_others_well_is_an_answer(void **state)
{
    struct bench *bench = *state;
    struct asking one;
    bench->config.snapshot.upstream_count = 3;
    begin(bench);
    bench->group->slots[1]->path.has_answered_well = true;
    bench->group->slots[2]->path.has_answered_well = true;
    begin_asking(bench, &one, "one");
    answer(&one, RCODE_SERVFAIL);
    answer(&one, RCODE_SERVFAIL);
    assert_int_equal(one.done, 1);
    assert_int_equal(one.errors, 2);
}

/* Two that have begun to err are known to be good no longer, though nobody has known better yet. */
static void F19_K4_one_that_errs_twice_in_a_row_is_not_known_to_be_good(void **state)
{
    struct bench *bench = *state;
    struct asking one;
    bench->config.snapshot.upstream_count = 3;
    begin(bench);
    for (size_t i = 0; i < 3; i++)
        bench->group->slots[i]->path.has_answered_well = true;
    begin_asking(bench, &one, "one");
    answer(&one, RCODE_SERVFAIL);
    answer(&one, RCODE_SERVFAIL);
    assert_int_equal(one.done, 1);
    begin_asking(bench, &one, "two");
    answer(&one, RCODE_SERVFAIL);
    answer(&one, RCODE_SERVFAIL);
    assert_int_equal(one.done, 0);
    assert_int_equal(where_is(&one), 2);
    answer(&one, RCODE_NOERROR);
    assert_true(one.has_answer);
}

/* One that has not answered may be the one that knows better. */
static void F19_who_was_asked_in_vain_is_asked_again_before_an_error_is_passed_on(void **state)
{
    struct bench *bench = *state;
    struct asking one;
    bench->config.snapshot.upstream_count = 2;
    begin(bench);
    begin_asking(bench, &one, "one");
    assert_int_equal(where_is(&one), 0);
    close_under(&one);
    assert_int_equal(where_is(&one), 1);
    answer(&one, RCODE_SERVFAIL);
    assert_int_equal(one.done, 0);
    assert_int_equal(where_is(&one), 0);
    answer(&one, RCODE_NOERROR);
    assert_true(one.has_answer);
}

/* RFC 9520 3.1: the one that is there has had it three times; the other may come back. */
static void E_question_that_the_one_there_has_had_three_times_waits_for_the_other(void **state)
{
    struct bench *bench = *state;
    struct asking one;
    bench->config.snapshot.upstream_count = 2;
    begin(bench);
    begin_asking(bench, &one, "one");
    bench->group->slots[1]->path.down = true;
    bench->group->slots[1]->path.last_failure = FAILURE_REFUSED_CONNECTION;
    one.ask.attempts.odd |= 1;
    one.ask.attempts.two |= 1;
    close_under(&one);
    turn(bench, 100); /* the look that counts */
    assert_int_equal(one.done, 0);
    assert_false(ask_is_in_flight(&one.ask));
    path_connected(&bench->group->slots[1]->path);
    turn(bench, 0);
    assert_int_equal(where_is(&one), 1);
    answer(&one, RCODE_NOERROR);
    assert_true(one.has_answer);
}

/* Another would say the same, or worse: what was filtered here. */
static void F19_RFC8914_error_of_DNSSEC_or_policy_is_passed_on_at_once(void **state)
{
    struct bench *bench = *state;
    static const uint16_t final[] = {DNSSEC_BOGUS, FILTERED};
    struct asking one;
    begin(bench);
    for (size_t i = 0; i < UPSTREAMS_MAX; i++)
        bench->group->slots[i]->path.has_answered_well = true;
    for (size_t i = 0; i < 2; i++) {
        begin_asking(bench, &one, "one");
        answer_error(&one, RCODE_SERVFAIL, final[i]);
        assert_int_equal(one.done, 1);
        assert_int_equal(one.errors, 1);
    }
    begin_asking(bench, &one, "one");
    answer_error(&one, RCODE_SERVFAIL, NO_REACHABLE_SERVER);
    assert_int_equal(one.done, 0);
    assert_int_equal(where_is(&one), 1);
    answer(&one, RCODE_NOERROR);
    assert_true(one.has_answer);
}

static void K4_upstream_whose_errors_others_know_better_is_asked_last_for_a_second(void **state)
{
    struct bench *bench = *state;
    struct asking one;
    bench->config.snapshot.upstream_count = 2;
    begin(bench);
    for (size_t i = 0; i < 5; i++) {
        begin_asking(bench, &one, "one");
        assert_int_equal(where_is(&one), 0);
        answer(&one, RCODE_SERVFAIL);
        assert_int_equal(where_is(&one), 1);
        answer(&one, RCODE_NOERROR);
        assert_true(one.has_answer);
    }
    for (unsigned ms = 0; ms < 900; ms += 100) {
        begin_asking(bench, &one, "one");
        assert_int_equal(where_is(&one), 1);
        answer(&one, RCODE_NOERROR);
        turn(bench, 100);
    }
    turn(bench, 100);
    begin_asking(bench, &one, "one"); /* one query tries it */
    assert_int_equal(where_is(&one), 0);
    answer(&one, RCODE_SERVFAIL);
    answer(&one, RCODE_NOERROR);
    assert_true(one.has_answer);
    begin_asking(bench, &one, "one");
    assert_int_equal(where_is(&one), 1);
    answer(&one, RCODE_NOERROR);
    turn(bench, 1000);
    begin_asking(bench, &one, "one");
    assert_int_equal(where_is(&one), 0);
    answer(&one, RCODE_NOERROR); /* it is well again */
    begin_asking(bench, &one, "one");
    assert_int_equal(where_is(&one), 0);
    answer(&one, RCODE_NOERROR);
}

static void K4_error_that_others_repeat_is_held_against_nobody(void **state)
{
    struct bench *bench = *state;
    struct asking one;
    bench->config.snapshot.upstream_count = 2;
    begin(bench);
    for (size_t i = 0; i < 10; i++) {
        begin_asking(bench, &one, "one");
        assert_int_equal(where_is(&one), 0);
        answer(&one, RCODE_SERVFAIL);
        answer(&one, RCODE_SERVFAIL);
        assert_int_equal(one.done, 1);
    }
}

/* --- Its owner --- */

static void F17_cancelled_ask_is_told_nothing_wherever_it_waits(void **state)
{
    struct bench *bench = *state;
    struct asking parked;
    struct asking looking;
    start(bench, 1);
    end_alone(bench, &looking);
    ask_cancel(&looking.ask);
    turn(bench, 2 * SECOND_LOOK_MS);
    assert_int_equal(looking.done, 0);
    assert_false(ask_is_in_flight(&looking.ask));
    bench->group->slots[0]->path.down = true;
    begin_asking(bench, &parked, "parked");
    ask_cancel(&parked.ask);
    path_connected(&bench->group->slots[0]->path);
    turn(bench, 0);
    assert_int_equal(parked.done, 0);
    assert_false(ask_is_in_flight(&parked.ask));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(J1_what_is_known_of_a_removed_upstream_is_forgotten),
        TEST(J1_what_is_known_of_others_stays),
        TEST(K1_what_was_on_a_connection_that_ended_is_asked_alone),
        TEST(K1_of_many_on_a_connection_that_ended_nobody_is_suspected),
        TEST(K1_first_end_may_be_the_upstreams_and_one_in_calm_is_asked),
        TEST(K2_close_with_questions_aboard_takes_no_upstream_down),
        TEST(K1_suspect_that_is_late_is_not_hedged_among_others),
        TEST(K2_end_right_behind_an_answer_makes_nobody_suspect),
        TEST(K1_few_are_looked_at_before_the_look_that_counts),
        TEST(K2_ends_of_most_connections_at_once_are_no_evidence),
        TEST(K2_none_of_many_fails_when_their_connection_ends),
        TEST(K3_RFC9520_3_1_last_time_is_not_spent_on_a_server_that_says_nothing),
        TEST(K3_last_attempt_of_all_is_kept_until_somebody_answers),
        TEST(K3_last_attempt_is_for_an_upstream_that_was_never_asked),
        TEST(K9_known_bad_that_is_late_is_not_asked_among_others),
        TEST(K9_who_joins_what_a_known_bad_one_asks_is_not_confined_with_it),
        TEST(K9_asks_wait_for_an_upstream_that_takes_no_more_connections),
        TEST(K9_question_waits_until_the_only_connection_is_free),
        TEST(F4_question_waits_when_too_many_connections_were_opened_of_late),
        TEST(I1_K1_many_ride_on_what_there_is_when_no_more_comes),
        TEST(K9_RFC9520_3_1_who_has_one_time_left_is_in_line_for_any_lane),
        TEST(K1_two_ends_alone_while_others_are_answered_convict),
        TEST(K1_second_look_is_on_a_connection_that_has_carried_nothing_else),
        TEST(K1_second_look_goes_to_another_upstream),
        TEST(K3_two_ends_alone_while_nobody_is_answered_convict_nobody),
        TEST(K3_evidence_from_a_time_when_our_probe_failed_convicts_nobody),
        TEST(RFC9520_3_1_a_server_is_sent_a_question_three_times_at_most),
        TEST(K3_ask_waits_for_an_upstream_to_come_back),
        TEST(K3_I1_ask_waits_though_a_trial_lacked_a_descriptor),
        TEST(K3_I1_asks_fail_at_once_when_trials_lack_descriptors_for_longer_than_timeouts_park),
        TEST(K3_parked_ask_goes_to_the_first_that_is_back),
        TEST(K3_asks_fail_at_once_when_all_are_away_for_longer_than_timeouts_park),
        TEST(K3_nobody_is_parked_with_timeouts_park_of_zero),
        TEST(K3_first_query_after_a_quiet_hour_waits_for_its_trial),
        TEST(E1_nobody_waits_for_a_certificate_to_become_right),
        TEST(F4_five_hundred_that_wait_open_no_more_connections_than_one),
        TEST(F19_error_of_all_is_passed_on_without_cycling),
        TEST(F19_K4_one_known_to_be_good_is_asked_before_an_error_is_passed_on),
        TEST(F19_error_of_one_that_answers_others_well_is_an_answer),
        TEST(E_question_that_the_one_there_has_had_three_times_waits_for_the_other),
        TEST(F19_K4_one_that_errs_twice_in_a_row_is_not_known_to_be_good),
        TEST(F19_who_was_asked_in_vain_is_asked_again_before_an_error_is_passed_on),
        TEST(F19_RFC8914_error_of_DNSSEC_or_policy_is_passed_on_at_once),
        TEST(K4_upstream_whose_errors_others_know_better_is_asked_last_for_a_second),
        TEST(K4_error_that_others_repeat_is_held_against_nobody),
        TEST(F17_cancelled_ask_is_told_nothing_wherever_it_waits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
