// SPDX-License-Identifier: Apache-2.0
/* What must hold of requests, seen from outside: whom they ask, and how many are hedges.
 *
 * It looks at all that is in flight at the end of each turn in which something was asked, and knows
 * what is new by what it saw before. */
#include <string.h>

#include "dns/message.h"
#include "observe/metrics.h"
#include "sim.h"

enum {
    HEDGES_FREE = 16,      /* before any is earned */
    HEDGE_REQUESTS = 20,   /* that earn one: at most 5 % more */
    PAIRS_CHECK_TURNS = 8, /* all pairs are looked at in every so many turns */
};

/* One request in flight, when something was last asked. */
struct sight {
    const void *request;
    const void *connection;
    uint32_t use;
    uint64_t sent_ns;
};

static struct {
    struct sight seen[VIEW_REQUESTS_MAX];
    size_t seen_count;
    uint64_t hedges;                          /* that needed budget */
    bool was_ready[SIM_UPSTREAMS_MAX];        /* at the end of the last turn */
    bool was_calm[SIM_UPSTREAMS_MAX];         /* the same */
    const void *silent[VIEW_CONNECTIONS_MAX]; /* the same: connections */
    size_t silent_count;
    const struct group_view *view; /* of this turn */
} requests;

void requests_reset(void)
{
    memset(&requests, 0, sizeof(requests));
}

/* --- What is there --- */

static const struct connection_view *connection_of(const struct request_view *request)
{
    return &requests.view->connections[request->connection];
}

static const struct sight *find_seen(const struct request_view *request)
{
    for (size_t i = 0; i < requests.seen_count; i++)
        if (requests.seen[i].request == request->identity)
            return &requests.seen[i];
    return NULL;
}

static bool is_new(const struct request_view *request)
{
    const struct sight *seen = find_seen(request);
    return !seen || seen->connection != connection_of(request)->identity ||
           seen->use != request->use;
}

static void note_seen(void)
{
    requests.seen_count = requests.view->request_count;
    for (size_t i = 0; i < requests.seen_count; i++) {
        const struct request_view *request = &requests.view->requests[i];
        requests.seen[i] = (struct sight){.request = request->identity,
                                          .connection = connection_of(request)->identity,
                                          .use = request->use,
                                          .sent_ns = request->sent_ns};
    }
}

/* The other request for the same. */
static const struct request_view *find_partner(const struct request_view *request)
{
    for (size_t i = 0; i < requests.view->request_count; i++) {
        const struct request_view *other = &requests.view->requests[i];
        if (other->identity != request->identity && other->ask == request->ask)
            return other;
    }
    return NULL;
}

/* --- Hedges --- */

/* Sent, and not in this very turn. */
static bool is_sent(const struct request_view *request)
{
    return connection_of(request)->phase >= PHASE_READY && request->sent_ns < net_now();
}

/* One that was sent and has had timeouts.request is lost: to ask another is no hedge. */
static bool is_lost(uint64_t sent_ns)
{
    return net_now() - sent_ns >= plan.config.snapshot.timeouts.request_ns;
}

static void check_hedge(const struct request_view *hedge)
{
    const struct sight *moved = find_seen(hedge);
    const struct request_view *late = find_partner(hedge);
    if (!late)
        return;
    if (late->connection == hedge->connection && !is_lost(late->sent_ns))
        sim_fail("a hedge on the same connection");
    const bool is_again = connection_of(late)->upstream == connection_of(hedge)->upstream &&
                          is_sent(late) && !connection_of(late)->is_silent;
    if (is_again && !is_lost(late->sent_ns))
        sim_fail("a hedge to the same upstream, which is merely slow");
    const bool is_needed = is_lost(late->sent_ns) || (moved && is_lost(moved->sent_ns));
    requests.hedges += is_sent(late) && (is_again || !is_needed);
}

/* A late request is asked a second time only within a budget, lest overloaded upstreams get twice
 * their load. */
static void check_budget(void)
{
    const uint64_t plain = world_plain_requests();
    if (requests.hedges > HEDGES_FREE + plain / HEDGE_REQUESTS)
        sim_fail("%llu hedges for %llu requests", (unsigned long long)requests.hedges,
                 (unsigned long long)plain);
}

/* --- Silence --- */

static bool was_silent(const struct connection_view *connection)
{
    for (size_t i = 0; i < requests.silent_count; i++)
        if (requests.silent[i] == connection->identity)
            return true;
    return false;
}

static bool is_ready(size_t upstream)
{
    if (requests.view->upstreams[upstream].health >= HEALTH_DOUBTED ||
        requests.view->upstreams[upstream].is_contradicted)
        return false;
    for (size_t i = 0; i < requests.view->connection_count; i++) {
        const struct connection_view *connection = &requests.view->connections[i];
        if (connection->upstream == upstream && !connection->is_lane &&
            connection->phase == PHASE_READY && !connection->is_silent && connection->has_room)
            return true;
    }
    return false;
}

/* What is asked first goes to nobody who is silent, while another is ready before and after it. One
 * that was pardoned in between may have been asked then. */
static void check_choice(const struct request_view *request)
{
    const struct connection_view *connection = connection_of(request);
    if (!request->is_first || !connection->is_silent || connection->is_pardoned ||
        !was_silent(connection))
        return;
    /* It waited for this one, which was then the trial of a doubt. */
    const bool is_trial = connection->answered_sent_ns == 0;
    if (is_trial && (has_fault(FAULT_CLOSES_ON_A_NAME) || has_fault(FAULT_CLOSES_ON_A_SUFFIX)))
        return;
    for (size_t i = 0; i < requests.view->upstream_count; i++)
        if (requests.was_ready[i] && is_ready(i))
            sim_fail("upstream %zu is asked behind a silence, though %zu is ready",
                     connection->upstream, i);
}

static void note_silence(void)
{
    requests.silent_count = 0;
    for (size_t i = 0; i < requests.view->upstream_count; i++) {
        requests.was_ready[i] = is_ready(i);
        requests.was_calm[i] = requests.view->upstreams[i].is_calm;
    }
    for (size_t i = 0; i < requests.view->connection_count; i++)
        if (requests.view->connections[i].is_silent)
            requests.silent[requests.silent_count++] = requests.view->connections[i].identity;
}

/* --- Lookups --- */

/* Who asks what is being asked already waits for that answer. */
static void check_pairs(void)
{
    const struct request_view *all = requests.view->requests;
    for (size_t i = 0; i < requests.view->request_count; i++)
        for (size_t j = i + 1; j < requests.view->request_count; j++)
            if (!all[i].is_own && !all[j].is_own && all[i].ask != all[j].ask &&
                question_equal(all[i].question, all[j].question))
                sim_fail("one question has two lookups");
}

/* FAULTS K1: what may have ended a connection is asked alone, or where all is well. */
static void check_suspect(const struct request_view *request)
{
    const struct connection_view *connection = connection_of(request);
    const size_t upstream = connection->upstream;
    if (request->is_suspect && !connection->is_lane && !requests.was_calm[upstream] &&
        !requests.view->upstreams[upstream].is_calm)
        sim_fail("a suspect question is among others at upstream %zu (K1)", upstream);
}

static void check_new_requests(void)
{
    for (size_t i = 0; i < requests.view->request_count; i++) {
        const struct request_view *request = &requests.view->requests[i];
        if (request->is_own || !is_new(request))
            continue;
        check_suspect(request);
        if (request->is_hedge)
            check_hedge(request);
        else
            check_choice(request);
    }
    if (net_turns() % PAIRS_CHECK_TURNS == 0)
        check_pairs();
    note_seen();
}

void requests_check(const struct group_view *view, bool has_asked)
{
    requests.view = view;
    if (has_asked)
        check_new_requests();
    check_budget();
    note_silence();
}
