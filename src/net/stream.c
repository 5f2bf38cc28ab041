// SPDX-License-Identifier: Apache-2.0
/* Bytes over TCP or TLS in both directions, cut into messages.
 *
 * Level-triggered epoll announces what the kernel holds. Two things it cannot announce are kept
 * going by the task `more`: bytes that OpenSSL has already decrypted when the turn's reading is
 * used up, and bytes that came in before a pause. While a write is blocked, or TLS must write
 * before it can read, `write_waits_for` and `read_waits_for` say which event lets it go on.
 *
 * Thread: the worker of its loop.   Owner: the object that embeds the stream.
 * RFC:    7766 8 (length field), 7858 3.3 (the same over TLS). */
#include "net/stream.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bytes.h"
#include "net/socket.h"

enum {
    LENGTH_SIZE = 2,
    MESSAGE_LENGTH_MAX = 65535,
    BUFFER_SIZE_KEPT = 65536, /* an empty buffer of a TLS stream is kept up to this size */
    READ_BUDGET = 65536,      /* bytes read from one stream at a time: at most twice in a turn */
    WRITE_BUDGET = 65536,     /* bytes of one stream sent at a time */
};

/* A body on its way out. */
struct share {
    struct list link;
    struct body *body;
    uint64_t at; /* its first byte's place among all that the stream ever sends */
};

/* --- Buffers --- */

/* Connections to upstreams are few and busy, so they keep the buffers of a usual turn; TCP clients
 * are many. */
static void buffer_release(struct stream *stream, struct buffer *buffer)
{
    if (buffer_length(buffer) > 0)
        return;
    buffer->start = buffer->end = 0;
    if (!stream->tls || buffer->size > BUFFER_SIZE_KEPT)
        buffer_free(buffer, stream->account);
}

/* --- Shared bodies --- */

static struct share *first_share(const struct stream *stream)
{
    return LIST_OBJECT_(stream->shares.next, &stream->shares, struct share, link);
}

static void share_free(struct stream *stream, struct share *share)
{
    list_remove(&share->link);
    body_release(share->body);
    output_give(stream->account, share, sizeof(*share));
}

static void drop_shares(struct stream *stream)
{
    while (!list_is_empty(&stream->shares))
        share_free(stream, first_share(stream));
    stream->shared = 0;
}

size_t stream_held(const struct stream *stream)
{
    size_t held = stream->in.size + stream->out.size;
    LIST_EACH (struct share, share, &stream->shares, link)
        held += sizeof(*share) + share->body->length / share->body->holders;
    return held;
}

/* --- States --- */

static void enter(struct stream *stream, enum stream_state state)
{
    assert(stream->state != STREAM_CLOSED);
    assert(state > stream->state);
    stream->state = state;
}

static bool is_reading(const struct stream *stream)
{
    return stream->state == STREAM_OPEN && !stream->reading_paused && !stream->ended;
}

static uint32_t wanted_events(const struct stream *stream)
{
    switch (stream->state) {
    case STREAM_CONNECTING:
        return EPOLLOUT;
    case STREAM_HANDSHAKING:
        return tls_wants_write(stream->tls) ? EPOLLOUT : EPOLLIN;
    case STREAM_OPEN:
        return (is_reading(stream) ? stream->read_waits_for : 0) | stream->write_waits_for;
    case STREAM_CLOSED:
        break;
    }
    return 0;
}

static void watch(struct stream *stream)
{
    const uint32_t events = wanted_events(stream);
    if (stream->state == STREAM_CLOSED || events == stream->events)
        return;
    stream->events = events;
    if (loop_change(stream->loop, &stream->source, events) != STATUS_OK)
        stream_close(stream, FAILURE_LOCAL);
}

void stream_close(struct stream *stream, enum failure failure)
{
    if (stream->state == STREAM_CLOSED)
        return;
    assert(failure < FAILURE_COUNT);
    enter(stream, STREAM_CLOSED);
    stream->failure = failure;
    loop_remove(stream->loop, &stream->source);
    loop_cancel_task(&stream->flush);
    loop_cancel_task(&stream->more);
    loop_defer(stream->loop, &stream->reap, LOOP_REAP);
}

static void run_reap(struct loop_task *task)
{
    struct stream *stream = CONTAINER_OF(task, struct stream, reap);
    assert(stream->state == STREAM_CLOSED);
    stream->handler->on_closed(stream, stream->failure);
}

void stream_free(struct stream *stream)
{
    loop_remove(stream->loop, &stream->source);
    loop_cancel_task(&stream->flush);
    loop_cancel_task(&stream->more);
    loop_cancel_task(&stream->reap);
    tls_close(stream->tls);
    if (stream->fd != -1)
        close(stream->fd);
    drop_shares(stream);
    buffer_free(&stream->in, stream->account);
    buffer_free(&stream->out, stream->account);
    stream->tls = NULL;
    stream->fd = -1;
    stream->state = STREAM_CLOSED;
}

/* --- Reading --- */

bool stream_has_message(const struct stream *stream)
{
    const struct buffer *in = &stream->in;
    if (stream->state == STREAM_CLOSED || buffer_length(in) < LENGTH_SIZE)
        return false;
    return buffer_length(in) - LENGTH_SIZE >= load_u16(in->bytes + in->start);
}

enum status stream_next_message(struct stream *stream, const uint8_t **message, size_t *length)
{
    struct buffer *in = &stream->in;
    if (!stream_has_message(stream))
        return STATUS_AGAIN;
    const size_t announced = load_u16(in->bytes + in->start);
    *message = in->bytes + in->start + LENGTH_SIZE;
    *length = announced;
    in->start += LENGTH_SIZE + announced;
    return STATUS_OK;
}

void stream_return_message(struct stream *stream, size_t length)
{
    struct buffer *in = &stream->in;
    assert(in->start >= LENGTH_SIZE + length &&
           load_u16(in->bytes + in->start - length - LENGTH_SIZE) == length);
    in->start -= LENGTH_SIZE + length;
}

bool stream_has_partial(const struct stream *stream)
{
    if (buffer_length(&stream->in) == 0)
        return false;
    struct reader reader =
        reader_over(stream->in.bytes + stream->in.start, buffer_length(&stream->in));
    while (reader_left(&reader) > 0 && !reader.failed)
        (void)read_bytes(&reader, read_u16(&reader));
    return reader.failed;
}

static void report_readable(struct stream *stream)
{
    assert(stream->state == STREAM_OPEN && !stream->reading_paused);
    stream->handler->on_readable(stream);
    if (stream->state != STREAM_CLOSED)
        buffer_release(stream, &stream->in);
}

/* The end is told behind the last message: while `more` has some to report, it waits. */
static void report_end(struct stream *stream)
{
    if (stream->state != STREAM_OPEN || stream->reading_paused || !stream->ended ||
        stream->end_reported || list_is_linked(&stream->more.link))
        return;
    stream->end_reported = true;
    if (stream->handler->on_end)
        stream->handler->on_end(stream);
    else
        stream_close(stream, FAILURE_CLOSED);
}

static enum status receive(struct stream *stream, uint8_t *bytes, size_t size, size_t *length,
                           enum failure *failure)
{
    if (stream->tls)
        return tls_read(stream->tls, bytes, size, length, failure);
    const ssize_t received = recv(stream->fd, bytes, size, 0);
    if (received > 0) {
        *length = (size_t)received;
        return STATUS_OK;
    }
    if (received == -1 && (errno == EAGAIN || errno == EINTR))
        return STATUS_AGAIN;
    *failure = received == 0 ? FAILURE_CLOSED : socket_failure(errno);
    return STATUS_CLOSED;
}

static void end_of_input(struct stream *stream, enum failure failure)
{
    assert(failure != FAILURE_NONE);
    if (failure != FAILURE_CLOSED) {
        stream_close(stream, failure);
        return;
    }
    stream->ended = true;
    report_end(stream);
}

/* Reads once and reports it. Returns how much came when there may be more at once, else 0. */
static size_t read_once(struct stream *stream)
{
    struct buffer *in = &stream->in;
    assert(is_reading(stream));
    buffer_compact(in);
    if (in->end == STREAM_IN_MAX) { /* holds whole messages that were not taken */
        loop_defer(stream->loop, &stream->more, LOOP_NEXT_TURN);
        return 0;
    }
    if (!buffer_reserve(in, stream->account, 1, STREAM_IN_MAX)) {
        stream_close(stream, FAILURE_LOCAL);
        return 0;
    }
    const size_t room = in->size - in->end;
    size_t length = 0;
    enum failure failure = FAILURE_NONE;
    const enum status status = receive(stream, in->bytes + in->end, room, &length, &failure);
    if (status != STATUS_OK) {
        buffer_release(stream, in);
        stream->read_waits_for = stream->tls && tls_wants_write(stream->tls) ? EPOLLOUT : EPOLLIN;
        if (status != STATUS_AGAIN)
            end_of_input(stream, failure);
        return 0;
    }
    assert(length > 0 && length <= room);
    stream->read_waits_for = EPOLLIN;
    in->end += length;
    stream->bytes_received += length;
    report_readable(stream);
    const bool more = stream->tls ? tls_has_pending(stream->tls) : length == room;
    return more ? length : 0;
}

static void read_for_this_turn(struct stream *stream)
{
    size_t total = 0;
    while (is_reading(stream)) {
        const size_t length = read_once(stream);
        if (length == 0)
            break;
        total += length;
        if (total >= READ_BUDGET) {
            if (stream->tls) /* plain bytes epoll will announce again */
                loop_defer(stream->loop, &stream->more, LOOP_NEXT_TURN);
            break;
        }
    }
    watch(stream);
}

static void run_more(struct loop_task *task)
{
    struct stream *stream = CONTAINER_OF(task, struct stream, more);
    assert(stream->state == STREAM_OPEN);
    if (stream->reading_paused)
        return;
    if (buffer_length(&stream->in) > 0)
        report_readable(stream);
    else
        buffer_release(stream, &stream->in); /* its last messages were taken over a pause */
    if (stream->tls && tls_has_pending(stream->tls))
        read_for_this_turn(stream);
    report_end(stream);
}

void stream_pause(struct stream *stream)
{
    stream->reading_paused = true;
    watch(stream);
}

void stream_resume(struct stream *stream)
{
    stream->reading_paused = false;
    watch(stream);
    if (stream->state == STREAM_OPEN)
        loop_defer(stream->loop, &stream->more, LOOP_FLUSH);
}

/* --- Writing --- */

static bool may_queue(const struct stream *stream, size_t length)
{
    assert(length <= MESSAGE_LENGTH_MAX);
    return stream->state != STREAM_CLOSED && !stream->finishing &&
           stream_unsent(stream) + LENGTH_SIZE + length <= stream->out_limit;
}

static void send_later(struct stream *stream)
{
    if (stream->state == STREAM_OPEN && stream->write_waits_for == 0)
        loop_defer(stream->loop, &stream->flush, LOOP_FLUSH);
}

uint8_t *stream_begin_message(struct stream *stream, size_t max_length)
{
    struct buffer *out = &stream->out;
    if (!may_queue(stream, max_length) ||
        !buffer_reserve(out, stream->account, LENGTH_SIZE + max_length, stream->out_limit))
        return NULL;
    return out->bytes + out->end + LENGTH_SIZE;
}

void stream_end_message(struct stream *stream, size_t length)
{
    struct buffer *out = &stream->out;
    assert(length <= MESSAGE_LENGTH_MAX && out->size - out->end >= LENGTH_SIZE + length);
    store_u16(out->bytes + out->end, (uint16_t)length);
    out->end += LENGTH_SIZE + length;
    send_later(stream);
}

/* `at` is the body's place among all that the stream ever sends. NULL when memory is short. */
static struct share *share_add(struct stream *stream, struct body *body, uint64_t at)
{
    struct share *share = output_take(stream->account, sizeof(*share));
    if (!share)
        return NULL;
    *share = (struct share){.body = body_hold(body), .at = at};
    list_append(&stream->shares, &share->link);
    stream->shared += body->length;
    return share;
}

bool stream_send_around(struct stream *stream, const uint8_t *bytes, size_t length, size_t at,
                        struct body *body)
{
    struct buffer *out = &stream->out;
    uint8_t length_field[LENGTH_SIZE];
    assert(at <= length && body->length > 0);
    if (!may_queue(stream, length + body->length) ||
        !buffer_reserve(out, stream->account, LENGTH_SIZE + length, stream->out_limit))
        return false;
    const uint64_t body_at = stream->bytes_sent + stream_unsent(stream) + LENGTH_SIZE + at;
    if (!share_add(stream, body, body_at))
        return false;
    store_u16(length_field, (uint16_t)(length + body->length));
    buffer_append(out, length_field, LENGTH_SIZE);
    buffer_append(out, bytes, length);
    send_later(stream);
    return true;
}

size_t stream_unsent(const struct stream *stream)
{
    return buffer_length(&stream->out) + stream->shared;
}

/* What is to be sent next, in one piece: bytes of `out`, up to the next body, or what is left of
 * that. */
static const uint8_t *next_piece(const struct stream *stream, size_t *size)
{
    const struct buffer *out = &stream->out;
    const struct share *share = first_share(stream);
    if (share && stream->bytes_sent >= share->at) {
        const size_t sent = (size_t)(stream->bytes_sent - share->at);
        *size = share->body->length - sent;
        return share->body->bytes + sent;
    }
    *size = share ? (size_t)(share->at - stream->bytes_sent) : buffer_length(out);
    return out->bytes + out->start;
}

/* `length` bytes of the next piece have left. */
static void note_sent(struct stream *stream, size_t length)
{
    struct share *share = first_share(stream);
    const bool is_shared = share && stream->bytes_sent >= share->at;
    stream->bytes_sent += length;
    if (!is_shared) {
        stream->out.start += length;
        return;
    }
    stream->shared -= length;
    if (stream->bytes_sent == share->at + share->body->length)
        share_free(stream, share);
}

static enum status transmit(struct stream *stream, const uint8_t *bytes, size_t size,
                            size_t *length, enum failure *failure)
{
    if (stream->tls)
        return tls_write(stream->tls, bytes, size, length, failure);
    const int more = size < stream_unsent(stream) ? MSG_MORE : 0;
    const ssize_t sent = send(stream->fd, bytes, size, MSG_NOSIGNAL | more);
    if (sent >= 0) {
        *length = (size_t)sent;
        return STATUS_OK;
    }
    if (errno == EAGAIN || errno == EINTR)
        return STATUS_AGAIN;
    *failure = socket_failure(errno);
    return STATUS_CLOSED;
}

/* Sends until all is sent, it was enough for this turn, or the socket takes no more; false when it
 * broke. (What TLS could not send is never offered again with less behind it: the next turn begins
 * with its whole budget.) */
static bool write_out(struct stream *stream)
{
    assert(stream->state == STREAM_OPEN); /* on TLS: the peer is authenticated (FAULTS E1) */
    stream->write_waits_for = 0;
    for (size_t total = 0, length; stream_unsent(stream) > 0; total += length) {
        if (total >= WRITE_BUDGET) {
            stream->write_waits_for = EPOLLOUT;
            return true;
        }
        size_t size;
        const uint8_t *piece = next_piece(stream, &size);
        size = size < WRITE_BUDGET - total ? size : WRITE_BUDGET - total;
        length = 0;
        enum failure failure = FAILURE_NONE;
        const enum status status = transmit(stream, piece, size, &length, &failure);
        if (status == STATUS_AGAIN) {
            stream->write_waits_for =
                stream->tls && !tls_wants_write(stream->tls) ? EPOLLIN : EPOLLOUT;
            return true;
        }
        if (status != STATUS_OK) {
            stream_close(stream, failure);
            return false;
        }
        assert(length > 0 && length <= size);
        note_sent(stream, length);
    }
    return true;
}

/* Closing with unread bytes would reset the connection and could cost the peer our last ones. */
static void close_finished(struct stream *stream)
{
    assert(stream->state == STREAM_OPEN);
    assert(stream->finishing && stream_unsent(stream) == 0);
    if (!stream->tls)
        (void)shutdown(stream->fd, SHUT_WR);
    (void)recv(stream->fd, NULL, INT_MAX, MSG_TRUNC | MSG_DONTWAIT);
    stream_close(stream, stream->failure);
}

static void run_flush(struct loop_task *task)
{
    struct stream *stream = CONTAINER_OF(task, struct stream, flush);
    const uint64_t sent_before = stream->bytes_sent;
    if (!write_out(stream))
        return;
    buffer_release(stream, &stream->out);
    if (stream->finishing && stream_unsent(stream) == 0) {
        close_finished(stream);
        return;
    }
    watch(stream);
    const bool moved = stream->bytes_sent > sent_before;
    if (moved && stream->state == STREAM_OPEN && stream->handler->on_written)
        stream->handler->on_written(stream);
}

void stream_finish(struct stream *stream, enum failure failure)
{
    if (stream->state == STREAM_CLOSED)
        return;
    assert(failure < FAILURE_COUNT);
    stream->finishing = true;
    stream->failure = failure;
    if (stream->state == STREAM_OPEN)
        loop_defer(stream->loop, &stream->flush, LOOP_FLUSH);
}

/* --- From connect to open --- */

static void open_stream(struct stream *stream)
{
    enter(stream, STREAM_OPEN);
    if (stream->handler->on_open)
        stream->handler->on_open(stream);
    if (stream->state == STREAM_CLOSED)
        return;
    if (stream_unsent(stream) > 0 || stream->finishing)
        loop_defer(stream->loop, &stream->flush, LOOP_FLUSH);
    if (stream->tls && tls_has_pending(stream->tls))
        loop_defer(stream->loop, &stream->more, LOOP_FLUSH);
    watch(stream);
}

static void go_on_with_handshake(struct stream *stream)
{
    enum failure failure = FAILURE_NONE;
    assert(stream->state == STREAM_HANDSHAKING && stream->tls);
    const enum status status = tls_handshake(stream->tls, &failure);
    if (status == STATUS_OK)
        open_stream(stream);
    else if (status == STATUS_AGAIN)
        watch(stream);
    else
        stream_close(stream, failure);
}

static void end_of_connect(struct stream *stream)
{
    const int error = socket_error(stream->fd);
    assert(stream->state == STREAM_CONNECTING);
    if (error != 0) {
        stream_close(stream, socket_connect_failure(error));
        return;
    }
    if (stream->handler->on_connected)
        stream->handler->on_connected(stream);
    if (stream->state == STREAM_CLOSED)
        return;
    if (!stream->tls) {
        open_stream(stream);
        return;
    }
    enter(stream, STREAM_HANDSHAKING);
    go_on_with_handshake(stream);
}

static void open_is_ready(struct stream *stream, uint32_t events)
{
    const bool broken = events & (EPOLLERR | EPOLLHUP);
    if (broken && !is_reading(stream) && stream->write_waits_for == 0) {
        stream_close(stream, socket_failure(socket_error(stream->fd)));
        return;
    }
    if (broken || events & stream->write_waits_for)
        loop_defer(stream->loop, &stream->flush, LOOP_FLUSH);
    if (is_reading(stream) && (broken || events & stream->read_waits_for))
        read_for_this_turn(stream);
}

static void on_ready(struct loop_source *source, uint32_t events)
{
    struct stream *stream = CONTAINER_OF(source, struct stream, source);
    switch (stream->state) {
    case STREAM_CONNECTING:
        end_of_connect(stream);
        break;
    case STREAM_HANDSHAKING:
        go_on_with_handshake(stream);
        break;
    case STREAM_OPEN:
        open_is_ready(stream, events);
        break;
    case STREAM_CLOSED:
        break;
    }
}

void stream_prepare(struct stream *stream, struct loop *loop, const struct stream_handler *handler,
                    size_t out_limit)
{
    assert(loop && handler);
    assert(handler->on_readable && handler->on_closed && out_limit > 0);
    *stream = (struct stream){
        .loop = loop,
        .handler = handler,
        .source = {.fd = -1, .on_ready = on_ready},
        .out_limit = out_limit,
        .fd = -1,
        .read_waits_for = EPOLLIN,
    };
    list_init(&stream->shares);
    loop_task_init(&stream->flush, run_flush);
    loop_task_init(&stream->more, run_more);
    loop_task_init(&stream->reap, run_reap);
}

/* The descriptor is there: what is left of connecting it is waited for. */
static bool begin(struct stream *stream, struct tls_client *client)
{
    assert(stream->fd >= 0);
    stream->events = EPOLLOUT;
    return (!client || tls_open(client, stream->fd, &stream->tls) == STATUS_OK) &&
           loop_add(stream->loop, &stream->source, stream->fd, stream->events) == STATUS_OK;
}

enum status stream_connect(struct stream *stream, struct loop *loop,
                           const struct stream_handler *handler, const struct address *address,
                           struct tls_client *client, uint64_t user_timeout_ns, size_t out_limit,
                           enum failure *failure)
{
    assert(address && failure);
    stream_prepare(stream, loop, handler, out_limit);
    if (socket_connect(address, user_timeout_ns, &stream->fd) != STATUS_OK)
        *failure = socket_connect_failure(errno);
    else if (begin(stream, client))
        return STATUS_OK;
    else
        *failure = FAILURE_LOCAL;
    stream_free(stream);
    return STATUS_SYSTEM;
}

void stream_start(struct stream *stream, int fd, struct tls_client *client)
{
    assert(stream->handler);
    assert(fd >= 0 && stream->fd == -1);
    if (stream->state == STREAM_CLOSED) { /* in this very turn, before it was reaped */
        close(fd);
        return;
    }
    stream->fd = fd;
    if (!begin(stream, client))
        stream_close(stream, FAILURE_LOCAL);
}

enum status stream_accept(struct stream *stream, struct loop *loop,
                          const struct stream_handler *handler, int fd, size_t out_limit)
{
    assert(loop && handler);
    assert(fd >= 0);
    stream_prepare(stream, loop, handler, out_limit);
    stream->state = STREAM_OPEN;
    stream->events = EPOLLIN;
    if (loop_add(loop, &stream->source, fd, stream->events) != STATUS_OK) {
        stream->state = STREAM_CLOSED;
        return STATUS_SYSTEM;
    }
    stream->fd = fd;
    return STATUS_OK;
}
