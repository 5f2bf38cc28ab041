// SPDX-License-Identifier: Apache-2.0
/* FAULTS H13: several threads find, store, let expire and count in one small cache. Meant for
 * ThreadSanitizer, and true without it: every hit must be whole and of the question asked. */
#include "test.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "cache/cache.h"
#include "cache_fixture.h"

enum { THREADS = 4, STEPS = 25000, NAMES = 1500, TTL_MAX_S = 4, TICK_NS = 2000000 };

struct race {
    struct cache *cache;
    uint64_t size_bytes;
    _Atomic uint64_t now;
    atomic_uint wrong;
    atomic_uint hits;
    atomic_uint misses;
};

struct racer {
    struct race *race;
    uint64_t seed;
    uint8_t body[DNS_MESSAGE_MAX];
    struct fixture_answer fixture;
};

static void find_one(struct racer *racer, const struct question *question, uint64_t now)
{
    struct answer hit;
    if (cache_find(racer->race->cache, question, cache_hash(racer->race->cache, question), now,
                   racer->body, &hit) != STATUS_OK) {
        atomic_fetch_add(&racer->race->misses, 1);
        return;
    }
    atomic_fetch_add(&racer->race->hits, 1);
    const uint32_t ttl_s = load_u32(hit.body + FIXTURE_TTL_OFFSET);
    if (!fixture_is_intact(&hit, question) || ttl_s > TTL_MAX_S || hit.ttl_s != ttl_s)
        atomic_fetch_add(&racer->race->wrong, 1);
}

static void store_one(struct racer *racer, const struct question *question, uint64_t now)
{
    const uint64_t random = fixture_random(&racer->seed);
    const uint16_t length = (uint16_t)(FIXTURE_RECORD + random % 300);
    const uint32_t ttl_s = 1 + (uint32_t)(random >> 16) % TTL_MAX_S;
    fixture_fill(&racer->fixture, question, (uint8_t)(random >> 8), length, 1, ttl_s);
    cache_store(racer->race->cache, question, cache_hash(racer->race->cache, question),
                &racer->fixture.answer, now);
}

static void count_all(struct racer *racer)
{
    uint64_t bytes = 0;
    uint64_t entries = 0;
    cache_usage(racer->race->cache, &bytes, &entries);
    if (bytes > racer->race->size_bytes)
        atomic_fetch_add(&racer->race->wrong, 1);
}

/* A reload, as it were. */
static void set_limits(struct racer *racer, uint32_t step)
{
    const struct cache_limits limits = {.ttl_max_s = 3600, .stale_max_s = step};
    cache_set_limits(racer->race->cache, &limits);
}

static void *run(void *argument)
{
    struct racer *racer = argument;
    for (uint32_t i = 0; i < STEPS; i++) {
        const uint64_t random = fixture_random(&racer->seed);
        const struct question question = fixture_question((uint32_t)(random % NAMES));
        const uint64_t now = atomic_fetch_add(&racer->race->now, TICK_NS);
        if (random >> 32 & 1)
            find_one(racer, &question, now);
        else
            store_one(racer, &question, now);
        if (i % 1000 == 0)
            count_all(racer);
        if (i % 1000 == 500)
            set_limits(racer, i);
    }
    return NULL;
}

/* Runs all threads on a cache of that size to their end and leaves the counts in `race`. */
static void race_on(struct race *race, uint64_t size_bytes)
{
    const struct cache_limits limits = {.ttl_max_s = 3600};
    assert_int_equal(cache_open(size_bytes, &limits, &race->cache), STATUS_OK);
    race->size_bytes = size_bytes;
    struct racer *racers = calloc(THREADS, sizeof(*racers));
    assert_non_null(racers);
    pthread_t threads[THREADS];
    for (uint64_t i = 0; i < THREADS; i++) {
        racers[i].race = race;
        racers[i].seed = UINT64_C(0x9e3779b97f4a7c15) + i;
        assert_int_equal(pthread_create(&threads[i], NULL, run, &racers[i]), 0);
    }
    for (size_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    free(racers);
    cache_close(race->cache);
}

static void H13_threads_race_and_every_hit_is_whole(void **state)
{
    (void)state;
    struct race race = {0};
    race_on(&race, 16 << 20);
    assert_int_equal(atomic_load(&race.wrong), 0);
    assert_true(atomic_load(&race.hits) > THREADS * STEPS / 10);
    assert_true(atomic_load(&race.misses) > THREADS * STEPS / 100);
}

static void H13_threads_race_while_entries_are_evicted(void **state)
{
    (void)state;
    struct race race = {0};
    race_on(&race, CACHE_SIZE_MIN);
    assert_int_equal(atomic_load(&race.wrong), 0);
    assert_true(atomic_load(&race.hits) > THREADS * STEPS / 100);
    assert_true(atomic_load(&race.misses) > THREADS * STEPS / 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(H13_threads_race_and_every_hit_is_whole),
        cmocka_unit_test(H13_threads_race_while_entries_are_evicted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
