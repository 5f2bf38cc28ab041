// SPDX-License-Identifier: Apache-2.0
/* The question to an upstream that only this daemon would answer as it does: see self_check.c. */
#ifndef UPSTREAM_SELF_CHECK_H
#define UPSTREAM_SELF_CHECK_H

#include <stdbool.h>

#include "base/address.h"
#include "base/deadline.h"
#include "base/siphash.h"
#include "dns/message.h"
#include "upstream/connection.h"
#include "upstream/request.h"

struct self_check {
    /* Given at birth. */
    struct path *path;
    const struct siphash_key *key; /* of dns/self_probe.h; NULL: nobody looks for ourselves */
    struct deadline_queue *queue;  /* of all upstreams, with self_check_on_deadline */
    void (*on_found)(struct self_check *check); /* it is this daemon */

    struct question question;
    struct attempts attempts;
    struct request request;
    struct deadline deadline;
    struct address peer; /* whom it asks, or has asked */
    bool is_done;        /* since the upstream was last down */
    unsigned unanswered; /* connections in a row that ended instead */
};

/* `check` has what is given at birth. */
void self_check_init(struct self_check *check);

/* The upstream may be another one when it is back. */
void self_check_forget(struct self_check *check);

/* Takes back what it asks. */
void self_check_stop(struct self_check *check);

/* Asks over a new connection whether the upstream is this daemon, unless that is known. True while
 * nothing is known yet of an upstream that was found to be it before: then it stays down. */
bool self_check_begin(struct self_check *check, struct connection *connection);

void self_check_on_deadline(struct deadline *deadline, uint64_t now);

#endif
