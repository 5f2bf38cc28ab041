// SPDX-License-Identifier: Apache-2.0
/* Stale answers (RFC 8767) and refreshes through resolver, lookup and cache: every way in which
 * asking can fail, and every moment at which a fresh answer can come. */
#include "fake_upstream.h"

enum { KEPT_TTL_S = 60, RECORD_SIZE = 16 };

static void end_good(size_t index, uint32_t ttl_s, enum rcode rcode, uint8_t version)
{
    static const uint16_t ttl_offsets[] = {6};
    uint8_t body[RECORD_SIZE] = {0xc0, DNS_HEADER_SIZE, 0, TYPE_A, 0, CLASS_IN, [11] = 4, version};
    store_u32(body + 6, ttl_s);
    const struct answer answer = {
        .kind = rcode == RCODE_NXDOMAIN ? ANSWER_NEGATIVE : ANSWER_POSITIVE,
        .flags = DNS_FLAG_RA,
        .rcode = (uint16_t)rcode,
        .answer_count = 1,
        .ttl_s = ttl_s,
        .body = body,
        .body_length = sizeof(body),
        .needed_length = sizeof(body),
        .ttl_count = 1,
        .ttl_offsets = ttl_offsets,
    };
    fake_end(index, &answer, FAILURE_NONE);
}

/* Has an answer kept at the time that it is, and lets its time pass. Later submissions begin at the
 * index that is returned, later replies at 0. */
static size_t keep_and_expire(struct bench *bench, const char *label)
{
    ask(bench, 1, label);
    end_good(fake.submitted - 1, KEPT_TTL_S, RCODE_NOERROR, 1);
    advance(bench, KEPT_TTL_S * 1000);
    replies.count = 0;
    return fake.submitted;
}

static bool reply_has_error(size_t index, enum extended_error_code code)
{
    const uint8_t *end = replies.bytes[index] + replies.length[index];
    assert_true(index < replies.count);
    for (const uint8_t *at = replies.bytes[index] + DNS_HEADER_SIZE; at + 6 <= end; at++)
        if (load_u16(at) == OPTION_EXTENDED_ERROR && load_u16(at + 4) == code &&
            load_u16(at + 2) >= 2)
            return true;
    return false;
}

/* The record's TTL and version: it follows the question of LABEL.test. */
static uint32_t reply_ttl(size_t index, const char *label)
{
    const size_t record = DNS_HEADER_SIZE + strlen(label) + 7 + DNS_QUESTION_TAIL;
    assert_true(index < replies.count && load_u16(replies.bytes[index] + 6) == 1);
    return load_u32(replies.bytes[index] + record + 6);
}

static void assert_stale(size_t index, const char *label)
{
    assert_int_equal(reply_rcode(index), RCODE_NOERROR);
    assert_int_equal(reply_ttl(index, label), STALE_TTL_S);
    assert_true(reply_has_error(index, EDE_STALE_ANSWER));
    assert_false(reply_has_error(index, EDE_CACHED_ERROR));
}

static void assert_fresh(size_t index, const char *label, uint32_t ttl_s)
{
    assert_int_equal(reply_rcode(index), RCODE_NOERROR);
    assert_int_equal(reply_ttl(index, label), ttl_s);
    assert_false(reply_has_error(index, EDE_STALE_ANSWER));
}

/* --- Ways to fail --- */

static void fail_at_once(struct bench *bench, size_t first)
{
    (void)bench, (void)first;
    assert_int_equal(replies.count, 1);
}

static void end_with(size_t first, enum rcode rcode, enum failure failure)
{
    fake_answer(first, rcode, failure);
    assert_int_equal(replies.count, 0);
    fake_answer(first + 1, rcode, failure);
}

static void fail_by_servfail(struct bench *bench, size_t first)
{
    (void)bench;
    end_with(first, RCODE_SERVFAIL, FAILURE_SERVER_FAILURE);
}

static void fail_by_refused(struct bench *bench, size_t first)
{
    (void)bench;
    end_with(first, RCODE_REFUSED, FAILURE_REFUSED);
}

static void fail_by_truncation(struct bench *bench, size_t first)
{
    (void)bench;
    const struct answer truncated = {.flags = DNS_FLAG_TC | DNS_FLAG_RA};
    fake_end(first, &truncated, FAILURE_TRUNCATED_ANSWER);
    fake_end(first + 1, &truncated, FAILURE_TRUNCATED_ANSWER);
}

static void end_all(size_t first, enum failure failure)
{
    for (size_t i = first; i < fake.submitted; i++)
        fake_end(i, NULL, failure);
}

static void fail_by_malformed_answers(struct bench *bench, size_t first)
{
    (void)bench;
    end_all(first, FAILURE_MALFORMED_ANSWER);
}

static void fail_by_closes(struct bench *bench, size_t first)
{
    (void)bench;
    end_all(first, FAILURE_CLOSED);
}

static void fail_by_silence(struct bench *bench, size_t first)
{
    (void)first;
    advance(bench, 1799);
    assert_int_equal(replies.count, 0);
    advance(bench, 1);
    assert_int_equal(bench->resolver->lookups.in_use, 1); /* it goes on */
    assert_int_equal(metric_get(&bench->metrics->queries_in_flight), 0);
    advance(bench, 3799);
    assert_int_equal(bench->resolver->lookups.in_use, 1);
    advance(bench, 1);
    assert_int_equal(fake.cancelled, 1);
}

static void fail_by_errors_then_silence(struct bench *bench, size_t first)
{
    fake_answer(first, RCODE_SERVFAIL, FAILURE_SERVER_FAILURE);
    fail_by_silence(bench, first);
}

/* The answer past its time is given, for 30 s without asking again; then it is asked for. */
static void check_failure(struct bench *bench, void (*let_fail)(struct bench *bench, size_t first))
{
    const size_t first = keep_and_expire(bench, "kept");
    fake.refuses = let_fail == fail_at_once;
    ask(bench, 2, "kept");
    let_fail(bench, first);
    fake.refuses = false;
    assert_int_equal(replies.count, 1);
    assert_stale(0, "kept");
    assert_int_equal(bench->resolver->lookups.in_use, 0);

    const size_t asked = fake.submitted;
    for (uint16_t id = 3; id < 6; id++)
        assert_null(ask(bench, id, "kept"));
    assert_int_equal(replies.count, 4);
    assert_stale(3, "kept");
    assert_int_equal(fake.submitted, asked);
    assert_int_equal(metric_get(&bench->metrics->replies_stale), 4);
    assert_int_equal(metric_get(&bench->metrics->cache_stale), 3);
    assert_int_equal(metric_get(&bench->metrics->cache_hits), 0);

    advance(bench, 29999);
    ask(bench, 6, "kept");
    assert_stale(4, "kept");
    assert_int_equal(fake.submitted, asked);
    advance(bench, 1);
    assert_non_null(ask(bench, 7, "kept"));
    assert_int_equal(fake.submitted, asked + 1);
    end_good(asked, KEPT_TTL_S, RCODE_NOERROR, 2);
    assert_fresh(5, "kept", KEPT_TTL_S);
}

#define FAILURE_TEST(way)                                                     \
    static void H6_RFC8767_stale_answer_when_asking_fails_##way(void **state) \
    {                                                                         \
        check_failure(*state, fail_##way);                                    \
    }
FAILURE_TEST(at_once)
FAILURE_TEST(by_servfail)
FAILURE_TEST(by_refused)
FAILURE_TEST(by_truncation)
FAILURE_TEST(by_malformed_answers)
FAILURE_TEST(by_closes)
FAILURE_TEST(by_silence)
FAILURE_TEST(by_errors_then_silence)

/* --- What the client sees --- */

static void H6_cause_is_told_with_the_stale_answer(void **state)
{
    struct bench *bench = *state;
    keep_and_expire(bench, "why");
    fake.refuses = true;
    ask(bench, 2, "why");
    assert_stale(0, "why");
    assert_true(reply_contains(0, "first: all upstreams failed a moment ago"));
    fake.refuses = false;
    keep_and_expire(bench, "slow");
    ask(bench, 2, "slow");
    advance(bench, 1800);
    assert_true(reply_contains(0, "no answer in time"));
}

static void H6_RFC8914_stale_nxdomain_has_a_code_of_its_own(void **state)
{
    struct bench *bench = *state;
    ask(bench, 1, "nx");
    end_good(0, KEPT_TTL_S, RCODE_NXDOMAIN, 1);
    advance(bench, KEPT_TTL_S * 1000);
    fake.refuses = true;
    ask(bench, 2, "nx");
    assert_int_equal(reply_rcode(1), RCODE_NXDOMAIN);
    assert_int_equal(reply_ttl(1, "nx"), STALE_TTL_S);
    assert_true(reply_has_error(1, EDE_STALE_NXDOMAIN_ANSWER));
    assert_false(reply_has_error(1, EDE_STALE_ANSWER));
}

/* --- Moments --- */

static void H6_fresh_answer_just_in_time_is_the_one_given(void **state)
{
    struct bench *bench = *state;
    const size_t first = keep_and_expire(bench, "late");
    ask(bench, 2, "late");
    advance(bench, 1799);
    end_good(first, KEPT_TTL_S, RCODE_NOERROR, 2);
    assert_int_equal(replies.count, 1);
    assert_fresh(0, "late", KEPT_TTL_S);
    advance(bench, 1);
    assert_int_equal(replies.count, 1);
    assert_int_equal(metric_get(&bench->metrics->replies_stale), 0);
}

static void H6_fresh_answer_just_late_is_for_the_cache(void **state)
{
    struct bench *bench = *state;
    const size_t first = keep_and_expire(bench, "late");
    ask(bench, 2, "late");
    advance(bench, 1800);
    assert_stale(0, "late");
    assert_null(ask(bench, 3, "late")); /* while it is still being asked: at once */
    assert_stale(1, "late");
    advance(bench, 1);
    end_good(first, KEPT_TTL_S, RCODE_NOERROR, 2);
    assert_int_equal(replies.count, 2);
    assert_int_equal(bench->resolver->lookups.in_use, 0);
    ask(bench, 4, "late");
    assert_fresh(2, "late", KEPT_TTL_S);
    assert_int_equal(fake.submitted, first + 1);
}

static void H6_fresh_answer_of_another_worker_is_taken_for_the_slow_one(void **state)
{
    struct bench *bench = *state;
    keep_and_expire(bench, "other");
    struct query *query = ask(bench, 2, "other");
    const struct answer answer = {.kind = ANSWER_POSITIVE, .flags = DNS_FLAG_RA, .ttl_s = 60};
    advance(bench, 1000);
    cache_store(bench->resolver->cache, &query->message.question, query->hash, &answer,
                bench->loop.now);
    advance(bench, 800);
    assert_int_equal(replies.count, 1);
    assert_false(reply_has_error(0, EDE_STALE_ANSWER));
    assert_int_equal(fake.cancelled, 1);
    assert_int_equal(bench->resolver->lookups.in_use, 0);
    assert_int_equal(metric_get(&bench->metrics->refreshes_limited), 0);
}

static void H6_all_who_wait_get_it_and_nobody_asks_twice(void **state)
{
    struct bench *bench = *state;
    const size_t first = keep_and_expire(bench, "many");
    ask(bench, 2, "many");
    advance(bench, 1000);
    ask(bench, 3, "many");
    advance(bench, 799);
    ask(bench, 4, "many");
    advance(bench, 1);
    assert_int_equal(replies.count, 3);
    for (size_t i = 0; i < 3; i++)
        assert_stale(i, "many");
    assert_int_equal(fake.submitted, first + 1);
}

static void H6_timer_is_half_of_a_short_query_timeout(void **state)
{
    struct bench *bench = *state;
    resolver_close(bench->resolver);
    bench->config.snapshot.timeouts.query_ns = NANOSECONDS_PER_SECOND; /* 950 ms and the way back */
    assert_true(resolver_open(bench->resolver) == STATUS_OK);
    keep_and_expire(bench, "short");
    ask(bench, 2, "short");
    advance(bench, 474);
    assert_int_equal(replies.count, 0);
    advance(bench, 1);
    assert_stale(0, "short");
    advance(bench, 950);
    assert_int_equal(bench->resolver->lookups.in_use, 0);
}

static void H6_maximum_passed_is_a_servfail(void **state)
{
    struct bench *bench = *state;
    keep_and_expire(bench, "old");
    advance(bench, FAKE_STALE_MAX_S * 1000 - 1);
    fake.refuses = true;
    ask(bench, 2, "old");
    assert_int_equal(reply_rcode(0), RCODE_SERVFAIL); /* less than the second that a TTL needs */
    fake.refuses = false;
    keep_and_expire(bench, "older");
    fake.refuses = true;
    advance(bench, FAKE_STALE_MAX_S * 1000);
    ask(bench, 3, "older");
    assert_int_equal(reply_rcode(0), RCODE_SERVFAIL);
    assert_int_equal(metric_get(&bench->metrics->replies_stale), 0);
}

static void H6_maximum_passed_while_the_client_waits_is_a_servfail(void **state)
{
    struct bench *bench = *state;
    keep_and_expire(bench, "old");
    advance(bench, FAKE_STALE_MAX_S * 1000 - 1000);
    ask(bench, 2, "old");
    advance(bench, 1800);
    assert_int_equal(replies.count, 0);
    advance(bench, 2000);
    assert_int_equal(reply_rcode(0), RCODE_SERVFAIL);
}

static void H6_nothing_kept_is_a_servfail(void **state)
{
    struct bench *bench = *state;
    ask(bench, 1, "never");
    advance(bench, 1800);
    assert_int_equal(replies.count, 0);
    advance(bench, 2000);
    assert_int_equal(reply_rcode(0), RCODE_SERVFAIL);
    assert_int_equal(bench->resolver->lookups.in_use, 0);
}

static void H6_cache_off_is_a_servfail(void **state)
{
    struct bench *bench = *state;
    struct cache *cache = bench->resolver->cache;
    keep_and_expire(bench, "off");
    bench->resolver->cache = NULL;
    fake.refuses = true;
    ask(bench, 2, "off");
    assert_int_equal(reply_rcode(0), RCODE_SERVFAIL);
    fake.refuses = false;
    ask(bench, 3, "off");
    advance(bench, 3800);
    assert_int_equal(reply_rcode(1), RCODE_SERVFAIL);
    bench->resolver->cache = cache;
}

/* --- Clients that leave --- */

static void H6_B5_client_that_leaves_before_the_timer_takes_its_lookup_along(void **state)
{
    struct bench *bench = *state;
    const size_t first = keep_and_expire(bench, "gone");
    struct query *query;
    assert_true(ask_over(bench, &stream_transport, 2, "gone", TYPE_A, &query) == STATUS_OK);
    query_drop(bench->resolver, query);
    assert_int_equal(fake.cancelled, 1);
    advance(bench, 1800);
    assert_int_equal(replies.count, 0);
    assert_int_equal(bench->resolver->lookups.in_use, 0);
    ask(bench, 3, "gone"); /* nothing has failed */
    assert_int_equal(fake.submitted, first + 2);
}

static void H6_B5_other_client_still_gets_it(void **state)
{
    struct bench *bench = *state;
    keep_and_expire(bench, "gone");
    struct query *query;
    assert_true(ask_over(bench, &stream_transport, 2, "gone", TYPE_A, &query) == STATUS_OK);
    ask(bench, 3, "gone");
    query_drop(bench->resolver, query);
    advance(bench, 1800);
    assert_int_equal(replies.count, 1);
    assert_int_equal(load_u16(replies.bytes[0]), 3);
    assert_stale(0, "gone");
}

static void H6_lookup_left_alone_ends_with_the_worker(void **state)
{
    struct bench *bench = *state;
    keep_and_expire(bench, "end");
    ask(bench, 2, "end");
    advance(bench, 1800);
    assert_int_equal(bench->resolver->lookups.in_use, 1);
    assert_int_equal(bench->resolver->queries.in_use, 0); /* nothing delays a stop */
    resolver_abort(bench->resolver);
    assert_int_equal(bench->resolver->lookups.in_use, 0);
    assert_int_equal(fake.cancelled, 1);
}

static void I4_lookups_left_alone_are_bounded(void **state)
{
    struct bench *bench = *state;
    ask(bench, 1, "one");
    ask(bench, 1, "two");
    end_good(0, KEPT_TTL_S, RCODE_NOERROR, 1);
    end_good(1, KEPT_TTL_S, RCODE_NOERROR, 1);
    advance(bench, KEPT_TTL_S * 1000);
    replies.count = 0;
    ask(bench, 2, "one");
    ask(bench, 3, "two");
    advance(bench, 1800);
    assert_stale(0, "one");
    assert_stale(1, "two");
    assert_int_equal(bench->resolver->alone_max, 1);
    assert_int_equal(bench->resolver->lookups.in_use, 1);
    assert_int_equal(fake.cancelled, 1);
    assert_int_equal(metric_get(&bench->metrics->refreshes_limited), 1);
    ask(bench, 4, "two"); /* it failed as any other */
    assert_stale(2, "two");
}

/* --- Refresh ahead --- */

/* Keeps an answer, makes it popular, and comes to its last tenth. */
static void age(struct bench *bench, const char *label)
{
    ask(bench, 1, label);
    end_good(fake.submitted - 1, KEPT_TTL_S, RCODE_NOERROR, 1);
    ask(bench, 2, label);
    advance(bench, KEPT_TTL_S * 900);
    replies.count = 0;
}

static void H6_H8_popular_answer_is_refreshed_once_however_often_it_is_asked_for(void **state)
{
    struct bench *bench = *state;
    age(bench, "popular");
    for (uint16_t id = 10; id < 20; id++)
        assert_null(ask(bench, id, "popular"));
    assert_int_equal(replies.count, 10);
    assert_fresh(9, "popular", KEPT_TTL_S / 10);
    assert_int_equal(fake.submitted, 2);
    assert_int_equal(metric_get(&bench->metrics->refreshes_started), 1);
    assert_int_equal(metric_get(&bench->metrics->lookups_in_flight), 1);
    assert_int_equal(metric_get(&bench->metrics->queries_in_flight), 0);
    end_good(1, KEPT_TTL_S, RCODE_NOERROR, 2);
    assert_int_equal(replies.count, 10);
    assert_int_equal(bench->resolver->lookups.in_use, 0);
    advance(bench, KEPT_TTL_S * 100);
    ask(bench, 20, "popular");
    assert_fresh(10, "popular", KEPT_TTL_S * 9 / 10);
    assert_int_equal(fake.submitted, 2);
}

static void H6_answer_that_is_not_popular_is_not_refreshed(void **state)
{
    struct bench *bench = *state;
    ask(bench, 1, "once");
    end_good(0, KEPT_TTL_S, RCODE_NOERROR, 1);
    advance(bench, KEPT_TTL_S * 950);
    ask(bench, 2, "once");
    assert_int_equal(fake.submitted, 1);
}

static void H6_failed_refresh_costs_nothing_and_is_not_repeated(void **state)
{
    struct bench *bench = *state;
    age(bench, "fails");
    ask(bench, 3, "fails");
    fake_answer(1, RCODE_SERVFAIL, FAILURE_SERVER_FAILURE);
    fake_answer(2, RCODE_SERVFAIL, FAILURE_SERVER_FAILURE);
    assert_int_equal(bench->resolver->lookups.in_use, 0);
    for (uint16_t id = 4; id < 8; id++)
        ask(bench, id, "fails");
    assert_int_equal(fake.submitted, 3);
    assert_fresh(4, "fails", KEPT_TTL_S / 10);
    advance(bench, KEPT_TTL_S * 100);
    assert_non_null(ask(bench, 8, "fails"));
    assert_int_equal(fake.submitted, 4);
}

static void H6_refresh_that_nobody_answers_ends(void **state)
{
    struct bench *bench = *state;
    age(bench, "silent");
    ask(bench, 3, "silent");
    advance(bench, 3799);
    assert_int_equal(bench->resolver->lookups.in_use, 1);
    advance(bench, 1);
    assert_int_equal(bench->resolver->lookups.in_use, 0);
    assert_int_equal(fake.cancelled, 1);
    assert_int_equal(metric_get(&bench->metrics->lookups_failed), 1);
    assert_int_equal(replies.count, 1);
}

static void H6_refresh_that_can_ask_nobody_ends_at_once(void **state)
{
    struct bench *bench = *state;
    age(bench, "nobody");
    fake.refuses = true;
    ask(bench, 3, "nobody");
    assert_fresh(0, "nobody", KEPT_TTL_S / 10);
    assert_int_equal(bench->resolver->lookups.in_use, 0);
}

static void H6_refresh_is_joined_by_a_query_that_comes_too_late(void **state)
{
    struct bench *bench = *state;
    age(bench, "joined");
    advance(bench, KEPT_TTL_S * 100 - 1000);
    ask(bench, 3, "joined");
    assert_int_equal(fake.submitted, 2);
    advance(bench, 2500); /* the answer's time has passed */
    assert_non_null(ask(bench, 4, "joined"));
    assert_int_equal(metric_get(&bench->metrics->lookups_joined), 1);
    assert_int_equal(bench->resolver->alone_count, 0);
    advance(bench, 1799);
    assert_int_equal(replies.count, 1);
    advance(bench, 1);
    assert_stale(1, "joined");
    assert_int_equal(bench->resolver->alone_count, 1);
    end_good(1, KEPT_TTL_S, RCODE_NOERROR, 2);
    assert_int_equal(bench->resolver->alone_count, 0);
    assert_int_equal(replies.count, 2);
}

static void H6_B5_refresh_that_was_joined_ends_with_its_last_query(void **state)
{
    struct bench *bench = *state;
    age(bench, "left");
    advance(bench, KEPT_TTL_S * 100 - 1000);
    ask(bench, 3, "left");
    advance(bench, 1000);
    query_drop(bench->resolver, ask(bench, 4, "left"));
    assert_int_equal(bench->resolver->lookups.in_use, 0);
    assert_int_equal(bench->resolver->alone_count, 0);
    assert_int_equal(fake.cancelled, 1);
}

static void I4_refreshes_are_bounded_and_counted(void **state)
{
    struct bench *bench = *state;
    ask(bench, 1, "one");
    ask(bench, 1, "two");
    end_good(0, KEPT_TTL_S, RCODE_NOERROR, 1);
    end_good(1, KEPT_TTL_S, RCODE_NOERROR, 1);
    ask(bench, 2, "one");
    ask(bench, 2, "two");
    advance(bench, KEPT_TTL_S * 950);
    ask(bench, 3, "one");
    ask(bench, 3, "two");
    assert_int_equal(fake.submitted, 3);
    assert_int_equal(replies.count, 6);
    assert_int_equal(metric_get(&bench->metrics->refreshes_started), 1);
    assert_int_equal(metric_get(&bench->metrics->refreshes_limited), 1);
}

static void H6_nothing_is_refreshed_while_all_upstreams_are_down(void **state)
{
    struct bench *bench = *state;
    age(bench, "down");
    fake.is_down = true;
    ask(bench, 3, "down");
    assert_fresh(0, "down", KEPT_TTL_S / 10);
    assert_int_equal(fake.submitted, 1);
    assert_int_equal(metric_get(&bench->metrics->refreshes_limited), 1);
}

static void I4_refreshes_take_no_place_of_queries(void **state)
{
    struct bench *bench = *state;
    age(bench, "popular");
    ask(bench, 3, "popular");
    assert_int_equal(bench->resolver->alone_count, 1);
    for (uint16_t id = 0; id < 8; id++) {
        const char label[] = {'n', (char)('0' + id), '\0'};
        assert_non_null(ask(bench, id, label));
    }
    assert_int_equal(bench->resolver->lookups.in_use, 9);
    assert_true(ask_over(bench, &stream_transport, 9, "more", TYPE_A, NULL) == STATUS_FULL);
}

/* Better than to end with nothing; and for all who wait with it. */
static void K5_H6_who_gives_way_gets_a_stale_answer_if_there_is_one(void **state)
{
    struct bench *bench = *state;
    age(bench, "stale");
    advance(bench, 60 * 1000);
    const size_t before = replies.count;
    ask(bench, 3, "stale");
    ask(bench, 4, "stale");
    for (uint16_t id = 0; id < 6; id++) {
        const char label[] = {'n', (char)('0' + id), '\0'};
        assert_non_null(ask(bench, id, label));
    }
    advance(bench, 200);
    assert_int_equal(replies.count, before);
    assert_non_null(ask(bench, 5, "new"));
    assert_int_equal(replies.count, before + 2);
    for (size_t i = before; i < before + 2; i++) {
        assert_int_equal(load_u16(replies.bytes[i] + 6), 1);
        assert_int_equal(load_u16(replies.bytes[i] + 2) & DNS_FLAG_TC, 0);
    }
    assert_int_equal(metric_get(&bench->metrics->replies_stale), 2);
    assert_int_equal(metric_get(&bench->metrics->queries_gave_way), 1);
}

/* --- Failures kept --- */

static void H5_RFC9520_servfail_in_a_row_is_kept_twice_as_long(void **state)
{
    struct bench *bench = *state;
    for (unsigned kept_s = 1; kept_s <= 4; kept_s *= 2) {
        const size_t first = fake.submitted;
        replies.count = 0;
        ask(bench, 1, "bad");
        fake_answer(first, RCODE_SERVFAIL, FAILURE_SERVER_FAILURE);
        fake_answer(first + 1, RCODE_SERVFAIL, FAILURE_SERVER_FAILURE);
        advance(bench, kept_s * 1000 - 1);
        assert_null(ask(bench, 2, "bad"));
        assert_true(reply_has_error(1, EDE_CACHED_ERROR));
        assert_int_equal(fake.submitted, first + 2);
        advance(bench, 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(H6_RFC8767_stale_answer_when_asking_fails_at_once),
        TEST(H6_RFC8767_stale_answer_when_asking_fails_by_servfail),
        TEST(H6_RFC8767_stale_answer_when_asking_fails_by_refused),
        TEST(H6_RFC8767_stale_answer_when_asking_fails_by_truncation),
        TEST(H6_RFC8767_stale_answer_when_asking_fails_by_malformed_answers),
        TEST(H6_RFC8767_stale_answer_when_asking_fails_by_closes),
        TEST(H6_RFC8767_stale_answer_when_asking_fails_by_silence),
        TEST(H6_RFC8767_stale_answer_when_asking_fails_by_errors_then_silence),
        TEST(H6_cause_is_told_with_the_stale_answer),
        TEST(H6_RFC8914_stale_nxdomain_has_a_code_of_its_own),
        TEST(H6_fresh_answer_just_in_time_is_the_one_given),
        TEST(H6_fresh_answer_just_late_is_for_the_cache),
        TEST(H6_fresh_answer_of_another_worker_is_taken_for_the_slow_one),
        TEST(H6_all_who_wait_get_it_and_nobody_asks_twice),
        TEST(H6_timer_is_half_of_a_short_query_timeout),
        TEST(H6_maximum_passed_is_a_servfail),
        TEST(H6_maximum_passed_while_the_client_waits_is_a_servfail),
        TEST(H6_nothing_kept_is_a_servfail),
        TEST(H6_cache_off_is_a_servfail),
        TEST(H6_B5_client_that_leaves_before_the_timer_takes_its_lookup_along),
        TEST(H6_B5_other_client_still_gets_it),
        TEST(H6_lookup_left_alone_ends_with_the_worker),
        TEST(I4_lookups_left_alone_are_bounded),
        TEST(H6_H8_popular_answer_is_refreshed_once_however_often_it_is_asked_for),
        TEST(H6_answer_that_is_not_popular_is_not_refreshed),
        TEST(H6_failed_refresh_costs_nothing_and_is_not_repeated),
        TEST(H6_refresh_that_nobody_answers_ends),
        TEST(H6_refresh_that_can_ask_nobody_ends_at_once),
        TEST(H6_refresh_is_joined_by_a_query_that_comes_too_late),
        TEST(H6_B5_refresh_that_was_joined_ends_with_its_last_query),
        TEST(I4_refreshes_are_bounded_and_counted),
        TEST(H6_nothing_is_refreshed_while_all_upstreams_are_down),
        TEST(I4_refreshes_take_no_place_of_queries),
        TEST(K5_H6_who_gives_way_gets_a_stale_answer_if_there_is_one),
        TEST(H5_RFC9520_servfail_in_a_row_is_kept_twice_as_long),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
