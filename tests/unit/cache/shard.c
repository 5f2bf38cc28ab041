// SPDX-License-Identifier: Apache-2.0
/* One shard: where its entries lie, and which of them leave. */
#include "test.h"

#include <string.h>

#include "cache/shard.h"

enum { SHARD_SIZE = 1 << 20, NAME_LENGTH = 40, LIFETIME_S = 3600, BEGIN_S = 1000 };

static struct shard shard;
static alignas(64) uint8_t memory[SHARD_SIZE];
static uint8_t name[NAME_LENGTH];
static const struct entry *places[SHARD_SIZE / ENTRY_FIXED];

static int shard_setup(void **state)
{
    (void)state;
    memset(memory, 0, sizeof(memory));
    memset(&shard, 0, sizeof(shard));
    static const struct cache_limits limits;
    shard_init(&shard, memory, sizeof(memory), &limits);
    return 0;
}

static struct key numbered_key(uint32_t number)
{
    memcpy(name, &number, sizeof(number));
    return (struct key){
        .hash = number * UINT32_C(2654435761), .length = KEY_FIXED + NAME_LENGTH, .name = name};
}

static struct entry *find(uint32_t number)
{
    const struct key key = numbered_key(number);
    return shard_find(&shard, &key);
}

static struct entry *insert(uint32_t number)
{
    const struct key key = numbered_key(number);
    struct entry *entry = shard_insert(&shard, &key, NULL, ENTRY_FIXED + key.length,
                                       BEGIN_S * NANOSECONDS_PER_SECOND);
    assert_non_null(entry);
    entry->stored_ns = BEGIN_S * NANOSECONDS_PER_SECOND;
    entry->lifetime_s = LIFETIME_S;
    entry->body_length = entry->extended_errors_length = entry->ttl_count = 0;
    return entry;
}

/* As many as may be there before anything has to leave. */
static uint32_t fill(void)
{
    uint32_t count = 0;
    for (; shard_bytes(&shard) < SHARD_SIZE * 3 / 4; count++)
        places[count] = insert(count);
    assert_true(count > 5000);
    return count;
}

static uint32_t fill_with_popular(void)
{
    const uint32_t count = fill();
    for (uint32_t i = 0; i < count; i++)
        find(i)->visits = ENTRY_VISITS_MAX;
    return count;
}

static void H12_an_entry_stays_where_it_is_while_there_is_room(void **state)
{
    (void)state;
    const uint32_t count = fill();
    for (uint32_t i = 0; i < count; i++)
        assert_ptr_equal(find(i), places[i]);
}

static void H12_in_a_full_shard_a_scan_takes_the_room_of_a_tenth(void **state)
{
    (void)state;
    const uint32_t count = fill_with_popular();
    for (uint32_t i = count; i < 3 * count; i++)
        insert(i);
    for (uint32_t i = 0; i < count; i++)
        assert_non_null(find(i));
    assert_null(find(2 * count));
    assert_non_null(find(3 * count - 1));
}

static void H12_what_comes_back_while_it_is_remembered_stays(void **state)
{
    (void)state;
    const uint32_t count = fill_with_popular();
    uint32_t next = count;
    while (next == count || find(next - 1 - count / 4))
        insert(next++);
    const uint32_t gone = next - 1 - count / 4;
    insert(gone);
    for (uint32_t i = next; i < next + count; i++)
        insert(i);
    assert_non_null(find(gone));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(H12_an_entry_stays_where_it_is_while_there_is_room, shard_setup),
        cmocka_unit_test_setup(H12_in_a_full_shard_a_scan_takes_the_room_of_a_tenth, shard_setup),
        cmocka_unit_test_setup(H12_what_comes_back_while_it_is_remembered_stays, shard_setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
