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
#include <assert.h>

#include "upstream/internal.h"

void slots_init(struct connection *connection, size_t count)
{
    assert(count > 0 && count <= UINT16_MAX);
    connection->slot_count = (uint16_t)count;
    connection->slots_used = 0;
    connection->first_free = (uint16_t)count;
    connection->probe_slot = (uint16_t)count;
    connection->check_slot = (uint16_t)count;
    connection->slot_bits = 1;
    while ((UINT32_C(1) << connection->slot_bits) < count)
        connection->slot_bits++;
}

bool slot_is_free(const struct connection *connection)
{
    const size_t count = connection->slot_count;
    return connection->first_free < count || connection->slots_used < count;
}

/* The next step of slots becomes the free ones, of which there are none. */
static void use_more(struct connection *connection)
{
    const size_t count = connection->slot_count;
    const size_t first = connection->slots_used;
    const size_t end = count - first > SLOTS_STEP ? first + SLOTS_STEP : count;
    assert(first < end);
    for (size_t i = first; i < end; i++)
        connection->slots[i] = (struct slot){.next_free = (uint16_t)(i + 1)};
    connection->slots[end - 1].next_free = (uint16_t)count;
    connection->first_free = (uint16_t)first;
    connection->last_free = (uint16_t)(end - 1);
    connection->slots_used = (uint16_t)end;
}

uint16_t slot_take(struct connection *connection, struct request *request)
{
    assert(slot_is_free(connection));
    if (connection->first_free == connection->slot_count)
        use_more(connection);
    const uint16_t index = connection->first_free;
    struct slot *slot = &connection->slots[index];
    connection->first_free = slot->next_free;
    assert(slot->request == NULL && !slot->is_abandoned);
    slot->request = request;
    return index;
}

void slot_give(struct connection *connection, uint16_t index)
{
    const uint16_t none = connection->slot_count;
    struct slot *slot = &connection->slots[index];
    assert(index < none && (slot->request || slot->is_abandoned));
    slot->request = NULL;
    slot->is_abandoned = false;
    slot->generation++;
    slot->next_free = none;
    if (connection->first_free == none)
        connection->first_free = index;
    else
        connection->slots[connection->last_free].next_free = index;
    connection->last_free = index;
}

uint16_t slot_id(const struct connection *connection, uint16_t index)
{
    const uint16_t generation = connection->slots[index].generation;
    return (uint16_t)((generation << connection->slot_bits | index) ^ connection->id_mask);
}

struct slot *slot_of_id(struct connection *connection, uint16_t id)
{
    const uint16_t index =
        (uint16_t)((id ^ connection->id_mask) & ((UINT32_C(1) << connection->slot_bits) - 1));
    if (index >= connection->slots_used || slot_id(connection, index) != id)
        return NULL;
    struct slot *slot = &connection->slots[index];
    return slot->request || slot->is_abandoned ? slot : NULL;
}
