// SPDX-License-Identifier: Apache-2.0
/* The product in its simulated world: opened as worker.c opens it, turned, held to its invariants
 * at the end of each turn, left alone until it is quiet, and closed. */
#include <string.h>
#include <sys/epoll.h>

#include "query/lookup.h"
#include "sim.h"
#include "upstream/internal.h"

enum {
    TURN_MAX_MS = 1000,    /* as worker.c's */
    SLOTS_CHECK_TURNS = 8, /* all slots are looked at in every so many turns */
    QUIET_MS = 12000,      /* beyond the idle time of connections: every deadline is over */
    TRIALS_MAX = 4,
    ALONE_MAX = 32,       /* of what is drawn for limits.upstream-requests the largest part below */
    ALONE_DIVISOR = 64,   /* of limits.queries, for lookups without queries */
    REST_TURNS_MAX = 400, /* of one who has nothing to do, each second */
};

/* Late requests and silent connections are looked at every 50 ms. TLS may put a read off until it
 * has written, for which a slow reader lets it wait. */
#define SILENCE_SLACK_NS MILLISECONDS(has_fault(FAULT_TLS_TURNS) ? 600 : 200)

struct alone {
    const struct deadline *deadline;
    uint64_t armed_ns;
    uint64_t since_ns;
};

struct patience {
    uint64_t dead_ns;
    uint64_t noted_ns;
};

static struct {
    bool is_open;
    struct loop loop;
    struct metrics *metrics;
    struct cache *cache;
    struct group *group;
    struct resolver resolver;
    struct siphash_key loop_key;
    struct loop_source network; /* tells changes of the network */
    bool has_changed;           /* the network, and nobody was told yet */
    bool has_slept;
    uint64_t last_jump;
    struct patience patience[SIM_UPSTREAMS_MAX];
    struct alone alone[ALONE_MAX];
    size_t alone_count;
} world;

/* --- Invariants --- */

struct sums {
    size_t states[CONNECTION_CLOSED];
    size_t connections;
    size_t in_flight;
};

static void check_slots(const struct connection *connection)
{
    const size_t count = connection->slots_used;
    const size_t all = world.group->slot_count;
    size_t in_flight = 0;
    size_t abandoned = 0;
    size_t free_slots = 0;
    for (size_t i = 0; i < count; i++) {
        in_flight += connection->slots[i].request != NULL;
        abandoned += connection->slots[i].abandoned_ms > 0;
    }
    for (size_t i = connection->first_free; i < all; i = connection->slots[i].next_free)
        if (++free_slots > count)
            sim_fail("the free slots go in a circle");
    if (in_flight != connection->in_flight || abandoned != connection->abandoned)
        sim_fail("%zu requests and %zu abandoned IDs in the slots, %u and %u counted", in_flight,
                 abandoned, connection->in_flight, connection->abandoned);
    if (in_flight + abandoned + free_slots != count)
        sim_fail("of %zu slots %zu are in flight, %zu abandoned and %zu free", count, in_flight,
                 abandoned, free_slots);
}

/* What an upstream's p95 makes of timeouts.request may shrink from one answer to the next, and is
 * looked at only now and then: the largest of the last moments counts. */
static void note_patience(const struct upstream *upstream)
{
    const uint64_t dead_ns = upstream_dead_ns(upstream);
    struct patience *patience = &world.patience[upstream->index];
    if (dead_ns > plan.config.timeouts.request_ns)
        sim_fail("a path may be silent for longer than timeouts.request");
    if (dead_ns < patience->dead_ns && net_now() - patience->noted_ns < SILENCE_SLACK_NS)
        return;
    *patience = (struct patience){.dead_ns = dead_ns, .noted_ns = net_now()};
}

/* How long a connection may be silent: what is lost on the way tells sooner. */
static uint64_t patience_ns(const struct connection *connection)
{
    const struct upstream *upstream = connection->upstream;
    const uint64_t blocked_ns = net_blocked_since(connection->stream.fd);
    const uint64_t late_ns = upstream->late.duration_ns;
    uint64_t dead_ns = plan.config.timeouts.request_ns * 3 / 2;
    if (blocked_ns > 0 && net_now() - blocked_ns > SILENCE_SLACK_NS)
        dead_ns = world.patience[upstream->index].dead_ns;
    return (dead_ns > late_ns ? dead_ns : late_ns) + SILENCE_SLACK_NS;
}

/* A request that waits on a silent connection, whatever else was sent there, shows that the path is
 * dead, or the upstream (F5). It must be late before that is looked at, and late ones and silence
 * are looked at again and again. */
static void check_silence(const struct connection *connection)
{
    if (connection->stream.state != STREAM_OPEN || net_last_jump() > 0)
        return;
    const uint64_t patience = patience_ns(connection);
    const uint64_t heard_ns = net_last_heard(connection->stream.fd);
    for (size_t i = 0; i < connection->slots_used; i++) {
        const struct request *request = connection->slots[i].request;
        if (request && !loop_check_owns(connection->upstream, request) &&
            net_now() - request->sent_ns > patience && net_now() - heard_ns > patience)
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
    /* More than the limit only on trial, while all upstreams are down. */
    if (taking > plan.config.limits.upstream_connections && taking > TRIALS_MAX)
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
    const size_t checks = upstream->loop_check.request.connection != NULL;
    if (metric_get(&metrics->in_flight) != sums->in_flight - checks ||
        upstream->in_flight != sums->in_flight - checks)
        sim_fail("%zu requests in flight at upstream %zu, %u counted", sums->in_flight,
                 upstream->index, upstream->in_flight);
    if (metric_get(&metrics->up) != !upstream->down)
        sim_fail("the gauge `up` of upstream %zu is not its health", upstream->index);
    /* A change of the network makes it forget its failures, and its back-off with them. */
    if (upstream->down && upstream->failures == 0 && metric_get(&metrics->network_changes) == 0)
        sim_fail("upstream %zu is down though it has answered since", upstream->index);
    if (metric_get(&metrics->requests) < upstream_queries(upstream->index))
        sim_fail("upstream %zu got more queries than requests were counted", upstream->index);
    if (metric_get(&metrics->probes) < upstream_probes(upstream->index))
        sim_fail("upstream %zu got more probes than were counted", upstream->index);
}

/* Who is left over when an answer has come has it in the next turns: each gives it to one at least.
 */
static void check_ended(void)
{
    static unsigned turns;
    turns = world.resolver.ended_count > 0 ? turns + 1 : 0;
    if (turns > SIM_QUERIES_MAX)
        sim_fail("%zu lookups have ended, and their queries wait", world.resolver.ended_count);
}

/* With nothing but silence aboard a path that is no more is left at once, before it is told that
 * the network has changed. */
static bool may_seem_dead(void)
{
    return has_fault(FAULT_NETWORK) && (has_fault(FAULT_GREEDY) || has_fault(FAULT_FORGED));
}

static void check_upstreams(bool with_slots)
{
    size_t connections = 0;
    size_t in_flight = 0;
    for (size_t i = 0; i < world.group->upstream_count; i++) {
        const struct upstream *upstream = &world.group->upstreams[i];
        note_patience(upstream);
        const struct sums sums = check_connections(upstream, with_slots);
        check_gauges(upstream, &sums);
        if (i == plan.healthy && upstream->failures > 0 && !may_seem_dead())
            sim_fail("the healthy upstream is said to have failed");
        connections += sums.connections;
        in_flight += sums.in_flight - (upstream->loop_check.request.connection != NULL);
    }
    const size_t lookups = world.resolver.lookups.in_use - world.resolver.ended_count;
    if (connections != net_open_links())
        sim_fail("%zu connections, %zu sockets", connections, net_open_links());
    if (in_flight < lookups || in_flight > 2 * lookups)
        sim_fail("%zu requests in flight for %zu lookups", in_flight, lookups);
}

static size_t count_armed(const struct deadline_queue *queue)
{
    size_t count = 0;
    for (const struct list *link = queue->armed.next; link != &queue->armed; link = link->next)
        count++;
    return count;
}

/* No lookup goes on without queries for longer than a query would wait. One whose deadline was
 * armed anew before it was due is another one. */
static void check_alone(void)
{
    const struct deadline_queue *queue = &world.resolver.alone_lookups;
    struct alone alone[ALONE_MAX];
    size_t count = 0;
    for (struct list *link = queue->armed.next; link != &queue->armed && count < ALONE_MAX;
         link = link->next) {
        const struct deadline *deadline = CONTAINER_OF(link, struct deadline, link);
        struct alone one = {deadline, deadline->armed_ns, deadline->armed_ns};
        for (size_t i = 0; i < world.alone_count; i++)
            if (world.alone[i].deadline == deadline &&
                (world.alone[i].armed_ns == one.armed_ns ||
                 world.alone[i].armed_ns + queue->duration_ns <= one.armed_ns))
                one.since_ns = world.alone[i].since_ns;
        if (net_now() - one.since_ns > queue->duration_ns + MILLISECONDS(1) && net_last_jump() == 0)
            sim_fail("a lookup without queries does not end");
        alone[count++] = one;
    }
    memcpy(world.alone, alone, count * sizeof(alone[0]));
    world.alone_count = count;
}

/* Each query that waits has one deadline at a time, and so has each lookup without queries. */
static void check_lookups(void)
{
    const struct resolver *resolver = &world.resolver;
    const size_t waiting = resolver->waiting_count;
    const size_t alone = resolver->alone_count;
    if (metric_get(&world.metrics->queries_in_flight) != waiting ||
        resolver->queries.in_use != waiting)
        sim_fail("%zu queries wait, %zu are out of the pool", waiting, resolver->queries.in_use);
    if (count_armed(&resolver->young_queries) + count_armed(&resolver->slow_queries) +
            count_armed(&resolver->query_deadlines) !=
        waiting)
        sim_fail("not each of %zu queries has a deadline", waiting);
    if (metric_get(&world.metrics->lookups_in_flight) != resolver->lookups.in_use ||
        resolver->lookups.in_use > waiting + alone || resolver->lookups.in_use < alone)
        sim_fail("%zu lookups for %zu queries, and %zu without", resolver->lookups.in_use, waiting,
                 alone);
    const size_t alone_max = plan.config.limits.queries / ALONE_DIVISOR;
    if (alone != count_armed(&resolver->alone_lookups) || alone > (alone_max ? alone_max : 1))
        sim_fail("%zu lookups without queries", alone);
    check_alone();
}

void world_check_turn(void)
{
    if (!world.is_open)
        return;
    check_lookups();
    clients_check();
    clients_check_counters();
    requests_check(world.group);
    check_upstreams(net_turns() % SLOTS_CHECK_TURNS == 0);
    check_ended();
}

/* --- A run --- */

static enum status open_resolver(void)
{
    static const struct tls_trust *const trusts[SIM_UPSTREAMS_MAX];
    const struct group_settings settings = {
        .config = &plan.config,
        .loop = &world.loop,
        .metrics = world.metrics,
        .trusts = trusts,
        .loop_key = plan.has_loop_check ? &world.loop_key : NULL,
    };
    TRY(group_open(&settings, &world.group));
    world.resolver.config = &plan.config;
    world.resolver.loop = &world.loop;
    world.resolver.metrics = world.metrics;
    world.resolver.cache = world.cache;
    world.resolver.group = world.group;
    world.resolver.loop_key = settings.loop_key;
    return resolver_open(&world.resolver);
}

/* Memory may be short even then; false when it was. */
static bool open_world(void)
{
    memset(&world, 0, sizeof(world));
    world.loop_key = (struct siphash_key){.k0 = random_below(UINT64_MAX), .k1 = 1};
    world.metrics = metrics_open(plan.upstream_count);
    if (loop_open(&world.loop) != STATUS_OK ||
        (plan.has_cache && cache_open(&plan.config.cache, &world.cache) != STATUS_OK))
        sim_fail("the world cannot be opened");
    net_allow_failing_allocations(true);
    const enum status status = open_resolver();
    if (status != STATUS_OK && !has_fault(FAULT_ALLOCATION))
        sim_fail("the resolver cannot be opened");
    return status == STATUS_OK;
}

/* --- The network and the machine's sleep --- */

const struct siphash_key *world_loop_key(void)
{
    return plan.has_loop_check ? &world.loop_key : NULL;
}

void world_change_network(bool has_slept)
{
    world.has_changed = true;
    world.has_slept = world.has_slept || has_slept;
}

static bool network_has_changed(void)
{
    return world.has_changed;
}

/* Our address towards it, by which the product judges, 0: no way leads there. */
static uint32_t known_source(const struct upstream *upstream)
{
    return upstream->has_route ? ntohl(upstream->source.v4.sin_addr.s_addr) : 0;
}

/* Connections are dropped where another way leads now, and nowhere else (J8). */
static void on_network(struct loop_source *source, uint32_t events)
{
    uint64_t changes[SIM_UPSTREAMS_MAX];
    (void)source;
    (void)events;
    world.has_changed = false;
    sim_tell("the network is said to have changed");
    for (size_t i = 0; i < plan.upstream_count; i++) {
        const struct upstream *upstream = &world.group->upstreams[i];
        changes[i] = metric_get(&upstream->metrics->network_changes) +
                     (known_source(upstream) != upstream_source(i));
    }
    group_network_changed(world.group);
    for (size_t i = 0; i < plan.upstream_count; i++) {
        const uint64_t dropped = metric_get(&world.group->upstreams[i].metrics->network_changes);
        if (dropped > changes[i] || (dropped < changes[i] && !has_fault(FAULT_DESCRIPTORS)))
            sim_fail("the way to upstream %zu has %schanged (J8)", i,
                     dropped > changes[i] ? "not " : "");
    }
}

static void watch_network(void)
{
    world.network = (struct loop_source){.fd = -1, .on_ready = on_network};
    if (loop_add(&world.loop, &world.network, net_open_bell(network_has_changed), EPOLLIN) !=
        STATUS_OK)
        sim_fail("the network cannot be watched");
}

/* As worker.c does it, after a turn. */
static void turn(void)
{
    if (!loop_turn(&world.loop, MILLISECONDS(TURN_MAX_MS)))
        sim_fail("a turn failed");
    if (!world.has_slept && world.last_jump == net_last_jump())
        return;
    world.has_slept = false;
    world.last_jump = net_last_jump();
    group_resumed(world.group);
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
    if (world.resolver.queries.in_use + world.resolver.lookups.in_use > 0 ||
        world.resolver.alone_count > 0)
        sim_fail("queries or lookups are left");
    if (world.resolver.output.used > 0)
        sim_fail("%zu bytes of output are left", world.resolver.output.used);
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
    sim_clients_open(&world.resolver);
    watch_network();
    world.is_open = true;
    while (!clients_are_done() && !(has_fault(FAULT_ABRUPT_END) && net_now() >= ends_ns))
        turn();
    if (clients_are_done())
        check_quiet();
    else
        fault_counts[FAULT_ABRUPT_END]++;
    world_check_turn();
    world.is_open = false;
    loop_remove(&world.loop, &world.network);
    sim_clients_close();
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
    requests_reset();
    if (open_world())
        run_clients();
    close_world();
    net_check_closed();
    upstreams_close();
    net_reset();
    return sim_digest();
}
