// SPDX-License-Identifier: Apache-2.0
/* Answers kept for their time to live, shared by all workers.
 *
 * Key: lower-cased name, type, class, DO and CD, compared in full, never by hash alone (FAULTS H1).
 * Copy-out: a hit is copied into the caller's buffer with its TTLs already aged, and without the
 * optional records whose time is over; no pointer leaves a shard. Bounded: the memory given at
 * cache_open is never exceeded, whatever is stored (H12). */
#ifndef CACHE_CACHE_H
#define CACHE_CACHE_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "config/config.h"
#include "dns/message.h"

struct cache;

/* STATUS_SYSTEM: the memory is refused. STATUS_INVALID: size_bytes is under CACHE_SIZE_MIN. */
enum { CACHE_SIZE_MIN = 65536 };
enum status cache_open(uint64_t size_bytes, const struct cache_limits *limits, struct cache **out);

/* For tests: only these bits of every hash are used, so that keys collide (FAULTS H1). */
enum status cache_open_with_hash_mask(uint64_t size_bytes, const struct cache_limits *limits,
                                      uint64_t hash_mask, struct cache **out);

/* From here on it goes by these: max-stale for what is kept, too, the rest for what is stored. Any
 * thread. */
void cache_set_limits(struct cache *cache, const struct cache_limits *limits);

/* No thread may use it any more. Safe on NULL. */
void cache_close(struct cache *cache);

/* What the functions below want with a question; the same for as long as the cache is open. */
uint64_t cache_hash(const struct cache *cache, const struct question *question);

/* Hints to the processor that this hash will soon be looked for. Any thread. */
void cache_prefetch(struct cache *cache, uint64_t hash);

/* The same for an answer that will soon be stored. */
void cache_prefetch_store(struct cache *cache, uint64_t hash);

enum {
    STALE_TTL_S = 30,       /* RFC 8767 4: what a stale answer shows */
    FAILURE_RECHECK_S = 30, /* RFC 8767 5: a key that could not be refreshed is left in peace */
    REFRESH_TTL_MIN_S = 5,  /* the last tenth of less is no time to ask in */
    /* RFC 9520 3.2 allows 5 minutes, but an upstream that is well again is noticed within 5 s,
     * which leaves one to ask in (FAULTS K10). */
    FAILURE_LIFETIME_MAX_S = 4,
};

/* Looks the question up at `now` (nanoseconds of the workers' clock). STATUS_OK: `out` is filled;
 * body and extended errors are in `body`, everything else by value; ttl_offsets is NULL and
 * ttl_count 0, since ageing is done. STATUS_NOT_FOUND otherwise. Any thread.
 *
 * out->age is ANSWER_AGEING for one hit of each entry that was asked for more than once: it is in
 * the last tenth of its time, and the caller should ask anew. It is ANSWER_STALE for an answer past
 * its time that could not be had anew within the last FAILURE_RECHECK_S. */
enum status cache_find(struct cache *cache, const struct question *question, uint64_t hash,
                       uint64_t now, uint8_t body[static DNS_MESSAGE_MAX], struct answer *out);

/* Keeps a copy if it may be kept: ttl_s > 0 within the bounds and RD set in the question. A good
 * answer that may not be kept still ends the older one. Any thread.
 *
 * A failure, of whatever ttl_s, never replaces a positive or negative answer that is usable, fresh
 * or stale (H5); over a stale one it makes cache_find give that for FAILURE_RECHECK_S. Otherwise an
 * upstream's failure that follows an expired one of the same key is kept twice as long as that one
 * was, up to FAILURE_LIFETIME_MAX_S (RFC 9520 3.2); one that follows a fresh one, from another
 * worker, is kept as long. */
void cache_store(struct cache *cache, const struct question *question, uint64_t hash,
                 const struct answer *answer, uint64_t now);

/* Bytes and entries in use now; approximate while others write. */
void cache_usage(struct cache *cache, uint64_t *bytes, uint64_t *entries);

#endif
