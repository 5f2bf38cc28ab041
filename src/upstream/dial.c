// SPDX-License-Identifier: Apache-2.0
/* Connecting to an upstream that is a host name: its addresses, then the race among them.
 *
 * To everybody else the connection is CONNECTING all the while and takes requests, which wait as
 * they do for any connect. The time of the connect begins with the race; the lookup before it has
 * bounds of its own.
 *
 * Thread: one worker.   Owner: its connection.
 * RFC:    8305. */
#include "upstream/dial.h"

#include <assert.h>
#include <stdlib.h>

struct dial {
    struct connection *connection;
    struct name *name;
    struct name_waiter waiter; /* for the addresses */
    struct race race;
    struct address addresses[RACE_ADDRESSES_MAX];
};

static void on_won(struct race *race, int fd, size_t index)
{
    struct dial *dial = CONTAINER_OF(race, struct dial, race);
    struct connection *connection = dial->connection;
    connection->peer = dial->addresses[index];
    stream_start(&connection->stream, fd, connection->path->tls);
}

static void on_lost(struct race *race, enum failure failure)
{
    struct dial *dial = CONTAINER_OF(race, struct dial, race);
    stream_close(&dial->connection->stream, failure);
}

static enum status start_race(struct dial *dial, size_t count, enum failure *failure)
{
    struct connection *connection = dial->connection;
    const struct path *path = connection->path;
    const struct race_timeouts timeouts = {.connect_ns = path->snapshot->timeouts.connect_ns,
                                           .user_ns = path->snapshot->timeouts.request_ns};
    TRY(race_start(&dial->race, path->loop, dial->addresses, count, timeouts, failure));
    connection_arm_connect(connection);
    return STATUS_OK;
}

static void on_name_end(struct name_waiter *waiter, enum failure failure)
{
    struct dial *dial = CONTAINER_OF(waiter, struct dial, waiter);
    struct stream *stream = &dial->connection->stream;
    if (stream->state == STREAM_CLOSED)
        return;
    const size_t count =
        failure == FAILURE_NONE ? name_addresses(dial->name, dial->addresses, &failure) : 0;
    if (count == 0 || start_race(dial, count, &failure) != STATUS_OK)
        stream_close(stream, failure);
}

enum status dial_begin(struct connection *connection, struct name *name, enum failure *failure)
{
    assert(!connection->dial && failure);
    struct dial *dial = calloc(1, sizeof(*dial));
    if (!dial) {
        *failure = FAILURE_LOCAL;
        return STATUS_FULL;
    }
    dial->connection = connection;
    dial->name = name;
    dial->waiter.on_end = on_name_end;
    dial->race.on_won = on_won;
    dial->race.on_lost = on_lost;
    list_init(&dial->waiter.link);
    const size_t count = name_addresses(name, dial->addresses, failure);
    const enum status status =
        count > 0 ? start_race(dial, count, failure) : name_wait(name, &dial->waiter, failure);
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
    list_remove(&dial->waiter.link);
    race_cancel(&dial->race);
    free(dial);
    connection->dial = NULL;
}
