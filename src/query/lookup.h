// SPDX-License-Identifier: Apache-2.0
/* A lookup: one question being asked. Any number of queries wait on it.
 *
 * Owner: the coalescing table of the resolver, from lookup_join_or_start or lookup_refresh on. It
 * asks until an upstream answers well, until nothing is left to ask, or until its last query
 * leaves; then it answers its queries, as many a turn as the budget allows. Without queries, for
 * the cache alone, live those that refresh an answer before its time is over, and those whose
 * queries were given a stale one: few, and none for longer than a query's deadline. A query that
 * asks the same joins them. */
#ifndef QUERY_LOOKUP_H
#define QUERY_LOOKUP_H

#include "query/query.h"

/* Makes the coalescing table and the pool of lookups; part of resolver_open. */
enum status lookups_open(struct resolver *resolver);
void lookups_close(struct resolver *resolver);

/* The upstreams with these slots are others than before, or leave. */
void lookups_reload(struct resolver *resolver, upstream_set changed);

/* Cancels the lookups that no query waits for. */
void lookups_abort(struct resolver *resolver);

/* True when the client asks, over UDP, what a query of its own is already waiting for, since it has
 * no reply yet: one will do. That one waits on, as long as it has and as it would, and is answered
 * as `query` was asked, which the caller gives back. */
bool lookup_repeat(struct resolver *resolver, const struct query *query);

/* Adds the query to the lookup for its question, and starts that lookup if there is none. True when
 * the query waits, false when it has ended because nothing could be asked. */
bool lookup_join_or_start(struct resolver *resolver, struct query *query);

/* Asks the question anew for the cache, with nobody waiting, unless it is being asked already. Not
 * done when enough others are under way or all upstreams are away. */
void lookup_refresh(struct resolver *resolver, const struct question *question, uint64_t hash);

/* Takes a waiting query out; a lookup that this leaves without any is cancelled. */
void lookup_leave(struct query *query);

/* A waiting query has waited so long that it gives way from now on when others want for a place. */
void lookup_grow_old(struct query *query);

/* Ends such a query for them: with a stale answer, as all that wait with it, else TC=1 or SERVFAIL.
 */
void lookup_give_way(struct query *query);

/* A waiting query has waited for as long as its client may be willing to: all that wait with it are
 * given a stale answer, if there is one. It waits on otherwise. */
void lookup_slow(struct query *query);

/* A waiting query has reached its deadline: ends it with a stale answer, else with SERVFAIL and the
 * cause, which is also kept for a moment (RFC 9520 3.1). */
void lookup_expire(struct query *query);

#endif
