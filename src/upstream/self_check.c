// SPDX-License-Identifier: Apache-2.0
/* Is the upstream this very daemon? Each one is asked once when it is first used, and again after
 * it was down, or when its name leads to another address; dns/self_probe.h tells with what.
 *
 * The check shares the connection with the queries and delays none. When the answer shows that it
 * is us, every connection to the upstream is closed at once: what was asked there is asked
 * elsewhere, and the queries that came round on themselves end with it. No answer, and any other
 * one, means that it is somebody else.
 *
 * Thread: one worker.   Owner: its upstream. */
#include "upstream/self_check.h"

#include <assert.h>

#include "dns/self_probe.h"

/* An upstream that closes whenever it is asked this must not be lost for it. */
enum { UNANSWERED_MAX = 3 };

static void on_done(struct request *request, const struct answer *answer, enum failure failure)
{
    struct self_check *check = CONTAINER_OF(request, struct self_check, request);
    deadline_cancel(&check->deadline);
    if (!answer) {
        /* A broken connection is told by the others on it; its successor is asked. */
        check->unanswered += !failure_is(failure, FAILURE_IS_OURS);
        return;
    }
    check->unanswered = 0;
    if (self_probe_is_answered(check->key, &check->question, answer)) {
        check->on_found(check);
        return;
    }
    check->is_done = true;
    path_is_back(check->path);
}

static void on_late(struct request *request)
{
    (void)request; /* it has a deadline of its own */
}

/* An upstream that answers others but not this is somebody else. One that is down for another cause
 * stays so: it has answered nothing. */
void self_check_on_deadline(struct deadline *deadline, uint64_t now)
{
    struct self_check *check = CONTAINER_OF(deadline, struct self_check, deadline);
    assert(request_is_in_flight(&check->request));
    (void)now;
    request_cancel(&check->request);
    check->is_done = true;
    if (check->path->last_failure == FAILURE_SELF)
        path_connected(check->path);
}

void self_check_init(struct self_check *check)
{
    request_init(&check->request, &check->question, &check->attempts, on_done, on_late);
    check->request.is_own = true;
    deadline_init(&check->deadline);
}

void self_check_forget(struct self_check *check)
{
    check->is_done = false;
    check->unanswered = 0;
}

void self_check_stop(struct self_check *check)
{
    request_cancel(&check->request);
    deadline_cancel(&check->deadline);
}

bool self_check_begin(struct self_check *check, struct connection *connection)
{
    assert(connection->use != CONNECTION_LANE);
    struct path *path = check->path;
    const bool is_done = check->is_done && address_equal(&check->peer, &connection->peer);
    if (!check->key || is_done || check->unanswered >= UNANSWERED_MAX)
        return false;
    const bool was_self = path->down && path->last_failure == FAILURE_SELF;
    if (request_is_in_flight(&check->request))
        return was_self;
    /* Half of the slots are left to queries; the next connection will do. */
    if (!connection_has_room(connection) ||
        (connection->in_flight + connection->abandoned + 1) * 2 >
            path->config->limits.upstream_requests)
        return was_self;
    self_probe_question(check->key, siphash_random_key().k0, &check->question);
    if (connection_submit(connection, &check->request) != STATUS_OK)
        return was_self;
    check->peer = connection->peer;
    check->is_done = false;
    metric_add(&path->metrics->probes, 1);
    /* That it is not answered says nothing about the path: queries tell that. */
    deadline_cancel(&check->request.late);
    deadline_arm(check->queue, &check->deadline, path->loop->now);
    return was_self;
}
