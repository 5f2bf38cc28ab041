// SPDX-License-Identifier: Apache-2.0
/* A stack of free objects in one reserved mapping.
 *
 * Built with AddressSanitizer, every object that is not handed out is poisoned, so that a use after
 * pool_give is caught as a use after free would be.
 *
 * Thread: one. Owner: see the header. */
#include "base/pool.h"

#include <assert.h>
#include <errno.h>
#include <stdint.h>
#include <sys/mman.h>

#include <sanitizer/asan_interface.h>

/* Each object begins a line: its first members share as few as they can. */
enum { CACHE_LINE = 64 };

enum status pool_open(struct pool *pool, size_t object_size, size_t capacity)
{
    assert(object_size > 0 && capacity > 0);
    const size_t alignment = CACHE_LINE;
    size_t rounded_size;
    size_t total;
    if (__builtin_add_overflow(object_size, alignment - 1, &rounded_size) ||
        __builtin_mul_overflow(rounded_size -= rounded_size % alignment, capacity, &total)) {
        errno = ENOMEM;
        return STATUS_SYSTEM;
    }
    void *memory = mmap(NULL, total, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED)
        return STATUS_SYSTEM;
    ASAN_POISON_MEMORY_REGION(memory, total);
    *pool = (struct pool){.memory = memory, .object_size = rounded_size, .capacity = capacity};
    return STATUS_OK;
}

void *pool_take(struct pool *pool)
{
    assert(pool->memory);
    void *object = pool->free_objects;
    if (object) {
        assert(pool->in_use < pool->touched);
        ASAN_UNPOISON_MEMORY_REGION(object, pool->object_size);
        pool->free_objects = *(void **)object;
    } else if (pool->touched < pool->capacity) {
        object = (uint8_t *)pool->memory + pool->touched * pool->object_size;
        ASAN_UNPOISON_MEMORY_REGION(object, pool->object_size);
        pool->touched++;
    } else {
        return NULL;
    }
    pool->in_use++;
    return object;
}

void pool_give(struct pool *pool, void *object)
{
    const size_t offset = (size_t)((uint8_t *)object - (uint8_t *)pool->memory);
    assert(offset / pool->object_size < pool->touched && offset % pool->object_size == 0);
    assert(pool->in_use > 0);
    *(void **)object = pool->free_objects;
    ASAN_POISON_MEMORY_REGION(object, pool->object_size);
    pool->free_objects = object;
    pool->in_use--;
}

size_t pool_ceiling(const struct pool *pool)
{
    assert(!pool->memory || pool->object_size <= SIZE_MAX / pool->capacity);
    return pool->object_size * pool->capacity;
}

void pool_close(struct pool *pool)
{
    if (!pool->memory)
        return;
    assert(pool->in_use == 0);
    ASAN_UNPOISON_MEMORY_REGION(pool->memory, pool_ceiling(pool));
    munmap(pool->memory, pool_ceiling(pool));
    *pool = (struct pool){};
}
