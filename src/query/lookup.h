// SPDX-License-Identifier: Apache-2.0
/* A lookup: one cache miss being asked. Any number of queries wait on it.
 *
 * Owner: the coalescing table of the resolver, from lookup_join_or_start on. It asks until an
 * upstream answers well, until nothing is left to ask, or until no query waits any more. */
#ifndef QUERY_LOOKUP_H
#define QUERY_LOOKUP_H

#include "query/query.h"

/* Makes the coalescing table and the pool of lookups; part of resolver_open. */
enum status lookups_open(struct resolver *resolver);
void lookups_close(struct resolver *resolver);

/* Adds the query to the lookup for its question, and starts that lookup if there is none. True when
 * the query waits, false when it has ended because nothing could be asked. */
bool lookup_join_or_start(struct resolver *resolver, struct query *query);

/* Takes a waiting query out; a lookup without queries is cancelled. */
void lookup_leave(struct query *query);

/* A waiting query has reached its deadline: ends it with SERVFAIL and the cause, which is also kept
 * for a moment (RFC 9520 3.1). */
void lookup_expire(struct query *query);

#endif
