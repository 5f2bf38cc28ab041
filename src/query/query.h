// SPDX-License-Identifier: Apache-2.0
/* A query: one client's question, from its arrival to its reply.
 *
 * Owner: its listener until query_begin, then the resolver; a query that waits is also in exactly
 * one lookup. It ends in query_answer, query_fail or query_forget and nowhere else; each gives it
 * back to the pool. Thread: one worker; every struct here is one worker's own. */
#ifndef QUERY_QUERY_H
#define QUERY_QUERY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/address.h"
#include "base/body.h"
#include "base/deadline.h"
#include "base/list.h"
#include "base/pool.h"
#include "base/siphash.h"
#include "base/status.h"
#include "cache/cache.h"
#include "config/config.h"
#include "dns/message.h"
#include "dns/reply.h"
#include "net/loop.h"
#include "observe/metrics.h"
#include "query/clients.h"
#include "upstream/ask.h"

struct query;
struct lookup;

/* Octets of an answer's body from which on clients share it, where they can. Below it a copy costs
 * less than the two more system calls that it takes to send the body apart, and little memory. */
enum { SHARED_MIN = 16384 };

/* How replies get back to a client; one static instance for each kind of listener. */
struct transport {
    bool is_datagram; /* replies are cut to what the client can take */
    /* Copies the reply out (UDP: into the turn's batch; TCP: into the stream). Called once a query,
     * or not at all when it is dropped; the query is given back right after. */
    void (*send)(struct query *query, const uint8_t *reply, size_t length);
    /* The same for a reply that lacks its body, which is held instead of copied; NULL: replies are
     * always whole. */
    void (*send_around)(struct query *query, const uint8_t *reply, size_t length, size_t body_at,
                        struct body *body);
};

/* Where a query came from; copied into it. */
struct origin {
    const struct transport *transport;
    void *listener; /* the transport's: its socket or its TCP client */
    struct address client;
    struct address local; /* the address asked, family AF_UNSPEC when the socket is bound to one */
    uint32_t interface;   /* index, with a link-local `local` */
};

struct query {
    struct origin origin;
    struct lookup *lookup; /* NULL: waits for none */
    struct list waiting;   /* in its lookup */
    struct list sibling;   /* for the transport: the waiting queries of one TCP client */
    struct deadline deadline;
    uint64_t arrived_ns;
    uint64_t hash;      /* keyed, of the question: for the cache and the coalescing table */
    struct place place; /* once it is to wait */
    struct query_message message;
};

enum { QUERIES_IN_HAND_MAX = 16 }; /* accepted and not yet resolved */

/* Everything that one worker needs to resolve. */
struct resolver {
    const struct config *config;
    const struct snapshot *snapshot;
    struct loop *loop;
    struct metrics *metrics;
    struct cache *cache; /* NULL: turned off */
    struct group *group;
    const struct siphash_key *self_key; /* of dns/self_probe.h; NULL: nobody looks for ourselves */
    struct pool queries;                /* limits.queries that may wait, and those in hand */
    struct pool lookups;  /* one for each query that may wait, and those without queries */
    size_t waiting_count; /* queries that are in a lookup */
    size_t alone_count;   /* lookups without queries */
    size_t alone_max;
    size_t ended_count; /* lookups with an answer, whose queries it reaches in the next turns */
    struct deadline_queue young_queries;   /* of waiting ones: then they give way if need be */
    struct deadline_queue slow_queries;    /* from there on: time for a stale answer */
    struct deadline_queue query_deadlines; /* from there on */
    struct deadline_queue alone_lookups;
    struct siphash_key key; /* of the questions' hashes when there is no cache, which has its own */
    struct lookup **buckets; /* coalescing table */
    size_t bucket_mask;
    struct loop_task space; /* runs on_space at the end of a turn in which a full pool got room */
    struct list starved;    /* of struct starved: listeners that stopped reading for want of room */
    struct clients *clients;
    struct output_account output;   /* what clients make this worker hold */
    struct answer around;           /* one whose body is not copied into the reply */
    uint8_t body[DNS_MESSAGE_MAX];  /* a cached answer on its way to a reply */
    uint8_t reply[DNS_MESSAGE_MAX]; /* a reply on its way to a transport */
};

/* A listener that waits for room among the queries (FAULTS B4): called back once. */
struct starved {
    struct list link;
    void (*on_space)(struct starved *starved);
};

/* The three ends of a query, which is in no lookup any more. */
void query_answer(struct resolver *resolver, struct query *query, const struct answer *answer,
                  const struct extended_error *error);
/* The same with an answer past its time (RFC 8767). `why` in words, NULL when it is not known. */
void query_answer_stale(struct resolver *resolver, struct query *query, const struct answer *answer,
                        const char *why);
void query_fail(struct resolver *resolver, struct query *query, enum rcode rcode,
                const struct extended_error *error);
void query_forget(struct resolver *resolver, struct query *query);
/* The first of them with nothing but TC=1, for a datagram: its client may come back over TCP. */
void query_truncate(struct resolver *resolver, struct query *query);

static inline bool resolver_is_full(const struct resolver *resolver)
{
    return resolver->waiting_count == resolver->config->limits.queries;
}

/* Whether one more may wait: beside limits.queries, when one of them may give way. */
static inline bool resolver_has_room(const struct resolver *resolver)
{
    return resolver->waiting_count < resolver->config->limits.queries ||
           clients_has_held(resolver->clients);
}

/* There may be room now for those who wait for it. */
void resolver_tell_starved(struct resolver *resolver);

/* The time that a query waits at most. */
uint64_t resolver_query_ns(const struct resolver *resolver);

#endif
