// SPDX-License-Identifier: Apache-2.0
/* Asking: one question until an answer, a failure or its owner's deadline. See ask.c. */
#ifndef UPSTREAM_ASK_H
#define UPSTREAM_ASK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/failure.h"
#include "dns/message.h"
#include "upstream/request.h"
#include "upstream/waiting.h"

struct ask;
struct group;

struct ask_events {
    /* The end: a good answer, or NULL when there is nobody left to ask; then `ask->failure` and
     * `ask->failed_upstream` say why. Nothing is in flight but what ask_cancel takes back. */
    void (*on_done)(struct ask *ask, const struct answer *answer);
    /* An upstream has answered with an error, as `ask->failure` says; others may do better. */
    void (*on_error)(struct ask *ask, const struct answer *answer);
};

enum { REQUESTS_PER_ASK = 2 };

/* One question until an answer or a failure, which on_done tells once, never from inside of
 * ask_begin. What every ask touches stands together, in few cache lines. */
struct ask {
    struct group *group;
    const struct ask_events *events;
    uint64_t client;
    struct waiter waiter;
    struct attempts attempts;
    uint16_t error_answer_count;
    uint8_t lone_ends;    /* of connections that carried nothing else; two of them convict */
    bool has_ended;       /* a connection, with it aboard */
    bool is_suspect;      /* of that: it is asked alone */
    bool has_moved;       /* but first where no connection has ended */
    bool has_looked;      /* it has been asked since the first of the lone ends */
    enum failure failure; /* the last one, and who it was about */
    struct request requests[REQUESTS_PER_ASK];
    size_t failed_upstream;
    uint64_t lone_end_ns;   /* the first */
    uint64_t ended_ns;      /* when a connection last ended with it, */
    size_t ended_upstream;  /* and where */
    uint64_t ended_sent_ns; /* and when it was asked there */
};

/* True when all upstreams are down or doubted: asking would be for nothing but to learn whether one
 * is back. */
bool ask_is_in_vain(const struct group *group);

/* `question` and `events` outlive the ask. `client` is the account that asks first, 0 for our own.
 */
void ask_init(struct ask *ask, struct group *group, const struct question *question,
              uint64_t client, const struct ask_events *events);

/* False when nobody can be asked, with the cause in `ask->failure`; on_done is not called. */
bool ask_begin(struct ask *ask);

/* Another client wants the same: if the first is known to end connections it is asked for this one,
 * who must not wait behind what the first asks. */
void ask_join(struct ask *ask, uint64_t client);

/* The upstreams with these slots are others than before, or leave: what it knows of them is of no
 * use. */
void ask_reload(struct ask *ask, upstream_set changed);

/* Asks as if it had never been asked; on_done may be called from inside. */
void ask_anew(struct ask *ask);

/* Takes back what is in flight; no event comes any more. */
void ask_cancel(struct ask *ask);

bool ask_is_in_flight(const struct ask *ask);

/* Its owner waits no longer: what is still out is the cause of the failure. */
void ask_note_unanswered(struct ask *ask);

#endif
