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

/* Itself, all that have no address, and all that are not there. */
static upstream_set find_unknown(struct path *path)
{
    const struct group *group = upstream_of(path)->group;
    upstream_set known = 0;
    LIST_EACH (const struct upstream, upstream, &group->upstreams, link)
        if (&upstream->path != path && !name_is_unknown(upstream->name))
            known |= upstream_bit(upstream->path.slot);
    return ~known;
}

static upstream_set find_down(struct path *path)
{
    const struct group *group = upstream_of(path)->group;
    upstream_set down = 0;
    LIST_EACH (const struct upstream, upstream, &group->upstreams, link)
        if (upstream->path.down)
            down |= upstream_bit(upstream->path.slot);
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
    struct connection_queues *queues = &group->queues;
    const struct snapshot *snapshot = group->snapshot;
    loop_add_queue(group->loop, &group->self_checks, snapshot->timeouts.request_ns,
                   self_check_on_deadline);
    name_queues_open(&group->name_queues, group->loop, snapshot);
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
    assert(settings->loop && settings->metrics && out);
    const struct config *config = settings->config;
    struct group *group = calloc(1, sizeof(*group));
    if (!group)
        return STATUS_FULL;
    group->config = config;
    group->snapshot = &config->snapshot;
    group->loop = settings->loop;
    group->metrics = settings->metrics;
    group->settings = (struct upstream_settings){
        .name_events = &name_events,
        .config = config,
        .loop = settings->loop,
        .metrics = settings->metrics,
        .self_key = settings->self_key,
        .admissions = settings->admissions,
        .queues = &group->queues,
        .name_queues = &group->name_queues,
        .self_checks = &group->self_checks,
    };
    open_queues(group);
    group_init(group);
    upstream_set changed;
    const enum status status = group_set_upstreams(group, &changed);
    if (status != STATUS_OK)
        group_close(group);
    else
        *out = group;
    return status;
}

/* As many upstreams may be leaving. One more connection of each may be draining. However many there
 * are, the queries in their buffers are at most those in flight: two for each that waits, with some
 * for the cache. */
size_t group_ceiling(const struct config *config, const struct snapshot *snapshot)
{
    const size_t slot_count = connection_slot_count(config);
    const size_t upstreams = 2 * snapshot->upstream_count;
    const size_t connections = upstreams * ((size_t)config->limits.upstream_connections + 1);
    const size_t slots = connections * slot_count;
    const size_t requests = (size_t)4 * config->limits.queries; /* buffers may be twice as large */
    return sizeof(struct group) + upstreams * sizeof(struct upstream) +
           connections * connection_ceiling(slot_count) + upstream_spares_ceiling() +
           LANES_MAX * connection_ceiling(SLOTS_LANE) +
           (slots < requests ? slots : requests) * (2 + MESSAGE_QUERY_MAX);
}

void group_close(struct group *group)
{
    if (!group)
        return;
    LIST_EACH (struct upstream, upstream, &group->upstreams, link)
        name_stop(upstream->name); /* takes back its requests to the others; who leaves has */
    for (size_t i = 0; i < CONFIG_UPSTREAM_SLOTS; i++)
        if (group->slots[i])
            upstream_close(group->slots[i]);
    for (size_t i = 0; i < CONFIG_UPSTREAM_SLOTS; i++)
        free(group->slots[i]);
    loop_cancel_task(&group->recovered);
    loop_cancel_task(&group->care);
    loop_cancel_task(&group->left);
    loop_remove_queue(&group->leave_deadlines);
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

const char *group_upstream_label(const struct group *group, size_t slot)
{
    assert(slot < CONFIG_UPSTREAM_SLOTS);
    const struct upstream *upstream = group->slots[slot];
    return upstream ? upstream->config->label : "an upstream";
}

size_t group_upstream_addresses(const struct group *group, size_t slot,
                                struct address out[static RACE_ADDRESSES_MAX],
                                enum failure *failure)
{
    assert(failure);
    assert(slot < CONFIG_UPSTREAM_SLOTS && group->slots[slot]);
    const struct upstream *upstream = group->slots[slot];
    *failure = FAILURE_NONE;
    if (upstream->name)
        return name_addresses(upstream->name, out, failure);
    out[0] = upstream->config->address;
    return 1;
}

bool group_is_leaving(const struct group *group)
{
    return !list_is_empty(&group->leaving);
}

static void set_durations(struct group *group)
{
    const struct snapshot *snapshot = group->snapshot;
    struct connection_queues *queues = &group->queues;
    group->waiting.park_ns = snapshot->timeouts.park_ns;
    group->self_checks.duration_ns = snapshot->timeouts.request_ns;
    group->leave_deadlines.duration_ns = snapshot->timeouts.request_ns;
    name_queues_reload(&group->name_queues, snapshot);
    queues->connect.duration_ns = snapshot->timeouts.connect_ns;
    queues->handshake.duration_ns = snapshot->timeouts.handshake_ns;
    queues->spare_idle.duration_ns = least_of(SPARE_IDLE_NS, snapshot->timeouts.idle_ns);
    queues->lane_idle.duration_ns = least_of(LANE_IDLE_NS, snapshot->timeouts.idle_ns);
}

/* Whoever waits may be asked at an upstream that is new. */
upstream_set group_reload(struct group *group, const struct snapshot *snapshot)
{
    assert(snapshot->strategy <= STRATEGY_HASH);
    group->snapshot = snapshot;
    set_durations(group);
    upstream_set changed;
    if (group_set_upstreams(group, &changed) != STATUS_OK)
        log_event(LOG_LEVEL_ERROR, "upstream_not_opened", "cause", "memory is short", NULL);
    if (changed == 0)
        return 0;
    waiting_note_upstream(&group->waiting);
    waiting_resume_parked(&group->waiting);
    waiting_serve_soon(&group->waiting);
    group_begin_anew(group);
    return changed;
}

void group_network_changed(struct group *group)
{
    bool is_changed = false;
    LIST_EACH (struct upstream, upstream, &group->upstreams, link) {
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
    LIST_EACH (struct upstream, upstream, &group->upstreams, link) {
        name_network_changed(upstream->name);
        (void)route_look_up(&upstream->route);
        upstream_start_over(upstream);
    }
    group_begin_anew(group);
}
