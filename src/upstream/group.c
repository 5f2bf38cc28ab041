// SPDX-License-Identifier: Apache-2.0
/* All upstreams of one worker: trials, standby, changes of the network.
 *
 * When no upstream is usable asks wait for one (timeouts.park), for whom trials are made again and
 * again, none of them with a query. While there is traffic, two upstreams have connections; without
 * it none is opened.
 *
 * Thread: one worker.   Owner: the worker. */
#include "upstream/internal.h"
#include "upstream/names.h"

#include <assert.h>
#include <stdlib.h>

/* When all upstreams are away the local link is the first to blame, so they are tried again and
 * again, however long their back-off has grown: after the least at first, and soon after the most.
 */
#define AWAY_RETRY_MIN_NS (50 * NANOSECONDS_PER_MILLISECOND)
#define AWAY_RETRY_MAX_NS (250 * NANOSECONDS_PER_MILLISECOND)

#define OVERDUE_NS (20 * NANOSECONDS_PER_MILLISECOND) /* a late request is told again */
#define SILENCE_NS (50 * NANOSECONDS_PER_MILLISECOND) /* a silent connection is looked at */
#define TRAFFIC_NS (10 * NANOSECONDS_PER_SECOND)      /* after a request there may be more */
#define CONNECT_INTERVAL_NS (1 * NANOSECONDS_PER_MILLISECOND) /* 1,000 a second, at most */
#define SPARE_IDLE_NS (5 * NANOSECONDS_PER_SECOND)
#define LANE_IDLE_NS (1 * NANOSECONDS_PER_SECOND)

enum {
    TOGETHER_MIN = 2, /* ends at once, of more than are left, are no question's doing */

    STANDBY_COUNT = 2, /* upstreams with a connection while there is traffic */
    /* At a time to an upstream while all are away: a connect whose first packet was lost is not
     * repeated by TCP within a second. */
    TRIALS_MAX = 4,
    CONNECT_BURST = 64, /* every upstream at once, twice */
};

bool group_is_away(const struct group *group)
{
    for (size_t i = 0; i < group->upstream_count; i++)
        if (upstream_is_usable(&group->upstreams[i]))
            return false;
    return true;
}

/* True when the last try is long enough ago for one that does not wait for its back-off. */
static bool is_rested(const struct upstream *upstream)
{
    const struct group *group = upstream->group;
    uint64_t rest_ns = AWAY_RETRY_MAX_NS;
    if (group->away_since_ns > 0)
        rest_ns = (group->loop->now - group->away_since_ns) / 4;
    if (rest_ns < AWAY_RETRY_MIN_NS)
        rest_ns = AWAY_RETRY_MIN_NS;
    if (rest_ns > AWAY_RETRY_MAX_NS)
        rest_ns = AWAY_RETRY_MAX_NS;
    return group->loop->now - upstream->attempted_ns >= rest_ns && !upstream_is_self(upstream);
}

/* Starts a trial connection to each upstream whose back-off is over; to all when all are away,
 * since nobody knows which will be back first. */
static void try_again(struct group *group)
{
    const bool is_away = group_is_away(group);
    if (!is_away)
        group->away_since_ns = 0;
    else if (group->away_since_ns == 0)
        group->away_since_ns = group->loop->now;
    for (size_t i = 0; i < group->upstream_count; i++) {
        struct upstream *upstream = &group->upstreams[i];
        if (!upstream_is_usable(upstream) &&
            (group->loop->now >= upstream->retry_ns || (is_away && is_rested(upstream))))
            upstream_try_again(upstream, is_away ? TRIALS_MAX : 1);
    }
}

/* At the end of the turn, since a lookup that is woken sends requests, and the recovery may be told
 * while one of its own is about to end. */
void group_recovered(struct group *group)
{
    waiting_note_upstream(&group->waiting);
    loop_defer(group->loop, &group->recovered, LOOP_FLUSH);
}

static void hasten_all(struct loop_task *task)
{
    struct group *group = CONTAINER_OF(task, struct group, recovered);
    for (size_t i = 0; i < group->upstream_count; i++)
        upstream_hasten(&group->upstreams[i]);
    waiting_resume_parked(&group->waiting);
}

static bool has_traffic(const struct group *group)
{
    return group->loop->now < group->traffic_until_ns;
}

/* --- Waiting --- */

static void on_parked(struct waiting *waiting)
{
    try_again(CONTAINER_OF(waiting, struct group, waiting));
}

/* What comes by itself, as the end of a restart does; a wrong certificate stays. */
static bool may_pass(enum failure failure)
{
    switch (failure) {
    case FAILURE_NONE:
    case FAILURE_REFUSED_CONNECTION:
    case FAILURE_UNREACHABLE:
    case FAILURE_CONNECT_TIMEOUT:
    case FAILURE_HANDSHAKE_TIMEOUT:
    case FAILURE_NAME_LOOKUP:
    case FAILURE_CLOSED:
    case FAILURE_RESET:
    case FAILURE_PROTOCOL:
    case FAILURE_STALLED:
    case FAILURE_REQUEST_TIMEOUT:
    case FAILURE_NETWORK_CHANGED:
        return true;
    default:
        return false;
    }
}

/* None is up of those that are not `excluded`, and one of them may come back. */
static bool may_come_back(const struct group *group, uint32_t excluded)
{
    bool may_one = false;
    for (size_t i = 0; i < group->upstream_count; i++) {
        const struct upstream *upstream = &group->upstreams[i];
        if (excluded & UINT32_C(1) << i)
            continue;
        if (upstream_is_usable(upstream))
            return false;
        may_one = may_one || may_pass(upstream->last_failure);
    }
    return may_one;
}

bool group_park(struct group *group, uint32_t excluded, struct waiter *waiter)
{
    return may_come_back(group, excluded) && waiting_park(&group->waiting, waiter);
}

void group_trial_failed(struct group *group, enum failure failure)
{
    if (group_is_away(group))
        waiting_note_trial(&group->waiting, may_pass(failure));
    else
        waiting_note_upstream(&group->waiting);
}

/* --- What the upstreams have shown --- */

bool group_ended_together(const struct group *group, size_t index, uint64_t time_ns)
{
    const struct upstream *upstream = &group->upstreams[index];
    size_t count = 0;
    size_t left = SIZE_MAX;
    for (size_t i = 0; i < ENDS_KEPT; i++) {
        const struct end *end = &upstream->ended[i];
        if (end->time_ns + TOGETHER_NS < time_ns || end->time_ns > time_ns + TOGETHER_NS)
            continue;
        count++;
        left = end->left < left ? end->left : left;
    }
    return count >= TOGETHER_MIN && left < count;
}

bool group_has_failed(const struct group *group, size_t index, uint64_t time_ns)
{
    return group->upstreams[index].failed_ns > time_ns;
}

bool group_has_heard(const struct group *group, size_t index, uint64_t time_ns)
{
    return group->upstreams[index].answered_ns > time_ns;
}

bool group_vouches(struct group *group, size_t index, uint64_t time_ns)
{
    struct upstream *upstream = &group->upstreams[index];
    if (upstream->answered_sent_ns >= time_ns) /* what a turn sends leaves at its end */
        return true;
    upstream_doubt(upstream, FAILURE_CLOSED);
    return false;
}

/* --- Changes of the network --- */

/* With traffic there will be a query soon, and it should find what it needs. */
static void begin_anew(struct group *group)
{
    if (!has_traffic(group))
        return;
    try_again(group);
    loop_defer(group->loop, &group->care, LOOP_FLUSH);
}

void group_network_changed(struct group *group)
{
    bool is_changed = false;
    for (size_t i = 0; i < group->upstream_count; i++) {
        struct upstream *upstream = &group->upstreams[i];
        name_network_changed(upstream->name);
        if (upstream_look_up_route(upstream))
            upstream_start_over(upstream);
        else if (upstream->down && upstream->name)
            upstream->retry_ns = group->loop->now; /* the way to its other addresses may be new */
        else
            continue;
        is_changed = true;
    }
    if (is_changed)
        begin_anew(group);
}

void group_resumed(struct group *group)
{
    for (size_t i = 0; i < group->upstream_count; i++) {
        name_network_changed(group->upstreams[i].name);
        (void)upstream_look_up_route(&group->upstreams[i]);
        upstream_start_over(&group->upstreams[i]);
    }
    begin_anew(group);
}

/* --- Connections before they are needed --- */

bool group_may_connect(struct group *group)
{
    const uint64_t now = group->loop->now;
    if (group->next_connect_ns > now + CONNECT_BURST * CONNECT_INTERVAL_NS)
        return false;
    if (group->next_connect_ns < now)
        group->next_connect_ns = now;
    group->next_connect_ns += CONNECT_INTERVAL_NS;
    return true;
}

/* Only upstreams that have not failed since their last answer: the others have their trials. */
static void keep_standby(struct loop_task *task)
{
    struct group *group = CONTAINER_OF(task, struct group, care);
    size_t count = 0;
    for (size_t i = 0; i < group->upstream_count; i++)
        count += upstream_is_usable(&group->upstreams[i]) &&
                 upstream_has_connection(&group->upstreams[i]);
    for (size_t i = 0; i < group->upstream_count && count < STANDBY_COUNT; i++) {
        struct upstream *upstream = &group->upstreams[i];
        if (!upstream_is_usable(upstream) || upstream->failures > 0 ||
            upstream_has_connection(upstream))
            continue;
        upstream_warm(upstream);
        count++;
    }
}

void group_note_traffic(struct group *group)
{
    if (!has_traffic(group)) {
        group->traffic_until_ns = group->loop->now + TRAFFIC_NS;
        loop_defer(group->loop, &group->care, LOOP_FLUSH);
    }
    try_again(group);
}

void group_care(struct group *group)
{
    if (has_traffic(group))
        loop_defer(group->loop, &group->care, LOOP_FLUSH);
}

/* --- The group --- */

const char *group_upstream_label(const struct group *group, size_t index)
{
    assert(index < group->upstream_count);
    return group->upstreams[index].config->label;
}

size_t group_upstream_addresses(const struct group *group, size_t index,
                                struct address out[static RACE_ADDRESSES_MAX],
                                enum failure *failure)
{
    assert(index < group->upstream_count);
    const struct upstream *upstream = &group->upstreams[index];
    *failure = FAILURE_NONE;
    if (upstream->name)
        return name_addresses(upstream->name, out, failure);
    out[0] = upstream->config->address;
    return 1;
}

static uint64_t least_of(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static void open_queues(struct group *group)
{
    const struct config *config = group->config;
    loop_add_queue(group->loop, &group->self_checks, config->timeouts.request_ns,
                   self_check_on_deadline);
    loop_add_queue(group->loop, &group->name_queries, name_query_ns(config),
                   name_on_query_deadline);
    loop_add_queue(group->loop, &group->name_settles, NAME_SETTLE_NS, name_on_settled);
    loop_add_queue(group->loop, &group->bootstrap_tries, BOOTSTRAP_TRY_NS, bootstrap_on_deadline);
    loop_add_queue(group->loop, &group->connect, config->timeouts.connect_ns,
                   connection_on_deadline);
    loop_add_queue(group->loop, &group->handshake, config->timeouts.handshake_ns,
                   connection_on_deadline);
    loop_add_queue(group->loop, &group->overdue, OVERDUE_NS, connection_on_late);
    loop_add_queue(group->loop, &group->silence, SILENCE_NS, connection_on_silence);
    loop_add_queue(group->loop, &group->spare_idle,
                   least_of(SPARE_IDLE_NS, config->timeouts.idle_ns), connection_on_deadline);
    loop_add_queue(group->loop, &group->lane_idle, least_of(LANE_IDLE_NS, config->timeouts.idle_ns),
                   connection_on_deadline);
    waiting_open(&group->waiting, group->loop, config->timeouts.park_ns, on_parked);
}

enum status group_open(const struct group_settings *settings, struct group **out)
{
    const struct config *config = settings->config;
    assert(config->upstream_count > 0 && config->upstream_count <= CONFIG_UPSTREAMS_MAX);
    struct group *group =
        calloc(1, sizeof(*group) + config->upstream_count * sizeof(group->upstreams[0]));
    if (!group)
        return STATUS_FULL;
    group->config = config;
    group->loop = settings->loop;
    group->metrics = settings->metrics;
    group->hedge_credit = HEDGE_START * HEDGE_COST;
    group->self_key = settings->self_key;
    group->slot_count = config->limits.upstream_requests + 1;
    if (group->slot_count > SLOTS_MAX)
        group->slot_count = SLOTS_MAX;
    group->upstream_count = config->upstream_count;
    random_init(&group->random);
    loop_task_init(&group->recovered, hasten_all);
    loop_task_init(&group->care, keep_standby);
    blame_init(&group->blames);
    open_queues(group);
    enum status status = STATUS_OK;
    for (size_t i = 0; i < config->upstream_count; i++)
        if ((status = upstream_open(&group->upstreams[i], group, i, settings)) != STATUS_OK)
            goto fail;
    *out = group;
    return STATUS_OK;
fail:
    group_close(group);
    return status;
}

/* One more connection of each upstream may be draining. However many there are, the queries in
 * their buffers are at most those in flight: two for each that waits, with some for the cache. */
size_t group_ceiling(const struct group *group)
{
    const struct config *config = group->config;
    const size_t connections =
        group->upstream_count * ((size_t)config->limits.upstream_connections + 1);
    const size_t slots = connections * group->slot_count;
    const size_t requests = (size_t)4 * config->limits.queries; /* buffers may be twice as large */
    return sizeof(*group) + connections * connection_ceiling(group->slot_count) +
           upstream_spares_ceiling() + LANES_MAX * connection_ceiling(SLOTS_LANE) +
           (slots < requests ? slots : requests) * (2 + MESSAGE_QUERY_MAX);
}

void group_close(struct group *group)
{
    if (!group)
        return;
    for (size_t i = 0; i < group->upstream_count; i++)
        name_stop(group->upstreams[i].name); /* takes back its requests to the others */
    for (size_t i = 0; i < group->upstream_count; i++)
        upstream_close(&group->upstreams[i]);
    loop_cancel_task(&group->recovered);
    loop_cancel_task(&group->care);
    loop_remove_queue(&group->self_checks);
    loop_remove_queue(&group->name_queries);
    loop_remove_queue(&group->name_settles);
    loop_remove_queue(&group->bootstrap_tries);
    loop_remove_queue(&group->connect);
    loop_remove_queue(&group->handshake);
    loop_remove_queue(&group->overdue);
    loop_remove_queue(&group->silence);
    loop_remove_queue(&group->spare_idle);
    loop_remove_queue(&group->lane_idle);
    waiting_close(&group->waiting);
    free(group);
}
