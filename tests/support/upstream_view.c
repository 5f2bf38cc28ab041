// SPDX-License-Identifier: Apache-2.0
#include "upstream_view.h"

#include <arpa/inet.h>

#include "upstream/ask.h"
#include "upstream/group.h"

enum { TRIALS_MAX = 4 };

/* --- Slots --- */

static const char *flaw_of_slots(const struct connection *connection)
{
    const size_t count = connection->slots.used;
    const size_t all = connection->slots.count;
    size_t in_flight = 0;
    size_t abandoned = 0;
    size_t free_slots = 0;
    for (size_t i = 0; i < count; i++) {
        in_flight += connection->slots.table[i].request != NULL;
        abandoned += connection->slots.table[i].is_abandoned;
    }
    for (size_t i = connection->slots.first_free; i < all; i = connection->slots.table[i].next_free)
        if (++free_slots > count)
            return "the free slots go in a circle";
    if (in_flight != connection->in_flight || abandoned != connection->abandoned)
        return "other requests and abandoned IDs are in the slots than are counted";
    if (in_flight + abandoned == all && !connection_is_probed(connection))
        return "no slot is kept for our probe";
    if (in_flight + abandoned + free_slots != count)
        return "a slot is neither in flight nor abandoned nor free, or twice so";
    return NULL;
}

const char *view_flaw(const struct group *group)
{
    const char *flaw = NULL;
    for (size_t i = 0; i < CONFIG_UPSTREAM_SLOTS; i++) {
        if (!group->slots[i])
            continue;
        LIST_EACH (struct connection, connection, &group->slots[i]->connections, link)
            flaw = flaw ? flaw : flaw_of_slots(connection);
        LIST_EACH (struct connection, lane, &group->slots[i]->lanes, link)
            flaw = flaw ? flaw : flaw_of_slots(lane);
    }
    return flaw;
}

/* --- Upstreams, connections, requests --- */

/* One of its connections is heard, whether or not it has room: full is not down. */
static bool is_heard(const struct upstream *upstream)
{
    LIST_EACH (struct connection, connection, &upstream->connections, link)
        if (connection_takes_requests(connection) && connection->state == CONNECTION_READY &&
            connection->silent_since_ns == 0)
            return true;
    return false;
}

static enum view_health health_of(const struct upstream *upstream)
{
    if (upstream->path.is_leaving)
        return HEALTH_GONE;
    if (upstream->path.down)
        return HEALTH_DOWN;
    if (upstream->path.is_doubted)
        return HEALTH_DOUBTED;
    return tally_of(&upstream->connections).silent > 0 && !is_heard(upstream) ? HEALTH_SILENT
                                                                              : HEALTH_UP;
}

/* More than the limit only on trial, while all upstreams are down. */
static size_t main_max(const struct upstream *upstream)
{
    const size_t limit = upstream->path.config->limits.upstream_connections;
    return (limit > TRIALS_MAX ? limit : TRIALS_MAX) + TRIALS_MAX + 1;
}

static struct upstream_view view_upstream(const struct upstream *upstream)
{
    return (struct upstream_view){
        .health = health_of(upstream),
        .is_calm = upstream_is_calm(upstream),
        .is_contradicted = upstream->path.contradicted > 0,
        .has_erred = upstream->path.errors > 0,
        .failures = upstream->path.failures,
        .in_flight = upstream->path.in_flight,
        .own = upstream->self_check.request.connection != NULL,
        .main_max = main_max(upstream),
        .late_ns = upstream->path.late.duration_ns,
        .dead_ns =
            times_dead_ns(&upstream->path.times, upstream->path.snapshot->timeouts.request_ns),
        .source = upstream->route.is_there ? ntohl(upstream->route.source.v4.sin_addr.s_addr) : 0,
    };
}

/* The states of a connection are its phases; none that is CLOSED is in a list. */
static_assert((int)CONNECTION_CONNECTING == PHASE_CONNECTING &&
              (int)CONNECTION_HANDSHAKING == PHASE_HANDSHAKING &&
              (int)CONNECTION_READY == PHASE_READY && (int)CONNECTION_DRAINING == PHASE_DRAINING);

static struct connection_view view_connection(const struct connection *connection)
{
    return (struct connection_view){
        .identity = connection,
        .upstream = connection->path->slot,
        .phase = (enum view_phase)connection->state,
        .fd = connection->stream.fd,
        .is_open = connection->stream.state == STREAM_OPEN,
        .takes_requests = connection_takes_requests(connection),
        .has_room = connection_has_room(connection),
        .is_silent = connection->silent_since_ns > 0,
        .is_pardoned = connection->is_pardoned,
        .is_lane = connection->use == CONNECTION_LANE,
        .is_main = connection->use == CONNECTION_MAIN,
        .answered_sent_ns = connection->answered_sent_ns,
        .in_flight = connection->in_flight,
    };
}

/* Asked since a connection has ended with it aboard. */
static bool is_of_suspect(const struct request *request)
{
    const struct ask *ask = CONTAINER_OF(request->attempts, const struct ask, attempts);
    return ask->is_suspect && !request->is_hedge && request->sent_ns >= ask->ended_ns;
}

static struct request_view view_request(const struct connection *connection, size_t slot)
{
    const struct request *request = connection->slots.table[slot].request;
    const struct attempts *attempts = request->attempts;
    const upstream_set only = UINT64_C(1) << connection->path->slot;
    return (struct request_view){
        .identity = request,
        .ask = attempts,
        .question = request->question,
        .use = (uint32_t)connection->slots.table[slot].generation << 16 | (uint32_t)slot,
        .sent_ns = request->sent_ns,
        .is_own = request->is_own,
        .is_hedge = request->is_hedge,
        .is_first = attempts->once == only && attempts->twice == 0 && attempts->count == 1,
        .is_suspect = !request->is_own && is_of_suspect(request),
    };
}

static bool add_requests(struct group_view *view, const struct connection *connection)
{
    for (size_t i = 0; i < connection->slots.used; i++) {
        if (!connection->slots.table[i].request)
            continue;
        if (view->request_count == VIEW_REQUESTS_MAX)
            return false;
        view->requests[view->request_count] = view_request(connection, i);
        view->requests[view->request_count++].connection = view->connection_count - 1;
    }
    return true;
}

static bool add_connections(struct group_view *view, const struct list *connections,
                            bool with_requests)
{
    LIST_EACH (struct connection, connection, connections, link) {
        if (view->connection_count == VIEW_CONNECTIONS_MAX)
            return false;
        view->connections[view->connection_count++] = view_connection(connection);
        if (with_requests && !add_requests(view, connection))
            return false;
    }
    return true;
}

static size_t count(const struct list *list)
{
    size_t count = 0;
    for (const struct list *link = list->next; link != list; link = link->next)
        count++;
    return count;
}

bool view_group(const struct group *group, bool with_requests, struct group_view *view)
{
    view->connection_count = 0;
    view->request_count = 0;
    view->parked = count(&group->waiting.parked) + count(&group->waiting.resumed);
    view->queued = count(&group->waiting.second_looks.armed);
    for (size_t i = 0; i < LINES; i++)
        view->queued += count(&group->waiting.lines[i]);
    view->lane_count = 0;
    view->upstream_count = 0;
    for (size_t i = 0; i < CONFIG_UPSTREAM_SLOTS; i++) {
        const struct upstream *upstream = group->slots[i];
        view->upstreams[i] = (struct upstream_view){.health = HEALTH_GONE, .is_calm = true};
        if (!upstream)
            continue;
        view->upstream_count = i + 1;
        view->upstreams[i] = view_upstream(upstream);
        view->lane_count += tally_of(&upstream->lanes).all;
        if (!add_connections(view, &upstream->connections, with_requests) ||
            !add_connections(view, &upstream->lanes, with_requests))
            return false;
    }
    return true;
}
