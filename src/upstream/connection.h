// SPDX-License-Identifier: Apache-2.0
/* One pipelined DNS-over-TLS connection to one upstream: see connection.c.
 *
 * Owner: its path's upstream, which gives it a list. It frees itself when its stream has closed,
 * after every request that it carried was handed back. */
#ifndef UPSTREAM_CONNECTION_H
#define UPSTREAM_CONNECTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/address.h"
#include "base/deadline.h"
#include "base/list.h"
#include "base/status.h"
#include "net/stream.h"
#include "upstream/path.h"
#include "upstream/request.h"
#include "upstream/slots.h"

struct dial;

enum { SLOTS_LANE = 8 };

/* CONNECTING -> HANDSHAKING -> READY -> DRAINING -> CLOSED, each may go to CLOSED. */
enum connection_state {
    CONNECTION_CONNECTING,
    CONNECTION_HANDSHAKING,
    CONNECTION_READY,
    CONNECTION_DRAINING, /* takes no new requests, closes when those in flight are done */
    CONNECTION_CLOSED,
};

/* What a connection is for. */
enum connection_use {
    CONNECTION_MAIN,  /* all questions; in calm there is one */
    CONNECTION_SPARE, /* the same in trouble: a close hits the fewer the more there are */
    CONNECTION_LANE,  /* one question at a time, which may be why another connection has ended */
    CONNECTION_USES
};

struct connection_events {
    /* It is READY. */
    void (*on_open)(struct connection *connection);
    /* It is CLOSED, was in state `was` until then, and is in no list any more. Its requests fail
     * next, and then it is freed. */
    void (*on_closed)(struct connection *connection, enum connection_state was,
                      enum failure failure);
};

struct connection_queues {
    struct deadline_queue connect;
    struct deadline_queue handshake;
    struct deadline_queue overdue; /* of requests that have been late once */
    struct deadline_queue silence; /* of connections that are silent */
    struct deadline_queue spare_idle;
    struct deadline_queue lane_idle;
};

struct connection {
    struct stream stream;
    struct path *path;
    struct dial *dial;        /* NULL: the upstream's address is configured */
    struct address peer;      /* family AF_UNSPEC until one of several addresses has connected */
    struct list link;         /* in a list of its owner */
    struct deadline deadline; /* connect, handshake, silence or idle, as the state says */
    enum connection_state state;
    enum connection_use use;
    bool is_pardoned;    /* our probe has lifted the suspicion, and no answer has come since */
    bool is_confined;    /* a lane for those that are known to be bad */
    bool is_checked;     /* a request of our own is in flight on it */
    uint16_t probe_slot; /* of our own question whether anybody is there; slots.count: none */
    uint16_t check_slot; /* of one whether it is this daemon, which took too long; as above */
    uint32_t in_flight;
    uint32_t abandoned;
    uint32_t unmatched; /* messages that answered nothing, since the last good one */
    uint64_t requests;  /* ever submitted */
    uint64_t answers;   /* ever */
    uint64_t begun_ns;  /* when it was opened */
    size_t ticket;      /* of admission.c */
    uint64_t probe_sent_ns;
    uint64_t answered_sent_ns; /* when that was sent which was sent last of what is answered */
    uint64_t last_message_ns;  /* of the last message, or when it became READY */
    uint64_t silent_since_ns;  /* since then what it was asked is late and unanswered; 0: it is not
                                  silent */
    struct slots slots;
};

/* Connects to `peer`; with NULL the caller finds one, starts the stream, and calls
 * connection_arm_connect. */
enum status connection_open(struct path *path, enum connection_use use, const struct address *peer,
                            struct connection **out, enum failure *failure);

/* Fails nothing, since nothing may be in flight, and frees, without waiting for the loop. */
void connection_destroy(struct connection *connection);

/* The time of a connect begins. */
void connection_arm_connect(struct connection *connection);

/* The slots of a main connection: limits.upstream_requests, and one for our probe. */
size_t connection_slot_count(const struct config *config);

/* The most bytes that one with so many slots occupies, but for the requests. */
size_t connection_ceiling(size_t slot_count);

/* False while the lane can take one more question, once it has answered those that it has. */
bool connection_is_used_up(const struct connection *lane);

/* The questions that are unanswered on it, other than our probe, whether or not anybody waits. */
uint32_t connection_aboard(const struct connection *connection);

/* Those in flight that somebody waits for. */
uint32_t connection_requests(const struct connection *connection);

/* Our probe waits for its answer. */
bool connection_is_probed(const struct connection *connection);

/* False for one that drains, or whose stream has closed and is about to be reaped. */
bool connection_takes_requests(const struct connection *connection);

/* True when `connection_submit` would find a slot, other than the one that is kept for our own
 * probe: a full connection is not a silent one. */
bool connection_has_room(const struct connection *connection);

/* STATUS_FULL when the stream takes no more bytes. */
enum status connection_submit(struct connection *connection, struct request *request);

/* Forgets the request; on_done is not called. Its ID stays reserved until the answer or the end of
 * the connection (FAULTS F10). Harmless when it is not in flight. */
void request_cancel(struct request *request);

/* Takes no more requests, and closes when those in flight are done. */
void connection_drain(struct connection *connection);

/* Asks the upstream something of our own, unless that was done already, to hear whether it is
 * there. */
void connection_probe(struct connection *connection);

/* Asks it that, and nothing else before the answer. False unless it is open with nothing unanswered
 * on it. */
bool connection_try(struct connection *connection);

/* It is silent since then, and looked at from now on. */
void connection_fall_silent(struct connection *connection, uint64_t since_ns);

/* Makes its requests late at once if it still waits for the handshake, or is silent. */
void connection_hasten(struct connection *connection);

/* Handler of deadline queues: of connects, handshakes and idle connections. */
void connection_on_deadline(struct deadline *deadline, uint64_t now);

#endif
