// SPDX-License-Identifier: Apache-2.0
/* Replies to clients: an answer, or an error of our own, behind the client's own header, spelling
 * of the name and EDNS. RFC: 1035, 4343 (spelling), 6840 5.8 (AD), 6891, 7828 3.3.2 (keepalive),
 * 8914 (EDE), 9715 (size). */
#ifndef DNS_REPLY_H
#define DNS_REPLY_H

#include <stddef.h>
#include <stdint.h>

#include "dns/message.h"

/* An extended error of our own; `text` is UTF-8, cut at 200 octets, NULL for none. */
struct extended_error {
    enum extended_error_code code;
    const char *text;
};

/* What a reply is made of besides the query. */
struct reply {
    const struct answer *answer; /* NULL: no records */
    enum rcode rcode;            /* used when there is no answer */
    /* NULL: none of our own. Those of the answer are passed on. */
    const struct extended_error *error;
    size_t limit;       /* octets, 512 to DNS_MESSAGE_MAX: the message is cut above it */
    bool has_keepalive; /* tell the client how long we keep the stream (if it asked) */
    uint16_t keepalive_100ms;
};

/* Writes the reply into `out` (room for `reply->limit` octets at least) and returns its length.
 * Optional parts go first when it does not fit (FAULTS G3): keepalive and extended errors, then the
 * records that are not needed (A19), then all (TC=1, question and OPT only: A14). `*truncated`
 * tells whether TC=1 was set for want of room. */
size_t reply_write(const struct query_message *query, const struct reply *reply, uint8_t *out,
                   bool *truncated);

/* Makes the reply, over a stream, one without the answer's body: the message has it at offset
 * reply_body_at. `without` becomes the answer. For a body that fits whole, and whose TTLs are what
 * is meant. */
void reply_leave_out_body(struct reply *reply, struct answer *without);
bool reply_fits_around(const struct query_message *query, const struct answer *answer);
size_t reply_body_at(const struct query_message *query);

/* The reply to ANY over UDP without DO: one HINFO "RFC8482" (RFC 8482 4.2), as an answer with
 * static storage whose name is the question's. */
const struct answer *reply_minimal_any(void);

/* The reply that has nothing but TC=1, which sends a client to TCP, as an answer with static
 * storage. */
const struct answer *reply_truncated(void);

#endif
