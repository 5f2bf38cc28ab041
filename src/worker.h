// SPDX-License-Identifier: Apache-2.0
/* One worker: a thread with its own loop, listeners, upstream connections, pools and counters.
 *
 * The main thread opens all workers before it starts the first, so that every error is reported
 * from one place and nothing is half started. */
#ifndef WORKER_H
#define WORKER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/siphash.h"
#include "base/status.h"
#include "cache/cache.h"
#include "config/config.h"
#include "observe/metrics.h"

struct admission;
struct worker;

struct worker_settings {
    const struct config *config;
    struct cache *cache; /* NULL: off */
    struct metrics *metrics;
    const struct siphash_key *self_key; /* the same for all workers; of dns/self_probe.h */
    struct admission *admissions;       /* the same for all workers, one for each slot */
    /* One for each listener of the configuration, -1: none. They become the worker's. */
    const int *udp_fds;
    const int *tcp_fds;
    void (*on_news)(void); /* called on the worker's thread when it has taken what main had to say,
                              when upstreams have left, and as its last act; wakes main */
};

enum status worker_open(const struct worker_settings *settings, struct worker **out);

/* The thread starts serving. STATUS_SYSTEM when there is no thread to be had. */
enum status worker_start(struct worker *worker);

/* Has it go by this snapshot from its next turn on. Nothing there goes by the one before any more,
 * nor waits for an upstream that only that one has, when worker_has_reloaded says so. At most one
 * at a time. Main thread. */
void worker_reload(struct worker *worker, const struct snapshot *snapshot);
bool worker_has_reloaded(const struct worker *worker);

/* Asks it to answer what has arrived (FAULTS J14), take no more and end, at the latest after
 * timeouts.drain. Main thread. */
void worker_drain(struct worker *worker);

/* Drains it if nobody has, waits for the thread and frees everything. Safe on NULL. */
void worker_close(struct worker *worker);

/* When the worker last finished a turn, on loop_clock: for the main thread's watchdog. */
uint64_t worker_last_turn_ns(const struct worker *worker);

/* True once the thread has ended. */
bool worker_has_stopped(const struct worker *worker);

/* The most bytes that one worker can occupy, and the kernel for its sockets. */
struct worker_memory {
    size_t queries;    /* those that wait, their lookups, accounts of clients */
    size_t listeners;  /* batches of datagrams, TCP clients */
    size_t tcp_output; /* what TCP clients make it hold: limits.tcp-memory, and a turn's worth */
    size_t upstreams;  /* connections: slots, buffers, TLS */
    size_t in_kernel;
};

/* With the upstreams of `snapshot`. */
struct worker_memory worker_memory(const struct worker *worker, const struct snapshot *snapshot);

#endif
