// SPDX-License-Identifier: Apache-2.0
/* What concerns all upstreams of one worker: trials, standby, who waits, coming and going.
 *
 * When no upstream is usable asks wait for one (timeouts.park), for whom trials are made again and
 * again, none of them with a query. While there is traffic, two upstreams have connections; without
 * it none is opened.
 *
 * An upstream that the configuration is without leaves: it is asked nothing more, what is in flight
 * there may end within timeouts.request and is then asked elsewhere. Until it is gone its slot is
 * its own, and the snapshot that it was configured in has to stay.
 *
 * Thread: one worker.   Owner: the worker. */
#include "upstream/group.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/numbers.h"

/* When all upstreams are away the local link is the first to blame, so they are tried again and
 * again, however long their back-off has grown: after the least at first, and soon after the most.
 */
#define AWAY_RETRY_MIN_NS (50 * NANOSECONDS_PER_MILLISECOND)
#define AWAY_RETRY_MAX_NS (250 * NANOSECONDS_PER_MILLISECOND)

#define OPEN_AGAIN_NS (100 * NANOSECONDS_PER_MILLISECOND) /* while memory is short */
#define TRAFFIC_NS (10 * NANOSECONDS_PER_SECOND)          /* after a request there may be more */
#define CONNECT_INTERVAL_NS (1 * NANOSECONDS_PER_MILLISECOND) /* 1,000 a second, at most */

enum {
    STANDBY_COUNT = 2, /* upstreams with a connection while there is traffic */
    /* At a time to an upstream while all are away: a connect whose first packet was lost is not
     * repeated by TCP within a second. */
    TRIALS_MAX = 4,
    CONNECT_BURST = 64, /* every upstream at once, twice */
};

/* --- Coming and going --- */

static void destroy(struct upstream *upstream)
{
    upstream->group->slots[upstream->path.slot] = NULL;
    upstream_close(upstream);
    free(upstream);
}

/* Behind the ends of their connections. */
static void close_left(struct loop_task *task)
{
    struct group *group = CONTAINER_OF(task, struct group, left);
    struct list staying;
    struct list *link;
    list_init(&staying);
    while ((link = list_take_first(&group->leaving))) {
        struct upstream *upstream = CONTAINER_OF(link, struct upstream, link);
        if (upstream_has_left(upstream))
            destroy(upstream);
        else
            list_append(&staying, link);
    }
    list_append_all(&group->leaving, &staying);
}

static void on_leave_deadline(struct deadline *deadline, uint64_t now)
{
    (void)now;
    upstream_end_leaving(CONTAINER_OF(deadline, struct upstream, leave_deadline));
}

static uint64_t hash_label(const struct group *group, const struct upstream_config *config)
{
    return siphash(&group->hash_key, config->label, strlen(config->label));
}

static enum status open_upstream(struct group *group, const struct upstream_config *config)
{
    assert(!group->slots[config->slot]);
    struct upstream *upstream = calloc(1, sizeof(*upstream));
    if (!upstream)
        return STATUS_FULL;
    const enum status status = upstream_open(upstream, &group->settings, config);
    if (status != STATUS_OK) {
        upstream_close(upstream);
        free(upstream);
        return status;
    }
    upstream->label_hash = hash_label(group, config);
    group->slots[config->slot] = upstream;
    list_append(&group->upstreams, &upstream->link);
    return STATUS_OK;
}

static void leave(struct group *group, struct upstream *upstream)
{
    list_append(&group->leaving, &upstream->link);
    deadline_arm(&group->leave_deadlines, &upstream->leave_deadline, group->loop->now);
    upstream_leave(upstream);
    loop_defer(group->loop, &group->left, LOOP_REAP);
}

static upstream_set slots_of(const struct list *upstreams)
{
    upstream_set slots = 0;
    LIST_EACH (const struct upstream, upstream, upstreams, link)
        slots |= upstream_bit(upstream->path.slot);
    return slots;
}

static void keep(struct group *group, const struct upstream_config *config)
{
    struct upstream *upstream = group->slots[config->slot];
    list_remove(&upstream->link);
    list_append(&group->upstreams, &upstream->link);
    upstream->label_hash = hash_label(group, config);
    upstream_reload(upstream, config, group->snapshot);
}

/* In the order of the snapshot. The first failure, if there is any. */
static enum status keep_and_open(struct group *group)
{
    enum status status = STATUS_OK;
    for (size_t i = 0; i < group->snapshot->upstream_count; i++) {
        const struct upstream_config *config = &group->snapshot->upstreams[i];
        if (group->slots[config->slot]) {
            keep(group, config);
            continue;
        }
        const enum status opened = open_upstream(group, config);
        if (status == STATUS_OK)
            status = opened;
    }
    group->lacks_some = status != STATUS_OK;
    group->next_open_ns = group->loop->now + OPEN_AGAIN_NS;
    return status;
}

enum status group_set_upstreams(struct group *group, upstream_set *changed)
{
    const struct snapshot *snapshot = group->snapshot;
    assert(snapshot->upstream_count > 0 && snapshot->upstream_count <= CONFIG_UPSTREAMS_MAX);
    assert(list_is_empty(&group->leaving));
    struct list former;
    struct list *link;
    group->settings.snapshot = snapshot;
    *changed = upstreams_slots(snapshot) ^ slots_of(&group->upstreams);
    list_init(&former);
    list_append_all(&former, &group->upstreams);
    const enum status status = keep_and_open(group);
    while ((link = list_take_first(&former)))
        leave(group, CONTAINER_OF(link, struct upstream, link));
    LIST_EACH (struct upstream, upstream, &group->upstreams, link)
        name_reload(upstream->name, upstream->config, *changed);
    return status;
}

/* --- Trials --- */

bool group_is_away(const struct group *group)
{
    LIST_EACH (const struct upstream, upstream, &group->upstreams, link)
        if (path_is_usable(&upstream->path))
            return false;
    return true;
}

/* True when the last try is long enough ago for one that does not wait for its back-off; all are
 * away. */
static bool is_rested(const struct upstream *upstream)
{
    const struct group *group = upstream->group;
    const uint64_t away_ns = group->loop->now - group->away_since_ns;
    const uint64_t rest_ns = least_of(AWAY_RETRY_MAX_NS, most_of(AWAY_RETRY_MIN_NS, away_ns / 4));
    return group->loop->now - upstream->attempted_ns >= rest_ns &&
           upstream->path.last_failure != FAILURE_SELF;
}

/* Starts a trial connection to each upstream whose back-off is over; to all when all are away,
 * since nobody knows which will be back first. */
static void try_again(struct group *group)
{
    if (group->lacks_some && group->loop->now >= group->next_open_ns)
        (void)keep_and_open(group);
    const bool is_away = group_is_away(group);
    if (!is_away)
        group->away_since_ns = 0;
    else if (group->away_since_ns == 0)
        group->away_since_ns = group->loop->now;
    LIST_EACH (struct upstream, upstream, &group->upstreams, link) {
        if (!path_is_usable(&upstream->path) &&
            (group->loop->now >= upstream->path.retry_ns || (is_away && is_rested(upstream))))
            upstream_try_again(upstream, is_away ? TRIALS_MAX : 1);
    }
}

/* At the end of the turn, since a lookup that is woken sends requests, and the recovery may be told
 * while one of its own is about to end. */
static void on_back(struct upstream *upstream)
{
    struct group *group = upstream->group;
    if (upstream->path.is_leaving) /* nobody may be asked there */
        return;
    waiting_note_upstream(&group->waiting);
    loop_defer(group->loop, &group->recovered, LOOP_FLUSH);
}

static void hasten_all(struct loop_task *task)
{
    struct group *group = CONTAINER_OF(task, struct group, recovered);
    LIST_EACH (struct upstream, upstream, &group->upstreams, link)
        upstream_hasten(upstream);
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

/* None is up of those that are not `excluded`, and one of them may come back. */
static bool may_come_back(const struct group *group, upstream_set excluded)
{
    bool may_one = false;
    LIST_EACH (const struct upstream, upstream, &group->upstreams, link) {
        if (excluded & upstream_bit(upstream->path.slot))
            continue;
        if (path_is_usable(&upstream->path))
            return false;
        may_one = may_one || failure_is(upstream->path.last_failure, FAILURE_PASSES);
    }
    return may_one;
}

bool group_park(struct group *group, upstream_set excluded, struct waiter *waiter)
{
    assert(waiter->resume);
    return may_come_back(group, excluded) && waiting_park(&group->waiting, waiter);
}

static void on_failed(struct upstream *upstream, enum failure failure)
{
    struct group *group = upstream->group;
    if (upstream->path.is_leaving) /* nobody waits for it */
        return;
    if (group_is_away(group))
        waiting_note_trial(&group->waiting, failure_is(failure, FAILURE_PASSES));
    else
        waiting_note_upstream(&group->waiting);
}

/* --- Connections before they are needed --- */

void group_begin_anew(struct group *group)
{
    if (!has_traffic(group))
        return;
    try_again(group);
    loop_defer(group->loop, &group->care, LOOP_FLUSH);
}

static bool may_connect(struct upstream *upstream)
{
    struct group *group = upstream->group;
    return rate_fits(&group->next_connect_ns, group->loop->now, CONNECT_INTERVAL_NS,
                     CONNECT_BURST * CONNECT_INTERVAL_NS);
}

/* Only upstreams that have not failed since their last answer: the others have their trials. */
static void keep_standby(struct loop_task *task)
{
    struct group *group = CONTAINER_OF(task, struct group, care);
    size_t count = 0;
    LIST_EACH (const struct upstream, upstream, &group->upstreams, link)
        count += path_is_usable(&upstream->path) && upstream_has_connection(upstream);
    LIST_EACH (struct upstream, upstream, &group->upstreams, link) {
        if (count >= STANDBY_COUNT)
            return;
        if (!path_is_usable(&upstream->path) || upstream->path.failures > 0 ||
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

/* While there is traffic it is done before it is needed. */
static void on_care(struct upstream *upstream)
{
    struct group *group = upstream->group;
    if (upstream->path.is_leaving)
        loop_defer(group->loop, &group->left, LOOP_REAP);
    else if (has_traffic(group))
        loop_defer(group->loop, &group->care, LOOP_FLUSH);
}

static const struct upstream_events upstream_events = {
    .on_back = on_back,
    .on_failed = on_failed,
    .on_care = on_care,
    .may_connect = may_connect,
};

void group_init(struct group *group)
{
    group->hedge_credit = HEDGE_START * HEDGE_COST;
    random_init(&group->random);
    blame_init(&group->blames);
    list_init(&group->upstreams);
    list_init(&group->leaving);
    loop_task_init(&group->recovered, hasten_all);
    loop_task_init(&group->care, keep_standby);
    loop_task_init(&group->left, close_left);
    loop_add_queue(group->loop, &group->leave_deadlines, group->snapshot->timeouts.request_ns,
                   on_leave_deadline);
    waiting_open(&group->waiting, group->loop, group->snapshot->timeouts.park_ns, on_parked);
    struct upstream_settings *settings = &group->settings;
    settings->group = group;
    settings->events = &upstream_events;
    settings->random = &group->random;
    settings->waiting = &group->waiting;
    settings->scratch = &group->scratch;
}
