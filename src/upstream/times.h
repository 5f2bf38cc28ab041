// SPDX-License-Identifier: Apache-2.0
/* What the good answers of one upstream take, and what follows from it: see times.c. */
#ifndef UPSTREAM_TIMES_H
#define UPSTREAM_TIMES_H

#include <stdbool.h>
#include <stdint.h>

struct times {
    uint64_t rtt_ns;      /* one of nine good answers is quicker; 0: never measured */
    uint64_t p95_ns;      /* 19 of 20 good answers come within this time; 0: never measured */
    uint64_t measured_ns; /* when both were last measured */
    uint64_t expected_ns; /* what the strategy fastest takes the rtt for */
};

void times_init(struct times *times);

/* A good answer has come, so long after it was asked for. False when it is not the first of this
 * turn, which alone counts. */
bool times_measure(struct times *times, uint64_t now, uint64_t took_ns);

/* It has answered somehow; `request_ns` is as long as an answer may take. */
void times_expect(struct times *times, uint64_t request_ns);

/* For how long a request may be unanswered before it is late. */
uint64_t times_late_ns(const struct times *times, uint64_t request_ns);

/* For how long a connection with requests may be silent before its path counts as dead. */
uint64_t times_dead_ns(const struct times *times, uint64_t request_ns);

#endif
