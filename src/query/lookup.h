// SPDX-License-Identifier: Apache-2.0
/* A lookup: one cache miss being asked. Any number of queries wait on it.
 *
 * Owner: the coalescing table of the resolver, from lookup_join_or_start to lookup_finish, the only
 * function that frees it. It asks until an upstream answers well, until nothing is left to ask, or
 * until no query waits any more. */
#ifndef QUERY_LOOKUP_H
#define QUERY_LOOKUP_H

#include "query/query.h"

/* Adds the query to the lookup for its question, and starts that lookup if there is none. */
void lookup_join_or_start(struct resolver *resolver, struct query *query);

/* Takes a waiting query out; a lookup without queries is cancelled. */
void lookup_leave(struct resolver *resolver, struct query *query);

/* Writes the cause so far ("upstream 1.1.1.1:853#…: no answer in time") into `text` as the extended
 * error of a reply to `query`, which waits. */
enum { LOOKUP_CAUSE_SIZE = 200 };
struct extended_error lookup_cause(const struct resolver *resolver, const struct query *query,
                                   char text[static LOOKUP_CAUSE_SIZE]);

#endif
