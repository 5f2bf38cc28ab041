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
#include "observe/metrics.h"

struct group; /* all upstreams of one worker */

struct admission;

struct group_settings {
    const struct config *config;
    struct loop *loop;
    struct metrics *metrics;
    const struct siphash_key *self_key; /* of dns/self_probe.h; NULL: nobody looks for ourselves */
    struct admission *admissions;       /* one for each slot; NULL: there is one worker */
};

enum status group_open(const struct group_settings *settings, struct group **out);

/* Closes every connection at once. No request may be in flight. Safe on NULL. */
void group_close(struct group *group);

/* From here on it goes by this snapshot. By the one before go upstreams that are no more in it, for
 * as long as one is leaving; until then there is no further one. Returns the slots of these and of
 * new ones: what is known of them elsewhere must be forgotten. */
upstream_set group_reload(struct group *group, const struct snapshot *snapshot);
bool group_is_leaving(const struct group *group);

/* The most bytes that a group for this can occupy, while those leave who were in it before. */
size_t group_ceiling(const struct config *config, const struct snapshot *snapshot);

/* The network may have changed: where another way leads to an upstream now, or none, its
 * connections are dropped and what is in flight moves; where nothing has changed, nothing is done.
 */
void group_network_changed(struct group *group);

/* The machine has slept: nobody knows of the connections any more, all are dropped. */
void group_resumed(struct group *group);

/* The addresses of the upstream with this slot, best first: the configured one, or those that its
 * name is known to have. 0 with `*failure` when its name was looked up in vain, and with
 * FAILURE_NONE while it still is. */
size_t group_upstream_addresses(const struct group *group, size_t slot,
                                struct address out[static RACE_ADDRESSES_MAX],
                                enum failure *failure);

/* The label of the upstream with this slot, for EDE; it may have left. */
const char *group_upstream_label(const struct group *group, size_t slot);

#endif
