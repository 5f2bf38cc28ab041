// SPDX-License-Identifier: Apache-2.0
/* The UDP listener with real sockets on loopback over a fake query layer. The two system calls of
 * the batches go through this file, so that a test can count them and make them fail. */
#include "fake_query.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "listen/listen.h"
#include "net/socket.h"

enum { BATCH = 64, BATCHES_PER_TURN = 4 };

static struct {
    size_t sends;
    int send_errors[8]; /* for the next calls, 0: none */
    size_t send_error_count;
    int receive_error;      /* for the next call */
    bool peer_is_port_zero; /* what is received seems to come from port 0 */
} kernel;

/* NOLINTNEXTLINE(readability-inconsistent-declaration-parameter-name): libc's names are reserved */
int recvmmsg(int fd, struct mmsghdr *messages, unsigned int count, int flags,
             struct timespec *timeout)
{
    if (kernel.receive_error) {
        errno = kernel.receive_error;
        kernel.receive_error = 0;
        return -1;
    }
    const int received = (int)syscall(SYS_recvmmsg, fd, messages, count, flags, timeout);
    for (int i = 0; kernel.peer_is_port_zero && i < received; i++)
        ((struct sockaddr_in *)messages[i].msg_hdr.msg_name)->sin_port = 0;
    return received;
}

/* NOLINTNEXTLINE(readability-inconsistent-declaration-parameter-name): libc's names are reserved */
int sendmmsg(int fd, struct mmsghdr *messages, unsigned int count, int flags)
{
    kernel.sends++;
    if (kernel.send_error_count > 0) {
        errno = kernel.send_errors[0];
        memmove(kernel.send_errors, kernel.send_errors + 1,
                sizeof(kernel.send_errors) - sizeof(int));
        kernel.send_error_count--;
        if (errno != 0)
            return -1;
    }
    return (int)syscall(SYS_sendmmsg, fd, messages, count, flags);
}

static struct udp_listener *listener;
static struct address server;
static int server_fd; /* the listener's */
static int client;

static int setup(void **state)
{
    (void)state;
    memset(&kernel, 0, sizeof(kernel));
    listener = NULL;
    client = -1;
    fake_open();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    udp_close(listener);
    if (client >= 0)
        close(client);
    fake_close();
    return 0;
}

static struct address address_of(int fd)
{
    struct address address = {0};
    socklen_t length = sizeof(address);
    assert_int_equal(getsockname(fd, &address.any, &length), 0);
    return address;
}

/* Loopback port 0: the kernel chooses. */
static struct address any_port(const char *text)
{
    struct address address;
    assert_int_equal(address_parse(text, 53, &address), STATUS_OK);
    address.v4.sin_port = 0; /* at the same place in v6 */
    return address;
}

static void start(const char *text)
{
    fake_start();
    const struct address address = any_port(text);
    assert_int_equal(socket_bind_udp(&address, false, &server_fd), STATUS_OK);
    server = address_of(server_fd);
    assert_int_equal(udp_open(&fake.resolver, server_fd, &address, &listener), STATUS_OK);
}

static int open_client(const char *text)
{
    const struct address address = any_port(text);
    const int fd = socket(address.any.sa_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, &address.any, address_length(&address)), 0);
    return fd;
}

static void connect_client(const char *text)
{
    struct address to;
    assert_int_equal(address_parse(text, address_port(&server), &to), STATUS_OK);
    client = open_client(text);
    assert_int_equal(connect(client, &to.any, address_length(&to)), 0);
}

static void serve(void)
{
    start("127.0.0.1");
    connect_client("127.0.0.1");
}

static void ask(uint16_t id, char kind)
{
    uint8_t query[QUERY_SIZE];
    const size_t length = fake_query(query, id, kind);
    assert_int_equal(send(client, query, length, 0), length);
}

/* Length of the reply, checked to be for `id`; -1 when none has come. */
static ssize_t take_reply(uint16_t id, uint8_t reply[static 4096])
{
    const ssize_t length = recv(client, reply, 4096, 0);
    if (length >= 2)
        assert_int_equal(load_u16(reply), id);
    return length;
}

static ssize_t await_reply(uint16_t id)
{
    static uint8_t reply[4096];
    ssize_t length;
    TURN_UNTIL((length = take_reply(id, reply)) >= 0);
    return length;
}

static void query_is_answered(void **state)
{
    (void)state;
    serve();
    ask(7, 'a');
    assert_int_equal(await_reply(7), QUERY_SIZE);
    assert_int_equal(METRIC(queries_udp), 1);
    assert_true(fake.last_origin.transport->is_datagram);
    const struct address from = address_of(client);
    assert_true(address_equal(&fake.last_origin.client, &from));
}

static void A1_short_datagrams_do_no_harm_to_the_next_query(void **state)
{
    (void)state;
    serve();
    const uint8_t bytes[11] = {0};
    const size_t lengths[] = {0, 1, 11};
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(send(client, bytes, lengths[i], 0), lengths[i]);
        TURN_UNTIL(fake.begun == i + 1);
        assert_int_equal(fake.last_length, lengths[i]);
    }
    ask(8, 'a');
    await_reply(8);
    assert_int_equal(METRIC(queries_udp), 4);
}

static void A1_datagram_above_the_limit_is_cut_and_the_next_is_whole(void **state)
{
    (void)state;
    serve();
    static const uint8_t bytes[9000];
    assert_int_equal(send(client, bytes, sizeof(bytes), 0), sizeof(bytes));
    TURN_UNTIL(fake.begun == 1);
    assert_int_equal(fake.last_length, 4096);
    ask(9, 'a');
    assert_int_equal(await_reply(9), QUERY_SIZE);
}

static void A3_refused_source_port_is_dropped(void **state)
{
    (void)state;
    client = open_client("127.0.0.1");
    const struct address from = address_of(client);
    fake.config.snapshot.refused_source_ports[0] = 65535;
    fake.config.snapshot.refused_source_ports[1] = address_port(&from);
    fake.config.snapshot.refused_source_port_count = 2;
    start("127.0.0.1");
    assert_int_equal(connect(client, &server.any, address_length(&server)), 0);
    ask(1, 'a');
    TURN_UNTIL(METRIC(dropped_source_port) == 1);
    assert_int_equal(fake.begun, 0);
    assert_int_equal(kernel.sends, 0);
    close(client);
    connect_client("127.0.0.1");
    ask(2, 'a');
    await_reply(2);
}

static void J1_reload_refuses_other_source_ports(void **state)
{
    (void)state;
    client = open_client("127.0.0.1");
    const struct address from = address_of(client);
    fake.config.snapshot.refused_source_ports[0] = address_port(&from);
    fake.config.snapshot.refused_source_port_count = 1;
    start("127.0.0.1");
    assert_int_equal(connect(client, &server.any, address_length(&server)), 0);
    static struct snapshot next;
    next = fake.config.snapshot;
    next.refused_source_ports[0] ^= 1;
    fake.resolver.snapshot = &next;
    udp_reload(listener);
    ask(1, 'a');
    await_reply(1);
    next.refused_source_ports[0] ^= 1;
    fake.resolver.snapshot = &next;
    udp_reload(listener);
    ask(2, 'a');
    TURN_UNTIL(METRIC(dropped_source_port) == 1);
}

static void A3_source_port_0_is_dropped(void **state)
{
    (void)state;
    serve();
    kernel.peer_is_port_zero = true;
    ask(1, 'a');
    TURN_UNTIL(METRIC(dropped_source_port) == 1);
    assert_int_equal(fake.begun, 0);
}

static void dropped_query_sends_nothing(void **state)
{
    (void)state;
    serve();
    ask(1, 'd');
    ask(2, 'a');
    await_reply(2);
    assert_int_equal(fake.dropped, 1);
}

static void burst_is_received_and_sent_in_batches(void **state)
{
    (void)state;
    serve();
    for (uint16_t id = 0; id < 100; id++)
        ask(id, 'a');
    for (uint16_t id = 0; id < 100; id++)
        assert_int_equal(await_reply(id), QUERY_SIZE);
    assert_int_equal(kernel.sends, 2); /* one full batch, one at the end of the turn */
    assert_int_equal(METRIC(dropped_send), 0);
}

static void turn_takes_a_bounded_number_of_queries(void **state)
{
    (void)state;
    serve();
    const size_t limit = (size_t)BATCH * BATCHES_PER_TURN;
    for (size_t i = 0; i < limit + 1; i++)
        ask(1, 'd');
    assert_true(loop_turn(&fake.loop, NANOSECONDS_PER_SECOND));
    assert_int_equal(fake.begun, limit);
    TURN_UNTIL(fake.begun == limit + 1);
}

static bool is_watched(void)
{
    struct epoll_event event = {0};
    if (epoll_ctl(fake.loop.epoll_fd, EPOLL_CTL_ADD, server_fd, &event) == -1)
        return errno == EEXIST;
    assert_int_equal(epoll_ctl(fake.loop.epoll_fd, EPOLL_CTL_DEL, server_fd, NULL), 0);
    return false;
}

static void a_busy_listener_is_read_in_every_turn_until_nothing_comes(void **state)
{
    (void)state;
    serve();
    for (size_t i = 0; i < BATCH; i++)
        ask(1, 'd');
    assert_true(loop_turn(&fake.loop, NANOSECONDS_PER_SECOND));
    assert_int_equal(fake.begun, BATCH);
    assert_false(is_watched());
    ask(1, 'd');
    assert_true(loop_turn(&fake.loop, NANOSECONDS_PER_SECOND));
    assert_int_equal(fake.begun, BATCH + 1);
    assert_false(is_watched());
    assert_true(loop_turn(&fake.loop, DEADLINE_NEVER)); /* finds nothing, does not wait */
    assert_true(is_watched());
    ask(7, 'a');
    assert_int_equal(await_reply(7), QUERY_SIZE);
}

static void put_off_again(struct loop_task *task)
{
    loop_defer(&fake.loop, task, LOOP_LEFT_OVER);
}

static void K5_listener_is_read_in_every_turn_while_others_have_more(void **state)
{
    (void)state;
    struct loop_task other;
    serve();
    loop_task_init(&other, put_off_again);
    loop_defer(&fake.loop, &other, LOOP_LEFT_OVER);
    ask(1, 'a');
    assert_int_equal(await_reply(1), QUERY_SIZE);
    for (uint16_t id = 2; id < 10; id++) {
        assert_false(is_watched());
        ask(id, 'a');
        assert_true(loop_turn(&fake.loop, DEADLINE_NEVER));
        assert_int_equal(fake.begun, id);
        assert_int_equal(await_reply(id), QUERY_SIZE);
    }
    loop_cancel_task(&other);
    TURN_UNTIL(is_watched());
}

/* So that the kernel soon has to drop what comes. */
static void serve_with_a_small_queue(void)
{
    const int size = 1 << 17;
    serve();
    assert_int_equal(setsockopt(server_fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size)), 0);
}

static void what_the_kernel_had_no_room_for_is_counted(void **state)
{
    (void)state;
    enum { SENT = 2000 };
    serve_with_a_small_queue();
    for (size_t i = 0; i < SENT; i++)
        ask(1, 'd');
    TURN_UNTIL(!is_watched());
    TURN_UNTIL(is_watched());
    assert_in_range(fake.begun, BATCH, SENT - 1);
    assert_int_equal(METRIC(dropped_overflow), SENT - fake.begun);
    for (size_t i = 0; i < BATCH; i++)
        ask(1, 'd');
    TURN_UNTIL(!is_watched());
    TURN_UNTIL(is_watched());
    assert_int_equal(METRIC(queries_udp) + METRIC(dropped_overflow), SENT + BATCH);
}

/* Few of these fill the queue: the listener is never busy. */
static void long_datagrams_without_room_are_counted(void **state)
{
    (void)state;
    static const uint8_t datagram[16000] = {0}; /* a header that asks nothing */
    serve_with_a_small_queue();
    for (size_t i = 0; METRIC(dropped_overflow) == 0; i++) {
        assert_in_range(i, 0, 100);
        for (size_t j = 0; j < 20; j++)
            assert_int_equal(send(client, datagram, sizeof(datagram), 0), sizeof(datagram));
        assert_true(loop_turn(&fake.loop, NANOSECONDS_PER_SECOND));
        assert_true(is_watched());
    }
}

static void the_kernel_is_asked_also_while_it_never_ends(void **state)
{
    (void)state;
    serve_with_a_small_queue();
    for (size_t i = 0; i < 2000; i++)
        ask(1, 'd');
    for (size_t i = 0; METRIC(dropped_overflow) == 0; i++) {
        assert_in_range(i, 0, 100);
        ask(1, 'd');
        assert_true(loop_turn(&fake.loop, NANOSECONDS_PER_SECOND));
        assert_false(is_watched());
    }
}

static void long_replies_are_flushed_before_the_room_ends(void **state)
{
    (void)state;
    fake.reply_length = 4096;
    serve();
    const int size = 1 << 20;
    assert_int_equal(setsockopt(client, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size)), 0);
    for (uint16_t id = 0; id < 30; id++)
        ask(id, 'a');
    for (uint16_t id = 0; id < 30; id++)
        assert_int_equal(await_reply(id), 4096);
    assert_int_equal(METRIC(dropped_send), 0);
}

static void A15_wildcard_v4_replies_from_the_address_asked(void **state)
{
    (void)state;
    start("0.0.0.0");
    connect_client("127.0.0.2"); /* a connected socket takes datagrams from there only */
    ask(1, 'a');
    await_reply(1);
    assert_int_equal(fake.last_origin.local.v4.sin_family, AF_INET);
    assert_int_equal(fake.last_origin.local.v4.sin_addr.s_addr, inet_addr("127.0.0.2"));
    close(client);
    connect_client("127.0.0.3");
    ask(2, 'a');
    await_reply(2);
}

static bool has_ipv6(void)
{
    const struct address address = any_port("::1");
    const int fd = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    const bool has = fd >= 0 && bind(fd, &address.any, sizeof(address.v6)) == 0;
    if (fd >= 0)
        close(fd);
    return has;
}

static void A15_wildcard_v6_replies_from_the_address_asked(void **state)
{
    (void)state;
    if (!has_ipv6()) {
        fake_start();
        skip();
    }
    start("::");
    connect_client("::1");
    ask(1, 'a');
    await_reply(1);
    assert_int_equal(fake.last_origin.local.v6.sin6_family, AF_INET6);
    assert_true(IN6_IS_ADDR_LOOPBACK(&fake.last_origin.local.v6.sin6_addr));
    assert_int_equal(fake.last_origin.interface, 0);
}

static void A15_socket_bound_to_one_address_asks_for_no_other(void **state)
{
    (void)state;
    serve();
    ask(1, 'a');
    await_reply(1);
    assert_int_equal(fake.last_origin.local.any.sa_family, AF_UNSPEC);
}

static void A16_refused_send_loses_that_reply_only(void **state)
{
    (void)state;
    serve();
    for (uint16_t id = 1; id <= 3; id++)
        ask(id, 'w');
    TURN_UNTIL(fake_waiting_count() == 3);
    fake_waiting(1)->origin.client.v4.sin_port = 0; /* EINVAL */
    for (size_t i = 0; i < 3; i++)
        fake_answer(fake_waiting(0));
    await_reply(1);
    await_reply(3);
    assert_int_equal(METRIC(dropped_send), 1);
}

static void A16_errors_of_sending_are_counted_and_passed_over(void **state)
{
    (void)state;
    serve();
    const int errors[] = {EPERM, EINTR, ENOBUFS, ENETUNREACH, ECONNREFUSED};
    memcpy(kernel.send_errors, errors, sizeof(errors));
    kernel.send_error_count = 5;
    for (uint16_t id = 1; id <= 6; id++)
        ask(id, 'w');
    TURN_UNTIL(fake_waiting_count() == 6);
    while (fake_waiting_count() > 0)
        fake_answer(fake_waiting(0));
    await_reply(5); /* four lost; the interrupted call was made again */
    await_reply(6);
    assert_int_equal(METRIC(dropped_send), 4);
}

static void A16_full_socket_loses_the_rest_without_a_spin(void **state)
{
    (void)state;
    serve();
    kernel.send_errors[0] = EAGAIN;
    kernel.send_error_count = 1;
    for (uint16_t id = 1; id <= 5; id++)
        ask(id, 'w');
    TURN_UNTIL(fake_waiting_count() == 5);
    while (fake_waiting_count() > 0)
        fake_answer(fake_waiting(0));
    TURN_UNTIL(METRIC(dropped_send) == 5);
    assert_int_equal(kernel.sends, 1);
    ask(6, 'a');
    await_reply(6);
}

static void A16_port_unreachable_after_our_reply_does_no_harm(void **state)
{
    (void)state;
    serve();
    ask(1, 'w');
    TURN_UNTIL(fake_waiting_count() == 1);
    close(client);
    fake_answer(fake_waiting(0));
    TURN_UNTIL(kernel.sends == 1);
    connect_client("127.0.0.1");
    ask(2, 'a');
    await_reply(2);
}

static void A16_error_of_receiving_does_no_harm(void **state)
{
    (void)state;
    serve();
    kernel.receive_error = ECONNREFUSED;
    ask(1, 'a');
    await_reply(1);
    assert_int_equal(kernel.receive_error, 0);
}

static void J2_stopped_listener_still_replies(void **state)
{
    (void)state;
    serve();
    ask(1, 'w');
    TURN_UNTIL(fake_waiting_count() == 1);
    udp_stop(listener);
    ask(2, 'a');
    fake_answer(fake_waiting(0));
    await_reply(1);
    assert_int_equal(fake.begun, 1);
}

static void J2_stop_takes_what_the_kernel_already_holds(void **state)
{
    (void)state;
    serve();
    ask(1, 'a');
    ask(2, 'a');
    udp_stop(listener);
    assert_int_equal(fake.begun, 2);
    await_reply(1);
    await_reply(2);
}

/* More than a turn takes, less than the smallest receive queue holds. */
static void J14_stop_takes_all_that_the_kernel_holds(void **state)
{
    (void)state;
    serve();
    for (uint16_t id = 0; id < 400; id++)
        ask(id, 'w');
    udp_stop(listener);
    assert_int_equal(fake.begun, 400);
    while (fake_waiting_count() > 0) {
        uint8_t reply[QUERY_SIZE];
        fake_answer(fake_waiting(0));
        TURN_UNTIL(recv(client, reply, sizeof(reply), 0) == QUERY_SIZE);
    }
}

static void J2_close_sends_what_is_gathered(void **state)
{
    (void)state;
    serve();
    ask(1, 'w');
    TURN_UNTIL(fake_waiting_count() == 1);
    fake_answer(fake_waiting(0));
    udp_close(listener);
    listener = NULL;
    await_reply(1);
}

static void open_fails_on_what_the_loop_cannot_watch(void **state)
{
    (void)state;
    fake_start();
    const struct address address = any_port("127.0.0.1");
    const int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(udp_open(&fake.resolver, fd, &address, &listener), STATUS_SYSTEM);
    assert_null(listener);
    assert_int_equal(close(fd), 0); /* still ours */
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(J1_reload_refuses_other_source_ports),
        TEST(query_is_answered),
        TEST(A1_short_datagrams_do_no_harm_to_the_next_query),
        TEST(A1_datagram_above_the_limit_is_cut_and_the_next_is_whole),
        TEST(A3_refused_source_port_is_dropped),
        TEST(A3_source_port_0_is_dropped),
        TEST(dropped_query_sends_nothing),
        TEST(burst_is_received_and_sent_in_batches),
        TEST(a_busy_listener_is_read_in_every_turn_until_nothing_comes),
        TEST(K5_listener_is_read_in_every_turn_while_others_have_more),
        TEST(what_the_kernel_had_no_room_for_is_counted),
        TEST(long_datagrams_without_room_are_counted),
        TEST(the_kernel_is_asked_also_while_it_never_ends),
        TEST(turn_takes_a_bounded_number_of_queries),
        TEST(long_replies_are_flushed_before_the_room_ends),
        TEST(A15_wildcard_v4_replies_from_the_address_asked),
        TEST(A15_wildcard_v6_replies_from_the_address_asked),
        TEST(A15_socket_bound_to_one_address_asks_for_no_other),
        TEST(A16_refused_send_loses_that_reply_only),
        TEST(A16_errors_of_sending_are_counted_and_passed_over),
        TEST(A16_full_socket_loses_the_rest_without_a_spin),
        TEST(A16_port_unreachable_after_our_reply_does_no_harm),
        TEST(A16_error_of_receiving_does_no_harm),
        TEST(J2_stopped_listener_still_replies),
        TEST(J2_stop_takes_what_the_kernel_already_holds),
        TEST(J14_stop_takes_all_that_the_kernel_holds),
        TEST(J2_close_sends_what_is_gathered),
        TEST(open_fails_on_what_the_loop_cannot_watch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
