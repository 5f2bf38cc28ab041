// SPDX-License-Identifier: Apache-2.0
/* Sockets with the options that this daemon wants.
 *
 * Thread: any.   Owner: a descriptor is the caller's.
 * RFC:    9715 (no fragmented replies). */
#include "net/socket.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <linux/sock_diag.h>
#include <linux/sockios.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/deadline.h"

enum {
    BACKLOG = 4096,         /* the kernel caps it at somaxconn */
    UNSENT_SIZE = 64 << 10, /* what the kernel keeps of a client that reads slowly */
    KEEPALIVE_IDLE_S = 15,  /* below the 30 s at which some NATs forget an idle connection */
    KEEPALIVE_INTERVAL_S = 5,
    KEEPALIVE_PROBES = 3,
};

static int open_socket(const struct address *address, int type)
{
    return socket(address->any.sa_family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
}

static enum status set_option(int fd, int level, int option, int value)
{
    return setsockopt(fd, level, option, &value, sizeof value) == 0 ? STATUS_OK : STATUS_SYSTEM;
}

/* For options without which things still work. */
static void try_option(int fd, int level, int option, int value)
{
    (void)setsockopt(fd, level, option, &value, sizeof value);
}

static void close_keeping_errno(int fd)
{
    const int error = errno;
    close(fd);
    errno = error;
}

static enum status set_freebind(int fd, const struct address *address)
{
    return address->any.sa_family == AF_INET6 ? set_option(fd, IPPROTO_IPV6, IPV6_FREEBIND, 1)
                                              : set_option(fd, IPPROTO_IP, IP_FREEBIND, 1);
}

/* A new socket through `set_up`, or none. */
static enum status open_with(const struct address *address, int type, bool freebind,
                             enum status (*set_up)(int fd, const struct address *address), int *out)
{
    const int fd = open_socket(address, type);
    if (fd == -1)
        return STATUS_SYSTEM;
    if ((freebind && set_freebind(fd, address) != STATUS_OK) || set_up(fd, address) != STATUS_OK) {
        close_keeping_errno(fd);
        return STATUS_SYSTEM;
    }
    *out = fd;
    return STATUS_OK;
}

static enum status bind_to(int fd, const struct address *address)
{
    if (address->any.sa_family == AF_INET6)
        TRY(set_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1));
    return bind(fd, &address->any, address_length(address)) == 0 ? STATUS_OK : STATUS_SYSTEM;
}

/* IP_PMTUDISC_OMIT: the interface's MTU counts, whatever ICMP says. */
static enum status set_up_udp(int fd, const struct address *address)
{
    const bool is_v6 = address->any.sa_family == AF_INET6;
    TRY(set_option(fd, SOL_SOCKET, SO_REUSEPORT, 1));
    try_option(fd, SOL_SOCKET, SO_RCVBUF, SOCKET_UDP_BUFFER);
    try_option(fd, SOL_SOCKET, SO_SNDBUF, SOCKET_UDP_BUFFER);
    TRY(is_v6 ? set_option(fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_PMTUDISC_OMIT)
              : set_option(fd, IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_OMIT));
    if (address_is_any(address))
        TRY(is_v6 ? set_option(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1)
                  : set_option(fd, IPPROTO_IP, IP_PKTINFO, 1));
    return bind_to(fd, address);
}

enum status socket_bind_udp(const struct address *address, bool freebind, int *out)
{
    assert(address && out);
    return open_with(address, SOCK_DGRAM, freebind, set_up_udp, out);
}

void socket_close_door(int fd)
{
    assert(fd >= 0);
    struct address self = {0};
    socklen_t length = sizeof self;
    if (getsockname(fd, &self.any, &length) == 0)
        (void)connect(fd, &self.any, length);
}

uint32_t socket_overflow(int fd, uint32_t before)
{
    uint32_t memory[SK_MEMINFO_VARS] = {[SK_MEMINFO_DROPS] = before};
    socklen_t length = sizeof(memory);
    (void)getsockopt(fd, SOL_SOCKET, SO_MEMINFO, memory, &length);
    return memory[SK_MEMINFO_DROPS];
}

static enum status set_up_listener(int fd, const struct address *address)
{
    TRY(set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1));
    TRY(set_option(fd, SOL_SOCKET, SO_REUSEPORT, 1));
    /* For the accepted sockets, as what follows: what the kernel holds for a client has a bound. */
    try_option(fd, SOL_SOCKET, SO_SNDBUF, SOCKET_TCP_BUFFER);
    try_option(fd, SOL_SOCKET, SO_RCVBUF, SOCKET_TCP_BUFFER);
    /* Without it the kernel takes megabytes for each client that does not
     * read, and has room again, which is how we see progress, only when a third of that is gone. */
    try_option(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, UNSENT_SIZE);
    TRY(bind_to(fd, address));
    return listen(fd, BACKLOG) == 0 ? STATUS_OK : STATUS_SYSTEM;
}

enum status socket_listen_tcp(const struct address *address, bool freebind, int *out)
{
    assert(address && out);
    return open_with(address, SOCK_STREAM, freebind, set_up_listener, out);
}

/* SO_REUSEADDR looks past connections in TIME_WAIT; it conflicts with a listener all the same. */
static enum status bind_past_time_wait(int fd, const struct address *address)
{
    TRY(set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1));
    return bind_to(fd, address);
}

/* Binds without SO_REUSEPORT, which conflicts with every holder. */
enum status socket_check_free(const struct address *address, int type, bool freebind)
{
    assert(type == SOCK_DGRAM || type == SOCK_STREAM);
    int fd;
    TRY(open_with(address, type, freebind, type == SOCK_STREAM ? bind_past_time_wait : bind_to,
                  &fd));
    close(fd);
    return STATUS_OK;
}

static void set_connect_options(int fd, uint64_t user_timeout_ns)
{
    const uint64_t timeout_ms = user_timeout_ns / NANOSECONDS_PER_MILLISECOND;
    try_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    try_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
    try_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, KEEPALIVE_IDLE_S);
    try_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S);
    try_option(fd, IPPROTO_TCP, TCP_KEEPCNT, KEEPALIVE_PROBES);
    try_option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, timeout_ms < INT_MAX ? (int)timeout_ms : INT_MAX);
}

enum status socket_connect(const struct address *address, uint64_t user_timeout_ns, int *out)
{
    assert(address && out);
    const int fd = open_socket(address, SOCK_STREAM);
    if (fd == -1)
        return STATUS_SYSTEM;
    set_connect_options(fd, user_timeout_ns);
    assert(address_port(address) != 0);
    const int result = connect(fd, &address->any, address_length(address));
    if (result == -1 && errno != EINPROGRESS && errno != EINTR) {
        close_keeping_errno(fd);
        return STATUS_SYSTEM;
    }
    *out = fd;
    return STATUS_OK;
}

size_t socket_unread(int fd)
{
    int bytes = 0;
    return ioctl(fd, SIOCINQ, &bytes) == 0 && bytes > 0 ? (size_t)bytes : 0;
}

bool socket_has_unacknowledged(int fd)
{
    int bytes = 0;
    return ioctl(fd, SIOCOUTQ, &bytes) == -1 || bytes > 0;
}

static void clear_port(struct address *address)
{
    if (address->any.sa_family == AF_INET6)
        address->v6.sin6_port = 0;
    else
        address->v4.sin_port = 0;
}

enum status socket_source(const struct address *address, struct address *source)
{
    assert(address && source);
    struct address local = {0};
    socklen_t length = sizeof local;
    const int fd = open_socket(address, SOCK_DGRAM);
    if (fd == -1)
        return errno == EAFNOSUPPORT ? STATUS_SYSTEM : STATUS_FULL;
    const bool is_found = connect(fd, &address->any, address_length(address)) == 0 &&
                          getsockname(fd, &local.any, &length) == 0;
    close_keeping_errno(fd);
    if (!is_found)
        return STATUS_SYSTEM;
    clear_port(&local);
    *source = local;
    return STATUS_OK;
}

static enum status connect_to(int fd, const struct address *address)
{
    return connect(fd, &address->any, address_length(address)) == 0 ? STATUS_OK : STATUS_SYSTEM;
}

enum status socket_connect_udp(const struct address *address, int *out)
{
    assert(out && address_port(address) != 0);
    return open_with(address, SOCK_DGRAM, false, connect_to, out);
}

int socket_error(int fd)
{
    assert(fd >= 0);
    int error = 0;
    socklen_t length = sizeof error;
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) == -1)
        return errno;
    return error;
}

enum failure socket_failure(int error)
{
    switch (error) {
    case ECONNREFUSED:
        return FAILURE_REFUSED_CONNECTION;
    case ENETUNREACH:
    case EHOSTUNREACH:
    case EADDRNOTAVAIL:
    case EAFNOSUPPORT:
    case ENETDOWN:
    case EHOSTDOWN:
    case ENONET:
    case EPERM: /* a packet filter */
    case EACCES:
        return FAILURE_UNREACHABLE;
    case EMFILE:
    case ENFILE:
    case ENOBUFS:
    case ENOMEM:
        return FAILURE_LOCAL;
    case ETIMEDOUT:
        return FAILURE_STALLED;
    default:
        return FAILURE_RESET;
    }
}

enum failure socket_connect_failure(int error)
{
    return error == ETIMEDOUT ? FAILURE_CONNECT_TIMEOUT : socket_failure(error);
}

static enum status accept_failed(int error)
{
    switch (error) {
    case EAGAIN:
        return STATUS_AGAIN;
    case EMFILE:
    case ENFILE:
    case ENOBUFS:
    case ENOMEM:
        return STATUS_FULL;
    case EBADF:
    case EINVAL:
    case ENOTSOCK:
    case EFAULT:
    case EOPNOTSUPP:
        return STATUS_SYSTEM;
    default: /* accept(2): Linux passes on errors of the new socket; and a signal may interrupt */
        return STATUS_CLOSED;
    }
}

enum status socket_accept(int listener_fd, int *out, struct address *client)
{
    assert(out && client);
    assert(listener_fd >= 0);
    struct address peer = {0};
    socklen_t length = sizeof peer;
    const int fd = accept4(listener_fd, &peer.any, &length, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd == -1)
        return accept_failed(errno);
    try_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    *out = fd;
    *client = peer;
    return STATUS_OK;
}
