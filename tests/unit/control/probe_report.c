// SPDX-License-Identifier: Apache-2.0
/* The table of `dnsproxy probe`: what its reader sees for each outcome. */
#include "test.h"

#include <stdlib.h>
#include <string.h>

#include "control/probe_report.h"

static const struct probe_result good = {
    .upstream = "1.1.1.1:853#one.example",
    .is_connected = true,
    .connect_ns = 4200000,
    .is_authenticated = true,
    .has_alpn = true,
    .pin = "AAgQGCAoMDhASFBYYGhweICIkJigqLC4wMjQ2ODo8Pg=",
    .version = "TLSv1.3",
    .cipher = "TLS_AES_128_GCM_SHA256",
    .handshake_ns = 9960000,
    .is_answered = true,
    .has_padding = true,
    .has_keepalive = true,
    .keepalive_100ms = 105,
    .query_ns = 12000000,
    .resumption = RESUMPTION_YES,
};

static char *report_of(const struct probe_result *results, size_t count)
{
    char *text = NULL;
    size_t length = 0;
    FILE *out = open_memstream(&text, &length);
    probe_report(out, results, count);
    fclose(out);
    return text;
}

static void columns_are_aligned_and_good_rows_stand_alone(void **state)
{
    (void)state;
    struct probe_result results[2] = {good, good};
    results[1].upstream = "x";
    results[1].has_alpn = false;
    results[1].has_padding = false;
    results[1].has_keepalive = false;
    results[1].resumption = RESUMPTION_NO;
    char *text = report_of(results, 2);
    assert_string_equal(
        text,
        "UPSTREAM                 TLS      CIPHER                  CERTIFICATE  ALPN  RESUMES  PADS"
        "  KEEPALIVE  CONNECT  HANDSHAKE  QUERY\n"
        "1.1.1.1:853#one.example  TLSv1.3  TLS_AES_128_GCM_SHA256  ok           dot   yes      yes "
        "  10.5 s     4.2 ms   10.0 ms    12.0 ms\n"
        "x                        TLSv1.3  TLS_AES_128_GCM_SHA256  ok           no    no       no  "
        "  -          4.2 ms   10.0 ms    12.0 ms\n");
    free(text);
}

static void certificate_that_failed_is_told_with_cause_and_pin(void **state)
{
    (void)state;
    struct probe_result result = {
        .upstream = "192.0.2.1:853#x",
        .failure = FAILURE_CERTIFICATE_NAME,
        .reason = "hostname mismatch",
        .is_connected = true,
        .pin = "AAgQGCAoMDhASFBYYGhweICIkJigqLC4wMjQ2ODo8Pg=",
    };
    char *text = report_of(&result, 1);
    assert_non_null(strstr(text, " certificate is for another name "));
    assert_non_null(strstr(text, "\n    failed: certificate is for another name (hostname mismatch)"
                                 "\n    pin of the certificate it showed, not verified: "
                                 "sha256/AAgQGCAoMDhASFBYYGhweICIkJigqLC4wMjQ2ODo8Pg=\n"));
    free(text);
}

static void failure_after_the_handshake_keeps_what_was_seen(void **state)
{
    (void)state;
    struct probe_result result = good;
    result.failure = FAILURE_REQUEST_TIMEOUT;
    result.is_answered = false;
    result.resumption = RESUMPTION_UNKNOWN;
    char *text = report_of(&result, 1);
    assert_non_null(strstr(text, "ok           dot   -        -     -          4.2 ms   10.0 ms    "
                                 "-\n    failed: no answer in time\n"));
    assert_null(strstr(text, "sha256/"));
    free(text);
}

static void failure_before_tls_leaves_the_cells_empty(void **state)
{
    (void)state;
    struct probe_result results[2] = {
        {.upstream = "192.0.2.1:853#x", .failure = FAILURE_REFUSED_CONNECTION}, good};
    results[1].resumption = RESUMPTION_FAILED;
    char *text = report_of(results, 2);
    assert_non_null(strstr(text, "\n    failed: connection refused\n"));
    assert_non_null(strstr(text, " failed "));
    free(text);
}

static void words_from_elsewhere_cannot_drive_the_terminal(void **state)
{
    (void)state;
    const struct probe_result result = {
        .upstream = "a\x1b[2J\n\x7f", .failure = FAILURE_TLS, .reason = "b\x1b[2J\n\x7f"};
    char *text = report_of(&result, 1);
    assert_null(strchr(text, '\x1b'));
    assert_non_null(strstr(text, "a?[2J??"));
    assert_non_null(strstr(text, "(b?[2J?"
                                 "?)\n"));
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(columns_are_aligned_and_good_rows_stand_alone),
        cmocka_unit_test(certificate_that_failed_is_told_with_cause_and_pin),
        cmocka_unit_test(failure_after_the_handshake_keeps_what_was_seen),
        cmocka_unit_test(failure_before_tls_leaves_the_cells_empty),
        cmocka_unit_test(words_from_elsewhere_cannot_drive_the_terminal),
    };
    return cmocka_run_group_tests_name("control/probe_report", tests, NULL, NULL);
}
