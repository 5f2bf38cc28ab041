// SPDX-License-Identifier: Apache-2.0
/* Lookups against an upstream layer that does as it is told: merging, retries, the late second
 * request, error answers, deadlines, what is kept. */
#include "fake_upstream.h"

static void H8_identical_questions_are_asked_once(void **state)
{
    struct bench *bench = *state;
    for (uint16_t id = 1; id <= 5; id++)
        assert_non_null(ask(bench, id, "same"));
    assert_int_equal(fake.submitted, 1);
    assert_int_equal(metric_get(&bench->metrics->lookups_joined), 4);
    assert_int_equal(metric_get(&bench->metrics->queries_in_flight), 5);
    fake_answer(0, RCODE_NOERROR, FAILURE_NONE);
    assert_int_equal(replies.count, 5);
    for (size_t i = 0; i < 5; i++)
        assert_int_equal(load_u16(replies.bytes[i]), i + 1);
    assert_int_equal(metric_get(&bench->metrics->queries_in_flight), 0);
}

static void H8_different_questions_are_asked_apart(void **state)
{
    struct bench *bench = *state;
    struct query *query;
    ask(bench, 1, "one");
    ask(bench, 2, "two");
    assert_true(ask_over(bench, &datagrams, 3, "one", TYPE_AAAA, &query) == STATUS_OK);
    assert_int_equal(fake.submitted, 3);
}

static void F2_failed_request_moves_and_client_gets_one_reply(void **state)
{
    struct bench *bench = *state;
    ask(bench, 1, "moves");
    fake_end(0, NULL, FAILURE_CLOSED);
    assert_int_equal(fake.submitted, 2);
    assert_int_equal(fake.in_flight[1]->upstream, 1);
    fake_answer(1, RCODE_NOERROR, FAILURE_NONE);
    assert_int_equal(replies.count, 1);
    assert_int_equal(reply_rcode(0), RCODE_NOERROR);
    assert_int_equal(metric_get(&bench->metrics->lookups_retried), 1);
}

static void attempts_are_bounded_and_the_last_cause_is_told(void **state)
{
    struct bench *bench = *state;
    ask(bench, 1, "bounded");
    for (size_t i = 0; i < 8; i++)
        fake_end(i, NULL, FAILURE_CERTIFICATE_EXPIRED);
    assert_int_equal(fake.submitted, 8);
    assert_int_equal(replies.count, 1);
    assert_int_equal(reply_rcode(0), RCODE_SERVFAIL);
    assert_true(reply_contains(0, "third: certificate has expired"));
    assert_int_equal(metric_get(&bench->metrics->lookups_failed), 1);
}

static void nobody_to_ask_is_a_failure_at_once(void **state)
{
    struct bench *bench = *state;
    fake.refuses = true;
    assert_null(ask(bench, 1, "nobody"));
    assert_int_equal(replies.count, 1);
    assert_true(reply_contains(0, "first: all upstreams failed a moment ago"));
}

static void F19_error_answer_is_tried_once_elsewhere_then_passed_on(void **state)
{
    struct bench *bench = *state;
    ask(bench, 1, "refused");
    fake_answer(0, RCODE_REFUSED, FAILURE_REFUSED);
    assert_int_equal(fake.submitted, 2);
    fake_answer(1, RCODE_SERVFAIL, FAILURE_SERVER_FAILURE);
    assert_int_equal(fake.submitted, 2);
    assert_int_equal(reply_rcode(0), RCODE_REFUSED);
}

static void F19_good_answer_elsewhere_wins(void **state)
{
    struct bench *bench = *state;
    ask(bench, 1, "better");
    fake_answer(0, RCODE_SERVFAIL, FAILURE_SERVER_FAILURE);
    fake_answer(1, RCODE_NOERROR, FAILURE_NONE);
    assert_int_equal(reply_rcode(0), RCODE_NOERROR);
}

static void F19_error_answer_beats_our_own_failure(void **state)
{
    struct bench *bench = *state;
    ask(bench, 1, "mixed");
    fake_answer(0, RCODE_REFUSED, FAILURE_REFUSED);
    for (size_t i = 1; i < 8; i++)
        fake_end(i, NULL, FAILURE_CLOSED);
    assert_int_equal(replies.count, 1);
    assert_int_equal(reply_rcode(0), RCODE_REFUSED);
}

static void G8_truncated_answer_is_passed_when_nobody_does_better(void **state)
{
    struct bench *bench = *state;
    const struct answer truncated = {.flags = DNS_FLAG_TC | DNS_FLAG_RA};
    ask(bench, 1, "cut");
    fake_answer(0, RCODE_SERVFAIL, FAILURE_SERVER_FAILURE);
    fake_end(1, &truncated, FAILURE_TRUNCATED_ANSWER);
    assert_int_equal(reply_rcode(0), RCODE_NOERROR);
    assert_true(load_u16(replies.bytes[0] + 2) & DNS_FLAG_TC);
    ask(bench, 2, "cut");
    assert_int_equal(fake.submitted, 3); /* not cached */
}

static void late_request_is_asked_elsewhere_and_the_first_good_answer_wins(void **state)
{
    struct bench *bench = *state;
    ask(bench, 1, "late");
    fake_late(0);
    assert_int_equal(fake.submitted, 2);
    assert_int_equal(fake.in_flight[1]->upstream, 1);
    fake_answer(0, RCODE_NOERROR, FAILURE_NONE);
    assert_int_equal(replies.count, 1);
    assert_int_equal(fake.cancelled, 1);
}

static void late_error_answer_waits_for_the_other_request(void **state)
{
    struct bench *bench = *state;
    ask(bench, 1, "waits");
    fake_late(0);
    fake_answer(1, RCODE_SERVFAIL, FAILURE_SERVER_FAILURE);
    fake_answer(2, RCODE_REFUSED, FAILURE_REFUSED); /* the third upstream, asked after the second */
    assert_int_equal(replies.count, 0);
    fake_answer(0, RCODE_NOERROR, FAILURE_NONE);
    assert_int_equal(reply_rcode(0), RCODE_NOERROR);
}

static void late_twice_asks_no_third_time(void **state)
{
    struct bench *bench = *state;
    ask(bench, 1, "twice");
    fake_late(0);
    fake_late(0);
    fake_late(1);
    assert_int_equal(fake.submitted, 2);
}

static void late_is_told_again_until_a_hedge_is_allowed(void **state)
{
    struct bench *bench = *state;
    ask(bench, 1, "again");
    fake.denies_hedges = true;
    fake_late(0);
    assert_int_equal(fake.submitted, 1);
    fake.denies_hedges = false;
    fake_late(0);
    assert_int_equal(fake.submitted, 2);
    fake_late(0);
    fake_late(1);
    assert_int_equal(fake.hedges_asked, 2);
    assert_int_equal(fake.moves_asked, 2); /* with both in flight a lost one may move */
    fake_answer(1, RCODE_NOERROR, FAILURE_NONE);
    assert_int_equal(replies.count, 1);
    assert_int_equal(metric_get(&bench->metrics->lookups_retried), 0); /* a hedge is no retry */
}

static void F19_hedge_that_fails_leaves_the_first_in_flight(void **state)
{
    struct bench *bench = *state;
    ask(bench, 1, "first");
    fake_late(0);
    fake_end(1, NULL, FAILURE_CLOSED); /* the third is asked in its stead */
    fake_end(2, NULL, FAILURE_CLOSED);
    assert_int_equal(replies.count, 0);
    fake_late(0); /* there is room for another hedge, but nobody left to ask */
    assert_int_equal(fake.submitted, 3);
    fake_answer(0, RCODE_NOERROR, FAILURE_NONE);
    assert_int_equal(reply_rcode(0), RCODE_NOERROR);
}

static void late_with_nobody_else_goes_on_waiting(void **state)
{
    struct bench *bench = *state;
    ask(bench, 1, "alone");
    fake.refuses = true;
    fake_late(0);
    assert_int_equal(replies.count, 0);
    fake_answer(0, RCODE_NOERROR, FAILURE_NONE);
    assert_int_equal(reply_rcode(0), RCODE_NOERROR);
}

static void deadline_gives_servfail_before_the_timeout_and_names_the_upstream(void **state)
{
    struct bench *bench = *state;
    ask(bench, 1, "slow");
    advance(bench, 3700);
    assert_int_equal(replies.count, 0);
    advance(bench, 200);
    assert_int_equal(replies.count, 1);
    assert_int_equal(reply_rcode(0), RCODE_SERVFAIL);
    assert_true(reply_contains(0, "first: no answer in time"));
    assert_int_equal(fake.cancelled, 1);
}

static void each_query_keeps_its_own_deadline(void **state)
{
    struct bench *bench = *state;
    ask(bench, 1, "shared");
    advance(bench, 2000);
    ask(bench, 2, "shared");
    advance(bench, 1900);
    assert_int_equal(replies.count, 1);
    assert_int_equal(load_u16(replies.bytes[0]), 1);
    fake_answer(1, RCODE_NOERROR, FAILURE_NONE);
    assert_int_equal(replies.count, 2);
    assert_int_equal(reply_rcode(1), RCODE_NOERROR);
}

static void lookup_that_others_keep_joining_asks_anew_at_each_deadline(void **state)
{
    struct bench *bench = *state;
    ask(bench, 1, "lost");
    fake_late(0);
    for (uint16_t id = 2; id < 6; id++) {
        advance(bench, 1000);
        ask(bench, id, "lost");
    }
    assert_int_equal(replies.count, 1);
    assert_int_equal(fake.cancelled, 2);
    assert_int_equal(fake.submitted, 3);
    assert_int_equal(fake.in_flight[2]->upstream, 0); /* as one that was never asked */
    advance(bench, 1000);
    assert_int_equal(replies.count, 2); /* the second query's deadline: no further search */
    assert_int_equal(fake.submitted, 3);
    fake_answer(2, RCODE_NOERROR, FAILURE_NONE);
    assert_int_equal(replies.count, 5);
    assert_int_equal(reply_rcode(4), RCODE_NOERROR);
}

static void deadline_gives_what_the_cache_has_by_then(void **state)
{
    struct bench *bench = *state;
    const struct answer answer = {.kind = ANSWER_POSITIVE, .rcode = RCODE_NOERROR, .ttl_s = 60};
    struct query *first = ask(bench, 1, "shared");
    const struct question question = first->message.question;
    advance(bench, 2000);
    ask(bench, 2, "shared");
    cache_store(bench->resolver->cache, &question, first->hash, &answer, bench->loop.now);
    advance(bench, 1900); /* another worker had it */
    assert_int_equal(replies.count, 2);
    assert_int_equal(reply_rcode(0), RCODE_NOERROR);
    assert_int_equal(reply_rcode(1), RCODE_NOERROR);
    assert_int_equal(bench->resolver->lookups.in_use, 0);
}

static void lookup_that_can_ask_nobody_anew_ends(void **state)
{
    struct bench *bench = *state;
    ask(bench, 1, "lost");
    advance(bench, 1000);
    ask(bench, 2, "lost");
    fake.refuses = true;
    advance(bench, 2900);
    assert_int_equal(replies.count, 2);
    assert_int_equal(bench->resolver->lookups.in_use, 0);
}

static void deadline_passes_on_an_error_answer(void **state)
{
    struct bench *bench = *state;
    ask(bench, 1, "refused");
    fake_answer(0, RCODE_REFUSED, FAILURE_REFUSED);
    advance(bench, 1000);
    ask(bench, 2, "refused");
    advance(bench, 2900);
    assert_int_equal(replies.count, 1);
    assert_int_equal(reply_rcode(0), RCODE_REFUSED);
}

static void H5_timeout_is_kept_for_a_moment(void **state)
{
    struct bench *bench = *state;
    ask(bench, 1, "slow");
    advance(bench, 3900);
    ask(bench, 2, "slow");
    assert_int_equal(fake.submitted, 1);
    assert_int_equal(replies.count, 2);
    assert_true(reply_contains(1, "first: no answer in time"));
    advance(bench, 1100);
    ask(bench, 3, "slow");
    assert_int_equal(fake.submitted, 2);
}

static void dead_path_is_not_kept(void **state)
{
    struct bench *bench = *state;
    fake.refuses = true;
    ask(bench, 1, "path");
    fake.refuses = false;
    ask(bench, 2, "path");
    assert_int_equal(fake.submitted, 1);
}

static void H5_servfail_of_an_upstream_is_kept_and_marked(void **state)
{
    struct bench *bench = *state;
    ask(bench, 1, "bad");
    fake_answer(0, RCODE_SERVFAIL, FAILURE_SERVER_FAILURE);
    fake_answer(1, RCODE_SERVFAIL, FAILURE_SERVER_FAILURE);
    ask(bench, 2, "bad");
    assert_int_equal(fake.submitted, 2);
    const uint8_t cached_error[] = {0, OPTION_EXTENDED_ERROR, 0, 2, 0, EDE_CACHED_ERROR};
    assert_non_null(
        memmem(replies.bytes[1], replies.length[1], cached_error, sizeof(cached_error)));
}

/* Fails the question `label` at both upstreams, the first of which says so with `options`. */
static void fail_with(struct bench *bench, const char *label, enum rcode rcode,
                      enum failure failure, const uint8_t *options, size_t options_length)
{
    const struct answer answer = {
        .kind = ANSWER_FAILURE,
        .rcode = (uint16_t)rcode,
        .ttl_s = 1,
        .extended_errors = options,
        .extended_errors_length = (uint16_t)options_length,
    };
    ask(bench, 1, label);
    fake_end(fake.submitted - 1, &answer, failure);
    fake_answer(fake.submitted - 1, RCODE_SERVFAIL, FAILURE_SERVER_FAILURE);
}

static void RFC8914_error_of_an_upstream_is_passed_on_with_its_name(void **state)
{
    struct bench *bench = *state;
    const uint8_t blocked[] = {0, OPTION_EXTENDED_ERROR, 0, 5, 0, 23, 'a', 'd', 's'};
    static const struct {
        enum rcode rcode;
        enum failure failure;
        const char *ours;
    } cases[] = {
        {RCODE_SERVFAIL, FAILURE_SERVER_FAILURE, "first: upstream answered SERVFAIL"},
        {RCODE_REFUSED, FAILURE_REFUSED, "first: upstream answered REFUSED"},
        {RCODE_NOTIMP, FAILURE_OTHER_RCODE, "first: upstream answered with an error"},
    };
    for (size_t i = 0; i < 3; i++) {
        const char label[] = {(char)('a' + i), '\0'};
        const size_t at = replies.count;
        fail_with(bench, label, cases[i].rcode, cases[i].failure, blocked, sizeof(blocked));
        ask(bench, 2, label); /* from the cache the same */
        assert_int_equal(replies.count, at + 2);
        for (size_t reply = at; reply < at + 2; reply++) {
            uint8_t ours[64];
            struct writer writer = writer_over(ours, sizeof(ours));
            const size_t length = strlen(cases[i].ours);
            write_u16(&writer, OPTION_EXTENDED_ERROR);
            write_u16(&writer, (uint16_t)(2 + length));
            write_u16(&writer, EDE_OTHER);
            write_bytes(&writer, cases[i].ours, length);
            assert_int_equal(reply_rcode(reply), cases[i].rcode);
            const uint8_t *found =
                memmem(replies.bytes[reply], replies.length[reply], blocked, sizeof(blocked));
            assert_non_null(found);
            assert_memory_equal(found + sizeof(blocked), ours, writer_length(&writer));
        }
    }
}

static void G8_truncated_answer_says_whose_it_is(void **state)
{
    struct bench *bench = *state;
    const struct answer truncated = {.flags = DNS_FLAG_TC | DNS_FLAG_RA};
    ask(bench, 1, "cut");
    fake_answer(0, RCODE_SERVFAIL, FAILURE_SERVER_FAILURE);
    fake_end(1, &truncated, FAILURE_TRUNCATED_ANSWER);
    assert_true(reply_contains(0, "second: truncated answer"));
    assert_false(reply_contains(0, "first"));
}

static void RFC8914_long_error_of_an_upstream_is_cut_and_ours_stays(void **state)
{
    struct bench *bench = *state;
    static uint8_t options[512] = {0, OPTION_EXTENDED_ERROR, 1, 252, 0, 22};
    memset(options + 6, 'x', sizeof(options) - 6);
    fail_with(bench, "long", RCODE_SERVFAIL, FAILURE_SERVER_FAILURE, options, sizeof(options));
    assert_int_equal(reply_rcode(0), RCODE_SERVFAIL);
    assert_true(reply_contains(0, "xxxxxxxxxxxxxxxx"));
    assert_true(reply_contains(0, "first: upstream answered SERVFAIL"));
}

static void B5_lookup_without_queries_is_cancelled(void **state)
{
    struct bench *bench = *state;
    struct query *query;
    assert_true(ask_over(bench, &stream_transport, 1, "gone", TYPE_A, &query) == STATUS_OK);
    query_drop(bench->resolver, query);
    assert_int_equal(fake.cancelled, 1);
    assert_int_equal(replies.count, 0);
    assert_int_equal(bench->resolver->lookups.in_use, 0);
}

static void B5_lookup_goes_on_for_the_others(void **state)
{
    struct bench *bench = *state;
    struct query *query = ask(bench, 1, "gone");
    ask(bench, 2, "gone");
    query_drop(bench->resolver, query);
    fake_answer(0, RCODE_NOERROR, FAILURE_NONE);
    assert_int_equal(replies.count, 1);
    assert_int_equal(load_u16(replies.bytes[0]), 2);
}

/* --- More who wait than a turn has room for --- */

enum { WAITING = 6, REACHED = 4 };

/* An answer for all, of which the turn gives REACHED. */
static void answer_in_pieces(struct bench *bench, uint32_t ttl_s)
{
    const struct answer answer = {.flags = DNS_FLAG_RA, .ttl_s = ttl_s};
    for (uint16_t id = 0; id < WAITING; id++)
        assert_non_null(ask(bench, id, "pieces"));
    bench->loop.budget = REACHED;
    fake_end(0, &answer, FAILURE_NONE);
    assert_int_equal(replies.count, REACHED);
    assert_int_equal(bench->resolver->waiting_count, WAITING - REACHED);
}

static void K6_who_waits_is_answered_as_turns_have_room(void **state)
{
    struct bench *bench = *state;
    answer_in_pieces(bench, 60);
    assert_true(loop_turn(&bench->loop, 0));
    assert_int_equal(replies.count, WAITING);
    assert_int_equal(bench->resolver->lookups.in_use, 0);
    for (uint16_t id = 0; id < WAITING; id++) {
        assert_int_equal(load_u16(replies.bytes[id]), id);
        assert_int_equal(reply_rcode(id), RCODE_NOERROR);
    }
    assert_null(ask(bench, 9, "pieces")); /* from the cache */
}

static void K6_nobody_joins_those_who_are_answered_later(void **state)
{
    struct bench *bench = *state;
    answer_in_pieces(bench, 0);
    assert_non_null(ask(bench, 9, "pieces"));
    assert_int_equal(fake.submitted, 2);
    assert_true(loop_turn(&bench->loop, 0));
    assert_int_equal(replies.count, WAITING);
    fake_answer(1, RCODE_NOERROR, FAILURE_NONE);
    assert_int_equal(load_u16(replies.bytes[WAITING]), 9);
}

static void K6_deadline_of_who_is_answered_later_holds(void **state)
{
    struct bench *bench = *state;
    answer_in_pieces(bench, 0);
    advance(bench, 1800);
    assert_int_equal(replies.count, REACHED);
    advance(bench, 3800 - 1800);
    assert_int_equal(replies.count, WAITING);
    assert_int_equal(reply_rcode(WAITING - 1), RCODE_NOERROR);
    assert_int_equal(bench->resolver->lookups.in_use, 0);
}

static void K6_failure_is_told_in_pieces_with_its_cause(void **state)
{
    struct bench *bench = *state;
    for (uint16_t id = 0; id < WAITING; id++)
        ask(bench, id, "fails");
    fake_answer(0, RCODE_REFUSED, FAILURE_REFUSED);
    bench->loop.budget = REACHED;
    fake_answer(1, RCODE_SERVFAIL, FAILURE_SERVER_FAILURE);
    assert_int_equal(replies.count, REACHED);
    assert_true(loop_turn(&bench->loop, 0));
    assert_int_equal(replies.count, WAITING);
    assert_int_equal(reply_rcode(WAITING - 1), RCODE_REFUSED);
    assert_true(reply_contains(WAITING - 1, "first: "));
}

/* --- Long answers --- */

enum { LONG_LENGTH = 20000 };

static struct body *held[FAKE_MAX];
static size_t held_count;

static void hold_body(struct query *query, const uint8_t *reply, size_t length, size_t body_at,
                      struct body *body)
{
    assert_int_equal(body_at, DNS_HEADER_SIZE + query->message.question.name_length + 4);
    held[held_count++] = body_hold(body);
    keep_reply(query, reply, length);
}

static const struct transport around = {.send = keep_reply, .send_around = hold_body};

/* One NULL record, over bytes that the next call writes again. */
static struct answer long_answer(uint32_t ttl)
{
    static uint8_t bytes[LONG_LENGTH];
    static const uint16_t ttl_offsets[] = {6};
    memset(bytes, 0xa5, sizeof(bytes));
    memcpy(bytes, "\xc0\x0c\0\x0a\0\1", 6);
    store_u32(bytes + 6, ttl);
    store_u16(bytes + 10, LONG_LENGTH - 12);
    held_count = 0;
    return (struct answer){.kind = ANSWER_POSITIVE,
                           .flags = DNS_FLAG_RA,
                           .answer_count = 1,
                           .ttl_s = ttl_meant(ttl),
                           .body = bytes,
                           .body_length = LONG_LENGTH,
                           .needed_length = LONG_LENGTH,
                           .ttl_count = 1,
                           .ttl_offsets = ttl_offsets};
}

static void K6_long_body_is_there_once_for_all_who_wait(void **state)
{
    struct bench *bench = *state;
    const struct answer answer = long_answer(0x80000001);
    for (uint16_t id = 0; id < WAITING; id++)
        assert_true(ask_over(bench, &around, id, "long", TYPE_A, NULL) == STATUS_OK);
    assert_non_null(ask(bench, 9, "long")); /* a datagram cannot take it */
    bench->loop.budget = 2 * (1 + LONG_LENGTH / LOOP_OCTETS_PER_UNIT); /* reaches two */
    fake_end(0, &answer, FAILURE_NONE);
    assert_int_equal(held_count, 2);
    assert_ptr_equal(held[0], held[1]);
    (void)long_answer(7); /* the upstream's next message */
    held_count = 2;
    assert_true(loop_turn(&bench->loop, 0));
    assert_int_equal(held_count, WAITING);
    assert_int_equal(replies.count, WAITING + 1);
    assert_true(load_u16(replies.bytes[WAITING] + 2) & DNS_FLAG_TC);
    for (size_t i = 0; i < held_count; i++) {
        assert_ptr_equal(held[i], held[i < 2 ? 0 : 2]);
        assert_int_equal(held[i]->length, LONG_LENGTH);
        assert_int_equal(load_u32(held[i]->bytes + 6), 0); /* RFC 2181 8 */
        assert_int_equal(load_u16(held[i]->bytes + 10), LONG_LENGTH - 12);
        assert_int_equal(load_u16(replies.bytes[i]), i);
    }
    assert_in_range(bench->resolver->output.used, 2 * LONG_LENGTH, 2 * LONG_LENGTH + 200);
    for (size_t i = 0; i < held_count; i++)
        body_release(held[i]);
    assert_int_equal(bench->resolver->output.used, 0);
}

static size_t answer_from_cache(struct bench *bench, const struct transport *transport)
{
    const int32_t before = bench->loop.budget;
    assert_true(ask_over(bench, transport, 1, "long", TYPE_A, NULL) == STATUS_OK);
    return (size_t)(before - bench->loop.budget);
}

static void K6_long_body_from_the_cache_is_there_once_for_all_streams(void **state)
{
    struct bench *bench = *state;
    const struct answer answer = long_answer(100);
    assert_non_null(ask(bench, 1, "long"));
    fake_end(0, &answer, FAILURE_NONE);
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(answer_from_cache(bench, &around), 3 + LONG_LENGTH / LOOP_OCTETS_PER_UNIT);
    advance(bench, 1000);
    (void)answer_from_cache(bench, &around);
    assert_int_equal(held_count, 4);
    assert_ptr_equal(held[0], held[1]);
    assert_ptr_equal(held[0], held[2]);
    assert_int_equal(load_u32(held[0]->bytes + 6), 100);
    assert_int_equal(load_u32(held[3]->bytes + 6), 99);
    assert_in_range(bench->resolver->output.used, 2 * LONG_LENGTH, 2 * LONG_LENGTH + 200);
    for (size_t i = 0; i < held_count; i++)
        body_release(held[i]);
    assert_int_equal(bench->resolver->output.used, 0);
}

/* It was copied out of the cache. */
static void K6_long_answer_that_is_cut_to_tc_is_spent_whole(void **state)
{
    struct bench *bench = *state;
    const struct answer answer = long_answer(100);
    assert_non_null(ask(bench, 1, "long"));
    fake_end(0, &answer, FAILURE_NONE);
    assert_int_equal(answer_from_cache(bench, &datagrams), 3 + LONG_LENGTH / LOOP_OCTETS_PER_UNIT);
    assert_true(load_u16(replies.bytes[1] + 2) & DNS_FLAG_TC);
}

static void K6_who_goes_before_his_answer_is_forgotten(void **state)
{
    struct bench *bench = *state;
    answer_in_pieces(bench, 60);
    resolver_abort(bench->resolver);
    assert_int_equal(bench->resolver->lookups.in_use, 0);
    assert_int_equal(bench->resolver->output.used, 0);
    assert_true(loop_turn(&bench->loop, 0));
    assert_int_equal(replies.count, REACHED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(H8_identical_questions_are_asked_once),
        TEST(H8_different_questions_are_asked_apart),
        TEST(F2_failed_request_moves_and_client_gets_one_reply),
        TEST(attempts_are_bounded_and_the_last_cause_is_told),
        TEST(nobody_to_ask_is_a_failure_at_once),
        TEST(F19_error_answer_is_tried_once_elsewhere_then_passed_on),
        TEST(F19_good_answer_elsewhere_wins),
        TEST(F19_error_answer_beats_our_own_failure),
        TEST(G8_truncated_answer_is_passed_when_nobody_does_better),
        TEST(late_request_is_asked_elsewhere_and_the_first_good_answer_wins),
        TEST(late_error_answer_waits_for_the_other_request),
        TEST(late_twice_asks_no_third_time),
        TEST(late_is_told_again_until_a_hedge_is_allowed),
        TEST(F19_hedge_that_fails_leaves_the_first_in_flight),
        TEST(late_with_nobody_else_goes_on_waiting),
        TEST(deadline_gives_servfail_before_the_timeout_and_names_the_upstream),
        TEST(each_query_keeps_its_own_deadline),
        TEST(lookup_that_others_keep_joining_asks_anew_at_each_deadline),
        TEST(deadline_gives_what_the_cache_has_by_then),
        TEST(lookup_that_can_ask_nobody_anew_ends),
        TEST(deadline_passes_on_an_error_answer),
        TEST(H5_timeout_is_kept_for_a_moment),
        TEST(dead_path_is_not_kept),
        TEST(H5_servfail_of_an_upstream_is_kept_and_marked),
        TEST(RFC8914_error_of_an_upstream_is_passed_on_with_its_name),
        TEST(G8_truncated_answer_says_whose_it_is),
        TEST(RFC8914_long_error_of_an_upstream_is_cut_and_ours_stays),
        TEST(B5_lookup_without_queries_is_cancelled),
        TEST(B5_lookup_goes_on_for_the_others),
        TEST(K6_who_waits_is_answered_as_turns_have_room),
        TEST(K6_nobody_joins_those_who_are_answered_later),
        TEST(K6_deadline_of_who_is_answered_later_holds),
        TEST(K6_failure_is_told_in_pieces_with_its_cause),
        TEST(K6_long_body_is_there_once_for_all_who_wait),
        TEST(K6_long_body_from_the_cache_is_there_once_for_all_streams),
        TEST(K6_long_answer_that_is_cut_to_tc_is_spent_whole),
        TEST(K6_who_goes_before_his_answer_is_forgotten),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
