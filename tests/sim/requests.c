// SPDX-License-Identifier: Apache-2.0
/* What must hold of requests, seen from outside: whom they ask, and how many are hedges.
 *
 * It looks at all that is in flight at the end of each turn in which something was asked, and knows
 * what is new by what it saw before. */
#include <string.h>

#include "sim.h"
#include "upstream/internal.h"

enum {
    HEDGES_FREE = 16,    /* before any is earned */
    HEDGE_REQUESTS = 20, /* that earn one: at most 5 % more */
    SIGHTS_MAX = 2048,
    CONNECTIONS_MAX = 256,
    PAIRS_CHECK_TURNS = 8, /* all pairs are looked at in every so many turns */
};

/* One request in flight. */
struct sight {
    const struct request *request;
    const struct connection *connection;
    uint16_t slot;
    uint16_t generation;
    uint64_t sent_ns;
};

static struct {
    struct sight seen[SIGHTS_MAX]; /* when something was last asked */
    size_t seen_count;
    struct sight now[SIGHTS_MAX];
    size_t count;
    uint64_t requests;                 /* ever sent, when something was last asked */
    uint64_t hedges;                   /* that needed budget */
    bool was_ready[SIM_UPSTREAMS_MAX]; /* at the end of the last turn */
    const struct connection *suspects[CONNECTIONS_MAX]; /* the same */
    size_t suspect_count;
} requests;

void requests_reset(void)
{
    memset(&requests, 0, sizeof(requests));
}

static const struct connection *connection_of(struct list *link)
{
    return CONTAINER_OF(link, struct connection, link);
}

/* --- What is there --- */

static void look_at_slots(const struct connection *connection)
{
    for (size_t i = 0; i < connection->slots_used; i++) {
        const struct slot *slot = &connection->slots[i];
        if (!slot->request || loop_check_owns(connection->upstream, slot->request))
            continue;
        if (requests.count == SIGHTS_MAX)
            sim_fail("more than %d requests are in flight", SIGHTS_MAX);
        requests.now[requests.count++] = (struct sight){
            .request = slot->request,
            .connection = connection,
            .slot = (uint16_t)i,
            .generation = slot->generation,
            .sent_ns = slot->request->sent_ns,
        };
    }
}

static void look_at_requests(const struct group *group)
{
    requests.count = 0;
    for (size_t i = 0; i < group->upstream_count; i++) {
        const struct list *connections = &group->upstreams[i].connections;
        for (struct list *link = connections->next; link != connections; link = link->next)
            look_at_slots(connection_of(link));
    }
}

static const struct sight *find_seen(const struct request *request)
{
    for (size_t i = 0; i < requests.seen_count; i++)
        if (requests.seen[i].request == request)
            return &requests.seen[i];
    return NULL;
}

static bool is_new(const struct sight *sight)
{
    const struct sight *seen = find_seen(sight->request);
    return !seen || seen->connection != sight->connection || seen->slot != sight->slot ||
           seen->generation != sight->generation;
}

/* The other request of its lookup. */
static const struct sight *find_partner(const struct sight *sight)
{
    for (size_t i = 0; i < requests.count; i++)
        if (requests.now[i].request != sight->request &&
            requests.now[i].request->attempts == sight->request->attempts)
            return &requests.now[i];
    return NULL;
}

/* --- Hedges --- */

/* Sent, and not in this very turn. */
static bool is_sent(const struct sight *sight)
{
    return sight->connection->state >= CONNECTION_READY && sight->sent_ns < net_now();
}

/* One that was sent and has had timeouts.request is lost: to ask another is no hedge. */
static bool is_lost(const struct sight *sight)
{
    return net_now() - sight->sent_ns >= plan.config.timeouts.request_ns;
}

static void check_hedge(const struct sight *hedge)
{
    const struct sight *moved = find_seen(hedge->request);
    const struct sight *late = find_partner(hedge);
    if (!late)
        return;
    if (late->connection == hedge->connection && !is_lost(late))
        sim_fail("a hedge on the same connection");
    const bool is_again = late->connection->upstream == hedge->connection->upstream &&
                          is_sent(late) && late->connection->suspect_since_ns == 0;
    if (is_again && !is_lost(late))
        sim_fail("a hedge to the same upstream, which is merely slow");
    const bool is_needed = is_lost(late) || (moved && is_lost(moved));
    requests.hedges += is_sent(late) && (is_again || !is_needed);
}

/* A late request is asked a second time only within a budget, lest overloaded upstreams get twice
 * their load. */
static void check_budget(const struct group *group)
{
    uint64_t plain = 0;
    for (size_t i = 0; i < group->upstream_count; i++)
        plain += metric_get(&group->upstreams[i].metrics->requests) -
                 metric_get(&group->upstreams[i].metrics->hedges);
    if (requests.hedges > HEDGES_FREE + plain / HEDGE_REQUESTS)
        sim_fail("%llu hedges for %llu requests", (unsigned long long)requests.hedges,
                 (unsigned long long)plain);
}

/* --- Silence --- */

static bool was_suspect(const struct connection *connection)
{
    for (size_t i = 0; i < requests.suspect_count; i++)
        if (requests.suspects[i] == connection)
            return true;
    return false;
}

static bool is_trusted(const struct connection *connection)
{
    return connection->state == CONNECTION_READY && connection->suspect_since_ns == 0 &&
           connection_has_room(connection);
}

static bool is_ready(const struct upstream *upstream)
{
    const struct list *connections = &upstream->connections;
    if (upstream->down)
        return false;
    for (struct list *link = connections->next; link != connections; link = link->next)
        if (is_trusted(connection_of(link)))
            return true;
    return false;
}

/* What is asked first goes to nobody who is silent, while another is ready before and after it. */
static void check_choice(const struct group *group, const struct sight *sight)
{
    const struct connection *connection = sight->connection;
    const struct attempts *attempts = sight->request->attempts;
    const uint32_t only = UINT32_C(1) << connection->upstream->index;
    if (connection->suspect_since_ns == 0 || !was_suspect(connection) || attempts->once != only ||
        attempts->twice != 0 || attempts->beside != 0)
        return;
    for (size_t i = 0; i < group->upstream_count; i++)
        if (requests.was_ready[i] && is_ready(&group->upstreams[i]))
            sim_fail("upstream %zu is asked behind a silence, though %zu is ready",
                     connection->upstream->index, i);
}

static void note_silence(const struct group *group)
{
    requests.suspect_count = 0;
    for (size_t i = 0; i < group->upstream_count; i++) {
        const struct list *connections = &group->upstreams[i].connections;
        requests.was_ready[i] = is_ready(&group->upstreams[i]);
        for (struct list *link = connections->next; link != connections; link = link->next)
            if (connection_of(link)->suspect_since_ns > 0 &&
                requests.suspect_count < CONNECTIONS_MAX)
                requests.suspects[requests.suspect_count++] = connection_of(link);
    }
}

/* --- Lookups --- */

/* Who asks what is being asked already waits for that answer. */
static void check_pairs(void)
{
    for (size_t i = 0; i < requests.count; i++)
        for (size_t j = i + 1; j < requests.count; j++)
            if (requests.now[i].request->attempts != requests.now[j].request->attempts &&
                question_equal(requests.now[i].request->question,
                               requests.now[j].request->question))
                sim_fail("one question has two lookups");
}

static void check_new_requests(const struct group *group)
{
    look_at_requests(group);
    for (size_t i = 0; i < requests.count; i++) {
        if (!is_new(&requests.now[i]))
            continue;
        if (requests.now[i].request->is_hedge)
            check_hedge(&requests.now[i]);
        else
            check_choice(group, &requests.now[i]);
    }
    if (net_turns() % PAIRS_CHECK_TURNS == 0)
        check_pairs();
    memcpy(requests.seen, requests.now, requests.count * sizeof(requests.now[0]));
    requests.seen_count = requests.count;
}

void requests_check(const struct group *group)
{
    uint64_t sent = 0;
    for (size_t i = 0; i < group->upstream_count; i++)
        sent += metric_get(&group->upstreams[i].metrics->requests);
    if (sent != requests.requests)
        check_new_requests(group);
    requests.requests = sent;
    check_budget(group);
    note_silence(group);
}
