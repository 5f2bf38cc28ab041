// SPDX-License-Identifier: Apache-2.0
/* What `dnsproxy probe` saw of one upstream, as plain data, and the table that it prints. */
#ifndef CONTROL_PROBE_REPORT_H
#define CONTROL_PROBE_REPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/failure.h"
#include "config/config.h"

enum resumption { RESUMPTION_UNKNOWN, RESUMPTION_YES, RESUMPTION_NO, RESUMPTION_FAILED };

struct probe_result {
    const char *upstream;     /* its label */
    enum failure failure;     /* FAILURE_NONE: it answered */
    char reason[256];         /* OpenSSL's or the system's words for the failure, "" for none */
    char pin[PIN_TEXT_SIZE];  /* SHA-256 of its SubjectPublicKeyInfo, "" when it showed none */
    bool is_authenticated;    /* the handshake was completed; the next four are set */
    bool has_alpn;            /* it chose ALPN "dot" */
    char version[16];         /* "TLSv1.3" */
    char cipher[48];          /* "TLS_AES_256_GCM_SHA384" */
    uint64_t handshake_ns;    /* TLS alone */
    bool is_connected;        /* TCP was up; connect_ns is set */
    uint64_t connect_ns;      /* TCP alone */
    bool is_answered;         /* a valid message came; the next four are set */
    bool has_padding;         /* RFC 7830 */
    bool has_keepalive;       /* RFC 7828 */
    uint16_t keepalive_100ms; /* idle time that the upstream allows */
    uint64_t query_ns;        /* from the query to its answer */
    enum resumption resumption;
};

/* One row for each result; below a failed one, the cause, and the pin of the certificate. */
void probe_report(FILE *out, const struct probe_result *results, size_t count);

#endif
