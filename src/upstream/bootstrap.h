// SPDX-License-Identifier: Apache-2.0
/* One question for a host name over plain DNS: see bootstrap.c. */
#ifndef UPSTREAM_BOOTSTRAP_H
#define UPSTREAM_BOOTSTRAP_H

#include <stddef.h>
#include <stdint.h>

#include "base/deadline.h"
#include "config/config.h"
#include "dns/message.h"
#include "net/datagram.h"
#include "net/loop.h"
#include "net/stream.h"

/* Most servers answer within 100 ms; one that does not is passed over. When its turn comes again it
 * has three times as long, for it may be far away. */
#define BOOTSTRAP_TRY_NS (500 * NANOSECONDS_PER_MILLISECOND)

struct bootstrap;

/* `answer` is NULL when every try failed; it is borrowed for the call. */
typedef void bootstrap_done(struct bootstrap *bootstrap, const struct answer *answer);

enum bootstrap_state {
    BOOTSTRAP_RESTING,
    BOOTSTRAP_DATAGRAM,
    BOOTSTRAP_STREAM,
    BOOTSTRAP_CLOSING, /* nothing is asked any more, but the stream has yet to be reaped */
};

struct bootstrap {
    /* Given at birth. */
    struct loop *loop;
    const struct snapshot *snapshot; /* bootstraps */
    struct deadline_queue *tries_queue;
    struct answer_scratch *scratch;
    bootstrap_done *on_done;

    const struct question *question;
    uint64_t silence_max_ns; /* of a stream */
    enum bootstrap_state state;
    struct datagram datagram;
    struct stream stream;
    struct deadline deadline;
    unsigned tries;
    unsigned patience;  /* how many times BOOTSTRAP_TRY_NS this try has yet */
    unsigned refusals;  /* servers in a row that could not be asked, or would not answer */
    unsigned strangers; /* messages of this try that answered nothing */
    size_t server;      /* the one asked last; the next question begins with it */
    uint16_t id;
};

/* `tries` is for all of a worker, with bootstrap_on_deadline. */
void bootstrap_init(struct bootstrap *bootstrap, struct loop *loop, const struct snapshot *snapshot,
                    struct deadline_queue *tries, struct answer_scratch *scratch,
                    bootstrap_done *on_done);

/* The servers may be others: who is being asked may still answer. With none left what is asked has
 * failed, and on_done is called from inside. */
void bootstrap_reload(struct bootstrap *bootstrap, const struct snapshot *snapshot);

/* Asks the configured servers, of which there is one at least, one after the other; on_done is
 * called once, perhaps from inside. A stream that takes nothing for `silence_max_ns` is dead. */
void bootstrap_begin(struct bootstrap *bootstrap, const struct question *question,
                     uint64_t silence_max_ns);

/* on_done is not called, and the next question begins with another server. Harmless when nothing is
 * asked. */
void bootstrap_cancel(struct bootstrap *bootstrap);

/* Frees what it holds, without waiting for the loop. */
void bootstrap_close(struct bootstrap *bootstrap);

void bootstrap_on_deadline(struct deadline *deadline, uint64_t now);

#endif
