// SPDX-License-Identifier: Apache-2.0
/* The TCP listener and its clients with real sockets on loopback over a fake query layer. */
#include "fake_query.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "listen/listen.h"
#include "listen/tcp_client.h"
#include "net/socket.h"
#include "observe/log.h"

enum { CLIENTS_MAX = 16, FRAME_SIZE = 2 + QUERY_SIZE };

static struct tcp_clients *clients;
static struct tcp_listener *listener;
static struct address server;
static int sockets[CLIENTS_MAX]; /* the clients' ends; closed by teardown */
static size_t socket_count;
static size_t logged;

void log_event(enum log_level level, const char *event, ...)
{
    (void)level;
    assert_string_equal(event, "accept_failed");
    logged++;
}

void log_event_limited(struct log_limit *limit, uint64_t now, enum log_level level,
                       const char *event, ...)
{
    (void)limit;
    (void)now;
    (void)level;
    assert_string_equal(event, "tcp_memory_short");
}

static int setup(void **state)
{
    (void)state;
    clients = NULL;
    listener = NULL;
    socket_count = 0;
    logged = 0;
    fake_open();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    tcp_close(listener);
    tcp_clients_close(clients);
    for (size_t i = 0; i < socket_count; i++)
        close(sockets[i]);
    fake_close();
    return 0;
}

static void serve(void)
{
    fake_start();
    assert_int_equal(address_parse("127.0.0.1", 53, &server), STATUS_OK);
    server.v4.sin_port = 0;
    int fd;
    assert_int_equal(socket_listen_tcp(&server, false, &fd), STATUS_OK);
    socklen_t length = sizeof(server);
    assert_int_equal(getsockname(fd, &server.any, &length), 0);
    assert_int_equal(tcp_clients_open(&fake.resolver, &clients), STATUS_OK);
    assert_int_equal(tcp_open(clients, fd, &listener), STATUS_OK);
}

/* From `source`, in the kernel's queue of the listener. Non-blocking from then on. */
static int connect_from(const char *source)
{
    struct address from;
    assert_int_equal(address_parse(source, 53, &from), STATUS_OK);
    from.v4.sin_port = 0;
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_true(socket_count < CLIENTS_MAX);
    sockets[socket_count++] = fd;
    assert_int_equal(bind(fd, &from.any, address_length(&from)), 0);
    assert_int_equal(connect(fd, &server.any, address_length(&server)), 0);
    assert_int_equal(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
    return fd;
}

static int connect_client(void)
{
    return connect_from("127.0.0.1");
}

/* Not closed again by teardown. */
static void close_client(int fd)
{
    for (size_t i = 0; i < socket_count; i++) {
        if (sockets[i] == fd)
            sockets[i--] = sockets[--socket_count];
    }
    close(fd);
}

static size_t frame(uint8_t *out, uint16_t id, char kind)
{
    store_u16(out, QUERY_SIZE);
    return 2 + fake_query(out + 2, id, kind);
}

/* Sends everything, turning the loop while the socket is full. */
static void send_bytes(int fd, const uint8_t *bytes, size_t length)
{
    for (size_t sent = 0; sent < length;) {
        const ssize_t now = send(fd, bytes + sent, length - sent, MSG_NOSIGNAL);
        if (now > 0)
            sent += (size_t)now;
        else
            assert_true(loop_turn(&fake.loop, NANOSECONDS_PER_MILLISECOND));
    }
}

static void ask(int fd, uint16_t id, char kind)
{
    uint8_t bytes[FRAME_SIZE];
    send_bytes(fd, bytes, frame(bytes, id, kind));
}

/* `count` queries with the IDs 0, 1, ... in one segment (or as few as it takes). */
static void ask_many(int fd, size_t count, char kind)
{
    uint8_t *bytes = malloc(count * FRAME_SIZE);
    assert_non_null(bytes);
    for (size_t i = 0; i < count; i++)
        frame(bytes + i * FRAME_SIZE, (uint16_t)i, kind);
    send_bytes(fd, bytes, count * FRAME_SIZE);
    free(bytes);
}

/* Exactly `length` bytes, turning the loop until they are there. */
static void receive_bytes(int fd, uint8_t *bytes, size_t length)
{
    size_t received = 0;
    ssize_t now = 0;
    while (received < length) {
        TURN_UNTIL((now = recv(fd, bytes + received, length - received, 0)) >= 0);
        assert_int_not_equal(now, 0);
        received += (size_t)now;
    }
}

/* The ID of the next reply. */
static uint16_t await_any_reply(int fd)
{
    uint8_t reply[65535];
    receive_bytes(fd, reply, 2);
    const size_t length = load_u16(reply);
    assert_int_equal(length, fake.reply_length ? fake.reply_length : QUERY_SIZE);
    receive_bytes(fd, reply, length);
    return load_u16(reply);
}

static void await_reply(int fd, uint16_t id)
{
    assert_int_equal(await_any_reply(fd), id);
}

/* True when the server has ended the connection; throws away what else came. */
static bool has_ended(int fd)
{
    uint8_t bytes[4096];
    ssize_t length;
    while ((length = recv(fd, bytes, sizeof(bytes), 0)) > 0)
        ;
    return length == 0 || errno != EAGAIN;
}

static void await_end(int fd)
{
    uint8_t byte;
    ssize_t length;
    TURN_UNTIL((length = recv(fd, &byte, 1, 0)) != -1 || errno != EAGAIN);
    assert_true(length <= 0);
}

/* Ended by FIN: everything before has arrived. */
static void await_clean_end(int fd)
{
    uint8_t byte;
    ssize_t length;
    TURN_UNTIL((length = recv(fd, &byte, 1, 0)) != -1 || errno != EAGAIN);
    assert_int_equal(length, 0);
}

static bool is_served(int fd)
{
    ask(fd, 4711, 'a');
    await_reply(fd, 4711);
    return true;
}

static void turn_for(uint64_t duration_ns)
{
    const uint64_t end_ns = loop_clock() + duration_ns;
    while (loop_clock() < end_ns)
        assert_true(loop_turn(&fake.loop, NANOSECONDS_PER_MILLISECOND));
}

/* The only client that is open. */
static const struct tcp_client *only_client(void)
{
    assert_int_equal(METRIC(tcp_clients), 1);
    return CONTAINER_OF(clients->open.next, struct tcp_client, link);
}

static void B1_query_is_answered(void **state)
{
    (void)state;
    serve();
    const int fd = connect_client();
    ask(fd, 1, 'a');
    await_reply(fd, 1);
    ask(fd, 2, 'w');
    TURN_UNTIL(fake_waiting_count() == 1);
    fake_answer(fake_waiting(0));
    await_reply(fd, 2);
    assert_int_equal(METRIC(queries_tcp), 2);
    assert_int_equal(METRIC(tcp_accepted), 1);
    assert_false(fake.last_origin.transport->is_datagram);
    assert_int_equal(fake.last_origin.local.any.sa_family, AF_UNSPEC);
    struct address from = {0};
    socklen_t length = sizeof(from);
    assert_int_equal(getsockname(fd, &from.any, &length), 0);
    assert_true(address_equal(&fake.last_origin.client, &from));
}

static void B1_query_split_at_every_byte_is_answered(void **state)
{
    (void)state;
    serve();
    const int fd = connect_client();
    for (size_t split = 1; split < FRAME_SIZE; split++) {
        uint8_t bytes[FRAME_SIZE];
        frame(bytes, (uint16_t)split, 'a');
        send_bytes(fd, bytes, split);
        const uint64_t received = split + (split - 1) * FRAME_SIZE;
        TURN_UNTIL(!list_is_empty(&clients->open) &&
                   only_client()->stream.bytes_received == received);
        assert_int_equal(fake.begun, split - 1);
        send_bytes(fd, bytes + split, FRAME_SIZE - split);
        await_reply(fd, (uint16_t)split);
    }
}

static void B1_thousand_queries_in_one_segment_are_answered(void **state)
{
    (void)state;
    serve();
    const int fd = connect_client();
    ask_many(fd, 1000, 'a');
    for (uint16_t id = 0; id < 1000; id++)
        await_reply(fd, id);
}

static void B2_length_below_a_header_closes_that_connection_only(void **state)
{
    (void)state;
    serve();
    const int other = connect_client();
    for (int length = 0; length < DNS_HEADER_SIZE; length++) {
        const int fd = connect_client();
        uint8_t bytes[FRAME_SIZE] = {0, (uint8_t)length};
        send_bytes(fd, bytes, sizeof(bytes));
        await_end(fd);
        close_client(fd);
        TURN_UNTIL(METRIC(tcp_clients) == 1);
    }
    assert_int_equal(fake.begun, 0);
    assert_true(is_served(other));
}

static void B2_what_was_asked_before_a_short_frame_is_answered_and_nothing_behind_it(void **state)
{
    (void)state;
    serve();
    static const char kinds[] = {'a', 'w'};
    for (size_t i = 0; i < sizeof(kinds); i++) {
        const int fd = connect_client();
        const size_t begun = fake.begun;
        uint8_t bytes[2 * FRAME_SIZE + 3] = {0};
        frame(bytes, 7, kinds[i]);
        store_u16(bytes + FRAME_SIZE, 1);
        frame(bytes + FRAME_SIZE + 3, 8, 'a');
        send_bytes(fd, bytes, sizeof(bytes));
        TURN_UNTIL(fake.begun > begun);
        if (kinds[i] == 'w') {
            ask(fd, 9, 'a');
            turn_for(20 * NANOSECONDS_PER_MILLISECOND);
            fake_answer(fake_waiting(0));
        }
        await_reply(fd, 7);
        await_end(fd);
        assert_int_equal(fake.begun, begun + 1);
        TURN_UNTIL(METRIC(tcp_clients) == 0);
    }
}

static void B3_what_was_asked_before_an_unfinished_message_is_answered(void **state)
{
    (void)state;
    fake.config.snapshot.timeouts.tcp_message_ns = 20 * NANOSECONDS_PER_MILLISECOND;
    serve();
    const int fd = connect_client();
    uint8_t bytes[FRAME_SIZE + 1] = {0};
    frame(bytes, 7, 'w');
    send_bytes(fd, bytes, sizeof(bytes));
    TURN_UNTIL(fake_waiting_count() == 1);
    TURN_UNTIL(only_client()->is_ending);
    fake_answer(fake_waiting(0));
    await_reply(fd, 7);
    await_clean_end(fd);
}

static void B2_many_empty_frames_end_in_one_close(void **state)
{
    (void)state;
    serve();
    const int fd = connect_client();
    static const uint8_t zeros[200000];
    size_t sent = 0;
    while (sent < sizeof(zeros)) { /* until the server resets the connection */
        const ssize_t now = send(fd, zeros + sent, sizeof(zeros) - sent, MSG_NOSIGNAL);
        if (now < 0 && errno != EAGAIN)
            break;
        sent += now > 0 ? (size_t)now : 0;
        assert_true(loop_turn(&fake.loop, NANOSECONDS_PER_MILLISECOND));
    }
    TURN_UNTIL(METRIC(tcp_accepted) == 1 && METRIC(tcp_clients) == 0);
    assert_int_equal(fake.begun, 0);
}

static void B2_length_beyond_the_message_waits_for_the_deadline(void **state)
{
    (void)state;
    fake.config.snapshot.timeouts.tcp_message_ns = 30 * NANOSECONDS_PER_MILLISECOND;
    serve();
    const int fd = connect_client();
    uint8_t bytes[FRAME_SIZE];
    frame(bytes, 1, 'a');
    store_u16(bytes, QUERY_SIZE + 1);
    send_bytes(fd, bytes, sizeof(bytes));
    await_end(fd);
    assert_int_equal(fake.begun, 0);
}

static void B3_bytes_that_trickle_do_not_extend_the_message_deadline(void **state)
{
    (void)state;
    fake.config.snapshot.timeouts.tcp_message_ns = 100 * NANOSECONDS_PER_MILLISECOND;
    serve();
    const int fd = connect_client();
    const uint8_t length[2] = {0xff, 0xff};
    send_bytes(fd, length, 2);
    size_t trickled = 0;
    const uint64_t give_up_ns = loop_clock() + 10 * NANOSECONDS_PER_SECOND;
    while (!has_ended(fd)) {
        (void)send(fd, "x", 1, MSG_NOSIGNAL);
        trickled++;
        turn_for(5 * NANOSECONDS_PER_MILLISECOND);
        assert_true(loop_clock() < give_up_ns);
    }
    assert_true(trickled > 1);
    assert_true(trickled < 1000); /* it was not the cap on reads */
}

static void B3_each_message_has_a_deadline_of_its_own(void **state)
{
    (void)state;
    fake.config.snapshot.timeouts.tcp_message_ns = 200 * NANOSECONDS_PER_MILLISECOND;
    serve();
    const int fd = connect_client();
    uint8_t bytes[FRAME_SIZE + 5];
    frame(bytes, 1, 'a');
    memcpy(bytes + FRAME_SIZE, bytes, 5);
    send_bytes(fd, bytes, 5);
    for (int i = 0; i < 10; i++) { /* always in the midst of a message, 400 ms in all */
        turn_for(40 * NANOSECONDS_PER_MILLISECOND);
        send_bytes(fd, bytes + 5, FRAME_SIZE);
        await_reply(fd, 1);
    }
    await_end(fd); /* the last one never comes */
    assert_int_equal(fake.begun, 10);
}

static void B3_reads_without_a_message_are_capped(void **state)
{
    (void)state;
    serve();
    const int fd = connect_client();
    const uint8_t length[2] = {0xff, 0xff};
    send_bytes(fd, length, 2);
    TURN_UNTIL(METRIC(tcp_clients) == 1);
    size_t trickled = 0;
    while (METRIC(tcp_clients) == 1 && trickled < 5000) {
        (void)send(fd, "x", 1, MSG_NOSIGNAL);
        trickled++;
        assert_true(loop_turn(&fake.loop, NANOSECONDS_PER_MILLISECOND));
    }
    assert_in_range(trickled, 1000, 1100);
}

static void B4_client_that_never_reads_is_bounded_and_closed(void **state)
{
    (void)state;
    fake.config.snapshot.timeouts.tcp_send_ns = 200 * NANOSECONDS_PER_MILLISECOND;
    fake.reply_length = 4000;
    serve();
    const int other = connect_client();
    assert_true(is_served(other));
    const int fd = connect_client();
    const int size = 4096;
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size)), 0);
    uint8_t bytes[FRAME_SIZE];
    frame(bytes, 1, 'a');
    size_t asked = 0;
    size_t unsent_most = 0;
    TURN_UNTIL(METRIC(tcp_clients) == 2);
    struct tcp_client *client = CONTAINER_OF(clients->open.previous, struct tcp_client, link);
    const uint64_t give_up_ns = loop_clock() + 30 * NANOSECONDS_PER_SECOND;
    while (METRIC(tcp_clients) == 2 && loop_clock() < give_up_ns) {
        if (asked < 10000 && send(fd, bytes, sizeof(bytes), MSG_NOSIGNAL) == sizeof(bytes))
            asked++;
        assert_true(loop_turn(&fake.loop, 0));
        if (METRIC(tcp_clients) == 2 && stream_unsent(&client->stream) > unsent_most)
            unsent_most = stream_unsent(&client->stream);
        if (asked % 64 == 0)
            assert_true(is_served(other));
    }
    assert_int_equal(METRIC(tcp_clients), 1); /* closed at the send deadline */
    assert_true(unsent_most > 0);
    assert_true(unsent_most < 256 * 1024);
    assert_true(is_served(other));
}

static void B4_client_that_reads_slowly_is_kept(void **state)
{
    (void)state;
    fake.config.snapshot.timeouts.tcp_send_ns = 300 * NANOSECONDS_PER_MILLISECOND;
    fake.reply_length = 60000;
    serve();
    const int fd = connect_client();
    ask_many(fd, 400, 'a'); /* 24 MB, far more than the sockets hold */
    for (uint16_t id = 0; id < 400; id++) {
        await_reply(fd, id);
        if (id % 40 == 0)
            turn_for(50 * NANOSECONDS_PER_MILLISECOND);
    }
}

static void B4_progress_extends_the_send_deadline(void **state)
{
    (void)state;
    fake.config.snapshot.timeouts.tcp_send_ns = 400 * NANOSECONDS_PER_MILLISECOND;
    fake.reply_length = 60000;
    serve();
    const int fd = connect_client();
    const int size = 32768; /* what is read lets a part of what waits out, never all */
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size)), 0);
    TURN_UNTIL(METRIC(tcp_clients) == 1);
    const struct tcp_client *client = only_client();
    assert_int_equal(setsockopt(client->stream.fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)), 0);
    ask_many(fd, 200, 'a');
    TURN_UNTIL(stream_unsent(&client->stream) > 0);
    const uint64_t end_ns = loop_clock() + 1200 * NANOSECONDS_PER_MILLISECOND;
    while (loop_clock() < end_ns) {
        uint8_t bytes[16384];
        assert_int_not_equal(recv(fd, bytes, sizeof(bytes), 0), 0);
        turn_for(10 * NANOSECONDS_PER_MILLISECOND);
        assert_int_equal(METRIC(tcp_clients), 1);
        assert_true(stream_unsent(&client->stream) > 0);
    }
    TURN_UNTIL(METRIC(tcp_clients) == 0); /* it has stopped reading */
}

static void B4_reply_that_finds_no_room_closes_the_client(void **state)
{
    (void)state;
    fake.reply_length = 65535;
    serve();
    const int other = connect_client();
    const int fd = connect_client();
    ask_many(fd, 20, 'w');
    TURN_UNTIL(fake_waiting_count() == 20);
    while (fake_waiting_count() > 0) /* 1.3 MB in one turn */
        fake_answer(fake_waiting(0));
    await_end(fd);
    assert_true(METRIC(dropped_gone) > 0);
    TURN_UNTIL(METRIC(tcp_clients) == 1);
    fake.reply_length = 0;
    assert_true(is_served(other));
}

static void B5_reset_gives_every_query_back(void **state)
{
    (void)state;
    serve();
    const int fd = connect_client();
    ask_many(fd, 50, 'w');
    TURN_UNTIL(fake_waiting_count() == 50);
    const struct linger reset = {.l_onoff = 1};
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset)), 0);
    close_client(fd);
    TURN_UNTIL(METRIC(tcp_clients) == 0);
    assert_int_equal(fake.dropped, 50);
    assert_int_equal(METRIC(dropped_gone), 50);
    assert_int_equal(fake.resolver.queries.in_use, 0);
}

static void B5_client_at_its_limit_that_resets_is_noticed(void **state)
{
    (void)state;
    fake.config.snapshot.limits.tcp_queries = 5;
    serve();
    const int fd = connect_client();
    ask_many(fd, 50, 'w');
    TURN_UNTIL(fake_waiting_count() == 5);
    const struct linger reset = {.l_onoff = 1};
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset)), 0);
    close_client(fd);
    TURN_UNTIL(METRIC(tcp_clients) == 0);
    assert_int_equal(fake.dropped, 5);
}

static void B5_replies_to_a_client_that_has_closed_do_no_harm(void **state)
{
    (void)state;
    serve();
    const int fd = connect_client();
    ask_many(fd, 50, 'w');
    TURN_UNTIL(fake_waiting_count() == 50);
    close_client(fd);
    while (fake_waiting_count() > 0) {
        fake_answer(fake_waiting(0));
        assert_true(loop_turn(&fake.loop, NANOSECONDS_PER_MILLISECOND));
    }
    TURN_UNTIL(METRIC(tcp_clients) == 0);
    assert_int_equal(fake.resolver.queries.in_use, 0);
}

static void B6_pipelined_queries_answered_at_once_need_no_stack(void **state)
{
    (void)state;
    serve();
    const int fd = connect_client();
    ask_many(fd, 10000, 'a');
    for (size_t id = 0; id < 10000; id++)
        await_reply(fd, (uint16_t)id);
    assert_int_equal(fake.begun, 10000);
    assert_true(fake.stack_highest - fake.stack_lowest < 4096);
}

static void B7_replies_leave_in_the_order_of_their_answers(void **state)
{
    (void)state;
    serve();
    const int fd = connect_client();
    ask(fd, 1, 'w');
    ask(fd, 2, 'w');
    ask(fd, 3, 'a');
    await_reply(fd, 3);
    fake_answer(fake_waiting(1));
    await_reply(fd, 2);
    fake_answer(fake_waiting(0));
    await_reply(fd, 1);
}

static void B7_same_id_twice_in_flight_is_answered_twice(void **state)
{
    (void)state;
    serve();
    const int fd = connect_client();
    ask(fd, 9, 'w');
    ask(fd, 9, 'w');
    TURN_UNTIL(fake_waiting_count() == 2);
    fake_answer(fake_waiting(0));
    fake_answer(fake_waiting(0));
    await_reply(fd, 9);
    await_reply(fd, 9);
}

static void B8_half_close_delivers_everything_then_ends(void **state)
{
    (void)state;
    serve();
    const int fd = connect_client();
    ask_many(fd, 3, 'w');
    assert_int_equal(shutdown(fd, SHUT_WR), 0);
    TURN_UNTIL(fake_waiting_count() == 3 && only_client()->stream.ended);
    while (fake_waiting_count() > 0)
        fake_answer(fake_waiting(0));
    for (uint16_t id = 0; id < 3; id++)
        await_reply(fd, id);
    await_clean_end(fd);
    TURN_UNTIL(METRIC(tcp_clients) == 0);
}

static void B8_half_close_behind_many_queries_loses_none(void **state)
{
    (void)state;
    fake.config.snapshot.limits.tcp_queries = 7;
    serve();
    const int fd = connect_client();
    ask_many(fd, 1000, 'a');
    ask_many(fd, 20, 'w');
    assert_int_equal(shutdown(fd, SHUT_WR), 0);
    for (uint16_t id = 0; id < 1000; id++)
        await_reply(fd, id);
    for (uint16_t id = 0; id < 20; id++) {
        TURN_UNTIL(fake_waiting_count() > 0);
        fake_answer(fake_waiting(0));
        await_reply(fd, id);
    }
    await_clean_end(fd);
    TURN_UNTIL(METRIC(tcp_clients) == 0);
}

static void B8_half_close_within_a_message_ends_at_once(void **state)
{
    (void)state;
    serve();
    const int fd = connect_client();
    uint8_t bytes[FRAME_SIZE];
    frame(bytes, 1, 'a');
    send_bytes(fd, bytes, FRAME_SIZE - 1);
    assert_int_equal(shutdown(fd, SHUT_WR), 0);
    await_end(fd);
    TURN_UNTIL(METRIC(tcp_clients) == 0);
}

static void B9_address_above_its_limit_is_refused(void **state)
{
    (void)state;
    fake.config.snapshot.limits.tcp_clients_per_address = 2;
    serve();
    const int first = connect_client();
    const int second = connect_client();
    const int third = connect_client();
    await_end(third);
    assert_int_equal(METRIC(tcp_refused), 1);
    assert_int_equal(METRIC(tcp_clients), 2);
    const int elsewhere = connect_from("127.0.0.2");
    assert_true(is_served(first) && is_served(second) && is_served(elsewhere));
    close_client(first);
    TURN_UNTIL(METRIC(tcp_clients) == 2);
    assert_true(is_served(connect_client()));
}

static void B9_clients_above_the_limit_are_refused(void **state)
{
    (void)state;
    fake.config.limits.tcp_clients = 2;
    serve();
    const int first = connect_from("127.0.0.1");
    const int second = connect_from("127.0.0.2");
    await_end(connect_from("127.0.0.3"));
    await_end(connect_from("127.0.0.1"));
    assert_int_equal(METRIC(tcp_refused), 2);
    assert_true(is_served(first) && is_served(second));
}

/* An idle connection gives way to another client, one that waits for an answer does not. */
static void K5_B9_client_with_most_connections_gives_way_to_newcomers(void **state)
{
    (void)state;
    fake.config.limits.tcp_clients = 4;
    serve();
    int fds[4];
    for (int i = 0; i < 4; i++) {
        fds[i] = connect_from("127.0.0.1");
        TURN_UNTIL(METRIC(tcp_clients) == i + 1U);
    }
    ask(fds[0], 1, 'w');
    TURN_UNTIL(fake_waiting_count() == 1);
    assert_true(is_served(fds[1])); /* so the next is idle for longer */
    const int newcomer = connect_from("127.0.0.2");
    assert_true(is_served(newcomer));
    await_end(fds[2]);
    assert_int_equal(METRIC(tcp_evicted), 1);
    await_end(connect_from("127.0.0.1"));
    assert_int_equal(METRIC(tcp_refused), 1);
    assert_int_equal(METRIC(tcp_clients), 4);
    fake_answer(fake_waiting(0));
    await_reply(fds[0], 1);
    assert_true(is_served(fds[1]) && is_served(fds[3]) && is_served(newcomer));
}

/* Without an idle one the one that has waited in vain for longest gives way. */
static void K5_B9_what_waits_for_200_ms_gives_way_to_newcomers(void **state)
{
    (void)state;
    fake.config.limits.tcp_clients = 3;
    serve();
    int fds[3];
    const uint64_t before_ns = fake.loop.now;
    for (uint16_t i = 0; i < 3; i++) {
        fds[i] = connect_from("127.0.0.1");
        ask(fds[i], i, 'w');
        TURN_UNTIL(fake_waiting_count() == i + 1U);
    }
    int newcomer = -1;
    for (size_t refused = 0; METRIC(tcp_evicted) == 0; refused++) {
        assert_true(refused < 100);
        if (newcomer != -1)
            close_client(newcomer);
        newcomer = connect_from("127.0.0.2");
        TURN_UNTIL(METRIC(tcp_refused) > refused || METRIC(tcp_evicted) > 0);
        turn_for(10 * NANOSECONDS_PER_MILLISECOND);
    }
    assert_true(fake.loop.now - before_ns >= 200 * NANOSECONDS_PER_MILLISECOND);
    assert_true(is_served(newcomer));
    assert_int_equal(fake.dropped, 1);
    await_end(fds[0]);
    while (fake_waiting_count() > 0)
        fake_answer(fake_waiting(0));
    await_reply(fds[1], 1);
    await_reply(fds[2], 2);
}

static void B9_connections_above_the_rate_are_refused(void **state)
{
    (void)state;
    fake.config.snapshot.limits.tcp_accept_rate = 2;
    serve();
    int fds[6];
    for (int i = 0; i < 6; i++)
        fds[i] = connect_client();
    TURN_UNTIL(METRIC(tcp_accepted) + METRIC(tcp_refused) == 6);
    assert_true(METRIC(tcp_refused) >= 1);
    assert_true(METRIC(tcp_accepted) >= 2);
    assert_true(is_served(fds[0]) && is_served(fds[1]));
}

static void B9_queries_in_flight_are_limited_and_none_is_lost(void **state)
{
    (void)state;
    fake.config.snapshot.limits.tcp_queries = 20;
    serve();
    const int fd = connect_client();
    ask_many(fd, 100, 'w');
    TURN_UNTIL(fake_waiting_count() == 20);
    turn_for(20 * NANOSECONDS_PER_MILLISECOND);
    for (uint16_t id = 0; id < 100; id++) {
        assert_true(fake_waiting_count() <= 20);
        TURN_UNTIL(fake_waiting_count() > 0);
        fake_answer(fake_waiting(0));
        await_reply(fd, id);
    }
    assert_true(is_served(fd));
}

static void B9_connection_ends_after_its_last_query(void **state)
{
    (void)state;
    fake.config.snapshot.limits.tcp_queries_total = 3;
    serve();
    const int fd = connect_client();
    ask_many(fd, 2, 'w');
    TURN_UNTIL(fake_waiting_count() == 2);
    ask_many(fd, 2, 'a'); /* the second of them is not read */
    await_reply(fd, 0);
    fake_answer(fake_waiting(0));
    await_reply(fd, 0);
    fake_answer(fake_waiting(0));
    await_reply(fd, 1);
    await_end(fd);
    assert_int_equal(fake.begun, 3);
}

static void B9_connection_ends_at_the_end_of_its_life(void **state)
{
    (void)state;
    fake.config.limits.tcp_lifetime_ns = 50 * NANOSECONDS_PER_MILLISECOND;
    serve();
    const int fd = connect_client();
    ask(fd, 1, 'w');
    TURN_UNTIL(fake_waiting_count() == 1);
    turn_for(100 * NANOSECONDS_PER_MILLISECOND);
    fake_answer(fake_waiting(0)); /* what was asked in time is answered */
    await_reply(fd, 1);
    await_clean_end(fd);
}

/* For those who are there already as for those to come. */
static void J1_reload_changes_times_and_limits_of_the_connected(void **state)
{
    (void)state;
    fake.config.snapshot.limits.tcp_queries = 20;
    serve();
    const int fd = connect_client();
    ask_many(fd, 20, 'w');
    TURN_UNTIL(fake_waiting_count() == 20);
    static struct snapshot next;
    next = fake.config.snapshot;
    next.limits.tcp_queries = 5;
    next.timeouts.tcp_idle_ns = 30 * NANOSECONDS_PER_MILLISECOND;
    fake.resolver.snapshot = &next;
    tcp_clients_reload(clients);
    ask_many(fd, 20, 'w');
    for (size_t waiting = 20; waiting > 5; waiting--) {
        fake_answer(fake_waiting(0));
        turn_for(NANOSECONDS_PER_MILLISECOND);
        assert_in_range(fake_waiting_count(), waiting - 1, waiting);
    }
    while (fake.begun < 40 || fake_waiting_count() > 0) { /* the others are taken, five at a time */
        assert_true(fake_waiting_count() <= 5);
        if (fake_waiting_count() > 0)
            fake_answer(fake_waiting(0));
        assert_true(loop_turn(&fake.loop, NANOSECONDS_PER_MILLISECOND));
    }
    TURN_UNTIL(METRIC(tcp_clients) == 0); /* idle for 30 ms, and not for a minute */
}

static void B10_connection_without_a_query_is_closed(void **state)
{
    (void)state;
    fake.config.snapshot.timeouts.tcp_idle_ns = 30 * NANOSECONDS_PER_MILLISECOND;
    serve();
    await_clean_end(connect_client());
    TURN_UNTIL(METRIC(tcp_clients) == 0);
}

static void B10_idle_time_does_not_run_during_a_query(void **state)
{
    (void)state;
    fake.config.snapshot.timeouts.tcp_idle_ns = 50 * NANOSECONDS_PER_MILLISECOND;
    serve();
    const int fd = connect_client();
    ask(fd, 1, 'w');
    TURN_UNTIL(fake_waiting_count() == 1);
    turn_for(150 * NANOSECONDS_PER_MILLISECOND);
    fake_answer(fake_waiting(0));
    await_reply(fd, 1);
    const uint64_t answered_ns = loop_clock();
    await_clean_end(fd);
    assert_true(loop_clock() - answered_ns > 20 * NANOSECONDS_PER_MILLISECOND);
}

/* Sends what is dropped until the server ends the connection; by `cut` octets behind the end of a
 * message at a time. */
static void send_dropped_until_closed(int fd, size_t cut)
{
    uint8_t bytes[2 * FRAME_SIZE];
    frame(bytes, 1, 'd');
    frame(bytes + FRAME_SIZE, 1, 'd');
    send_bytes(fd, bytes, cut);
    const uint64_t give_up_ns = loop_clock() + 10 * NANOSECONDS_PER_SECOND;
    while (!has_ended(fd)) {
        (void)send(fd, bytes + cut, FRAME_SIZE, MSG_NOSIGNAL);
        turn_for(5 * NANOSECONDS_PER_MILLISECOND);
        assert_true(loop_clock() < give_up_ns);
    }
}

static void A2_B10_messages_that_are_dropped_do_not_end_idle_time(void **state)
{
    (void)state;
    fake.config.snapshot.timeouts.tcp_idle_ns = 100 * NANOSECONDS_PER_MILLISECOND;
    serve();
    static const size_t cuts[] = {0, 1, 10, FRAME_SIZE - 1};
    for (size_t i = 0; i < sizeof(cuts) / sizeof(cuts[0]); i++) {
        const size_t begun = fake.begun;
        const int fd = connect_client();
        ask(fd, 1, 'a');
        await_reply(fd, 1);
        send_dropped_until_closed(fd, cuts[i]);
        assert_true(fake.begun > begun + 2);
        TURN_UNTIL(METRIC(tcp_clients) == 0);
    }
}

static void B10_message_that_has_begun_in_time_may_become_whole(void **state)
{
    (void)state;
    fake.config.snapshot.timeouts.tcp_idle_ns = 30 * NANOSECONDS_PER_MILLISECOND;
    serve();
    const int fd = connect_client();
    uint8_t bytes[FRAME_SIZE];
    for (uint16_t id = 1; id <= 2; id++) {
        frame(bytes, id, 'a');
        send_bytes(fd, bytes, 5);
        TURN_UNTIL(METRIC(tcp_clients) == 1 && only_client()->is_overdue);
        send_bytes(fd, bytes + 5, FRAME_SIZE - 5);
        await_reply(fd, id);
    }
    await_clean_end(fd); /* idle again */
}

static void I1_no_descriptors_pauses_accepting_only(void **state)
{
    (void)state;
    serve();
    const int served = connect_client();
    assert_true(is_served(served));
    const int waiting = connect_client();
    struct rlimit before;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    const int highest = dup(0);
    assert_true(highest > 0);
    close(highest);
    const struct rlimit none = {.rlim_cur = (rlim_t)highest, .rlim_max = before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    TURN_UNTIL(METRIC(tcp_accept_failed) == 1);
    size_t turns = 0;
    const uint64_t end_ns = loop_clock() + 100 * NANOSECONDS_PER_MILLISECOND;
    for (; loop_clock() < end_ns; turns++)
        assert_true(loop_turn(&fake.loop, 20 * NANOSECONDS_PER_MILLISECOND));
    assert_in_range(turns, 1, 20); /* no spin */
    assert_true(is_served(served));
    TURN_UNTIL(METRIC(tcp_accept_failed) == 2); /* tried again after a while */
    assert_int_equal(logged, 1);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    assert_true(is_served(waiting));
}

static void I4_full_resolver_holds_clients_back_and_loses_nothing(void **state)
{
    (void)state;
    fake.config.limits.queries = 2;
    serve();
    const int first = connect_client();
    const int second = connect_client();
    ask_many(first, 5, 'w');
    TURN_UNTIL(!list_is_empty(&clients->starved));
    ask_many(second, 100, 'a'); /* need not wait for anything */
    for (uint16_t id = 0; id < 100; id++)
        await_reply(second, id);
    assert_int_equal(fake_waiting_count(), 2);
    assert_int_equal(METRIC(queries_tcp), 102);
    for (uint16_t id = 0; id < 5; id++) {
        TURN_UNTIL(fake_waiting_count() > 0);
        fake_answer(fake_waiting(0));
        await_reply(first, id);
    }
    assert_int_equal(METRIC(queries_tcp), 105);
}

static void spend_all(struct loop_task *task)
{
    fake.loop.budget = 0;
    loop_defer(&fake.loop, task, LOOP_NEXT_TURN);
}

/* Somebody spends the rest of each turn: nothing is taken when it comes, and half of the next turn
 * is for what was left over, by turns. */
static void K5_clients_take_turns_while_the_budget_is_spent(void **state)
{
    (void)state;
    enum { CLIENTS = 4, COUNT = 160 };
    struct loop_task greedy;
    int fds[CLIENTS];
    serve();
    for (unsigned i = 0; i < CLIENTS; i++)
        fds[i] = connect_client();
    TURN_UNTIL(METRIC(tcp_clients) == CLIENTS);
    loop_task_init(&greedy, spend_all);
    loop_defer(&fake.loop, &greedy, LOOP_NEXT_TURN);
    for (unsigned i = 0; i < CLIENTS; i++)
        ask_many(fds[i], COUNT, 'a');
    assert_true(loop_turn(&fake.loop, NANOSECONDS_PER_SECOND));
    assert_int_equal(METRIC(queries_tcp), 0);
    assert_true(loop_turn(&fake.loop, NANOSECONDS_PER_SECOND));
    const unsigned share = LOOP_BUDGET / 2 / 2 / CLIENTS; /* a message and a reply each */
    LIST_EACH (struct tcp_client, client, &clients->open, link)
        assert_in_range(client->asked, share - 16, share + 16);
    for (unsigned i = 0; i < CLIENTS; i++)
        for (uint16_t id = 0; id < COUNT; id++)
            await_reply(fds[i], id);
    loop_cancel_task(&greedy);
}

/* Its first part alone is nothing that could be left over. */
static void K5_message_in_two_parts_is_taken_while_the_budget_is_spent(void **state)
{
    (void)state;
    struct loop_task greedy;
    uint8_t bytes[FRAME_SIZE];
    serve();
    const int fd = connect_client();
    loop_task_init(&greedy, spend_all);
    loop_defer(&fake.loop, &greedy, LOOP_NEXT_TURN);
    frame(bytes, 1, 'a');
    send_bytes(fd, bytes, 10);
    TURN_UNTIL(METRIC(tcp_clients) == 1 && only_client()->stream.bytes_received == 10);
    send_bytes(fd, bytes + 10, FRAME_SIZE - 10);
    await_reply(fd, 1);
    loop_cancel_task(&greedy);
}

/* Somebody whose turn comes between those of others; how much they have spent. */
struct bystander {
    struct loop_task task;
    int32_t budget;
    int32_t spent_most;
};

static void look_at_budget(struct loop_task *task)
{
    struct bystander *bystander = CONTAINER_OF(task, struct bystander, task);
    const int32_t spent = bystander->budget - fake.loop.budget;
    if (bystander->budget > fake.loop.budget && spent > bystander->spent_most)
        bystander->spent_most = spent;
    bystander->budget = fake.loop.budget;
    loop_defer(&fake.loop, task, LOOP_LEFT_OVER);
}

/* A turn of each is as long whatever they ask for. */
static void K6_who_asks_for_long_replies_takes_fewer_at_a_time(void **state)
{
    (void)state;
    enum { COUNT = 200, UNITS = 16, UNITS_OF_ONE = 3 };
    struct loop_task greedy;
    struct bystander bystander = {0};
    serve();
    const int fd = connect_client();
    TURN_UNTIL(METRIC(tcp_clients) == 1);
    fake.reply_length = 7000;
    loop_task_init(&greedy, spend_all);
    loop_defer(&fake.loop, &greedy, LOOP_NEXT_TURN);
    loop_task_init(&bystander.task, look_at_budget);
    loop_defer(&fake.loop, &bystander.task, LOOP_LEFT_OVER);
    ask_many(fd, COUNT, 'a');
    for (uint16_t id = 0; id < COUNT; id++)
        await_reply(fd, id);
    assert_in_range(bystander.spent_most, UNITS, UNITS + UNITS_OF_ONE - 1);
    loop_cancel_task(&greedy);
    loop_cancel_task(&bystander.task);
}

static struct tcp_client *client_from(const char *source)
{
    struct address from;
    assert_int_equal(address_parse(source, 53, &from), STATUS_OK);
    LIST_EACH (struct tcp_client, client, &clients->open, link)
        if (client->address.v4.sin_addr.s_addr == from.v4.sin_addr.s_addr)
            return client;
    return NULL;
}

/* Asks for as much as is written for a client that does not read. */
static void ask_and_never_read(const char *source, size_t count)
{
    const int size = 4096;
    const int fd = connect_from(source);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size)), 0);
    ask_many(fd, count, 'w');
}

static void answer_everybody(void)
{
    while (fake_waiting_count() > 0)
        fake_answer(fake_waiting(0));
}

static void read_until_one_is_evicted(int reader)
{
    for (uint16_t id = 0; METRIC(tcp_evicted) == 0; id++) {
        assert_true(id < UINT16_MAX);
        ask(reader, id, 'a');
        await_reply(reader, id);
    }
}

/* At three quarters of the limit those go who have been still for 200 ms, and no others. */
static void K5_who_does_not_read_gives_way_and_who_reads_never(void **state)
{
    (void)state;
    fake.config.limits.tcp_memory_bytes = 7 << 18;
    fake.reply_length = 60000;
    serve();
    const int reader = connect_from("127.0.0.9");
    ask_and_never_read("127.0.0.2", 10); /* buffers of 1 MiB: the limit for one */
    ask_and_never_read("127.0.0.3", 5);  /* of 512 KiB */
    ask_and_never_read("127.0.0.4", 1);
    TURN_UNTIL(fake_waiting_count() == 16);
    answer_everybody();
    read_until_one_is_evicted(reader);
    TURN_UNTIL(client_from("127.0.0.2") == NULL);
    assert_non_null(client_from("127.0.0.3"));
    assert_non_null(client_from("127.0.0.4"));
    assert_true(is_served(reader));
    assert_int_equal(METRIC(tcp_evicted), 1);
    assert_int_equal(METRIC(tcp_memory), fake.resolver.output.used);
    assert_in_range(fake.resolver.output.used, 256 << 10, 1 << 20);
}

/* Many connections of one client are more than a larger one of another. */
static void K6_who_holds_most_over_all_its_connections_gives_way(void **state)
{
    (void)state;
    fake.config.limits.tcp_memory_bytes = 7 << 18;
    fake.reply_length = 60000;
    serve();
    const int reader = connect_from("127.0.0.9");
    ask_and_never_read("127.0.0.3", 5); /* a buffer of 512 KiB */
    for (int i = 0; i < 4; i++)
        ask_and_never_read("127.0.0.2", 3); /* of 256 KiB each */
    TURN_UNTIL(fake_waiting_count() == 5 + 4 * 3);
    answer_everybody();
    read_until_one_is_evicted(reader);
    TURN_UNTIL(METRIC(tcp_clients) == 5);
    assert_non_null(client_from("127.0.0.3"));
    assert_int_equal(METRIC(tcp_evicted), 1);
}

/* At the limit nobody can be waited for. */
static void K6_what_clients_make_us_hold_is_bounded_at_once(void **state)
{
    (void)state;
    fake.config.limits.tcp_memory_bytes = 1 << 20;
    fake.reply_length = 60000;
    serve();
    for (unsigned i = 2; i < 8; i++) {
        char source[32];
        snprintf(source, sizeof(source), "127.0.0.%u", i);
        ask_and_never_read(source, 10);
    }
    TURN_UNTIL(fake_waiting_count() == 60);
    answer_everybody();
    const uint64_t before_ns = loop_clock();
    TURN_UNTIL(fake.resolver.output.used <= fake.resolver.output.max);
    assert_true(loop_clock() - before_ns < 150 * NANOSECONDS_PER_MILLISECOND);
    assert_int_equal(METRIC(tcp_evicted), 6 - METRIC(tcp_clients));
    assert_in_range(METRIC(tcp_clients), 1, 2);
}

/* Before anybody could be made to give way. */
static void K6_who_wants_memory_over_the_ceiling_is_closed(void **state)
{
    (void)state;
    fake.reply_length = 60000;
    serve();
    fake.resolver.output.ceiling = 900 << 10;
    for (unsigned i = 2; i < 5; i++) {
        char source[32];
        snprintf(source, sizeof(source), "127.0.0.%u", i);
        ask_and_never_read(source, 5); /* buffers of 512 KiB */
    }
    const int idle = connect_from("127.0.0.9");
    TURN_UNTIL(fake_waiting_count() == 15);
    answer_everybody();
    assert_true(fake.resolver.output.used <= fake.resolver.output.ceiling);
    TURN_UNTIL(METRIC(tcp_clients) < 4);
    assert_true(METRIC(dropped_gone) > 0);
    fake.reply_length = 0;
    assert_true(is_served(idle));
}

static void I4_room_reaches_every_client_that_waits(void **state)
{
    (void)state;
    fake.config.limits.queries = 1;
    fake.config.snapshot.limits.tcp_queries = 1;
    serve();
    int fds[4];
    for (uint16_t i = 0; i < 4; i++) {
        fds[i] = connect_client();
        TURN_UNTIL(METRIC(tcp_clients) == i + 1U);
        ask(fds[i], i, 'w');
    }
    for (uint16_t i = 0; i < 4; i++) {
        TURN_UNTIL(fake_waiting_count() == 1);
        const uint16_t id = fake_waiting(0)->message.id;
        fake_answer(fake_waiting(0));
        await_reply(fds[id], id);
    }
    assert_int_equal(METRIC(queries_tcp), 4);
}

static void I4_client_that_goes_while_held_back_is_forgotten(void **state)
{
    (void)state;
    fake.config.limits.queries = 1;
    serve();
    const int first = connect_client();
    ask(first, 1, 'w');
    TURN_UNTIL(fake_waiting_count() == 1);
    const int second = connect_client();
    ask(second, 1, 'w');
    TURN_UNTIL(METRIC(tcp_clients) == 2 && !list_is_empty(&clients->starved));
    const struct linger reset = {.l_onoff = 1};
    assert_int_equal(setsockopt(second, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset)), 0);
    close_client(second);
    TURN_UNTIL(METRIC(tcp_clients) == 1);
    fake_answer(fake_waiting(0));
    await_reply(first, 1);
    assert_true(is_served(first));
}

static void I6_idle_client_takes_less_than_one_KiB(void **state)
{
    (void)state;
    serve();
    const int fd = connect_client();
    assert_true(is_served(fd));
    const struct tcp_client *client = only_client();
    TURN_UNTIL(client->stream.out.bytes == NULL);
    assert_null(client->stream.in.bytes);
    assert_true(sizeof(struct tcp_client) +
                    clients_ceiling(fake.resolver.clients) / (8 + 1 + 1000) <=
                1024);
}

static void turn_takes_a_share_of_each_client(void **state)
{
    (void)state;
    serve();
    const int first = connect_client();
    const int second = connect_client();
    assert_true(is_served(first) && is_served(second));
    const size_t before = fake.begun;
    ask_many(first, 500, 'a');
    ask_many(second, 500, 'a');
    assert_true(loop_turn(&fake.loop, NANOSECONDS_PER_SECOND));
    assert_in_range(fake.begun - before, 1, 2 * 64);
    for (uint16_t id = 0; id < 500; id++) {
        await_reply(first, id);
        await_reply(second, id);
    }
}

static void J2_drain_ends_idle_clients_and_answers_the_others(void **state)
{
    (void)state;
    serve();
    const int idle = connect_client();
    const int busy = connect_client();
    assert_true(is_served(idle));
    ask(busy, 1, 'w');
    TURN_UNTIL(fake_waiting_count() == 1);
    tcp_stop(listener);
    tcp_clients_drain(clients);
    await_clean_end(idle);
    ask(busy, 2, 'a'); /* too late */
    turn_for(20 * NANOSECONDS_PER_MILLISECOND);
    fake_answer(fake_waiting(0));
    await_reply(busy, 1);
    await_end(busy);
    assert_int_equal(fake.begun, 2);
    TURN_UNTIL(METRIC(tcp_clients) == 0);
}

static void J14_drain_answers_what_has_come(void **state)
{
    (void)state;
    serve();
    const int known = connect_client();
    assert_true(is_served(known));
    ask_many(known, 200, 'a'); /* several turns' worth, and none is read yet */
    tcp_clients_drain(clients);
    for (uint16_t id = 0; id < 200; id++)
        await_reply(known, id);
    await_clean_end(known);
    TURN_UNTIL(METRIC(tcp_clients) == 0);
}

static void J14_clients_in_the_queue_are_accepted_and_answered(void **state)
{
    (void)state;
    int waiting[14];
    fake.config.limits.tcp_clients = fake.config.snapshot.limits.tcp_clients_per_address =
        CLIENTS_MAX;
    serve();
    for (size_t i = 0; i < 14; i++) {
        waiting[i] = connect_client();
        ask(waiting[i], 1, i % 2 == 0 ? 'a' : 'w');
    }
    const int silent = connect_client();
    tcp_stop(listener);
    tcp_clients_drain(clients);
    await_clean_end(silent);
    TURN_UNTIL(fake_waiting_count() == 7);
    while (fake_waiting_count() > 0)
        fake_answer(fake_waiting(0));
    for (size_t i = 0; i < 14; i++) {
        await_reply(waiting[i], 1);
        await_clean_end(waiting[i]);
    }
    assert_int_equal(fake.begun, 14);
    TURN_UNTIL(METRIC(tcp_clients) == 0);
}

static void J14_a_client_at_its_limit_has_what_it_sent_before_the_drain(void **state)
{
    (void)state;
    fake.config.snapshot.limits.tcp_queries = 8;
    serve();
    const int fd = connect_client();
    ask_many(fd, 40, 'w');
    TURN_UNTIL(fake_waiting_count() == 8);
    tcp_stop(listener);
    tcp_clients_drain(clients);
    for (uint16_t id = 0; id < 40; id++) {
        TURN_UNTIL(fake_waiting_count() > 0);
        fake_answer(fake_waiting(0));
        await_reply(fd, id);
    }
    await_clean_end(fd);
    assert_int_equal(fake.begun, 40);
}

static void J14_half_a_query_does_not_keep_the_drain_waiting(void **state)
{
    (void)state;
    serve();
    const int fd = connect_client();
    uint8_t bytes[FRAME_SIZE];
    assert_true(is_served(fd));
    send_bytes(fd, bytes, frame(bytes, 1, 'a') - 1);
    tcp_clients_drain(clients);
    await_end(fd);
    TURN_UNTIL(METRIC(tcp_clients) == 0);
}

static void J2_stopped_listener_refuses(void **state)
{
    (void)state;
    serve();
    tcp_stop(listener);
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, &server.any, address_length(&server)), -1);
    assert_int_equal(errno, ECONNREFUSED);
    close(fd);
}

static void J2_client_that_comes_while_draining_is_refused(void **state)
{
    (void)state;
    serve();
    tcp_clients_drain(clients);
    await_end(connect_client());
    assert_int_equal(METRIC(tcp_refused), 1);
}

static void close_gives_everything_back(void **state)
{
    (void)state;
    serve();
    const int fd = connect_client();
    ask_many(fd, 3, 'w');
    TURN_UNTIL(fake_waiting_count() == 3);
    tcp_clients_close(clients);
    tcp_close(listener); /* in either order */
    listener = NULL;
    clients = NULL;
    assert_int_equal(fake.dropped, 3);
    assert_int_equal(METRIC(tcp_clients), 0);
    await_end(fd);
}

static void close_forgets_what_was_left_for_the_next_turn(void **state)
{
    (void)state;
    serve();
    const int fd = connect_client();
    assert_true(is_served(fd));
    ask_many(fd, 500, 'a');
    assert_true(loop_turn(&fake.loop, NANOSECONDS_PER_SECOND));
    assert_true(stream_has_message(&only_client()->stream));
    const size_t begun = fake.begun;
    tcp_close(listener);
    tcp_clients_close(clients);
    listener = NULL;
    clients = NULL;
    turn_for(5 * NANOSECONDS_PER_MILLISECOND);
    assert_int_equal(fake.begun, begun);
}

static void open_fails_on_what_the_loop_cannot_watch(void **state)
{
    (void)state;
    serve();
    const int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    struct tcp_listener *other = NULL;
    assert_int_equal(tcp_open(clients, fd, &other), STATUS_SYSTEM);
    assert_null(other);
    assert_int_equal(close(fd), 0); /* still ours */
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(J1_reload_changes_times_and_limits_of_the_connected),
        TEST(B1_query_is_answered),
        TEST(B1_query_split_at_every_byte_is_answered),
        TEST(B1_thousand_queries_in_one_segment_are_answered),
        TEST(B2_length_below_a_header_closes_that_connection_only),
        TEST(B2_what_was_asked_before_a_short_frame_is_answered_and_nothing_behind_it),
        TEST(B3_what_was_asked_before_an_unfinished_message_is_answered),
        TEST(B2_many_empty_frames_end_in_one_close),
        TEST(B2_length_beyond_the_message_waits_for_the_deadline),
        TEST(B3_bytes_that_trickle_do_not_extend_the_message_deadline),
        TEST(B3_each_message_has_a_deadline_of_its_own),
        TEST(B3_reads_without_a_message_are_capped),
        TEST(B4_client_that_never_reads_is_bounded_and_closed),
        TEST(B4_client_that_reads_slowly_is_kept),
        TEST(B4_progress_extends_the_send_deadline),
        TEST(B4_reply_that_finds_no_room_closes_the_client),
        TEST(B5_reset_gives_every_query_back),
        TEST(B5_client_at_its_limit_that_resets_is_noticed),
        TEST(B5_replies_to_a_client_that_has_closed_do_no_harm),
        TEST(B6_pipelined_queries_answered_at_once_need_no_stack),
        TEST(B7_replies_leave_in_the_order_of_their_answers),
        TEST(B7_same_id_twice_in_flight_is_answered_twice),
        TEST(B8_half_close_delivers_everything_then_ends),
        TEST(B8_half_close_behind_many_queries_loses_none),
        TEST(B8_half_close_within_a_message_ends_at_once),
        TEST(B9_address_above_its_limit_is_refused),
        TEST(B9_clients_above_the_limit_are_refused),
        TEST(K5_B9_client_with_most_connections_gives_way_to_newcomers),
        TEST(K5_B9_what_waits_for_200_ms_gives_way_to_newcomers),
        TEST(B9_connections_above_the_rate_are_refused),
        TEST(B9_queries_in_flight_are_limited_and_none_is_lost),
        TEST(B9_connection_ends_after_its_last_query),
        TEST(B9_connection_ends_at_the_end_of_its_life),
        TEST(B10_connection_without_a_query_is_closed),
        TEST(B10_idle_time_does_not_run_during_a_query),
        TEST(A2_B10_messages_that_are_dropped_do_not_end_idle_time),
        TEST(B10_message_that_has_begun_in_time_may_become_whole),
        TEST(I1_no_descriptors_pauses_accepting_only),
        TEST(I4_full_resolver_holds_clients_back_and_loses_nothing),
        TEST(K5_clients_take_turns_while_the_budget_is_spent),
        TEST(K5_message_in_two_parts_is_taken_while_the_budget_is_spent),
        TEST(K6_who_asks_for_long_replies_takes_fewer_at_a_time),
        TEST(K5_who_does_not_read_gives_way_and_who_reads_never),
        TEST(K6_who_holds_most_over_all_its_connections_gives_way),
        TEST(K6_what_clients_make_us_hold_is_bounded_at_once),
        TEST(K6_who_wants_memory_over_the_ceiling_is_closed),
        TEST(I4_room_reaches_every_client_that_waits),
        TEST(I4_client_that_goes_while_held_back_is_forgotten),
        TEST(I6_idle_client_takes_less_than_one_KiB),
        TEST(turn_takes_a_share_of_each_client),
        TEST(J2_drain_ends_idle_clients_and_answers_the_others),
        TEST(J14_drain_answers_what_has_come),
        TEST(J14_clients_in_the_queue_are_accepted_and_answered),
        TEST(J14_a_client_at_its_limit_has_what_it_sent_before_the_drain),
        TEST(J14_half_a_query_does_not_keep_the_drain_waiting),
        TEST(J2_stopped_listener_refuses),
        TEST(J2_client_that_comes_while_draining_is_refused),
        TEST(close_gives_everything_back),
        TEST(close_forgets_what_was_left_for_the_next_turn),
        TEST(open_fails_on_what_the_loop_cannot_watch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
