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
#include "upstream/blame.h"
#include "upstream/random.h"
#include "upstream/request.h"
#include "upstream/slots.h"
#include "upstream/times.h"
#include "upstream/upstream.h"
#include "upstream/waiting.h"

struct dial;
struct name;

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

struct connection {
    struct stream stream;
    struct upstream *upstream;
    struct dial *dial;        /* NULL: the upstream's address is configured */
    struct address peer;      /* family AF_UNSPEC until one of several addresses has connected */
    struct list link;         /* in upstream->connections, or ->lanes */
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
    uint64_t probe_sent_ns;
    uint64_t answered_sent_ns; /* when that was sent which was sent last of what is answered */
    uint64_t last_message_ns;  /* of the last message, or when it became READY */
    uint64_t silent_since_ns;  /* since then what it was asked is late and unanswered; 0: it is not
                                  silent */
    struct slots slots;
};

/* The question to an upstream that only this daemon would answer as it does; self_check.c. */
struct self_check {
    struct question question;
    struct attempts attempts;
    struct request request;
    struct deadline deadline;
    struct address peer; /* whom it asks, or has asked */
    bool is_done;        /* since the upstream was last down */
    unsigned unanswered; /* connections in a row that ended instead */
};

/* Of a connection that had requests. */
struct end {
    uint64_t time_ns;
    uint32_t left; /* open ones to the same upstream */
};

enum { ENDS_KEPT = 32 };
#define TOGETHER_NS (10 * NANOSECONDS_PER_MILLISECOND) /* before or after: at one time */

struct upstream {
    struct group *group;
    const struct upstream_config *config;
    struct upstream_metrics *metrics;
    struct tls_client *tls;
    size_t index;
    struct name *name; /* NULL: its address is configured */
    struct self_check self_check;
    struct list connections; /* all that are not CLOSED, but the lanes */
    struct list lanes;
    struct deadline_queue idle;
    struct deadline_queue late; /* of requests; its duration follows the measured times */
    uint32_t in_flight;
    /* Health; the head of upstream.c tells the rules. */
    bool down;
    bool is_missed; /* it went down and has not answered since */
    bool
        is_doubted; /* its connections end or are silent, and nothing else is heard: it is probed */
    bool has_answered_well;
    uint32_t errors;          /* since its last good answer */
    uint64_t erred_ns;        /* the last */
    uint32_t contradicted;    /* errors that others knew better, since its last good answer */
    uint64_t contradicted_ns; /* the last */
    uint16_t spares;          /* that it may have until calm_ns */
    uint32_t ends;            /* of connections with requests, since the last answer */
    uint64_t calm_ns;
    uint16_t crowded;  /* queries that found no room, since a connection was allowed for them */
    uint32_t admitted; /* connections, not more, until then; 0: nothing is known */
    uint64_t admitted_until_ns;
    uint64_t answered_sent_ns; /* when that was sent which was sent last of what it has answered */
    struct end ended[ENDS_KEPT]; /* the last */
    size_t ended_count;
    uint64_t answered_ns; /* when it last answered anything */
    bool has_route;
    uint32_t failures;     /* in a row, since the last answer */
    uint64_t failed_ns;    /* when the last one came */
    uint64_t retry_ns;     /* while down: not before */
    uint64_t attempted_ns; /* of the last connect */
    enum failure last_failure;
    struct times times;
    uint64_t last_answers;      /* on the last connection that ended */
    struct address routed;      /* its address that has_route and source are about */
    struct address source;      /* ours, with a route */
    struct log_limit log_limit; /* of its failures */
    struct log_limit recovered_limit;
};

enum {
    HEDGE_COST = 20,   /* a request earns a twentieth of a hedge: at most 5 % more */
    HEDGE_START = 16,  /* before anything is earned */
    HEDGE_BURST = 256, /* saved up, for what is in flight in the first moments of a silence:
                          at 10,000 queries a second a hundred in 10 ms */
};

enum { LANES_MAX = 64 }; /* of all upstreams */

struct group {
    const struct config *config;
    struct loop *loop;
    struct deadline_queue connect;
    struct deadline_queue handshake;
    struct deadline_queue overdue; /* of requests that have been late once */
    struct deadline_queue silence; /* of connections that are silent */
    struct deadline_queue spare_idle;
    struct deadline_queue lane_idle;
    struct waiting waiting;
    struct deadline_queue self_checks;
    struct deadline_queue name_queries; /* one of the two questions for a name */
    struct deadline_queue name_settles; /* from the first addresses to those of the other family */
    struct deadline_queue bootstrap_tries;
    const struct siphash_key *self_key;
    struct loop_task recovered; /* an upstream that was down is back */
    struct loop_task care;      /* sees to it that two upstreams are ready */
    uint64_t next_confined_ns;  /* when a lane may be opened for those that are known to be bad */
    struct blame_table blames;
    size_t lane_count;
    uint64_t useless_until_ns; /* some upstream is chosen last */
    uint64_t away_since_ns;    /* all of them; 0: one is usable */
    uint64_t traffic_until_ns; /* a request came not long before */
    uint64_t next_connect_ns;  /* the bucket of connects is full again */
    uint32_t hedge_credit;     /* in shares of one hedge, HEDGE_COST each */
    struct metrics *metrics;
    struct siphash_key hash_key; /* strategy hash: the same in every worker and process */
    struct random random;
    size_t slot_count; /* of a main connection: limits.upstream_requests, and one for our probe */
    struct answer_scratch scratch;
    size_t upstream_count;
    struct upstream upstreams[];
};

/* A request came: for a while there may be more, and what is down is tried again. */
void group_note_traffic(struct group *group);

/* Waits for an upstream, all of which are away but those with the bits `excluded`. False when they
 * have been for longer than timeouts.park, or fail for what no waiting mends. Resumed once, with
 * whatever there is then. */
bool group_park(struct group *group, uint32_t excluded, struct waiter *waiter);

/* Whether most connections of the upstream ended at that time. */
bool group_ended_together(const struct group *group, size_t index, uint64_t time_ns);

/* Whether the upstream has answered anything since then. */
bool group_has_heard(const struct group *group, size_t index, uint64_t time_ns);

/* Whether the upstream could not be reached since then. */

bool group_has_failed(const struct group *group, size_t index, uint64_t time_ns);

/* Whether the upstream has answered something that was asked after `time_ns`. If not it is asked
 * something of our own, and it is sent nothing else until it has answered. */
bool group_vouches(struct group *group, size_t index, uint64_t time_ns);

/* True when one more connection may be opened now; takes it out of the bucket. */
bool group_may_connect(struct group *group);

/* An upstream has failed while none is usable. */
void group_trial_failed(struct group *group, enum failure failure);

/* A connection has ended, or may be opened now: while there is traffic that is done before it is
 * needed. */
void group_care(struct group *group);

/* A connection is open of an upstream that was down, or silent: what waits for other handshakes, or
 * on silent connections, is asked here as well. */
void group_recovered(struct group *group);

/* upstream.c */
enum status upstream_open(struct upstream *upstream, struct group *group, size_t index,
                          const struct group_settings *settings);
void upstream_close(struct upstream *upstream);

/* Puts the request on a connection, opening one if that is needed and allowed. STATUS_AGAIN when it
 * had better wait for one, STATUS_FULL or STATUS_CLOSED with the cause in `*failure` when it cannot
 * at all. */
enum status upstream_submit(struct upstream *upstream, struct request *request,
                            enum failure *failure);

/* True when none of its connections has ended of late with requests on it. */
bool upstream_is_calm(const struct upstream *upstream);

/* True when a connection is there or on its way that could take a request. */
bool upstream_has_connection(const struct upstream *upstream);

/* True when a request would be sent without waiting for a handshake, on a connection that is
 * not silent. */
bool upstream_is_ready(const struct upstream *upstream);

/* True when one of its connections is heard, whether or not it has room: full is not down. */
bool upstream_is_heard(const struct upstream *upstream);

/* True when so many requests are in flight that none should be added without need. */
bool upstream_is_busy(const struct upstream *upstream);

/* How many connections may be on their way to it at a time: for all questions, or twice as many
 * lanes; and how many lanes it may have. */
size_t upstream_opening_max(const struct upstream *upstream);
size_t upstream_lanes_max(const struct upstream *upstream);

/* True when new questions are better kept waiting than put on the connections that there are: in
 * trouble, and more are to come. */
bool upstream_is_crowded(const struct upstream *upstream);

/* True when queries may be sent there: it is up, and there is no reason to ask whether it answers.
 */
static inline bool upstream_is_usable(const struct upstream *upstream)
{
    return !upstream->down && !upstream->is_doubted;
}

/* The most bytes that the spare connections of all upstreams occupy. */
size_t upstream_spares_ceiling(void);

/* The first addresses of its name are known, with the best of them: until then it counts as down,
 * so that others are asked if they can be. */
void upstream_resolved(struct upstream *upstream, const struct address *address);

/* Opens a connection without a request, whatever the limits. Nobody waits for it, so a failure is
 * told by the upstream's health alone. */
void upstream_open_ahead(struct upstream *upstream);

/* Opens a connection, which is then the last of its list. STATUS_FULL when there may be none now.
 */
enum status upstream_open_connection(struct upstream *upstream, enum connection_use use,
                                     enum failure *failure);

/* Opens a connection without a request if none takes requests, so that it is ready before one
 * comes. */
void upstream_warm(struct upstream *upstream);

/* Opens one beside those that are silent, unless one is on its way. */
void upstream_open_second(struct upstream *upstream);

/* The same for one that is down, to learn whether it has come back, with up to `connections_max` on
 * their way at a time. */
void upstream_try_again(struct upstream *upstream, size_t connections_max);

/* Makes the requests that wait for a handshake, or on a silent connection, late at once. */
void upstream_hasten(struct upstream *upstream);

/* Reports from connections. `detail` is in words, "" for none. */
void upstream_failed(struct upstream *upstream, enum failure failure, const char *detail);
void upstream_opened(struct upstream *upstream);
void upstream_connected(struct upstream *upstream); /* it may be asked again */
void upstream_is_back(struct upstream *upstream);   /* it has answered something */
void upstream_answered(struct upstream *upstream);  /* anything, to something we asked */

/* A good answer has come, so long after it was asked for. */
void upstream_measure(struct upstream *upstream, uint64_t took_ns);

/* It has answered something, be it our probe, that was sent then: it is there. */
void upstream_heard(struct upstream *upstream, uint64_t sent_ns);

/* A connection has ended with requests on it, or is silent: for a while they are spread over more
 * connections. */
void upstream_spread(struct upstream *upstream);

/* It has refused one more connection while it answered on others. */
void upstream_learn_admitted(struct upstream *upstream);

/* One has ended with requests on it, which since then were silent; 0: not for its silence. */
void upstream_ended(struct upstream *upstream, enum failure failure, bool is_lane,
                    uint64_t silent_since_ns);

/* It may be that it answers nobody any more: nothing is sent there until it has answered a probe.
 */
void upstream_doubt(struct upstream *upstream, enum failure failure);

/* The upstream has told how long it keeps idle connections (RFC 7828). */
void upstream_set_idle(struct upstream *upstream, uint64_t duration_ns);

/* Looks up our address towards it; true when that is another than before. */
bool upstream_look_up_route(struct upstream *upstream);

/* From now on `address` is the one of its addresses that counts for that. */
void upstream_route_to(struct upstream *upstream, const struct address *address);

/* Drops all connections, which is no failure of the upstream, and forgets its back-off. */
void upstream_start_over(struct upstream *upstream);

/* How many lanes the upstream has. */
size_t lanes_count(const struct upstream *upstream);

/* connection.c */
/* False while it can take one more question, once it has answered those that it has. */
bool lane_is_used_up(const struct connection *lane);

/* Forgets the request; on_done is not called. Its ID stays reserved until the answer or the end of
 * the connection (FAULTS F10). Harmless when it is not in flight. */
void request_cancel(struct request *request);

enum status connection_open(struct upstream *upstream, enum connection_use use,
                            enum failure *failure);

/* The most bytes that one with so many slots occupies, but for the requests. */
size_t connection_ceiling(size_t slot_count);

/* The questions that are unanswered on it, other than our probe, whether or not anybody waits. */
uint32_t connection_aboard(const struct connection *connection);

/* False for one that drains, or whose stream has closed and is about to be reaped. */
bool connection_takes_requests(const struct connection *connection);

/* True when `connection_submit` would find a slot, other than the one that is kept for our own
 * probe: a full connection is not a silent one. */
bool connection_has_room(const struct connection *connection);

/* STATUS_FULL when the stream takes no more bytes. */
enum status connection_submit(struct connection *connection, struct request *request);

/* Takes no more requests, and closes when those in flight are done. */
void connection_drain(struct connection *connection);

/* The time of a connect begins. */
void connection_arm_connect(struct connection *connection);

/* Asks the upstream something of our own, unless that was done already, to hear whether it is
 * there. */
void connection_probe(struct connection *connection);

/* Asks it that, and nothing else before the answer. False unless it is open with nothing unanswered
 * on it. */
bool connection_try(struct connection *connection);

/* Makes its requests late at once if it still waits for the handshake, or is silent. */
void connection_hasten(struct connection *connection);

/* Fails what is in flight and frees, without waiting for the loop. */
void connection_destroy(struct connection *connection);

/* dial.c: connecting to an upstream that is a host name. */

/* For the connection, whose stream is prepared. On failure nothing is left of it. */
enum status dial_begin(struct connection *connection, enum failure *failure);

/* Safe when there is none. */
void dial_end(struct connection *connection);

/* self_check.c */
void self_check_init(struct upstream *upstream);

/* Asks over a new connection whether the upstream is this daemon, unless that is known. True while
 * nothing is known yet of an upstream that was found to be it before: then it stays down. */
bool self_check_begin(struct connection *connection);

/* The upstream is down for this cause, and not to be tried before its time. */
bool upstream_is_self(const struct upstream *upstream);

/* Handlers of the group's deadline queues. */
void self_check_on_deadline(struct deadline *deadline, uint64_t now);
void connection_on_deadline(struct deadline *deadline, uint64_t now);
void connection_on_late(struct deadline *deadline, uint64_t now);
void connection_on_silence(struct deadline *deadline, uint64_t now);

#endif
