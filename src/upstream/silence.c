// SPDX-License-Identifier: Apache-2.0
/* A connection that says nothing: is it the question, the server or the path?
 *
 * When a request is late and not one message has come since it was sent, the connection is silent:
 * new requests go elsewhere, and it is asked something of our own. The answer to that is the end of
 * the silence, once until it answers one of the others; a request that was overtaken by the answer
 * to a later one begins none. No message by the age of a dead path: the path is dead, and all that
 * is in flight moves at once. Messages, but nothing that was asked for: it takes no more requests,
 * and those in flight may go on waiting, for the upstream may be merely slow.
 *
 * Thread: one worker. */
#include "upstream/silence.h"

#include <assert.h>

#include "base/numbers.h"
#include "net/socket.h"
#include "upstream/connection.h"

/* FAULTS F5: silence since the request was sent, however much was sent meanwhile. When something
 * that was asked later is answered, it is the question that is slow. */
static void note_silence(struct connection *connection, const struct request *request, uint64_t now)
{
    struct path *path = connection->path;
    const uint64_t since_ns = most_of(connection->last_message_ns, request->sent_ns);
    if (connection->state < CONNECTION_READY || connection->stream.state == STREAM_CLOSED ||
        connection->silent_since_ns > 0 || now - since_ns < path->late.duration_ns ||
        request->sent_ns < connection->answered_sent_ns)
        return;
    connection_fall_silent(connection, since_ns);
    metric_add(&path->metrics->silences, 1);
    if (!connection->is_pardoned && connection->use != CONNECTION_LANE)
        connection_probe(connection);
}

/* No request waits behind another on a lane, so that its silence costs nobody anything: its server
 * may take its time. */
static bool is_patient(const struct connection *connection)
{
    return connection->use == CONNECTION_LANE && connection->in_flight > 0 &&
           !socket_has_unacknowledged(connection->stream.fd);
}

void silence_on_late(struct deadline *deadline, uint64_t now)
{
    struct request *request = CONTAINER_OF(deadline, struct request, late);
    struct connection *connection = request->connection;
    assert(connection);
    note_silence(connection, request, now);
    deadline_arm(&connection->path->queues->overdue, &request->late, now);
    request->on_late(request);
}

/* Where all that we sent has arrived, the path is alive and the server hangs, or is busy: it is
 * given half as much again as a request may take. */
static bool is_dead(const struct connection *connection, uint64_t quiet_ns, uint64_t dead_ns)
{
    const uint64_t request_ns = connection->path->snapshot->timeouts.request_ns;
    if (quiet_ns >= request_ns + request_ns / 2)
        return true;
    return quiet_ns >= dead_ns && socket_has_unacknowledged(connection->stream.fd);
}

void silence_on_look(struct deadline *deadline, uint64_t now)
{
    struct connection *connection = CONTAINER_OF(deadline, struct connection, deadline);
    const struct path *path = connection->path;
    assert(connection->silent_since_ns > 0 && connection->state >= CONNECTION_READY);
    const uint64_t dead_ns = times_dead_ns(&path->times, path->snapshot->timeouts.request_ns);
    const uint64_t quiet_ns =
        now - most_of(connection->last_message_ns, connection->silent_since_ns);
    if (is_patient(connection)) {
        deadline_arm(&path->queues->silence, deadline, now);
        return;
    }
    if (is_dead(connection, quiet_ns, dead_ns)) {
        stream_close(&connection->stream, FAILURE_REQUEST_TIMEOUT);
        return;
    }
    const bool is_alive = connection->last_message_ns > connection->silent_since_ns;
    if (is_alive && now - connection->silent_since_ns >= path->snapshot->timeouts.request_ns)
        connection_drain(connection);
    if (connection->stream.state == STREAM_CLOSED)
        return;
    if (quiet_ns >= dead_ns / 2)
        connection_probe(connection);
    deadline_arm(&path->queues->silence, deadline, now);
}
