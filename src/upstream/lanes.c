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

#include "base/numbers.h"

enum {
    LANES_CONFINED = 2,
    LANES_LOST =
        LANES_MAX / 2,   /* names that are never answered may be many, and hold them for long */
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

/* True when one of the upstream's makes room for a fresh one: it closes, or does nothing. */
static bool close_one(struct upstream *upstream)
{
    LIST_EACH (struct connection, lane, &upstream->lanes, link) {
        if (lane->stream.state == STREAM_CLOSED)
            return true;
        if (!is_free(lane) || lane->requests == 0)
            continue;
        stream_close(&lane->stream, FAILURE_NONE);
        return true;
    }
    return false;
}

static void close_one_of_all(struct group *group)
{
    LIST_EACH (struct upstream, upstream, &group->upstreams, link)
        if (close_one(upstream))
            return;
}

static struct tally tally_of_all(const struct group *group)
{
    struct tally sum = {0};
    LIST_EACH (const struct upstream, upstream, &group->upstreams, link) {
        const struct tally tally = tally_of(&upstream->lanes);
        sum.all += tally.all;
        sum.busy += tally.busy;
        sum.confined += tally.confined;
    }
    return sum;
}

static size_t lanes_for(enum lane_kind kind)
{
    return kind == LANE_FRESH ? LANES_MAX - LANES_FREE_MIN : LANES_MAX;
}

/* As many as may be are on their way, or one for the confined was opened a moment ago. */
static bool is_too_soon(const struct upstream *upstream, enum lane_kind kind, size_t opening)
{
    const struct group *group = upstream->group;
    return opening >= 2 * upstream_opening_max(upstream) ||
           (kind == LANE_CONFINED && group->loop->now < group->next_confined_ns);
}

static enum status open_one(struct upstream *upstream, struct request *request, enum lane_kind kind)
{
    enum failure failure;
    struct group *group = upstream->group;
    struct connection *lane = upstream_open_connection(upstream, CONNECTION_LANE, &failure);
    if (!lane)
        return STATUS_FULL;
    lane->is_confined = kind == LANE_CONFINED;
    if (lane->is_confined)
        group->next_confined_ns = group->loop->now + CONFINED_INTERVAL_NS;
    return connection_submit(lane, request);
}

enum status lane_submit(struct upstream *upstream, struct request *request, enum lane_kind kind)
{
    const struct tally of_all = tally_of_all(upstream->group);
    const struct tally of_this = tally_of(&upstream->lanes);
    struct connection *lane = find_free(upstream, kind);
    if (kind == LANE_LOST &&
        (of_all.busy >= LANES_LOST || of_this.busy * 2 >= most_of(upstream_lanes_max(upstream), 2)))
        return STATUS_FULL;
    if (lane)
        return connection_submit(lane, request);
    if (kind == LANE_CONFINED && of_all.confined >= LANES_CONFINED)
        return STATUS_FULL;
    /* The line is served when one has closed. */
    if (of_this.all >= upstream_lanes_max(upstream)) {
        if (kind == LANE_FRESH)
            (void)close_one(upstream);
        return STATUS_FULL;
    }
    if (is_too_soon(upstream, kind, of_this.opening))
        return STATUS_FULL;
    if (of_all.all >= lanes_for(kind)) {
        close_one_of_all(upstream->group);
        return STATUS_FULL;
    }
    return open_one(upstream, request, kind);
}
