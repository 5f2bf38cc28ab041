// SPDX-License-Identifier: Apache-2.0
/* All upstreams of one worker, as other layers see them: opening, closing, changes of the network.
 *
 * Here meet the parts that do not know each other: names, whose questions go to the other
 * upstreams, and what sends them there.
 *
 * Thread: one worker.   Owner: the worker. */
#include "upstream/upstream.h"

#include <assert.h>
#include <stdlib.h>

#include "base/numbers.h"
#include "upstream/group.h"
#include "upstream/silence.h"
#include "upstream/submit.h"

#define OVERDUE_NS (20 * NANOSECONDS_PER_MILLISECOND) /* a late request is told again */
#define SILENCE_NS (50 * NANOSECONDS_PER_MILLISECOND) /* a silent connection is looked at */
#define SPARE_IDLE_NS (5 * NANOSECONDS_PER_SECOND)
#define LANE_IDLE_NS (1 * NANOSECONDS_PER_SECOND)

/* --- Names ask the others --- */

static enum status ask_other(struct path *path, struct request *request, enum failure *failure)
{
    return request_submit(upstream_of(path)->group, request, REQUEST_ANYWHERE, failure);
}

/* Itself, and all that have no address. */
static uint32_t find_unknown(struct path *path)
{
    const struct group *group = upstream_of(path)->group;
    uint32_t unknown = UINT32_C(1) << path->index;
    for (size_t i = 0; i < group->upstream_count; i++)
        unknown |= (uint32_t)name_is_unknown(group->upstreams[i].name) << i;
    return unknown;
}

static uint32_t find_down(struct path *path)
{
    const struct group *group = upstream_of(path)->group;
    uint32_t down = 0;
    for (size_t i = 0; i < group->upstream_count; i++)
        down |= (uint32_t)group->upstreams[i].path.down << i;
    return down;
}

static const struct name_events name_events = {
    .ask = ask_other,
    .find_unknown = find_unknown,
    .find_down = find_down,
    .on_resolved = upstream_on_resolved,
    .on_moved = upstream_on_moved,
};

/* --- Birth and death --- */

static void open_queues(struct group *group)
{
    const struct config *config = group->config;
    struct connection_queues *queues = &group->queues;
    const struct snapshot *snapshot = &config->snapshot;
    loop_add_queue(group->loop, &group->self_checks, snapshot->timeouts.request_ns,
                   self_check_on_deadline);
    name_queues_open(&group->name_queues, group->loop, config);
    loop_add_queue(group->loop, &queues->connect, snapshot->timeouts.connect_ns,
                   connection_on_deadline);
    loop_add_queue(group->loop, &queues->handshake, snapshot->timeouts.handshake_ns,
                   connection_on_deadline);
    loop_add_queue(group->loop, &queues->overdue, OVERDUE_NS, silence_on_late);
    loop_add_queue(group->loop, &queues->silence, SILENCE_NS, silence_on_look);
    loop_add_queue(group->loop, &queues->spare_idle,
                   least_of(SPARE_IDLE_NS, snapshot->timeouts.idle_ns), connection_on_deadline);
    loop_add_queue(group->loop, &queues->lane_idle,
                   least_of(LANE_IDLE_NS, snapshot->timeouts.idle_ns), connection_on_deadline);
}

enum status group_open(const struct group_settings *settings, struct group **out)
{
    assert(settings->loop && settings->metrics && settings->trusts && out);
    const struct config *config = settings->config;
    assert(config->upstream_count > 0 && config->upstream_count <= CONFIG_UPSTREAMS_MAX);
    struct group *group =
        calloc(1, sizeof(*group) + config->upstream_count * sizeof(group->upstreams[0]));
    if (!group)
        return STATUS_FULL;
    group->config = config;
    group->snapshot = &config->snapshot;
    group->loop = settings->loop;
    group->metrics = settings->metrics;
    group->upstream_count = config->upstream_count;
    struct upstream_settings upstream = {
        .name_events = &name_events,
        .config = config,
        .loop = settings->loop,
        .metrics = settings->metrics,
        .trusts = settings->trusts,
        .self_key = settings->self_key,
        .admissions = settings->admissions,
        .queues = &group->queues,
        .name_queues = &group->name_queues,
        .self_checks = &group->self_checks,
    };
    open_queues(group);
    group_init(group, &upstream);
    enum status status = STATUS_OK;
    for (size_t i = 0; i < config->upstream_count && status == STATUS_OK; i++)
        status = upstream_open(&group->upstreams[i], &upstream, i);
    if (status != STATUS_OK)
        group_close(group);
    else
        *out = group;
    return status;
}

/* One more connection of each upstream may be draining. However many there are, the queries in
 * their buffers are at most those in flight: two for each that waits, with some for the cache. */
size_t group_ceiling(const struct group *group)
{
    const struct config *config = group->config;
    const size_t slot_count = connection_slot_count(config);
    const size_t connections =
        group->upstream_count * ((size_t)config->limits.upstream_connections + 1);
    const size_t slots = connections * slot_count;
    const size_t requests = (size_t)4 * config->limits.queries; /* buffers may be twice as large */
    return sizeof(*group) + connections * connection_ceiling(slot_count) +
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
    name_queues_close(&group->name_queues);
    loop_remove_queue(&group->queues.connect);
    loop_remove_queue(&group->queues.handshake);
    loop_remove_queue(&group->queues.overdue);
    loop_remove_queue(&group->queues.silence);
    loop_remove_queue(&group->queues.spare_idle);
    loop_remove_queue(&group->queues.lane_idle);
    waiting_close(&group->waiting);
    free(group);
}

/* --- What others may know and tell --- */

const char *group_upstream_label(const struct group *group, size_t index)
{
    assert(index < group->upstream_count);
    return group->upstreams[index].config->label;
}

size_t group_upstream_addresses(const struct group *group, size_t index,
                                struct address out[static RACE_ADDRESSES_MAX],
                                enum failure *failure)
{
    assert(failure);
    assert(index < group->upstream_count);
    const struct upstream *upstream = &group->upstreams[index];
    *failure = FAILURE_NONE;
    if (upstream->name)
        return name_addresses(upstream->name, out, failure);
    out[0] = upstream->config->address;
    return 1;
}

void group_reload(struct group *group, const struct snapshot *snapshot)
{
    assert(snapshot->strategy <= STRATEGY_HASH);
    group->snapshot = snapshot;
    group->waiting.park_ns = snapshot->timeouts.park_ns;
    group->self_checks.duration_ns = snapshot->timeouts.request_ns;
    name_queues_reload(&group->name_queues, group->config, snapshot);
    struct connection_queues *queues = &group->queues;
    queues->connect.duration_ns = snapshot->timeouts.connect_ns;
    queues->handshake.duration_ns = snapshot->timeouts.handshake_ns;
    queues->spare_idle.duration_ns = least_of(SPARE_IDLE_NS, snapshot->timeouts.idle_ns);
    queues->lane_idle.duration_ns = least_of(LANE_IDLE_NS, snapshot->timeouts.idle_ns);
    for (size_t i = 0; i < group->upstream_count; i++)
        path_reload(&group->upstreams[i].path, snapshot);
}

void group_network_changed(struct group *group)
{
    bool is_changed = false;
    for (size_t i = 0; i < group->upstream_count; i++) {
        struct upstream *upstream = &group->upstreams[i];
        name_network_changed(upstream->name);
        if (route_look_up(&upstream->route))
            upstream_start_over(upstream);
        else if (upstream->path.down && upstream->name)
            upstream->path.retry_ns =
                group->loop->now; /* the way to its other addresses may be new */
        else
            continue;
        is_changed = true;
    }
    if (is_changed)
        group_begin_anew(group);
}

void group_resumed(struct group *group)
{
    for (size_t i = 0; i < group->upstream_count; i++) {
        name_network_changed(group->upstreams[i].name);
        (void)route_look_up(&group->upstreams[i].route);
        upstream_start_over(&group->upstreams[i]);
    }
    group_begin_anew(group);
}
