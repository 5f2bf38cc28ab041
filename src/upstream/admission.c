// SPDX-License-Identifier: Apache-2.0
/* How many connections a server takes, learned from what it refuses.
 *
 * Servers bound the connections of one address, which to them all workers are: what one worker is
 * refused others may hold. So all workers know the number, and each keeps to an equal share of it.
 * It is forgotten after a while, since it may have been the server's bad moment.
 *
 * Thread: all workers, without locks: a share that is one moment late does no harm.
 * Owner: who starts the workers. */
#include "upstream/admission.h"

#include <assert.h>

#include "base/deadline.h"
#include "base/numbers.h"

#define KNOWN_NS (10 * NANOSECONDS_PER_SECOND)

static size_t get(const atomic_size_t *value)
{
    return atomic_load_explicit(value, memory_order_relaxed);
}

static void subtract_one(atomic_size_t *value)
{
    const size_t before = atomic_fetch_sub_explicit(value, 1, memory_order_relaxed);
    assert(before > 0);
    (void)before;
}

size_t admission_enter(struct admission *admission)
{
    return atomic_fetch_add_explicit(&admission->count, 1, memory_order_relaxed) +
           get(&admission->failed);
}

void admission_opened(struct admission *admission, uint64_t begun_ns)
{
    (void)atomic_fetch_add_explicit(&admission->open, 1, memory_order_relaxed);
    if (atomic_load_explicit(&admission->taken_begun_ns, memory_order_relaxed) < begun_ns)
        atomic_store_explicit(&admission->taken_begun_ns, begun_ns, memory_order_relaxed);
}

void admission_leave(struct admission *admission, bool was_open)
{
    if (was_open)
        subtract_one(&admission->open);
    else
        (void)atomic_fetch_add_explicit(&admission->failed, 1, memory_order_relaxed);
    subtract_one(&admission->count);
}

size_t admission_open(const struct admission *admission)
{
    return get(&admission->open);
}

/* Of those that were there or on their way it had those that have not failed since: of several
 * begun at a time it refuses the last. It has at least those that are open, in whatever order the
 * workers learn of it. The least of what was seen counts. One that has taken another that was begun
 * later is not at its limit: a packet was lost. */
void admission_refused(struct admission *admission, size_t ticket, uint64_t begun_ns, uint64_t now)
{
    if (atomic_load_explicit(&admission->taken_begun_ns, memory_order_relaxed) > begun_ns)
        return;
    const size_t failed = get(&admission->failed);
    size_t others = most_of(ticket > failed ? ticket - failed : 1, get(&admission->open));
    if (admission_share(admission, now) < SIZE_MAX && get(&admission->admitted) < others)
        others = get(&admission->admitted);
    atomic_store_explicit(&admission->admitted, others, memory_order_relaxed);
    atomic_store_explicit(&admission->until_ns, now + KNOWN_NS, memory_order_relaxed);
}

size_t admission_share(const struct admission *admission, uint64_t now)
{
    assert(admission->workers > 0);
    if (now >= atomic_load_explicit(&admission->until_ns, memory_order_relaxed))
        return SIZE_MAX;
    const size_t share = get(&admission->admitted) / admission->workers;
    return share > 0 ? share : 1;
}
