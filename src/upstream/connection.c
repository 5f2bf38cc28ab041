// SPDX-License-Identifier: Apache-2.0
/* One pipelined DNS-over-TLS connection to one upstream: matching, states.
 *
 * Matching: an answer must name a slot in use (slots.c) and the question asked there; anything else
 * is counted and thrown away, and too much of it ends the connection. Its silence is judged by
 * silence.c, its end by its owner.
 *
 * Thread: the worker that opened it.   Owner: see connection.h.
 * RFC:    7858 (DoT), 7766 6.2 and 7 (pipelining, matching), 7828 (keepalive), 5452 (IDs). */
#include "upstream/connection.h"

#include <assert.h>
#include <stdlib.h>

#include "dns/extended_error.h"

enum {
    LANE_REQUESTS_MAX = 8,
    ID_SIZE = 2,        /* octets of a message */
    UNMATCHED_MAX = 64, /* answer nothing before the connection is given up (FAULTS F12, F13) */
};

/* An answer: its end is noticed a turn later. */
#define BEHIND_NS (1 * NANOSECONDS_PER_MILLISECOND)

static metric *state_gauge(const struct connection *connection)
{
    struct upstream_metrics *metrics = connection->path->metrics;
    switch (connection->state) {
    case CONNECTION_CONNECTING:
        return &metrics->connecting;
    case CONNECTION_HANDSHAKING:
        return &metrics->handshaking;
    case CONNECTION_READY:
        return &metrics->ready;
    case CONNECTION_DRAINING:
        return &metrics->draining;
    case CONNECTION_CLOSED:
        break;
    }
    return NULL;
}

/* The only writer of connection->state. */
static void connection_enter(struct connection *connection, enum connection_state state)
{
    assert(connection->state < state);
    assert(state == CONNECTION_CLOSED || state == connection->state + 1);
    metric_subtract(state_gauge(connection), 1);
    connection->state = state;
    if (state != CONNECTION_CLOSED)
        metric_add(state_gauge(connection), 1);
}

/* --- Requests --- */

static void detach(struct connection *connection, struct request *request)
{
    assert(request->connection == connection);
    assert(connection->in_flight > 0);
    request->connection = NULL;
    deadline_cancel(&request->late);
    connection->in_flight--;
    if (request->is_own) {
        connection->is_checked = false;
        return;
    }
    assert(connection->path->in_flight > 0);
    connection->path->in_flight--;
    metric_set(&connection->path->metrics->in_flight, connection->path->in_flight);
}

static void attach(struct connection *connection, struct request *request, uint16_t index)
{
    struct path *path = connection->path;
    assert(!request->connection && connection->slots.table[index].request == request);
    request->connection = connection;
    request->slot = index;
    request->upstream = path->slot;
    request->was_sent = false;
    request->sent_ns = path->loop->now;
    deadline_arm(&path->late, &request->late, path->loop->now);
    connection->requests++;
    connection->in_flight++;
    if (request->is_own) {
        connection->is_checked = true;
        return;
    }
    attempts_add(request->attempts, upstream_bit(path->slot));
    path->in_flight++;
    metric_set(&path->metrics->in_flight, path->in_flight);
    metric_add(&path->metrics->requests, 1);
    metric_add(&path->metrics->hedges, request->is_hedge);
}

static struct deadline_queue *idle_queue(const struct connection *connection)
{
    struct path *path = connection->path;
    if (connection->use == CONNECTION_MAIN)
        return &path->idle;
    return connection->use == CONNECTION_LANE ? &path->queues->lane_idle
                                              : &path->queues->spare_idle;
}

/* Not so many that a server's own limit would look like the question's doing. */
bool connection_is_used_up(const struct connection *lane)
{
    assert(lane->use == CONNECTION_LANE);
    return connection_aboard(lane) > lane->in_flight || lane->requests >= LANE_REQUESTS_MAX;
}

/* A connection on which nothing is in flight waits for the next request, or closes. One that is
 * silent waits for the answers that nobody needs any more, unless it is a lane. */
static void rest(struct connection *connection)
{
    if (connection->in_flight > 0)
        return;
    const bool is_done = connection->use == CONNECTION_LANE && connection_is_used_up(connection);
    if (connection->state == CONNECTION_DRAINING ||
        (is_done && connection->state == CONNECTION_READY))
        stream_close(&connection->stream, FAILURE_NONE);
    else if (connection->state == CONNECTION_READY && connection->silent_since_ns == 0)
        deadline_arm(idle_queue(connection), &connection->deadline, connection->path->loop->now);
}

bool connection_is_probed(const struct connection *connection)
{
    return connection->probe_slot < connection->slots.count;
}

uint32_t connection_aboard(const struct connection *connection)
{
    const bool is_probed = connection_is_probed(connection);
    return connection->in_flight + connection->abandoned - (is_probed ? 1 : 0);
}

void connection_drain(struct connection *connection)
{
    if (connection->state != CONNECTION_READY)
        return;
    if (connection->silent_since_ns == 0)
        deadline_cancel(&connection->deadline);
    connection_enter(connection, CONNECTION_DRAINING);
    rest(connection);
}

bool connection_takes_requests(const struct connection *connection)
{
    return connection->state <= CONNECTION_READY && connection->stream.state != STREAM_CLOSED;
}

bool connection_has_room(const struct connection *connection)
{
    const size_t count = connection->slots.count;
    const size_t kept = connection->probe_slot < count ? 0 : 1;
    return connection_takes_requests(connection) &&
           connection->in_flight + connection->abandoned + kept < count;
}

/* STATUS_FULL when there is no memory for it. */
static enum status write_query(struct connection *connection, const struct question *question,
                               uint16_t index)
{
    uint8_t *room = stream_begin_message(&connection->stream, MESSAGE_QUERY_MAX);
    if (!room)
        return STATUS_FULL;
    stream_end_message(&connection->stream,
                       message_build_query(question, slot_id(&connection->slots, index), room));
    return STATUS_OK;
}

/* Before the handshake it waits in its slot: who leaves it by then is not sent. */
enum status connection_submit(struct connection *connection, struct request *request)
{
    assert(connection_takes_requests(connection));
    const uint16_t index = slot_take(&connection->slots, request);
    if (connection->state == CONNECTION_READY) {
        if (write_query(connection, request->question, index) != STATUS_OK) {
            slot_give(&connection->slots, index);
            return STATUS_FULL;
        }
        if (connection->silent_since_ns == 0)
            deadline_cancel(&connection->deadline);
    }
    attach(connection, request, index);
    return STATUS_OK;
}

static void abandon(struct connection *connection, struct request *request)
{
    detach(connection, request);
    if (connection->state < CONNECTION_READY) {
        attempts_take_back(request->attempts, upstream_bit(request->upstream));
        request->attempts->returned++;
        connection->requests--;
        slot_give(&connection->slots, request->slot);
        return;
    }
    slot_abandon(&connection->slots, request->slot);
    connection->abandoned++;
    if (request->is_own)
        connection->check_slot = request->slot;
    /* Too many reserved IDs leave too few; the next connection starts with all of them. */
    if (connection->abandoned > connection->slots.count / 4)
        connection_drain(connection);
    rest(connection);
}

void request_cancel(struct request *request)
{
    list_remove(&request->link);
    if (request->connection)
        abandon(request->connection, request);
}

/* --- Answers --- */

/* FAILURE_NONE for an answer that ends the search. RFC 2136's codes are answers, too: they are
 * passed on. */
static enum failure judge(const struct answer *answer)
{
    if (answer->flags & DNS_FLAG_TC)
        return FAILURE_TRUNCATED_ANSWER;
    switch (answer->rcode) {
    case RCODE_NOERROR:
    case RCODE_NXDOMAIN:
    case RCODE_YXDOMAIN:
        return FAILURE_NONE;
    case RCODE_SERVFAIL:
        return FAILURE_SERVER_FAILURE;
    case RCODE_REFUSED:
        return FAILURE_REFUSED;
    default:
        return FAILURE_OTHER_RCODE;
    }
}

static void obey_keepalive(struct connection *connection, const struct answer *answer)
{
    if (!answer->has_keepalive)
        return;
    if (answer->keepalive_100ms == 0) {
        connection_drain(connection); /* RFC 7828 3.4: close as soon as everything is answered */
        return;
    }
    const uint64_t ours_ns = connection->path->snapshot->timeouts.idle_ns;
    const uint64_t theirs_ns = answer->keepalive_100ms * 100 * NANOSECONDS_PER_MILLISECOND;
    connection->path->idle.duration_ns = theirs_ns < ours_ns ? theirs_ns : ours_ns;
}

static void count_unmatched(struct connection *connection)
{
    metric_add(&connection->path->metrics->unmatched, 1);
    if (++connection->unmatched >= UNMATCHED_MAX)
        stream_close(&connection->stream, FAILURE_PROTOCOL);
}

static void note_answered(struct connection *connection, uint64_t sent_ns)
{
    if (connection->answered_sent_ns < sent_ns)
        connection->answered_sent_ns = sent_ns;
}

/* Of an answer to somebody's question. An error that is the last word about its name says nothing.
 */
static void note_worth(struct path *path, const struct answer *answer, enum failure failure)
{
    if (failure == FAILURE_NONE) {
        path->has_answered_well = true;
        path->errors = 0;
        path->contradicted = 0;
    } else if (!extended_errors_are_final(answer->extended_errors,
                                          answer->extended_errors_length)) {
        path->errors++;
        path->erred_ns = path->loop->now;
    }
}

/* Ends the request of `slot` with an answer, or with a failure. */
static void complete(struct connection *connection, struct slot *slot, const struct answer *answer,
                     enum failure failure)
{
    struct request *request = slot->request;
    struct path *path = connection->path;
    assert(request && (answer || failure != FAILURE_NONE));
    detach(connection, request);
    slot_give(&connection->slots, (uint16_t)(slot - connection->slots.table));
    connection->unmatched = 0;
    if (answer) {
        note_answered(connection, request->sent_ns);
        path_heard(path, request->sent_ns);
    }
    waiting_serve_soon(path->waiting);
    const bool is_check = request->is_own;
    if (failure != FAILURE_NONE && !is_check)
        metric_add(&path->metrics->failures[failure], 1);
    if (answer && !is_check) {
        connection->answers++;
        metric_add(&path->metrics->answers, 1);
        note_worth(path, answer, failure);
        if (request->is_hedge && failure == FAILURE_NONE)
            metric_add(&path->metrics->hedges_won, 1);
        path_answered(path);
        if (failure == FAILURE_NONE || failure == FAILURE_TRUNCATED_ANSWER)
            path_measure(path, path->loop->now - request->sent_ns);
        obey_keepalive(connection, answer);
    }
    rest(connection);
    request->on_done(request, answer, failure);
}

/* It has answered something that was asked of it: it may be asked more. */
static void trust(struct connection *connection)
{
    if (connection->silent_since_ns == 0)
        return;
    connection->silent_since_ns = 0;
    deadline_cancel(&connection->deadline);
    rest(connection);
}

/* The slot was that of a question of our own. That somebody is there does not mean that questions
 * are answered (FAULTS F20). */
static bool is_ours(struct connection *connection, uint16_t index)
{
    uint16_t *const own[] = {&connection->probe_slot, &connection->check_slot};
    for (size_t i = 0; i < sizeof(own) / sizeof(own[0]); i++) {
        if (*own[i] != index)
            continue;
        *own[i] = connection->slots.count;
        return true;
    }
    return false;
}

/* The answer to a request that gave up, or to a question of our own. */
static void receive_abandoned(struct connection *connection, struct slot *slot)
{
    const uint16_t index = (uint16_t)(slot - connection->slots.table);
    assert(slot->is_abandoned && connection->abandoned > 0);
    connection->abandoned--;
    slot_give(&connection->slots, index);
    const bool is_probe = index == connection->probe_slot;
    if (is_probe)
        note_answered(connection, connection->probe_sent_ns);
    path_heard(connection->path, is_probe ? connection->probe_sent_ns : connection->begun_ns);
    if (is_ours(connection, index)) {
        if (is_probe && (!connection->is_pardoned || connection_aboard(connection) == 0))
            trust(connection);
        connection->is_pardoned = connection->is_pardoned || is_probe;
        rest(connection);
        return;
    }
    metric_add(&connection->path->metrics->unmatched, 1);
    path_answered(connection->path);
    trust(connection);
}

static void receive(struct connection *connection, const uint8_t *message, size_t length)
{
    assert(connection->state == CONNECTION_READY || connection->state == CONNECTION_DRAINING);
    connection->last_message_ns = connection->path->loop->now;
    /* One too short for a header is bad, but the framing is intact (FAULTS F8): if it has an ID it
     * costs that request and nobody else. */
    struct slot *slot = length < ID_SIZE ? NULL : slot_of_id(&connection->slots, load_u16(message));
    if (!slot) {
        count_unmatched(connection);
        return;
    }
    if (slot->is_abandoned) {
        receive_abandoned(connection, slot);
        return;
    }
    struct answer answer;
    const enum status status = message_check_answer(message, length, slot->request->question,
                                                    connection->path->scratch, &answer);
    /* An answer without any question can only be meant for this one: a failure, not a stranger
     * (FAULTS G4). One with another question is a stranger (F12): this request goes on waiting. */
    if (status == STATUS_NOT_FOUND && load_u16(message + 4) > 0) {
        count_unmatched(connection);
        return;
    }
    /* Like the answer to a probe, that to the check says nothing about questions (FAULTS F20). */
    if (!slot->request->is_own) {
        trust(connection);
        connection->is_pardoned = false;
    }
    if (status == STATUS_OK)
        complete(connection, slot, &answer, judge(&answer));
    else
        complete(connection, slot, NULL, FAILURE_MALFORMED_ANSWER);
}

/* --- Events of the stream --- */

static struct connection *of_stream(struct stream *stream)
{
    return CONTAINER_OF(stream, struct connection, stream);
}

static void on_connected(struct stream *stream)
{
    struct connection *connection = of_stream(stream);
    const struct path *path = connection->path;
    connection_enter(connection, CONNECTION_HANDSHAKING);
    deadline_cancel(&connection->deadline);
    deadline_arm(&path->queues->handshake, &connection->deadline, path->loop->now);
}

/* What waited for the handshake leaves now, and its time begins. */
static void restart_requests(struct connection *connection)
{
    const struct path *path = connection->path;
    for (size_t i = 0; i < connection->slots.used; i++) {
        struct request *request = connection->slots.table[i].request;
        if (!request)
            continue;
        request->sent_ns = path->loop->now;
        deadline_arm(&connection->path->late, &request->late, path->loop->now);
        if (write_query(connection, request->question, (uint16_t)i) != STATUS_OK)
            stream_close(&connection->stream, FAILURE_LOCAL);
    }
}

void connection_hasten(struct connection *connection)
{
    if (connection->state >= CONNECTION_READY && connection->silent_since_ns == 0)
        return;
    for (size_t i = 0; i < connection->slots.used; i++) {
        struct request *request = connection->slots.table[i].request;
        if (request)
            request->on_late(request);
    }
}

static void on_readable(struct stream *stream)
{
    struct connection *connection = of_stream(stream);
    const uint8_t *message;
    size_t length;
    while (stream->state == STREAM_OPEN &&
           stream_next_message(stream, &message, &length) == STATUS_OK)
        receive(connection, message, length);
}

/* The check for ourselves is no query of anybody: its end counts for nothing. */
uint32_t connection_requests(const struct connection *connection)
{
    return connection->in_flight - (connection->is_checked ? 1 : 0);
}

/* Nobody is to blame: as if it had not been chosen. That it was sent counts (RFC 9520 3.1). */
static void forgive_attempt(struct request *request, bool was_open)
{
    const upstream_set bit = upstream_bit(request->upstream);
    if (request->attempts->twice & bit)
        request->attempts->twice &= ~bit;
    else
        request->attempts->once &= ~bit;
    request->attempts->returned += was_open;
}

/* Hands every request back; each may be submitted again, here or elsewhere, at once. */
static void fail_requests(struct connection *connection, enum failure failure, bool was_open)
{
    const uint64_t now = connection->path->loop->now;
    const uint32_t aboard = connection_aboard(connection);
    const bool is_behind = connection->answers > 0 && now - connection->last_message_ns < BEHIND_NS;
    struct list failed;
    list_init(&failed);
    for (size_t i = 0; i < connection->slots.used; i++) {
        struct request *request = connection->slots.table[i].request;
        if (!request)
            continue;
        connection->slots.table[i].request = NULL;
        detach(connection, request);
        list_append(&failed, &request->link);
        request->was_sent = was_open;
        request->were_aboard = aboard;
        request->was_alone = aboard == 1 && connection->last_message_ns <= request->sent_ns;
        request->was_behind = is_behind;
        request->was_fresh = connection->requests == 1;
        if (!was_open && !request->is_own)
            attempts_take_back(request->attempts, upstream_bit(request->upstream));
        request->attempts->returned += !was_open;
        if (failure_is(failure, FAILURE_IS_OURS))
            forgive_attempt(request, was_open);
    }
    assert(connection->in_flight == 0);
    struct list *link;
    while ((link = list_take_first(&failed))) {
        struct request *request = CONTAINER_OF(link, struct request, link);
        request->on_done(request, NULL, failure);
    }
}

static void on_open(struct stream *stream)
{
    struct connection *connection = of_stream(stream);
    struct path *path = connection->path;
    struct tls_facts facts;
    tls_facts(stream->tls, &facts);
    metric_add(facts.resumed ? &path->metrics->handshakes_resumed : &path->metrics->handshakes_full,
               1);
    connection_enter(connection, CONNECTION_READY);
    connection->last_message_ns = path->loop->now;
    deadline_cancel(&connection->deadline);
    restart_requests(connection);
    path->connection_events->on_open(connection);
    waiting_serve_soon(path->waiting);
    rest(connection);
}

static void on_closed(struct stream *stream, enum failure failure)
{
    struct connection *connection = of_stream(stream);
    const enum connection_state was = connection->state;
    deadline_cancel(&connection->deadline);
    connection_enter(connection, CONNECTION_CLOSED);
    list_remove(&connection->link);
    waiting_serve_soon(connection->path->waiting);
    connection->path->connection_events->on_closed(connection, was, failure);
    fail_requests(connection, failure, was >= CONNECTION_READY);
    stream_free(&connection->stream);
    free(connection);
}

static const struct stream_handler connection_handler = {
    .on_connected = on_connected,
    .on_open = on_open,
    .on_readable = on_readable,
    .on_closed = on_closed,
};

/* --- Deadlines --- */

void connection_on_deadline(struct deadline *deadline, uint64_t now)
{
    struct connection *connection = CONTAINER_OF(deadline, struct connection, deadline);
    (void)now;
    assert(connection->state <= CONNECTION_READY);
    if (connection->state == CONNECTION_READY)
        connection_drain(connection); /* idle for as long as it may be */
    else
        stream_close(&connection->stream, connection->state == CONNECTION_CONNECTING
                                              ? FAILURE_CONNECT_TIMEOUT
                                              : FAILURE_HANDSHAKE_TIMEOUT);
}

void connection_fall_silent(struct connection *connection, uint64_t since_ns)
{
    assert(connection->state >= CONNECTION_READY && since_ns > 0);
    connection->silent_since_ns = since_ns;
    deadline_cancel(&connection->deadline);
    deadline_arm(&connection->path->queues->silence, &connection->deadline,
                 connection->path->loop->now);
}

void connection_probe(struct connection *connection)
{
    /* Every resolver has the name servers of the root at hand. */
    static const struct question root = {
        .name = "", .name_length = 1, .type = TYPE_NS, .class = CLASS_IN};
    if (connection_is_probed(connection) || !slots_have_room(&connection->slots) ||
        connection->path->is_leaving)
        return;
    const uint16_t index = slot_take(&connection->slots, NULL);
    if (write_query(connection, &root, index) != STATUS_OK) {
        slot_give(&connection->slots, index);
        return;
    }
    connection->abandoned++;
    connection->probe_slot = index;
    connection->probe_sent_ns = connection->path->loop->now;
    metric_add(&connection->path->metrics->probes, 1);
}

bool connection_try(struct connection *connection)
{
    if (connection->state != CONNECTION_READY || connection->stream.state == STREAM_CLOSED ||
        connection->silent_since_ns > 0 || connection_aboard(connection) > 0)
        return false;
    connection_probe(connection);
    connection_fall_silent(connection, connection->path->loop->now);
    return true;
}

/* --- Birth and death --- */

size_t connection_ceiling(size_t slot_count)
{
    assert(slot_count > 0 && slot_count <= SLOTS_MAX);
    enum { TLS_SIZE_MAX = 128 << 10 }; /* OpenSSL's state, record buffers and certificates */
    return sizeof(struct connection) + slot_count * sizeof(struct slot) + STREAM_IN_MAX +
           TLS_SIZE_MAX;
}

void connection_arm_connect(struct connection *connection)
{
    const struct path *path = connection->path;
    deadline_arm(&path->queues->connect, &connection->deadline, path->loop->now);
}

size_t connection_slot_count(const struct config *config)
{
    assert(config->limits.upstream_requests < SLOTS_MAX);
    return config->limits.upstream_requests + 1;
}

enum status connection_open(struct path *path, enum connection_use use, const struct address *peer,
                            struct connection **out, enum failure *failure)
{
    assert(use < CONNECTION_USES && failure);
    const size_t most = connection_slot_count(path->config);
    const size_t wanted[CONNECTION_USES] = {most, SLOTS_STEP, SLOTS_LANE};
    const size_t slot_count = wanted[use] < most ? wanted[use] : most;
    /* Room for every slot, so the slots are the limit and the stream never is (FAULTS F16). */
    const size_t out_limit = slot_count * (2 + MESSAGE_QUERY_MAX);
    struct connection *connection =
        calloc(1, sizeof(*connection) + slot_count * sizeof(struct slot));
    if (!connection) {
        *failure = FAILURE_LOCAL;
        return STATUS_FULL;
    }
    connection->path = path;
    connection->use = use;
    connection->begun_ns = path->loop->now;
    /* FAULTS I8 */
    slots_init(&connection->slots, slot_count, (uint16_t)siphash_random_key().k0);
    connection->probe_slot = (uint16_t)slot_count;
    connection->check_slot = (uint16_t)slot_count;
    list_init(&connection->link);
    deadline_init(&connection->deadline);
    metric_add(&path->metrics->connects, 1);
    if (!peer) {
        stream_prepare(&connection->stream, path->loop, &connection_handler, out_limit);
    } else {
        connection->peer = *peer;
        const enum status status =
            stream_connect(&connection->stream, path->loop, &connection_handler, peer, path->tls,
                           path->snapshot->timeouts.request_ns, out_limit, failure);
        if (status != STATUS_OK) {
            free(connection);
            return status;
        }
        connection_arm_connect(connection);
    }
    connection->state = CONNECTION_CONNECTING;
    metric_add(state_gauge(connection), 1);
    *out = connection;
    return STATUS_OK;
}

void connection_destroy(struct connection *connection)
{
    assert(connection->in_flight == 0);
    deadline_cancel(&connection->deadline);
    connection_enter(connection, CONNECTION_CLOSED);
    list_remove(&connection->link);
    stream_free(&connection->stream);
    free(connection);
}
