// SPDX-License-Identifier: Apache-2.0
/* Which upstream next.
 *
 * A request goes to an upstream that is usable and was not yet asked for its ask, by the configured
 * strategy; those whose errors others knew better come last. Whoever the strategy chose, no request
 * waits for a handshake, or behind a silence, while another upstream is ready: the chosen one gets
 * its connection, and the next request.
 *
 * Thread: one worker.   Owner: the group. */
#include "upstream/choose.h"

#include <assert.h>

enum { CONTRADICTED_MAX = 5 }; /* errors that others knew better, with no good answer in between */

#define USELESS_NS (1 * NANOSECONDS_PER_SECOND) /* then one query tries it again */

/* --- Which upstreams answer well --- */

/* It has had several errors that others knew better, and no good answer in between. */
static bool is_useless(const struct upstream *upstream)
{
    return upstream->path.contradicted >= CONTRADICTED_MAX &&
           upstream->path.loop->now - upstream->path.contradicted_ns < USELESS_NS;
}

/* One error may be the question's. */
static bool is_good(const struct upstream *upstream)
{
    return upstream->path.has_answered_well && upstream->path.contradicted == 0 &&
           upstream->path.errors <= 1;
}

/* Or nothing is known of it. */
static bool may_be_good(const struct upstream *upstream)
{
    return is_good(upstream) || upstream->path.errors == 0 ||
           upstream->path.loop->now - upstream->path.erred_ns >= USELESS_NS;
}

bool choose_knows_better(const struct group *group, uint32_t erred)
{
    assert(erred != 0);
    bool is_better_left = false;
    for (size_t i = 0; i < group->upstream_count; i++) {
        const struct upstream *upstream = &group->upstreams[i];
        if (!(erred & UINT32_C(1) << i))
            is_better_left |= path_is_usable(&upstream->path) && may_be_good(upstream);
        else if (is_good(upstream))
            return false;
    }
    return is_better_left;
}

void choose_contradict(struct group *group, uint32_t erred)
{
    assert(erred != 0);
    for (size_t i = 0; i < group->upstream_count; i++) {
        struct upstream *upstream = &group->upstreams[i];
        if (!(erred & UINT32_C(1) << i))
            continue;
        upstream->path.contradicted += upstream->path.contradicted < CONTRADICTED_MAX;
        upstream->path.contradicted_ns = group->loop->now;
    }
}

/* --- Strategies: choose one of several candidates --- */

typedef struct upstream *choose(struct group *group, uint32_t candidates,
                                const struct question *question);

static struct upstream *first_of(struct group *group, uint32_t candidates)
{
    assert(candidates != 0);
    return &group->upstreams[__builtin_ctz(candidates)];
}

static uint32_t without_first(uint32_t candidates)
{
    return candidates & (candidates - 1);
}

static struct upstream *choose_ordered(struct group *group, uint32_t candidates,
                                       const struct question *question)
{
    (void)question;
    return first_of(group, candidates);
}

/* A cold upstream costs three round trips more: TCP, TLS, and the certificate to be checked. */
static uint64_t cost(const struct upstream *upstream)
{
    const uint64_t cold = upstream_is_ready(upstream) ? 0 : 3;
    return upstream->path.times.expected_ns * (upstream->path.in_flight + 1 + cold);
}

/* One of them at random, which is then none of them any more. */
static struct upstream *take_any(struct group *group, uint32_t *candidates)
{
    uint32_t left = *candidates;
    for (uint64_t skipped = random_below(&group->random, (uint64_t)__builtin_popcount(left));
         skipped > 0; skipped--)
        left = without_first(left);
    *candidates ^= left ^ without_first(left);
    return first_of(group, left);
}

/* The power of two choices: the cheaper of two at random, so that one good upstream is not hit by
 * everyone at once. What the loser is expected to take fades, so that a once slow upstream is
 * measured again. */
static struct upstream *choose_fastest(struct group *group, uint32_t candidates,
                                       const struct question *question)
{
    (void)question;
    struct upstream *first = take_any(group, &candidates);
    struct upstream *second = take_any(group, &candidates);
    const bool is_first_better = cost(first) <= cost(second);
    struct upstream *winner = is_first_better ? first : second;
    struct upstream *loser = is_first_better ? second : first;
    loser->path.times.expected_ns -= loser->path.times.expected_ns >> 10;
    return winner;
}

static struct upstream *choose_weighted(struct group *group, uint32_t candidates,
                                        const struct question *question)
{
    (void)question;
    uint64_t total = 0;
    for (uint32_t left = candidates; left != 0; left = without_first(left))
        total += first_of(group, left)->config->weight;
    uint64_t ticket = random_below(&group->random, total);
    while (ticket >= first_of(group, candidates)->config->weight) {
        ticket -= first_of(group, candidates)->config->weight;
        candidates = without_first(candidates);
    }
    return first_of(group, candidates);
}

/* Rendezvous hashing: a name stays with its upstream, and when that is down only its names move. */
static struct upstream *choose_hash(struct group *group, uint32_t candidates,
                                    const struct question *question)
{
    const uint64_t name = siphash(&group->hash_key, question->name, question->name_length);
    struct upstream *best = NULL;
    uint64_t best_score = 0;
    for (; candidates != 0; candidates = without_first(candidates)) {
        struct upstream *upstream = first_of(group, candidates);
        const uint64_t pair[2] = {name, upstream->path.index};
        const uint64_t score = siphash(&group->hash_key, pair, sizeof(pair));
        if (!best || score > best_score) {
            best = upstream;
            best_score = score;
        }
    }
    return best;
}

static choose *const strategies[] = {
    [STRATEGY_FASTEST] = choose_fastest,
    [STRATEGY_ORDERED] = choose_ordered,
    [STRATEGY_WEIGHTED] = choose_weighted,
    [STRATEGY_HASH] = choose_hash,
};

/* There is a candidate at least. */
static struct upstream *choose_one(struct group *group, uint32_t candidates,
                                   const struct question *question)
{
    if (without_first(candidates) == 0)
        return first_of(group, candidates);
    return strategies[group->snapshot->strategy](group, candidates, question);
}

/* --- Candidates --- */

static bool is_usable(const struct upstream *upstream)
{
    return path_is_usable(&upstream->path);
}

/* Bits of the usable upstreams for which `is_fit`, without those in `excluded`. */
static uint32_t gather(const struct group *group, uint32_t excluded,
                       bool (*is_fit)(const struct upstream *upstream))
{
    uint32_t candidates = 0;
    for (size_t i = 0; i < group->upstream_count; i++)
        if (is_fit(&group->upstreams[i]) && is_usable(&group->upstreams[i]))
            candidates |= UINT32_C(1) << i;
    return candidates & ~excluded;
}

struct upstream *choose_usable(struct group *group, uint32_t excluded,
                               const struct question *question)
{
    const uint32_t usable = gather(group, excluded, is_usable);
    const uint32_t useful = usable & ~gather(group, 0, is_useless);
    const uint32_t candidates = useful != 0 ? useful : usable;
    if (candidates == 0)
        return NULL;
    struct upstream *preferred = choose_one(group, candidates, question);
    if (without_first(candidates) == 0 || upstream_is_ready(preferred))
        return preferred;
    excluded |= usable & ~candidates;
    uint32_t better = gather(group, excluded, upstream_is_ready);
    /* Better in line than behind a silence. */
    if (better == 0)
        better = gather(group, excluded, upstream_is_crowded);
    if (better == 0)
        return preferred;
    upstream_warm(preferred);
    return choose_one(group, better, question);
}

/* So many requests are in flight that none should be added without need. */
static bool is_busy(const struct path *path)
{
    return path->in_flight > path->config->limits.upstream_requests / 2;
}

static bool is_idle(const struct upstream *upstream)
{
    return upstream_is_ready(upstream) && !is_busy(&upstream->path);
}

struct upstream *choose_idle(struct group *group, uint32_t excluded,
                             const struct question *question)
{
    const uint32_t candidates = gather(group, excluded, is_idle);
    return candidates != 0 ? choose_one(group, candidates, question) : NULL;
}
