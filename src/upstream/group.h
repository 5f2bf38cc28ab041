// SPDX-License-Identifier: Apache-2.0
/* All upstreams of one worker, from the inside: see group.c. Opened and closed by upstream.c. */
#ifndef UPSTREAM_GROUP_H
#define UPSTREAM_GROUP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/siphash.h"
#include "dns/message.h"
#include "upstream/blame.h"
#include "upstream/random.h"
#include "upstream/server.h"
#include "upstream/waiting.h"

enum {
    HEDGE_COST = 20,   /* a request earns a twentieth of a hedge: at most 5 % more */
    HEDGE_START = 16,  /* before anything is earned */
    HEDGE_BURST = 256, /* saved up, for what is in flight in the first moments of a silence:
                          at 10,000 queries a second a hundred in 10 ms */
};

enum { LANES_MAX = 64 }; /* of all upstreams */

struct group {
    const struct config *config;
    const struct snapshot *snapshot;
    struct upstream_settings settings; /* of each upstream that is opened */
    struct loop *loop;
    struct metrics *metrics;
    struct deadline_queue self_checks;
    struct name_queues name_queues;
    struct connection_queues queues;
    struct waiting waiting;
    struct blame_table blames;
    struct random random;
    struct siphash_key hash_key; /* strategy hash: the same in every worker and process */
    struct answer_scratch scratch;
    struct loop_task recovered;            /* an upstream that was down is back */
    struct loop_task care;                 /* sees to it that two upstreams are ready */
    struct loop_task left;                 /* closes those that have left */
    struct deadline_queue leave_deadlines; /* of those that leave */
    uint64_t next_confined_ns; /* when a lane may be opened for those that are known to be bad */
    uint64_t away_since_ns;    /* all of them; 0: one is usable */
    uint64_t traffic_until_ns; /* a request came not long before */
    uint64_t next_connect_ns;  /* the bucket of connects is full again */
    uint32_t hedge_credit;     /* in shares of one hedge, HEDGE_COST each */
    struct list upstreams;     /* in the order of the snapshot */
    bool lacks_some;           /* memory was short when they were to be opened */
    uint64_t next_open_ns;     /* then: not before */
    struct list leaving; /* those that it is without, until what is in flight there has ended */
    struct upstream *slots[CONFIG_UPSTREAM_SLOTS]; /* all of them; NULL: free */
};

/* `group` is zeroed but for config, snapshot, loop and settings; fills in what its upstreams get
 * from it. */
void group_init(struct group *group);

/* Its upstreams are those of its snapshot: the same ones stay, with all that is known of them, new
 * ones are opened, and the others leave. `*changed` is the slots of both of these. When one cannot
 * be opened (memory is short) the others are there, its status is returned, and it is opened when
 * it can be. */
enum status group_set_upstreams(struct group *group, upstream_set *changed);

/* True when all upstreams are down or doubted. */
bool group_is_away(const struct group *group);

/* The ways to the upstreams are others: with traffic there will be a query soon, and it should find
 * what it needs. */
void group_begin_anew(struct group *group);

/* A request came: for a while there may be more, and what is down is tried again. */
void group_note_traffic(struct group *group);

/* Waits for an upstream, all of which are away but those that are `excluded`. False when they
 * have been for longer than timeouts.park, or fail for what no waiting mends. Resumed once, with
 * whatever there is then. */
bool group_park(struct group *group, upstream_set excluded, struct waiter *waiter);

#endif
