// SPDX-License-Identifier: Apache-2.0
/* `dnsproxy health`: asks the running daemon whether it is ready; the container's health check.
 *
 * A small HTTP client with one deadline over everything: a daemon that accepts and says nothing is
 * as sick as one that is gone.
 *
 * Thread: main of its own process.   Owner: none, it keeps nothing.
 * RFC:    9112 (HTTP/1.1 messages). */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/deadline.h"
#include "control/admin.h"
#include "net/loop.h"
#include "net/socket.h"

#define HEALTH_LIMIT_NS (2 * NANOSECONDS_PER_SECOND)

enum { REPLY_SIZE = 1024 };

/* The daemon listens on every address: ask the nearest. */
static struct address reachable(const struct address *address)
{
    struct address target = *address;
    if (!address_is_any(address))
        return target;
    if (target.any.sa_family == AF_INET6)
        target.v6.sin6_addr = in6addr_loopback;
    else
        target.v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return target;
}

/* STATUS_SYSTEM with ETIMEDOUT when the deadline comes first. */
static enum status wait_for(int fd, short events, uint64_t deadline_ns)
{
    struct pollfd poll_one = {.fd = fd, .events = events};
    for (;;) {
        const uint64_t now = loop_clock();
        const uint64_t left_ns = deadline_ns > now ? deadline_ns - now : 0;
        const int count = poll(&poll_one, 1, (int)(left_ns / NANOSECONDS_PER_MILLISECOND));
        if (count > 0)
            return STATUS_OK;
        if (count == 0)
            errno = ETIMEDOUT;
        if (count == 0 || errno != EINTR)
            return STATUS_SYSTEM;
    }
}

static enum status send_request(int fd, uint64_t deadline_ns)
{
    static const char request[] =
        "GET /ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    TRY(wait_for(fd, POLLOUT, deadline_ns));
    errno = socket_error(fd);
    if (errno != 0)
        return STATUS_SYSTEM;
    /* The empty send buffer of a new connection takes it whole. */
    const ssize_t sent = send(fd, request, sizeof(request) - 1, MSG_NOSIGNAL);
    return sent == sizeof(request) - 1 ? STATUS_OK : STATUS_SYSTEM;
}

/* Reads to the end of the stream, or as much as fits: the status line is at the start. */
static enum status read_reply(int fd, uint64_t deadline_ns, char reply[static REPLY_SIZE])
{
    size_t length = 0;
    while (length < REPLY_SIZE - 1) {
        TRY(wait_for(fd, POLLIN, deadline_ns));
        const ssize_t count = recv(fd, reply + length, REPLY_SIZE - 1 - length, 0);
        if (count < 0 && (errno == EINTR || errno == EAGAIN))
            continue;
        if (count < 0)
            return STATUS_SYSTEM;
        if (count == 0)
            break;
        length += (size_t)count;
    }
    reply[length] = '\0';
    return STATUS_OK;
}

static enum status ask(const struct address *target, char reply[static REPLY_SIZE])
{
    const uint64_t deadline_ns = loop_clock() + HEALTH_LIMIT_NS;
    int fd;
    TRY(socket_connect(target, HEALTH_LIMIT_NS, &fd));
    enum status status = send_request(fd, deadline_ns);
    if (status == STATUS_OK)
        status = read_reply(fd, deadline_ns, reply);
    const int cause = errno;
    close(fd);
    errno = cause;
    return status;
}

static void explain(const char *target, int cause)
{
    if (cause == ECONNREFUSED)
        fprintf(stderr,
                "no dnsproxy answers on %s: is it running, and is --admin set to this address?\n",
                target);
    else if (cause == ETIMEDOUT)
        fprintf(stderr,
                "no answer from %s within 2 seconds: the daemon hangs, or something between drops "
                "the packets\n",
                target);
    else
        fprintf(stderr, "cannot ask %s: %s\n", target, strerror(cause));
}

static int judge(const char *target, const char *reply)
{
    if (strncmp(reply, "HTTP/1.1 200 ", 13) == 0) {
        puts("ready");
        return 0;
    }
    if (strncmp(reply, "HTTP/1.1 503 ", 13) == 0)
        fprintf(stderr, "not ready: dnsproxy on %s is starting or stopping; its log says more\n",
                target);
    else
        fprintf(
            stderr,
            "what answers on %s is not dnsproxy: is --admin set to another service's address?\n",
            target);
    return 1;
}

int admin_health(const struct address *address)
{
    const struct address target = reachable(address);
    char text[ADDRESS_TEXT_SIZE];
    address_format(&target, text);
    char reply[REPLY_SIZE];
    if (ask(&target, reply) != STATUS_OK) {
        explain(text, errno);
        return 1;
    }
    return judge(text, reply);
}
