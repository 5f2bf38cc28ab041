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

bool choose_knows_better(const struct group *group, upstream_set erred)
{
    assert(erred != 0);
    bool is_better_left = false;
    LIST_EACH (const struct upstream, upstream, &group->upstreams, link) {
        if (!(erred & upstream_bit(upstream->path.slot)))
            is_better_left |= path_is_usable(&upstream->path) && may_be_good(upstream);
        else if (is_good(upstream))
            return false;
    }
    return is_better_left;
}

void choose_contradict(struct group *group, upstream_set erred)
{
    assert(erred != 0);
    LIST_EACH (struct upstream, upstream, &group->upstreams, link) {
        if (!(erred & upstream_bit(upstream->path.slot)))
            continue;
        upstream->path.contradicted += upstream->path.contradicted < CONTRADICTED_MAX;
        upstream->path.contradicted_ns = group->loop->now;
    }
}

/* --- Strategies: choose one of several candidates --- */

typedef struct upstream *choose(struct group *group, upstream_set candidates,
                                const struct question *question);

static struct upstream *first_of(struct group *group, upstream_set candidates)
{
    assert(candidates != 0);
    return group->slots[__builtin_ctzll(candidates)];
}

static upstream_set without_first(upstream_set candidates)
{
    return candidates & (candidates - 1);
}

static struct upstream *choose_ordered(struct group *group, upstream_set candidates,
                                       const struct question *question)
{
    assert(candidates != 0);
    (void)question;
    LIST_EACH (struct upstream, upstream, &group->upstreams, link)
        if (candidates & upstream_bit(upstream->path.slot))
            return upstream;
    return NULL;
}

/* A cold upstream costs three round trips more: TCP, TLS, and the certificate to be checked. */
static uint64_t cost(const struct upstream *upstream)
{
    const uint64_t cold = upstream_is_ready(upstream) ? 0 : 3;
    return upstream->path.times.expected_ns * (upstream->path.in_flight + 1 + cold);
}

/* One of them at random, which is then none of them any more. */
static struct upstream *take_any(struct group *group, upstream_set *candidates)
{
    upstream_set left = *candidates;
    for (uint64_t skipped = random_below(&group->random, (uint64_t)__builtin_popcountll(left));
         skipped > 0; skipped--)
        left = without_first(left);
    *candidates ^= left ^ without_first(left);
    return first_of(group, left);
}

/* The power of two choices: the cheaper of two at random, so that one good upstream is not hit by
 * everyone at once. What the loser is expected to take fades, so that a once slow upstream is
 * measured again. */
static struct upstream *choose_fastest(struct group *group, upstream_set candidates,
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

static struct upstream *choose_weighted(struct group *group, upstream_set candidates,
                                        const struct question *question)
{
    (void)question;
    uint64_t total = 0;
    for (upstream_set left = candidates; left != 0; left = without_first(left))
        total += first_of(group, left)->config->weight;
    uint64_t ticket = random_below(&group->random, total);
    while (ticket >= first_of(group, candidates)->config->weight) {
        ticket -= first_of(group, candidates)->config->weight;
        candidates = without_first(candidates);
    }
    return first_of(group, candidates);
}

/* Rendezvous hashing: a name stays with its upstream, and when that is down, or is no more, only
 * its names move. By the label, which is the same in every process and after every reload. */
static struct upstream *choose_hash(struct group *group, upstream_set candidates,
                                    const struct question *question)
{
    const uint64_t name = siphash(&group->hash_key, question->name, question->name_length);
    struct upstream *best = NULL;
    uint64_t best_score = 0;
    for (; candidates != 0; candidates = without_first(candidates)) {
        struct upstream *upstream = first_of(group, candidates);
        const uint64_t pair[2] = {name, upstream->label_hash};
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
static struct upstream *choose_one(struct group *group, upstream_set candidates,
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

/* The usable upstreams for which `is_fit`, without those in `excluded`. */
static upstream_set gather(const struct group *group, upstream_set excluded,
                           bool (*is_fit)(const struct upstream *upstream))
{
    upstream_set candidates = 0;
    LIST_EACH (const struct upstream, upstream, &group->upstreams, link)
        if (is_fit(upstream) && is_usable(upstream))
            candidates |= upstream_bit(upstream->path.slot);
    return candidates & ~excluded;
}

struct upstream *choose_usable(struct group *group, upstream_set excluded,
                               const struct question *question)
{
    const upstream_set usable = gather(group, excluded, is_usable);
    const upstream_set useful = usable & ~gather(group, 0, is_useless);
    const upstream_set candidates = useful != 0 ? useful : usable;
    if (candidates == 0)
        return NULL;
    struct upstream *preferred = choose_one(group, candidates, question);
    if (without_first(candidates) == 0 || upstream_is_ready(preferred))
        return preferred;
    excluded |= usable & ~candidates;
    upstream_set better = gather(group, excluded, upstream_is_ready);
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

struct upstream *choose_idle(struct group *group, upstream_set excluded,
                             const struct question *question)
{
    const upstream_set candidates = gather(group, excluded, is_idle);
    return candidates != 0 ? choose_one(group, candidates, question) : NULL;
}
