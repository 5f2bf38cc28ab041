// SPDX-License-Identifier: Apache-2.0
/* All upstreams of one worker, as other layers see them; what is asked of them is upstream/ask.h.
 *
 * Thread: one worker.   Owner: the worker. */
#ifndef UPSTREAM_UPSTREAM_H
#define UPSTREAM_UPSTREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/failure.h"
#include "base/siphash.h"
#include "base/status.h"
#include "config/config.h"
#include "net/loop.h"
#include "net/race.h"
#include "net/tls.h"
#include "observe/metrics.h"

struct group; /* all upstreams of one worker */

struct admission;

struct group_settings {
    const struct config *config;
    struct loop *loop;
    struct metrics *metrics;
    const struct tls_trust *const *trusts; /* one for each upstream, NULL when it has pins alone */
    const struct siphash_key *self_key; /* of dns/self_probe.h; NULL: nobody looks for ourselves */
    struct admission *admissions;       /* one for each upstream; NULL: there is one worker */
};

enum status group_open(const struct group_settings *settings, struct group **out);

/* Closes every connection at once. No request may be in flight. Safe on NULL. */
void group_close(struct group *group);

/* From here on it goes by this snapshot, and no more by the one before. */
void group_reload(struct group *group, const struct snapshot *snapshot);

/* The most bytes that connections to upstreams can occupy. */
size_t group_ceiling(const struct group *group);

/* The network may have changed: where another way leads to an upstream now, or none, its
 * connections are dropped and what is in flight moves; where nothing has changed, nothing is done.
 */
void group_network_changed(struct group *group);

/* The machine has slept: nobody knows of the connections any more, all are dropped. */
void group_resumed(struct group *group);

/* The addresses of upstream `index`, best first: the configured one, or those that its name is
 * known to have. 0 with `*failure` when its name was looked up in vain, and with FAILURE_NONE while
 * it still is. */
size_t group_upstream_addresses(const struct group *group, size_t index,
                                struct address out[static RACE_ADDRESSES_MAX],
                                enum failure *failure);

/* The label of upstream `index`, for logs and EDE. */
const char *group_upstream_label(const struct group *group, size_t index);

#endif
