// SPDX-License-Identifier: Apache-2.0
/* DNS messages in: parse a client's query, check an upstream's answer. And one out: the query that
 * we send to an upstream, built from the parsed question and never from client bytes.
 *
 * Every byte here comes from a stranger. Nothing asserts on it, nothing allocates, every walk is
 * linear in the message or stops at a budget.
 * RFC: 1035, 2181, 2308, 3225, 4343, 6840, 6891, 7828, 7830, 8467, 8906, 8914, 9267, 9619. */
#ifndef DNS_MESSAGE_H
#define DNS_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/siphash.h"
#include "base/status.h"
#include "dns/dns.h"

/* What is asked: all that a lookup, the cache and an upstream need to know. */
struct question {
    uint16_t type;
    uint16_t class;
    bool recursion_desired;
    bool dnssec_ok;
    bool checking_disabled;
    uint8_t name_length;        /* wire octets, 1 to 255, root label included */
    uint8_t name[DNS_NAME_MAX]; /* wire form, ASCII letters in lower case (RFC 4343) */
};

/* A client's query. `spelling` is the name as the client wrote it, for its reply only. */
struct query_message {
    uint16_t id;
    uint16_t flags;          /* the header's second word as received */
    bool has_question;       /* the question can be echoed */
    bool has_edns;           /* the reply carries an OPT */
    bool has_authentic_data; /* AD was set: the client wants to see AD (RFC 6840 5.7) */
    bool has_keepalive;      /* the keepalive option was present (RFC 7828) */
    uint16_t udp_size;       /* what the client can take over UDP, at least 512 */
    struct question question;
    uint8_t spelling[DNS_NAME_MAX];
};

/* What to do with a client's message. */
enum query_verdict {
    QUERY_ACCEPT,   /* ask for it */
    QUERY_DROP,     /* too short for a header: no reply (FAULTS A1) */
    QUERY_RESPONSE, /* QR=1: no reply, never (FAULTS A2) */
    QUERY_REJECT,   /* reply with `*rcode` and, when has_question, the question */
};

/* Parses `length` bytes (any number). On QUERY_ACCEPT all of `out` is set. On QUERY_REJECT id,
 * flags, has_question (with question and spelling when true), has_edns and udp_size are set, and
 * `*rcode` is FORMERR, NOTIMP, REFUSED or BADVERS. Transfers and the mail meta types are REFUSED
 * here (FAULTS A9), other opcodes are NOTIMP (A7). */
enum query_verdict message_parse_query(const uint8_t *bytes, size_t length,
                                       struct query_message *out, enum rcode *rcode);

/* The most bytes that message_build_query writes: header, question, OPT, keepalive, padding. */
enum { MESSAGE_QUERY_MAX = 384 };

/* Writes the query for an upstream on an encrypted stream: RD and CD as asked, AD set (so that its
 * answer tells; RFC 6840 5.7), OPT with DO as asked, an empty keepalive option (RFC 7828) and
 * padding to a multiple of 128 (RFC 8467). Returns its length, a multiple of 128 and at most
 * MESSAGE_QUERY_MAX. */
size_t message_build_query(const struct question *question, uint16_t id,
                           uint8_t out[static MESSAGE_QUERY_MAX]);

/* How an answer may be remembered. */
enum answer_kind {
    ANSWER_POSITIVE,
    ANSWER_NEGATIVE, /* NXDOMAIN, or NODATA with an SOA (RFC 2308) */
    ANSWER_FAILURE,  /* SERVFAIL and the like from an upstream (RFC 9520) */
    ANSWER_TIMEOUT,  /* our own failure: no upstream gave an answer in time */
};

/* What the cache says of an answer that it gives; those of upstreams are fresh. */
enum answer_age {
    ANSWER_FRESH,
    ANSWER_AGEING, /* fresh, and whoever gets it should ask anew */
    ANSWER_STALE,  /* past its time to live (RFC 8767) */
};

static inline bool answer_is_failure(enum answer_kind kind)
{
    return kind == ANSWER_FAILURE || kind == ANSWER_TIMEOUT;
}

/* What a TTL on the wire means: 0 when its top bit is set (RFC 2181 8). */
static inline uint32_t ttl_meant(uint32_t wire_ttl)
{
    return wire_ttl > DNS_TTL_MAX ? 0 : wire_ttl;
}

enum {
    ANSWER_TTLS_MAX = 5957,           /* records of 11 octets that fit into a message */
    ANSWER_EXTENDED_ERRORS_MAX = 512, /* octets of extended errors that are kept */
};

struct body; /* base/body.h */

/* An answer, without the parts that belong to one hop: no ID, no question, no OPT. Compression
 * pointers in `body` count from the header, over a question of the same length as the one asked.
 * The pointers are borrowed: see the function that fills them. */
struct answer {
    enum answer_kind kind;
    enum answer_age age;
    uint16_t flags; /* AA, TC, RA and AD as the upstream set them; other bits are 0 */
    uint16_t rcode; /* extended RCODE, 12 bits */
    uint16_t answer_count;
    uint16_t authority_count;
    uint16_t additional_count; /* OPT not counted */
    uint32_t ttl_s;      /* how long it may be kept, before the configured bounds; 0: not at all */
    const uint8_t *body; /* from the end of the question to the end of the last record */
    struct body *shared; /* not NULL: the same, to be held instead of copied */
    uint16_t body_length;
    uint16_t needed_length; /* of body: up to the last record that a client cannot do without */
    uint16_t ttl_count;     /* records whose TTL ages */
    const uint16_t *ttl_offsets;    /* of the 32-bit TTL fields, in body */
    const uint8_t *extended_errors; /* EDE options in wire form: code, length, data; repeated */
    uint16_t extended_errors_length;
    bool has_keepalive;
    uint16_t keepalive_100ms; /* RFC 7828: 0 means close when answered */
    bool has_padding;         /* for `dnsproxy probe` */
};

/* Room for what an answer points at and for checking it; one per worker, never cleared. */
struct answer_scratch {
    uint16_t ttl_offsets[ANSWER_TTLS_MAX];
    uint8_t extended_errors[ANSWER_EXTENDED_ERRORS_MAX];
    uint8_t name_lengths[DNS_POINTER_REACH]; /* see struct name_map in dns/name.h */
};

/* Checks an upstream's message against the question that it should answer and fills `out`, which
 * then points into `bytes` and `scratch`.
 *
 * STATUS_MALFORMED: breaks the format, or is no answer to anything (QR=0, another opcode).
 * STATUS_NOT_FOUND: for another question or for none (FAULTS F12, G4).
 *
 * An EDNS option of an illegal length is ignored. Of extended errors all codes are kept as long as
 * there is room, then the texts, which are cut between characters and are UTF-8.
 *
 * A truncated answer (TC=1) is STATUS_OK with DNS_FLAG_TC in flags and ttl_s 0. Records after an
 * OPT that is not the last are left out: they are optional, and moving them would break compression
 * pointers. So are those from a TSIG on, and its like, but for the OPT. Bytes after the last record
 * are ignored and not in the body.
 *
 * Needed are the records of the answer section, the SOA of a negative answer, and for a question
 * with DO the NSEC and NSEC3 of authority and the signatures of all these. ttl_s is the least TTL
 * up to the last of them; what follows is cut when there is no room for it (RFC 2181 9), or its own
 * time is over.
 * For a negative answer also at most the SOA's MINIMUM, and 0 without an SOA (RFC 2308 5). For a
 * failure 1 (RFC 9520 3.2: the shortest; the cache backs off from there), 0 for BADVERS and
 * BADCOOKIE, which concern one hop only. */
enum status message_check_answer(const uint8_t *bytes, size_t length,
                                 const struct question *question, struct answer_scratch *scratch,
                                 struct answer *out);

/* The hash, keyed by `key`, of what tells answers apart: type, class, DO, CD and name. */
uint64_t question_hash(const struct siphash_key *key, const struct question *question);

/* Copies what is used of `from`; the rest of the name's room stays as it was. */
void question_copy(struct question *to, const struct question *from);

/* True when both ask the same thing of an upstream; the client's AD, EDNS size and spelling do not
 * matter. */
bool question_equal(const struct question *a, const struct question *b);

#endif
