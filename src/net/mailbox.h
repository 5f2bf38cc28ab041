// SPDX-License-Identifier: Apache-2.0
/* What the main thread has to say to a worker, in the order in which it was said.
 *
 * A ring that one thread writes and one reads: neither ever waits for the other. A letter counts as
 * taken when the worker is done with it. Few are ever on their way: one snapshot, and that the
 * worker is to end, said twice at most.
 *
 * Thread: mailbox_send and mailbox_is_taken: main; the others: the worker of the loop.
 * Owner: the worker. */
#ifndef NET_MAILBOX_H
#define NET_MAILBOX_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "net/loop.h"

enum { MAILBOX_SIZE = 8 };

struct letter {
    unsigned kind; /* of an enum that both ends know */
    const void *content;
};

struct mailbox {
    struct loop *loop;
    struct letter letters[MAILBOX_SIZE];
    _Atomic uint32_t sent;
    _Atomic uint32_t taken;
};

void mailbox_init(struct mailbox *mailbox, struct loop *loop);

/* Ends the wait of the loop. `content` must stay until the letter is taken. */
void mailbox_send(struct mailbox *mailbox, unsigned kind, const void *content);

/* True when there is none on its way. */
bool mailbox_is_taken(const struct mailbox *mailbox);

/* The oldest that is not taken, NULL without one. */
const struct letter *mailbox_first(const struct mailbox *mailbox);

/* The worker is done with the first. */
void mailbox_take(struct mailbox *mailbox);

#endif
