// SPDX-License-Identifier: Apache-2.0
/* Queries from arrival to reply: what is dropped, rejected, refused, answered here; the full pool.
 */
#include "fake_upstream.h"

#include "durations.h"

struct hungry {
    struct starved starved;
    struct bench *bench;
    size_t called;
};

static enum status begin_bytes(struct bench *bench, const void *bytes, size_t length)
{
    struct origin origin = {.transport = &datagrams};
    assert_true(address_parse("127.0.0.1:5000", 0, &origin.client) == STATUS_OK);
    return query_begin(bench->resolver, &origin, bytes, length, NULL);
}

static void A1_short_message_is_dropped_and_counted(void **state)
{
    struct bench *bench = *state;
    assert_true(begin_bytes(bench, "\0\0\0", 3) == STATUS_OK);
    assert_int_equal(replies.count, 0);
    assert_int_equal(metric_get(&bench->metrics->dropped_malformed), 1);
}

static void A2_response_is_dropped_and_counted(void **state)
{
    struct bench *bench = *state;
    assert_true(begin_bytes(bench, "\0\1\x80\0\0\1\0\0\0\0\0\0\0\0\1\0\1", 17) == STATUS_OK);
    assert_int_equal(replies.count, 0);
    assert_int_equal(metric_get(&bench->metrics->dropped_response), 1);
}

static void A5_no_question_is_formerr(void **state)
{
    struct bench *bench = *state;
    assert_true(begin_bytes(bench, "\0\1\1\0\0\0\0\0\0\0\0\0", 12) == STATUS_OK);
    assert_int_equal(reply_rcode(0), RCODE_FORMERR);
    assert_int_equal(metric_get(&bench->metrics->replies_formerr), 1);
}

static void A7_other_opcode_is_notimp(void **state)
{
    struct bench *bench = *state;
    assert_true(begin_bytes(bench, "\0\1\x28\0\0\1\0\0\0\0\0\0\0\0\1\0\1", 17) == STATUS_OK);
    assert_int_equal(reply_rcode(0), RCODE_NOTIMP);
    assert_int_equal(fake.submitted, 0);
}

static void A9_transfer_is_refused_and_asks_nobody(void **state)
{
    struct bench *bench = *state;
    assert_true(ask_over(bench, &stream_transport, 1, "zone", TYPE_AXFR, NULL) == STATUS_OK);
    assert_int_equal(reply_rcode(0), RCODE_REFUSED);
    assert_int_equal(fake.submitted, 0);
}

static void A17_any_over_udp_is_minimal_and_over_tcp_asked(void **state)
{
    struct bench *bench = *state;
    struct query *query = NULL;
    assert_true(ask_over(bench, &datagrams, 1, "any", TYPE_ANY, &query) == STATUS_OK);
    assert_null(query);
    assert_true(reply_contains(0, "RFC8482"));
    assert_true(ask_over(bench, &stream_transport, 2, "any", TYPE_ANY, &query) == STATUS_OK);
    assert_non_null(query);
}

/* The question and TC=1, and no records. */
static bool is_sent_to_tcp(size_t index)
{
    const uint8_t *reply = replies.bytes[index];
    return load_u16(reply + 2) & DNS_FLAG_TC && load_u16(reply + 4) == 1 &&
           load_u16(reply + 6) == 0 && load_u16(reply + 8) == 0;
}

/* After a change of the limits. */
static void reopen_clients(struct bench *bench)
{
    clients_close(bench->resolver->clients);
    assert_true(clients_open(&bench->config, &bench->resolver->clients) == STATUS_OK);
}

static void limit_datagrams(struct bench *bench, uint32_t of_client)
{
    bench->config.snapshot.limits.udp_queries_per_address = of_client;
    reopen_clients(bench);
}

static void A17_replies_above_the_rate_are_cut_to_the_question(void **state)
{
    struct bench *bench = *state;
    bench->config.limits.udp_rate = 2;
    reopen_clients(bench);
    for (uint16_t id = 0; id < 3; id++)
        assert_true(ask_over(bench, &datagrams, id, "any", TYPE_ANY, NULL) == STATUS_OK);
    assert_true(reply_contains(0, "RFC8482") && reply_contains(1, "RFC8482"));
    assert_true(is_sent_to_tcp(2));
    assert_int_equal(replies.length[2], DNS_HEADER_SIZE + 10 + DNS_QUESTION_TAIL + 11);
    assert_int_equal(metric_get(&bench->metrics->replies_rate_limited), 1);
    /* With words of ours, too; and over TCP without limit. */
    assert_true(prefix_parse("192.0.2.0/24", &bench->config.snapshot.allow[0]) == STATUS_OK);
    assert_true(ask_over(bench, &datagrams, 4, "refused", TYPE_A, NULL) == STATUS_OK);
    assert_true(is_sent_to_tcp(3));
    assert_true(ask_over(bench, &stream_transport, 5, "refused", TYPE_A, NULL) == STATUS_OK);
    assert_int_equal(reply_rcode(4), RCODE_REFUSED);
    assert_int_equal(metric_get(&bench->metrics->replies_rate_limited), 2);
}

static void A17_reply_without_records_is_left_alone(void **state)
{
    struct bench *bench = *state;
    bench->config.limits.udp_rate = 1;
    reopen_clients(bench);
    for (size_t i = 0; i < 3; i++) {
        assert_true(begin_bytes(bench, "\0\1\x28\0\0\1\0\0\0\0\0\0\0\0\1\0\1", 17) == STATUS_OK);
        assert_int_equal(reply_rcode(i), RCODE_NOTIMP);
        assert_int_equal(load_u16(replies.bytes[i] + 2) & DNS_FLAG_TC, 0);
    }
    assert_int_equal(metric_get(&bench->metrics->replies_rate_limited), 0);
}

static void I5_client_of_whom_many_wait_is_sent_to_tcp(void **state)
{
    struct bench *bench = *state;
    struct query *query;
    limit_datagrams(bench, 2);
    assert_true(prefix_parse("192.0.2.0/24", &bench->config.snapshot.allow[0]) == STATUS_OK);
    bench->client = "192.0.2.1:5000";
    ask(bench, 1, "a");
    ask(bench, 2, "a");
    assert_null(ask(bench, 3, "a"));
    assert_null(ask(bench, 4, "new"));
    assert_int_equal(replies.count, 2);
    assert_true(is_sent_to_tcp(0) && is_sent_to_tcp(1));
    assert_int_equal(metric_get(&bench->metrics->replies_wait_limited), 2);
    assert_int_equal(fake.submitted, 1);
    /* Over TCP it waits. */
    assert_true(ask_over(bench, &stream_transport, 5, "a", TYPE_A, &query) == STATUS_OK);
    assert_non_null(query);
    fake_answer(0, RCODE_NOERROR, FAILURE_NONE);
    assert_int_equal(replies.count, 5);
}

static void I5_who_has_been_answered_may_wait_again(void **state)
{
    struct bench *bench = *state;
    limit_datagrams(bench, 1);
    assert_true(prefix_parse("192.0.2.0/24", &bench->config.snapshot.allow[0]) == STATUS_OK);
    bench->client = "192.0.2.1:5000";
    assert_non_null(ask(bench, 1, "a"));
    fake_answer(0, RCODE_NOERROR, FAILURE_NONE);
    assert_null(ask(bench, 2, "a"));
    assert_int_equal(metric_get(&bench->metrics->replies_wait_limited), 0); /* a hit */
    assert_non_null(ask(bench, 3, "b"));
    advance(bench, 4000);
    assert_int_equal(replies.count, 3);
    assert_int_equal(reply_rcode(2), RCODE_SERVFAIL);
    assert_non_null(ask(bench, 4, "c"));
}

static void RFC9462_resolver_arpa_is_nodata_and_asks_nobody(void **state)
{
    struct bench *bench = *state;
    static const uint8_t query[] = "\0\1\1\0\0\1\0\0\0\0\0\0"
                                   "\4_dns\x08Resolver\4arpa\0\0\x40\0\1";
    assert_true(begin_bytes(bench, query, sizeof(query) - 1) == STATUS_OK);
    assert_int_equal(reply_rcode(0), RCODE_NOERROR);
    assert_int_equal(load_u16(replies.bytes[0] + 6), 0);
    assert_int_equal(fake.submitted, 0);
}

static void H11_stranger_is_refused_on_cache_hits_too(void **state)
{
    struct bench *bench = *state;
    ask(bench, 1, "kept");
    fake_answer(0, RCODE_NOERROR, FAILURE_NONE);
    ask(bench, 2, "kept");
    assert_int_equal(metric_get(&bench->metrics->cache_hits), 1);
    bench->config.snapshot.allow_count = 0;
    ask(bench, 3, "kept");
    assert_int_equal(reply_rcode(2), RCODE_REFUSED);
    assert_int_equal(metric_get(&bench->metrics->cache_hits), 1);
}

static void J1_resolver_has_the_times_of_one_that_was_opened_so(void **state)
{
    struct bench *bench = *state;
    static struct snapshot next;
    uint64_t reloaded[DURATIONS_MAX];
    uint64_t opened[DURATIONS_MAX];
    next = bench->config.snapshot;
    next.timeouts.query_ns = NANOSECONDS_PER_SECOND;
    resolver_reload(bench->resolver, &next, 0);
    const size_t count = list_durations(&bench->loop, reloaded);
    ask(bench, 1, "waits");
    advance(bench, 200);
    advance(bench, 350);
    advance(bench, 450);
    assert_int_equal(replies.count, 1); /* after a second, instead of four */
    resolver_abort(bench->resolver);
    resolver_close(bench->resolver);
    struct resolver *resolver = bench->resolver;
    bench->resolver = calloc(1, sizeof(*bench->resolver));
    bench->resolver->group = resolver->group;
    bench->resolver->config = resolver->config;
    bench->resolver->loop = resolver->loop;
    bench->resolver->metrics = resolver->metrics;
    bench->resolver->cache = resolver->cache;
    free(resolver);
    bench->config.snapshot = next;
    assert_true(resolver_open(bench->resolver) == STATUS_OK);
    assert_int_equal(list_durations(&bench->loop, opened), count);
    assert_memory_equal(reloaded, opened, count * sizeof(opened[0]));
}

static void J1_reload_changes_who_may_ask_and_what_is_sent(void **state)
{
    struct bench *bench = *state;
    static struct snapshot next;
    next = bench->config.snapshot;
    next.allow_count = 0;
    ask(bench, 1, "waits");
    resolver_reload(bench->resolver, &next, 0);
    ask(bench, 2, "waits");
    assert_int_equal(reply_rcode(0), RCODE_REFUSED);
    fake_answer(0, RCODE_NOERROR, FAILURE_NONE); /* who was let in has the answer */
    assert_int_equal(reply_rcode(1), RCODE_NOERROR);
    resolver_reload(bench->resolver, &bench->config.snapshot, 0);
    ask(bench, 3, "waits");
    assert_int_equal(reply_rcode(2), RCODE_NOERROR);
}

static void cache_off_asks_every_time(void **state)
{
    struct bench *bench = *state;
    struct cache *cache = bench->resolver->cache;
    bench->resolver->cache = NULL;
    for (uint16_t id = 0; id < 2; id++) {
        ask(bench, id, "off");
        fake_answer(id, RCODE_NOERROR, FAILURE_NONE);
    }
    assert_int_equal(fake.submitted, 2);
    bench->resolver->cache = cache;
}

static void every_rcode_has_its_counter(void **state)
{
    struct bench *bench = *state;
    ask(bench, 1, "nx");
    fake_answer(0, RCODE_NXDOMAIN, FAILURE_NONE);
    ask(bench, 2, "yx");
    fake_answer(1, RCODE_YXDOMAIN, FAILURE_NONE);
    assert_int_equal(metric_get(&bench->metrics->replies_nxdomain), 1);
    assert_int_equal(metric_get(&bench->metrics->replies_other), 1);
}

static void on_space(struct starved *starved)
{
    struct hungry *waiter = CONTAINER_OF(starved, struct hungry, starved);
    waiter->called++;
    assert_non_null(ask(waiter->bench, 100, "again"));
}

/* All places are taken, by queries for names of their own under test. */
static void take_all_places(struct bench *bench, const struct transport *transport)
{
    for (uint16_t id = 0; id < 8; id++) {
        const char label[] = {'t', (char)('0' + id), '\0'};
        struct query *query = NULL;
        assert_true(ask_over(bench, transport, id, label, TYPE_A, &query) == STATUS_OK);
        assert_non_null(query);
    }
}

static void K5_no_query_gives_way_that_has_not_waited_for_200_ms(void **state)
{
    struct bench *bench = *state;
    take_all_places(bench, &datagrams);
    advance(bench, 199);
    assert_null(ask(bench, 9, "more"));
    assert_true(is_sent_to_tcp(0));
    assert_int_equal(metric_get(&bench->metrics->replies_full), 1);
    assert_true(ask_over(bench, &stream_transport, 10, "more", TYPE_A, NULL) == STATUS_FULL);
    assert_int_equal(bench->resolver->queries.in_use, 8);
    assert_int_equal(metric_get(&bench->metrics->queries_gave_way), 0);
    advance(bench, 1);
    assert_non_null(ask(bench, 11, "more"));
    assert_int_equal(metric_get(&bench->metrics->queries_gave_way), 1);
    assert_int_equal(bench->resolver->queries.in_use, 8);
}

static void K5_oldest_datagram_that_gives_way_is_sent_to_tcp(void **state)
{
    struct bench *bench = *state;
    take_all_places(bench, &datagrams);
    advance(bench, 1000);
    for (uint16_t id = 0; id < 3; id++) {
        assert_non_null(ask(bench, 100 + id, "new"));
        assert_int_equal(load_u16(replies.bytes[id]), id);
        assert_true(is_sent_to_tcp(id));
    }
    assert_int_equal(fake.cancelled, 3); /* nobody waits for them any more */
    assert_int_equal(replies.count, 3);
}

static void K5_stream_query_that_gives_way_fails_with_a_cause_of_its_own(void **state)
{
    struct bench *bench = *state;
    take_all_places(bench, &stream_transport);
    advance(bench, 1000);
    assert_non_null(ask(bench, 100, "new"));
    assert_int_equal(load_u16(replies.bytes[0]), 0);
    assert_int_equal(reply_rcode(0), RCODE_SERVFAIL);
    assert_true(reply_contains(0, "gave its place to others"));
}

/* The good questions of the others wait for less, however many they are. */
static void K5_newcomers_displace_what_is_old_and_not_one_another(void **state)
{
    struct bench *bench = *state;
    take_all_places(bench, &datagrams);
    advance(bench, 200);
    for (uint16_t id = 0; id < 8; id++)
        assert_non_null(ask(bench, 100 + id, "new"));
    assert_int_equal(metric_get(&bench->metrics->queries_gave_way), 8);
    assert_null(ask(bench, 200, "new"));
    assert_int_equal(metric_get(&bench->metrics->replies_full), 1);
}

/* It is not read until one of its own has its reply; who holds less has a place at once. */
static void K5_stream_displaces_none_of_a_client_that_holds_no_more(void **state)
{
    struct bench *bench = *state;
    take_all_places(bench, &stream_transport);
    advance(bench, 1000);
    assert_true(ask_over(bench, &stream_transport, 9, "own", TYPE_A, NULL) == STATUS_FULL);
    assert_int_equal(metric_get(&bench->metrics->queries_gave_way), 0);
    bench->client = "127.0.0.2:5000";
    assert_true(ask_over(bench, &stream_transport, 10, "other", TYPE_A, NULL) == STATUS_OK);
    assert_int_equal(metric_get(&bench->metrics->queries_gave_way), 1);
    assert_int_equal(load_u16(replies.bytes[0]), 0);
}

static void K5_who_waits_for_room_is_told_when_one_may_give_way(void **state)
{
    struct bench *bench = *state;
    take_all_places(bench, &datagrams);
    struct hungry waiter = {.starved.on_space = on_space, .bench = bench};
    list_init(&waiter.starved.link);
    resolver_wait_for_space(bench->resolver, &waiter.starved);
    advance(bench, 199);
    assert_false(list_is_linked(&bench->resolver->space.link));
    advance(bench, 1);
    assert_true(list_is_linked(&bench->resolver->space.link));
    assert_true(loop_turn(&bench->loop, 0));
    assert_int_equal(waiter.called, 1);
    assert_int_equal(metric_get(&bench->metrics->queries_gave_way), 1);
}

static void K5_query_that_is_asked_once_more_takes_the_place_of_the_first(void **state)
{
    struct bench *bench = *state;
    struct query *query = ask(bench, 1, "slow");
    advance(bench, 1000);
    assert_null(ask(bench, 1, "slow"));
    assert_int_equal(bench->resolver->waiting_count, 1);
    assert_int_equal(bench->resolver->queries.in_use, 1);
    assert_int_equal(fake.submitted, 1);
    assert_int_equal(fake.cancelled, 0);
    assert_int_equal(metric_get(&bench->metrics->queries_repeated), 1);
    /* Another query of the same client, another client, and a stream are no repetition. */
    assert_non_null(ask(bench, 2, "slow"));
    bench->client = "127.0.0.1:5001";
    assert_non_null(ask(bench, 1, "slow"));
    assert_true(ask_over(bench, &stream_transport, 1, "slow", TYPE_A, &query) == STATUS_OK);
    assert_int_equal(bench->resolver->waiting_count, 4);
    fake_answer(0, RCODE_NOERROR, FAILURE_NONE);
    assert_int_equal(replies.count, 4);
}

/* Else who asks again and again would keep it for ever, and take others' when all are taken. */
static void K5_query_that_is_asked_once_more_is_as_old_as_the_first(void **state)
{
    struct bench *bench = *state;
    take_all_places(bench, &datagrams);
    for (unsigned ms = 0; ms < 200; ms += 50) {
        advance(bench, 50);
        assert_null(ask(bench, 1, "t1"));
    }
    assert_int_equal(metric_get(&bench->metrics->queries_repeated), 4);
    assert_int_equal(metric_get(&bench->metrics->replies_full), 0);
    assert_int_equal(metric_get(&bench->metrics->queries_gave_way), 0);
    assert_int_equal(bench->resolver->waiting_count, 8);
    for (uint16_t id = 0; id < 2; id++) {
        assert_non_null(ask(bench, 100 + id, "new"));
        assert_int_equal(load_u16(replies.bytes[id]), id);
    }
}

/* Its spelling, say (draft-vixie-dnsext-dns0x20). */
static void K5_query_that_is_asked_once_more_is_answered_as_it_was_asked_last(void **state)
{
    struct bench *bench = *state;
    assert_non_null(ask(bench, 1, "slow"));
    assert_null(ask(bench, 1, "SLoW"));
    fake_answer(0, RCODE_NOERROR, FAILURE_NONE);
    assert_int_equal(replies.count, 1);
    assert_true(reply_contains(0, "SLoW"));
}

static void full_pool_is_told_and_its_end_too(void **state)
{
    struct bench *bench = *state;
    for (uint16_t id = 0; id < 8; id++)
        assert_non_null(ask(bench, id, "full"));
    assert_true(ask_over(bench, &stream_transport, 9, "more", TYPE_A, NULL) == STATUS_FULL);
    assert_int_equal(bench->resolver->queries.in_use, 8);
    assert_true(ask_over(bench, &datagrams, 10, "local", TYPE_ANY, NULL) == STATUS_OK);
    assert_int_equal(replies.count, 1); /* FAULTS I4: what need not wait is answered */
    struct hungry waiter = {.starved.on_space = on_space, .bench = bench};
    list_init(&waiter.starved.link);
    resolver_wait_for_space(bench->resolver, &waiter.starved);
    assert_true(loop_turn(&bench->loop, 0));
    assert_int_equal(waiter.called, 0);
    fake_answer(0, RCODE_NOERROR, FAILURE_NONE);
    assert_true(loop_turn(&bench->loop, 0));
    assert_int_equal(waiter.called, 1);
    assert_true(loop_turn(&bench->loop, 0));
    assert_int_equal(waiter.called, 1);
}

static void K6_each_message_and_each_reply_is_spent(void **state)
{
    struct bench *bench = *state;
    const int32_t before = bench->loop.budget;
    assert_true(begin_bytes(bench, "\0\0\0", 3) == STATUS_OK); /* gets none */
    assert_int_equal(bench->loop.budget, before - 1);
    assert_true(ask_over(bench, &datagrams, 1, "local", TYPE_ANY, NULL) == STATUS_OK);
    assert_int_equal(bench->loop.budget, before - 3);
}

/* What a turn left of the room does not wait for the end of a query; what is kept from a client
 * does. */
static void K5_room_that_a_turn_has_left_is_offered_in_the_next(void **state)
{
    struct bench *bench = *state;
    struct hungry waiter = {.starved.on_space = on_space, .bench = bench};
    list_init(&waiter.starved.link);
    resolver_wait_for_space(bench->resolver, &waiter.starved);
    assert_true(loop_turn(&bench->loop, 0));
    assert_int_equal(waiter.called, 0);
    bench->loop.budget = 0;
    resolver_wait_for_space(bench->resolver, &waiter.starved);
    assert_true(loop_turn(&bench->loop, 0));
    assert_int_equal(waiter.called, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(J1_resolver_has_the_times_of_one_that_was_opened_so),
        TEST(J1_reload_changes_who_may_ask_and_what_is_sent),
        TEST(A1_short_message_is_dropped_and_counted),
        TEST(A2_response_is_dropped_and_counted),
        TEST(A5_no_question_is_formerr),
        TEST(A7_other_opcode_is_notimp),
        TEST(A9_transfer_is_refused_and_asks_nobody),
        TEST(A17_any_over_udp_is_minimal_and_over_tcp_asked),
        TEST(A17_replies_above_the_rate_are_cut_to_the_question),
        TEST(A17_reply_without_records_is_left_alone),
        TEST(I5_client_of_whom_many_wait_is_sent_to_tcp),
        TEST(I5_who_has_been_answered_may_wait_again),
        TEST(RFC9462_resolver_arpa_is_nodata_and_asks_nobody),
        TEST(H11_stranger_is_refused_on_cache_hits_too),
        TEST(cache_off_asks_every_time),
        TEST(every_rcode_has_its_counter),
        TEST(K5_no_query_gives_way_that_has_not_waited_for_200_ms),
        TEST(K5_oldest_datagram_that_gives_way_is_sent_to_tcp),
        TEST(K5_stream_query_that_gives_way_fails_with_a_cause_of_its_own),
        TEST(K5_newcomers_displace_what_is_old_and_not_one_another),
        TEST(K5_stream_displaces_none_of_a_client_that_holds_no_more),
        TEST(K5_who_waits_for_room_is_told_when_one_may_give_way),
        TEST(K5_query_that_is_asked_once_more_takes_the_place_of_the_first),
        TEST(K5_query_that_is_asked_once_more_is_as_old_as_the_first),
        TEST(K5_query_that_is_asked_once_more_is_answered_as_it_was_asked_last),
        TEST(full_pool_is_told_and_its_end_too),
        TEST(K5_room_that_a_turn_has_left_is_offered_in_the_next),
        TEST(K6_each_message_and_each_reply_is_spent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
