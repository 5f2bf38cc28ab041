// SPDX-License-Identifier: Apache-2.0
/* What the good answers of one upstream take: numbers in, numbers out.
 *
 * Only good answers to requests that somebody waits for measure; an error, or what was given up,
 * says nothing about the path. What the path takes (rtt) is a low quantile of them, followed by
 * bounded steps: an answer that was quicker lowers it by an eighth at most, one that was not lifts
 * it by a 64th at most, so no slow name makes a path slow. A request is late when it takes clearly
 * longer than 19 of 20 do (p95, followed by steps in the same way), or four times what the path
 * takes, and a silent path is dead after a multiple of that: however many names are slow, silence
 * is noticed. Only the first answer of a turn counts, so that the flood at the end of a silence is
 * one sample and not hundreds.
 *
 * What the strategy fastest expects is the rtt, or less after a quicker answer. It fades while
 * others are chosen, so that a once slow upstream is asked again; whatever it then answers ends
 * that. One that has given nothing but errors is expected to take as long as one may.
 *
 * Thread: one worker.   Owner: the upstream that embeds it. */
#include "upstream/times.h"

#include <assert.h>

#include "base/deadline.h"
#include "base/numbers.h"

enum {
    RTT_STEP_UP = 64,  /* an answer lifts the estimate by this part of it at most, */
    RTT_STEP_DOWN = 8, /* or lowers it: at rest when one of nine is quicker */
    P95_STEP = 32,     /* an answer that is late lifts the estimate by this part of it */
    LATE_RTT = 4,      /* times the rtt: who takes longer is late, whatever p95 says */
    DEAD_P95 = 4,      /* times p95: */
    DEAD_RTT = 16,     /* times the rtt: no path takes that long */
};

#define UNMEASURED_RTT_NS (1 * NANOSECONDS_PER_MILLISECOND) /* quick, so that it soon is */
#define P95_MIN_NS (1 * NANOSECONDS_PER_MILLISECOND)        /* below it chance rules */
#define LATE_UNMEASURED_NS (250 * NANOSECONDS_PER_MILLISECOND)
#define LATE_MARGIN_NS (2 * NANOSECONDS_PER_MILLISECOND) /* over either: chance */
#define LATE_MIN_NS (10 * NANOSECONDS_PER_MILLISECOND)   /* a busy host may pause */
#define DEAD_MIN_NS (500 * NANOSECONDS_PER_MILLISECOND)  /* TCP has sent a lost packet again */

void times_init(struct times *times)
{
    *times = (struct times){.expected_ns = UNMEASURED_RTT_NS};
}

static void measure_rtt(struct times *times, uint64_t took_ns)
{
    const uint64_t rtt_ns = times->rtt_ns;
    if (rtt_ns == 0)
        times->rtt_ns = took_ns;
    else if (took_ns > rtt_ns)
        times->rtt_ns += least_of(took_ns - rtt_ns, rtt_ns / RTT_STEP_UP);
    else
        times->rtt_ns -= least_of(rtt_ns - took_ns, rtt_ns / RTT_STEP_DOWN);
    times->expected_ns = least_of(took_ns, times->rtt_ns);
}

/* 19 steps down are one step up: at rest when 19 of 20 answers come within p95. */
static void measure_p95(struct times *times, uint64_t took_ns)
{
    const uint64_t step_ns = times->p95_ns / P95_STEP;
    if (times->p95_ns == 0)
        times->p95_ns = took_ns + took_ns / 4;
    else if (took_ns > times->p95_ns)
        times->p95_ns += step_ns;
    else
        times->p95_ns -= step_ns / 19;
    times->p95_ns = most_of(times->p95_ns, P95_MIN_NS);
}

bool times_measure(struct times *times, uint64_t now, uint64_t took_ns)
{
    assert(now > 0);
    if (times->measured_ns == now)
        return false;
    times->measured_ns = now;
    measure_rtt(times, took_ns);
    measure_p95(times, took_ns);
    return true;
}

void times_expect(struct times *times, uint64_t request_ns)
{
    times->expected_ns = times->rtt_ns > 0 ? times->rtt_ns : request_ns;
}

uint64_t times_late_ns(const struct times *times, uint64_t request_ns)
{
    uint64_t late_ns = LATE_UNMEASURED_NS;
    if (times->rtt_ns > 0)
        late_ns =
            LATE_MARGIN_NS + least_of(times->p95_ns + times->p95_ns / 4, times->rtt_ns * LATE_RTT);
    return least_of(most_of(late_ns, LATE_MIN_NS), request_ns);
}

uint64_t times_dead_ns(const struct times *times, uint64_t request_ns)
{
    assert(request_ns > 0);
    if (times->rtt_ns == 0)
        return request_ns;
    /* Where answers take very different times it is no path that takes long. */
    const uint64_t dead_ns = most_of(times->rtt_ns * DEAD_RTT, times->p95_ns * DEAD_P95);
    return least_of(most_of(dead_ns, DEAD_MIN_NS), request_ns);
}
