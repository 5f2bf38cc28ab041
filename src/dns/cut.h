// SPDX-License-Identifier: Apache-2.0
/* Answers cut short: what a client can do without goes from the end, at the boundary of an RRset.
 *
 * RFC: 2181 5 (RRsets are whole) and 9 (what is optional goes without TC). */
#ifndef DNS_CUT_H
#define DNS_CUT_H

#include <stddef.h>

#include "dns/message.h"

/* Octets of the body up to the first record that is not needed and whose TTL is 0. */
size_t answer_living_length(const struct answer *answer);

/* Leaves of the body at most `length` octets, which is no less than needed_length; counts and TTLs
 * follow. `question` is the one that was answered. */
void answer_cut(struct answer *answer, const struct question *question, size_t length);

#endif
