// SPDX-License-Identifier: Apache-2.0
/* What the files of upstream/ share; nobody else includes it.
 *
 * Ownership: the group holds its upstreams, an upstream its connections, a connection its slots. A
 * request in flight sits in exactly one slot. A connection frees itself when its stream has closed,
 * after every request it carried was handed back. Thread: one worker. */
#ifndef UPSTREAM_INTERNAL_H
#define UPSTREAM_INTERNAL_H

#include "base/siphash.h"
#include "net/socket.h"
#include "net/stream.h"
#include "observe/log.h"
#include "upstream/upstream.h"

struct dial;
struct name;

enum { SLOTS_MAX = 16384 }; /* 14 bits of an ID: the others tell the uses of a slot apart */

enum {
    HEDGE_COST = 20,   /* a request earns a twentieth of a hedge: at most 5 % more */
    HEDGE_START = 16,  /* before anything is earned */
    HEDGE_BURST = 256, /* saved up, for what is in flight in the first moments of a stall:
                          at 10,000 queries a second a hundred in 10 ms */
};

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
    /* Not 0: its request gave up, and it is reserved until the answer or the connection's end. Then
     * this is when it was sent, in milliseconds modulo 2^32, for the answer still measures. */
    uint32_t abandoned_ms;
};

struct connection {
    struct stream stream;
    struct upstream *upstream;
    struct dial *dial;        /* NULL: the upstream's address is configured */
    struct address peer;      /* family AF_UNSPEC until one of several addresses has connected */
    struct list link;         /* in upstream->connections */
    struct deadline deadline; /* connect, handshake, silence or idle, as the state says */
    enum connection_state state;
    uint16_t slot_bits;
    uint16_t id_mask;
    uint16_t first_free; /* the free slots, longest unused first; slot_count: none */
    uint16_t last_free;
    uint16_t slots_used; /* ever: those beyond were never touched */
    uint16_t probe_slot; /* of our own question whether anybody is there; slot_count: none */
    uint16_t check_slot; /* of one whether it is this daemon, which took too long; as above */
    uint32_t in_flight;
    uint32_t abandoned;
    uint32_t unmatched;        /* messages that answered nothing, since the last good one */
    uint64_t requests;         /* ever submitted */
    uint64_t answers;          /* ever */
    uint64_t last_message_ns;  /* of the last message, or when it became READY */
    uint64_t suspect_since_ns; /* since when what it was asked is unanswered; 0: trusted */
    struct slot slots[];       /* group->slot_count */
};

/* The question to an upstream that only this daemon would answer as it does; loop_check.c. */
struct loop_check {
    struct question question;
    struct attempts attempts;
    struct request request;
    struct deadline deadline;
    struct address peer; /* whom it asks, or has asked */
    bool is_done;        /* since the upstream was last down */
    unsigned unanswered; /* connections in a row that ended instead */
};

struct upstream {
    struct group *group;
    const struct upstream_config *config;
    struct upstream_metrics *metrics;
    struct tls_client *tls;
    size_t index;
    struct name *name; /* NULL: its address is configured */
    struct loop_check loop_check;
    struct list connections; /* all that are not CLOSED */
    struct deadline_queue idle;
    struct deadline_queue late; /* of requests; its duration follows the measured times */
    uint32_t in_flight;
    /* Health; the head of upstream.c tells the rules. */
    bool down;
    bool is_missed; /* it went down and has not answered since */
    bool has_route;
    uint32_t failures;     /* in a row, since the last answer */
    uint64_t retry_ns;     /* while down: not before */
    uint64_t attempted_ns; /* of the last connect */
    enum failure last_failure;
    uint64_t rtt_ns;        /* smoothed; 0: never measured */
    uint64_t p95_ns;        /* 19 of 20 answers come within this time; 0: never measured */
    uint64_t measured_ns;   /* when both were last measured */
    uint64_t request_limit; /* it closes a connection after that many requests; 0: not known to */
    uint64_t last_answers;  /* on the last connection that ended */
    uint64_t closed_after;  /* how many it had answered when it last closed a busy connection */
    struct address routed;  /* its address that has_route and source are about */
    struct address source;  /* ours, with a route */
    struct log_limit log_limit; /* of its failures */
    struct log_limit recovered_limit;
};

struct group {
    const struct config *config;
    struct loop *loop;
    struct deadline_queue connect;
    struct deadline_queue handshake;
    struct deadline_queue overdue; /* of requests that have been late once */
    struct deadline_queue silence; /* of connections that are suspect */
    struct deadline_queue loop_checks;
    struct deadline_queue name_queries; /* one of the two questions for a name */
    struct deadline_queue name_settles; /* from the first addresses to those of the other family */
    struct deadline_queue bootstrap_tries;
    const struct siphash_key *loop_key;
    struct loop_task recovered; /* an upstream that was down is back */
    struct loop_task care;      /* sees to it that two upstreams are ready */
    uint64_t down_since_ns;     /* all are down; 0: one is up */
    uint64_t traffic_until_ns;  /* a request came not long before */
    uint64_t next_connect_ns;   /* the bucket of connects is full again */
    uint32_t hedge_credit;      /* in shares of one hedge, HEDGE_COST each */
    struct metrics *metrics;
    struct siphash_key hash_key; /* strategy hash: the same in every worker and process */
    uint64_t random_state;
    size_t slot_count; /* of each connection: limits.upstream_requests, and one for our probe */
    struct answer_scratch scratch;
    size_t upstream_count;
    struct upstream upstreams[];
};

/* A number below `bound` (> 0), for choices that no attacker gains by guessing. */
uint64_t group_random(struct group *group, uint64_t bound);

/* A request that is no hedge was sent: it earns a share of one. Called for each. */
static inline void group_earn_hedge(struct group *group)
{
    group->hedge_credit += group->hedge_credit < HEDGE_BURST * HEDGE_COST;
}

/* True when one more connection may be opened now; takes it out of the bucket. */
bool group_may_connect(struct group *group);

/* A connection has ended, or may be opened now: while there is traffic that is done before it is
 * needed. */
void group_care(struct group *group);

/* A connection is open of an upstream that was down or suspect: what waits for other handshakes, or
 * on silent connections, is asked here as well. */
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

/* True when a request would be sent without waiting for a handshake, on a connection that there is
 * no reason to suspect. */
bool upstream_is_ready(const struct upstream *upstream);

/* True when one of its connections is heard, whether or not it has room: full is not down. */
bool upstream_is_heard(const struct upstream *upstream);

/* True when so many requests are in flight that none should be added without need. */
bool upstream_is_busy(const struct upstream *upstream);

/* The same of its other connections: half of the slots that they have, or may have, are left to
 * queries. A query that finds no slot fails at once, where a late one may still be answered. */
bool upstream_is_busy_beside(const struct upstream *upstream, const struct connection *not_on);

/* The first addresses of its name are known, with the best of them: until then it counts as down,
 * so that others are asked if they can be. */
void upstream_resolved(struct upstream *upstream, const struct address *address);

/* Opens a connection without a request, whatever the limits. Nobody waits for it, so a failure is
 * told by the upstream's health alone. */
void upstream_open_ahead(struct upstream *upstream);

/* As upstream_submit, but never on the connection `not_on`. */
enum status upstream_submit_beside(struct upstream *upstream, const struct connection *not_on,
                                   struct request *request, enum failure *failure);

/* Opens a connection without a request if none takes requests, so that it is ready before one
 * comes. */
void upstream_warm(struct upstream *upstream);

/* Opens one beside a connection that is suspect, if there may be two. */
void upstream_open_second(struct upstream *upstream);

/* The same for one that is down, to learn whether it has come back, with up to `connections_max` on
 * their way at a time. */
void upstream_try_again(struct upstream *upstream, size_t connections_max);

/* Makes the requests that wait for a handshake, or on a suspect connection, late at once. */
void upstream_hasten(struct upstream *upstream);

/* For how long a connection with requests may be silent before its path counts as dead. */
uint64_t upstream_dead_ns(const struct upstream *upstream);

/* Reports from connections. `detail` is in words, "" for none. */
void upstream_failed(struct upstream *upstream, enum failure failure, const char *detail);
void upstream_opened(struct upstream *upstream);
void upstream_connected(struct upstream *upstream); /* it may be asked again */
void upstream_is_back(struct upstream *upstream);   /* it has answered something */
void upstream_answered(struct upstream *upstream, uint64_t rtt_ns);

/* The upstream has told how long it keeps idle connections (RFC 7828). */
void upstream_set_idle(struct upstream *upstream, uint64_t duration_ns);

/* A connection that has `requests` behind it will not take many more: another is opened in time. */
void upstream_foresee_close(struct upstream *upstream, uint64_t requests);

/* Looks up our address towards it; true when that is another than before. */
bool upstream_look_up_route(struct upstream *upstream);

/* From now on `address` is the one of its addresses that counts for that. */
void upstream_route_to(struct upstream *upstream, const struct address *address);

/* Drops all connections, which is no failure of the upstream, and forgets its back-off. */
void upstream_start_over(struct upstream *upstream);

/* It has closed a connection that was in use, after so many answers on it. */
void upstream_learn_limit(struct upstream *upstream, uint64_t answers);

/* slots.c */

/* All free; `count` is at most 65,535. */
void slots_init(struct connection *connection, size_t count);

bool slot_is_free(const struct connection *connection);

/* The index of a free slot, of which there must be one, now the request's; NULL for a question of
 * our own, whose slot is abandoned from the first. */
uint16_t slot_take(struct connection *connection, struct request *request);

/* Makes it free and its ID another. */
void slot_give(struct connection *connection, uint16_t index);

/* The ID on the wire. */
uint16_t slot_id(const struct connection *connection, uint16_t index);

/* The slot in use that an ID on the wire means, NULL when it means none. */
struct slot *slot_of_id(struct connection *connection, uint16_t id);

/* connection.c */
enum status connection_open(struct upstream *upstream, enum failure *failure);

/* False for one that drains, or whose stream has closed and is about to be reaped. */
bool connection_takes_requests(const struct connection *connection);

/* True when `connection_submit` would find a slot, other than the one that is kept for our own
 * probe: a full connection is not a silent one. */
bool connection_has_room(const struct connection *connection);

/* True when the upstream, by experience, will close it before it answers one request more. */
bool connection_is_used_up(const struct connection *connection);

/* STATUS_FULL when the stream takes no more bytes. */
enum status connection_submit(struct connection *connection, struct request *request);

/* Takes no more requests, and closes when those in flight are done. */
void connection_drain(struct connection *connection);

/* The time of a connect begins. */
void connection_arm_connect(struct connection *connection);

/* Leaves the request's ID reserved (FAULTS F10). */
void connection_abandon(struct connection *connection, struct request *request);

/* Asks the upstream something of our own, unless that was done already, to hear whether it is
 * there. */
void connection_probe(struct connection *connection);

/* Makes its requests late at once if it still waits for the handshake, or is suspect. */
void connection_hasten(struct connection *connection);

/* Fails what is in flight and frees, without waiting for the loop. */
void connection_destroy(struct connection *connection);

/* dial.c: connecting to an upstream that is a host name. */

/* For the connection, whose stream is prepared. On failure nothing is left of it. */
enum status dial_begin(struct connection *connection, enum failure *failure);

/* Safe when there is none. */
void dial_end(struct connection *connection);

/* loop_check.c */
void loop_check_init(struct upstream *upstream);

/* Asks over a new connection whether the upstream is this daemon, unless that is known. True while
 * nothing is known yet of an upstream that was found to be it before: then it stays down. */
bool loop_check_begin(struct connection *connection);

/* True for the request of the check, which is no query of anybody. */
static inline bool loop_check_owns(const struct upstream *upstream, const struct request *request)
{
    return request == &upstream->loop_check.request;
}

/* The upstream is down for this cause, and not to be tried before its time. */
bool upstream_is_loop(const struct upstream *upstream);

/* Handlers of the group's deadline queues. */
void loop_check_on_deadline(struct deadline *deadline, uint64_t now);
void connection_on_deadline(struct deadline *deadline, uint64_t now);
void connection_on_late(struct deadline *deadline, uint64_t now);
void connection_on_silence(struct deadline *deadline, uint64_t now);

#endif
