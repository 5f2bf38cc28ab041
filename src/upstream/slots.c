// SPDX-License-Identifier: Apache-2.0
/* The IDs of one connection: a table of slots, each with a generation.
 *
 * An ID whose request gave up stays reserved until its late answer comes or the connection ends, so
 * no answer can reach another request (FAULTS F10). Free slots are reused longest-unused first,
 * which keeps a generation apart from its successor for as long as possible, and a mask of the
 * connection's own makes the IDs unpredictable. Slots come into use in steps, when there is no free
 * one among those that were ever used: a connection that carries little touches little memory.
 *
 * Thread: one worker.   Owner: the connection.
 * RFC:    5452 (IDs), 7766 7 (none twice in flight). */
#include "upstream/slots.h"

#include <assert.h>

void slots_init(struct slots *slots, size_t count, uint16_t id_mask)
{
    assert(count > 0 && count <= SLOTS_MAX);
    slots->count = (uint16_t)count;
    slots->used = 0;
    slots->first_free = (uint16_t)count;
    slots->id_mask = id_mask;
    slots->bits = 1;
    while ((UINT32_C(1) << slots->bits) < count)
        slots->bits++;
}

bool slots_have_room(const struct slots *slots)
{
    return slots->first_free < slots->count || slots->used < slots->count;
}

/* The next step of slots becomes the free ones, of which there are none. */
static void use_more(struct slots *slots)
{
    const size_t count = slots->count;
    const size_t first = slots->used;
    const size_t end = count - first > SLOTS_STEP ? first + SLOTS_STEP : count;
    assert(first < end);
    for (size_t i = first; i < end; i++)
        slots->table[i] = (struct slot){.next_free = (uint16_t)(i + 1)};
    slots->table[end - 1].next_free = slots->count;
    slots->first_free = (uint16_t)first;
    slots->last_free = (uint16_t)(end - 1);
    slots->used = (uint16_t)end;
}

uint16_t slot_take(struct slots *slots, struct request *request)
{
    assert(slots_have_room(slots));
    if (slots->first_free == slots->count)
        use_more(slots);
    const uint16_t index = slots->first_free;
    struct slot *slot = &slots->table[index];
    slots->first_free = slot->next_free;
    assert(slot->request == NULL && !slot->is_abandoned);
    slot->request = request;
    slot->is_abandoned = !request;
    return index;
}

void slot_abandon(struct slots *slots, uint16_t index)
{
    assert(index < slots->used);
    struct slot *slot = &slots->table[index];
    assert(slot->request && !slot->is_abandoned);
    slot->request = NULL;
    slot->is_abandoned = true;
}

void slot_give(struct slots *slots, uint16_t index)
{
    const uint16_t none = slots->count;
    struct slot *slot = &slots->table[index];
    assert(index < none && (slot->request || slot->is_abandoned));
    slot->request = NULL;
    slot->is_abandoned = false;
    slot->generation++;
    slot->next_free = none;
    if (slots->first_free == none)
        slots->first_free = index;
    else
        slots->table[slots->last_free].next_free = index;
    slots->last_free = index;
}

uint16_t slot_id(const struct slots *slots, uint16_t index)
{
    return (uint16_t)((slots->table[index].generation << slots->bits | index) ^ slots->id_mask);
}

struct slot *slot_of_id(struct slots *slots, uint16_t id)
{
    const uint16_t index = (uint16_t)((id ^ slots->id_mask) & ((UINT32_C(1) << slots->bits) - 1));
    if (index >= slots->used || slot_id(slots, index) != id)
        return NULL;
    struct slot *slot = &slots->table[index];
    return slot->request || slot->is_abandoned ? slot : NULL;
}
