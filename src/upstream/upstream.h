// SPDX-License-Identifier: Apache-2.0
/* Asking upstreams: submit a request, get on_done once, or cancel it. All that other layers see.
 *
 * A request is one attempt of a lookup at one upstream. The group chooses the upstream, a
 * connection carries the request among many others, and on_done reports an answer or a failure; it
 * is never called from inside request_submit or request_cancel.
 *
 * Thread: one worker. Owner of a request: the lookup that embeds it, from request_init to on_done
 * or request_cancel. */
#ifndef UPSTREAM_UPSTREAM_H
#define UPSTREAM_UPSTREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/deadline.h"
#include "base/failure.h"
#include "base/list.h"
#include "base/status.h"
#include "config/config.h"
#include "dns/message.h"
#include "net/loop.h"
#include "net/tls.h"
#include "observe/metrics.h"

struct group; /* all upstreams of one worker */
struct connection;
struct request;

/* `answer` is NULL when the request failed; it is borrowed for the call. An answer of the upstream
 * that is itself an error (SERVFAIL, REFUSED, ...) comes with both: the answer and its failure. */
typedef void request_done(struct request *request, const struct answer *answer,
                          enum failure failure);

struct request {
    const struct question *question; /* set by the owner; must outlive the request */
    request_done *on_done;           /* set by the owner */
    uint32_t tried; /* bit i: upstream i of the configuration was asked for this lookup */
    uint32_t tried_twice;
    size_t upstream; /* index of the upstream asked last; valid after request_submit */
    /* Private to upstream/. */
    struct connection *connection; /* NULL: not in flight */
    uint16_t slot;
    uint64_t sent_ns;
    struct deadline deadline;
    struct list link; /* of a failed request until on_done is called */
    enum failure failure;
};

struct group_settings {
    const struct config *config;
    struct loop *loop;
    struct metrics *metrics;
    const struct tls_trust *const *trusts; /* one for each upstream, NULL when it has pins alone */
};

enum status group_open(const struct group_settings *settings, struct group **out);

/* Closes every connection at once. No request may be in flight. Safe on NULL. */
void group_close(struct group *group);

void request_init(struct request *request, const struct question *question, request_done *on_done);

/* Asks an upstream that this request has not tried, best first by the strategy; when all have been
 * tried, one of them a second time. At most two attempts an upstream. STATUS_NOT_FOUND when there
 * is none left to ask, with the cause in `*failure`. */
enum status request_submit(struct group *group, struct request *request, enum failure *failure);

/* Forgets the request; on_done is not called. Its ID stays reserved until the answer or the end of
 * the connection (FAULTS F10). Harmless when it is not in flight. */
void request_cancel(struct request *request);

/* The label of upstream `index`, for logs and EDE. */
const char *group_upstream_label(const struct group *group, size_t index);

#endif
