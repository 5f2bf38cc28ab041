// SPDX-License-Identifier: Apache-2.0
/* The product in its simulated world: opened as worker.c opens it, turned, held to its invariants
 * at the end of each turn, left alone until it is quiet, and closed. */
#include <string.h>
#include <sys/epoll.h>

#include "query/resolve.h"
#include "sim.h"
#include "upstream/upstream.h"

enum {
    TURN_MAX_MS = 1000,   /* as worker.c's */
    CLOSE_LOOK_TURNS = 8, /* all slots are looked at in every so many turns */
    QUIET_MS = 12000,     /* beyond the idle time of connections: every deadline is over */
    ALONE_MAX = 32,       /* of what is drawn for limits.upstream-requests the largest part below */
    ALONE_DIVISOR = 64,   /* of limits.queries, for lookups without queries */
    LANES_MAX = 64,
    REST_TURNS_MAX = 400, /* of one who has nothing to do, each second */
};

/* Late requests and silent connections are looked at every 50 ms. TLS may put a read off until it
 * has written, for which a slow reader lets it wait. */
#define SILENCE_SLACK_NS MILLISECONDS(has_fault(FAULT_TLS_TURNS) ? 600 : 200)

/* Of an upstream. */
struct counts {
    uint64_t requests;
    uint64_t hedges;
    uint64_t probes;
};

#define REST_NS MILLISECONDS(1000) /* between two reloads, as of control/reload.c */

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
    struct siphash_key self_key;
    struct config config; /* that of the plan; its snapshot is spoiled by the first reload */
    struct snapshot snapshots[2];
    struct snapshot *in_force;
    struct snapshot *former;                 /* of upstreams that leave; NULL: none do, */
    uint64_t reloaded_ns;                    /* and since when they do */
    struct counts before[SIM_UPSTREAMS_MAX]; /* counted before it was configured anew */
    struct loop_source network;              /* tells changes of the network */
    bool has_changed;                        /* the network, and nobody was told yet */
    bool has_slept;
    uint64_t last_jump;
    struct patience patience[SIM_UPSTREAMS_MAX];
    struct alone alone[ALONE_MAX];
    size_t alone_count;
    struct group_view view; /* of the end of this turn */
    uint64_t sent;          /* requests, ever */
    enum view_health health[SIM_UPSTREAMS_MAX];
} world;

static const char *const health_words[] = {"up", "silent", "doubted", "down", "gone"};

/* --- Invariants --- */

struct sums {
    size_t phases[PHASE_COUNT];
    size_t in_flight;
    size_t taking; /* requests, */
    size_t spares; /* as well */
};

/* What an upstream's rtt makes of timeouts.request may shrink from one answer to the next, and is
 * looked at only now and then: the largest of the last moments counts. */
static void note_patience(size_t index)
{
    const uint64_t dead_ns = world.view.upstreams[index].dead_ns;
    struct patience *patience = &world.patience[index];
    if (dead_ns > plan.config.snapshot.timeouts.request_ns)
        sim_fail("a path may be silent for longer than timeouts.request");
    if (dead_ns < patience->dead_ns && net_now() - patience->noted_ns < SILENCE_SLACK_NS)
        return;
    *patience = (struct patience){.dead_ns = dead_ns, .noted_ns = net_now()};
}

/* How long a connection may be silent: what is lost on the way tells sooner. */
static uint64_t patience_ns(const struct connection_view *connection)
{
    const uint64_t blocked_ns = net_blocked_since(connection->fd);
    const uint64_t late_ns = world.view.upstreams[connection->upstream].late_ns;
    uint64_t dead_ns = plan.config.snapshot.timeouts.request_ns * 3 / 2;
    if (blocked_ns > 0 && net_now() - blocked_ns > SILENCE_SLACK_NS)
        dead_ns = world.patience[connection->upstream].dead_ns;
    return (dead_ns > late_ns ? dead_ns : late_ns) + SILENCE_SLACK_NS;
}

/* On a lane nobody waits behind another, so that it costs nobody anything. */
static bool is_patient(const struct connection_view *connection)
{
    return connection->is_lane && net_blocked_since(connection->fd) == 0;
}

/* A request that waits on a silent connection, whatever else was sent there, shows that the path is
 * dead, or the upstream (F5); one that was passed over while what came later was answered, nothing.
 * It must be late before that is looked at, and late ones and silence are looked at again and
 * again. */
static void check_silence(void)
{
    if (net_last_jump() > 0)
        return;
    for (size_t i = 0; i < world.view.request_count; i++) {
        const struct request_view *request = &world.view.requests[i];
        const struct connection_view *connection = &world.view.connections[request->connection];
        if (request->is_own || !connection->is_open || is_patient(connection) ||
            request->sent_ns < connection->answered_sent_ns)
            continue;
        const uint64_t patience = patience_ns(connection);
        if (net_now() - request->sent_ns > patience &&
            net_now() - net_last_heard(connection->fd) > patience)
            sim_fail("a dead path is not noticed (F5)");
    }
}

/* From the beginning of the run. */
static struct counts counts_of(size_t index)
{
    const struct upstream_metrics *metrics = &world.metrics->upstreams[index];
    const struct counts *before = &world.before[index];
    return (struct counts){
        .requests = before->requests + metric_get(&metrics->requests),
        .hedges = before->hedges + metric_get(&metrics->hedges),
        .probes = before->probes + metric_get(&metrics->probes),
    };
}

uint64_t world_plain_requests(void)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < plan.upstream_count; i++) {
        const struct counts counts = counts_of(i);
        sum += counts.requests - counts.hedges;
    }
    return sum;
}

static struct sums sum_connections(size_t index)
{
    struct sums sums = {0};
    for (size_t i = 0; i < world.view.connection_count; i++) {
        const struct connection_view *connection = &world.view.connections[i];
        if (connection->upstream != index)
            continue;
        if (connection->is_lane && connection->in_flight > 1)
            sim_fail("%u questions on a lane", connection->in_flight);
        sums.phases[connection->phase]++;
        sums.in_flight += connection->in_flight;
        sums.taking += connection->takes_requests && connection->is_main;
        sums.spares += connection->takes_requests && !connection->is_main && !connection->is_lane;
    }
    return sums;
}

static void check_gauges(size_t index, const struct sums *sums)
{
    const struct upstream_view *upstream = &world.view.upstreams[index];
    const struct upstream_metrics *metrics = &world.metrics->upstreams[index];
    const struct counts counts = counts_of(index);
    if (metric_get(&metrics->connecting) != sums->phases[PHASE_CONNECTING] ||
        metric_get(&metrics->handshaking) != sums->phases[PHASE_HANDSHAKING] ||
        metric_get(&metrics->ready) != sums->phases[PHASE_READY] ||
        metric_get(&metrics->draining) != sums->phases[PHASE_DRAINING])
        sim_fail("the gauges of upstream %zu are not its connections", index);
    if (metric_get(&metrics->in_flight) != sums->in_flight - upstream->own ||
        upstream->in_flight != sums->in_flight - upstream->own)
        sim_fail("%zu requests in flight at upstream %zu, %u counted", sums->in_flight, index,
                 upstream->in_flight);
    if (metric_get(&metrics->up) != (upstream->health < HEALTH_DOUBTED) &&
        upstream->health != HEALTH_GONE)
        sim_fail("the gauge `up` of upstream %zu is not its health", index);
    /* A change of the network makes it forget its failures, and its back-off with them. */
    if (upstream->health == HEALTH_DOWN && upstream->failures == 0 &&
        metric_get(&metrics->network_changes) == 0)
        sim_fail("upstream %zu is down though it has answered since", index);
    if (counts.requests < upstream_queries(index))
        sim_fail("upstream %zu got more queries than requests were counted", index);
    if (counts.probes < upstream_probes(index))
        sim_fail("upstream %zu got more probes than were counted", index);
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

/* FAULTS K2: no close of an open connection takes an upstream down, nor do all of them together. */
static void check_down(size_t index)
{
    if (world.view.upstreams[index].health == HEALTH_DOWN && upstreams_end_only_what_is_open())
        sim_fail("upstream %zu is down, though all that it does is to close (K2)", index);
}

/* FAULTS F8: whatever a message is, the framing is intact, and so is the connection; but not one on
 * which nothing else comes. */
static void check_framing(size_t index)
{
    enum { UNMATCHED_MAX = 64 };
    const struct upstream_metrics *metrics = &world.metrics->upstreams[index];
    if (metric_get(&metrics->failures[FAILURE_PROTOCOL]) > 0 &&
        metric_get(&metrics->unmatched) < UNMATCHED_MAX)
        sim_fail("a connection to upstream %zu has ended for a message (F8)", index);
}

static size_t check_upstream(size_t index)
{
    const struct upstream_view *upstream = &world.view.upstreams[index];
    const struct sums sums = sum_connections(index);
    note_patience(index);
    check_gauges(index, &sums);
    check_down(index);
    if (sums.taking > upstream->main_max || sums.spares > SPARES_MAX + 1)
        sim_fail("%zu connections and %zu spare ones to upstream %zu", sums.taking, sums.spares,
                 index);
    check_framing(index);
    if (index == plan.healthy && upstream->failures > 0 && !may_seem_dead())
        sim_fail("the healthy upstream is said to have failed");
    if (upstream->health != world.health[index])
        sim_tell("upstream %zu is %s", index, health_words[upstream->health]);
    world.health[index] = upstream->health;
    return sums.in_flight - upstream->own;
}

static void check_upstreams(void)
{
    size_t in_flight = 0;
    for (size_t i = 0; i < world.view.upstream_count; i++)
        in_flight += check_upstream(i);
    const size_t lookups = world.resolver.lookups.in_use - world.resolver.ended_count;
    if (world.view.lane_count > LANES_MAX)
        sim_fail("%zu connections for one question at a time", world.view.lane_count);
    if (world.view.connection_count != net_open_links())
        sim_fail("%zu connections, %zu sockets", world.view.connection_count, net_open_links());
    if (in_flight + world.view.parked + world.view.queued < lookups || in_flight > 2 * lookups)
        sim_fail("%zu requests in flight for %zu lookups", in_flight, lookups);
}

/* Slots and silence in some turns, for there may be many of the former. */
static void look_closely(void)
{
    const char *flaw = view_flaw(world.group);
    if (flaw)
        sim_fail("%s", flaw);
    check_silence();
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

/* At requests when something was asked since, which it returns. */
static bool look_at_group(bool is_close)
{
    uint64_t sent = 0;
    for (size_t i = 0; i < plan.upstream_count; i++)
        sent += counts_of(i).requests;
    if (!view_group(world.group, is_close || sent != world.sent, &world.view))
        sim_fail("more connections or requests than anybody should need");
    const bool has_asked = sent != world.sent;
    world.sent = sent;
    return has_asked;
}

void world_check_turn(void)
{
    if (!world.is_open)
        return;
    check_lookups();
    clients_check();
    clients_check_counters();
    const bool is_close = net_turns() % CLOSE_LOOK_TURNS == 0;
    const bool has_asked = look_at_group(is_close);
    requests_check(&world.view, has_asked);
    check_upstreams();
    if (is_close)
        look_closely();
    check_ended();
}

/* --- A run --- */

static enum status open_resolver(void)
{
    world.config = plan.config;
    world.in_force = &world.config.snapshot;
    const struct group_settings settings = {
        .config = &world.config,
        .loop = &world.loop,
        .metrics = world.metrics,
        .self_key = plan.has_self_check ? &world.self_key : NULL,
    };
    TRY(group_open(&settings, &world.group));
    world.resolver.config = &world.config;
    world.resolver.loop = &world.loop;
    world.resolver.metrics = world.metrics;
    world.resolver.cache = world.cache;
    world.resolver.group = world.group;
    world.resolver.self_key = settings.self_key;
    return resolver_open(&world.resolver);
}

/* Memory may be short even then; false when it was. */
static bool open_world(void)
{
    memset(&world, 0, sizeof(world));
    world.self_key = (struct siphash_key){.k0 = random_below(UINT64_MAX), .k1 = 1};
    world.metrics = metrics_open(plan.upstream_count);
    if (loop_open(&world.loop) != STATUS_OK ||
        (plan.has_cache && cache_open(plan.config.cache_size_bytes, &plan.config.snapshot.cache,
                                      &world.cache) != STATUS_OK))
        sim_fail("the world cannot be opened");
    net_allow_failing_allocations(true);
    const enum status status = open_resolver();
    if (status != STATUS_OK && !has_fault(FAULT_ALLOCATION))
        sim_fail("the resolver cannot be opened");
    return status == STATUS_OK;
}

/* --- The network and the machine's sleep --- */

const struct siphash_key *world_self_key(void)
{
    return plan.has_self_check ? &world.self_key : NULL;
}

bool world_has_erred(size_t index)
{
    assert(index < plan.upstream_count);
    return world.view.upstreams[index].has_erred;
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

/* Connections are dropped where another way leads now, and nowhere else (J8). */
static void on_network(struct loop_source *source, uint32_t events)
{
    uint64_t changes[SIM_UPSTREAMS_MAX];
    (void)source;
    (void)events;
    world.has_changed = false;
    sim_tell("the network is said to have changed");
    clients_note_network_change();
    if (!view_group(world.group, false, &world.view))
        sim_fail("more connections than anybody should need");
    for (size_t i = 0; i < plan.upstream_count; i++)
        changes[i] = metric_get(&world.metrics->upstreams[i].network_changes) +
                     (world.view.upstreams[i].health != HEALTH_GONE &&
                      world.view.upstreams[i].source != upstream_source(i));
    group_network_changed(world.group);
    for (size_t i = 0; i < plan.upstream_count; i++) {
        const uint64_t dropped = metric_get(&world.metrics->upstreams[i].network_changes);
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

/* Without it there might be nobody who does better than those that answer with errors. */
static bool is_needed(size_t index)
{
    return has_fault(FAULT_ERRORS_FOR_ALL) && !upstream_has(FAULT_ERRORS_FOR_ALL, index);
}

/* In any order; three of four stay or come, the healthy one always, and one at least. */
static void draw_snapshot(struct snapshot *snapshot)
{
    const struct upstream_config *all = plan.config.snapshot.upstreams;
    const size_t count = plan.upstream_count;
    const size_t first = random_below(count);
    const size_t kept = plan.healthy < count ? plan.healthy : first;
    *snapshot = plan.config.snapshot;
    snapshot->strategy = (enum strategy)random_below(4);
    snapshot->upstream_count = 0;
    for (size_t i = 0; i < count; i++) {
        const size_t index = (first + i) % count;
        if (index == kept || is_needed(index) || random_below(4) > 0)
            snapshot->upstreams[snapshot->upstream_count++] = all[index];
    }
}

/* What is counted begins anew with an upstream that comes again, as another one. */
static void note_counts(const struct snapshot *next)
{
    for (size_t i = 0; i < next->upstream_count; i++) {
        const size_t slot = next->upstreams[i].slot;
        if (world.view.upstreams[slot].health != HEALTH_GONE)
            continue;
        world.before[slot] = counts_of(slot);
        clients_note_upstream(slot);
    }
}

/* As main.c and worker.c do it. */
static void reload(void)
{
    if (world.former || (world.reloaded_ns > 0 && net_now() - world.reloaded_ns < REST_NS))
        return; /* one after the other */
    world.former = world.in_force;
    world.reloaded_ns = net_now();
    world.in_force =
        world.former == &world.snapshots[0] ? &world.snapshots[1] : &world.snapshots[0];
    draw_snapshot(world.in_force);
    sim_tell("the configuration is read anew, with %zu upstreams", world.in_force->upstream_count);
    note_counts(world.in_force);
    const upstream_set changed = group_reload(world.group, world.in_force);
    resolver_reload(&world.resolver, world.in_force, changed);
}

/* Whoever still goes by the snapshot before meets nonsense. */
static void end_reload(void)
{
    if (!world.former)
        return;
    const uint64_t leave_ns = plan.config.snapshot.timeouts.request_ns + MILLISECONDS(TURN_MAX_MS);
    if (group_is_leaving(world.group)) {
        if (net_now() - world.reloaded_ns > leave_ns && net_last_jump() == 0)
            sim_fail("upstreams are removed, and do not go");
        return;
    }
    memset(world.former, 0xa5, sizeof(*world.former));
    world.former = NULL;
}

/* As worker.c does it, after a turn. */
static void turn(void)
{
    if (!loop_turn(&world.loop, MILLISECONDS(TURN_MAX_MS)))
        sim_fail("a turn failed");
    if (fault_happens(FAULT_RELOAD))
        reload();
    end_reload();
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
    const uint64_t quiet_ns = plan.config.snapshot.timeouts.idle_ns +
                              plan.config.snapshot.timeouts.connect_ns +
                              plan.config.snapshot.timeouts.handshake_ns +
                              4 * plan.config.snapshot.timeouts.request_ns + MILLISECONDS(QUIET_MS);
    while (net_now() < began_ns + quiet_ns || net_now() < net_last_jump() + quiet_ns)
        turn();
    if (world.resolver.queries.in_use + world.resolver.lookups.in_use > 0 ||
        world.resolver.alone_count > 0)
        sim_fail("queries or lookups are left");
    if (world.resolver.output.used > 0)
        sim_fail("%zu bytes of output are left", world.resolver.output.used);
    if (net_open_links() > 0)
        sim_fail("%zu connections are open long after their idle time", net_open_links());
    for (size_t i = 0; i < plan.upstream_count; i++)
        if (metric_get(&world.metrics->upstreams[i].in_flight) > 0)
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
