// SPDX-License-Identifier: Apache-2.0
/* All upstreams of one worker, and the choice among them.
 *
 * A request goes to an upstream that is up and was not yet asked for its lookup, by the configured
 * strategy; then to one that is up a second time; as the last resort to one that is down, if it was
 * left in peace for a moment. When there is none, the answer is a failure at once: waiting would
 * help no one.
 *
 * Thread: one worker.   Owner: the worker.
 * RFC:    9520 3.1 (at most two attempts an upstream for one lookup). */
#include "upstream/internal.h"

#include <assert.h>
#include <stdlib.h>

/* When all upstreams are down the local link is the suspect, so they are tried again after this,
 * however long their back-off has grown. */
#define ALL_DOWN_RETRY_NS (250 * NANOSECONDS_PER_MILLISECOND)

#define UNMEASURED_RTT_NS (1 * NANOSECONDS_PER_MILLISECOND)

/* xorshift64* (Vigna, 2016): quick, and its state is never zero. */
static uint64_t next_random(struct group *group)
{
    uint64_t x = group->random_state;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    group->random_state = x;
    return x * UINT64_C(0x2545f4914f6cdd1d);
}

uint64_t group_random(struct group *group, uint64_t bound)
{
    assert(bound > 0);
    return (next_random(group) >> 16) % bound;
}

/* --- Strategies: choose one of `count` (> 0) candidates --- */

typedef struct upstream *choose(struct group *group, struct upstream *const candidates[],
                                size_t count, const struct question *question);

static struct upstream *choose_ordered(struct group *group, struct upstream *const candidates[],
                                       size_t count, const struct question *question)
{
    (void)group;
    (void)count;
    (void)question;
    return candidates[0];
}

/* A cold upstream costs three round trips more: TCP, TLS, and the certificate to be checked. One
 * that was never measured is taken for a quick one, so that it soon is. */
static uint64_t cost(const struct upstream *upstream)
{
    const uint64_t rtt_ns = upstream->rtt_ns ? upstream->rtt_ns : UNMEASURED_RTT_NS;
    const uint64_t cold = upstream_is_ready(upstream) ? 0 : 3;
    return rtt_ns * (upstream->in_flight + 1 + cold);
}

/* The power of two choices: the cheaper of two at random, so that one good upstream is not hit by
 * everyone at once. The loser's time fades, so that a once slow upstream is measured again. */
static struct upstream *choose_fastest(struct group *group, struct upstream *const candidates[],
                                       size_t count, const struct question *question)
{
    (void)question;
    if (count == 1)
        return candidates[0];
    const size_t first = group_random(group, count);
    const size_t second = (first + 1 + group_random(group, count - 1)) % count;
    struct upstream *winner = candidates[first];
    struct upstream *loser = candidates[second];
    if (cost(loser) < cost(winner)) {
        winner = candidates[second];
        loser = candidates[first];
    }
    loser->rtt_ns -= loser->rtt_ns >> 10;
    return winner;
}

static struct upstream *choose_weighted(struct group *group, struct upstream *const candidates[],
                                        size_t count, const struct question *question)
{
    (void)question;
    uint64_t total = 0;
    for (size_t i = 0; i < count; i++)
        total += candidates[i]->config->weight;
    uint64_t ticket = group_random(group, total);
    for (size_t i = 0; i < count; i++) {
        if (ticket < candidates[i]->config->weight)
            return candidates[i];
        ticket -= candidates[i]->config->weight;
    }
    assert(false && "a ticket above the sum of the weights");
    return candidates[0];
}

/* Rendezvous hashing: a name stays with its upstream, and when that is down only its names move. */
static struct upstream *choose_hash(struct group *group, struct upstream *const candidates[],
                                    size_t count, const struct question *question)
{
    const uint64_t name = siphash(&group->hash_key, question->name, question->name_length);
    struct upstream *best = NULL;
    uint64_t best_score = 0;
    for (size_t i = 0; i < count; i++) {
        const uint64_t pair[2] = {name, candidates[i]->index};
        const uint64_t score = siphash(&group->hash_key, pair, sizeof(pair));
        if (!best || score > best_score) {
            best = candidates[i];
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

/* --- Candidates --- */

static struct upstream *choose_up(struct group *group, uint32_t excluded,
                                  const struct question *question)
{
    struct upstream *candidates[CONFIG_UPSTREAMS_MAX];
    size_t count = 0;
    for (size_t i = 0; i < group->upstream_count; i++)
        if (!group->upstreams[i].down && !(excluded & UINT32_C(1) << i))
            candidates[count++] = &group->upstreams[i];
    if (count == 0)
        return NULL;
    return strategies[group->config->strategy](group, candidates, count, question);
}

bool group_is_down(const struct group *group)
{
    for (size_t i = 0; i < group->upstream_count; i++)
        if (!group->upstreams[i].down)
            return false;
    return true;
}

/* True when the last try is long enough ago for one that does not wait for its back-off. */
static bool is_rested(const struct upstream *upstream)
{
    return upstream->group->loop->now - upstream->attempted_ns >= ALL_DOWN_RETRY_NS;
}

/* Starts a trial connection to each upstream whose back-off is over; to all when all are down,
 * since nobody knows which will be back first. */
static void try_again(struct group *group)
{
    const bool none_is_up = group_is_down(group);
    for (size_t i = 0; i < group->upstream_count; i++) {
        struct upstream *upstream = &group->upstreams[i];
        if (upstream->down &&
            (group->loop->now >= upstream->retry_ns || (none_is_up && is_rested(upstream))))
            upstream_try_again(upstream);
    }
}

/* At the end of the turn, since a lookup that is woken sends requests, and the recovery may be told
 * while one of its own is about to end. */
void group_recovered(struct group *group)
{
    loop_defer(group->loop, &group->recovered, LOOP_FLUSH);
}

static void hasten_all(struct loop_task *task)
{
    struct group *group = CONTAINER_OF(task, struct group, recovered);
    for (size_t i = 0; i < group->upstream_count; i++)
        if (group->upstreams[i].down)
            upstream_hasten(&group->upstreams[i]);
}

/* One with a connection on its way, whose fate the request shares, or one that may be tried once
 * more. */
static struct upstream *choose_down(struct group *group, uint32_t excluded)
{
    for (size_t i = 0; i < group->upstream_count; i++) {
        struct upstream *upstream = &group->upstreams[i];
        if (upstream->down && !(excluded & UINT32_C(1) << i) &&
            (upstream_has_connection(upstream) || is_rested(upstream)))
            return upstream;
    }
    return NULL;
}

static struct upstream *choose_upstream(struct group *group, const struct request *request,
                                        enum request_scope scope)
{
    const struct attempts *attempts = request->attempts;
    struct upstream *upstream = choose_up(group, attempts->once, request->question);
    if (!upstream && scope == REQUEST_ANYWHERE)
        upstream = choose_up(group, attempts->twice, request->question);
    if (!upstream && (scope == REQUEST_ANYWHERE || group_is_down(group)))
        upstream = choose_down(group, attempts->once);
    if (!upstream && scope == REQUEST_ANYWHERE)
        upstream = choose_down(group, attempts->twice);
    return upstream;
}

static void note_attempt(struct attempts *attempts, size_t index)
{
    assert(index < CONFIG_UPSTREAMS_MAX);
    const uint32_t bit = UINT32_C(1) << index;
    if (attempts->once & bit)
        attempts->twice |= bit;
    attempts->once |= bit;
}

/* --- Requests --- */

void request_init(struct request *request, const struct question *question,
                  struct attempts *attempts, request_done *on_done, request_late *on_late)
{
    *request = (struct request){
        .question = question, .attempts = attempts, .on_done = on_done, .on_late = on_late};
    list_init(&request->link);
    deadline_init(&request->late);
}

bool request_is_in_flight(const struct request *request)
{
    return request->connection != NULL;
}

/* What is told when nobody can be asked: what happened when somebody was last asked. */
static enum failure last_failure(const struct group *group, size_t *index)
{
    const struct upstream *last = &group->upstreams[0];
    for (size_t i = 1; i < group->upstream_count; i++)
        if (group->upstreams[i].attempted_ns > last->attempted_ns)
            last = &group->upstreams[i];
    *index = last->index;
    return last->last_failure == FAILURE_NONE ? FAILURE_BACKING_OFF : last->last_failure;
}

enum status request_submit(struct group *group, struct request *request, enum request_scope scope,
                           enum failure *failure)
{
    assert(request->question && request->attempts && request->on_done && request->on_late);
    assert(!request->connection && !list_is_linked(&request->link));
    bool was_tried = false;
    struct upstream *upstream;
    try_again(group);
    while ((upstream = choose_upstream(group, request, scope))) {
        was_tried = true;
        note_attempt(request->attempts, upstream->index);
        request->upstream = upstream->index;
        if (upstream_submit(upstream, request, failure) == STATUS_OK)
            return STATUS_OK;
    }
    if (!was_tried)
        *failure = last_failure(group, &request->upstream);
    return STATUS_NOT_FOUND;
}

void request_cancel(struct request *request)
{
    list_remove(&request->link);
    if (request->connection)
        connection_abandon(request->connection, request);
}

/* --- The group --- */

const char *group_upstream_label(const struct group *group, size_t index)
{
    assert(index < group->upstream_count);
    return group->upstreams[index].config->label;
}

static void open_queues(struct group *group)
{
    const struct config *config = group->config;
    deadline_queue_init(&group->connect, config->timeouts.connect_ns, connection_on_deadline);
    deadline_queue_init(&group->handshake, config->timeouts.handshake_ns, connection_on_deadline);
    deadline_queue_init(&group->late, config->timeouts.request_ns, connection_on_late);
    loop_add_queue(group->loop, &group->connect);
    loop_add_queue(group->loop, &group->handshake);
    loop_add_queue(group->loop, &group->late);
}

enum status group_open(const struct group_settings *settings, struct group **out)
{
    const struct config *config = settings->config;
    assert(config->upstream_count > 0 && config->upstream_count <= CONFIG_UPSTREAMS_MAX);
    struct group *group =
        calloc(1, sizeof(*group) + config->upstream_count * sizeof(group->upstreams[0]));
    if (!group)
        return STATUS_FULL;
    group->config = config;
    group->loop = settings->loop;
    group->slot_count = config->limits.upstream_requests;
    group->upstream_count = config->upstream_count;
    group->random_state = siphash_random_key().k0 | 1;
    loop_task_init(&group->recovered, hasten_all);
    open_queues(group);
    enum status status = STATUS_OK;
    for (size_t i = 0; i < config->upstream_count; i++)
        if ((status = upstream_open(&group->upstreams[i], group, i, settings)) != STATUS_OK)
            goto fail;
    *out = group;
    return STATUS_OK;
fail:
    group_close(group);
    return status;
}

void group_close(struct group *group)
{
    if (!group)
        return;
    for (size_t i = 0; i < group->upstream_count; i++)
        upstream_close(&group->upstreams[i]);
    loop_cancel_task(&group->recovered);
    loop_remove_queue(&group->connect);
    loop_remove_queue(&group->handshake);
    loop_remove_queue(&group->late);
    free(group);
}
