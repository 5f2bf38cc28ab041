// SPDX-License-Identifier: Apache-2.0
/* The listening sockets of all workers, bound before any worker exists, so that a port that is
 * taken ends the program and not a thread of it.
 *
 * Thread: main.   Owner: main until sockets_release; then each worker owns its descriptors. */
#ifndef CONTROL_SOCKETS_H
#define CONTROL_SOCKETS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/status.h"
#include "config/config.h"

struct sockets;

/* Binds every listener once for each worker. A default address of a family that the machine lacks
 * is skipped with a warning. On failure says on stderr which address, why, and what to do;
 * STATUS_SYSTEM. */
enum status sockets_open(const struct config *config, struct sockets **out);

/* The descriptors of one worker, by listener; -1: none. */
const int *sockets_udp(const struct sockets *sockets, size_t worker);
const int *sockets_tcp(const struct sockets *sockets, size_t worker);

/* False for a default address that was skipped. */
bool sockets_is_bound(const struct sockets *sockets, size_t listener);

/* Forgets the descriptors without closing them. */
void sockets_release(struct sockets *sockets);

#endif
