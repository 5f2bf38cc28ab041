// SPDX-License-Identifier: Apache-2.0
/* One upstream: see server.c. */
#ifndef UPSTREAM_SERVER_H
#define UPSTREAM_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/list.h"
#include "base/status.h"
#include "config/config.h"
#include "observe/metrics.h"
#include "upstream/admission.h"
#include "upstream/connection.h"
#include "upstream/ends.h"
#include "upstream/names.h"
#include "upstream/path.h"
#include "upstream/route.h"
#include "upstream/self_check.h"

struct group;
struct upstream;

struct upstream_events {
    /* It was down, doubted or silent: what waits may be asked there. */
    void (*on_back)(struct upstream *upstream);
    void (*on_failed)(struct upstream *upstream, enum failure failure);
    /* A connection has ended, or may be opened now. */
    void (*on_care)(struct upstream *upstream);
    /* Whether one more connection may be opened now; it is counted. */
    bool (*may_connect)(struct upstream *upstream);
};

struct upstream {
    struct path path;
    struct list link;    /* among those of its group, */
    struct group *group; /* its owner */
    const struct upstream_events *events;
    const struct upstream_config *config;
    struct name *name; /* NULL: its address is configured */
    struct self_check self_check;
    struct list connections; /* all that are not CLOSED, but the lanes */
    struct list lanes;
    uint16_t spares;  /* that it may have until calm_ns */
    uint16_t crowded; /* queries that found no room, since a connection was allowed for them */
    uint64_t calm_ns;
    struct admission *admission; /* of all workers, */
    struct admission alone;      /* of one that knows no others */
    struct ends ends;
    uint64_t attempted_ns; /* of the last connect */
    uint64_t last_answers; /* on the last connection that ended */
    struct route route;
    uint64_t label_hash;            /* of strategy hash */
    struct deadline leave_deadline; /* armed: it leaves */
};

/* How many of a list of connections are what. */
struct tally {
    size_t all;
    size_t taking;  /* requests; one that drains is on its way out */
    size_t opening; /* of these: not READY yet */
    size_t main;    /* of these: no spares, no lanes */
    size_t trials;  /* of these: may yet show whether the upstream is there */
    size_t old;     /* of these: READY, and have not replaced others a moment ago */
    size_t open;    /* have shaken hands */
    size_t silent;
    size_t busy; /* somebody waits for an answer */
    size_t confined;
};

struct tally tally_of(const struct list *connections);

/* What the upstreams of a group share. */
struct upstream_settings {
    struct group *group;
    const struct upstream_events *events;
    const struct name_events *name_events;
    const struct config *config;
    const struct snapshot *snapshot;
    struct loop *loop;
    struct metrics *metrics;
    struct admission *admissions; /* one for each slot; NULL: there is one worker */
    const struct siphash_key *self_key;
    struct random *random;
    struct waiting *waiting;
    struct connection_queues *queues;
    struct name_queues *name_queues;
    struct deadline_queue *self_checks;
    struct answer_scratch *scratch;
};

static inline struct upstream *upstream_of(struct path *path)
{
    return CONTAINER_OF(path, struct upstream, path);
}

/* `upstream` is zeroed; on failure, too, it is to be closed. */
enum status upstream_open(struct upstream *upstream, const struct upstream_settings *settings,
                          const struct upstream_config *config);
void upstream_close(struct upstream *upstream);

/* It stays with `snapshot`, where `config` is the same upstream. */
void upstream_reload(struct upstream *upstream, const struct upstream_config *config,
                     const struct snapshot *snapshot);

/* The configuration is without it: it is asked nothing more, and what is in flight may end. */
void upstream_leave(struct upstream *upstream);

/* Has that end at once: what is in flight is asked elsewhere. */
void upstream_end_leaving(struct upstream *upstream);

/* It leaves, and nothing goes on there any more: it may be closed. */
bool upstream_has_left(const struct upstream *upstream);

/* Puts the request on a connection, opening one if that is needed and allowed. STATUS_AGAIN when it
 * had better wait for one, another status with the cause in `*failure` when it cannot at all. */
enum status upstream_submit(struct upstream *upstream, struct request *request,
                            enum failure *failure);

/* True when none of its connections has ended of late with requests on it. */
bool upstream_is_calm(const struct upstream *upstream);

/* True when a connection is there or on its way that could take a request. */
bool upstream_has_connection(const struct upstream *upstream);

/* True when a request would be sent without waiting for a handshake, on a connection that is
 * not silent. */
bool upstream_is_ready(const struct upstream *upstream);

/* How many connections may be on their way to it at a time: for all questions, or twice as many
 * lanes; and how many lanes it may have. */
size_t upstream_opening_max(const struct upstream *upstream);
size_t upstream_lanes_max(const struct upstream *upstream);

/* True when new questions are better kept waiting than put on the connections that there are: in
 * trouble, and more are to come. */
bool upstream_is_crowded(const struct upstream *upstream);

/* The most bytes that the spare connections of all upstreams occupy. */
size_t upstream_spares_ceiling(void);

/* Opens a connection without a request, whatever the limits. Nobody waits for it, so a failure is
 * told by the upstream's health alone. */
void upstream_open_ahead(struct upstream *upstream);

/* Opens a connection. NULL with the cause in `*failure`: FAILURE_OVERLOADED when there may be none
 * now, which may be otherwise in a moment. */
struct connection *upstream_open_connection(struct upstream *upstream, enum connection_use use,
                                            enum failure *failure);

/* Opens a connection without a request if none takes requests, or those that do are silent, so that
 * it is ready before one comes. */
void upstream_warm(struct upstream *upstream);

/* Opens one beside those that are silent, unless one is on its way. */
void upstream_open_second(struct upstream *upstream);

/* The same for one that is down, to learn whether it has come back, with up to `connections_max` on
 * their way at a time. */
void upstream_try_again(struct upstream *upstream, size_t connections_max);

/* Makes the requests that wait for a handshake, or on a silent connection, late at once. */
void upstream_hasten(struct upstream *upstream);

/* Drops all connections, which is no failure of the upstream, and forgets its back-off. */
void upstream_start_over(struct upstream *upstream);

/* For its name: the first addresses are known, and they are others than before. */
void upstream_on_resolved(struct path *path, const struct address *address);
void upstream_on_moved(struct path *path);

#endif
