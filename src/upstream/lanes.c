// SPDX-License-Identifier: Apache-2.0
/* Lanes: connections that carry one question at a time.
 *
 * What was on a connection that has ended may be why it ended. It is asked next where it can hurt
 * nobody, and where its end says more. A lane that has given its answer takes a few more, for
 * handshakes are dear.
 *
 * When all are taken those who want one wait in line (waiting.c); whoever holds one has a deadline.
 *
 * Thread: one worker.   Owner: the group. */
#include "upstream/lanes.h"

enum {
    LANES_CONFINED = 2,
    LANES_FREE_MIN = 16, /* that second looks leave to those that have yet ended nothing alone */
};

#define CONFINED_INTERVAL_NS (50 * NANOSECONDS_PER_MILLISECOND) /* 20 a second are opened */

static bool is_free(const struct connection *lane)
{
    return lane->state == CONNECTION_READY && connection_has_room(lane) && lane->in_flight == 0 &&
           lane->silent_since_ns == 0 && !connection_is_used_up(lane);
}

static struct connection *find_free(const struct upstream *upstream, enum lane_kind kind)
{
    LIST_EACH (struct connection, lane, &upstream->lanes, link)
        if (is_free(lane) && (kind != LANE_FRESH || lane->requests == 0) &&
            lane->is_confined == (kind == LANE_CONFINED))
            return lane;
    return NULL;
}

static size_t count_opening(const struct upstream *upstream)
{
    size_t count = 0;
    LIST_EACH (struct connection, lane, &upstream->lanes, link)
        count += lane->state < CONNECTION_READY;
    return count;
}

/* Room for a fresh one, when all are there and one of them does nothing. */
static void close_one(struct group *group)
{
    for (size_t i = 0; i < group->upstream_count; i++)
        LIST_EACH (struct connection, lane, &group->upstreams[i].lanes, link)
            if (lane->stream.state == STREAM_CLOSED) {
                return; /* it is on its way */
            } else if (is_free(lane) && lane->requests > 0) {
                stream_close(&lane->stream, FAILURE_NONE);
                return;
            }
}

static size_t count_confined(const struct group *group)
{
    size_t count = 0;
    for (size_t i = 0; i < group->upstream_count; i++)
        LIST_EACH (struct connection, lane, &group->upstreams[i].lanes, link)
            count += lane->is_confined;
    return count;
}

static size_t count_all(const struct group *group)
{
    size_t count = 0;
    for (size_t i = 0; i < group->upstream_count; i++)
        count += upstream_count_lanes(&group->upstreams[i]);
    return count;
}

static size_t most_of(enum lane_kind kind)
{
    return kind == LANE_FRESH ? LANES_MAX - LANES_FREE_MIN : LANES_MAX;
}

/* Were there room. */
static bool may_open(const struct upstream *upstream, enum lane_kind kind)
{
    const struct group *group = upstream->group;
    if (kind == LANE_CONFINED &&
        (count_confined(group) >= LANES_CONFINED || group->loop->now < group->next_confined_ns))
        return false;
    return upstream_count_lanes(upstream) < upstream_lanes_max(upstream) &&
           count_opening(upstream) < 2 * upstream_opening_max(upstream);
}

enum status lane_submit(struct upstream *upstream, struct request *request, enum lane_kind kind)
{
    enum failure failure;
    struct group *group = upstream->group;
    struct connection *lane = find_free(upstream, kind);
    if (lane)
        return connection_submit(lane, request);
    if (!may_open(upstream, kind))
        return STATUS_FULL;
    if (count_all(group) >= most_of(kind)) {
        close_one(group);
        return STATUS_FULL; /* the line is served when it has closed */
    }
    TRY(upstream_open_connection(upstream, CONNECTION_LANE, &failure));
    lane = CONTAINER_OF(upstream->lanes.previous, struct connection, link);
    lane->is_confined = kind == LANE_CONFINED;
    if (lane->is_confined)
        group->next_confined_ns = group->loop->now + CONFINED_INTERVAL_NS;
    return connection_submit(lane, request);
}
