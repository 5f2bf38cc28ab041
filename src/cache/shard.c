// SPDX-License-Identifier: Apache-2.0
/* One shard: two rings of entries, their hash index, and ghosts.
 *
 * Eviction is S3-FIFO (Yang et al., "FIFO queues are all you need for cache eviction", SOSP 2023).
 * As long as the main ring has free room nothing is to be evicted, and a new entry goes there at
 * once: by way of the small ring it would be copied (2 % of a forwarded query). After that a new
 * entry is appended to the small ring, a tenth of the room. What reaches its tail and was asked for
 * meanwhile moves to the main ring; what was not leaves, and 16 bits of its hash stay as a ghost. A
 * key that comes back while its ghost is there goes to the main ring at once. At the tail of the
 * main ring an entry that was asked for is appended again, one that was not is dropped. So a scan
 * of names asked once passes through the small ring and never touches what is popular, and a hit
 * writes nothing but a counter that soon stays at its maximum.
 *
 * Queues that only ever append and drop need no allocator: a ring is a log of entries of any size,
 * without fragments or free lists, and the bound on memory is the size of the mapping. Three things
 * follow. A replaced entry of another size stays behind, dead, until the tail comes by (most
 * refreshes have the same size and happen in place). A main ring that waits for popular entries
 * would keep expired ones for ever: every store therefore moves a sweep over both rings, which
 * takes spent entries out of the index whatever else is hit. And while a sixteenth of the main ring
 * is dead or was never used, it takes all that leaves the small ring, and its tail spares the
 * living until it has come past the dead. How many entries one store may spare is bounded: past
 * that it drops.
 *
 * Answers past their time, which may still be of use when no fresh ones are to be had, stay in the
 * index, but their room is as good as that of the dead: the sweep counts it, and the tail spares
 * them only for the sake of the dead. So they go before anything fresh, and not before their room
 * is needed.
 *
 * The index is a table of chains of 32-bit links, as large as a full shard needs from the start.
 * Its pages, which hashes hit at random, are made at once: else the first thousands of new names
 * would each wait for one or two to be made (8 of 12 us over the relay at 1,000 misses a second),
 * and all would be there soon anyway. Those of the ghosts, a fourth as many, come when something
 * leaves. An A answer costs its 88 bytes, 4 of them for the chain, and 6 of index.
 *
 * An entry is a cache line that nobody has touched for long, and to wait for one takes as long as
 * all else that a find or a store does. So a link says, besides where an entry is, whether another
 * follows it and eight bits of its hash: what is not there is nearly always known to be missing
 * without a look at an entry. The sweep looks at a few neighbours now and then instead of one at
 * each store. And each store fetches what the next will write, and leaves word of what that will
 * evict, so that the index of both is fetched while the answer goes to the clients.
 *
 * Thread: whoever holds the lock.   Owner: struct cache. */
#include "cache/shard.h"

#include <assert.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>

#define LINK_FOLLOWED UINT32_C(0x80000000) /* the entry has a next */

enum {
    LINK_OFFSET_BITS = 23, /* in units of ENTRY_ALIGNMENT: shards of 64 MiB */
    LINK_OFFSET_MASK = (1 << LINK_OFFSET_BITS) - 1,
    LINK_TAG_MASK = 0xff << LINK_OFFSET_BITS,
    /* Of the shard; a bucket takes 4. There are more buckets than entries, so that the first of a
     * chain is nearly always the right one. */
    BYTES_PER_BUCKET = 64,
    BYTES_PER_GHOST = 128, /* of the shard; a ghost takes 2. About one for each entry (S3-FIFO) */
    GHOSTS_PER_SET = 8,
    SMALL_SHARE = 10,   /* the small ring is a tenth (S3-FIFO) */
    SPARE_SHARE = 16,   /* of the main ring, free or dead: worth filling again */
    VISITS_TO_STAY = 1, /* hits that take an entry from the small to the main ring */
    SPARED_MAX = 128,   /* for each insertion: a bound on its time */
    CACHE_LINE = 64,
    STORES_PER_SWEEP = 8,
    SWEPT = 6,
    SWEPT_SMALL = 2, /* of those, as long as the small ring has any */
    PAGE_SIZE_USUAL = 4 << 10,
    PAGES_MADE = 24 << 10, /* bytes */
};

static struct entry *entry_at(const struct shard *shard, uint32_t offset)
{
    return (struct entry *)(void *)(shard->memory + offset);
}

static uint32_t offset_of(const struct shard *shard, const struct entry *entry)
{
    return (uint32_t)((const uint8_t *)entry - shard->memory);
}

static uint32_t align_up(size_t size)
{
    return (uint32_t)((size + ENTRY_ALIGNMENT - 1) & ~(size_t)(ENTRY_ALIGNMENT - 1));
}

static uint32_t entry_size(const struct entry *entry)
{
    return align_up(ENTRY_FIXED + entry->key_length + 2U * entry->ttl_count + entry->body_length +
                    entry->extended_errors_length);
}

static bool entry_is_dead(const struct entry *entry)
{
    return entry->lifetime_s == 0;
}

/* How long past its time the entry is kept: an answer as a stale one, a failure because the next
 * one is kept twice as long (RFC 9520 3.2). */
static uint32_t grace_s(const struct shard *shard, const struct entry *entry)
{
    if (!answer_is_failure(entry->kind))
        return entry->is_rechecked ? 0 : shard->limits.stale_max_s;
    return entry->kind == ANSWER_FAILURE ? FAILURE_MEMORY_S : 0;
}

uint64_t shard_usable_ns(const struct shard *shard, const struct entry *entry)
{
    return ((uint64_t)entry->lifetime_s + grace_s(shard, entry)) * NANOSECONDS_PER_SECOND;
}

/* Past its time, and of no use for anything else. */
static bool entry_is_spent(const struct shard *shard, const struct entry *entry, uint64_t now)
{
    return entry_is_expired(entry, now) &&
           entry_age_ns(entry, now) >= shard_usable_ns(shard, entry);
}

static bool entry_is_stale(const struct entry *entry, uint64_t now)
{
    return !answer_is_failure(entry->kind) && entry_is_expired(entry, now);
}

/* --- Ring --- */

static void ring_init(struct ring *ring, uint32_t start, uint32_t end)
{
    assert(start < end && start % ENTRY_ALIGNMENT == 0);
    *ring = (struct ring){
        .start = start, .end = end, .head = start, .tail = start, .hand = start, .made = start};
}

static bool ring_is_empty(const struct ring *ring)
{
    return !ring->lapped && ring->head == ring->tail;
}

/* Where `size` bytes would go, or 0. */
static uint32_t ring_place(const struct ring *ring, uint32_t size)
{
    if (ring->lapped)
        return ring->tail - ring->head >= size ? ring->head : 0;
    if (ring->end - ring->head >= size)
        return ring->head;
    return ring->tail - ring->start >= size ? ring->start : 0;
}

static void ring_append(struct ring *ring, uint32_t place, uint32_t size)
{
    assert(place + size <= ring->end);
    if (place != ring->head) {
        assert(place == ring->start && !ring->lapped);
        ring->limit = ring->head;
        ring->lapped = true;
        if (ring->hand == ring->limit)
            ring->hand = place;
    }
    ring->head = place + size;
}

/* Gives the room of the oldest entry back. */
static void ring_pop(struct ring *ring, uint32_t size)
{
    const uint32_t popped = ring->tail;
    assert(!ring_is_empty(ring));
    ring->tail += size;
    if (ring->lapped && ring->tail == ring->limit) {
        ring->tail = ring->start;
        ring->lapped = false;
    }
    if (ring_is_empty(ring))
        ring->head = ring->tail = ring->hand = ring->start;
    if (ring->hand == popped)
        ring->hand = ring->tail;
    assert(ring->tail >= ring->start && ring->tail <= ring->end);
}

static uint32_t ring_used(const struct ring *ring)
{
    return ring->lapped ? ring->limit - ring->tail + ring->head - ring->start
                        : ring->head - ring->tail;
}

/* Enough of it is free that nothing need leave for what comes: it has not been full yet, or is so
 * small that one long answer that left is a sixteenth. */
static bool ring_has_free_room(const struct ring *ring)
{
    const uint32_t size = ring->end - ring->start;
    return size - ring_used(ring) >= size / SPARE_SHARE;
}

/* Enough of it is free or dead to take entries that may be of use one day. */
static bool ring_has_empty_room(const struct ring *ring)
{
    const uint32_t size = ring->end - ring->start;
    return size - ring_used(ring) + ring->dead >= size / SPARE_SHARE;
}

/* The same with what is stale, for fresh entries that nobody asked for. */
static bool ring_has_spare_room(const struct ring *ring)
{
    const uint32_t size = ring->end - ring->start;
    return size - ring_used(ring) + ring->dead + ring->stale >= size / SPARE_SHARE;
}

static struct ring *ring_of(struct shard *shard, uint32_t offset)
{
    return offset >= shard->main.start ? &shard->main : &shard->small;
}

/* --- Index --- */

/* Chosen by the upper bits, so that the tag in a link, the lower ones, tells its entries apart. */
static uint32_t *bucket_of(const struct shard *shard, uint32_t hash)
{
    return &shard->buckets[(uint64_t)hash * shard->bucket_count >> 32];
}

static uint32_t link_tag(uint32_t hash)
{
    return hash << LINK_OFFSET_BITS & LINK_TAG_MASK;
}

static struct entry *link_entry(const struct shard *shard, uint32_t link)
{
    assert(link != 0);
    return entry_at(shard, (link & LINK_OFFSET_MASK) * ENTRY_ALIGNMENT);
}

static void link_set_offset(uint32_t *link, uint32_t offset)
{
    *link = (*link & ~(uint32_t)LINK_OFFSET_MASK) | offset / ENTRY_ALIGNMENT;
}

/* Puts the entry in front of its bucket's chain. */
static void index_push(struct shard *shard, struct entry *entry)
{
    uint32_t *bucket = bucket_of(shard, entry->hash);
    entry->next = *bucket;
    *bucket = link_tag(entry->hash) | (*bucket != 0 ? LINK_FOLLOWED : 0);
    link_set_offset(bucket, offset_of(shard, entry));
}

/* The link that leads to the entry, and in `before` (may be NULL) the one that leads to its
 * predecessor, NULL when it is the first. */
static uint32_t *index_link(const struct shard *shard, const struct entry *entry, uint32_t **before)
{
    uint32_t *previous = NULL;
    uint32_t *link = bucket_of(shard, entry->hash);
    while (link_entry(shard, *link) != entry) {
        previous = link;
        link = &link_entry(shard, *link)->next;
    }
    if (before)
        *before = previous;
    return link;
}

static void stale_count(struct ring *ring, struct entry *entry)
{
    if (!entry->is_counted)
        ring->stale += entry_size(entry);
    entry->is_counted = true;
}

static void stale_uncount(struct shard *shard, struct entry *entry)
{
    struct ring *ring = ring_of(shard, offset_of(shard, entry));
    if (!entry->is_counted)
        return;
    assert(ring->stale >= entry_size(entry));
    ring->stale -= entry_size(entry);
    entry->is_counted = false;
}

/* Takes the entry out of the index; its room stays taken until the tail comes by. */
static void entry_kill(struct shard *shard, struct entry *entry)
{
    assert(!entry_is_dead(entry) && shard->entry_count > 0);
    uint32_t *before;
    uint32_t *link = index_link(shard, entry, &before);
    *link = entry->next;
    if (before && *link == 0)
        *before &= ~LINK_FOLLOWED;
    stale_uncount(shard, entry);
    entry->lifetime_s = 0;
    shard->entry_count--;
    ring_of(shard, offset_of(shard, entry))->dead += entry_size(entry);
}

void shard_remove(struct shard *shard, struct entry *entry)
{
    entry_kill(shard, entry);
}

static bool entry_has_key(const struct entry *entry, const struct key *key)
{
    return entry->hash == key->hash && entry->key_length == key->length &&
           memcmp(entry->bytes, &key->fixed, KEY_FIXED) == 0 &&
           memcmp(entry->bytes + KEY_FIXED, key->name, key->length - (size_t)KEY_FIXED) == 0;
}

struct entry *shard_find(struct shard *shard, const struct key *key)
{
    uint32_t link = *bucket_of(shard, key->hash);
    while (link != 0) {
        const bool has_tag = (link & LINK_TAG_MASK) == link_tag(key->hash);
        if (!has_tag && !(link & LINK_FOLLOWED))
            return NULL;
        struct entry *entry = link_entry(shard, link);
        if (has_tag && entry_has_key(entry, key))
            return entry;
        link = entry->next;
    }
    return NULL;
}

/* --- Ghosts --- */

/* The set of a hash, newest ghost first. Sets are chosen by the upper bits, so that what identifies
 * a ghost in its set, the lower 16, is independent of it; 0 means none. */
static uint16_t *ghost_set(const struct shard *shard, uint32_t hash)
{
    return shard->ghosts + ((uint64_t)hash * shard->ghost_sets >> 32) * GHOSTS_PER_SET;
}

static uint16_t ghost_of(uint32_t hash)
{
    return (uint16_t)(hash | 1);
}

static void ghost_put(struct shard *shard, uint32_t hash)
{
    uint16_t *set = ghost_set(shard, hash);
    memmove(set + 1, set, (GHOSTS_PER_SET - 1) * sizeof(*set));
    set[0] = ghost_of(hash);
}

static bool ghost_take(struct shard *shard, uint32_t hash)
{
    uint16_t *set = ghost_set(shard, hash);
    for (size_t i = 0; i < GHOSTS_PER_SET; i++) {
        if (set[i] == ghost_of(hash)) {
            set[i] = 0;
            return true;
        }
    }
    return false;
}

/* --- Fetching ahead --- */

void shard_prefetch(const struct shard *shard, uint32_t hash)
{
    __builtin_prefetch(&shard->lock, 1);
    __builtin_prefetch(bucket_of(shard, hash));
}

void shard_prefetch_insert(const struct shard *shard, uint32_t hash)
{
    const uint32_t victim = atomic_load_explicit(&shard->next_victim, memory_order_relaxed);
    __builtin_prefetch(bucket_of(shard, hash), 1);
    if (victim == 0)
        return; /* nothing has left yet: no ghosts */
    __builtin_prefetch(ghost_set(shard, hash), 1);
    __builtin_prefetch(bucket_of(shard, victim), 1);
    __builtin_prefetch(ghost_set(shard, victim), 1);
}

/* What the next insertion will write, and evict for that: the first line of what it writes is at
 * hand, and the first ones of its victim were asked for an insertion ago. */
static void foresee_insert(struct shard *shard, const struct ring *ring)
{
    const uint8_t *head = shard->memory + ring->head;
    __builtin_prefetch(head + CACHE_LINE, 1);
    __builtin_prefetch(head + 2 * CACHE_LINE, 1);
    if (ring_is_empty(ring) || ring_place(ring, 2 * CACHE_LINE) != 0)
        return; /* nothing to be evicted yet */
    const struct entry *tail = entry_at(shard, ring->tail);
    atomic_store_explicit(&shard->next_victim, tail->hash, memory_order_relaxed);
    __builtin_prefetch((const uint8_t *)tail + 3 * CACHE_LINE);
}

/* --- Eviction --- */

static uint32_t make_room(struct shard *shard, struct ring *ring, uint32_t size, uint64_t now);

static void entry_move(struct shard *shard, struct entry *entry, uint32_t *link, uint32_t offset)
{
    memmove(entry_at(shard, offset), entry, entry_size(entry));
    link_set_offset(link, offset);
}

static void tail_drop(struct shard *shard, struct ring *ring)
{
    struct entry *entry = entry_at(shard, ring->tail);
    if (!entry_is_dead(entry))
        entry_kill(shard, entry);
    const uint32_t size = entry_size(entry);
    assert(ring->dead >= size);
    ring->dead -= size;
    ring_pop(ring, size);
}

/* From the tail of the main ring to its head. The room just given up is room enough. */
static void tail_spare(struct shard *shard)
{
    struct ring *ring = &shard->main;
    struct entry *entry = entry_at(shard, ring->tail);
    const uint32_t size = entry_size(entry);
    uint32_t *link = index_link(shard, entry, NULL);
    assert(shard->spare_budget > 0);
    if (entry->visits > 0)
        entry->visits--;
    ring_pop(ring, size);
    const uint32_t place = ring_place(ring, size);
    assert(place != 0);
    ring_append(ring, place, size);
    entry_move(shard, entry, link, place);
    shard->spare_budget--;
}

static void evict_main(struct shard *shard, uint64_t now)
{
    assert(!ring_is_empty(&shard->main));
    const struct entry *entry = entry_at(shard, shard->main.tail);
    const bool wanted = entry_is_stale(entry, now)
                            ? ring_has_empty_room(&shard->main)
                            : entry->visits > 0 || ring_has_spare_room(&shard->main);
    if (wanted && shard->spare_budget > 0 && !entry_is_dead(entry) &&
        !entry_is_spent(shard, entry, now))
        tail_spare(shard);
    else
        tail_drop(shard, &shard->main);
}

static void evict_small(struct shard *shard, uint64_t now)
{
    assert(!ring_is_empty(&shard->small));
    struct entry *entry = entry_at(shard, shard->small.tail);
    const uint32_t size = entry_size(entry);
    if (entry_is_dead(entry) || entry_is_spent(shard, entry, now) ||
        (entry_is_stale(entry, now) && !ring_has_empty_room(&shard->main))) {
        tail_drop(shard, &shard->small);
        return;
    }
    stale_uncount(shard, entry);
    if (entry->visits < VISITS_TO_STAY && !ring_has_spare_room(&shard->main)) {
        ghost_put(shard, entry->hash);
        tail_drop(shard, &shard->small);
        return;
    }
    const uint32_t place = make_room(shard, &shard->main, size, now);
    entry->visits = 0;
    entry_move(shard, entry, index_link(shard, entry, NULL), place);
    ring_pop(&shard->small, size);
}

/* The next pages that are to be written for the first time, a few with one call: a fault for each
 * takes as long as three forwarded queries on some virtual machines. A kernel that knows no such
 * advice (before Linux 5.14), or has larger pages, refuses: then they are made by faults. */
static void make_pages(struct shard *shard, struct ring *ring)
{
    assert(ring->made < ring->end);
    const uint32_t left = ring->end - ring->made;
    const uint32_t size = left < PAGES_MADE ? left : PAGES_MADE;
    uint8_t *first = shard->memory + ring->made;
    const size_t before = (uintptr_t)first % PAGE_SIZE_USUAL;
    (void)madvise(first - before, before + size, MADV_POPULATE_WRITE);
    ring->made += size;
}

static uint32_t make_room(struct shard *shard, struct ring *ring, uint32_t size, uint64_t now)
{
    assert(size <= ring->end - ring->start);
    uint32_t place = ring_place(ring, size);
    while (place == 0) {
        if (ring == &shard->main)
            evict_main(shard, now);
        else
            evict_small(shard, now);
        place = ring_place(ring, size);
    }
    ring_append(ring, place, size);
    while (ring->made < ring->head)
        make_pages(shard, ring);
    foresee_insert(shard, ring);
    return place;
}

/* Returns how many entries it looked at. */
static uint32_t ring_sweep(struct shard *shard, struct ring *ring, uint32_t count, uint64_t now)
{
    if (ring_is_empty(ring))
        return 0;
    for (uint32_t i = 0; i < count; i++) {
        if (ring->hand == ring->head)
            ring->hand = ring->tail;
        struct entry *entry = entry_at(shard, ring->hand);
        if (!entry_is_dead(entry) && entry_is_spent(shard, entry, now))
            entry_kill(shard, entry);
        else if (!entry_is_dead(entry) && entry_is_stale(entry, now))
            stale_count(ring, entry);
        ring->hand += entry_size(entry);
        if (ring->lapped && ring->hand == ring->limit)
            ring->hand = ring->start;
    }
    const uint8_t *next = shard->memory + ring->hand;
    for (size_t i = 0; i < 2 * count; i++) /* A answers take two lines each */
        __builtin_prefetch(next + i * CACHE_LINE);
    return count;
}

void shard_sweep(struct shard *shard, uint64_t now)
{
    if (++shard->unswept_stores < STORES_PER_SWEEP)
        return;
    shard->unswept_stores = 0;
    const uint32_t swept = ring_sweep(shard, &shard->small, SWEPT_SMALL, now);
    ring_sweep(shard, &shard->main, SWEPT - swept, now);
}

/* --- Insertion --- */

struct entry *shard_insert(struct shard *shard, const struct key *key, struct entry *old,
                           uint32_t size, uint64_t now)
{
    assert(size >= ENTRY_FIXED + (uint32_t)key->length && (!old || !entry_is_dead(old)));
    size = align_up(size);
    if (old && entry_size(old) == size) {
        stale_uncount(shard, old);
        return old;
    }
    struct ring *ring = &shard->small;
    const uint8_t visits = old ? old->visits : 0;
    if (old) {
        ring = ring_of(shard, offset_of(shard, old));
        entry_kill(shard, old);
    } else if (ring_has_free_room(&shard->main) || ghost_take(shard, key->hash)) {
        ring = &shard->main;
    }
    if (size > shard->small.end - shard->small.start)
        return NULL;
    shard->spare_budget = SPARED_MAX;
    struct entry *entry = entry_at(shard, make_room(shard, ring, size, now));
    *entry = (struct entry){.hash = key->hash, .key_length = key->length, .visits = visits};
    memcpy(entry->bytes, &key->fixed, KEY_FIXED);
    memcpy(entry->bytes + KEY_FIXED, key->name, key->length - (size_t)KEY_FIXED);
    index_push(shard, entry);
    shard->entry_count++;
    return entry;
}

uint64_t shard_bytes(const struct shard *shard)
{
    assert(ring_used(&shard->small) <= shard->small.end - shard->small.start);
    assert(ring_used(&shard->main) <= shard->main.end - shard->main.start);
    return ring_used(&shard->small) + ring_used(&shard->main) +
           shard->bucket_count * sizeof(*shard->buckets);
}

/* Memory: buckets (none at offset 0 is an entry, so 0 can mean none), ghosts, small, main. */
void shard_init(struct shard *shard, uint8_t *memory, uint32_t size,
                const struct cache_limits *limits)
{
    assert(memory && (uintptr_t)memory % alignof(struct shard) == 0);
    shard->limits = *limits;
    shard->memory = memory;
    shard->bucket_count = size / BYTES_PER_BUCKET;
    shard->ghost_sets = size / BYTES_PER_GHOST / GHOSTS_PER_SET;
    shard->entry_count = 0;

    const size_t ghosts = shard->bucket_count * sizeof(*shard->buckets);
    const size_t ghost_bytes = shard->ghost_sets * GHOSTS_PER_SET * sizeof(*shard->ghosts);
    const uint32_t rings = align_up(ghosts + ghost_bytes);
    const uint32_t main = align_up(rings + (size - rings) / SMALL_SHARE);
    shard->buckets = (uint32_t *)(void *)memory;
    shard->ghosts = (uint16_t *)(void *)(memory + ghosts);
    assert(rings < main && main < size);
    memset(memory, 0, ghosts); /* it is zero already: this makes the pages of the index */
    ring_init(&shard->small, rings, main);
    ring_init(&shard->main, main, size & ~(uint32_t)(ENTRY_ALIGNMENT - 1));
}
