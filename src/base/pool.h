// SPDX-License-Identifier: Apache-2.0
/* Fixed-capacity pool of equal objects, for everything that the query path needs.
 *
 * The memory is reserved once (mmap, so a page costs nothing before its first use) and objects go
 * last in, first out, so that a quiet daemon touches few pages. A full pool is an ordinary event:
 * pool_take gives NULL and the caller counts it.
 *
 * Thread: one. Owner: whoever holds the struct; pool_close gives the memory back and asserts that
 * every object has come home. */
#ifndef BASE_POOL_H
#define BASE_POOL_H

#include <stddef.h>

#include "base/status.h"

struct pool {
    void *memory;
    void *free_objects; /* given-back objects, linked through their first bytes */
    size_t object_size; /* rounded up to the strictest alignment */
    size_t capacity;
    size_t touched; /* objects that were ever handed out; those above are virgin */
    size_t in_use;
};

/* Reserves `capacity` (> 0) objects of `object_size` (> 0) bytes. STATUS_SYSTEM when the address
 * space is refused. */
enum status pool_open(struct pool *pool, size_t object_size, size_t capacity);

/* An object with undefined contents, NULL when all are in use. */
void *pool_take(struct pool *pool);

/* Gives back what pool_take gave. */
void pool_give(struct pool *pool, void *object);

/* The most bytes that the pool can ever occupy. */
size_t pool_ceiling(const struct pool *pool);

/* Safe on a zeroed or closed pool. */
void pool_close(struct pool *pool);

#endif
