// SPDX-License-Identifier: Apache-2.0
/* What upstream/ looks like from outside at one moment, for tests that hold it to what must be true
 * whatever it is made of. Only upstream_view.c knows its insides: whoever changes them changes that
 * file, and the tests stay. */
#ifndef TESTS_UPSTREAM_VIEW_H
#define TESTS_UPSTREAM_VIEW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config/config.h"

struct group;
struct question;

enum { VIEW_CONNECTIONS_MAX = 512, VIEW_REQUESTS_MAX = 2048 };
enum { SPARES_MAX = 128 }; /* connections to one upstream in trouble */

enum view_phase { PHASE_CONNECTING, PHASE_HANDSHAKING, PHASE_READY, PHASE_DRAINING, PHASE_COUNT };

/* SUSPECT: it is up, and none of its connections is heard though one is asked something. DOUBTED:
 * it is asked nothing but a probe, for it may be that it answers nobody. GONE: the configuration is
 * without it, and what is in flight there may end. */
enum view_health { HEALTH_UP, HEALTH_SILENT, HEALTH_DOUBTED, HEALTH_DOWN, HEALTH_GONE };

struct upstream_view {
    enum view_health health;
    bool is_calm;         /* none of its connections has ended of late */
    bool is_contradicted; /* others knew better since it last answered well */
    bool has_erred;       /* the same of an error, whoever knows better */
    uint32_t failures;    /* in a row, since it last answered */
    uint32_t in_flight;   /* requests, as it counts them */
    uint32_t own;     /* questions of our own that are in flight like requests, and not counted */
    size_t main_max;  /* connections that take requests, but lanes */
    uint64_t late_ns; /* from then on a request is late */
    uint64_t dead_ns; /* for so long a path may be silent that has a late one aboard */
    uint32_t source;  /* our address (IPv4) towards it, by which it judges; 0: no way leads there */
};

struct connection_view {
    const void *identity; /* as long as it lives */
    size_t upstream;
    enum view_phase phase;
    int fd;
    bool is_open; /* bytes can come */
    bool takes_requests;
    bool has_room;
    bool is_silent;
    bool is_pardoned; /* our probe has lifted a suspicion since the last answer */
    bool is_lane;
    bool is_main;
    uint64_t answered_sent_ns; /* of what it has answered that was sent last; 0: nothing */
    uint32_t in_flight;        /* requests and questions of our own, as it counts them */
};

/* A request in flight. */
struct request_view {
    const void *identity; /* who asks: the same when it is asked elsewhere */
    const void *ask;      /* the same for all requests of one question that somebody waits for */
    const struct question *question;
    size_t connection; /* in the view */
    uint32_t use;      /* of the connection: another one each time that it is asked something */
    uint64_t sent_ns;
    bool is_own; /* a question of our own */
    bool is_hedge;
    bool is_first;   /* nobody was asked before it for the same */
    bool is_suspect; /* a connection has ended with its question aboard, before it was sent */
};

struct group_view {
    size_t upstream_count;                                 /* up to the last that is there */
    struct upstream_view upstreams[CONFIG_UPSTREAM_SLOTS]; /* by their slots */
    size_t connection_count;
    struct connection_view connections[VIEW_CONNECTIONS_MAX];
    size_t request_count; /* 0 without them */
    struct request_view requests[VIEW_REQUESTS_MAX];
    size_t parked; /* questions that wait until there is somebody to ask */
    size_t queued; /* questions that wait for a connection, or for a second look */
    size_t lane_count;
};

/* Looks; at requests only when they are wanted, for there may be many. False when it does not fit.
 */
bool view_group(const struct group *group, bool with_requests, struct group_view *view);

/* What does not add up inside, NULL when all does. */
const char *view_flaw(const struct group *group);

#endif
