// SPDX-License-Identifier: Apache-2.0
/* Counters, gauges and histograms: opened for the workers, printed for Prometheus and for the docs.
 *
 * metrics.def becomes one table of rows; both outputs walk it. A counter or gauge is the sum over
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

enum kind {
    KIND_COUNTER,
    KIND_GAUGE,
    KIND_HISTOGRAM,
    KIND_UPSTREAM_COUNTER,
    KIND_UPSTREAM_GAUGE,
    KIND_UPSTREAM_FAILURES,
};

struct row {
    enum kind kind;
    size_t offset; /* in struct metrics, or in struct upstream_metrics */
    const char *name;
    const char *labels;
    const char *help;
};

/* clang-format off */
static const struct row rows[] = {
#define WORKER_ROW(kind, field, name, labels, help) \
    {kind, offsetof(struct metrics, field), name, labels, help},
#define UPSTREAM_ROW(kind, field, name, labels, help) \
    {kind, offsetof(struct upstream_metrics, field), name, labels, help},
#define COUNTER(field, name, labels, help) WORKER_ROW(KIND_COUNTER, field, name, labels, help)
#define GAUGE(field, name, labels, help) WORKER_ROW(KIND_GAUGE, field, name, labels, help)
#define HISTOGRAM(field, name, labels, help) WORKER_ROW(KIND_HISTOGRAM, field, name, labels, help)
#define UPSTREAM_COUNTER(field, name, labels, help) \
    UPSTREAM_ROW(KIND_UPSTREAM_COUNTER, field, name, labels, help)
#define UPSTREAM_GAUGE(field, name, labels, help) \
    UPSTREAM_ROW(KIND_UPSTREAM_GAUGE, field, name, labels, help)
#define UPSTREAM_FAILURES(field, name, help) \
    UPSTREAM_ROW(KIND_UPSTREAM_FAILURES, field, name, "", help)
#include "observe/metrics.def"
};
/* clang-format on */

enum { ROW_COUNT = sizeof(rows) / sizeof(*rows) };

/* Metrics that no worker counts. */
static const struct {
    const char *name;
    const char *type;
    const char *labels;
    const char *help;
} process_rows[] = {
    {"dnsproxy_cache_bytes", "gauge", "", "Bytes that the cache occupies"},
    {"dnsproxy_cache_entries", "gauge", "", "Answers in the cache"},
    {"dnsproxy_log_dropped_total", "counter", "", "Log lines that stderr did not take in time"},
    {"process_start_time_seconds", "gauge", "", "Start of the process, seconds since 1970"},
    {"dnsproxy_build_info", "gauge", "version=\"" DNSPROXY_VERSION "\"", "Always 1"},
};

enum { PROCESS_ROW_COUNT = sizeof(process_rows) / sizeof(*process_rows) };

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

struct metrics *metrics_open(size_t upstream_count)
{
    struct metrics *metrics = calloc(1, sizeof(*metrics));
    if (!metrics)
        return NULL;
    metrics->upstream_count = upstream_count;
    metrics->upstreams = calloc(upstream_count ? upstream_count : 1, sizeof(*metrics->upstreams));
    if (!metrics->upstreams) {
        free(metrics);
        return NULL;
    }
    return metrics;
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

static bool is_in_seconds(const struct row *row)
{
    const char *suffix = strrchr(row->name, '_');
    return suffix && strcmp(suffix, "_seconds") == 0;
}

static const char *type_of(enum kind kind)
{
    switch (kind) {
    case KIND_COUNTER:
    case KIND_UPSTREAM_COUNTER:
    case KIND_UPSTREAM_FAILURES:
        return "counter";
    case KIND_GAUGE:
    case KIND_UPSTREAM_GAUGE:
        return "gauge";
    case KIND_HISTOGRAM:
        return "histogram";
    }
    return "untyped";
}

static void print_head(FILE *out, const char *name, const char *type, const char *help)
{
    fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void print_sample(FILE *out, const char *name, const char *labels, uint64_t value)
{
    const char *const open = *labels ? "{" : "";
    const char *const close = *labels ? "}" : "";
    fprintf(out, "%s%s%s%s %" PRIu64 "\n", name, open, labels, close, value);
}

static double seconds(uint64_t duration_ns)
{
    return (double)duration_ns / (double)NANOSECONDS_PER_SECOND;
}

/* A label holds an address and a name, which are ASCII; anything else would break the format. */
static void print_label_value(FILE *out, const char *value)
{
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

static void print_upstream_labels(FILE *out, const struct row *row, const char *upstream,
                                  const char *cause)
{
    fprintf(out, "%s{upstream=\"", row->name);
    print_label_value(out, upstream);
    fputc('"', out);
    if (*row->labels)
        fprintf(out, ",%s", row->labels);
    if (cause)
        fprintf(out, ",cause=\"%s\"", cause);
    fputs("} ", out);
}

static void print_upstream(FILE *out, const struct metrics_view *view, const struct row *row,
                           size_t upstream)
{
    uint64_t with_value;
    const uint64_t sum = sum_for_upstream(view, upstream, row->offset, &with_value);
    print_upstream_labels(out, row, view->upstream_labels[upstream], NULL);
    if (is_in_seconds(row))
        fprintf(out, "%.9f\n", with_value ? seconds(sum / with_value) : 0.0);
    else
        fprintf(out, "%" PRIu64 "\n", sum);
}

static void print_failures(FILE *out, const struct metrics_view *view, const struct row *row,
                           size_t upstream)
{
    for (size_t cause = FAILURE_NONE + 1; cause < FAILURE_COUNT; cause++) {
        uint64_t with_value;
        const size_t offset = row->offset + cause * sizeof(metric);
        const uint64_t sum = sum_for_upstream(view, upstream, offset, &with_value);
        print_upstream_labels(out, row, view->upstream_labels[upstream],
                              failure_label((enum failure)cause));
        fprintf(out, "%" PRIu64 "\n", sum);
    }
}

/* The count is what the buckets add up to, so that a scrape in the midst of a record is consistent
 * in itself. */
static void print_histogram(FILE *out, const struct metrics_view *view, const struct row *row)
{
    uint64_t count = 0;
    for (size_t bucket = 0; bucket < HISTOGRAM_BUCKETS; bucket++) {
        const size_t offset = offsetof(struct histogram, buckets) + bucket * sizeof(metric);
        count += sum_of_workers(view, row->offset + offset);
        fprintf(out, "%s_bucket{%s%sle=\"", row->name, row->labels, *row->labels ? "," : "");
        if (bucket + 1 < HISTOGRAM_BUCKETS)
            fprintf(out, "%.9g\"} %" PRIu64 "\n", seconds(FIRST_BUCKET_NS << bucket), count);
        else
            fprintf(out, "+Inf\"} %" PRIu64 "\n", count);
    }
    const uint64_t sum_ns = sum_of_workers(view, row->offset + offsetof(struct histogram, sum_ns));
    const char *const open = *row->labels ? "{" : "";
    const char *const close = *row->labels ? "}" : "";
    fprintf(out, "%s_sum%s%s%s %.9f\n", row->name, open, row->labels, close, seconds(sum_ns));
    fprintf(out, "%s_count%s%s%s %" PRIu64 "\n", row->name, open, row->labels, close, count);
}

static void print_row(FILE *out, const struct metrics_view *view, const struct row *row)
{
    switch (row->kind) {
    case KIND_COUNTER:
    case KIND_GAUGE:
        print_sample(out, row->name, row->labels, sum_of_workers(view, row->offset));
        break;
    case KIND_HISTOGRAM:
        print_histogram(out, view, row);
        break;
    case KIND_UPSTREAM_COUNTER:
    case KIND_UPSTREAM_GAUGE:
        for (size_t upstream = 0; upstream < view->upstream_count; upstream++)
            print_upstream(out, view, row, upstream);
        break;
    case KIND_UPSTREAM_FAILURES:
        for (size_t upstream = 0; upstream < view->upstream_count; upstream++)
            print_failures(out, view, row, upstream);
        break;
    }
}

void metrics_print(FILE *out, const struct metrics_view *view)
{
    for (size_t i = 0; i < view->worker_count; i++)
        assert(view->workers[i]->upstream_count == view->upstream_count);

    const char *name = "";
    for (size_t i = 0; i < ROW_COUNT; i++) {
        if (strcmp(rows[i].name, name) != 0)
            print_head(out, rows[i].name, type_of(rows[i].kind), rows[i].help);
        name = rows[i].name;
        print_row(out, view, &rows[i]);
    }
    const uint64_t values[] = {view->cache_bytes, view->cache_entries, view->log_dropped,
                               view->start_time_s, 1};
    static_assert(sizeof(values) / sizeof(*values) == PROCESS_ROW_COUNT, "one value for each row");
    for (size_t i = 0; i < PROCESS_ROW_COUNT; i++) {
        print_head(out, process_rows[i].name, process_rows[i].type, process_rows[i].help);
        print_sample(out, process_rows[i].name, process_rows[i].labels, values[i]);
    }
}

/* ---- docs/reference.md ---- */

static const char *labels_for_reference(const struct row *row)
{
    switch (row->kind) {
    case KIND_UPSTREAM_COUNTER:
    case KIND_UPSTREAM_GAUGE:
        return "upstream";
    case KIND_UPSTREAM_FAILURES:
        return "upstream, cause";
    case KIND_COUNTER:
    case KIND_GAUGE:
    case KIND_HISTOGRAM:
        return "";
    }
    return "";
}

static void print_reference_row(FILE *out, const char *name, const char *type, const char *common,
                                const char *labels, const char *help)
{
    fprintf(out, "| `%s` | %s | %s%s", name, type, common, *common && *labels ? ", " : "");
    if (*labels)
        fprintf(out, "`%s`", labels);
    fprintf(out, " | %s |\n", help);
}

void metrics_print_reference(FILE *out)
{
    fputs("| Metric | Type | Labels | Meaning |\n|---|---|---|---|\n", out);
    for (size_t i = 0; i < ROW_COUNT; i++)
        print_reference_row(out, rows[i].name, type_of(rows[i].kind),
                            labels_for_reference(&rows[i]), rows[i].labels, rows[i].help);
    for (size_t i = 0; i < PROCESS_ROW_COUNT; i++) {
        /* The docs are not generated anew for each version. */
        const char *labels = *process_rows[i].labels ? "version" : "";
        print_reference_row(out, process_rows[i].name, process_rows[i].type, labels, "",
                            process_rows[i].help);
    }
    fputs("\n| `cause` | Meaning |\n|---|---|\n", out);
    for (size_t cause = FAILURE_NONE + 1; cause < FAILURE_COUNT; cause++)
        fprintf(out, "| `%s` | %s |\n", failure_label((enum failure)cause),
                failure_text((enum failure)cause));
}
