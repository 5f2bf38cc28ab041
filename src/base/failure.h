// SPDX-License-Identifier: Apache-2.0
/* Every way in which asking an upstream can fail. One row gives the enum, the code of the extended
 * error (RFC 8914: 22 is "no reachable authority", 23 "network error", 0 "other") of a reply, what
 * follows from it (the bits below, by short names), the label in the metrics, and the words in log
 * lines and in the extended error. */
#ifndef BASE_FAILURE_H
#define BASE_FAILURE_H

#include <stdbool.h>

#define FAILURES(ROW)                                                                             \
    ROW(NONE, 23, PASSES, "none", "no failure")                                                   \
    ROW(NAME_LOOKUP, 23, SLOW | PASSES, "name_lookup", "its name could not be looked up")         \
    ROW(SELF, 23, 0, "loop", "is this daemon itself")                                             \
    ROW(REFUSED_CONNECTION, 23, PASSES, "connection_refused", "connection refused")               \
    ROW(UNREACHABLE, 23, PASSES, "unreachable", "network unreachable")                            \
    ROW(CONNECT_TIMEOUT, 23, SLOW | PASSES, "connect_timeout", "no answer to the TCP connect")    \
    ROW(HANDSHAKE_TIMEOUT, 23, SLOW | PASSES, "handshake_timeout", "TLS handshake took too long") \
    ROW(CERTIFICATE_NAME, 23, 0, "certificate_name", "certificate is for another name")           \
    ROW(CERTIFICATE_EXPIRED, 23, 0, "certificate_expired", "certificate has expired")             \
    ROW(CERTIFICATE_NOT_YET_VALID, 23, 0, "certificate_not_yet_valid",                            \
        "certificate is not yet valid")                                                           \
    ROW(CERTIFICATE_UNTRUSTED, 23, 0, "certificate_untrusted",                                    \
        "certificate is from an unknown authority")                                               \
    ROW(CERTIFICATE_PIN, 23, 0, "certificate_pin", "certificate matches no configured pin")       \
    ROW(CERTIFICATE_INVALID, 23, 0, "certificate_invalid", "certificate is not valid")            \
    ROW(TLS, 23, CLOSE, "tls", "TLS handshake failed")                                            \
    ROW(CLOSED, 23, CLOSE | PASSES, "closed", "connection closed before the answer")              \
    ROW(RESET, 23, CLOSE | PASSES, "reset", "connection reset before the answer")                 \
    ROW(NETWORK_CHANGED, 23, PASSES | OURS, "network_changed", "the network has changed")         \
    ROW(REMOVED, 23, PASSES | OURS, "removed", "is no longer in the configuration")               \
    ROW(PROTOCOL, 0, CLOSE | PASSES, "protocol", "answers that break the protocol")               \
    ROW(STALLED, 23, SILENCE | SLOW | PASSES, "stalled", "connection accepts no more data")       \
    ROW(REQUEST_TIMEOUT, 22, SILENCE | SLOW | PASSES | OF_NAME, "request_timeout",                \
        "no answer in time")                                                                      \
    ROW(MALFORMED_ANSWER, 0, OF_NAME, "malformed_answer", "malformed answer")                     \
    ROW(TRUNCATED_ANSWER, 0, 0, "truncated_answer", "truncated answer over TLS")                  \
    ROW(SERVER_FAILURE, 0, 0, "server_failure", "upstream answered SERVFAIL")                     \
    ROW(REFUSED, 0, 0, "refused", "upstream answered REFUSED")                                    \
    ROW(OTHER_RCODE, 0, 0, "other_rcode", "upstream answered with an error")                      \
    ROW(CONVICTED, 0, OF_NAME, "convicted", "closes each connection that is asked this")          \
    ROW(OVERLOADED, 0, 0, "overloaded", "every connection is full")                               \
    ROW(BACKING_OFF, 22, 0, "backing_off", "all upstreams failed a moment ago")                   \
    ROW(LOCAL, 0, PASSES, "local", "out of local resources")

enum failure {
#define FAILURE_ENUM(name, code, bits, label, text) FAILURE_##name,
    FAILURES(FAILURE_ENUM)
#undef FAILURE_ENUM
        FAILURE_COUNT
};

/* What follows from a failure: bits. */
enum {
    FAILURE_IS_CLOSE = 1,   /* the server has ended an open connection, nobody knows why */
    FAILURE_IS_SILENCE = 2, /* it says nothing, or takes nothing */
    FAILURE_IS_SLOW = 4,    /* to find it out took a timeout */
    FAILURE_PASSES = 8,     /* by itself, as a restart does, or our own want of descriptors */
    FAILURE_OF_NAME = 16,   /* rather than of the way there, which is remembered by back-off */
    FAILURE_IS_OURS = 32,   /* we have ended the connection: nobody is to blame */
};

/* True when one of the bits is true of it. */
bool failure_is(enum failure failure, unsigned bits);

static inline bool failure_is_close(enum failure failure)
{
    return failure_is(failure, FAILURE_IS_CLOSE);
}

/* RFC 8914 5.2. */
unsigned failure_extended_error(enum failure failure);

/* The value of the metrics label `cause`. */
const char *failure_label(enum failure failure);

/* A clause for people, without the upstream's name. */
const char *failure_text(enum failure failure);

#endif
