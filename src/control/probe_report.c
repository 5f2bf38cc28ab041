// SPDX-License-Identifier: Apache-2.0
/* The table of `dnsproxy probe`: cells first, then the widths, then the rows.
 *
 * Thread: main.   Owner: none, it keeps nothing.
 * RFC:    4648 4 (base64 of a pin). */
#include "control/probe_report.h"

#include <assert.h>
#include <string.h>

#include "base/deadline.h"

enum column {
    COLUMN_UPSTREAM,
    COLUMN_VERSION,
    COLUMN_CIPHER,
    COLUMN_CERTIFICATE,
    COLUMN_ALPN,
    COLUMN_RESUMPTION,
    COLUMN_PADDING,
    COLUMN_KEEPALIVE,
    COLUMN_CONNECT,
    COLUMN_HANDSHAKE,
    COLUMN_QUERY,
    COLUMN_COUNT
};

static const char *const titles[COLUMN_COUNT] = {
    "UPSTREAM", "TLS",       "CIPHER",  "CERTIFICATE", "ALPN",  "RESUMES",
    "PADS",     "KEEPALIVE", "CONNECT", "HANDSHAKE",   "QUERY",
};

enum { CELL_SIZE = 320, BASE64_SIZE = (PIN_SIZE + 2) / 3 * 4 + 1 };

struct row {
    char cells[COLUMN_COUNT][CELL_SIZE];
};

static void set_cell(struct row *row, enum column column, const char *text)
{
    snprintf(row->cells[column], CELL_SIZE, "%s", *text ? text : "-");
    /* A label comes from the configuration; a terminal must not obey it. */
    for (char *at = row->cells[column]; *at; at++)
        if ((unsigned char)*at < ' ' || *at == 0x7f)
            *at = '?';
}

static void set_time(struct row *row, enum column column, uint64_t duration_ns)
{
    snprintf(row->cells[column], CELL_SIZE, "%.1f ms",
             (double)duration_ns / (double)NANOSECONDS_PER_MILLISECOND);
}

static bool is_about_certificate(enum failure failure)
{
    return failure >= FAILURE_CERTIFICATE_NAME && failure <= FAILURE_CERTIFICATE_INVALID;
}
static_assert(FAILURE_CERTIFICATE_INVALID - FAILURE_CERTIFICATE_NAME == 5,
              "the failures of a certificate stand together");

static const char *verdict(const struct probe_result *result)
{
    if (result->is_authenticated)
        return "ok";
    return is_about_certificate(result->failure) ? failure_text(result->failure) : "-";
}

static const char *resumption_text(enum resumption resumption)
{
    switch (resumption) {
    case RESUMPTION_YES:
        return "yes";
    case RESUMPTION_NO:
        return "no";
    case RESUMPTION_FAILED:
        return "failed";
    case RESUMPTION_UNKNOWN:
        return "-";
    }
    return "-";
}

static void fill_answer(struct row *row, const struct probe_result *result)
{
    set_cell(row, COLUMN_PADDING, result->has_padding ? "yes" : "no");
    if (result->has_keepalive)
        snprintf(row->cells[COLUMN_KEEPALIVE], CELL_SIZE, "%u.%u s", result->keepalive_100ms / 10U,
                 result->keepalive_100ms % 10U);
    set_time(row, COLUMN_QUERY, result->query_ns);
}

static void fill(struct row *row, const struct probe_result *result)
{
    for (size_t column = 0; column < COLUMN_COUNT; column++)
        set_cell(row, (enum column)column, "");
    set_cell(row, COLUMN_UPSTREAM, result->upstream);
    set_cell(row, COLUMN_VERSION, result->version);
    set_cell(row, COLUMN_CIPHER, result->cipher);
    set_cell(row, COLUMN_CERTIFICATE, verdict(result));
    set_cell(row, COLUMN_RESUMPTION, resumption_text(result->resumption));
    if (result->is_connected)
        set_time(row, COLUMN_CONNECT, result->connect_ns);
    if (result->is_authenticated) {
        set_cell(row, COLUMN_ALPN, result->has_alpn ? "dot" : "no");
        set_time(row, COLUMN_HANDSHAKE, result->handshake_ns);
    }
    if (result->is_answered)
        fill_answer(row, result);
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

static void encode_base64(const uint8_t pin[static PIN_SIZE], char out[static BASE64_SIZE])
{
    static const char alphabet[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    size_t length = 0;
    for (size_t i = 0; i < PIN_SIZE; i += 3) {
        const size_t left = PIN_SIZE - i;
        const uint32_t group = (uint32_t)pin[i] << 16 | (left > 1 ? (uint32_t)pin[i + 1] << 8 : 0) |
                               (left > 2 ? pin[i + 2] : 0U);
        out[length++] = alphabet[group >> 18];
        out[length++] = alphabet[group >> 12 & 63];
        out[length++] = left > 1 ? alphabet[group >> 6 & 63] : '=';
        out[length++] = left > 2 ? alphabet[group & 63] : '=';
    }
    out[length] = '\0';
}

/* The pin helps whoever runs that upstream to compare; that it was shown proves nothing. */
static void print_failure(FILE *out, const struct probe_result *result)
{
    const char *cause = failure_text(result->failure);
    fprintf(out, "    failed: %s", cause);
    const bool has_reason = *result->reason && strcmp(result->reason, cause) != 0;
    fputs(has_reason ? " (" : "\n", out);
    for (const char *at = result->reason; has_reason && *at; at++)
        fputc((unsigned char)*at < ' ' || *at == 0x7f ? '?' : *at, out);
    fputs(has_reason ? ")\n" : "", out);
    if (!result->has_pin || result->is_authenticated)
        return;
    char base64[BASE64_SIZE];
    encode_base64(result->pin, base64);
    fprintf(out, "    pin of the certificate it showed, not verified: sha256/%s\n", base64);
}

void probe_report(FILE *out, const struct probe_result *results, size_t count)
{
    assert(count <= CONFIG_UPSTREAMS_MAX);
    struct row title = {0};
    struct row rows[CONFIG_UPSTREAMS_MAX];
    int widths[COLUMN_COUNT] = {0};
    for (size_t column = 0; column < COLUMN_COUNT; column++)
        set_cell(&title, (enum column)column, titles[column]);
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
