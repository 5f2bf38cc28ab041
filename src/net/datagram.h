// SPDX-License-Identifier: Apache-2.0
/* One datagram to one server, and what comes back.
 *
 * The socket is new for each datagram and connected: the kernel gives it a port by chance, and
 * takes nothing from other addresses (RFC 5452 9.2). It knows no DNS.
 *
 * Thread: the worker of the loop. Owner: the object that embeds it, which is not freed before the
 * end of the turn in which it was closed. */
#ifndef NET_DATAGRAM_H
#define NET_DATAGRAM_H

#include <stddef.h>
#include <stdint.h>

#include "base/address.h"
#include "base/failure.h"
#include "base/status.h"
#include "net/loop.h"

struct datagram {
    struct loop *loop; /* NULL: closed */
    struct loop_source source;
    /* Something came; it may be anybody's who can forge the server's address. */
    void (*on_message)(struct datagram *datagram, const uint8_t *bytes, size_t length);
    void (*on_failed)(struct datagram *datagram, enum failure failure); /* already closed */
};

/* `datagram` has its two callbacks. STATUS_SYSTEM with `*failure` when it could not be sent. */
enum status datagram_send(struct datagram *datagram, struct loop *loop,
                          const struct address *address, const uint8_t *bytes, size_t length,
                          enum failure *failure);

/* Sends something again, from the same port, to a server that has not answered. If it cannot be
 * sent that is no worse than if it is lost. */
void datagram_repeat(struct datagram *datagram, const uint8_t *bytes, size_t length);

/* Harmless when closed, or zeroed. */
void datagram_close(struct datagram *datagram);

#endif
