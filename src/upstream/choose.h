// SPDX-License-Identifier: Apache-2.0
/* Which upstream next: see choose.c. */
#ifndef UPSTREAM_CHOOSE_H
#define UPSTREAM_CHOOSE_H

#include "upstream/group.h"

/* Of those that are usable and not `excluded` the one that the strategy chooses if
 * it is ready. If not, it is made so, and one that is ready is asked in its stead. NULL when there
 * is none. */
struct upstream *choose_usable(struct group *group, upstream_set excluded,
                               const struct question *question);

/* The same of those that are ready to answer and have not much to do. */
struct upstream *choose_idle(struct group *group, upstream_set excluded,
                             const struct question *question);

/* Whether those that `erred` answered a question with an error that may yet be answered
 * better: none of them is known to answer others well, and one that is was not asked. */
bool choose_knows_better(const struct group *group, upstream_set erred);

/* Another upstream has answered well what those that `erred` answered with an error. */
void choose_contradict(struct group *group, upstream_set erred);

#endif
