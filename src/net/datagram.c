// SPDX-License-Identifier: Apache-2.0
/* One datagram to one server, and what comes back.
 *
 * Thread: the worker of the loop.   Owner: see net/datagram.h.
 * RFC:    5452 9.2 (ports). */
#include "net/datagram.h"

#include <assert.h>
#include <errno.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "net/socket.h"

enum {
    SIZE_MAX_RECEIVED = 4096, /* what is longer is cut, and then malformed */
    TURN_MESSAGES_MAX = 16,   /* a flood leaves time for others */
};

void datagram_close(struct datagram *datagram)
{
    if (!datagram->loop)
        return;
    assert(datagram->source.fd >= 0);
    const int fd = datagram->source.fd;
    loop_remove(datagram->loop, &datagram->source);
    close(fd);
    datagram->loop = NULL;
}

static void on_ready(struct loop_source *source, uint32_t events)
{
    struct datagram *datagram = CONTAINER_OF(source, struct datagram, source);
    uint8_t bytes[SIZE_MAX_RECEIVED];
    (void)events;
    for (unsigned i = 0; i < TURN_MESSAGES_MAX && datagram->loop; i++) {
        const ssize_t length = recv(source->fd, bytes, sizeof bytes, 0);
        if (length >= 0) {
            datagram->on_message(datagram, bytes, (size_t)length);
            continue;
        }
        if (errno == EAGAIN || errno == EINTR)
            return;
        const enum failure failure = socket_connect_failure(errno); /* an ICMP message */
        datagram_close(datagram);
        datagram->on_failed(datagram, failure);
        return;
    }
}

enum status datagram_send(struct datagram *datagram, struct loop *loop,
                          const struct address *address, const uint8_t *bytes, size_t length,
                          enum failure *failure)
{
    assert(bytes && length > 0 && failure);
    assert(!datagram->loop && datagram->on_message && datagram->on_failed);
    int fd = -1;
    if (socket_connect_udp(address, &fd) != STATUS_OK ||
        send(fd, bytes, length, MSG_NOSIGNAL) != (ssize_t)length)
        goto fail;
    datagram->source = (struct loop_source){.fd = -1, .on_ready = on_ready};
    if (loop_add(loop, &datagram->source, fd, EPOLLIN) != STATUS_OK)
        goto fail;
    datagram->loop = loop;
    return STATUS_OK;
fail:
    *failure = socket_connect_failure(errno);
    if (fd != -1)
        close(fd);
    return STATUS_SYSTEM;
}

void datagram_repeat(struct datagram *datagram, const uint8_t *bytes, size_t length)
{
    assert(bytes && length > 0);
    assert(datagram->loop);
    (void)send(datagram->source.fd, bytes, length, MSG_NOSIGNAL);
}
