// SPDX-License-Identifier: Apache-2.0
/* Counters, gauges and histograms, declared in metrics.def.
 *
 * Thread: each worker writes only its own struct metrics, with plain relaxed stores; the main
 * thread reads all of them when it is asked for /metrics. Owner: main, which opens one per worker
 * before the workers start and closes them after the last has ended. */
#ifndef OBSERVE_METRICS_H
#define OBSERVE_METRICS_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/failure.h"

typedef _Atomic uint64_t metric;

/* Bucket i counts durations up to 2^i * 16 microseconds; the last one all that are longer. */
enum { HISTOGRAM_BUCKETS = 20 };

struct histogram {
    metric buckets[HISTOGRAM_BUCKETS];
    metric sum_ns;
};

/* The types of metrics.def. */
typedef metric metric_COUNTER;
typedef metric metric_GAUGE;
typedef struct histogram metric_HISTOGRAM;
typedef metric metric_FAILURES[FAILURE_COUNT];

struct upstream_metrics {
#define UPSTREAM_METRIC(type, field, name, labels, help) metric_##type field;
#include "observe/metrics.def"
};

struct metrics {
#define METRIC(type, field, name, labels, help) metric_##type field;
#include "observe/metrics.def"
    struct upstream_metrics *upstreams; /* by their slots */
    size_t upstream_slots;
};

/* Only the owning worker may call these four. */
static inline void metric_set(metric *value, uint64_t to)
{
    atomic_store_explicit(value, to, memory_order_relaxed);
}

static inline uint64_t metric_get(const metric *value)
{
    return atomic_load_explicit(value, memory_order_relaxed);
}

static inline void metric_add(metric *value, uint64_t count)
{
    metric_set(value, metric_get(value) + count);
}

static inline void metric_subtract(metric *value, uint64_t count)
{
    metric_set(value, metric_get(value) - count);
}

void histogram_record(struct histogram *histogram, uint64_t duration_ns);

/* NULL when memory is short. */
struct metrics *metrics_open(size_t upstream_slots);

/* All are 0, for another upstream than before. */
void upstream_metrics_clear(struct upstream_metrics *metrics);

/* Safe on NULL. */
void metrics_close(struct metrics *metrics);

/* Writes everything in the Prometheus text format 0.0.4. `upstream_labels` has one entry for each
 * slot, NULL: nobody has it; `cache_bytes` and `cache_entries` come from the shared cache. */
struct metrics_view {
    struct metrics *const *workers;
    size_t worker_count;
    const char *const *upstream_labels;
    size_t upstream_slots;
    uint64_t cache_bytes;
    uint64_t cache_entries;
    uint64_t log_dropped;
    uint64_t reload_ok;
    uint64_t reload_time_s; /* seconds since the epoch, as the next */
    uint64_t reload_generation;
    uint64_t reload_left;
    uint64_t start_time_s;
};
void metrics_print(FILE *out, const struct metrics_view *view);

#endif
