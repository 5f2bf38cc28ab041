// SPDX-License-Identifier: Apache-2.0
/* Metrics: recording, and an exposition that a strict reader takes (FAULTS I7). */
#include "test.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "document.h"
#include "observe/metrics.h"

/* ---- a strict reader of the text format 0.0.4 ---- */

enum { NAME_SIZE = 128, SERIES_MAX = 1024, FAMILIES_MAX = 128 };

struct exposition {
    char *text;
    char families[FAMILIES_MAX][NAME_SIZE];
    size_t family_count;
    char *series[SERIES_MAX]; /* "name{labels}", pointing into text */
    double values[SERIES_MAX];
    size_t series_count;
    char type[16]; /* of the family being read */
    char helped[NAME_SIZE];
};

static const char *skip_name(const char *text)
{
    assert_true(isalpha((unsigned char)*text) || *text == '_' || *text == ':');
    while (isalnum((unsigned char)*text) || *text == '_' || *text == ':')
        text++;
    return text;
}

static const char *skip_labels(const char *text)
{
    do {
        text = skip_name(text + 1);
        assert_int_equal(*text++, '=');
        assert_int_equal(*text++, '"');
        for (; *text != '"'; text++) {
            assert_true((unsigned char)*text >= ' ' && (unsigned char)*text < 0x7f);
            if (*text == '\\') {
                text++;
                assert_non_null(strchr("\\\"n", *text));
            }
        }
        text++;
    } while (*text == ',');
    assert_int_equal(*text, '}');
    return text + 1;
}

static void read_help(struct exposition *exposition, const char *line)
{
    assert_int_equal(sscanf(line, "# HELP %127s", exposition->helped), 1);
    for (size_t i = 0; i < exposition->family_count; i++)
        assert_string_not_equal(exposition->families[i], exposition->helped);
    assert_true(strlen(line) > strlen("# HELP  ") + strlen(exposition->helped));
}

static void read_type(struct exposition *exposition, const char *line)
{
    assert_true(exposition->family_count < FAMILIES_MAX);
    char *family = exposition->families[exposition->family_count++];
    assert_int_equal(sscanf(line, "# TYPE %127s %15s", family, exposition->type), 2);
    assert_string_equal(family, exposition->helped);
    assert_true(strcmp(exposition->type, "counter") == 0 ||
                strcmp(exposition->type, "gauge") == 0 ||
                strcmp(exposition->type, "histogram") == 0);
}

static void check_family(const struct exposition *exposition, const char *line, size_t length)
{
    assert_true(exposition->family_count > 0);
    const char *family = exposition->families[exposition->family_count - 1];
    const size_t family_length = strlen(family);
    assert_true(length >= family_length && memcmp(line, family, family_length) == 0);
    if (strcmp(exposition->type, "histogram") != 0) {
        assert_int_equal(length, family_length);
        return;
    }
    const char *suffix = line + family_length;
    assert_true(memcmp(suffix, "_bucket", 7) == 0 || memcmp(suffix, "_sum", 4) == 0 ||
                memcmp(suffix, "_count", 6) == 0);
}

static void read_sample(struct exposition *exposition, char *line)
{
    const char *end = skip_name(line);
    check_family(exposition, line, (size_t)(end - line));
    if (*end == '{')
        end = skip_labels(end);
    assert_int_equal(*end, ' ');
    char *rest;
    const double value = strtod(end + 1, &rest);
    assert_true(rest > end + 1 && *rest == '\0' && value >= 0);
    line[end - line] = '\0';
    for (size_t i = 0; i < exposition->series_count; i++)
        assert_string_not_equal(exposition->series[i], line);
    assert_true(exposition->series_count < SERIES_MAX);
    exposition->series[exposition->series_count] = line;
    exposition->values[exposition->series_count++] = value;
}

static struct exposition *read_exposition(const struct metrics_view *view)
{
    struct exposition *exposition = calloc(1, sizeof(*exposition));
    assert_non_null(exposition);
    size_t length;
    FILE *out = open_memstream(&exposition->text, &length);
    metrics_print(out, view);
    assert_int_equal(fclose(out), 0);
    assert_int_equal(exposition->text[length - 1], '\n');
    for (char *line = strtok(exposition->text, "\n"); line; line = strtok(NULL, "\n")) {
        if (strncmp(line, "# HELP ", 7) == 0)
            read_help(exposition, line);
        else if (strncmp(line, "# TYPE ", 7) == 0)
            read_type(exposition, line);
        else
            read_sample(exposition, line);
    }
    return exposition;
}

static void exposition_free(struct exposition *exposition)
{
    free(exposition->text);
    free(exposition);
}

static double value_of(const struct exposition *exposition, const char *series)
{
    for (size_t i = 0; i < exposition->series_count; i++)
        if (strcmp(exposition->series[i], series) == 0)
            return exposition->values[i];
    fail_msg("no series %s", series);
    return -1;
}

#define assert_value(exposition, series, expected) \
    assert_true(value_of(exposition, series) == (expected))

/* ---- two workers, two upstreams ---- */

struct fixture {
    struct metrics *workers[2];
    struct metrics_view view;
};

static const char *const upstream_labels[] = {"1.1.1.1:853#one.example", "[2001:db8::1]:853"};

static int setup(void **state)
{
    struct fixture *fixture = calloc(1, sizeof(*fixture));
    assert_non_null(fixture);
    for (size_t i = 0; i < 2; i++) {
        fixture->workers[i] = metrics_open(2);
        assert_non_null(fixture->workers[i]);
    }
    fixture->view = (struct metrics_view){.workers = fixture->workers,
                                          .worker_count = 2,
                                          .upstream_labels = upstream_labels,
                                          .upstream_slots = 2,
                                          .cache_bytes = 4096,
                                          .cache_entries = 17,
                                          .log_dropped = 3,
                                          .start_time_s = 1700000000};
    *state = fixture;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;
    for (size_t i = 0; i < 2; i++)
        metrics_close(fixture->workers[i]);
    free(fixture);
    return 0;
}

static void counters_and_gauges_are_added_up_over_the_workers(void **state)
{
    struct fixture *fixture = *state;
    metric_add(&fixture->workers[0]->queries_udp, 2);
    metric_add(&fixture->workers[1]->queries_udp, 40);
    metric_add(&fixture->workers[1]->queries_in_flight, 5);
    metric_subtract(&fixture->workers[1]->queries_in_flight, 1);
    struct exposition *exposition = read_exposition(&fixture->view);
    assert_value(exposition, "dnsproxy_queries_total{transport=\"udp\"}", 42);
    assert_value(exposition, "dnsproxy_queries_total{transport=\"tcp\"}", 0);
    assert_value(exposition, "dnsproxy_queries_in_flight", 4);
    exposition_free(exposition);
}

static void J1_slot_that_nobody_has_is_in_no_series_and_begins_at_0(void **state)
{
    struct fixture *fixture = *state;
    const char *labels[2] = {NULL, upstream_labels[1]};
    fixture->view.upstream_labels = labels;
    metric_add(&fixture->workers[0]->upstreams[0].requests, 7);
    metric_add(&fixture->workers[0]->upstreams[1].requests, 9);
    struct exposition *exposition = read_exposition(&fixture->view);
    assert_value(exposition, "dnsproxy_upstream_requests_total{upstream=\"[2001:db8::1]:853\"}", 9);
    exposition_free(exposition);
    char *text = NULL;
    size_t length = 0;
    FILE *out = open_memstream(&text, &length);
    metrics_print(out, &fixture->view);
    fclose(out);
    assert_null(strstr(text, "one.example"));
    free(text);
    upstream_metrics_clear(&fixture->workers[0]->upstreams[0]);
    fixture->view.upstream_labels = upstream_labels;
    exposition = read_exposition(&fixture->view);
    assert_value(exposition,
                 "dnsproxy_upstream_requests_total{upstream=\"1.1.1.1:853#one.example\"}", 0);
    assert_value(exposition, "dnsproxy_upstream_requests_total{upstream=\"[2001:db8::1]:853\"}", 9);
    exposition_free(exposition);
}

static void upstream_metrics_carry_the_upstream_label(void **state)
{
    struct fixture *fixture = *state;
    metric_add(&fixture->workers[0]->upstreams[0].requests, 7);
    metric_add(&fixture->workers[1]->upstreams[1].requests, 9);
    metric_set(&fixture->workers[0]->upstreams[1].up, 1);
    metric_set(&fixture->workers[1]->upstreams[1].up, 1);
    metric_add(&fixture->workers[0]->upstreams[0].handshakes_resumed, 1);
    metric_add(&fixture->workers[0]->upstreams[0].failures[FAILURE_CERTIFICATE_NAME], 2);
    struct exposition *exposition = read_exposition(&fixture->view);
    assert_value(exposition,
                 "dnsproxy_upstream_requests_total{upstream=\"1.1.1.1:853#one.example\"}", 7);
    assert_value(exposition, "dnsproxy_upstream_requests_total{upstream=\"[2001:db8::1]:853\"}", 9);
    assert_value(exposition, "dnsproxy_upstream_up{upstream=\"[2001:db8::1]:853\"}", 2);
    assert_value(exposition, "dnsproxy_upstream_up{upstream=\"1.1.1.1:853#one.example\"}", 0);
    assert_value(exposition,
                 "dnsproxy_upstream_handshakes_total{upstream=\"1.1.1.1:853#one.example\","
                 "kind=\"resumed\"}",
                 1);
    assert_value(exposition,
                 "dnsproxy_upstream_failures_total{upstream=\"1.1.1.1:853#one.example\","
                 "cause=\"certificate_name\"}",
                 2);
    exposition_free(exposition);
}

static void round_trip_time_is_the_mean_of_the_workers_that_have_one(void **state)
{
    struct fixture *fixture = *state;
    metric_set(&fixture->workers[0]->upstreams[0].rtt_ns, 10000000);
    metric_set(&fixture->workers[1]->upstreams[0].rtt_ns, 30000000);
    metric_set(&fixture->workers[1]->upstreams[1].rtt_ns, 5000000);
    struct exposition *exposition = read_exposition(&fixture->view);
    assert_value(exposition, "dnsproxy_upstream_rtt_seconds{upstream=\"1.1.1.1:853#one.example\"}",
                 0.02);
    assert_value(exposition, "dnsproxy_upstream_rtt_seconds{upstream=\"[2001:db8::1]:853\"}",
                 0.005);
    exposition_free(exposition);
}

static void process_metrics_come_from_the_view(void **state)
{
    struct fixture *fixture = *state;
    struct exposition *exposition = read_exposition(&fixture->view);
    assert_value(exposition, "dnsproxy_cache_bytes", 4096);
    assert_value(exposition, "dnsproxy_cache_entries", 17);
    assert_value(exposition, "dnsproxy_log_dropped_total", 3);
    assert_value(exposition, "process_start_time_seconds", 1700000000);
    assert_value(exposition, "dnsproxy_build_info{version=\"" DNSPROXY_VERSION "\"}", 1);
    exposition_free(exposition);
}

static void histogram_bucket_i_ends_at_16_microseconds_times_2_to_i(void **state)
{
    (void)state;
    for (size_t bucket = 0; bucket < HISTOGRAM_BUCKETS; bucket++) {
        const uint64_t limit_ns = UINT64_C(16000) << bucket;
        struct histogram histogram = {0};
        histogram_record(&histogram, limit_ns);
        assert_int_equal(metric_get(&histogram.buckets[bucket]), 1);
        histogram_record(&histogram, limit_ns + 1);
        const size_t next = bucket + 1 < HISTOGRAM_BUCKETS ? bucket + 1 : bucket;
        assert_int_equal(metric_get(&histogram.buckets[next]), next == bucket ? 2 : 1);
        assert_int_equal(metric_get(&histogram.sum_ns), 2 * limit_ns + 1);
    }
    struct histogram histogram = {0};
    histogram_record(&histogram, 0);
    histogram_record(&histogram, UINT64_MAX);
    assert_int_equal(metric_get(&histogram.buckets[0]), 1);
    assert_int_equal(metric_get(&histogram.buckets[HISTOGRAM_BUCKETS - 1]), 1);
}

static void histogram_is_cumulative_and_ends_with_infinity(void **state)
{
    struct fixture *fixture = *state;
    histogram_record(&fixture->workers[0]->query_seconds, 10000);
    histogram_record(&fixture->workers[1]->query_seconds, 5000000);
    histogram_record(&fixture->workers[1]->query_seconds, UINT64_C(90000000000));
    struct exposition *exposition = read_exposition(&fixture->view);
    double previous_value = 0;
    double previous_limit = 0;
    size_t buckets = 0;
    static const char prefix[] = "dnsproxy_query_duration_seconds_bucket{le=\"";
    for (size_t i = 0; i < exposition->series_count; i++) {
        if (strncmp(exposition->series[i], prefix, sizeof(prefix) - 1) != 0)
            continue;
        const double limit = strtod(exposition->series[i] + sizeof(prefix) - 1, NULL);
        assert_true(limit > previous_limit);
        assert_true(exposition->values[i] >= previous_value);
        previous_limit = limit;
        previous_value = exposition->values[i];
        buckets++;
    }
    assert_int_equal(buckets, HISTOGRAM_BUCKETS);
    assert_value(exposition, "dnsproxy_query_duration_seconds_bucket{le=\"1.6e-05\"}", 1);
    assert_value(exposition, "dnsproxy_query_duration_seconds_bucket{le=\"4.194304\"}", 2);
    assert_value(exposition, "dnsproxy_query_duration_seconds_bucket{le=\"+Inf\"}", 3);
    assert_value(exposition, "dnsproxy_query_duration_seconds_count", 3);
    assert_value(exposition, "dnsproxy_query_duration_seconds_sum", 90.00501);
    exposition_free(exposition);
}

static void I7_hostile_upstream_label_is_escaped(void **state)
{
    struct fixture *fixture = *state;
    static const char *const hostile[] = {"a\"} 1\nfake_metric 2\n#\\", "\x1b[2J\xff\x7f\r"};
    fixture->view.upstream_labels = hostile;
    struct exposition *exposition = read_exposition(&fixture->view);
    assert_value(exposition, "dnsproxy_upstream_up{upstream=\"a\\\"} 1\\nfake_metric 2\\n#\\\\\"}",
                 0);
    assert_value(exposition, "dnsproxy_upstream_up{upstream=\"?[2J???\"}", 0);
    exposition_free(exposition);
}

static void every_metric_is_in_the_reference(void **state)
{
    struct fixture *fixture = *state;
    char *text = NULL;
    size_t length = 0;
    FILE *out = open_memstream(&text, &length);
    print_reference(out);
    fclose(out);
    struct exposition *exposition = read_exposition(&fixture->view);
    for (size_t i = 0; i < exposition->family_count; i++) {
        char start[NAME_SIZE + 8];
        snprintf(start, sizeof(start), "| `%s` |", exposition->families[i]);
        assert_non_null(strstr(text, start));
    }
    for (int failure = FAILURE_NONE + 1; failure < FAILURE_COUNT; failure++)
        assert_non_null(strstr(text, failure_label((enum failure)failure)));
    assert_non_null(strstr(text, "| `dnsproxy_upstream_handshakes_total` | counter | upstream, "
                                 "`kind=\"resumed\"` | TLS handshakes completed |\n"));
    assert_null(strstr(text, DNSPROXY_VERSION)); /* else the page would age with each release */
    exposition_free(exposition);
    free(text);
}

static void no_upstream_and_no_metrics_are_fine(void **state)
{
    (void)state;
    metrics_close(NULL);
    struct metrics *metrics = metrics_open(0);
    assert_non_null(metrics);
    struct exposition *exposition = read_exposition(
        &(struct metrics_view){.workers = &metrics, .worker_count = 1, .upstream_labels = NULL});
    assert_value(exposition, "dnsproxy_cache_bytes", 0);
    exposition_free(exposition);
    metrics_close(metrics);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(counters_and_gauges_are_added_up_over_the_workers, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(J1_slot_that_nobody_has_is_in_no_series_and_begins_at_0,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(upstream_metrics_carry_the_upstream_label, setup, teardown),
        cmocka_unit_test_setup_teardown(round_trip_time_is_the_mean_of_the_workers_that_have_one,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(process_metrics_come_from_the_view, setup, teardown),
        cmocka_unit_test(histogram_bucket_i_ends_at_16_microseconds_times_2_to_i),
        cmocka_unit_test_setup_teardown(histogram_is_cumulative_and_ends_with_infinity, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(I7_hostile_upstream_label_is_escaped, setup, teardown),
        cmocka_unit_test_setup_teardown(every_metric_is_in_the_reference, setup, teardown),
        cmocka_unit_test(no_upstream_and_no_metrics_are_fine),
    };
    return cmocka_run_group_tests_name("observe/metrics", tests, NULL, NULL);
}
