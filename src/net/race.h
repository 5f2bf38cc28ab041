// SPDX-License-Identifier: Apache-2.0
/* Connecting to the first of several addresses that answers (RFC 8305 5: "happy eyeballs").
 *
 * The first address is tried at once, each next one a little later or as soon as one before it has
 * failed, while the earlier ones go on. The first that connects wins, the others are closed. An
 * address of a family without a route fails at once and costs no time. "A little" is
 * RACE_STAGGER_NS, or less, so that the last one has its chance before the caller gives up.
 *
 * Thread: the worker of the loop. Owner: the object that embeds it, which is not freed before the
 * end of the turn in which the race ended. */
#ifndef NET_RACE_H
#define NET_RACE_H

#include <stddef.h>
#include <stdint.h>

#include "base/address.h"
#include "base/failure.h"
#include "base/status.h"
#include "net/loop.h"

/* More addresses of one name would only prolong a hopeless try. */
enum { RACE_ADDRESSES_MAX = 8 };

/* RFC 8305 5: the recommended delay. */
#define RACE_STAGGER_NS (250 * NANOSECONDS_PER_MILLISECOND)

struct race_timeouts {
    uint64_t connect_ns; /* after which the caller cancels the race; not 0 */
    uint64_t user_ns;    /* RFC 5482: how long what was sent on the connection may be unanswered */
};

struct race;

struct race_attempt {
    struct loop_source source;
    struct race *race;
};

struct race {
    struct loop *loop;
    const struct address *addresses; /* borrowed until the end */
    size_t count;
    size_t next; /* the first that was not yet tried */
    size_t open; /* tries under way */
    struct race_timeouts timeouts;
    enum failure failure; /* of the last try that failed, but FAILURE_LOCAL if there was one */
    struct deadline_queue stagger;
    struct deadline deadline;
    struct race_attempt attempts[RACE_ADDRESSES_MAX];
    void (*on_won)(struct race *race, int fd, size_t index); /* the descriptor is the callee's */
    void (*on_lost)(struct race *race, enum failure failure);
};

/* `race` has on_won and on_lost; one of them is called, once, from the loop. STATUS_SYSTEM with
 * `*failure` when every address failed at once: then none is called. */
enum status race_start(struct race *race, struct loop *loop, const struct address *addresses,
                       size_t count, struct race_timeouts timeouts, enum failure *failure);

/* Ends it without a call. Harmless when it has ended, or never began and is zeroed. */
void race_cancel(struct race *race);

#endif
