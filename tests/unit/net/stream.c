// SPDX-License-Identifier: Apache-2.0
/* Streams over plain TCP and over TLS: framing, order of events, limits, and every way to end. */
#include <errno.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/resource.h>

#include "base/bytes.h"
#include "net/socket.h"
#include "net/stream.h"
#include "sockets.h"
#include "tls_server.h"

enum { OUT_LIMIT = 1 << 18 };

static struct loop loop;
static struct tls_client *client, *misnamed;
static struct tls_trust *trust;
static struct identity authority, good;
static SSL_CTX *context;

/* The owner of a stream, which writes down what it hears. */
struct owner {
    struct stream stream;
    char events[256];  /* connected, open, readable, written, end, x: closed */
    uint8_t *received; /* all messages, each behind its length, as on the wire */
    size_t received_length;
    size_t message_count;
    enum failure failure;
    void (*act)(struct owner *owner, char event);
    bool takes_nothing;
    struct owner *other;
};

static struct owner *owner_of(struct stream *stream)
{
    return CONTAINER_OF(stream, struct owner, stream);
}

static void hear(struct stream *stream, char event)
{
    struct owner *owner = owner_of(stream);
    const size_t length = strlen(owner->events);
    assert_null(strchr(owner->events, 'x')); /* nothing comes after the end */
    if (length + 2 < sizeof owner->events) {
        owner->events[length] = event;
        owner->events[length + 1] = '\0';
    }
    if (owner->act)
        owner->act(owner, event);
}

static void connected(struct stream *stream)
{
    assert_int_equal(stream->state, STREAM_CONNECTING);
    hear(stream, 'c');
}

static void opened(struct stream *stream)
{
    assert_int_equal(stream->state, STREAM_OPEN);
    hear(stream, 'o');
}

static void take_messages(struct owner *owner)
{
    const uint8_t *message;
    size_t length;
    while (stream_next_message(&owner->stream, &message, &length) == STATUS_OK) {
        uint8_t *end;
        owner->received = realloc(owner->received, owner->received_length + 2 + length);
        assert_non_null(owner->received);
        end = owner->received + owner->received_length;
        store_u16(end, (uint16_t)length);
        memcpy(end + 2, message, length);
        owner->received_length += 2 + length;
        owner->message_count++;
    }
}

static void readable(struct stream *stream)
{
    assert_false(stream->reading_paused);
    if (!owner_of(stream)->takes_nothing)
        take_messages(owner_of(stream));
    hear(stream, 'r');
}

static void written(struct stream *stream)
{
    hear(stream, 'w');
}

static void ended(struct stream *stream)
{
    assert_false(stream->reading_paused);
    hear(stream, 'e');
}

static void closed(struct stream *stream, enum failure failure)
{
    assert_int_equal(stream->state, STREAM_CLOSED);
    hear(stream, 'x');
    owner_of(stream)->failure = failure;
    stream_free(stream);
}

static const struct stream_handler half_closing = {.on_connected = connected,
                                                   .on_open = opened,
                                                   .on_readable = readable,
                                                   .on_written = written,
                                                   .on_end = ended,
                                                   .on_closed = closed};
static const struct stream_handler handler = {.on_connected = connected,
                                              .on_open = opened,
                                              .on_readable = readable,
                                              .on_written = written,
                                              .on_closed = closed};
static const struct stream_handler terse = {.on_readable = readable, .on_closed = closed};

static bool has_closed(const struct owner *owner)
{
    return strchr(owner->events, 'x') != NULL;
}

static bool has_heard(const struct owner *owner, char event)
{
    return strchr(owner->events, event) != NULL;
}

/* --- Pairs --- */

struct pair {
    struct owner owner;
    struct tls_server server; /* when the stream is TLS */
    int fd;                   /* the peer's */
};

static void turn(struct pair *pair)
{
    assert_true(loop_turn(&loop, NANOSECONDS_PER_MILLISECOND));
    if (pair->server.ssl)
        server_step(&pair->server);
}

static uint64_t patience;

static bool is_patient(void)
{
    assert_true(loop_clock() < patience);
    return true;
}

#define RUN_UNTIL(pair, condition)                             \
    do {                                                       \
        patience = loop_clock() + 20 * NANOSECONDS_PER_SECOND; \
        while (!(condition) && is_patient())                   \
            turn(pair);                                        \
    } while (0)

static void open_plain(struct pair *pair, const struct stream_handler *events)
{
    int fd;
    *pair = (struct pair){0};
    tcp_pair(&pair->fd, &fd);
    assert_int_equal(stream_accept(&pair->owner.stream, &loop, events, fd, OUT_LIMIT), STATUS_OK);
}

/* A stream that connects to a peer which has accepted it, but says nothing yet. */
static void begin_connect(struct pair *pair, struct tls_client *settings, uint64_t user_timeout_ns)
{
    struct address address;
    enum failure failure;
    const int listener = listen_on_loopback(&address);
    *pair = (struct pair){0};
    assert_int_equal(stream_connect(&pair->owner.stream, &loop, &handler, &address, settings,
                                    user_timeout_ns, OUT_LIMIT, &failure),
                     STATUS_OK);
    wait_for(listener, POLLIN);
    pair->fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    assert_true(pair->fd >= 0);
    send_at_once(pair->fd);
    close(listener);
}

static void begin_tls(struct pair *pair, struct tls_client *settings)
{
    begin_connect(pair, settings, NANOSECONDS_PER_SECOND);
    server_open(&pair->server, context, pair->fd);
}

static void open_tls(struct pair *pair)
{
    begin_tls(pair, client);
    RUN_UNTIL(pair, pair->owner.stream.state == STREAM_OPEN && pair->server.open);
}

static void close_pair(struct pair *pair)
{
    if (!has_closed(&pair->owner)) {
        stream_close(&pair->owner.stream, FAILURE_CLOSED);
        stream_close(&pair->owner.stream, FAILURE_LOCAL); /* harmless */
        RUN_UNTIL(pair, has_closed(&pair->owner));
        assert_int_equal(pair->owner.failure, FAILURE_CLOSED);
    }
    free(pair->owner.received);
    server_free(&pair->server);
    if (pair->fd != -1)
        close(pair->fd);
}

static void peer_sends(struct pair *pair, const void *bytes, size_t length)
{
    assert_int_equal(write(pair->fd, bytes, length), length);
}

static void queue_message(struct stream *stream, const char *text)
{
    uint8_t *room = stream_begin_message(stream, strlen(text) + 100);
    assert_non_null(room);
    memcpy(room, text, strlen(text));
    stream_end_message(stream, strlen(text));
}

static int set_up(void **state)
{
    (void)state;
    char path[PATH_SIZE], error[128];
    signal(SIGPIPE, SIG_IGN);
    authority = identity_make(&(struct identity_form){.common_name = "authority", .is_ca = true});
    good = identity_make(&(struct identity_form){
        .common_name = "x", .san = "DNS:dns.example.net", .issuer = &authority});
    context = server_context(&good);
    write_certificate(path, &authority);
    assert_int_equal(tls_trust_open(path, &trust, error, sizeof error), STATUS_OK);
    unlink(path);
    char name[] = "dns.example.net", other[] = "other.example.net";
    struct upstream_config upstream = {.name = name};
    assert_int_equal(tls_client_open(&upstream, trust, &client), STATUS_OK);
    upstream.name = other;
    assert_int_equal(tls_client_open(&upstream, trust, &misnamed), STATUS_OK);
    assert_int_equal(loop_open(&loop), STATUS_OK);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    loop_close(&loop);
    tls_client_close(client);
    tls_client_close(misnamed);
    tls_trust_close(trust);
    SSL_CTX_free(context);
    identity_free(&authority);
    identity_free(&good);
    return 0;
}

/* --- F8: framing --- */

/* One message each of the lengths given, with telling contents. */
static size_t compose(uint8_t *out, const size_t *lengths, size_t count)
{
    size_t total = 0;
    for (size_t i = 0; i < count; i++) {
        store_u16(out + total, (uint16_t)lengths[i]);
        for (size_t j = 0; j < lengths[i]; j++)
            out[total + 2 + j] = (uint8_t)(31 * i + j);
        total += 2 + lengths[i];
    }
    return total;
}

static void F8_messages_split_at_each_offset(void **state)
{
    (void)state;
    static const size_t lengths[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 0, 300};
    enum { COUNT = sizeof lengths / sizeof *lengths };
    uint8_t wire[512];
    const size_t total = compose(wire, lengths, COUNT);
    for (size_t split = 0; split <= total; split++) {
        struct pair pair;
        open_plain(&pair, &handler);
        peer_sends(&pair, wire, split);
        RUN_UNTIL(&pair, pair.owner.stream.bytes_received == split);
        assert_int_equal(stream_has_partial(&pair.owner.stream),
                         pair.owner.received_length < split);
        peer_sends(&pair, wire + split, total - split);
        RUN_UNTIL(&pair, pair.owner.stream.bytes_received == total);
        assert_int_equal(pair.owner.message_count, COUNT);
        assert_int_equal(pair.owner.received_length, total);
        assert_memory_equal(pair.owner.received, wire, total);
        assert_false(stream_has_partial(&pair.owner.stream));
        close_pair(&pair);
    }
}

static void F8_longest_messages_in_pieces(void **state)
{
    (void)state;
    static const size_t lengths[] = {65535, 12, 65535, 0, 4094, 65534};
    enum { COUNT = sizeof lengths / sizeof *lengths, SIZE = 4 * 65537 };
    static const size_t pieces[] = {1371, 65535, SIZE};
    uint8_t *wire = malloc(SIZE);
    const size_t total = compose(wire, lengths, COUNT);
    for (size_t i = 0; i < 3; i++) {
        struct pair pair;
        open_plain(&pair, &handler);
        for (size_t sent = 0; sent < total;) {
            const size_t left = total - sent;
            const ssize_t count = write(pair.fd, wire + sent, left < pieces[i] ? left : pieces[i]);
            sent += count > 0 ? (size_t)count : 0;
            turn(&pair);
        }
        RUN_UNTIL(&pair, pair.owner.stream.bytes_received == total);
        assert_int_equal(pair.owner.received_length, total);
        assert_memory_equal(pair.owner.received, wire, total);
        close_pair(&pair);
    }
    free(wire);
}

static void F8_many_messages_in_one_record_and_one_over_five(void **state)
{
    (void)state;
    size_t lengths[100];
    static uint8_t wire[16384];
    struct pair pair;
    for (size_t i = 0; i < 100; i++)
        lengths[i] = i;
    const size_t many = compose(wire, lengths, 100);
    open_tls(&pair);
    server_write(&pair.server, wire, many);
    RUN_UNTIL(&pair, pair.owner.received_length == many);
    assert_memory_equal(pair.owner.received, wire, many);
    pair.owner.received_length = 0;
    const size_t one = compose(wire, (const size_t[]){4998}, 1);
    for (size_t sent = 0; sent < one; sent += 1000) {
        assert_int_equal(pair.owner.message_count, 100);
        server_write(&pair.server, wire + sent, 1000);
        turn(&pair);
    }
    RUN_UNTIL(&pair, pair.owner.message_count == 101);
    assert_memory_equal(pair.owner.received, wire, one);
    close_pair(&pair);
}

static void F8_partial_message_then_end_closes(void **state)
{
    (void)state;
    struct pair pair;
    open_plain(&pair, &handler);
    peer_sends(&pair, "\0\2ok\0\5part", 10);
    close(pair.fd);
    pair.fd = -1;
    RUN_UNTIL(&pair, has_closed(&pair.owner));
    assert_int_equal(pair.owner.failure, FAILURE_CLOSED);
    assert_int_equal(pair.owner.message_count, 1);
    close_pair(&pair);
}

static void F7_records_of_one_byte(void **state)
{
    (void)state;
    struct pair pair;
    uint8_t wire[128];
    const size_t total = compose(wire, (const size_t[]){0, 1, 50, 12}, 4);
    open_tls(&pair);
    for (size_t i = 0; i < total; i++)
        server_write(&pair.server, wire + i, 1);
    RUN_UNTIL(&pair, pair.owner.received_length == total);
    assert_memory_equal(pair.owner.received, wire, total);
    assert_int_equal(pair.owner.message_count, 4);
    close_pair(&pair);
}

/* --- F7, F16: writing --- */

/* Each write takes a few thousand bytes, and a peer that does not read soon blocks it. */
static void shrink_send_buffer(struct pair *pair)
{
    const int size = 1;
    const int fd = pair->owner.stream.fd;
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size), 0);
}

/* Queues messages of all sizes as the stream takes them; returns how many bytes they are. */
static size_t queue_many(struct pair *pair, uint8_t *wire, size_t size)
{
    size_t total = 0;
    for (size_t length = 1; total + 2 + length <= size; length = length * 3 + 1) {
        uint8_t *room = stream_begin_message(&pair->owner.stream, length);
        if (!room)
            break;
        for (size_t i = 0; i < length; i++)
            room[i] = (uint8_t)(length + i);
        stream_end_message(&pair->owner.stream, length);
        store_u16(wire + total, (uint16_t)length);
        memcpy(wire + total + 2, room, length);
        total += 2 + length;
        if (length > 10000)
            length = 0;
    }
    return total;
}

static void F7_short_writes_leave_the_same_bytes_on_the_wire(void **state)
{
    (void)state;
    enum { SIZE = 200000 };
    uint8_t *wire = malloc(SIZE), *got = malloc(SIZE);
    struct pair pair;
    open_plain(&pair, &handler);
    shrink_send_buffer(&pair);
    const size_t total = queue_many(&pair, wire, SIZE);
    assert_true(total > SIZE / 2);
    assert_int_equal(stream_unsent(&pair.owner.stream), total);
    assert_int_equal(pair.owner.stream.bytes_sent, 0); /* nothing before the end of the turn */
    size_t received = 0;
    while (received < total) {
        turn(&pair);
        const ssize_t count = read(pair.fd, got + received, 700);
        received += count > 0 ? (size_t)count : 0;
    }
    assert_memory_equal(got, wire, total);
    assert_int_equal(stream_unsent(&pair.owner.stream), 0);
    assert_true(has_heard(&pair.owner, 'w'));
    close_pair(&pair);
    free(wire);
    free(got);
}

static void F7_short_writes_under_tls_leave_the_same_bytes_on_the_wire(void **state)
{
    (void)state;
    uint8_t *wire = malloc(2 * OUT_LIMIT);
    struct pair pair;
    open_tls(&pair);
    shrink_send_buffer(&pair);
    SSL *ssl = pair.server.ssl;
    size_t total = queue_many(&pair, wire, OUT_LIMIT);
    pair.server.ssl = NULL; /* a peer that does not read */
    RUN_UNTIL(&pair, pair.owner.stream.write_waits_for == EPOLLOUT);
    const size_t before = pair.owner.stream.bytes_sent;
    assert_true(before < total);
    const uint8_t *retried = pair.owner.stream.out.bytes + pair.owner.stream.out.start;
    for (size_t more = 1; more > 0; total += more)
        more = queue_many(&pair, wire + total, 2 * OUT_LIMIT - total);
    assert_ptr_not_equal(retried, pair.owner.stream.out.bytes + pair.owner.stream.out.start);
    pair.server.ssl = ssl;
    RUN_UNTIL(&pair, pair.server.received_length == total);
    assert_memory_equal(pair.server.received, wire, total);
    close_pair(&pair);
    free(wire);
}

/* Shared bodies among messages that are copied, as the peer has to see them; returns the length. */
static size_t queue_around(struct stream *stream, struct body *body, uint8_t *wire)
{
    static const size_t splits[][2] = {{20, 5}, {5, 5}, {7, 0}, {0, 0}}; /* length, at */
    uint8_t *end = wire;
    for (size_t i = 0; i < 4; i++) {
        uint8_t bytes[20];
        const size_t length = splits[i][0], at = splits[i][1];
        memset(bytes, 'a' + (int)i, sizeof bytes);
        assert_true(stream_send_around(stream, bytes, length, at, body));
        store_u16(end, (uint16_t)(length + body->length));
        memcpy(end + 2, bytes, at);
        memcpy(end + 2 + at, body->bytes, body->length);
        memcpy(end + 2 + at + body->length, bytes + at, length - at);
        end += 2 + length + body->length;
        if (i == 1) {
            queue_message(stream, "copied");
            memcpy(end, "\0\6copied", 8);
            end += 8;
        }
    }
    return (size_t)(end - wire);
}

static struct body *body_of_length(struct output_account *account, size_t length)
{
    uint8_t *bytes = malloc(length);
    assert_non_null(bytes);
    for (size_t i = 0; i < length; i++)
        bytes[i] = (uint8_t)(i * 7 + i / 256);
    struct body *body = body_new(account, bytes, length);
    free(bytes);
    assert_non_null(body);
    return body;
}

static void read_slowly(struct pair *pair, uint8_t *got, size_t total)
{
    size_t received = 0;
    while (received < total) {
        turn(pair);
        const ssize_t count = read(pair->fd, got + received, 700);
        received += count > 0 ? (size_t)count : 0;
    }
}

static void K6_F7_shared_bodies_leave_in_order_however_short_the_writes(void **state)
{
    (void)state;
    enum { SIZE = 200000 };
    static const size_t lengths[] = {1, 4000, 40000};
    uint8_t *wire = malloc(SIZE), *got = malloc(SIZE);
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        struct output_account account = {.ceiling = 1 << 20};
        struct pair pair;
        open_plain(&pair, &handler);
        pair.owner.stream.account = &account;
        shrink_send_buffer(&pair);
        struct body *body = body_of_length(&account, lengths[i]);
        const size_t total = queue_around(&pair.owner.stream, body, wire);
        body_release(body);
        assert_int_equal(stream_unsent(&pair.owner.stream), total);
        read_slowly(&pair, got, total);
        assert_memory_equal(got, wire, total);
        assert_int_equal(stream_unsent(&pair.owner.stream), 0);
        assert_int_equal(pair.owner.stream.bytes_sent, total);
        assert_int_equal(account.used, 0);
        close_pair(&pair);
    }
    free(wire);
    free(got);
}

static void K6_shared_bodies_under_tls(void **state)
{
    (void)state;
    enum { LENGTH = 40000 };
    uint8_t *wire = malloc(5 * LENGTH);
    struct output_account account = {.ceiling = 1 << 20};
    struct pair pair;
    open_tls(&pair);
    struct body *body = body_of_length(&account, LENGTH);
    const size_t total = queue_around(&pair.owner.stream, body, wire);
    RUN_UNTIL(&pair, pair.server.received_length == total);
    assert_memory_equal(pair.server.received, wire, total);
    assert_int_equal(body->holders, 1);
    body_release(body);
    close_pair(&pair);
    free(wire);
}

static void K6_a_closed_stream_lets_go_of_its_bodies_and_its_account(void **state)
{
    (void)state;
    struct output_account account = {.ceiling = 1 << 20};
    struct pair pair;
    open_plain(&pair, &handler);
    struct stream *stream = &pair.owner.stream;
    stream->account = &account;
    struct body *body = body_of_length(&account, 60000);
    const size_t alone = account.used;
    queue_message(stream, "copied");
    while (stream_send_around(stream, (const uint8_t *)"head", 4, 4, body))
        continue;
    assert_in_range(stream_unsent(stream), OUT_LIMIT - 60006, OUT_LIMIT); /* counted as if copied */
    assert_int_equal(body->holders, 5);
    assert_in_range(account.used - alone, 4096, 6000); /* but not copied */
    assert_in_range(stream_held(stream), 4096 + 4 * 60000 / 5, 6000 + 4 * 60000 / 5);
    stream_close(stream, FAILURE_STALLED);
    assert_false(stream_send_around(stream, (const uint8_t *)"head", 4, 4, body));
    RUN_UNTIL(&pair, has_closed(&pair.owner));
    assert_int_equal(body->holders, 1);
    assert_int_equal(account.used, alone);
    body_release(body);
    close_pair(&pair);
}

/* What waits goes out in shares, with every other stream's in between. */
static void K5_writing_is_bounded_per_turn(void **state)
{
    (void)state;
    struct pair pair;
    open_plain(&pair, &handler);
    struct stream *stream = &pair.owner.stream;
    for (uint8_t *room; (room = stream_begin_message(stream, 60000));) {
        memset(room, 'x', 60000);
        stream_end_message(stream, 60000);
    }
    const size_t total = stream_unsent(stream);
    uint8_t *got = malloc(total);
    size_t received = 0;
    for (size_t turns = 1; received < total; turns++) {
        const uint64_t before = stream->bytes_sent;
        turn(&pair);
        assert_true(stream->bytes_sent - before <= 65536);
        const ssize_t count = read(pair.fd, got + received, total - received);
        received += count > 0 ? (size_t)count : 0;
        assert_true(turns < 100);
    }
    close_pair(&pair);
    free(got);
}

static void messages_of_one_turn_share_a_record(void **state)
{
    (void)state;
    struct pair pair;
    uint8_t header[5];
    open_tls(&pair);
    SSL *ssl = pair.server.ssl;
    pair.server.ssl = NULL;
    for (int i = 0; i < 10; i++)
        queue_message(&pair.owner.stream, "0123456789");
    RUN_UNTIL(&pair, stream_unsent(&pair.owner.stream) == 0);
    wait_for(pair.fd, POLLIN);
    int available = 0;
    assert_int_equal(recv(pair.fd, header, 5, MSG_PEEK), 5);
    assert_int_equal(ioctl(pair.fd, FIONREAD, &available), 0);
    assert_int_equal(available, 5 + load_u16(header + 3));
    pair.server.ssl = ssl;
    RUN_UNTIL(&pair, pair.server.received_length == 120);
    close_pair(&pair);
}

static void F16_what_waits_to_be_sent_is_bounded(void **state)
{
    (void)state;
    struct pair pair;
    open_plain(&pair, &handler);
    struct stream *stream = &pair.owner.stream;
    size_t queued = 0;
    for (uint8_t *room; (room = stream_begin_message(stream, 1000)); queued += 1002) {
        memset(room, 'x', 1000);
        stream_end_message(stream, 1000);
    }
    assert_int_equal(queued, OUT_LIMIT / 1002 * 1002);
    assert_int_equal(stream_unsent(stream), queued);
    assert_true(stream->out.size <= OUT_LIMIT);
    assert_non_null(stream_begin_message(stream, OUT_LIMIT % 1002 - 2)); /* to the last byte */
    assert_null(stream_begin_message(stream, OUT_LIMIT % 1002 - 1));
    close_pair(&pair);
}

static void F16_a_peer_that_stops_reading_is_told_as_stalled(void **state)
{
    (void)state;
    struct pair pair;
    begin_connect(&pair, NULL, 50 * NANOSECONDS_PER_MILLISECOND);
    RUN_UNTIL(&pair, pair.owner.stream.state == STREAM_OPEN);
    shrink_send_buffer(&pair);
    while (!has_closed(&pair.owner)) {
        while (stream_begin_message(&pair.owner.stream, 1000))
            stream_end_message(&pair.owner.stream, 1000);
        turn(&pair);
    }
    assert_int_equal(pair.owner.failure, FAILURE_STALLED);
    close_pair(&pair);
}

/* --- E1, E7: opening --- */

static void events_of_a_connection_come_in_order(void **state)
{
    (void)state;
    struct pair pair;
    begin_tls(&pair, client);
    queue_message(&pair.owner.stream, "question");
    RUN_UNTIL(&pair, pair.server.received_length == 10);
    server_write(&pair.server, "\0\6answer", 8);
    RUN_UNTIL(&pair, pair.owner.message_count == 1);
    assert_memory_equal(pair.server.received, "\0\10question", 10);
    assert_string_equal(pair.owner.events, "cowr");
    assert_int_equal(pair.owner.stream.bytes_sent, 10);
    assert_int_equal(pair.owner.stream.bytes_received, 8);
    close_pair(&pair);
}

static void E1_nothing_is_sent_to_a_server_with_another_name(void **state)
{
    (void)state;
    struct pair pair;
    begin_tls(&pair, misnamed);
    queue_message(&pair.owner.stream, "secret");
    RUN_UNTIL(&pair, has_closed(&pair.owner) && pair.server.broken);
    assert_int_equal(pair.owner.failure, FAILURE_CERTIFICATE_NAME);
    assert_string_equal(pair.owner.events, "cx");
    assert_int_equal(pair.server.received_length, 0);
    assert_int_equal(pair.owner.stream.bytes_sent, 0);
    close_pair(&pair);
}

static void E7_a_silent_server_is_waited_for_until_the_owner_gives_up(void **state)
{
    (void)state;
    struct pair pair;
    begin_connect(&pair, client, NANOSECONDS_PER_SECOND);
    queue_message(&pair.owner.stream, "secret");
    RUN_UNTIL(&pair, pair.owner.stream.state == STREAM_HANDSHAKING);
    for (int i = 0; i < 5; i++)
        turn(&pair);
    assert_string_equal(pair.owner.events, "c");
    stream_close(&pair.owner.stream, FAILURE_HANDSHAKE_TIMEOUT);
    assert_string_equal(pair.owner.events, "c"); /* not inside the call */
    RUN_UNTIL(&pair, has_closed(&pair.owner));
    assert_int_equal(pair.owner.failure, FAILURE_HANDSHAKE_TIMEOUT);
    close_pair(&pair);
}

static void E7_garbage_in_the_handshake_closes(void **state)
{
    (void)state;
    struct pair pair;
    begin_connect(&pair, client, NANOSECONDS_PER_SECOND);
    queue_message(&pair.owner.stream, "secret");
    peer_sends(&pair, "garbage garbage garbage", 23);
    RUN_UNTIL(&pair, has_closed(&pair.owner));
    assert_int_equal(pair.owner.failure, FAILURE_TLS);
    assert_int_equal(pair.owner.stream.bytes_sent, 0);
    close_pair(&pair);
}

static enum failure failure_of_connect(const struct address *address)
{
    struct owner owner = {0};
    enum failure failure = FAILURE_NONE;
    if (stream_connect(&owner.stream, &loop, &handler, address, client, 0, OUT_LIMIT, &failure) !=
        STATUS_OK) {
        assert_string_equal(owner.events, "");
        return failure;
    }
    while (!has_closed(&owner))
        assert_true(loop_turn(&loop, NANOSECONDS_PER_SECOND));
    assert_string_equal(owner.events, "x");
    return owner.failure;
}

static void connect_failures_have_their_names(void **state)
{
    (void)state;
    struct address address;
    struct rlimit before;
    const int listener = listen_on_loopback(&address);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    const struct rlimit none = {.rlim_cur = (rlim_t)dup(0), .rlim_max = before.rlim_max};
    close((int)none.rlim_cur);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    const enum failure failure = failure_of_connect(&address);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    assert_int_equal(failure, FAILURE_LOCAL);
    close(listener);
    assert_int_equal(failure_of_connect(&address), FAILURE_REFUSED_CONNECTION);
    struct address broadcast = any_port("255.255.255.255");
    broadcast.v4.sin_port = address.v4.sin_port;
    assert_int_equal(failure_of_connect(&broadcast), FAILURE_UNREACHABLE);
}

static void a_loop_that_takes_no_more_is_a_local_failure(void **state)
{
    (void)state;
    struct owner owner = {0};
    struct loop broken;
    struct address address;
    enum failure failure = FAILURE_NONE;
    int fd, peer;
    const int listener = listen_on_loopback(&address);
    assert_int_equal(loop_open(&broken), STATUS_OK);
    close(broken.epoll_fd);
    broken.epoll_fd = -1;
    assert_int_equal(
        stream_connect(&owner.stream, &broken, &handler, &address, NULL, 0, OUT_LIMIT, &failure),
        STATUS_SYSTEM);
    assert_int_equal(failure, FAILURE_LOCAL);
    tcp_pair(&fd, &peer);
    assert_int_equal(stream_accept(&owner.stream, &broken, &handler, fd, OUT_LIMIT), STATUS_SYSTEM);
    assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC); /* still the caller's */
    stream_free(&owner.stream);
    close(fd);
    close(peer);
    close(listener);
    loop_close(&broken);
}

/* What is written before there is a socket goes out once it has connected. */
static void a_stream_may_be_given_its_connected_socket(void **state)
{
    (void)state;
    struct pair pair = {0};
    int fd;
    stream_prepare(&pair.owner.stream, &loop, &handler, OUT_LIMIT);
    assert_int_equal(pair.owner.stream.state, STREAM_CONNECTING);
    queue_message(&pair.owner.stream, "early");
    tcp_pair(&fd, &pair.fd);
    stream_start(&pair.owner.stream, fd, NULL);
    RUN_UNTIL(&pair, pair.owner.stream.bytes_sent == 7);
    uint8_t bytes[8];
    wait_for(pair.fd, POLLIN);
    assert_int_equal(recv(pair.fd, bytes, sizeof bytes, 0), 7);
    assert_memory_equal(bytes, "\0\5early", 7);
    close_pair(&pair);
}

static void a_socket_for_a_closed_stream_is_closed(void **state)
{
    (void)state;
    struct pair pair = {0};
    int fd;
    stream_prepare(&pair.owner.stream, &loop, &handler, OUT_LIMIT);
    stream_close(&pair.owner.stream, FAILURE_CONNECT_TIMEOUT);
    tcp_pair(&fd, &pair.fd);
    stream_start(&pair.owner.stream, fd, NULL);
    uint8_t byte;
    wait_for(pair.fd, POLLIN);
    assert_int_equal(recv(pair.fd, &byte, 1, 0), 0);
    RUN_UNTIL(&pair, has_closed(&pair.owner));
    assert_int_equal(pair.owner.failure, FAILURE_CONNECT_TIMEOUT);
    close_pair(&pair);
}

static void a_stream_that_cannot_be_watched_closes(void **state)
{
    (void)state;
    struct pair pair;
    open_plain(&pair, &handler);
    const int epoll_fd = loop.epoll_fd;
    loop.epoll_fd = -1;
    stream_pause(&pair.owner.stream);
    loop.epoll_fd = epoll_fd;
    RUN_UNTIL(&pair, has_closed(&pair.owner));
    assert_int_equal(pair.owner.failure, FAILURE_LOCAL);
    close_pair(&pair);
}

/* In TLS 1.2 the server speaks last, so its first bytes may come along with its Finished. */
static void bytes_behind_the_handshake_are_read_at_once(void **state)
{
    (void)state;
    struct pair pair;
    SSL_CTX_set_max_proto_version(context, TLS1_2_VERSION);
    begin_tls(&pair, client);
    SSL_CTX_set_max_proto_version(context, 0);
    RUN_UNTIL(&pair, pair.server.open);
    assert_int_equal(pair.owner.stream.state, STREAM_HANDSHAKING);
    server_write(&pair.server, "\0\3one", 5);
    RUN_UNTIL(&pair, pair.owner.message_count == 1);
    assert_string_equal(pair.owner.events, "cor");
    close_pair(&pair);
}

/* --- F1, F14, B8: ending --- */

static void F1_every_end_of_an_idle_connection_is_seen_at_once(void **state)
{
    (void)state;
    for (int way = 0; way < 3; way++) {
        struct pair pair;
        open_tls(&pair);
        if (way == 0)
            SSL_shutdown(pair.server.ssl);
        server_free(&pair.server);
        if (way == 2)
            reset(pair.fd);
        else
            close(pair.fd);
        pair.fd = -1;
        RUN_UNTIL(&pair, has_closed(&pair.owner));
        assert_int_equal(pair.owner.failure, way == 2 ? FAILURE_RESET : FAILURE_CLOSED);
        assert_int_equal(pair.owner.message_count, 0);
        close_pair(&pair);
    }
}

static void F1_messages_before_the_end_are_delivered(void **state)
{
    (void)state;
    struct pair pair;
    open_tls(&pair);
    server_write(&pair.server, "\0\3one", 5);
    server_write(&pair.server, "\0\3two", 5);
    SSL_shutdown(pair.server.ssl);
    server_free(&pair.server);
    close(pair.fd);
    pair.fd = -1;
    RUN_UNTIL(&pair, has_closed(&pair.owner));
    assert_int_equal(pair.owner.message_count, 2);
    assert_int_equal(pair.owner.failure, FAILURE_CLOSED);
    close_pair(&pair);
}

static void F14_closing_tells_the_peer_and_waits_for_nothing(void **state)
{
    (void)state;
    struct pair pair;
    open_tls(&pair);
    queue_message(&pair.owner.stream, "never sent");
    stream_close(&pair.owner.stream, FAILURE_NONE);
    assert_true(loop_turn(&loop, 0));
    assert_true(has_closed(&pair.owner));
    RUN_UNTIL(&pair, pair.server.closed);
    assert_int_equal(pair.server.received_length, 0);
    close_pair(&pair);
}

static void writing_to_a_peer_that_is_gone_closes(void **state)
{
    (void)state;
    struct pair pair;
    open_plain(&pair, &half_closing);
    close(pair.fd);
    pair.fd = -1;
    RUN_UNTIL(&pair, has_heard(&pair.owner, 'e'));
    while (!has_closed(&pair.owner)) {
        if (stream_begin_message(&pair.owner.stream, 10))
            stream_end_message(&pair.owner.stream, 10);
        turn(&pair);
    }
    assert_int_equal(pair.owner.failure, FAILURE_RESET);
    close_pair(&pair);
}

static void reset_the_peer_of_the_other(struct owner *owner, char event)
{
    struct pair *other = CONTAINER_OF(owner->other, struct pair, owner);
    if (event != 'r')
        return;
    reset(other->fd);
    other->fd = -1;
    queue_message(&other->owner.stream, "too late");
}

static void a_write_that_fails_closes(void **state)
{
    (void)state;
    struct pair one, two;
    open_plain(&one, &handler);
    open_plain(&two, &handler);
    one.owner.act = reset_the_peer_of_the_other;
    one.owner.other = &two.owner;
    peer_sends(&one, "\0\1x", 3);
    RUN_UNTIL(&one, has_closed(&two.owner));
    assert_int_equal(two.owner.failure, FAILURE_RESET);
    assert_string_equal(two.owner.events, "x");
    close_pair(&one);
    close_pair(&two);
}

static void a_reset_while_nothing_is_read_or_written_closes(void **state)
{
    (void)state;
    struct pair pair;
    open_plain(&pair, &handler);
    stream_pause(&pair.owner.stream);
    reset(pair.fd);
    pair.fd = -1;
    RUN_UNTIL(&pair, has_closed(&pair.owner));
    assert_string_equal(pair.owner.events, "x");
    assert_int_equal(pair.owner.failure, FAILURE_RESET);
    close_pair(&pair);
}

/* B8: the peer half-closes; all is answered, then the stream ends. */
static void B8_half_close_is_reported_after_the_last_message(void **state)
{
    (void)state;
    struct pair pair;
    char text[64];
    open_plain(&pair, &half_closing);
    peer_sends(&pair, "\0\3one\0\3two", 10);
    assert_int_equal(shutdown(pair.fd, SHUT_WR), 0);
    RUN_UNTIL(&pair, has_heard(&pair.owner, 'e'));
    assert_string_equal(pair.owner.events, "re");
    assert_int_equal(pair.owner.message_count, 2);
    for (int i = 0; i < 5; i++)
        turn(&pair);
    assert_string_equal(pair.owner.events, "re"); /* once, and no spinning on the end */
    queue_message(&pair.owner.stream, "reply");
    stream_finish(&pair.owner.stream, FAILURE_NONE);
    RUN_UNTIL(&pair, has_closed(&pair.owner));
    assert_int_equal(pair.owner.failure, FAILURE_NONE);
    assert_int_equal(read(pair.fd, text, sizeof text), 7);
    assert_memory_equal(text, "\0\5reply", 7);
    assert_int_equal(read(pair.fd, text, sizeof text), 0);
    close_pair(&pair);
}

static void finishing_sends_everything_even_to_a_slow_peer(void **state)
{
    (void)state;
    enum { SIZE = 100000 };
    uint8_t *wire = malloc(SIZE), *got = malloc(SIZE);
    struct pair pair;
    open_plain(&pair, &handler);
    shrink_send_buffer(&pair);
    const size_t total = queue_many(&pair, wire, SIZE);
    stream_finish(&pair.owner.stream, FAILURE_OVERLOADED);
    assert_null(stream_begin_message(&pair.owner.stream, 1));
    peer_sends(&pair, "\0\3who\0\4half", 10); /* is still reported */
    size_t received = 0;
    for (ssize_t count = 1; count != 0;) {
        turn(&pair);
        if (has_closed(&pair.owner))
            wait_for(pair.fd, POLLIN);
        count = read(pair.fd, got + received, 900);
        received += count > 0 ? (size_t)count : 0;
    }
    assert_int_equal(received, total);
    assert_memory_equal(got, wire, total);
    RUN_UNTIL(&pair, has_closed(&pair.owner));
    assert_int_equal(pair.owner.failure, FAILURE_OVERLOADED);
    assert_int_equal(pair.owner.message_count, 1);
    stream_finish(&pair.owner.stream, FAILURE_LOCAL); /* harmless */
    close_pair(&pair);
    free(wire);
    free(got);
}

/* Unread bytes would make the kernel send a reset, which may destroy what the peer has not read. */
static void finishing_does_not_reset_a_peer_that_sent_more(void **state)
{
    (void)state;
    struct pair pair;
    char text[64];
    open_plain(&pair, &handler);
    stream_pause(&pair.owner.stream);
    peer_sends(&pair, "\0\3one\0\3two", 10);
    queue_message(&pair.owner.stream, "last");
    stream_finish(&pair.owner.stream, FAILURE_NONE);
    RUN_UNTIL(&pair, has_closed(&pair.owner));
    assert_int_equal(socket_error(pair.fd), 0);
    assert_int_equal(read(pair.fd, text, sizeof text), 6);
    assert_int_equal(read(pair.fd, text, sizeof text), 0);
    close_pair(&pair);
}

static void finishing_before_the_handshake_sends_after_it(void **state)
{
    (void)state;
    struct pair pair;
    begin_tls(&pair, client);
    queue_message(&pair.owner.stream, "question");
    stream_finish(&pair.owner.stream, FAILURE_NONE);
    RUN_UNTIL(&pair, has_closed(&pair.owner) && pair.server.closed);
    assert_memory_equal(pair.server.received, "\0\10question", 10);
    assert_int_equal(pair.owner.failure, FAILURE_NONE);
    close_pair(&pair);
}

static void a_stream_may_be_freed_without_its_loop(void **state)
{
    (void)state;
    struct pair pair;
    open_tls(&pair);
    queue_message(&pair.owner.stream, "never sent");
    stream_close(&pair.owner.stream, FAILURE_NONE);
    stream_free(&pair.owner.stream);
    assert_true(loop_turn(&loop, 0));
    assert_false(has_closed(&pair.owner));
    strcpy(pair.owner.events, "x");
    close_pair(&pair);
    open_tls(&pair);
    stream_free(&pair.owner.stream);
    strcpy(pair.owner.events, "x");
    close_pair(&pair);
}

/* --- Pausing --- */

static void a_paused_stream_is_not_read_and_goes_on_where_it_was(void **state)
{
    (void)state;
    struct pair pair;
    open_plain(&pair, &half_closing);
    stream_pause(&pair.owner.stream);
    peer_sends(&pair, "\0\3one", 5);
    assert_int_equal(shutdown(pair.fd, SHUT_WR), 0);
    for (int i = 0; i < 5; i++)
        turn(&pair);
    assert_string_equal(pair.owner.events, "");
    stream_resume(&pair.owner.stream);
    assert_string_equal(pair.owner.events, "");
    RUN_UNTIL(&pair, has_heard(&pair.owner, 'e'));
    assert_string_equal(pair.owner.events, "re");
    close_pair(&pair);
}

static void pause_when_readable(struct owner *owner, char event)
{
    if (event == 'r' && owner->takes_nothing)
        stream_pause(&owner->stream);
}

static void what_was_buffered_is_reported_after_a_pause(void **state)
{
    (void)state;
    struct pair pair;
    open_plain(&pair, &half_closing);
    pair.owner.takes_nothing = true;
    pair.owner.act = pause_when_readable;
    peer_sends(&pair, "\0\3one\0\3two", 10);
    RUN_UNTIL(&pair, has_heard(&pair.owner, 'r'));
    assert_false(stream_has_partial(&pair.owner.stream));
    pair.owner.takes_nothing = false;
    stream_resume(&pair.owner.stream);
    assert_true(loop_turn(&loop, 0));
    assert_int_equal(pair.owner.message_count, 2);
    assert_string_equal(pair.owner.events, "rr");
    close_pair(&pair);
}

static void B8_the_end_is_told_behind_what_was_buffered_over_a_pause(void **state)
{
    (void)state;
    struct pair pair;
    open_plain(&pair, &half_closing);
    pair.owner.takes_nothing = true;
    pair.owner.act = pause_when_readable;
    peer_sends(&pair, "\0\3one\0\3two", 10);
    RUN_UNTIL(&pair, has_heard(&pair.owner, 'r'));
    assert_int_equal(shutdown(pair.fd, SHUT_WR), 0);
    pair.owner.takes_nothing = false;
    stream_resume(&pair.owner.stream);
    RUN_UNTIL(&pair, has_heard(&pair.owner, 'e'));
    assert_string_equal(pair.owner.events, "rre");
    assert_int_equal(pair.owner.message_count, 2);
    close_pair(&pair);
}

static void bytes_inside_tls_are_not_forgotten_over_a_pause(void **state)
{
    (void)state;
    struct pair pair;
    static uint8_t wire[40000];
    const size_t total = compose(wire, (const size_t[]){12000, 12000, 12000}, 3);
    open_tls(&pair);
    pair.owner.takes_nothing = true;
    pair.owner.act = pause_when_readable;
    for (size_t sent = 0; sent < total; sent += 9000) {
        const size_t left = total - sent;
        server_write(&pair.server, wire + sent, left < 9000 ? left : 9000);
    }
    RUN_UNTIL(&pair, has_heard(&pair.owner, 'r'));
    assert_true(pair.owner.stream.bytes_received < total);
    pair.owner.takes_nothing = false;
    stream_resume(&pair.owner.stream);
    RUN_UNTIL(&pair, pair.owner.received_length == total);
    assert_memory_equal(pair.owner.received, wire, total);
    close_pair(&pair);
}

static void a_handler_that_takes_nothing_is_asked_again(void **state)
{
    (void)state;
    struct pair pair;
    enum { COUNT = 100 };
    static uint8_t wire[COUNT * 1002];
    size_t lengths[COUNT];
    for (size_t i = 0; i < COUNT; i++)
        lengths[i] = 1000;
    const size_t total = compose(wire, lengths, COUNT);
    open_plain(&pair, &handler);
    pair.owner.takes_nothing = true;
    peer_sends(&pair, wire, total);
    RUN_UNTIL(&pair, strlen(pair.owner.events) > 100);
    assert_true(pair.owner.stream.bytes_received < total);
    assert_true(pair.owner.stream.in.size <= 70000);
    pair.owner.takes_nothing = false;
    RUN_UNTIL(&pair, pair.owner.received_length == total);
    assert_memory_equal(pair.owner.received, wire, total);
    close_pair(&pair);
}

/* --- Closing inside handlers --- */

static char close_at;

static void close_on_event(struct owner *owner, char event)
{
    if (event != close_at)
        return;
    stream_close(&owner->stream, FAILURE_PROTOCOL);
    assert_false(has_closed(owner));
    const uint8_t *message;
    size_t length;
    assert_int_equal(stream_next_message(&owner->stream, &message, &length), STATUS_AGAIN);
    assert_null(stream_begin_message(&owner->stream, 1));
}

static void closing_inside_any_handler_ends_all_events(void **state)
{
    (void)state;
    static const char *expected[] = {"cx", "cox", "cowx", "cowrx"};
    for (size_t i = 0; i < 4; i++) {
        struct pair pair;
        close_at = "cowr"[i];
        begin_tls(&pair, client);
        pair.owner.act = close_on_event;
        pair.owner.takes_nothing = true;
        queue_message(&pair.owner.stream, "question");
        RUN_UNTIL(&pair, has_closed(&pair.owner) || pair.server.received_length == 10);
        if (!has_closed(&pair.owner))
            server_write(&pair.server, "\0\3one\0\3two", 10);
        RUN_UNTIL(&pair, has_closed(&pair.owner));
        assert_string_equal(pair.owner.events, expected[i]);
        assert_int_equal(pair.owner.failure, FAILURE_PROTOCOL);
        close_pair(&pair);
    }
}

static void closing_at_the_end_of_input_is_allowed(void **state)
{
    (void)state;
    struct pair pair;
    close_at = 'e';
    open_plain(&pair, &half_closing);
    pair.owner.act = close_on_event;
    assert_int_equal(shutdown(pair.fd, SHUT_WR), 0);
    RUN_UNTIL(&pair, has_closed(&pair.owner));
    assert_string_equal(pair.owner.events, "ex");
    close_pair(&pair);
}

static void close_the_other(struct owner *owner, char event)
{
    if (event == 'r')
        stream_close(&owner->other->stream, FAILURE_LOCAL);
}

static void a_stream_closed_by_another_hears_nothing_more(void **state)
{
    (void)state;
    struct pair one, two;
    open_plain(&one, &handler);
    open_plain(&two, &handler);
    one.owner.act = two.owner.act = close_the_other;
    one.owner.other = &two.owner;
    two.owner.other = &one.owner;
    peer_sends(&one, "\0\1x", 3);
    peer_sends(&two, "\0\1x", 3);
    wait_for(one.owner.stream.fd, POLLIN);
    wait_for(two.owner.stream.fd, POLLIN);
    assert_true(loop_turn(&loop, 0)); /* both in one batch */
    assert_int_equal(one.owner.message_count + two.owner.message_count, 1);
    assert_int_equal(has_closed(&one.owner) + has_closed(&two.owner), 1);
    close_pair(&one);
    close_pair(&two);
}

/* --- Limits --- */

/* Records of the size at which OpenSSL, reading ahead, always has the beginning of another one:
 * without a bound one turn would not end before the peer stops sending. */
static void reading_is_bounded_per_turn_and_nothing_is_left_behind(void **state)
{
    (void)state;
    enum { RECORD = 3319, RECORDS = 200, SIZE = RECORD * RECORDS };
    static uint8_t wire[SIZE];
    struct pair pair;
    size_t sent = 0, most = 0;
    size_t lengths[RECORDS];
    for (size_t i = 0; i < RECORDS; i++)
        lengths[i] = RECORD - 2;
    assert_int_equal(compose(wire, lengths, RECORDS), SIZE);
    open_tls(&pair);
    struct stream *stream = &pair.owner.stream;
    while (stream->bytes_received < SIZE) {
        size_t length;
        while (sent < SIZE && SSL_write_ex(pair.server.ssl, wire + sent, RECORD, &length) == 1)
            sent += length;
        ERR_clear_error();
        const uint64_t before = stream->bytes_received;
        turn(&pair);
        if (stream->bytes_received - before > most)
            most = stream->bytes_received - before;
    }
    assert_in_range(most, RECORD, 2 * (65536 + 16384));
    assert_int_equal(pair.owner.received_length, SIZE);
    assert_memory_equal(pair.owner.received, wire, SIZE);
    close_pair(&pair);
}

/* The last record lies inside OpenSSL when the turn's reading is used up: no event will tell. */
static void what_the_bound_leaves_inside_tls_is_read_in_the_next_turn(void **state)
{
    (void)state;
    enum { RECORD = 3319, BEFORE = 15, LARGE = 65536 - BEFORE * RECORD, LAST = 900 };
    static uint8_t wire[65536 + LAST];
    struct pair pair;
    size_t lengths[BEFORE + 2];
    for (size_t i = 0; i < BEFORE; i++)
        lengths[i] = RECORD - 2;
    lengths[BEFORE] = LARGE - 2;
    lengths[BEFORE + 1] = LAST - 2;
    assert_int_equal(compose(wire, lengths, BEFORE + 2), sizeof wire);
    open_tls(&pair);
    turn(&pair); /* the tickets are read */
    for (size_t i = 0, sent = 0; i < BEFORE + 2; i++) {
        server_write(&pair.server, wire + sent, lengths[i] + 2);
        sent += lengths[i] + 2;
    }
    RUN_UNTIL(&pair, pair.owner.received_length == sizeof wire);
    assert_memory_equal(pair.owner.received, wire, sizeof wire);
    close_pair(&pair);
}

static void reading_of_a_plain_stream_is_bounded_per_turn_too(void **state)
{
    (void)state;
    enum { SIZE = 300 * 1002 };
    static uint8_t wire[SIZE];
    struct pair pair;
    size_t lengths[300];
    for (size_t i = 0; i < 300; i++)
        lengths[i] = 1000;
    assert_int_equal(compose(wire, lengths, 300), SIZE);
    open_plain(&pair, &handler);
    for (size_t sent = 0; pair.owner.stream.bytes_received < SIZE;) {
        const ssize_t count = write(pair.fd, wire + sent, SIZE - sent);
        sent += count > 0 ? (size_t)count : 0;
        const uint64_t before = pair.owner.stream.bytes_received;
        turn(&pair);
        assert_true(pair.owner.stream.bytes_received - before <= 65536 + 69632);
    }
    assert_memory_equal(pair.owner.received, wire, SIZE);
    close_pair(&pair);
}

static void a_quiet_stream_holds_little_memory(void **state)
{
    (void)state;
    struct pair pair;
    open_plain(&pair, &terse);
    assert_true(sizeof(struct stream) <= 512);
    assert_null(pair.owner.stream.in.bytes);
    peer_sends(&pair, "\0\3one", 5);
    queue_message(&pair.owner.stream, "reply");
    RUN_UNTIL(&pair, pair.owner.message_count == 1 && stream_unsent(&pair.owner.stream) == 0);
    assert_null(pair.owner.stream.in.bytes);
    assert_null(pair.owner.stream.out.bytes);
    close_pair(&pair);
}

static void a_stream_whose_messages_were_taken_over_a_pause_holds_little_memory(void **state)
{
    (void)state;
    struct pair pair;
    const uint8_t *message;
    size_t length;
    open_plain(&pair, &half_closing);
    pair.owner.takes_nothing = true;
    pair.owner.act = pause_when_readable;
    peer_sends(&pair, "\0\3one", 5);
    RUN_UNTIL(&pair, has_heard(&pair.owner, 'r'));
    assert_int_equal(stream_next_message(&pair.owner.stream, &message, &length), STATUS_OK);
    assert_non_null(pair.owner.stream.in.bytes);
    stream_resume(&pair.owner.stream);
    assert_true(loop_turn(&loop, 0));
    assert_null(pair.owner.stream.in.bytes);
    close_pair(&pair);
}

static void handlers_that_are_null_are_not_called(void **state)
{
    (void)state;
    struct pair pair;
    struct address address;
    enum failure failure;
    const int listener = listen_on_loopback(&address);
    pair = (struct pair){.fd = -1};
    assert_int_equal(
        stream_connect(&pair.owner.stream, &loop, &terse, &address, NULL, 0, OUT_LIMIT, &failure),
        STATUS_OK);
    queue_message(&pair.owner.stream, "question");
    RUN_UNTIL(&pair, pair.owner.stream.bytes_sent == 10);
    close(listener);
    RUN_UNTIL(&pair, has_closed(&pair.owner));
    assert_string_equal(pair.owner.events, "x");
    close_pair(&pair);
}

static void a_tls_stream_keeps_small_buffers_and_gives_back_large_ones(void **state)
{
    (void)state;
    static uint8_t wire[65537];
    struct pair pair;
    open_tls(&pair);
    server_write(&pair.server, "\0\3one", 5);
    queue_message(&pair.owner.stream, "question");
    RUN_UNTIL(&pair, pair.owner.message_count == 1 && stream_unsent(&pair.owner.stream) == 0);
    assert_non_null(pair.owner.stream.in.bytes);
    assert_non_null(pair.owner.stream.out.bytes);
    const size_t total = compose(wire, (const size_t[]){65535}, 1);
    for (size_t sent = 0; sent < total; sent += 16000) {
        const size_t left = total - sent;
        server_write(&pair.server, wire + sent, left < 16000 ? left : 16000);
    }
    RUN_UNTIL(&pair, pair.owner.message_count == 2);
    assert_null(pair.owner.stream.in.bytes);
    close_pair(&pair);
}

/* RFC 8446 4.6.3: a key update may ask for one back. */
static void F7_key_updates_in_both_directions(void **state)
{
    (void)state;
    struct pair pair;
    open_tls(&pair);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(SSL_key_update(pair.server.ssl, SSL_KEY_UPDATE_REQUESTED), 1);
        server_write(&pair.server, "\0\3one", 5);
        queue_message(&pair.owner.stream, "question");
        RUN_UNTIL(&pair, pair.owner.message_count == (size_t)i + 1 &&
                             pair.server.received_length == (size_t)(i + 1) * 10);
    }
    close_pair(&pair);
}

static void F7_a_key_update_while_writing_is_blocked(void **state)
{
    (void)state;
    enum { SIZE = 200000 };
    uint8_t *wire = malloc(SIZE);
    struct pair pair;
    open_tls(&pair);
    shrink_send_buffer(&pair);
    SSL *ssl = pair.server.ssl;
    const size_t total = queue_many(&pair, wire, SIZE);
    pair.server.ssl = NULL;
    RUN_UNTIL(&pair, pair.owner.stream.write_waits_for == EPOLLOUT);
    pair.server.ssl = ssl;
    assert_int_equal(SSL_key_update(ssl, SSL_KEY_UPDATE_REQUESTED), 1);
    server_write(&pair.server, "\0\3one", 5);
    for (int i = 0; i < 5; i++)
        assert_true(loop_turn(&loop, NANOSECONDS_PER_MILLISECOND)); /* the peer reads nothing yet */
    RUN_UNTIL(&pair, pair.owner.message_count == 1 && pair.server.received_length == total);
    assert_memory_equal(pair.server.received, wire, total);
    close_pair(&pair);
    free(wire);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(F8_messages_split_at_each_offset),
        cmocka_unit_test(F8_longest_messages_in_pieces),
        cmocka_unit_test(F8_many_messages_in_one_record_and_one_over_five),
        cmocka_unit_test(F8_partial_message_then_end_closes),
        cmocka_unit_test(F7_records_of_one_byte),
        cmocka_unit_test(F7_short_writes_leave_the_same_bytes_on_the_wire),
        cmocka_unit_test(F7_short_writes_under_tls_leave_the_same_bytes_on_the_wire),
        cmocka_unit_test(K6_F7_shared_bodies_leave_in_order_however_short_the_writes),
        cmocka_unit_test(K6_shared_bodies_under_tls),
        cmocka_unit_test(K6_a_closed_stream_lets_go_of_its_bodies_and_its_account),
        cmocka_unit_test(K5_writing_is_bounded_per_turn),
        cmocka_unit_test(messages_of_one_turn_share_a_record),
        cmocka_unit_test(F16_what_waits_to_be_sent_is_bounded),
        cmocka_unit_test(F16_a_peer_that_stops_reading_is_told_as_stalled),
        cmocka_unit_test(events_of_a_connection_come_in_order),
        cmocka_unit_test(E1_nothing_is_sent_to_a_server_with_another_name),
        cmocka_unit_test(E7_a_silent_server_is_waited_for_until_the_owner_gives_up),
        cmocka_unit_test(E7_garbage_in_the_handshake_closes),
        cmocka_unit_test(connect_failures_have_their_names),
        cmocka_unit_test(a_loop_that_takes_no_more_is_a_local_failure),
        cmocka_unit_test(a_stream_may_be_given_its_connected_socket),
        cmocka_unit_test(a_socket_for_a_closed_stream_is_closed),
        cmocka_unit_test(a_stream_that_cannot_be_watched_closes),
        cmocka_unit_test(bytes_behind_the_handshake_are_read_at_once),
        cmocka_unit_test(F1_every_end_of_an_idle_connection_is_seen_at_once),
        cmocka_unit_test(F1_messages_before_the_end_are_delivered),
        cmocka_unit_test(F14_closing_tells_the_peer_and_waits_for_nothing),
        cmocka_unit_test(writing_to_a_peer_that_is_gone_closes),
        cmocka_unit_test(a_write_that_fails_closes),
        cmocka_unit_test(a_reset_while_nothing_is_read_or_written_closes),
        cmocka_unit_test(B8_half_close_is_reported_after_the_last_message),
        cmocka_unit_test(finishing_sends_everything_even_to_a_slow_peer),
        cmocka_unit_test(finishing_does_not_reset_a_peer_that_sent_more),
        cmocka_unit_test(finishing_before_the_handshake_sends_after_it),
        cmocka_unit_test(a_stream_may_be_freed_without_its_loop),
        cmocka_unit_test(a_paused_stream_is_not_read_and_goes_on_where_it_was),
        cmocka_unit_test(what_was_buffered_is_reported_after_a_pause),
        cmocka_unit_test(B8_the_end_is_told_behind_what_was_buffered_over_a_pause),
        cmocka_unit_test(bytes_inside_tls_are_not_forgotten_over_a_pause),
        cmocka_unit_test(a_handler_that_takes_nothing_is_asked_again),
        cmocka_unit_test(closing_inside_any_handler_ends_all_events),
        cmocka_unit_test(closing_at_the_end_of_input_is_allowed),
        cmocka_unit_test(a_stream_closed_by_another_hears_nothing_more),
        cmocka_unit_test(reading_is_bounded_per_turn_and_nothing_is_left_behind),
        cmocka_unit_test(what_the_bound_leaves_inside_tls_is_read_in_the_next_turn),
        cmocka_unit_test(reading_of_a_plain_stream_is_bounded_per_turn_too),
        cmocka_unit_test(a_quiet_stream_holds_little_memory),
        cmocka_unit_test(a_stream_whose_messages_were_taken_over_a_pause_holds_little_memory),
        cmocka_unit_test(handlers_that_are_null_are_not_called),
        cmocka_unit_test(a_tls_stream_keeps_small_buffers_and_gives_back_large_ones),
        cmocka_unit_test(F7_key_updates_in_both_directions),
        cmocka_unit_test(F7_a_key_update_while_writing_is_blocked),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
