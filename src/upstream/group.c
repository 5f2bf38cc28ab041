// SPDX-License-Identifier: Apache-2.0
/* All upstreams of one worker, and the choice among them.
 *
 * A request goes to an upstream that is usable and was not yet asked for its lookup, by the
 * configured strategy; then to one a second time. Those whose errors others knew better come last.
 * When none is usable asks wait for one (timeouts.park), for whom trials are made again and again,
 * none of them with a query. Whoever the strategy chose, no request waits for a handshake, or
 * behind a silence, while another upstream is ready: the chosen one gets its connection, and the
 * next request.
 *
 * Hedges: a late request is sent a second time, to another upstream that is ready and not busy.
 * Each request earns a share of a hedge, so that they are at most 5 % more; half of what is saved
 * up is for stalls alone, lest the ordinary slow answers spend it before one comes. A request that
 * has had timeouts.request is lost, and another upstream is asked without regard to the budget;
 * with none left to ask, one that was asked before, within the budget: it may be merely slow.
 *
 * While there is traffic, two upstreams have connections; without it none is opened.
 *
 * Thread: one worker.   Owner: the worker.
 * RFC:    9520 3.1 (at most three attempts an upstream for one lookup). */
#include "upstream/internal.h"
#include "upstream/names.h"

#include <assert.h>
#include <stdlib.h>

/* When all upstreams are down the local link is the suspect, so they are tried again and again,
 * however long their back-off has grown: after the least at first, and soon after the most. */
#define ALL_DOWN_RETRY_MIN_NS (50 * NANOSECONDS_PER_MILLISECOND)
#define ALL_DOWN_RETRY_MAX_NS (250 * NANOSECONDS_PER_MILLISECOND)

#define OVERDUE_NS (20 * NANOSECONDS_PER_MILLISECOND) /* a late request is told again */
#define SLOW_NS (50 * NANOSECONDS_PER_MILLISECOND)    /* of silence are no reason to connect */
#define SILENCE_NS (50 * NANOSECONDS_PER_MILLISECOND) /* a suspect connection is looked at */
#define TRAFFIC_NS (10 * NANOSECONDS_PER_SECOND)      /* after a request there may be more */
#define CONNECT_INTERVAL_NS (1 * NANOSECONDS_PER_MILLISECOND) /* 1,000 a second, at most */
#define TICK_NS (50 * NANOSECONDS_PER_MILLISECOND)            /* of trials, while queries wait */
#define TRIAL_AGE_NS (1 * NANOSECONDS_PER_SECOND)             /* a failure before that is history */
#define TOGETHER_NS (5 * NANOSECONDS_PER_MILLISECOND)         /* before or after */
#define SPARE_IDLE_NS (5 * NANOSECONDS_PER_SECOND)
#define LANE_IDLE_NS (1 * NANOSECONDS_PER_SECOND)

enum {
    TOGETHER_MIN = 3,  /* ends of connections at once are no question's doing */
    STANDBY_COUNT = 2, /* upstreams with a connection while there is traffic */
    /* At a time to an upstream while all are down: a connect whose first packet was lost is not
     * repeated by TCP within a second. */
    TRIALS_MAX = 4,
    CONTRADICTED_MAX = 5, /* errors that others knew better, without a good answer in between */
    CONNECT_BURST = 64,   /* every upstream at once, twice */
};

#define USELESS_NS (1 * NANOSECONDS_PER_SECOND) /* then one query tries it again */

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

/* --- Which upstreams answer well --- */

/* It has had several errors that others knew better, and no good answer in between. */
static bool is_useless(const struct upstream *upstream)
{
    return upstream->contradicted >= CONTRADICTED_MAX &&
           upstream->group->loop->now - upstream->contradicted_ns < USELESS_NS;
}

bool group_knows_better(const struct group *group, uint32_t erred)
{
    bool is_better_left = false;
    for (size_t i = 0; i < group->upstream_count; i++) {
        const struct upstream *upstream = &group->upstreams[i];
        const bool is_good = upstream->has_answered_well && upstream->contradicted == 0;
        if (is_good && (erred & UINT32_C(1) << i))
            return false;
        const bool may_be_good = is_good || (!upstream->has_answered_well && !upstream->has_erred);
        is_better_left = is_better_left || (may_be_good && upstream_is_usable(upstream));
    }
    return is_better_left;
}

void group_contradict(struct group *group, uint32_t erred)
{
    for (size_t i = 0; i < group->upstream_count; i++) {
        struct upstream *upstream = &group->upstreams[i];
        if (!(erred & UINT32_C(1) << i))
            continue;
        upstream->contradicted += upstream->contradicted < CONTRADICTED_MAX;
        upstream->contradicted_ns = group->loop->now;
        if (upstream->contradicted == CONTRADICTED_MAX)
            group->useless_until_ns = group->loop->now + USELESS_NS;
    }
}

static uint32_t useless_upstreams(const struct group *group)
{
    uint32_t useless = 0;
    if (group->loop->now >= group->useless_until_ns)
        return 0;
    for (size_t i = 0; i < group->upstream_count; i++)
        if (is_useless(&group->upstreams[i]))
            useless |= UINT32_C(1) << i;
    return useless;
}

/* --- Strategies: choose one of the candidates, of which there is one at least --- */

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
    return upstream->times.expected_ns * (upstream->in_flight + 1 + cold);
}

/* One of them at random, which is then none of them any more. */
static struct upstream *take_any(struct group *group, uint32_t *candidates)
{
    uint32_t left = *candidates;
    for (uint64_t skipped = group_random(group, (uint64_t)__builtin_popcount(left)); skipped > 0;
         skipped--)
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
    if (without_first(candidates) == 0)
        return first_of(group, candidates);
    struct upstream *first = take_any(group, &candidates);
    struct upstream *second = take_any(group, &candidates);
    const bool is_first_better = cost(first) <= cost(second);
    struct upstream *winner = is_first_better ? first : second;
    struct upstream *loser = is_first_better ? second : first;
    loser->times.expected_ns -= loser->times.expected_ns >> 10;
    return winner;
}

static struct upstream *choose_weighted(struct group *group, uint32_t candidates,
                                        const struct question *question)
{
    (void)question;
    uint64_t total = 0;
    for (uint32_t left = candidates; left != 0; left = without_first(left))
        total += first_of(group, left)->config->weight;
    uint64_t ticket = group_random(group, total);
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
        const uint64_t pair[2] = {name, upstream->index};
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

static struct upstream *choose_one(struct group *group, uint32_t candidates,
                                   const struct question *question)
{
    return strategies[group->config->strategy](group, candidates, question);
}

/* --- Candidates --- */

/* Bits of the usable upstreams for which `is_fit`, without those in `excluded`. */
static uint32_t gather(const struct group *group, uint32_t excluded,
                       bool (*is_fit)(const struct upstream *upstream))
{
    uint32_t candidates = 0;
    for (size_t i = 0; i < group->upstream_count; i++)
        if (is_fit(&group->upstreams[i]) && upstream_is_usable(&group->upstreams[i]))
            candidates |= UINT32_C(1) << i;
    return candidates & ~excluded;
}

/* One that is up: the one that the strategy chooses if it is ready. If not, it is made so, and one
 * that is ready is asked in its stead. */
struct upstream *group_choose(struct group *group, uint32_t excluded,
                              const struct question *question)
{
    const uint32_t usable = gather(group, excluded, upstream_is_usable);
    const uint32_t useful = usable & ~useless_upstreams(group);
    const uint32_t candidates = useful != 0 ? useful : usable;
    if (candidates == 0)
        return NULL;
    struct upstream *preferred = choose_one(group, candidates, question);
    if (without_first(candidates) == 0 || upstream_is_ready(preferred))
        return preferred;
    uint32_t better = gather(group, excluded, upstream_is_ready);
    /* Better in line than behind a silence. */
    if (better == 0)
        better = gather(group, excluded, upstream_is_crowded);
    if (better == 0)
        return preferred;
    upstream_warm(preferred);
    return choose_one(group, better, question);
}

bool group_is_down(const struct group *group)
{
    for (size_t i = 0; i < group->upstream_count; i++)
        if (upstream_is_usable(&group->upstreams[i]))
            return false;
    return true;
}

/* True when the last try is long enough ago for one that does not wait for its back-off. */
static bool is_rested(const struct upstream *upstream)
{
    const struct group *group = upstream->group;
    uint64_t rest_ns = ALL_DOWN_RETRY_MAX_NS;
    if (group->down_since_ns > 0)
        rest_ns = (group->loop->now - group->down_since_ns) / 4;
    if (rest_ns < ALL_DOWN_RETRY_MIN_NS)
        rest_ns = ALL_DOWN_RETRY_MIN_NS;
    if (rest_ns > ALL_DOWN_RETRY_MAX_NS)
        rest_ns = ALL_DOWN_RETRY_MAX_NS;
    return group->loop->now - upstream->attempted_ns >= rest_ns && !upstream_is_self(upstream);
}

/* Starts a trial connection to each upstream whose back-off is over; to all when all are down,
 * since nobody knows which will be back first. */
static void try_again(struct group *group)
{
    const bool none_is_up = group_is_down(group);
    if (!none_is_up)
        group->down_since_ns = 0;
    else if (group->down_since_ns == 0)
        group->down_since_ns = group->loop->now;
    for (size_t i = 0; i < group->upstream_count; i++) {
        struct upstream *upstream = &group->upstreams[i];
        if (!upstream_is_usable(upstream) &&
            (group->loop->now >= upstream->retry_ns || (none_is_up && is_rested(upstream))))
            upstream_try_again(upstream, none_is_up ? TRIALS_MAX : 1);
    }
}

/* Those that park again are not resumed twice. */
static void resume_parked(struct group *group)
{
    struct list waiting;
    list_init(&waiting);
    struct list *link;
    while ((link = list_take_first(&group->parked)))
        list_append(&waiting, link);
    while ((link = list_take_first(&waiting))) {
        struct waiter *waiter = CONTAINER_OF(link, struct waiter, link);
        waiter->resume(waiter);
    }
}

/* At the end of the turn, since a lookup that is woken sends requests, and the recovery may be told
 * while one of its own is about to end. */
void group_recovered(struct group *group)
{
    group->trial_failed_ns = 0;
    loop_defer(group->loop, &group->recovered, LOOP_FLUSH);
}

static void hasten_all(struct loop_task *task)
{
    struct group *group = CONTAINER_OF(task, struct group, recovered);
    for (size_t i = 0; i < group->upstream_count; i++)
        upstream_hasten(&group->upstreams[i]);
    resume_parked(group);
}

static struct upstream *choose_upstream(struct group *group, const struct request *request,
                                        enum request_scope scope)
{
    const struct attempts *attempts = request->attempts;
    uint32_t exhausted = attempts_exhausted(attempts);
    if (scope == REQUEST_CALM)
        for (size_t i = 0; i < group->upstream_count; i++)
            exhausted |= (uint32_t)!upstream_is_calm(&group->upstreams[i]) << i;
    struct upstream *upstream = group_choose(group, attempts->once | exhausted, request->question);
    if (!upstream && scope == REQUEST_ANYWHERE)
        upstream = group_choose(group, attempts->twice | exhausted, request->question);
    if (upstream && scope == REQUEST_CALM && !upstream_is_ready(upstream))
        return NULL;
    return upstream;
}

static bool has_traffic(const struct group *group)
{
    return group->loop->now < group->traffic_until_ns;
}

/* --- Waiting --- */

void group_tick(struct group *group)
{
    if (!list_is_linked(&group->tick.link))
        deadline_arm(&group->ticks, &group->tick, group->loop->now);
}

static void on_tick(struct deadline *deadline, uint64_t now)
{
    struct group *group = CONTAINER_OF(deadline, struct group, tick);
    (void)now;
    if (!list_is_empty(&group->parked))
        try_again(group);
    if (!list_is_empty(&group->parked) || lanes_are_awaited(group))
        group_tick(group);
    lanes_serve_soon(group);
}

/* What comes by itself, as the end of a restart does; a wrong certificate stays. */
static bool may_pass(enum failure failure)
{
    switch (failure) {
    case FAILURE_NONE:
    case FAILURE_REFUSED_CONNECTION:
    case FAILURE_UNREACHABLE:
    case FAILURE_CONNECT_TIMEOUT:
    case FAILURE_HANDSHAKE_TIMEOUT:
    case FAILURE_NAME_LOOKUP:
    case FAILURE_CLOSED:
    case FAILURE_RESET:
    case FAILURE_PROTOCOL:
    case FAILURE_STALLED:
    case FAILURE_REQUEST_TIMEOUT:
    case FAILURE_NETWORK_CHANGED:
        return true;
    default:
        return false;
    }
}

static bool may_come_back(const struct group *group)
{
    for (size_t i = 0; i < group->upstream_count; i++)
        if (may_pass(group->upstreams[i].last_failure))
            return true;
    return false;
}

/* Trials fail, the last a moment ago; what nobody has tried for long counts for nothing. */
static bool is_away_for_long(const struct group *group)
{
    const uint64_t now = group->loop->now;
    return group->trial_failed_ns > 0 && now - group->trial_failed_ns < TRIAL_AGE_NS &&
           group->trial_failed_ns - group->away_since_ns >= group->config->timeouts.park_ns;
}

bool group_park(struct group *group, struct waiter *waiter)
{
    if (group->config->timeouts.park_ns == 0 || is_away_for_long(group) || !may_come_back(group))
        return false;
    list_append(&group->parked, &waiter->link);
    group_tick(group);
    return true;
}

static void give_up(struct loop_task *task)
{
    resume_parked(CONTAINER_OF(task, struct group, give_up));
}

void group_trial_failed(struct group *group, enum failure failure)
{
    const uint64_t now = group->loop->now;
    if (!group_is_down(group)) {
        group->trial_failed_ns = 0;
        return;
    }
    if (group->trial_failed_ns == 0 || now - group->trial_failed_ns >= TRIAL_AGE_NS)
        group->away_since_ns = now;
    group->trial_failed_ns = now;
    if (is_away_for_long(group) || !may_pass(failure))
        loop_defer(group->loop, &group->give_up, LOOP_FLUSH);
}

void group_look_again(struct group *group, struct waiter *waiter)
{
    deadline_arm(&group->second_looks, &waiter->again, group->loop->now);
}

static void on_second_look(struct deadline *deadline, uint64_t now)
{
    struct waiter *waiter = CONTAINER_OF(deadline, struct waiter, again);
    (void)now;
    waiter->resume(waiter);
}

bool group_ended_together(const struct group *group, size_t index, uint64_t time_ns)
{
    const struct upstream *upstream = &group->upstreams[index];
    size_t count = 0;
    for (size_t i = 0; i < ENDS_KEPT; i++)
        count += upstream->ended_ns[i] + TOGETHER_NS >= time_ns &&
                 upstream->ended_ns[i] <= time_ns + TOGETHER_NS;
    return count >= TOGETHER_MIN;
}

bool group_has_failed(const struct group *group, size_t index, uint64_t time_ns)
{
    return group->upstreams[index].failed_ns > time_ns;
}

bool group_vouches(struct group *group, size_t index, uint64_t time_ns)
{
    struct upstream *upstream = &group->upstreams[index];
    if (upstream->answered_sent_ns >= time_ns) /* what a turn sends leaves at its end */
        return true;
    upstream_doubt(upstream, FAILURE_CLOSED);
    return false;
}

/* --- Changes of the network --- */

/* With traffic there will be a query soon, and it should find what it needs. */
static void begin_anew(struct group *group)
{
    if (!has_traffic(group))
        return;
    try_again(group);
    loop_defer(group->loop, &group->care, LOOP_FLUSH);
}

void group_network_changed(struct group *group)
{
    bool is_changed = false;
    for (size_t i = 0; i < group->upstream_count; i++) {
        struct upstream *upstream = &group->upstreams[i];
        name_network_changed(upstream->name);
        if (upstream_look_up_route(upstream))
            upstream_start_over(upstream);
        else if (upstream->down && upstream->name)
            upstream->retry_ns = group->loop->now; /* the way to its other addresses may be new */
        else
            continue;
        is_changed = true;
    }
    if (is_changed)
        begin_anew(group);
}

void group_resumed(struct group *group)
{
    for (size_t i = 0; i < group->upstream_count; i++) {
        name_network_changed(group->upstreams[i].name);
        (void)upstream_look_up_route(&group->upstreams[i]);
        upstream_start_over(&group->upstreams[i]);
    }
    begin_anew(group);
}

/* --- Connections before they are needed --- */

bool group_may_connect(struct group *group)
{
    const uint64_t now = group->loop->now;
    if (group->next_connect_ns > now + CONNECT_BURST * CONNECT_INTERVAL_NS)
        return false;
    if (group->next_connect_ns < now)
        group->next_connect_ns = now;
    group->next_connect_ns += CONNECT_INTERVAL_NS;
    return true;
}

/* Only upstreams that have not failed since their last answer: the others have their trials. */
static void keep_standby(struct loop_task *task)
{
    struct group *group = CONTAINER_OF(task, struct group, care);
    size_t count = 0;
    for (size_t i = 0; i < group->upstream_count; i++)
        count += upstream_is_usable(&group->upstreams[i]) &&
                 upstream_has_connection(&group->upstreams[i]);
    for (size_t i = 0; i < group->upstream_count && count < STANDBY_COUNT; i++) {
        struct upstream *upstream = &group->upstreams[i];
        if (!upstream_is_usable(upstream) || upstream->failures > 0 ||
            upstream_has_connection(upstream))
            continue;
        upstream_warm(upstream);
        count++;
    }
}

/* The first request in a while. */
static void note_traffic(struct group *group)
{
    if (has_traffic(group))
        return;
    group->traffic_until_ns = group->loop->now + TRAFFIC_NS;
    loop_defer(group->loop, &group->care, LOOP_FLUSH);
}

void group_care(struct group *group)
{
    if (has_traffic(group))
        loop_defer(group->loop, &group->care, LOOP_FLUSH);
}

/* --- Requests --- */

/* What is told when nobody can be asked: what happened when somebody was last asked. */
static enum failure last_failure(const struct group *group, size_t *index)
{
    const struct upstream *last = &group->upstreams[0];
    for (size_t i = 1; i < group->upstream_count; i++)
        if (group->upstreams[i].attempted_ns > last->attempted_ns)
            last = &group->upstreams[i];
    *index = last->index;
    if (last->last_failure == FAILURE_NONE)
        return name_is_unknown(last->name) ? FAILURE_NAME_LOOKUP : FAILURE_BACKING_OFF;
    return last->last_failure;
}

enum status request_submit(struct group *group, struct request *request, enum request_scope scope,
                           enum failure *failure)
{
    assert(!request->connection && !list_is_linked(&request->link));
    bool was_tried = false;
    bool is_crowded = false;
    struct upstream *upstream;
    request->is_hedge = false;
    /* Not for its own failure (FAULTS F4), nor for the lookup of a name, which is no traffic. */
    if (request->attempts->once == 0) {
        note_traffic(group);
        try_again(group);
    }
    const uint32_t once = request->attempts->once;
    const uint32_t twice = request->attempts->twice;
    while ((upstream = choose_upstream(group, request, scope))) {
        was_tried = true;
        attempts_choose(request->attempts, upstream->index);
        request->upstream = upstream->index;
        if (upstream_submit(upstream, request, failure) == STATUS_OK)
            return STATUS_OK;
        is_crowded = is_crowded || upstream_is_crowded(upstream);
    }
    if (is_crowded) {
        request->attempts->once = once;
        request->attempts->twice = twice;
        return STATUS_FULL;
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

static bool may_be_hedged_to(const struct upstream *upstream)
{
    return upstream_is_ready(upstream) && !upstream_is_busy(upstream);
}

/* A hedge is worth nothing behind another wait, so only upstreams that are ready will do; for a
 * request that was never sent also one that is on its way. With none that is ready one is made so,
 * for it may have been idle, and the request is told late again. */
static struct upstream *choose_for_hedge(struct group *group, const struct request *late,
                                         bool is_sent)
{
    const uint32_t asked = late->attempts->once | attempts_exhausted(late->attempts);
    const uint32_t candidates = gather(group, asked, may_be_hedged_to);
    if (candidates != 0)
        return choose_one(group, candidates, late->question);
    struct upstream *upstream = group_choose(group, asked, late->question);
    if (!is_sent)
        return upstream;
    if (upstream)
        upstream_warm(upstream);
    return NULL;
}

/* Its answer is not only late: a query that waits for it would wait in vain. */
bool request_is_lost(const struct group *group, const struct request *late)
{
    return group->loop->now - late->sent_ns >= group->config->timeouts.request_ns;
}

/* What is lost may be asked once more where it was asked before (RFC 9520 3.1). */
static struct upstream *choose_again(struct group *group, const struct request *lost)
{
    const uint32_t asked = lost->attempts->twice | attempts_exhausted(lost->attempts);
    const uint32_t candidates = gather(group, asked, may_be_hedged_to);
    if (candidates == 0 || !request_is_lost(group, lost))
        return NULL;
    return choose_one(group, candidates, lost->question);
}

/* With nobody else to ask, the same upstream on another connection: it is of use when not even a
 * probe on the first is answered, not when merely this answer is slow. */
static bool may_be_hedged_beside(const struct request *late, bool is_sent)
{
    struct connection *connection = late->connection;
    struct upstream *upstream = connection->upstream;
    if (attempts_exhausted(late->attempts) & UINT32_C(1) << upstream->index)
        return false;
    const uint32_t asked = late->attempts->once | attempts_exhausted(late->attempts);
    if (!is_sent)
        return upstream_is_ready(upstream);
    if (group_choose(upstream->group, asked, late->question))
        return false; /* which is made ready */
    if (connection->suspect_since_ns == 0 ||
        connection->last_message_ns > connection->suspect_since_ns)
        return false;
    connection_probe(connection); /* unless it is out already */
    if (upstream->group->loop->now - connection->probe_sent_ns < SLOW_NS)
        return false;
    if (!upstream_is_ready(upstream))
        upstream_open_second(upstream);
    return upstream_is_ready(upstream);
}

/* Half of what is saved up is for what is lost, and for silent connections. */
static bool spend_hedge(struct group *group, const struct request *late)
{
    uint32_t needed = HEDGE_COST;
    if (late->connection->suspect_since_ns == 0 && !request_is_lost(group, late))
        needed += HEDGE_BURST * HEDGE_COST / 2;
    if (group->hedge_credit < needed) {
        metric_add(&group->metrics->hedges_denied, 1);
        return false;
    }
    group->hedge_credit -= HEDGE_COST;
    return true;
}

enum status request_hedge(struct group *group, const struct request *late, struct request *second)
{
    assert(late->connection && !second->connection && late->attempts == second->attempts);
    const bool is_sent = late->connection->state >= CONNECTION_READY;
    struct upstream *upstream = choose_for_hedge(group, late, is_sent);
    const bool is_beside = !upstream && may_be_hedged_beside(late, is_sent);
    bool is_free = !is_sent || request_is_lost(group, late);
    enum failure failure;
    if (!upstream && !is_beside) {
        upstream = choose_again(group, late);
        is_free = false;
    }
    if (!upstream && !is_beside)
        return STATUS_NOT_FOUND;
    if (!is_free && !spend_hedge(group, late))
        return STATUS_FULL;
    second->is_hedge = true;
    if (is_beside) {
        upstream = late->connection->upstream;
        return upstream_submit(upstream, second, &failure);
    }
    attempts_choose(second->attempts, upstream->index);
    return upstream_submit(upstream, second, &failure);
}

/* It waits for a handshake, or for an answer that is lost. */
static bool is_in_vain(const struct group *group, const struct request *request)
{
    return request->connection->state < CONNECTION_READY || request_is_lost(group, request);
}

enum status request_move(struct group *group, struct request *lost, const struct request *other)
{
    assert(lost->connection && other->connection);
    if (!request_is_lost(group, lost) && !(is_in_vain(group, lost) && is_in_vain(group, other)))
        return STATUS_NOT_FOUND;
    struct upstream *upstream = choose_for_hedge(group, lost, true);
    enum failure failure;
    if (!upstream && request_is_lost(group, other) && (upstream = choose_again(group, lost)) &&
        !spend_hedge(group, lost))
        return STATUS_NOT_FOUND;
    if (!upstream)
        return STATUS_NOT_FOUND;
    request_cancel(lost);
    lost->is_hedge = true;
    attempts_choose(lost->attempts, upstream->index);
    return upstream_submit(upstream, lost, &failure);
}

/* --- The group --- */

const char *group_upstream_label(const struct group *group, size_t index)
{
    assert(index < group->upstream_count);
    return group->upstreams[index].config->label;
}

size_t group_upstream_addresses(const struct group *group, size_t index,
                                struct address out[static RACE_ADDRESSES_MAX],
                                enum failure *failure)
{
    assert(index < group->upstream_count);
    const struct upstream *upstream = &group->upstreams[index];
    *failure = FAILURE_NONE;
    if (upstream->name)
        return name_addresses(upstream->name, out, failure);
    out[0] = upstream->config->address;
    return 1;
}

static uint64_t least_of(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static void open_queues(struct group *group)
{
    const struct config *config = group->config;
    loop_add_queue(group->loop, &group->self_checks, config->timeouts.request_ns,
                   self_check_on_deadline);
    loop_add_queue(group->loop, &group->name_queries, name_query_ns(config),
                   name_on_query_deadline);
    loop_add_queue(group->loop, &group->name_settles, NAME_SETTLE_NS, name_on_settled);
    loop_add_queue(group->loop, &group->bootstrap_tries, BOOTSTRAP_TRY_NS, bootstrap_on_deadline);
    loop_add_queue(group->loop, &group->connect, config->timeouts.connect_ns,
                   connection_on_deadline);
    loop_add_queue(group->loop, &group->handshake, config->timeouts.handshake_ns,
                   connection_on_deadline);
    loop_add_queue(group->loop, &group->overdue, OVERDUE_NS, connection_on_late);
    loop_add_queue(group->loop, &group->silence, SILENCE_NS, connection_on_silence);
    loop_add_queue(group->loop, &group->spare_idle,
                   least_of(SPARE_IDLE_NS, config->timeouts.idle_ns), connection_on_deadline);
    loop_add_queue(group->loop, &group->lane_idle, least_of(LANE_IDLE_NS, config->timeouts.idle_ns),
                   connection_on_deadline);
    loop_add_queue(group->loop, &group->second_looks, SECOND_LOOK_NS, on_second_look);
    loop_add_queue(group->loop, &group->ticks, TICK_NS, on_tick);
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
    group->metrics = settings->metrics;
    group->hedge_credit = HEDGE_START * HEDGE_COST;
    group->self_key = settings->self_key;
    group->slot_count = config->limits.upstream_requests + 1;
    if (group->slot_count > SLOTS_MAX)
        group->slot_count = SLOTS_MAX;
    group->upstream_count = config->upstream_count;
    group->random_state = siphash_random_key().k0 | 1;
    loop_task_init(&group->recovered, hasten_all);
    loop_task_init(&group->care, keep_standby);
    loop_task_init(&group->give_up, give_up);
    deadline_init(&group->tick);
    list_init(&group->parked);
    blame_init(&group->blames);
    lanes_init(group);
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

/* One more connection of each upstream may be draining. However many there are, the queries in
 * their buffers are at most those in flight: two for each that waits, with some for the cache. */
size_t group_ceiling(const struct group *group)
{
    const struct config *config = group->config;
    const size_t connections =
        group->upstream_count * ((size_t)config->limits.upstream_connections + 1);
    const size_t slots = connections * group->slot_count;
    const size_t requests = (size_t)4 * config->limits.queries; /* buffers may be twice as large */
    return sizeof(*group) + connections * connection_ceiling(group->slot_count) +
           upstream_spares_ceiling() + lanes_ceiling() +
           (slots < requests ? slots : requests) * (2 + MESSAGE_QUERY_MAX);
}

void group_close(struct group *group)
{
    if (!group)
        return;
    for (size_t i = 0; i < group->upstream_count; i++)
        name_stop(group->upstreams[i].name); /* takes back its requests to the others */
    for (size_t i = 0; i < group->upstream_count; i++)
        upstream_close(&group->upstreams[i]);
    loop_cancel_task(&group->recovered);
    loop_cancel_task(&group->care);
    loop_cancel_task(&group->give_up);
    loop_cancel_task(&group->serve);
    deadline_cancel(&group->tick);
    loop_remove_queue(&group->self_checks);
    loop_remove_queue(&group->name_queries);
    loop_remove_queue(&group->name_settles);
    loop_remove_queue(&group->bootstrap_tries);
    loop_remove_queue(&group->connect);
    loop_remove_queue(&group->handshake);
    loop_remove_queue(&group->overdue);
    loop_remove_queue(&group->silence);
    loop_remove_queue(&group->spare_idle);
    loop_remove_queue(&group->lane_idle);
    loop_remove_queue(&group->second_looks);
    loop_remove_queue(&group->ticks);
    free(group);
}
