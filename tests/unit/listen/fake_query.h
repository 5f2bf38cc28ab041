// SPDX-License-Identifier: Apache-2.0
/* The query layer as the listeners see it, under the test's thumb: what a message does is told by
 * the first letter of its name. "a..." is answered at once, "w..." waits until the test answers,
 * everything else is dropped. */
#ifndef TESTS_UNIT_LISTEN_FAKE_QUERY_H
#define TESTS_UNIT_LISTEN_FAKE_QUERY_H

#include "test.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "query/resolve.h"

enum { QUESTION_SIZE = 6 + 4, QUERY_SIZE = DNS_HEADER_SIZE + QUESTION_SIZE };

static struct {
    struct config config;
    struct loop loop;
    struct resolver resolver;
    struct list waiting;
    size_t begun;
    size_t dropped;
    size_t last_length;
    struct origin last_origin;
    size_t reply_length;     /* of replies given at once and by fake_answer */
    uintptr_t stack_highest; /* of all query_begin */
    uintptr_t stack_lowest;
} fake;

static void fake_on_space(struct loop_task *task)
{
    (void)task;
    struct list starved;
    list_init(&starved);
    list_append_all(&starved, &fake.resolver.starved);
    struct list *link;
    while ((link = list_take_first(&starved))) {
        struct starved *next = CONTAINER_OF(link, struct starved, link);
        next->on_space(next);
    }
}

static void fake_open(void)
{
    memset(&fake, 0, sizeof(fake));
    fake.config.limits.queries = 1000;
    fake.config.snapshot.limits.udp_reply_size = 4096;
    fake.config.limits.tcp_clients = 8;
    fake.config.snapshot.limits.tcp_clients_per_address = 8;
    fake.config.snapshot.limits.tcp_queries = 100;
    fake.config.limits.tcp_memory_bytes = 32 << 20;
    fake.config.snapshot.timeouts.tcp_idle_ns = 60 * NANOSECONDS_PER_SECOND;
    fake.config.snapshot.timeouts.tcp_message_ns = 60 * NANOSECONDS_PER_SECOND;
    fake.config.snapshot.timeouts.tcp_send_ns = 60 * NANOSECONDS_PER_SECOND;
    assert_int_equal(loop_open(&fake.loop), STATUS_OK);
    fake.resolver.config = &fake.config;
    fake.resolver.snapshot = &fake.config.snapshot;
    fake.resolver.loop = &fake.loop;
    fake.resolver.metrics = metrics_open(1);
    assert_non_null(fake.resolver.metrics);
    list_init(&fake.waiting);
    list_init(&fake.resolver.starved);
    loop_task_init(&fake.resolver.space, fake_on_space);
    fake.stack_lowest = UINTPTR_MAX;
}

/* Once the test has written its limits. */
static void fake_start(void)
{
    assert_int_equal(pool_open(&fake.resolver.queries, sizeof(struct query),
                               fake.config.limits.queries + QUERIES_IN_HAND_MAX),
                     STATUS_OK);
    fake.resolver.output.max = fake.config.limits.tcp_memory_bytes;
    fake.resolver.output.ceiling = fake.resolver.output.max + (32 << 20);
    assert_int_equal(clients_open(&fake.config, &fake.resolver.clients), STATUS_OK);
}

static void fake_close(void)
{
    clients_close(fake.resolver.clients);
    pool_close(&fake.resolver.queries); /* asserts that every query has come home */
    metrics_close(fake.resolver.metrics);
    loop_close(&fake.loop);
}

static void fake_give_back(struct query *query)
{
    fake.resolver.waiting_count -= list_is_linked(&query->waiting);
    list_remove(&query->waiting);
    list_remove(&query->sibling);
    pool_give(&fake.resolver.queries, query);
    if (!list_is_empty(&fake.resolver.starved))
        loop_defer(&fake.loop, &fake.resolver.space, LOOP_FLUSH);
}

/* The reply is the header and question of the query, then bytes that count up. */
static void fake_answer(struct query *query)
{
    uint8_t *reply = fake.resolver.reply;
    const size_t length = fake.reply_length ? fake.reply_length : QUERY_SIZE;
    for (size_t i = QUERY_SIZE; i < length; i++)
        reply[i] = (uint8_t)i;
    memset(reply, 0, DNS_HEADER_SIZE);
    store_u16(reply, query->message.id);
    store_u16(reply + 2, DNS_FLAG_QR | DNS_FLAG_RA);
    store_u16(reply + 4, 1);
    store_u16(reply + 6, length > QUERY_SIZE);
    memcpy(reply + DNS_HEADER_SIZE, query->message.spelling, QUESTION_SIZE);
    loop_spend(&fake.loop, length);
    query->origin.transport->send(query, reply, length);
    fake_give_back(query);
}

/* The query that has waited longest for the `index`-th time. */
static struct query *fake_waiting(size_t index)
{
    struct list *link = fake.waiting.next;
    while (index-- > 0 && link != &fake.waiting)
        link = link->next;
    assert_ptr_not_equal(link, &fake.waiting);
    return CONTAINER_OF(link, struct query, waiting);
}

static size_t fake_waiting_count(void)
{
    size_t count = 0;
    for (struct list *link = fake.waiting.next; link != &fake.waiting; link = link->next)
        count++;
    return count;
}

static void fake_note_stack(void)
{
    const uintptr_t here = (uintptr_t)__builtin_frame_address(0);
    fake.stack_highest = here > fake.stack_highest ? here : fake.stack_highest;
    fake.stack_lowest = here < fake.stack_lowest ? here : fake.stack_lowest;
}

struct query *query_accept(struct resolver *resolver, const struct origin *origin,
                           const uint8_t *message, size_t length)
{
    struct query *query = pool_take(&resolver->queries);
    assert_non_null(query);
    fake_note_stack();
    loop_spend(&fake.loop, 0);
    fake.begun++;
    fake.last_length = length;
    fake.last_origin = *origin;
    query->origin = *origin;
    list_init(&query->waiting);
    list_init(&query->sibling);
    const char kind = length < QUERY_SIZE ? 'd' : (char)message[DNS_HEADER_SIZE + 1];
    if (kind != 'a' && kind != 'w') {
        query_drop(resolver, query);
        return NULL;
    }
    query->message.id = load_u16(message);
    query->message.question.name_length = 6;
    memcpy(query->message.spelling, message + DNS_HEADER_SIZE, QUESTION_SIZE);
    return query;
}

enum status query_resolve(struct resolver *resolver, struct query *query, struct query **out)
{
    if (out)
        *out = NULL;
    if (query->message.spelling[1] == 'a') {
        fake_answer(query);
        return STATUS_OK;
    }
    if (resolver->waiting_count == resolver->config->limits.queries) {
        fake_give_back(query);
        return STATUS_FULL;
    }
    resolver->waiting_count++;
    list_append(&fake.waiting, &query->waiting);
    if (out)
        *out = query;
    return STATUS_OK;
}

enum status query_begin(struct resolver *resolver, const struct origin *origin,
                        const uint8_t *message, size_t length, struct query **out)
{
    if (out)
        *out = NULL;
    struct query *query = query_accept(resolver, origin, message, length);
    return query ? query_resolve(resolver, query, out) : STATUS_OK;
}

void query_drop(struct resolver *resolver, struct query *query)
{
    (void)resolver;
    fake.dropped++;
    fake_give_back(query);
}

void resolver_wait_for_space(struct resolver *resolver, struct starved *starved)
{
    list_append(&resolver->starved, &starved->link);
}

/* Writes a query for the name "<kind>aaa." and returns its length. */
static size_t fake_query(uint8_t *out, uint16_t id, char kind)
{
    const uint8_t question[QUESTION_SIZE] = {4, (uint8_t)kind, 'a', 'a', 'a', 0, 0, 1, 0, 1};
    memset(out, 0, DNS_HEADER_SIZE);
    store_u16(out, id);
    store_u16(out + 2, DNS_FLAG_RD);
    store_u16(out + 4, 1);
    memcpy(out + DNS_HEADER_SIZE, question, sizeof(question));
    return QUERY_SIZE;
}

/* Turns the loop until `condition`, for ten seconds at most. */
#define TURN_UNTIL(condition)                                                   \
    do {                                                                        \
        const uint64_t give_up_ns = loop_clock() + 10 * NANOSECONDS_PER_SECOND; \
        while (!(condition)) {                                                  \
            assert_true(loop_turn(&fake.loop, NANOSECONDS_PER_MILLISECOND));    \
            if (loop_clock() > give_up_ns)                                      \
                fail_msg("waited in vain for: %s", #condition);                 \
        }                                                                       \
    } while (0)

#define METRIC(field) metric_get(&fake.resolver.metrics->field)

#endif
