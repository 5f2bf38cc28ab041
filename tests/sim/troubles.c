// SPDX-License-Identifier: Apache-2.0
/* Upstreams that trouble whoever is aboard with the wrong one: names that make them close, send
 * runts or fall behind, closes after so many answers, errors for everything, absences.
 *
 * A name tells by its first label, or its last, what it does to the upstreams that have the fault
 * for it; all others answer it as any other name. Which upstreams those are is drawn once a run,
 * and never the healthy one. */
#include <string.h>

#include "dns/dns.h"
#include "sim.h"

enum {
    ABSENCES_MAX = 3,
    EACH_NTH_COUNT = 3,
};

#define ABSENCE_MIN_NS MILLISECONDS(50)
#define ABSENCE_MAX_NS MILLISECONDS(2500)
#define PRESENCE_NS MILLISECONDS(6000) /* between two, at least */
#define ERRORS_MAX_NS MILLISECONDS(20000)
#define ONSET_NS \
    MILLISECONDS(300) /* good answers that were under way come after the first errors */

/* As many as the product promises to stand: what is slow takes connections as long as it lasts. */
const struct mark_kind mark_kinds[MARK_COUNT] = {
    [MARK_CLOSES] = {FAULT_CLOSES_ON_A_NAME, "closes", 16, 50},
    [MARK_CLOSES_BELOW] = {FAULT_CLOSES_ON_A_SUFFIX, "closing", 16, 50},
    [MARK_SLOW] = {FAULT_ANSWERS_IN_ORDER, "slow", 1, 0},
    [MARK_RUNT] = {FAULT_RUNT_FRAMES, "runt", SIM_QUERIES_MAX, 0},
};

static struct {
    uint64_t faults; /* as bits */
    unsigned each_nth;
    uint64_t errors_from_ns;
    uint64_t errors_until_ns;
    bool was_good; /* its last answer, */
    uint64_t
        onset_ns; /* and when it was that and the next one an error, which may have been lost */
} troubles[SIM_UPSTREAMS_MAX];

/* --- Names --- */

static bool label_begins(const uint8_t *label, const char *beginning)
{
    const size_t length = strlen(beginning);
    return label[0] >= length && memcmp(label + 1, beginning, length) == 0;
}

static const uint8_t *last_label(const uint8_t *name)
{
    while (name[0] > 0 && name[1 + name[0]] > 0)
        name += 1 + name[0];
    return name;
}

enum mark mark_of(const uint8_t *name)
{
    for (size_t i = MARK_NONE + 1; i < MARK_COUNT; i++)
        if (label_begins(i == MARK_CLOSES_BELOW ? last_label(name) : name, mark_kinds[i].label))
            return (enum mark)i;
    return MARK_NONE;
}

uint32_t marks_max(enum mark mark)
{
    return mark_kinds[mark].a_second + (uint32_t)plan.upstream_count * mark_kinds[mark].more;
}

bool mark_troubles(enum mark mark, size_t index)
{
    return mark != MARK_NONE && upstream_has(mark_kinds[mark].fault, index);
}

/* --- Upstreams --- */

bool upstream_has(enum fault fault, size_t index)
{
    return troubles[index].faults & UINT64_C(1) << fault;
}

unsigned upstream_closes_after(size_t index)
{
    return upstream_has(FAULT_CLOSES_EACH_NTH, index) ? troubles[index].each_nth : 0;
}

bool upstream_only_errs(size_t index)
{
    return upstream_has(FAULT_ERRORS_FOR_ALL, index) &&
           net_now() >= troubles[index].errors_from_ns &&
           net_now() < troubles[index].errors_until_ns;
}

bool upstream_errs_anew(size_t index)
{
    if (troubles[index].was_good)
        troubles[index].onset_ns = net_now();
    troubles[index].was_good = false;
    return net_now() < troubles[index].onset_ns + ONSET_NS || !world_has_erred(index);
}

void upstream_note_good(size_t index)
{
    troubles[index].was_good = true;
}

#define BIT(name) (UINT64_C(1) << FAULT_##name)

/* By these a connection fails, or ends for another reason. */
static const uint64_t other_ends =
    BIT(CLOSE) | BIT(RESET) | BIT(STALL) | BIT(HALF_OPEN) | BIT(REFUSE) | BIT(UNREACHABLE) |
    BIT(SLOW_CONNECT) | BIT(SLOW_HANDSHAKE) | BIT(BAD_HANDSHAKE) | BIT(SLOW_READER) | BIT(OUTAGE) |
    BIT(IDLE_CLOSE) | BIT(LATE) | BIT(LOST) | BIT(UNSOLICITED) | BIT(WRONG_ID) |
    BIT(WRONG_QUESTION) | BIT(ODD_TIMEOUTS) | BIT(ALLOCATION) | BIT(DESCRIPTORS) | BIT(CLOCK_JUMP) |
    BIT(NETWORK) | BIT(NO_ROUTE) | BIT(SELF) | BIT(ACCEPTS_AND_CLOSES) | BIT(RESTARTS) |
    BIT(DELAY) | BIT(MALFORMED);

bool upstreams_end_only_what_is_open(void)
{
    return !(plan.faults & other_ends);
}

bool upstreams_end_only_for_names(void)
{
    return upstreams_end_only_what_is_open() && !has_fault(FAULT_CLOSES_EACH_NTH);
}

static void give(enum fault fault, size_t index)
{
    troubles[index].faults |= UINT64_C(1) << fault;
}

/* To all, or to some. */
static void give_to_many(enum fault fault)
{
    const bool to_all = random_below(2);
    for (size_t i = 0; i < plan.upstream_count; i++)
        if (i != plan.healthy && (to_all || random_below(2)))
            give(fault, i);
}

/* There is always one that answers well. */
static void give_errors(void)
{
    const size_t good = plan.healthy != SIZE_MAX ? plan.healthy : random_below(plan.upstream_count);
    for (size_t i = 0; i < plan.upstream_count; i++) {
        if (i == good || random_below(4) == 0)
            continue;
        give(FAULT_ERRORS_FOR_ALL, i);
        if (random_below(2))
            troubles[i].errors_from_ns = net_now() + random_below(plan.duration_ns + 1);
        troubles[i].errors_until_ns =
            random_below(2) ? UINT64_MAX : troubles[i].errors_from_ns + random_below(ERRORS_MAX_NS);
    }
}

/* Away and back again: long enough apart that nobody can be hit by two. */
static void plan_absences(enum fault fault, size_t index)
{
    uint64_t from_ns = random_below(plan.duration_ns + 1);
    for (size_t i = 0; i < ABSENCES_MAX && from_ns <= plan.duration_ns; i++) {
        const uint64_t length_ns = random_between(ABSENCE_MIN_NS, ABSENCE_MAX_NS);
        upstream_plan_absence(fault, index, from_ns, length_ns);
        from_ns += length_ns + PRESENCE_NS + random_below(plan.duration_ns + 1);
    }
}

static void give_absences(enum fault fault)
{
    give_to_many(fault);
    for (size_t i = 0; i < plan.upstream_count; i++)
        if (upstream_has(fault, i))
            plan_absences(fault, i);
}

void troubles_reset(void)
{
    static const enum fault of_many[] = {FAULT_CLOSES_ON_A_NAME, FAULT_CLOSES_ON_A_SUFFIX,
                                         FAULT_CLOSES_EACH_NTH, FAULT_ANSWERS_IN_ORDER,
                                         FAULT_RUNT_FRAMES};
    static const unsigned nth[EACH_NTH_COUNT] = {10, 20, 50};
    memset(troubles, 0, sizeof(troubles));
    for (size_t i = 0; i < sizeof(of_many) / sizeof(of_many[0]); i++)
        if (has_fault(of_many[i]))
            give_to_many(of_many[i]);
    for (size_t i = 0; i < plan.upstream_count; i++)
        if (upstream_has(FAULT_CLOSES_EACH_NTH, i))
            troubles[i].each_nth = nth[random_below(EACH_NTH_COUNT)];
    if (has_fault(FAULT_ERRORS_FOR_ALL))
        give_errors();
    if (has_fault(FAULT_ACCEPTS_AND_CLOSES))
        give_absences(FAULT_ACCEPTS_AND_CLOSES);
    if (has_fault(FAULT_RESTARTS))
        give_absences(FAULT_RESTARTS);
}
