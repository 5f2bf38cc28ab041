// SPDX-License-Identifier: Apache-2.0
/* What is decided about a query before anything is asked: who may ask, and names and types that are
 * answered right here.
 * RFC: 8482 (ANY over UDP), 9462 6 (resolver.arpa is never forwarded). */
#ifndef QUERY_POLICY_H
#define QUERY_POLICY_H

#include "query/query.h"

enum policy_verdict {
    POLICY_RESOLVE,
    POLICY_REFUSE,      /* not in `allow`: REFUSED, on cache hits too (FAULTS H11) */
    POLICY_NODATA,      /* NOERROR without records */
    POLICY_MINIMAL_ANY, /* one HINFO */
    POLICY_TRUNCATE,    /* TC=1: to be asked over TCP */
};

enum policy_verdict policy_judge(const struct snapshot *snapshot, const struct query *query);

#endif
