// SPDX-License-Identifier: Apache-2.0
/* One upstream: its connections, and which of them takes a request.
 *
 * Trouble: each connection that ends with questions aboard allows more connections for a while, so
 * that the next end hits few, up to what the server takes (admission.c).
 *
 * Thread: one worker.   Owner: the group.
 * RFC:    7858 3.4 (reuse). */
#include "upstream/server.h"

#include <assert.h>

#include "base/numbers.h"
#include "upstream/dial.h"
#include "upstream/silence.h"

enum {
    SPARES_STEP = 4,      /* more connections for each that ends */
    SPARES_MAX = 128,     /* of one upstream */
    SPARES_ALL_MAX = 256, /* of all */
    OPENING_MIN = 8,      /* connections at a time: handshakes are dear */
    RIDERS_MAX = 16,      /* on a connection in trouble, while more are to come */
    RIDERS_FIRST = 2,     /* aboard in the first moment of calm */
    UNEQUAL = 4,          /* connections in trouble differ by fewer than so many riders */
};

/* Of rtt for one more at a time: they take long. */
#define OPENING_STEP_NS (2 * NANOSECONDS_PER_MILLISECOND)
#define CALM_NS (10 * NANOSECONDS_PER_SECOND)             /* after the last end of a connection */
#define CALM_STEP_NS (250 * NANOSECONDS_PER_MILLISECOND)  /* a round trip or more */
#define WARM_AGAIN_NS (100 * NANOSECONDS_PER_MILLISECOND) /* after one that answered nothing */

static bool may_grow(const struct upstream *upstream);

/* --- Connections --- */

struct tally tally_of(const struct list *connections)
{
    struct tally tally = {0};
    LIST_EACH (struct connection, connection, connections, link) {
        const bool takes = connection_takes_requests(connection);
        const bool opens = takes && connection->state < CONNECTION_READY;
        const uint64_t age_ns = connection->path->loop->now - connection->begun_ns;
        tally.all++;
        tally.taking += takes;
        tally.opening += opens;
        tally.main += takes && connection->use == CONNECTION_MAIN;
        tally.trials += opens || (takes && connection_is_probed(connection));
        tally.old += takes && !opens && age_ns > 2 * TOGETHER_NS;
        tally.open += connection->state >= CONNECTION_READY;
        tally.silent += connection->silent_since_ns > 0;
        tally.busy += connection->in_flight > 0;
        tally.confined += connection->is_confined;
    }
    return tally;
}

/* Of those for all questions, in calm. */
static size_t main_max(const struct upstream *upstream)
{
    return upstream->path.config->limits.upstream_connections;
}

/* How many connections it may have, as far as is known. */
static size_t share_of(const struct upstream *upstream)
{
    return admission_share(upstream->admission, upstream->path.loop->now);
}

bool upstream_is_calm(const struct upstream *upstream)
{
    return upstream->path.loop->now >= upstream->calm_ns;
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

static bool is_better(const struct connection *connection, const struct connection *best,
                      bool by_burden)
{
    if (!best || rank(connection) != rank(best))
        return !best || rank(connection) > rank(best);
    return by_burden && burden(connection) < burden(best);
}

/* How many the first connection is to have aboard before the next is used: in calm all. Behind
 * trouble twice as many with each step, for TCP sends no more than twice of what it sent before in
 * a round trip, and has what is more wait. */
static uint64_t riders_of_first(const struct upstream *upstream)
{
    if (!upstream_is_calm(upstream))
        return 1;
    const uint64_t steps = (upstream->path.loop->now - upstream->calm_ns) / CALM_STEP_NS;
    return steps < 12 ? (uint64_t)RIDERS_FIRST << steps : UINT64_MAX;
}

/* The best one with room. Among equals in calm the one opened first, so that a second connection is
 * used only while the first is full and may then go idle; in trouble the one with the fewest
 * aboard.
 */
static struct connection *find_best(const struct upstream *upstream)
{
    struct connection *best = NULL;
    const uint64_t riders = riders_of_first(upstream);
    LIST_EACH (struct connection, connection, &upstream->connections, link) {
        if (!connection_has_room(connection) || !is_better(connection, best, riders < UINT64_MAX))
            continue;
        best = connection;
        if (rank(best) == CONNECTION_READY && connection_aboard(best) < riders)
            break;
    }
    return best;
}

/* The same; in trouble none that has many aboard while more connections are to come. */
static struct connection *find_room(const struct upstream *upstream)
{
    struct connection *best = find_best(upstream);
    const bool is_crowded = best && !upstream_is_calm(upstream) &&
                            connection_aboard(best) >= RIDERS_MAX && may_grow(upstream);
    return is_crowded ? NULL : best;
}

bool upstream_has_connection(const struct upstream *upstream)
{
    return tally_of(&upstream->connections).taking > 0;
}

bool upstream_is_ready(const struct upstream *upstream)
{
    const struct connection *connection = find_room(upstream);
    return connection && rank(connection) == CONNECTION_READY;
}

/* Connects to the configured address, or looks for one of the host first. NULL when that cannot
 * even begin. */
static struct connection *begin_connection(struct upstream *upstream, enum connection_use use,
                                           enum failure *failure)
{
    struct connection *connection;
    struct list *owner = use == CONNECTION_LANE ? &upstream->lanes : &upstream->connections;
    const struct address *peer = upstream->name ? NULL : &upstream->config->address;
    if (connection_open(&upstream->path, use, peer, &connection, failure) != STATUS_OK)
        return NULL;
    if (upstream->name && dial_begin(connection, upstream->name, failure) != STATUS_OK) {
        connection_destroy(connection);
        return NULL;
    }
    list_append(owner, &connection->link);
    connection->ticket = admission_enter(upstream->admission);
    return connection;
}

/* A new connection that could not even begin is the upstream's failure, unless we are out of
 * descriptors or memory ourselves. */
struct connection *upstream_open_connection(struct upstream *upstream, enum connection_use use,
                                            enum failure *failure)
{
    *failure = FAILURE_OVERLOADED;
    const size_t count = tally_of(&upstream->connections).taking + tally_of(&upstream->lanes).all;
    if (count >= share_of(upstream) || upstream->path.is_leaving)
        return NULL;
    if (!upstream->events->may_connect(upstream)) {
        metric_add(&upstream->path.metrics->connects_denied, 1);
        return NULL;
    }
    upstream->attempted_ns = upstream->path.loop->now;
    struct connection *connection = begin_connection(upstream, use, failure);
    if (!connection) {
        metric_add(&upstream->path.metrics->failures[*failure], 1);
        if (*failure != FAILURE_LOCAL)
            path_failed(&upstream->path, *failure, "");
    }
    return connection;
}

/* --- Trouble --- */

/* How many it may have for all questions: half of what it takes is left to lanes. */
static size_t shared_max(const struct upstream *upstream)
{
    return least_of(1 + (size_t)upstream->spares, most_of(share_of(upstream) / 2, 1));
}

size_t upstream_opening_max(const struct upstream *upstream)
{
    return OPENING_MIN + upstream->path.times.rtt_ns / OPENING_STEP_NS;
}

size_t upstream_lanes_max(const struct upstream *upstream)
{
    const size_t share = share_of(upstream);
    const size_t shared = shared_max(upstream);
    return share > shared ? share - shared : 1;
}

/* One more, if so many are allowed by now. */
static void open_spare(struct upstream *upstream)
{
    enum failure failure;
    const struct tally tally = tally_of(&upstream->connections);
    if (tally.taking < shared_max(upstream) && tally.opening < upstream_opening_max(upstream))
        (void)upstream_open_connection(
            upstream, tally.taking > 0 ? CONNECTION_SPARE : CONNECTION_MAIN, &failure);
}

static void allow_spares(struct upstream *upstream, unsigned count)
{
    assert(count > 0);
    const size_t most =
        least_of(SPARES_MAX, SPARES_ALL_MAX / upstream->path.snapshot->upstream_count);
    upstream->spares = (uint16_t)least_of(upstream->spares + count, most);
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
    const struct tally tally = tally_of(&upstream->connections);
    return tally.taking < shared_max(upstream) || tally.opening > 0;
}

bool upstream_is_crowded(const struct upstream *upstream)
{
    return !upstream_is_calm(upstream) && path_is_usable(&upstream->path) && !find_room(upstream) &&
           may_grow(upstream);
}

/* The server takes fewer than there are, or other workers need some of them. */
static void drain_surplus(struct upstream *upstream)
{
    if (share_of(upstream) == SIZE_MAX)
        return;
    const struct tally tally = tally_of(&upstream->connections);
    size_t count = tally.taking - tally.opening; /* they may be refused */
    LIST_EACH (struct connection, connection, &upstream->connections, link)
        if (count > shared_max(upstream) && connection->state == CONNECTION_READY) {
            connection_drain(connection);
            count--;
        }
}

size_t upstream_spares_ceiling(void)
{
    return SPARES_ALL_MAX * connection_ceiling(SLOTS_STEP);
}

static void spread(struct upstream *upstream)
{
    if (upstream_is_calm(upstream))
        upstream->spares = 0;
    allow_spares(upstream, SPARES_STEP);
    upstream->calm_ns = upstream->path.loop->now + CALM_NS;
}

/* --- Requests --- */

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
        /* With none on its way there is nothing to wait for. */
        const bool is_one_to_come = tally_of(&upstream->connections).opening > 0;
        connection = is_one_to_come ? find_room(upstream) : find_best(upstream);
        return connection ? connection_submit(connection, request) : STATUS_AGAIN;
    }
    if (tally_of(&upstream->connections).main >= main_max(upstream))
        return STATUS_FULL;
    connection = upstream_open_connection(upstream, CONNECTION_MAIN, failure);
    if (!connection)
        return *failure == FAILURE_OVERLOADED ? STATUS_AGAIN : STATUS_NOT_FOUND;
    *failure = FAILURE_LOCAL;
    return connection_submit(connection, request);
}

void upstream_open_ahead(struct upstream *upstream)
{
    enum failure failure;
    /* It may be that it takes no more connections: that is not why it cannot be asked. */
    if (upstream_open_connection(upstream, CONNECTION_MAIN, &failure) ||
        failure == FAILURE_OVERLOADED)
        return;
    upstream->path.last_failure = failure;
    if (failure == FAILURE_LOCAL) /* else it was told */
        upstream->events->on_failed(upstream, failure);
}

void upstream_warm(struct upstream *upstream)
{
    const struct connection *best = find_best(upstream);
    const uint64_t rested_ns = upstream->path.loop->now - upstream->attempted_ns;
    const bool was_good = upstream->last_answers > 0;
    if (best && rank(best) < 0)
        upstream_open_second(upstream);
    else if (!upstream_has_connection(upstream) && (was_good || rested_ns >= WARM_AGAIN_NS))
        upstream_open_ahead(upstream);
}

/* Each doubt has its trial: the main connections of those before, with nothing aboard, make room.
 */
static void drain_one_too_many(struct upstream *upstream)
{
    if (tally_of(&upstream->connections).main < main_max(upstream))
        return;
    LIST_EACH (struct connection, connection, &upstream->connections, link)
        if (connection->use == CONNECTION_MAIN && connection->state == CONNECTION_READY &&
            connection->in_flight == 0 && !connection_is_probed(connection)) {
            connection_drain(connection);
            return;
        }
}

void upstream_try_again(struct upstream *upstream, size_t connections_max)
{
    assert(!path_is_usable(&upstream->path));
    path_back_off(&upstream->path);
    if (tally_of(&upstream->connections).trials >= connections_max)
        return;
    drain_one_too_many(upstream);
    upstream_open_ahead(upstream);
}

void upstream_open_second(struct upstream *upstream)
{
    const struct tally tally = tally_of(&upstream->connections);
    if (tally.opening > 0 || main_max(upstream) < 2)
        return;
    if (tally.taking < 2) {
        upstream_open_ahead(upstream);
        return;
    }
    /* Two are silent: where answers come in the order of the questions more are needed. */
    if (upstream_is_calm(upstream))
        spread(upstream);
    open_spare(upstream);
}

void upstream_hasten(struct upstream *upstream)
{
    LIST_EACH (struct connection, connection, &upstream->connections, link)
        connection_hasten(connection);
}

static void close_all(struct upstream *upstream, enum failure failure)
{
    LIST_EACH (struct connection, connection, &upstream->connections, link)
        stream_close(&connection->stream, failure);
    LIST_EACH (struct connection, lane, &upstream->lanes, link)
        stream_close(&lane->stream, failure);
}

void upstream_start_over(struct upstream *upstream)
{
    close_all(upstream, FAILURE_NETWORK_CHANGED);
    metric_add(&upstream->path.metrics->network_changes, 1);
    upstream->path.failures = 0;
    upstream->path.retry_ns = upstream->path.loop->now;
    upstream->attempted_ns = 0;
}

/* --- The addresses of a name --- */

void upstream_on_resolved(struct path *path, const struct address *address)
{
    struct upstream *upstream = upstream_of(path);
    route_to(&upstream->route, address);
    if (path->failures == 0)
        path_connected(path);
    path->retry_ns = path->loop->now; /* what failed was the lookup */
    upstream->events->on_care(upstream);
}

/* Those that are open to addresses which are the name's no longer. */
static void drain_old(struct upstream *upstream)
{
    LIST_EACH (struct connection, connection, &upstream->connections, link)
        if (connection->state == CONNECTION_READY && !name_has(upstream->name, &connection->peer))
            connection_drain(connection);
}

/* The old connections serve until there is a new one. */
void upstream_on_moved(struct path *path)
{
    struct upstream *upstream = upstream_of(path);
    bool has_old = false;
    bool has_new = false;
    LIST_EACH (const struct connection, connection, &upstream->connections, link) {
        if (connection->state != CONNECTION_READY || !connection_takes_requests(connection))
            continue;
        if (name_has(upstream->name, &connection->peer))
            has_new = true;
        else
            has_old = true;
    }
    if (has_old && has_new)
        drain_old(upstream);
    else if (has_old)
        upstream_open_ahead(upstream); /* and the old one is closed for it */
}

/* A connection to it is open; the name may have moved during its handshake. */
static void note_peer(struct upstream *upstream, const struct address *peer)
{
    if (!name_has(upstream->name, peer)) {
        upstream_on_moved(&upstream->path);
        return;
    }
    name_connected(upstream->name, peer);
    route_to(&upstream->route, peer);
    drain_old(upstream);
}

/* --- What its connections tell --- */

/* Whether the end of this connection says that something is wrong with the upstream. One that was
 * open may have been closed for what was asked on it, unless that was our probe alone. */
static bool is_upstream_failure(const struct connection *connection, enum connection_state was,
                                enum failure failure)
{
    if (failure == FAILURE_NONE || failure == FAILURE_LOCAL || failure_is(failure, FAILURE_IS_OURS))
        return false;
    if (was < CONNECTION_READY || failure == FAILURE_SELF)
        return true;
    return connection->path->is_doubted && connection_is_probed(connection) &&
           connection_aboard(connection) == 0;
}

/* The server does not take as many connections: it has answered on others since this one was begun.
 */
static bool is_one_too_many(const struct connection *connection, enum connection_state was,
                            enum failure failure)
{
    return was < CONNECTION_READY &&
           (failure_is_close(failure) || failure == FAILURE_REFUSED_CONNECTION ||
            failure == FAILURE_CONNECT_TIMEOUT || failure == FAILURE_HANDSHAKE_TIMEOUT) &&
           connection->path->answered_sent_ns > connection->begun_ns;
}

/* Other workers have open connections to it, and it is not the first time that it was in vain:
 * once may be chance, for which nobody should give up any. */
static bool others_have_some(const struct upstream *upstream)
{
    const size_t ours = tally_of(&upstream->connections).open + tally_of(&upstream->lanes).open;
    return upstream->path.failures > 0 && admission_open(upstream->admission) > ours;
}

static const char *detail_of(const struct connection *connection, enum failure failure)
{
    if (failure == FAILURE_NAME_LOOKUP)
        return name_detail(upstream_of(connection->path)->name);
    return connection->stream.tls ? tls_error_text(connection->stream.tls) : "";
}

/* It was used by somebody, or by nobody. */
static void count_end(const struct connection *connection, enum failure failure, bool is_failure)
{
    struct upstream_metrics *metrics = connection->path->metrics;
    const uint32_t requests = connection_requests(connection);
    if (requests > 0)
        metric_add(&metrics->failures[failure], requests);
    else if (is_failure || failure == FAILURE_LOCAL || failure == FAILURE_REQUEST_TIMEOUT)
        metric_add(&metrics->failures[failure], 1);
    else
        metric_add(&metrics->idle_closes, 1);
}

/* It has ended with requests on it, which since then were silent; 0: not for its silence. For a
 * while they are spread over more connections. */
static void note_end(struct upstream *upstream, const struct connection *connection,
                     enum failure failure, uint64_t silent_since_ns)
{
    ends_note(&upstream->ends, upstream->path.loop->now,
              tally_of(&upstream->connections).old + tally_of(&upstream->lanes).old);
    if (connection->use != CONNECTION_LANE)
        spread(upstream);
    path_ended(&upstream->path, failure, silent_since_ns);
    if (path_is_usable(&upstream->path))
        open_spare(upstream);
}

static void on_closed(struct connection *connection, enum connection_state was,
                      enum failure failure)
{
    struct upstream *upstream = upstream_of(connection->path);
    const bool is_refused = is_one_too_many(connection, was, failure);
    const bool is_failure = !is_refused && is_upstream_failure(connection, was, failure);
    upstream->last_answers = connection->answers;
    dial_end(connection);
    if (upstream->name && (is_failure || failure == FAILURE_REQUEST_TIMEOUT))
        name_failed(upstream->name, &connection->peer);
    count_end(connection, failure, is_failure);
    if (is_refused ||
        (was < CONNECTION_READY && failure_is_close(failure) && others_have_some(upstream)))
        admission_refused(upstream->admission, connection->ticket, connection->begun_ns,
                          upstream->path.loop->now);
    admission_leave(upstream->admission, was >= CONNECTION_READY);
    drain_surplus(upstream);
    if (is_failure)
        path_failed(&upstream->path, failure, detail_of(connection, failure));
    else if (failure == FAILURE_REQUEST_TIMEOUT)
        note_end(upstream, connection, failure, connection->silent_since_ns);
    else if (connection_requests(connection) > 0 && failure_is_close(failure) && !is_refused)
        note_end(upstream, connection, failure, 0);
    if (connection->requests > 0 || upstream->path.is_leaving)
        upstream->events->on_care(upstream);
}

/* The upstream may shake hands and answer nobody: the probe shows it. */
static void on_open(struct connection *connection)
{
    struct upstream *upstream = upstream_of(connection->path);
    admission_opened(upstream->admission, connection->begun_ns);
    if (upstream->name)
        note_peer(upstream, &connection->peer);
    if (upstream->path.is_doubted) {
        (void)connection_try(connection);
    } else if (connection->use == CONNECTION_LANE ||
               !self_check_begin(&upstream->self_check, connection)) {
        if (tally_of(&upstream->connections).silent > 0)
            upstream->events->on_back(upstream);
        path_connected(&upstream->path);
    }
}

static const struct connection_events connection_events = {.on_open = on_open,
                                                           .on_closed = on_closed};

/* --- What the path tells --- */

static void on_back(struct path *path)
{
    upstream_of(path)->events->on_back(upstream_of(path));
}

static void on_failed(struct path *path, enum failure failure)
{
    struct upstream *upstream = upstream_of(path);
    upstream->calm_ns = 0; /* it was no question that has ended its connections */
    if (path->down)
        self_check_forget(&upstream->self_check);
    upstream->events->on_failed(upstream, failure);
}

static void on_doubted(struct path *path)
{
    struct upstream *upstream = upstream_of(path);
    upstream_try_again(upstream, 1);
    LIST_EACH (struct connection, connection, &upstream->connections, link)
        if (connection_try(connection))
            break;
}

static const struct path_events path_events = {
    .on_back = on_back, .on_failed = on_failed, .on_doubted = on_doubted};

static void on_self_found(struct self_check *check)
{
    close_all(upstream_of(check->path), FAILURE_SELF);
}

/* --- Birth and death --- */

static void open_path(struct path *path, const struct upstream_settings *settings,
                      const struct upstream_config *config)
{
    path->events = &path_events;
    path->connection_events = &connection_events;
    path->loop = settings->loop;
    path->config = settings->config;
    path->snapshot = settings->snapshot;
    path->label = config->label;
    path->slot = config->slot;
    path->metrics = &settings->metrics->upstreams[config->slot];
    path->random = settings->random;
    path->waiting = settings->waiting;
    path->queues = settings->queues;
    path->scratch = settings->scratch;
    times_init(&path->times);
    const uint64_t request_ns = path->snapshot->timeouts.request_ns;
    loop_add_queue(path->loop, &path->idle, path->snapshot->timeouts.idle_ns,
                   connection_on_deadline);
    loop_add_queue(path->loop, &path->late, times_late_ns(&path->times, request_ns),
                   silence_on_late);
    path_set_down(path, config->host != NULL);
}

enum status upstream_open(struct upstream *upstream, const struct upstream_settings *settings,
                          const struct upstream_config *config)
{
    assert(config->slot < CONFIG_UPSTREAM_SLOTS);
    const size_t slot = config->slot;
    struct path *path = &upstream->path;
    list_init(&upstream->link);
    list_init(&upstream->connections);
    list_init(&upstream->lanes);
    deadline_init(&upstream->leave_deadline);
    upstream_metrics_clear(&settings->metrics->upstreams[slot]); /* it may have been another's */
    TRY(tls_client_open(config, config->trust, &path->tls));
    open_path(path, settings, config);
    upstream->alone.workers = 1;
    upstream->admission = settings->admissions ? &settings->admissions[slot] : &upstream->alone;
    upstream->group = settings->group;
    upstream->events = settings->events;
    upstream->config = config;
    upstream->self_check.path = path;
    upstream->self_check.key = settings->self_key;
    upstream->self_check.queue = settings->self_checks;
    upstream->self_check.on_found = on_self_found;
    self_check_init(&upstream->self_check);
    if (config->host)
        return name_open(path, config, settings->name_queues, settings->name_events,
                         &upstream->name);
    route_to(&upstream->route, &config->address);
    return STATUS_OK;
}

void upstream_reload(struct upstream *upstream, const struct upstream_config *config,
                     const struct snapshot *snapshot)
{
    assert(config->slot == upstream->path.slot);
    upstream->config = config;
    upstream->path.label = config->label;
    path_reload(&upstream->path, snapshot);
}

/* Nobody may read any more what waits for the handshake or for the socket, and it need not wait.
 * Those that are there in trouble alone are no loss, and others may soon have as many. */
static bool may_drain(const struct connection *connection)
{
    return connection->state >= CONNECTION_READY && connection->use == CONNECTION_MAIN &&
           stream_unsent(&connection->stream) == 0;
}

static void drain_all(struct list *connections)
{
    LIST_EACH (struct connection, connection, connections, link)
        if (may_drain(connection))
            connection_drain(connection);
        else
            stream_close(&connection->stream, FAILURE_REMOVED);
}

void upstream_leave(struct upstream *upstream)
{
    assert(!upstream->path.is_leaving);
    upstream->path.is_leaving = true;
    self_check_stop(&upstream->self_check);
    drain_all(&upstream->connections);
    drain_all(&upstream->lanes);
    name_stop(upstream->name);
}

void upstream_end_leaving(struct upstream *upstream)
{
    assert(upstream->path.is_leaving);
    close_all(upstream, FAILURE_REMOVED);
}

bool upstream_has_left(const struct upstream *upstream)
{
    assert(upstream->path.is_leaving);
    return list_is_empty(&upstream->connections) && list_is_empty(&upstream->lanes) &&
           upstream->path.in_flight == 0;
}

static void destroy_all(struct upstream *upstream, struct list *connections)
{
    while (!list_is_empty(connections)) {
        struct connection *connection = CONTAINER_OF(connections->next, struct connection, link);
        admission_leave(upstream->admission, connection->state >= CONNECTION_READY);
        dial_end(connection);
        connection_destroy(connection);
    }
}

void upstream_close(struct upstream *upstream)
{
    struct path *path = &upstream->path;
    if (!path->tls)
        return;
    list_remove(&upstream->link);
    deadline_cancel(&upstream->leave_deadline);
    self_check_stop(&upstream->self_check);
    destroy_all(upstream, &upstream->connections);
    destroy_all(upstream, &upstream->lanes);
    loop_remove_queue(&path->idle);
    loop_remove_queue(&path->late);
    assert(path->in_flight == 0);
    name_close(upstream->name);
    tls_client_close(path->tls);
}
