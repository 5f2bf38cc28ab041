// SPDX-License-Identifier: Apache-2.0
/* How many queries of one client wait at once over UDP: of one IPv4 address, or of one IPv6 /64
 * (FAULTS I5).
 *
 * The address of a datagram may be forged. Were all answered that had gathered in somebody's name
 * when a slow answer comes at last, he would be hit by it in one burst (DNSBomb, CVE-2024-33655).
 * Beyond the limit a client is sent to TCP, where a real one is served and a forged one is not. How
 * long they can gather is limited by timeouts.query: at its deadline each has had a reply of its
 * own.
 *
 * Thread: one worker.   Owner: struct resolver. */
#ifndef QUERY_WAIT_LIMIT_H
#define QUERY_WAIT_LIMIT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/address.h"

enum {
    WAIT_LIMIT_BUCKETS = 4096,           /* a power of two; 16 KiB */
    WAIT_UNLIMITED = WAIT_LIMIT_BUCKETS, /* one more, whose number is not limited */
};

/* Addresses are hashed to buckets, and two that meet in one share the limit: that costs a client at
 * worst a retry over TCP, and there is nothing to run full. */
struct wait_limit {
    uint64_t key; /* odd */
    uint32_t max; /* 0: any number */
    uint32_t counts[WAIT_LIMIT_BUCKETS + 1];
};

void wait_limit_init(struct wait_limit *limit, uint32_t max);

/* That of a client over UDP: WAIT_UNLIMITED for the host itself, which no datagram from outside can
 * claim to be. */
uint16_t wait_limit_bucket(const struct wait_limit *limit, const struct address *client);

/* Whether no more of this bucket may wait. */
bool wait_limit_is_reached(const struct wait_limit *limit, uint16_t bucket);

#endif
