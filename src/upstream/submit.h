// SPDX-License-Identifier: Apache-2.0
/* Sending requests: see submit.c. */
#ifndef UPSTREAM_SUBMIT_H
#define UPSTREAM_SUBMIT_H

#include "upstream/group.h"
#include "upstream/lanes.h"

enum request_scope {
    REQUEST_ANYWHERE,  /* an upstream not yet asked for this ask, else one a second time */
    REQUEST_ELSEWHERE, /* only one that was not yet asked */
    REQUEST_CALM,      /* only one of those where no connection has ended of late */
};

/* Asks the best upstream by the strategy, within `scope`. STATUS_FULL when it has to wait for room,
 * STATUS_NOT_FOUND when there is none left to ask, with the cause in `*failure` and the upstream
 * that it is about in request->upstream. */
enum status request_submit(struct group *group, struct request *request, enum request_scope scope,
                           enum failure *failure);

/* Asks it where nothing else is asked: on a lane, at an upstream that it was not yet sent to, or is
 * not `avoided`, if there is one. STATUS_FULL when it has to wait for a lane,
 * STATUS_NOT_FOUND when there is nobody to ask. */
enum status request_submit_alone(struct group *group, struct request *request, upstream_set avoided,
                                 enum lane_kind kind);

/* Asks with `second` what `late` still waits for: another upstream that is ready to answer, or with
 * none a second connection of the same, which a request that waits for a handshake moves to. One
 * that was sent is asked twice only within the budget of hedges, at most 5 % of all. Once it has
 * had timeouts.request another is asked without a budget, and with none left the same again, alone.
 * STATUS_NOT_FOUND when there is nobody to ask in its stead, STATUS_FULL when the budget is spent,
 * or all lanes are taken. */
enum status request_hedge(struct group *group, struct request *late, struct request *second);

/* Gives up a request that has had timeouts.request, or that waits for a handshake as the `other`
 * one of its lookup does, and asks an upstream that is ready and was not yet asked for it, alone if
 * it was lost; when both are lost, also one that was. STATUS_NOT_FOUND when it is not so late or
 * there is none: then it goes on waiting. On any other failure it is no longer in flight. */
enum status request_move(struct group *group, struct request *lost, const struct request *other);

/* It has had timeouts.request. */
bool request_is_lost(const struct group *group, const struct request *request);

#endif
