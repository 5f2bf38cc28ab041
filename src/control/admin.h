// SPDX-License-Identifier: Apache-2.0
/* The admin HTTP server (/health, /ready, /metrics), its client `dnsproxy health`.
 *
 * Runs on the main thread, driven by its poll loop; never on a worker. Bounded: 32 connections, 5 s
 * each, the longest idle one gives way to a newcomer; GET and HEAD only (FAULTS I7, K5). */
#ifndef CONTROL_ADMIN_H
#define CONTROL_ADMIN_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/address.h"
#include "base/status.h"

/* What admin needs from main. */
struct admin_source {
    void (*print_metrics)(FILE *out);
    bool (*is_healthy)(void); /* every worker turns */
    bool (*is_ready)(void);   /* healthy, serving and not draining */
};

struct admin;

/* STATUS_SYSTEM with errno when the address cannot be bound. `freebind`: also one that this machine
 * does not have yet. `source` must outlive it. */
enum status admin_open(const struct address *address, bool freebind,
                       const struct admin_source *source, struct admin **out);

/* Readable when admin_run has work. */
int admin_descriptor(const struct admin *admin);

/* The bound port, when 0 was asked for. */
uint16_t admin_port(const struct admin *admin);

/* Handles what is ready; returns the nanoseconds until it must be called again at the latest. */
uint64_t admin_run(struct admin *admin);

void admin_close(struct admin *admin); /* safe on NULL */

/* `dnsproxy health`: asks /ready at `address` (NULL: admin is off), prints what it got, returns the
 * exit status (0 ready, 1 not). At most 2 seconds. */
int admin_health(const struct address *address);

#endif
