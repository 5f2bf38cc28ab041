// SPDX-License-Identifier: Apache-2.0
/* Timers of few durations, each step O(1).
 *
 * A queue holds all deadlines of one duration. Because they share it, arming appends at the end and
 * the earliest is always first: no heap, no wheel. The duration may be changed at any time: it then
 * holds for all that are armed, too. Time is an argument in nanoseconds of whatever clock the
 * caller uses, so tests never sleep.
 *
 * Thread: one. Owner: a deadline is a member of the object it guards; the queue links it only. */
#ifndef BASE_DEADLINE_H
#define BASE_DEADLINE_H

#include <stdint.h>

#include "base/list.h"

#define NANOSECONDS_PER_SECOND UINT64_C(1000000000)
#define NANOSECONDS_PER_MILLISECOND UINT64_C(1000000)
#define DEADLINE_NEVER UINT64_MAX

struct deadline {
    struct list link;
    uint64_t armed_ns;
};

struct deadline_queue {
    struct list armed;
    struct list link; /* for whoever polls several queues (net/loop) */
    uint64_t duration_ns;
    void (*on_expire)(struct deadline *deadline, uint64_t now);
};

void deadline_queue_init(struct deadline_queue *queue, uint64_t duration_ns,
                         void (*on_expire)(struct deadline *deadline, uint64_t now));

/* Makes `deadline` unarmed; needed once before the first arm or cancel. */
void deadline_init(struct deadline *deadline);

/* (Re)arms to expire at now + duration of the queue, which is not 0. `now` never goes back. */
void deadline_arm(struct deadline_queue *queue, struct deadline *deadline, uint64_t now);

/* Harmless when not armed. */
void deadline_cancel(struct deadline *deadline);

/* Calls on_expire for each deadline that is due at `now`, the earliest first, `count_max` of them
 * at most; each is disarmed before its call, so the callback may arm it again or free its object.
 */
void deadline_queue_expire(struct deadline_queue *queue, uint64_t now, unsigned count_max);

/* When the first armed deadline is due, DEADLINE_NEVER when none is armed. */
uint64_t deadline_queue_next(const struct deadline_queue *queue);

#endif
