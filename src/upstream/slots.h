// SPDX-License-Identifier: Apache-2.0
/* The IDs of one connection, each with the request that it was given to; see slots.c. */
#ifndef UPSTREAM_SLOTS_H
#define UPSTREAM_SLOTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct request;

enum { SLOTS_STEP = 1024 }; /* come into use at a time */
enum { SLOTS_MAX = 16384 }; /* 14 bits of an ID: the others tell the uses of a slot apart */

/* One ID of a connection. The ID on the wire is (generation, index) under a mask; the generation
 * goes up with each use, so a late or repeated answer finds its slot but not its generation. */
struct slot {
    struct request *request; /* NULL: free, or abandoned */
    uint16_t generation;
    uint16_t next_free;
    bool is_abandoned; /* its request gave up: reserved until the answer or the connection's end */
};

struct slots {
    uint16_t count;
    uint16_t bits;
    uint16_t id_mask;
    uint16_t first_free; /* the free slots, longest unused first; count: none */
    uint16_t last_free;
    uint16_t used;       /* ever: those beyond were never touched */
    struct slot table[]; /* count */
};

/* All free; `count` is at most SLOTS_MAX. */
void slots_init(struct slots *slots, size_t count, uint16_t id_mask);

bool slots_have_room(const struct slots *slots);

/* The index of a free slot, of which there must be one, now the request's; NULL for a question of
 * our own, whose slot is abandoned from the first. */
uint16_t slot_take(struct slots *slots, struct request *request);

/* Its request gave up. */
void slot_abandon(struct slots *slots, uint16_t index);

/* Makes it free and its ID another. */
void slot_give(struct slots *slots, uint16_t index);

/* The ID on the wire. */
uint16_t slot_id(const struct slots *slots, uint16_t index);

/* The slot in use that an ID on the wire means, NULL when it means none. */
struct slot *slot_of_id(struct slots *slots, uint16_t id);

#endif
