// SPDX-License-Identifier: Apache-2.0
/* All of OpenSSL: trust, the TLS settings of one upstream, and one TLS connection over a socket.
 *
 * Authentication is strict (RFC 8310): tls_handshake gives STATUS_OK only after the certificate
 * chain leads to a trusted root and names the configured name (RFC 9525: SAN only, a DNS name or an
 * IP address), and one of the pins matches when there are any; with pins and no name, the pin alone
 * decides (RFC 7858 4.2). TLS 1.2 or newer (RFC 8996, 9325), ALPN "dot", SNI when the name is a DNS
 * name, no 0-RTT, no renegotiation, no compression. Session tickets live in the tls_client of one
 * upstream of one worker and nowhere else, so they can never be offered to another upstream and end
 * with their settings (FAULTS E3, E5). */
#ifndef NET_TLS_H
#define NET_TLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/failure.h"
#include "base/status.h"
#include "config/config.h"

/* A set of trusted roots, loaded whole by main, so that no worker reads files. Shared by all
 * threads after it is opened. */
struct tls_trust;

/* Whether both hold the same certificates, with the same said of the trust in them, and revocation
 * lists, in the same order. */
bool tls_trust_is_same(const struct tls_trust *a, const struct tls_trust *b);

/* `ca_file` is PEM, NULL for the system's store ($SSL_CERT_FILE, else Debian's
 * /etc/ssl/certs/ca-certificates.crt, else OpenSSL's default file). STATUS_INVALID with a sentence
 * in `error` (a file that is missing, holds no certificate or a damaged one). */
enum status tls_trust_open(const char *ca_file, struct tls_trust **out, char *error,
                           size_t error_size);

/* One more owner, who closes it, too. */
struct tls_trust *tls_trust_share(struct tls_trust *trust);
void tls_trust_close(struct tls_trust *trust); /* safe on NULL */

/* The settings of one upstream and its session tickets; it must outlive its connections. Thread:
 * one worker. */
struct tls_client;

/* Copies the name and the pins of `upstream`; `trust` may be NULL when there is no name.
 * STATUS_INVALID when there is neither a name nor a pin. */
enum status tls_client_open(const struct upstream_config *upstream, const struct tls_trust *trust,
                            struct tls_client **out);
void tls_client_close(struct tls_client *client); /* safe on NULL */

/* One connection. Owner: its stream. */
struct tls;

/* Client side of a handshake over the connected, non-blocking `fd`, which stays the caller's.
 * Offers the newest ticket, once. */
enum status tls_open(struct tls_client *client, int fd, struct tls **out);

/* Frees without waiting for anything; sends close_notify when the handshake was done (FAULTS F14).
 * Safe on NULL. */
void tls_close(struct tls *tls);

/* STATUS_OK: done and authenticated. STATUS_AGAIN: call again when ready. STATUS_CLOSED: failed,
 * `*failure` says how; the reason in words is in tls_error_text. */
enum status tls_handshake(struct tls *tls, enum failure *failure);

/* STATUS_OK with 1 to `size` bytes, STATUS_AGAIN, or STATUS_CLOSED with FAILURE_CLOSED (an orderly
 * or a bare end, both normal: RFC 7858 3.4), FAILURE_TLS, or what socket_failure makes of the
 * socket's error. */
enum status tls_read(struct tls *tls, uint8_t *buffer, size_t size, size_t *length,
                     enum failure *failure);

/* STATUS_OK with 1 to `size` bytes taken, STATUS_AGAIN (call again with the same or more bytes from
 * the same place on, at any address) or STATUS_CLOSED as above. */
enum status tls_write(struct tls *tls, const uint8_t *bytes, size_t size, size_t *length,
                      enum failure *failure);

/* After STATUS_AGAIN: what the last call waits for. */
bool tls_wants_write(const struct tls *tls);

/* True when decrypted bytes wait inside: epoll will not announce them. */
bool tls_has_pending(const struct tls *tls);

/* Facts of a finished handshake, for metrics and `dnsproxy probe`; the texts live as long as it. */
struct tls_facts {
    const char *version; /* "TLSv1.3" */
    const char *cipher;
    bool resumed;
    bool alpn_dot; /* the upstream chose ALPN "dot" */
};
void tls_facts(const struct tls *tls, struct tls_facts *out);

/* OpenSSL's words for the last failure of this connection, "" when it has none. */
const char *tls_error_text(const struct tls *tls);

/* SHA-256 of the SubjectPublicKeyInfo of the leaf in base64, be it accepted or refused, for
 * `dnsproxy probe`. "" when none was shown: the handshake broke before, or resumed a session. */
const char *tls_peer_pin(const struct tls *tls);

#endif
