// SPDX-License-Identifier: Apache-2.0
/* A resolver whose upstream layer is this file: requests are remembered, and the test says how each
 * of them ends. It takes the place of upstream/group.c, which is therefore not linked.
 *
 * Clients are a transport that keeps every reply. Time is loop->now, set by the test. */
#ifndef TESTS_FAKE_UPSTREAM_H
#define TESTS_FAKE_UPSTREAM_H

#include "test.h"

#include <limits.h>
#include <stdlib.h>

#include "query/lookup.h"
#include "query/resolve.h"
#include "upstream/choose.h"
#include "upstream/submit.h"
#include "upstream/upstream.h"

enum { FAKE_MAX = 64, FAKE_UPSTREAMS = 3, FAKE_STALE_MAX_S = 3600 };

static struct {
    struct request *in_flight[FAKE_MAX]; /* in the order of submission; NULL once ended */
    size_t submitted;
    size_t cancelled;
    bool refuses; /* request_submit finds nobody to ask */
    bool is_down; /* no upstream is up */
    bool denies_hedges;
    size_t hedges_asked;
    size_t moves_asked;
} fake;

static struct {
    uint8_t bytes[FAKE_MAX][DNS_MESSAGE_MAX];
    size_t length[FAKE_MAX];
    size_t count;
} replies;

/* --- In place of upstream/ --- */

[[maybe_unused]] static bool fake_choose(struct request *request, enum request_scope scope)
{
    for (size_t i = 0; i < FAKE_UPSTREAMS; i++) {
        const upstream_set bit = upstream_bit(i);
        if (!(request->attempts->once & bit)) {
            request->attempts->once |= bit;
            request->upstream = i;
            return true;
        }
    }
    return scope == REQUEST_ANYWHERE;
}

enum status request_submit(struct group *group, struct request *request, enum request_scope scope,
                           enum failure *failure)
{
    (void)group;
    assert_false(request_is_in_flight(request));
    if (fake.refuses || !fake_choose(request, scope)) {
        *failure = FAILURE_BACKING_OFF;
        return STATUS_NOT_FOUND;
    }
    assert_true(fake.submitted < FAKE_MAX);
    fake.in_flight[fake.submitted++] = request;
    request->connection = (struct connection *)&fake; /* any will do */
    return STATUS_OK;
}

enum status request_hedge(struct group *group, struct request *late, struct request *second)
{
    enum failure failure;
    assert_true(request_is_in_flight(late));
    fake.hedges_asked++;
    if (fake.denies_hedges)
        return STATUS_FULL;
    return request_submit(group, second, REQUEST_ELSEWHERE, &failure);
}

enum status request_move(struct group *group, struct request *lost, const struct request *other)
{
    (void)group;
    assert_true(request_is_in_flight(lost) && request_is_in_flight(other));
    fake.moves_asked++;
    return STATUS_NOT_FOUND;
}

[[maybe_unused]] static void fake_forget(struct request *request)
{
    request->connection = NULL;
    for (size_t i = 0; i < fake.submitted; i++)
        if (fake.in_flight[i] == request)
            fake.in_flight[i] = NULL;
}

void request_cancel(struct request *request)
{
    if (!request_is_in_flight(request))
        return;
    fake.cancelled++;
    fake_forget(request);
}

bool request_is_lost(const struct group *group, const struct request *request)
{
    (void)group;
    (void)request;
    return false;
}

enum status request_submit_alone(struct group *group, struct request *request, upstream_set avoided,
                                 enum lane_kind kind)
{
    enum failure failure;
    (void)avoided;
    (void)kind;
    return request_submit(group, request, REQUEST_ANYWHERE, &failure);
}

bool group_park(struct group *group, upstream_set excluded, struct waiter *waiter)
{
    (void)excluded;
    (void)group;
    (void)waiter;
    return false;
}

bool ends_were_together(const struct ends *ends, uint64_t time_ns)
{
    (void)ends;
    (void)time_ns;
    return false;
}

void path_doubt(struct path *path, enum failure failure)
{
    (void)path;
    (void)failure;
}

struct upstream *choose_usable(struct group *group, upstream_set excluded,
                               const struct question *question)
{
    (void)group;
    (void)excluded;
    (void)question;
    return NULL;
}

bool choose_knows_better(const struct group *group, upstream_set erred)
{
    (void)group;
    (void)erred;
    return false;
}

void choose_contradict(struct group *group, upstream_set erred)
{
    (void)group;
    (void)erred;
}

bool group_is_away(const struct group *group)
{
    (void)group;
    return fake.is_down;
}

const char *group_upstream_label(const struct group *group, size_t index)
{
    static const char *const labels[FAKE_UPSTREAMS] = {"first", "second", "third"};
    (void)group;
    return labels[index];
}

/* Ends the `index`th submission. */
[[maybe_unused]] static void fake_end(size_t index, const struct answer *answer,
                                      enum failure failure)
{
    struct request *request = fake.in_flight[index];
    assert_non_null(request);
    fake_forget(request);
    request->on_done(request, answer, failure);
}

[[maybe_unused]] static void fake_answer(size_t index, enum rcode rcode, enum failure failure)
{
    const struct answer answer = {
        .kind = rcode == RCODE_NOERROR ? ANSWER_POSITIVE : ANSWER_FAILURE,
        .flags = DNS_FLAG_RA,
        .rcode = (uint16_t)rcode,
        .ttl_s = rcode == RCODE_NOERROR ? 60 : 1,
    };
    fake_end(index, &answer, failure);
}

[[maybe_unused]] static void fake_late(size_t index)
{
    assert_non_null(fake.in_flight[index]);
    fake.in_flight[index]->on_late(fake.in_flight[index]);
}

/* --- The client --- */

[[maybe_unused]] static void keep_reply(struct query *query, const uint8_t *reply, size_t length)
{
    (void)query;
    assert_true(replies.count < FAKE_MAX);
    memcpy(replies.bytes[replies.count], reply, length);
    replies.length[replies.count++] = length;
}

[[maybe_unused]] static const struct transport datagrams = {.is_datagram = true,
                                                            .send = keep_reply};
[[maybe_unused]] static const struct transport stream_transport = {.send = keep_reply};

[[maybe_unused]] static unsigned reply_rcode(size_t index)
{
    assert_true(index < replies.count);
    return load_u16(replies.bytes[index] + 2) & DNS_RCODE_MASK;
}

[[maybe_unused]] static bool reply_contains(size_t index, const char *text)
{
    assert_true(index < replies.count);
    return memmem(replies.bytes[index], replies.length[index], text, strlen(text)) != NULL;
}

/* --- The resolver --- */

struct bench {
    struct config config;
    struct loop loop;
    struct metrics *metrics;
    struct resolver *resolver;
    const char *client; /* who asks */
};

[[maybe_unused]] static int bench_setup(void **state)
{
    struct bench *bench = calloc(1, sizeof(*bench));
    memset(&fake, 0, sizeof(fake));
    memset(&replies, 0, sizeof(replies));
    bench->config.limits.queries = 8;
    bench->config.snapshot.limits.udp_reply_size = 1232;
    bench->config.snapshot.timeouts.query_ns = 4 * NANOSECONDS_PER_SECOND;
    bench->config.snapshot.timeouts.tcp_idle_ns = 10 * NANOSECONDS_PER_SECOND;
    assert_true(prefix_parse("127.0.0.0/8", &bench->config.snapshot.allow[0]) == STATUS_OK);
    bench->config.snapshot.allow_count = 1;
    assert_true(loop_open(&bench->loop) == STATUS_OK);
    bench->metrics = metrics_open(FAKE_UPSTREAMS);
    bench->resolver = calloc(1, sizeof(*bench->resolver));
    bench->resolver->group = calloc(1, sizeof(struct group));
    bench->resolver->group->loop = &bench->loop;
    bench->resolver->group->metrics = bench->metrics;
    bench->resolver->config = &bench->config;
    bench->resolver->loop = &bench->loop;
    bench->resolver->metrics = bench->metrics;
    const struct cache_limits limits = {.ttl_max_s = 86400,
                                        .negative_ttl_max_s = 3600,
                                        .stale_max_s = FAKE_STALE_MAX_S,
                                        .refresh = TOGGLE_ON};
    assert_true(cache_open(1 << 20, &limits, &bench->resolver->cache) == STATUS_OK);
    assert_true(resolver_open(bench->resolver) == STATUS_OK);
    bench->client = "127.0.0.1:5000";
    *state = bench;
    return 0;
}

[[maybe_unused]] static int bench_teardown(void **state)
{
    struct bench *bench = *state;
    resolver_abort(bench->resolver);
    assert_int_equal(bench->resolver->queries.in_use, 0);
    assert_int_equal(bench->resolver->lookups.in_use, 0);
    for (size_t i = 0; i < fake.submitted; i++)
        assert_null(fake.in_flight[i]);
    resolver_close(bench->resolver);
    cache_close(bench->resolver->cache);
    loop_close(&bench->loop);
    metrics_close(bench->metrics);
    free(bench->resolver->group);
    free(bench->resolver);
    free(bench);
    return 0;
}

[[maybe_unused]] static void advance(struct bench *bench, uint64_t ms)
{
    bench->loop.now += ms * NANOSECONDS_PER_MILLISECOND;
    bench->loop.budget = LOOP_BUDGET;
    deadline_queue_expire(&bench->resolver->young_queries, bench->loop.now, UINT_MAX);
    deadline_queue_expire(&bench->resolver->slow_queries, bench->loop.now, UINT_MAX);
    deadline_queue_expire(&bench->resolver->query_deadlines, bench->loop.now, UINT_MAX);
    deadline_queue_expire(&bench->resolver->alone_lookups, bench->loop.now, UINT_MAX);
}

/* Begins a query for LABEL.test A with EDNS and the given ID. */
[[maybe_unused]] static enum status ask_over(struct bench *bench, const struct transport *transport,
                                             uint16_t id, const char *label, uint16_t type,
                                             struct query **out)
{
    uint8_t message[128];
    struct writer writer = writer_over(message, sizeof(message));
    write_u16(&writer, id);
    write_u16(&writer, DNS_FLAG_RD);
    write_u16(&writer, 1);
    write_u32(&writer, 0);
    write_u16(&writer, 1);
    write_u8(&writer, (uint8_t)strlen(label));
    write_bytes(&writer, label, strlen(label));
    write_bytes(&writer, "\x04test", 6);
    write_u16(&writer, type);
    write_u16(&writer, CLASS_IN);
    write_bytes(&writer, "\0\0\x29\x04\xd0\0\0\0\0\0\0", 11);
    struct origin origin = {.transport = transport};
    assert_true(address_parse(bench->client, 0, &origin.client) == STATUS_OK);
    return query_begin(bench->resolver, &origin, message, writer_length(&writer), out);
}

[[maybe_unused]] static struct query *ask(struct bench *bench, uint16_t id, const char *label)
{
    struct query *query = NULL;
    assert_true(ask_over(bench, &datagrams, id, label, TYPE_A, &query) == STATUS_OK);
    return query;
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, bench_setup, bench_teardown)

#endif
