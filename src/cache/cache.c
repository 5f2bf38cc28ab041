// SPDX-License-Identifier: Apache-2.0
/* The cache: keys, times to live, what may be kept and what a hit looks like.
 *
 * All memory is one anonymous mapping of at most `size_bytes`: this struct, the shards, and for
 * each shard the memory that shard.c manages. The pages of entries are made as they are needed, so
 * a cache that is larger than its load costs a thirteenth of its size; huge pages are declined
 * because they would undo that. There are few shards when the cache is small, so that the largest
 * message fits into any small ring of a cache of 1 MiB or more, and a lock for each shard, held for
 * one find or one store.
 *
 * Times are exact: an entry is gone when its age reaches its time to live, to the nanosecond. A TTL
 * that a hit shows is the time left of that record, rounded up: while there is some left it is
 * never 0, which would tell another cache to ask again at once. So each cache on the way may keep
 * an answer for up to a second longer than its owner said.
 *
 * How long an entry lives is up to the records that a client must get. One of the others may end
 * sooner; it is cut from the hits that follow, with all behind it.
 *
 * Past its time an answer stays for max-stale (RFC 8767), unseen: a find misses it, so that the
 * question is asked. Only when asking has failed, which a store of the failure tells, do finds give
 * it, for the recheck time; then the next find misses it again. In the last tenth of its time one
 * hit of a popular answer is told to ask anew. None of this costs an ordinary hit anything: one
 * comparison tells that an entry is calm, and all else is decided elsewhere.
 *
 * Thread: any; the shard's lock.   Owner: main, which closes it after the last worker has ended.
 * RFC:    1035 4.1.1 (AA), 2181 8 (TTLs), 2308 5 (negative answers), 8767 (stale ones), 9520 3.2
 * (failures). */
#include "cache/cache.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "base/bytes.h"
#include "cache/shard.h"
#include "dns/cut.h"

enum {
    SHARD_SIZE_MIN = 8 << 20,  /* few, so that their rings stay at hand */
    SHARD_SIZE_MAX = 64 << 20, /* offsets and the time of an insertion stay small */
    SHARDS_USUAL_MAX = 64,
    KEY_FLAG_DO = 1,
    KEY_FLAG_CD = 2,
    VISITS_TO_REFRESH = 2, /* asked for more than once, the hit in hand included */
    AGEING_DIVISOR = 10,   /* an entry ages in its last tenth */
    TYPE_BEFORE_TTL = 4,   /* octets */
};

struct cache {
    struct siphash_key hash_key; /* of this process: nobody can choose names that collide (I9) */
    uint64_t hash_mask;
    size_t mapped_bytes;
    size_t overhead_bytes; /* this struct with its shards */
    uint32_t shard_mask;
    struct shard shards[];
};

/* --- Open and close --- */

static uint32_t shard_count_for(uint64_t size_bytes)
{
    uint32_t count = 1;
    while (count < SHARDS_USUAL_MAX && size_bytes / (count * 2) >= SHARD_SIZE_MIN)
        count *= 2;
    while (size_bytes / count > SHARD_SIZE_MAX)
        count *= 2;
    return count;
}

/* An adaptive mutex spins for a while before it sleeps: locks are held for about 100 ns. */
static void lock_init(pthread_mutex_t *lock)
{
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_ADAPTIVE_NP);
    pthread_mutex_init(lock, &attributes);
    pthread_mutexattr_destroy(&attributes);
}

static void shards_init(struct cache *cache, uint32_t count, const struct cache_limits *limits)
{
    assert(count > 0 && (count & (count - 1)) == 0);
    uint8_t *memory = (uint8_t *)cache + cache->overhead_bytes;
    const size_t room = (cache->mapped_bytes - cache->overhead_bytes) / count;
    const uint32_t size = (uint32_t)(room & ~(size_t)(alignof(struct shard) - 1));
    cache->shard_mask = count - 1;
    for (uint32_t i = 0; i < count; i++) {
        lock_init(&cache->shards[i].lock);
        shard_init(&cache->shards[i], memory + (size_t)i * size, size, limits);
    }
}

enum status cache_open_with_hash_mask(uint64_t size_bytes, const struct cache_limits *limits,
                                      uint64_t hash_mask, struct cache **out)
{
    assert(limits && out);
    if (size_bytes < CACHE_SIZE_MIN)
        return STATUS_INVALID;
    if (size_bytes > SIZE_MAX / 2) {
        errno = ENOMEM;
        return STATUS_SYSTEM;
    }
    const size_t size = (size_t)size_bytes;
    struct cache *cache =
        mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (cache == MAP_FAILED)
        return STATUS_SYSTEM;
    /* A kernel without huge pages refuses, and that is as good. */
    (void)madvise(cache, size, MADV_NOHUGEPAGE);
    const uint32_t count = shard_count_for(size);
    cache->hash_key = siphash_random_key();
    cache->hash_mask = hash_mask;
    cache->mapped_bytes = size;
    cache->overhead_bytes = sizeof(*cache) + count * sizeof(cache->shards[0]);
    shards_init(cache, count, limits);
    *out = cache;
    return STATUS_OK;
}

enum status cache_open(uint64_t size_bytes, const struct cache_limits *limits, struct cache **out)
{
    return cache_open_with_hash_mask(size_bytes, limits, UINT64_MAX, out);
}

void cache_set_limits(struct cache *cache, const struct cache_limits *limits)
{
    assert(cache && limits);
    for (uint32_t i = 0; i <= cache->shard_mask; i++) {
        struct shard *shard = &cache->shards[i];
        pthread_mutex_lock(&shard->lock);
        shard->limits = *limits;
        pthread_mutex_unlock(&shard->lock);
    }
}

void cache_close(struct cache *cache)
{
    if (!cache)
        return;
    for (uint32_t i = 0; i <= cache->shard_mask; i++)
        pthread_mutex_destroy(&cache->shards[i].lock);
    munmap(cache, cache->mapped_bytes);
}

void cache_usage(struct cache *cache, uint64_t *bytes, uint64_t *entries)
{
    assert(bytes && entries);
    *bytes = cache->overhead_bytes;
    *entries = 0;
    for (uint32_t i = 0; i <= cache->shard_mask; i++) {
        struct shard *shard = &cache->shards[i];
        pthread_mutex_lock(&shard->lock);
        *bytes += shard_bytes(shard);
        *entries += shard->entry_count;
        pthread_mutex_unlock(&shard->lock);
    }
}

/* --- Keys --- */

static struct shard *shard_of(struct cache *cache, uint64_t hash)
{
    return &cache->shards[(uint32_t)(hash >> 32) & cache->shard_mask];
}

static struct key key_of(const struct question *question, uint64_t hash)
{
    assert(question->name_length > 0);
    const unsigned flags =
        (question->dnssec_ok ? KEY_FLAG_DO : 0) | (question->checking_disabled ? KEY_FLAG_CD : 0);
    return (struct key){
        .hash = (uint32_t)hash,
        .length = (uint16_t)(KEY_FIXED + question->name_length),
        .fixed = {question->type, question->class, (uint8_t)flags},
        .name = question->name,
    };
}

uint64_t cache_hash(const struct cache *cache, const struct question *question)
{
    return question_hash(&cache->hash_key, question) & cache->hash_mask;
}

void cache_prefetch(struct cache *cache, uint64_t hash)
{
    shard_prefetch(shard_of(cache, hash), (uint32_t)hash);
}

void cache_prefetch_store(struct cache *cache, uint64_t hash)
{
    shard_prefetch_insert(shard_of(cache, hash), (uint32_t)hash);
}

/* --- Find --- */

/* Takes `age_s` off the TTLs in `body`, down to 0. Inlined, as copy_out is, because nearly every
 * hit comes by one of their calls: the one in cache_find. */
[[gnu::always_inline]] static inline void age_ttls(const struct entry *entry, uint32_t age_s,
                                                   uint8_t *body)
{
    const uint8_t *offsets = entry->bytes + entry->key_length;
    for (uint32_t i = 0; i < entry->ttl_count; i++) {
        uint8_t *field = body + load_u16(offsets + (size_t)i * 2);
        const uint32_t ttl_s = load_u32(field);
        store_u32(field, ttl_s > age_s ? ttl_s - age_s : 0);
    }
}

static uint32_t age_in_seconds(const struct entry *entry, uint64_t now)
{
    return (uint32_t)(entry_age_ns(entry, now) / NANOSECONDS_PER_SECOND);
}

[[gnu::always_inline]] static inline void copy_out(const struct entry *entry, uint32_t age_s,
                                                   uint8_t *body, struct answer *out)
{
    const uint8_t *kept = entry->bytes + entry->key_length + (size_t)entry->ttl_count * 2;
    assert(age_s < entry->lifetime_s);
    assert(entry->body_length + entry->extended_errors_length <= DNS_MESSAGE_MAX);
    memcpy(body, kept, (size_t)entry->body_length + entry->extended_errors_length);
    age_ttls(entry, age_s, body);
    *out = (struct answer){
        .kind = (enum answer_kind)entry->kind,
        .flags = entry->flags,
        .rcode = entry->rcode,
        .answer_count = entry->answer_count,
        .authority_count = entry->authority_count,
        .additional_count = entry->additional_count,
        .ttl_s = entry->lifetime_s - age_s,
        .body = body,
        .body_length = entry->body_length,
        .needed_length = entry->needed_length,
        .extended_errors = body + entry->body_length,
        .extended_errors_length = entry->extended_errors_length,
    };
}

/* A popular entry stays at the maximum, and its line stays clean. */
static void count_visit(struct entry *entry)
{
    if (entry->visits < ENTRY_VISITS_MAX)
        entry->visits++;
}

static bool is_ageing(const struct entry *entry, uint64_t now)
{
    const uint64_t lifetime_ns = entry->lifetime_s * NANOSECONDS_PER_SECOND;
    return entry_age_ns(entry, now) >= lifetime_ns - lifetime_ns / AGEING_DIVISOR;
}

/* True once for each entry that is worth to be had anew. A question without RD would bring nothing
 * that can be kept. */
static bool claim_refresh(const struct cache_limits *limits, struct entry *entry,
                          const struct question *question, uint64_t now)
{
    if (limits->refresh == TOGGLE_OFF || entry->is_claimed || !is_ageing(entry, now) ||
        entry->visits < VISITS_TO_REFRESH || entry->lifetime_s < REFRESH_TTL_MIN_S ||
        answer_is_failure(entry->kind) || !question->recursion_desired)
        return false;
    entry->is_claimed = true;
    return true;
}

/* RFC 8767 4: the TTLs of an answer past its time are 30 s, less when it may not be used for so
 * long. */
static void copy_out_stale(const struct entry *entry, uint64_t now, uint8_t *body,
                           struct answer *out)
{
    assert(entry->lifetime_s > age_in_seconds(entry, now));
    const uint32_t left_s = entry->lifetime_s - age_in_seconds(entry, now);
    const uint32_t ttl_s = left_s < STALE_TTL_S ? left_s : STALE_TTL_S;
    copy_out(entry, 0, body, out);
    const uint8_t *offsets = entry->bytes + entry->key_length;
    for (uint32_t i = 0; i < entry->ttl_count; i++)
        store_u32(body + load_u16(offsets + (size_t)i * 2), ttl_s);
    out->ttl_s = ttl_s;
    out->age = ANSWER_STALE;
}

/* An entry that may be in its last tenth, or past its time, or some of it is: seldom a plain hit.
 */
[[gnu::noinline]] static enum status find_aged(const struct cache_limits *limits,
                                               struct entry *entry, const struct question *question,
                                               uint64_t now, uint8_t *body, struct answer *out)
{
    if (!entry_is_expired(entry, now)) {
        count_visit(entry);
        copy_out(entry, age_in_seconds(entry, now), body, out);
        out->age = claim_refresh(limits, entry, question, now) ? ANSWER_AGEING : ANSWER_FRESH;
        return STATUS_OK;
    }
    const uint64_t age_ns = entry_age_ns(entry, now);
    if (!entry->is_rechecked || age_ns >= FAILURE_RECHECK_S * NANOSECONDS_PER_SECOND ||
        age_ns >= entry->lifetime_s * NANOSECONDS_PER_SECOND)
        return STATUS_NOT_FOUND;
    count_visit(entry);
    copy_out_stale(entry, now, body, out);
    return STATUS_OK;
}

/* What is past its time is given for want of anything better, and only as much as is needed. In a
 * fresh answer optional records may have ended: their TTLs have come down to 0. */
[[gnu::noinline]] static void cut_aged(const struct question *question, struct answer *answer)
{
    const bool is_stale = answer->age == ANSWER_STALE;
    answer_cut(answer, question, is_stale ? answer->needed_length : answer_living_length(answer));
}

enum status cache_find(struct cache *cache, const struct question *question, uint64_t hash,
                       uint64_t now, uint8_t body[static DNS_MESSAGE_MAX], struct answer *out)
{
    const struct key key = key_of(question, hash);
    struct shard *shard = shard_of(cache, hash);
    enum status status = STATUS_NOT_FOUND;
    pthread_mutex_lock(&shard->lock);
    struct entry *entry = shard_find(shard, &key);
    const uint32_t age_s = entry ? age_in_seconds(entry, now) : 0;
    const bool is_calm = entry && age_s < entry->calm_s;
    if (is_calm) {
        count_visit(entry);
        copy_out(entry, age_s, body, out);
        status = STATUS_OK;
    } else if (entry) {
        status = find_aged(&shard->limits, entry, question, now, body, out);
    }
    pthread_mutex_unlock(&shard->lock);
    if (status == STATUS_OK && !is_calm)
        cut_aged(question, out);
    return status;
}

/* --- Store --- */

static uint32_t smaller(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* The configured minimum, which never makes an answer of 0 one that is kept. */
static uint32_t raised_ttl(const struct cache_limits *limits, const struct answer *answer,
                           uint32_t ttl_s)
{
    const bool is_raised = answer->kind == ANSWER_POSITIVE && ttl_s > 0;
    return is_raised && ttl_s < limits->ttl_min_s ? limits->ttl_min_s : ttl_s;
}

/* A truncated answer over TLS is none. */
static bool is_failure(const struct answer *answer)
{
    return answer_is_failure(answer->kind) || answer->flags & DNS_FLAG_TC;
}

/* For how long a failure is kept in place of `old`. Only what an upstream said is kept for longer
 * each time: a timeout may be the fault of the way there, and must not outlive it. */
static uint32_t failure_lifetime(const struct answer *answer, const struct entry *old, uint64_t now)
{
    uint32_t ttl_s = answer->ttl_s;
    if (old && old->kind == ANSWER_FAILURE && answer->kind == ANSWER_FAILURE)
        ttl_s = entry_is_expired(old, now) ? old->lifetime_s * 2 : old->lifetime_s;
    return smaller(ttl_s, FAILURE_LIFETIME_MAX_S);
}

/* For how long the answer is kept in place of `old` (NULL: nothing there); 0: not at all. */
static uint32_t lifetime_for(const struct cache_limits *limits, const struct answer *answer,
                             const struct entry *old, uint64_t now)
{
    uint32_t ttl_s = raised_ttl(limits, answer, ttl_meant(answer->ttl_s));
    if (ttl_s == 0 || answer->flags & DNS_FLAG_TC)
        return 0;
    if (answer->kind == ANSWER_NEGATIVE)
        ttl_s = smaller(ttl_s, limits->negative_ttl_max_s);
    if (answer_is_failure(answer->kind))
        ttl_s = failure_lifetime(answer, old, now);
    return smaller(ttl_s, limits->ttl_max_s);
}

/* Each record has its own TTL within the bounds, but an SOA that says no has that of its answer
 * (RFC 2308 5). Read where the answer came from: the copy is on its way to memory that is not at
 * hand. */
static uint32_t ttl_for(const struct cache_limits *limits, const struct answer *answer,
                        uint32_t lifetime_s, uint32_t offset)
{
    const uint32_t told_s = ttl_meant(load_u32(answer->body + offset));
    const bool says_no = answer->kind == ANSWER_NEGATIVE &&
                         load_u16(answer->body + offset - TYPE_BEFORE_TTL) == TYPE_SOA;
    return smaller(raised_ttl(limits, answer, told_s), says_no ? lifetime_s : limits->ttl_max_s);
}

/* Writes the TTLs to the copy, and gives the least of those records that are not needed. */
static uint32_t fill_ttls(const struct cache_limits *limits, const struct answer *answer,
                          uint32_t lifetime_s, uint8_t *body)
{
    uint32_t least_s = UINT32_MAX;
    for (uint32_t i = 0; i < answer->ttl_count; i++) {
        const uint32_t offset = answer->ttl_offsets[i];
        const uint32_t ttl_s = ttl_for(limits, answer, lifetime_s, offset);
        store_u32(body + offset, ttl_s);
        if (offset >= answer->needed_length)
            least_s = smaller(least_s, ttl_s);
    }
    return least_s;
}

static void entry_fill(const struct cache_limits *limits, struct entry *entry,
                       const struct answer *answer, uint16_t extended_errors_length,
                       uint32_t lifetime_s)
{
    entry->lifetime_s = lifetime_s;
    entry->kind = answer->kind & 3;
    entry->is_claimed = false;
    entry->is_rechecked = false;
    entry->flags = answer->flags & (uint16_t)~DNS_FLAG_AA; /* RFC 1035 4.1.1: it is no authority */
    entry->rcode = answer->rcode;
    entry->answer_count = answer->answer_count;
    entry->authority_count = answer->authority_count;
    entry->additional_count = answer->additional_count;
    entry->body_length = answer->body_length;
    entry->needed_length = answer->needed_length;
    entry->extended_errors_length = extended_errors_length;
    entry->ttl_count = answer->ttl_count;
    const size_t room =
        2U * answer->ttl_count + (size_t)answer->body_length + extended_errors_length;
    struct writer writer = writer_over(entry->bytes + entry->key_length, room);
    for (uint32_t i = 0; i < answer->ttl_count; i++) {
        assert(answer->ttl_offsets[i] + 4 <= answer->body_length);
        write_u16(&writer, answer->ttl_offsets[i]);
    }
    uint8_t *body = writer.position;
    write_bytes(&writer, answer->body, answer->body_length);
    write_bytes(&writer, answer->extended_errors, extended_errors_length);
    assert(!writer.failed && writer_left(&writer) == 0);
    const uint32_t optional_s = fill_ttls(limits, answer, lifetime_s, body);
    entry->calm_s =
        smaller(lifetime_s - (lifetime_s + AGEING_DIVISOR - 1) / AGEING_DIVISOR, optional_s);
}

static bool is_usable(const struct shard *shard, const struct entry *entry, uint64_t now)
{
    return !answer_is_failure(entry->kind) &&
           entry_age_ns(entry, now) < shard_usable_ns(shard, entry);
}

/* The answer that could not be had anew is given for a while without asking. Whole seconds are left
 * to it, rounded down: it is never used past its end. */
static void recheck(const struct shard *shard, struct entry *entry, uint64_t now)
{
    assert(!answer_is_failure(entry->kind));
    const uint64_t left_ns = shard_usable_ns(shard, entry) - entry_age_ns(entry, now);
    if (left_ns < NANOSECONDS_PER_SECOND)
        return;
    entry->lifetime_s = (uint32_t)(left_ns / NANOSECONDS_PER_SECOND);
    entry->calm_s = 0;
    entry->stored_ns = now;
    entry->is_rechecked = true;
}

/* With the shard locked. */
static void store_locked(struct shard *shard, const struct key *key, const struct answer *answer,
                         uint64_t now)
{
    shard_sweep(shard, now);
    struct entry *old = shard_find(shard, key);
    if (old && is_failure(answer) && is_usable(shard, old, now)) {
        if (entry_is_expired(old, now))
            recheck(shard, old, now);
        return;
    }
    const uint32_t lifetime_s = lifetime_for(&shard->limits, answer, old, now);
    if (lifetime_s == 0) {
        if (old && !is_failure(answer))
            shard_remove(shard, old);
        return;
    }
    /* Extended errors inform, they are not needed: a hit must fit into a message. */
    uint16_t extended_errors_length = answer->extended_errors_length;
    if ((uint32_t)answer->body_length + extended_errors_length > DNS_MESSAGE_MAX)
        extended_errors_length = 0;
    const size_t size = ENTRY_FIXED + (size_t)key->length + 2U * answer->ttl_count +
                        answer->body_length + extended_errors_length;
    struct entry *entry = shard_insert(shard, key, old, (uint32_t)size, now);
    if (!entry)
        return;
    entry->stored_ns = now;
    entry_fill(&shard->limits, entry, answer, extended_errors_length, lifetime_s);
}

void cache_store(struct cache *cache, const struct question *question, uint64_t hash,
                 const struct answer *answer, uint64_t now)
{
    if (!question->recursion_desired)
        return;
    const struct key key = key_of(question, hash);
    struct shard *shard = shard_of(cache, hash);
    pthread_mutex_lock(&shard->lock);
    store_locked(shard, &key, answer, now);
    pthread_mutex_unlock(&shard->lock);
}
