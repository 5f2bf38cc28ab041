// SPDX-License-Identifier: Apache-2.0
/* Every way in which asking an upstream can fail. One row gives the enum, the label in the metrics,
 * and the words in log lines and in the extended error (RFC 8914) of a reply. */
#ifndef BASE_FAILURE_H
#define BASE_FAILURE_H

#include <stdbool.h>

#define FAILURES(ROW)                                                                           \
    ROW(NONE, "none", "no failure")                                                             \
    ROW(NAME_LOOKUP, "name_lookup", "its name could not be looked up")                          \
    ROW(SELF, "loop", "is this daemon itself")                                                  \
    ROW(REFUSED_CONNECTION, "connection_refused", "connection refused")                         \
    ROW(UNREACHABLE, "unreachable", "network unreachable")                                      \
    ROW(CONNECT_TIMEOUT, "connect_timeout", "no answer to the TCP connect")                     \
    ROW(HANDSHAKE_TIMEOUT, "handshake_timeout", "TLS handshake took too long")                  \
    ROW(CERTIFICATE_NAME, "certificate_name", "certificate is for another name")                \
    ROW(CERTIFICATE_EXPIRED, "certificate_expired", "certificate has expired")                  \
    ROW(CERTIFICATE_NOT_YET_VALID, "certificate_not_yet_valid", "certificate is not yet valid") \
    ROW(CERTIFICATE_UNTRUSTED, "certificate_untrusted",                                         \
        "certificate is from an unknown authority")                                             \
    ROW(CERTIFICATE_PIN, "certificate_pin", "certificate matches no configured pin")            \
    ROW(CERTIFICATE_INVALID, "certificate_invalid", "certificate is not valid")                 \
    ROW(TLS, "tls", "TLS handshake failed")                                                     \
    ROW(CLOSED, "closed", "connection closed before the answer")                                \
    ROW(RESET, "reset", "connection reset before the answer")                                   \
    ROW(NETWORK_CHANGED, "network_changed", "the network has changed")                          \
    ROW(PROTOCOL, "protocol", "answers that break the protocol")                                \
    ROW(STALLED, "stalled", "connection accepts no more data")                                  \
    ROW(REQUEST_TIMEOUT, "request_timeout", "no answer in time")                                \
    ROW(MALFORMED_ANSWER, "malformed_answer", "malformed answer")                               \
    ROW(TRUNCATED_ANSWER, "truncated_answer", "truncated answer over TLS")                      \
    ROW(SERVER_FAILURE, "server_failure", "upstream answered SERVFAIL")                         \
    ROW(REFUSED, "refused", "upstream answered REFUSED")                                        \
    ROW(OTHER_RCODE, "other_rcode", "upstream answered with an error")                          \
    ROW(CONVICTED, "convicted", "closes each connection that is asked this")                    \
    ROW(OVERLOADED, "overloaded", "every connection is full")                                   \
    ROW(BACKING_OFF, "backing_off", "all upstreams failed a moment ago")                        \
    ROW(LOCAL, "local", "out of local resources")

enum failure {
#define FAILURE_ENUM(name, label, text) FAILURE_##name,
    FAILURES(FAILURE_ENUM)
#undef FAILURE_ENUM
        FAILURE_COUNT
};

/* The server has ended an open connection, for a reason that we do not know. */
bool failure_is_close(enum failure failure);

/* The value of the metrics label `cause`. */
const char *failure_label(enum failure failure);

/* A clause for people, without the upstream's name. */
const char *failure_text(enum failure failure);

#endif
