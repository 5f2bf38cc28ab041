// SPDX-License-Identifier: Apache-2.0
/* What group.c, upstream.c and connection.c share; nobody else includes it.
 *
 * Ownership: the group holds its upstreams, an upstream its connections, a connection its slots. A
 * request in flight sits in exactly one slot. A connection frees itself when its stream has closed,
 * after every request it carried was handed back. Thread: one worker. */
#ifndef UPSTREAM_INTERNAL_H
#define UPSTREAM_INTERNAL_H

#include "base/siphash.h"
#include "net/stream.h"
#include "observe/log.h"
#include "upstream/upstream.h"

/* CONNECTING -> HANDSHAKING -> READY -> DRAINING -> CLOSED, each may go to CLOSED. */
enum connection_state {
    CONNECTION_CONNECTING,
    CONNECTION_HANDSHAKING,
    CONNECTION_READY,
    CONNECTION_DRAINING, /* takes no new requests, closes when those in flight are done */
    CONNECTION_CLOSED,
};

/* One ID of a connection. The ID on the wire is (generation, index) under a mask; the generation
 * goes up with each use, so a late or repeated answer finds its slot but not its generation. */
struct slot {
    struct request *request; /* NULL: free, or abandoned */
    uint16_t generation;
    uint16_t next_free;
    bool abandoned; /* its request gave up; reserved until its answer or the connection's end */
};

struct connection {
    struct stream stream;
    struct upstream *upstream;
    struct list link;         /* in upstream->connections */
    struct deadline deadline; /* connect, handshake or idle, as the state says */
    enum connection_state state;
    uint16_t slot_bits;
    uint16_t id_mask;
    uint16_t first_free; /* the free slots, longest unused first; slot_count: none */
    uint16_t last_free;
    uint32_t in_flight;
    uint32_t abandoned;
    uint32_t unmatched;       /* messages that answered nothing, since the last good one */
    uint64_t answers;         /* ever */
    uint64_t last_message_ns; /* of the last message, or when it became READY */
    struct slot slots[];      /* group->slot_count */
};

struct upstream {
    struct group *group;
    const struct upstream_config *config;
    struct upstream_metrics *metrics;
    struct tls_client *tls;
    size_t index;
    struct list connections; /* all that are not CLOSED */
    struct deadline_queue idle;
    uint32_t in_flight;
    /* Health; the head of upstream.c tells the rules. */
    bool down;
    uint32_t failures;     /* in a row, since the last answer */
    uint64_t retry_ns;     /* while down: not before */
    uint64_t attempted_ns; /* of the last connect */
    enum failure last_failure;
    uint64_t rtt_ns; /* smoothed; 0: never measured */
    struct log_limit log_limit;
};

struct group {
    const struct config *config;
    struct loop *loop;
    struct deadline_queue connect;
    struct deadline_queue handshake;
    struct deadline_queue late;
    struct loop_task recovered;  /* an upstream that was down is back */
    struct siphash_key hash_key; /* strategy hash: the same in every worker and process */
    uint64_t random_state;
    size_t slot_count; /* of each connection: limits.upstream_requests */
    struct answer_scratch scratch;
    size_t upstream_count;
    struct upstream upstreams[];
};

/* A number below `bound` (> 0), for choices that no attacker gains by guessing. */
uint64_t group_random(struct group *group, uint64_t bound);

/* A connection of an upstream that was down is open: what still waits for the handshakes of others
 * that are down is asked here as well. */
void group_recovered(struct group *group);

/* upstream.c */
enum status upstream_open(struct upstream *upstream, struct group *group, size_t index,
                          const struct group_settings *settings);
void upstream_close(struct upstream *upstream);

/* Puts the request on a connection, opening one if that is needed and allowed. STATUS_FULL or
 * STATUS_CLOSED with the cause in `*failure` when it cannot. */
enum status upstream_submit(struct upstream *upstream, struct request *request,
                            enum failure *failure);

/* True when a connection is there or on its way that could take a request. */
bool upstream_has_connection(const struct upstream *upstream);

/* True when a request would be sent without waiting for a handshake. */
bool upstream_is_ready(const struct upstream *upstream);

/* Opens a connection without a request, to learn whether an upstream that is down has come back. */
void upstream_try_again(struct upstream *upstream);

/* Makes the requests that wait for a handshake late at once. */
void upstream_hasten(struct upstream *upstream);

/* Reports from connections. `detail` is in words, "" for none. */
void upstream_failed(struct upstream *upstream, enum failure failure, const char *detail);
void upstream_connected(struct upstream *upstream);
void upstream_answered(struct upstream *upstream, uint64_t rtt_ns);

/* The upstream has told how long it keeps idle connections (RFC 7828). */
void upstream_set_idle(struct upstream *upstream, uint64_t duration_ns);

/* connection.c */
enum status connection_open(struct upstream *upstream, enum failure *failure);

/* False for one that drains, or whose stream has closed and is about to be reaped. */
bool connection_takes_requests(const struct connection *connection);

/* True when `connection_submit` would find a slot. */
bool connection_has_room(const struct connection *connection);

/* STATUS_FULL when the stream takes no more bytes. */
enum status connection_submit(struct connection *connection, struct request *request);

/* Leaves the request's ID reserved (FAULTS F10). */
void connection_abandon(struct connection *connection, struct request *request);

/* Makes its requests late at once if it still waits for the handshake. */
void connection_hasten(struct connection *connection);

/* Fails what is in flight and frees, without waiting for the loop. */
void connection_destroy(struct connection *connection);

/* Handlers of the group's deadline queues. */
void connection_on_deadline(struct deadline *deadline, uint64_t now);
void connection_on_late(struct deadline *deadline, uint64_t now);

#endif
