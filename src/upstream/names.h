// SPDX-License-Identifier: Apache-2.0
/* The addresses of an upstream that is a host name: see names.c.
 *
 * Owner of a struct name: its upstream.   Thread: one worker. */
#ifndef UPSTREAM_NAMES_H
#define UPSTREAM_NAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/address.h"
#include "base/deadline.h"
#include "base/failure.h"
#include "base/list.h"
#include "base/status.h"
#include "config/config.h"
#include "net/loop.h"
#include "net/race.h"
#include "upstream/path.h"
#include "upstream/request.h"

struct name;

/* What a name wants of its upstream, and of the others. */
struct name_events {
    /* Puts the request to another upstream, as request_submit does. */
    enum status (*ask)(struct path *path, struct request *request, enum failure *failure);
    /* The upstreams that cannot be asked for it, and those that are down. */
    upstream_set (*find_unknown)(struct path *path);
    upstream_set (*find_down)(struct path *path);
    /* The first addresses are known, with the best of them: until then it counts as down. */
    void (*on_resolved)(struct path *path, const struct address *address);
    /* The addresses are others than before. */
    void (*on_moved)(struct path *path);
};

/* Of all names of a worker. */
struct name_queues {
    struct deadline_queue queries; /* one of the two questions for a name */
    struct deadline_queue settles; /* from the first addresses to those of the other family */
    struct deadline_queue bootstrap_tries;
};

void name_queues_open(struct name_queues *queues, struct loop *loop,
                      const struct snapshot *snapshot);
void name_queues_reload(struct name_queues *queues, const struct snapshot *snapshot);
void name_queues_close(struct name_queues *queues);

/* One that waits for the addresses: told once, with FAILURE_NONE when they are known. */
struct name_waiter {
    struct list link;
    void (*on_end)(struct name_waiter *waiter, enum failure failure);
};

enum status name_open(struct path *path, const struct upstream_config *config,
                      struct name_queues *queues, const struct name_events *events,
                      struct name **out);

/* Its path goes by another snapshot, where `config` is the same upstream; those that `changed` are
 * others than before, or are no more. Safe on NULL. */
void name_reload(struct name *name, const struct upstream_config *config, upstream_set changed);

/* Takes back what was asked, and asks nothing more; then the name may be closed when nobody waits
 * for it. Safe on NULL, as name_close. */
void name_stop(struct name *name);
void name_close(struct name *name);

/* True when no address is known; false on NULL. */
bool name_is_unknown(const struct name *name);

/* Whether it is one of them. */
bool name_has(const struct name *name, const struct address *address);

/* The addresses to connect to, best first; 0 when none is known, with the cause in `*failure` if
 * they were looked up in vain. */
size_t name_addresses(const struct name *name, struct address out[static RACE_ADDRESSES_MAX],
                      enum failure *failure);

/* Called back when addresses are known, or cannot be found. STATUS_NOT_FOUND when that was tried a
 * moment ago. */
enum status name_wait(struct name *name, struct name_waiter *waiter, enum failure *failure);

/* Why the last lookup failed, in words. */
const char *name_detail(const struct name *name);

/* What became of a connection to `peer`, which is one of them: it is open. Or it has ended as it
 * should not (AF_UNSPEC: none of the addresses could be reached). */
void name_connected(struct name *name, const struct address *peer);
void name_failed(struct name *name, const struct address *peer);

/* A lookup that failed before may succeed now. Safe on NULL. */
void name_network_changed(struct name *name);

#endif
