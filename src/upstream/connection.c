// SPDX-License-Identifier: Apache-2.0
/* One pipelined DNS-over-TLS connection to one upstream: matching, silence, states.
 *
 * Matching: an answer must name a slot in use (slots.c) and the question asked there; anything else
 * is counted and thrown away, and too much of it ends the connection.
 *
 * Silence: when a request is late and not one message has come since it was sent, the connection is
 * silent: new requests go elsewhere, and it is asked something of our own. The answer to that is
 * the end of the silence, once until it answers one of the others; a request that was overtaken by
 * the answer to a later one begins none. No message by the age of a dead path: the path is dead,
 * and all that is in flight moves at once. Messages, but nothing that was asked for: it takes no
 * more requests, and those in flight may go on waiting, for the upstream may be merely slow.
 *
 * Thread: the worker that opened it.   Owner: its struct upstream, until its stream has closed.
 * RFC:    7858 (DoT), 7766 6.2 and 7 (pipelining, matching), 7828 (keepalive), 5452 (IDs). */
#include "upstream/internal.h"

#include <assert.h>
#include <stdlib.h>

#include "dns/extended_error.h"
#include "upstream/names.h"

enum {
    LANE_REQUESTS_MAX = 8,
    ID_SIZE = 2,        /* octets of a message */
    UNMATCHED_MAX = 64, /* answer nothing before the connection is given up (FAULTS F12, F13) */
};

#define BEHIND_NS \
    (1 * NANOSECONDS_PER_MILLISECOND) /* an answer, as its end is noticed a turn later */

/* For each state the bits of those that may come before it. */
static const unsigned allowed_predecessors[] = {
    [CONNECTION_CONNECTING] = 0,
    [CONNECTION_HANDSHAKING] = 1u << CONNECTION_CONNECTING,
    [CONNECTION_READY] = 1u << CONNECTION_HANDSHAKING,
    [CONNECTION_DRAINING] = 1u << CONNECTION_READY,
    [CONNECTION_CLOSED] = 1u << CONNECTION_CONNECTING | 1u << CONNECTION_HANDSHAKING |
                          1u << CONNECTION_READY | 1u << CONNECTION_DRAINING,
};

static metric *state_gauge(const struct connection *connection)
{
    struct upstream_metrics *metrics = connection->upstream->metrics;
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
    assert(allowed_predecessors[state] & 1u << connection->state);
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
    assert(connection->upstream->in_flight > 0);
    connection->upstream->in_flight--;
    metric_set(&connection->upstream->metrics->in_flight, connection->upstream->in_flight);
}

static void attach(struct connection *connection, struct request *request, uint16_t index)
{
    struct upstream *upstream = connection->upstream;
    struct group *group = upstream->group;
    assert(!request->connection && connection->slots.table[index].request == request);
    request->connection = connection;
    request->slot = index;
    request->upstream = upstream->index;
    request->was_sent = false;
    request->sent_ns = group->loop->now;
    deadline_arm(&upstream->late, &request->late, group->loop->now);
    connection->requests++;
    connection->in_flight++;
    if (request->is_own) {
        connection->is_checked = true;
        return;
    }
    attempts_add(request->attempts, UINT32_C(1) << upstream->index);
    upstream->in_flight++;
    metric_set(&upstream->metrics->in_flight, upstream->in_flight);
    metric_add(&upstream->metrics->requests, 1);
    metric_add(&upstream->metrics->hedges, request->is_hedge);
}

static struct deadline_queue *idle_queue(const struct connection *connection)
{
    switch (connection->use) {
    case CONNECTION_SPARE:
        return &connection->upstream->group->spare_idle;
    case CONNECTION_LANE:
        return &connection->upstream->group->lane_idle;
    case CONNECTION_MAIN:
    default:
        return &connection->upstream->idle;
    }
}

/* Not so many that a server's own limit would look like the question's doing. */
bool lane_is_used_up(const struct connection *lane)
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
    const bool is_done = connection->use == CONNECTION_LANE && lane_is_used_up(connection);
    if (connection->state == CONNECTION_DRAINING ||
        (is_done && connection->state == CONNECTION_READY))
        stream_close(&connection->stream, FAILURE_NONE);
    else if (connection->state == CONNECTION_READY && connection->silent_since_ns == 0)
        deadline_arm(idle_queue(connection), &connection->deadline,
                     connection->upstream->group->loop->now);
}

uint32_t connection_aboard(const struct connection *connection)
{
    const bool is_probed = connection->probe_slot < connection->slots.count;
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
        attempts_take_back(request->attempts, UINT32_C(1) << request->upstream);
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
    if (answer->keepalive_100ms == 0)
        connection_drain(connection); /* RFC 7828 3.4: close as soon as everything is answered */
    else
        upstream_set_idle(connection->upstream,
                          answer->keepalive_100ms * 100 * NANOSECONDS_PER_MILLISECOND);
}

static void count_unmatched(struct connection *connection)
{
    metric_add(&connection->upstream->metrics->unmatched, 1);
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
static void note_worth(struct upstream *upstream, const struct answer *answer, enum failure failure)
{
    if (failure == FAILURE_NONE) {
        upstream->has_answered_well = true;
        upstream->errors = 0;
        upstream->contradicted = 0;
    } else if (!extended_errors_are_final(answer->extended_errors,
                                          answer->extended_errors_length)) {
        upstream->errors++;
        upstream->erred_ns = upstream->group->loop->now;
    }
}

/* Ends the request of `slot` with an answer, or with a failure. */
static void complete(struct connection *connection, struct slot *slot, const struct answer *answer,
                     enum failure failure)
{
    struct request *request = slot->request;
    struct upstream *upstream = connection->upstream;
    assert(request && (answer || failure != FAILURE_NONE));
    detach(connection, request);
    slot_give(&connection->slots, (uint16_t)(slot - connection->slots.table));
    connection->unmatched = 0;
    if (answer) {
        note_answered(connection, request->sent_ns);
        upstream_heard(upstream, request->sent_ns);
    }
    waiting_serve_soon(&upstream->group->waiting);
    const bool is_check = request->is_own;
    if (failure != FAILURE_NONE && !is_check)
        metric_add(&upstream->metrics->failures[failure], 1);
    if (answer && !is_check) {
        connection->answers++;
        metric_add(&upstream->metrics->answers, 1);
        note_worth(upstream, answer, failure);

        if (request->is_hedge && failure == FAILURE_NONE)
            metric_add(&upstream->metrics->hedges_won, 1);
        upstream_answered(upstream);
        if (failure == FAILURE_NONE || failure == FAILURE_TRUNCATED_ANSWER)
            upstream_measure(upstream, upstream->group->loop->now - request->sent_ns);
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
    upstream_heard(connection->upstream,
                   is_probe ? connection->probe_sent_ns : connection->begun_ns);
    if (is_ours(connection, index)) {
        if (is_probe && (!connection->is_pardoned || connection_aboard(connection) == 0))
            trust(connection);
        connection->is_pardoned = connection->is_pardoned || is_probe;

        rest(connection);
        return;
    }
    metric_add(&connection->upstream->metrics->unmatched, 1);
    upstream_answered(connection->upstream);
    trust(connection);
}

static void receive(struct connection *connection, const uint8_t *message, size_t length)
{
    assert(connection->state == CONNECTION_READY || connection->state == CONNECTION_DRAINING);
    connection->last_message_ns = connection->upstream->group->loop->now;
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
                                                    &connection->upstream->group->scratch, &answer);
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
    struct group *group = connection->upstream->group;
    connection_enter(connection, CONNECTION_HANDSHAKING);
    deadline_cancel(&connection->deadline);
    deadline_arm(&group->handshake, &connection->deadline, group->loop->now);
}

/* What waited for the handshake leaves now, and its time begins. */
static void restart_requests(struct connection *connection)
{
    struct group *group = connection->upstream->group;
    for (size_t i = 0; i < connection->slots.used; i++) {
        struct request *request = connection->slots.table[i].request;
        if (!request)
            continue;
        request->sent_ns = group->loop->now;
        deadline_arm(&connection->upstream->late, &request->late, group->loop->now);
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

/* The upstream may shake hands and answer nobody: the probe shows it. */
bool connection_try(struct connection *connection)
{
    struct group *group = connection->upstream->group;
    if (connection->state != CONNECTION_READY || connection->stream.state == STREAM_CLOSED ||
        connection->silent_since_ns > 0 || connection_aboard(connection) > 0)
        return false;
    connection_probe(connection);
    deadline_cancel(&connection->deadline);
    connection->silent_since_ns = group->loop->now;
    deadline_arm(&group->silence, &connection->deadline, group->loop->now);
    return true;
}

static void on_open(struct stream *stream)
{
    struct connection *connection = of_stream(stream);
    struct upstream *upstream = connection->upstream;
    struct tls_facts facts;
    tls_facts(stream->tls, &facts);
    metric_add(facts.resumed ? &upstream->metrics->handshakes_resumed
                             : &upstream->metrics->handshakes_full,
               1);
    connection_enter(connection, CONNECTION_READY);
    connection->last_message_ns = upstream->group->loop->now;
    deadline_cancel(&connection->deadline);
    restart_requests(connection);
    if (upstream->name)
        name_connected(upstream->name, &connection->peer);
    if (upstream->is_doubted)
        (void)connection_try(connection);
    else if (connection->use == CONNECTION_LANE || !self_check_begin(connection))
        upstream_opened(upstream);
    waiting_serve_soon(&upstream->group->waiting);
    rest(connection);
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
static uint32_t requests_in_flight(const struct connection *connection)
{
    return connection->in_flight - (connection->is_checked ? 1 : 0);
}

/* The server has ended it, for a reason that we do not know. */
static bool is_close(enum failure failure)
{
    return failure == FAILURE_CLOSED || failure == FAILURE_RESET || failure == FAILURE_TLS ||
           failure == FAILURE_PROTOCOL;
}

/* Whether the end of this connection says that something is wrong with the upstream. One that was
 * open may have been closed for what was asked on it, unless that was our probe alone. */
static bool is_upstream_failure(const struct connection *connection, enum failure failure)
{
    if (failure == FAILURE_NONE || failure == FAILURE_NETWORK_CHANGED || failure == FAILURE_LOCAL)
        return false;
    if (connection->state < CONNECTION_READY)
        return true;
    const bool is_probe_alone =
        connection->probe_slot < connection->slots.count && connection_aboard(connection) == 0;
    return failure == FAILURE_SELF || (is_probe_alone && connection->upstream->is_doubted);
}

/* The server does not take as many connections: it has answered on others since this one was begun.
 */
static bool is_one_too_many(const struct connection *connection, enum failure failure)
{
    return connection->state < CONNECTION_READY &&
           (is_close(failure) || failure == FAILURE_REFUSED_CONNECTION ||
            failure == FAILURE_CONNECT_TIMEOUT || failure == FAILURE_HANDSHAKE_TIMEOUT) &&
           connection->upstream->answered_sent_ns > connection->begun_ns;
}

/* Nobody is to blame: as if it had not been chosen. That it was sent counts (RFC 9520 3.1). */
static void forgive_attempt(struct request *request, bool was_open)
{
    const uint32_t bit = UINT32_C(1) << request->upstream;
    if (request->attempts->twice & bit)
        request->attempts->twice &= ~bit;
    else
        request->attempts->once &= ~bit;
    request->attempts->returned += was_open;
}

/* Hands every request back; each may be submitted again, here or elsewhere, at once. */
static void fail_requests(struct connection *connection, enum failure failure, bool was_open)
{
    const uint64_t now = connection->upstream->group->loop->now;
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
        request->ended_ns = now;
        if (!was_open && !request->is_own)
            attempts_take_back(request->attempts, UINT32_C(1) << request->upstream);
        request->attempts->returned += !was_open;
        if (failure == FAILURE_NETWORK_CHANGED)
            forgive_attempt(request, was_open);
    }
    assert(connection->in_flight == 0);
    struct list *link;
    while ((link = list_take_first(&failed))) {
        struct request *request = CONTAINER_OF(link, struct request, link);
        request->on_done(request, NULL, failure);
    }
}

static void connection_unlink(struct connection *connection)
{
    struct group *group = connection->upstream->group;
    list_remove(&connection->link);
    waiting_serve_soon(&group->waiting);
    if (connection->use != CONNECTION_LANE)
        return;
    assert(group->lane_count > 0);
    group->lane_count--;
}

static const char *detail_of(const struct connection *connection, enum failure failure)
{
    if (failure == FAILURE_NAME_LOOKUP)
        return name_detail(connection->upstream->name);
    return connection->stream.tls ? tls_error_text(connection->stream.tls) : "";
}

static void on_closed(struct stream *stream, enum failure failure)
{
    struct connection *connection = of_stream(stream);
    struct upstream *upstream = connection->upstream;
    const uint32_t requests = requests_in_flight(connection);
    const bool was_open = connection->state >= CONNECTION_READY;
    const bool is_lane = connection->use == CONNECTION_LANE;
    const bool is_refused = is_one_too_many(connection, failure);
    const bool is_failure = !is_refused && is_upstream_failure(connection, failure);
    upstream->last_answers = connection->answers;
    deadline_cancel(&connection->deadline);
    dial_end(connection);
    if (upstream->name && (is_failure || failure == FAILURE_REQUEST_TIMEOUT))
        name_failed(upstream->name, &connection->peer);
    connection_enter(connection, CONNECTION_CLOSED);
    connection_unlink(connection);
    if (requests > 0)
        metric_add(&upstream->metrics->failures[failure], requests);
    else if (is_failure || failure == FAILURE_LOCAL || failure == FAILURE_REQUEST_TIMEOUT)
        metric_add(&upstream->metrics->failures[failure], 1);
    else
        metric_add(&upstream->metrics->idle_closes, 1);
    if (is_refused)
        upstream_learn_admitted(upstream);
    if (is_failure)
        upstream_failed(upstream, failure, detail_of(connection, failure));
    else if (failure == FAILURE_REQUEST_TIMEOUT)
        upstream_ended(upstream, failure, is_lane, connection->silent_since_ns);
    else if (requests > 0 && is_close(failure) && !is_refused)
        upstream_ended(upstream, failure, is_lane, 0);
    if (connection->requests > 0)
        group_care(upstream->group);
    fail_requests(connection, failure, was_open);
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
    switch (connection->state) {
    case CONNECTION_CONNECTING:
        stream_close(&connection->stream, FAILURE_CONNECT_TIMEOUT);
        break;
    case CONNECTION_HANDSHAKING:
        stream_close(&connection->stream, FAILURE_HANDSHAKE_TIMEOUT);
        break;
    case CONNECTION_READY:
        connection_drain(connection); /* idle for as long as it may be */
        break;
    case CONNECTION_DRAINING:
    case CONNECTION_CLOSED:
        assert(false && "a connection without a deadline");
    }
}

static uint64_t later_of(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* FAULTS F5: silence since the request was sent, however much was sent meanwhile. When something
 * that was asked later is answered, it is the question that is slow. */
static void note_silence(struct connection *connection, const struct request *request, uint64_t now)
{
    struct upstream *upstream = connection->upstream;
    const uint64_t since_ns = later_of(connection->last_message_ns, request->sent_ns);
    if (connection->state < CONNECTION_READY || connection->stream.state == STREAM_CLOSED ||
        connection->silent_since_ns > 0 || now - since_ns < upstream->late.duration_ns ||
        request->sent_ns < connection->answered_sent_ns)
        return;
    connection->silent_since_ns = since_ns;
    metric_add(&upstream->metrics->silences, 1);
    deadline_cancel(&connection->deadline);
    deadline_arm(&upstream->group->silence, &connection->deadline, now);
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

void connection_on_late(struct deadline *deadline, uint64_t now)
{
    struct request *request = CONTAINER_OF(deadline, struct request, late);
    struct connection *connection = request->connection;
    assert(connection);
    note_silence(connection, request, now);
    deadline_arm(&connection->upstream->group->overdue, &request->late, now);
    request->on_late(request);
}

void connection_probe(struct connection *connection)
{
    /* Every resolver has the name servers of the root at hand. */
    static const struct question root = {
        .name = "", .name_length = 1, .type = TYPE_NS, .class = CLASS_IN};
    if (connection->probe_slot < connection->slots.count || !slots_have_room(&connection->slots))
        return;
    const uint16_t index = slot_take(&connection->slots, NULL);
    if (write_query(connection, &root, index) != STATUS_OK) {
        slot_give(&connection->slots, index);
        return;
    }
    connection->abandoned++;
    connection->probe_slot = index;
    connection->probe_sent_ns = connection->upstream->group->loop->now;
    metric_add(&connection->upstream->metrics->probes, 1);
}

/* Where all that we sent has arrived, the path is alive and the server hangs, or is busy: it is
 * given half as much again as a request may take. */
static bool is_dead(const struct connection *connection, uint64_t quiet_ns, uint64_t dead_ns)
{
    const uint64_t request_ns = connection->upstream->group->config->timeouts.request_ns;
    if (quiet_ns >= request_ns + request_ns / 2)
        return true;
    return quiet_ns >= dead_ns && socket_has_unacknowledged(connection->stream.fd);
}

void connection_on_silence(struct deadline *deadline, uint64_t now)
{
    struct connection *connection = CONTAINER_OF(deadline, struct connection, deadline);
    struct group *group = connection->upstream->group;
    assert(connection->silent_since_ns > 0 && connection->state >= CONNECTION_READY);
    const uint64_t dead_ns =
        times_dead_ns(&connection->upstream->times, group->config->timeouts.request_ns);
    const uint64_t quiet_ns =
        now - later_of(connection->last_message_ns, connection->silent_since_ns);
    if (is_patient(connection)) {
        deadline_arm(&group->silence, deadline, now);
        return;
    }
    if (is_dead(connection, quiet_ns, dead_ns)) {
        stream_close(&connection->stream, FAILURE_REQUEST_TIMEOUT);
        return;
    }
    const bool is_alive = connection->last_message_ns > connection->silent_since_ns;
    if (is_alive && now - connection->silent_since_ns >= group->config->timeouts.request_ns)
        connection_drain(connection);
    if (connection->stream.state == STREAM_CLOSED)
        return;
    if (quiet_ns >= dead_ns / 2)
        connection_probe(connection);
    deadline_arm(&group->silence, deadline, now);
}

/* --- Birth and death --- */

size_t connection_ceiling(size_t slot_count)
{
    enum { TLS_SIZE_MAX = 128 << 10 }; /* OpenSSL's state, record buffers and certificates */
    return sizeof(struct connection) + slot_count * sizeof(struct slot) + STREAM_IN_MAX +
           TLS_SIZE_MAX;
}

void connection_arm_connect(struct connection *connection)
{
    struct group *group = connection->upstream->group;
    deadline_arm(&group->connect, &connection->deadline, group->loop->now);
}

/* Connects to the configured address, or looks for one of the host first. */
static enum status connect_stream(struct connection *connection, enum failure *failure)
{
    struct upstream *upstream = connection->upstream;
    struct group *group = upstream->group;
    /* Room for every slot, so the slots are the limit and the stream never is (FAULTS F16). */
    const size_t out_limit = connection->slots.count * (2 + MESSAGE_QUERY_MAX);
    if (upstream->name) {
        stream_prepare(&connection->stream, group->loop, &connection_handler, out_limit);
        const enum status status = dial_begin(connection, failure);
        if (status != STATUS_OK)
            stream_free(&connection->stream);
        return status;
    }
    connection->peer = upstream->config->address;
    TRY(stream_connect(&connection->stream, group->loop, &connection_handler, &connection->peer,
                       upstream->tls, group->config->timeouts.request_ns, out_limit, failure));
    connection_arm_connect(connection);
    return STATUS_OK;
}

enum status connection_open(struct upstream *upstream, enum connection_use use,
                            enum failure *failure)
{
    struct group *group = upstream->group;
    const size_t wanted[CONNECTION_USES] = {group->slot_count, SLOTS_STEP, SLOTS_LANE};
    const size_t slot_count = wanted[use] < group->slot_count ? wanted[use] : group->slot_count;
    struct connection *connection =
        calloc(1, sizeof(*connection) + slot_count * sizeof(struct slot));
    if (!connection) {
        *failure = FAILURE_LOCAL;
        return STATUS_FULL;
    }
    connection->upstream = upstream;
    connection->use = use;
    connection->begun_ns = group->loop->now;
    /* FAULTS I8 */
    slots_init(&connection->slots, slot_count, (uint16_t)siphash_random_key().k0);
    connection->probe_slot = (uint16_t)slot_count;
    connection->check_slot = (uint16_t)slot_count;
    deadline_init(&connection->deadline);
    metric_add(&upstream->metrics->connects, 1);
    const enum status status = connect_stream(connection, failure);
    if (status != STATUS_OK) {
        free(connection);
        return status;
    }
    connection->state = CONNECTION_CONNECTING;
    metric_add(state_gauge(connection), 1);
    list_append(use == CONNECTION_LANE ? &upstream->lanes : &upstream->connections,
                &connection->link);
    group->lane_count += use == CONNECTION_LANE;
    return STATUS_OK;
}

void connection_destroy(struct connection *connection)
{
    assert(connection->in_flight == 0);
    deadline_cancel(&connection->deadline);
    dial_end(connection);
    connection_enter(connection, CONNECTION_CLOSED);
    connection_unlink(connection);
    stream_free(&connection->stream);
    free(connection);
}
