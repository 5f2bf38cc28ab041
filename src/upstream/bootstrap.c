// SPDX-License-Identifier: Apache-2.0
/* One question for a host name over plain DNS: UDP first, TCP when the answer is truncated or when
 * somebody guesses at it.
 *
 * Nothing here can be trusted, and nothing is: who answers at the addresses must show a certificate
 * for the name. A forger can only keep us from finding the upstream. So the means are the ordinary
 * ones: an ID and a port by chance, the question compared, and TCP as soon as wrong answers show
 * that somebody tries.
 *
 * Thread: one worker.   Owner: the question of a name that embeds it.
 * RFC:    1035 4.2, 5452 9, 7766 5 (TCP after TC). */
#include "upstream/bootstrap.h"

#include <assert.h>

#include "base/siphash.h"
#include "dns/host.h"

enum {
    TRIES_PER_SERVER = 2,
    STRANGERS_MAX = 8, /* more are no accident */
    OUT_LIMIT = 2 + HOST_QUERY_MAX,
};

static void finish(struct bootstrap *bootstrap, const struct answer *answer)
{
    deadline_cancel(&bootstrap->deadline);
    datagram_close(&bootstrap->datagram);
    if (bootstrap->state == BOOTSTRAP_STREAM) {
        bootstrap->state = BOOTSTRAP_CLOSING;
        stream_close(&bootstrap->stream, FAILURE_NONE);
    } else {
        bootstrap->state = BOOTSTRAP_RESTING;
    }
    bootstrap->on_done(bootstrap, answer);
}

static const struct address *server_of(const struct bootstrap *bootstrap)
{
    return &bootstrap->snapshot->bootstraps[bootstrap->server];
}

static enum status send_datagram(struct bootstrap *bootstrap)
{
    uint8_t query[HOST_QUERY_MAX];
    enum failure failure;
    bootstrap->id = (uint16_t)siphash_random_key().k0;
    const size_t length = host_query(bootstrap->question, bootstrap->id, query);
    return datagram_send(&bootstrap->datagram, bootstrap->loop, server_of(bootstrap), query, length,
                         &failure);
}

/* An answer to either will do, so the ID is the same. */
static void send_again(struct bootstrap *bootstrap)
{
    uint8_t query[HOST_QUERY_MAX];
    const size_t length = host_query(bootstrap->question, bootstrap->id, query);
    datagram_repeat(&bootstrap->datagram, query, length);
}

static size_t server_count(const struct bootstrap *bootstrap)
{
    return bootstrap->snapshot->bootstrap_count;
}

static void next_server(struct bootstrap *bootstrap)
{
    bootstrap->server = (bootstrap->server + 1) % server_count(bootstrap);
}

static unsigned patience_of_try(const struct bootstrap *bootstrap)
{
    return bootstrap->tries <= server_count(bootstrap) ? 1 : 3;
}

static void wait_for_answer(struct bootstrap *bootstrap)
{
    deadline_arm(bootstrap->tries_queue, &bootstrap->deadline, bootstrap->loop->now);
}

/* Asks the next server that can be asked. Each is tried a few times, but when all of them refuse
 * one after the other there is no point in more. */
static void try_next(struct bootstrap *bootstrap)
{
    const size_t count = server_count(bootstrap);
    bootstrap->state = BOOTSTRAP_RESTING;
    while (bootstrap->tries < count * TRIES_PER_SERVER && bootstrap->refusals < count) {
        if (bootstrap->tries++ > 0)
            next_server(bootstrap);
        bootstrap->patience = patience_of_try(bootstrap);
        bootstrap->strangers = 0;
        if (send_datagram(bootstrap) == STATUS_OK) {
            bootstrap->state = BOOTSTRAP_DATAGRAM;
            wait_for_answer(bootstrap);
            return;
        }
        bootstrap->refusals++;
    }
    finish(bootstrap, NULL);
}

static void refused(struct bootstrap *bootstrap)
{
    deadline_cancel(&bootstrap->deadline);
    bootstrap->refusals++;
    try_next(bootstrap);
}

/* Silence is no refusal: the server may be asked again. */
static void was_silent(struct bootstrap *bootstrap)
{
    bootstrap->refusals = 0;
    try_next(bootstrap);
}

/* --- Answers --- */

/* STATUS_OK when the message answers our question. */
static enum status read_answer(struct bootstrap *bootstrap, const uint8_t *bytes, size_t length,
                               struct answer *answer)
{
    if (length < DNS_HEADER_SIZE || load_u16(bytes) != bootstrap->id)
        return STATUS_NOT_FOUND;
    return message_check_answer(bytes, length, bootstrap->question, bootstrap->scratch, answer);
}

static bool is_useful(const struct answer *answer)
{
    return answer->rcode == RCODE_NOERROR || answer->rcode == RCODE_NXDOMAIN;
}

/* --- TCP --- */

static struct bootstrap *of_stream(struct stream *stream)
{
    return CONTAINER_OF(stream, struct bootstrap, stream);
}

static void on_readable(struct stream *stream)
{
    struct bootstrap *bootstrap = of_stream(stream);
    const uint8_t *message;
    size_t length;
    struct answer answer;
    if (bootstrap->state != BOOTSTRAP_STREAM ||
        stream_next_message(stream, &message, &length) != STATUS_OK)
        return;
    if (read_answer(bootstrap, message, length, &answer) == STATUS_OK && is_useful(&answer))
        finish(bootstrap, &answer);
    else
        stream_close(stream, FAILURE_PROTOCOL);
}

static void on_closed(struct stream *stream, enum failure failure)
{
    struct bootstrap *bootstrap = of_stream(stream);
    stream_free(stream);
    if (bootstrap->state == BOOTSTRAP_CLOSING)
        bootstrap->state = BOOTSTRAP_RESTING;
    else if (failure == FAILURE_REQUEST_TIMEOUT)
        was_silent(bootstrap);
    else
        refused(bootstrap);
}

static const struct stream_handler stream_handler = {.on_readable = on_readable,
                                                     .on_closed = on_closed};

/* The same question of the same server; it takes a round trip more. */
static void ask_over_stream(struct bootstrap *bootstrap)
{
    enum failure failure;
    datagram_close(&bootstrap->datagram);
    if (stream_connect(&bootstrap->stream, bootstrap->loop, &stream_handler, server_of(bootstrap),
                       NULL, bootstrap->silence_max_ns, OUT_LIMIT, &failure) != STATUS_OK) {
        refused(bootstrap);
        return;
    }
    bootstrap->state = BOOTSTRAP_STREAM;
    bootstrap->patience = patience_of_try(bootstrap) + 1;
    wait_for_answer(bootstrap);
    uint8_t *room = stream_begin_message(&bootstrap->stream, HOST_QUERY_MAX);
    if (room)
        stream_end_message(&bootstrap->stream,
                           host_query(bootstrap->question, bootstrap->id, room));
    else
        stream_close(&bootstrap->stream, FAILURE_LOCAL);
}

/* --- UDP --- */

static void on_message(struct datagram *datagram, const uint8_t *bytes, size_t length)
{
    struct bootstrap *bootstrap = CONTAINER_OF(datagram, struct bootstrap, datagram);
    struct answer answer;
    if (read_answer(bootstrap, bytes, length, &answer) != STATUS_OK) {
        if (++bootstrap->strangers > STRANGERS_MAX)
            ask_over_stream(bootstrap);
        return;
    }
    if (answer.flags & DNS_FLAG_TC) {
        ask_over_stream(bootstrap);
    } else if (is_useful(&answer)) {
        finish(bootstrap, &answer);
    } else {
        datagram_close(datagram);
        refused(bootstrap);
    }
}

static void on_failed(struct datagram *datagram, enum failure failure)
{
    (void)failure;
    refused(CONTAINER_OF(datagram, struct bootstrap, datagram));
}

void bootstrap_on_deadline(struct deadline *deadline, uint64_t now)
{
    struct bootstrap *bootstrap = CONTAINER_OF(deadline, struct bootstrap, deadline);
    assert(bootstrap->patience > 0);
    (void)now;
    if (--bootstrap->patience > 0) {
        if (bootstrap->state == BOOTSTRAP_DATAGRAM)
            send_again(bootstrap);
        wait_for_answer(bootstrap);
        return;
    }
    if (bootstrap->state == BOOTSTRAP_STREAM) {
        stream_close(&bootstrap->stream, FAILURE_REQUEST_TIMEOUT);
        return;
    }
    datagram_close(&bootstrap->datagram);
    was_silent(bootstrap);
}

/* --- Begin and end --- */

void bootstrap_init(struct bootstrap *bootstrap, struct loop *loop, const struct snapshot *snapshot,
                    struct deadline_queue *tries, struct answer_scratch *scratch,
                    bootstrap_done *on_done)
{
    *bootstrap = (struct bootstrap){.loop = loop,
                                    .snapshot = snapshot,
                                    .tries_queue = tries,
                                    .scratch = scratch,
                                    .on_done = on_done,
                                    .datagram = {.on_message = on_message, .on_failed = on_failed}};
    deadline_init(&bootstrap->deadline);
}

static bool is_asking(const struct bootstrap *bootstrap)
{
    return bootstrap->state == BOOTSTRAP_DATAGRAM || bootstrap->state == BOOTSTRAP_STREAM;
}

void bootstrap_reload(struct bootstrap *bootstrap, const struct snapshot *snapshot)
{
    bootstrap->snapshot = snapshot;
    bootstrap->tries = 0; /* of those that there are now */
    bootstrap->refusals = 0;
    if (server_count(bootstrap) > 0)
        bootstrap->server %= server_count(bootstrap);
    else if (is_asking(bootstrap))
        finish(bootstrap, NULL);
}

void bootstrap_begin(struct bootstrap *bootstrap, const struct question *question,
                     uint64_t silence_max_ns)
{
    assert(question);
    assert(bootstrap->state == BOOTSTRAP_RESTING && server_count(bootstrap) > 0);
    bootstrap->question = question;
    bootstrap->silence_max_ns = silence_max_ns;
    bootstrap->tries = 0;
    bootstrap->refusals = 0;
    try_next(bootstrap);
}

void bootstrap_cancel(struct bootstrap *bootstrap)
{
    deadline_cancel(&bootstrap->deadline);
    datagram_close(&bootstrap->datagram);
    if (is_asking(bootstrap))
        next_server(bootstrap); /* this one has kept us waiting */
    if (bootstrap->state == BOOTSTRAP_STREAM) {
        bootstrap->state = BOOTSTRAP_CLOSING;
        stream_close(&bootstrap->stream, FAILURE_NONE);
    } else if (bootstrap->state == BOOTSTRAP_DATAGRAM) {
        bootstrap->state = BOOTSTRAP_RESTING;
    }
}

void bootstrap_close(struct bootstrap *bootstrap)
{
    bootstrap_cancel(bootstrap);
    if (bootstrap->state == BOOTSTRAP_CLOSING)
        stream_free(&bootstrap->stream);
    bootstrap->state = BOOTSTRAP_RESTING;
}
