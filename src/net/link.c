// SPDX-License-Identifier: Apache-2.0
/* Links, addresses and routes of this machine, from the kernel over netlink; and sleep, which the
 * one clock counts (CLOCK_BOOTTIME) and the other does not (CLOCK_MONOTONIC).
 *
 * Thread: the worker of its loop.   Owner: the worker.
 * RFC:    3549 (netlink). */
#include "net/link.h"

#include <assert.h>
#include <errno.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define SETTLE_NS (50 * NANOSECONDS_PER_MILLISECOND) /* changes come in bursts */
#define TURN_NS (2 * NANOSECONDS_PER_SECOND)         /* no turn is that long */
#define SLEEP_NS (1 * NANOSECONDS_PER_SECOND)        /* and no shorter sleep matters */

enum {
    BUFFER_SIZE = 8192, /* as the kernel's own; a longer message is cut, its type stays */
    READS_MAX = 16,     /* in a turn; epoll tells of the rest again */
    GROUPS = RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR | RTMGRP_IPV4_ROUTE |
             RTMGRP_IPV6_ROUTE,
};

bool link_tells_change(const void *messages, size_t length)
{
    assert(messages || length == 0);
    const uint8_t *bytes = messages;
    while (length >= sizeof(struct nlmsghdr)) {
        struct nlmsghdr header;
        memcpy(&header, bytes, sizeof header);
        if (header.nlmsg_type >= RTM_NEWLINK && header.nlmsg_type <= RTM_DELROUTE)
            return true;
        const size_t step = NLMSG_ALIGN((size_t)header.nlmsg_len);
        if (step < sizeof header || step > length)
            return false;
        bytes += step;
        length -= step;
    }
    return false;
}

/* Reads one batch; false when there is none. What got lost for want of room may have been a change,
 * and only the kernel (port 0) is believed. */
static bool read_batch(int fd, bool *is_change)
{
    uint8_t buffer[BUFFER_SIZE];
    struct sockaddr_nl from = {0};
    socklen_t from_length = sizeof from;
    const ssize_t length =
        recvfrom(fd, buffer, sizeof buffer, MSG_DONTWAIT, (struct sockaddr *)&from, &from_length);
    if (length == -1) {
        *is_change = errno == ENOBUFS;
        return errno == ENOBUFS;
    }
    *is_change = from.nl_pid == 0 && link_tells_change(buffer, (size_t)length);
    return true;
}

static void on_ready(struct loop_source *source, uint32_t events)
{
    struct link *link = CONTAINER_OF(source, struct link, source);
    (void)events;
    bool is_change = false;
    for (int i = 0; i < READS_MAX && read_batch(source->fd, &is_change); i++)
        if (is_change && !list_is_linked(&link->settling.link))
            deadline_arm(&link->settle, &link->settling, link->loop->now);
}

static void on_settled(struct deadline *deadline, uint64_t now)
{
    struct link *link = CONTAINER_OF(deadline, struct link, settling);
    (void)now;
    link->on_change(link);
}

static uint64_t slept_ns(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    const uint64_t awake_ns =
        (uint64_t)time.tv_sec * NANOSECONDS_PER_SECOND + (uint64_t)time.tv_nsec;
    const uint64_t now = loop_clock(); /* read second, so that the difference is never below 0 */
    return now - awake_ns;
}

bool link_has_slept(struct link *link)
{
    const uint64_t now = link->loop->now;
    const bool is_long = now - link->checked_ns >= TURN_NS;
    link->checked_ns = now;
    if (!is_long)
        return false;
    const uint64_t before_ns = link->slept_ns;
    link->slept_ns = slept_ns();
    return (int64_t)(link->slept_ns - before_ns) >= (int64_t)SLEEP_NS;
}

enum status link_open(struct link *link, struct loop *loop, void (*on_change)(struct link *link))
{
    assert(loop);
    assert(on_change);
    *link = (struct link){.loop = loop,
                          .on_change = on_change,
                          .source = {.fd = -1, .on_ready = on_ready},
                          .checked_ns = loop->now,
                          .slept_ns = slept_ns()};
    deadline_init(&link->settling);
    loop_add_queue(loop, &link->settle, SETTLE_NS, on_settled);
    const int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE);
    if (fd == -1)
        return STATUS_SYSTEM;
    const struct sockaddr_nl address = {.nl_family = AF_NETLINK, .nl_groups = GROUPS};
    if (bind(fd, (const struct sockaddr *)&address, sizeof address) == 0 &&
        loop_add(loop, &link->source, fd, EPOLLIN) == STATUS_OK)
        return STATUS_OK;
    close(fd);
    return STATUS_SYSTEM;
}

void link_close(struct link *link)
{
    if (!link->loop)
        return;
    assert(link->on_change);
    const int fd = link->source.fd;
    loop_remove(link->loop, &link->source);
    loop_remove_queue(&link->settle);
    if (fd != -1)
        close(fd);
    link->loop = NULL;
}
