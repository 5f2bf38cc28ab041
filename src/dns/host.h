// SPDX-License-Identifier: Apache-2.0
/* The addresses of a host: the question for them, and what an answer says.
 * RFC: 1035 3.4.1 (A), 3596 2 (AAAA). */
#ifndef DNS_HOST_H
#define DNS_HOST_H

#include <stddef.h>
#include <stdint.h>

#include "base/address.h"
#include "dns/message.h"

/* The question for the addresses of `host`, a DNS name as the configuration has checked it;
 * `type` is TYPE_A or TYPE_AAAA. */
void host_question(const char *host, enum dns_type type, struct question *out);

/* The bytes of the longest message that host_query writes. */
enum { HOST_QUERY_MAX = DNS_HEADER_SIZE + DNS_NAME_MAX + DNS_QUESTION_TAIL };

/* Writes the query for plain DNS: RD set, and no EDNS, so that an answer is small or truncated.
 * Returns its length. */
size_t host_query(const struct question *question, uint16_t id, uint8_t out[static HOST_QUERY_MAX]);

/* The first `max` addresses of the question's type in a checked answer, with `port`, each once.
 * Those that can be nobody's (unspecified, multicast, link-local) are left out. Returns how many.
 * CNAMEs are not followed: whoever could slip a record in could change the one we look for, and who
 * answers there has to authenticate itself all the same. */
size_t host_addresses(const struct answer *answer, const struct question *question, uint16_t port,
                      struct address *out, size_t max);

#endif
