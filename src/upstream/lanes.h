// SPDX-License-Identifier: Apache-2.0
/* Connections for one question at a time: see lanes.c. */
#ifndef UPSTREAM_LANES_H
#define UPSTREAM_LANES_H

#include "upstream/group.h"

enum lane_kind {
    LANE_ANY,
    LANE_FRESH,    /* one that has carried nothing else */
    LANE_LOST,     /* one of half of them, for what has had its time without an answer */
    LANE_CONFINED, /* one of the few for those that are known to be bad */
};

/* Puts the request on a lane of the upstream. STATUS_FULL when there is none, and none may be
 * opened. */
enum status lane_submit(struct upstream *upstream, struct request *request, enum lane_kind kind);

#endif
