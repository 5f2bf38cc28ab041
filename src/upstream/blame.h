// SPDX-License-Identifier: Apache-2.0
/* Who asks for what ends connections: see blame.c. */
#ifndef UPSTREAM_BLAME_H
#define UPSTREAM_BLAME_H

#include <stdbool.h>
#include <stdint.h>

#include "base/siphash.h"
#include "dns/message.h"

enum { BLAMES = 1024 };

struct blame_table {
    uint64_t until_ns; /* nobody is to blame from then on */
    struct siphash_key key;
    struct blame {
        uint64_t key; /* of a client, or of a client and a parent name; 0: nobody */
        uint64_t halved_ns;
        uint32_t ends;
        uint32_t answers;
    } blames[BLAMES];
};

/* `table` is zeroed. */
void blame_init(struct blame_table *table);

/* A question of the client, asked alone, has ended a connection; one has been answered well; and
 * whether the former is what it mostly does. `client` identifies an account, in all
 * bits but the highest, and is not 0. */
void blame_end(struct blame_table *table, uint64_t now, uint64_t client,
               const struct question *question);
void blame_answer(struct blame_table *table, uint64_t now, uint64_t client,
                  const struct question *question);
bool blame_is_bad(struct blame_table *table, uint64_t now, uint64_t client,
                  const struct question *question);

#endif
