// SPDX-License-Identifier: Apache-2.0
/* Sending requests: the first to whom the strategy chooses, then to others.
 *
 * Hedges: a late request is sent a second time, to another upstream that is ready and not busy.
 * Each request earns a share of a hedge, so that they are at most 5 % more; half of what is saved
 * up is for silences alone, lest the ordinary slow answers spend it before one comes. A request
 * that has had timeouts.request is lost, and another upstream is asked without regard to the
 * budget; with none left to ask, one that was asked before, alone.
 *
 * Thread: one worker.   Owner of a request: see request.h.
 * RFC:    9520 3.1 (at most three attempts an upstream for one ask). */
#include "upstream/submit.h"

#include <assert.h>

#include "upstream/choose.h"

#define SLOW_NS (50 * NANOSECONDS_PER_MILLISECOND) /* of silence are no reason to connect */

/* A request that is no hedge was sent. */
static void earn_hedge(struct group *group)
{
    group->hedge_credit += group->hedge_credit < HEDGE_BURST * HEDGE_COST;
}

static struct upstream *choose_upstream(struct group *group, const struct request *request,
                                        enum request_scope scope)
{
    const struct attempts *attempts = request->attempts;
    upstream_set exhausted = attempts_exhausted(attempts);
    if (scope == REQUEST_CALM)
        LIST_EACH (const struct upstream, other, &group->upstreams, link)
            if (!upstream_is_calm(other))
                exhausted |= upstream_bit(other->path.slot);
    struct upstream *upstream = choose_usable(group, attempts->once | exhausted, request->question);
    if (!upstream && scope == REQUEST_ANYWHERE)
        upstream = choose_usable(group, attempts->twice | exhausted, request->question);
    if (upstream && scope == REQUEST_CALM && !upstream_is_ready(upstream))
        return NULL;
    return upstream;
}

/* What is told when nobody can be asked: what happened when somebody was last asked. */
static enum failure last_failure(const struct group *group, size_t *slot)
{
    const struct upstream *last = NULL;
    LIST_EACH (const struct upstream, upstream, &group->upstreams, link)
        if (!last || upstream->attempted_ns > last->attempted_ns)
            last = upstream;
    if (!last) /* memory was short */
        return FAILURE_LOCAL;
    *slot = last->path.slot;
    if (last->path.last_failure == FAILURE_NONE)
        return name_is_unknown(last->name) ? FAILURE_NAME_LOOKUP : FAILURE_BACKING_OFF;
    return last->path.last_failure;
}

enum status request_submit(struct group *group, struct request *request, enum request_scope scope,
                           enum failure *failure)
{
    assert(!request->connection && !list_is_linked(&request->link));
    bool was_tried = false;
    bool is_crowded = false;
    struct upstream *upstream;
    request->is_hedge = false;
    /* Not for its own failure (FAULTS F4), nor for the lookup of a name, which is no traffic. */
    if (request->attempts->once == 0 && request->attempts->count == 0)
        group_note_traffic(group);
    const upstream_set once = request->attempts->once;
    const upstream_set twice = request->attempts->twice;
    while ((upstream = choose_upstream(group, request, scope))) {
        was_tried = true;
        attempts_choose(request->attempts, upstream->path.slot);
        request->upstream = upstream->path.slot;
        const enum status status = upstream_submit(upstream, request, failure);
        if (status == STATUS_OK) {
            earn_hedge(group);
            return STATUS_OK;
        }
        is_crowded = is_crowded || status == STATUS_AGAIN;
    }
    if (is_crowded) {
        request->attempts->once = once;
        request->attempts->twice = twice;
        return STATUS_FULL;
    }
    if (!was_tried)
        *failure = last_failure(group, &request->upstream);
    return STATUS_NOT_FOUND;
}

/* One that was not asked yet, if there is one. */
static struct upstream *choose_alone(struct group *group, const struct request *request,
                                     upstream_set excluded, upstream_set avoided)
{
    const upstream_set without[] = {avoided | request->attempts->once, avoided, 0};
    struct upstream *upstream = NULL;
    for (size_t i = 0; !upstream && i < sizeof(without) / sizeof(without[0]); i++)
        upstream = choose_usable(group, excluded | without[i], request->question);
    return upstream;
}

enum status request_submit_alone(struct group *group, struct request *request, upstream_set avoided,
                                 enum lane_kind kind)
{
    upstream_set excluded = attempts_exhausted(request->attempts);
    enum status status = STATUS_NOT_FOUND;
    struct upstream *upstream;
    assert(!request->connection);
    request->is_hedge = false;
    while ((upstream = choose_alone(group, request, excluded, avoided))) {
        if (lane_submit(upstream, request, kind) == STATUS_OK) {
            attempts_choose(request->attempts, upstream->path.slot);
            earn_hedge(group);
            return STATUS_OK;
        }
        status = STATUS_FULL;
        excluded |= upstream_bit(upstream->path.slot);
    }
    return status;
}

/* --- Hedges --- */

/* A hedge is worth nothing behind another wait, so only upstreams that are ready will do; for a
 * request that was never sent also one that is on its way. With none that is ready one is made so,
 * for it may have been idle, and the request is told late again. */
static struct upstream *choose_for_hedge(struct group *group, const struct request *late,
                                         bool is_sent)
{
    const upstream_set asked = late->attempts->once | attempts_exhausted(late->attempts);
    struct upstream *upstream = choose_idle(group, asked, late->question);
    if (upstream)
        return upstream;
    upstream = choose_usable(group, asked, late->question);
    if (!is_sent)
        return upstream;
    if (upstream)
        upstream_warm(upstream);
    return NULL;
}

/* Its answer is not only late: a query that waits for it would wait in vain. */
bool request_is_lost(const struct group *group, const struct request *request)
{
    assert(group->loop->now >= request->sent_ns);
    return group->loop->now - request->sent_ns >= group->snapshot->timeouts.request_ns;
}

/* What is lost may be asked once more, in the end where it was asked before (RFC 9520 3.1), and
 * alone: where answers come in the order of the questions it would only wait behind the same one
 * again. Of lanes there are few, so that an upstream that is merely slow does not get all twice. */
static enum status ask_once_more(struct group *group, struct request *request)
{
    return request_submit_alone(group, request, 0, LANE_LOST);
}

/* With nobody else to ask, the same upstream on another connection: it is of use when not even a
 * probe on the first is answered, not when merely this answer is slow. */
static bool may_be_hedged_beside(const struct request *late, bool is_sent)
{
    struct connection *connection = late->connection;
    struct upstream *upstream = upstream_of(connection->path);
    if (!path_is_usable(&upstream->path) ||
        attempts_exhausted(late->attempts) & upstream_bit(upstream->path.slot))
        return false;
    if (!is_sent)
        return upstream_is_ready(upstream);
    if (late->attempts->two & upstream_bit(upstream->path.slot))
        return false; /* the last time it is asked alone */
    const upstream_set asked = late->attempts->once | attempts_exhausted(late->attempts);
    if (choose_usable(upstream->group, asked, late->question))
        return false; /* which is made ready */
    if (connection->silent_since_ns == 0 ||
        connection->last_message_ns > connection->silent_since_ns)
        return false;
    connection_probe(connection); /* unless it is out already */
    if (upstream->path.loop->now - connection->probe_sent_ns < SLOW_NS)
        return false;
    if (!upstream_is_ready(upstream))
        upstream_open_second(upstream);
    return upstream_is_ready(upstream);
}

/* Half of what is saved up is for silent connections. */
static bool spend_hedge(struct group *group, const struct request *late)
{
    assert(late->connection);
    uint32_t needed = HEDGE_COST;
    if (late->connection->silent_since_ns == 0)
        needed += HEDGE_BURST * HEDGE_COST / 2;
    if (group->hedge_credit < needed) {
        metric_add(&group->metrics->hedges_denied, 1);
        return false;
    }
    group->hedge_credit -= HEDGE_COST;
    return true;
}

enum status request_hedge(struct group *group, struct request *late, struct request *second)
{
    assert(late->connection && !second->connection && late->attempts == second->attempts);
    const bool is_sent = late->connection->state >= CONNECTION_READY;
    const bool is_lost = request_is_lost(group, late);
    struct upstream *upstream = choose_for_hedge(group, late, is_sent);
    enum failure failure;
    if (!upstream && is_lost)
        return ask_once_more(group, second);
    const bool is_beside = !upstream && may_be_hedged_beside(late, is_sent);
    if (!upstream && !is_beside)
        return STATUS_NOT_FOUND;
    if (is_sent && !is_lost && !spend_hedge(group, late))
        return STATUS_FULL;
    second->is_hedge = true;
    TRY(upstream_submit(upstream ? upstream : upstream_of(late->connection->path), second,
                        &failure));
    if (upstream)
        attempts_choose(second->attempts, upstream->path.slot);
    else if (!is_sent)
        request_cancel(late); /* one server is not told twice in one moment */
    return STATUS_OK;
}

/* It waits for a handshake, or for an answer that is lost. */
static bool is_in_vain(const struct group *group, const struct request *request)
{
    return request->connection->state < CONNECTION_READY || request_is_lost(group, request);
}

enum status request_move(struct group *group, struct request *lost, const struct request *other)
{
    assert(lost->connection && other->connection);
    const bool is_lost = request_is_lost(group, lost);
    if (!is_lost && !(is_in_vain(group, lost) && is_in_vain(group, other)))
        return STATUS_NOT_FOUND;
    struct upstream *upstream = choose_for_hedge(group, lost, true);
    enum failure failure;
    if (!upstream && !(is_lost && request_is_lost(group, other) &&
                       choose_usable(group, attempts_exhausted(lost->attempts), lost->question)))
        return STATUS_NOT_FOUND;
    request_cancel(lost);
    const enum status status = is_lost ? ask_once_more(group, lost) : STATUS_NOT_FOUND;
    if (status == STATUS_OK || !upstream)
        return status;
    lost->is_hedge = true;
    attempts_choose(lost->attempts, upstream->path.slot);
    return upstream_submit(upstream, lost, &failure);
}
