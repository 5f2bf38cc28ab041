// SPDX-License-Identifier: Apache-2.0
/* Our own address on the way to an upstream. When it is another, or the way is gone, the network
 * has changed, and connections that were opened before lead nowhere (FAULTS J8).
 *
 * Thread: one worker.   Owner: the upstream. */
#include "upstream/route.h"

#include <assert.h>

#include "net/socket.h"

static bool has_target(const struct route *route)
{
    return route->target.any.sa_family != AF_UNSPEC;
}

bool route_look_up(struct route *route)
{
    struct address source = {0};
    enum status status = STATUS_SYSTEM;
    if (has_target(route))
        status = socket_source(&route->target, &source);
    if (status == STATUS_FULL)
        return false; /* what was known holds */
    const bool is_there = status == STATUS_OK;
    const bool is_same =
        is_there == route->is_there && (!is_there || address_equal(&source, &route->source));
    route->is_there = is_there;
    route->source = source;
    return !is_same;
}

void route_to(struct route *route, const struct address *target)
{
    assert(target->any.sa_family != AF_UNSPEC);
    if (has_target(route) && address_equal(&route->target, target))
        return;
    route->target = *target;
    (void)route_look_up(route);
}
