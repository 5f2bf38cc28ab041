// SPDX-License-Identifier: Apache-2.0
/* TCP clients that read late, and what their replies make the worker hold meanwhile, in place of
 * listen/tcp.c and the buffers of net/stream.c.
 *
 * A reply is in memory of the worker's account until its client has read it; the long body of an
 * answer is there once for all who wait for it. When more is held than limits.tcp-memory the
 * largest go. Owner: a holding is freed when it is read, when it must go, or at the end. */
#include <assert.h>
#include <string.h>

#include "query/resolve.h"
#include "sim.h"

#define READ_LATE_MAX_NS MILLISECONDS(3000)

static struct holding {
    void *memory; /* NULL: nothing */
    size_t size;
    struct body *body; /* NULL: the whole reply is in `memory` */
} holdings[SIM_QUERIES_MAX];

static struct resolver *resolver;

static void let_go(struct holding *holding)
{
    body_release(holding->body);
    output_give(&resolver->output, holding->memory, holding->size);
    *holding = (struct holding){0};
}

static void read_late(void *subject, const uint8_t *bytes, size_t length)
{
    (void)bytes;
    (void)length;
    let_go(subject);
}

void readers_hold(size_t number, size_t size, struct body *body)
{
    assert(number < SIM_QUERIES_MAX && size > 0);
    struct holding *holding = &holdings[number];
    void *memory = output_take(&resolver->output, size);
    if (!memory) /* its connection is closed */
        return;
    *holding = (struct holding){memory, size, body ? body_hold(body) : NULL};
    net_schedule(random_below(READ_LATE_MAX_NS), read_late, holding, NULL, 0);
}

static bool is_first_with_body(const struct holding *holding)
{
    if (!holding->body)
        return false;
    for (const struct holding *other = holdings; other < holding; other++)
        if (other->body == holding->body)
            return false;
    return true;
}

static size_t held_in_all(void)
{
    size_t held = 0;
    for (size_t i = 0; i < SIM_QUERIES_MAX; i++) {
        held += holdings[i].size;
        if (is_first_with_body(&holdings[i]))
            held += sizeof(struct body) + holdings[i].body->length;
    }
    return held;
}

static struct holding *largest(void)
{
    struct holding *most = &holdings[0];
    for (size_t i = 1; i < SIM_QUERIES_MAX; i++)
        if (holdings[i].size > most->size)
            most = &holdings[i];
    return most->memory ? most : NULL;
}

void readers_check(void)
{
    struct holding *most;
    const struct output_account *output = &resolver->output;
    if (!has_fault(FAULT_LATE_READER) && output->used == 0)
        return;
    if (output->used > output->ceiling)
        sim_fail("%zu bytes of output, over the ceiling (K6)", output->used);
    /* A lookup that has ended keeps its answer for those whom the turn has not reached. */
    if (resolver->ended_count == 0 && output->used != held_in_all())
        sim_fail("%zu bytes of output are counted, %zu are held (K6)", output->used, held_in_all());
    while (output->used > output->max && (most = largest()))
        let_go(most);
}

void readers_open(struct resolver *of)
{
    resolver = of;
    memset(holdings, 0, sizeof(holdings));
}

void readers_close(void)
{
    for (size_t i = 0; i < SIM_QUERIES_MAX; i++)
        let_go(&holdings[i]);
}
