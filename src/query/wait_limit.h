// SPDX-License-Identifier: Apache-2.0
/* How many queries of one client wait at once over UDP: of one IPv4 address, or of one IPv6 /64, as
 * connections are counted over TCP (FAULTS I5).
 *
 * The address of a datagram may be forged. Were all answered that had gathered in somebody's name
 * when a slow answer comes at last, he would be hit by them in one burst (DNSBomb, CVE-2024-33655).
 * Beyond the limit a client is sent to TCP, where a forged one cannot follow. How long they can
 * gather is limited by timeouts.query: at its deadline each has had a reply of its own.
 *
 * Thread: one worker.   Owner: struct resolver. */
#ifndef QUERY_WAIT_LIMIT_H
#define QUERY_WAIT_LIMIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/address.h"

enum {
    WAIT_LIMIT_BITS = 12,
    WAIT_LIMIT_BUCKETS = 1 << WAIT_LIMIT_BITS, /* 16 KiB */
    WAIT_UNLIMITED = WAIT_LIMIT_BUCKETS,       /* none of them: is not counted */
};

/* While no more than half of the limit wait, of all clients together, none has more, and nobody is
 * counted: a forwarded query need not pay for it. Of those that come when so many wait each client
 * may have the other half. Addresses are hashed to buckets, and two that meet in one share the
 * limit: that costs a client a retry over TCP, and there is nothing to run full. */
struct wait_limit {
    uint64_t key;        /* odd */
    size_t counted_from; /* queries waiting; SIZE_MAX: nobody is limited */
    uint32_t max;        /* in a bucket */
    uint32_t counts[WAIT_LIMIT_BUCKETS];
};

/* For `of_client` queries of each; 0: any number. */
void wait_limit_init(struct wait_limit *limit, uint32_t of_client);

/* The bucket of a client over UDP; WAIT_UNLIMITED for loopback, since no reply to it leaves the
 * host. */
uint16_t wait_limit_bucket(const struct wait_limit *limit, const struct address *client);

/* Whether no more of this bucket may wait. */
bool wait_limit_is_reached(const struct wait_limit *limit, uint16_t bucket);

/* For a bucket that is not WAIT_UNLIMITED. */
void wait_limit_enter(struct wait_limit *limit, uint16_t bucket);
void wait_limit_leave(struct wait_limit *limit, uint16_t bucket);

#endif
