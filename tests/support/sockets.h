// SPDX-License-Identifier: Apache-2.0
/* Loopback sockets on port 0 for the tests. */
#ifndef SUPPORT_SOCKETS_H
#define SUPPORT_SOCKETS_H

#include "test.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/address.h"

static inline struct address any_port(const char *text)
{
    struct address address = {0};
    if (strchr(text, ':')) {
        address.v6.sin6_family = AF_INET6;
        assert_int_equal(inet_pton(AF_INET6, text, &address.v6.sin6_addr), 1);
    } else {
        address.v4.sin_family = AF_INET;
        assert_int_equal(inet_pton(AF_INET, text, &address.v4.sin_addr), 1);
    }
    return address;
}

static inline struct address bound_address(int fd)
{
    struct address address = {0};
    socklen_t length = sizeof address;
    assert_int_equal(getsockname(fd, &address.any, &length), 0);
    return address;
}

static inline int listen_on_loopback(struct address *address)
{
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    *address = any_port("127.0.0.1");
    assert_int_equal(bind(fd, &address->any, address_length(address)), 0);
    assert_int_equal(listen(fd, 64), 0);
    *address = bound_address(fd);
    return fd;
}

static inline void wait_for(int fd, short events)
{
    struct pollfd poller = {.fd = fd, .events = events};
    assert_int_equal(poll(&poller, 1, 10000), 1);
}

static inline void send_at_once(int fd)
{
    const int on = 1;
    assert_int_equal(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on), 0);
}

/* Both ends of a TCP connection, non-blocking. */
static inline void tcp_pair(int *client, int *server)
{
    struct address address;
    const int listener = listen_on_loopback(&address);
    *client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(*client, &address.any, address_length(&address)), 0);
    *server = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    assert_true(*server >= 0);
    assert_int_equal(fcntl(*client, F_SETFL, O_NONBLOCK), 0);
    send_at_once(*client);
    send_at_once(*server);
    close(listener);
}

/* Closes with a reset instead of a FIN. */
static inline void reset(int fd)
{
    const struct linger linger = {.l_onoff = 1};
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger), 0);
    close(fd);
}

#endif
