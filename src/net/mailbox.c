// SPDX-License-Identifier: Apache-2.0
/* The ring of mailbox.h.   Thread: main and one worker.   Owner: the worker. */
#include "net/mailbox.h"

#include <assert.h>

void mailbox_init(struct mailbox *mailbox, struct loop *loop)
{
    assert(loop);
    *mailbox = (struct mailbox){.loop = loop};
}

void mailbox_send(struct mailbox *mailbox, unsigned kind, const void *content)
{
    const uint32_t sent = atomic_load_explicit(&mailbox->sent, memory_order_relaxed);
    assert(sent - atomic_load(&mailbox->taken) < MAILBOX_SIZE);
    mailbox->letters[sent % MAILBOX_SIZE] = (struct letter){.kind = kind, .content = content};
    atomic_store_explicit(&mailbox->sent, sent + 1, memory_order_release);
    loop_wake(mailbox->loop);
}

bool mailbox_is_taken(const struct mailbox *mailbox)
{
    return atomic_load_explicit(&mailbox->taken, memory_order_acquire) ==
           atomic_load_explicit(&mailbox->sent, memory_order_relaxed);
}

const struct letter *mailbox_first(const struct mailbox *mailbox)
{
    const uint32_t taken = atomic_load_explicit(&mailbox->taken, memory_order_relaxed);
    if (atomic_load_explicit(&mailbox->sent, memory_order_acquire) == taken)
        return NULL;
    return &mailbox->letters[taken % MAILBOX_SIZE];
}

void mailbox_take(struct mailbox *mailbox)
{
    assert(mailbox_first(mailbox));
    const uint32_t taken = atomic_load_explicit(&mailbox->taken, memory_order_relaxed);
    atomic_store_explicit(&mailbox->taken, taken + 1, memory_order_release);
}
