// SPDX-License-Identifier: Apache-2.0
/* Private to the cache: one shard, the memory of which holds entries, their index and the memory of
 * what was let go. It knows where entries lie and which of them must leave; what is in them and for
 * how long is cache.c's business.
 *
 * Thread: any that holds `lock`, for every function here but shard_init. Owner: struct cache. */
#ifndef CACHE_SHARD_H
#define CACHE_SHARD_H

#include <pthread.h>
#include <stdalign.h>
#include <stddef.h>
#include <stdint.h>

#include "base/deadline.h"
#include "base/status.h"
#include "config/config.h"
#include "dns/message.h"

enum { KEY_FIXED = 5 }; /* octets of a key before the name, as they lie in memory */

/* What an answer is found by, compared as a whole. The name is the question's own. */
struct key {
    uint32_t hash;
    uint16_t length; /* of both parts */
    struct {
        uint16_t type;
        uint16_t class;
        uint8_t flags; /* DO and CD */
    } fixed;
    const uint8_t *name;
};

/* One answer as it is kept. A lifetime of 0 marks an entry that left the index: its room is free
 * once the tail of its ring has come by. `bytes` holds the key, the TTL offsets (big-endian), the
 * body and the extended errors.
 *
 * An entry that expired and could not be had anew is `is_rechecked`. Its own times are of no use
 * any more, so that stored_ns is then when asking failed, and lifetime_s what was left at that
 * moment of the time for which it may be used though it is stale. */
struct entry {
    uint64_t stored_ns;
    uint32_t next; /* link to the next entry of the bucket; 0: none */
    uint32_t hash;
    uint32_t lifetime_s;
    uint32_t calm_s; /* below this age a hit is all of it, and nothing but a hit */
    uint16_t body_length;
    uint16_t needed_length;
    uint16_t extended_errors_length;
    uint16_t ttl_count;
    uint16_t key_length;
    uint16_t flags;
    uint16_t rcode;
    uint16_t answer_count;
    uint16_t authority_count;
    uint16_t additional_count;
    uint8_t kind : 2;         /* enum answer_kind */
    uint8_t is_claimed : 1;   /* somebody was told to refresh it */
    uint8_t is_rechecked : 1; /* see above */
    uint8_t is_counted : 1;   /* in `stale` of its ring */
    uint8_t visits;           /* hits since it came or was last spared, up to ENTRY_VISITS_MAX */
    uint8_t bytes[];
};

enum {
    ENTRY_FIXED = offsetof(struct entry, bytes), /* less than its size, which is padded */
    ENTRY_VISITS_MAX = 3,
    ENTRY_ALIGNMENT = 8,
    FAILURE_MEMORY_S = 30, /* past its time a failure still counts for the next one */
};

/* Entries of any size one behind the other. Offsets count from the start of the shard. */
struct ring {
    uint32_t start;
    uint32_t end;
    uint32_t head;  /* where the next entry goes */
    uint32_t tail;  /* the oldest entry */
    uint32_t hand;  /* the next entry to be looked at by the sweep */
    uint32_t limit; /* when lapped: where the entries behind the tail end */
    uint32_t made;  /* as far as this its pages are there */
    uint32_t dead;  /* bytes of dead entries */
    uint32_t stale; /* bytes of answers past their time, as far as the sweep has seen them */
    bool lapped;    /* the head has begun again at the start, the tail has not */
};

struct shard {
    alignas(64) pthread_mutex_t lock;
    uint8_t *memory;
    uint32_t *buckets; /* links to first entries; 0: none */
    uint32_t bucket_count;
    uint32_t entry_count;
    uint16_t *ghosts;
    uint32_t ghost_sets;
    uint32_t unswept_stores;
    uint32_t spare_budget; /* entries that may still be spared by this insertion */
    struct cache_limits limits;
    _Atomic uint32_t next_victim; /* probably; its hash, which is read without the lock */
    struct ring small;
    struct ring main;
};

/* `size` bytes of zeroed `memory`, aligned to 64, become a shard. The lock is the caller's. */
void shard_init(struct shard *shard, uint8_t *memory, uint32_t size,
                const struct cache_limits *limits);

/* The entry of a key, however old, or NULL. */
struct entry *shard_find(struct shard *shard, const struct key *key);

/* Room for an entry of `size` bytes (header included) under `key`. The entry is in the index, with
 * hash, key and visits set; all else is the caller's to fill in before it unlocks. `old` is what
 * shard_find gave for the key: it is replaced in any case. NULL when the shard is too small. */
struct entry *shard_insert(struct shard *shard, const struct key *key, struct entry *old,
                           uint32_t size, uint64_t now);

/* Takes the entry out; its room is free later. */
void shard_remove(struct shard *shard, struct entry *entry);

/* For how long from stored_ns the entry is of any use. */
uint64_t shard_usable_ns(const struct shard *shard, const struct entry *entry);

/* Hints to the processor that the key with this hash will be looked for. Needs no lock. */
void shard_prefetch(const struct shard *shard, uint32_t hash);

/* The same for a key that will be inserted. */
void shard_prefetch_insert(const struct shard *shard, uint32_t hash);

/* Forgets a few entries that nobody will ask for again; most calls do nothing. */
void shard_sweep(struct shard *shard, uint64_t now);

/* Bytes of index and rings in use. */
uint64_t shard_bytes(const struct shard *shard);

/* The clock of the worker that stored it may be ahead. */
static inline uint64_t entry_age_ns(const struct entry *entry, uint64_t now)
{
    return now > entry->stored_ns ? now - entry->stored_ns : 0;
}

/* True when the answer is past its time to live. */
static inline bool entry_is_expired(const struct entry *entry, uint64_t now)
{
    return entry->is_rechecked ||
           entry_age_ns(entry, now) >= entry->lifetime_s * NANOSECONDS_PER_SECOND;
}

#endif
