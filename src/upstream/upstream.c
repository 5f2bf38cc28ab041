// SPDX-License-Identifier: Apache-2.0
/* One upstream: its health, its times, and which of its connections takes a request.
 *
 * Health: a failure that cost a query time (a timeout) takes the upstream down at once; one that
 * was told at once (refused, closed) may be chance, so only the second in a row does. While it is
 * down queries go elsewhere if they can. After a back-off that doubles, with jitter, a connection
 * without any query finds out whether the upstream is back: no client pays for the trial.
 *
 * Times: a request is late when it takes clearly longer than 19 of 20 do (p95), and silence is a
 * dead path after a multiple of that. p95 is followed by steps: an answer that took longer lifts
 * it, one that did not lowers it by a nineteenth as much. Only the first answer of a turn counts,
 * so that the flood at the end of a stall is one sample and not hundreds.
 *
 * Limits: an upstream that twice closed a busy connection after about the same number of answers
 * will do so again. The next connection takes no more than that, and its successor is opened when
 * half of them are used.
 *
 * Thread: one worker.   Owner: the group.
 * RFC:    7858 3.4 (reuse), 9520 3.3 (no hammering of a dead server). */
#include "upstream/internal.h"
#include "upstream/names.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>

enum {
    BACKOFF_FIRST_MS = 100,
    BACKOFF_MAX_MS = 30000,
    BACKOFF_JITTER_PERCENT = 25, /* either way: a fleet must not come back in step */
    P95_STEP = 32,               /* an answer that is late lifts the estimate by this part of it */
    LIMIT_MIN = 8,               /* answers on a connection; below it is chance */
    DEAD_P95 = 16,               /* times p95: no answer takes that long */
    LOOP_BACKOFF_MS = 60000,     /* until somebody has changed the configuration */
};

#define P95_MIN_NS (1 * NANOSECONDS_PER_MILLISECOND) /* below it chance rules */
#define LATE_UNMEASURED_NS (250 * NANOSECONDS_PER_MILLISECOND)
#define LATE_MARGIN_NS (2 * NANOSECONDS_PER_MILLISECOND) /* over p95 and a quarter: chance */
#define LATE_MIN_NS (10 * NANOSECONDS_PER_MILLISECOND)   /* a pause of a busy host is no stall */
#define DEAD_MIN_NS (500 * NANOSECONDS_PER_MILLISECOND)  /* TCP has sent a lost packet again */

static uint64_t backoff_ns(struct upstream *upstream)
{
    uint64_t backoff_ms = BACKOFF_FIRST_MS;
    for (uint32_t i = 1; i < upstream->failures && backoff_ms < BACKOFF_MAX_MS; i++)
        backoff_ms *= 2;
    if (backoff_ms > BACKOFF_MAX_MS)
        backoff_ms = BACKOFF_MAX_MS;
    if (upstream->last_failure == FAILURE_LOOP)
        backoff_ms = LOOP_BACKOFF_MS;
    const uint64_t jitter_ms = backoff_ms * BACKOFF_JITTER_PERCENT / 100;
    backoff_ms = backoff_ms - jitter_ms + group_random(upstream->group, 2 * jitter_ms + 1);
    return backoff_ms * NANOSECONDS_PER_MILLISECOND;
}

static void set_down(struct upstream *upstream, bool down)
{
    upstream->down = down;
    if (down)
        upstream->loop_check.is_done = false;
    metric_set(&upstream->metrics->up, !down);
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
                      failure == FAILURE_LOOP ? LOG_LEVEL_ERROR : LOG_LEVEL_WARNING,
                      "upstream_failed", "upstream", upstream->config->label, "cause",
                      failure_text(failure), "detail", detail[0] ? detail : NULL, "failures",
                      failures, "state", upstream->down ? "down" : "up", NULL);
}

void upstream_failed(struct upstream *upstream, enum failure failure, const char *detail)
{
    assert(failure != FAILURE_NONE && detail);
    upstream->failures++;
    upstream->last_failure = failure;
    if (upstream->down || costs_time(failure) || failure == FAILURE_LOOP ||
        upstream->failures > 1) {
        set_down(upstream, true);
        upstream->is_missed = true;
        upstream->retry_ns = upstream->group->loop->now + backoff_ns(upstream);
    }
    log_failure(upstream, failure, detail);
}

bool upstream_is_loop(const struct upstream *upstream)
{
    return upstream->down && upstream->last_failure == FAILURE_LOOP &&
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

/* 19 steps down are one step up: at rest when 19 of 20 answers come within p95. */
static void measure_p95(struct upstream *upstream, uint64_t rtt_ns)
{
    const uint64_t step_ns = upstream->p95_ns / P95_STEP;
    if (upstream->p95_ns == 0)
        upstream->p95_ns = rtt_ns + rtt_ns / 4;
    else if (rtt_ns > upstream->p95_ns)
        upstream->p95_ns += step_ns;
    else
        upstream->p95_ns -= step_ns / 19;
    if (upstream->p95_ns < P95_MIN_NS)
        upstream->p95_ns = P95_MIN_NS;
}

static uint64_t late_ns(const struct upstream *upstream)
{
    const uint64_t request_ns = upstream->group->config->timeouts.request_ns;
    uint64_t late_ns = LATE_UNMEASURED_NS;
    if (upstream->p95_ns > 0)
        late_ns = upstream->p95_ns + upstream->p95_ns / 4 + LATE_MARGIN_NS;
    if (late_ns < LATE_MIN_NS)
        late_ns = LATE_MIN_NS;
    return late_ns < request_ns ? late_ns : request_ns;
}

uint64_t upstream_dead_ns(const struct upstream *upstream)
{
    const uint64_t request_ns = upstream->group->config->timeouts.request_ns;
    const uint64_t dead_ns = upstream->p95_ns * DEAD_P95;
    if (upstream->p95_ns == 0 || dead_ns >= request_ns || DEAD_MIN_NS >= request_ns)
        return request_ns;
    return dead_ns > DEAD_MIN_NS ? dead_ns : DEAD_MIN_NS;
}

void upstream_answered(struct upstream *upstream, uint64_t rtt_ns)
{
    const uint64_t now = upstream->group->loop->now;
    upstream->failures = 0;
    upstream_is_back(upstream);
    if (upstream->measured_ns == now)
        return;
    upstream->measured_ns = now;
    measure_p95(upstream, rtt_ns);
    upstream->late.duration_ns = late_ns(upstream);
    /* The first sample counts whole, later ones by an eighth (as in RFC 6298 2). */
    if (upstream->rtt_ns == 0)
        upstream->rtt_ns = rtt_ns;
    else
        upstream->rtt_ns += rtt_ns / 8 - upstream->rtt_ns / 8;
    metric_set(&upstream->metrics->rtt_ns, upstream->rtt_ns);
}

/* --- Connections --- */

static bool has_suspect(const struct upstream *upstream)
{
    LIST_EACH (struct connection, connection, &upstream->connections, link)
        if (connection->suspect_since_ns > 0)
            return true;
    return false;
}

void upstream_opened(struct upstream *upstream)
{
    if (has_suspect(upstream))
        group_recovered(upstream->group);
    upstream_connected(upstream);
}

/* How much better a connection with room is than others: a suspect one is the last choice, before
 * that one which has enough, and the one closest to being ready is the best. */
static int rank(const struct connection *connection)
{
    if (connection->suspect_since_ns > 0)
        return -2;
    return connection_is_used_up(connection) ? -1 : (int)connection->state;
}

/* The best one with room other than `not_on`, and among equals the one opened first, so that a
 * second connection is used only while the first is full and may then go idle. */
static struct connection *find_room(const struct upstream *upstream,
                                    const struct connection *not_on)
{
    struct connection *best = NULL;
    LIST_EACH (struct connection, connection, &upstream->connections, link) {
        if (connection == not_on || !connection_has_room(connection) ||
            (best && rank(connection) <= rank(best)))
            continue;
        best = connection;
        if (rank(best) == CONNECTION_READY)
            break;
    }
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

bool upstream_has_connection(const struct upstream *upstream)
{
    return count_connections(upstream) > 0;
}

bool upstream_is_ready(const struct upstream *upstream)
{
    const struct connection *connection = find_room(upstream, NULL);
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

bool upstream_is_busy_beside(const struct upstream *upstream, const struct connection *not_on)
{
    const struct group *group = upstream->group;
    const size_t others = group->config->limits.upstream_connections - 1;
    const size_t slots = group->config->limits.upstream_requests * others;
    size_t taken = 0;
    LIST_EACH (struct connection, connection, &upstream->connections, link)
        if (connection != not_on && connection_takes_requests(connection))
            taken += connection->in_flight + connection->abandoned;
    return taken > 0 && (taken + 1) * 2 > slots;
}

/* A new connection that could not even begin is the upstream's failure, unless we are out of
 * descriptors or memory ourselves. */
static enum status open_connection(struct upstream *upstream, enum failure *failure)
{
    if (!group_may_connect(upstream->group)) {
        *failure = FAILURE_LOCAL;
        metric_add(&upstream->metrics->connects_denied, 1);
        return STATUS_FULL;
    }
    upstream->attempted_ns = upstream->group->loop->now;
    const enum status status = connection_open(upstream, failure);
    if (status != STATUS_OK) {
        metric_add(&upstream->metrics->failures[*failure], 1);
        if (*failure != FAILURE_LOCAL)
            upstream_failed(upstream, *failure, "");
    }
    return status;
}

static struct connection *last_connection(const struct upstream *upstream)
{
    assert(!list_is_empty(&upstream->connections));
    return CONTAINER_OF(upstream->connections.previous, struct connection, link);
}

enum status upstream_submit_beside(struct upstream *upstream, const struct connection *not_on,
                                   struct request *request, enum failure *failure)
{
    struct connection *connection = find_room(upstream, not_on);
    const bool has_enough = connection && connection_is_used_up(connection);
    if (connection && !has_enough && connection_submit(connection, request) == STATUS_OK)
        return STATUS_OK;
    *failure = FAILURE_OVERLOADED;
    if (count_connections(upstream) < upstream->group->config->limits.upstream_connections &&
        open_connection(upstream, failure) == STATUS_OK) {
        *failure = FAILURE_LOCAL;
        return connection_submit(last_connection(upstream), request);
    }
    /* What is too much comes back when it is closed, and is asked again: better than not at all. */
    return has_enough ? connection_submit(connection, request) : STATUS_FULL;
}

enum status upstream_submit(struct upstream *upstream, struct request *request,
                            enum failure *failure)
{
    return upstream_submit_beside(upstream, NULL, request, failure);
}

void upstream_open_ahead(struct upstream *upstream)
{
    enum failure failure;
    if (open_connection(upstream, &failure) != STATUS_OK)
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

void upstream_open_second(struct upstream *upstream)
{
    const uint32_t max = upstream->group->config->limits.upstream_connections;
    if (count_connections(upstream) < (max < 2 ? max : 2))
        upstream_open_ahead(upstream);
}

void upstream_try_again(struct upstream *upstream, size_t connections_max)
{
    assert(upstream->down);
    upstream->retry_ns = upstream->group->loop->now + backoff_ns(upstream);
    if (count_connections(upstream) < connections_max)
        upstream_open_ahead(upstream);
}

void upstream_foresee_close(struct upstream *upstream, uint64_t requests)
{
    if (requests * 2 >= upstream->request_limit && count_connections(upstream) < 2)
        upstream_open_ahead(upstream);
}

void upstream_learn_limit(struct upstream *upstream, uint64_t answers)
{
    const uint64_t before = upstream->closed_after;
    const uint64_t difference = answers > before ? answers - before : before - answers;
    assert(answers > 0);
    upstream->closed_after = answers;
    if (answers >= LIMIT_MIN && difference <= before / 8)
        upstream->request_limit = answers < before ? answers : before;
    else
        upstream->request_limit = 0;
}

void upstream_resolved(struct upstream *upstream, const struct address *address)
{
    upstream_route_to(upstream, address);
    if (upstream->failures == 0)
        set_down(upstream, false);
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
    loop_check_init(upstream);
    loop_add_queue(group->loop, &upstream->idle, settings->config->timeouts.idle_ns,
                   connection_on_deadline);
    loop_add_queue(group->loop, &upstream->late, late_ns(upstream), connection_on_late);
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
    request_cancel(&upstream->loop_check.request);
    deadline_cancel(&upstream->loop_check.deadline);
    while (!list_is_empty(&upstream->connections))
        connection_destroy(CONTAINER_OF(upstream->connections.next, struct connection, link));
    loop_remove_queue(&upstream->idle);
    loop_remove_queue(&upstream->late);
    assert(upstream->in_flight == 0);
    name_close(upstream->name);
    tls_client_close(upstream->tls);
}
