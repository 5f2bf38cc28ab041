// SPDX-License-Identifier: Apache-2.0
/* The three ends of a query, and how its reply looks.
 *
 * Thread: one worker.   Owner: see query.h.
 * RFC:    9715 (size of UDP replies), 7828 3.3.2 (keepalive for TCP clients). */
#include "query/query.h"

#include <assert.h>
#include <stdio.h>

#include "dns/name.h"
#include "net/stream.h"
#include "observe/log.h"

/* The part of timeouts.query that is left for the reply's way to the client. */
enum { QUERY_MARGIN_DIVISOR = 20 };

void resolver_tell_starved(struct resolver *resolver)
{
    if (!list_is_empty(&resolver->starved) && resolver_has_room(resolver))
        loop_defer(resolver->loop, &resolver->space, LOOP_FLUSH);
}

/* --- Ends --- */

void query_forget(struct resolver *resolver, struct query *query)
{
    assert(!query->lookup && !list_is_linked(&query->waiting));
    list_remove(&query->sibling);
    deadline_cancel(&query->deadline);
    pool_give(&resolver->queries, query);
    if (!list_is_empty(&resolver->starved) && !resolver_is_full(resolver))
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
    const size_t ours = resolver->snapshot->limits.udp_reply_size;
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
    const uint64_t idle_ns = resolver->snapshot->timeouts.tcp_idle_ns;
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
    if (resolver->snapshot->log_level >= LOG_LEVEL_DEBUG && query->message.has_question)
        log_reply(query, rcode);
    if (is_truncated)
        metric_add(&resolver->metrics->replies_truncated, 1);
    loop_spend(resolver->loop, length);
    if (body)
        send_around(resolver, query, length, body);
    else
        query->origin.transport->send(query, resolver->reply, length);
    query_forget(resolver, query);
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

uint64_t resolver_query_ns(const struct resolver *resolver)
{
    const uint64_t query_ns = resolver->snapshot->timeouts.query_ns;
    return query_ns - query_ns / QUERY_MARGIN_DIVISOR;
}
