// SPDX-License-Identifier: Apache-2.0
/* How many connections each client address has open: one IPv4 address, or one IPv6 /64, because a
 * single host can use all of its addresses (FAULTS B9).
 *
 * Thread: one. Owner: struct tcp_clients. */
#ifndef LISTEN_CENSUS_H
#define LISTEN_CENSUS_H

#include <stddef.h>
#include <stdint.h>

#include "base/address.h"
#include "base/list.h"
#include "base/pool.h"
#include "base/siphash.h"
#include "base/status.h"

/* One address with at least one connection; given back when the last one leaves. */
struct census_place {
    struct list link; /* in its bucket */
    struct prefix prefix;
    uint32_t count;
};

struct census {
    struct pool places;
    struct siphash_key key;
    struct list *buckets;
    size_t bucket_count; /* a power of two */
};

/* For at most `capacity` (> 0) connections. STATUS_SYSTEM when memory is short. */
enum status census_open(struct census *census, size_t capacity);
void census_close(struct census *census); /* safe on a zeroed one; all must have left */

/* Counts one more connection from `client`. NULL when it has `limit` of them already or `capacity`
 * is reached. */
struct census_place *census_enter(struct census *census, const struct address *client,
                                  uint32_t limit);
void census_leave(struct census *census, struct census_place *place);

#endif
