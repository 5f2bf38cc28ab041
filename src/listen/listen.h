// SPDX-License-Identifier: Apache-2.0
/* Listeners: where clients' messages come in and replies go out. One of each per worker and
 * address.
 *
 * Thread: one worker. Owner: the worker, from open to close. The descriptor belongs to the listener
 * once open has succeeded. */
#ifndef LISTEN_LISTEN_H
#define LISTEN_LISTEN_H

#include "base/address.h"
#include "base/status.h"
#include "query/resolve.h"

struct udp_listener;
struct tcp_listener;

/* What all TCP listeners of one worker share: the pool of clients, limits, deadlines. */
struct tcp_clients;

enum status udp_open(struct resolver *resolver, int fd, const struct address *address,
                     struct udp_listener **out);
void udp_reload(struct udp_listener *listener); /* the resolver has another snapshot */
void udp_stop(struct udp_listener *listener);   /* takes all that already waits, and no more */
void udp_close(struct udp_listener *listener);  /* safe on NULL */
size_t udp_ceiling(void);                       /* the bytes of one */

enum status tcp_clients_open(struct resolver *resolver, struct tcp_clients **out);
void tcp_clients_reload(struct tcp_clients *clients); /* the resolver has another snapshot */
void tcp_clients_close(struct tcp_clients *clients);  /* stops its listeners; safe on NULL */

enum status tcp_open(struct tcp_clients *clients, int fd, struct tcp_listener **out);
void tcp_stop(struct tcp_listener *listener);  /* accepts those who already wait, and no more */
void tcp_close(struct tcp_listener *listener); /* safe on NULL */

/* The most bytes that clients can occupy, without what they make us hold: that is the resolver's
 * output account. */
size_t tcp_clients_ceiling(const struct tcp_clients *clients);

/* Takes what each client has sent so far, and no more: those without queries close at once, the
 * others after their replies. */
void tcp_clients_drain(struct tcp_clients *clients);

#endif
