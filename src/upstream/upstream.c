// SPDX-License-Identifier: Apache-2.0
/* One upstream: its health, its times, and which of its connections takes a request.
 *
 * Health: it is down when connects, handshakes or our probe fail, at once when that took a timeout,
 * else the second time in a row. A close or silence after a handshake may be a question's doing:
 * when several connections end so and nothing is answered in between it is doubted, and gets
 * nothing but a probe until that is answered. After a back-off that doubles, with jitter, a
 * connection without any query finds out whether it is back: no client pays for the trial.
 *
 * Trouble: each connection that ends with questions aboard allows more connections for a while, so
 * that the next end hits few. What a server takes of them is learned from what it refuses.
 *
 * Thread: one worker.   Owner: the group.
 * RFC:    7858 3.4 (reuse), 9520 3.3 (no hammering of one that is down). */
#include "upstream/internal.h"
#include "upstream/names.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>

enum {
    BACKOFF_FIRST_MS = 100,
    BACKOFF_MAX_MS = 30000,
    BACKOFF_JITTER_PERCENT = 25, /* either way: a fleet must not come back in step */
    SELF_BACKOFF_MS = 60000,     /* until somebody has changed the configuration */
    SPARES_STEP = 4,             /* more connections for each that ends */
    SPARES_MAX = 64,             /* of one upstream */
    SPARES_ALL_MAX = 128,        /* of all */

    OPENING_MIN = 8, /* connections at a time: handshakes are dear */
    RIDERS_MAX = 16, /* on a connection in trouble, while more are to come */
    UNEQUAL = 4,     /* connections in trouble differ by fewer than so many riders */

};

#define OPENING_STEP_NS                                                                    \
    (2 * NANOSECONDS_PER_MILLISECOND)               /* of rtt for one more: they take long \
                                                     */
#define CALM_NS (10 * NANOSECONDS_PER_SECOND)       /* after the last end of a connection */
#define DOUBT_NS (50 * NANOSECONDS_PER_MILLISECOND) /* without an answer: more than chance */

static void open_spare(struct upstream *upstream);
static bool may_grow(const struct upstream *upstream);
static uint32_t count_open(const struct upstream *upstream);

static uint64_t request_ns(const struct upstream *upstream)
{
    return upstream->group->config->timeouts.request_ns;
}

static uint64_t backoff_ns(struct upstream *upstream)
{
    uint64_t backoff_ms = BACKOFF_FIRST_MS;
    for (uint32_t i = 1; i < upstream->failures && backoff_ms < BACKOFF_MAX_MS; i++)
        backoff_ms *= 2;
    if (backoff_ms > BACKOFF_MAX_MS)
        backoff_ms = BACKOFF_MAX_MS;
    if (upstream->last_failure == FAILURE_SELF)
        backoff_ms = SELF_BACKOFF_MS;
    const uint64_t jitter_ms = backoff_ms * BACKOFF_JITTER_PERCENT / 100;
    backoff_ms = backoff_ms - jitter_ms + random_below(&upstream->group->random, 2 * jitter_ms + 1);
    return backoff_ms * NANOSECONDS_PER_MILLISECOND;
}

static void set_down(struct upstream *upstream, bool down)
{
    upstream->down = down;
    if (down)
        upstream->self_check.is_done = false;
    metric_set(&upstream->metrics->up, upstream_is_usable(upstream));
}

static bool costs_time(enum failure failure)
{
    return failure == FAILURE_CONNECT_TIMEOUT || failure == FAILURE_HANDSHAKE_TIMEOUT ||
           failure == FAILURE_REQUEST_TIMEOUT || failure == FAILURE_STALLED ||
           failure == FAILURE_NAME_LOOKUP;
}

static void log_failure(struct upstream *upstream, enum failure failure, const char *detail)
{
    char failures[16];
    snprintf(failures, sizeof(failures), "%" PRIu32, upstream->failures);
    log_event_limited(&upstream->log_limit, upstream->group->loop->now,
                      failure == FAILURE_SELF ? LOG_LEVEL_ERROR : LOG_LEVEL_WARNING,
                      "upstream_failed", "upstream", upstream->config->label, "cause",
                      failure_text(failure), "detail", detail[0] ? detail : NULL, "failures",
                      failures, "state",
                      upstream->down         ? "down"
                      : upstream->is_doubted ? "doubted"
                                             : "up",
                      NULL);
}

void upstream_failed(struct upstream *upstream, enum failure failure, const char *detail)
{
    assert(failure != FAILURE_NONE && detail);
    upstream->failures++;
    upstream->failed_ns = upstream->group->loop->now;
    upstream->calm_ns = 0; /* it was no question that has ended its connections */
    upstream->last_failure = failure;
    if (upstream->down || costs_time(failure) || failure == FAILURE_SELF ||
        upstream->failures > 1) {
        set_down(upstream, true);
        upstream->is_missed = true;
        upstream->retry_ns = upstream->group->loop->now + backoff_ns(upstream);
    }
    log_failure(upstream, failure, detail);
    group_trial_failed(upstream->group, failure);
}

void upstream_doubt(struct upstream *upstream, enum failure failure)
{
    if (upstream->is_doubted || upstream->down)
        return;
    upstream->is_doubted = true;
    upstream->is_missed = true;
    upstream->last_failure = failure;
    upstream->retry_ns = upstream->group->loop->now;
    metric_set(&upstream->metrics->up, false);
    log_failure(upstream, failure, "nothing is answered");
    upstream_try_again(upstream, 1);
    LIST_EACH (struct connection, connection, &upstream->connections, link)
        if (connection_try(connection))
            break;
}

void upstream_heard(struct upstream *upstream, uint64_t sent_ns)
{
    upstream->ends = 0;
    upstream->answered_ns = upstream->group->loop->now;
    if (upstream->answered_sent_ns < sent_ns)
        upstream->answered_sent_ns = sent_ns;
    if (!upstream->is_doubted)
        return;
    upstream->is_doubted = false;
    upstream->failures = 0;
    upstream_is_back(upstream);
    metric_set(&upstream->metrics->up, true);
    group_recovered(upstream->group);
}

/* The doubt is about those that answer nobody; a question that ends connections does so between the
 * answers to others. */
void upstream_ended(struct upstream *upstream, enum failure failure, bool is_lane,
                    uint64_t silent_since_ns)
{
    const uint64_t unheard_ns = upstream->group->loop->now - upstream->answered_ns;
    upstream->ended[upstream->ended_count++ % ENDS_KEPT] =
        (struct end){.time_ns = upstream->group->loop->now, .left = count_open(upstream)};

    if (!is_lane)
        upstream_spread(upstream);
    upstream->ends++;
    const bool is_silent = silent_since_ns > 0 && upstream->answered_ns <= silent_since_ns;
    if (is_silent || (upstream->ends > 1 && unheard_ns >= DOUBT_NS + 4 * upstream->times.rtt_ns))
        upstream_doubt(upstream, failure);
    else if (upstream_is_usable(upstream))
        open_spare(upstream);
}

bool upstream_is_self(const struct upstream *upstream)
{
    return upstream->down && upstream->last_failure == FAILURE_SELF &&
           upstream->group->loop->now < upstream->retry_ns;
}

void upstream_connected(struct upstream *upstream)
{
    if (!upstream->down)
        return;
    set_down(upstream, false);
    group_recovered(upstream->group);
}

/* One that shakes hands and then says nothing takes turns in being up and down; it has not come
 * back. */
void upstream_is_back(struct upstream *upstream)
{
    upstream_connected(upstream);
    if (!upstream->is_missed)
        return;
    upstream->is_missed = false;
    log_event_limited(&upstream->recovered_limit, upstream->group->loop->now, LOG_LEVEL_INFO,
                      "upstream_recovered", "upstream", upstream->config->label, NULL);
}

void upstream_answered(struct upstream *upstream)
{
    upstream->failures = 0;
    upstream_is_back(upstream);
    times_expect(&upstream->times, request_ns(upstream));
}

void upstream_measure(struct upstream *upstream, uint64_t took_ns)
{
    if (!times_measure(&upstream->times, upstream->group->loop->now, took_ns))
        return;
    metric_set(&upstream->metrics->rtt_ns, upstream->times.rtt_ns);
    upstream->late.duration_ns = times_late_ns(&upstream->times, request_ns(upstream));
}

/* --- Connections --- */

static bool has_silent(const struct upstream *upstream)
{
    LIST_EACH (struct connection, connection, &upstream->connections, link)
        if (connection->silent_since_ns > 0)
            return true;
    return false;
}

void upstream_opened(struct upstream *upstream)
{
    if (has_silent(upstream))
        group_recovered(upstream->group);
    upstream_connected(upstream);
}

/* It has shown how many connections it takes. */
static bool is_limited(const struct upstream *upstream)
{
    return upstream->group->loop->now < upstream->admitted_until_ns;
}

bool upstream_is_calm(const struct upstream *upstream)
{
    return upstream->group->loop->now >= upstream->calm_ns;
}

/* How much better a connection with room is than others: a silent one is the last choice, and the
 * one closest to being ready is the best. */
static int rank(const struct connection *connection)
{
    return connection->silent_since_ns > 0 ? -1 : (int)connection->state;
}

/* With equal burdens a server's own limit would end all of them at once. */
static uint32_t burden(const struct connection *connection)
{
    const uint32_t aboard = connection_aboard(connection);
    return aboard == 0 ? 0 : aboard + connection->slots.id_mask % UNEQUAL;
}

static bool is_better(const struct connection *connection, const struct connection *best, bool calm)
{
    if (!best || rank(connection) != rank(best))
        return !best || rank(connection) > rank(best);
    return !calm && burden(connection) < burden(best);
}

/* The best one with room. Among equals in calm the one opened first, so that a second connection is
 * used only while the first is full and may then go idle; in trouble the one with the fewest
 * aboard.
 */
static struct connection *find_room(const struct upstream *upstream)
{
    struct connection *best = NULL;
    const bool calm = upstream_is_calm(upstream);
    LIST_EACH (struct connection, connection, &upstream->connections, link) {
        if (!connection_has_room(connection) || !is_better(connection, best, calm))
            continue;
        best = connection;
        if (rank(best) == CONNECTION_READY && (calm || connection_aboard(best) == 0))
            break;
    }
    if (best && !calm && connection_aboard(best) >= RIDERS_MAX && may_grow(upstream))
        return NULL;
    return best;
}

/* Those that take requests; one that drains is on its way out and does not count. */
static size_t count_connections(const struct upstream *upstream)
{
    size_t count = 0;
    LIST_EACH (struct connection, connection, &upstream->connections, link)
        if (connection_takes_requests(connection))
            count++;
    return count;
}

static bool is_old(const struct connection *connection, uint64_t now)
{
    return connection->state == CONNECTION_READY && connection_takes_requests(connection) &&
           now - connection->begun_ns > 2 * TOGETHER_NS;
}

/* Without those that have replaced others a moment ago. */
static uint32_t count_open(const struct upstream *upstream)
{
    const uint64_t now = upstream->group->loop->now;
    uint32_t count = 0;
    LIST_EACH (struct connection, connection, &upstream->connections, link)
        count += is_old(connection, now);
    LIST_EACH (struct connection, lane, &upstream->lanes, link)
        count += is_old(lane, now);
    return count;
}

size_t lanes_count(const struct upstream *upstream)
{
    size_t count = 0;
    LIST_EACH (struct connection, lane, &upstream->lanes, link)
        count++;
    return count;
}

bool upstream_has_connection(const struct upstream *upstream)
{
    return count_connections(upstream) > 0;
}

bool upstream_is_ready(const struct upstream *upstream)
{
    const struct connection *connection = find_room(upstream);
    return connection && rank(connection) == CONNECTION_READY;
}

bool upstream_is_heard(const struct upstream *upstream)
{
    LIST_EACH (struct connection, connection, &upstream->connections, link)
        if (connection_takes_requests(connection) && rank(connection) == CONNECTION_READY)
            return true;
    return false;
}

bool upstream_is_busy(const struct upstream *upstream)
{
    return upstream->in_flight > upstream->group->config->limits.upstream_requests / 2;
}

/* A new connection that could not even begin is the upstream's failure, unless we are out of
 * descriptors or memory ourselves. */
enum status upstream_open_connection(struct upstream *upstream, enum connection_use use,
                                     enum failure *failure)
{
    *failure = FAILURE_OVERLOADED;
    if (is_limited(upstream) &&
        count_connections(upstream) + lanes_count(upstream) >= upstream->admitted)
        return STATUS_FULL;
    if (!group_may_connect(upstream->group)) {
        *failure = FAILURE_LOCAL;
        metric_add(&upstream->metrics->connects_denied, 1);
        return STATUS_FULL;
    }
    upstream->attempted_ns = upstream->group->loop->now;
    const enum status status = connection_open(upstream, use, failure);
    if (status != STATUS_OK) {
        metric_add(&upstream->metrics->failures[*failure], 1);
        if (*failure != FAILURE_LOCAL)
            upstream_failed(upstream, *failure, "");
    }
    return status;
}

/* --- Trouble --- */

/* How many it may have for all questions. */
static size_t shared_max(const struct upstream *upstream)
{
    const size_t spread = 1 + (size_t)upstream->spares;
    if (!is_limited(upstream))
        return spread;
    const size_t half = upstream->admitted > 1 ? upstream->admitted / 2 : 1;
    return half < spread ? half : spread;
}

static size_t count_opening(const struct upstream *upstream)
{
    size_t count = 0;
    LIST_EACH (struct connection, connection, &upstream->connections, link)
        count += connection_takes_requests(connection) && connection->state < CONNECTION_READY;
    return count;
}

size_t upstream_opening_max(const struct upstream *upstream)
{
    return OPENING_MIN + upstream->times.rtt_ns / OPENING_STEP_NS;
}

size_t upstream_lanes_max(const struct upstream *upstream)
{
    const size_t shared = shared_max(upstream);
    if (!is_limited(upstream))
        return SIZE_MAX;
    return upstream->admitted > shared ? upstream->admitted - shared : 1;
}

/* One more, if so many are allowed by now. */
static void open_spare(struct upstream *upstream)
{
    enum failure failure;
    const size_t count = count_connections(upstream);
    if (count < shared_max(upstream) && count_opening(upstream) < upstream_opening_max(upstream))
        (void)upstream_open_connection(upstream, count > 0 ? CONNECTION_SPARE : CONNECTION_MAIN,
                                       &failure);
}

static void allow_spares(struct upstream *upstream, unsigned count)
{
    const size_t share = SPARES_ALL_MAX / upstream->group->upstream_count;
    const size_t most = share < SPARES_MAX ? share : SPARES_MAX;
    upstream->spares += (uint16_t)count;
    if (upstream->spares > most)
        upstream->spares = (uint16_t)most;
}

/* So many wait that the connections to come would be full, too: one more is allowed for them. */
static void meet_demand(struct upstream *upstream)
{
    if (++upstream->crowded >= RIDERS_MAX) {
        upstream->crowded = 0;
        allow_spares(upstream, 1);
    }
    open_spare(upstream);
}

static bool may_grow(const struct upstream *upstream)
{
    return count_connections(upstream) < shared_max(upstream) || count_opening(upstream) > 0;
}

bool upstream_is_crowded(const struct upstream *upstream)
{
    return !upstream_is_calm(upstream) && upstream_is_usable(upstream) && !find_room(upstream) &&
           may_grow(upstream);
}

/* As many as the others that there are; when several are refused, the last shows the number. Half
 * of them are left to lanes. */
void upstream_learn_admitted(struct upstream *upstream)
{
    size_t count = 0;
    LIST_EACH (struct connection, connection, &upstream->connections, link)
        count++;
    count += lanes_count(upstream);

    if (is_limited(upstream) && upstream->admitted < count)
        count = upstream->admitted;
    upstream->admitted = count > 0 ? (uint32_t)count : 1;
    upstream->admitted_until_ns = upstream->group->loop->now + CALM_NS;
    count = count_connections(upstream);
    LIST_EACH (struct connection, connection, &upstream->connections, link)
        if (count > shared_max(upstream) && connection->use == CONNECTION_SPARE) {
            connection_drain(connection);
            count--;
        }
}

size_t upstream_spares_ceiling(void)
{
    return SPARES_ALL_MAX * connection_ceiling(SLOTS_STEP);
}

void upstream_spread(struct upstream *upstream)
{
    if (upstream_is_calm(upstream))
        upstream->spares = 0;
    allow_spares(upstream, SPARES_STEP);

    upstream->calm_ns = upstream->group->loop->now + CALM_NS;
}

/* --- Requests --- */

static struct connection *last_connection(const struct upstream *upstream)
{
    assert(!list_is_empty(&upstream->connections));
    return CONTAINER_OF(upstream->connections.previous, struct connection, link);
}

static size_t count_main(const struct upstream *upstream)
{
    size_t count = 0;
    LIST_EACH (struct connection, connection, &upstream->connections, link)
        count += connection->use == CONNECTION_MAIN && connection_takes_requests(connection);
    return count;
}

enum status upstream_submit(struct upstream *upstream, struct request *request,
                            enum failure *failure)
{
    struct connection *connection = find_room(upstream);
    if (connection && !upstream_is_calm(upstream) &&
        (rank(connection) < CONNECTION_READY || connection_aboard(connection) > 0))
        open_spare(upstream);
    if (connection && connection_submit(connection, request) == STATUS_OK)
        return STATUS_OK;
    *failure = FAILURE_OVERLOADED;
    if (upstream_is_crowded(upstream)) {
        meet_demand(upstream);
        connection = find_room(upstream);
        return connection ? connection_submit(connection, request) : STATUS_AGAIN;
    }

    if (count_main(upstream) >= upstream->group->config->limits.upstream_connections)
        return STATUS_FULL;
    TRY(upstream_open_connection(upstream, CONNECTION_MAIN, failure));
    *failure = FAILURE_LOCAL;
    return connection_submit(last_connection(upstream), request);
}

void upstream_open_ahead(struct upstream *upstream)
{
    enum failure failure;
    /* It may be that it takes no more connections: that is not why it cannot be asked. */
    if (upstream_open_connection(upstream, CONNECTION_MAIN, &failure) != STATUS_OK &&
        failure != FAILURE_OVERLOADED)
        upstream->last_failure = failure;
}

void upstream_warm(struct upstream *upstream)
{
    const uint64_t rested_ns = upstream->group->loop->now - upstream->attempted_ns;
    const bool was_good = upstream->last_answers > 0;
    if (!upstream_has_connection(upstream) &&
        (was_good || rested_ns >= BACKOFF_FIRST_MS * NANOSECONDS_PER_MILLISECOND))
        upstream_open_ahead(upstream);
}

/* Those that may yet show whether it is there. */
static size_t count_trials(const struct upstream *upstream)
{
    size_t count = 0;
    LIST_EACH (struct connection, connection, &upstream->connections, link)
        count += connection_takes_requests(connection) &&
                 (connection->state < CONNECTION_READY ||
                  connection->probe_slot < connection->slots.count);
    return count;
}

void upstream_try_again(struct upstream *upstream, size_t connections_max)
{
    assert(!upstream_is_usable(upstream));
    upstream->retry_ns = upstream->group->loop->now + backoff_ns(upstream);
    if (count_trials(upstream) < connections_max)
        upstream_open_ahead(upstream);
}

void upstream_open_second(struct upstream *upstream)
{
    const uint32_t max = upstream->group->config->limits.upstream_connections;
    if (count_opening(upstream) > 0 || max < 2)
        return;
    if (count_connections(upstream) < 2) {
        upstream_open_ahead(upstream);
        return;
    }
    /* Two are silent: where answers come in the order of the questions more are needed. */
    if (upstream_is_calm(upstream))
        upstream_spread(upstream);
    open_spare(upstream);
}

void upstream_resolved(struct upstream *upstream, const struct address *address)
{
    upstream_route_to(upstream, address);
    if (upstream->failures == 0)
        upstream_connected(upstream);
    upstream->retry_ns = upstream->group->loop->now; /* what failed was the lookup */
    group_care(upstream->group);
}

void upstream_hasten(struct upstream *upstream)
{
    LIST_EACH (struct connection, connection, &upstream->connections, link)
        connection_hasten(connection);
}

bool upstream_look_up_route(struct upstream *upstream)
{
    struct address source = {0};
    enum status status = STATUS_SYSTEM;
    if (upstream->routed.any.sa_family != AF_UNSPEC)
        status = socket_source(&upstream->routed, &source);
    if (status == STATUS_FULL)
        return false; /* what was known holds */
    const bool has_route = status == STATUS_OK;
    const bool is_same = has_route == upstream->has_route &&
                         (!has_route || address_equal(&source, &upstream->source));
    upstream->has_route = has_route;
    upstream->source = source;
    return !is_same;
}

void upstream_route_to(struct upstream *upstream, const struct address *address)
{
    if (upstream->routed.any.sa_family != AF_UNSPEC && address_equal(&upstream->routed, address))
        return;
    upstream->routed = *address;
    (void)upstream_look_up_route(upstream);
}

void upstream_start_over(struct upstream *upstream)
{
    LIST_EACH (struct connection, connection, &upstream->connections, link)
        stream_close(&connection->stream, FAILURE_NETWORK_CHANGED);
    LIST_EACH (struct connection, lane, &upstream->lanes, link)
        stream_close(&lane->stream, FAILURE_NETWORK_CHANGED);
    metric_add(&upstream->metrics->network_changes, 1);
    upstream->failures = 0;
    upstream->retry_ns = upstream->group->loop->now;
    upstream->attempted_ns = 0;
}

void upstream_set_idle(struct upstream *upstream, uint64_t duration_ns)
{
    assert(duration_ns > 0);
    const uint64_t configured_ns = upstream->group->config->timeouts.idle_ns;
    const uint64_t idle_ns = duration_ns < configured_ns ? duration_ns : configured_ns;
    upstream->idle.duration_ns = idle_ns;
}

enum status upstream_open(struct upstream *upstream, struct group *group, size_t index,
                          const struct group_settings *settings)
{
    const struct upstream_config *config = &settings->config->upstreams[index];
    TRY(tls_client_open(config, settings->trusts[index], &upstream->tls));
    upstream->group = group;
    upstream->index = index;
    upstream->config = config;
    upstream->metrics = &settings->metrics->upstreams[index];
    list_init(&upstream->connections);
    list_init(&upstream->lanes);
    times_init(&upstream->times);
    self_check_init(upstream);
    loop_add_queue(group->loop, &upstream->idle, settings->config->timeouts.idle_ns,
                   connection_on_deadline);
    loop_add_queue(group->loop, &upstream->late,
                   times_late_ns(&upstream->times, request_ns(upstream)), connection_on_late);
    set_down(upstream, false);
    if (config->host) {
        set_down(upstream, true);
        TRY(name_open(upstream, &upstream->name));
    } else {
        upstream_route_to(upstream, &config->address);
    }
    return STATUS_OK;
}

void upstream_close(struct upstream *upstream)
{
    if (!upstream->tls)
        return;
    request_cancel(&upstream->self_check.request);
    deadline_cancel(&upstream->self_check.deadline);
    while (!list_is_empty(&upstream->connections))
        connection_destroy(CONTAINER_OF(upstream->connections.next, struct connection, link));
    while (!list_is_empty(&upstream->lanes))
        connection_destroy(CONTAINER_OF(upstream->lanes.next, struct connection, link));
    loop_remove_queue(&upstream->idle);
    loop_remove_queue(&upstream->late);
    assert(upstream->in_flight == 0);
    name_close(upstream->name);
    tls_client_close(upstream->tls);
}
