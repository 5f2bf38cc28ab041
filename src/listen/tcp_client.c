// SPDX-License-Identifier: Apache-2.0
/* One TCP client: messages in, queries, replies out in whatever order they come, and the end.
 *
 * Everything that can happen (bytes, a reply, a deadline, room among the queries) changes the facts
 * in struct tcp_client and then calls settle(), the one place that decides from the facts whether
 * to read on, whether it is over, and which deadlines run. A reply given inside query_begin only
 * appends to the stream, so ten thousand cached answers need no more stack than one (FAULTS B6).
 *
 * A client is held back, its bytes waiting in the kernel, while it has limits.tcp_queries in
 * flight, while it does not take its replies (B4), while the worker has no query to spare, and
 * while the stream still has messages of it: those are left over by shares, for which all clients
 * take turns.
 *
 * Thread: one worker. Owner: struct tcp_clients.
 * RFC: 7766 6.2.1, 6.2.3, 6.2.4, 7 (pipelining, idle, closing, order), 9210 4. */
#include "listen/tcp_client.h"

#include <assert.h>
#include <string.h>

#include "dns/dns.h"
#include "net/socket.h"

enum {
    UNITS_READ = 128,        /* of the turn's budget spent at once when bytes have come */
    UNITS_LEFT_OVER = 16,    /* at once on what was left over: then others have their turn */
    OUT_LIMIT = 1024 * 1024, /* a reply beyond it closes the client */
    OUT_HIGH = 64 * 1024,    /* not read above it, so the rest is for the queries in flight */
    READS_MAX = 1024,        /* reads that brought no whole message (FAULTS B3) */
    TOO_EARLY_MAX = 8,       /* clients that find no room before the others wait on */
};

static void settle(struct tcp_client *client);

static struct tcp_client *client_of(struct stream *stream)
{
    return CONTAINER_OF(stream, struct tcp_client, stream);
}

static uint64_t now_of(const struct tcp_client *client)
{
    return client->clients->resolver->loop->now;
}

/* --- Replies --- */

/* False when it never was in flight: its query_begin has not returned, and take_messages, which is
 * below us on the stack, will settle. */
static bool release_query(struct tcp_client *client, struct query *query)
{
    if (!list_is_linked(&query->sibling))
        return false;
    assert(client->in_flight > 0);
    assert(client->seat.account);
    list_remove(&query->sibling);
    client->in_flight--;
    clients_end_stream_query(&client->seat);
    clients_move(&client->seat, client->seat.is_idle, now_of(client));
    /* Not at once, so that a client at its limit is not paused and resumed for every message. */
    const uint32_t limit = client->clients->resolver->snapshot->limits.tcp_queries;
    if (client->in_flight < limit - limit / 8)
        client->is_at_limit = false;
    return true;
}

/* Behind the reply, for which there may have been no room. */
static void end_query(struct tcp_client *client, struct query *query, bool is_queued)
{
    const bool was_in_flight = release_query(client, query);
    if (!is_queued) {
        metric_add(&client->clients->resolver->metrics->dropped_gone, 1);
        stream_close(&client->stream, FAILURE_STALLED);
    }
    if (was_in_flight)
        settle(client);
}

static void send_reply(struct query *query, const uint8_t *reply, size_t length)
{
    struct tcp_client *client = query->origin.listener;
    uint8_t *room = stream_begin_message(&client->stream, length);
    if (room) {
        memcpy(room, reply, length);
        stream_end_message(&client->stream, length);
    }
    end_query(client, query, room != NULL);
}

static void send_around(struct query *query, const uint8_t *reply, size_t length, size_t body_at,
                        struct body *body)
{
    struct tcp_client *client = query->origin.listener;
    end_query(client, query, stream_send_around(&client->stream, reply, length, body_at, body));
}

static const struct transport tcp_transport = {.send = send_reply, .send_around = send_around};

/* --- Messages --- */

static bool may_take(const struct tcp_client *client)
{
    return client->stream.state == STREAM_OPEN && !client->is_ending &&
           !list_is_linked(&client->starved) && !client->is_at_limit &&
           stream_unsent(&client->stream) < OUT_HIGH;
}

/* Nothing of it is in our hands: no query, no reply, and nothing that holds it back. */
static bool is_idle(const struct tcp_client *client)
{
    return may_take(client) && client->in_flight == 0 && stream_unsent(&client->stream) == 0;
}

static void wait_for_query(struct tcp_client *client)
{
    struct tcp_clients *clients = client->clients;
    list_append(&clients->starved, &client->starved);
    if (!list_is_linked(&clients->room.link))
        resolver_wait_for_space(clients->resolver, &clients->room);
}

/* One that would have to wait, and cannot, is begun again when it can: only then is it known to be
 * no cached one, which is answered whoever waits (FAULTS I4). */
static void begin_query(struct tcp_client *client, const uint8_t *message, size_t length)
{
    struct resolver *resolver = client->clients->resolver;
    const struct origin origin = {
        .transport = &tcp_transport, .listener = client, .client = client->address};
    struct query *query = NULL;
    if (query_begin(resolver, &origin, message, length, &query) == STATUS_FULL) {
        stream_return_message(&client->stream, length);
        wait_for_query(client);
        return;
    }
    metric_add(&resolver->metrics->queries_tcp, 1);
    if (query) {
        list_append(&client->queries, &query->sibling);
        client->in_flight++;
        clients_begin_stream_query(&client->seat, now_of(client));
        client->is_at_limit = client->in_flight >= resolver->snapshot->limits.tcp_queries;
    }
    client->asked++;
    const uint32_t total = resolver->snapshot->limits.tcp_queries_total;
    if (total > 0 && client->asked >= total)
        client->is_ending = true;
}

static void take_message(struct tcp_client *client)
{
    const uint8_t *message;
    size_t length;
    if (stream_next_message(&client->stream, &message, &length) != STATUS_OK)
        return;
    deadline_cancel(&client->message); /* the next message has a deadline of its own */
    client->reads = 0;
    if (length < DNS_HEADER_SIZE) /* framing is lost, or it means no good (FAULTS B2) */
        client->is_ending = true;
    else
        begin_query(client, message, length);
    if (client->is_overdue && is_idle(client)) /* it was not a query */
        stream_close(&client->stream, FAILURE_NONE);
}

/* Each message spends something, or ends the client. */
static void take_messages(struct tcp_client *client, int32_t units)
{
    const struct loop *loop = client->stream.loop;
    const int32_t budget = loop->budget;
    while (stream_has_message(&client->stream) && may_take(client) && !loop_is_spent(loop) &&
           budget - loop->budget < units)
        take_message(client);
    settle(client);
}

/* --- What to do next --- */

/* The peer's end is read only behind its last message, so what it sent before is in flight or
 * answered (FAULTS B8). */
static bool is_over(const struct tcp_client *client)
{
    return (client->is_ending || client->stream.ended) && client->in_flight == 0;
}

/* More bytes of a message do not extend its deadline (FAULTS B3). */
static void settle_message(struct tcp_client *client)
{
    const struct stream *stream = &client->stream;
    const bool is_awaited = !stream_has_message(stream) && !stream->ended && !stream->finishing &&
                            may_take(client) && stream_has_partial(stream);
    if (!is_awaited)
        deadline_cancel(&client->message);
    else if (!list_is_linked(&client->message.link))
        deadline_arm(&client->clients->message, &client->message, now_of(client));
}

/* Only a query, or a reply to one that is none, ends idle time; responses and other messages that
 * are dropped leave it running (FAULTS A2, B10). */
static void settle_idle(struct tcp_client *client)
{
    if (!is_idle(client)) {
        client->is_overdue = false;
        deadline_cancel(&client->idle);
    } else if (!client->is_overdue && !list_is_linked(&client->idle.link)) {
        deadline_arm(&client->clients->idle, &client->idle, now_of(client));
    }
}

static void settle_seat(struct tcp_client *client)
{
    const bool idle = is_idle(client);
    if (idle != client->seat.is_idle)
        clients_move(&client->seat, idle, now_of(client));
}

static void settle_send(struct tcp_client *client)
{
    if (stream_unsent(&client->stream) == 0)
        deadline_cancel(&client->send);
    else if (!list_is_linked(&client->send.link))
        deadline_arm(&client->clients->send, &client->send, now_of(client));
}

static void settle(struct tcp_client *client)
{
    struct stream *stream = &client->stream;
    if (stream->state == STREAM_CLOSED)
        return; /* on_closed comes */
    const bool has_message = stream_has_message(stream);
    if (stream->bytes_received >= client->last_byte && !has_message)
        client->is_ending = true;
    if (has_message && may_take(client))
        loop_defer(stream->loop, &client->take, LOOP_LEFT_OVER);
    const bool reads = !has_message && may_take(client);
    if (reads && stream->reading_paused)
        stream_resume(stream);
    if (!reads && !stream->reading_paused)
        stream_pause(stream);
    if (is_over(client) && !stream->finishing)
        stream_finish(stream, FAILURE_NONE);
    settle_message(client);
    settle_idle(client);
    settle_seat(client);
    settle_send(client);
    metric_set(&client->clients->resolver->metrics->tcp_memory,
               client->clients->resolver->output.used);
    if (tcp_clients_are_short(client->clients))
        loop_defer(stream->loop, &client->clients->relief, LOOP_NEXT_TURN);
}

/* --- Events of the stream --- */

static void on_readable(struct stream *stream)
{
    struct tcp_client *client = client_of(stream);
    client->reads++;
    take_messages(client, UNITS_READ);
    if (list_is_linked(&client->message.link) && client->reads > READS_MAX)
        tcp_client_end(client);
}

static void on_written(struct stream *stream)
{
    struct tcp_client *client = client_of(stream);
    deadline_cancel(&client->send); /* progress: what still waits has its full time again */
    settle(client);
}

static void on_end(struct stream *stream)
{
    settle(client_of(stream));
}

static void on_closed(struct stream *stream, enum failure failure)
{
    (void)failure;
    tcp_client_free(client_of(stream));
}

static const struct stream_handler stream_handler = {
    .on_readable = on_readable,
    .on_written = on_written,
    .on_end = on_end,
    .on_closed = on_closed,
};

/* --- Events of the loop and the resolver --- */

/* A message that has begun has its own time to become whole. */
void tcp_client_on_idle(struct deadline *deadline, uint64_t now)
{
    (void)now;
    struct tcp_client *client = CONTAINER_OF(deadline, struct tcp_client, idle);
    client->is_overdue = list_is_linked(&client->message.link);
    if (!client->is_overdue)
        stream_close(&client->stream, FAILURE_NONE);
}

void tcp_client_on_message_timeout(struct deadline *deadline, uint64_t now)
{
    (void)now;
    tcp_client_end(CONTAINER_OF(deadline, struct tcp_client, message));
}

void tcp_client_on_send_timeout(struct deadline *deadline, uint64_t now)
{
    (void)now;
    struct tcp_client *client = CONTAINER_OF(deadline, struct tcp_client, send);
    assert(stream_unsent(&client->stream) > 0);
    stream_close(&client->stream, FAILURE_STALLED);
}

void tcp_client_on_lifetime(struct deadline *deadline, uint64_t now)
{
    (void)now;
    tcp_client_end(CONTAINER_OF(deadline, struct tcp_client, lifetime));
}

static void on_take(struct loop_task *task)
{
    take_messages(CONTAINER_OF(task, struct tcp_client, take), UNITS_LEFT_OVER);
}

/* By turns: those that were too early are the last next time. */
void tcp_client_on_space(struct starved *room)
{
    struct tcp_clients *clients = CONTAINER_OF(room, struct tcp_clients, room);
    const struct resolver *resolver = clients->resolver;
    struct list waiting;
    size_t too_early = 0;
    list_init(&waiting);
    list_append_all(&waiting, &clients->starved);
    while (!list_is_empty(&waiting) && too_early < TOO_EARLY_MAX && resolver_has_room(resolver) &&
           !loop_is_spent(resolver->loop)) {
        struct tcp_client *client =
            CONTAINER_OF(list_take_first(&waiting), struct tcp_client, starved);
        take_messages(client, UNITS_LEFT_OVER);
        too_early += list_is_linked(&client->starved);
    }
    list_append_all(&waiting, &clients->starved);
    list_append_all(&clients->starved, &waiting);
    if (!list_is_empty(&clients->starved) && !list_is_linked(&room->link))
        resolver_wait_for_space(clients->resolver, room);
}

/* --- From open to free --- */

enum status tcp_client_open(struct tcp_clients *clients, int fd, const struct address *address)
{
    assert(address && clients->resolver);
    assert(fd >= 0 && !clients->draining);
    struct tcp_client *client = pool_take(&clients->pool);
    if (!client)
        return STATUS_FULL;
    *client = (struct tcp_client){.clients = clients, .address = *address, .last_byte = UINT64_MAX};
    struct loop *loop = clients->resolver->loop;
    struct clients *accounts = clients->resolver->clients;
    struct seat *gives_way;
    enum status status = STATUS_FULL;
    if (!clients_connect(accounts, &client->seat, address, loop->now, &gives_way) ||
        (status = stream_accept(&client->stream, loop, &stream_handler, fd, OUT_LIMIT)) !=
            STATUS_OK) {
        clients_disconnect(accounts, &client->seat);
        pool_give(&clients->pool, client);
        return status;
    }
    if (gives_way)
        tcp_client_evict(CONTAINER_OF(gives_way, struct tcp_client, seat));
    client->stream.account = &clients->resolver->output;
    list_init(&client->starved);
    list_init(&client->queries);
    deadline_init(&client->idle);
    deadline_init(&client->message);
    deadline_init(&client->send);
    deadline_init(&client->lifetime);
    loop_task_init(&client->take, on_take);
    list_append(&clients->open, &client->link);
    metric_add(&clients->resolver->metrics->tcp_clients, 1);
    if (clients->resolver->config->limits.tcp_lifetime_ns > 0)
        deadline_arm(&clients->lifetime, &client->lifetime, loop->now);
    settle(client);
    return STATUS_OK;
}

void tcp_client_end(struct tcp_client *client)
{
    client->is_ending = true;
    settle(client);
}

void tcp_client_drain(struct tcp_client *client)
{
    assert(client->clients->draining && client->last_byte == UINT64_MAX);
    client->last_byte = client->stream.bytes_received + socket_unread(client->stream.fd);
    settle(client);
}

/* The resolver forgets the queries one by one; their lookups go on for others and the cache. */
static void drop_queries(struct tcp_client *client)
{
    struct resolver *resolver = client->clients->resolver;
    while (!list_is_empty(&client->queries)) {
        struct query *query = CONTAINER_OF(client->queries.next, struct query, sibling);
        (void)release_query(client, query);
        metric_add(&resolver->metrics->dropped_gone, 1);
        assert(query->origin.listener == client);
        query_drop(resolver, query);
    }
}

void tcp_client_evict(struct tcp_client *client)
{
    assert(client->seat.account);
    struct resolver *resolver = client->clients->resolver;
    stream_close(&client->stream, FAILURE_STALLED);
    drop_queries(client);
    clients_disconnect(resolver->clients, &client->seat);
    metric_add(&resolver->metrics->tcp_evicted, 1);
}

void tcp_client_free(struct tcp_client *client)
{
    struct tcp_clients *clients = client->clients;
    stream_close(&client->stream, FAILURE_NONE); /* so that no reply finds it open */
    drop_queries(client);
    assert(client->in_flight == 0);
    assert(list_is_empty(&client->queries) && list_is_linked(&client->link));
    deadline_cancel(&client->idle);
    deadline_cancel(&client->message);
    deadline_cancel(&client->send);
    deadline_cancel(&client->lifetime);
    loop_cancel_task(&client->take);
    list_remove(&client->starved);
    list_remove(&client->link);
    stream_free(&client->stream);
    clients_disconnect(clients->resolver->clients, &client->seat);
    pool_give(&clients->pool, client);
    metric_subtract(&clients->resolver->metrics->tcp_clients, 1);
    metric_set(&clients->resolver->metrics->tcp_memory, clients->resolver->output.used);
}
