// SPDX-License-Identifier: Apache-2.0
/* Our own address on the way to an upstream: see route.c. */
#ifndef UPSTREAM_ROUTE_H
#define UPSTREAM_ROUTE_H

#include <stdbool.h>

#include "base/address.h"

/* Zeroed: to nowhere. */
struct route {
    bool is_there;
    struct address target; /* the upstream's address that the others are about */
    struct address source; /* ours, when it is there */
};

/* Looks it up; true when it is another than before. */
bool route_look_up(struct route *route);

/* From now on it is to this address. */
void route_to(struct route *route, const struct address *target);

#endif
