// SPDX-License-Identifier: Apache-2.0
/* Asking upstreams: submit a request, get on_done once, or cancel it. All that other layers see.
 *
 * A request is one attempt of a lookup at one upstream. The group chooses the upstream, a
 * connection carries the request among many others, and on_done reports an answer or a failure; it
 * is never called from inside request_submit or request_cancel.
 *
 * Thread: one worker. Owner of a request: the lookup that embeds it, from request_init to on_done
 * or request_cancel. */
#ifndef UPSTREAM_UPSTREAM_H
#define UPSTREAM_UPSTREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/deadline.h"
#include "base/failure.h"
#include "base/list.h"
#include "base/siphash.h"
#include "base/status.h"
#include "config/config.h"
#include "dns/message.h"
#include "net/loop.h"
#include "net/race.h"
#include "net/tls.h"
#include "observe/metrics.h"
#include "upstream/request.h"

struct group; /* all upstreams of one worker */

struct group_settings {
    const struct config *config;
    struct loop *loop;
    struct metrics *metrics;
    const struct tls_trust *const *trusts; /* one for each upstream, NULL when it has pins alone */
    const struct siphash_key *self_key; /* of dns/self_probe.h; NULL: nobody looks for ourselves */
};

enum status group_open(const struct group_settings *settings, struct group **out);

/* Closes every connection at once. No request may be in flight. Safe on NULL. */
void group_close(struct group *group);

/* The most bytes that connections to upstreams can occupy. */
size_t group_ceiling(const struct group *group);

/* The network may have changed: where another way leads to an upstream now, or none, its
 * connections are dropped and what is in flight moves; where nothing has changed, nothing is done.
 */
void group_network_changed(struct group *group);

/* The machine has slept: nobody knows of the connections any more, all are dropped. */
void group_resumed(struct group *group);

enum request_scope {
    REQUEST_ANYWHERE,  /* an upstream not yet asked for this lookup, else one a second time */
    REQUEST_ELSEWHERE, /* only one that was not yet asked */
    REQUEST_CALM,      /* only one of those where no connection has ended of late */
};

/* Asks the best upstream by the strategy, within `scope`. STATUS_FULL when it has to wait for room,
 * STATUS_NOT_FOUND when there is none left
 * to ask, with the cause in `*failure` and the upstream that it is about in request->upstream. */
enum status request_submit(struct group *group, struct request *request, enum request_scope scope,
                           enum failure *failure);

/* Asks with `second` what `late` still waits for: another upstream that is ready to answer, or with
 * none a second connection of the same. A request that was sent is asked twice only within the
 * budget of hedges, at most 5 % of all. Once it has had timeouts.request another is asked without a
 * budget, and with none left the same again, within it. STATUS_NOT_FOUND when there is nobody to
 * ask in its stead, STATUS_FULL when the budget is spent. */
enum status request_hedge(struct group *group, const struct request *late, struct request *second);

enum lane_kind {
    LANE_ANY,
    LANE_FRESH,    /* one that has carried nothing else */
    LANE_CONFINED, /* one of the few for those that are known to be bad */
};

/* Asks it where nothing else is asked: on a lane, at an upstream that is not among the bits
 * `avoided` if there is one. STATUS_FULL when it has to wait for a lane, STATUS_NOT_FOUND when
 * there is nobody to ask. */
enum status request_submit_alone(struct group *group, struct request *request, uint32_t avoided,
                                 enum lane_kind kind);

/* Whether those with the bits `erred` answered a question with an error that may yet be answered
 * better: none of them is known to answer others well, and one that is was not asked. */
bool group_knows_better(const struct group *group, uint32_t erred);

/* Another upstream has answered well what those with the bits `erred` answered with an error. */
void group_contradict(struct group *group, uint32_t erred);

enum line {
    LINE_CROWD,    /* for room on any connection */
    LINE_LANES,    /* for a lane */
    LINE_LOOKS,    /* the same, of those that have ended a connection alone */
    LINE_CONFINED, /* for one of the few; the newest is the first */
    LINES
};

/* One that waits: for a connection, or for an upstream. */
struct waiter {
    struct list link;
    struct deadline again;
    enum line line; /* in which it is, or was last */
    void (*resume)(
        struct waiter *waiter); /* may be its end; in line for a lane it may stay first */
};

/* Waits in line for a connection: behind all others, unless it is in that line already. */
void group_queue(struct group *group, struct waiter *waiter, enum line line);

/* Waits for an upstream, all of which are away. False when they have been for longer than
 * timeouts.park, or fail for what no waiting mends. Resumed once, with whatever there is then. */
bool group_park(struct group *group, struct waiter *waiter);

/* The second lone end counts if it was asked so long after the first: a restart is over by then. */
#define SECOND_LOOK_NS (100 * NANOSECONDS_PER_MILLISECOND)

/* Resumes it after SECOND_LOOK_NS. */
void group_look_again(struct group *group, struct waiter *waiter);

/* Whether several connections of the upstream ended at that time. */
bool group_ended_together(const struct group *group, size_t index, uint64_t time_ns);

/* Whether the upstream could not be reached since then. */
bool group_has_failed(const struct group *group, size_t index, uint64_t time_ns);

/* Whether the upstream has answered something that was asked after `time_ns`. If not it is asked
 * something of our own, and it is sent nothing else until it has answered. */
bool group_vouches(struct group *group, size_t index, uint64_t time_ns);

/* Gives up a request that has had timeouts.request, or that waits for a handshake as the `other`
 * one of its lookup does, and asks an upstream that is ready and was not yet asked for it; when
 * both are lost, within the budget, one that was. STATUS_NOT_FOUND when it is not so late or there
 * is none: then it goes on waiting. On any other failure it is no longer in flight. */
enum status request_move(struct group *group, struct request *lost, const struct request *other);

/* Forgets the request; on_done is not called. Its ID stays reserved until the answer or the end of
 * the connection (FAULTS F10). Harmless when it is not in flight. */
void request_cancel(struct request *request);

/* It has had timeouts.request. */
bool request_is_lost(const struct group *group, const struct request *request);

/* True when no upstream is up: asking would be for nothing but to learn whether one is back. */
bool group_is_down(const struct group *group);

/* --- Asks: ask.c --- */

struct ask;

struct ask_events {
    /* The end: a good answer, or NULL when there is nobody left to ask; then `ask->failure` and
     * `ask->failed_upstream` say why. Nothing is in flight but what ask_cancel takes back. */
    void (*on_done)(struct ask *ask, const struct answer *answer);
    /* An upstream has answered with an error, as `ask->failure` says; others may do better. */
    void (*on_error)(struct ask *ask, const struct answer *answer);
};

enum { REQUESTS_PER_ASK = 2 };

/* One question until an answer or a failure, which on_done tells once, never from inside of
 * ask_begin. What is first in it is touched first. */
struct ask {
    struct group *group;
    const struct ask_events *events;
    struct metrics *metrics;
    struct attempts attempts;
    uint16_t error_answer_count;
    uint8_t lone_ends; /* of connections that carried nothing else; two of them convict */
    bool has_ended;    /* a connection, with it aboard */
    bool is_suspect;   /* of that: it is asked alone */
    bool has_moved;    /* but first where no connection has ended */
    uint32_t erred;    /* bits of the upstreams that answered with an error */
    bool has_waited;   /* for the look that counts */
    bool has_looked;   /* it has been asked since the first of the lone ends */
    struct request requests[REQUESTS_PER_ASK];
    enum failure failure; /* the last one, and who it was about */
    size_t failed_upstream;
    struct waiter waiter;
    uint64_t client;
    uint64_t lone_end_ns;  /* the first */
    uint64_t ended_ns;     /* when a connection last ended with it, */
    size_t ended_upstream; /* and where */
};

/* `question` and `events` outlive the ask. `client` is the account that asks first, 0 for our own.
 */
void ask_init(struct ask *ask, struct group *group, struct metrics *metrics,
              const struct question *question, uint64_t client, const struct ask_events *events);

/* False when nobody can be asked, with the cause in `ask->failure`; on_done is not called. */
bool ask_begin(struct ask *ask);

/* Asks as if it had never been asked; on_done may be called from inside. */
void ask_anew(struct ask *ask);

/* Takes back what is in flight; no event comes any more. */
void ask_cancel(struct ask *ask);

bool ask_is_in_flight(const struct ask *ask);

/* Its owner waits no longer: what is still out is the cause of the failure. */
void ask_note_unanswered(struct ask *ask);

/* The addresses of upstream `index`, best first: the configured one, or those that its name is
 * known to have. 0 with `*failure` when its name was looked up in vain, and with FAILURE_NONE while
 * it still is. */
size_t group_upstream_addresses(const struct group *group, size_t index,
                                struct address out[static RACE_ADDRESSES_MAX],
                                enum failure *failure);

/* The label of upstream `index`, for logs and EDE. */
const char *group_upstream_label(const struct group *group, size_t index);

#endif
