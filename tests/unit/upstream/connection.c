// SPDX-License-Identifier: Apache-2.0
/* One pipelined connection: IDs, matching, late and strange answers, states, deadlines. */
#include "fake_stream.h"

static uint16_t id_of(size_t stream, size_t written)
{
    return load_u16(streams[stream].written[written]);
}

static void answers_out_of_order_reach_their_requests(void **state)
{
    struct bench *bench = *state;
    struct asked asks[50];
    begin(bench);
    for (size_t i = 0; i < 50; i++) {
        char label[8];
        snprintf(label, sizeof(label), "n%zu", i);
        assert_int_equal(ask(bench, &asks[i], label), 0);
    }
    make_ready(0);
    for (size_t i = 50; i-- > 0;) {
        answer_written(0, i, i % 2 ? RCODE_NXDOMAIN : RCODE_NOERROR);
        assert_int_equal(asks[i].done, 1);
        assert_int_equal(asks[i].rcode, i % 2 ? RCODE_NXDOMAIN : RCODE_NOERROR);
    }
    assert_int_equal(stream_count, 1);
}

static void F9_identifiers_in_flight_never_collide(void **state)
{
    struct bench *bench = *state;
    static struct asked asks[100];
    static bool is_used[65536];
    bench->config.limits.upstream_connections = 1;
    begin(bench);
    for (size_t i = 0; i < 100; i++)
        ask(bench, &asks[i], "x");
    make_ready(0);
    for (size_t i = 0; i < 100; i++) {
        assert_false(is_used[id_of(0, i)]);
        is_used[id_of(0, i)] = true;
    }
    for (size_t i = 0; i < 100; i++)
        answer_written(0, i, RCODE_NOERROR);
    /* 128 slots would leave 512 generations: an ID comes back only after its slot was used that
     * often. */
    for (size_t i = 0; i < 3000; i++) {
        struct asked one;
        ask(bench, &one, "y");
        const size_t last = streams[0].written_count - 1;
        assert_false(is_used[id_of(0, last)]);
        is_used[id_of(0, last)] = true;
        answer_written(0, last, RCODE_NOERROR);
        assert_int_equal(one.done, 1);
    }
}

/* It waits in its slot, which is free again at once. */
static void RFC9520_3_1_question_that_leaves_before_the_handshake_is_never_sent(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    struct asked two;
    begin(bench);
    ask(bench, &one, "gone");
    ask(bench, &two, "stays");
    assert_int_equal(streams[0].written_count, 0);
    request_cancel(&one.request);
    assert_int_equal(one.attempts.odd | one.attempts.two, 0);
    make_ready(0);
    assert_int_equal(streams[0].written_count, 1);
    answer_written(0, 0, RCODE_NOERROR);
    assert_int_equal(two.done, 1);
}

/* Whatever is known of the group's quick generator, whose state is the same for each. */
static void I8_identifiers_of_each_connection_begin_anywhere(void **state)
{
    struct bench *bench = *state;
    enum { CONNECTIONS = 16 };
    uint16_t first[CONNECTIONS];
    size_t met = 0;
    bench->config.snapshot.upstream_count = 1;
    begin(bench);
    for (size_t i = 0; i < CONNECTIONS; i++) {
        struct asked one;
        bench->group->random.state = 1;
        ask(bench, &one, "x");
        make_ready(i);
        first[i] = id_of(i, 0);
        answer_written(i, 0, RCODE_NOERROR);
        peer_closes(i, FAILURE_CLOSED);
        for (size_t j = 0; j < i; j++)
            met += first[j] == first[i];
    }
    assert_in_range(met, 0, 2); /* by chance */
}

static void full_connection_opens_a_second_and_no_third(void **state)
{
    struct bench *bench = *state;
    static struct asked asks[201];
    bench->config.snapshot.upstream_count = 1;
    begin(bench);
    for (size_t i = 0; i < 200; i++)
        ask(bench, &asks[i], "x");
    assert_int_equal(stream_count, 2);
    asked_init(&asks[200], "x");
    assert_true(ask_again(bench, &asks[200]) == STATUS_NOT_FOUND);
    assert_int_equal(asks[200].failure, FAILURE_OVERLOADED);
    for (size_t i = 0; i < 200; i++)
        request_cancel(&asks[i].request);
}

static void F10_late_answer_reaches_nobody(void **state)
{
    struct bench *bench = *state;
    struct asked first;
    struct asked second;
    begin(bench);
    ask(bench, &first, "same");
    make_ready(0);
    request_cancel(&first.request);
    ask(bench, &second, "same");
    assert_int_not_equal(id_of(0, 0), id_of(0, 1));
    answer_written(0, 0, RCODE_NXDOMAIN);
    assert_int_equal(first.done, 0);
    assert_int_equal(second.done, 0);
    answer_written(0, 1, RCODE_NOERROR);
    assert_int_equal(second.done, 1);
    assert_int_equal(second.rcode, RCODE_NOERROR);
}

static void F10_too_many_reserved_identifiers_retire_the_connection(void **state)
{
    struct bench *bench = *state;
    static struct asked asks[40];
    begin(bench);
    ask(bench, &asks[0], "stays");
    make_ready(0);
    for (size_t i = 1; i < 30; i++) {
        ask(bench, &asks[i], "gone");
        request_cancel(&asks[i].request);
    }
    assert_true(stream_count > 1);
    assert_int_equal(metric_get(&bench->metrics->upstreams[0].draining), 1);
    answer_written(0, 0, RCODE_NOERROR);
    assert_int_equal(asks[0].done, 1);
    assert_null(streams[0].stream);
}

static void F12_answer_to_another_question_is_thrown_away(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    begin(bench);
    ask(bench, &one, "right");
    make_ready(0);
    uint8_t saved[MESSAGE_QUERY_MAX];
    memcpy(saved, streams[0].written[0], sizeof(saved));
    streams[0].written[0][DNS_HEADER_SIZE + 1] = 'w';
    answer_written(0, 0, RCODE_NOERROR);
    assert_int_equal(one.done, 0);
    assert_int_equal(metric_get(&bench->metrics->upstreams[0].unmatched), 1);
    memcpy(streams[0].written[0], saved, sizeof(saved));
    streams[0].written[0][DNS_HEADER_SIZE + 1] = 'R'; /* only the case differs: accepted */
    answer_written(0, 0, RCODE_NOERROR);
    assert_int_equal(one.done, 1);
}

static void F13_second_answer_and_strangers_are_counted(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    begin(bench);
    ask(bench, &one, "x");
    make_ready(0);
    answer_written(0, 0, RCODE_NOERROR);
    answer_written(0, 0, RCODE_NOERROR);
    assert_int_equal(one.done, 1);
    assert_int_equal(metric_get(&bench->metrics->upstreams[0].unmatched), 1);
}

static void F13_flood_of_strangers_closes_the_connection(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    begin(bench);
    ask(bench, &one, "x");
    make_ready(0);
    uint8_t stranger[DNS_HEADER_SIZE] = {0};
    store_u16(stranger, (uint16_t)(id_of(0, 0) ^ 1));
    for (size_t i = 0; i < 100 && streams[0].stream; i++)
        deliver(0, stranger, sizeof(stranger));
    assert_null(streams[0].stream);
    assert_int_equal(one.done, 1);
    assert_int_equal(one.failure, FAILURE_PROTOCOL);
}

/* Its framing is intact: it costs the one whose ID it has, and nobody when that is none. */
static void F8_message_too_short_for_a_header_costs_its_own_request_alone(void **state)
{
    struct bench *bench = *state;
    begin(bench);
    for (size_t length = 2; length < DNS_HEADER_SIZE; length++) {
        struct asked one;
        struct asked other;
        const size_t first = 2 * (length - 2);
        ask(bench, &one, "x");
        ask(bench, &other, "y");
        if (first == 0)
            make_ready(0);
        deliver(0, streams[0].written[first], length);
        assert_int_equal(one.failure, FAILURE_MALFORMED_ANSWER);
        assert_false(one.has_answer);
        assert_int_equal(other.done, 0);
        deliver(0, streams[0].written[first], length); /* once more: nobody's */
        assert_int_equal(other.done, 0);
        answer_written(0, first + 1, RCODE_NOERROR);
        assert_int_equal(other.rcode, RCODE_NOERROR);
    }
    assert_int_equal(metric_get(&bench->metrics->upstreams[0].unmatched), 10);
    assert_int_equal(bench->group->slots[0]->path.failures, 0);
}

static void F8_message_too_short_for_an_id_is_nobodys(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    begin(bench);
    ask(bench, &one, "x");
    make_ready(0);
    deliver(0, streams[0].written[0], 0);
    deliver(0, streams[0].written[0], 1);
    assert_int_equal(metric_get(&bench->metrics->upstreams[0].unmatched), 2);
    assert_int_equal(one.done, 0);
    answer_written(0, 0, RCODE_NOERROR);
    assert_int_equal(one.rcode, RCODE_NOERROR);
}

/* As any answer that is too late it makes its ID free again. */
static void F8_F10_message_too_short_for_who_gave_up_frees_the_id(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    begin(bench);
    ask(bench, &one, "x");
    make_ready(0);
    request_cancel(&one.request);
    const struct connection *connection =
        CONTAINER_OF(streams[0].stream, struct connection, stream);
    assert_int_equal(connection->abandoned, 1);
    deliver(0, streams[0].written[0], 5);
    assert_int_equal(connection->abandoned, 0);
    assert_int_equal(one.done, 0);
}

static void G4_answer_without_question_is_a_failure_at_once(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    begin(bench);
    ask(bench, &one, "x");
    make_ready(0);
    uint8_t header[DNS_HEADER_SIZE] = {0, 0, 0x80, RCODE_REFUSED};
    store_u16(header, id_of(0, 0));
    deliver(0, header, sizeof(header));
    assert_int_equal(one.done, 1);
    assert_int_equal(one.failure, FAILURE_MALFORMED_ANSWER);
    assert_false(one.has_answer);
}

static void F19_error_codes_come_with_their_answer(void **state)
{
    struct bench *bench = *state;
    static const struct {
        enum rcode rcode;
        enum failure failure;
    } rows[] = {
        {RCODE_SERVFAIL, FAILURE_SERVER_FAILURE}, {RCODE_REFUSED, FAILURE_REFUSED},
        {RCODE_FORMERR, FAILURE_OTHER_RCODE},     {RCODE_NOTIMP, FAILURE_OTHER_RCODE},
        {RCODE_YXDOMAIN, FAILURE_NONE},           {RCODE_NXDOMAIN, FAILURE_NONE},
    };
    begin(bench);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct asked one;
        ask(bench, &one, "x");
        if (i == 0)
            make_ready(0);
        answer_written(0, i, rows[i].rcode);
        assert_true(one.has_answer);
        assert_int_equal(one.failure, rows[i].failure);
    }
}

static void F6_each_state_has_its_own_deadline(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    begin(bench);
    ask(bench, &one, "x");
    turn(bench, 999);
    assert_int_equal(one.done, 0);
    turn(bench, 1);
    assert_int_equal(one.failure, FAILURE_CONNECT_TIMEOUT);
    assert_true(ask_again(bench, &one) == STATUS_OK);
    streams[1].stream->handler->on_connected(streams[1].stream);
    turn(bench, 1499);
    assert_int_equal(one.done, 1);
    turn(bench, 1);
    assert_int_equal(one.failure, FAILURE_HANDSHAKE_TIMEOUT);
}

static void F5_silence_since_the_oldest_request_ends_the_connection(void **state)
{
    struct bench *bench = *state;
    struct asked first;
    struct asked later;
    begin(bench);
    ask(bench, &first, "first");
    make_ready(0);
    turn(bench, 1400);
    ask(bench, &later, "later"); /* new traffic postpones nothing */
    turn(bench, 100);
    assert_true(first.late > 0);
    assert_int_equal(first.failure, FAILURE_REQUEST_TIMEOUT);
    assert_int_equal(later.failure, FAILURE_REQUEST_TIMEOUT);
    assert_null(streams[0].stream);
}

/* Many round trips of `ms` on stream 0, so that late and dead are known. */
static void measure(struct bench *bench, uint64_t ms)
{
    for (size_t i = 0; i < 100; i++) {
        struct asked one;
        assert_int_equal(ask(bench, &one, "measured"), 0);
        if (i == 0)
            make_ready(0);
        turn(bench, ms);
        answer_written(0, i, RCODE_NOERROR);
        assert_int_equal(one.done, 1);
    }
}

static void late_is_clearly_longer_than_nearly_all_answers_take(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    begin(bench);
    measure(bench, 20);
    const uint64_t p95_ms = bench->group->slots[0]->path.times.p95_ns / NANOSECONDS_PER_MILLISECOND;
    assert_in_range(p95_ms, 19, 22);
    ask(bench, &one, "slow");
    turn(bench, 20);
    assert_int_equal(one.late, 0);
    turn(bench, 15);
    assert_int_equal(one.late, 1);
    turn(bench, 50); /* and is told again */
    assert_int_equal(one.late, 2);
    answer_named(0, "slow", RCODE_NOERROR);
    turn(bench, 50);
    assert_int_equal(one.late, 2);
}

static void late_is_bounded_below_and_above(void **state)
{
    struct bench *bench = *state;
    struct upstream *upstream;
    begin(bench);
    upstream = bench->group->slots[0];
    assert_int_equal(upstream->path.late.duration_ns, 250 * NANOSECONDS_PER_MILLISECOND);
    assert_int_equal(
        times_dead_ns(&upstream->path.times, bench->config.snapshot.timeouts.request_ns),
        bench->config.snapshot.timeouts.request_ns);
    path_measure(&upstream->path, 1000);
    assert_int_equal(upstream->path.late.duration_ns, 10 * NANOSECONDS_PER_MILLISECOND);
    assert_int_equal(
        times_dead_ns(&upstream->path.times, bench->config.snapshot.timeouts.request_ns),
        500 * NANOSECONDS_PER_MILLISECOND);
    upstream->path.times.rtt_ns = upstream->path.times.p95_ns = 0;
    bench->loop.now++;
    path_measure(&upstream->path, 20 * NANOSECONDS_PER_SECOND);
    assert_int_equal(upstream->path.late.duration_ns, bench->config.snapshot.timeouts.request_ns);
    assert_int_equal(
        times_dead_ns(&upstream->path.times, bench->config.snapshot.timeouts.request_ns),
        bench->config.snapshot.timeouts.request_ns);
}

/* Evenly 1 to 10 ms. */
static uint64_t any_time_ns(uint64_t *chance)
{
    *chance = *chance * 6364136223846793005U + 1442695040888963407U;
    return 1000000 + (*chance >> 33) % 9000000;
}

static void times_are_where_one_of_nine_is_quicker_and_one_of_twenty_slower(void **state)
{
    struct bench *bench = *state;
    struct upstream *upstream;
    size_t quicker = 0;
    size_t slower = 0;
    uint64_t chance = 1;
    begin(bench);
    upstream = bench->group->slots[0];
    for (size_t i = 0; i < 20000; i++) {
        const uint64_t took_ns = any_time_ns(&chance);
        bench->loop.now++;
        path_measure(&upstream->path, took_ns);
        quicker += i >= 10000 && took_ns < upstream->path.times.rtt_ns;
        slower += i >= 10000 && took_ns > upstream->path.times.p95_ns;
    }
    assert_in_range(quicker, 800, 1400); /* of 10000 */
    assert_in_range(slower, 200, 800);
}

static void one_slow_name_hardly_moves_the_time_of_a_path(void **state)
{
    struct bench *bench = *state;
    struct asked slow;
    begin(bench);
    measure(bench, 5);
    const struct upstream *upstream = bench->group->slots[0];
    const uint64_t before_ns = upstream->path.times.rtt_ns;
    assert_int_equal(before_ns, 5 * NANOSECONDS_PER_MILLISECOND);
    is_acknowledged = true;
    ask(bench, &slow, "slow");
    turn(bench, 1000);
    answer_named(0, "slow", RCODE_NOERROR);
    assert_int_equal(slow.rcode, RCODE_NOERROR);
    assert_in_range(upstream->path.times.rtt_ns, before_ns + 1, before_ns + before_ns / 64);
    assert_in_range(upstream->path.times.expected_ns, before_ns, before_ns + before_ns / 64);
}

static void slow_first_answer_is_soon_corrected(void **state)
{
    struct bench *bench = *state;
    struct upstream *upstream;
    begin(bench);
    upstream = bench->group->slots[0];
    path_measure(&upstream->path, 3 * NANOSECONDS_PER_SECOND);
    assert_int_equal(upstream->path.times.rtt_ns, 3 * NANOSECONDS_PER_SECOND);
    for (size_t i = 0; i < 50; i++) {
        bench->loop.now++;
        path_measure(&upstream->path, 5 * NANOSECONDS_PER_MILLISECOND);
        assert_int_equal(upstream->path.times.expected_ns, 5 * NANOSECONDS_PER_MILLISECOND);
    }
    assert_int_equal(upstream->path.times.rtt_ns, 5 * NANOSECONDS_PER_MILLISECOND);
    assert_in_range(upstream->path.late.duration_ns, 10 * NANOSECONDS_PER_MILLISECOND,
                    22 * NANOSECONDS_PER_MILLISECOND);
}

/* A fifth of all answers take 1.5 s, for long: what is late, and what is dead, hardly changes. */
static void F5_slow_names_do_not_hide_a_silence(void **state)
{
    struct bench *bench = *state;
    struct upstream *upstream;
    begin(bench);
    upstream = bench->group->slots[0];
    for (size_t i = 0; i < 5000; i++) {
        bench->loop.now++;
        path_measure(&upstream->path, i % 5 == 4 ? 1500 * NANOSECONDS_PER_MILLISECOND
                                                 : 5 * NANOSECONDS_PER_MILLISECOND);
    }
    assert_true(upstream->path.times.p95_ns > NANOSECONDS_PER_SECOND);
    assert_in_range(upstream->path.late.duration_ns, 10 * NANOSECONDS_PER_MILLISECOND,
                    24 * NANOSECONDS_PER_MILLISECOND);
    assert_int_equal(
        times_dead_ns(&upstream->path.times, bench->config.snapshot.timeouts.request_ns),
        bench->config.snapshot.timeouts.request_ns);
}

static void only_good_answers_measure(void **state)
{
    struct bench *bench = *state;
    static const enum rcode errors[] = {RCODE_SERVFAIL, RCODE_REFUSED, RCODE_FORMERR, RCODE_NOTIMP};
    struct upstream *upstream;
    begin(bench);
    upstream = bench->group->slots[0];
    for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
        struct asked one;
        ask(bench, &one, "x");
        if (i == 0)
            make_ready(0);
        turn(bench, 1);
        upstream->path.failures = 1;
        answer_written(0, i, errors[i]);
        assert_int_equal(upstream->path.failures, 0); /* but it lives */
        assert_int_equal(upstream->path.times.rtt_ns, 0);
        assert_int_equal(upstream->path.times.p95_ns, 0);
        assert_int_equal(upstream->path.late.duration_ns, 250 * NANOSECONDS_PER_MILLISECOND);
    }
    static const enum rcode good[] = {RCODE_NXDOMAIN, RCODE_NOERROR | DNS_FLAG_TC};
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        struct asked one;
        ask(bench, &one, "x");
        turn(bench, 7);
        answer_written(0, sizeof(errors) / sizeof(errors[0]) + i, good[i]);
        assert_int_equal(upstream->path.times.rtt_ns, 7 * NANOSECONDS_PER_MILLISECOND);
        upstream->path.times.rtt_ns = 0;
    }
}

static void answer_to_who_gave_up_does_not_measure(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    begin(bench);
    measure(bench, 5);
    struct upstream *upstream = bench->group->slots[0];
    const uint64_t p95_ns = upstream->path.times.p95_ns;
    ask(bench, &one, "x");
    turn(bench, 100);
    assert_false(upstream_is_ready(upstream));
    request_cancel(&one.request);
    upstream->path.failures = 1;
    answer_named(0, "x", RCODE_NOERROR);
    assert_int_equal(upstream->path.times.rtt_ns, 5 * NANOSECONDS_PER_MILLISECOND);
    assert_int_equal(upstream->path.times.p95_ns, p95_ns);
    assert_int_equal(upstream->path.failures, 0); /* but it lives */
    assert_true(upstream_is_ready(upstream));
}

static void flood_at_the_end_of_a_silence_is_one_sample(void **state)
{
    struct bench *bench = *state;
    struct upstream *upstream;
    begin(bench);
    upstream = bench->group->slots[0];
    path_measure(&upstream->path, 5 * NANOSECONDS_PER_MILLISECOND);
    const uint64_t before_ns = upstream->path.times.p95_ns;
    bench->loop.now++;
    for (size_t i = 0; i < 500; i++)
        path_measure(&upstream->path, 800 * NANOSECONDS_PER_MILLISECOND);
    assert_in_range(upstream->path.times.p95_ns, before_ns + 1, before_ns + before_ns / 32);
}

static void F5_connection_is_silent_until_it_answers_what_it_was_asked(void **state)
{
    struct bench *bench = *state;
    struct asked first;
    struct asked second;
    begin(bench);
    measure(bench, 5);
    assert_true(upstream_is_ready(bench->group->slots[0]));
    ask(bench, &first, "first");
    ask(bench, &second, "second");
    turn(bench, 10);
    assert_false(upstream_is_ready(bench->group->slots[0]));
    assert_int_equal(metric_get(&bench->metrics->upstreams[0].silences), 1);
    const size_t last = streams[0].written_count - 1;
    request_cancel(&first.request); /* both were asked elsewhere */
    request_cancel(&second.request);
    turn(bench, 100);
    assert_false(upstream_is_ready(bench->group->slots[0]));
    answer_written(0, last, RCODE_NOERROR);
    assert_true(upstream_is_ready(bench->group->slots[0]));
    answer_written(0, last - 1, RCODE_NOERROR);
    turn(bench, 29000); /* and is idle from now on */
    assert_non_null(streams[0].stream);
    turn(bench, 1000);
    assert_null(streams[0].stream);
}

static void F5_dead_path_is_noticed_though_nobody_waits_for_it_any_more(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    begin(bench);
    measure(bench, 5);
    ask(bench, &one, "lost");
    turn(bench, 10);
    request_cancel(&one.request);
    for (size_t i = 0; i < 9; i++)
        turn(bench, 50);
    assert_non_null(streams[0].stream);
    turn(bench, 50);
    assert_null(streams[0].stream);
    assert_false(bench->group->slots[0]->path.down); /* it may have been the question */
    assert_int_equal(metric_get(&bench->metrics->upstreams[0].up), 0);
    assert_int_equal(stream_count, 2); /* which our own, alone on this one, will tell */
    make_ready(1);
    assert_int_equal(streams[1].written_count, 1);
    for (unsigned i = 0; i < 60 && streams[1].stream; i++)
        turn(bench, 50);
    assert_true(bench->group->slots[0]->path.down);
}

static void F5_server_that_hangs_has_more_time_than_a_dead_path(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    begin(bench);
    measure(bench, 5);
    is_acknowledged = true;
    ask(bench, &one, "hangs");
    for (uint64_t ms = 0; ms < 2200; ms += 50)
        turn(bench, 50);
    assert_int_equal(one.done, 0);
    turn(bench, 100);
    assert_int_equal(one.failure, FAILURE_REQUEST_TIMEOUT);
}

static void F5_answer_to_a_probe_keeps_a_slow_upstream_alive(void **state)
{
    struct bench *bench = *state;
    struct asked slow;
    begin(bench);
    measure(bench, 5);
    ask(bench, &slow, "slow");
    const size_t asked = streams[0].written_count - 1;
    for (size_t i = 0; i < 60; i++) {
        const size_t written = streams[0].written_count;
        turn(bench, 50);
        if (streams[0].written_count > written) { /* the probe: the root's name servers */
            assert_int_equal(streams[0].written[written][DNS_HEADER_SIZE], 0);
            assert_int_equal(load_u16(&streams[0].written[written][DNS_HEADER_SIZE + 1]), TYPE_NS);
            answer_written(0, written, RCODE_NOERROR);
        }
    }
    assert_int_equal(metric_get(&bench->metrics->upstreams[0].probes), 1);
    assert_true(upstream_is_ready(bench->group->slots[0])); /* it is the question that is slow */
    assert_int_equal(slow.done, 0);
    answer_written(0, asked, RCODE_NOERROR);
    assert_int_equal(slow.done, 1);
    assert_true(slow.has_answer);
    assert_int_equal(bench->group->slots[0]->path.failures, 0);
}

/* Turns for three seconds, and answers what is asked of our own on stream 0. */
static void turn_with_probes(struct bench *bench)
{
    for (size_t i = 0; i < 60; i++) {
        const size_t written = streams[0].written_count;
        turn(bench, 50);
        if (streams[0].written_count > written)
            answer_written(0, written, RCODE_NOERROR);
    }
}

static void F5_full_connection_is_probed_in_the_slot_kept_for_it(void **state)
{
    struct bench *bench = *state;
    static struct asked asks[100];
    bench->config.snapshot.upstream_count = 1;
    bench->config.limits.upstream_connections = 1;
    begin(bench);
    measure(bench, 5);
    for (size_t i = 0; i < 100; i++)
        assert_int_equal(ask(bench, &asks[i], "never answered"), 0);
    assert_false(upstream_is_ready(bench->group->slots[0]));
    turn_with_probes(bench);
    assert_in_range(metric_get(&bench->metrics->upstreams[0].probes), 1, 15);
    assert_int_equal(bench->group->slots[0]->path.failures, 0);
    for (size_t i = 0; i < 100; i++)
        request_cancel(&asks[i].request);
}

static void F5_upstream_that_is_full_and_answers_is_not_down(void **state)
{
    struct bench *bench = *state;
    struct asked dead[2];
    struct asked good[2];
    bench->config.snapshot.upstream_count = 1;
    bench->config.limits.upstream_requests = 2;
    begin(bench);
    measure(bench, 5);
    for (size_t i = 0; i < 2; i++)
        assert_int_equal(ask(bench, &dead[i], "on a path that dies"), 0);
    assert_int_equal(ask(bench, &good[0], "x"), 1);
    make_ready(1);
    assert_int_equal(ask(bench, &good[1], "x"), 1);
    size_t next = 0;
    for (size_t i = 0; streams[0].stream; i++) {
        assert_in_range(i, 0, 40);
        turn(bench, 50);
        while (streams[1].written[next][DNS_HEADER_SIZE] == 0) /* it may be silent, too */
            next++;
        answer_written(1, next++, RCODE_NOERROR);
        assert_int_equal(ask(bench, &good[i % 2], "x"), 1);
    }
    assert_int_equal(dead[0].failure, FAILURE_REQUEST_TIMEOUT);
    assert_false(bench->group->slots[0]->path.down);
    for (size_t i = 0; i < 2; i++)
        request_cancel(&good[i].request);
}

/* Slots come into use by and by, and each is one of its own. */
static void F9_thousands_of_requests_have_identifiers_of_their_own(void **state)
{
    struct bench *bench = *state;
    enum { MANY = 2500 };
    static struct asked asks[MANY];
    static bool is_used[65536];
    bench->config.snapshot.upstream_count = 1;
    bench->config.limits.upstream_requests = MANY;
    begin(bench);
    for (size_t i = 0; i < MANY; i++) {
        assert_int_equal(ask(bench, &asks[i], "x"), 0);
        const struct connection *connection = asks[i].request.connection;
        assert_int_equal(connection->slots.used, i < 1024 ? 1024 : i < 2048 ? 2048 : MANY + 1);
        const uint16_t id = slot_id(&connection->slots, asks[i].request.slot);
        assert_false(is_used[id]);
        is_used[id] = true;
    }
    for (size_t i = 0; i < MANY; i++)
        request_cancel(&asks[i].request);
}

static void F20_answered_probe_is_no_reason_to_trust(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    begin(bench);
    measure(bench, 5);
    ask(bench, &one, "hangs");
    turn(bench, 10);
    for (size_t i = 0; i < 8; i++) {
        const size_t written = streams[0].written_count;
        turn(bench, 50);
        if (streams[0].written_count > written)
            answer_written(0, written, RCODE_NOERROR);
    }
    assert_int_equal(metric_get(&bench->metrics->upstreams[0].probes), 1);
    assert_false(upstream_is_ready(bench->group->slots[0]));
    request_cancel(&one.request);
}

static void slow_answer_on_a_live_connection_is_late_but_not_lost(void **state)
{
    struct bench *bench = *state;
    struct asked slow;
    struct asked quick;
    begin(bench);
    ask(bench, &slow, "slow");
    make_ready(0);
    turn(bench, 100);
    ask(bench, &quick, "quick");
    turn(bench, 100);
    answer_written(0, 1, RCODE_NOERROR);
    turn(bench, 1300);
    assert_true(slow.late > 0);
    assert_int_equal(slow.done, 0);
    answer_written(0, 0, RCODE_NOERROR);
    assert_int_equal(slow.rcode, RCODE_NOERROR);
    assert_int_equal(slow.done, 1);
}

static void F1_idle_close_is_no_failure(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    begin(bench);
    ask(bench, &one, "x");
    make_ready(0);
    answer_written(0, 0, RCODE_NOERROR);
    peer_closes(0, FAILURE_CLOSED);
    assert_int_equal(metric_get(&bench->metrics->upstreams[0].idle_closes), 1);
    assert_int_equal(bench->group->slots[0]->path.failures, 0);
}

static void F2_close_with_requests_in_flight_hands_each_back_once(void **state)
{
    struct bench *bench = *state;
    struct asked asks[3];
    begin(bench);
    for (size_t i = 0; i < 3; i++)
        ask(bench, &asks[i], "x");
    make_ready(0);
    answer_written(0, 1, RCODE_NOERROR);
    peer_closes(0, FAILURE_RESET);
    assert_int_equal(asks[0].failure, FAILURE_RESET);
    assert_int_equal(asks[1].failure, FAILURE_NONE);
    assert_int_equal(asks[2].failure, FAILURE_RESET);
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(asks[i].done, 1);
    assert_int_equal(bench->group->slots[0]->path.failures, 0); /* it had answered: normal */
    assert_int_equal(metric_get(&bench->metrics->upstreams[0].failures[FAILURE_RESET]), 2);
}

static void idle_connection_is_closed_after_its_time(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    begin(bench);
    ask(bench, &one, "x");
    make_ready(0);
    answer_written(0, 0, RCODE_NOERROR);
    turn(bench, 29999);
    assert_non_null(streams[0].stream);
    turn(bench, 1);
    assert_null(streams[0].stream);
    assert_int_equal(bench->group->slots[0]->path.failures, 0);
}

/* An answer with an OPT that holds a keepalive option. */
static void answer_with_keepalive(size_t stream, size_t written, uint16_t timeout_100ms)
{
    uint8_t message[512];
    struct writer writer = writer_over(message, sizeof(message));
    const uint8_t *query = streams[stream].written[written];
    size_t end = DNS_HEADER_SIZE;
    while (query[end])
        end += query[end] + 1u;
    write_bytes(&writer, query, end + 1 + DNS_QUESTION_TAIL);
    store_u16(message + 2, DNS_FLAG_QR | DNS_FLAG_RD | DNS_FLAG_RA);
    write_bytes(&writer, "\0\0\x29\x04\xd0\0\0\0\0\0\6\0\x0b\0\2", 15);
    write_u16(&writer, timeout_100ms);
    deliver(stream, message, writer_length(&writer));
}

static void RFC7828_keepalive_shortens_the_idle_time(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    begin(bench);
    ask(bench, &one, "x");
    make_ready(0);
    answer_with_keepalive(0, 0, 20);
    assert_int_equal(one.done, 1);
    turn(bench, 1999);
    assert_non_null(streams[0].stream);
    turn(bench, 1);
    assert_null(streams[0].stream);
}

static void RFC7828_keepalive_shortens_the_idle_time_of_all_connections(void **state)
{
    struct bench *bench = *state;
    struct asked asks[3];
    bench->config.limits.upstream_requests = 1;
    bench->config.limits.upstream_connections = 3;
    begin(bench);
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(ask(bench, &asks[i], "x"), i);
        make_ready(i);
    }
    answer_written(0, 0, RCODE_NOERROR);
    answer_written(1, 0, RCODE_NOERROR);
    turn(bench, 100);
    answer_with_keepalive(2, 0, 20);
    turn(bench, 1899);
    for (size_t i = 0; i < 3; i++)
        assert_non_null(streams[i].stream);
    turn(bench, 1); /* each counts from where it began to rest */
    assert_null(streams[0].stream);
    assert_null(streams[1].stream);
    turn(bench, 99);
    assert_non_null(streams[2].stream);
    turn(bench, 1);
    assert_null(streams[2].stream);
}

static void RFC7828_keepalive_of_zero_closes_when_all_is_answered(void **state)
{
    struct bench *bench = *state;
    struct asked first;
    struct asked second;
    struct asked third;
    begin(bench);
    ask(bench, &first, "first");
    ask(bench, &second, "second");
    make_ready(0);
    answer_with_keepalive(0, 0, 0);
    assert_non_null(streams[0].stream);
    assert_int_equal(ask(bench, &third, "third"), 1); /* no new request on the old one */
    answer_written(0, 1, RCODE_NOERROR);
    assert_int_equal(second.done, 1);
    assert_null(streams[0].stream);
    request_cancel(&third.request);
}

static void F16_full_stream_is_overload_and_no_failure(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    bench->config.snapshot.upstream_count = 1;
    bench->config.limits.upstream_connections = 1;
    begin(bench);
    ask(bench, &one, "x");
    make_ready(0);
    struct asked two;
    refuse_bytes = true;
    asked_init(&two, "y");
    assert_true(ask_again(bench, &two) == STATUS_NOT_FOUND);
    assert_int_equal(two.failure, FAILURE_OVERLOADED);
    assert_int_equal(bench->group->slots[0]->path.failures, 0);
    refuse_bytes = false;
    answer_written(0, 0, RCODE_NOERROR);
}

static void E5_resumed_handshakes_are_counted_apart(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    begin(bench);
    is_resumed = true;
    ask(bench, &one, "x");
    make_ready(0);
    answer_written(0, 0, RCODE_NOERROR);
    assert_int_equal(metric_get(&bench->metrics->upstreams[0].handshakes_resumed), 1);
    assert_int_equal(metric_get(&bench->metrics->upstreams[0].handshakes_full), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(answers_out_of_order_reach_their_requests),
        TEST(F9_identifiers_in_flight_never_collide),
        TEST(RFC9520_3_1_question_that_leaves_before_the_handshake_is_never_sent),
        TEST(I8_identifiers_of_each_connection_begin_anywhere),
        TEST(full_connection_opens_a_second_and_no_third),
        TEST(F10_late_answer_reaches_nobody),
        TEST(F10_too_many_reserved_identifiers_retire_the_connection),
        TEST(F12_answer_to_another_question_is_thrown_away),
        TEST(F13_second_answer_and_strangers_are_counted),
        TEST(F13_flood_of_strangers_closes_the_connection),
        TEST(F8_message_too_short_for_a_header_costs_its_own_request_alone),
        TEST(F8_message_too_short_for_an_id_is_nobodys),
        TEST(F8_F10_message_too_short_for_who_gave_up_frees_the_id),
        TEST(G4_answer_without_question_is_a_failure_at_once),
        TEST(F19_error_codes_come_with_their_answer),
        TEST(F6_each_state_has_its_own_deadline),
        TEST(F5_silence_since_the_oldest_request_ends_the_connection),
        TEST(late_is_clearly_longer_than_nearly_all_answers_take),
        TEST(late_is_bounded_below_and_above),
        TEST(times_are_where_one_of_nine_is_quicker_and_one_of_twenty_slower),
        TEST(one_slow_name_hardly_moves_the_time_of_a_path),
        TEST(slow_first_answer_is_soon_corrected),
        TEST(F5_slow_names_do_not_hide_a_silence),
        TEST(only_good_answers_measure),
        TEST(answer_to_who_gave_up_does_not_measure),
        TEST(flood_at_the_end_of_a_silence_is_one_sample),
        TEST(F5_connection_is_silent_until_it_answers_what_it_was_asked),
        TEST(F5_dead_path_is_noticed_though_nobody_waits_for_it_any_more),
        TEST(F5_server_that_hangs_has_more_time_than_a_dead_path),
        TEST(F5_answer_to_a_probe_keeps_a_slow_upstream_alive),
        TEST(F5_full_connection_is_probed_in_the_slot_kept_for_it),
        TEST(F5_upstream_that_is_full_and_answers_is_not_down),
        TEST(F9_thousands_of_requests_have_identifiers_of_their_own),
        TEST(F20_answered_probe_is_no_reason_to_trust),
        TEST(slow_answer_on_a_live_connection_is_late_but_not_lost),
        TEST(F1_idle_close_is_no_failure),
        TEST(F2_close_with_requests_in_flight_hands_each_back_once),
        TEST(idle_connection_is_closed_after_its_time),
        TEST(RFC7828_keepalive_shortens_the_idle_time),
        TEST(RFC7828_keepalive_shortens_the_idle_time_of_all_connections),
        TEST(RFC7828_keepalive_of_zero_closes_when_all_is_answered),
        TEST(F16_full_stream_is_overload_and_no_failure),
        TEST(E5_resumed_handshakes_are_counted_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
