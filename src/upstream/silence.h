// SPDX-License-Identifier: Apache-2.0
/* Handlers of deadlines, by which a connection that says nothing is judged: see silence.c. */
#ifndef UPSTREAM_SILENCE_H
#define UPSTREAM_SILENCE_H

#include <stdint.h>

#include "base/deadline.h"

void silence_on_late(struct deadline *deadline, uint64_t now); /* of a request */
void silence_on_look(struct deadline *deadline, uint64_t now); /* of a silent connection */

#endif
