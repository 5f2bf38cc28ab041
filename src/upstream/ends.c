// SPDX-License-Identifier: Apache-2.0
/* The ends of one upstream's connections that had requests: did they come one by one?
 *
 * A question ends the connection that it is asked on. A server that restarts ends most of them at
 * once, and nothing that was aboard is to blame. Many ends a second may meet by chance, so what
 * counts is their share of what was open.
 *
 * Thread: one worker.   Owner: the upstream. */
#include "upstream/ends.h"

#include <assert.h>

enum { TOGETHER_MIN = 2 };

void ends_note(struct ends *ends, uint64_t now, size_t left)
{
    assert(now > 0);
    ends->kept[ends->count++ % ENDS_KEPT] = (struct end){.time_ns = now, .left = left};
}

bool ends_were_together(const struct ends *ends, uint64_t time_ns)
{
    size_t count = 0;
    size_t left = SIZE_MAX;
    for (size_t i = 0; i < ENDS_KEPT; i++) {
        const struct end *end = &ends->kept[i];
        if (end->time_ns + TOGETHER_NS < time_ns || end->time_ns > time_ns + TOGETHER_NS)
            continue;
        count++;
        left = end->left < left ? end->left : left;
    }
    return count >= TOGETHER_MIN && left < count;
}
