// SPDX-License-Identifier: Apache-2.0
/* Upstreams that are host names: their addresses, looked up, kept and renewed.
 *
 * A lookup asks for AAAA and A at once. Each question goes through the other upstreams, encrypted
 * like any, but only through those whose own addresses are known: so no two names can wait for each
 * other, and a name never waits for itself. When they fail, or two of them have not answered in
 * time, or one says that there is no such name, the bootstrap servers are asked, if there are any
 * (bootstrap.c).
 *
 * The addresses are good for their TTL within bounds, and are used on when they cannot be renewed
 * (FAULTS J9): a certificate for the name decides who is right, and old addresses can do no harm.
 * New ones take over without a gap: a connection to one of them is open before those to the old
 * ones are drained. While nothing is known, a connection that wants an address begins a lookup, if
 * the last one is not of this moment; so the first query after the network is back finds it.
 *
 * Thread: one worker.   Owner: its upstream.
 * RFC:    8305 3 and 4 (both families, interleaved), 8767 (stale is better than none). */
#include "upstream/names.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/numbers.h"
#include "dns/host.h"
#include "upstream/bootstrap.h"
#include "upstream/connection.h"

enum {
    FAMILIES = 2,
    UPSTREAM_TRIES_MAX = 4, /* of one question, before the bootstrap servers have their turn */
    BACKOFF_FIRST_MS = 500,
    BACKOFF_MAX_MS = 30000,
    BACKOFF_JITTER_PERCENT = 25,
    TTL_JITTER_PERCENT = 10, /* of a fleet that learned the addresses at one moment */
    TTL_MIN_S = 5,           /* a TTL of 0 must not make lookups without end */
    TTL_MAX_S = 3600,
};

/* Between two lookups that a connection wants: without an address, and with some that failed. */
#define WANTED_AGAIN_NS (250 * NANOSECONDS_PER_MILLISECOND)
#define DOUBTED_AGAIN_NS (TTL_MIN_S * NANOSECONDS_PER_SECOND)

/* RFC 8305 3: how long the addresses of one family wait for those of the other. There it is for
 * IPv4 alone; but a race with IPv6 alone would be lost where there is none. */
#define SETTLE_NS (50 * NANOSECONDS_PER_MILLISECOND)

/* RFC 8305 9.1 leaves it open; then the preferred family has its chance again. */
#define PREFERENCE_NS (600 * NANOSECONDS_PER_SECOND)

#define FIRST_LOOKUP_NS NANOSECONDS_PER_MILLISECOND /* in the first turn of the loop */

enum outcome { OUTCOME_PENDING, OUTCOME_FOUND, OUTCOME_NONE, OUTCOME_FAILED };

/* One of the two questions. */
struct name_query {
    struct name *name;
    struct question question;
    struct attempts attempts;
    struct request request;
    struct bootstrap bootstrap;
    struct deadline deadline;
    enum outcome outcome;
    unsigned tries;
    unsigned moves; /* away from upstreams that did not answer */
    uint32_t ttl_s;
    size_t found_count; /* the last that were found, in this lookup or an earlier one */
    struct address found[RACE_ADDRESSES_MAX];
};

enum name_state { NAME_RESTING, NAME_BEGINNING, NAME_ASKING, NAME_STOPPED };

struct name {
    struct path *path;
    const struct upstream_config *config;
    const struct name_events *events;
    struct name_queues *queues;
    enum name_state state;
    struct name_query queries[FAMILIES]; /* AAAA first */
    struct list waiting;                 /* of struct name_waiter, while no address is known */
    struct loop_task begin;
    struct deadline_queue renewals; /* of `renew` alone, so that its duration may change */
    struct deadline renew;
    struct deadline settle;
    uint64_t ended_ns; /* of the last lookup; 0: none has ended */
    uint32_t failures; /* in a row */
    const char *detail;
    size_t address_count;
    struct address addresses[RACE_ADDRESSES_MAX];
    struct address preferred; /* the last that was good, until preferred_until_ns */
    uint64_t preferred_until_ns;
    size_t failed_count;
    struct address failed[RACE_ADDRESSES_MAX]; /* since they last connected; longest ago first */
    struct log_limit log_limit;
};

static uint64_t now_of(const struct name *name)
{
    return name->path->loop->now;
}

/* --- The addresses --- */

static bool is_same(const struct address *a, const struct address *b)
{
    return a->any.sa_family != AF_UNSPEC && b->any.sa_family != AF_UNSPEC && address_equal(a, b);
}

static bool is_among(const struct address *address, const struct address *list, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (is_same(address, &list[i]))
            return true;
    return false;
}

bool name_has(const struct name *name, const struct address *address)
{
    return is_among(address, name->addresses, name->address_count);
}

size_t name_addresses(const struct name *name, struct address out[static RACE_ADDRESSES_MAX],
                      enum failure *failure)
{
    size_t count = 0;
    if (now_of(name) < name->preferred_until_ns && name_has(name, &name->preferred))
        out[count++] = name->preferred;
    for (size_t i = 0; i < name->address_count; i++) {
        const struct address *address = &name->addresses[i];
        if (!is_among(address, out, count) && !is_among(address, name->failed, name->failed_count))
            out[count++] = *address;
    }
    for (size_t i = 0; i < name->failed_count; i++)
        if (name_has(name, &name->failed[i]))
            out[count++] = name->failed[i];
    assert(count == name->address_count);
    if (count == 0)
        *failure =
            name->state == NAME_RESTING && name->failures > 0 ? FAILURE_NAME_LOOKUP : FAILURE_NONE;
    return count;
}

static void take_failed(struct name *name, size_t index)
{
    assert(index < name->failed_count);
    name->failed_count--;
    memmove(&name->failed[index], &name->failed[index + 1],
            (name->failed_count - index) * sizeof(name->failed[0]));
}

static void forget_failed(struct name *name, const struct address *address)
{
    for (size_t i = 0; i < name->failed_count; i++)
        if (is_same(&name->failed[i], address)) {
            take_failed(name, i);
            return;
        }
}

/* It is tried after all others; when there are too many, that which failed longest ago is good. */
static void remember_failed(struct name *name, const struct address *address)
{
    assert(address->any.sa_family != AF_UNSPEC);
    forget_failed(name, address);
    if (name->failed_count == RACE_ADDRESSES_MAX)
        take_failed(name, 0);
    name->failed[name->failed_count++] = *address;
}

/* RFC 8305 4: one of each family in turn, IPv6 first. */
static size_t interleave(const struct name *name, struct address *out)
{
    size_t count = 0;
    for (size_t i = 0; i < RACE_ADDRESSES_MAX; i++)
        for (size_t family = 0; family < FAMILIES; family++) {
            const struct name_query *query = &name->queries[family];
            if (i < query->found_count && count < RACE_ADDRESSES_MAX)
                out[count++] = query->found[i];
        }
    return count;
}

static void end_waiting(struct name *name, enum failure failure)
{
    struct list *link;
    while ((link = list_take_first(&name->waiting))) {
        struct name_waiter *waiter = CONTAINER_OF(link, struct name_waiter, link);
        waiter->on_end(waiter, failure);
    }
}

static void log_addresses(const struct name *name)
{
    char text[RACE_ADDRESSES_MAX * (ADDRESS_TEXT_SIZE + 1)] = "";
    size_t length = 0;
    for (size_t i = 0; i < name->address_count; i++) {
        char address[ADDRESS_TEXT_SIZE];
        length += (size_t)snprintf(text + length, sizeof(text) - length, "%s%s", i > 0 ? " " : "",
                                   address_format(&name->addresses[i], address));
    }
    log_event(LOG_LEVEL_INFO, "upstream_addresses", "upstream", name->path->label, "addresses",
              text, NULL);
}

/* Takes over what has been found so far. */
static void publish(struct name *name)
{
    struct address addresses[RACE_ADDRESSES_MAX];
    const size_t count = interleave(name, addresses);
    bool is_changed = count != name->address_count;
    for (size_t i = 0; i < count; i++)
        is_changed = is_changed || !name_has(name, &addresses[i]);
    const bool is_first = name->address_count == 0;
    memcpy(name->addresses, addresses, count * sizeof(addresses[0]));
    name->address_count = count;
    if (is_first)
        name->events->on_resolved(name->path, &addresses[0]);
    metric_set(&name->path->metrics->addresses, count);
    if (!is_changed)
        return;
    log_addresses(name);
    end_waiting(name, FAILURE_NONE);
    name->events->on_moved(name->path);
}

/* --- The course of a lookup --- */

static void renew_after(struct name *name, uint64_t duration_ns)
{
    deadline_cancel(&name->renew);
    name->renewals.duration_ns = duration_ns;
    deadline_arm(&name->renewals, &name->renew, now_of(name));
}

static uint64_t spread(struct name *name, uint64_t duration_ns, unsigned percent)
{
    return duration_ns - random_below(name->path->random, duration_ns / 100 * percent + 1);
}

static uint64_t backoff_ns(struct name *name)
{
    assert(name->failures > 0);
    const uint64_t doublings = least_of(name->failures - 1, 16);
    const uint64_t backoff_ms = least_of((uint64_t)BACKOFF_FIRST_MS << doublings, BACKOFF_MAX_MS);
    return spread(name, backoff_ms * NANOSECONDS_PER_MILLISECOND, BACKOFF_JITTER_PERCENT);
}

static uint64_t ttl_ns(struct name *name)
{
    uint32_t ttl_s = TTL_MAX_S;
    for (size_t i = 0; i < FAMILIES; i++)
        if (name->queries[i].outcome == OUTCOME_FOUND && name->queries[i].ttl_s < ttl_s)
            ttl_s = name->queries[i].ttl_s;
    return spread(name, most_of(ttl_s, TTL_MIN_S) * NANOSECONDS_PER_SECOND, TTL_JITTER_PERCENT);
}

static void lookup_failed(struct name *name)
{
    struct path *path = name->path;
    name->failures++;
    metric_add(&path->metrics->name_lookups_failed, 1);
    renew_after(name, backoff_ns(name));
    if (name->address_count > 0) {
        log_event_limited(&name->log_limit, now_of(name), LOG_LEVEL_WARNING,
                          "upstream_addresses_stale", "upstream", path->label, "cause",
                          failure_text(FAILURE_NAME_LOOKUP), "detail", name->detail, NULL);
        return;
    }
    if (list_is_empty(&name->waiting)) {
        metric_add(&path->metrics->failures[FAILURE_NAME_LOOKUP], 1);
        path_failed(path, FAILURE_NAME_LOOKUP, name->detail);
    }
    end_waiting(name, FAILURE_NAME_LOOKUP);
}

/* A family that the name has no more; but a name without any address is taken for a mistake. */
static void forget_absent(struct name *name)
{
    for (size_t i = 0; i < FAMILIES; i++)
        if (name->queries[i].outcome == OUTCOME_NONE)
            name->queries[i].found_count = 0;
}

static void lookup_ended(struct name *name)
{
    assert(name->state == NAME_ASKING);
    bool is_found = false;
    deadline_cancel(&name->settle);
    name->state = NAME_RESTING;
    name->ended_ns = now_of(name);
    for (size_t i = 0; i < FAMILIES; i++)
        is_found = is_found || name->queries[i].outcome == OUTCOME_FOUND;
    if (!is_found) {
        lookup_failed(name);
        return;
    }
    name->failures = 0;
    metric_add(&name->path->metrics->name_lookups_found, 1);
    renew_after(name, ttl_ns(name));
    forget_absent(name);
    publish(name);
}

static void query_ended(struct name_query *query, enum outcome outcome)
{
    struct name *name = query->name;
    assert(query->outcome == OUTCOME_PENDING && outcome != OUTCOME_PENDING);
    deadline_cancel(&query->deadline);
    query->outcome = outcome;
    bool is_pending = false;
    for (size_t i = 0; i < FAMILIES; i++)
        is_pending = is_pending || name->queries[i].outcome == OUTCOME_PENDING;
    if (!is_pending)
        lookup_ended(name);
    else if (outcome == OUTCOME_FOUND)
        deadline_arm(&name->queues->settles, &name->settle, now_of(name));
}

static void on_settled(struct deadline *deadline, uint64_t now)
{
    (void)now;
    publish(CONTAINER_OF(deadline, struct name, settle));
}

/* --- One question --- */

static void ask_bootstrap(struct name_query *query)
{
    if (query->name->path->snapshot->bootstrap_count > 0)
        bootstrap_begin(&query->bootstrap, &query->question,
                        query->name->path->snapshot->timeouts.request_ns);
    else
        query_ended(query, OUTCOME_FAILED);
}

/* Whether one is left that is not `excluded`, as every slot is that nobody has. */
static bool has_upstream(const struct name_query *query, upstream_set excluded)
{
    return query->tries < UPSTREAM_TRIES_MAX && ~excluded != 0;
}

static void ask_upstreams(struct name_query *query)
{
    enum failure failure;
    const struct name *name = query->name;
    if (has_upstream(query, query->attempts.twice)) {
        query->tries++;
        if (name->events->ask(name->path, &query->request, &failure) == STATUS_OK)
            return;
    }
    ask_bootstrap(query);
}

static void take_answer(struct name_query *query, const struct answer *answer)
{
    struct name *name = query->name;
    struct address found[RACE_ADDRESSES_MAX];
    const size_t count =
        host_addresses(answer, &query->question, name->config->port, found, RACE_ADDRESSES_MAX);
    if (count == 0) {
        name->detail = answer->rcode == RCODE_NXDOMAIN ? "no such name" : "it has no address";
        query_ended(query, OUTCOME_NONE);
        return;
    }
    memcpy(query->found, found, sizeof(query->found));
    query->found_count = count;
    query->ttl_s = answer->ttl_s;
    query_ended(query, OUTCOME_FOUND);
}

static void on_bootstrap_done(struct bootstrap *bootstrap, const struct answer *answer)
{
    struct name_query *query = CONTAINER_OF(bootstrap, struct name_query, bootstrap);
    if (answer) {
        take_answer(query, answer);
        return;
    }
    query->name->detail = "no answer from any bootstrap server";
    query_ended(query, OUTCOME_FAILED);
}

static void on_done(struct request *request, const struct answer *answer, enum failure failure)
{
    struct name_query *query = CONTAINER_OF(request, struct name_query, request);
    const struct snapshot *snapshot = query->name->path->snapshot;
    if (failure != FAILURE_NONE) {
        query->name->detail = failure_text(failure);
        ask_upstreams(query);
    } else if (answer->rcode == RCODE_NXDOMAIN && snapshot->bootstrap_count > 0) {
        ask_bootstrap(query); /* a name of one's own network */
    } else {
        take_answer(query, answer);
    }
}

/* A bootstrap server may be quicker, but is asked in clear text: not for an answer that takes a
 * little longer than others, and not before another upstream has had as long. Without anybody else
 * to ask there is nothing better than to wait. */
static void on_late(struct request *request)
{
    struct name_query *query = CONTAINER_OF(request, struct name_query, request);
    const struct snapshot *snapshot = query->name->path->snapshot;
    const uint64_t waited_ns = now_of(query->name) - query->deadline.armed_ns;
    const bool has_bootstrap = snapshot->bootstrap_count > 0;
    const uint64_t request_ns = snapshot->timeouts.request_ns;
    if (waited_ns < (query->moves + 1) * request_ns)
        return;
    const upstream_set useless =
        query->attempts.once | query->name->events->find_down(query->name->path);
    if (has_upstream(query, useless) && (query->moves == 0 || !has_bootstrap)) {
        query->moves++;
        request_cancel(request);
        ask_upstreams(query);
    } else if (has_bootstrap) {
        request_cancel(request);
        ask_bootstrap(query);
    }
}

static void on_query_deadline(struct deadline *deadline, uint64_t now)
{
    struct name_query *query = CONTAINER_OF(deadline, struct name_query, deadline);
    (void)now;
    request_cancel(&query->request);
    bootstrap_cancel(&query->bootstrap);
    query->name->detail = failure_text(FAILURE_REQUEST_TIMEOUT);
    query_ended(query, OUTCOME_FAILED);
}

bool name_is_unknown(const struct name *name)
{
    return name && name->address_count == 0;
}

/* How long one of the two questions may take: time for two upstreams that do not answer, and for
 * each bootstrap server, however short timeouts.query is. */
static uint64_t query_ns(const struct snapshot *snapshot)
{
    const uint64_t needed_ns =
        2 * snapshot->timeouts.request_ns + (snapshot->bootstrap_count + 2) * BOOTSTRAP_TRY_NS;
    return most_of(needed_ns, snapshot->timeouts.query_ns);
}

static void begin_query(struct name_query *query, upstream_set excluded)
{
    assert(query->outcome == OUTCOME_PENDING && !request_is_in_flight(&query->request));
    const struct name *name = query->name;
    query->attempts = (struct attempts){.once = excluded, .twice = excluded};
    query->tries = 0;
    query->moves = 0;
    deadline_arm(&name->queues->queries, &query->deadline, now_of(name));
    ask_upstreams(query);
}

static void begin_lookup(struct name *name)
{
    assert(name->state != NAME_ASKING);
    deadline_cancel(&name->renew);
    name->state = NAME_ASKING;
    name->detail = "nobody to ask";
    const upstream_set excluded = name->events->find_unknown(name->path);
    for (size_t i = 0; i < FAMILIES; i++)
        name->queries[i].outcome = OUTCOME_PENDING;
    for (size_t i = 0; i < FAMILIES; i++)
        begin_query(&name->queries[i], excluded);
}

static void run_begin(struct loop_task *task)
{
    begin_lookup(CONTAINER_OF(task, struct name, begin));
}

static void on_renew(struct deadline *deadline, uint64_t now)
{
    struct name *name = CONTAINER_OF(deadline, struct name, renew);
    (void)now;
    if (name->state == NAME_RESTING)
        begin_lookup(name);
}

/* At the end of the turn: a lookup asks upstreams, and the caller may be one that is being asked.
 * False when the last one is not yet `age_ns` old. */
static bool begin_soon(struct name *name, uint64_t age_ns)
{
    if (name->state != NAME_RESTING)
        return true;
    if (name->ended_ns > 0 && now_of(name) - name->ended_ns < age_ns)
        return false;
    name->state = NAME_BEGINNING;
    loop_defer(name->path->loop, &name->begin, LOOP_FLUSH);
    return true;
}

/* --- What connections want and tell --- */

const char *name_detail(const struct name *name)
{
    return name->detail;
}

enum status name_wait(struct name *name, struct name_waiter *waiter, enum failure *failure)
{
    assert(name->address_count == 0);
    if (!begin_soon(name, WANTED_AGAIN_NS)) {
        *failure = FAILURE_NAME_LOOKUP;
        return STATUS_NOT_FOUND;
    }
    list_append(&name->waiting, &waiter->link);
    return STATUS_OK;
}

void name_connected(struct name *name, const struct address *peer)
{
    assert(peer->any.sa_family != AF_UNSPEC);
    assert(name_has(name, peer));
    name->preferred = *peer;
    name->preferred_until_ns = now_of(name) + PREFERENCE_NS;
    forget_failed(name, peer);
}

/* The server may have moved before its time. */
void name_failed(struct name *name, const struct address *peer)
{
    if (peer->any.sa_family != AF_UNSPEC)
        remember_failed(name, peer);
    if (is_same(&name->preferred, peer))
        name->preferred = (struct address){};
    if (name->address_count > 0)
        (void)begin_soon(name, DOUBTED_AGAIN_NS);
}

void name_network_changed(struct name *name)
{
    if (name_is_unknown(name))
        (void)begin_soon(name, WANTED_AGAIN_NS);
}

/* --- Birth and death --- */

void name_queues_open(struct name_queues *queues, struct loop *loop,
                      const struct snapshot *snapshot)
{
    loop_add_queue(loop, &queues->queries, query_ns(snapshot), on_query_deadline);
    loop_add_queue(loop, &queues->settles, SETTLE_NS, on_settled);
    loop_add_queue(loop, &queues->bootstrap_tries, BOOTSTRAP_TRY_NS, bootstrap_on_deadline);
}

void name_queues_reload(struct name_queues *queues, const struct snapshot *snapshot)
{
    queues->queries.duration_ns = query_ns(snapshot);
}

void name_queues_close(struct name_queues *queues)
{
    loop_remove_queue(&queues->queries);
    loop_remove_queue(&queues->settles);
    loop_remove_queue(&queues->bootstrap_tries);
}

enum status name_open(struct path *path, const struct upstream_config *config,
                      struct name_queues *queues, const struct name_events *events,
                      struct name **out)
{
    static const enum dns_type types[FAMILIES] = {TYPE_AAAA, TYPE_A};
    struct name *name = calloc(1, sizeof(*name));
    if (!name)
        return STATUS_FULL;
    name->path = path;
    name->config = config;
    name->events = events;
    name->queues = queues;
    name->detail = "";
    for (size_t i = 0; i < FAMILIES; i++) {
        struct name_query *query = &name->queries[i];
        query->name = name;
        query->outcome = OUTCOME_FAILED;
        host_question(config->host, types[i], &query->question);
        request_init(&query->request, &query->question, &query->attempts, on_done, on_late);
        bootstrap_init(&query->bootstrap, path->loop, path->snapshot, &queues->bootstrap_tries,
                       path->scratch, on_bootstrap_done);
        deadline_init(&query->deadline);
    }
    list_init(&name->waiting);
    loop_task_init(&name->begin, run_begin);
    deadline_init(&name->renew);
    deadline_init(&name->settle);
    loop_add_queue(path->loop, &name->renewals, FIRST_LOOKUP_NS, on_renew);
    renew_after(name, FIRST_LOOKUP_NS);
    *out = name;
    return STATUS_OK;
}

void name_reload(struct name *name, const struct upstream_config *config, upstream_set changed)
{
    if (!name)
        return;
    name->config = config;
    const upstream_set unknown = name->events->find_unknown(name->path);
    for (size_t i = 0; i < FAMILIES; i++) {
        struct attempts *attempts = &name->queries[i].attempts;
        attempts_forget(attempts, changed);
        attempts->once |= unknown;
        attempts->twice |= unknown;
        bootstrap_reload(&name->queries[i].bootstrap, name->path->snapshot);
    }
}

void name_stop(struct name *name)
{
    if (!name)
        return;
    name->state = NAME_STOPPED;
    for (size_t i = 0; i < FAMILIES; i++) {
        struct name_query *query = &name->queries[i];
        request_cancel(&query->request);
        bootstrap_close(&query->bootstrap);
        deadline_cancel(&query->deadline);
    }
    loop_cancel_task(&name->begin);
    deadline_cancel(&name->renew);
    deadline_cancel(&name->settle);
}

void name_close(struct name *name)
{
    if (!name)
        return;
    name_stop(name);
    assert(list_is_empty(&name->waiting));
    loop_remove_queue(&name->renewals);
    free(name);
}
