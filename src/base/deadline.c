// SPDX-License-Identifier: Apache-2.0
/* Deadlines of one duration in the order of their arming, which is the order of their end.
 *
 * Thread: one. Owner: see the header. */
#include "base/deadline.h"

#include <assert.h>

static struct deadline *deadline_of(struct list *link)
{
    return CONTAINER_OF(link, struct deadline, link);
}

void deadline_queue_init(struct deadline_queue *queue, uint64_t duration_ns,
                         void (*on_expire)(struct deadline *deadline, uint64_t now))
{
    assert(on_expire && duration_ns < DEADLINE_NEVER);
    *queue = (struct deadline_queue){.duration_ns = duration_ns, .on_expire = on_expire};
    list_init(&queue->armed);
    list_init(&queue->link);
}

void deadline_init(struct deadline *deadline)
{
    *deadline = (struct deadline){.armed_ns = 0};
    list_init(&deadline->link);
}

void deadline_arm(struct deadline_queue *queue, struct deadline *deadline, uint64_t now)
{
    /* With no duration a callback that arms again would be called for ever. */
    assert(queue->duration_ns > 0);
    assert(now <= DEADLINE_NEVER - queue->duration_ns);
    list_remove(&deadline->link);
    deadline->armed_ns = now;
    assert(list_is_empty(&queue->armed) || deadline_of(queue->armed.previous)->armed_ns <= now);
    list_append(&queue->armed, &deadline->link);
}

void deadline_cancel(struct deadline *deadline)
{
    list_remove(&deadline->link);
}

void deadline_queue_expire(struct deadline_queue *queue, uint64_t now, unsigned count_max)
{
    assert(count_max > 0);
    assert(now < DEADLINE_NEVER); /* that is when an empty queue is due */
    for (unsigned count = 0; count < count_max && deadline_queue_next(queue) <= now; count++)
        queue->on_expire(deadline_of(list_take_first(&queue->armed)), now);
}

uint64_t deadline_queue_next(const struct deadline_queue *queue)
{
    if (list_is_empty(&queue->armed))
        return DEADLINE_NEVER;
    return deadline_of(queue->armed.next)->armed_ns + queue->duration_ns;
}
