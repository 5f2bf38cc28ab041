// SPDX-License-Identifier: Apache-2.0
/* A stream under any splitting, delay, blocking and end: both sides get the same messages as
 * unsplit.
 *
 * Message by message, octet by octet, over plain TCP and TLS (FAULTS F7, F8, B1). When the fuzzer
 * has nothing more to say everything moves, and then nothing may be left: an event that was missed
 * shows as a message that never comes. */
#include "fake_kernel.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { OUT_LIMIT = 1 << 17, VOLUME_MAX = 1 << 18, TURNS_MAX = 20000 };

static struct loop loop;
static struct fake_socket *peer;

/* The owner of the stream, and what it has heard. */
static struct {
    struct stream stream;
    size_t checked;  /* octets of peer->in that came as messages */
    size_t written;  /* octets that were queued, with their lengths */
    size_t sent;     /* octets of peer->out that were looked at */
    size_t promised; /* octets that were queued before stream_finish */
    bool is_accepted;
    bool is_open;
    bool is_finishing;
    bool has_ended;
    bool has_closed;
    bool half_closes;
} owner;

static uint8_t octet_at(size_t position)
{
    return (uint8_t)(position * 151 + (position >> 8) * 7);
}

static size_t choose_length(void)
{
    const unsigned choice = choose(256);
    if (choice < 192)
        return choice;
    return choice < 244 ? (choice - 191) * 256u : UINT16_MAX - (255 - choice);
}

/* Messages as the peer would have cut them. */
static void take_message(const uint8_t *message, size_t length)
{
    const uint8_t *expected = peer->in.bytes + owner.checked;
    assert(owner.checked + 2 + length <= peer->taken);
    assert(load_u16(expected) == length && memcmp(expected + 2, message, length) == 0);
    owner.checked += 2 + length;
}

static bool has_whole_message(void)
{
    const size_t left = peer->taken - owner.checked;
    return left >= 2 && left - 2 >= load_u16(peer->in.bytes + owner.checked);
}

static void on_readable(struct stream *stream)
{
    const uint8_t *message;
    size_t length;
    unsigned patience = choose_one_in(4) ? choose(4) : UINT32_MAX;
    assert(owner.is_open && !owner.has_closed && !stream->reading_paused);
    for (; patience > 0; patience--) {
        const bool is_due = has_whole_message();
        const enum status status = stream_next_message(stream, &message, &length);
        assert((status == STATUS_OK) == is_due);
        if (status != STATUS_OK)
            return;
        take_message(message, length);
    }
    if (choose_one_in(8))
        stream_close(stream, FAILURE_PROTOCOL);
    else
        stream_pause(stream);
}

static void on_open(struct stream *stream)
{
    assert(!owner.is_open && stream->state == STREAM_OPEN && peer->tls_is_open);
    owner.is_open = true;
}

static void on_connected(struct stream *stream)
{
    assert(!owner.is_open && stream->state == STREAM_CONNECTING);
}

static void on_written(struct stream *stream)
{
    assert(owner.is_open && !owner.has_closed && stream->state == STREAM_OPEN);
    assert(peer->out.length > owner.sent);
}

static void on_end(struct stream *stream)
{
    assert(owner.is_open && !owner.has_closed && !owner.has_ended && !stream->reading_paused);
    assert(is_at_end(peer) && peer->taken == peer->in.length && !has_whole_message());
    assert(stream_has_partial(stream) == (owner.checked < peer->in.length));
    owner.has_ended = true;
}

static void on_closed(struct stream *stream, enum failure failure)
{
    assert(!owner.has_closed && stream->state == STREAM_CLOSED);
    assert(!owner.is_finishing || failure != FAILURE_NONE || peer->out.length == owner.promised);
    owner.has_closed = true;
    stream_free(stream);
}

static const struct stream_handler whole = {
    .on_connected = on_connected,
    .on_open = on_open,
    .on_readable = on_readable,
    .on_written = on_written,
    .on_closed = on_closed,
};
static const struct stream_handler half_closing = {
    .on_readable = on_readable,
    .on_written = on_written,
    .on_end = on_end,
    .on_closed = on_closed,
};

/* --- What happens --- */

static void write_message(void)
{
    const size_t length = choose_length();
    const size_t most = length + choose(16);
    const bool is_possible = !owner.has_closed && owner.stream.state != STREAM_CLOSED &&
                             !owner.is_finishing &&
                             stream_unsent(&owner.stream) + 2 + most <= OUT_LIMIT;
    if (most > UINT16_MAX || owner.has_closed || owner.written > VOLUME_MAX)
        return;
    uint8_t *room = stream_begin_message(&owner.stream, most);
    assert((room != NULL) == is_possible);
    if (!room)
        return;
    for (size_t i = 0; i < length; i++)
        room[i] = octet_at(owner.written + 2 + i);
    stream_end_message(&owner.stream, length);
    owner.written += 2 + length;
}

static void peer_writes(size_t part_of_length)
{
    static uint8_t message[UINT16_MAX + 2];
    const size_t length = choose_length();
    if (peer->in.length > VOLUME_MAX)
        return;
    store_u16(message, (uint16_t)length);
    for (size_t i = 0; i < length; i++)
        message[2 + i] = octet_at(peer->in.length + i);
    peer_sends(peer, message, part_of_length ? (2 + length) * part_of_length / 256 : 2 + length);
}

static void peer_ends(void)
{
    if (peer->has_ended || peer->is_reset)
        return;
    peer_writes(1 + choose(255));
    peer->has_ended = true;
}

/* What has reached the peer is what was written, in order. */
static void check_sent(void)
{
    assert(peer->out.length <= owner.written);
    for (; owner.sent < peer->out.length; owner.sent++) {
        const uint8_t *octets = peer->out.bytes;
        static size_t message_end;
        if (owner.sent == 0)
            message_end = 0;
        if (owner.sent == message_end || owner.sent == message_end + 1) {
            if (owner.sent == message_end + 1)
                message_end += 2 + (size_t)load_u16(octets + owner.sent - 1);
            continue;
        }
        assert(octets[owner.sent] == octet_at(owner.sent));
    }
    assert(owner.has_closed || stream_unsent(&owner.stream) == owner.written - peer->out.length);
    assert(owner.has_closed || (owner.stream.bytes_sent == peer->out.length &&
                                owner.stream.bytes_received == peer->taken));
}

static void turn(void)
{
    const bool is_fine = loop_turn(&loop, NANOSECONDS_PER_MILLISECOND);
    assert(is_fine);
    check_sent();
}

static void pause_or_resume(void)
{
    if (owner.has_closed || owner.stream.state != STREAM_OPEN)
        return;
    if (owner.stream.reading_paused)
        stream_resume(&owner.stream);
    else
        stream_pause(&owner.stream);
}

static void finish(void)
{
    if (owner.has_closed || owner.stream.state == STREAM_CLOSED)
        return;
    stream_finish(&owner.stream, FAILURE_NONE);
    if (!owner.is_finishing)
        owner.promised = owner.written;
    owner.is_finishing = true;
}

static void act(void)
{
    switch (choose(16)) {
    case 0:
    case 1:
    case 2:
        write_message();
        break;
    case 3:
    case 4:
    case 5:
        peer_writes(0);
        break;
    case 6:
        pause_or_resume();
        break;
    case 7:
        if (choose_one_in(2))
            peer_ends();
        break;
    case 8:
        if (choose_one_in(8))
            peer_resets(peer);
        break;
    case 9:
        if (choose_one_in(4))
            finish();
        break;
    case 10:
        if (choose_one_in(16) && !owner.has_closed)
            stream_close(&owner.stream, FAILURE_LOCAL);
        break;
    default:
        turn();
    }
}

/* Everything moves until nothing does, and then all is where it belongs. */
static void settle(void)
{
    size_t turns = 0;
    do {
        if (!owner.has_closed && owner.stream.state == STREAM_OPEN && owner.stream.reading_paused)
            stream_resume(&owner.stream);
        turn();
        assert(turns++ < TURNS_MAX);
    } while (!has_waited && !owner.has_closed);
    turn();
    if (owner.has_closed)
        return;
    assert(owner.is_open && !owner.is_finishing && !peer->is_reset);
    assert(peer->out.length == owner.written);
    assert(peer->taken == peer->in.length && !has_whole_message());
    assert(peer->has_ended == owner.has_ended && (!owner.has_ended || owner.half_closes));
}

static bool open_stream(void)
{
    static struct tls_client settings;
    static const struct address address = {.v4 = {.sin_family = AF_INET, .sin_port = 0x5503}};
    owner.is_accepted = choose_one_in(2);
    owner.half_closes = owner.is_accepted;
    owner.is_open = owner.is_accepted;
    if (owner.is_accepted) {
        const int fd = socket_open();
        const enum status status =
            stream_accept(&owner.stream, &loop, &half_closing, fd, OUT_LIMIT);
        assert(status == STATUS_OK);
        return true;
    }
    enum failure failure;
    return stream_connect(&owner.stream, &loop, &whole, &address, &settings, NANOSECONDS_PER_SECOND,
                          OUT_LIMIT, &failure) == STATUS_OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    memset(&owner, 0, sizeof(owner));
    kernel_begin(data, size);
    if (loop_open(&loop) != STATUS_OK)
        abort();
    if (open_stream()) {
        peer = &sockets[0];
        while (input < input_end)
            act();
        settle();
        if (!owner.has_closed)
            stream_free(&owner.stream);
    }
    loop_close(&loop);
    kernel_end();
    return 0;
}
