// SPDX-License-Identifier: Apache-2.0
/* Sockets: their options, and what each failure is called. */
#include <errno.h>
#include <netinet/tcp.h>
#include <sys/resource.h>

#include "base/deadline.h"
#include "net/socket.h"
#include "sockets.h"

static int option(int fd, int level, int name)
{
    int value = -1;
    socklen_t length = sizeof value;
    assert_int_equal(getsockopt(fd, level, name, &value, &length), 0);
    return value;
}

static void assert_non_blocking_and_close_on_exec(int fd)
{
    assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
    assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
}

/* The lowest free descriptor: the same before and after when nothing leaked. */
static int next_descriptor(void)
{
    const int fd = dup(0);
    assert_true(fd >= 0);
    close(fd);
    return fd;
}

static int udp_on(const char *text)
{
    int fd;
    const struct address address = any_port(text);
    assert_int_equal(socket_bind_udp(&address, false, &fd), STATUS_OK);
    return fd;
}

static int tcp_on(const char *text)
{
    int fd;
    const struct address address = any_port(text);
    assert_int_equal(socket_listen_tcp(&address, false, &fd), STATUS_OK);
    return fd;
}

static bool has_ipv6(void)
{
    int fd;
    const struct address address = any_port("::1");
    if (socket_listen_tcp(&address, false, &fd) != STATUS_OK)
        return false;
    close(fd);
    return true;
}

static void udp_socket_has_its_options(void **state)
{
    (void)state;
    const int fd = udp_on("127.0.0.1");
    assert_non_blocking_and_close_on_exec(fd);
    assert_int_equal(option(fd, SOL_SOCKET, SO_REUSEPORT), 1);
    assert_int_equal(option(fd, IPPROTO_IP, IP_MTU_DISCOVER), IP_PMTUDISC_OMIT);
    assert_int_equal(option(fd, IPPROTO_IP, IP_PKTINFO), 0);
    const int plain = socket(AF_INET, SOCK_DGRAM, 0);
    assert_true(option(fd, SOL_SOCKET, SO_RCVBUF) >= option(plain, SOL_SOCKET, SO_RCVBUF));
    const struct address address = bound_address(fd);
    int second;
    assert_int_equal(socket_bind_udp(&address, false, &second),
                     STATUS_OK); /* one socket a worker */
    close(second);
    close(plain);
    close(fd);
}

/* Sends to `to` and gives back the packet information that the wildcard socket received. */
static void receive_info(int fd, const struct address *to, int level, int type, void *info,
                         size_t info_size)
{
    char byte, control[128];
    struct iovec part = {.iov_base = &byte, .iov_len = 1};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control,
                             .msg_controllen = sizeof control};
    const int sender = socket(to->any.sa_family, SOCK_DGRAM, 0);
    assert_int_equal(sendto(sender, "x", 1, 0, &to->any, address_length(to)), 1);
    wait_for(fd, POLLIN);
    assert_int_equal(recvmsg(fd, &message, 0), 1);
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    assert_non_null(header);
    assert_int_equal(header->cmsg_level, level);
    assert_int_equal(header->cmsg_type, type);
    memcpy(info, CMSG_DATA(header), info_size);
    close(sender);
}

static void send_to(const struct address *to, int *fd)
{
    *fd = socket(to->any.sa_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(*fd, &to->any, address_length(to)), 0);
    assert_int_equal(send(*fd, "x", 1, 0), 1);
}

/* Of the two that send, the first before the door is closed and the second behind it, the first has
 * its reply and the second learns at once that there will be none. */
static void J14_udp_socket_whose_door_is_closed_keeps_what_it_has_and_takes_no_more(void **state)
{
    (void)state;
    const char *const texts[] = {"127.0.0.1", "0.0.0.0", "::1", "::"};
    for (size_t i = 0; i < (has_ipv6() ? 4 : 2); i++) {
        const int fd = udp_on(texts[i]);
        struct address to = any_port(i < 2 ? "127.0.0.1" : "::1"), from = {0};
        socklen_t length = sizeof from;
        int first, second;
        char byte;
        to.v4.sin_port = bound_address(fd).v4.sin_port; /* at the same place in both families */
        send_to(&to, &first);
        socket_close_door(fd);
        send_to(&to, &second);
        wait_for(second, POLLIN);
        assert_int_equal(recv(second, &byte, 1, MSG_DONTWAIT), -1);
        assert_int_equal(errno, ECONNREFUSED);
        assert_int_equal(recvfrom(fd, &byte, 1, MSG_DONTWAIT, &from.any, &length), 1);
        assert_int_equal(recvfrom(fd, &byte, 1, MSG_DONTWAIT, NULL, NULL), -1);
        assert_int_equal(errno, EAGAIN);
        assert_int_equal(sendto(fd, "y", 1, 0, &from.any, length), 1);
        wait_for(first, POLLIN);
        assert_int_equal(recv(first, &byte, 1, MSG_DONTWAIT), 1);
        close(first);
        close(second);
        close(fd);
    }
}

static void A15_wildcard_socket_tells_the_address_that_was_asked(void **state)
{
    (void)state;
    const int fd = udp_on("0.0.0.0");
    struct address to = any_port("127.0.0.77");
    to.v4.sin_port = bound_address(fd).v4.sin_port;
    struct in_pktinfo info;
    receive_info(fd, &to, IPPROTO_IP, IP_PKTINFO, &info, sizeof info);
    assert_memory_equal(&info.ipi_addr, &to.v4.sin_addr, 4);
    close(fd);
}

static void A15_ipv6_wildcard_socket_tells_the_address_that_was_asked(void **state)
{
    (void)state;
    if (!has_ipv6())
        skip();
    const int fd = udp_on("::");
    assert_int_equal(option(fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER), IPV6_PMTUDISC_OMIT);
    struct address to = any_port("::1");
    to.v6.sin6_port = bound_address(fd).v6.sin6_port;
    struct in6_pktinfo info;
    receive_info(fd, &to, IPPROTO_IPV6, IPV6_PKTINFO, &info, sizeof info);
    assert_memory_equal(&info.ipi6_addr, &to.v6.sin6_addr, 16);
    close(fd);
}

static void ipv6_sockets_take_ipv6_only(void **state)
{
    (void)state;
    if (!has_ipv6())
        skip();
    const int fd = udp_on("::");
    struct address v4 = any_port("0.0.0.0");
    v4.v4.sin_port = bound_address(fd).v6.sin6_port;
    assert_int_equal(socket_check_free(&v4, SOCK_DGRAM, false), STATUS_OK);
    close(fd);
}

static void J4_an_address_in_use_is_found_though_its_port_is_shared(void **state)
{
    (void)state;
    const int udp = udp_on("127.0.0.1"), tcp = tcp_on("127.0.0.1");
    const struct address udp_address = bound_address(udp), tcp_address = bound_address(tcp);
    assert_int_equal(socket_check_free(&udp_address, SOCK_DGRAM, false), STATUS_SYSTEM);
    assert_int_equal(errno, EADDRINUSE);
    assert_int_equal(socket_check_free(&tcp_address, SOCK_STREAM, false), STATUS_SYSTEM);
    assert_int_equal(errno, EADDRINUSE);
    struct address wildcard = udp_address;
    wildcard.v4.sin_addr.s_addr = INADDR_ANY;
    assert_int_equal(socket_check_free(&wildcard, SOCK_DGRAM, false), STATUS_SYSTEM);
    close(udp);
    close(tcp);
    assert_int_equal(socket_check_free(&udp_address, SOCK_DGRAM, false), STATUS_OK);
    assert_int_equal(socket_check_free(&tcp_address, SOCK_STREAM, false), STATUS_OK);
}

/* Our own connections in TIME_WAIT must not keep us from starting again. */
static void J4_connections_in_time_wait_do_not_count(void **state)
{
    (void)state;
    const int listener = tcp_on("127.0.0.1");
    const struct address address = bound_address(listener);
    struct address peer;
    int client, server;
    char byte;
    assert_int_equal(socket_connect(&address, NANOSECONDS_PER_SECOND, &client), STATUS_OK);
    wait_for(listener, POLLIN);
    assert_int_equal(socket_accept(listener, &server, &peer), STATUS_OK);
    close(server); /* the side that closes first waits */
    wait_for(client, POLLIN);
    assert_int_equal(read(client, &byte, 1), 0);
    close(client);
    close(listener);
    assert_int_equal(socket_check_free(&address, SOCK_STREAM, false), STATUS_OK);
}

static void J4_a_missing_address_fails_and_leaks_nothing(void **state)
{
    (void)state;
    const struct address elsewhere = any_port("192.0.2.1");
    struct address odd = elsewhere;
    odd.any.sa_family = 12345;
    const int before = next_descriptor();
    int fd = -7;
    assert_int_equal(socket_bind_udp(&elsewhere, false, &fd), STATUS_SYSTEM);
    assert_int_equal(errno, EADDRNOTAVAIL);
    assert_int_equal(socket_listen_tcp(&elsewhere, false, &fd), STATUS_SYSTEM);
    assert_int_equal(errno, EADDRNOTAVAIL);
    assert_int_equal(socket_check_free(&elsewhere, SOCK_STREAM, false), STATUS_SYSTEM);
    assert_int_equal(errno, EADDRNOTAVAIL);
    assert_int_equal(socket_bind_udp(&odd, false, &fd), STATUS_SYSTEM);
    assert_int_equal(errno, EAFNOSUPPORT);
    assert_int_equal(socket_listen_tcp(&odd, false, &fd), STATUS_SYSTEM);
    assert_int_equal(socket_check_free(&odd, SOCK_DGRAM, false), STATUS_SYSTEM);
    assert_int_equal(socket_connect(&odd, 0, &fd), STATUS_SYSTEM);
    assert_int_equal(fd, -7);
    assert_int_equal(next_descriptor(), before);
}

static void J4_an_address_that_comes_later_is_bound_when_that_is_asked_for(void **state)
{
    (void)state;
    const char *const texts[] = {"192.0.2.1", "2001:db8::1"};
    for (size_t i = 0; i < (has_ipv6() ? 2 : 1); i++) {
        const struct address elsewhere = any_port(texts[i]);
        int udp, tcp;
        assert_int_equal(socket_check_free(&elsewhere, SOCK_DGRAM, true), STATUS_OK);
        assert_int_equal(socket_check_free(&elsewhere, SOCK_STREAM, true), STATUS_OK);
        assert_int_equal(socket_bind_udp(&elsewhere, true, &udp), STATUS_OK);
        assert_int_equal(socket_listen_tcp(&elsewhere, true, &tcp), STATUS_OK);
        const struct address udp_address = bound_address(udp), tcp_address = bound_address(tcp);
        assert_int_equal(socket_check_free(&udp_address, SOCK_DGRAM, true), STATUS_SYSTEM);
        assert_int_equal(errno, EADDRINUSE);
        assert_int_equal(socket_check_free(&tcp_address, SOCK_STREAM, true), STATUS_SYSTEM);
        assert_int_equal(errno, EADDRINUSE);
        close(udp);
        close(tcp);
    }
}

static void J14_unread_bytes_of_a_connection_are_counted(void **state)
{
    (void)state;
    const int listener = tcp_on("127.0.0.1");
    const struct address address = bound_address(listener);
    struct address peer;
    int client, server;
    char bytes[3];
    assert_int_equal(socket_connect(&address, NANOSECONDS_PER_SECOND, &client), STATUS_OK);
    wait_for(listener, POLLIN);
    assert_int_equal(socket_accept(listener, &server, &peer), STATUS_OK);
    assert_int_equal(socket_unread(server), 0);
    wait_for(client, POLLOUT);
    assert_int_equal(send(client, "abcde", 5, 0), 5);
    wait_for(server, POLLIN);
    assert_int_equal(socket_unread(server), 5);
    assert_int_equal(recv(server, bytes, 3, 0), 3);
    assert_int_equal(socket_unread(server), 2);
    assert_int_equal(socket_unread(-1), 0);
    close(client);
    close(server);
    close(listener);
}

static void a_client_is_accepted_with_its_address(void **state)
{
    (void)state;
    const int listener = tcp_on("127.0.0.1");
    const struct address address = bound_address(listener);
    struct address peer;
    int client, server;
    assert_non_blocking_and_close_on_exec(listener);
    assert_int_equal(socket_accept(listener, &server, &peer), STATUS_AGAIN);
    assert_int_equal(socket_connect(&address, 1500 * NANOSECONDS_PER_MILLISECOND, &client),
                     STATUS_OK);
    wait_for(client, POLLOUT);
    assert_int_equal(socket_error(client), 0);
    assert_int_equal(socket_accept(listener, &server, &peer), STATUS_OK);
    const struct address own = bound_address(client);
    assert_true(address_equal(&peer, &own));
    assert_non_blocking_and_close_on_exec(server);
    assert_non_blocking_and_close_on_exec(client);
    assert_true(option(server, IPPROTO_TCP, TCP_NODELAY));
    assert_true(option(client, IPPROTO_TCP, TCP_NODELAY));
    assert_true(option(client, SOL_SOCKET, SO_KEEPALIVE));
    assert_int_equal(option(client, IPPROTO_TCP, TCP_USER_TIMEOUT), 1500);
    close(client);
    close(server);
    close(listener);
}

static void I1_accept_without_descriptors_is_full_and_the_client_waits(void **state)
{
    (void)state;
    const int listener = tcp_on("127.0.0.1");
    const struct address address = bound_address(listener);
    struct address peer;
    struct rlimit before;
    int client, server;
    assert_int_equal(socket_connect(&address, 0, &client), STATUS_OK);
    wait_for(listener, POLLIN);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    const struct rlimit none = {.rlim_cur = (rlim_t)next_descriptor(), .rlim_max = before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    const enum status accepted = socket_accept(listener, &server, &peer);
    int another;
    const enum status connected = socket_connect(&address, 0, &another);
    const int error = errno;
    const enum status source = socket_source(&address, &peer);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    assert_int_equal(accepted, STATUS_FULL);
    assert_int_equal(connected, STATUS_SYSTEM);
    assert_int_equal(source, STATUS_FULL);
    assert_int_equal(socket_failure(error), FAILURE_LOCAL);
    assert_int_equal(socket_accept(listener, &server, &peer), STATUS_OK);
    close(server);
    close(client);
    close(listener);
}

static void accept_on_something_else_is_a_system_failure(void **state)
{
    (void)state;
    struct address peer;
    int server, udp = udp_on("127.0.0.1");
    assert_int_equal(socket_accept(udp, &server, &peer), STATUS_SYSTEM);
    assert_int_equal(socket_error(udp), 0);
    close(udp);
    assert_int_equal(socket_error(udp), EBADF);
}

static void connecting_to_a_closed_port_is_refused(void **state)
{
    (void)state;
    const int listener = tcp_on("127.0.0.1");
    const struct address address = bound_address(listener);
    close(listener);
    int client, error = 0;
    if (socket_connect(&address, 0, &client) == STATUS_OK) {
        wait_for(client, POLLOUT);
        error = socket_error(client);
        close(client);
    } else {
        error = errno;
    }
    assert_int_equal(error, ECONNREFUSED);
}

static void each_errno_has_its_failure(void **state)
{
    (void)state;
    static const struct {
        int error;
        enum failure failure;
    } rows[] = {
        {ECONNREFUSED, FAILURE_REFUSED_CONNECTION},
        {ENETUNREACH, FAILURE_UNREACHABLE},
        {EHOSTUNREACH, FAILURE_UNREACHABLE},
        {EADDRNOTAVAIL, FAILURE_UNREACHABLE},
        {EAFNOSUPPORT, FAILURE_UNREACHABLE},
        {ENETDOWN, FAILURE_UNREACHABLE},
        {EPERM, FAILURE_UNREACHABLE},
        {EACCES, FAILURE_UNREACHABLE},
        {EMFILE, FAILURE_LOCAL},
        {ENFILE, FAILURE_LOCAL},
        {ENOBUFS, FAILURE_LOCAL},
        {ENOMEM, FAILURE_LOCAL},
        {ETIMEDOUT, FAILURE_STALLED},
        {ECONNRESET, FAILURE_RESET},
        {EPIPE, FAILURE_RESET},
        {0, FAILURE_RESET},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        assert_int_equal(socket_failure(rows[i].error), rows[i].failure);
}

static void F5_bytes_that_have_arrived_are_acknowledged(void **state)
{
    (void)state;
    int pair[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    assert_false(socket_has_unacknowledged(pair[0]));
    assert_int_equal(write(pair[0], "x", 1), 1); /* here they count until they are read */
    assert_true(socket_has_unacknowledged(pair[0]));
    char byte;
    assert_int_equal(read(pair[1], &byte, 1), 1);
    assert_false(socket_has_unacknowledged(pair[0]));
    close(pair[0]);
    close(pair[1]);
    assert_true(socket_has_unacknowledged(-1)); /* unknown is not arrived */
}

static void J8_source_is_our_address_towards_another(void **state)
{
    (void)state;
    struct address peer;
    struct address source;
    struct address expected;
    assert_true(address_parse("127.0.0.9:853", 0, &peer) == STATUS_OK);
    assert_true(socket_source(&peer, &source) == STATUS_OK);
    assert_true(address_parse("127.0.0.1:1", 0, &expected) == STATUS_OK);
    assert_int_equal(address_port(&source), 0);
    assert_int_equal(source.v4.sin_addr.s_addr, expected.v4.sin_addr.s_addr);
    assert_true(address_parse("255.255.255.255:853", 0, &peer) == STATUS_OK);
    assert_true(socket_source(&peer, &source) == STATUS_SYSTEM); /* no broadcast: refused */
    assert_int_equal(source.v4.sin_addr.s_addr, expected.v4.sin_addr.s_addr);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(udp_socket_has_its_options),
        cmocka_unit_test(J14_udp_socket_whose_door_is_closed_keeps_what_it_has_and_takes_no_more),
        cmocka_unit_test(A15_wildcard_socket_tells_the_address_that_was_asked),
        cmocka_unit_test(A15_ipv6_wildcard_socket_tells_the_address_that_was_asked),
        cmocka_unit_test(ipv6_sockets_take_ipv6_only),
        cmocka_unit_test(J4_an_address_in_use_is_found_though_its_port_is_shared),
        cmocka_unit_test(J4_connections_in_time_wait_do_not_count),
        cmocka_unit_test(J4_a_missing_address_fails_and_leaks_nothing),
        cmocka_unit_test(J4_an_address_that_comes_later_is_bound_when_that_is_asked_for),
        cmocka_unit_test(J14_unread_bytes_of_a_connection_are_counted),
        cmocka_unit_test(a_client_is_accepted_with_its_address),
        cmocka_unit_test(I1_accept_without_descriptors_is_full_and_the_client_waits),
        cmocka_unit_test(accept_on_something_else_is_a_system_failure),
        cmocka_unit_test(connecting_to_a_closed_port_is_refused),
        cmocka_unit_test(each_errno_has_its_failure),
        cmocka_unit_test(F5_bytes_that_have_arrived_are_acknowledged),
        cmocka_unit_test(J8_source_is_our_address_towards_another),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
