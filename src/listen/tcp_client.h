// SPDX-License-Identifier: Apache-2.0
/* Private to listen/: one TCP client, and what all clients of a worker share. tcp.c lets clients
 * in and holds the limits, tcp_client.c talks with one.
 *
 * Thread: one worker. Owner: a client belongs to its struct tcp_clients from tcp_client_open until
 * its stream has closed. */
#ifndef LISTEN_TCP_CLIENT_H
#define LISTEN_TCP_CLIENT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/address.h"
#include "base/deadline.h"
#include "base/list.h"
#include "base/pool.h"
#include "base/status.h"
#include "net/stream.h"
#include "observe/log.h"
#include "query/resolve.h"

struct tcp_clients {
    struct resolver *resolver;
    struct pool pool;        /* of struct tcp_client */
    struct list listeners;   /* those not stopped */
    struct list open;        /* every client */
    struct loop_task relief; /* closes clients when memory is short */
    uint64_t next_relief_ns;
    struct log_limit relief_limit;
    struct list starved;                /* clients with a message and no query to be had for it */
    struct starved room;                /* waits for the resolver while `starved` is not empty */
    struct deadline_queue idle;         /* tcp_client.idle: timeouts.tcp_idle */
    struct deadline_queue message;      /* tcp_client.message: timeouts.tcp_message */
    struct deadline_queue send;         /* tcp_client.send: timeouts.tcp_send */
    struct deadline_queue lifetime;     /* tcp_client.lifetime: limits.tcp_lifetime */
    struct deadline_queue accept_again; /* tcp_listener.accept_again */
    uint64_t next_log_ns;               /* of failing accepts */
    bool draining;
};

struct tcp_client {
    struct stream stream;
    struct tcp_clients *clients;
    struct seat seat;
    struct address address;
    struct list link;        /* tcp_clients.open */
    struct list starved;     /* tcp_clients.starved */
    struct list queries;     /* query.sibling: in flight */
    struct deadline idle;    /* armed: nothing of it is in our hands */
    struct deadline message; /* armed: the rest of one is to come */
    struct deadline send;
    struct deadline lifetime;
    struct loop_task take; /* goes on taking messages in the next turn */
    uint64_t last_byte;    /* of the stream: when it is read nothing more is; UINT64_MAX: none is */
    uint32_t in_flight;
    uint32_t asked;   /* ever */
    uint32_t reads;   /* since the last whole message */
    bool is_overdue;  /* its idle time ended while the rest of a message was to come */
    bool is_at_limit; /* limits.tcp_queries in flight, not yet clearly less again */
    bool is_ending;   /* takes no more messages; closes after its last reply */
};

/* Clients hold so much that some may have to go; see tcp.c. */
bool tcp_clients_are_short(const struct tcp_clients *clients);

/* Begins to serve an accepted socket, if need be in place of another client. STATUS_FULL beyond the
 * limits. On failure the descriptor stays the caller's. */
enum status tcp_client_open(struct tcp_clients *clients, int fd, const struct address *address);

/* Closes it for the sake of others. */
void tcp_client_evict(struct tcp_client *client);

/* Takes no more messages; closes after the last reply. */
void tcp_client_end(struct tcp_client *client);

/* The same, but takes what it has sent so far. */
void tcp_client_drain(struct tcp_client *client);

/* Drops its queries and frees everything, at once. */
void tcp_client_free(struct tcp_client *client);

/* Callbacks of the deadline queues, and of tcp_clients.room. */
void tcp_client_on_idle(struct deadline *deadline, uint64_t now);
void tcp_client_on_message_timeout(struct deadline *deadline, uint64_t now);
void tcp_client_on_send_timeout(struct deadline *deadline, uint64_t now);
void tcp_client_on_lifetime(struct deadline *deadline, uint64_t now);
void tcp_client_on_space(struct starved *room);

#endif
