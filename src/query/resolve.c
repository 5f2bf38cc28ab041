// SPDX-License-Identifier: Apache-2.0
/* The whole story of an accepted query: policy, cache, lookup.
 *
 * Thread: one worker.
 * RFC:    8767 (stale answers), 8914 (why it was refused or failed), 9520 (failures are cached). */
#include "dns/self_probe.h"
#include "query/lookup.h"
#include "query/policy.h"

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

enum status resolve_query(struct resolver *resolver, struct query *query, bool *waits)
{
    static const struct extended_error prohibited = {EDE_PROHIBITED,
                                                     "your address is not in `allow`"};
    struct answer answer;
    *waits = false;

    switch (policy_judge(resolver->config, query)) {
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
