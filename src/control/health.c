// SPDX-License-Identifier: Apache-2.0
/* `dnsproxy health`: asks the running daemon whether it is ready; the container's health check.
 *
 * A daemon that accepts and says nothing is as sick as one that is gone, so everything has its
 * time: a second to connect, and one for the status line, which is all that is read.
 *
 * Thread: main of its own process.   Owner: none, it keeps nothing.
 * RFC:    9112 (HTTP/1.1 messages). */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "control/admin.h"

#define STATUS_READY "HTTP/1.1 200 "
#define STATUS_NOT_READY "HTTP/1.1 503 "
enum { STATUS_LENGTH = sizeof STATUS_READY - 1 };

/* The daemon listens on every address: ask the nearest. */
static struct address reachable(const struct address *address)
{
    assert(address);
    struct address target = *address;
    if (!address_is_any(address))
        return target;
    if (target.any.sa_family == AF_INET6)
        target.v6.sin6_addr = in6addr_loopback;
    else
        target.v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return target;
}

/* Linux counts the time to connect as one of sending, and with MSG_WAITALL all of a receive as one.
 */
static enum status talk(int fd, const struct address *target, char reply[static STATUS_LENGTH + 1])
{
    static const char request[] =
        "GET /ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    static const struct timeval second = {.tv_sec = 1};
    if (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &second, sizeof(second)) != 0 ||
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &second, sizeof(second)) != 0 ||
        connect(fd, &target->any, address_length(target)) != 0 ||
        send(fd, request, sizeof(request) - 1, MSG_NOSIGNAL) < 0)
        return STATUS_SYSTEM;
    const ssize_t length = recv(fd, reply, STATUS_LENGTH, MSG_WAITALL);
    if (length < 0)
        return STATUS_SYSTEM;
    reply[length] = '\0';
    return STATUS_OK;
}

static enum status ask(const struct address *target, char reply[static STATUS_LENGTH + 1])
{
    const int fd = socket(target->any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return STATUS_SYSTEM;
    const enum status status = talk(fd, target, reply);
    const int cause = errno;
    close(fd);
    errno = cause;
    return status;
}

static void explain(const char *target, int cause)
{
    if (cause == ECONNREFUSED)
        fprintf(stderr,
                "no dnsproxy answers on %s: is it running, and is --admin set to this address, and "
                "not off?\n",
                target);
    else if (cause == ETIMEDOUT || cause == EINPROGRESS || cause == EAGAIN)
        fprintf(stderr,
                "no answer from %s within 2 seconds: the daemon hangs, or something between drops "
                "the packets\n",
                target);
    else
        fprintf(stderr, "cannot ask %s: %s\n", target, strerror(cause));
}

static int judge(const char *target, const char *reply)
{
    if (strcmp(reply, STATUS_READY) == 0) {
        puts("ready");
        return 0;
    }
    if (strcmp(reply, STATUS_NOT_READY) == 0)
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
    if (!address) {
        fputs("admin is off, so dnsproxy cannot be asked: give --admin an address, such as "
              "127.0.0.1:9153, or turn the image's health check off (docker run --no-healthcheck; "
              "compose: healthcheck: {disable: true})\n",
              stderr);
        return 1;
    }
    const struct address target = reachable(address);
    char text[ADDRESS_TEXT_SIZE];
    address_format(&target, text);
    char reply[STATUS_LENGTH + 1];
    if (ask(&target, reply) != STATUS_OK) {
        explain(text, errno);
        return 1;
    }
    return judge(text, reply);
}
