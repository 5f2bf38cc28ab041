// SPDX-License-Identifier: Apache-2.0
/* Queries from arrival to reply: begin, and the three ends.
 *
 * Thread: one worker.   Owner: see query.h.
 * RFC:    9715 (size of UDP replies), 7828 3.3.2 (keepalive for TCP clients). */
#include "query/query.h"

#include <assert.h>
#include <stdio.h>

#include "dns/name.h"
#include "net/stream.h"
#include "observe/log.h"
#include "query/lookup.h"

/* The part of timeouts.query that is left for the reply's way to the client. */
enum { QUERY_MARGIN_DIVISOR = 20 };

/* RFC 8767 5, the client response timer; with a short timeouts.query half of that. */
#define SLOW_NS (1800 * NANOSECONDS_PER_MILLISECOND)

void resolver_tell_starved(struct resolver *resolver)
{
    if (!list_is_empty(&resolver->starved) && resolver_has_room(resolver))
        loop_defer(resolver->loop, &resolver->space, LOOP_FLUSH);
}

/* --- Ends --- */

static bool is_full(const struct resolver *resolver)
{
    return resolver->waiting_count == resolver->config->limits.queries;
}

static void give_back(struct resolver *resolver, struct query *query)
{
    assert(!query->lookup && !list_is_linked(&query->waiting));
    list_remove(&query->sibling);
    deadline_cancel(&query->deadline);
    pool_give(&resolver->queries, query);
    if (!list_is_empty(&resolver->starved) && !is_full(resolver))
        loop_defer(resolver->loop, &resolver->space, LOOP_FLUSH);
}

static metric *rcode_counter(struct metrics *metrics, unsigned rcode)
{
    switch (rcode) {
    case RCODE_NOERROR:
        return &metrics->replies_noerror;
    case RCODE_FORMERR:
        return &metrics->replies_formerr;
    case RCODE_SERVFAIL:
        return &metrics->replies_servfail;
    case RCODE_NXDOMAIN:
        return &metrics->replies_nxdomain;
    case RCODE_NOTIMP:
        return &metrics->replies_notimp;
    case RCODE_REFUSED:
        return &metrics->replies_refused;
    default:
        return &metrics->replies_other;
    }
}

/* The most octets that this client can take, and that we are willing to send it. */
static size_t reply_limit(const struct resolver *resolver, const struct query *query)
{
    if (!query->origin.transport->is_datagram)
        return DNS_MESSAGE_MAX;
    const size_t theirs = query->message.udp_size;
    const size_t ours = resolver->config->limits.udp_reply_size;
    return theirs < ours ? theirs : ours;
}

/* What was asked and by whom is told at level debug only (RFC 8932 5.2). */
static void log_reply(const struct query *query, unsigned rcode)
{
    assert(query->message.has_question);
    char client[ADDRESS_TEXT_SIZE];
    char name[DNS_NAME_TEXT_SIZE];
    char type_text[8];
    char rcode_text[8];
    snprintf(type_text, sizeof(type_text), "%u", query->message.question.type);
    snprintf(rcode_text, sizeof(rcode_text), "%u", rcode);
    log_event(LOG_LEVEL_DEBUG, "reply", "client", address_format(&query->origin.client, client),
              "name",
              name_format(query->message.spelling, query->message.question.name_length, name),
              "type", type_text, "rcode", rcode_text, NULL);
}

/* Whether its client is told more than it has said. */
static bool has_gain(const struct reply *reply)
{
    const struct answer *answer = reply->answer;
    return reply->error || (answer && answer->body_length + answer->extended_errors_length > 0);
}

/* Above the rate a forged client gets no more than it sent, and a real one comes back over TCP
 * (FAULTS A17). */
static void limit_rate(struct resolver *resolver, const struct query *query, struct reply *reply)
{
    assert(query->origin.transport->is_datagram && resolver->config->limits.udp_rate > 0);
    if (clients_may_reply(resolver->clients, &query->origin.client, resolver->loop->now) ||
        !has_gain(reply))
        return;
    metric_add(&resolver->metrics->replies_rate_limited, 1);
    *reply = (struct reply){.answer = reply_truncated()};
}

/* The body of a long answer is there once for all clients that get it over streams, whether they
 * have waited for it or it is in the cache (FAULTS K6): then the reply goes around it. NULL: it is
 * copied. The turn pays for it in any case, also when it is cut to a few octets: out of the cache
 * it was copied whole. */
[[gnu::noinline]] static struct body *leave_out_body(struct resolver *resolver,
                                                     const struct query *query, struct reply *reply)
{
    assert(reply->answer && reply->answer->body_length >= SHARED_MIN);
    const struct answer *answer = reply->answer;
    loop_spend(resolver->loop, answer->body_length);
    if (!query->origin.transport->send_around || !reply_fits_around(&query->message, answer))
        return NULL;
    struct body *body = answer->shared
                            ? body_hold(answer->shared)
                            : body_share(&resolver->output, answer->body, answer->body_length);
    if (body)
        reply_leave_out_body(reply, &resolver->around);
    return body;
}

/* The reply lacks the body, which is released. */
static void send_around(struct resolver *resolver, struct query *query, size_t length,
                        struct body *body)
{
    assert(query->origin.transport->send_around && body);
    query->origin.transport->send_around(query, resolver->reply, length,
                                         reply_body_at(&query->message), body);
    body_release(body);
}

/* RFC 7828 3.3.2 */
static void promise_keepalive(const struct resolver *resolver, struct reply *reply)
{
    const uint64_t idle_ns = resolver->config->timeouts.tcp_idle_ns;
    const uint64_t keepalive = idle_ns / (100 * NANOSECONDS_PER_MILLISECOND);
    reply->has_keepalive = true;
    reply->keepalive_100ms = (uint16_t)(keepalive < UINT16_MAX ? keepalive : UINT16_MAX);
}

static void send_reply(struct resolver *resolver, struct query *query, struct reply *reply)
{
    const bool is_datagram = query->origin.transport->is_datagram;
    if (is_datagram && resolver->config->limits.udp_rate > 0)
        limit_rate(resolver, query, reply);
    if (!is_datagram)
        promise_keepalive(resolver, reply);
    reply->limit = reply_limit(resolver, query);
    bool is_truncated = false;
    struct body *body = NULL;
    if (reply->answer && reply->answer->body_length >= SHARED_MIN)
        body = leave_out_body(resolver, query, reply);
    const size_t length = reply_write(&query->message, reply, resolver->reply, &is_truncated);
    assert(length >= DNS_HEADER_SIZE && length <= sizeof(resolver->reply));
    const unsigned rcode = reply->answer ? reply->answer->rcode : reply->rcode;
    metric_add(rcode_counter(resolver->metrics, rcode), 1);
    if (resolver->config->log.level >= LOG_LEVEL_DEBUG && query->message.has_question)
        log_reply(query, rcode);
    if (is_truncated)
        metric_add(&resolver->metrics->replies_truncated, 1);
    if (query->lookup)
        lookup_leave(query);
    loop_spend(resolver->loop, length);
    if (body)
        send_around(resolver, query, length, body);
    else
        query->origin.transport->send(query, resolver->reply, length);
    give_back(resolver, query);
}

void query_answer(struct resolver *resolver, struct query *query, const struct answer *answer,
                  const struct extended_error *error)
{
    assert(answer);
    struct reply reply = {.answer = answer, .error = error};
    send_reply(resolver, query, &reply);
}

void query_truncate(struct resolver *resolver, struct query *query)
{
    assert(query->message.has_question);
    assert(query->origin.transport->is_datagram);
    query_answer(resolver, query, reply_truncated(), NULL);
}

void query_answer_stale(struct resolver *resolver, struct query *query, const struct answer *answer,
                        const char *why)
{
    assert(answer->age == ANSWER_STALE);
    /* RFC 8914 4.4 and 4.20 */
    const struct extended_error error = {
        answer->rcode == RCODE_NXDOMAIN ? EDE_STALE_NXDOMAIN_ANSWER : EDE_STALE_ANSWER, why};
    metric_add(&resolver->metrics->replies_stale, 1);
    query_answer(resolver, query, answer, &error);
}

void query_fail(struct resolver *resolver, struct query *query, enum rcode rcode,
                const struct extended_error *error)
{
    assert(rcode != RCODE_NOERROR || !error);
    struct reply reply = {.rcode = rcode, .error = error};
    send_reply(resolver, query, &reply);
}

void query_drop(struct resolver *resolver, struct query *query)
{
    if (query->lookup)
        lookup_leave(query);
    give_back(resolver, query);
}

/* --- Begin --- */

static struct query *new_query(struct resolver *resolver, const struct origin *origin)
{
    /* Those that are not in hand wait, and of those there are limits.queries at most. */
    struct query *query = pool_take(&resolver->queries);
    assert(query);
    query->origin = *origin;
    query->lookup = NULL;
    query->arrived_ns = resolver->loop->now;
    list_init(&query->waiting);
    list_init(&query->sibling);
    deadline_init(&query->deadline);
    return query;
}

static void drop_unparsed(struct resolver *resolver, struct query *query, metric *counter)
{
    metric_add(counter, 1);
    query_drop(resolver, query);
}

static void hash_and_prefetch(struct resolver *resolver, struct query *query)
{
    const struct question *question = &query->message.question;
    query->hash = resolver->cache ? cache_hash(resolver->cache, question)
                                  : question_hash(&resolver->key, question);
    if (resolver->cache)
        cache_prefetch(resolver->cache, query->hash);
    __builtin_prefetch(&resolver->buckets[query->hash & resolver->bucket_mask]);
}

struct query *query_accept(struct resolver *resolver, const struct origin *origin,
                           const uint8_t *message, size_t length)
{
    assert(origin->transport && origin->transport->send);
    struct query *query = new_query(resolver, origin);
    loop_spend(resolver->loop, 0);
    enum rcode rcode = RCODE_NOERROR;
    switch (message_parse_query(message, length, &query->message, &rcode)) {
    case QUERY_DROP:
        drop_unparsed(resolver, query, &resolver->metrics->dropped_malformed);
        return NULL;
    case QUERY_RESPONSE:
        drop_unparsed(resolver, query, &resolver->metrics->dropped_response);
        return NULL;
    case QUERY_REJECT:
        query_fail(resolver, query, rcode, NULL);
        return NULL;
    case QUERY_ACCEPT:
        break;
    }
    hash_and_prefetch(resolver, query);
    return query;
}

enum status query_resolve(struct resolver *resolver, struct query *query, struct query **out)
{
    bool waits;
    const enum status status = resolve_query(resolver, query, &waits);
    if (status != STATUS_OK)
        query_drop(resolver, query);
    if (out)
        *out = status == STATUS_OK && waits ? query : NULL;
    return status;
}

enum status query_begin(struct resolver *resolver, const struct origin *origin,
                        const uint8_t *message, size_t length, struct query **out)
{
    if (out)
        *out = NULL;
    struct query *query = query_accept(resolver, origin, message, length);
    return query ? query_resolve(resolver, query, out) : STATUS_OK;
}

/* --- The resolver --- */

static void on_query_old(struct deadline *deadline, uint64_t now)
{
    (void)now;
    lookup_grow_old(CONTAINER_OF(deadline, struct query, deadline));
}

static void on_query_slow(struct deadline *deadline, uint64_t now)
{
    (void)now;
    lookup_slow(CONTAINER_OF(deadline, struct query, deadline));
}

static void on_query_deadline(struct deadline *deadline, uint64_t now)
{
    (void)now;
    lookup_expire(CONTAINER_OF(deadline, struct query, deadline));
}

/* Only those that waited when it began: who finds the pool full again waits for the next time. */
static void on_space(struct loop_task *task)
{
    struct resolver *resolver = CONTAINER_OF(task, struct resolver, space);
    struct list waiting;
    list_init(&waiting);
    list_append_all(&waiting, &resolver->starved);
    struct list *link;
    while ((link = list_take_first(&waiting))) {
        struct starved *starved = CONTAINER_OF(link, struct starved, link);
        starved->on_space(starved);
    }
}

void resolver_wait_for_space(struct resolver *resolver, struct starved *starved)
{
    assert(starved->on_space);
    list_remove(&starved->link);
    list_append(&resolver->starved, &starved->link);
    if (!is_full(resolver) && loop_is_spent(resolver->loop)) /* it was the turn that had no room */
        loop_defer(resolver->loop, &resolver->space, LOOP_LEFT_OVER);
}

uint64_t resolver_query_ns(const struct resolver *resolver)
{
    const uint64_t query_ns = resolver->config->timeouts.query_ns;
    return query_ns - query_ns / QUERY_MARGIN_DIVISOR;
}

/* When clients hold more than limits.tcp-memory some go in the next turn. Until then what a turn
 * writes comes on top, in buffers that may be twice as large, and what it reads; whoever wants
 * still more, since so many of them grow at once, is closed (FAULTS K6). */
static size_t output_ceiling(const struct config *config)
{
    return config->limits.tcp_memory_bytes + (size_t)2 * LOOP_BUDGET * LOOP_OCTETS_PER_UNIT +
           (size_t)LOOP_EVENTS * STREAM_IN_MAX;
}

enum status resolver_open(struct resolver *resolver)
{
    const struct config *config = resolver->config;
    assert(resolver->loop && resolver->metrics && !resolver->buckets);
    list_init(&resolver->starved);
    resolver->output.max = config->limits.tcp_memory_bytes;
    resolver->output.ceiling = output_ceiling(config);
    resolver->key = siphash_random_key();
    loop_task_init(&resolver->space, on_space);
    const uint64_t query_ns = resolver_query_ns(resolver);
    const uint64_t slow_ns = SLOW_NS < query_ns / 2 ? SLOW_NS : query_ns / 2;
    const uint64_t young_ns = YOUNG_NS < slow_ns / 2 ? YOUNG_NS : slow_ns / 2;
    loop_add_queue(resolver->loop, &resolver->young_queries, young_ns, on_query_old);
    loop_add_queue(resolver->loop, &resolver->slow_queries, slow_ns - young_ns, on_query_slow);
    loop_add_queue(resolver->loop, &resolver->query_deadlines, query_ns - slow_ns,
                   on_query_deadline);
    TRY(clients_open(config, &resolver->clients));
    TRY(pool_open(&resolver->queries, sizeof(struct query),
                  config->limits.queries + QUERIES_IN_HAND_MAX));
    return lookups_open(resolver);
}

size_t resolver_ceiling(const struct resolver *resolver)
{
    assert(resolver->buckets && resolver->clients);
    return sizeof(*resolver) + pool_ceiling(&resolver->queries) + pool_ceiling(&resolver->lookups) +
           (resolver->bucket_mask + 1) * sizeof(resolver->buckets[0]) +
           clients_ceiling(resolver->clients);
}

void resolver_abort(struct resolver *resolver)
{
    struct list *queues[] = {&resolver->young_queries.armed, &resolver->slow_queries.armed,
                             &resolver->query_deadlines.armed};
    for (size_t i = 0; i < sizeof(queues) / sizeof(queues[0]); i++)
        while (!list_is_empty(queues[i]))
            query_drop(resolver, CONTAINER_OF(queues[i]->next, struct query, deadline.link));
    lookups_abort(resolver);
}

void resolver_close(struct resolver *resolver)
{
    assert(resolver->waiting_count == 0 && resolver->ended_count == 0);
    loop_remove_queue(&resolver->young_queries);
    loop_remove_queue(&resolver->slow_queries);
    loop_remove_queue(&resolver->query_deadlines);
    lookups_close(resolver);
    pool_close(&resolver->queries);
    clients_close(resolver->clients);
}
