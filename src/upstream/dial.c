// SPDX-License-Identifier: Apache-2.0
/* Connecting to an upstream that is a host name: its addresses, then the race among them.
 *
 * To everybody else the connection is CONNECTING all the while and takes requests, which wait as
 * they do for any connect. The time of the connect begins with the race; the lookup before it has
 * bounds of its own.
 *
 * Thread: one worker.   Owner: its connection.
 * RFC:    8305. */
#include <assert.h>
#include <stdlib.h>

#include "upstream/names.h"

static void on_won(struct race *race, int fd, size_t index)
{
    struct dial *dial = CONTAINER_OF(race, struct dial, race);
    struct connection *connection = dial->connection;
    connection->peer = dial->addresses[index];
    stream_start(&connection->stream, fd, connection->upstream->tls);
}

static void on_lost(struct race *race, enum failure failure)
{
    struct dial *dial = CONTAINER_OF(race, struct dial, race);
    stream_close(&dial->connection->stream, failure);
}

static enum status start_race(struct dial *dial, size_t count, enum failure *failure)
{
    struct connection *connection = dial->connection;
    struct group *group = connection->upstream->group;
    const struct race_timeouts timeouts = {.connect_ns = group->config->timeouts.connect_ns,
                                           .user_ns = group->config->timeouts.request_ns};
    TRY(race_start(&dial->race, group->loop, dial->addresses, count, timeouts, failure));
    connection_arm_connect(connection);
    return STATUS_OK;
}

void dial_go(struct dial *dial)
{
    enum failure failure;
    list_remove(&dial->waiting);
    const size_t count =
        name_addresses(dial->connection->upstream->name, dial->addresses, &failure);
    assert(count > 0);
    if (dial->connection->stream.state != STREAM_CLOSED &&
        start_race(dial, count, &failure) != STATUS_OK)
        stream_close(&dial->connection->stream, failure);
}

void dial_fail(struct dial *dial, enum failure failure)
{
    list_remove(&dial->waiting);
    stream_close(&dial->connection->stream, failure);
}

enum status dial_begin(struct connection *connection, enum failure *failure)
{
    struct name *name = connection->upstream->name;
    struct dial *dial = calloc(1, sizeof(*dial));
    if (!dial) {
        *failure = FAILURE_LOCAL;
        return STATUS_FULL;
    }
    dial->connection = connection;
    dial->race.on_won = on_won;
    dial->race.on_lost = on_lost;
    list_init(&dial->waiting);
    const size_t count = name_addresses(name, dial->addresses, failure);
    const enum status status =
        count > 0 ? start_race(dial, count, failure) : name_wait(name, dial, failure);
    if (status != STATUS_OK) {
        free(dial);
        return status;
    }
    connection->dial = dial;
    return STATUS_OK;
}

void dial_end(struct connection *connection)
{
    struct dial *dial = connection->dial;
    if (!dial)
        return;
    list_remove(&dial->waiting);
    race_cancel(&dial->race);
    free(dial);
    connection->dial = NULL;
}
