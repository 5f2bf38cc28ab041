// SPDX-License-Identifier: Apache-2.0
/* How many connections each client address has open: a chained hash table over a pool. */
#include "listen/census.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { PREFIX_V4 = 32, PREFIX_V6 = 64 };

enum status census_open(struct census *census, size_t capacity)
{
    struct census opened = {.key = siphash_random_key(), .bucket_count = 1};
    while (opened.bucket_count < capacity)
        opened.bucket_count *= 2;
    opened.buckets = calloc(opened.bucket_count, sizeof(*opened.buckets));
    if (!opened.buckets)
        return STATUS_SYSTEM;
    for (size_t i = 0; i < opened.bucket_count; i++)
        list_init(&opened.buckets[i]);
    const enum status status = pool_open(&opened.places, sizeof(struct census_place), capacity);
    if (status != STATUS_OK) {
        free(opened.buckets);
        return status;
    }
    *census = opened;
    return STATUS_OK;
}

void census_close(struct census *census)
{
    pool_close(&census->places);
    free(census->buckets);
    *census = (struct census){0};
}

static struct census_place *find(struct list *bucket, const struct prefix *prefix)
{
    LIST_EACH (struct census_place, place, bucket, link)
        if (memcmp(place->prefix.bits, prefix->bits, sizeof(prefix->bits)) == 0)
            return place;
    return NULL;
}

static struct census_place *add(struct census *census, struct list *bucket,
                                const struct prefix *prefix)
{
    struct census_place *place = pool_take(&census->places);
    if (!place)
        return NULL;
    *place = (struct census_place){.prefix = *prefix};
    list_append(bucket, &place->link);
    return place;
}

struct census_place *census_enter(struct census *census, const struct address *client,
                                  uint32_t limit)
{
    assert(limit > 0);
    const struct prefix prefix = prefix_of(client, PREFIX_V4, PREFIX_V6);
    const uint64_t hash = siphash(&census->key, prefix.bits, sizeof(prefix.bits));
    struct list *bucket = &census->buckets[hash & (census->bucket_count - 1)];
    struct census_place *place = find(bucket, &prefix);
    if (!place)
        place = add(census, bucket, &prefix);
    if (!place || place->count == limit)
        return NULL;
    place->count++;
    return place;
}

void census_leave(struct census *census, struct census_place *place)
{
    assert(place->count > 0);
    if (--place->count > 0)
        return;
    list_remove(&place->link);
    pool_give(&census->places, place);
}
