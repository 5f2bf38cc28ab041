// SPDX-License-Identifier: Apache-2.0
/* Asks that wait: for an upstream, for a connection, for a moment. See waiting.c. */
#ifndef UPSTREAM_WAITING_H
#define UPSTREAM_WAITING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/deadline.h"
#include "base/list.h"
#include "net/loop.h"

/* The second lone end counts if it was asked so long after the first: a restart is over by then. */
#define SECOND_LOOK_NS (100 * NANOSECONDS_PER_MILLISECOND)

enum line {
    LINE_CROWD,    /* for room on any connection */
    LINE_LANES,    /* for a lane */
    LINE_LOOKS,    /* the same, of those whose next end convicts */
    LINE_CONFINED, /* for one of the few; the newest is the first */
    LINES
};

struct waiter {
    struct list link; /* in one line, or among the parked or resumed */
    struct deadline again;
    enum line line; /* in which it is, or was last; LINES: it is parked, or was */
    /* May be its end; in line it may stay first. */
    void (*resume)(struct waiter *waiter);
};

struct waiting {
    struct loop *loop;
    uint64_t park_ns;                           /* timeouts.park */
    void (*on_parked)(struct waiting *waiting); /* while any is parked: upstreams are tried */
    struct list parked;                         /* for an upstream */
    struct list resumed;                        /* of the parked: those whose turn has come */
    struct list lines[LINES];                   /* for a connection */
    struct deadline_queue second_looks;         /* before they are asked alone again */
    struct deadline_queue ticks;                /* of `tick` */
    struct deadline tick;                       /* armed while any is parked or in line */
    struct loop_task resume_some;               /* of those */
    struct loop_task serve;                     /* there may be a connection */
    uint64_t next_look_ns;     /* the bucket of looks without a wait is full again */
    uint64_t failing_since_ns; /* trials have failed since then, and nothing else */
    uint64_t trial_failed_ns;  /* the last one; 0: an upstream is there */
};

void waiting_open(struct waiting *waiting, struct loop *loop, uint64_t park_ns,
                  void (*on_parked)(struct waiting *waiting));
void waiting_close(struct waiting *waiting);

/* Waits for an upstream, all of which are away. False when they have been for longer than
 * timeouts.park. Resumed once, with whatever there is then. */
bool waiting_park(struct waiting *waiting, struct waiter *waiter);

/* Resumes the parked, from the end of the turn on; those that park again are not resumed twice. */
void waiting_resume_parked(struct waiting *waiting);

/* An upstream has failed while all are away, in a way that waiting may mend or not. */
void waiting_note_trial(struct waiting *waiting, bool may_pass);

/* One is there, and asks are no longer parked for one that is away. */
void waiting_note_upstream(struct waiting *waiting);

/* Waits in line for a connection: behind all others, unless it is in that line already. */
void waiting_line_up(struct waiting *waiting, struct waiter *waiter, enum line line);

/* There may be a connection for those in line. */
void waiting_serve_soon(struct waiting *waiting);

/* Whether what has ended a connection alone may be asked again before SECOND_LOOK_NS: some may, for
 * most ends are chance. But that look does not count, and handshakes are dear. Takes it out of the
 * bucket. */
bool waiting_may_look_at_once(struct waiting *waiting);

/* Resumes it after SECOND_LOOK_NS. */
void waiting_look_again(struct waiting *waiting, struct waiter *waiter);

#endif
