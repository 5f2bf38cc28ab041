// SPDX-License-Identifier: Apache-2.0
/* The times that a loop goes by, to be compared with those of another. */
#ifndef SUPPORT_DURATIONS_H
#define SUPPORT_DURATIONS_H

#include "net/loop.h"

enum { DURATIONS_MAX = 64 };

/* Of every queue of the loop, in order. */
static inline size_t list_durations(const struct loop *loop, uint64_t out[static DURATIONS_MAX])
{
    size_t count = 0;
    LIST_EACH (struct deadline_queue, queue, &loop->queues, link) {
        assert_true(count < DURATIONS_MAX);
        out[count++] = queue->duration_ns;
    }
    return count;
}

#endif
