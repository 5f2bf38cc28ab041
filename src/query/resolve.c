// SPDX-License-Identifier: Apache-2.0
/* The whole story of a query: arrival, policy, cache, lookup; and the resolver that has them all.
 *
 * Thread: one worker.
 * RFC:    8767 (stale answers), 8914 (why it was refused or failed), 9520 (failures are cached). */
#include "query/resolve.h"

#include <assert.h>

#include "dns/self_probe.h"
#include "net/stream.h"
#include "query/lookup.h"
#include "query/policy.h"

/* RFC 8767 5, the client response timer; with a short timeouts.query half of that. */
#define SLOW_NS (1800 * NANOSECONDS_PER_MILLISECOND)

/* An answer for `query` from the cache, in `answer` and the resolver's scratch. */
static bool is_cached(struct resolver *resolver, const struct query *query, struct answer *answer)
{
    if (!resolver->cache)
        return false;
    const enum status status = cache_find(resolver->cache, &query->message.question, query->hash,
                                          resolver->loop->now, resolver->body, answer);
    if (status != STATUS_OK)
        metric_add(&resolver->metrics->cache_misses, 1);
    return status == STATUS_OK;
}

/* Ends the query with what the cache had. */
static void answer_cached(struct resolver *resolver, struct query *query,
                          const struct answer *answer)
{
    static const struct extended_error cached_error = {EDE_CACHED_ERROR, NULL};
    if (answer->age == ANSWER_STALE) {
        metric_add(&resolver->metrics->cache_stale, 1);
        query_answer_stale(resolver, query, answer, NULL);
        return;
    }
    metric_add(&resolver->metrics->cache_hits, 1);
    if (answer->age == ANSWER_AGEING)
        lookup_refresh(resolver, &query->message.question, query->hash);
    /* RFC 8914 4.14: "Cached Error" belongs to SERVFAIL. */
    query_answer(resolver, query, answer, answer->rcode == RCODE_SERVFAIL ? &cached_error : NULL);
}

/* An upstream of ours asks us whether it is us (FAULTS G11); false when it does not. Apart, so that
 * resolve_query has no room to make for the answer. */
[[gnu::noinline]] static bool answer_self_probe(struct resolver *resolver, struct query *query)
{
    const struct question *question = &query->message.question;
    if (!resolver->self_key || !self_probe_is_ours(resolver->self_key, question))
        return false;
    struct self_probe_answer probe;
    self_probe_make_answer(resolver->self_key, question, &probe);
    query_answer(resolver, query, &probe.answer, NULL);
    return true;
}

/* Whether there is a place for one more query that waits, if need be since another gives its own.
 */
static bool find_place(struct resolver *resolver, const struct query *query)
{
    const struct address *client = &query->origin.client;
    const bool is_datagram = query->origin.transport->is_datagram;
    if (!is_datagram && clients_holds_back(resolver->clients, client, resolver->waiting_count))
        return false;
    if (resolver->waiting_count < resolver->config->limits.queries)
        return true;
    struct place *place = clients_choose(resolver->clients, client, is_datagram);
    if (place)
        lookup_give_way(CONTAINER_OF(place, struct query, place));
    return place != NULL;
}

/* A miss waits, unless no more may: then a datagram is sent to TCP, and a stream is not read. */
static enum status wait_for_answer(struct resolver *resolver, struct query *query, bool *waits)
{
    const bool is_datagram = query->origin.transport->is_datagram;
    if (is_datagram && lookup_repeat(resolver, query)) { /* it has a place, and its age */
        query_forget(resolver, query);
        return STATUS_OK;
    }
    const bool has_place = find_place(resolver, query);
    if (!has_place && !is_datagram)
        return STATUS_FULL;
    if (!has_place || !clients_enter(resolver->clients, &query->place, &query->origin.client,
                                     is_datagram, resolver->waiting_count)) {
        metric_add(has_place ? &resolver->metrics->replies_wait_limited
                             : &resolver->metrics->replies_full,
                   1);
        query_truncate(resolver, query);
        return STATUS_OK;
    }
    *waits = lookup_join_or_start(resolver, query);
    return STATUS_OK;
}

static enum status resolve_query(struct resolver *resolver, struct query *query, bool *waits)
{
    static const struct extended_error prohibited = {EDE_PROHIBITED,
                                                     "your address is not in `allow`"};
    struct answer answer;
    *waits = false;

    switch (policy_judge(resolver->snapshot, query)) {
    case POLICY_REFUSE:
        query_fail(resolver, query, RCODE_REFUSED, &prohibited);
        return STATUS_OK;
    case POLICY_NODATA:
        query_fail(resolver, query, RCODE_NOERROR, NULL);
        return STATUS_OK;
    case POLICY_MINIMAL_ANY:
        query_answer(resolver, query, reply_minimal_any(), NULL);
        return STATUS_OK;
    case POLICY_TRUNCATE:
        query_truncate(resolver, query);
        return STATUS_OK;
    case POLICY_RESOLVE:
        break;
    }
    if (is_cached(resolver, query, &answer)) {
        answer_cached(resolver, query, &answer);
        return STATUS_OK;
    }
    /* Only for a miss, and before any limit: nobody waits for it. */
    if (query->message.question.name_length == SELF_PROBE_NAME_LENGTH &&
        answer_self_probe(resolver, query))
        return STATUS_OK;
    /* Only now: a flood of questions that nobody answers leaves the answers at hand (FAULTS I4). */
    return wait_for_answer(resolver, query, waits);
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
    query_forget(resolver, query);
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
        query_forget(resolver, query);
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

void query_drop(struct resolver *resolver, struct query *query)
{
    if (query->lookup)
        lookup_leave(query);
    query_forget(resolver, query);
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
    if (!resolver_is_full(resolver) &&
        loop_is_spent(resolver->loop)) /* it was the turn that had no room */
        loop_defer(resolver->loop, &resolver->space, LOOP_LEFT_OVER);
}

/* When clients hold more than limits.tcp-memory some go in the next turn. Until then what a turn
 * writes comes on top, in buffers that may be twice as large, and what it reads; whoever wants
 * still more, since so many of them grow at once, is closed (FAULTS K6). */
static size_t output_ceiling(const struct config *config)
{
    return config->limits.tcp_memory_bytes + (size_t)2 * LOOP_BUDGET * LOOP_OCTETS_PER_UNIT +
           (size_t)LOOP_EVENTS * STREAM_IN_MAX;
}

/* Of the three parts of a query's time, and of a lookup without queries. */
static void set_durations(struct resolver *resolver)
{
    const uint64_t query_ns = resolver_query_ns(resolver);
    const uint64_t slow_ns = SLOW_NS < query_ns / 2 ? SLOW_NS : query_ns / 2;
    const uint64_t young_ns = YOUNG_NS < slow_ns / 2 ? YOUNG_NS : slow_ns / 2;
    resolver->young_queries.duration_ns = young_ns;
    resolver->slow_queries.duration_ns = slow_ns - young_ns;
    resolver->query_deadlines.duration_ns = query_ns - slow_ns;
    resolver->alone_lookups.duration_ns = query_ns;
}

enum status resolver_open(struct resolver *resolver)
{
    const struct config *config = resolver->config;
    assert(resolver->loop && resolver->metrics && !resolver->buckets);
    resolver->snapshot = &config->snapshot;
    list_init(&resolver->starved);
    resolver->output.max = config->limits.tcp_memory_bytes;
    resolver->output.ceiling = output_ceiling(config);
    resolver->key = siphash_random_key();
    loop_task_init(&resolver->space, on_space);
    loop_add_queue(resolver->loop, &resolver->young_queries, 0, on_query_old);
    loop_add_queue(resolver->loop, &resolver->slow_queries, 0, on_query_slow);
    loop_add_queue(resolver->loop, &resolver->query_deadlines, 0, on_query_deadline);
    set_durations(resolver);
    TRY(clients_open(config, &resolver->clients));
    TRY(pool_open(&resolver->queries, sizeof(struct query),
                  config->limits.queries + QUERIES_IN_HAND_MAX));
    return lookups_open(resolver);
}

void resolver_reload(struct resolver *resolver, const struct snapshot *snapshot,
                     upstream_set changed)
{
    assert(snapshot && resolver->snapshot);
    resolver->snapshot = snapshot;
    set_durations(resolver);
    lookups_reload(resolver, changed);
    clients_reload(resolver->clients, snapshot);
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
