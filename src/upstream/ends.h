// SPDX-License-Identifier: Apache-2.0
/* The ends of one upstream's connections that had requests: see ends.c. */
#ifndef UPSTREAM_ENDS_H
#define UPSTREAM_ENDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/deadline.h"

enum { ENDS_KEPT = 32 };
#define TOGETHER_NS (10 * NANOSECONDS_PER_MILLISECOND) /* before or after: at one time */

/* Zeroed: none. */
struct ends {
    struct end {
        uint64_t time_ns;
        size_t left; /* open connections to the same upstream */
    } kept[ENDS_KEPT];
    size_t count; /* of all, also of those that are kept no longer */
};

void ends_note(struct ends *ends, uint64_t now, size_t left);

/* True when more connections ended about then than were left: that is the server's doing, not a
 * question's. */
bool ends_were_together(const struct ends *ends, uint64_t time_ns);

#endif
