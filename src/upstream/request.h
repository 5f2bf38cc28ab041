// SPDX-License-Identifier: Apache-2.0
/* One attempt of an ask at one upstream, and the log of all of them.
 *
 * on_done reports an answer or a failure once; it is never called from inside of what submits or
 * cancels a request. Thread: one worker. Owner: the ask, name or check that embeds it, from
 * request_init to on_done or request_cancel; in flight it sits in exactly one slot. */
#ifndef UPSTREAM_REQUEST_H
#define UPSTREAM_REQUEST_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/deadline.h"
#include "base/failure.h"
#include "base/list.h"
#include "config/config.h"
#include "dns/message.h"

struct connection;
struct request;

/* `answer` is NULL when the request failed; it is borrowed for the call. An answer that is itself
 * an error (SERVFAIL, REFUSED, TC=1, ...) comes with both: the answer and its failure. The request
 * is no longer in flight and may be submitted again at once. */
typedef void request_done(struct request *request, const struct answer *answer,
                          enum failure failure);

/* The request is later than nearly all answers of its upstream come and still in flight: time for
 * request_hedge. Told again and again while it lasts. */
typedef void request_late(struct request *request);

/* Which upstreams were asked for one ask. */
struct attempts {
    upstream_set once; /* chosen, whether or not the request reached them */
    upstream_set twice;
    upstream_set odd;   /* with `two`: how often it was sent to them, in two bits; three times at */
    upstream_set two;   /* most (RFC 9520 3.1) */
    upstream_set erred; /* they have answered it with an error, and would say so again */
    uint32_t count;     /* of requests in all; the caller counts */
    uint32_t returned;  /* of those the ones that did not reach anybody */
};

/* The upstreams that it must not be sent to again. */
static inline upstream_set attempts_exhausted(const struct attempts *attempts)
{
    return (attempts->odd & attempts->two) | attempts->erred;
}

/* A request for it is put on a connection of the upstream whose bit this is, or did not leave it.
 */
static inline void attempts_add(struct attempts *attempts, upstream_set bit)
{
    assert(!(attempts->erred & bit));
    if (attempts->odd & attempts->two & bit)
        return; /* a question of our own, which nobody counts */
    if (attempts->odd & bit)
        attempts->two |= bit;
    attempts->odd ^= bit;
}

static inline void attempts_take_back(struct attempts *attempts, upstream_set bit)
{
    if (!(attempts->odd & bit))
        attempts->two &= ~bit;
    attempts->odd ^= bit;
}

/* The upstream was chosen. */
static inline void attempts_choose(struct attempts *attempts, size_t slot)
{
    const upstream_set bit = upstream_bit(slot);
    attempts->twice |= attempts->once & bit;
    attempts->once |= bit;
}

/* These are others than before. */
static inline void attempts_forget(struct attempts *attempts, upstream_set changed)
{
    attempts->once &= ~changed;
    attempts->twice &= ~changed;
    attempts->odd &= ~changed;
    attempts->two &= ~changed;
    attempts->erred &= ~changed;
}

struct request {
    const struct question *question; /* outlives the request */
    struct attempts *attempts;       /* shared by the requests of one ask, zeroed at first */
    request_done *on_done;
    request_late *on_late;
    bool is_hedge; /* asked since another one is late */
    bool is_own;   /* a question of our own, which is in no count and no attempt */
    /* How it ended without an answer, with the last two; set before on_done. */
    bool was_sent;   /* the upstream may have read it */
    bool was_fresh;  /* nothing else had been asked on its connection */
    bool was_alone;  /* nothing else was unanswered there since it was sent */
    bool was_behind; /* an answer: the server has had enough, not of this question */
    /* Of the connection that carries it. */
    uint16_t slot;
    struct connection *connection; /* NULL: not in flight */
    struct list link;              /* among the failed of a closed connection */
    struct deadline late;
    uint64_t sent_ns;
    size_t upstream;      /* slot of the upstream asked last */
    uint32_t were_aboard; /* so many were unanswered there */
};

static inline void request_init(struct request *request, const struct question *question,
                                struct attempts *attempts, request_done *on_done,
                                request_late *on_late)
{
    assert(question && attempts && on_done && on_late);
    *request = (struct request){
        .question = question, .attempts = attempts, .on_done = on_done, .on_late = on_late};
    list_init(&request->link);
    deadline_init(&request->late);
}

/* True while the request waits for its answer, or for on_done: its connection has ended. */
static inline bool request_is_in_flight(const struct request *request)
{
    return request->connection || list_is_linked(&request->link);
}

#endif
