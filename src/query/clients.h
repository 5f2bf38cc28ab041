// SPDX-License-Identifier: Apache-2.0
/* Who asks, and what each may take: the one place where the limits of clients live.
 *
 * A client is whoever shares an account: one IPv4 address, or one IPv6 /64, because a single host
 * can use all of its addresses; over all transports. Accounts stand in their network, the /24 or
 * /56 that one customer is given (RFC 6177).
 *
 * Thread: one worker.   Owner: struct resolver. */
#ifndef QUERY_CLIENTS_H
#define QUERY_CLIENTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/address.h"
#include "base/status.h"
#include "config/config.h"

struct clients;
struct account; /* of a client with connections */

/* Of one query among those that wait. */
struct place {
    uint16_t counted; /* in which bucket of the datagrams; PLACE_UNCOUNTED: none */
};

enum { PLACE_BITS = 12, PLACE_BUCKETS = 1 << PLACE_BITS, PLACE_UNCOUNTED = PLACE_BUCKETS };

/* `config` outlives the clients. */
enum status clients_open(const struct config *config, struct clients **out);
void clients_close(struct clients *clients); /* safe on NULL; all must have left */

/* The most bytes that the accounts can ever occupy. */
size_t clients_ceiling(const struct clients *clients);

/* One more connection from that address (FAULTS B9). NULL beyond limits.tcp-accept-rate or
 * limits.tcp-clients-per-address; limits.tcp-clients are the caller's, who counts them. */
struct account *clients_connect(struct clients *clients, const struct address *address,
                                uint64_t now);
void clients_disconnect(struct clients *clients, struct account *account);

/* False for one datagram too many to its network, by limits.udp-rate (FAULTS A17). */
bool clients_may_reply(struct clients *clients, const struct address *address, uint64_t now);

/* A query is to wait, beside `waiting_count` others. False for one datagram too many, by
 * limits.udp-queries-per-address (FAULTS I5); else the place is left by clients_leave. */
bool clients_enter(struct clients *clients, struct place *place, const struct address *address,
                   bool is_datagram, size_t waiting_count);
void clients_leave(struct clients *clients, struct place *place);

#endif
