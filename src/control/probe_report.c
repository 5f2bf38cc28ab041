// SPDX-License-Identifier: Apache-2.0
/* The table of `dnsproxy probe`: cells first, then the widths, then the rows.
 *
 * Thread: main.   Owner: none, it keeps nothing. */
#include "control/probe_report.h"

#include <assert.h>
#include <string.h>

#include "base/deadline.h"

static const char *const titles[] = {
    "UPSTREAM", "TLS",       "CIPHER",  "CERTIFICATE", "ALPN",  "RESUMES",
    "PADS",     "KEEPALIVE", "CONNECT", "HANDSHAKE",   "QUERY",
};

enum {
    COLUMN_COUNT = sizeof(titles) / sizeof(*titles),
    CELL_SIZE = 320,
};

struct row {
    size_t count;
    char cells[COLUMN_COUNT][CELL_SIZE];
};

/* The next cell from the left. */
static void add_cell(struct row *row, const char *text)
{
    assert(row->count < COLUMN_COUNT);
    char *cell = row->cells[row->count++];
    snprintf(cell, CELL_SIZE, "%s", *text ? text : "-");
    /* A label comes from the configuration; a terminal must not obey it. */
    for (; *cell; cell++)
        if ((unsigned char)*cell < ' ' || *cell == 0x7f)
            *cell = '?';
}

static void add_time(struct row *row, bool is_known, uint64_t duration_ns)
{
    char text[32] = "";
    if (is_known)
        snprintf(text, sizeof(text), "%.1f ms",
                 (double)duration_ns / (double)NANOSECONDS_PER_MILLISECOND);
    add_cell(row, text);
}

static void add_answer(struct row *row, bool is_known, bool is_yes, const char *yes)
{
    add_cell(row, !is_known ? "" : is_yes ? yes : "no");
}

static bool is_about_certificate(enum failure failure)
{
    return failure >= FAILURE_CERTIFICATE_NAME && failure <= FAILURE_CERTIFICATE_INVALID;
}
static_assert(FAILURE_CERTIFICATE_INVALID - FAILURE_CERTIFICATE_NAME == 5,
              "the failures of a certificate stand together");

static const char *verdict(const struct probe_result *result)
{
    assert(result->failure < FAILURE_COUNT);
    if (result->is_authenticated)
        return "ok";
    return is_about_certificate(result->failure) ? failure_text(result->failure) : "-";
}

static const char *const resumption_texts[] = {[RESUMPTION_UNKNOWN] = "-",
                                               [RESUMPTION_YES] = "yes",
                                               [RESUMPTION_NO] = "no",
                                               [RESUMPTION_FAILED] = "failed"};

static void fill(struct row *row, const struct probe_result *result)
{
    assert(result->upstream);
    char keepalive[32] = "";
    if (result->is_answered && result->has_keepalive)
        snprintf(keepalive, sizeof(keepalive), "%u.%u s", result->keepalive_100ms / 10U,
                 result->keepalive_100ms % 10U);
    row->count = 0;
    add_cell(row, result->upstream);
    add_cell(row, result->version);
    add_cell(row, result->cipher);
    add_cell(row, verdict(result));
    add_answer(row, result->is_authenticated, result->has_alpn, "dot");
    add_cell(row, resumption_texts[result->resumption]);
    add_answer(row, result->is_answered, result->has_padding, "yes");
    add_cell(row, keepalive);
    add_time(row, result->is_connected, result->connect_ns);
    add_time(row, result->is_authenticated, result->handshake_ns);
    add_time(row, result->is_answered, result->query_ns);
}

static void widen(int widths[static COLUMN_COUNT], const struct row *row)
{
    for (size_t column = 0; column < COLUMN_COUNT; column++) {
        const int length = (int)strlen(row->cells[column]);
        if (length > widths[column])
            widths[column] = length;
    }
}

static void print_row(FILE *out, const int widths[static COLUMN_COUNT], const struct row *row)
{
    for (size_t column = 0; column + 1 < COLUMN_COUNT; column++)
        fprintf(out, "%-*s  ", widths[column], row->cells[column]);
    fprintf(out, "%s\n", row->cells[COLUMN_COUNT - 1]);
}

/* The pin helps whoever runs that upstream to compare; that it was shown proves nothing. */
static void print_failure(FILE *out, const struct probe_result *result)
{
    assert(result->failure != FAILURE_NONE);
    const char *cause = failure_text(result->failure);
    fprintf(out, "    failed: %s", cause);
    const bool has_reason = *result->reason && strcmp(result->reason, cause) != 0;
    fputs(has_reason ? " (" : "\n", out);
    for (const char *at = result->reason; has_reason && *at; at++)
        fputc((unsigned char)*at < ' ' || *at == 0x7f ? '?' : *at, out);
    fputs(has_reason ? ")\n" : "", out);
    if (*result->pin && !result->is_authenticated)
        fprintf(out, "    pin of the certificate it showed, not verified: sha256/%s\n",
                result->pin);
}

void probe_report(FILE *out, const struct probe_result *results, size_t count)
{
    assert(out && (results || count == 0));
    assert(count <= CONFIG_UPSTREAMS_MAX);
    struct row title = {0};
    struct row rows[CONFIG_UPSTREAMS_MAX];
    int widths[COLUMN_COUNT] = {0};
    for (size_t column = 0; column < COLUMN_COUNT; column++)
        add_cell(&title, titles[column]);
    widen(widths, &title);
    for (size_t i = 0; i < count; i++) {
        fill(&rows[i], &results[i]);
        widen(widths, &rows[i]);
    }
    print_row(out, widths, &title);
    for (size_t i = 0; i < count; i++) {
        print_row(out, widths, &rows[i]);
        if (results[i].failure != FAILURE_NONE)
            print_failure(out, &results[i]);
    }
}
