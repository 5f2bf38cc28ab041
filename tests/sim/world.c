// SPDX-License-Identifier: Apache-2.0
/* The product in its simulated world: opened as worker.c opens it, turned, held to its invariants
 * at the end of each turn, left alone until it is quiet, and closed. */
#include <string.h>

#include "query/lookup.h"
#include "sim.h"
#include "upstream/internal.h"

enum {
    TURN_MAX_MS = 1000,    /* as worker.c's */
    SLOTS_CHECK_TURNS = 8, /* all slots are looked at in every so many turns */
    QUIET_MS = 12000,      /* beyond the idle time of connections: every deadline is over */
    HEDGES_PERCENT = 5,
    HEDGES_FREE = 10,     /* so that there is one before there are many requests */
    REST_TURNS_MAX = 400, /* of one who has nothing to do, each second */
};

static struct {
    bool is_open;
    struct loop loop;
    struct metrics *metrics;
    struct cache *cache;
    struct group *group;
    struct resolver resolver;
} world;

/* --- Invariants --- */

struct sums {
    size_t states[CONNECTION_CLOSED];
    size_t connections;
    size_t in_flight;
};

static void check_slots(const struct connection *connection)
{
    const size_t count = world.group->slot_count;
    size_t in_flight = 0;
    size_t abandoned = 0;
    size_t free_slots = 0;
    for (size_t i = 0; i < count; i++) {
        in_flight += connection->slots[i].request != NULL;
        abandoned += connection->slots[i].abandoned_ms > 0;
    }
    for (size_t i = connection->first_free; i < count; i = connection->slots[i].next_free)
        if (++free_slots > count)
            sim_fail("the free slots go in a circle");
    if (in_flight != connection->in_flight || abandoned != connection->abandoned)
        sim_fail("%zu requests and %zu abandoned IDs in the slots, %u and %u counted", in_flight,
                 abandoned, connection->in_flight, connection->abandoned);
    if (in_flight + abandoned + free_slots != count)
        sim_fail("of %zu slots %zu are in flight, %zu abandoned and %zu free", count, in_flight,
                 abandoned, free_slots);
}

/* A request that waits on a silent connection, whatever else was sent there, shows that the path is
 * dead (F5). Silence is looked at once in timeouts.request, so it is noticed within two of them. */
static void check_silence(const struct connection *connection)
{
    if (connection->stream.state != STREAM_OPEN || net_last_jump() > 0)
        return;
    const uint64_t patience_ns = 2 * plan.config.timeouts.request_ns;
    const uint64_t heard_ns = net_last_heard(connection->stream.fd);
    for (size_t i = 0; i < world.group->slot_count; i++) {
        const struct request *request = connection->slots[i].request;
        if (request && net_now() - request->sent_ns > patience_ns &&
            net_now() - heard_ns > patience_ns)
            sim_fail("a dead path is not noticed (F5)");
    }
}

static struct sums check_connections(const struct upstream *upstream, bool with_slots)
{
    struct sums sums = {0};
    size_t taking = 0;
    for (struct list *link = upstream->connections.next; link != &upstream->connections;
         link = link->next) {
        const struct connection *connection = CONTAINER_OF(link, struct connection, link);
        sums.states[connection->state]++;
        sums.connections++;
        sums.in_flight += connection->in_flight;
        taking += connection_takes_requests(connection);
        if (with_slots) {
            check_slots(connection);
            check_silence(connection);
        }
    }
    if (taking > plan.config.limits.upstream_connections)
        sim_fail("%zu connections to upstream %zu", taking, upstream->index);
    return sums;
}

static void check_gauges(const struct upstream *upstream, const struct sums *sums)
{
    const struct upstream_metrics *metrics = upstream->metrics;
    if (metric_get(&metrics->connecting) != sums->states[CONNECTION_CONNECTING] ||
        metric_get(&metrics->handshaking) != sums->states[CONNECTION_HANDSHAKING] ||
        metric_get(&metrics->ready) != sums->states[CONNECTION_READY] ||
        metric_get(&metrics->draining) != sums->states[CONNECTION_DRAINING])
        sim_fail("the gauges of upstream %zu are not its connections", upstream->index);
    if (metric_get(&metrics->in_flight) != sums->in_flight ||
        upstream->in_flight != sums->in_flight)
        sim_fail("%zu requests in flight at upstream %zu, %u counted", sums->in_flight,
                 upstream->index, upstream->in_flight);
    if (metric_get(&metrics->up) != !upstream->down)
        sim_fail("the gauge `up` of upstream %zu is not its health", upstream->index);
    if (upstream->down && upstream->failures == 0)
        sim_fail("upstream %zu is down though it has answered since", upstream->index);
    if (metric_get(&metrics->requests) < upstream_queries(upstream->index))
        sim_fail("upstream %zu got more queries than requests were counted", upstream->index);
}

/* The sum of an upstream counter over all upstreams, 0 when metrics.def has no row of that name. */
static uint64_t upstream_counter(const char *wanted)
{
    uint64_t sum = 0;
#define ADD_COUNTER(field) sum += metric_get(&world.metrics->upstreams[i].field)
#define ADD_GAUGE(field) (void)0
#define ADD_FAILURES(field) (void)0
#define UPSTREAM_METRIC(type, field, name, labels, help) \
    if (strcmp(name, wanted) == 0)                       \
        ADD_##type(field);
    for (size_t i = 0; i < plan.upstream_count; i++) {
#include "observe/metrics.def"
    }
#undef ADD_COUNTER
#undef ADD_GAUGE
#undef ADD_FAILURES
    return sum;
}

/* A late request is asked a second time only within a budget, lest an overloaded upstream gets
 * twice its load. */
static void check_hedges(void)
{
    const uint64_t hedges = upstream_counter("dnsproxy_upstream_hedges_total");
    const uint64_t requests = upstream_counter("dnsproxy_upstream_requests_total");
    if (hedges > HEDGES_FREE + requests * HEDGES_PERCENT / 100)
        sim_fail("%llu of %llu requests are hedges", (unsigned long long)hedges,
                 (unsigned long long)requests);
}

static void check_upstreams(bool with_slots)
{
    size_t connections = 0;
    size_t in_flight = 0;
    for (size_t i = 0; i < world.group->upstream_count; i++) {
        const struct upstream *upstream = &world.group->upstreams[i];
        const struct sums sums = check_connections(upstream, with_slots);
        check_gauges(upstream, &sums);
        if (i == plan.healthy && upstream->failures > 0)
            sim_fail("the healthy upstream is said to have failed");
        connections += sums.connections;
        in_flight += sums.in_flight;
    }
    const size_t lookups = world.resolver.lookups.in_use;
    if (connections != net_open_links())
        sim_fail("%zu connections, %zu sockets", connections, net_open_links());
    if (in_flight < lookups || in_flight > 2 * lookups)
        sim_fail("%zu requests in flight for %zu lookups", in_flight, lookups);
}

void world_check_turn(void)
{
    if (!world.is_open)
        return;
    const struct resolver *resolver = &world.resolver;
    if (metric_get(&world.metrics->queries_in_flight) != resolver->waiting_count ||
        resolver->queries.in_use != resolver->waiting_count)
        sim_fail("%zu queries wait, %zu are out of the pool", resolver->waiting_count,
                 resolver->queries.in_use);
    if (metric_get(&world.metrics->lookups_in_flight) != resolver->lookups.in_use ||
        resolver->lookups.in_use > resolver->waiting_count)
        sim_fail("%zu lookups for %zu queries", resolver->lookups.in_use, resolver->waiting_count);
    clients_check();
    clients_check_counters();
    check_hedges();
    check_upstreams(net_turns() % SLOTS_CHECK_TURNS == 0);
}

/* --- A run --- */

static enum status open_resolver(void)
{
    static const struct tls_trust *const trusts[SIM_UPSTREAMS_MAX];
    const struct group_settings settings = {
        .config = &plan.config, .loop = &world.loop, .metrics = world.metrics, .trusts = trusts};
    TRY(group_open(&settings, &world.group));
    world.resolver.config = &plan.config;
    world.resolver.loop = &world.loop;
    world.resolver.metrics = world.metrics;
    world.resolver.cache = world.cache;
    world.resolver.group = world.group;
    return resolver_open(&world.resolver);
}

/* Memory may be short even then; false when it was. */
static bool open_world(void)
{
    const struct cache_limits limits = {.size_bytes = plan.config.cache.size_bytes,
                                        .ttl_max_s = plan.config.cache.ttl_max_s,
                                        .negative_ttl_max_s = plan.config.cache.negative_ttl_max_s};
    memset(&world, 0, sizeof(world));
    world.metrics = metrics_open(plan.upstream_count);
    if (loop_open(&world.loop) != STATUS_OK ||
        (plan.has_cache && cache_open(&limits, &world.cache) != STATUS_OK))
        sim_fail("the world cannot be opened");
    net_allow_failing_allocations(true);
    const enum status status = open_resolver();
    if (status != STATUS_OK && !has_fault(FAULT_ALLOCATION))
        sim_fail("the resolver cannot be opened");
    return status == STATUS_OK;
}

static void turn(void)
{
    if (!loop_turn(&world.loop, MILLISECONDS(TURN_MAX_MS)))
        sim_fail("a turn failed");
}

/* Nothing is asked any more: all must come home, and the loop must rest. */
static void check_quiet(void)
{
    const uint64_t began_ns = net_now();
    const uint64_t quiet_ns = plan.config.timeouts.idle_ns + plan.config.timeouts.connect_ns +
                              plan.config.timeouts.handshake_ns + plan.config.timeouts.request_ns +
                              MILLISECONDS(QUIET_MS);
    while (net_now() < began_ns + quiet_ns || net_now() < net_last_jump() + quiet_ns)
        turn();
    if (world.resolver.queries.in_use + world.resolver.lookups.in_use > 0)
        sim_fail("queries or lookups are left");
    if (net_open_links() > 0)
        sim_fail("%zu connections are open long after their idle time", net_open_links());
    for (size_t i = 0; i < world.group->upstream_count; i++)
        if (world.group->upstreams[i].in_flight > 0)
            sim_fail("requests are in flight with nobody waiting");
    const uint64_t turns = net_turns();
    const uint64_t from = net_now();
    while (net_now() < from + MILLISECONDS(10 * TURN_MAX_MS))
        turn();
    if (net_turns() - turns > REST_TURNS_MAX)
        sim_fail("%llu turns with nothing to do", (unsigned long long)(net_turns() - turns));
}

static void run_clients(void)
{
    const uint64_t ends_ns = net_now() + random_below(plan.duration_ns + MILLISECONDS(4000));
    clients_open(&world.resolver);
    world.is_open = true;
    while (!clients_are_done() && !(has_fault(FAULT_ABRUPT_END) && net_now() >= ends_ns))
        turn();
    if (clients_are_done())
        check_quiet();
    else
        fault_counts[FAULT_ABRUPT_END]++;
    world_check_turn();
    world.is_open = false;
    clients_close();
}

/* As worker_close does. */
static void close_world(void)
{
    if (world.group) {
        resolver_abort(&world.resolver);
        resolver_close(&world.resolver);
    }
    group_close(world.group);
    loop_close(&world.loop);
    cache_close(world.cache);
    metrics_close(world.metrics);
}

uint64_t sim_run(const struct sim_options *options)
{
    net_reset();
    plan_draw(options);
    if (options->verbose)
        plan_print();
    upstreams_reset();
    if (open_world())
        run_clients();
    close_world();
    net_check_closed();
    upstreams_close();
    net_reset();
    return sim_digest();
}
