// SPDX-License-Identifier: Apache-2.0
/* How this process recognizes itself: a name that only it can make, and an answer that only it can
 * give.
 *
 * An upstream is asked once for "ID TAG.dnsproxy-loop-probe.example", 16 hexadecimal digits each:
 * ID is random, TAG is its hash with a key that the process made at its start. When such a question
 * comes back to our own listeners the tag tells that it is ours, and the answer is another hash of
 * the ID. No state is shared between workers, nobody else can give that answer, whoever sees a name
 * learns nothing from it, and no two processes of a fleet take each other for themselves.
 *
 * Under .example, and not .invalid: RFC 6761 6.4 tells resolvers to answer .invalid themselves, as
 * Unbound, Knot Resolver and systemd-resolved do, and a way back to us through one of them would
 * never be seen. Names under .example they are to treat like all others (6.5), and no such name
 * exists. */
#ifndef DNS_SELF_PROBE_H
#define DNS_SELF_PROBE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/siphash.h"
#include "dns/message.h"

/* Octets of the name on the wire. Few others have as many, so that one comparison dismisses them.
 */
enum { SELF_PROBE_NAME_LENGTH = 1 + 32 + 1 + 19 + 1 + 7 + 1 };

/* The question with this ID: class IN, type TXT. */
void self_probe_question(const struct siphash_key *key, uint64_t id, struct question *out);

/* True when this process made the question, whose name is of that length. */
bool self_probe_is_ours(const struct siphash_key *key, const struct question *question);

/* The records of the answer to such a question, which are never kept (TTL 0). */
struct self_probe_answer {
    struct answer answer; /* points at the rest */
    uint16_t ttl_offset;
    uint8_t body[32];
};
void self_probe_make_answer(const struct siphash_key *key, const struct question *question,
                            struct self_probe_answer *out);

/* True when a checked answer to our `question` is the one that this process gives. */
bool self_probe_is_answered(const struct siphash_key *key, const struct question *question,
                            const struct answer *answer);

#endif
