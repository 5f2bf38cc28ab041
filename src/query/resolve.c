// SPDX-License-Identifier: Apache-2.0
/* The whole story of an accepted query: policy, cache, lookup.
 *
 * Thread: one worker.
 * RFC:    8914 (why it was refused or failed), 9520 (failures are cached, too). */
#include "query/lookup.h"
#include "query/policy.h"

/* An answer for `query` from the cache, in `answer` and the resolver's scratch. */
static bool is_cached(struct resolver *resolver, const struct query *query, struct answer *answer)
{
    if (!resolver->cache)
        return false;
    const enum status status = cache_find(resolver->cache, &query->message.question, query->hash,
                                          resolver->loop->now, resolver->body, answer);
    metric_add(
        status == STATUS_OK ? &resolver->metrics->cache_hits : &resolver->metrics->cache_misses, 1);
    return status == STATUS_OK;
}

enum status resolve_query(struct resolver *resolver, struct query *query, bool *waits)
{
    static const struct extended_error prohibited = {EDE_PROHIBITED,
                                                     "your address is not in `allow`"};
    static const struct extended_error cached_error = {EDE_CACHED_ERROR, NULL};
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
    case POLICY_RESOLVE:
        break;
    }
    if (is_cached(resolver, query, &answer)) {
        /* RFC 8914 4.14: "Cached Error" belongs to SERVFAIL. */
        query_answer(resolver, query, &answer,
                     answer.rcode == RCODE_SERVFAIL ? &cached_error : NULL);
        return STATUS_OK;
    }
    /* Only now: a flood of questions that nobody answers leaves the answers at hand (FAULTS I4). */
    if (resolver->waiting_count == resolver->config->limits.queries)
        return STATUS_FULL;
    *waits = lookup_join_or_start(resolver, query);
    return STATUS_OK;
}
