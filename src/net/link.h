// SPDX-License-Identifier: Apache-2.0
/* Watches the links, addresses and routes of this machine (NETLINK_ROUTE), and whether it slept.
 *
 * It says only that something has changed, a moment after it did, so that a burst of changes is
 * one. What that means for whom is for others to find out (socket_source): on a machine that runs
 * containers most changes mean nothing.
 *
 * Thread: the worker of its loop. Owner: the worker that embeds it. */
#ifndef NET_LINK_H
#define NET_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "net/loop.h"

struct link {
    struct loop *loop;
    void (*on_change)(struct link *link);
    struct loop_source source; /* the netlink socket */
    struct deadline_queue settle;
    struct deadline settling;
    uint64_t checked_ns; /* the last turn, for link_has_slept */
    uint64_t slept_ns;   /* that the machine has slept in all */
};

/* STATUS_SYSTEM when the kernel refuses: then on_change is never called, all else works. */
enum status link_open(struct link *link, struct loop *loop, void (*on_change)(struct link *link));
void link_close(struct link *link);

/* For every turn of the loop, which is at most a second long: true when the machine has slept since
 * the last one. */
bool link_has_slept(struct link *link);

/* True when netlink messages tell of a link, an address or a route. */
bool link_tells_change(const void *messages, size_t length);

#endif
