// SPDX-License-Identifier: Apache-2.0
/* Who asks, and what each may take: the one place where the limits of clients live.
 *
 * A client is whoever shares an account: one IPv4 address, or one IPv6 /64, because a single host
 * can use all of its addresses; over all transports. Accounts stand in their network, the /24 or
 * /56 that one customer is given (RFC 6177).
 *
 * No account limits anybody while nothing is short. When places to wait are, only what has waited
 * for long gives way, and of that the largest holder's (FAULTS K5). Behind NAT, dnsmasq or Docker's
 * proxy one address is a whole fleet: its good questions wait for milliseconds and are never what
 * gives way. Those cost an account nothing, either: they are not in it.
 *
 * Thread: one worker.   Owner: struct resolver. */
#ifndef QUERY_CLIENTS_H
#define QUERY_CLIENTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/address.h"
#include "base/deadline.h"
#include "base/list.h"
#include "base/status.h"
#include "config/config.h"
#include "dns/message.h"

struct clients;
struct account; /* of a client with connections, or with queries that have waited for long */

/* A good question is answered within it, whatever the way to the authority. */
#define YOUNG_NS (200 * NANOSECONDS_PER_MILLISECOND)

/* Of one query among those that wait. */
struct place {
    struct list link;        /* in its account, in order of age */
    struct account *account; /* NULL: it has not waited for long */
    uint16_t suffix;         /* in which bucket of parent suffixes, if it has */
    uint16_t counted;        /* in which bucket of the datagrams; PLACE_UNCOUNTED: none */
};

/* Of one connection: what it has of its account. */
struct seat {
    struct list link;        /* in its account, in the order of moved_ns */
    struct account *account; /* NULL: it has none any more */
    uint64_t moved_ns;       /* when it fell idle, ceased to be, or a query of it ended */
    uint64_t asked_ns;       /* when one last began to wait */
    size_t charge;           /* bytes, of clients_charge */
    bool is_idle;            /* nothing of it waits */
};

enum { PLACE_BITS = 12, PLACE_BUCKETS = 1 << PLACE_BITS, PLACE_UNCOUNTED = PLACE_BUCKETS };

/* For limits.queries that wait and limits.tcp-clients. `config` outlives the clients. */
enum status clients_open(const struct config *config, struct clients **out);
void clients_close(struct clients *clients); /* safe on NULL; all must have left */

/* From here on these are the limits; who has more already keeps it. */
void clients_reload(struct clients *clients, const struct snapshot *snapshot);

/* The most bytes that the accounts can ever occupy. */
size_t clients_ceiling(const struct clients *clients);

/* One more connection from that address (FAULTS B9), idle. False beyond limits.tcp-accept-rate and
 * limits.tcp-clients-per-address. When limits.tcp-clients are open, it is false or another gives
 * way, `*gives_way`, which the caller closes (NULL: none need): of the network that has most, in it
 * of the client that has, that which has been idle for longest; without such the one on which
 * nothing has moved for so long that a good question would have been answered, if possible one that
 * was asked nothing since. None gives way to who would then have more than it is left with. */
bool clients_connect(struct clients *clients, struct seat *seat, const struct address *address,
                     uint64_t now, struct seat **gives_way);
void clients_disconnect(struct clients *clients, struct seat *seat); /* harmless a second time */

/* Something has moved on the connection, which is idle or is not. */
void clients_move(struct seat *seat, bool is_idle, uint64_t now);

/* A query of the connection begins to wait, and has ended. */
void clients_begin_stream_query(struct seat *seat, uint64_t now);
void clients_end_stream_query(struct seat *seat);

/* The connection is answerable for so many bytes of output, in place of those before. */
void clients_charge(struct clients *clients, struct seat *seat, size_t bytes);

/* That which is for most, of the client that is, of the network that is (FAULTS K6). NULL: none is
 * for any. */
struct seat *clients_most_charged(struct clients *clients);

/* True when its streams are not read for now: the last eighth of limits.queries, of which
 * `waiting_count` wait, is not for a client that has an eighth of them in its streams. Else one
 * that asks for thousands at once would leave nobody a place until its own have waited for long. */
bool clients_holds_back(struct clients *clients, const struct address *address,
                        size_t waiting_count);

/* False for one datagram too many to its network, by limits.udp-rate (FAULTS A17). */
bool clients_may_reply(struct clients *clients, const struct address *address, uint64_t now);

/* A query is to wait, beside `waiting_count` others. False for one datagram too many, by
 * limits.udp-queries-per-address (FAULTS I5); else the place is left by clients_leave. */
bool clients_enter(struct clients *clients, struct place *place, const struct address *address,
                   bool is_datagram, size_t waiting_count);
void clients_leave(struct clients *clients, struct place *place);

/* The query of this place, which asks `question`, has waited for so long that it gives way when
 * others want for a place. They are told in order of age. */
void clients_hold(struct clients *clients, struct place *place, const struct address *address,
                  const struct question *question);

/* Whether any has. */
bool clients_has_held(const struct clients *clients);

/* The one that gives way to a query from that address: of the network that holds most places for
 * long, in it of the client that does, of its queries for the parent suffix that does, the oldest.
 * NULL when there is none, and for a stream whose client holds as many: it is not read meanwhile,
 * where a datagram would be lost. Else two that ask for all they can get would have each other's
 * places by turns, and none be held for long enough to give way to anybody else. */
struct place *clients_choose(struct clients *clients, const struct address *address,
                             bool is_datagram);

/* A number of the client's own, not 0: its address, or the /64 of IPv6. */
uint64_t clients_identify(const struct address *address);

#endif
