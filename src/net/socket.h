// SPDX-License-Identifier: Apache-2.0
/* Sockets with the options that this daemon wants. All are non-blocking and close-on-exec.
 *
 * On failure: STATUS_SYSTEM, with errno telling why, and no descriptor left open. */
#ifndef NET_SOCKET_H
#define NET_SOCKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/address.h"
#include "base/failure.h"
#include "base/status.h"

/* What the kernel may hold for a socket in each direction, in bytes; it allows twice as much. */
enum {
    SOCKET_UDP_BUFFER = 4 << 20,  /* a burst of 10,000 queries; the kernel caps it at rmem_max */
    SOCKET_TCP_BUFFER = 32 << 10, /* of a client */
};

/* UDP with SO_REUSEPORT, large buffers, and on a wildcard address IP_PKTINFO / IPV6_RECVPKTINFO, so
 * that the reply can leave from the address that was asked (FAULTS A15). IPv6 sockets take IPv6
 * only. Path MTU discovery is off: no fragment-needed message can shrink our replies (RFC 9715).
 * `freebind`, here and below: also an address that this machine does not have yet (FAULTS J4). */
enum status socket_bind_udp(const struct address *address, bool freebind, int *out);

/* From now on the kernel puts nothing into this UDP socket, and tells those who send here at once
 * that nobody listens: it is connected to itself. What it holds can still be read, and anybody be
 * replied to. Without effect while the machine does not have the address. */
void socket_close_door(int fd);

/* Listening TCP with SO_REUSEPORT and SO_REUSEADDR. */
enum status socket_listen_tcp(const struct address *address, bool freebind, int *out);

/* STATUS_SYSTEM with EADDRINUSE when any other process holds the address, even one that shares its
 * port: SO_REUSEPORT alone would let two daemons start on one port (FAULTS J4). `type` is
 * SOCK_DGRAM or SOCK_STREAM. */
enum status socket_check_free(const struct address *address, int type, bool freebind);

/* The datagrams so far, modulo 2^32, that the kernel dropped on their way into this UDP socket: its
 * receive queue was full, seldom a wrong checksum. `before` when the kernel does not tell. */
uint32_t socket_overflow(int fd, uint32_t before);

/* Begins a TCP connect with TCP_NODELAY and keepalive. STATUS_OK means begun or done.
 * `user_timeout_ns` bounds unacknowledged data (TCP_USER_TIMEOUT). */
enum status socket_connect(const struct address *address, uint64_t user_timeout_ns, int *out);

/* The address of ours, with port 0, that packets to `address` would leave from now: a look at the
 * routes, nothing is sent. STATUS_SYSTEM: there is no way to it. STATUS_FULL: nobody knows, for
 * descriptors or memory are short (FAULTS I1). */
enum status socket_source(const struct address *address, struct address *source);

/* A UDP socket that talks to this address alone, from a port that the kernel chooses by chance. */
enum status socket_connect_udp(const struct address *address, int *out);

/* Bytes of a TCP connection that have come and not been read. */
size_t socket_unread(int fd);

/* True when bytes that we wrote have not reached the peer's kernel, as far as ours knows. */
bool socket_has_unacknowledged(int fd);

/* The result of a connect once the socket is writable, or what has broken the connection since: 0
 * or an errno, which is given once. */
int socket_error(int fd);

/* What the errno of a connecting or connected socket means to whoever asks the upstream. ETIMEDOUT
 * is FAILURE_STALLED: data was not acknowledged in time. */
enum failure socket_failure(int error);

/* The same of a connect that is under way: ETIMEDOUT is FAILURE_CONNECT_TIMEOUT. */
enum failure socket_connect_failure(int error);

/* Accepts one client with TCP_NODELAY. STATUS_AGAIN when none waits, STATUS_FULL when descriptors
 * or memory are short (EMFILE, ENFILE, ENOBUFS, ENOMEM: FAULTS I1), STATUS_CLOSED when that client
 * has already gone. */
enum status socket_accept(int listener_fd, int *out, struct address *client);

#endif
