// SPDX-License-Identifier: Apache-2.0
/* Rates: events per second, for one bucket or for every address prefix of clients (FAULTS A17, B9).
 *
 * A bucket is one time stamp, the virtual end of the work already accepted (GCRA, ITU-T I.371): one
 * second's worth may come at once, then one event each 1/rate second.
 *
 * Thread: one. Owner: the listener that holds it. */
#ifndef LISTEN_RATE_H
#define LISTEN_RATE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/address.h"

/* Zeroed at first: nothing is used up. */
struct rate_bucket {
    uint64_t busy_until_ns;
};

/* True when one more event fits into `per_second` (> 0); it is then used up. */
bool rate_allow(struct rate_bucket *bucket, uint32_t per_second, uint64_t now);

/* A bucket for every /24 (IPv4) or /56 (IPv6). */
struct rate_table;

/* NULL when memory is short. */
struct rate_table *rate_table_open(void);
void rate_table_close(struct rate_table *table); /* safe on NULL */

bool rate_table_allow(struct rate_table *table, const struct address *client, uint32_t per_second,
                      uint64_t now);

#endif
