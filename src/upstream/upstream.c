// SPDX-License-Identifier: Apache-2.0
/* One upstream: its health, its round-trip time, and which of its connections takes a request.
 *
 * Health: a failure that cost a query time (a timeout) takes the upstream down at once; one that
 * was told at once (refused, closed) may be chance, so only the second in a row does. While it is
 * down queries go elsewhere if they can. After a back-off that doubles, with jitter, a connection
 * without any query finds out whether the upstream is back: no client pays for the trial.
 *
 * Thread: one worker.   Owner: the group.
 * RFC:    7858 3.4 (reuse), 9520 3.3 (no hammering of a dead server). */
#include "upstream/internal.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>

enum {
    BACKOFF_FIRST_MS = 100,
    BACKOFF_MAX_MS = 30000,
    BACKOFF_JITTER_PERCENT = 25, /* either way: a fleet must not come back in step */
};

static uint64_t backoff_ns(struct upstream *upstream)
{
    uint64_t backoff_ms = BACKOFF_FIRST_MS;
    for (uint32_t i = 1; i < upstream->failures && backoff_ms < BACKOFF_MAX_MS; i++)
        backoff_ms *= 2;
    if (backoff_ms > BACKOFF_MAX_MS)
        backoff_ms = BACKOFF_MAX_MS;
    const uint64_t jitter_ms = backoff_ms * BACKOFF_JITTER_PERCENT / 100;
    backoff_ms = backoff_ms - jitter_ms + group_random(upstream->group, 2 * jitter_ms + 1);
    return backoff_ms * NANOSECONDS_PER_MILLISECOND;
}

static void set_down(struct upstream *upstream, bool down)
{
    upstream->down = down;
    metric_set(&upstream->metrics->up, !down);
}

static bool costs_time(enum failure failure)
{
    return failure == FAILURE_CONNECT_TIMEOUT || failure == FAILURE_HANDSHAKE_TIMEOUT ||
           failure == FAILURE_REQUEST_TIMEOUT || failure == FAILURE_STALLED;
}

static void log_failure(struct upstream *upstream, enum failure failure, const char *detail)
{
    char failures[16];
    snprintf(failures, sizeof(failures), "%" PRIu32, upstream->failures);
    log_event_limited(&upstream->log_limit, upstream->group->loop->now, LOG_LEVEL_WARNING,
                      "upstream_failed", "upstream", upstream->config->label, "cause",
                      failure_text(failure), "detail", detail[0] ? detail : NULL, "failures",
                      failures, "state", upstream->down ? "down" : "up", NULL);
}

void upstream_failed(struct upstream *upstream, enum failure failure, const char *detail)
{
    assert(failure != FAILURE_NONE && detail);
    upstream->failures++;
    upstream->last_failure = failure;
    if (upstream->down || costs_time(failure) || upstream->failures > 1) {
        set_down(upstream, true);
        upstream->retry_ns = upstream->group->loop->now + backoff_ns(upstream);
    }
    log_failure(upstream, failure, detail);
}

void upstream_connected(struct upstream *upstream)
{
    if (!upstream->down)
        return;
    set_down(upstream, false);
    log_event(LOG_LEVEL_INFO, "upstream_recovered", "upstream", upstream->config->label, NULL);
    group_recovered(upstream->group);
}

void upstream_answered(struct upstream *upstream, uint64_t rtt_ns)
{
    upstream->failures = 0;
    upstream_connected(upstream);
    /* The first sample counts whole, later ones by an eighth (as in RFC 6298 2). */
    if (upstream->rtt_ns == 0)
        upstream->rtt_ns = rtt_ns;
    else
        upstream->rtt_ns += rtt_ns / 8 - upstream->rtt_ns / 8;
    metric_set(&upstream->metrics->rtt_ns, upstream->rtt_ns);
}

/* --- Connections --- */

static struct connection *next_connection(const struct upstream *upstream, struct list *link)
{
    return link == &upstream->connections ? NULL : CONTAINER_OF(link, struct connection, link);
}

/* The one with room that is closest to being ready, and among equals the one opened first, so that
 * a second connection is used only while the first is full and may then go idle. */
static struct connection *find_room(const struct upstream *upstream)
{
    struct connection *best = NULL;
    for (struct connection *connection = next_connection(upstream, upstream->connections.next);
         connection; connection = next_connection(upstream, connection->link.next))
        if (connection_has_room(connection) && (!best || connection->state > best->state))
            best = connection;
    return best;
}

/* Those that take requests; one that drains is on its way out and does not count. */
static size_t count_connections(const struct upstream *upstream)
{
    size_t count = 0;
    for (struct connection *connection = next_connection(upstream, upstream->connections.next);
         connection; connection = next_connection(upstream, connection->link.next))
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
    const struct connection *connection = find_room(upstream);
    return connection && connection->state == CONNECTION_READY;
}

/* A new connection that could not even begin is the upstream's failure, unless we are out of
 * descriptors or memory ourselves. */
static enum status open_connection(struct upstream *upstream, enum failure *failure)
{
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

enum status upstream_submit(struct upstream *upstream, struct request *request,
                            enum failure *failure)
{
    struct connection *connection = find_room(upstream);
    if (connection && connection_submit(connection, request) == STATUS_OK)
        return STATUS_OK;
    if (count_connections(upstream) >= upstream->group->config->limits.upstream_connections) {
        *failure = FAILURE_OVERLOADED;
        return STATUS_FULL;
    }
    TRY(open_connection(upstream, failure));
    *failure = FAILURE_LOCAL;
    return connection_submit(last_connection(upstream), request);
}

void upstream_try_again(struct upstream *upstream)
{
    assert(upstream->down);
    upstream->retry_ns = upstream->group->loop->now + backoff_ns(upstream);
    enum failure failure;
    if (!upstream_has_connection(upstream) && open_connection(upstream, &failure) != STATUS_OK)
        upstream->last_failure = failure;
}

void upstream_hasten(struct upstream *upstream)
{
    for (struct connection *connection = next_connection(upstream, upstream->connections.next);
         connection; connection = next_connection(upstream, connection->link.next))
        connection_hasten(connection);
}

void upstream_set_idle(struct upstream *upstream, uint64_t duration_ns)
{
    assert(duration_ns > 0);
    const uint64_t configured_ns = upstream->group->config->timeouts.idle_ns;
    const uint64_t idle_ns = duration_ns < configured_ns ? duration_ns : configured_ns;
    if (idle_ns == upstream->idle.duration_ns)
        return;
    upstream->idle.duration_ns = idle_ns;
    /* All are taken out first: those of the old duration may be due after the new ones. */
    struct list idle;
    list_init(&idle);
    list_append_all(&idle, &upstream->idle.armed);
    struct list *link;
    while ((link = list_take_first(&idle)))
        deadline_arm(&upstream->idle, CONTAINER_OF(link, struct deadline, link),
                     upstream->group->loop->now);
}

enum status upstream_open(struct upstream *upstream, struct group *group, size_t index,
                          const struct group_settings *settings)
{
    const struct upstream_config *config = &settings->config->upstreams[index];
    const struct tls_settings tls_settings = {
        .trust = settings->trusts[index],
        .name = config->name,
        .pins = config->pins,
        .pin_count = config->pin_count,
    };
    TRY(tls_client_open(&tls_settings, &upstream->tls));
    upstream->group = group;
    upstream->index = index;
    upstream->config = config;
    upstream->metrics = &settings->metrics->upstreams[index];
    list_init(&upstream->connections);
    deadline_queue_init(&upstream->idle, settings->config->timeouts.idle_ns,
                        connection_on_deadline);
    loop_add_queue(group->loop, &upstream->idle);
    set_down(upstream, false);
    return STATUS_OK;
}

void upstream_close(struct upstream *upstream)
{
    if (!upstream->tls)
        return;
    while (!list_is_empty(&upstream->connections))
        connection_destroy(next_connection(upstream, upstream->connections.next));
    loop_remove_queue(&upstream->idle);
    assert(upstream->in_flight == 0);
    tls_client_close(upstream->tls);
}
