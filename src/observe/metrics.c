// SPDX-License-Identifier: Apache-2.0
/* Counters, gauges and histograms: opened for the workers, printed for Prometheus.
 *
 * metrics.def becomes one table of rows. A counter or gauge is the sum over
 * the workers (so dnsproxy_upstream_up is the number of workers that would ask the upstream: 0 is
 * down). A gauge whose name ends in _seconds is kept in nanoseconds and is the mean of the workers
 * that have a value.
 *
 * Thread: main, except histogram_record. Owner: main.
 * Format: Prometheus text exposition format 0.0.4. */
#include "observe/metrics.h"

#include <assert.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/deadline.h"

enum scope { SCOPE_WORKER, SCOPE_UPSTREAM, SCOPE_PROCESS };
enum type { TYPE_COUNTER, TYPE_GAUGE, TYPE_HISTOGRAM, TYPE_FAILURES };

static const char *const type_names[] = {"counter", "gauge", "histogram", "counter"};

struct row {
    enum scope scope;
    enum type type;
    size_t offset; /* in struct metrics, struct upstream_metrics or struct metrics_view */
    const char *name;
    const char *labels;
    const char *help;
};

static const struct row rows[] = {
#define METRIC(type, field, name, labels, help) \
    {SCOPE_WORKER, TYPE_##type, offsetof(struct metrics, field), name, labels, help},
#define UPSTREAM_METRIC(type, field, name, labels, help) \
    {SCOPE_UPSTREAM, TYPE_##type, offsetof(struct upstream_metrics, field), name, labels, help},
#define PROCESS_METRIC(type, field, name, labels, help) \
    {SCOPE_PROCESS, TYPE_##type, offsetof(struct metrics_view, field), name, labels, help},
#include "observe/metrics.def"
};

enum { ROW_COUNT = sizeof(rows) / sizeof(*rows) };

/* ---- recording ---- */

#define FIRST_BUCKET_NS UINT64_C(16000)

static size_t bucket_of(uint64_t duration_ns)
{
    if (duration_ns <= FIRST_BUCKET_NS)
        return 0;
    const uint64_t whole = (duration_ns - 1) / FIRST_BUCKET_NS; /* >= 1 */
    const size_t bucket = 64 - (size_t)__builtin_clzll(whole);
    return bucket < HISTOGRAM_BUCKETS ? bucket : HISTOGRAM_BUCKETS - 1;
}

void histogram_record(struct histogram *histogram, uint64_t duration_ns)
{
    metric_add(&histogram->buckets[bucket_of(duration_ns)], 1);
    metric_add(&histogram->sum_ns, duration_ns);
}

struct metrics *metrics_open(size_t upstream_slots)
{
    struct metrics *metrics = calloc(1, sizeof(*metrics));
    if (!metrics)
        return NULL;
    metrics->upstream_slots = upstream_slots;
    metrics->upstreams = calloc(upstream_slots ? upstream_slots : 1, sizeof(*metrics->upstreams));
    if (!metrics->upstreams) {
        free(metrics);
        return NULL;
    }
    return metrics;
}

void upstream_metrics_clear(struct upstream_metrics *metrics)
{
    static_assert(sizeof(*metrics) % sizeof(metric) == 0, "there is nothing else in it");
    metric *values = (metric *)metrics;
    for (size_t i = 0; i < sizeof(*metrics) / sizeof(metric); i++)
        metric_set(&values[i], 0);
}

void metrics_close(struct metrics *metrics)
{
    if (!metrics)
        return;
    free(metrics->upstreams);
    free(metrics);
}

/* ---- reading ---- */

static const void *field_at(const void *object, size_t offset)
{
    return (const char *)object + offset;
}

static uint64_t sum_of_workers(const struct metrics_view *view, size_t offset)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < view->worker_count; i++)
        sum += metric_get(field_at(view->workers[i], offset));
    return sum;
}

/* `*with_value` is the number of workers where it is not 0. */
static uint64_t sum_for_upstream(const struct metrics_view *view, size_t upstream, size_t offset,
                                 uint64_t *with_value)
{
    assert(upstream < view->upstream_slots);
    uint64_t sum = 0;
    *with_value = 0;
    for (size_t i = 0; i < view->worker_count; i++) {
        const uint64_t value = metric_get(field_at(&view->workers[i]->upstreams[upstream], offset));
        sum += value;
        *with_value += value > 0;
    }
    return sum;
}

/* ---- exposition ---- */

static double seconds(uint64_t duration_ns)
{
    return (double)duration_ns / (double)NANOSECONDS_PER_SECOND;
}

/* A label holds an address and a name, which are ASCII; anything else would break the format. */
static void print_label_value(FILE *out, const char *value)
{
    assert(value);
    for (; *value; value++) {
        const uint8_t octet = (uint8_t)*value;
        if (octet == '\\' || octet == '"')
            fprintf(out, "\\%c", octet);
        else if (octet == '\n')
            fputs("\\n", out);
        else
            fputc(octet >= ' ' && octet < 0x7f ? octet : '?', out);
    }
}

/* Name and labels of one sample; what is NULL or "" is left out. */
static void print_series(FILE *out, const struct row *row, const char *suffix, const char *upstream,
                         const char *last_label)
{
    const char *separator = "{";
    fprintf(out, "%s%s", row->name, suffix);
    if (upstream) {
        fputs("{upstream=\"", out);
        print_label_value(out, upstream);
        fputc('"', out);
        separator = ",";
    }
    if (*row->labels) {
        fprintf(out, "%s%s", separator, row->labels);
        separator = ",";
    }
    if (*last_label) {
        fprintf(out, "%s%s", separator, last_label);
        separator = ",";
    }
    fputs(*separator == ',' ? "} " : " ", out);
}

static void print_upstream(FILE *out, const struct metrics_view *view, const struct row *row,
                           size_t upstream)
{
    const char *suffix = strrchr(row->name, '_');
    const bool is_in_seconds = suffix && strcmp(suffix, "_seconds") == 0;
    uint64_t with_value;
    const uint64_t sum = sum_for_upstream(view, upstream, row->offset, &with_value);
    print_series(out, row, "", view->upstream_labels[upstream], "");
    if (is_in_seconds)
        fprintf(out, "%.9f\n", with_value ? seconds(sum / with_value) : 0.0);
    else
        fprintf(out, "%" PRIu64 "\n", sum);
}

static void print_failures(FILE *out, const struct metrics_view *view, const struct row *row,
                           size_t upstream)
{
    assert(row->type == TYPE_FAILURES);
    for (size_t cause = FAILURE_NONE + 1; cause < FAILURE_COUNT; cause++) {
        char label[64];
        uint64_t with_value;
        const size_t offset = row->offset + cause * sizeof(metric);
        snprintf(label, sizeof(label), "cause=\"%s\"", failure_label((enum failure)cause));
        print_series(out, row, "", view->upstream_labels[upstream], label);
        fprintf(out, "%" PRIu64 "\n", sum_for_upstream(view, upstream, offset, &with_value));
    }
}

/* The count is what the buckets add up to, so that a scrape in the midst of a record is consistent
 * in itself. */
static void print_histogram(FILE *out, const struct metrics_view *view, const struct row *row)
{
    assert(row->scope == SCOPE_WORKER);
    uint64_t count = 0;
    for (size_t bucket = 0; bucket < HISTOGRAM_BUCKETS; bucket++) {
        char label[32] = "le=\"+Inf\"";
        if (bucket + 1 < HISTOGRAM_BUCKETS)
            snprintf(label, sizeof(label), "le=\"%.9g\"", seconds(FIRST_BUCKET_NS << bucket));
        const size_t offset = offsetof(struct histogram, buckets) + bucket * sizeof(metric);
        count += sum_of_workers(view, row->offset + offset);
        print_series(out, row, "_bucket", NULL, label);
        fprintf(out, "%" PRIu64 "\n", count);
    }
    print_series(out, row, "_sum", NULL, "");
    fprintf(out, "%.9f\n",
            seconds(sum_of_workers(view, row->offset + offsetof(struct histogram, sum_ns))));
    print_series(out, row, "_count", NULL, "");
    fprintf(out, "%" PRIu64 "\n", count);
}

static void print_row(FILE *out, const struct metrics_view *view, const struct row *row)
{
    const size_t slots = row->scope == SCOPE_UPSTREAM ? view->upstream_slots : 0;
    for (size_t upstream = 0; upstream < slots; upstream++) {
        if (!view->upstream_labels[upstream])
            continue;
        if (row->type == TYPE_FAILURES)
            print_failures(out, view, row, upstream);
        else
            print_upstream(out, view, row, upstream);
    }
    if (row->scope == SCOPE_UPSTREAM)
        return;
    if (row->type == TYPE_HISTOGRAM) {
        print_histogram(out, view, row);
        return;
    }
    const uint64_t value = row->scope == SCOPE_WORKER
                               ? sum_of_workers(view, row->offset)
                               : *(const uint64_t *)field_at(view, row->offset);
    print_series(out, row, "", NULL, "");
    fprintf(out, "%" PRIu64 "\n", value);
}

void metrics_print(FILE *out, const struct metrics_view *view)
{
    assert(out && (view->workers || view->worker_count == 0));
    assert(view->upstream_labels || view->upstream_slots == 0);
    for (size_t i = 0; i < view->worker_count; i++)
        assert(view->workers[i]->upstream_slots == view->upstream_slots);

    const char *name = "";
    for (size_t i = 0; i < ROW_COUNT; i++) {
        const struct row *row = &rows[i];
        if (strcmp(row->name, name) != 0)
            fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", row->name, row->help, row->name,
                    type_names[row->type]);
        name = row->name;
        print_row(out, view, row);
    }
    fputs("# HELP dnsproxy_build_info Always 1\n# TYPE dnsproxy_build_info gauge\n"
          "dnsproxy_build_info{version=\"" DNSPROXY_VERSION "\"} 1\n",
          out);
}
