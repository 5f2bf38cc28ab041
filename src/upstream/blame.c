// SPDX-License-Identifier: Apache-2.0
/* Who asks for what ends connections.
 *
 * Kept of a client, and of a client and the parent of the names that it asks for, together: who
 * poisons a zone must not hurt others that ask for it. Known to be bad is whose questions, asked
 * alone, have ended connections several times, and ten times as often as they were answered. It
 * bounds nothing but the connections that are opened for them. Two that meet in one record: the
 * newer takes its place. After a few seconds without an end all is forgotten.
 *
 * Thread: one worker.   Owner: the group. */
#include "upstream/blame.h"

#include <assert.h>

#include "base/deadline.h"

enum {
    LONE_ENDS_MIN = 5,
    ANSWERS_FACTOR = 10, /* fewer ends than so many for each good answer are no habit */
};

#define HALF_LIFE_NS (5 * NANOSECONDS_PER_SECOND)

void blame_init(struct blame_table *table)
{
    assert(table);
    table->key = siphash_random_key();
}

/* The lowest bit tells clients from suffixes, which so have records of their own: a client and what
 * it asks below a name never displace each other. The highest bit of clients is the same in all. */
static uint64_t key_of_client(uint64_t client)
{
    assert(client > 0);
    return client << 1 | 1;
}

static uint64_t key_of(const struct blame_table *table, uint64_t client,
                       const struct question *question)
{
    size_t label = question->name_length;
    if (question->name[0] > 0)
        label = 1U + question->name[0];
    return siphash_with(&table->key, client, question->name + label, question->name_length - label)
           << 1;
}

static struct blame *record_of(struct blame_table *table, uint64_t key)
{
    return &table->blames[key % BLAMES];
}

static void age(struct blame *blame, uint64_t now)
{
    const uint64_t halves = (now - blame->halved_ns) / HALF_LIFE_NS;
    blame->ends = halves < 32 ? blame->ends >> halves : 0;
    blame->answers = halves < 32 ? blame->answers >> halves : 0;
    blame->halved_ns += halves * HALF_LIFE_NS;
}

/* NULL: nothing is known. */
static struct blame *find(struct blame_table *table, uint64_t now, uint64_t key)
{
    struct blame *blame = record_of(table, key);
    if (blame->key != key)
        return NULL;
    age(blame, now);
    return blame;
}

static void note_end(struct blame_table *table, uint64_t now, uint64_t key)
{
    struct blame *blame = record_of(table, key);
    if (blame->key != key)
        *blame = (struct blame){.key = key, .halved_ns = now};
    age(blame, now);
    blame->ends++;
}

void blame_end(struct blame_table *table, uint64_t now, uint64_t client,
               const struct question *question)
{
    table->until_ns = now + 2 * HALF_LIFE_NS;
    note_end(table, now, key_of_client(client));
    note_end(table, now, key_of(table, client, question));
}

void blame_answer(struct blame_table *table, uint64_t now, uint64_t client,
                  const struct question *question)
{
    if (now >= table->until_ns)
        return;
    struct blame *const blames[] = {find(table, now, key_of_client(client)),
                                    find(table, now, key_of(table, client, question))};
    for (size_t i = 0; i < 2; i++)
        if (blames[i])
            blames[i]->answers++;
}

static bool is_bad(const struct blame *blame)
{
    return blame && blame->ends >= LONE_ENDS_MIN && blame->ends > blame->answers * ANSWERS_FACTOR;
}

bool blame_is_bad(struct blame_table *table, uint64_t now, uint64_t client,
                  const struct question *question)
{
    return now < table->until_ns && (is_bad(find(table, now, key_of_client(client))) ||
                                     is_bad(find(table, now, key_of(table, client, question))));
}
