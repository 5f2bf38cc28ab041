// SPDX-License-Identifier: Apache-2.0
/* The way to one upstream: is anybody there, and how quick. See path.c.
 *
 * It is what the connections to the upstream share and report to; what is above it learns of a
 * change through `events`. */
#ifndef UPSTREAM_PATH_H
#define UPSTREAM_PATH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/deadline.h"
#include "base/failure.h"
#include "config/config.h"
#include "net/loop.h"
#include "net/tls.h"
#include "observe/log.h"
#include "observe/metrics.h"
#include "upstream/random.h"
#include "upstream/times.h"
#include "upstream/waiting.h"

struct answer_scratch;
struct connection_events;
struct connection_queues;
struct path;

struct path_events {
    void (*on_back)(struct path *path); /* it was down or doubted */
    void (*on_failed)(struct path *path, enum failure failure);
    void (*on_doubted)(struct path *path); /* it is to be probed */
};

struct path {
    /* Given at birth. */
    const struct path_events *events;
    struct loop *loop;
    const struct config *config;
    const struct snapshot *snapshot;
    const char *label;
    size_t slot; /* of the upstream */
    struct upstream_metrics *metrics;
    struct tls_client *tls;
    struct random *random;
    struct waiting *waiting; /* for its connections, among others */
    const struct connection_events *connection_events;
    struct connection_queues *queues; /* of all upstreams */
    struct answer_scratch *scratch;

    struct deadline_queue idle;
    struct deadline_queue late; /* of requests; its duration follows the measured times */
    struct times times;
    uint32_t in_flight;
    bool down;
    bool is_leaving; /* the configuration is without it: it is asked nothing more */
    bool is_missed;  /* it went down and has not answered since */
    bool is_doubted; /* connections end or are silent, and nothing else is heard: it is probed */
    bool has_answered_well;
    uint32_t errors;          /* since its last good answer */
    uint64_t erred_ns;        /* the last */
    uint32_t contradicted;    /* errors that others knew better, since its last good answer */
    uint64_t contradicted_ns; /* the last */
    uint32_t ends;            /* of connections with requests, since the last answer */
    uint32_t failures;        /* in a row, since the last answer */
    uint64_t failed_ns;       /* when the last one came */
    uint64_t retry_ns;        /* while down: not before */
    enum failure last_failure;
    uint64_t answered_ns;       /* when it last answered anything */
    uint64_t answered_sent_ns;  /* when that was sent which was sent last of what is answered */
    struct log_limit log_limit; /* of its failures */
    struct log_limit recovered_limit;
};

/* True when queries may be sent there: it is up, and there is no reason to ask whether it answers;
 * and it is to be asked at all. */
static inline bool path_is_usable(const struct path *path)
{
    return !path->down && !path->is_doubted && !path->is_leaving;
}

void path_set_down(struct path *path, bool down);

/* From here on it goes by this snapshot. */
void path_reload(struct path *path, const struct snapshot *snapshot);

/* A trial begins: the next one after a back-off. */
void path_back_off(struct path *path);

/* Connects, handshakes or our probe have failed; `detail` is in words, "" for none. */
void path_failed(struct path *path, enum failure failure, const char *detail);

/* A connection has ended with requests on it, which since then were silent (0: not for its
 * silence). */
void path_ended(struct path *path, enum failure failure, uint64_t silent_since_ns);

/* It may be that nobody is answered any more: nothing is sent there until a probe is. */
void path_doubt(struct path *path, enum failure failure);

/* It may be asked again; it has answered something. */
void path_connected(struct path *path);
void path_is_back(struct path *path);

/* It has answered something, be it our probe, that was sent then: somebody is there. */
void path_heard(struct path *path, uint64_t sent_ns);

/* The same to something that somebody has asked. */
void path_answered(struct path *path);

/* A good answer has come, so long after it was asked for. */
void path_measure(struct path *path, uint64_t took_ns);

#endif
