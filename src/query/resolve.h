// SPDX-License-Identifier: Apache-2.0
/* Resolving, as listeners see it: a query from its arrival on, and the resolver of one worker. */
#ifndef QUERY_RESOLVE_H
#define QUERY_RESOLVE_H

#include "query/query.h"

/* `resolver` is zeroed but for config, loop, metrics, cache and group. */
enum status resolver_open(struct resolver *resolver);
void resolver_close(struct resolver *resolver);

/* From here on it goes by this snapshot, and no more by the one before, of which the upstreams with
 * the slots `changed` are no more. */
void resolver_reload(struct resolver *resolver, const struct snapshot *snapshot,
                     upstream_set changed);

/* The most bytes that it can occupy. */
size_t resolver_ceiling(const struct resolver *resolver);

/* Drops every query that still waits, and lookups: the worker is ending and its time to drain is
 * over. */
void resolver_abort(struct resolver *resolver);

/* Takes one message of a client from the bytes to its reply, or to a lookup that it waits for. A
 * message that deserves no reply is counted and forgotten. STATUS_FULL, not for a datagram: it
 * would have to wait, as limits.queries do already, and was dropped. On STATUS_OK, `*out` (may be
 * NULL) is the query when it is still waiting, else NULL. */
enum status query_begin(struct resolver *resolver, const struct origin *origin,
                        const uint8_t *message, size_t length, struct query **out);

/* The two halves of query_begin. Between them the processor fetches what the second will look at,
 * so that many messages are begun faster by turns: the first half for each, then the second for
 * each. Up to QUERIES_IN_HAND_MAX may be between the halves. NULL: it needs no second. */
struct query *query_accept(struct resolver *resolver, const struct origin *origin,
                           const uint8_t *message, size_t length);
enum status query_resolve(struct resolver *resolver, struct query *query, struct query **out);

/* The end of a query that its listener does not want any more, waiting or not. */
void query_drop(struct resolver *resolver, struct query *query);

/* Calls `starved->on_space` once when a query can be begun again: when there is room already, for
 * which this turn's budget was too small, in the next. */
void resolver_wait_for_space(struct resolver *resolver, struct starved *starved);

#endif
