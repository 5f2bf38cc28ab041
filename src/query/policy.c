// SPDX-License-Identifier: Apache-2.0
/* The verdicts of policy.h.   Thread: any; it reads the configuration and the query only. */
#include "query/policy.h"

#include <string.h>

static bool is_allowed(const struct snapshot *snapshot, const struct address *client)
{
    for (size_t i = 0; i < snapshot->allow_count; i++)
        if (prefix_contains(&snapshot->allow[i], client))
            return true;
    return false;
}

/* RFC 9462 6.4: a resolver without encrypted listeners answers NODATA for resolver.arpa and below,
 * and never asks upstream: the answer would name somebody else's resolver. */
static bool is_resolver_arpa(const struct question *question)
{
    static const uint8_t zone[] = "\x08resolver\x04"
                                  "arpa";
    const size_t length = sizeof(zone); /* its NUL is the root label */
    if (question->name_length < length)
        return false;
    const size_t offset = question->name_length - length;
    if (memcmp(question->name + offset, zone, length) != 0)
        return false;
    size_t label = 0;
    while (label < offset)
        label += question->name[label] + 1u;
    return label == offset;
}

enum policy_verdict policy_judge(const struct snapshot *snapshot, const struct query *query)
{
    const struct question *question = &query->message.question;
    if (!is_allowed(snapshot, &query->origin.client))
        return POLICY_REFUSE;
    if (is_resolver_arpa(question))
        return POLICY_NODATA;
    /* RFC 8482 4: records of our making fail a client that validates, so it is sent to TCP. */
    if (question->type == TYPE_ANY && question->class == CLASS_IN &&
        query->origin.transport->is_datagram)
        return question->dnssec_ok ? POLICY_TRUNCATE : POLICY_MINIMAL_ANY;
    return POLICY_RESOLVE;
}
